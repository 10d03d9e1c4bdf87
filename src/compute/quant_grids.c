// quant_grids: unpack of the block formats whose values come from grids or are -1, 0 and 1 (quant.h); pack of the
// latter. Written to be read, like quant.c.
#include "grids.h"
#include "quant.h"

#include <math.h>
#include <stdbool.h>

enum { RANGE = 32, N_RANGES = SUPER / RANGE, EIGHT = 8 };

// ---- grids

// Seven signs and the eighth that makes the number of ones even.
static int even_signs(uint32_t seven) {
    return (int)(seven | (uint32_t)__builtin_parity(seven) << 7);
}

// y[j] = scale times value j of entry i of the grid; bit j of signs: negative.
static void spread_entry(float *y, const Grid *g, int i, int signs, float scale) {
    for (int j = 0; j < g->values; j++) {
        int value = grid_value(g, i, j);
        y[j] = scale * (float)(signs >> j & 1 ? -value : value);
    }
}

// Eight values of two entries of four.
static void spread_entries(float *y, const Grid *g, int i0, int i1, int signs, float scale) {
    spread_entry(y, g, i0, signs, scale);
    spread_entry(y + 4, g, i1, signs >> 4, scale);
}

void unpack_iq3_s(float *y, const void *blocks, int64_t n) {
    const BlockIQ3_S *b = blocks;
    for (const BlockIQ3_S *end = b + n; b < end; b++) {
        float d = f32_from_f16(b->d);
        for (int e = 0; e < SUPER / EIGHT; e++, y += EIGHT) {
            int r = e / 4, high = b->high[r] >> e % 4 * 2, scale = b->scales[r / 2] >> r % 2 * 4 & 15;
            int i0 = b->q[2 * e] | (high & 1) << 8, i1 = b->q[2 * e + 1] | (high >> 1 & 1) << 8;
            spread_entries(y, &grid_iq3_s, i0, i1, b->signs[e], d * (float)(2 * scale + 1));
        }
    }
}

void unpack_iq3_xxs(float *y, const void *blocks, int64_t n) {
    const BlockIQ3_XXS *b = blocks;
    for (const BlockIQ3_XXS *end = b + n; b < end; b++) {
        float d = f32_from_f16(b->d);
        for (int e = 0; e < SUPER / EIGHT; e++, y += EIGHT) {
            uint32_t word = b->signs[e / 4];
            float scale = d * (float)(2 * (word >> 28) + 1) / 4;
            spread_entries(y, &grid_iq3_xxs, b->q[2 * e], b->q[2 * e + 1], even_signs(word >> e % 4 * 7 & 127), scale);
        }
    }
}

void unpack_iq2_s(float *y, const void *blocks, int64_t n) {
    const BlockIQ2_S *b = blocks;
    for (const BlockIQ2_S *end = b + n; b < end; b++) {
        float d = f32_from_f16(b->d);
        for (int e = 0; e < SUPER / EIGHT; e++, y += EIGHT) {
            int i = b->q[e] | (b->high[e / 4] >> e % 4 * 2 & 3) << 8, scale = b->scales[e / 4] >> e % 4 / 2 * 4 & 15;
            spread_entry(y, &grid_iq2_s, i, b->signs[e], d * (float)(2 * scale + 1) / 8);
        }
    }
}

void unpack_iq2_xs(float *y, const void *blocks, int64_t n) {
    const BlockIQ2_XS *b = blocks;
    for (const BlockIQ2_XS *end = b + n; b < end; b++) {
        float d = f32_from_f16(b->d);
        for (int e = 0; e < SUPER / EIGHT; e++, y += EIGHT) {
            int scale = b->scales[e / 4] >> e % 4 / 2 * 4 & 15;
            spread_entry(y, &grid_iq2_xs, b->q[e] & 511, even_signs(b->q[e] >> 9), d * (float)(2 * scale + 1) / 8);
        }
    }
}

void unpack_iq2_xxs(float *y, const void *blocks, int64_t n) {
    const BlockIQ2_XXS *b = blocks;
    for (const BlockIQ2_XXS *end = b + n; b < end; b++) {
        float d = f32_from_f16(b->d);
        for (int e = 0; e < SUPER / EIGHT; e++, y += EIGHT) {
            const RangeIQ2_XXS *r = &b->ranges[e / 4];
            float scale = d * (float)(2 * (r->signs >> 28) + 1) / 8;
            spread_entry(y, &grid_iq2_xxs, r->q[e % 4], even_signs(r->signs >> e % 4 * 7 & 127), scale);
        }
    }
}

static void spread_iq1(float *y, int i, bool negative, float scale) {
    for (int j = 0; j < EIGHT; j++) y[j] = scale * (float)(grid_value(&grid_iq1, i, j) + (negative ? -1 : 1));
}

void unpack_iq1_s(float *y, const void *blocks, int64_t n) {
    const BlockIQ1_S *b = blocks;
    for (const BlockIQ1_S *end = b + n; b < end; b++) {
        float d = f32_from_f16(b->d);
        for (int e = 0; e < SUPER / EIGHT; e++, y += EIGHT) {
            int high = b->high[e / 4], i = b->q[e] | (high >> e % 4 * 3 & 7) << 8, scale = high >> 12 & 7;
            spread_iq1(y, i, high >> 15, d * (float)(2 * scale + 1) / 8);
        }
    }
}

