// progress: how far a prompt is read, on a terminal's stderr, and Ctrl-C between its blocks; what a session holds.
//
// Owns the one line that it shows and wipes, and the part of the statistics about memory. Shows nothing for a prompt of
// one block, or where stderr is no terminal. Called by run and dialogue through session_watch.
#pragma once
#include "tessera.h"

#include <signal.h>
#include <stdbool.h>

typedef struct {
    volatile sig_atomic_t *interrupted; // ends the reading
    bool visible;                       // stderr is a terminal and statistics are wanted
    bool shown;
} Progress;

Progress progress_start(volatile sig_atomic_t *interrupted, bool quiet);
bool progress_watch(void *progress, int done, int n); // a SessionWatcher
void progress_end(Progress *p);

// " | KV 1.00 MiB | state 2.00 MiB | peak 3.0 MiB" to stderr; each of the first two where the model has it.
void print_held(const SessionInfo *info);
