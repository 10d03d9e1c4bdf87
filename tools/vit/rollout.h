// rollout: where a vision transformer looked, from the attention of its layers.
//
// Owns the two maps over the patches that are usually drawn: the last layer's attention, and attention rollout
// (arXiv:2005.00928): the product of all layers, half of each the residual connection, the mean over heads. Seen from
// the class token, or from the patches' mean where the model pools them.
#pragma once
#include "vit_model.h"

typedef struct {
    const Vit *model;
    VitState *state;
    float *product; // [n_tokens][n_tokens], of the layers so far
    float *mean;    // likewise, of the layer at hand
    float *scratch; // likewise
    float *weights; // [n_tokens][n_heads][n_tokens]
    char *err;
    size_t errlen;
    bool failed; // memory ran out; err says so
} Rollout;

int rollout_open(Rollout *r, const Vit *v, VitState *s, char *err, size_t errlen);
void rollout_close(Rollout *r);
// For vit_forward of one picture, with the Rollout as context.
void rollout_visit(void *rollout, int layer, int picture, const Attention *a);
// Afterwards: maps over the patches [side][side], each from 0 to 1.
void rollout_maps(const Rollout *r, float *rolled, float *last);
