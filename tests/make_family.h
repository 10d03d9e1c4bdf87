// make_family.h: writes the small random models of tests/fixtures/families as a Hugging Face folder or a GGUF file.
//
//   Fixture f;
//   family_read(&f, "tests/fixtures/families/llama.json");
//   write_family(&f);                     // config.json and model.safetensors in the folder of files.h
//   write_family_gguf(&f, "llama.gguf");  // with a vocabulary of made-up tokens
//   family_run(&logits, &f, path, tokenizer, n_threads, f.n_tokens, err, sizeof err);
//   family_free(&f);
//
// It knows no family: a fixture lists tensors with the values they have (tests/fixtures/families.py), and for GGUF the
// settings and in which order a tensor takes its values from those of the folder (tests/fixtures/family_gguf.py).
#pragma once
#include "make_bin.h"
#include "make_gguf.h"
#include "make_model.h"
#include "quant.h"
#include "tessera.h"

enum { FAMILY_TOKENS = 160, FAMILY_POSITIONS = 8, FAMILY_VOCAB = 64 };

typedef struct {
    json_t *json;
    const char *name;
    int n_ctx, vocab_size, n_tokens, n_positions;
    int32_t tokens[FAMILY_TOKENS];
    int positions[FAMILY_POSITIONS]; // whose logits are known
} Fixture;

static json_t *family_part(const Fixture *f, const char *key) {
    json_t *part = json_object_get(f->json, key);
    if (part) return part;
    fprintf(stderr, "%s: no %s in the fixture\n", f->name, key);
    exit(1);
}

UNUSED static void family_read(Fixture *f, const char *path) {
    json_error_t error;
    *f = (Fixture){.name = path, .json = json_load_file(path, 0, &error)};
    if (!f->json) {
        fprintf(stderr, "%s: %s; checks run in the repository's root\n", path, error.text);
        exit(1);
    }
    const json_t *tokens = family_part(f, "tokens"), *positions = family_part(f, "positions");
    f->name = json_string_value(family_part(f, "name"));
    f->n_ctx = (int)json_integer_value(family_part(f, "n_ctx"));
    f->vocab_size = (int)json_integer_value(json_object_get(family_part(f, "config"), "vocab_size"));
    f->n_tokens = (int)json_array_size(tokens);
    f->n_positions = (int)json_array_size(positions);
    if (f->vocab_size > FAMILY_VOCAB || f->n_tokens > FAMILY_TOKENS || f->n_positions > FAMILY_POSITIONS) {
        fprintf(stderr, "%s: more tokens, logits or positions than there is room for\n", path);
        exit(1);
    }
    for (int i = 0; i < f->n_tokens; i++) f->tokens[i] = (int32_t)json_integer_value(json_array_get(tokens, i));
    for (int i = 0; i < f->n_positions; i++) f->positions[i] = (int)json_integer_value(json_array_get(positions, i));
}

UNUSED static void family_free(Fixture *f) {
    json_decref(f->json);
}

UNUSED static bool family_has_gguf(const Fixture *f) {
    return json_object_get(f->json, "gguf_tensors");
}

// The logit of a token after positions[i].
UNUSED static double family_logit(const Fixture *f, int i, int token) {
    return json_number_value(json_array_get(json_array_get(family_part(f, "logits"), i), token));
}

// ---- values

static int64_t shape_count(const json_t *shape) {
    int64_t n = 1;
    for (size_t i = 0; i < json_array_size(shape); i++) n *= json_integer_value(json_array_get(shape, i));
    return n;
}

// The name, dtype and shape of a tensor of the folder: [name, dtype, shape, add, scale].
static const char *spec_text(const json_t *spec, int i) {
    return json_string_value(json_array_get(spec, i));
}

// Its values, as the dtype can hold them.
typedef struct {
    enum { AS_F32, AS_F16, AS_BF16, AS_U8 } dtype; // F32: of all others, too
    uint64_t hash;
    double add, scale;
    int64_t n;
} SpecValues;

