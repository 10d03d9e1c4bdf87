// kernels: the inner loops, one table of function pointers for each instruction-set level.
//
// Owns all code that depends on the instruction set; the scalar table is the reference of the tests. Refuses nothing:
// kernels cannot fail, and know no model, mask or thread. Results do not depend on how rows are grouped into calls, so
// work may be split over threads anywhere. Called by ops, attention and the tools.
//
// Two matrix products serve everything:
//   matvec  dot products of a few vectors x with rows as they are stored: linear layers of few tokens. Each row is
//           decoded once for all of them; a product's bits do not depend on how many there are
//   gemm    y[j][i] = sum_k x[j][k] w(k, i), w packed: linear layers of many tokens (panels packed from weight rows)
//   and
//           attention (panels are K and V in the cache, x is Q and then the probabilities)
// x is fp32 and w of the type in the gemm's name. Levels with products of bfloat16 or of integers have further gemms,
// whose x is rounded too (Bf16Kernels, IntKernels).
#pragma once
#include "cpu.h"
#include "quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_PANEL = 32, BF16_STEP = 32, BF16_ROWS = 16, MAX_SHARED = 64 };
enum { INT_STEP = 64, INT_COLUMNS = 2048 };
static const float INT8_TOP = 127;
static const float SMALLEST_TOP = 1e-30f; // its inverse and that of its scale are finite; smaller values become zeros

typedef enum {
    ACT_NONE,
    ACT_GELU,       // x Phi(x), the exact form (arXiv:1606.08415)
    ACT_GELU_TANH,  // its tanh approximation, section 2 there
    ACT_QUICK_GELU, // x sigmoid(1.702 x)
    ACT_RELU,
    ACT_SILU,         // x sigmoid(x)
    ACT_RELU_SQUARED, // max(x, 0)^2 (arXiv:2109.08668)
    ACT_SOFTPLUS,     // log(1 + exp(x))
    N_ACTIVATIONS
} Activation;

// A vector quantized to 16 or to 8 bits for products with quantized rows: x ~ scale * q, with equal scales for each 32
// values; sum: of x over 16 values. Padded with zeros to a multiple of 256 values. In each `span` values (of the
// level), the even and the odd ones of the first and of the last 16 of each 32 stand apart, as bytes are widened there,
// and bytes come as they do in the rows. Value i is
//   words[i / span * span + (i % 32 / 16 * 2 + i % 2) * (span / 4) + i % span / 32 * 8 + i % 16 / 2]
//   bytes[i / span * span + i % 32 / 16 * (span / 2) + i % span / 32 * 16 + i % 16]
// and has, with n = i % 32 / 16 * (256 / span) + i % 256 / span, the scale and, with 15 others, the sum
//   scale[i / 256 * 16 + n / 4 * (span / 8) + i % span / 32 * 4 + n % 4], sum[the same]
typedef struct {
    int16_t *words; // one of the two; the other is NULL
    int8_t *bytes;
    float *scale, *sum;
} Activations;

// Kernels of one block format.
typedef struct {
    // y[t * ldy + i] = sum_j w[i][j] x[t][j] for t < n <= MAX_SHARED, contiguous rows of k values
    void (*matvec)(float *y, int64_t ldy, const void *w, const Activations *x, int n, int n_rows, int k);
    void (*unpack)(float *y, const void *blocks, int n); // n values, whole blocks
    // As `round` of Kernels.int8, or where that is NULL of int16, of the unpacked values, but with a scale for the
    // largest value that there could be. NULL: no such kernel.
    float (*round)(void *q, const void *blocks, int n, float top);
} BlockKernels;

// A matrix w(k, i) of columns i in panels of MAX_PANEL columns, in words of 32 bits: one fp32, two bfloat16 or four
// int8 of consecutive k. Word r of column i is data[i / MAX_PANEL * panel_stride + r * row_stride + i % MAX_PANEL].
// Each row must be readable up to a multiple of Kernels.panel columns.
typedef struct {
    const void *data;
    int64_t row_stride, panel_stride; // words
    ptrdiff_t prefetch_offset;        // prefetch this many bytes beyond each word that is read; 0: no prefetch
} PackedMatrix;

