// check_gguf: the GGUF reader. One model in every tensor type against the same values as F32, bit by bit; real files
// against the same models in other containers, and real vocabularies against known ids; split files; settings of every
// type; crafted hostile files, made here; every truncation of a small one.
#include "reference.h"

#include "decoder.h"

#include "load.h"
#include "make_gguf.h"
#include "ops.h"
#include "quant.h"
#include "tessera.h"

#include <unistd.h>

#define MODEL BIN_DIR "model.gguf"
#define OTHER BIN_DIR "other.gguf"
#define STORIES SHARED_DATA "stories260K/"
#define TINY SHARED_DATA "tinystories-656k-gguf/TinyStories-656K.f16.gguf"
#define TINY_HF SHARED_DATA "tinystories-656k-hf"
#define VOCAB SHARED_DATA "vocab/ggml-vocab-"

// ---- logits of a model in every type

static const struct {
    uint32_t number;
    DType dtype;
    int d_at, m_at; // bytes where a block's F16 scales stand; -1: none
    float d, m;     // what they are about, for values like those of a model
} kinds[] = {
    {0, DTYPE_F32, -1, -1, 0, 0},
    {1, DTYPE_F16, -1, -1, 0, 0},
    {30, DTYPE_BF16, -1, -1, 0, 0},
    {2, DTYPE_Q4_0, 0, -1, 0.013f, 0},
    {3, DTYPE_Q4_1, 0, 2, 0.013f, -0.1f},
    {6, DTYPE_Q5_0, 0, -1, 0.0065f, 0},
    {7, DTYPE_Q5_1, 0, 2, 0.0065f, -0.1f},
    {8, DTYPE_Q8_0, 0, -1, 0.0008f, 0},
    {10, DTYPE_Q2_K, 80, 82, 0.005f, 0.0075f},
    {11, DTYPE_Q3_K, 108, -1, 0.0015f, 0},
    {12, DTYPE_Q4_K, 0, 2, 0.0002f, 0.0015f},
    {13, DTYPE_Q5_K, 0, 2, 0.0001f, 0.0015f},
    {14, DTYPE_Q6_K, 208, -1, 0.00005f, 0},
    {39, DTYPE_MXFP4, -1, -1, 0, 0},
};

static void put_half(uint8_t *at, float f) {
    uint16_t h = f16_from_f32(f * (1 + 0.25f * test_uniform()));
    memcpy(at, &h, 2);
}

// Turn F32 data into one of the kinds: floats are rounded, blocks are random.
static void to_kind(MakeTensor *t, int kind) {
    const DTypeInfo *info = dtype_info(kinds[kind].dtype);
    size_t n = arrlenu(t->data.at) / sizeof(float), bytes = n / (size_t)info->block * (size_t)info->block_bytes;
    const float *v = (const float *)(const void *)t->data.at;
    uint8_t *out = NULL;
    arrsetlen(out, bytes);
    for (size_t i = 0; i < bytes; i++) out[i] = (uint8_t)test_u32();
    for (size_t i = 0; i < n / (size_t)info->block; i++) {
        uint8_t *b = out + i * (size_t)info->block_bytes;
        uint16_t half = kinds[kind].dtype == DTYPE_F16 ? f16_from_f32(v[i]) : bf16_from_f32(v[i]);
        if (kinds[kind].d_at >= 0) put_half(b + kinds[kind].d_at, kinds[kind].d);
        if (kinds[kind].m_at >= 0) put_half(b + kinds[kind].m_at, kinds[kind].m);
        if (kinds[kind].dtype == DTYPE_MXFP4) b[0] = (uint8_t)(120 + pick(3));
        if (info->block_bytes == 2) memcpy(b, &half, 2);
        if (info->block_bytes == 4) memcpy(b, &v[i], 4);
    }
    arrfree(t->data.at);
    t->data.at = out;
    t->type = kinds[kind].number;
}

