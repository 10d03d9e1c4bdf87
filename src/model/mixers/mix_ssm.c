// mix_ssm: Mamba-2 (arXiv:2405.21060), a state space with one decay for each head.
//
//     z, x, B, C, d = W_in u;  x, B, C = silu(conv(x, B, C));  d = softplus(d + bias), clamped
//     per head, a group of consecutive heads sharing B and C:  h = exp(d A) h + (d x) B^T;  y = h C + D x
//     out = W_out (rms(y silu(z)) w), the norm over each group's channels; without a norm W_out (y silu(z))
// As a mixer of its own, and beside attention that reads the same rows, the outputs added (Falcon-H1).
// This is the recurrence of recurrence.h with k = B, q = C, v = d x, g = d A. Owns the tensors of such a layer and its
// forward pass. The norm is mamba_ssm's, by groups (RMSNormGated with group_size), as GGUF files have it, too.

#include "mix_ssm.h"
#include <math.h>
#include <string.h>

// ---- binding

static int64_t inner_width(const StateShape *s) {
    return (int64_t)s->n_heads * s->v_dim;
}

static int64_t key_width(const StateShape *s) {
    return (int64_t)s->n_key_heads * s->k_dim;
}

static int64_t projected_width(const StateShape *s) {
    return 2 * inner_width(s) + 2 * key_width(s) + s->n_heads;
}

static void ssm_bind(Binder *b, void *weights, const LayerKind *kind) {
    SsmWeights *w = weights;
    const StateShape *s = &kind->state;
    int64_t inner = inner_width(s);
    bind_dense(b, &w->in, "ssm_in", projected_width(s), b->config->dim, bind_find(b, "ssm_in", -1, ".bias"));
    w->taps = bind_taps(b, "ssm_conv1d", s->conv_width, s->conv_dim);
    if (bind_find(b, "ssm_conv1d", -1, ".bias")) w->conv_bias = bind_vector(b, "ssm_conv1d", ".bias", s->conv_dim);
    w->a = bind_decays(b, s->n_heads, 1);
    w->d = bind_table(b, "ssm_d", "", s->n_heads, 1);
    w->step_bias = bind_vector(b, "ssm_dt", b->hf_names ? "" : ".bias", s->n_heads);
    if (bind_find(b, "ssm_norm", -1, ".weight"))
        w->norm = bind_table(b, "ssm_norm", ".weight", s->n_key_heads, inner / s->n_key_heads);
    bind_dense(b, &w->out, "ssm_out", b->config->dim, inner, bind_find(b, "ssm_out", -1, ".bias"));
}

static uint64_t ssm_token_bytes(const void *weights) {
    const SsmWeights *w = weights;
    return dense_bytes(&w->in) + dense_bytes(&w->out);
}

// ---- scratch

typedef struct {
    float *projected; // [n][projected_width]
    float *xbc;       // [n][conv_dim] x, B, C behind the convolution
    float *v;         // [n][inner] d x
    float *out;       // [n][inner]
    float *decay;     // [n][heads]
} SsmBuffers;

static size_t lay_out(SsmBuffers *b, float *at, const StateShape *s, int n) {
    float **const slots[] = {&b->projected, &b->xbc, &b->v, &b->out, &b->decay};
    const int64_t widths[] = {projected_width(s), s->conv_dim, inner_width(s), inner_width(s), s->n_heads};
    size_t used = 0;
    for (int i = 0; i < 5; i++) {
        *slots[i] = at + used;
        used += scratch_floats(n * widths[i]);
    }
    return used;
}

static size_t ssm_scratch(const LayerKind *kind) {
    SsmBuffers unused;
    float nothing;
    return lay_out(&unused, &nothing, &kind->state, 1);
}

static int ssm_reserve(Compute *c, const LayerKind *kind, char *err, size_t errlen) {
    return recurrence_reserve(c, kind->state.k_dim, kind->state.v_dim, err, errlen);
}

static int ssm_widest_input(const LayerKind *kind) {
    return (int)inner_width(&kind->state);
}

// ---- forward

typedef struct {
    const SsmWeights *weights;
    const MixerCall *call;
    const StateShape *shape;
    SsmBuffers b;
} Ssm;

// Step sizes, decays and the inputs times their steps.
static void prepare_rows(void *context, int row, int n) {
    const Ssm *m = context;
    const StateShape *s = m->shape;
    const Config *c = m->call->pass->config;
    int64_t inner = inner_width(s), projected = projected_width(s);
    for (int64_t t = row; t < row + n; t++) {
        const float *raw = m->b.projected + t * projected + projected - s->n_heads, *x = m->b.xbc + t * s->conv_dim;
        float *v = m->b.v + t * inner, *decay = m->b.decay + t * s->n_heads;
        for (int h = 0; h < s->n_heads; h++) decay[h] = raw[h] + m->weights->step_bias[h];
        m->call->pass->compute->kernels->activate(decay, s->n_heads, ACT_SOFTPLUS);
        for (int64_t h = 0; h < s->n_heads; h++) {
            float step = decay[h];
            if (c->step_max > 0) step = fminf(fmaxf(step, c->step_min), c->step_max);
            decay[h] = step * m->weights->a[h];
            for (int64_t i = h * s->v_dim; i < (h + 1) * s->v_dim; i++) v[i] = step * x[i];
        }
    }
}

