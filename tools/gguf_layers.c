// gguf_layers: the tensors of a decoder in the order of a forward pass. See gguf_model.h.
#include "gguf_recurrent.h"

#include "cli.h"
#include "mix_latent.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

// ---- attention

// Rows of query or key heads, reordered where the family's GGUF files have interleaved RoPE and this model does not.
// The same for every kind of layer.
static Rows head_rows(const List *l, int64_t n) {
    LayerKind base;
    config_rules(decoder_config(l->d), &base);
    bool reorder = base.rope.pairing == ROPE_HALF && l->f->gguf_pairing == ROPE_INTERLEAVED;
    return (Rows){.n = n,
                  .group = base.k_dim,
                  .pitch = base.k_dim,
                  .head = base.k_dim,
                  .n_paired = reorder ? base.rope.rotary_dim : 0};
}

static void add_heads(List *l, const LayerKind *kind, const AttentionWeights *a) {
    const Config *c = decoder_config(l->d);
    int64_t hd = kind->k_dim;
    Slice heads[] = {{&a->q, head_rows(l, (kind->gated ? 2 : 1) * kind_q_dim(kind))},
                     {&a->k, head_rows(l, kind_k_dim(kind))},
                     list_slice(&a->v, kind_v_dim(kind))};
    if (dense_exists(&a->qkv)) { // [n_kv_heads][queries, k, v][k_dim]
        int64_t group = kind->n_heads / kind->n_kv_heads, firsts[] = {0, group, group + 1};
        for (int i = 0; i < 3; i++) {
            heads[i].dense = &a->qkv;
            heads[i].rows.group = i ? hd : group * hd;
            heads[i].rows.first = firsts[i] * hd;
            heads[i].rows.pitch = (group + 2) * hd;
        }
    }
    if (l->f->gguf_fused_qkv) {
        list_matrix(l, (Matrix){.part = "attn_qkv", .cols = c->dim, .n = 3, .slices = heads, .bias = c->qkv_bias});
        return;
    }
    static const char *const parts[] = {"attn_q", "attn_k", "attn_v"};
    for (int i = 0; i < 3; i++) list_dense(l, parts[i], heads[i], c->dim, c->qkv_bias);
}

// Weights of every head.
static void add_own_norm(List *l, const char *part, const Norm *norm, int64_t dim) {
    Part p = {.as = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {norm->n_heads, dim}}};
    Rows rows = list_slice(NULL, norm->n_heads).rows;
    rows.from = (Tensor){.dtype = DTYPE_F32, .n_dims = 2, .shape = {norm->n_heads, dim}, .data = norm->weight};
    arrput(p.rows, rows);
    list_add(l, part, ".weight", p);
}

static void add_attention(List *l, const LayerKind *kind, const AttentionWeights *a) {
    const Config *c = decoder_config(l->d);
    bool full = c->qk_norm == QK_NORM_FULL;
    add_heads(l, kind, a);
    list_dense(l, "attn_output", list_slice(&a->out, c->dim), (int64_t)kind->n_heads * kind->v_dim, c->out_bias);
    if (c->qk_norm == QK_NORM_OWN) {
        add_own_norm(l, "attn_q_norm", &a->q_norm, kind->k_dim);
        add_own_norm(l, "attn_k_norm", &a->k_norm, kind->k_dim);
    } else if (c->qk_norm && c->qk_norm != QK_NORM_BARE) {
        list_norm(l, "attn_q_norm", &a->q_norm, head_rows(l, full ? kind_q_dim(kind) : kind->k_dim), false);
        list_norm(l, "attn_k_norm", &a->k_norm, head_rows(l, full ? kind_k_dim(kind) : kind->k_dim), false);
    }
    if (c->learned_sinks) list_vector(l, "attn_sinks", ".weight", a->sinks, list_slice(NULL, kind->n_heads).rows);
}

// The matrices of all heads, W_k of each transposed, or both of a head in turn.
static void add_up_projections(List *l, const LayerKind *kind, const LatentWeights *w) {
    int64_t rank = kind->v_dim, nope = kind->latent.nope_dim, value = kind->latent.value_dim;
    if (l->f->gguf_joint_latent || w->gguf_joint) {
        list_dense(l, "attn_kv_b", list_slice(&w->v_b, kind->n_heads * (nope + value)), rank, false);
        return;
    }
    Slice *keys = NULL, *values = NULL;
    for (int h = 0; h < kind->n_heads; h++) {
        Slice k = list_slice(&w->k_b, rank), v = list_slice(&w->v_b, value);
        k.rows.first = h * rank;
        v.rows.first = w->v_first + (int64_t)h * w->v_pitch;
        arrput(keys, k);
        arrput(values, v);
    }
    list_matrix(l, (Matrix){.part = "attn_k_b", .cols = nope, .n = kind->n_heads, .slices = keys, .stacked = true});
    list_matrix(l, (Matrix){.part = "attn_v_b", .cols = rank, .n = kind->n_heads, .slices = values, .stacked = true});
    arrfree(keys);
    arrfree(values);
}

