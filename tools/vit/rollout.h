// rollout: attention maps of a vision transformer. Called by vit.
//
// Owns two maps over the patches: the last layer's attention, and attention rollout (arXiv:2005.00928): the product
// over all layers of (mean over heads + identity) / 2. The query is the class token, or the mean of the patches where
// the model pools them. Refuses nothing; fails when memory runs out.
#pragma once
#include "vit_model.h"

typedef struct {
    const Vit *model;
    VitState *state;
    float *product; // [n_tokens][n_tokens], of the layers so far
    float *mean;    // likewise, of the current layer
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
