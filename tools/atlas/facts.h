// facts: what the atlas says of each mechanism: its paper and formula, what it is claimed to cost, a published figure.
//
// Owns facts.json, which the program has in it: objects in the order of the list, each with name, family ("masks"),
// title (a line without a period), paper, formula (lines of plain text, each with its newline), prefill and decode
// (complexity: "O(n^2 d)"; of one token, "-" where there is none), memory (of a head, in values) and best_for; where
// there is one, published (a figure of its paper with the place) and same_as (the row whose operator this is under
// another name). Refuses a mechanism that is not in it.
#pragma once
#include "mechanism.h"

#include <jansson.h>

// Borrowed. They end the program where facts.json cannot be read, or has no such mechanism.
json_t *facts_all(void);
json_t *facts_of(const Mechanism *m);
const char *fact(const Mechanism *m, const char *key); // NULL: the mechanism has none of this name
