// load_hf: a decoder from a Hugging Face folder: config.json and safetensors.
//
// Owns what the settings of a family are called there. Refuses a model_type that families.c does not list, and a
// setting that would change the computation and that nothing here computes. Called by load_model. The keys are those of
// the models' config.json and of huggingface.co/docs/transformers, "model_doc".
#include "fields.h"
#include "hybrid_hf.h"
#include "load.h"
#include "sampling.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const double LARGE = 1e30;

Activation load_activation(Settings *s, const char *key) {
    const char *name = settings_string(s, key, "gelu");
    Activation a = activation_named(name);
    if (!a) {
        settings_fail(s, key, "expected gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu or silu, found '%.40s'",
                      name);
    }
    return a;
}

void load_heads(Settings *s, Config *c, const char *key, int fallback) {
    int n = settings_int(s, key, 1, MAX_WIDTH, fallback);
    if (!settings_failed(s) && c->dim % n)
        settings_fail(s, key, "expected a divisor of the width %d, found %d", c->dim, n);
    config_set_heads(c, n);
}

// ---- sizes, feed-forward layers, biases

// An array with one number for each layer.
static void read_by_layer(Settings *s, const char *key, const Field *f, const Config *c, LayerRules *rules) {
    const json_t *list = json_object_get(s->object, key);
    int numbers[MAX_LAYERS], n = c->n_layers <= MAX_LAYERS ? c->n_layers : 0;
    if (json_array_size(list) != (size_t)n) {
        settings_fail(s, key, "expected one number for each of %d layers, found %zu", c->n_layers,
                      json_array_size(list));
    }
    for (int i = 0; i < n && !settings_failed(s); i++) {
        int64_t x;
        if (!settings_whole(json_array_get(list, (size_t)i), &x) || x < f->least || x > INT_MAX)
            settings_fail(s, key, "layer %d: expected an integer from %d to %d", i, f->least, INT_MAX);
        else numbers[i] = (int)x;
    }
    int differs = settings_failed(s) || !n ? -1 : field_set_layers(f, c, numbers, rules);
    if (differs < 0) return;
    settings_fail(s, key, "layer %d: expected %d, as in layer 0, found %d: layers that differ in it are not supported",
                  differs, numbers[0], numbers[differs]);
}

// Numbers of layers, into the set.
static void read_numbers(Settings *s, const char *key, int n_layers, LayerSet *set) {
    const json_t *list = json_object_get(s->object, key);
    if (!json_is_array(list)) settings_fail(s, key, "expected an array of numbers of layers");
    for (size_t i = 0; i < json_array_size(list) && !settings_failed(s); i++) {
        int64_t layer;
        bool known = settings_whole(json_array_get(list, i), &layer) && layer >= 0 && layer < n_layers;
        if (known && layer < MAX_LAYERS) layers_add(set, (int)layer);
        else settings_fail(s, key, "expected numbers of layers, 0 to %d", n_layers - 1);
    }
}

static void read_fields(Settings *s, const Field *list, int n, const Config *c, LayerRules *rules) {
    for (int i = 0; i < n; i++) {
        const Field *f = &list[i];
        const char *key = settings_any(s, f->hf);
        if (field_by_layer(f, c) && json_is_array(json_object_get(s->object, key))) read_by_layer(s, key, f, c, rules);
        else if (settings_has(s, key) || f->absent == FIELD_REQUIRED)
            *f->value = settings_int(s, key, f->least, INT_MAX, -1);
        else if (f->absent != FIELD_KEEP) *f->value = f->absent;
    }
}

// Falcon's KV heads: one, unless the model has the newer architecture, or none shares.
static void read_multi_query(Settings *s, Model *m) {
    LayerKind *k = &m->config.kinds[0];
    bool newer = settings_bool(s, "new_decoder_architecture", false);
    bool one = !newer && settings_bool(s, "multi_query", true);
    int named = settings_int(s, SETTINGS_ANY(s, "num_kv_heads", "n_head_kv"), 1, MAX_WIDTH, k->n_heads);
    k->n_kv_heads = one ? 1 : newer ? named : k->n_heads;
    if (!newer || settings_int(s, "num_ln_in_parallel_attn", 1, 2, 2) == 1) return;
    m->family = m->family->two_norms;
    m->config.shared_norm = false;
}

static void read_head_sizes(Settings *s, Model *m, LayerRules *rules) {
    Config *c = &m->config;
    Field list[MAX_FIELDS];
    if (!settings_has(s, "num_key_value_heads")) memcpy(rules->n_kv_heads, rules->n_heads, sizeof rules->n_heads);
    read_fields(s, list, fields_of_heads(c, list), c, rules);
    if (m->family->multi_query) read_multi_query(s, m);
    if (fields_default_width(c)) return;
    settings_fail(s, "num_attention_heads", "expected a divisor of hidden_size = %d, found %d", c->dim,
                  c->kinds[0].n_heads);
}

// The classes of all these models have norms of latents with an eps of their own.
static void read_latent(Settings *s, Config *c, LayerRules *rules) {
    static const float eps = 1e-6f;
    LayerKind *k = &c->kinds[0];
    Field list[MAX_FIELDS];
    read_fields(s, list, fields_of_latent(c, list), c, rules);
    if (settings_failed(s)) return;
    k->latent.nope_dim = settings_int(s, "qk_nope_head_dim", 1, MAX_WIDTH, 0);
    k->latent.value_dim = settings_int(s, "v_head_dim", 1, MAX_WIDTH, c->dim / k->n_heads);
    c->latent_eps = eps;
    latent_set_cache(k);
}

static void read_sizes(Settings *s, Model *m, LayerRules *rules) {
    Config *c = &m->config;
    const Family *f = m->family;
    Field list[MAX_FIELDS];
    read_fields(s, list, fields_of_shape(c, f, list), c, rules);
    if (settings_failed(s)) return;
    if (c->kinds[0].mixer == MIX_LATENT) read_latent(s, c, rules);
    else if (!f->no_attention) read_head_sizes(s, m, rules);
    c->vocab_size = settings_int(s, "vocab_size", 1, INT_MAX, 0);
    const char *eps =
        SETTINGS_ANY(s, "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps");
    c->norm_eps = (float)settings_number(s, eps, 0, 1, f->default_eps > 0 ? (double)f->default_eps : -1);
}

// The width of the feed-forward layers where only their ratio to the model's is given.
static int hidden_of_ratio(Settings *s, const Config *c, const Family *f) {
    double ratio = settings_number(s, "hidden_ratio", 1e-3, MAX_WIDTH, 4);
    double width = floor(c->dim * ratio * (c->plain_ffn ? 1 : 2.0 / 3)), step = f->hidden_step;
    return (int)fmin(ceil(width / step) * step, INT_MAX); // refused by config_check
}

