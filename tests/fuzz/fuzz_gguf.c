// fuzz_gguf: the GGUF reader and its vocabulary on arbitrary bytes.
//
// The first byte chooses: raw bytes as the file, or a small model made from the input (shape, tensor types, settings,
// pieces), with one field written otherwise, or one byte, or nothing; what nothing was done to must load. Of a loaded
// model every tensor must lie inside the file, aligned, without touching another, and every value is computed; a loaded
// vocabulary encodes and decodes the input.
#include "decoder.h"
#include "load.h"
#include "textstream.h"
#include "quant.h"

#include "../block_formats.h"
#include "../make_gguf.h"
#include "fuzz.h"

enum { FILE_MAX = 1 << 16 };

static volatile float sink;
static char path[] = "fuzz.gguf";

// ---- what was loaded

// Compute the first and the last values where they lie.
static void touch(const Tensor *t) {
    const DTypeInfo *info = dtype_info(t->dtype);
    const uint8_t *ends[] = {t->data, (const uint8_t *)t->data + tensor_bytes(t) - info->block_bytes};
    float v[BLOCK_MAX];
    for (int i = 0; i < 2; i++) {
        if (info->unpack) info->unpack(v, ends[i], 1);
        else v[0] = ends[i][info->block_bytes - 1];
        sink = v[0];
    }
}

static void check_tensors(const Weights *w, const uint8_t *bytes, size_t size) {
    uint8_t *taken = calloc(1, size);
    for (size_t i = 0; i < weights_count(w); i++) {
        const Tensor *t = weights_at(w, i);
        const uint8_t *at = t->data;
        REQUIRE(t->n_dims >= 1 && t->n_dims <= MAX_DIMS && tensor_count(t) > 0 && tensor_bytes(t) > 0);
        REQUIRE(at >= bytes && (size_t)(at - bytes) < size && tensor_bytes(t) <= size - (size_t)(at - bytes));
        REQUIRE((uintptr_t)at % 8 == 0);
        REQUIRE(!memchr(taken + (at - bytes), 1, tensor_bytes(t)));
        memset(taken + (at - bytes), 1, tensor_bytes(t));
        touch(t);
    }
    free(taken);
}

static void check_model(Model *m, const uint8_t *bytes, size_t size) {
    char err[256] = "";
    const Config *c = &m->config;
    REQUIRE(!config_check(c, path, err, sizeof err));
    check_tensors(&m->weights, bytes, size);
    Decoder d;
    if (decoder_bind(&d, m, err, sizeof err)) {
        require_line(err, "fuzz.gguf");
        return;
    }
    REQUIRE(weights_count(&m->weights) == 2 + !c->tied + 9 * (size_t)c->n_layers);
    REQUIRE(d.token_bytes <= 2 * size);
    decoder_free(&d);
}

static void check_vocab(Vocab *v, const uint8_t *text, size_t size) {
    char err[256] = "";
    int n = (int)arrlen(v->pieces);
    REQUIRE(n > 0 && v->bos_id < n && v->eos_id < n && v->unk_id < n);
    for (int i = 0; i < n; i++) REQUIRE(v->pieces[i].len >= 0 && v->pieces[i].score == v->pieces[i].score);
    int bos = v->bos_id, unknown = v->unk_id; // may be of any type
    Tokenizer *t = tokenizer_new(v, err, sizeof err);
    REQUIRE(t && !v->pieces && !v->text);
    int32_t *ids;
    int n_ids = tokenizer_encode(t, (const char *)text, size, (unsigned)size & 3, &ids, err, sizeof err);
    REQUIRE(n_ids >= 0);
    char *out = malloc(textstream_room(t));
    TextStream stream = textstream_start(t, true);
    for (int i = 0; i < n_ids; i++) {
        REQUIRE(ids[i] >= 0 && ids[i] < n);
        REQUIRE(tokenizer_piece(t, ids[i])->type != TOKEN_UNUSED || ids[i] == bos || ids[i] == unknown);
        REQUIRE(textstream_push(&stream, ids[i], out) <= textstream_room(t));
    }
    textstream_finish(&stream, out);
    free(out);
    free(ids);
    tokenizer_free(t);
}

