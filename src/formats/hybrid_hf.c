// hybrid_hf: see hybrid_hf.h. Sources: huggingface.co/docs/transformers, "model_doc": mamba2, bamba, granitemoehybrid,
// falcon_h1, nemotron_h; the models' config.json.
#include "hybrid_hf.h"

#include <limits.h>
#include <math.h>
#include <string.h>

static const double LARGE = 1e30;

// ---- the state

// A number, or how transformers writes one without limit: Infinity, since 4.57 {"__float__": "Infinity"}. -1: another.
static double limit_of(const json_t *v) {
    if (json_is_number(v)) return fmin(json_number_value(v), LARGE);
    const char *text = json_string_value(json_is_object(v) ? json_object_get(v, "__float__") : v);
    return text && !strcmp(text, "Infinity") ? LARGE : -1;
}

static void read_step_limits(Settings *s, Config *c) {
    const json_t *list = json_object_get(s->object, "time_step_limit");
    double least = limit_of(json_array_get(list, 0)), most = limit_of(json_array_get(list, 1));
    if (json_array_size(list) != 2 || least < 0 || most <= 0 || least > most)
        settings_fail(s, "time_step_limit", "expected two numbers, the lower one first");
    if (least <= 0 && most >= LARGE) return;
    c->step_min = (float)least;
    c->step_max = (float)most;
}

void hybrid_read_state(Settings *s, Config *c, StateShape *state) {
    const char *key = SETTINGS_ANY(s, "mamba_d_head", "mamba_head_dim", "head_dim");
    const char *text = json_string_value(json_object_get(s->object, key));
    int64_t inner = (int64_t)settings_int(s, SETTINGS_ANY(s, "mamba_expand", "expand"), 1, MAX_WIDTH, 2) * c->dim;
    bool automatic = !settings_has(s, key) || (text && !strcmp(text, "auto"));
    state->v_dim = automatic ? (int)(inner / state->n_heads) : settings_int(s, key, 1, MAX_WIDTH, -1);
    if (settings_has(s, "time_step_limit")) read_step_limits(s, c);
}

void hybrid_read_mamba(Settings *s, Config *c, const Family *f, StateShape *state) {
    const char *rank = SETTINGS_ANY(s, "mamba_dt_rank", "time_step_rank");
    const char *text = json_string_value(json_object_get(s->object, rank));
    int64_t inner = (int64_t)settings_int(s, SETTINGS_ANY(s, "mamba_expand", "expand"), 1, MAX_WIDTH, 2) * c->dim;
    bool automatic = !settings_has(s, rank) || (text && !strcmp(text, "auto"));
    state->n_heads = state->n_key_heads = state->scan = 1;
    state->v_dim = (int)(inner < INT_MAX ? inner : INT_MAX); // refused by config_check
    if (f->no_attention) state->v_dim = settings_int(s, "intermediate_size", 1, MAX_WIDTH, state->v_dim);
    c->step_rank = automatic ? (c->dim + 15) / 16 : settings_int(s, rank, 1, MAX_WIDTH, -1);
    if (f->step_norm) c->step_norm_eps = (float)settings_number(s, "mixer_rms_eps", 1e-30, 1, 1e-6);
}

// ---- which layers are what

typedef enum { BLOCK_MAMBA, BLOCK_ATTENTION, BLOCK_MLP, BLOCK_EXPERTS, BLOCK_UNKNOWN } BlockType;

static BlockType block_type(const char *name, size_t n) {
    static const struct {
        const char *name;
        BlockType type;
    } known[] = {{"mamba", BLOCK_MAMBA},
                 {"linear_attention", BLOCK_MAMBA},
                 {"M", BLOCK_MAMBA},
                 {"attention", BLOCK_ATTENTION},
                 {"full_attention", BLOCK_ATTENTION},
                 {"*", BLOCK_ATTENTION},
                 {"moe", BLOCK_EXPERTS},
                 {"E", BLOCK_EXPERTS},
                 {"mlp", BLOCK_MLP},
                 {"-", BLOCK_MLP}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strlen(known[i].name) == n && !memcmp(known[i].name, name, n)) return known[i].type;
    }
    return BLOCK_UNKNOWN;
}

// The setting that names each layer's type: a list of names, or a text of letters. NULL: there is none.
static const char *block_types_key(const Settings *s) {
    const char *key = SETTINGS_ANY(s, "layers_block_type", "layer_types", "hybrid_override_pattern");
    return settings_has(s, key) ? key : NULL;
}

static size_t block_types_count(const Settings *s, const char *key) {
    const json_t *list = json_object_get(s->object, key);
    return json_is_string(list) ? json_string_length(list) : json_array_size(list);
}

