// kernels: the inner loops, as a table of function pointers. The only folder that knows an instruction set.
//
// The table is filled with the scalar versions, which are complete and the reference of every test; each rung that the
// machine has replaces what it does better. No kernel knows what a model, a mask or a thread is; none can fail.
// A result never depends on how rows are grouped into calls, so work may be split over threads anywhere.
//
// Two multiplications serve everything:
//   matvec  dots of x with rows that lie in memory as they are: decode, and attention of a few queries
//   gemm    y[j][lane] = sum_k x[j][k] panel[k][lane], PANEL lanes wide: prefill (panel = unpacked weight rows),
//           attention scores (panel = Q^T, x = K rows) and attention values (panel = P^T, x = V^T rows)
#pragma once
#include "../cpu.h"
#include "../quant.h"

#include <stdbool.h>
#include <stdint.h>

enum { MAX_PANEL = 32 };

typedef enum {
    ACT_NONE,
    ACT_GELU,       // x Phi(x), the exact form (arXiv:1606.08415)
    ACT_GELU_TANH,  // its tanh approximation, section 2 there
    ACT_QUICK_GELU, // x sigmoid(1.702 x)
    ACT_RELU,
    ACT_SILU, // x sigmoid(x)
    N_ACTIVATIONS
} Activation;

// A vector for products with quantized rows: x[i] ~ scale[i / 16] * (255 high[i] + low[i]), one scale for each 32
// values; sum: of x over 16 values. All have room for a multiple of 256 values, zeros behind the last.
typedef struct {
    int8_t *high, *low;
    float *scale, *sum;
} Activations;

// Of a block format.
typedef struct {
    // y[i] = sum_j w[i][j] x[j], rows one behind the other, k values each
    void (*matvec)(float *y, const void *w, const Activations *x, int n_rows, int k);
    void (*unpack)(float *y, const void *blocks, int n); // n values, whole blocks
} BlockKernels;

typedef struct {
    const char *name;
    int panel; // lanes of a panel, at most MAX_PANEL

    // y[i] = sum_j w[i * ldw + j] * x[j]
    void (*matvec_f32)(float *y, const float *w, int64_t ldw, const float *x, int n_rows, int k);
    // The same with rows of half precision, and of bfloat16.
    void (*matvec_f16)(float *y, const uint16_t *w, int64_t ldw, const float *x, int n_rows, int k);
    void (*matvec_bf16)(float *y, const uint16_t *w, int64_t ldw, const float *x, int n_rows, int k);
    // The same over rows row0.. of an int8 matrix with one scale for each `group` consecutive values of the matrix.
    void (*matvec_i8g)(float *y, const int8_t *q, const float *scales, int group, int64_t row0, const float *x,
                       int n_rows, int k);
    // y[i] = q[first + i] * scales[(first + i) / group]
    void (*unpack_i8g)(float *y, const int8_t *q, const float *scales, int group, int64_t first, int n);

    // Quantized rows with a vector that `quantize` has made of x (k a multiple of 32). [N_DTYPES], zeros for what is no
    // block format; NULL: the rung has none, nor then `quantize`.
    void (*quantize)(const Activations *a, const float *x, int k);
    const BlockKernels *blocks;

    // panel[j * PANEL + i] = w[i * ldw + j] for i < n_rows <= PANEL, zero for the lanes beyond
    void (*pack)(float *panel, const float *w, int64_t ldw, int n_rows, int k);
    // y[j * ldy + i] (+)= sum_k x[j * ldx + k] * panel[k * PANEL + i] for j < n, i < lanes; `add` keeps what y holds
    void (*gemm)(float *y, int64_t ldy, const float *panel, const float *x, int64_t ldx, int n, int k, int lanes,
                 bool add);

    // Online softmax (arXiv:1805.02867) in base 2, a query per lane. s[n_keys][PANEL] becomes 2^(s - m); the running
    // maximum m[PANEL] and sum l[PANEL] are updated; alpha[PANEL] = 2^(m_old - m_new). True when some alpha is not 1.
    bool (*softmax_lanes)(float *s, int n_keys, float *m, float *l, float *alpha);
    // The same for one query, s[n_keys]; returns alpha.
    float (*softmax_row)(float *s, int n_keys, float *m, float *l);

    // y[i * ldy + j] = x[i * ldx + j] for i < n_rows, j < n
    void (*f32_from_f16)(float *y, int64_t ldy, const uint16_t *x, int64_t ldx, int n_rows, int n);
    void (*f32_from_bf16)(float *y, int64_t ldy, const uint16_t *x, int64_t ldx, int n_rows, int n);
    void (*rmsnorm)(float *y, const float *x, const float *weight, int n, float eps); // arXiv:1910.07467, eq. 4
    // y = (x - mean) / sqrt(variance + eps) * weight + bias (arXiv:1607.06450); y may be x
    void (*layernorm)(float *y, const float *x, const float *weight, const float *bias, int n, float eps);
    void (*activate)(float *x, int n, Activation a);
    void (*softcap)(float *x, int n, float in, float out); // x = out tanh(in x)
    void (*swiglu)(float *gate, const float *up, int n);   // gate = silu(gate) * up, arXiv:2002.05202
} Kernels;

// The table of a rung; NULL where this build has none.
const Kernels *kernels_for(CpuRung r);
const Kernels *kernels(void); // of cpu_rung()

// Scores that a mask forbids. Far below any real score; the running maximum starts above it, so that a row with nothing
// visible keeps l = 0. Never -inf: its arithmetic does not survive every compiler flag.
#define SCORE_MASKED (-1e30f)
#define SCORE_START (-1e29f)

extern const Kernels kernels_scalar, kernels_avx2, kernels_avx512, kernels_neon, kernels_neon_dot;
