// mix_delta: the gated delta net (arXiv:2412.06464), as Qwen3-Next and Qwen 3.5 have it.
//
//     q, k, v = silu(conv(W_qkv x));  z = W_z x;  beta = sigmoid(W_b x);  g = -exp(A) softplus(W_a x + dt)
//     q, k = q / sqrt(|q|^2 + 1e-6), the same of k, per head;  q *= k_dim^-1/2
//     o = the gated delta rule of recurrence.h;  y = W_out (rms(o) w silu(z)), the norm over each value head
// Owns the tensors of such a layer, in each of the ways that files lay them out, and its forward pass.
#include "mix_delta.h"

#include <math.h>
#include <string.h>

// ---- binding

static int64_t key_width(const StateShape *s) {
    return (int64_t)s->n_key_heads * s->k_dim;
}

static int64_t value_width(const StateShape *s) {
    return (int64_t)s->n_heads * s->v_dim;
}

static void bind_inputs(Binder *b, DeltaWeights *w, const StateShape *s) {
    int dim = b->config->dim;
    int64_t keys = key_width(s), values = value_width(s);
    if (bind_find(b, "ssm_in", -1, ".weight")) {
        bind_dense(b, &w->qkvz, "ssm_in", 2 * keys + 2 * values, dim, false);
    } else {
        bind_dense(b, &w->qkv, "attn_qkv", 2 * keys + values, dim, false);
        bind_dense(b, &w->z, "attn_gate", values, dim, false);
    }
    if (bind_find(b, "ssm_ba", -1, ".weight")) {
        bind_dense(b, &w->ba, "ssm_ba", 2 * (int64_t)s->n_heads, dim, false);
    } else {
        bind_dense(b, &w->beta, "ssm_beta", s->n_heads, dim, false);
        bind_dense(b, &w->alpha, "ssm_alpha", s->n_heads, dim, false);
    }
}

// x / sqrt(|x|^2 + 1e-6) by = rms_norm(x, eps 1e-6 / n) by / sqrt(n)
static const float *make_unit(Binder *b, int n, double by) {
    float *unit = weights_own(b->weights, sizeof *unit * (size_t)n);
    if (!unit) binder_fail(b, "out of memory for a norm of %d values", n);
    for (int i = 0; unit && i < n; i++) unit[i] = (float)(by / sqrt(n));
    return unit;
}

static void delta_bind(Binder *b, void *weights, const LayerKind *kind) {
    DeltaWeights *w = weights;
    const StateShape *s = &kind->state;
    bool bare = b->hf_names || bind_find(b, "ssm_dt", -1, ""); // GGUF has both names
    bind_inputs(b, w, s);
    w->taps = bind_taps(b, "ssm_conv1d", s->conv_width, s->conv_dim);
    w->a = bind_decays(b, s->n_heads, 1);
    w->dt = bind_vector(b, "ssm_dt", bare ? "" : ".bias", s->n_heads);
    w->norm = bind_vector(b, "ssm_norm", ".weight", s->v_dim);
    w->q_unit = make_unit(b, s->k_dim, 1 / sqrt(s->k_dim));
    w->k_unit = make_unit(b, s->k_dim, 1);
    bind_dense(b, &w->out, "ssm_out", b->config->dim, value_width(s), false);
    w->key_heads = b->family && b->family->gguf_tiled_heads && !b->hf_names ? KEY_HEADS_TILED : KEY_HEADS_REPEATED;
}

static uint64_t delta_token_bytes(const void *weights) {
    const DeltaWeights *w = weights;
    return dense_bytes(&w->qkv) + dense_bytes(&w->z) + dense_bytes(&w->qkvz) + dense_bytes(&w->beta) +
           dense_bytes(&w->alpha) + dense_bytes(&w->ba) + dense_bytes(&w->out);
}

// ---- scratch