// The same values as F32.
static void to_floats(MakeTensor *t, int kind) {
    const DTypeInfo *info = dtype_info(kinds[kind].dtype);
    size_t n_blocks = arrlenu(t->data.at) / (size_t)info->block_bytes, n = n_blocks * (size_t)info->block;
    float *v = NULL;
    arrsetlen(v, n);
    if (info->unpack) info->unpack(v, t->data.at, (int64_t)n_blocks);
    for (size_t i = 0; i < n && !info->unpack; i++) {
        uint16_t half;
        memcpy(&half, t->data.at + i * (size_t)info->block_bytes, 2);
        if (info->block_bytes == 4) memcpy(&v[i], t->data.at + i * 4, 4);
        else v[i] = kinds[kind].dtype == DTYPE_F16 ? f32_from_f16(half) : f32_from_bf16(half);
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
    BinSpec spec = {.dim = 256,
                    .hidden_dim = 512,
                    .n_layers = 1,
                    .n_heads = 4,
                    .n_kv_heads = 2,
                    .vocab_size = 270,
                    .seq_len = 64,
                    .seed = 3};
    int32_t text[N_TEXT];
    for (int i = 0; i < N_TEXT; i++) text[i] = pick(spec.vocab_size);
    for (int kind = 0; kind < N_OF(kinds); kind++) {
        const char *name = dtype_name(kinds[kind].dtype);
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
        for (int step = 1; step <= N_TEXT; step += N_TEXT - 1) { // decode, and prefill
            int vocab = 0;
            float *a = logits_of(MODEL, NULL, text, N_TEXT, step, 1, &vocab), *c;
            float *b = logits_of(OTHER, NULL, text, N_TEXT, step, 2, &vocab);
            c = logits_of(MODEL, NULL, text, N_TEXT, step, 3, &vocab);
            if (!a || !b || !c) return;
            size_t bytes = sizeof(float) * N_TEXT * (size_t)vocab;
            double off = nmse_f32(a, b, N_TEXT * vocab);
            bool quantized = kind > 2 && kernels()->quantize; // the vectors too, where few tokens are computed
            CHECK(off < (quantized ? 2e-8 : 1e-11) && !memcmp(a, c, bytes), "%s, %d at a time: NMSE %g", name, step,
                  off);
            if (kind > 2 && !quantized) CHECK(!memcmp(a, b, bytes), "%s, %d at a time: other bits", name, step);
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
    BinSpec spec = {.dim = 256, .hidden_dim = 768, .n_layers = 3, .n_heads = 8, .n_kv_heads = 1, .vocab_size = 300};
    spec.seq_len = 64, spec.seed = 4;
    int32_t text[N_TEXT];
    for (int i = 0; i < N_TEXT; i++) text[i] = pick(spec.vocab_size);
    Maker m = maker_new();
    maker_llama(&m, &spec);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < (int)arrlen(m.tensors); i++) {
            if (m.tensors[i].n_dims > 1) (pass ? to_floats : to_kind)(&m.tensors[i], i * 5 % N_OF(kinds));
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

static void every_kind_equals_floats(void) {
    at_every_rung(kind_equals_floats);
}

// Rows longer than what is unpacked at a time, alone and several, with a bias, few tokens and many.
static void long_rows(void) {
    enum { ROWS = 7, COLS = 4096 * 2 + 256 };
    char err[256] = "";
    Compute c;
    CHECK(!compute_open(&c, 2, err, sizeof err), "%s", err); // without room for quantized vectors
    static const int n_tokens[] = {1, 2, 9};
    for (int kind = 3; kind < N_OF(kinds); kind++) {
        MakeTensor t = {.n_dims = 2};
        for (int i = 0; i < ROWS * COLS; i++) bytes_put(&t.data, &(float){0}, sizeof(float));
        to_kind(&t, kind);
        Tensor blocks = {.dtype = kinds[kind].dtype, .n_dims = 2, .shape = {ROWS, COLS}, .data = t.data.at};
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
            CHECK(off < 1e-11, "%s, %d tokens: NMSE %g", info->name, n, off);
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

static int32_t *greedy(const char *path, const char *tokenizer, int n, char *text, size_t room) {
    char err[512] = "";
    Engine *e = engine_open(path, tokenizer, err, sizeof err);
    CHECK(e, "%s", err);
    if (!e) return NULL;
    Session *s = session_open(e, &(SessionOptions){.n_threads = 1}, err, sizeof err);
    Sampler *sampler = sampler_open(&(SamplerOptions){0}, engine_info(e).vocab_size, err, sizeof err);
    TextOut *out = textout_open(e, true);
    int32_t *tokens = need(sizeof *tokens * (size_t)(n + 1));
    tokens[0] = engine_info(e).bos_id;
    text[0] = 0;
    for (int i = 0; i < n; i++) {
        CHECK(!session_sync(s, tokens, i + 1, err, sizeof err), "%s", err);
        tokens[i + 1] = sampler_pick(sampler, session_logits(s));
        snprintf(text + strlen(text), room - strlen(text), "%s", textout_push(out, tokens[i + 1]));
    }
    textout_close(out);
    sampler_close(sampler);
    session_close(s);
    engine_close(e);
    return tokens;
}

static const char known_story[] =
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball. She wanted to play with it, but it was too high.\nLily's mom said, \"Lily, let's go to the park.\" "
    "Lily was sad and didn't know what to do. She said, \"I want to play with your ball, but I can't find it.\"\nLily "
    "was sad and didn't know what to do. She said, \"I'm sorry, Lily. I didn't know what to do.\"\nLily didn't want to "
    "help her mom, so she";

// Two containers of one model: which tensors are the same to the bit, and that the others are to rounding.
static void real_story(void) {
    SKIP_WITHOUT(STORIES "stories260K.gguf");
    char text[2000], err[512] = "";
    free(greedy(STORIES "stories260K.gguf", NULL, 200, text, sizeof text));
    CHECK(!strcmp(text, known_story), "found '%s'", text);
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

static void real_story_logits(void) {
    SKIP_WITHOUT(STORIES "stories260K.gguf");
    char text[2000];
    int32_t *tokens = greedy(STORIES "stories260K.gguf", NULL, 200, text, sizeof text);
    for (int step = 1; step <= 200; step += 199) {
        int vocab = 0;
        float *a = logits_of(STORIES "stories260K.gguf", NULL, tokens, 200, step, 2, &vocab);
        float *b = logits_of(STORIES "stories260K.bin", STORIES "tok512.bin", tokens, 200, step, 2, &vocab);
        if (a && b) {
            double off = nmse_f32(a, b, 200 * vocab);
            CHECK(off < 1e-11, "%d at a time: NMSE %g", step, off);
        }
        free(a);
        free(b);
    }
    free(tokens);
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

static const char *hf_name(char out[100], const char *name) {
    static const char *const pairs[][2] = {
        {"attn_norm", "input_layernorm"},         {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},           {"attn_output", "self_attn.o_proj"}, {"ffn_gate", "mlp.gate_proj"},
        {"ffn_norm", "post_attention_layernorm"}, {"ffn_up", "mlp.up_proj"},           {"ffn_down", "mlp.down_proj"}};
    int layer;
    char part[40];
    if (!strcmp(name, "token_embd.weight")) return "model.embed_tokens.weight";
    if (!strcmp(name, "output_norm.weight")) return "model.norm.weight";
    if (sscanf(name, "blk.%d.%39[^.]", &layer, part) != 2) return "?";
    for (int i = 0; i < N_OF(pairs); i++) {
        if (!strcmp(part, pairs[i][0])) snprintf(out, 100, "model.layers.%d.%s.weight", layer, pairs[i][1]);
    }
    return out;
}

static void real_tiny_stories(void) {
    SKIP_WITHOUT(TINY);
    SKIP_WITHOUT(TINY_HF "/model.safetensors");
    char err[512] = "", text[2000];
    Model m;
    Weights hf;
    if (!model_open(&m, TINY)) return;
    const Config *c = &m.config;
    CHECK(c->dim == 128 && c->hidden_dim == 384 && c->n_layers == 2 && c->n_heads == 8 && c->n_kv_heads == 4 &&
              c->head_dim == 16 && c->vocab_size == 2048 && c->max_seq_len == 512 && c->tied && !c->window &&
              c->norm_eps == 1e-6f && c->rope_theta == 10000 && c->rope_pairing == ROPE_NEIGHBOUR,
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
    free(greedy(TINY, NULL, 60, text, sizeof text));
    CHECK(strstr(text, "Once upon a time"), "found '%s'", text);
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

static char *slurp(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    char *text = calloc(1, 1 << 16);
    if (fread(text, 1, (1 << 16) - 1, f) == 0) text[0] = 0;
    fclose(f);
    return text;
}

// The known ids of each sentence, a line each; the sentences are divided by a mark.
static void check_ids(const char *vocab, const char *inputs, const char *outputs) {
    static const char mark[] = "\n__ggml_vocab_test__\n";
    Tokenizer *w = words_open(vocab);
    char *all = slurp(inputs), *lines = slurp(outputs), *in = all, *line = lines, err[256];
    int n_cases = 0;
    for (char *end; w && in && line && (end = strchr(line, '\n')); line = end + 1, n_cases++) {
        char *in_end = strstr(in, mark);
        int32_t *ids;
        int n = tokenizer_encode(w, in, in_end ? (size_t)(in_end - in) : strlen(in), 0, &ids, err, sizeof err), i = 0;
        for (char *p = line, *next;; p = next, i++) {
            long id = strtol(p, &next, 10);
            if (next == p || next > end) break;
            CHECK(i < n && ids[i] == id, "%s: case %d, id %d: expected %ld, found %d", vocab, n_cases, i, id,
                  i < n ? ids[i] : -1);
        }
        CHECK(i == n, "%s: case %d: expected %d ids, found %d", vocab, n_cases, i, n);
        free(ids);
        if (in_end) in = in_end + strlen(mark);
    }
    CHECK(n_cases == 46, "%s: %d cases", vocab, n_cases);
    free(all);
    free(lines);
    tokenizer_free(w);
}

static void real_vocabularies(void) {
    SKIP_WITHOUT(VOCAB "llama-spm.gguf");
    check_ids(VOCAB "llama-spm.gguf", VOCAB "llama-spm.gguf.inp", VOCAB "llama-spm.gguf.out");
    check_ids(VOCAB "phi-3.gguf", VOCAB "phi-3.gguf.inp", VOCAB "phi-3.gguf.out"); // also a SentencePiece one
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

static void expect_ids(const Tokenizer *w, const char *text, unsigned flags, const int32_t *want, int n_want) {
    char err[256] = "";
    int32_t *ids;
    int n = tokenizer_encode(w, text, strlen(text), flags, &ids, err, sizeof err);
    CHECK(n == n_want && !memcmp(ids, want, sizeof *want * (size_t)n_want), "'%s' (%u): %d ids, first %d", text, flags,
          n, n > 0 ? ids[0] : -1);
    free(ids);
}

static Tokenizer *words_made(Maker *m) {
    size_t n;
    uint8_t *bytes = maker_bytes(m, &n);
    Tokenizer *w = words_from(bytes, n);
    free(bytes);
    return w;
}

static void drop_pair(Maker *m, const char *key) {
    MakePair *p = maker_pair(m, key);
    if (!p) return;
    arrfree(p->payload.at);
    arrdel(m->pairs, p - m->pairs);
}

static void set_token(Maker *m, int id, const char *text, int32_t type, float score) {
    MakePair *tokens = maker_pair(m, "tokenizer.ggml.tokens");
    Bytes old = tokens->payload, fresh = {0};
    const uint8_t *at = old.at;
    for (uint64_t i = 0, n; i < tokens->count; i++, at += 8 + n) {
        memcpy(&n, at, 8);
        if ((int)i == id) bytes_put_text(&fresh, text, strlen(text));
        else bytes_put(&fresh, at, 8 + n);
    }
    arrfree(old.at);
    tokens->payload = fresh;
    memcpy(maker_pair(m, "tokenizer.ggml.token_type")->payload.at + 4 * id, &type, 4);
    memcpy(maker_pair(m, "tokenizer.ggml.scores")->payload.at + 4 * id, &score, 4);
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
    expect_ids(w, "ab", TOKENIZE_BOS, IDS(1, 3, 4, 5));
    expect_ids(w, "b a b", 0, IDS(3, 5, 10, 3, 5));         // a user-defined token is found with any flags
    expect_ids(w, "</s>b", TOKENIZE_SPECIAL, IDS(2, 3, 5)); // a control token is not
    expect_ids(w, "</s>b", 0, IDS(3, 0, 5));                // no byte tokens: unknown, one for all in a row
    expect_ids(w, "bc", 0, IDS(3, 5, 6));                   // unused: never made from text
    expect_ids(w, "", TOKENIZE_BOS, IDS(1));
    tokenizer_free(w);

    maker_bool(&m, "tokenizer.ggml.add_bos_token", 0);
    maker_bool(&m, "tokenizer.ggml.add_space_prefix", 0);
    maker_u32(&m, "tokenizer.ggml.eos_token_id", UINT32_MAX); // none
    maker_u32(&m, "tokenizer.ggml.unknown_token_id", UINT32_MAX);
    w = words_made(&m);
    if (!w) return;
    CHECK(tokenizer_bos(w) == 1 && tokenizer_eos(w) == -1, "bos, eos");
    expect_ids(w, "ab?", TOKENIZE_BOS, IDS(4, 5));
    expect_ids(w, "", TOKENIZE_BOS, IDS(1)); // a text must begin with something
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
    expect_ids(w, "a b", 0, IDS(3 + ' ', 260, 3 + ' ', 261));
    expect_ids(w, "\xE2\x96\x81", 0, IDS(3 + ' ', 3 + ' ')); // U+2581 is how SentencePiece writes a space
    expect_ids(w, "\xE2\x96\x82", 0, IDS(3 + ' ', 3 + 0xE2, 3 + 0x96, 3 + 0x82));
    tokenizer_free(w);
    maker_free(&m);
}

// Kinds of vocabulary beside SentencePiece's BPE, over tokens 3 .. of the made one.
static Maker maker_kind(const char *model, int n, const char *const *texts) {
    Maker m = maker_new();
    maker_vocab(&m, 3 + n);
    for (int i = 0; i < n; i++) set_token(&m, 3 + i, texts[i], 1, (float)-i - 1);
    maker_text(&m, "tokenizer.ggml.model", model);
    return m;
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
    if (w) expect_ids(w, "ab ab", TOKENIZE_BOS, IDS(6, 7)); // no BOS unless the file says so
    tokenizer_free(w);
    maker_bool(&m, "tokenizer.ggml.add_bos_token", 1);
    maker_bool(&m, "tokenizer.ggml.add_eos_token", 1);
    w = words_made(&m);
    if (w) expect_ids(w, "ab", TOKENIZE_BOS, IDS(1, 6, 2));
    tokenizer_free(w);
    maker_free(&m);

    m = maker_kind("t5", 4, t5);
    maker_u32(&m, "tokenizer.ggml.eos_token_id", 2);
    w = words_made(&m);
    if (w) expect_ids(w, "  x   b ", TOKENIZE_BOS, IDS(5, 3, 6, 2)); // squeezed, then the prefix; </s> behind
    tokenizer_free(w);
    maker_free(&m);

    m = maker_kind("bert", 4, bert);
    maker_u32(&m, "tokenizer.ggml.cls_token_id", 1);
    maker_u32(&m, "tokenizer.ggml.seperator_token_id", 2);
    w = words_made(&m);
    if (w) expect_ids(w, "UnWanted! x", TOKENIZE_BOS, IDS(1, 3, 4, 5, 6, 0, 2));
    tokenizer_free(w);
    maker_free(&m);
}

static void bad_steps(void) {
    static const struct {
        const char *model, *merge, *pre, *want;
        int n_charsmap;
    } cases[] = {
        {"gpt2", "a c", "gpt-2", "merge 1: expected two tokens that make a third, found 'a c'", 0},
        {"gpt2", "ab", "gpt-2", "merge 1: expected two tokens", 0},
        {"gpt2", "", "gpt-2", "merge 1: expected two tokens", 0},
        {"gpt2", " b", "gpt-2", "merge 1: expected two tokens", 0},
        {"gpt2", "a ", "gpt-2", "merge 1: expected two tokens", 0},
        {"gpt2", "\xFF b", "gpt-2", "merge 1: expected two tokens", 0},
        {"gpt2", "a b", "my-own", "tokenizer.ggml.pre: expected a known pre-tokenizer, found 'my-own'", 0},
        {"gpt2", "a b", "", "tokenizer.ggml.pre: expected a known pre-tokenizer, found ''", 0},
        {"t5", NULL, "default", "precompiled_charsmap: charsmap: expected an array", 3},
        {"t5", NULL, "default", "precompiled_charsmap: charsmap: expected an array", 9},
    };
    static const char *const texts[] = {"a", "b", "ab"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Maker m = maker_kind(cases[i].model, 3, texts);
        char err[512] = "";
        maker_text(&m, "tokenizer.ggml.pre", cases[i].pre);
        MakePair *merges = maker_array(&m, "tokenizer.ggml.merges", G_STRING);
        array_put_text(merges, "a b");
        if (cases[i].merge) array_put_text(merges, cases[i].merge);
        if (cases[i].n_charsmap) {
            MakePair *map = maker_array(&m, "tokenizer.ggml.precompiled_charsmap", G_U8);
            for (int k = 0; k < cases[i].n_charsmap; k++) array_put(map, "\xFF", 1);
        }
        size_t n;
        uint8_t *bytes = maker_bytes(&m, &n);
        Vocab v;
        File f = {.path = (char[]){"memory.gguf"}, .data = bytes, .size = n, .borrowed = true};
        int rc = load_gguf_vocab(&v, &f, 0, err, sizeof err);
        CHECK(rc == -1 && !v.pieces && !v.pretokenizer && strstr(err, cases[i].want), "%zu: expected '%s', found '%s'",
              i, cases[i].want, err);
        free(bytes);
        maker_free(&m);
    }
}

// ---- containers that are right

static BinSpec small_spec(void) {
    return (BinSpec){.dim = 32,
                     .hidden_dim = 24,
                     .n_layers = 2,
                     .n_heads = 4,
                     .n_kv_heads = 2,
                     .vocab_size = 20,
                     .seq_len = 10,
                     .tied = true,
                     .seed = 5};
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
        CHECK(c.dim == 32 && c.hidden_dim == 24 && c.n_layers == 2 && c.n_heads == 4 && c.n_kv_heads == 2 &&
                  c.head_dim == 8 && c.vocab_size == 20 && c.max_seq_len == 10 && c.tied == s.tied &&
                  c.rope_theta == 10000 && c.norm_eps == 1e-5f,
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
    CHECK(c.window == 7 && c.max_seq_len == 300 && c.rope_theta == 500000 && c.head_dim == 8, "wrong config");
    maker_free(&m);

    m = maker_new(); // what may be absent
    maker_llama(&m, &s);
    for (ptrdiff_t i = arrlen(m.pairs) - 1; i >= 0; i--) {
        if (strstr(m.pairs[i].key, "rope") || strstr(m.pairs[i].key, "general.name")) {
            drop_pair(&m, m.pairs[i].key);
        }
    }
    CHECK(!load_maker(&m, &c, err, sizeof err), "%s", err);
    CHECK(c.rope_theta == 10000 && c.head_dim == 8, "wrong config");
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
            const MakeTensor *from = &all.tensors[given];
            MakeTensor *t = maker_add_tensor(&part, from->name, 0, from->dims[0], from->n_dims > 1 ? from->dims[1] : 0);
            bytes_put(&t->data, from->data.at, arrlenu(from->data.at));
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
        const MakeTensor *old = &all.tensors[t];
        MakeTensor *fresh = maker_add_tensor(&part, old->name, 0, old->dims[0], old->n_dims > 1 ? old->dims[1] : 0);
        bytes_put(&fresh->data, old->data.at, arrlenu(old->data.at));
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
    expect_failure(second, "general.architecture: expected, not found", "the second named");
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

// ---- hostile files

typedef struct {
    const char *what;
    const char *edit; // see apply_edit; NULL: none
    Field field;      // what is written otherwise
    const char *name;
    int index;
    uint64_t value;
    const char *want;
    bool vocab; // ask for the vocabulary, not the model
} Bad;

#define HUGE 0xFFFFFFFFFFFFFFFFu
#define Q_NAME "blk.1.attn_q.weight"

// clang-format off
static const Bad bad_files[] = {
    {"another magic", 0, F_MAGIC, "", 0, 0x46554746, "at byte 0: not a GGUF file: expected the magic GGUF", 0},
    {"version 1", 0, F_VERSION, "", 0, 1, "at byte 4: version: expected 2 or 3, found 1", 0},
    {"version 4", 0, F_VERSION, "", 0, 4, "at byte 4: version: expected 2 or 3, found 4", 0},
    {"big-endian", 0, F_VERSION, "", 0, 0x03000000, "version: expected 2 or 3, found 50331648", 0},
    {"2^64 - 1 tensors", 0, F_N_TENSORS, "", 0, HUGE, "at byte 8: number of tensors: expected at most", 0},
    {"a tensor less", 0, F_N_TENSORS, "", 0, 19, "bytes follow the last tensor", 0},
    {"a tensor more", 0, F_N_TENSORS, "", 0, 21, "tensor name", 0},
    {"2^63 settings", 0, F_N_PAIRS, "", 0, 1ull << 63, "at byte 16: number of settings: expected at most", 0},
    {"a setting more", 0, F_N_PAIRS, "", 0, 19, "expected", 0},
    {"a key of no bytes", 0, F_KEY_LENGTH, "llama.block_count", 0, 0, "key: expected 1 to 65535 bytes without NUL, found 0", 0},
    {"a key over the file's end", 0, F_KEY_LENGTH, "llama.block_count", 0, 1 << 30, "key: expected 1073741824 bytes, found", 0},
    {"a key of 2^64 - 1 bytes", 0, F_KEY_LENGTH, "llama.block_count", 0, HUGE, "key: expected 18446744073709551615 bytes", 0},
    {"a key of more than 65535", 0, F_KEY_LENGTH, "general.name", 0, 70000, "key: expected", 0},
    {"a key twice", "again general.name", 0, 0, 0, 0, "general.name: expected once, found twice", 0},
    {"type 13", 0, F_TYPE, "general.name", 0, 13, "general.name: type: expected 0 to 12, found 13", 0},
    {"type 2^32 - 1", 0, F_TYPE, "general.name", 0, 0xFFFFFFFF, "general.name: type: expected 0 to 12, found 4294967295", 0},
    {"element type 99", 0, F_ELEMENT_TYPE, "tokenizer.ggml.scores", 0, 99, "tokenizer.ggml.scores: element type: expected 0 to 12, found 99", 0},
    {"an array of arrays", 0, F_ELEMENT_TYPE, "tokenizer.ggml.scores", 0, 9, "tokenizer.ggml.scores: expected no array of arrays", 0},
    {"2^62 elements of 4 bytes", 0, F_COUNT, "tokenizer.ggml.scores", 0, 1ull << 62, "tokenizer.ggml.scores: expected 18446744073709551615 bytes", 0},
    {"2^40 texts", 0, F_COUNT, "tokenizer.ggml.tokens", 0, 1ull << 40, "tokenizer.ggml.tokens: expected", 0},
    {"a text over the file's end", 0, F_LENGTH, "tokenizer.ggml.tokens", 3, 1ull << 33, "tokenizer.ggml.tokens: expected 8589934592 bytes", 0},
    {"a text of 2^64 - 1 bytes", 0, F_LENGTH, "general.name", 0, HUGE, "general.name: expected 18446744073709551615 bytes", 0},
    {"alignment 0", "u32 general.alignment 0", 0, 0, 0, 0, "general.alignment: expected 8 to 1048576, found 0", 0},
    {"alignment 4", "u32 general.alignment 4", 0, 0, 0, 0, "general.alignment: expected 8 to 1048576, found 4", 0},
    {"alignment 48", "u32 general.alignment 48", 0, 0, 0, 0, "general.alignment: expected a power of two, found 48", 0},
    {"alignment 2^31", "u32 general.alignment 2147483648", 0, 0, 0, 0, "general.alignment: expected 8 to", 0},
    {"alignment as text", "text general.alignment 32", 0, 0, 0, 0, "general.alignment: expected a whole number, found string", 0},
    {"no architecture", "drop general.architecture", 0, 0, 0, 0, "general.architecture: expected, not found", 0},
    {"another architecture", "text general.architecture abacus", 0, 0, 0, 0, "(no other is supported), found 'abacus'", 0},
    {"architecture as a number", "u32 general.architecture 1", 0, 0, 0, 0, "general.architecture: expected a text, found u32", 0},
    {"no layers", "u32 llama.block_count 0", 0, 0, 0, 0, "llama.block_count: expected 1 to 2147483647, found 0", 0},
    {"2^31 layers", "u32 llama.block_count 2147483648", 0, 0, 0, 0, "llama.block_count: expected 1 to 2147483647, found 2147483648", 0},
    {"5000 layers", "u32 llama.block_count 5000", 0, 0, 0, 0, "n_layers: expected 1 to 1024, found 5000", 0},
    {"a layer less", "u32 llama.block_count 1", 0, 0, 0, 0, "tensor blk.1.attn_norm.weight: expected none that this architecture does not use", 0},
    {"layers as an array", "numbers llama.block_count", 0, 0, 0, 0, "llama.block_count: expected a whole number, found an array of u32", 0},
    {"layers as a float", "f32 llama.block_count 2", 0, 0, 0, 0, "llama.block_count: expected a whole number, found f32", 0},
    {"no width", "u32 llama.embedding_length 0", 0, 0, 0, 0, "llama.embedding_length: expected 1 to", 0},
    {"no width said", "drop llama.embedding_length", 0, 0, 0, 0, "llama.embedding_length: expected, not found", 0},
    {"width 2^30", "u32 llama.embedding_length 1073741824", 0, 0, 0, 0, "dim: expected 1 to 1048576, found 1073741824", 0},
    {"no heads", "u32 llama.attention.head_count 0", 0, 0, 0, 0, "llama.attention.head_count: expected 1 to", 0},
    {"5 heads", "u32 llama.attention.head_count 5", 0, 0, 0, 0, "llama.attention.head_count: expected a divisor of llama.embedding_length = 32, found 5", 0},
    {"3 kv heads", "u32 llama.attention.head_count_kv 3", 0, 0, 0, 0, "n_kv_heads: expected a divisor of n_heads = 4, found 3", 0},
    {"no kv heads", "u32 llama.attention.head_count_kv 0", 0, 0, 0, 0, "llama.attention.head_count_kv: expected 1 to", 0},
    {"another value length", "u32 llama.attention.value_length 16", 0, 0, 0, 0, "llama.attention.value_length: expected 8 to 8, found 16", 0},
    {"an odd number of dimensions turns", "u32 llama.rope.dimension_count 5", 0, 0, 0, 0, "head_dim: expected an even number", 0},
    {"key length 2^20", "u32 llama.attention.key_length 1048576", 0, 0, 0, 0, "n_heads x head_dim: expected at most 1048576, found", 0},
    {"no context", "u32 llama.context_length 0", 0, 0, 0, 0, "llama.context_length: expected 1 to", 0},
    {"context 2^30", "u32 llama.context_length 1073741824", 0, 0, 0, 0, "seq_len: expected 1 to 268435456", 0},
    {"theta 0", "f32 llama.rope.freq_base 0", 0, 0, 0, 0, "rope_theta: expected a positive number, found 0", 0},
    {"theta NaN", "f32 llama.rope.freq_base nan", 0, 0, 0, 0, "rope_theta: expected a positive number, found", 0},
    {"theta infinite", "f32 llama.rope.freq_base inf", 0, 0, 0, 0, "rope_theta: expected a positive number, found inf", 0},
    {"eps 0", "f32 llama.attention.layer_norm_rms_epsilon 0", 0, 0, 0, 0, "norm_eps: expected between 0 and 1, found 0", 0},
    {"eps NaN", "f32 llama.attention.layer_norm_rms_epsilon nan", 0, 0, 0, 0, "norm_eps: expected between 0 and 1", 0},
    {"no eps", "drop llama.attention.layer_norm_rms_epsilon", 0, 0, 0, 0, "llama.attention.layer_norm_rms_epsilon: expected, not found", 0},
    {"experts", "u32 llama.expert_count 8", 0, 0, 0, 0, "llama.expert_used_count: expected, not found", 0},
    {"scaled RoPE of an unknown kind", "text llama.rope.scaling.type spiral", 0, 0, 0, 0, "llama.rope.scaling.type: expected none, linear, yarn or longrope (no other is supported), found 'spiral'", 0},
    {"RoPE shrunk", "f32 llama.rope.scale_linear 0.5", 0, 0, 0, 0, "RoPE scaling: expected a factor >= 1", 0},
    {"2^32 - 1 experts", "u32 llama.expert_count 4294967295", 0, 0, 0, 0, "llama.expert_count: expected 0 to 2147483647, found 4294967295", 0},
    {"4097 experts", "u32 llama.expert_count 4097;u32 llama.expert_used_count 1", 0, 0, 0, 0, "experts: expected 0 to 4096", 0},
    {"9 of 8 experts", "u32 llama.expert_count 8;u32 llama.expert_used_count 9", 0, 0, 0, 0, "experts of a token: expected 1 to 8, found 9", 0},
    {"none of 8 experts", "u32 llama.expert_count 8;u32 llama.expert_used_count 0", 0, 0, 0, 0, "llama.expert_used_count: expected 1 to", 0},
    {"experts without a router", "u32 llama.expert_count 8;u32 llama.expert_used_count 2", 0, 0, 0, 0, "tensor blk.0.ffn_gate_inp.weight: expected, not found", 0},
    {"a matrix of experts", "twin blk.1.ffn_up.weight blk.1.ffn_up_exps.weight", 0, 0, 0, 0, "tensor blk.1.ffn_up_exps.weight: expected none", 0},
    {"an expert's matrix", "twin blk.1.ffn_up.weight blk.1.ffn_up.0.weight", 0, 0, 0, 0, "tensor blk.1.ffn_up.0.weight: expected none", 0},
    {"a window of 2^31", "u32 llama.attention.sliding_window 2147483648", 0, 0, 0, 0, "llama.attention.sliding_window: expected 0 to 2147483647", 0},
    {"kv heads of each layer", "numbers llama.attention.head_count_kv", 0, 0, 0, 0, "llama.attention.head_count_kv: expected a whole number, found an array of u32", 0},
    {"no dimension turns", "u32 llama.rope.dimension_count 0", 0, 0, 0, 0, "llama.rope.dimension_count: expected 1 to", 0},
    {"more dimensions turn than there are", "u32 llama.rope.dimension_count 10", 0, 0, 0, 0, "an even number of its 8 dimensions to turn (RoPE turns pairs), found 10", 0},
    {"theta negative", "f32 llama.rope.freq_base -10000", 0, 0, 0, 0, "rope_theta: expected a positive number, found -10000", 0},
    {"linear by 0", "text llama.rope.scaling.type linear;f32 llama.rope.scaling.factor 0", 0, 0, 0, 0, "RoPE scaling: expected a factor >= 1", 0},
    {"linear by NaN", "text llama.rope.scaling.type linear;f32 llama.rope.scaling.factor nan", 0, 0, 0, 0, "RoPE scaling: expected a factor >= 1", 0},
    {"YaRN by minus 4", "text llama.rope.scaling.type yarn;f32 llama.rope.scaling.factor -4;f32 llama.rope.scaling.attn_factor 1", 0, 0, 0, 0, "RoPE scaling: expected a factor >= 1", 0},
    {"YaRN by infinity", "text llama.rope.scaling.type yarn;f32 llama.rope.scaling.factor inf", 0, 0, 0, 0, "RoPE scaling: expected a factor >= 1", 0},
    {"YaRN with borders the other way", "text llama.rope.scaling.type yarn;f32 llama.rope.scaling.yarn_beta_fast 0.5", 0, 0, 0, 0, "borders in order", 0},
    {"YaRN with a border that is none", "text llama.rope.scaling.type yarn;f32 llama.rope.scaling.yarn_beta_slow nan", 0, 0, 0, 0, "borders in order", 0},
    {"YaRN of magnitude infinite", "text llama.rope.scaling.type yarn;f32 llama.rope.scaling.attn_factor inf", 0, 0, 0, 0, "RoPE scaling: expected", 0},
    {"YaRN from no context", "text llama.rope.scaling.type yarn;u32 llama.rope.scaling.original_context_length 0", 0, 0, 0, 0, "original_context_length: expected 1 to", 0},
    {"YaRN of theta 1", "text llama.rope.scaling.type yarn;f32 llama.rope.freq_base 1", 0, 0, 0, 0, "RoPE scaling: expected", 0},
    {"LongRoPE without factors", "text llama.rope.scaling.type longrope", 0, 0, 0, 0, "tensor rope_factors_long.weight: expected, not found", 0},
    {"LongRoPE's factors for all dimensions", "text llama.rope.scaling.type longrope;twin output_norm.weight rope_factors_long.weight", 0, 0, 0, 0, "tensor rope_factors_long.weight: expected shape [4], found [32]", 0},
    {"a kind of scaling as a number", "u32 llama.rope.scaling.type 1", 0, 0, 0, 0, "llama.rope.scaling.type: expected a text, found u32", 0},
    {"settings of another architecture", "text general.architecture phi3", 0, 0, 0, 0, "phi3.embedding_length: expected, not found", 0},
    {"a tensor without a name", 0, F_NAME_LENGTH, Q_NAME, 0, 0, "tensor name: expected 1 to 64 bytes without NUL, found 0", 0},
    {"a name of 65 bytes", 0, F_NAME_LENGTH, Q_NAME, 0, 65, "tensor name: expected 1 to 64 bytes without NUL, found 65", 0},
    {"a name over the file's end", 0, F_NAME_LENGTH, Q_NAME, 0, HUGE, "tensor name: expected 18446744073709551615 bytes", 0},
    {"no dimensions", 0, F_N_DIMS, Q_NAME, 0, 0, "tensor blk.1.attn_q.weight: dimensions: expected 1 to 4, found 0", 0},
    {"5 dimensions", 0, F_N_DIMS, Q_NAME, 0, 5, "dimensions: expected 1 to 4, found 5", 0},
    {"2^32 - 1 dimensions", 0, F_N_DIMS, Q_NAME, 0, 0xFFFFFFFF, "dimensions: expected 1 to 4, found 4294967295", 0},
    {"a dimension of 0", 0, F_DIM, Q_NAME, 1, 0, "tensor blk.1.attn_q.weight: dimension: expected 1 or more, and a product below 2^63, found 0", 0},
    {"dimensions that wrap to 0", 0, F_DIM, Q_NAME, 1, 1ull << 59, "a product below 2^63, found 576460752303423488", 0},
    {"dimensions that wrap to 32", 0, F_DIM, Q_NAME, 1, (1ull << 59) + 1, "a product below 2^63", 0},
    {"a dimension of -1", 0, F_DIM, Q_NAME, 1, HUGE, "a product below 2^63, found 18446744073709551615", 0},
    {"bytes that wrap", 0, F_DIM, Q_NAME, 1, 1ull << 57, "tensor blk.1.attn_q.weight: its size does not fit 64 bits", 0},
    {"a larger tensor", 0, F_DIM, Q_NAME, 1, 33, "tensor blk.0.attn_k.weight: offset: expected 11136, the next multiple of 32, found 11008", 0},
    {"a tensor past the file", 0, F_DIM, "output_norm.weight", 0, 1 << 20, "tensor output_norm.weight: expected 4194304 bytes, found 128 before the end of the file", 0},
    {"rows and columns changed", "swap blk.1.ffn_up.weight", 0, 0, 0, 0, "tensor blk.1.ffn_up.weight: expected shape [24, 32], found [32, 24]", 0},
    {"type 4 is no longer", 0, F_TENSOR_TYPE, Q_NAME, 0, 4, "tensor blk.1.attn_q.weight: type: expected one of F32", 0},
    {"type 16 (IQ)", 0, F_TENSOR_TYPE, Q_NAME, 0, 16, "MXFP4, found number 16", 0},
    {"type 2^32 - 1", 0, F_TENSOR_TYPE, Q_NAME, 0, 0xFFFFFFFF, "MXFP4, found number 4294967295", 0},
    {"rows that are no whole blocks", 0, F_TENSOR_TYPE, Q_NAME, 0, 12, "expected rows of whole blocks of 256 values (Q4_K), found 32", 0},
    {"rows that are no whole small blocks", 0, F_TENSOR_TYPE, "blk.0.ffn_down.weight", 0, 8, "expected rows of whole blocks of 32 values (Q8_0), found 24", 0},
    {"an offset between", 0, F_OFFSET, Q_NAME, 0, 33, "offset: expected", 0},
    {"an offset of 0", 0, F_OFFSET, Q_NAME, 0, 0, "tensor blk.1.attn_q.weight: offset: expected", 0},
    {"an offset past the file", 0, F_OFFSET, Q_NAME, 0, 1ull << 40, "found 1099511627776", 0},
    {"an offset of -32", 0, F_OFFSET, Q_NAME, 0, HUGE - 31, "found 18446744073709551584", 0},
    {"a tensor twice", "twin blk.1.attn_q.weight blk.0.attn_q.weight", 0, 0, 0, 0, "tensor blk.0.attn_q.weight: expected once, found twice", 0},
    {"a tensor is missing", "without blk.0.ffn_down.weight", 0, 0, 0, 0, "tensor blk.0.ffn_down.weight: expected, not found", 0},
    {"no embedding", "without token_embd.weight", 0, 0, 0, 0, "tensor token_embd.weight: expected, not found", 0},
    {"RoPE factors", "twin output_norm.weight rope_freqs.weight", 0, 0, 0, 0, "tensor rope_freqs.weight: expected shape [4], found [32]", 0},
    {"a bias", "twin blk.1.ffn_norm.weight blk.1.attn_q.bias", 0, 0, 0, 0, "tensor blk.1.attn_q.bias: expected none", 0},
    {"a layer beyond", "twin blk.1.ffn_norm.weight blk.2.ffn_norm.weight", 0, 0, 0, 0, "tensor blk.2.ffn_norm.weight: expected none", 0},
    {"a layer -1", "twin blk.1.ffn_norm.weight blk.-1.ffn_norm.weight", 0, 0, 0, 0, "tensor blk.-1.ffn_norm.weight: expected none", 0},
    {"a layer 01", "twin blk.1.ffn_norm.weight blk.01.ffn_norm.weight", 0, 0, 0, 0, "tensor blk.01.ffn_norm.weight: expected none", 0},
    {"32 bytes more", "more 32", 0, 0, 0, 0, "bytes follow the last tensor", 0},
    {"a line break in a name", "twin output_norm.weight a\nb", 0, 0, 0, 0, "tensor a?b", 0},

    {"no tokenizer", "drop tokenizer.ggml.model", 0, 0, 0, 0, "tokenizer.ggml.model: expected, not found", 1},
    {"another model", "text tokenizer.ggml.model rwkv", 0, 0, 0, 0, "tokenizer.ggml.model: expected llama, gpt2, t5 or bert, found 'rwkv'", 1},
    {"byte-level BPE without merges", "text tokenizer.ggml.model gpt2", 0, 0, 0, 0, "tokenizer.ggml.merges: expected, not found", 1},
    {"no tokens", "drop tokenizer.ggml.tokens", 0, 0, 0, 0, "tokenizer.ggml.tokens: expected, not found", 1},
    {"tokens as numbers", "numbers tokenizer.ggml.tokens", 0, 0, 0, 0, "tokenizer.ggml.tokens: expected an array of string, found an array of u32", 1},
    {"no tokens in the array", "none tokenizer.ggml.tokens", 0, 0, 0, 0, "tokenizer.ggml.tokens: expected 20, the model's tokens, found 0", 1},
    {"no scores", "drop tokenizer.ggml.scores", 0, 0, 0, 0, "tokenizer.ggml.scores: expected, not found", 1},
    {"scores as whole numbers", "numbers tokenizer.ggml.scores", 0, 0, 0, 0, "tokenizer.ggml.scores: expected an array of f32, found an array of u32", 1},
    {"one score only", "none tokenizer.ggml.scores", 0, 0, 0, 0, "tokenizer.ggml.scores: expected 20 elements, as many as tokens, found 0", 1},
    {"one score is NaN", "token 7 1 nan", 0, 0, 0, 0, "token 7: score: expected a number, found NaN", 1},
    {"no types", "drop tokenizer.ggml.token_type", 0, 0, 0, 0, "tokenizer.ggml.token_type: expected, not found", 1},
    {"type 0", "token 7 0 1", 0, 0, 0, 0, "token 7: type: expected 1 to 6, found 0", 1},
    {"type 7", "token 7 7 1", 0, 0, 0, 0, "token 7: type: expected 1 to 6, found 7", 1},
    {"type -1", "token 7 -1 1", 0, 0, 0, 0, "token 7: type: expected 1 to 6, found -1", 1},
    {"a byte that is none", "token 7 6 1", 0, 0, 0, 0, "token 7: expected the text of a byte, <0xHH>, found 'word'", 1},
    {"bos beyond", "u32 tokenizer.ggml.bos_token_id 20", 0, 0, 0, 0, "tokenizer.ggml.bos_token_id: expected a token below 20, found 20", 1},
    {"eos beyond", "u32 tokenizer.ggml.eos_token_id 4294967294", 0, 0, 0, 0, "tokenizer.ggml.eos_token_id: expected a token below 20, found 4294967294", 1},
    {"unknown as text", "text tokenizer.ggml.unknown_token_id 0", 0, 0, 0, 0, "tokenizer.ggml.unknown_token_id: expected a whole number, found string", 1},
    {"a bool of 2", "bool tokenizer.ggml.add_bos_token 2", 0, 0, 0, 0, "tokenizer.ggml.add_bos_token: expected 0 or 1, found 2", 1},
    {"a bool as a number", "u32 tokenizer.ggml.add_space_prefix 1", 0, 0, 0, 0, "tokenizer.ggml.add_space_prefix: expected a bool, found u32", 1},
    {"more tokens than the model has", "fewer 19", 0, 0, 0, 0, "tokenizer.ggml.tokens: expected 20, the model's tokens, found 19", 1},
};
// clang-format on

// One word for what to do, then what to do it to.
static void apply_one(Maker *m, const char *edit, size_t *more) {
    char verb[20] = "", name[80] = "", rest[80] = "";
    sscanf(edit, "%19s %79s %79[^~]", verb, name, rest);
    if (!strcmp(verb, "u32")) maker_u32(m, name, (uint32_t)strtoul(rest, NULL, 10));
    else if (!strcmp(verb, "f32")) maker_f32(m, name, strtof(rest, NULL));
    else if (!strcmp(verb, "bool")) maker_bool(m, name, (uint8_t)atoi(rest));
    else if (!strcmp(verb, "text")) maker_text(m, name, rest);
    else if (!strcmp(verb, "none")) maker_array(m, name, maker_pair(m, name)->element);
    else if (!strcmp(verb, "numbers")) array_put(maker_array(m, name, G_U32), &(uint32_t){0}, 4);
    else if (!strcmp(verb, "drop")) drop_pair(m, name);
    else if (!strcmp(verb, "more")) *more = strtoul(name, NULL, 10);
    else if (!strcmp(verb, "fewer")) maker_vocab(m, atoi(name));
    else if (!strcmp(verb, "again")) {
        MakePair twin = *maker_pair(m, name);
        twin.payload.at = NULL;
        bytes_put_text(&twin.payload, "", 0);
        arrput(m->pairs, twin);
    } else if (!strcmp(verb, "token")) {
        int32_t type = 0;
        char score[20] = "";
        sscanf(rest, "%d %19s", &type, score);
        set_token(m, atoi(name), "word", type, strtof(score, NULL));
    } else if (!strcmp(verb, "without")) {
        MakeTensor *t = maker_tensor(m, name);
        arrfree(t->data.at);
        arrdel(m->tensors, t - m->tensors);
    } else if (!strcmp(verb, "half")) {
        to_kind(maker_tensor(m, name), 1);
    } else if (!strcmp(verb, "swap")) {
        MakeTensor *t = maker_tensor(m, name);
        uint64_t cols = t->dims[0];
        t->dims[0] = t->dims[1];
        t->dims[1] = cols;
    } else if (!strcmp(verb, "twin")) { // a tensor like `name`, called `rest`
        MakeTensor *old = maker_tensor(m, name), twin = *old;
        twin.data.at = NULL;
        bytes_put(&twin.data, old->data.at, arrlenu(old->data.at));
        snprintf(twin.name, sizeof twin.name, "%s", rest);
        arrput(m->tensors, twin);
    } else {
        CHECK(false, "a test asks to %s", verb);
    }
}

// Several, with ';' between.
static void apply_edit(Maker *m, const char *edits, size_t *more) {
    char copy[200], *rest;
    snprintf(copy, sizeof copy, "%s", edits);
    for (char *edit = strtok_r(copy, ";", &rest); edit; edit = strtok_r(NULL, ";", &rest)) apply_one(m, edit, more);
}

static void expect_line(const char *what, int rc, const char *err, const char *want) {
    CHECK(rc == -1, "%s: expected a failure", what);
    CHECK(one_line(err) && !strncmp(err, "memory.gguf: ", 13), "%s: found '%s'", what, err);
    CHECK(strstr(err, want), "%s: expected '%s', found '%s'", what, want, err);
}

static void check_bad(const uint8_t *bytes, size_t n, bool vocab, const char *what, const char *want) {
    char err[512] = "";
    if (vocab) {
        static char path[] = "memory.gguf";
        File f = {.path = path, .data = bytes, .size = n, .borrowed = true};
        Vocab v;
        memset(&v, 0xAA, sizeof v);
        int rc = load_gguf_vocab(&v, &f, 20, err, sizeof err);
        expect_line(what, rc, err, want);
        CHECK(!v.pieces && !v.text && !v.bos_id, "%s: not left empty", what);
        return;
    }
    Model m;
    Decoder d;
    memset(&m, 0xAA, sizeof m);
    int rc = load_bytes(&m, bytes, n, err, sizeof err);
    if (!rc) { // shapes and dtypes are the decoder's to judge
        rc = decoder_bind(&d, &m, err, sizeof err);
        if (!rc) decoder_free(&d);
        weights_free(&m.weights);
        CHECK(!strncmp(err, "memory.gguf: tensor ", 20), "%s: '%s'", what, err);
    } else {
        CHECK(!m.weights.files && !m.weights.table && !m.config.dim && !m.kind[0], "%s: not left empty", what);
    }
    expect_line(what, rc, err, want);
}

static void hostile_files(void) {
    BinSpec s = small_spec();
    for (int i = 0; i < N_OF(bad_files); i++) {
        const Bad *bad = &bad_files[i];
        Maker m = maker_new();
        size_t n, more = 0;
        maker_llama(&m, &s);
        if (bad->edit) apply_edit(&m, bad->edit, &more);
        m.field = bad->field, m.name = bad->name, m.index = bad->index, m.value = bad->value;
        uint8_t *bytes = maker_bytes(&m, &n), *longer = calloc(1, n + more); // as long as the file: a read beyond shows
        memcpy(longer, bytes, n);
        check_bad(longer, n + more, bad->vocab, bad->what, bad->want);
        free(bytes);
        free(longer);
        maker_free(&m);
    }
    printf("    %d files\n", N_OF(bad_files));
}

static void every_truncation(void) {
    BinSpec s = small_spec();
    Maker m = maker_new();
    size_t n;
    s.n_layers = 1;
    maker_llama(&m, &s);
    uint8_t *bytes = maker_bytes(&m, &n);
    for (size_t cut = n - 1; cut >= 4; cut--) {
        char what[40];
        uint8_t *less = malloc(cut);
        memcpy(less, bytes, cut);
        snprintf(what, sizeof what, "cut to %zu of %zu", cut, n);
        check_bad(less, cut, false, what, "expected");
        check_bad(less, cut, true, what, "expected");
        free(less);
    }
    Model model;
    char err[256] = "";
    CHECK(!load_bytes(&model, bytes, n, err, sizeof err), "%s", err);
    weights_free(&model.weights);
    free(bytes);
    maker_free(&m);
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

    maker_text(&m, "tokenizer.ggml.model", "rwkv");
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

int main(void) {
    without_bf16();
    RUN(every_kind_equals_floats);
    RUN(mixed_kinds);
    RUN(long_rows);
    RUN(plain_model);
    RUN(settings_of_every_type);
    RUN(vocabulary_rules);
    RUN(other_kinds);
    RUN(bad_steps);
    RUN(split_files);
    RUN(bad_split_files);
    RUN(hostile_files);
    RUN(every_truncation);
    RUN(engine_chooses);
    RUN(real_story);
    RUN(real_story_logits);
    RUN(real_tiny_stories);
    RUN(real_vocabularies);
    RUN(real_pieces);
    return test_report();
}
