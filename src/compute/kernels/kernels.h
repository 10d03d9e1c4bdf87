// kernels: the inner loops, as a table of function pointers. The only folder that knows an instruction set.
//
// The table is filled with the scalar versions, which are complete and the reference of every test; each rung that the
// machine has replaces what it does better. No kernel knows what a model, a mask or a thread is; none can fail.
// A result never depends on how rows are grouped into calls, so work may be split over threads anywhere.
//
// Two multiplications serve everything:
//   matvec  dots of x with rows that lie in memory as they are: linear layers of few tokens
//   gemm    y[j][lane] = sum_k x[j][k] panel[k][lane]: linear layers of many tokens (panels are packed of weight rows),
//           attention (panels are the cache's K and V in place, rows are those of Q and then of P)
// Rows x are fp32, and panels are of the type that a gemm's name says; where the rung has products of bfloat16, there
// is one more gemm, whose rows are bfloat16 too (Bf16Kernels).
#pragma once
#include "cpu.h"
#include "quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_PANEL = 32, BF16_STEP = 32, BF16_ROWS = 16 };

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

// Lanes of a matrix, in words of 32 bits: a word holds one fp32, a pair of bfloat16 or four int8 of consecutive k. Word
// w of lane i is words[i / MAX_PANEL * group + w * ld + i % MAX_PANEL]. As far as a row's last panel of the rung goes,
// it may be read, whatever the number of lanes.
typedef struct {
    const void *words;
    int64_t ld, group; // in words
    ptrdiff_t ahead;   // what lies so many bytes behind a word is fetched from memory meanwhile; 0: nothing is
} Panels;

// y[j * ldy + i] (+)= sum_k x[j * ldx + k] w(k, i) for j < n, i < lanes; `add` keeps what y holds. k is of whole words.
typedef void (*GemmKernel)(float *y, int64_t ldy, const Panels *w, const float *x, int64_t ldx, int n, int k, int lanes,
                           bool add);

// Products of bfloat16 with fp32 sums. `pack` of the rung makes panels of rounded rows, taken as words.
typedef struct {
    void (*round)(uint16_t *y, const float *x, int64_t n); // to nearest, ties to even
    // Rows of ld words of four int8 become twice as many rows of ld pairs.
    void (*from_i8)(uint16_t *y, const int8_t *x, int64_t ld, int n_rows);
    // As Kernels' softmax_row to 7.5e-5 relative, and the result times `scales` (NULL: 1) goes to p, zeros behind it up
    // to a multiple of BF16_STEP. m stays where the maximum exceeds it by SOFTMAX_MARGIN or less, so that what is
    // summed up is seldom rescaled.
    float (*softmax_row)(uint16_t *p, const float *s, int n_keys, const float *scales, float *m, float *l);
    // As GemmKernel over pairs; k a multiple of BF16_STEP. x has rows up to a multiple of BF16_ROWS that may be read.
    void (*gemm)(float *y, int64_t ldy, const Panels *w, const uint16_t *x, int64_t ldx, int n, int k, int lanes,
                 bool add);
} Bf16Kernels;

typedef struct {
    const char *name;
    int panel;               // lanes of a panel, at most MAX_PANEL
    const Bf16Kernels *bf16; // NULL: the rung has none

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
    // Over int8, a row of x counts in 16 bits: x[j] ~ scale (255 high + low), one scale for each 256 values of it.
    GemmKernel gemm_f32, gemm_bf16, gemm_i8;

    // Online softmax (arXiv:1805.02867) in base 2, of one query. s[n_keys] becomes 2^(s - m); the running maximum m and
    // sum l are updated; returns 2^(m_old - m_new).
    float (*softmax_row)(float *s, int n_keys, float *m, float *l);
    void (*scale)(float *x, const float *by, int n); // x[i] *= by[i]

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
#define SOFTMAX_MARGIN 8.0f

extern const Kernels kernels_scalar, kernels_avx2, kernels_avx512, kernels_neon, kernels_neon_dot;
extern const Bf16Kernels bf16_avx512, bf16_amx, bf16_neon; // of the rungs above avx512 and neon_dot, with their kernels
