// kvcache: see kvcache.h.
#include "kvcache.h"

#include "file.h"
#include "quant.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64, WORD_BYTES = 4, BEHIND = KV_GROUP * WORD_BYTES };

struct KvCache {
    KvShape shape;
    size_t k_bytes, v_bytes, head_bytes, block_bytes; // k_bytes, v_bytes: of a head
    void ***blocks; // [n_layers][n_slots], NULL where nothing is stored or the window let go
    int n_slots;    // room in each block table
    int n_blocks;   // blocks of tokens that have been reserved, from the first
    struct {
        int window, first_kept; // its table holds blocks [0, n_sink_blocks) and [first_kept, n_blocks)
    } * layers;                 // [n_layers]
    int length;                 // tokens stored
    uint64_t bytes;
};

const char *kv_type_name(KvType t) {
    static const char *const names[] = {[KV_BF16] = "bf16", [KV_F32] = "f32", [KV_Q8] = "q8"};
    return (unsigned)t < sizeof names / sizeof *names ? names[t] : NULL;
}

size_t kv_value_bytes(KvType t) {
    return t == KV_F32 ? sizeof(float) : t == KV_BF16 ? sizeof(uint16_t) : sizeof(int8_t);
}

size_t kv_token_bytes(KvType t, int head_dim) {
    return 2 * (kv_value_bytes(t) * (size_t)head_dim + (t == KV_Q8 ? sizeof(float) : 0));
}

static int word_values(KvType t) {
    return WORD_BYTES / (int)kv_value_bytes(t);
}

static int key_words(const KvShape *s) {
    return (s->head_dim + word_values(s->type) - 1) / word_values(s->type);
}

static int sink_blocks(const KvCache *c) {
    return (c->shape.n_sinks + KV_BLOCK - 1) / KV_BLOCK;
}

KvCache *kvcache_open(const KvShape *shape, char *err, size_t errlen) {
    KvCache *c = calloc(1, sizeof *c);
    void ***tables = calloc((size_t)shape->n_layers, sizeof *tables);
    if (c) c->layers = calloc((size_t)shape->n_layers, sizeof *c->layers);
    if (!c || !tables || !c->layers) {
        if (c) free(c->layers);
        free(c);
        free(tables);
        fail(err, errlen, "KV cache: out of memory");
        return NULL;
    }
    c->shape = *shape;
    c->blocks = tables;
    for (int i = 0; i < shape->n_layers; i++) c->layers[i].window = shape->windows ? shape->windows[i] : shape->window;
    c->v_bytes = kv_value_bytes(shape->type) * KV_BLOCK * (size_t)shape->head_dim;
    c->k_bytes = (size_t)KV_BLOCK * WORD_BYTES * (size_t)key_words(shape);
    size_t bytes = c->k_bytes + c->v_bytes + (shape->type == KV_Q8 ? 2 * KV_BLOCK * sizeof(float) : 0);
    c->head_bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    c->block_bytes = c->head_bytes * (size_t)shape->n_kv_heads;
    return c;
}

static void free_layer_block(KvCache *c, int layer, int index) {
    if (!c->blocks[layer][index]) return;
    free(c->blocks[layer][index]);
    c->blocks[layer][index] = NULL;
    c->bytes -= c->block_bytes;
}

static void free_block(KvCache *c, int index) {
    for (int layer = 0; layer < c->shape.n_layers; layer++) free_layer_block(c, layer, index);
}

void kvcache_close(KvCache *c) {
    if (!c) return;
    for (int i = 0; i < c->n_blocks; i++) free_block(c, i);
    for (int layer = 0; layer < c->shape.n_layers; layer++) free(c->blocks[layer]);
    free(c->blocks);
    free(c->layers);
    free(c);
}

int kvcache_window(const KvCache *c, int layer) {
    return c->layers[layer].window;
}

int kvcache_sinks(const KvCache *c) {
    return c->shape.n_sinks;
}

int kvcache_length(const KvCache *c) {
    return c->length;
}

uint64_t kvcache_bytes(const KvCache *c) {
    return c->bytes;
}