// LFM2's: sigmoids, and a number of each expert to choose by unless the settings say no.
static void read_lfm2_router(Settings *s, Config *c, LayerRules *rules) {
    c->router_choice_bias = settings_bool(s, "use_expert_bias", true);
    c->experts_scale = (float)settings_number(s, "routed_scaling_factor", 0, LARGE, 1);
    router_set_dense(rules, settings_int(s, "num_dense_layers", 0, MAX_LAYERS, -1));
}

// DeepSeek's: how experts are scored and chosen, and which layers have none.
static void read_router(Settings *s, Config *c, LayerRules *rules) {
    static const char *const methods[] = {"greedy", "group_limited_greedy", "noaux_tc"};
    const char *scores = settings_string(s, "scoring_func", c->router_sigmoid ? "sigmoid" : "softmax");
    c->router_sigmoid = !strcmp(scores, "sigmoid");
    if (!c->router_sigmoid && strcmp(scores, "softmax") != 0)
        settings_fail(s, "scoring_func", "expected softmax or sigmoid, found '%.40s'", scores);
    const char *method = settings_string(s, "topk_method", methods[c->router_sigmoid ? 2 : 0]);
    c->router_choice_bias = !strcmp(method, methods[2]);
    bool known = c->router_choice_bias || !strcmp(method, methods[0]) || !strcmp(method, methods[1]);
    if (!known || c->router_choice_bias != c->router_sigmoid) {
        settings_fail(s, "topk_method", "expected %s, found '%.40s'",
                      c->router_sigmoid ? "noaux_tc" : "greedy or group_limited_greedy", method);
    }
    if (strcmp(method, methods[0]) != 0) {
        c->n_expert_groups = settings_int(s, "n_group", 1, MAX_EXPERTS, 1);
        c->n_groups_used = settings_int(s, "topk_group", 1, MAX_EXPERTS, 1);
    }
    if (!c->shared_dim) router_set_shared(c, settings_int(s, "n_shared_experts", 0, MAX_EXPERTS, 0));
    c->experts_scale = (float)settings_number(s, "routed_scaling_factor", 0, LARGE, 1);
    settings_int(s, "moe_layer_freq", 1, 1, 1);
    router_set_dense(rules, settings_int(s, "first_k_dense_replace", 0, MAX_LAYERS, 0));
}

// Llama 4's: experts of one width, one more of it for every token, in every so many layers or those that are listed;
// the others' networks have a width of their own.
static void read_interleaved(Settings *s, Config *c, LayerRules *rules) {
    c->expert_dim = c->shared_dim = c->hidden_dim;
    c->hidden_dim = settings_int(s, "intermediate_size_mlp", 1, INT_MAX, -1);
    if (!c->n_experts) return;
    LayerSet routed = {0};
    if (settings_has(s, "moe_layers")) read_numbers(s, "moe_layers", c->n_layers, &routed);
    else layers_add_every(&routed, settings_int(s, "interleave_moe_layer_step", 1, MAX_LAYERS, 1));
    layers_add_others(&rules->dense, &routed);
}

// LFM2 says a width that a gate makes smaller: 2/3 of it, times a factor, up to a multiple.
static void adjust_hidden(Settings *s, Config *c) {
    double width = floor(2 * (double)c->hidden_dim / 3);
    if (settings_has(s, "block_ffn_dim_multiplier")) {
        double step = settings_int(s, "block_multiple_of", 1, MAX_WIDTH, -1);
        width = floor(settings_number(s, "block_ffn_dim_multiplier", 1e-3, MAX_WIDTH, -1) * width);
        width = ceil(width / step) * step;
    }
    c->hidden_dim = (int)fmin(width, INT_MAX); // refused by config_check
}

static void read_feed_forward(Settings *s, Config *c, const Family *f, LayerRules *rules) {
    Field list[MAX_FIELDS];
    if (f->no_feed_forward) {
        layers_add_every(&rules->bare, 1);
        return;
    }
    read_fields(s, list, fields_of_feed_forward(c, f, list), c, rules);
    if (f->chunked) read_interleaved(s, c, rules);
    if (f->hidden_step && !settings_has(s, "intermediate_size")) c->hidden_dim = hidden_of_ratio(s, c, f);
    if (settings_has(s, "block_ff_dim")) c->hidden_dim = settings_int(s, "block_ff_dim", 1, INT_MAX, -1);
    if (settings_bool(s, "block_auto_adjust_ff_dim", false)) adjust_hidden(s, c);
    const char *act = f->activation_key ? f->activation_key : SETTINGS_ANY(s, "hidden_act", "activation_function");
    if (settings_has(s, act) && !f->fixed_activation) c->activation = load_activation(s, act);
    if (c->xielu && strcmp(settings_string(s, act, "xielu"), "xielu") != 0)
        settings_fail(s, act, "expected xielu (no other is supported), found '%.40s'", settings_string(s, act, ""));
    if (c->ffn_clamp > 0) c->ffn_clamp = (float)settings_number(s, "swiglu_limit", 1e-3, LARGE, (double)c->ffn_clamp);
    if (f->shared_mlp) {
        int shared = settings_int(s, "shared_intermediate_size", 1, MAX_WIDTH, 1024);
        *(c->n_experts ? &c->shared_dim : &c->hidden_dim) = shared;
    }
    if (!c->n_experts) return;
    if (c->router_jitter > 0)
        c->router_jitter = (float)settings_number(s, "router_jitter_noise", 1e-9, 1, (double)c->router_jitter);
    c->experts_keep_softmax = !settings_bool(s, "norm_topk_prob", !c->experts_keep_softmax);
    settings_int(s, "decoder_sparse_step", 1, 1, 1); // experts in every layer
    if (json_array_size(json_object_get(s->object, "mlp_only_layers"))) {
        settings_fail(s, "mlp_only_layers", "expected none: layers without experts among others are not supported");
    }
    if (f->router && f->mixer == MIX_CONV) read_lfm2_router(s, c, rules);
    else if (f->router) read_router(s, c, rules);
}

static void read_biases(Settings *s, Config *c, const Family *f) {
    const char *all = f->bias_key ? f->bias_key : "use_bias";
    const char *attention = f->attention_bias_key ? f->attention_bias_key : "attention_bias";
    if (settings_has(s, all)) c->qkv_bias = c->out_bias = c->ffn_bias = settings_bool(s, all, false);
    c->qkv_bias = settings_bool(s, "qkv_bias", c->qkv_bias);
    if (settings_has(s, attention)) {
        c->qkv_bias = settings_bool(s, attention, false);
        c->out_bias = c->qkv_bias && !f->out_bias_apart;
    }
    c->out_bias = settings_bool(s, "attention_out_bias", c->out_bias);
    c->ffn_bias = settings_bool(s, "mlp_bias", c->ffn_bias);
    c->output_bias = settings_bool(s, "lm_head_bias", c->output_bias);
    c->conv_bias = f->mixer == MIX_CONV && settings_bool(s, "conv_bias", false);
}

// ---- positions

