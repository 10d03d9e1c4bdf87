// decoder: the decoder-only forward pass (Llama family).
//
// Owns the names that a model's tensors must have, their shapes, and the order of computation. Refuses a model whose
// tensors do not fit its Config.
#pragma once
#include "attention.h"
#include "load.h"
#include "ops.h"

typedef struct {
    const Tensor *attn_norm, *wq, *wk, *wv,
        *wo; // [dim], [n_heads * head_dim][dim], [kv_dim][dim] x 2, [dim][n_heads * head_dim]
    const Tensor *ffn_norm, *gate, *up, *down; // [dim], [hidden_dim][dim] x 2, [dim][hidden_dim]
} Layer;

typedef struct {
    Config config;
    const Tensor *embedding, *output_norm, *output; // [vocab][dim], [dim], [vocab][dim]
    Layer *layers;
} Decoder;

// Resolve every tensor of the model, which must outlive the decoder. -1 with a line in err.
int decoder_bind(Decoder *d, const Model *m, char *err, size_t errlen);
void decoder_free(Decoder *d);
uint64_t decoder_token_bytes(const Decoder *d); // weight bytes read to decode one token

// Buffers of one session for a block of tokens. They grow to the largest block that was asked for.
typedef struct {
    Compute compute;
    AttnScratch *scratch;
    float *memory;
    int room;                                             // tokens
    float *x, *norm, *q, *k, *v, *att, *gate, *up, *rope; // [room][..]
    float *logits;                                        // [LOGITS_BLOCK][vocab]
} DecoderState;

enum { PREFILL_BLOCK = 512, LOGITS_BLOCK = 16 };

int decoder_state_open(DecoderState *s, const Decoder *d, int n_threads, char *err, size_t errlen);
int decoder_state_reserve(DecoderState *s, const Decoder *d, int n, char *err, size_t errlen); // n <= PREFILL_BLOCK
void decoder_state_close(DecoderState *s);

// Compute tokens[0..n) at the cache's end, for which cache and state must have room; the caller advances the cache.
// mask: causal, with the session's window and sinks. Afterwards s->logits[0..vocab) follow the last token; with a
// visitor every token's logits pass it first, in order.
void decoder_forward(const Decoder *d, DecoderState *s, KvCache *cache, AttnMask mask, const int32_t *tokens, int n,
                     LogitsVisitor visit, void *visit_context);
