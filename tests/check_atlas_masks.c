// check_atlas_masks: the atlas's sparse masks against softmax over the keys that their rows' formulas name, key by key,
// and identities: a window as long as the text is causal attention, blocks that are all global are dense attention.
#include "atlas_reference.h"

static bool sees_window(const Shape *s, int t, int j, const void *context) {
    (void)context;
    return j <= t && j > t - s->window;
}
static bool sees_sinks(const Shape *s, int t, int j, const void *context) {
    return j <= t && (j < 4 || sees_window(s, t, j, context));
}
static bool sees_dilated(const Shape *s, int t, int j, const void *context) {
    (void)context;
    return j <= t && (t - j) % 4 == 0 && (t - j) / 4 < s->window;
}
static bool sees_strided(const Shape *s, int t, int j, const void *context) {
    (void)context;
    int distance = t / s->block - j / s->block;
    return j <= t && (distance < s->window / s->block || distance % 8 == 0);
}
static bool sees_fixed(const Shape *s, int t, int j, const void *context) {
    (void)context;
    int b = t / s->block, c = j / s->block;
    return j <= t && (b / 8 == c / 8 || c % 8 == 7);
}
static bool sees_longformer(const Shape *s, int t, int j, const void *context) {
    (void)context;
    return t < 2 || j < 2 || abs(t - j) <= s->window / 2;
}

// One of the three blocks drawn for a block, of n.
static bool drawn_for(const Shape *s, int block, int n, int c) {
    uint64_t state = s->seed + (uint64_t)block * 0x9e6c63d0876a9a35u;
    bool found = false;
    for (int i = 0; i < 3; i++) found |= random_bits(&state) % (uint64_t)n == (uint64_t)c;
    return found;
}
// One of the three drawn for it from those before it: number seed, block, i of the generator.
static bool drawn_before(const Shape *s, int block, int c) {
    bool found = false;
    for (uint64_t i = 0; i < 3 && block > 0; i++) {
        uint64_t state = (s->seed << 40 | (uint64_t)block << 8 | i) * 0x9E3779B97F4A7C15u;
        found |= random_bits(&state) % (uint64_t)block == (uint64_t)c;
    }
    return found;
}
static bool sees_bigbird(const Shape *s, int t, int j, const void *context) {
    const int *n_keys = context;
    int b = t / s->block, c = j / s->block;
    return abs(b - c) <= s->window / s->block / 2 || b < 2 || c < 2 ||
           drawn_for(s, b, (*n_keys + s->block - 1) / s->block, c);
}
static bool sees_bigbird_causal(const Shape *s, int t, int j, const void *context) {
    (void)context;
    int b = t / s->block, c = j / s->block;
    return j <= t && (b - c < s->window / s->block || c < 2 || drawn_before(s, b, c));
}

#define NAIVE(name)                                                                                                    \
    static void naive_##name(const Shape *s, const Rows *r, double *out) {                                             \
        naive_softmax(s, r, scaled_score, sees_##name, &r->n_keys, out);                                               \
    }
NAIVE(window)
NAIVE(sinks)
NAIVE(dilated)
NAIVE(strided)
NAIVE(fixed)
NAIVE(longformer)
NAIVE(bigbird)
NAIVE(bigbird_causal)

static const Subject subjects[] = {
    {"window", naive_window, 1e-5, false},   {"sinks", naive_sinks, 1e-5, false},
    {"dilated", naive_dilated, 1e-5, false}, {"strided", naive_strided, 1e-5, false},
    {"fixed", naive_fixed, 1e-5, false},     {"longformer", naive_longformer, 1e-5, false},
    {"bigbird", naive_bigbird, 1e-5, false}, {"bigbird-causal", naive_bigbird_causal, 1e-5, false}};

// The mechanism with this window and block against dense attention, over 333 rows.
static void equals(const char *name, const char *dense, int window, int block) {
    enum { N = 333 };
    Shape shape = {
        .n_heads = 3, .n_kv_heads = 3, .head_dim = 16, .n_max = N, .window = window, .block = block, .seed = 5};
    shape.type = KV_DTYPE_F32;
    int64_t n = (int64_t)N * shape.n_heads * shape.head_dim;
    Inputs in;
    inputs_open(&in, &shape, N, N, 9);
    float *want = need_floats(n);
    run_mechanism(mechanism_find(dense), &shape, &in, 2, 0);
    memcpy(want, in.out, sizeof *want * (size_t)n);
    run_mechanism(mechanism_find(name), &shape, &in, 2, 0);
    double error = sqrt(nmse_f32(in.out, want, (int)n));
    CHECK(error <= 1e-6, "%s with window %d and blocks of %d: %.3g from %s", name, window, block, error, dense);
    free(want);
    inputs_close(&in);
}

static void identities(void) {
    equals("window", "causal", 333, 8);
    equals("sinks", "causal", 333, 8);
    equals("strided", "causal", 336, 8);
    equals("fixed", "causal", 8, 42);
    equals("longformer", "bidirectional", 666, 8);
    equals("bigbird", "bidirectional", 8, 167);
    equals("bigbird", "bidirectional", 672, 8);
    equals("bigbird-causal", "causal", 8, 167);
}

int main(void) {
    for (int i = 0; i < N_OF(subjects); i++) RUN_AS(subjects[i].name, check_subject(&subjects[i]));
    RUN(identities);
    return test_report();
}
