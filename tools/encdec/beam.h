// beam: greedy and beam search over an encoded batch.
//
// Owns the hypotheses and the rules for extending, finishing and ranking them: those of Hugging Face's generate with
// length_penalty 1 and early_stopping false. The KV cache is never reordered: the ancestors of a hypothesis are a row
// of bits over the slots of its input's cache. Refuses nothing; fails when memory runs out. Called by pronounce.
#pragma once
#include "seq2seq.h"

typedef struct {
    int32_t *ids; // [n] generated tokens, the end token left out; owned
    int n;
    bool ended;       // by the end token, not by the limit
    double score;     // mean log-probability of a token, the end token counted
    double closeness; // with greedy search: the smallest distance between the two best logits of a step
} Decoded;

enum { MAX_BEAMS = 64 };

// The best output of at most max_new tokens for each input of the last seq2seq_encode, to out[n_inputs]. n_beams 1 is
// greedy. -1 with a line in err, then nothing is to be freed.
int beam_decode(const Seq2seq *m, Seq2seqState *s, int n_beams, int max_new, Decoded *out, char *err, size_t errlen);
void decoded_free(Decoded *d);
