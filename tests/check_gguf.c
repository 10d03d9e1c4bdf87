// check_gguf: the GGUF reader. One model in every tensor type against the same values as F32, bit by bit; real files
// against the same models in other containers, and real vocabularies against known ids; split files; settings of every
// type; malformed ones are in bad/gguf.txt.
#include "bad/gguf.h"
#include "block_formats.h"
#include "decoder.h"
#include "forward.h"
#include "ids.h"
#include "load.h"
#include "tokenizer.h"
#include "ops.h"
#include "quant.h"
#include "tessera.h"

#include <unistd.h>

#define MODEL BIN_DIR "model.gguf"
#define OTHER BIN_DIR "other.gguf"
#define STORIES SHARED_DATA "stories260K/"
#define TINY SHARED_DATA "tinystories-656k-gguf/TinyStories-656K.f16.gguf"
#define TINY_HF SHARED_DATA "tinystories-656k-hf"

// ---- logits of a model in every type

static float about(float f) {
    return f * (1 + 0.25f * test_uniform());
}

// Turn F32 data into one of the kinds: floats are rounded, blocks are random.
static void to_kind(MakeTensor *t, int kind) {
    const DTypeInfo *info = dtype_info(formats[kind].dtype);
    size_t n = arrlenu(t->data.at) / sizeof(float), bytes = n / (size_t)info->block * (size_t)info->block_bytes;
    const float *v = (const float *)(const void *)t->data.at;
    uint8_t *out = NULL;
    arrsetlen(out, bytes);
    for (size_t i = 0; i < bytes; i++) out[i] = (uint8_t)test_u32();
    for (size_t i = 0; i < n / (size_t)info->block; i++) {
        uint8_t *b = out + i * (size_t)info->block_bytes;
        uint16_t half = formats[kind].dtype == DTYPE_F16 ? f16_from_f32(v[i]) : bf16_from_f32(v[i]);
        put_scales(b, kind, about(formats[kind].d), about(formats[kind].m));
        if (formats[kind].dtype == DTYPE_MXFP4) b[0] = (uint8_t)(120 + pick(3));
        if (info->block_bytes == 2) memcpy(b, &half, 2);
        if (info->block_bytes == 4) memcpy(b, &v[i], 4);
    }
    arrfree(t->data.at);
    t->data.at = out;
    t->type = formats[kind].number;
}

// The same values as F32.
static void to_floats(MakeTensor *t, int kind) {
    const DTypeInfo *info = dtype_info(formats[kind].dtype);
    size_t n_blocks = arrlenu(t->data.at) / (size_t)info->block_bytes, n = n_blocks * (size_t)info->block;
    float *v = NULL;
    arrsetlen(v, n);
    if (info->unpack) info->unpack(v, t->data.at, (int64_t)n_blocks);
    for (size_t i = 0; i < n && !info->unpack; i++) {
        uint16_t half;
        memcpy(&half, t->data.at + i * (size_t)info->block_bytes, 2);
        if (info->block_bytes == 4) memcpy(&v[i], t->data.at + i * 4, 4);
        else v[i] = formats[kind].dtype == DTYPE_F16 ? f32_from_f16(half) : f32_from_bf16(half);
    }
    arrfree(t->data.at);
    t->data.at = NULL;
    bytes_put(&t->data, v, n * sizeof *v);
    arrfree(v);
    t->type = 0;
}

// Logits after every token of a text, computed in pieces of `step` tokens.
typedef struct {
    float *logits; // [n][vocab]
    int vocab;
} Seen;

static void see(void *context, int position, const float *logits) {
    const Seen *s = context;
    memcpy(s->logits + (int64_t)position * s->vocab, logits, sizeof(float) * (size_t)s->vocab);
}

static float *logits_of(const char *path, const char *tokenizer, const int32_t *tokens, int n, int step, int threads,
                        int *vocab) {
    char err[512] = "";
    Engine *e = engine_open(path, tokenizer, err, sizeof err);
    CHECK(e, "%s", err);
    if (!e) return NULL;
    Session *s = session_open(e, &(SessionOptions){.n_threads = threads, .kv = KV_F32}, err, sizeof err);
    CHECK(s, "%s", err);
    *vocab = engine_info(e).vocab_size;
    Seen seen = {need_floats((int64_t)n * *vocab), *vocab};
    session_visit(s, see, &seen);
    for (int i = step; i < n + step; i += step) {
        CHECK(!session_sync(s, tokens, i < n ? i : n, err, sizeof err), "%s", err);
    }
    session_close(s);
    engine_close(e);
    return seen.logits;
}

enum { N_TEXT = 32 }; // whole blocks of logits: no few tokens are left, which F32 would compute another way

static void kind_equals_floats(void) {
    BinSpec spec = {256, 512, 1, 4, 2, 270, 64, .seed = 3};
    int32_t text[N_TEXT];
    for (int i = 0; i < N_TEXT; i++) text[i] = pick(spec.vocab_size);
    int step = by_speed(1, 2, 4); // where not all are taken, every level has others
    for (int kind = (int)cpu_level() % step; kind < N_OF(formats); kind += step) {
        const char *name = dtype_name(formats[kind].dtype);
        Maker m = maker_new();
        spec.tied = kind % 2;
        maker_llama(&m, &spec);
        for (ptrdiff_t i = 0; i < arrlen(m.tensors); i++) {
            if (m.tensors[i].n_dims > 1) to_kind(&m.tensors[i], kind);
        }
        maker_write(&m, MODEL);
        for (ptrdiff_t i = 0; i < arrlen(m.tensors); i++) {
            if (m.tensors[i].n_dims > 1) to_floats(&m.tensors[i], kind);
        }
        maker_write(&m, OTHER);
        maker_free(&m);
        for (int at_once = 1; at_once <= N_TEXT; at_once += N_TEXT - 1) { // decode, and prefill
            int vocab = 0;
            float *a = logits_of(MODEL, NULL, text, N_TEXT, at_once, 1, &vocab), *c;
            float *b = logits_of(OTHER, NULL, text, N_TEXT, at_once, 2, &vocab);
            c = logits_of(MODEL, NULL, text, N_TEXT, at_once, 3, &vocab);
            if (!a || !b || !c) return;
            size_t bytes = sizeof(float) * N_TEXT * (size_t)vocab;
            double off = nmse_f32(a, b, N_TEXT * vocab);
            bool quantized = kind > 2 && kernels()->quantize; // the vectors too, where few tokens are computed
            CHECK(off < (quantized ? 2e-8 : 1e-11) && !memcmp(a, c, bytes), "%s, %d at a time: NMSE %g", name, at_once,
                  off);
            if (kind > 2 && !quantized) CHECK(!memcmp(a, b, bytes), "%s, %d at a time: other bits", name, at_once);
            free(a);
            free(b);
            free(c);
        }
    }
    unlink(MODEL);
    unlink(OTHER);
}

