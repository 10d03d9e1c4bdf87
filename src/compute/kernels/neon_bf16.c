// neon_bf16: products of bfloat16 pairs (FEAT_BF16), added to the neon_dot kernels.
#include "neon.h"

#include "inner.h"

enum { PANEL = PANEL_V * LANES, PAIR = 2 };

static inline float32x4_t v_add_dots(float32x4_t sum, float32x4_t pairs, int pair) {
    return vbfdotq_f32(sum, vreinterpretq_bf16_f32(pairs), vreinterpretq_bf16_s32(vdupq_n_s32(pair)));
}

#include "pairs_tmpl.h"

static inline uint16x4_t v_rounded(float32x4_t v) {
    return vreinterpret_u16_bf16(vcvt_bf16_f32(v));
}

// x[i..i+3], with `padding` from index n on.
static inline float32x4_t v_load_up_to(const float *x, int64_t i, int64_t n, float padding) {
    if (i + LANES <= n) return vld1q_f32(x + i);
    return v_load_first(x + i, n > i ? (int)(n - i) : 0, vdupq_n_f32(padding));
}

static void round_to_bf16(uint16_t *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        uint16_t four[LANES];
        vst1_u16(four, v_rounded(v_load_up_to(x, i, n, 0)));
        for (int64_t j = i; j < n && j < i + LANES; j++) y[j] = four[j - i];
    }
}

static void pairs_from_i8(uint16_t *y, const int8_t *x, int64_t n, int n_rows) {
    for (int r = 0; r < n_rows; r++, x += 4 * n, y += 4 * n) {
        for (int64_t i = 0; i < 4 * n; i++) y[i % 4 / 2 * 2 * n + i / 4 * 2 + i % 2] = bf16_from_f32(x[i]);
    }
}

// 2^x for x <= SOFTMAX_MARGIN, 0 below -126: the best cubic of the fraction, 7.5e-5 relative.
static inline float32x4_t v_exp2_coarse(float32x4_t x) {
    float32x4_t whole = vrndmq_f32(vmaxq_f32(x, vdupq_n_f32(-127))), f = vsubq_f32(x, whole);
    float32x4_t p = vfmaq_f32(vdupq_n_f32(0.22606716f), f, vdupq_n_f32(0.07802452f));
    p = vfmaq_f32(vdupq_n_f32(0.69583356f), p, f);
    p = vfmaq_f32(vdupq_n_f32(0.9999252f), p, f);
    uint32x4_t real = vcgeq_f32(x, vdupq_n_f32(-126));
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v_exp2_scale(p, whole)), real));
}

static float softmax_row(uint16_t *p, const float *s, int n_keys, const float *scales, float *m, float *l) {
    float old = *m, top = old, alpha = 1;
    float32x4_t most = vdupq_n_f32(old), sum = vdupq_n_f32(0);
    for (int j = 0; j < n_keys; j += LANES) most = vmaxq_f32(most, v_load_up_to(s, j, n_keys, SCORE_MASKED));
    if (vmaxvq_f32(most) > old + SOFTMAX_MARGIN) {
        top = vmaxvq_f32(most);
        alpha = vgetq_lane_f32(v_exp2_coarse(vdupq_n_f32(old - top)), 0);
    }
    int padded = (n_keys + BF16_STEP - 1) / BF16_STEP * BF16_STEP;
    for (int j = 0; j < padded; j += LANES) {
        float32x4_t v = v_exp2_coarse(vsubq_f32(v_load_up_to(s, j, n_keys, SCORE_MASKED), vdupq_n_f32(top)));
        sum = vaddq_f32(sum, v);
        if (scales) v = vmulq_f32(v, v_load_up_to(scales, j, n_keys, 0));
        vst1_u16(p + j, v_rounded(v));
    }
    *m = top;
    *l = *l * alpha + vaddvq_f32(sum);
    return alpha;
}

const Bf16Kernels bf16_neon = {
    .shared = 16, .round = round_to_bf16, .from_i8 = pairs_from_i8, .softmax_row = softmax_row, .gemm = gemm};
