// scores: how a query and a key become a number, and how numbers become a choice of values.
//
// Owns the rows of dot products, of Luong's and Bahdanau's scores, and of hard attention. Dot products of any kind are
// the engine's attention() with other queries. A tanh for each pair and a choice of one value are not, and have a loop
// of their own over tiles of keys: one (query, head) an item.
#include "soft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SCALED_DOT, LUONG_DOT, LUONG_GENERAL, ADDITIVE, ARGMAX, SAMPLED };
enum { TILE = 256, PAIRS = 32 }; // keys scored at a time; keys whose tanh is taken at a time

static const float LOG2_E = 1.44269504088896340736f;

// ---- products

typedef struct {
    Soft soft;
    float *w; // [n_heads][head_dim][head_dim] of LUONG_GENERAL, W^T of the formula; else NULL
} Product;

static int product_open(Operator *op, char *err, size_t errlen) {
    const Shape *s = &op->shape;
    Product *p = op->own = operator_own(op, sizeof *p);
    uint64_t seed = s->seed;
    int64_t n = (int64_t)s->n_heads * s->head_dim * s->head_dim;
    if (op->mechanism->variant == LUONG_GENERAL) p->w = operator_normals(op, &seed, n, 1 / sqrtf((float)s->head_dim));
    if (soft_open(&p->soft, op, 0, 0, err, errlen)) return -1;
    if (op->mechanism->variant != SCALED_DOT) p->soft.scale = 1;
    return 0;
}

static void product_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    Product *p = op->own;
    if (!p->w) {
        soft_step(op, &p->soft, rows->q, rows);
        return;
    }
    float *q = floats_need((int64_t)rows->n_q * s->n_heads * s->head_dim);
    map_heads(op->compute, p->w, s->n_heads, s->head_dim, s->head_dim, rows->q, s->n_heads, q, rows->n_q);
    op->flops += 2.0 * rows->n_q * s->n_heads * s->head_dim * s->head_dim;
    soft_step(op, &p->soft, q, rows);
    free(q);
}

// ---- a loop over pairs: additive and hard attention

typedef struct {
    float *wq, *wk, *v;   // of ADDITIVE: [heads][head_dim][head_dim], the same, [n_heads][head_dim]; else NULL
    float *keys, *values; // [n_max][n_kv_heads][head_dim]; keys of ADDITIVE: W_k k
} Pairs;

typedef struct {
    const Operator *op;
    const Rows *rows;
    const float *q; // of ADDITIVE: W_q q
} PairsJob;

static int pairs_open(Operator *op, char *err, size_t errlen) {
    const Shape *s = &op->shape;
    int64_t d = s->head_dim;
    float deviation = 1 / sqrtf((float)d);
    uint64_t seed = s->seed;
    Pairs *p = op->own = operator_own(op, sizeof *p);
    p->keys = operator_floats(op, s->n_max * s->n_kv_heads * d);
    p->values = operator_floats(op, s->n_max * s->n_kv_heads * d);
    if (op->mechanism->variant != ADDITIVE) return 0;
    p->wq = operator_normals(op, &seed, s->n_heads * d * d, deviation);
    p->wk = operator_normals(op, &seed, s->n_kv_heads * d * d, deviation);
    p->v = operator_normals(op, &seed, s->n_heads * d, 1);
    (void)err;
    (void)errlen;
    return 0;
}

// s[i] of n keys of one head from `first` on: v . tanh(W_q q + W_k k), or q . k / sqrt(d).
static void score_tile(const PairsJob *job, int head, const float *q, int first, int n, float *s, float *pairs) {
    const Shape *shape = &job->op->shape;
    const Pairs *p = job->op->own;
    const Kernels *kn = job->op->compute->kernels;
    int d = shape->head_dim, share = shape->n_heads / shape->n_kv_heads;
    int64_t ld = (int64_t)shape->n_kv_heads * d;
    const float *k = p->keys + first * ld + head / share * d;
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
    return -logf(-logf(draw_uniform(&state)));
}

static void pairs_item(void *context, int item, int worker) {
    const PairsJob *job = context;
    const Operator *op = job->op;
    const Shape *shape = &op->shape;
    const Pairs *p = op->own;
    int d = shape->head_dim, t = item / shape->n_heads, head = item % shape->n_heads, best = 0;
    int row = op->length + t, n_keys = op->mechanism->time == TIME_CAUSAL ? row + 1 : op->length + job->rows->n_keys;
    int64_t ld = (int64_t)shape->n_kv_heads * d;
    const float *q = job->q + (int64_t)item * d, *values = p->values + head / (shape->n_heads / shape->n_kv_heads) * d;
    float *s = compute_scratch(op->compute, worker), *out = job->rows->out + (int64_t)item * d;
    float m = SCORE_START, l = 0, most = SCORE_MASKED;
    memset(out, 0, sizeof *out * (size_t)d);
    for (int first = 0; first < n_keys; first += TILE) {
        int n = n_keys - first < TILE ? n_keys - first : TILE;
        score_tile(job, head, q, first, n, s, s + TILE);
        if (op->mechanism->variant == ADDITIVE) {
            for (int i = 0; i < n; i++) s[i] *= LOG2_E;
            float rescale = op->compute->kernels->softmax_row(s, n, &m, &l);
            for (int c = 0; c < d; c++) out[c] *= rescale;
            for (int i = 0; i < n; i++) {
                for (int c = 0; c < d; c++) out[c] += s[i] * values[(first + i) * ld + c];
            }
            continue;
        }
        for (int i = 0; i < n; i++) {
            float score = op->mechanism->variant == SAMPLED ? s[i] + gumbel(op, row, head, first + i) : s[i];
            if (score <= most) continue;
            most = score;
            best = first + i;
        }
    }
    if (op->mechanism->variant != ADDITIVE) memcpy(out, values + best * ld, sizeof *out * (size_t)d);
    else {
        for (int c = 0; c < d; c++) out[c] /= l;
    }
}

