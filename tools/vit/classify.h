// classify: pictures to logits over threads.
//
// Owns the split: a single picture is computed by all threads together, a batch in groups of a few pictures, each by
// one thread alone, small enough that its activations stay in that core's cache. Groups do not depend on the number of
// threads, so neither do the results.
#pragma once
#include "vit_model.h"

typedef struct {
    const Vit *model;
    ThreadPool *pool;
    VitState *states; // [threads], of one thread each
    VitState whole;   // of all threads
} Classifier;

int classifier_open(Classifier *c, const Vit *v, int n_threads, char *err, size_t errlen);
void classifier_close(Classifier *c); // accepts a zeroed one

// pixels[n][channels][size][size], normalised, to logits[n][n_labels]. -1 with a line in err when memory runs out.
int classify(Classifier *c, const float *pixels, int n, float *logits, char *err, size_t errlen);
// Logits to probabilities, in place.
void probabilities(float *logits, int n_labels);
// The first of the largest.
int best_label(const float *logits, int n_labels);
