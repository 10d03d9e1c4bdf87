// memory: attention over more text than a layer can afford to read: by looking keys up, or by folding them into a
// state.
//
// Owns the rows of retrieval, of block routing and of compressive memory. Retrieval and routing score the mean key of
// each block, and attention() reads the blocks that are chosen where they lie: each query of a head has a view of the
// cache, the blocks of its choice one behind the other, with a bitmap of what it sees in them. Compressive memory is
// attention() within a segment, beside a linear state of those before. Refuses blocks that do not fill the cache's.
// Draws: compressive memory a gate for each head.
#include "cli.h"
#include "file.h"
#include "soft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RETRIEVAL, ROUTING };
enum {
    CANDIDATES = 4, // keys that are scored for each one that is kept
    QUERIES = 32,   // whose choices are made at a time
    TOGETHER = 8,   // queries that read the index together
    PIECE = 32,     // rows multiplied with a state at a time
};

static const float LEAST_SUM = 1e-20f; // of weights

// ---- retrieval: the last keys, and the best of those before

typedef struct {
    Soft soft;
    float *means;                           // the index: [n_kv_heads][n_max / block][head_dim] of whole blocks
    float *sums;                            // [n_kv_heads][head_dim] of the keys of the block that is not whole yet
    int n_blocks, most_chosen, most_viewed; // blocks of n_max; chosen for a query; of the cache that a query views
    int grain;                              // keys of a bit
    Attention *list;                        // [QUERIES][n_heads]
    void **views;                           // [QUERIES][n_heads][most_viewed]
    uint8_t *bits;                          // [QUERIES][n_heads][most_viewed * KV_BLOCK / grain]
    int *seen;                              // [QUERIES][n_heads], keys
} Retrieval;

typedef struct {
    float score;
    int at;
} Scored;

typedef struct {
    const Operator *op;
    const float *q; // of the queries at hand
    float *out;
    int first, n; // their position and number
} Choice;

// One worker's scratch memory.
typedef struct {
    float *blocks, *keys, *q; // scores [TOGETHER][n_blocks] and of a query's keys; a query in whole words of the cache
    Scored *best, *best_keys;
} Workspace;

static size_t lay_out(Workspace *w, char *at, const Operator *op) {
    const Retrieval *r = op->own;
    int64_t sizes[] = {TOGETHER * r->n_blocks, (int64_t)r->most_chosen * op->shape.block + 2 * KV_GROUP,
                       op->shape.head_dim + 4, 2LL * r->most_chosen, 2LL * op->shape.rank};
    size_t starts[6] = {0};
    for (int i = 0; i < 5; i++) starts[i + 1] = starts[i] + scratch_floats(sizes[i]) * sizeof(float);
    if (w) {
        *w = (Workspace){(float *)at, (float *)(at + starts[1]), (float *)(at + starts[2]), (Scored *)(at + starts[3]),
                         (Scored *)(at + starts[4])};
    }
    return starts[5];
}

static int retrieval_open(Operator *op, char *err, size_t errlen) {
    const Shape *s = &op->shape;
    Retrieval *r = op->own = operator_own(op, sizeof *r);
    bool routes = op->mechanism->variant == ROUTING;
    int reach = routes ? 1 : s->window, whole = s->n_max / KV_BLOCK + 1;
    if (s->block < 1 || KV_BLOCK % s->block) {
        return fail(err, errlen, "%s: expected blocks that divide %d keys, found %d", op->mechanism->name, KV_BLOCK,
                    s->block);
    }
    r->n_blocks = s->n_max / s->block + 1;
    r->grain = routes ? s->block : 1;
    r->most_chosen = (s->rank + s->block - 1) / s->block * (routes ? 1 : CANDIDATES);
    if (r->most_chosen > r->n_blocks) r->most_chosen = r->n_blocks;
    r->most_viewed = r->most_chosen + (reach + s->block) / KV_BLOCK + 2;
    if (r->most_viewed > whole) r->most_viewed = whole;
    int64_t items = (int64_t)QUERIES * s->n_heads;
    r->means = operator_floats(op, (int64_t)s->n_kv_heads * r->n_blocks * s->head_dim);
    r->sums = operator_floats(op, (int64_t)s->n_kv_heads * s->head_dim);
    r->list = operator_own(op, sizeof *r->list * (size_t)items);
    r->views = operator_own(op, sizeof *r->views * (size_t)(items * r->most_viewed));
    r->bits = operator_own(op, (size_t)(items * r->most_viewed) * KV_BLOCK / (size_t)r->grain);
    r->seen = operator_own(op, sizeof *r->seen * (size_t)items);
    if (soft_open(&r->soft, op, 0, 0, err, errlen)) return -1;
    return compute_reserve_scratch(op->compute, lay_out(NULL, NULL, op), 0, err, errlen);
}

