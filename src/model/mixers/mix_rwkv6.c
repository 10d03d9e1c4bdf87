// mix_rwkv6: the time mixing of RWKV-6 (arXiv:2404.05892, section 4.2).
//
//     d = x of the row before - x;  x_c = x + d (mix_c + B_c tanh(A_c (x + d mix_x))), for c in w, k, v, r, g
//     r = W_r x_r;  k = W_k x_k;  v = W_v x_v;  g = silu(W_g x_g);  w = exp(-exp(w_0 + D_2 tanh(D_1 x_w)))
//     o = the recurrence of recurrence_channels.h, with its bonus;  y = W_o (norm(o) g), the LayerNorm over each head
// Owns the tensors of such a layer, as GGUF and flash-linear-attention lay them out, and its forward pass.
#include "mix_rwkv6.h"

#include <math.h>
#include <string.h>

// ---- binding

static int64_t key_width(const StateShape *s) {
    return (int64_t)s->n_heads * s->k_dim;
}

static int64_t value_width(const StateShape *s) {
    return (int64_t)s->n_heads * s->v_dim;
}

// Where a folder has a mix: r, w, k, v, g.
static int place_of(const Binder *b, int mix) {
    static const int places[RWKV6_MIXES] = {[MIX_W] = 1, [MIX_K] = 2, [MIX_V] = 3, [MIX_R] = 0, [MIX_G] = 4};
    return b->hf_names ? places[mix] : mix;
}

// B_c of all mixes: [RWKV6_MIXES][dim][rank], which a folder has as [dim][RWKV6_MIXES][rank].
static Dense bind_second(Binder *b, int64_t dim, int64_t rank) {
    Dense all = {0};
    if (!b->hf_names) {
        const Tensor *t = bind_shape(b, "time_mix_w2", ".weight", DTYPE_ANY, (int64_t[]){RWKV6_MIXES, dim, rank}, 3);
        if (t) all.w = *t;
    } else {
        const float *from = bind_floats(b, "time_mix_w2", ".weight", (int64_t[]){dim, RWKV6_MIXES * rank}, 2);
        float *to = from ? weights_own(b->weights, sizeof *to * (size_t)(RWKV6_MIXES * dim * rank)) : NULL;
        if (from && !to) binder_fail(b, "out of memory for %d matrices", RWKV6_MIXES);
        for (int64_t i = 0; to && i < RWKV6_MIXES * dim; i++) {
            memcpy(to + i * rank, from + (i % dim * RWKV6_MIXES + i / dim) * rank, sizeof *to * (size_t)rank);
        }
        all.w = (Tensor){.dtype = DTYPE_F32, .data = to};
    }
    all.w.n_dims = 2;
    all.w.shape[0] = RWKV6_MIXES * dim;
    all.w.shape[1] = rank;
    return all;
}

static void bind_rwkv6_mixes(Binder *b, Rwkv6Weights *w, int64_t dim) {
    static const char *const parts[RWKV6_MIXES] = {"time_mix_lerp_w", "time_mix_lerp_k", "time_mix_lerp_v",
                                                   "time_mix_lerp_r", "time_mix_lerp_g"};
    const Tensor *t = bind_find(b, "time_mix_w1", -1, ".weight");
    int64_t rank = t ? t->shape[0] / RWKV6_MIXES : dim;
    if (rank < 1 || rank > dim) {
        binder_fail(b, "tensor time_mix_w1: expected 5 to %lld rows, found %lld", (long long)(RWKV6_MIXES * dim),
                    (long long)t->shape[0]);
    }
    Dense first = {0}, second = {0};
    w->mix_x = bind_values(b, "time_mix_lerp_x", dim);
    const float *mix = bind_mixes(b, "time_mix_lerp_fused", parts, RWKV6_MIXES, dim);
    bind_dense(b, &first, "time_mix_w1", RWKV6_MIXES * rank, dim, false);
    if (!b->failed) second = bind_second(b, dim, rank);
    for (int i = 0; i < RWKV6_MIXES && !b->failed; i++) {
        int place = place_of(b, i);
        w->mixes[i].down = dense_rows(&first, place * rank, rank);
        w->mixes[i].up = dense_rows(&second, place * dim, dim);
        w->mixes[i].up.bias = mix + place * dim;
    }
}

