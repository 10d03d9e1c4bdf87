// scores: how a query and a key become a number, and how numbers become a choice of values.
//
// Owns the rows of dot products, of Luong's and Bahdanau's scores, and of hard attention. Dot products of any kind are
// the engine's attention() with other queries. A tanh for each pair and a choice of one value are not, and have a loop
// of their own over tiles of keys: one (query, head) an item.
#include "soft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LUONG_DOT, LUONG_GENERAL, ADDITIVE, ARGMAX, SAMPLED };
enum { TILE = 256, PAIRS = 32 }; // keys scored at a time; keys whose tanh is taken at a time

// ---- products

typedef struct {
    Soft soft;
    float *w; // [n_heads][head_dim][head_dim] of LUONG_GENERAL, W^T of the formula; else NULL
} Luong;

static void luong_open(Operator *op) {
    const Shape *s = &op->shape;
    Luong *l = op->own = operator_own(op, sizeof *l);
    int64_t n = query_width(s) * s->head_dim;
    if (op->mechanism->variant == LUONG_GENERAL) l->w = operator_normals(op, n, 1 / sqrtf((float)s->head_dim));
    soft_open(&l->soft, op, 0, 0);
    l->soft.scale = 1;
}

static void general_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    Luong *l = op->own;
    float *q = floats_need(rows->n_q * query_width(s));
    map_heads(op->compute, l->w, s->n_heads, s->head_dim, s->head_dim, rows->q, q, rows->n_q);
    op->flops += 2.0 * rows->n_q * (double)query_width(s) * s->head_dim;
    soft_step(op, &l->soft, q, rows);
    free(q);
}

// ---- a loop over pairs: additive and hard attention

typedef struct {
    float *wq, *wk, *v;   // of ADDITIVE: [heads][head_dim][head_dim], the same, [n_heads][head_dim]; else NULL
    float *keys, *values; // [n_max][n_kv_heads][head_dim]; keys of ADDITIVE: W_k k
} Pairs;

static void pairs_open(Operator *op) {
    const Shape *s = &op->shape;
    int64_t d = s->head_dim;
    float deviation = 1 / sqrtf((float)d);
    Pairs *p = op->own = operator_own(op, sizeof *p);
    p->keys = operator_floats(op, s->n_max * key_width(s));
    p->values = operator_floats(op, s->n_max * key_width(s));
    if (op->mechanism->variant != ADDITIVE) return;
    p->wq = operator_normals(op, query_width(s) * d, deviation);
    p->wk = operator_normals(op, key_width(s) * d, deviation);
    p->v = operator_normals(op, query_width(s), 1);
}

// s[i] of n keys of one head from `first` on: v . tanh(W_q q + W_k k), or q . k / sqrt(d).
static void score_tile(const Operator *op, int head, const float *q, int first, int n, float *s, float *pairs) {
    const Pairs *p = op->own;
    const Kernels *kn = op->compute->kernels;
    int d = op->shape.head_dim;
    int64_t ld = key_width(&op->shape);
    const float *k = p->keys + key_place(&op->shape, first, head);
    if (!p->v) {
        kn->matvec_f32(s, 0, k, ld, q, 0, 1, n, d);
        for (int i = 0; i < n; i++) s[i] /= sqrtf((float)d);
        return;
    }
    for (int i = 0; i < n; i += PAIRS) {
        int some = n - i < PAIRS ? n - i : PAIRS;
        for (int j = 0; j < some; j++) {
            for (int c = 0; c < d; c++) pairs[j * d + c] = q[c] + k[(i + j) * ld + c];
        }
        kn->softcap(pairs, some * d, 1, 1); // tanh
        kn->matvec_f32(s + i, 0, pairs, d, p->v + head * d, 0, 1, some, d);
    }
}

// Gumbel noise of one pair: the largest score + noise is a sample of the softmax (Gumbel 1954; arXiv:1411.0030).
static float gumbel(const Operator *op, int row, int head, int key) {
    uint64_t state =
        op->shape.seed + ((uint64_t)row * (uint64_t)op->shape.n_heads + (uint64_t)head) * 0x2545f4914f6cdd1du;
    state += (uint64_t)key * 0x9e6c63d0876a9a35u;
    return -logf(-logf(random_open(&state)));
}

