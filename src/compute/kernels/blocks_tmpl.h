// blocks_tmpl: products of quantized rows with a quantized vector, bytes times words; unpacking of block formats.
// Included before lanes_tmpl.h. Beside the vector V of that file, the including file must define:
//   U                         a vector of 4 * LANES bytes
//   u_load(p) u_store(p, u)   unaligned
//   u_gather(at, h)           16 bytes from each of LANES / 4 addresses; where those are the halves h of 32 bytes,
//                             the other halves may be read, too
//   u_bits(u, shift, mask)    u >> shift & mask in every byte; shift: of each 16 bytes (an array), to the left where
//                             negative. No bit of the mask comes from another byte
//   u_or(a, b) u_flip(u)      flip: the highest bit of every byte
//   u_lookup(table, u)        table[u] of 16 bytes
//   u_half(ranges, h)         16 bytes from each of LANES / 4 ranges (B): the first or the last ones
//   u_set1(p)                 four bytes, repeated
//   W                         a vector of 2 * LANES int16
//   w_load(p)                 unaligned
//   w_even(u) w_odd(u)        every other byte of u, as words
//   I                         LANES int32
//   i_dots(w, x)              LANES sums of two products of words, of 16 bytes to 4 lanes
//   i_add_dots(i, w, x)       i + the same
//   i_set1(n) v_float(i)
//   MOST_BYTE                 the largest byte of a weight that may meet vectors of bytes: 63 or 255
//   i_dots_bytes(u, x)        sums of the products of unsigned bytes u with signed ones, four neighbours to a lane
//   i_dots_bytes_2(u, x)      of two vectors u[2], x[2]
//   i_dots_signed(i, u, x)    i + the products of signed bytes, four neighbours to a lane, plus SIGNED_BIAS times the
//                             sum of x
//   v_load_u8(p)              LANES bytes as floats
//   v_spread(v, j)            each four lanes get the j-th of them
//   v_blocks(e, i)            vector i of the 16 groups' floats, in the order of group_at; e has one for two
//   Bytes16, v_bytes(b, i)    16 bytes (a vector extension type); vector i of them, in that order, int8 as floats
//   v_store_i8(p, v) v_store_i16(p, v)  LANES floats that are integers, as int8 or int16; x86 rounds others
//   B                         32 bytes, the values of a range
//   b_load(p) b_or(a, b) b_add(a, b)
//   b_nibbles(p)              the low nibbles of 16 bytes, then the high ones
//   b_where(bits, value)      byte j is `value` if bit j of 32 is set, else 0
//   b_words(a, b, c, d)       the bytes of four uint64_t, lowest first
//   b_at_most(b, n)           -1 in the bytes, unsigned, that are n or less, else 0
//   b_negate(b, bits)         byte j is negated, as int8, if bit j of 32 is set
//   E                         8 floats, one for each block
//   e_load(p) e_scaled(e, x)
//   e_halves(h) e_bytes(v)    from 8 F16 values; from the bytes of a uint64_t
//   e_halves_q4_0(p)          from the scales of 8 blocks of Q4_0 (optional)
//   f_half(h)                 F16 as a float
//
// A chunk is 256 values of a row: a super-block or eight blocks of 32. Each of its 16 groups of 16 values has a scale
// and a minimum: a weight is scale * value + minimum, value an unsigned byte. A span is as many blocks as V has fours
// of lanes: four lanes sum the products of a block, and its groups' scales lie in the same four lanes (group_at). The
// bytes of two vectors, the first and the last 16 values of each block, become the words of four: the even and the odd
// values of each. The vector has 16 bits and lies in memory in the order of those words (kernels.h). Its rounding,
// 2^-16 of the largest of 32 neighbours, is far below the quantization error of the weights; sums are exact up to
// fp32's rounding of each eight products. A vector of 8 bits (`bytes`) meets the bytes as they are: half the
// operations, and a rounding of 2^-8.
//
// Several vectors meet each row as it is decoded, with the operations of one in its order: the same bits.

#include "inner.h"

#include "grids_tmpl.h"

enum {
    CHUNK = 256,
    MOST_CHUNK_BYTES = CHUNK / BLOCK * sizeof(BlockQ8_0), // of all formats
    GROUPS = 16,
    GROUP_V = GROUPS / LANES,
    SPAN_BLOCKS = LANES / 4,
    SPAN = SPAN_BLOCKS * BLOCK,
    SPANS = CHUNK / SPAN,
    Q16_MAX = 255 * 127 + 127,
    MOST_VECTORS = LANES == 16 ? 8 : 4, // that meet a row at a time: their sums are registers
    PART_BYTES = 16 << 10,              // of them that stay in L1
    PART_ROWS = 8,
};