static SpecValues spec_values(const json_t *spec) {
    static const char *const dtypes[] = {[AS_F16] = "F16", [AS_BF16] = "BF16", [AS_U8] = "U8"};
    SpecValues s = {.hash = name_hash(spec_text(spec, 0)),
                    .add = json_number_value(json_array_get(spec, 3)),
                    .scale = json_number_value(json_array_get(spec, 4)),
                    .n = shape_count(json_array_get(spec, 2))};
    for (int i = AS_F16; i <= AS_U8; i++) {
        if (!strcmp(spec_text(spec, 1), dtypes[i])) s.dtype = i;
    }
    return s;
}

static double spec_value(const SpecValues *s, int64_t i) {
    double u = unit_of(s->hash, i);
    if (s->dtype == AS_U8) return s->add + floor(s->scale * (u + 1) / 2);
    float value = (float)(s->add + s->scale * u);
    if (s->dtype == AS_BF16) return (double)f32_from_bf16(bf16_from_f32(value));
    return (double)(s->dtype == AS_F16 ? f32_from_f16(f16_from_f32(value)) : value);
}

static const json_t *family_spec(const Fixture *f, const char *name) {
    const json_t *specs = family_part(f, "tensors");
    size_t i = 0;
    while (i < json_array_size(specs) && strcmp(spec_text(json_array_get(specs, i), 0), name) != 0) i++;
    if (i < json_array_size(specs)) return json_array_get(specs, i);
    fprintf(stderr, "%s: no tensor %s in the fixture\n", f->name, name);
    exit(1);
}

// ---- the folder

// One value in model.safetensors. Returns its bytes.
static size_t put_value(FILE *f, const char *dtype, double value) {
    float f32 = (float)value;
    uint16_t half = dtype[0] == 'B' ? bf16_from_f32(f32) : f16_from_f32(f32);
    uint8_t byte = strstr(dtype, "8") ? (uint8_t)value : 0;
    if (strstr(dtype, "64")) return fwrite(&(uint64_t){0}, 1, sizeof(uint64_t), f);
    if (strstr(dtype, "8")) return fwrite(&byte, 1, sizeof byte, f);
    return strcmp(dtype, "F32") != 0 ? fwrite(&half, 1, sizeof half, f) : fwrite(&f32, 1, sizeof f32, f);
}

// The header and the data of model.safetensors: free them.
UNUSED static void family_tensors(const Fixture *f, char **header, size_t *n_header, char **data, size_t *n_data) {
    size_t at = 0, i;
    FILE *h = open_memstream(header, n_header), *d = open_memstream(data, n_data);
    const json_t *specs = family_part(f, "tensors");
    json_t *spec;
    json_array_foreach(specs, i, spec) {
        char *shape = json_dumps(json_array_get(spec, 2), JSON_COMPACT);
        SpecValues values = spec_values(spec);
        size_t end = at;
        for (int64_t v = 0; v < values.n; v++) end += put_value(d, spec_text(spec, 1), spec_value(&values, v));
        fprintf(h, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}", i ? "," : "{",
                spec_text(spec, 0), spec_text(spec, 1), shape, at, end);
        at = end;
        free(shape);
    }
    fputc('}', h);
    fclose(h);
    fclose(d);
}

UNUSED static void write_family(const Fixture *f) {
    char *header, *data, *config = json_dumps(family_part(f, "config"), JSON_INDENT(2));
    size_t n_header, n_data;
    family_tensors(f, &header, &n_header, &data, &n_data);
    write_safetensors(header, n_header, data, n_data);
    write_text("config.json", config);
    free(header);
    free(data);
    free(config);
}

// ---- the GGUF file

enum { GGML_F32 = 0, GGML_MXFP4 = 39, MXFP4_VALUES = 32 };

static void put_bools(MakePair *array, const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        array_put(array, &(uint8_t){json_is_true(json_array_get(list, i))}, 1);
    }
}

static void put_f32s(MakePair *array, const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        array_put(array, &(float){(float)json_number_value(json_array_get(list, i))}, 4);
    }
}

