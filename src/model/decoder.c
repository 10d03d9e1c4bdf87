// decoder: see decoder.h.
#include "decoder.h"

#include "file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- state

static const float *long_or_short(const Decoder *d, int n_ctx) {
    if (d->config.rope_scaling.kind != ROPE_LONG) return d->rope_factors;
    return rope_is_long(&d->config, n_ctx) ? d->rope_long : d->rope_short;
}

int decoder_state_open(DecoderState *s, const Decoder *d, int n_ctx, int n_threads, char *err, size_t errlen) {
    const Config *c = &d->config;
    memset(s, 0, sizeof *s);
    if (compute_open(&s->compute, n_threads, err, errlen)) return -1;
    n_threads = threads_count(s->compute.pool);
    s->scratch = attention_scratch(n_threads, c->n_heads, c->n_kv_heads, c->head_dim, err, errlen);
    s->logits = malloc(sizeof(float) * LOGITS_BLOCK * (size_t)c->vocab_size);
    if (s->scratch && s->logits && !rope_open(&s->rope, c, false, n_ctx, long_or_short(d, n_ctx), err, errlen) &&
        !rope_open(&s->local_rope, c, true, n_ctx, long_or_short(d, n_ctx), err, errlen) &&
        !decoder_state_reserve(s, d, 1, err, errlen)) {
        return 0;
    }
    if (s->scratch && !s->logits) fail(err, errlen, "out of memory for the logits");
    decoder_state_close(s);
    return -1;
}

void decoder_state_close(DecoderState *s) {
    compute_close(&s->compute);
    attention_scratch_free(s->scratch);
    rope_close(&s->rope);
    rope_close(&s->local_rope);
    free(s->logits);
    free(s->memory);
    free(s->ffn.picks);
    memset(s, 0, sizeof *s);
}

static int widest_input(const Config *c) {
    int widest = c->n_heads * c->head_dim > c->dim ? c->n_heads * c->head_dim : c->dim;
    return experts_width(c) > widest ? experts_width(c) : widest;
}

// Which experts a token goes to: whole numbers, and so not among the buffers.
static int reserve_picks(DecoderState *s, const Config *c, int n, char *err, size_t errlen) {
    if (n <= s->room || !c->n_experts) return 0;
    int32_t *picks = realloc(s->ffn.picks, sizeof *picks * (size_t)n * (size_t)c->n_experts_used);
    if (!picks) return fail(err, errlen, "out of memory for the experts of %d tokens", n);
    s->ffn.picks = picks;
    return 0;
}

int decoder_state_reserve(DecoderState *s, const Decoder *d, int n, char *err, size_t errlen) {
    const Config *c = &d->config;
    size_t dim = (size_t)c->dim, hd = (size_t)c->head_dim, width = (size_t)experts_width(c);
    size_t q_dim = (size_t)c->n_heads * hd, kv_dim = (size_t)c->n_kv_heads * hd;
    size_t picked = c->n_experts ? dim : 0, used = (size_t)c->n_experts_used;
    const Buffer list[] = {{&s->x, dim},
                           {&s->norm, dim},
                           {&s->out, c->post_norm ? dim : 0},
                           {&s->qkv, d->layers[0].qkv.w.shape[0] ? q_dim + 2 * kv_dim : 0},
                           {&s->q, q_dim},
                           {&s->k, kv_dim},
                           {&s->v, kv_dim},
                           {&s->att, q_dim},
                           {&s->turns, (size_t)config_rotated(c)},
                           {&s->local_turns, (size_t)config_rotated(c)},
                           {&s->ffn.gate, width},
                           {&s->ffn.up, width},
                           {&s->ffn.picked_x, picked},
                           {&s->ffn.picked_y, picked},
                           {&s->ffn.routes, (size_t)c->n_experts},
                           {&s->ffn.weights, used > 1 ? used : 1}};
    if (reserve_picks(s, c, n, err, errlen)) return -1;
    if (compute_reserve(&s->compute, widest_input(c), n, err, errlen)) return -1;
    return buffers_reserve(&s->memory, &s->room, n, list, sizeof list / sizeof *list, "tokens", err, errlen);
}

KvCache *decoder_cache_open(const Decoder *d, KvType type, int window, int n_sinks, char *err, size_t errlen) {
    const Config *c = &d->config;
    int windows[MAX_DECODER_LAYERS];
    for (int i = 0; i < c->n_layers; i++) {
        int own = window >= 0 && config_layer_slides(c, i) ? c->window : 0;
        windows[i] = window <= 0 || (own && own < window) ? own : window;
    }
    KvShape shape = {.n_layers = c->n_layers,
                     .n_kv_heads = c->n_kv_heads,
                     .head_dim = c->head_dim,
                     .type = type,
                     .n_sinks = n_sinks,
                     .windows = windows};
    return kvcache_open(&shape, err, errlen);
}

