// lanes_tmpl: the vector kernels, written once over vectors of LANES floats; defines the table of the including file.
// Included after blocks_tmpl.h. The including file (on Arm with neon.h) must define:
//   TABLE, LEVEL_NAME         the table's variable and name
//   V, LANES                  a vector of LANES floats
//   v_zero v_set1 v_load v_store v_add v_sub v_mul v_div v_min v_max v_fma(a, b, c)   memory unaligned; a * b + c
//   v_load_first(p, n, v)     n < LANES floats, then the remaining lanes of v
//   v_store_first(p, n, v)    the first n < LANES lanes
//   v_load_i8(p)              LANES int8 values as floats
//   v_load_f16(p) v_load_bf16(p)  LANES F16 or bfloat16 values as floats
//   v_round, v_exp2_scale(p, n)   to the nearest integer; p * 2^n for integers n -126..127, 128 (inf), -127 (0)
//   v_sum, v_max_of           reductions over the lanes
//   v_low_bf16(w) v_high_bf16(w)  the low or high halves of LANES words: bfloat16 as floats
//   v_sum4(y, a, b, c, d)     y[0..3] = the sums of four vectors, each added in the same order
//   transpose_4(dst, ldd, src, lds)  dst[k * ldd + i] = src[i * lds + k] for i < LANES, k < 4
//   PANEL_V, GEMM_ROWS        vectors of a panel, rows of x at a time: PANEL_V * GEMM_ROWS accumulators in registers
#include "inner.h"

#include <float.h>
#include <math.h>

enum {
    PANEL = PANEL_V * LANES,
    MATVEC_ROWS = 8,
    STREAM_K = 256, // rows of at least this length are read one at a time
    STREAM_SUMS = 4,
    STREAM_X = GEMM_ROWS / 2, // vectors whose sums are registers
    STREAM_ROWS = 8,          // rows that meet a part of them while it is in L1
    STREAM_PART = 512,        // its columns
    UNPACK_CHUNK = 512,
    MOST_PANELS = 4, // side by side
};

// ---- stored rows

typedef enum { ROWS_F32, ROWS_F16, ROWS_BF16 } RowType;

INNER int value_size(const RowType type) {
    return type == ROWS_F32 ? 4 : 2;
}

// LANES values; load_row_first: n < LANES values, then zeros.
INNER V load_row(const void *w, int64_t at, const RowType type) {
    switch (type) {
    case ROWS_F32: return v_load((const float *)w + at);
    case ROWS_F16: return v_load_f16((const uint16_t *)w + at);
    default: return v_load_bf16((const uint16_t *)w + at);
    }
}

INNER V load_row_first(const void *w, int64_t at, int n, const RowType type) {
    float part[LANES] = {0};
    if (type == ROWS_F32) return v_load_first((const float *)w + at, n, v_zero());
    memcpy(part, (const char *)w + at * value_size(type), (size_t)(n * value_size(type)));
    return load_row(part, 0, type);
}

INNER void prefetch_row(const void *w, int64_t at, int64_t bytes_ahead, const RowType type) {
    __builtin_prefetch((const char *)w + at * value_size(type) + bytes_ahead);
}

// ---- matvec

