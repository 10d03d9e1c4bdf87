// load_llama2c: llama2.c's .bin (v0, v1 and v2) and its tokenizer.bin.
//
// Owns the order of the arrays in these files; they carry no names, so that order is the format. Refuses a header
// that cannot be a model and a file one byte shorter or longer than its header implies, before a pointer is made.
// Called by engine_open. Source: github.com/karpathy/llama2.c, export.py, run.c and runq.c.
#include "load.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <stb/stb_ds.h>

enum {
    MAGIC = 0x616b3432, // "ak42"
    HEADER_BYTES = 256, // v1 and v2; v0 is its seven numbers
    VERSION_AT = 4,
    SHARED_AT = 36,
    GROUP_AT = 37, // right behind the flag byte: unaligned
};

typedef struct {
    int version;
    int group; // v2: int8 values per scale; 0: all fp32
    Config config;
} Header;

// One array of the file: a tensor, or n_layers of them in a row.
typedef struct {
    const char *name;   // as in weights.h, between "blk.N." and ".weight"; NULL: skipped
    int n_layers;       // 0: one for the whole model
    int64_t rows, cols; // cols 0: a norm, [rows]
} Array;

enum { TOKENS, ATTN_NORM, WQ, WK, WV, WO, FFN_NORM, W1, W2, W3, OUT_NORM, ROPE, CLASSIFIER, N_ARRAYS };

static const unsigned char order_v0[] = {TOKENS, ATTN_NORM, WQ, WK,       WV,   WO,        FFN_NORM,
                                         W1,     W2,        W3, OUT_NORM, ROPE, CLASSIFIER};
static const unsigned char order_v1[] = {ATTN_NORM, FFN_NORM, OUT_NORM, TOKENS, WQ, WK, WV, WO, W1, W2, W3, CLASSIFIER};

// -- header

static int check_header(Header *h, const char *path, char *err, size_t errlen) {
    Config *c = &h->config;
    LayerKind *k = &c->kinds[0];
    bool whole = k->n_heads > 0 && c->dim % k->n_heads == 0;
    k->k_dim = k->v_dim = whole ? c->dim / k->n_heads : 2; // a stand-in: the other numbers are judged first
    k->rope = (RopeConfig){.rotary_dim = k->k_dim, .theta = 10000, .pairing = ROPE_INTERLEAVED};
    c->norm_eps = 1e-5f;
    config_set_layers(c, &(LayerRules){0});
    if (config_check(c, path, err, errlen)) return -1;
    if (!whole) {
        return fail(err, errlen, "%s: n_heads: expected a divisor of dim = %d, found %d", path, c->dim, k->n_heads);
    }
    return 0;
}

static int read_header(Header *h, const File *file, char *err, size_t errlen) {
    *h = (Header){0};
    Cursor in = cursor_at(file, 0, err, errlen);
    if (cursor_u32(&in, "header") == MAGIC) {
        h->version = cursor_i32(&in, "version");
        if (h->version != 1 && h->version != 2) {
            cursor_fail(&in, VERSION_AT, "version: expected 1 or 2, found %d", h->version);
        }
    } else {
        in.pos = 0;
    }
    Config *c = &h->config;
    LayerKind *k = &c->kinds[0];
    int *const numbers[] = {&c->dim,        &c->hidden_dim, &c->n_layers,   &k->n_heads,
                            &k->n_kv_heads, &c->vocab_size, &c->max_seq_len};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) *numbers[i] = cursor_i32(&in, "header");

    unsigned char shared = 1;
    if (h->version) {
        shared = cursor_u8(&in, "shared_classifier");
        if (shared > 1) cursor_fail(&in, SHARED_AT, "shared_classifier: expected 0 or 1, found %d", shared);
    } else if (c->vocab_size < 0 && c->vocab_size > INT_MIN) { // v0's sign is the flag
        c->vocab_size = -c->vocab_size;
        shared = 0;
    }
    c->tied = shared;
    if (h->version == 2) {
        h->group = cursor_i32(&in, "group_size");
        if (h->group < 1) cursor_fail(&in, GROUP_AT, "group_size: expected 1 or more, found %d", h->group);
    }
    return in.failed ? -1 : check_header(h, file->path, err, errlen);
}

