// charsmap: the table by which SentencePiece normalizes: characters to the texts that replace them.
//
// Owns its format: u32 bytes of a double-array trie (darts-clone), that array of u32 units, then terminated texts.
// Refuses a table whose array does not fit; a walk that leaves the array finds nothing.
#pragma once
#include <stddef.h>

typedef struct Charsmap Charsmap;

Charsmap *charsmap_open(const void *table, size_t bytes, char *err, size_t errlen); // copies; NULL with a line in err
void charsmap_close(Charsmap *c);                                                   // accepts NULL
// What the beginning of text[n], n >= 1, valid UTF-8, becomes: the longest entry's text, or else its first character.
// *len: the bytes it stands for.
const char *charsmap_find(const Charsmap *c, const char *text, size_t n, size_t *len, size_t *n_new);
