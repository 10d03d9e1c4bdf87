// trial: one mechanism measured at one length.
//
// Owns the clock, the peak of memory and what is compared with exact attention. Words that come again are the text
// (inputs_of_words), so that a key far away can matter. Refuses nothing. Called by lengths, survey and claims.
#include "atlas.h"

#include "cli.h"
#include "inputs.h"
#include "samples.h"

#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    TOKENS = 15,      // decoded
    ERROR_ROWS = 64,  // compared, the last
    N_WORDS = 1000,   // of the text
    MOST_REPEATS = 9, // of a short prefill
};

static const double ENOUGH_SECONDS = 0.15;

// A line of /proc/self/status in bytes; 0 where there is none.
static double status_bytes(const char *field) {
    char line[200];
    double kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f)) {
        if (!strncmp(line, field, strlen(field))) sscanf(line + strlen(field), "%lf", &kib);
    }
    if (f) fclose(f);
    return kib * 1024;
}

// The peak starts over from what is resident now, which is returned.
static double restart_peak(void) {
    malloc_trim(0);
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (f) {
        fputs("5", f);
        fclose(f);
    }
    return status_bytes("VmRSS:");
}

static double time_step(Operator *op, const Rows *rows) {
    double start = seconds();
    operator_step(op, rows);
    return seconds() - start;
}

// Seconds a token behind n rows.
static double time_token(Operator *op, const Inputs *in, int n) {
    double took[TOKENS];
    for (int i = 0; i < TOKENS; i++) {
        Rows token = inputs_rows(in, n + i, 1);
        if (op->mechanism->time == TIME_CROSS) token.n_keys = 0; // the text looked at is whole
        took[i] = time_step(op, &token);
    }
    return samples_median(took, TOKENS);
}

Trial trial_run(const Mechanism *m, const Shape *shape, int n, bool stored, Compute *c) {
    Shape s = *shape;
    Inputs in;
    s.n_max = n + TOKENS;
    inputs_open(&in, &s, s.n_max, s.n_max, 1);
    inputs_of_words(&in, N_WORDS, 2);
    Trial t = {.n = n, .prefill = INFINITY, .attended = INFINITY, .decode = NAN, .error = NAN};
    Rows prompt = inputs_rows(&in, 0, n);
    if (stored) prompt.n_q = 0;
    Operator op = {0};
    double total = 0;
    for (int i = 0; i < MOST_REPEATS && total < ENOUGH_SECONDS; i++) {
        operator_close(&op);
        double before = i ? 0 : restart_peak();
        operator_need(&op, m, &s, c);
        double took = time_step(&op, &prompt);
        if (i == 0) t.peak = status_bytes("VmHWM:") - before;
        total += took;
        t.prefill = fmin(t.prefill, took);
        t.attended = fmin(t.attended, op.attended);
    }
    t.flops = op.flops;
    t.computed = op.computed;
    t.bytes = operator_bytes(&op);
    if (m->time != TIME_WHOLE) t.decode = time_token(&op, &in, n);
    operator_close(&op);
    in.n_q = in.n_keys = n;
    if (m->approximates && !stored) t.error = inputs_error(&in, m->time, n > ERROR_ROWS ? n - ERROR_ROWS : 0, c);
    inputs_close(&in);
    return t;
}
