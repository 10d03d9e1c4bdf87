// avx2: the kernels for AVX2, FMA and F16C. Eight lanes, 16 registers.
#include "inner.h"

#include <immintrin.h>
#include <string.h>

#define TABLE kernels_avx2
#define LEVEL_NAME "avx2"
#define V __m256
#define LANES 8
#define PANEL_V 2
#define GEMM_ROWS 6

#define v_zero _mm256_setzero_ps
#define v_set1 _mm256_set1_ps
#define v_load _mm256_loadu_ps
#define v_store _mm256_storeu_ps
#define v_add _mm256_add_ps
#define v_sub _mm256_sub_ps
#define v_mul _mm256_mul_ps
#define v_div _mm256_div_ps
#define v_min _mm256_min_ps
#define v_max _mm256_max_ps
#define v_fma _mm256_fmadd_ps
#define v_round(x) _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)

static inline __m256i first_lanes(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline __m256 v_load_first(const float *p, int n, __m256 v) {
    __m256i first = first_lanes(n);
    return _mm256_blendv_ps(v, _mm256_maskload_ps(p, first), _mm256_castsi256_ps(first));
}

static inline void v_store_first(float *p, int n, __m256 v) {
    _mm256_maskstore_ps(p, first_lanes(n), v);
}

static inline __m256 v_load_i8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

static inline __m256 v_load_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

static inline __m256 v_load_bf16(const uint16_t *p) {
    __m128i half = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

static inline __m256 v_low_bf16(__m256 w) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(w), 16));
}

static inline __m256 v_high_bf16(__m256 w) {
    return _mm256_and_ps(w, _mm256_castsi256_ps(_mm256_set1_epi32(-65536)));
}

static inline __m256 v_exp2_scale(__m256 p, __m256 n) {
    __m256i bits = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23)));
}

static inline void v_sum4(float *y, __m256 a, __m256 b, __m256 c, __m256 d) {
    __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(y, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

static inline float v_sum(__m256 a) {
    float y[4];
    v_sum4(y, a, a, a, a);
    return y[0];
}

static inline float v_max_of(__m256 a) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

static inline __m256 every_fourth_row(const float *src, int64_t lds) { // rows 0 and 4
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(src)), _mm_loadu_ps(src + 4 * lds), 1);
}

static inline void transpose_4(float *dst, int64_t ldd, const float *src, int64_t lds) {
    __m256 a = every_fourth_row(src, lds), b = every_fourth_row(src + lds, lds);
    __m256 c = every_fourth_row(src + 2 * lds, lds), d = every_fourth_row(src + 3 * lds, lds);
    __m256 ab01 = _mm256_unpacklo_ps(a, b), ab23 = _mm256_unpackhi_ps(a, b);
    __m256 cd01 = _mm256_unpacklo_ps(c, d), cd23 = _mm256_unpackhi_ps(c, d);
    _mm256_storeu_ps(dst, _mm256_shuffle_ps(ab01, cd01, _MM_SHUFFLE(1, 0, 1, 0)));
    _mm256_storeu_ps(dst + ldd, _mm256_shuffle_ps(ab01, cd01, _MM_SHUFFLE(3, 2, 3, 2)));
    _mm256_storeu_ps(dst + 2 * ldd, _mm256_shuffle_ps(ab23, cd23, _MM_SHUFFLE(1, 0, 1, 0)));
    _mm256_storeu_ps(dst + 3 * ldd, _mm256_shuffle_ps(ab23, cd23, _MM_SHUFFLE(3, 2, 3, 2)));
}

#include "bytes_x86.h"

#define U __m256i
#define SIGNED_BIAS 0
#define u_or _mm256_or_si256
#define u_flip(u) _mm256_xor_si256(u, _mm256_set1_epi8((char)0x80))

