// binder: a decoder's tensors, each found by name in what a loader opened, checked, and made a view where a file keeps
// several in one.
//
// Owns which parts a Config asks for. Refuses a model that lacks one, and one with a tensor that nobody asked for: it
// would change the computation. What it copies: vectors that are not fp32 (or stored less one), and the matrices of
// GPT-2's Hugging Face files, which lie the other way round.
#include "decoder.h"

#include "file.h"
#include "quant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_ROOM = 160 };

typedef struct {
    Decoder *d;
    Model *m;
    bool *used; // by place in the table
    int layer;  // -1: no layer's
    bool failed;
    char *err;
    size_t errlen;
} Binder;

// ---- names

static void name_tensor(const Binder *b, const char *part, int expert, const char *suffix, char name[NAME_ROOM]) {
    const Model *m = b->m;
    char which[16] = "";
    if (m->hf_names) {
        if (!strcmp(part, "attn_sinks")) suffix = "";
        family_tensor_name(m->family, m->prefix, part, b->layer, expert, suffix, name, NAME_ROOM);
        return;
    }
    part = family_gguf_part(m->family, part);
    if (expert >= 0) snprintf(which, sizeof which, ".%d", expert);
    int length = (int)strlen(part) - (expert >= 0 ? (int)strlen("_exp") : 0);
    if (b->layer < 0) snprintf(name, NAME_ROOM, "%.*s%s%s", length, part, which, suffix);
    else snprintf(name, NAME_ROOM, "blk.%d.%.*s%s%s", b->layer, length, part, which, suffix);
}

static const Tensor *find(const Binder *b, const char *part, int expert, const char *suffix) {
    char name[NAME_ROOM];
    name_tensor(b, part, expert, suffix, name);
    return weights_find(&b->m->weights, name);
}

// A tensor of one of these types and this shape. NULL after a failure.
static const Tensor *get_shape(Binder *b, const char *part, int expert, const char *suffix, unsigned mask,
                               const int64_t *shape, int n_dims) {
    char name[NAME_ROOM];
    if (b->failed) return NULL;
    name_tensor(b, part, expert, suffix, name);
    const Tensor *t = weights_get_shape(&b->m->weights, name, mask, shape, n_dims, b->err, b->errlen);
    b->failed = !t;
    if (t) b->used[weights_index(&b->m->weights, t)] = true;
    return t;
}

static const Tensor *get(Binder *b, const char *part, int expert, int64_t rows, int64_t cols) {
    return get_shape(b, part, expert, ".weight", DTYPE_ANY, (int64_t[]){rows, cols}, 2);
}

static void *own(Binder *b, size_t bytes) {
    void *memory = weights_own(&b->m->weights, bytes);
    if (!memory && !b->failed) fail(b->err, b->errlen, "out of memory for a copy of %zu bytes", bytes);
    b->failed |= !memory;
    return memory;
}

static const float *get_floats(Binder *b, const char *part, const char *suffix, const int64_t *shape, int n_dims) {
    char name[NAME_ROOM];
    if (!get_shape(b, part, -1, suffix, DTYPE_FLOATS, shape, n_dims)) return NULL;
    name_tensor(b, part, -1, suffix, name);
    const float *values = weights_floats(&b->m->weights, name, shape, n_dims, b->err, b->errlen);
    b->failed = !values;
    return values;
}

static const float *get_vector(Binder *b, const char *part, const char *suffix, int64_t n) {
    return get_floats(b, part, suffix, (int64_t[]){n}, 1);
}

// ---- norms and linear layers

static void bind_norm(Binder *b, Norm *norm, const char *part, int64_t n, bool bias) {
    norm->weight = get_vector(b, part, ".weight", n);
    if (bias) norm->bias = get_vector(b, part, ".bias", n);
    if (!b->d->config.norm_plus_one || b->failed) return;
    float *sum = own(b, sizeof *sum * (size_t)n);
    for (int64_t i = 0; sum && i < n; i++) sum[i] = norm->weight[i] + 1;
    norm->weight = sum;
}

