// attention: see attention.h.
//
// A work item is (KV head, block of queries, span of key tiles). Its rows are the block's queries of every query head
// that shares the KV head. For each tile: scores S[row][key] = Q K^T, softmax of each row, O[row][d] += P V. The
// cache's K and V are the panels of both products where they lie (kvcache.h); Q and P are the rows. Where the rung has
// products of bfloat16, many rows are rounded to it; few rows (decode) stay fp32.
#include "attention.h"

#include "file.h"
#include "kernels.h"
#include "quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    TILE = KV_BLOCK,   // keys
    SCORE_ROWS = 96,   // rows that meet a tile at a time: their scores stay near
    FEW_ROWS = 8,      // stay fp32
    MAX_ROWS = 256,    // of an item, unless one query has more heads
    MAX_Q_BLOCK = 64,  // queries of an item
    WANTED_ITEMS = 16, // split the keys where there are fewer (KV head, query block) pairs
    SPAN_TILES = 1,    // a span is at least this long
    MAX_ITEMS_SPLIT = 2 * WANTED_ITEMS,
    SMALL_WORK = 64 * 1024, // multiply-adds that are not worth a hand-off to other threads
    ALIGNMENT = 64,
};

_Static_assert((int)KV_GROUP == (int)MAX_PANEL, "a group of keys fills a panel");

static const float LOG2_E = 1.44269504088896340736f; // softmax works in base 2

typedef struct {     // one worker's memory
    float *q;        // [rows][head_dim of whole words]
    uint16_t *q16;   // the same in bfloat16
    float *o;        // [rows][head_dim]
    float *m, *l;    // [rows], the running maximum and sum
    float *s;        // [SCORE_ROWS][TILE], scores, then probabilities
    uint16_t *p;     // the same in bfloat16
    uint16_t *k, *v; // a tile of an int8 cache in bfloat16; v: also the last keys of a tile
    int *lo, *hi;    // [rows], visible keys of each row
} Lane;

struct AttnScratch {
    int n_threads, max_rows, head_dim;
    Lane *lanes;
    float *memory;
    float *parts; // split spans: [items][max_rows][head_dim + 2], then m and l
    uint64_t bytes;
};

// The shape of one call, the same for every item.
typedef struct {
    const Attention *a;
    AttnScratch *scratch;
    const Kernels *kernels;
    int group; // query heads of a KV head
    int width; // dimensions of a row of Q, whole words of the cache
    int q_block, n_blocks, n_spans, n_items;
} Plan;

typedef struct {
    int index;
    int head, block, span; // KV head
    int t0, n_q, n_rows;   // queries t0..t0+n_q-1; row = head in group * n_q + query
    int lo_min, hi_max;    // of all rows
    bool bf16;             // the products are of bfloat16
} Item;

static int min_int(int a, int b) {
    return a < b ? a : b;
}
static int max_int(int a, int b) {
    return a > b ? a : b;
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
    it.bf16 = p->kernels->bf16 && a->kv.type != KV_F32 && p->width % BF16_STEP == 0 && it.n_rows > FEW_ROWS;
    int last_pos = a->pos0 + it.t0 + it.n_q - 1;
    it.hi_max = a->mask.causal ? min_int(last_pos + 1, a->n_keys) : a->n_keys;
    it.lo_min = a->mask.window > 0 ? max_int(0, a->pos0 + it.t0 - a->mask.window + 1) : 0;
    return it;
}

// ---- scratch

static int q_block_for(int group) {
    return max_int(1, min_int(MAX_Q_BLOCK, MAX_ROWS / group));
}

static size_t padded(size_t n_floats) {
    size_t per_line = ALIGNMENT / sizeof(float);
    return (n_floats + per_line - 1) / per_line * per_line;
}

