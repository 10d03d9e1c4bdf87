// vnni: the gemm of int8 by VPDPBUSD, added to the avx512 kernels. The instruction multiplies unsigned bytes with
// signed ones: the panel's are biased by 128, and 128 times the sum of x is taken off again.
#include "int8.h"

enum { PANEL = MAX_PANEL, HALF = PANEL / 2, GEMM_ROWS = 12, WORD = 4, BIAS = 128, SHARED = 20 };

typedef int I32x16 __attribute__((vector_size(64))); // gcc copies sums needlessly where they are __m512i

static inline int word_of(const int8_t *x) {
    int word;
    memcpy(&word, x, sizeof word);
    return word;
}

static int sum_of(const int8_t *x, int k) {
    __m512i sums = _mm512_setzero_si512();
    for (int c = 0; c < k; c += INT_STEP) {
        sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), _mm512_loadu_si512(x + c));
    }
    return _mm512_reduce_add_epi32(sums);
}

// `rows` is a constant at every call, so that the sums live in registers.
INNER void gemm_rows(float *y, int64_t ldy, const IntPanel *w, const IntRows *x, int k, int n_cols, bool add,
                     const int rows) {
    const int8_t *bytes = x->q;
    I32x16 sums[GEMM_ROWS][2];
    for (int j = 0; j < rows; j++) {
        int bias = -BIAS * sum_of(bytes + j * x->ld, k);
        sums[j][0] = sums[j][1] = (I32x16)_mm512_set1_epi32(bias);
    }
    const int8_t *panel = w->q;
    for (int c = 0; c < k; c += WORD, panel += WORD * PANEL) {
        __m512i p0 = _mm512_xor_si512(_mm512_loadu_si512(panel), _mm512_set1_epi8((char)BIAS));
        __m512i p1 = _mm512_xor_si512(_mm512_loadu_si512(panel + WORD * HALF), _mm512_set1_epi8((char)BIAS));
        for (int j = 0; j < rows; j++) {
            __m512i word = _mm512_set1_epi32(word_of(bytes + j * x->ld + c));
            sums[j][0] = (I32x16)_mm512_dpbusd_epi32((__m512i)sums[j][0], p0, word);
            sums[j][1] = (I32x16)_mm512_dpbusd_epi32((__m512i)sums[j][1], p1, word);
        }
    }
    __mmask32 m = (__mmask32)((UINT64_C(1) << n_cols) - 1);
    for (int j = 0; j < rows; j++) {
        for (int v = 0; v < 2; v++) {
            scale_sums(y + j * ldy + v * HALF, (__m512i)sums[j][v], x->scale[j * x->parts],
                       _mm512_loadu_ps(w->scale + v * HALF), (__mmask16)(m >> v * HALF), add);
        }
    }
}

static void gemm_int8(float *y, int64_t ldy, const IntPanel *w, const IntRows *x, int n, int k, int n_cols, bool add) {
    for (int j = 0, rows; j < n; j += rows, y += rows * ldy) {
        IntRows rest = rows_from(x, j, 1);
        rows = n - j >= GEMM_ROWS ? GEMM_ROWS : n - j >= 4 ? 4 : 1;
        if (rows == GEMM_ROWS) gemm_rows(y, ldy, w, &rest, k, n_cols, add, GEMM_ROWS);
        else if (rows == 4) gemm_rows(y, ldy, w, &rest, k, n_cols, add, 4);
        else gemm_rows(y, ldy, w, &rest, k, n_cols, add, 1);
    }
}

const IntKernels int8_vnni = INT8_KERNELS;
