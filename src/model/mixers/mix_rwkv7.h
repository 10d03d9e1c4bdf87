// mix_rwkv7: the tensors of RWKV-7's time mixing. See mix_rwkv7.c.
#pragma once
#include "rwkv.h"

enum { RWKV7_MIXES = 6 };

typedef struct {
    int n_mixes;      // RWKV7_MIXES; one fewer: no gate
    const float *mix; // [n_mixes][dim] r, w, k, v, a, g
    Dense r, k, v, out;
    LowRank decay, rate, gate;
    LowRank residual;             // not in the first layer
    const float *k_k, *k_a, *r_k; // [dim]
    Norm norm;                    // weight NULL: not there
    float norm_eps;
} Rwkv7Weights;
