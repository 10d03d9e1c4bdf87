// The vector kernels, written once over a vector of LANES floats. avx2.c, avx512.c and neon.h each define the vector;
// a rung includes this file, which then defines its table. What the including file provides:
//   TABLE, RUNG_NAME          the table's variable and name
//   V, LANES                  a vector of LANES floats
//   v_zero v_set1 v_load v_store v_add v_sub v_mul v_div v_min v_max v_fma(a, b, c) = a * b + c   on unaligned memory
//   v_load_first(p, n, v)     the first n < LANES floats, behind them v's lanes
//   v_store_first(p, n, v)    the first n < LANES lanes
//   v_load_i8(p)              LANES int8 values as floats
//   v_load_f16(p) v_load_bf16(p)  LANES half precision, or bfloat16, values as floats
//   v_round, v_exp2_scale(p, n)   to the nearest integer; p * 2^n for integral n: -126..127, 128 (inf), -127 (0)
//   v_sum, v_max_of           over the lanes
//   v_sum4(y, a, b, c, d)     y[0..3] = the sums of four vectors, each in the same order as the others
//   transpose_4(dst, ldd, src, lds)  dst[k * ldd + i] = src[i * lds + k] for i < LANES, k < 4
//   PANEL_V, GEMM_COLS        vectors in a panel, columns held in registers: PANEL_V * GEMM_COLS accumulators
#include "inner.h"

#include <math.h>
#include <string.h>

enum {
    PANEL = PANEL_V * LANES,
    MATVEC_ROWS = 8,
    STREAM_K = 256, // from here a row is long enough to be read alone
    STREAM_SUMS = 4,
    UNPACK_CHUNK = 512,
};

// ---- rows as they lie in memory

typedef enum { ROWS_F32, ROWS_F16, ROWS_BF16, ROWS_I8 } RowType;

INNER int row_size(const RowType type) { // bytes of a value
    return type == ROWS_F32 ? 4 : type == ROWS_I8 ? 1 : 2;
}

// LANES values; the first n < LANES, then zeros.
INNER V load_row(const void *w, int64_t at, const RowType type) {
    switch (type) {
    case ROWS_F32: return v_load((const float *)w + at);
    case ROWS_F16: return v_load_f16((const uint16_t *)w + at);
    case ROWS_BF16: return v_load_bf16((const uint16_t *)w + at);
    default: return v_load_i8((const int8_t *)w + at);
    }
}

INNER V load_row_first(const void *w, int64_t at, int n, const RowType type) {
    float part[LANES] = {0};
    if (type == ROWS_F32) return v_load_first((const float *)w + at, n, v_zero());
    memcpy(part, (const char *)w + at * row_size(type), (size_t)(n * row_size(type)));
    return load_row(part, 0, type);
}

INNER void fetch(const void *w, int64_t at, int64_t bytes_ahead, const RowType type) {
    __builtin_prefetch((const char *)w + at * row_size(type) + bytes_ahead);
}

// ---- matvec

// `rows` dots at once (4 or MATVEC_ROWS, a constant), one accumulator each: enough to hide the latency of a
// multiply-add, and the order of a sum depends on k alone. Rows are ldw apart, from `at` on.
INNER void dots(float *y, const void *w, int64_t at, int64_t ldw, const float *x, int k, const int rows,
                const RowType type) {
    V sum[MATVEC_ROWS];
    for (int r = 0; r < rows; r++) sum[r] = v_zero();
    int j = 0;
    for (; j + LANES <= k; j += LANES) {
        V xj = v_load(x + j);
        for (int r = 0; r < rows; r++) {
            fetch(w, at + (r + rows) * ldw + j, 0, type); // the same place of the next rows
            sum[r] = v_fma(load_row(w, at + r * ldw + j, type), xj, sum[r]);
        }
    }
    if (j < k) {
        V xj = v_load_first(x + j, k - j, v_zero());
        for (int r = 0; r < rows; r++) {
            sum[r] = v_fma(load_row_first(w, at + r * ldw + j, k - j, type), xj, sum[r]);
        }
    }
    for (int r = 0; r < rows; r += 4) v_sum4(y + r, sum[r], sum[r + 1], sum[r + 2], sum[r + 3]);
}

