// check_kvcache: the caches of a timeline's layers against plain arrays of rows: layout, growth without moves, bytes
// that follow the text, windows and their sinks, exact truncation, and memory that runs out.
#include "reference.h"

#include "layer_memory.h"

#include <limits.h>

// ---- a cache and, beside it, everything that was ever stored

enum { MAX_TOKENS = 3000 };

typedef struct {
    int n_layers, n_kv_heads, k_dim, v_dim;
    KvDType type;
    int window, n_sinks;
    const int *windows; // [n_layers] of each layer, in place of `window`; NULL: all alike
} Shape;

typedef struct {
    Shape shape;
    Memory m;
    int length;
    float *k, *v; // [n_layers][MAX_TOKENS][n_kv_heads][k_dim or v_dim], as they should read back
} Pair;

static int window_of(const Shape *s, int layer) {
    return s->windows ? s->windows[layer] : s->window;
}

static void open_memory(Memory *m, const Shape *s) {
    char err[200] = "";
    Config c = {.n_layers = s->n_layers, .n_kinds = s->n_layers};
    for (int i = 0; i < s->n_layers; i++) {
        c.kinds[i] = (LayerKind){.n_heads = s->n_kv_heads, .n_kv_heads = s->n_kv_heads};
        c.kinds[i].k_dim = s->k_dim;
        c.kinds[i].v_dim = s->v_dim;
        c.kinds[i].window = window_of(s, i);
        c.kind_of[i] = (uint8_t)i;
    }
    MemoryOptions options = {.kv = s->type, .n_sinks = s->n_sinks, .n_ctx = MAX_TOKENS};
    if (!memory_open(m, &c, &options, NULL, err, sizeof err)) return;
    fprintf(stderr, "memory_open: %s\n", err);
    exit(1);
}

static Pair pair_open(Shape shape) {
    Pair p = {.shape = shape};
    open_memory(&p.m, &shape);
    int64_t n = (int64_t)shape.n_layers * MAX_TOKENS * shape.n_kv_heads;
    p.k = need_floats(n * shape.k_dim);
    p.v = need_floats(n * shape.v_dim);
    return p;
}

static void pair_close(Pair *p) {
    memory_close(&p->m);
    free(p->k);
    free(p->v);
}

static KvView view_of(const Pair *p, int layer) {
    return kvcache_view(memory_cache(&p->m, layer));
}

// A vector as it should read back.
static void stored(KvDType type, float *to, const float *from, int dim) {
    memcpy(to, from, sizeof *to * (size_t)dim);
    if (type == KV_DTYPE_Q8) q8_nearest(to, dim);
    if (type != KV_DTYPE_BF16) return;
    for (int d = 0; d < dim; d++) to[d] = bf16_nearest(to[d]);
}

// ---- the layout that kvcache.h promises

static int value_bytes(KvDType t) {
    return t == KV_DTYPE_F32 ? 4 : t == KV_DTYPE_BF16 ? 2 : 1;
}

static int whole_words(KvDType t, int k_dim) { // values of a key and its pad
    int each = 4 / value_bytes(t);
    return (k_dim + each - 1) / each * each;
}

// Where value d of a head's key, or value, of token t is; of a key also those of its pad.
static char *place(const KvView *view, int head, int t, bool is_v, int d) {
    int bytes = value_bytes(view->type), each = 4 / bytes, kd = view->k_dim, vd = view->v_dim, slot = t % KV_BLOCK;
    char *base = (char *)view->blocks[t / KV_BLOCK] + (size_t)head * view->head_bytes;
    int row = slot / KV_GROUP * (whole_words(view->type, kd) / each) + d / each; // of KV_GROUP words
    int k_at = (row * KV_GROUP + slot % KV_GROUP) * each + d % each, v_at = (slot / each * vd + d) * each + slot % each;
    return is_v ? base + view->v_offset + v_at * bytes : base + k_at * bytes;
}

static float scale_at(const KvView *view, int head, int t, bool is_v) {
    const char *base = (const char *)view->blocks[t / KV_BLOCK] + (size_t)head * view->head_bytes;
    return ((const float *)(const void *)(base + view->scales_offset))[t % KV_BLOCK + is_v * KV_BLOCK];
}

