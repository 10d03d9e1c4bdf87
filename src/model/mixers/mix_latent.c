// mix_latent: see mix_latent.h.
#include "mix_latent.h"

#include <math.h>
#include <string.h>

static int rank_of(const LayerKind *kind) {
    return kind->v_dim;
}

static int64_t out_width(const LayerKind *kind) {
    return (int64_t)kind->n_heads * kind->latent.value_dim;
}

static int64_t query_width(const LayerKind *kind) {
    return (int64_t)kind->n_heads * kind_head_dim(kind);
}

// ---- binding

// A matrix of every head, one behind the other: in three dimensions, or in two.
static void bind_stacked(Binder *b, Dense *dense, const char *part, int64_t heads, int64_t rows, int64_t cols) {
    const int64_t shape[] = {heads, rows, cols};
    const Tensor *found = bind_find(b, part, -1, ".weight");
    const Tensor *t = found && found->n_dims == 2 ? bind_matrix(b, part, -1, heads * rows, cols)
                                                  : bind_shape(b, part, ".weight", DTYPE_ANY, shape, 3);
    if (!t) return;
    dense->w = *t;
    dense->w.n_dims = 2;
    dense->w.shape[0] = heads * rows;
    dense->w.shape[1] = cols;
}

// W_k^T of every head from kv_b, whose rows interleave the heads' W_k and W_v.
static void transpose_keys(Binder *b, Dense *to, const Tensor *kv_b, const LayerKind *kind) {
    size_t size = kv_b->dtype == DTYPE_F32 ? sizeof(float) : sizeof(uint16_t);
    int64_t rank = rank_of(kind), nope = kind->latent.nope_dim, step = nope + kind->latent.value_dim;
    char *all = weights_own(b->weights, size * (size_t)(kind->n_heads * rank * nope));
    if (!all) {
        binder_fail(b, "out of memory for the keys' matrices of %d heads", kind->n_heads);
        return;
    }
    for (int64_t i = 0; i < kind->n_heads * nope; i++) {
        int64_t head = i / nope, dim = i % nope;
        const char *row = (const char *)kv_b->data + (size_t)((head * step + dim) * rank) * size;
        for (int64_t j = 0; j < rank; j++)
            memcpy(all + (size_t)((head * rank + j) * nope + dim) * size, row + (size_t)j * size, size);
    }
    to->w = (Tensor){.dtype = kv_b->dtype, .n_dims = 2, .shape = {kind->n_heads * rank, nope}, .data = all};
}

// Both matrices apart, or W_k and W_v of each head in one tensor; some files have it three times over. Blocks lie along
// the rows of W_k, which stay as they are.
static void bind_up_projections(Binder *b, LatentWeights *w, const LayerKind *kind) {
    int rank = rank_of(kind), nope = kind->latent.nope_dim, value = kind->latent.value_dim;
    const Tensor *both = NULL;
    bool apart = bind_find(b, "attn_k_b", -1, ".weight") && bind_find(b, "attn_v_b", -1, ".weight");
    if (!apart || bind_find(b, "attn_kv_b", -1, ".weight")) {
        both = bind_matrix(b, "attn_kv_b", -1, (int64_t)kind->n_heads * (nope + value), rank);
    }
    if (apart) {
        bind_stacked(b, &w->k_b, "attn_k_b", kind->n_heads, rank, nope);
        bind_stacked(b, &w->v_b, "attn_v_b", kind->n_heads, value, rank);
        w->v_pitch = value;
    } else if (both) {
        if (dtype_info(both->dtype)->block <= 1) transpose_keys(b, &w->k_b, both, kind);
        w->v_b.w = *both;
        w->v_first = nope;
        w->v_pitch = nope + value;
        w->gguf_joint = !b->hf_names;
    }
}

static void latent_bind(Binder *b, void *weights, const LayerKind *kind) {
    LatentWeights *w = weights;
    const Config *c = b->config;
    int q_rank = kind->latent.q_rank;
    if (q_rank) {
        bind_dense(b, &w->q_a, "attn_q_a", q_rank, c->dim, c->qkv_bias);
        w->q_norm.weight = bind_vector(b, "attn_q_a_norm", ".weight", q_rank);
        bind_dense(b, &w->q, "attn_q_b", query_width(kind), q_rank, false);
    } else {
        bind_dense(b, &w->q, "attn_q", query_width(kind), c->dim, false);
    }
    bind_dense(b, &w->kv_a, "attn_kv_a_mqa", kind->k_dim, c->dim, c->qkv_bias);
    w->kv_norm.weight = bind_vector(b, "attn_kv_a_norm", ".weight", rank_of(kind));
    bind_up_projections(b, w, kind);
    bind_dense(b, &w->out, "attn_output", c->dim, out_width(kind), c->out_bias);
}