static void read_long_factors(Settings *rope, Model *m, const char *key, const char *part) {
    enum { MOST = 1 << 12 };
    double values[MOST];
    char name[80];
    int n = m->config.kinds[0].rope.rotary_dim / 2;
    float *copy = n > 0 && n <= MOST ? weights_own(&m->weights, sizeof *copy * (size_t)n) : NULL;
    if (!copy || !settings_numbers(rope, key, n, values)) {
        settings_fail(rope, key, "expected a number for each pair of rotary dimensions, found none");
        return;
    }
    for (int i = 0; i < n; i++) copy[i] = (float)values[i];
    family_tensor_name(m->family, "", part, -1, -1, ".weight", name, sizeof name);
    Tensor t = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {n}, .data = copy};
    char err[100];
    if (weights_add(&m->weights, name, t, err, sizeof err)) settings_fail(rope, key, "%s", err);
}

// YaRN's magnitude from DeepSeek's pair of keys, mscale and mscale_all_dim; 0: absent.
static float read_magnitude(Settings *rope, double factor) {
    double above = settings_number(rope, "mscale", 0, LARGE, 0),
           below = settings_number(rope, "mscale_all_dim", 0, LARGE, 0);
    if (!(above > 0 && below > 0 && factor > 1)) return 0;
    return (float)((0.1 * above * log(factor) + 1) / (0.1 * below * log(factor) + 1));
}

// DeepSeek's: scores are times the square of YaRN's magnitude with mscale_all_dim.
static void read_latent_scale(Settings *rope, Config *c) {
    const LayerKind *k = &c->kinds[0];
    double below = settings_number(rope, "mscale_all_dim", 0, LARGE, 0), factor = (double)k->rope.scaling.factor;
    if (k->rope.scaling.kind != ROPE_YARN || !(below > 0 && factor > 1)) return;
    double magnitude = 0.1 * below * log(factor) + 1;
    c->attn_scale = (float)(magnitude * magnitude / sqrt((double)k->latent.nope_dim + k->rope.rotary_dim));
}

static void read_scaling(Settings *s, Settings *rope, Model *m) {
    static const struct {
        const char *name;
        RopeScalingKind kind;
    } kinds[] = {{"default", ROPE_UNSCALED}, {"linear", ROPE_LINEAR}, {"dynamic", ROPE_DYNAMIC}, {"yarn", ROPE_YARN},
                 {"llama3", ROPE_LLAMA3},    {"longrope", ROPE_LONG}, {"su", ROPE_LONG}};
    Config *c = &m->config;
    const char *key = SETTINGS_ANY(rope, "rope_type", "type"), *name = settings_string(rope, key, "default");
    bool known = false;
    RopeScaling scaling = {0};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, name) != 0) continue;
        scaling.kind = kinds[i].kind;
        known = true;
    }
    if (!known) {
        settings_fail(rope, key,
                      "expected linear, dynamic, yarn, llama3 or longrope (no other is supported), "
                      "found '%.40s'",
                      name);
    }
    double alpha = scaling.kind == ROPE_DYNAMIC ? settings_number(rope, "alpha", 0, LARGE, 0) : 0;
    RopeConfig *r = &c->kinds[0].rope;
    if (alpha > 0 && r->rotary_dim > 2) { // Hunyuan's: theta grows once and for all
        r->theta = (float)((double)r->theta * pow(alpha, r->rotary_dim / (r->rotary_dim - 2.0)));
        return;
    }
    if (scaling.kind == ROPE_UNSCALED) return;
    const char *original = "original_max_position_embeddings";
    int outer = settings_int(s, original, 1, INT_MAX, c->max_seq_len > 0 ? c->max_seq_len : 1);
    scaling.original_ctx = settings_int(rope, original, 1, INT_MAX, outer);
    bool stretched = scaling.kind == ROPE_LONG && !settings_has(rope, "factor") && scaling.original_ctx > 0;
    double implied = stretched ? (double)c->max_seq_len / scaling.original_ctx : -1;
    scaling.factor = (float)settings_number(rope, "factor", 0, LARGE, implied);
    if (scaling.kind == ROPE_LLAMA3) {
        scaling.low_freq = (float)settings_number(rope, "low_freq_factor", 0, LARGE, -1);
        scaling.high_freq = (float)settings_number(rope, "high_freq_factor", 0, LARGE, -1);
    }
    scaling.beta_fast = (float)settings_number(rope, "beta_fast", 0, LARGE, 32);
    scaling.beta_slow = (float)settings_number(rope, "beta_slow", 0, LARGE, 1);
    scaling.whole_dims = settings_bool(rope, "truncate", true);
    scaling.attention_factor = (float)settings_number(rope, "attention_factor", 0, LARGE, 0);
    if (scaling.kind == ROPE_YARN && !settings_has(rope, "attention_factor")) {
        scaling.attention_factor = read_magnitude(rope, (double)scaling.factor);
    }
    if (scaling.kind == ROPE_LONG) { // Phi-3.5-MoE's
        scaling.attention_factor =
            (float)settings_number(rope, "short_mscale", 0, LARGE, (double)scaling.attention_factor);
        scaling.long_attention_factor = (float)settings_number(rope, "long_mscale", 0, LARGE, 0);
    }
    c->kinds[0].rope.scaling = scaling;
    if (scaling.kind != ROPE_LONG) return;
    read_long_factors(rope, m, "long_factor", "rope_factors_long");
    read_long_factors(rope, m, "short_factor", "rope_factors_short");
}

// The rotary dimensions: a fraction of a head, under either key.
static void read_rotary_dim(Settings *s, Settings *rope, LayerKind *k, float usual) {
    const char *key = SETTINGS_ANY(s, "partial_rotary_factor", "rotary_pct");
    double part = settings_number(rope, "partial_rotary_factor", 0, 1,
                                  settings_number(s, key, 0, 1, usual > 0 ? (double)usual : 1));
    k->rope.rotary_dim = (int)(k->k_dim * part);
    if (settings_has(s, "attn_rotary_emb")) k->rope.rotary_dim = settings_int(s, "attn_rotary_emb", 2, k->k_dim, 0);
    if (k->rope.rotary_dim >= 2) return;
    settings_fail(s, key, "expected 2 or more of head_dim = %d to rotate, found %g", k->k_dim, part);
}