static void put_i32s(MakePair *array, const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        array_put(array, &(int32_t){(int32_t)json_integer_value(json_array_get(list, i))}, 4);
    }
}

static void put_setting(Maker *m, const json_t *setting) {
    const char *key = spec_text(setting, 0), *type = spec_text(setting, 1);
    const json_t *value = json_array_get(setting, 2);
    if (!strcmp(type, "u32")) maker_u32(m, key, (uint32_t)json_integer_value(value));
    if (!strcmp(type, "f32")) maker_f32(m, key, (float)json_number_value(value));
    if (!strcmp(type, "bool")) maker_bool(m, key, json_is_true(value));
    if (!strcmp(type, "str")) maker_text(m, key, json_string_value(value));
    if (!strcmp(type, "bools")) put_bools(maker_array(m, key, G_BOOL), value);
    if (!strcmp(type, "i32s")) put_i32s(maker_array(m, key, G_I32), value);
    if (!strcmp(type, "f32s")) put_f32s(maker_array(m, key, G_F32), value);
}

// SentencePiece's usual first tokens, the byte of a line break, a space, then words.
static void put_family_vocab(Maker *m, int n) {
    static const char *const first[] = {"<unk>", "<s>", "</s>", "<0x0A>", "\xE2\x96\x81"}; // U+2581: a space
    static const int32_t types[] = {2, 3, 3, 6, 1}; // unknown, control, control, byte, normal
    maker_text(m, "tokenizer.ggml.model", "llama");
    MakePair *tokens = maker_array(m, "tokenizer.ggml.tokens", G_STRING);
    for (int id = 0; id < n; id++) {
        char word[16];
        snprintf(word, sizeof word, "w%d", id);
        array_put_text(tokens, id < N_OF(first) ? first[id] : word);
    }
    MakePair *scores = maker_array(m, "tokenizer.ggml.scores", G_F32);
    for (int id = 0; id < n; id++) array_put(scores, &(float){(float)-id}, 4);
    MakePair *token_types = maker_array(m, "tokenizer.ggml.token_type", G_I32);
    for (int id = 0; id < n; id++) array_put(token_types, &(int32_t){id < N_OF(types) ? types[id] : 1}, 4);
}

// The values of the folder's tensors, one after the other.
typedef struct {
    SpecValues specs[16];
    int n_specs;
} Source;

static double source_value(const Source *s, int64_t i) {
    int t = 0;
    for (; i >= s->specs[t].n; i -= s->specs[t].n) t++;
    return spec_value(&s->specs[t], i);
}

// An exponent, then 16 bytes: value j in the low half, value j + 16 in the high half. In the folder: 16 bytes, value
// 2j in the low half, value 2j + 1 in the high half; the exponents apart.
static void put_mxfp4(Bytes *to, const Source *s, int64_t block) {
    uint8_t codes[MXFP4_VALUES], bytes[1 + MXFP4_VALUES / 2] = {(uint8_t)spec_value(&s->specs[1], block)};
    for (int i = 0; i < MXFP4_VALUES / 2; i++) {
        uint8_t byte = (uint8_t)spec_value(&s->specs[0], block * MXFP4_VALUES / 2 + i);
        codes[2 * i] = byte & 15, codes[2 * i + 1] = byte >> 4;
    }
    for (int j = 0; j < MXFP4_VALUES / 2; j++) bytes[1 + j] = (uint8_t)(codes[j] | codes[j + MXFP4_VALUES / 2] << 4);
    bytes_put(to, bytes, sizeof bytes);
}

// Value i of a view [[count, stride], ...] that begins at offset.
static int64_t view_at(const json_t *view, int64_t offset, int64_t i) {
    if (json_is_null(view)) return offset + i;
    for (size_t axis = json_array_size(view); axis-- > 0;) {
        const json_t *a = json_array_get(view, axis);
        int64_t count = json_integer_value(json_array_get(a, 0));
        offset += i % count * json_integer_value(json_array_get(a, 1));
        i /= count;
    }
    return offset;
}

