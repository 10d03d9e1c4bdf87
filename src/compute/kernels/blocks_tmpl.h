// blocks_tmpl: products of quantized rows with a quantized vector, bytes times bytes; unpacking of block formats.
// Included before lanes_tmpl.h. Beside the vector V of that file, the including file must define:
//   U                         a vector of 4 * LANES bytes
//   u_load(p) u_store(p, u)   unaligned
//   u_join(a, b, i)           vector i of a chunk, whose first and last bytes are in the ranges a and b
//   u_nibbles(a, b, i)        the same for the ranges b_nibbles(a) and b_nibbles(b)
//   u_lookup(table, u)        table[u] of 16 signed bytes
//   W                         a vector of 2 * LANES int16
//   w_load(p)                 unaligned
//   w_half(u, h) w_half_signed(u, h)  half h of each 16 bytes of u, below 128 or signed, as words
//   w_dots(w0, w1, x0, x1)    LANES sums of four products of words as floats, two of w0 x0 and two of w1 x1
//   I                         LANES int32, for the gemm of int8
//   i_set1(n) v_float(i)
//   i_dots_signed(i, u, x)    i + the products of signed bytes, four neighbours to a lane, plus SIGNED_BIAS times the
//                             sum of x
//   u_set1(p)                 four bytes, repeated
//   v_spread(g, i, pairs)     g: a float for each of 16 groups; lane l gets that of group (4 * LANES * i + 4 l) / 16.
//                             pairs: the groups 2 i and 2 i + 1 have the same
//   v_twice(e, i)             vector i of the 8 floats of e, each twice
//   Bytes16, v_bytes(b, i)    16 bytes (a vector extension type); vector i of them, int8 as floats
//   v_store_i8(p, v) v_store_i16(p, v)  LANES floats that are integers, as int8 or int16
//   B                         32 bytes, the values of a range
//   b_load(p) b_store(p, b) b_or(a, b)
//   b_bits(b, shift, mask)    b >> shift & mask, in every byte
//   b_up(b, shift)            b << shift in every byte, of which no bit is lost
//   b_nibbles(p)              the low nibbles of 16 bytes, then the high ones
//   b_where(bits, value)      byte j is `value` if bit j of 32 is set, else 0
//   b_lookup(table, b)        table[b] of 16 bytes
//   b_words(a, b, c, d)       the bytes of four uint64_t, lowest first
//   b_add(a, b)               sums of bytes
//   b_at_most(b, n)           -1 in the bytes, unsigned, that are n or less, else 0
//   b_negate(b, bits)         byte j is negated, as int8, if bit j of 32 is set
//   E                         8 floats, one for each block
//   e_load(p) e_scaled(e, x)
//   e_halves(h) e_bytes(v)    from 8 F16 values; from the bytes of a uint64_t
//   e_halves_q4_0(p)          from the scales of 8 blocks of Q4_0 (optional)
//   f_half(h)                 F16 as a float
//
// A chunk is 256 values of a row: a super-block or eight blocks of 32, read as eight ranges of 32. Each of its 16
// groups of 16 values has a scale and a minimum: a weight is scale * value + minimum, value a byte. The vector has 16
// bits (kernels.h), so sums of four products are exact in fp32. The only error is the vector's rounding, 2^-16 of the
// largest of 32 neighbours, far below the quantization error of the weights.
//
// One vector meets rows as they are decoded. Several meet a tile of decoded rows: the same operations in the same
// order, so the same bits.

#include "inner.h"

#include "grids_tmpl.h"

enum {
    CHUNK = 256,
    GROUPS = 16,
    GROUP_V = GROUPS / LANES,
    UNIT = 4 * LANES, // values of a U
    UNITS = CHUNK / UNIT,
    Q16_MAX = 255 * 127 + 127,
    TILE_X = 4,      // vectors whose sums are registers
    TILE_ROWS = 8,   // rows decoded at a time
    TILE_CHUNKS = 2, // chunks of each: they stay in L1, and so does this part of TILE_X vectors
};

// ---- the vector

// The place of value i, a multiple of 8, in Activations.q: two halves of a unit as w_half takes them from its bytes.
INNER int word_at(int i) {
    return i / UNIT * UNIT + i % 16 / 8 * (UNIT / 2) + i % UNIT / 16 * 8;
}

