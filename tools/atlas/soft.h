// soft: a KV cache and the engine's attention() over it, as the operators of the softmax family share them.
//
// Owns the cache and its mask. Refuses a second softmax attention: whatever weighs values by exp(q . k) goes through
// here. Called by the families' files.
#pragma once
#include "attention.h"
#include "mechanism.h"

typedef struct {
    KvCache *cache;   // the operator closes it
    ThreadPool *pool; // borrowed
    int n_heads, n_kv_heads, k_dim, v_dim;
    float scale;
    AttnMask mask;
} Soft;

// Heads, widths and stored type of the operator, scale 1 / sqrt(head_dim), no mask but the window and the sinks (both
// may be 0). -1 with a line in err.
int soft_open(Soft *s, Operator *op, int window, int n_sinks, char *err, size_t errlen);
// The same with its own widths and number of heads.
int soft_open_as(Soft *s, Operator *op, int n_heads, int n_kv_heads, int k_dim, int v_dim, int window, int n_sinks,
                 char *err, size_t errlen);

// Writes n keys [n][n_kv_heads][k_dim] and values [n][n_kv_heads][v_dim] behind those stored, ending the program when
// memory runs out; soft_advance makes them part of the text, after attention where a window frees old blocks.
void soft_store(Soft *s, int n, const float *k, const float *v);
void soft_advance(Soft *s, int n);
// n_q queries from position pos0 over keys 0..n_keys-1 with the mask.
Attention soft_problem(const Soft *s, const float *q, float *out, int n_q, int pos0, int n_keys);
// Runs them and adds their visible pairs to op->flops.
void soft_attend(Operator *op, const Attention *list, int n);
// A step of a mechanism whose queries, keys and values are those of its rows: store, attend, advance.
void soft_step(Operator *op, Soft *s, const float *q, const Rows *rows);
