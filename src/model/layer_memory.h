// layer_memory: what one timeline of text remembers, by layer, and the rotary frequencies of its context limit.
//
// Owns a KV cache for each layer and keeps their lengths equal. A timeline can be truncated: memory_truncate returns
// how many tokens could be kept. Fails to grow when the pool is exhausted.
#pragma once
#include "config.h"
#include "kvcache.h"

// What a model's file divides RoPE's frequencies by, [rotary_dim / 2] each; NULL: nothing.
typedef struct {
    const float *all;       // of every kind of scaling but ROPE_LONG
    const float *long_ctx;  // ROPE_LONG, beyond the original context
    const float *short_ctx; // ROPE_LONG, within it
} RopeFactors;

typedef struct {
    KvDType kv;
    int window;   // narrows every layer's window where it is above 0; below 0: no windows
    int n_sinks;  // with a window, first tokens that stay visible
    int n_ctx;    // the context limit that RoPE is scaled for
    int n_layers; // 0: the model's; 1: every layer uses the first, one after the other (an encoder's, which nobody
                  // reads again)
    RopeFactors rope_factors;
} MemoryOptions;

typedef struct {
    int n_layers, n_kinds;
    KvCache **layers;            // [n_layers]
    Rope ropes[MAX_LAYER_KINDS]; // by kind
} Memory;

// The config's numbers are copied, the pool must outlive the memory. -1 with a line in err.
int memory_open(Memory *m, const Config *c, const MemoryOptions *o, KvPool *pool, char *err, size_t errlen);
void memory_close(Memory *m); // accepts a zeroed one

KvCache *memory_cache(const Memory *m, int layer);
int memory_length(const Memory *m);           // tokens
uint64_t memory_bytes(const Memory *m);       // held now
uint64_t memory_token_bytes(const Memory *m); // that the next decoded token reads
// Make room for n more tokens in every layer. -1 with a line in err when memory runs out; nothing has changed then.
int memory_reserve(Memory *m, int n, char *err, size_t errlen);
void memory_advance(Memory *m, int n); // after every layer stored and read its rows
// Keep the first n tokens, or fewer where a window has already discarded keys that they would need. Returns how many
// are kept.
int memory_truncate(Memory *m, int n);
void memory_restart(Memory *m); // forget the tokens, keep the room; not with a window
