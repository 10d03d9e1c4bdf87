// Dots of quantized rows with a quantized vector, for the x86 rungs: bytes times bytes. Included by avx2.c and avx512.c
// before lanes.h, which says what V is; they provide beside it:
//   U, N_STRETCHED            a vector of 4 * LANES bytes, and how many stretches of 32 values it holds
//   u_join(a, b)              of one or two stretches
//   u_load(p)                 unaligned
//   u_dots(u, x)              sums of four products of unsigned and signed bytes, as LANES whole floats
//   u_dots_signed(u, x)       the same of signed bytes u, plus SIGNED_BIAS times the sum of x
//   v_spread(g, i)            of 16 groups' floats those of vector i: lane l has group (4 * LANES * i + 4 l) / 16
//   v_twice(d, i)             of 8 blocks' floats, each twice: vector i of 16
//   v_bytes(b, i)             16 int8 as floats: vector i
//   v_store_i8(p, v)          LANES whole floats as int8
//
// A chunk is 256 values of a row: a super-block, or eight blocks of 32. Each of its 16 groups of 16 values has a scale
// and a minimum: a weight is scale * value + minimum, value a byte. The vector has 16 bits in two planes of bytes
// (kernels.h), so that sums of products are exact, and what is lost is the vector's rounding: 2^-16 of the largest of
// 32 neighbours, far below what quantized weights have lost before.

enum { CHUNK = 256, GROUPS = 16, GROUP_V = GROUPS / LANES, LEVELS = 255 * 127 + 127, AHEAD_BYTES = 4096 };

#define CONSTANT static inline __attribute__((always_inline)) // so that the format is known

// ---- the vector

static void quantize(const Activations *a, const float *x, int k) {
    for (int i = 0; i < k; i += BLOCK) {
        V v[BLOCK / LANES], top = v_zero();
        for (int j = 0; j < BLOCK / LANES; j++) {
            v[j] = v_load(x + i + j * LANES);
            top = v_max(top, v_max(v[j], v_sub(v_zero(), v[j])));
        }
        float most = v_max_of(top), scale = most * (1.0f / LEVELS), inverse = scale > 0 ? 1 / scale : 0;
        for (int j = 0; j < BLOCK / LANES; j++) {
            V q = v_round(v_mul(v[j], v_set1(inverse))), high = v_round(v_mul(q, v_set1(1.0f / 255)));
            v_store_i8(a->high + i + j * LANES, high);
            v_store_i8(a->low + i + j * LANES, v_fma(high, v_set1(-255), q));
        }
        for (int g = i / 16; g < (i + BLOCK) / 16; g++) {
            int sum = 0;
            for (int j = 16 * g; j < 16 * g + 16; j++) sum += 255 * a->high[j] + a->low[j];
            a->scale[g] = scale;
            a->sum[g] = scale * (float)sum;
        }
    }
    int padded = (k + CHUNK - 1) / CHUNK * CHUNK;
    memset(a->high + k, 0, (size_t)(padded - k));
    memset(a->low + k, 0, (size_t)(padded - k));
    memset(a->scale + k / 16, 0, sizeof(float) * (size_t)((padded - k) / 16));
    memset(a->sum + k / 16, 0, sizeof(float) * (size_t)((padded - k) / 16));
}

// ---- values: stretch s of a chunk's eight, as 32 bytes

CONSTANT __m256i load_32(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

CONSTANT __m256i bits_of(__m256i v, int shift, int mask) {
    return _mm256_and_si256(_mm256_srli_epi16(v, shift), _mm256_set1_epi8((char)mask));
}

// 16 bytes: all low nibbles, then all high ones.
CONSTANT __m256i nibbles(const uint8_t *p) {
    __m128i q = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(q, 4), q), _mm256_set1_epi8(15));
}

