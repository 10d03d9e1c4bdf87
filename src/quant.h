// quant: number formats, each defined once.
//
// bfloat16 is the upper half of an IEEE single: the cache stores it. Rounding is to nearest, ties to even; NaN stays
// NaN (quiet).
#pragma once
#include <stdint.h>
#include <string.h>

static inline float f32_from_bf16(uint16_t b) {
    uint32_t bits = (uint32_t)b << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint16_t bf16_from_f32(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16 | 0x40u) : rounded);
}
