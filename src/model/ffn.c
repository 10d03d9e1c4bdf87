// ffn: see ffn.h.
#include "ffn.h"

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
    Linear first[] = {{.w = &f->up.w, .y = b->up, .bias = f->up.bias, .act = gated ? ACT_NONE : act},
                      {.w = &f->gate.w, .y = b->gate, .bias = f->gate.bias}};
    ops_linear(compute, first, has_gate ? 2 : 1, x, n);
    if (gated) {
        profile_begin(compute->profile, PROFILE_GATE);
        if (f->interleaved) separate(b->gate, b->up, (int64_t)n * hidden);
        ops_gate(compute, b->gate, b->up, n, hidden, act, c->ffn_clamp);
        profile_end(compute->profile, 0, 0);
    }
    Linear down = {.w = &f->down.w, .y = y, .add = add, .bias = f->down.bias};
    ops_linear(compute, &down, 1, gated ? b->gate : b->up, n);
}
