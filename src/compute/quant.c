// quant: see quant.h. One unpack for each block format, written to be read; pack for the formats that programs write.
//
// The searches of pack: try a few roundings of a group, find the least-squares scale of each (closed form), keep the
// one with the smallest error; then quantize the groups' scales to their bits, and the values again with those scales.
#include "quant.h"

#include <math.h>
#include <stdbool.h>

uint16_t f16_from_f32(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (rest >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); // 65520 and above
    if (rest < 0x38800000u) {                                   // below 2^-14: a multiple of 2^-24
        float magnitude;
        memcpy(&magnitude, &rest, sizeof magnitude);
        return (uint16_t)(sign | (uint32_t)lrintf(magnitude * 0x1p24f));
    }
    uint32_t rounded = rest + 0xfffu + (rest >> 13 & 1u);
    return (uint16_t)(sign | (rounded - (112u << 23)) >> 13);
}

// ---- unpack: blocks of 32

// y[j] = scale ((q[j] >> shift & mask) - zero) - minimum. Not inlined: where n is a constant, gcc 12 unrolls the loop
// and then does not vectorize it (two to five times slower).
__attribute__((noinline)) static void spread(float *restrict y, const uint8_t *restrict q, int n, int shift, int mask,
                                             int zero, float scale, float minimum) {
    for (int j = 0; j < n; j++) y[j] = scale * (float)((q[j] >> shift & mask) - zero) - minimum;
}

// The same with a fifth bit, bit j of `high`.
__attribute__((noinline)) static void spread_5(float *restrict y, const uint8_t *restrict q, uint32_t high, int n,
                                               int shift, int zero, float scale, float minimum) {
    for (int j = 0; j < n; j++) {
        y[j] = scale * (float)((q[j] >> shift & 15) + (int)(high >> j & 1) * 16 - zero) - minimum;
    }
}

void unpack_q4_0(float *restrict y, const void *restrict blocks, int64_t n) {
    const BlockQ4_0 *b = blocks;
    for (const BlockQ4_0 *end = b + n; b < end; b++, y += BLOCK) {
        float d = f32_from_f16(b->d);
        spread(y, b->q, 16, 0, 15, 8, d, 0);
        spread(y + 16, b->q, 16, 4, 15, 8, d, 0);
    }
}

void unpack_q4_1(float *restrict y, const void *restrict blocks, int64_t n) {
    const BlockQ4_1 *b = blocks;
    for (const BlockQ4_1 *end = b + n; b < end; b++, y += BLOCK) {
        float d = f32_from_f16(b->d), m = f32_from_f16(b->m);
        spread(y, b->q, 16, 0, 15, 0, d, -m);
        spread(y + 16, b->q, 16, 4, 15, 0, d, -m);
    }
}

void unpack_q5_0(float *restrict y, const void *restrict blocks, int64_t n) {
    const BlockQ5_0 *b = blocks;
    for (const BlockQ5_0 *end = b + n; b < end; b++, y += BLOCK) {
        float d = f32_from_f16(b->d);
        spread_5(y, b->q, b->high, 16, 0, 16, d, 0);
        spread_5(y + 16, b->q, b->high >> 16, 16, 4, 16, d, 0);
    }
}

void unpack_q5_1(float *restrict y, const void *restrict blocks, int64_t n) {
    const BlockQ5_1 *b = blocks;
    for (const BlockQ5_1 *end = b + n; b < end; b++, y += BLOCK) {
        float d = f32_from_f16(b->d), m = f32_from_f16(b->m);
        spread_5(y, b->q, b->high, 16, 0, 0, d, -m);
        spread_5(y + 16, b->q, b->high >> 16, 16, 4, 0, d, -m);
    }
}

void unpack_q8_0(float *restrict y, const void *restrict blocks, int64_t n) {
    const BlockQ8_0 *b = blocks;
    for (const BlockQ8_0 *end = b + n; b < end; b++, y += BLOCK) {
        float d = f32_from_f16(b->d);
        for (int j = 0; j < BLOCK; j++) y[j] = d * (float)b->q[j];
    }
}

