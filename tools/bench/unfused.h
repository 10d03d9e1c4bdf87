// unfused: attention with an n x n matrix, for bench --attention to compare the fused loop with.
//
// Three passes over the matrix of one head at a time: product, masked softmax, product; with the same kernels and
// threads, fp32 keys, and values already transposed.
#pragma once
#include "attention.h"

typedef struct {
    const Kernels *kernels;
    int n, head_dim, n_heads, group, head;
    AttnMask mask;   // causal, window, n_sinks
    const float *q;  // [n][n_heads][head_dim]
    const float *k;  // [n][n_kv_heads][head_dim]
    const float *vt; // [n_kv_heads][head_dim][n]
    float *scores;   // [n / PANEL][n keys][PANEL queries]
    float *panels;   // [threads][2][head_dim][PANEL]
    float *out;      // [n][n_heads][head_dim]
} Unfused;

void unfused_run(ThreadPool *pool, Unfused *p);
