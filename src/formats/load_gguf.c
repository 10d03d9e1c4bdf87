// load_gguf: a model in GGUF, in one file or split.
//
// Owns what the settings of an architecture are called. Refuses an architecture that families.c does not list, and a
// setting that would change the computation and that nothing here computes. Called by load_model.
#include "fields.h"
#include "gguf.h"
#include "load.h"
#include "sampling.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

enum { SPLIT_NAME = sizeof "-00001-of-00001.gguf" - 1 };

// ---- config

// The keys of an architecture: "<arch>.<key>".
typedef struct {
    Gguf *g;
    const Family *family;
    char arch[40], key[120];
} Keys;

static const char *key(Keys *k, const char *name) {
    snprintf(k->key, sizeof k->key, "%s.%s", k->arch, name);
    return k->key;
}

static int get_int(Keys *k, const char *name, int least, double absent) {
    return (int)gguf_get_whole(k->g, key(k, name), least, INT_MAX, absent);
}

static float get_real(Keys *k, const char *name, double absent) {
    return gguf_get_float(k->g, key(k, name), absent);
}

static const Family *read_family(Gguf *g, Keys *k) {
    uint64_t n;
    const char *arch = gguf_get_text(g, "general.architecture", true, &n);
    const Family *f = arch ? family_of_arch(arch, n) : NULL;
    k->family = f;
    if (f) snprintf(k->arch, sizeof k->arch, "%s", f->arch);
    if (f || !arch) return f;
    char list[FAMILY_LIST_ROOM];
    family_list(false, list, sizeof list);
    cursor_fail(&g->in, gguf_get_value(g, "general.architecture", true)->at,
                "general.architecture: '%.*s' is not supported: expected %s", n < 40 ? (int)n : 40, arch, list);
    return NULL;
}

// One number for each layer; those of layers beyond what any model may have are refused before.
static void read_by_layer(Keys *k, const Field *f, const Config *c, LayerRules *rules) {
    int numbers[MAX_LAYERS], n = c->n_layers <= MAX_LAYERS ? c->n_layers : 0;
    const char *name = key(k, f->gguf);
    LayerSet *zeros = field_zeros(f, c, k->family, rules);
    gguf_get_wholes(k->g, name, zeros ? 0 : f->least, INT_MAX, n, numbers);
    if (zeros && !k->g->in.failed) field_take_zeros(numbers, n, zeros);
    int differs = k->g->in.failed ? -1 : field_set_layers(f, c, numbers, rules);
    if (differs < 0) return;
    cursor_fail(&k->g->in, gguf_get_value(k->g, name, true)->at,
                "%s: layer %d: expected %d, as in layer 0, found %d: layers that differ in it are not supported", name,
                differs, numbers[0], numbers[differs]);
}

static void read_fields(Keys *k, const Field *list, int n, const Config *c, LayerRules *rules) {
    for (int i = 0; i < n; i++) {
        const Field *f = &list[i];
        double absent = f->absent == FIELD_REQUIRED ? GGUF_NEEDED : f->absent == FIELD_KEEP ? *f->value : f->absent;
        if (field_by_layer(f, c) && gguf_is_array(k->g, key(k, f->gguf))) read_by_layer(k, f, c, rules);
        else *f->value = get_int(k, f->gguf, f->least, absent);
    }
}

static void read_heads(Keys *k, Config *c, LayerRules *rules) {
    Gguf *g = k->g;
    Field list[MAX_FIELDS];
    if (!gguf_get_value(g, key(k, "attention.head_count_kv"), false)) {
        memcpy(rules->n_kv_heads, rules->n_heads, sizeof rules->n_heads);
    }
    read_fields(k, list, fields_of_heads(c, list), c, rules);
    if (!fields_default_width(c) && !g->in.failed) {
        const char *name = key(k, "attention.head_count");
        cursor_fail(&g->in, gguf_get_value(g, name, true)->at,
                    "%s: expected a divisor of %s.embedding_length = %d, found %d", name, k->arch, c->dim,
                    c->kinds[0].n_heads);
    }
    int width = c->kinds[0].k_dim;
    static const char *const same[] = {"attention.value_length", "attention.key_length_swa",
                                       "attention.value_length_swa"};
    for (int i = 0; i < 3; i++) gguf_get_whole(g, key(k, same[i]), width, width, width);
}

