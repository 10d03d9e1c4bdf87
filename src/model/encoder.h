// encoder: a stack of bidirectional layers over embedded tokens (BART's encoder, ViT).
//
// Owns the layers' tensors and the forward pass of several sequences at once: they lie behind one another in x, share
// every matrix product, and attend only to themselves. Refuses a model whose tensors do not fit its SublayerConfig.
#pragma once
#include "sublayers.h"

typedef struct {
    AttnSublayer attn;
    FfnSublayer ffn;
} EncoderLayer;

typedef struct {
    SublayerConfig config;
    int n_layers;
    EncoderLayer *layers;
    Norm norm; // after the last layer; weight NULL: none
} Encoder;

typedef struct {
    const char *layer; // of layer %d, "model.encoder.layers.%d."
    AttnNames attn;
    FfnNames ffn;
    const char *norm; // after the last layer; NULL: none
} EncoderNames;

// The weights must outlive the encoder. -1 with a line in err.
int encoder_bind(Encoder *e, Weights *w, const char *prefix, const EncoderNames *names, bool qkv_bias, char *err,
                 size_t errlen);
void encoder_free(Encoder *e);

typedef struct {
    Workspace work;
    KvCache *kv; // of one sequence of one layer, at hand
} EncoderState;

int encoder_state_open(EncoderState *s, const Encoder *e, int n_threads, char *err, size_t errlen);
// Room for n tokens in all, `longest` of them in one sequence. -1 with a line in err.
int encoder_state_reserve(EncoderState *s, const Encoder *e, int n, int longest, char *err, size_t errlen);
void encoder_state_close(EncoderState *s);

// Called after each attention, for pictures: what was computed, while its keys are still there.
typedef void (*AttentionVisitor)(void *context, int layer, int sequence, const Attention *a);

// x[sum of lengths][dim], embedded, becomes the encoder's output. The state must have room.
void encoder_forward(const Encoder *e, EncoderState *s, float *x, const int *lengths, int n_sequences,
                     AttentionVisitor visit, void *context);
