// gguf_model: see gguf_model.h. Source of keys, names and orders: github.com/ggml-org/llama.cpp, gguf-py/gguf and
// convert_hf_to_gguf.py.
#include "gguf_model.h"

#include "cli.h"
#include "fields.h"
#include "mix_conv.h"
#include "mix_delta.h"
#include "mix_rwkv6.h"
#include "mix_rwkv7.h"
#include "mix_latent.h"
#include "mix_mamba.h"
#include "mix_ssm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

const Family *gguf_model_family(const Model *m) {
    const char *arch = m->family ? m->family->arch : "llama"; // llama2.c's files
    if (m->family && m->family->expert_arch && m->config.n_experts) arch = m->family->expert_arch;
    const Family *f = family_of_arch(arch, strlen(arch));
    return m->family && m->family == f->two_norms ? m->family : f;
}

static bool is_period(const LayerSet *set, int period, int n_layers) {
    for (int i = 0; i < n_layers; i++) {
        if (layers_have(set, i) != (period && (i + 1) % period == 0)) return false;
    }
    return true;
}

static bool same_scale(const Family *f, const Config *c, const LayerKind *base) {
    bool big = f->big_layers && c->n_layers == f->big_layers;
    float standard = 1 / sqrtf(big ? (float)c->dim / (float)base->n_heads : (float)base->k_dim);
    return c->attn_scale <= 0 || fabsf(c->attn_scale / standard - 1) < 1e-6f;
}

// Latent attention's scores and YaRN: both follow from one number, or from none.
static bool sound_latent(const LayerKind *k, const Config *c) {
    const RopeScaling *s = &k->rope.scaling;
    bool scaled = c->attn_scale > 0, yarn = s->kind == ROPE_YARN;
    return yarn ? (scaled ? s->attention_factor == 1 : !(s->attention_factor > 0)) : !scaled;
}

// GGUF has no keys for these.
static bool usual_depth_scales(const Config *c) {
    float depth = 1.4f / sqrtf((float)c->n_layers), logits = 256 / (float)c->dim;
    return c->embedding_scale == 12 && fabsf(c->residual_scale / depth - 1) < 1e-6f &&
           fabsf(c->logit_scale / logits - 1) < 1e-6f;
}

static Activation activation(const Config *c) {
    return c->activation ? c->activation : ACT_SILU;
}

static bool same_heads(const LayerRules *rules) {
    for (int i = 0; i < MAX_LAYERS; i++) {
        if (rules->n_heads[i] || rules->n_kv_heads[i]) return false;
    }
    return true;
}

// The kinds of layers for which add_mixer has a function.
static bool is_written(MixerKind mixer) {
    return mixer != MIX_GLA && mixer != MIX_RETENTION && mixer != MIX_LINEAR;
}

const char *gguf_model_unwritten(const Config *c) {
    for (int i = 0; i < c->n_kinds; i++) {
        if (!is_written(c->kinds[i].mixer)) return mixer_of(c->kinds[i].mixer)->name;
    }
    return NULL;
}

// The eps of the norms over heads, which GGUF fixes, and tensors that its files always have.
static bool sound_rwkv(const Config *c) {
    const StateShape *s = &c->kinds[0].state;
    float eps = c->kinds[0].mixer == MIX_RWKV7 ? (float)s->v_dim * c->norm_eps : c->norm_eps;
    return fabsf(eps - 64e-5f) < 1e-8f && s->k_dim == s->v_dim && c->embedding_norm && !c->no_norm_bias;
}

