// check_bad: what every reader makes of the malformed inputs in tests/bad/*.txt, and of sound ones cut short: a
// failure, nothing left, and one line that names the file and the place. The bytes end where the file does, so that a
// sanitizer sees a read beyond them.
//
//   build/tests/check_bad                 tries them
//   build/tests/check_bad --seeds DIR     writes them as DIR/TABLE/LINE-VARIANT, for the fuzzers
#include "logits_file.h"
#include "bad/gguf.h"
#include "bad/hf.h"
#include "bad/setting.h"
#include "load.h"
#include "picture.h"
#include "steps_json.h"
#include "vocab_json.h"

typedef struct {
    const char *table;
    const char *mode; // the bytes before an input by which its fuzzer knows a whole file
    size_t n_mode;
    uint8_t *(*make)(const Bad *b, size_t *n);                                  // malloc'd
    int (*read)(const Bad *b, File *f, const char **path, char *err, size_t n); // path: what the line begins with
} Reader;

static const Reader *reader; // of the running table

static int read_bytes(const Bad *b, const uint8_t *bytes, size_t n, const char **path, char *err, size_t errlen) {
    static char memory[] = "memory";
    File f = {.path = memory, .data = bytes, .size = n, .borrowed = true};
    *path = memory;
    return reader->read(b, &f, path, err, errlen);
}

// With room for the line, with none and with little.
static void try_bytes(const Bad *b, const uint8_t *bytes, size_t n) {
    char err[512] = "", small[8] = "1234567";
    const char *path;
    int rc = read_bytes(b, bytes, n, &path, err, sizeof err);
    bad_refused(b, rc, NULL, 0, err, path);
    CHECK(read_bytes(b, bytes, n, &path, NULL, 0) == rc, "%s: no room for the line", b->what);
    rc = read_bytes(b, bytes, n, &path, small, 5);
    CHECK(rc == -1 && strlen(small) < 5 && small[5] == '6', "%s: little room for the line: '%s'", b->what, small);
}

static void try_row(const Bad *b) {
    size_t n;
    uint8_t *bytes = reader->make(b, &n);
    if (bad_seeds) bad_seed(b, reader->mode, reader->n_mode, bytes, n);
    else try_bytes(b, bytes, n);
    free(bytes);
}

// What a call that failed was to leave empty; what it did not, is filled with this before.
static int emptied(const Bad *b, int rc, const void *p, size_t n) {
    CHECK(!rc || all_zero(p, n), "%s: not left empty", b->what);
    return rc;
}
#define FULL(p) memset(p, 0xAA, sizeof *(p))

// ---- GGUF

static uint8_t *make_gguf(const Bad *b, size_t *n) {
    static const char *const texts[] = {"a", "b", "ab"};
    BinSpec s = {32, 24, strcmp(b->base, "model") ? 1 : 2, 4, 2, 20, 10, .tied = true, .seed = 5};
    bool kind = strcmp(b->base, "model") && strcmp(b->base, "vocabulary") && strcmp(b->base, "layer");
    Maker m = kind ? maker_kind(b->base, N_OF(texts), texts) : maker_new();
    size_t more = 0;
    if (!kind) maker_llama(&m, &s);
    else array_put_text(maker_array(&m, "tokenizer.ggml.merges", G_STRING), "a b");
    if (kind) maker_text(&m, "tokenizer.ggml.pre", strcmp(b->base, "gpt2") ? "default" : "gpt-2");
    gguf_edit(&m, b->change, &more);
    uint8_t *bytes = maker_bytes(&m, n), *longer = memcpy(calloc(1, *n + more), bytes, *n);
    *n += more;
    free(bytes);
    maker_free(&m);
    return longer;
}

