// vocab_json: the vocabulary of a Hugging Face tokenizer.json. See vocab_json.c.
#pragma once
#include "vocab.h"

#include "file.h"

// Copies the pieces, so the file may be closed. bos_id and eos_id are in other files. On failure *v is left empty.
int vocab_json_read(Vocab *v, const File *file, char *err, size_t errlen);