static void read_block_list(Settings *s, const char *key, Config *c, const Family *f, LayerRules *rules) {
    const json_t *list = json_object_get(s->object, key);
    size_t n = block_types_count(s, key);
    bool experts = false;
    if (n != (size_t)c->n_layers || n > MAX_LAYERS) {
        settings_fail(s, key, "expected a type for each of %d layers, at most %d, found %zu", c->n_layers, MAX_LAYERS,
                      n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const char *text =
            json_is_string(list) ? json_string_value(list) + i : json_string_value(json_array_get(list, i));
        size_t length = json_is_string(list) ? 1 : text ? strlen(text) : 0;
        BlockType type = text ? block_type(text, length) : BLOCK_UNKNOWN;
        bool network = type == BLOCK_MLP || type == BLOCK_EXPERTS;
        if (type == BLOCK_UNKNOWN || (network && !f->one_sublayer)) {
            settings_fail(s, key, "layer %zu: expected %s (no other is supported), found '%.*s'", i,
                          f->one_sublayer ? "mamba, attention, mlp or moe" : "mamba or attention",
                          (int)(length < 40 ? length : 40), text ? text : "");
        }
        if (type == BLOCK_MAMBA) layers_add(&rules->recurrent, (int)i);
        if (f->one_sublayer) layers_add(network ? &rules->idle : &rules->bare, (int)i);
        if (type == BLOCK_MLP) layers_add(&rules->dense, (int)i);
        experts |= type == BLOCK_EXPERTS;
    }
    if (!f->one_sublayer) return;
    if (!experts) config_drop_experts(c);
    else if (!c->n_experts) settings_fail(s, "n_routed_experts", "expected, since some layers have experts");
    if (settings_has(s, "moe_latent_size"))
        settings_fail(s, "moe_latent_size", "expected none: experts of a latent are not supported");
}

// Bamba's list of the layers with attention.
static void read_attention_layers(Settings *s, const Config *c, LayerRules *rules) {
    const char *key = "attn_layer_indices";
    const json_t *list = json_object_get(s->object, key);
    LayerSet attention = {0};
    if (list && !json_is_null(list) && !json_is_array(list)) settings_fail(s, key, "expected a list of layers");
    for (size_t i = 0; i < json_array_size(list); i++) {
        int64_t layer;
        if (settings_whole(json_array_get(list, i), &layer) && layer >= 0 && layer < c->n_layers && layer < MAX_LAYERS)
            layers_add(&attention, (int)layer);
        else settings_fail(s, key, "expected layers from 0 to %d", c->n_layers - 1);
    }
    layers_add_others(&rules->recurrent, &attention);
}

// Jamba's rule: layers `offset`, `offset` + `period`, ... of what a setting is about.
static void read_period(Settings *s, const char *period_key, const char *offset_key, int period, int offset, int n,
                        bool have, LayerSet *set) {
    period = settings_int(s, period_key, 1, MAX_LAYERS, period);
    offset = settings_int(s, offset_key, 0, MAX_LAYERS, offset);
    for (int i = 0; i < n && i < MAX_LAYERS; i++) {
        if ((i >= offset && (i - offset) % period == 0) == have) layers_add(set, i);
    }
}

static void read_jamba_layers(Settings *s, Config *c, LayerRules *rules) {
    read_period(s, "attn_layer_period", "attn_layer_offset", 8, 4, c->n_layers, false, &rules->recurrent);
    read_period(s, "expert_layer_period", "expert_layer_offset", 2, 1, c->n_layers, false, &rules->dense);
    if (c->n_experts == 1) config_drop_experts(c); // then none is chosen
}

void hybrid_count_layers(Settings *s) {
    const char *key = block_types_key(s);
    if (key) json_object_set_new(s->object, "num_hidden_layers", json_integer((json_int_t)block_types_count(s, key)));
}

void hybrid_read_layers(Settings *s, Config *c, const Family *f, LayerRules *rules) {
    const char *key = block_types_key(s);
    if (f->mixer == MIX_MAMBA) read_jamba_layers(s, c, rules);
    else if (key) read_block_list(s, key, c, f, rules);
    else if (f->one_sublayer) settings_fail(s, "layers_block_type", "expected a type for each layer");
    else read_attention_layers(s, c, rules);
}

// ---- multipliers

void hybrid_read_multipliers(Settings *s, Config *c) {
    const double least = 1e-30;
    double in = settings_number(s, "attention_in_multiplier", least, LARGE, 1), ssm[5] = {1, 1, 1, 1, 1},
           mlp[2] = {1, 1}, ssm_in = settings_number(s, "ssm_in_multiplier", least, LARGE, 1);
    settings_numbers(s, "ssm_multipliers", 5, ssm);
    settings_numbers(s, "mlp_multipliers", 2, mlp);
    for (int i = 0; i < 5; i++) {
        c->ssm_scales[i] = (float)(ssm[i] * ssm_in);
        if (!(ssm[i] >= least && ssm[i] < LARGE)) settings_fail(s, "ssm_multipliers", "expected numbers above 0");
    }
    if (!(mlp[0] >= least && mlp[1] >= least)) settings_fail(s, "mlp_multipliers", "expected numbers above 0");
    double scores = in * in * settings_number(s, "key_multiplier", least, LARGE, 1);
    c->attn_scale = (float)(scores / sqrt(c->kinds[0].k_dim));
    c->attn_out_scale = (float)(in * settings_number(s, "attention_out_multiplier", least, LARGE, 1));
    c->ssm_out_scale = (float)settings_number(s, "ssm_out_multiplier", least, LARGE, 1);
    c->gate_scale = (float)mlp[0];
    c->ffn_out_scale = (float)mlp[1];
    c->embedding_scale = (float)settings_number(s, "embedding_multiplier", least, LARGE, 1);
    c->logit_scale = (float)settings_number(s, "lm_head_multiplier", least, LARGE, 1);
    c->ssm_norm_first = settings_bool(s, "mamba_norm_before_gate", true);
}
