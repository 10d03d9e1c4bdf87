// channel_mix: see channel_mix.h.
#include "channel_mix.h"

#include "rwkv.h"

void channel_mix_bind(Binder *b, ChannelMix *m) {
    static const FeedForwardNames names = {"", "channel_mix_key", "channel_mix_value"};
    int64_t dim = b->config->dim;
    ffn_bind(b, &m->ffn, &names, b->config->hidden_dim);
    m->mix_k = bind_values(b, "channel_mix_lerp_k", dim);
    if (!bind_find(b, "channel_mix_receptance", -1, ".weight")) return;
    m->mix_r = bind_values(b, "channel_mix_lerp_r", dim);
    bind_dense(b, &m->receptance, "channel_mix_receptance", dim, dim, false);
}

uint64_t channel_mix_token_bytes(const ChannelMix *m) {
    return ffn_token_bytes(&m->ffn) + dense_bytes(&m->receptance);
}

typedef struct {
    const float *gate, *value;
    float *y;
    int dim;
    bool add;
} GateTask;

static void run_gate(void *context, int row, int n) {
    const GateTask *g = context;
    for (int64_t i = (int64_t)row * g->dim; i < (int64_t)(row + n) * g->dim; i++) {
        g->y[i] = (g->add ? g->y[i] : 0) + g->gate[i] * g->value[i];
    }
}

void channel_mix_forward(const ChannelMix *m, const Pass *pass, int layer, const FeedForwardBuffers *b, float *scratch,
                         const float *x, float *y, bool add) {
    const Config *c = pass->config;
    int dim = c->dim;
    int64_t rows = (int64_t)pass->n * dim;
    float *previous = scratch, *mixed = scratch + rows, *gate = scratch + 2 * rows;
    mixer_shift(pass, layer, dim, dim, x, previous);
    if (m->mix_r) {
        mix_rows(pass, x, previous, m->mix_r, 1, dim, mixed);
        ops_linear(pass->compute, &(Linear){.w = &m->receptance.w, .y = gate}, 1, mixed, pass->n);
        squash_rows(pass, gate, dim, SQUASH_SIGMOID);
    }
    mix_rows(pass, x, previous, m->mix_k, 1, dim, mixed);
    if (!m->mix_r) {
        ffn_forward(pass->compute, c, &m->ffn, b, mixed, y, pass->n, add);
        return;
    }
    ffn_forward(pass->compute, c, &m->ffn, b, mixed, previous, pass->n, false);
    GateTask task = {.gate = gate, .value = previous, .y = y, .dim = dim, .add = add};
    mixer_rows(pass, dim, run_gate, &task);
}
