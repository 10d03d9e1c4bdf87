// rows: the tests of bench as llama-bench has them: prefill, decode, and both, at each depth, of several models and
// numbers of threads.
//
// Owns which tests there are and how each is measured.
#pragma once
#include "measure.h"

// Measures and prints them all.
void rows_run(Bench *b);
