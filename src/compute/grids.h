// grids: the codebooks of the types IQ1, IQ2 and IQ3, in which an index stands for 8 or 4 neighbouring values.
//
// Owns the tables, packed as in the source and as the bytes that kernels look up. Refuses nothing. Called by
// quant_grids and the kernels. Source of the numbers: github.com/ggml-org/ggml, src/ggml-common.h.
#pragma once
#include <stdint.h>

typedef struct {
    const uint16_t *codes; // [n]: of value j `bits` bits from bit j * bits on
    int n, values, bits;
    const int8_t *levels; // what a code stands for
} Grid;

// Values of IQ1 are in eighths: -8, 0, 8.
extern const Grid grid_iq1, grid_iq2_xxs, grid_iq2_xs, grid_iq2_s, grid_iq3_xxs, grid_iq3_s;

// Value j of entry i.
static inline int grid_value(const Grid *g, int i, int j) {
    return g->levels[g->codes[i] >> j * g->bits & ((1 << g->bits) - 1)];
}

// All entries as bytes, int8, value 0 in the lowest. Empty until grids_expand was called.
typedef struct {
    uint64_t iq1[2048], iq2_xxs[256], iq2_xs[512], iq2_s[1024];
    uint32_t iq3_xxs[256], iq3_s[512];
} GridBytes;
extern GridBytes grid_bytes;
void grids_expand(void); // once, before other threads read
