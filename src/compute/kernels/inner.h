// inner: helpers that the kernels of all levels share. Included within this folder only.
#pragma once
#include "kernels.h"

#include <string.h>

#define INNER static inline __attribute__((always_inline)) // constant arguments unroll loops and select types
#define OUTER static __attribute__((noinline))             // apart from a faster path, whose registers it would take

// The fields of a table that every level has, from functions named alike in scalar.c and lanes_tmpl.h.
#define SHARED_KERNELS                                                                                                 \
    .panel = PANEL, .matvec_f32 = matvec_f32, .matvec_f16 = matvec_f16, .matvec_bf16 = matvec_bf16,                    \
    .matvec_i8g = matvec_i8g, .unpack_i8g = unpack_i8g, .pack = pack, .gemm_f32 = gemm_f32, .gemm_bf16 = gemm_bf16,    \
    .gemm_i8 = gemm_i8, .softmax_row = softmax_row, .scale = scale, .f32_from_f16 = unpack_f16,                        \
    .f32_from_bf16 = unpack_bf16, .rmsnorm = rmsnorm, .layernorm = layernorm, .activate = activate,                    \
    .softcap = softcap, .swiglu = swiglu, .convolve = convolve, .scan_row = scan_row

enum { LINE_BYTES = 64, AHEAD_BYTES = 4096 }; // a cache line; how far ahead a long row is prefetched

// to[i * ld_to + j] = from[i * ld_from + j] for i < n_rows, j < n
static inline void copy_rows(float *to, int64_t ld_to, const float *from, int64_t ld_from, int n_rows, int n) {
    for (int i = 0; i < n_rows; i++) memcpy(to + i * ld_to, from + i * ld_from, sizeof *to * (size_t)n);
}

// The same of `whole` columns, mostly: a constant, which takes no call.
INNER void copy_tile(float *to, int64_t ld_to, const float *from, int64_t ld_from, int n_rows, int n, const int whole) {
    if (n == whole) copy_rows(to, ld_to, from, ld_from, n_rows, whole);
    else copy_rows(to, ld_to, from, ld_from, n_rows, n);
}

// The rows of x, of integers of so many bytes, from row j on.
static inline IntRows rows_from(const IntRows *x, int64_t j, int bytes) {
    IntRows rest = *x;
    rest.q = (const char *)x->q + j * x->ld * bytes;
    rest.scale += j * x->parts;
    return rest;
}

// The panel that begins with column i.
static inline const void *panel_at(const PackedMatrix *w, int i) {
    return (const uint32_t *)w->data + i / MAX_PANEL * w->panel_stride + i % MAX_PANEL;
}
