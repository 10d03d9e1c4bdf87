// check_rope: frequencies of every kind of scaling against the papers' and Hugging Face's rules, written here a second
// time; tables and rotations against multiplication of complex numbers in double.
//
// The rules are written as their sources have them: linear (arXiv:2306.15595, section 2.3), dynamic NTK and YaRN
// (arXiv:2309.00071, sections 3 and 3.4), Llama 3 by wavelengths, LongRoPE (arXiv:2402.13753, section 3.3), and
// transformers' modeling_rope_utils for what the papers leave open.
#include "reference.h"

#include "config.h"

#include <complex.h>
#include <float.h>

enum { MOST = 64 };

static const double TAU = 6.283185307179586476925;

static RopeConfig plain(int rotary_dim, float theta) {
    return (RopeConfig){.rotary_dim = rotary_dim, .theta = theta};
}

// ---- the rules again: what divides a plain frequency

// YaRN: by how often a dimension turns within the original context. Borders in dimensions, as transformers has them.
static double yarn_divisor(const RopeConfig *c, int i, int dim) {
    const RopeScaling *s = &c->scaling;
    double theta = (double)c->theta, borders[2], turns[] = {(double)s->beta_fast, (double)s->beta_slow};
    for (int b = 0; b < 2; b++) {
        borders[b] = dim * log(s->original_ctx / (turns[b] * TAU)) / (2 * log(theta));
        if (s->whole_dims) borders[b] = b ? ceil(borders[b]) : floor(borders[b]);
    }
    if (borders[0] < 0) borders[0] = 0;
    if (borders[1] > dim - 1) borders[1] = dim - 1;
    if (borders[0] == borders[1]) borders[1] += 0.001; // transformers: no division by zero
    double ramp = (i - borders[0]) / (borders[1] - borders[0]);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    return 1 / (ramp / (double)s->factor + (1 - ramp));
}

// Llama 3: wavelengths beyond original / low are interpolated, those below original / high are kept.
static double llama3_divisor(const RopeConfig *c, double frequency) {
    const RopeScaling *s = &c->scaling;
    double wavelength = TAU / frequency, low = (double)s->low_freq, high = (double)s->high_freq;
    if (wavelength < s->original_ctx / high) return 1;
    if (wavelength > s->original_ctx / low) return (double)s->factor;
    double smooth = (s->original_ctx / wavelength - low) / (high - low);
    return 1 / ((1 - smooth) / (double)s->factor + smooth);
}

static double expected_frequency(const RopeConfig *c, int i, int n_ctx, const float *factors) {
    const RopeScaling *s = &c->scaling;
    int dim = c->rotary_dim;
    double theta = (double)c->theta, factor = (double)s->factor;
    if (s->kind == ROPE_DYNAMIC && n_ctx > s->original_ctx && dim > 2) {
        theta *= pow(factor * n_ctx / s->original_ctx - (factor - 1), (double)dim / (dim - 2));
    }
    double frequency = 1 / pow(theta, (double)(2 * i) / dim);
    if (factors) frequency /= (double)factors[i];
    switch (s->kind) {
    case ROPE_LINEAR: return frequency / factor;
    case ROPE_YARN: return frequency / yarn_divisor(c, i, dim);
    case ROPE_LLAMA3: return frequency / llama3_divisor(c, frequency);
    default: return frequency;
    }
}

static double expected_magnitude(const RopeConfig *c) {
    const RopeScaling *s = &c->scaling;
    double factor = (double)s->factor;
    if (s->kind != ROPE_YARN && s->kind != ROPE_LONG) return 1;
    if (s->attention_factor > 0) return (double)s->attention_factor;
    if (factor <= 1) return 1;
    return s->kind == ROPE_YARN ? 0.1 * log(factor) + 1 : sqrt(1 + log(factor) / log(s->original_ctx));
}

// ---- frequencies

static Rope open(const RopeConfig *c, int n_ctx, const float *factors) {
    Rope r = {0};
    char err[200] = "";
    CHECK(!rope_open(&r, c, n_ctx, factors, err, sizeof err), "%s", err);
    return r;
}

