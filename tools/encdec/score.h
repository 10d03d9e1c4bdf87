// score: word and phoneme error rates against a pronouncing dictionary. Called by encdec.
//
// Owns the dictionary's format (CMUdict: "word P1 P2 ...", "word(2) ..." for alternative pronunciations, "# comment" at
// the end of a line or alone, ";;;" before a comment line) and the rates: the share of words that match none of their
// references, and the edit distance to the nearest reference divided by its length; with the stress digits of vowels
// and without them, as usually published. Refuses a dictionary with malformed lines or without words.
#pragma once
#include "pronounce.h"

typedef struct {
    Word *words;        // stb_ds, distinct, in the file's order
    int32_t ***answers; // stb_ds: of each word, stb_ds arrays of phoneme ids (-1: not a phoneme of the model)
    int32_t *plain;     // [vocab_size] the phoneme that stands for all its stresses
} Dictionary;

// -1 with a line in err ("path: line N: ...").
int dictionary_read(Dictionary *d, const G2p *m, const char *path, char *err, size_t errlen);
void dictionary_free(Dictionary *d);

typedef struct {
    int n_words, wrong_words;
    long n_phonemes, edits;
} Rates;

// out[i]: of words[i]. stress: digits count.
Rates dictionary_score(const Dictionary *d, const Decoded *out, bool stress);
