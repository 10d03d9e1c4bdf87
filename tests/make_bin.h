// make_bin.h: writes small llama2.c models and tokenizers with random contents, for tests.
//
//   BinSpec spec = {32, 48, 2, 4, 2, 300, 64, .tied = true, .version = 2, .group = 16, .seed = 1}; // sizes in order
//   make_bin(BIN_DIR "m.bin", &spec);
//   make_tokenizer_bin(BIN_DIR "m.tokenizer.bin", spec.vocab_size, 1);
//
// The weights depend on the seed and the dims only: the same spec with another version (or tied) holds the same
// values.
#pragma once
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BIN_DIR "build/tests/tmp/" // make_bin and make_tokenizer_bin create it
#define BIN_UNUSED __attribute__((unused)) static

typedef struct {
    int dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len;
    bool tied;
    int version;      // 0, 1, 2
    int group;        // v2: int8 values per scale; 0: dim (which divides every tensor)
    bool dequantized; // v0, v1: hold q * scale, exactly what a reader of the v2 file with this group computes
    uint64_t seed;
} BinSpec;

typedef enum {
    BIN_TOKENS,
    BIN_ATTN_NORM,
    BIN_WQ,
    BIN_WK,
    BIN_WV,
    BIN_WO,
    BIN_FFN_NORM,
    BIN_W1, // gate
    BIN_W2, // down
    BIN_W3, // up
    BIN_OUT_NORM,
    BIN_CLASSIFIER,
    BIN_N_KINDS
} BinKind;

// The name in src/weights.h: "token_embd", or "attn_q" of "blk.N.attn_q.weight".
BIN_UNUSED const char *bin_name(BinKind kind) {
    static const char *const names[BIN_N_KINDS] = {"token_embd", "attn_norm",   "attn_q",      "attn_k",
                                                   "attn_v",     "attn_output", "ffn_norm",    "ffn_gate",
                                                   "ffn_down",   "ffn_up",      "output_norm", "output"};
    return names[kind];
}

BIN_UNUSED bool bin_per_layer(BinKind kind) {
    return kind != BIN_TOKENS && kind != BIN_OUT_NORM && kind != BIN_CLASSIFIER;
}

BIN_UNUSED void bin_full_name(char name[80], BinKind kind, int layer) {
    if (bin_per_layer(kind)) snprintf(name, 80, "blk.%d.%s.weight", layer, bin_name(kind));
    else snprintf(name, 80, "%s.weight", bin_name(kind));
}

BIN_UNUSED bool bin_is_norm(BinKind kind) {
    return kind == BIN_ATTN_NORM || kind == BIN_FFN_NORM || kind == BIN_OUT_NORM;
}

// Shape of one layer's tensor; cols is 0 for a norm. Returns its number of values.
BIN_UNUSED size_t bin_shape(const BinSpec *s, BinKind kind, int *rows, int *cols) {
    int kv_dim = s->dim / s->n_heads * s->n_kv_heads;
    *rows = s->dim;
    *cols = bin_is_norm(kind) ? 0 : s->dim;
    if (kind == BIN_TOKENS || kind == BIN_CLASSIFIER) *rows = s->vocab_size;
    if (kind == BIN_WK || kind == BIN_WV) *rows = kv_dim;
    if (kind == BIN_W1 || kind == BIN_W3) *rows = s->hidden_dim;
    if (kind == BIN_W2) *cols = s->hidden_dim;
    return (size_t)*rows * (size_t)(*cols ? *cols : 1);
}