// Files since llama.cpp caches the latent give the heads' own widths under these keys, and under the usual ones what is
// cached; older files, and those of MiniCPM 3, give them under the usual ones.
static void read_latent(Keys *k, Config *c, LayerRules *rules) {
    LayerKind *kind = &c->kinds[0];
    Field list[MAX_FIELDS];
    read_fields(k, list, fields_of_latent(c, list), c, rules);
    if (k->g->in.failed) return;
    bool apart = gguf_get_value(k->g, key(k, "attention.key_length_mla"), false);
    int width = get_int(k, apart ? "attention.key_length_mla" : "attention.key_length", 1, GGUF_NEEDED);
    const char *value = apart ? "attention.value_length_mla" : "attention.value_length";
    kind->latent.nope_dim = width - kind->rope.rotary_dim;
    kind->latent.value_dim = get_int(k, value, 1, apart ? GGUF_NEEDED : c->dim / kind->n_heads);
    latent_set_cache(kind);
}

static void read_sizes(Keys *k, Config *c, const Family *f, LayerRules *rules) {
    Field list[MAX_FIELDS];
    read_fields(k, list, fields_of_shape(c, f, list), c, rules);
    if (f->extra_layers)
        c->n_layers -= (int)gguf_get_whole(k->g, key(k, "nextn_predict_layers"), 0, c->n_layers - 1, 0);
    if (c->kinds[0].mixer == MIX_LATENT) read_latent(k, c, rules);
    else if (!f->no_attention) read_heads(k, c, rules);
    static const char layer_norm[] = "attention.layer_norm_epsilon";
    bool other = f->one_sublayer && gguf_get_value(k->g, key(k, layer_norm), false); // Nemotron-H's RMS norms
    bool usual = c->layer_norm && !f->gguf_rms_eps;
    c->norm_eps = get_real(k, usual || other ? layer_norm : "attention.layer_norm_rms_epsilon", GGUF_NEEDED);
}

// As DeepSeek's models have it.
static void read_router(Keys *k, Config *c, LayerRules *rules) {
    enum { SOFTMAX = 1, SIGMOID = 2 };
    if (!c->shared_dim) router_set_shared(c, get_int(k, "expert_shared_count", 0, 0));
    router_set_dense(rules, get_int(k, "leading_dense_block_count", 0, 0));
    c->experts_scale = get_real(k, "expert_weights_scale", 0);
    int scores = (int)gguf_get_whole(k->g, key(k, "expert_gating_func"), 0, SIGMOID, 0);
    if (scores) c->router_sigmoid = scores == SIGMOID;
    c->n_expert_groups = get_int(k, "expert_group_count", 0, 0);
    c->n_groups_used = get_int(k, "expert_group_used_count", 0, c->n_expert_groups == 1);
}

// Llama 4's: the last of every so many layers has experts, and one more as wide for every token; queries and keys are
// normed but for the model with this number of experts, which no key tells.
static void read_interleaved(Keys *k, Config *c, LayerRules *rules) {
    enum { WITHOUT_NORM = 128 };
    LayerSet routed = {0};
    if (!c->shared_dim) c->shared_dim = config_expert_dim(c);
    if (c->n_experts == WITHOUT_NORM) c->qk_norm = QK_NORM_NONE;
    layers_add_every(&routed,
                     (int)gguf_get_whole(k->g, key(k, "interleave_moe_layer_step"), 1, MAX_LAYERS, GGUF_NEEDED));
    layers_add_others(&rules->dense, &routed);
}

static void read_feed_forward(Keys *k, Config *c, const Family *f, LayerRules *rules) {
    Field list[MAX_FIELDS];
    if (f->no_feed_forward) {
        layers_add_every(&rules->bare, 1);
        return;
    }
    read_fields(k, list, fields_of_feed_forward(c, f, list), c, rules);
    if (f->one_sublayer) layers_add_others(&rules->idle, &rules->bare); // a feed-forward network, unless they are bare
    if (!c->n_experts) return;
    c->experts_keep_softmax = !gguf_get_bool(k->g, key(k, "expert_weights_norm"), !c->experts_keep_softmax);
    if (f->router) read_router(k, c, rules);
    if (f->chunked) read_interleaved(k, c, rules);
}

