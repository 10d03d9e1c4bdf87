// check_attention: the tiled loop against attention written down naively, in double, from the head of attention.h.
//
// A product of masks x n_q x n_keys; for each the case takes the shape, the stored type, the data and the poison
// that have met the others least (pairs are what is covered, not the full product). Each runs at 1, 2, 3 and 7
// threads, which must agree to the bit. All of it in a child process for every level.
//
// Tolerance. The reference uses K and V as the cache rounds them, so what is left is fp32 arithmetic. A score s
// with error e moves a weighted mean of values by at most 2 e max|V|, and e is a few eps * scale * sum |q_i k_i|:
// for ordinary scores the bound is about 1e-5 max|V|, for scores of 1e4 it grows with them.
// The reference of a row has the arithmetic of its products (arithmetic_of). EXACT is that above: also for few rows
// over a bf16 cache.
//
// BFLOAT16: q (scaled for a softmax in base 2, or by the cap) is rounded, the cache counts as it is. P is rounded too,
// each p by a share of up to 2^-8, which moves the mean by at most 2^-8 sum p |v| / sum p, and it comes of a softmax
// that is one to 7.5e-5, above and below.
//
// WHOLES, over a KV_DTYPE_Q8 cache: q is whole numbers of a step, LEVELS of them its largest, rounded here in the same
// way. v is a scale times a whole number i, and x = p scale is whole numbers of the step of its row and tile (a block
// of keys). An x below half a step is lost: sum x |i|. Each other x is off by anything up to half a step. The worst
// case grows with the number of keys and the errors with its root, so of them we allow seven standard deviations, 7
// sqrt(sum (step i)^2 / 12), or the worst case where that is less (few keys).
#include "reference.h"

#include "attention.h"

#include <float.h>

// ---- the product

typedef struct {
    int n_heads, n_kv_heads, k_dim, v_dim;
} Shape;

static const Shape shapes[] = {{4, 4, 64, 64}, {6, 2, 48, 48},  {8, 1, 20, 20}, {9, 3, 64, 64},  {16, 1, 128, 128},
                               {3, 3, 7, 7},   {40, 1, 16, 16}, {2, 1, 80, 80}, {12, 2, 32, 32}, {4, 2, 31, 31},
                               {6, 2, 30, 30}, {6, 2, 96, 64},  {5, 1, 18, 33}, {4, 2, 32, 7},   {6, 2, 64, 96}};

typedef struct {
    const char *name;
    bool causal;
    int window, n_sinks;
    int ahead, chunk;
    bool learned; // sink logits
    int block;    // bitmap; 0: none
    bool holes;   // bitmap with rows of blocks that see nothing
    BlockPattern pattern;
} MaskKind;

static const MaskKind masks[] = {
    {.name = "bidirectional or cross"},
    {.name = "causal", .causal = true},
    {.name = "causal, window 1", .causal = true, .window = 1},
    {.name = "causal, window 5", .causal = true, .window = 5},
    {.name = "causal, window 64", .causal = true, .window = 64},
    {.name = "causal, window 300", .causal = true, .window = 300},
    {.name = "window 5, not causal", .window = 5},
    {.name = "window 64, 2 sinks, not causal", .window = 64, .n_sinks = 2},
    {.name = "causal, window 1, 1 sink", .causal = true, .window = 1, .n_sinks = 1},
    {.name = "causal, window 64, 4 sinks", .causal = true, .window = 64, .n_sinks = 4},
    {.name = "causal, window 5, 70 sinks", .causal = true, .window = 5, .n_sinks = 70},
    {.name = "window 5, 3 ahead", .window = 5, .ahead = 3},
    {.name = "window 64, 63 ahead, 2 sinks", .window = 64, .ahead = 63, .n_sinks = 2},
    {.name = "causal, chunks of 5", .causal = true, .chunk = 5},
    {.name = "causal, chunks of 100, window 100", .causal = true, .window = 100, .chunk = 100},
    {.name = "causal, chunks of 256, window 70, 3 sinks", .causal = true, .window = 70, .n_sinks = 3, .chunk = 256},
    {.name = "learned sinks", .learned = true},
    {.name = "causal, learned sinks", .causal = true, .learned = true},
    {.name = "causal, window 5, 2 sinks, learned sinks", .causal = true, .window = 5, .n_sinks = 2, .learned = true},
    {.name = "bitmap of 16", .block = 16},
    {.name = "bitmap of 32 with holes", .block = 32, .holes = true},
    {.name = "causal, bitmap of 16 with holes", .causal = true, .block = 16, .holes = true},
    {.name = "causal, bitmap of 64", .causal = true, .block = 64},
    {.name = "bitmap of 5", .block = 5},
    {.name = "window 300, 200 ahead, bitmap of 64", .window = 300, .ahead = 200, .block = 64},
    {.name = "bitmap of 64 with holes, learned sinks", .block = 64, .holes = true, .learned = true},
    {.name = "causal, window 64, 3 sinks, bitmap of 32, learned sinks",
     .causal = true,
     .window = 64,
     .n_sinks = 3,
     .block = 32,
     .learned = true},
    {.name = "causal, pattern of 16",
     .causal = true,
     .pattern = {.size = 16, .window = 2, .n_global = 1, .n_random = 2}},
    {.name = "causal, pattern of 5 without window",
     .causal = true,
     .learned = true,
     .pattern = {.size = 5, .n_global = 2, .n_random = 16, .seed = 7}},
    {.name = "causal, window 64, 3 sinks, pattern of 64",
     .causal = true,
     .window = 64,
     .n_sinks = 3,
     .pattern = {.size = 64, .window = 1, .n_random = 1, .seed = 1023}},
    {.name = "pattern of 33", .pattern = {.size = 33, .window = 1, .n_random = 3, .seed = 2}},
};

static const int sizes[] = {1, 2, 15, 16, 17, 63, 64, 65, 1000};
static const int thread_counts[] = {1, 2, 3, 7};

enum { N_MASKS = N_OF(masks), N_SIZES = N_OF(sizes), N_SHAPES = N_OF(shapes), N_POOLS = N_OF(thread_counts) };
static Compute computes[N_POOLS];
enum { ORDINARY, HUGE_SCORES, EQUAL_SCORES, N_FILLS }; // EQUAL: q = 0, the mean of the visible values
enum { CLEAN, NAN_BEHIND, NAN_UNDER, N_POISONS };      // NaN stored behind n_keys; where the keys then are, too
static const float caps[] = {0, 50, 3, 0.25f};         // of the scores, 0: none
enum { N_CAPS = N_OF(caps), N_TYPES = 3 };

// Of heads, for ALiBi.
static const float *slopes_of(int n_heads) {
    static float slopes[256];
    for (int h = 0; h < n_heads && h < N_OF(slopes); h++) slopes[h] = exp2f(-8.0f * (float)(h + 1) / (float)n_heads);
    return slopes;
}

