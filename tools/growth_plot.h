// growth_plot: the picture of a sweep, as one self-contained SVG: prefill and decode speed against context length, and
// the bound that memory bandwidth sets on decode. Called by bench.
#pragma once
#include <stddef.h>

typedef struct {
    const char *title, *subtitle;   // plain text
    int n;                          // points, at least 1
    const double *context;          // [n] tokens, growing
    const double *prefill, *decode; // [n] tokens per second
    const double *bound;            // [n] decode at full bandwidth; NULL: unknown
} GrowthPlot;

// 0, or -1 with a line in err.
int growth_plot_write(const char *path, const GrowthPlot *p, char *err, size_t errlen);