INNER V v_abs(V v) {
    return v_max(v, v_sub(v_zero(), v));
}

// ---- the vector

// The place of group g of a chunk among its scales, minima and sums. Those of a block lie in the four lanes that sum
// its products; in these, the first halves of blocks come before all second ones.
INNER int group_at(int g) {
    int n = g % 2 * SPANS + g / 2 / SPAN_BLOCKS;
    return n / 4 * LANES + g / 2 % SPAN_BLOCKS * 4 + n % 4;
}

// The place in Activations.q of the first of eight words: the even or odd ones of 16 values from value i.
INNER int word_at(int i, int odd) {
    return i / SPAN * SPAN + (i % BLOCK / 16 * 2 + odd) * (SPAN / 4) + i % SPAN / BLOCK * 8;
}

// The place in Activations.bytes of 16 values from value i on.
INNER int bytes_from(int i) {
    return i / SPAN * SPAN + i % BLOCK / 16 * (SPAN / 2) + i % SPAN / BLOCK * 16;
}

// The 16 values from value i on, times scale.
INNER void put_group(const Activations *a, int i, const int16_t *words, float scale, const bool bytes) {
    int sum = 0, at = i / CHUNK * GROUPS + group_at(i % CHUNK / 16);
    for (int j = 0; j < 16; j++) sum += words[j];
    a->scale[at] = scale;
    a->sum[at] = scale * (float)sum;
    if (bytes) {
        for (int j = 0; j < 16; j++) a->bytes[bytes_from(i) + j] = (int8_t)words[j];
        return;
    }
    for (int odd = 0; odd < 2; odd++) {
        int16_t *to = a->words + word_at(i, odd);
        for (int j = 0; j < 8; j++) to[j] = words[2 * j + odd];
    }
}

INNER void quantize_to(const Activations *a, const float *x, int k, const bool bytes) {
    for (int i = 0; i < k; i += BLOCK) {
        V v[BLOCK / LANES], top = v_zero();
        for (int j = 0; j < BLOCK / LANES; j++) {
            v[j] = v_load(x + i + j * LANES);
            top = v_max(top, v_abs(v[j]));
        }
        float most = v_max_of(top), scale = most * (1.0f / (bytes ? INT8_TOP : Q16_MAX));
        float inverse = scale > 0 ? 1 / scale : 0;
        int16_t words[BLOCK];
        for (int j = 0; j < BLOCK / LANES; j++) v_store_i16(words + j * LANES, v_round(v_mul(v[j], v_set1(inverse))));
        for (int j = 0; j < BLOCK; j += 16) put_group(a, i + j, words + j, scale, bytes);
    }
    const int16_t zeros[16] = {0};
    for (int i = k; i % CHUNK; i += 16) put_group(a, i, zeros, 0, bytes);
}

static void quantize(const Activations *a, const float *x, int k) {
    if (a->bytes) quantize_to(a, x, k, true);
    else quantize_to(a, x, k, false);
}

// ---- values of a span of a chunk, as bytes

// Where a format keeps bits of its values: those of half a range, 16 values, lie in 16 bytes, from the same bit on in
// each. A few ranges are `together` in the same bytes: those that are `beside` each other in neighbours of 32, the
// others in higher bits.
typedef struct {
    uint8_t offset, mask;            // of the chunk's first bytes; the bits of a value, 0: there are no such places
    uint8_t step, together, beside;  // bytes from the ranges that are together to the next; how many ranges those are
    uint8_t half, half_shift, shift; // from a range's first half to its last, in bytes and bits; from range to range
} Places;

// How a format stores its values: in places, or else in ranges of 32 (range_of).
typedef struct {
    Places low, high;      // of the low and the high bits of a value
    const uint8_t *lookup; // the bits are an index into this table; NULL: they are the value
    uint8_t up;            // the high bits belong so far up
    uint8_t zero;          // the byte that stands for 0; 0 where a format stores minima
    int most;              // the largest byte that there could be
    bool flipped;          // values are signed: 128 is added
    bool narrow;           // scales are of groups of 16, not of 32
    bool grid;             // decoding costs more than multiplying
} Layout;

