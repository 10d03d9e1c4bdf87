// mix_rwkv7: the time mixing of RWKV-7 (arXiv:2503.14456, section 4 and appendix F).
//
//     x_c = x + (x of the row before - x) mix_c, for c in r, w, k, v, a, g
//     r = W_r x_r;  k = W_k x_k;  v = W_v x_v;  g = G_2 sigmoid(G_1 x_g);  a = sigmoid(A_2 A_1 x_a + a_0)
//     w = exp(-e^(-1/2) sigmoid(W_2 tanh(W_1 x_w) + w_0))
//     v += (v of the first layer - v) sigmoid(V_2 V_1 x_v + v_0), but in the first layer
//     kk = k k_k, of length 1 in each head;  k *= 1 + (a - 1) k_a
//     o = the recurrence of recurrence_channels.h, which removes kk and adds kk a
//     y = W_o ((norm(o) + (sum of r k r_k in the head) v) g), the LayerNorm over each head
// Owns the tensors of such a layer and its forward pass. Without channel mixing (arXiv:2501.15570, a transformer whose
// attention became this) a file need not have the gate and the norm over heads.
#include "mix_rwkv7.h"

#include <math.h>
#include <string.h>

// ---- binding

// Tensors of the first layer that stand in for what only later ones have.
static void pass_over_residual(Binder *b) {
    static const char *const parts[] = {"time_mix_v0", "time_mix_v1", "time_mix_v2"};
    const char *suffix = b->hf_names ? "" : ".weight";
    for (int i = 0; i < 3; i++) {
        const Tensor *t = bind_find(b, parts[i], -1, suffix);
        if (t) bind_shape(b, parts[i], suffix, DTYPE_ANY, t->shape, t->n_dims);
    }
}

static bool has_gate(const Binder *b) {
    return b->config->channel_mix || bind_find(b, "time_mix_g1", -1, b->hf_names ? "" : ".weight");
}

static bool has_norm(const Binder *b) {
    return b->config->channel_mix || bind_find(b, "time_mix_ln", -1, ".weight");
}

static void rwkv7_bind(Binder *b, void *weights, const LayerKind *kind) {
    static const char *const mixes[RWKV7_MIXES] = {"time_mix_lerp_r", "time_mix_lerp_w", "time_mix_lerp_k",
                                                   "time_mix_lerp_v", "time_mix_lerp_a", "time_mix_lerp_g"};
    Rwkv7Weights *w = weights;
    int64_t dim = b->config->dim;
    w->n_mixes = has_gate(b) ? RWKV7_MIXES : RWKV7_MIXES - 1;
    w->mix = bind_mixes(b, "time_mix_lerp_fused", mixes, w->n_mixes, dim);
    bind_dense(b, &w->r, "time_mix_receptance", dim, dim, false);
    bind_dense(b, &w->k, "time_mix_key", dim, dim, false);
    bind_dense(b, &w->v, "time_mix_value", dim, dim, false);
    bind_dense(b, &w->out, "time_mix_output", dim, dim, false);
    bind_low_rank(b, &w->decay, "time_mix_w1", "time_mix_w2", "time_mix_w0", dim, dim);
    bind_low_rank(b, &w->rate, "time_mix_a1", "time_mix_a2", "time_mix_a0", dim, dim);
    if (has_gate(b)) bind_low_rank(b, &w->gate, "time_mix_g1", "time_mix_g2", NULL, dim, dim);
    if (b->layer) bind_low_rank(b, &w->residual, "time_mix_v1", "time_mix_v2", "time_mix_v0", dim, dim);
    else pass_over_residual(b);
    w->k_k = bind_values(b, "time_mix_k_k", dim);
    w->k_a = bind_values(b, "time_mix_k_a", dim);
    w->r_k = bind_values(b, "time_mix_r_k", dim);
    if (has_norm(b)) bind_norm(b, &w->norm, "time_mix_ln", dim, true);
    w->norm_eps = b->hf_names && b->config->channel_mix ? (float)kind->state.v_dim * b->config->norm_eps
                                                        : 64e-5f; // GGUF has no key
}

