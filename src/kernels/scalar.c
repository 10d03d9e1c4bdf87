// The scalar rung: complete, always shipped, written to be read. Every other rung is tested against it.
#include "../quant.h"
#include "kernels.h"

#include <math.h>

enum { PANEL = 8 };

static void matvec_f32(float *y, const float *w, int64_t ldw, const float *x, int n_rows, int k) {
    for (int i = 0; i < n_rows; i++) {
        float sum = 0;
        for (int j = 0; j < k; j++) sum += w[i * ldw + j] * x[j];
        y[i] = sum;
    }
}

static void matvec_f16(float *y, const uint16_t *w, int64_t ldw, const float *x, int n_rows, int k) {
    for (int i = 0; i < n_rows; i++) {
        float sum = 0;
        for (int j = 0; j < k; j++) sum += f32_from_f16(w[i * ldw + j]) * x[j];
        y[i] = sum;
    }
}

static void matvec_bf16(float *y, const uint16_t *w, int64_t ldw, const float *x, int n_rows, int k) {
    for (int i = 0; i < n_rows; i++) {
        float sum = 0;
        for (int j = 0; j < k; j++) sum += f32_from_bf16(w[i * ldw + j]) * x[j];
        y[i] = sum;
    }
}

// Dots of the rows whose values `value` tells.
static void dots(float *y, int64_t ldy, float (*value)(const void *w, int64_t at), const void *w, int64_t ldw,
                 int64_t step, const float *x, int64_t ldx, int n_rows, int n_x, int k) {
    for (int r = 0; r < n_x; r++) {
        for (int i = 0; i < n_rows; i++) {
            float sum = 0;
            for (int j = 0; j < k; j++) {
                sum += value(w, j / DOTS_STEP * step + i * ldw + j % DOTS_STEP) * x[r * ldx + j];
            }
            y[r * ldy + i] = sum;
        }
    }
}

static float value_f32(const void *w, int64_t at) {
    return ((const float *)w)[at];
}

static void dots_f32(float *y, int64_t ldy, const float *w, int64_t ldw, int64_t step, const float *x, int64_t ldx,
                     int n_rows, int n_x, int k, ptrdiff_t ahead) {
    (void)ahead;
    dots(y, ldy, value_f32, w, ldw, step, x, ldx, n_rows, n_x, k);
}

static float value_bf16(const void *w, int64_t at) {
    return f32_from_bf16(((const uint16_t *)w)[at]);
}

static void dots_bf16(float *y, int64_t ldy, const uint16_t *w, int64_t ldw, int64_t step, const float *x, int64_t ldx,
                      int n_rows, int n_x, int k, ptrdiff_t ahead) {
    (void)ahead;
    dots(y, ldy, value_bf16, w, ldw, step, x, ldx, n_rows, n_x, k);
}

static float value_i8(const void *w, int64_t at) {
    return (float)((const int8_t *)w)[at];
}

static void dots_i8(float *y, int64_t ldy, const int8_t *w, int64_t ldw, int64_t step, const float *x, int64_t ldx,
                    int n_rows, int n_x, int k, ptrdiff_t ahead) {
    (void)ahead;
    dots(y, ldy, value_i8, w, ldw, step, x, ldx, n_rows, n_x, k);
}

static void unpack_i8g(float *y, const int8_t *q, const float *scales, int group, int64_t first, int n) {
    for (int i = 0; i < n; i++) y[i] = (float)q[first + i] * scales[(first + i) / group];
}

static void matvec_i8g(float *y, const int8_t *q, const float *scales, int group, int64_t row0, const float *x,
                       int n_rows, int k) {
    for (int i = 0; i < n_rows; i++) {
        float sum = 0;
        for (int j = 0; j < k; j++) {
            int64_t at = (row0 + i) * k + j;
            sum += (float)q[at] * scales[at / group] * x[j];
        }
        y[i] = sum;
    }
}

static void pack(float *panel, const float *w, int64_t ldw, int n_rows, int k) {
    for (int j = 0; j < k; j++) {
        for (int i = 0; i < PANEL; i++) panel[j * PANEL + i] = i < n_rows ? w[i * ldw + j] : 0;
    }
}

static void gemm(float *y, int64_t ldy, const float *panel, const float *x, int64_t ldx, int n, int k, int lanes,
                 bool add) {
    for (int j = 0; j < n; j++) {
        float acc[PANEL] = {0};
        for (int i = 0; add && i < lanes; i++) acc[i] = y[j * ldy + i];
        for (int c = 0; c < k; c++) {
            for (int i = 0; i < PANEL; i++) acc[i] += x[j * ldx + c] * panel[c * PANEL + i];
        }
        for (int i = 0; i < lanes; i++) y[j * ldy + i] = acc[i];
    }
}

