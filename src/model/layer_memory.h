// layer_memory: what one timeline of text remembers, by layer, and the rotary frequencies of its context limit.
//
// Owns a KV cache or a recurrent state, or both, for each layer, and keeps their lengths equal. A timeline can be
// truncated: memory_truncate returns how many tokens could be kept. A state can go back within its open chunk, or to a
// checkpoint: a copy of all states at an older border. Checkpoints have a cap in bytes and are the sparser the older
// they are. Fails to grow when the pool is exhausted.
#pragma once
#include "config.h"
#include "kvcache.h"
#include "state.h"

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
    KvCache *cache; // NULL: the layer's kind has none
    State *state;   // the same
} LayerMemory;

enum { MAX_CHECKPOINTS = 32 };

typedef struct {
    int border; // tokens before it
    int slot;   // where each state has its copy
} Checkpoint;

typedef struct {
    int n_layers, n_kinds;
    int length;                  // tokens
    LayerMemory *layers;         // [n_layers]
    Rope ropes[MAX_LAYER_KINDS]; // by kind
    int n_slots;                 // checkpoints that there is room for; 0: no states, or too large ones
    int n_checkpoints;
    Checkpoint checkpoints[MAX_CHECKPOINTS]; // borders rise
} Memory;

// The config's numbers are copied, the pool must outlive the memory. -1 with a line in err.
int memory_open(Memory *m, const Config *c, const MemoryOptions *o, KvPool *pool, char *err, size_t errlen);
void memory_close(Memory *m); // accepts a zeroed one

KvCache *memory_cache(const Memory *m, int layer);
State *memory_state(const Memory *m, int layer);
int memory_length(const Memory *m);           // tokens
uint64_t memory_kv_bytes(const Memory *m);    // held now by the caches
uint64_t memory_state_bytes(const Memory *m); // held from the start by the states, checkpoints included
uint64_t config_state_bytes(const Config *c); // what memory_state_bytes will be
uint64_t memory_token_bytes(const Memory *m); // that the next decoded token reads of both
// Before a pass: make room for n more tokens in every layer, and a checkpoint where the states will leave a border. -1
// with a line in err when memory runs out; nothing has changed then.
int memory_reserve(Memory *m, int n, char *err, size_t errlen);
void memory_advance(Memory *m, int n); // after every layer stored and read its rows
// Keep the first n tokens, or fewer where a window has already discarded keys that they would need or no checkpoint is
// nearer. Returns how many are kept.
int memory_truncate(Memory *m, int n);
void memory_restart(Memory *m); // forget the tokens, keep the room; not with a window
