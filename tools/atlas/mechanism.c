// mechanism: see mechanism.h.
#include "mechanism.h"

#include "cli.h"
#include "file.h"
#include "ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const Mechanism *const families[] = {scores_rows, heads_rows,  masks_rows, exact_rows,  linear_rows,
                                            memory_rows, beyond_rows, hyena_rows, vision_rows, graph_rows};

const Mechanism *mechanism_at(int i) {
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        for (const Mechanism *m = families[f]; m->name; m++) {
            if (i-- == 0) return m;
        }
    }
    return NULL;
}

const Mechanism *mechanism_find(const char *name) {
    const Mechanism *m;
    for (int i = 0; (m = mechanism_at(i)); i++) {
        if (!strcmp(m->name, name)) return m;
    }
    return NULL;
}

Shape shape_of(const Mechanism *m, int n_max, int n_heads, int head_dim) {
    Shape s = {.n_heads = n_heads, .head_dim = head_dim, .n_max = n_max, .window = 256, .block = 64, .rank = 128};
    s.n_kv_heads = m->kv_heads && m->kv_heads < n_heads ? m->kv_heads : n_heads;
    s.type = KV_DTYPE_BF16;
    s.seed = 1;
    return s;
}

Shape shape_default(const Mechanism *m, int n_max) {
    return shape_of(m, n_max, 8, 64);
}

// ---- operators

int operator_open(Operator *op, const Mechanism *m, const Shape *shape, Compute *c, char *err, size_t errlen) {
    *op = (Operator){.mechanism = m, .compute = c, .shape = *shape};
    if (!m->open(op, err, errlen)) return 0;
    operator_close(op);
    return -1;
}

void operator_step(Operator *op, const Rows *rows) {
    op->mechanism->step(op, rows);
    op->length += rows->n_keys;
}

double operator_bytes(const Operator *op) {
    double bytes = 0;
    if (op->mechanism->bytes) return op->mechanism->bytes(op);
    for (int i = 0; i < op->n_caches; i++) bytes += (double)kvcache_bytes(op->caches[i]);
    return bytes;
}

void operator_close(Operator *op) {
    if (op->own && op->mechanism->close) op->mechanism->close(op);
    for (int i = 0; i < op->n_caches; i++) kvcache_close(op->caches[i]);
    for (int i = 0; i < op->n_blocks; i++) free(op->blocks[i]);
    *op = (Operator){0};
}

void *operator_own(Operator *op, size_t bytes) {
    if (op->n_blocks == MAX_OWNED) die(1, "%s: more than %d blocks of memory", op->mechanism->name, MAX_OWNED);
    return op->blocks[op->n_blocks++] = floats_need((int64_t)(bytes / sizeof(float)) + 1);
}

float *operator_floats(Operator *op, int64_t n) {
    return operator_own(op, sizeof(float) * (size_t)n);
}

float *operator_normals(Operator *op, uint64_t *seed, int64_t n, float deviation) {
    float *x = operator_floats(op, n);
    draw_normals(seed, x, n, deviation);
    return x;
}

// The weights of keys first..first+head_dim-1; v and out: rows of scratch.
static int probe(const Mechanism *m, const Shape *shape, Compute *c, const Rows *rows, int first, float *v, float *out,
                 float *weights, char *err, size_t errlen) {
    int n = rows->n_keys, d = shape->head_dim, n_kv = shape->n_kv_heads, last = first + d < n ? first + d : n;
    memset(v, 0, sizeof *v * (size_t)n * (size_t)(n_kv * d));
    for (int j = first; j < last; j++) {
        for (int h = 0; h < n_kv; h++) v[((int64_t)j * n_kv + h) * d + j - first] = 1;
    }
    Operator op;
    Rows unit = *rows;
    unit.v = v;
    unit.out = out;
    if (operator_open(&op, m, shape, c, err, errlen)) return -1;
    operator_step(&op, &unit);
    operator_close(&op);
    for (int t = 0; t < rows->n_q; t++) {
        for (int h = 0; h < shape->n_heads; h++) {
            const float *from = out + ((int64_t)t * shape->n_heads + h) * d;
            memcpy(weights + ((int64_t)h * rows->n_q + t) * n + first, from, sizeof *from * (size_t)(last - first));
        }
    }
    return 0;
}