// ---- recurrent layers

// Which layers have attention: every so many, unless an array says which have not.
static void read_recurrent_layers(Keys *k, const Config *c, const Family *f, LayerRules *rules) {
    const char *name = key(k, "attention.recurrent_layers");
    int recurrent[MAX_LAYERS], n = c->n_layers <= MAX_LAYERS ? c->n_layers : 0;
    bool all = f->no_attention || f->mixer == MIX_SSM_ATTENTION;
    if (all) layers_add_every(&rules->recurrent, 1);
    if (all || f->zeros_by_layer) return;
    if (gguf_get_value(k->g, name, false)) {
        gguf_get_wholes(k->g, name, 0, 1, n, recurrent);
        for (int i = 0; i < n; i++) {
            if (recurrent[i]) layers_add(&rules->recurrent, i);
        }
        return;
    }
    int period = get_int(k, "full_attention_interval", 1, f->attention_period);
    for (int i = 0; i < n; i++) {
        if ((i + 1) % period) layers_add(&rules->recurrent, i);
    }
}

// Of RWKV: every layer is recurrent.
static void read_wkv(Keys *k, Config *c, StateShape *s, LayerRules *rules) {
    const char *name = key(k, "wkv.head_size");
    if (!state_set_heads(s, rules->mixer, c->dim)) {
        cursor_fail(&k->g->in, gguf_get_value(k->g, name, true)->at,
                    "%s: expected a divisor of %s.embedding_length = %d, found %d", name, k->arch, c->dim, s->k_dim);
    }
    int shifts = c->channel_mix ? 2 : 1;
    gguf_get_whole(k->g, key(k, "token_shift_count"), shifts, shifts, shifts);
    if (!c->channel_mix) s->conv_dim = c->dim; // the rows before of the time mixing alone
    if (rules->mixer == MIX_RWKV6) c->rescale_every = get_int(k, "rescale_every_n_layers", 0, 0);
    layers_add_every(&rules->recurrent, 1);
}

// The width of a value head.
static void read_inner_size(Keys *k, StateShape *s) {
    int inner = get_int(k, "ssm.inner_size", 1, GGUF_NEEDED);
    s->v_dim = inner / s->n_heads;
    if (inner % s->n_heads == 0 || k->g->in.failed) return;
    const char *name = key(k, "ssm.inner_size");
    cursor_fail(&k->g->in, gguf_get_value(k->g, name, true)->at, "%s: expected a multiple of %d heads, found %d", name,
                s->n_heads, inner);
}

static void read_recurrence(Keys *k, Config *c, const Family *f, LayerRules *rules) {
    StateShape *s = &rules->state;
    Field list[MAX_FIELDS];
    rules->mixer = f->mixer;
    read_fields(k, list, fields_of_state(s, f->mixer, list), c, rules);
    if (k->g->in.failed) return;
    if (f->mixer == MIX_RWKV6 || f->mixer == MIX_RWKV7) {
        read_wkv(k, c, s, rules);
        return;
    }
    if (f->mixer == MIX_MAMBA) {
        s->n_heads = s->n_key_heads = s->scan = 1;
        c->step_rank = get_int(k, "ssm.time_step_rank", 1, GGUF_NEEDED);
        c->step_norm_eps = gguf_get_bool(k->g, key(k, "ssm.dt_b_c_rms"), false) ? c->norm_eps : 0;
    }
    if (f->mixer != MIX_CONV) read_inner_size(k, s);
    state_set_channels(s, f->mixer, c->dim);
    read_recurrent_layers(k, c, f, rules);
}

