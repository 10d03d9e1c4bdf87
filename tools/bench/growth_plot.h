// growth_plot: the chart of bench --sweep as one self-contained SVG. Called by sweep.
//
// Owns the layout: side by side and over the context's length, the speed of prefill, that of decode with the bound that
// memory bandwidth sets on it, and the bytes that the session holds.
#pragma once
#include <stddef.h>

typedef struct {
    const char *title, *shape, *machine; // lines of text
    int n;                               // points, at least 1
    const double *context;               // [n] tokens, ascending
    const double *prefill, *decode;      // [n] tokens per second
    const double *bound;                 // [n] decode at full bandwidth; NULL: unknown
    const double *held;                  // [n] bytes
    const char *held_by;                 // what they are: "KV cache"
} GrowthPlot;

// 0, or -1 with a line in err.
int growth_plot_write(const char *path, const GrowthPlot *p, char *err, size_t errlen);
