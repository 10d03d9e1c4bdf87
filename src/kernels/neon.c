// The neon rung: Advanced SIMD of every 64-bit Arm. Four lanes, 32 registers.
#include "../quant.h"

#include <arm_neon.h>

#define TABLE kernels_neon
#define RUNG_NAME "neon"
#define V float32x4_t
#define LANES 4
#define PANEL_V 4
#define GEMM_COLS 6

#define v_zero() vdupq_n_f32(0)
#define v_set1 vdupq_n_f32
#define v_load vld1q_f32
#define v_store vst1q_f32
#define v_add vaddq_f32
#define v_sub vsubq_f32
#define v_mul vmulq_f32
#define v_div vdivq_f32
#define v_min vminq_f32
#define v_max vmaxq_f32
#define v_fma(a, b, c) vfmaq_f32(c, a, b)
#define v_round vrndnq_f32
#define v_sum vaddvq_f32
#define v_max_of vmaxvq_f32

static inline float32x4_t v_load_first(const float *p, int n, float32x4_t v) {
    float x[4];
    vst1q_f32(x, v);
    for (int i = 0; i < n; i++) x[i] = p[i];
    return vld1q_f32(x);
}

static inline void v_store_first(float *p, int n, float32x4_t v) {
    float x[4];
    vst1q_f32(x, v);
    for (int i = 0; i < n; i++) p[i] = x[i];
}

static inline float32x4_t v_load_i8(const int8_t *p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}

static inline float32x4_t v_load_f16(const uint16_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

static inline float32x4_t v_load_bf16(const uint16_t *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}

static inline float32x4_t v_exp2_scale(float32x4_t p, float32x4_t n) {
    int32x4_t bits = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
    return vmulq_f32(p, vreinterpretq_f32_s32(vshlq_n_s32(bits, 23)));
}

static inline void v_sum4(float *y, float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d) {
    vst1q_f32(y, vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)));
}

static inline void transpose_4(float *dst, int64_t ldd, const float *src, int64_t lds) {
    float32x4x2_t ab = vtrnq_f32(vld1q_f32(src), vld1q_f32(src + lds));
    float32x4x2_t cd = vtrnq_f32(vld1q_f32(src + 2 * lds), vld1q_f32(src + 3 * lds));
    vst1q_f32(dst, vcombine_f32(vget_low_f32(ab.val[0]), vget_low_f32(cd.val[0])));
    vst1q_f32(dst + ldd, vcombine_f32(vget_low_f32(ab.val[1]), vget_low_f32(cd.val[1])));
    vst1q_f32(dst + 2 * ldd, vcombine_f32(vget_high_f32(ab.val[0]), vget_high_f32(cd.val[0])));
    vst1q_f32(dst + 3 * ldd, vcombine_f32(vget_high_f32(ab.val[1]), vget_high_f32(cd.val[1])));
}

#include "lanes.h"
