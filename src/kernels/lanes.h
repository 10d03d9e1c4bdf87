// The vector kernels, written once over a vector of LANES floats. avx2.c, avx512.c and neon.c each define the vector
// and include this file, which then defines the rung's table. What the including file provides:
//   TABLE, RUNG_NAME          the table's variable and name
//   V, LANES                  a vector of LANES floats
//   v_zero v_set1 v_load v_store v_add v_sub v_mul v_div v_min v_max v_fma(a, b, c) = a * b + c   on unaligned memory
//   v_load_first(p, n, v)     the first n < LANES floats, behind them v's lanes
//   v_store_first(p, n, v)    the first n < LANES lanes
//   v_load_i8(p)              LANES int8 values as floats
//   v_load_bf16(p)            LANES bfloat16 values as floats
//   v_round, v_exp2_scale(p, n)   to the nearest integer; p * 2^n for integral n in -126..127, 0 for n = -127
//   v_sum, v_max_of           over the lanes
//   v_sum4(y, a, b, c, d)     y[0..3] = the sums of four vectors, each in the same order as the others
//   transpose_4(dst, ldd, src, lds)  dst[k * ldd + i] = src[i * lds + k] for i < LANES, k < 4
//   PANEL_V, GEMM_COLS        vectors in a panel and columns held in registers: PANEL_V * GEMM_COLS accumulators
#include "kernels.h"

#include <math.h>
#include <string.h>

enum {
    PANEL = PANEL_V * LANES,
    MATVEC_ROWS = 8,
    STREAM_K = 256, // from here a row is long enough to be read alone
    STREAM_SUMS = 4,
    LINE_FLOATS = 16,    // a cache line
    AHEAD_FLOATS = 1024, // fetched ahead: 4 KiB
    UNPACK_CHUNK = 512,
};

// ---- matvec

// `rows` dots at once (4 or MATVEC_ROWS, a constant), one accumulator each: enough to hide the latency of a
// multiply-add, and the order of a sum depends on k alone. Rows are ldw apart.
static inline __attribute__((always_inline)) void dots(float *y, const float *w, int64_t ldw, const float *x, int k,
                                                       const int rows) {
    V sum[MATVEC_ROWS];
    for (int r = 0; r < rows; r++) sum[r] = v_zero();
    int j = 0;
    for (; j + LANES <= k; j += LANES) {
        V xj = v_load(x + j);
        for (int r = 0; r < rows; r++) {
            __builtin_prefetch(w + (r + rows) * ldw + j); // the same place of the next rows
            sum[r] = v_fma(v_load(w + r * ldw + j), xj, sum[r]);
        }
    }
    if (j < k) {
        V xj = v_load_first(x + j, k - j, v_zero());
        for (int r = 0; r < rows; r++) {
            sum[r] = v_fma(v_load_first(w + r * ldw + j, k - j, v_zero()), xj, sum[r]);
        }
    }
    for (int r = 0; r < rows; r += 4) v_sum4(y + r, sum[r], sum[r + 1], sum[r + 2], sum[r + 3]);
}

// One long row, read straight on: what memory and its prefetchers like best.
static inline V dot_stream(const float *w, const float *x, int k) {
    V sum[STREAM_SUMS];
    for (int i = 0; i < STREAM_SUMS; i++) sum[i] = v_zero();
    int j = 0;
    for (; j + STREAM_SUMS * LANES <= k; j += STREAM_SUMS * LANES) {
        for (int i = 0; i < STREAM_SUMS; i++) {
            if (i * LANES % LINE_FLOATS == 0) __builtin_prefetch(w + j + i * LANES + AHEAD_FLOATS);
            sum[i] = v_fma(v_load(w + j + i * LANES), v_load(x + j + i * LANES), sum[i]);
        }
    }
    for (; j + LANES <= k; j += LANES) sum[0] = v_fma(v_load(w + j), v_load(x + j), sum[0]);
    if (j < k) {
        V xj = v_load_first(x + j, k - j, v_zero());
        sum[1] = v_fma(v_load_first(w + j, k - j, v_zero()), xj, sum[1]);
    }
    return v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3]));
}

