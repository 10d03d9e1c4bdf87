// load_gguf: GGUF v2 and v3, in one file or split: metadata, tensors in place, and the SentencePiece vocabulary.
//
// Owns the container's rules and the keys of the llama architecture. Refuses what the file cannot hold before a pointer
// is made: counts, lengths, products and ends beyond it; names twice; tensors that do not follow one another, each
// aligned; a setting or a tensor that would change the computation and that nothing here computes. Called by
// engine_open. Source: github.com/ggml-org/ggml, docs/gguf.md.
#include "load.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

enum {
    MAGIC = 0x46554747, // "GGUF"
    VERSION_AT = 4,
    MAX_KEY = 65535,
    MAX_NAME = 64,
    MIN_ALIGNMENT = 8,
    MAX_ALIGNMENT = 1 << 20,
    MIN_PAIR_BYTES = 8 + 1 + 4 + 1,
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8,
    MAX_TOKENS = 1 << 24,
    SPLIT_NAME = sizeof "-00001-of-00001.gguf" - 1,
};

// The types of metadata values, by their numbers in the file.
typedef enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64, N_TYPES } Type;

static const struct {
    const char *name;
    unsigned bytes; // 0: it says itself
} types[N_TYPES] = {{"u8", 1},   {"i8", 1},     {"u16", 2},   {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
                    {"bool", 1}, {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8}};

typedef struct {
    Type type; // of an array: of its elements
    bool is_array;
    uint64_t count, at; // elements; byte offset of the first
} Value;

// One tensor of the header.
typedef struct {
    char name[MAX_NAME + 1];
    Tensor tensor;
    uint64_t at, offset, bytes; // where the offset stands; what it says; how long the data is
} Info;

typedef struct {
    File file; // someone else's
    Cursor in;
    uint32_t version;
    uint64_t alignment;
    struct {
        char *key;
        Value value;
    } * pairs;   // stb_ds string map
    Info *infos; // stb_ds array
} Gguf;

bool file_is_gguf(const File *file) {
    return file->size >= 4 && !memcmp(file->data, "GGUF", 4);
}

// ---- metadata

static Type read_type(Cursor *in, const char *what, const char *key) {
    uint64_t at = in->pos;
    uint32_t type = cursor_u32(in, what);
    if (type >= N_TYPES) cursor_fail(in, at, "%.80s: %s: expected 0 to %d, found %u", key, what, N_TYPES - 1, type);
    return in->failed ? U8 : (Type)type;
}

static const char *read_string(Cursor *in, uint64_t *n, const char *what) {
    *n = cursor_u64(in, what);
    return (const char *)cursor_bytes(in, *n, what);
}

// Step over `count` elements from the cursor on.
static void skip_elements(Cursor *in, const char *key, Type type, uint64_t count) {
    uint64_t bytes, n;
    char what[100];
    snprintf(what, sizeof what, "%.80s", key);
    if (type != STRING) {
        if (!mul_u64(count, types[type].bytes, &bytes)) bytes = UINT64_MAX;
        cursor_bytes(in, bytes, what);
        return;
    }
    for (uint64_t i = 0; i < count && !in->failed; i++) read_string(in, &n, what); // each takes 8 bytes at least
}

static Value read_value(Cursor *in, const char *key) {
    Value v = {.type = read_type(in, "type", key), .count = 1};
    if (v.type == ARRAY) {
        v.is_array = true;
        v.type = read_type(in, "element type", key);
        if (v.type == ARRAY) cursor_fail(in, in->pos - 4, "%.80s: expected no array of arrays", key);
        v.count = cursor_u64(in, "array length");
    }
    v.at = in->pos;
    if (!in->failed) skip_elements(in, key, v.type, v.count);
    return v;
}

static void read_pair(Gguf *g) {
    Cursor *in = &g->in;
    uint64_t at = in->pos, n;
    const char *text = read_string(in, &n, "key");
    if (in->failed) return;
    if (!n || n > MAX_KEY || memchr(text, 0, n)) {
        cursor_fail(in, at, "key: expected 1 to %d bytes without NUL, found %llu", MAX_KEY, (unsigned long long)n);
        return;
    }
    char *key = strndup(text, n);
    if (!key) {
        cursor_fail(in, at, "key: out of memory");
        return;
    }
    Value v = read_value(in, key);
    if (!in->failed && shgeti(g->pairs, key) >= 0) cursor_fail(in, at, "%.80s: expected once, found twice", key);
    if (!in->failed) shput(g->pairs, key, v);
    free(key);
}

// ---- asking for metadata

static const double NEEDED = -1e300; // as the value of what is absent: it must be there

static const Value *value_of(Gguf *g, const char *key, bool needed) {
    ptrdiff_t i = g->in.failed ? -1 : shgeti(g->pairs, key);
    if (i >= 0) return &g->pairs[i].value;
    if (needed && !g->in.failed) {
        g->in.failed = true;
        fail(g->in.err, g->in.errlen, "%s: %s: expected, not found", g->file.path, key);
    }
    return NULL;
}

// A value of one of these types (bits), the cursor at it; NULL when it is absent, or after a failure.
static const Value *open_value(Gguf *g, const char *key, bool needed, bool is_array, unsigned mask,
                               const char *wanted) {
    const Value *v = value_of(g, key, needed);
    if (!v) return NULL;
    g->in.pos = v->at;
    if (v->is_array == is_array && mask >> v->type & 1) return v;
    cursor_fail(&g->in, v->at, "%s: expected %s, found %s%s", key, wanted, v->is_array ? "an array of " : "",
                types[v->type].name);
    return NULL;
}

#define WHOLE_TYPES (1u << U8 | 1u << I8 | 1u << U16 | 1u << I16 | 1u << U32 | 1u << I32 | 1u << U64 | 1u << I64)

// One whole number at the cursor. What fits no int64 becomes its largest.
static int64_t read_whole(Cursor *in, Type type) {
    switch (type) {
    case U8: return cursor_u8(in, "number");
    case I8: return (int8_t)cursor_u8(in, "number");
    case U16:
    case I16: {
        uint32_t low = cursor_u8(in, "number"), v = low | (uint32_t)cursor_u8(in, "number") << 8;
        return type == U16 ? (int64_t)v : (int16_t)v;
    }
    case U32: return cursor_u32(in, "number");
    case I32: return cursor_i32(in, "number");
    case I64: return (int64_t)cursor_u64(in, "number");
    default: {
        uint64_t v = cursor_u64(in, "number");
        return v > INT64_MAX ? INT64_MAX : (int64_t)v;
    }
    }
}

static int64_t get_whole(Gguf *g, const char *key, int64_t least, int64_t most, double absent) {
    const Value *v = open_value(g, key, absent == NEEDED, false, WHOLE_TYPES, "a whole number");
    if (!v) return g->in.failed ? least : (int64_t)absent;
    int64_t n = read_whole(&g->in, v->type);
    if (n >= least && n <= most) return n;
    cursor_fail(&g->in, v->at, "%s: expected %lld to %lld, found %lld", key, (long long)least, (long long)most,
                (long long)n);
    return least;
}

static float get_float(Gguf *g, const char *key, double absent) {
    const Value *v = open_value(g, key, absent == NEEDED, false, 1u << F32 | 1u << F64, "a number");
    if (!v) return g->in.failed ? 0 : (float)absent;
    if (v->type == F32) return cursor_f32(&g->in, key);
    uint64_t bits = cursor_u64(&g->in, key);
    double d;
    memcpy(&d, &bits, sizeof d);
    return (float)d;
}

static bool get_bool(Gguf *g, const char *key, bool absent) {
    const Value *v = open_value(g, key, false, false, 1u << BOOL, "a bool");
    if (!v) return absent;
    uint8_t b = cursor_u8(&g->in, key);
    if (b > 1) cursor_fail(&g->in, v->at, "%s: expected 0 or 1, found %d", key, b);
    return b;
}

// The text must be `want`; what else it may be in other files, nothing here computes.
static void need_text(Gguf *g, const char *key, const char *want, bool needed) {
    const Value *v = open_value(g, key, needed, false, 1u << STRING, "a text");
    if (!v) return;
    uint64_t n;
    const char *text = read_string(&g->in, &n, key);
    if (!text || (n == strlen(want) && !memcmp(text, want, n))) return;
    cursor_fail(&g->in, v->at, "%s: expected %s (no other is supported), found '%.*s'", key, want, n < 40 ? (int)n : 40,
                text);
}

// ---- tensors

// The types of tensors, by their numbers in the file.
static const struct {
    uint32_t number;
    DType dtype;
} tensor_types[] = {{0, DTYPE_F32},   {1, DTYPE_F16},   {2, DTYPE_Q4_0},  {3, DTYPE_Q4_1},  {6, DTYPE_Q5_0},
                    {7, DTYPE_Q5_1},  {8, DTYPE_Q8_0},  {10, DTYPE_Q2_K}, {11, DTYPE_Q3_K}, {12, DTYPE_Q4_K},
                    {13, DTYPE_Q5_K}, {14, DTYPE_Q6_K}, {30, DTYPE_BF16}, {39, DTYPE_MXFP4}};

static void read_name(Gguf *g, Info *info) {
    uint64_t at = g->in.pos, n;
    const char *text = read_string(&g->in, &n, "tensor name");
    if (g->in.failed) return;
    if (n && n <= MAX_NAME && !memchr(text, 0, n)) memcpy(info->name, text, n);
    else
        cursor_fail(&g->in, at, "tensor name: expected 1 to %d bytes without NUL, found %llu", MAX_NAME,
                    (unsigned long long)n);
}

// The dimensions, innermost first in the file; *count is their product.
static void read_dims(Gguf *g, Info *info, uint64_t *count) {
    Cursor *in = &g->in;
    uint64_t at = in->pos;
    uint32_t n = cursor_u32(in, "number of dimensions");
    if (n < 1 || n > MAX_DIMS) {
        cursor_fail(in, at, "tensor %s: dimensions: expected 1 to %d, found %u", info->name, MAX_DIMS, n);
        return;
    }
    info->tensor.n_dims = (int)n;
    *count = 1;
    for (int i = (int)n - 1; i >= 0 && !in->failed; i--) {
        at = in->pos;
        uint64_t dim = cursor_u64(in, "dimension");
        info->tensor.shape[i] = (int64_t)dim;
        if (!in->failed && (dim < 1 || !mul_u64(*count, dim, count) || *count > INT64_MAX)) {
            cursor_fail(in, at, "tensor %s: dimension: expected 1 or more, and a product below 2^63, found %llu",
                        info->name, (unsigned long long)dim);
        }
    }
}

static void read_dtype(Gguf *g, Info *info) {
    uint64_t at = g->in.pos;
    uint32_t number = cursor_u32(&g->in, "tensor type");
    for (size_t i = 0; i < sizeof tensor_types / sizeof *tensor_types; i++) {
        if (tensor_types[i].number != number) continue;
        info->tensor.dtype = tensor_types[i].dtype;
        return;
    }
    cursor_fail(
        &g->in, at,
        "tensor %s: type: expected one of F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K MXFP4, "
        "found number %u",
        info->name, number);
}

static void read_info(Gguf *g) {
    Info info = {0};
    uint64_t at = g->in.pos, count = 0;
    read_name(g, &info);
    if (!g->in.failed) read_dims(g, &info, &count);
    if (!g->in.failed) read_dtype(g, &info);
    info.at = g->in.pos;
    info.offset = cursor_u64(&g->in, "tensor offset");
    if (g->in.failed) return;
    const DTypeInfo *type = dtype_info(info.tensor.dtype);
    int64_t row = info.tensor.shape[info.tensor.n_dims - 1];
    if (row % type->block) {
        cursor_fail(&g->in, at, "tensor %s: expected rows of whole blocks of %d values (%s), found %lld", info.name,
                    type->block, type->name, (long long)row);
    } else if (!mul_u64(count / (uint64_t)type->block, (uint64_t)type->block_bytes, &info.bytes)) {
        cursor_fail(&g->in, at, "tensor %s: its size does not fit 64 bits", info.name);
    } else {
        arrput(g->infos, info);
    }
}

static uint64_t aligned(const Gguf *g, uint64_t n) { // n is at most a file's size
    return (n + g->alignment - 1) / g->alignment * g->alignment;
}

// The tensors lie in the order of the header, each on the next multiple of the alignment, up to the file's end.
static void check_places(Gguf *g) {
    uint64_t start = aligned(g, g->in.pos), end = g->in.pos, size = g->file.size;
    for (ptrdiff_t i = 0; i < arrlen(g->infos) && !g->in.failed; i++) {
        Info *info = &g->infos[i];
        uint64_t want = aligned(g, end), left = want < size ? size - want : 0;
        if (info->offset != want - start) {
            cursor_fail(&g->in, info->at, "tensor %s: offset: expected %llu, the next multiple of %llu, found %llu",
                        info->name, (unsigned long long)(want - start), (unsigned long long)g->alignment,
                        (unsigned long long)info->offset);
        } else if (info->bytes > left) {
            cursor_fail(&g->in, info->at, "tensor %s: expected %llu bytes, found %llu before the end of the file",
                        info->name, (unsigned long long)info->bytes, (unsigned long long)left);
        }
        if (g->in.failed) return;
        info->tensor.data = g->file.data + want;
        end = want + info->bytes;
    }
    if (size > aligned(g, end)) {
        cursor_fail(&g->in, end, "bytes follow the last tensor: expected the end of the file, found %llu more",
                    (unsigned long long)(size - end));
    }
}

// ---- the container

// A count of things that take `least` bytes each.
static uint64_t read_count(Cursor *in, const char *what, uint64_t least) {
    uint64_t at = in->pos, n = cursor_u64(in, what), most = (in->file->size - (in->failed ? 0 : in->pos)) / least;
    if (n > most) {
        cursor_fail(in, at, "%s: expected at most %llu in what is left of the file, found %llu", what,
                    (unsigned long long)most, (unsigned long long)n);
    }
    return in->failed ? 0 : n;
}

static int gguf_read(Gguf *g, const File *file, char *err, size_t errlen) {
    memset(g, 0, sizeof *g);
    g->file = *file;
    g->in = cursor_at(file, 0, err, errlen);
    sh_new_strdup(g->pairs);
    if (cursor_u32(&g->in, "magic") != MAGIC) cursor_fail(&g->in, 0, "not a GGUF file: expected the magic GGUF");
    g->version = cursor_u32(&g->in, "version");
    if (g->version != 2 && g->version != 3) {
        cursor_fail(&g->in, VERSION_AT, "version: expected 2 or 3, found %u", g->version);
    }
    uint64_t n_infos = read_count(&g->in, "number of tensors", MIN_TENSOR_BYTES);
    uint64_t n_pairs = read_count(&g->in, "number of settings", MIN_PAIR_BYTES);
    for (uint64_t i = 0; i < n_pairs && !g->in.failed; i++) read_pair(g);
    uint64_t end = g->in.pos;
    g->alignment = (uint64_t)get_whole(g, "general.alignment", MIN_ALIGNMENT, MAX_ALIGNMENT, 32);
    if (g->alignment & (g->alignment - 1)) {
        cursor_fail(&g->in, end, "general.alignment: expected a power of two, found %llu",
                    (unsigned long long)g->alignment);
    }
    g->in.pos = end;
    for (uint64_t i = 0; i < n_infos && !g->in.failed; i++) read_info(g);
    if (!g->in.failed) check_places(g);
    return g->in.failed ? -1 : 0;
}

static void gguf_free(Gguf *g) {
    shfree(g->pairs);
    arrfree(g->infos);
}

// ---- config

// Of what changes a llama's computation, that which nothing here computes must be absent or off.
static void refuse_unsupported(Gguf *g) {
    need_text(g, "llama.rope.scaling.type", "none", false);
    get_whole(g, "llama.expert_count", 0, 0, 0);
    float factor = get_float(g, "llama.rope.scale_linear", 1);
    if (factor != 1 && !g->in.failed) {
        cursor_fail(&g->in, shget(g->pairs, "llama.rope.scale_linear").at,
                    "llama.rope.scale_linear: expected 1 (no other is supported), found %g", (double)factor);
    }
}

static void read_config(Gguf *g, Config *c) {
    const int most = INT_MAX;
    need_text(g, "general.architecture", "llama", true);
    refuse_unsupported(g);
    c->dim = (int)get_whole(g, "llama.embedding_length", 1, most, NEEDED);
    c->hidden_dim = (int)get_whole(g, "llama.feed_forward_length", 1, most, NEEDED);
    c->n_layers = (int)get_whole(g, "llama.block_count", 1, most, NEEDED);
    c->n_heads = (int)get_whole(g, "llama.attention.head_count", 1, most, NEEDED);
    c->n_kv_heads = (int)get_whole(g, "llama.attention.head_count_kv", 1, most, c->n_heads);
    c->head_dim = (int)get_whole(g, "llama.attention.key_length", 1, most, 0);
    if (!c->head_dim && c->n_heads > 0) {
        if (c->dim % c->n_heads && !g->in.failed) {
            cursor_fail(&g->in, value_of(g, "llama.attention.head_count", true)->at,
                        "llama.attention.head_count: expected a divisor of llama.embedding_length = %d, found %d",
                        c->dim, c->n_heads);
        }
        c->head_dim = c->dim / c->n_heads;
    }
    get_whole(g, "llama.attention.value_length", c->head_dim, c->head_dim, c->head_dim);
    get_whole(g, "llama.rope.dimension_count", c->head_dim, c->head_dim, c->head_dim);
    c->max_seq_len = (int)get_whole(g, "llama.context_length", 1, most, NEEDED);
    c->window = (int)get_whole(g, "llama.attention.sliding_window", 0, most, 0);
    c->norm_eps = get_float(g, "llama.attention.layer_norm_rms_epsilon", NEEDED);
    c->rope_theta = get_float(g, "llama.rope.freq_base", 10000);
    c->rope_pairing = ROPE_NEIGHBOUR;
}

// Is this a tensor of the llama architecture, as decoder_bind looks them up?
static bool is_known(const char *name, const Config *c) {
    static const char *const parts[] = {"attn_norm", "attn_q",   "attn_k", "attn_v",  "attn_output",
                                        "ffn_norm",  "ffn_gate", "ffn_up", "ffn_down"};
    char want[MAX_NAME + 1];
    if (!strcmp(name, "token_embd.weight") || !strcmp(name, "output_norm.weight") || !strcmp(name, "output.weight")) {
        return true;
    }
    int layer;
    if (sscanf(name, "blk.%5d.", &layer) != 1 || layer < 0 || layer >= c->n_layers) return false;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        snprintf(want, sizeof want, "blk.%d.%s.weight", layer, parts[i]);
        if (!strcmp(name, want)) return true;
    }
    return false;
}

