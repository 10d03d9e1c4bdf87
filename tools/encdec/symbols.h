// symbols: the letters that a model reads or the phonemes that it writes, and their ids. Called by g2p.
//
// Owns the two forms of a table in config.json: an object from symbol to id, or a string whose characters have their
// index as id (the first ones are placeholders for the special tokens). Refuses ids outside the vocabulary, duplicate
// ids, and text that is not UTF-8 (in the JSON parser).
#pragma once
#include "settings.h"

#include <stdint.h>

typedef struct {
    char **by_id; // [n_ids], UTF-8; NULL: no symbol
    int n_ids;
    bool spaced; // symbols may have several characters: they are written with spaces between them
} Symbols;

// Under `object_key`, else under `string_key`; ids below n_special have no symbol. -1 with a line in s.
int symbols_load(Symbols *y, Settings *s, const char *object_key, const char *string_key, int vocab_size,
                 int n_special);
void symbols_free(Symbols *y);

// The id of the n bytes at text; -1: none.
int symbols_find(const Symbols *y, const char *text, size_t n);
const char *symbols_text(const Symbols *y, int id); // NULL: none

// Bytes of the UTF-8 character at text, at least 1; *valid says whether it is one (never a surrogate or overlong).
size_t utf8_length(const char *text, bool *valid);
