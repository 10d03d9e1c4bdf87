// atlas_reference.h: what the checks of the atlas share: each mechanism against a naive version of it in double.
//
// A reference is a function of the rows alone that writes every output in double, n x n where that is simplest. What a
// mechanism draws, its reference draws again from Shape.seed in the order that the mechanism's file states.
#pragma once
#include "reference.h"

#include "inputs.h"
#include "mechanism.h"

// out [n_q][n_heads][head_dim]
typedef void (*Naive)(const Shape *s, const Rows *r, double *out);

typedef struct {
    const char *name;
    Naive naive;
    double most; // relative error with KV_DTYPE_F32
    bool even;   // n_heads and n_kv_heads are equal in every case
} Subject;

typedef struct {
    int n_heads, n_kv_heads, head_dim, n_keys, n_q; // n_q: of TIME_CROSS
} AtlasCase;

static const AtlasCase atlas_cases[] = {{1, 1, 7, 1, 1},    {3, 1, 16, 5, 3},    {2, 2, 20, 33, 1},
                                        {4, 2, 8, 130, 31}, {3, 3, 24, 77, 100}, {1, 1, 32, 530, 5}};

UNUSED static Shape atlas_shape(const AtlasCase *c, const Subject *s) {
    Shape shape = {.n_heads = c->n_heads, .head_dim = c->head_dim, .n_max = c->n_keys, .seed = 77};
    shape.n_kv_heads = s->even ? c->n_heads : c->n_kv_heads;
    shape.window = 9;
    shape.block = 8;
    shape.rank = 12;
    shape.type = KV_DTYPE_F32;
    return shape;
}

// ||a - b|| / ||b||
UNUSED static double relative_error(const float *a, const double *b, int64_t n) {
    return sqrt(nmse(a, b, (int)n));
}

// Runs the rows of `in` in steps of `step` rows (0: one) and leaves the outputs in in->out.
UNUSED static bool run_mechanism(const Mechanism *m, const Shape *shape, Inputs *in, int threads, int step) {
    char err[512] = "";
    Compute c;
    Operator op = {0};
    bool ok = !compute_open(&c, threads, err, sizeof err);
    int64_t n = (int64_t)in->n_q * shape->n_heads * shape->head_dim;
    for (int64_t i = 0; i < n; i++) in->out[i] = NAN;
    if (!ok || operator_open(&op, m, shape, &c, err, sizeof err)) {
        CHECK(false, "%s: %s", m->name, err);
        if (ok) compute_close(&c);
        return false;
    }
    Rows all = inputs_all(in);
    if (!step) operator_step(&op, &all);
    for (int at = 0; step && at < in->n_keys; at += step) {
        Rows some = inputs_rows(in, at, in->n_keys - at < step ? in->n_keys - at : step);
        operator_step(&op, &some);
    }
    CHECK(op.flops > 0 && operator_bytes(&op) >= 0, "%s: %g operations, %g bytes", m->name, op.flops,
          operator_bytes(&op));
    operator_close(&op);
    compute_close(&c);
    return true;
}