const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// y[j] = scale times the value of the nibble.
static void spread_iq4(float *restrict y, const uint8_t *restrict q, float scale) {
    for (int j = 0; j < 16; j++) y[j] = scale * (float)iq4_values[q[j] & 15];
    for (int j = 0; j < 16; j++) y[j + 16] = scale * (float)iq4_values[q[j] >> 4];
}

void unpack_iq4_nl(float *restrict y, const void *restrict blocks, int64_t n) {
    const BlockIQ4_NL *b = blocks;
    for (const BlockIQ4_NL *end = b + n; b < end; b++, y += BLOCK) spread_iq4(y, b->q, f32_from_f16(b->d));
}

static float f32_from_e8m0(uint8_t e) {
    uint32_t bits = e ? (uint32_t)e << 23 : 0x00400000u; // 2^-127 is a denormal
    if (e == 255) bits = 0x7fc00000u;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static const float e2m1[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

void unpack_mxfp4(float *restrict y, const void *restrict blocks, int64_t n) {
    const BlockMxfp4 *b = blocks;
    for (const BlockMxfp4 *end = b + n; b < end; b++, y += BLOCK) {
        float d = f32_from_e8m0(b->e);
        for (int j = 0; j < 16; j++) y[j] = d * e2m1[b->q[j] & 15];
        for (int j = 0; j < 16; j++) y[j + 16] = d * e2m1[b->q[j] >> 4];
    }
}

void unpack_mxfp4_split(float *restrict y, const uint8_t *restrict blocks, const uint8_t *restrict exponents,
                        int64_t n) {
    for (int64_t b = 0; b < n; b++, blocks += BLOCK / 2) {
        float d = f32_from_e8m0(exponents[b]);
        for (int j = 0; j < BLOCK / 2; j++, y += 2) {
            y[0] = d * e2m1[blocks[j] & 15];
            y[1] = d * e2m1[blocks[j] >> 4];
        }
    }
}

void join_mxfp4(void *blocks, const uint8_t *split, const uint8_t *exponents, int64_t n) {
    BlockMxfp4 *to = blocks;
    for (int64_t b = 0; b < n; b++, split += BLOCK / 2) {
        to[b].e = exponents[b];
        for (int j = 0; j < 16; j++) {
            int low = split[j / 2] >> j % 2 * 4 & 15, high = split[8 + j / 2] >> j % 2 * 4 & 15; // values j and j + 16
            to[b].q[j] = (uint8_t)(low | high << 4);
        }
    }
}

// ---- unpack: super-blocks

// The values of a range share a bit position; it has two groups of 16 (Q2_K, Q3_K, Q6_K) or is one group.
enum { RANGE = 32, N_RANGES = SUPER / RANGE, GROUP = 16 };

void unpack_q2_k(float *restrict y, const void *restrict blocks, int64_t n) {
    const BlockQ2_K *b = blocks;
    for (const BlockQ2_K *end = b + n; b < end; b++) {
        float d = f32_from_f16(b->d), m = f32_from_f16(b->m);
        for (int g = 0; g < SUPER / GROUP; g++, y += GROUP) {
            int s = g / 2, shift = s % 4 * 2;
            const uint8_t *q = b->q + s / 4 * RANGE + g % 2 * GROUP;
            float scale = d * (float)(b->scales[g] & 15), minimum = m * (float)(b->scales[g] >> 4);
            spread(y, q, GROUP, shift, 3, 0, scale, minimum);
        }
    }
}

// Scale g of 16: four low bits in the nibbles of bytes 0..7, two high bits in bytes 8..11.
static int scale_q3_k(const uint8_t *scales, int g) {
    int low = scales[g % 8] >> g / 8 * 4 & 15, high = scales[8 + g % 4] >> g / 4 * 2 & 3;
    return (low | high << 4) - 32;
}

void unpack_q3_k(float *restrict y, const void *restrict blocks, int64_t n) {
    const BlockQ3_K *b = blocks;
    for (const BlockQ3_K *end = b + n; b < end; b++) {
        float d = f32_from_f16(b->d);
        for (int g = 0; g < SUPER / GROUP; g++, y += GROUP) {
            int s = g / 2, shift = s % 4 * 2;
            const uint8_t *q = b->q + s / 4 * RANGE + g % 2 * GROUP, *high = b->high + g % 2 * GROUP;
            float scale = d * (float)scale_q3_k(b->scales, g);
            for (int j = 0; j < GROUP; j++) {
                y[j] = scale * (float)((q[j] >> shift & 3) + (high[j] >> s & 1) * 4 - 4);
            }
        }
    }
}

// Group g of 8: for the first four, scale and minimum are the low six bits of bytes g and g + 4; for the others, their
// low four bits are the nibbles of byte g + 4 and their high two those of bytes g - 4 and g.
static void scale_q4_k(const uint8_t *scales, int g, int *scale, int *minimum) {
    if (g < 4) {
        *scale = scales[g] & 63;
        *minimum = scales[g + 4] & 63;
    } else {
        *scale = (scales[g + 4] & 15) | scales[g - 4] >> 6 << 4;
        *minimum = scales[g + 4] >> 4 | scales[g] >> 6 << 4;
    }
}

void unpack_q4_k(float *restrict y, const void *restrict blocks, int64_t n) {
    const BlockQ4_K *b = blocks;
    for (const BlockQ4_K *end = b + n; b < end; b++) {
        float d = f32_from_f16(b->d), m = f32_from_f16(b->m);
        for (int g = 0; g < N_RANGES; g++, y += RANGE) {
            int s, min, shift = g % 2 * 4;
            const uint8_t *q = b->q + g / 2 * RANGE;
            scale_q4_k(b->scales, g, &s, &min);
            float scale = d * (float)s, minimum = m * (float)min;
            spread(y, q, RANGE, shift, 15, 0, scale, minimum);
        }
    }
}

void unpack_q5_k(float *restrict y, const void *restrict blocks, int64_t n) {
    const BlockQ5_K *b = blocks;
    for (const BlockQ5_K *end = b + n; b < end; b++) {
        float d = f32_from_f16(b->d), m = f32_from_f16(b->m);
        for (int g = 0; g < N_RANGES; g++, y += RANGE) {
            int s, min, shift = g % 2 * 4;
            const uint8_t *q = b->q + g / 2 * RANGE;
            scale_q4_k(b->scales, g, &s, &min);
            float scale = d * (float)s, minimum = m * (float)min;
            for (int j = 0; j < RANGE; j++) {
                y[j] = scale * (float)((q[j] >> shift & 15) + (b->high[j] >> g & 1) * 16) - minimum;
            }
        }
    }
}

void unpack_q6_k(float *restrict y, const void *restrict blocks, int64_t n) {
    const BlockQ6_K *b = blocks;
    for (const BlockQ6_K *end = b + n; b < end; b++) {
        float d = f32_from_f16(b->d);
        for (int g = 0; g < SUPER / GROUP; g++, y += GROUP) {
            int half = g / 8, quarter = g % 8 / 2, at = g % 2 * GROUP;
            const uint8_t *low = b->low + half * 64 + quarter % 2 * 32 + at, *high = b->high + half * 32 + at;
            float scale = d * (float)b->scales[g];
            for (int j = 0; j < GROUP; j++) {
                int q = (low[j] >> quarter / 2 * 4 & 15) | (high[j] >> quarter * 2 & 3) << 4;
                y[j] = scale * (float)(q - 32);
            }
        }
    }
}

void unpack_iq4_xs(float *restrict y, const void *restrict blocks, int64_t n) {
    const BlockIQ4_XS *b = blocks;
    for (const BlockIQ4_XS *end = b + n; b < end; b++) {
        float d = f32_from_f16(b->d);
        for (int g = 0; g < N_RANGES; g++, y += RANGE) {
            int scale = (b->low[g / 2] >> g % 2 * 4 & 15) | (b->high >> 2 * g & 3) << 4;
            spread_iq4(y, b->q + g * 16, d * (float)(scale - 32));
        }
    }
}

// ---- pack

static int clamp(int v, int lo, int hi) {
    if (v < lo) return lo;
    return v > hi ? hi : v;
}

// v / scale, rounded and clamped; 0 for a scale of 0.
static int steps(float v, float scale, int lo, int hi) {
    if (!(fabsf(scale) > 0)) return clamp(0, lo, hi);
    float q = v / scale;
    if (q <= (float)lo) return lo;
    return q >= (float)hi ? hi : (int)lrintf(q);
}

// The F16 nearest to a scale, never infinite.
static uint16_t f16_scale(float d) {
    return f16_from_f32(fmaxf(-65504.0f, fminf(65504.0f, d)));
}

// F16 rounded away from zero, so that quantized values do not exceed their range.
static uint16_t f16_outward(float d) {
    uint16_t h = f16_scale(d);
    bool more = fabsf(f32_from_f16(h)) < fabsf(d) && (h & 0x7fff) < 0x7bff;
    return (uint16_t)(h + more);
}

// The value of largest magnitude, with its sign.
static float extreme(const float *x, int n) {
    float v = 0;
    for (int i = 0; i < n; i++) v = fabsf(x[i]) > fabsf(v) ? x[i] : v;
    return v;
}

enum { TRIES = 9 }; // on either side of the initial scale, in tenths of a step

// The scale s of x ~ s q for integers q from lo to hi, lo = -hi - 1.
static float search_scale(const float *x, int n, int lo, int hi) {
    float top = extreme(x, n), best = 0;
    double best_gain = 0;
    for (int t = -TRIES; t <= TRIES; t++) {
        float scale = top / ((float)lo - 0.1f * (float)t);
        double xq = 0, qq = 0; // the error of s is sum x^2 - 2 s xq + s^2 qq, least at s = xq / qq
        for (int i = 0; i < n; i++) {
            int q = steps(x[i], scale, lo, hi);
            xq += (double)x[i] * q;
            qq += (double)q * q;
        }
        if (qq > 0 && xq * xq > best_gain * qq) {
            best_gain = xq * xq / qq;
            best = (float)(xq / qq);
        }
    }
    return best;
}

void pack_q8_0(void *blocks, const float *x, int64_t n) {
    BlockQ8_0 *b = blocks;
    for (BlockQ8_0 *end = b + n; b < end; b++, x += BLOCK) {
        b->d = f16_outward(fabsf(extreme(x, BLOCK)) / 127);
        float d = f32_from_f16(b->d);
        for (int j = 0; j < BLOCK; j++) b->q[j] = (int8_t)steps(x[j], d, -127, 127);
    }
}

void pack_q4_0(void *blocks, const float *x, int64_t n) {
    BlockQ4_0 *b = blocks;
    for (BlockQ4_0 *end = b + n; b < end; b++, x += BLOCK) {
        b->d = f16_scale(search_scale(x, BLOCK, -8, 7));
        float d = f32_from_f16(b->d);
        for (int j = 0; j < 16; j++) {
            b->q[j] = (uint8_t)((steps(x[j], d, -8, 7) + 8) | (steps(x[j + 16], d, -8, 7) + 8) << 4);
        }
    }
}

void pack_q6_k(void *blocks, const float *x, int64_t n) {
    BlockQ6_K *b = blocks;
    for (BlockQ6_K *end = b + n; b < end; b++, x += SUPER) {
        float scales[SUPER / GROUP];
        for (int g = 0; g < SUPER / GROUP; g++) scales[g] = search_scale(x + g * GROUP, GROUP, -32, 31);
        memset(b, 0, sizeof *b);
        b->d = f16_outward(extreme(scales, SUPER / GROUP) / -128);
        float d = f32_from_f16(b->d);
        for (int g = 0; g < SUPER / GROUP; g++) b->scales[g] = (int8_t)steps(scales[g], d, -128, 127);
        for (int i = 0; i < SUPER; i++) {
            int q = steps(x[i], d * (float)b->scales[i / GROUP], -32, 31) + 32;
            int half = i / 128, quarter = i % 128 / 32, j = i % 32;
            b->low[half * 64 + quarter % 2 * 32 + j] |= (uint8_t)((q & 15) << quarter / 2 * 4);
            b->high[half * 32 + j] |= (uint8_t)(q >> 4 << quarter * 2);
        }
    }
}

// x ~ scale q - minimum.
typedef struct {
    float scale, minimum;
    double error;
} Fit;

// The least-squares scale and minimum for given q; if the minimum would be negative and may not be, the scale with
// minimum 0.
static Fit fit_line(const float *x, const int *q, int n, bool any_sign) {
    double sx = 0, sq = 0, sqq = 0, sxq = 0;
    for (int i = 0; i < n; i++) {
        sx += (double)x[i];
        sq += q[i];
        sqq += (double)q[i] * q[i];
        sxq += (double)x[i] * q[i];
    }
    double det = n * sqq - sq * sq, scale = det > 0 ? (n * sxq - sx * sq) / det : 0;
    if (!(scale > 0)) scale = 0;
    double minimum = (scale * sq - sx) / n;
    if (minimum < 0 && !any_sign) {
        minimum = 0;
        scale = sxq > 0 ? sxq / sqq : 0;
    }
    Fit f = {(float)scale, (float)minimum, 0};
    for (int i = 0; i < n; i++) {
        double e = (double)f.scale * q[i] - (double)f.minimum - (double)x[i];
        f.error += e * e;
    }
    return f;
}

// The line for codes from 0 to hi. Its minimum is at least 0 unless it may have any sign.
static Fit search_line(const float *x, int n, int hi, bool any_sign) {
    float low = any_sign ? x[0] : 0, high = low;
    for (int i = 0; i < n; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    Fit best = {0, -low, INFINITY};
    for (int t = -TRIES; t <= TRIES; t++) {
        float scale = (high - low) / ((float)hi + 0.1f * (float)t);
        int q[RANGE];
        for (int i = 0; i < n; i++) q[i] = steps(x[i] - low, scale, 0, hi);
        Fit f = fit_line(x, q, n, any_sign);
        if (f.error < best.error) best = f;
    }
    return best;
}

// Codes of a block of 32, x ~ d q + m, to nibbles and (not NULL) fifth bits.
static void pack_line(const float *x, int hi, uint16_t *d, uint16_t *m, uint8_t *q, uint32_t *high) {
    Fit f = search_line(x, BLOCK, hi, true);
    *d = f16_scale(f.scale);
    *m = f16_scale(-f.minimum);
    uint32_t bits = 0;
    for (int j = 0; j < BLOCK; j++) {
        int code = steps(x[j] - f32_from_f16(*m), f32_from_f16(*d), 0, hi);
        q[j % 16] = (uint8_t)((j < 16 ? 0 : q[j % 16]) | (code & 15) << j / 16 * 4);
        bits |= (uint32_t)(code >> 4) << j;
    }
    if (high) *high = bits;
}

void pack_q4_1(void *blocks, const float *x, int64_t n) {
    BlockQ4_1 *b = blocks;
    for (BlockQ4_1 *end = b + n; b < end; b++, x += BLOCK) {
        uint16_t d, m; // the block's own are not aligned
        pack_line(x, 15, &d, &m, b->q, NULL);
        b->d = d;
        b->m = m;
    }
}

void pack_q5_1(void *blocks, const float *x, int64_t n) {
    BlockQ5_1 *b = blocks;
    for (BlockQ5_1 *end = b + n; b < end; b++, x += BLOCK) {
        uint16_t d, m;
        uint32_t high;
        pack_line(x, 31, &d, &m, b->q, &high);
        b->d = d;
        b->m = m;
        b->high = high;
    }
}

void pack_q5_0(void *blocks, const float *x, int64_t n) {
    BlockQ5_0 *b = blocks;
    for (BlockQ5_0 *end = b + n; b < end; b++, x += BLOCK) {
        b->d = f16_scale(search_scale(x, BLOCK, -16, 15));
        float d = f32_from_f16(b->d);
        uint32_t high = 0;
        for (int j = 0; j < 16; j++) {
            int low = steps(x[j], d, -16, 15) + 16, top = steps(x[j + 16], d, -16, 15) + 16;
            b->q[j] = (uint8_t)((low & 15) | (top & 15) << 4);
            high |= (uint32_t)(low >> 4) << j | (uint32_t)(top >> 4) << (j + 16);
        }
        b->high = high;
    }
}

// A super-block of lines: its scales' scales d and m, the groups' scales and minima, and the codes.
typedef struct {
    uint16_t d, m;
    int scale[SUPER / GROUP], minimum[SUPER / GROUP];
    uint8_t q[SUPER];
} Lines;

// Groups of `size` values, codes from 0 to hi, scales from 0 to hi_scale.
static void fit_lines(Lines *l, const float *x, int size, int hi, int hi_scale) {
    Fit fits[SUPER / GROUP];
    float scale = 0, minimum = 0;
    for (int g = 0; g < SUPER / size; g++) {
        fits[g] = search_line(x + g * size, size, hi, false);
        scale = fmaxf(scale, fits[g].scale);
        minimum = fmaxf(minimum, fits[g].minimum);
    }
    l->d = f16_outward(scale / (float)hi_scale);
    l->m = f16_outward(minimum / (float)hi_scale);
    float d = f32_from_f16(l->d), m = f32_from_f16(l->m);
    for (int g = 0; g < SUPER / size; g++) {
        l->scale[g] = steps(fits[g].scale, d, 0, hi_scale);
        l->minimum[g] = steps(fits[g].minimum, m, 0, hi_scale);
    }
    for (int i = 0; i < SUPER; i++) {
        int g = i / size;
        l->q[i] = (uint8_t)steps(x[i] + m * (float)l->minimum[g], d * (float)l->scale[g], 0, hi);
    }
}

static void put_scale_q4_k(uint8_t *scales, int g, int scale, int minimum) {
    if (g < 4) {
        scales[g] |= (uint8_t)scale;
        scales[g + 4] |= (uint8_t)minimum;
    } else {
        scales[g + 4] |= (uint8_t)((scale & 15) | (minimum & 15) << 4);
        scales[g - 4] |= (uint8_t)(scale >> 4 << 6);
        scales[g] |= (uint8_t)(minimum >> 4 << 6);
    }
}

void pack_q4_k(void *blocks, const float *x, int64_t n) {
    BlockQ4_K *b = blocks;
    for (BlockQ4_K *end = b + n; b < end; b++, x += SUPER) {
        Lines l;
        fit_lines(&l, x, RANGE, 15, 63);
        memset(b, 0, sizeof *b);
        b->d = l.d;
        b->m = l.m;
        for (int g = 0; g < N_RANGES; g++) put_scale_q4_k(b->scales, g, l.scale[g], l.minimum[g]);
        for (int i = 0; i < SUPER; i++) b->q[i / 64 * RANGE + i % RANGE] |= (uint8_t)(l.q[i] << i / RANGE % 2 * 4);
    }
}

void pack_q5_k(void *blocks, const float *x, int64_t n) {
    BlockQ5_K *b = blocks;
    for (BlockQ5_K *end = b + n; b < end; b++, x += SUPER) {
        Lines l;
        fit_lines(&l, x, RANGE, 31, 63);
        memset(b, 0, sizeof *b);
        b->d = l.d;
        b->m = l.m;
        for (int g = 0; g < N_RANGES; g++) put_scale_q4_k(b->scales, g, l.scale[g], l.minimum[g]);
        for (int i = 0; i < SUPER; i++) {
            b->q[i / 64 * RANGE + i % RANGE] |= (uint8_t)((l.q[i] & 15) << i / RANGE % 2 * 4);
            b->high[i % RANGE] |= (uint8_t)(l.q[i] >> 4 << i / RANGE);
        }
    }
}

void pack_q2_k(void *blocks, const float *x, int64_t n) {
    BlockQ2_K *b = blocks;
    for (BlockQ2_K *end = b + n; b < end; b++, x += SUPER) {
        Lines l;
        fit_lines(&l, x, GROUP, 3, 15);
        memset(b, 0, sizeof *b);
        b->d = l.d;
        b->m = l.m;
        for (int g = 0; g < SUPER / GROUP; g++) b->scales[g] = (uint8_t)(l.scale[g] | l.minimum[g] << 4);
        for (int i = 0; i < SUPER; i++) b->q[i / 128 * RANGE + i % RANGE] |= (uint8_t)(l.q[i] << i % 128 / RANGE * 2);
    }
}

void pack_q3_k(void *blocks, const float *x, int64_t n) {
    BlockQ3_K *b = blocks;
    for (BlockQ3_K *end = b + n; b < end; b++, x += SUPER) {
        float scales[SUPER / GROUP];
        for (int g = 0; g < SUPER / GROUP; g++) scales[g] = search_scale(x + g * GROUP, GROUP, -4, 3);
        memset(b, 0, sizeof *b);
        b->d = f16_outward(extreme(scales, SUPER / GROUP) / -32);
        float d = f32_from_f16(b->d);
        for (int g = 0; g < SUPER / GROUP; g++) {
            int scale = steps(scales[g], d, -32, 31) + 32;
            b->scales[g % 8] |= (uint8_t)((scale & 15) << g / 8 * 4);
            b->scales[8 + g % 4] |= (uint8_t)(scale >> 4 << g / 4 * 2);
            for (int i = g * GROUP; i < (g + 1) * GROUP; i++) {
                int q = steps(x[i], d * (float)(scale - 32), -4, 3) + 4;
                b->q[i / 128 * RANGE + i % RANGE] |= (uint8_t)((q & 3) << i % 128 / RANGE * 2);
                b->high[i % RANGE] |= (uint8_t)(q >> 2 << i / RANGE);
            }
        }
    }
}

// The code whose value is nearest to v / scale; that of the smallest value for a scale of 0.
static int nearest_iq4(float v, float scale) {
    if (!(fabsf(scale) > 0)) return 8;
    float want = v / scale;
    int low = 0, high = 15; // iq4_values[low] <= want < iq4_values[high], or want is beyond the ends
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (want < (float)iq4_values[middle]) high = middle;
        else low = middle;
    }
    return want - (float)iq4_values[low] < (float)iq4_values[high] - want ? low : high;
}

// As search_scale, for the values of IQ4: its extreme value meets one of a few targets on either side of zero.
static float search_scale_iq4(const float *x, int n) {
    float top = extreme(x, n), best = 0;
    double best_gain = 0;
    for (int t = -TRIES; t <= TRIES; t++) {
        for (int end = 0; end < 16; end += 15) {
            float scale = top / ((float)iq4_values[end] * (1 + (float)t / 64));
            double xq = 0, qq = 0;
            for (int i = 0; i < n; i++) {
                int q = iq4_values[nearest_iq4(x[i], scale)];
                xq += (double)x[i] * q;
                qq += (double)q * q;
            }
            if (xq * xq > best_gain * qq) {
                best_gain = xq * xq / qq;
                best = (float)(xq / qq);
            }
        }
    }
    return best;
}

static void put_iq4(uint8_t *q, const float *x, float scale) {
    for (int j = 0; j < 16; j++) q[j] = (uint8_t)(nearest_iq4(x[j], scale) | nearest_iq4(x[j + 16], scale) << 4);
}

void pack_iq4_nl(void *blocks, const float *x, int64_t n) {
    BlockIQ4_NL *b = blocks;
    for (BlockIQ4_NL *end = b + n; b < end; b++, x += BLOCK) {
        b->d = f16_scale(search_scale_iq4(x, BLOCK));
        put_iq4(b->q, x, f32_from_f16(b->d));
    }
}

void pack_iq4_xs(void *blocks, const float *x, int64_t n) {
    BlockIQ4_XS *b = blocks;
    for (BlockIQ4_XS *end = b + n; b < end; b++, x += SUPER) {
        float scales[N_RANGES];
        for (int g = 0; g < N_RANGES; g++) scales[g] = search_scale_iq4(x + g * RANGE, RANGE);
        memset(b, 0, sizeof *b);
        b->d = f16_outward(extreme(scales, N_RANGES) / -32);
        float d = f32_from_f16(b->d);
        for (int g = 0; g < N_RANGES; g++) {
            int scale = steps(scales[g], d, -32, 31);
            b->low[g / 2] |= (uint8_t)(((scale + 32) & 15) << g % 2 * 4);
            b->high |= (uint16_t)((scale + 32) >> 4 << 2 * g);
            put_iq4(b->q + g * 16, x + g * RANGE, d * (float)scale);
        }
    }
}
