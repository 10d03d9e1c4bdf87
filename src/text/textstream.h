// textstream: decodes ids to text as they arrive.
//
// Owns the rules of decoding: whole UTF-8 characters only (bytes of an incomplete character wait for the next id,
// invalid ones become U+FFFD), and no leading space where encoding adds one. Called by engine and answer.
#pragma once
#include "tokenizer.h"
#include "utf8.h"

typedef struct {
    const Tokenizer *tokenizer;
    bool at_start; // drop one leading space of the next token
    bool special;  // control tokens come out as their strings; off at first
    Utf8Stream utf8;
} TextStream;

TextStream textstream_start(const Tokenizer *t, bool at_start);
// Writes the text that `id` completes (valid UTF-8, not terminated) and returns its bytes, at most textstream_room(t).
size_t textstream_push(TextStream *s, int id, char *out);
// At the end: writes an incomplete character as U+FFFD; at most 16 bytes.
size_t textstream_finish(TextStream *s, char *out);
size_t textstream_room(const Tokenizer *t);
