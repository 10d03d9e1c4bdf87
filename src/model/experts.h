// experts: feed-forward networks behind a router: a mixture of experts (arXiv:1701.06538, top-k as in
// arXiv:2401.04088).
//
// Owns which experts a token goes to and with what weight. An expert computes all of its tokens at once; a token's sum
// runs over its experts in their order, so that the result does not depend on how the text was cut into blocks.
#pragma once
#include "ffn.h"

typedef struct {
    FeedForward *list;        // [n_experts], the owner's memory
    Dense router;             // [n_experts][dim]
    const float *choice_bias; // [n_experts] with router_choice_bias; else NULL
    FeedForward shared;       // with shared_dim: one that every token uses
    Dense shared_gate;        // [1][dim]: how much it counts; absent: in full
} Experts;

// Buffers for a block of rows.
typedef struct {
    FeedForwardBuffers ffn;
    float *routes;              // [rows][n_experts]
    float *picked_x, *picked_y; // [rows][dim]
    float *weights;             // [rows][n_experts_used]
    int32_t *picks;             // [rows][n_experts_used]
} ExpertBuffers;

// list: room for n_experts networks.
void experts_bind(Binder *b, Experts *e, FeedForward *list);
uint64_t experts_token_bytes(const Experts *e, int n_used);
// y[n][dim] = experts(x[n][dim]), or += with add; y is not x.
void experts_forward(const Compute *compute, const Config *c, const Experts *e, const ExpertBuffers *b, const float *x,
                     float *y, int n, bool add);
