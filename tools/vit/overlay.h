// overlay: draws attention maps over a picture, as one PNG. Called by vit.
//
// Owns the drawing: the model's input, and for each map the same picture darkened, with the map's weights in colour.
// Refuses weights that are negative or not finite, and drawings beyond MAX_PIXELS.
#pragma once
#include "picture.h"

typedef struct {
    const char *title;    // a line of ASCII under the panel; truncated to its width
    const float *weights; // [rows][cols] over the patches, from the top left; each map is shown relative to its maximum
} AttentionMap;

typedef struct {
    const char *caption; // under all panels, at the left, with the colours' scale at the right; NULL: neither
    const AttentionMap *maps;
    int n_maps, rows, cols;
} Overlay;

// picture: grey or RGB, of any size; the patches cover it evenly. Panels in a row (8 to a row), their
// shorter side at least 224 pixels. -1 with one line in err.
int overlay_write(const char *path, const Picture *picture, const Overlay *o, char *err, size_t errlen);