// [in][out] as the file has it, the other way round.
static void bind_transposed(Binder *b, Dense *dense, const char *part, int64_t rows, int64_t cols) {
    const float *from = get_floats(b, part, ".weight", (int64_t[]){cols, rows}, 2);
    float *to = from ? own(b, sizeof *to * (size_t)(rows * cols)) : NULL;
    for (int64_t i = 0; to && i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) to[i * cols + j] = from[j * rows + i];
    }
    dense->w = (Tensor){.dtype = DTYPE_F32, .n_dims = 2, .shape = {rows, cols}, .data = to};
}

static void bind_dense(Binder *b, Dense *dense, const char *part, int64_t rows, int64_t cols, bool bias) {
    if (b->m->hf_names && b->m->family->transposed) {
        bind_transposed(b, dense, part, rows, cols);
    } else {
        const Tensor *t = get(b, part, -1, rows, cols);
        if (t) dense->w = *t;
    }
    if (bias) dense->bias = get_vector(b, part, ".bias", rows);
}

// n rows of a matrix that holds several, from row0.
static Dense rows_of(const Binder *b, const Dense *whole, int64_t row0, int64_t n) {
    Dense view = *whole;
    if (b->failed) return view;
    uint64_t row_bytes = tensor_bytes(&whole->w) / (uint64_t)whole->w.shape[0];
    view.w.shape[0] = n;
    view.w.data = (const char *)whole->w.data + (uint64_t)row0 * row_bytes;
    if (whole->bias) view.bias = whole->bias + row0;
    return view;
}

// ---- attention

static void bind_attention(Binder *b, Layer *l) {
    const Config *c = &b->d->config;
    int64_t dim = c->dim, q = (int64_t)c->n_heads * c->head_dim, kv = (int64_t)c->n_kv_heads * c->head_dim;
    if (!c->no_pre_norm) bind_norm(b, &l->attn_norm, "attn_norm", dim, c->layer_norm);
    if (find(b, "attn_qkv", -1, ".weight")) {
        Dense all = {0};
        bind_dense(b, &all, "attn_qkv", q + 2 * kv, dim, c->qkv_bias);
        if (b->m->hf_names && b->m->family->qkv_by_head) {
            l->qkv = all;
        } else {
            l->q = rows_of(b, &all, 0, q);
            l->k = rows_of(b, &all, q, kv);
            l->v = rows_of(b, &all, q + kv, kv);
        }
    } else {
        bind_dense(b, &l->q, "attn_q", q, dim, c->qkv_bias);
        bind_dense(b, &l->k, "attn_k", kv, dim, c->qkv_bias);
        bind_dense(b, &l->v, "attn_v", kv, dim, c->qkv_bias);
    }
    bind_dense(b, &l->out, "attn_output", dim, q, c->out_bias);
    bool full = c->qk_norm == QK_NORM_FULL;
    if (c->qk_norm) bind_norm(b, &l->q_norm, "attn_q_norm", full ? q : c->head_dim, false);
    if (c->qk_norm) bind_norm(b, &l->k_norm, "attn_k_norm", full ? kv : c->head_dim, false);
    if (c->learned_sinks) l->sinks = get_vector(b, "attn_sinks", ".weight", c->n_heads);
    if (c->post_norm) bind_norm(b, &l->attn_post_norm, "post_attention_norm", dim, c->layer_norm);
}

// ---- feed-forward

