// pattern: the regular expressions of tokenizers, run by PCRE2.
//
// Owns the translation of their dialect (Oniguruma's Ruby syntax, which Hugging Face's tokenizers use) to PCRE2's, and
// the limits of a search, so that a malicious pattern or text cannot take hours. Refuses syntax that PCRE2 would
// interpret differently. Called by normalizer and pretokenizer; loaders open patterns.
#pragma once
#include <stdbool.h>
#include <stddef.h>

typedef struct Pattern Pattern; // immutable, shared by threads
typedef struct Matcher Matcher; // working memory of searches: one per thread

// pattern_literal matches a string as it is. NULL with a line in err, which says where compilation failed.
Pattern *pattern_open(const char *regex, size_t n, char *err, size_t errlen);
Pattern *pattern_literal(const char *text, size_t n, char *err, size_t errlen);
void pattern_close(Pattern *p); // accepts NULL

Matcher *matcher_open(void); // NULL: out of memory
void matcher_close(Matcher *m);

// The first match in text[n], valid UTF-8, that starts at byte `from` or later. 1: found; 0: no match; -1: the search
// was stopped at its limit.
int matcher_find(Matcher *m, const Pattern *p, const char *text, size_t n, size_t from, size_t *begin, size_t *end);
// Where the search for the next match starts: behind this one, and past one character if it was empty.
size_t match_next(const char *text, size_t n, size_t begin, size_t end);
bool matcher_limited(const Matcher *m); // some search was stopped at its limit