// What the tensors say of the model, once all are in the table.
static int finish_config(Model *m, char *err, size_t errlen) {
    Config *c = &m->config;
    const char *path = m->weights.files[0].path;
    const Tensor *tokens = weights_find(&m->weights, "token_embd.weight");
    if (!tokens) return fail(err, errlen, "%s: tensor token_embd.weight: expected, not found", path);
    c->vocab_size = tokens->shape[0] > INT_MAX ? INT_MAX : (int)tokens->shape[0];
    c->tied = !weights_find(&m->weights, "output.weight");
    if (config_check(c, path, err, errlen)) return -1;
    for (size_t i = 0; i < weights_count(&m->weights); i++) {
        const char *name = m->weights.table[i].key;
        if (is_known(name, c)) continue;
        return fail(err, errlen, "%s: tensor %s: expected none that this architecture does not use", path, name);
    }
    return 0;
}

// ---- files

static int add_tensors(Weights *w, const Gguf *g, char *err, size_t errlen) {
    for (ptrdiff_t i = 0; i < arrlen(g->infos); i++) {
        if (weights_add(w, g->infos[i].name, g->infos[i].tensor, err, errlen)) return -1;
    }
    return 0;
}

// Part `number` of n: its tensors join the table.
static int add_part(Weights *w, const char *path, int number, int n, char *err, size_t errlen) {
    File file;
    Gguf g;
    if (file_map(&file, path, err, errlen)) return -1;
    arrput(w->files, file);
    int rc = gguf_read(&g, &file, err, errlen);
    get_whole(&g, "split.no", number, number, NEEDED);
    get_whole(&g, "split.count", n, n, NEEDED);
    if (g.in.failed || add_tensors(w, &g, err, errlen)) rc = -1;
    gguf_free(&g);
    return rc;
}

