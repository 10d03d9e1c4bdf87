// int8: the products of int8 of x86 but for the gemm. Included by vnni.c and amx.c, which define it.
#pragma once
#include "inner.h"

#include <immintrin.h>

#define INT8_KERNELS                                                                                                   \
    {                                                                                                                  \
        .shared = SHARED, .bytes = 1, .part = INT_COLUMNS, .x_top = INT8_TOP, .w_top = INT8_TOP,                       \
        .round = round_to_int8, .gemm = gemm_int8                                                                      \
    }

static float round_to_int8(void *q, const float *x, int n, float limit) {
    __m512 most = _mm512_setzero_ps(), poison = most;
    for (int i = 0; i < n; i += 16) {
        __m512 v = _mm512_loadu_ps(x + i);
        most = _mm512_max_ps(most, _mm512_abs_ps(v));
        poison = _mm512_fmadd_ps(v, _mm512_setzero_ps(), poison); // NaN where a value is not finite
    }
    float top = _mm512_reduce_max_ps(most), inverse = top >= SMALLEST_TOP ? limit / top : 0;
    for (int i = 0; i < n; i += 16) {
        __m512i words = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(inverse)));
        _mm_storeu_si128((__m128i *)(void *)((int8_t *)q + i), _mm512_cvtepi32_epi8(words));
    }
    return (top >= SMALLEST_TOP ? top / limit : 0) + _mm512_reduce_add_ps(poison);
}

// y (+)= the integer sums times the scales of their row and columns, of 16 columns where m is set.
static inline void scale_sums(float *y, __m512i sums, float x_scale, __m512 w_scales, __mmask16 m, bool add) {
    __m512 scale = _mm512_mul_ps(_mm512_set1_ps(x_scale), w_scales);
    __m512 before = add ? _mm512_maskz_loadu_ps(m, y) : _mm512_setzero_ps();
    _mm512_mask_storeu_ps(y, m, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), scale, before));
}