// Every tensor in another type, as files have them: products of a group need not be alike.
static void mixed_kinds(void) {
    BinSpec spec = {256, 768, 3, 8, 1, 300, 64, .seed = 4};
    int32_t text[N_TEXT];
    for (int i = 0; i < N_TEXT; i++) text[i] = pick(spec.vocab_size);
    Maker m = maker_new();
    maker_llama(&m, &spec);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < (int)arrlen(m.tensors); i++) {
            if (m.tensors[i].n_dims > 1) (pass ? to_floats : to_kind)(&m.tensors[i], i * 7 % N_OF(formats));
        }
        maker_write(&m, pass ? OTHER : MODEL);
    }
    maker_free(&m);
    static const int steps[] = {1, 2, 7, 32};
    for (int i = 0; i < N_OF(steps); i++) {
        int vocab = 0;
        float *a = logits_of(MODEL, NULL, text, N_TEXT, steps[i], 2, &vocab);
        float *b = logits_of(OTHER, NULL, text, N_TEXT, steps[i], 1, &vocab);
        if (!a || !b) return;
        double off = nmse_f32(a, b, N_TEXT * vocab);
        CHECK(off < 2e-8, "%d at a time: NMSE %g", steps[i], off);
        free(a);
        free(b);
    }
}

// Rows longer than what is unpacked at a time, alone and several, with a bias, few tokens and many.
static void long_rows(void) {
    enum { ROWS = 7, COLS = 4096 * 2 + 256 };
    char err[256] = "";
    Compute c;
    CHECK(!compute_open(&c, 2, err, sizeof err), "%s", err); // without room for quantized vectors
    static const int n_tokens[] = {1, 2, 9};
    for (int kind = 3; kind < N_OF(formats); kind++) {
        MakeTensor t = {.n_dims = 2};
        for (int i = 0; i < ROWS * COLS; i++) bytes_put(&t.data, &(float){0}, sizeof(float));
        to_kind(&t, kind);
        Tensor blocks = {.dtype = formats[kind].dtype, .n_dims = 2, .shape = {ROWS, COLS}, .data = t.data.at};
        float *x = need_floats(9 * COLS), y[2][9 * ROWS], bias[ROWS];
        float *v = need_floats(ROWS * COLS);
        const DTypeInfo *info = dtype_info(blocks.dtype);
        info->unpack(v, blocks.data, ROWS * COLS / info->block);
        Tensor floats = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {ROWS, COLS}, .data = v};
        for (int i = 0; i < 9 * COLS; i++) x[i] = test_uniform();
        for (int i = 0; i < ROWS; i++) bias[i] = test_uniform();
        for (int i = 0; i < N_OF(n_tokens); i++) {
            int n = n_tokens[i];
            ops_linear(&c, &(Linear){.w = &blocks, .y = y[0], .bias = bias}, 1, x, n);
            ops_linear(&c, &(Linear){.w = &floats, .y = y[1], .bias = bias}, 1, x, n);
            double off = nmse_f32(y[0], y[1], n * ROWS);
            CHECK(off < 3e-11, "%s, %d tokens: NMSE %g", info->name, n, off); // 8448 terms
        }
        ops_embed(&c, x, &blocks, (int32_t[]){6, 0}, 2);
        int n_off = 0; // a zero's sign may differ
        for (int i = 0; i < COLS; i++) n_off += x[i] != v[6 * COLS + i] || x[COLS + i] != v[i];
        CHECK(!n_off, "%s: %d values of rows differ", info->name, n_off);
        arrfree(t.data.at);
        free(x);
        free(v);
    }
    compute_close(&c);
}

// ---- real files

static bool model_open(Model *m, const char *path) {
    char err[512] = "";
    int rc = load_model(m, path, err, sizeof err);
    CHECK(!rc, "%s", err);
    return !rc;
}

// Two containers of one model: which tensors are the same to the bit, and that the others are to rounding.
static void real_story(void) {
    SKIP_WITHOUT(STORIES "stories260K.gguf");
    char err[512] = "";
    Model a, b;
    if (!model_open(&a, STORIES "stories260K.gguf")) return;
    CHECK(!load_model(&b, STORIES "stories260K.bin", err, sizeof err), "%s", err);
    int n_same = 0, n_other = 0;
    for (size_t i = 0; i < weights_count(&a.weights); i++) {
        const char *name = a.weights.table[i].key;
        const Tensor *t = weights_at(&a.weights, i), *u = weights_find(&b.weights, name);
        if (!strcmp(name, "output.weight")) u = weights_find(&b.weights, "token_embd.weight"); // tied there
        CHECK(u && tensor_count(u) == tensor_count(t), "%s", name);
        if (!u) continue;
        double off = nmse_f32(t->data, u->data, (int)tensor_count(t));
        bool same = !memcmp(t->data, u->data, (size_t)tensor_bytes(t));
        same ? n_same++ : n_other++;
        CHECK(off < 1e-12, "%s: NMSE %g", name, off);
        if (strstr(name, "token_embd") || strstr(name, "ffn_down")) CHECK(same, "%s differs", name);
    }
    printf("    %d tensors equal those of the .bin to the bit, %d differ\n", n_same, n_other);
    weights_free(&a.weights);
    weights_free(&b.weights);
}

// Row r of Wq or Wk in a GGUF file (neighbours turn together) is this row of the Hugging Face file (halves do).
static int64_t hf_row(int64_t r, int head_dim) {
    int64_t i = r % head_dim;
    return r - i + i / 2 + i % 2 * (head_dim / 2);
}

// Is row r of a GGUF's F16 or F32 tensor the BF16 row `s` of the other file, to F16's rounding?
static bool row_equals(const Tensor *t, int64_t r, const Tensor *u, int64_t s) {
    int64_t cols = t->n_dims > 1 ? t->shape[1] : 1;
    for (int64_t i = 0; i < cols; i++) {
        float want = f32_from_bf16(((const uint16_t *)u->data)[s * cols + i]);
        float found = t->dtype == DTYPE_F32 ? ((const float *)t->data)[r * cols + i]
                                            : f32_from_f16(((const uint16_t *)t->data)[r * cols + i]);
        if (found != (t->dtype == DTYPE_F32 ? want : f32_from_f16(f16_from_f32(want)))) return false;
    }
    return true;
}

