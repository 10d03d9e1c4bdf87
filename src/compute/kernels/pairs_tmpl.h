// pairs_tmpl: the gemm of bfloat16 by dot products of pairs. The including file must define:
//   V, LANES, PANEL_V, GEMM_ROWS, v_load, v_store, v_zero   as for lanes_tmpl.h
//   PANEL, PAIR                   columns of a panel: PANEL_V * LANES; values of a word: 2
//   v_add_dots(sum, pairs, pair)  sum + the dot products of LANES pairs with one pair
#pragma once
#include "inner.h"

static inline int pair_at(const uint16_t *x) {
    int pair;
    memcpy(&pair, x, sizeof pair);
    return pair;
}

// `cols` is a constant at every call, so that the accumulators live in registers.
INNER void gemm_rows(float *y, int64_t ldy, const float *panel, int64_t stride, const uint16_t *x, int64_t ldx, int k,
                     bool add, const int rows) {
    V acc[GEMM_ROWS][PANEL_V];
    for (int j = 0; j < rows; j++) {
        for (int v = 0; v < PANEL_V; v++) acc[j][v] = add ? v_load(y + j * ldy + v * LANES) : v_zero();
    }
    for (int c = 0; c < k; c += PAIR, panel += stride) {
        V p[PANEL_V];
        for (int v = 0; v < PANEL_V; v++) p[v] = v_load(panel + v * LANES);
        for (int j = 0; j < rows; j++) {
            int xj = pair_at(x + j * ldx + c);
            for (int v = 0; v < PANEL_V; v++) acc[j][v] = v_add_dots(acc[j][v], p[v], xj);
        }
    }
    for (int j = 0; j < rows; j++) {
        for (int v = 0; v < PANEL_V; v++) v_store(y + j * ldy + v * LANES, acc[j][v]);
    }
}

static void gemm_full(float *y, int64_t ldy, const float *panel, int64_t stride, const uint16_t *x, int64_t ldx, int n,
                      int k, bool add) {
    int j = 0;
    for (; j + GEMM_ROWS <= n; j += GEMM_ROWS) {
        gemm_rows(y + j * ldy, ldy, panel, stride, x + j * ldx, ldx, k, add, GEMM_ROWS);
    }
    for (; j + 4 <= n; j += 4) gemm_rows(y + j * ldy, ldy, panel, stride, x + j * ldx, ldx, k, add, 4);
    for (; j < n; j++) gemm_rows(y + j * ldy, ldy, panel, stride, x + j * ldx, ldx, k, add, 1);
}

// The last columns, fewer than a panel's, are computed in a temporary tile.
static void gemm_edge(float *y, int64_t ldy, const float *panel, int64_t stride, const uint16_t *x, int64_t ldx, int n,
                      int k, int n_cols, bool add) {
    float tile[GEMM_ROWS * PANEL] = {0};
    for (int j = 0; j < n; j += GEMM_ROWS) {
        int rows = n - j < GEMM_ROWS ? n - j : GEMM_ROWS;
        if (add) copy_rows(tile, PANEL, y + j * ldy, ldy, rows, n_cols);
        gemm_full(tile, PANEL, panel, stride, x + j * ldx, ldx, rows, k, add);
        copy_rows(y + j * ldy, ldy, tile, PANEL, rows, n_cols);
    }
}

static void gemm(float *y, int64_t ldy, const PackedMatrix *w, const uint16_t *x, int64_t ldx, int n, int k, int n_cols,
                 bool add) {
    int i = 0;
    for (; i + PANEL <= n_cols; i += PANEL) gemm_full(y + i, ldy, panel_at(w, i), w->row_stride, x, ldx, n, k, add);
    if (i < n_cols) gemm_edge(y + i, ldy, panel_at(w, i), w->row_stride, x, ldx, n, k, n_cols - i, add);
}