static uint64_t rwkv7_token_bytes(const void *weights) {
    const Rwkv7Weights *w = weights;
    return dense_bytes(&w->r) + dense_bytes(&w->k) + dense_bytes(&w->v) + dense_bytes(&w->out) +
           low_rank_bytes(&w->decay) + low_rank_bytes(&w->rate) + low_rank_bytes(&w->gate) +
           low_rank_bytes(&w->residual);
}

// ---- scratch

// [n][dim] each; mixed: [RWKV7_MIXES][n][dim].
typedef struct {
    float *previous, *mixed, *r, *k, *v, *decay, *rate, *gate, *residual, *hidden, *remove, *add, *out;
} Rwkv7Buffers;

static size_t lay_out(Rwkv7Buffers *b, float *at, int64_t n, int64_t dim) {
    float **const slots[] = {&b->previous, &b->r,      &b->k,      &b->v,   &b->decay, &b->rate, &b->gate,
                             &b->residual, &b->hidden, &b->remove, &b->add, &b->out,   &b->mixed};
    enum { N_SLOTS = sizeof slots / sizeof *slots };
    size_t each = scratch_floats(n * dim);
    for (int i = 0; i < N_SLOTS; i++) *slots[i] = at + (size_t)i * each;
    return each * (N_SLOTS - 1) + scratch_floats(RWKV7_MIXES * n * dim);
}

static int64_t width_of(const LayerKind *kind) {
    return (int64_t)kind->state.n_heads * kind->state.v_dim;
}

static size_t rwkv7_scratch(const LayerKind *kind) {
    Rwkv7Buffers unused;
    float nothing;
    return lay_out(&unused, &nothing, 1, width_of(kind));
}

static size_t rwkv7_carried(const LayerKind *kind) {
    return (size_t)width_of(kind);
}

static int rwkv7_reserve(Compute *c, const LayerKind *kind, char *err, size_t errlen) {
    return recurrence_channels_reserve(c, &kind->state, err, errlen);
}

static int rwkv7_widest_input(const LayerKind *kind) {
    return (int)width_of(kind);
}

// ---- forward

typedef struct {
    const Rwkv7Weights *weights;
    const Kernels *kernels;
    Rwkv7Buffers b;
    float *first_v; // [n][dim] of the first layer
    bool first;
    int dim, head; // head: its width
} Rwkv7;

// w of s = sigmoid(...): exp(-e^(-1/2) s), as (1 + t) / (1 - t) of t = tanh(-e^(-1/2) s / 2).
static void make_decays(const Kernels *kernels, float *w, int n) {
    static const float half = 0.5f * 0.60653066f;
    kernels->softcap(w, n, -half, 1);
    for (int i = 0; i < n; i++) w[i] = (1 + w[i]) / (1 - w[i]);
}

// k and rate of a head become its k, remove and add.
static void make_keys(const Rwkv7 *r, int64_t row, int d0) {
    const float *k_k = r->weights->k_k + d0, *k_a = r->weights->k_a + d0, *rate = r->b.rate + row + d0;
    float *k = r->b.k + row + d0, *remove = r->b.remove + row + d0, *add = r->b.add + row + d0, sum = 0;
    for (int d = 0; d < r->head; d++) {
        remove[d] = k[d] * k_k[d];
        sum += remove[d] * remove[d];
    }
    float scale = 1 / fmaxf(sqrtf(sum), 1e-12f);
    for (int d = 0; d < r->head; d++) {
        remove[d] *= scale;
        add[d] = remove[d] * rate[d];
        k[d] *= 1 + (rate[d] - 1) * k_a[d];
    }
}

static void prepare_rows(void *context, int row, int n) {
    const Rwkv7 *r = context;
    make_decays(r->kernels, r->b.decay + (int64_t)row * r->dim, n * r->dim);
    for (int t = row; t < row + n; t++) {
        int64_t at = (int64_t)t * r->dim;
        for (int d0 = 0; d0 < r->dim; d0 += r->head) make_keys(r, at, d0);
        float *v = r->b.v + at, *first = r->first_v + at;
        const float *residual = r->b.residual + at;
        if (r->first) memcpy(first, v, sizeof *v * (size_t)r->dim);
        for (int d = 0; d < r->dim && !r->first; d++) v[d] += (first[d] - v[d]) * residual[d];
    }
}

