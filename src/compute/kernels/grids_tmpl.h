// grids_tmpl: values and scales of the block formats whose values come from grids (grids.h), as signed bytes, or are
// codes of -1, 0 and 1. Included by blocks_tmpl.h, which lists the b_ and e_ operations.
#include "grids.h"

// Bytes as words of 16 bits; nibbles as bytes.
INNER uint64_t bytes_apart(uint32_t bytes) {
    uint64_t x = (bytes | (uint64_t)bytes << 16) & 0x0000ffff0000ffffu;
    return (x | x << 8) & 0x00ff00ff00ff00ffu;
}

INNER uint64_t nibbles_apart(uint32_t nibbles) {
    uint64_t x = bytes_apart(nibbles);
    return (x | x << 4) & 0x0f0f0f0f0f0f0f0fu;
}

INNER uint32_t four_bytes(const uint8_t *p) {
    uint32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return bytes;
}

// ---- values of range s of a chunk, as 32 bytes

INNER B entries_of_8(const uint64_t *grid, int i0, int i1, int i2, int i3) {
    return b_words(grid[i0], grid[i1], grid[i2], grid[i3]);
}

// Entry l is the byte q[l], with bit l of `high` above it.
INNER B entries_of_4(const uint32_t *grid, const uint8_t *q, int high) {
    uint64_t words[4];
    for (int l = 0; l < 4; l++) {
        int i0 = q[2 * l] | (high >> 2 * l & 1) << 8, i1 = q[2 * l + 1] | (high >> (2 * l + 1) & 1) << 8;
        words[l] = grid[i0] | (uint64_t)grid[i1] << 32;
    }
    return b_words(words[0], words[1], words[2], words[3]);
}

// An eighth bit for each 7 bits of four bytes, so that the number of ones in the byte is even.
INNER uint32_t even(uint32_t bytes) {
    uint32_t parity = bytes ^ bytes >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return bytes | (parity & 0x01010101) << 7;
}

INNER uint32_t even_signs(uint32_t packed) {
    return even((packed & 0x7f) | (packed << 1 & 0x7f00) | (packed << 2 & 0x7f0000) | (packed << 3 & 0x7f000000));
}

INNER B range_iq2_xs(const uint16_t *q) {
    uint32_t signs = 0;
    for (int l = 0; l < 4; l++) signs |= (uint32_t)(q[l] >> 9) << 8 * l;
    return b_negate(entries_of_8(grid_bytes.iq2_xs, q[0] & 511, q[1] & 511, q[2] & 511, q[3] & 511), even(signs));
}

// The shift of eight values of IQ1: -1 in every byte if the bit is set, else 1.
INNER uint64_t shift_if(int negative) {
    return negative ? UINT64_MAX : 0x0101010101010101u;
}

INNER B range_iq1_s(const uint8_t *q, int high) {
    B values = entries_of_8(grid_bytes.iq1, q[0] | (high & 7) << 8, q[1] | (high >> 3 & 7) << 8,
                            q[2] | (high >> 6 & 7) << 8, q[3] | (high >> 9 & 7) << 8);
    uint64_t shift = shift_if(high & 0x8000);
    return b_add(values, b_words(shift, shift, shift, shift));
}

INNER B range_iq1_m(const uint8_t *q, int high) {
    B values = entries_of_8(grid_bytes.iq1, q[0] | (high & 7) << 8, q[1] | (high >> 4 & 7) << 8,
                            q[2] | (high >> 8 & 7) << 8, q[3] | (high >> 12 & 7) << 8);
    return b_add(values,
                 b_words(shift_if(high & 8), shift_if(high & 0x80), shift_if(high & 0x800), shift_if(high & 0x8000)));
}

// Three times eight bytes, without carries between them.
INNER uint64_t thrice(uint64_t bytes) {
    const uint64_t even = 0x00ff00ff00ff00ffu;
    return ((bytes & even) * 3 & even) | ((bytes >> 8 & even) * 3 & even) << 8;
}

// Bytes with five codes each (quant_grids.c), multiplied by the power of 3 that brings the range's code to the front.
INNER B turned_tq1_0(const BlockTQ1_0 *b, const int s) {
    uint64_t w0, w1, last = four_bytes(b->last);
    B bytes = b_load(b->q);
    memcpy(&w0, b->q + 32, sizeof w0);
    memcpy(&w1, b->q + 40, sizeof w1);
    if (s == 7) {
        for (int c = 0; c < 4; c++) {
            w0 = thrice(w0);
            w1 = thrice(w1);
        }
        last |= thrice(last) << 32;
        return b_words(w0, w1, last, thrice(thrice(last)));
    }
    if (s >= 5) bytes = b_words(w0, w1, thrice(w0), thrice(w1));
    for (int c = 0; c < (s == 6 ? 2 : s % 5); c++) bytes = b_add(b_add(bytes, bytes), bytes);
    return bytes;
}

// Three times a byte has the code above 8 bits: below 1 to 85, below 2 to 170.
INNER B range_tq1_0(const BlockTQ1_0 *b, const int s) {
    const uint64_t twos = 0x0202020202020202u;
    B bytes = turned_tq1_0(b, s);
    return b_add(b_add(b_at_most(bytes, 85), b_at_most(bytes, 170)), b_words(twos, twos, twos, twos));
}

