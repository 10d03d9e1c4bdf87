// mix_conv: the short convolution of LFM2 (arXiv:2511.23404), between two gates that depend on the input.
//
//     B, C, u = W_in x;  y = W_out (C * conv(B * u)), all by channel; no activation
// Owns the tensors of such a layer and its forward pass. The biases that a model may have are those of its two matrices
// and of the convolution, all or none.
#include "mix_conv.h"

static void conv_bind(Binder *b, void *weights, const LayerKind *kind) {
    ConvWeights *w = weights;
    int dim = b->config->dim;
    // GGUF has no setting for it
    bool bias = b->hf_names ? b->config->conv_bias : bind_find(b, "shortconv.conv", -1, ".bias") != NULL;
    bind_dense(b, &w->in, "shortconv.in_proj", 3 * (int64_t)dim, dim, bias);
    w->taps = bind_taps(b, "shortconv.conv", kind->state.conv_width, dim);
    if (bias) w->bias = bind_vector(b, "shortconv.conv", ".bias", dim);
    bind_dense(b, &w->out, "shortconv.out_proj", dim, dim, bias);
}

static uint64_t conv_token_bytes(const void *weights) {
    const ConvWeights *w = weights;
    return dense_bytes(&w->in) + dense_bytes(&w->out);
}

static size_t conv_scratch(const LayerKind *kind) {
    return scratch_floats(3 * (int64_t)kind->state.conv_dim) + scratch_floats(kind->state.conv_dim);
}

static int conv_widest_input(const LayerKind *kind) {
    return kind->state.conv_dim;
}

// y[n][dim] *= by[n][ld]
typedef struct {
    float *y;
    int64_t y_ld, by_ld;
    const float *by;
    int dim;
} Product;

static void run_product(void *context, int row, int n) {
    const Product *p = context;
    for (int64_t t = row; t < row + n; t++) {
        float *restrict y = p->y + t * p->y_ld;
        const float *by = p->by + t * p->by_ld;
        for (int i = 0; i < p->dim; i++) y[i] *= by[i];
    }
}

static void conv_forward(const void *weights, const MixerCall *call) {
    const ConvWeights *w = weights;
    const Pass *pass = call->pass;
    int dim = call->kind->state.conv_dim;
    float *all = pass->scratch, *mixed = all + scratch_floats(3 * (int64_t)dim * pass->n);
    ops_linear(pass->compute, &(Linear){.w = &w->in.w, .y = all, .bias = w->in.bias}, 1, call->x, pass->n);
    Product before = {.y = all, .y_ld = 3 * (int64_t)dim, .by = all + 2 * dim, .by_ld = 3 * (int64_t)dim, .dim = dim};
    mixer_rows(pass, dim, run_product, &before);
    mixer_convolve(call, all, 3 * (int64_t)dim, w->taps, w->bias, ACT_NONE, mixed);
    Product behind = {.y = mixed, .y_ld = dim, .by = all + dim, .by_ld = 3 * (int64_t)dim, .dim = dim};
    mixer_rows(pass, dim, run_product, &behind);
    Linear out = {.w = &w->out.w, .y = call->y, .bias = w->out.bias, .add = call->add};
    ops_linear(pass->compute, &out, 1, mixed, pass->n);
}

const Mixer mixer_conv = {
    .name = "short convolution",
    .weights_size = sizeof(ConvWeights),
    .bind = conv_bind,
    .token_bytes = conv_token_bytes,
    .scratch = conv_scratch,
    .widest_input = conv_widest_input,
    .forward = conv_forward,
};
