// check_atlas: the atlas's softmax mechanisms against naive versions in double, identities between them, and the list.
#include "atlas_reference.h"

#include "facts.h"

// ---- scores

static void naive_scaled(const Shape *s, const Rows *r, double *out) {
    naive_softmax(s, r, scaled_score, sees_past, NULL, out);
}

static double plain_score(const Shape *s, const Rows *r, int t, int j, int head, const void *context) {
    return scaled_score(s, r, t, j, head, context) * sqrt((double)s->head_dim);
}
static void naive_luong_dot(const Shape *s, const Rows *r, double *out) {
    naive_softmax(s, r, plain_score, sees_past, NULL, out);
}

static float *drawn(uint64_t *seed, int64_t n, double deviation) {
    float *x = need_floats(n);
    random_normals(seed, x, n, (float)deviation);
    return x;
}

// y[rows] = w x
static void naive_map(const float *w, const double *x, int rows, int cols, double *y) {
    for (int i = 0; i < rows; i++) {
        y[i] = 0;
        for (int c = 0; c < cols; c++) y[i] += (double)w[(int64_t)i * cols + c] * x[c];
    }
}

static void widen(double *y, const float *x, int n) {
    for (int i = 0; i < n; i++) y[i] = (double)x[i];
}

// W^T of every head.
static double general_score(const Shape *s, const Rows *r, int t, int j, int head, const void *context) {
    int d = s->head_dim;
    double q[64] = {0}, projected[64], sum = 0;
    widen(q, q_at(s, r, t, head), d);
    naive_map((const float *)context + (int64_t)head * d * d, q, d, d, projected);
    for (int c = 0; c < d; c++) sum += projected[c] * (double)kv_at(s, r->k, j, head)[c];
    return sum;
}
static void naive_luong_general(const Shape *s, const Rows *r, double *out) {
    uint64_t seed = s->seed;
    float *w = drawn(&seed, (int64_t)s->n_heads * s->head_dim * s->head_dim, 1 / sqrt((double)s->head_dim));
    naive_softmax(s, r, general_score, sees_past, w, out);
    free(w);
}

typedef struct {
    float *wq, *wk, *v;
} AdditiveWeights;

static double additive_score(const Shape *s, const Rows *r, int t, int j, int head, const void *context) {
    const AdditiveWeights *w = context;
    int d = s->head_dim, kv_head = head / (s->n_heads / s->n_kv_heads);
    double x[64] = {0}, q[64], k[64], sum = 0;
    widen(x, q_at(s, r, t, head), d);
    naive_map(w->wq + (int64_t)head * d * d, x, d, d, q);
    widen(x, kv_at(s, r->k, j, head), d);
    naive_map(w->wk + (int64_t)kv_head * d * d, x, d, d, k);
    for (int c = 0; c < d; c++) sum += (double)w->v[head * d + c] * tanh(q[c] + k[c]);
    return sum;
}
static void naive_additive(const Shape *s, const Rows *r, double *out) {
    uint64_t seed = s->seed;
    int64_t square = (int64_t)s->head_dim * s->head_dim;
    double deviation = 1 / sqrt((double)s->head_dim);
    AdditiveWeights w;
    w.wq = drawn(&seed, s->n_heads * square, deviation);
    w.wk = drawn(&seed, s->n_kv_heads * square, deviation);
    w.v = drawn(&seed, (int64_t)s->n_heads * s->head_dim, 1);
    naive_softmax(s, r, additive_score, sees_past, &w, out);
    free(w.wq);
    free(w.wk);
    free(w.v);
}

// Keys whose scores differ by less than rounding are no test: random rows have none.
static void naive_argmax(const Shape *s, const Rows *r, double *out) {
    for (int i = 0; i < r->n_q * s->n_heads; i++) {
        int t = i / s->n_heads, head = i % s->n_heads, best = 0;
        for (int j = 1; j <= t; j++) {
            if (scaled_score(s, r, t, j, head, NULL) > scaled_score(s, r, t, best, head, NULL)) best = j;
        }
        widen(out + (int64_t)i * s->head_dim, kv_at(s, r->v, best, head), s->head_dim);
    }
}

// Over many seeds, a sampled value's mean is the softmax's.
static void sampled_by_probability(void) {
    enum { N = 12, SEEDS = 4000 };
    char err[512];
    const Mechanism *m = mechanism_find("sampled");
    Shape shape = {.n_heads = 1, .n_kv_heads = 1, .head_dim = N, .n_max = N, .type = KV_DTYPE_F32};
    Inputs in;
    Compute c;
    inputs_open(&in, &shape, N, N, 3);
    NEED(!compute_open(&c, 1, err, sizeof err), "%s", err);
    Rows rows = inputs_all(&in);
    double mean[N * N] = {0}, want[N * N];
    memset(in.v, 0, sizeof *in.v * N * N);
    for (int j = 0; j < N; j++) in.v[j * N + j] = 1;
    for (int i = 0; i < SEEDS; i++) {
        Operator op;
        shape.seed = (uint64_t)i;
        NEED(!operator_open(&op, m, &shape, &c, err, sizeof err), "%s", err);
        operator_step(&op, &rows);
        operator_close(&op);
        for (int j = 0; j < N * N; j++) mean[j] += (double)in.out[j] / SEEDS;
    }
    naive_scaled(&shape, &rows, want);
    for (int j = 0; j < N * N; j++) {
        double deviation = sqrt(want[j] * (1 - want[j]) / SEEDS);
        CHECK(fabs(mean[j] - want[j]) <= 4.5 * deviation + 1e-6,
              "row %d, key %d: drawn %.4f of the time, expected %.4f", j / N, j % N, mean[j], want[j]);
    }
    inputs_close(&in);
    compute_close(&c);
}