static void bind_feed_forward(Binder *b, FeedForward *f, const char *gate, const char *up, const char *down,
                              int64_t hidden) {
    const Config *c = &b->d->config;
    int64_t dim = c->dim;
    bool fused = !c->plain_ffn && !find(b, gate, -1, ".weight") && find(b, up, -1, ".weight");
    bind_dense(b, &f->up, up, fused ? 2 * hidden : hidden, dim, c->ffn_bias);
    if (fused) {
        f->gate = rows_of(b, &f->up, 0, hidden);
        f->up = rows_of(b, &f->up, hidden, hidden);
    } else if (!c->plain_ffn) {
        bind_dense(b, &f->gate, gate, hidden, dim, c->ffn_bias);
    }
    bind_dense(b, &f->down, down, dim, hidden, c->ffn_bias);
}

// One matrix of every expert, from one tensor [n_experts][rows][cols] or from a tensor for each. offset: of the Dense
// in a FeedForward.
static void bind_expert_matrices(Binder *b, FeedForward *list, size_t offset, const char *stacked, const char *single,
                                 int64_t rows, int64_t cols) {
    const Config *c = &b->d->config;
    const float *bias = NULL;
    Tensor all = {0};
    bool split = !c->ffn_bias && (b->m->hf_names || find(b, single, 0, ".weight")); // none has biases one by one
    if (!split) {
        const Tensor *t = get_shape(b, stacked, -1, ".weight", DTYPE_ANY, (int64_t[]){c->n_experts, rows, cols}, 3);
        if (t) all = *t;
        if (c->ffn_bias) bias = get_floats(b, stacked, ".bias", (int64_t[]){c->n_experts, rows}, 2);
    }
    for (int e = 0; e < c->n_experts && !b->failed; e++) {
        Dense *dense = (Dense *)(void *)((char *)&list[e] + offset);
        if (split) {
            const Tensor *t = get(b, single, e, rows, cols);
            if (t) dense->w = *t;
            continue;
        }
        dense->w = (Tensor){.dtype = all.dtype, .n_dims = 2, .shape = {rows, cols}};
        dense->w.data = (const char *)all.data + (uint64_t)e * tensor_bytes(&dense->w);
        if (bias) dense->bias = bias + e * rows;
    }
}

// The matrix of every expert as gpt-oss has it outside GGUF: 16 bytes a block of 32 values, and exponents of their own.
static void bind_expert_blocks(Binder *b, FeedForward *list, size_t offset, const char *part, int64_t rows,
                               int64_t cols) {
    const Config *c = &b->d->config;
    int64_t n = c->n_experts, n_blocks = cols / BLOCK;
    unsigned other = DTYPE_BIT(DTYPE_U8);
    const Tensor *blocks = get_shape(b, part, -1, "_blocks", other, (int64_t[]){n, rows, n_blocks, BLOCK / 2}, 4);
    const Tensor *exponents = get_shape(b, part, -1, "_scales", other, (int64_t[]){n, rows, n_blocks}, 3);
    const float *bias = get_floats(b, part, "_bias", (int64_t[]){n, rows}, 2);
    for (int64_t e = 0; e < n && !b->failed; e++) {
        Dense *dense = (Dense *)(void *)((char *)&list[e] + offset);
        dense->w = (Tensor){.dtype = DTYPE_MXFP4_SPLIT,
                            .n_dims = 2,
                            .shape = {rows, cols},
                            .data = (const uint8_t *)blocks->data + e * rows * n_blocks * (BLOCK / 2),
                            .scales = (const uint8_t *)exponents->data + e * rows * n_blocks};
        dense->bias = bias + e * rows;
    }
}