// Where value i of a tensor is among the folder's: of one view, or of pieces [n, offset, view] one after the other.
static int64_t source_at(const json_t *tensor, int64_t i) {
    const json_t *offset = json_array_get(tensor, 5);
    if (!json_is_array(offset)) return view_at(json_array_get(tensor, 6), json_integer_value(offset), i);
    size_t piece = 0;
    for (int64_t n; i >= (n = json_integer_value(json_array_get(json_array_get(offset, piece), 0))); i -= n) piece++;
    const json_t *p = json_array_get(offset, piece);
    return view_at(json_array_get(p, 2), json_integer_value(json_array_get(p, 1)), i);
}

// What value i of a tensor is multiplied by: [[n, factor], ...] of n values one after the other.
static double factor_at(const json_t *factors, int64_t i) {
    size_t part = 0;
    if (!factors) return 1;
    for (int64_t n; i >= (n = json_integer_value(json_array_get(json_array_get(factors, part), 0))); i -= n) part++;
    return json_number_value(json_array_get(json_array_get(factors, part), 1));
}

// [name, type, shape, from, add, offset, view, factors]; the last may be absent.
static void put_gguf_tensor(Maker *m, const Fixture *family, const json_t *tensor) {
    const json_t *shape = json_array_get(tensor, 2), *from = json_array_get(tensor, 3),
                 *view = json_array_get(tensor, 6);
    bool mxfp4 = !strcmp(spec_text(tensor, 1), "MXFP4");
    double add = json_number_value(json_array_get(tensor, 4));
    int64_t n = shape_count(shape) / (mxfp4 ? MXFP4_VALUES : 1);
    Source s = {.n_specs = (int)json_array_size(from)};
    MakeTensor *t = maker_add_tensor(m, spec_text(tensor, 0), mxfp4 ? GGML_MXFP4 : GGML_F32, 0, 0);
    t->n_dims = (int)json_array_size(shape);
    for (int d = 0; d < t->n_dims; d++) {
        t->dims[d] = (uint64_t)json_integer_value(json_array_get(shape, (size_t)(t->n_dims - 1 - d)));
    }
    for (int i = 0; i < s.n_specs; i++) s.specs[i] = spec_values(family_spec(family, spec_text(from, i)));
    for (int64_t i = 0; i < n; i++) {
        int64_t at = s.n_specs ? source_at(tensor, i) : 0;
        double value = s.n_specs ? 0 : json_number_value(json_array_get(view, (size_t)i));
        if (s.n_specs && !mxfp4) value = (source_value(&s, at) + add) * factor_at(json_array_get(tensor, 7), i);
        if (mxfp4) put_mxfp4(&t->data, &s, at);
        else bytes_put(&t->data, &(float){(float)value}, 4);
    }
}

UNUSED static void write_family_gguf(const Fixture *f, const char *path) {
    size_t i;
    json_t *item;
    Maker m = maker_new();
    json_array_foreach(family_part(f, "gguf_settings"), i, item) put_setting(&m, item);
    put_family_vocab(&m, f->vocab_size);
    json_array_foreach(family_part(f, "gguf_tensors"), i, item) put_gguf_tensor(&m, f, item);
    maker_write(&m, path);
    maker_free(&m);
}

// ---- what it computes

typedef struct {
    int vocab_size;
    float logits[FAMILY_TOKENS * FAMILY_VOCAB]; // [n_tokens][vocab_size]
} FamilyLogits;

static void family_see(void *context, int position, const float *logits) {
    FamilyLogits *seen = context;
    memcpy(seen->logits + position * seen->vocab_size, logits, sizeof *logits * (size_t)seen->vocab_size);
}

