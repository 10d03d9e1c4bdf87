// profile: where the time of a forward pass goes, by operation.
//
// Owns the sums. ops, attention and the model call profile_begin and profile_end around each operation; profile_region
// is the thread pool's hook. A Profile belongs to the one caller of a Compute: workers never touch it. With a NULL
// Profile each call is one comparison. Refuses nothing; averages and rates are the printer's
// (tools/bench/profile_table).
#pragma once
#include "tensor.h"
#include "threads.h"

#include <stdbool.h>
#include <stdint.h>

// One of these, or PROFILE_MATVEC or PROFILE_GEMM plus the DType of the weights (N_DTYPES: products of several types).
enum {
    PROFILE_OTHER, // regions outside of any operation
    PROFILE_EMBED,
    PROFILE_NORM,
    PROFILE_ROPE, // rotating queries and keys, storing keys and values
    PROFILE_ATTENTION,
    PROFILE_RECURRENCE, // recurrent states and their convolutions
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
    double inside;  // of these: in parallel regions
    double waiting; // of these: for other threads to finish
    double flops;   // multiplications and additions
    double bytes;   // of weights, cache and activations, each counted once
} ProfileRow;

typedef struct Profile {
    ProfileRow rows[N_PROFILE_OPS];
    int op, depth; // the open operation
    double start;
    double opened, drained; // times of the open region
} Profile;

// All accept NULL. Operations between begin and end count as part of the outer one, and so does their work.
void profile_begin(Profile *p, int op);
void profile_end(Profile *p, double flops, double bytes);
// A RegionHook; the context is a Profile.
void profile_region(void *profile, RegionMoment moment);

// "norms", "gemm Q8_0"; written to the buffer if it is not a constant.
const char *profile_name(int op, char *buffer, size_t size);