int mechanism_weights(const Mechanism *m, const Shape *shape, Compute *c, const Rows *rows, float *weights, char *err,
                      size_t errlen) {
    float *v = floats_alloc((int64_t)rows->n_keys * shape->n_kv_heads * shape->head_dim, err, errlen);
    float *out = floats_alloc((int64_t)rows->n_q * shape->n_heads * shape->head_dim, err, errlen);
    int rc = v && out ? 0 : -1;
    for (int first = 0; first < rows->n_keys && !rc; first += shape->head_dim) {
        rc = probe(m, shape, c, rows, first, v, out, weights, err, errlen);
    }
    free(v);
    free(out);
    return rc;
}

// ---- what operators draw and share

Rows rows_part(const Rows *rows, const Shape *shape, int first, int n) {
    int64_t wide = (int64_t)first * shape->n_heads * shape->head_dim;
    int64_t narrow = (int64_t)first * shape->n_kv_heads * shape->head_dim;
    return (Rows){n, n, rows->q + wide, rows->k + narrow, rows->v + narrow, rows->gates + wide, rows->out + wide};
}

void step_pieces(Operator *op, const Rows *rows, int piece, void (*step)(Operator *op, const Rows *rows)) {
    int length = op->length;
    for (int at = 0, n; at < rows->n_keys; at += n) {
        n = rows->n_keys - at < piece ? rows->n_keys - at : piece;
        Rows part = rows_part(rows, &op->shape, at, n);
        op->length = length + at;
        step(op, &part);
    }
    op->length = length;
}

void take_heads(const Shape *s, float *to, const float *x, int x_heads, int first, int count, int n) {
    size_t d = (size_t)s->head_dim;
    int share = s->n_heads / x_heads;
    for (int64_t t = 0; t < n; t++) {
        for (int h = first; h < first + count; h++, to += d) {
            memcpy(to, x + (t * x_heads + h / share) * (int64_t)d, sizeof *x * d);
        }
    }
}

float sigmoidf(float x) {
    return 1 / (1 + expf(-x));
}

uint64_t draw_bits(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

float draw_uniform(uint64_t *state) {
    return ((float)(draw_bits(state) >> 41) + 0.5f) * 0x1p-23f;
}

float draw_normal(uint64_t *state) {
    float radius = sqrtf(-2 * logf(draw_uniform(state)));
    return radius * cosf(6.28318530718f * draw_uniform(state));
}

void draw_normals(uint64_t *state, float *x, int64_t n, float deviation) {
    for (int64_t i = 0; i < n; i++) x[i] = deviation * draw_normal(state);
}

void map_heads(const Compute *c, const float *w, int heads, int rows, int cols, const float *x, int x_heads, float *y,
               int n) {
    int share = heads / x_heads;
    for (int h = 0; h < share; h++) { // the heads that each head of x is the h-th of
        Tensor t = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {(int64_t)heads * rows, cols}, .data = w};
        HeadsLinear l = {.w = &t, .heads = x_heads, .first = h * rows, .pitch = share * rows, .n_rows = rows};
        l.x = x;
        l.x_ld = (int64_t)x_heads * cols;
        l.x_head = cols;
        l.y = y + (int64_t)h * rows;
        l.y_ld = (int64_t)heads * rows;
        l.y_head = (int64_t)share * rows;
        ops_linear_heads(c, &l, n);
    }
}

float *floats_alloc(int64_t n, char *err, size_t errlen) {
    size_t bytes = sizeof(float) * scratch_floats(n > 0 ? n : 1);
    float *x = aligned_alloc(64, bytes);
    if (x) memset(x, 0, bytes);
    else fail(err, errlen, "out of memory for %lld numbers", (long long)n);
    return x;
}

float *floats_need(int64_t n) {
    char err[200];
    float *x = floats_alloc(n, err, sizeof err);
    if (!x) die(1, "%s", err);
    return x;
}
