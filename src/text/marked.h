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

// Without a mark: text that begins with one of `begins` (ends with NULL) is strings of the rule, or one (once), with at
// most 20 blanks or line breaks before each; all other text is free. What is in `begins` begins strings of the rule, is
// at least a byte, and has no blanks; in a text any may stand in it outside of quotes.
int marked_compile_bare(Automaton *a, int rule, const char *const *begins, bool once);