static void check_frequencies(const RopeConfig *c, int n_ctx, const float *factors, const char *what) {
    Rope r = open(c, n_ctx, factors);
    int dim = c->rotary_dim;
    CHECK(r.n == dim / 2, "%s: %d frequencies of %d dimensions", what, r.n, dim);
    for (int i = 0; i < r.n; i++) {
        double want = expected_frequency(c, i, n_ctx, factors), off = fabs(r.frequency[i] / want - 1);
        CHECK(off <= 1e-12, "%s: frequency %d of %d: %.17g, expected %.17g", what, i, r.n, r.frequency[i], want);
    }
    double magnitude = expected_magnitude(c);
    CHECK(fabs((double)r.magnitude - magnitude) <= 1e-7 * magnitude, "%s: magnitude %.9g, expected %.9g", what,
          (double)r.magnitude, magnitude);
    rope_close(&r);
    CHECK(!r.frequency, "%s: closed, and frequencies are left", what);
}

static const float thetas[] = {1.0000002f, 1.5f, 2, 50, 500, 10000, 150000, 500000, 1e6f, 1e8f, 1e30f};
static const int dims[] = {2, 4, 6, 12, 20, 64, 96, 128};

static void unscaled(void) {
    static const float slow[] = {1e-30f, 0.1f, 0.9999f};
    for (int d = 0; d < N_OF(dims); d++) {
        for (int t = 0; t < N_OF(thetas); t++) {
            RopeConfig c = plain(dims[d], thetas[t]);
            check_frequencies(&c, 4096, NULL, "unscaled");
        }
        for (int t = 0; t < N_OF(slow); t++) { // below 1: they grow
            RopeConfig c = plain(dims[d], slow[t]);
            check_frequencies(&c, 4096, NULL, "unscaled, theta below 1");
        }
    }
    RopeConfig known = plain(8, 10000);
    Rope r = open(&known, 1, NULL);
    for (int i = 0; i < 4; i++) CHECK(fabs(r.frequency[i] * pow(10, i) - 1) < 1e-14, "10000: frequency %d", i);
    rope_close(&r);
}

// Every kind over every head, theta, factor and context.
static void scaled(void) {
    static const RopeScalingKind kinds[] = {ROPE_LINEAR, ROPE_DYNAMIC, ROPE_YARN, ROPE_LLAMA3, ROPE_LONG};
    static const char *const names[] = {"linear", "dynamic", "YaRN", "Llama 3", "LongRoPE"};
    static const float factors[] = {1, 1.0001f, 2, 8, 40, 1000};
    static const int contexts[] = {1, 2, 6, 7, 32, 4096, 8192, 131072, 1 << 28}; // 6, 7: one turn and a bit more
    int n = 0;
    for (int k = 0; k < N_OF(kinds); k++) {
        for (int d = 0; d < N_OF(dims); d++) {
            for (int f = 0; f < N_OF(factors); f++) {
                for (int x = kinds[k] == ROPE_LONG; x < N_OF(contexts); x++, n++) {
                    RopeConfig c = plain(dims[d], thetas[n % N_OF(thetas)]);
                    c.scaling = (RopeScaling){.kind = kinds[k],
                                              .factor = factors[f],
                                              .original_ctx = contexts[x],
                                              .low_freq = n % 3 ? 1 : 0.01f,
                                              .high_freq = n % 3 ? 4 : 0.0100001f,
                                              .beta_fast = n % 4 ? 32 : 1.2f,
                                              .beta_slow = n % 4 ? 1 : 1.1f,
                                              .whole_dims = n % 2,
                                              .attention_factor = n % 5 ? 0 : 0.7f};
                    check_frequencies(&c, (n % 7) * contexts[x] / 2 + 1, NULL, names[k]);
                }
            }
        }
    }
}

static RopeConfig yarn_of(float theta, int original, float fast, float slow, bool whole) {
    RopeConfig c = plain(16, theta);
    c.scaling = (RopeScaling){.kind = ROPE_YARN,
                              .factor = 4,
                              .original_ctx = original,
                              .beta_fast = fast,
                              .beta_slow = slow,
                              .whole_dims = whole};
    return c;
}

static void yarn_borders(void) {
    RopeConfig same = yarn_of(10000, 6, 32, 1, true); // -3.05, which is no dimension, and -0.04, rounded up to 0
    check_frequencies(&same, 24, NULL, "borders equal");
    Rope r = open(&same, 24, NULL), none;
    for (int i = 0; i < r.n; i++) {
        double want = pow(10000, -2.0 * i / 16) / (i ? 4 : 1);
        CHECK(isfinite(r.frequency[i]), "borders equal: frequency %d is %g", i, r.frequency[i]);
        CHECK(fabs(r.frequency[i] / want - 1) < 1e-12, "borders equal: %d: %g, expected %g", i, r.frequency[i], want);
    }
    rope_close(&r);
    RopeConfig crossed = yarn_of(10000, 6, 32, 31, true); // 0 and -3: transformers keeps all then, and so do its models
    check_frequencies(&crossed, 24, NULL, "borders crossed");
    RopeConfig far = yarn_of(1.01f, 1 << 28, 32, 1, true); // both beyond the last: nothing is interpolated
    check_frequencies(&far, 24, NULL, "borders beyond");
    RopeConfig one = yarn_of(10000, 4096, 32, 1, true), plain_one = plain(16, 10000);
    one.scaling.factor = 1;
    r = open(&one, 4096, NULL);
    none = open(&plain_one, 4096, NULL);
    for (int i = 0; i < r.n; i++) CHECK(fabs(r.frequency[i] / none.frequency[i] - 1) < 1e-15, "factor 1 is no scaling");
    CHECK(r.magnitude == 1, "factor 1: magnitude %g", (double)r.magnitude);
    rope_close(&r);
    rope_close(&none);
}

