// growth_plot: the chart of bench --sweep as one self-contained SVG. Called by sweep.
//
// Owns the layout: side by side and over the context's length, the speed of prefill, that of decode, and the bytes that
// the sessions hold: with a line for each number of texts that decode together, or, of one, with the bound that memory
// bandwidth sets on its decode.
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum { GROWTH_MAX_POINTS = 32, GROWTH_MAX_BATCHES = 4 };

typedef struct {
    int n_texts;
    double decode[GROWTH_MAX_POINTS]; // tokens per second, of all texts together
    double bound[GROWTH_MAX_POINTS];  // that at full bandwidth
    double held[GROWTH_MAX_POINTS];   // bytes
} GrowthBatch;

typedef struct {
    const char *title, *shape, *machine; // lines of text
    int n;                               // points, 1 to GROWTH_MAX_POINTS
    const double *context;               // [n] tokens, ascending
    const double *prefill;               // [n] tokens per second, of one text
    const GrowthBatch *batches;          // [n_batches]
    int n_batches;                       // 1 to GROWTH_MAX_BATCHES
    bool bound_known;
    const char *held_by; // what the bytes are: "KV cache"
} GrowthPlot;

// 0, or -1 with a line in err.
int growth_plot_write(const char *path, const GrowthPlot *p, char *err, size_t errlen);