static float value_at(const KvView *view, int head, int t, bool is_v, int d) {
    const char *at = place(view, head, t, is_v, d);
    if (view->type == KV_DTYPE_Q8) return (float)*(const int8_t *)at * scale_at(view, head, t, is_v);
    float f;
    uint16_t half;
    if (view->type == KV_DTYPE_F32) {
        memcpy(&f, at, sizeof f);
        return f;
    }
    memcpy(&half, at, sizeof half);
    uint32_t bits = (uint32_t)half << 16;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint64_t head_bytes(const Shape *s) { // of a block, in whole cache lines
    uint64_t each = (uint64_t)value_bytes(s->type), values = (uint64_t)(whole_words(s->type, s->k_dim) + s->v_dim);
    return (KV_BLOCK * (values * each + (s->type == KV_DTYPE_Q8 ? 8 : 0)) + 63) / 64 * 64;
}

static uint64_t block_bytes(const Shape *s) { // of a layer
    return (uint64_t)s->n_kv_heads * head_bytes(s);
}

// Ones where the pads of the keys of the next n tokens will be.
static void soil_pads(const Pair *p, int layer, int n) {
    KvView view = view_of(p, layer);
    int kd = view.k_dim, pads = whole_words(view.type, kd) - kd;
    for (int i = 0; i < n * view.n_kv_heads * pads; i++) {
        int pad = i % pads, h = i / pads % view.n_kv_heads, t = i / pads / view.n_kv_heads;
        memset(place(&view, h, p->length + t, false, kd + pad), 0xff, (size_t)value_bytes(view.type));
    }
}

// The last head first, and of each the rows' second half first: threads come in any order.
static void store_heads(KvCache *cache, const Shape *s, int n, KvRows all) {
    for (int h = s->n_kv_heads - 1; h >= 0; h--) {
        KvRows rows = all, later;
        rows.k += h * s->k_dim;
        rows.v += h * s->v_dim;
        later = rows;
        later.k += n / 2 * rows.k_ld;
        later.v += n / 2 * rows.v_ld;
        kvcache_store_head(cache, h, n / 2, n - n / 2, &later);
        kvcache_store_head(cache, h, 0, n / 2, &rows);
    }
}

// n tokens of random rows in one layer; whole rows or a head at a time from a wider array (the way threads do).
static void store_layer(Pair *p, int layer, int n, bool by_head) {
    const Shape *s = &p->shape;
    int k_row = s->n_kv_heads * s->k_dim, v_row = s->n_kv_heads * s->v_dim, gap = by_head ? v_row + 3 : 0;
    int k_ld = k_row + gap, v_ld = v_row + 2 * gap;
    float *k = need_floats((int64_t)n * k_ld), *v = need_floats((int64_t)n * v_ld);
    KvCache *cache = memory_cache(&p->m, layer);
    for (int64_t i = 0; i < (int64_t)n * k_ld; i++) k[i] = ldexpf(test_uniform(), pick(12) - 6);
    for (int64_t i = 0; i < (int64_t)n * v_ld; i++) v[i] = ldexpf(test_uniform(), pick(12) - 6);
    soil_pads(p, layer, n);
    if (by_head) store_heads(cache, s, n, (KvRows){.k = k, .v = v, .k_ld = k_ld, .v_ld = v_ld});
    else kvcache_store(cache, NULL, n, k, v);
    for (int t = 0; t < n; t++) {
        int64_t token = (int64_t)layer * MAX_TOKENS + p->length + t;
        for (int h = 0; h < s->n_kv_heads; h++) {
            stored(s->type, p->k + token * k_row + h * s->k_dim, k + t * k_ld + h * s->k_dim, s->k_dim);
            stored(s->type, p->v + token * v_row + h * s->v_dim, v + t * v_ld + h * s->v_dim, s->v_dim);
        }
    }
    free(k);
    free(v);
}

static void pair_store(Pair *p, int n, bool by_head) {
    for (int layer = 0; layer < p->shape.n_layers; layer++) store_layer(p, layer, n, by_head);
}

static void pair_append(Pair *p, int n, bool by_head) {
    char err[200] = "";
    CHECK(!memory_reserve(&p->m, n, err, sizeof err), "reserve %d at %d: %s", n, p->length, err);
    pair_store(p, n, by_head);
    memory_advance(&p->m, n);
    p->length += n;
    CHECK(memory_length(&p->m) == p->length, "length %d, expected %d", memory_length(&p->m), p->length);
}

// ---- reading

static bool token_reads_back(const Pair *p, const KvView *view, int layer, int t) {
    if (!view->blocks[t / KV_BLOCK]) return false;
    int kd = p->shape.k_dim, vd = p->shape.v_dim;
    for (int h = 0; h < p->shape.n_kv_heads; h++) {
        int64_t vector = ((int64_t)layer * MAX_TOKENS + t) * p->shape.n_kv_heads + h;
        for (int d = 0; d < kd; d++) {
            if (value_at(view, h, t, false, d) != p->k[vector * kd + d]) return false;
        }
        for (int d = 0; d < vd; d++) {
            if (value_at(view, h, t, true, d) != p->v[vector * vd + d]) return false;
        }
        int first = vd / 3, width = vd - first, n = (t + 1) % KV_BLOCK && t + 1 < p->length ? 2 : 1;
        float *read = need_floats(n * width);
        bool same = true;
        kvview_values(view, h, t, n, first, width, read);
        for (int i = 0; i < n * width; i++) {
            int64_t token = vector + i / width * p->shape.n_kv_heads;
            same &= read[i] == p->v[token * vd + first + i % width];
        }
        free(read);
        if (!same) return false;
        for (int d = kd; d < whole_words(view->type, kd); d++) {
            if (memcmp(place(view, h, t, false, d), "\0\0\0", (size_t)value_bytes(view->type)) != 0) return false;
        }
    }
    return true;
}

static bool token_needed(const Pair *p, int layer, int t, int query) { // by a query at that position
    int window = window_of(&p->shape, layer);
    return window == 0 || t > query - window || t < p->shape.n_sinks;
}

static int held_blocks(const Pair *p, int layer, int n_tokens) {
    KvView view = view_of(p, layer);
    int n = 0;
    for (int b = 0; b * KV_BLOCK < n_tokens; b++) n += view.blocks[b] != NULL;
    return n;
}

static uint64_t token_bytes(const Shape *s) { // K and V of one token in a layer; Q8 has two scales of 4 bytes beside
    int vectors = (s->k_dim + s->v_dim) * value_bytes(s->type) + (s->type == KV_DTYPE_Q8 ? 8 : 0);
    return (uint64_t)(s->n_kv_heads * vectors);
}

static uint64_t visible_bytes(const Pair *p) { // K and V that a query behind the last token and its sinks read
    uint64_t n = 0;
    for (int layer = 0; layer < p->shape.n_layers; layer++) {
        int window = window_of(&p->shape, layer);
        for (int t = 0; t < p->length; t++) {
            n += !window || t >= p->length - window || t < p->shape.n_sinks;
        }
    }
    return n * token_bytes(&p->shape);
}

static void check_bytes(const Pair *p, const char *when) {
    uint64_t held = 0, bytes = memory_kv_bytes(&p->m), reads = memory_token_bytes(&p->m), visible = visible_bytes(p);
    for (int layer = 0; layer < p->shape.n_layers; layer++) held += (uint64_t)held_blocks(p, layer, p->length);
    CHECK(bytes == held * block_bytes(&p->shape), "%s: %llu blocks of %llu bytes hold %llu bytes", when,
          (unsigned long long)held, (unsigned long long)block_bytes(&p->shape), (unsigned long long)bytes);
    CHECK(reads == visible, "%s: %d tokens, a token reads %llu bytes, visible are %llu", when, p->length,
          (unsigned long long)reads, (unsigned long long)visible);
}

// Everything that a query at position `length` may see is there and right, and the bytes are those of the blocks.
// Returns the tokens checked.
static int pair_check(const Pair *p, const char *when) {
    int n = 0;
    for (int layer = 0; layer < p->shape.n_layers; layer++) {
        KvView view = view_of(p, layer);
        CHECK(view.type == p->shape.type && view.n_kv_heads == p->shape.n_kv_heads && view.k_dim == p->shape.k_dim &&
                  view.v_dim == p->shape.v_dim,
              "%s: the view has another shape", when);
        for (int t = 0; t < p->length; t++) {
            if (!token_needed(p, layer, t, p->length)) continue;
            CHECK(token_reads_back(p, &view, layer, t), "%s: layer %d token %d of %d (window %d sinks %d) %s", when,
                  layer, t, p->length, window_of(&p->shape, layer), p->shape.n_sinks,
                  view.blocks[t / KV_BLOCK] ? "reads back wrong" : "was let go");
            n++;
        }
    }
    check_bytes(p, when);
    return n;
}

// ---- tests

static const Shape shapes[] = {
    {.n_layers = 2, .n_kv_heads = 2, .k_dim = 64, .v_dim = 64, .type = KV_DTYPE_F32},
    {.n_layers = 1, .n_kv_heads = 1, .k_dim = 2, .v_dim = 2, .type = KV_DTYPE_BF16},
    {.n_layers = 3, .n_kv_heads = 3, .k_dim = 7, .v_dim = 7, .type = KV_DTYPE_BF16},
    {.n_layers = 2, .n_kv_heads = 5, .k_dim = 20, .v_dim = 20, .type = KV_DTYPE_F32},
    {.n_layers = 1, .n_kv_heads = 8, .k_dim = 128, .v_dim = 128, .type = KV_DTYPE_BF16},
    {.n_layers = 2, .n_kv_heads = 3, .k_dim = 7, .v_dim = 7, .type = KV_DTYPE_Q8},
    {.n_layers = 1, .n_kv_heads = 2, .k_dim = 64, .v_dim = 64, .type = KV_DTYPE_Q8},
    {.n_layers = 3, .n_kv_heads = 1, .k_dim = 80, .v_dim = 80, .type = KV_DTYPE_Q8},
    {.n_layers = 1, .n_kv_heads = 2, .k_dim = 3, .v_dim = 3, .type = KV_DTYPE_Q8},
    {.n_layers = 2, .n_kv_heads = 1, .k_dim = 5, .v_dim = 5, .type = KV_DTYPE_Q8},
    {.n_layers = 1, .n_kv_heads = 3, .k_dim = 6, .v_dim = 6, .type = KV_DTYPE_Q8},
    {.n_layers = 2, .n_kv_heads = 2, .k_dim = 1, .v_dim = 1, .type = KV_DTYPE_BF16},
    {.n_layers = 1, .n_kv_heads = 1, .k_dim = 33, .v_dim = 33, .type = KV_DTYPE_BF16},
    {.n_layers = 2, .n_kv_heads = 2, .k_dim = 24, .v_dim = 10, .type = KV_DTYPE_F32},
    {.n_layers = 1, .n_kv_heads = 3, .k_dim = 5, .v_dim = 64, .type = KV_DTYPE_BF16},
    {.n_layers = 2, .n_kv_heads = 2, .k_dim = 18, .v_dim = 7, .type = KV_DTYPE_Q8},
};

static void check_offsets(const Pair *p) {
    KvView view = view_of(p, 0);
    KvDType type = p->shape.type;
    int kd = p->shape.k_dim, vd = p->shape.v_dim, bytes = value_bytes(type);
    const char *name = kv_dtype_name(type);
    size_t k = (size_t)(KV_BLOCK * whole_words(type, kd) * bytes), v = (size_t)(KV_BLOCK * vd * bytes);
    CHECK(view.word == 4 / bytes && view.word * view.key_words == whole_words(type, kd),
          "%s, k_dim %d: %d values to a word, %d words to a key", name, kd, view.word, view.key_words);
    CHECK(kv_value_bytes(type) == (size_t)bytes, "%s: %zu bytes", name, kv_value_bytes(type));
    CHECK(kv_token_bytes(type, kd, vd) * (size_t)p->shape.n_kv_heads == token_bytes(&p->shape),
          "a token of %d: %zu bytes", kd, kv_token_bytes(type, kd, vd));
    CHECK(view.v_offset == k, "%s, k_dim %d: v_offset %zu, expected %zu", name, kd, view.v_offset, k);
    CHECK(type != KV_DTYPE_Q8 || view.scales_offset == k + v, "k_dim %d: scales_offset %zu, expected %zu", kd,
          view.scales_offset, k + v);
    CHECK(view.head_bytes == head_bytes(&p->shape), "%s, k_dim %d: head_bytes %zu, expected %llu", name, kd,
          view.head_bytes, (unsigned long long)head_bytes(&p->shape));
}

// A panel's room behind each block; a sanitizer sees where there is none.
static void read_behind_blocks(const Pair *p) {
    for (int layer = 0; layer < p->shape.n_layers; layer++) {
        KvView view = view_of(p, layer);
        for (int b = 0; b * KV_BLOCK < p->length; b++) {
            const volatile char *end = (const char *)view.blocks[b] + (size_t)view.n_kv_heads * view.head_bytes;
            for (int i = 0; i < MAX_PANEL * 4; i++) (void)end[i];
        }
    }
}

static void layout(void) {
    static const int parts[] = {1, 2, 30, 1, 31, 64, 127, 1, 255, 256, 257, 3};
    for (int s = 0; s < N_OF(shapes); s++) {
        Pair p = pair_open(shapes[s]);
        check_offsets(&p);
        for (int i = 0; i < N_OF(parts); i++) pair_append(&p, parts[i], (i + s) % 2);
        CHECK(pair_check(&p, "after appending") == p.shape.n_layers * p.length, "not everything was checked");
        read_behind_blocks(&p);
        pair_close(&p);
    }
}

static void bf16_rounding(void) { // to nearest, ties to even, at every place of K and V
    Shape shape = {.n_layers = 1, .n_kv_heads = 1, .k_dim = 16, .v_dim = 16, .type = KV_DTYPE_BF16};
    Pair p = pair_open(shape);
    char err[200] = "";
    float rows[2 * 16 * 40];
    CHECK(!memory_reserve(&p.m, 40, err, sizeof err), "reserve: %s", err);
    for (int i = 0; i < N_OF(rows); i++) {
        uint32_t low[] = {0, 0x7fff, 0x8000, 0x8001, 0xffff, 0x18000, 0x17fff, 0x1};
        uint32_t sign = (uint32_t)pick(2) << 31, high = (uint32_t)(pick(1 << 10) << 17);
        uint32_t bits = sign | (0x38000000u + high + low[pick(N_OF(low))]);
        memcpy(&rows[i], &bits, sizeof bits);
    }
    kvcache_store(memory_cache(&p.m, 0), NULL, 40, rows, rows + 16 * 40);
    memory_advance(&p.m, 40);
    p.length = 40;
    for (int i = 0; i < 16 * 40; i++) {
        p.k[i] = bf16_nearest(rows[i]);
        p.v[i] = bf16_nearest(rows[16 * 40 + i]);
    }
    pair_check(&p, "rounding");
    pair_close(&p);
}

// The scale is that of the largest, which becomes 127; the others are within half of it, ties at the even number.
static void q8_check(const KvView *view, int t, bool is_v, const float *x) {
    int hd = view->k_dim;
    float scale = scale_at(view, 0, t, is_v), most = 0;
    for (int d = 0; d < hd; d++) most = fmaxf(most, fabsf(x[d]));
    CHECK(scale == most / 127, "token %d: scale %.9g, expected %.9g", t, (double)scale, (double)(most / 127));
    for (int d = 0; d < hd; d++) {
        double steps = most > 0 ? (double)x[d] / (double)scale : 0, found = *(const int8_t *)place(view, 0, t, is_v, d);
        CHECK(fabs(found - steps) <= 0.5 + 1e-5 && fabs(found) <= 127, "token %d: %.9g steps became %g", t, steps,
              found);
        CHECK(fabsf(x[d]) < most || fabs(found) == (most > 0 ? 127 : 0), "token %d: the largest became %g", t, found);
        bool tie = steps == floor(steps) + 0.5;
        CHECK(!tie || fmod(found, 2) == 0, "token %d: the tie %.9g became %g", t, steps, found);
    }
}

// Vectors of every size, of zeros, with one large value, of ties; wholes and halves of a scale that is exact.
static void q8_rounding(void) {
    enum { HD = 32, N = 300 };
    static const float sizes[] = {1, 1e-3f, 1e3f, 1e-20f, 1e20f, 1e30f};
    KvShape shape = {.n_kv_heads = 1, .k_dim = HD, .v_dim = HD, .type = KV_DTYPE_Q8};
    char err[200] = "";
    KvCache *c = kvcache_open(&shape, NULL, err, sizeof err);
    CHECK(c && !kvcache_reserve(c, N), "%s", err);
    if (!c) return;
    float *rows = need_floats(2 * N * HD);
    for (int i = 0; i < 2 * N; i++) {
        float *x = rows + i * HD;
        for (int d = 0; d < HD; d++) x[d] = test_uniform() * sizes[i % N_OF(sizes)];
        if (i % 5 == 1) { // halves
            for (int d = 0; d < HD; d++) x[d] = (float)(pick(509) - 254) / 2;
        }
        if (i % 5 == 1) x[pick(HD)] = pick(2) ? 127 : -127;
        if (i % 5 == 2) x[pick(HD)] *= 1e6f;
        if (i % 25 == 3) memset(x, 0, sizeof *x * HD);
    }
    kvcache_store(c, NULL, N, rows, rows + N * HD);
    kvcache_advance(c, N);
    KvView view = kvcache_view(c);
    for (int i = 0; i < 2 * N; i++) q8_check(&view, i % N, i >= N, rows + i * HD);
    free(rows);
    kvcache_close(c);
}

// What is no number stays none; what is too small for a scale becomes zero.
static void q8_of_no_number(void) {
    enum { HD = 8, N = 4 };
    const float odd[N] = {NAN, INFINITY, -INFINITY, 1e-37f};
    KvShape shape = {.n_kv_heads = 1, .k_dim = HD, .v_dim = HD, .type = KV_DTYPE_Q8};
    char err[200] = "";
    KvCache *c = kvcache_open(&shape, NULL, err, sizeof err);
    CHECK(c && !kvcache_reserve(c, N), "%s", err);
    if (!c) return;
    float rows[N * HD] = {0};
    for (int i = 0; i < N; i++) rows[i * HD + i] = odd[i];
    kvcache_store(c, NULL, N, rows, rows);
    kvcache_advance(c, N);
    KvView view = kvcache_view(c);
    for (int i = 0; i < 2 * N; i++) {
        int t = i % N;
        float scale = scale_at(&view, 0, t, i >= N), found = value_at(&view, 0, t, i >= N, t);
        if (t < 3) CHECK(isnan(scale), "a vector with %g: scale %g", (double)odd[t], (double)scale);
        else CHECK(found == 0, "a vector of %g is %g", (double)odd[t], (double)found);
    }
    kvcache_close(c);
}

static void growth_moves_nothing(void) {
    static const int some[] = {0, 1, 5, 6, 8};
    for (int i = 0; i < N_OF(some); i++) {
        int s = some[i];
        Pair p = pair_open(shapes[s]);
        CHECK(memory_length(&p.m) == 0 && memory_kv_bytes(&p.m) == 0, "an empty cache holds %llu bytes",
              (unsigned long long)memory_kv_bytes(&p.m));
        const void *seen[MAX_TOKENS / KV_BLOCK + 1] = {0};
        while (p.length + 300 < MAX_TOKENS) {
            pair_append(&p, 1 + pick(300), pick(2));
            KvView view = view_of(&p, p.shape.n_layers - 1);
            for (int b = 0; b * KV_BLOCK < p.length; b++) {
                CHECK(!seen[b] || seen[b] == view.blocks[b], "block %d moved", b);
                seen[b] = view.blocks[b];
            }
            check_bytes(&p, "growing");
        }
        pair_check(&p, "after growth");
        pair_close(&p);
    }
}

static void reserve_is_not_length(void) { // reserving twice, or too much, stores nothing
    Pair p = pair_open(shapes[0]);
    char err[200] = "";
    pair_append(&p, 100, false);
    uint64_t bytes = memory_kv_bytes(&p.m);
    CHECK(!memory_reserve(&p.m, 0, err, sizeof err), "reserve 0: %s", err);
    CHECK(!memory_reserve(&p.m, 100, err, sizeof err) && memory_kv_bytes(&p.m) == bytes,
          "the block had room for 100 more");
    for (int i = 0; i < 3; i++) CHECK(!memory_reserve(&p.m, 700, err, sizeof err), "reserve 700: %s", err);
    CHECK(memory_kv_bytes(&p.m) <= bytes * 4, "reserving the same again takes memory again: %llu of %llu bytes",
          (unsigned long long)memory_kv_bytes(&p.m), (unsigned long long)bytes * 4);
    CHECK(memory_length(&p.m) == 100, "reserve changed the length to %d", memory_length(&p.m));
    pair_append(&p, 700, true);
    pair_check(&p, "after reserving more than once");
    pair_close(&p);
}

// ---- window

// Bytes that a window and its sinks may hold: the blocks that they can touch.
static uint64_t window_limit(const Shape *s) {
    int sink_blocks = (s->n_sinks + KV_BLOCK - 1) / KV_BLOCK;
    int blocks = (s->window + KV_BLOCK - 2) / KV_BLOCK + 1 + sink_blocks;
    return (uint64_t)(blocks * s->n_layers) * block_bytes(s);
}

static void window_by_token(int window, int n_sinks, int s) {
    Shape shape = shapes[s];
    shape.window = window;
    shape.n_sinks = n_sinks;
    Pair p = pair_open(shape);
    uint64_t settled = 0, at_most = 0; // most bytes in the first round over a block, and ever after
    int sink_blocks = (n_sinks + KV_BLOCK - 1) / KV_BLOCK;
    int settle = (window / KV_BLOCK + 1 + sink_blocks) * KV_BLOCK; // 512 for a window of 256
    int n = quick() ? settle + 3 * KV_BLOCK : MAX_TOKENS;
    while (p.length < n) {
        pair_append(&p, 1, p.length % 2);
        uint64_t bytes = memory_kv_bytes(&p.m);
        if (p.length >= settle && bytes > at_most) at_most = bytes;
        if (p.length == settle + KV_BLOCK) settled = at_most;
        if (p.length % 97 == 0 || p.length % KV_BLOCK < 2) pair_check(&p, "window, token by token");
    }
    CHECK(at_most == settled, "window %d sinks %d: bytes grow from %llu to %llu", window, n_sinks,
          (unsigned long long)settled, (unsigned long long)at_most);
    CHECK(at_most <= window_limit(&shape), "window %d sinks %d: %llu bytes, expected at most %llu", window, n_sinks,
          (unsigned long long)at_most, (unsigned long long)window_limit(&shape));
    pair_close(&p);
}

static void window_frees(void) {
    window_by_token(256, 0, 0);
    window_by_token(1, 0, 1);
    window_by_token(5, 1, 2);
    window_by_token(300, 4, 3);
    window_by_token(64, 300, 2); // sinks of more than a block
    window_by_token(257, 256, 1);
    window_by_token(300, 4, 5);
    window_by_token(64, 4, 9);
}

static void window_in_chunks(void) { // prefill: nothing that the chunk itself still needs may go
    for (int round = 0; round < N_OF(shapes); round++) {
        Shape shape = shapes[round];
        shape.window = 1 + pick(400);
        shape.n_sinks = round % 2 * pick(40);
        Pair p = pair_open(shape);
        char err[200] = "";
        while (p.length + 700 < MAX_TOKENS) {
            int n = 1 + pick(700), begin = p.length;
            CHECK(!memory_reserve(&p.m, n, err, sizeof err), "reserve %d: %s", n, err);
            pair_store(&p, n, pick(2));
            KvView view = view_of(&p, 0);
            int needed = 0, right = 0; // the keys of the chunk's first query, while the chunk is being attended to
            for (int t = 0; t < begin + n; t++) {
                if (!token_needed(&p, 0, t, begin)) continue;
                needed++;
                right += token_reads_back(&p, &view, 0, t);
            }
            CHECK(right == needed, "window %d sinks %d, %d tokens at %d: %d of %d keys are there", shape.window,
                  shape.n_sinks, n, begin, right, needed);
            memory_advance(&p.m, n);
            p.length += n;
            pair_check(&p, "window, in chunks");
        }
        pair_close(&p);
    }
}

// ---- a window of its own for each layer

enum { MOST_LAYERS = 6 };

static const struct {
    int n_layers, windows[MOST_LAYERS], n_sinks;
} mixtures[] = {
    {3, {0, 5, 0}, 0}, {6, {9, 9, 9, 9, 9, 0}, 0},     {3, {256, 0, 1}, 0}, {2, {300, 700}, 4}, {4, {0, 1, 512, 2}, 1},
    {3, {0, 0, 0}, 7}, {5, {257, 255, 256, 0, 3}, 300}};

static Shape mixed_shape(int i) {
    Shape shape = shapes[i % N_OF(shapes)];
    shape.n_layers = mixtures[i].n_layers;
    shape.windows = mixtures[i].windows;
    shape.n_sinks = mixtures[i].n_sinks;
    return shape;
}

// The blocks that a layer keeps of a text of this length: those that the next query or a sink touches.
static int kept_blocks(const Shape *s, int layer, int length) {
    int n = 0, window = window_of(s, layer), n_blocks = (length + KV_BLOCK - 1) / KV_BLOCK;
    for (int b = 0; b < n_blocks; b++) {
        n += !window || b * KV_BLOCK < s->n_sinks || (b + 1) * KV_BLOCK - 1 > length - window;
    }
    return n;
}

static void held_by_all(const Pair *p, bool exactly, const char *when) {
    for (int layer = 0; layer < p->shape.n_layers; layer++) {
        int held = held_blocks(p, layer, p->length), kept = kept_blocks(&p->shape, layer, p->length);
        CHECK(exactly ? held == kept : held <= kept, "%s: layer %d of window %d, %d tokens: %d blocks, expected %d",
              when, layer, window_of(&p->shape, layer), p->length, held, kept);
    }
}

static void windows_of_layers(void) {
    for (int i = 0; i < N_OF(mixtures); i++) {
        Pair p = pair_open(mixed_shape(i));
        while (p.length + 300 < MAX_TOKENS) {
            pair_append(&p, pick(4) ? 1 + pick(300) : KV_BLOCK - p.length % KV_BLOCK, pick(2));
            held_by_all(&p, true, "mixed windows");
            pair_check(&p, "mixed windows");
        }
        for (int layer = 0; layer < p.shape.n_layers; layer++) {
            int window = window_of(&p.shape, layer), held = held_blocks(&p, layer, p.length);
            int limit = (window + KV_BLOCK - 2) / KV_BLOCK + 1 + (p.shape.n_sinks + KV_BLOCK - 1) / KV_BLOCK;
            CHECK(!window || held <= limit, "layer of window %d holds %d blocks of %d tokens", window, held, p.length);
            CHECK(kvcache_window(memory_cache(&p.m, layer)) == window, "layer %d tells a window of %d", layer,
                  kvcache_window(memory_cache(&p.m, layer)));
        }
        pair_close(&p);
    }
}

// ---- truncate

static void truncate_is_exact(void) {
    static const int keeps[] = {1, 31, 32, 33, 255, 256, 257, 300, 511, 512, 640, 0};
    for (int s = 0; s < N_OF(shapes); s++) {
        Pair p = pair_open(shapes[s]);
        for (int i = 0; i < N_OF(keeps); i++) {
            pair_append(&p, 700 - p.length, i % 2);
            CHECK(memory_truncate(&p.m, 700) == 700 && memory_length(&p.m) == 700, "truncating to the length");
            uint64_t before = memory_kv_bytes(&p.m);
            CHECK(memory_truncate(&p.m, keeps[i]) == keeps[i] && memory_length(&p.m) == keeps[i], "keep %d: %d",
                  keeps[i], memory_length(&p.m));
            p.length = keeps[i];
            CHECK(memory_kv_bytes(&p.m) <= before, "keep %d: more bytes than before", keeps[i]);
            pair_check(&p, "after truncate");
            pair_append(&p, 1, true);
            pair_append(&p, 40, false); // over the edge of a group
            pair_check(&p, "after truncate and other rows");
        }
        pair_close(&p);
    }
}

// The keys that a query at position n would need are all held, and so is the block that position n continues.
static bool could_keep(const Pair *p, int n) {
    for (int layer = 0; layer < p->shape.n_layers; layer++) {
        KvView view = view_of(p, layer);
        if (n % KV_BLOCK && !view.blocks[n / KV_BLOCK]) return false;
        for (int t = 0; t < n; t++) {
            if (token_needed(p, layer, t, n) && !view.blocks[t / KV_BLOCK]) return false;
        }
    }
    return true;
}

// Again and again in one cache, whose rings must not remember: to anywhere, near the end, at blocks' edges. Whether
// some were kept and some lost.
static bool truncate_at_random(Shape shape, int rounds, const char *what) {
    int n_kept = 0, n_lost = 0, widest = 0;
    for (int layer = 0; layer < shape.n_layers; layer++) {
        if (window_of(&shape, layer) > widest) widest = window_of(&shape, layer);
    }
    for (int round = 0; round < rounds; round++) {
        Pair p = pair_open(shape);
        for (int turn = 0; turn < 3; turn++) {
            pair_append(&p, 1 + pick(900), pick(2));
            int n = pick(3) ? pick(p.length + 1) : p.length - pick(p.length < 20 ? p.length : 20);
            if (pick(3) == 0) n -= n % KV_BLOCK;
            if (pick(3) == 0) n += KV_BLOCK - n % KV_BLOCK + widest - 2 + pick(3); // a window that begins at a block
            if (n > p.length) n = p.length;
            bool could = could_keep(&p, n);
            int kept = memory_truncate(&p.m, n);
            CHECK(kept == (could ? n : 0), "%s: truncate %d to %d gives %d, the keys were %s", what, p.length, n, kept,
                  could ? "held" : "gone");
            CHECK(memory_length(&p.m) == kept, "truncate returns %d, the length is %d", kept, memory_length(&p.m));
            p.length = memory_length(&p.m);
            held_by_all(&p, false, what);
            pair_check(&p, what);
            n_kept += kept > 0;
            n_lost += n > 0 && kept == 0;
        }
        for (int i = 0; i < 600 && p.length < MAX_TOKENS; i++) pair_append(&p, 1, i % 2);
        pair_check(&p, what);
        held_by_all(&p, false, what);
        pair_close(&p);
    }
    return n_kept && n_lost;
}

static void truncate_after_eviction(void) {
    static const int cases[][3] = {{256, 0, 1}, {1, 0, 1}, {1, 1, 1}, {5, 0, 2}, {64, 4, 1}, {100, 300, 2}, {64, 4, 5}};
    for (int i = 0; i < N_OF(cases); i++) {
        char what[60];
        Shape shape = shapes[cases[i][2]];
        shape.window = cases[i][0];
        shape.n_sinks = cases[i][1];
        snprintf(what, sizeof what, "window %d sinks %d, truncated", shape.window, shape.n_sinks);
        bool both = truncate_at_random(shape, by_speed(60, 5, 2), what);
        CHECK(both || quick(), "%s: one side was not tested", what);
    }
    bool both = false;
    for (int i = 0; i < N_OF(mixtures); i++)
        both |= truncate_at_random(mixed_shape(i), by_speed(8, 2, 2), "mixed windows");
    CHECK(both, "mixed windows: one side was not tested");

    Shape shape = shapes[1]; // the plain case, spelled out
    shape.window = 100;
    Pair p = pair_open(shape);
    pair_append(&p, 1000, false);
    CHECK(held_blocks(&p, 0, 1000) == 1, "window 100 of 1000 tokens holds %d blocks", held_blocks(&p, 0, 1000));
    CHECK(memory_truncate(&p.m, 990) == 990, "rewinding a little keeps");
    CHECK(memory_truncate(&p.m, 300) == 0 && memory_length(&p.m) == 0, "rewinding behind the window starts over");
    p.length = 0;
    pair_append(&p, 400, true);
    pair_check(&p, "after starting over");
    pair_close(&p);
}

// ---- out of memory

enum { ROOM = 64 << 20 };

static void out_of_memory_child(void) {
    Shape shape = {.n_layers = 3, .n_kv_heads = 4, .k_dim = 64, .v_dim = 64, .type = KV_DTYPE_F32}; // 1.5 MiB a block
    Pair p = pair_open(shape);
    pair_append(&p, 500, false);
    limit_memory(ROOM);
    static const int sizes[] = {INT_MAX, INT_MAX - 500, 1 << 30, 1 << 22, 100000, 20000};
    const void *const *blocks[3];
    const void *first[3];
    for (int i = 0; i < N_OF(sizes); i++) {
        uint64_t bytes = memory_kv_bytes(&p.m);
        for (int layer = 0; layer < 3; layer++) {
            blocks[layer] = (const void *const *)view_of(&p, layer).blocks;
            first[layer] = blocks[layer][0];
        }
        char err[200] = "";
        CHECK(memory_reserve(&p.m, sizes[i], err, sizeof err) == -1, "reserve %d in 64 MiB", sizes[i]);
        CHECK(one_line(err), "reserve %d: no line of text: \"%s\"", sizes[i], err);
        CHECK(memory_kv_bytes(&p.m) == bytes, "a failed reserve %d changed the bytes from %llu to %llu", sizes[i],
              (unsigned long long)bytes, (unsigned long long)memory_kv_bytes(&p.m));
        CHECK(memory_length(&p.m) == p.length, "a failed reserve changed the length");
        for (int layer = 0; layer < 3; layer++) {
            CHECK(view_of(&p, layer).blocks[0] == first[layer], "a failed reserve moved layer %d", layer);
        }
        pair_check(&p, "after a failed reserve");
        pair_append(&p, 1, false); // and it goes on
    }
    int n_steps = 0;
    char err[200] = "";
    while (p.length + 256 < MAX_TOKENS && !memory_reserve(&p.m, 256, err, sizeof err)) { // to the very end, by blocks
        pair_append(&p, 256, false);
        if (++n_steps > 100) break;
    }
    pair_check(&p, "after filling the memory");
    pair_close(&p);
}

static void out_of_memory(void) {
    in_little_memory(out_of_memory_child);
}

static void closing(void) {
    kvcache_close(NULL);
    memory_close(&(Memory){0});
    Pair p = pair_open(shapes[0]);
    char err[200] = "";
    CHECK(!memory_reserve(&p.m, 300, err, sizeof err), "reserve: %s", err);
    pair_close(&p); // reserved, nothing stored
}

int main(void) {
    RUN(layout);
    RUN(bf16_rounding);
    RUN(q8_rounding);
    RUN(q8_of_no_number);
    RUN(growth_moves_nothing);
    RUN(reserve_is_not_length);
    RUN(window_frees);
    RUN(window_in_chunks);
    RUN(truncate_is_exact);
    RUN(truncate_after_eviction);
    RUN(windows_of_layers);
    RUN(out_of_memory);
    RUN(closing);
    return test_report();
}
