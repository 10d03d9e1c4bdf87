// The avx512bf16 rung: the avx512 one, and dots of pairs of bfloat16.
#include "avx512.h"
#include "bf16.h"

enum { GEMM_COLS = 12, PANEL_V = 2 };

static inline __m512bh pair_of(const uint16_t *x) {
    int word;
    memcpy(&word, x, sizeof word);
    return (__m512bh)_mm512_set1_epi32(word);
}

// `cols` is a constant at every call, so that the accumulators live in registers.
INNER void gemm_cols(float *y, int64_t ldy, const uint16_t *panel, const uint16_t *x, int64_t ldx, int64_t step, int k,
                     bool add, const int cols) {
    __m512 acc[GEMM_COLS][PANEL_V];
    for (int j = 0; j < cols; j++) {
        for (int v = 0; v < PANEL_V; v++) {
            acc[j][v] = add ? _mm512_loadu_ps(y + j * ldy + v * 16) : _mm512_setzero_ps();
        }
    }
    for (; k > 0; k -= BF16_STEP, x += step) {
        for (int c = 0; c < BF16_STEP; c += PAIR, panel += PANEL_PAIRS) {
            __m512bh p[PANEL_V];
            for (int v = 0; v < PANEL_V; v++) p[v] = (__m512bh)_mm512_loadu_si512(panel + v * 32);
            for (int j = 0; j < cols; j++) {
                __m512bh xj = pair_of(x + j * ldx + c);
                for (int v = 0; v < PANEL_V; v++) acc[j][v] = _mm512_dpbf16_ps(acc[j][v], p[v], xj);
            }
        }
    }
    for (int j = 0; j < cols; j++) {
        for (int v = 0; v < PANEL_V; v++) _mm512_storeu_ps(y + j * ldy + v * 16, acc[j][v]);
    }
}

static void gemm_full(float *y, int64_t ldy, const uint16_t *panel, const uint16_t *x, int64_t ldx, int64_t step, int n,
                      int k, bool add) {
    int j = 0;
    for (; j + GEMM_COLS <= n; j += GEMM_COLS) {
        gemm_cols(y + j * ldy, ldy, panel, x + j * ldx, ldx, step, k, add, GEMM_COLS);
    }
    for (; j + 4 <= n; j += 4) gemm_cols(y + j * ldy, ldy, panel, x + j * ldx, ldx, step, k, add, 4);
    for (; j < n; j++) gemm_cols(y + j * ldy, ldy, panel, x + j * ldx, ldx, step, k, add, 1);
}

static void gemm(float *y, int64_t ldy, const uint16_t *panel, const uint16_t *x, int64_t ldx, int64_t step, int n,
                 int k, int lanes, bool add) {
    if (lanes == PANEL) {
        gemm_full(y, ldy, panel, x, ldx, step, n, k, add);
        return;
    }
    float tile[GEMM_COLS * PANEL] = {0};
    size_t bytes = sizeof(float) * (size_t)lanes;
    for (int j = 0; j < n; j += GEMM_COLS) {
        int cols = n - j < GEMM_COLS ? n - j : GEMM_COLS;
        for (int c = 0; add && c < cols; c++) memcpy(tile + c * PANEL, y + (j + c) * ldy, bytes);
        gemm_full(tile, PANEL, panel, x + j * ldx, ldx, step, cols, k, add);
        for (int c = 0; c < cols; c++) memcpy(y + (j + c) * ldy, tile + c * PANEL, bytes);
    }
}

// ---- dots with rows of the KV cache

enum { DOTS_X = 4, DOTS_K = 256, VALUES = 32 };

// Four rows, at `rows` in w, with n_x vectors x[r][DOTS_K].
INNER void dots_4(float *y, int64_t ldy, const uint16_t *w, const int64_t *rows, int64_t step, const uint16_t *x, int k,
                  ptrdiff_t ahead, const int n_x) {
    __m512 sum[DOTS_X][4];
    for (int r = 0; r < n_x; r++) {
        for (int i = 0; i < 4; i++) sum[r][i] = _mm512_setzero_ps();
    }
    for (int j = 0; j < k; j += VALUES, w += step) {
        __mmask32 some = k - j < VALUES ? (1u << (k - j)) - 1 : ~0u;
        __m512bh wj[4];
        for (int i = 0; i < 4; i++) {
            __builtin_prefetch((const char *)(w + rows[i]) + ahead);
            wj[i] = (__m512bh)_mm512_maskz_loadu_epi16(some, w + rows[i]);
        }
        for (int r = 0; r < n_x; r++) {
            __m512bh xj = (__m512bh)_mm512_loadu_si512(x + r * DOTS_K + j);
            for (int i = 0; i < 4; i++) sum[r][i] = _mm512_dpbf16_ps(sum[r][i], wj[i], xj);
        }
    }
    for (int r = 0; r < n_x; r++) v_sum4(y + r * ldy, sum[r][0], sum[r][1], sum[r][2], sum[r][3]);
}

INNER void dots_rows(float *y, int64_t ldy, const uint16_t *w, int64_t ldw, int64_t step, const uint16_t *x, int n_rows,
                     int k, ptrdiff_t ahead, const int n_x) {
    int i = 0;
    for (; i + 4 <= n_rows; i += 4) {
        int64_t rows[4] = {i * ldw, (i + 1) * ldw, (i + 2) * ldw, (i + 3) * ldw};
        dots_4(y + i, ldy, w, rows, step, x, k, ahead, n_x);
    }
    if (i == n_rows) return;
    float sums[DOTS_X * 4];
    int64_t rows[4];
    for (int r = 0; r < 4; r++) rows[r] = (i + r < n_rows ? i + r : i) * ldw;
    dots_4(sums, 4, w, rows, step, x, k, ahead, n_x);
    for (int r = 0; r < n_x; r++) memcpy(y + r * ldy + i, sums + r * 4, sizeof(float) * (size_t)(n_rows - i));
}

void dots_bf16_pairs(float *y, int64_t ldy, const uint16_t *w, int64_t ldw, int64_t step, const float *x, int64_t ldx,
                     int n_rows, int n_x, int k, ptrdiff_t ahead) {
    uint16_t rounded[DOTS_X * DOTS_K] = {0};
    if (k > DOTS_K) {
        kernels_avx512.dots_bf16(y, ldy, w, ldw, step, x, ldx, n_rows, n_x, k, ahead);
        return;
    }
    for (int left = n_x; left > 0; left -= DOTS_X, y += DOTS_X * ldy, x += DOTS_X * ldx) {
        for (int r = 0; r < left && r < DOTS_X; r++) round_to_bf16(rounded + r * DOTS_K, x + r * ldx, k);
        switch (left) {
        case 1: dots_rows(y, ldy, w, ldw, step, rounded, n_rows, k, ahead, 1); break;
        case 2: dots_rows(y, ldy, w, ldw, step, rounded, n_rows, k, ahead, 2); break;
        case 3: dots_rows(y, ldy, w, ldw, step, rounded, n_rows, k, ahead, 3); break;
        default: dots_rows(y, ldy, w, ldw, step, rounded, n_rows, k, ahead, 4);
        }
    }
}

const Bf16Kernels bf16_avx512 = {.round = round_to_bf16, .softmax_lanes = softmax_lanes, .gemm = gemm};