// The other parts of a model that is split into files, all named after the first.
static int add_parts(Weights *w, Gguf *first, char *err, size_t errlen) {
    int n = (int)get_whole(first, "split.count", 0, 65535, 0);
    if (n < 2 || first->in.failed) return first->in.failed ? -1 : 0;
    get_whole(first, "split.no", 0, 0, NEEDED); // the first is the one to name
    int64_t n_tensors = get_whole(first, "split.tensors.count", 1, INT_MAX, NEEDED);
    if (first->in.failed) return -1;
    const char *path = first->file.path;
    size_t length = strlen(path), stem = length - (length < SPLIT_NAME ? length : SPLIT_NAME);
    char want[SPLIT_NAME + 8];
    snprintf(want, sizeof want, "-00001-of-%05d.gguf", n);
    if (strcmp(path + stem, want) != 0) {
        return fail(err, errlen, "%s: split.count: %d: expected a name that ends in %s", path, n, want);
    }
    char *other = malloc(length + sizeof want);
    int rc = other ? 0 : fail(err, errlen, "%s: out of memory", path);
    for (int i = 1; i < n && !rc; i++) {
        snprintf(other, length + sizeof want, "%.*s-%05d-of-%05d.gguf", (int)stem, path, i + 1, n);
        rc = add_part(w, other, i, n, err, errlen);
    }
    free(other);
    if (rc || (int64_t)weights_count(w) == n_tensors) return rc;
    return fail(err, errlen, "%s: split.tensors.count: expected %lld in all %d files, found %zu", path,
                (long long)n_tensors, n, weights_count(w));
}