// Bit j of 32 as 16 in byte j.
CONSTANT __m256i fifth_bits(const uint8_t *p) {
    uint32_t bits;
    memcpy(&bits, p, sizeof bits);
    const __m256i byte = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), byte), bit);
    return _mm256_and_si256(_mm256_cmpeq_epi8(v, bit), _mm256_set1_epi8(16));
}

// Twice E2M1's values, plus 12.
CONSTANT __m256i e2m1_bytes(__m256i q) {
    const __m128i table = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), q);
}

CONSTANT __m256i stretch_of(const DType f, const uint8_t *p, int s) {
    switch (f) {
    case DTYPE_Q8_0: return load_32(p + s * 34 + 2);
    case DTYPE_Q4_0: return nibbles(p + s * 18 + 2);
    case DTYPE_Q4_1: return nibbles(p + s * 20 + 4);
    case DTYPE_Q5_0: return _mm256_or_si256(nibbles(p + s * 22 + 6), fifth_bits(p + s * 22 + 2));
    case DTYPE_Q5_1: return _mm256_or_si256(nibbles(p + s * 24 + 8), fifth_bits(p + s * 24 + 4));
    case DTYPE_MXFP4: return e2m1_bytes(nibbles(p + s * 17 + 1));
    case DTYPE_Q4_K: return bits_of(load_32(((const BlockQ4_K *)(const void *)p)->q + s / 2 * 32), s % 2 * 4, 15);
    case DTYPE_Q5_K: {
        const BlockQ5_K *b = (const BlockQ5_K *)(const void *)p;
        __m256i high = _mm256_slli_epi16(bits_of(load_32(b->high), s, 1), 4);
        return _mm256_or_si256(bits_of(load_32(b->q + s / 2 * 32), s % 2 * 4, 15), high);
    }
    case DTYPE_Q6_K: {
        const BlockQ6_K *b = (const BlockQ6_K *)(const void *)p;
        __m256i high = _mm256_slli_epi16(bits_of(load_32(b->high + s / 4 * 32), s % 4 * 2, 3), 4);
        return _mm256_or_si256(bits_of(load_32(b->low + s / 4 * 64 + s % 2 * 32), s % 4 / 2 * 4, 15), high);
    }
    case DTYPE_Q2_K: return bits_of(load_32(((const BlockQ2_K *)(const void *)p)->q + s / 4 * 32), s % 4 * 2, 3);
    default: { // DTYPE_Q3_K
        const BlockQ3_K *b = (const BlockQ3_K *)(const void *)p;
        __m256i high = _mm256_slli_epi16(bits_of(load_32(b->high), s, 1), 2);
        return _mm256_or_si256(bits_of(load_32(b->q + s / 4 * 32), s % 4 * 2, 3), high);
    }
    }
}

// ---- scales and minima of a chunk's groups

typedef struct {
    V scale[GROUP_V], minimum[GROUP_V];
} Scales;

// Numbers of half precision, `stride` bytes apart.
CONSTANT __m256 halves_at(const uint8_t *p, const int stride) {
    short h[8];
    for (int b = 0; b < 8; b++) memcpy(&h[b], p + b * stride, sizeof *h);
    // as an argument list they stay out of memory, where eight stores and one load behind them would wait
    return _mm256_cvtph_ps(_mm_setr_epi16(h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]));
}

// The minimum is the scale times a constant.
CONSTANT void scales_with_zero(Scales *s, __m256 d, float zero) {
    for (int i = 0; i < GROUP_V; i++) {
        s->scale[i] = v_twice(d, i);
        s->minimum[i] = v_mul(s->scale[i], v_set1(zero));
    }
}

CONSTANT void scales_with_minima(Scales *s, __m256 d, __m256 m) {
    for (int i = 0; i < GROUP_V; i++) s->scale[i] = v_twice(d, i), s->minimum[i] = v_twice(m, i);
}

CONSTANT __m256 eight_bytes(uint64_t v) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)v)));
}