static void finish_rows(void *context, int row, int n) {
    const Rwkv7 *r = context;
    const Rwkv7Weights *w = r->weights;
    bool gated = w->n_mixes == RWKV7_MIXES;
    for (int t = row; t < row + n; t++) {
        int64_t at = (int64_t)t * r->dim;
        for (int d0 = 0; d0 < r->dim; d0 += r->head) {
            float *o = r->b.out + at + d0, bonus = 0;
            const float *q = r->b.r + at + d0, *k = r->b.k + at + d0, *v = r->b.v + at + d0,
                        *gate = r->b.gate + at + d0;
            if (w->norm.weight)
                r->kernels->layernorm(o, o, w->norm.weight + d0, w->norm.bias + d0, r->head, w->norm_eps);
            for (int d = 0; d < r->head; d++) bonus += q[d] * k[d] * w->r_k[d0 + d];
            for (int d = 0; d < r->head; d++) o[d] = (o[d] + bonus * v[d]) * (gated ? gate[d] : 1);
        }
    }
}

static void project(const Rwkv7 *r, const MixerCall *call) {
    const Rwkv7Weights *w = r->weights;
    const Rwkv7Buffers *b = &r->b;
    const Pass *pass = call->pass;
    const float *mixed[RWKV7_MIXES];
    for (int i = 0; i < w->n_mixes; i++) mixed[i] = b->mixed + (int64_t)i * pass->n * r->dim;
    mixer_shift(pass, call->layer, 0, r->dim, call->x, b->previous);
    mix_rows(pass, call->x, b->previous, w->mix, w->n_mixes, r->dim, b->mixed);
    ops_linear(pass->compute, &(Linear){.w = &w->r.w, .y = b->r}, 1, mixed[0], pass->n);
    low_rank_forward(pass, &w->decay, SQUASH_TANH, mixed[1], b->hidden, b->decay);
    ops_linear(pass->compute, &(Linear){.w = &w->k.w, .y = b->k}, 1, mixed[2], pass->n);
    ops_linear(pass->compute, &(Linear){.w = &w->v.w, .y = b->v}, 1, mixed[3], pass->n);
    if (!r->first) low_rank_forward(pass, &w->residual, SQUASH_NONE, mixed[3], b->hidden, b->residual);
    low_rank_forward(pass, &w->rate, SQUASH_NONE, mixed[4], b->hidden, b->rate);
    if (w->n_mixes == RWKV7_MIXES) low_rank_forward(pass, &w->gate, SQUASH_SIGMOID, mixed[5], b->hidden, b->gate);
    squash_rows(pass, b->decay, r->dim, SQUASH_SIGMOID);
    squash_rows(pass, b->rate, r->dim, SQUASH_SIGMOID);
    if (!r->first) squash_rows(pass, b->residual, r->dim, SQUASH_SIGMOID);
}

static void rwkv7_forward(const void *weights, const MixerCall *call) {
    const Pass *pass = call->pass;
    int dim = (int)width_of(call->kind);
    Rwkv7 r = {.weights = weights,
               .kernels = pass->compute->kernels,
               .first_v = pass->carried,
               .first = call->layer == 0,
               .dim = dim,
               .head = call->kind->state.v_dim};
    lay_out(&r.b, pass->scratch, pass->n, dim);
    project(&r, call);
    mixer_rows(pass, dim, prepare_rows, &r);
    mixer_recur_channels(call, &(ChannelRecurrence){.q = r.b.r,
                                                    .k = r.b.k,
                                                    .v = r.b.v,
                                                    .decay = r.b.decay,
                                                    .q_ld = dim,
                                                    .k_ld = dim,
                                                    .v_ld = dim,
                                                    .decay_ld = dim,
                                                    .remove = r.b.remove,
                                                    .add = r.b.add,
                                                    .out = r.b.out});
    mixer_rows(pass, dim, finish_rows, &r);
    ops_linear(pass->compute, &(Linear){.w = &r.weights->out.w, .y = call->y, .add = call->add}, 1, r.b.out, pass->n);
}

const Mixer mixer_rwkv7 = {
    .name = "RWKV-7",
    .weights_size = sizeof(Rwkv7Weights),
    .bind = rwkv7_bind,
    .token_bytes = rwkv7_token_bytes,
    .scratch = rwkv7_scratch,
    .carried = rwkv7_carried,
    .reserve = rwkv7_reserve,
    .widest_input = rwkv7_widest_input,
    .forward = rwkv7_forward,
};
