// scalar: every kernel in plain C, written to be read. The other levels are tested against it.
#include "inner.h"

#include <math.h>

enum { PANEL = 8 };

static float value_f32(const void *data, int64_t i) {
    return ((const float *)data)[i];
}

static float value_f16(const void *data, int64_t i) {
    return f32_from_f16(((const uint16_t *)data)[i]);
}

static float value_bf16(const void *data, int64_t i) {
    return f32_from_bf16(((const uint16_t *)data)[i]);
}

static float value_i8(const void *data, int64_t i) {
    return (float)((const int8_t *)data)[i];
}

// value(w, i): value i of w.
static void matvec(float *y, int64_t ldy, float (*value)(const void *w, int64_t i), const void *w, int64_t ldw,
                   const float *x, int64_t ldx, int n, int n_rows, int k) {
    for (int t = 0; t < n; t++) {
        for (int i = 0; i < n_rows; i++) {
            float sum = 0;
            for (int j = 0; j < k; j++) sum += value(w, i * ldw + j) * x[t * ldx + j];
            y[t * ldy + i] = sum;
        }
    }
}

static void matvec_f32(float *y, int64_t ldy, const float *w, int64_t ldw, const float *x, int64_t ldx, int n,
                       int n_rows, int k) {
    matvec(y, ldy, value_f32, w, ldw, x, ldx, n, n_rows, k);
}

static void matvec_f16(float *y, int64_t ldy, const uint16_t *w, int64_t ldw, const float *x, int64_t ldx, int n,
                       int n_rows, int k) {
    matvec(y, ldy, value_f16, w, ldw, x, ldx, n, n_rows, k);
}

static void matvec_bf16(float *y, int64_t ldy, const uint16_t *w, int64_t ldw, const float *x, int64_t ldx, int n,
                        int n_rows, int k) {
    matvec(y, ldy, value_bf16, w, ldw, x, ldx, n, n_rows, k);
}

static void unpack_i8g(float *y, const int8_t *q, const float *scales, int group, int64_t first, int n) {
    for (int i = 0; i < n; i++) y[i] = (float)q[first + i] * scales[(first + i) / group];
}

static void matvec_i8g(float *y, int64_t ldy, const int8_t *q, const float *scales, int group, int64_t row0,
                       const float *x, int64_t ldx, int n, int n_rows, int k) {
    for (int t = 0; t < n; t++) {
        for (int i = 0; i < n_rows; i++) {
            float sum = 0;
            for (int j = 0; j < k; j++) {
                int64_t at = (row0 + i) * k + j;
                sum += (float)q[at] * scales[at / group] * x[t * ldx + j];
            }
            y[t * ldy + i] = sum;
        }
    }
}

static void pack(float *panel, const float *w, int64_t ldw, int n_rows, int k) {
    for (int j = 0; j < k; j++) {
        for (int i = 0; i < PANEL; i++) panel[j * PANEL + i] = i < n_rows ? w[i * ldw + j] : 0;
    }
}

// value(data, i): value i of w's data, in words of `each` values. PANEL columns at a time, whose sums do not wait for
// each other.
INNER void gemm(float *y, int64_t ldy, float (*value)(const void *data, int64_t i), const int each,
                const PackedMatrix *w, const float *x, int64_t ldx, int n, int k, int n_cols, bool add) {
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < n_cols; i += PANEL) {
            const void *panel = panel_at(w, i);
            const int width = n_cols - i < PANEL ? n_cols - i : PANEL;
            float sums[PANEL] = {0};
            if (add) memcpy(sums, y + j * ldy + i, sizeof *y * (size_t)width);
            for (int c = 0; c < k; c++) {
                const int64_t at = c / each * w->row_stride * each + c % each;
                for (int l = 0; l < PANEL; l++) sums[l] += x[j * ldx + c] * value(panel, at + l * each);
            }
            memcpy(y + j * ldy + i, sums, sizeof *y * (size_t)width);
        }
    }
}

static void gemm_f32(float *y, int64_t ldy, const PackedMatrix *w, const float *x, int64_t ldx, int n, int k,
                     int n_cols, bool add) {
    gemm(y, ldy, value_f32, 1, w, x, ldx, n, k, n_cols, add);
}

static void gemm_bf16(float *y, int64_t ldy, const PackedMatrix *w, const float *x, int64_t ldx, int n, int k,
                      int n_cols, bool add) {
    gemm(y, ldy, value_bf16, 2, w, x, ldx, n, k, n_cols, add);
}

static void gemm_i8(float *y, int64_t ldy, const PackedMatrix *w, const float *x, int64_t ldx, int n, int k, int n_cols,
                    bool add) {
    gemm(y, ldy, value_i8, 4, w, x, ldx, n, k, n_cols, add);
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

static void scale(float *x, const float *by, int n) {
    for (int i = 0; i < n; i++) x[i] *= by[i];
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
    case ACT_RELU_SQUARED: return x > 0 ? x * x : 0;
    case ACT_SOFTPLUS: return fmaxf(x, 0) + log1pf(expf(-fabsf(x)));
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

static void convolve(float *y, const float *const *x, const float *taps, const float *bias, int width, int n) {
    for (int c = 0; c < n; c++) {
        float sum = bias ? bias[c] : 0;
        for (int64_t j = 0; j < width; j++) sum += taps[j * n + c] * x[j][c];
        y[c] = sum;
    }
}

static void scan_row(float *y, float *h, const float *a, int64_t ld, const float *step, const float *u, const float *b,
                     const float *q, int n, int k) {
    for (int c = 0; c < n; c++) {
        float sum = 0;
        for (int64_t i = 0; i < k; i++) {
            float *state = h + i * ld + c;
            *state = expf(step[c] * a[i * ld + c]) * *state + u[c] * b[i];
            sum += *state * q[i];
        }
        y[c] = sum;
    }
}

const Kernels kernels_scalar = {.name = "scalar", SHARED_KERNELS};