const char *gguf_model_unsupported(const Family *f, const Config *c) {
    const Config *b = &f->base;
    LayerKind base;
    LayerRules rules = config_rules(c, &base);
    const RopeScaling *scaling = &base.rope.scaling;
    bool positions = !c->learned_positions && !(c->alibi_max > 0), full = f->global_nope && rules.window;
    bool latent = base.mixer == MIX_LATENT;
    bool unbiased = (b->qkv_bias && !c->qkv_bias) || (b->out_bias && !c->out_bias) || (b->ffn_bias && !c->ffn_bias);
    const struct {
        bool differs;
        const char *what;
    } list[] = {
        {c->ssm_scales[0] > 0, "multipliers that are not part of the weights"},
        {rules.window && !f->global_nope && !is_period(&rules.full, f->global_period, c->n_layers),
         "which layers have a window"},
        {positions && !full && !f->no_rope && !f->rope_if_asked && !is_period(&rules.nope, f->nope_period, c->n_layers),
         "which layers have rotary positions"},
        {!same_heads(&rules), "heads that differ between layers"},
        {scaling->kind == ROPE_DYNAMIC, "dynamic RoPE scaling"},
        {scaling->kind == ROPE_YARN && scaling->whole_dims == f->exact_yarn_borders,
         "the rounding of YaRN's range (truncate)"},
        {c->channel_mix && !sound_rwkv(c), "norms or heads of RWKV that differ from the usual"},
        {!f->no_attention && !f->multipliers && !latent && !same_scale(f, c, &base),
         "the scale of the attention scores"},
        {latent && !sound_latent(&base, c), "YaRN's magnitude and the scale of the attention scores"},
        {latent && base.rope.pairing != f->gguf_pairing, "half rotation with this latent attention"},
        {f->depth_scales && !usual_depth_scales(c), "scales of embedding, depth and logits other than MiniCPM 3's"},
        {activation(c) != activation(b), "an activation that differs from the family's"},
        {c->ffn_clamp != b->ffn_clamp, "a feed-forward clamp that differs from the family's"},
        {c->temperature > 0 && c->temperature_ctx != scaling->original_ctx, "an attention temperature without YaRN"},
        {unbiased, "linear layers without biases"},
        {c->step_max > 0, "limits of the step sizes"},
        {c->step_norm_eps > 0 && c->step_norm_eps != c->norm_eps, "an eps of its own of the norms of step sizes"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        if (list[i].differs) return list[i].what;
    }
    return NULL;
}

// "<arch>.<name>", valid until the next call.
static const char *key(const Family *f, const char *name) {
    static char text[120];
    snprintf(text, sizeof text, "%s.%s", f->arch, name);
    return text;
}

static void set_int(GgufWriter *w, const Family *f, const char *name, int value) {
    gguf_u32(w, key(f, name), (uint32_t)value);
}

static void set_real(GgufWriter *w, const Family *f, const char *name, float value) {
    gguf_f32(w, key(f, name), value);
}

static Rope open_rope(const RopeConfig *c) {
    char err[100];
    Rope r;
    if (rope_open(&r, c, 1, NULL, err, sizeof err)) die(1, "%s", err);
    return r;
}

static void put_scaling(GgufWriter *w, const Family *f, const Config *c, const RopeConfig *rope) {
    const RopeScaling *s = &rope->scaling;
    if (s->kind == ROPE_UNSCALED || s->kind == ROPE_LLAMA3) return; // the latter is the tensor rope_freqs
    static const char *const names[] = {[ROPE_LINEAR] = "linear", [ROPE_YARN] = "yarn", [ROPE_LONG] = "longrope"};
    gguf_text(w, key(f, "rope.scaling.type"), names[s->kind]);
    set_int(w, f, "rope.scaling.original_context_length", s->original_ctx);
    if (s->kind == ROPE_LONG) { // no factor: other readers would apply it again
        Rope r = open_rope(rope);
        set_real(w, f, "rope.scaling.attn_factor", r.magnitude);
        rope_close(&r);
        return;
    }
    set_real(w, f, "rope.scaling.factor", s->factor);
    if (s->kind == ROPE_LINEAR) return;
    set_real(w, f, "rope.scaling.yarn_beta_fast", s->beta_fast);
    set_real(w, f, "rope.scaling.yarn_beta_slow", s->beta_slow);
    if (c->temperature > 0) set_real(w, f, "attention.temperature_scale", c->temperature);
    const LayerKind *k = &c->kinds[0];
    if (k->mixer == MIX_LATENT) {
        float square = c->attn_scale * sqrtf((float)kind_head_dim(k));
        if (square > 0) set_real(w, f, "rope.scaling.yarn_log_multiplier", (sqrtf(square) - 1) / logf(s->factor));
        return;
    }
    float paper = 0.1f * logf(s->factor) + 1; // readers multiply it with the setting
    if (s->attention_factor > 0) set_real(w, f, "rope.scaling.attn_factor", s->attention_factor / paper);
}

// Which layers have a window.
static void put_pattern(GgufWriter *w, const Family *f, const Config *c) {
    gguf_array(w, key(f, "attention.sliding_window_pattern"), GGUF_BOOL, (uint64_t)c->n_layers);
    for (int i = 0; i < c->n_layers; i++) gguf_array_bytes(w, &(uint8_t){config_kind(c, i)->window > 0}, 1);
}

// Factors of the embedding, the scores, the residual connections and the logits; ALiBi.
static void put_scales(GgufWriter *w, const Family *f, const Config *c) {
    if (f->multipliers) {
        set_real(w, f, "attention.scale", c->attn_scale);
        set_real(w, f, "embedding_scale", c->embedding_scale);
        set_real(w, f, "residual_scale", c->residual_scale);
        if (c->logit_scale > 0) set_real(w, f, "logit_scale", 1 / c->logit_scale);
    }
    if (f->logit_scale) set_real(w, f, "logit_scale", c->logit_scale);
    if (!f->attn_config) return;
    set_real(w, f, "attention.max_alibi_bias", c->alibi_max);
    if (c->qkv_clamp > 0) set_real(w, f, "attention.clamp_kqv", c->qkv_clamp);
}

// How many pairs of dimensions rotate by the time, the height and the width of a picture's part, which are all the
// position of a text's token. Other readers need it.
static void put_sections(GgufWriter *w, const Family *f, int n_pairs) {
    const int32_t sections[] = {(n_pairs + 2) / 3, (n_pairs + 1) / 3, n_pairs / 3, 0};
    gguf_array(w, key(f, "rope.dimension_sections"), GGUF_I32, 4);
    for (int i = 0; i < 4; i++) gguf_array_bytes(w, &sections[i], sizeof sections[i]);
}

static void put_positions(GgufWriter *w, const Family *f, const Config *c) {
    LayerKind base;
    LayerRules rules = config_rules(c, &base);
    if (rules.window || f->gguf_window) set_int(w, f, "attention.sliding_window", rules.window);
    if (f->global_nope && rules.window) put_pattern(w, f, c);
    if (f->rope_if_asked) gguf_bool(w, key(f, "rope.scaling.finetuned"), base.rope.rotary_dim > 0);
    if (c->learned_positions || c->alibi_max > 0 || f->no_rope || !base.rope.rotary_dim) return;
    set_int(w, f, "rope.dimension_count", base.rope.rotary_dim);
    set_real(w, f, "rope.freq_base", base.rope.theta);
    if (f->window_theta > 0) {
        set_real(w, f, "rope.freq_base_swa", rules.window_theta > 0 ? rules.window_theta : base.rope.theta);
    }
    if (f->gguf_tiled_heads) put_sections(w, f, base.rope.rotary_dim / 2);
    put_scaling(w, f, c, &base.rope);
}

static void put_fields(GgufWriter *w, const Family *f, const Field *list, int n) {
    for (int i = 0; i < n; i++) {
        if (*list[i].value) set_int(w, f, list[i].gguf, *list[i].value);
    }
}

static void put_latent(GgufWriter *w, const Family *f, const LayerKind *k) {
    bool joint = f->gguf_joint_latent;
    if (k->latent.q_rank) set_int(w, f, "attention.q_lora_rank", k->latent.q_rank);
    set_int(w, f, "attention.kv_lora_rank", k->v_dim);
    set_int(w, f, "attention.head_count_kv", joint ? k->n_heads : 1);
    set_int(w, f, "attention.key_length", joint ? kind_head_dim(k) : k->k_dim);
    set_int(w, f, "attention.value_length", joint ? k->latent.value_dim : k->v_dim);
    if (joint) return;
    set_int(w, f, "attention.key_length_mla", kind_head_dim(k));
    set_int(w, f, "attention.value_length_mla", k->latent.value_dim);
}

static void put_router(GgufWriter *w, const Family *f, const Config *c) {
    enum { SOFTMAX = 1, SIGMOID = 2 };
    int dense = 0;
    while (dense < c->n_layers && config_kind(c, dense)->ffn == FFN_DENSE) dense++;
    set_int(w, f, "leading_dense_block_count", dense);
    set_int(w, f, "expert_shared_count", c->shared_dim / config_expert_dim(c));
    set_real(w, f, "expert_weights_scale", c->experts_scale);
    set_int(w, f, "expert_gating_func", c->router_sigmoid ? SIGMOID : SOFTMAX);
    if (c->n_expert_groups < 2) return;
    set_int(w, f, "expert_group_count", c->n_expert_groups);
    set_int(w, f, "expert_group_used_count", c->n_groups_used);
}

// Key heads of each layer: 0 of those without attention.
static void put_key_heads(GgufWriter *w, const Family *f, const Config *c) {
    gguf_array(w, key(f, "attention.head_count_kv"), GGUF_U32, (uint64_t)c->n_layers);
    for (int i = 0; i < c->n_layers; i++) {
        uint32_t n = (uint32_t)config_kind(c, i)->n_kv_heads;
        gguf_array_bytes(w, &n, sizeof n);
    }
}

// Which layers are recurrent: all but the last of every so many, or a list.
static void put_recurrent_layers(GgufWriter *w, const Family *f, const Config *c, const LayerRules *rules) {
    LayerSet attention = {0};
    int period = 0;
    for (int i = c->n_layers; i-- > 0;) {
        if (layers_have(&rules->recurrent, i)) continue;
        layers_add(&attention, i);
        period = i + 1; // of the first
    }
    if (period && is_period(&attention, period, c->n_layers)) {
        set_int(w, f, "full_attention_interval", period);
        return;
    }
    gguf_array(w, key(f, "attention.recurrent_layers"), GGUF_BOOL, (uint64_t)c->n_layers);
    for (int i = 0; i < c->n_layers; i++) gguf_array_bytes(w, &(uint8_t){layers_have(&rules->recurrent, i)}, 1);
}

// What recurrent layers keep.
static void put_state(GgufWriter *w, const Family *f, const Config *c) {
    LayerKind base;
    LayerRules rules = config_rules(c, &base);
    Field list[MAX_FIELDS];
    put_fields(w, f, list, fields_of_state(&rules.state, f->mixer, list));
    if (f->mixer == MIX_CONV || c->channel_mix) return;
    set_int(w, f, "ssm.inner_size", rules.state.n_heads * rules.state.v_dim);
    if (f->mixer == MIX_DELTA) put_recurrent_layers(w, f, c, &rules);
    if (f->mixer != MIX_MAMBA) return;
    set_int(w, f, "ssm.time_step_rank", c->step_rank);
    if (f->no_attention) gguf_bool(w, key(f, "ssm.dt_b_c_rms"), c->step_norm_eps > 0);
}

// Widths of the feed-forward networks of each layer: 0 of those without.
static void put_hidden(GgufWriter *w, const Family *f, const Config *c) {
    gguf_array(w, key(f, "feed_forward_length"), GGUF_U32, (uint64_t)c->n_layers);
    for (int i = 0; i < c->n_layers; i++) {
        FfnKind kind = config_kind(c, i)->ffn;
        uint32_t n = (uint32_t)(kind == FFN_NONE ? 0 : kind == FFN_EXPERTS ? config_expert_dim(c) : c->hidden_dim);
        gguf_array_bytes(w, &n, sizeof n);
    }
}

static void put_sizes(GgufWriter *w, const Family *f, const Config *config) {
    Config c = *config; // the table points into it
    Field list[MAX_FIELDS];
    config_rules(config, &c.kinds[0]);
    put_fields(w, f, list, fields_of_shape(&c, f, list));
    if (c.kinds[0].mixer == MIX_LATENT) {
        put_latent(w, f, &c.kinds[0]);
    } else if (!f->no_attention) {
        if (f->zeros_by_layer) put_key_heads(w, f, config);
        else set_int(w, f, "attention.head_count_kv", c.kinds[0].n_kv_heads);
        set_int(w, f, "attention.key_length", c.kinds[0].k_dim);
        set_int(w, f, "attention.value_length", c.kinds[0].v_dim);
    }
    if (f->no_attention && !c.channel_mix) set_int(w, f, "attention.head_count", 0); // other readers need it
    if (c.n_experts) c.expert_dim = config_expert_dim(&c);
    if (f->one_sublayer) put_hidden(w, f, config);
    if (f->no_feed_forward) {
        set_int(w, f, "feed_forward_length", 0); // the same
        return;
    }
    const Field *fields = list + f->one_sublayer; // the first is the width of feed-forward layers
    put_fields(w, f, fields, fields_of_feed_forward(&c, f, list) - f->one_sublayer);
    if (c.n_experts) gguf_bool(w, key(f, "expert_weights_norm"), !c.experts_keep_softmax);
    if (c.n_experts && f->router) put_router(w, f, config);
}

static int rank_of(const LowRank *map) {
    return (int)map->down.w.shape[0];
}

// The ranks are those of the second layer, which has all of them.
static void put_rwkv(GgufWriter *w, const Family *f, const Decoder *d) {
    const Config *c = decoder_config(d);
    const Layer *layer = &d->stack.layers[c->n_layers > 1];
    set_int(w, f, "attention.head_count", 0); // other readers need it
    if (f->mixer == MIX_RWKV6) {
        const Rwkv6Weights *m = layer->mixer;
        set_int(w, f, "rescale_every_n_layers", c->rescale_every);
        set_int(w, f, "time_mix_extra_dim", rank_of(&m->mixes[0]));
        set_int(w, f, "time_decay_extra_dim", rank_of(&m->decay));
        return;
    }
    const Rwkv7Weights *m = layer->mixer;
    set_int(w, f, "attention.decay_lora_rank", rank_of(&m->decay));
    set_int(w, f, "attention.iclr_lora_rank", rank_of(&m->rate));
    set_int(w, f, "attention.value_residual_mix_lora_rank", rank_of(c->n_layers > 1 ? &m->residual : &m->rate));
    set_int(w, f, "attention.gate_lora_rank", rank_of(&m->gate));
}

// xIELU's numbers of every layer, as files have them: bind_xielu backwards.
static void put_xielu(GgufWriter *w, const Decoder *d) {
    static const char *const keys[] = {"xielu.alpha_p", "xielu.alpha_n", "xielu.beta", "xielu.eps"};
    const Config *c = decoder_config(d);
    for (int i = 0; i < 4; i++) {
        gguf_array(w, keys[i], GGUF_F32, (uint64_t)c->n_layers);
        for (int layer = 0; layer < c->n_layers; layer++) {
            const float *numbers = d->stack.layers[layer].ffn.xielu;
            double value = (double)numbers[i] - (i == 1 ? (double)numbers[2] : 0);
            float stored = (float)(i < 2 ? log(expm1(value)) : value);
            gguf_array_bytes(w, &stored, sizeof stored);
        }
    }
}

void gguf_model_settings(GgufWriter *w, const Family *f, const Decoder *d) {
    const Config *c = decoder_config(d);
    const char *eps =
        c->layer_norm || f->one_sublayer ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
    set_int(w, f, "vocab_size", c->vocab_size);
    put_sizes(w, f, c);
    set_real(w, f, eps, c->norm_eps);
    if (f->base.attn_softcap > 0) set_real(w, f, "attn_logit_softcapping", c->attn_softcap);
    if (f->base.logit_softcap > 0) set_real(w, f, "final_logit_softcapping", c->logit_softcap);
    if (f->base.parallel || c->parallel) gguf_bool(w, key(f, "use_parallel_residual"), c->parallel);
    put_scales(w, f, c);
    if (c->latent_eps > 0 && c->latent_eps != c->norm_eps) {
        fprintf(stderr, "note: GGUF has no key for the eps of the latents' norms: %g becomes %g\n",
                (double)c->latent_eps, (double)c->norm_eps);
    }
    if (c->xielu) put_xielu(w, d);
    if (f->mixer) put_state(w, f, c);
    if (c->channel_mix) put_rwkv(w, f, d);
    if (!f->no_attention) put_positions(w, f, c);
}

void gguf_general_settings(GgufWriter *w, const Family *f, const char *name) {
    gguf_text(w, "general.architecture", f->arch);
    gguf_text(w, "general.name", name);
}

void gguf_type_settings(GgufWriter *w, GgufMix mix) {
    enum { VERSION = 2 }; // of the block formats
    gguf_u32(w, "general.quantization_version", VERSION);
    gguf_u32(w, "general.file_type", gguf_file_type(mix));
}

int64_t rows_at(const Rows *r, int64_t i) {
    int64_t in_group = i % r->group;
    int64_t in_head = r->head ? in_group % r->head : in_group, of_head = in_group - in_head;
    if (in_head < r->n_paired) in_group = of_head + in_head / 2 + in_head % 2 * (r->n_paired / 2);
    return r->first + i / r->group * r->pitch + in_group;
}

typedef struct {
    GgufWriter *w;
    const Family *f;
    const Decoder *d;
    GgufMix mix;
    MixModel model;
    TypeCount *count;
    int layer; // -1: not of a layer
    Part *parts;
} List;

// Some rows of a linear layer; add_matrix sets rows.from.
typedef struct {
    const Dense *dense;
    Rows rows;
} Slice;

// One tensor: the concatenation of slices.
typedef struct {
    const char *part;
    int64_t cols;
    int n;
    const Slice *slices;
    bool bias;
    bool stacked; // [n][rows][cols]
    bool exact;   // F32
} Matrix;

static Slice slice(const Dense *dense, int64_t n) {
    return (Slice){dense, {.n = n, .group = 1, .pitch = 1}};
}

static void add(List *l, const char *part, const char *suffix, Part p) {
    part = family_gguf_part(l->f, part);
    if (l->layer < 0) snprintf(p.name, sizeof p.name, "%s%s", part, suffix);
    else snprintf(p.name, sizeof p.name, "blk.%d.%s%s", l->layer, part, suffix);
    gguf_tensor(l->w, p.name, &p.as);
    arrput(l->parts, p);
}

static Tensor column(const float *values, int64_t n) {
    return (Tensor){.dtype = DTYPE_F32, .n_dims = 2, .shape = {n, 1}, .data = values};
}

// n values, in the order of `rows`.
static void add_vector(List *l, const char *part, const char *suffix, const float *values, Rows rows) {
    Part p = {.as = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {rows.n}}};
    rows.from = column(values, rows.n);
    arrput(p.rows, rows);
    add(l, part, suffix, p);
}

