// kvcache: see kvcache.h.
#include "kvcache.h"

#include "file.h"
#include "quant.h"

#include <float.h>
#include <math.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64, WORD_BYTES = 4, BEHIND = KV_GROUP * WORD_BYTES, FIRST_SLOTS = 4 };

struct KvCache {
    KvShape shape;
    KvPool *pool;
    size_t k_bytes, v_bytes, head_bytes, block_bytes; // k_bytes, v_bytes: of a head
    void **blocks;  // [n_slots]; NULL where nothing is stored or the block fell out of the window
    int n_slots;    // capacity of the table of blocks
    int n_blocks;   // blocks reserved, from the first token on
    int first_kept; // the table holds blocks [0, n_sink_blocks) and [first_kept, n_blocks)
    int length;     // tokens stored
    uint64_t bytes;
};

const char *kv_dtype_name(KvDType t) {
    static const char *const names[] = {[KV_DTYPE_BF16] = "bf16", [KV_DTYPE_F32] = "f32", [KV_DTYPE_Q8] = "q8"};
    return (unsigned)t < sizeof names / sizeof *names ? names[t] : NULL;
}

size_t kv_value_bytes(KvDType t) {
    if (t == KV_DTYPE_F32) return sizeof(float);
    return t == KV_DTYPE_BF16 ? sizeof(uint16_t) : sizeof(int8_t);
}

size_t kv_token_bytes(KvDType t, int k_dim, int v_dim) {
    return kv_value_bytes(t) * ((size_t)k_dim + (size_t)v_dim) + (t == KV_DTYPE_Q8 ? 2 * sizeof(float) : 0);
}

static int word_values(KvDType t) {
    return WORD_BYTES / (int)kv_value_bytes(t);
}

static int key_words(const KvShape *s) {
    return (s->k_dim + word_values(s->type) - 1) / word_values(s->type);
}

struct KvPool {
    _Atomic uint64_t cap, bytes;
};

// Precedes a block's memory.
typedef struct {
    alignas(ALIGNMENT) _Atomic int n_references;
    size_t bytes;
} BlockHead;

KvPool *kvpool_open(uint64_t cap) {
    KvPool *p = calloc(1, sizeof *p);
    if (p) atomic_init(&p->cap, cap);
    return p;
}

void kvpool_close(KvPool *p) {
    free(p);
}

void kvpool_limit(KvPool *p, uint64_t cap) {
    atomic_store(&p->cap, cap);
}

uint64_t kvpool_bytes(const KvPool *p) {
    return atomic_load(&p->bytes);
}

// False when the cap leaves no room for so many bytes; others are not in the way of this for a moment.
static bool claim(KvPool *p, uint64_t bytes) {
    uint64_t held = atomic_load(&p->bytes), cap = atomic_load(&p->cap);
    do {
        if (cap && (bytes > cap || held > cap - bytes)) return false;
    } while (!atomic_compare_exchange_weak(&p->bytes, &held, held + bytes));
    return true;
}

void *kvpool_take(KvPool *p, size_t bytes) {
    void *memory;
    if (p && !claim(p, bytes)) return NULL;
    if (posix_memalign(&memory, ALIGNMENT, sizeof(BlockHead) + bytes)) {
        if (p) atomic_fetch_sub(&p->bytes, bytes);
        return NULL;
    }
    BlockHead *head = memory;
    atomic_init(&head->n_references, 1);
    head->bytes = bytes;
    return head + 1;
}

void kvpool_share(void *block) {
    atomic_fetch_add(&((BlockHead *)block - 1)->n_references, 1);
}

bool kvpool_is_shared(const void *block) {
    return atomic_load(&((const BlockHead *)block - 1)->n_references) > 1;
}

void kvpool_release(KvPool *p, void *block) {
    if (!block) return;
    BlockHead *head = (BlockHead *)block - 1;
    if (atomic_fetch_sub(&head->n_references, 1) > 1) return;
    if (p) atomic_fetch_sub(&p->bytes, head->bytes);
    free(head);
}

static int blocks_of(int n) {
    return (n + KV_BLOCK - 1) / KV_BLOCK;
}

// The first block that queries from position n on see, sinks aside.
static int first_needed(const KvCache *c, int n) {
    int first_visible = c->shape.window ? n - c->shape.window + 1 : 0;
    return first_visible > 0 ? first_visible / KV_BLOCK : 0;
}

static int sink_blocks(const KvCache *c) {
    return blocks_of(c->shape.n_sinks);
}

