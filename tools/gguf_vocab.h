// gguf_vocab: writes a vocabulary as GGUF settings. Called by quantize and synth.
//
// Owns the tokenizer keys, the scores derived from merges, and the search for settings that GGUF can only name: the
// pre-tokenizer, the leading space. Refuses a vocabulary for which none of them gives the same ids: the settings are
// read back and compared on a text of many scripts.
#pragma once
#include "gguf_writer.h"
#include "tokenizer.h"

// Takes ownership of the vocabulary. n: the model's vocabulary size; ids beyond v's own are written as unused. path: of
// the vocabulary, for messages.
void gguf_vocab(GgufWriter *w, Vocab *v, int n, const char *path);
