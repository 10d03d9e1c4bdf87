// vocab_rwkv: the vocabulary of RWKV's text file, rwkv_vocab_v20230424.txt. See vocab_rwkv.c.
#pragma once
#include "file.h"
#include "vocab.h"

#define RWKV_VOCAB "rwkv_vocab_v20230424.txt" // its name in a folder

// end: the text of token 0, which ends a text and which the file does not list. Copies the pieces, so the file may be
// closed. On failure *v is left empty.
int vocab_rwkv_read(Vocab *v, const File *file, const char *end, char *err, size_t errlen);
