// seq2seq: an encoder-decoder transformer of the BART family (arXiv:1910.13461; pre-norm as in mBART,
// arXiv:2001.08210).
//
// Owns the model's tensors and the two forward passes: encode, once for several inputs, and step, one more token for
// every hypothesis of every input. Cross-attention's keys and values are computed by encode and read by every step and
// every hypothesis of that input. Refuses tensors that do not fit the configs.
#pragma once
#include "embedding.h"
#include "encoder.h"

typedef struct {
    int vocab_size, max_tokens; // of one input or output, special tokens included
    int bos_id, eos_id, pad_id, unk_id, start_id;
    Embedding encoder_embedding, decoder_embedding;
    Encoder encoder;
    LayerStack decoder; // with cross-attention
    Norm decoder_norm;  // after the last layer; weight NULL: none
    Dense output;       // [vocab_size][dim], often the embedding table
} Seq2seq;

// The token ids are the caller's to set before. Tensors are named as Hugging Face's BartForConditionalGeneration names
// them; the weights must outlive the model. -1 with a line in err.
int seq2seq_bind(Seq2seq *m, const Config *encoder, const Config *decoder, Weights *w, char *err, size_t errlen);
void seq2seq_free(Seq2seq *m); // accepts a zeroed one

// The inputs of one encode and the hypotheses that grow from them.
typedef struct {
    Compute compute;
    Workspace encoder_work, work;
    EncoderState encoder;
    Memory self[MAX_SEGMENTS], cross[MAX_SEGMENTS]; // of each input; kept from one encode to the next
    int n_self, n_cross;                            // that are open
    float *logits;                                  // [logits_room][vocab_size]
    int logits_room;
    int n_inputs; // of the last encode
} Seq2seqState;

int seq2seq_state_open(Seq2seqState *s, const Seq2seq *m, int n_threads, char *err, size_t errlen);
void seq2seq_state_close(Seq2seqState *s); // accepts a zeroed one

// tokens[sum of lengths]: inputs behind one another, each of 1 to max_tokens, at most MAX_SEGMENTS. -1 with a line in
// err.
int seq2seq_encode(const Seq2seq *m, Seq2seqState *s, const int32_t *tokens, const int *lengths, int n_inputs,
                   char *err, size_t errlen);

// Hypotheses of one input in a step. What a step stores stays; a hypothesis is the set of slots it descends from, its
// own included, so that a beam moves no keys and values. The i-th row of the s-th step after encode lies in slot (rows
// of the steps before) + i.
typedef struct {
    int input, n_rows;
    const uint8_t *visible; // [n_rows][stride]: visible[i][slot] != 0; NULL: all, for a single hypothesis
    int stride;
} StepGroup;

// One token for each row of each group, in order, all at the same position.
typedef struct {
    const int32_t *tokens;
    int position; // 0: the first
    const StepGroup *groups;
    int n_groups;
    AttentionVisitor visit; // sees the cross-attention of each group; NULL: nobody
    void *visit_context;
} Step;

// Returns logits[rows][vocab_size], valid until the next call, or NULL with a line in err.
const float *seq2seq_step(const Seq2seq *m, Seq2seqState *s, const Step *step, char *err, size_t errlen);
