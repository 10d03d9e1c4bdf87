// ffn: one feed-forward network: down(act(up x)), or gated down(act(gate x) * up x) (arXiv:2002.05202).
//
// Owns its tensors and its forward pass; a mixture of them is experts.h. Buffers are the caller's.
#pragma once
#include "binder.h"

typedef struct {
    Dense gate, up, down; // [hidden][dim] x 2, [dim][hidden]; no gate: down(act(up x))
    const float *xielu;   // [4] as ops_xielu's, in place of the config's activation; NULL: not there
    bool interleaved;     // no gate either: up is [2 hidden][dim], rows of gate and up in turn (gpt-oss)
} FeedForward;

// What the parts are called in families.h.
typedef struct {
    const char *gate, *up, *down;
} FeedForwardNames;

// Buffers for a block of rows.
typedef struct {
    float *gate, *up; // [rows][hidden], up: [rows][2 hidden] where interleaved
} FeedForwardBuffers;

void ffn_bind(Binder *b, FeedForward *f, const FeedForwardNames *names, int64_t hidden);
uint64_t ffn_token_bytes(const FeedForward *f);
// y[n][dim] = network(x[n][dim]), or += with add; y may be x with add.
void ffn_forward(const Compute *compute, const Config *c, const FeedForward *f, const FeedForwardBuffers *b,
                 const float *x, float *y, int n, bool add);
