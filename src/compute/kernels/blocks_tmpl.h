// blocks_tmpl: products of quantized rows with a quantized vector, bytes times bytes; unpacking of block formats.
// Included before lanes_tmpl.h. Beside the vector V of that file, the including file must define:
//   U                         a vector of 4 * LANES bytes
//   u_load(p)                 unaligned
//   u_join(a, b, i)           vector i of a chunk, whose first and last bytes are in the ranges a and b
//   u_nibbles(a, b, i)        the same for the ranges b_nibbles(a) and b_nibbles(b)
//   u_dots(u, x)              LANES sums of four products of bytes as floats, bytes of u below 128; each sum is of one
//                             group, in a lane where v_spread has that group
//   u_dots_signed(u, x)       the same for signed bytes u, plus SIGNED_BIAS times the sum of x
//   u_lookup(table, u)        table[u] of 16 signed bytes, plus SIGNED_BIAS
//   u_dots_biased(u, x)       u_dots_signed of bytes u that have SIGNED_BIAS added already
//   I                         LANES int32, for the gemm of int8
//   i_set1(n) v_float(i)
//   i_dots_signed(i, u, x)    i + the products of signed bytes, four neighbours to a lane, with SIGNED_BIAS as above
//   u_set1(p)                 four bytes, repeated
//   v_spread(g, i)            g: a float for each of 16 groups; lane l gets that of group (4 * LANES * i + 4 l) / 16
//   v_twice(e, i)             vector i of the 8 floats of e, each twice
//   Bytes16, v_bytes(b, i)    16 bytes (a vector extension type); vector i of them, int8 as floats
//   v_store_i8(p, v)          LANES floats that are integers, as int8
//   B                         32 bytes, the values of a range
//   b_load(p) b_store(p, b) b_or(a, b)
//   b_bits(b, shift, mask)    b >> shift & mask, in every byte
//   b_up(b, shift)            b << shift in every byte, of which no bit is lost
//   b_nibbles(p)              the low nibbles of 16 bytes, then the high ones
//   b_where(bits, value)      byte j is `value` if bit j of 32 is set, else 0
//   b_lookup(table, b)        table[b] of 16 bytes
//   E                         8 floats, one for each block
//   e_load(p) e_scaled(e, x)
//   e_halves(h) e_bytes(v)    from 8 F16 values; from the bytes of a uint64_t
//   e_halves_q4_0(p)          from the scales of 8 blocks of Q4_0 (optional)
//   f_half(h)                 F16 as a float
//
// A chunk is 256 values of a row: a super-block or eight blocks of 32, read as eight ranges of 32. Each of its 16
// groups of 16 values has a scale and a minimum: a weight is scale * value + minimum, value a byte. The vector has 16
// bits in two planes of bytes (kernels.h), so sums of products are exact. The only error is the vector's rounding,
// 2^-16 of the largest of 32 neighbours, far below the quantization error of the weights.

#include "inner.h"

enum { CHUNK = 256, GROUPS = 16, GROUP_V = GROUPS / LANES, Q16_MAX = 255 * 127 + 127 };

// ---- the vector

// LANES values in 16 bits: (255 high + low) * scale.
typedef struct {
    V high, low;
} HighLow;

INNER HighLow high_low(V v, float inverse_scale) {
    V q = v_round(v_mul(v, v_set1(inverse_scale))), high = v_round(v_mul(q, v_set1(1.0f / 255)));
    return (HighLow){high, v_fma(high, v_set1(-255), q)};
}

