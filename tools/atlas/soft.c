// soft: see soft.h.
#include "soft.h"

#include "cli.h"

#include <math.h>

enum { WINDOW_PIECE = 1024 };

void soft_open_as(Soft *s, Operator *op, int n_heads, const KvShape *shape) {
    char err[512];
    *s = (Soft){.n_heads = n_heads, .n_kv_heads = shape->n_kv_heads, .k_dim = shape->k_dim, .v_dim = shape->v_dim};
    s->pool = op->compute->pool;
    s->scale = 1 / sqrtf((float)op->shape.head_dim);
    s->mask.causal = op->mechanism->time == TIME_CAUSAL;
    s->mask.window = shape->window;
    s->mask.n_sinks = shape->n_sinks;
    bool reserved = !attention_reserve(op->compute, n_heads, s->n_kv_heads, s->k_dim, s->v_dim, err, sizeof err);
    s->cache = reserved ? kvcache_open(shape, NULL, err, sizeof err) : NULL;
    if (!s->cache) die(1, "%s", err);
    op->caches[op->n_caches++] = s->cache;
}

void soft_open(Soft *s, Operator *op, int window, int n_sinks) {
    const Shape *of = &op->shape;
    KvShape shape = {of->n_kv_heads, of->head_dim, of->head_dim, of->type, window, n_sinks};
    soft_open_as(s, op, of->n_heads, &shape);
}

void soft_store(Soft *s, int n, const float *k, const float *v) {
    if (kvcache_reserve(s->cache, n)) die(1, "out of memory for the keys and values of %d more tokens", n);
    kvcache_store(s->cache, s->pool, n, k, v);
}

Attention soft_problem(const Soft *s, const float *q, float *out, int n_q, int pos0, int n_keys) {
    Attention a = {.q = q, .out = out, .n_q = n_q, .n_heads = s->n_heads, .pos0 = pos0, .n_keys = n_keys};
    a.scale = s->scale;
    a.kv = kvcache_view(s->cache);
    a.mask = s->mask;
    return a;
}

void soft_attend(Operator *op, const Attention *list, int n) {
    for (int i = 0; i < n; i++) {
        op->flops += 2 * attention_pairs(&list[i]) * list[i].n_heads * (list[i].kv.k_dim + list[i].kv.v_dim);
        op->computed += attention_computed(op->compute, &list[i]);
    }
    double start = seconds();
    attention(op->compute, list, n);
    op->attended += seconds() - start;
}

// Where a window frees old blocks, the text is taken in pieces, so that it is never stored whole.
void soft_step(Operator *op, Soft *s, const float *q, const Rows *rows) {
    int piece = s->mask.window ? WINDOW_PIECE : rows->n_keys > 0 ? rows->n_keys : 1;
    int k_row = s->n_kv_heads * s->k_dim, v_row = s->n_kv_heads * s->v_dim;
    for (int at = 0; at < rows->n_keys || at == 0; at += piece) {
        int n = rows->n_keys - at < piece ? rows->n_keys - at : piece, n_q = s->mask.causal ? n : rows->n_q;
        int length = kvcache_length(s->cache);
        soft_store(s, n, rows->k + (int64_t)at * k_row, rows->v + (int64_t)at * v_row);
        Attention a = soft_problem(s, q + (int64_t)at * s->n_heads * s->k_dim,
                                   rows->out + (int64_t)at * s->n_heads * s->v_dim, n_q, length, length + n);
        if (n_q) soft_attend(op, &a, 1);
        kvcache_advance(s->cache, n);
    }
}

void soft_plain_open(Operator *op) {
    op->own = operator_own(op, sizeof(Soft));
    soft_open(op->own, op, 0, 0);
}

void soft_plain_step(Operator *op, const Rows *rows) {
    soft_step(op, op->own, rows->q, rows);
}