static void rwkv6_bind(Binder *b, void *weights, const LayerKind *kind) {
    Rwkv6Weights *w = weights;
    const StateShape *s = &kind->state;
    int64_t dim = b->config->dim, keys = key_width(s), values = value_width(s);
    bind_rwkv6_mixes(b, w, dim);
    bind_dense(b, &w->r, "time_mix_receptance", keys, dim, false);
    bind_dense(b, &w->k, "time_mix_key", keys, dim, false);
    bind_dense(b, &w->v, "time_mix_value", values, dim, false);
    bind_dense(b, &w->g, "time_mix_gate", values, dim, false);
    bind_dense(b, &w->out, "time_mix_output", dim, values, false);
    bind_low_rank(b, &w->decay, "time_mix_decay_w1", "time_mix_decay_w2", "time_mix_decay", dim, keys);
    w->bonus = bind_values(b, "time_mix_first", keys);
    w->norm =
        (Norm){bind_vector(b, "time_mix_ln", ".weight", values), bind_vector(b, "time_mix_ln", ".bias", values), 0};
    w->norm_eps = b->hf_names ? b->config->norm_eps : 64e-5f; // GGUF has no key
}

static uint64_t rwkv6_token_bytes(const void *weights) {
    const Rwkv6Weights *w = weights;
    uint64_t bytes = dense_bytes(&w->r) + dense_bytes(&w->k) + dense_bytes(&w->v) + dense_bytes(&w->g) +
                     dense_bytes(&w->out) + low_rank_bytes(&w->decay);
    for (int i = 0; i < RWKV6_MIXES; i++) bytes += low_rank_bytes(&w->mixes[i]);
    return bytes;
}

// ---- scratch

typedef struct {
    float *previous, *mixed, *hidden; // [n][dim]
    float *mix[RWKV6_MIXES];          // [n][dim] mix_c of each row, then x_c
    float *r, *k, *decay;             // [n][keys]
    float *v, *gate, *out;            // [n][values]
} Rwkv6Buffers;

static int64_t model_width(const StateShape *s) {
    return s->conv_dim / 2;
}

static size_t lay_out(Rwkv6Buffers *b, float *at, const StateShape *s, int64_t n) {
    float **const slots[] = {&b->previous,   &b->mixed, &b->hidden, &b->mix[0], &b->mix[1], &b->mix[2], &b->mix[MIX_R],
                             &b->mix[MIX_G], &b->r,     &b->k,      &b->decay,  &b->v,      &b->gate,   &b->out};
    enum { N_SLOTS = sizeof slots / sizeof *slots, KEYS = 8, VALUES = 11 };
    size_t used = 0;
    for (int i = 0; i < N_SLOTS; i++) {
        *slots[i] = at + used;
        used += scratch_floats(n * (i < KEYS ? model_width(s) : i < VALUES ? key_width(s) : value_width(s)));
    }
    return used;
}

static size_t rwkv6_scratch(const LayerKind *kind) {
    Rwkv6Buffers unused;
    float nothing;
    return lay_out(&unused, &nothing, &kind->state, 1);
}

static int rwkv6_reserve(Compute *c, const LayerKind *kind, char *err, size_t errlen) {
    return recurrence_channels_reserve(c, &kind->state, err, errlen);
}

static int rwkv6_widest_input(const LayerKind *kind) {
    return (int)value_width(&kind->state);
}

// ---- forward

typedef struct {
    const Rwkv6Weights *weights;
    const Kernels *kernels;
    const StateShape *shape;
    const float *x;
    Rwkv6Buffers b;
} Rwkv6;

// mix_c of each row becomes x_c.
static void apply_mixes(void *context, int row, int n) {
    const Rwkv6 *r = context;
    int64_t dim = model_width(r->shape);
    for (int64_t i = row * dim; i < (row + n) * dim; i++) {
        float x = r->x[i], difference = r->b.previous[i] - x;
        for (int m = 0; m < RWKV6_MIXES; m++) r->b.mix[m][i] = x + difference * r->b.mix[m][i];
    }
}

