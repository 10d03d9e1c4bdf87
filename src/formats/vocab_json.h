// vocab_json: the vocabulary of a Hugging Face tokenizer.json: see vocab_json.c.
#pragma once
#include "tokenizer.h"

#include "file.h"

// The file stays the caller's; pieces are copied. bos_id and eos_id stand in other files. On failure *v is left empty.
int vocab_json_read(Vocab *v, const File *file, char *err, size_t errlen);
