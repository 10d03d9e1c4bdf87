// check_hf: Hugging Face folders that are wrong in one place, each refused with a line that names file, place, what was
// expected and what was found; and folders that say the same in other words, which must compute the same.
//
// Each case is a fixture of tests/fixtures/families with settings replaced and tensors added, replaced or left out. The
// settings of the sound ones are those that transformers writes (versions 4 and 5) and that published models have.
#include "decoder.h"
#include "expect.h"
#include "make_family.h"

typedef struct {
    const char *what, *fixture;
    const char *config;                // members that replace or join those of config.json, with ' for "
    const char *drop;                  // members left out, between blanks
    const char *want;                  // in the line; NULL: must load
    const char *tensors, *drop_tensor; // [name, dtype, shape, add, scale] that replace or join; one left out
} Case;

// ---- a fixture, altered

static json_t *parse(const char *text) {
    char *json = json_of(text);
    json_error_t error;
    json_t *v = json_loads(json, JSON_DECODE_ANY, &error);
    if (!v) {
        fprintf(stderr, "%s: %s\n", text, error.text);
        exit(1);
    }
    free(json);
    return v;
}

static void drop_tensor(json_t *specs, const char *name) {
    size_t i = 0;
    while (i < json_array_size(specs) && strcmp(spec_text(json_array_get(specs, i), 0), name) != 0) i++;
    json_array_remove(specs, i);
}

static void put_tensors(json_t *specs, const char *text) {
    json_t *list = parse(text), *spec;
    size_t i;
    json_array_foreach(list, i, spec) {
        drop_tensor(specs, spec_text(spec, 0));
        json_array_append(specs, spec);
    }
    json_decref(list);
}

static void read_case(Fixture *f, const Case *c) {
    char path[200], drop[200];
    snprintf(path, sizeof path, FIXTURES "%s.json", c->fixture);
    family_read(f, path);
    json_t *config = json_object_get(f->json, "config"), *specs = json_object_get(f->json, "tensors");
    snprintf(drop, sizeof drop, "%s", c->drop ? c->drop : "");
    for (char *key = strtok(drop, " "); key; key = strtok(NULL, " ")) {
        CHECK(!json_object_del(config, key), "%s: no %s to leave out", c->what, key);
    }
    if (c->config) {
        json_t *more = parse(c->config);
        json_object_update(config, more);
        json_decref(more);
    }
    size_t before = json_array_size(specs);
    if (c->drop_tensor) drop_tensor(specs, c->drop_tensor);
    CHECK(!c->drop_tensor || json_array_size(specs) < before, "%s: no %s to leave out", c->what, c->drop_tensor);
    if (c->tensors) put_tensors(specs, c->tensors);
}

// ---- loading

typedef struct {
    Model model;
    Decoder decoder;
} Loaded;

// Loaded and bound, or -1 and nothing is left.
static int load(Loaded *l, const char *path, char *err, size_t errlen) {
    if (load_model(&l->model, path, err, errlen)) {
        CHECK(all_zero(&l->model, sizeof l->model), "%s: not left empty", path);
        return -1;
    }
    if (!decoder_bind(&l->decoder, &l->model, err, errlen)) return 0;
    CHECK(!l->decoder.layers && !l->decoder.experts, "%s: a decoder is left", path);
    weights_free(&l->model.weights);
    return -1;
}

static void unload(Loaded *l) {
    decoder_free(&l->decoder);
    weights_free(&l->model.weights);
}

typedef struct {
    const Fixture *family;
    double error, power;
} Comparison;

static void compare_logits(void *context, int position, const float *logits) {
    Comparison *c = context;
    for (int i = 0; i < c->family->n_positions; i++) {
        if (c->family->positions[i] != position) continue;
        for (int t = 0; t < c->family->vocab_size; t++) {
            double want = family_logit(c->family, i, t), difference = (double)logits[t] - want;
            c->error += difference * difference, c->power += want * want;
        }
    }
}

// How far the text's logits are from the fixture's: normalized mean squared.
static double logits_error(const Loaded *l, const Fixture *f, const char *what) {
    char err[256] = "";
    DecoderState s = {0};
    KvCache *cache = decoder_cache_open(&l->decoder, KV_F32, 0, 0, err, sizeof err);
    bool ok = cache && !decoder_state_open(&s, &l->decoder, f->n_ctx, 1, err, sizeof err) &&
              !decoder_state_reserve(&s, &l->decoder, f->n_tokens, err, sizeof err) &&
              !kvcache_reserve(cache, f->n_tokens, err, sizeof err);
    CHECK(ok, "%s: %s", what, err);
    Comparison seen = {.family = f};
    if (ok) decoder_forward(&l->decoder, &s, cache, f->tokens, f->n_tokens, compare_logits, &seen);
    decoder_state_close(&s);
    kvcache_close(cache);
    return ok ? seen.error / seen.power : NAN;
}

// Loads, and computes what the fixture says; or, with `other`, something else.
static void check_load(const Fixture *f, const char *path, bool other, const char *what) {
    char err[512] = "";
    Loaded l;
    int rc = load(&l, path, err, sizeof err);
    CHECK(!rc, "%s: %s", what, err);
    if (rc) return;
    double error = logits_error(&l, f, what);
    CHECK(other ? error > 1e-7 : error <= 1e-9, "%s: NMSE %.1e", what, error);
    unload(&l);
}

static void check_refusal(const char *path, const char *want, const char *what) {
    char err[512] = "";
    Loaded l;
    int rc = load(&l, path, err, sizeof err);
    CHECK(rc == -1, "%s: expected a failure", what);
    if (rc) expect_line(err, folder, want, what);
    else unload(&l);
}

typedef enum { AS_THE_FIXTURE, OTHERWISE } Outcome; // of those that load

static void run_case(const Case *c, Outcome outcome) {
    Fixture f;
    read_case(&f, c);
    folder_make();
    write_family(&f);
    if (c->want) check_refusal(folder, c->want, c->what);
    else check_load(&f, folder, outcome == OTHERWISE, c->what);
    folder_remove();
    family_free(&f);
}

static void run_cases(const Case *list, int n, Outcome outcome) {
    for (int i = 0; i < n; i++) run_case(&list[i], outcome);
}

// ---- sizes

