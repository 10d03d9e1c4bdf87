// decoder: see decoder.h.
#include "decoder.h"

#include "file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- binding

static const Tensor *layer_tensor(const Model *m, int layer, const char *part, int64_t rows, int64_t cols, char *err,
                                  size_t errlen) {
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s.weight", layer, part);
    return weights_get(&m->weights, name, cols ? DTYPE_ANY : DTYPE_BIT(DTYPE_F32), rows, cols, err, errlen);
}

static int bind_layer(Layer *l, const Model *m, int i, char *err, size_t errlen) {
    const Config *c = &m->config;
    int64_t dim = c->dim, hidden = c->hidden_dim;
    int64_t q_dim = (int64_t)c->n_heads * c->head_dim, kv_dim = (int64_t)c->n_kv_heads * c->head_dim;
    const struct {
        const Tensor **slot;
        const char *part;
        int64_t rows, cols;
    } parts[] = {
        {&l->attn_norm, "attn_norm", dim, 0}, {&l->wq, "attn_q", q_dim, dim},      {&l->wk, "attn_k", kv_dim, dim},
        {&l->wv, "attn_v", kv_dim, dim},      {&l->wo, "attn_output", dim, q_dim}, {&l->ffn_norm, "ffn_norm", dim, 0},
        {&l->gate, "ffn_gate", hidden, dim},  {&l->up, "ffn_up", hidden, dim},     {&l->down, "ffn_down", dim, hidden},
    };
    for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
        *parts[p].slot = layer_tensor(m, i, parts[p].part, parts[p].rows, parts[p].cols, err, errlen);
        if (!*parts[p].slot) return -1;
    }
    return 0;
}

int decoder_bind(Decoder *d, const Model *m, char *err, size_t errlen) {
    const Config *c = &m->config;
    *d = (Decoder){.config = *c, .layers = calloc((size_t)c->n_layers, sizeof *d->layers)};
    if (!d->layers) return fail(err, errlen, "out of memory");
    const Weights *w = &m->weights;
    unsigned f32 = DTYPE_BIT(DTYPE_F32);
    bool ok = (d->embedding = weights_get(w, "token_embd.weight", DTYPE_ANY, c->vocab_size, c->dim, err, errlen)) &&
              (d->output_norm = weights_get(w, "output_norm.weight", f32, c->dim, 0, err, errlen));
    d->output = d->embedding;
    if (ok && !c->tied)
        ok = (d->output = weights_get(w, "output.weight", DTYPE_ANY, c->vocab_size, c->dim, err, errlen));
    for (int i = 0; ok && i < c->n_layers; i++) ok = !bind_layer(&d->layers[i], m, i, err, errlen);
    if (!ok) decoder_free(d);
    return ok ? 0 : -1;
}

void decoder_free(Decoder *d) {
    free(d->layers);
    d->layers = NULL;
}

uint64_t decoder_token_bytes(const Decoder *d) {
    uint64_t bytes = tensor_bytes(d->output) + tensor_bytes(d->output_norm);
    for (int i = 0; i < d->config.n_layers; i++) {
        const Layer *l = &d->layers[i];
        const Tensor *all[] = {l->attn_norm, l->wq, l->wk, l->wv, l->wo, l->ffn_norm, l->gate, l->up, l->down};
        for (size_t t = 0; t < sizeof all / sizeof *all; t++) bytes += tensor_bytes(all[t]);
    }
    return bytes + tensor_bytes(d->embedding) / (uint64_t)d->config.vocab_size;
}

// ---- state

int decoder_state_open(DecoderState *s, const Decoder *d, int n_threads, char *err, size_t errlen) {
    const Config *c = &d->config;
    memset(s, 0, sizeof *s);
    if (compute_open(&s->compute, n_threads, err, errlen)) return -1;
    n_threads = threads_count(s->compute.pool);
    s->scratch = attention_scratch(n_threads, c->n_heads, c->n_kv_heads, c->head_dim, err, errlen);
    s->logits = malloc(sizeof(float) * LOGITS_BLOCK * (size_t)c->vocab_size);
    if (s->scratch && s->logits && !decoder_state_reserve(s, d, 1, err, errlen)) return 0;
    if (s->scratch && !s->logits) fail(err, errlen, "out of memory for the logits");
    decoder_state_close(s);
    return -1;
}

void decoder_state_close(DecoderState *s) {
    compute_close(&s->compute);
    attention_scratch_free(s->scratch);
    free(s->logits);
    free(s->memory);
    memset(s, 0, sizeof *s);
}

