// convolution: the causal depthwise convolution of recurrent layers, a few taps for each channel.
//
// y_t[c] = act(bias[c] + sum_j taps[j][c] x_(t - width + 1 + j)[c]), with zeros before the text; the last tap
// multiplies the present. Owns the split of rows over threads. Refuses nothing.
#pragma once
#include "compute.h"
#include "state.h"

// n rows of one timeline.
typedef struct {
    State *state; // conv_width taps over conv_dim channels
    int n;
    const float *x; // [n][ld]
    int64_t ld;
    const float *taps; // [conv_width][conv_dim]
    const float *bias; // [conv_dim]; NULL: none
    Activation act;
    float *y; // [n][conv_dim]; not x
} Convolution;

// Stores the inputs that later rows will need into the states; the caller advances them.
void convolution(const Compute *c, const Convolution *list, int n);
