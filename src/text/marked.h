// marked: free text that a mark turns into a string of a rule, and the rule's end into free text again; and text that
// is free unless it begins as a string of the rule does.
//
// Owns the grammar of that, over bytes: a mark or a beginning may come in any pieces, alone or with what follows it.
// Refuses nothing. Knows no JSON; called by constraint.c.
#pragma once
#include "automaton.h"

// Each `mark` (at least a byte) is followed by a string of the rule, then `close`, with at most 20 blanks or line
// breaks before either. once: the text ends there. Free text may end anywhere. Returns the rule of the whole text.
int marked_compile(Automaton *a, int rule, const char *mark, const char *close, bool once);

// Without a mark: a text that begins with one of `begins` is one or more strings of the rule, or exactly one (once),
// each behind at most 20 blanks or line breaks; any other text is free. `begins` ends with NULL; each is a prefix of
// strings of the rule, at least a byte long and without blanks. A text may have blanks between its bytes, but not
// inside quotes.
int marked_compile_bare(Automaton *a, int rule, const char *const *begins, bool once);
