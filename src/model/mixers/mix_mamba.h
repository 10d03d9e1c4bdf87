// mix_mamba: the weights of a Mamba-1 layer, for who writes them into files.
#pragma once
#include "recurrent.h"

typedef struct {
    Dense in;                                 // [2 channels][dim]: x, z
    const float *taps, *conv_bias;            // [conv_width][channels], [channels]; bias NULL: none
    Dense x;                                  // [rank + 2 states][channels]: r, B, C
    const float *step_norm, *b_norm, *c_norm; // [rank], [states] x 2; NULL: not normed
    Dense step;                               // [channels][rank], with a bias
    const float *a, *d;                       // [states][channels] below 0, [channels]
    Dense out;                                // [dim][channels]
} MambaWeights;
