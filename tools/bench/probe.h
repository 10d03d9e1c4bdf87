// probe: measures the machine's peak memory bandwidth and arithmetic throughput, for bench.
//
// Owns the measuring loops, each run in a child process, so that their buffers and threads do not affect the caller.
// Must be called before the process has threads. Returns 0 where the measurement fails.
#pragma once
#include "cpu.h"

enum { PROBE_PASSES = 12 };

// GB/s of all threads together, the best of several passes over a buffer larger than the caches.
double probe_read(int n_threads);
// GFLOP/s of all threads together: the gemm of an instruction-set level (bfloat16 if it has one) on a panel in L1; the
// best of several passes.
double probe_gemm(int n_threads, CpuLevel level);