static void read_positions(Settings *s, Model *m, LayerRules *rules) {
    LayerKind *k = &m->config.kinds[0];
    const Family *f = m->family;
    if (m->config.learned_positions || m->config.alibi_max > 0 || f->no_rope) return;
    if (f->rope_if_asked && strcmp(settings_string(s, "position_embedding_type", "nope"), "rope") != 0) return;
    k->rope.pairing = settings_bool(s, "rope_interleave", f->hf_interleaved) ? ROPE_INTERLEAVED : ROPE_HALF;
    Settings all = settings_object(s, SETTINGS_ANY(s, "rope_parameters", "rope_scaling")), rope = all, local = {0};
    double local_theta = (double)f->window_theta;
    if (settings_has(&all, "full_attention")) { // by the layers' kind, since transformers 5
        rope = settings_object(&all, "full_attention");
        local = settings_object(&all, "sliding_attention");
        local_theta = settings_number(&local, "rope_theta", 0, LARGE, local_theta);
        if (!(f->window_theta > 0)) settings_fail(s, "rope_parameters", "expected one set for all layers");
        if (strcmp(settings_string(&local, "rope_type", "default"), "default") != 0)
            settings_fail(&local, "rope_type", "expected default: layers with a window are not scaled");
    }
    if (k->mixer != MIX_LATENT) read_rotary_dim(s, &rope, k, f->default_rotary);
    double theta = settings_number(&rope, "rope_theta", 0, LARGE, 10000);
    k->rope.theta =
        (float)settings_number(s, SETTINGS_ANY(s, "theta", "rope_theta", "rotary_emb_base"), 0, LARGE, theta);
    if (f->window_theta > 0) {
        rules->window_theta = (float)settings_number(s, "rope_local_base_freq", 0, LARGE, local_theta);
    }
    if (rope.object) read_scaling(s, &rope, m);
    if (k->mixer == MIX_LATENT) read_latent_scale(&rope, &m->config);
    m->config.temperature = (float)settings_number(&rope, "llama_4_scaling_beta", 0, LARGE, 0);
    if (m->config.temperature > 0) m->config.temperature_ctx = k->rope.scaling.original_ctx;
}

// ---- layers that differ

static bool same_value(const json_t *a, const json_t *b) {
    int64_t x, y;
    return json_equal(a, b) || (settings_whole(a, &x) && settings_whole(b, &y) && x == y);
}

// One text or number for each layer: which are `want` (the others `other`), into the set. False when the key is absent.
static bool read_layers(Settings *s, const char *key, const json_t *want, const json_t *other, int n_layers,
                        LayerSet *set) {
    json_t *list = json_object_get(s->object, key);
    if (!settings_has(s, key)) return false;
    memset(set, 0, sizeof *set);
    if (!json_is_array(list) || json_array_size(list) < (size_t)n_layers || n_layers > MAX_LAYERS) {
        settings_fail(s, key, "expected an array of num_hidden_layers = %d, at most %d", n_layers, MAX_LAYERS);
        return true;
    }
    for (int i = 0; i < n_layers; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        if (same_value(v, want)) layers_add(set, i);
        else if (!same_value(v, other)) {
            const char *text = json_string_value(v), *one = json_string_value(want), *two = json_string_value(other);
            settings_fail(s, key, "layer %d: expected %s or %s, found '%.40s'", i, one ? one : "0", two ? two : "1",
                          text ? text : "another value");
        }
    }
    return true;
}

// Every so many layers one sees everything: a number, or a text of L (with a window) and G (without), repeated.
static void read_pattern(Settings *s, const Family *f, LayerRules *rules) {
    const char *key = SETTINGS_ANY(s, "sliding_window_pattern", "_sliding_window_pattern"),
               *text = f->global_nope ? json_string_value(json_object_get(s->object, key)) : NULL;
    size_t n = text ? strlen(text) : 0;
    if (!text) {
        layers_add_every(&rules->full, settings_int(s, key, 0, MAX_LAYERS, f->global_period));
        return;
    }
    if (!n || strspn(text, "LG") != n)
        settings_fail(s, key, "expected a number or letters L and G, found '%.40s'", text);
    for (int i = 0; n && i < MAX_LAYERS; i++) {
        if (text[(size_t)i % n] == 'G') layers_add(&rules->full, i);
    }
}

// The heads of RWKV-7, whose width is the setting, and of RWKV-6, whose number is.
static void read_rwkv7_heads(Settings *s, const Config *c, LayerRules *rules) {
    json_t *values = json_object_get(s->object, "value_dim"), *width = json_integer(c->dim);
    LayerSet as_wide;
    if (!state_set_heads(&rules->state, rules->mixer, c->dim)) {
        settings_fail(s, SETTINGS_ANY(s, "head_dim", "head_size"), "expected a divisor of hidden_size = %d, found %d",
                      c->dim, rules->state.k_dim);
    }
    if (json_is_array(values)) read_layers(s, "value_dim", width, width, c->n_layers, &as_wide);
    else settings_int(s, "value_dim", c->dim, c->dim, c->dim);
    json_decref(width);
}

// The width of a head, of a multiple of the model's width.
static int expanded_head(Settings *s, const char *key, int dim, int n_heads) {
    double width = dim * settings_number(s, key, 1e-3, MAX_WIDTH, 1);
    if (width >= 1 && width <= MAX_WIDTH && (int)width % n_heads == 0) return (int)width / n_heads;
    settings_fail(s, key, "expected a multiple of %d heads, found %g times %d", n_heads, width / dim, dim);
    return 1;
}

static void read_expanded_heads(Settings *s, const Config *c, StateShape *state) {
    state->n_heads = state->n_key_heads = settings_int(s, "num_heads", 1, MAX_WIDTH, 4);
    settings_int(s, "num_kv_heads", state->n_heads, state->n_heads, state->n_heads); // none shares keys
    state->k_dim = expanded_head(s, "expand_k", c->dim, state->n_heads);
    state->v_dim = expanded_head(s, "expand_v", c->dim, state->n_heads);
}

// RWKV-7 in place of a transformer's attention.
static void read_converted(Settings *s, const Config *c, StateShape *state) {
    const json_t *layers = json_object_get(s->object, "wkv_layers");
    const char *text = json_string_value(layers);
    LayerSet set = {0};
    if (json_is_array(layers)) read_numbers(s, "wkv_layers", c->n_layers, &set);
    else if (!text || !strcmp(text, "all")) layers_add_every(&set, 1);
    for (int i = 0; i < c->n_layers && i < MAX_LAYERS && !settings_failed(s); i++) {
        if (!layers_have(&set, i))
            settings_fail(s, "wkv_layers", "expected all: layers of softmax attention are not supported");
    }
    settings_int(s, "wkv_version", 7, 7, 7);
    settings_int(s, "head_size_divisor", 8, 8, 8); // the eps of the norms over heads follows from it
    settings_int(s, "num_wkv_heads", state->n_heads, state->n_heads, state->n_heads);
    state->conv_dim = c->dim; // the rows before of the time mixing alone
}

static void read_rwkv(Settings *s, Config *c, LayerRules *rules) {
    if (rules->mixer == MIX_RWKV7) read_rwkv7_heads(s, c, rules);
    else read_expanded_heads(s, c, &rules->state);
    state_set_shifts(&rules->state, rules->mixer, c->dim);
    if (!c->channel_mix) {
        read_converted(s, c, &rules->state);
        return;
    }
    c->embedding_norm = settings_bool(s, "norm_first", true);
    c->no_norm_bias = !settings_bool(s, "norm_bias", true);
}