static void sizes(void) {
    static const Case cases[] = {
        {"no model_type", "llama", .drop = "model_type", .want = "config.json: model_type: expected a text, not found"},
        {"model_type a number", "llama", .config = "{'model_type': 5}",
         .want = "model_type: expected a text, found a whole number"},
        {"model_type null", "llama", .config = "{'model_type': null}",
         .want = "model_type: expected a text, not found"},
        {"model_type unknown", "llama", .config = "{'model_type': 'bert'}", .want = "smollm3, olmo2, olmoe"},
        {"model_type unknown, named", "llama", .config = "{'model_type': 'gemma3'}", .want = "found 'gemma3'"},
        {"model_type of another case", "llama", .config = "{'model_type': 'Llama'}", .want = "found 'Llama'"},
        {"no hidden_size", "llama", .drop = "hidden_size", .want = "hidden_size: expected a whole number from 1 to"},
        {"hidden_size 0", "llama", .config = "{'hidden_size': 0}", .want = "hidden_size: expected 1 to"},
        {"hidden_size negative", "llama", .config = "{'hidden_size': -48}", .want = "found -48"},
        {"hidden_size beyond int", "llama", .config = "{'hidden_size': 4294967344}", .want = "found 4294967344"},
        {"hidden_size 48.0", "llama", .config = "{'hidden_size': 48.0}",
         .want = "expected a whole number, found a number"},
        {"hidden_size a text", "llama", .config = "{'hidden_size': '48'}",
         .want = "expected a whole number, found a text"},
        {"hidden_size a list", "llama", .config = "{'hidden_size': [48]}",
         .want = "expected a whole number, found an array"},
        {"hidden_size no multiple", "llama", .config = "{'hidden_size': 49}",
         .want = "expected a divisor of hidden_size = 49"},
        {"hidden_size huge", "llama", .config = "{'hidden_size': 2147483646}",
         .want = "dim: expected 1 to 1048576, found"},
        {"hidden_size other", "llama", .config = "{'hidden_size': 60}",
         .want = "expected shape [57, 60], found [57, 48]"},
        {"no layers", "llama", .config = "{'num_hidden_layers': 0}", .want = "num_hidden_layers: expected 1 to"},
        {"too many layers", "llama", .config = "{'num_hidden_layers': 1025}",
         .want = "n_layers: expected 1 to 1024, found 1025"},
        {"one layer more", "llama", .config = "{'num_hidden_layers': 4}",
         .want = "tensor model.layers.3.input_layernorm.weight"},
        {"one layer less", "llama", .config = "{'num_hidden_layers': 2}", .want = "tensor model.layers.2."},
        {"no heads", "llama", .config = "{'num_attention_heads': 0}", .want = "num_attention_heads: expected 1 to"},
        {"more heads than width", "llama", .config = "{'num_attention_heads': 96}", .want = "expected a divisor"},
        {"no kv heads", "llama", .config = "{'num_key_value_heads': 0}", .want = "num_key_value_heads: expected 1 to"},
        {"kv heads no divisor", "llama", .config = "{'num_key_value_heads': 4}",
         .want = "expected a divisor of n_heads = 6, found 4"},
        {"more kv heads", "llama", .config = "{'num_key_value_heads': 12}",
         .want = "expected a divisor of n_heads = 6, found 12"},
        {"other kv heads", "llama", .config = "{'num_key_value_heads': 3}",
         .want = "expected shape [24, 48], found [16, 48]"},
        {"head_dim 0", "llama", .config = "{'head_dim': 0}", .want = "head_dim: expected 1 to"},
        {"head_dim odd", "llama", .config = "{'head_dim': 7}", .want = "head_dim: expected an even number"},
        {"head_dim 1", "llama", .config = "{'head_dim': 1}", .want = "head_dim = 1"},
        {"head_dim huge", "llama", .config = "{'head_dim': 1073741824}", .want = "head_dim: expected 1 to 1048576"},
        {"heads too wide", "llama", .config = "{'head_dim': 1048576}",
         .want = "n_heads x head_dim: expected at most 1048576"},
        {"head_dim other", "llama", .config = "{'head_dim': 16}", .want = "expected shape [96, 48], found [48, 48]"},
        {"no vocabulary", "llama", .config = "{'vocab_size': 0}", .want = "vocab_size: expected 1 to"},
        {"vocabulary short", "llama", .config = "{'vocab_size': 56}",
         .want = "embed_tokens.weight: expected shape [56, 48]"},
        {"vocabulary huge", "llama", .config = "{'vocab_size': 33554432}",
         .want = "vocab_size: expected 1 to 16777216"},
        {"no positions", "llama", .config = "{'max_position_embeddings': 0}",
         .want = "max_position_embeddings: expected 1 to"},
        {"positions absent", "llama", .drop = "max_position_embeddings",
         .want = "max_position_embeddings: expected a whole"},
        {"positions huge", "llama", .config = "{'max_position_embeddings': 2147483647}",
         .want = "seq_len: expected 1 to 268435456"},
        {"positions of the table", "gpt2", .config = "{'n_positions': 81}",
         .want = "wpe.weight: expected shape [81, 48]"},
        {"no eps", "llama", .drop = "rms_norm_eps", .want = "rms_norm_eps: expected a number from 0 to 1, not found"},
        {"eps 0", "llama", .config = "{'rms_norm_eps': 0}", .want = "norm_eps: expected between 0 and 1, found 0"},
        {"eps negative", "llama", .config = "{'rms_norm_eps': -1e-5}",
         .want = "rms_norm_eps: expected 0 to 1, found -1e-05"},
        {"eps 1", "llama", .config = "{'rms_norm_eps': 1.0}", .want = "norm_eps: expected between 0 and 1, found 1"},
        {"eps too small for a float", "llama", .config = "{'rms_norm_eps': 1e-60}",
         .want = "norm_eps: expected between 0 and 1"},
        {"eps a text", "llama", .config = "{'rms_norm_eps': '1e-5'}",
         .want = "rms_norm_eps: expected a number, found a text"},
        {"feed-forward 0", "llama", .config = "{'intermediate_size': 0}", .want = "intermediate_size: expected 1 to"},
        {"feed-forward other", "llama", .config = "{'intermediate_size': 73}",
         .want = "expected shape [73, 48], found [72, 48]"},
        {"feed-forward absent", "llama", .drop = "intermediate_size",
         .want = "intermediate_size: expected a whole number"},
        {"four times the width is none", "gpt2", .config = "{'n_inner': null}",
         .want = "expected shape [48, 192], found [48, 76]"},
        {"activation unknown", "llama", .config = "{'hidden_act': 'mish'}",
         .want = "hidden_act: expected gelu, gelu_new"},
        {"activation a number", "llama", .config = "{'hidden_act': 1}", .want = "hidden_act: expected a text"},
        {"tied a number", "llama", .config = "{'tie_word_embeddings': 1}",
         .want = "tie_word_embeddings: expected true or false"},
    };
    run_cases(cases, N_OF(cases), AS_THE_FIXTURE);
}

// ---- positions