static void real_tiny_stories(void) {
    SKIP_WITHOUT(TINY);
    SKIP_WITHOUT(TINY_HF "/model.safetensors");
    char err[512] = "";
    Model m;
    Weights hf;
    if (!model_open(&m, TINY)) return;
    const Config *c = &m.config;
    CHECK(c->dim == 128 && c->hidden_dim == 384 && c->n_layers == 2 && c->kinds[0].n_heads == 8 &&
              c->kinds[0].n_kv_heads == 4 && c->kinds[0].k_dim == 16 && c->vocab_size == 2048 &&
              c->max_seq_len == 512 && c->tied && !c->kinds[0].window && c->norm_eps == 1e-6f &&
              c->kinds[0].rope.theta == 10000 && c->kinds[0].rope.pairing == ROPE_INTERLEAVED,
          "wrong config");
    CHECK(!strcmp(m.kind, "GGUF v3"), "%s", m.kind);
    CHECK(!load_safetensors(&hf, TINY_HF, err, sizeof err), "%s", err);
    for (size_t i = 0; i < weights_count(&m.weights); i++) {
        const char *name = m.weights.table[i].key;
        char other[100] = "";
        const Tensor *t = weights_at(&m.weights, i), *u = weights_find(&hf, hf_name(other, name));
        bool turned = strstr(name, "attn_q") || strstr(name, "attn_k"), same = u && u->dtype == DTYPE_BF16;
        for (int64_t r = 0; same && r < t->shape[0]; r++) same = row_equals(t, r, u, turned ? hf_row(r, 16) : r);
        CHECK(same, "%s is not what the other file holds", name);
    }
    weights_free(&hf);
    weights_free(&m.weights);
}

// ---- vocabularies

static Tokenizer *words_from(const uint8_t *bytes, size_t n) {
    char err[512] = "";
    Vocab v;
    static char path[] = "memory.gguf";
    File f = {.path = path, .data = bytes, .size = n, .borrowed = true};
    int rc = load_gguf_vocab(&v, &f, 0, err, sizeof err);
    CHECK(!rc, "%s", err);
    return rc ? NULL : tokenizer_new(&v, err, sizeof err);
}

static Tokenizer *words_open(const char *path) {
    char err[512] = "";
    File f;
    int rc = file_map(&f, path, err, sizeof err);
    CHECK(!rc, "%s", err);
    if (rc) return NULL;
    Tokenizer *w = words_from(f.data, f.size); // the pieces are copies
    file_unmap(&f);
    return w;
}

// The pieces of a GGUF file are those of the same vocabulary's tokenizer.bin.
static void real_pieces(void) {
    SKIP_WITHOUT(STORIES "stories260K.gguf");
    char err[512] = "";
    Vocab v;
    File f;
    Tokenizer *w = words_open(STORIES "stories260K.gguf");
    CHECK(!load_llama2c_tokenizer(&v, &f, STORIES "tok512.bin", 512, err, sizeof err), "%s", err);
    for (int id = 0; w && id < 512; id++) {
        const Piece *p = tokenizer_piece(w, id), *q = &v.pieces[id];
        CHECK(p && p->len == q->len && !memcmp(p->text, q->text, (size_t)p->len) && p->type == q->type &&
                  (p->score == q->score || p->type != TOKEN_NORMAL),
              "token %d", id);
    }
    arrfree(v.pieces);
    file_unmap(&f);
    tokenizer_free(w);
}

static Tokenizer *words_made(Maker *m) {
    size_t n;
    uint8_t *bytes = maker_bytes(m, &n);
    Tokenizer *w = words_from(bytes, n);
    free(bytes);
    return w;
}

// Tokens 3 .. of the made vocabulary: " ", a, b, c ...
static void vocabulary_rules(void) {
#define IDS(...) (const int32_t[]){__VA_ARGS__}, (int)(sizeof(IDS_OF(__VA_ARGS__)) / 4)
#define IDS_OF(...) (int32_t[]){__VA_ARGS__}
    Maker m = maker_new();
    maker_vocab(&m, 12);
    set_token(&m, 10, "\xE2\x96\x81\x61\xE2\x96\x81", 4, 0); // user-defined, " a "
    set_token(&m, 11, "bc", 5, 0);                           // unused
    Tokenizer *w = words_made(&m);
    if (!w) return;
    CHECK(tokenizer_bos(w) == 1 && tokenizer_eos(w) == 2, "bos, eos");
    text_ids(w, "ab", TOKENIZE_BOS, IDS(1, 3, 4, 5));
    text_ids(w, "b a b", 0, IDS(3, 5, 10, 3, 5));         // a user-defined token is found with any flags
    text_ids(w, "</s>b", TOKENIZE_SPECIAL, IDS(2, 3, 5)); // a control token is not
    text_ids(w, "</s>b", 0, IDS(3, 0, 5));                // no byte tokens: unknown, one for all in a row
    text_ids(w, "bc", 0, IDS(3, 5, 6));                   // unused: never made from text
    text_ids(w, "", TOKENIZE_BOS, IDS(1));
    tokenizer_free(w);

    maker_bool(&m, "tokenizer.ggml.add_bos_token", 0);
    maker_bool(&m, "tokenizer.ggml.add_space_prefix", 0);
    maker_u32(&m, "tokenizer.ggml.eos_token_id", UINT32_MAX); // none
    maker_u32(&m, "tokenizer.ggml.unknown_token_id", UINT32_MAX);
    w = words_made(&m);
    if (!w) return;
    CHECK(tokenizer_bos(w) == 1 && tokenizer_eos(w) == -1, "bos, eos");
    text_ids(w, "ab?", TOKENIZE_BOS, IDS(4, 5));
    text_ids(w, "", TOKENIZE_BOS, IDS(1)); // a text must begin with something
    tokenizer_free(w);
    maker_free(&m);

    m = maker_new(); // no piece for a space, but its byte
    maker_vocab(&m, 270);
    set_token(&m, 259, "zz", 1, 0);
    drop_pair(&m, "tokenizer.ggml.bos_token_id"); // the usual ones then
    drop_pair(&m, "tokenizer.ggml.eos_token_id");
    drop_pair(&m, "tokenizer.ggml.unknown_token_id");
    w = words_made(&m);
    if (!w) return;
    CHECK(tokenizer_bos(w) == 1 && tokenizer_eos(w) == 2, "bos, eos");
    text_ids(w, "a b", 0, IDS(3 + ' ', 260, 3 + ' ', 261));
    text_ids(w, "\xE2\x96\x81", 0, IDS(3 + ' ', 3 + ' ')); // U+2581 is how SentencePiece writes a space
    text_ids(w, "\xE2\x96\x82", 0, IDS(3 + ' ', 3 + 0xE2, 3 + 0x96, 3 + 0x82));
    tokenizer_free(w);
    maker_free(&m);
}

// RWKV's: bytes as Python prints them; no token begins a text.
static void escaped_bytes(void) {
    static const char *const rwkv[] = {"\\x00", "a",          "\\n",   "a\\n\\t", "\\\\",
                                       "\\'\"", "\\xe4\\xbd", "\\xff", "\u00e9"};
    Maker m = maker_kind("rwkv", 9, rwkv);
    Tokenizer *w = words_made(&m);
    if (w) {
        text_ids(w, "aa\n\t\\'\"", TOKENIZE_BOS, IDS(4, 6, 7, 8));
        text_ids(w, "\xE4\xBD\xFF\n\xC3\xA9", 0, IDS(9, 10, 5, 11));
        text_ids(w, "a\nz", 0, IDS(4, 5, 0)); // z begins no token: unknown
        const Piece *p = tokenizer_piece(w, 3);
        CHECK(p->len == 1 && !*p->text, "a byte 0: found %d bytes", p->len);
    }
    tokenizer_free(w);
    maker_free(&m);
    static const char *const half[] = {"a", "\\x4"};
    m = maker_kind("rwkv", 2, half);
    size_t n;
    uint8_t *bytes = maker_bytes(&m, &n);
    char err[512] = "", path[] = "memory.gguf";
    Vocab v;
    File f = {.path = path, .data = bytes, .size = n, .borrowed = true};
    CHECK(load_gguf_vocab(&v, &f, 0, err, sizeof err) &&
              strstr(err, "token 4: expected two digits of a byte behind \\x"),
          "%s", err);
    free(bytes);
    maker_free(&m);
}

