// The amx rung: the avx512 one, and tiles of bfloat16. A tile is 16 rows of 64 bytes; C[16][16] += A[16][32] B[32][16],
// B as 16 rows of 16 pairs: a panel and rows of x are tiles where they lie.
#include "bf16.h"

enum { SIDE = 16, TILE_BYTES = 64, N_TILES = 8, PANEL_BYTES = PANEL_PAIRS * 2 };

// gcc's tile loads do not say that they read memory.
static inline void finish_stores(void) {
    __asm__ volatile("" ::: "memory");
}

// The layout of every tile register of a thread: all of full size.
static void configure(void) {
    static _Thread_local bool done;
    if (done) return;
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < N_TILES; i++) config.row_bytes[i] = TILE_BYTES, config.rows[i] = SIDE;
    finish_stores();
    _tile_loadconfig(&config);
    done = true;
}

// `rows` of 32 lanes, 16 or 32, a constant at every call. C: tiles 0 to 3, A: 4 and 5, B: 6 and 7; of 32 rows, each A
// and B is loaded once for two products.
INNER void gemm_rows(float *y, int64_t ldy, const uint16_t *panel, const uint16_t *x, int64_t ldx, int64_t step, int k,
                     bool add, const int rows) {
    size_t y_bytes = sizeof(float) * (size_t)ldy, x_bytes = sizeof *x * (size_t)ldx;
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
    for (; k > 0; k -= BF16_STEP, x += step, panel += BF16_STEP * PANEL) {
        _tile_loadd(4, x, x_bytes);
        _tile_loadd(6, panel, PANEL_BYTES);
        _tile_loadd(7, panel + PANEL, PANEL_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (both) {
            _tile_loadd(5, x + SIDE * ldx, x_bytes);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, y, y_bytes);
    _tile_stored(1, y + SIDE, y_bytes);
    if (both) _tile_stored(2, below, y_bytes);
    if (both) _tile_stored(3, below + SIDE, y_bytes);
}

// Sums of fewer than 16 rows or 32 lanes are made beside y.
static void gemm_edge(float *y, int64_t ldy, const uint16_t *panel, const uint16_t *x, int64_t ldx, int64_t step, int n,
                      int k, int lanes, bool add) {
    _Alignas(TILE_BYTES) float tile[SIDE * PANEL] = {0};
    if (add) copy_rows(tile, PANEL, y, ldy, n, lanes);
    finish_stores();
    gemm_rows(tile, PANEL, panel, x, ldx, step, k, add, SIDE);
    copy_rows(y, ldy, tile, PANEL, n, lanes);
}

static void gemm(float *y, int64_t ldy, const uint16_t *panel, const uint16_t *x, int64_t ldx, int64_t step, int n,
                 int k, int lanes, bool add) {
    configure();
    finish_stores();
    int j = 0;
    if (lanes == PANEL) {
        for (; j + 2 * SIDE <= n; j += 2 * SIDE) {
            gemm_rows(y + j * ldy, ldy, panel, x + j * ldx, ldx, step, k, add, 2 * SIDE);
        }
        for (; j + SIDE <= n; j += SIDE) gemm_rows(y + j * ldy, ldy, panel, x + j * ldx, ldx, step, k, add, SIDE);
    }
    for (; j < n; j += SIDE) {
        int rows = n - j < SIDE ? n - j : SIDE;
        gemm_edge(y + j * ldy, ldy, panel, x + j * ldx, ldx, step, rows, k, lanes, add);
    }
}

const Bf16Kernels bf16_amx = {.round = round_to_bf16, .softmax_lanes = softmax_lanes, .gemm = gemm};