// 6-bit scales and minima, four at a time (quant.c says which bits).
CONSTANT void scales_q4_k(Scales *s, const uint8_t *packed, uint16_t d, uint16_t m) {
    uint32_t a, b, c;
    memcpy(&a, packed, 4), memcpy(&b, packed + 4, 4), memcpy(&c, packed + 8, 4);
    uint32_t scale_hi = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030),
             min_hi = (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030);
    uint64_t scales = (a & 0x3f3f3f3f) | (uint64_t)scale_hi << 32, minima = (b & 0x3f3f3f3f) | (uint64_t)min_hi << 32;
    __m256 dd = _mm256_set1_ps(_cvtsh_ss(d)), mm = _mm256_set1_ps(-_cvtsh_ss(m));
    scales_with_minima(s, _mm256_mul_ps(dd, eight_bytes(scales)), _mm256_mul_ps(mm, eight_bytes(minima)));
}

// A scale of int8 for each group, and a constant zero.
CONSTANT void scales_of_bytes(Scales *s, __m128i bytes, uint16_t d, float zero) {
    for (int i = 0; i < GROUP_V; i++) {
        s->scale[i] = v_mul(v_bytes(bytes, i), v_set1(_cvtsh_ss(d)));
        s->minimum[i] = v_mul(s->scale[i], v_set1(zero));
    }
}

CONSTANT void scales_q2_k(Scales *s, const BlockQ2_K *b) {
    __m128i both = _mm_loadu_si128((const __m128i *)(const void *)b->scales), low = _mm_set1_epi8(15);
    for (int i = 0; i < GROUP_V; i++) {
        s->scale[i] = v_mul(v_bytes(_mm_and_si128(both, low), i), v_set1(_cvtsh_ss(b->d)));
        s->minimum[i] = v_mul(v_bytes(_mm_and_si128(_mm_srli_epi16(both, 4), low), i), v_set1(-_cvtsh_ss(b->m)));
    }
}

CONSTANT __m128i bytes_q3_k(const BlockQ3_K *b) {
    uint32_t a, c, high;
    memcpy(&a, b->scales, 4), memcpy(&c, b->scales + 4, 4), memcpy(&high, b->scales + 8, 4);
    __m128i low = _mm_setr_epi32((int)(a & 0x0f0f0f0f), (int)(c & 0x0f0f0f0f), (int)(a >> 4 & 0x0f0f0f0f),
                                 (int)(c >> 4 & 0x0f0f0f0f));
    __m128i top = _mm_setr_epi32((int)(high << 4 & 0x30303030), (int)(high << 2 & 0x30303030), (int)(high & 0x30303030),
                                 (int)(high >> 2 & 0x30303030));
    return _mm_sub_epi8(_mm_or_si128(low, top), _mm_set1_epi8(32));
}

// Half of each block's power of two, since the values are twice E2M1's.
CONSTANT __m256 half_powers(const uint8_t *p) {
    float d[8];
    for (int b = 0; b < 8; b++) {
        uint32_t e = p[b * 17], bits = e == 255 ? 0x7fc00000u : e > 1 ? (e - 1) << 23 : 0x00200000u << e;
        memcpy(&d[b], &bits, sizeof *d);
    }
    return _mm256_loadu_ps(d);
}

