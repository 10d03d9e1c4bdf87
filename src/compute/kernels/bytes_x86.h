// bytes_x86: the byte operations (B and E) of blocks_tmpl.h on x86: AVX2 and F16C. Included by avx2.c and avx512.c.
typedef uint8_t Bytes16 __attribute__((vector_size(16)));

// Each four lanes of v get the j-th of them, by an instruction whose immediate must be a literal.
#define SPREAD(permute, v, j)                                                                                          \
    ((j) == 0 ? permute(v, 0x00) : (j) == 1 ? permute(v, 0x55) : (j) == 2 ? permute(v, 0xaa) : permute(v, 0xff))

#define B __m256i
#define b_or _mm256_or_si256

INNER __m128i bytes_16(const uint8_t *p) {
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static inline __m256i b_load(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

static inline __m256i b_nibbles(const uint8_t *p) {
    __m128i q = bytes_16(p);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(q, 4), q), _mm256_set1_epi8(15));
}

static inline __m256i b_where(uint32_t bits, int value) {
    const __m256i byte = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), byte), bit);
    return _mm256_and_si256(_mm256_cmpeq_epi8(v, bit), _mm256_set1_epi8((char)value));
}

static inline __m256i b_words(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    return _mm256_setr_epi64x((long long)a, (long long)b, (long long)c, (long long)d);
}

#define b_add _mm256_add_epi8

static inline __m256i b_at_most(__m256i b, int n) {
    return _mm256_cmpeq_epi8(_mm256_min_epu8(b, _mm256_set1_epi8((char)n)), b);
}

static inline __m256i b_negate(__m256i b, uint32_t bits) {
    __m256i negative = b_where(bits, 255);
    return _mm256_sub_epi8(_mm256_xor_si256(b, negative), negative);
}

#define E __m256
#define e_load _mm256_loadu_ps
#define f_half _cvtsh_ss

static inline __m256 e_halves(const uint16_t *h) {
    // through arguments, not memory: a load after eight narrow stores would stall
    return _mm256_cvtph_ps(_mm_setr_epi16((short)h[0], (short)h[1], (short)h[2], (short)h[3], (short)h[4], (short)h[5],
                                          (short)h[6], (short)h[7]));
}

static inline __m256 e_bytes(uint64_t v) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)v)));
}

static inline __m256 e_scaled(__m256 e, float x) {
    return _mm256_mul_ps(e, _mm256_set1_ps(x));
}
