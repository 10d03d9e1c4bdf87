// draws: a text's next tokens one after the other, which the engine draws several at a time.
//
// Owns those that were drawn and not yet asked for. Called by run and dialogue.
#pragma once
#include "tessera.h"

enum { MAX_DRAWN = 8 };

typedef struct {
    Session *session;
    Sampler *sampler;
    Drafter *drafter; // NULL: no guesses
    int32_t ids[MAX_DRAWN];
    int n, at;
} Draws;

// The token that follows text[0..n), where `most` more are wanted; the text goes on by the tokens that this returns. -1
// with a line in err.
int32_t draws_next(Draws *d, const int32_t *text, int n, int most, char *err, size_t errlen);
