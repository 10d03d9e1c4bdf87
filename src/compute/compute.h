// compute: what a forward pass runs on: the threads, the kernels, scratch memory for each worker.
//
// Owns the thread pool and every buffer whose size does not depend on the model's layers. One Compute serves one caller
// at a time. Refuses only what does not fit into memory. Called by the engine, the encoders and the tools.
#pragma once
#include "kernels.h"
#include "profile.h"
#include "threads.h"

enum { COMPUTE_SCRATCH = 544 << 10 }; // minimum bytes of scratch memory of each worker

typedef struct {
    ThreadPool *pool;
    const Kernels *kernels;
    Profile *profile; // NULL: no timing
    char *scratch;    // [threads][worker_bytes], then shared_bytes for all workers
    size_t worker_bytes, shared_bytes;
    // Up to max_cols values each, as words or, in the same memory, as bytes; unused where the level has no `quantize`.
    Activations words[MAX_SHARED], bytes[MAX_SHARED];
    // The input of products of many tokens as bfloat16 or, with its scales behind it, as integers, up to max_rounded
    // values; NULL where the level has no such products.
    uint16_t *rounded;
    int max_cols;
    int64_t max_rounded;
    bool fast;  // products with weights of 8 bits and fewer may round x to int8, those of many tokens w too; off by
                // default
    bool exact; // products give each row the bits that it gets alone, however many there are; off by default
} Compute;

// -1 with a line in err when a thread cannot be started or memory runs out.
int compute_open(Compute *c, int n_threads, char *err, size_t errlen);
void compute_close(Compute *c); // accepts a zeroed Compute
// Add the time of each operation to *p from now on; NULL (the default): no timing.
void compute_profile(Compute *c, Profile *p);

// Reserves memory for quantized and rounded inputs of up to n tokens of `cols` values; larger products use fp32.
int compute_reserve(Compute *c, int cols, int n, char *err, size_t errlen);
// Reserves at least this many bytes of scratch memory for each worker, and shared by all. The old contents are lost.
int compute_reserve_scratch(Compute *c, size_t worker_bytes, size_t shared_bytes, char *err, size_t errlen);
void *compute_scratch(const Compute *c, int worker); // aligned to a cache line
void *compute_shared(const Compute *c);
size_t compute_scratch_bytes(const Compute *c); // of all workers, and shared

// n floats rounded up to whole cache lines, for the parts of a block of memory.
size_t scratch_floats(int64_t n);

// One of several buffers [room][width] of floats in one block of memory, each aligned to a cache line.
typedef struct {
    float **slot;
    size_t width;
} Buffer;

// Grows each buffer to n rows if *room is less: replaces *memory (to be freed by the caller) and sets the slots; the
// old contents are lost. -1 with a line in err and nothing changed. what: the unit of rows for messages, e.g. "tokens".
int buffers_reserve(float **memory, int *room, int n, const Buffer *list, size_t count, const char *what, char *err,
                    size_t errlen);