static double retrieval_bytes(const Operator *op) {
    const Shape *s = &op->shape;
    double means = sizeof(float) * (double)(op->length / s->block) * s->n_kv_heads * s->head_dim;
    return means + (double)kvcache_bytes(((Retrieval *)op->own)->soft.cache);
}

// Adds the step's keys to the means of their blocks.
static void index_keys(const Operator *op, const Rows *rows) {
    const Retrieval *r = op->own;
    int d = op->shape.head_dim, block = op->shape.block, width = op->shape.n_kv_heads * d;
    for (int t = 0; t < rows->n_keys; t++) {
        int at = op->length + t;
        for (int i = 0; i < width; i++) r->sums[i] += rows->k[(int64_t)t * width + i];
        if ((at + 1) % block) continue;
        for (int i = 0; i < width; i++) {
            r->means[((int64_t)(i / d) * r->n_blocks + at / block) * d + i % d] = r->sums[i] / (float)block;
            r->sums[i] = 0;
        }
    }
}

// The k largest of n, the first of equals; a heap with the least of them on top. Returns how many they are.
static int take_best(const float *s, int n, int k, Scored *best) {
    int size = 0;
    for (int i = 0; i < n; i++) {
        if (size == k && (k == 0 || s[i] <= best[0].score)) continue;
        int at = 0;
        if (size < k) {
            for (at = size++; at && best[(at - 1) / 2].score > s[i]; at = (at - 1) / 2) best[at] = best[(at - 1) / 2];
        } else {
            for (int child = 1; child < size; child = 2 * at + 1) {
                child += child + 1 < size && best[child + 1].score < best[child].score;
                if (best[child].score >= s[i]) break;
                best[at] = best[child];
                at = child;
            }
        }
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

// Query i of those at hand, of a head: its view, its bits and its problem.
static void choose(const Choice *c, int i, int head, const float *block_scores, const Workspace *w) {
    const Operator *op = c->op;
    const Shape *s = &op->shape;
    const Retrieval *r = op->own;
    int pos = c->first + i, recent = recent_from(op, pos), item = i * s->n_heads + head, n_view = 0;
    int kv_head = head / (s->n_heads / s->n_kv_heads), block = s->block;
    const float *q = c->q + (int64_t)item * s->head_dim;
    void **view = r->views + (int64_t)item * r->most_viewed;
    int64_t n_bits = (int64_t)r->most_viewed * KV_BLOCK / r->grain;
    uint8_t *bits = memset(r->bits + item * n_bits, 0, (size_t)n_bits);
    int n = take_best(block_scores, recent / block, r->most_chosen, w->best), n_scores = 0;
    qsort(w->best, (size_t)n, sizeof *w->best, by_place);
    memcpy(w->q, q, sizeof *q * (size_t)s->head_dim);
    for (int b = 0; b < n; b++) {
        int at = place_block(op, kv_head, w->best[b].at, view, &n_view);
        if (r->grain == 1) {
            int front = score_block(op, kv_head, w->q, w->best[b].at, w->keys + n_scores);
            memmove(w->keys + n_scores, w->keys + n_scores + front, sizeof *w->keys * (size_t)block);
        } else bits[at / r->grain] = 1;
        w->best[b].at = at;
        n_scores += block;
    }
    int n_keys = r->grain == 1 ? take_best(w->keys, n_scores, s->rank, w->best_keys) : 0;
    for (int j = 0; j < n_keys; j++) bits[w->best[w->best_keys[j].at / block].at + w->best_keys[j].at % block] = 1;
    r->seen[item] = (r->grain == 1 ? n_keys : n_scores) + pos + 1 - recent;
    for (int b = recent / block; b * block <= pos; b++) {
        int at = place_block(op, kv_head, b, view, &n_view);
        memset(bits + at / r->grain, 1, (size_t)(block / r->grain));
    }
    Attention *a = &r->list[item];
    *a = soft_problem(&r->soft, q, c->out + (int64_t)item * s->head_dim, 1, 0,
                      (n_view - 1) * KV_BLOCK + pos % KV_BLOCK + 1);
    a->n_heads = a->kv.n_kv_heads = 1;
    a->kv.blocks = view;
    a->mask = (AttnMask){.bitmap = bits, .block = r->grain};
}

// A few queries of a head.
static void choose_item(void *context, int item, int worker) {
    const Choice *c = context;
    const Shape *s = &c->op->shape;
    const Retrieval *r = c->op->own;
    int head = item % s->n_heads, first = item / s->n_heads * TOGETHER, d = s->head_dim;
    int n = c->n - first < TOGETHER ? c->n - first : TOGETHER;
    int n_blocks = recent_from(c->op, c->first + first + n - 1) / s->block;
    const float *means = r->means + (int64_t)(head / (s->n_heads / s->n_kv_heads)) * r->n_blocks * d;
    Workspace w;
    lay_out(&w, compute_scratch(c->op->compute, worker), c->op);
    for (int i = 0; i < 4; i++) w.q[d + i] = 0;
    if (n_blocks) {
        c->op->compute->kernels->matvec_f32(w.blocks, r->n_blocks, means, d,
                                            c->q + ((int64_t)first * s->n_heads + head) * d, (int64_t)s->n_heads * d, n,
                                            n_blocks, d);
    }
    for (int i = 0; i < n; i++) choose(c, first + i, head, w.blocks + (int64_t)i * r->n_blocks, &w);
}

static void retrieval_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    Retrieval *r = op->own;
    int64_t width = (int64_t)s->n_heads * s->head_dim;
    index_keys(op, rows);
    soft_store(&r->soft, rows->n_keys, rows->k, rows->v);
    for (int at = 0; at < rows->n_q; at += QUERIES) {
        Choice c = {op, rows->q + at * width, rows->out + at * width, op->length + at, rows->n_q - at};
        if (c.n > QUERIES) c.n = QUERIES;
        int n_items = (c.n + TOGETHER - 1) / TOGETHER * s->n_heads;
        threads_for(op->compute->pool, n_items, choose_item, &c);
        attention(op->compute, r->list, c.n * s->n_heads);
        for (int i = 0; i < c.n * s->n_heads; i++) {
            int before = recent_from(op, c.first + i / s->n_heads) / s->block;
            int chosen = before < r->most_chosen ? before : r->most_chosen;
            op->flops +=
                s->head_dim * (4.0 * r->seen[i] + 2.0 * before + (r->grain == 1 ? 2.0 * chosen * s->block : 0));
        }
    }
    soft_advance(&r->soft, rows->n_keys);
}

// ---- compressive memory: segments of `window` rows

typedef struct {
    Soft soft;            // of the segment
    float *gates;         // [n_heads]: the memory's share
    float *matrix;        // [n_kv_heads][head_dim][width], then a panel that may be read; the last column is the sum z
    float *keys, *values; // of the segment: [n_kv_heads][segment] features of keys; [width] with 1 behind the value
    int filled, segment, width;
} Infini;

typedef struct {
    const Operator *op;
    Rows rows; // within a segment
} Part;

static int infini_open(Operator *op, char *err, size_t errlen) {
    const Shape *s = &op->shape;
    uint64_t seed = s->seed;
    Infini *m = op->own = operator_own(op, sizeof *m);
    int64_t d = s->head_dim, rows = (int64_t)s->n_kv_heads * s->window;
    m->segment = s->window;
    m->width = s->head_dim + 1;
    m->gates = operator_normals(op, &seed, s->n_heads, 1);
    for (int h = 0; h < s->n_heads; h++) m->gates[h] = sigmoidf(m->gates[h]);
    m->matrix = operator_floats(op, s->n_kv_heads * d * m->width + MAX_PANEL);
    m->keys = operator_floats(op, rows * d);
    m->values = operator_floats(op, rows * m->width + MAX_PANEL);
    if (soft_open(&m->soft, op, 0, 0, err, errlen)) return -1;
    size_t floats = PIECE * (size_t)(d + m->width) + (size_t)(d * m->segment);
    return compute_reserve_scratch(op->compute, sizeof(float) * floats, 0, err, errlen);
}

static double infini_bytes(const Operator *op) {
    const Infini *m = op->own;
    double rows = (double)m->segment * (m->width + op->shape.head_dim), state = (double)op->shape.head_dim * m->width;
    return sizeof(float) * op->shape.n_kv_heads * (rows + state) + (double)kvcache_bytes(m->soft.cache);
}

static void elu_1(float *y, const float *x, int n) {
    for (int i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] + 1 : expf(x[i]);
}

static PackedMatrix panels(const float *data, int width) {
    return (PackedMatrix){.data = data, .row_stride = width, .panel_stride = MAX_PANEL};
}

// What the memory of a head holds for n features [n][head_dim]: y [n][width], values by their weights' sum.
static void recall(const Operator *op, int kv_head, const float *x, int n, float *y) {
    const Infini *m = op->own;
    int d = op->shape.head_dim, width = m->width;
    PackedMatrix matrix = panels(m->matrix + (int64_t)kv_head * d * width, width);
    op->compute->kernels->gemm_f32(y, width, &matrix, x, d, n, d, width, false);
    for (int i = 0; i < n; i++) {
        for (int c = 0; c < d; c++) y[i * width + c] /= fmaxf(y[i * width + d], LEAST_SUM);
    }
}

static void read_head(void *context, int head, int worker) {
    const Part *p = context;
    const Operator *op = p->op;
    const Infini *m = op->own;
    int d = op->shape.head_dim, heads = op->shape.n_heads, kv_head = head / (heads / op->shape.n_kv_heads);
    float *x = compute_scratch(op->compute, worker), *y = x + PIECE * d, gate = m->gates[head];
    for (int at = 0; at < p->rows.n_q; at += PIECE) {
        int n = p->rows.n_q - at < PIECE ? p->rows.n_q - at : PIECE;
        int64_t first = ((int64_t)at * heads + head) * d, ld = (int64_t)heads * d;
        for (int i = 0; i < n; i++) elu_1(x + i * d, p->rows.q + first + i * ld, d);
        recall(op, kv_head, x, n, y);
        for (int i = 0; i < n; i++) {
            float *out = p->rows.out + first + i * ld;
            for (int c = 0; c < d; c++) out[c] = gate * y[i * m->width + c] + (1 - gate) * out[c];
        }
    }
}

// M += features^T (V - what M held for them), z += the features' sum.
static void write_head(void *context, int kv_head, int worker) {
    const Part *p = context;
    const Operator *op = p->op;
    const Infini *m = op->own;
    int d = op->shape.head_dim, width = m->width, n = m->segment;
    float *y = compute_scratch(op->compute, worker), *turned = y + PIECE * (d + width);
    const float *keys = m->keys + (int64_t)kv_head * n * d;
    float *values = m->values + (int64_t)kv_head * n * width;
    for (int at = 0; at < n; at += PIECE) {
        int some = n - at < PIECE ? n - at : PIECE;
        recall(op, kv_head, keys + (int64_t)at * d, some, y);
        for (int i = 0; i < some; i++) {
            for (int c = 0; c < d; c++) values[(int64_t)(at + i) * width + c] -= y[i * width + c];
        }
    }
    for (int i = 0; i < n; i++) {
        for (int c = 0; c < d; c++) turned[(int64_t)c * n + i] = keys[(int64_t)i * d + c];
    }
    PackedMatrix by = panels(values, width);
    op->compute->kernels->gemm_f32(m->matrix + (int64_t)kv_head * d * width, width, &by, turned, n, d, n, width, true);
}

static void infini_part(Operator *op, Part *p) {
    const Shape *s = &op->shape;
    Infini *m = op->own;
    int n = p->rows.n_keys, d = s->head_dim;
    soft_store(&m->soft, n, p->rows.k, p->rows.v);
    Attention a = soft_problem(&m->soft, p->rows.q, p->rows.out, n, m->filled, m->filled + n);
    soft_attend(op, &a, 1);
    soft_advance(&m->soft, n);
    threads_for(op->compute->pool, s->n_heads, read_head, p);
    op->flops += 2.0 * n * d * m->width * s->n_heads;
    for (int i = 0; i < n * s->n_kv_heads; i++) {
        int64_t at = (int64_t)(i % s->n_kv_heads) * m->segment + m->filled + i / s->n_kv_heads, from = (int64_t)i * d;
        elu_1(m->keys + at * d, p->rows.k + from, d);
        memcpy(m->values + at * m->width, p->rows.v + from, sizeof *m->values * (size_t)d);
        m->values[at * m->width + d] = 1;
    }
    m->filled += n;
    if (m->filled < m->segment) return;
    threads_for(op->compute->pool, s->n_kv_heads, write_head, p);
    op->flops += 4.0 * m->segment * d * m->width * s->n_kv_heads;
    kvcache_restart(m->soft.cache);
    m->filled = 0;
}

static void infini_step(Operator *op, const Rows *rows) {
    const Infini *m = op->own;
    for (int at = 0, n; at < rows->n_keys; at += n) {
        n = m->segment - m->filled < rows->n_keys - at ? m->segment - m->filled : rows->n_keys - at;
        Part p = {op, rows_part(rows, &op->shape, at, n)};
        infini_part(op, &p);
    }
}

#define RETRIEVES(kind)                                                                                                \
    .family = "memory", .variant = (kind), .approximates = true, .open = retrieval_open, .step = retrieval_step,       \
    .bytes = retrieval_bytes

const Mechanism memory_rows[] = {
    {"retrieval", "the last w keys, and the k best of those before, looked up in an index",
     "Wu et al. 2022, arXiv:2203.08913, section 3.2, with one softmax in place of its gate; an index of blocks' means",
     "row t sees the last w keys from a block's start on, and of the 4 k keys in the blocks b before with the largest\n"
     "q_t . mean(k_b) the k with the largest q_t . k_j\n",
     "O(n (w + k + n / block) d)", "O((w + k + n / block) d)", "2 n d + n d / block",
     "long documents that are looked up", RETRIEVES(RETRIEVAL),
     .published = "perplexity falls up to a memory of 262K tokens (arXiv:2203.08913, abstract)"},
    {"moba", "a block of queries' own keys, and the blocks whose mean key fits best",
     "Lu et al. 2025, arXiv:2502.13189, section 2",
     "row t sees its own block and the k / block blocks b before with the largest q_t . mean(k_b)\n",
     "O(n (k + n / block) d)", "O((k + n / block) d)", "2 n d + n d / block", "long context trained to be sparse",
     RETRIEVES(ROUTING)},
    {"infini", "softmax within a segment of w rows, a linear state for all before",
     "Munkhdalai et al. 2024, arXiv:2404.07143, section 2.1, with the delta rule",
     "o = g s(q) M / (s(q) z) + (1 - g) softmax(q K^T / sqrt(d)) V over the segment,   s = elu + 1\n"
     "behind a segment M += s(K)^T (V - s(K) M / (s(K) z)),   z += sum s(k)\n",
     "O(n (w + d) d)", "O((w + d) d)", "d^2 + d + 4 w d", "endless text on fixed memory", .family = "memory",
     .open = infini_open, .step = infini_step, .bytes = infini_bytes,
     .published = "114 times less memory than the baseline with retrieval (arXiv:2404.07143, section 1)"},
    {0}};
