// pattern: the regular expressions of tokenizers, run by PCRE2.
//
// Owns what their dialect (Oniguruma's Ruby syntax, as Hugging Face's tokenizers run it) means in PCRE2's, and the
// limits of a search: a hostile pattern or text ends in an error, not in hours. Refuses what cannot be said in PCRE2.
#pragma once
#include <stdbool.h>
#include <stddef.h>

typedef struct Pattern Pattern; // immutable, shared by threads
typedef struct Matcher Matcher; // the memory of searches: one a thread

// NULL with a line in err: where it does not compile. pattern_text finds a literal text.
Pattern *pattern_open(const char *regex, size_t n, char *err, size_t errlen);
Pattern *pattern_text(const char *text, size_t n, char *err, size_t errlen);
void pattern_close(Pattern *p); // accepts NULL

Matcher *matcher_open(void); // NULL: no memory
void matcher_close(Matcher *m);

// The first match at `from` or behind it, in n bytes of valid UTF-8 that nothing surrounds: 1 with its place, 0: none,
// -1: given up.
int matcher_find(Matcher *m, const Pattern *p, const char *text, size_t n, size_t from, size_t *begin, size_t *end);
bool matcher_gave_up(const Matcher *m); // a search ended at its limit
