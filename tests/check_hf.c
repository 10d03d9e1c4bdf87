// check_hf: Hugging Face folders that say the same in other words, which must compute the same, or something else,
// which must not (bad/hf_sound.txt; those that are wrong are in bad/hf.txt); shards, and files of other names.
#include "bad/hf.h"

// ---- loading

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
    Compute compute;
    Memory memory = {0};
    Workspace work = {.compute = &compute};
    MemoryOptions options = {.kv = KV_DTYPE_F32, .n_ctx = f->n_ctx, .rope_factors = l->decoder.rope_factors};
    const Config *c = decoder_config(&l->decoder);
    float *logits = need(sizeof *logits * LOGITS_BLOCK * (size_t)c->vocab_size);
    if (compute_open(&compute, 1, err, sizeof err)) exit(1);
    bool ok = !memory_open(&memory, c, &options, NULL, err, sizeof err) &&
              !workspace_reserve(&work, c, f->n_tokens, err, sizeof err) &&
              !memory_reserve(&memory, f->n_tokens, err, sizeof err);
    CHECK(ok, "%s: %s", what, err);
    Comparison seen = {.family = f};
    DecoderSegment all = {.memory = &memory, .tokens = f->tokens, .n = f->n_tokens};
    all.callback = compare_logits;
    all.callback_context = &seen;
    if (ok) decoder_forward(&l->decoder, &work, &all, 1, logits);
    free(logits);
    workspace_close(&work);
    memory_close(&memory);
    compute_close(&compute);
    return ok ? seen.error / seen.power : NAN;
}

// Loads, and computes what the fixture says; or, with `other`, something else.
static void check_load(const Fixture *f, const char *path, bool other, const char *what) {
    char err[512] = "";
    Loaded l;
    NEED(!hf_load(&l, path, err, sizeof err), "%s: %s", what, err);
    double error = logits_error(&l, f, what);
    CHECK(other ? error > 1e-7 : error <= 1e-9, "%s: NMSE %.1e", what, error);
    hf_unload(&l);
}

static void check_refusal(const char *path, const char *want, const char *what) {
    char err[512] = "";
    Loaded l;
    int rc = hf_load(&l, path, err, sizeof err);
    CHECK(rc == -1, "%s: expected a failure", what);
    if (rc) expect_line(err, folder, want, what);
    else hf_unload(&l);
}

// ---- settings in other words, and settings that count

// The row wants "same": the fixture's logits come out; or "other": a setting changes the computation, and they do not.
static void try_sound(const Bad *b) {
    Fixture f;
    hf_write(b, &f);
    check_load(&f, folder, !strcmp(b->want, "other"), b->what);
    family_free(&f);
}

static void sound(void) {
    folder_make();
    each_bad("hf_sound", try_sound);
    folder_remove();
}

// ---- files

