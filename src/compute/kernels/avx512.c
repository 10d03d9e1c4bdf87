// avx512: the kernels for AVX-512 F, BW, DQ, VL and VNNI. Sixteen lanes, 32 registers.
#include "inner.h"

#include <immintrin.h>
#include <string.h>

#define TABLE kernels_avx512
#define LEVEL_NAME "avx512"
#define V __m512
#define LANES 16
#define PANEL_V 2
#define GEMM_ROWS 12

#define v_zero _mm512_setzero_ps
#define v_set1 _mm512_set1_ps
#define v_load _mm512_loadu_ps
#define v_store _mm512_storeu_ps
#define v_add _mm512_add_ps
#define v_sub _mm512_sub_ps
#define v_mul _mm512_mul_ps
#define v_div _mm512_div_ps
#define v_min _mm512_min_ps
#define v_max _mm512_max_ps
#define v_fma _mm512_fmadd_ps
#define v_round(x) _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define v_sum _mm512_reduce_add_ps
#define v_max_of _mm512_reduce_max_ps

static inline __m512 v_load_first(const float *p, int n, __m512 v) {
    return _mm512_mask_loadu_ps(v, (__mmask16)((1u << n) - 1), p);
}

static inline void v_store_first(float *p, int n, __m512 v) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v);
}

static inline __m512 v_exp2_scale(__m512 p, __m512 n) {
    __mmask16 real = _mm512_cmp_ps_mask(n, _mm512_set1_ps(-127.0f), _CMP_GT_OQ); // no denormals: they are slow
    return _mm512_maskz_scalef_ps(real, p, n);
}

static inline __m512 v_load_i8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

static inline __m512 v_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

static inline __m512 v_load_bf16(const uint16_t *p) {
    __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

static inline __m512 v_low_bf16(__m512 w) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(w), 16));
}

static inline __m512 v_high_bf16(__m512 w) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(w), _mm512_set1_epi32(-65536)));
}

// Transpose and add inside the 128-bit lanes, then add the lanes: 13 instructions for four sums.
static inline void v_sum4(float *y, __m512 a, __m512 b, __m512 c, __m512 d) {
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); // a0 b0 a1 b1
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512 lo = _mm512_shuffle_ps(ab, cd, _MM_SHUFFLE(1, 0, 1, 0)); // a0 b0 c0 d0
    __m512 hi = _mm512_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 2, 3, 2));
    __m512 s = _mm512_add_ps(lo, hi);
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
    _mm_storeu_ps(y, _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)));
}

// Rows 0, 4, 8, 12: the masked loads cost no shuffle.
static inline __m512 every_fourth_row(const float *src, int64_t lds) {
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(src));
    v = _mm512_mask_broadcast_f32x4(v, 0x00f0, _mm_loadu_ps(src + 4 * lds));
    v = _mm512_mask_broadcast_f32x4(v, 0x0f00, _mm_loadu_ps(src + 8 * lds));
    return _mm512_mask_broadcast_f32x4(v, 0xf000, _mm_loadu_ps(src + 12 * lds));
}

static inline void transpose_4(float *dst, int64_t ldd, const float *src, int64_t lds) {
    __m512 a = every_fourth_row(src, lds), b = every_fourth_row(src + lds, lds);
    __m512 c = every_fourth_row(src + 2 * lds, lds), d = every_fourth_row(src + 3 * lds, lds);
    __m512 ab01 = _mm512_unpacklo_ps(a, b), ab23 = _mm512_unpackhi_ps(a, b);
    __m512 cd01 = _mm512_unpacklo_ps(c, d), cd23 = _mm512_unpackhi_ps(c, d);
    _mm512_storeu_ps(dst, _mm512_shuffle_ps(ab01, cd01, _MM_SHUFFLE(1, 0, 1, 0)));
    _mm512_storeu_ps(dst + ldd, _mm512_shuffle_ps(ab01, cd01, _MM_SHUFFLE(3, 2, 3, 2)));
    _mm512_storeu_ps(dst + 2 * ldd, _mm512_shuffle_ps(ab23, cd23, _MM_SHUFFLE(1, 0, 1, 0)));
    _mm512_storeu_ps(dst + 3 * ldd, _mm512_shuffle_ps(ab23, cd23, _MM_SHUFFLE(3, 2, 3, 2)));
}

#include "bytes_x86.h"

#define U __m512i
#define SIGNED_BIAS 128
#define u_load(p) _mm512_loadu_si512(p)
#define u_store(p, u) _mm512_storeu_si512(p, u)
#define u_or _mm512_or_si512
#define u_flip(u) _mm512_xor_si512(u, _mm512_set1_epi8((char)0x80))

