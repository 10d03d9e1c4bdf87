// steps_json: the normalizer, pre-tokenizer, post-processor and decoder of a tokenizer.json.
//
// Owns the mapping of their types and settings to a Vocab. Refuses types and settings that are not supported. Called by
// vocab_json.
#pragma once
#include "settings.h"
#include "vocab.h"

// Sets byte_level, metaspace and drop_space_prefix, which reading the pieces needs. Must be called first.
void steps_read_decoder(Settings *document, Vocab *v);
// The other three. Both report failures through the document.
void steps_read(Settings *document, Vocab *v);
