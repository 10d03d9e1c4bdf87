// attention: the one tiled loop (online softmax, FlashAttention: arXiv:2205.14135, arXiv:2307.08691).
//
// Owns tiling, the mask and the split of work over threads; knows masks, not instruction sets. Serves prefill, decode,
// cross and bidirectional attention from the same cache layout. Query heads of one KV head share each K/V tile that is
// read. With few queries the span of keys is split too and the parts are merged exactly by (m, l) (FlashDecoding); how
// is decided by the shape alone, so that results are bit-equal for any number of threads. Never an n x n buffer: beyond
// Q, K, V and the output, memory is O(threads x tile).
#pragma once
#include "kvcache.h"
#include "threads.h"

// A mask is data. Query t stands at position p = pos0 + t. Key j is visible when
//   j < hi  and  (j >= lo  or  j < n_sinks)  and  (no bitmap, or the bit of its block is set)
// with hi = p + 1 if causal, else n_keys;  lo = p - window + 1 if window > 0, else 0.
// A query with nothing visible gets zeros.
typedef struct {
    bool causal;
    int window;
    int n_sinks;
    const float *sink_logits; // [n_heads] learned sinks: a score that takes probability and has no value; NULL: none
    // Blocks of `block` x `block`: bitmap[(t / block) * bitmap_stride + j / block] != 0 is visible; NULL: all are.
    // (strided, Longformer, BigBird)
    const uint8_t *bitmap;
    int block, bitmap_stride;
} AttnMask;

typedef struct {
    const float *q; // [n_q][n_heads][head_dim]
    float *out;     // the same shape; may not overlap q
    int n_q, n_heads;
    int pos0;      // position of q[0]
    int n_keys;    // keys 0..n_keys-1 of the view are stored
    float scale;   // usually 1 / sqrt(head_dim)
    float softcap; // scores become cap tanh(score / cap) (arXiv:2408.00118); 0: off
    KvView kv;
    AttnMask mask;
} Attention;

// Scratch memory for every worker of a pool, for shapes up to these. NULL with a line in err.
typedef struct AttnScratch AttnScratch;
AttnScratch *attention_scratch(int n_threads, int n_heads, int n_kv_heads, int head_dim, char *err, size_t errlen);
void attention_scratch_free(AttnScratch *s); // accepts NULL
uint64_t attention_scratch_bytes(const AttnScratch *s);

void attention(ThreadPool *pool, AttnScratch *scratch, const Attention *a);

// The probabilities that attention() gives each key, for pictures: weights[n_q][n_heads][n_keys]. They come out of the
// same loop, run with unit vectors as values, head_dim keys at a time. -1 with a line in err when memory runs out.
int attention_weights(ThreadPool *pool, AttnScratch *scratch, const Attention *a, float *weights, char *err,
                      size_t errlen);