static int read_gguf(const Bad *b, File *f, const char **path, char *err, size_t errlen) {
    Loaded l;
    Vocab v;
    if (!strcmp(b->base, "model") || !strcmp(b->base, "layer")) {
        if (load_gguf_file(FULL(&l.model), f, err, errlen)) return emptied(b, -1, &l.model, sizeof l.model);
        int rc = decoder_bind(&l.decoder, &l.model, err, errlen); // shapes and dtypes are the decoder's to judge
        CHECK(!rc || errlen < 30 || !strncmp(err, "memory: tensor ", 15) ||
                  !strncmp(err, "memory: unexpected tensor ", 26),
              "%s: '%s'", b->what, err);
        if (!rc) decoder_free(&l.decoder);
        weights_free(&l.model.weights);
        return rc;
    }
    (void)path;
    int rc = load_gguf_vocab(FULL(&v), f, strcmp(b->base, "vocabulary") ? 0 : 20, err, errlen);
    if (!rc) vocab_free(&v);
    return emptied(b, rc, &v, sizeof v);
}

// ---- Hugging Face folders

static uint8_t *make_hf(const Bad *b, size_t *n) {
    Fixture f;
    hf_write(b, &f);
    family_free(&f);
    return (uint8_t *)read_file(in_folder("config.json"), n);
}

static int read_hf(const Bad *b, File *f, const char **path, char *err, size_t errlen) {
    Loaded l;
    (void)b, (void)f;
    int rc = hf_load(&l, *path = folder, err, errlen);
    if (!rc) hf_unload(&l);
    return rc;
}

// ---- llama2.c

static uint8_t *make_llama2c(const Bad *b, size_t *n) {
    BinSpec s = {24, 20, 2, 6, 3, 11, 10, .version = b->base[1] - '0', .group = 12, .seed = 5};
    s.tied = !strstr(b->base, "apart");
    make_bin(BIN_DIR "bad.bin", &s);
    char *good = read_file(BIN_DIR "bad.bin", n);
    uint8_t *bytes = bad_patched(good, n, b->change);
    free(good);
    return bytes;
}

static int read_llama2c(const Bad *b, File *f, const char **path, char *err, size_t errlen) {
    Model m;
    (void)path;
    int rc = load_llama2c_file(FULL(&m), f, err, errlen);
    if (!rc) weights_free(&m.weights);
    return emptied(b, rc, &m, sizeof m);
}

// The base: how many tokens are asked for, and how many the sound file has (300).
static uint8_t *make_tokenizer(const Bad *b, size_t *n) {
    const char *slash = strchr(b->base, '/');
    make_tokenizer_bin(in_folder("sound.bin"), slash ? atoi(slash + 1) : 300, 4);
    char *good = read_file(in_folder("sound.bin"), n);
    uint8_t *bytes = bad_patched(good, n, b->change);
    free(good);
    return bytes;
}

static int read_tokenizer_bin(const Bad *b, File *f, const char **path, char *err, size_t errlen) {
    Vocab v;
    File file;
    *path = write_file("tokenizer.bin", f->data, f->size);
    int rc = load_llama2c_tokenizer(FULL(&v), FULL(&file), *path, atoi(b->base), err, errlen);
    emptied(b, rc, &file, sizeof file);
    if (!rc) vocab_free(&v), file_unmap(&file);
    return emptied(b, rc, &v, sizeof v);
}

// ---- safetensors: a header and bytes 0, 1, 2, ... behind it

// The number of the edit "VERB NUMBER", the last of the change or before others of this kind, which it is cut off from.
static uint64_t cut_number(char *change, const char *verb, size_t *n_change, uint64_t otherwise) {
    char mark[20];
    snprintf(mark, sizeof mark, "; %s ", verb);
    char *at = strncmp(change, mark + 2, strlen(mark) - 2) ? strstr(change, mark) : change;
    if (!at) return otherwise;
    uint64_t number = strtoull(at + strlen(mark) - 2 * (at == change), NULL, 0);
    *n_change = (size_t)(at - change);
    *at = 0;
    return number;
}

// The entries of "bytes NAME BEGIN END N", tensors of N bytes.
static char *header_of_bytes(char *rest) {
    char *header, name[20];
    size_t n;
    unsigned long at[3];
    FILE *f = open_memstream(&header, &n);
    for (char *edit = bad_part(&rest, "; "); edit; edit = bad_part(&rest, "; ")) {
        CHECK(sscanf(edit, "bytes %19s %lu %lu %lu", name, at, at + 1, at + 2) == 4, "a row asks to '%s'", edit);
        fprintf(f, "%s\"%s\":{\"dtype\":\"U8\",\"shape\":[%lu],\"data_offsets\":[%lu,%lu]}", ftell(f) ? "," : "{", name,
                at[2], at[0], at[1]);
    }
    fputc('}', f);
    fclose(f);
    return header;
}