static void matvec_stream(float *y, const float *w, int64_t ldw, const float *x, int n_rows, int k) {
    for (int i = 0; i < n_rows; i += 4) {
        V sum[4];
        float sums[4];
        int n = n_rows - i < 4 ? n_rows - i : 4;
        for (int r = 0; r < 4; r++) sum[r] = r < n ? dot_stream(w + (i + r) * ldw, x, k) : v_zero();
        v_sum4(sums, sum[0], sum[1], sum[2], sum[3]);
        memcpy(y + i, sums, sizeof(float) * (size_t)n);
    }
}

static void matvec_f32(float *y, const float *w, int64_t ldw, const float *x, int n_rows, int k) {
    if (k >= STREAM_K) {
        matvec_stream(y, w, ldw, x, n_rows, k);
        return;
    }
    int i = 0;
    for (; i + MATVEC_ROWS <= n_rows; i += MATVEC_ROWS) dots(y + i, w + i * ldw, ldw, x, k, MATVEC_ROWS);
    for (; i + 4 <= n_rows; i += 4) dots(y + i, w + i * ldw, ldw, x, k, 4);
    for (; i < n_rows; i++) { // the same sum, four times of one row
        float sums[4];
        dots(sums, w + i * ldw, 0, x, k, 4);
        y[i] = sums[0];
    }
}

static void unpack_i8g(float *y, const int8_t *q, const float *scales, int group, int64_t first, int n) {
    for (int i = 0; i < n;) {
        int64_t at = first + i;
        int run = group - (int)(at % group); // values until the scale changes
        if (run > n - i) run = n - i;
        float scale = scales[at / group];
        int j = 0;
        for (; j + LANES <= run; j += LANES) v_store(y + i + j, v_mul(v_load_i8(q + at + j), v_set1(scale)));
        for (; j < run; j++) y[i + j] = (float)q[at + j] * scale;
        i += run;
    }
}

// Groups of whole vectors inside a row: each group's dot is scaled lane by lane, one horizontal sum at the end.
static inline V dot_i8g(const int8_t *q, const float *scales, int group, const float *x, int k) {
    V sum = v_zero();
    for (int g = 0; g * group < k; g++, q += group, x += group) {
        V a = v_zero(), b = v_zero();
        int j = 0;
        __builtin_prefetch(q + AHEAD_FLOATS * sizeof(float));
        for (; j + 2 * LANES <= group; j += 2 * LANES) {
            a = v_fma(v_load_i8(q + j), v_load(x + j), a);
            b = v_fma(v_load_i8(q + j + LANES), v_load(x + j + LANES), b);
        }
        if (j < group) a = v_fma(v_load_i8(q + j), v_load(x + j), a);
        sum = v_fma(v_add(a, b), v_set1(scales[g]), sum);
    }
    return sum;
}

// Any other grouping: unpack a stretch of the row, then take the dot.
static float dot_i8g_any(const int8_t *q, const float *scales, int group, int64_t first, const float *x, int k) {
    float w[UNPACK_CHUNK], sum = 0;
    for (int j = 0; j < k; j += UNPACK_CHUNK) {
        int n = k - j < UNPACK_CHUNK ? k - j : UNPACK_CHUNK;
        unpack_i8g(w, q, scales, group, first + j, n);
        float part;
        matvec_f32(&part, w, 0, x + j, 1, n);
        sum += part;
    }
    return sum;
}

static void matvec_i8g(float *y, const int8_t *q, const float *scales, int group, int64_t row0, const float *x,
                       int n_rows, int k) {
    if (k % group || group % LANES) {
        for (int i = 0; i < n_rows; i++) y[i] = dot_i8g_any(q, scales, group, (row0 + i) * k, x, k);
        return;
    }
    for (int i = 0; i < n_rows; i += 4) {
        V sum[4];
        float sums[4];
        int n = n_rows - i < 4 ? n_rows - i : 4;
        for (int r = 0; r < 4; r++) {
            int64_t row = row0 + i + r;
            sum[r] = r < n ? dot_i8g(q + row * k, scales + row * (k / group), group, x, k) : v_zero();
        }
        v_sum4(sums, sum[0], sum[1], sum[2], sum[3]);
        memcpy(y + i, sums, sizeof(float) * (size_t)n);
    }
}

// ---- gemm

