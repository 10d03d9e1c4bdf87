// neon: the kernels for Advanced SIMD, which every 64-bit Arm has.
#include "neon.h"

#define TABLE kernels_neon
#define LEVEL_NAME "neon"

static inline int32x4_t i_dots_signed(int32x4_t sum, int8x16_t u, int8x16_t x) {
    int32x4_t first = vpaddlq_s16(vmull_s8(vget_low_s8(u), vget_low_s8(x)));
    return vaddq_s32(sum, vpaddq_s32(first, vpaddlq_s16(vmull_high_s8(u, x))));
}

#include "blocks_tmpl.h"
#include "lanes_tmpl.h"
