// check_load: the llama2.c loader. Three versions of one model agree; real files; noise; a file that shrinks
// while it is mapped. Malformed ones are in bad/llama2c.txt and bad/tokenizer_bin.txt, cut ones in check_bad.
#include "expect.h"
#include "files.h"
#include "load.h"
#include "make_bin.h"

#include <fcntl.h>

#include <stb/stb_ds.h>

#define MODEL BIN_DIR "load.bin"
#define TOKENS BIN_DIR "load.tokenizer.bin"

// Small enough that every truncation takes a moment; 6 query heads over 3, rows longer than a group and shorter.
static BinSpec small_spec(int version, bool tied) {
    return (BinSpec){24, 20, 2, 6, 3, 11, 10, .tied = tied, .version = version, .group = 12, .seed = 5};
}

// By this reader, whatever the file begins with.
static int load_bin(Model *m, const char *path, char *err, size_t errlen) {
    memset(m, 0, sizeof *m);
    File file;
    return file_map(&file, path, err, errlen) ? -1 : load_llama2c_file(m, &file, err, errlen);
}

// Value i of a tensor, whatever its dtype.
static float value_at(const Tensor *t, int64_t i) {
    if (t->dtype == DTYPE_F32) return ((const float *)t->data)[i];
    // rounded: no fused w - want
    volatile float w = (float)((const int8_t *)t->data)[i] * ((const float *)t->scales)[i / t->group];
    return w;
}

static void expect_bad_model(const char *path, const char *want, const char *what) {
    char err[512] = "";
    Model m;
    memset(&m, 0xAA, sizeof m);
    int rc = load_bin(&m, path, err, sizeof err);
    if (!expect_failed(rc, &m, sizeof m, err, path, want, what)) weights_free(&m.weights);
}

static void expect_bad_tokenizer(const char *path, int vocab_size, const char *want, const char *what) {
    char err[512] = "";
    Vocab v;
    File f;
    memset(&v, 0xAA, sizeof v);
    memset(&f, 0xAA, sizeof f);
    int rc = load_llama2c_tokenizer(&v, &f, path, vocab_size, err, sizeof err);
    if (expect_failed(rc, &v, sizeof v, err, path, want, what)) {
        CHECK(all_zero(&f, sizeof f), "%s: the file is not left empty", what);
        return;
    }
    arrfree(v.pieces);
    file_unmap(&f);
}

// -- what is right loads, and loads right

static void check_model(const Model *m, const BinSpec *s) {
    const Config *c = &m->config;
    CHECK(c->dim == s->dim && c->hidden_dim == s->hidden_dim && c->n_layers == s->n_layers &&
              c->kinds[0].n_heads == s->n_heads && c->kinds[0].n_kv_heads == s->n_kv_heads &&
              c->kinds[0].k_dim == s->dim / s->n_heads && c->vocab_size == s->vocab_size &&
              c->max_seq_len == s->seq_len && c->tied == s->tied,
          "v%d: wrong config", s->version);
    CHECK(c->kinds[0].rope.pairing == ROPE_INTERLEAVED && c->kinds[0].rope.theta == 10000 && c->norm_eps == 1e-5f &&
              !c->kinds[0].window,
          "v%d: wrong constants", s->version);
    CHECK(m->kind[10] == '0' + (char)s->version && !strncmp(m->kind, "llama2.c v", 9), "kind '%s'", m->kind);
    CHECK(shlen(m->weights.table) == 2 + !s->tied + 9 * s->n_layers, "%d tensors", (int)shlen(m->weights.table));
}

