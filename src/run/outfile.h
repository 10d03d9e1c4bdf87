// outfile: the files that programs write. Called by every program that writes one.
//
// Owns where the bytes go and what is left behind. A regular file, or one that is not there yet, is written to a
// temporary beside it and renamed when it is complete: whoever opens the path finds the old file or the whole new one.
// The temporary goes when writing fails, when the program exits, and when SIGINT, SIGTERM, SIGHUP, SIGQUIT or SIGBUS
// ends it. An existing file's permissions are kept, and its owner where that is allowed; its other hard links keep the
// old content. A symbolic link stays, what it leads to is replaced. What is no regular file (a device, a FIFO), and
// what is open already ("-" and /dev/stdout, /dev/fd/N, /proc/self/fd/N), is written in place. Refuses directories,
// files without write permission, and more than MAX_OUT_FILES at once. For one thread.
#pragma once
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { MAX_OUT_FILES = 4 };

typedef struct {
    FILE *file;       // to write to; errors are found by outfile_finish at the latest
    const char *path; // as the caller named it, for messages; "-" is stdout
    char target[PATH_MAX];
    int slot; // of the temporary; -1: written in place
} OutFile;

// 0, or -1 with one line in err.
int outfile_open(OutFile *o, const char *path, char *err, size_t errlen);
// Everything is on its way to the disk, and the path leads to it; otherwise -1, and as outfile_abandon.
int outfile_finish(OutFile *o, char *err, size_t errlen);
// Closes and removes the temporary; what was written in place stays. Accepts a finished one.
void outfile_abandon(OutFile *o);
// What a failed write says after its reason: whether something is left.
const char *outfile_fate(const OutFile *o);
// Whether `path` is written to a temporary, that is, replaced.
bool outfile_replaces(const char *path);
