// growth_plot: the chart of bench --sweep as one self-contained SVG. Called by bench.
//
// Owns the layout: prefill and decode speed against context length, and the bound that memory bandwidth sets on decode.
#pragma once
#include <stddef.h>

typedef struct {
    const char *title, *subtitle;   // plain text
    int n;                          // points, at least 1
    const double *context;          // [n] tokens, ascending
    const double *prefill, *decode; // [n] tokens per second
    const double *bound;            // [n] decode at full bandwidth; NULL: unknown
} GrowthPlot;

// 0, or -1 with a line in err.
int growth_plot_write(const char *path, const GrowthPlot *p, char *err, size_t errlen);
