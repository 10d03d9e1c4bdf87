// memory: attention over more text than a layer can afford to read: by looking keys up, or by folding them into a
// state.
//
// Owns the rows of retrieval, of block routing and of compressive memory. Retrieval and routing score the mean key of
// each block, and attention() reads the blocks that are chosen where they lie: each query of a head has a view of the
// cache, the blocks of its choice one behind the other, with a bitmap of what it sees in them. Compressive memory is
// attention() within a segment, beside a linear state of those before. Refuses blocks that do not fill the cache's.
// Draws: compressive memory a gate for each head.
#include "soft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RETRIEVAL, ROUTING };
enum {
    CANDIDATES = 4, // keys that are scored for each one that is kept
    QUERIES = 32,   // whose choices are made at a time
    TOGETHER = 8,   // queries that read the index together
};

// ---- retrieval: the last keys, and the best of those before

typedef struct {
    Soft soft;
    float *means;                           // the index: [n_kv_heads][n_max / block][head_dim]; of the last block a sum
    int n_blocks, most_chosen, most_viewed; // blocks of n_max; chosen for a query; of the cache that a query views
    int grain;                              // keys of a bit
    Attention *list;                        // [QUERIES][n_heads]
    void **views;                           // [QUERIES][n_heads][most_viewed]
    uint8_t *bits;                          // [QUERIES][n_heads][most_viewed * KV_BLOCK / grain]
    int first;                              // position of the queries at hand
} Retrieval;

typedef struct {
    float score;
    int at;
} Scored;

static void retrieval_open(Operator *op) {
    const Shape *s = &op->shape;
    Retrieval *r = op->own = operator_own(op, sizeof *r);
    bool routes = op->mechanism->variant == ROUTING;
    int reach = routes ? 1 : s->window, whole = s->n_max / KV_BLOCK + 1;
    r->n_blocks = s->n_max / s->block + 1;
    r->grain = routes ? s->block : 1;
    r->most_chosen = (s->rank + s->block - 1) / s->block * (routes ? 1 : CANDIDATES);
    if (r->most_chosen > r->n_blocks) r->most_chosen = r->n_blocks;
    r->most_viewed = r->most_chosen + (reach + s->block) / KV_BLOCK + 2;
    if (r->most_viewed > whole) r->most_viewed = whole;
    int64_t items = (int64_t)QUERIES * s->n_heads;
    r->means = operator_floats(op, r->n_blocks * key_width(s));
    r->list = operator_own(op, sizeof *r->list * (size_t)items);
    r->views = operator_own(op, sizeof *r->views * (size_t)(items * r->most_viewed));
    r->bits = operator_own(op, (size_t)(items * r->most_viewed) * KV_BLOCK / (size_t)r->grain);
    soft_open(&r->soft, op, 0, 0);
    int64_t keys = (int64_t)r->most_chosen * s->block + 2 * KV_GROUP, chosen = r->most_chosen + s->rank;
    operator_scratch(op, TOGETHER * r->n_blocks + s->head_dim + 4 + keys + 2 * chosen); // a Scored is two floats
}

// Adds the step's keys to the means of their blocks.
static void index_keys(Operator *op, const Rows *rows) {
    const Retrieval *r = op->own;
    int d = op->shape.head_dim, block = op->shape.block, width = (int)key_width(&op->shape);
    for (int t = 0; t < rows->n_keys; t++) {
        int at = op->length + t;
        bool whole = (at + 1) % block == 0;
        for (int i = 0; i < width; i++) {
            float *mean = &r->means[((int64_t)(i / d) * r->n_blocks + at / block) * d + i % d];
            *mean += rows->k[(int64_t)t * width + i];
            if (whole) *mean /= (float)block;
        }
        op->held += whole ? sizeof(float) * (double)width : 0;
    }
}

// The k largest of n, the first of equals, the largest first. Returns how many they are.
static int take_best(const float *s, int n, int k, Scored *best) {
    int size = 0;
    for (int i = 0; i < n; i++) {
        if (size == k && (k == 0 || s[i] <= best[k - 1].score)) continue;
        int at = size < k ? size++ : k - 1;
        for (; at > 0 && best[at - 1].score < s[i]; at--) best[at] = best[at - 1];
        best[at] = (Scored){s[i], i};
    }
    return size;
}