typedef struct {
    float *fused;        // [n][2 keys + 2 values + 2 heads] where q, k, v, z or beta, alpha come in groups
    float *inputs;       // [n][conv_dim] q, k, v before the convolution
    float *qkv;          // [n][conv_dim] behind it
    float *z;            // [n][values]
    float *beta, *decay; // [n][heads]
    float *out;          // [n][values]
} DeltaBuffers;

static size_t fused_width(const StateShape *s) {
    return (size_t)(2 * key_width(s) + 2 * value_width(s) + 2 * s->n_heads);
}

static size_t lay_out(DeltaBuffers *b, float *at, const StateShape *s, int n) {
    float **const slots[] = {&b->fused, &b->inputs, &b->qkv, &b->z, &b->out, &b->beta, &b->decay};
    const int64_t widths[] = {(int64_t)fused_width(s), s->conv_dim, s->conv_dim, value_width(s),
                              value_width(s),          s->n_heads,  s->n_heads};
    size_t used = 0;
    for (int i = 0; i < 7; i++) {
        *slots[i] = at + used;
        used += scratch_floats(n * widths[i]);
    }
    return used;
}

static size_t delta_scratch(const LayerKind *kind) {
    DeltaBuffers unused;
    float nothing;
    return lay_out(&unused, &nothing, &kind->state, 1);
}

static int delta_reserve(Compute *c, const LayerKind *kind, char *err, size_t errlen) {
    return recurrence_reserve(c, kind->state.k_dim, kind->state.v_dim, err, errlen);
}

static int delta_widest_input(const LayerKind *kind) {
    return (int)value_width(&kind->state);
}

// ---- forward

typedef struct {
    const DeltaWeights *weights;
    const MixerCall *call;
    const StateShape *shape;
    DeltaBuffers b;
} Delta;

// Groups of a key head, taken apart.
static void split_rows(void *context, int row, int n) {
    const Delta *d = context;
    const StateShape *s = d->shape;
    int64_t keys = key_width(s), kd = s->k_dim, values = value_width(s), per = s->n_heads / s->n_key_heads,
            vd = per * s->v_dim;
    const float *qkvz = d->b.fused, *ba = d->b.fused + d->call->pass->n * (2 * keys + 2 * values);
    for (int64_t t = row; t < row + n; t++) {
        for (int64_t h = 0; h < s->n_key_heads; h++) {
            const float *from = qkvz + t * (2 * keys + 2 * values) + h * (2 * kd + 2 * vd);
            float *to = d->b.inputs + t * s->conv_dim;
            if (dense_exists(&d->weights->qkvz)) {
                memcpy(to + h * kd, from, sizeof *to * (size_t)kd);
                memcpy(to + keys + h * kd, from + kd, sizeof *to * (size_t)kd);
                memcpy(to + 2 * keys + h * vd, from + 2 * kd, sizeof *to * (size_t)vd);
                memcpy(d->b.z + t * values + h * vd, from + 2 * kd + vd, sizeof *to * (size_t)vd);
            }
            from = ba + t * 2 * s->n_heads + h * 2 * per;
            if (dense_exists(&d->weights->ba)) {
                memcpy(d->b.beta + t * s->n_heads + h * per, from, sizeof *to * (size_t)per);
                memcpy(d->b.decay + t * s->n_heads + h * per, from + per, sizeof *to * (size_t)per);
            }
        }
    }
}

static void project(const Delta *d) {
    const DeltaWeights *w = d->weights;
    const Pass *pass = d->call->pass;
    int64_t qkvz = 2 * key_width(d->shape) + 2 * value_width(d->shape);
    Linear list[4];
    int n = 0;
    if (dense_exists(&w->qkvz)) {
        list[n++] = (Linear){.w = &w->qkvz.w, .y = d->b.fused};
    } else {
        list[n++] = (Linear){.w = &w->qkv.w, .y = d->b.inputs};
        list[n++] = (Linear){.w = &w->z.w, .y = d->b.z};
    }
    if (dense_exists(&w->ba)) {
        list[n++] = (Linear){.w = &w->ba.w, .y = d->b.fused + pass->n * qkvz};
    } else {
        list[n++] = (Linear){.w = &w->beta.w, .y = d->b.beta};
        list[n++] = (Linear){.w = &w->alpha.w, .y = d->b.decay};
    }
    ops_linear(pass->compute, list, n, d->call->x, pass->n);
    if (dense_exists(&w->qkvz) || dense_exists(&w->ba)) mixer_rows(pass, (int)qkvz, split_rows, (void *)d);
}

