// mix_attention: see mix_attention.h.
#include "mix_attention.h"

#include <math.h>
#include <string.h>

enum { TOKENS_PER_ITEM = 32, SMALL_STORE = 8192 };

static int64_t kind_out_dim(const LayerKind *kind) {
    return (int64_t)kind->n_heads * kind->v_dim;
}

// ---- binding

// The tensors of self-attention or of cross-attention, as families.h names them.
typedef struct {
    const char *q, *k, *v, *out;
} ProjectionNames;

static const ProjectionNames self_names = {"attn_q", "attn_k", "attn_v", "attn_output"};
static const ProjectionNames cross_names = {"cross_attn_q", "cross_attn_k", "cross_attn_v", "cross_attn_output"};

static void bind_projections(Binder *b, AttentionWeights *w, const LayerKind *kind, const ProjectionNames *names) {
    const Config *c = b->config;
    bind_dense(b, &w->q, names->q, (kind->gated ? 2 : 1) * kind_q_dim(kind), c->dim, c->qkv_bias);
    bind_dense(b, &w->k, names->k, kind_k_dim(kind), c->dim, c->qkv_bias);
    bind_dense(b, &w->v, names->v, kind_v_dim(kind), c->dim, c->qkv_bias);
}

static void bind_out(Binder *b, AttentionWeights *w, const LayerKind *kind, const char *name) {
    bind_dense(b, &w->out, name, b->config->dim, kind_out_dim(kind), b->config->out_bias);
}

static void bind_fused(Binder *b, AttentionWeights *w, const LayerKind *kind) {
    int64_t q = kind_q_dim(kind), k = kind_k_dim(kind), v = kind_v_dim(kind);
    Dense all = {0};
    bind_dense(b, &all, "attn_qkv", q + k + v, b->config->dim, b->config->qkv_bias);
    if (b->hf_names && b->family->qkv_by_group) {
        w->qkv = all;
        return;
    }
    w->q = dense_rows(&all, 0, q);
    w->k = dense_rows(&all, q, k);
    w->v = dense_rows(&all, q + k, v);
}

static void bind_qk_norm(Binder *b, Norm *norm, const char *part, int n_heads, int k_dim) {
    const Config *c = b->config;
    if (c->qk_norm == QK_NORM_NONE) return;
    if (c->qk_norm == QK_NORM_BARE) {
        norm->weight = bind_ones(b, k_dim);
        return;
    }
    if (c->qk_norm != QK_NORM_OWN) {
        bind_norm(b, norm, part, c->qk_norm == QK_NORM_FULL ? (int64_t)n_heads * k_dim : k_dim, false);
        return;
    }
    *norm = (Norm){.weight = bind_rows(b, part, n_heads, k_dim), .n_heads = n_heads};
    norm->bias = bind_zeros(b, k_dim);
}

// The slopes of ALiBi: 2^(-max / n), its powers up to n, the largest power of 2 among the heads; the others those of
// twice as many heads, every second (arXiv:2108.12409, section 3).
static const float *make_slopes(Binder *b, int n_heads) {
    float *slopes = weights_own(b->weights, sizeof *slopes * (size_t)n_heads);
    int n = 1;
    while (2 * n <= n_heads) n *= 2;
    for (int h = 0; slopes && h < n_heads; h++) {
        double power = h < n ? (double)(h + 1) / n : (double)(2 * (h - n) + 1) / (2 * n);
        slopes[h] = (float)exp2(-(double)b->config->alibi_max * power);
    }
    if (!slopes) binder_fail(b, "out of memory for the slopes of %d heads", n_heads);
    return slopes;
}

