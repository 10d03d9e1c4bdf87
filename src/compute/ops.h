// ops: the steps of a forward pass, split over threads.
//
// Owns the split of rows over threads; the arithmetic is in kernels/. Results do not depend on the number of threads:
// no sum is ever split. Refuses nothing: shapes were checked by the model. Called by the model and its mixers.
#pragma once
#include "compute.h"
#include "tensor.h"

// One of several matrix products with the same input: y[n][rows] (+)= act(x[n][cols] w[rows][cols]^T + bias).
typedef struct {
    const Tensor *w;
    float *y;
    bool add;          // add to what y holds (the residual stream); then without an activation
    const float *bias; // [rows]; NULL: none
    Activation act;
} Linear;

enum { MAX_LINEARS = 4 }; // of one call

// A linear layer as stored.
typedef struct {
    Tensor w;          // [rows][cols]; w.data NULL: the model has none
    const float *bias; // [rows]; NULL: none
} Dense;

static inline bool dense_exists(const Dense *d) {
    return d->w.data;
}

// A norm as stored: LayerNorm with a bias, RMSNorm without. weight NULL: the model has none.
typedef struct {
    const float *weight, *bias; // [dim]
    int n_heads;                // rows take turns with this many weights [n_heads][dim]; 0: one for all
} Norm;

// Up to ops_shared tokens: dot products with the stored rows of w; a token's bits do not depend on the others. More
// tokens: panels of rows are packed, in bfloat16 or int16 where the instruction-set level has such products and the
// weights are not fp32. Where the Compute is fast, tokens are rounded to int8 for types that the level has products of,
// and so are panels of them, or their blocks stay as they are (IntKernels.packs).
int ops_shared(const Compute *c, const Tensor *w);
void ops_linear(const Compute *c, const Linear *list, int count, const float *x, int n);
// A matrix for each head: y[t][h] = w[h] x[t][h]. Rows of x are x_ld floats apart, those of y y_ld; heads in them
// x_head and y_head. w[h] is the n_rows rows of w from first + h pitch on. Transposed: y[t][h] = w[h]^T x[t][h]; w is
// not fp32 then.
typedef struct {
    const Tensor *w; // [..][cols]
    int heads, first, pitch, n_rows;
    const float *x;
    int64_t x_ld, x_head;
    float *y;
    int64_t y_ld, y_head;
    bool transposed;
} HeadsLinear;
void ops_linear_heads(const Compute *c, const HeadsLinear *l, int n);
void ops_embed(const Compute *c, float *y, const Tensor *table, const int32_t *tokens, int n); // y[n][cols]
// Learned positions: x[t] += table[positions[t]], rows of dim.
void ops_positions(const Compute *c, float *x, const float *table, const int32_t *positions, int n, int dim);
void ops_norm(const Compute *c, float *y, const float *x, const Norm *norm, int n, int dim, float eps); // y may be x
void ops_add(const Compute *c, float *y, const float *x, int n, int dim);                               // y += x
void ops_add_scaled(const Compute *c, float *y, const float *x, int n, int dim, float scale);           // y += scale x
// xIELU (arXiv:2411.13010): p x^2 + b x above 0, n (exp(min(x, e)) - 1 - x) + b x below, of {p, n, b, e}.
void ops_xielu(const Compute *c, float *x, int n, int dim, const float numbers[4]);
void ops_scale(const Compute *c, float *x, int n, int dim, float by);    // x *= by
void ops_clamp(const Compute *c, float *x, int n, int dim, float limit); // to -limit..limit
void ops_softcap(const Compute *c, float *x, int n, int dim, float cap); // cap tanh(x / cap)
// Gated feed-forward network: gate = activation(gate) * up. clamp: Config.ffn_clamp, or 0.
void ops_gate(const Compute *c, float *gate, float *up, int n, int hidden_dim, Activation a, float clamp);

float sigmoidf(float x); // 1 / (1 + exp(-x))