// All of the header behind "=", entries of bytes, or the base, the entry of tensor t, with edits. In the end, "data N"
// bytes (8; behind a whole header none) and "length N", that of the header.
static uint8_t *make_safetensors(const Bad *b, size_t *n) {
    char *change = memcpy(need(b->n_change + 1), b->change, b->n_change + 1), *header;
    size_t n_change = b->n_change, n_header;
    bool whole = *change == '=';
    uint64_t length = cut_number(change, "length", &n_change, UINT64_MAX - 1);
    size_t n_data = (size_t)cut_number(change, "data", &n_change, whole ? 0 : 8);
    if (whole) header = bad_json("", change, n_change, &n_header);
    else if (bad_verb(change, "bytes")) n_header = strlen(header = header_of_bytes(change));
    else {
        char *entry = n_change ? bad_json(b->base, change, n_change, &n_header) : strdup(b->base);
        n_header = (size_t)asprintf(&header, "{\"t\":%s}", entry);
        free(entry);
    }
    if (length == UINT64_MAX - 1) length = n_header;
    uint8_t *bytes = need(*n = 8 + n_header + n_data);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, n_header);
    for (size_t i = 0; i < n_data; i++) bytes[8 + n_header + i] = (uint8_t)i;
    free(header);
    free(change);
    return bytes;
}

// Mapped, then from memory.
static int read_safetensors(const Bad *b, File *f, const char **path, char *err, size_t errlen) {
    Weights w;
    const char *name = write_file("st.safetensors", f->data, f->size);
    int rc = load_safetensors(FULL(&w), name, err, errlen);
    emptied(b, rc, &w, sizeof w);
    if (errlen > 20) bad_refused(b, rc, NULL, 0, err, name);
    weights_free(&w); // harmless after a failure
    memset(&w, 0, sizeof w);
    rc = load_safetensors_file(&w, f, err, errlen);
    CHECK(all_zero(f, sizeof *f), "%s: the file was not taken over", b->what);
    emptied(b, rc, &w, sizeof w);
    weights_free(&w);
    (void)path;
    return rc;
}

// A file with tensors of one byte, called by the letters of `names`.
static void write_shard(const char *file, const char *names) {
    char change[200] = "";
    int n = 0;
    for (; names[n]; n++) sprintf(strchr(change, 0), "bytes %c %d %d 1; ", names[n], n, n + 1);
    sprintf(strrchr(change, ';'), "; data %d", n);
    size_t size;
    uint8_t *bytes = make_safetensors(&(Bad){.change = change, .n_change = strlen(change)}, &size);
    write_file(file, bytes, size);
    free(bytes);
}

static uint8_t *make_json(const Bad *b, size_t *n) {
    return (uint8_t *)bad_json(*b->base == '{' ? b->base : "{}", b->change, b->n_change, n);
}

// a and b in one file, c in another, d in a third; one that is not sound, one cut, a folder.
static int read_index(const Bad *b, File *f, const char **path, char *err, size_t errlen) {
    Weights w;
    folder_empty();
    write_shard("1.safetensors", "ab");
    write_shard("2.safetensors", "c");
    write_shard("three", "d");
    write_shard("a.again", "ea");
    write_file("bad.safetensors", "\2\0\0\0\0\0\0\0{}?", 11);
    write_file("cut", "\2\0\0\0", 4);
    CHECK(!mkdir(in_folder("folder"), 0777), "mkdir");
    write_file("model.safetensors.index.json", f->data, f->size);
    int rc = load_safetensors(FULL(&w), *path = folder, err, errlen);
    emptied(b, rc, &w, sizeof w);
    weights_free(&w);
    return rc;
}

// ---- tokenizer.json and what stands beside it

static int read_tokenizer_json(const Bad *b, File *f, const char **path, char *err, size_t errlen) {
    Vocab v;
    (void)path;
    int rc = vocab_json_read(FULL(&v), f, err, errlen);
    if (!rc) vocab_free(&v);
    return emptied(b, rc, &v, sizeof v);
}

