// tokenizer: text to token ids.
//
// Owns the order of the steps: special tokens, normalizer, pre-tokenizer, then the vocabulary's model (subword.h).
// Accepts any text, valid UTF-8 or not; refuses only to search for a pattern without limit. Loaders fill a Vocab; all
// other code sees only a Tokenizer. textstream.h is the way back to text.
#pragma once
#include "vocab.h"

typedef struct Tokenizer Tokenizer;

enum {
    TOKENIZE_BOS = 1,     // add the tokens that the model expects at the beginning and end of a text
    TOKENIZE_SPECIAL = 2, // the text of a control token ("<s>") or of <unk> becomes that token; longest match first
    TOKENIZE_INSIDE = 4,  // the text continues another one: no prefix space
    TOKENIZE_PLAIN = 8,   // nothing in the text becomes a special token, not even a USER one
};

// Takes ownership of *vocab, also on failure, and zeroes it. A mapping that pieces point into must outlive the
// tokenizer. Of pieces with the same text the first is used; special ids outside the vocabulary are ignored. NULL with
// a line in err when out of memory.
Tokenizer *tokenizer_new(Vocab *vocab, char *err, size_t errlen);
void tokenizer_free(Tokenizer *t); // accepts NULL

int tokenizer_size(const Tokenizer *t);
int tokenizer_bos(const Tokenizer *t); // -1: none
int tokenizer_eos(const Tokenizer *t);
bool tokenizer_is_end(const Tokenizer *t, int id);        // ends a generation: EOS, <|im_end|>, ...
const char *tokenizer_chat_template(const Tokenizer *t);  // Jinja; NULL: none
const Notes *tokenizer_notes(const Tokenizer *t);         // what the vocabulary's reader had to say
const Piece *tokenizer_piece(const Tokenizer *t, int id); // NULL when id is out of range

// Encodes n bytes. Returns the number of ids, with a malloc'd array in *ids (caller frees), or -1 with a line in err.
//
// Invalid UTF-8 bypasses normalizers and patterns, and no match extends across it. Byte-level vocabularies, and those
// with byte tokens (<0xHH>), encode it byte by byte; others read each maximal ill-formed subpart as U+FFFD.
int tokenizer_encode(const Tokenizer *t, const char *text, size_t n, unsigned flags, int32_t **ids, char *err,
                     size_t errlen);

bool tokenizer_adds_space(const Tokenizer *t); // decoding drops one leading space
int tokenizer_longest(const Tokenizer *t);     // length in bytes of the longest piece
