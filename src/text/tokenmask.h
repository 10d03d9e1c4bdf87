// tokenmask: which tokens of a vocabulary an automaton allows next.
//
// Owns the tokens in the order of their bytes, so that what several share is tried once. Control tokens and those
// without text are never allowed. Called by constraint.c.
#pragma once
#include "automaton.h"
#include "tokenizer.h"

typedef struct TokenOrder TokenOrder; // of one vocabulary

// The tokenizer outlives it. Sorted at the first use, from whatever thread. NULL with a line in err.
TokenOrder *tokenorder_open(const Tokenizer *t, char *err, size_t errlen);
void tokenorder_close(TokenOrder *o); // accepts NULL

// Bit `id` of mask, [(size of the vocabulary + 63) / 64], which the caller has zeroed, becomes 1 where the token is
// allowed from this state. Returns how many are; -1: out of memory.
int tokenmask_fill(TokenOrder *o, Automaton *a, int state, uint64_t *mask);
// The state behind a token's text.
int tokenmask_next(const TokenOrder *o, Automaton *a, int state, int32_t id);
bool tokenmask_has_text(const TokenOrder *o, int32_t id); // false: it is never allowed
