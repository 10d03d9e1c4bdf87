// trial: one mechanism measured at one length.
//
// Owns the clock, the peak of memory and what is compared with exact attention. Words that come again are the text
// (inputs_of_words), so that a key far away can matter. Refuses nothing. Called by lengths and claims.
#pragma once
#include "mechanism.h"

typedef struct {
    int n;                     // rows read
    double prefill;            // seconds for n rows in one step, the fastest of several where that is short
    double decode;             // seconds a token behind n rows, the median; NAN: there is no decoding
    double flops;              // of prefill
    double computed, attended; // of prefill, as in Operator; attended: the least
    double bytes;              // of cache or state behind n rows
    double peak;               // bytes that the process grew by during prefill: cache, state and scratch; not the rows
    double error;              // of the last rows, relative to exact attention; NAN: it means nothing
} Trial;

// shape.n_max is set here. Ends the program when memory runs out.
Trial trial_run(const Mechanism *m, const Shape *shape, int n, Compute *c);
// The same where the n rows are keys alone, which nobody asks until the tokens are decoded: of prefill, only the time.
Trial trial_stored(const Mechanism *m, const Shape *shape, int n, Compute *c);