// Twice E2M1's values, plus 12; IQ4's values, plus 128.
static const uint8_t e2m1_bytes[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
static const uint8_t iq4_bytes[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};

#define NIBBLES(offset, step)                                                                                          \
    { offset, 15, step, 1, 1, 0, 4, 0 }
// The ranges that are together share all bits of their bytes alike.
#define SHARED(type, field, together, beside)                                                                          \
    {                                                                                                                  \
        offsetof(type, field), (1 << 8 * beside / together) - 1, 32 * beside, together, beside, 16, 0,                 \
            8 * beside / together                                                                                      \
    }
static const Layout layouts[N_DTYPES] = {
    [DTYPE_Q4_0] = {.low = NIBBLES(2, 18), .zero = 8, .most = 15},
    [DTYPE_Q4_1] = {.low = NIBBLES(4, 20), .most = 15},
    [DTYPE_Q5_0] = {.zero = 16, .most = 31},
    [DTYPE_Q5_1] = {.most = 31},
    [DTYPE_Q8_0] = {.flipped = true, .zero = 128, .most = 255},
    [DTYPE_MXFP4] = {.low = NIBBLES(1, 17), .lookup = e2m1_bytes, .zero = 12, .most = 24},
    [DTYPE_IQ4_NL] = {.low = NIBBLES(2, 18), .lookup = iq4_bytes, .zero = 128, .most = 241},
    [DTYPE_IQ4_XS] = {.low = NIBBLES(offsetof(BlockIQ4_XS, q), 16), .lookup = iq4_bytes, .zero = 128, .most = 241},
    [DTYPE_Q2_K] = {.low = SHARED(BlockQ2_K, q, 4, 1), .most = 3, .narrow = true},
    [DTYPE_Q3_K] = {.low = SHARED(BlockQ3_K, q, 4, 1),
                    .high = SHARED(BlockQ3_K, high, 8, 1),
                    .up = 2,
                    .zero = 4,
                    .most = 7,
                    .narrow = true},
    [DTYPE_Q4_K] = {.low = SHARED(BlockQ4_K, q, 2, 1), .most = 15},
    [DTYPE_Q5_K] = {.low = SHARED(BlockQ5_K, q, 2, 1), .high = SHARED(BlockQ5_K, high, 8, 1), .up = 4, .most = 31},
    [DTYPE_Q6_K] = {.low = SHARED(BlockQ6_K, low, 4, 2),
                    .high = SHARED(BlockQ6_K, high, 4, 1),
                    .up = 4,
                    .zero = 32,
                    .most = 63,
                    .narrow = true},
    [DTYPE_IQ3_S] = {.flipped = true, .zero = 128, .grid = true},
    [DTYPE_IQ3_XXS] = {.flipped = true, .zero = 128, .grid = true},
    [DTYPE_IQ2_S] = {.flipped = true, .zero = 128, .narrow = true, .grid = true},
    [DTYPE_IQ2_XS] = {.flipped = true, .zero = 128, .narrow = true, .grid = true},
    [DTYPE_IQ2_XXS] = {.flipped = true, .zero = 128, .grid = true},
    [DTYPE_IQ1_S] = {.flipped = true, .zero = 128, .grid = true},
    [DTYPE_IQ1_M] = {.flipped = true, .zero = 128, .narrow = true, .grid = true},
    [DTYPE_TQ1_0] = {.zero = 1, .grid = true},
    [DTYPE_TQ2_0] = {.low = SHARED(BlockTQ2_0, q, 4, 1), .zero = 1, .most = 3},
};

// Range s: 32 values as bytes.
INNER B range_of(const DType f, const uint8_t *p, int s) {
    switch (f) {
    case DTYPE_Q8_0: return b_load(p + s * 34 + 2);
    case DTYPE_Q5_0: return b_or(b_nibbles(p + s * 22 + 6), b_where(four_bytes(p + s * 22 + 2), 16));
    case DTYPE_Q5_1: return b_or(b_nibbles(p + s * 24 + 8), b_where(four_bytes(p + s * 24 + 4), 16));
    default: return range_of_grid(f, p, s);
    }
}

// Bits of half h of the blocks of span i, `up` from their place in a byte.
INNER U bits_of(const Places *places, const uint8_t *p, int i, int h, const int up) {
    const uint8_t *at[SPAN_BLOCKS];
    const uint8_t *first = p + places->offset + h * places->half;
    int shift[SPAN_BLOCKS];
#pragma GCC unroll 4
    for (int b = 0; b < SPAN_BLOCKS; b++) {
        const int s = i * SPAN_BLOCKS + b, among = s % places->together;
        at[b] = first + s / places->together * places->step + among % places->beside * 32;
        shift[b] = h * places->half_shift + among / places->beside * places->shift - up;
    }
    return u_bits(u_gather(at, h), shift, places->mask << up);
}

// Span i of the chunk at p: the first and the last 16 values of each block.
INNER void bytes_of(U u[2], const DType f, const uint8_t *p, int i) {
    const Layout *l = &layouts[f];
    B ranges[SPAN_BLOCKS];
    if (!l->low.mask) {
#pragma GCC unroll 4
        for (int b = 0; b < SPAN_BLOCKS; b++) ranges[b] = range_of(f, p, i * SPAN_BLOCKS + b);
    }
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        u[h] = l->low.mask ? bits_of(&l->low, p, i, h, 0) : u_half(ranges, h);
        if (l->high.mask) u[h] = u_or(u[h], bits_of(&l->high, p, i, h, l->up));
        if (l->lookup) u[h] = u_lookup(l->lookup, u[h]);
        if (l->flipped) u[h] = u_flip(u[h]);
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

// A scale for each block of 32.
INNER void scales_of_blocks(Scales *s, E d) {
    for (int i = 0; i < GROUP_V; i++) s->scale[i] = v_blocks(d, i);
}

INNER void scales_with_minima(Scales *s, E d, E m) {
    for (int i = 0; i < GROUP_V; i++) {
        s->scale[i] = v_blocks(d, i);
        s->minimum[i] = v_blocks(m, i);
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

// An int8 scale for each group.
INNER void scales_of_bytes(Scales *s, Bytes16 bytes, float d) {
    for (int i = 0; i < GROUP_V; i++) s->scale[i] = v_mul(v_bytes(bytes, i), v_set1(d));
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
        s->scale[i] = v_mul(v_sub(v_blocks(scales, i), v_set1(32)), v_set1(f_half(b->d)));
    }
}

INNER void scales_of(Scales *s, const DType f, const uint8_t *p) {
    switch (f) {
    case DTYPE_Q8_0: scales_of_blocks(s, halves_at(p, 34)); break;
    case DTYPE_Q4_0:
    case DTYPE_IQ4_NL: scales_of_blocks(s, e_halves_q4_0(p)); break;
    case DTYPE_IQ4_XS: scales_iq4_xs(s, (const BlockIQ4_XS *)(const void *)p); break;
    case DTYPE_Q4_1: scales_with_minima(s, halves_at(p, 20), halves_at(p + 2, 20)); break;
    case DTYPE_Q5_0: scales_of_blocks(s, halves_at(p, 22)); break;
    case DTYPE_Q5_1: scales_with_minima(s, halves_at(p, 24), halves_at(p + 2, 24)); break;
    case DTYPE_MXFP4: scales_of_blocks(s, half_powers(p)); break;
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
        scales_of_bytes(s, bytes_at(b->scales), f_half(b->d));
        break;
    }
    case DTYPE_Q2_K: scales_q2_k(s, (const BlockQ2_K *)(const void *)p); break;
    case DTYPE_Q3_K: {
        const BlockQ3_K *b = (const BlockQ3_K *)(const void *)p;
        scales_of_bytes(s, bytes_q3_k(b), f_half(b->d));
        break;
    }
    case DTYPE_IQ2_S: {
        const BlockIQ2_S *b = (const BlockIQ2_S *)(const void *)p;
        scales_of_bytes(s, odd_scales_iq2(b->scales), f_half(b->d) / 8);
        break;
    }
    case DTYPE_IQ2_XS: {
        const BlockIQ2_XS *b = (const BlockIQ2_XS *)(const void *)p;
        scales_of_bytes(s, odd_scales_iq2(b->scales), f_half(b->d) / 8);
        break;
    }
    case DTYPE_IQ1_M: {
        const BlockIQ1_M *b = (const BlockIQ1_M *)(const void *)p;
        scales_of_bytes(s, odd_scales_iq1_m(b), d_iq1_m(b) / 8);
        break;
    }
    default: scales_of_blocks(s, grid_scales_of_8(f, p));
    }
    const float zero = (float)layouts[f].zero;
    if (zero == 0) return; // the format stores minima
    for (int i = 0; i < GROUP_V; i++) s->minimum[i] = v_mul(s->scale[i], v_set1(-zero));
}

// ---- to fp32

// Its loads spread a value over a vector; gcc would keep it in registers and permute those, which is slower.
#define IN_MEMORY(array) __asm__("" : "+m"(array))

typedef enum { TO_FLOATS, TO_INT8, TO_INT16 } Target; // of values; integers are rounded

INNER int size_of(const Target t) {
    return t == TO_FLOATS ? sizeof(float) : t == TO_INT8 ? sizeof(int8_t) : sizeof(int16_t);
}

// Values from the i-th on.
INNER void put_values(void *to, int i, V v, const Target t) {
    switch (t) {
    case TO_FLOATS: v_store((float *)to + i, v); break;
    case TO_INT8: v_store_i8((int8_t *)to + i, v); break;
    default: v_store_i16((int16_t *)to + i, v);
    }
}

// A copy of an incomplete chunk of so many bytes, with zeros behind it.
INNER const uint8_t *padded_chunk(uint8_t *padded, const uint8_t *p, int n) {
    memset(padded, 0, MOST_CHUNK_BYTES);
    return memcpy(padded, p, (size_t)n);
}

// The first n values of a chunk, times `by`. Where that is 1, products of scales and values are exact in fp32 and one
// sum is rounded (quant.h), so the results equal those of quant.c (but for the sign of zero).
INNER void unpack_chunk(const DType f, void *to, const uint8_t *p, int n, float by, const Target t) {
    Scales s;
    float scale[GROUPS], minimum[GROUPS];
    scales_of(&s, f, p);
    for (int i = 0; i < GROUP_V; i++) {
        v_store(scale + i * LANES, v_mul(s.scale[i], v_set1(by)));
        v_store(minimum + i * LANES, v_mul(s.minimum[i], v_set1(by)));
    }
    IN_MEMORY(scale);
    IN_MEMORY(minimum);
    if (f == DTYPE_Q8_0) {
#pragma GCC unroll 8
        for (int b = 0; b < CHUNK / BLOCK; b++) {
            if (b * BLOCK >= n) break;
            const int8_t *q = ((const BlockQ8_0 *)(const void *)p)[b].q;
            for (int j = 0; j < BLOCK; j += LANES) {
                put_values(to, b * BLOCK + j, v_mul(v_load_i8(q + j), v_set1(scale[group_at(2 * b)])), t);
            }
        }
        return;
    }
#pragma GCC unroll 8
    for (int i = 0; i < SPANS; i++) {
        if (i * SPAN >= n) break;
        U u[2];
        uint8_t values[2][SPAN / 2];
        bytes_of(u, f, p, i);
        for (int h = 0; h < 2; h++) u_store(values[h], u[h]);
        IN_MEMORY(values);
#pragma GCC unroll 8
        for (int g = 0; g < SPAN / 16; g++) { // groups
            int at = i * SPAN / 16 + g;
            if (at * 16 >= n) break;
            for (int j = 0; j < 16; j += LANES) {
                V v = v_load_u8(values[g % 2] + g / 2 * 16 + j);
                V by_scale = v_set1(scale[group_at(at)]);
                put_values(to, at * 16 + j, v_fma(v, by_scale, v_set1(minimum[group_at(at)])), t);
            }
        }
    }
}

INNER void unpack_format(const DType f, const int block, const int block_bytes, void *to, const uint8_t *p, int n,
                         float by, const Target t) {
    uint8_t padded[MOST_CHUNK_BYTES];
    char *at = to;
    for (; n > 0; n -= CHUNK, at += CHUNK * size_of(t), p += CHUNK / block * block_bytes) {
        unpack_chunk(f, at, n < CHUNK ? padded_chunk(padded, p, n / block * block_bytes) : p, n, by, t);
    }
}

// ---- to integers: of int8 with 16 lanes, else of int16

static const Target ROUNDED = LANES == 16 ? TO_INT8 : TO_INT16;

// At least the largest |value| of n; NaN where a scale is not finite.
INNER float bound_of(const DType f, const int block, const int block_bytes, const uint8_t *p, int n) {
    uint8_t padded[MOST_CHUNK_BYTES];
    V most = v_zero(), poison = v_zero();
    for (; n > 0; n -= CHUNK, p += CHUNK / block * block_bytes) {
        Scales s;
        scales_of(&s, f, n < CHUNK ? padded_chunk(padded, p, n / block * block_bytes) : p);
        for (int i = 0; i < GROUP_V; i++) {
            V low = s.minimum[i], high = v_fma(s.scale[i], v_set1((float)layouts[f].most), low);
            most = v_max(most, v_max(v_abs(low), v_abs(high)));
            poison = v_fma(low, v_zero(), v_fma(high, v_zero(), poison));
        }
    }
    return v_max_of(most) + v_sum(poison);
}

INNER float round_format(const DType f, const int block, const int block_bytes, void *q, const uint8_t *p, int n,
                         float limit) {
    float most = bound_of(f, block, block_bytes, p, n);
    bool tiny = most < SMALLEST_TOP;
    unpack_format(f, block, block_bytes, q, p, n, tiny ? 0 : limit / most, ROUNDED);
    return tiny ? 0 : most / limit;
}

// ---- rows

// May the vectors be bytes?
static inline bool takes_bytes(const DType f) {
    return !layouts[f].grid && layouts[f].most <= MOST_BYTE;
}

// A span as words: the even and the odd ones of the first 16 values of each block, then of the last 16.
INNER void words_from(W w[4], const U u[2]) {
    for (int h = 0; h < 2; h++) {
        w[2 * h] = w_even(u[h]);
        w[2 * h + 1] = w_odd(u[h]);
    }
}

// Of a row and `count` vectors, a constant at every call, so that all are registers: their sums, and the scales of a
// chunk's groups, the row's times a vector's.
typedef struct {
    V sum[MOST_VECTORS], scale[MOST_VECTORS][GROUP_V];
} Sums;

// Chunk c begins: its scales; adds its minima. Wide groups need the scales of the first halves alone.
INNER void begin_chunk(Sums *sums, const Scales *s, const Activations *a, int c, const int count, const bool wide) {
    const int needed = wide ? (GROUP_V + 1) / 2 : GROUP_V;
    for (int t = 0; t < count; t++) {
        const float *sum = a[t].sum + c * GROUPS, *scale = a[t].scale + c * GROUPS;
        for (int g = 0; g < GROUP_V; g++) sums->sum[t] = v_fma(s->minimum[g], v_load(sum + g * LANES), sums->sum[t]);
        for (int g = 0; g < needed; g++) sums->scale[t][g] = v_mul(s->scale[g], v_load(scale + g * LANES));
    }
}

// Adds dots, of span i and of vector t, times their scales: of half h, or of both where the format has wide groups.
INNER void add_dots(Sums *sums, int t, I dots, int i, const int h) {
    int n = h * SPANS + i;
    sums->sum[t] = v_fma(v_float(dots), v_spread(sums->scale[t][n / 4], n % 4), sums->sum[t]);
}

// Adds the products of span i of chunk c, whose bytes are u.
INNER void add_span_bytes(Sums *sums, const U u[2], const Activations *a, int c, int i, const int count,
                          const bool wide) {
    for (int t = 0; t < count; t++) {
        const int8_t *at = a[t].bytes + c * CHUNK + i * SPAN;
        U x[2] = {u_load(at), u_load(at + SPAN / 2)};
        if (wide) {
            add_dots(sums, t, i_dots_bytes_2(u, x), i, 0);
            continue;
        }
        for (int h = 0; h < 2; h++) add_dots(sums, t, i_dots_bytes(u[h], x[h]), i, h);
    }
}

INNER void add_span_words(Sums *sums, const U u[2], const Activations *a, int c, int i, const int count,
                          const bool wide) {
    W w[4];
    words_from(w, u);
    for (int t = 0; t < count; t++) {
        const int16_t *at = a[t].words + c * CHUNK + i * SPAN;
        I dots[2];
        for (int h = 0; h < 2; h++) {
            W even = w_load(at + h * SPAN / 2), odd = w_load(at + h * SPAN / 2 + SPAN / 4);
            dots[h] = h && wide ? i_add_dots(dots[0], w[2], even) : i_dots(w[2 * h], even);
            dots[h] = i_add_dots(dots[h], w[2 * h + 1], odd);
            if (h || !wide) add_dots(sums, t, dots[h], i, h * !wide);
        }
    }
}

typedef struct {
    int chunk_bytes, row_bytes, whole_bytes; // of the chunks that are complete
    const uint8_t *end;                      // of the rows
    uint8_t padded[MOST_CHUNK_BYTES];
} RowBytes;

// Chunk c of the row at w. An incomplete one is read in place where rows follow, else from a copy with zeros.
INNER const uint8_t *chunk_at(RowBytes *b, const uint8_t *w, int c) {
    const uint8_t *p = w + c * b->chunk_bytes;
    if (c * b->chunk_bytes < b->whole_bytes || b->end - p >= b->chunk_bytes) return p;
    return padded_chunk(b->padded, p, b->row_bytes - b->whole_bytes);
}

// Adds the products of the first n values of chunk c, which is at p.
INNER void add_chunk(Sums *sums, const DType f, const uint8_t *p, const Activations *a, int c, int n, const int count,
                     const bool bytes) {
    Scales s;
    scales_of(&s, f, p);
    begin_chunk(sums, &s, a, c, count, !layouts[f].narrow);
#pragma GCC unroll 8
    for (int i = 0; i < SPANS; i++) {
        if (i * SPAN >= n) break;
        U u[2];
        bytes_of(u, f, p, i);
        if (bytes) add_span_bytes(sums, u, a, c, i, count, !layouts[f].narrow);
        else add_span_words(sums, u, a, c, i, count, !layouts[f].narrow);
    }
}

// Adds chunks c0 to c1 of the row at w; the last one may be incomplete, its padding is multiplied by zeros.
INNER void add_chunks(Sums *sums, const DType f, RowBytes *b, const uint8_t *w, const Activations *a, int c0, int c1,
                      int k, const int count, const bool bytes) {
    // Rows with a byte for each value come faster where the processor alone prefetches.
    int whole = c1 < k / CHUNK ? c1 : k / CHUNK, ahead = b->chunk_bytes > CHUNK ? 0 : b->chunk_bytes;
    for (int c = c0; c < whole; c++) {
        const uint8_t *p = w + c * b->chunk_bytes;
        for (int line = 0; line < ahead; line += LINE_BYTES) __builtin_prefetch(p + AHEAD_BYTES + line);
        add_chunk(sums, f, p, a, c, CHUNK, count, bytes);
    }
    if (whole < c1) add_chunk(sums, f, chunk_at(b, w, whole), a, whole, k % CHUNK, count, bytes);
}

// The lanes of up to four rows' sums, added up.
INNER void store_sums(float *y, const V *sum, int n_rows) {
    float sums[4];
    V zero = v_zero();
    v_sum4(sums, sum[0], n_rows > 1 ? sum[1] : zero, n_rows > 2 ? sum[2] : zero, n_rows > 3 ? sum[3] : zero);
    memcpy(y, sums, sizeof(float) * (size_t)(n_rows < 4 ? n_rows : 4));
}

// `count` vectors meet each row as it is decoded, and a part of some rows before the next part: that of the vectors
// stays in L1. The products of the first n are stored.
INNER void matvec_rows(const DType f, RowBytes *b, float *y, int64_t ldy, const uint8_t *w, const Activations *a, int n,
                       int n_rows, int k, const int count, const bool bytes) {
    const int n_chunks = (k + CHUNK - 1) / CHUNK, part = PART_BYTES / CHUNK / count / (bytes ? 1 : 2);
    for (int i = 0, rows; i < n_rows; i += rows, w += rows * (int64_t)b->row_bytes) {
        V of[MOST_VECTORS][PART_ROWS];
        rows = n_rows - i < PART_ROWS ? n_rows - i : PART_ROWS;
        for (int t = 0; t < count; t++) {
            for (int r = 0; r < PART_ROWS; r++) of[t][r] = v_zero(); // a constant number: gcc stores vectors
        }
        for (int c = 0; c < n_chunks; c += part) {
            int end = n_chunks - c < part ? n_chunks : c + part;
            for (int r = 0; r < rows; r++) {
                Sums sums;
                for (int t = 0; t < count; t++) sums.sum[t] = of[t][r];
                add_chunks(&sums, f, b, w + r * (int64_t)b->row_bytes, a, c, end, k, count, bytes);
                for (int t = 0; t < count; t++) of[t][r] = sums.sum[t];
            }
        }
        for (int t = 0; t < n; t++) {
            for (int r = 0; r < rows; r += 4) store_sums(y + t * ldy + i + r, &of[t][r], rows - r);
        }
    }
}

// Of n vectors: `most`, or all of them where at most one is missing to that, else four.
INNER int vectors_at_a_time(int n, const int most) {
    if (n < 4) return n;
    if (n < most - 1) return 4;
    return n < most ? n : most;
}

// As many vectors at a time as are registers, of words four; of numbers between, the last one several times.
INNER void matvec_any(const DType f, RowBytes *b, float *y, int64_t ldy, const uint8_t *w, const Activations *a, int n,
                      int n_rows, int k, const bool bytes) {
    const int most = bytes ? MOST_VECTORS : 4;
    for (int done; n > 0; n -= done, a += done, y += done * ldy) {
        Activations all[MOST_VECTORS];
        done = vectors_at_a_time(n, most);
        for (int t = 0; t < MOST_VECTORS; t++) all[t] = a[t < done ? t : done - 1];
        if (done == 1) matvec_rows(f, b, y, ldy, w, all, done, n_rows, k, 1, bytes);
        else if (done == 2 && !layouts[f].grid) matvec_rows(f, b, y, ldy, w, all, done, n_rows, k, 2, bytes);
        else if (done <= 4) matvec_rows(f, b, y, ldy, w, all, done, n_rows, k, 4, bytes);
        else if (most > 4) matvec_rows(f, b, y, ldy, w, all, done, n_rows, k, MOST_VECTORS, bytes);
    }
}

INNER RowBytes rows_of(const int block, const int block_bytes, const uint8_t *w, int n_rows, int k) {
    RowBytes b = {.chunk_bytes = CHUNK / block * block_bytes, .row_bytes = k / block * block_bytes};
    b.whole_bytes = k / CHUNK * b.chunk_bytes;
    b.end = w + (int64_t)n_rows * b.row_bytes;
    return b;
}

#define DEFINE_FORMAT(name, f, block, size)                                                                            \
    OUTER void words_##name(RowBytes *b, float *y, int64_t ldy, const uint8_t *w, const Activations *a, int n,         \
                            int n_rows, int k) {                                                                       \
        matvec_any(f, b, y, ldy, w, a, n, n_rows, k, false);                                                           \
    }                                                                                                                  \
    static void matvec_##name(float *y, int64_t ldy, const void *w, const Activations *a, int n, int n_rows, int k) {  \
        RowBytes b = rows_of(block, size, w, n_rows, k);                                                               \
        if (takes_bytes(f) && a->bytes) matvec_any(f, &b, y, ldy, w, a, n, n_rows, k, true);                           \
        else words_##name(&b, y, ldy, w, a, n, n_rows, k);                                                             \
    }                                                                                                                  \
    static void unpack_##name##_fast(float *y, const void *blocks, int n) {                                            \
        unpack_format(f, block, size, y, blocks, n, 1, TO_FLOATS);                                                     \
    }                                                                                                                  \
    static __attribute__((unused)) float round_##name(void *q, const void *blocks, int n, float limit) {               \
        return round_format(f, block, size, q, blocks, n, limit);                                                      \
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