static void add_norm(List *l, const char *part, const Norm *norm, Rows rows, bool bias) {
    add_vector(l, part, ".weight", norm->weight, rows);
    if (bias) add_vector(l, part, ".bias", norm->bias, rows);
}

static void add_dim_norm(List *l, const char *part, const Norm *norm) {
    const Config *c = decoder_config(l->d);
    add_norm(l, part, norm, slice(NULL, c->dim).rows, c->layer_norm && !c->no_norm_bias);
}

static void add_matrix(List *l, Matrix m) {
    MixMatrix matrix = {family_gguf_part(l->f, m.part), l->layer, m.slices[0].dense->w.dtype, m.cols};
    DType dtype = m.exact ? DTYPE_F32 : gguf_mix_type(l->mix, &l->model, &matrix, l->count);
    Part weight = {.as = {.dtype = dtype}, .matrix = !m.exact}, bias = {.as.dtype = DTYPE_F32};
    int64_t n = 0;
    for (int i = 0; i < m.n; i++) {
        Rows rows = m.slices[i].rows;
        rows.from = m.slices[i].dense->w;
        arrput(weight.rows, rows);
        rows.from = column(m.slices[i].dense->bias, 0);
        if (m.bias) arrput(bias.rows, rows);
        n += rows.n;
    }
    int64_t stacked[] = {m.n, n / m.n, m.cols}, flat[] = {n, m.cols}, *shape = m.stacked ? stacked : flat;
    weight.as.n_dims = m.stacked ? 3 : 2;
    bias.as.n_dims = weight.as.n_dims - 1;
    memcpy(weight.as.shape, shape, sizeof *shape * (size_t)weight.as.n_dims);
    memcpy(bias.as.shape, shape, sizeof *shape * (size_t)bias.as.n_dims);
    add(l, m.part, ".weight", weight);
    if (m.bias) add(l, m.part, ".bias", bias);
}

