// decoder: the decoder-only forward pass, of every family that Config can say: embed, the layers, logits.
//
// Owns the embedding and the output around the stack of layers (layers.h), and the complete list of a decoder's
// tensors.
#pragma once
#include "embedding.h"
#include "layers.h"

typedef struct {
    LayerStack stack; // its config is the decoder's
    Embedding embedding;
    const Tensor *output;     // [vocab][dim]
    const float *output_bias; // [vocab]; NULL: none
    Norm output_norm;
    RopeFactors rope_factors;
    uint64_t token_bytes; // weight bytes read to decode one token
} Decoder;

// Resolve every tensor of the model, which must outlive the decoder: each by name, shape and type. -1 with a line in
// err, also for a tensor that nothing here would use.
int decoder_bind(Decoder *d, Model *m, char *err, size_t errlen);
void decoder_free(Decoder *d); // accepts a zeroed one
const Config *decoder_config(const Decoder *d);

// Most rows of a pass, and rows whose logits are computed at a time.
enum { PREFILL_BLOCK = 512, LOGITS_BLOCK = 32 };

// Called for every computed position, in order, with the logits that follow it.
typedef void (*LogitsCallback)(void *context, int position, const float *logits);

// Called for every computed position, in order, with the stream behind the output norm, [dim].
typedef void (*StateCallback)(void *context, int position, const float *state);

// New tokens of one timeline.
typedef struct {
    Memory *memory; // has room for them; the caller advances it after the pass
    const int32_t *tokens;
    int n;
    float *logits;           // [vocab], those that follow the last token; NULL: not wanted
    LogitsCallback callback; // gets every token's, too; NULL: nobody
    void *callback_context;
    StateCallback states; // NULL: nobody
    void *states_context;
} DecoderSegment;

// One pass over at most MAX_SEGMENTS segments of different timelines, for whose rows in all the workspace has room.
// logits: room for [LOGITS_BLOCK][vocab], used where a segment has a callback or several want logits.
void decoder_forward(const Decoder *d, Workspace *w, const DecoderSegment *segments, int n_segments, float *logits);