void unpack_iq1_m(float *y, const void *blocks, int64_t n) {
    const BlockIQ1_M *b = blocks;
    for (const BlockIQ1_M *end = b + n; b < end; b++) {
        int bits = 0;
        for (int i = 0; i < 4; i++) bits |= b->scales[i] >> 12 << 4 * i;
        float d = f32_from_f16((uint16_t)bits);
        for (int e = 0; e < SUPER / EIGHT; e++, y += EIGHT) {
            int high = b->high[e / 2] >> e % 2 * 4, scale = b->scales[e / 8] >> e % 8 / 2 * 3 & 7;
            spread_iq1(y, b->q[e] | (high & 7) << 8, high >> 3 & 1, d * (float)(2 * scale + 1) / 8);
        }
    }
}

// ---- -1, 0, 1

// Code c0..c4 of a byte of TQ1_0. The byte is the fraction (81 c0 + 27 c1 + 9 c2 + 3 c3 + c4) / 243 in steps of 1/256,
// rounded up: multiplied by 3, its whole part is c0, and the rest is the fraction of the others.
static int ternary_code(uint8_t byte, int which) {
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};
    return (uint8_t)(byte * powers[which]) * 3 >> 8;
}

// The place of value i: bytes of q and `last` counted together, and the code in the byte.
static int ternary_place(int i, int *which) {
    *which = i < 160 ? i / 32 : i < 240 ? (i - 160) / 16 : (i - 240) / 4;
    return i < 160 ? i % 32 : i < 240 ? 32 + i % 16 : 48 + i % 4;
}

void unpack_tq1_0(float *y, const void *blocks, int64_t n) {
    const BlockTQ1_0 *b = blocks;
    for (const BlockTQ1_0 *end = b + n; b < end; b++) {
        float d = f32_from_f16(b->d);
        for (int i = 0, which; i < SUPER; i++) {
            int at = ternary_place(i, &which);
            uint8_t byte = at < 48 ? b->q[at] : b->last[at - 48];
            *y++ = d * (float)(ternary_code(byte, which) - 1);
        }
    }
}

void unpack_tq2_0(float *y, const void *blocks, int64_t n) {
    const BlockTQ2_0 *b = blocks;
    for (const BlockTQ2_0 *end = b + n; b < end; b++) {
        float d = f32_from_f16(b->d);
        for (int i = 0; i < SUPER; i++) *y++ = d * (float)((b->q[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) - 1);
    }
}

// The scale of least squared error for codes from 0 to 2: the mean magnitude of the values that do not become 0, those
// above one of a few thresholds.
static float search_ternary(const float *x) {
    enum { TRIES = 32 };
    float top = 0;
    for (int i = 0; i < SUPER; i++) top = fmaxf(top, fabsf(x[i]));
    double best = 0, best_gain = 0; // how much less the error is than with zeros
    for (int t = 0; t < TRIES; t++) {
        float threshold = top * ((float)t / TRIES);
        double sum = 0;
        int n = 0;
        for (int i = 0; i < SUPER; i++) {
            bool above = fabsf(x[i]) > threshold;
            sum += above ? (double)fabsf(x[i]) : 0;
            n += above;
        }
        if (n && sum * sum > best_gain * n) {
            best_gain = sum * sum / n;
            best = sum / n;
        }
    }
    return (float)best;
}

// Scale and codes of a super-block.
static uint16_t pack_ternary(uint8_t codes[SUPER], const float *x) {
    uint16_t half = f16_from_f32(fminf(65504.0f, search_ternary(x)));
    float d = f32_from_f16(half);
    for (int i = 0; i < SUPER; i++) codes[i] = (uint8_t)(1 + (x[i] > d / 2) - (x[i] < -d / 2));
    return half;
}

// A byte of TQ1_0 of 81 c0 + 27 c1 + 9 c2 + 3 c3 + c4.
static uint8_t ternary_byte(int sum) {
    return (uint8_t)((sum * 256 + 242) / 243);
}

void pack_tq1_0(void *blocks, const float *x, int64_t n) {
    static const uint8_t weights[5] = {81, 27, 9, 3, 1};
    BlockTQ1_0 *b = blocks;
    for (BlockTQ1_0 *end = b + n; b < end; b++, x += SUPER) {
        uint8_t codes[SUPER];
        int sums[sizeof b->q + sizeof b->last] = {0};
        b->d = pack_ternary(codes, x);
        for (int i = 0, which; i < SUPER; i++) {
            int at = ternary_place(i, &which);
            sums[at] += codes[i] * weights[which];
        }
        for (int at = 0; at < 48; at++) b->q[at] = ternary_byte(sums[at]);
        for (int at = 0; at < 4; at++) b->last[at] = ternary_byte(sums[48 + at]);
    }
}

void pack_tq2_0(void *blocks, const float *x, int64_t n) {
    BlockTQ2_0 *b = blocks;
    for (BlockTQ2_0 *end = b + n; b < end; b++, x += SUPER) {
        uint8_t codes[SUPER];
        memset(b, 0, sizeof *b);
        b->d = pack_ternary(codes, x);
        for (int i = 0; i < SUPER; i++) b->q[i / 128 * 32 + i % 32] |= (uint8_t)(codes[i] << i % 128 / 32 * 2);
    }
}
