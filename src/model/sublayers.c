// sublayers: see sublayers.h.
#include "sublayers.h"

#include "file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_ROOM = 256, MAX_WIDTH = 1 << 16 };

// ---- binding

int sublayer_check(const SublayerConfig *c, const char *path, char *err, size_t errlen) {
    if (c->dim < 1 || c->dim > MAX_WIDTH || c->hidden_dim < 1 || c->hidden_dim > MAX_WIDTH) {
        return fail(err, errlen, "%s: widths: expected 1 to %d, found %d and %d", path, MAX_WIDTH, c->dim,
                    c->hidden_dim);
    }
    if (c->n_heads < 1 || c->dim % c->n_heads) {
        return fail(err, errlen, "%s: heads: expected a divisor of the width %d, found %d", path, c->dim, c->n_heads);
    }
    return 0;
}

Activation sublayer_activation(Settings *s, const char *key) {
    static const struct {
        const char *name;
        Activation activation;
    } known[] = {{"gelu", ACT_GELU},
                 {"gelu_new", ACT_GELU_TANH},
                 {"gelu_fast", ACT_GELU_TANH},
                 {"relu", ACT_RELU},
                 {"silu", ACT_SILU},
                 {"swish", ACT_SILU},
                 {"quick_gelu", ACT_QUICK_GELU},
                 {"gelu_pytorch_tanh", ACT_GELU_TANH}};
    const char *name = settings_text(s, key, "gelu");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!strcmp(name, known[i].name)) return known[i].activation;
    }
    settings_fail(s, key, "expected gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu or silu, found '%.40s'", name);
    return ACT_NONE;
}

int dense_bind(Dense *d, Weights *w, const char *prefix, const char *name, int rows, int cols, bool bias, char *err,
               size_t errlen) {
    char full[NAME_ROOM];
    snprintf(full, sizeof full, "%s%s.weight", prefix, name);
    const Tensor *t = weights_get(w, full, DTYPE_ANY, rows, cols, err, errlen);
    if (!t) return -1;
    *d = (Dense){.w = *t};
    if (!bias) return 0;
    snprintf(full, sizeof full, "%s%s.bias", prefix, name);
    d->bias = weights_floats(w, full, (int64_t[]){rows}, 1, err, errlen);
    return d->bias ? 0 : -1;
}

int norm_bind(Norm *n, Weights *w, const char *prefix, const char *name, int dim, char *err, size_t errlen) {
    char full[NAME_ROOM];
    snprintf(full, sizeof full, "%s%s.weight", prefix, name);
    n->weight = weights_floats(w, full, (int64_t[]){dim}, 1, err, errlen);
    snprintf(full, sizeof full, "%s%s.bias", prefix, name);
    n->bias = n->weight ? weights_floats(w, full, (int64_t[]){dim}, 1, err, errlen) : NULL;
    return n->bias ? 0 : -1;
}

int attn_bind(AttnSublayer *a, Weights *w, const char *prefix, const AttnNames *names, const SublayerConfig *c,
              bool qkv_bias, char *err, size_t errlen) {
    int dim = c->dim;
    bool bad = dense_bind(&a->q, w, prefix, names->q, dim, dim, qkv_bias, err, errlen) ||
               dense_bind(&a->k, w, prefix, names->k, dim, dim, qkv_bias, err, errlen) ||
               dense_bind(&a->v, w, prefix, names->v, dim, dim, qkv_bias, err, errlen) ||
               dense_bind(&a->out, w, prefix, names->out, dim, dim, true, err, errlen) ||
               norm_bind(&a->norm, w, prefix, names->norm, dim, err, errlen);
    return bad ? -1 : 0;
}

int ffn_bind(FfnSublayer *f, Weights *w, const char *prefix, const FfnNames *names, const SublayerConfig *c, char *err,
             size_t errlen) {
    bool bad = dense_bind(&f->up, w, prefix, names->up, c->hidden_dim, c->dim, true, err, errlen) ||
               dense_bind(&f->down, w, prefix, names->down, c->dim, c->hidden_dim, true, err, errlen) ||
               norm_bind(&f->norm, w, prefix, names->norm, c->dim, err, errlen);
    return bad ? -1 : 0;
}

// ---- buffers

int workspace_open(Workspace *s, const SublayerConfig *c, int n_threads, char *err, size_t errlen) {
    memset(s, 0, sizeof *s);
    if (compute_open(&s->compute, n_threads, err, errlen)) return -1;
    n_threads = threads_count(s->compute.pool);
    s->scratch = attention_scratch(n_threads, c->n_heads, c->n_heads, c->dim / c->n_heads, err, errlen);
    if (s->scratch) return 0;
    workspace_close(s);
    return -1;
}

int workspace_reserve(Workspace *s, const SublayerConfig *c, int n, char *err, size_t errlen) {
    size_t dim = (size_t)c->dim, hidden = (size_t)c->hidden_dim;
    const Buffer list[] = {{&s->norm, dim}, {&s->q, dim},   {&s->k, dim},
                           {&s->v, dim},    {&s->att, dim}, {&s->hidden, hidden}};
    return buffers_reserve(&s->memory, &s->room, n, list, sizeof list / sizeof *list, "tokens", err, errlen);
}

void workspace_close(Workspace *s) {
    compute_close(&s->compute);
    attention_scratch_free(s->scratch);
    free(s->memory);
    memset(s, 0, sizeof *s);
}

// ---- forward

void norm_forward(const Workspace *s, const Norm *norm, float *y, const float *x, int n, int dim, float eps) {
    ops_norm(&s->compute, y, x, norm, n, dim, eps);
}

void dense_forward(const Workspace *s, const Dense *const *list, float *const *y, int count, const float *x, int n) {
    Linear linears[3];
    for (int i = 0; i < count; i++) linears[i] = (Linear){.w = &list[i]->w, .y = y[i], .bias = list[i]->bias};
    ops_linear(&s->compute, linears, count, x, n);
}

const float *sublayer_input(Workspace *s, const SublayerConfig *c, const Norm *norm, const float *x, int n) {
    if (!c->pre_norm) return x;
    norm_forward(s, norm, s->norm, x, n, c->dim, c->norm_eps);
    return s->norm;
}

void sublayer_output(Workspace *s, const SublayerConfig *c, const Norm *norm, const Dense *out, const float *act,
                     float *x, int n) {
    ops_linear(&s->compute, &(Linear){.w = &out->w, .y = x, .add = true, .bias = out->bias}, 1, act, n);
    if (!c->pre_norm) norm_forward(s, norm, x, x, n, c->dim, c->norm_eps);
}

void ffn_forward(Workspace *s, const SublayerConfig *c, const FfnSublayer *f, float *x, int n) {
    const float *in = sublayer_input(s, c, &f->norm, x, n);
    Linear up = {.w = &f->up.w, .y = s->hidden, .bias = f->up.bias, .act = c->activation};
    ops_linear(&s->compute, &up, 1, in, n);
    sublayer_output(s, c, &f->norm, &f->down, s->hidden, x, n);
}

Attention attn_forward(Workspace *s, const SublayerConfig *c, KvView kv, AttnMask mask, int t0, int n, int n_keys) {
    int64_t at = (int64_t)t0 * c->dim;
    Attention a = {.q = s->q + at,
                   .out = s->att + at,
                   .n_q = n,
                   .n_heads = c->n_heads,
                   .pos0 = n_keys - n,
                   .n_keys = n_keys,
                   .scale = 1.0f / sqrtf((float)(c->dim / c->n_heads)),
                   .kv = kv,
                   .mask = mask};
    attention(s->compute.pool, s->scratch, &a);
    return a;
}