// The base is the name of the file; a sound tokenizer.json stands beside it.
static int read_tokenizer_folder(const Bad *b, File *f, const char **path, char *err, size_t errlen) {
    Vocab v;
    folder_empty();
    write_json("tokenizer.json", "{'model':{'type':'BPE','vocab':{'a':0,'b':1,'ab':2},'merges':['a b']}}");
    write_file(b->base, f->data, f->size);
    int rc = load_hf_vocab(FULL(&v), *path = folder, 0, err, errlen);
    if (!rc) vocab_free(&v);
    return emptied(b, rc, &v, sizeof v);
}

// ---- settings: whole files, and one key k in an object that may lie one and two objects down

static uint8_t *make_text(const Bad *b, size_t *n) {
    return memcpy(need(*n = b->n_change), b->change, b->n_change);
}

static int read_text(const Bad *b, File *f, const char **path, char *err, size_t errlen) {
    Settings s;
    int rc = settings_parse(FULL(&s), *path = "some/config.json", (const char *)f->data, f->size, err, errlen);
    emptied(b, rc, &s.object, sizeof s.object);
    settings_free(&s);
    return rc;
}

static void try_setting_at(const Bad *b, const char *object, int depth) {
    char err[512] = "", first[512], json[400], want[300];
    Settings s, outer, inner, *at = &s;
    snprintf(json, sizeof json, depth == 2 ? "{\"a\":{\"b\":%s}}" : depth ? "{\"b\":%s}" : "%s", object);
    CHECK(!settings_parse(&s, "some/config.json", json, strlen(json), err, sizeof err), "%s: %s", json, err);
    if (depth == 2) at = memcpy(&outer, &(Settings[]){settings_object(at, "a")}, sizeof outer);
    if (depth) at = memcpy(&inner, &(Settings[]){settings_object(at, "b")}, sizeof inner);
    CHECK(at->object && !s.failed, "%s", err);
    double found = read_setting(at, b->base), result = atof(strchr(b->base, ' '));
    CHECK(found == result, "%s: %g, expected %g", b->what, found, result);
    snprintf(want, sizeof want, "^: %s%s", depth == 2 ? "a.b." : depth ? "b." : "", b->want);
    Bad deeper = *b;
    deeper.want = want;
    bad_refused(&deeper, s.failed ? -1 : 0, NULL, 0, err, "some/config.json");
    strcpy(first, err);
    settings_int(&s, "another", 1, 2, 0);
    settings_string(&s, "another", NULL);
    settings_fail(&s, "another", "by hand");
    CHECK(!strcmp(err, first), "%s: the first message was '%s', now '%s'", b->what, first, err);
    settings_free(&s);
}

static void try_setting(const Bad *b) {
    size_t n;
    char *object = (char *)make_json(b, &n);
    for (int depth = 0; depth <= 2; depth++) try_setting_at(b, object, depth);
    free(object);
}

static void keys_of_settings(void) {
    if (!bad_seeds) each_bad("settings", try_setting);
}

// ---- saved logits: 3 chunks of 5 tokens, a vocabulary of 7

static uint8_t *make_logits(const Bad *b, size_t *n) {
    enum { N_PIECES = 7, N_CONTEXT = 5, N_CHUNKS = 3 };
    const int32_t tokens[N_CHUNKS * N_CONTEXT] = {1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 0, 1};
    const float logits[N_PIECES] = {20, 19, 18, 17, 16, 15, 14};
    LogitsWriter w = logits_writer(in_folder("tiny"), tokens, N_PIECES, N_CONTEXT, N_CHUNKS);
    for (int i = 0; i < 2 * N_CHUNKS; i++) {
        double total;
        logits_put(&w, logits, logits_nll(logits, N_PIECES, tokens[0], &total));
    }
    logits_finish(&w);
    char *good = read_file(in_folder("tiny"), n);
    uint8_t *bytes = bad_patched(good, n, b->change);
    free(good);
    return bytes;
}

static int read_logits(const Bad *b, File *f, const char **path, char *err, size_t errlen) {
    LogitsFile l;
    LogitsRow row = {0};
    (void)path;
    if (logits_read(&l, f, err, errlen)) return emptied(b, -1, &l, sizeof l);
    return logits_row(&l, 0, &row, err, errlen);
}