static void quantize(const Activations *a, const float *x, int k) {
    for (int i = 0; i < k; i += BLOCK) {
        V v[BLOCK / LANES], top = v_zero();
        for (int j = 0; j < BLOCK / LANES; j++) {
            v[j] = v_load(x + i + j * LANES);
            top = v_max(top, v_max(v[j], v_sub(v_zero(), v[j])));
        }
        float most = v_max_of(top), scale = most * (1.0f / Q16_MAX), inverse = scale > 0 ? 1 / scale : 0;
        int16_t words[BLOCK];
        for (int j = 0; j < BLOCK / LANES; j++) v_store_i16(words + j * LANES, v_round(v_mul(v[j], v_set1(inverse))));
        for (int j = 0; j < BLOCK; j += 8) memcpy(a->q + word_at(i + j), words + j, 8 * sizeof *words);
        for (int g = 0; g < BLOCK / 16; g++) {
            int sum = 0;
            for (int j = 16 * g; j < 16 * g + 16; j++) sum += words[j];
            a->scale[i / 16 + g] = scale;
            a->sum[i / 16 + g] = scale * (float)sum;
        }
    }
    int padded = (k + CHUNK - 1) / CHUNK * CHUNK;
    for (int i = k; i < padded; i += 8) memset(a->q + word_at(i), 0, 8 * sizeof *a->q);
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
    case DTYPE_Q3_K: {
        const BlockQ3_K *b = (const BlockQ3_K *)(const void *)p;
        B high = b_up(b_bits(b_load(b->high), s, 1), 2);
        return b_or(b_bits(b_load(b->q + s / 4 * 32), s % 4 * 2, 3), high);
    }
    default: return range_of_grid(f, p, s);
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
INNER void scales_of_bytes(Scales *s, Bytes16 bytes, float d, float zero) {
    for (int i = 0; i < GROUP_V; i++) {
        s->scale[i] = v_mul(v_bytes(bytes, i), v_set1(d));
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
    uint64_t low = nibbles_apart(four_bytes(b->low)), high = b->high;
    high = (high | high << 24) & 0x000000ff000000ffu;
    high = (high | high << 12) & 0x000f000f000f000fu;
    high = (high | high << 6) & 0x0303030303030303u;
    E scales = e_bytes(low | high << 4);
    for (int i = 0; i < GROUP_V; i++) {
        s->scale[i] = v_mul(v_sub(v_twice(scales, i), v_set1(32)), v_set1(f_half(b->d)));
        s->minimum[i] = v_zero();
    }
}

INNER void scales_of(Scales *s, const DType f, const uint8_t *p) {
    switch (f) {
    case DTYPE_Q8_0: scales_with_zero(s, halves_at(p, 34), 0); break;
    case DTYPE_IQ4_NL: scales_with_zero(s, e_halves_q4_0(p), 0); break;
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
        scales_of_bytes(s, bytes_at(b->scales), f_half(b->d), -32);
        break;
    }
    case DTYPE_Q2_K: scales_q2_k(s, (const BlockQ2_K *)(const void *)p); break;
    case DTYPE_Q3_K: {
        const BlockQ3_K *b = (const BlockQ3_K *)(const void *)p;
        scales_of_bytes(s, bytes_q3_k(b), f_half(b->d), -4);
        break;
    }
    case DTYPE_IQ2_S: {
        const BlockIQ2_S *b = (const BlockIQ2_S *)(const void *)p;
        scales_of_bytes(s, odd_scales_iq2(b->scales), f_half(b->d) / 8, 0);
        break;
    }
    case DTYPE_IQ2_XS: {
        const BlockIQ2_XS *b = (const BlockIQ2_XS *)(const void *)p;
        scales_of_bytes(s, odd_scales_iq2(b->scales), f_half(b->d) / 8, 0);
        break;
    }
    case DTYPE_IQ1_M: {
        const BlockIQ1_M *b = (const BlockIQ1_M *)(const void *)p;
        scales_of_bytes(s, odd_scales_iq1_m(b), d_iq1_m(b) / 8, 0);
        break;
    }
    default: scales_with_zero(s, grid_scales_of_8(f, p), 0);
    }
}

// ---- to fp32

// n values of a chunk. Products of scales and values are exact in fp32 and one sum is rounded (quant.h), so the results
// equal those of quant.c (but for the sign of zero). Bytes are below 128 or, of some formats, signed.
INNER void unpack_chunk(const DType f, float *y, const uint8_t *p, int n) {
    Scales s;
    float scale[GROUPS], minimum[GROUPS];
    int8_t values[BLOCK];
    scales_of(&s, f, p);
    for (int i = 0; i < GROUP_V; i++) {
        v_store(scale + i * LANES, s.scale[i]);
        v_store(minimum + i * LANES, s.minimum[i]);
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

// Bytes that are signed, and then without a minimum.
INNER bool has_signed_bytes(const DType f) {
    return f == DTYPE_Q8_0 || (f >= DTYPE_IQ4_NL && f <= DTYPE_TQ2_0);
}

// Scales of blocks of 32.
INNER bool has_wide_groups(const DType f) {
    switch (f) {
    case DTYPE_Q2_K:
    case DTYPE_Q3_K:
    case DTYPE_Q6_K:
    case DTYPE_IQ2_S:
    case DTYPE_IQ2_XS:
    case DTYPE_IQ1_M: return false;
    default: return true;
    }
}

// Unit i of a chunk's values.
INNER U values_of(const DType f, const uint8_t *p, const int i) {
    int first = i * UNIT / BLOCK, last = (i * UNIT + UNIT - 1) / BLOCK;
    if (f == DTYPE_Q4_0) return u_nibbles(p + first * 18 + 2, p + last * 18 + 2, i);
    if (f == DTYPE_IQ4_NL) return u_lookup(iq4_values, u_nibbles(p + first * 18 + 2, p + last * 18 + 2, i));
    if (f == DTYPE_IQ4_XS) return u_lookup(iq4_values, u_nibbles(p + first * 16 + 8, p + last * 16 + 8, i));
    if (f == DTYPE_Q4_1) return u_nibbles(p + first * 20 + 4, p + last * 20 + 4, i);
    return u_join(range_of(f, p, first), range_of(f, p, last), i);
}

INNER W half_of(const DType f, U u, const int half) {
    return has_signed_bytes(f) ? w_half_signed(u, half) : w_half(u, half);
}

// The sums of a row and a vector: of even and of odd units, the minima with the even ones.
typedef struct {
    V even, odd;
} Sums;

// Scales of chunk c's groups with those of the vector, to `scale`; adds the minima.
INNER void add_minima(Sums *sums, float *scale, const Scales *s, const Activations *a, int c, const bool minima) {
    for (int i = 0; i < GROUP_V; i++) {
        V minimum = s->minimum[i], sum = v_load(a->sum + c * GROUPS + i * LANES);
        if (minima) sums->even = v_fma(minimum, sum, sums->even);
        v_store(scale + i * LANES, v_mul(s->scale[i], v_load(a->scale + c * GROUPS + i * LANES)));
    }
}

// Adds the products of unit i of chunk c.
INNER void add_unit(Sums *sums, W w0, W w1, const float *scale, const Activations *a, int c, const int i,
                    const bool wide) {
    const int16_t *q = a->q + c * CHUNK + i * UNIT;
    V dots = w_dots(w0, w1, w_load(q), w_load(q + UNIT / 2)), by = v_spread(scale, i, wide);
    if (i % 2) sums->odd = v_fma(dots, by, sums->odd);
    else sums->even = v_fma(dots, by, sums->even);
}

// Adds the products of the first n values of chunk c of a row.
INNER void add_chunk(Sums *sums, const DType f, const uint8_t *p, const Activations *a, int c, int n) {
    Scales s;
    float scale[GROUPS];
    scales_of(&s, f, p);
    add_minima(sums, scale, &s, a, c, !has_signed_bytes(f));
#pragma GCC unroll 16
    for (int i = 0; i < UNITS; i++) {
        if (i * UNIT >= n) break;
        U u = values_of(f, p, i);
        add_unit(sums, half_of(f, u, 0), half_of(f, u, 1), scale, a, c, i, has_wide_groups(f));
    }
}

// The whole chunks of a row, then the incomplete last one, whose padding is multiplied by zeros.
INNER V dot_of_row(const DType f, const int chunk_bytes, const uint8_t *w, const uint8_t *rest, const Activations *a,
                   int k) {
    Sums sums = {v_zero(), v_zero()};
    int n_chunks = k / CHUNK;
    for (int c = 0; c < n_chunks; c++, w += chunk_bytes) {
        for (int line = 0; line < chunk_bytes; line += LINE_BYTES) __builtin_prefetch(w + AHEAD_BYTES + line);
        add_chunk(&sums, f, w, a, c, CHUNK);
    }
    if (rest) add_chunk(&sums, f, rest, a, n_chunks, k % CHUNK);
    return v_add(sums.even, sums.odd);
}

typedef struct {
    int chunk_bytes, row_bytes, whole_bytes; // of the chunks that are complete
    const uint8_t *end;                      // of the rows
    uint8_t padded[CHUNK / BLOCK * 34];
} RowBytes;

// The incomplete last chunk of the row at w; NULL: none. It may be read in place if rows follow.
INNER const uint8_t *rest_of_row(RowBytes *b, const uint8_t *w) {
    const uint8_t *rest = w + b->whole_bytes;
    if (b->whole_bytes == b->row_bytes) return NULL;
    if (b->end - rest >= b->chunk_bytes) return rest;
    memset(b->padded, 0, sizeof b->padded);
    return memcpy(b->padded, rest, (size_t)(b->row_bytes - b->whole_bytes));
}

INNER void matvec_one(const DType f, RowBytes b, float *y, const uint8_t *w, const Activations *a, int n_rows, int k) {
    for (int i = 0; i < n_rows; i += 4) {
        V sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
        float sums[4];
        int n = n_rows - i < 4 ? n_rows - i : 4;
        for (int r = 0; r < n; r++, w += b.row_bytes) {
            sum[r] = dot_of_row(f, b.chunk_bytes, w, rest_of_row(&b, w), a, k);
        }
        v_sum4(sums, sum[0], sum[1], sum[2], sum[3]);
        memcpy(y + i, sums, sizeof(float) * (size_t)n);
    }
}

// ---- several vectors

typedef struct {
    int8_t q[CHUNK];
    Scales s;
} DecodedChunk;

INNER void decode_chunk(DecodedChunk *d, const DType f, const uint8_t *p) {
    scales_of(&d->s, f, p);
#pragma GCC unroll 16
    for (int i = 0; i < UNITS; i++) u_store(d->q + i * UNIT, values_of(f, p, i));
}

// Columns c0 * CHUNK.. of a row times `count` vectors (a constant at every call); sums[t] are `step` apart.
INNER void add_decoded(Sums *sums, int64_t step, const DecodedChunk *d, const Activations *a, int c0, int k,
                       const int count, const DType f) {
    Sums s[TILE_X];
    for (int t = 0; t < count; t++) s[t] = sums[t * step];
    for (int c = c0; c < c0 + TILE_CHUNKS && c * CHUNK < k; c++, d++) {
        float scale[TILE_X][GROUPS];
        for (int t = 0; t < count; t++) add_minima(&s[t], scale[t], &d->s, a + t, c, !has_signed_bytes(f));
        int n = k - c * CHUNK;
#pragma GCC unroll 16
        for (int i = 0; i < UNITS; i++) {
            if (i * UNIT >= n) break;
            U u = u_load(d->q + i * UNIT);
            W w0 = half_of(f, u, 0), w1 = half_of(f, u, 1);
            for (int t = 0; t < count; t++) add_unit(&s[t], w0, w1, scale[t], a + t, c, i, has_wide_groups(f));
        }
    }
    for (int t = 0; t < count; t++) sums[t * step] = s[t];
}

typedef struct {
    DecodedChunk chunks[TILE_ROWS][TILE_CHUNKS];
    Sums sums[MAX_SHARED][TILE_ROWS];
} RowTile;

INNER void add_tile(RowTile *tile, const Activations *a, int n, int n_rows, int c0, int k, const DType f) {
    for (int t = 0; t < n; t += TILE_X) {
        for (int r = 0; r < n_rows; r++) {
            Sums *s = &tile->sums[t][r];
            const DecodedChunk *d = tile->chunks[r];
            switch (n - t) {
            case 1: add_decoded(s, TILE_ROWS, d, a + t, c0, k, 1, f); break;
            case 2: add_decoded(s, TILE_ROWS, d, a + t, c0, k, 2, f); break;
            case 3: add_decoded(s, TILE_ROWS, d, a + t, c0, k, 3, f); break;
            default: add_decoded(s, TILE_ROWS, d, a + t, c0, k, TILE_X, f);
            }
        }
    }
}

// One for all formats that are alike once they are decoded.
static void add_tile_signed(RowTile *tile, const Activations *a, int n, int n_rows, int c0, int k) {
    add_tile(tile, a, n, n_rows, c0, k, DTYPE_Q8_0);
}

static void add_tile_signed_narrow(RowTile *tile, const Activations *a, int n, int n_rows, int c0, int k) {
    add_tile(tile, a, n, n_rows, c0, k, DTYPE_IQ2_S);
}

static void add_tile_wide(RowTile *tile, const Activations *a, int n, int n_rows, int c0, int k) {
    add_tile(tile, a, n, n_rows, c0, k, DTYPE_Q4_0);
}

static void add_tile_narrow(RowTile *tile, const Activations *a, int n, int n_rows, int c0, int k) {
    add_tile(tile, a, n, n_rows, c0, k, DTYPE_Q6_K);
}

INNER void matvec_tile(const DType f, RowBytes *b, float *y, int64_t ldy, const uint8_t *w, const Activations *a, int n,
                       int n_rows, int k) {
    RowTile tile;
    memset(tile.sums, 0, sizeof tile.sums[0] * (size_t)n);
    for (int c0 = 0; c0 * CHUNK < k; c0 += TILE_CHUNKS) {
        for (int r = 0; r < n_rows; r++) {
            for (int c = c0; c < c0 + TILE_CHUNKS && c * CHUNK < k; c++) {
                const uint8_t *row = w + (int64_t)r * b->row_bytes, *p = row + c * b->chunk_bytes;
                for (int line = 0; line < b->chunk_bytes; line += LINE_BYTES) {
                    __builtin_prefetch(p + TILE_ROWS * (int64_t)b->row_bytes + line);
                }
                decode_chunk(&tile.chunks[r][c - c0], f, (c + 1) * CHUNK > k ? rest_of_row(b, row) : p);
            }
        }
        bool is_signed = has_signed_bytes(f), wide = has_wide_groups(f);
        if (is_signed && wide) add_tile_signed(&tile, a, n, n_rows, c0, k);
        else if (is_signed) add_tile_signed_narrow(&tile, a, n, n_rows, c0, k);
        else if (wide) add_tile_wide(&tile, a, n, n_rows, c0, k);
        else add_tile_narrow(&tile, a, n, n_rows, c0, k);
    }
    for (int t = 0; t < n; t++) {
        for (int r = 0; r < n_rows; r += 4) {
            V sum[4];
            float sums[4];
            for (int i = 0; i < 4; i++) {
                Sums *s = &tile.sums[t][r + i];
                sum[i] = r + i < n_rows ? v_add(s->even, s->odd) : v_zero();
            }
            v_sum4(sums, sum[0], sum[1], sum[2], sum[3]);
            memcpy(y + t * ldy + r, sums, sizeof(float) * (size_t)(n_rows - r < 4 ? n_rows - r : 4));
        }
    }
}

typedef void (*MatvecTile)(RowBytes *b, float *y, int64_t ldy, const uint8_t *w, const Activations *a, int n,
                           int n_rows, int k);

INNER void matvec_format(const DType f, const int block, const int block_bytes, float *y, int64_t ldy, const uint8_t *w,
                         const Activations *a, int n, int n_rows, int k, MatvecTile tile) {
    RowBytes b = {.chunk_bytes = CHUNK / block * block_bytes, .row_bytes = k / block * block_bytes};
    b.whole_bytes = k / CHUNK * b.chunk_bytes;
    b.end = w + (int64_t)n_rows * b.row_bytes;
    if (n == 1) {
        matvec_one(f, b, y, w, a, n_rows, k);
        return;
    }
    for (int r = 0; r < n_rows; r += TILE_ROWS, w += TILE_ROWS * (int64_t)b.row_bytes) {
        tile(&b, y + r, ldy, w, a, n, n_rows - r < TILE_ROWS ? n_rows - r : TILE_ROWS, k);
    }
}

#define DEFINE_FORMAT(name, f, block, bytes)                                                                           \
    OUTER void tile_##name(RowBytes *b, float *y, int64_t ldy, const uint8_t *w, const Activations *a, int n,          \
                           int n_rows, int k) {                                                                        \
        matvec_tile(f, b, y, ldy, w, a, n, n_rows, k);                                                                 \
    }                                                                                                                  \
    static void matvec_##name(float *y, int64_t ldy, const void *w, const Activations *a, int n, int n_rows, int k) {  \
        matvec_format(f, block, bytes, y, ldy, w, a, n, n_rows, k, tile_##name);                                       \
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
DEFINE_FORMAT(iq3_s, DTYPE_IQ3_S, SUPER, sizeof(BlockIQ3_S))
DEFINE_FORMAT(iq3_xxs, DTYPE_IQ3_XXS, SUPER, sizeof(BlockIQ3_XXS))
DEFINE_FORMAT(iq2_s, DTYPE_IQ2_S, SUPER, sizeof(BlockIQ2_S))
DEFINE_FORMAT(iq2_xs, DTYPE_IQ2_XS, SUPER, sizeof(BlockIQ2_XS))
DEFINE_FORMAT(iq2_xxs, DTYPE_IQ2_XXS, SUPER, sizeof(BlockIQ2_XXS))
DEFINE_FORMAT(iq1_s, DTYPE_IQ1_S, SUPER, sizeof(BlockIQ1_S))
DEFINE_FORMAT(iq1_m, DTYPE_IQ1_M, SUPER, sizeof(BlockIQ1_M))
DEFINE_FORMAT(tq1_0, DTYPE_TQ1_0, SUPER, sizeof(BlockTQ1_0))
DEFINE_FORMAT(tq2_0, DTYPE_TQ2_0, SUPER, sizeof(BlockTQ2_0))

#define OF_FORMAT(name)                                                                                                \
    { matvec_##name, unpack_##name##_fast }
static const BlockKernels block_kernels[N_DTYPES] = {
    [DTYPE_Q4_0] = OF_FORMAT(q4_0),     [DTYPE_Q4_1] = OF_FORMAT(q4_1),     [DTYPE_Q5_0] = OF_FORMAT(q5_0),
    [DTYPE_Q5_1] = OF_FORMAT(q5_1),     [DTYPE_Q8_0] = OF_FORMAT(q8_0),     [DTYPE_Q2_K] = OF_FORMAT(q2_k),
    [DTYPE_Q3_K] = OF_FORMAT(q3_k),     [DTYPE_Q4_K] = OF_FORMAT(q4_k),     [DTYPE_Q5_K] = OF_FORMAT(q5_k),
    [DTYPE_Q6_K] = OF_FORMAT(q6_k),     [DTYPE_MXFP4] = OF_FORMAT(mxfp4),   [DTYPE_IQ4_NL] = OF_FORMAT(iq4_nl),
    [DTYPE_IQ4_XS] = OF_FORMAT(iq4_xs), [DTYPE_IQ3_S] = OF_FORMAT(iq3_s),   [DTYPE_IQ3_XXS] = OF_FORMAT(iq3_xxs),
    [DTYPE_IQ2_S] = OF_FORMAT(iq2_s),   [DTYPE_IQ2_XS] = OF_FORMAT(iq2_xs), [DTYPE_IQ2_XXS] = OF_FORMAT(iq2_xxs),
    [DTYPE_IQ1_S] = OF_FORMAT(iq1_s),   [DTYPE_IQ1_M] = OF_FORMAT(iq1_m),   [DTYPE_TQ1_0] = OF_FORMAT(tq1_0),
    [DTYPE_TQ2_0] = OF_FORMAT(tq2_0),
};