static void bind_experts(Binder *b, Experts *e, FeedForward *list) {
    const Config *c = &b->d->config;
    int64_t dim = c->dim, hidden = c->hidden_dim;
    e->list = list;
    bind_dense(b, &e->router, "ffn_gate_inp", c->n_experts, dim, c->router_bias);
    if (find(b, "ffn_gate_up_exps", -1, "_blocks")) {
        if (hidden % BLOCK || dim % BLOCK) {
            b->failed = true;
            fail(b->err, b->errlen, "%s: experts: expected widths of whole blocks of %d, found %d and %d",
                 b->m->weights.files[0].path, BLOCK, c->dim, c->hidden_dim);
        }
        bind_expert_blocks(b, list, offsetof(FeedForward, up), "ffn_gate_up_exps", 2 * hidden, dim);
        bind_expert_blocks(b, list, offsetof(FeedForward, down), "ffn_down_exps", dim, hidden);
        for (int i = 0; i < c->n_experts; i++) list[i].interleaved = true;
        return;
    }
    bind_expert_matrices(b, list, offsetof(FeedForward, gate), "ffn_gate_exps", "ffn_gate_exp", hidden, dim);
    bind_expert_matrices(b, list, offsetof(FeedForward, up), "ffn_up_exps", "ffn_up_exp", hidden, dim);
    bind_expert_matrices(b, list, offsetof(FeedForward, down), "ffn_down_exps", "ffn_down_exp", dim, hidden);
    if (!c->shared_dim) return;
    bind_feed_forward(b, &e->shared, "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", c->shared_dim);
    const Tensor *gate = find(b, "ffn_gate_inp_shexp", -1, ".weight"); // [dim] in GGUF, [1][dim] elsewhere
    bool flat = gate && gate->n_dims == 1;
    gate =
        get_shape(b, "ffn_gate_inp_shexp", -1, ".weight", DTYPE_ANY, flat ? &dim : (int64_t[]){1, dim}, flat ? 1 : 2);
    if (!gate) return;
    e->shared_gate.w = *gate;
    e->shared_gate.w.n_dims = 2;
    e->shared_gate.w.shape[0] = 1, e->shared_gate.w.shape[1] = dim;
}

static void bind_layer(Binder *b, int layer) {
    Decoder *d = b->d;
    const Config *c = &d->config;
    Layer *l = &d->layers[layer];
    b->layer = layer;
    bind_attention(b, l);
    if (!c->no_pre_norm) bind_norm(b, &l->ffn_norm, "ffn_norm", c->dim, c->layer_norm);
    if (c->post_norm) bind_norm(b, &l->ffn_post_norm, "post_ffw_norm", c->dim, c->layer_norm);
    if (c->n_experts) bind_experts(b, &l->ffn, d->experts + (int64_t)layer * c->n_experts);
    else bind_feed_forward(b, &l->ffn.shared, "ffn_gate", "ffn_up", "ffn_down", c->hidden_dim);
}

// ---- the whole

// Factors of RoPE's frequencies, where a file has them.
static const float *bind_factors(Binder *b, const char *part, bool needed) {
    if (!needed && !find(b, part, -1, ".weight")) return NULL;
    const float *factors = get_vector(b, part, ".weight", config_rotated(&b->d->config) / 2);
    for (int i = 0; factors && i < config_rotated(&b->d->config) / 2; i++) {
        if (factors[i] > 0 && isfinite(factors[i])) continue;
        b->failed = true;
        fail(b->err, b->errlen, "%s: tensor %s.weight: expected numbers above 0, found %g", b->m->weights.files[0].path,
             part, (double)factors[i]);
        return NULL;
    }
    return factors;
}

static void bind_outside(Binder *b) {
    Decoder *d = b->d;
    const Config *c = &d->config;
    d->embedding = d->output = get(b, "token_embd", -1, c->vocab_size, c->dim);
    if (c->learned_positions) {
        d->positions = get_floats(b, "position_embd", ".weight", (int64_t[]){c->max_seq_len, c->dim}, 2);
    }
    bind_norm(b, &d->output_norm, "output_norm", c->dim, c->layer_norm);
    if (!c->tied) d->output = get(b, "output", -1, c->vocab_size, c->dim);
    bool two = c->rope_scaling.kind == ROPE_LONG;
    d->rope_factors = bind_factors(b, "rope_freqs", false);
    d->rope_long = bind_factors(b, "rope_factors_long", two);
    d->rope_short = bind_factors(b, "rope_factors_short", two);
}