static void read_feature_map(Settings *s, Config *c) {
    static const struct {
        const char *name;
        FeatureMap map;
    } maps[] = {{"identity", FEATURES_IDENTITY},
                {"elu", FEATURES_ELU},
                {"relu", FEATURES_RELU},
                {"t2r", FEATURES_T2R},
                {"hedgehog", FEATURES_HEDGEHOG},
                {"elementwise_product", FEATURES_PRODUCT},
                {"positive_random", FEATURES_RANDOM}};
    enum { N_MAPS = sizeof maps / sizeof *maps };
    const char *name = settings_string(s, "feature_map", "elementwise_product");
    int i = 0;
    while (i < N_MAPS && strcmp(maps[i].name, name) != 0) i++;
    if (i < N_MAPS) {
        c->feature_map = maps[i].map;
    } else {
        settings_fail(
            s, "feature_map",
            "expected elementwise_product, elu, relu, identity, t2r, hedgehog or positive_random (no other is "
            "supported), found '%.40s'",
            name);
    }
    c->features_tied = settings_bool(s, "tie_feature_map_qk", false);
    c->features_q_sum = settings_bool(s, "norm_q", false);
    c->features_k_sum = settings_bool(s, "norm_k", false);
    c->features_normed = settings_bool(s, "norm_feature_map", false);
}

// Performer's: as many as num_features of a head. The factors that a query's have in common cancel in outputs that are
// over their sum, and in no others.
static void read_random_features(Settings *s, Config *c, LayerRules *rules) {
    c->features_width = rules->state.k_dim;
    rules->state.k_dim = settings_int(s, "num_features", c->features_width, MAX_WIDTH, -1);
    if (!c->features_normed || c->features_q_sum || c->features_k_sum)
        settings_fail(s, "norm_feature_map", "expected true, without norm_q and norm_k, for random features");
    if (strcmp(settings_string(s, "position_embedding_type", "nope"), "rope") != 0) return;
    rules->rope = (RopeConfig){.rotary_dim = c->features_width, .pairing = ROPE_HALF};
    rules->rope.theta = (float)settings_number(s, "rope_theta", 1e-3, LARGE, 10000);
    if (c->features_width % 2)
        settings_fail(s, "expand_k", "expected heads of an even width, found %d", c->features_width);
}

// Settings that this does not compute.
static void refuse_other_linear(Settings *s, MixerKind mixer) {
    static const char *const absent[] = {"use_short_conv", "clamp_min", "use_gv", "feature_map"};
    for (int i = 0; i < (mixer == MIX_LINEAR ? 3 : 4); i++) {
        if (settings_has(s, absent[i]) && !json_is_false(json_object_get(s->object, absent[i])))
            settings_fail(s, absent[i], "expected none: it is not supported");
    }
    static const char *const usual[] = {"use_output_gate", "elementwise_affine", "use_gk"};
    for (int i = 0; i < 3; i++) {
        if (!settings_bool(s, usual[i], true)) settings_fail(s, usual[i], "expected true: false is not supported");
    }
}

// Linear attention, RetNet and GLA of flash-linear-attention.
static void read_linear(Settings *s, Config *c, LayerRules *rules) {
    StateShape *state = &rules->state;
    read_expanded_heads(s, c, state);
    refuse_other_linear(s, rules->mixer);
    if (rules->mixer == MIX_LINEAR) read_feature_map(s, c);
    if (rules->mixer == MIX_RETENTION) {
        rules->rope = (RopeConfig){.rotary_dim = state->k_dim, .theta = 10000, .pairing = ROPE_HALF};
        if (state->k_dim % 2) settings_fail(s, "expand_k", "expected heads of an even width, found %d", state->k_dim);
    }
    if (c->feature_map == FEATURES_HEDGEHOG) state->k_dim *= 2;
    if (c->feature_map == FEATURES_RANDOM) read_random_features(s, c, rules);
    state->v_dim += c->features_normed;
    state->pairs = rules->mixer == MIX_GLA;
}

// Layers of softmax attention among those of flash-linear-attention, of which they differ in heads and positions.
static void read_attention_layers(Settings *s, Config *c, LayerRules *rules) {
    Settings a = settings_object(s, "attn");
    LayerKind *k = &c->kinds[0];
    LayerSet attention = {0};
    read_numbers(&a, "layers", c->n_layers, &attention);
    layers_add_others(&rules->recurrent, &attention);
    k->n_heads = settings_int(&a, "num_heads", 1, MAX_WIDTH, -1);
    if (settings_failed(s)) return;
    if (c->dim % k->n_heads)
        settings_fail(&a, "num_heads", "expected a divisor of hidden_size = %d, found %d", c->dim, k->n_heads);
    k->n_kv_heads = settings_int(&a, "num_kv_heads", 1, MAX_WIDTH, k->n_heads);
    k->k_dim = k->v_dim = c->dim / k->n_heads;
    k->rope = (RopeConfig){.rotary_dim = k->k_dim, .pairing = ROPE_HALF};
    k->rope.theta = (float)settings_number(&a, "rope_theta", 0, LARGE, 10000);
    rules->window = settings_int(&a, "window_size", 0, INT_MAX, 0);
    c->qkv_bias = settings_bool(&a, "qkv_bias", false);
    if (settings_bool(&a, "qk_norm", false)) settings_fail(&a, "qk_norm", "expected false: true is not supported");
}

// Every layer is recurrent, or all but those of softmax attention. Without these the length is not limited, whatever
// the settings say about training.
static void read_all_recurrent(Settings *s, Config *c, LayerRules *rules) {
    bool rwkv = rules->mixer == MIX_RWKV6 || rules->mixer == MIX_RWKV7, hybrid = !rwkv && settings_has(s, "attn");
    if (rwkv) read_rwkv(s, c, rules);
    else read_linear(s, c, rules);
    if (!hybrid) c->max_seq_len = 1 << 20; // as GGUF files of RWKV have it
    if (hybrid) read_attention_layers(s, c, rules);
    else layers_add_every(&rules->recurrent, 1);
}

// Those of LFM2: by the layers' kinds, or those that full_attn_idxs does not list; without either none.
static void read_conv_layers(Settings *s, const Config *c, LayerRules *rules) {
    json_t *conv = json_string("conv"), *full = json_string("full_attention");
    const char *key = "full_attn_idxs";
    LayerSet attention = {0};
    bool told = read_layers(s, "layer_types", conv, full, c->n_layers, &rules->recurrent);
    json_decref(conv);
    json_decref(full);
    if (told || !settings_has(s, key)) return;
    read_numbers(s, key, c->n_layers, &attention);
    layers_add_others(&rules->recurrent, &attention);
}

static bool is_flash(const Family *f) {
    return f->mixer == MIX_LINEAR || f->mixer == MIX_RETENTION || f->mixer == MIX_GLA;
}

