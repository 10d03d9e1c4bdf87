// vit_model: vision transformers for image classification (ViT, arXiv:2010.11929; DeiT, arXiv:2012.12877).
//
// Owns the model's settings and tensors, as Hugging Face's ViTForImageClassification and DeiTForImageClassification
// name them, and the forward pass of a batch: patches as one matrix product, special tokens, learned positions, the
// encoder, pooling, head. Refuses a folder whose config.json and tensors do not match. Called by classify and vit.
#pragma once
#include "encoder.h"
#include "load.h"

enum { MAX_SPECIAL = 2 };

typedef struct {
    Weights weights;
    int image_size, patch_size, n_channels; // pixels
    int side, n_patches, n_special;         // patches along a side, in all; special tokens before them
    int n_tokens, n_labels;
    bool mean_pooling; // of the patches, as in BEiT (arXiv:2106.08254); else the class token
    char **labels;     // [n_labels], owned

    Dense patch;                       // [dim][channels * patch * patch]
    const float *special[MAX_SPECIAL]; // class token, distillation token: [dim]
    const float *positions;            // [n_tokens][dim]
    Encoder encoder;
    Norm norm;
    Dense heads[MAX_SPECIAL]; // [n_labels][dim]; head i reads special token i, the logits are their mean
    int n_heads;
} Vit;

// -1 with a line in err.
int vit_open(Vit *v, const char *path, char *err, size_t errlen);
void vit_close(Vit *v);
int vit_pixels(const Vit *v); // floats of one picture: channels x size x size

typedef struct {
    Compute compute;
    Workspace work;
    EncoderState encoder;
    float *memory;
    int room;                         // capacity, pictures
    float *patches, *embedded, *pool; // [room * n_patches][..] x 2, [room][dim]
    float *logits;                    // [room][n_labels], of the second head
} VitState;

int vit_state_open(VitState *s, const Vit *v, int n_threads, char *err, size_t errlen);
void vit_state_close(VitState *s); // accepts a zeroed one

typedef struct {
    const float *pixels;    // [n][channels][size][size], normalised
    int n;                  // at most MAX_SEGMENTS
    float *logits;          // [n][n_labels], the output
    AttentionVisitor visit; // called with the attention of each layer and picture; NULL: not called
    void *context;          // of visit
} VitBatch;

// -1 with a line in err when memory runs out.
int vit_forward(const Vit *v, VitState *s, const VitBatch *batch, char *err, size_t errlen);
