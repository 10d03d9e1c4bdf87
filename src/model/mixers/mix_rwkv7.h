// mix_rwkv7: the tensors of RWKV-7's time mixing. See mix_rwkv7.c.
#pragma once
#include "rwkv.h"

enum { RWKV7_MIXES = 6 };

typedef struct {
    const float *mix; // [RWKV7_MIXES][dim] r, w, k, v, a, g
    Dense r, k, v, out;
    LowRank decay, rate, gate;
    LowRank residual;             // not in the first layer
    const float *k_k, *k_a, *r_k; // [dim]
    Norm norm;
    float norm_eps;
} Rwkv7Weights;