// ---- what belongs to some layers, or to the context

static const RopeScaling scalings[] = {
    {.kind = ROPE_UNSCALED},
    {.kind = ROPE_LINEAR, .factor = 8, .original_ctx = 64},
    {.kind = ROPE_DYNAMIC, .factor = 8, .original_ctx = 64},
    {.kind = ROPE_YARN, .factor = 8, .original_ctx = 64, .beta_fast = 32, .beta_slow = 1, .attention_factor = 2},
    {.kind = ROPE_LLAMA3, .factor = 8, .original_ctx = 64, .low_freq = 1, .high_freq = 4},
    {.kind = ROPE_LONG, .factor = 8, .original_ctx = 64, .attention_factor = 2}};

static void same_frequencies(const RopeConfig *a, const RopeConfig *b, const char *what) {
    Rope found = open(a, 4096, NULL), want = open(b, 4096, NULL);
    CHECK(found.n == 8 && want.n == 8, "%s: %d frequencies", what, found.n);
    CHECK(!memcmp(found.frequency, want.frequency, sizeof(double) * 8) && found.magnitude == want.magnitude,
          "%s, kind %d: other frequencies", what, b->scaling.kind);
    rope_close(&found);
    rope_close(&want);
}

// Four layers: with a window, full, with a window, with a window and no positions.
static Config four_layers(const RopeConfig *rope, float window_theta) {
    Config c = {.n_layers = 4};
    c.kinds[0] = (LayerKind){.n_heads = 1, .n_kv_heads = 1, .k_dim = 16, .v_dim = 16, .rope = *rope};
    LayerRules rules = {.window = 7, .window_theta = window_theta};
    layers_add(&rules.full, 1);
    layers_add(&rules.nope, 3);
    config_set_layers(&c, &rules);
    return c;
}

static void local_layers(void) { // a theta of their own, and no scaling
    for (int i = 0; i < N_OF(scalings); i++) {
        RopeConfig full = plain(16, 1e6f), local = plain(16, 10000);
        full.scaling = scalings[i];
        Config c = four_layers(&full, 10000);
        same_frequencies(&config_kind(&c, 0)->rope, &local, "a layer with a window");
        same_frequencies(&config_kind(&c, 1)->rope, &full, "a full layer");
        CHECK(config_kind(&c, 2) == config_kind(&c, 0) && c.n_kinds == 3, "%d kinds", c.n_kinds);
        CHECK(config_rope_kind(&c, c.kind_of[1]) == c.kind_of[1], "kinds of other frequencies share a table");
        c = four_layers(&full, 0); // no theta of their own: as the others
        same_frequencies(&config_kind(&c, 0)->rope, &full, "no theta for layers with a window");
        CHECK(config_rope_kind(&c, c.kind_of[1]) == c.kind_of[0] && c.n_kinds == 3, "kinds that differ in the window");
    }
}

static void no_positions(void) {
    RopeConfig rope = plain(16, 10000), none = {0};
    Config c = four_layers(&rope, 0);
    CHECK(!config_kind(&c, 3)->rope.rotary_dim && config_kind(&c, 3)->window == 7, "a layer without positions");
    Rope r = open(&none, 4096, NULL);
    CHECK(!r.n && !r.frequency, "%d frequencies of no dimensions", r.n);
    float x[] = {1, 2}, table[1] = {3};
    rope_table(&r, table, &(int32_t){5}, 1);
    rope_rotate(x, 2, table, r.n, ROPE_HALF, 1);
    CHECK(x[0] == 1 && x[1] == 2 && table[0] == 3, "nothing rotates, and something changed");
    rope_close(&r);
}