// Hyena's: a state for the short convolutions, and a cache whose values are what the long ones read.
static void read_hyena(Settings *s, Config *c, LayerRules *rules) {
    static const struct {
        const char *key;
        int value;
    } fixed[] = {{"order", 2}, {"num_inner_mlps", 2}, {"num_heads", 1}, {"inner_factor", 1}, {"num_blocks", 1}};
    static const char *const absent[] = {"post_order_ffn", "outer_mixing", "normalized"};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        settings_int(s, fixed[i].key, fixed[i].value, fixed[i].value, fixed[i].value);
    }
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        if (settings_bool(s, absent[i], false)) settings_fail(s, absent[i], "expected false: true is not supported");
    }
    c->kinds[0] = (LayerKind){.n_heads = 1, .n_kv_heads = 1, .v_dim = c->dim};
    rules->state.conv_width = settings_int(s, "short_filter_order", 1, MAX_TAPS, 3);
    rules->state.conv_dim = c->dim < INT_MAX / 3 ? 3 * c->dim : INT_MAX; // refused by config_check
    c->filter_dim = settings_int(s, "filter_order", 1, MAX_WIDTH, 64);
    c->filter_bands = settings_int(s, "emb_dim", 3, MAX_WIDTH, 3) / 2;
    c->filter_length = settings_int(s, "l_max", 2, MAX_POSITIONS, -1);
    if (settings_int(s, "emb_dim", 3, MAX_WIDTH, 3) % 2 == 0) settings_fail(s, "emb_dim", "expected an odd number");
    layers_add_every(&rules->recurrent, 1);
}

// Which layers are recurrent, and what they keep.
static void read_recurrence(Settings *s, Config *c, const Family *f, LayerRules *rules) {
    Field list[MAX_FIELDS];
    bool flash = is_flash(f);
    rules->mixer = f->mixer;
    if (f->mixer != MIX_RWKV6 && !flash) read_fields(s, list, fields_of_state(&rules->state, f->mixer, list), c, rules);
    if (settings_failed(s)) return;
    if (f->mixer == MIX_RWKV6 || f->mixer == MIX_RWKV7 || flash) {
        read_all_recurrent(s, c, rules);
        return;
    }
    if (f->mixer == MIX_HYENA) {
        read_hyena(s, c, rules);
        return;
    }
    if (f->mixer == MIX_MAMBA) hybrid_read_mamba(s, c, f, &rules->state);
    if (f->mixer == MIX_SSM || f->mixer == MIX_SSM_ATTENTION) hybrid_read_state(s, c, &rules->state);
    if (f->mixer == MIX_DELTA) rules->state.v_dim = settings_int(s, "linear_value_head_dim", 1, MAX_WIDTH, -1);
    if (settings_failed(s)) return;
    state_set_channels(&rules->state, f->mixer, c->dim);
    if (f->no_attention || f->mixer == MIX_SSM_ATTENTION) layers_add_every(&rules->recurrent, 1);
    else if (f->mixer == MIX_SSM || f->mixer == MIX_MAMBA) hybrid_read_layers(s, c, f, rules);
    else if (f->mixer == MIX_CONV) read_conv_layers(s, c, rules);
    if (f->mixer != MIX_DELTA) return;
    json_t *linear = json_string("linear_attention"), *full = json_string("full_attention");
    int period = settings_int(s, "full_attention_interval", 1, MAX_LAYERS, f->attention_period);
    if (!read_layers(s, "layer_types", linear, full, c->n_layers, &rules->recurrent)) {
        for (int i = 0; i < c->n_layers && i < MAX_LAYERS; i++) {
            if ((i + 1) % period) layers_add(&rules->recurrent, i);
        }
    }
    json_decref(linear);
    json_decref(full);
}

// Llama 4's queries in layers without rotary positions; the key is a bool, or 4 in the first files.
static void read_temperature(Settings *s, Config *c) {
    const char *key = "attn_temperature_tuning";
    int64_t number;
    bool whole = settings_whole(json_object_get(s->object, key), &number);
    if (whole ? number == 0 : !settings_bool(s, key, true)) return;
    c->temperature = (float)settings_number(s, "attn_scale", 0, LARGE, 0.1);
    c->temperature_ctx = settings_int(s, "floor_scale", 1, INT_MAX, 8192);
}

// Which layers of Llama 4 have rotary positions: those where the list has 1. They have chunks, unless layer_types says
// otherwise.
static void read_chunked_layers(Settings *s, Config *c, const Family *f, LayerRules *rules) {
    json_t *full = json_string("full_attention"), *chunked = json_string("chunked_attention");
    json_t *zero = json_integer(0), *one = json_integer(1);
    bool listed = json_array_size(json_object_get(s->object, "no_rope_layers")) > 0; // empty in the first files
    rules->window = settings_int(s, "attention_chunk_size", 1, INT_MAX, f->gguf_window);
    rules->chunked = true;
    if (listed) read_layers(s, "no_rope_layers", zero, one, c->n_layers, &rules->nope);
    else layers_add_every(&rules->nope, settings_int(s, "no_rope_layer_interval", 1, MAX_LAYERS, f->global_period));
    if (!read_layers(s, "layer_types", full, chunked, c->n_layers, &rules->full)) rules->full = rules->nope;
    json_decref(full);
    json_decref(chunked);
    json_decref(zero);
    json_decref(one);
    if (!settings_bool(s, "use_qk_norm", true)) c->qk_norm = QK_NORM_NONE;
    read_temperature(s, c);
}

// The blocks that a query sees; the names are after BigBird's.
static void read_blocks(Settings *s, LayerKind *k) {
    k->blocks.size = settings_int(s, "block_size", 1, MAX_POSITIONS, 64);
    k->blocks.window = settings_int(s, "num_window_blocks", 1, MAX_POSITIONS, 3);
    k->blocks.n_global = settings_int(s, "num_global_blocks", 0, MAX_POSITIONS, 2);
    k->blocks.n_random = settings_int(s, "num_random_blocks", 0, MAX_RANDOM_BLOCKS, 3);
}

static void read_layer_rules(Settings *s, Config *c, const Family *f, LayerRules *rules) {
    if (f->chunked) {
        read_chunked_layers(s, c, f, rules);
        return;
    }
    if (f->blocks) read_blocks(s, &c->kinds[0]);
    json_t *full = json_string("full_attention"), *slides = json_string("sliding_attention");
    json_t *zero = json_integer(0), *one = json_integer(1);
    bool counts = !f->window_if_asked || settings_bool(s, "use_sliding_window", false);
    rules->window = counts ? settings_int(s, "sliding_window", 0, INT_MAX, 0) : 0;
    if (f->mixer) {
        read_recurrence(s, c, f, rules);
    } else if (!read_layers(s, "layer_types", full, slides, c->n_layers, &rules->full)) {
        read_pattern(s, f, rules);
        if (f->window_if_asked && rules->window) settings_fail(s, "layer_types", "expected with use_sliding_window");
    }
    if (!read_layers(s, "no_rope_layers", zero, one, c->n_layers, &rules->nope) && f->nope_period) {
        layers_add_every(&rules->nope, settings_int(s, "no_rope_layer_interval", 0, MAX_LAYERS, f->nope_period));
    }
    if (f->window_needed && !rules->window) settings_fail(s, "sliding_window", "expected a number above 0");
    if (f->global_nope && rules->window) rules->nope = rules->full;
    json_decref(full);
    json_decref(slides);
    json_decref(zero);
    json_decref(one);
}

