// neon_dot: the neon kernels with the dot products of Armv8.2 (FEAT_DotProd).
#include "neon.h"

#define TABLE kernels_neon_dot
#define LEVEL_NAME "neon_dot"

#define i_dots_signed vdotq_s32

static inline float32x4_t u_dots(int8x16_t u, int8x16_t x) {
    return vcvtq_f32_s32(vdotq_s32(vdupq_n_s32(0), u, x));
}

#include "blocks_tmpl.h"
#include "lanes_tmpl.h"
