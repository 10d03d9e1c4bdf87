// What the bfloat16 rungs share: rounding, and pairs of probabilities. Included by avx512bf16.c and amx.c.
#pragma once
#include "kernels.h"

#include <immintrin.h>

#include <string.h>

enum { PANEL = 32, PAIR = 2, PANEL_PAIRS = PANEL * PAIR };

static void round_to_bf16(uint16_t *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : (__mmask16)0xffff;
        __m256bh v = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(m, x + i));
        _mm256_mask_storeu_epi16(y + i, m, (__m256i)v);
    }
}

static void pair(uint16_t *panel, const float *s, int n) {
    const __m512i half = _mm512_set1_epi32(0x00100000); // word i: value i of the low half, then of the high one
    __m512i order = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    order = _mm512_add_epi32(_mm512_or_si512(order, _mm512_slli_epi32(order, 16)), half);
    int padded = (n + BF16_STEP - 1) / BF16_STEP * BF16_STEP;
    for (int k = 0; k < padded; k += PAIR, panel += PANEL_PAIRS) {
        for (int lane = 0; lane < PANEL; lane += 16) {
            __m512 even = k < n ? _mm512_loadu_ps(s + k * PANEL + lane) : _mm512_setzero_ps();
            __m512 odd = k + 1 < n ? _mm512_loadu_ps(s + (k + 1) * PANEL + lane) : _mm512_setzero_ps();
            __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
            _mm512_storeu_si512(panel + lane * PAIR, _mm512_permutexvar_epi16(order, both));
        }
    }
}