static void other_kinds(void) {
    static const char *const bpe[] = {"a", "b", "\u0120", "ab", "\u0120ab"};
    static const char *const t5[] = {"\u2581", "a", "\u2581x", "b"};
    static const char *const bert[] = {"\u2581un", "want", "ed", "\u2581!"};
    Maker m = maker_kind("gpt2", 5, bpe);
    MakePair *merges = maker_array(&m, "tokenizer.ggml.merges", G_STRING);
    array_put_text(merges, "a b");
    array_put_text(merges, "\u0120 ab");
    maker_text(&m, "tokenizer.ggml.pre", "gpt-2");
    Tokenizer *w = words_made(&m);
    if (w) text_ids(w, "ab ab", TOKENIZE_BOS, IDS(6, 7)); // no BOS unless the file says so
    tokenizer_free(w);
    maker_bool(&m, "tokenizer.ggml.add_bos_token", 1);
    maker_bool(&m, "tokenizer.ggml.add_eos_token", 1);
    w = words_made(&m);
    if (w) text_ids(w, "ab", TOKENIZE_BOS, IDS(1, 6, 2));
    tokenizer_free(w);
    maker_free(&m);

    m = maker_kind("t5", 4, t5);
    maker_u32(&m, "tokenizer.ggml.eos_token_id", 2);
    w = words_made(&m);
    if (w) text_ids(w, "  x   b ", TOKENIZE_BOS, IDS(5, 3, 6, 2)); // squeezed, then the prefix; </s> behind
    tokenizer_free(w);
    maker_free(&m);

    m = maker_kind("bert", 4, bert);
    maker_u32(&m, "tokenizer.ggml.cls_token_id", 1);
    maker_u32(&m, "tokenizer.ggml.seperator_token_id", 2);
    w = words_made(&m);
    if (w) text_ids(w, "UnWanted! x", TOKENIZE_BOS, IDS(1, 3, 4, 5, 6, 0, 2));
    tokenizer_free(w);
    maker_free(&m);
}

// ---- containers that are right

static BinSpec small_spec(void) {
    return (BinSpec){32, 24, 2, 4, 2, 20, 10, .tied = true, .seed = 5};
}

static int load_bytes(Model *m, const uint8_t *bytes, size_t n, char *err, size_t errlen) {
    static char path[] = "memory.gguf";
    File f = {.path = path, .data = bytes, .size = n, .borrowed = true};
    return load_gguf_file(m, &f, err, errlen);
}

static int load_maker(Maker *maker, Config *c, char *err, size_t errlen) {
    size_t n;
    Model m;
    uint8_t *bytes = maker_bytes(maker, &n);
    int rc = load_bytes(&m, bytes, n, err, errlen);
    if (!rc) *c = m.config;
    if (!rc) weights_free(&m.weights);
    free(bytes);
    return rc;
}

static void plain_model(void) {
    char err[512] = "";
    BinSpec s = small_spec();
    for (int i = 0; i < 4; i++) {
        Maker maker = maker_new();
        Config c = {0};
        s.tied = i % 2;
        maker.version = 2 + (uint32_t)(i / 2);
        maker_llama(&maker, &s);
        size_t n;
        Model m;
        uint8_t *bytes = maker_bytes(&maker, &n);
        CHECK(!load_bytes(&m, bytes, n, err, sizeof err), "%s", err);
        c = m.config;
        CHECK(c.dim == 32 && c.hidden_dim == 24 && c.n_layers == 2 && c.kinds[0].n_heads == 4 &&
                  c.kinds[0].n_kv_heads == 2 && c.kinds[0].k_dim == 8 && c.vocab_size == 20 && c.max_seq_len == 10 &&
                  c.tied == s.tied && c.kinds[0].rope.theta == 10000 && c.norm_eps == 1e-5f,
              "wrong config");
        CHECK(m.kind[6] == '2' + i / 2, "%s", m.kind);
        CHECK(weights_count(&m.weights) == (size_t)(20 + !s.tied), "%zu tensors", weights_count(&m.weights));
        for (size_t t = 0; t < weights_count(&m.weights); t++) { // in place
            const uint8_t *data = weights_at(&m.weights, t)->data;
            CHECK(data > bytes && data < bytes + n && (uintptr_t)data % 4 == 0, "tensor %zu", t);
        }
        weights_free(&m.weights);
        free(bytes);
        maker_free(&maker);
    }
}

// Numbers in any whole type; settings that no one asks for, of every type; another alignment; optional keys.
static void settings_of_every_type(void) {
    char err[512] = "";
    BinSpec s = small_spec();
    Config c = {0};
    Maker m = maker_new();
    maker_llama(&m, &s);
    maker_put(&m, "llama.block_count", G_U8, &(uint8_t){2}, 1);
    maker_put(&m, "llama.embedding_length", G_I8, &(int8_t){32}, 1);
    maker_put(&m, "llama.feed_forward_length", G_U16, &(uint16_t){24}, 2);
    maker_put(&m, "llama.context_length", G_I16, &(int16_t){300}, 2);
    maker_put(&m, "llama.attention.head_count", G_I32, &(int32_t){4}, 4);
    maker_put(&m, "llama.attention.head_count_kv", G_U64, &(uint64_t){2}, 8);
    maker_put(&m, "llama.attention.key_length", G_I64, &(int64_t){8}, 8);
    maker_put(&m, "llama.rope.freq_base", G_F64, &(double){500000}, 8);
    maker_u32(&m, "llama.attention.value_length", 8);
    maker_u32(&m, "llama.attention.sliding_window", 7);
    maker_u32(&m, "llama.expert_count", 0);
    maker_text(&m, "llama.rope.scaling.type", "none");
    for (uint32_t type = 0; type <= G_F64; type++) {
        char key[20];
        uint64_t zeros[3] = {0};
        static const unsigned sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
        snprintf(key, sizeof key, "other.%u", type);
        if (type == G_STRING) maker_text(&m, key, "text");
        else if (type != G_ARRAY) maker_put(&m, key, type, zeros, sizes[type]);
        if (type == G_ARRAY) continue;
        snprintf(key, sizeof key, "array.%u", type);
        MakePair *p = maker_array(&m, key, type);
        for (int i = 0; i < 3; i++) {
            if (type == G_STRING) array_put_text(p, "x");
            else array_put(p, zeros, sizes[type]);
        }
        snprintf(key, sizeof key, "empty.%u", type);
        maker_array(&m, key, type);
    }
    m.alignment = 128;
    maker_u32(&m, "general.alignment", 128);
    CHECK(!load_maker(&m, &c, err, sizeof err), "%s", err);
    CHECK(c.kinds[0].window == 7 && c.max_seq_len == 300 && c.kinds[0].rope.theta == 500000 && c.kinds[0].k_dim == 8,
          "wrong config");
    maker_free(&m);

    m = maker_new(); // what may be absent
    maker_llama(&m, &s);
    for (ptrdiff_t i = arrlen(m.pairs) - 1; i >= 0; i--) {
        if (strstr(m.pairs[i].key, "rope") || strstr(m.pairs[i].key, "general.name")) {
            drop_pair(&m, m.pairs[i].key);
        }
    }
    CHECK(!load_maker(&m, &c, err, sizeof err), "%s", err);
    CHECK(c.kinds[0].rope.theta == 10000 && c.kinds[0].k_dim == 8, "wrong config");
    maker_free(&m);
}

