// vocab_spm: the vocabulary of a SentencePiece model, tokenizer.model. See vocab_spm.c.
#pragma once
#include "file.h"
#include "vocab.h"

bool file_is_sentencepiece(const File *file); // begins as such a model does: with a piece
// Copies the pieces, so the file may be closed. On failure *v is left empty.
int vocab_spm_read(Vocab *v, const File *file, char *err, size_t errlen);