CONSTANT void scales_of(Scales *s, const DType f, const uint8_t *p) {
    switch (f) {
    case DTYPE_Q8_0: scales_with_zero(s, halves_at(p, 34), -SIGNED_BIAS); break;
    case DTYPE_Q4_0: scales_with_zero(s, halves_at(p, 18), -8); break;
    case DTYPE_Q4_1: scales_with_minima(s, halves_at(p, 20), halves_at(p + 2, 20)); break;
    case DTYPE_Q5_0: scales_with_zero(s, halves_at(p, 22), -16); break;
    case DTYPE_Q5_1: scales_with_minima(s, halves_at(p, 24), halves_at(p + 2, 24)); break;
    case DTYPE_MXFP4: scales_with_zero(s, half_powers(p), -12); break;
    case DTYPE_Q4_K: {
        const BlockQ4_K *b = (const BlockQ4_K *)(const void *)p;
        scales_q4_k(s, b->scales, b->d, b->m);
        break;
    }
    case DTYPE_Q5_K: {
        const BlockQ5_K *b = (const BlockQ5_K *)(const void *)p;
        scales_q4_k(s, b->scales, b->d, b->m);
        break;
    }
    case DTYPE_Q6_K: {
        const BlockQ6_K *b = (const BlockQ6_K *)(const void *)p;
        scales_of_bytes(s, _mm_loadu_si128((const __m128i *)(const void *)b->scales), b->d, -32);
        break;
    }
    case DTYPE_Q2_K: scales_q2_k(s, (const BlockQ2_K *)(const void *)p); break;
    default: // DTYPE_Q3_K
        scales_of_bytes(s, bytes_q3_k((const BlockQ3_K *)(const void *)p), ((const BlockQ3_K *)(const void *)p)->d, -4);
    }
}

// ---- to fp32

// A chunk of n values, the last perhaps with room for 256. Products of scales and values are exact in fp32 and one sum
// is rounded (quant.h), so these are the values that quant.c gives (but for a zero's sign). Bytes are below 128, but
// for Q8_0's, which are signed.
CONSTANT void unpack_chunk(const DType f, float *y, const uint8_t *p, int n) {
    Scales s;
    float scale[GROUPS], minimum[GROUPS];
    int8_t values[BLOCK];
    scales_of(&s, f, p);
    for (int i = 0; i < GROUP_V; i++) {
        v_store(scale + i * LANES, s.scale[i]);
        v_store(minimum + i * LANES, f == DTYPE_Q8_0 ? v_zero() : s.minimum[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < CHUNK / BLOCK; i++) {
        if (i * BLOCK >= n) break;
        _mm256_storeu_si256((__m256i *)(void *)values, stretch_of(f, p, i));
        for (int j = 0; j < BLOCK; j += LANES) {
            int g = (i * BLOCK + j) / 16;
            v_store(y + i * BLOCK + j, v_fma(v_load_i8(values + j), v_set1(scale[g]), v_set1(minimum[g])));
        }
    }
}

CONSTANT void unpack_format(const DType f, const int block, const int block_bytes, float *y, const uint8_t *p, int n) {
    const int chunk_bytes = CHUNK / block * block_bytes;
    uint8_t padded[CHUNK / BLOCK * 34] = {0};
    for (; n >= CHUNK; n -= CHUNK, y += CHUNK, p += chunk_bytes) unpack_chunk(f, y, p, CHUNK);
    if (n) unpack_chunk(f, y, memcpy(padded, p, (size_t)(n / block * block_bytes)), n);
}

// ---- rows

typedef struct {
    V high, low, minimum;
} Sums;

CONSTANT void add_chunk(Sums *sums, const DType f, const uint8_t *p, const Activations *a, int c) {
    Scales s;
    scales_of(&s, f, p);
    for (int i = 0; i < GROUP_V; i++) {
        sums->minimum = v_fma(s.minimum[i], v_load(a->sum + c * GROUPS + i * LANES), sums->minimum);
        s.scale[i] = v_mul(s.scale[i], v_load(a->scale + c * GROUPS + i * LANES));
    }
    const int8_t *high = a->high + c * CHUNK, *low = a->low + c * CHUNK;
#pragma GCC unroll 8
    for (int i = 0; i < CHUNK / (4 * LANES); i++) {
        U u = u_join(stretch_of(f, p, i * N_STRETCHED), stretch_of(f, p, i * N_STRETCHED + N_STRETCHED - 1));
        U xh = u_load(high + i * 4 * LANES), xl = u_load(low + i * 4 * LANES);
        V scale = v_spread(s.scale, i);
        bool is_signed = f == DTYPE_Q8_0;
        sums->high = v_fma(is_signed ? u_dots_signed(u, xh) : u_dots(u, xh), scale, sums->high);
        sums->low = v_fma(is_signed ? u_dots_signed(u, xl) : u_dots(u, xl), scale, sums->low);
    }
}

CONSTANT void matvec_format(const DType f, const int block, const int block_bytes, float *y, const uint8_t *w,
                            const Activations *a, int n_rows, int k) {
    const int chunk_bytes = CHUNK / block * block_bytes;
    int n_chunks = k / CHUNK, rest = k % CHUNK / block * block_bytes;
    uint8_t padded[CHUNK / BLOCK * 34] = {0};
    for (int r = 0; r < n_rows; r++, w += rest) {
        Sums sums = {v_zero(), v_zero(), v_zero()};
        for (int c = 0; c < n_chunks; c++, w += chunk_bytes) {
            for (int line = 0; line < chunk_bytes; line += 64) __builtin_prefetch(w + AHEAD_BYTES + line);
            add_chunk(&sums, f, w, a, c);
        }
        if (rest) add_chunk(&sums, f, memcpy(padded, w, (size_t)rest), a, n_chunks);
        y[r] = v_sum(v_add(v_fma(sums.high, v_set1(255), sums.low), sums.minimum));
    }
}

#define DEFINE_FORMAT(name, f, block, bytes)                                                                           \
    static void matvec_##name(float *y, const void *w, const Activations *a, int n_rows, int k) {                      \
        matvec_format(f, block, bytes, y, w, a, n_rows, k);                                                            \
    }                                                                                                                  \
    static void unpack_##name##_fast(float *y, const void *blocks, int n) {                                            \
        unpack_format(f, block, bytes, y, blocks, n);                                                                  \
    }
