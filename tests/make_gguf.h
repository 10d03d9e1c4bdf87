// make_gguf.h: writes GGUF files in memory for tests: a small llama model with a SentencePiece vocabulary, its tensors
// in any type, and the same with one thing wrong.
//
//   Maker m = maker_new();
//   maker_llama(&m, &(GgufShape){...}); add or change m.pairs and m.tensors
//   size_t n; uint8_t *bytes = maker_bytes(&m, &n);
//   maker_free(&m);
#pragma once
#include "make_bin.h"

#include <stb/stb_ds.h>

#define GGUF_UNUSED __attribute__((unused)) static

// The types of settings.
enum { G_U8, G_I8, G_U16, G_I16, G_U32, G_I32, G_F32, G_BOOL, G_STRING, G_ARRAY, G_U64, G_I64, G_F64 };

typedef struct {
    uint8_t *at; // stb_ds array
} Bytes;

typedef struct {
    char key[80];
    uint32_t type;
    bool array;
    uint32_t element;
    uint64_t count;
    Bytes payload; // the value, or the elements
} MakePair;

typedef struct {
    char name[80];
    int n_dims;
    uint64_t dims[6]; // innermost first
    uint32_t type;
    Bytes data;
} MakeTensor;

// One field of the file that is written with another value.
typedef enum {
    NOTHING,
    F_MAGIC,
    F_VERSION,
    F_N_TENSORS,
    F_N_PAIRS,
    F_KEY_LENGTH,
    F_TYPE,         // of the setting `name`
    F_ELEMENT_TYPE, // of its elements
    F_COUNT,        // its elements
    F_LENGTH,       // its text, or text `index` of its array
    F_NAME_LENGTH,  // of the tensor `name`
    F_N_DIMS,
    F_DIM, // `index`
    F_TENSOR_TYPE,
    F_OFFSET,
} Field;

typedef struct {
    MakePair *pairs;     // stb_ds arrays
    MakeTensor *tensors; //
    uint32_t version, alignment;
    Field field;
    const char *name;
    int index;
    uint64_t value;
    uint8_t *out; // being written
} Maker;

static void bytes_put(Bytes *b, const void *p, size_t n) {
    if (n) memcpy(arraddnptr(b->at, n), p, n);
}

GGUF_UNUSED void bytes_put_text(Bytes *b, const char *text, size_t n) {
    uint64_t length = n;
    bytes_put(b, &length, 8);
    bytes_put(b, text, n);
}

GGUF_UNUSED Maker maker_new(void) {
    return (Maker){.version = 3, .alignment = 32};
}

GGUF_UNUSED void maker_free(Maker *m) {
    for (ptrdiff_t i = 0; i < arrlen(m->pairs); i++) arrfree(m->pairs[i].payload.at);
    for (ptrdiff_t i = 0; i < arrlen(m->tensors); i++) arrfree(m->tensors[i].data.at);
    arrfree(m->pairs);
    arrfree(m->tensors);
    memset(m, 0, sizeof *m);
}

GGUF_UNUSED MakePair *maker_pair(Maker *m, const char *key) {
    for (ptrdiff_t i = 0; i < arrlen(m->pairs); i++) {
        if (!strcmp(m->pairs[i].key, key)) return &m->pairs[i];
    }
    return NULL;
}

GGUF_UNUSED MakeTensor *maker_tensor(Maker *m, const char *name) {
    for (ptrdiff_t i = 0; i < arrlen(m->tensors); i++) {
        if (!strcmp(m->tensors[i].name, name)) return &m->tensors[i];
    }
    return NULL;
}

// The setting of this name, new or emptied.
static MakePair *maker_set(Maker *m, const char *key, uint32_t type) {
    MakePair *p = maker_pair(m, key);
    if (!p) {
        MakePair fresh = {0};
        snprintf(fresh.key, sizeof fresh.key, "%s", key);
        arrput(m->pairs, fresh);
        p = &arrlast(m->pairs);
    }
    arrfree(p->payload.at);
    p->type = type;
    p->array = false;
    p->count = 1;
    return p;
}

GGUF_UNUSED void maker_put(Maker *m, const char *key, uint32_t type, const void *value, size_t n) {
    bytes_put(&maker_set(m, key, type)->payload, value, n);
}

GGUF_UNUSED void maker_u32(Maker *m, const char *key, uint32_t value) {
    maker_put(m, key, G_U32, &value, 4);
}

GGUF_UNUSED void maker_f32(Maker *m, const char *key, float value) {
    maker_put(m, key, G_F32, &value, 4);
}

