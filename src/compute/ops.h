// ops: the steps of a forward pass, split over threads.
//
// Owns who computes which rows; the arithmetic is in kernels/. Results do not depend on the number of threads: work is
// cut by shape alone and no sum is ever split.
#pragma once
#include "config.h"
#include "kernels.h"
#include "threads.h"
#include "weights.h"

// Up to so many tokens rows are read again for each (from L1); beyond, they are unpacked to a panel.
enum { MATVEC_TOKENS = 10 };

// What the ops of one session work with.
typedef struct {
    ThreadPool *pool;
    const Kernels *kernels;
    float *panels;                        // of each thread: a panel of unpacked weights and the rows it is made from
    Activations quantized[MATVEC_TOKENS]; // of up to `most_cols` values each, for products with quantized rows
    uint16_t *rounded;                    // the input as bfloat16, up to `most_rounded` values
    int most_cols;
    int64_t most_rounded;
} Compute;

int compute_open(Compute *c, int n_threads, char *err, size_t errlen);
void compute_close(Compute *c); // accepts a zeroed Compute
// Room for the rounded input of products of up to so many columns with n tokens; larger ones go by way of fp32.
int compute_reserve(Compute *c, int cols, int n, char *err, size_t errlen);

// Activations: several buffers of [room][width] floats in one block of memory, each on a cache line of its own.
typedef struct {
    float **slot;
    size_t width;
} Buffer;

// Make room for n rows in each, when *room is less: *memory is replaced (free() it in the end) and the slots set, what
// they held is lost. -1 with a line in err and nothing changed. what: of the rows, "tokens".
int buffers_reserve(float **memory, int *room, int n, const Buffer *list, size_t count, const char *what, char *err,
                    size_t errlen);

// One matrix product of a group that shares its input: y[n][rows] (+)= act(x[n][cols] w[rows][cols]^T + bias).
typedef struct {
    const Tensor *w;
    float *y;
    bool add;          // onto what y holds (the residual stream); then without an activation
    const float *bias; // [rows]; NULL: none
    Activation act;
} Linear;

// A linear layer as a model stores it.
typedef struct {
    Tensor w;          // [rows][cols]; rows 0: the model has none
    const float *bias; // [rows]; NULL: none
} Dense;

// A norm as a model stores it: LayerNorm with a bias, RMSNorm without. weight NULL: the model has none.
typedef struct {
    const float *weight, *bias; // [dim]
} Norm;

// Few tokens: dots with the rows of w where they lie (of a block format, one token: unpacked a few rows at a time).
// More: a panel of rows is unpacked once and serves all tokens; in bfloat16, as the tokens, where the rung multiplies
// it and the weights are not fp32.
void ops_linear(const Compute *c, const Linear *list, int count, const float *x, int n);
void ops_embed(const Compute *c, float *y, const Tensor *table, const int32_t *tokens, int n); // y[n][cols]
// Learned positions: x[t] += table[first + t * step], rows of dim; step 1, or 0 when all stand at one position.
void ops_positions(const Compute *c, float *x, const float *table, int first, int step, int n, int dim);
void ops_norm(const Compute *c, float *y, const float *x, const Norm *norm, int n, int dim, float eps); // y may be x
void ops_add(const Compute *c, float *y, const float *x, int n, int dim);                               // y += x
void ops_softcap(const Compute *c, float *x, int n, int dim, float cap); // cap tanh(x / cap)
// The two halves of a gated feed-forward network: gate = activation(gate) * up. clamp: Config's ffn_clamp, or 0.
void ops_gate(const Compute *c, float *gate, float *up, int n, int hidden_dim, Activation a, float clamp);