DEFINE_FORMAT(q4_0, DTYPE_Q4_0, BLOCK, sizeof(BlockQ4_0))
DEFINE_FORMAT(q4_1, DTYPE_Q4_1, BLOCK, sizeof(BlockQ4_1))
DEFINE_FORMAT(q5_0, DTYPE_Q5_0, BLOCK, sizeof(BlockQ5_0))
DEFINE_FORMAT(q5_1, DTYPE_Q5_1, BLOCK, sizeof(BlockQ5_1))
DEFINE_FORMAT(q8_0, DTYPE_Q8_0, BLOCK, sizeof(BlockQ8_0))
DEFINE_FORMAT(mxfp4, DTYPE_MXFP4, BLOCK, sizeof(BlockMxfp4))
DEFINE_FORMAT(q2_k, DTYPE_Q2_K, SUPER, sizeof(BlockQ2_K))
DEFINE_FORMAT(q3_k, DTYPE_Q3_K, SUPER, sizeof(BlockQ3_K))
DEFINE_FORMAT(q4_k, DTYPE_Q4_K, SUPER, sizeof(BlockQ4_K))
DEFINE_FORMAT(q5_k, DTYPE_Q5_K, SUPER, sizeof(BlockQ5_K))
DEFINE_FORMAT(q6_k, DTYPE_Q6_K, SUPER, sizeof(BlockQ6_K))

#define OF_FORMAT(name)                                                                                                \
    { matvec_##name, unpack_##name##_fast }
static const BlockKernels block_kernels[N_DTYPES] = {
    [DTYPE_Q4_0] = OF_FORMAT(q4_0), [DTYPE_Q4_1] = OF_FORMAT(q4_1),   [DTYPE_Q5_0] = OF_FORMAT(q5_0),
    [DTYPE_Q5_1] = OF_FORMAT(q5_1), [DTYPE_Q8_0] = OF_FORMAT(q8_0),   [DTYPE_Q2_K] = OF_FORMAT(q2_k),
    [DTYPE_Q3_K] = OF_FORMAT(q3_k), [DTYPE_Q4_K] = OF_FORMAT(q4_k),   [DTYPE_Q5_K] = OF_FORMAT(q5_k),
    [DTYPE_Q6_K] = OF_FORMAT(q6_k), [DTYPE_MXFP4] = OF_FORMAT(mxfp4),
};
