// attention: see attention.h.
//
// A work item is (KV head, block of queries, span of key tiles). Its rows are the block's queries of every query head
// that shares the KV head. For each tile: scores S[row][key] = Q K^T, softmax of each row, O[row][d] += P V. The cache
// stores K and V as the packed matrices of both products (kvcache.h); Q and P are the rows. Where the instruction-set
// level has bfloat16 products, Q and P are rounded to bfloat16 if there are many rows; few rows (decode) stay fp32.
#include "attention.h"

#include "file.h"
#include "random.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    TILE = KV_BLOCK,   // keys
    SCORE_ROWS = 96,   // rows multiplied with a tile at a time: their scores stay in cache
    FEW_ROWS = 8,      // stay fp32
    MAX_ROWS = 256,    // of an item, unless one query has more heads
    MAX_Q_BLOCK = 64,  // queries of an item
    WANTED_ITEMS = 16, // split the keys where there are fewer (KV head, query block) pairs
    SPAN_TILES = 1,    // minimum length of a span
    MAX_ITEMS_SPLIT = 2 * WANTED_ITEMS,
    MAX_PLANS = 64,         // problems of a parallel region
    SMALL_WORK = 64 * 1024, // multiply-adds below which one thread is faster
    ALIGNMENT = 64,
};

_Static_assert((int)KV_GROUP == (int)MAX_PANEL, "a group of keys fills a panel");

static const float LOG2_E = 1.44269504088896340736f; // softmax works in base 2

// One worker's scratch memory.
typedef struct {
    float *q;        // [rows][k_dim rounded up to whole words]
    uint16_t *q16;   // the same in bfloat16
    float *o;        // [rows][v_dim]
    float *m, *l;    // [rows], the running maximum and sum
    float *s;        // [SCORE_ROWS][TILE], scores, then probabilities
    uint16_t *p;     // the same in bfloat16
    uint16_t *k, *v; // a tile of an int8 cache in bfloat16; v: also the last keys of a tile
    int *lo, *hi;    // [rows], visible keys of each row
} AttnWorker;

// How one problem is split, the same for all of its items.
typedef struct {
    const Attention *a;
    const Compute *compute;
    const Kernels *kernels;
    int group;    // query heads of a KV head
    int width;    // dimensions of a row of Q, rounded up to whole words of the cache
    int max_rows; // of an item
    int q_block, n_blocks, n_spans, n_pairs, n_items;
    float *parts; // of split spans: [n_items][max_rows][v_dim + 2], the last two m and l
} Plan;

// What one block of queries sees, of a bitmap or of a pattern.
typedef struct {
    const uint8_t *bits;
    const BlockPattern *pattern;
    int index;
    int drawn[MAX_RANDOM_BLOCKS];
} BlockRow;

typedef struct {
    int index;
    int head, block, span; // KV head
    int t0, n_q, n_rows;   // queries t0..t0+n_q-1; row = head in group * n_q + query
    int lo_min, hi_max;    // of all rows
    bool bf16;             // bfloat16 products
    const BlockRow *rows;  // what the mask's blocks of these queries see, in order; NULL: not asked for, or no blocks
} Item;

static int min_int(int a, int b) {
    return a < b ? a : b;
}
static int max_int(int a, int b) {
    return a > b ? a : b;
}

// Behind the last key that a position sees.
static int end_of_view(const Attention *a, int pos) {
    if (a->mask.causal) return min_int(pos + 1, a->n_keys);
    return a->mask.ahead > 0 ? min_int(pos + a->mask.ahead + 1, a->n_keys) : a->n_keys;
}

// The first key that a position sees, sinks aside.
static int start_of_view(const Attention *a, int pos) {
    int lo = a->mask.window > 0 ? max_int(0, pos - a->mask.window + 1) : 0;
    return a->mask.chunk > 0 ? max_int(lo, pos - pos % a->mask.chunk) : lo;
}

static Item item_at(const Plan *p, int index) {
    const Attention *a = p->a;
    Item it = {.index = index, .span = index % p->n_spans};
    int pair = index / p->n_spans;
    it.head = pair % a->kv.n_kv_heads;
    it.block = p->n_blocks - 1 - pair / a->kv.n_kv_heads; // causal: the longest first
    it.t0 = it.block * p->q_block;
    it.n_q = min_int(p->q_block, a->n_q - it.t0);
    it.n_rows = it.n_q * p->group;
    it.bf16 = p->kernels->bf16 && a->kv.type != KV_DTYPE_F32 && p->width % BF16_STEP == 0 && it.n_rows > FEW_ROWS;
    int last_pos = a->pos0 + it.t0 + it.n_q - 1;
    it.hi_max = end_of_view(a, last_pos);
    it.lo_min = start_of_view(a, a->pos0 + it.t0);
    return it;
}

// ---- scratch

static int q_block_for(int group) {
    return max_int(1, min_int(MAX_Q_BLOCK, MAX_ROWS / group));
}

static int rows_for(int n_q, int group) {
    return min_int(n_q, q_block_for(group)) * group;
}