// y[j * ldy + i] (+)= sum_k x[j * ldx + k] w(k, i) for j < n, i < n_cols; `add`: to what y holds. k is in whole words.
typedef void (*GemmKernel)(float *y, int64_t ldy, const PackedMatrix *w, const float *x, int64_t ldx, int n, int k,
                           int n_cols, bool add);

// Products of bfloat16 with fp32 sums. `pack` of the same level makes panels of rounded rows, taken as words.
typedef struct {
    int shared; // up to so many tokens, blocks as stored (BlockKernels.matvec) are faster than panels of them: measured
    void (*round)(uint16_t *y, const float *x, int64_t n); // to nearest, ties to even
    // n_rows rows of n words of four int8 become 2 n_rows rows of n words of two bfloat16.
    void (*from_i8)(uint16_t *y, const int8_t *x, int64_t n, int n_rows);
    // As Kernels.softmax_row to 7.5e-5 relative; the result times `scales` (NULL: 1) goes to p, padded with zeros to a
    // multiple of BF16_STEP. m is kept where the new maximum exceeds it by at most SOFTMAX_MARGIN, so that the running
    // sums are seldom rescaled.
    float (*softmax_row)(uint16_t *p, const float *s, int n_keys, const float *scales, float *m, float *l);
    // As GemmKernel over words of two bfloat16; k a multiple of BF16_STEP. x must be readable up to a multiple of
    // BF16_ROWS rows.
    void (*gemm)(float *y, int64_t ldy, const PackedMatrix *w, const uint16_t *x, int64_t ldx, int n, int k, int n_cols,
                 bool add);
} Bf16Kernels;

// Rows of integers, int8 or int16, of which each `part` columns share a scale (IntKernels): x[j][k] ~
// scale[j * parts + k / part] * q[j * ld + k]. Where panels are made by `packs`, q is unsigned and 128 too large.
typedef struct {
    const void *q;
    int64_t ld, parts;
    const float *scale;
} IntRows;

// Kernels.panel columns in words of 32 bits, integers of consecutive k: word r of column i is the
// (r * panel + i)-th of q. w(k, i) ~ scale[k / part * panel + i] * q. Panels that IntKernels.packs makes have a layout
// of their own.
typedef struct {
    void *q;
    float *scale;
    // Of `packs` alone: columns that have a multiple of the scale, and, where there are minima, what each BLOCK columns
    // b have: minimum[b * panel + i], to be multiplied with the sum of x.
    int group;
    bool has_minima;
    float *minimum;
} IntPanel;

// n_rows rows of blocks, ld bytes apart, as a panel of k columns, a multiple of BLOCK; to->scale has room for each
// part, to->minimum for each BLOCK.
typedef void (*PackInts)(IntPanel *to, const void *rows, int64_t ld, int n_rows, int k);

// Products of integers: the sums of a part are exact, so that all levels that have the same one give the same bits.
typedef struct {
    int shared;         // as in Bf16Kernels
    int bytes, part;    // of an integer; columns that share a scale, a multiple of INT_STEP, divides INT_COLUMNS
    float x_top, w_top; // the largest integers of x and of w (0: of `packs`): a part's sum fits an int32
    // n values, a multiple of 16, to the nearest multiples of the scale that is returned: the largest |x| / top.
    // NaN where a value is not finite.
    float (*round)(void *q, const float *x, int n, float top);
    // y[j * ldy + i] (+)= sum_k x[j][k] w(k, i) for j < n, i < n_cols <= Kernels.panel; k a multiple of INT_STEP, at
    // most INT_COLUMNS. x must be readable up to a multiple of BF16_ROWS rows. Without w's minima.
    void (*gemm)(float *y, int64_t ldy, const IntPanel *w, const IntRows *x, int n, int k, int n_cols, bool add);
    const PackInts *packs;                            // [N_DTYPES], NULL for types that it does not take; NULL: it
                                                      // takes all, as rounded rows that are packed
    void (*sums)(float *sums, const float *x, int n); // of each BLOCK of n values; NULL unless `packs` is there
} IntKernels;

