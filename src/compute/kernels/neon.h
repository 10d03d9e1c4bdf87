// neon: Advanced SIMD, common to all levels of 64-bit Arm: four floats and 32 registers for lanes_tmpl.h; for
// blocks_tmpl.h bytes, all signed, where a vector of 16 bytes is one group. Included by neon.c and neon_dot.c, which
// add i_dots_signed, and by neon_bf16.c.
#include "kernels.h"

#include <arm_neon.h>

#define V float32x4_t
#define LANES 4
#define PANEL_V 4
#define GEMM_ROWS 6

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

static inline float32x4_t v_low_bf16(float32x4_t w) {
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(w), 16));
}

static inline float32x4_t v_high_bf16(float32x4_t w) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(w), vdupq_n_u32(0xffff0000u)));
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

// ---- bytes, for blocks_tmpl.h

#define U int8x16_t
#define SIGNED_BIAS 0
#define I int32x4_t
#define i_set1 vdupq_n_s32
#define v_float vcvtq_f32_s32
#define u_load vld1q_s8
#define u_store(p, u) vst1q_u8(p, vreinterpretq_u8_s8(u))
#define u_or vorrq_s8
#define u_flip(u) veorq_s8(u, vdupq_n_s8(-128))
#define MOST_BYTE 63
#define i_dots_bytes(u, x) i_dots_signed(vdupq_n_s32(0), u, x)
#define i_dots_bytes_2(u, x) i_dots_signed(i_dots_bytes((u)[0], (x)[0]), (u)[1], (x)[1])
#define W int16x8_t
#define w_load vld1q_s16
#define w_even(u) vandq_s16(vreinterpretq_s16_s8(u), vdupq_n_s16(255))
#define w_odd(u) vreinterpretq_s16_u16(vshrq_n_u16(vreinterpretq_u16_s8(u), 8))

typedef uint8_t Bytes16 __attribute__((vector_size(16)));
typedef struct {
    uint8x16_t half[2];
} B;

// All lanes are of one group, so the order is free.
static inline int32x4_t i_dots(int16x8_t w, int16x8_t x) {
    return vmlal_high_s16(vmull_s16(vget_low_s16(w), vget_low_s16(x)), w, x);
}

static inline int32x4_t i_add_dots(int32x4_t sum, int16x8_t w, int16x8_t x) {
    return vmlal_high_s16(vmlal_s16(sum, vget_low_s16(w), vget_low_s16(x)), w, x);
}

static inline int8x16_t u_set1(const int8_t *p) {
    int32_t word;
    __builtin_memcpy(&word, p, sizeof word);
    return vreinterpretq_s8_s32(vdupq_n_s32(word));
}

static inline int8x16_t u_gather(const uint8_t *const at[1], const int h) {
    (void)h;
    return vreinterpretq_s8_u8(vld1q_u8(at[0]));
}

static inline int8x16_t u_bits(int8x16_t u, const int shift[1], int mask) {
    uint8x16_t moved = vshlq_u8(vreinterpretq_u8_s8(u), vdupq_n_s8((int8_t)-shift[0]));
    return vreinterpretq_s8_u8(vandq_u8(moved, vdupq_n_u8((uint8_t)mask)));
}

static inline int8x16_t u_lookup(const uint8_t *table, int8x16_t u) {
    return vreinterpretq_s8_u8(vqtbl1q_u8(vld1q_u8(table), vreinterpretq_u8_s8(u)));
}

static inline int8x16_t u_half(const B ranges[1], int h) {
    return vreinterpretq_s8_u8(ranges[0].half[h]);
}

static inline B b_load(const uint8_t *p) {
    return (B){{vld1q_u8(p), vld1q_u8(p + 16)}};
}

static inline B b_or(B a, B b) {
    return (B){{vorrq_u8(a.half[0], b.half[0]), vorrq_u8(a.half[1], b.half[1])}};
}

