// pronounce: decodes many words on several threads. Called by encdec.
//
// Owns the split into batches: words of similar length together, each batch decoded by one thread. Batches do not
// depend on the number of threads, so neither do the results. Refuses words that the model cannot read, see
// pronounceable().
#pragma once
#include "beam.h"
#include "words.h"

typedef struct {
    const G2p *model;
    ThreadPool *pool;
    Seq2seqState *states; // [threads]
    int n_beams, max_new;
    int batch; // words decoded together, 1 to MAX_BATCH; may be set after opening
} Pronouncer;

enum { MAX_BATCH = 256 };

int pronouncer_open(Pronouncer *p, const G2p *m, int n_threads, int n_beams, int max_new, char *err, size_t errlen);
void pronouncer_close(Pronouncer *p); // accepts a zeroed one

// out[i] is the output for words[i]; ids are NULL for a word that is not pronounceable: too long for the model, or
// without a known letter. -1 with a line in err, then nothing is to be freed.
int pronounce(Pronouncer *p, const Word *words, int n, Decoded *out, char *err, size_t errlen);
bool pronounceable(const G2p *m, const Word *w);
// The symbols of an output as text, special tokens left out; free() it. NULL: out of memory.
char *pronunciation(const G2p *m, const Decoded *d);
