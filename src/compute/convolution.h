// convolution: the causal depthwise convolution of recurrent layers, a few taps for each channel.
//
// y_t[c] = act(bias[c] + sum_j taps[j][c] x_(t - width + 1 + j)[c]), with zeros before the text; the last tap
// multiplies the present. And the token shift of RWKV, which reads the row before. Owns the split of rows over threads
// and the inputs that states keep. Refuses nothing.
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

// n rows of one timeline: previous[t] = x[t - 1], zeros before the text. Several shifts of a layer share a state, each
// with channels of its own.
typedef struct {
    State *state;      // conv_width 2
    int n, first, dim; // channels first..first + dim - 1
    const float *x;    // [n][dim]
    float *previous;   // [n][dim]; not x
} TokenShift;

// As convolution().
void token_shift(const Compute *c, const TokenShift *list, int n);
