// normalizer: rewrites a text before it is cut.
//
// Owns the steps of Hugging Face's normalizers and of SentencePiece's. Unicode's tables are utf8proc's. Loaders add the
// steps; tokenizer.c runs them. Bytes that are no UTF-8 pass every step as they are.
#pragma once
#include "pattern.h"

#include <stdint.h>

typedef struct Normalizer Normalizer; // immutable once built, shared by threads

typedef enum {
    NORMALIZE_NFC, // the four forms of UAX #15
    NORMALIZE_NFD,
    NORMALIZE_NFKC,
    NORMALIZE_NFKD,
    NORMALIZE_LOWERCASE,     // each character by itself
    NORMALIZE_STRIP_ACCENTS, // drop marks
    NORMALIZE_BERT_ACCENTS,  // drop nonspacing marks
    NORMALIZE_STRIP_LEFT,    // white space at the beginning
    NORMALIZE_STRIP_RIGHT,   //
    NORMALIZE_SQUEEZE,       // SentencePiece's: no spaces at the ends, one between words
    NORMALIZE_BERT_CLEAN,    // drop controls, every white space is a space
    NORMALIZE_BERT_HAN,      // spaces around ideographs
    NORMALIZE_NMT,           // drop some controls, some separators are spaces
    NORMALIZE_PREPEND,       // with a text: before a text that is not empty
    NORMALIZE_REPLACE,       // with a pattern and a text
    NORMALIZE_CHARSMAP,      // with SentencePiece's compiled table
} NormalizerKind;

// Add a step at the end; *n NULL: a new one.
int normalizer_add(Normalizer **n, NormalizerKind kind, char *err, size_t errlen);
// BERT's, as many of its four steps as are wanted.
int normalizer_add_bert(Normalizer **n, bool clean, bool han, bool strip_accents, bool lowercase, char *err,
                        size_t errlen);
int normalizer_add_prepend(Normalizer **n, const char *text, size_t len, char *err, size_t errlen);
// The pattern is taken over, also on failure; NULL fails, with err as pattern_open left it.
int normalizer_add_replace(Normalizer **n, Pattern *pattern, const char *text, size_t len, char *err, size_t errlen);
// SentencePiece's precompiled_charsmap, which is copied: u32 bytes of a double array, the array, terminated texts.
// Refused where a unit or a text lies outside.
int normalizer_add_charsmap(Normalizer **n, const void *table, size_t bytes, char *err, size_t errlen);
void normalizer_free(Normalizer *n); // accepts NULL

// The normalized text, malloc'd; NULL: a pattern gave up, or memory ran out.
char *normalizer_run(const Normalizer *z, Matcher *m, const char *text, size_t n, size_t *n_out);

bool character_is_space(uint32_t c); // White_Space
bool character_is_word(uint32_t c);  // what \w is to UTS #18
