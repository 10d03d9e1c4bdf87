// What the bfloat16 rungs share: rounding, and a softmax that leaves a panel. Included by avx512bf16.c and amx.c.
#pragma once
#include "inner.h"

#include <immintrin.h>
#include <string.h>

enum { PANEL = 32, PAIR = 2, PANEL_PAIRS = PANEL * PAIR };

static void round_to_bf16(uint16_t *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffff);
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

// 16 lanes: the largest of n scores and of what it was, less when it has grown by little.
static inline __m512 lane_top(const float *s, int n, __m512 old) {
    __m512 top = old;
    for (int j = 0; j < n; j++) top = _mm512_max_ps(top, _mm512_loadu_ps(s + j * PANEL));
    __mmask16 far = _mm512_cmp_ps_mask(top, _mm512_add_ps(old, _mm512_set1_ps(SOFTMAX_MARGIN)), _CMP_GT_OQ);
    return _mm512_mask_mov_ps(old, far, top);
}

static bool softmax_lanes(uint16_t *panel, const float *s, int n_keys, float *m, float *l, float *alpha) {
    // word i: value i of the low half, then value i of the high one
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i order = _mm512_or_si512(low, _mm512_slli_epi32(_mm512_add_epi32(low, _mm512_set1_epi32(16)), 16));
    int padded = (n_keys + BF16_STEP - 1) / BF16_STEP * BF16_STEP;
    bool rescale = false;
    for (int lane = 0; lane < PANEL; lane += 16) {
        __m512 old = _mm512_loadu_ps(m + lane), top = lane_top(s + lane, n_keys, old), sum = _mm512_setzero_ps();
        uint16_t *out = panel + lane * PAIR;
        for (int k = 0; k < padded; k += PAIR, out += PANEL_PAIRS) {
            __m512 p[PAIR];
            for (int i = 0; i < PAIR; i++) {
                p[i] = _mm512_setzero_ps();
                if (k + i < n_keys) p[i] = exp2_coarse(_mm512_sub_ps(_mm512_loadu_ps(s + (k + i) * PANEL + lane), top));
                sum = _mm512_add_ps(sum, p[i]);
            }
            __m512i both = (__m512i)_mm512_cvtne2ps_pbh(p[1], p[0]);
            _mm512_storeu_si512(out, _mm512_permutexvar_epi16(order, both));
        }
        __m512 scale = exp2_coarse(_mm512_sub_ps(old, top));
        scale = _mm512_mask_mov_ps(scale, _mm512_cmp_ps_mask(old, top, _CMP_EQ_OQ), _mm512_set1_ps(1.0f));
        _mm512_storeu_ps(m + lane, top);
        _mm512_storeu_ps(alpha + lane, scale);
        _mm512_storeu_ps(l + lane, _mm512_fmadd_ps(_mm512_loadu_ps(l + lane), scale, sum));
        rescale |= _mm512_cmp_ps_mask(old, top, _CMP_NEQ_OQ) != 0;
    }
    return rescale;
}
