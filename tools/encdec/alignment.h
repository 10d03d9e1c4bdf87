// alignment: which input symbol each output symbol looked at, as an SVG or a PNG.
//
// Owns one layout for both: the first map large at the left, the others as smaller panels in a grid beside it, and a
// scale of the shades. Refuses weights outside 0 to 1, more than MAX_SYMBOLS symbols a side, and other endings of path.
#pragma once
#include <stddef.h>

enum { MAX_SYMBOLS = 256, MAX_ALIGNMENT_MAPS = 1025 };

typedef struct {
    const char *title;    // UTF-8
    const float *weights; // [n_out][n_in], each row sums to 1
} AlignmentMap;

// out, in: UTF-8 labels of the rows and the columns, one symbol (or a few letters) each. In a PNG, whose font is ASCII,
// a label with other characters is drawn as its first code point ("U+0259"). path ends in .svg or .png. -1 with one
// line in err.
int alignment_write(const char *path, const char *const *out, int n_out, const char *const *in, int n_in,
                    const AlignmentMap *maps, int n_maps, char *err, size_t errlen);