static int by_place(const void *a, const void *b) {
    return ((const Scored *)a)->at - ((const Scored *)b)->at;
}

// q . k of the keys of a block, from the cache as it stores them; up to a group's start more in front, which is
// returned. q: in whole words.
static int score_block(const Operator *op, int head, const float *q, int block, float *s) {
    const Kernels *kn = op->compute->kernels;
    KvView kv = kvcache_view(((Retrieval *)op->own)->soft.cache);
    int first = block * op->shape.block, from = first % KV_BLOCK / KV_GROUP * KV_GROUP, front = first % KV_GROUP;
    int n = (front + op->shape.block + KV_GROUP - 1) / KV_GROUP * KV_GROUP;
    const char *base = (const char *)kv.blocks[first / KV_BLOCK] + (size_t)head * kv.head_bytes;
    PackedMatrix k = {.data = base + (size_t)from * (size_t)kv.key_words * sizeof(float),
                      .row_stride = KV_GROUP,
                      .panel_stride = KV_GROUP * kv.key_words};
    GemmKernel gemm = kv.type == KV_DTYPE_F32 ? kn->gemm_f32 : kv.type == KV_DTYPE_BF16 ? kn->gemm_bf16 : kn->gemm_i8;
    gemm(s, n, &k, q, kv.word * kv.key_words, 1, kv.word * kv.key_words, n, false);
    if (kv.type == KV_DTYPE_Q8) kn->scale(s, (const float *)(base + kv.scales_offset) + from, n);
    return front;
}

// The first key that a query sees without a choice: a block's first.
static int recent_from(const Operator *op, int pos) {
    int reach = op->mechanism->variant == ROUTING ? 1 : op->shape.window, block = op->shape.block;
    return pos < reach ? 0 : (pos - reach + 1) / block * block;
}

// Where a block of keys begins in a query's view, in which it is placed, not before those placed already.
static int place_block(const Operator *op, int head, int block, void **view, int *n_view) {
    KvView kv = kvcache_view(((Retrieval *)op->own)->soft.cache);
    int first = block * op->shape.block;
    void *base = (char *)kv.blocks[first / KV_BLOCK] + (size_t)head * kv.head_bytes;
    if (*n_view == 0 || view[*n_view - 1] != base) view[(*n_view)++] = base;
    return (*n_view - 1) * KV_BLOCK + first % KV_BLOCK;
}

// Query i of those at hand, of a head: its view, its bits and its problem. room: for the query in whole words of the
// cache, scores of keys, and what is chosen.
static void choose(const Work *w, int i, int head, const float *block_scores, float *room) {
    const Operator *op = w->op;
    const Shape *s = &op->shape;
    const Retrieval *r = op->own;
    int pos = r->first + i, recent = recent_from(op, pos), item = i * s->n_heads + head, n_view = 0;
    int kv_head = head / (s->n_heads / s->n_kv_heads), block = s->block;
    const float *q = w->rows->q + (int64_t)item * s->head_dim;
    float *words = room, *scores = words + s->head_dim + 4;
    Scored *best = (Scored *)(scores + r->most_chosen * block + 2 * KV_GROUP), *best_keys = best + r->most_chosen;
    void **view = r->views + (int64_t)item * r->most_viewed;
    int64_t n_bits = (int64_t)r->most_viewed * KV_BLOCK / r->grain;
    uint8_t *bits = memset(r->bits + item * n_bits, 0, (size_t)n_bits);
    int n = take_best(block_scores, recent / block, r->most_chosen, best), n_scores = 0;
    qsort(best, (size_t)n, sizeof *best, by_place);
    memcpy(words, q, sizeof *q * (size_t)s->head_dim);
    memset(words + s->head_dim, 0, 4 * sizeof *words);
    for (int b = 0; b < n; b++) {
        int at = place_block(op, kv_head, best[b].at, view, &n_view);
        if (r->grain == 1) {
            int front = score_block(op, kv_head, words, best[b].at, scores + n_scores);
            memmove(scores + n_scores, scores + n_scores + front, sizeof *scores * (size_t)block);
        } else bits[at / r->grain] = 1;
        best[b].at = at;
        n_scores += block;
    }
    int n_keys = r->grain == 1 ? take_best(scores, n_scores, s->rank, best_keys) : 0;
    for (int j = 0; j < n_keys; j++) bits[best[best_keys[j].at / block].at + best_keys[j].at % block] = 1;
    for (int b = recent / block; b * block <= pos; b++) {
        int at = place_block(op, kv_head, b, view, &n_view);
        memset(bits + at / r->grain, 1, (size_t)(block / r->grain));
    }
    Attention *a = &r->list[item];
    *a = soft_problem(&r->soft, q, w->rows->out + (int64_t)item * s->head_dim, 1, 0,
                      (n_view - 1) * KV_BLOCK + pos % KV_BLOCK + 1);
    a->n_heads = a->kv.n_kv_heads = 1;
    a->kv.blocks = view;
    a->mask = (AttnMask){.bitmap = bits, .block = r->grain};
}

