// exact: softmax attention computed in different ways and precisions: the same formula, other arithmetic.
//
// Owns the rows of the n x n matrix, of the engine's tiles over each type of cache, of int8 products with smoothed
// keys, and of 8-bit floats with and without rotation. The tiles are attention(); 8-bit floats are its inputs, rounded.
// The matrix and the int8 products have small loops of their own, in C for any machine.
#include "soft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FLASH, FLASH_BF16, FLASH_INT8, INT8, SAGE, FP8, FP8_ROTATED };
enum { GROUP = MAX_PANEL }; // keys of a panel

// ---- the matrix: all scores, then all probabilities, then the sums of values

typedef struct {
    float *k;     // [n_kv_heads][groups of GROUP keys][head_dim][GROUP]
    float *v;     // [n_kv_heads][n_max][head_dim], then a panel that may be read
    int n_groups; // of n_max keys
} Matrix;

static int whole_groups(int n) {
    return (n + GROUP - 1) / GROUP;
}

static void matrix_open(Operator *op) {
    const Shape *s = &op->shape;
    Matrix *m = op->own = operator_own(op, sizeof *m);
    m->n_groups = whole_groups(s->n_max);
    m->k = operator_floats(op, (int64_t)s->n_kv_heads * m->n_groups * GROUP * s->head_dim);
    m->v = operator_floats(op, s->n_max * key_width(s) + GROUP);
}

// Of the scores, which stand in place of outputs.
static void softmax_row(const Work *w, int t) {
    const Operator *op = w->op;
    int n = op->length + t + 1, n_keys = op->length + w->rows->n_keys, width = whole_groups(n_keys) * GROUP;
    float *s = w->rows->out + (int64_t)t * width, scale = LOG2_E / sqrtf((float)op->shape.head_dim);
    float m = SCORE_START, l = 0;
    for (int j = 0; j < n; j++) s[j] *= scale;
    op->compute->kernels->softmax_row(s, n, &m, &l);
    for (int j = 0; j < n; j++) s[j] /= l;
    memset(s + n, 0, sizeof *s * (size_t)(width - n));
}

static void matrix_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    const Matrix *m = op->own;
    int d = s->head_dim, n_keys = op->length + rows->n_keys, width = whole_groups(n_keys) * GROUP;
    for (int64_t i = 0; i < (int64_t)rows->n_keys * s->n_kv_heads; i++) {
        int64_t h = i % s->n_kv_heads, j = op->length + i / s->n_kv_heads;
        float *k = m->k + ((h * m->n_groups + j / GROUP) * d) * GROUP + j % GROUP;
        for (int c = 0; c < d; c++) k[c * GROUP] = rows->k[i * d + c];
        memcpy(m->v + (h * s->n_max + j) * d, rows->v + i * d, sizeof(float) * (size_t)d);
    }
    int64_t wide = query_width(s);
    float *scores = floats_need((int64_t)rows->n_q * width);
    for (int h = 0; h < s->n_heads; h++) {
        int64_t kv = h / (s->n_heads / s->n_kv_heads);
        PackedMatrix k = {.data = m->k + kv * m->n_groups * GROUP * d, .row_stride = GROUP, .panel_stride = GROUP * d};
        PackedMatrix v = {.data = m->v + kv * s->n_max * d, .row_stride = d, .panel_stride = GROUP};
        multiply_rows((Product){op->compute, scores, rows->q + h * d, k, width, wide, rows->n_q, d, width});
        operator_for(op, &(Rows){.n_keys = rows->n_keys, .out = scores}, rows->n_q, softmax_row);
        multiply_rows((Product){op->compute, rows->out + h * d, scores, v, wide, width, rows->n_q, n_keys, d});
    }
    free(scores);
    op->flops += 4.0 * rows->n_q * n_keys * (double)wide; // hidden pairs are computed too
    op->held += 2.0 * sizeof(float) * rows->n_keys * (double)key_width(s);
}

// ---- tiles, of numbers as they are or rounded before

typedef struct {
    Soft soft;
    float *signs; // [head_dim] of FP8_ROTATED: 1 or -1
    float *mean;  // [n_kv_heads][head_dim] of SAGE: of the first step's keys, taken from every key
} Tiles;