INNER B range_of_grid(const DType f, const uint8_t *p, const int s) {
    switch (f) {
    case DTYPE_IQ3_S: {
        const BlockIQ3_S *b = (const BlockIQ3_S *)(const void *)p;
        return b_negate(entries_of_4(grid_bytes.iq3_s, b->q + 8 * s, b->high[s]), four_bytes(b->signs + 4 * s));
    }
    case DTYPE_IQ3_XXS: {
        const BlockIQ3_XXS *b = (const BlockIQ3_XXS *)(const void *)p;
        return b_negate(entries_of_4(grid_bytes.iq3_xxs, b->q + 8 * s, 0), even_signs(b->signs[s]));
    }
    case DTYPE_IQ2_S: {
        const BlockIQ2_S *b = (const BlockIQ2_S *)(const void *)p;
        const uint8_t *q = b->q + 4 * s;
        int high = b->high[s];
        B values = entries_of_8(grid_bytes.iq2_s, q[0] | (high & 3) << 8, q[1] | (high >> 2 & 3) << 8,
                                q[2] | (high >> 4 & 3) << 8, q[3] | (high >> 6 & 3) << 8);
        return b_negate(values, four_bytes(b->signs + 4 * s));
    }
    case DTYPE_IQ2_XS: {
        uint16_t q[4];
        memcpy(q, p + offsetof(BlockIQ2_XS, q) + 8 * s, sizeof q);
        return range_iq2_xs(q);
    }
    case DTYPE_IQ2_XXS: {
        const RangeIQ2_XXS *r = &((const BlockIQ2_XXS *)(const void *)p)->ranges[s];
        B values = entries_of_8(grid_bytes.iq2_xxs, r->q[0], r->q[1], r->q[2], r->q[3]);
        return b_negate(values, even_signs(r->signs));
    }
    case DTYPE_IQ1_S: {
        const BlockIQ1_S *b = (const BlockIQ1_S *)(const void *)p;
        return range_iq1_s(b->q + 4 * s, b->high[s]);
    }
    case DTYPE_IQ1_M: {
        const BlockIQ1_M *b = (const BlockIQ1_M *)(const void *)p;
        return range_iq1_m(b->q + 4 * s, b->high[2 * s] | b->high[2 * s + 1] << 8);
    }
    default: return range_tq1_0((const BlockTQ1_0 *)(const void *)p, s);
    }
}

// ---- scales

// Of the eight groups of 32: d (2 scale + 1) over 1, 4 or 8.
INNER E scales_of_8(uint64_t scales, uint16_t d, float over) {
    return e_scaled(e_bytes(scales << 1 | 0x0101010101010101u), f_half(d) / over);
}

INNER E grid_scales_of_8(const DType f, const uint8_t *p) {
    uint64_t scales = 0;
    switch (f) {
    case DTYPE_IQ3_S: {
        const BlockIQ3_S *b = (const BlockIQ3_S *)(const void *)p;
        return scales_of_8(nibbles_apart(four_bytes(b->scales)), b->d, 1);
    }
    case DTYPE_IQ3_XXS: {
        const BlockIQ3_XXS *b = (const BlockIQ3_XXS *)(const void *)p;
        for (int g = 0; g < 8; g++) scales |= (uint64_t)(b->signs[g] >> 28) << 8 * g;
        return scales_of_8(scales, b->d, 4);
    }
    case DTYPE_IQ2_XXS: {
        const BlockIQ2_XXS *b = (const BlockIQ2_XXS *)(const void *)p;
        for (int g = 0; g < 8; g++) scales |= (uint64_t)(b->ranges[g].signs >> 28) << 8 * g;
        return scales_of_8(scales, b->d, 8);
    }
    case DTYPE_IQ1_S: {
        const BlockIQ1_S *b = (const BlockIQ1_S *)(const void *)p;
        for (int g = 0; g < 8; g++) scales |= (uint64_t)(b->high[g] >> 12 & 7) << 8 * g;
        return scales_of_8(scales, b->d, 8);
    }
    case DTYPE_TQ1_0: return scales_of_8(0, ((const BlockTQ1_0 *)(const void *)p)->d, 1);
    default: return scales_of_8(0, ((const BlockTQ2_0 *)(const void *)p)->d, 1); // DTYPE_TQ2_0
    }
}

// 2 scale + 1 of the sixteen groups of 16.
INNER Bytes16 odd_scales_iq2(const uint8_t *scales) {
    typedef uint64_t Halves __attribute__((vector_size(16)));
    Halves nibbles = {nibbles_apart(four_bytes(scales)), nibbles_apart(four_bytes(scales + 4))};
    return (Bytes16)nibbles * 2 + 1;
}

INNER Bytes16 odd_scales_iq1_m(const BlockIQ1_M *b) {
    typedef uint32_t Words __attribute__((vector_size(16)));
    Words w = {b->scales[0], b->scales[1], b->scales[2], b->scales[3]};
    Words bytes = (w & 7) | (w << 5 & 0x0700) | (w << 10 & 0x070000) | (w << 15 & 0x07000000);
    return (Bytes16)bytes * 2 + 1;
}

INNER float d_iq1_m(const BlockIQ1_M *b) {
    int bits = 0;
    for (int i = 0; i < 4; i++) bits |= b->scales[i] >> 12 << 4 * i;
    return f_half((uint16_t)bits);
}