// A few queries of a head.
static void choose_some(const Work *w, int item) {
    const Shape *s = &w->op->shape;
    const Retrieval *r = w->op->own;
    int head = item % s->n_heads, first = item / s->n_heads * TOGETHER, d = s->head_dim;
    int n = w->rows->n_q - first < TOGETHER ? w->rows->n_q - first : TOGETHER;
    int n_blocks = recent_from(w->op, r->first + first + n - 1) / s->block;
    const float *means = r->means + (int64_t)(head / (s->n_heads / s->n_kv_heads)) * r->n_blocks * d;
    const float *q = w->rows->q + first * query_width(s) + head * d;
    float *scores = w->scratch, *room = scores + TOGETHER * r->n_blocks;
    if (n_blocks) {
        w->op->compute->kernels->matvec_f32(scores, r->n_blocks, means, d, q, query_width(s), n, n_blocks, d);
    }
    for (int i = 0; i < n; i++) choose(w, first + i, head, scores + (int64_t)i * r->n_blocks, room);
}

static void retrieval_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    Retrieval *r = op->own;
    index_keys(op, rows);
    soft_store(&r->soft, rows->n_keys, rows->k, rows->v);
    for (int at = 0; at < rows->n_q; at += QUERIES) {
        Rows part = rows_part(rows, s, at, rows->n_q - at < QUERIES ? rows->n_q - at : QUERIES);
        r->first = op->length + at;
        operator_for(op, &part, (part.n_q + TOGETHER - 1) / TOGETHER * s->n_heads, choose_some);
        attention(op->compute, r->list, part.n_q * s->n_heads);
        for (int pos = r->first; pos < r->first + part.n_q; pos++) {
            int recent = recent_from(op, pos), before = recent / s->block;
            int chosen = (before < r->most_chosen ? before : r->most_chosen) * s->block; // keys
            int seen = (r->grain == 1 && chosen > s->rank ? s->rank : chosen) + pos + 1 - recent;
            op->flops += (double)query_width(s) * (4.0 * seen + 2.0 * before + (r->grain == 1 ? 2.0 * chosen : 0));
        }
    }
    kvcache_advance(r->soft.cache, rows->n_keys);
}

// ---- compressive memory: segments of `window` rows

typedef struct {
    Soft soft;            // of the segment
    float *gates;         // [n_heads]: the memory's share
    float *matrix;        // [n_kv_heads][head_dim][width], then a panel that may be read; the last column is the sum z
    float *keys, *values; // of the segment: [n_kv_heads][window] features of keys; [width] with 1 behind the value
    int width;            // head_dim + 1
} Infini;

static void infini_open(Operator *op) {
    const Shape *s = &op->shape;
    Infini *m = op->own = operator_own(op, sizeof *m);
    int64_t d = s->head_dim, rows = (int64_t)s->n_kv_heads * s->window;
    m->width = s->head_dim + 1;
    m->gates = operator_normals(op, s->n_heads, 1);
    for (int h = 0; h < s->n_heads; h++) m->gates[h] = sigmoidf(m->gates[h]);
    m->matrix = operator_floats(op, key_width(s) * m->width + MAX_PANEL);
    m->keys = operator_floats(op, rows * d);
    m->values = operator_floats(op, rows * m->width + MAX_PANEL);
    op->held = sizeof(float) * (double)(rows * (d + m->width) + key_width(s) * m->width);
    soft_open(&m->soft, op, 0, 0);
    operator_scratch(op, s->window * (d + m->width));
}

