// profile: where the time of a forward pass goes, by operation.
//
// Owns the sums. ops, attention, experts and decoder open and close operations around what they do; the pool says how
// long its regions took. A Profile hangs on a pool and belongs to its one caller: workers never touch it. With none,
// each call here is a test for NULL. Refuses nothing; who prints it divides.
#pragma once
#include "quant.h"

#include <stdbool.h>
#include <stdint.h>

// One of these, or PROFILE_MATVEC or PROFILE_GEMM plus the DType of the weights (N_DTYPES: of several in one group).
enum {
    PROFILE_OTHER, // regions outside of any operation
    PROFILE_EMBED,
    PROFILE_NORM,
    PROFILE_ROPE, // turning queries and keys, storing keys and values
    PROFILE_ATTENTION,
    PROFILE_GATE,
    PROFILE_ADD,
    PROFILE_ROUTE,  // which experts, gathering their tokens, adding up their results
    PROFILE_LOGITS, // the last norm, the product with the vocabulary, its cap
    PROFILE_MATVEC,
    PROFILE_GEMM = PROFILE_MATVEC + N_DTYPES + 1,
    N_PROFILE_OPS = PROFILE_GEMM + N_DTYPES + 1
};

typedef struct {
    uint64_t calls;
    double seconds; // of the calling thread
    double inside;  // of these: in regions of the pool, where other threads help
    double waiting; // of these: until the others were done, too
    double flops;   // multiplications and additions that the operation is made of
    double bytes;   // of weights, cache and activations that it touches, each once
} ProfileRow;

typedef struct Profile {
    ProfileRow rows[N_PROFILE_OPS];
    int op, depth; // the open operation
    double start;
} Profile;

double profile_clock(void); // seconds, monotonic

// All accept NULL. Between begin and end, operations within count as part of the outer one; their work does too.
void profile_begin(Profile *p, int op);
void profile_end(Profile *p, double flops, double bytes);
// A region of the pool began at `start`; from `drawn` on the caller waited for it to end.
void profile_region(Profile *p, double start, double drawn);

// "norms", "gemm Q8_0"; in the buffer where it has to be made.
const char *profile_name(int op, char *buffer, size_t size);
