// vocab_merges: the vocabulary of vocab.json and merges.txt. See vocab_merges.c.
#pragma once
#include "settings.h"
#include "vocab.h"

// added: an array of added tokens, as tokenizer.json has them. On failure *v is left empty.
int vocab_merges_read(Vocab *v, const char *folder, json_t *added, char *err, size_t errlen);
