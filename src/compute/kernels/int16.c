// int16: products of int16 by VPMADDWD, added to the avx2 kernels: twice as many a cycle as of fp32.
//
// 512 products of a part, each at most 1448 * 2896, have room in a sum of 32 bits. What is not finite may wrap,
// and its scale makes it NaN.
#include "inner.h"

#include <immintrin.h>

enum { PANEL = 16, HALF = PANEL / 2, GEMM_ROWS = 6, WORD = 2, PART = 512, SHARED = 20 };

typedef uint32_t U32x8 __attribute__((vector_size(32))); // gcc copies sums needlessly where they are __m256i

static float round_to_int16(void *q, const float *x, int n, float limit) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 most = _mm256_setzero_ps(), poison = most;
    for (int i = 0; i < n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        most = _mm256_max_ps(most, _mm256_andnot_ps(sign, v));
        poison = _mm256_fmadd_ps(v, _mm256_setzero_ps(), poison); // NaN where a value is not finite
    }
    float tops[8], poisons[8], top = 0, nan = 0;
    _mm256_storeu_ps(tops, most);
    _mm256_storeu_ps(poisons, poison);
    for (int i = 0; i < 8; i++) {
        top = tops[i] > top ? tops[i] : top;
        nan += poisons[i];
    }
    const __m256 inverse = _mm256_set1_ps(top >= SMALLEST_TOP ? limit / top : 0);
    for (int i = 0; i < n; i += 16) {
        __m256i low = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), inverse));
        __m256i high = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8), inverse));
        __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), _MM_SHUFFLE(3, 1, 2, 0));
        _mm256_storeu_si256((__m256i *)(void *)((int16_t *)q + i), words);
    }
    return (top >= SMALLEST_TOP ? top / limit : 0) + nan;
}

static inline __m256i load(const int16_t *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

static inline int pair_at(const int16_t *x) {
    int pair;
    memcpy(&pair, x, sizeof pair);
    return pair;
}

// Adds the products of k columns, of one part, to tile: PANEL columns of each row. `rows` is a constant at every call,
// so that the sums live in registers.
INNER void add_part(float *tile, const int16_t *panel, const float *w_scale, const int16_t *x, int64_t ldx,
                    const float *x_scale, int64_t parts, int k, const int rows) {
    U32x8 sums[GEMM_ROWS][2];
    for (int j = 0; j < rows; j++) sums[j][0] = sums[j][1] = (U32x8){0};
    for (int c = 0; c < k; c += WORD, panel += WORD * PANEL) {
        __m256i p0 = load(panel), p1 = load(panel + WORD * HALF);
        for (int j = 0; j < rows; j++) {
            __m256i pair = _mm256_set1_epi32(pair_at(x + j * ldx + c));
            sums[j][0] += (U32x8)_mm256_madd_epi16(p0, pair);
            sums[j][1] += (U32x8)_mm256_madd_epi16(p1, pair);
        }
    }
    for (int j = 0; j < rows; j++) {
        for (int v = 0; v < 2; v++) {
            float *y = tile + j * PANEL + v * HALF;
            __m256 scale = _mm256_mul_ps(_mm256_set1_ps(x_scale[j * parts]), _mm256_loadu_ps(w_scale + v * HALF));
            __m256 sum = _mm256_cvtepi32_ps((__m256i)sums[j][v]);
            _mm256_storeu_ps(y, _mm256_fmadd_ps(sum, scale, _mm256_loadu_ps(y)));
        }
    }
}

INNER void gemm_rows(float *y, int64_t ldy, const IntPanel *w, const IntRows *x, int k, int n_cols, bool add,
                     const int rows) {
    float tile[GEMM_ROWS * PANEL] = {0};
    if (add) copy_tile(tile, PANEL, y, ldy, rows, n_cols, PANEL);
    for (int c = 0, p = 0, n; c < k; c += n, p++) {
        n = k - c < PART ? k - c : PART;
        add_part(tile, (const int16_t *)w->q + c * PANEL, w->scale + p * PANEL, (const int16_t *)x->q + c, x->ld,
                 x->scale + p, x->parts, n, rows);
    }
    copy_tile(y, ldy, tile, PANEL, rows, n_cols, PANEL);
}

static void gemm(float *y, int64_t ldy, const IntPanel *w, const IntRows *x, int n, int k, int n_cols, bool add) {
    for (int j = 0, rows; j < n; j += rows, y += rows * ldy) {
        IntRows rest = rows_from(x, j, sizeof(int16_t));
        rows = n - j >= GEMM_ROWS ? GEMM_ROWS : n - j >= 2 ? 2 : 1;
        if (rows == GEMM_ROWS) gemm_rows(y, ldy, w, &rest, k, n_cols, add, GEMM_ROWS);
        else if (rows == 2) gemm_rows(y, ldy, w, &rest, k, n_cols, add, 2);
        else gemm_rows(y, ldy, w, &rest, k, n_cols, add, 1);
    }
}

const IntKernels int16_avx2 = {
    .shared = SHARED, .bytes = 2, .part = PART, .x_top = 2896, .w_top = 1448, .round = round_to_int16, .gemm = gemm};