// JSON null disables the family's cap.
static float read_cap(Settings *s, const char *key, float family) {
    if (json_is_null(json_object_get(s->object, key))) return 0;
    return (float)settings_number(s, key, 0, LARGE, (double)family);
}

// Factors that some families have.
static void read_scales(Settings *s, Config *c, const Family *f) {
    if (f->multipliers) {
        c->attn_scale = (float)settings_number(s, "attention_multiplier", 0, LARGE, 1);
        c->embedding_scale = (float)settings_number(s, "embedding_multiplier", 0, LARGE, 1);
        c->residual_scale = (float)settings_number(s, "residual_multiplier", 0, LARGE, 1);
        c->logit_scale = (float)(1 / settings_number(s, "logits_scaling", 1e-6, LARGE, 1));
    }
    if (f->logit_scale) c->logit_scale = (float)settings_number(s, "logit_scale", 0, LARGE, 0.0625);
    if (f->depth_scales) {
        double depth = settings_number(s, "scale_depth", 0, LARGE, 1.4);
        c->embedding_scale = (float)settings_number(s, "scale_emb", 0, LARGE, 12);
        c->residual_scale = (float)(depth / sqrt(c->n_layers));
        c->logit_scale = (float)(settings_number(s, "dim_model_base", 0, LARGE, 256) / c->dim);
    }
    if (f->ssm_multipliers) hybrid_read_multipliers(s, c);
    const char *qk_norm = SETTINGS_ANY(s, "use_qk_norm", "qk_layernorm");
    if (f->optional_qk_norm && settings_bool(s, qk_norm, false)) c->qk_norm = f->optional_qk_norm;
    else if (settings_bool(s, "qk_layernorm", false))
        settings_fail(s, "qk_layernorm", "expected false: true is not supported");
}

// MPT's object of attention's settings.
static void read_attn_config(Settings *s, Config *c) {
    Settings a = settings_object(s, "attn_config");
    c->alibi_max = (float)settings_number(&a, "alibi_bias_max", 1e-3, LARGE, 8);
    c->qkv_clamp = (float)settings_number(&a, "clip_qkv", 0, LARGE, 0);
    c->attn_scale = (float)settings_number(&a, "softmax_scale", 0, LARGE, 0);
    if (!settings_bool(&a, "alibi", true)) settings_fail(&a, "alibi", "expected true: false is not supported");
    if (settings_bool(&a, "qk_ln", false)) settings_fail(&a, "qk_ln", "expected false: true is not supported");
    if (settings_bool(&a, "prefix_lm", false)) settings_fail(&a, "prefix_lm", "expected false: true is not supported");
    const char *type = settings_string(&a, "attn_type", "multihead_attention");
    if (strcmp(type, "multihead_attention") != 0)
        settings_fail(&a, "attn_type", "expected multihead_attention, found '%.40s'", type);
}

static void read_scores(Settings *s, Config *c, const Family *f) {
    read_scales(s, c, f);
    if (f->attn_config) read_attn_config(s, c);
    double scalar = settings_number(s, "query_pre_attn_scalar", 0, LARGE, 0);
    if (scalar > 0) c->attn_scale = (float)(1 / sqrt(scalar));
    if (!f->softcaps) return;
    c->attn_softcap = read_cap(s, "attn_logit_softcapping", c->attn_softcap);
    c->logit_softcap = read_cap(s, "final_logit_softcapping", c->logit_softcap);
}

// Settings that would change the computation.
static void refuse_others(Settings *s, const Family *f) {
    static const char *const absent[] = {"clip_qkv",
                                         "scale_attn_by_inverse_layer_idx",
                                         "add_cross_attention",
                                         "alibi",
                                         "attn",
                                         "apply_residual_connection_post_layernorm",
                                         "use_bidirectional_attention",
                                         "quantization", // MLX
                                         "compression_config"},
                             *const usual[] = {"is_causal", "scale_attn_weights", "parallel_attn", "no_bias"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        if (!settings_has(s, absent[i]) || json_is_false(json_object_get(s->object, absent[i]))) continue;
        if (!strcmp(absent[i], "attn") && is_flash(f)) continue; // read_attention_layers
        settings_fail(s, absent[i], "expected none: it is not supported");
    }
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        if (!settings_bool(s, usual[i], true)) settings_fail(s, usual[i], "expected true: false is not supported");
    }
    Settings quantized = settings_object(s, "quantization_config");
    const char *method = settings_string(&quantized, "quant_method", "nothing");
    if (!quantized.object || !strcmp(method, "mxfp4")) return;
    settings_fail(&quantized, "quant_method",
                  "expected mxfp4, or no quantization (no other is supported), found '%.40s'", method);
}

// ---- the model

// What a class of transformers has where a config.json leaves it out, and published files do leave it out.
static const struct {
    const char *model_type, *json;
} class_defaults[] = {
    {"gemma3_text",
     "{\"vocab_size\":262208,\"num_attention_heads\":8,\"num_key_value_heads\":4,\"head_dim\":256,"
     "\"max_position_embeddings\":131072,\"rms_norm_eps\":1e-6,\"query_pre_attn_scalar\":256,\"rope_theta\":1e6,"
     "\"sliding_window\":4096}"},
    {"lfm2", "{\"vocab_size\":65536,\"num_attention_heads\":32,\"num_key_value_heads\":8,"
             "\"max_position_embeddings\":128000,\"norm_eps\":1e-5,\"rope_theta\":1e6,\"conv_L_cache\":3,"
             "\"block_multiple_of\":256,\"block_ffn_dim_multiplier\":1.0,\"block_auto_adjust_ff_dim\":true}"},
    {"lfm2_moe", "{\"vocab_size\":65536,\"num_attention_heads\":32,\"num_key_value_heads\":8,"
                 "\"max_position_embeddings\":128000,\"norm_eps\":1e-5,\"rope_theta\":1e6,\"conv_L_cache\":3,"
                 "\"num_dense_layers\":2,\"num_experts\":32,\"num_experts_per_tok\":4,\"norm_topk_prob\":true}"},
    {"llama4_text",
     "{\"num_attention_heads\":40,\"num_key_value_heads\":8,\"head_dim\":128,\"max_position_embeddings\":131072,"
     "\"rms_norm_eps\":1e-5,\"rope_theta\":500000,\"num_local_experts\":16,\"num_experts_per_tok\":1,"
     "\"intermediate_size_mlp\":16384}"},
    {"gemma2", "{\"sliding_window\":4096}"},
    {"phimoe", "{\"num_key_value_heads\":8,\"num_local_experts\":16,\"num_experts_per_tok\":2,\"rope_theta\":1e6}"},
    {"mistral", "{\"sliding_window\":4096}"},
    {"gpt_oss", "{\"sliding_window\":128}"},
    {"deepseek_v2", "{\"n_shared_experts\":2}"},
    {"deepseek_v3", "{\"n_shared_experts\":1,\"routed_scaling_factor\":2.5,\"n_group\":8,\"topk_group\":4,"
                    "\"first_k_dense_replace\":3}"},
    {"rwkv6", "{\"num_heads\":4,\"expand_k\":0.5,\"expand_v\":1,\"hidden_ratio\":3.5,\"norm_eps\":1e-5}"},
    {"rwkv7", "{\"head_dim\":64,\"norm_eps\":1e-5}"},
    {"rwkv7_fla", "{\"head_dim\":64,\"norm_eps\":1e-5}"},
    {"gla", "{\"num_heads\":4,\"expand_k\":0.5,\"expand_v\":1,\"norm_eps\":1e-6}"},
    {"retnet", "{\"num_heads\":8,\"expand_k\":1,\"expand_v\":2,\"hidden_ratio\":2,\"norm_eps\":1e-6}"},
    {"linear_attn", "{\"num_heads\":4,\"expand_k\":1,\"expand_v\":1,\"norm_eps\":1e-6}"},
    {"performer",
     "{\"num_heads\":4,\"expand_k\":1,\"expand_v\":1,\"norm_eps\":1e-6,\"feature_map\":\"positive_random\","
     "\"norm_feature_map\":true}"},
};

