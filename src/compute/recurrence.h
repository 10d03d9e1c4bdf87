// recurrence: linear attention with a state of fixed size, computed in chunks.
//
// For each head, with keys k, values v, queries q, and S [k_dim][v_dim] starting from zeros:
//     S_t = exp(g_t) S_(t-1) + k_t u_t^T,    o_t = S_t^T q_t
//     u_t = v_t                                          scalar decay: state space duality (arXiv:2405.21060), RetNet
//     u_t = beta_t (v_t - exp(g_t) S_(t-1)^T k_t)        gated delta rule (arXiv:2412.06464, eq. 10)
// With G_i the sum of g since the chunk's border and S_0 the state there, row i of a chunk is
//     u_i = beta_i (v_i - exp(G_i) S_0^T k_i - sum_{j<i} exp(G_i - G_j) (k_j . k_i) u_j)
//     o_i = exp(G_i) S_0^T q_i + sum_{j<=i} exp(G_i - G_j) (k_j . q_i) u_j
// which is the forward substitution of the paper's WY form (section 3.3 there; arXiv:2406.06484): every exponent is at
// most 0, products with S_0 are matrix products over the chunk's rows, and no row's bits depend on how many rows are
// computed at once. Owns the split over threads by head. Refuses nothing.
#pragma once
#include "compute.h"
#include "state.h"

// Which key head a head reads: n consecutive heads share one, or every n_key_heads-th does.
typedef enum { KEY_HEADS_REPEATED, KEY_HEADS_TILED } KeyHeadOrder;

// n rows of one timeline, of one layer. A row of one head is contiguous; `ld` floats lie from row to row.
typedef struct {
    State *state;
    int n;
    const float *q, *k; // [n][n_key_heads][k_dim]
    const float *v;     // [n][n_heads][v_dim]
    int64_t q_ld, k_ld, v_ld;
    const float *log_decay; // g, [n][n_heads], at most 0; NULL: 0
    const float *beta;      // [n][n_heads]: the delta rule; NULL: u = v
    KeyHeadOrder key_heads;
    float *out; // [n][n_heads][v_dim]
} Recurrence;

// Scratch for each worker. -1 with a line in err when memory runs out.
int recurrence_reserve(Compute *c, int k_dim, int v_dim, char *err, size_t errlen);
// All rows of the list's timelines, which have the same shape. Stores rows and borders into the states; the caller
// advances them.
void recurrence(const Compute *c, const Recurrence *list, int n);