static void attention_bind(Binder *b, void *weights, const LayerKind *kind) {
    AttentionWeights *w = weights;
    const Config *c = b->config;
    if (bind_find(b, "attn_qkv", -1, ".weight")) bind_fused(b, w, kind);
    else bind_projections(b, w, kind, &self_names);
    bind_out(b, w, kind, self_names.out);
    if (c->qk_norm != QK_NORM_BARE || kind->rope.rotary_dim) {
        bind_qk_norm(b, &w->q_norm, "attn_q_norm", kind->n_heads, kind->k_dim);
        bind_qk_norm(b, &w->k_norm, "attn_k_norm", kind->n_kv_heads, kind->k_dim);
    }
    if (c->alibi_max > 0) w->slopes = make_slopes(b, kind->n_heads);
    if (c->learned_sinks) w->sinks = bind_vector(b, "attn_sinks", ".weight", kind->n_heads);
}

void cross_bind(Binder *b, AttentionWeights *w, const LayerKind *kind) {
    bind_projections(b, w, kind, &cross_names);
    bind_out(b, w, kind, cross_names.out);
}

static uint64_t attention_token_bytes(const void *weights) {
    const AttentionWeights *w = weights;
    return dense_bytes(&w->q) + dense_bytes(&w->k) + dense_bytes(&w->v) + dense_bytes(&w->qkv) + dense_bytes(&w->out);
}

// ---- scratch

typedef struct {
    float *q, *k, *v; // [n][n_heads][k_dim], [n][n_kv_heads][k_dim], [n][n_kv_heads][v_dim]
    float *att;       // [n][n_heads][v_dim]
    float *qkv;       // [n][q, k, v], where att will be
    float *gated_q;   // [n][n_heads][q, gate], the same place
    float *gate;      // [n][n_heads][v_dim] where the kind is gated
} AttentionBuffers;

static int64_t widest_output(const LayerKind *kind) {
    int64_t qkv = kind_q_dim(kind) + kind_k_dim(kind) + kind_v_dim(kind), att = kind_out_dim(kind);
    if (kind->gated && qkv < 2 * kind_q_dim(kind)) qkv = 2 * kind_q_dim(kind);
    return qkv > att ? qkv : att;
}

static size_t attention_scratch(const LayerKind *kind) {
    return scratch_floats(kind_q_dim(kind)) + scratch_floats(kind_k_dim(kind)) + scratch_floats(kind_v_dim(kind)) +
           scratch_floats(widest_output(kind)) + (kind->gated ? scratch_floats(kind_out_dim(kind)) : 0);
}

static AttentionBuffers buffers_of(const Pass *pass, const LayerKind *kind) {
    AttentionBuffers b = {.q = pass->scratch};
    b.k = b.q + scratch_floats(pass->n * kind_q_dim(kind));
    b.v = b.k + scratch_floats(pass->n * kind_k_dim(kind));
    b.att = b.qkv = b.gated_q = b.v + scratch_floats(pass->n * kind_v_dim(kind));
    if (kind->gated) b.gate = b.att + scratch_floats(pass->n * widest_output(kind));
    return b;
}

static int reserve(Compute *c, const LayerKind *k, char *err, size_t errlen) {
    return attention_reserve(c, k->n_heads, k->n_kv_heads, k->k_dim, k->v_dim, err, errlen);
}

static int widest_input(const LayerKind *kind) {
    return (int)kind_out_dim(kind);
}

// ---- queries, keys and values

// qkv[n][n_kv_heads][queries, k, v][k_dim] into q, k and v.
static void split_heads(const AttentionBuffers *b, const LayerKind *kind, int n) {
    size_t hd = (size_t)kind->k_dim, bytes = sizeof(float) * hd;
    size_t group = (size_t)kind->n_heads / (size_t)kind->n_kv_heads;
    const float *from = b->qkv;
    for (size_t i = 0; i < (size_t)n * (size_t)kind->n_kv_heads; i++, from += (group + 2) * hd) {
        memcpy(b->q + i * group * hd, from, group * bytes);
        memcpy(b->k + i * hd, from + group * hd, bytes);
        memcpy(b->v + i * hd, from + (group + 1) * hd, bytes);
    }
}

// gated_q[n][n_heads][q, gate] into q and gate.
static void split_gates(const AttentionBuffers *b, const LayerKind *kind, int n) {
    size_t hd = (size_t)kind->k_dim, bytes = sizeof(float) * hd;
    for (size_t i = 0; i < (size_t)n * (size_t)kind->n_heads; i++) {
        memcpy(b->q + i * hd, b->gated_q + 2 * i * hd, bytes);
        memcpy(b->gate + i * hd, b->gated_q + (2 * i + 1) * hd, bytes);
    }
}