// -- arrays

static void list_arrays(Array arrays[N_ARRAYS], const Config *c) {
    int n = c->n_layers;
    int64_t dim = c->dim, hidden = c->hidden_dim, kv_dim = kind_k_dim(&c->kinds[0]);
    const Array list[N_ARRAYS] = {
        [TOKENS] = {"token_embd", 0, c->vocab_size, dim},
        [ATTN_NORM] = {"attn_norm", n, dim, 0},
        [WQ] = {"attn_q", n, dim, dim},
        [WK] = {"attn_k", n, kv_dim, dim},
        [WV] = {"attn_v", n, kv_dim, dim},
        [WO] = {"attn_output", n, dim, dim},
        [FFN_NORM] = {"ffn_norm", n, dim, 0},
        [W1] = {"ffn_gate", n, hidden, dim},
        [W2] = {"ffn_down", n, dim, hidden},
        [W3] = {"ffn_up", n, hidden, dim},
        [OUT_NORM] = {"output_norm", 0, dim, 0},
        [ROPE] = {NULL, 0, c->max_seq_len, c->kinds[0].k_dim}, // cos and sin, [seq_len][head_dim / 2] each
        [CLASSIFIER] = {"output", 0, c->vocab_size, dim},
    };
    memcpy(arrays, list, sizeof list);
}

// Bytes of one tensor of `a` (one layer's), or 0 with a line in err.
static uint64_t tensor_extent(const Header *h, const Array *a, const char *path, char *err, size_t errlen) {
    uint64_t count, bytes, group = a->cols ? (uint64_t)h->group : 0;
    bool fits = mul_u64((uint64_t)a->rows, a->cols ? (uint64_t)a->cols : 1, &count);
    if (fits && group) {
        if (count % group) {
            fail(err, errlen, "%s: at byte %d: group_size: expected a divisor of the %llu values of %s, found %d", path,
                 GROUP_AT, (unsigned long long)count, a->name, h->group);
            return 0;
        }
        if (count % sizeof(float)) {
            fail(err, errlen, "%s: %s: expected int8 values in a multiple of 4 (fp32 scales follow), found %llu", path,
                 a->name, (unsigned long long)count);
            return 0;
        }
        fits = mul_u64(count / group, sizeof(float), &bytes) && add_u64(bytes, count, &bytes);
    } else if (fits) {
        fits = mul_u64(count, sizeof(float), &bytes);
    }
    if (!fits) fail(err, errlen, "%s: %s: its size does not fit 64 bits", path, a->name ? a->name : "RoPE table");
    return fits ? bytes : 0;
}

// The file must be exactly as long as its header says.
static int check_size(const Header *h, const Array arrays[], const unsigned char *order, int n, const File *file,
                      char *err, size_t errlen) {
    uint64_t total = h->version ? HEADER_BYTES : 7 * sizeof(int32_t);
    for (int i = 0; i < n; i++) {
        const Array *a = &arrays[order[i]];
        uint64_t bytes = tensor_extent(h, a, file->path, err, errlen);
        if (!bytes) return -1;
        if (!mul_u64(bytes, a->n_layers ? (uint64_t)a->n_layers : 1, &bytes) || !add_u64(total, bytes, &total)) {
            return fail(err, errlen, "%s: the tensors' size does not fit 64 bits", file->path);
        }
    }
    if (file->size == total) return 0;
    return fail(err, errlen, "%s: %s: expected %llu bytes by its header, found %llu", file->path,
                file->size < total ? "the file is too short" : "bytes follow the last tensor",
                (unsigned long long)total, (unsigned long long)file->size);
}

