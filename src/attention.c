// attention: see attention.h.
//
// A work item is (KV head, block of queries, span of key tiles). Its rows are the block's queries of every query head
// that shares the KV head. Many rows go the panel way: Q^T packed once, scores S^T[key][row] = K Q^T, softmax with a
// row per lane, O^T[d][row] += V^T P^T, all with the one gemm kernel and S^T as the next product's panel in place. Few
// rows (decode) go the row way: dots with the rows of K and of V^T, with the one matvec kernel.
#include "attention.h"

#include "file.h"
#include "kernels/kernels.h"
#include "quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    TILE = 128,        // keys; divides KV_BLOCK
    MAX_ROWS = 256,    // of an item, unless one query has more heads
    MAX_Q_BLOCK = 64,  // queries of an item
    WANTED_ITEMS = 16, // split the keys where there are fewer (KV head, query block) pairs
    SPAN_TILES = 2,    // a span is at least this long
    MAX_ITEMS_SPLIT = 2 * WANTED_ITEMS,
    SMALL_WORK = 64 * 1024, // multiply-adds that are not worth a hand-off to other threads
    ALIGNMENT = 64,
};

static const float LOG2_E = 1.44269504088896340736f; // softmax works in base 2

typedef struct {  // one worker's memory
    float *q, *o; // panel way: [panels][head_dim][PANEL], q perhaps in bfloat16; row way: [rows][head_dim]
    float *m, *l; // [rows], the running maximum and sum
    float *s;     // [TILE][PANEL] or [rows][TILE]
    float *p;     // s in bfloat16
    float *k, *v; // the tile unpacked: [TILE][head_dim], [head_dim][TILE] or, in bfloat16, groups; row way: v is of P V
    int *lo, *hi; // [rows], visible keys of each row
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
    bool bf16; // the panel way
    int group; // query heads of a KV head
    int q_block, n_blocks, n_spans, n_items;
} Plan;