// `rows` dot products at once (4 or MATVEC_ROWS, a constant), one accumulator each: enough to hide the latency of a
// multiply-add, and the order of a sum depends on k alone. Rows start at `at` and are ldw apart.
INNER void dots(float *y, const void *w, int64_t at, int64_t ldw, const float *x, int k, const int rows,
                const RowType type) {
    V sum[MATVEC_ROWS];
    for (int r = 0; r < rows; r++) sum[r] = v_zero();
    int j = 0;
    for (; j + LANES <= k; j += LANES) {
        V xj = v_load(x + j);
        for (int r = 0; r < rows; r++) {
            prefetch_row(w, at + (r + rows) * ldw + j, 0, type); // the same columns of the next rows
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

// Adds columns j..end-1 of a long row times `count` vectors (a constant at every call), ldx apart, to STREAM_SUMS sums
// each: the fastest access pattern for memory and its prefetchers. Only the last part of a row is not whole steps.
INNER void add_stream(V (*sum)[STREAM_SUMS], const void *w, int64_t at, const float *x, int64_t ldx, int j, int end,
                      int64_t ahead, const int count, const RowType type) {
    for (; j + STREAM_SUMS * LANES <= end; j += STREAM_SUMS * LANES) {
        for (int i = 0; i < STREAM_SUMS; i++) {
            if (ahead && i * LANES * value_size(type) % LINE_BYTES == 0)
                prefetch_row(w, at + j + i * LANES, ahead, type);
            V row = load_row(w, at + j + i * LANES, type);
            for (int t = 0; t < count; t++) sum[t][i] = v_fma(row, v_load(x + t * ldx + j + i * LANES), sum[t][i]);
        }
    }
    for (; j + LANES <= end; j += LANES) {
        V row = load_row(w, at + j, type);
        for (int t = 0; t < count; t++) sum[t][0] = v_fma(row, v_load(x + t * ldx + j), sum[t][0]);
    }
    if (j < end) {
        V row = load_row_first(w, at + j, end - j, type);
        for (int t = 0; t < count; t++) {
            sum[t][1] = v_fma(row, v_load_first(x + t * ldx + j, end - j, v_zero()), sum[t][1]);
        }
    }
}

INNER V stream_sum(V *sum) {
    return v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3]));
}

INNER void matvec_stream(float *y, const void *w, int64_t ldw, const float *x, int n_rows, int k, const RowType type) {
    for (int i = 0; i < n_rows; i += 4) {
        V sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
        float sums[4];
        int n = n_rows - i < 4 ? n_rows - i : 4;
        for (int r = 0; r < n; r++) {
            V parts[1][STREAM_SUMS] = {{v_zero(), v_zero(), v_zero(), v_zero()}};
            add_stream(parts, w, (i + r) * ldw, x, 0, 0, k, AHEAD_BYTES, 1, type);
            sum[r] = stream_sum(parts[0]);
        }
        v_sum4(sums, sum[0], sum[1], sum[2], sum[3]);
        memcpy(y + i, sums, sizeof(float) * (size_t)n);
    }
}

// The same, where the sums of vectors are STREAM_ROWS apart in memory.
INNER void add_stream_part(V (*sums)[STREAM_SUMS], const void *w, int64_t at, const float *x, int64_t ldx, int j,
                           int end, int64_t ahead, const int count, const RowType type) {
    V sum[STREAM_X][STREAM_SUMS];
    for (int t = 0; t < count; t++) {
        for (int i = 0; i < STREAM_SUMS; i++) sum[t][i] = sums[t * STREAM_ROWS][i];
    }
    add_stream(sum, w, at, x, ldx, j, end, ahead, count, type);
    for (int t = 0; t < count; t++) {
        for (int i = 0; i < STREAM_SUMS; i++) sums[t * STREAM_ROWS][i] = sum[t][i];
    }
}

