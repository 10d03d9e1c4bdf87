// tokenizer: text to token ids and back.
//
// Owns the order of the steps: special tokens, normalizer, pre-tokenizer, then the vocabulary's own rule (subword.h).
// Refuses nothing in the text, valid UTF-8 or not, but a pattern that does not come to an end. Loaders fill a Vocab;
// everything else sees only a Tokenizer.
#pragma once
#include "normalizer.h"
#include "pretokenizer.h"

#include <stdint.h>

typedef enum {
    TOKEN_NORMAL,
    TOKEN_UNKNOWN, // what no piece covers; its own text like that of CONTROL; decoded as U+2047 between spaces
    TOKEN_CONTROL, // <s>, </s>: never produced from text unless TOKENIZE_SPECIAL, decoded as nothing
    TOKEN_BYTE,    // <0xNN>
    TOKEN_USER,    // always found in text, before merges: chat marks
    TOKEN_UNUSED,  // never produced from text
} TokenType;

// How CONTROL and USER tokens are found in text.
enum {
    PIECE_LSTRIP = 1,     // with the white space before it
    PIECE_RSTRIP = 2,     // with the white space behind it
    PIECE_WORD = 4,       // only where no letter or digit touches it
    PIECE_NORMALIZED = 8, // in the normalized text, and normalized itself
    PIECE_MARKED = 16,    // with U+2581 where `text` has spaces
    PIECE_ORDINARY = 32,  // a USER token that merges make, too
};

typedef struct {
    const char *text; // not terminated; into the mapping or the vocabulary's own storage; spaces are spaces
    int len;          // bytes
    float score;      // higher merges first
    TokenType type;
    uint8_t flags;
} Piece;

typedef enum {
    VOCAB_SCORE_BPE, // SentencePiece: the pair whose piece has the best score merges first
    VOCAB_RANK_BPE,  // the pair that stands first in `merges`
    VOCAB_UNIGRAM,   // the pieces with the greatest sum of scores
    VOCAB_WORDPIECE, // the longest piece first; one that begins a word begins with a space here
} VocabKind;

typedef struct {
    int32_t left, right, id; // the piece that two pieces make
} Merge;

typedef struct {
    VocabKind kind;
    Piece *pieces;              // stb_ds array, index = id
    Merge *merges;              // stb_ds array by rank; VOCAB_RANK_BPE
    int bos_id, eos_id, unk_id; // -1: none
    bool byte_level;            // merges begin with bytes, not characters
    bool ignore_merges;         // a pre-token that is a piece is that piece
    bool fuse_unk;              // unknown characters in a row are one unknown token
    bool space_mark;            // U+2581 in the text is a space
    bool add_space_prefix;      // SentencePiece's dummy prefix, before text that begins or follows a special token
    bool drop_space_prefix;     // decoding drops one leading space though the prefix is the normalizer's or none
    bool no_bos;                // the model's texts begin without one, unless they would be empty
    int *prefix_ids;            // stb_ds arrays: what TOKENIZE_BOS puts around the text; no prefix: BOS, unless no_bos
    int *suffix_ids;            //
    int *end_ids;               // stb_ds array: what ends a generation, beside eos_id and the known end marks
    Normalizer *normalizer;     // NULL: none
    Pretokenizer *pretokenizer; // NULL: none
    char *chat_template;        // malloc'd Jinja text; NULL: none
    char *text;                 // malloc'd storage of pieces that are not in a mapping; NULL: none
} Vocab;

const char *vocab_kind_name(const Vocab *v); // "byte-level BPE", for people
void vocab_free(Vocab *v);                   // what a tokenizer did not take over; accepts a zeroed Vocab

typedef struct Tokenizer Tokenizer;

enum {
    TOKENIZE_BOS = 1,     // with the tokens that begin and end the model's texts
    TOKENIZE_SPECIAL = 2, // the text of a control token ("<s>"), or <unk>, becomes that token, the longest that fits
    TOKENIZE_INSIDE = 4,  // goes on where other text ended: no prefix space
    TOKENIZE_PLAIN = 8,   // nothing in the text is a special token, also no USER one
};

// Takes over all that *vocab owns (freed also when this fails) and zeroes it, but not a mapping that pieces point into,
// which must outlive the tokenizer. Of equal pieces the first is used; ids outside the vocabulary count as none. NULL
// with a line in err when memory runs out.
Tokenizer *tokenizer_new(Vocab *vocab, char *err, size_t errlen);
void tokenizer_free(Tokenizer *t); // accepts NULL

int tokenizer_size(const Tokenizer *t);
int tokenizer_bos(const Tokenizer *t); // -1: none
int tokenizer_eos(const Tokenizer *t);
bool tokenizer_is_end(const Tokenizer *t, int id);        // a generation ends with this token: eos, <|im_end|>, ...
const char *tokenizer_chat_template(const Tokenizer *t);  // Jinja; NULL: none
const Piece *tokenizer_piece(const Tokenizer *t, int id); // NULL when id is out of range

// Encode n bytes. Returns the number of ids and in *ids a malloc'd array (caller frees), or -1 with a line in err.
//
// Bytes that are no UTF-8: normalizers and patterns never see them (they pass, and end what is matched on either side).
// A byte-level vocabulary has a token for each, one with byte tokens (<0xNN>) too. Any other reads U+FFFD for every
// maximal ill-formed subpart, as a text that was decoded before would have.
int tokenizer_encode(const Tokenizer *t, const char *text, size_t n, unsigned flags, int32_t **ids, char *err,
                     size_t errlen);

// Turns ids into whole UTF-8 characters as they arrive: bytes of an unfinished character wait for the next id; bytes
// that cannot complete come out as U+FFFD. The space that add_space_prefix put before the text is dropped.
typedef struct {
    const Tokenizer *tokenizer;
    bool at_start; // nothing written yet: drop one leading space
    int n_held;    // bytes of an unfinished character
    unsigned char held[4];
} TextStream;

TextStream textstream_start(const Tokenizer *t, bool at_start);
// Bytes of text that `id` completes, written to `out` (valid UTF-8, not terminated), at most textstream_room(t) bytes.
size_t textstream_push(TextStream *s, int id, char *out);
// What is still held, as one U+FFFD; at most 16 bytes.
size_t textstream_finish(TextStream *s, char *out);
size_t textstream_room(const Tokenizer *t);
