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
    int n_heads;
    float scale;
    AttnMask mask;
} Soft;

// Heads, widths and stored type of the operator, scale 1 / sqrt(head_dim), no mask but the window and the sinks (both
// may be 0). Ends the program when memory runs out.
void soft_open(Soft *s, Operator *op, int window, int n_sinks);
// The same with a cache of another shape.
void soft_open_as(Soft *s, Operator *op, int n_heads, const KvShape *shape);

// Writes n keys [n][n_kv_heads][k_dim] and values [n][n_kv_heads][v_dim] behind those stored, ending the program when
// memory runs out; kvcache_advance makes them part of the text, after attention where a window frees old blocks.
void soft_store(Soft *s, int n, const float *k, const float *v);
// n_q queries from position pos0 over keys 0..n_keys-1 with the mask.
Attention soft_problem(const Soft *s, const float *q, float *out, int n_q, int pos0, int n_keys);
// Runs them and adds their visible pairs to op->flops.
void soft_attend(Operator *op, const Attention *list, int n);
// A step behind what the cache holds: store, attend, advance. rows->q is not read.
void soft_step(Operator *op, Soft *s, const float *q, const Rows *rows);

// Rows of a mechanism's table that are attention() and nothing else: op->own is, or begins with, a Soft.
void soft_plain_open(Operator *op);
void soft_plain_step(Operator *op, const Rows *rows);
