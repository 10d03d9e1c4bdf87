// mix_linear: linear attention with fixed, learned or no decays, as flash-linear-attention has it.
//
//     q, k, v = W_q x, W_k x, W_v x;  q *= k_dim^-1/2
//     MIX_LINEAR     S += phi(k) v^T;  o = S^T phi(q), over the sum of phi(k) . phi(q) where the config says so
//                    (arXiv:2006.16236; feature maps: 2103.13076, 2402.04347; random ones, of q and k that may be
//                    rotated: 2009.14794)
//     MIX_RETENTION  q and k rotated;  S = gamma_h S + k v^T,  gamma_h = 1 - 2^(-5 - h) of head h (arXiv:2307.08621)
//     MIX_GLA        S = diag(sigmoid(B A x + b)^(1/16)) S + k v^T (arXiv:2312.06635)
//     y = W_o (rms(o) w silu(W_g x)), the norm over each head; MIX_LINEAR has no gate
// Owns the tensors of such a layer and its forward pass. The denominator is one more column of values, all ones.
#include "rwkv.h"

#include <math.h>
#include <string.h>

// The learned part of a feature map, for each head the same.
typedef struct {
    Dense first, second; // [head][head]
} MapWeights;

typedef struct {
    Dense q, k, v, gate, out;
    MapWeights map_q, map_k;
    LowRank decay;     // [heads k_dim][dim]
    const float *norm; // [head width of v]
} LinearWeights;

static const float GATE_POWER = 1.0f / 16;
// Of a key's random feature exp(w . x - |x|^2 / 2), which exp(|w|^2 / 2) bounds: keys of heads of 128 and more that lie
// along one w are cut there, so that sums over a text stay finite.
static const float MOST_EXPONENT = 60;

// ---- shapes

// Of a head of queries and keys before the feature map, and of values without the column of ones.
static int raw_width(const Config *c, const StateShape *s) {
    if (c->feature_map == FEATURES_RANDOM) return c->features_width;
    return c->feature_map == FEATURES_HEDGEHOG ? s->k_dim / 2 : s->k_dim;
}

static int value_width(const Config *c, const StateShape *s) {
    return s->v_dim - c->features_normed;
}

static int64_t all_keys(const StateShape *s) {
    return (int64_t)s->n_heads * s->k_dim;
}

static int64_t all_values(const StateShape *s) {
    return (int64_t)s->n_heads * s->v_dim;
}

// ---- binding

static void bind_map(Binder *b, MapWeights *m, const char *one, const char *first, const char *second, int width) {
    FeatureMap map = b->config->feature_map;
    if (map == FEATURES_T2R || map == FEATURES_HEDGEHOG)
        bind_dense(b, &m->first, one, width, width, map == FEATURES_HEDGEHOG);
    if (map != FEATURES_PRODUCT) return;
    bind_dense(b, &m->first, first, width, width, true);
    bind_dense(b, &m->second, second, width, width, true);
}

// Where both maps are one, files may have it once.
static void bind_maps(Binder *b, LinearWeights *w, int width, int n_features) {
    if (b->config->feature_map == FEATURES_RANDOM) {
        bind_dense(b, &w->map_q.first, "map_random", n_features, width, false);
        w->map_k = w->map_q;
        return;
    }
    bool twice = bind_find(b, "map_k", -1, ".weight") || bind_find(b, "map_k1", -1, ".weight");
    bind_map(b, &w->map_q, "map_q", "map_q1", "map_q2", width);
    if (twice) bind_map(b, &w->map_k, "map_k", "map_k1", "map_k2", width);
    else if (b->config->feature_map >= FEATURES_T2R && !b->config->features_tied)
        bind_map(b, &w->map_k, "map_k", "map_k1", "map_k2", width); // says what is not there
    else w->map_k = w->map_q;
}

static void bind_decay(Binder *b, LinearWeights *w, const StateShape *s) {
    const Tensor *t = bind_find(b, "decay_a", -1, ".weight");
    int64_t keys = all_keys(s), rank = t ? t->shape[0] : 1;
    if (rank < 1 || rank > keys) {
        binder_fail(b, "tensor gk_proj.0: expected 1 to %lld rows, found %lld", (long long)keys, (long long)rank);
    }
    bind_dense(b, &w->decay.down, "decay_a", rank, b->config->dim, false);
    bind_dense(b, &w->decay.up, "decay_b", keys, rank, true);
}