static void pairs_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    Pairs *p = op->own;
    int d = s->head_dim, n = rows->n_keys, n_q = rows->n_q;
    int64_t ld = (int64_t)s->n_kv_heads * d, at = op->length * ld;
    double pairs =
        op->mechanism->time == TIME_CAUSAL ? n * (op->length + 0.5 * (n + 1)) : (double)n_q * (op->length + n);
    PairsJob job = {op, rows, rows->q};
    float *q = NULL;
    memcpy(p->values + at, rows->v, sizeof(float) * (size_t)(n * ld));
    if (p->v) {
        q = floats_need((int64_t)n_q * s->n_heads * d);
        map_heads(op->compute, p->wk, s->n_kv_heads, d, d, rows->k, s->n_kv_heads, p->keys + at, n);
        map_heads(op->compute, p->wq, s->n_heads, d, d, rows->q, s->n_heads, q, n_q);
        job.q = q;
        op->flops +=
            2.0 * d * d * ((double)n * s->n_kv_heads + (double)n_q * s->n_heads) + 4.0 * d * pairs * s->n_heads;
    } else {
        memcpy(p->keys + at, rows->k, sizeof(float) * (size_t)(n * ld));
    }
    op->flops += (p->v ? 2.0 * d : 2.0 * d) * pairs * s->n_heads;
    threads_for(op->compute->pool, n_q * s->n_heads, pairs_item, &job);
    free(q);
}

static double pairs_bytes(const Operator *op) {
    return 2.0 * sizeof(float) * op->length * op->shape.n_kv_heads * op->shape.head_dim;
}

#define PRODUCT .family = "scores", .open = product_open, .step = product_step
#define PAIRWISE .family = "scores", .open = pairs_open, .step = pairs_step, .bytes = pairs_bytes

const Mechanism scores_rows[] = {
    {"scaled-dot", "scaled dot products, the scores of the transformer",
     "Vaswani et al. 2017, arXiv:1706.03762, equation 1", "o = softmax(Q K^T / sqrt(d)) V\n", "O(n^2 d)", "O(n d)",
     "2 n d", "the reference", PRODUCT, .variant = SCALED_DOT, .approximates = true,
     .published = "28.4 BLEU, WMT14 en-de (arXiv:1706.03762, table 2)"},
    {"luong-dot", "dot products without a scale", "Luong et al. 2015, arXiv:1508.04025, section 3.1",
     "score(q, k) = q . k,   o = softmax(scores) V\n", "O(n^2 d)", "O(n d)", "2 n d", "narrow heads", PRODUCT,
     .variant = LUONG_DOT, .published = "5.0 BLEU above systems without attention (arXiv:1508.04025, abstract)"},
    {"luong-general", "a learned bilinear form: dot products with projected queries",
     "Luong et al. 2015, arXiv:1508.04025, section 3.1", "score(q, k) = q^T W k,   o = softmax(scores) V\n",
     "O(n d^2 + n^2 d)", "O(d^2 + n d)", "2 n d", "queries and keys of different kinds", PRODUCT,
     .variant = LUONG_GENERAL, .published = "5.0 BLEU above systems without attention (arXiv:1508.04025, abstract)"},
    {"additive", "a small network for each pair", "Bahdanau et al. 2014, arXiv:1409.0473, appendix A.1.2",
     "score(q, k) = v . tanh(W_q q + W_k k),   o = softmax(scores) V\n", "O(n^2 d), a tanh each", "O(n d), a tanh each",
     "2 n d", "short sequences, small data", PAIRWISE, .variant = ADDITIVE, .most_rows = 8192,
     .published = "26.75 BLEU, 17.82 from a fixed vector (arXiv:1409.0473, table 1, trained to 50 words)"},
    {"argmax", "hard attention: the value of the best key",
     "Xu et al. 2015, arXiv:1502.03044, section 4.1, taken greedily", "o = v_j,   j = argmax_j q . k_j / sqrt(d)\n",
     "O(n^2 d)", "O(n d)", "2 n d", "alignments that are one to one", PAIRWISE, .variant = ARGMAX, .most_rows = 8192},
    {"sampled", "hard attention: a value drawn by its probability",
     "Xu et al. 2015, arXiv:1502.03044, section 4.1; trained by REINFORCE (Williams 1992)",
     "o = v_j,   j ~ softmax(q . k_j / sqrt(d))\n", "O(n^2 d)", "O(n d)", "2 n d", "training hard choices", PAIRWISE,
     .variant = SAMPLED, .most_rows = 8192, .published = "BLEU-1 on COCO 71.8, soft 70.7 (arXiv:1502.03044, table 1)"},
    {0}};