static void positions(void) {
    static const Case cases[] = {
        {"theta 0", "llama", .config = "{'rope_theta': 0}", .want = "rope_theta: expected a positive number, found 0"},
        {"theta negative", "llama", .config = "{'rope_theta': -10000}",
         .want = "rope_theta: expected 0 to 1e+30, found -10000"},
        {"theta huge", "llama", .config = "{'rope_theta': 1e31}", .want = "rope_theta: expected 0 to 1e+30"},
        {"theta too small for a float", "llama", .config = "{'rope_theta': 1e-60}",
         .want = "rope_theta: expected a positive"},
        {"theta a text", "llama", .config = "{'rope_theta': '1e4'}",
         .want = "rope_theta: expected a number, found a text"},
        {"local theta 0", "gemma3_text", .config = "{'rope_local_base_freq': -1}",
         .want = "rope_local_base_freq: expected 0 to"},
        {"scaling a number", "llama", .config = "{'rope_scaling': 2}",
         .want = "rope_scaling: expected an object, found a whole"},
        {"scaling a list", "llama", .config = "{'rope_scaling': [2]}",
         .want = "rope_scaling: expected an object, found an array"},
        {"scaling a text", "llama", .config = "{'rope_scaling': 'yarn'}",
         .want = "rope_scaling: expected an object, found a text"},
        {"kind unknown", "llama", .config = "{'rope_scaling': {'type': 'ntk', 'factor': 2}}",
         .want = "rope_scaling.type: expected linear, dynamic, yarn, llama3 or longrope (no other is supported), found "
                 "'ntk'"},
        {"kind mrope", "llama", .config = "{'rope_scaling': {'type': 'mrope', 'mrope_section': [1]}}",
         .want = "found 'mrope'"},
        {"kind a number", "llama", .config = "{'rope_scaling': {'rope_type': 3}}",
         .want = "rope_scaling.rope_type: expected a text"},
        {"no factor", "llama", .config = "{'rope_scaling': {'type': 'linear'}}",
         .want = "rope_scaling.factor: expected a number from 0 to 1e+30, not found"},
        {"factor 0", "llama", .config = "{'rope_scaling': {'type': 'linear', 'factor': 0}}", .want = "a factor >= 1"},
        {"factor a half", "llama", .config = "{'rope_scaling': {'type': 'linear', 'factor': 0.5}}",
         .want = "found factor 0.5"},
        {"factor negative", "llama", .config = "{'rope_scaling': {'type': 'dynamic', 'factor': -2}}",
         .want = "rope_scaling.factor: expected 0 to 1e+30, found -2"},
        {"factor a text", "llama", .config = "{'rope_scaling': {'type': 'yarn', 'factor': '4'}}",
         .want = "rope_scaling.factor: expected a number, found a text"},
        {"factor huge", "llama", .config = "{'rope_scaling': {'type': 'yarn', 'factor': 1e31}}",
         .want = "rope_scaling.factor"},
        {"no borders", "llama", .config = "{'rope_scaling': {'rope_type': 'llama3', 'factor': 8}}",
         .want = "rope_scaling.low_freq_factor: expected a number"},
        {"borders equal", "llama",
         .config =
             "{'rope_scaling': {'rope_type': 'llama3', 'factor': 8, 'low_freq_factor': 4, 'high_freq_factor': 4}}",
         .want = "RoPE scaling: expected a factor >= 1, an original context, and borders in order"},
        {"borders the other way", "llama",
         .config =
             "{'rope_scaling': {'rope_type': 'llama3', 'factor': 8, 'low_freq_factor': 4, 'high_freq_factor': 1}}",
         .want = "RoPE scaling"},
        {"border 0", "llama",
         .config =
             "{'rope_scaling': {'rope_type': 'llama3', 'factor': 8, 'low_freq_factor': 0, 'high_freq_factor': 4}}",
         .want = "RoPE scaling"},
        {"turns the other way", "llama",
         .config = "{'rope_scaling': {'type': 'yarn', 'factor': 2, 'beta_fast': 1, 'beta_slow': 32}}",
         .want = "borders in order"},
        {"turns 0", "llama", .config = "{'rope_scaling': {'type': 'yarn', 'factor': 2, 'beta_slow': 0}}",
         .want = "RoPE scaling"},
        {"original context 0", "llama",
         .config = "{'rope_scaling': {'type': 'yarn', 'factor': 2, 'original_max_position_embeddings': 0}}",
         .want = "rope_scaling.original_max_position_embeddings: expected 1 to"},
        {"original context a number", "llama",
         .config = "{'rope_scaling': {'type': 'yarn', 'factor': 2, 'original_max_position_embeddings': 32.0}}",
         .want = "expected a whole number, found a number"},
        {"magnitude negative", "llama",
         .config = "{'rope_scaling': {'type': 'yarn', 'factor': 2, 'attention_factor': -1}}",
         .want = "rope_scaling.attention_factor: expected 0 to"},
        {"theta 1 and YaRN", "llama", .config = "{'rope_theta': 1, 'rope_scaling': {'type': 'yarn', 'factor': 2}}",
         .want = "RoPE scaling"},
        {"truncate a number", "llama", .config = "{'rope_scaling': {'type': 'yarn', 'factor': 2, 'truncate': 0}}",
         .want = "rope_scaling.truncate: expected true or false"},
        {"no long factors", "phi3",
         .config = "{'rope_scaling': {'type': 'longrope', 'short_factor': [1, 1, 1, 1, 1, 1, 1, 1]}}",
         .want = "rope_scaling.long_factor: expected a number for each pair"},
        {"factors short", "phi3_long",
         .config = "{'rope_scaling': {'type': 'longrope', 'short_factor': [1, 1, 1, 1, 1, 1], 'long_factor': [1, 1, 1, "
                   "1, 1]}}",
         .want = "rope_scaling.long_factor: expected an array of 6 numbers"},
        {"factors of all dimensions", "phi3_long",
         .config = "{'rope_scaling': {'type': 'su', 'short_factor': [1,1,1,1,1,1,1,1], 'long_factor': [1,1,1,1,1,1]}}",
         .want = "rope_scaling.short_factor: expected an array of 6 numbers"},
        {"factor of a pair 0", "phi3_long",
         .config =
             "{'rope_scaling': {'type': 'longrope', 'short_factor': [1,1,0,1,1,1], 'long_factor': [1,1,1,1,1,1]}}",
         .want = "tensor rope_factors_short.weight: expected numbers above 0, found 0"},
        {"factor of a pair negative", "phi3_long",
         .config =
             "{'rope_scaling': {'type': 'longrope', 'short_factor': [1,1,1,1,1,1], 'long_factor': [1,1,1,1,1,-2]}}",
         .want = "tensor rope_factors_long.weight: expected numbers above 0, found -2"},
        {"factor of a pair huge", "phi3_long",
         .config =
             "{'rope_scaling': {'type': 'longrope', 'short_factor': [1,1,1,1,1,1], 'long_factor': [1,1,1,1,1,1e39]}}",
         .want = "expected numbers above 0, found inf"},
        {"factor of a pair a text", "phi3_long",
         .config =
             "{'rope_scaling': {'type': 'longrope', 'short_factor': [1,1,1,1,1,'1'], 'long_factor': [1,1,1,1,1,1]}}",
         .want = "rope_scaling.short_factor: expected numbers, found a text"},
        {"factors a text", "phi3_long",
         .config = "{'rope_scaling': {'type': 'longrope', 'short_factor': '1', 'long_factor': [1,1,1,1,1,1]}}",
         .want = "rope_scaling.short_factor: expected an array of 6 numbers"},
        {"no part turns", "phi3_long", .config = "{'partial_rotary_factor': 0, 'rope_scaling': null}",
         .want = "partial_rotary_factor: expected 2 or more of head_dim = 16 to turn, found 0"},
        {"a tiny part turns", "gpt_neox", .config = "{'rotary_pct': 0.01}",
         .want = "rotary_pct: expected 2 or more of head_dim = 16 to turn, found 0.01"},
        {"more than all turn", "gpt_neox", .config = "{'rotary_pct': 1.5}",
         .want = "rotary_pct: expected 0 to 1, found 1.5"},
        {"less than none turn", "gpt_neox", .config = "{'rotary_pct': -0.5}",
         .want = "rotary_pct: expected 0 to 1, found -0.5"},
        {"an odd part turns", "gpt_neox", .config = "{'rotary_pct': 0.1875}",
         .want = "dimensions to turn (RoPE turns pairs), found 3"},
        {"a part said twice", "gpt_neox",
         .config = "{'rope_parameters': {'rope_type': 'default', 'partial_rotary_factor': 2}}",
         .want = "rope_parameters.partial_rotary_factor: expected 0 to 1, found 2"},
        {"sets by layer where they are one", "llama",
         .config =
             "{'rope_parameters': {'full_attention': {'rope_theta': 1e4}, 'sliding_attention': {'rope_theta': 1e3}}}",
         .want = "rope_parameters: expected one set for all layers"},
        {"scaled layers with a window", "gemma3_text",
         .config = "{'rope_parameters': {'full_attention': {'rope_theta': 1e4},"
                   " 'sliding_attention': {'rope_type': 'linear', 'factor': 2}}}",
         .drop = "rope_scaling", .want = "rope_parameters.sliding_attention.rope_type: expected default"},
        {"a set that is no object", "gemma3_text", .config = "{'rope_parameters': {'full_attention': 1}}",
         .drop = "rope_scaling", .want = "rope_parameters.full_attention: expected an object"},
    };
    run_cases(cases, N_OF(cases), AS_THE_FIXTURE);
}

