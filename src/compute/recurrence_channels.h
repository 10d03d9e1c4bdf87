// recurrence_channels: linear attention whose state forgets at a rate of its own in each key channel, in chunks.
//
// For each head, with keys k, values v, queries q, decays w (factors from 0 to 1), and S [k_dim][v_dim] starting from
// zeros:
//     S_t = diag(w_t) S_(t-1) + k_t v_t^T,  o_t = S_t^T q_t                    GLA (arXiv:2312.06635, eq. 3)
//     the same S,  o_t = (S_(t-1) + diag(bonus) k_t v_t^T)^T q_t               RWKV-6 (arXiv:2404.05892, section 4.2)
//     S_t = diag(w_t) S_(t-1) + add_t z_t^T + k_t v_t^T,  z_t = -S_(t-1)^T remove_t,  o_t = S_t^T q_t
//                                                                              RWKV-7 (arXiv:2503.14456, eq. 16, 17)
// A token adds one pair of a key and an update, (k, v), or two, (add, z) before it. With S_0 the state at the chunk's
// border, P the product of the decays since, and K_e each earlier key of the chunk times the decays that followed it,
//     S_i = diag(P) S_0 + sum_e K_e u_e^T
// so that a row of z or o is a product with S_0 and a sum over the pairs: forward substitution, as in recurrence.h. P
// and K_e are products of factors, one step at a time: nothing is divided, no exponent is taken, and a decay of 0 is
// exact. They lie in the state and follow its rows; after going back they are made again, to the same bits. No row's
// bits depend on how many rows are computed at once. Owns the split over threads by head. Refuses nothing.
#pragma once
#include "compute.h"
#include "state.h"

// n rows of one timeline, of one layer. A row is [n_heads][k_dim], of v and out [n_heads][v_dim]; `ld` floats lie from
// row to row.
typedef struct {
    State *state; // pairs: 2 with `remove`, else 1
    int n;
    const float *q, *k, *v, *decay;
    int64_t q_ld, k_ld, v_ld, decay_ld;
    const float *remove, *add; // rows as decay's; NULL: none
    const float *bonus;        // [n_heads][k_dim]: outputs read the state before the row's decay; NULL: after it
    float *out;                // [n][n_heads][v_dim]
} ChannelRecurrence;

// Scratch for each worker. -1 with a line in err when memory runs out.
int recurrence_channels_reserve(Compute *c, const StateShape *shape, char *err, size_t errlen);
// All rows of the list's timelines, which have the same shape. Stores rows and borders into the states; the caller
// advances them.
void recurrence_channels(const Compute *c, const ChannelRecurrence *list, int n);