static void add_dense(List *l, const char *part, Slice s, int64_t cols, bool bias) {
    add_matrix(l, (Matrix){.part = part, .cols = cols, .n = 1, .slices = &s, .bias = bias});
}

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
                     slice(&a->v, kind_v_dim(kind))};
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
        add_matrix(l, (Matrix){.part = "attn_qkv", .cols = c->dim, .n = 3, .slices = heads, .bias = c->qkv_bias});
        return;
    }
    static const char *const parts[] = {"attn_q", "attn_k", "attn_v"};
    for (int i = 0; i < 3; i++) add_dense(l, parts[i], heads[i], c->dim, c->qkv_bias);
}

// Weights of every head.
static void add_own_norm(List *l, const char *part, const Norm *norm, int64_t dim) {
    Part p = {.as = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {norm->n_heads, dim}}};
    Rows rows = slice(NULL, norm->n_heads).rows;
    rows.from = (Tensor){.dtype = DTYPE_F32, .n_dims = 2, .shape = {norm->n_heads, dim}, .data = norm->weight};
    arrput(p.rows, rows);
    add(l, part, ".weight", p);
}

static void add_attention(List *l, const LayerKind *kind, const AttentionWeights *a) {
    const Config *c = decoder_config(l->d);
    bool full = c->qk_norm == QK_NORM_FULL;
    add_heads(l, kind, a);
    add_dense(l, "attn_output", slice(&a->out, c->dim), (int64_t)kind->n_heads * kind->v_dim, c->out_bias);
    if (c->qk_norm == QK_NORM_OWN) {
        add_own_norm(l, "attn_q_norm", &a->q_norm, kind->k_dim);
        add_own_norm(l, "attn_k_norm", &a->k_norm, kind->k_dim);
    } else if (c->qk_norm) {
        add_norm(l, "attn_q_norm", &a->q_norm, head_rows(l, full ? kind_q_dim(kind) : kind->k_dim), false);
        add_norm(l, "attn_k_norm", &a->k_norm, head_rows(l, full ? kind_k_dim(kind) : kind->k_dim), false);
    }
    if (c->learned_sinks) add_vector(l, "attn_sinks", ".weight", a->sinks, slice(NULL, kind->n_heads).rows);
}

