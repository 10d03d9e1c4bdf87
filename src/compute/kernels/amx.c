// amx: the gemms of bfloat16 and int8 tiles, added to the avx512 kernels. A tile is 16 rows of 64 bytes; C[16][16] +=
// A[16][32] B[32][16], B as 16 rows of 16 pairs (of int8: twice as deep, words of four), so panels and rows of x are
// tiles in place.
#include "bf16.h"
#include "int8.h"

enum {
    SIDE = 16,
    TILE_BYTES = 64,
    N_TILES = 8,
    TOKENS = 256,         // rows of x at a time, for several panels: all of it stays in L2
    FAR_FLOATS = 2 << 20, // y of at least this size is read again from memory, and written past the caches
};

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

// y (+)= x w^T of one panel: pairs of bfloat16, or words of four int8 with their scales. Sizes and strides of the
// operands are in bytes.
typedef struct {
    float *y;
    const char *panel, *x;
    int64_t ldy, stride, ldx;
    int n, k, n_cols;
    bool add;
    bool far;                      // write y past the caches
    const float *scales, *x_scale; // of the panel's columns; of row j of x: x_scale[j * parts]
    int64_t parts;
} Product;

// 16 or 32 `rows` of 32 columns, to `sums`, `ld` apart; `rows` and `int8` are constants at every call. C: tiles 0 to 3,
// A: 4 and 5, B: 6 and 7. With 32 rows, each A and B is loaded once for two products.
INNER void gemm_tiles(const Product *p, float *sums, int64_t ld, bool add, const int rows, const bool int8) {
    size_t bytes = sizeof *sums * (size_t)ld, x_bytes = (size_t)p->ldx, w_bytes = (size_t)p->stride;
    const bool both = rows > SIDE;
    float *below = sums + SIDE * ld;
    const char *panel = p->panel, *x = p->x;
    _tile_zero(0);
    _tile_zero(1);
    if (both) _tile_zero(2);
    if (both) _tile_zero(3);
    if (add) {
        _tile_loadd(0, sums, bytes);
        _tile_loadd(1, sums + SIDE, bytes);
        if (both) _tile_loadd(2, below, bytes);
        if (both) _tile_loadd(3, below + SIDE, bytes);
    }
    for (int c = 0; c < p->k; c += TILE_BYTES, panel += SIDE * p->stride) {
        _tile_loadd(4, x + c, x_bytes);
        _tile_loadd(6, panel, w_bytes);
        _tile_loadd(7, panel + TILE_BYTES, w_bytes);
        if (int8) _tile_dpbssd(0, 4, 6);
        else _tile_dpbf16ps(0, 4, 6);
        if (int8) _tile_dpbssd(1, 4, 7);
        else _tile_dpbf16ps(1, 4, 7);
        if (both) {
            _tile_loadd(5, x + SIDE * p->ldx + c, x_bytes);
            if (int8) _tile_dpbssd(2, 5, 6);
            else _tile_dpbf16ps(2, 5, 6);
            if (int8) _tile_dpbssd(3, 5, 7);
            else _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, sums, bytes);
    _tile_stored(1, sums + SIDE, bytes);
    if (both) _tile_stored(2, below, bytes);
    if (both) _tile_stored(3, below + SIDE, bytes);
}

INNER void gemm_rows(const Product *p, float *sums, int64_t ld, bool add, const bool int8) {
    if (p->n > SIDE) gemm_tiles(p, sums, ld, add, 2 * SIDE, int8);
    else gemm_tiles(p, sums, ld, add, SIDE, int8);
}

static void write_rows(const Product *p, const float *sums) {
    if (!p->far || p->n_cols < PANEL) {
        copy_rows(p->y, p->ldy, sums, PANEL, p->n, p->n_cols);
        return;
    }
    for (int j = 0; j < p->n; j++, sums += PANEL) {
        _mm512_stream_ps(p->y + j * p->ldy, _mm512_load_ps(sums));
        _mm512_stream_ps(p->y + j * p->ldy + SIDE, _mm512_load_ps(sums + SIDE));
    }
}

static void write_scaled(const Product *p, const float *sums) {
    uint64_t m = (UINT64_C(1) << p->n_cols) - 1;
    for (int j = 0; j < p->n; j++) {
        for (int i = 0; i < PANEL; i += SIDE) {
            scale_sums(p->y + j * p->ldy + i, _mm512_load_si512(sums + j * PANEL + i), p->x_scale[j * p->parts],
                       _mm512_loadu_ps(p->scales + i), (__mmask16)(m >> i), p->add);
        }
    }
}

// Up to 32 rows. Whole tiles of y that stay in the cache are computed in place, others beside it.
INNER void gemm_block(const Product *p, const bool int8) {
    _Alignas(TILE_BYTES) float sums[2 * SIDE * PANEL];
    if (!int8 && !p->far && p->n_cols == PANEL && p->n % SIDE == 0) {
        gemm_rows(p, p->y, p->ldy, p->add, false);
        return;
    }
    if (!int8 && p->add) copy_rows(sums, PANEL, p->y, p->ldy, p->n, p->n_cols);
    finish_stores();
    gemm_rows(p, sums, PANEL, !int8 && p->add, int8);
    finish_stores();
    if (int8) write_scaled(p, sums);
    else write_rows(p, sums);
}

// Its rows from j on, at most `most`.
static Product part_of(const Product *p, int j, int most) {
    Product part = *p;
    part.y += j * p->ldy;
    part.x += j * p->ldx;
    part.n = p->n - j < most ? p->n - j : most;
    return part;
}

static void gemm(float *y, int64_t ldy, const PackedMatrix *w, const uint16_t *x, int64_t ldx, int n, int k, int n_cols,
                 bool add) {
    configure();
    finish_stores();
    const int64_t bytes = sizeof *x;
    Product all = {.y = y, .x = (const char *)x, .ldy = ldy, .stride = w->row_stride * PAIR * bytes};
    all.ldx = ldx * bytes;
    all.n = n;
    all.k = k * (int)bytes;
    all.add = add;
    all.far = n * ldy >= FAR_FLOATS && (uintptr_t)y % LINE_BYTES == 0 && ldy * (int64_t)sizeof *y % LINE_BYTES == 0;
    for (int t = 0; t < n; t += TOKENS) {
        for (int i = 0; i < n_cols; i += PANEL) {
            Product p = part_of(&all, t, TOKENS);
            p.y += i;
            p.panel = panel_at(w, i);
            p.n_cols = n_cols - i < PANEL ? n_cols - i : PANEL;
            for (int j = 0, rows; j < p.n; j += rows) {
                rows = p.n - j >= SIDE && p.n - j < 2 * SIDE ? SIDE : 2 * SIDE; // the last few rows by themselves
                Product block = part_of(&p, j, rows);
                gemm_block(&block, false);
            }
        }
    }
    if (all.far) _mm_sfence();
}

static void gemm_int8(float *y, int64_t ldy, const IntPanel *w, const IntRows *x, int n, int k, int n_cols, bool add) {
    configure();
    Product all = {.y = y, .x = (const char *)x->q, .panel = (const char *)w->q, .ldy = ldy, .stride = 2 * TILE_BYTES};
    all.ldx = x->ld;
    all.n = n;
    all.k = k;
    all.n_cols = n_cols;
    all.add = add;
    all.scales = w->scale;
    all.parts = x->parts;
    for (int j = 0; j < n; j += 2 * SIDE) {
        Product block = part_of(&all, j, 2 * SIDE);
        block.x_scale = x->scale + j * x->parts;
        gemm_block(&block, true);
    }
}

enum { SHARED = 16 }; // measured before rows of blocks had spans
const Bf16Kernels bf16_amx = BF16_KERNELS;
const IntKernels int8_amx = INT8_KERNELS;
