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

int main(void) {
    without_bf16();
    RUN(sound);
    RUN(no_config);
    RUN(shards);
    RUN(named);
    return test_report();
}
