// scan: the selective scan of Mamba (arXiv:2312.00752, algorithm 2 with equations 1, 2 and 4).
//
// For each channel c, with a state h[n] that starts from zeros, step sizes d_t and inputs x_t:
//     h_t[n] = exp(d_t a[n]) h_(t-1)[n] + d_t x_t b_t[n],    y_t = sum_n h_t[n] q_t[n]
// Each state decays in its own way, so that there is no form in matrix products: rows are taken one after the other,
// vectors go over channels. The state keeps a running copy beside that of the border; going back within the open chunk
// makes it again from the border and the chunk's rows, with the same bits. Owns the split over threads by channels.
// Refuses nothing.
#pragma once
#include "compute.h"
#include "state.h"

enum { SCAN_STATES = 256 }; // of a channel, at most

// n rows of one timeline, of one layer: `channels` = v_dim of the state, `states` = k_dim.
typedef struct {
    State *state; // its shape has scan
    int n;
    const float *step;  // d, [n][channels]
    const float *u;     // d x, [n][channels]
    const float *b, *q; // [n][states]; `ld` floats from row to row
    int64_t ld;
    const float *a; // [states][channels], below 0
    float *y;       // [n][channels]
} Scan;

// All rows of the list's timelines, which have the same shape. Stores rows and borders into the states; the caller
// advances them.
void scan(const Compute *c, const Scan *list, int n);
