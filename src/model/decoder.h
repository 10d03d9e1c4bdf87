// decoder: the decoder-only forward pass, of every family that Config can say.
//
// Owns the order of computation and the buffers of a block of tokens. Which tensors a model has is the binder's.
#pragma once
#include "attention.h"
#include "experts.h"
#include "load.h"
#include "rope.h"

typedef struct {
    Norm attn_norm, q_norm, k_norm, attn_post_norm; // [dim], [head_dim] or the width of q and of k, [dim]
    Dense q, k, v, out;           // [n_heads * head_dim][dim], [kv_dim][dim] x 2, [dim][n_heads * head_dim]
    Dense qkv;                    // in place of three: [n_heads][q, k, v][head_dim][dim], side by side for each head
    const float *sinks;           // [n_heads]
    Norm ffn_norm, ffn_post_norm; // [dim]
    Experts ffn;
} Layer;

typedef struct {
    Config config;
    const Tensor *embedding, *output; // [vocab][dim]
    const float *positions;           // [max_seq_len][dim] where they are learned
    Norm output_norm;
    const float *rope_factors, *rope_long, *rope_short; // [n_rot / 2]; NULL: none
    Layer *layers;                                      // [n_layers]
    FeedForward *experts;                               // [n_layers][n_experts]
    uint64_t token_bytes;                               // weight bytes read to decode one token
} Decoder;

// Resolve every tensor of the model (binder.c), which must outlive the decoder: each by name, shape and type. -1 with a
// line in err, also for a tensor that nothing here would use.
int decoder_bind(Decoder *d, Model *m, char *err, size_t errlen);
void decoder_free(Decoder *d);

// Buffers of one session for a block of tokens. They grow to the largest block that was asked for.
typedef struct {
    Compute compute;
    AttnScratch *scratch;
    Rope rope, local_rope;
    float *memory;
    int room;                                      // tokens
    float *x, *norm, *out, *qkv, *q, *k, *v, *att; // [room][..]; not all where a model has no use for them
    float *turns, *local_turns;                    // [room][n_rot] cos and sin
    ExpertBuffers ffn;
    float *logits; // [LOGITS_BLOCK][vocab]
} DecoderState;

enum { PREFILL_BLOCK = 512, LOGITS_BLOCK = 16 };

// n_ctx: the context limit that RoPE is scaled for.
int decoder_state_open(DecoderState *s, const Decoder *d, int n_ctx, int n_threads, char *err, size_t errlen);
int decoder_state_reserve(DecoderState *s, const Decoder *d, int n, char *err, size_t errlen); // n <= PREFILL_BLOCK
void decoder_state_close(DecoderState *s);

// A cache for a timeline of this decoder: each layer with its own window, narrowed to `window` where that is above 0;
// below 0: without windows. NULL with a line in err.
KvCache *decoder_cache_open(const Decoder *d, KvType type, int window, int n_sinks, char *err, size_t errlen);

// Compute tokens[0..n) at the cache's end, for which cache and state must have room; the caller advances the cache.
// Windows and sinks are the cache's. Afterwards s->logits[0..vocab) follow the last token; with a visitor every token's
// logits pass it first, in order.
void decoder_forward(const Decoder *d, DecoderState *s, KvCache *cache, const int32_t *tokens, int n,
                     LogitsVisitor visit, void *visit_context);
