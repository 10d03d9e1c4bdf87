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
// m was just opened with the options and the pool of `from`: it takes over what that remembers. Blocks of the caches
// are shared until one of the two writes; states are copied. -1 with a line in err when memory runs out.
int memory_copy(Memory *m, const Memory *from, char *err, size_t errlen);
// Called with each piece of memory that holds what a Memory remembers, in an order that its length and its borders of
// checkpoints determine. False ends the round.
typedef bool (*MemoryVisitor)(void *context, void *bytes, size_t n);
bool memory_visit(const Memory *m, MemoryVisitor visit, void *context);
// m was just opened: as if it had so many tokens and these checkpoints, of borders that rise from 1 on; the caller
// fills in what memory_visit shows. -1 with a line in err when memory runs out, or a border cannot be.
int memory_restore(Memory *m, int length, const int *borders, int n_borders, char *err, size_t errlen);

// ---- for texts that begin alike: the blocks of their caches, and the states at the border of a chunk

int memory_caches(const Memory *m);                 // layers with a cache
bool memory_has_window(const Memory *m);            // in some layer
uint64_t memory_kv_block_bytes(const Memory *m);    // of KV_BLOCK tokens, in all caches
int memory_border(const Memory *m);                 // where the states' open chunk begins
size_t memory_border_bytes(const Memory *m);        // of all states at a border; 0: there are none
void memory_copy_border(const Memory *m, void *to); // them
// One more reference to block `index` of every cache: blocks[memory_caches].
void memory_share_block(const Memory *m, int index, void **blocks);
// Forget everything; then n tokens, whose blocks blocks[block][cache] are shared and whose states are `states`, which n
// is the border of. -1: out of memory, and nothing has changed.
int memory_attach(Memory *m, void **const *blocks, int n, const void *states);

// ---- passes

// Before a pass: make room for n more tokens in every layer, and a checkpoint where the states will leave a border. -1
// with a line in err when memory runs out; nothing has changed then.
int memory_reserve(Memory *m, int n, char *err, size_t errlen);
void memory_advance(Memory *m, int n); // after every layer stored and read its rows
// Keep the first n tokens, or fewer where a window has already discarded keys that they would need or no checkpoint is
// nearer. Returns how many are kept.
int memory_truncate(Memory *m, int n);
// The most of `more` tokens behind n new ones that memory_truncate can remove again, whatever their number.
int memory_ahead(const Memory *m, int n, int more);
void memory_restart(Memory *m); // forget the tokens, keep the room; not with a window