KvCache *kvcache_open(const KvShape *shape, KvPool *pool, char *err, size_t errlen) {
    KvCache *c = calloc(1, sizeof *c);
    if (!c) {
        fail(err, errlen, "KV cache: out of memory");
        return NULL;
    }
    c->shape = *shape;
    c->pool = pool;
    c->v_bytes = kv_value_bytes(shape->type) * KV_BLOCK * (size_t)shape->v_dim;
    c->k_bytes = (size_t)KV_BLOCK * WORD_BYTES * (size_t)key_words(shape);
    size_t bytes = c->k_bytes + c->v_bytes + (shape->type == KV_DTYPE_Q8 ? 2 * KV_BLOCK * sizeof(float) : 0);
    c->head_bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    c->block_bytes = c->head_bytes * (size_t)shape->n_kv_heads;
    return c;
}

static void free_block(KvCache *c, int index) {
    if (!c->blocks[index]) return;
    kvpool_release(c->pool, c->blocks[index]);
    c->blocks[index] = NULL;
    c->bytes -= c->block_bytes;
}

static void keep_blocks(KvCache *c, int n) {
    while (c->n_blocks > n) free_block(c, --c->n_blocks);
}

void kvcache_close(KvCache *c) {
    if (!c) return;
    keep_blocks(c, 0);
    free(c->blocks);
    free(c);
}

