// products_bench: bench --products: a matrix times 1 to N vectors, against one vector.
//
// Owns the shapes, the measuring and its table: what one more token in a pass costs.
#pragma once
#include "measure.h"

int products_bench_run(Bench *b); // the exit status
