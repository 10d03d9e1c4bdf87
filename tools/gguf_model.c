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
    return mixer != MIX_GLA && mixer != MIX_RETENTION && mixer != MIX_LINEAR && mixer != MIX_HYENA;
}

const char *gguf_model_unwritten(const Config *c) {
    for (int i = 0; i < c->n_kinds; i++) {
        if (!is_written(c->kinds[i].mixer)) return mixer_of(c->kinds[i].mixer)->name;
        if (c->kinds[i].blocks.size) return "attention in blocks";
    }
    return NULL;
}

static bool is_rwkv(const Family *f) {
    return f->mixer == MIX_RWKV6 || f->mixer == MIX_RWKV7;
}

// The eps of the norms over heads, which GGUF fixes, and tensors that its files always have.
static bool sound_rwkv(const Config *c) {
    const StateShape *s = &c->kinds[0].state;
    float eps = c->kinds[0].mixer == MIX_RWKV7 ? (float)s->v_dim * c->norm_eps : c->norm_eps;
    return fabsf(eps - 64e-5f) < 1e-8f && s->k_dim == s->v_dim && c->embedding_norm && !c->no_norm_bias;
}

// Which layers have experts, and the number of experts that tells whether queries and keys are normed.
static int expert_step(const Config *c) {
    int step = 1;
    while (step < c->n_layers && config_kind(c, step - 1)->ffn != FFN_EXPERTS) step++;
    return step;
}

static bool usual_llama4(const Config *c) {
    for (int i = 0; i < c->n_layers; i++) {
        bool routed = config_kind(c, i)->ffn == FFN_EXPERTS;
        if (c->n_experts && routed != ((i + 1) % expert_step(c) == 0)) return false;
    }
    return (c->qk_norm == QK_NORM_NONE) == (c->n_experts == 128);
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
        {f->chunked && !usual_llama4(c), "which layers have experts, or norms of queries and keys"},
        {c->ffn_clamp != b->ffn_clamp, "a feed-forward clamp that differs from the family's"},
        {c->temperature > 0 && !f->chunked && c->temperature_ctx != scaling->original_ctx,
         "an attention temperature without YaRN"},
        {c->router_jitter != b->router_jitter, "a router_jitter_noise that differs from the family's"},
        {scaling->long_attention_factor > 0 && scaling->long_attention_factor != scaling->attention_factor,
         "a magnitude of LongRoPE for each length"},
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

Rope gguf_rope(const RopeConfig *c) {
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
        Rope r = gguf_rope(rope);
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
    if (f->mixer == MIX_CONV || is_rwkv(f)) return;
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
    if (f->no_attention && !is_rwkv(f)) set_int(w, f, "attention.head_count", 0); // other readers need it
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

// The ranks are those of the second layer, which has all of them.
static void put_rwkv(GgufWriter *w, const Family *f, const Decoder *d) {
    const Config *c = decoder_config(d);
    const Layer *layer = &d->stack.layers[c->n_layers > 1];
    set_int(w, f, "attention.head_count", 0); // other readers need it
    if (f->mixer == MIX_RWKV6) {
        const Rwkv6Weights *m = layer->mixer;
        set_int(w, f, "rescale_every_n_layers", c->rescale_every);
        set_int(w, f, "time_mix_extra_dim", low_rank_width(&m->mixes[0]));
        set_int(w, f, "time_decay_extra_dim", low_rank_width(&m->decay));
        return;
    }
    const Rwkv7Weights *m = layer->mixer;
    if (!c->channel_mix) set_int(w, f, "token_shift_count", 1);
    set_int(w, f, "attention.decay_lora_rank", low_rank_width(&m->decay));
    set_int(w, f, "attention.iclr_lora_rank", low_rank_width(&m->rate));
    set_int(w, f, "attention.value_residual_mix_lora_rank", low_rank_width(c->n_layers > 1 ? &m->residual : &m->rate));
    set_int(w, f, "attention.gate_lora_rank", low_rank_width(&m->gate));
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

// Temperature and experts as Llama 4's files have them. No key tells whether queries and keys are normed.
static void put_llama4(GgufWriter *w, const Family *f, const Config *c) {
    set_int(w, f, "interleave_moe_layer_step", expert_step(c));
    set_real(w, f, "attention.temperature_scale", c->temperature);
    if (c->temperature > 0) set_int(w, f, "attention.temperature_length", c->temperature_ctx);
}

void gguf_model_settings(GgufWriter *w, const Family *f, const Decoder *d) {
    const Config *c = decoder_config(d);
    bool layer_norm = (c->layer_norm && !f->gguf_rms_eps) || f->one_sublayer;
    const char *eps = layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
    set_int(w, f, "vocab_size", c->vocab_size);
    put_sizes(w, f, c);
    set_real(w, f, eps, c->norm_eps);
    if (f->chunked) put_llama4(w, f, c);
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
    if (is_rwkv(f)) put_rwkv(w, f, d);
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