static void add_latent(List *l, const LayerKind *kind, const LatentWeights *w) {
    const Config *c = decoder_config(l->d);
    int64_t q_rank = kind->latent.q_rank, queries = (int64_t)kind->n_heads * kind_head_dim(kind);
    if (q_rank) {
        list_dense(l, "attn_q_a", list_slice(&w->q_a, q_rank), c->dim, c->qkv_bias);
        list_norm(l, "attn_q_a_norm", &w->q_norm, list_slice(NULL, q_rank).rows, false);
        list_dense(l, "attn_q_b", list_slice(&w->q, queries), q_rank, false);
    } else {
        list_dense(l, "attn_q", list_slice(&w->q, queries), c->dim, false);
    }
    list_dense(l, "attn_kv_a_mqa", list_slice(&w->kv_a, kind->k_dim), c->dim, c->qkv_bias);
    list_norm(l, "attn_kv_a_norm", &w->kv_norm, list_slice(NULL, kind->v_dim).rows, false);
    add_up_projections(l, kind, w);
    list_dense(l, "attn_output", list_slice(&w->out, c->dim), (int64_t)kind->n_heads * kind->latent.value_dim,
               c->out_bias);
}

static void add_beside(List *l, const LayerKind *kind, const BesideWeights *w) {
    add_attention(l, kind, &w->attention);
    add_ssm(l, &kind->state, &w->ssm);
}

// ---- layers

static void add_mixer(List *l, const LayerKind *kind, const void *weights) {
    if (kind->mixer == MIX_DELTA) add_delta(l, kind, weights);
    else if (kind->mixer == MIX_CONV) add_short_convolution(l, kind, weights);
    else if (kind->mixer == MIX_RWKV7) add_rwkv7(l, weights);
    else if (kind->mixer == MIX_RWKV6) add_rwkv6(l, kind, weights);
    else if (kind->mixer == MIX_SSM) add_ssm(l, &kind->state, weights);
    else if (kind->mixer == MIX_SSM_ATTENTION) add_beside(l, kind, weights);
    else if (kind->mixer == MIX_MAMBA) add_mamba(l, &kind->state, weights);
    else if (kind->mixer == MIX_LATENT) add_latent(l, kind, weights);
    else add_attention(l, kind, weights);
}

static void add_network(List *l, const FeedForward *n, const char *gate, const char *up, const char *down,
                        int64_t hidden) {
    const Config *c = decoder_config(l->d);
    const Slice both[] = {list_slice(&n->gate, hidden), list_slice(&n->up, hidden)};
    if (l->f->gguf_fused_ffn && !c->plain_ffn) {
        list_matrix(l, (Matrix){.part = up, .cols = c->dim, .n = 2, .slices = both, .bias = c->ffn_bias});
    } else {
        if (!c->plain_ffn) list_dense(l, gate, both[0], c->dim, c->ffn_bias);
        list_dense(l, up, both[1], c->dim, c->ffn_bias);
    }
    list_dense(l, down, list_slice(&n->down, c->dim), hidden, c->ffn_bias);
}

// One matrix of every expert, at `offset` of its FeedForward. alternate: every second row, from 0 or (odd) from 1.
static void add_expert_matrix(List *l, const char *part, const FeedForward *list, size_t offset, int64_t rows,
                              int64_t cols, bool alternate, bool odd) {
    const Config *c = decoder_config(l->d);
    Slice *slices = NULL;
    for (int e = 0; e < c->n_experts; e++) {
        Slice s = list_slice((const Dense *)(const void *)((const char *)&list[e] + offset), rows);
        if (alternate) {
            s.rows.pitch = 2;
            s.rows.first = odd;
        }
        arrput(slices, s);
    }
    list_matrix(
        l, (Matrix){
               .part = part, .cols = cols, .n = c->n_experts, .slices = slices, .bias = c->ffn_bias, .stacked = true});
    arrfree(slices);
}

static void add_experts(List *l, const Experts *e) {
    const Config *c = decoder_config(l->d);
    int64_t dim = c->dim, hidden = config_expert_dim(c);
    bool mixed = e->list[0].interleaved;
    Slice router = list_slice(&e->router, c->n_experts), gate = list_slice(&e->shared_gate, 1);
    list_matrix(
        l, (Matrix){
               .part = "ffn_gate_inp", .cols = dim, .n = 1, .slices = &router, .bias = c->router_bias, .exact = true});
    size_t from = mixed ? offsetof(FeedForward, up) : offsetof(FeedForward, gate);
    if (!c->plain_ffn) add_expert_matrix(l, "ffn_gate_exps", e->list, from, hidden, dim, mixed, false);
    add_expert_matrix(l, "ffn_up_exps", e->list, offsetof(FeedForward, up), hidden, dim, mixed, true);
    add_expert_matrix(l, "ffn_down_exps", e->list, offsetof(FeedForward, down), dim, hidden, false, false);
    if (c->router_choice_bias) list_vector(l, "exp_probs_b", ".bias", e->choice_bias, router.rows);
    if (!c->shared_dim) return;
    add_network(l, &e->shared, "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", c->shared_dim);
    if (c->shared_ungated) return;
    Part p = {.as = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {dim}}};
    gate.rows.from = e->shared_gate.w;
    arrput(p.rows, gate.rows);
    list_add(l, "ffn_gate_inp_shexp", ".weight", p);
}