static void pack(float *panel, const float *w, int64_t ldw, int n_rows, int k) {
    for (int i = 0; i < PANEL; i += LANES) {
        int j = 0;
        if (i + LANES <= n_rows) {
            for (; j + 4 <= k; j += 4) transpose_4(panel + j * PANEL + i, PANEL, w + i * ldw + j, ldw);
        }
        for (; j < k; j++) {
            for (int r = i; r < i + LANES; r++) panel[j * PANEL + r] = r < n_rows ? w[r * ldw + j] : 0;
        }
    }
}

// `cols` is a constant at every call, so that the accumulators live in registers.
static inline __attribute__((always_inline)) void gemm_cols(float *y, int64_t ldy, const float *panel, const float *x,
                                                            int64_t ldx, int k, bool add, const int cols) {
    V acc[GEMM_COLS][PANEL_V];
    for (int j = 0; j < cols; j++) {
        for (int v = 0; v < PANEL_V; v++) acc[j][v] = add ? v_load(y + j * ldy + v * LANES) : v_zero();
    }
    for (int c = 0; c < k; c++) {
        V p[PANEL_V];
        for (int v = 0; v < PANEL_V; v++) p[v] = v_load(panel + c * PANEL + v * LANES);
        for (int j = 0; j < cols; j++) {
            V xj = v_set1(x[j * ldx + c]);
            for (int v = 0; v < PANEL_V; v++) acc[j][v] = v_fma(xj, p[v], acc[j][v]);
        }
    }
    for (int j = 0; j < cols; j++) {
        for (int v = 0; v < PANEL_V; v++) v_store(y + j * ldy + v * LANES, acc[j][v]);
    }
}

static void gemm_full(float *y, int64_t ldy, const float *panel, const float *x, int64_t ldx, int n, int k, bool add) {
    int j = 0;
    for (; j + GEMM_COLS <= n; j += GEMM_COLS) {
        gemm_cols(y + j * ldy, ldy, panel, x + j * ldx, ldx, k, add, GEMM_COLS);
    }
    for (; j + 4 <= n; j += 4) gemm_cols(y + j * ldy, ldy, panel, x + j * ldx, ldx, k, add, 4);
    for (; j + 2 <= n; j += 2) gemm_cols(y + j * ldy, ldy, panel, x + j * ldx, ldx, k, add, 2);
    for (; j < n; j++) gemm_cols(y + j * ldy, ldy, panel, x + j * ldx, ldx, k, add, 1);
}

static void gemm(float *y, int64_t ldy, const float *panel, const float *x, int64_t ldx, int n, int k, int lanes,
                 bool add) {
    if (lanes == PANEL) {
        gemm_full(y, ldy, panel, x, ldx, n, k, add);
        return;
    }
    float tile[GEMM_COLS * PANEL] = {0};
    size_t bytes = sizeof(float) * (size_t)lanes;
    for (int j = 0; j < n; j += GEMM_COLS) {
        int cols = n - j < GEMM_COLS ? n - j : GEMM_COLS;
        for (int c = 0; add && c < cols; c++) memcpy(tile + c * PANEL, y + (j + c) * ldy, bytes);
        gemm_full(tile, PANEL, panel, x + j * ldx, ldx, cols, k, add);
        for (int c = 0; c < cols; c++) memcpy(y + (j + c) * ldy, tile + c * PANEL, bytes);
    }
}

// ---- softmax, activation, norm

// 2^x for x in [-inf, 127], 0 below -126.5. Taylor of degree 6 on [-0.5, 0.5]: 1.2e-7 relative.
static inline V v_exp2(V x) {
    x = v_max(x, v_set1(-127.0f));
    V n = v_round(x), f = v_sub(x, n);
    V p = v_set1(1.5403530393381608e-4f);
    p = v_fma(p, f, v_set1(1.3333558146428443e-3f));
    p = v_fma(p, f, v_set1(9.6181291076284770e-3f));
    p = v_fma(p, f, v_set1(5.5504108664821580e-2f));
    p = v_fma(p, f, v_set1(2.4022650695910072e-1f));
    p = v_fma(p, f, v_set1(6.9314718055994531e-1f));
    p = v_fma(p, f, v_set1(1.0f));
    return v_exp2_scale(p, n);
}