AttnScratch *attention_scratch(int n_threads, int n_heads, int n_kv_heads, int head_dim, char *err, size_t errlen) {
    int group = n_heads / n_kv_heads;
    size_t hd = (size_t)head_dim, whole = (hd + 3) / 4 * 4, rows = (size_t)q_block_for(group) * (size_t)group;
    rows = (rows + BF16_ROWS - 1) / BF16_ROWS * BF16_ROWS;
    size_t scores = SCORE_ROWS * TILE, tile = padded(TILE * whole / 2);
    size_t each[] = {padded(rows * whole), padded(rows * whole / 2),
                     padded(rows * hd),    padded(rows),
                     padded(rows),         padded(scores),
                     padded(scores / 2),   tile,
                     tile + MAX_PANEL,     padded(rows),
                     padded(rows)};
    size_t per_worker = 0, parts = MAX_ITEMS_SPLIT * rows * (hd + 2);
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) per_worker += each[i];
    size_t bytes = sizeof(float) * (per_worker * (size_t)n_threads + padded(parts));

    AttnScratch *s = calloc(1, sizeof *s);
    Lane *lanes = calloc((size_t)n_threads, sizeof *lanes);
    void *memory = NULL;
    if (!s || !lanes || posix_memalign(&memory, ALIGNMENT, bytes)) {
        free(s);
        free(lanes);
        fail(err, errlen, "attention: out of memory (%zu bytes of scratch)", bytes);
        return NULL;
    }
    *s = (AttnScratch){n_threads, (int)rows, head_dim, lanes, memory, memory, bytes};
    float *p = s->memory + padded(parts);
    for (int i = 0; i < n_threads; i++) {
        Lane *w = &lanes[i];
        void **fields[] = {(void **)&w->q, (void **)&w->q16, (void **)&w->o, (void **)&w->m,
                           (void **)&w->l, (void **)&w->s,   (void **)&w->p, (void **)&w->k,
                           (void **)&w->v, (void **)&w->lo,  (void **)&w->hi};
        for (size_t f = 0; f < sizeof fields / sizeof *fields; p += each[f++]) *fields[f] = p;
    }
    return s;
}

void attention_scratch_free(AttnScratch *s) {
    if (!s) return;
    free(s->memory);
    free(s->lanes);
    free(s);
}

uint64_t attention_scratch_bytes(const AttnScratch *s) {
    return s->bytes;
}

// ---- the mask: which tiles of an item, which keys of a tile

