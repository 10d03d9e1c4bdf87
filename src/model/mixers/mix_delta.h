// mix_delta: the weights of a gated delta net's layer, for who writes them into files.
#pragma once
#include "recurrent.h"

typedef struct {
    Dense qkv, z;                 // [2 key heads k_dim + heads v_dim][dim], [heads v_dim][dim]
    Dense qkvz;                   // in place of both: for each key head its q, k, the v and the z of its value heads
    Dense beta, alpha;            // [heads][dim]
    Dense ba;                     // in place of both: for each key head the beta and the alpha of its value heads
    const float *taps;            // [conv_width][conv_dim]
    const float *a;               // [heads] -exp(A)
    const float *dt;              // [heads]
    const float *norm;            // [v_dim]
    const float *q_unit, *k_unit; // [k_dim] weights that make an RMSNorm of what normalizes queries and keys
    Dense out;                    // [dim][heads v_dim]
    KeyHeadOrder key_heads;
} DeltaWeights;