typedef struct {
    int index;
    int head, block, span; // KV head
    int t0, n_q, n_rows;   // queries t0..t0+n_q-1; row = head in group * n_q + query
    int lo_min, hi_max;    // of all rows
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
    size_t hd = (size_t)head_dim, rows = (size_t)q_block_for(group) * (size_t)group;
    rows = (rows + MAX_PANEL - 1) / MAX_PANEL * MAX_PANEL;
    size_t tile = padded(TILE * MAX_PANEL);
    size_t each[] = {padded(rows * hd), padded(rows * hd), padded(rows), padded(rows), tile, tile,
                     padded(TILE * hd), padded(TILE * hd), padded(rows), padded(rows)};
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
        void **fields[] = {(void **)&w->q, (void **)&w->o, (void **)&w->m, (void **)&w->l,  (void **)&w->s,
                           (void **)&w->p, (void **)&w->k, (void **)&w->v, (void **)&w->lo, (void **)&w->hi};
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

// s[j * ld + i] for keys j0 + j, rows r0 + i.
static void apply_mask(const Plan *p, const Item *it, const Lane *w, float *s, int ld, int r0, int n_rows, int j0,
                       int n_keys) {
    const AttnMask *mask = &p->a->mask;
    for (int j = 0; j < n_keys; j++) {
        int key = j0 + j;
        bool sink = key < mask->n_sinks;
        for (int i = 0; i < n_rows; i++) {
            bool visible = (key < w->hi[r0 + i]) & (sink | (key >= w->lo[r0 + i])); // no branches: this vectorizes
            s[j * ld + i] = visible ? s[j * ld + i] : SCORE_MASKED;
        }
    }
    for (int i = 0; mask->bitmap && i < n_rows; i++) {
        int t = it->t0 + (r0 + i) % it->n_q;
        const uint8_t *bits = mask->bitmap + (int64_t)(t / mask->block) * mask->bitmap_stride;
        for (int j = 0; j < n_keys; j++) {
            if (!bits[(j0 + j) / mask->block]) s[j * ld + i] = SCORE_MASKED;
        }
    }
}

// ---- a tile of K and V

// Keys j0.. of the cache, as they are: K's rows, V's groups from j0's on, and with KV_Q8 the scales of both.
typedef struct {
    const void *k, *v;
    const float *k_scales, *v_scales;
} Stored;

static Stored stored_at(const KvView *kv, int head, int j0) {
    const char *base = (const char *)kv->blocks[j0 / KV_BLOCK] + (size_t)head * kv->head_bytes;
    size_t at = (size_t)(j0 % KV_BLOCK) * (size_t)kv->head_dim * kv_value_bytes(kv->type);
    const float *scales = (const float *)(const void *)(base + kv->scales_offset) + j0 % KV_BLOCK;
    return (Stored){base + at, base + kv->v_offset + at, scales, scales + KV_BLOCK};
}

// [n_keys][head_dim], in `room` if they have to be unpacked.
static const float *k_rows(const Kernels *kn, const KvView *kv, Stored t, int n_keys, float *room) {
    int n = n_keys * kv->head_dim;
    if (kv->type == KV_F32) return t.k;
    if (kv->type == KV_BF16) kn->f32_from_bf16(room, n, t.k, n, 1, n);
    else kn->unpack_i8g(room, t.k, t.k_scales, kv->head_dim, 0, n);
    return room;
}

static const float *k_tile(const Plan *p, const Lane *w, Stored t, int n_keys) {
    return k_rows(p->kernels, &p->a->kv, t, n_keys, w->k);
}

// KV_GROUP keys of V^T: y[d * ld + i]
static void unpack_v_q8(float *y, int64_t ld, const int8_t *q, const float *scales, int hd) {
    for (int d = 0; d < hd; d++) {
        for (int i = 0; i < KV_GROUP; i++) y[d * ld + i] = (float)q[d * KV_GROUP + i] * scales[i];
    }
}

// [head_dim][TILE]; whole groups, of which the first n_keys columns count.
static const float *v_tile(const Plan *p, const Lane *w, Stored t, int n_keys) {
    int hd = p->a->kv.head_dim;
    for (int j = 0; j < n_keys; j += KV_GROUP) {
        const float *f32 = (const float *)t.v + j * hd;
        switch (p->a->kv.type) {
        case KV_F32:
            for (int d = 0; d < hd; d++) memcpy(w->v + d * TILE + j, f32 + d * KV_GROUP, sizeof *f32 * KV_GROUP);
            break;
        case KV_BF16:
            p->kernels->f32_from_bf16(w->v + j, TILE, (const uint16_t *)t.v + j * hd, KV_GROUP, hd, KV_GROUP);
            break;
        case KV_Q8: unpack_v_q8(w->v + j, TILE, (const int8_t *)t.v + j * hd, t.v_scales + j, hd); break;
        }
    }
    return w->v;
}

// The same in bfloat16: K as rows, V in the cache's groups.
static const uint16_t *k_tile_bf16(const Plan *p, const Lane *w, Stored t, int n_keys) {
    uint16_t *rounded = (uint16_t *)(void *)w->k; // over what is rounded
    if (p->a->kv.type == KV_BF16) return t.k;
    p->kernels->bf16->round(rounded, k_tile(p, w, t, n_keys), n_keys * p->a->kv.head_dim);
    return rounded;
}

// Whole groups, with zeros behind the last key: what the cache has there may be no number.
static const uint16_t *v_tile_bf16(const Plan *p, const Lane *w, Stored t, int n_keys) {
    uint16_t *rounded = (uint16_t *)(void *)w->v;
    int hd = p->a->kv.head_dim, group = KV_GROUP * hd, n_last = n_keys % KV_GROUP;
    if (p->a->kv.type == KV_BF16 && !n_last) return t.v;
    for (int j = 0; j < n_keys; j += KV_GROUP) {
        uint16_t *to = rounded + j * hd;
        if (p->a->kv.type == KV_Q8) {
            unpack_v_q8(w->v + j * hd, KV_GROUP, (const int8_t *)t.v + j * hd, t.v_scales + j, hd);
            p->kernels->bf16->round(to, w->v + j * hd, group);
        } else {
            memcpy(to, (const uint16_t *)t.v + j * hd, sizeof *to * (size_t)group);
        }
    }
    uint16_t *last = rounded + (n_keys - n_last) * hd;
    for (int d = 0; n_last && d < hd; d++) {
        memset(last + d * KV_GROUP + n_last, 0, sizeof *last * (size_t)(KV_GROUP - n_last));
    }
    return rounded;
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

// Row r's unnormalised output of n dimensions from d on, its maximum and sum: to the output, or kept for the merge.
static void finish_row(const Plan *p, const Item *it, int r, int d, int n, const float *o, float m, float l) {
    int hd = p->a->kv.head_dim;
    bool final = p->n_spans == 1;
    float *to = final ? p->a->out + (q_row(p, it, r) - p->a->q) : part_row(p, it, r);
    scaled_copy(to + d, o, n, !final ? 1 : l > 0 ? 1 / l : 0);
    if (!final) to[hd] = m, to[hd + 1] = l;
}

static void start_rows(const Plan *p, const Item *it, Lane *w) {
    const float *sinks = it->span == 0 ? p->a->mask.sink_logits : NULL;
    for (int r = 0; r < it->n_rows; r++) {
        w->m[r] = sinks ? sinks[it->head * p->group + r / it->n_q] * LOG2_E : SCORE_START;
        w->l[r] = sinks ? 1 : 0;
    }
}

// ---- the two ways

// Scores come divided by the cap, and leave in base 2 as the others.
static void cap_scores(const Plan *p, float *s, int n) {
    p->kernels->softcap(s, n, 1, p->a->softcap * LOG2_E);
}

// y[row * ldy + i] = sum_j w(i, j) x[row * ldx + j] over rows of the cache.
static void cache_dots(const Plan *p, float *y, int64_t ldy, const void *w, int64_t ldw, int64_t step, const float *x,
                       int64_t ldx, int n_rows, int n_x, int k, ptrdiff_t ahead) {
    const Kernels *kn = p->kernels;
    switch (p->a->kv.type) {
    case KV_F32: kn->dots_f32(y, ldy, w, ldw, step, x, ldx, n_rows, n_x, k, ahead); break;
    case KV_BF16: kn->dots_bf16(y, ldy, w, ldw, step, x, ldx, n_rows, n_x, k, ahead); break;
    case KV_Q8: kn->dots_i8(y, ldy, w, ldw, step, x, ldx, n_rows, n_x, k, ahead); break;
    }
}

static void scale_keys(float *s, const float *scales, int n_keys, int n_rows) {
    for (int r = 0; r < n_rows; r++) {
        for (int j = 0; j < n_keys; j++) s[r * TILE + j] *= scales[j];
    }
}

// s[row][TILE] = K q for every row. Short vectors do not fill the lanes of a dot: then K^T is packed, keys are the
// lanes, and the rows are the columns of the gemm.
static void row_scores(const Plan *p, const Item *it, const Lane *w, Stored t, int n_keys, ptrdiff_t ahead) {
    const Kernels *kn = p->kernels;
    int hd = p->a->kv.head_dim, panel = kn->panel;
    if (hd > panel / 4) {
        cache_dots(p, w->s, TILE, t.k, hd, DOTS_STEP, w->q, hd, n_keys, it->n_rows, hd, ahead);
        if (p->a->kv.type == KV_Q8) scale_keys(w->s, t.k_scales, n_keys, it->n_rows);
        return;
    }
    const float *k = k_tile(p, w, t, n_keys);
    float packed[MAX_PANEL * MAX_PANEL / 4];
    for (int j = 0; j < n_keys; j += panel) {
        kn->pack(packed, k + j * hd, hd, min_int(panel, n_keys - j), hd);
        kn->gemm(w->s + j, TILE, packed, w->q, hd, it->n_rows, hd, panel, false);
    }
}

// Scores of row r to probabilities, its output so far rescaled.
static void row_softmax(const Plan *p, const Item *it, const Lane *w, int r, int j0, int n_keys) {
    float *s = w->s + r * TILE, *o = w->o + r * p->a->kv.head_dim;
    Verdict verdict = judge(p, it, w, r, r + 1, j0, j0 + n_keys);
    if (verdict == SKIP) {
        memset(s, 0, sizeof *s * (size_t)n_keys);
        return;
    }
    if (p->a->softcap > 0) cap_scores(p, s, n_keys);
    if (verdict == EDGE) apply_mask(p, it, w, s, 1, r, 1, j0, n_keys);
    float alpha = p->kernels->softmax_row(s, n_keys, &w->m[r], &w->l[r]);
    if (alpha != 1) scaled_copy(o, o, p->a->kv.head_dim, alpha);
}

// The first tile of the next item in memory, if there is one.
static Stored stored_next(const Plan *p, const Item *it, Stored t) {
    if (it->index + 1 == p->n_items) return t;
    Item next = item_at(p, it->index + 1);
    TileList tiles = list_tiles(p, &next);
    int first = span_start(p, tiles, next.span);
    return first < tiles.n ? stored_at(&p->a->kv, next.head, tile_at(tiles, first) * TILE) : t;
}

// From one address to another of the cache; it is only fetched ahead of its use.
static ptrdiff_t way_to(const void *to, const void *from) {
    return (ptrdiff_t)((uintptr_t)to - (uintptr_t)from);
}

static void row_way(const Plan *p, const Item *it, Lane *w, TileList tiles, int first, int last, float scale) {
    int hd = p->a->kv.head_dim, n_rows = it->n_rows;
    for (int r = 0; r < n_rows; r++) scaled_copy(w->q + r * hd, q_row(p, it, r), hd, scale);
    memset(w->o, 0, sizeof(float) * (size_t)(n_rows * hd));
    for (int i = first; i < last; i++) {
        int j0 = tile_at(tiles, i) * TILE, n = min_int(TILE, it->hi_max - j0);
        if (judge(p, it, w, 0, n_rows, j0, j0 + n) == SKIP) continue;
        Stored t = stored_at(&p->a->kv, it->head, j0);
        Stored next =
            i + 1 < last ? stored_at(&p->a->kv, it->head, tile_at(tiles, i + 1) * TILE) : stored_next(p, it, t);
        row_scores(p, it, w, t, n, way_to(next.k, t.k));
        for (int r = 0; r < n_rows; r++) row_softmax(p, it, w, r, j0, n);
        if (p->a->kv.type == KV_Q8) scale_keys(w->s, t.v_scales, n, n_rows);
        cache_dots(p, w->v, hd, t.v, KV_GROUP, KV_GROUP * hd, w->s, TILE, hd, n_rows, n, way_to(next.v, t.v));
        for (int d = 0; d < n_rows * hd; d++) w->o[d] += w->v[d];
    }
    for (int r = 0; r < n_rows; r++) finish_row(p, it, r, 0, hd, w->o + r * hd, w->m[r], w->l[r]);
}

// Panels of Q^T, scaled so that softmax works in base 2; w->o is free until the first tile.
static void pack_queries(const Plan *p, const Item *it, Lane *w, float scale) {
    const Kernels *kn = p->kernels;
    int hd = p->a->kv.head_dim, panel = kn->panel;
    uint16_t *words = (uint16_t *)(void *)w->o;
    for (int r0 = 0; r0 < it->n_rows; r0 += panel) {
        int n = min_int(panel, it->n_rows - r0);
        for (int r = 0; r < n; r++) scaled_copy(w->o + r * hd, q_row(p, it, r0 + r), hd, scale);
        if (p->bf16) kn->bf16->round(words, w->o, n * hd);
        int width = p->bf16 ? hd / 2 : hd; // in words: a pair of bfloat16 is one
        kn->pack(w->q + r0 * width, w->o, width, n, width);
    }
}

// A tile in the type of the panel way.
typedef struct {
    const float *k, *v;
    const uint16_t *k16, *v16;
} Tile;

static Tile unpack_tile(const Plan *p, const Lane *w, Stored t, int n_keys) {
    if (p->bf16) return (Tile){.k16 = k_tile_bf16(p, w, t, n_keys), .v16 = v_tile_bf16(p, w, t, n_keys)};
    return (Tile){.k = k_tile(p, w, t, n_keys), .v = v_tile(p, w, t, n_keys)};
}

// s[key][PANEL] = K Q^T
static void panel_scores(const Plan *p, const Lane *w, const Tile *t, int r0, int n_keys) {
    const Kernels *kn = p->kernels;
    int hd = p->a->kv.head_dim;
    const uint16_t *q16 = (const uint16_t *)(const void *)w->q + r0 * hd;
    if (p->bf16) kn->bf16->gemm(w->s, kn->panel, q16, t->k16, hd, BF16_STEP, n_keys, hd, kn->panel, false);
    else kn->gemm(w->s, kn->panel, w->q + r0 * hd, t->k, hd, n_keys, hd, kn->panel, false);
}

// Scores to probabilities, in place or, in bfloat16, to w->p; the output so far is rescaled.
static void panel_softmax(const Plan *p, const Lane *w, int r0, int n_keys) {
    const Kernels *kn = p->kernels;
    int hd = p->a->kv.head_dim, panel = kn->panel;
    float alpha[MAX_PANEL], *m = w->m + r0, *l = w->l + r0, *o = w->o + r0 * hd;
    bool rescale = p->bf16 ? kn->bf16->softmax_lanes((uint16_t *)(void *)w->p, w->s, n_keys, m, l, alpha)
                           : kn->softmax_lanes(w->s, n_keys, m, l, alpha);
    for (int d = 0; rescale && d < hd; d++) {
        for (int lane = 0; lane < panel; lane++) o[d * panel + lane] *= alpha[lane];
    }
}

// o[d][PANEL] += V^T P^T
static void panel_values(const Plan *p, const Lane *w, const Tile *t, int r0, int n_keys) {
    const Kernels *kn = p->kernels;
    int hd = p->a->kv.head_dim, whole = (n_keys + BF16_STEP - 1) / BF16_STEP * BF16_STEP;
    float *o = w->o + r0 * hd;
    const uint16_t *p16 = (const uint16_t *)(const void *)w->p;
    if (p->bf16) kn->bf16->gemm(o, kn->panel, p16, t->v16, KV_GROUP, KV_GROUP * hd, hd, whole, kn->panel, true);
    else kn->gemm(o, kn->panel, w->s, t->v, TILE, hd, n_keys, kn->panel, true);
}

// The outputs of a panel's rows, a few dimensions at a time as rows of their own.
static void finish_panel(const Plan *p, const Item *it, const Lane *w, int r0, int n_rows) {
    int hd = p->a->kv.head_dim, panel = p->kernels->panel;
    float rows[MAX_PANEL * MAX_PANEL];
    for (int d = 0; d < hd; d += panel) {
        int n = min_int(panel, hd - d);
        p->kernels->pack(rows, w->o + r0 * hd + d * panel, panel, n, panel);
        for (int r = 0; r < n_rows; r++) finish_row(p, it, r0 + r, d, n, rows + r * panel, w->m[r0 + r], w->l[r0 + r]);
    }
}

static void panel_way(const Plan *p, const Item *it, Lane *w, TileList tiles, int first, int last, float scale) {
    int hd = p->a->kv.head_dim, panel = p->kernels->panel;
    pack_queries(p, it, w, scale);
    int rows_padded = (it->n_rows + panel - 1) / panel * panel;
    memset(w->o, 0, sizeof(float) * (size_t)(rows_padded * hd));
    for (int r = it->n_rows; r < rows_padded; r++) w->m[r] = SCORE_START, w->l[r] = 0;
    for (int i = first; i < last; i++) {
        int j0 = tile_at(tiles, i) * TILE, n = min_int(TILE, it->hi_max - j0);
        Tile t = {0};
        for (int r0 = 0; r0 < it->n_rows; r0 += panel) {
            int r1 = min_int(r0 + panel, it->n_rows);
            Verdict verdict = judge(p, it, w, r0, r1, j0, j0 + n);
            if (verdict == SKIP) continue;
            if (!t.k && !t.k16) t = unpack_tile(p, w, stored_at(&p->a->kv, it->head, j0), n);
            panel_scores(p, w, &t, r0, n);
            if (p->a->softcap > 0) cap_scores(p, w->s, n * panel);
            if (verdict == EDGE) apply_mask(p, it, w, w->s, panel, r0, r1 - r0, j0, n);
            panel_softmax(p, w, r0, n);
            panel_values(p, w, &t, r0, n);
        }
    }
    for (int r0 = 0; r0 < it->n_rows; r0 += panel) finish_panel(p, it, w, r0, min_int(panel, it->n_rows - r0));
}

// ---- items

static void run_item(void *context, int index, int worker) {
    const Plan *p = context;
    bool in_stretches = p->n_spans > 1; // else the longest first
    Item it = item_at(p, in_stretches ? threads_in_stretches(index, p->n_items, p->scratch->n_threads) : index);
    Lane *w = &p->scratch->lanes[worker];
    set_visible(p, &it, w);
    start_rows(p, &it, w);
    TileList tiles = list_tiles(p, &it);
    int first = span_start(p, tiles, it.span), last = span_start(p, tiles, it.span + 1);
    float scale = p->a->softcap > 0 ? p->a->scale / p->a->softcap : p->a->scale * LOG2_E;
    bool few = it.n_rows <= p->kernels->panel / 4;
    (few ? row_way : panel_way)(p, &it, w, tiles, first, last, scale);
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
    p.bf16 = p.kernels->bf16 && a->kv.type != KV_F32 && a->kv.head_dim % BF16_STEP == 0;
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

// The keys of a, with value j = unit vector j - first (zeros for the others).
static void store_unit_values(KvCache *units, const Attention *a, int first, float *k, float *v) {
    const KvView *kv = &a->kv;
    int hd = kv->head_dim, width = kv->n_kv_heads * hd;
    kvcache_restart(units);
    for (int j = 0; j < a->n_keys; j++) {
        memset(v, 0, sizeof *v * (size_t)width);
        for (int h = 0; h < kv->n_kv_heads; h++) {
            float *key = k + h * hd;
            memmove(key, k_rows(kernels(), kv, stored_at(kv, h, j), 1, key), sizeof *key * (size_t)hd);
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