// Every tensor against what make_bin wrote, which depends on (kind, layer) and not on the version.
static void check_tensors(const Model *m, const BinSpec *s) {
    for (int kind = 0; kind < BIN_N_KINDS; kind++) {
        for (int layer = 0; layer < (bin_per_layer(kind) ? s->n_layers : 1); layer++) {
            int rows, cols;
            size_t n = bin_shape(s, kind, &rows, &cols);
            char name[80], err[256] = "";
            bin_full_name(name, kind, layer);
            if (kind == BIN_CLASSIFIER && s->tied) {
                CHECK(!weights_find(&m->weights, name), "tied, but output.weight is there");
                continue;
            }
            bool quantized = s->version == 2 && cols;
            const Tensor *t = weights_get(&m->weights, name, DTYPE_BIT(quantized ? DTYPE_I8G : DTYPE_F32), rows, cols,
                                          err, sizeof err);
            CHECK(t, "%s", err);
            if (!t) continue;
            CHECK(tensor_count(t) == (int64_t)n && tensor_bytes(t) == (quantized ? n + n / 12 * 4 : n * 4), "%s: size",
                  name);
            float *want = bin_values(s, kind, layer), worst = 0;
            bool exact = !quantized;
            if (s->dequantized && cols) bin_quantize(want, n, s->group, NULL, NULL, exact = true);
            for (size_t i = 0; i < n; i++) worst = fmaxf(worst, fabsf(value_at(t, (int64_t)i) - want[i]));
            // Rounding to nearest: half a step, of the largest scale a value of this tensor can have.
            float step = (kind == BIN_TOKENS ? sqrtf(3) : sqrtf(3.0f / (float)(cols ? cols : 1))) / 127;
            CHECK(exact ? worst == 0 : worst <= 0.5001f * step && worst > 0, "v%d %s: off by %g, step %g", s->version,
                  name, (double)worst, (double)step);
            free(want);
        }
    }
}

static void test_versions_agree(void) {
    for (int i = 0; i < 12; i++) {
        BinSpec s = small_spec(i % 3, i / 3 % 2);
        s.dequantized = i >= 6;
        make_bin(MODEL, &s);
        char err[512] = "";
        Model m;
        int rc = load_bin(&m, MODEL, err, sizeof err);
        CHECK(!rc, "%s", err);
        if (rc) continue;
        check_model(&m, &s);
        check_tensors(&m, &s);
        weights_free(&m.weights);
    }
}

// head_dim 2, one head, one layer, two tokens: about the smallest model there is.
static void test_smallest_model(void) {
    for (int version = 0; version < 3; version++) {
        BinSpec s = {2, 2, 1, 1, 1, 2, 1, .tied = true, .version = version, .group = 4, .seed = 1};
        make_bin(MODEL, &s);
        char err[512] = "";
        Model m;
        CHECK(!load_bin(&m, MODEL, err, sizeof err), "%s", err);
        if (m.weights.files) check_model(&m, &s);
        weights_free(&m.weights);
    }
}

#define REAL SHARED_DATA "stories260K/"

// Two exporters wrote the same model: the arrays are where we think only if the values agree.
static void test_real_models(void) {
    SKIP_WITHOUT(REAL "stories260K.bin");
    char err[512] = "";
    Model a, b;
    CHECK(!load_bin(&a, REAL "stories260K.bin", err, sizeof err), "%s", err);
    CHECK(!load_bin(&b, REAL "stories260K-q8.bin", err, sizeof err), "%s", err);
    if (a.weights.files && b.weights.files) {
        BinSpec s = {64, 172, 5, 8, 4, 512, 512, .tied = true};
        check_model(&a, &s);
        s.version = 2;
        check_model(&b, &s);
        for (ptrdiff_t i = 0; i < shlen(a.weights.table); i++) {
            const char *name = a.weights.table[i].key;
            const Tensor *t = &a.weights.table[i].value, *u = weights_find(&b.weights, name);
            CHECK(u && u->n_dims == t->n_dims && u->shape[0] == t->shape[0] && u->shape[1] == t->shape[1], "%s", name);
            if (!u) continue;
            CHECK(u->dtype == (t->n_dims == 1 ? DTYPE_F32 : DTYPE_I8G) && (u->dtype == DTYPE_F32 || u->group == 8),
                  "%s", name);
            int n_bad = 0;
            for (int64_t k = 0; k < tensor_count(t); k++) {
                float step = u->dtype == DTYPE_I8G ? ((const float *)u->scales)[k / u->group] : 0;
                n_bad += !(fabsf(value_at(t, k) - value_at(u, k)) <= 0.5001f * step);
            }
            CHECK(n_bad == 0, "%s: %d of %d values differ by more than rounding", name, n_bad, (int)tensor_count(t));
        }
    }
    weights_free(&a.weights);
    weights_free(&b.weights);
}

