// pronounce: many words over threads.
//
// Owns the cut into batches: words of like length together, each batch decoded by one thread alone. Batches do not
// depend on the number of threads, so neither do the results.
#pragma once
#include "beam.h"
#include "words.h"

typedef struct {
    const Seq2seq *model;
    ThreadPool *pool;
    Seq2seqState *states; // [threads]
    int n_beams, max_new;
    int batch; // words decoded together, 1 to MAX_BATCH; may be changed after opening
} Pronouncer;

enum { MAX_BATCH = 256 };

int pronouncer_open(Pronouncer *p, const Seq2seq *m, int n_threads, int n_beams, int max_new, char *err, size_t errlen);
void pronouncer_close(Pronouncer *p); // accepts a zeroed one

// out[i] belongs to words[i]; a word with more letters than the model reads, or without a known one, gets none (ids
// NULL). -1 with a line in err, and then nothing to free.
int pronounce(Pronouncer *p, const Word *words, int n, Decoded *out, char *err, size_t errlen);
bool pronounceable(const Seq2seq *m, const Word *w);
// The symbols of an output as text, special tokens left out; free() it. NULL: out of memory.
char *pronunciation(const Seq2seq *m, const Decoded *d);
