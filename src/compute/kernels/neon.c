// neon: the kernels for Advanced SIMD, which every 64-bit Arm has.
#include "neon.h"

#define TABLE kernels_neon
#define LEVEL_NAME "neon"

// Sums of two products fit 16 bits: at most 128 * 127 * 2. All lanes are of one group, so the order is free.
static inline float32x4_t u_dots(int8x16_t u, int8x16_t x) {
    int16x8_t pairs = vmlal_high_s8(vmull_s8(vget_low_s8(u), vget_low_s8(x)), u, x);
    return vcvtq_f32_s32(vpaddlq_s16(pairs));
}

static inline int32x4_t i_dots_signed(int32x4_t sum, int8x16_t u, int8x16_t x) {
    int32x4_t first = vpaddlq_s16(vmull_s8(vget_low_s8(u), vget_low_s8(x)));
    return vaddq_s32(sum, vpaddq_s32(first, vpaddlq_s16(vmull_high_s8(u, x))));
}

#include "blocks_tmpl.h"
#include "lanes_tmpl.h"