// ---- heads

static void naive_whole(const Shape *s, const Rows *r, double *out) {
    naive_softmax(s, r, scaled_score, sees_all, NULL, out);
}

// Keys and values of every head from the latent, then softmax: not the absorbed form that the atlas runs.
static void naive_latent(const Shape *s, const Rows *r, double *out) {
    int d = s->head_dim, width = s->n_heads * d, rank = s->rank, n = r->n_keys;
    uint64_t seed = s->seed;
    float *down = drawn(&seed, (int64_t)rank * width, 1 / sqrt((double)width));
    float *absorb = drawn(&seed, (int64_t)rank * width, 1 / sqrt((double)rank));
    float *up = drawn(&seed, (int64_t)rank * width, 1 / sqrt((double)rank));
    float *k = need_floats((int64_t)n * width), *v = need_floats((int64_t)n * width);
    double x[128] = {0}, c[64];
    for (int j = 0; j < n; j++) {
        widen(x, r->k + (int64_t)j * width, width);
        naive_map(down, x, rank, width, c);
        for (int i = 0; i < width; i++) { // head i / d, dimension i % d
            double key = 0, value = 0;
            for (int l = 0; l < rank; l++) {
                key += (double)absorb[((int64_t)(i / d) * rank + l) * d + i % d] * c[l];
                value += (double)up[(int64_t)i * rank + l] * c[l];
            }
            k[(int64_t)j * width + i] = (float)key;
            v[(int64_t)j * width + i] = (float)value;
        }
    }
    Rows full = *r;
    full.k = k;
    full.v = v;
    naive_softmax(s, &full, scaled_score, sees_past, NULL, out);
    float *all[] = {down, absorb, up, k, v};
    for (int i = 0; i < N_OF(all); i++) free(all[i]);
}

static const Subject subjects[] = {{"scaled-dot", naive_scaled, 1e-5, false},
                                   {"luong-dot", naive_luong_dot, 1e-5, false},
                                   {"luong-general", naive_luong_general, 1e-5, false},
                                   {"additive", naive_additive, 1e-5, false},
                                   {"argmax", naive_argmax, 1e-6, false},
                                   {"mha", naive_scaled, 1e-5, true},
                                   {"gqa", naive_scaled, 1e-5, false},
                                   {"mqa", naive_scaled, 1e-5, false},
                                   {"mla", naive_latent, 1e-5, true},
                                   {"causal", naive_scaled, 1e-5, false},
                                   {"bidirectional", naive_whole, 1e-5, false},
                                   {"cross", naive_whole, 1e-5, false}};

// ---- the list

static void rows_are_complete(void) {
    static const char *const needed[] = {"family",  "title",  "paper",  "formula",
                                         "prefill", "decode", "memory", "best_for"};
    const Mechanism *m;
    int n = 0;
    for (; (m = mechanism_at(n)); n++) {
        for (int k = 0; k < N_OF(needed); k++) CHECK(fact(m, needed[k]), "%s: expected a %s", m->name, needed[k]);
        CHECK(m->step, "%s: no operator", m->name);
        CHECK(mechanism_find(m->name) == m, "%s: a second row of this name", m->name);
        const char *same_as = fact(m, "same_as"), *formula = fact(m, "formula");
        CHECK(!same_as || mechanism_find(same_as), "%s: same as %s, which is none", m->name, same_as);
        CHECK(formula && formula[strlen(formula) - 1] == '\n', "%s: the formula's last line has no end", m->name);
    }
    CHECK((int)json_array_size(facts_all()) == n, "facts of %zu mechanisms, expected %d", json_array_size(facts_all()),
          n);
    CHECK(!mechanism_find("none"), "a mechanism called none");
}

// The weights of softmax attention, found by running it on unit vectors: more rows than head_dim.
static void weights_are_probabilities(void) {
    enum { N = 45 };
    char err[512];
    Shape shape = {.n_heads = 2, .n_kv_heads = 1, .head_dim = 16, .n_max = N, .type = KV_DTYPE_F32};
    Inputs in;
    Compute c;
    inputs_open(&in, &shape, N, N, 3);
    NEED(!compute_open(&c, 2, err, sizeof err), "%s", err);
    float *w = need_floats(2 * N * N);
    Rows rows = inputs_all(&in);
    mechanism_weights(mechanism_find("gqa"), &shape, &c, &rows, w);
    for (int i = 0; i < 2 * N; i++) {
        int head = i / N, t = i % N;
        double sum = 0;
        for (int j = 0; j <= t; j++) sum += exp(scaled_score(&shape, &rows, t, j, head, NULL));
        for (int j = 0; j < N; j++) {
            double want = j <= t ? exp(scaled_score(&shape, &rows, t, j, head, NULL)) / sum : 0;
            CHECK(fabs((double)w[i * N + j] - want) < 1e-5, "head %d, row %d, key %d: %g, expected %g", head, t, j,
                  (double)w[i * N + j], want);
        }
    }
    free(w);
    inputs_close(&in);
    compute_close(&c);
}

int main(void) {
    RUN(rows_are_complete);
    for (int i = 0; i < N_OF(subjects); i++) RUN_AS(subjects[i].name, check_subject(&subjects[i]));
    RUN(sampled_by_probability);
    RUN(weights_are_probabilities);
    return test_report();
}