// ---- split files

static void part_path(char out[100], int i, int n) {
    snprintf(out, 100, BIN_DIR "split-%05d-of-%05d.gguf", i + 1, n);
}

static void put_split(Maker *m, int i, int n, uint32_t n_tensors) {
    maker_put(m, "split.no", G_U16, &(uint16_t){(uint16_t)i}, 2);
    maker_put(m, "split.count", G_U16, &(uint16_t){(uint16_t)n}, 2);
    maker_put(m, "split.tensors.count", G_I32, &n_tensors, 4);
}

// The model in n files: the first has the settings and, with `empty`, no tensors.
static void write_parts(int n, bool empty) {
    BinSpec s = small_spec();
    Maker all = maker_new();
    maker_tensors(&all, &s);
    int n_tensors = (int)arrlen(all.tensors), given = 0;
    for (int i = 0; i < n; i++) {
        char path[100];
        Maker part = maker_new();
        part_path(path, i, n);
        if (i == 0) {
            maker_settings(&part, &s);
            maker_vocab(&part, s.vocab_size);
        }
        put_split(&part, i, n, (uint32_t)n_tensors);
        int end = i == n - 1 ? n_tensors : i == 0 && empty ? 0 : given + 5;
        for (; given < end; given++) {
            copy_tensor(&part, &all.tensors[given], all.tensors[given].name);
        }
        maker_write(&part, path);
        maker_free(&part);
    }
    maker_free(&all);
}

static void split_files(void) {
    BinSpec s = small_spec();
    int32_t text[8] = {1, 5, 3, 9, 9, 2, 0, 19};
    int vocab = 0;
    Maker m = maker_new();
    maker_llama(&m, &s);
    maker_write(&m, MODEL);
    maker_free(&m);
    float *want = logits_of(MODEL, NULL, text, 8, 8, 1, &vocab);
    for (int n = 2; n <= 4; n++) {
        char path[100], err[512] = "";
        write_parts(n, n == 3);
        part_path(path, 0, n);
        float *found = logits_of(path, NULL, text, 8, 8, 1, &vocab);
        CHECK(found && want && !memcmp(found, want, sizeof(float) * 8 * (size_t)vocab), "%d files", n);
        free(found);
        Engine *e = engine_open(path, NULL, err, sizeof err);
        uint64_t bytes = 0;
        for (int i = 0; i < n; i++) {
            struct stat st;
            part_path(path, i, n);
            if (!stat(path, &st)) bytes += (uint64_t)st.st_size;
        }
        CHECK(e && engine_info(e).model_bytes == bytes, "%d files: bytes", n);
        engine_close(e);
    }
    free(want);
}

static void expect_failure(const char *path, const char *want, const char *what) {
    char err[512] = "";
    Model m;
    memset(&m, 0xAA, sizeof m);
    int rc = load_model(&m, path, err, sizeof err);
    CHECK(rc == -1 && one_line(err) && strstr(err, want), "%s: expected '%s', found '%s'", what, want, err);
    CHECK(!rc || (!m.weights.files && !m.weights.table && !m.config.dim), "%s: not left empty", what);
    if (!rc) weights_free(&m.weights);
}

// Write part i of 3 again, with other numbers or with the tensors of another part.
static void write_part_as(int i, int no, int count, uint32_t n_tensors, int from) {
    char path[100];
    BinSpec s = small_spec();
    Maker all = maker_new(), part = maker_new();
    part_path(path, i, 3);
    if (i == 0) maker_settings(&part, &s);
    maker_tensors(&all, &s);
    put_split(&part, no, count, n_tensors);
    for (int t = 5 * from; t < 5 * from + (from == 2 ? 10 : 5); t++) {
        copy_tensor(&part, &all.tensors[t], all.tensors[t].name);
    }
    maker_write(&part, path);
    maker_free(&part);
    maker_free(&all);
}

static void bad_split_files(void) {
    char first[100], second[100], third[100];
    part_path(first, 0, 3);
    part_path(second, 1, 3);
    part_path(third, 2, 3);
    write_parts(3, false);
    expect_failure(second, "part 2 of 3 of a split model: name the first, " BIN_DIR, "the second named");
    write_part_as(0, 1, 3, 20, 0);
    expect_failure(first, "split.no: expected 0 to 0, found 1", "the first says it is the second");
    write_part_as(0, 0, 3, 21, 0);
    expect_failure(first, "split.tensors.count: expected 21 in all 3 files, found 20", "a tensor less");
    write_part_as(0, 0, 4, 20, 0);
    expect_failure(first, "expected a name that ends in -00001-of-00004.gguf", "another count than the name's");
    write_part_as(0, 0, 3, 20, 0);
    CHECK(!rename(first, MODEL), "rename");
    expect_failure(MODEL, "expected a name that ends in -00001-of-00003.gguf", "another name");
    write_part_as(0, 0, 3, 20, 0);
    write_part_as(1, 2, 3, 20, 1);
    expect_failure(first, "00002-of-00003.gguf: at byte", "the second says it is the third");
    write_part_as(1, 1, 2, 20, 1);
    expect_failure(first, "split.count: expected 3 to 3, found 2", "the second says there are two");
    write_part_as(1, 1, 3, 20, 0);
    expect_failure(first, "expected once, found twice", "the first's tensors again");
    write_part_as(1, 1, 3, 20, 1);
    struct stat st;
    CHECK(!stat(third, &st) && !truncate(third, st.st_size - 1), "truncate");
    expect_failure(first, "00003-of-00003.gguf: at byte", "the third is too short");
    unlink(third);
    expect_failure(first, "00003-of-00003.gguf: No such file", "the third is missing");
}

// ---- the engine

