// lookup_rows: bench --lookup: decode with guesses from the earlier text (prompt look-up), against decode without.
//
// Owns the texts and how they are measured: texts that are to be copied, where most guesses can be right, and a story,
// where few can. Both ways are greedy, take turns, and must draw the same tokens; an end token ends both.
#pragma once
#include "measure.h"

// Measures and prints them all.
void lookup_rows_run(Bench *b);