// Keys that the settings leave out, from the class. rope_theta: unless it lies among the parameters of RoPE.
static void add_class_defaults(Settings *s, const char *model_type) {
    for (size_t i = 0; i < sizeof class_defaults / sizeof *class_defaults; i++) {
        if (strcmp(class_defaults[i].model_type, model_type) != 0) continue;
        json_t *defaults = json_loads(class_defaults[i].json, 0, NULL);
        if (settings_has(s, "rope_parameters")) json_object_del(defaults, "rope_theta");
        json_object_update_missing(s->object, defaults);
        json_decref(defaults);
    }
}

// Programs for what is no decoder.
static const char *other_program(const char *model_type) {
    static const char *const names[][2] = {{"bart", "encdec"}, {"mbart", "encdec"}, {"vit", "vit"}, {"deit", "vit"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!strcmp(names[i][0], model_type)) return names[i][1];
    }
    return NULL;
}

static const Family *read_family(Settings *s) {
    const char *type = settings_string(s, "model_type", NULL);
    const Family *f = settings_failed(s) ? NULL : family_of_model_type(type);
    if (f || settings_failed(s)) return f;
    char list[FAMILY_LIST_ROOM];
    family_list(true, list, sizeof list);
    const char *other = other_program(type);
    if (other) settings_fail(s, "model_type", "'%.40s' is no decoder: build/%s runs it", type, other);
    else settings_fail(s, "model_type", "'%.40s' is not supported: expected %s", type, list);
    return NULL;
}

static void read_config(Settings *s, Model *m) {
    Config *c = &m->config;
    const Family *f = m->family = read_family(s);
    if (!f) return;
    *c = f->base;
    add_class_defaults(s, f->model_type ? f->model_type : f->arch);
    LayerRules rules = {0};
    if (f->one_sublayer) hybrid_count_layers(s);
    read_sizes(s, m, &rules);
    if (settings_failed(s)) return;
    read_feed_forward(s, c, f, &rules);
    read_biases(s, c, f);
    if (!f->no_attention) read_positions(s, m, &rules);
    read_layer_rules(s, c, f, &rules);
    read_scores(s, c, f);
    refuse_others(s, f);
    c->parallel = settings_bool(s, "use_parallel_residual", c->parallel);
    if (f->scaled_embedding) c->embedding_scale = sqrtf((float)c->dim);
    int layer = config_set_layers(c, &rules);
    if (layer >= 0)
        settings_fail(s, "layer_types", "layer %d: expected at most %d kinds of layers, found more", layer,
                      MAX_LAYER_KINDS);
}

static bool has_part(const Model *m, const char *part) {
    char name[80];
    family_tensor_name(m->family, m->prefix, part, -1, -1, ".weight", name, sizeof name);
    return weights_find(&m->weights, name) != NULL;
}

// What the names of this file's tensors begin with: a model saved with or without its head around it, alone or as the
// language model of a larger one.
static void find_prefix(Model *m) {
    static const char *const prefixes[] = {"model.",
                                           "",
                                           "backbone.",
                                           "model.backbone.",
                                           "transformer.",
                                           "gpt_neox.",
                                           "language_model.model.",
                                           "model.language_model.",
                                           "language_model."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        snprintf(m->prefix, sizeof m->prefix, "%s", prefixes[i]);
        if (has_part(m, "token_embd") || has_part(m, "output_norm")) return;
    }
    snprintf(m->prefix, sizeof m->prefix, "%s", prefixes[0]);
}

// The classifier that is in the file counts, whatever the settings say; where one table is there alone, it is both.
static void read_head(Settings *s, Model *m) {
    bool embedding = has_part(m, "token_embd"), head = has_part(m, "output");
    bool said = settings_bool(s, SETTINGS_ANY(s, "tie_embedding", "tie_word_embeddings"), m->family->tied);
    m->config.tied = embedding != head || (said && !head);
    if (embedding == head || said) return;
    note(&m->notes, "tie_word_embeddings is %s, but the file has one table of tokens: it is embedding and classifier",
         settings_has(s, "tie_word_embeddings") ? "false" : "absent");
}

int load_hf_parts(Model *m, Settings *s, Weights *w, char *err, size_t errlen) {
    *m = (Model){.weights = *w, .kind = "safetensors", .hf_names = true};
    memset(w, 0, sizeof *w);
    Settings text = settings_object(s, "text_config"), *language = text.object ? &text : s;
    m->text_only = text.object != NULL;
    if (m->text_only) {
        json_t *tied = json_object_get(s->object, "tie_word_embeddings");
        if (tied && !settings_has(language, "tie_word_embeddings"))
            json_object_set(language->object, "tie_word_embeddings", tied);
        note(&m->notes, "the model also takes %s: what belongs to them is left out",
             settings_has(s, "vision_config") ? "pictures" : "other inputs than text");
    }
    read_config(language, m);
    if (!settings_failed(s) && m->family) {
        find_prefix(m);
        read_head(language, m);
    }
    if (!settings_failed(s) && !config_check(&m->config, s->path, err, errlen)) return 0;
    weights_free(&m->weights);
    memset(m, 0, sizeof *m);
    return -1;
}

int load_hf_model(Model *m, const char *path, char *err, size_t errlen) {
    Settings s;
    Weights w;
    memset(m, 0, sizeof *m);
    if (load_config(&s, path, err, errlen)) return -1;
    int rc = load_safetensors(&w, path, err, errlen);
    if (!rc) rc = load_hf_parts(m, &s, &w, err, errlen);
    settings_free(&s);
    if (rc || !sampling_read_folder(m, path, err, errlen)) return rc;
    weights_free(&m->weights);
    memset(m, 0, sizeof *m);
    return -1;
}
