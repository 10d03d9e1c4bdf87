// vocab_json: the vocabulary of a Hugging Face tokenizer.json. See vocab_json.c.
#pragma once
#include "vocab.h"

#include "file.h"
#include "settings.h"

// Copies the pieces, so the file may be closed. bos_id and eos_id are in other files. On failure *v is left empty.
int vocab_json_read(Vocab *v, const File *file, char *err, size_t errlen);
// The same with `more`, an array of added tokens as in the file, of other files (NULL: none): those that it does not
// have.
int vocab_json_read_with(Vocab *v, const File *file, json_t *more, char *err, size_t errlen);