GGUF_UNUSED void maker_bool(Maker *m, const char *key, uint8_t value) {
    maker_put(m, key, G_BOOL, &value, 1);
}

GGUF_UNUSED void maker_text(Maker *m, const char *key, const char *text) {
    bytes_put_text(&maker_set(m, key, G_STRING)->payload, text, strlen(text));
}

// An empty array, to be filled.
GGUF_UNUSED MakePair *maker_array(Maker *m, const char *key, uint32_t element) {
    MakePair *p = maker_set(m, key, G_ARRAY);
    p->array = true;
    p->element = element;
    p->count = 0;
    return p;
}

static void array_put(MakePair *p, const void *value, size_t n) {
    bytes_put(&p->payload, value, n);
    p->count++;
}

GGUF_UNUSED void array_put_text(MakePair *p, const char *text) {
    bytes_put_text(&p->payload, text, strlen(text));
    p->count++;
}

GGUF_UNUSED MakeTensor *maker_add_tensor(Maker *m, const char *name, uint32_t type, uint64_t cols, uint64_t rows) {
    MakeTensor t = {.n_dims = rows ? 2 : 1, .dims = {cols, rows}, .type = type};
    snprintf(t.name, sizeof t.name, "%s", name);
    arrput(m->tensors, t);
    return &arrlast(m->tensors);
}

// ---- writing

static uint64_t field(const Maker *m, Field f, const char *name, int index, uint64_t value) {
    bool hit = m->field == f && (!m->name || !strcmp(m->name, name)) && m->index == index;
    return hit ? m->value : value;
}

static void write_u32(Maker *m, Field f, const char *name, uint32_t value) {
    uint32_t v = (uint32_t)field(m, f, name, 0, value);
    memcpy(arraddnptr(m->out, 4), &v, 4);
}

static void write_u64(Maker *m, Field f, const char *name, int index, uint64_t value) {
    uint64_t v = field(m, f, name, index, value);
    memcpy(arraddnptr(m->out, 8), &v, 8);
}

static void write_raw(Maker *m, const void *p, size_t n) {
    if (n) memcpy(arraddnptr(m->out, n), p, n);
}

static void write_pair(Maker *m, const MakePair *p) {
    write_u64(m, F_KEY_LENGTH, p->key, 0, strlen(p->key));
    write_raw(m, p->key, strlen(p->key));
    write_u32(m, F_TYPE, p->key, p->type);
    if (p->array) {
        write_u32(m, F_ELEMENT_TYPE, p->key, p->element);
        write_u64(m, F_COUNT, p->key, 0, p->count);
    }
    if ((p->array ? p->element : p->type) != G_STRING) {
        write_raw(m, p->payload.at, arrlenu(p->payload.at));
        return;
    }
    const uint8_t *at = p->payload.at;
    for (uint64_t i = 0, n; i < p->count; i++, at += 8 + n) {
        memcpy(&n, at, 8);
        write_u64(m, F_LENGTH, p->key, (int)i, n);
        write_raw(m, at + 8, n);
    }
}

static uint64_t maker_aligned(const Maker *m, uint64_t n) {
    return (n + m->alignment - 1) / m->alignment * m->alignment;
}

// malloc'd. The last tensor ends the file, without padding.
GGUF_UNUSED uint8_t *maker_bytes(Maker *m, size_t *n) {
    m->out = NULL;
    write_u32(m, F_MAGIC, "", 0x46554747);
    write_u32(m, F_VERSION, "", m->version);
    write_u64(m, F_N_TENSORS, "", 0, arrlenu(m->tensors));
    write_u64(m, F_N_PAIRS, "", 0, arrlenu(m->pairs));
    for (ptrdiff_t i = 0; i < arrlen(m->pairs); i++) write_pair(m, &m->pairs[i]);
    uint64_t offset = 0;
    for (ptrdiff_t i = 0; i < arrlen(m->tensors); i++) {
        const MakeTensor *t = &m->tensors[i];
        write_u64(m, F_NAME_LENGTH, t->name, 0, strlen(t->name));
        write_raw(m, t->name, strlen(t->name));
        write_u32(m, F_N_DIMS, t->name, (uint32_t)t->n_dims);
        for (int d = 0; d < t->n_dims; d++) write_u64(m, F_DIM, t->name, d, t->dims[d]);
        write_u32(m, F_TENSOR_TYPE, t->name, t->type);
        write_u64(m, F_OFFSET, t->name, 0, offset);
        offset = maker_aligned(m, offset + arrlenu(t->data.at));
    }
    for (ptrdiff_t i = 0; i < arrlen(m->tensors); i++) {
        while (arrlenu(m->out) % m->alignment) arrput(m->out, 0);
        write_raw(m, m->tensors[i].data.at, arrlenu(m->tensors[i].data.at));
    }
    *n = arrlenu(m->out);
    uint8_t *bytes = malloc(*n);
    memcpy(bytes, m->out, *n);
    arrfree(m->out);
    return bytes;
}

