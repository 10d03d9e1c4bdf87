// The avx512 rung: F, BW, DQ, VL, VNNI. Sixteen lanes, 32 registers.
#include "avx512.h"

#include "kernels.h"

#include <string.h>

#define TABLE kernels_avx512
#define RUNG_NAME "avx512"
#define PANEL_V 2
#define GEMM_COLS 12

// ---- bytes, for blocks.h

#include "bytes_x86.h"

#define U __m512i
#define SIGNED_BIAS 128.0f
#define u_load(p) _mm512_loadu_si512(p)

static inline __m512i u_join(__m256i a, __m256i b, int i) {
    (void)i;
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

static inline __m512i u_nibbles(const uint8_t *a, const uint8_t *b, int i) {
    (void)i;
    __m512i v = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)a));
    v = _mm512_mask_broadcast_i32x4(v, 0xff00, _mm_loadu_si128((const __m128i *)(const void *)b));
    v = _mm512_srlv_epi64(v, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4));
    return _mm512_and_si512(v, _mm512_set1_epi8(15));
}

// Words 0, 9, 18, ... 63.
#define e_halves_q4_0 e_halves_q4_0
static inline __m256 e_halves_q4_0(const uint8_t *p) {
    const __m512i words = _mm512_castsi128_si512(_mm_setr_epi16(0, 9, 18, 27, 36, 45, 54, 63));
    __m512i h = _mm512_permutex2var_epi16(_mm512_loadu_si512(p), words, _mm512_loadu_si512(p + 64));
    return _mm256_cvtph_ps(_mm512_castsi512_si128(h));
}

static inline __m512 u_dots(__m512i u, __m512i x) {
    return _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), u, x));
}

static inline __m512 u_dots_signed(__m512i u, __m512i x) {
    return u_dots(_mm512_xor_si512(u, _mm512_set1_epi8((char)0x80)), x);
}

static inline __m512 v_spread(const __m512 *groups, int i) {
    const __m512i quarter = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return _mm512_permutexvar_ps(_mm512_add_epi32(quarter, _mm512_set1_epi32(4 * i)), *groups);
}

static inline __m512 v_twice(__m256 d, int i) {
    (void)i;
    const __m512i pairs = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(pairs, _mm512_castps256_ps512(d));
}

static inline __m512 v_bytes(Bytes16 b, int i) {
    (void)i;
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32((__m128i)b));
}

static inline void v_store_i8(int8_t *p, __m512 v) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
}

#include "blocks.h"
#include "lanes.h"