// One long row, read straight on: what memory and its prefetchers like best.
INNER V dot_stream(const void *w, int64_t at, const float *x, int k, const RowType type) {
    V sum[STREAM_SUMS];
    for (int i = 0; i < STREAM_SUMS; i++) sum[i] = v_zero();
    int j = 0;
    for (; j + STREAM_SUMS * LANES <= k; j += STREAM_SUMS * LANES) {
        for (int i = 0; i < STREAM_SUMS; i++) {
            if (i * LANES * row_size(type) % LINE_BYTES == 0) fetch(w, at + j + i * LANES, AHEAD_BYTES, type);
            sum[i] = v_fma(load_row(w, at + j + i * LANES, type), v_load(x + j + i * LANES), sum[i]);
        }
    }
    for (; j + LANES <= k; j += LANES) sum[0] = v_fma(load_row(w, at + j, type), v_load(x + j), sum[0]);
    if (j < k) {
        V xj = v_load_first(x + j, k - j, v_zero());
        sum[1] = v_fma(load_row_first(w, at + j, k - j, type), xj, sum[1]);
    }
    return v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3]));
}

INNER void matvec(float *y, const void *w, int64_t ldw, const float *x, int n_rows, int k, const RowType type) {
    int i = 0;
    for (; k >= STREAM_K && i < n_rows; i += 4) {
        V sum[4];
        float sums[4];
        int n = n_rows - i < 4 ? n_rows - i : 4;
        for (int r = 0; r < 4; r++) sum[r] = r < n ? dot_stream(w, (i + r) * ldw, x, k, type) : v_zero();
        v_sum4(sums, sum[0], sum[1], sum[2], sum[3]);
        memcpy(y + i, sums, sizeof(float) * (size_t)n);
    }
    for (; i + MATVEC_ROWS <= n_rows; i += MATVEC_ROWS) dots(y + i, w, i * ldw, ldw, x, k, MATVEC_ROWS, type);
    for (; i + 4 <= n_rows; i += 4) dots(y + i, w, i * ldw, ldw, x, k, 4, type);
    for (; i < n_rows; i++) { // the same sum, four times of one row
        float sums[4];
        dots(sums, w, i * ldw, 0, x, k, 4, type);
        y[i] = sums[0];
    }
}

static void matvec_f32(float *y, const float *w, int64_t ldw, const float *x, int n_rows, int k) {
    matvec(y, w, ldw, x, n_rows, k, ROWS_F32);
}

static void matvec_f16(float *y, const uint16_t *w, int64_t ldw, const float *x, int n_rows, int k) {
    matvec(y, w, ldw, x, n_rows, k, ROWS_F16);
}

static void matvec_bf16(float *y, const uint16_t *w, int64_t ldw, const float *x, int n_rows, int k) {
    matvec(y, w, ldw, x, n_rows, k, ROWS_BF16);
}

// ---- dots with rows of the KV cache

enum { DOTS_X = 4 }; // vectors that share a load of w

