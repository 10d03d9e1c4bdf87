// g2p: a grapheme-to-phoneme encoder-decoder from its Hugging Face folder.
//
// Owns the settings in config.json, including the tables of letters and phonemes. Refuses a folder whose config.json
// and tensors do not match. Called by encdec.
#pragma once
#include "load.h"
#include "seq2seq.h"
#include "symbols.h"

typedef struct {
    Weights weights;
    Seq2seq model;
    Symbols graphemes, phonemes;
    bool english; // what config.json's "language" says: "en", or a variety of it such as "en-us"
} G2p;

// A Hugging Face folder, or the .safetensors file of one. -1 with a line in err.
int g2p_open(G2p *g, const char *path, char *err, size_t errlen);
void g2p_close(G2p *g); // accepts a zeroed one
