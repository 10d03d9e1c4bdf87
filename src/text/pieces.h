// pieces: the pieces of a vocabulary by their text.
//
// The table is our own: pieces are slices of a mapped file (unterminated, NUL allowed), which the string maps of stb_ds
// look up only as copies; measured, that took 1.6 times as long for a text and 4 times to open.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tokenizer.h"

enum { NO_PIECE = -1 };

typedef struct {
    uint32_t hash;
    int32_t id; // NO_PIECE: free
} PieceSlot;

typedef struct {
    const Piece *pieces; // someone else's
    PieceSlot *slots;    // [mask + 1], open addressing, at most half full
    uint32_t mask;
    int max_len; // bytes of the longest
} PieceTable;

bool pieces_open(PieceTable *t, const Piece *pieces, size_t n); // empty, with room for n; false: no memory
void pieces_close(PieceTable *t);                               // accepts a zeroed one
int32_t pieces_add(PieceTable *t, int32_t id);                  // the piece that has this text: id, or the one before
int32_t pieces_find(const PieceTable *t, const char *text, int len);

// n bytes to `to`, U+2581 as the space that it stands for. Returns the bytes written, at most n.
size_t text_unmark(char *to, const char *text, size_t n);
char *text_mark(const char *text, size_t n, size_t *n_out); // the other way round, malloc'd; NULL: no memory