// Four rows, at `rows` in w, with n_x vectors; the order of a sum depends on k alone.
INNER void dots_4(float *y, int64_t ldy, const void *w, const int64_t *rows, int64_t step, const float *x, int64_t ldx,
                  int k, ptrdiff_t ahead, const int n_x, const RowType type) {
    V sum[DOTS_X][4];
    for (int r = 0; r < n_x; r++) {
        for (int i = 0; i < 4; i++) sum[r][i] = v_zero();
    }
    int whole = k / LANES * LANES;
    for (int j = 0; j < whole; j += LANES) {
        int64_t at = j / DOTS_STEP * step + j % DOTS_STEP;
        V wj[4];
        for (int i = 0; i < 4; i++) {
            if (j % DOTS_STEP * row_size(type) % LINE_BYTES == 0) fetch(w, rows[i] + at, ahead, type);
            wj[i] = load_row(w, rows[i] + at, type);
        }
        for (int r = 0; r < n_x; r++) {
            V xj = v_load(x + r * ldx + j);
            for (int i = 0; i < 4; i++) sum[r][i] = v_fma(wj[i], xj, sum[r][i]);
        }
    }
    if (whole < k) {
        int64_t at = whole / DOTS_STEP * step + whole % DOTS_STEP;
        for (int r = 0; r < n_x; r++) {
            V xj = v_load_first(x + r * ldx + whole, k - whole, v_zero());
            for (int i = 0; i < 4; i++) {
                sum[r][i] = v_fma(load_row_first(w, rows[i] + at, k - whole, type), xj, sum[r][i]);
            }
        }
    }
    for (int r = 0; r < n_x; r++) v_sum4(y + r * ldy, sum[r][0], sum[r][1], sum[r][2], sum[r][3]);
}

INNER void dots_rows(float *y, int64_t ldy, const void *w, int64_t ldw, int64_t step, const float *x, int64_t ldx,
                     int n_rows, int k, ptrdiff_t ahead, const int n_x, const RowType type) {
    int i = 0;
    for (; i + 4 <= n_rows; i += 4) {
        int64_t rows[4] = {i * ldw, (i + 1) * ldw, (i + 2) * ldw, (i + 3) * ldw};
        dots_4(y + i, ldy, w, rows, step, x, ldx, k, ahead, n_x, type);
    }
    if (i == n_rows) return;
    float sums[DOTS_X * 4];
    int64_t rows[4];
    for (int r = 0; r < 4; r++) rows[r] = (i + r < n_rows ? i + r : i) * ldw;
    dots_4(sums, 4, w, rows, step, x, ldx, k, ahead, n_x, type);
    for (int r = 0; r < n_x; r++) memcpy(y + r * ldy + i, sums + r * 4, sizeof(float) * (size_t)(n_rows - i));
}

INNER void dots_all(float *y, int64_t ldy, const void *w, int64_t ldw, int64_t step, const float *x, int64_t ldx,
                    int n_rows, int n_x, int k, ptrdiff_t ahead, const RowType type) {
    for (int left = n_x; left > 0; left -= DOTS_X, y += DOTS_X * ldy, x += DOTS_X * ldx) {
        switch (left) {
        case 1: dots_rows(y, ldy, w, ldw, step, x, ldx, n_rows, k, ahead, 1, type); break;
        case 2: dots_rows(y, ldy, w, ldw, step, x, ldx, n_rows, k, ahead, 2, type); break;
        case 3: dots_rows(y, ldy, w, ldw, step, x, ldx, n_rows, k, ahead, 3, type); break;
        default: dots_rows(y, ldy, w, ldw, step, x, ldx, n_rows, k, ahead, 4, type);
        }
    }
}

static void dots_f32(float *y, int64_t ldy, const float *w, int64_t ldw, int64_t step, const float *x, int64_t ldx,
                     int n_rows, int n_x, int k, ptrdiff_t ahead) {
    dots_all(y, ldy, w, ldw, step, x, ldx, n_rows, n_x, k, ahead, ROWS_F32);
}

static void dots_bf16(float *y, int64_t ldy, const uint16_t *w, int64_t ldw, int64_t step, const float *x, int64_t ldx,
                      int n_rows, int n_x, int k, ptrdiff_t ahead) {
    dots_all(y, ldy, w, ldw, step, x, ldx, n_rows, n_x, k, ahead, ROWS_BF16);
}

