// probe: what this machine can do at most: read memory, multiply. The yardsticks of bench.
//
// Owns the loops that find out, each in a child process, so that their buffers and threads leave no trace in the
// caller. Call before the process has threads. 0 where something cannot be measured.
#pragma once
#include "cpu.h"

enum { PROBE_PASSES = 12 };

// GB/s of all threads together, the best of several passes over memory that no cache holds.
double probe_read(int n_threads);
// GFLOP/s of all threads together: a rung's gemm, in bfloat16 where it has that, over a panel that stays in L1; the
// best of several passes.
double probe_gemm(int n_threads, CpuRung rung);