static void engine_chooses(void) {
    BinSpec s = small_spec();
    char err[512] = "";
    Maker m = maker_new();
    maker_llama(&m, &s);
    maker_write(&m, MODEL);
    make_bin(BIN_DIR "plain.bin", &s);
    make_tokenizer_bin(BIN_DIR "other.tokenizer.bin", s.vocab_size, 3);

    Engine *e = engine_open(MODEL, NULL, err, sizeof err); // its own vocabulary
    int32_t *ids;
    CHECK(e && !strcmp(engine_info(e).kind, "GGUF v3"), "%s", err);
    int n = engine_encode(e, "ab", 2, true, false, &ids, err, sizeof err);
    CHECK(n == 4 && ids[0] == 1 && ids[1] == 3 && ids[2] == 4 && ids[3] == 5, "%d ids", n);
    free(ids);
    engine_close(e);
    e = engine_open(MODEL, BIN_DIR "other.tokenizer.bin", err, sizeof err); // another one named
    CHECK(e, "%s", err);
    n = engine_encode(e, "et", 2, true, false, &ids, err, sizeof err);
    CHECK(n == 4 && ids[1] == 3 && ids[2] == 4 && ids[3] == 5, "%d ids", n);
    free(ids);
    engine_close(e);
    e = engine_open(BIN_DIR "plain.bin", MODEL, err, sizeof err); // a GGUF's for a .bin
    CHECK(e && !strcmp(engine_info(e).kind, "llama2.c v0"), "%s", err);
    engine_close(e);

    maker_text(&m, "tokenizer.ggml.model", "plamo2");
    maker_write(&m, MODEL);
    CHECK(!engine_open(MODEL, NULL, err, sizeof err) && strstr(err, "tokenizer.ggml.model: expected llama"), "'%s'",
          err);
    e = engine_open(MODEL, BIN_DIR "other.tokenizer.bin", err, sizeof err); // needs none of its own then
    CHECK(e, "%s", err);
    engine_close(e);
    maker_free(&m);
    CHECK(!engine_open(BIN_DIR "no-such-file.gguf", NULL, err, sizeof err) && strstr(err, "No such file"), "'%s'", err);
    unlink(MODEL);
}

// ---- what files leave out, and what they say in another way

static float *made_logits(Maker *m, int *vocab) {
    static const int32_t text[8] = {1, 5, 3, 9, 9, 2, 0, 19};
    maker_write(m, MODEL);
    maker_free(m);
    return logits_of(MODEL, NULL, text, 8, 8, 1, vocab);
}

// Settings as edits of bad/gguf.h: the logits stay, or they do not. A key that is absent has a value that says the
// same, and another that does not.
static const struct {
    const char *edit;
    bool same;
} settings[] = {
    {"u32 llama.attention.key_length 8", true},
    {"u32 llama.attention.value_length 8", true},
    {"drop llama.rope.dimension_count", true},
    {"u32 llama.rope.dimension_count 4", false},
    {"drop llama.rope.freq_base", true},
    {"f32 llama.rope.freq_base 900", false},
    {"f32 llama.rope.freq_base_swa 10000", true},
    {"u32 llama.attention.sliding_window 3; f32 llama.rope.freq_base_swa 900", false},
    {"u32 llama.expert_count 0", true},
    {"f32 llama.rope.scale_linear 1", true},
    {"f32 llama.rope.scale_linear 4", false},
    {"text llama.rope.scaling.type none", true},
    {"text llama.rope.scaling.type linear; f32 llama.rope.scaling.factor 4", false},
    {"u32 llama.attention.sliding_window 0", true},
    {"u32 llama.attention.sliding_window 3", false},
    {"u32 llama.attention.sliding_window 3; u32 llama.attention.sliding_window_pattern 1", true},  // none slides
    {"u32 llama.attention.sliding_window 3; u32 llama.attention.sliding_window_pattern 0", false}, // all do
    {"bool llama.use_parallel_residual 0", true},
    {"bool llama.use_parallel_residual 1", false},
    {"u32 general.alignment 32", true},
    {"u32 split.count 0", true},
    {"bool llama.attention.causal 1", true},
    {"f32 llama.attention.scale 0.35355339", true},
    {"f32 llama.attention.scale 0.5", false},
    {"f32 llama.attention.clamp_kqv 0", true},
    {"f32 llama.logit_scale 1", true},
    {"u32 llama.leading_dense_block_count 0", true},
    {"drop tokenizer.ggml.bos_token_id; drop tokenizer.ggml.eos_token_id; drop tokenizer.ggml.unknown_token_id", true},
    {"drop tokenizer.ggml.scores; drop tokenizer.ggml.token_type", true},
    {"drop general.name", true},
};

static void absent_settings(void) {
    BinSpec s = {32, 24, 2, 4, 2, 20, 10, .tied = true, .seed = 5};
    int vocab = 0;
    Maker m = maker_new();
    maker_llama(&m, &s);
    float *want = made_logits(&m, &vocab);
    for (int i = 0; i < N_OF(settings); i++) {
        size_t more = 0;
        m = maker_new();
        maker_llama(&m, &s);
        gguf_edit(&m, settings[i].edit, &more);
        float *found = made_logits(&m, &vocab);
        double off = found && want ? nmse_f32(found, want, 8 * vocab) : 1;
        CHECK(settings[i].same ? off < 1e-12 : off > 1e-9, "%s: NMSE %g", settings[i].edit, off);
        free(found);
    }
    free(want);
}

static void put_numbers(Maker *m, const char *key, uint32_t type, const int32_t *numbers, int n) {
    MakePair *p = maker_array(m, key, type);
    for (int i = 0; i < n; i++) array_put(p, &numbers[i], type == G_BOOL ? 1 : 4);
}

// Numbers of each layer that are all equal, of any type.
static void equal_numbers(void) {
    BinSpec s = {32, 24, 2, 4, 2, 20, 10, .tied = true, .seed = 5};
    int vocab = 0;
    Maker m = maker_new();
    maker_llama(&m, &s);
    float *want = made_logits(&m, &vocab);
    m = maker_new();
    maker_llama(&m, &s);
    put_numbers(&m, "llama.attention.head_count", G_I32, (const int32_t[]){4, 4}, 2);
    put_numbers(&m, "llama.attention.head_count_kv", G_U32, (const int32_t[]){2, 2}, 2);
    put_numbers(&m, "llama.feed_forward_length", G_I32, (const int32_t[]){24, 24}, 2);
    put_numbers(&m, "llama.attention.sliding_window_pattern", G_BOOL, (const int32_t[]){1, 0}, 2);
    float *found = made_logits(&m, &vocab);
    CHECK(found && want && !memcmp(found, want, sizeof *want * 8 * (size_t)vocab), "other logits");
    free(found);
    free(want);
}

// Rows [from, from + n) of a tensor; or, `columns`, these columns.
static void cut_tensor(Maker *m, const char *name, uint64_t n, bool columns) {
    MakeTensor *t = maker_tensor(m, name);
    uint64_t cols = t->dims[0], rows = t->dims[1];
    Bytes kept = {0};
    for (uint64_t r = 0; r < (columns ? rows : n); r++) {
        bytes_put(&kept, t->data.at + 4 * r * cols, 4 * (columns ? n : cols));
    }
    arrfree(t->data.at);
    t->data = kept;
    t->dims[columns ? 0 : 1] = n;
}

