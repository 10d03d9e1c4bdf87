// kvcache: the keys and values of one timeline, growing with the text.
//
// Owns the layout, the stored type, growth, the window and truncation. Memory comes in blocks of KV_BLOCK tokens, one
// allocation for each layer; what is in a block never moves. With a window, blocks that no later query can see are
// freed. Written once a token, read thousands of times, so the layout is what the products of attention read in place
// (panels: kernels/kernels.h), in words of 32 bits. A word holds w values (KV_F32: 1, KV_BF16: 2, KV_Q8: 4): of K, of
// consecutive dimensions of a key, zeros behind the last one; of V, of consecutive keys.
//   block of a layer: for each KV head:  K [KV_BLOCK / KV_GROUP][head_dim / w, rounded up][KV_GROUP keys] words
//                                        V [KV_BLOCK / w][head_dim] words
//                                        with KV_Q8 the scales of K [KV_BLOCK] and V [KV_BLOCK]: one for each vector
// Behind a block is room for a panel, which may be read.
#pragma once
#include "tessera.h"

enum { KV_BLOCK = 256, KV_GROUP = 32 };

typedef struct {
    int n_layers, n_kv_heads, head_dim;
    KvType type;
    int window;         // keys that a query sees, itself included; 0: all
    int n_sinks;        // with a window, first tokens that stay
    const int *windows; // [n_layers] of each layer, in place of `window`; NULL: all alike
} KvShape;

const char *kv_type_name(KvType t);            // "bf16", as --kv takes it; NULL: no type
size_t kv_value_bytes(KvType t);               // of one number
size_t kv_token_bytes(KvType t, int head_dim); // of a token's key and value of one head

typedef struct KvCache KvCache;

KvCache *kvcache_open(const KvShape *shape, char *err, size_t errlen);
void kvcache_close(KvCache *c); // accepts NULL

int kvcache_length(const KvCache *c);            // tokens stored
int kvcache_window(const KvCache *c, int layer); // 0: all
int kvcache_sinks(const KvCache *c);
uint64_t kvcache_bytes(const KvCache *c);       // bytes of the blocks held now, but for the room behind them
uint64_t kvcache_token_bytes(const KvCache *c); // bytes that a decoded token's attention reads now, all layers

// Make room for n more tokens. -1 with a line in err when memory runs out; the cache is then as before.
int kvcache_reserve(KvCache *c, int n, char *err, size_t errlen);
// Write rows k, v [n][n_kv_heads][head_dim] of a layer at positions length..length+n-1, which must be reserved.
void kvcache_store(KvCache *c, int layer, int n, const float *k, const float *v);
// The same for one KV head and n tokens from length + first on: rows are ld floats apart, k and v point at the head's
// first. For splitting over threads.
void kvcache_store_head(KvCache *c, int layer, int head, int first, int n, const float *k, const float *v, int64_t ld);
// After every layer is stored and attended to: the n tokens count, and blocks that fell out of the window are freed.
void kvcache_advance(KvCache *c, int n);
// Keep the first n tokens. Returns how many are kept: n, or 0 when the window has already let go of something that
// position n would need (the caller computes again from the start). Exact: as if the rest had never been.
int kvcache_truncate(KvCache *c, int n);

// Forget every token and keep the memory, for the next text of about this length. Not with a window.
void kvcache_restart(KvCache *c);

// What attention reads: the keys of one layer. K and V of (block, head) at
//   base = blocks[block] + head * head_bytes;  V starts v_offset bytes in, the scales of KV_Q8 scales_offset bytes.
typedef struct {
    void *const *blocks; // by position / KV_BLOCK; NULL where the window let go
    KvType type;
    int n_kv_heads, head_dim;
    int word, key_words; // values of a word; words of a key
    size_t head_bytes, v_offset, scales_offset;
} KvView;
KvView kvcache_view(const KvCache *c, int layer);