// The matrices of all heads, W_k of each transposed, or both of a head in turn.
static void add_up_projections(List *l, const LayerKind *kind, const LatentWeights *w) {
    int64_t rank = kind->v_dim, nope = kind->latent.nope_dim, value = kind->latent.value_dim;
    if (l->f->gguf_joint_latent || w->gguf_joint) {
        add_dense(l, "attn_kv_b", slice(&w->v_b, kind->n_heads * (nope + value)), rank, false);
        return;
    }
    Slice *keys = NULL, *values = NULL;
    for (int h = 0; h < kind->n_heads; h++) {
        Slice k = slice(&w->k_b, rank), v = slice(&w->v_b, value);
        k.rows.first = h * rank;
        v.rows.first = w->v_first + (int64_t)h * w->v_pitch;
        arrput(keys, k);
        arrput(values, v);
    }
    add_matrix(l, (Matrix){.part = "attn_k_b", .cols = nope, .n = kind->n_heads, .slices = keys, .stacked = true});
    add_matrix(l, (Matrix){.part = "attn_v_b", .cols = rank, .n = kind->n_heads, .slices = values, .stacked = true});
    arrfree(keys);
    arrfree(values);
}

static void add_latent(List *l, const LayerKind *kind, const LatentWeights *w) {
    const Config *c = decoder_config(l->d);
    int64_t q_rank = kind->latent.q_rank, queries = (int64_t)kind->n_heads * kind_head_dim(kind);
    if (q_rank) {
        add_dense(l, "attn_q_a", slice(&w->q_a, q_rank), c->dim, c->qkv_bias);
        add_norm(l, "attn_q_a_norm", &w->q_norm, slice(NULL, q_rank).rows, false);
        add_dense(l, "attn_q_b", slice(&w->q, queries), q_rank, false);
    } else {
        add_dense(l, "attn_q", slice(&w->q, queries), c->dim, false);
    }
    add_dense(l, "attn_kv_a_mqa", slice(&w->kv_a, kind->k_dim), c->dim, c->qkv_bias);
    add_norm(l, "attn_kv_a_norm", &w->kv_norm, slice(NULL, kind->v_dim).rows, false);
    add_up_projections(l, kind, w);
    add_dense(l, "attn_output", slice(&w->out, c->dim), (int64_t)kind->n_heads * kind->latent.value_dim, c->out_bias);
}

// A matrix that was made for the file, of its type or F32.
static void add_made(List *l, const char *part, const char *suffix, float *made, int64_t rows, int64_t cols,
                     DType dtype) {
    Part p = {.as = {.dtype = dtype, .n_dims = 2, .shape = {rows, cols}}, .matrix = dtype != DTYPE_F32, .made = made};
    Rows all = slice(NULL, rows).rows;
    all.from = (Tensor){.dtype = DTYPE_F32, .n_dims = 2, .shape = {rows, cols}, .data = made};
    arrput(p.rows, all);
    add(l, part, suffix, p);
}

static float *need_values(int64_t n) {
    float *values = malloc(sizeof *values * (size_t)n);
    if (!values) die(1, "out of memory for %lld values", (long long)n);
    return values;
}

// ---- short convolutions

// Taps [width][channels] as [channels][width]; order[c] is the channel that stands at c, NULL: they stay.
static void add_taps(List *l, const char *part, const float *taps, int width, int channels, const int *order) {
    float *made = taps ? need_values((int64_t)width * channels) : NULL;
    for (int64_t c = 0; made && c < channels; c++) {
        for (int j = 0; j < width; j++) made[c * width + j] = taps[j * (int64_t)channels + (order ? order[c] : c)];
    }
    add_made(l, part, ".weight", made, channels, width, DTYPE_F32);
}

static void add_short_convolution(List *l, const LayerKind *kind, const ConvWeights *w) {
    int dim = kind->state.conv_dim;
    bool bias = w->bias != NULL;
    add_dense(l, "shortconv.in_proj", slice(&w->in, 3 * (int64_t)dim), dim, bias);
    add_taps(l, "shortconv.conv", w->taps, kind->state.conv_width, dim, NULL);
    if (bias) add_vector(l, "shortconv.conv", ".bias", w->bias, slice(NULL, dim).rows);
    add_dense(l, "shortconv.out_proj", slice(&w->out, dim), dim, bias);
}

// ---- gated delta nets

// The value head that stands at place i of the file.
static int value_head(const List *l, const StateShape *s, const DeltaWeights *w, int i) {
    bool reorder = l->f->gguf_tiled_heads && w->key_heads == KEY_HEADS_REPEATED;
    return reorder ? i % s->n_key_heads * (s->n_heads / s->n_key_heads) + i / s->n_key_heads : i;
}

// Rows of all value heads from row `first` on, `width` of each, onto the stb_ds array.
static Slice *put_value_rows(const List *l, Slice *slices, const StateShape *s, const DeltaWeights *w,
                             const Dense *dense, int64_t first, int64_t width) {
    for (int i = 0; i < s->n_heads; i++) {
        Slice one = slice(dense, width);
        one.rows.first = first + value_head(l, s, w, i) * width;
        arrput(slices, one);
    }
    return slices;
}

static void add_value_rows(List *l, const char *part, const StateShape *s, const DeltaWeights *w, const Dense *dense,
                           int64_t width) {
    Slice *slices = put_value_rows(l, NULL, s, w, dense, 0, width);
    add_matrix(l, (Matrix){.part = part, .cols = decoder_config(l->d)->dim, .n = s->n_heads, .slices = slices});
    arrfree(slices);
}

// `width` rows at `first` of each key head's group.
static Slice group_rows(const StateShape *s, const Dense *dense, int64_t first, int64_t width) {
    int64_t per = s->n_heads / s->n_key_heads;
    Slice rows = slice(dense, width * s->n_key_heads);
    rows.rows.first = first;
    rows.rows.group = width;
    rows.rows.pitch = 2 * s->k_dim + 2 * per * s->v_dim;
    return rows;
}

