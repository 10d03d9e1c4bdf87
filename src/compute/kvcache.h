// kvcache: the keys and values of one layer and one timeline, growing with the text. Called by the attention mixers.
//
// Owns the layout, the stored type, growth, the window and truncation. Refuses to exceed the pool's cap. Memory is
// taken in blocks of KV_BLOCK tokens from a KvPool and never moves. With a window, blocks that no later query can see
// are freed. Written once a token, read thousands of times, so the layout is the packed matrix that attention's
// products read in place (PackedMatrix: kernels.h), in words of 32 bits. A word holds w values (F32: 1, BF16: 2, Q8:
// 4): of K, consecutive dimensions of a key, padded with zeros; of V, consecutive keys.
//   block: for each KV head:  K [KV_BLOCK / KV_GROUP][k_dim / w, rounded up][KV_GROUP keys] words
//                             V [KV_BLOCK / w][v_dim] words
//                             with Q8 the scales of K [KV_BLOCK] and V [KV_BLOCK]: one for each vector
// One panel of memory behind each block is readable.
#pragma once
#include "threads.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KV_BLOCK = 256, KV_GROUP = 32 };

// What a cache stores: bfloat16, fp32, or int8 with one fp32 scale for each vector of a head.
typedef enum { KV_DTYPE_BF16, KV_DTYPE_F32, KV_DTYPE_Q8 } KvDType;

const char *kv_dtype_name(KvDType t);                   // "bf16"; NULL: not a type
size_t kv_value_bytes(KvDType t);                       // of one number
size_t kv_token_bytes(KvDType t, int k_dim, int v_dim); // of a token's key and value of one KV head

// ---- the pool: memory of blocks, shared by the caches of any number of timelines and by threads

typedef struct KvPool KvPool;

// cap: maximum bytes of blocks at a time; 0: no limit. NULL: out of memory.
KvPool *kvpool_open(uint64_t cap);
void kvpool_close(KvPool *p);               // after its caches; accepts NULL
void kvpool_limit(KvPool *p, uint64_t cap); // what is held beyond it stays
uint64_t kvpool_bytes(const KvPool *p);
// A block with one reference, aligned to a cache line; NULL: out of memory, or the cap is reached. A NULL pool has no
// cap.
void *kvpool_take(KvPool *p, size_t bytes);
void kvpool_share(void *block);              // one more reference
bool kvpool_is_shared(const void *block);    // it has more than one
void kvpool_release(KvPool *p, void *block); // one fewer; the last frees it; accepts NULL

// ---- the cache

typedef struct {
    int n_kv_heads, k_dim, v_dim;
    KvDType type;
    int window;  // keys that a query sees, itself included; 0: all
    int n_sinks; // first tokens that are kept beside the window; ignored without one
} KvShape;

typedef struct KvCache KvCache;

// The pool must outlive the cache. NULL with a line in err.
KvCache *kvcache_open(const KvShape *shape, KvPool *pool, char *err, size_t errlen);
void kvcache_close(KvCache *c); // accepts NULL

int kvcache_length(const KvCache *c); // tokens stored
int kvcache_window(const KvCache *c); // 0: all
int kvcache_sinks(const KvCache *c);
uint64_t kvcache_bytes(const KvCache *c);       // bytes of the blocks held now, without the padding
uint64_t kvcache_block_bytes(const KvCache *c); // of one block
uint64_t kvcache_token_bytes(const KvCache *c); // bytes that attention reads for the next token

// Make room for n more tokens, in blocks that no other cache shares. -1 when memory runs out; the cache then holds what
// it held before.
int kvcache_reserve(KvCache *c, int n);
int kvcache_room(const KvCache *c); // tokens that the reserved blocks hold, stored ones included
// Give back reserved blocks beyond so many tokens, but none that is filled.
void kvcache_trim(KvCache *c, int room);
// Write rows k [n][n_kv_heads][k_dim], v [n][n_kv_heads][v_dim] at positions length..length+n-1, which must be
// reserved, on the threads of a pool; NULL: on the calling one.
void kvcache_store(KvCache *c, ThreadPool *pool, int n, const float *k, const float *v);
// The same for one KV head and n tokens from length + first on. k and v point to the head's first row; rows are k_ld
// and v_ld floats apart.
typedef struct {
    const float *k, *v;
    int64_t k_ld, v_ld;
} KvRows;
void kvcache_store_head(KvCache *c, int head, int first, int n, const KvRows *rows);
// Append n stored tokens, after attention: frees blocks that fell out of the window.
void kvcache_advance(KvCache *c, int n);
// How many of the first n tokens could be kept: n (or length, if that is less), or 0 when keys that position n would
// need fell out of the window (the caller computes again from the start).
int kvcache_keeps(const KvCache *c, int n);
// The most of `more` tokens that can be stored behind length + n and all be removed again: those that make no block
// fall out of the window.
int kvcache_ahead(const KvCache *c, int n, int more);
// Keep the first n tokens, n <= length and kvcache_keeps. Exact: as if the rest had never been stored.
void kvcache_truncate(KvCache *c, int n);

// An empty cache of the same shape and pool takes the first n tokens of another, n <= its length and kvcache_keeps: the
// blocks are shared, and copied when one of their caches writes. -1 when memory runs out, and nothing changed.
int kvcache_share(KvCache *c, const KvCache *from, int n);
// Room for so many tokens in the table of blocks, for kvcache_attach. -1 as above.
int kvcache_slots(KvCache *c, int n);
// An empty cache with slots for them takes n tokens, whose blocks blocks[block][column] it shares. Not with a window.
void kvcache_attach(KvCache *c, void **const *blocks, int column, int n);
// Room for n tokens in an empty cache, as if they were stored: the caller fills the blocks that kvcache_view shows. -1
// as above.
int kvcache_restore(KvCache *c, int n);

// Remove every token but keep the memory, for the next text of about this length. Not with a window.
void kvcache_restart(KvCache *c);

// What attention reads. K and V of (block, head) at
//   base = blocks[block] + head * head_bytes;  V starts v_offset bytes in, the scales of Q8 scales_offset bytes.
typedef struct {
    void *const *blocks; // by position / KV_BLOCK; NULL where they fell out of the window
    KvDType type;
    int n_kv_heads, k_dim, v_dim;
    int word, key_words; // values of a word; words of a key
    size_t head_bytes, v_offset, scales_offset;
} KvView;
KvView kvcache_view(const KvCache *c);
// Dimensions d..d + width - 1 of one head's values of n positions from `first` on, all in one block: out[n][width].
void kvview_values(const KvView *v, int head, int first, int n, int d, int width, float *out);