// Configs are equal when all of their numbers are.
static void equal_configs(void) {
    RopeConfig base = plain(16, 10000);
    base.scaling = (RopeScaling){ROPE_YARN, 8, 64, 1, 4, 32, 1, true, 2, 3};
    RopeConfig others[13];
    for (int i = 0; i < N_OF(others); i++) others[i] = base;
    others[0].rotary_dim = 8;
    others[1].theta = 500;
    others[2].pairing = ROPE_HALF;
    others[3].scaling.kind = ROPE_LONG;
    others[4].scaling.factor = 4;
    others[5].scaling.original_ctx = 32;
    others[6].scaling.low_freq = 2;
    others[7].scaling.high_freq = 5;
    others[8].scaling.beta_fast = 16;
    others[9].scaling.beta_slow = 2;
    others[10].scaling.whole_dims = false;
    others[11].scaling.attention_factor = 1;
    others[12].scaling.long_attention_factor = 1;
    CHECK(rope_config_equal(&base, &(RopeConfig){16, 10000, ROPE_INTERLEAVED, base.scaling}), "the same");
    for (int i = 0; i < N_OF(others); i++) {
        CHECK(!rope_config_equal(&base, &others[i]) && !rope_config_equal(&others[i], &base), "field %d", i);
    }
}

static void context_limit(void) {
    RopeConfig c = plain(16, 10000), none = c;
    c.scaling = (RopeScaling){.kind = ROPE_DYNAMIC, .factor = 2, .original_ctx = 100};
    for (int n_ctx = 1; n_ctx <= 100; n_ctx += 33) { // within the original context nothing changes
        Rope r = open(&c, n_ctx, NULL), want = open(&none, n_ctx, NULL);
        CHECK(!memcmp(r.frequency, want.frequency, sizeof(double) * 8), "dynamic within the original context, %d",
              n_ctx);
        rope_close(&r);
        rope_close(&want);
    }
    Rope last = open(&c, 100, NULL);
    for (int n_ctx = 101; n_ctx < 1 << 20; n_ctx *= 3) { // then longer ones turn slower, and the first never changes
        check_frequencies(&c, n_ctx, NULL, "dynamic");
        Rope r = open(&c, n_ctx, NULL);
        CHECK(r.frequency[0] == 1, "dynamic: the first frequency is %g", r.frequency[0]);
        for (int i = 1; i < r.n; i++) CHECK(r.frequency[i] < last.frequency[i], "dynamic, %d: %d grows", n_ctx, i);
        rope_close(&last);
        last = r;
    }
    rope_close(&last);
    c.scaling.kind = ROPE_LONG;
    CHECK(!rope_is_long(&c, 1) && !rope_is_long(&c, 100) && rope_is_long(&c, 101), "which factors");
    c.scaling.kind = ROPE_YARN;
    CHECK(!rope_is_long(&c, 1 << 20), "YaRN has no two lists");
}

static void factors_divide(void) {
    static const RopeScalingKind kinds[] = {ROPE_UNSCALED, ROPE_LINEAR, ROPE_LLAMA3, ROPE_LONG};
    float factors[MOST];
    for (int i = 0; i < MOST; i++) factors[i] = expf(3 * test_uniform());
    for (int k = 0; k < N_OF(kinds); k++) {
        for (int d = 0; d < N_OF(dims); d++) {
            RopeConfig c = plain(dims[d], 10000);
            c.scaling = (RopeScaling){.kind = kinds[k], .factor = 4, .original_ctx = 64, .low_freq = 1, .high_freq = 4};
            check_frequencies(&c, 256, factors, "factors of the file");
        }
    }
}

// ---- tables and rotations

// A head's vector at a position against the product of complex numbers, within a float's rounding of an angle's cos and
// sin, and of two products and a sum. Returns how many pairs are off.
static int rotation_off(const RopeConfig *c, int position, const float *from, const float *to) {
    double magnitude = (double)c->scaling.attention_factor;
    int wrong = 0;
    for (int i = 0; i < c->rotary_dim / 2; i++) {
        bool half = c->pairing == ROPE_HALF;
        int a = half ? i : 2 * i, b = half ? i + c->rotary_dim / 2 : 2 * i + 1;
        double complex rotation = cexp(I * ((double)position * expected_frequency(c, i, 1024, NULL)));
        double complex z = ((double)from[a] + I * (double)from[b]) * rotation * magnitude;
        double size = (fabs((double)from[a]) + fabs((double)from[b])) * magnitude;
        double bound = size * (3 * (double)FLT_EPSILON + 4 * position * DBL_EPSILON); // the angle is rounded once
        bool ok = fabs((double)to[a] - creal(z)) <= bound && fabs((double)to[b] - cimag(z)) <= bound;
        CHECK(ok, "%d of %d rotate, pairing %d, position %d, pair %d: (%.9g, %.9g), expected (%.9g, %.9g)",
              c->rotary_dim, MOST, c->pairing, position, i, (double)to[a], (double)to[b], creal(z), cimag(z));
        wrong += !ok;
    }
    return wrong;
}