static void read_scaling(Keys *k, const Config *c, const Family *f, RopeScaling *s) {
    static const struct {
        const char *name;
        RopeScalingKind kind;
    } kinds[] = {{"none", ROPE_UNSCALED}, {"linear", ROPE_LINEAR}, {"yarn", ROPE_YARN}, {"longrope", ROPE_LONG}};
    Gguf *g = k->g;
    float old = get_real(k, "rope.scale_linear", 1); // before there were types
    *s = (RopeScaling){.kind = old != 1 ? ROPE_LINEAR : ROPE_UNSCALED};
    uint64_t n;
    const char *name = gguf_get_text(g, key(k, "rope.scaling.type"), false, &n);
    bool known = !name;
    for (size_t i = 0; name && i < sizeof kinds / sizeof *kinds; i++) {
        if (strlen(kinds[i].name) != n || memcmp(kinds[i].name, name, n) != 0) continue;
        s->kind = kinds[i].kind;
        known = true;
    }
    if (!known) {
        cursor_fail(&g->in, gguf_get_value(g, k->key, true)->at,
                    "%s: expected none, linear, yarn or longrope (no other is supported), found '%.*s'", k->key,
                    n < 40 ? (int)n : 40, name);
    }
    s->factor = get_real(k, "rope.scaling.factor", (double)old);
    s->original_ctx = get_int(k, "rope.scaling.original_context_length", 1, c->max_seq_len);
    s->beta_fast = get_real(k, "rope.scaling.yarn_beta_fast", 32);
    s->beta_slow = get_real(k, "rope.scaling.yarn_beta_slow", 1);
    s->attention_factor = get_real(k, "rope.scaling.attn_factor", 0);
    // GGUF's factor multiplies the paper's; its multiplier is DeepSeek's mscale_all_dim, the divisor's.
    float paper = 0.1f * logf(s->factor) + 1, multiplier = get_real(k, "rope.scaling.yarn_log_multiplier", 0);
    if (s->kind == ROPE_YARN && s->attention_factor > 0) s->attention_factor *= paper;
    else if (s->kind == ROPE_YARN && multiplier > 0)
        s->attention_factor = paper / (0.1f * multiplier * logf(s->factor) + 1);
    if (s->kind == ROPE_LONG && s->factor <= 1 && s->original_ctx) {
        s->factor = (float)c->max_seq_len / (float)s->original_ctx;
    }
    s->whole_dims = !f->exact_yarn_borders;
}

// The multiplier is a tenth of DeepSeek's mscale_all_dim: scores are times the square of YaRN's magnitude with it, and
// cos and sin stay, as in models whose mscale is the same.
static void read_latent_scale(Keys *k, Config *c) {
    LayerKind *kind = &c->kinds[0];
    RopeScaling *s = &kind->rope.scaling;
    float multiplier = get_real(k, "rope.scaling.yarn_log_multiplier", 0);
    if (s->kind != ROPE_YARN || !(multiplier > 0)) return;
    float magnitude = 1 + multiplier * logf(s->factor);
    c->attn_scale = magnitude * magnitude / sqrtf((float)kind->latent.nope_dim + (float)kind->rope.rotary_dim);
    if (!gguf_get_value(k->g, key(k, "rope.scaling.attn_factor"), false)) s->attention_factor = 1;
}

static void read_positions(Keys *k, Config *c, const Family *f, LayerRules *rules) {
    LayerKind *kind = &c->kinds[0];
    if (c->learned_positions || c->alibi_max > 0 || f->no_rope) return;
    if (f->rope_if_asked && !gguf_get_bool(k->g, key(k, "rope.scaling.finetuned"), false)) return;
    kind->rope.pairing = f->gguf_pairing;
    kind->rope.rotary_dim = get_int(k, "rope.dimension_count", 1, kind->k_dim);
    kind->rope.theta = get_real(k, "rope.freq_base", 10000);
    float theta = get_real(k, "rope.freq_base_swa", (double)f->window_theta);
    if (f->window_theta > 0 || theta != kind->rope.theta) rules->window_theta = theta;
    read_scaling(k, c, f, &kind->rope.scaling);
    if (kind->mixer == MIX_LATENT) read_latent_scale(k, c);
    bool scaled = kind->rope.scaling.kind != ROPE_UNSCALED;
    if (f->window_theta > 0 || rules->window_theta == 0 || !scaled || k->g->in.failed) return;
    const char *name = key(k, "rope.freq_base_swa");
    cursor_fail(&k->g->in, gguf_get_value(k->g, name, true)->at,
                "%s: expected %g, as without a window: this family scales both, found %g", name,
                (double)kind->rope.theta, (double)theta);
}