static uint64_t latent_token_bytes(const void *weights) {
    const LatentWeights *w = weights;
    return dense_bytes(&w->q) + dense_bytes(&w->q_a) + dense_bytes(&w->kv_a) + dense_bytes(&w->k_b) +
           dense_bytes(&w->v_b) + dense_bytes(&w->out);
}

// ---- scratch

typedef struct {
    float *q_latent; // [n][q_rank]
    float *q;        // [n][n_heads][nope_dim + rotary]
    float *absorbed; // [n][n_heads][rank + rotary]: queries of the latent
    float *kv;       // [n][rank + rotary]
    float *att;      // [n][n_heads][rank]
    float *out;      // [n][n_heads][value_dim]
} LatentBuffers;

static size_t lay_out(LatentBuffers *b, float *at, const LayerKind *kind, int n) {
    float **const slots[] = {&b->q_latent, &b->q, &b->absorbed, &b->kv, &b->att, &b->out};
    const int64_t widths[] = {
        kind->latent.q_rank, query_width(kind), kind_q_dim(kind), kind->k_dim, (int64_t)kind->n_heads * kind->v_dim,
        out_width(kind)};
    size_t used = 0;
    for (int i = 0; i < 6; i++) {
        *slots[i] = at + used;
        used += scratch_floats(n * widths[i]);
    }
    return used;
}

static size_t latent_scratch(const LayerKind *kind) {
    LatentBuffers unused;
    float nothing;
    return lay_out(&unused, &nothing, kind, 1);
}

static int latent_reserve(Compute *c, const LayerKind *kind, char *err, size_t errlen) {
    return attention_reserve(c, kind->n_heads, 1, kind->k_dim, kind->v_dim, err, errlen);
}

// Of all heads side by side, as their matrices read them.
static int latent_widest_input(const LayerKind *kind) {
    int64_t widths[] = {query_width(kind), (int64_t)kind->n_heads * kind->v_dim, out_width(kind), kind->latent.q_rank};
    int64_t widest = 0;
    for (int i = 0; i < 4; i++) widest = widths[i] > widest ? widths[i] : widest;
    return (int)widest;
}

// ---- forward

typedef struct {
    const LatentWeights *weights;
    const MixerCall *call;
    LatentBuffers b;
    float eps; // of the latents' norms
} Latent;

static void project(const Latent *l) {
    const LatentWeights *w = l->weights;
    const Pass *pass = l->call->pass;
    bool two = dense_exists(&w->q_a);
    const Dense *first = two ? &w->q_a : &w->q;
    Linear list[] = {{.w = &first->w, .y = two ? l->b.q_latent : l->b.q, .bias = first->bias},
                     {.w = &w->kv_a.w, .y = l->b.kv, .bias = w->kv_a.bias}};
    ops_linear(pass->compute, list, 2, l->call->x, pass->n);
    if (!two) return;
    ops_norm(pass->compute, l->b.q_latent, l->b.q_latent, &w->q_norm, pass->n, l->call->kind->latent.q_rank, l->eps);
    ops_linear(pass->compute, &(Linear){.w = &w->q.w, .y = l->b.q}, 1, l->b.q_latent, pass->n);
}

static void absorb(const Latent *l) {
    const LayerKind *kind = l->call->kind;
    const LatentWeights *w = l->weights;
    bool own = dense_exists(&w->k_b);
    ops_linear_heads(l->call->pass->compute,
                     &(HeadsLinear){.w = own ? &w->k_b.w : &w->v_b.w,
                                    .heads = kind->n_heads,
                                    .pitch = own ? rank_of(kind) : w->v_pitch,
                                    .n_rows = own ? rank_of(kind) : kind->latent.nope_dim,
                                    .x = l->b.q,
                                    .x_ld = query_width(kind),
                                    .x_head = kind_head_dim(kind),
                                    .y = l->b.absorbed,
                                    .y_ld = kind_q_dim(kind),
                                    .y_head = kind->k_dim,
                                    .transposed = !own},
                     l->call->pass->n);
}