// Enter the tensors of one array into the table; `in` moves behind it. check_size has seen that all of it is there.
static int add_array(Model *m, const Header *h, const Array *a, Cursor *in) {
    bool quantized = h->group && a->cols;
    Tensor t = {.dtype = quantized ? DTYPE_I8G : DTYPE_F32, .n_dims = a->cols ? 2 : 1, .shape = {a->rows, a->cols}};
    uint64_t count = (uint64_t)tensor_count(&t), n_scales = quantized ? count / (uint64_t)h->group : 0;
    if (quantized) t.group = h->group;
    int n = a->n_layers ? a->n_layers : 1;
    for (int i = 0; i < n; i++) {
        t.data = cursor_bytes(in, quantized ? count : count * sizeof(float), a->name ? a->name : "RoPE table");
        const void *scales = quantized ? cursor_bytes(in, n_scales * sizeof(float), a->name) : NULL;
        if (in->failed) return -1;
        if (!a->name) continue;
        t.scales = scales;
        char name[64];
        if (a->n_layers) snprintf(name, sizeof name, "blk.%d.%s.weight", i, a->name);
        else snprintf(name, sizeof name, "%s.weight", a->name);
        if (weights_add(&m->weights, name, t, in->err, in->errlen)) return -1;
    }
    return 0;
}

static int read_model(Model *m, const File *file, char *err, size_t errlen) {
    Header h;
    char why[256];
    if (read_header(&h, file, why, sizeof why)) {
        if (h.version) return fail(err, errlen, "%s", why);
        size_t path = strlen(file->path) + 2; // why begins with it and ": "
        return fail(err, errlen, "%s: not a GGUF, safetensors or llama2.c file (read as llama2.c's header: %s)",
                    file->path, strlen(why) > path ? why + path : why);
    }
    m->config = h.config;
    snprintf(m->kind, sizeof m->kind, "llama2.c v%d", h.version);

    Array arrays[N_ARRAYS];
    list_arrays(arrays, &h.config);
    const unsigned char *order = h.version ? order_v1 : order_v0;
    int n = (int)(h.version ? sizeof order_v1 : sizeof order_v0);
    if (h.config.tied) n--; // the classifier comes last
    if (check_size(&h, arrays, order, n, file, err, errlen)) return -1;
    Cursor in = cursor_at(file, h.version ? HEADER_BYTES : 7 * sizeof(int32_t), err, errlen);
    for (int i = 0; i < n; i++) {
        if (add_array(m, &h, &arrays[order[i]], &in)) return -1;
    }
    return 0;
}

int load_llama2c_file(Model *m, File *file, char *err, size_t errlen) {
    memset(m, 0, sizeof *m);
    arrput(m->weights.files, *file);
    memset(file, 0, sizeof *file);
    if (!read_model(m, &m->weights.files[0], err, errlen)) return 0;
    weights_free(&m->weights);
    memset(m, 0, sizeof *m);
    return -1;
}

// -- tokenizer.bin

enum { N_CONTROL = 3, N_BYTE_TOKENS = 256, RECORD_BYTES = 8 }; // <unk>, <s>, </s>; <0x00> ..; f32 score, i32 length

// The format stores no types: the id decides.
static TokenType piece_type(Cursor *in, Piece *p, int id, int n) {
    if (id < N_CONTROL) return id ? TOKEN_CONTROL : TOKEN_UNKNOWN;
    if (n < N_CONTROL + N_BYTE_TOKENS || id >= N_CONTROL + N_BYTE_TOKENS) return TOKEN_NORMAL;
    int b = id - N_CONTROL;
    p->type = TOKEN_BYTE;
    if (piece_byte(p) != b) {
        cursor_fail(in, in->pos - (uint64_t)p->len, "token %d: expected the byte token <0x%02X>, found other text", id,
                    b);
    }
    return TOKEN_BYTE;
}

