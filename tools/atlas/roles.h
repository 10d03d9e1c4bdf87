// roles: what the heads of a real model do, by the weights that they give: build/atlas --heads MODEL -p TEXT.
//
// Owns the pass over the text, the measures and their table. The text is read twice over, [BOS] T T, and the second
// reading is measured: there the same token and the one that followed it before are known places. Refuses models
// without softmax attention, and texts too long for the picture. Called by atlas.
#pragma once
#include <stdbool.h>

typedef struct {
    const char *model, *text;
    int n_threads;
    bool json;
    const char *svg; // path of the picture of every head; NULL: none
} Roles;

void roles_run(const Roles *r);
