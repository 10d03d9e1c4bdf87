// progress: see progress.h.
#include "progress.h"

#include "cli.h"

#include <stdio.h>
#include <unistd.h>

Progress progress_start(volatile sig_atomic_t *interrupted, bool quiet) {
    return (Progress){.interrupted = interrupted, .visible = !quiet && isatty(STDERR_FILENO)};
}

// The cursor is kept where the prompt ends: saved, and restored behind the line.
bool progress_watch(void *progress, int done, int n) {
    Progress *p = progress;
    if (p->visible && done > 0 && n - done > 1) {
        fprintf(stderr, "\0337 reading %d of %d\033[K\0338", done, n);
        p->shown = true;
    }
    return !*p->interrupted;
}

void progress_end(Progress *p) {
    if (p->shown) fputs("\033[K", stderr);
    p->shown = false;
}

void print_held(const SessionInfo *info) {
    if (info->kv_bytes || !info->state_bytes) fprintf(stderr, " | KV %.2f MiB", (double)info->kv_bytes / 0x1p20);
    if (info->state_bytes) fprintf(stderr, " | state %.2f MiB", (double)info->state_bytes / 0x1p20);
    fprintf(stderr, " | peak %.1f MiB", (double)peak_rss_bytes() / 0x1p20);
}
