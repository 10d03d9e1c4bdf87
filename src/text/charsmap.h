// charsmap: SentencePiece's precompiled normalization table, from character sequences to their replacements.
//
// Owns its format: a u32 size in bytes, a double-array trie (darts-clone) of u32 units, then terminated strings.
// Refuses a table whose trie exceeds it; a walk that leaves the trie finds nothing. Called by normalizer.
#pragma once
#include <stddef.h>

typedef struct Charsmap Charsmap;

Charsmap *charsmap_open(const void *table, size_t bytes, char *err,
                        size_t errlen); // copies the table; NULL with a line in err
void charsmap_close(Charsmap *c);       // accepts NULL
// The replacement of the longest entry at the start of text[n] (n >= 1, valid UTF-8), or else its first character, of
// *n_new bytes. *len: the bytes of text that it replaces.
const char *charsmap_find(const Charsmap *c, const char *text, size_t n, size_t *len, size_t *n_new);