GGUF_UNUSED void maker_write(Maker *m, const char *path) {
    size_t n;
    uint8_t *bytes = maker_bytes(m, &n);
    FILE *f = bin_open(path);
    bin_write(f, bytes, n);
    fclose(f);
    free(bytes);
}

// ---- a model

GGUF_UNUSED void maker_settings(Maker *m, const BinSpec *s) {
    maker_text(m, "general.architecture", "llama");
    maker_text(m, "general.name", "random");
    maker_u32(m, "llama.block_count", (uint32_t)s->n_layers);
    maker_u32(m, "llama.context_length", (uint32_t)s->seq_len);
    maker_u32(m, "llama.embedding_length", (uint32_t)s->dim);
    maker_u32(m, "llama.feed_forward_length", (uint32_t)s->hidden_dim);
    maker_u32(m, "llama.attention.head_count", (uint32_t)s->n_heads);
    maker_u32(m, "llama.attention.head_count_kv", (uint32_t)s->n_kv_heads);
    maker_u32(m, "llama.rope.dimension_count", (uint32_t)(s->dim / s->n_heads));
    maker_f32(m, "llama.rope.freq_base", 10000);
    maker_f32(m, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
}

// <unk>, <s>, </s>, then letters; from 259 tokens up the byte tokens before them.
GGUF_UNUSED void maker_vocab(Maker *m, int n) {
    maker_text(m, "tokenizer.ggml.model", "llama");
    MakePair *tokens = maker_array(m, "tokenizer.ggml.tokens", G_STRING);
    for (int id = 0; id < n; id++) {
        static const char *const control[] = {"<unk>", "<s>", "</s>"};
        char text[16];
        int first = n >= 259 ? 259 : 3;
        if (id < 3) snprintf(text, sizeof text, "%s", control[id]);
        else if (id < first) snprintf(text, sizeof text, "<0x%02X>", (unsigned)(id - 3) & 255u);
        else if (id == first) snprintf(text, sizeof text, "\xE2\x96\x81"); // U+2581: a space
        else {
            int k = id - first - 1;
            snprintf(text, sizeof text, "%s%c%.*s", k / 26 % 2 ? "\xE2\x96\x81" : "", 'a' + k % 26, k / 52,
                     "aeiouaeiou");
        }
        array_put_text(tokens, text);
    }
    MakePair *scores = maker_array(m, "tokenizer.ggml.scores", G_F32);
    for (int id = 0; id < n; id++) array_put(scores, &(float){(float)-id}, 4);
    MakePair *token_types = maker_array(m, "tokenizer.ggml.token_type", G_I32);
    for (int id = 0; id < n; id++) {
        array_put(token_types, &(int32_t){id == 0 ? 2 : id < 3 ? 3 : n >= 259 && id < 259 ? 6 : 1}, 4);
    }
    maker_u32(m, "tokenizer.ggml.bos_token_id", 1);
    maker_u32(m, "tokenizer.ggml.eos_token_id", 2);
    maker_u32(m, "tokenizer.ggml.unknown_token_id", 0);
}

// The tensors of the model that make_bin writes for the same spec, as F32.
GGUF_UNUSED void maker_tensors(Maker *m, const BinSpec *s) {
    for (int kind = 0; kind < BIN_N_KINDS; kind++) {
        if (kind == BIN_CLASSIFIER && s->tied) continue;
        for (int layer = 0; layer < (bin_per_layer((BinKind)kind) ? s->n_layers : 1); layer++) {
            int rows, cols;
            char name[80];
            size_t n = bin_shape(s, (BinKind)kind, &rows, &cols);
            float *v = bin_values(s, (BinKind)kind, layer);
            bin_full_name(name, (BinKind)kind, layer);
            MakeTensor *t = cols ? maker_add_tensor(m, name, 0, (uint64_t)cols, (uint64_t)rows)
                                 : maker_add_tensor(m, name, 0, (uint64_t)rows, 0);
            bytes_put(&t->data, v, n * sizeof *v);
            free(v);
        }
    }
}

GGUF_UNUSED void maker_llama(Maker *m, const BinSpec *s) {
    maker_settings(m, s);
    maker_vocab(m, s->vocab_size);
    maker_tensors(m, s);
}