// ---- layers that differ, windows, caps

static void layers(void) {
    static const Case cases[] = {
        {"kinds of fewer layers", "gemma3_types", .config = "{'layer_types': ['full_attention']}",
         .want = "layer_types: expected an array of num_hidden_layers = 7"},
        {"kinds a text", "gemma3_types", .config = "{'layer_types': 'full_attention'}",
         .want = "layer_types: expected an array"},
        {"a kind unknown", "llama",
         .config = "{'layer_types': ['full_attention', 'chunked_attention', 'full_attention']}",
         .want = "layer_types: layer 1: expected full_attention or sliding_attention, found 'chunked_attention'"},
        {"a kind a number", "llama", .config = "{'layer_types': [0, 1, 1]}", .want = "layer_types: layer 0: expected"},
        {"window negative", "mistral", .config = "{'sliding_window': -1}", .want = "sliding_window: expected 0 to"},
        {"window a number", "mistral", .config = "{'sliding_window': 11.5}",
         .want = "sliding_window: expected a whole number"},
        {"window beyond int", "mistral", .config = "{'sliding_window': 4294967296}",
         .want = "sliding_window: expected 0 to"},
        {"period negative", "gemma3_text", .config = "{'sliding_window_pattern': -6}",
         .want = "sliding_window_pattern: expected 0"},
        {"period a text", "gemma3_text", .config = "{'sliding_window_pattern': 'LLG'}",
         .want = "sliding_window_pattern: expected"},
        {"a window for which layers?", "qwen2", .config = "{'use_sliding_window': true}",
         .want = "layer_types: expected with"},
        {"still layers of fewer", "smollm3_list", .config = "{'no_rope_layers': [1, 0]}",
         .want = "no_rope_layers: expected an array"},
        {"still layers by a 2", "smollm3_list", .config = "{'no_rope_layers': [0, 1, 2, 0, 1]}",
         .want = "no_rope_layers: layer 2: expected 0 or 1"},
        {"still layers by truth", "smollm3_list", .config = "{'no_rope_layers': [0, 1, true, 0, 1]}",
         .want = "no_rope_layers: layer 2: expected 0 or 1"},
        {"period of still layers negative", "smollm3_interval", .config = "{'no_rope_layer_interval': -2}",
         .want = "no_rope_layer_interval: expected 0 to"},
        {"cap negative", "gemma2", .config = "{'attn_logit_softcapping': -50}",
         .want = "attn_logit_softcapping: expected 0 to"},
        {"cap a text", "gemma2", .config = "{'final_logit_softcapping': '30'}",
         .want = "final_logit_softcapping: expected a number"},
        {"scale negative", "gemma2", .config = "{'query_pre_attn_scalar': -1}",
         .want = "query_pre_attn_scalar: expected 0 to"},
        {"scale beyond a float", "gemma2", .config = "{'query_pre_attn_scalar': 1e-200}",
         .want = "attn_scale: expected a number"},
        {"both ways", "gemma3_text", .config = "{'use_bidirectional_attention': true}",
         .want = "use_bidirectional_attention"},
        {"not causal", "qwen3", .config = "{'is_causal': false}", .want = "is_causal: expected true"},
        {"scores as they are", "gpt2", .config = "{'scale_attn_weights': false}",
         .want = "scale_attn_weights: expected true"},
        {"scores by layer", "gpt2", .config = "{'scale_attn_by_inverse_layer_idx': true}", .want = "expected none"},
        {"clipped queries", "olmoe", .config = "{'clip_qkv': 8.0}",
         .want = "clip_qkv: expected none: it is not supported"},
    };
    run_cases(cases, N_OF(cases), AS_THE_FIXTURE);
}

// ---- experts

#define GPT_OSS_DOWN "model.layers.1.mlp.experts.down_proj"