typedef struct {
    const char *name;
    int panel;                      // columns computed at a time, divides MAX_PANEL
    const Bf16Kernels *bf16;        // NULL: the level has none
    const IntKernels *int8;         // the same
    const IntKernels *int6, *int16; // the same

    // y[t * ldy + i] = sum_j w[i * ldw + j] * x[t * ldx + j] for t < n <= MAX_SHARED, i < n_rows, j < k
    void (*matvec_f32)(float *y, int64_t ldy, const float *w, int64_t ldw, const float *x, int64_t ldx, int n,
                       int n_rows, int k);
    // The same with rows of F16 and of bfloat16.
    void (*matvec_f16)(float *y, int64_t ldy, const uint16_t *w, int64_t ldw, const float *x, int64_t ldx, int n,
                       int n_rows, int k);
    void (*matvec_bf16)(float *y, int64_t ldy, const uint16_t *w, int64_t ldw, const float *x, int64_t ldx, int n,
                        int n_rows, int k);
    // The same for rows row0.. of an int8 matrix with one scale for each `group` consecutive values of the matrix.
    void (*matvec_i8g)(float *y, int64_t ldy, const int8_t *q, const float *scales, int group, int64_t row0,
                       const float *x, int64_t ldx, int n, int n_rows, int k);
    // y[i] = q[first + i] * scales[(first + i) / group]
    void (*unpack_i8g)(float *y, const int8_t *q, const float *scales, int group, int64_t first, int n);

    // Products of quantized rows with a vector x that `quantize` quantized (k a multiple of 32). blocks: [N_DTYPES],
    // zeros for types that are no block format. NULL, as is `quantize`: the level has none. span: see Activations.
    void (*quantize)(const Activations *a, const float *x, int k);
    bool (*takes_bytes)(DType format); // may its vectors be bytes?
    const BlockKernels *blocks;
    int span;

    // One panel from rows of w: p[j * panel + i] = w[i * ldw + j] for i < n_rows <= panel, then zeros
    void (*pack)(float *panel, const float *w, int64_t ldw, int n_rows, int k);
    // gemm_i8 quantizes x to 16 bits, in two bytes: x[j] ~ scale (255 high + low), one scale for each 256 values of a
    // row.
    GemmKernel gemm_f32, gemm_bf16, gemm_i8;

    // Online softmax (arXiv:1805.02867) in base 2, of one query: s[n_keys] becomes 2^(s - m), the running maximum m and
    // sum l are updated. Returns 2^(m_old - m_new).
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
    // y[c] = bias[c] + sum_j taps[j * n + c] x[j][c] for c < n, j < width in order; bias NULL: 0
    void (*convolve)(float *y, const float *const *x, const float *taps, const float *bias, int width, int n);
    // One position of the selective scan (scan.h) of n channels, k states each: h[i * ld + c] = exp(step[c]
    // a[i * ld + c]) h[i * ld + c] + u[c] b[i], then y[c] = sum_i h[i * ld + c] q[i]; exponents from -inf to 88. A
    // channel's bits do not depend on n.
    void (*scan_row)(float *y, float *h, const float *a, int64_t ld, const float *step, const float *u, const float *b,
                     const float *q, int n, int k);
} Kernels;

// The table of a level; NULL where this build has none.
const Kernels *kernels_for(CpuLevel r);
const Kernels *kernels(void); // of cpu_level()

// SCORE_MASKED is far below any real score, and the running maximum starts above it (SCORE_START), so that a fully
// masked row keeps l = 0. Never -inf: its arithmetic does not survive every compiler flag.
#define SCORE_MASKED (-1e30f)
#define SCORE_START (-1e29f)
#define SOFTMAX_MARGIN 8.0f

extern const Kernels kernels_scalar, kernels_avx2, kernels_avx512, kernels_neon, kernels_neon_dot;
extern const Bf16Kernels bf16_avx512, bf16_amx, bf16_neon; // added to the kernels of avx512 or neon_dot
extern const IntKernels int8_vnni, int8_amx;               // the same
extern const IntKernels int6_avx2, int16_avx2;