static void make_decays(void *context, int row, int n) {
    const Rwkv6 *r = context;
    int64_t keys = key_width(r->shape);
    for (int64_t i = row * keys; i < (row + n) * keys; i++) r->b.decay[i] = expf(-expf(r->b.decay[i]));
}

static void finish_rows(void *context, int row, int n) {
    const Rwkv6 *r = context;
    const Rwkv6Weights *w = r->weights;
    int64_t values = value_width(r->shape);
    int head = r->shape->v_dim;
    for (int64_t t = row; t < row + n; t++) {
        float *out = r->b.out + t * values;
        for (int64_t d0 = 0; d0 < values; d0 += head) {
            float *o = out + d0;
            r->kernels->layernorm(o, o, w->norm.weight + d0, w->norm.bias + d0, head, w->norm_eps);
        }
        r->kernels->swiglu(r->b.gate + t * values, out, (int)values);
    }
}

static void project(const Rwkv6 *r, const MixerCall *call) {
    const Rwkv6Weights *w = r->weights;
    const Rwkv6Buffers *b = &r->b;
    const Pass *pass = call->pass;
    int dim = (int)model_width(r->shape);
    mixer_shift(pass, call->layer, 0, dim, call->x, b->previous);
    mix_rows(pass, call->x, b->previous, w->mix_x, 1, dim, b->mixed);
    for (int i = 0; i < RWKV6_MIXES; i++) {
        low_rank_forward(pass, &w->mixes[i], SQUASH_TANH, b->mixed, b->hidden, b->mix[i]);
    }
    mixer_rows(pass, RWKV6_MIXES * dim, apply_mixes, (void *)r);
    ops_linear(pass->compute, &(Linear){.w = &w->k.w, .y = b->k}, 1, b->mix[MIX_K], pass->n);
    ops_linear(pass->compute, &(Linear){.w = &w->v.w, .y = b->v}, 1, b->mix[MIX_V], pass->n);
    ops_linear(pass->compute, &(Linear){.w = &w->r.w, .y = b->r}, 1, b->mix[MIX_R], pass->n);
    ops_linear(pass->compute, &(Linear){.w = &w->g.w, .y = b->gate}, 1, b->mix[MIX_G], pass->n);
    low_rank_forward(pass, &w->decay, SQUASH_TANH, b->mix[MIX_W], b->hidden, b->decay);
    mixer_rows(pass, (int)key_width(r->shape), make_decays, (void *)r);
}

static void rwkv6_forward(const void *weights, const MixerCall *call) {
    const Pass *pass = call->pass;
    const StateShape *s = &call->kind->state;
    Rwkv6 r = {.weights = weights, .kernels = pass->compute->kernels, .shape = s, .x = call->x};
    lay_out(&r.b, pass->scratch, s, pass->n);
    project(&r, call);
    mixer_recur_channels(call, &(ChannelRecurrence){.q = r.b.r,
                                                    .k = r.b.k,
                                                    .v = r.b.v,
                                                    .decay = r.b.decay,
                                                    .q_ld = key_width(s),
                                                    .k_ld = key_width(s),
                                                    .v_ld = value_width(s),
                                                    .decay_ld = key_width(s),
                                                    .bonus = r.weights->bonus,
                                                    .out = r.b.out});
    mixer_rows(pass, (int)value_width(s), finish_rows, &r);
    ops_linear(pass->compute, &(Linear){.w = &r.weights->out.w, .y = call->y, .add = call->add}, 1, r.b.gate, pass->n);
}

const Mixer mixer_rwkv6 = {
    .name = "RWKV-6",
    .weights_size = sizeof(Rwkv6Weights),
    .bind = rwkv6_bind,
    .token_bytes = rwkv6_token_bytes,
    .scratch = rwkv6_scratch,
    .reserve = rwkv6_reserve,
    .widest_input = rwkv6_widest_input,
    .forward = rwkv6_forward,
};
