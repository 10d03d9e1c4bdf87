// embedding: tokens to rows of the residual stream.
#pragma once
#include "ops.h"

typedef struct {
    const Tensor *table;    // [vocab][dim]
    float scale;            // of its rows; 0: 1
    const float *positions; // [positions][dim], added; NULL: none
    Norm norm;              // then; weight NULL: none
    float norm_eps;
} Embedding;

// x[n][dim]. positions: of each row, where they are learned.
void embed(const Compute *c, const Embedding *e, float *x, const int32_t *tokens, const int32_t *positions, int n);
