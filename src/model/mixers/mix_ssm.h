// mix_ssm: the weights of a Mamba-2 layer, for who writes them into files.
#pragma once
#include "mix_attention.h"
#include "recurrent.h"

typedef struct {
    Dense in;                       // [2 inner + 2 groups k_dim + heads][dim]: z, x, B, C, d
    const float *taps;              // [conv_width][conv_dim]
    const float *conv_bias;         // [conv_dim]; NULL: none
    const float *a, *d, *step_bias; // [heads]: A below 0, D, the bias of the step sizes
    const float *norm;              // [groups][inner / groups]; NULL: none
    Dense out;                      // [dim][inner]
} SsmWeights;

typedef struct {
    SsmWeights ssm;
    AttentionWeights attention;
} BesideWeights;
