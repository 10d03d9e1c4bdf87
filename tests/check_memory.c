// check_memory: what timelines remember over layers that differ in heads, widths and windows: every value where a query
// may see it, windows that the caller narrows, room that is kept, memory that runs out in any layer, and one pool for
// several timelines and threads. The caches themselves are check_kvcache's.
#include "reference.h"

#include "layer_memory.h"

#include <pthread.h>
#include <stdatomic.h>

enum { N_LAYERS = 5, MAX_TOKENS = 2000 };

static Config model(void) {
    Config c = {.n_layers = N_LAYERS, .n_kinds = 3, .kind_of = {0, 1, 2, 0, 1}};
    c.kinds[0] = (LayerKind){.n_heads = 2, .n_kv_heads = 2, .k_dim = 8, .v_dim = 4};
    c.kinds[1] = (LayerKind){.n_heads = 4, .n_kv_heads = 1, .k_dim = 20, .v_dim = 32, .window = 10};
    c.kinds[2] = (LayerKind){.n_heads = 3, .n_kv_heads = 3, .k_dim = 5, .v_dim = 7, .window = 300};
    return c;
}

// A timeline of fp32 and what its tokens are.
typedef struct {
    Config config;
    Memory m;
    int texts[MAX_TOKENS]; // which text a token is of
} Timeline;

static bool timeline_open(Timeline *t, const MemoryOptions *options, KvPool *pool) {
    char err[200] = "";
    t->config = model();
    bool open = !memory_open(&t->m, &t->config, options, pool, err, sizeof err);
    CHECK(open, "memory_open: %s", err);
    return open;
}

static const MemoryOptions plain = {.kv = KV_DTYPE_F32, .n_ctx = MAX_TOKENS};

// ---- rows whose values say where they belong

static float value(int text, int layer, int token, int head, bool is_v, int d) {
    uint32_t place = (uint32_t)((((text * N_LAYERS + layer) * MAX_TOKENS + token) * 4 + head) * 2 + is_v);
    return (float)((place * 64 + (uint32_t)d) * 2654435761u >> 8);
}

static float *make_rows(int text, int layer, int first, int n, int n_heads, bool is_v, int dim) {
    float *rows = need_floats((int64_t)n * n_heads * dim);
    for (int i = 0; i < n * n_heads * dim; i++) {
        rows[i] = value(text, layer, first + i / dim / n_heads, i / dim % n_heads, is_v, i % dim);
    }
    return rows;
}

static void store(Timeline *t, int text, int n) {
    int first = memory_length(&t->m);
    for (int layer = 0; layer < N_LAYERS; layer++) {
        const LayerKind *kind = config_kind(&t->config, layer);
        float *k = make_rows(text, layer, first, n, kind->n_kv_heads, false, kind->k_dim);
        float *v = make_rows(text, layer, first, n, kind->n_kv_heads, true, kind->v_dim);
        kvcache_store(memory_cache(&t->m, layer), NULL, n, k, v);
        free(k);
        free(v);
    }
    for (int i = 0; i < n; i++) t->texts[first + i] = text;
    memory_advance(&t->m, n);
}

static bool append(Timeline *t, int text, int n) {
    char err[200] = "";
    if (memory_reserve(&t->m, n, err, sizeof err)) {
        CHECK(one_line(err), "no line of text: '%s'", err);
        return false;
    }
    store(t, text, n);
    return true;
}

static bool token_is_right(const Timeline *t, int layer, int token) {
    KvView view = kvcache_view(memory_cache(&t->m, layer));
    int slot = token % KV_BLOCK;
    const char *block = view.blocks[token / KV_BLOCK];
    if (!block) return false;
    for (int h = 0; h < view.n_kv_heads; h++) {
        const char *base = block + (size_t)h * view.head_bytes;
        const float *k = (const void *)base, *v = (const void *)(base + view.v_offset);
        for (int d = 0; d < view.k_dim; d++) {
            float found = k[(slot / KV_GROUP * view.k_dim + d) * KV_GROUP + slot % KV_GROUP];
            if (found != value(t->texts[token], layer, token, h, false, d)) return false;
        }
        for (int d = 0; d < view.v_dim; d++) {
            if (v[slot * view.v_dim + d] != value(t->texts[token], layer, token, h, true, d)) return false;
        }
    }
    return true;
}