static void check_vocab(const char *path, int n, const char *const *want, int n_want, int first) {
    char err[512] = "";
    Vocab v;
    File f;
    NEED(!load_llama2c_tokenizer(&v, &f, path, n, err, sizeof err), "%s", err);
    CHECK(arrlen(v.pieces) == n && v.unk_id == 0 && v.bos_id == (n > 1 ? 1 : -1) && v.eos_id == (n > 2 ? 2 : -1) &&
              v.add_space_prefix,
          "%s: wrong vocabulary", path);
    for (int id = 0; id < n; id++) {
        TokenType type = id == 0                ? TOKEN_UNKNOWN
                         : id < 3               ? TOKEN_CONTROL
                         : n >= 259 && id < 259 ? TOKEN_BYTE
                                                : TOKEN_NORMAL;
        const Piece *p = &v.pieces[id];
        CHECK(p->type == type && p->len > 0, "%s: token %d: type %d, %d bytes", path, id, (int)p->type, p->len);
        CHECK((const uint8_t *)p->text > f.data && (const uint8_t *)p->text + p->len <= f.data + f.size, "%d", id);
    }
    for (int i = 0; i < n_want; i++) {
        const Piece *p = &v.pieces[first + i];
        CHECK(p->len == (int)strlen(want[i]) && !memcmp(p->text, want[i], strlen(want[i])), "%s: token %d: '%.*s'",
              path, first + i, p->len, p->text);
    }
    arrfree(v.pieces);
    file_unmap(&f);
}

static void test_tokenizers(void) {
    const int sizes[] = {1, 2, 3, 4, 80, 258, 259, 260, 700};
    for (int i = 0; i < N_OF(sizes); i++) {
        make_tokenizer_bin(TOKENS, sizes[i], 9);
        check_vocab(TOKENS, sizes[i], (const char *[]){"<unk>", "<s>", "</s>"}, sizes[i] < 3 ? sizes[i] : 3, 0);
    }
}

static void test_real_tokenizers(void) {
    SKIP_WITHOUT(REAL "tok512.bin");
    SKIP_WITHOUT(SHARED_DATA "llama2-tokenizer/tokenizer.bin");
    check_vocab(REAL "tok512.bin", 512, (const char *[]){"<0xFF>", " t", "he", " a"}, 4, 258);
    check_vocab(SHARED_DATA "llama2-tokenizer/tokenizer.bin", 32000, (const char *[]){"<0xFF>", "  ", " t", "er"}, 4,
                258);
    expect_bad_tokenizer(REAL "stories260K.bin", 512, "", "a model as tokenizer");
    expect_bad_model(REAL "tok512.bin",
                     "not a GGUF, safetensors or llama2.c file (read as llama2.c's header: hidden_dim",
                     "a tokenizer as model");
    expect_bad_model(REAL "stories260K.gguf",
                     "not a GGUF, safetensors or llama2.c file (read as llama2.c's header: dim: expected 1 to 1048576, "
                     "found 1179993927",
                     "GGUF");
}

