// The avx512bf16 rung: the avx512 one, and dots of pairs of bfloat16.
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
    for (; j + 8 <= n; j += 8) gemm_cols(y + j * ldy, ldy, panel, x + j * ldx, ldx, step, k, add, 8);
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
    for (int j = 0; j < n; j += GEMM_COLS) {
        int cols = n - j < GEMM_COLS ? n - j : GEMM_COLS;
        if (add) copy_rows(tile, PANEL, y + j * ldy, ldy, cols, lanes);
        gemm_full(tile, PANEL, panel, x + j * ldx, ldx, step, cols, k, add);
        copy_rows(y + j * ldy, ldy, tile, PANEL, cols, lanes);
    }
}

const Bf16Kernels bf16_avx512 = {.round = round_to_bf16, .softmax_lanes = softmax_lanes, .gemm = gemm};