int decoder_state_reserve(DecoderState *s, const Decoder *d, int n, char *err, size_t errlen) {
    const Config *c = &d->config;
    size_t dim = (size_t)c->dim, hidden = (size_t)c->hidden_dim, hd = (size_t)c->head_dim;
    size_t q_dim = (size_t)c->n_heads * hd, kv_dim = (size_t)c->n_kv_heads * hd;
    const Buffer list[] = {{&s->x, dim},     {&s->norm, dim}, {&s->q, q_dim},     {&s->k, kv_dim}, {&s->v, kv_dim},
                           {&s->att, q_dim}, {&s->rope, hd},  {&s->gate, hidden}, {&s->up, hidden}};
    return buffers_reserve(&s->memory, &s->room, n, list, sizeof list / sizeof *list, "tokens", err, errlen);
}

// ---- forward

typedef struct {
    const Config *config;
    DecoderState *s;
    KvCache *cache;
    int layer, n;
} RopeJob;

// Turn the queries of one KV head and its keys, and store keys and values.
static void rope_and_store(void *context, int kv_head, int worker) {
    (void)worker;
    const RopeJob *job = context;
    const Config *c = job->config;
    DecoderState *s = job->s;
    int64_t hd = c->head_dim, q_dim = c->n_heads * hd, kv_dim = c->n_kv_heads * hd;
    int group = c->n_heads / c->n_kv_heads;
    for (int h = kv_head * group; h < (kv_head + 1) * group; h++) {
        rope_turn(s->q + h * hd, q_dim, s->rope, c->head_dim, c->rope_pairing, job->n);
    }
    float *k = s->k + kv_head * hd;
    rope_turn(k, kv_dim, s->rope, c->head_dim, c->rope_pairing, job->n);
    kvcache_store_head(job->cache, job->layer, kv_head, job->n, k, s->v + kv_head * hd, kv_dim);
}

static void output_logits(const Decoder *d, DecoderState *s, int pos0, int n, LogitsVisitor visit,
                          void *visit_context) {
    const Config *c = &d->config;
    int64_t dim = c->dim, vocab = c->vocab_size;
    int step = visit ? LOGITS_BLOCK : 1;
    for (int t0 = visit ? 0 : n - 1; t0 < n; t0 += step) {
        int count = n - t0 < step ? n - t0 : step;
        float *norm = s->norm + t0 * dim;
        ops_rmsnorm(&s->compute, norm, s->x + t0 * dim, d->output_norm, count, c->norm_eps);
        ops_linear(&s->compute, &(Linear){.w = d->output, .y = s->logits}, 1, norm, count);
        for (int t = 0; visit && t < count; t++) visit(visit_context, pos0 + t0 + t, s->logits + t * vocab);
        if (count > 1) memmove(s->logits, s->logits + (count - 1) * vocab, sizeof(float) * (size_t)vocab);
    }
}

void decoder_forward(const Decoder *d, DecoderState *s, KvCache *cache, AttnMask mask, const int32_t *tokens, int n,
                     LogitsVisitor visit, void *visit_context) {
    const Config *c = &d->config;
    const Compute *compute = &s->compute;
    int pos0 = kvcache_length(cache);
    RopeJob rope = {.config = c, .s = s, .cache = cache, .n = n};
    bool small = (int64_t)n * (c->n_heads + 2 * c->n_kv_heads) * c->head_dim < 8192;

    ops_embed(compute, s->x, d->embedding, tokens, n);
    rope_table(s->rope, c->head_dim, c->rope_theta, pos0, n);
    for (int i = 0; i < c->n_layers; i++) {
        const Layer *l = &d->layers[i];

        ops_rmsnorm(compute, s->norm, s->x, l->attn_norm, n, c->norm_eps);
        Linear qkv[] = {{.w = l->wq, .y = s->q}, {.w = l->wk, .y = s->k}, {.w = l->wv, .y = s->v}};
        ops_linear(compute, qkv, 3, s->norm, n);
        rope.layer = i;
        threads_for_if(!small, compute->pool, c->n_kv_heads, rope_and_store, &rope);
        attention(compute->pool, s->scratch,
                  &(Attention){.q = s->q,
                               .out = s->att,
                               .n_q = n,
                               .n_heads = c->n_heads,
                               .pos0 = pos0,
                               .n_keys = pos0 + n,
                               .scale = 1.0f / sqrtf((float)c->head_dim),
                               .kv = kvcache_view(cache, i),
                               .mask = mask});
        ops_linear(compute, &(Linear){.w = l->wo, .y = s->x, .add = true}, 1, s->att, n);

        ops_rmsnorm(compute, s->norm, s->x, l->ffn_norm, n, c->norm_eps);
        Linear gate_up[] = {{.w = l->gate, .y = s->gate}, {.w = l->up, .y = s->up}};
        ops_linear(compute, gate_up, 2, s->norm, n);
        ops_swiglu(compute, s->gate, s->up, n, c->hidden_dim);
        ops_linear(compute, &(Linear){.w = l->down, .y = s->x, .add = true}, 1, s->gate, n);
    }
    output_logits(d, s, pos0, n, visit, visit_context);
}