// What stands in the place of config.json.
static void no_config(void) {
    Fixture f;
    family_read(&f, FIXTURES "llama.json");
    folder_make();
    write_family(&f);
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

// ---- other names

// Every `from` in the header of model.safetensors becomes `to`.
static void rename_tensors(const char *from, const char *to) {
    size_t n, n_text;
    char *bytes = read_file(in_folder("model.safetensors"), &n), *text;
    uint64_t length;
    memcpy(&length, bytes, 8);
    char *header = strndup(bytes + 8, length), *at = header;
    FILE *f = open_memstream(&text, &n_text);
    for (char *hit; (hit = strstr(at, from)); at = hit + strlen(from)) fprintf(f, "%.*s%s", (int)(hit - at), at, to);
    fputs(at, f);
    fclose(f);
    write_safetensors(text, n_text, bytes + 8 + length, n - 8 - length);
    free(text);
    free(header);
    free(bytes);
}

// config.json with the settings as the text_config of a model that also has vision.
static void nest_settings(const Fixture *f) {
    json_t *outer =
        json_pack("{s:s, s:O, s:{}}", "model_type", "other", "text_config", family_part(f, "config"), "vision_config");
    char *text = json_dumps(outer, JSON_COMPACT);
    write_text("config.json", text);
    free(text);
    json_decref(outer);
}

// The table of tokens, stored as the classifier alone.
static void head_alone(void) {
    Fixture f;
    family_read(&f, FIXTURES "llama_tied.json");
    folder_make();
    write_family(&f);
    check_load(&f, folder, false, "the embedding alone");
    rename_tensors("model.embed_tokens.weight", "lm_head.weight");
    check_load(&f, folder, false, "the head alone");
    folder_remove();
    family_free(&f);
}

static void language_models(void) {
    static const struct {
        const char *fixture, *inner, *head;
    } cases[] = {{"gemma3_text", "language_model.model.", NULL},
                 {"gemma3_text", "model.language_model.", NULL},
                 {"mistral", "language_model.model.", "language_model.lm_head.weight"},
                 {"mistral", "model.language_model.", "lm_head.weight"},
                 {"ministral3", "language_model.model.", "language_model.lm_head.weight"},
                 {"ministral3", "model.language_model.", "lm_head.weight"},
                 {"llama4", "language_model.model.", "language_model.lm_head.weight"}};
    folder_make();
    for (int i = 0; i < N_OF(cases); i++) {
        char path[200], inner[80], err[512] = "";
        Fixture f;
        Model m;
        snprintf(path, sizeof path, FIXTURES "%s.json", cases[i].fixture);
        snprintf(inner, sizeof inner, "\"%s", cases[i].inner);
        family_read(&f, path);
        json_t *vision = json_pack("[s, s, [i], i, i]", "vision_tower.patch.weight", "F32", 3, 0, 1);
        json_array_append_new(json_object_get(f.json, "tensors"), vision);
        write_family(&f);
        rename_tensors("\"model.", inner);
        if (cases[i].head) rename_tensors("lm_head.weight", cases[i].head);
        nest_settings(&f);
        check_load(&f, folder, false, cases[i].inner);
        CHECK(!load_model(&m, folder, err, sizeof err), "%s", err);
        CHECK(strstr(m.notes.text, "pictures"), "expected a note of what is left out, found '%s'", m.notes.text);
        weights_free(&m.weights);
        family_free(&f);
    }
    folder_remove();
}

// Gemma 3 as Google published it leaves out what its class has.
static void class_defaults(void) {
    Settings s;
    Model m;
    Weights w = {0};
    char err[512] = "";
    static const char text[] =
        "{\"model_type\":\"gemma3\",\"text_config\":{\"hidden_size\":2560,\"intermediate_size\":10240,"
        "\"model_type\":\"gemma3_text\",\"num_hidden_layers\":34,\"rope_scaling\":{\"factor\":8.0,"
        "\"rope_type\":\"linear\"},\"sliding_window\":1024},\"vision_config\":{}}";
    CHECK(!settings_parse(&s, "config.json", text, strlen(text), err, sizeof err), "%s", err);
    int rc = load_hf_parts(&m, &s, &w, err, sizeof err);
    CHECK(!rc, "%s", err);
    settings_free(&s);
    if (rc) return;
    const LayerKind *k = config_kind(&m.config, 5), *near = config_kind(&m.config, 0);
    CHECK(k->n_heads == 8 && k->n_kv_heads == 4 && k->k_dim == 256 && m.config.vocab_size == 262208, "sizes");
    CHECK(!k->window && k->rope.theta == 1e6f && near->window == 1024 && near->rope.theta == 10000, "layers");
    CHECK(m.config.max_seq_len == 131072 && m.config.attn_scale == 0.0625f && m.config.norm_eps == 1e-6f, "others");
    weights_free(&m.weights);
}

// The windows of the classes that have one, where a config.json does not say it; null is none.
static void class_windows(void) {
    static const char *const types[] = {"gemma2", "gemma3_text", "mistral", "gpt_oss", "llama"};
    static const int windows[] = {4096, 4096, 4096, 128, 0};
    for (int i = 0; i < 2 * N_OF(types); i++) {
        char text[600], err[512] = "";
        Settings s;
        Model m;
        Weights w = {0};
        snprintf(text, sizeof text,
                 "{\"model_type\":\"%s\",\"hidden_size\":64,\"intermediate_size\":64,\"num_hidden_layers\":2,"
                 "\"num_attention_heads\":4,\"vocab_size\":9,\"max_position_embeddings\":9000,\"rms_norm_eps\":1e-6%s}",
                 types[i / 2], i % 2 ? ",\"sliding_window\":null" : "");
        CHECK(!settings_parse(&s, "config.json", text, strlen(text), err, sizeof err), "%s", err);
        int rc = load_hf_parts(&m, &s, &w, err, sizeof err);
        CHECK(!rc, "%s: %s", types[i / 2], err);
        settings_free(&s);
        if (rc) continue;
        int window = config_kind(&m.config, 0)->window, want = i % 2 ? 0 : windows[i / 2];
        CHECK(window == want, "%s: window %d, expected %d", text, window, want);
        weights_free(&m.weights);
    }
}

int main(void) {
    without_rounding();
    RUN(sound);
    RUN(head_alone);
    RUN(language_models);
    RUN(class_defaults);
    RUN(class_windows);
    RUN(no_config);
    RUN(shards);
    RUN(named);
    return test_report();
}
