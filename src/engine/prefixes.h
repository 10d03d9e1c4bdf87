// prefixes: what sessions have computed of texts, kept for texts that begin in the same way (arXiv:2312.07104, section
// 3: a radix tree of blocks).
//
// Owns a tree whose nodes are blocks of KV_BLOCK tokens, found by these tokens: the cache's blocks of every layer,
// shared with the sessions that use them, and, where the model has recurrent layers, a copy of their states at the
// node's end. Its cap in bytes holds: the least recently used leaves make room, those that a session shares last.
// Sessions with different types of cache or scalings of positions have trees of their own. Refuses memories with
// windows, which have lost what other texts would need. For several threads.
#pragma once
#include "layer_memory.h"
#include "tessera.h"

typedef struct Prefixes Prefixes;

Prefixes *prefixes_open(KvPool *pool);          // with a cap of 0; NULL: out of memory
void prefixes_close(Prefixes *p);               // after every session; accepts NULL
void prefixes_limit(Prefixes *p, uint64_t cap); // bytes; 0: nothing is kept
PrefixInfo prefixes_info(Prefixes *p);

// A text and what is remembered of it. `kind` tells which texts can share: equal for those of one cache type, one
// precision and one scaling of positions.
typedef struct {
    uint64_t kind;
    const int32_t *tokens;
    Memory *memory;
} PrefixText;

bool prefixes_on(Prefixes *p, const Memory *m); // something is kept, and could be of this memory

// Keep the first n tokens of a text, n <= its memory's length; with recurrent layers, n or what precedes it at the
// border of a chunk.
void prefixes_add(Prefixes *p, PrefixText text, int n);
// Where a prefix of tokens[0..n) is longer than `least`, the text's memory becomes that prefix. Returns its length, or
// -1, with the memory as before.
int prefixes_attach(Prefixes *p, PrefixText text, int n, int least);
// Give up the least recently used leaf, of those that no session shares if there are any. False: there is none.
bool prefixes_evict(Prefixes *p);
