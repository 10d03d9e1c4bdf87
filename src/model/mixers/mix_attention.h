// mix_attention: softmax attention as a mixer, and the cross-attention sublayer of encoder-decoders.
//
// Owns the projections, norms of queries and keys, their rotation and storing them in the cache. The loop itself is
// compute/attention.c. Sources: arXiv:1706.03762 section 3.2, arXiv:2305.13245 (grouped queries).
#pragma once
#include "mixer.h"

typedef struct {
    Dense q, k, v, out;  // [n_heads * k_dim][dim], [n_kv_heads * ..][dim] x 2, [dim][n_heads * v_dim]
    Dense qkv;           // in place of three: [n_kv_heads][its queries, k, v][k_dim][dim], side by side for each KV
                         // head; else absent
    Norm q_norm, k_norm; // [k_dim], [heads][k_dim] or the width of q and of k
    const float *sinks;  // [n_heads]; NULL: none
    const float *slopes; // [n_heads] of ALiBi; NULL: none
} AttentionWeights;

// Cross-attention: queries of the stream, keys and values of an encoder's output, which cross_store puts into each
// segment's memory (x[n][dim], all segments' rows); the caller advances it.
void cross_bind(Binder *b, AttentionWeights *w, const LayerKind *kind);
void cross_store(const AttentionWeights *w, const MixerCall *call);
void cross_forward(const AttentionWeights *w, const MixerCall *call);