// The rotary parts of queries and keys, and the norm of the latents.
static void prepare_rows(void *context, int row, int n) {
    const Latent *l = context;
    const Pass *pass = l->call->pass;
    const LayerKind *kind = l->call->kind;
    int rank = rank_of(kind), rotary = kind->rope.rotary_dim;
    for (int64_t t = row; t < row + n; t++) {
        const float *table = pass->rope_tables[l->call->kind_index] + t * rotary;
        float *kv = l->b.kv + t * kind->k_dim;
        pass->compute->kernels->rmsnorm(kv, kv, l->weights->kv_norm.weight, rank, l->eps);
        rope_rotate(kv + rank, 0, table, rotary / 2, kind->rope.pairing, 1);
        for (int64_t h = 0; h < kind->n_heads; h++) {
            const float *q = l->b.q + t * query_width(kind) + h * kind_head_dim(kind) + kind->latent.nope_dim;
            float *to = l->b.absorbed + t * kind_q_dim(kind) + h * kind->k_dim + rank;
            memcpy(to, q, sizeof *to * (size_t)rotary);
            rope_rotate(to, 0, table, rotary / 2, kind->rope.pairing, 1);
        }
    }
}

static void attend(const Latent *l) {
    const Pass *pass = l->call->pass;
    const LayerKind *kind = l->call->kind;
    const Config *c = pass->config;
    Attention list[MAX_SEGMENTS];
    int64_t row = 0;
    for (int i = 0; i < pass->n_segments; row += pass->segments[i++].n) {
        const Segment *s = &pass->segments[i];
        KvCache *cache = memory_cache(s->memory, l->call->layer);
        const float *kv = l->b.kv + row * kind->k_dim;
        kvcache_store_head(cache, 0, 0, s->n, &(KvRows){.k = kv, .v = kv, .k_ld = kind->k_dim, .v_ld = kind->k_dim});
        int n_keys = kvcache_length(cache) + s->n;
        list[i] = (Attention){.q = l->b.absorbed + row * kind_q_dim(kind),
                              .out = l->b.att + row * kind->n_heads * kind->v_dim,
                              .n_q = s->n,
                              .n_heads = kind->n_heads,
                              .pos0 = n_keys - s->n,
                              .n_keys = n_keys,
                              .scale = c->attn_scale > 0 ? c->attn_scale : 1 / sqrtf((float)kind_head_dim(kind)),
                              .kv = kvcache_view(cache),
                              .mask = {.causal = !s->visible,
                                       .window = kvcache_window(cache),
                                       .n_sinks = kvcache_sinks(cache),
                                       .bitmap = s->visible,
                                       .block = 1,
                                       .bitmap_stride = s->stride}};
    }
    mixer_attend(l->call, list);
}

static void project_out(const Latent *l) {
    const LatentWeights *w = l->weights;
    const MixerCall *call = l->call;
    const LayerKind *kind = call->kind;
    ops_linear_heads(call->pass->compute,
                     &(HeadsLinear){.w = &w->v_b.w,
                                    .heads = kind->n_heads,
                                    .first = w->v_first,
                                    .pitch = w->v_pitch,
                                    .n_rows = kind->latent.value_dim,
                                    .x = l->b.att,
                                    .x_ld = (int64_t)kind->n_heads * kind->v_dim,
                                    .x_head = kind->v_dim,
                                    .y = l->b.out,
                                    .y_ld = out_width(kind),
                                    .y_head = kind->latent.value_dim},
                     call->pass->n);
    Linear out = {.w = &w->out.w, .y = call->y, .add = call->add, .bias = w->out.bias};
    ops_linear(call->pass->compute, &out, 1, l->b.out, call->pass->n);
}

static void latent_forward(const void *weights, const MixerCall *call) {
    const Config *c = call->pass->config;
    Latent l = {.weights = weights, .call = call, .eps = c->latent_eps > 0 ? c->latent_eps : c->norm_eps};
    lay_out(&l.b, call->pass->scratch, call->kind, call->pass->n);
    project(&l);
    absorb(&l);
    mixer_rows(call->pass, (int)kind_q_dim(call->kind), prepare_rows, &l);
    attend(&l);
    project_out(&l);
}

const Mixer mixer_latent = {
    .name = "latent attention",
    .weights_size = sizeof(LatentWeights),
    .bind = latent_bind,
    .token_bytes = latent_token_bytes,
    .scratch = latent_scratch,
    .reserve = latent_reserve,
    .widest_input = latent_widest_input,
    .forward = latent_forward,
};
