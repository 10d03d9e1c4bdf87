// bf16: the Bf16Kernels of x86 but for the gemm. Included by avx512bf16.c and amx.c, which define it and SHARED.
#pragma once
#include "inner.h"

#include <immintrin.h>

enum { PANEL = MAX_PANEL, PAIR = 2 };

#define BF16_KERNELS                                                                                                   \
    { .shared = SHARED, .round = round_to_bf16, .from_i8 = pairs_from_i8, .softmax_row = softmax_row, .gemm = gemm }

// The first n of 16 lanes, n clamped to 0..16.
static inline __mmask16 first_lanes(int64_t n) {
    if (n >= 16) return 0xffff;
    return (__mmask16)(n > 0 ? (1u << n) - 1 : 0);
}

static void round_to_bf16(uint16_t *y, const float *x, int64_t n) {
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m512bh v = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(x + i));
        _mm512_storeu_si512(y + i, (__m512i)v);
    }
    for (; i < n; i += 16) {
        __mmask16 m = first_lanes(n - i);
        __m256bh v = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(m, x + i));
        _mm256_mask_storeu_epi16(y + i, m, (__m256i)v);
    }
}

// 2^x for x <= SOFTMAX_MARGIN, 0 below -126: the best cubic of the fraction, 7.5e-5 relative.
static inline __m512 exp2_coarse(__m512 x) {
    __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_fmadd_ps(f, _mm512_set1_ps(0.07802452f), _mm512_set1_ps(0.22606716f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69583356f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.9999252f));
    __mmask16 real = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0f), _CMP_GE_OQ); // no denormals: they are slow
    return _mm512_maskz_scalef_ps(real, p, x);
}

// x[i..i+15], with `padding` from index n on.
static inline __m512 load_up_to(const float *x, int i, int n, float padding) {
    return _mm512_mask_loadu_ps(_mm512_set1_ps(padding), first_lanes(n - i), x + i);
}

// 2^(s - top) of keys j..j+31, zeros from key n on, rounded to p. Returns 16 partial sums.
static inline __m512 exp_pairs(uint16_t *p, const float *s, int j, int n, __m512 top, const float *scales) {
    bool whole = j + BF16_STEP <= n;
    __m512 half[2];
    for (int i = 0; i < 2; i++) {
        int at = j + 16 * i;
        __m512 x = whole ? _mm512_loadu_ps(s + at) : load_up_to(s, at, n, SCORE_MASKED);
        half[i] = exp2_coarse(_mm512_sub_ps(x, top));
    }
    __m512 sum = _mm512_add_ps(half[0], half[1]);
    if (scales) {
        for (int i = 0; i < 2; i++) half[i] = _mm512_mul_ps(half[i], load_up_to(scales, j + 16 * i, n, 0));
    }
    _mm512_storeu_si512(p + j, (__m512i)_mm512_cvtne2ps_pbh(half[1], half[0]));
    return sum;
}

static float softmax_row(uint16_t *p, const float *s, int n_keys, const float *scales, float *m, float *l) {
    float old = *m, top = old, alpha = 1;
    __m512 most = _mm512_set1_ps(old), sum = _mm512_setzero_ps();
    int j = 0;
    for (; j + 16 <= n_keys; j += 16) most = _mm512_max_ps(most, _mm512_loadu_ps(s + j));
    if (j < n_keys) most = _mm512_max_ps(most, load_up_to(s, j, n_keys, SCORE_MASKED));
    if (_mm512_cmp_ps_mask(most, _mm512_set1_ps(old + SOFTMAX_MARGIN), _CMP_GT_OQ)) {
        top = _mm512_reduce_max_ps(most);
        alpha = _mm512_cvtss_f32(exp2_coarse(_mm512_set1_ps(old - top)));
    }
    for (j = 0; j < n_keys; j += BF16_STEP) {
        sum = _mm512_add_ps(sum, exp_pairs(p, s, j, n_keys, _mm512_set1_ps(top), scales));
    }
    *m = top;
    *l = *l * alpha + _mm512_reduce_add_ps(sum);
    return alpha;
}

// int8 bytes i and i + 1 of 16 words as pairs of bfloat16, which holds them exactly.
static inline __m512i pair_of_bytes(__m512i words, int i) {
    __m512i low = _mm512_srai_epi32(_mm512_slli_epi32(words, 24 - 8 * i), 24);
    __m512i high = _mm512_srai_epi32(_mm512_slli_epi32(words, 16 - 8 * i), 24);
    __m512i low_bits = _mm512_srli_epi32((__m512i)_mm512_cvtepi32_ps(low), 16);
    return _mm512_mask_mov_epi16((__m512i)_mm512_cvtepi32_ps(high), 0x55555555, low_bits);
}

static void pairs_from_i8(uint16_t *y, const int8_t *x, int64_t n, int n_rows) {
    for (int r = 0; r < n_rows; r++, x += 4 * n, y += 4 * n) {
        for (int64_t i = 0; i < n; i += 16) {
            __mmask16 m = first_lanes(n - i);
            __m512i words = _mm512_maskz_loadu_epi32(m, x + 4 * i);
            _mm512_mask_storeu_epi32(y + 2 * i, m, pair_of_bytes(words, 0));
            _mm512_mask_storeu_epi32(y + 2 * (n + i), m, pair_of_bytes(words, 2));
        }
    }
}
