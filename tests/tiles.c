// tiles: see tiles.h. The operations as in Intel's Software Developer's Manual, volume 2: LDTILECFG, TILELOADD,
// TILESTORED, TILEZERO, TDPBF16PS, TDPBSSD. What would raise an exception there is kept as a fault.
#include "tiles.h"

#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { C_TILES = 8, C_ROWS = 16, C_BYTES = 64 };

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} TileConfig;

_Static_assert(sizeof(TileConfig) == 64, "LDTILECFG reads 64 bytes");

static _Thread_local struct {
    TileConfig config; // palette 0: none
    uint8_t data[C_TILES][C_ROWS][C_BYTES];
} tiles;

static char fault[160];

const char *tiles_fault(void) {
    return fault;
}

static void set_fault(const char *operation, int tile) {
    if (!*fault) snprintf(fault, sizeof fault, "%s of tile %d: no layout, or sizes that do not fit", operation, tile);
}

static bool is_there(const char *operation, int tile) {
    bool there = tiles.config.palette == 1 && tile < C_TILES && tiles.config.rows[tile] && tiles.config.row_bytes[tile];
    if (!there) set_fault(operation, tile);
    return there;
}

static void load_config(const void *memory) {
    TileConfig c;
    memcpy(&c, memory, sizeof c);
    bool wrong = c.palette != 1 || c.start_row;
    for (int i = 0; i < 14; i++) wrong |= c.reserved[i] != 0;
    for (int i = 0; i < 16; i++) {
        wrong |= c.rows[i] > C_ROWS || c.row_bytes[i] > C_BYTES || !c.rows[i] != !c.row_bytes[i];
        wrong |= i >= C_TILES && (c.rows[i] || c.row_bytes[i]);
    }
    if (wrong) set_fault("layout", 0);
    memset(&tiles, 0, sizeof tiles);
    tiles.config = c;
}

static void load_tile(int tile, const void *memory, int64_t stride) {
    if (!is_there("load", tile)) return;
    memset(tiles.data[tile], 0, sizeof tiles.data[tile]);
    for (int r = 0; r < tiles.config.rows[tile]; r++) {
        memcpy(tiles.data[tile][r], (const char *)memory + r * stride, tiles.config.row_bytes[tile]);
    }
}

static void store_tile(int tile, void *memory, int64_t stride) {
    if (!is_there("store", tile)) return;
    for (int r = 0; r < tiles.config.rows[tile]; r++) {
        memcpy((char *)memory + r * stride, tiles.data[tile][r], tiles.config.row_bytes[tile]);
    }
}

static void zero_tile(int tile) {
    if (is_there("zero", tile)) memset(tiles.data[tile], 0, sizeof tiles.data[tile]);
}

static float flushed(float f) {
    return fabsf(f) < FLT_MIN ? copysignf(0, f) : f;
}

static float bf16_of(const uint8_t *row, int i) {
    uint16_t bits;
    memcpy(&bits, row + 2 * i, sizeof bits);
    return flushed(f32_from_bf16(bits));
}

// Sums of the even and of the odd k, then both together, then to what C holds.
static void dot_tiles(int c, int a, int b) {
    if (!is_there("dot", c) || !is_there("dot", a) || !is_there("dot", b)) return;
    const TileConfig *size = &tiles.config;
    int n = size->row_bytes[c] / 4, n_pairs = size->row_bytes[a] / 4;
    if (size->rows[a] != size->rows[c] || size->rows[b] != n_pairs || size->row_bytes[b] != size->row_bytes[c] ||
        c == a || c == b || a == b) {
        set_fault("dot", c);
        return;
    }
    for (int m = 0; m < size->rows[c]; m++) {
        float even[C_BYTES / 4] = {0}, odd[C_BYTES / 4] = {0};
        for (int k = 0; k < n_pairs; k++) {
            float x0 = bf16_of(tiles.data[a][m], 2 * k), x1 = bf16_of(tiles.data[a][m], 2 * k + 1);
            for (int i = 0; i < n; i++) {
                even[i] = flushed(fmaf(x0, bf16_of(tiles.data[b][k], 2 * i), even[i]));
                odd[i] = flushed(fmaf(x1, bf16_of(tiles.data[b][k], 2 * i + 1), odd[i]));
            }
        }
        for (int i = 0; i < n; i++) {
            float sum;
            memcpy(&sum, tiles.data[c][m] + 4 * i, sizeof sum);
            sum = flushed(flushed(sum) + flushed(even[i] + odd[i]));
            memcpy(tiles.data[c][m] + 4 * i, &sum, sizeof sum);
        }
    }
}

// Of the same sizes, bytes in words of four; the sums wrap.
static void dot_bytes(int c, int a, int b) {
    if (!is_there("dot", c) || !is_there("dot", a) || !is_there("dot", b)) return;
    for (int m = 0; m < tiles.config.rows[c]; m++) {
        for (int i = 0; i < tiles.config.row_bytes[c] / 4; i++) {
            uint32_t sum;
            memcpy(&sum, tiles.data[c][m] + 4 * i, sizeof sum);
            for (int k = 0; k < tiles.config.row_bytes[a]; k++) {
                sum += (uint32_t)((int8_t)tiles.data[a][m][k] * (int8_t)tiles.data[b][k / 4][4 * i + k % 4]);
            }
            memcpy(tiles.data[c][m] + 4 * i, &sum, sizeof sum);
        }
    }
}

#undef _tile_loadconfig
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_dpbssd
#define _tile_loadconfig load_config
#define _tile_loadd(tile, memory, stride) load_tile(tile, memory, (int64_t)(stride))
#define _tile_stored(tile, memory, stride) store_tile(tile, memory, (int64_t)(stride))
#define _tile_zero zero_tile
#define _tile_dpbf16ps dot_tiles
#define _tile_dpbssd dot_bytes
#define bf16_amx bf16_tiles_in_c
#define int8_amx int8_tiles_in_c

#include "amx.c"