// Tensors that files carry along and no computation reads: masks and frequencies that follow from the configuration,
// and the classifier of a model that is tied.
static bool is_idle(const Binder *b, const char *name) {
    static const char *const endings[] = {".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias",
                                          ".attention.masked_bias"};
    if (!b->m->hf_names) return false;
    char output[NAME_ROOM];
    family_tensor_name(b->m->family, b->m->prefix, "output", -1, -1, ".weight", output, NAME_ROOM);
    if (b->d->config.tied && !strcmp(name, output)) return true;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t n = strlen(name), m = strlen(endings[i]);
        if (n > m && !strcmp(name + n - m, endings[i])) return true;
    }
    return false;
}

static void refuse_unused(Binder *b) {
    const Weights *w = &b->m->weights;
    for (size_t i = 0; i < weights_count(w) && !b->failed; i++) {
        if (b->used[i] || is_idle(b, w->table[i].key)) continue;
        b->failed = true;
        fail(b->err, b->errlen, "%s: tensor %s: expected none that this architecture does not use", w->files[0].path,
             w->table[i].key);
    }
}

static uint64_t dense_bytes(const Dense *d) {
    uint64_t bias = d->bias ? sizeof(float) * (uint64_t)d->w.shape[0] : 0;
    return d->w.shape[0] ? tensor_bytes(&d->w) + bias : 0;
}

static uint64_t network_bytes(const FeedForward *f) {
    return dense_bytes(&f->gate) + dense_bytes(&f->up) + dense_bytes(&f->down);
}

static uint64_t count_token_bytes(const Decoder *d) {
    const Config *c = &d->config;
    uint64_t bytes = tensor_bytes(d->output) + tensor_bytes(d->embedding) / (uint64_t)c->vocab_size;
    uint64_t norms = 1 + (uint64_t)c->n_layers * ((c->no_pre_norm ? 0 : 2) + (c->post_norm ? 2 : 0));
    bytes += norms * sizeof(float) * (uint64_t)c->dim * (c->layer_norm ? 2 : 1);
    for (int i = 0; i < c->n_layers; i++) {
        const Layer *l = &d->layers[i];
        bytes += dense_bytes(&l->q) + dense_bytes(&l->k) + dense_bytes(&l->v) + dense_bytes(&l->qkv);
        bytes += dense_bytes(&l->out) + dense_bytes(&l->ffn.router) + dense_bytes(&l->ffn.shared_gate);
        bytes += network_bytes(&l->ffn.shared);
        if (c->n_experts) bytes += (uint64_t)c->n_experts_used * network_bytes(&l->ffn.list[0]);
    }
    return bytes;
}

int decoder_bind(Decoder *d, Model *m, char *err, size_t errlen) {
    const Config *c = &m->config;
    *d = (Decoder){.config = *c, .layers = calloc((size_t)c->n_layers, sizeof *d->layers)};
    Binder b = {.d = d, .m = m, .layer = -1, .err = err, .errlen = errlen};
    b.used = calloc(weights_count(&m->weights) + 1, sizeof *b.used);
    d->experts = calloc((size_t)c->n_layers * (size_t)c->n_experts + 1, sizeof *d->experts);
    if (!d->layers || !b.used || !d->experts) b.failed = fail(err, errlen, "out of memory");
    if (!b.failed) bind_outside(&b);
    for (int i = 0; i < c->n_layers && !b.failed; i++) bind_layer(&b, i);
    if (!b.failed) refuse_unused(&b);
    if (!b.failed) d->token_bytes = count_token_bytes(d);
    free(b.used);
    if (b.failed) decoder_free(d);
    return b.failed ? -1 : 0;
}

void decoder_free(Decoder *d) {
    free(d->layers);
    free(d->experts);
    d->layers = NULL;
    d->experts = NULL;
}
