// words: splits text into words, and encodes each. Called by encdec and score.
//
// Owns the definition of a word: the text between blanks, without the punctuation around it. Refuses nothing: unknown
// letters are tried in lower case (ASCII), then without their accents and taken apart (utf8proc), then read as the
// unknown token and counted for a note to the user. Numbers in digits that the model does not know become words where
// it speaks English (numbers); elsewhere they are not pronounced.
#pragma once
#include "g2p.h"

typedef struct {
    char *text;   // owned
    int32_t *ids; // [n_ids] as the encoder reads them: <s>, letters, </s>; owned
    int n_ids;
    int n_known, n_unknown; // letters
    char unknown[8];        // the first unknown one
    bool has_digit;         // an unknown one
} Word;

// Append the words of n bytes of text to *list (stb_ds). -1 with a line in err.
int words_split(Word **list, const G2p *m, const char *text, size_t n, char *err, size_t errlen);
// One word as it stands, blanks and punctuation included.
int words_add(Word **list, const G2p *m, const char *text, size_t n, char *err, size_t errlen);
void words_free(Word **list);
