// rwkv: what the two generations of RWKV that run here have in common.
//
// Owns low-rank maps, the mixing of each row with the one before it, and the names of their tensors' suffixes. Refuses
// a rank above the model's width.
#pragma once
#include "recurrent.h"

// up(act(down x)) + bias
typedef struct {
    Dense down, up; // [rank][dim], [n][rank]
} LowRank;

typedef enum { SQUASH_NONE, SQUASH_TANH, SQUASH_SIGMOID } Squash;

// A parameter of n values, in whatever shape a file has it. NULL after a failure.
const float *bind_values(Binder *b, const char *part, int64_t n);
// n parameters of `width` values, each with its part, or all of them in one. [n][width]
const float *bind_mixes(Binder *b, const char *fused, const char *const *parts, int n, int64_t width);
// bias NULL: there is none. In a folder it is the second matrix's, or the matrices are transposed and it is a part.
void bind_low_rank(Binder *b, LowRank *map, const char *down, const char *up, const char *bias, int64_t dim, int64_t n);
int low_rank_width(const LowRank *map); // the rank
uint64_t low_rank_bytes(const LowRank *map);

// x[n][width] = act(x).
void squash_rows(const Pass *pass, float *x, int width, Squash act);
// y[rows][n] = up(act(down x)) + bias of all rows of the pass; hidden: [rows][dim].
void low_rank_forward(const Pass *pass, const LowRank *map, Squash act, const float *x, float *hidden, float *y);
// y[i][n][dim] = x + (previous - x) mix[i]
void mix_rows(const Pass *pass, const float *x, const float *previous, const float *mix, int n_mixes, int dim,
              float *y);