static void add_delta_inputs(List *l, const StateShape *s, const DeltaWeights *w) {
    int64_t keys = (int64_t)s->n_key_heads * s->k_dim, k_dim = s->k_dim,
            values = (int64_t)(s->n_heads / s->n_key_heads) * s->v_dim;
    int dim = decoder_config(l->d)->dim;
    Slice *qkv = NULL;
    if (dense_exists(&w->qkvz)) {
        arrput(qkv, group_rows(s, &w->qkvz, 0, k_dim));
        arrput(qkv, group_rows(s, &w->qkvz, k_dim, k_dim));
        arrput(qkv, group_rows(s, &w->qkvz, 2 * k_dim, values));
        Slice z = group_rows(s, &w->qkvz, 2 * k_dim + values, values);
        add_matrix(l, (Matrix){.part = "attn_qkv", .cols = dim, .n = 3, .slices = qkv});
        add_matrix(l, (Matrix){.part = "attn_gate", .cols = dim, .n = 1, .slices = &z});
    } else {
        arrput(qkv, slice(&w->qkv, 2 * keys));
        qkv = put_value_rows(l, qkv, s, w, &w->qkv, 2 * keys, s->v_dim);
        add_matrix(l, (Matrix){.part = "attn_qkv", .cols = dim, .n = 1 + s->n_heads, .slices = qkv});
        add_value_rows(l, "attn_gate", s, w, &w->z, s->v_dim);
    }
    arrfree(qkv);
    if (l->f->gguf_tiled_heads) {
        add_value_rows(l, "ssm_beta", s, w, &w->beta, 1);
        add_value_rows(l, "ssm_alpha", s, w, &w->alpha, 1);
    } else {
        add_dense(l, "ssm_ba", slice(&w->ba, 2 * (int64_t)s->n_heads), dim, false);
    }
}

// A number of each value head.
static void add_head_numbers(List *l, const char *part, const char *suffix, const StateShape *s, const DeltaWeights *w,
                             const float *values) {
    Part p = {.as = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {s->n_heads}}};
    for (int i = 0; i < s->n_heads; i++) {
        Rows one = slice(NULL, 1).rows;
        one.first = value_head(l, s, w, i);
        one.from = column(values, s->n_heads);
        arrput(p.rows, one);
    }
    add(l, part, suffix, p);
}

static void add_delta_taps(List *l, const StateShape *s, const DeltaWeights *w) {
    int keys = 2 * s->n_key_heads * s->k_dim, *order = malloc(sizeof *order * (size_t)s->conv_dim);
    if (!order) die(1, "out of memory for %d channels", s->conv_dim);
    for (int c = 0; c < s->conv_dim; c++) {
        int v = c - keys;
        order[c] = v < 0 ? c : keys + value_head(l, s, w, v / s->v_dim) * s->v_dim + v % s->v_dim;
    }
    add_taps(l, "ssm_conv1d", w->taps, s->conv_width, s->conv_dim, order);
    free(order);
}

// The columns of the last matrix belong to value heads.
static void add_delta_out(List *l, const StateShape *s, const DeltaWeights *w) {
    int64_t dim = decoder_config(l->d)->dim, values = (int64_t)s->n_heads * s->v_dim;
    if (!dense_exists(&w->out) || value_head(l, s, w, 1 % s->n_heads) == 1 % s->n_heads) {
        add_dense(l, "ssm_out", slice(&w->out, dim), values, false);
        return;
    }
    MixMatrix matrix = {"ssm_out", l->layer, DTYPE_F32, values};
    DType dtype = gguf_mix_type(l->mix, &l->model, &matrix, l->count);
    float *row = need_values(values), *made = need_values(dim * values);
    for (int64_t r = 0; r < dim; r++) {
        row_unpack(row, &w->out.w, r);
        for (int i = 0; i < s->n_heads; i++) {
            const float *from = row + (int64_t)value_head(l, s, w, i) * s->v_dim;
            memcpy(made + r * values + (int64_t)i * s->v_dim, from, sizeof *made * (size_t)s->v_dim);
        }
    }
    free(row);
    add_made(l, "ssm_out", ".weight", made, dim, values, dtype);
}

static void add_delta(List *l, const LayerKind *kind, const DeltaWeights *w) {
    const StateShape *s = &kind->state;
    add_delta_inputs(l, s, w);
    add_delta_taps(l, s, w);
    add_head_numbers(l, "ssm_a", "", s, w, w->a);
    add_head_numbers(l, "ssm_dt", ".bias", s, w, w->dt);
    add_vector(l, "ssm_norm", ".weight", w->norm, slice(NULL, s->v_dim).rows);
    add_delta_out(l, s, w);
}

// ---- Mamba

static void add_values(List *l, const char *part, const char *suffix, const float *values, int64_t rows, int64_t cols) {
    Part p = {.as = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {rows, cols}}};
    Rows all = slice(NULL, rows).rows;
    all.from = (Tensor){.dtype = DTYPE_F32, .n_dims = 2, .shape = {rows, cols}, .data = values};
    arrput(p.rows, all);
    add(l, part, suffix, p);
}

// Without weights a layer has all that it may have.
static void add_ssm(List *l, const StateShape *s, const SsmWeights *w) {
    int64_t dim = decoder_config(l->d)->dim, inner = (int64_t)s->n_heads * s->v_dim;
    Rows heads = slice(NULL, s->n_heads).rows;
    add_dense(l, "ssm_in", slice(&w->in, inner + s->conv_dim + s->n_heads), dim, w->in.bias);
    add_taps(l, "ssm_conv1d", w->taps, s->conv_width, s->conv_dim, NULL);
    if (w->conv_bias || !w->taps) add_vector(l, "ssm_conv1d", ".bias", w->conv_bias, slice(NULL, s->conv_dim).rows);
    add_vector(l, "ssm_dt", ".bias", w->step_bias, heads);
    add_values(l, "ssm_a", "", w->a, s->n_heads, 1);
    add_values(l, "ssm_d", "", w->d, s->n_heads, 1);
    if (w->norm || !w->taps) add_values(l, "ssm_norm", ".weight", w->norm, s->n_key_heads, inner / s->n_key_heads);
    add_dense(l, "ssm_out", slice(&w->out, dim), inner, w->out.bias);
}

static void add_mamba(List *l, const StateShape *s, const MambaWeights *w) {
    const Config *c = decoder_config(l->d);
    int64_t channels = s->v_dim, states = s->k_dim, rank = c->step_rank;
    Rows all = slice(NULL, channels).rows;
    add_dense(l, "ssm_in", slice(&w->in, 2 * channels), c->dim, w->in.bias);
    add_taps(l, "ssm_conv1d", w->taps, s->conv_width, s->conv_dim, NULL);
    if (w->conv_bias || !w->taps) add_vector(l, "ssm_conv1d", ".bias", w->conv_bias, all);
    add_dense(l, "ssm_x", slice(&w->x, rank + 2 * states), channels, false);
    if (w->step_norm && !(c->step_norm_eps > 0)) {
        add_vector(l, "ssm_dt_norm", ".weight", w->step_norm, slice(NULL, rank).rows);
        add_vector(l, "ssm_b_norm", ".weight", w->b_norm, slice(NULL, states).rows);
        add_vector(l, "ssm_c_norm", ".weight", w->c_norm, slice(NULL, states).rows);
    }
    Slice step = slice(&w->step, channels); // small, and its columns no multiple of a block
    add_matrix(l, (Matrix){.part = "ssm_dt", .cols = rank, .n = 1, .slices = &step, .bias = true, .exact = true});
    float *a = w->a ? need_values(channels * states) : NULL;
    for (int64_t i = 0; a && i < channels * states; i++) a[i] = w->a[i % states * channels + i / states];
    add_made(l, "ssm_a", "", a, channels, states, DTYPE_F32);
    add_vector(l, "ssm_d", "", w->d, all);
    add_dense(l, "ssm_out", slice(&w->out, c->dim), channels, w->out.bias);
}