static float softmax_row(float *s, int n_keys, float *m, float *l) {
    float top = *m, sum = 0;
    for (int i = 0; i < n_keys; i++) top = s[i] > top ? s[i] : top;
    float alpha = exp2f(*m - top);
    for (int i = 0; i < n_keys; i++) sum += s[i] = exp2f(s[i] - top);
    *m = top;
    *l = *l * alpha + sum;
    return alpha;
}

static bool softmax_lanes(float *s, int n_keys, float *m, float *l, float *alpha) {
    bool rescale = false;
    for (int i = 0; i < PANEL; i++) {
        float top = m[i], sum = 0;
        for (int j = 0; j < n_keys; j++) top = s[j * PANEL + i] > top ? s[j * PANEL + i] : top;
        alpha[i] = exp2f(m[i] - top);
        for (int j = 0; j < n_keys; j++) sum += s[j * PANEL + i] = exp2f(s[j * PANEL + i] - top);
        m[i] = top;
        l[i] = l[i] * alpha[i] + sum;
        rescale |= alpha[i] != 1;
    }
    return rescale;
}

static void unpack_f16(float *y, int64_t ldy, const uint16_t *x, int64_t ldx, int n_rows, int n) {
    for (int i = 0; i < n_rows; i++) {
        for (int j = 0; j < n; j++) y[i * ldy + j] = f32_from_f16(x[i * ldx + j]);
    }
}

static void unpack_bf16(float *y, int64_t ldy, const uint16_t *x, int64_t ldx, int n_rows, int n) {
    for (int i = 0; i < n_rows; i++) {
        for (int j = 0; j < n; j++) y[i * ldy + j] = f32_from_bf16(x[i * ldx + j]);
    }
}

static void rmsnorm(float *y, const float *x, const float *weight, int n, float eps) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    float scale = 1.0f / sqrtf(sum / (float)n + eps);
    for (int i = 0; i < n; i++) y[i] = x[i] * scale * weight[i];
}

static void layernorm(float *y, const float *x, const float *weight, const float *bias, int n, float eps) {
    double mean = 0, variance = 0;
    for (int i = 0; i < n; i++) mean += (double)x[i] / n;
    for (int i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean) / n;
    double scale = 1 / sqrt(variance + (double)eps);
    for (int i = 0; i < n; i++) y[i] = (float)((x[i] - mean) * scale) * weight[i] + bias[i];
}

static float activation(float x, Activation a) {
    switch (a) {
    case ACT_GELU: return 0.5f * x * erfcf(-x * 0.70710678118654752f);
    case ACT_GELU_TANH: return x / (1.0f + expf(-1.59576912160573071f * (x + 0.044715f * x * x * x)));
    case ACT_QUICK_GELU: return x / (1.0f + expf(-1.702f * x));
    case ACT_SILU: return x / (1.0f + expf(-x));
    case ACT_RELU: return x > 0 ? x : 0;
    default: return x;
    }
}

static void activate(float *x, int n, Activation a) {
    for (int i = 0; i < n; i++) x[i] = activation(x[i], a);
}

static void softcap(float *x, int n, float in, float out) {
    for (int i = 0; i < n; i++) x[i] = out * tanhf(in * x[i]);
}

static void swiglu(float *gate, const float *up, int n) {
    for (int i = 0; i < n; i++) gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

const Kernels kernels_scalar = {
    .name = "scalar",
    .panel = PANEL,
    .matvec_f32 = matvec_f32,
    .matvec_f16 = matvec_f16,
    .matvec_bf16 = matvec_bf16,
    .dots_f32 = dots_f32,
    .dots_bf16 = dots_bf16,
    .dots_i8 = dots_i8,
    .matvec_i8g = matvec_i8g,
    .unpack_i8g = unpack_i8g,
    .pack = pack,
    .gemm = gemm,
    .softmax_lanes = softmax_lanes,
    .softmax_row = softmax_row,
    .f32_from_f16 = unpack_f16,
    .f32_from_bf16 = unpack_bf16,
    .rmsnorm = rmsnorm,
    .layernorm = layernorm,
    .activate = activate,
    .softcap = softcap,
    .swiglu = swiglu,
};
