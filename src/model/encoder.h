// encoder: a stack of bidirectional layers over embedded tokens (BART's encoder, ViT).
//
// Owns the forward pass of several sequences at once: they lie behind one another in w->x, share every matrix product,
// and attend only to themselves; their keys and values live for one layer. Refuses a model whose tensors do not fit its
// Config.
#pragma once
#include "layers.h"

typedef struct {
    LayerStack stack; // of a bidirectional config
    Norm norm;        // after the last layer; weight NULL: none
} Encoder;

// norm: part name of the norm after the last layer; NULL: none. Fails as the binder does.
void encoder_bind(Encoder *e, Binder *b, const char *norm);
void encoder_free(Encoder *e); // accepts a zeroed one

typedef struct {
    Memory memories[MAX_SEGMENTS]; // of each sequence; those that were needed are open
    int n_memories;
} EncoderState;

// Room for n_sequences <= MAX_SEGMENTS of these lengths. -1 with a line in err.
int encoder_reserve(const Encoder *e, EncoderState *s, Workspace *w, const int *lengths, int n_sequences, char *err,
                    size_t errlen);
void encoder_state_close(EncoderState *s); // accepts a zeroed one

// w->x[sum of lengths][dim], embedded, becomes the encoder's output. visit: sees each attention; NULL: nobody.
void encoder_forward(const Encoder *e, EncoderState *s, Workspace *w, const int *lengths, int n_sequences,
                     AttentionVisitor visit, void *context);