static void add_beside(List *l, const LayerKind *kind, const BesideWeights *w) {
    add_attention(l, kind, &w->attention);
    add_ssm(l, &kind->state, &w->ssm);
}

// ---- layers

// ---- RWKV

// n vectors of `width` values, in this shape.
static void add_vectors(List *l, const char *part, const float *const *vectors, int n, int64_t width, Tensor as) {
    Part p = {.as = as};
    for (int i = 0; i < n; i++) {
        Rows rows = slice(NULL, width).rows;
        rows.from = column(vectors[i], width);
        arrput(p.rows, rows);
    }
    add(l, part, ".weight", p);
}

// Small matrices, which no type would make much smaller.
static void add_low_rank(List *l, const LowRank *m, const char *down, const char *up, const char *bias, int64_t n) {
    int64_t dim = decoder_config(l->d)->dim, rank = rank_of(m);
    Slice first = slice(&m->down, rank), second = slice(&m->up, n);
    add_matrix(l, (Matrix){.part = down, .cols = dim, .n = 1, .slices = &first, .exact = true});
    add_matrix(l, (Matrix){.part = up, .cols = rank, .n = 1, .slices = &second, .exact = true});
    if (bias) add_vector(l, bias, ".weight", m->up.bias, slice(NULL, n).rows);
}

// What all mixes of a layer are multiplied with: one tensor.
static void add_mixes(List *l, const float *const *mixes, int n, int64_t dim) {
    add_vectors(l, "time_mix_lerp_fused", mixes, n, dim,
                (Tensor){.dtype = DTYPE_F32, .n_dims = 4, .shape = {n, 1, 1, dim}});
}

// The first layer's v0, v1 and v2, which no pass uses, are there for other readers: its a0, a1 and a2 once more.
static void add_rwkv7(List *l, const Rwkv7Weights *w) {
    int64_t dim = decoder_config(l->d)->dim;
    const float *mixes[RWKV7_MIXES];
    for (int i = 0; i < RWKV7_MIXES; i++) mixes[i] = w->mix ? w->mix + i * dim : NULL;
    Rows all = slice(NULL, dim).rows;
    add_mixes(l, mixes, RWKV7_MIXES, dim);
    add_dense(l, "time_mix_receptance", slice(&w->r, dim), dim, false);
    add_dense(l, "time_mix_key", slice(&w->k, dim), dim, false);
    add_dense(l, "time_mix_value", slice(&w->v, dim), dim, false);
    add_low_rank(l, &w->decay, "time_mix_w1", "time_mix_w2", "time_mix_w0", dim);
    add_low_rank(l, &w->rate, "time_mix_a1", "time_mix_a2", "time_mix_a0", dim);
    add_low_rank(l, l->layer ? &w->residual : &w->rate, "time_mix_v1", "time_mix_v2", "time_mix_v0", dim);
    add_low_rank(l, &w->gate, "time_mix_g1", "time_mix_g2", NULL, dim);
    add_vector(l, "time_mix_k_k", ".weight", w->k_k, all);
    add_vector(l, "time_mix_k_a", ".weight", w->k_a, all);
    add_vector(l, "time_mix_r_k", ".weight", w->r_k, all);
    add_norm(l, "time_mix_ln", &w->norm, all, true);
    add_dense(l, "time_mix_output", slice(&w->out, dim), dim, false);
}

static void add_rwkv6(List *l, const LayerKind *kind, const Rwkv6Weights *w) {
    int64_t dim = decoder_config(l->d)->dim, rank = rank_of(&w->mixes[0]);
    Slice first[RWKV6_MIXES], second[RWKV6_MIXES];
    const float *mixes[RWKV6_MIXES];
    for (int i = 0; i < RWKV6_MIXES; i++) {
        first[i] = slice(&w->mixes[i].down, rank);
        second[i] = slice(&w->mixes[i].up, dim);
        mixes[i] = w->mixes[i].up.bias;
    }
    Rows all = slice(NULL, dim).rows;
    add_vector(l, "time_mix_lerp_x", ".weight", w->mix_x, all);
    add_mixes(l, mixes, RWKV6_MIXES, dim);
    add_matrix(l, (Matrix){.part = "time_mix_w1", .cols = dim, .n = RWKV6_MIXES, .slices = first, .exact = true});
    add_matrix(
        l,
        (Matrix){
            .part = "time_mix_w2", .cols = rank, .n = RWKV6_MIXES, .slices = second, .stacked = true, .exact = true});
    add_dense(l, "time_mix_receptance", slice(&w->r, dim), dim, false);
    add_dense(l, "time_mix_key", slice(&w->k, dim), dim, false);
    add_dense(l, "time_mix_value", slice(&w->v, dim), dim, false);
    add_dense(l, "time_mix_gate", slice(&w->g, dim), dim, false);
    add_low_rank(l, &w->decay, "time_mix_decay_w1", "time_mix_decay_w2", "time_mix_decay", dim);
    add_vectors(l, "time_mix_first", &w->bonus, 1, dim,
                (Tensor){.dtype = DTYPE_F32, .n_dims = 2, .shape = {kind->state.n_heads, kind->state.k_dim}});
    add_norm(l, "time_mix_ln", &w->norm, all, true);
    add_dense(l, "time_mix_output", slice(&w->out, dim), dim, false);
}

static void add_channel_mix(List *l, const ChannelMix *m) {
    const Config *c = decoder_config(l->d);
    Rows all = slice(NULL, c->dim).rows;
    add_vector(l, "channel_mix_lerp_k", ".weight", m->mix_k, all);
    add_dense(l, "channel_mix_key", slice(&m->ffn.up, c->hidden_dim), c->dim, false);
    add_dense(l, "channel_mix_value", slice(&m->ffn.down, c->dim), c->hidden_dim, false);
    if (config_kind(c, l->layer)->mixer != MIX_RWKV6) return;
    add_vector(l, "channel_mix_lerp_r", ".weight", m->mix_r, all);
    add_dense(l, "channel_mix_receptance", slice(&m->receptance, c->dim), c->dim, false);
}

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
    const Slice both[] = {slice(&n->gate, hidden), slice(&n->up, hidden)};
    if (l->f->gguf_fused_ffn && !c->plain_ffn) {
        add_matrix(l, (Matrix){.part = up, .cols = c->dim, .n = 2, .slices = both, .bias = c->ffn_bias});
    } else {
        if (!c->plain_ffn) add_dense(l, gate, both[0], c->dim, c->ffn_bias);
        add_dense(l, up, both[1], c->dim, c->ffn_bias);
    }
    add_dense(l, down, slice(&n->down, c->dim), hidden, c->ffn_bias);
}