static void quantize(const Activations *a, const float *x, int k) {
    for (int i = 0; i < k; i += BLOCK) {
        V v[BLOCK / LANES], top = v_zero();
        for (int j = 0; j < BLOCK / LANES; j++) {
            v[j] = v_load(x + i + j * LANES);
            top = v_max(top, v_max(v[j], v_sub(v_zero(), v[j])));
        }
        float most = v_max_of(top), scale = most * (1.0f / Q16_MAX), inverse = scale > 0 ? 1 / scale : 0;
        for (int j = 0; j < BLOCK / LANES; j++) {
            HighLow b = high_low(v[j], inverse);
            v_store_i8(a->high + i + j * LANES, b.high);
            v_store_i8(a->low + i + j * LANES, b.low);
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

// ---- values of range s of a chunk, as 32 bytes

INNER B fifth_bits(const uint8_t *p) {
    uint32_t bits;
    memcpy(&bits, p, sizeof bits);
    return b_where(bits, 16);
}

// Twice E2M1's values, plus 12.
static const uint8_t e2m1_bytes[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

INNER B range_of(const DType f, const uint8_t *p, int s) {
    switch (f) {
    case DTYPE_Q8_0: return b_load(p + s * 34 + 2);
    case DTYPE_Q4_0: return b_nibbles(p + s * 18 + 2);
    case DTYPE_Q4_1: return b_nibbles(p + s * 20 + 4);
    case DTYPE_Q5_0: return b_or(b_nibbles(p + s * 22 + 6), fifth_bits(p + s * 22 + 2));
    case DTYPE_Q5_1: return b_or(b_nibbles(p + s * 24 + 8), fifth_bits(p + s * 24 + 4));
    case DTYPE_IQ4_NL: return b_lookup((const uint8_t *)iq4_values, b_nibbles(p + s * 18 + 2));
    case DTYPE_IQ4_XS: {
        const BlockIQ4_XS *b = (const BlockIQ4_XS *)(const void *)p;
        return b_lookup((const uint8_t *)iq4_values, b_nibbles(b->q + s * 16));
    }
    case DTYPE_MXFP4: return b_lookup(e2m1_bytes, b_nibbles(p + s * 17 + 1));
    case DTYPE_Q4_K: return b_bits(b_load(((const BlockQ4_K *)(const void *)p)->q + s / 2 * 32), s % 2 * 4, 15);
    case DTYPE_Q5_K: {
        const BlockQ5_K *b = (const BlockQ5_K *)(const void *)p;
        B high = b_up(b_bits(b_load(b->high), s, 1), 4);
        return b_or(b_bits(b_load(b->q + s / 2 * 32), s % 2 * 4, 15), high);
    }
    case DTYPE_Q6_K: {
        const BlockQ6_K *b = (const BlockQ6_K *)(const void *)p;
        B high = b_up(b_bits(b_load(b->high + s / 4 * 32), s % 4 * 2, 3), 4);
        return b_or(b_bits(b_load(b->low + s / 4 * 64 + s % 2 * 32), s % 4 / 2 * 4, 15), high);
    }
    case DTYPE_Q2_K: return b_bits(b_load(((const BlockQ2_K *)(const void *)p)->q + s / 4 * 32), s % 4 * 2, 3);
    default: { // DTYPE_Q3_K
        const BlockQ3_K *b = (const BlockQ3_K *)(const void *)p;
        B high = b_up(b_bits(b_load(b->high), s, 1), 2);
        return b_or(b_bits(b_load(b->q + s / 4 * 32), s % 4 * 2, 3), high);
    }
    }
}

// ---- scales and minima of a chunk's groups

typedef struct {
    V scale[GROUP_V], minimum[GROUP_V];
} Scales;

// F16 values, `stride` bytes apart.
INNER E halves_at(const uint8_t *p, const int stride) {
    uint16_t h[8];
    for (int b = 0; b < 8; b++) memcpy(&h[b], p + b * stride, sizeof *h);
    return e_halves(h);
}
#ifndef e_halves_q4_0
#define e_halves_q4_0(p) halves_at(p, sizeof(BlockQ4_0))
#endif

INNER Bytes16 bytes_at(const void *p) {
    Bytes16 b;
    memcpy(&b, p, sizeof b);
    return b;
}

// The minimum is the scale times a constant.
INNER void scales_with_zero(Scales *s, E d, float zero) {
    for (int i = 0; i < GROUP_V; i++) {
        s->scale[i] = v_twice(d, i);
        s->minimum[i] = v_mul(s->scale[i], v_set1(zero));
    }
}

INNER void scales_with_minima(Scales *s, E d, E m) {
    for (int i = 0; i < GROUP_V; i++) {
        s->scale[i] = v_twice(d, i);
        s->minimum[i] = v_twice(m, i);
    }
}

// 6-bit scales and minima, four at a time (bit layout: quant.c).
INNER void scales_q4_k(Scales *s, const uint8_t *packed, uint16_t d, uint16_t m) {
    uint32_t p[3];
    memcpy(p, packed, sizeof p);
    uint32_t a = p[0], b = p[1], c = p[2];
    uint32_t scale_hi = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030),
             min_hi = (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030);
    uint64_t scales = (a & 0x3f3f3f3f) | (uint64_t)scale_hi << 32, minima = (b & 0x3f3f3f3f) | (uint64_t)min_hi << 32;
    scales_with_minima(s, e_scaled(e_bytes(scales), f_half(d)), e_scaled(e_bytes(minima), -f_half(m)));
}

// An int8 scale for each group, and a constant zero point.
INNER void scales_of_bytes(Scales *s, Bytes16 bytes, uint16_t d, float zero) {
    for (int i = 0; i < GROUP_V; i++) {
        s->scale[i] = v_mul(v_bytes(bytes, i), v_set1(f_half(d)));
        s->minimum[i] = v_mul(s->scale[i], v_set1(zero));
    }
}

INNER void scales_q2_k(Scales *s, const BlockQ2_K *b) {
    Bytes16 both = bytes_at(b->scales);
    for (int i = 0; i < GROUP_V; i++) {
        s->scale[i] = v_mul(v_bytes(both & 15, i), v_set1(f_half(b->d)));
        s->minimum[i] = v_mul(v_bytes(both >> 4, i), v_set1(-f_half(b->m)));
    }
}

INNER Bytes16 bytes_q3_k(const BlockQ3_K *b) {
    typedef uint32_t Words __attribute__((vector_size(16)));
    uint32_t p[3];
    memcpy(p, b->scales, sizeof p);
    uint32_t a = p[0], c = p[1], high = p[2];
    Words low = {a & 0x0f0f0f0f, c & 0x0f0f0f0f, a >> 4 & 0x0f0f0f0f, c >> 4 & 0x0f0f0f0f};
    Words top = {high << 4 & 0x30303030, high << 2 & 0x30303030, high & 0x30303030, high >> 2 & 0x30303030};
    return (Bytes16)(low | top) - 32;
}

// Half of each block's power of two, since e2m1_bytes are twice the values.
INNER E half_powers(const uint8_t *p) {
    float d[8];
    for (int b = 0; b < 8; b++) {
        uint32_t e = p[b * 17], bits = e > 1 ? (e - 1) << 23 : 0x00200000u << e;
        if (e == 255) bits = 0x7fc00000u;
        memcpy(&d[b], &bits, sizeof *d);
    }
    return e_load(d);
}

// 6-bit scales of the eight groups of 32: the bits are moved to bytes, four and two at a time.
INNER void scales_iq4_xs(Scales *s, const BlockIQ4_XS *b) {
    uint32_t packed;
    memcpy(&packed, b->low, sizeof packed);
    uint64_t low = packed, high = b->high;
    low = (low | low << 16) & 0x0000ffff0000ffffu;
    low = (low | low << 8) & 0x00ff00ff00ff00ffu;
    low = (low | low << 4) & 0x0f0f0f0f0f0f0f0fu;
    high = (high | high << 24) & 0x000000ff000000ffu;
    high = (high | high << 12) & 0x000f000f000f000fu;
    high = (high | high << 6) & 0x0303030303030303u;
    E scales = e_bytes(low | high << 4);
    for (int i = 0; i < GROUP_V; i++) {
        s->scale[i] = v_mul(v_sub(v_twice(scales, i), v_set1(32)), v_set1(f_half(b->d)));
        s->minimum[i] = v_mul(s->scale[i], v_set1(-(float)SIGNED_BIAS));
    }
}

INNER void scales_of(Scales *s, const DType f, const uint8_t *p) {
    switch (f) {
    case DTYPE_Q8_0: scales_with_zero(s, halves_at(p, 34), -(float)SIGNED_BIAS); break;
    case DTYPE_IQ4_NL: scales_with_zero(s, e_halves_q4_0(p), -(float)SIGNED_BIAS); break;
    case DTYPE_IQ4_XS: scales_iq4_xs(s, (const BlockIQ4_XS *)(const void *)p); break;
    case DTYPE_Q4_0: scales_with_zero(s, e_halves_q4_0(p), -8); break;
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
        scales_of_bytes(s, bytes_at(b->scales), b->d, -32);
        break;
    }
    case DTYPE_Q2_K: scales_q2_k(s, (const BlockQ2_K *)(const void *)p); break;
    default: // DTYPE_Q3_K
        scales_of_bytes(s, bytes_q3_k((const BlockQ3_K *)(const void *)p), ((const BlockQ3_K *)(const void *)p)->d, -4);
    }
}

// ---- to fp32

INNER bool has_signed_bytes(const DType f) {
    return f == DTYPE_Q8_0 || f == DTYPE_IQ4_NL || f == DTYPE_IQ4_XS;
}

// n values of a chunk. Products of scales and values are exact in fp32 and one sum is rounded (quant.h), so the results
// equal those of quant.c (but for the sign of zero). Bytes are below 128 or, of some formats, signed.
INNER void unpack_chunk(const DType f, float *y, const uint8_t *p, int n) {
    Scales s;
    float scale[GROUPS], minimum[GROUPS];
    int8_t values[BLOCK];
    scales_of(&s, f, p);
    for (int i = 0; i < GROUP_V; i++) {
        v_store(scale + i * LANES, s.scale[i]);
        v_store(minimum + i * LANES, has_signed_bytes(f) ? v_zero() : s.minimum[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < CHUNK / BLOCK; i++) {
        if (i * BLOCK >= n) break;
        b_store(values, range_of(f, p, i));
        for (int j = 0; j < BLOCK; j += LANES) {
            int g = (i * BLOCK + j) / 16;
            v_store(y + i * BLOCK + j, v_fma(v_load_i8(values + j), v_set1(scale[g]), v_set1(minimum[g])));
        }
    }
}

INNER void unpack_format(const DType f, const int block, const int block_bytes, float *y, const uint8_t *p, int n) {
    const int chunk_bytes = CHUNK / block * block_bytes;
    uint8_t padded[CHUNK / BLOCK * 34] = {0};
    for (; n >= CHUNK; n -= CHUNK, y += CHUNK, p += chunk_bytes) unpack_chunk(f, y, p, CHUNK);
    if (n > 0) unpack_chunk(f, y, memcpy(padded, p, (size_t)(n / block * block_bytes)), n);
}

// ---- rows

typedef struct {
    V high, low, minimum;
} Sums;

// Vector i of a chunk's values.
INNER U values_of(const DType f, const uint8_t *p, const int i) {
    int first = i * 4 * LANES / BLOCK, last = (i * 4 * LANES + 4 * LANES - 1) / BLOCK;
    if (f == DTYPE_Q4_0) return u_nibbles(p + first * 18 + 2, p + last * 18 + 2, i);
    if (f == DTYPE_IQ4_NL) return u_lookup(iq4_values, u_nibbles(p + first * 18 + 2, p + last * 18 + 2, i));
    if (f == DTYPE_IQ4_XS) return u_lookup(iq4_values, u_nibbles(p + first * 16 + 8, p + last * 16 + 8, i));
    if (f == DTYPE_Q4_1) return u_nibbles(p + first * 20 + 4, p + last * 20 + 4, i);
    return u_join(range_of(f, p, first), range_of(f, p, last), i);
}

INNER V dots_of(const DType f, U u, U x) {
    if (f == DTYPE_Q8_0) return u_dots_signed(u, x);
    return has_signed_bytes(f) ? u_dots_biased(u, x) : u_dots(u, x);
}

// Adds the products of the first n values of chunk c of a row.
INNER void add_chunk(Sums *sums, const DType f, const uint8_t *p, const Activations *a, int c, int n) {
    Scales s;
    scales_of(&s, f, p);
    for (int i = 0; i < GROUP_V; i++) {
        sums->minimum = v_fma(s.minimum[i], v_load(a->sum + c * GROUPS + i * LANES), sums->minimum);
        s.scale[i] = v_mul(s.scale[i], v_load(a->scale + c * GROUPS + i * LANES));
    }
    const int8_t *high = a->high + c * CHUNK, *low = a->low + c * CHUNK;
#pragma GCC unroll 16
    for (int i = 0; i < CHUNK / (4 * LANES); i++) {
        if (i * 4 * LANES >= n) break;
        U u = values_of(f, p, i);
        U xh = u_load(high + i * 4 * LANES), xl = u_load(low + i * 4 * LANES);
        V scale = v_spread(s.scale, i);
        sums->high = v_fma(dots_of(f, u, xh), scale, sums->high);
        sums->low = v_fma(dots_of(f, u, xl), scale, sums->low);
    }
}

// The whole chunks of a row, then the incomplete last one, whose padding is multiplied by zeros.
INNER V dot_of_row(const DType f, const int chunk_bytes, const uint8_t *w, const uint8_t *rest, const Activations *a,
                   int k) {
    Sums sums = {v_zero(), v_zero(), v_zero()};
    int n_chunks = k / CHUNK;
    for (int c = 0; c < n_chunks; c++, w += chunk_bytes) {
        for (int line = 0; line < chunk_bytes; line += LINE_BYTES) __builtin_prefetch(w + AHEAD_BYTES + line);
        add_chunk(&sums, f, w, a, c, CHUNK);
    }
    if (rest) add_chunk(&sums, f, rest, a, n_chunks, k % CHUNK);
    return v_add(v_fma(sums.high, v_set1(255), sums.low), sums.minimum);
}

static const uint8_t *padded_copy(uint8_t *padded, size_t room, const uint8_t *p, size_t n) {
    memset(padded, 0, room);
    return memcpy(padded, p, n);
}

INNER void matvec_format(const DType f, const int block, const int block_bytes, float *y, const uint8_t *w,
                         const Activations *a, int n_rows, int k) {
    const int chunk_bytes = CHUNK / block * block_bytes;
    int whole_bytes = k / CHUNK * chunk_bytes, row_bytes = k / block * block_bytes;
    const uint8_t *end = w + (int64_t)n_rows * row_bytes;
    uint8_t padded[CHUNK / BLOCK * 34];
    for (int i = 0; i < n_rows; i += 4) {
        V sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
        float sums[4];
        int n = n_rows - i < 4 ? n_rows - i : 4;
        for (int r = 0; r < n; r++, w += row_bytes) {
            const uint8_t *rest =
                whole_bytes < row_bytes ? w + whole_bytes : NULL; // may be read in place if rows follow
            if (rest && end - rest < chunk_bytes) {
                rest = padded_copy(padded, sizeof padded, rest, (size_t)(row_bytes - whole_bytes));
            }
            sum[r] = dot_of_row(f, chunk_bytes, w, rest, a, k);
        }
        v_sum4(sums, sum[0], sum[1], sum[2], sum[3]);
        memcpy(y + i, sums, sizeof(float) * (size_t)n);
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
DEFINE_FORMAT(iq4_nl, DTYPE_IQ4_NL, BLOCK, sizeof(BlockIQ4_NL))
DEFINE_FORMAT(q2_k, DTYPE_Q2_K, SUPER, sizeof(BlockQ2_K))
DEFINE_FORMAT(q3_k, DTYPE_Q3_K, SUPER, sizeof(BlockQ3_K))
DEFINE_FORMAT(q4_k, DTYPE_Q4_K, SUPER, sizeof(BlockQ4_K))
DEFINE_FORMAT(q5_k, DTYPE_Q5_K, SUPER, sizeof(BlockQ5_K))
DEFINE_FORMAT(q6_k, DTYPE_Q6_K, SUPER, sizeof(BlockQ6_K))
DEFINE_FORMAT(iq4_xs, DTYPE_IQ4_XS, SUPER, sizeof(BlockIQ4_XS))

#define OF_FORMAT(name)                                                                                                \
    { matvec_##name, unpack_##name##_fast }
static const BlockKernels block_kernels[N_DTYPES] = {
    [DTYPE_Q4_0] = OF_FORMAT(q4_0),     [DTYPE_Q4_1] = OF_FORMAT(q4_1),   [DTYPE_Q5_0] = OF_FORMAT(q5_0),
    [DTYPE_Q5_1] = OF_FORMAT(q5_1),     [DTYPE_Q8_0] = OF_FORMAT(q8_0),   [DTYPE_Q2_K] = OF_FORMAT(q2_k),
    [DTYPE_Q3_K] = OF_FORMAT(q3_k),     [DTYPE_Q4_K] = OF_FORMAT(q4_k),   [DTYPE_Q5_K] = OF_FORMAT(q5_k),
    [DTYPE_Q6_K] = OF_FORMAT(q6_k),     [DTYPE_MXFP4] = OF_FORMAT(mxfp4), [DTYPE_IQ4_NL] = OF_FORMAT(iq4_nl),
    [DTYPE_IQ4_XS] = OF_FORMAT(iq4_xs),
};
