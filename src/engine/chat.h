// chat: the frames that conversations stand in, for those who have a tokenizer rather than an Engine; tessera.h says
// what a Chat does.
//
// Owns what is known of a model's frame: its family, its default system message, its BOS, its special tokens. Called by
// engine.c and answer.c.
#pragma once
#include "tessera.h"
#include "tokenizer.h"

#include <time.h>

// chat_template: the text of the model's own, NULL: none. now: for frames that say today's date. The tokenizer must
// outlive the Chat.
Chat *chat_open(const Tokenizer *t, const char *chat_template, time_t now, char *err, size_t errlen);

const Tokenizer *chat_tokenizer(const Chat *c);
bool chat_ends(const Chat *c, int32_t id); // nothing follows it in an answer
const char *chat_stop(const Chat *c);      // text that an answer ends before, NULL: none
bool chat_has_channels(const Chat *c);     // an answer's parts begin with "<|channel|>name<|message|>"
bool chat_starts_thinking(const Chat *c);  // an answer begins inside "<think>"
bool chat_piece_is(const Chat *c, int32_t id, const char *text);
