// attention_bench: bench --attention: the fused attention loop against an unfused one, causal, n queries over n keys.
//
// Owns the shapes, the measuring and its table. The results of both must agree.
#pragma once
#include "measure.h"

// The exit status: 1 where they do not agree.
int attention_bench_run(Bench *b);
