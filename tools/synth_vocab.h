// synth_vocab: the vocabulary that build/synth gives its models, and how to know it again: such weights are random.
//
// Owns the pieces. Called by synth and bench.
#pragma once
#include "tokenizer.h"

enum { SYNTH_CONTROL = 3, SYNTH_BYTES = 256, SYNTH_PIECE = 16 };

// Writes the piece of an id, terminated; returns its length, less than SYNTH_PIECE.
int synth_piece(char *piece, int id);
// Whether a vocabulary is synth's, of any size.
bool synth_vocab_is(const Tokenizer *t);