static void set_visible(const Plan *p, const Item *it, Lane *w) {
    const AttnMask *mask = &p->a->mask;
    for (int r = 0; r < it->n_rows; r++) {
        int pos = p->a->pos0 + it->t0 + r % it->n_q;
        w->hi[r] = mask->causal ? min_int(pos + 1, p->a->n_keys) : p->a->n_keys;
        w->lo[r] = mask->window > 0 ? max_int(0, pos - mask->window + 1) : 0;
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

// The first key of a tile that is looked at: where the group of the first visible one begins.
static int first_key(const Plan *p, const Item *it, int tile) {
    int j0 = tile * TILE;
    return j0 < p->a->mask.n_sinks ? j0 : max_int(j0, it->lo_min / KV_GROUP * KV_GROUP);
}

// Where a span begins in the list.
static int span_start(const Plan *p, TileList list, int span) {
    return (int)((int64_t)list.n * span / p->n_spans);
}

typedef enum { SKIP, EDGE, FULL } Verdict;

static Verdict judge_bitmap(const Plan *p, int t0, int t1, int j0, int j1) { // tokens t0..t1, keys j0..j1, inclusive
    const AttnMask *mask = &p->a->mask;
    int n_set = 0, n = 0;
    for (int t = t0 / mask->block; t <= t1 / mask->block; t++) {
        for (int j = j0 / mask->block; j <= j1 / mask->block; j++, n++) {
            n_set += mask->bitmap[(int64_t)t * mask->bitmap_stride + j] != 0;
        }
    }
    return n_set == 0 ? SKIP : n_set == n ? FULL : EDGE;
}

// Rows r0..r1-1 against keys j0..j1-1.
static Verdict judge(const Plan *p, const Item *it, const Lane *w, int r0, int r1, int j0, int j1) {
    int lo_min = w->lo[r0], lo_max = lo_min, hi_min = w->hi[r0], hi_max = hi_min, n_sinks = p->a->mask.n_sinks;
    for (int r = r0 + 1; r < r1; r++) {
        lo_min = min_int(lo_min, w->lo[r]), lo_max = max_int(lo_max, w->lo[r]);
        hi_min = min_int(hi_min, w->hi[r]), hi_max = max_int(hi_max, w->hi[r]);
    }
    if (j0 >= hi_max || (j1 <= lo_min && j0 >= n_sinks)) return SKIP;
    Verdict v = j1 <= hi_min && (j0 >= lo_max || j1 <= n_sinks) ? FULL : EDGE;
    if (!p->a->mask.bitmap) return v;
    bool one_head = r0 / it->n_q == (r1 - 1) / it->n_q;
    int first = one_head ? r0 % it->n_q : 0, last = one_head ? (r1 - 1) % it->n_q : it->n_q - 1;
    Verdict b = judge_bitmap(p, it->t0 + first, it->t0 + last, j0, j1 - 1);
    return b == SKIP ? SKIP : b == FULL ? v : EDGE;
}

static void forbid(float *s, int from, int to) {
    for (int j = max_int(from, 0); j < to; j++) s[j] = SCORE_MASKED;
}

// The scores of row r for keys j0..j0+n-1.
static void apply_mask(const Plan *p, const Item *it, const Lane *w, float *s, int r, int j0, int n) {
    const AttnMask *mask = &p->a->mask;
    forbid(s, mask->n_sinks - j0, min_int(w->lo[r] - j0, n));
    forbid(s, w->hi[r] - j0, n);
    if (!mask->bitmap) return;
    const uint8_t *bits = mask->bitmap + (int64_t)((it->t0 + r % it->n_q) / mask->block) * mask->bitmap_stride;
    for (int j = 0; j < n; j++) {
        if (!bits[(j0 + j) / mask->block]) s[j] = SCORE_MASKED;
    }
}

// ---- a tile of K and V

// Keys of the cache as they are, and with KV_Q8 the scales of K and of V.
typedef struct {
    const void *k, *v;
    const float *k_scales, *v_scales;
} Stored;

// From key j0 on, where a group begins.
static Stored stored_at(const KvView *kv, int head, int j0) {
    const char *base = (const char *)kv->blocks[j0 / KV_BLOCK] + (size_t)head * kv->head_bytes;
    size_t at = (size_t)(j0 % KV_BLOCK);
    const float *scales = (const float *)(const void *)(base + kv->scales_offset) + at;
    return (Stored){base + at * (size_t)kv->key_words * sizeof(float),
                    base + kv->v_offset + at * (size_t)kv->head_dim * kv_value_bytes(kv->type), scales,
                    scales + KV_BLOCK};
}

// From one address to another of the cache; it is only fetched ahead of its use.
static ptrdiff_t way_to(const void *to, const void *from) {
    return (ptrdiff_t)((uintptr_t)to - (uintptr_t)from);
}

// What the products of a tile take: panels of K and of V. What the cache holds behind the last key of V may be no
// number, so the last keys, where they share a word or a step of the product with others, are copied with zeros behind
// them.
typedef struct {
    Panels k, v, last_v;
    int n_v, n_last; // keys of v and last_v
    const float *k_scales, *v_scales;
} Tile;

static Tile tile_of(const KvView *kv, const void *k, const void *v) {
    Panels k_words = {.words = k, .ld = KV_GROUP, .group = KV_GROUP * kv->key_words};
    Panels v_words = {.words = v, .ld = kv->head_dim, .group = KV_GROUP};
    return (Tile){.k = k_words, .v = v_words, .last_v = v_words};
}

// The keys of a bfloat16 tile behind the last whole step of them.
static void copy_last_v(const KvView *kv, const Lane *w, Tile *t, int n_keys, int step) {
    int hd = kv->head_dim, n = n_keys % step, pairs = n / 2;
    t->n_v = n_keys - n;
    t->n_last = n ? step : 0;
    if (!n) return;
    const uint16_t *v = (const uint16_t *)t->v.words + t->n_v * hd;
    uint16_t *last = w->v;
    memset(last, 0, sizeof *last * (size_t)(step * hd));
    memcpy(last, v, sizeof *last * (size_t)(2 * pairs * hd));
    for (int i = pairs * hd; n % 2 && i < (pairs + 1) * hd; i++) last[2 * i] = v[2 * i];
    t->last_v.words = last;
}

// Keys of the cache for products of bfloat16.
static Tile open_bf16(const Plan *p, const Lane *w, Stored t, int n_keys) {
    const KvView *kv = &p->a->kv;
    const Bf16Kernels *kn = p->kernels->bf16;
    int hd = kv->head_dim, whole = (n_keys + BF16_STEP - 1) / BF16_STEP * BF16_STEP;
    bool widen = kv->type == KV_Q8;
    Tile tile = widen ? tile_of(kv, w->k, w->v) : tile_of(kv, t.k, t.v);
    if (!widen) {
        copy_last_v(kv, w, &tile, n_keys, BF16_STEP);
        return tile;
    }
    kn->from_i8(w->k, t.k, KV_GROUP, whole / KV_GROUP * kv->key_words);
    kn->from_i8(w->v, t.v, hd, whole / kv->word);
    tile.k.group = KV_GROUP * p->width / 2; // pairs
    tile.n_v = whole, tile.k_scales = t.k_scales, tile.v_scales = t.v_scales;
    return tile;
}

// Keys of the cache as they lie; `next` is fetched meanwhile.
static Tile open_stored(const Plan *p, const Lane *w, Stored t, Stored next, int n_keys) {
    const KvView *kv = &p->a->kv;
    Tile tile = tile_of(kv, t.k, t.v);
    tile.k.ahead = way_to(next.k, t.k), tile.v.ahead = way_to(next.v, t.v);
    tile.n_v = (n_keys + kv->word - 1) / kv->word * kv->word;
    if (kv->type == KV_BF16) copy_last_v(kv, w, &tile, n_keys, kv->word);
    if (kv->type == KV_Q8) tile.k_scales = t.k_scales, tile.v_scales = t.v_scales;
    return tile;
}

// ---- results

static const float *q_row(const Plan *p, const Item *it, int r) {
    int64_t head = (int64_t)it->head * p->group + r / it->n_q, t = it->t0 + r % it->n_q;
    return p->a->q + (t * p->a->n_heads + head) * p->a->kv.head_dim;
}

// Where row r goes while it is not final, and m and l behind it.
static float *part_row(const Plan *p, const Item *it, int r) {
    const AttnScratch *s = p->scratch;
    int64_t pair = (int64_t)it->head * p->n_blocks + it->block;
    return s->parts + ((pair * p->n_spans + it->span) * s->max_rows + r) * (s->head_dim + 2);
}

static void scaled_copy(float *dst, const float *src, int n, float scale) {
    for (int i = 0; i < n; i++) dst[i] = src[i] * scale;
}

// Row r's unnormalised output, its maximum and sum: to the output, or kept for the merge.
static void finish_row(const Plan *p, const Item *it, const Lane *w, int r) {
    int hd = p->a->kv.head_dim;
    bool final = p->n_spans == 1;
    float *to = final ? p->a->out + (q_row(p, it, r) - p->a->q) : part_row(p, it, r), l = w->l[r];
    scaled_copy(to, w->o + r * hd, hd, !final ? 1 : l > 0 ? 1 / l : 0);
    if (!final) to[hd] = w->m[r], to[hd + 1] = l;
}

static void start_rows(const Plan *p, const Item *it, Lane *w) {
    const float *sinks = it->span == 0 ? p->a->mask.sink_logits : NULL;
    for (int r = 0; r < it->n_rows; r++) {
        w->m[r] = sinks ? sinks[it->head * p->group + r / it->n_q] * LOG2_E : SCORE_START;
        w->l[r] = sinks ? 1 : 0;
    }
}

// ---- a tile's products

// Queries scaled so that softmax works in base 2, zeros up to whole words.
static void set_queries(const Plan *p, const Item *it, Lane *w) {
    int hd = p->a->kv.head_dim, width = p->width;
    float scale = p->a->softcap > 0 ? p->a->scale / p->a->softcap : p->a->scale * LOG2_E;
    for (int r = 0; r < it->n_rows; r++) {
        scaled_copy(w->q + r * width, q_row(p, it, r), hd, scale);
        for (int d = hd; d < width; d++) w->q[r * width + d] = 0;
    }
    if (it->bf16) p->kernels->bf16->round(w->q16, w->q, (int64_t)it->n_rows * width);
}

// The product of rows of fp32 with what the cache stores.
static GemmKernel stored_gemm(const Plan *p) {
    KvType t = p->a->kv.type;
    return t == KV_F32 ? p->kernels->gemm_f32 : t == KV_BF16 ? p->kernels->gemm_bf16 : p->kernels->gemm_i8;
}

// w->s[row][key] for rows r0.., of whole groups of keys: those behind the last one are anything.
static void scores(const Plan *p, const Item *it, const Lane *w, const Tile *t, int r0, int n_rows, int n_keys) {
    int width = p->width, n = (n_keys + KV_GROUP - 1) / KV_GROUP * KV_GROUP;
    if (it->bf16) p->kernels->bf16->gemm(w->s, TILE, &t->k, w->q16 + r0 * width, width, n_rows, width, n, false);
    else stored_gemm(p)(w->s, TILE, &t->k, w->q + r0 * width, width, n_rows, width, n, false);
}

// Scores of row r to what multiplies V, zeros behind the last, and the output so far rescaled. s: row r's of w->s.
static void softmax(const Plan *p, const Item *it, const Lane *w, const Tile *t, int r, float *s, int n_keys) {
    const Kernels *kn = p->kernels;
    float *m = w->m + r, *l = w->l + r, *o = w->o + r * p->a->kv.head_dim, alpha;
    if (it->bf16) {
        alpha = kn->bf16->softmax_row(w->p + (s - w->s), s, n_keys, t->v_scales, m, l);
    } else {
        alpha = kn->softmax_row(s, n_keys, m, l);
        if (t->v_scales) kn->scale(s, t->v_scales, n_keys);
        for (int j = n_keys; j % p->a->kv.word; j++) s[j] = 0;
    }
    if (alpha != 1) scaled_copy(o, o, p->a->kv.head_dim, alpha);
}

// w->o[row][d] += P V for n keys, of which `from` is the first in the tile.
static void add_values(const Plan *p, const Item *it, const Lane *w, const Panels *v, int r0, int n_rows, int from,
                       int n) {
    int hd = p->a->kv.head_dim;
    float *o = w->o + r0 * hd;
    if (it->bf16) p->kernels->bf16->gemm(o, hd, v, w->p + from, TILE, n_rows, n, hd, true);
    else stored_gemm(p)(o, hd, v, w->s + from, TILE, n_rows, n, hd, true);
}

// Rows r0.. of an item and a tile.
static void attend(const Plan *p, const Item *it, const Lane *w, const Tile *t, int r0, int n_rows, int j0, int n_keys,
                   bool edge) {
    scores(p, it, w, t, r0, n_rows, n_keys);
    for (int r = 0; r < n_rows; r++) {
        float *s = w->s + r * TILE;
        if (t->k_scales) p->kernels->scale(s, t->k_scales, n_keys);
        // scores come divided by the cap, and leave in base 2 as the others
        if (p->a->softcap > 0) p->kernels->softcap(s, n_keys, 1, p->a->softcap * LOG2_E);
        if (edge) apply_mask(p, it, w, s, r0 + r, j0, n_keys);
        softmax(p, it, w, t, r0 + r, s, n_keys);
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
static void run_tiles(const Plan *p, const Item *it, Lane *w, TileList tiles, int first, int last) {
    const KvView *kv = &p->a->kv;
    for (int i = first; i < last; i++) {
        int j0 = first_key(p, it, tile_at(tiles, i)), n = min_int(TILE - j0 % TILE, it->hi_max - j0);
        if (judge(p, it, w, 0, it->n_rows, j0, j0 + n) == SKIP) continue;
        Stored t = stored_at(kv, it->head, j0);
        Stored next =
            i + 1 < last ? stored_at(kv, it->head, first_key(p, it, tile_at(tiles, i + 1))) : stored_next(p, it, t);
        Tile tile = it->bf16 ? open_bf16(p, w, t, n) : open_stored(p, w, t, next, n);
        for (int r0 = 0; r0 < it->n_rows; r0 += SCORE_ROWS) {
            int n_rows = min_int(SCORE_ROWS, it->n_rows - r0);
            Verdict verdict = judge(p, it, w, r0, r0 + n_rows, j0, j0 + n);
            if (verdict != SKIP) attend(p, it, w, &tile, r0, n_rows, j0, n, verdict == EDGE);
        }
    }
}

static void run_item(void *context, int index, int worker) {
    const Plan *p = context;
    bool in_stretches = p->n_spans > 1; // else the longest first
    Item it = item_at(p, in_stretches ? threads_in_stretches(index, p->n_items, p->scratch->n_threads) : index);
    Lane *w = &p->scratch->lanes[worker];
    set_visible(p, &it, w);
    start_rows(p, &it, w);
    TileList tiles = list_tiles(p, &it);
    int first = span_start(p, tiles, it.span), last = span_start(p, tiles, it.span + 1);
    set_queries(p, &it, w);
    memset(w->o, 0, sizeof *w->o * (size_t)(it.n_rows * p->a->kv.head_dim));
    run_tiles(p, &it, w, tiles, first, last);
    for (int r = 0; r < it.n_rows; r++) finish_row(p, &it, w, r);
}

// Join the spans of one (KV head, query block): O = sum_s w_s O_s / sum_s w_s l_s with w_s = 2^(m_s - max m).
static void merge_item(void *context, int index, int worker) {
    const Plan *p = context;
    Item it = item_at(p, index * p->n_spans);
    int hd = p->a->kv.head_dim;
    float *sum = p->scratch->lanes[worker].o;
    for (int r = 0; r < it.n_rows; r++) {
        float m = SCORE_START, l = 0;
        for (it.span = 0; it.span < p->n_spans; it.span++) {
            float part_m = part_row(p, &it, r)[hd];
            m = part_m > m ? part_m : m;
        }
        memset(sum, 0, sizeof(float) * (size_t)hd);
        for (it.span = 0; it.span < p->n_spans; it.span++) {
            const float *part = part_row(p, &it, r);
            float weight = exp2f(part[hd] - m);
            l += weight * part[hd + 1];
            for (int d = 0; d < hd; d++) sum[d] += weight * part[d];
        }
        scaled_copy(p->a->out + (q_row(p, &it, r) - p->a->q), sum, hd, l > 0 ? 1 / l : 0);
    }
}

// How many parts to cut the keys into: by the shape alone, never by the number of threads.
static int count_spans(const Plan *p, int n_pairs) {
    int most = 0;
    for (int block = 0; block < p->n_blocks; block++) {
        Item it = item_at(p, block * p->a->kv.n_kv_heads);
        most = max_int(most, list_tiles(p, &it).n);
    }
    int wanted = (WANTED_ITEMS + n_pairs - 1) / n_pairs;
    return max_int(1, min_int(wanted, most / SPAN_TILES));
}

// Both products over every visible key, and the keys and values that some query sees; a bitmap is not looked at.
static void end_profile(Profile *profile, const Attention *a) {
    double pairs = 0;
    int lo = 0, n_keys = a->n_keys, n_sinks = a->mask.n_sinks;
    for (int t = a->n_q - 1; t >= 0; t--) { // to the first query, which sees the farthest back
        int pos = a->pos0 + t, hi = a->mask.causal ? min_int(pos + 1, n_keys) : n_keys;
        lo = a->mask.window > 0 ? max_int(0, pos - a->mask.window + 1) : 0;
        pairs += hi - lo + min_int(n_sinks, lo);
    }
    double keys = n_keys - lo + min_int(n_sinks, lo), bytes = (double)kv_token_bytes(a->kv.type, a->kv.head_dim);
    profile_end(profile, 4 * pairs * a->n_heads * a->kv.head_dim, bytes * keys * a->kv.n_kv_heads);
}

void attention(ThreadPool *pool, AttnScratch *scratch, const Attention *a) {
    Profile *profile = threads_profile(pool);
    profile_begin(profile, PROFILE_ATTENTION);
    Plan p = {.a = a, .scratch = scratch, .kernels = kernels(), .group = a->n_heads / a->kv.n_kv_heads, .n_spans = 1};
    p.width = a->kv.word * a->kv.key_words;
    p.q_block = q_block_for(p.group);
    p.n_blocks = (a->n_q + p.q_block - 1) / p.q_block;
    int n_pairs = p.n_blocks * a->kv.n_kv_heads;
    if (n_pairs < WANTED_ITEMS) p.n_spans = count_spans(&p, n_pairs);
    bool small = (int64_t)a->n_q * a->n_heads * a->n_keys * a->kv.head_dim * 2 < SMALL_WORK;
    p.n_items = n_pairs * p.n_spans;
    threads_for_if(!small, pool, p.n_items, run_item, &p);
    if (p.n_spans > 1) threads_for_if(!small, pool, n_pairs, merge_item, &p);
    if (profile) end_profile(profile, a);
}

// ---- pictures

static void load_key(const KvView *kv, int head, int j, float *to) {
    Stored t = stored_at(kv, head, j / KV_GROUP * KV_GROUP);
    for (int d = 0; d < kv->head_dim; d++) {
        int at = (d / kv->word * KV_GROUP + j % KV_GROUP) * kv->word + d % kv->word;
        switch (kv->type) {
        case KV_F32: to[d] = ((const float *)t.k)[at]; break;
        case KV_BF16: to[d] = f32_from_bf16(((const uint16_t *)t.k)[at]); break;
        case KV_Q8: to[d] = (float)((const int8_t *)t.k)[at] * t.k_scales[j % KV_GROUP]; break;
        }
    }
}

// The keys of a, with value j = unit vector j - first (zeros for the others).
static void store_unit_values(KvCache *units, const Attention *a, int first, float *k, float *v) {
    const KvView *kv = &a->kv;
    int hd = kv->head_dim, width = kv->n_kv_heads * hd;
    kvcache_restart(units);
    for (int j = 0; j < a->n_keys; j++) {
        memset(v, 0, sizeof *v * (size_t)width);
        for (int h = 0; h < kv->n_kv_heads; h++) {
            load_key(kv, h, j, k + h * hd);
            if (j >= first && j < first + hd) v[h * hd + j - first] = 1;
        }
        kvcache_store(units, 0, 1, k, v);
        kvcache_advance(units, 1);
    }
}

int attention_weights(ThreadPool *pool, AttnScratch *scratch, const Attention *a, float *weights, char *err,
                      size_t errlen) {
    int hd = a->kv.head_dim, rows = a->n_q * a->n_heads;
    size_t width = (size_t)a->kv.n_kv_heads * (size_t)hd;
    KvCache *units = kvcache_open(
        &(KvShape){.n_layers = 1, .n_kv_heads = a->kv.n_kv_heads, .head_dim = hd, .type = KV_F32}, err, errlen);
    float *k = malloc(sizeof *k * width), *v = malloc(sizeof *v * width);
    float *out = malloc(sizeof *out * (size_t)rows * (size_t)hd);
    bool room = units && k && v && out && !kvcache_reserve(units, a->n_keys, err, errlen);
    if (units && !(k && v && out)) fail(err, errlen, "out of memory for %d attention weights of a head", a->n_keys);
    for (int first = 0; room && first < a->n_keys; first += hd) {
        store_unit_values(units, a, first, k, v);
        Attention probe = *a;
        probe.kv = kvcache_view(units, 0);
        probe.out = out;
        attention(pool, scratch, &probe);
        int n = min_int(hd, a->n_keys - first);
        for (int r = 0; r < rows; r++) {
            memcpy(weights + (int64_t)r * a->n_keys + first, out + (int64_t)r * hd, sizeof(float) * (size_t)n);
        }
    }
    kvcache_close(units);
    free(k);
    free(v);
    free(out);
    return room ? 0 : -1;
}