// Every layer has its kind's shape, the same length, and what the next query and its sinks see.
static void check_timeline(const Timeline *t, const char *when) {
    int length = memory_length(&t->m);
    for (int layer = 0; layer < N_LAYERS; layer++) {
        const KvCache *cache = memory_cache(&t->m, layer);
        const LayerKind *kind = config_kind(&t->config, layer);
        KvView view = kvcache_view(cache);
        int window = kvcache_window(cache), n_wrong = 0;
        CHECK(view.n_kv_heads == kind->n_kv_heads && view.k_dim == kind->k_dim && view.v_dim == kind->v_dim,
              "%s: layer %d has another shape", when, layer);
        CHECK(kvcache_length(cache) == length, "%s: layer %d has %d tokens of %d", when, layer, kvcache_length(cache),
              length);
        for (int token = 0; token < length; token++) {
            bool seen = !window || token > length - window || token < kvcache_sinks(cache);
            n_wrong += seen && !token_is_right(t, layer, token);
        }
        CHECK(!n_wrong, "%s: layer %d of window %d: %d of %d tokens are not what they were", when, layer, window,
              n_wrong, length);
    }
}

// ---- the tests

static uint64_t block_bytes(const LayerKind *k) { // of fp32
    return (uint64_t)(k->n_kv_heads * KV_BLOCK * (k->k_dim + k->v_dim)) * sizeof(float);
}

static void layers_of_different_shapes(void) {
    static const int parts[] = {30, 1, 225, 300, 44, 500};
    Timeline t;
    if (!timeline_open(&t, &plain, NULL)) return;
    for (int i = 0; i < N_OF(parts); i++) {
        CHECK(append(&t, 1, parts[i]), "no memory for %d tokens", parts[i]);
        check_timeline(&t, "different shapes");
        uint64_t reads = 0, held = 0, length = (uint64_t)memory_length(&t.m);
        for (int layer = 0; layer < N_LAYERS; layer++) {
            const LayerKind *k = config_kind(&t.config, layer);
            uint64_t window = (uint64_t)k->window, n = window && length > window ? window : length;
            reads += n * (uint64_t)(k->n_kv_heads * (k->k_dim + k->v_dim)) * sizeof(float);
            held += kvcache_bytes(memory_cache(&t.m, layer));
            CHECK(kvcache_block_bytes(memory_cache(&t.m, layer)) == block_bytes(k), "layer %d: a block of %llu bytes",
                  layer, (unsigned long long)kvcache_block_bytes(memory_cache(&t.m, layer)));
        }
        CHECK(memory_token_bytes(&t.m) == reads, "%llu tokens: a token reads %llu bytes, expected %llu",
              (unsigned long long)length, (unsigned long long)memory_token_bytes(&t.m), (unsigned long long)reads);
        CHECK(memory_kv_bytes(&t.m) == held, "the layers' bytes are not the memory's");
    }
    CHECK(memory_truncate(&t.m, 1097) == 1097 && append(&t, 2, 200), "back by three tokens, and on");
    check_timeline(&t, "after another ending");
    CHECK(memory_truncate(&t.m, 100) == 0 && memory_length(&t.m) == 0, "behind a window: nothing is left");
    CHECK(append(&t, 3, 400), "from the start");
    check_timeline(&t, "from the start");
    memory_close(&t.m);
}

