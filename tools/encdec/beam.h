// beam: greedy and beam search over an encoded batch.
//
// Owns the hypotheses and the rules by which they grow, end and are ranked: those of Hugging Face's generate with
// length_penalty 1 and early_stopping false. Nothing is copied when hypotheses change places: what each descends from
// is a row of bits over the slots that its input's cache holds.
#pragma once
#include "seq2seq.h"

typedef struct {
    int32_t *ids; // [n] generated tokens, the end token left out; owned
    int n;
    bool ended;       // by the end token, not by the limit
    double score;     // mean log-probability of a token, the end token counted
    double closeness; // greedy: the smallest distance between the two best logits of a step
} Decoded;

enum { MAX_BEAMS = 64 };

// For each input of the encode before, the best output of at most max_new tokens into out[n_inputs]. n_beams 1 is
// greedy. -1 with a line in err, and then nothing to free.
int beam_decode(const Seq2seq *m, Seq2seqState *s, int n_beams, int max_new, Decoded *out, char *err, size_t errlen);
void decoded_free(Decoded *d);