static void experts(void) {
    static const Case cases[] = {
        {"fewer experts", "mixtral", .config = "{'num_local_experts': 4}",
         .want = "expected shape [4, 48], found [5, 48]"},
        {"more experts", "mixtral", .config = "{'num_local_experts': 6}",
         .want = "expected shape [6, 48], found [5, 48]"},
        {"one expert", "mixtral", .config = "{'num_local_experts': 1}",
         .want = "experts of a token: expected 1 to 1, found 2"},
        {"experts negative", "mixtral", .config = "{'num_local_experts': -5}",
         .want = "num_local_experts: expected 0 to"},
        {"experts beyond counting", "mixtral", .config = "{'num_local_experts': 4097}",
         .want = "experts: expected 0 to 4096"},
        {"experts beyond int", "mixtral", .config = "{'num_local_experts': 4294967301}",
         .want = "num_local_experts: expected 0"},
        {"no experts", "mixtral", .config = "{'num_local_experts': 0}",
         .want = "mlp.up_proj.weight: expected, not found"},
        {"experts unsaid", "mixtral", .drop = "num_local_experts", .want = "expected, not found"},
        {"none for a token", "mixtral", .config = "{'num_experts_per_tok': 0}",
         .want = "num_experts_per_tok: expected 1 to"},
        {"too many for a token", "mixtral", .config = "{'num_experts_per_tok': 6}", .want = "expected 1 to 5, found 6"},
        {"unsaid for a token", "mixtral", .drop = "num_experts_per_tok",
         .want = "num_experts_per_tok: expected a whole number"},
        {"an expert short of a matrix", "mixtral", .want = "experts.3.w2.weight: expected, not found",
         .drop_tensor = "model.layers.1.block_sparse_moe.experts.3.w2.weight"},
        {"first expert missing", "mixtral", .want = "block_sparse_moe.experts.0.w1.weight: expected, not found",
         .drop_tensor = "model.layers.0.block_sparse_moe.experts.0.w1.weight"},
        {"no router", "mixtral", .want = "block_sparse_moe.gate.weight: expected, not found",
         .drop_tensor = "model.layers.2.block_sparse_moe.gate.weight"},
        {"an expert too many", "mixtral", .want = "experts.5.w1.weight: expected none",
         .tensors = "[['model.layers.0.block_sparse_moe.experts.5.w1.weight', 'F32', [40, 48], 0, 1]]"},
        {"experts given twice", "qwen3_moe", .want = "experts.gate_up_proj.weight: expected none",
         .tensors = "[['model.layers.0.mlp.experts.gate_up_proj.weight', 'F32', [6, 40, 48], 0, 1]]"},
        {"experts and one network", "qwen3_moe", .want = "mlp.up_proj.weight: expected none",
         .tensors = "[['model.layers.0.mlp.up_proj.weight', 'F32', [40, 48], 0, 1]]"},
        {"experts of a width", "qwen3_moe", .config = "{'moe_intermediate_size': 41}",
         .want = "expected shape [41, 48]"},
        {"experts in some layers", "qwen3_moe", .config = "{'decoder_sparse_step': 2}",
         .want = "decoder_sparse_step: expected 1"},
        {"layers without experts", "qwen3_moe", .config = "{'mlp_only_layers': [1]}",
         .want = "mlp_only_layers: expected none"},
        {"normalized by a number", "olmoe", .config = "{'norm_topk_prob': 1}",
         .want = "norm_topk_prob: expected true or false"},
        {"no shared expert said", "qwen2_moe", .config = "{'shared_expert_intermediate_size': 0}",
         .want = "shared_expert"},
        {"shared expert of a width", "qwen2_moe", .config = "{'shared_expert_intermediate_size': 57}",
         .want = "[57, 48]"},
        {"shared expert negative", "qwen2_moe", .config = "{'shared_expert_intermediate_size': -1}",
         .want = "expected 0 to"},
        {"shared expert huge", "qwen2_moe", .config = "{'shared_expert_intermediate_size': 1048577}",
         .want = "a shared one of"},
        {"shared expert's gate twice as high", "qwen2_moe", .want = "expected shape [1, 48], found [2, 48]",
         .tensors = "[['model.layers.0.mlp.shared_expert_gate.weight', 'F32', [2, 48], 0, 1]]"},
        {"blocks of a width", "gpt_oss", .config = "{'intermediate_size': 80}",
         .want = "whole blocks of 32, found 64 and 80"},
        {"blocks for other experts", "gpt_oss", .config = "{'num_local_experts': 4}", .want = "expected shape [4, 64]"},
        {"blocks of 15 bytes", "gpt_oss", .want = "expected shape [5, 64, 3, 16], found [5, 64, 3, 15]",
         .tensors = "[['" GPT_OSS_DOWN "_blocks', 'U8', [5, 64, 3, 15], 0, 255]]"},
        {"blocks that are numbers", "gpt_oss", .want = "dtype F32 cannot be used here",
         .tensors = "[['" GPT_OSS_DOWN "_blocks', 'F32', [5, 64, 3, 16], 0, 1]]"},
        {"no exponents", "gpt_oss", .want = GPT_OSS_DOWN "_scales: expected, not found",
         .drop_tensor = GPT_OSS_DOWN "_scales"},
        {"exponents one short", "gpt_oss", .want = "expected shape [5, 64, 3], found [5, 64, 2]",
         .tensors = "[['" GPT_OSS_DOWN "_scales', 'U8', [5, 64, 2], 118, 4]]"},
        {"no biases of experts", "gpt_oss", .want = GPT_OSS_DOWN "_bias: expected, not found",
         .drop_tensor = GPT_OSS_DOWN "_bias"},
        {"no clamp", "gpt_oss", .config = "{'swiglu_limit': 0}", .want = "swiglu_limit: expected 0.001 to"},
        {"sinks for other heads", "gpt_oss", .want = "self_attn.sinks: expected shape [6], found [2]",
         .tensors = "[['model.layers.0.self_attn.sinks', 'F32', [2], 0, 1]]"},
        {"no sinks", "gpt_oss", .want = "self_attn.sinks: expected, not found",
         .drop_tensor = "model.layers.3.self_attn.sinks"},
    };
    run_cases(cases, N_OF(cases), AS_THE_FIXTURE);
}

// ---- tensors

#define Q_PROJ "model.layers.1.self_attn.q_proj.weight"