typedef struct {
    float *att;
    const float *gate;
    int64_t width;
} Gates;

// att *= sigmoid(gate)
static void apply_gates(void *context, int row, int n) {
    const Gates *g = context;
    for (int64_t i = row * g->width; i < (row + n) * g->width; i++) g->att[i] /= 1 + expf(-g->gate[i]);
}

static void norm_heads(const Pass *pass, const Norm *norm, float *x, int n_heads, int k_dim) {
    bool each = pass->config->qk_norm != QK_NORM_FULL;
    ops_norm(pass->compute, x, x, norm, each ? pass->n * n_heads : pass->n, each ? k_dim : n_heads * k_dim,
             pass->config->norm_eps);
}

static void project(const AttentionWeights *w, const MixerCall *call, const AttentionBuffers *b) {
    const Pass *pass = call->pass;
    const LayerKind *kind = call->kind;
    if (dense_exists(&w->qkv)) {
        ops_linear(pass->compute, &(Linear){.w = &w->qkv.w, .y = b->qkv, .bias = w->qkv.bias}, 1, call->x, pass->n);
        split_heads(b, kind, pass->n);
    } else {
        Linear qkv[] = {{.w = &w->q.w, .y = kind->gated ? b->gated_q : b->q, .bias = w->q.bias},
                        {.w = &w->k.w, .y = b->k, .bias = w->k.bias},
                        {.w = &w->v.w, .y = b->v, .bias = w->v.bias}};
        ops_linear(pass->compute, qkv, 3, call->x, pass->n);
        if (kind->gated) split_gates(b, kind, pass->n);
    }
    if (pass->config->qkv_clamp > 0) {
        ops_clamp(pass->compute, b->q, pass->n, (int)kind_q_dim(kind), pass->config->qkv_clamp);
        ops_clamp(pass->compute, b->k, pass->n, (int)kind_k_dim(kind), pass->config->qkv_clamp);
        ops_clamp(pass->compute, b->v, pass->n, (int)kind_v_dim(kind), pass->config->qkv_clamp);
    }
    if (!pass->config->qk_norm || pass->config->qk_norm_last) return;
    norm_heads(pass, &w->q_norm, b->q, kind->n_heads, kind->k_dim);
    norm_heads(pass, &w->k_norm, b->k, kind->n_kv_heads, kind->k_dim);
}

// Rotation of queries and keys, and storing keys and values.
typedef struct {
    const MixerCall *call;
    const AttentionWeights *weights;
    const AttentionBuffers *buffers;
    const float *table;                                              // NULL: no rotary positions
    int first_items[MAX_SEGMENTS + 1], first_rows[MAX_SEGMENTS + 1]; // of each segment, and behind the last
} StoreJob;

// A norm that follows the rotation, of n vectors of one head.
static void norm_last(const Pass *pass, const Norm *norm, float *x, int64_t ld, int k_dim, int n) {
    for (int t = 0; t < n; t++) {
        pass->compute->kernels->rmsnorm(x + t * ld, x + t * ld, norm->weight, k_dim, pass->config->norm_eps);
    }
}

// Queries of this kind are times the temperature of their positions.
static bool is_heated(const Config *c, const LayerKind *kind) {
    return c->temperature > 0 && !(c->temperature_nope && kind->rope.rotary_dim);
}

// n queries from position p on, times the temperature.
static void heat(const Config *c, float *q, int64_t q_dim, int width, int p, int n) {
    for (int t = 0; t < n; t++) {
        float by = 1 + c->temperature * (float)log1p((p + t + c->temperature_nope) / c->temperature_ctx);
        for (int d = 0; d < width; d++) q[t * q_dim + d] *= by;
    }
}

