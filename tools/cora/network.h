// network: the two small graph networks of models/cora, GAT (arXiv:1710.10903, section 3.3) and GCN (arXiv:1609.02907,
// equation 9), forward.
//
// Owns the names and shapes of their tensors: N.weight and N.bias of two layers, of GAT N.from and N.to, the halves of
// its vectors a. Refuses others. Called by cora and its check.
#pragma once
#include "papers.h"

#include "weights.h"

// Logits [n][n_classes] of all papers, and in *kind "GAT" or "GCN"; path: a safetensors file. -1 with a line in err.
int network_run(const char *path, const Papers *p, Compute *c, float *logits, const char **kind, char *err,
                size_t errlen);
// Of the test papers, the share whose largest logit is their class.
double network_accuracy(const Papers *p, const float *logits);