// Of grids and of TQ2_0 the largest byte is seldom near the largest that there could be.
#define WITHOUT_ROUND(name)                                                                                            \
    { matvec_##name, unpack_##name##_fast, NULL }
#define OF_FORMAT(name)                                                                                                \
    { matvec_##name, unpack_##name##_fast, LANES >= 8 ? round_##name : NULL }
static const BlockKernels block_kernels[N_DTYPES] = {
    [DTYPE_Q4_0] = OF_FORMAT(q4_0),           [DTYPE_Q4_1] = OF_FORMAT(q4_1),
    [DTYPE_Q5_0] = OF_FORMAT(q5_0),           [DTYPE_Q5_1] = OF_FORMAT(q5_1),
    [DTYPE_Q8_0] = OF_FORMAT(q8_0),           [DTYPE_Q2_K] = OF_FORMAT(q2_k),
    [DTYPE_Q3_K] = OF_FORMAT(q3_k),           [DTYPE_Q4_K] = OF_FORMAT(q4_k),
    [DTYPE_Q5_K] = OF_FORMAT(q5_k),           [DTYPE_Q6_K] = OF_FORMAT(q6_k),
    [DTYPE_MXFP4] = OF_FORMAT(mxfp4),         [DTYPE_IQ4_NL] = OF_FORMAT(iq4_nl),
    [DTYPE_IQ4_XS] = OF_FORMAT(iq4_xs),       [DTYPE_IQ3_S] = WITHOUT_ROUND(iq3_s),
    [DTYPE_IQ3_XXS] = WITHOUT_ROUND(iq3_xxs), [DTYPE_IQ2_S] = WITHOUT_ROUND(iq2_s),
    [DTYPE_IQ2_XS] = WITHOUT_ROUND(iq2_xs),   [DTYPE_IQ2_XXS] = WITHOUT_ROUND(iq2_xxs),
    [DTYPE_IQ1_S] = WITHOUT_ROUND(iq1_s),     [DTYPE_IQ1_M] = WITHOUT_ROUND(iq1_m),
    [DTYPE_TQ1_0] = WITHOUT_ROUND(tq1_0),     [DTYPE_TQ2_0] = WITHOUT_ROUND(tq2_0),
};