static void tensors(void) {
    static const Case cases[] = {
        {"no norm", "llama", .want = "tensor model.norm.weight: expected, not found",
         .drop_tensor = "model.norm.weight"},
        {"no queries", "llama", .want = Q_PROJ ": expected, not found", .drop_tensor = Q_PROJ},
        {"no gate", "llama", .want = "mlp.up_proj.weight: expected shape [144, 48]",
         .drop_tensor = "model.layers.0.mlp.gate_proj.weight"},
        {"no embedding", "llama", .want = "model.embed_tokens.weight: expected, not found",
         .drop_tensor = "model.embed_tokens.weight"},
        {"no classifier", "llama", .want = "tensor lm_head.weight: expected, not found",
         .drop_tensor = "lm_head.weight"},
        {"classifier short", "llama", .want = "lm_head.weight: expected shape [57, 48], found [56, 48]",
         .tensors = "[['lm_head.weight', 'F32', [56, 48], 0, 1]]"},
        {"matrix the other way round", "llama", .want = "expected shape [72, 48], found [48, 72]",
         .tensors = "[['model.layers.2.mlp.up_proj.weight', 'F32', [48, 72], 0, 1]]"},
        {"matrix flat", "llama", .want = "expected shape [48, 48], found [2304]",
         .tensors = "[['" Q_PROJ "', 'F32', [2304], 0, 1]]"},
        {"vector a matrix", "llama", .want = "expected shape [48], found [1, 48]",
         .tensors = "[['model.norm.weight', 'F32', [1, 48], 0, 1]]"},
        {"a scalar", "llama", .want = "expected shape [48], found [1]",
         .tensors = "[['model.norm.weight', 'F32', [], 0, 1]]"},
        {"an empty matrix", "llama", .want = "found [48, 0]", .tensors = "[['" Q_PROJ "', 'F32', [48, 0], 0, 1]]"},
        {"a bias too many", "llama", .want = "self_attn.o_proj.bias: expected none that this architecture",
         .tensors = "[['model.layers.0.self_attn.o_proj.bias', 'F32', [48], 0, 1]]"},
        {"a bias missing", "llama_bias", .want = "self_attn.k_proj.bias: expected, not found",
         .drop_tensor = "model.layers.2.self_attn.k_proj.bias"},
        {"biases said and none", "llama", .config = "{'attention_bias': true}",
         .want = "self_attn.q_proj.bias: expected, not found"},
        {"biases unsaid", "llama_bias", .config = "{'mlp_bias': false}", .want = "mlp."},
        {"a norm of queries too many", "llama", .want = "q_norm.weight: expected none",
         .tensors = "[['model.layers.0.self_attn.q_norm.weight', 'F32', [8], 0, 1]]"},
        {"an adapter", "llama", .want = "lora_A.weight: expected none",
         .tensors = "[['model.layers.0.self_attn.q_proj.lora_A.weight', 'F32', [4, 48], 0, 1]]"},
        {"whole numbers", "llama", .want = Q_PROJ ": dtype that this build does not know cannot be used here",
         .tensors = "[['" Q_PROJ "', 'I64', [48, 48], 0, 1]]"},
        {"double precision", "llama", .want = "dtype that this build does not know",
         .tensors = "[['" Q_PROJ "', 'F64', [48, 48], 0, 1]]"},
        {"bytes", "llama", .want = Q_PROJ ": dtype U8 cannot be used here",
         .tensors = "[['" Q_PROJ "', 'U8', [48, 48], 0, 1]]"},
        {"bytes of a norm", "llama", .want = "model.norm.weight: dtype U8 cannot be used here",
         .tensors = "[['model.norm.weight', 'U8', [48], 0, 1]]"},
        {"8-bit floats", "llama", .want = "cannot be used here",
         .tensors = "[['" Q_PROJ "', 'F8_E4M3', [48, 48], 0, 1]]"},
        {"a dtype of no name", "llama", .want = "dtype: expected F32, F16, BF16, ..., found F4",
         .tensors = "[['" Q_PROJ "', 'F4', [48, 48], 0, 1]]"},
        {"bitsandbytes", "llama",
         .config =
             "{'quantization_config': {'quant_method': 'bitsandbytes', 'load_in_4bit': true, '_load_in_4bit': true}}",
         .want = "quantization_config.quant_method: expected mxfp4, or no quantization (no other is supported), "
                 "found 'bitsandbytes'",
         .tensors = "[['" Q_PROJ "', 'U8', [1152, 1], 0, 1]]"},
        {"gptq", "llama", .config = "{'quantization_config': {'quant_method': 'gptq', 'bits': 4, 'group_size': 128}}",
         .want = "found 'gptq'", .drop_tensor = Q_PROJ},
        {"awq", "llama", .config = "{'quantization_config': {'quant_method': 'awq', 'bits': 4}}", .want = "found 'awq'",
         .drop_tensor = Q_PROJ},
        {"fp8", "llama", .config = "{'quantization_config': {'quant_method': 'fp8', 'weight_block_size': [128, 128]}}",
         .want = "found 'fp8'", .tensors = "[['" Q_PROJ "', 'F8_E4M3', [48, 48], 0, 1]]"},
        {"compressed-tensors", "llama", .config = "{'quantization_config': {'quant_method': 'compressed-tensors'}}",
         .want = "found 'compressed-tensors'"},
        {"a method of no name", "llama", .config = "{'quantization_config': {'bits': 4}}", .want = "found 'nothing'"},
        {"a method by number", "llama", .config = "{'quantization_config': {'quant_method': 4}}",
         .want = "quantization_config.quant_method: expected a text"},
        {"a method that is no object", "llama", .config = "{'quantization_config': 'awq'}",
         .want = "quantization_config: expected an object"},
        {"MLX's own", "llama", .config = "{'quantization': {'group_size': 64, 'bits': 4}}",
         .want = "quantization: expected none"},
        {"fused matrix too high", "phi3", .want = "qkv_proj.weight: expected shape [128, 64], found [192, 64]",
         .tensors = "[['model.layers.0.self_attn.qkv_proj.weight', 'F32', [192, 64], 0, 1]]"},
        {"fused and apart", "phi3", .want = "self_attn.q_proj.weight: expected none",
         .tensors = "[['model.layers.0.self_attn.q_proj.weight', 'F32', [64, 64], 0, 1]]"},
        {"transposed matrix as others have it", "gpt2", .want = "expected shape [48, 144], found [144, 48]",
         .tensors = "[['transformer.h.0.attn.c_attn.weight', 'F32', [144, 48], 0, 1]]"},
    };
    run_cases(cases, N_OF(cases), AS_THE_FIXTURE);
}

// ---- sound ones

