// check_kvpool: the pool that caches take their blocks of, and what a cache owes it: room given back, questions that
// change nothing, a cap that is kept, blocks that several hold, threads.
#include "reference.h"

#include "kvcache.h"

#include <limits.h>
#include <pthread.h>

// ---- one cache by itself

static KvCache *open_cache(int window, int n_sinks, KvPool *pool) {
    KvShape shape = {.n_kv_heads = 2, .k_dim = 6, .v_dim = 10, .type = KV_DTYPE_BF16};
    char err[200] = "";
    shape.window = window;
    shape.n_sinks = n_sinks;
    KvCache *c = kvcache_open(&shape, pool, err, sizeof err);
    CHECK(c, "%s", err);
    if (!c) exit(1);
    CHECK(kvcache_window(c) == window && kvcache_sinks(c) == n_sinks, "a window of %d, %d sinks", kvcache_window(c),
          kvcache_sinks(c));
    return c;
}

static void append_zeros(KvCache *c, int n) {
    float *rows = need_floats((int64_t)n * 2 * 10);
    memset(rows, 0, sizeof *rows * (size_t)n * 2 * 10);
    CHECK(!kvcache_reserve(c, n), "no memory for %d tokens", n);
    kvcache_store(c, NULL, n, rows, rows);
    kvcache_advance(c, n);
    free(rows);
}

static int held_blocks(const KvCache *c, int n_tokens) {
    int n = 0;
    for (int b = 0; b * KV_BLOCK < n_tokens; b++) n += kvcache_view(c).blocks[b] != NULL;
    return n;
}

// What was reserved and not filled goes back to the pool, what is stored stays.
static void trimming(void) {
    KvPool *pool = kvpool_open(0);
    KvCache *c = open_cache(0, 0, pool);
    static const int lengths[] = {0, 1, 255, 256, 257, 512, 700};
    for (int i = 0; i < N_OF(lengths); i++) {
        append_zeros(c, lengths[i] - kvcache_length(c));
        uint64_t n_blocks = (uint64_t)(lengths[i] + KV_BLOCK - 1) / KV_BLOCK, bytes = n_blocks * kvcache_block_bytes(c);
        CHECK(!kvcache_reserve(c, 3 * KV_BLOCK) && kvcache_bytes(c) > bytes, "nothing was reserved");
        for (int again = 0; again < 2; again++) kvcache_trim(c, 0);
        CHECK(kvcache_bytes(c) == bytes && kvcache_length(c) == lengths[i], "%d tokens, trimmed: %llu bytes",
              kvcache_length(c), (unsigned long long)kvcache_bytes(c));
        CHECK(kvpool_bytes(pool) == n_blocks * (kvcache_block_bytes(c) + 4 * KV_GROUP), "the pool has %llu bytes",
              (unsigned long long)kvpool_bytes(pool));
    }
    kvcache_close(c);
    kvpool_close(pool);
}

// A question changes nothing; what it promises holds, and more tokens than there are is all of them.
static void keeping_is_asked_first(void) {
    static const struct {
        int window, n_sinks, n, keeps;
    } cases[] = {{0, 0, 0, 0},       {0, 0, 999, 999},     {0, 0, 1, 1},     {0, 0, 5000, 1000},  {100, 0, 990, 990},
                 {100, 0, 867, 867}, {100, 0, 866, 0},     {100, 0, 300, 0}, {100, 2, 866, 0},    {100, 300, 300, 300},
                 {100, 300, 611, 0}, {100, 600, 611, 611}, {100, 768, 5, 5}, {100, 768, 600, 600}};
    for (int i = 0; i < N_OF(cases); i++) {
        KvCache *c = open_cache(cases[i].window, cases[i].n_sinks, NULL);
        append_zeros(c, 1000);
        uint64_t bytes = kvcache_bytes(c);
        int keeps = kvcache_keeps(c, cases[i].n);
        CHECK(keeps == cases[i].keeps, "window %d, %d sinks: of %d tokens %d can be kept, expected %d", cases[i].window,
              cases[i].n_sinks, cases[i].n, keeps, cases[i].keeps);
        CHECK(kvcache_length(c) == 1000 && kvcache_bytes(c) == bytes, "a question changed the cache");
        kvcache_truncate(c, keeps);
        CHECK(kvcache_length(c) == keeps && kvcache_keeps(c, keeps) == keeps, "kept: %d", kvcache_length(c));
        append_zeros(c, 100);
        CHECK(kvcache_length(c) == keeps + 100, "and on: %d", kvcache_length(c));
        kvcache_close(c);
    }
}