// The same sums for several vectors and up to STREAM_ROWS rows. A part of the vectors stays in L1 for all of the rows.
INNER void stream_tile(float *y, int64_t ldy, const void *w, int64_t at, int64_t ldw, const float *x, int64_t ldx,
                       int n, int n_rows, int k, const RowType type) {
    V sums[MAX_SHARED][STREAM_ROWS][STREAM_SUMS];
    memset(sums, 0, sizeof sums[0] * (size_t)n);
    for (int j = 0; j < k; j += STREAM_PART) {
        int end = k - j < STREAM_PART ? k : j + STREAM_PART;
        for (int t = 0, count; t < n; t += count) {
            count = n - t >= STREAM_X ? STREAM_X : n - t >= 2 ? 2 : 1;
            for (int r = 0; r < n_rows; r++) {
                int64_t ahead = t ? 0 : STREAM_ROWS * ldw * value_size(type), row = at + r * ldw;
                const float *xt = x + t * ldx;
                V(*s)[STREAM_SUMS] = &sums[t][r];
                if (count == STREAM_X) add_stream_part(s, w, row, xt, ldx, j, end, ahead, STREAM_X, type);
                else if (count == 2) add_stream_part(s, w, row, xt, ldx, j, end, ahead, 2, type);
                else add_stream_part(s, w, row, xt, ldx, j, end, ahead, 1, type);
            }
        }
    }
    for (int t = 0; t < n; t++) {
        for (int r = 0; r < n_rows; r += 4) {
            V sum[4];
            float four[4];
            for (int i = 0; i < 4; i++) sum[i] = r + i < n_rows ? stream_sum(sums[t][r + i]) : v_zero();
            v_sum4(four, sum[0], sum[1], sum[2], sum[3]);
            memcpy(y + t * ldy + r, four, sizeof(float) * (size_t)(n_rows - r < 4 ? n_rows - r : 4));
        }
    }
}

INNER void matvec_short(float *y, const void *w, int64_t ldw, const float *x, int n_rows, int k, const RowType type) {
    int i = 0;
    for (; i + MATVEC_ROWS <= n_rows; i += MATVEC_ROWS) dots(y + i, w, i * ldw, ldw, x, k, MATVEC_ROWS, type);
    for (; i + 4 <= n_rows; i += 4) dots(y + i, w, i * ldw, ldw, x, k, 4, type);
    for (; i < n_rows; i++) { // one row, four times: the sum in the same order
        float sums[4];
        dots(sums, w, i * ldw, 0, x, k, 4, type);
        y[i] = sums[0];
    }
}

typedef void (*StreamTile)(float *y, int64_t ldy, const void *w, int64_t at, int64_t ldw, const float *x, int64_t ldx,
                           int n, int n_rows, int k);

INNER void matvec(float *y, int64_t ldy, const void *w, int64_t ldw, const float *x, int64_t ldx, int n, int n_rows,
                  int k, const RowType type, StreamTile tile) {
    if (k < STREAM_K) {
        for (int t = 0; t < n; t++) matvec_short(y + t * ldy, w, ldw, x + t * ldx, n_rows, k, type);
    } else if (n == 1) {
        matvec_stream(y, w, ldw, x, n_rows, k, type);
    } else {
        for (int i = 0; i < n_rows; i += STREAM_ROWS) {
            tile(y + i, ldy, w, i * ldw, ldw, x, ldx, n, n_rows - i < STREAM_ROWS ? n_rows - i : STREAM_ROWS, k);
        }
    }
}

