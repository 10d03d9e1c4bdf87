// mix_conv: the weights of a short convolution's layer, for who writes them into files.
#pragma once
#include "recurrent.h"

typedef struct {
    Dense in;          // [3 dim][dim] B, C, u
    const float *taps; // [conv_width][dim]
    const float *bias; // [dim] of the convolution; NULL: none
    Dense out;         // [dim][dim]
} ConvWeights;