// Both readers on the bytes. Returns 1 for a model that loaded, 2 for a vocabulary, 3 for both.
static int load(const uint8_t *bytes, size_t size, const uint8_t *text, size_t n_text) {
    char err[256] = "";
    Model m;
    Vocab v;
    File file = {.path = path, .data = bytes, .size = size, .borrowed = true};
    int loaded = 0, rc = load_gguf_vocab(&v, &file, 0, err, sizeof err);
    if (!rc) {
        loaded |= 2;
        check_vocab(&v, text, n_text);
    } else {
        REQUIRE(rc == -1 && !v.pieces && !v.text);
        require_line(err, "fuzz.gguf");
    }
    rc = load_gguf_file(&m, &file, err, sizeof err);
    REQUIRE(!file.data && !file.path && !file.size);
    if (!rc) {
        loaded |= 1;
        check_model(&m, bytes, size);
        weights_free(&m.weights);
    } else {
        REQUIRE(rc == -1 && !m.weights.files && !m.weights.table && !m.config.dim);
        require_line(err, "fuzz.gguf");
    }
    return loaded;
}

// ---- a model from the input

static const uint64_t odd_numbers[] = {
    0,     1,          2,           3,          4,          5,          7,          8,      9,     12,
    13,    16,         31,          32,         33,         64,         65,         128,    256,   65535,
    65536, 1ull << 31, 0xFFFFFFFFu, 1ull << 32, 1ull << 59, 1ull << 62, 1ull << 63, -32ull, -8ull, -1ull};
enum { N_ODD = sizeof odd_numbers / sizeof *odd_numbers };

static void put_tensor(Maker *m, Input *in, const char *name, int rows, int cols) {
    unsigned kind = cols ? next(in, N_FORMATS - 1) : 0;
    bool wide = cols == BLOCK_MAX; // in types of super-blocks, which are small
    while (wide && dtype_info(formats[kind].dtype)->block < cols) kind = (kind + 1) % N_FORMATS;
    while (cols % dtype_info(formats[kind].dtype)->block) kind = 0;
    const DTypeInfo *info = dtype_info(formats[kind].dtype);
    MakeTensor *t = cols ? maker_add_tensor(m, name, formats[kind].number, (uint64_t)cols, (uint64_t)rows)
                         : maker_add_tensor(m, name, 0, (uint64_t)rows, 0);
    int n = rows * (cols ? cols : 1) / info->block * info->block_bytes;
    memset(arraddnptr(t->data.at, n), (int)next(in, 255), (size_t)n);
    for (int i = 0; i < n && i < 8; i++) t->data.at[i * (n / 8) % n] = (uint8_t)next(in, 255);
}

static void put_tensors(Maker *m, Input *in, const BinSpec *s) {
    for (int kind = 0; kind < BIN_N_KINDS; kind++) {
        if (kind == BIN_CLASSIFIER && s->tied) continue;
        for (int layer = 0; layer < (bin_per_layer((BinKind)kind) ? s->n_layers : 1); layer++) {
            int rows, cols;
            char name[80];
            bin_shape(s, (BinKind)kind, &rows, &cols);
            bin_full_name(name, (BinKind)kind, layer);
            put_tensor(m, in, name, rows, cols);
        }
    }
}

static void put_vocab(Maker *m, Input *in, int n) {
    static const char *const odd[] = {"",  "\xE2\x96\x81", "\xE2\x96",        "<0x41>", "<0xE2>",
                                      "a", "ab",           "\xE2\x96\x81\x61"};
    maker_text(m, "tokenizer.ggml.model", "llama");
    MakePair *tokens = maker_array(m, "tokenizer.ggml.tokens", G_STRING);
    uint8_t kinds_of[64];
    for (int i = 0; i < n; i++) {
        unsigned choice = next(in, 15);
        char text[6] = {(char)next(in, 255), (char)('a' + choice % 8), 0};
        array_put_text(tokens, choice < 8 ? odd[choice] : text);
        kinds_of[i] = choice == 3 || choice == 4 ? 6 : (uint8_t)(1 + next(in, 4)); // bytes are bytes
    }
    MakePair *scores = maker_array(m, "tokenizer.ggml.scores", G_F32);
    for (int i = 0; i < n; i++) array_put(scores, &(float){(float)next(in, 255) - 100}, 4);
    MakePair *types = maker_array(m, "tokenizer.ggml.token_type", G_I32);
    for (int i = 0; i < n; i++) array_put(types, &(int32_t){kinds_of[i]}, 4);
    if (next(in, 1)) maker_u32(m, "tokenizer.ggml.bos_token_id", next(in, (unsigned)n - 1));
    if (next(in, 1)) maker_u32(m, "tokenizer.ggml.eos_token_id", next(in, 1) ? UINT32_MAX : 0);
    if (next(in, 1)) maker_bool(m, "tokenizer.ggml.add_bos_token", (uint8_t)next(in, 1));
    if (next(in, 1)) maker_bool(m, "tokenizer.ggml.add_space_prefix", (uint8_t)next(in, 1));
}

