// ffn: see ffn.h.
#include "ffn.h"

#include <math.h>

// The numbers of xIELU: two are stored as the inverse of log(1 + exp(x)), and the linear one is part of a third.
static const float *bind_xielu(Binder *b) {
    static const char *const parts[] = {"xielu_alpha_p", "xielu_alpha_n", "xielu_beta", "xielu_eps"};
    float *numbers = weights_own(b->weights, sizeof *numbers * 4);
    if (!numbers) binder_fail(b, "out of memory for 4 numbers");
    for (int i = 0; i < 4 && !b->failed; i++) {
        const float *value = bind_vector(b, parts[i], "", 1);
        if (value) numbers[i] = i < 2 ? log1pf(expf(*value)) : *value;
    }
    if (!b->failed) numbers[1] += numbers[2];
    return numbers;
}

void ffn_bind(Binder *b, FeedForward *f, const FeedForwardNames *names, int64_t hidden) {
    const Config *c = b->config;
    int64_t dim = c->dim;
    bool fused = !c->plain_ffn && !bind_find(b, names->gate, -1, ".weight") && bind_find(b, names->up, -1, ".weight");
    bind_dense(b, &f->up, names->up, fused ? 2 * hidden : hidden, dim, c->ffn_bias);
    if (fused) {
        f->gate = dense_rows(&f->up, 0, hidden);
        f->up = dense_rows(&f->up, hidden, hidden);
    } else if (!c->plain_ffn) {
        bind_dense(b, &f->gate, names->gate, hidden, dim, c->ffn_bias);
    }
    bind_dense(b, &f->down, names->down, dim, hidden, c->ffn_bias);
    if (c->xielu) f->xielu = bind_xielu(b);
}

uint64_t ffn_token_bytes(const FeedForward *f) {
    return dense_bytes(&f->gate) + dense_bytes(&f->up) + dense_bytes(&f->down);
}

// up[n][2 hidden], gate and up in turn, into gate[n][hidden] and up[n][hidden]: writes never overtake reads.
static void separate(float *gate, float *up, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        gate[i] = up[2 * i];
        up[i] = up[2 * i + 1];
    }
}

void ffn_forward(const Compute *compute, const Config *c, const FeedForward *f, const FeedForwardBuffers *b,
                 const float *x, float *y, int n, bool add) {
    int hidden = (int)f->down.w.shape[1];
    Activation act = c->activation ? c->activation : ACT_SILU;
    bool has_gate = dense_exists(&f->gate), gated = has_gate || f->interleaved;
    Linear first[] = {{.w = &f->up.w, .y = b->up, .bias = f->up.bias, .act = gated || f->xielu ? ACT_NONE : act},
                      {.w = &f->gate.w, .y = b->gate, .bias = f->gate.bias}};
    ops_linear(compute, first, has_gate ? 2 : 1, x, n);
    if (f->xielu) ops_xielu(compute, b->up, n, hidden, f->xielu);
    if (has_gate && c->gate_scale > 0) ops_scale(compute, b->gate, n, hidden, c->gate_scale);
    if (gated) {
        profile_begin(compute->profile, PROFILE_GATE);
        if (f->interleaved) separate(b->gate, b->up, (int64_t)n * hidden);
        ops_gate(compute, b->gate, b->up, n, hidden, act, c->ffn_clamp);
        profile_end(compute->profile, 0, 0);
    }
    if (c->ffn_out_scale > 0) ops_scale(compute, gated ? b->gate : b->up, n, hidden, c->ffn_out_scale);
    Linear down = {.w = &f->down.w, .y = y, .add = add, .bias = f->down.bias};
    ops_linear(compute, &down, 1, gated ? b->gate : b->up, n);
}
