// heads: who shares keys and values, and which way the rows look.
//
// Owns the rows of multi-head, grouped, single-head and latent keys and values, and of self- and cross-attention. All
// are attention() over a cache of the heads' own shape. The latent form keeps one vector for all heads and is computed
// in its absorbed form, a single key head that is its own value.
#include "soft.h"

#include <math.h>
#include <stdlib.h>

// ---- latent: c = W_down x, k_h = W_k,h c, v_h = W_v,h c with x the row of all heads' keys, without the part of the
// key that RoPE turns. q . (W_k c) = (W_k^T q) . c, so that c is both the key and the value of attention(), whose cache
// stores it twice.

typedef struct {
    Soft soft;     // one KV head of width rank
    float *down;   // [rank][n_heads * head_dim]
    float *absorb; // [n_heads][rank][head_dim], the W_k^T
    float *up;     // [n_heads][head_dim][rank], the W_v
} Latent;

static void latent_open(Operator *op) {
    const Shape *s = &op->shape;
    int64_t width = query_width(s), n = width * s->rank;
    Latent *l = op->own = operator_own(op, sizeof *l);
    l->down = operator_normals(op, n, 1 / sqrtf((float)width));
    l->absorb = operator_normals(op, n, 1 / sqrtf((float)s->rank));
    l->up = operator_normals(op, n, 1 / sqrtf((float)s->rank));
    soft_open_as(&l->soft, op, s->n_heads, &(KvShape){1, s->rank, s->rank, s->type, 0, 0});
}

static void latent_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    Latent *l = op->own;
    int n = rows->n_keys, width = s->n_heads * s->head_dim;
    float *c = floats_need((int64_t)n * s->rank * (1 + 2 * s->n_heads));
    float *q = c + (int64_t)n * s->rank, *o = q + (int64_t)n * s->n_heads * s->rank;
    map_heads(op->compute, l->down, 1, s->rank, width, rows->k, c, n);
    map_heads(op->compute, l->absorb, s->n_heads, s->rank, s->head_dim, rows->q, q, n);
    Rows latent = {.n_q = n, .n_keys = n, .k = c, .v = c, .out = o};
    soft_step(op, &l->soft, q, &latent);
    map_heads(op->compute, l->up, s->n_heads, s->head_dim, s->rank, o, rows->out, n);
    op->flops += 6.0 * n * width * s->rank;
    free(c);
}

#define SHARED .open = soft_plain_open, .step = soft_plain_step

const Mechanism heads_rows[] = {
    {"mha", SHARED, .approximates = true},    {"gqa", SHARED, .kv_heads = 2},
    {"mqa", SHARED, .kv_heads = 1},           {"mla", .opaque = true, .open = latent_open, .step = latent_step},
    {"causal", SHARED, .approximates = true}, {"bidirectional", SHARED, .time = TIME_WHOLE},
    {"cross", SHARED, .time = TIME_CROSS},    {0},
};
