// progress: see progress.h.
#include "progress.h"

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