// Of some tokens of a segment: rotate the queries of one KV head and its keys, and store keys and values.
static void store_item(void *context, int index, int worker) {
    (void)worker;
    const StoreJob *job = context;
    const Pass *pass = job->call->pass;
    const LayerKind *kind = job->call->kind;
    int part = threads_part_of(index, job->first_items, pass->n_segments), item = index - job->first_items[part];
    const Segment *s = &pass->segments[part];
    const AttentionBuffers *b = job->buffers;
    int kv_head = item % kind->n_kv_heads, first = item / kind->n_kv_heads * TOKENS_PER_ITEM;
    int n = s->n - first < TOKENS_PER_ITEM ? s->n - first : TOKENS_PER_ITEM, group = kind->n_heads / kind->n_kv_heads;
    int64_t row = job->first_rows[part] + first, q_dim = kind_q_dim(kind), k_dim = kind_k_dim(kind),
            v_dim = kind_v_dim(kind);
    float *q = b->q + row * q_dim, *k = b->k + row * k_dim + (int64_t)kv_head * kind->k_dim;
    if (job->table) {
        int n_freqs = kind->rope.rotary_dim / 2;
        const float *table = job->table + row * kind->rope.rotary_dim;
        for (int h = kv_head * group; h < (kv_head + 1) * group; h++) {
            rope_rotate(q + (int64_t)h * kind->k_dim, q_dim, table, n_freqs, kind->rope.pairing, n);
        }
        rope_rotate(k, k_dim, table, n_freqs, kind->rope.pairing, n);
    }
    const Config *c = pass->config;
    float *own_q = q + (int64_t)kv_head * group * kind->k_dim;
    if (c->qk_norm_last && job->weights->q_norm.weight) {
        norm_last(pass, &job->weights->k_norm, k, k_dim, kind->k_dim, n);
        for (int h = 0; h < group; h++) {
            norm_last(pass, &job->weights->q_norm, own_q + (int64_t)h * kind->k_dim, q_dim, kind->k_dim, n);
        }
    }
    if (is_heated(c, kind)) heat(c, own_q, q_dim, group * kind->k_dim, memory_length(s->memory) + first, n);
    KvRows rows = {.k = k, .v = b->v + row * v_dim + (int64_t)kv_head * kind->v_dim, .k_ld = k_dim, .v_ld = v_dim};
    kvcache_store_head(memory_cache(s->memory, job->call->layer), kv_head, first, n, &rows);
}

static void store(const AttentionWeights *w, const MixerCall *call, const AttentionBuffers *b) {
    const Pass *pass = call->pass;
    const LayerKind *kind = call->kind;
    StoreJob job;
    job.call = call;
    job.buffers = b;
    job.weights = w;
    job.table = pass->rope_tables[call->kind_index];
    job.first_items[0] = job.first_rows[0] = 0;
    for (int i = 0; i < pass->n_segments; i++) {
        int n = pass->segments[i].n;
        job.first_items[i + 1] = job.first_items[i] + (n + TOKENS_PER_ITEM - 1) / TOKENS_PER_ITEM * kind->n_kv_heads;
        job.first_rows[i + 1] = job.first_rows[i] + n;
    }
    bool small = pass->n * (kind_q_dim(kind) + kind_k_dim(kind) + kind_v_dim(kind)) < SMALL_STORE;
    profile_begin(pass->compute->profile, PROFILE_ROPE);
    threads_for_if(!small, pass->compute->pool, job.first_items[pass->n_segments], store_item, &job);
    profile_end(pass->compute->profile, 0, 0);
}

// ---- attention

// The queries of a segment, from `row0` of the pass on, over what a cache holds and `n_new` more stored behind it.
static Attention problem_of(const MixerCall *call, const AttentionBuffers *b, int row0, int n_q, const KvCache *cache,
                            int n_new) {
    const Config *c = call->pass->config;
    const LayerKind *kind = call->kind;
    int n_keys = kvcache_length(cache) + n_new;
    return (Attention){.q = b->q + row0 * kind_q_dim(kind),
                       .out = b->att + (int64_t)row0 * kind->n_heads * kind->v_dim,
                       .n_q = n_q,
                       .n_heads = kind->n_heads,
                       .pos0 = n_keys - n_q,
                       .n_keys = n_keys,
                       .scale = c->attn_scale > 0 ? c->attn_scale : 1 / sqrtf((float)kind->k_dim),
                       .softcap = c->attn_softcap,
                       .kv = kvcache_view(cache)};
}

