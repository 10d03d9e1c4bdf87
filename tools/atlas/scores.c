// scores: how a query and a key become a number, and how numbers become a choice of values.
//
// Owns the rows of dot products, of Luong's and Bahdanau's scores, and of hard attention. Dot products of any kind are
// the engine's attention() with other queries. A tanh for each pair and a choice of one value are not, and have a loop
// of their own: one (query, head) an item, whose scores are in a worker's scratch memory.
#include "soft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LUONG_DOT, LUONG_GENERAL, ADDITIVE, ARGMAX, SAMPLED };
enum { PAIRS = 32 }; // keys whose tanh is taken at a time

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
    p->values = operator_floats(op, s->n_max * key_width(s) + MAX_PANEL);
    operator_scratch(op, s->n_max + PAIRS * d);
    if (op->mechanism->variant != ADDITIVE) return;
    p->wq = operator_normals(op, query_width(s) * d, deviation);
    p->wk = operator_normals(op, key_width(s) * d, deviation);
    p->v = operator_normals(op, query_width(s), 1);
}

// s[n], of the first n keys: v . tanh(W_q q + W_k k), or q . k / sqrt(d). room: [PAIRS][head_dim]
static void score_keys(const Operator *op, int head, const float *q, int n, float *s, float *room) {
    const Pairs *p = op->own;
    const Kernels *kn = op->compute->kernels;
    int d = op->shape.head_dim;
    int64_t ld = key_width(&op->shape);
    const float *k = p->keys + key_place(&op->shape, 0, head);
    if (!p->v) {
        kn->matvec_f32(s, 0, k, ld, q, 0, 1, n, d);
        for (int i = 0; i < n; i++) s[i] /= sqrtf((float)d);
        return;
    }
    for (int i = 0, some; i < n; i += some) {
        some = n - i < PAIRS ? n - i : PAIRS;
        for (int j = 0; j < some; j++) {
            for (int c = 0; c < d; c++) room[j * d + c] = q[c] + k[(i + j) * ld + c];
        }
        kn->softcap(room, some * d, 1, 1); // tanh
        kn->matvec_f32(s + i, 0, room, d, p->v + head * d, 0, 1, some, d);
    }
}

// Gumbel noise of one pair: the largest score + noise is a sample of the softmax (Gumbel 1954; arXiv:1411.0030).
static float gumbel(const Operator *op, int row, int head, int key) {
    uint64_t pair = (uint64_t)row * (uint64_t)op->shape.n_heads + (uint64_t)head;
    uint64_t state = op->shape.seed + pair * 0x2545f4914f6cdd1du + (uint64_t)key * 0x9e6c63d0876a9a35u;
    return -logf(-logf(random_open(&state)));
}

// Of keys 0..row that of the largest score; of SAMPLED, of score and noise.
static int choose_key(const Operator *op, int row, int head, const float *s) {
    float most = SCORE_MASKED;
    int best = 0;
    for (int i = 0; i <= row; i++) {
        float score = op->mechanism->variant == SAMPLED ? s[i] + gumbel(op, row, head, i) : s[i];
        if (score <= most) continue;
        most = score;
        best = i;
    }
    return best;
}

static void pairs_item(const Work *w, int item) {
    const Operator *op = w->op;
    const Pairs *p = op->own;
    const Kernels *kn = op->compute->kernels;
    int heads = op->shape.n_heads, d = op->shape.head_dim, head = item % heads, row = op->length + item / heads;
    float *out = w->rows->out + (int64_t)item * d, *s = w->scratch, m = SCORE_START, l = 0;
    score_keys(op, head, w->rows->q + (int64_t)item * d, row + 1, s, s + op->shape.n_max);
    if (p->v) {
        PackedMatrix values = packed_rows(p->values + key_place(&op->shape, 0, head), key_width(&op->shape));
        for (int i = 0; i <= row; i++) s[i] *= LOG2_E;
        kn->softmax_row(s, row + 1, &m, &l);
        kn->gemm_f32(out, 0, &values, s, 0, 1, row + 1, d, false);
        for (int c = 0; c < d; c++) out[c] /= l;
    } else {
        memcpy(out, p->values + key_place(&op->shape, choose_key(op, row, head, s), head), sizeof *out * (size_t)d);
    }
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
