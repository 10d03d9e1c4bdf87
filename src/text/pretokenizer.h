// pretokenizer: splits text into pre-tokens, which no token crosses.
//
// Owns the steps of Hugging Face's pre-tokenizers: splits by a pattern with their five behaviors, prefix spaces, and
// the byte-level alphabet. A step sees one span of the step before it at a time. Refuses more than 64 steps. Loaders
// add the steps; tokenizer.c runs them.
#pragma once
#include "pattern.h"

#include <stdint.h>

typedef struct Pretokenizer Pretokenizer; // immutable once built, shared by threads

// What happens to a match (the delimiter). Text between matches is always kept.
typedef enum {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_MERGED_WITH_PREVIOUS, // joined to the text before it, if that is not a match
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS, // adjacent matches are joined
} SplitBehavior;

typedef enum { PREFIX_NEVER, PREFIX_FIRST, PREFIX_ALWAYS } PrefixScheme; // FIRST: at the beginning of the text only

// These append a step; *p NULL: creates the pre-tokenizer. -1 with a line in err.
//
// Takes ownership of the pattern, also on failure. A NULL pattern is a failure, with err as pattern_open left it.
// invert: what the pattern does not match counts as the match.
int pretokenizer_add_split(Pretokenizer **p, Pattern *pattern, SplitBehavior behavior, bool invert, char *err,
                           size_t errlen);
// Adds a space before each span that does not begin with one. metaspace: writes it, and all other spaces, as U+2581.
int pretokenizer_add_prefix(Pretokenizer **p, PrefixScheme scheme, bool metaspace, char *err, size_t errlen);
// BertPreTokenizer: white space is removed, each punctuation character is a pre-token.
int pretokenizer_add_bert(Pretokenizer **p, char *err, size_t errlen);
// A split by a regular expression, as pattern_open accepts it.
int pretokenizer_add_regex(Pretokenizer **p, const char *regex, SplitBehavior behavior, char *err, size_t errlen);
// The following steps see each byte as a character (byte_character). Pre-tokens are bytes again.
int pretokenizer_add_bytes(Pretokenizer **p, char *err, size_t errlen);
void pretokenizer_free(Pretokenizer *p); // accepts NULL

// Called for each pre-token in order, never empty. A nonzero result ends the run and is returned.
typedef int (*PretokenVisitor)(void *context, const char *text, size_t n);

// begins: `text` is the beginning of the whole text. -1: a search reached its limit (matcher_limited), or out of
// memory. Each run of invalid UTF-8 is a pre-token.
int pretokenizer_run(const Pretokenizer *p, Matcher *m, const char *text, size_t n, bool begins, PretokenVisitor visit,
                     void *context);

// GPT-2's byte-level alphabet: bytes that are printable in Latin-1 map to themselves, the others to U+0100 and up.
uint32_t byte_character(unsigned char byte);
int character_byte(uint32_t character); // -1: not of the alphabet
// Decodes text in the alphabet into out, which may be `text`, or NULL to count the bytes. -1: a character is not of it.
int bytes_of_characters(const char *text, size_t n, char *out);

#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define PUNCTUATION_PATTERN "[!-/:-@\\[-`{-~\\p{P}]"
#define METASPACE "\xE2\x96\x81" // U+2581, which SentencePiece writes for a space
