// graph: attention and sums over lists of neighbours.
//
// Owns how a list of neighbours becomes a mask: an edge is a key of the cache, a node's edges are its span. Refuses an
// n x n object. Called by the rows of graph.c, by cora and by the checks.
#pragma once
#include "soft.h"

// Node i sees nodes to[start[i]] .. to[start[i + 1] - 1], itself among them where it should.
typedef struct {
    int n;
    int *start, *to;
} Graph;

// Each node with itself and up to 8 others, drawn from all around; graph_free frees it. Ends the program when memory
// runs out.
Graph graph_draw(int n, uint64_t seed);
void graph_free(Graph *g);

// What graph_attend needs, of n_heads heads with values of v_dim. Ends the program when memory runs out.
void graph_reserve(Soft *s, Operator *op, int n_heads, int v_dim);
// GAT's attention (arXiv:1710.10903, equations 1 to 4): from and at [n][n_heads], the halves a . W h of a score for the
// node that looks and for its neighbour; v and out [n][n_heads][v_dim]. Scores are LeakyReLU(from_i + at_j) with slope
// 0.2. A node without neighbours gets zeros.
void graph_attend(Operator *op, Soft *s, const Graph *g, const float *from, const float *at, const float *v,
                  float *out);
// GCN's (arXiv:1609.02907, equation 2): out_i = sum over neighbours of v_j / sqrt(deg_i deg_j); rows of `width`.
void graph_sum(Operator *op, const Graph *g, const float *v, int width, float *out);
