// profile: see profile.h.
#include "profile.h"

#include <stdio.h>
#include <time.h>

// seconds, monotonic
static double profile_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void profile_begin(Profile *p, int op) {
    if (!p || p->depth++) return;
    p->op = op;
    p->start = profile_clock();
}

void profile_end(Profile *p, double flops, double bytes) {
    if (!p) return;
    ProfileRow *row = &p->rows[p->op];
    row->flops += flops;
    row->bytes += bytes;
    if (--p->depth) return;
    row->calls++;
    row->seconds += profile_clock() - p->start;
    p->op = PROFILE_OTHER;
}

void profile_region(void *profile, RegionMoment moment) {
    Profile *p = profile;
    double now = profile_clock();
    switch (moment) {
    case REGION_OPENED: p->opened = now; break;
    case REGION_DRAINED: p->drained = now; break;
    case REGION_DONE: p->rows[p->op].inside += now - p->opened; p->rows[p->op].waiting += now - p->drained;
    }
}

const char *profile_name(int op, char *buffer, size_t size) {
    static const char *const names[PROFILE_MATVEC] = {
        [PROFILE_OTHER] = "other",           [PROFILE_EMBED] = "embedding",     [PROFILE_NORM] = "norms",
        [PROFILE_ROPE] = "rope, KV store",   [PROFILE_ATTENTION] = "attention", [PROFILE_RECURRENCE] = "recurrence",
        [PROFILE_GATE] = "activation, gate", [PROFILE_ADD] = "residual",        [PROFILE_ROUTE] = "routing",
        [PROFILE_LOGITS] = "logits"};
    if (op < PROFILE_MATVEC) return names[op];
    int type = op - (op < PROFILE_GEMM ? PROFILE_MATVEC : PROFILE_GEMM);
    const char *of = type < N_DTYPES ? dtype_name((DType)type) : "mixed";
    snprintf(buffer, size, "%s %s", op < PROFILE_GEMM ? "matvec" : "gemm", of);
    return buffer;
}