// Which layers have a window: the last of every so many has none, or a bool for each layer. Absent: the family's.
static void read_pattern(Keys *k, const Config *c, const Family *f, LayerRules *rules) {
    const char *name = key(k, "attention.sliding_window_pattern");
    int slides[MAX_LAYERS], n = c->n_layers <= MAX_LAYERS ? c->n_layers : 0;
    if (!gguf_is_array(k->g, name)) {
        layers_add_every(&rules->full, (int)gguf_get_whole(k->g, name, 0, MAX_LAYERS, f->global_period));
        return;
    }
    gguf_get_wholes(k->g, name, 0, 1, n, slides);
    for (int i = 0; i < n; i++) {
        if (!slides[i]) layers_add(&rules->full, i);
    }
}

// Factors of the scores, the residual connections and the logits.
static void read_scales(Keys *k, Config *c, const Family *f, const LayerRules *rules) {
    if (f->multipliers) {
        c->attn_scale = get_real(k, "attention.scale", 0);
        c->embedding_scale = get_real(k, "embedding_scale", 0);
        c->residual_scale = get_real(k, "residual_scale", 0);
        float divisor = get_real(k, "logit_scale", f->mixer ? 1 : GGUF_NEEDED); // Bamba's files have none
        c->logit_scale = divisor > 0 ? 1 / divisor : -1;                        // refused by config_check
    }
    if (f->logit_scale) c->logit_scale = get_real(k, "logit_scale", 0);
    if (f->depth_scales) { // MiniCPM 3's, for which GGUF has no keys
        c->embedding_scale = 12;
        c->residual_scale = 1.4f / sqrtf((float)c->n_layers);
        c->logit_scale = 256 / (float)c->dim;
    }
    if (f->attn_config) {
        c->qkv_clamp = get_real(k, "attention.clamp_kqv", 0);
        c->alibi_max = get_real(k, "attention.max_alibi_bias", 0);
    }
    c->temperature = get_real(k, "attention.temperature_scale", f->chunked && rules->window ? 0.1 : 0);
    int context = f->chunked ? 8192 : c->kinds[0].rope.scaling.original_ctx;
    if (c->temperature > 0) c->temperature_ctx = get_int(k, "attention.temperature_length", 1, context);
}

// What a file may override of its family.
static void read_attention(Keys *k, Config *c, const Family *f, LayerRules *rules) {
    rules->window = get_int(k, "attention.sliding_window", 0, f->gguf_window);
    if (f->window_needed) gguf_get_whole(k->g, key(k, "attention.sliding_window"), 1, INT_MAX, GGUF_NEEDED);
    read_pattern(k, c, f, rules);
    layers_add_every(&rules->nope, f->nope_period);
    if (f->global_nope && rules->window) rules->nope = rules->full;
    rules->chunked = f->chunked;
    read_scales(k, c, f, rules);
    if (c->attn_softcap > 0) c->attn_softcap = get_real(k, "attn_logit_softcapping", (double)c->attn_softcap);
    if (c->logit_softcap > 0) c->logit_softcap = get_real(k, "final_logit_softcapping", (double)c->logit_softcap);
    c->parallel = gguf_get_bool(k->g, key(k, "use_parallel_residual"), c->parallel);
    if (f->big_layers && c->n_layers == f->big_layers) {
        c->attn_scale = 1 / sqrtf((float)c->dim / (float)c->kinds[0].n_heads);
    }
    float scale = get_real(k, "attention.scale", 0);
    if (scale != 0) c->attn_scale = scale;
}