// Settings that no one asks for.
static void put_others(Maker *m, Input *in) {
    static const unsigned sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    for (unsigned i = next(in, 3); i; i--) {
        char key[20];
        unsigned type = next(in, G_F64), count = next(in, 5);
        uint64_t value = odd_numbers[next(in, N_ODD - 1)];
        snprintf(key, sizeof key, "key.%u", i);
        if (type == G_ARRAY || type == G_STRING) {
            MakePair *p = maker_array(m, key, G_STRING);
            while (count--) array_put_text(p, "text");
        } else if (next(in, 1)) {
            maker_put(m, key, type, &value, sizes[type]);
        } else {
            MakePair *p = maker_array(m, key, type);
            while (count--) array_put(p, &value, sizes[type]);
        }
    }
}

// One field otherwise, of a setting or tensor that the input chooses.
static void put_patch(Maker *m, Input *in) {
    m->field = (Field)(F_MAGIC + next(in, F_OFFSET - F_MAGIC));
    m->value = odd_numbers[next(in, N_ODD - 1)];
    m->index = m->field == F_LENGTH || m->field == F_DIM ? (int)next(in, 3) : 0;
    bool of_pair = m->field >= F_KEY_LENGTH && m->field <= F_LENGTH;
    if (of_pair) m->name = m->pairs[next(in, 255) % arrlenu(m->pairs)].key;
    else if (m->field > F_LENGTH) m->name = m->tensors[next(in, 255) % arrlenu(m->tensors)].name;
}

static void change_setting(Maker *m, Input *in) {
    MakePair *p = &m->pairs[next(in, 255) % arrlenu(m->pairs)];
    char key[80];
    memcpy(key, p->key, sizeof key);
    uint32_t value = (uint32_t)odd_numbers[next(in, N_ODD - 1)];
    if (next(in, 1)) maker_u32(m, key, value);
    else if (next(in, 1)) maker_f32(m, key, (float)value);
    else maker_text(m, key, "none");
}

typedef enum { AS_IT_IS, FIELD, SETTING, BYTE, LESS, N_PATCHES } Patch;

static void try_plausible(const uint8_t *data, size_t size) {
    Input in = {data, data + size};
    Patch patch = (Patch)next(&in, N_PATCHES - 1);
    static const int dims[] = {4, 8, 16, 32, 64, 256};
    BinSpec s = {.dim = dims[next(&in, 5)], .n_layers = 1 + (int)next(&in, 1), .seq_len = 1 + (int)next(&in, 9)};
    s.hidden_dim = s.dim > 64 ? 4 : dims[next(&in, 4)];
    s.n_heads = 1 << next(&in, 1), s.n_kv_heads = next(&in, 1) ? s.n_heads : 1;
    s.vocab_size = 1 + (int)next(&in, 15), s.tied = next(&in, 1);
    Maker m = maker_new();
    m.version = 2 + next(&in, 1);
    m.alignment = 8u << next(&in, 3);
    if (m.alignment != 32 || next(&in, 1)) maker_u32(&m, "general.alignment", m.alignment);
    maker_settings(&m, &s);
    put_vocab(&m, &in, s.vocab_size);
    put_others(&m, &in);
    if (s.dim > 64) s.n_layers = 1, maker_u32(&m, "llama.block_count", 1);
    if (patch == SETTING) change_setting(&m, &in);
    unsigned where = next(&in, 255) << 8, with;
    where |= next(&in, 255);
    with = next(&in, 255);
    Input of_field = in; // before the values, which take what is left
    for (int i = 0; i < 4; i++) next(&in, 255);
    put_tensors(&m, &in, &s);
    if (patch == FIELD) put_patch(&m, &of_field);
    size_t n;
    uint8_t *bytes = maker_bytes(&m, &n);
    if (patch == BYTE) bytes[where % (n < 2048 ? n : 2048)] ^= (uint8_t)(with | 1);
    size_t less = patch == LESS ? where % n : 0;
    if (less) {
        uint8_t *shorter = malloc(n - less);
        memcpy(shorter, bytes, n - less);
        free(bytes);
        bytes = shorter;
        n -= less;
    }
    int loaded = load(bytes, n, data, size);
    if (patch == AS_IT_IS) REQUIRE(loaded == 3);
    if (less) REQUIRE(!loaded); // the last tensor ends the file
    free(bytes);
    maker_free(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2 || size > FILE_MAX) return 0;
    if (data[0] & 3) {
        try_plausible(data + 1, size - 1);
        return 0;
    }
    uint8_t *bytes = malloc(size - 1);
    memcpy(bytes, data + 1, size - 1);
    load(bytes, size - 1, data, size);
    free(bytes);
    return 0;
}