// The next `count` values of `size` bytes, on a cache line of their own.
static uintptr_t carve(uintptr_t *at, size_t count, size_t size) {
    uintptr_t here = *at;
    *at += (count * size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return here;
}

// Lays out a worker's memory from an address on, for items of n_rows. Returns its end.
static uintptr_t worker_lay_out(AttnWorker *w, uintptr_t at, int n_rows, int k_width, int v_dim) {
    size_t rows = ((size_t)n_rows + BF16_ROWS - 1) / BF16_ROWS * BF16_ROWS, scores = SCORE_ROWS * TILE;
    size_t width = (size_t)k_width, vd = (size_t)v_dim;
    w->q = (float *)carve(&at, rows * width, sizeof *w->q);
    w->q16 = (uint16_t *)carve(&at, rows * width, sizeof *w->q16);
    w->o = (float *)carve(&at, rows * vd, sizeof *w->o);
    w->m = (float *)carve(&at, rows, sizeof *w->m);
    w->l = (float *)carve(&at, rows, sizeof *w->l);
    w->s = (float *)carve(&at, scores, sizeof *w->s);
    w->p = (uint16_t *)carve(&at, scores, sizeof *w->p);
    w->k = (uint16_t *)carve(&at, TILE * width, sizeof *w->k);
    w->v = (uint16_t *)carve(&at, TILE * vd + 2 * MAX_PANEL, sizeof *w->v);
    w->lo = (int *)carve(&at, rows, sizeof *w->lo);
    w->hi = (int *)carve(&at, rows, sizeof *w->hi);
    return at;
}

static AttnWorker worker_of(const Plan *p, int worker) {
    AttnWorker w;
    worker_lay_out(&w, (uintptr_t)compute_scratch(p->compute, worker), p->max_rows, p->width, p->a->kv.v_dim);
    return w;
}

static size_t parts_floats(int n_items, int max_rows, int v_dim) {
    return (size_t)n_items * (size_t)max_rows * ((size_t)v_dim + 2);
}

int attention_reserve(Compute *c, int n_heads, int n_kv_heads, int k_dim, int v_dim, char *err, size_t errlen) {
    AttnWorker unused;
    int group = n_heads / n_kv_heads, rows = rows_for(INT_MAX, group), words = (k_dim + 3) / 4;
    size_t worker_bytes = worker_lay_out(&unused, 0, rows, 4 * words, v_dim);
    size_t shared_bytes = sizeof(float) * parts_floats(MAX_ITEMS_SPLIT, rows, v_dim);
    return compute_reserve_scratch(c, worker_bytes, shared_bytes, err, errlen);
}

// ---- the mask: which tiles of an item, which keys of a tile

static void set_visible(const Plan *p, const Item *it, AttnWorker *w) {
    for (int r = 0; r < it->n_rows; r++) {
        int pos = p->a->pos0 + it->t0 + r % it->n_q;
        w->hi[r] = end_of_view(p->a, pos);
        w->lo[r] = start_of_view(p->a, pos);
    }
}

// Tiles that some row may see: first those of the sinks, then from the first window's start to the last row's end.
typedef struct {
    int n_sink_tiles, first, n;
} TileList;

static TileList list_tiles(const Plan *p, const Item *it) {
    int first = it->lo_min / TILE, last = (it->hi_max + TILE - 1) / TILE;
    int sinks = min_int((p->a->mask.n_sinks + TILE - 1) / TILE, first);
    return (TileList){sinks, first, sinks + max_int(0, last - first)};
}

static int tile_at(TileList list, int i) {
    return i < list.n_sink_tiles ? i : list.first + i - list.n_sink_tiles;
}

// The first key of a tile that is computed: the start of the group of the first visible one.
static int first_key(const Plan *p, const Item *it, int tile) {
    int j0 = tile * TILE;
    return j0 < p->a->mask.n_sinks ? j0 : max_int(j0, it->lo_min / KV_GROUP * KV_GROUP);
}

// ---- the mask's blocks: of a bitmap, whose rows are counted from the first query, or of a pattern, from position 0

static bool has_blocks(const Attention *a) {
    return a->mask.bitmap || a->mask.pattern.size;
}

static int block_size(const Attention *a) {
    return a->mask.bitmap ? a->mask.block : a->mask.pattern.size;
}

// Where query 0 is, in the positions that blocks of queries are counted in.
static int block_start(const Attention *a) {
    return a->mask.bitmap ? 0 : a->pos0;
}

static int block_of(const Attention *a, int t) {
    return (block_start(a) + t) / block_size(a);
}

// Number seed, block, i of splitmix64, modulo the number of blocks before this one.
static int draw_block(int seed, int block, int i) {
    uint64_t state = ((uint64_t)seed << 40 | (uint64_t)block << 8 | (uint64_t)i) * 0x9E3779B97F4A7C15u;
    return (int)(random_bits(&state) % (uint64_t)block);
}

static BlockRow block_row(const Attention *a, int index) {
    const AttnMask *mask = &a->mask;
    BlockRow row = {.index = index};
    if (mask->bitmap) {
        row.bits = mask->bitmap + (int64_t)index * mask->bitmap_stride;
        return row;
    }
    row.pattern = &mask->pattern;
    for (int i = 0; i < mask->pattern.n_random; i++) {
        row.drawn[i] = index ? draw_block(mask->pattern.seed, index, i) : 0;
    }
    return row;
}

static bool block_seen(const BlockRow *row, int c) {
    if (row->bits) return row->bits[c];
    if (c < row->pattern->n_global || row->index - c < row->pattern->window) return true;
    for (int i = 0; i < row->pattern->n_random; i++) {
        if (row->drawn[i] == c) return true;
    }
    return false;
}

// Fills rows with what an item's blocks see: blocks are drawn once an item, not once a tile.
static void set_blocks(const Plan *p, Item *it, BlockRow rows[MAX_Q_BLOCK]) {
    if (!has_blocks(p->a)) return;
    int first = block_of(p->a, it->t0), last = block_of(p->a, it->t0 + it->n_q - 1);
    for (int b = first; b <= last; b++) rows[b - first] = block_row(p->a, b);
    it->rows = rows;
}

// What query t's block sees.
static const BlockRow *row_of(const Plan *p, const Item *it, int t) {
    return it->rows + block_of(p->a, t) - block_of(p->a, it->t0);
}

// The index of a span's first tile in the list.
static int span_start(const Plan *p, TileList list, int span) {
    return (int)((int64_t)list.n * span / p->n_spans);
}

// Whether blocks show some row of the item some key of a group.
static bool group_visible(const Plan *p, const Item *it, int j0) {
    int size = block_size(p->a), end = min_int(j0 + KV_GROUP, it->hi_max);
    const BlockRow *last = row_of(p, it, it->t0 + it->n_q - 1);
    for (int c = j0 / size; c * size < end; c++) {
        for (const BlockRow *row = it->rows; row <= last; row++) {
            if (block_seen(row, c)) return true;
        }
    }
    return false;
}

// Keys j0..end-1 of tile i of a list, from the first of a group on: what is computed at a time. Blocks cut a tile into
// the runs of groups that some row may see.
typedef struct {
    int i, j0, end;
} Piece;

// The first piece behind another one, or with end 0 the first of tile i; i = last: none is left.
static Piece next_piece(const Plan *p, const Item *it, TileList tiles, Piece from, int last) {
    Piece c = from;
    bool blocks = it->rows;
    for (; c.i < last; c.i++, c.end = 0) {
        int tile = tile_at(tiles, c.i), end = min_int((tile + 1) * TILE, it->hi_max);
        if (c.i < tiles.n_sink_tiles) end = min_int(end, p->a->mask.n_sinks);
        c.j0 = c.end ? c.end : first_key(p, it, tile);
        while (blocks && c.j0 < end && !group_visible(p, it, c.j0)) c.j0 += KV_GROUP;
        c.end = blocks ? c.j0 : end;
        while (c.end < end && group_visible(p, it, c.end)) c.end += KV_GROUP;
        c.end = min_int(c.end, end);
        if (c.j0 < end) return c;
    }
    return c;
}

typedef enum { SKIP, EDGE, FULL } Verdict;

// Queries t0..t1 and keys j0..j1, inclusive.
static Verdict judge_blocks(const Plan *p, const Item *it, int t0, int t1, int j0, int j1) {
    int n_set = 0, n = 0, size = block_size(p->a);
    const BlockRow *last = row_of(p, it, t1);
    for (const BlockRow *row = row_of(p, it, t0); row <= last; row++) {
        for (int c = j0 / size; c <= j1 / size; c++, n++) n_set += block_seen(row, c);
    }
    if (n_set == 0) return SKIP;
    return n_set == n ? FULL : EDGE;
}

// Rows r0..r1-1 against keys j0..j1-1.
static Verdict judge(const Plan *p, const Item *it, const AttnWorker *w, int r0, int r1, int j0, int j1) {
    int lo_min = w->lo[r0], lo_max = lo_min, hi_min = w->hi[r0], hi_max = hi_min, n_sinks = p->a->mask.n_sinks;
    for (int r = r0 + 1; r < r1; r++) {
        lo_min = min_int(lo_min, w->lo[r]);
        lo_max = max_int(lo_max, w->lo[r]);
        hi_min = min_int(hi_min, w->hi[r]);
        hi_max = max_int(hi_max, w->hi[r]);
    }
    if (j0 >= hi_max || (j1 <= lo_min && j0 >= n_sinks)) return SKIP;
    Verdict v = j1 <= hi_min && (j0 >= lo_max || j1 <= n_sinks) ? FULL : EDGE;
    if (!it->rows) return v;
    bool one_head = r0 / it->n_q == (r1 - 1) / it->n_q;
    int first = one_head ? r0 % it->n_q : 0, last = one_head ? (r1 - 1) % it->n_q : it->n_q - 1;
    Verdict b = judge_blocks(p, it, it->t0 + first, it->t0 + last, j0, j1 - 1);
    return b == FULL ? v : b;
}

static void mask_scores(float *s, int from, int to) {
    for (int j = max_int(from, 0); j < to; j++) s[j] = SCORE_MASKED;
}

// s: the scores of row r for keys j0..j0+n-1.
static void apply_mask(const Plan *p, const Item *it, const AttnWorker *w, float *s, int r, int j0, int n) {
    const AttnMask *mask = &p->a->mask;
    mask_scores(s, mask->n_sinks - j0, min_int(w->lo[r] - j0, n));
    mask_scores(s, w->hi[r] - j0, n);
    if (!it->rows) return;
    const BlockRow *row = row_of(p, it, it->t0 + r % it->n_q);
    int size = block_size(p->a);
    for (int c = j0 / size; c * size < j0 + n; c++) {
        if (!block_seen(row, c)) mask_scores(s, c * size - j0, min_int((c + 1) * size - j0, n));
    }
}

// ---- a tile of K and V

// Keys and values as stored; the scales are NULL unless KV_DTYPE_Q8.
typedef struct {
    const void *k, *v;
    const float *k_scales, *v_scales;
} Stored;

// From key j0 on, the first of a group.
static Stored stored_at(const KvView *kv, int head, int j0) {
    const char *base = (const char *)kv->blocks[j0 / KV_BLOCK] + (size_t)head * kv->head_bytes;
    size_t at = (size_t)(j0 % KV_BLOCK);
    Stored t = {.k = base + at * (size_t)kv->key_words * sizeof(float)};
    t.v = base + kv->v_offset + at * (size_t)kv->v_dim * kv_value_bytes(kv->type);
    if (kv->type != KV_DTYPE_Q8) return t;
    t.k_scales = (const float *)(const void *)(base + kv->scales_offset) + at;
    t.v_scales = t.k_scales + KV_BLOCK;
    return t;
}

// An offset between addresses of the cache, for prefetching.
static ptrdiff_t offset_to(const void *to, const void *from) {
    return (ptrdiff_t)((uintptr_t)to - (uintptr_t)from);
}

// The operands of a tile's products. Memory beyond the last key may hold NaN, so where the last values share a word, or
// a step of the product, with it, they are copied to last_v and padded with zeros.
typedef struct {
    int j0, n_keys;
    PackedMatrix k, v, last_v;
    int n_v, n_last;                  // keys of v and last_v; 0: unused
    const float *k_scales, *v_scales; // as in Stored
} Tile;

static Tile tile_of(const KvView *kv, Stored t) {
    PackedMatrix k = {.data = t.k, .row_stride = KV_GROUP, .panel_stride = KV_GROUP * kv->key_words};
    PackedMatrix v = {.data = t.v, .row_stride = kv->v_dim, .panel_stride = KV_GROUP};
    return (Tile){.k = k, .v = v, .last_v = v, .k_scales = t.k_scales, .v_scales = t.v_scales};
}

// Moves the values behind the last whole step of a bfloat16 tile to last_v.
static void copy_last_v(const KvView *kv, const AttnWorker *w, Tile *t, int n_keys, int step) {
    int vd = kv->v_dim, n = n_keys % step, pairs = n / 2;
    t->n_v = n_keys - n;
    t->n_last = n ? step : 0;
    if (!n) return;
    const uint16_t *v = (const uint16_t *)t->v.data + t->n_v * vd;
    uint16_t *last = w->v;
    memset(last, 0, sizeof *last * (size_t)(step * vd));
    memcpy(last, v, sizeof *last * (size_t)(2 * pairs * vd));
    if (n % 2) {
        for (int i = pairs * vd; i < (pairs + 1) * vd; i++) last[2 * i] = v[2 * i];
    }
    t->last_v.data = last;
}

// A tile for bfloat16 products.
static Tile open_bf16(const Plan *p, const AttnWorker *w, Stored t, int n_keys) {
    const KvView *kv = &p->a->kv;
    const Bf16Kernels *kn = p->kernels->bf16;
    if (kv->type != KV_DTYPE_Q8) {
        Tile tile = tile_of(kv, t);
        copy_last_v(kv, w, &tile, n_keys, BF16_STEP);
        return tile;
    }
    int whole = (n_keys + BF16_STEP - 1) / BF16_STEP * BF16_STEP;
    kn->from_i8(w->k, t.k, KV_GROUP, whole / KV_GROUP * kv->key_words);
    kn->from_i8(w->v, t.v, kv->v_dim, whole / kv->word);
    t.k = w->k;
    t.v = w->v;
    Tile tile = tile_of(kv, t);
    tile.k.panel_stride = KV_GROUP * p->width / 2; // pairs
    tile.n_v = whole;
    return tile;
}

// A tile as stored; its products prefetch `next`.
static Tile open_stored(const Plan *p, const AttnWorker *w, Stored t, Stored next, int n_keys) {
    const KvView *kv = &p->a->kv;
    Tile tile = tile_of(kv, t);
    tile.k.prefetch_offset = offset_to(next.k, t.k);
    tile.v.prefetch_offset = offset_to(next.v, t.v);
    tile.n_v = (n_keys + kv->word - 1) / kv->word * kv->word;
    if (kv->type == KV_DTYPE_BF16) copy_last_v(kv, w, &tile, n_keys, kv->word);
    return tile;
}

// ---- results

static const float *q_row(const Plan *p, const Item *it, int r) {
    int64_t head = (int64_t)it->head * p->group + r / it->n_q, t = it->t0 + r % it->n_q;
    return p->a->q + (t * p->a->n_heads + head) * p->a->kv.k_dim;
}

static float *out_row(const Plan *p, const Item *it, int r) {
    int64_t head = (int64_t)it->head * p->group + r / it->n_q, t = it->t0 + r % it->n_q;
    return p->a->out + (t * p->a->n_heads + head) * p->a->kv.v_dim;
}

// The partial result of row r, followed by m and l.
static float *part_row(const Plan *p, const Item *it, int r) {
    int64_t pair = (int64_t)it->head * p->n_blocks + it->block;
    return p->parts + ((pair * p->n_spans + it->span) * p->max_rows + r) * (p->a->kv.v_dim + 2);
}

static void scaled_copy(float *dst, const float *src, int n, float scale) {
    for (int i = 0; i < n; i++) dst[i] = src[i] * scale;
}

// Row r's unnormalised output, its maximum and sum: to the output, or kept for the merge.
static void finish_row(const Plan *p, const Item *it, const AttnWorker *w, int r) {
    int vd = p->a->kv.v_dim;
    bool final = p->n_spans == 1;
    float *to = final ? out_row(p, it, r) : part_row(p, it, r), l = w->l[r];
    if (final) {
        scaled_copy(to, w->o + r * vd, vd, l > 0 ? 1 / l : 0);
        return;
    }
    memcpy(to, w->o + r * vd, sizeof *to * (size_t)vd);
    to[vd] = w->m[r];
    to[vd + 1] = l;
}

static void start_rows(const Plan *p, const Item *it, AttnWorker *w) {
    const float *sinks = it->span == 0 ? p->a->mask.sink_logits : NULL;
    for (int r = 0; r < it->n_rows; r++) {
        w->m[r] = sinks ? sinks[it->head * p->group + r / it->n_q] * LOG2_E : SCORE_START;
        w->l[r] = sinks ? 1 : 0;
    }
}

// ---- a tile's products

// Queries scaled for softmax in base 2, padded with zeros to whole words.
static void set_queries(const Plan *p, const Item *it, AttnWorker *w) {
    int kd = p->a->kv.k_dim, width = p->width;
    float scale = p->a->softcap > 0 ? p->a->scale / p->a->softcap : p->a->scale * LOG2_E;
    for (int r = 0; r < it->n_rows; r++) {
        scaled_copy(w->q + r * width, q_row(p, it, r), kd, scale);
        for (int d = kd; d < width; d++) w->q[r * width + d] = 0;
    }
    if (it->bf16) p->kernels->bf16->round(w->q16, w->q, (int64_t)it->n_rows * width);
}

// The product of fp32 rows with the stored type.
static GemmKernel stored_gemm(const Plan *p) {
    switch (p->a->kv.type) {
    case KV_DTYPE_F32: return p->kernels->gemm_f32;
    case KV_DTYPE_BF16: return p->kernels->gemm_bf16;
    default: return p->kernels->gemm_i8;
    }
}

// w->s[row][key] for n_rows rows from r0, for whole groups of keys: undefined behind the last key.
static void scores(const Plan *p, const Item *it, const AttnWorker *w, const Tile *t, int r0, int n_rows) {
    int width = p->width, n = (t->n_keys + KV_GROUP - 1) / KV_GROUP * KV_GROUP;
    if (it->bf16) p->kernels->bf16->gemm(w->s, TILE, &t->k, w->q16 + r0 * width, width, n_rows, width, n, false);
    else stored_gemm(p)(w->s, TILE, &t->k, w->q + r0 * width, width, n_rows, width, n, false);
}

// Turns s, the scores of row r, into the multipliers of V, padded with zeros, and rescales the output so far.
static void softmax(const Plan *p, const Item *it, const AttnWorker *w, const Tile *t, int r, float *s) {
    const Kernels *kn = p->kernels;
    int n_keys = t->n_keys;
    float *m = w->m + r, *l = w->l + r, *o = w->o + r * p->a->kv.v_dim, alpha;
    if (it->bf16) {
        alpha = kn->bf16->softmax_row(w->p + (s - w->s), s, n_keys, t->v_scales, m, l);
    } else {
        alpha = kn->softmax_row(s, n_keys, m, l);
        if (t->v_scales) kn->scale(s, t->v_scales, n_keys);
        for (int j = n_keys; j % p->a->kv.word; j++) s[j] = 0;
    }
    if (alpha != 1) scaled_copy(o, o, p->a->kv.v_dim, alpha);
}

// w->o[row][d] += P V for n keys of the tile, the first of them `from`.
static void add_values(const Plan *p, const Item *it, const AttnWorker *w, const PackedMatrix *v, int r0, int n_rows,
                       int from, int n) {
    int vd = p->a->kv.v_dim;
    float *o = w->o + r0 * vd;
    if (it->bf16) p->kernels->bf16->gemm(o, vd, v, w->p + from, TILE, n_rows, n, vd, true);
    else stored_gemm(p)(o, vd, v, w->s + from, TILE, n_rows, n, vd, true);
}

// ALiBi (arXiv:2108.12409): row r's scores of keys j0..j0+n-1, less in proportion to the distance.
static void add_slope(const Plan *p, const Item *it, float *s, int r, int j0, int n) {
    float slope = p->a->slopes[it->head * p->group + r / it->n_q] * LOG2_E;
    int distance = j0 - (p->a->pos0 + it->t0 + r % it->n_q);
    for (int j = 0; j < n; j++) s[j] += slope * (float)(distance + j);
}

// n_rows rows of an item from r0 over a tile.
static void attend(const Plan *p, const Item *it, const AttnWorker *w, const Tile *t, int r0, int n_rows, bool edge) {
    int n_keys = t->n_keys;
    scores(p, it, w, t, r0, n_rows);
    for (int r = 0; r < n_rows; r++) {
        float *s = w->s + r * TILE;
        if (t->k_scales) p->kernels->scale(s, t->k_scales, n_keys);
        // the scores are divided by the cap here, and scaled for base 2 afterwards
        if (p->a->softcap > 0) p->kernels->softcap(s, n_keys, 1, p->a->softcap * LOG2_E);
        if (p->a->slopes) add_slope(p, it, s, r0 + r, t->j0, n_keys);
        if (edge) apply_mask(p, it, w, s, r0 + r, t->j0, n_keys);
        softmax(p, it, w, t, r0 + r, s);
    }
    if (t->n_v) add_values(p, it, w, &t->v, r0, n_rows, 0, t->n_v);
    if (t->n_last) add_values(p, it, w, &t->last_v, r0, n_rows, t->n_v, t->n_last);
}

// ---- items

// The first tile of the next item in memory, if there is one.
static Stored stored_next(const Plan *p, const Item *it, Stored t) {
    if (it->index + 1 == p->n_items) return t;
    Item next = item_at(p, it->index + 1);
    TileList tiles = list_tiles(p, &next);
    int first = span_start(p, tiles, next.span);
    return first < tiles.n ? stored_at(&p->a->kv, next.head, first_key(p, &next, tile_at(tiles, first))) : t;
}

// Tiles first..last-1 of the list.
static void run_tiles(const Plan *p, const Item *it, AttnWorker *w, TileList tiles, int first, int last) {
    const KvView *kv = &p->a->kv;
    Piece piece = next_piece(p, it, tiles, (Piece){.i = first}, last);
    while (piece.i < last) {
        Piece after = next_piece(p, it, tiles, piece, last);
        int j0 = piece.j0, n = piece.end - j0;
        piece = after;
        if (judge(p, it, w, 0, it->n_rows, j0, j0 + n) == SKIP) continue;
        Stored t = stored_at(kv, it->head, j0);
        Stored next = after.i < last ? stored_at(kv, it->head, after.j0) : stored_next(p, it, t);
        Tile tile = it->bf16 ? open_bf16(p, w, t, n) : open_stored(p, w, t, next, n);
        tile.j0 = j0;
        tile.n_keys = n;
        for (int r0 = 0; r0 < it->n_rows; r0 += SCORE_ROWS) {
            int n_rows = min_int(SCORE_ROWS, it->n_rows - r0);
            Verdict verdict = judge(p, it, w, r0, r0 + n_rows, j0, j0 + n);
            if (verdict != SKIP) attend(p, it, w, &tile, r0, n_rows, verdict == EDGE);
        }
    }
}

// The problems of one parallel region; their items are numbered consecutively.
typedef struct {
    Plan plans[MAX_PLANS];
    int first_items[MAX_PLANS + 1], first_pairs[MAX_PLANS + 1]; // of each problem, and behind the last
    int n_plans, n_items, n_pairs;
    int n_threads;
    bool split; // the keys of some problem are split into spans
} Region;

static void run_item(void *context, int index, int worker) {
    const Region *region = context;
    // Where keys are split, each thread reads a contiguous range; else the longest items of a causal problem come
    // first.
    int item = region->split ? threads_contiguous_index(index, region->n_items, region->n_threads) : index;
    int part = threads_part_of(item, region->first_items, region->n_plans);
    const Plan *p = &region->plans[part];
    Item it = item_at(p, item - region->first_items[part]);
    AttnWorker w = worker_of(p, worker);
    BlockRow rows[MAX_Q_BLOCK];
    set_blocks(p, &it, rows);
    set_visible(p, &it, &w);
    start_rows(p, &it, &w);
    TileList tiles = list_tiles(p, &it);
    int first = span_start(p, tiles, it.span), last = span_start(p, tiles, it.span + 1);
    set_queries(p, &it, &w);
    memset(w.o, 0, sizeof *w.o * (size_t)(it.n_rows * p->a->kv.v_dim));
    run_tiles(p, &it, &w, tiles, first, last);
    for (int r = 0; r < it.n_rows; r++) finish_row(p, &it, &w, r);
}

// Merge the spans of one row: O = sum_s w_s O_s / sum_s w_s l_s with w_s = 2^(m_s - max m). sum: [v_dim] of scratch.
static void merge_row(const Plan *p, Item *it, int r, float *sum) {
    int vd = p->a->kv.v_dim;
    float m = SCORE_START, l = 0;
    for (it->span = 0; it->span < p->n_spans; it->span++) {
        float part_m = part_row(p, it, r)[vd];
        m = part_m > m ? part_m : m;
    }
    memset(sum, 0, sizeof(float) * (size_t)vd);
    for (it->span = 0; it->span < p->n_spans; it->span++) {
        const float *part = part_row(p, it, r);
        float weight = exp2f(part[vd] - m);
        l += weight * part[vd + 1];
        for (int d = 0; d < vd; d++) sum[d] += weight * part[d];
    }
    scaled_copy(out_row(p, it, r), sum, vd, l > 0 ? 1 / l : 0);
}

// Merges the rows of one (KV head, query block).
static void merge_item(void *context, int index, int worker) {
    const Region *region = context;
    int part = threads_part_of(index, region->first_pairs, region->n_plans);
    const Plan *p = &region->plans[part];
    if (p->n_spans == 1) return;
    Item it = item_at(p, (index - region->first_pairs[part]) * p->n_spans);
    AttnWorker w = worker_of(p, worker);
    for (int r = 0; r < it.n_rows; r++) merge_row(p, &it, r, w.o);
}

// Into how many spans to split the keys: by the shape alone, never by the number of threads.
static int count_spans(const Plan *p) {
    int most = 0;
    for (int block = 0; block < p->n_blocks; block++) {
        Item it = item_at(p, block * p->a->kv.n_kv_heads);
        most = max_int(most, list_tiles(p, &it).n);
    }
    int wanted = (WANTED_ITEMS + p->n_pairs - 1) / p->n_pairs;
    return max_int(1, min_int(wanted, most / SPAN_TILES));
}

static int overlap(int from, int to, int first, int end) {
    return max_int(0, min_int(to, end) - max_int(from, first));
}

// Keys of first..end-1 that query t sees if the bitmap lets it.
static int count_visible(const Attention *a, int t, int first, int end) {
    int pos = a->pos0 + t, lo = start_of_view(a, pos), hi = end_of_view(a, pos);
    return overlap(first, end, lo, hi) + overlap(first, end, 0, min_int(a->mask.n_sinks, min_int(lo, hi)));
}

double attention_pairs(const Attention *a) {
    double pairs = 0;
    bool blocks = has_blocks(a);
    int block = blocks ? block_size(a) : a->n_keys;
    for (int t0 = 0, n; t0 < a->n_q; t0 += n) {
        n = blocks ? min_int(block - (block_start(a) + t0) % block, a->n_q - t0) : 1;
        BlockRow row = {0};
        if (blocks) row = block_row(a, block_of(a, t0));
        for (int j = 0; j < a->n_keys; j += block) {
            if (blocks && !block_seen(&row, j / block)) continue;
            int end = min_int(j + block, a->n_keys), all = end - j;
            bool whole = count_visible(a, t0, j, end) == all && count_visible(a, t0 + n - 1, j, end) == all;
            for (int t = t0; t < t0 + n && !whole; t++) pairs += count_visible(a, t, j, end);
            if (whole) pairs += (double)n * all;
        }
    }
    return pairs;
}

// For profiles: both products over every visible key, and the keys and values of all tiles that some query may see.
static void add_work(const Attention *a, double *flops, double *bytes) {
    int lo = start_of_view(a, a->pos0);
    double keys = a->n_keys - lo + min_int(a->mask.n_sinks, lo);
    *flops += 2 * attention_pairs(a) * a->n_heads * (a->kv.k_dim + a->kv.v_dim);
    *bytes += (double)kv_token_bytes(a->kv.type, a->kv.k_dim, a->kv.v_dim) * keys * a->kv.n_kv_heads;
}

static Plan plan_of(const Compute *c, const Attention *a) {
    Plan p = {.a = a, .compute = c, .kernels = c->kernels, .group = a->n_heads / a->kv.n_kv_heads, .n_spans = 1};
    p.width = a->kv.word * a->kv.key_words;
    p.q_block = q_block_for(p.group);
    p.max_rows = rows_for(a->n_q, p.group);
    p.n_blocks = (a->n_q + p.q_block - 1) / p.q_block;
    p.n_pairs = p.n_blocks * a->kv.n_kv_heads;
    if (p.n_pairs < WANTED_ITEMS) p.n_spans = count_spans(&p);
    p.n_items = p.n_pairs * p.n_spans;
    return p;
}

// Plans as many of the n problems as the shared memory holds the partial results of, at least one.
static int plan_region(Region *region, const Compute *c, const Attention *list, int n) {
    size_t used = 0, room = c->shared_bytes / sizeof(float);
    region->n_plans = region->n_items = region->n_pairs = region->first_items[0] = region->first_pairs[0] = 0;
    region->n_threads = threads_count(c->pool);
    region->split = false;
    for (int i = 0; i < n && i < MAX_PLANS; i++) {
        Plan p = plan_of(c, &list[i]);
        size_t parts = p.n_spans > 1 ? parts_floats(p.n_items, p.max_rows, list[i].kv.v_dim) : 0;
        if (i && (used + parts > room || p.n_items > MAX_ITEMS - region->n_items)) break;
        p.parts = (float *)compute_shared(c) + used;
        used += parts;
        region->plans[i] = p;
        region->n_plans++;
        region->first_items[i + 1] = region->n_items += p.n_items;
        region->first_pairs[i + 1] = region->n_pairs += p.n_pairs;
        region->split |= p.n_spans > 1;
    }
    return region->n_plans;
}

double attention_computed(const Compute *c, const Attention *a) {
    double pairs = 0;
    Plan p = plan_of(c, a);
    for (int i = 0; i < p.n_items; i++) {
        Item it = item_at(&p, i);
        BlockRow rows[MAX_Q_BLOCK];
        set_blocks(&p, &it, rows);
        TileList tiles = list_tiles(&p, &it);
        int last = span_start(&p, tiles, it.span + 1);
        Piece piece = next_piece(&p, &it, tiles, (Piece){.i = span_start(&p, tiles, it.span)}, last);
        for (; piece.i < last; piece = next_piece(&p, &it, tiles, piece, last)) {
            pairs += (double)it.n_rows * ((piece.end - piece.j0 + KV_GROUP - 1) / KV_GROUP * KV_GROUP);
        }
    }
    return pairs / a->n_heads;
}

static void run_region(const Compute *c, Region *region) {
    int64_t work = 0;
    for (int i = 0; i < region->n_plans; i++) {
        const Attention *a = region->plans[i].a;
        int64_t in_window = (int64_t)a->mask.window + a->n_q + a->mask.n_sinks;
        int64_t n_keys = a->mask.window > 0 && in_window < a->n_keys ? in_window : a->n_keys;
        work += (int64_t)a->n_q * a->n_heads * n_keys * (a->kv.k_dim + a->kv.v_dim);
    }
    bool small = work < SMALL_WORK;
    threads_for_if(!small, c->pool, region->n_items, run_item, region);
    if (region->split) threads_for_if(!small, c->pool, region->n_pairs, merge_item, region);
}

void attention(const Compute *c, const Attention *list, int n) {
    profile_begin(c->profile, PROFILE_ATTENTION);
    double flops = 0, bytes = 0;
    if (c->profile) {
        for (int i = 0; i < n; i++) add_work(&list[i], &flops, &bytes);
    }
    Region region;
    for (int first = 0; first < n; first += region.n_plans) {
        plan_region(&region, c, list + first, n - first);
        run_region(c, &region);
    }
    profile_end(c->profile, flops, bytes);
}

// ---- the weights, for pictures

static void load_key(const KvView *kv, int head, int j, float *to) {
    Stored t = stored_at(kv, head, j / KV_GROUP * KV_GROUP);
    for (int d = 0; d < kv->k_dim; d++) {
        int at = (d / kv->word * KV_GROUP + j % KV_GROUP) * kv->word + d % kv->word;
        switch (kv->type) {
        case KV_DTYPE_F32: to[d] = ((const float *)t.k)[at]; break;
        case KV_DTYPE_BF16: to[d] = f32_from_bf16(((const uint16_t *)t.k)[at]); break;
        case KV_DTYPE_Q8: to[d] = (float)((const int8_t *)t.k)[at] * t.k_scales[j % KV_GROUP]; break;
        }
    }
}

// The keys of a, where value j is unit vector j - first (zeros for the others). k, v: scratch for one token.
static void store_unit_values(KvCache *units, const Attention *a, int first, float *k, float *v) {
    const KvView *kv = &a->kv;
    int kd = kv->k_dim, vd = kv->v_dim;
    kvcache_restart(units);
    for (int j = 0; j < a->n_keys; j++) {
        memset(v, 0, sizeof *v * (size_t)(kv->n_kv_heads * vd));
        for (int h = 0; h < kv->n_kv_heads; h++) {
            load_key(kv, h, j, k + h * kd);
            if (j >= first && j < first + vd) v[h * vd + j - first] = 1;
        }
        kvcache_store(units, NULL, 1, k, v);
        kvcache_advance(units, 1);
    }
}

// The weights of v_dim keys from `first`; k, v: scratch for one token, out: for the output.
static void probe_weights(const Compute *c, Attention a, KvCache *units, int first, float *k, float *v,
                          float *weights) {
    int vd = a.kv.v_dim, n = min_int(vd, a.n_keys - first);
    store_unit_values(units, &a, first, k, v);
    a.kv = kvcache_view(units);
    attention(c, &a, 1);
    for (int r = 0; r < a.n_q * a.n_heads; r++) {
        memcpy(weights + (int64_t)r * a.n_keys + first, a.out + (int64_t)r * vd, sizeof(float) * (size_t)n);
    }
}

int attention_weights(const Compute *c, const Attention *a, float *weights, char *err, size_t errlen) {
    int vd = a->kv.v_dim;
    size_t heads = (size_t)a->kv.n_kv_heads;
    KvShape shape = {.n_kv_heads = a->kv.n_kv_heads, .k_dim = a->kv.k_dim, .v_dim = vd, .type = KV_DTYPE_F32};
    KvCache *units = kvcache_open(&shape, NULL, err, errlen);
    float *k = malloc(sizeof *k * heads * (size_t)a->kv.k_dim), *v = malloc(sizeof *v * heads * (size_t)vd);
    float *out = malloc(sizeof *out * (size_t)a->n_q * (size_t)a->n_heads * (size_t)vd);
    bool ok = units && k && v && out && !kvcache_reserve(units, a->n_keys);
    if (ok) {
        Attention probe = *a;
        probe.out = out;
        for (int first = 0; first < a->n_keys; first += vd) probe_weights(c, probe, units, first, k, v, weights);
    } else fail(err, errlen, "out of memory for the attention weights of %d keys", a->n_keys);
    kvcache_close(units);
    free(k);
    free(v);
    free(out);
    return ok ? 0 : -1;
}
