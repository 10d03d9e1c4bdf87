// attention: the one tiled loop (online softmax, FlashAttention: arXiv:2205.14135, arXiv:2307.08691).
//
// Owns tiling, the mask and the split of work over threads; knows no instruction set. Serves prefill, decode, cross and
// bidirectional attention from the same cache layout. Query heads of one KV head share each K/V tile that is read. With
// few queries the keys are split too, and the partial results merged by (m, l) (FlashDecoding); the split depends on
// the shape alone, so that results are bit-identical for any number of threads. Refuses an n x n buffer: beyond Q, K, V
// and the output, memory is O(threads x tile). Called by the attention mixers, the encoder and bench.
#pragma once
#include "compute.h"
#include "kvcache.h"

// Blocks of `size` positions that a block of queries sees, whatever its place in a pass: block b of queries sees block
// c of keys where c < n_global, b - c < window, or c is one of n_random that a hash of seed and b draws from those
// before b (after BigBird, arXiv:2007.14062, section 2, which has no causal form).
enum { MAX_RANDOM_BLOCKS = 16 };
typedef struct {
    int size; // 0: no pattern
    int window, n_global, n_random;
    int seed; // the layer, so that layers draw other blocks
} BlockPattern;

// A mask is data. Query t has position p = pos0 + t. Key j is visible when
//   j < hi  and  (j >= lo  or  j < n_sinks)  and  (no bitmap and no pattern, or they show its block)
// with hi = p + 1 if causal, p + ahead + 1 if ahead > 0, at most n_keys, else n_keys;  lo = the largest
// of p - window + 1 if window > 0, p - p mod chunk if chunk > 0, and 0. A query that sees no key gets zeros.
typedef struct {
    bool causal;
    int window;
    int chunk; // positions are cut into chunks of so many, and a query sees nothing before its own (Llama 4); 0: not
    int ahead; // keys behind its own that a query sees; 0: all, unless causal
    int n_sinks;
    const float *sink_logits; // [n_heads] learned sinks: a score with probability but no value; NULL: none
    // Block-sparse masks (strided, Longformer, BigBird): bitmap[(t / block) * bitmap_stride + j / block] != 0 is
    // visible; NULL: all blocks are, and block and bitmap_stride are unused.
    const uint8_t *bitmap;
    int block, bitmap_stride;
    BlockPattern pattern; // in place of a bitmap
} AttnMask;

typedef struct {
    const float *q; // [n_q][n_heads][k_dim]
    float *out;     // [n_q][n_heads][v_dim]; may not overlap q
    int n_q, n_heads;
    int pos0;            // position of q[0]
    int n_keys;          // keys 0..n_keys-1 of the view are stored
    float scale;         // usually 1 / sqrt(k_dim)
    float softcap;       // scores become cap tanh(score / cap) (arXiv:2408.00118); 0: off
    const float *slopes; // [n_heads] ALiBi: key j adds slope (j - p) to the score (arXiv:2108.12409); NULL: none
    KvView kv;
    AttnMask mask;
} Attention;

// Reserves the scratch memory that heads of this shape need. -1 with a line in err when memory runs out.
int attention_reserve(Compute *c, int n_heads, int n_kv_heads, int k_dim, int v_dim, char *err, size_t errlen);

// Computes n problems as one parallel region; scratch memory for their heads must be reserved. The results of a problem
// do not depend on the others in the list.
void attention(const Compute *c, const Attention *list, int n);

// How many (query, key) pairs of a head the mask leaves visible.
double attention_pairs(const Attention *a);
// How many are computed: those of whole groups of keys that some query of a block sees. The time follows these.
double attention_computed(const Compute *c, const Attention *a);

// The probability of each key, for pictures: weights[n_q][n_heads][n_keys]. Computed by the same loop with unit vectors
// as values, v_dim keys at a time. -1 with a line in err when memory runs out.
int attention_weights(const Compute *c, const Attention *a, float *weights, char *err, size_t errlen);