// As many records as there are count; a model with fewer tokens or more gets those that it can use, and a note.
static void test_other_sizes(void) {
    static const struct {
        int records, model, kept;
        const char *note;
    } cases[] = {{300, 0, 300, NULL},
                 {300, 300, 300, NULL},
                 {300, 299, 299, "the tokenizer has 300 tokens, the model 299"},
                 {300, 320, 300, "the tokenizer has 300 tokens, the model 320"},
                 {258, 300, 258, "the tokenizer has 258 tokens, the model 300"}};
    for (int i = 0; i < N_OF(cases); i++) {
        char err[512] = "";
        Vocab v;
        File f;
        make_tokenizer_bin(TOKENS, cases[i].records, 9);
        int rc = load_llama2c_tokenizer(&v, &f, TOKENS, cases[i].model, err, sizeof err);
        CHECK(!rc, "%s", err);
        if (rc) continue;
        CHECK(arrlen(v.pieces) == cases[i].kept, "%d for %d: %td pieces", cases[i].records, cases[i].model,
              arrlen(v.pieces));
        CHECK(v.pieces[3].type == (cases[i].records >= 259 ? TOKEN_BYTE : TOKEN_NORMAL), "byte tokens");
        CHECK(cases[i].note ? strstr(v.notes.text, cases[i].note) != NULL : !*v.notes.text, "note '%s'", v.notes.text);
        vocab_free(&v);
        file_unmap(&f);
    }
}

// The byte tokens' digits are of either case.
static void test_lower_case(void) {
    char err[512] = "";
    Vocab v;
    File f;
    size_t n;
    make_tokenizer_bin(TOKENS, 300, 9);
    char *bytes = read_file(TOKENS, &n), *token = memmem(bytes, n, "<0xAB>", 6);
    CHECK(token, "no <0xAB>");
    if (token) memcpy(token, "<0xaB>", 6);
    write_bytes(TOKENS, bytes, n);
    free(bytes);
    int rc = load_llama2c_tokenizer(&v, &f, TOKENS, 300, err, sizeof err);
    CHECK(!rc, "%s", err);
    if (rc) return;
    CHECK(v.pieces[3 + 0xAB].type == TOKEN_BYTE && piece_byte(&v.pieces[3 + 0xAB]) == 0xAB, "type");
    vocab_free(&v);
    file_unmap(&f);
}

// -- noise

// Random headers and random text, without a magic: a sensible line, whatever it is.
static void test_random_files(void) {
    for (int i = 0; i < 500; i++) {
        uint8_t noise[600];
        for (size_t k = 0; k < sizeof noise; k++) noise[k] = (uint8_t)(i % 2 ? ' ' + test_u32() % 95 : test_u32());
        write_bytes(MODEL, noise, 1 + test_u32() % sizeof noise);
        expect_bad_model(MODEL, "expected", "noise");
        expect_bad_tokenizer(MODEL, 300, "expected", "noise as tokenizer");
    }
}

static void test_not_files(void) {
    const char *fifo = BIN_DIR "load.fifo", *none = BIN_DIR "no-such-file.bin", *sealed = BIN_DIR "load.sealed";
    fclose(bin_open(MODEL));
    unlink(fifo);
    CHECK(!mkfifo(fifo, 0600), "mkfifo");
    const struct {
        const char *path, *want;
    } cases[] = {{MODEL, "the file is empty"},
                 {none, "No such file or directory"},
                 {MODEL "/x", "Not a directory"},
                 {BIN_DIR, "expected a regular file, found a directory"},
                 {fifo, "expected a regular file, found a device or pipe"},
                 {"/dev/null", "expected a regular file, found a device or pipe"},
                 {"", ""}};
    for (int i = 0; i < N_OF(cases); i++) {
        expect_bad_model(cases[i].path, cases[i].want, cases[i].path);
        expect_bad_tokenizer(cases[i].path, 300, cases[i].want, cases[i].path);
    }
    unlink(fifo);
    write_bytes(sealed, (const uint8_t *)"x", 1);
    chmod(sealed, 0);
    if (access(sealed, R_OK)) expect_bad_model(sealed, "Permission denied", sealed);
    unlink(sealed);
}

// -- the table refuses what was not asked for