UNUSED static void check_case(const Subject *s, const Mechanism *m, const AtlasCase *c) {
    Shape shape = atlas_shape(c, s);
    int n_q = m->time == TIME_CROSS ? c->n_q : c->n_keys;
    int64_t n = (int64_t)n_q * shape.n_heads * shape.head_dim;
    Inputs in;
    inputs_open(&in, &shape, n_q, c->n_keys, 1234 + (uint64_t)c->n_keys);
    double *want = need(sizeof *want * (size_t)n);
    float *first = need_floats(n);
    Rows rows = inputs_all(&in);
    s->naive(&shape, &rows, want);
    if (run_mechanism(m, &shape, &in, 1, 0)) {
        memcpy(first, in.out, sizeof *first * (size_t)n);
        double error = relative_error(in.out, want, n);
        CHECK(error <= s->most, "%s: %d heads (%d) of %d, %d rows: relative error %.3g, at most %.3g", s->name,
              shape.n_heads, shape.n_kv_heads, shape.head_dim, c->n_keys, error, s->most);
        run_mechanism(m, &shape, &in, 3, 0);
        CHECK(!memcmp(first, in.out, sizeof *first * (size_t)n), "%s: %d rows: 3 threads give other bits than 1",
              s->name, c->n_keys);
    }
    for (int step = 1; step < c->n_keys && m->time == TIME_CAUSAL; step = step * 6 + 1) {
        run_mechanism(m, &shape, &in, 3, step);
        double error = relative_error(in.out, want, n);
        CHECK(error <= s->most, "%s: %d rows in steps of %d: relative error %.3g, at most %.3g", s->name, c->n_keys,
              step, error, s->most);
    }
    free(want);
    free(first);
    inputs_close(&in);
}

// Odd sizes, 1 and 3 threads (equal bits), at once and in steps.
UNUSED static void check_subject(const Subject *s) {
    const Mechanism *m = mechanism_find(s->name);
    NEED(m, "%s: no such mechanism", s->name);
    for (int i = 0; i < N_OF(atlas_cases); i++) check_case(s, m, &atlas_cases[i]);
}

// ---- pieces of references

UNUSED static const float *q_at(const Shape *s, const Rows *r, int t, int head) {
    return r->q + ((int64_t)t * s->n_heads + head) * s->head_dim;
}
// Of the head of keys or values that a head of queries shares.
UNUSED static const float *kv_at(const Shape *s, const float *kv, int j, int head) {
    return kv + ((int64_t)j * s->n_kv_heads + head / (s->n_heads / s->n_kv_heads)) * s->head_dim;
}

UNUSED static double dot_double(const float *a, const float *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

// What a pair scores, and whether query t sees key j; both know what `context` is.
typedef double (*NaiveScore)(const Shape *s, const Rows *r, int t, int j, int head, const void *context);
typedef bool (*NaiveSees)(const Shape *s, int t, int j, const void *context);

UNUSED static double scaled_score(const Shape *s, const Rows *r, int t, int j, int head, const void *context) {
    (void)context;
    return dot_double(q_at(s, r, t, head), kv_at(s, r->k, j, head), s->head_dim) / sqrt((double)s->head_dim);
}
UNUSED static bool sees_past(const Shape *s, int t, int j, const void *context) {
    (void)s;
    (void)context;
    return j <= t;
}
UNUSED static bool sees_all(const Shape *s, int t, int j, const void *context) {
    (void)s;
    (void)t;
    (void)j;
    (void)context;
    return true;
}

// softmax(scores) V over what each row sees; zeros where it sees nothing.
UNUSED static void naive_softmax(const Shape *s, const Rows *r, NaiveScore score, NaiveSees sees, const void *context,
                                 double *out) {
    int d = s->head_dim;
    double *p = need(sizeof *p * (size_t)r->n_keys);
    for (int i = 0; i < r->n_q * s->n_heads; i++) {
        int t = i / s->n_heads, head = i % s->n_heads;
        double most = -INFINITY, sum = 0, *o = out + (int64_t)i * d;
        for (int j = 0; j < r->n_keys; j++) {
            p[j] = sees(s, t, j, context) ? score(s, r, t, j, head, context) : -INFINITY;
            most = fmax(most, p[j]);
        }
        for (int c = 0; c < d; c++) o[c] = 0;
        for (int j = 0; j < r->n_keys; j++) {
            if (p[j] == -INFINITY) continue;
            double w = exp(p[j] - most);
            sum += w;
            for (int c = 0; c < d; c++) o[c] += w * (double)kv_at(s, r->v, j, head)[c];
        }
        for (int c = 0; c < d && sum > 0; c++) o[c] /= sum;
    }
    free(p);
}