// All logits of the text, its first n_at_once tokens computed at once and the others one by one. False where the model
// cannot be run, with a line in err.
UNUSED static bool family_run(FamilyLogits *seen, const Fixture *f, const char *path, const char *tokenizer,
                              int n_threads, int n_at_once, char *err, size_t errlen) {
    SessionOptions options = {.n_ctx = f->n_ctx, .n_threads = n_threads, .kv = KV_F32};
    Engine *e = engine_open(path, tokenizer, err, errlen);
    Session *s = e ? session_open(e, &options, err, errlen) : NULL;
    bool ok = s;
    memset(seen, 0, sizeof *seen);
    seen->vocab_size = f->vocab_size;
    if (ok) session_visit(s, family_see, seen);
    for (int n = n_at_once; ok && n <= f->n_tokens; n++) ok = !session_sync(s, f->tokens, n, err, errlen);
    session_close(s);
    engine_close(e);
    return ok;
}

// ---- all fixtures

#define FIXTURES "tests/fixtures/families/"

static char **chosen; // of main's arguments: the fixtures asked for
static int n_chosen;

static int is_fixture(const struct dirent *e) {
    const char *end = strrchr(e->d_name, '.');
    if (!end || strcmp(end, ".json") != 0) return 0;
    for (int i = 0; i < n_chosen; i++) {
        if (strlen(chosen[i]) == (size_t)(end - e->d_name) && !strncmp(chosen[i], e->d_name, strlen(chosen[i])))
            return 1;
    }
    return !n_chosen;
}

// Those chosen, or all; gguf: of them those that are told in GGUF too; else those that are as folders.
UNUSED static void each_family(void (*check)(const Fixture *f), bool gguf) {
    struct dirent **list;
    int n = scandir(FIXTURES, &list, is_fixture, alphasort);
    CHECK(n > 0, "%s: no fixtures; checks run in the repository's root", FIXTURES);
    for (int i = 0; i < n; i++) {
        char path[512];
        Fixture f;
        snprintf(path, sizeof path, FIXTURES "%s", list[i]->d_name);
        family_read(&f, path);
        if (gguf ? family_has_gguf(&f) : !json_object_get(f.json, "no_folder")) check(&f);
        family_free(&f);
        free(list[i]);
    }
    if (n > 0) free(list);
}

// These fixtures, whichever main's arguments choose.
UNUSED static void each_of(char **names, int n, void (*check)(const Fixture *f)) {
    char **were = chosen;
    int n_were = n_chosen;
    chosen = names;
    n_chosen = n;
    each_family(check, false);
    chosen = were;
    n_chosen = n_were;
}

// All, or those chosen, as folders; where checks are to be quick and none is chosen, one of each kind of layer.
UNUSED static void each_kind(void (*check)(const Fixture *f)) {
    static char *few[] = {"llama",     "gemma3_text", "qwen3_next",  "mamba",     "mamba2",
                          "rwkv7",     "lfm2",        "deepseek_v2", "gpt_oss",   "gla",
                          "falcon_h1", "mixtral",     "hyena",       "performer", "bigbird_causal"};
    if (quick() && !n_chosen) each_of(few, N_OF(few), check);
    else each_family(check, false);
}

// The fixture as a folder that folder_remove takes away, opened; NULL, and a failed check: it cannot be.
UNUSED static Engine *family_engine(const Fixture *f) {
    char err[256] = "";
    folder_make();
    const char *tokenizer = in_folder("tokenizer.bin"); // other checks, which run at the same time, have their own
    write_family(f);
    make_tokenizer_bin(tokenizer, f->vocab_size, 1);
    Engine *e = engine_open(folder, tokenizer, err, sizeof err);
    CHECK(e, "%s: %s", f->name, err);
    return e;
}

// Whether sessions of the fixture take --window: Hyena's filters are as long as the text.
UNUSED static bool takes_window(const char *name) {
    return strncmp(name, "hyena", 5) != 0;
}

UNUSED static Session *need_session(const Engine *e, const SessionOptions *o) {
    char err[256] = "";
    Session *s = session_open(e, o, err, sizeof err);
    if (s) return s;
    fprintf(stderr, "session: %s\n", err);
    exit(1);
}
