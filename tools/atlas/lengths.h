// lengths: mechanisms measured as the text grows: build/atlas --bench.
//
// Owns the table, the JSON and the plots of time and bytes against length. A length whose prefill would take longer
// than the limit, judged by how the last two grew, is left out and said to be. Refuses nothing. Called by atlas.
#pragma once
#include "trial.h"

enum { MAX_LENGTHS = 24, MAX_BENCHED = 96 };

typedef struct {
    const Mechanism *list[MAX_BENCHED];
    int n_mechanisms;
    int least, most; // rows, doubled from one to the next
    int n_heads, head_dim;
    double limit; // seconds of a prefill
    bool json;
    const char *svg; // path; NULL: none
    Compute *compute;
} Lengths;

void lengths_run(const Lengths *l);
