// score: how far a model's output is from a pronouncing dictionary.
//
// Owns the dictionary's format (CMUdict's: "word P1 P2 ...", "word(2) ..." for further pronunciations, "# comment"
// behind them or on a line, ";;;" before a comment line) and the two rates of the literature: words that equal none of
// their references, and edit distance to the nearest reference over that reference's length. Each with the stress
// digits of vowels and without them, which is what is published.
#pragma once
#include "pronounce.h"

typedef struct {
    Word *words;        // stb_ds, distinct, in the file's order
    int32_t ***answers; // stb_ds: of each word, stb_ds arrays of phoneme ids (-1: not a phoneme of the model)
    int32_t *plain;     // [vocab_size] the phoneme that stands for all its stresses
} Dictionary;

// -1 with a line in err ("path: line N: ...").
int dictionary_read(Dictionary *d, const Seq2seq *m, const char *path, char *err, size_t errlen);
void dictionary_free(Dictionary *d);

typedef struct {
    int n_words, wrong_words;
    long n_phonemes, edits;
} Rates;

// out[i]: of words[i]. stress: digits count.
Rates dictionary_score(const Dictionary *d, const Decoded *out, bool stress);
