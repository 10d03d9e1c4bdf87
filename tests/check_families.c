// check_families: every decoder family, from a Hugging Face folder and from GGUF, against logits that a reference in
// double precision computed.
//
//   build/tests/check_families [NAME...]    all fixtures, or these
//
// The models are made again from their fixtures (make_family.h). TESSERA_KEEP=DIR keeps the GGUF files there, for other
// engines.
#include "load.h"
#include "make_bin.h"
#include "make_family.h"

#include <limits.h>

// Normalized mean squared; arithmetic in float gives about 1e-12. Where weights are quantized, vectors are too.
static const double MOST_ERROR = 1e-9, MOST_QUANTIZED = 1e-7;

static double family_error(const FamilyLogits *seen, const Fixture *f) {
    double error = 0, power = 0;
    for (int i = 0; i < f->n_positions; i++) {
        for (int token = 0; token < f->vocab_size; token++) {
            double want = family_logit(f, i, token);
            double difference = (double)seen->logits[f->positions[i] * f->vocab_size + token] - want;
            error += difference * difference;
            power += want * want;
        }
    }
    return error / power;
}

// At once, then token by token from the middle on; two threads and one. Where that takes long, from later on, and every
// fourth model with one thread.
static void check_model(const Fixture *f, const char *path, const char *tokenizer, const char *form) {
    static FamilyLogits seen, other;
    static int n_models;
    char err[512] = "";
    bool with_one = n_models++ % by_speed(1, 1, 4) == 0;
    bool ok = family_run(&seen, f, path, tokenizer, 2, f->n_tokens, err, sizeof err) &&
              (!with_one || family_run(&other, f, path, tokenizer, 1, f->n_tokens, err, sizeof err));
    NEED(ok, "%s, %s: %s", f->name, form, err);
    double error = family_error(&seen, f);
    double most = strstr(f->name, "oss") ? MOST_QUANTIZED : MOST_ERROR;
    CHECK(error <= most, "%s, %s: NMSE %.1e", f->name, form, error);
    CHECK(!with_one || !memcmp(&seen, &other, sizeof seen), "%s, %s: two threads give other logits", f->name, form);
    ok = family_run(&other, f, path, tokenizer, 2, f->n_tokens - f->n_tokens / by_speed(2, 2, 4), err, sizeof err);
    CHECK(ok, "%s, %s: %s", f->name, form, err);
    double by_token = family_error(&other, f);
    CHECK(by_token <= most, "%s, %s, token by token: NMSE %.1e", f->name, form, by_token);
    printf("  %-20s %-7s NMSE %.1e at once, %.1e token by token\n", f->name, form, error, by_token);
}

// ---- the two forms

static void check_folder(const Fixture *f) {
    const char *tokenizer = BIN_DIR "family.tokenizer.bin";
    folder_make();
    write_family(f);
    make_tokenizer_bin(tokenizer, f->vocab_size, 1);
    check_model(f, folder, tokenizer, "folder");
    folder_remove();
}

// What a model computes does not depend on its form: where that takes long, every fourth has both.
static void check_gguf(const Fixture *f) {
    static int n_seen;
    if (n_seen++ % by_speed(1, 1, 4)) return;
    const char *keep = getenv("TESSERA_KEEP");
    char path[512];
    folder_make();
    snprintf(path, sizeof path, "%s/%s.gguf", keep && *keep ? keep : folder, f->name);
    write_family_gguf(f, path);
    check_model(f, path, NULL, "GGUF");
    folder_remove();
}

static void families_as_folders(void) {
    each_family(check_folder, false);
}

static void families_as_gguf(void) {
    each_family(check_gguf, true);
}

// ---- settings of GGUF that no model can have