// The caller's window narrows those of the layers and gives one to the others; below 0 it takes them away.
static void callers_windows(void) {
    static const struct {
        int window, n_sinks, expected[3]; // by kind
    } cases[] = {{0, 0, {0, 10, 300}},       {50, 0, {50, 10, 50}},    {4, 3, {4, 4, 4}},
                 {1000, 0, {1000, 10, 300}}, {300, 1, {300, 10, 300}}, {-1, 0, {0, 0, 0}}};
    for (int i = 0; i < N_OF(cases); i++) {
        Timeline t;
        MemoryOptions options = plain;
        options.window = cases[i].window;
        options.n_sinks = cases[i].n_sinks;
        if (!timeline_open(&t, &options, NULL)) return;
        for (int layer = 0; layer < N_LAYERS; layer++) {
            const KvCache *cache = memory_cache(&t.m, layer);
            int expected = cases[i].expected[t.config.kind_of[layer]];
            CHECK(kvcache_window(cache) == expected && kvcache_sinks(cache) == cases[i].n_sinks,
                  "the caller's window %d: layer %d has %d, expected %d, and %d sinks", cases[i].window, layer,
                  kvcache_window(cache), expected, kvcache_sinks(cache));
        }
        for (int n = 0; n < 7; n++) CHECK(append(&t, i, 1 + 80 * n), "no memory");
        check_timeline(&t, "the caller's window");
        memory_close(&t.m);
    }
}

// An encoder's layers run one after the other and nobody reads them again: they share the first's cache.
static void one_cache_for_all(void) {
    Config c = model();
    c.n_kinds = 1;
    memset(c.kind_of, 0, sizeof c.kind_of);
    MemoryOptions options = plain;
    options.n_layers = 1;
    char err[200] = "";
    Memory m;
    CHECK(!memory_open(&m, &c, &options, NULL, err, sizeof err), "%s", err);
    for (int i = 0; i < N_LAYERS; i++) CHECK(memory_cache(&m, i) == memory_cache(&m, 0), "layer %d has its own", i);
    CHECK(!memory_reserve(&m, 300, err, sizeof err), "%s", err);
    CHECK(memory_kv_bytes(&m) == 2 * block_bytes(&c.kinds[0]), "%llu bytes", (unsigned long long)memory_kv_bytes(&m));
    memory_advance(&m, 300);
    CHECK(memory_length(&m) == 300, "%d tokens", memory_length(&m));
    memory_close(&m);
}

static void restarting_keeps_the_room(void) {
    Timeline t;
    MemoryOptions options = plain;
    options.window = -1;
    KvPool *pool = kvpool_open(0);
    if (!pool || !timeline_open(&t, &options, pool)) return;
    CHECK(append(&t, 1, 700), "no memory");
    uint64_t held = memory_kv_bytes(&t.m), taken = kvpool_bytes(pool);
    for (int text = 2; text < 5; text++) {
        const void *first = kvcache_view(memory_cache(&t.m, 2)).blocks[0];
        memory_restart(&t.m);
        CHECK(memory_length(&t.m) == 0 && memory_token_bytes(&t.m) == 0, "restarted at %d", memory_length(&t.m));
        CHECK(append(&t, text, 650 + text), "no memory");
        CHECK(kvcache_view(memory_cache(&t.m, 2)).blocks[0] == first, "text %d is in another block", text);
        CHECK(memory_kv_bytes(&t.m) == held && kvpool_bytes(pool) == taken, "text %d took more room", text);
        check_timeline(&t, "restarted");
    }
    memory_close(&t.m);
    CHECK(kvpool_bytes(pool) == 0, "closed: %llu bytes", (unsigned long long)kvpool_bytes(pool));
    kvpool_close(pool);
}

// ---- rotary frequencies

