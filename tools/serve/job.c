// job: see job.h.
#include "job.h"

#include "cli.h"

#include <stdlib.h>
#include <time.h>

#include <stb/stb_ds.h>

double clock_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

Output *output_new(Job *job, int choice) {
    Output *e = calloc(1, sizeof *e);
    if (!e) die(1, "out of memory");
    *e = (Output){.job = job, .choice = choice};
    return e;
}

void output_fail(Output *e, const ApiError *error) {
    e->error = malloc(sizeof *error);
    if (!e->error) die(1, "out of memory");
    *e->error = *error;
}

void logprobs_free(LogprobEntry *list) {
    for (ptrdiff_t i = 0; i < arrlen(list); i++) arrfree(list[i].top);
    arrfree(list);
}

void output_free(Output *e) {
    free(e->text);
    free(e->thought);
    free(e->body);
    free(e->vector);
    free(e->error);
    callparts_free(e->calls);
    logprobs_free(e->logprobs);
    free(e);
}
