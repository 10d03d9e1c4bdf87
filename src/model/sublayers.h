// sublayers: what encoders and encoder-decoders are made of: attention and feed-forward, each with its norm and its
// residual connection (arXiv:1706.03762, section 3.1).
//
// Owns their tensors, the order of norm and residual, and the buffers they work in. Who attends to what is the
// caller's: between sublayer_input and sublayer_output it stores keys and values and calls the one attention loop.
#pragma once
#include "attention.h"
#include "ops.h"
#include "settings.h"

typedef struct {
    int dim, hidden_dim, n_heads; // n_heads divides dim
    float norm_eps;
    bool pre_norm; // x + f(norm(x)), arXiv:2002.04745; else norm(x + f(x)), as in the first paper
    Activation activation;
} SublayerConfig;

typedef struct {
    Dense q, k, v, out; // [dim][dim]
    Norm norm;
} AttnSublayer;

typedef struct {
    Dense up, down; // [hidden_dim][dim], [dim][hidden_dim]
    Norm norm;
} FfnSublayer;

// What the tensors are called behind the prefix of their layer, without ".weight" and ".bias".
typedef struct {
    const char *q, *k, *v, *out, *norm;
} AttnNames;
typedef struct {
    const char *up, *down, *norm;
} FfnNames;

// 0, or -1 with "path: key: expected ..., found ..." in err.
int sublayer_check(const SublayerConfig *c, const char *path, char *err, size_t errlen);

// The activation that Hugging Face's name under this key stands for; absent: gelu.
Activation sublayer_activation(Settings *s, const char *key);

// Resolve PREFIX + name. -1 with a line in err.
int dense_bind(Dense *d, Weights *w, const char *prefix, const char *name, int rows, int cols, bool bias, char *err,
               size_t errlen);
int norm_bind(Norm *n, Weights *w, const char *prefix, const char *name, int dim, char *err, size_t errlen);
int attn_bind(AttnSublayer *a, Weights *w, const char *prefix, const AttnNames *names, const SublayerConfig *c,
              bool qkv_bias, char *err, size_t errlen);
int ffn_bind(FfnSublayer *f, Weights *w, const char *prefix, const FfnNames *names, const SublayerConfig *c, char *err,
             size_t errlen);

// Threads and buffers for blocks of tokens.
typedef struct {
    Compute compute;
    AttnScratch *scratch;
    float *memory;
    int room;                               // tokens
    float *norm, *q, *k, *v, *att, *hidden; // [room][dim], hidden: [room][hidden_dim]
} Workspace;

int workspace_open(Workspace *s, const SublayerConfig *c, int n_threads, char *err, size_t errlen);
int workspace_reserve(Workspace *s, const SublayerConfig *c, int n, char *err, size_t errlen);
void workspace_close(Workspace *s); // accepts a zeroed Workspace

// What the sublayer reads of x[n][dim]: norm(x) in s->norm, or x itself.
const float *sublayer_input(Workspace *s, const SublayerConfig *c, const Norm *norm, const float *x, int n);
// x += act[n][..] out^T + bias, then the norm where it comes last.
void sublayer_output(Workspace *s, const SublayerConfig *c, const Norm *norm, const Dense *out, const float *act,
                     float *x, int n);
// The whole feed-forward sublayer.
void ffn_forward(Workspace *s, const SublayerConfig *c, const FfnSublayer *f, float *x, int n);
void norm_forward(const Workspace *s, const Norm *norm, float *y, const float *x, int n, int dim, float eps);
// y[n][rows] = x d^T + bias, for up to three that share x.
void dense_forward(const Workspace *s, const Dense *const *list, float *const *y, int count, const float *x, int n);
// Queries s->q over a view of keys, into s->att; the scale is 1 / sqrt(head_dim). What was computed, for pictures.
Attention attn_forward(Workspace *s, const SublayerConfig *c, KvView kv, AttnMask mask, int t0, int n, int n_keys);
