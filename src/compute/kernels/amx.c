// amx: the gemm of bfloat16 tiles, added to the avx512 kernels. A tile is 16 rows of 64 bytes; C[16][16] += A[16][32]
// B[32][16], B as 16 rows of 16 pairs, so panels and rows of x are tiles in place.
#include "bf16.h"

enum { SIDE = 16, TILE_BYTES = 64, N_TILES = 8 };

// gcc's tile loads are not declared to read memory.
static inline void finish_stores(void) {
    __asm__ volatile("" ::: "memory");
}

// Configures the tile registers of this thread: all of full size.
static void configure(void) {
    static _Thread_local bool done;
    if (done) return;
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < N_TILES; i++) {
        config.row_bytes[i] = TILE_BYTES;
        config.rows[i] = SIDE;
    }
    finish_stores();
    _tile_loadconfig(&config);
    done = true;
}

// 16 or 32 `rows` (a constant at every call) of 32 columns. C: tiles 0 to 3, A: 4 and 5, B: 6 and 7. With 32 rows, each
// A and B is loaded once for two products.
INNER void gemm_rows(float *y, int64_t ldy, const uint16_t *panel, int64_t stride, const uint16_t *x, int64_t ldx,
                     int k, bool add, const int rows) {
    size_t y_bytes = sizeof *y * (size_t)ldy, x_bytes = sizeof *x * (size_t)ldx;
    size_t w_bytes = sizeof *panel * PAIR * (size_t)stride;
    const bool both = rows > SIDE;
    float *below = y + SIDE * ldy;
    _tile_zero(0);
    _tile_zero(1);
    if (both) _tile_zero(2);
    if (both) _tile_zero(3);
    if (add) {
        _tile_loadd(0, y, y_bytes);
        _tile_loadd(1, y + SIDE, y_bytes);
        if (both) _tile_loadd(2, below, y_bytes);
        if (both) _tile_loadd(3, below + SIDE, y_bytes);
    }
    for (int c = 0; c < k; c += BF16_STEP, panel += BF16_STEP * stride) {
        _tile_loadd(4, x + c, x_bytes);
        _tile_loadd(6, panel, w_bytes);
        _tile_loadd(7, panel + PAIR * SIDE, w_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (both) {
            _tile_loadd(5, x + SIDE * ldx + c, x_bytes);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, y, y_bytes);
    _tile_stored(1, y + SIDE, y_bytes);
    if (both) _tile_stored(2, below, y_bytes);
    if (both) _tile_stored(3, below + SIDE, y_bytes);
}

// Fewer than 16 rows or 32 columns are computed in a temporary tile.
static void gemm_edge(float *y, int64_t ldy, const uint16_t *panel, int64_t stride, const uint16_t *x, int64_t ldx,
                      int n, int k, int n_cols, bool add) {
    _Alignas(TILE_BYTES) float tile[SIDE * PANEL] = {0};
    if (add) copy_rows(tile, PANEL, y, ldy, n, n_cols);
    finish_stores();
    gemm_rows(tile, PANEL, panel, stride, x, ldx, k, add, SIDE);
    copy_rows(y, ldy, tile, PANEL, n, n_cols);
}

static void gemm_panel(float *y, int64_t ldy, const uint16_t *panel, int64_t stride, const uint16_t *x, int64_t ldx,
                       int n, int k, int n_cols, bool add) {
    int j = 0;
    if (n_cols == PANEL) {
        for (; j + 2 * SIDE <= n; j += 2 * SIDE) {
            gemm_rows(y + j * ldy, ldy, panel, stride, x + j * ldx, ldx, k, add, 2 * SIDE);
        }
        for (; j + SIDE <= n; j += SIDE) gemm_rows(y + j * ldy, ldy, panel, stride, x + j * ldx, ldx, k, add, SIDE);
    }
    for (; j < n; j += SIDE) {
        int rows = n - j < SIDE ? n - j : SIDE;
        gemm_edge(y + j * ldy, ldy, panel, stride, x + j * ldx, ldx, rows, k, n_cols, add);
    }
}

static void gemm(float *y, int64_t ldy, const PackedMatrix *w, const uint16_t *x, int64_t ldx, int n, int k, int n_cols,
                 bool add) {
    configure();
    finish_stores();
    for (int i = 0; i < n_cols; i += PANEL) {
        int n_panel = n_cols - i < PANEL ? n_cols - i : PANEL;
        gemm_panel(y + i, ldy, panel_at(w, i), w->row_stride, x, ldx, n, k, n_panel, add);
    }
}

const Bf16Kernels bf16_amx = BF16_KERNELS;