// The second head of two.
static void check_rotation(int rotary_dim, RopePairing pairing, int pos0, int n, float magnitude) {
    enum { HEADS = 2, LD = HEADS * MOST + 3, MOST_ROWS = 19 };
    RopeConfig c = yarn_of(10000, 512, 32, 1, true);
    c.rotary_dim = rotary_dim;
    c.pairing = pairing;
    c.scaling.factor = 2;
    c.scaling.attention_factor = magnitude;
    Rope r = open(&c, 1024, NULL);
    float x[MOST_ROWS * LD], before[MOST_ROWS * LD], *table = need_floats((int64_t)n * rotary_dim);
    int32_t positions[MOST_ROWS];
    for (int i = 0; i < n * LD; i++) before[i] = x[i] = test_uniform() * 4;
    for (int t = 0; t < n; t++) positions[t] = pos0 + t * t % 17; // in no order
    rope_table(&r, table, positions, n);
    rope_rotate(x + MOST, LD, table, r.n, pairing, n);
    for (int t = 0, wrong = 0; t < n && wrong < 3; t++) {
        float *row = x + t * LD;
        wrong += rotation_off(&c, positions[t], before + t * LD + MOST, row + MOST);
        memcpy(row + MOST, before + t * LD + MOST, sizeof *row * (size_t)rotary_dim);
    }
    CHECK(!memcmp(x, before, sizeof *x * (size_t)(n * LD)), "%d of %d rotate, pairing %d, from %d: others changed",
          rotary_dim, MOST, pairing, pos0);
    free(table);
    rope_close(&r);
}

static void rotations(void) {
    static const int starts[] = {0, 1, 100, 4095, 100000, 1000000, (1 << 28) - 20};
    static const int parts[] = {2, 6, 16, 34, MOST};
    for (int s = 0; s < N_OF(starts); s++) {
        for (int p = 0; p < N_OF(parts); p++) {
            check_rotation(parts[p], ROPE_INTERLEAVED, starts[s], 1 + 18 * (p % 2), s % 2 ? 1 : 1.3f);
            check_rotation(parts[p], ROPE_HALF, starts[s], 19 - 18 * (p % 2), s % 2 ? 0.5f : 1);
        }
    }
}

static void rotate_at(const Rope *r, int position, float *x) {
    float table[MOST];
    rope_table(r, table, &(int32_t){position}, 1);
    rope_rotate(x, MOST, table, r->n, ROPE_HALF, 1);
}

// A row's table is that of its position, whatever stands beside it and as often as it does, and rotation keeps
// distances: a score depends on how far apart two positions are.
static void table_by_position(void) {
    RopeConfig c = plain(MOST, 10000);
    Rope r = open(&c, 1024, NULL);
    enum { N = 33 };
    float table[N * MOST], one[MOST], q[MOST], k[MOST];
    int32_t positions[N];
    for (int t = 0; t < N; t++) positions[t] = t % 5 ? pick(1 << 20) : 777 - t / 10; // some twice
    rope_table(&r, table, positions, N);
    for (int t = 0; t < N; t++) {
        rope_table(&r, one, &positions[t], 1);
        CHECK(!memcmp(one, table + t * MOST, sizeof one), "position %d alone differs", positions[t]);
    }
    for (int i = 0; i < MOST; i++) {
        q[i] = test_uniform();
        k[i] = test_uniform();
    }
    double scores[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        float a[MOST], b[MOST];
        memcpy(a, q, sizeof a);
        memcpy(b, k, sizeof b);
        rotate_at(&r, 40 + 5000 * i, a);
        rotate_at(&r, 9 + 5000 * i, b);
        for (int d = 0; d < MOST; d++) scores[i] += (double)a[d] * (double)b[d];
    }
    CHECK(fabs(scores[0] - scores[1]) < 1e-5, "31 positions apart: %.9g and %.9g", scores[0], scores[1]);
    rope_close(&r);
}

int main(void) {
    RUN(unscaled);
    RUN(scaled);
    RUN(yarn_borders);
    RUN(local_layers);
    RUN(no_positions);
    RUN(equal_configs);
    RUN(context_limit);
    RUN(factors_divide);
    RUN(rotations);
    RUN(table_by_position);
    return test_report();
}