// Each slice of a projected row times its own number.
static void scale_rows(void *context, int row, int n) {
    const Ssm *m = context;
    const StateShape *s = m->shape;
    const float *scales = m->call->pass->config->ssm_scales;
    const int64_t widths[] = {inner_width(s), inner_width(s), key_width(s), key_width(s), s->n_heads};
    float *x = m->b.projected + row * projected_width(s);
    for (int t = 0; t < n; t++) {
        for (int slice = 0; slice < 5; slice++) {
            for (int64_t i = 0; i < widths[slice]; i++) *x++ *= scales[slice];
        }
    }
}

static void norm_groups(const Ssm *m, float *y, const float *x) {
    const Pass *pass = m->call->pass;
    int64_t inner = inner_width(m->shape), group = inner / m->shape->n_key_heads;
    for (int64_t i = 0; i < inner; i += group) {
        pass->compute->kernels->rmsnorm(y + i, x + i, m->weights->norm + i, (int)group, pass->config->norm_eps);
    }
}

// (y + D x) silu(z), normed by groups before or after the gate.
static void finish_rows(void *context, int row, int n) {
    const Ssm *m = context;
    const StateShape *s = m->shape;
    const Pass *pass = m->call->pass;
    bool norm = m->weights->norm, first = norm && pass->config->ssm_norm_first;
    int64_t inner = inner_width(s);
    for (int64_t t = row; t < row + n; t++) {
        float *out = m->b.out + t * inner, *z = m->b.projected + t * projected_width(s);
        const float *x = m->b.xbc + t * s->conv_dim;
        for (int64_t h = 0; h < s->n_heads; h++) {
            for (int64_t i = h * s->v_dim; i < (h + 1) * s->v_dim; i++) out[i] += m->weights->d[h] * x[i];
        }
        if (first) norm_groups(m, out, out);
        pass->compute->kernels->swiglu(z, out, (int)inner);
        if (norm && !first) norm_groups(m, out, z);
        else memcpy(out, z, sizeof *out * (size_t)inner);
    }
}

static void ssm_forward(const void *weights, const MixerCall *call) {
    const Pass *pass = call->pass;
    const StateShape *s = &call->kind->state;
    const SsmWeights *w = weights;
    Ssm m = {.weights = w, .call = call, .shape = s};
    int64_t inner = inner_width(s), keys = key_width(s);
    lay_out(&m.b, pass->scratch, s, pass->n);
    ops_linear(pass->compute, &(Linear){.w = &w->in.w, .y = m.b.projected, .bias = w->in.bias}, 1, call->x, pass->n);
    if (pass->config->ssm_scales[0] > 0) mixer_rows(pass, (int)projected_width(s), scale_rows, &m);
    mixer_convolve(call, m.b.projected + inner, projected_width(s), w->taps, w->conv_bias, ACT_SILU, m.b.xbc);
    mixer_rows(pass, (int)inner, prepare_rows, &m);
    mixer_recur(call, &(Recurrence){.q = m.b.xbc + inner + keys,
                                    .k = m.b.xbc + inner,
                                    .v = m.b.v,
                                    .q_ld = s->conv_dim,
                                    .k_ld = s->conv_dim,
                                    .v_ld = inner,
                                    .log_decay = m.b.decay,
                                    .out = m.b.out});
    mixer_rows(pass, (int)inner, finish_rows, &m);
    float scale = pass->config->ssm_out_scale;
    if (scale > 0) ops_scale(pass->compute, m.b.out, pass->n, (int)inner, scale);
    Linear out = {.w = &w->out.w, .y = call->y, .add = call->add, .bias = w->out.bias};
    ops_linear(pass->compute, &out, 1, m.b.out, pass->n);
}

const Mixer mixer_ssm = {
    .name = "Mamba-2",
    .weights_size = sizeof(SsmWeights),
    .bind = ssm_bind,
    .token_bytes = ssm_token_bytes,
    .scratch = ssm_scratch,
    .reserve = ssm_reserve,
    .widest_input = ssm_widest_input,
    .forward = ssm_forward,
};

// ---- beside attention

static void beside_bind(Binder *b, void *weights, const LayerKind *kind) {
    BesideWeights *w = weights;
    mixer_attention.bind(b, &w->attention, kind);
    ssm_bind(b, &w->ssm, kind);
}

static uint64_t beside_token_bytes(const void *weights) {
    const BesideWeights *w = weights;
    return mixer_attention.token_bytes(&w->attention) + ssm_token_bytes(&w->ssm);
}

static size_t beside_scratch(const LayerKind *kind) {
    size_t attention = mixer_attention.scratch(kind), ssm = ssm_scratch(kind);
    return attention > ssm ? attention : ssm;
}

static int beside_reserve(Compute *c, const LayerKind *kind, char *err, size_t errlen) {
    return mixer_attention.reserve(c, kind, err, errlen) || ssm_reserve(c, kind, err, errlen) ? -1 : 0;
}

static int beside_widest_input(const LayerKind *kind) {
    int attention = mixer_attention.widest_input(kind), ssm = ssm_widest_input(kind);
    return attention > ssm ? attention : ssm;
}

static void beside_forward(const void *weights, const MixerCall *call) {
    const BesideWeights *w = weights;
    MixerCall second = *call;
    second.add = true;
    mixer_attention.forward(&w->attention, call);
    ssm_forward(&w->ssm, &second);
}

const Mixer mixer_ssm_attention = {
    .name = "Mamba-2 beside attention",
    .weights_size = sizeof(BesideWeights),
    .bind = beside_bind,
    .token_bytes = beside_token_bytes,
    .scratch = beside_scratch,
    .reserve = beside_reserve,
    .widest_input = beside_widest_input,
    .forward = beside_forward,
};
