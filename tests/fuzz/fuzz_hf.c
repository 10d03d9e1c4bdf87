// fuzz_hf: config.json and the header of model.safetensors, through the binder and one forward pass.
//
// The models are the fixtures of tests/fixtures/families. The first byte chooses: the input as config.json, or settings
// of the fixture replaced, left out or joined (also inside its RoPE scaling), and a byte of the header changed. What
// nothing was done to must load and compute finite logits; what loads all the same has the fixture's small tensors, so
// that a few tokens of it are computed, with a context limit that the input chooses.
#include "decoder.h"
#include "load.h"

#include "../make_family.h"
#include "fuzz.h"

#include <stb/stb_ds.h>

enum { INPUT_MAX = 1 << 14, N_FED = 5 };

static const char *const names[] = {"llama_bias", "llama_yarn", "llama_dynamic", "gemma2",      "gemma3_text",
                                    "phi3_long",  "qwen2_moe",  "mixtral",       "gpt_oss",     "smollm3",
                                    "gpt2",       "gpt_neox",   "qwen3_next",    "qwen35",      "qwen35_moe",
                                    "rwkv6",      "rwkv7",      "mamba2",        "falcon_h1",   "granite_hybrid",
                                    "nemotron_h", "bamba",      "deepseek_v2",   "deepseek_v3", "minicpm3"};
enum { N_NAMES = sizeof names / sizeof *names };

static struct {
    Fixture fixture;
    uint8_t *file; // model.safetensors
    size_t n_file, n_header;
    Weights weights; // of that file
} models[N_NAMES];

static volatile float sink;

// tests/fuzz/settings.json: keys of config.json and of its RoPE scaling, and the JSON of what may stand there.
static const json_t *words;

static char path[] = "fuzz.safetensors";

static void open_models(void) {
    words = json_load_file("tests/fuzz/settings.json", 0, NULL);
    REQUIRE(words);
    for (int i = 0; i < N_NAMES; i++) {
        char fixture[200], *header, *data;
        size_t n_header, n_data;
        snprintf(fixture, sizeof fixture, "tests/fixtures/families/%s.json", names[i]);
        family_read(&models[i].fixture, fixture);
        family_tensors(&models[i].fixture, &header, &n_header, &data, &n_data);
        uint64_t length = n_header;
        models[i].n_header = n_header;
        models[i].n_file = 8 + n_header + n_data;
        models[i].file = malloc(models[i].n_file);
        memcpy(models[i].file, &length, 8);
        memcpy(models[i].file + 8, header, n_header);
        memcpy(models[i].file + 8 + n_header, data, n_data);
        free(header);
        free(data);
        File file = {.path = path, .data = models[i].file, .size = models[i].n_file, .borrowed = true};
        REQUIRE(!load_safetensors_file(&models[i].weights, &file, NULL, 0));
    }
}

// ---- one model

// A few tokens at once, then one more. False where a logit is not finite.
static bool compute(const Decoder *d, int n_ctx) {
    static const int32_t tokens[N_FED + 1] = {1, 3, 0, 2, 3, 1};
    const Config *c = decoder_config(d);
    char err[256] = "";
    Compute compute;
    Memory memory;
    Workspace work = {.compute = &compute};
    MemoryOptions options = {.kv = KV_DTYPE_F32, .n_ctx = n_ctx, .rope_factors = d->rope_factors};
    float *logits = malloc(sizeof *logits * (size_t)c->vocab_size);
    REQUIRE(logits && !compute_open(&compute, 1, err, sizeof err));
    REQUIRE(!memory_open(&memory, c, &options, NULL, err, sizeof err));
    REQUIRE(!workspace_reserve(&work, c, N_FED, err, sizeof err) &&
            !memory_reserve(&memory, N_FED + 1, err, sizeof err));
    decoder_forward(d, &work, &(DecoderSegment){.memory = &memory, .tokens = tokens, .n = N_FED}, 1, NULL);
    memory_advance(&memory, N_FED);
    DecoderSegment one = {.memory = &memory, .tokens = tokens + N_FED, .n = 1, .logits = logits};
    decoder_forward(d, &work, &one, 1, NULL);
    bool finite = true;
    for (int i = 0; i < c->vocab_size; i++) finite &= isfinite(logits[i]) != 0;
    sink = logits[0];
    free(logits);
    workspace_close(&work);
    memory_close(&memory);
    compute_close(&compute);
    return finite;
}