static void add_layer(List *l, int i) {
    const Config *c = decoder_config(l->d);
    const Layer *layer = &l->d->stack.layers[i];
    const LayerKind *kind = config_kind(c, i);
    l->layer = i;
    bool only = kind->mixer == MIX_NONE;
    if (!c->no_pre_norm) list_dim_norm(l, "attn_norm", only ? &layer->ffn_norms.input : &layer->mixer_norms.input);
    if (!only) add_mixer(l, kind, layer->mixer);
    if (c->post_norm) list_dim_norm(l, "post_attention_norm", &layer->mixer_norms.output);
    if (kind->ffn == FFN_NONE) return;
    bool shared = only || (c->parallel && c->shared_norm), bare = kind->mixer == MIX_SSM_ATTENTION;
    if (bare)
        list_vector(l, "ffn_norm", "", layer->ffn_norms.input.weight,
                    list_slice(NULL, c->dim).rows); // Falcon-H1's name
    else if (!c->no_pre_norm && !shared) list_dim_norm(l, "ffn_norm", &layer->ffn_norms.input);
    if (kind->ffn == FFN_EXPERTS) add_experts(l, &layer->experts);
    else if (kind->ffn == FFN_CHANNEL_MIX) add_channel_mix(l, &layer->channel_mix);
    else add_network(l, &layer->ffn, "ffn_gate", "ffn_up", "ffn_down", c->hidden_dim);
    if (c->post_norm) list_dim_norm(l, "post_ffw_norm", &layer->ffn_norms.output);
}

// The divisor of each frequency in Llama 3.1's scaling.
static void add_llama3_factors(List *l, const RopeConfig *rope) {
    RopeConfig plain = *rope;
    plain.scaling.kind = ROPE_UNSCALED;
    Rope scaled = gguf_rope(rope), whole = gguf_rope(&plain);
    Part p = {.as = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {scaled.n}}, .made = malloc(sizeof(float) * scaled.n)};
    if (!p.made) die(1, "out of memory for %d frequencies", scaled.n);
    for (int i = 0; i < scaled.n; i++) p.made[i] = (float)(whole.frequency[i] / scaled.frequency[i]);
    Rows rows = list_slice(NULL, scaled.n).rows;
    rows.from = list_column(p.made, scaled.n);
    arrput(p.rows, rows);
    rope_close(&scaled);
    rope_close(&whole);
    list_add(l, "rope_freqs", ".weight", p);
}

static void add_factors(List *l) {
    LayerKind base;
    config_rules(decoder_config(l->d), &base);
    const RopeFactors *factors = &l->d->rope_factors;
    Rows rows = list_slice(NULL, base.rope.rotary_dim / 2).rows;
    if (base.rope.scaling.kind == ROPE_LLAMA3) add_llama3_factors(l, &base.rope);
    else if (factors->all) list_vector(l, "rope_freqs", ".weight", factors->all, rows);
    if (factors->long_ctx) list_vector(l, "rope_factors_long", ".weight", factors->long_ctx, rows);
    if (factors->short_ctx) list_vector(l, "rope_factors_short", ".weight", factors->short_ctx, rows);
}

static void add_table(List *l, const char *part, const Tensor *t) {
    Dense table = {.w = t ? *t : (Tensor){0}};
    list_dense(l, part, list_slice(&table, decoder_config(l->d)->vocab_size), decoder_config(l->d)->dim, false);
}

Part *gguf_model_parts(GgufWriter *w, const Family *f, const Decoder *d, GgufMix mix, TypeCount *count) {
    const Config *c = decoder_config(d);
    LayerKind k;
    config_rules(c, &k);
    List l = {.w = w, .f = f, .d = d, .mix = mix, .count = count, .layer = -1};
    l.model = (MixModel){c->n_layers, c->n_experts, k.n_kv_heads ? k.n_heads / k.n_kv_heads : 1, c->tied};
    add_table(&l, "token_embd", d->embedding.table);
    if (c->learned_positions) {
        Dense table = {.w = {.n_dims = 2, .shape = {c->max_seq_len, c->dim}, .data = d->embedding.positions}};
        Slice all = list_slice(&table, c->max_seq_len);
        list_matrix(&l, (Matrix){.part = "position_embd", .cols = c->dim, .n = 1, .slices = &all, .exact = true});
    }
    add_factors(&l);
    for (int i = 0; i < c->n_layers; i++) add_layer(&l, i);
    l.layer = -1;
    if (c->embedding_norm) list_dim_norm(&l, "token_embd_norm", &d->embedding.norm);
    list_dim_norm(&l, "output_norm", &d->output_norm);
    if (!c->tied) add_table(&l, "output", d->output);
    if (c->output_bias) list_vector(&l, "output", ".bias", d->output_bias, list_slice(NULL, c->vocab_size).rows);
    return l.parts;
}