static const struct {
    const char *fixture, *key, *value, *want; // value: JSON; NULL: the setting is gone
} unsound[] = {
    {"cohere2", "cohere2.attention.sliding_window", NULL, "cohere2.attention.sliding_window: expected"},
    {"cohere2", "cohere2.logit_scale", "-1", "logit_scale: expected a number, 0 or more"},
    {"cohere2_types", "cohere2.attention.sliding_window_pattern", "[true]",
     "sliding_window_pattern: expected 3 elements, one for each layer, found 1"},
    {"exaone4_window", "exaone4.attention.sliding_window_pattern", "[true, true, true, true, true, true]",
     "sliding_window_pattern: expected 5 elements, one for each layer, found 6"},
    {"granite", "granite.logit_scale", NULL, "granite.logit_scale: expected"},
    {"granite", "granite.logit_scale", "0", "logit_scale: expected a number, 0 or more"},
    {"granite", "granite.residual_scale", "-1", "residual_scale: expected a number, 0 or more"},
    {"granite", "granite.attention.scale", "-1", "attn_scale: expected a number, 0 or more"},
    {"mpt_clip", "mpt.attention.clamp_kqv", "-1", "qkv_clamp: expected a number, 0 or more"},
    {"mpt", "mpt.attention.max_alibi_bias", "-8", "alibi_max: expected a number, 0 or more"},
    {"ministral3", "mistral3.attention.temperature_scale", "-1", "temperature: expected a number, 0 or more"},
    {"lfm2", "lfm2.shortconv.l_cache", NULL, "lfm2.shortconv.l_cache: expected"},
    {"lfm2", "lfm2.shortconv.l_cache", "0", "lfm2.shortconv.l_cache: expected"},
    {"lfm2", "lfm2.shortconv.l_cache", "65", "convolution's taps: expected 1 to 64, found 65"},
    {"lfm2", "lfm2.attention.head_count_kv", "[0, 0, 2, 0]",
     "lfm2.attention.head_count_kv: expected 5 elements, one for each layer, found 4"},
    {"lfm2", "lfm2.attention.head_count_kv", "[0, 0, 3, 0, 2]",
     "n_kv_heads: expected a divisor of n_heads = 4, found 3"},
    {"lfm2", "lfm2.attention.head_count_kv", "[0, 0, 2, 2, 2]", "tensor blk.3.attn_q.weight: expected"},
    {"lfm2", "lfm2.attention.head_count_kv", "[0, 0, 0, 0, 2]", "tensor blk.2.shortconv.in_proj.weight: expected"},
    {"lfm2", "lfm2.attention.head_count_kv", "[0, 0, 0, 0, 0]", "tensor blk.2.shortconv.in_proj.weight: expected"},
    {"phimoe", "phimoe.expert_used_count", "3", "experts of a token: expected 2 with SparseMixer, found 3"},
    {"phimoe", "phimoe.expert_used_count", "1", "experts of a token: expected 2 with SparseMixer, found 1"},
    {"phimoe", "phimoe.attention.layer_norm_rms_epsilon", NULL, "phimoe.attention.layer_norm_rms_epsilon: expected"},
    {"llama4", "llama4.interleave_moe_layer_step", NULL, "llama4.interleave_moe_layer_step: expected"},
    {"llama4", "llama4.interleave_moe_layer_step", "2", "tensor blk.0.ffn_up.weight: expected"},
    {"llama4_step", "llama4.interleave_moe_layer_step", "1", "tensor blk.0.ffn_gate_inp.weight: expected"},
    {"llama4", "llama4.attention.temperature_scale", "-1", "temperature: expected a number, 0 or more"},
    {"llama4", "llama4.attention.temperature_length", "0", "llama4.attention.temperature_length: expected"},
    {"llama4", "llama4.expert_feed_forward_length", "25", "tensor blk.0.ffn_gate_exps.weight: expected"},
    {"arwkv7", "arwkv7.token_shift_count", "2", "arwkv7.token_shift_count: expected"},
    {"arwkv7", "arwkv7.wkv.head_size", "15", "arwkv7.wkv.head_size: expected a divisor"},
    {"apertus", "xielu.beta", NULL, "xielu.beta: expected"},
    {"deepseek_v2", "deepseek2.attention.kv_lora_rank", NULL, "deepseek2.attention.kv_lora_rank: expected"},
    {"deepseek_v2", "deepseek2.attention.key_length_mla", "8", "qk_nope_head_dim: expected 1 to 1048576, found 0"},
    {"deepseek_v2", "deepseek2.attention.value_length_mla", NULL, "deepseek2.attention.value_length_mla: expected"},
    {"deepseek_v2", "deepseek2.attention.value_length_mla", "13", "attn_v_b.weight: expected"},
    {"deepseek_v2", "deepseek2.rope.dimension_count", "7", "expected an even number of rotary dimensions"},
    {"deepseek_v2", "deepseek2.attention.q_lora_rank", NULL, "attn_q.weight: expected"},
    {"deepseek_v2", "deepseek2.expert_group_count", "3", "groups of experts: expected a divisor of 8, found 3"},
    {"deepseek_v2", "deepseek2.expert_group_used_count", "1", "groups of a token: expected 1 to 4"},
    {"deepseek_v2", "deepseek2.expert_group_used_count", "5", "groups of a token: expected 1 to 4"},
    {"deepseek_v2", "deepseek2.expert_weights_scale", "-1", "experts_scale: expected a number, 0 or more"},
    {"deepseek_v2", "deepseek2.expert_shared_count", "3", "ffn_up_shexp.weight: expected"},
    {"deepseek_v2", "deepseek2.leading_dense_block_count", "0", "ffn_gate_inp.weight: expected"},
    {"deepseek_v3", "deepseek2.expert_gating_func", "3", "expert_gating_func: expected"},
    {"minicpm3", "minicpm3.attention.key_length", NULL, "minicpm3.attention.key_length: expected"},
    {"apertus", "xielu.eps", "[0, 0]", "xielu.eps: expected 3 layers, found 2"},
};

