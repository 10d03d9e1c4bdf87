// gguf: see gguf.h.
#include "gguf.h"

#include "ggml_types.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

enum {
    MAGIC = 0x46554747, // "GGUF"
    VERSION_AT = 4,
    MAX_KEY = 65535,
    MIN_ALIGNMENT = 8,
    MAX_ALIGNMENT = 1 << 20,
    MIN_PAIR_BYTES = 8 + 1 + 4 + 1,
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8,
};

static const struct {
    const char *name;
    unsigned bytes; // 0: the value has its own length
} types[N_GGUF_TYPES] = {{"u8", 1},   {"i8", 1},     {"u16", 2},   {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
                         {"bool", 1}, {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8}};

bool file_is_gguf(const File *file) {
    return file->size >= 4 && !memcmp(file->data, "GGUF", 4);
}

const char *gguf_type_name(GgufType type) {
    return types[type].name;
}

// ---- metadata

static GgufType read_type(Cursor *in, const char *what, const char *key) {
    uint64_t at = in->pos;
    uint32_t type = cursor_u32(in, what);
    if (type >= N_GGUF_TYPES)
        cursor_fail(in, at, "%.80s: %s: expected 0 to %d, found %u", key, what, N_GGUF_TYPES - 1, type);
    return in->failed ? GGUF_U8 : (GgufType)type;
}

const char *gguf_read_string(Cursor *in, uint64_t *n, const char *what) {
    *n = cursor_u64(in, what);
    return (const char *)cursor_bytes(in, *n, what);
}

// Step over `count` elements from the cursor on.
void gguf_skip(Cursor *in, const char *key, GgufType type, uint64_t count) {
    uint64_t bytes, n;
    char what[100];
    snprintf(what, sizeof what, "%.80s", key);
    if (type != GGUF_STRING) {
        if (!mul_u64(count, types[type].bytes, &bytes)) bytes = UINT64_MAX;
        cursor_bytes(in, bytes, what);
        return;
    }
    for (uint64_t i = 0; i < count && !in->failed; i++) gguf_read_string(in, &n, what); // each takes 8 bytes at least
}

static GgufValue read_value(Cursor *in, const char *key) {
    GgufValue v = {.type = read_type(in, "type", key), .count = 1};
    if (v.type == GGUF_ARRAY) {
        v.is_array = true;
        v.type = read_type(in, "element type", key);
        if (v.type == GGUF_ARRAY) cursor_fail(in, in->pos - 4, "%.80s: expected no array of arrays", key);
        v.count = cursor_u64(in, "array length");
    }
    v.at = in->pos;
    if (!in->failed) gguf_skip(in, key, v.type, v.count);
    return v;
}

static void read_pair(Gguf *g) {
    Cursor *in = &g->in;
    uint64_t at = in->pos, n;
    const char *text = gguf_read_string(in, &n, "key");
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
    GgufValue v = read_value(in, key);
    if (!in->failed && shgeti(g->pairs, key) >= 0) cursor_fail(in, at, "%.80s: expected once, found twice", key);
    if (!in->failed) shput(g->pairs, key, v);
    free(key);
}

// ---- asking for metadata

const GgufValue *gguf_get_value(Gguf *g, const char *key, bool needed) {
    ptrdiff_t i = g->in.failed ? -1 : shgeti(g->pairs, key);
    if (i >= 0) return &g->pairs[i].value;
    if (needed && !g->in.failed) {
        g->in.failed = true;
        fail(g->in.err, g->in.errlen, "%s: %s: expected, not found", g->file.path, key);
    }
    return NULL;
}

const GgufValue *gguf_open(Gguf *g, const char *key, bool needed, bool is_array, unsigned mask, const char *wanted) {
    const GgufValue *v = gguf_get_value(g, key, needed);
    if (!v) return NULL;
    g->in.pos = v->at;
    if (v->is_array == is_array && mask >> v->type & 1) return v;
    cursor_fail(&g->in, v->at, "%s: expected %s, found %s%s", key, wanted, v->is_array ? "an array of " : "",
                types[v->type].name);
    return NULL;
}

int64_t gguf_read_whole(Cursor *in, GgufType type) {
    switch (type) {
    case GGUF_U8: return cursor_u8(in, "number");
    case GGUF_I8: return (int8_t)cursor_u8(in, "number");
    case GGUF_U16:
    case GGUF_I16: {
        uint32_t low = cursor_u8(in, "number"), v = low | (uint32_t)cursor_u8(in, "number") << 8;
        return type == GGUF_U16 ? (int64_t)v : (int16_t)v;
    }
    case GGUF_U32: return cursor_u32(in, "number");
    case GGUF_I32: return cursor_i32(in, "number");
    case GGUF_I64: return (int64_t)cursor_u64(in, "number");
    default: {
        uint64_t v = cursor_u64(in, "number");
        return v > INT64_MAX ? INT64_MAX : (int64_t)v;
    }
    }
}

int64_t gguf_get_whole(Gguf *g, const char *key, int64_t least, int64_t most, double absent) {
    const GgufValue *v = gguf_open(g, key, absent == GGUF_NEEDED, false, GGUF_WHOLE_TYPES, "an integer");
    if (!v) return g->in.failed ? least : (int64_t)absent;
    int64_t n = gguf_read_whole(&g->in, v->type);
    if (n >= least && n <= most) return n;
    cursor_fail(&g->in, v->at, "%s: expected %lld to %lld, found %lld", key, (long long)least, (long long)most,
                (long long)n);
    return least;
}

bool gguf_is_array(Gguf *g, const char *key) {
    const GgufValue *v = gguf_get_value(g, key, false);
    return v && v->is_array;
}

void gguf_get_wholes(Gguf *g, const char *key, int least, int most, int n, int *values) {
    const GgufValue *v = gguf_open(g, key, true, true, GGUF_WHOLE_TYPES | 1u << GGUF_BOOL, "an array of integers");
    if (v && v->count != (uint64_t)n) {
        cursor_fail(&g->in, v->at, "%s: expected %d elements, one for each layer, found %llu", key, n,
                    (unsigned long long)v->count);
    }
    for (int i = 0; i < n; i++) {
        int64_t x = g->in.failed ? least : gguf_read_whole(&g->in, v->type == GGUF_BOOL ? GGUF_U8 : v->type);
        if (!g->in.failed && (x < least || x > most)) {
            cursor_fail(&g->in, v->at, "%s: layer %d: expected %d to %d, found %lld", key, i, least, most,
                        (long long)x);
        }
        values[i] = g->in.failed ? least : (int)x;
    }
}

float gguf_get_float(Gguf *g, const char *key, double absent) {
    const GgufValue *v = gguf_open(g, key, absent == GGUF_NEEDED, false, 1u << GGUF_F32 | 1u << GGUF_F64, "a number");
    if (!v) return g->in.failed ? 0 : (float)absent;
    if (v->type == GGUF_F32) return cursor_f32(&g->in, key);
    uint64_t bits = cursor_u64(&g->in, key);
    double d;
    memcpy(&d, &bits, sizeof d);
    return (float)d;
}

double gguf_get_number(Gguf *g, const char *key) {
    const GgufValue *v = gguf_get_value(g, key, true);
    bool whole = v && !v->is_array && GGUF_WHOLE_TYPES >> v->type & 1;
    return whole ? (double)gguf_get_whole(g, key, INT64_MIN, INT64_MAX, GGUF_NEEDED)
                 : (double)gguf_get_float(g, key, GGUF_NEEDED);
}

bool gguf_get_bool(Gguf *g, const char *key, bool absent) {
    const GgufValue *v = gguf_open(g, key, false, false, 1u << GGUF_BOOL, "a bool");
    if (!v) return absent;
    uint8_t b = cursor_u8(&g->in, key);
    if (b > 1) cursor_fail(&g->in, v->at, "%s: expected 0 or 1, found %d", key, b);
    return b;
}

const char *gguf_get_text(Gguf *g, const char *key, bool needed, uint64_t *n) {
    const GgufValue *v = gguf_open(g, key, needed, false, 1u << GGUF_STRING, "a string");
    *n = 0;
    return v ? gguf_read_string(&g->in, n, key) : NULL;
}

void gguf_need_text(Gguf *g, const char *key, const char *want, bool needed) {
    uint64_t n;
    const char *text = gguf_get_text(g, key, needed, &n);
    if (!text || (n == strlen(want) && !memcmp(text, want, n))) return;
    cursor_fail(&g->in, gguf_get_value(g, key, true)->at, "%s: expected %s (no other is supported), found '%.*s'", key,
                want, n < 40 ? (int)n : 40, text);
}

// ---- tensors

static void read_name(Gguf *g, GgufInfo *info) {
    uint64_t at = g->in.pos, n;
    const char *text = gguf_read_string(&g->in, &n, "tensor name");
    if (g->in.failed) return;
    if (n && n <= GGUF_MAX_NAME && !memchr(text, 0, n)) memcpy(info->name, text, n);
    else
        cursor_fail(&g->in, at, "tensor name: expected 1 to %d bytes without NUL, found %llu", GGUF_MAX_NAME,
                    (unsigned long long)n);
}

// The dimensions, innermost first in the file; *count is their product.
static void read_dims(Gguf *g, GgufInfo *info, uint64_t *count) {
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

static void read_dtype(Gguf *g, GgufInfo *info) {
    uint64_t at = g->in.pos;
    uint32_t number = cursor_u32(&g->in, "tensor type");
    const char *name = ggml_type_name(number);
    char list[200];
    info->tensor.dtype = ggml_type_dtype(number);
    if (info->tensor.dtype != DTYPE_OTHER || g->in.failed) return;
    ggml_types_list(list, sizeof list);
    cursor_fail(&g->in, at, "tensor %s: type: expected one of %s, found %s (number %u)", info->name, list,
                name ? name : "a type that has no name here", number);
}

static void read_info(Gguf *g) {
    GgufInfo info = {0};
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
        GgufInfo *info = &g->infos[i];
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

int gguf_read(Gguf *g, const File *file, char *err, size_t errlen) {
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
    g->alignment = (uint64_t)gguf_get_whole(g, "general.alignment", MIN_ALIGNMENT, MAX_ALIGNMENT, 32);
    if (g->alignment & (g->alignment - 1)) {
        cursor_fail(&g->in, end, "general.alignment: expected a power of two, found %llu",
                    (unsigned long long)g->alignment);
    }
    g->in.pos = end;
    for (uint64_t i = 0; i < n_infos && !g->in.failed; i++) read_info(g);
    if (!g->in.failed) check_places(g);
    return g->in.failed ? -1 : 0;
}

void gguf_free(Gguf *g) {
    shfree(g->pairs);
    arrfree(g->infos);
}
