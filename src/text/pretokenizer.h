// pretokenizer: cuts a text into the pre-tokens that no token spans.
//
// Owns the steps of Hugging Face's pre-tokenizers: splits by a pattern with its six behaviours, spaces put in front,
// and the byte alphabet. A step sees one span of the step before it. Loaders add the steps; tokenizer.c runs them.
#pragma once
#include "pattern.h"

#include <stdint.h>

typedef struct Pretokenizer Pretokenizer; // immutable once built, shared by threads

// What becomes of a match. A text that no pattern matches stays.
typedef enum {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_MERGED_WITH_PREVIOUS, // with the text before it, unless that ends in a match
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS, // matches in a row are one
} SplitBehavior;

typedef enum { PREFIX_NEVER, PREFIX_FIRST, PREFIX_ALWAYS } PrefixScheme; // FIRST: only what begins the text

// Add a step at the end; *p NULL: a new one. A pattern is taken over, also on failure; NULL fails, with err as
// pattern_open left it. invert: what does not match is the match.
int pretokenizer_add_split(Pretokenizer **p, Pattern *pattern, SplitBehavior behavior, bool invert, char *err,
                           size_t errlen);
// A space goes before each span that begins with none; mark: it is U+2581, and so becomes every space.
int pretokenizer_add_prefix(Pretokenizer **p, PrefixScheme scheme, bool mark, char *err, size_t errlen);
// BERT's: white space goes, punctuation stands alone.
int pretokenizer_add_bert(Pretokenizer **p, char *err, size_t errlen);
// A split by a regular expression that pattern_open reads.
int pretokenizer_add_regex(Pretokenizer **p, const char *regex, SplitBehavior behavior, char *err, size_t errlen);
// From here on every byte is a character (byte_character); pre-tokens come out as bytes again.
int pretokenizer_add_bytes(Pretokenizer **p, char *err, size_t errlen);
void pretokenizer_free(Pretokenizer *p); // accepts NULL

// Called for each pre-token in order, never empty. Not 0 ends the run, which returns it.
typedef int (*PretokenVisitor)(void *context, const char *text, size_t n);

// begins: the span is the beginning of the whole text. -1: a pattern gave up, or memory ran out. Bytes that are no
// UTF-8 are pre-tokens by themselves, as long as they stand in a row.
int pretokenizer_run(const Pretokenizer *p, Matcher *m, const char *text, size_t n, bool begins, PretokenVisitor visit,
                     void *context);

// The byte alphabet of GPT-2: printable characters of Latin-1 stand for themselves, the others for U+0100 and up.
uint32_t byte_character(unsigned char byte);
int character_byte(uint32_t character); // -1: none
// Characters of the alphabet to the bytes they stand for, into out (NULL: only counted), which may be text. -1 where
// one is not of it.
int bytes_of_characters(const char *text, size_t n, char *out);
