// soft: see soft.h.
#include "soft.h"

#include "cli.h"

#include <math.h>

void soft_open_as(Soft *s, Operator *op, int n_heads, const KvShape *shape) {
    char err[512];
    *s = (Soft){.pool = op->compute->pool, .n_heads = n_heads, .scale = 1 / sqrtf((float)op->shape.head_dim)};
    s->mask.causal = op->mechanism->time == TIME_CAUSAL;
    s->mask.window = shape->window;
    s->mask.n_sinks = shape->n_sinks;
    s->cache = kvcache_open(shape, NULL, err, sizeof err);
    if (!s->cache ||
        attention_reserve(op->compute, n_heads, shape->n_kv_heads, shape->k_dim, shape->v_dim, err, sizeof err))
        die(1, "%s", err);
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

void soft_step(Operator *op, Soft *s, const float *q, const Rows *rows) {
    int length = kvcache_length(s->cache), n = rows->n_keys;
    soft_store(s, n, rows->k, rows->v);
    Attention a = soft_problem(s, q, rows->out, rows->n_q, length, length + n);
    if (rows->n_q) soft_attend(op, &a, 1);
    kvcache_advance(s->cache, n);
}

void soft_plain_open(Operator *op) {
    op->own = operator_own(op, sizeof(Soft));
    soft_open(op->own, op, 0, 0);
}

void soft_plain_step(Operator *op, const Rows *rows) {
    soft_step(op, op->own, rows->q, rows);
}
