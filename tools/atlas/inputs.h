// inputs: the rows that operators are shown, measured and checked on.
//
// Owns their memory and how they are drawn: standard normal numbers, or words that come again, for pictures. Owns the
// comparison with exact attention. Refuses nothing but sizes that do not fit into memory. Called by show, the bench and
// the checks.
#pragma once
#include "attention.h"
#include "mechanism.h"

typedef struct {
    Shape shape;
    int n_q, n_keys;
    float *q, *k, *v, *gates, *out; // as in Rows
} Inputs;

// Standard normal numbers. Ends the program when memory runs out.
void inputs_open(Inputs *in, const Shape *shape, int n_q, int n_keys, uint64_t seed);
void inputs_close(Inputs *in); // accepts a zeroed one

// Keys of words out of a vocabulary of n_words, and queries that look for their own word.
void inputs_of_words(Inputs *in, int n_words, uint64_t seed);

// Rows first..first+n-1 as a step; queries and keys of the same positions.
Rows inputs_rows(const Inputs *in, int first, int n);
// All of it as one step: of TIME_CROSS as many queries and keys as there are.
Rows inputs_all(const Inputs *in);

// ||x - exact|| / ||exact||
double floats_error(const float *x, const float *exact, int64_t n);
// Softmax attention in fp32 over all keys, by a mask: out [n_q - first][n_heads][head_dim] of the queries from `first`
// on.
void inputs_attend(const Inputs *in, const AttnMask *mask, int first, float *out, Compute *c);
// The relative error of what a mechanism left in in->out, over the queries from `first` on, where exact is softmax
// attention over the same rows in fp32, causal for TIME_CAUSAL.
double inputs_error(const Inputs *in, TimeKind time, int first, Compute *c);