static void prepare_rows(void *context, int row, int n) {
    const Delta *d = context;
    const StateShape *s = d->shape;
    const Kernels *kernels = d->call->pass->compute->kernels;
    float eps = 1e-6f / (float)s->k_dim;
    for (int64_t t = row; t < row + n; t++) {
        float *q = d->b.qkv + t * s->conv_dim, *k = q + key_width(s);
        for (int64_t h = 0; h < s->n_key_heads; h++) {
            float *q_head = q + h * s->k_dim, *k_head = k + h * s->k_dim;
            kernels->rmsnorm(q_head, q_head, d->weights->q_unit, s->k_dim, eps);
            kernels->rmsnorm(k_head, k_head, d->weights->k_unit, s->k_dim, eps);
        }
        float *beta = d->b.beta + t * s->n_heads, *decay = d->b.decay + t * s->n_heads;
        for (int h = 0; h < s->n_heads; h++) {
            beta[h] = sigmoidf(beta[h]);
            decay[h] = d->weights->a[h] * softplus(decay[h] + d->weights->dt[h]);
        }
    }
}

static void finish_rows(void *context, int row, int n) {
    const Delta *d = context;
    const StateShape *s = d->shape;
    const Kernels *kernels = d->call->pass->compute->kernels;
    int64_t values = value_width(s);
    for (int64_t t = row; t < row + n; t++) {
        float *out = d->b.out + t * values, *z = d->b.z + t * values;
        for (int64_t h = 0; h < s->n_heads; h++) {
            float *o = out + h * s->v_dim;
            kernels->rmsnorm(o, o, d->weights->norm, s->v_dim, d->call->pass->config->norm_eps);
        }
        kernels->swiglu(z, out, (int)values);
    }
}

static void delta_forward(const void *weights, const MixerCall *call) {
    const Pass *pass = call->pass;
    const StateShape *s = &call->kind->state;
    Delta d = {.weights = weights, .call = call, .shape = s};
    lay_out(&d.b, pass->scratch, s, pass->n);
    project(&d);
    mixer_convolve(call, d.b.inputs, s->conv_dim, d.weights->taps, NULL, ACT_SILU, d.b.qkv);
    mixer_rows(pass, (int)(2 * key_width(s)), prepare_rows, &d);
    mixer_recur(call, &(Recurrence){.q = d.b.qkv,
                                    .k = d.b.qkv + key_width(s),
                                    .v = d.b.qkv + 2 * key_width(s),
                                    .q_ld = s->conv_dim,
                                    .k_ld = s->conv_dim,
                                    .v_ld = s->conv_dim,
                                    .log_decay = d.b.decay,
                                    .beta = d.b.beta,
                                    .key_heads = d.weights->key_heads,
                                    .out = d.b.out});
    mixer_rows(pass, (int)value_width(s), finish_rows, &d);
    ops_linear(pass->compute, &(Linear){.w = &d.weights->out.w, .y = call->y, .add = call->add}, 1, d.b.z, pass->n);
}

const Mixer mixer_delta = {
    .name = "gated delta net",
    .weights_size = sizeof(DeltaWeights),
    .bind = delta_bind,
    .token_bytes = delta_token_bytes,
    .scratch = delta_scratch,
    .reserve = delta_reserve,
    .widest_input = delta_widest_input,
    .forward = delta_forward,
};
