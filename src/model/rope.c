// rope: see rope.h.
#include "rope.h"

#include "file.h"

#include <math.h>
#include <stdlib.h>

static const double PI = 3.14159265358979323846;

// theta of dynamic NTK scaling at a context limit: what Hugging Face's rule gives for a text of that length.
static double dynamic_theta(const Config *c, int n_ctx) {
    const RopeScaling *s = &c->rope_scaling;
    double d = config_rotated(c), length = n_ctx > s->original_ctx ? n_ctx : s->original_ctx;
    double grown = (double)s->factor * length / s->original_ctx - ((double)s->factor - 1);
    return (double)c->rope_theta * (d > 2 ? pow(grown, d / (d - 2)) : 1);
}

// The frequency that turns so often within the original context, as a (fractional) index: arXiv:2309.00071, eq. 17-18.
static double yarn_index(const Config *c, double turns) {
    return config_rotated(c) * log(c->rope_scaling.original_ctx / (turns * 2 * PI)) / (2 * log((double)c->rope_theta));
}

static double yarn_frequency(const Config *c, int i, double frequency) {
    const RopeScaling *s = &c->rope_scaling;
    double low = yarn_index(c, (double)s->beta_fast), high = yarn_index(c, (double)s->beta_slow);
    if (s->whole_dims) low = floor(low), high = ceil(high);
    low = fmax(low, 0), high = fmin(high, config_rotated(c) - 1);
    if (low == high) high += 0.001;
    double interpolated = fmin(fmax((i - low) / (high - low), 0), 1);
    return frequency / (double)s->factor * interpolated + frequency * (1 - interpolated);
}

// Long wavelengths are interpolated, short ones stay, those between are mixed (Llama 3.1's model card and code).
static double llama3_frequency(const RopeScaling *s, double frequency) {
    double turns = s->original_ctx * frequency / (2 * PI), low = (double)s->low_freq, high = (double)s->high_freq;
    double kept = fmin(fmax((turns - low) / (high - low), 0), 1);
    return frequency / (double)s->factor * (1 - kept) + frequency * kept;
}

static float magnitude(const Config *c) {
    const RopeScaling *s = &c->rope_scaling;
    if (s->kind != ROPE_YARN && s->kind != ROPE_LONG) return 1;
    if (s->attention_factor > 0) return s->attention_factor;
    if (s->factor <= 1) return 1;
    double log_factor = log((double)s->factor);
    return (float)(s->kind == ROPE_YARN ? 0.1 * log_factor + 1 : sqrt(1 + log_factor / log(s->original_ctx)));
}

int rope_open(Rope *r, const Config *c, bool local, int n_ctx, const float *factors, char *err, size_t errlen) {
    RopeScalingKind kind = local && c->rope_local_theta > 0 ? ROPE_UNSCALED : c->rope_scaling.kind;
    double theta = (double)(local && c->rope_local_theta > 0 ? c->rope_local_theta : c->rope_theta);
    if (kind == ROPE_DYNAMIC) theta = dynamic_theta(c, n_ctx);
    int turned = config_rotated(c);
    *r = (Rope){.n = turned / 2, .magnitude = kind == ROPE_UNSCALED ? 1 : magnitude(c)};
    r->frequency = malloc(sizeof *r->frequency * (size_t)r->n);
    if (!r->frequency) return fail(err, errlen, "out of memory for %d frequencies", r->n);
    for (int i = 0; i < r->n; i++) {
        double f = pow(theta, -2.0 * i / turned);
        if (factors) f /= (double)factors[i];
        if (kind == ROPE_LINEAR) f /= (double)c->rope_scaling.factor;
        if (kind == ROPE_YARN) f = yarn_frequency(c, i, f);
        if (kind == ROPE_LLAMA3) f = llama3_frequency(&c->rope_scaling, f);
        r->frequency[i] = f;
    }
    return 0;
}

void rope_close(Rope *r) {
    free(r->frequency);
    r->frequency = NULL;
}

bool rope_is_long(const Config *c, int n_ctx) {
    return c->rope_scaling.kind == ROPE_LONG && n_ctx > c->rope_scaling.original_ctx;
}

void rope_table(const Rope *r, float *table, int pos0, int n_positions) {
    for (int i = 0; i < r->n; i++) {
        for (int t = 0; t < n_positions; t++) {
            double angle = (pos0 + t) * r->frequency[i];
            float *at = table + ((int64_t)t * r->n + i) * 2;
            at[0] = (float)cos(angle) * r->magnitude;
            at[1] = (float)sin(angle) * r->magnitude;
        }
    }
}

// Neighbours: (x[0], x[1]), (x[2], x[3]), ...
static void turn_neighbours(float *restrict x, const float *restrict table, int n) {
    for (int i = 0; i < n; i++) {
        float a = x[2 * i], b = x[2 * i + 1], c = table[2 * i], s = table[2 * i + 1];
        x[2 * i] = a * c - b * s;
        x[2 * i + 1] = a * s + b * c;
    }
}

// Halves: (x[0], x[n]), (x[1], x[n + 1]), ...
static void turn_halves(float *restrict x, float *restrict y, const float *restrict table, int n) {
    for (int i = 0; i < n; i++) {
        float a = x[i], b = y[i], c = table[2 * i], s = table[2 * i + 1];
        x[i] = a * c - b * s;
        y[i] = a * s + b * c;
    }
}

void rope_turn(const Rope *r, float *x, int64_t ld, const float *table, RopePairing pairing, int n_positions) {
    for (int t = 0; t < n_positions; t++, x += ld, table += 2 * r->n) {
        if (pairing == ROPE_NEIGHBOUR) turn_neighbours(x, table, r->n);
        else turn_halves(x, x + r->n, table, r->n);
    }
}
