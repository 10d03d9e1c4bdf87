// What the inner loops of all rungs share; nobody outside of this folder includes it.
#pragma once
#include "kernels.h"

#include <string.h>

#define INNER static inline __attribute__((always_inline)) // so that the types and counts of a loop are known

enum { LINE_BYTES = 64, AHEAD_BYTES = 4096 }; // a cache line; what is fetched ahead of a long row

// to[i * ld_to + j] = from[i * ld_from + j] for i < n_rows, j < n
static inline void copy_rows(float *to, int64_t ld_to, const float *from, int64_t ld_from, int n_rows, int n) {
    for (int i = 0; i < n_rows; i++) memcpy(to + i * ld_to, from + i * ld_from, sizeof *to * (size_t)n);
}

// The words from lane i on, which begins a panel.
static inline const void *panel_at(const Panels *w, int i) {
    return (const uint32_t *)w->words + i / MAX_PANEL * w->group + i % MAX_PANEL;
}