// A list of the file's for each of LongRoPE's contexts, of the kinds that are so scaled, and one for the others.
static void frequencies_of_kinds(void) {
    static const float all[] = {2, 2}, long_ctx[] = {3, 5}, short_ctx[] = {7, 11};
    Config c = model();
    c.kinds[0].rope = (RopeConfig){.rotary_dim = 4, .theta = 100};
    c.kinds[2].rope = c.kinds[0].rope;
    c.kinds[2].rope.scaling = (RopeScaling){.kind = ROPE_LONG, .factor = 1, .original_ctx = 64};
    for (int n_ctx = 64; n_ctx <= 65; n_ctx++) {
        MemoryOptions options = {.kv = KV_DTYPE_F32, .n_ctx = n_ctx, .rope_factors = {all, long_ctx, short_ctx}};
        char err[200] = "";
        Memory m;
        CHECK(!memory_open(&m, &c, &options, NULL, err, sizeof err), "%s", err);
        CHECK(m.n_kinds == 3 && m.ropes[0].n == 2 && m.ropes[1].n == 0 && m.ropes[2].n == 2, "%d kinds", m.n_kinds);
        for (int i = 0; i < 2; i++) {
            double frequency = i ? 0.1 : 1, divisor = (double)(n_ctx > 64 ? long_ctx[i] : short_ctx[i]);
            CHECK(fabs(m.ropes[0].frequency[i] * 2 / frequency - 1) < 1e-12, "plain: %g", m.ropes[0].frequency[i]);
            CHECK(fabs(m.ropes[2].frequency[i] * divisor / frequency - 1) < 1e-12, "LongRoPE at %d: %g", n_ctx,
                  m.ropes[2].frequency[i]);
        }
        memory_close(&m);
    }
}

// ---- memory that runs out

// Each layer's blocks, to see that none came, went or moved.
typedef struct {
    uint64_t bytes[N_LAYERS], taken;
    const void *first[N_LAYERS];
} Held;

static Held held_by(const Timeline *t, const KvPool *pool) {
    Held held = {.taken = kvpool_bytes(pool)};
    for (int layer = 0; layer < N_LAYERS; layer++) {
        const KvCache *cache = memory_cache(&t->m, layer);
        held.bytes[layer] = kvcache_bytes(cache);
        held.first[layer] = kvcache_view(cache).blocks[0];
    }
    return held;
}

static uint64_t bytes_taken(int layer) { // of the pool, for a block: with the room for a panel behind it
    Config c = model();
    return block_bytes(config_kind(&c, layer)) + sizeof(float) * KV_GROUP;
}

// 200 tokens take a block in each layer, 600 more three. The pool has room for `more` bytes beyond the first.
static bool grows_within(uint64_t more) {
    Timeline t;
    uint64_t first = 0;
    for (int layer = 0; layer < N_LAYERS; layer++) first += bytes_taken(layer);
    KvPool *pool = kvpool_open(first + more);
    if (!pool || !timeline_open(&t, &plain, pool)) return false;
    CHECK(append(&t, 1, 200) && kvpool_bytes(pool) == first, "200 tokens take %llu bytes, expected %llu",
          (unsigned long long)kvpool_bytes(pool), (unsigned long long)first);
    Held before = held_by(&t, pool);
    bool grown = append(&t, 1, 600);
    if (!grown) {
        Held after = held_by(&t, pool);
        CHECK(!memcmp(&before, &after, sizeof after), "%llu bytes more: a failure changed what is held",
              (unsigned long long)more);
        CHECK(memory_length(&t.m) == 200, "a failure changed the length to %d", memory_length(&t.m));
        check_timeline(&t, "after a failure");
        CHECK(append(&t, 2, 56), "the room that there was is gone");
    }
    check_timeline(&t, "where memory is short");
    memory_close(&t.m);
    CHECK(kvpool_bytes(pool) == 0, "closed: %llu bytes", (unsigned long long)kvpool_bytes(pool));
    kvpool_close(pool);
    return grown;
}

// The memory ends at every block of every layer, and a byte before.
static void out_of_memory_in_any_layer(void) {
    uint64_t more = 0;
    for (int layer = 0; layer < N_LAYERS; layer++) {
        for (int block = 0; block < 3; block++) {
            CHECK(!grows_within(more), "layer %d, block %d: grown within %llu bytes", layer, block,
                  (unsigned long long)more);
            more += bytes_taken(layer);
            CHECK(!grows_within(more - 1), "layer %d, block %d: a byte too few", layer, block);
        }
    }
    CHECK(grows_within(more), "%llu bytes are enough", (unsigned long long)more);
}