// What a query has found in the keys so far: a softmax's largest exponent and sum; the best key and its score.
typedef struct {
    float m, l, most;
    int best;
} Found;

// The best key is that of the largest score; of SAMPLED, of score and noise.
static void choose_key(const Operator *op, int row, int head, int first, int n, const float *s, Found *found) {
    for (int i = 0; i < n; i++) {
        float score = op->mechanism->variant == SAMPLED ? s[i] + gumbel(op, row, head, first + i) : s[i];
        if (score <= found->most) continue;
        found->most = score;
        found->best = first + i;
    }
}

// out: the sum of values by exp(score - m).
static void add_values(const Operator *op, int head, int first, int n, float *s, Found *found, float *out) {
    const Pairs *p = op->own;
    int d = op->shape.head_dim;
    for (int i = 0; i < n; i++) s[i] *= LOG2_E;
    float rescale = op->compute->kernels->softmax_row(s, n, &found->m, &found->l);
    for (int c = 0; c < d; c++) out[c] *= rescale;
    for (int i = 0; i < n; i++) {
        const float *v = p->values + key_place(&op->shape, first + i, head);
        for (int c = 0; c < d; c++) out[c] += s[i] * v[c];
    }
}

static void pairs_item(const Work *w, int item) {
    const Operator *op = w->op;
    const Pairs *p = op->own;
    int heads = op->shape.n_heads, d = op->shape.head_dim, head = item % heads, row = op->length + item / heads;
    float *out = w->rows->out + (int64_t)item * d, *s = w->scratch;
    Found found = {.m = SCORE_START, .most = SCORE_MASKED};
    memset(out, 0, sizeof *out * (size_t)d);
    for (int first = 0; first <= row; first += TILE) {
        int n = row + 1 - first < TILE ? row + 1 - first : TILE;
        score_tile(op, head, w->rows->q + (int64_t)item * d, first, n, s, s + TILE);
        if (p->v) add_values(op, head, first, n, s, &found, out);
        else choose_key(op, row, head, first, n, s, &found);
    }
    if (p->v) {
        for (int c = 0; c < d; c++) out[c] /= found.l;
    } else memcpy(out, p->values + key_place(&op->shape, found.best, head), sizeof *out * (size_t)d);
}

static void pairs_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    Pairs *p = op->own;
    int d = s->head_dim, n = rows->n_keys;
    int64_t at = op->length * key_width(s), all = n * key_width(s);
    double pairs = n * (op->length + 0.5 * (n + 1));
    Rows mapped = *rows;
    float *q = NULL;
    memcpy(p->values + at, rows->v, sizeof(float) * (size_t)all);
    if (p->v) {
        mapped.q = q = floats_need(n * query_width(s));
        map_heads(op->compute, p->wk, s->n_kv_heads, d, d, rows->k, p->keys + at, n);
        map_heads(op->compute, p->wq, s->n_heads, d, d, rows->q, q, n);
        op->flops += 2.0 * d * n * (double)(key_width(s) + query_width(s)) + 4.0 * d * pairs * s->n_heads;
    } else memcpy(p->keys + at, rows->k, sizeof(float) * (size_t)all);
    op->flops += 2.0 * d * pairs * s->n_heads;
    op->held += 2.0 * sizeof(float) * (double)all;
    operator_for(op, &mapped, n * s->n_heads, pairs_item);
    free(q);
}

#define LUONG(kind) .variant = (kind), .open = luong_open
#define PAIRWISE(kind) .variant = (kind), .open = pairs_open, .step = pairs_step, .most_rows = 8192

const Mechanism scores_rows[] = {
    {"scaled-dot", .open = soft_plain_open, .step = soft_plain_step, .approximates = true},
    {"luong-dot", LUONG(LUONG_DOT), .step = soft_plain_step},
    {"luong-general", LUONG(LUONG_GENERAL), .step = general_step},
    {"additive", PAIRWISE(ADDITIVE)},
    {"argmax", PAIRWISE(ARGMAX)},
    {"sampled", PAIRWISE(SAMPLED)},
    {0},
};