// Layer 1 with half the heads: those that are left out add nothing in a model that has them, since the columns of
// their output are 0.
static void heads_of_a_layer(void) {
    BinSpec s = {32, 24, 2, 4, 4, 20, 10, .tied = true, .seed = 5};
    int vocab = 0;
    Maker m = maker_new();
    maker_llama(&m, &s);
    float *out = (float *)(void *)maker_tensor(&m, "blk.1.attn_output.weight")->data.at;
    for (int r = 0; r < 32; r++) memset(out + 32 * r + 16, 0, 16 * sizeof *out);
    float *want = made_logits(&m, &vocab);
    for (int both = 0; both < 2; both++) { // the kv heads of a layer, where absent, are its heads
        m = maker_new();
        maker_llama(&m, &s);
        maker_u32(&m, "llama.attention.key_length", 8);
        maker_u32(&m, "llama.attention.value_length", 8);
        put_numbers(&m, "llama.attention.head_count", G_I32, (const int32_t[]){4, 2}, 2);
        if (both) put_numbers(&m, "llama.attention.head_count_kv", G_I32, (const int32_t[]){4, 2}, 2);
        else drop_pair(&m, "llama.attention.head_count_kv");
        cut_tensor(&m, "blk.1.attn_q.weight", 16, false);
        cut_tensor(&m, "blk.1.attn_k.weight", 16, false);
        cut_tensor(&m, "blk.1.attn_v.weight", 16, false);
        cut_tensor(&m, "blk.1.attn_output.weight", 16, true);
        float *found = made_logits(&m, &vocab);
        double off = found && want ? nmse_f32(found, want, 8 * vocab) : 1;
        CHECK(off < 1e-11, "NMSE %g", off);
        free(found);
    }
    free(want);
}

// Layers that differ where layers here are alike, and more kinds than there is room for.
static void layers_that_cannot_differ(void) {
    BinSpec s = {32, 24, 2, 4, 2, 20, 10, .tied = true, .seed = 5};
    static const int32_t nine[] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, one[] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    Maker m = maker_new();
    maker_llama(&m, &s);
    put_numbers(&m, "llama.feed_forward_length", G_I32, (const int32_t[]){24, 12}, 2);
    maker_write(&m, MODEL);
    maker_free(&m);
    expect_failure(MODEL, "llama.feed_forward_length: layer 1: expected 24, as in layer 0, found 12", "widths");
    m = maker_new();
    maker_llama(&m, &s);
    put_numbers(&m, "llama.attention.head_count", G_I32, (const int32_t[]){4, 0}, 2);
    maker_write(&m, MODEL);
    maker_free(&m);
    expect_failure(MODEL, "llama.attention.head_count: layer 1: expected 1 to 2147483647, found 0", "no heads");
    m = maker_new();
    maker_llama(&m, &s);
    maker_u32(&m, "llama.block_count", 9);
    maker_u32(&m, "llama.attention.key_length", 8);
    maker_u32(&m, "llama.attention.value_length", 8);
    put_numbers(&m, "llama.attention.head_count", G_I32, nine, 9);
    put_numbers(&m, "llama.attention.head_count_kv", G_I32, one, 9);
    maker_write(&m, MODEL);
    maker_free(&m);
    expect_failure(MODEL, "layer 8: expected at most 8 kinds of layers, found more", "nine kinds");
}

// A layer with one window among others, by a bool for each layer.
static void windows_of_layers(void) {
    BinSpec s = {32, 24, 2, 4, 2, 20, 10, .tied = true, .seed = 5};
    char err[512] = "";
    Maker m = maker_new();
    Model model;
    maker_llama(&m, &s);
    maker_u32(&m, "llama.attention.sliding_window", 3);
    put_numbers(&m, "llama.attention.sliding_window_pattern", G_BOOL, (const int32_t[]){0, 1}, 2);
    maker_write(&m, MODEL);
    maker_free(&m);
    int rc = load_model(&model, MODEL, err, sizeof err);
    CHECK(!rc, "%s", err);
    if (rc) return;
    CHECK(config_kind(&model.config, 0)->window == 0 && config_kind(&model.config, 1)->window == 3, "windows");
    weights_free(&model.weights);
}

// The window of a family whose files may not say it.
static void absent_window(void) {
    BinSpec s = {32, 24, 2, 4, 2, 20, 10, .tied = true, .seed = 5};
    for (int said = 0; said < 2; said++) {
        char err[512] = "";
        Maker m = maker_new();
        Model model;
        maker_settings(&m, &s);
        maker_tensors(&m, &s);
        for (ptrdiff_t i = 0; i < arrlen(m.pairs); i++) { // llama.* become gemma2.*
            char rest[80];
            if (strncmp(m.pairs[i].key, "llama.", 6) != 0) continue;
            strcpy(rest, m.pairs[i].key + 6);
            snprintf(m.pairs[i].key, sizeof m.pairs[i].key, "gemma2.%.70s", rest);
        }
        maker_text(&m, "general.architecture", "gemma2");
        if (said) maker_u32(&m, "gemma2.attention.sliding_window", 7);
        maker_write(&m, MODEL);
        maker_free(&m);
        int rc = load_model(&model, MODEL, err, sizeof err);
        CHECK(!rc, "%s", err);
        if (rc) continue;
        CHECK(config_kind(&model.config, 0)->window == (said ? 7 : 4096), "window %d",
              config_kind(&model.config, 0)->window);
        CHECK(!config_kind(&model.config, 1)->window, "a window of every layer");
        weights_free(&model.weights);
    }
}

// The table of tokens as embedding, as classifier, or as both.
static void tables_of_tokens(void) {
    BinSpec s = {32, 24, 2, 4, 2, 20, 10, .tied = true, .seed = 5};
    int vocab = 0;
    float *found[3];
    for (int i = 0; i < 3; i++) {
        Maker m = maker_new();
        maker_llama(&m, &s);
        if (i == 1) strcpy(maker_tensor(&m, "token_embd.weight")->name, "output.weight");
        if (i == 2) copy_tensor(&m, maker_tensor(&m, "token_embd.weight"), "output.weight");
        found[i] = made_logits(&m, &vocab);
    }
    for (int i = 1; i < 3; i++) {
        CHECK(found[0] && found[i] && !memcmp(found[0], found[i], sizeof **found * 8 * (size_t)vocab), "way %d", i);
    }
    for (int i = 0; i < 3; i++) free(found[i]);
}

// Files beside a model, and what they are told to be.
static void beside_models(void) {
    static const char *const files[][2] = {{"adapter", "a LoRA adapter"},
                                           {"mmproj", "the part of a model that reads pictures"},
                                           {"imatrix", "an importance matrix"},
                                           {"vocab", "a vocabulary without a model: build/tokenize"}};
    for (int i = 0; i < N_OF(files); i++) {
        Maker m = maker_new();
        maker_text(&m, "general.type", files[i][0]);
        maker_write(&m, MODEL);
        maker_free(&m);
        expect_failure(MODEL, files[i][1], files[i][0]);
    }
}

