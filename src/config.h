// config: what a model is, in numbers. The differences between families are fields here.
//
// Owns the range checks that every loader's Config must pass before a tensor is looked up or a product is formed.
#pragma once
#include <stdbool.h>
#include <stddef.h>

// Which two dimensions of a head rotate together (RoPE, arXiv:2104.09864).
typedef enum {
    ROPE_NEIGHBOUR, // (2i, 2i + 1): llama2.c, Llama-arch GGUF
    ROPE_SPLIT,     // (i, i + head_dim / 2): Hugging Face
} RopePairing;

typedef struct {
    int dim;        // width of the residual stream
    int hidden_dim; // width of the feed-forward layer
    int n_layers;
    int n_heads;    // query heads
    int n_kv_heads; // key/value heads; divides n_heads
    int head_dim;   // even; not tied to dim / n_heads
    int vocab_size;
    int max_seq_len; // positions the model was trained for
    int window;      // a query sees the last `window` positions, itself included; 0: all
    int n_sinks;     // with a window, the first positions that stay visible
    float norm_eps;  // RMSNorm
    float rope_theta;
    RopePairing rope_pairing;
    bool tied; // the classifier is the embedding table
} Config;

// 0, or -1 with "path: field: expected ..., found ..." in err.
int config_check(const Config *c, const char *path, char *err, size_t errlen);
