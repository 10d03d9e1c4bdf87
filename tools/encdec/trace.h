// trace: the cross-attention of one word, for the alignment picture. Called by encdec.
//
// Owns the maps. Refuses nothing; fails when memory runs out.
#pragma once
#include "beam.h"
#include "words.h"

typedef struct {
    int n_maps, n_out, n_in; // a map for each head of each layer; n_out includes the end token, if there is one
    int n_heads;
    float *weights; // [n_maps][n_out][n_in], owned; each row sums to 1
} Trace;

// Run the model over the word and this output once more and keep the cross-attention. -1 with a line in err.
int trace_word(Trace *t, const Seq2seq *m, Seq2seqState *s, const Word *word, const Decoded *output, char *err,
               size_t errlen);
// The mean of all maps into mean[n_out][n_in].
void trace_mean(const Trace *t, float *mean);
void trace_free(Trace *t);