// Settings that would change the computation, unless they have this value or the family reads them.
static void refuse_others(Keys *k, const Family *f) {
    const struct {
        const char *name;
        double neutral;
        bool read;
    } numbers[] = {{"attention.clamp_kqv", 0, f->attn_config},   {"attention.max_alibi_bias", 0, f->attn_config},
                   {"attention.shared_kv_layers", 0, false},     {"embedding_scale", 1, f->multipliers},
                   {"residual_scale", 1, f->multipliers},        {"logit_scale", 1, f->multipliers || f->logit_scale},
                   {"expert_weights_scale", 1, f->router},       {"leading_dense_block_count", 0, f->router},
                   {"interleave_moe_layer_step", 1, f->chunked}, {"nextn_predict_layers", 0, f->extra_layers}};
    Gguf *g = k->g;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const GgufValue *v = gguf_get_value(g, key(k, numbers[i].name), false);
        double found = v ? gguf_get_number(g, k->key) : numbers[i].neutral;
        if (numbers[i].read || found == numbers[i].neutral || found == 0 || g->in.failed) continue;
        cursor_fail(&g->in, v->at, "%s: expected %g (no other is supported), found %g", k->key, numbers[i].neutral,
                    found);
    }
    if (!gguf_get_bool(g, key(k, "attention.causal"), true)) {
        cursor_fail(&g->in, gguf_get_value(g, k->key, true)->at, "%s: expected true: this is no decoder", k->key);
    }
    int scores = f->base.router_sigmoid ? 2 : 1; // 1: softmax
    if (!f->router) gguf_get_whole(g, key(k, "expert_gating_func"), scores > 1 ? scores : 0, scores, scores);
}

static const Family *read_config(Gguf *g, Config *c) {
    Keys k = {.g = g};
    const Family *f = read_family(g, &k);
    if (!f) return NULL;
    *c = f->base;
    c->norm_plus_one = false; // the files have it added
    LayerRules rules = {0};
    read_sizes(&k, c, f, &rules);
    read_feed_forward(&k, c, f, &rules);
    if (f->mixer) read_recurrence(&k, c, f, &rules);
    if (!f->no_attention) {
        read_positions(&k, c, f, &rules);
        read_attention(&k, c, f, &rules);
    }
    refuse_others(&k, f);
    int layer = config_set_layers(c, &rules);
    if (layer >= 0) {
        cursor_fail(&g->in, g->in.pos, "layer %d: expected at most %d kinds of layers, found more", layer,
                    MAX_LAYER_KINDS);
    }
    if (f->scaled_embedding) c->embedding_scale = sqrtf((float)c->dim);
    return f;
}

// The first layer with experts tells whether the router has numbers to choose by.
static bool has_choice_bias(const Model *m) {
    const Config *c = &m->config;
    char name[40];
    int layer = 0;
    while (layer < c->n_layers && layer < MAX_LAYERS && config_kind(c, layer)->ffn != FFN_EXPERTS) layer++;
    snprintf(name, sizeof name, "blk.%d.exp_probs_b.bias", layer);
    return weights_find(&m->weights, name) != NULL;
}

// Factors of frequencies for two contexts, without settings that name them (MiniCPM 3).
static void set_long_rope(Config *c) {
    for (int i = 0; i < c->n_kinds; i++) {
        RopeConfig *rope = &c->kinds[i].rope;
        if (rope->scaling.kind != ROPE_UNSCALED) continue;
        rope->scaling =
            (RopeScaling){.kind = ROPE_LONG, .factor = 1, .original_ctx = c->max_seq_len, .attention_factor = 1};
    }
}

static bool some_layer_has(const Model *m, const char *name) {
    for (int i = 0; i < m->config.n_layers && i < MAX_LAYERS; i++) {
        char whole[80];
        snprintf(whole, sizeof whole, "blk.%d.%s", i, name);
        if (weights_find(&m->weights, whole)) return true;
    }
    return false;
}

// Experts are where a router is.
static void keep_routed(Model *m) {
    Config *c = &m->config;
    LayerKind base;
    LayerRules rules = config_rules(c, &base);
    bool some = false;
    for (int i = 0; i < c->n_layers && i < MAX_LAYERS; i++) {
        char name[80];
        snprintf(name, sizeof name, "blk.%d.ffn_gate_inp.weight", i);
        bool routed = weights_find(&m->weights, name);
        if (!routed) layers_add(&rules.dense, i);
        some |= routed;
    }
    if (!some) config_drop_experts(c);
    c->kinds[0] = base;
    config_set_layers(c, &rules);
}