uint64_t kvcache_token_bytes(const KvCache *c) {
    uint64_t visible = 0;
    for (int i = 0; i < c->shape.n_layers; i++) {
        int n = c->length, window = c->layers[i].window;
        if (window && n > window) n = window + (c->shape.n_sinks < n - window ? c->shape.n_sinks : n - window);
        visible += (uint64_t)n;
    }
    return visible * (uint64_t)c->shape.n_kv_heads * kv_token_bytes(c->shape.type, c->shape.head_dim);
}

static int grow_tables(KvCache *c, int n_slots) {
    for (int layer = 0; layer < c->shape.n_layers; layer++) {
        void **table = realloc(c->blocks[layer], sizeof *table * (size_t)n_slots);
        if (!table) return -1;
        memset(table + c->n_slots, 0, sizeof *table * (size_t)(n_slots - c->n_slots));
        c->blocks[layer] = table;
    }
    c->n_slots = n_slots;
    return 0;
}

static int add_block(KvCache *c) {
    int index = c->n_blocks;
    if (index == c->n_slots && grow_tables(c, c->n_slots ? 2 * c->n_slots : 16)) return -1;
    for (int layer = 0; layer < c->shape.n_layers; layer++) {
        void *block;
        if (posix_memalign(&block, ALIGNMENT, c->block_bytes + BEHIND)) {
            free_block(c, index);
            return -1;
        }
        c->blocks[layer][index] = block;
        c->bytes += c->block_bytes;
    }
    c->n_blocks++;
    return 0;
}

int kvcache_reserve(KvCache *c, int n, char *err, size_t errlen) {
    int before = c->n_blocks;
    while ((int64_t)c->n_blocks * KV_BLOCK < (int64_t)c->length + n) {
        if (!add_block(c)) continue;
        while (c->n_blocks > before) free_block(c, --c->n_blocks);
        return fail(err, errlen,
                    "KV cache: out of memory after %d tokens (%.1f MiB held, %.1f MiB for the next %d); a smaller -c, "
                    "--window W or --kv q8 needs less",
                    c->length, (double)c->bytes / 0x1p20, (double)c->block_bytes * c->shape.n_layers / 0x1p20,
                    KV_BLOCK);
    }
    return 0;
}