// Without a message, and the cache is as before: what it stores and what was reserved for more.
static void a_cap_is_kept(void) {
    KvCache *c = open_cache(0, 0, NULL);
    uint64_t block = kvcache_block_bytes(c) + 4 * KV_GROUP; // and the room behind it
    kvcache_close(c);
    KvPool *pool = kvpool_open(4 * block - 1);
    c = open_cache(0, 0, pool);
    append_zeros(c, 300);
    CHECK(!kvcache_reserve(c, 400) && kvpool_bytes(pool) == 3 * block, "3 blocks: %llu bytes",
          (unsigned long long)kvpool_bytes(pool));
    const void *third = kvcache_view(c).blocks[2];
    static const int beyond[] = {469, 2000, INT_MAX};
    for (int i = 0; i < N_OF(beyond); i++) {
        CHECK(kvcache_reserve(c, beyond[i]) == -1, "%d tokens beyond the cap", beyond[i]);
        CHECK(kvpool_bytes(pool) == 3 * block && kvcache_bytes(c) == 3 * kvcache_block_bytes(c), "it holds %llu bytes",
              (unsigned long long)kvcache_bytes(c));
        CHECK(kvcache_length(c) == 300 && kvcache_view(c).blocks[2] == third, "what was reserved is gone");
    }
    append_zeros(c, 468); // to the end of the third
    CHECK(held_blocks(c, 768) == 3, "%d blocks", held_blocks(c, 768));
    kvcache_close(c);
    CHECK(kvpool_bytes(pool) == 0, "closed: %llu bytes", (unsigned long long)kvpool_bytes(pool));
    kvpool_close(pool);
    kvpool_close(NULL);
}

// ---- the pool

static void a_shared_block_stays(void) {
    KvPool *pool = kvpool_open(0);
    char *block = kvpool_take(pool, 100);
    CHECK(block && (uintptr_t)block % 64 == 0, "a block at %p", (void *)block);
    if (!block) return;
    memset(block, 7, 100);
    kvpool_share(block);
    kvpool_release(pool, block);
    CHECK(kvpool_bytes(pool) == 100 && block[99] == 7, "one reference is left: %llu bytes",
          (unsigned long long)kvpool_bytes(pool));
    kvpool_release(pool, block);
    CHECK(kvpool_bytes(pool) == 0, "none is left: %llu bytes", (unsigned long long)kvpool_bytes(pool));
    kvpool_release(pool, NULL);
    if (!SANITIZED) CHECK(!kvpool_take(pool, SIZE_MAX - 1000), "more bytes than there are"); // they end the program
    CHECK(kvpool_bytes(pool) == 0, "after it: %llu bytes", (unsigned long long)kvpool_bytes(pool));
    kvpool_close(pool);
}

// Whoever shares a cache's block keeps it when the cache lets it go: truncated, behind a window, closed.
static void a_shared_block_survives_its_cache(void) {
    for (int way = 0; way < 3; way++) {
        KvPool *pool = kvpool_open(0);
        KvCache *c = open_cache(way == 1 ? 5 : 0, 0, pool);
        append_zeros(c, 100);
        unsigned char *block = kvcache_view(c).blocks[0], before[64];
        kvpool_share(block);
        block[63] = 7;
        memcpy(before, block, sizeof before);
        if (way == 0) kvcache_truncate(c, 0);
        if (way == 1) append_zeros(c, 400);
        if (way < 2) CHECK(kvcache_view(c).blocks[0] == NULL, "way %d: the cache still has it", way);
        kvcache_close(c);
        CHECK(kvpool_bytes(pool) > 0 && !memcmp(block, before, sizeof before), "way %d: another block", way);
        kvpool_release(pool, block);
        CHECK(kvpool_bytes(pool) == 0, "way %d: %llu bytes are left", way, (unsigned long long)kvpool_bytes(pool));
        kvpool_close(pool);
    }
}

static void *share_and_release(void *block) {
    for (int i = 0; i < 20000; i++) {
        kvpool_share(block);
        kvpool_release(NULL, block);
    }
    return NULL;
}

static void threads_share_a_block(void) {
    unsigned char *block = kvpool_take(NULL, 64);
    NEED(block, "no memory for 64 bytes");
    block[0] = 7;
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, share_and_release, block);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    CHECK(block[0] == 7, "the last reference is this one");
    kvpool_release(NULL, block);
}

int main(void) {
    RUN(trimming);
    RUN(keeping_is_asked_first);
    RUN(a_cap_is_kept);
    RUN(a_shared_block_stays);
    RUN(a_shared_block_survives_its_cache);
    RUN(threads_share_a_block);
    return test_report();
}
