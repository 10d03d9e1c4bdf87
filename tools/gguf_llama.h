// gguf_llama: what a GGUF file of the llama architecture says, and the types that its matrices get.
//
// Owns the keys, the spelling of the vocabulary, and the rule for rows that a type's blocks do not divide: Q8_0, then
// F16. Called by quantize and synth.
#pragma once
#include "config.h"
#include "gguf_writer.h"
#include "tokenizer.h"

// The types that can be written: a type of TYPES by its name in any case, or DTYPE_OTHER.
#define GGUF_LLAMA_TYPES "F32, F16, BF16, Q8_0, Q4_0, Q4_K or Q6_K"
DType gguf_llama_type(const char *name);
// That type, or the one for rows of this many values instead.
DType gguf_llama_fit(DType wanted, int64_t cols);
// One line on stderr where, of n matrices, some got the one instead; nothing where none did.
void gguf_llama_note(DType wanted, int n, int n_q8_0, int n_f16);
// n finite values, whole blocks of the type, to their bytes; and back, from any type but I8G.
void gguf_llama_pack(DType d, void *to, const float *x, int64_t n);
void gguf_llama_unpack(DType d, float *x, const void *from, int64_t n);

// The settings and the vocabulary; `type` is what most matrices have.
void gguf_llama_settings(GgufWriter *w, const char *name, const Config *c, DType type);
void gguf_llama_vocab(GgufWriter *w, const Vocab *v);
