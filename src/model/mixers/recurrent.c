// recurrent: see recurrent.h.
#include "recurrent.h"

#include <math.h>

const float *bind_taps(Binder *b, const char *part, int width, int channels) {
    const int64_t gguf[] = {channels, width}, folder[] = {channels, 1, width};
    const float *from = bind_floats(b, part, ".weight", b->hf_names ? folder : gguf, b->hf_names ? 3 : 2);
    if (!from) return NULL;
    float *to = weights_own(b->weights, sizeof *to * (size_t)width * (size_t)channels);
    if (!to) binder_fail(b, "out of memory for %d taps of %d channels", width, channels);
    for (int64_t i = 0; to && i < channels; i++) {
        for (int j = 0; j < width; j++) to[j * (int64_t)channels + i] = from[i * width + j];
    }
    return to;
}

const float *bind_table(Binder *b, const char *part, const char *suffix, int64_t rows, int64_t cols) {
    const Tensor *found = bind_find(b, part, -1, suffix);
    bool flat = found && found->n_dims == 1;
    const int64_t whole[] = {rows * cols}, table[] = {rows, cols};
    return bind_floats(b, part, suffix, flat ? whole : table, flat ? 1 : 2);
}

const float *bind_decays(Binder *b, int64_t rows, int64_t cols) {
    const float *a = bind_table(b, "ssm_a", "", rows, cols);
    if (!a || !b->hf_names) return a;
    float *decays = weights_own(b->weights, sizeof *decays * (size_t)(rows * cols));
    if (!decays) binder_fail(b, "out of memory for %lld decays", (long long)(rows * cols));
    for (int64_t i = 0; decays && i < rows * cols; i++) decays[i] = -expf(a[i]);
    return decays;
}

float softplus(float x) {
    return x > 20 ? x : log1pf(expf(x));
}

void mixer_convolve(const MixerCall *call, const float *x, int64_t ld, const float *taps, const float *bias,
                    Activation act, float *y) {
    const Pass *pass = call->pass;
    Convolution list[MAX_SEGMENTS];
    int64_t row = 0;
    for (int i = 0; i < pass->n_segments; row += pass->segments[i++].n) {
        const Segment *s = &pass->segments[i];
        list[i] = (Convolution){.state = memory_state(s->memory, call->layer),
                                .n = s->n,
                                .x = x + row * ld,
                                .ld = ld,
                                .taps = taps,
                                .bias = bias,
                                .act = act,
                                .y = y + row * call->kind->state.conv_dim};
    }
    convolution(pass->compute, list, pass->n_segments);
}

void mixer_recur(const MixerCall *call, const Recurrence *all) {
    const Pass *pass = call->pass;
    const StateShape *shape = &call->kind->state;
    Recurrence list[MAX_SEGMENTS];
    int64_t row = 0;
    for (int i = 0; i < pass->n_segments; row += pass->segments[i++].n) {
        Recurrence *r = &list[i];
        *r = *all;
        r->state = memory_state(pass->segments[i].memory, call->layer);
        r->n = pass->segments[i].n;
        r->q += row * r->q_ld;
        r->k += row * r->k_ld;
        r->v += row * r->v_ld;
        r->out += row * shape->n_heads * shape->v_dim;
        if (r->log_decay) r->log_decay += row * shape->n_heads;
        if (r->beta) r->beta += row * shape->n_heads;
    }
    recurrence(pass->compute, list, pass->n_segments);
}

void mixer_recur_channels(const MixerCall *call, const ChannelRecurrence *all) {
    const Pass *pass = call->pass;
    const StateShape *shape = &call->kind->state;
    ChannelRecurrence list[MAX_SEGMENTS];
    int64_t row = 0;
    for (int i = 0; i < pass->n_segments; row += pass->segments[i++].n) {
        ChannelRecurrence *r = &list[i];
        *r = *all;
        r->state = memory_state(pass->segments[i].memory, call->layer);
        r->n = pass->segments[i].n;
        r->q += row * r->q_ld;
        r->k += row * r->k_ld;
        r->v += row * r->v_ld;
        r->decay += row * r->decay_ld;
        r->out += row * shape->n_heads * shape->v_dim;
        if (r->remove) r->remove += row * r->decay_ld;
        if (r->add) r->add += row * r->decay_ld;
    }
    recurrence_channels(pass->compute, list, pass->n_segments);
}

void mixer_scan(const MixerCall *call, const Scan *all) {
    const Pass *pass = call->pass;
    int64_t channels = call->kind->state.v_dim, row = 0;
    Scan list[MAX_SEGMENTS];
    for (int i = 0; i < pass->n_segments; row += pass->segments[i++].n) {
        Scan *s = &list[i];
        *s = *all;
        s->state = memory_state(pass->segments[i].memory, call->layer);
        s->n = pass->segments[i].n;
        s->step += row * channels;
        s->u += row * channels;
        s->y += row * channels;
        s->b += row * s->ld;
        s->q += row * s->ld;
    }
    scan(pass->compute, list, pass->n_segments);
}

void mixer_shift(const Pass *pass, int layer, int first, int dim, const float *x, float *previous) {
    TokenShift list[MAX_SEGMENTS];
    int64_t at = 0;
    for (int i = 0; i < pass->n_segments; at += (int64_t)pass->segments[i++].n * dim) {
        list[i] = (TokenShift){.state = memory_state(pass->segments[i].memory, layer),
                               .n = pass->segments[i].n,
                               .first = first,
                               .dim = dim,
                               .x = x + at,
                               .previous = previous + at};
    }
    token_shift(pass->compute, list, pass->n_segments);
}