static void change_setting(const Fixture *f, const char *key, const char *value) {
    json_t *settings = family_part(f, "gguf_settings");
    for (size_t i = json_array_size(settings); i-- > 0;) {
        json_t *setting = json_array_get(settings, i);
        if (strcmp(json_string_value(json_array_get(setting, 0)), key) != 0) continue;
        if (value) json_array_set_new(setting, 2, json_loads(value, JSON_DECODE_ANY, NULL));
        else json_array_remove(settings, i);
    }
}

static void unsound_settings(void) {
    static FamilyLogits unused;
    for (int i = 0; i < N_OF(unsound); i++) {
        char path[512], err[512] = "";
        Fixture f;
        snprintf(path, sizeof path, FIXTURES "%s.json", unsound[i].fixture);
        family_read(&f, path);
        change_setting(&f, unsound[i].key, unsound[i].value);
        folder_make();
        snprintf(path, sizeof path, "%s/changed.gguf", folder);
        write_family_gguf(&f, path);
        bool ran = family_run(&unused, &f, path, NULL, 1, 1, err, sizeof err);
        CHECK(!ran && strstr(err, unsound[i].want), "%s: %s: expected '%s', found '%s'", unsound[i].fixture,
              unsound[i].key, unsound[i].want, err);
        folder_remove();
        family_free(&f);
    }
}

// ---- settings that a file need not have: what holds without them

static double window_of(const Config *c) {
    int i = 0;
    while (i < c->n_kinds - 1 && !c->kinds[i].window) i++;
    return c->kinds[i].window;
}

static double temperature_of(const Config *c) {
    return (double)c->temperature;
}

static double temperature_ctx_of(const Config *c) {
    return c->temperature_ctx;
}

static double theta_of(const Config *c) {
    LayerKind base;
    config_rules(c, &base);
    return (double)base.rope.theta;
}

static double magnitude_of(const Config *c) {
    LayerKind base;
    config_rules(c, &base);
    return (double)base.rope.scaling.attention_factor;
}

static double positions_of(const Config *c) {
    return c->max_seq_len;
}

static double context_of(const Config *c) {
    LayerKind base;
    config_rules(c, &base);
    return base.rope.scaling.original_ctx;
}

static double rows_before_of(const Config *c) {
    return c->kinds[0].state.conv_dim;
}