static void same_in_other_words(void) {
    static const Case cases[] = {
        {"nulls", "llama",
         .config = "{'head_dim': null, 'rope_scaling': null, 'sliding_window': null, 'layer_types': null, "
                   "'attention_bias': null,"
                   " 'mlp_bias': null, 'partial_rotary_factor': null, 'tie_word_embeddings': null, "
                   "'quantization_config': null,"
                   " 'use_sliding_window': null, 'clip_qkv': null, 'no_rope_layers': null, 'num_local_experts': null}"},
        {"no kv heads said", "llama_old", .config = "{'num_key_value_heads': null}"},
        {"what else Llama 3.2 has", "llama",
         .config =
             "{'attention_bias': false, 'attention_dropout': 0.0, 'eos_token_id': [1, 2], 'head_dim': 8, 'mlp_bias': "
             "false,"
             " 'initializer_range': 0.02, 'pretraining_tp': 1, 'dtype': 'bfloat16', 'use_cache': true,"
             " 'transformers_version': '4.57.1', 'auto_map': {}, '_name_or_path': 'x', 'rope_interleaved': false}"},
        {"theta among the parameters", "llama_tied",
         .config = "{'rope_parameters': {'rope_theta': 500000.0, 'rope_type': 'default'}, 'dtype': 'float32'}",
         .drop = "rope_theta"},
        {"scaling among the parameters", "llama_llama3",
         .config = "{'rope_parameters': {'factor': 8.0, 'high_freq_factor': 4.0, 'low_freq_factor': 1.0, 'rope_theta': "
                   "10000.0,"
                   " 'original_max_position_embeddings': 20, 'rope_type': 'llama3'}}",
         .drop = "rope_scaling rope_theta"},
        {"kind under both names", "llama_linear",
         .config = "{'rope_scaling': {'factor': 2.5, 'rope_type': 'linear', 'type': 'linear'}}"},
        {"kind default", "llama", .config = "{'rope_scaling': {'rope_type': 'default'}}"},
        {"kind null", "llama", .config = "{'rope_scaling': {'type': null}}"},
        {"nothing in the scaling", "llama", .config = "{'rope_scaling': {}}"},
        {"magnitude said, and DeepSeek's numbers", "llama_yarn_factor",
         .config =
             "{'rope_scaling': {'type': 'yarn', 'factor': 3.0, 'original_max_position_embeddings': 32, 'beta_fast': "
             "1.2,"
             " 'beta_slow': 0.2, 'attention_factor': 0.9, 'truncate': false, 'mscale': 1.0, 'mscale_all_dim': 0.7}}"},
        {"magnitude by DeepSeek's numbers", "llama_yarn_factor",
         .config = // (1 + 0.05 ln 3) / (1 + 0.157 ln 3) = 0.9
         "{'rope_scaling': {'type': 'yarn', 'factor': 3.0, 'original_max_position_embeddings': 32, 'beta_fast': 1.2,"
         " 'beta_slow': 0.2, 'truncate': false, 'mscale': 0.5, 'mscale_all_dim': 1.5669324740298176}}"},
        {"Qwen 3 as published", "qwen3",
         .config = "{'attention_bias': false, 'attention_dropout': 0.0, 'max_window_layers': 3, 'rope_scaling': null,"
                   " 'sliding_window': null, 'use_sliding_window': false,"
                   " 'layer_types': ['full_attention', 'full_attention', 'full_attention']}"},
        {"Qwen 3 with a window that it does not use", "qwen3",
         .config = "{'sliding_window': 8, 'max_window_layers': 3, 'use_sliding_window': false,"
                   " 'layer_types': ['full_attention', 'full_attention', 'full_attention']}"},
        {"Qwen 2 by transformers 5", "qwen2",
         .config = "{'rope_parameters': {'rope_theta': 1000000.0, 'rope_type': 'default'}, 'sliding_window': null,"
                   " 'layer_types': ['full_attention', 'full_attention', 'full_attention']}",
         .drop = "rope_theta"},
        {"Qwen 2 MoE with its biases said", "qwen2_moe",
         .config =
             "{'qkv_bias': true, 'output_router_logits': false, 'router_aux_loss_coef': 0.001, 'max_window_layers': 3,"
             " 'sliding_window': 4096}"},
        {"Mistral by its kinds", "mistral",
         .config = "{'layer_types': ['sliding_attention', 'sliding_attention', 'sliding_attention']}"},
        {"Mixtral as published", "mixtral",
         .config = "{'sliding_window': null, 'output_router_logits': false, 'router_jitter_noise': 0.0, "
                   "'attention_dropout': 0}"},
        {"Phi-3 with a window beyond the text", "phi3_long",
         .config = "{'sliding_window': 262144, 'embd_pdrop': 0.0, 'resid_pdrop': 0.0, 'attention_bias': false}"},
        {"Phi-3 with 2047 and no scaling", "phi3",
         .config = "{'rope_scaling': null, 'sliding_window': 13, 'head_dim': null}"},
        {"Phi-3's scaling under its first name", "phi3_short",
         .config = "{'rope_scaling': {'type': 'su', 'short_factor': [1.0, 1.05, 1.1, 1.2, 1.4, 1.6],"
                   " 'long_factor': [1, 1.3, 2.1, 3.3, 5, 7.9]}}"},
        {"Phi-3 by transformers 5", "phi3_long",
         .config = "{'rope_parameters': {'rope_type': 'longrope', 'short_factor': [1.0, 1.05, 1.1, 1.2, 1.4, 1.6],"
                   " 'long_factor': [1, 1.3, 2.1, 3.3, 5, 7.9], 'original_max_position_embeddings': 32,"
                   " 'partial_rotary_factor': 0.75, 'rope_theta': 10000.0}}",
         .drop = "rope_scaling partial_rotary_factor rope_theta original_max_position_embeddings"},
        {"Gemma 2 with its kinds", "gemma2",
         .config = "{'layer_types': ['sliding_attention', 'full_attention', 'sliding_attention', 'full_attention'],"
                   " 'cache_implementation': 'hybrid', 'hidden_act': 'gelu_pytorch_tanh', 'attention_bias': false}"},
        {"Gemma 3 as published", "gemma3_text",
         .config = "{'attn_logit_softcapping': null, 'final_logit_softcapping': null, 'cache_implementation': 'hybrid',"
                   " 'attention_bias': false, 'use_bidirectional_attention': false, '_sliding_window_pattern': 6}"},
        {"Gemma 3 by transformers 5", "gemma3_text",
         .config =
             "{'rope_parameters': {'full_attention': {'rope_type': 'linear', 'factor': 8.0, 'rope_theta': 1000000.0},"
             " 'sliding_attention': {'rope_type': 'default', 'rope_theta': 10000.0}},"
             " 'layer_types': ['sliding_attention', 'sliding_attention', 'sliding_attention', 'sliding_attention',"
             " 'sliding_attention', 'full_attention', 'sliding_attention']}",
         .drop = "rope_scaling rope_theta rope_local_base_freq sliding_window_pattern"},
        {"GPT-NeoX by transformers 5", "gpt_neox",
         .config = "{'rope_parameters': {'rope_type': 'default', 'rope_theta': 10000, 'partial_rotary_factor': 0.25},"
                   " 'attention_bias': true, 'hidden_dropout': 0.0}",
         .drop = "rotary_pct rotary_emb_base"},
        {"GPT-NeoX's part under Phi's name", "gpt_neox", .config = "{'partial_rotary_factor': 0.25}",
         .drop = "rotary_pct"},
        {"GPT-2 as published", "gpt2",
         .config =
             "{'attn_pdrop': 0.1, 'reorder_and_upcast_attn': false, 'scale_attn_by_inverse_layer_idx': false,"
             " 'scale_attn_weights': true, 'summary_type': 'cls_index', 'task_specific_params': {'a': {'b': 50}}}"},
        {"SmolLM 3 as published", "smollm3",
         .config =
             "{'max_window_layers': 28, 'sliding_window': null, 'use_sliding_window': false, 'attention_bias': false,"
             " 'layer_types': ['full_attention', 'full_attention', 'full_attention', 'full_attention', "
             "'full_attention']}"},
        {"gpt-oss as published", "gpt_oss",
         .config =
             "{'experts_per_token': 2, 'output_router_logits': false, 'router_aux_loss_coef': 0.9, 'use_cache': true}"},
        {"OLMoE as published", "olmoe", .config = "{'clip_qkv': null, 'rope_scaling': null, 'attention_bias': false}"},
        {"tied, and the classifier all the same", "llama_tied",
         .tensors = "[['lm_head.weight', 'F32', [57, 48], 0, 1]]"},
        {"frequencies that older versions stored", "llama",
         .tensors = "[['model.layers.0.self_attn.rotary_emb.inv_freq', 'F32', [4], 0, 1],"
                    " ['model.rotary_emb.inv_freq', 'F32', [4], 0, 1]]"},
        {"masks that older versions stored", "gpt_neox",
         .tensors = "[['gpt_neox.layers.0.attention.bias', 'U8', [1, 1, 96, 96], 0, 1],"
                    " ['gpt_neox.layers.0.attention.masked_bias', 'F32', [], 0, 1]]"},
        {"a setting of another family", "llama", .config = "{'swiglu_limit': 7.0, 'final_logit_softcapping': 30.0}"},
    };
    run_cases(cases, N_OF(cases), AS_THE_FIXTURE);
}

