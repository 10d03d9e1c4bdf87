// classify: runs a vision transformer on pictures with several threads. Called by vit.
//
// Owns the split: a single picture is computed by all threads together; a batch in groups of a few pictures, each by
// one thread, small enough that its activations stay in the core's cache. Groups do not depend on the number of
// threads, so neither do the results. Refuses nothing; fails when memory runs out.
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
// The index of the first largest logit.
int best_label(const float *logits, int n_labels);
