// rope: see rope.h.
#include "rope.h"

#include "file.h"

#include <math.h>
#include <stdlib.h>

static const double PI = 3.14159265358979323846;

// theta of dynamic NTK scaling at a context limit: Hugging Face's rule for a text of that length.
static double dynamic_theta(const RopeConfig *c, int n_ctx) {
    const RopeScaling *s = &c->scaling;
    double d = c->rotary_dim, length = n_ctx > s->original_ctx ? n_ctx : s->original_ctx;
    double grown = (double)s->factor * length / s->original_ctx - ((double)s->factor - 1);
    return (double)c->theta * (d > 2 ? pow(grown, d / (d - 2)) : 1);
}

// The frequency that rotates so often within the original context, as a (fractional) index: arXiv:2309.00071, eq.
// 17-18.
static double yarn_index(const RopeConfig *c, double rotations) {
    return c->rotary_dim * log(c->scaling.original_ctx / (rotations * 2 * PI)) / (2 * log((double)c->theta));
}

static double yarn_frequency(const RopeConfig *c, int i, double frequency) {
    const RopeScaling *s = &c->scaling;
    double low = yarn_index(c, (double)s->beta_fast), high = yarn_index(c, (double)s->beta_slow);
    if (s->whole_dims) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, c->rotary_dim - 1);
    if (low == high) high += 0.001;
    double interpolated = fmin(fmax((i - low) / (high - low), 0), 1);
    return frequency / (double)s->factor * interpolated + frequency * (1 - interpolated);
}

// Long wavelengths are interpolated, short ones stay, those between are mixed (Llama 3.1's model card and code).
static double llama3_frequency(const RopeScaling *s, double frequency) {
    double rotations = s->original_ctx * frequency / (2 * PI), low = (double)s->low_freq, high = (double)s->high_freq;
    if (high <= low) return rotations > low ? frequency : frequency / (double)s->factor; // Llama 4's: no mixture
    double kept = fmin(fmax((rotations - low) / (high - low), 0), 1);
    return frequency / (double)s->factor * (1 - kept) + frequency * kept;
}

static float magnitude(const RopeConfig *c, int n_ctx) {
    const RopeScaling *s = &c->scaling;
    if (s->kind != ROPE_YARN && s->kind != ROPE_LONG) return 1;
    if (s->long_attention_factor > 0 && rope_is_long(c, n_ctx)) return s->long_attention_factor;
    if (s->attention_factor > 0) return s->attention_factor;
    if (s->factor <= 1) return 1;
    double log_factor = log((double)s->factor);
    return (float)(s->kind == ROPE_YARN ? 0.1 * log_factor + 1 : sqrt(1 + log_factor / log(s->original_ctx)));
}

static bool scaling_equal(const RopeScaling *a, const RopeScaling *b) {
    return a->kind == b->kind && a->factor == b->factor && a->original_ctx == b->original_ctx &&
           a->low_freq == b->low_freq && a->high_freq == b->high_freq && a->beta_fast == b->beta_fast &&
           a->beta_slow == b->beta_slow && a->whole_dims == b->whole_dims &&
           a->attention_factor == b->attention_factor && a->long_attention_factor == b->long_attention_factor;
}

bool rope_config_equal(const RopeConfig *a, const RopeConfig *b) {
    return a->rotary_dim == b->rotary_dim && a->theta == b->theta && a->pairing == b->pairing &&
           scaling_equal(&a->scaling, &b->scaling);
}

int rope_open(Rope *r, const RopeConfig *c, int n_ctx, const float *factors, char *err, size_t errlen) {
    RopeScalingKind kind = c->scaling.kind;
    double theta = kind == ROPE_DYNAMIC ? dynamic_theta(c, n_ctx) : (double)c->theta;
    *r = (Rope){.n = c->rotary_dim / 2, .magnitude = magnitude(c, n_ctx)};
    if (!r->n) return 0;
    r->frequency = malloc(sizeof *r->frequency * (size_t)r->n);
    if (!r->frequency) return fail(err, errlen, "out of memory for %d frequencies", r->n);
    for (int i = 0; i < r->n; i++) {
        double f = pow(theta, -2.0 * i / c->rotary_dim);
        if (factors) f /= (double)factors[i];
        if (kind == ROPE_LINEAR) f /= (double)c->scaling.factor;
        if (kind == ROPE_YARN) f = yarn_frequency(c, i, f);
        if (kind == ROPE_LLAMA3) f = llama3_frequency(&c->scaling, f);
        r->frequency[i] = f;
    }
    return 0;
}

void rope_close(Rope *r) {
    free(r->frequency);
    r->frequency = NULL;
}

bool rope_is_long(const RopeConfig *c, int n_ctx) {
    return c->scaling.kind == ROPE_LONG && n_ctx > c->scaling.original_ctx;
}

void rope_table(const Rope *r, float *table, const int32_t *positions, int n_rows) {
    for (int i = 0; i < r->n; i++) {
        for (int t = 0; t < n_rows; t++) {
            double angle = positions[t] * r->frequency[i];
            float *at = table + ((int64_t)t * r->n + i) * 2;
            at[0] = (float)cos(angle) * r->magnitude;
            at[1] = (float)sin(angle) * r->magnitude;
        }
    }
}

// (x[0], x[1]), (x[2], x[3]), ...
static void rotate_interleaved(float *restrict x, const float *restrict table, int n) {
    for (int i = 0; i < n; i++) {
        float a = x[2 * i], b = x[2 * i + 1], c = table[2 * i], s = table[2 * i + 1];
        x[2 * i] = a * c - b * s;
        x[2 * i + 1] = a * s + b * c;
    }
}

// (x[0], y[0]), (x[1], y[1]), ...
static void rotate_half(float *restrict x, float *restrict y, const float *restrict table, int n) {
    for (int i = 0; i < n; i++) {
        float a = x[i], b = y[i], c = table[2 * i], s = table[2 * i + 1];
        x[i] = a * c - b * s;
        y[i] = a * s + b * c;
    }
}

void rope_rotate(float *x, int64_t ld, const float *table, int n_freqs, RopePairing pairing, int n_rows) {
    for (int t = 0; t < n_rows; t++, x += ld, table += 2 * n_freqs) {
        if (pairing == ROPE_INTERLEAVED) rotate_interleaved(x, table, n_freqs);
        else rotate_half(x, x + n_freqs, table, n_freqs);
    }
}
