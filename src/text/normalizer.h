// normalizer: rewrites text before it is split into pre-tokens.
//
// Owns the steps of Hugging Face's normalizers and of SentencePiece's; the Unicode tables are utf8proc's. Refuses more
// than 64 steps. Invalid UTF-8 passes through every step unchanged. Loaders add the steps; tokenizer.c runs them.
#pragma once
#include "pattern.h"

#include <stdint.h>

typedef struct Normalizer Normalizer; // immutable once built, shared by threads

typedef enum {
    NORMALIZE_NFC, // the four forms of UAX #15
    NORMALIZE_NFD,
    NORMALIZE_NFKC,
    NORMALIZE_NFKD,
    NORMALIZE_LOWERCASE,     // each character independently
    NORMALIZE_STRIP_ACCENTS, // remove marks (M)
    NORMALIZE_BERT_ACCENTS,  // remove nonspacing marks (Mn)
    NORMALIZE_STRIP_LEFT,    // remove white space at the beginning
    NORMALIZE_STRIP_RIGHT,   // or at the end
    NORMALIZE_SQUEEZE,       // SentencePiece's remove_extra_whitespaces: none at the ends, one space between words
    NORMALIZE_BERT_CLEAN,    // remove control characters, turn white space into spaces
    NORMALIZE_BERT_HAN,      // spaces around ideographs
    NORMALIZE_NMT,           // remove some control characters, turn some separators into spaces
    NORMALIZE_PREPEND,       // a string, unless the text is empty
    NORMALIZE_REPLACE,       // matches of a pattern by a string
    NORMALIZE_CHARSMAP,      // SentencePiece's precompiled table
} NormalizerKind;

// These append a step; *n NULL: creates the normalizer. -1 with a line in err.
int normalizer_add(Normalizer **n, NormalizerKind kind, char *err, size_t errlen);
// BertNormalizer, with those of its steps that are enabled.
int normalizer_add_bert(Normalizer **n, bool clean_text, bool chinese_chars, bool strip_accents, bool lowercase,
                        char *err, size_t errlen);
int normalizer_add_prepend(Normalizer **n, const char *text, size_t len, char *err, size_t errlen);
// Takes ownership of the pattern, also on failure. A NULL pattern is a failure, with err as pattern_open left it.
int normalizer_add_replace(Normalizer **n, Pattern *pattern, const char *text, size_t len, char *err, size_t errlen);
// Copies a table in the format of charsmap.h.
int normalizer_add_charsmap(Normalizer **n, const void *table, size_t bytes, char *err, size_t errlen);
void normalizer_free(Normalizer *n); // accepts NULL

// The normalized text, malloc'd; NULL: a search reached its limit (matcher_limited), or out of memory.
char *normalizer_run(const Normalizer *z, Matcher *m, const char *text, size_t n, size_t *n_out);

bool character_is_space(uint32_t c); // Unicode's White_Space
bool character_is_word(uint32_t c);  // \w of UTS #18, by general category