static void test_lookup(void) {
    BinSpec s = small_spec(2, true);
    make_bin(MODEL, &s);
    Model m;
    char err[512] = "";
    CHECK(!load_bin(&m, MODEL, err, sizeof err), "%s", err);
    const struct {
        const char *name, *want;
        unsigned mask;
        int rows, cols;
    } cases[] = {
        {"output.weight", "tensor output.weight: expected, not found", DTYPE_ANY, 11, 24},
        {"blk.2.attn_q.weight", "tensor blk.2.attn_q.weight: expected, not found", DTYPE_ANY, 24, 24},
        {"blk.0.attn_q.weight", "dtype I8G cannot be used here", DTYPE_BIT(DTYPE_F32), 24, 24},
        {"output_norm.weight", "dtype F32 cannot be used here", DTYPE_BIT(DTYPE_I8G), 24, 0},
        {"blk.0.attn_k.weight", "expected shape [24, 24], found [12, 24]", DTYPE_ANY, 24, 24},
        {"output_norm.weight", "expected shape [24, 1], found [24]", DTYPE_ANY, 24, 1},
        {"token_embd.weight", "expected shape [264], found [11, 24]", DTYPE_ANY, 264, 0},
    };
    for (int i = 0; i < N_OF(cases); i++) {
        const Tensor *found =
            weights_get(&m.weights, cases[i].name, cases[i].mask, cases[i].rows, cases[i].cols, err, sizeof err);
        CHECK(!found && !strncmp(err, MODEL ": ", sizeof MODEL) && strstr(err, cases[i].want), "'%s' in '%s'",
              cases[i].want, err);
    }
    const Tensor *t = weights_find(&m.weights, "token_embd.weight");
    CHECK(t && weights_add(&m.weights, "token_embd.weight", *t, err, sizeof err) == -1, "twice");
    CHECK(strstr(err, "token_embd.weight: expected once, found twice"), "'%s'", err);
    weights_free(&m.weights);
    weights_free(&m.weights); // harmless
    CHECK(!weights_find(&m.weights, "token_embd.weight"), "found in an empty table");
}

// -- a mapped file that becomes shorter

// In the child: load, shrink the file, read every tensor. Must not come back.
static void read_shrunk(int err_fd) {
    dup2(err_fd, STDERR_FILENO);
    file_guard_shrinking();
    Model m;
    char err[512];
    if (load_bin(&m, MODEL, err, sizeof err) || truncate(MODEL, 100)) _exit(3);
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < m.weights.files[0].size; i++) sum = (uint8_t)(sum + m.weights.files[0].data[i]);
    _exit(4);
}

static void test_shrinking_file(void) {
    BinSpec s = small_spec(0, false);
    s.vocab_size = 400; // several pages
    make_bin(MODEL, &s);
    int fds[2], status = 0;
    CHECK(!pipe(fds), "pipe");
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) read_shrunk(fds[1]);
    close(fds[1]);
    char text[512] = "";
    size_t n = 0;
    for (ssize_t got; n < sizeof text - 1 && (got = read(fds[0], text + n, sizeof text - 1 - n)) > 0;) n += (size_t)got;
    close(fds[0]);
    CHECK(waitpid(child, &status, 0) == child, "waitpid");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %d, expected exit 1", status);
    const char *line = text + strspn(text, "\n"); // it may follow half a line of generated text
    CHECK(!strncmp(line, "error: ", 7) && strchr(line, '\n') == line + strlen(line) - 1, "one line, found '%s'", text);
}

int main(void) {
    RUN(test_versions_agree);
    RUN(test_smallest_model);
    RUN(test_real_models);
    RUN(test_tokenizers);
    RUN(test_real_tokenizers);
    RUN(test_other_sizes);
    RUN(test_lower_case);
    RUN(test_random_files);
    RUN(test_not_files);
    RUN(test_lookup);
    RUN(test_shrinking_file);
    return test_report();
}