static void linear_bind(Binder *b, void *weights, const LayerKind *kind) {
    LinearWeights *w = weights;
    const Config *c = b->config;
    const StateShape *s = &kind->state;
    int64_t dim = c->dim, keys = (int64_t)s->n_heads * raw_width(c, s),
            values = (int64_t)s->n_heads * value_width(c, s);
    bind_dense(b, &w->q, "attn_q", keys, dim, false);
    bind_dense(b, &w->k, "attn_k", keys, dim, false);
    bind_dense(b, &w->v, "attn_v", values, dim, false);
    if (kind->mixer != MIX_LINEAR) bind_dense(b, &w->gate, "attn_gate", values, dim, false);
    bind_dense(b, &w->out, "attn_output", dim, values, false);
    if (kind->mixer == MIX_LINEAR) bind_maps(b, w, raw_width(c, s), s->k_dim);
    if (kind->mixer == MIX_GLA) bind_decay(b, w, s);
    bool fused = bind_find(b, "gated_norm", -1, ".weight"); // the same numbers under another name
    w->norm = bind_vector(b, fused ? "gated_norm" : "head_norm", ".weight", value_width(c, s));
}

static uint64_t linear_token_bytes(const void *weights) {
    const LinearWeights *w = weights;
    return dense_bytes(&w->q) + dense_bytes(&w->k) + dense_bytes(&w->v) + dense_bytes(&w->gate) + dense_bytes(&w->out) +
           low_rank_bytes(&w->decay);
}

// ---- scratch

typedef struct {
    float *q, *k, *first, *second, *decay; // [n][heads k_dim]
    float *v, *wide, *gate, *out;          // [n][heads v_dim]
} LinearBuffers;

static size_t lay_out(LinearBuffers *b, float *at, const StateShape *s, int64_t n) {
    float **const slots[] = {&b->q, &b->k, &b->first, &b->second, &b->decay, &b->v, &b->wide, &b->gate, &b->out};
    enum { N_SLOTS = sizeof slots / sizeof *slots, KEYS = 5 };
    size_t used = 0;
    for (int i = 0; i < N_SLOTS; i++) {
        *slots[i] = at + used;
        used += scratch_floats(n * (i < KEYS ? all_keys(s) : all_values(s)));
    }
    return used;
}

static size_t linear_scratch(const LayerKind *kind) {
    LinearBuffers unused;
    float nothing;
    return lay_out(&unused, &nothing, &kind->state, 1);
}

static int linear_reserve(Compute *c, const LayerKind *kind, char *err, size_t errlen) {
    const StateShape *s = &kind->state;
    return s->pairs ? recurrence_channels_reserve(c, s, err, errlen)
                    : recurrence_reserve(c, s->k_dim, s->v_dim, err, errlen);
}

static int linear_widest_input(const LayerKind *kind) {
    return (int)all_values(&kind->state);
}

// ---- forward

typedef struct {
    const LinearWeights *weights;
    const MixerCall *call;
    const Config *config;
    const StateShape *shape;
    const Kernels *kernels;
    LinearBuffers b;
} Linears;

// A task's rows of one of q and k.
typedef struct {
    const Linears *l;
    float *x;    // [n][heads][raw], becomes [n][heads][k_dim]
    bool normed; // features of a head are over their sum
    bool keys;
    float scale;
} MapTask;

// softmax of (2 y, -2 y)
static void hedgehog(float *features, const float *y, int n) {
    float most = 0, sum = 0;
    for (int i = 0; i < n; i++) most = fmaxf(most, 2 * fabsf(y[i]));
    for (int i = 0; i < n; i++) {
        features[i] = expf(2 * y[i] - most);
        features[n + i] = expf(-2 * y[i] - most);
        sum += features[i] + features[n + i];
    }
    for (int i = 0; i < 2 * n; i++) features[i] /= sum;
}

// second[0]: half the square of a key's length. Of a query's features a common factor cancels in the quotient: theirs is
// such that the largest is 1.
static void random_features(const Linears *l, float *x, const float *first, const float *second, bool keys) {
    int n = l->shape->k_dim;
    float root = 1 / sqrtf(sqrtf((float)l->config->features_width)), most = first[0];
    for (int i = 1; i < n; i++) most = fmaxf(most, first[i]);
    float less = keys ? second[0] : most * root;
    for (int i = 0; i < n; i++) x[i] = expf(fminf(first[i] * root - less, MOST_EXPONENT));
}

