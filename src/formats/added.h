// added: the tokens that a Hugging Face folder adds to its vocabulary: of tokenizer.json, of tokenizer_config.json and
// of added_tokens.json.
//
// Owns how they join the pieces: which id counts, which type. Refuses what is no list of such tokens. Called by
// vocab_json and vocab_folder.
#pragma once
#include "pieces.h"
#include "settings.h"

enum { MAX_TOKENS = 1 << 24, MAX_HOLES = 1 << 16 };

// Decodes the text of a piece in place, to the form that Vocab keeps, and returns its length; it may grow by one byte.
int stored_text(const Vocab *v, char *text, size_t n);

// The piece with the text of p, which is not decoded yet. -1: none.
int added_find(const Vocab *v, PieceTable *table, const Piece *p);
// Adds an array of {"id", "content", "special", ...}. table: of the pieces before. A token whose text the vocabulary
// has keeps the id that it has there; one whose id another text has gets the next free one; empty ones are none.
void added_read(Vocab *v, PieceTable *table, Settings *document, const json_t *list);
// What stands beside a list: the tokens of `more` that are not in it.
json_t *added_beside(const json_t *list, json_t *more);