// The tensors of a fixture as its file has them, without reading its header again: most inputs alter settings alone.
static void copy_tensors(Weights *w, const Weights *from) {
    arrput(w->files, from->files[0]);
    for (size_t i = 0; i < weights_count(from); i++) {
        REQUIRE(!weights_add(w, from->table[i].key, from->table[i].value, NULL, 0));
    }
}

// True where the model loads, and *finite then tells of its logits. patched: the file with another header, or NULL.
static bool load(const char *config, size_t n_config, int which, const uint8_t *patched, int n_ctx, bool *finite) {
    char err[512] = "";
    Settings s;
    Weights w = {0};
    Model m;
    Decoder d;
    File file = {.path = path, .data = patched, .size = models[which].n_file, .borrowed = true};
    if (settings_parse(&s, "fuzz.config.json", config, n_config, err, sizeof err)) {
        require_line(err, "fuzz.config.json");
        return false;
    }
    int rc = patched ? load_safetensors_file(&w, &file, err, sizeof err) : 0;
    if (!patched) copy_tensors(&w, &models[which].weights);
    if (!rc) rc = load_hf_parts(&m, &s, &w, err, sizeof err);
    settings_free(&s);
    REQUIRE(!w.files && !w.table && !w.copies);
    if (!rc && decoder_bind(&d, &m, err, sizeof err)) {
        weights_free(&m.weights);
        REQUIRE(!d.stack.layers);
        rc = -1;
    }
    if (rc) {
        require_line(err, strncmp(err, "fuzz.s", 6) ? "fuzz.config.json" : "fuzz.safetensors");
        return false;
    }
    *finite = compute(&d, n_ctx);
    decoder_free(&d);
    weights_free(&m.weights);
    return true;
}

// ---- settings from the input

static const char *word(const char *list, unsigned i) {
    const json_t *all = json_object_get(words, list);
    return json_string_value(json_array_get(all, i % json_array_size(all)));
}

static void edit(json_t *object, const char *key, Input *in) {
    unsigned which = next(in, 255);
    json_t *v = which < 200 ? json_loads(word("values", which), JSON_DECODE_ANY, NULL) : NULL;
    if (v) json_object_set_new(object, key, v);
    else json_object_del(object, key);
}

// The settings of a fixture, n_edits of them altered.
static char *altered_settings(const Fixture *f, Input *in, unsigned n_edits) {
    json_t *config = json_deep_copy(family_part(f, "config"));
    while (n_edits--) {
        const char *outer = json_object_get(config, "rope_parameters") ? "rope_parameters" : "rope_scaling";
        json_t *rope = json_object_get(config, outer);
        if (json_is_object(rope) && next(in, 2) == 0) edit(rope, word("rope_keys", next(in, 255)), in);
        else edit(config, word("keys", next(in, 255)), in);
    }
    char *text = json_dumps(config, JSON_COMPACT);
    json_decref(config);
    return text;
}

static void try_altered(Input *in, int which) {
    unsigned n_edits = next(in, 4), patch = next(in, 3), n_ctx = 1u << next(in, 24);
    bool finite, header = patch == 0 && n_edits < 2;
    const Fixture *f = &models[which].fixture;
    char *config = altered_settings(f, in, n_edits);
    uint8_t *copy = NULL;
    if (header) {
        unsigned at = next(in, 255) << 8;
        at |= next(in, 255);
        copy = malloc(models[which].n_file);
        memcpy(copy, models[which].file, models[which].n_file);
        copy[8 + at % models[which].n_header] = (uint8_t)next(in, 255);
    }
    bool loaded = load(config, strlen(config), which, copy, (int)n_ctx, &finite);
    if (!n_edits && !header) REQUIRE(loaded && finite);
    free(copy);
    free(config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!models[0].file) open_models();
    if (size < 2 || size > INPUT_MAX) return 0;
    Input in = {data + 2, data + size};
    int which = data[1] % N_NAMES;
    bool finite;
    if (data[0] & 7) try_altered(&in, which);
    else load((const char *)data + 2, size - 2, which, NULL, 16, &finite);
    return 0;
}