static void dots_i8(float *y, int64_t ldy, const int8_t *w, int64_t ldw, int64_t step, const float *x, int64_t ldx,
                    int n_rows, int n_x, int k, ptrdiff_t ahead) {
    dots_all(y, ldy, w, ldw, step, x, ldx, n_rows, n_x, k, ahead, ROWS_I8);
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
        __builtin_prefetch(q + AHEAD_BYTES);
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
INNER void gemm_cols(float *y, int64_t ldy, const float *panel, const float *x, int64_t ldx, int k, bool add,
                     const int cols) {
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
    for (int j = 0; j < n; j += GEMM_COLS) {
        int cols = n - j < GEMM_COLS ? n - j : GEMM_COLS;
        if (add) copy_rows(tile, PANEL, y + j * ldy, ldy, cols, lanes);
        gemm_full(tile, PANEL, panel, x + j * ldx, ldx, cols, k, add);
        copy_rows(y + j * ldy, ldy, tile, PANEL, cols, lanes);
    }
}

// ---- softmax, activation, norm

// 2^x for x in [-inf, 128], 0 below -126.5, inf at 128. Taylor of degree 6 on [-0.5, 0.5]: 1.2e-7 relative.
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

INNER void unpack_half(float *y, int64_t ldy, const uint16_t *x, int64_t ldx, int n_rows, int n, const RowType type) {
    for (int i = 0; i < n_rows; i++, y += ldy, x += ldx) {
        int j = 0;
        for (; j + LANES <= n; j += LANES) v_store(y + j, load_row(x, j, type));
        if (j < n) v_store_first(y + j, n - j, load_row_first(x, j, n - j, type));
    }
}

static void unpack_f16(float *y, int64_t ldy, const uint16_t *x, int64_t ldx, int n_rows, int n) {
    unpack_half(y, ldy, x, ldx, n_rows, n, ROWS_F16);
}

static void unpack_bf16(float *y, int64_t ldy, const uint16_t *x, int64_t ldx, int n_rows, int n) {
    unpack_half(y, ldy, x, ldx, n_rows, n, ROWS_BF16);
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

static void layernorm(float *y, const float *x, const float *weight, const float *bias, int n, float eps) {
    V acc = v_zero();
    int i = 0;
    for (; i + LANES <= n; i += LANES) acc = v_add(acc, v_load(x + i));
    float sum = v_sum(acc), rest, squares;
    for (; i < n; i++) sum += x[i];
    float mean = sum / (float)n;
    V vmean = v_set1(mean), some = v_zero();
    acc = v_zero();
    for (i = 0; i + LANES <= n; i += LANES) {
        V d = v_sub(v_load(x + i), vmean);
        some = v_add(some, d);
        acc = v_fma(d, d, acc);
    }
    for (rest = v_sum(some), squares = v_sum(acc); i < n; i++) {
        rest += x[i] - mean;
        squares += (x[i] - mean) * (x[i] - mean);
    }
    rest /= (float)n; // what rounding took from the mean
    float scale = 1.0f / sqrtf(fmaxf(squares / (float)n - rest * rest, 0) + eps);
    V vscale = v_set1(scale), vrest = v_set1(rest);
    for (i = 0; i + LANES <= n; i += LANES) {
        V d = v_mul(v_sub(v_sub(v_load(x + i), vmean), vrest), vscale);
        v_store(y + i, v_fma(d, v_load(weight + i), v_load(bias + i)));
    }
    for (; i < n; i++) y[i] = (x[i] - mean - rest) * scale * weight[i] + bias[i];
}

// x sigmoid(a u), with u and -log2(e) a as the arguments.
static inline V v_gated(V x, V u, float minus_a_log2e) {
    V e = v_exp2(v_min(v_mul(u, v_set1(minus_a_log2e)), v_set1(128.0f)));
    return v_div(x, v_add(v_set1(1.0f), e));
}

// x Phi(x) = max(x, 0) - |x| erfc(|x| / sqrt 2) / 2, where erfc(z) = t exp(-z^2 + P(t)), t = 1 / (1 + z / 2), to 2.4e-7
// absolute (Press et al., Numerical Recipes in C, 2nd ed., section 6.2, erfcc).
static inline V v_gelu(V x) {
    static const float coefficients[] = {0.17087277f,  -0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f,
                                         -0.18628806f, 0.09678418f,  0.37409196f, 1.00002368f,  -1.26551223f};
    V size = v_max(x, v_sub(v_zero(), x)), z = v_mul(size, v_set1(0.70710678118654752f));
    V t = v_div(v_set1(1.0f), v_fma(z, v_set1(0.5f), v_set1(1.0f)));
    V p = v_set1(coefficients[0]);
    for (int i = 1; i < 10; i++) p = v_fma(p, t, v_set1(coefficients[i]));
    V exponent = v_mul(v_sub(p, v_mul(z, z)), v_set1(1.44269504088896340736f));
    V half_erfc = v_mul(v_mul(t, v_set1(0.5f)), v_exp2(exponent));
    return v_sub(v_max(x, v_zero()), v_mul(size, half_erfc));
}

INNER V v_activate(V x, const Activation a) {
    const float log2e = 1.44269504088896340736f;
    switch (a) {
    case ACT_GELU: return v_gelu(x);
    case ACT_GELU_TANH: { // 1 + tanh(u) = 2 sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3)
        V u = v_mul(x, v_fma(v_mul(x, x), v_set1(0.044715f), v_set1(1.0f)));
        return v_gated(x, u, -1.59576912160573071f * log2e);
    }
    case ACT_QUICK_GELU: return v_gated(x, x, -1.702f * log2e);
    case ACT_SILU: return v_gated(x, x, -log2e);
    default: return v_max(x, v_zero()); // ACT_RELU
    }
}

INNER void activate_all(float *x, int n, const Activation a) {
    int i = 0;
    for (; i + LANES <= n; i += LANES) v_store(x + i, v_activate(v_load(x + i), a));
    if (i < n) v_store_first(x + i, n - i, v_activate(v_load_first(x + i, n - i, v_zero()), a));
}

static void activate(float *x, int n, Activation a) {
    switch (a) {
    case ACT_GELU: activate_all(x, n, ACT_GELU); break;
    case ACT_GELU_TANH: activate_all(x, n, ACT_GELU_TANH); break;
    case ACT_QUICK_GELU: activate_all(x, n, ACT_QUICK_GELU); break;
    case ACT_SILU: activate_all(x, n, ACT_SILU); break;
    case ACT_RELU: activate_all(x, n, ACT_RELU); break;
    default: break;
    }
}

// tanh(u) = 1 - 2 / (1 + exp(2 u))
static void softcap(float *x, int n, float in, float out) {
    V scale = v_set1(2 * 1.44269504088896340736f * in), one = v_set1(1.0f), two = v_set1(2.0f);
    for (int i = 0; i < n; i += LANES) {
        int left = n - i;
        V u = left >= LANES ? v_load(x + i) : v_load_first(x + i, left, v_zero());
        V e = v_exp2(v_min(v_mul(u, scale), v_set1(120.0f)));
        V y = v_mul(v_sub(one, v_div(two, v_add(one, e))), v_set1(out));
        if (left >= LANES) v_store(x + i, y);
        else v_store_first(x + i, left, y);
    }
}

static void swiglu(float *gate, const float *up, int n) {
    const float log2e = 1.44269504088896340736f;
    for (int i = 0; i < n; i += LANES) {
        int left = n - i;
        V g = left >= LANES ? v_load(gate + i) : v_load_first(gate + i, left, v_zero());
        V u = left >= LANES ? v_load(up + i) : v_load_first(up + i, left, v_zero());
        V y = v_mul(v_gated(g, g, -log2e), u);
        if (left >= LANES) v_store(gate + i, y);
        else v_store_first(gate + i, left, y);
    }
}

const Kernels TABLE = {
    .name = RUNG_NAME,
    .panel = PANEL,
    .matvec_f32 = matvec_f32,
    .matvec_f16 = matvec_f16,
    .matvec_bf16 = matvec_bf16,
    .dots_f32 = dots_f32,
    .dots_bf16 = dots_bf16,
    .dots_i8 = dots_i8,
    .matvec_i8g = matvec_i8g,
    .unpack_i8g = unpack_i8g,
    .quantize = quantize,
    .blocks = block_kernels,
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