// ---- preprocessor_config.json, for a model of 8 x 8 pixels in 3 channels

static int read_preprocessor(const Bad *b, File *f, const char **path, char *err, size_t errlen) {
    Preprocess p;
    write_file("preprocessor_config.json", f->data, f->size);
    int rc = preprocess_load(&p, *path = folder, 8, 3, err, errlen);
    return emptied(b, rc, &p.size, sizeof p.size);
}

// ---- patterns of pre-tokenizers

static int read_pattern(const Bad *b, File *f, const char **path, char *err, size_t errlen) {
    Pattern *p = pattern_open((const char *)f->data, f->size, err, errlen);
    pattern_close(p);
    *path = "pattern";
    (void)b;
    return p ? 0 : -1;
}

// ---- all of them

static const Reader readers[] = {
    {"gguf", "", 1, make_gguf, read_gguf},
    {"hf", "\0\0", 2, make_hf, read_hf},
    {"llama2c", "", 1, make_llama2c, read_llama2c},
    {"tokenizer_bin", "\4\226", 2, make_tokenizer, read_tokenizer_bin},
    {"safetensors", "", 1, make_safetensors, read_safetensors},
    {"shard_index", "\1", 2, make_json, read_index},
    {"tokenizer_json", "\4", 1, make_json, read_tokenizer_json},
    {"tokenizer_folder", "\1", 2, make_json, read_tokenizer_folder},
    {"json", "\1", 2, make_text, read_text},
    {"logits", "\1", 1, make_logits, read_logits},
    {"preprocessor", "\1", 2, make_json, read_preprocessor},
    {"patterns", "", 0, make_text, read_pattern},
};

static void tables(void) {
    for (int i = 0; i < N_OF(readers); i++) {
        reader = &readers[i];
        each_bad(reader->table, try_row);
        folder_empty();
    }
}

// Does this beginning of a tokenizer.bin end with a record? Then it is a smaller vocabulary.
static bool ends_record(const uint8_t *bytes, size_t left) {
    size_t at = 4;
    for (int32_t length; at < left; at += 8 + (size_t)length) memcpy(&length, bytes + at + 4, 4);
    return at == left && left > 4 && !strcmp(reader->table, "tokenizer_bin");
}

// Sound files, and every beginning of them: with a step, all of the first and the last 512 and every so-manieth
// between.
static void every_beginning(void) {
    static const struct {
        const char *table, *base;
        size_t least, step;
    } sound[] = {{"gguf", "layer", 4, 1},
                 {"gguf", "vocabulary", 4, 1},
                 {"llama2c", "v0", 0, 97},
                 {"llama2c", "v0, apart", 0, 97},
                 {"llama2c", "v1", 0, 97},
                 {"llama2c", "v1, apart", 0, 97},
                 {"llama2c", "v2", 0, 97},
                 {"llama2c", "v2, apart", 0, 97},
                 {"tokenizer_bin", "50/50", 1, 1},
                 {"tokenizer_bin", "300", 1, 1},
                 {"logits", "", 0, 1}};
    for (int i = 0; i < N_OF(sound); i++) {
        Bad b = {.base = sound[i].base, .change = "", .want = "expected"};
        size_t n;
        for (reader = readers; strcmp(reader->table, sound[i].table) != 0;) reader++;
        uint8_t *bytes = reader->make(&b, &n);
        for (size_t left = sound[i].least; left < n; left += left < 512 || left + 512 > n ? 1 : sound[i].step) {
            if (ends_record(bytes, left)) continue;
            uint8_t *less = memcpy(need(left), bytes, left);
            snprintf(b.what, sizeof b.what, "%s %s cut to %zu of %zu", reader->table, b.base, left, n);
            try_bytes(&b, less, left);
            free(less);
        }
        free(bytes);
    }
}

int main(int argc, char **argv) {
    without_rounding();
    if (argc == 3 && !strcmp(argv[1], "--seeds")) bad_seeds = argv[2];
    folder_make();
    RUN(tables);
    RUN(keys_of_settings);
    if (!bad_seeds) RUN(every_beginning);
    folder_empty();
    folder_remove();
    printf("  %d inputs\n", bad_tried);
    return test_report();
}