static void elu_1(float *y, const float *x, int n) {
    for (int i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] + 1 : expf(x[i]);
}

// What the memory of a head holds for n features [n][head_dim]: y [n][width], values by their weights' sum.
static void recall(const Operator *op, int kv_head, const float *x, int n, float *y) {
    const Infini *m = op->own;
    int d = op->shape.head_dim, width = m->width;
    PackedMatrix matrix = packed_rows(m->matrix + (int64_t)kv_head * d * width, width);
    op->compute->kernels->gemm_f32(y, width, &matrix, x, d, n, d, width, false);
    for (int i = 0; i < n; i++) {
        for (int c = 0; c < d; c++) y[i * width + c] /= fmaxf(y[i * width + d], LEAST_SUM);
    }
}

static void read_head(const Work *w, int head) {
    const Operator *op = w->op;
    const Infini *m = op->own;
    int d = op->shape.head_dim, heads = op->shape.n_heads, kv_head = head / (heads / op->shape.n_kv_heads);
    int n = w->rows->n_q;
    float *x = w->scratch, *y = x + (int64_t)n * d, gate = m->gates[head];
    for (int i = 0; i < n; i++) elu_1(x + i * d, w->rows->q + ((int64_t)i * heads + head) * d, d);
    recall(op, kv_head, x, n, y);
    for (int i = 0; i < n; i++) {
        float *out = w->rows->out + ((int64_t)i * heads + head) * d;
        for (int c = 0; c < d; c++) out[c] = gate * y[i * m->width + c] + (1 - gate) * out[c];
    }
}

// M += features^T (V - what M held for them), z += the features' sum.
static void write_head(const Work *w, int kv_head) {
    const Operator *op = w->op;
    const Infini *m = op->own;
    int d = op->shape.head_dim, width = m->width, n = op->shape.window;
    float *y = w->scratch, *turned = y + (int64_t)n * width;
    const float *keys = m->keys + (int64_t)kv_head * n * d;
    float *values = m->values + (int64_t)kv_head * n * width;
    recall(op, kv_head, keys, n, y);
    for (int i = 0; i < n; i++) {
        for (int c = 0; c < d; c++) values[i * width + c] -= y[i * width + c];
    }
    for (int i = 0; i < n * d; i++) turned[i % d * n + i / d] = keys[i];
    PackedMatrix by = packed_rows(values, width);
    op->compute->kernels->gemm_f32(m->matrix + (int64_t)kv_head * d * width, width, &by, turned, n, d, n, width, true);
}

// Rows within a segment.
static void infini_part(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    Infini *m = op->own;
    int n = rows->n_keys, d = s->head_dim, filled = kvcache_length(m->soft.cache);
    soft_step(op, &m->soft, rows->q, rows);
    operator_for(op, rows, s->n_heads, read_head);
    op->flops += 2.0 * n * d * m->width * s->n_heads;
    for (int i = 0; i < n * s->n_kv_heads; i++) {
        int64_t at = (int64_t)(i % s->n_kv_heads) * s->window + filled + i / s->n_kv_heads, from = (int64_t)i * d;
        elu_1(m->keys + at * d, rows->k + from, d);
        memcpy(m->values + at * m->width, rows->v + from, sizeof *m->values * (size_t)d);
        m->values[at * m->width + d] = 1;
    }
    if (filled + n < s->window) return;
    operator_for(op, rows, s->n_kv_heads, write_head);
    op->flops += 4.0 * s->window * d * m->width * s->n_kv_heads;
    kvcache_restart(m->soft.cache);
}

static void infini_step(Operator *op, const Rows *rows) {
    const Infini *m = op->own;
    for (int at = 0, n; at < rows->n_keys; at += n) {
        int left = op->shape.window - kvcache_length(m->soft.cache);
        n = left < rows->n_keys - at ? left : rows->n_keys - at;
        Rows part = rows_part(rows, &op->shape, at, n);
        infini_part(op, &part);
    }
}

#define RETRIEVES(kind) .variant = (kind), .whole_blocks = true, .open = retrieval_open, .step = retrieval_step

const Mechanism memory_rows[] = {
    {"retrieval", RETRIEVES(RETRIEVAL), .approximates = true},
    {"moba", RETRIEVES(ROUTING), .approximates = true},
    {"infini", .open = infini_open, .step = infini_step},
    {0},
};
