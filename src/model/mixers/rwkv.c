// rwkv: see rwkv.h.
#include "rwkv.h"

#include <string.h>

// ---- binding

const float *bind_values(Binder *b, const char *part, int64_t n) {
    const char *suffix = b->hf_names ? "" : ".weight";
    const Tensor *t = bind_find(b, part, -1, suffix);
    return t && tensor_count(t) == n ? bind_floats(b, part, suffix, t->shape, t->n_dims)
                                     : bind_vector(b, part, suffix, n);
}

const float *bind_mixes(Binder *b, const char *fused, const char *const *parts, int n, int64_t width) {
    if (bind_find(b, fused, -1, b->hf_names ? "" : ".weight")) return bind_values(b, fused, n * width);
    float *all = weights_own(b->weights, sizeof *all * (size_t)(n * width));
    if (!all) binder_fail(b, "out of memory for %d parameters", n);
    for (int i = 0; i < n; i++) {
        const float *values = bind_values(b, parts[i], width);
        if (values) memcpy(all + i * width, values, sizeof *all * (size_t)width);
    }
    return b->failed ? NULL : all;
}

void bind_low_rank(Binder *b, LowRank *map, const char *down, const char *up, const char *bias, int64_t dim,
                   int64_t n) {
    const Tensor *t = bind_find(b, down, -1, ".weight"),
                 *turned = t || !b->hf_names ? NULL : bind_find(b, down, -1, "");
    int64_t rank = t ? t->shape[0] : turned ? turned->shape[1] : dim;
    if (rank < 1 || rank > dim) {
        binder_fail(b, "tensor %s: expected 1 to %lld rows, found %lld", down, (long long)dim, (long long)rank);
    }
    if (turned) {
        bind_transposed(b, &map->down, down, "", rank, dim);
        bind_transposed(b, &map->up, up, "", n, rank);
    } else {
        bind_dense(b, &map->down, down, rank, dim, false);
        bind_dense(b, &map->up, up, n, rank, bias && b->hf_names);
    }
    if (bias && (turned || !b->hf_names)) map->up.bias = bind_values(b, bias, n);
}

int low_rank_width(const LowRank *map) {
    return (int)map->down.w.shape[0];
}

uint64_t low_rank_bytes(const LowRank *map) {
    return dense_bytes(&map->down) + dense_bytes(&map->up);
}

// ---- forward

typedef struct {
    const Kernels *kernels;
    float *x;
    int width;
    Squash act;
} SquashTask;

static void run_squash(void *context, int row, int n) {
    const SquashTask *s = context;
    float *x = s->x + (int64_t)row * s->width;
    int count = n * s->width;
    bool sigmoid = s->act == SQUASH_SIGMOID; // (1 + tanh(x / 2)) / 2
    s->kernels->softcap(x, count, sigmoid ? 0.5f : 1, sigmoid ? 0.5f : 1);
    for (int i = 0; sigmoid && i < count; i++) x[i] += 0.5f;
}

void squash_rows(const Pass *pass, float *x, int width, Squash act) {
    SquashTask task = {.kernels = pass->compute->kernels, .x = x, .width = width, .act = act};
    if (act != SQUASH_NONE) mixer_rows(pass, width, run_squash, &task);
}

void low_rank_forward(const Pass *pass, const LowRank *map, Squash act, const float *x, float *hidden, float *y) {
    ops_linear(pass->compute, &(Linear){.w = &map->down.w, .y = hidden}, 1, x, pass->n);
    squash_rows(pass, hidden, (int)map->down.w.shape[0], act);
    ops_linear(pass->compute, &(Linear){.w = &map->up.w, .y = y, .bias = map->up.bias}, 1, hidden, pass->n);
}

typedef struct {
    const float *x, *previous, *mix;
    int n_mixes, dim, n_rows;
    float *y;
} MixTask;

static void run_mix(void *context, int row, int n) {
    const MixTask *m = context;
    for (int i = 0; i < m->n_mixes; i++) {
        const float *mix = m->mix + (int64_t)i * m->dim;
        for (int t = row; t < row + n; t++) {
            const float *x = m->x + (int64_t)t * m->dim, *previous = m->previous + (int64_t)t * m->dim;
            float *y = m->y + ((int64_t)i * m->n_rows + t) * m->dim;
            for (int d = 0; d < m->dim; d++) y[d] = x[d] + (previous[d] - x[d]) * mix[d];
        }
    }
}

void mix_rows(const Pass *pass, const float *x, const float *previous, const float *mix, int n_mixes, int dim,
              float *y) {
    MixTask task = {
        .x = x, .previous = previous, .mix = mix, .n_mixes = n_mixes, .dim = dim, .n_rows = pass->n, .y = y};
    mixer_rows(pass, n_mixes * dim, run_mix, &task);
}