// A record: its score and its text.
static Piece read_record(Cursor *in, int id, uint32_t max_length) {
    uint64_t at = in->pos, left = in->file->size - at;
    if (left < RECORD_BYTES) {
        cursor_fail(in, at, "token %d: expected a record of %d bytes or more, found %llu before the end of the file",
                    id, RECORD_BYTES, (unsigned long long)left);
        return (Piece){0};
    }
    Piece p = {.score = cursor_f32(in, "score")};
    p.len = cursor_i32(in, "length"); // not in the initializer, whose order is free
    left -= RECORD_BYTES;
    if (isnan(p.score)) cursor_fail(in, at, "token %d: score: expected a number, found NaN", id);
    if (p.len < 0 || (uint64_t)p.len > left) {
        cursor_fail(in, at + 4, "token %d: length: expected 0 to the %llu bytes left, found %d", id,
                    (unsigned long long)left, p.len);
    } else if ((uint32_t)p.len > max_length) {
        cursor_fail(in, at + 4, "token %d: length: expected at most max_token_length = %u, found %d", id, max_length,
                    p.len);
    }
    if (in->failed) return (Piece){0};
    p.text = (const char *)cursor_bytes(in, (uint64_t)p.len, "text");
    return p;
}

// Records up to the end of the file; then their types, which depend on how many there are.
static void read_records(Cursor *in, Vocab *v) {
    uint32_t max_length = cursor_u32(in, "max_token_length");
    while (!in->failed && in->pos < in->file->size && arrlen(v->pieces) < MAX_VOCAB) {
        Piece p = read_record(in, (int)arrlen(v->pieces), max_length);
        if (!in->failed) arrput(v->pieces, p);
    }
    int n = (int)arrlen(v->pieces);
    if (!n) cursor_fail(in, in->pos, "token 0: expected a record, found the end of the file");
    if (in->pos < in->file->size) cursor_fail(in, in->pos, "expected at most %d tokens", MAX_VOCAB);
    for (int id = 0; id < n && !in->failed; id++) {
        Piece *p = &v->pieces[id];
        in->pos = (uint64_t)((const uint8_t *)p->text - in->file->data) + (uint64_t)p->len;
        p->type = piece_type(in, p, id, n);
        bool framed = p->type == TOKEN_CONTROL && p->len > 2 && p->text[0] == '\n' && p->text[p->len - 1] == '\n';
        if (!framed) continue;
        p->text++; // llama2.c's exporter writes "\n<s>\n" for "<s>"
        p->len -= 2;
    }
}

int load_llama2c_tokenizer_file(Vocab *v, const File *file, int vocab_size, char *err, size_t errlen) {
    memset(v, 0, sizeof *v);
    Cursor in = cursor_at(file, 0, err, errlen);
    read_records(&in, v);
    if (in.failed) {
        vocab_free(v);
        return -1;
    }
    int n = (int)arrlen(v->pieces);
    v->bos_id = n > 1 ? 1 : -1;
    v->eos_id = n > 2 ? 2 : -1;
    v->add_space_prefix = true; // unk_id is 0
    if (n < vocab_size)
        note(&v->notes, "the tokenizer has %d tokens, the model %d: the others have no text", n, vocab_size);
    if (vocab_size) vocab_truncate(v, vocab_size);
    return 0;
}

int load_llama2c_tokenizer(Vocab *v, File *file, const char *path, int vocab_size, char *err, size_t errlen) {
    memset(v, 0, sizeof *v);
    if (file_map(file, path, err, errlen)) return -1;
    if (!load_llama2c_tokenizer_file(v, file, vocab_size, err, errlen)) return 0;
    file_unmap(file);
    return -1;
}

bool file_is_llama2c(const File *file) {
    Header h;
    Array arrays[N_ARRAYS];
    if (read_header(&h, file, NULL, 0)) return false;
    list_arrays(arrays, &h.config);
    int n = (int)(h.version ? sizeof order_v1 : sizeof order_v0) - h.config.tied;
    return !check_size(&h, arrays, h.version ? order_v1 : order_v0, n, file, NULL, 0);
}
