// layers: the stack of layers that decoders, encoders and encoder-decoders are made of.
//
// Owns the layers' tensors, the order of operations in a layer (norm, mixer, residual; where the model has it norm,
// cross-attention, residual; norm, feed-forward, residual), and the buffers of a pass. What precedes and follows the
// stack is the caller's. Refuses a model whose tensors do not fit its Config.
#pragma once
#include "channel_mix.h"
#include "experts.h"
#include "mix_attention.h"

// Where a sublayer is normed: its input, its output, or the residual stream after the sum (arXiv:2002.04745).
typedef struct {
    Norm input, output, residual; // [dim]; weight NULL: not there
} SublayerNorms;

typedef struct {
    SublayerNorms mixer_norms, cross_norms, ffn_norms;
    void *mixer;            // weights of the kind's mixer
    AttentionWeights cross; // where the config has cross-attention
    FeedForward ffn;        // of kinds with FFN_DENSE
    Experts experts;        // of kinds with FFN_EXPERTS
    ChannelMix channel_mix; // of kinds with FFN_CHANNEL_MIX
} Layer;

typedef struct {
    Config config;
    Layer *layers;      // [n_layers]
    void **allocations; // stb_ds: they hold the layers' weight structs
} LayerStack;

// Bind every layer; the binder's config is copied. The tensors must outlive the stack. -1 with the binder failed.
int layers_bind(LayerStack *s, Binder *b);
void layers_free(LayerStack *s);                  // accepts a zeroed one
uint64_t layers_token_bytes(const LayerStack *s); // weight bytes read to decode one token, without cross-attention

// Buffers for a block of rows, grown to the largest block that was reserved.
typedef struct {
    Compute *compute; // not owned
    float *memory;
    int room;                       // rows
    float *x;                       // [room][dim] the residual stream
    float *norm, *ffn_norm, *out;   // [room][dim]; ffn_norm: of parallel sublayers
    float *mixer, *carried;         // scratch of the mixers, and what they leave to later layers
    float *channel_mix;             // [room][CHANNEL_MIX_ROWS][dim]
    float *tables[MAX_LAYER_KINDS]; // [room][rotary_dim]; NULL where a kind has no table of its own
    ExpertBuffers ffn;              // of feed-forward networks, with or without experts
    int32_t *positions;             // [room]
} Workspace;

// Room for n rows; it only grows. -1 with a line in err when memory runs out.
int workspace_reserve(Workspace *w, const Config *c, int n, char *err, size_t errlen);
void workspace_close(Workspace *w); // accepts a zeroed one

// The rows of the stream at w->x, at most `room`, are the segments' rows in order; w->positions holds each row's
// position.
typedef struct {
    const Segment *segments;
    int n_segments;
    AttentionVisitor visit;       // of the mixers' attention; NULL: nobody
    AttentionVisitor visit_cross; // of cross-attention
    void *visit_context;
} LayerPass;

void layers_forward(const LayerStack *s, Workspace *w, const LayerPass *pass);
// Store the keys and values of x[n][dim], an encoder's output, into each segment's memory, which later passes name as
// `cross`. The caller advances the memories.
void layers_store_cross(const LayerStack *s, Workspace *w, const LayerPass *pass, const float *x);