static int read_model(Model *m, Gguf *g, char *err, size_t errlen) {
    File file = m->weights.files[0]; // the array moves when parts are added
    if (gguf_read(g, &file, err, errlen)) return -1;
    snprintf(m->kind, sizeof m->kind, "GGUF v%u", g->version);
    read_config(g, &m->config);
    if (g->in.failed || add_tensors(&m->weights, g, err, errlen) || add_parts(&m->weights, g, err, errlen)) return -1;
    return finish_config(m, err, errlen);
}

int load_gguf_file(Model *m, File *file, char *err, size_t errlen) {
    Gguf g;
    memset(m, 0, sizeof *m);
    arrput(m->weights.files, *file);
    memset(file, 0, sizeof *file);
    int rc = read_model(m, &g, err, errlen);
    gguf_free(&g);
    if (!rc) return 0;
    weights_free(&m->weights);
    memset(m, 0, sizeof *m);
    return -1;
}

// ---- vocabulary

// Byte b's token is written <0xHH>.
static bool is_byte_token(const Piece *p) {
    static const char hex[] = "0123456789ABCDEFabcdef";
    return p->len == 6 && !memcmp(p->text, "<0x", 3) && memchr(hex, p->text[3], sizeof hex - 1) &&
           memchr(hex, p->text[4], sizeof hex - 1) && p->text[5] == '>';
}

