// mix_mamba: Mamba-1 (arXiv:2312.00752), a state space in which every channel's states decay in their own way.
//
//     x, z = W_in u;  x = silu(conv(x));  r, B, C = W_x x, each normed in some models (Falcon Mamba, Jamba)
//     d = softplus(W_d r + bias);  h[n] = exp(d A[n]) h[n] + d x B[n];  y = h C + D x;  out = W_out (y silu(z))
// The recurrence is scan.h's. Owns the tensors of such a layer and its forward pass.

#include "mix_mamba.h"
#include <string.h>

// ---- binding

static float *own_floats(Binder *b, int64_t n) {
    float *values = weights_own(b->weights, sizeof *values * (size_t)n);
    if (!values) binder_fail(b, "out of memory for %lld values", (long long)n);
    return values;
}

// A of each state of a channel, turned around: vectors go over channels.
static const float *bind_states(Binder *b, int states, int channels) {
    const float *from = bind_decays(b, channels, states);
    float *to = from ? own_floats(b, (int64_t)states * channels) : NULL;
    for (int64_t c = 0; to && c < channels; c++) {
        for (int64_t i = 0; i < states; i++) to[i * channels + c] = from[c * states + i];
    }
    return to;
}

static void bind_norms(Binder *b, MambaWeights *w, int rank, int states) {
    if (b->config->step_norm_eps > 0) {
        w->step_norm = bind_ones(b, rank);
        w->b_norm = w->c_norm = bind_ones(b, states);
    } else if (bind_find(b, "ssm_dt_norm", -1, ".weight")) {
        w->step_norm = bind_vector(b, "ssm_dt_norm", ".weight", rank);
        w->b_norm = bind_vector(b, "ssm_b_norm", ".weight", states);
        w->c_norm = bind_vector(b, "ssm_c_norm", ".weight", states);
    }
}

static void mamba_bind(Binder *b, void *weights, const LayerKind *kind) {
    MambaWeights *w = weights;
    int channels = kind->state.v_dim, states = kind->state.k_dim, rank = b->config->step_rank;
    bind_dense(b, &w->in, "ssm_in", 2 * (int64_t)channels, b->config->dim, bind_find(b, "ssm_in", -1, ".bias"));
    w->taps = bind_taps(b, "ssm_conv1d", kind->state.conv_width, channels);
    if (bind_find(b, "ssm_conv1d", -1, ".bias")) w->conv_bias = bind_vector(b, "ssm_conv1d", ".bias", channels);
    bind_dense(b, &w->x, "ssm_x", (int64_t)rank + 2 * (int64_t)states, channels, false);
    bind_norms(b, w, rank, states);
    bind_dense(b, &w->step, "ssm_dt", channels, rank, true);
    w->a = bind_states(b, states, channels);
    w->d = bind_vector(b, "ssm_d", "", channels);
    bind_dense(b, &w->out, "ssm_out", b->config->dim, channels, bind_find(b, "ssm_out", -1, ".bias"));
}

static uint64_t mamba_token_bytes(const void *weights) {
    const MambaWeights *w = weights;
    uint64_t a = sizeof(float) * (uint64_t)w->in.w.shape[0] / 2 * (uint64_t)(w->x.w.shape[0] - w->step.w.shape[1]) / 2;
    return dense_bytes(&w->in) + dense_bytes(&w->x) + dense_bytes(&w->step) + dense_bytes(&w->out) + a;
}

// ---- scratch

typedef struct {
    float *projected; // [n][2 channels] x, z
    float *x;         // [n][channels] behind the convolution
    float *rbc;       // [n][rank + 2 states]
    float *rank;      // [n][rank]
    float *step, *u;  // [n][channels] step sizes; times x
    float *y;         // [n][channels]
} MambaBuffers;

static size_t lay_out(MambaBuffers *b, float *at, const StateShape *s, int rank, int n) {
    float **const slots[] = {&b->projected, &b->x, &b->rbc, &b->rank, &b->step, &b->u, &b->y};
    const int64_t channels = s->v_dim,
                  widths[] = {2 * channels, channels, rank + 2 * (int64_t)s->k_dim, rank, channels, channels, channels};
    size_t used = 0;
    for (int i = 0; i < 7; i++) {
        *slots[i] = at + used;
        used += scratch_floats(n * widths[i]);
    }
    return used;
}

static size_t mamba_scratch(const LayerKind *kind) {
    MambaBuffers unused;
    float nothing;
    return lay_out(&unused, &nothing, &kind->state, kind->state.v_dim, 1); // a rank is at most the channels
}