#define DEFINE_ROWS(name, T, type)                                                                                     \
    OUTER void tile_##name(float *y, int64_t ldy, const void *w, int64_t at, int64_t ldw, const float *x, int64_t ldx, \
                           int n, int n_rows, int k) {                                                                 \
        stream_tile(y, ldy, w, at, ldw, x, ldx, n, n_rows, k, type);                                                   \
    }                                                                                                                  \
    static void matvec_##name(float *y, int64_t ldy, const T *w, int64_t ldw, const float *x, int64_t ldx, int n,      \
                              int n_rows, int k) {                                                                     \
        matvec(y, ldy, w, ldw, x, ldx, n, n_rows, k, type, tile_##name);                                               \
    }
DEFINE_ROWS(f32, float, ROWS_F32)
DEFINE_ROWS(f16, uint16_t, ROWS_F16)
DEFINE_ROWS(bf16, uint16_t, ROWS_BF16)

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

// Groups of whole vectors inside a row: each group's partial sums are scaled, one horizontal sum at the end. `count`
// vectors, a constant at every call.
INNER void dots_i8g(V *sum, const int8_t *q, const float *scales, int group, const float *x, int64_t ldx, int k,
                    const int count) {
    for (int t = 0; t < count; t++) sum[t] = v_zero();
    for (int g = 0; g * group < k; g++, q += group, x += group) {
        V a[STREAM_X], b[STREAM_X];
        for (int t = 0; t < count; t++) a[t] = b[t] = v_zero();
        int j = 0;
        __builtin_prefetch(q + AHEAD_BYTES);
        for (; j + 2 * LANES <= group; j += 2 * LANES) {
            V first = v_load_i8(q + j), second = v_load_i8(q + j + LANES);
            for (int t = 0; t < count; t++) {
                a[t] = v_fma(first, v_load(x + t * ldx + j), a[t]);
                b[t] = v_fma(second, v_load(x + t * ldx + j + LANES), b[t]);
            }
        }
        if (j < group) {
            V first = v_load_i8(q + j);
            for (int t = 0; t < count; t++) a[t] = v_fma(first, v_load(x + t * ldx + j), a[t]);
        }
        for (int t = 0; t < count; t++) sum[t] = v_fma(v_add(a[t], b[t]), v_set1(scales[g]), sum[t]);
    }
}

// Any other group size: unpack a range of the row, then multiply.
static void dots_i8g_any(float *y, int64_t ldy, const int8_t *q, const float *scales, int group, int64_t first,
                         const float *x, int64_t ldx, int count, int k) {
    float w[UNPACK_CHUNK], part[MAX_SHARED];
    for (int t = 0; t < count; t++) y[t * ldy] = 0;
    for (int j = 0; j < k; j += UNPACK_CHUNK) {
        int n = k - j < UNPACK_CHUNK ? k - j : UNPACK_CHUNK;
        unpack_i8g(w, q, scales, group, first + j, n);
        matvec_f32(part, 1, w, 0, x + j, ldx, count, 1, n);
        for (int t = 0; t < count; t++) y[t * ldy] += part[t];
    }
}

static void matvec_i8g(float *y, int64_t ldy, const int8_t *q, const float *scales, int group, int64_t row0,
                       const float *x, int64_t ldx, int n, int n_rows, int k) {
    if (k % group || group % LANES) {
        for (int i = 0; i < n_rows; i++) dots_i8g_any(y + i, ldy, q, scales, group, (row0 + i) * k, x, ldx, n, k);
        return;
    }
    for (int i = 0; i < n_rows; i += 4) {
        int rows = n_rows - i < 4 ? n_rows - i : 4;
        for (int t = 0, count; t < n; t += count) {
            V sum[STREAM_X][4], row[STREAM_X];
            float sums[4];
            count = n - t < STREAM_X ? 1 : STREAM_X;
            memset(sum, 0, sizeof sum);
            for (int r = 0; r < rows; r++) {
                int64_t at = row0 + i + r;
                const float *scales_r = scales + at * (k / group), *xt = x + t * ldx;
                if (count > 1) dots_i8g(row, q + at * k, scales_r, group, xt, ldx, k, STREAM_X);
                else dots_i8g(row, q + at * k, scales_r, group, xt, ldx, k, 1);
                for (int c = 0; c < count; c++) sum[c][r] = row[c];
            }
            for (int c = 0; c < count; c++) {
                v_sum4(sums, sum[c][0], sum[c][1], sum[c][2], sum[c][3]);
                memcpy(y + (t + c) * ldy + i, sums, sizeof(float) * (size_t)rows);
            }
        }
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

typedef enum { WORDS_F32, WORDS_BF16, WORDS_I8 } WordType;

// One panel times `rows` rows of x, a constant at every call, so that the accumulators are registers.
INNER void gemm_rows(float *y, int64_t ldy, const float *panel, int64_t stride, ptrdiff_t prefetch, const float *x,
                     int64_t ldx, int k, bool add, const int rows, const WordType type) {
    const int each = type == WORDS_BF16 ? 2 : 1; // values of a word
    V acc[GEMM_ROWS][PANEL_V];
    for (int j = 0; j < rows; j++) {
        for (int v = 0; v < PANEL_V; v++) acc[j][v] = add ? v_load(y + j * ldy + v * LANES) : v_zero();
    }
    for (int c = 0; c < k; c += each, panel += stride) {
        V p[PANEL_V];
        for (int v = 0; v < PANEL_V; v++) p[v] = v_load(panel + v * LANES);
        if (prefetch) {
            for (int line = 0; line < PANEL * 4; line += LINE_BYTES) {
                __builtin_prefetch((const char *)panel + prefetch + line);
            }
        }
        for (int i = 0; i < each; i++) {
            V q[PANEL_V];
            for (int v = 0; v < PANEL_V; v++) {
                if (type == WORDS_F32) q[v] = p[v];
                else q[v] = i ? v_high_bf16(p[v]) : v_low_bf16(p[v]);
            }
            for (int j = 0; j < rows; j++) {
                V xj = v_set1(x[j * ldx + c + i]);
                for (int v = 0; v < PANEL_V; v++) acc[j][v] = v_fma(xj, q[v], acc[j][v]);
            }
        }
    }
    for (int j = 0; j < rows; j++) {
        for (int v = 0; v < PANEL_V; v++) v_store(y + j * ldy + v * LANES, acc[j][v]);
    }
}

// A full panel. Only the first rows of x prefetch.
INNER void gemm_full(float *y, int64_t ldy, const float *panel, int64_t stride, ptrdiff_t prefetch, const float *x,
                     int64_t ldx, int n, int k, bool add, const WordType type) {
    for (; n >= GEMM_ROWS; n -= GEMM_ROWS, y += GEMM_ROWS * ldy, x += GEMM_ROWS * ldx, prefetch = 0) {
        gemm_rows(y, ldy, panel, stride, prefetch, x, ldx, k, add, GEMM_ROWS, type);
    }
    for (; GEMM_ROWS > 8 && n >= 8; n -= 8, y += 8 * ldy, x += 8 * ldx, prefetch = 0) {
        gemm_rows(y, ldy, panel, stride, prefetch, x, ldx, k, add, GEMM_ROWS > 8 ? 8 : 1, type);
    }
    for (; n >= 4; n -= 4, y += 4 * ldy, x += 4 * ldx, prefetch = 0) {
        gemm_rows(y, ldy, panel, stride, prefetch, x, ldx, k, add, 4, type);
    }
    switch (n) {
    case 3: gemm_rows(y, ldy, panel, stride, prefetch, x, ldx, k, add, 3, type); break;
    case 2: gemm_rows(y, ldy, panel, stride, prefetch, x, ldx, k, add, 2, type); break;
    case 1: gemm_rows(y, ldy, panel, stride, prefetch, x, ldx, k, add, 1, type); break;
    default: break;
    }
}

// The last columns, fewer than a panel's, are computed in a temporary tile.
INNER void gemm_edge(float *y, int64_t ldy, const float *panel, int64_t stride, ptrdiff_t prefetch, const float *x,
                     int64_t ldx, int n, int k, int n_cols, bool add, const WordType type) {
    float tile[GEMM_ROWS * PANEL] = {0};
    for (int j = 0; j < n; j += GEMM_ROWS, prefetch = 0) {
        int rows = n - j < GEMM_ROWS ? n - j : GEMM_ROWS;
        if (add) copy_rows(tile, PANEL, y + j * ldy, ldy, rows, n_cols);
        gemm_full(tile, PANEL, panel, stride, prefetch, x + j * ldx, ldx, rows, k, add, type);
        copy_rows(y + j * ldy, ldy, tile, PANEL, rows, n_cols);
    }
}

INNER void gemm(float *y, int64_t ldy, const PackedMatrix *w, const float *x, int64_t ldx, int n, int k, int n_cols,
                bool add, const WordType type) {
    int i = 0;
    for (; i + PANEL <= n_cols; i += PANEL) {
        gemm_full(y + i, ldy, panel_at(w, i), w->row_stride, w->prefetch_offset, x, ldx, n, k, add, type);
    }
    if (i == n_cols) return;
    gemm_edge(y + i, ldy, panel_at(w, i), w->row_stride, w->prefetch_offset, x, ldx, n, k, n_cols - i, add, type);
}

// One row of x times panels that lie side by side, so that each row of w is read at once. The same bits as gemm_rows.
INNER void gemm_wide_row(float *y, const float *w, int64_t stride, const float *x, int k, bool add, const int panels) {
    V acc[MOST_PANELS * PANEL_V];
    for (int v = 0; v < panels * PANEL_V; v++) acc[v] = add ? v_load(y + v * LANES) : v_zero();
    for (int c = 0; c < k; c++, w += stride) {
        V xc = v_set1(x[c]);
        for (int v = 0; v < panels * PANEL_V; v++) acc[v] = v_fma(xc, v_load(w + v * LANES), acc[v]);
    }
    for (int v = 0; v < panels * PANEL_V; v++) v_store(y + v * LANES, acc[v]);
}

static void gemm_f32(float *y, int64_t ldy, const PackedMatrix *w, const float *x, int64_t ldx, int n, int k,
                     int n_cols, bool add) {
    bool side_by_side = w->panel_stride == MAX_PANEL && !w->prefetch_offset;
    PackedMatrix rest = *w;
    int done = 0;
    if (n == 1 && side_by_side) {
        for (; done + MOST_PANELS * PANEL <= n_cols; done += MOST_PANELS * PANEL) {
            gemm_wide_row(y + done, (const float *)w->data + done, w->row_stride, x, k, add, MOST_PANELS);
        }
        for (; done + 2 * PANEL <= n_cols; done += 2 * PANEL) {
            gemm_wide_row(y + done, (const float *)w->data + done, w->row_stride, x, k, add, 2);
        }
    }
    rest.data = (const float *)w->data + done;
    gemm(y + done, ldy, &rest, x, ldx, n, k, n_cols - done, add, WORDS_F32);
}

static void gemm_bf16(float *y, int64_t ldy, const PackedMatrix *w, const float *x, int64_t ldx, int n, int k,
                      int n_cols, bool add) {
    gemm(y, ldy, w, x, ldx, n, k, n_cols, add, WORDS_BF16);
}

// ---- gemm of int8: sums of products of bytes are exact, as in blocks_tmpl.h

// LANES values in 16 bits: (255 high + low) * scale.
typedef struct {
    V high, low;
} HighLow;

INNER HighLow high_low(V v, float inverse_scale) {
    V q = v_round(v_mul(v, v_set1(inverse_scale))), high = v_round(v_mul(q, v_set1(1.0f / 255)));
    return (HighLow){high, v_fma(high, v_set1(-255), q)};
}

enum { I8_K = 256, I8_ROWS = GEMM_ROWS / 3 }; // a row of x has two accumulators for each vector of columns

typedef struct {                    // rows of x as scale * (255 high + low)
    int8_t plane[2][I8_ROWS][I8_K]; // high, low
    float scale[I8_ROWS];
    int sum[2][I8_ROWS]; // of each plane
} Planes;

// Sets row j from k values. A value that is not finite makes the row's results NaN.
INNER void set_planes(Planes *x, int j, const float *row, int k) {
    V values[I8_K / LANES], top = v_zero(), rest = v_zero(), sums[2] = {v_zero(), v_zero()};
    for (int c = 0; c < k; c += LANES) {
        V v = k - c < LANES ? v_load_first(row + c, k - c, v_zero()) : v_load(row + c);
        top = v_max(top, v_abs(v));
        rest = v_fma(v, v_zero(), rest);
        values[c / LANES] = v;
    }
    float scale = v_max_of(top) * (1.0f / Q16_MAX), inverse = scale > FLT_MIN ? 1 / scale : 0; // else negligible
    for (int c = 0; c < k; c += LANES) {
        HighLow b = high_low(values[c / LANES], inverse);
        sums[0] = v_add(sums[0], b.high);
        sums[1] = v_add(sums[1], b.low);
        v_store_i8(x->plane[0][j] + c, b.high);
        v_store_i8(x->plane[1][j] + c, b.low);
    }
    float total[4];
    v_sum4(total, sums[0], sums[1], rest, rest);
    bool finite = total[2] == 0;
    for (int i = 0; i < 2; i++) x->sum[i][j] = finite ? (int)total[i] : 0;
    x->scale[j] = scale + total[2];
}

// As gemm_rows.
INNER void gemm_i8_rows(float *y, int64_t ldy, const float *panel, int64_t stride, ptrdiff_t prefetch, const Planes *x,
                        int k, bool add, const int rows) {
    I acc[2][I8_ROWS][PANEL_V];
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < rows; j++) {
            for (int v = 0; v < PANEL_V; v++) acc[i][j][v] = i_set1(-SIGNED_BIAS * x->sum[i][j]);
        }
    }
    for (int c = 0; c < k; c += 4, panel += stride) {
        U p[PANEL_V];
        for (int v = 0; v < PANEL_V; v++) p[v] = u_load((const int8_t *)(panel + v * LANES));
        for (int line = 0; line < PANEL * 4; line += LINE_BYTES) {
            __builtin_prefetch((const char *)panel + prefetch + line);
        }
        for (int i = 0; i < 2; i++) {
            for (int j = 0; j < rows; j++) {
                U xj = u_set1(x->plane[i][j] + c);
                for (int v = 0; v < PANEL_V; v++) acc[i][j][v] = i_dots_signed(acc[i][j][v], p[v], xj);
            }
        }
    }
    for (int j = 0; j < rows; j++) {
        for (int v = 0; v < PANEL_V; v++) {
            float *to = y + j * ldy + v * LANES;
            V sum = v_fma(v_float(acc[0][j][v]), v_set1(255), v_float(acc[1][j][v])), scale = v_set1(x->scale[j]);
            v_store(to, add ? v_fma(sum, scale, v_load(to)) : v_mul(sum, scale));
        }
    }
}

INNER void gemm_i8_any(float *y, int64_t ldy, const float *panel, int64_t stride, ptrdiff_t prefetch, const Planes *x,
                       int n, int k, bool add) {
    switch (n) {
    case 4: gemm_i8_rows(y, ldy, panel, stride, prefetch, x, k, add, I8_ROWS < 4 ? I8_ROWS : 4); break;
    case 3: gemm_i8_rows(y, ldy, panel, stride, prefetch, x, k, add, I8_ROWS < 3 ? I8_ROWS : 3); break;
    case 2: gemm_i8_rows(y, ldy, panel, stride, prefetch, x, k, add, 2); break;
    default: gemm_i8_rows(y, ldy, panel, stride, prefetch, x, k, add, 1);
    }
}

// Up to I8_K of k and I8_ROWS rows.
static void gemm_i8_part(float *y, int64_t ldy, const PackedMatrix *w, const Planes *x, int n, int k, int n_cols,
                         bool add) {
    int i = 0;
    for (; i + PANEL <= n_cols; i += PANEL)
        gemm_i8_any(y + i, ldy, panel_at(w, i), w->row_stride, w->prefetch_offset, x, n, k, add);
    if (i == n_cols) return;
    float tile[I8_ROWS * PANEL] = {0};
    if (add) copy_rows(tile, PANEL, y + i, ldy, n, n_cols - i);
    gemm_i8_any(tile, PANEL, panel_at(w, i), w->row_stride, w->prefetch_offset, x, n, k, add);
    copy_rows(y + i, ldy, tile, PANEL, n, n_cols - i);
}

static void gemm_i8(float *y, int64_t ldy, const PackedMatrix *w, const float *x, int64_t ldx, int n, int k, int n_cols,
                    bool add) {
    Planes planes;
    for (int c = 0; c < k; c += I8_K) {
        int k_part = k - c < I8_K ? k - c : I8_K;
        PackedMatrix part = {(const float *)w->data + c / 4 * w->row_stride, w->row_stride, w->panel_stride,
                             w->prefetch_offset};
        for (int j = 0; j < n; j += I8_ROWS, part.prefetch_offset = 0) {
            int rows = n - j < I8_ROWS ? n - j : I8_ROWS;
            for (int r = 0; r < rows; r++) set_planes(&planes, r, x + (j + r) * ldx + c, k_part);
            gemm_i8_part(y + j * ldy, ldy, &part, &planes, rows, k_part, n_cols, add || c > 0);
        }
    }
}

// ---- softmax, norms, activations

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

static void scale(float *x, const float *by, int n) {
    int i = 0;
    for (; i + LANES <= n; i += LANES) v_store(x + i, v_mul(v_load(x + i), v_load(by + i)));
    for (; i < n; i++) x[i] *= by[i];
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
    rest /= (float)n; // the rounding error of the mean
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

// log(1 + e^x) = max(x, 0) + log(1 + t) with t = e^-|x|, and log(1 + t) = 2 artanh(t / (2 + t)) by its series: the
// argument is at most 1/3, the first term left out 1e-9 of the sum.
static inline V v_softplus(V x) {
    V size = v_max(x, v_sub(v_zero(), x)), t = v_exp2(v_mul(size, v_set1(-1.44269504088896340736f)));
    V s = v_div(t, v_add(v_set1(2.0f), t)), square = v_mul(s, s), p = v_set1(1.0f / 15);
    for (int i = 13; i > 0; i -= 2) p = v_fma(p, square, v_set1(1.0f / (float)i));
    return v_fma(v_add(s, s), p, v_max(x, v_zero()));
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
    case ACT_RELU_SQUARED: {
        V positive = v_max(x, v_zero());
        return v_mul(positive, positive);
    }
    case ACT_SOFTPLUS: return v_softplus(x);
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
    case ACT_RELU_SQUARED: activate_all(x, n, ACT_RELU_SQUARED); break;
    case ACT_SOFTPLUS: activate_all(x, n, ACT_SOFTPLUS); break;
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

// ---- selective scan

// LANES floats, or the first n and then zeros.
INNER V load_up_to(const float *p, int n) {
    return n >= LANES ? v_load(p) : v_load_first(p, n, v_zero());
}

static void convolve(float *y, const float *const *x, const float *taps, const float *bias, int width, int n) {
    for (int c = 0; c < n; c += LANES) {
        int left = n - c;
        V sum = bias ? load_up_to(bias + c, left) : v_zero();
        for (int64_t j = 0; j < width; j++) {
            sum = v_fma(load_up_to(taps + j * n + c, left), load_up_to(x[j] + c, left), sum);
        }
        if (left >= LANES) v_store(y + c, sum);
        else v_store_first(y + c, left, sum);
    }
}

static void scan_row(float *y, float *h, const float *a, int64_t ld, const float *step, const float *u, const float *b,
                     const float *q, int n, int k) {
    V log2e = v_set1(1.44269504088896340736f), most = v_set1(128.0f);
    for (int c = 0; c < n; c += LANES) {
        int left = n - c;
        V t = v_mul(load_up_to(step + c, left), log2e), update = load_up_to(u + c, left), sum = v_zero();
        for (int64_t i = 0; i < k; i++) {
            float *state = h + i * ld + c;
            V decay = v_exp2(v_min(v_mul(t, load_up_to(a + i * ld + c, left)), most));
            V next = v_fma(decay, load_up_to(state, left), v_mul(update, v_set1(b[i])));
            if (left >= LANES) v_store(state, next);
            else v_store_first(state, left, next);
            sum = v_fma(next, v_set1(q[i]), sum);
        }
        if (left >= LANES) v_store(y + c, sum);
        else v_store_first(y + c, left, sum);
    }
}

const Kernels TABLE = {
    .name = LEVEL_NAME,
    SHARED_KERNELS,
    .quantize = quantize,
    .takes_bytes = takes_bytes,
    .span = SPAN,
    .blocks = block_kernels,
};
