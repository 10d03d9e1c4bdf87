// mix_latent: latent attention as a mixer (arXiv:2405.04434, section 2.1; arXiv:2412.19437, section 2.1.1).
//
//     c = rms(W_c x);  r = rotate(W_r x), one for all heads;  q = W_q x, or W_qb rms(W_qa x): of a head [q_n, q_r]
//     k = [W_k c, r],  v = W_v c of each head;  o = softmax(s q k) v;  y = W_o o
// The cache holds c and r alone. Queries go to where the latent is, and outputs come from there, so that no key or
// value of a head is ever formed: q k = (W_k^T q_n) c + rotate(q_r) r and o = W_v (sum p c). That is multi-query
// attention with keys [c, r] and values c, for one token as for many. Of a prompt it takes heads (2 rank + rotary)
// multiplications for each pair of positions, where keys and values of the heads would take heads (nope + rotary +
// value): 3.4 times as many at DeepSeek's sizes, but all of DeepSeek-V2-Lite computes less than twice as much up to
// 20,000 tokens. Owns the tensors of such a layer, in each of the ways that files lay them out, and its forward pass.
#pragma once
#include "mixer.h"

typedef struct {
    Dense q;      // [n_heads head_dim][dim]; with a latent of the queries: [..][q_rank]
    Dense q_a;    // [q_rank][dim]; absent: no latent
    Norm q_norm;  // [q_rank]
    Dense kv_a;   // [rank + rotary][dim]
    Norm kv_norm; // [rank]
    Dense k_b;    // [n_heads rank][nope_dim]: of each head W_k^T; absent: W_k is the rows of v_b before each W_v
    Dense v_b;    // W_v of head h is value_dim rows from v_first + h v_pitch on, of rank columns
    int v_first, v_pitch;
    bool gguf_joint; // from a GGUF file with W_k and W_v in one tensor
    Dense out;       // [dim][n_heads value_dim]
} LatentWeights;