// ---- vocabularies

static Tokenizer *made_vocab(Maker *m, int vocab_size) {
    char err[512] = "";
    Vocab v;
    File f;
    maker_write(m, MODEL);
    maker_free(m);
    if (file_map(&f, MODEL, err, sizeof err)) return NULL;
    int rc = load_gguf_vocab(&v, &f, vocab_size, err, sizeof err);
    file_unmap(&f);
    CHECK(!rc, "%s", err);
    return rc ? NULL : tokenizer_new(&v, err, sizeof err);
}

static void expect_ids(const Tokenizer *t, const char *text, const char *want, const char *what) {
    char err[256] = "", found[200] = "";
    int32_t *ids = NULL;
    int n = t ? tokenizer_encode(t, text, strlen(text), TOKENIZE_BOS | TOKENIZE_SPECIAL, &ids, err, sizeof err) : -1;
    for (int i = 0; i < n; i++) snprintf(found + strlen(found), 12, "%s%d", i ? " " : "", ids[i]);
    CHECK(n >= 0 && !strcmp(found, want), "%s: '%s': expected [%s], found [%s] %s", what, text, want, found, err);
    free(ids);
}

// Of the made vocabulary, " " is 3, "a" is 4, "b" 5. Edits, what "<s>ab" becomes, and the note.
static void absent_in_vocabularies(void) {
    static const struct {
        const char *edit, *ids, *note;
        int eos;
    } cases[] = {
        {"u32 general.x 1", "1 1 3 4 5", "", 2},
        {"drop tokenizer.ggml.bos_token_id", "1 1 3 4 5", "", 2},
        {"drop tokenizer.ggml.unknown_token_id", "1 1 3 4 5", "", 2},
        {"drop tokenizer.ggml.eos_token_id", "1 1 3 4 5", "", 2},
        {"bool tokenizer.ggml.add_bos_token 1", "1 1 3 4 5", "", 2},
        {"bool tokenizer.ggml.add_bos_token 0", "1 3 4 5", "", 2},
        {"bool tokenizer.ggml.add_eos_token 0", "1 1 3 4 5", "", 2},
        {"bool tokenizer.ggml.add_eos_token 1", "1 1 3 4 5 2", "", 2},
        {"bool tokenizer.ggml.add_space_prefix 1", "1 1 3 4 5", "", 2},
        {"bool tokenizer.ggml.add_space_prefix 0", "1 1 4 5", "", 2},
        {"drop tokenizer.ggml.token_type", "1 1 3 4 5", "tokenizer.ggml.token_type is absent", 2},
        {"drop tokenizer.ggml.scores", "1 1 3 4 5", "tokenizer.ggml.scores is absent", 2},
        {"token 4 0 -4", "1 1 3 4 5", "", 2},
        {"u32 tokenizer.ggml.eos_token_id 20", "1 1 3 4 5", "eos_token_id is 20, but there are 20 tokens", -1},
        {"u32 tokenizer.ggml.bos_token_id 4000000", "1 3 4 5", "bos_token_id is 4000000, but", 2},
        {"u32 tokenizer.ggml.eot_token_id 99", "1 1 3 4 5", "eot_token_id is 99, but", 2},
    };
    for (int i = 0; i < N_OF(cases); i++) {
        Maker m = maker_new();
        size_t more = 0;
        maker_vocab(&m, 20);
        char *edit = strdup(cases[i].edit);
        set_token(&m, 4, "a", 1, -4);
        if (!strncmp(edit, "token ", 6)) set_token(&m, 4, "a", 0, -4);
        else gguf_edit(&m, edit, &more);
        Tokenizer *t = made_vocab(&m, 0);
        expect_ids(t, "<s>ab", cases[i].ids, edit);
        if (t) {
            const char *notes = tokenizer_notes(t)->text;
            CHECK(*cases[i].note ? strstr(notes, cases[i].note) != NULL : !*notes, "%s: notes '%s'", edit, notes);
            CHECK(tokenizer_eos(t) == cases[i].eos, "%s: eos %d", edit, tokenizer_eos(t));
        }
        tokenizer_free(t);
        free(edit);
    }
}

// Without tokenizer.ggml.pre: as "default" says, three digits at a time, and not as "gpt-2" does.
static void absent_pre(void) {
    static const char *const texts[] = {"!", "1", "11"};
    static const struct { const char *pre, *ids; } cases[] = {{NULL, "5 4 4"}, {"default", "5 4 4"}, {"gpt-2", "5 5"}};
    for (int i = 0; i < N_OF(cases); i++) {
        Maker m = maker_kind("gpt2", N_OF(texts), texts);
        array_put_text(maker_array(&m, "tokenizer.ggml.merges", G_STRING), "1 1");
        if (cases[i].pre) maker_text(&m, "tokenizer.ggml.pre", cases[i].pre);
        Tokenizer *t = made_vocab(&m, 0);
        expect_ids(t, "1111", cases[i].ids, cases[i].pre ? cases[i].pre : "absent");
        if (t) CHECK(!cases[i].pre == !!strstr(tokenizer_notes(t)->text, "is a guess"), "notes of %s", cases[i].pre);
        tokenizer_free(t);
    }
}

// More tokens than the model has: the last are text.
static void larger_vocabulary(void) {
    Maker m = maker_new();
    maker_vocab(&m, 20);
    set_token(&m, 19, "ab", 4, -1);
    Tokenizer *t = made_vocab(&m, 0);
    expect_ids(t, "ab", "1 19", "all of it");
    tokenizer_free(t);
    m = maker_new();
    maker_vocab(&m, 20);
    set_token(&m, 19, "ab", 4, -1);
    t = made_vocab(&m, 19);
    expect_ids(t, "ab", "1 3 4 5", "for a model with 19");
    if (t) CHECK(strstr(tokenizer_notes(t)->text, "has 20 tokens, the model 19"), "%s", tokenizer_notes(t)->text);
    tokenizer_free(t);
}

int main(void) {
    without_rounding();
    RUN_AT_LEVELS(kind_equals_floats);
    RUN(mixed_kinds);
    RUN(long_rows);
    RUN(plain_model);
    RUN(settings_of_every_type);
    RUN(vocabulary_rules);
    RUN(escaped_bytes);
    RUN(other_kinds);
    RUN(split_files);
    RUN(bad_split_files);
    RUN(engine_chooses);
    RUN(real_story);
    RUN(real_tiny_stories);
    RUN(real_pieces);
    RUN(absent_settings);
    RUN(equal_numbers);
    RUN(heads_of_a_layer);
    RUN(layers_that_cannot_differ);
    RUN(windows_of_layers);
    RUN(absent_window);
    RUN(tables_of_tokens);
    RUN(beside_models);
    RUN(absent_in_vocabularies);
    RUN(absent_pre);
    RUN(larger_vocabulary);
    return test_report();
}