static void tiles_open(Operator *op) {
    static const KvDType types[] = {
        [FLASH] = KV_DTYPE_F32, [FLASH_BF16] = KV_DTYPE_BF16, [FLASH_INT8] = KV_DTYPE_Q8,  [INT8] = KV_DTYPE_Q8,
        [SAGE] = KV_DTYPE_Q8,   [FP8] = KV_DTYPE_F32,         [FP8_ROTATED] = KV_DTYPE_F32};
    const Shape *s = &op->shape;
    Tiles *t = op->own = operator_own(op, sizeof *t);
    op->shape.type = types[op->mechanism->variant];
    t->signs = operator_floats(op, s->head_dim);
    t->mean = operator_floats(op, key_width(s));
    for (int c = 0; c < s->head_dim; c++) t->signs[c] = random_bits(&op->seed) >> 63 ? 1 : -1;
    soft_open(&t->soft, op, 0, 0);
}

// The nearest number of 4 exponent and 3 mantissa bits up to 448 (e4m3, arXiv:2209.05433).
static float e4m3(float x) {
    int exponent;
    frexpf(x, &exponent);
    float step = ldexpf(1, (exponent < -5 ? -5 : exponent) - 4); // 3 bits behind the leading one; subnormals below 2^-6
    return fminf(fmaxf(rintf(x / step) * step, -448), 448);
}

// x = diag(signs) x, then Hadamard's matrix / sqrt(power) over each `power` of them, the largest power of two in d.
static void rotate(float *x, const float *signs, int d) {
    int power = d & -d;
    for (int c = 0; c < d; c++) x[c] *= signs[c];
    for (int half = 1; half < power; half *= 2) {
        for (int c = 0; c < d; c++) {
            if (c & half) continue;
            float a = x[c], b = x[c + half];
            x[c] = (a + b) * 0.70710678f;
            x[c + half] = (a - b) * 0.70710678f;
        }
    }
}

// Each row of d numbers with a scale of its own that makes the largest `most`: as e4m3, or as whole numbers.
static void round_rows(float *x, int64_t n_rows, int d, float most, bool whole) {
    for (int64_t r = 0; r < n_rows; r++, x += d) {
        float largest = 0;
        for (int c = 0; c < d; c++) largest = fmaxf(largest, fabsf(x[c]));
        float scale = largest > 0 ? largest / most : 1;
        for (int c = 0; c < d; c++) x[c] = (whole ? rintf(x[c] / scale) : e4m3(x[c] / scale)) * scale;
    }
}

static void rounded_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    Tiles *t = op->own;
    int kind = op->mechanism->variant, d = s->head_dim, width = (int)key_width(s);
    int64_t n_q = (int64_t)rows->n_q * s->n_heads, n_kv = (int64_t)rows->n_keys * s->n_kv_heads;
    float *q = floats_need((n_q + 2 * n_kv) * d);
    float *k = q + n_q * d, *v = k + n_kv * d;
    memcpy(q, rows->q, sizeof *q * (size_t)(n_q * d));
    memcpy(k, rows->k, sizeof *k * (size_t)(n_kv * d));
    memcpy(v, rows->v, sizeof *v * (size_t)(n_kv * d));
    if (kind == FP8_ROTATED) {
        for (int64_t i = 0; i < n_q + n_kv; i++) rotate(q + i * d, t->signs, d); // k stands behind q
    }
    if (kind == SAGE && !op->length) {
        for (int64_t i = 0; i < n_kv * d; i++) t->mean[i % width] += k[i] / (float)rows->n_keys;
    }
    for (int64_t i = 0; i < n_kv * d; i++) k[i] -= t->mean[i % width];
    bool whole = kind == INT8 || kind == SAGE;
    round_rows(q, n_q, d, whole ? 127 : 448, whole);
    if (!whole) round_rows(k, n_kv, d, 448, false); // the cache makes its own whole numbers
    if (!whole) round_rows(v, n_kv, d, 448, false);
    Rows rounded = {.n_q = rows->n_q, .n_keys = rows->n_keys, .k = k, .v = v, .out = rows->out};
    soft_step(op, &t->soft, q, &rounded);
    free(q);
}

#define TILED(kind) .approximates = true, .variant = (kind), .open = tiles_open, .step = soft_plain_step
#define ROUNDED(kind) .approximates = true, .variant = (kind), .open = tiles_open, .step = rounded_step

const Mechanism exact_rows[] = {
    {"naive", .approximates = true, .most_rows = 8192, .open = matrix_open, .step = matrix_step},
    {"flash", TILED(FLASH)},
    {"flash-bf16", TILED(FLASH_BF16)},
    {"flash-int8", TILED(FLASH_INT8)},
    {"int8", ROUNDED(INT8)},
    {"sage", ROUNDED(SAGE)},
    {"fp8", ROUNDED(FP8)},
    {"fp8-rotated", ROUNDED(FP8_ROTATED)},
    {0},
};