typedef struct {
    const MaskKind *mask;
    Shape shape;
    int n_q, n_keys, pos0;
    KvDType type;
    int fill, poison;
    float softcap;
    bool slopes; // ALiBi
    uint64_t seed;
} Case;

// ---- one case as data

typedef struct {
    float *q, *k, *v; // k, v as the cache holds them
    float *sink_logits;
    uint8_t *bitmap;
    KvCache *cache;
    float scale;
    AttnMask mask;
} Data;

static void fill_uniform(float *p, int64_t n, float reach) {
    for (int64_t i = 0; i < n; i++) p[i] = test_uniform() * reach;
}

static uint8_t *make_bitmap(const Case *c, int *stride) {
    int block = c->mask->block, rows = (c->n_q + block - 1) / block, cols = (c->n_keys + block - 1) / block;
    *stride = cols + pick(3);
    uint8_t *bits = need((size_t)rows * (size_t)*stride + 1);
    for (int i = 0; i < rows * *stride; i++) bits[i] = (uint8_t)(pick(5) < 2 ? 1 + pick(255) : 0);
    if (!c->mask->holes) return bits;
    for (int r = 0; r < rows; r++) {
        if (r % 3 == 1 || rows == 1) memset(bits + r * *stride, 0, (size_t)cols);
    }
    return bits;
}

// Rows into a cache, some at once and some head by head; NaN first where the case wants to see it leak.
static KvCache *make_cache(const Case *c, const float *k, const float *v) {
    char err[200] = "";
    int kd = c->shape.k_dim, vd = c->shape.v_dim, n_kv = c->shape.n_kv_heads;
    KvShape shape = {.n_kv_heads = n_kv, .k_dim = kd, .v_dim = vd, .type = c->type};
    KvCache *cache = kvcache_open(&shape, NULL, err, sizeof err);
    int room = (c->n_keys / KV_BLOCK + 1) * KV_BLOCK; // to the end of the last block
    if (!cache || kvcache_reserve(cache, room)) {
        fprintf(stderr, "no memory for a cache of %d keys %s\n", room, err);
        exit(1);
    }
    int64_t n_poison = (int64_t)room * n_kv * (kd > vd ? kd : vd);
    float *poison = need_floats(n_poison);
    for (int64_t i = 0; i < n_poison; i++) poison[i] = i % 3 ? NAN : INFINITY;
    if (c->poison == NAN_UNDER) {
        kvcache_store(cache, NULL, room, poison, poison);
        kvcache_advance(cache, room);
        kvcache_truncate(cache, 0);
        kvcache_reserve(cache, room);
    }
    int first = pick(c->n_keys + 1);
    kvcache_store(cache, computes[first % N_POOLS].pool, first, k, v);
    kvcache_advance(cache, first);
    for (int h = 0; h < n_kv; h++) {
        KvRows rows = {.k_ld = (int64_t)n_kv * kd, .v_ld = (int64_t)n_kv * vd};
        rows.k = k + first * rows.k_ld + h * kd;
        rows.v = v + first * rows.v_ld + h * vd;
        kvcache_store_head(cache, h, 0, c->n_keys - first, &rows);
    }
    kvcache_advance(cache, c->n_keys - first);
    if (c->poison == NAN_BEHIND) {
        kvcache_store(cache, NULL, room - c->n_keys, poison, poison);
        kvcache_advance(cache, room - c->n_keys);
        if (pick(2)) kvcache_truncate(cache, c->n_keys);
    }
    free(poison);
    return cache;
}

// n values, vectors of `dim` each, as the cache holds them.
static void round_as_stored(KvDType type, float *x, int64_t n, int dim) {
    if (type == KV_DTYPE_BF16) {
        for (int64_t i = 0; i < n; i++) x[i] = bf16_nearest(x[i]);
    }
    if (type == KV_DTYPE_Q8) {
        for (int64_t i = 0; i < n; i += dim) q8_nearest(x + i, dim);
    }
}

static Data make_data(const Case *c) {
    Data d = {0};
    int H = c->shape.n_heads, kd = c->shape.k_dim, vd = c->shape.v_dim;
    int64_t vectors = (int64_t)c->n_keys * c->shape.n_kv_heads, n_q = (int64_t)c->n_q * H * kd;
    int64_t n_k = vectors * kd, n_v = vectors * vd;
    d.q = need_floats(n_q);
    d.k = need_floats(n_k);
    d.v = need_floats(n_v);
    d.scale = pick(3) ? 1 / sqrtf((float)kd) : 0.3f;
    float reach_q = c->fill == HUGE_SCORES ? 1e4f / (d.scale * sqrtf((float)kd)) : c->fill == EQUAL_SCORES ? 0 : 3;
    static const float reaches_v[] = {1, 1, 1e-3f, 100};
    fill_uniform(d.q, n_q, reach_q);
    fill_uniform(d.k, n_k, 1);
    fill_uniform(d.v, n_v, reaches_v[pick(4)]);
    if (pick(2)) { // values that do not cancel
        for (int64_t i = 0; i < n_v; i++) d.v[i] = fabsf(d.v[i]);
    }
    d.mask = (AttnMask){.causal = c->mask->causal,
                        .window = c->mask->window,
                        .chunk = c->mask->chunk,
                        .ahead = c->mask->ahead,
                        .n_sinks = c->mask->n_sinks,
                        .pattern = c->mask->pattern};
    if (c->mask->learned) {
        d.sink_logits = need_floats(H);
        for (int h = 0; h < H; h++)
            d.sink_logits[h] = c->fill == HUGE_SCORES ? test_uniform() * 1e4f : test_uniform() * 4;
        d.mask.sink_logits = d.sink_logits;
    }
    if (c->mask->block) {
        d.bitmap = make_bitmap(c, &d.mask.bitmap_stride);
        d.mask.bitmap = d.bitmap;
        d.mask.block = c->mask->block;
    }
    d.cache = make_cache(c, d.k, d.v);
    round_as_stored(c->type, d.k, n_k, kd);
    round_as_stored(c->type, d.v, n_v, vd);
    return d;
}

static void free_data(Data *d) {
    kvcache_close(d->cache);
    free(d->q);
    free(d->k);
    free(d->v);
    free(d->sink_logits);
    free(d->bitmap);
}

// ---- the reference