// ---- attention

// A layer's queries, keys and values on their way into the cache.
typedef struct {
    const Config *config;
    DecoderState *s;
    KvCache *cache;
    const float *turns; // NULL: the layer does not turn
    int layer, n;
} HeadJob;

enum { TOKENS_PER_ITEM = 32 };

// Of some tokens: turn the queries of one KV head and its keys, and store keys and values.
static void turn_and_store(void *context, int item, int worker) {
    (void)worker;
    const HeadJob *job = context;
    const Config *c = job->config;
    DecoderState *s = job->s;
    int kv_head = item % c->n_kv_heads, first = item / c->n_kv_heads * TOKENS_PER_ITEM;
    int n = job->n - first < TOKENS_PER_ITEM ? job->n - first : TOKENS_PER_ITEM, group = c->n_heads / c->n_kv_heads;
    int64_t hd = c->head_dim, q_dim = c->n_heads * hd, kv_dim = c->n_kv_heads * hd;
    float *q = s->q + first * q_dim, *k = s->k + first * kv_dim + kv_head * hd;
    const float *turns = job->turns ? job->turns + (int64_t)first * config_rotated(c) : NULL;
    for (int h = kv_head * group; turns && h < (kv_head + 1) * group; h++) {
        rope_turn(&s->rope, q + h * hd, q_dim, turns, c->rope_pairing, n);
    }
    if (turns) rope_turn(&s->rope, k, kv_dim, turns, c->rope_pairing, n);
    kvcache_store_head(job->cache, job->layer, kv_head, first, n, k, s->v + first * kv_dim + kv_head * hd, kv_dim);
}

// qkv[n][n_heads][q, k, v][head_dim] into q, k and v.
static void split_heads(DecoderState *s, const Config *c, int n) {
    size_t hd = (size_t)c->head_dim, bytes = sizeof(float) * hd;
    for (size_t i = 0; i < (size_t)n * (size_t)c->n_heads; i++) {
        memcpy(s->q + i * hd, s->qkv + 3 * i * hd, bytes);
        memcpy(s->k + i * hd, s->qkv + (3 * i + 1) * hd, bytes);
        memcpy(s->v + i * hd, s->qkv + (3 * i + 2) * hd, bytes);
    }
}

static void norm_heads(const Compute *compute, const Config *c, const Norm *norm, float *x, int n, int n_heads) {
    bool each = c->qk_norm == QK_NORM_HEAD;
    ops_norm(compute, x, x, norm, each ? n * n_heads : n, each ? c->head_dim : n_heads * c->head_dim, c->norm_eps);
}

// in[n][dim] -> s->att[n][n_heads][head_dim], keys and values into the cache
static void attend(const Decoder *d, DecoderState *s, KvCache *cache, int layer, const float *in, int n) {
    const Config *c = &d->config;
    const Layer *l = &d->layers[layer];
    const Compute *compute = &s->compute;
    int pos0 = kvcache_length(cache);
    if (l->qkv.w.shape[0]) {
        ops_linear(compute, &(Linear){.w = &l->qkv.w, .y = s->qkv, .bias = l->qkv.bias}, 1, in, n);
        split_heads(s, c, n);
    } else {
        Linear qkv[] = {{.w = &l->q.w, .y = s->q, .bias = l->q.bias},
                        {.w = &l->k.w, .y = s->k, .bias = l->k.bias},
                        {.w = &l->v.w, .y = s->v, .bias = l->v.bias}};
        ops_linear(compute, qkv, 3, in, n);
    }
    if (c->qk_norm) norm_heads(compute, c, &l->q_norm, s->q, n, c->n_heads);
    if (c->qk_norm) norm_heads(compute, c, &l->k_norm, s->k, n, c->n_kv_heads);
    HeadJob job = {.config = c, .s = s, .cache = cache, .layer = layer, .n = n};
    if (config_layer_turns(c, layer)) job.turns = config_layer_slides(c, layer) ? s->local_turns : s->turns;
    bool small = (int64_t)n * (c->n_heads + 2 * c->n_kv_heads) * c->head_dim < 8192;
    profile_begin(threads_profile(compute->pool), PROFILE_ROPE);
    int n_items = (n + TOKENS_PER_ITEM - 1) / TOKENS_PER_ITEM * c->n_kv_heads;
    threads_for_if(!small, compute->pool, n_items, turn_and_store, &job);
    profile_end(threads_profile(compute->pool), 0, 0);
    AttnMask mask = {.causal = true,
                     .window = kvcache_window(cache, layer),
                     .n_sinks = kvcache_sinks(cache),
                     .sink_logits = l->sinks};
    attention(compute->pool, s->scratch,
              &(Attention){.q = s->q,
                           .out = s->att,
                           .n_q = n,
                           .n_heads = c->n_heads,
                           .pos0 = pos0,
                           .n_keys = pos0 + n,
                           .scale = c->attn_scale > 0 ? c->attn_scale : 1 / sqrtf((float)c->head_dim),
                           .softcap = c->attn_softcap,
                           .kv = kvcache_view(cache, layer),
                           .mask = mask});
}