static inline B b_nibbles(const uint8_t *p) {
    uint8x16_t q = vld1q_u8(p);
    return (B){{vandq_u8(q, vdupq_n_u8(15)), vshrq_n_u8(q, 4)}};
}

static inline B b_where(uint32_t bits, int value) {
    const uint8x16_t byte = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
    B b;
    for (int i = 0; i < 2; i++) {
        uint8x16_t v = vqtbl1q_u8(vreinterpretq_u8_u32(vdupq_n_u32(bits >> 16 * i)), byte);
        b.half[i] = vandq_u8(vtstq_u8(v, bit), vdupq_n_u8((uint8_t)value));
    }
    return b;
}

static inline B b_words(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    uint64x2_t low = {a, b}, high = {c, d};
    return (B){{vreinterpretq_u8_u64(low), vreinterpretq_u8_u64(high)}};
}

static inline B b_add(B a, B b) {
    return (B){{vaddq_u8(a.half[0], b.half[0]), vaddq_u8(a.half[1], b.half[1])}};
}

static inline B b_at_most(B b, int n) {
    uint8x16_t most = vdupq_n_u8((uint8_t)n);
    return (B){{vcleq_u8(b.half[0], most), vcleq_u8(b.half[1], most)}};
}

static inline B b_negate(B b, uint32_t bits) {
    B negative = b_where(bits, 255);
    for (int i = 0; i < 2; i++) b.half[i] = vsubq_u8(veorq_u8(b.half[i], negative.half[i]), negative.half[i]);
    return b;
}

typedef struct {
    float32x4_t half[2];
} E;

static inline float f_half(uint16_t h) {
    float16_t f;
    __builtin_memcpy(&f, &h, sizeof f);
    return f;
}

static inline E e_load(const float *p) {
    return (E){{vld1q_f32(p), vld1q_f32(p + 4)}};
}

static inline E e_halves(const uint16_t *h) {
    uint16x4_t a = {h[0], h[1], h[2], h[3]}, b = {h[4], h[5], h[6], h[7]};
    return (E){{vcvt_f32_f16(vreinterpret_f16_u16(a)), vcvt_f32_f16(vreinterpret_f16_u16(b))}};
}

static inline E e_bytes(uint64_t v) {
    uint16x8_t words = vmovl_u8(vcreate_u8(v));
    return (E){{vcvtq_f32_u32(vmovl_u16(vget_low_u16(words))), vcvtq_f32_u32(vmovl_high_u16(words))}};
}

static inline E e_scaled(E e, float x) {
    return (E){{vmulq_n_f32(e.half[0], x), vmulq_n_f32(e.half[1], x)}};
}

static inline float32x4_t v_load_u8(const uint8_t *p) {
    uint32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide)));
}

static inline float32x4_t v_spread(float32x4_t v, int j) {
    return vdupq_n_f32(v[j]);
}

static inline float32x4_t v_blocks(E e, int i) {
    return e.half[i % 2];
}

static inline float32x4_t v_bytes(Bytes16 b, int i) {
    int8x16_t in_order = vuzp1q_s8((int8x16_t)b, (int8x16_t)b);
    if (i / 2) in_order = vuzp2q_s8((int8x16_t)b, (int8x16_t)b);
    int16x8_t words = vmovl_s8(vget_low_s8(in_order));
    return vcvtq_f32_s32(vmovl_s16(i % 2 ? vget_high_s16(words) : vget_low_s16(words)));
}

static inline void v_store_i16(int16_t *p, float32x4_t v) {
    vst1_s16(p, vqmovn_s32(vcvtq_s32_f32(v)));
}

static inline void v_store_i8(int8_t *p, float32x4_t v) {
    int16x4_t words = vqmovn_s32(vcvtq_s32_f32(v));
    int8x8_t bytes = vqmovn_s16(vcombine_s16(words, words));
    __builtin_memcpy(p, &bytes, 4);
}