// The features of one head: x of its raw values, or first and second of its learned maps.
static void make_features(const Linears *l, float *x, const float *first, const float *second, bool keys) {
    int n = l->shape->k_dim;
    switch (l->config->feature_map) {
    case FEATURES_IDENTITY: break;
    case FEATURES_ELU:
        for (int i = 0; i < n; i++) x[i] = x[i] > 0 ? x[i] + 1 : expf(x[i]);
        break;
    case FEATURES_RELU:
        for (int i = 0; i < n; i++) x[i] = fmaxf(x[i], 0);
        break;
    case FEATURES_T2R:
        for (int i = 0; i < n; i++) x[i] = fmaxf(first[i], 0);
        break;
    case FEATURES_PRODUCT:
        for (int i = 0; i < n; i++) x[i] = first[i] * second[i];
        break;
    case FEATURES_HEDGEHOG: hedgehog(x, first, n / 2); break;
    case FEATURES_RANDOM: random_features(l, x, first, second, keys); break;
    }
}

// Of the values of a head that a map makes; those before it without one.
static int mapped_width(const Linears *l) {
    return l->config->feature_map == FEATURES_RANDOM ? l->shape->k_dim : raw_width(l->config, l->shape);
}

static void map_rows(void *context, int row, int n) {
    const MapTask *m = context;
    const Linears *l = m->l;
    int heads = l->shape->n_heads, width = l->shape->k_dim, mapped = mapped_width(l);
    for (int64_t h = (int64_t)row * heads; h < (int64_t)(row + n) * heads; h++) {
        float *x = m->x + h * width, sum = 1e-4f;
        make_features(l, x, l->b.first + h * mapped, l->b.second + h * mapped, m->keys);
        for (int i = 0; i < width && m->normed; i++) sum += x[i];
        float scale = m->normed ? m->scale / sum : m->scale;
        for (int i = 0; i < width; i++) x[i] *= scale;
    }
}

// Half of |x|^2 for each head of x[n][heads][raw], where random features read it.
static void square_rows(void *context, int row, int n) {
    const MapTask *m = context;
    const Linears *l = m->l;
    int heads = l->shape->n_heads, raw = l->config->features_width, mapped = mapped_width(l);
    for (int64_t h = (int64_t)row * heads; h < (int64_t)(row + n) * heads; h++) {
        float sum = 0;
        for (int i = 0; i < raw; i++) sum += m->x[h * raw + i] * m->x[h * raw + i];
        l->b.second[h * mapped] = sum / (2 * sqrtf((float)raw));
    }
}

static void map_features(const Linears *l, const MapWeights *w, float *x, bool normed, bool keys, float scale) {
    const Pass *pass = l->call->pass;
    MapTask task = {.l = l, .x = x, .normed = normed, .keys = keys, .scale = scale};
    if (l->config->feature_map == FEATURES_RANDOM && keys) {
        mixer_rows(pass, (int)all_keys(l->shape), square_rows, &task);
    }
    Linear list[] = {{.w = &w->first.w, .y = l->b.first, .bias = w->first.bias},
                     {.w = &w->second.w, .y = l->b.second, .bias = w->second.bias}};
    int n = dense_exists(&w->first) + dense_exists(&w->second);
    if (n) ops_linear(pass->compute, list, n, x, pass->n * l->shape->n_heads); // each head is a row
    mixer_rows(pass, (int)all_keys(l->shape), map_rows, &task);
}

static void rotate_rows(void *context, int row, int n) {
    const Linears *l = context;
    const RopeConfig *rope = &l->call->kind->rope;
    int width = raw_width(l->config, l->shape);
    int64_t ld = (int64_t)l->shape->n_heads * width;
    const float *table = l->call->pass->rope_tables[l->call->kind_index] + (int64_t)row * rope->rotary_dim;
    for (int h = 0; h < l->shape->n_heads; h++) {
        int64_t at = row * ld + (int64_t)h * width;
        rope_rotate(l->b.q + at, ld, table, rope->rotary_dim / 2, rope->pairing, n);
        rope_rotate(l->b.k + at, ld, table, rope->rotary_dim / 2, rope->pairing, n);
    }
}

// sigmoid(x)^(1/16)
static void channel_decays(void *context, int row, int n) {
    const Linears *l = context;
    int64_t keys = all_keys(l->shape);
    for (int64_t i = row * keys; i < (row + n) * keys; i++) {
        float x = l->b.decay[i], softplus = fmaxf(-x, 0) + log1pf(expf(-fabsf(x))); // -log sigmoid(x)
        l->b.decay[i] = expf(-softplus * GATE_POWER);
    }
}

static void head_decays(void *context, int row, int n) {
    const Linears *l = context;
    int heads = l->shape->n_heads;
    for (int64_t t = row; t < row + n; t++) {
        for (int h = 0; h < heads; h++) l->b.decay[t * heads + h] = log1pf(-exp2f(-5 - (float)h));
    }
}

