// mix_rwkv6: the tensors of RWKV-6's time mixing. See mix_rwkv6.c.
#pragma once
#include "rwkv.h"

enum { MIX_W, MIX_K, MIX_V, MIX_R, MIX_G, RWKV6_MIXES };

typedef struct {
    const float *mix_x;         // [dim]
    LowRank mixes[RWKV6_MIXES]; // B_c tanh(A_c x) + mix_c
    Dense r, k, v, g, out;
    LowRank decay;
    const float *bonus; // [heads][k_dim]
    Norm norm;
    float norm_eps;
} Rwkv6Weights;