// n bytes to `to`, U+2581 as the space that it stands for. Returns the bytes written.
static int copy_piece(char *to, const char *text, uint64_t n) {
    char *at = to;
    for (uint64_t i = 0; i < n; i++) {
        bool space = n - i >= 3 && !memcmp(text + i, "\xE2\x96\x81", 3);
        *at++ = space ? ' ' : text[i];
        if (space) i += 2;
    }
    return (int)(at - to);
}

// An array of the vocabulary, the cursor at it: its offset, or 0 after a failure. *n: the tokens; 0 is not known yet.
static uint64_t open_array(Gguf *g, const char *key, Type type, uint64_t *n) {
    char wanted[40];
    snprintf(wanted, sizeof wanted, "an array of %s", types[type].name);
    const Value *v = open_value(g, key, true, true, 1u << type, wanted);
    if (!v) return 0;
    if (*n && v->count != *n) {
        cursor_fail(&g->in, v->at, "%s: expected %llu elements, as many as tokens, found %llu", key,
                    (unsigned long long)*n, (unsigned long long)v->count);
    }
    *n = v->count;
    return g->in.failed ? 0 : v->at;
}

// The texts: read first for their extent, then copied.
static void read_texts(Gguf *g, Vocab *v, uint64_t at, uint64_t n) {
    skip_elements(&g->in, "tokenizer.ggml.tokens", STRING, n);
    v->text = malloc(g->in.pos - at);
    if (!v->text) cursor_fail(&g->in, at, "tokenizer.ggml.tokens: out of memory");
    char *to = v->text;
    g->in.pos = at;
    for (uint64_t id = 0, bytes; id < n && !g->in.failed; id++) {
        uint64_t here = g->in.pos;
        const char *text = read_string(&g->in, &bytes, "token");
        if (bytes > INT_MAX) cursor_fail(&g->in, here, "token %d: expected less than 2 GiB", (int)id);
        if (g->in.failed) return;
        Piece p = {.text = to, .len = copy_piece(to, text, bytes)};
        arrput(v->pieces, p);
        to += p.len;
    }
}

