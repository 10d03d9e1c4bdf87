// transpose4 for the x86 rungs: a 4 x 4 block of floats through four SSE registers.
#pragma once
#include <immintrin.h>
#include <stdint.h>

static inline void transpose4(float *dst, int64_t ldd, const float *src, int64_t lds) {
    __m128 a = _mm_loadu_ps(src), b = _mm_loadu_ps(src + lds);
    __m128 c = _mm_loadu_ps(src + 2 * lds), d = _mm_loadu_ps(src + 3 * lds);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(dst, a);
    _mm_storeu_ps(dst + ldd, b);
    _mm_storeu_ps(dst + 2 * ldd, c);
    _mm_storeu_ps(dst + 3 * ldd, d);
}
