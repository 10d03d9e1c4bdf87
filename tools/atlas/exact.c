// exact: softmax attention computed in different ways and precisions: the same formula, other arithmetic.
//
// Owns the rows of the n x n matrix, of the engine's tiles over each type of cache, of int8 products with smoothed
// keys, and of 8-bit floats with and without rotation. The tiles are attention(); 8-bit floats are its inputs, rounded.
// The matrix and the int8 products have small loops of their own, in C for any machine.
#include "soft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FLASH, FP8, FP8_ROTATED, FLASH_BF16, FLASH_INT8, INT8, SAGE }; // over fp32, bfloat16, and int8

// ---- the matrix: all scores, then all probabilities, then the sums of values

typedef struct {
    float *k, *v; // [panels of keys][n_kv_heads][head_dim][MAX_PANEL]; [n_max][n_kv_heads][head_dim], then a panel
} Matrix;

static void matrix_open(Operator *op) {
    Matrix *m = op->own = operator_own(op, sizeof *m);
    int64_t n_max = op->shape.n_max, width = key_width(&op->shape);
    m->k = operator_floats(op, (n_max / MAX_PANEL + 1) * MAX_PANEL * width);
    m->v = operator_floats(op, n_max * width + MAX_PANEL);
}

// Of the scores, which stand in place of outputs.
static void softmax_row(const Work *w, int t) {
    const Operator *op = w->op;
    int n = op->length + t + 1, n_keys = op->length + w->rows->n_keys;
    float *s = w->rows->out + (int64_t)t * n_keys, scale = LOG2_E / sqrtf((float)op->shape.head_dim);
    float m = SCORE_START, l = 0;
    for (int j = 0; j < n; j++) s[j] *= scale;
    op->compute->kernels->softmax_row(s, n, &m, &l);
    for (int j = 0; j < n; j++) s[j] /= l;
    memset(s + n, 0, sizeof *s * (size_t)(n_keys - n));
}

static void matrix_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    const Matrix *m = op->own;
    int n = rows->n_keys, n_keys = op->length + n, d = s->head_dim;
    int64_t wide = query_width(s), narrow = key_width(s);
    float *scores = floats_need((int64_t)n * n_keys);
    memcpy(m->v + op->length * narrow, rows->v, sizeof *m->v * (size_t)(n * narrow));
    for (int64_t i = 0; i < n * narrow; i++) {
        int64_t j = op->length + i / narrow;
        m->k[(j / MAX_PANEL * narrow + i % narrow) * MAX_PANEL + j % MAX_PANEL] = rows->k[i];
    }
    for (int h = 0; h < s->n_heads; h++) {
        PackedMatrix v = packed_rows(m->v + key_place(s, 0, h), narrow), k = {.row_stride = MAX_PANEL};
        k.data = m->k + key_place(s, 0, h) * MAX_PANEL;
        k.panel_stride = narrow * MAX_PANEL;
        multiply_rows((Product){op->compute, scores, rows->q + h * d, k, n_keys, wide, n, d, n_keys});
        operator_for(op, &(Rows){.n_keys = n, .out = scores}, n, softmax_row);
        multiply_rows((Product){op->compute, rows->out + h * d, scores, v, wide, n_keys, n, n_keys, d});
    }
    free(scores);
    op->flops += 4.0 * n * n_keys * (double)wide; // hidden pairs are computed too
    op->held += 2.0 * sizeof(float) * n * (double)narrow;
}

// ---- tiles, of numbers as they are or rounded before

typedef struct {
    Soft soft;
    float *signs; // [head_dim] of FP8_ROTATED: 1 or -1
    float *mean;  // [n_kv_heads][head_dim] of SAGE: of the first step's keys, taken from every key
} Tiles;

static void tiles_open(Operator *op) {
    int kind = op->mechanism->variant;
    const Shape *s = &op->shape;
    Tiles *t = op->own = operator_own(op, sizeof *t);
    op->shape.type = kind < FLASH_BF16 ? KV_DTYPE_F32 : kind == FLASH_BF16 ? KV_DTYPE_BF16 : KV_DTYPE_Q8;
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
