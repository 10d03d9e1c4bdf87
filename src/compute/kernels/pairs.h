// The gemm of bfloat16 by dots of pairs. Included by rungs that define V, LANES, v_load, v_store and v_zero as lanes.h
// wants them, PANEL, PANEL_V, PAIR, GEMM_COLS (rows whose sums are held in registers) and
//   v_add_dots(sum, pairs, pair)  LANES pairs, each times one pair, added to the sums
#pragma once
#include "inner.h"

static inline int pair_at(const uint16_t *x) {
    int pair;
    memcpy(&pair, x, sizeof pair);
    return pair;
}

// `cols` is a constant at every call, so that the accumulators live in registers.
INNER void gemm_cols(float *y, int64_t ldy, const float *words, int64_t ld, const uint16_t *x, int64_t ldx, int k,
                     bool add, const int cols) {
    V acc[GEMM_COLS][PANEL_V];
    for (int j = 0; j < cols; j++) {
        for (int v = 0; v < PANEL_V; v++) acc[j][v] = add ? v_load(y + j * ldy + v * LANES) : v_zero();
    }
    for (int c = 0; c < k; c += PAIR, words += ld) {
        V p[PANEL_V];
        for (int v = 0; v < PANEL_V; v++) p[v] = v_load(words + v * LANES);
        for (int j = 0; j < cols; j++) {
            int xj = pair_at(x + j * ldx + c);
            for (int v = 0; v < PANEL_V; v++) acc[j][v] = v_add_dots(acc[j][v], p[v], xj);
        }
    }
    for (int j = 0; j < cols; j++) {
        for (int v = 0; v < PANEL_V; v++) v_store(y + j * ldy + v * LANES, acc[j][v]);
    }
}

static void gemm_full(float *y, int64_t ldy, const float *words, int64_t ld, const uint16_t *x, int64_t ldx, int n,
                      int k, bool add) {
    int j = 0;
    for (; j + GEMM_COLS <= n; j += GEMM_COLS) {
        gemm_cols(y + j * ldy, ldy, words, ld, x + j * ldx, ldx, k, add, GEMM_COLS);
    }
    for (; j + 4 <= n; j += 4) gemm_cols(y + j * ldy, ldy, words, ld, x + j * ldx, ldx, k, add, 4);
    for (; j < n; j++) gemm_cols(y + j * ldy, ldy, words, ld, x + j * ldx, ldx, k, add, 1);
}

// The last lanes, fewer than a panel's: their sums are made beside y.
static void gemm_edge(float *y, int64_t ldy, const float *words, int64_t ld, const uint16_t *x, int64_t ldx, int n,
                      int k, int lanes, bool add) {
    float tile[GEMM_COLS * PANEL] = {0};
    for (int j = 0; j < n; j += GEMM_COLS) {
        int cols = n - j < GEMM_COLS ? n - j : GEMM_COLS;
        if (add) copy_rows(tile, PANEL, y + j * ldy, ldy, cols, lanes);
        gemm_full(tile, PANEL, words, ld, x + j * ldx, ldx, cols, k, add);
        copy_rows(y + j * ldy, ldy, tile, PANEL, cols, lanes);
    }
}

static void gemm(float *y, int64_t ldy, const Panels *w, const uint16_t *x, int64_t ldx, int n, int k, int lanes,
                 bool add) {
    int i = 0;
    for (; i + PANEL <= lanes; i += PANEL) gemm_full(y + i, ldy, panel_at(w, i), w->ld, x, ldx, n, k, add);
    if (i < lanes) gemm_edge(y + i, ldy, panel_at(w, i), w->ld, x, ldx, n, k, lanes - i, add);
}
