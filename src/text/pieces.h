// pieces: a hash table from the text of a piece to its id.
//
// Owns the table, not the pieces. stb_ds's string maps need terminated copies, whereas pieces are slices of a mapped
// file that may contain NUL: with copies, encoding took 1.6 times as long and opening 4 times. Called by the three
// kinds of vocabulary and by loaders.
#pragma once
#include "vocab.h"

enum { NO_PIECE = -1 };

typedef struct {
    uint32_t hash;
    int32_t id; // NO_PIECE: free
} PieceSlot;

typedef struct {
    const Piece *pieces; // borrowed
    PieceSlot *slots;    // [mask + 1], open addressing, at most half full
    uint32_t mask;
    int max_len; // in bytes, of the pieces in the table
} PieceTable;

bool pieces_open(PieceTable *t, const Piece *pieces, size_t n); // empty, for up to n entries; false: out of memory
void pieces_close(PieceTable *t);                               // accepts a zeroed table
int32_t pieces_add(PieceTable *t, int32_t id);                  // returns id, or the id already stored for its text
void pieces_put(PieceTable *t, int32_t id);                     // of its text this id is found, whatever was before
int32_t pieces_find(const PieceTable *t, const char *text, int len);

// SentencePiece writes a space as U+2581. Unescaping writes at most n bytes to `to`, which may be `text`, and returns
// their number; escaping returns a malloc'd string, NULL when out of memory.
size_t spaces_unescape(char *to, const char *text, size_t n);
char *spaces_escape(const char *text, size_t n, size_t *n_out);