// ---- timelines that share a pool

// What one gives back, another may take; neither sees the other's rows.
static void timelines_beside_each_other(void) {
    uint64_t each = 0;
    for (int layer = 0; layer < N_LAYERS; layer++) each += bytes_taken(layer);
    KvPool *pool = kvpool_open(2 * each);
    Timeline a, b;
    if (!pool || !timeline_open(&a, &plain, pool) || !timeline_open(&b, &plain, pool)) return;
    CHECK(append(&a, 1, 200) && append(&b, 2, 100), "a block for each");
    CHECK(!append(&a, 1, 57), "and no more");
    check_timeline(&a, "beside another");
    check_timeline(&b, "beside another");
    CHECK(memory_truncate(&b.m, 0) == 0 && append(&a, 1, 57), "what one gives back, the other takes");
    CHECK(!append(&b, 2, 1), "now it is the other that has none");
    check_timeline(&a, "alone");
    memory_close(&a.m);
    CHECK(append(&b, 3, 256), "closed, and its room is taken");
    check_timeline(&b, "alone");
    memory_close(&b.m);
    CHECK(kvpool_bytes(pool) == 0, "%llu bytes are left", (unsigned long long)kvpool_bytes(pool));
    kvpool_close(pool);
}

enum { N_THREADS = 3 };

typedef struct {
    KvPool *pool;
    uint64_t cap;
    _Atomic uint64_t *held; // by all threads, as they know it: never more than there is
    int text, n_grown, n_refused;
} Worker;

static void *grow_and_shrink(void *context) {
    Worker *w = context;
    Timeline t;
    if (!timeline_open(&t, &plain, w->pool)) return NULL;
    for (int i = 0; i < (quick() ? 60 : 400); i++) {
        int n = 1 + (i * 37 + w->text * 11) % 300;
        bool grown = memory_length(&t.m) + n <= MAX_TOKENS && append(&t, w->text, n);
        uint64_t mine = memory_kv_bytes(&t.m);
        CHECK(atomic_fetch_add(w->held, mine) + mine <= w->cap, "more is held than the cap allows");
        w->n_grown += grown;
        w->n_refused += !grown;
        if (i % 16 == 0) check_timeline(&t, "beside other threads");
        atomic_fetch_sub(w->held, mine); // before what follows gives some back
        if (!grown) memory_truncate(&t.m, i % 3 * 100);
    }
    memory_close(&t.m);
    return NULL;
}

static void threads_share_a_pool(void) {
    uint64_t each = 0;
    for (int layer = 0; layer < N_LAYERS; layer++) each += bytes_taken(layer);
    _Atomic uint64_t held = 0;
    Worker workers[N_THREADS];
    pthread_t threads[N_THREADS];
    KvPool *pool = kvpool_open(6 * each);
    int n_grown = 0, n_refused = 0;
    if (!pool) return;
    for (int i = 0; i < N_THREADS; i++) {
        workers[i] = (Worker){.pool = pool, .cap = 6 * each, .held = &held, .text = i};
        pthread_create(&threads[i], NULL, grow_and_shrink, &workers[i]);
    }
    for (int i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        n_grown += workers[i].n_grown;
        n_refused += workers[i].n_refused;
    }
    CHECK(n_grown && n_refused, "%d grown, %d refused: one side was not tested", n_grown, n_refused);
    CHECK(kvpool_bytes(pool) == 0, "%llu bytes are left", (unsigned long long)kvpool_bytes(pool));
    kvpool_close(pool);
}

int main(void) {
    RUN(layers_of_different_shapes);
    RUN(callers_windows);
    RUN(one_cache_for_all);
    RUN(restarting_keeps_the_room);
    RUN(frequencies_of_kinds);
    RUN(out_of_memory_in_any_layer);
    RUN(timelines_beside_each_other);
    RUN(threads_share_a_pool);
    return test_report();
}