int kvcache_window(const KvCache *c) {
    return c->shape.window;
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

uint64_t kvcache_block_bytes(const KvCache *c) {
    return c->block_bytes;
}

uint64_t kvcache_token_bytes(const KvCache *c) {
    const KvShape *s = &c->shape;
    int n = c->length, behind = n - s->window; // tokens behind the window
    if (s->window && behind > 0) n = s->window + (s->n_sinks < behind ? s->n_sinks : behind);
    return (uint64_t)n * (uint64_t)s->n_kv_heads * kv_token_bytes(s->type, s->k_dim, s->v_dim);
}

static int grow_table(KvCache *c) {
    int n_slots = c->n_slots ? 2 * c->n_slots : FIRST_SLOTS;
    void **table = realloc(c->blocks, sizeof *table * (size_t)n_slots);
    if (!table) return -1;
    memset(table + c->n_slots, 0, sizeof *table * (size_t)(n_slots - c->n_slots));
    c->blocks = table;
    c->n_slots = n_slots;
    return 0;
}

static void *take_block(const KvCache *c) {
    return kvpool_take(c->pool, c->block_bytes + BEHIND);
}

// A block whose unused part is zeros: a saved session holds no other bytes of this program.
static void *take_empty_block(const KvCache *c) {
    void *block = take_block(c);
    if (block) memset(block, 0, c->block_bytes + BEHIND);
    return block;
}

static int add_block(KvCache *c) {
    if (c->n_blocks == c->n_slots && grow_table(c)) return -1;
    void *block = take_empty_block(c);
    if (!block) return -1;
    c->blocks[c->n_blocks++] = block;
    c->bytes += c->block_bytes;
    return 0;
}

// Replace a block that others share by a copy.
static int own_block(KvCache *c, int index) {
    void *shared = c->blocks[index];
    if (!shared || !kvpool_is_shared(shared)) return 0;
    void *own = take_block(c);
    if (!own) return -1;
    memcpy(own, shared, c->block_bytes);
    kvpool_release(c->pool, shared);
    c->blocks[index] = own;
    return 0;
}

int kvcache_reserve(KvCache *c, int n) {
    int before = c->n_blocks;
    if (!n) return 0;
    for (int i = c->length / KV_BLOCK; i < c->n_blocks; i++) {
        if (own_block(c, i)) return -1;
    }
    while ((int64_t)c->n_blocks * KV_BLOCK < (int64_t)c->length + n) {
        if (!add_block(c)) continue;
        keep_blocks(c, before);
        return -1;
    }
    return 0;
}

int kvcache_room(const KvCache *c) {
    return c->n_blocks * KV_BLOCK;
}

void kvcache_trim(KvCache *c, int room) {
    int n = room > c->length ? room : c->length;
    keep_blocks(c, blocks_of(n));
}

// The scale that maps a vector to integers of -127..127; NaN if a value is not finite.
static float scale_q8(const float *x, int n, float *inverse) {
    float most = 0, zero = 0; // zero: 0 or NaN
    for (int i = 0; i < n; i++) {
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
        zero += x[i] * 0;
    }
    float scale = most / 127 + zero;
    *inverse = scale > FLT_MIN ? 1 / scale : 0; // else negligible
    return scale;
}

// Token `at` of a head's K and V in a block. A key's words are KV_GROUP apart, its padding is zero.
static void store_f32(float *k_words, float *v_words, int at, const float *k, const float *v, int kd, int vd) {
    k_words += at / KV_GROUP * KV_GROUP * kd + at % KV_GROUP;
    for (int d = 0; d < kd; d++) k_words[d * KV_GROUP] = k[d];
    memcpy(v_words + at * vd, v, sizeof *v * (size_t)vd);
}

static void store_bf16(uint16_t *k_words, uint16_t *v_words, int at, const float *k, const float *v, int kd, int vd) {
    int words = (kd + 1) / 2;
    k_words += 2 * (at / KV_GROUP * KV_GROUP * words + at % KV_GROUP);
    for (int d = 0; d < kd; d++) k_words[d / 2 * KV_GROUP * 2 + d % 2] = bf16_from_f32(k[d]);
    if (kd % 2) k_words[kd / 2 * KV_GROUP * 2 + 1] = 0;
    v_words += at / 2 * 2 * vd + at % 2;
    for (int d = 0; d < vd; d++) v_words[2 * d] = bf16_from_f32(v[d]);
}

static void store_q8(int8_t *k_words, int8_t *v_words, float *scales, int at, const float *k, const float *v, int kd,
                     int vd) {
    int words = (kd + 3) / 4;
    float inverse;
    scales[at] = scale_q8(k, kd, &inverse);
    k_words += 4 * (at / KV_GROUP * KV_GROUP * words + at % KV_GROUP);
    for (int d = 0; d < 4 * words; d++) {
        k_words[d / 4 * KV_GROUP * 4 + d % 4] = d < kd ? (int8_t)lrintf(k[d] * inverse) : 0;
    }
    scales[KV_BLOCK + at] = scale_q8(v, vd, &inverse);
    v_words += at / 4 * 4 * vd + at % 4;
    for (int d = 0; d < vd; d++) v_words[4 * d] = (int8_t)lrintf(v[d] * inverse);
}

void kvcache_store_head(KvCache *c, int head, int first, int n, const KvRows *rows) {
    const float *k = rows->k, *v = rows->v;
    int kd = c->shape.k_dim, vd = c->shape.v_dim;
    for (int i = 0; i < n; i++, k += rows->k_ld, v += rows->v_ld) {
        int pos = c->length + first + i, at = pos % KV_BLOCK;
        char *base = (char *)c->blocks[pos / KV_BLOCK] + (size_t)head * c->head_bytes;
        void *k_words = base, *v_words = base + c->k_bytes, *scales = base + c->k_bytes + c->v_bytes;
        switch (c->shape.type) {
        case KV_DTYPE_BF16: store_bf16(k_words, v_words, at, k, v, kd, vd); break;
        case KV_DTYPE_F32: store_f32(k_words, v_words, at, k, v, kd, vd); break;
        case KV_DTYPE_Q8: store_q8(k_words, v_words, scales, at, k, v, kd, vd); break;
        }
    }
}

typedef struct {
    KvCache *cache;
    int n;
    KvRows rows; // of all heads
} StoreJob;

// Up to a block of tokens of one head.
static void store_item(void *context, int item, int worker) {
    (void)worker;
    const StoreJob *job = context;
    const KvShape *s = &job->cache->shape;
    int head = item % s->n_kv_heads, first = item / s->n_kv_heads * KV_BLOCK;
    KvRows rows = job->rows;
    rows.k += first * rows.k_ld + head * s->k_dim;
    rows.v += first * rows.v_ld + head * s->v_dim;
    kvcache_store_head(job->cache, head, first, job->n - first < KV_BLOCK ? job->n - first : KV_BLOCK, &rows);
}

void kvcache_store(KvCache *c, ThreadPool *pool, int n, const float *k, const float *v) {
    const KvShape *s = &c->shape;
    StoreJob job = {c, n, {k, v, (int64_t)s->n_kv_heads * s->k_dim, (int64_t)s->n_kv_heads * s->v_dim}};
    threads_for_if(pool && n >= KV_BLOCK, pool, blocks_of(n) * s->n_kv_heads, store_item, &job);
}

void kvcache_advance(KvCache *c, int n) {
    c->length += n;
    int first_block = first_needed(c, c->length);
    int from = c->first_kept > sink_blocks(c) ? c->first_kept : sink_blocks(c);
    for (int i = from; i < first_block; i++) free_block(c, i);
    if (first_block > c->first_kept) c->first_kept = first_block;
}

// Position n needs the blocks of its window; [sink_blocks, first_kept) were freed.
int kvcache_keeps(const KvCache *c, int n) {
    if (n >= c->length) return c->length;
    int needed = first_needed(c, n), end = blocks_of(n);
    if (needed < sink_blocks(c)) needed = sink_blocks(c);
    if (end > c->first_kept) end = c->first_kept;
    return needed < end ? 0 : n;
}

int kvcache_ahead(const KvCache *c, int n, int more) {
    while (more > 0 && first_needed(c, c->length + n + more) > first_needed(c, c->length + n)) more--;
    return more;
}

void kvcache_truncate(KvCache *c, int n) {
    int keep = blocks_of(n);
    keep_blocks(c, keep);
    if (c->first_kept > keep) c->first_kept = keep;
    c->length = n;
}

// An empty cache has n tokens, whose blocks the caller has put into the table.
static void adopt(KvCache *c, int n) {
    c->length = n;
    c->first_kept = first_needed(c, n);
    c->n_blocks = blocks_of(n);
    for (int i = 0; i < c->n_blocks; i++) c->bytes += c->blocks[i] ? c->block_bytes : 0;
}

int kvcache_slots(KvCache *c, int n) {
    while (c->n_slots < blocks_of(n)) {
        if (grow_table(c)) return -1;
    }
    return 0;
}

void kvcache_attach(KvCache *c, void **const *blocks, int column, int n) {
    for (int i = 0; i < blocks_of(n); i++) {
        c->blocks[i] = blocks[i][column];
        kvpool_share(c->blocks[i]);
    }
    adopt(c, n);
}

int kvcache_share(KvCache *c, const KvCache *from, int n) {
    if (kvcache_slots(c, n)) return -1;
    for (int i = 0; i < blocks_of(n); i++) {
        c->blocks[i] = from->blocks[i];
        if (c->blocks[i]) kvpool_share(c->blocks[i]);
    }
    adopt(c, n);
    return 0;
}

int kvcache_restore(KvCache *c, int n) {
    int n_sinks = sink_blocks(c), first = first_needed(c, n);
    if (kvcache_slots(c, n)) return -1;
    for (int i = 0; i < blocks_of(n); i++) {
        if (i >= n_sinks && i < first) continue;
        c->blocks[i] = take_block(c);
        if (c->blocks[i]) continue;
        while (i--) {
            kvpool_release(c->pool, c->blocks[i]);
            c->blocks[i] = NULL;
        }
        return -1;
    }
    adopt(c, n);
    return 0;
}

void kvcache_restart(KvCache *c) {
    c->length = 0;
}

void kvview_values(const KvView *v, int head, int first, int n, int d, int width, float *out) {
    const char *base = (const char *)v->blocks[first / KV_BLOCK] + (size_t)head * v->head_bytes;
    const void *words = base + v->v_offset;
    const float *scales = (const float *)(const void *)(base + v->scales_offset) + KV_BLOCK;
    for (int i = 0; i < n; i++, out += width) {
        int slot = (first + i) % KV_BLOCK, at = (slot / v->word * v->v_dim + d) * v->word + slot % v->word;
        const uint16_t *halves = (const uint16_t *)words + at;
        const int8_t *bytes = (const int8_t *)words + at;
        switch (v->type) {
        case KV_DTYPE_F32: memcpy(out, (const float *)words + at, sizeof *out * (size_t)width); break;
        case KV_DTYPE_BF16:
            for (int j = 0; j < width; j++) out[j] = f32_from_bf16(halves[2 * j]);
            break;
        case KV_DTYPE_Q8:
            for (int j = 0; j < width; j++) out[j] = (float)bytes[4 * j] * scales[slot];
            break;
        }
    }
}

KvView kvcache_view(const KvCache *c) {
    return (KvView){
        .blocks = c->blocks,
        .type = c->shape.type,
        .n_kv_heads = c->shape.n_kv_heads,
        .k_dim = c->shape.k_dim,
        .v_dim = c->shape.v_dim,
        .word = word_values(c->shape.type),
        .key_words = key_words(&c->shape),
        .head_bytes = c->head_bytes,
        .v_offset = c->k_bytes,
        .scales_offset = c->k_bytes + c->v_bytes,
    };
}
