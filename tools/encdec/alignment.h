// alignment: draws attention maps between output and input symbols, as an SVG or a PNG. Called by encdec.
//
// Owns one layout for both: a title and a colour scale, below them a grid of small panels in which the first map takes
// several places. Refuses weights outside 0 to 1, more than MAX_SYMBOLS symbols a side, and other file extensions.
#pragma once
#include <stddef.h>

enum { MAX_SYMBOLS = 256, MAX_ALIGNMENT_MAPS = 1025 };

typedef struct {
    const char *title;    // UTF-8
    const float *weights; // [n_out][n_in], each row sums to 1
} AlignmentMap;

typedef struct {
    const char *title, *subtitle; // UTF-8, a line each
    const char *const *out;       // [n_out] labels of the rows: UTF-8, one symbol or a few letters each
    int n_out;
    const char *const *in; // [n_in] labels of the columns
    int n_in;
    const AlignmentMap *maps;
    int n_maps;
} Alignment;

// path ends in .svg or .png. In a PNG, whose font is ASCII, other characters are drawn as code points ("U+0259"). -1
// with one line in err.
int alignment_write(const char *path, const Alignment *a, char *err, size_t errlen);