static void project_out(const AttentionWeights *w, const MixerCall *call, const float *att) {
    Linear out = {.w = &w->out.w, .y = call->y, .add = call->add, .bias = w->out.bias};
    ops_linear(call->pass->compute, &out, 1, att, call->pass->n);
}

static void attention_forward(const void *weights, const MixerCall *call) {
    const AttentionWeights *w = weights;
    const Pass *pass = call->pass;
    AttentionBuffers b = buffers_of(pass, call->kind);
    Attention list[MAX_SEGMENTS];
    project(w, call, &b);
    store(w, call, &b);
    for (int i = 0, row = 0; i < pass->n_segments; row += pass->segments[i++].n) {
        const Segment *s = &pass->segments[i];
        const KvCache *cache = memory_cache(s->memory, call->layer);
        list[i] = problem_of(call, &b, row, s->n, cache, s->n);
        list[i].slopes = w->slopes;
        list[i].mask = (AttnMask){.causal = !pass->config->bidirectional && !s->visible,
                                  .window = kvcache_window(cache),
                                  .chunk = call->kind->chunked ? call->kind->window : 0,
                                  .n_sinks = kvcache_sinks(cache),
                                  .sink_logits = w->sinks,
                                  .bitmap = s->visible,
                                  .block = 1,
                                  .bitmap_stride = s->stride,
                                  .pattern = call->kind->blocks};
        list[i].mask.pattern.seed = call->layer;
    }
    mixer_attend(call, list);
    if (call->kind->gated) {
        Gates gates = {.att = b.att, .gate = b.gate, .width = kind_out_dim(call->kind)};
        mixer_rows(pass, (int)gates.width, apply_gates, &gates);
    }
    float scale = pass->config->attn_out_scale;
    if (scale > 0) ops_scale(pass->compute, b.att, pass->n, (int)kind_out_dim(call->kind), scale);
    project_out(w, call, b.att);
}

// ---- cross-attention

void cross_store(const AttentionWeights *w, const MixerCall *call) {
    const Pass *pass = call->pass;
    AttentionBuffers b = buffers_of(pass, call->kind);
    Linear kv[] = {{.w = &w->k.w, .y = b.k, .bias = w->k.bias}, {.w = &w->v.w, .y = b.v, .bias = w->v.bias}};
    ops_linear(pass->compute, kv, 2, call->x, pass->n);
    for (int i = 0, row = 0; i < pass->n_segments; row += pass->segments[i++].n) {
        const Segment *s = &pass->segments[i];
        kvcache_store(memory_cache(s->memory, call->layer), pass->compute->pool, s->n,
                      b.k + row * kind_k_dim(call->kind), b.v + row * kind_v_dim(call->kind));
    }
}

void cross_forward(const AttentionWeights *w, const MixerCall *call) {
    const Pass *pass = call->pass;
    AttentionBuffers b = buffers_of(pass, call->kind);
    Attention list[MAX_SEGMENTS];
    ops_linear(pass->compute, &(Linear){.w = &w->q.w, .y = b.q, .bias = w->q.bias}, 1, call->x, pass->n);
    for (int i = 0, row = 0; i < pass->n_segments; row += pass->segments[i++].n) {
        const Segment *s = &pass->segments[i];
        list[i] = problem_of(call, &b, row, s->n, memory_cache(s->cross, call->layer), 0);
    }
    mixer_attend(call, list);
    project_out(w, call, b.att);
}

const Mixer mixer_attention = {
    .name = "attention",
    .weights_size = sizeof(AttentionWeights),
    .bind = attention_bind,
    .token_bytes = attention_token_bytes,
    .scratch = attention_scratch,
    .reserve = reserve,
    .widest_input = widest_input,
    .forward = attention_forward,
};