static uint64_t finalised(uint64_t x) { // splitmix64's
    x ^= x >> 30;
    x *= 0xBF58476D1CE4E5B9u;
    x ^= x >> 27;
    x *= 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

// Whether the pattern shows a query at position p key j.
static bool in_pattern(const BlockPattern *b, int p, int j) {
    int from = p / b->size, to = j / b->size;
    bool seen = to < b->n_global || from - to < b->window;
    if (!from) return seen; // no block stands before it
    for (int i = 0; i < b->n_random; i++) {
        uint64_t counter = ((uint64_t)b->seed << 40) + ((uint64_t)from << 8) + (uint64_t)i;
        seen |= finalised((counter + 1) * 0x9E3779B97F4A7C15u) % (uint64_t)from == (uint64_t)to;
    }
    return seen;
}

static bool visible(const AttnMask *m, int pos0, int n_keys, int t, int j) {
    int p = pos0 + t,
        hi = m->causal  ? p + 1
             : m->ahead ? p + m->ahead + 1
                        : n_keys,
        lo = m->window > 0 ? p - m->window + 1 : 0, first = m->chunk > 0 ? p / m->chunk * m->chunk : 0;
    if (first > lo) lo = first;
    if (j >= hi) return false;
    if (j < lo && j >= m->n_sinks) return false;
    if (m->pattern.size) return in_pattern(&m->pattern, p, j);
    return !m->bitmap || m->bitmap[(t / m->block) * m->bitmap_stride + j / m->block] != 0;
}

// A score as the softmax gets it.
static double capped(double score, float cap) {
    return cap > 0 ? (double)cap * tanh(score / (double)cap) : score;
}

typedef enum { EXACT, BFLOAT16, WHOLES, N_ARITHMETICS } Arithmetic;

enum { FEW_ROWS = 8, MAX_ROWS = 256, MAX_QUERIES = 64, LEVELS = 255 * 127 + 127, MAX_HEAD_DIM = 256 };

// Of the rows of query t: those of its block of queries, in every head of a group, meet the cache together.
static Arithmetic arithmetic_of(const Attention *a, int t) {
    int group = a->n_heads / a->kv.n_kv_heads, block = MAX_ROWS / group;
    block = block < 1 ? 1 : block > MAX_QUERIES ? MAX_QUERIES : block;
    int begin = t / block * block, n = a->n_q - begin < block ? a->n_q - begin : block;
    if (a->kv.type == KV_DTYPE_F32) return EXACT;
    bool whole_steps = a->kv.word * a->kv.key_words % BF16_STEP == 0;
    if (kernels()->bf16 && whole_steps && n * group > FEW_ROWS) return BFLOAT16;
    return a->kv.type == KV_DTYPE_Q8 && cpu_level() != LEVEL_SCALAR ? WHOLES : EXACT;
}

static double largest(const float *x, int n) {
    float most = 0;
    for (int i = 0; i < n; i++) most = fmaxf(most, fabsf(x[i]));
    return (double)most;
}

// A query as the products get it, and what makes a score of such a product.
static double take_query(const Attention *a, const float *q, Arithmetic arithmetic, double *to) {
    float scale = a->softcap > 0 ? a->scale / a->softcap : a->scale * 1.44269504088896340736f; // log2(e)
    float step = (float)largest(q, a->kv.k_dim) * scale * (1.0f / LEVELS), inverse = step > 0 ? 1 / step : 0;
    for (int d = 0; d < a->kv.k_dim; d++) {
        float x = q[d] * scale;
        to[d] = (double)q[d];
        if (arithmetic == BFLOAT16) to[d] = (double)bf16_nearest(x);
        if (arithmetic == WHOLES) to[d] = (double)rintf(x * inverse) * (double)step;
    }
    return arithmetic == EXACT ? (double)a->scale : a->softcap > 0 ? (double)a->softcap : log(2);
}

typedef struct {
    int n_visible;
    double tolerance, share; // of every value; besides a share of the mean of |v|, and OFF
} Expected;

enum { OUT, MEAN_ABS, QUERY, OFF, N_ROWS }; // the mean of v, of |v|, the query, what WHOLES may take from P: [head_dim]

// What rounding p times the scales of v does to the sum of p v, at most. p[n_keys]: NAN where nothing is visible.
static void rounding_of_p(const Attention *a, const float *v, int kv_head, const double *p, double *off) {
    int hd = a->kv.v_dim, width = a->kv.n_kv_heads * hd;
    double lost[MAX_HEAD_DIM] = {0}, worst[MAX_HEAD_DIM] = {0}, variance[MAX_HEAD_DIM] = {0};
    for (int j0 = 0; j0 < a->n_keys; j0 += KV_BLOCK) {
        double scales[KV_BLOCK], x[KV_BLOCK], most = 0;
        int n = a->n_keys - j0 < KV_BLOCK ? a->n_keys - j0 : KV_BLOCK;
        for (int j = 0; j < n; j++) {
            x[j] = 0;
            if (isnan(p[j0 + j])) continue;
            scales[j] = largest(v + (int64_t)(j0 + j) * width + kv_head * hd, hd) / 127;
            x[j] = p[j0 + j] * scales[j];
            most = fmax(most, x[j]);
        }
        double half = most / LEVELS / 2;
        for (int j = 0; j < n; j++) {
            const float *row = v + (int64_t)(j0 + j) * width + kv_head * hd;
            if (x[j] <= 0) continue;
            for (int d = 0; d < hd; d++) {
                double whole = fabs((double)row[d]) / scales[j];
                if (x[j] < half) {
                    lost[d] += x[j] * whole;
                } else {
                    worst[d] += half * whole;
                    variance[d] += half * half / 3 * whole * whole;
                }
            }
        }
    }
    for (int d = 0; d < hd; d++) off[d] = lost[d] + fmin(worst[d], 7 * sqrt(variance[d]));
}

static int row_width(const Attention *a) {
    return a->kv.k_dim > a->kv.v_dim ? a->kv.k_dim : a->kv.v_dim;
}

// One query of one head: rows[N_ROWS][row_width].
static Expected reference(const Attention *a, const float *k, const float *v, int t, int h, Arithmetic arithmetic,
                          double *rows, double *scores) {
    int kd = a->kv.k_dim, vd = a->kv.v_dim, hd = row_width(a), n_kv = a->kv.n_kv_heads,
        kv_head = h / (a->n_heads / n_kv);
    double *out = rows + OUT * hd, *mean_abs = rows + MEAN_ABS * hd, *q = rows + QUERY * hd, *off = rows + OFF * hd;
    double scale = take_query(a, a->q + ((int64_t)t * a->n_heads + h) * kd, arithmetic, q);
    double top = a->mask.sink_logits ? (double)a->mask.sink_logits[h] : -INFINITY, most_abs = 0, v_max = 0;
    Expected e = {.share = arithmetic == BFLOAT16 ? 0x1p-8 + 2 * 7.5e-5 : 0};
    for (int j = 0; j < a->n_keys; j++) {
        scores[j] = NAN;
        if (!visible(&a->mask, a->pos0, a->n_keys, t, j)) continue;
        const float *row = k + ((int64_t)j * n_kv + kv_head) * kd;
        double s = 0, s_abs = 0;
        for (int d = 0; d < kd; d++) {
            s += q[d] * (double)row[d];
            s_abs += fabs(q[d] * (double)row[d]);
        }
        double slope = a->slopes ? (double)a->slopes[h] * (j - (a->pos0 + t)) : 0;
        scores[j] = capped(s * scale, a->softcap) + slope;
        if (scores[j] > top) top = scores[j];
        if (s_abs * scale + fabs(slope) > most_abs) most_abs = s_abs * scale + fabs(slope);
        e.n_visible++;
    }
    double sum = a->mask.sink_logits ? exp((double)a->mask.sink_logits[h] - top) : 0;
    for (int d = 0; d < vd; d++) out[d] = mean_abs[d] = off[d] = 0;
    for (int j = 0; j < a->n_keys; j++) {
        if (isnan(scores[j])) continue;
        double p = scores[j] = exp(scores[j] - top);
        const float *row = v + ((int64_t)j * n_kv + kv_head) * vd;
        sum += p;
        for (int d = 0; d < vd; d++) {
            out[d] += p * (double)row[d];
            mean_abs[d] += p * fabs((double)row[d]);
            if (fabs((double)row[d]) > v_max) v_max = fabs((double)row[d]);
        }
    }
    if (arithmetic == WHOLES) rounding_of_p(a, v, kv_head, scores, off);
    double share = e.n_visible ? 1 / sum : 1; // of nothing: zeros
    for (int d = 0; d < vd; d++) {
        out[d] *= share;
        mean_abs[d] *= share;
        off[d] *= share;
    }
    double reach = fmax(most_abs, a->mask.sink_logits ? fabs((double)a->mask.sink_logits[h]) : 0);
    e.tolerance = v_max * (4e-6 + 2 * 3 * (double)FLT_EPSILON * (reach + 2 * (double)a->softcap)) + 1e-37;
    if (!e.n_visible) e.tolerance = e.share = 0; // zeros
    return e;
}

// ---- running a case

static int n_cases;

static const char *describe(const Case *c) {
    static char text[400];
    static const char *const fills[] = {"ordinary", "huge scores", "equal scores"}, *const poisons[] = {"",
                                                                                                        ", NaN behind",
                                                                                                        ", NaN under"};
    snprintf(text, sizeof text, "%s: %s, n_q %d n_keys %d pos0 %d, heads %d/%d of %d and %d, %s, %s%s, cap %g%s",
             cpu_level_name(cpu_level()), c->mask->name, c->n_q, c->n_keys, c->pos0, c->shape.n_heads,
             c->shape.n_kv_heads, c->shape.k_dim, c->shape.v_dim, kv_dtype_name(c->type), fills[c->fill],
             poisons[c->poison], (double)c->softcap, c->slopes ? ", ALiBi" : "");
    return text;
}

static double parts[N_ARITHMETICS]; // how near the worst row came to its bound

// Of value d of a row.
static double bound_of(const double *rows, int hd, int d, Expected e) {
    return e.tolerance + e.share * rows[MEAN_ABS * hd + d] + rows[OFF * hd + d];
}

// The first value of a row that is off, or -1.
static int row_off(const float *out, int vd, const double *rows, int hd, Expected e, double *part) {
    double most = 0;
    for (int d = 0; d < vd; d++) {
        double bound = bound_of(rows, hd, d, e), error = fabs((double)out[d] - rows[OUT * hd + d]);
        if (!(error <= bound)) return d;
        if (bound > 0) most = fmax(most, error / bound);
    }
    *part = fmax(*part, most);
    return -1;
}

// out against the reference: every row of a small case, the edges and some others of a large one.
static void check_rows(const Attention *a, const float *k, const float *v, const char *what) {
    int hd = row_width(a), vd = a->kv.v_dim, wrong = 0;
    int64_t work = (int64_t)a->n_q * a->n_heads * a->n_keys * hd;
    double *rows = need(sizeof *rows * (size_t)(N_ROWS * hd)), *scores = need(sizeof *scores * (size_t)(a->n_keys + 1));
    int step = work > 4000000 ? (int)(work / 4000000) * 2 + 1 : 1;
    for (int t = 0; t < a->n_q; t++) {
        bool edge = t < 2 || t > a->n_q - 3;
        Arithmetic arithmetic = arithmetic_of(a, t);
        for (int h = 0; h < a->n_heads && wrong < 3; h++) {
            if ((t * a->n_heads + h) % step && !(edge && h % 4 == t % 4)) continue;
            const float *out = a->out + ((int64_t)t * a->n_heads + h) * vd;
            Expected e = reference(a, k, v, t, h, arithmetic, rows, scores);
            int d = row_off(out, vd, rows, hd, e, &parts[arithmetic]);
            if (d < 0) continue;
            CHECK(false, "%s: query %d head %d [%d] = %.9g, expected %.9g +- %.2g (%d keys visible)", what, t, h, d,
                  (double)out[d], rows[OUT * hd + d], bound_of(rows, hd, d, e), e.n_visible);
            wrong++;
        }
    }
    free(rows);
    free(scores);
}

static Attention attention_of(const Case *c, const Data *d, float *out) {
    return (Attention){.q = d->q,
                       .out = out,
                       .n_q = c->n_q,
                       .n_heads = c->shape.n_heads,
                       .pos0 = c->pos0,
                       .n_keys = c->n_keys,
                       .scale = d->scale,
                       .softcap = c->softcap,
                       .slopes = c->slopes ? slopes_of(c->shape.n_heads) : NULL,
                       .kv = kvcache_view(d->cache),
                       .mask = d->mask};
}

enum { GUARD = 64 };

// NaN still stands before and behind the n floats.
static bool guard_kept(const float *x, int64_t n) {
    for (int g = 0; g < GUARD; g++) {
        if (!isnan(x[-GUARD + g]) || !isnan(x[n + g])) return false;
    }
    return true;
}

// Run at every thread count; the first result is left in out, which has GUARD floats before and behind.
static void run_everywhere(Attention *a, float *out, float *again, const char *what) {
    int64_t n = (int64_t)a->n_q * a->n_heads * a->kv.v_dim;
    for (int i = 0; i < N_POOLS; i++) {
        float *to = i ? again : out;
        for (int64_t at = -GUARD; at < n + GUARD; at++) to[at] = NAN;
        a->out = to;
        attention(&computes[i], a, 1);
        CHECK(guard_kept(to, n), "%s: wrote outside out, %d threads", what, thread_counts[i]);
        CHECK(!i || !memcmp(again, out, sizeof(float) * (size_t)n), "%s: %d threads differ from 1", what,
              thread_counts[i]);
    }
    a->out = out;
}

static void check_pairs(const Attention *a, const char *what) {
    double pairs = 0, computed = attention_computed(&computes[0], a);
    for (int t = 0; t < a->n_q; t++) {
        for (int j = 0; j < a->n_keys; j++) pairs += visible(&a->mask, a->pos0, a->n_keys, t, j);
    }
    CHECK(attention_pairs(a) == pairs, "%s: %g visible pairs counted, expected %g", what, attention_pairs(a), pairs);
    CHECK(computed >= pairs && computed <= (double)a->n_q * (a->n_keys + KV_GROUP), "%s: %g pairs computed, %g visible",
          what, computed, pairs);
}

static void run_case(const Case *c) {
    test_rng = c->seed * 0x9E3779B97F4A7C15u + 1;
    Data d = make_data(c);
    int64_t n = (int64_t)c->n_q * c->shape.n_heads * c->shape.v_dim;
    float *out = need_floats(n + 2 * GUARD), *again = need_floats(n + 2 * GUARD);
    Attention a = attention_of(c, &d, NULL);
    run_everywhere(&a, out + GUARD, again + GUARD, describe(c));
    check_rows(&a, d.k, d.v, describe(c));
    check_pairs(&a, describe(c));
    free(out);
    free(again);
    free_data(&d);
    n_cases++;
}

static void open_pools(void) {
    char err[200] = "";
    for (int i = 0; i < N_POOLS; i++) {
        bool open = !compute_open(&computes[i], thread_counts[i], err, sizeof err);
        for (int s = 0; s < N_SHAPES && open; s++) {
            const Shape *h = &shapes[s];
            open = !attention_reserve(&computes[i], h->n_heads, h->n_kv_heads, h->k_dim, h->v_dim, err, sizeof err);
        }
        if (open) continue;
        fprintf(stderr, "%s\n", err);
        exit(1);
    }
}

static void close_pools(void) {
    for (int i = 0; i < N_POOLS; i++) compute_close(&computes[i]);
}

// ---- the product, by pairs

enum { AXIS_MASK, AXIS_Q, AXIS_KEYS, AXIS_SHAPE, AXIS_TYPE, AXIS_FILL, AXIS_POISON, AXIS_CAP, N_AXES, MAX_AXIS = 32 };

static uint16_t met[N_AXES][MAX_AXIS][N_AXES][MAX_AXIS]; // how often two values were in one case
_Static_assert(N_OF(masks) <= MAX_AXIS && N_OF(sizes) <= MAX_AXIS && N_OF(shapes) <= MAX_AXIS, "room for all values");

static int newness(const int *at) {
    int sum = 0;
    for (int a = 0; a < N_AXES; a++) {
        for (int b = 0; b < a; b++) sum += 60 / (1 + met[a][at[a]][b][at[b]]);
    }
    return sum;
}

// The multiply-adds of one run that a case may cost: the scalar level is slow, and so are emulators.
static int64_t work_allowed(void) {
    int64_t most = cpu_level() == LEVEL_SCALAR ? 20000000 : 150000000;
    return most / by_speed(SANITIZED ? 25 : 1, 25, 250);
}

static void run_pairs(int mask, int q, int keys) {
    int best[N_AXES], most = -1;
    for (int shape = 0; shape < N_SHAPES; shape++) {
        int64_t work = (int64_t)sizes[q] * sizes[keys] * shapes[shape].n_heads * shapes[shape].k_dim;
        if (work > work_allowed() && shape != 5) continue; // 5: the smallest
        for (int rest = 0; rest < N_TYPES * N_FILLS * N_POISONS * N_CAPS; rest++) {
            int at[N_AXES] = {mask,
                              q,
                              keys,
                              shape,
                              rest % N_TYPES,
                              rest / N_TYPES % N_FILLS,
                              rest / N_TYPES / N_FILLS % N_POISONS,
                              rest / N_TYPES / N_FILLS / N_POISONS};
            int score = newness(at) + (at[AXIS_FILL] == ORDINARY ? 20 : 0) + pick(8);
            if (score <= most) continue;
            most = score;
            memcpy(best, at, sizeof best);
        }
    }
    for (int a = 0; a < N_AXES; a++) {
        for (int b = 0; b < a; b++) met[a][best[a]][b][best[b]]++;
    }
    Case c = {.mask = &masks[mask],
              .shape = shapes[best[AXIS_SHAPE]],
              .n_q = sizes[q],
              .n_keys = sizes[keys],
              .type = (KvDType)best[AXIS_TYPE],
              .fill = best[AXIS_FILL],
              .poison = best[AXIS_POISON],
              .softcap = caps[best[AXIS_CAP]],
              .seed = (uint64_t)(n_cases + 1)};
    c.pos0 = c.n_keys > c.n_q ? c.n_keys - c.n_q : 0;
    if (!c.mask->causal && !c.mask->window) c.pos0 = 12345; // without them it means nothing
    run_case(&c);
}

static void product(void) {
    open_pools();
    double begin = seconds();
    for (int mask = 0; mask < N_MASKS; mask++) {
        for (int q = 0; q < N_SIZES; q++) {
            for (int keys = 0; keys < N_SIZES; keys++) {
                if (masks[mask].causal && sizes[q] > sizes[keys]) continue;
                // Where not all are taken, every level has others.
                if ((q * N_SIZES + keys + mask + (int)cpu_level()) % by_speed(2, 11, 61)) continue;
                run_pairs(mask, q, keys);
            }
        }
    }
    printf("  %s: %d cases x 4 thread counts, %.1f s", cpu_level_name(cpu_level()), n_cases, seconds() - begin);
    printf("; at most %.2f of the bound", parts[EXACT]);
    if (parts[BFLOAT16] > 0) printf(", bfloat16 %.2f", parts[BFLOAT16]);
    if (parts[WHOLES] > 0) printf(", whole numbers %.2f", parts[WHOLES]);
    printf("\n");
    close_pools();
}

// ---- few queries over many keys (the span is split), many queries of many heads

static void long_spans(void) {
    open_pools();
    static const int n_qs[] = {1, 2, 3, 5, 8, 31, 33};
    static const int spans[] = {255, 256, 257, 511, 513, 1023, 2048, 5000};
    for (int i = 0; i < N_OF(n_qs); i++) {
        for (int k = 0; k < N_OF(spans) - quick(); k += by_speed(1, 2, 3)) {
            int mask = 1 + pick(N_MASKS - 1), shape = pick(N_SHAPES);
            if ((i + k) % 2) mask = 1; // half of them: plain decode
            int64_t work = (int64_t)n_qs[i] * spans[k] * shapes[shape].n_heads * shapes[shape].k_dim;
            if (work > work_allowed()) shape = 5;
            Case c = {.mask = &masks[mask],
                      .shape = shapes[shape],
                      .n_q = n_qs[i],
                      .n_keys = spans[k],
                      .pos0 = spans[k] - n_qs[i],
                      .type = (KvDType)pick(N_TYPES),
                      .fill = pick(3),
                      .poison = pick(3),
                      .softcap = caps[pick(N_CAPS)],
                      .slopes = (i + k) % 3 == 0,
                      .seed = (uint64_t)(1000000 + 100 * i + k)};
            run_case(&c);
            test_rng = c.seed;
        }
    }
    close_pools();
}

// ---- the last keys, with NaN behind them, over few rows and more than meet a tile at a time

static void last_keys(void) {
    open_pools();
    static const int n_qs[] = {1, 2, 8, 9, 33, 100};
    static const int lengths[] = {1, 2, 3, 5, 7, 30, 33, 95, 127, 129, 131, 161, 257, 259};
    int n = 0;
    for (int i = 0; i < N_OF(n_qs); i++) {
        for (int k = 0; k < N_OF(lengths); k++) {
            for (int type = 0; type < N_TYPES; type++, n++) {
                if (n % by_speed(1, 5, 31)) continue;
                int shape = n * 4 / 3 % N_SHAPES;
                int64_t work = (int64_t)n_qs[i] * lengths[k] * shapes[shape].n_heads * shapes[shape].k_dim;
                if (work > work_allowed() / 10) shape = 5;
                Case c = {.mask = &masks[n_qs[i] <= lengths[k]], // causal where it can be
                          .shape = shapes[shape],
                          .n_q = n_qs[i],
                          .n_keys = lengths[k],
                          .type = (KvDType)type,
                          .poison = 1 + n % 2,
                          .softcap = n % 7 ? 0 : 3,
                          .slopes = n % 4 == 1,
                          .seed = (uint64_t)(3000000 + n)};
                c.pos0 = c.mask->causal ? c.n_keys - c.n_q : 0;
                run_case(&c);
            }
        }
    }
    close_pools();
}

// ---- places where nothing is visible, and no keys at all

static void nothing_visible(void) {
    open_pools();
    static const MaskKind window = {.name = "window 5 behind all keys", .window = 5};
    static const MaskKind learned = {.name = "window 5 behind all keys, learned sinks", .window = 5, .learned = true};
    static const MaskKind kept = {.name = "window 5 behind all keys, 3 sinks", .window = 5, .n_sinks = 3};
    static const MaskKind causal = {
        .name = "causal, window 5 behind all keys, 3 sinks", .causal = true, .window = 5, .n_sinks = 3};
    static const MaskKind many = {.name = "window 5 behind all keys, 600 sinks", .window = 5, .n_sinks = 600};
    static const MaskKind plain = {.name = "no keys"}, no_keys = {.name = "no keys, learned sinks", .learned = true};
    static const MaskKind *const kinds[] = {&window, &learned, &kept, &causal, &many, &plain, &no_keys};
    for (int i = 0; i < N_OF(kinds); i++) {
        for (int shape = 0; shape < N_SHAPES; shape += by_speed(3, 3, 6)) {
            for (int n_q = 1; n_q < 80; n_q += 39) {
                Case c = {.mask = kinds[i], .shape = shapes[shape], .n_q = n_q, .n_keys = i < 5 ? 70 : 0, .pos0 = 500};
                c.type = (KvDType)((n_q / 39 + i) % N_TYPES);
                c.seed = (uint64_t)(i * 100 + shape * 10 + n_q);
                run_case(&c);
            }
        }
    }
    close_pools();
}

// ---- a cache whose window lets blocks go, filled the way a session fills it

// A text's rows: as they are stored, and as the cache gives them back.
typedef struct {
    float *k, *v, *new_k, *new_v;
} Rows;

static Rows make_rows(const Shape *s, KvDType type, int n) {
    int64_t n_k = (int64_t)n * s->n_kv_heads * s->k_dim, n_v = (int64_t)n * s->n_kv_heads * s->v_dim;
    Rows r = {need_floats(n_k), need_floats(n_v), need_floats(n_k), need_floats(n_v)};
    fill_uniform(r.new_k, n_k, 2);
    fill_uniform(r.new_v, n_v, 1);
    memcpy(r.k, r.new_k, sizeof *r.k * (size_t)n_k);
    memcpy(r.v, r.new_v, sizeof *r.v * (size_t)n_v);
    round_as_stored(type, r.k, n_k, s->k_dim);
    round_as_stored(type, r.v, n_v, s->v_dim);
    return r;
}

static void free_rows(Rows *r) {
    free(r->k);
    free(r->v);
    free(r->new_k);
    free(r->new_v);
}

// n queries that end the text.
static void attend_to_the_end(const KvCache *cache, const Shape *s, const Rows *rows, int n) {
    int64_t n_q = (int64_t)n * s->n_heads * s->k_dim, n_out = (int64_t)n * s->n_heads * s->v_dim + 2 * GUARD;
    float *q = need_floats(n_q), *out = need_floats(n_out), *again = need_floats(n_out);
    int window = kvcache_window(cache), n_sinks = kvcache_sinks(cache), at = kvcache_length(cache);
    fill_uniform(q, n_q, 3);
    Attention a = {.q = q,
                   .n_q = n,
                   .n_heads = s->n_heads,
                   .pos0 = at,
                   .n_keys = at + n,
                   .scale = 0.2f,
                   .softcap = caps[window % N_CAPS],
                   .kv = kvcache_view(cache),
                   .mask = {.causal = true, .window = window, .n_sinks = n_sinks}};
    char what[200];
    snprintf(what, sizeof what, "%s: %s cache of window %d sinks %d, %d tokens at %d, heads %d/%d of %d and %d",
             cpu_level_name(cpu_level()), kv_dtype_name(a.kv.type), window, n_sinks, n, at, s->n_heads, s->n_kv_heads,
             s->k_dim, s->v_dim);
    run_everywhere(&a, out + GUARD, again + GUARD, what);
    check_rows(&a, rows->k, rows->v, what);
    free(q);
    free(out);
    free(again);
}

static void evicted_by(int window, int n_sinks, int shape, KvDType type, int most_at_once) {
    char err[200] = "";
    int n_total = by_speed(1200, 600, 400);
    const Shape *s = &shapes[shape];
    KvShape kv = {.n_kv_heads = s->n_kv_heads, .k_dim = s->k_dim, .v_dim = s->v_dim, .type = type};
    kv.window = window;
    kv.n_sinks = n_sinks;
    KvCache *cache = kvcache_open(&kv, NULL, err, sizeof err);
    NEED(cache, "%s", err);
    Rows rows = make_rows(s, type, n_total);
    for (int at = 0, n; at < n_total; at += n) {
        n = most_at_once == 1 ? 1 : 1 + pick(most_at_once);
        if (n > n_total - at) n = n_total - at;
        CHECK(!kvcache_reserve(cache, n), "no memory for %d tokens", n);
        kvcache_store(cache, NULL, n, rows.new_k + (int64_t)at * s->n_kv_heads * s->k_dim,
                      rows.new_v + (int64_t)at * s->n_kv_heads * s->v_dim);
        bool look = most_at_once > 1 || at % by_speed(61, 203, 203) == 0 || at % KV_BLOCK < 2;
        if (look) attend_to_the_end(cache, s, &rows, n);
        kvcache_advance(cache, n);
    }
    kvcache_close(cache);
    free_rows(&rows);
}

static void evicted_blocks(void) {
    open_pools();
    static const struct {
        int window, n_sinks, shape;
        KvDType type;
        int most_at_once;
    } cases[] = {{256, 0, 1, KV_DTYPE_BF16, 1},  {5, 0, 5, KV_DTYPE_F32, 1},        {64, 4, 3, KV_DTYPE_BF16, 1},
                 {100, 300, 2, KV_DTYPE_F32, 1}, {64, 4, 5, KV_DTYPE_F32, 600},     {64, 4, 3, KV_DTYPE_Q8, 1},
                 {100, 300, 8, KV_DTYPE_Q8, 70}, {70, 2, 0, KV_DTYPE_BF16, 100},    {90, 3, 11, KV_DTYPE_BF16, 80},
                 {64, 4, 12, KV_DTYPE_Q8, 1},    {100, 260, 13, KV_DTYPE_F32, 150}, {100, 0, 7, KV_DTYPE_BF16, 300},
                 {300, 1, 6, KV_DTYPE_BF16, 70}, {100, 0, 4, KV_DTYPE_Q8, 300}};
    int step = by_speed(1, 3, 7);
    for (int i = (int)cpu_level() % step; i < N_OF(cases); i += step) {
        evicted_by(cases[i].window, cases[i].n_sinks, cases[i].shape, cases[i].type, cases[i].most_at_once);
    }
    close_pools();
}

// ---- scratch memory

// Bytes of scratch depend on the shape, not on how long the text is; and a scratch serves all smaller shapes.
static void scratch(void) {
    open_pools();
    char err[200] = "";
    Compute compute;
    CHECK(!compute_open(&compute, 2, err, sizeof err) && !attention_reserve(&compute, 16, 1, 128, 128, err, sizeof err),
          "attention_reserve: %s", err);
    uint64_t before = compute_scratch_bytes(&compute);
    CHECK(before > 0 && before < 2 * (4 << 20), "2 workers, 16/1 heads of 128: %llu bytes of scratch",
          (unsigned long long)before);
    static const Shape smaller[] = {{16, 1, 128, 128}, {8, 1, 64, 64}, {1, 1, 128, 128}, {16, 1, 6, 100}};
    for (int i = 0; i < N_OF(smaller); i++) {
        for (int n = 100; n <= 4000; n *= 40) {
            Case c = {.mask = &masks[1],
                      .shape = smaller[i],
                      .n_q = n == 100 ? 100 : 3,
                      .n_keys = n,
                      .seed = (uint64_t)(n + i)};
            c.pos0 = n - c.n_q;
            Data d = make_data(&c);
            float *out = need_floats((int64_t)c.n_q * c.shape.n_heads * c.shape.v_dim);
            Attention a = attention_of(&c, &d, out);
            attention(&compute, &a, 1);
            check_rows(&a, d.k, d.v, describe(&c));
            CHECK(compute_scratch_bytes(&compute) == before, "scratch went from %llu to %llu bytes at %d keys",
                  (unsigned long long)before, (unsigned long long)compute_scratch_bytes(&compute), n);
            free(out);
            free_data(&d);
        }
    }
    compute_close(&compute);
    close_pools();
    if (cpu_level() == LEVEL_SCALAR) return;
    printf("  %s: %.0f KiB of scratch for 2 workers, 16/1 heads of 128\n", cpu_level_name(cpu_level()),
           (double)before / 1024);
}

// ---- the probabilities themselves

// Each row against softmax in double; with sink logits it sums to less than 1, with nothing visible it is zeros.
static void check_weights(const Attention *a, const float *k, const float *weights, const char *what) {
    int hd = a->kv.k_dim, n_kv = a->kv.n_kv_heads, wrong = 0;
    double *p = need(sizeof *p * (size_t)(a->n_keys + 1));
    for (int row = 0; row < a->n_q * a->n_heads; row++) {
        int t = row / a->n_heads, h = row % a->n_heads;
        double sink = a->mask.sink_logits ? (double)a->mask.sink_logits[h] : -INFINITY;
        double top = sink, reach = a->mask.sink_logits ? fabs(sink) : 0, sum = 0, found = 0;
        for (int j = 0; j < a->n_keys; j++) {
            const float *q = a->q + (int64_t)row * hd, *key = k + ((int64_t)j * n_kv + h / (a->n_heads / n_kv)) * hd;
            double size = 0;
            p[j] = 0;
            for (int d = 0; d < hd; d++) {
                p[j] += (double)q[d] * (double)key[d] * (double)a->scale;
                size += fabs((double)q[d] * (double)key[d] * (double)a->scale);
            }
            p[j] = capped(p[j], a->softcap);
            if (!visible(&a->mask, a->pos0, a->n_keys, t, j)) p[j] = -INFINITY;
            else reach = fmax(reach, size);
            top = fmax(top, p[j]);
        }
        for (int j = 0; j < a->n_keys; j++) sum += p[j] = p[j] > -INFINITY ? exp(p[j] - top) : 0;
        if (a->mask.sink_logits) sum += exp(sink - top);
        double tolerance = 4e-6 + 2 * 3 * (double)FLT_EPSILON * (reach + 2 * (double)a->softcap), expected = 0;
        for (int j = 0; j < a->n_keys; j++) {
            double want = sum > 0 ? p[j] / sum : 0, w = (double)weights[(int64_t)row * a->n_keys + j];
            bool hidden = !visible(&a->mask, a->pos0, a->n_keys, t, j);
            expected += want;
            found += w;
            if (hidden ? w == 0 : fabs(w - want) <= tolerance) continue;
            if (wrong++ < 3) {
                CHECK(false, "%s: query %d head %d key %d: weight %.9g, expected %.9g +- %.2g", what, t, h, j, w, want,
                      tolerance);
            }
        }
        double most = a->mask.sink_logits ? tolerance : 1e-5; // without a sink the sum is 1 whatever the scores
        CHECK(fabs(found - expected) <= most, "%s: query %d head %d: weights sum to %.9g, expected %.9g", what, t, h,
              found, expected);
    }
    free(p);
}

static void run_weights(const Case *c) {
    char err[200] = "";
    test_rng = c->seed * 0x9E3779B97F4A7C15u + 1;
    Data d = make_data(c);
    int64_t n = (int64_t)c->n_q * c->shape.n_heads * c->n_keys;
    float *weights = need_floats(n + 2 * GUARD), *again = need_floats(n + 2 * GUARD);
    Attention a = attention_of(c, &d, NULL);
    for (int i = 0; i < N_POOLS; i += 2) {
        float *to = i ? again : weights;
        for (int64_t at = 0; at < n + 2 * GUARD; at++) to[at] = NAN;
        CHECK(!attention_weights(&computes[i], &a, to + GUARD, err, sizeof err), "%s: %s", describe(c), err);
        CHECK(guard_kept(to + GUARD, n), "%s: wrote outside the weights", describe(c));
    }
    CHECK(!memcmp(weights + GUARD, again + GUARD, sizeof *weights * (size_t)n), "%s: weights: %d threads differ from 1",
          describe(c), thread_counts[2]);
    check_weights(&a, d.k, weights + GUARD, describe(c));
    free(weights);
    free(again);
    free_data(&d);
}

// Fewer keys than v_dim, as many, one more, several blocks of the cache.
static void probabilities(void) {
    open_pools();
    static const int lengths[][2] = {{1, 1}, {1, 5}, {3, 16}, {2, 65}, {7, 48}, {17, 130}, {1, 300}, {33, 129}};
    int n = 0;
    for (int mask = 0; mask < N_MASKS; mask++) {
        int step = by_speed(1, 3, 7);
        for (int i = mask % step; i < N_OF(lengths); i += step, n++) {
            int shape = (mask * 3 + i) % N_SHAPES;
            Case c = {.mask = &masks[mask],
                      .shape = shapes[shape],
                      .n_q = lengths[i][0],
                      .n_keys = lengths[i][1],
                      .pos0 = lengths[i][1] - lengths[i][0],
                      .type = (KvDType)((mask + i / 2) % N_TYPES),
                      .fill = n % 4 ? ORDINARY : n % 3,
                      .poison = n % N_POISONS,
                      .softcap = caps[n / 5 % N_CAPS],
                      .seed = (uint64_t)(2000000 + n)};
            run_weights(&c);
        }
    }
    close_pools();
}

// ---- several problems in one region

typedef struct {
    Data data;
    int64_t n_out;
    float *alone, *out; // [n_out], and GUARD floats before and behind
} Problem;

// With what it gives alone.
static Problem make_problem(const Case *c, Attention *a) {
    Problem p = {.data = make_data(c), .n_out = (int64_t)c->n_q * c->shape.n_heads * c->shape.v_dim};
    p.alone = need_floats(p.n_out + 2 * GUARD);
    p.out = need_floats(p.n_out + 2 * GUARD);
    *a = attention_of(c, &p.data, p.alone + GUARD);
    attention(&computes[0], a, 1);
    a->out = p.out + GUARD;
    return p;
}

static void free_problem(Problem *p) {
    free(p->alone);
    free(p->out);
    free_data(&p->data);
}

static bool same_and_guarded(const Problem *p) {
    return guard_kept(p->out + GUARD, p->n_out) &&
           !memcmp(p->out + GUARD, p->alone + GUARD, sizeof(float) * (size_t)p->n_out);
}

// In a list, each gives the bits that it gives alone.
static void check_list(const Compute *compute, Problem *problems, const Attention *list, int n) {
    for (int i = 0; i < n; i++) {
        memset(problems[i].out, 0xff, sizeof(float) * (size_t)(problems[i].n_out + 2 * GUARD)); // NaN
    }
    attention(compute, list, n);
    for (int i = 0; i < n; i++) {
        const Attention *a = &list[i];
        CHECK(same_and_guarded(&problems[i]),
              "%s, %s, %d threads: problem %d of %d (%d queries, %d keys): other bits than alone",
              cpu_level_name(cpu_level()), kv_dtype_name(a->kv.type), threads_count(compute->pool), i, n, a->n_q,
              a->n_keys);
    }
}

// Prompts and single tokens behind short texts and long ones, at any number of threads. types: of the caches, in turn.
static void run_list(int n, const Shape *shape, const KvDType *types, int n_types) {
    Problem *problems = need(sizeof *problems * (size_t)n);
    Attention *list = need(sizeof *list * (size_t)n);
    for (int i = 0; i < n; i++) {
        Case c = {.mask = &masks[pick(N_MASKS)], .type = types[i % n_types], .poison = pick(N_POISONS)};
        c.shape = shape ? *shape : shapes[pick(N_SHAPES)];
        c.n_q = pick(3) ? 1 : 1 + pick(by_speed(90, 40, 40));
        c.n_keys = c.n_q + pick(by_speed(600, 150, 60));
        c.pos0 = c.n_keys - c.n_q;
        c.softcap = caps[pick(N_CAPS)];
        problems[i] = make_problem(&c, &list[i]);
    }
    for (int p = 0; p < N_POOLS; p++) check_list(&computes[p], problems, list, n);
    for (int i = 0; i < n; i++) free_problem(&problems[i]);
    free(problems);
    free(list);
}

// A Compute whose shared memory is what one shape asks for, and OVERRUN times as much behind it that nobody may touch.
enum { OVERRUN = 3, UNTOUCHED = 0xa5 };

static void open_tight(Compute *c, int n_threads, const Shape *s) {
    char err[200] = "";
    bool open = !compute_open(c, n_threads, err, sizeof err) &&
                !attention_reserve(c, s->n_heads, s->n_kv_heads, s->k_dim, s->v_dim, err, sizeof err);
    size_t exact = c->shared_bytes;
    open = open && !compute_reserve_scratch(c, c->worker_bytes, (1 + OVERRUN) * exact, err, sizeof err);
    CHECK(open, "%s", err);
    if (!open) exit(1);
    c->shared_bytes = exact;
    memset((char *)compute_shared(c) + exact, UNTOUCHED, OVERRUN * exact);
}

static bool is_untouched(const Compute *c) {
    const unsigned char *behind = (const unsigned char *)compute_shared(c) + c->shared_bytes;
    for (size_t i = 0; i < OVERRUN * c->shared_bytes; i++) {
        if (behind[i] != UNTOUCHED) return false;
    }
    return true;
}

// Prompts whose keys are cut: the parts of two or three of them fill what is shared.
static void crowded_regions(const Shape *shape, KvDType type) {
    enum { N = 9 };
    Problem problems[N];
    Attention list[N];
    for (int i = 0; i < N; i++) {
        Case c = {.mask = &masks[0], .shape = *shape, .type = type, .n_q = i % 3 ? 80 : 1, .n_keys = 900 + i};
        c.pos0 = c.n_keys - c.n_q;
        problems[i] = make_problem(&c, &list[i]);
    }
    for (int p = 0; p < N_POOLS; p++) {
        Compute tight;
        open_tight(&tight, thread_counts[p], shape);
        check_list(&tight, problems, list, N);
        CHECK(is_untouched(&tight), "%s: wrote behind the shared memory", cpu_level_name(cpu_level()));
        compute_close(&tight);
    }
    for (int i = 0; i < N; i++) free_problem(&problems[i]);
}

// None, one, several; of one shape or of many, of one type or of all; more than fit in a region.
static void lists(void) {
    static const KvDType types[] = {KV_DTYPE_BF16, KV_DTYPE_F32, KV_DTYPE_Q8};
    open_pools();
    attention(&computes[2], NULL, 0);
    for (int i = 0; i < N_TYPES; i++) {
        run_list(2, &shapes[3], &types[i], 1);
        run_list(by_speed(17, 17, 7), NULL, &types[i], 1);
    }
    crowded_regions(&shapes[by_speed(3, 5, 5)], KV_DTYPE_F32);
    if (by_speed(1, 1, 0)) crowded_regions(&shapes[by_speed(11, 13, 13)], KV_DTYPE_BF16);
    run_list(by_speed(150, 30, 10), NULL, types, 3);
    close_pools();
}

int main(void) {
    RUN_AT_LEVELS(product);
    RUN_AT_LEVELS(long_spans);
    RUN_AT_LEVELS(last_keys);
    RUN_AT_LEVELS(nothing_visible);
    RUN_AT_LEVELS(evicted_blocks);
    RUN_AT_LEVELS(scratch);
    RUN_AT_LEVELS(probabilities);
    RUN_AT_LEVELS(lists);
    return test_report();
}