static bool softmax_lanes(float *s, int n_keys, float *m, float *l, float *alpha) {
    bool rescale = false;
    for (int v = 0; v < PANEL; v += LANES) {
        V old = v_load(m + v), top = old, sum = v_zero();
        for (int j = 0; j < n_keys; j++) top = v_max(top, v_load(s + j * PANEL + v));
        for (int j = 0; j < n_keys; j++) {
            V p = v_exp2(v_sub(v_load(s + j * PANEL + v), top));
            v_store(s + j * PANEL + v, p);
            sum = v_add(sum, p);
        }
        V scale = v_exp2(v_sub(old, top));
        v_store(m + v, top);
        v_store(alpha + v, scale);
        v_store(l + v, v_fma(v_load(l + v), scale, sum));
        for (int i = v; i < v + LANES; i++) rescale |= alpha[i] != 1.0f;
    }
    return rescale;
}

static float softmax_row(float *s, int n_keys, float *m, float *l) {
    int whole = n_keys / LANES * LANES, left = n_keys - whole;
    V tail = v_set1(SCORE_MASKED), most = tail, sum = v_zero();
    if (left) most = tail = v_load_first(s + whole, left, tail);
    for (int j = 0; j < whole; j += LANES) most = v_max(most, v_load(s + j));
    float old = *m, top = v_max_of(most), alpha[LANES];
    top = old > top ? old : top;
    V vtop = v_set1(top);
    for (int j = 0; j < whole; j += LANES) {
        V p = v_exp2(v_sub(v_load(s + j), vtop));
        v_store(s + j, p);
        sum = v_add(sum, p);
    }
    if (left) {
        tail = v_exp2(v_sub(tail, vtop));
        v_store_first(s + whole, left, tail);
        sum = v_add(sum, tail);
    }
    v_store(alpha, v_exp2(v_sub(v_set1(old), vtop)));
    *m = top;
    *l = *l * alpha[0] + v_sum(sum);
    return alpha[0];
}

static void unpack_bf16(float *y, int64_t ldy, const uint16_t *x, int64_t ldx, int n_rows, int n) {
    for (int i = 0; i < n_rows; i++, y += ldy, x += ldx) {
        int j = 0;
        for (; j + LANES <= n; j += LANES) v_store(y + j, v_load_bf16(x + j));
        for (; j < n; j++) y[j] = f32_from_bf16(x[j]);
    }
}

static void rmsnorm(float *y, const float *x, const float *weight, int n, float eps) {
    V acc = v_zero();
    int i = 0;
    for (; i + LANES <= n; i += LANES) acc = v_fma(v_load(x + i), v_load(x + i), acc);
    float sum = v_sum(acc);
    for (; i < n; i++) sum += x[i] * x[i];
    float scale = 1.0f / sqrtf(sum / (float)n + eps);
    V vscale = v_set1(scale);
    for (i = 0; i + LANES <= n; i += LANES) {
        v_store(y + i, v_mul(v_mul(v_load(x + i), vscale), v_load(weight + i)));
    }
    for (; i < n; i++) y[i] = x[i] * scale * weight[i];
}

static void swiglu(float *gate, const float *up, int n) {
    const float log2e = 1.44269504088896340736f;
    for (int i = 0; i < n; i += LANES) {
        int left = n - i;
        V g = left >= LANES ? v_load(gate + i) : v_load_first(gate + i, left, v_zero());
        V u = left >= LANES ? v_load(up + i) : v_load_first(up + i, left, v_zero());
        V e = v_exp2(v_min(v_mul(g, v_set1(-log2e)), v_set1(126.0f)));
        V y = v_mul(v_div(g, v_add(v_set1(1.0f), e)), u);
        if (left >= LANES) v_store(gate + i, y);
        else v_store_first(gate + i, left, y);
    }
}

const Kernels TABLE = {
    .name = RUNG_NAME,
    .panel = PANEL,
    .matvec_f32 = matvec_f32,
    .matvec_i8g = matvec_i8g,
    .unpack_i8g = unpack_i8g,
    .pack = pack,
    .gemm = gemm,
    .softmax_lanes = softmax_lanes,
    .softmax_row = softmax_row,
    .f32_from_bf16 = unpack_bf16,
    .rmsnorm = rmsnorm,
    .swiglu = swiglu,
};