static double expert_of(const Config *c) {
    return config_expert_dim(c);
}

static double scale_of(const Config *c) {
    return (double)c->attn_scale;
}

static double residual_of(const Config *c) {
    return (double)c->residual_scale;
}

static const struct {
    const char *fixture, *key;
    double (*number)(const Config *c);
    double want;
} absent[] = {
    {"llama4", "llama4.attention.sliding_window", window_of, 8192},
    {"llama4", "llama4.attention.temperature_scale", temperature_of, (double)0.1f},
    {"llama4", "llama4.attention.temperature_length", temperature_ctx_of, 8192},
    {"llama4", "llama4.rope.freq_base", theta_of, 10000},
    {"ministral3", "mistral3.attention.temperature_scale", temperature_of, 0},
    {"ministral3", "mistral3.rope.scaling.yarn_log_multiplier", magnitude_of, 0},
    {"ministral3", "mistral3.rope.scaling.original_context_length", context_of, 128},
    {"phimoe", "phimoe.attention.sliding_window", window_of, 0},
    {"phimoe", "phimoe.rope.scaling.attn_factor", magnitude_of, 0},
    {"phimoe", "phimoe.rope.scaling.original_context_length", context_of, 512},
    {"arwkv7", "arwkv7.token_shift_count", rows_before_of, 48},
    {"arwkv7", "arwkv7.context_length", positions_of, 1 << 20},
    {"lfm2_moe", "lfm2moe.expert_feed_forward_length", expert_of, 64},
    {"granite", "granite.attention.scale", scale_of, 0},
    {"granite", "granite.residual_scale", residual_of, 0},
    {"gemma2", "gemma2.attention.sliding_window", window_of, 4096},
};

static void absent_settings(void) {
    for (int i = 0; i < N_OF(absent); i++) {
        char path[512], err[512] = "";
        Fixture f;
        Model m;
        snprintf(path, sizeof path, FIXTURES "%s.json", absent[i].fixture);
        family_read(&f, path);
        size_t before = json_array_size(family_part(&f, "gguf_settings"));
        change_setting(&f, absent[i].key, NULL);
        CHECK(json_array_size(family_part(&f, "gguf_settings")) == before - 1, "%s: not in the fixture", absent[i].key);
        folder_make();
        snprintf(path, sizeof path, "%s/changed.gguf", folder);
        write_family_gguf(&f, path);
        int rc = load_model(&m, path, err, sizeof err);
        CHECK(!rc, "%s: %s", absent[i].key, err);
        double found = rc ? 0 : absent[i].number(&m.config);
        CHECK(found == absent[i].want, "%s: expected %g, found %g", absent[i].key, absent[i].want, found);
        if (!rc) weights_free(&m.weights);
        folder_remove();
        family_free(&f);
    }
}

// Numbers of experts in a folder none of whose layers has any: they are left alone, and no buffer is made for them.
static void experts_of_no_layer(void) {
    char err[512] = "";
    Fixture f;
    Model m;
    family_read(&f, FIXTURES "nemotron_h.json");
    json_t *config = family_part(&f, "config");
    json_object_set_new(config, "n_routed_experts", json_integer(5));
    json_object_set_new(config, "num_experts_per_tok", json_integer(INT_MAX));
    folder_make();
    write_family(&f);
    int rc = load_model(&m, folder, err, sizeof err);
    CHECK(!rc, "%s", err);
    if (!rc) {
        CHECK(!m.config.n_experts && !m.config.n_experts_used, "%d experts, %d of a token", m.config.n_experts,
              m.config.n_experts_used);
        weights_free(&m.weights);
    }
    folder_remove();
    family_free(&f);
}

int main(int argc, char **argv) {
    without_rounding();
    chosen = argv + 1;
    n_chosen = argc - 1;
    RUN(families_as_folders);
    RUN(families_as_gguf);
    RUN(unsound_settings);
    RUN(absent_settings);
    RUN(experts_of_no_layer);
    return test_report();
}
