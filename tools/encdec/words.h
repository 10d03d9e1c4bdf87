// words: text cut into words, and each word's ids.
//
// Owns what counts as a word: what stands between blanks, without the punctuation around it. Letters that the model
// does not know are tried in lower case (ASCII), then read as its unknown token and counted, so that the program can
// say so.
#pragma once
#include "seq2seq.h"

typedef struct {
    char *text;   // owned
    int32_t *ids; // [n_ids] as the encoder reads them: <s>, letters, </s>; owned
    int n_ids;
    int n_known, n_unknown; // letters
    char unknown[8];        // the first unknown one
} Word;

// Append the words of n bytes of text to *list (stb_ds). -1 with a line in err.
int words_split(Word **list, const Seq2seq *m, const char *text, size_t n, char *err, size_t errlen);
// One word as it stands, blanks and punctuation included.
int words_add(Word **list, const Seq2seq *m, const char *text, size_t n, char *err, size_t errlen);
void words_free(Word **list);