static int mamba_reserve(Compute *c, const LayerKind *kind, char *err, size_t errlen) {
    (void)c;
    (void)kind;
    (void)err;
    (void)errlen;
    return 0;
}

static int mamba_widest_input(const LayerKind *kind) {
    return kind->state.v_dim;
}

// ---- forward

typedef struct {
    const MambaWeights *weights;
    const Pass *pass;
    MambaBuffers b;
    int channels, states, rank;
} Mamba;

// r, B and C, normed, and r by itself.
static void norm_rows(void *context, int row, int n) {
    const Mamba *m = context;
    const MambaWeights *w = m->weights;
    const Kernels *kernels = m->pass->compute->kernels;
    const Config *c = m->pass->config;
    float eps = c->step_norm_eps > 0 ? c->step_norm_eps : c->norm_eps;
    for (int64_t t = row; t < row + n; t++) {
        float *r = m->b.rbc + t * (m->rank + 2 * m->states), *b = r + m->rank, *to = m->b.rank + t * m->rank;
        memcpy(to, r, sizeof *to * (size_t)m->rank);
        if (!w->step_norm) continue;
        kernels->rmsnorm(to, to, w->step_norm, m->rank, eps);
        kernels->rmsnorm(b, b, w->b_norm, m->states, eps);
        kernels->rmsnorm(b + m->states, b + m->states, w->c_norm, m->states, eps);
    }
}

static void prepare_rows(void *context, int row, int n) {
    const Mamba *m = context;
    for (int64_t i = (int64_t)row * m->channels; i < (int64_t)(row + n) * m->channels; i++) {
        m->b.u[i] = m->b.step[i] * m->b.x[i];
    }
}

static void finish_rows(void *context, int row, int n) {
    const Mamba *m = context;
    int64_t channels = m->channels;
    for (int64_t t = row; t < row + n; t++) {
        float *y = m->b.y + t * channels, *z = m->b.projected + (2 * t + 1) * channels;
        const float *x = m->b.x + t * channels;
        for (int64_t i = 0; i < channels; i++) y[i] += m->weights->d[i] * x[i];
        m->pass->compute->kernels->swiglu(z, y, (int)channels);
        memcpy(y, z, sizeof *y * (size_t)channels);
    }
}

static void mamba_forward(const void *weights, const MixerCall *call) {
    const MambaWeights *w = weights;
    const Pass *pass = call->pass;
    const Compute *compute = pass->compute;
    const StateShape *s = &call->kind->state;
    Mamba m = {.weights = w, .pass = pass, .channels = s->v_dim, .states = s->k_dim, .rank = pass->config->step_rank};
    int ld = m.rank + 2 * m.states;
    lay_out(&m.b, pass->scratch, s, m.rank, pass->n);
    ops_linear(compute, &(Linear){.w = &w->in.w, .y = m.b.projected, .bias = w->in.bias}, 1, call->x, pass->n);
    mixer_convolve(call, m.b.projected, 2 * m.channels, w->taps, w->conv_bias, ACT_SILU, m.b.x);
    ops_linear(compute, &(Linear){.w = &w->x.w, .y = m.b.rbc}, 1, m.b.x, pass->n);
    mixer_rows(pass, ld, norm_rows, &m);
    Linear step = {.w = &w->step.w, .y = m.b.step, .bias = w->step.bias, .act = ACT_SOFTPLUS};
    ops_linear(compute, &step, 1, m.b.rank, pass->n);
    mixer_rows(pass, m.channels, prepare_rows, &m);
    mixer_scan(call, &(Scan){.step = m.b.step,
                             .u = m.b.u,
                             .b = m.b.rbc + m.rank,
                             .q = m.b.rbc + m.rank + m.states,
                             .ld = ld,
                             .a = w->a,
                             .y = m.b.y});
    mixer_rows(pass, m.channels, finish_rows, &m);
    Linear out = {.w = &w->out.w, .y = call->y, .add = call->add, .bias = w->out.bias};
    ops_linear(compute, &out, 1, m.b.y, pass->n);
}

const Mixer mixer_mamba = {
    .name = "Mamba-1",
    .weights_size = sizeof(MambaWeights),
    .bind = mamba_bind,
    .token_bytes = mamba_token_bytes,
    .scratch = mamba_scratch,
    .reserve = mamba_reserve,
    .widest_input = mamba_widest_input,
    .forward = mamba_forward,
};