static void read_scores(Gguf *g, Vocab *v, uint64_t at) {
    g->in.pos = at;
    for (ptrdiff_t id = 0; id < arrlen(v->pieces) && !g->in.failed; id++) {
        v->pieces[id].score = cursor_f32(&g->in, "score");
        if (!isnan(v->pieces[id].score)) continue;
        cursor_fail(&g->in, g->in.pos - 4, "token %d: score: expected a number, found NaN", (int)id);
    }
}

static void read_token_types(Gguf *g, Vocab *v, uint64_t at) {
    static const TokenType token_types[] = {TOKEN_NORMAL, TOKEN_NORMAL, TOKEN_UNKNOWN, TOKEN_CONTROL,
                                            TOKEN_USER,   TOKEN_UNUSED, TOKEN_BYTE}; // 1 to 6; there is no 0
    g->in.pos = at;
    for (ptrdiff_t id = 0; id < arrlen(v->pieces) && !g->in.failed; id++) {
        int32_t type = cursor_i32(&g->in, "token type");
        if (type < 1 || type > 6) {
            cursor_fail(&g->in, g->in.pos - 4, "token %d: type: expected 1 to 6, found %d", (int)id, type);
            return;
        }
        Piece *p = &v->pieces[id];
        p->type = token_types[type];
        if (p->type != TOKEN_BYTE || is_byte_token(p)) continue;
        cursor_fail(&g->in, g->in.pos - 4, "token %d: expected the text of a byte, <0xHH>, found '%.*s'", (int)id,
                    p->len < 40 ? p->len : 40, p->text);
    }
}