// splitmix64: every seed gives a good stream.
static uint64_t bin_random(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static float bin_uniform(uint64_t *state) { // [-1, 1)
    return (float)((double)(bin_random(state) >> 40) / 8388608.0 - 1.0);
}

// The values of one tensor, malloc'd: norms 0.5 to 1.5; matrices and embeddings uniform around 0 with standard
// deviation 1 / sqrt(cols) and 1 (an unshared classifier counts as a matrix).
BIN_UNUSED float *bin_values(const BinSpec *s, BinKind kind, int layer) {
    int rows, cols;
    size_t n = bin_shape(s, kind, &rows, &cols);
    float *v = malloc(n * sizeof *v);
    uint64_t state = s->seed * 1000003u + (uint64_t)layer * 64u + (uint64_t)kind;
    float reach = kind == BIN_TOKENS ? sqrtf(3) : cols ? sqrtf(3.0f / (float)cols) : 0.5f;
    for (size_t i = 0; v && i < n; i++) {
        float x = bin_uniform(&state) * reach; // of a norm: exact, so that a fused multiply-add changes nothing
        v[i] = cols ? x : x + 1;
    }
    return v;
}

BIN_UNUSED int bin_group(const BinSpec *s) {
    return s->group ? s->group : s->dim;
}

// Symmetric int8: scale = max |v| / 127 for each `group` consecutive values, q rounded to nearest. NULL outputs are
// skipped; with `v` writable and `back`, v becomes q * scale.
BIN_UNUSED void bin_quantize(float *v, size_t n, int group, int8_t *q, float *scales, bool back) {
    for (size_t begin = 0; begin < n; begin += (size_t)group) {
        float max = 0;
        for (int i = 0; i < group; i++) max = fmaxf(max, fabsf(v[begin + (size_t)i]));
        float scale = max / 127;
        if (scales) scales[begin / (size_t)group] = scale;
        for (int i = 0; i < group; i++) {
            float *p = &v[begin + (size_t)i];
            int8_t rounded = (int8_t)(scale > 0 ? lrintf(*p / scale) : 0);
            if (q) q[begin + (size_t)i] = rounded;
            if (back) *p = (float)rounded * scale;
        }
    }
}

static void bin_write(FILE *f, const void *p, size_t n) {
    if (fwrite(p, 1, n, f) != n) {
        perror("make_bin");
        exit(1);
    }
}

static FILE *bin_open(const char *path) {
    mkdir("build", 0777);
    mkdir("build/tests", 0777);
    mkdir(BIN_DIR, 0777);
    FILE *f = fopen(path, "wb");
    if (!f) {
        perror(path);
        exit(1);
    }
    return f;
}

static void bin_write_header(FILE *f, const BinSpec *s) {
    unsigned char header[256] = {0};
    int32_t magic[2] = {0x616b3432, s->version}, group = bin_group(s);
    int32_t n[7] = {s->dim, s->hidden_dim, s->n_layers, s->n_heads, s->n_kv_heads, s->vocab_size, s->seq_len};
    if (s->version == 0) {
        if (!s->tied) n[5] = -n[5];
        bin_write(f, n, sizeof n);
        return;
    }
    memcpy(header, magic, 8);
    memcpy(header + 8, n, sizeof n);
    header[36] = s->tied;
    if (s->version == 2) memcpy(header + 37, &group, 4);
    bin_write(f, header, sizeof header);
}

static void bin_write_tensor(FILE *f, const BinSpec *s, BinKind kind, int layer) {
    int rows, cols, group = bin_group(s);
    size_t n = bin_shape(s, kind, &rows, &cols);
    float *v = bin_values(s, kind, layer);
    bool grouped = cols && (s->version == 2 || s->dequantized);
    if (grouped && n % (size_t)group) {
        fprintf(stderr, "make_bin: a group of %d does not divide a tensor of %zu values\n", group, n);
        abort();
    }
    if (s->version == 2 && cols) {
        int8_t *q = malloc(n);
        float *scales = malloc(n / (size_t)group * sizeof *scales);
        bin_quantize(v, n, group, q, scales, false);
        bin_write(f, q, n);
        bin_write(f, scales, n / (size_t)group * sizeof *scales);
        free(q);
        free(scales);
    } else {
        if (s->dequantized && cols) bin_quantize(v, n, group, NULL, NULL, true);
        bin_write(f, v, n * sizeof *v);
    }
    free(v);
}

BIN_UNUSED void make_bin(const char *path, const BinSpec *s) {
    static const BinKind order_v0[] = {BIN_TOKENS,   BIN_ATTN_NORM, BIN_WQ, BIN_WK, BIN_WV,       BIN_WO,
                                       BIN_FFN_NORM, BIN_W1,        BIN_W2, BIN_W3, BIN_OUT_NORM, BIN_CLASSIFIER};
    static const BinKind order_v1[] = {BIN_ATTN_NORM, BIN_FFN_NORM, BIN_OUT_NORM, BIN_TOKENS, BIN_WQ, BIN_WK,
                                       BIN_WV,        BIN_WO,       BIN_W1,       BIN_W2,     BIN_W3, BIN_CLASSIFIER};
    FILE *f = bin_open(path);
    bin_write_header(f, s);
    for (int i = 0; i < BIN_N_KINDS; i++) {
        BinKind kind = s->version ? order_v1[i] : order_v0[i];
        if (kind == BIN_CLASSIFIER) {
            for (int k = 0; s->version == 0 && k < s->seq_len * (s->dim / s->n_heads); k++) {
                bin_write(f, &(float){0.5f}, sizeof(float)); // RoPE tables that readers skip
            }
            if (s->tied) continue;
        }
        for (int layer = 0; layer < (bin_per_layer(kind) ? s->n_layers : 1); layer++) {
            bin_write_tensor(f, s, kind, layer);
        }
    }
    fclose(f);
}

// -- tokenizer.bin

enum { BIN_PIECE_ROOM = 12 };

static bool bin_piece_taken(char (*pieces)[BIN_PIECE_ROOM + 1], int n, const char *piece) {
    for (int i = 0; i < n; i++) {
        if (!strcmp(pieces[i], piece)) return true;
    }
    return false;
}

// <unk>, <s>, </s>; from 259 pieces up the 256 byte tokens; " " and the letters; then joins of two earlier pieces,
// so that merging can reach each. The score of id is -id (the earlier piece merges first).
BIN_UNUSED void make_tokenizer_bin(const char *path, int vocab_size, uint64_t seed) {
    static const char *const control[] = {"<unk>", "\n<s>\n", "\n</s>\n"};
    static const char letters[] = " etaoinshrdlucmfwygpbvkxqjz.,'!?\"ABCDEFGHIJKLMNOPQRSTUVWXYZ\n0123456789-;:()";
    char(*pieces)[BIN_PIECE_ROOM + 1] = calloc((size_t)vocab_size, sizeof *pieces);
    int first = vocab_size >= 259 ? 259 : 3;
    uint32_t longest = 0;
    for (int id = 0; id < vocab_size; id++) {
        char *p = pieces[id];
        if (id < 3) strcpy(p, control[id]);
        else if (id < first) snprintf(p, sizeof *pieces, "<0x%02X>", (unsigned)(id - 3) & 255u);
        else if (id - first < (int)sizeof letters - 1) p[0] = letters[id - first];
        else {
            do {
                const char *a = pieces[first + (int)(bin_random(&seed) % (uint64_t)(id - first))];
                const char *b = pieces[first + (int)(bin_random(&seed) % (uint64_t)(id - first))];
                size_t n_a = strlen(a), n_b = strlen(b);
                if (n_a + n_b > BIN_PIECE_ROOM) continue;
                memmove(p, a, n_a);
                memmove(p + n_a, b, n_b + 1);
            } while (!p[0] || bin_piece_taken(pieces, id, p));
        }
        if (strlen(p) > longest) longest = (uint32_t)strlen(p);
    }
    FILE *f = bin_open(path);
    bin_write(f, &longest, 4);
    for (int id = 0; id < vocab_size; id++) {
        float score = id < first ? 0 : (float)-id;
        int32_t len = (int32_t)strlen(pieces[id]);
        bin_write(f, &score, 4);
        bin_write(f, &len, 4);
        bin_write(f, pieces[id], (size_t)len);
    }
    fclose(f);
    free(pieces);
}