// Addresses and shifts are constants but for a base, so the conditions are decided by the compiler. Masked broadcasts,
// and loads that cross a cache line, are slower than insertions.
INNER __m512i u_gather(const uint8_t *const at[4], const int h) {
    const int64_t b = at[1] - at[0], c = at[2] - at[0], d = at[3] - at[0];
    if (b == 16 && c == 32 && d == 48) return _mm512_loadu_si512(at[0]);
    if (b == 0 && c == 0 && d == 0) return _mm512_broadcast_i32x4(bytes_16(at[0]));
    if ((b == 0 || c == 0) && b + c == 32 && d == 32) {
        const int64_t q = 2 * h, r = q + b / 8, s = q + c / 8, t = q + d / 8;
        const __m512i quarters = _mm512_setr_epi64(q, q + 1, r, r + 1, s, s + 1, t, t + 1);
        return _mm512_permutexvar_epi64(quarters, _mm512_loadu_si512(at[0] - 16 * h));
    }
    __m256i first = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes_16(at[0])), bytes_16(at[1]), 1);
    __m256i last = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes_16(at[2])), bytes_16(at[3]), 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(first), last, 1);
}

INNER __m512i u_bits(__m512i u, const int shift[4], int mask) {
    const int a = shift[0], b = shift[1], c = shift[2], d = shift[3];
    const bool alike = a == b && a == c && a == d;
    if (!alike) u = _mm512_rorv_epi64(u, _mm512_setr_epi64(a, a, b, b, c, c, d, d));
    else if (a > 0) u = _mm512_srli_epi16(u, (unsigned)a);
    else if (a < 0) u = _mm512_slli_epi16(u, (unsigned)-a);
    return _mm512_and_si512(u, _mm512_set1_epi8((char)mask));
}

INNER __m512i u_half(const __m256i ranges[4], const int h) {
    __m512i a = _mm512_inserti64x4(_mm512_castsi256_si512(ranges[0]), ranges[1], 1);
    __m512i b = _mm512_inserti64x4(_mm512_castsi256_si512(ranges[2]), ranges[3], 1);
    return h ? _mm512_shuffle_i64x2(a, b, 0xdd) : _mm512_shuffle_i64x2(a, b, 0x88);
}

static inline __m512i u_lookup(const uint8_t *table, __m512i u) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes_16(table)), u);
}

// Words 0, 9, 18, ... 63.
#define e_halves_q4_0 e_halves_q4_0
static inline __m256 e_halves_q4_0(const uint8_t *p) {
    const __m512i words = _mm512_castsi128_si512(_mm_setr_epi16(0, 9, 18, 27, 36, 45, 54, 63));
    __m512i h = _mm512_permutex2var_epi16(_mm512_loadu_si512(p), words, _mm512_loadu_si512(p + 64));
    return _mm256_cvtph_ps(_mm512_castsi512_si128(h));
}

#define W __m512i
#define w_load(p) _mm512_loadu_si512(p)
#define w_even(u) _mm512_and_si512(u, _mm512_set1_epi16(255))
#define w_odd(u) _mm512_srli_epi16(u, 8)

typedef int I32x16 __attribute__((vector_size(64))); // gcc copies sums needlessly where they are __m512i

#define I I32x16
#define i_set1(n) (I32x16) _mm512_set1_epi32(n)
#define v_float(i) _mm512_cvtepi32_ps((__m512i)(i))

static inline I32x16 i_dots(__m512i w, __m512i x) {
    return (I32x16)_mm512_madd_epi16(w, x);
}

static inline I32x16 i_add_dots(I32x16 sum, __m512i w, __m512i x) {
    return (I32x16)_mm512_dpwssd_epi32((__m512i)sum, w, x);
}

static inline I32x16 i_dots_signed(I32x16 sum, __m512i u, __m512i x) {
    __m512i biased = _mm512_xor_si512(u, _mm512_set1_epi8((char)0x80));
    return (I32x16)_mm512_dpbusd_epi32((__m512i)sum, biased, x);
}

#define MOST_BYTE 255
static inline I32x16 i_dots_bytes(__m512i u, __m512i x) {
    return (I32x16)_mm512_dpbusd_epi32(_mm512_setzero_si512(), u, x);
}

static inline I32x16 i_dots_bytes_2(const __m512i u[2], const __m512i x[2]) {
    return (I32x16)_mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), u[0], x[0]), u[1], x[1]);
}

static inline __m512i u_set1(const int8_t *p) {
    int word;
    memcpy(&word, p, sizeof word);
    return _mm512_set1_epi32(word);
}

static inline __m512 v_load_u8(const uint8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

INNER __m512 v_spread(__m512 v, int j) {
    return SPREAD(_mm512_permute_ps, v, j);
}

static inline __m512 v_blocks(__m256 e, int i) {
    (void)i;
    const __m512i twice = _mm512_setr_epi32(0, 4, 0, 4, 1, 5, 1, 5, 2, 6, 2, 6, 3, 7, 3, 7);
    return _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(e));
}

static inline __m512 v_bytes(Bytes16 b, int i) {
    (void)i;
    const __m128i order = _mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_shuffle_epi8((__m128i)b, order)));
}

static inline void v_store_i16(int16_t *p, __m512 v) {
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v)));
}

static inline void v_store_i8(int8_t *p, __m512 v) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
}

#include "blocks_tmpl.h"
#include "lanes_tmpl.h"