// The id of a special token: absent, as SentencePiece numbers them where there is one; all bits set: none.
static int get_token(Gguf *g, const char *key, int usual, int n) {
    const Value *v = open_value(g, key, false, false, WHOLE_TYPES, "a whole number");
    if (!v) return usual < n ? usual : -1;
    int64_t id = read_whole(&g->in, v->type);
    if (id == UINT32_MAX || id == -1) return -1;
    if (id < 0 || id >= n) {
        cursor_fail(&g->in, v->at, "%s: expected a token below %d, found %lld", key, n, (long long)id);
    }
    return (int)id;
}

static void read_vocab(Gguf *g, Vocab *v, int vocab_size) {
    need_text(g, "tokenizer.ggml.model", "llama", true);
    uint64_t n = 0;
    uint64_t scores = 0, token_types = 0, tokens = open_array(g, "tokenizer.ggml.tokens", STRING, &n);
    if (!g->in.failed && (n < 1 || n > MAX_TOKENS || (vocab_size && n != (uint64_t)vocab_size))) {
        cursor_fail(&g->in, tokens, "tokenizer.ggml.tokens: expected %d%s, found %llu", vocab_size ? vocab_size : 1,
                    vocab_size ? ", the model's tokens" : " or more", (unsigned long long)n);
    }
    if (!g->in.failed) scores = open_array(g, "tokenizer.ggml.scores", F32, &n);
    if (!g->in.failed) token_types = open_array(g, "tokenizer.ggml.token_type", I32, &n);
    g->in.pos = tokens;
    if (!g->in.failed) read_texts(g, v, tokens, n);
    if (!g->in.failed) read_scores(g, v, scores);
    if (!g->in.failed) read_token_types(g, v, token_types);
    v->bos_id = get_token(g, "tokenizer.ggml.bos_token_id", 1, (int)n);
    v->eos_id = get_token(g, "tokenizer.ggml.eos_token_id", 2, (int)n);
    v->unk_id = get_token(g, "tokenizer.ggml.unknown_token_id", 0, (int)n);
    v->no_bos = !get_bool(g, "tokenizer.ggml.add_bos_token", true);
    v->add_space_prefix = get_bool(g, "tokenizer.ggml.add_space_prefix", true);
}

int load_gguf_vocab(Vocab *v, const File *file, int vocab_size, char *err, size_t errlen) {
    Gguf g;
    memset(v, 0, sizeof *v);
    gguf_read(&g, file, err, errlen);
    if (!g.in.failed) read_vocab(&g, v, vocab_size);
    bool failed = g.in.failed;
    gguf_free(&g);
    if (!failed) return 0;
    arrfree(v->pieces);
    free(v->text);
    memset(v, 0, sizeof *v);
    return -1;
}