// What only the tensors tell, once all are in the table.
static int finish_config(Model *m, char *err, size_t errlen) {
    Config *c = &m->config;
    const char *path = m->weights.files[0].path;
    const Tensor *tokens = weights_find(&m->weights, "token_embd.weight");
    const Tensor *head = weights_find(&m->weights, "output.weight");
    bool head_alone = head && !tokens; // then it is both
    if (head_alone) tokens = head;
    if (!tokens) return fail(err, errlen, "%s: tensor token_embd.weight: expected, not found", path);
    c->vocab_size = tokens->shape[0] > INT_MAX ? INT_MAX : (int)tokens->shape[0];
    c->tied = head_alone || !head;
    c->qkv_bias |= some_layer_has(m, "attn_q.bias") || some_layer_has(m, "attn_qkv.bias");
    c->out_bias |= some_layer_has(m, "attn_output.bias");
    c->ffn_bias |= some_layer_has(m, "ffn_down.bias");
    c->output_bias |= weights_find(&m->weights, "output.bias") != NULL;
    c->no_norm_bias &= !weights_find(&m->weights, "output_norm.bias");
    if (c->n_experts && m->family->router) c->router_choice_bias = has_choice_bias(m);
    if (weights_find(&m->weights, "rope_factors_long.weight")) set_long_rope(c);
    if (m->family->optional_qk_norm && weights_find(&m->weights, "blk.0.attn_q_norm.weight"))
        c->qk_norm = m->family->optional_qk_norm;
    if (c->shared_norm) c->parallel = !weights_find(&m->weights, "blk.0.ffn_norm.weight");
    if (m->family->two_norms && weights_find(&m->weights, "blk.0.attn_norm_2.weight")) {
        m->family = m->family->two_norms;
        c->shared_norm = false;
    }
    if (m->family->some_experts) keep_routed(m);
    return config_check(c, path, err, errlen);
}

// ---- files

static int add_tensors(Weights *w, const Gguf *g, char *err, size_t errlen) {
    for (ptrdiff_t i = 0; i < arrlen(g->infos); i++) {
        if (weights_add(w, g->infos[i].name, g->infos[i].tensor, err, errlen)) return -1;
    }
    return 0;
}

// Part `number` of n: its tensors join the table.
static int add_part(Weights *w, const char *path, int number, int n, char *err, size_t errlen) {
    File file;
    Gguf g;
    if (file_map(&file, path, err, errlen)) return -1;
    arrput(w->files, file);
    int rc = gguf_read(&g, &file, err, errlen);
    gguf_get_whole(&g, "split.no", number, number, GGUF_NEEDED);
    gguf_get_whole(&g, "split.count", n, n, GGUF_NEEDED);
    if (g.in.failed || add_tensors(w, &g, err, errlen)) rc = -1;
    gguf_free(&g);
    return rc;
}

// The other parts of a model that is split into files, all named after the first.
static int add_parts(Weights *w, Gguf *first, char *err, size_t errlen) {
    int n = (int)gguf_get_whole(first, "split.count", 0, 65535, 0);
    if (n < 2 || first->in.failed) return first->in.failed ? -1 : 0;
    gguf_get_whole(first, "split.no", 0, 0, GGUF_NEEDED);
    int64_t n_tensors = gguf_get_whole(first, "split.tensors.count", 1, INT_MAX, GGUF_NEEDED);
    if (first->in.failed) return -1;
    const char *path = first->file.path;
    size_t length = strlen(path), stem = length - (length < SPLIT_NAME ? length : SPLIT_NAME);
    char want[SPLIT_NAME + 8];
    snprintf(want, sizeof want, "-00001-of-%05d.gguf", n);
    if (strcmp(path + stem, want) != 0) {
        return fail(err, errlen, "%s: split.count: %d: expected a name that ends in %s", path, n, want);
    }
    char *other = malloc(length + sizeof want);
    int rc = other ? 0 : fail(err, errlen, "%s: out of memory", path);
    for (int i = 1; i < n && !rc; i++) {
        snprintf(other, length + sizeof want, "%.*s-%05d-of-%05d.gguf", (int)stem, path, i + 1, n);
        rc = add_part(w, other, i, n, err, errlen);
    }
    free(other);
    if (rc || (int64_t)weights_count(w) == n_tensors) return rc;
    return fail(err, errlen, "%s: split.tensors.count: expected %lld in all %d files, found %zu", path,
                (long long)n_tensors, n, weights_count(w));
}

