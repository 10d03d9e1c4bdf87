// chat: how a model formats conversations, for callers that have a tokenizer but no Engine. tessera.h documents a Chat.
//
// Owns what is known of a model's format: its template, family, BOS and special tokens. Refuses a template with an
// error (jinja.h), and what the template refuses. Called by engine.c and answer.c.
#pragma once
#include "tessera.h"
#include "textstream.h"

#include <time.h>

// chat_template: the model's own, in Jinja; NULL: none. now: for formats that contain the date. The tokenizer must
// outlive the Chat.
Chat *chat_open(const Tokenizer *t, const char *chat_template, time_t now, char *err, size_t errlen);

const Tokenizer *chat_tokenizer(const Chat *c);
bool chat_ends(const Chat *c, int32_t id); // ends an answer
const char *chat_stop(const Chat *c);      // text that ends an answer and is not part of it; NULL: none
bool chat_has_channels(const Chat *c);     // parts of an answer begin with "<|channel|>name<|message|>"
bool chat_starts_thinking(const Chat *c);  // the prompt ends with "<think>"
bool chat_piece_is(const Chat *c, int32_t id, const char *text);
