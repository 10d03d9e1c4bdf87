// steps_json: the normalizer, pre-tokenizer, post-processor and decoder of a tokenizer.json.
//
// Owns what their types and settings mean for a Vocab. Refuses a type, or a use of one, that nothing here computes.
// Called by vocab_json.
#pragma once
#include "settings.h"
#include "tokenizer.h"

// What the steps say of the pieces: byte_level, space_mark, drop_space_prefix. To be called first.
void steps_read_decoder(Settings *document, Vocab *v);
// The other three; failures are the document's.
void steps_read(Settings *document, Vocab *v);