// One of xIELU's numbers, of every layer or the same for all: a tensor of each layer.
static int add_xielu(Model *m, Gguf *g, const char *number, char *err, size_t errlen) {
    int n = m->config.n_layers;
    char name[40];
    snprintf(name, sizeof name, "xielu.%s", number);
    const GgufValue *v = gguf_get_value(g, name, true);
    bool list = v && v->is_array;
    v = gguf_open(g, name, true, list, 1u << GGUF_F32, "numbers");
    if (!v || g->in.failed) return -1;
    if (list && v->count != (uint64_t)n) {
        cursor_fail(&g->in, v->at, "%s: expected %d layers, found %llu", name, n, (unsigned long long)v->count);
        return -1;
    }
    float *all = weights_own(&m->weights, sizeof *all * (size_t)n);
    if (!all) return fail(err, errlen, "%s: out of memory", g->file.path);
    for (int i = 0; i < n; i++) {
        all[i] = i && !list ? all[0] : cursor_f32(&g->in, name);
        Tensor t = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {1}, .data = all + i};
        char part[40];
        snprintf(part, sizeof part, "blk.%d.xielu_%s", i, number);
        if (weights_add(&m->weights, part, t, err, errlen)) return -1;
    }
    return g->in.failed ? -1 : 0;
}

static int add_numbers(Model *m, Gguf *g, char *err, size_t errlen) {
    static const char *const numbers[] = {"alpha_p", "alpha_n", "beta", "eps"};
    bool wanted = m->config.xielu && m->config.n_layers <= MAX_LAYERS;
    for (int i = 0; wanted && i < 4; i++) {
        if (add_xielu(m, g, numbers[i], err, errlen)) return -1;
    }
    return 0;
}

static bool text_is(const char *text, uint64_t n, const char *want) {
    return text && n == strlen(want) && !memcmp(text, want, n);
}

// Files beside a model, which people name in place of it.
static int refuse_kind(Gguf *g, char *err, size_t errlen) {
    static const char *const kinds[][2] = {
        {"adapter", "a LoRA adapter: the whole model is needed, with the adapter merged into it"},
        {"mmproj", "the part of a model that reads pictures (mmproj): the model itself is needed"},
        {"imatrix", "an importance matrix: the model that was quantized with it is needed"},
        {"vocab", "a vocabulary without a model: build/tokenize reads it"}};
    const char *path = g->file.path;
    uint64_t n;
    const char *type = gguf_get_text(g, "general.type", false, &n);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (text_is(type, n, kinds[i][0]))
            return fail(err, errlen, "%s: expected a model, found %s", path, kinds[i][1]);
    }
    int part = (int)gguf_get_whole(g, "split.no", 0, 65535, 0),
        parts = (int)gguf_get_whole(g, "split.count", 0, 65535, 0);
    size_t length = strlen(path), stem = length - (length < SPLIT_NAME ? length : SPLIT_NAME);
    char first[SPLIT_NAME + 8];
    snprintf(first, sizeof first, "-00001-of-%05d.gguf", parts);
    if (!part || g->in.failed || !strcmp(path + stem, first)) return g->in.failed ? -1 : 0;
    return fail(err, errlen, "%s: part %d of %d of a split model: name the first, %.*s%s", path, part + 1, parts,
                (int)stem, path, first);
}

static int read_model(Model *m, Gguf *g, char *err, size_t errlen) {
    File file = m->weights.files[0]; // the array moves when parts are added
    if (gguf_read(g, &file, err, errlen) || refuse_kind(g, err, errlen)) return -1;
    snprintf(m->kind, sizeof m->kind, "GGUF v%u", g->version);
    m->family = read_config(g, &m->config);
    sampling_read_gguf(m, g);
    if (g->in.failed || add_tensors(&m->weights, g, err, errlen) || add_parts(&m->weights, g, err, errlen) ||
        add_numbers(m, g, err, errlen))
        return -1;
    return finish_config(m, err, errlen);
}

int load_gguf_file(Model *m, File *file, char *err, size_t errlen) {
    Gguf g;
    memset(m, 0, sizeof *m);
    arrput(m->weights.files, *file);
    memset(file, 0, sizeof *file);
    int rc = read_model(m, &g, err, errlen);
    gguf_free(&g);
    if (!rc) return 0;
    weights_free(&m->weights);
    memset(m, 0, sizeof *m);
    return -1;
}
