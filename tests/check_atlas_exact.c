// check_atlas_exact: the atlas's exact and low-precision attention. The roundings are made again here from their
// definitions, so that what is left is fp32 arithmetic; caches of 16 and 8 bits have tolerances of their size.
#include "atlas_reference.h"

static void naive_exact(const Shape *s, const Rows *r, double *out) {
    naive_softmax(s, r, scaled_score, sees_past, NULL, out);
}

// The nearest of all finite values of e4m3: 2^(e - 7) (1 + m / 8), or 2^-6 m / 8 for e = 0; ties to the even m.
static double nearest_e4m3(double x) {
    double best = 0, distance = INFINITY;
    for (int code = 0; code < 127; code++) { // 127 is NaN
        int e = code >> 3, m = code & 7;
        double v = e ? ldexp(1 + m / 8.0, e - 7) : ldexp(m / 8.0, -6), off = fabs(fabs(x) - v);
        if (off > distance || (off == distance && m % 2)) continue;
        best = v;
        distance = off;
    }
    return x < 0 ? -best : best;
}

static float *rounded_copy(const float *x, int64_t n_rows, int d) {
    float *y = need_floats(n_rows * d);
    for (int64_t r = 0; r < n_rows; r++) {
        float most = 0;
        for (int c = 0; c < d; c++) most = fmaxf(most, fabsf(x[r * d + c]));
        float scale = most / 448;
        for (int c = 0; c < d; c++) y[r * d + c] = (float)nearest_e4m3((double)(x[r * d + c] / scale)) * scale;
    }
    return y;
}

static void naive_fp8(const Shape *s, const Rows *r, double *out) {
    int64_t n_kv = (int64_t)r->n_keys * s->n_kv_heads;
    float *q = rounded_copy(r->q, (int64_t)r->n_q * s->n_heads, s->head_dim);
    float *k = rounded_copy(r->k, n_kv, s->head_dim), *v = rounded_copy(r->v, n_kv, s->head_dim);
    Rows rounded = *r;
    rounded.q = q;
    rounded.k = k;
    rounded.v = v;
    naive_exact(s, &rounded, out);
    free(q);
    free(k);
    free(v);
}

static const Subject subjects[] = {{"naive", naive_exact, 1e-5, false},      {"flash", naive_exact, 1e-5, false},
                                   {"flash-bf16", naive_exact, 8e-3, false}, {"flash-int8", naive_exact, 2e-2, false},
                                   {"int8", naive_exact, 2e-2, false},       {"sage", naive_exact, 2e-2, false},
                                   {"fp8", naive_fp8, 1e-5, false},          {"fp8-rotated", naive_exact, 1e-1, false}};

// Of 300 rows, whose keys share a part of this size.
static double error_of(const char *name, float shared) {
    enum { N = 300 };
    Shape shape = {.n_heads = 2, .n_kv_heads = 2, .head_dim = 64, .n_max = N, .type = KV_DTYPE_F32, .seed = 3};
    int64_t n = (int64_t)N * 128;
    Inputs in;
    inputs_open(&in, &shape, N, N, 11);
    for (int64_t i = 0; i < n; i++) in.k[i] += shared * (float)(i % 64 % 3 - 1);
    double *want = need(sizeof *want * (size_t)n);
    Rows rows = inputs_all(&in);
    naive_exact(&shape, &rows, want);
    run_mechanism(mechanism_find(name), &shape, &in, 2, 0);
    double error = relative_error(in.out, want, n);
    free(want);
    inputs_close(&in);
    return error;
}

static void smoothing_helps(void) {
    double plain = error_of("int8", 20), smooth = error_of("sage", 20);
    CHECK(smooth < plain / 3, "keys that share a part: %.3g with smoothing, %.3g without", smooth, plain);
}

// q M . k M = q . k for an orthogonal M: rounding apart, nothing changes, and rounding is as large as before.
static void rotation_keeps_products(void) {
    double plain = error_of("fp8", 0), rotated = error_of("fp8-rotated", 0);
    CHECK(rotated < 1.3 * plain, "%.3g with rotation, %.3g without", rotated, plain);
}

int main(void) {
    for (int i = 0; i < N_OF(subjects); i++) RUN_AS(subjects[i].name, check_subject(&subjects[i]));
    RUN(smoothing_helps);
    RUN(rotation_keeps_products);
    return test_report();
}