// What a vector is whole numbers of -127..127 of: no number, if there is one that is not finite.
static float scale_q8(const float *x, int n, float *inverse) {
    float most = 0, zero = 0;
    for (int i = 0; i < n; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most, zero += x[i] * 0;
    float scale = most / 127 + zero;
    *inverse = scale > FLT_MIN ? 1 / scale : 0; // else of no weight
    return scale;
}

// Token `at` of a head's K and V in a block. A key's words are KV_GROUP apart, its pad is zero.
static void store_f32(float *k_words, float *v_words, int at, const float *k, const float *v, int hd) {
    k_words += at / KV_GROUP * KV_GROUP * hd + at % KV_GROUP;
    for (int d = 0; d < hd; d++) k_words[d * KV_GROUP] = k[d];
    memcpy(v_words + at * hd, v, sizeof *v * (size_t)hd);
}

static void store_bf16(uint16_t *k_words, uint16_t *v_words, int at, const float *k, const float *v, int hd) {
    int words = (hd + 1) / 2;
    k_words += 2 * (at / KV_GROUP * KV_GROUP * words + at % KV_GROUP);
    for (int d = 0; d < hd; d++) k_words[d / 2 * KV_GROUP * 2 + d % 2] = bf16_from_f32(k[d]);
    if (hd % 2) k_words[hd / 2 * KV_GROUP * 2 + 1] = 0;
    v_words += at / 2 * 2 * hd + at % 2;
    for (int d = 0; d < hd; d++) v_words[2 * d] = bf16_from_f32(v[d]);
}

static void store_q8(int8_t *k_words, int8_t *v_words, float *scales, int at, const float *k, const float *v, int hd) {
    int words = (hd + 3) / 4;
    float inverse;
    scales[at] = scale_q8(k, hd, &inverse);
    k_words += 4 * (at / KV_GROUP * KV_GROUP * words + at % KV_GROUP);
    for (int d = 0; d < 4 * words; d++) {
        k_words[d / 4 * KV_GROUP * 4 + d % 4] = d < hd ? (int8_t)lrintf(k[d] * inverse) : 0;
    }
    scales[KV_BLOCK + at] = scale_q8(v, hd, &inverse);
    v_words += at / 4 * 4 * hd + at % 4;
    for (int d = 0; d < hd; d++) v_words[4 * d] = (int8_t)lrintf(v[d] * inverse);
}

void kvcache_store_head(KvCache *c, int layer, int head, int first, int n, const float *k, const float *v, int64_t ld) {
    int hd = c->shape.head_dim;
    for (int i = 0; i < n; i++, k += ld, v += ld) {
        int pos = c->length + first + i, at = pos % KV_BLOCK;
        char *base = (char *)c->blocks[layer][pos / KV_BLOCK] + (size_t)head * c->head_bytes;
        void *k_words = base, *v_words = base + c->k_bytes, *scales = base + c->k_bytes + c->v_bytes;
        switch (c->shape.type) {
        case KV_BF16: store_bf16(k_words, v_words, at, k, v, hd); break;
        case KV_F32: store_f32(k_words, v_words, at, k, v, hd); break;
        case KV_Q8: store_q8(k_words, v_words, scales, at, k, v, hd); break;
        }
    }
}

void kvcache_store(KvCache *c, int layer, int n, const float *k, const float *v) {
    int64_t hd = c->shape.head_dim, ld = hd * c->shape.n_kv_heads;
    for (int h = 0; h < c->shape.n_kv_heads; h++) kvcache_store_head(c, layer, h, 0, n, k + h * hd, v + h * hd, ld);
}

void kvcache_advance(KvCache *c, int n) {
    c->length += n;
    for (int layer = 0; layer < c->shape.n_layers; layer++) {
        int window = c->layers[layer].window, *first_kept = &c->layers[layer].first_kept;
        int first_visible = window ? c->length - window + 1 : 0; // of the next query, at position length
        int first_block = first_visible > 0 ? first_visible / KV_BLOCK : 0;
        int from = *first_kept > sink_blocks(c) ? *first_kept : sink_blocks(c);
        for (int i = from; i < first_block; i++) free_layer_block(c, layer, i);
        if (first_block > *first_kept) *first_kept = first_block;
    }
}

// Position n needs the blocks of its window; [sink_blocks, first_kept) are no longer here.
static bool layer_lacks(const KvCache *c, int layer, int n) {
    int window = c->layers[layer].window, first_kept = c->layers[layer].first_kept;
    int first_needed = window && n >= window ? (n - window + 1) / KV_BLOCK : 0;
    int keep = (n + KV_BLOCK - 1) / KV_BLOCK, sinks = sink_blocks(c);
    return (first_needed > sinks ? first_needed : sinks) < (keep < first_kept ? keep : first_kept);
}

int kvcache_truncate(KvCache *c, int n) {
    if (n >= c->length) return c->length;
    for (int layer = 0; layer < c->shape.n_layers; layer++) {
        if (layer_lacks(c, layer, n)) n = 0;
    }
    int keep = (n + KV_BLOCK - 1) / KV_BLOCK;
    while (c->n_blocks > keep) free_block(c, --c->n_blocks);
    for (int layer = 0; layer < c->shape.n_layers; layer++) {
        if (c->layers[layer].first_kept > keep) c->layers[layer].first_kept = keep;
    }
    c->length = n;
    return n;
}

void kvcache_restart(KvCache *c) {
    c->length = 0;
}

KvView kvcache_view(const KvCache *c, int layer) {
    return (KvView){
        .blocks = c->blocks[layer],
        .type = c->shape.type,
        .n_kv_heads = c->shape.n_kv_heads,
        .head_dim = c->shape.head_dim,
        .word = word_values(c->shape.type),
        .key_words = key_words(&c->shape),
        .head_bytes = c->head_bytes,
        .v_offset = c->k_bytes,
        .scales_offset = c->k_bytes + c->v_bytes,
    };
}
