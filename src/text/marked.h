// marked: free text that a mark turns into a string of a rule, and the rule's end into free text again.
//
// Owns the grammar of that, over the bytes of the mark: it may come in any pieces, alone or with what follows it.
// Refuses nothing. Knows no JSON; called by constraint.c.
#pragma once
#include "automaton.h"

// Each `mark` (at least a byte) is followed by a string of the rule, then `close`, with at most 20 blanks or line
// breaks before either. once: the text ends there. Free text may end anywhere. Returns the rule of the whole text.
int marked_compile(Automaton *a, int rule, const char *mark, const char *close, bool once);