// A setting that changes the computation changes it: the fixture's logits must not come out.
static void settings_count(void) {
    static const Case cases[] = {
        {"theta", "llama", .config = "{'rope_theta': 9000.0}"},
        {"theta among the parameters", "llama", .config = "{'rope_parameters': {'rope_theta': 9000.0}}",
         .drop = "rope_theta"},
        {"a cap on Gemma 3's scores", "gemma3_text", .config = "{'attn_logit_softcapping': 0.5}"},
        {"a cap on Gemma 3's logits", "gemma3_text", .config = "{'final_logit_softcapping': 0.5}"},
        {"no cap on Gemma 2's scores", "gemma2", .config = "{'attn_logit_softcapping': null}"},
        {"no cap on Gemma 2's logits", "gemma2", .config = "{'final_logit_softcapping': null}"},
        {"local theta among the parameters", "gemma3_types",
         .config = "{'rope_parameters': {'full_attention': {'rope_theta': 1e6}, 'sliding_attention': {'rope_theta': "
                   "9000.0}}}",
         .drop = "rope_theta rope_local_base_freq"},
        {"tied", "gpt_neox", .config = "{'tie_word_embeddings': true}"},
        {"a part that turns", "llama", .config = "{'partial_rotary_factor': 0.5}"},
        {"a clamp", "gpt_oss", .config = "{'swiglu_limit': 0.5}"},
        {"weights of experts", "olmoe", .config = "{'norm_topk_prob': true}"},
        {"a window", "llama", .config = "{'sliding_window': 5}"},
        {"a window of some layers", "llama",
         .config = "{'sliding_window': 5, 'layer_types': ['full_attention', 'full_attention', 'sliding_attention']}"},
        {"a window that Qwen asks for", "qwen3",
         .config = "{'sliding_window': 5, 'use_sliding_window': true,"
                   " 'layer_types': ['full_attention', 'sliding_attention', 'full_attention']}"},
    };
    run_cases(cases, N_OF(cases), OTHERWISE);
}

// ---- files

// A config.json that no object makes, beside sound tensors.
static void refuse_text(const char *text, size_t n, const char *want, const char *what) {
    write_file("config.json", text, n);
    check_refusal(folder, want, what);
}

static void texts(void) {
    enum { DEPTH = 100000 };
    Fixture f;
    family_read(&f, FIXTURES "llama.json");
    folder_make();
    write_family(&f);
    refuse_text("", 0, "config.json: the file is empty", "an empty file");
    refuse_text("\0\0\0", 3, "config.json: line 1, column 1: not JSON", "zeros");
    refuse_text("{", 1, "not JSON", "half an object");
    refuse_text("[]", 2, "expected a JSON object", "an array");
    refuse_text("{} {}", 5, "not JSON", "two objects");
    refuse_text("{\"a\": 1,}", 9, "not JSON", "a comma too many");
    refuse_text("{\"a\": NaN}", 10, "not JSON", "not a number");
    refuse_text("{\"a\": 1e999}", 12, "not JSON", "beyond a double");
    refuse_text("{\"a\": 99999999999999999999}", 28, "not JSON", "beyond 64 bits");
    refuse_text("{\"a\": \"\xff\"}", 10, "not JSON", "no UTF-8");
    char *config = json_dumps(family_part(&f, "config"), JSON_COMPACT), *twice = need(strlen(config) + 40);
    sprintf(twice, "{\"hidden_size\":48,%s", config + 1);
    refuse_text(twice, strlen(twice), "duplicate object key", "a key twice");
    free(twice);
    free(config);
    char *deep = need(DEPTH + 8);
    memcpy(deep, "{\"a\": ", 6);
    memset(deep + 6, '[', DEPTH);
    refuse_text(deep, DEPTH + 6, "not JSON", "deep nesting");
    free(deep);
    write_json("config.json", "{'model_type': 'line\\none\\u0007', 'hidden_size': 48}");
    check_refusal(folder, "found 'line?one?'", "control characters");
    remove(in_folder("config.json"));
    check_refusal(folder, "config.json: No such file or directory", "no config.json");
    check_refusal(in_folder("model.safetensors"), "config.json: No such file or directory", "no config.json beside");
    mkdir(in_folder("config.json"), 0700);
    check_refusal(folder, "config.json: expected a regular file, found a directory", "a folder config.json");
    folder_remove();
    family_free(&f);
}

static void move(const char *from, const char *to) {
    char old[512];
    snprintf(old, sizeof old, "%s", in_folder(from));
    CHECK(!rename(old, in_folder(to)), "%s: cannot be renamed", from);
}

// The tensors of a fixture whose place is even or odd, or all others.
static void keep_half(Fixture *f, size_t odd) {
    json_t *specs = json_object_get(f->json, "tensors");
    for (size_t i = json_array_size(specs); i-- > 0;) {
        if (i % 2 != odd) json_array_remove(specs, i);
    }
}

static void write_index(const Fixture *f, const char *names[2]) {
    json_t *map = json_object(), *index = json_pack("{s:{s:i},s:O}", "metadata", "total_size", 1, "weight_map", map);
    const json_t *specs = family_part(f, "tensors");
    for (size_t i = 0; i < json_array_size(specs); i++) {
        json_object_set_new(map, spec_text(json_array_get(specs, i), 0), json_string(names[i % 2]));
    }
    char *text = json_dumps(index, JSON_COMPACT);
    write_text("model.safetensors.index.json", text);
    free(text);
    json_decref(index);
    json_decref(map);
}

static void shards(void) {
    static const char *names[] = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"};
    Fixture f, half;
    folder_make();
    family_read(&f, FIXTURES "gemma3_text.json");
    for (size_t i = 0; i < 2; i++) {
        family_read(&half, FIXTURES "gemma3_text.json");
        keep_half(&half, i);
        write_family(&half);
        move("model.safetensors", names[i]);
        family_free(&half);
    }
    check_refusal(folder, "expected model.safetensors, model.safetensors.index.json or one other", "no index");
    write_index(&f, names);
    check_load(&f, folder, false, "two files");
    check_refusal(in_folder(names[0]), "expected, not found", "the first of two files alone");
    remove(in_folder(names[1]));
    check_refusal(folder, "00002-of-00002.safetensors: No such file", "the second of two files is missing");
    folder_remove();
    family_free(&f);
}

static void named(void) {
    Fixture f;
    folder_make();
    family_read(&f, FIXTURES "qwen3.json");
    write_family(&f);
    check_load(&f, in_folder("model.safetensors"), false, "a file named itself");
    move("model.safetensors", "other.safetensors");
    check_load(&f, folder, false, "the only file of another name");
    check_load(&f, in_folder("other.safetensors"), false, "a file of another name, named itself");
    move("config.json", "other_config.json");
    check_load(&f, in_folder("other.safetensors"), false, "settings named after the file");
    folder_remove();
    family_free(&f);
}

int main(void) {
    without_bf16();
    RUN(sizes);
    RUN(positions);
    RUN(layers);
    RUN(experts);
    RUN(tensors);
    RUN(same_in_other_words);
    RUN(settings_count);
    RUN(texts);
    RUN(shards);
    RUN(named);
    return test_report();
}
