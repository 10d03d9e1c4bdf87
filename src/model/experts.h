// experts: feed-forward networks: one for all tokens, or many behind a router (mixture of experts, arXiv:1701.06538,
// top-k as in arXiv:2401.04088).
//
// Owns which experts a token goes to and with what weight. An expert computes all of its tokens at once; a token's sum
// runs over its experts in their order, so that the result does not depend on how the text was cut into blocks.
#pragma once
#include "ops.h"

typedef struct {
    Dense gate, up, down; // [hidden][dim] x 2, [dim][hidden]; no gate: down(act(up x))
    bool interleaved;     // no gate either: up is [2 hidden][dim], rows of gate and up in turn (gpt-oss)
} FeedForward;

typedef struct {
    FeedForward *list; // [n_experts]; NULL: the layer has one network, `shared`
    Dense router;      // [n_experts][dim]
    FeedForward shared;
    Dense shared_gate; // [1][dim]; rows 0: the shared network counts in full
} Experts;

// Buffers for a block of tokens, in the decoder's memory.
typedef struct {
    float *gate, *up;           // [room][2 hidden where interleaved, else hidden or shared_dim]
    float *routes;              // [room][n_experts]
    float *picked_x, *picked_y; // [room][dim]
    float *weights;             // [room][n_experts_used]
    int32_t *picks;             // [room][n_experts_used]
} ExpertBuffers;

int experts_width(const Config *c); // of gate and up

// y[n][dim] += network(x[n][dim])
void experts_forward(const Compute *compute, const Config *c, const Experts *e, const ExpertBuffers *b, const float *x,
                     float *y, int n);