// ---- forward

// What a sublayer reads: norm(x) in s->norm, or x itself.
static const float *normed(const Decoder *d, DecoderState *s, const Norm *norm, int n) {
    if (!norm->weight) return s->x;
    ops_norm(&s->compute, s->norm, s->x, norm, n, d->config.dim, d->config.norm_eps);
    return s->norm;
}

// A layer's two sublayers, each added to the stream x; with post_norm through s->out and its norm.
static void layer_forward(const Decoder *d, DecoderState *s, KvCache *cache, int layer, int n) {
    const Config *c = &d->config;
    const Layer *l = &d->layers[layer];
    const Compute *compute = &s->compute;

    attend(d, s, cache, layer, normed(d, s, &l->attn_norm, n), n);
    const float *in = c->parallel ? normed(d, s, &l->ffn_norm, n) : NULL;
    float *out = c->post_norm ? s->out : s->x;
    ops_linear(compute, &(Linear){.w = &l->out.w, .y = out, .add = !c->post_norm, .bias = l->out.bias}, 1, s->att, n);
    if (c->post_norm) {
        ops_norm(compute, out, out, &l->attn_post_norm, n, c->dim, c->norm_eps);
        ops_add(compute, s->x, out, n, c->dim);
        memset(out, 0, sizeof *out * (size_t)n * (size_t)c->dim);
    }

    if (!c->parallel) in = normed(d, s, &l->ffn_norm, n);
    experts_forward(compute, c, &l->ffn, &s->ffn, in, out, n);
    if (c->post_norm) {
        ops_norm(compute, out, out, &l->ffn_post_norm, n, c->dim, c->norm_eps);
        ops_add(compute, s->x, out, n, c->dim);
    }
}

static void embed(const Decoder *d, DecoderState *s, const int32_t *tokens, int pos0, int n) {
    const Config *c = &d->config;
    Profile *profile = threads_profile(s->compute.pool);
    profile_begin(profile, PROFILE_EMBED);
    ops_embed(&s->compute, s->x, d->embedding, tokens, n);
    for (int64_t i = 0; c->embedding_scale > 0 && i < (int64_t)n * c->dim; i++) s->x[i] *= c->embedding_scale;
    if (d->positions) ops_positions(&s->compute, s->x, d->positions, pos0, 1, n, c->dim);
    profile_end(profile, 0, 0);
    if (c->learned_positions) return;
    profile_begin(profile, PROFILE_ROPE);
    rope_table(&s->rope, s->turns, pos0, n);
    if (c->window) rope_table(&s->local_rope, s->local_turns, pos0, n);
    profile_end(profile, 0, 0);
}

static void output_logits(const Decoder *d, DecoderState *s, int pos0, int n, LogitsVisitor visit,
                          void *visit_context) {
    const Config *c = &d->config;
    int64_t dim = c->dim, vocab = c->vocab_size;
    int step = visit ? LOGITS_BLOCK : 1;
    for (int t0 = visit ? 0 : n - 1; t0 < n; t0 += step) {
        int count = n - t0 < step ? n - t0 : step;
        float *norm = s->norm + t0 * dim;
        profile_begin(threads_profile(s->compute.pool), PROFILE_LOGITS);
        ops_norm(&s->compute, norm, s->x + t0 * dim, &d->output_norm, count, c->dim, c->norm_eps);
        ops_linear(&s->compute, &(Linear){.w = d->output, .y = s->logits}, 1, norm, count);
        if (c->logit_softcap > 0) ops_softcap(&s->compute, s->logits, count, c->vocab_size, c->logit_softcap);
        profile_end(threads_profile(s->compute.pool), 0, 0);
        for (int t = 0; visit && t < count; t++) visit(visit_context, pos0 + t0 + t, s->logits + t * vocab);
        if (count > 1) memmove(s->logits, s->logits + (count - 1) * vocab, sizeof(float) * (size_t)vocab);
    }
}

void decoder_forward(const Decoder *d, DecoderState *s, KvCache *cache, const int32_t *tokens, int n,
                     LogitsVisitor visit, void *visit_context) {
    int pos0 = kvcache_length(cache);
    embed(d, s, tokens, pos0, n);
    for (int i = 0; i < d->config.n_layers; i++) layer_forward(d, s, cache, i, n);
    output_logits(d, s, pos0, n, visit, visit_context);
}