// One matrix of every expert, at `offset` of its FeedForward. alternate: every second row, from 0 or (odd) from 1.
static void add_expert_matrix(List *l, const char *part, const FeedForward *list, size_t offset, int64_t rows,
                              int64_t cols, bool alternate, bool odd) {
    const Config *c = decoder_config(l->d);
    Slice *slices = NULL;
    for (int e = 0; e < c->n_experts; e++) {
        Slice s = slice((const Dense *)(const void *)((const char *)&list[e] + offset), rows);
        if (alternate) {
            s.rows.pitch = 2;
            s.rows.first = odd;
        }
        arrput(slices, s);
    }
    add_matrix(
        l, (Matrix){
               .part = part, .cols = cols, .n = c->n_experts, .slices = slices, .bias = c->ffn_bias, .stacked = true});
    arrfree(slices);
}

static void add_experts(List *l, const Experts *e) {
    const Config *c = decoder_config(l->d);
    int64_t dim = c->dim, hidden = config_expert_dim(c);
    bool mixed = e->list[0].interleaved;
    Slice router = slice(&e->router, c->n_experts), gate = slice(&e->shared_gate, 1);
    add_matrix(
        l, (Matrix){
               .part = "ffn_gate_inp", .cols = dim, .n = 1, .slices = &router, .bias = c->router_bias, .exact = true});
    size_t from = mixed ? offsetof(FeedForward, up) : offsetof(FeedForward, gate);
    if (!c->plain_ffn) add_expert_matrix(l, "ffn_gate_exps", e->list, from, hidden, dim, mixed, false);
    add_expert_matrix(l, "ffn_up_exps", e->list, offsetof(FeedForward, up), hidden, dim, mixed, true);
    add_expert_matrix(l, "ffn_down_exps", e->list, offsetof(FeedForward, down), dim, hidden, false, false);
    if (c->router_choice_bias) add_vector(l, "exp_probs_b", ".bias", e->choice_bias, router.rows);
    if (!c->shared_dim) return;
    add_network(l, &e->shared, "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", c->shared_dim);
    if (c->shared_ungated) return;
    Part p = {.as = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {dim}}};
    gate.rows.from = e->shared_gate.w;
    arrput(p.rows, gate.rows);
    add(l, "ffn_gate_inp_shexp", ".weight", p);
}

static void add_layer(List *l, int i) {
    const Config *c = decoder_config(l->d);
    const Layer *layer = &l->d->stack.layers[i];
    const LayerKind *kind = config_kind(c, i);
    l->layer = i;
    bool only = kind->mixer == MIX_NONE;
    if (!c->no_pre_norm) add_dim_norm(l, "attn_norm", only ? &layer->ffn_norms.input : &layer->mixer_norms.input);
    if (!only) add_mixer(l, kind, layer->mixer);
    if (c->post_norm) add_dim_norm(l, "post_attention_norm", &layer->mixer_norms.output);
    if (kind->ffn == FFN_NONE) return;
    bool shared = only || (c->parallel && c->shared_norm), bare = kind->mixer == MIX_SSM_ATTENTION;
    if (bare)
        add_vector(l, "ffn_norm", "", layer->ffn_norms.input.weight, slice(NULL, c->dim).rows); // Falcon-H1's name
    else if (!c->no_pre_norm && !shared) add_dim_norm(l, "ffn_norm", &layer->ffn_norms.input);
    if (kind->ffn == FFN_EXPERTS) add_experts(l, &layer->experts);
    else if (kind->ffn == FFN_CHANNEL_MIX) add_channel_mix(l, &layer->channel_mix);
    else add_network(l, &layer->ffn, "ffn_gate", "ffn_up", "ffn_down", c->hidden_dim);
    if (c->post_norm) add_dim_norm(l, "post_ffw_norm", &layer->ffn_norms.output);
}

// The divisor of each frequency in Llama 3.1's scaling.
static void add_llama3_factors(List *l, const RopeConfig *rope) {
    RopeConfig plain = *rope;
    plain.scaling.kind = ROPE_UNSCALED;
    Rope scaled = open_rope(rope), whole = open_rope(&plain);
    Part p = {.as = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {scaled.n}}, .made = malloc(sizeof(float) * scaled.n)};
    if (!p.made) die(1, "out of memory for %d frequencies", scaled.n);
    for (int i = 0; i < scaled.n; i++) p.made[i] = (float)(whole.frequency[i] / scaled.frequency[i]);
    Rows rows = slice(NULL, scaled.n).rows;
    rows.from = column(p.made, scaled.n);
    arrput(p.rows, rows);
    rope_close(&scaled);
    rope_close(&whole);
    add(l, "rope_freqs", ".weight", p);
}

static void add_factors(List *l) {
    LayerKind base;
    config_rules(decoder_config(l->d), &base);
    const RopeFactors *factors = &l->d->rope_factors;
    Rows rows = slice(NULL, base.rope.rotary_dim / 2).rows;
    if (base.rope.scaling.kind == ROPE_LLAMA3) add_llama3_factors(l, &base.rope);
    else if (factors->all) add_vector(l, "rope_freqs", ".weight", factors->all, rows);
    if (factors->long_ctx) add_vector(l, "rope_factors_long", ".weight", factors->long_ctx, rows);
    if (factors->short_ctx) add_vector(l, "rope_factors_short", ".weight", factors->short_ctx, rows);
}

static void add_table(List *l, const char *part, const Tensor *t) {
    Dense table = {.w = t ? *t : (Tensor){0}};
    add_dense(l, part, slice(&table, decoder_config(l->d)->vocab_size), decoder_config(l->d)->dim, false);
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
        Slice all = slice(&table, c->max_seq_len);
        add_matrix(&l, (Matrix){.part = "position_embd", .cols = c->dim, .n = 1, .slices = &all, .exact = true});
    }
    add_factors(&l);
    for (int i = 0; i < c->n_layers; i++) add_layer(&l, i);
    l.layer = -1;
    if (c->embedding_norm) add_dim_norm(&l, "token_embd_norm", &d->embedding.norm);
    add_dim_norm(&l, "output_norm", &d->output_norm);
    if (!c->tied) add_table(&l, "output", d->output);
    if (c->output_bias) add_vector(&l, "output", ".bias", d->output_bias, slice(NULL, c->vocab_size).rows);
    return l.parts;
}

void gguf_parts_free(Part *parts) {
    for (ptrdiff_t i = 0; i < arrlen(parts); i++) {
        arrfree(parts[i].rows);
        free(parts[i].made);
    }
    arrfree(parts);
}