static inline __m256i u_load(const int8_t *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

static inline void u_store(uint8_t *p, __m256i u) {
    _mm256_storeu_si256((__m256i *)(void *)p, u);
}

// Addresses and shifts are constants but for a base, so the conditions are decided by the compiler.
INNER __m256i u_gather(const uint8_t *const at[2], const int h) {
    (void)h;
    if (at[1] == at[0] + 16) return _mm256_loadu_si256((const __m256i *)(const void *)at[0]);
    __m128i first = bytes_16(at[0]);
    if (at[1] == at[0]) return _mm256_broadcastsi128_si256(first);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(first), bytes_16(at[1]), 1);
}

// Of different shifts none is to the left, or none to the right.
INNER __m256i u_bits(__m256i u, const int shift[2], int mask) {
    const int a = shift[0], b = shift[1];
    if (a != b && a >= 0 && b >= 0) u = _mm256_srlv_epi64(u, _mm256_setr_epi64x(a, a, b, b));
    else if (a != b) u = _mm256_sllv_epi64(u, _mm256_setr_epi64x(-a, -a, -b, -b));
    else if (a > 0) u = _mm256_srli_epi16(u, a);
    else if (a < 0) u = _mm256_slli_epi16(u, -a);
    return _mm256_and_si256(u, _mm256_set1_epi8((char)mask));
}

INNER __m256i u_half(const __m256i ranges[2], const int h) {
    return h ? _mm256_permute2x128_si256(ranges[0], ranges[1], 0x31)
             : _mm256_permute2x128_si256(ranges[0], ranges[1], 0x20);
}

static inline __m256i u_lookup(const uint8_t *table, __m256i u) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes_16(table)), u);
}

#define W __m256i
#define v_float _mm256_cvtepi32_ps

static inline __m256i w_load(const int16_t *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

#define w_even(u) _mm256_and_si256(u, _mm256_set1_epi16(255))
#define w_odd(u) _mm256_srli_epi16(u, 8)

#define I __m256i
#define i_set1 _mm256_set1_epi32
#define i_dots _mm256_madd_epi16
#define i_add_dots(sum, w, x) _mm256_add_epi32(sum, _mm256_madd_epi16(w, x))

// Sums of two products fit 16 bits: at most 128 * 127 * 2.
static inline __m256i i_dots_signed(__m256i sum, __m256i u, __m256i x) {
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(u), _mm256_sign_epi8(x, u));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

// Sums of two and of four products fit 16 bits.
#define MOST_BYTE 63
static inline __m256i i_dots_bytes(__m256i u, __m256i x) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(u, x), _mm256_set1_epi16(1));
}

static inline __m256i i_dots_bytes_2(const __m256i u[2], const __m256i x[2]) {
    __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(u[0], x[0]), _mm256_maddubs_epi16(u[1], x[1]));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

static inline __m256i u_set1(const int8_t *p) {
    int word;
    memcpy(&word, p, sizeof word);
    return _mm256_set1_epi32(word);
}

static inline __m256 v_load_u8(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

INNER __m256 v_spread(__m256 v, int j) {
    return SPREAD(_mm256_permute_ps, v, j);
}

static inline __m256 v_blocks(__m256 e, int i) {
    (void)i;
    return _mm256_permutevar8x32_ps(e, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
}

static inline __m256 v_bytes(Bytes16 b, int i) {
    const __m128i first = _mm_setr_epi8(0, 4, 8, 12, 2, 6, 10, 14, -1, -1, -1, -1, -1, -1, -1, -1);
    __m128i of_i = _mm_shuffle_epi8((__m128i)b, _mm_add_epi8(first, _mm_set1_epi8((char)i)));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(of_i));
}

static inline void v_store_i16(int16_t *p, __m256 v) {
    __m256i q = _mm256_cvtps_epi32(v);
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storeu_si128((__m128i *)(void *)p, words);
}

static inline void v_store_i8(int8_t *p, __m256 v) {
    __m256i q = _mm256_cvtps_epi32(v);
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packs_epi16(words, words));
}

#include "blocks_tmpl.h"
#include "lanes_tmpl.h"

#include "int6.h"