// Values with a column of ones behind each head's.
static void widen_rows(void *context, int row, int n) {
    const Linears *l = context;
    int wide = l->shape->v_dim, heads = l->shape->n_heads;
    for (int64_t h = (int64_t)row * heads; h < (int64_t)(row + n) * heads; h++) {
        float *to = l->b.wide + h * wide;
        memcpy(to, l->b.v + h * (wide - 1), sizeof *to * (size_t)(wide - 1));
        to[wide - 1] = 1;
    }
}

static void finish_rows(void *context, int row, int n) {
    const Linears *l = context;
    const Config *c = l->config;
    int wide = l->shape->v_dim, width = value_width(c, l->shape), heads = l->shape->n_heads;
    bool gated = dense_exists(&l->weights->gate);
    for (int64_t h = (int64_t)row * heads; h < (int64_t)(row + n) * heads; h++) {
        float *o = l->b.out + h * wide, *y = l->b.gate + h * width;
        float over = c->features_normed ? 1 / (o[width] + 1e-10f) : 1;
        for (int i = 0; i < width && c->features_normed; i++) o[i] *= over;
        l->kernels->rmsnorm(o, o, l->weights->norm, width, c->norm_eps);
        if (gated) l->kernels->swiglu(y, o, width);
        else memcpy(y, o, sizeof *y * (size_t)width);
    }
}

static void project(const Linears *l) {
    const LinearWeights *w = l->weights;
    const Pass *pass = l->call->pass;
    Linear list[] = {{.w = &w->q.w, .y = l->b.q},
                     {.w = &w->k.w, .y = l->b.k},
                     {.w = &w->v.w, .y = l->b.v},
                     {.w = &w->gate.w, .y = l->b.gate}};
    ops_linear(pass->compute, list, dense_exists(&w->gate) ? 4 : 3, l->call->x, pass->n);
    if (l->call->kind->rope.rotary_dim) mixer_rows(pass, (int)all_keys(l->shape), rotate_rows, (void *)l);
    map_features(l, &w->map_q, l->b.q, l->config->features_q_sum, false, 1 / sqrtf((float)l->shape->k_dim));
    map_features(l, &w->map_k, l->b.k, l->config->features_k_sum, true, 1);
}

static void recur(const Linears *l, const float *v, int64_t v_ld) {
    int64_t ld = all_keys(l->shape);
    if (l->shape->pairs) {
        mixer_recur_channels(l->call, &(ChannelRecurrence){.q = l->b.q,
                                                           .k = l->b.k,
                                                           .v = v,
                                                           .decay = l->b.decay,
                                                           .q_ld = ld,
                                                           .k_ld = ld,
                                                           .v_ld = v_ld,
                                                           .decay_ld = ld,
                                                           .out = l->b.out});
        return;
    }
    bool decays = l->call->kind->mixer == MIX_RETENTION;
    mixer_recur(l->call, &(Recurrence){.q = l->b.q,
                                       .k = l->b.k,
                                       .v = v,
                                       .q_ld = ld,
                                       .k_ld = ld,
                                       .v_ld = v_ld,
                                       .log_decay = decays ? l->b.decay : NULL,
                                       .out = l->b.out});
}

static void linear_forward(const void *weights, const MixerCall *call) {
    const Pass *pass = call->pass;
    const StateShape *s = &call->kind->state;
    Linears l = {
        .weights = weights, .call = call, .config = pass->config, .shape = s, .kernels = pass->compute->kernels};
    lay_out(&l.b, pass->scratch, s, pass->n);
    project(&l);
    if (call->kind->mixer == MIX_GLA) {
        low_rank_forward(pass, &l.weights->decay, SQUASH_NONE, call->x, l.b.first, l.b.decay);
        mixer_rows(pass, (int)all_keys(s), channel_decays, &l);
    }
    if (call->kind->mixer == MIX_RETENTION) mixer_rows(pass, s->n_heads, head_decays, &l);
    if (l.config->features_normed) mixer_rows(pass, (int)all_values(s), widen_rows, &l);
    recur(&l, l.config->features_normed ? l.b.wide : l.b.v, all_values(s));
    mixer_rows(pass, (int)all_values(s), finish_rows, &l);
    ops_linear(pass->compute, &(Linear){.w = &l.weights->out.w, .y = call->y, .add = call->add}, 1, l.b.gate, pass->n);
}

const Mixer mixer_linear = {
    .name = "linear attention",
    .weights_size = sizeof(LinearWeights),
    .bind = linear_bind,
    .token_bytes = linear_token_bytes,
    .scratch = linear_scratch,
    .reserve = linear_reserve,
    .widest_input = linear_widest_input,
    .forward = linear_forward,
};
