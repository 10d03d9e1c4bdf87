// papers: the Cora citation graph as Planetoid has it (arXiv:1603.08861): ind.cora.{allx,tx,ally,ty,graph,test.index}.
//
// Owns the order of the papers (those to train and to validate first, each test paper at its place in the index) and
// the graph: papers that cite or are cited, and each paper itself. Refuses files whose sizes do not fit each other.
// Called by cora and its check.
#pragma once
#include "graph.h"

typedef struct {
    int n, n_words, n_classes, n_test;
    float *words; // [n][n_words], of a paper with words 1 / their number each
    int *labels;  // [n]
    int *test;    // [n_test] places
    Graph graph;
} Papers;

// -1 with a line in err.
int papers_open(Papers *p, const char *folder, char *err, size_t errlen);
void papers_close(Papers *p); // accepts a zeroed one
