// vocab: the data of a tokenizer: pieces, model, and the steps before and after it.
//
// Owns the memory of a Vocab, which a loader fills and tokenizer_new takes over, and the parser of <0xHH>. Knows no
// file format and encodes nothing.
#pragma once
#include "normalizer.h"
#include "notes.h"
#include "pretokenizer.h"

#include <stdint.h>

typedef enum {
    TOKEN_NORMAL,
    TOKEN_UNKNOWN, // text that no piece covers; found in text like CONTROL; decoded as U+2047 between spaces
    TOKEN_CONTROL, // <s>, </s>: found in text only with TOKENIZE_SPECIAL; decoded to nothing
    TOKEN_BYTE,    // <0xNN>
    TOKEN_USER,    // always found in text, before merges
    TOKEN_UNUSED,  // never the result of encoding
} TokenType;

// How CONTROL and USER tokens are found in text; the first four are Hugging Face's options of an added token.
enum {
    PIECE_LSTRIP = 1,     // together with white space on its left
    PIECE_RSTRIP = 2,     // together with white space on its right
    PIECE_WORD = 4,       // only as a whole word (single_word)
    PIECE_NORMALIZED = 8, // in the normalized text, after normalizing the token itself
    PIECE_ESCAPED = 16,   // with U+2581 where `text` has spaces
    PIECE_ORDINARY = 32,  // a USER token that also is an ordinary piece
};

typedef struct {
    const char *text; // not terminated; in the mapping or the vocabulary's storage; spaces unescaped
    int len;          // bytes
    float score;      // higher merges first
    TokenType type;
    uint8_t flags;
} Piece;

typedef enum {
    VOCAB_SCORE_BPE, // SentencePiece: merge the pair whose piece has the best score
    VOCAB_RANK_BPE,  // merge the pair that comes first in `merges`
    VOCAB_UNIGRAM,   // the segmentation with the greatest sum of scores
    VOCAB_WORDPIECE, // longest match first; pieces that begin a word are stored with a leading space
    VOCAB_GREEDY,    // longest match first, of bytes (RWKV)
} VocabKind;

typedef struct {
    int32_t left, right, id; // two pieces, and the piece they merge into
} Merge;

typedef struct {
    VocabKind kind;
    Piece *pieces;              // stb_ds array, index = id
    Merge *merges;              // stb_ds array by rank; VOCAB_RANK_BPE
    int bos_id, eos_id, unk_id; // -1: none
    bool byte_level;            // merges start from bytes, not characters
    bool ignore_merges;         // a pre-token that is a piece becomes it without merging
    bool fuse_unk;              // consecutive unknown characters are one unknown token
    bool metaspace;             // U+2581 in the text is a space
    bool add_space_prefix;      // SentencePiece's dummy prefix, at the beginning and after special tokens
    bool drop_space_prefix;     // decoding drops one leading space, without add_space_prefix
    bool no_bos;                // TOKENIZE_BOS adds BOS only to an empty text
    int *prefix_ids;            // stb_ds arrays: ids that TOKENIZE_BOS puts around the text; NULL: BOS, unless no_bos
    int *suffix_ids;            //
    int *end_ids;               // stb_ds array: ids that end a generation, in addition to eos_id
    Normalizer *normalizer;     // NULL: none
    Pretokenizer *pretokenizer; // NULL: none
    char *chat_template;        // malloc'd, Jinja; NULL: none
    char *text;                 // malloc'd storage of pieces that are not in a mapping; NULL: none
    char **texts;               // stb_ds array of malloc'd texts: of tokens that were added
    Notes notes;                // what its reader has to say
} Vocab;

const char *vocab_kind_name(const Vocab *v); // for display, "byte-level BPE"
void vocab_free(Vocab *v);                   // accepts a zeroed Vocab
// A copy of n bytes that lives as long as the vocabulary; NULL: out of memory.
const char *vocab_keep_text(Vocab *v, const char *text, size_t n);
// Drops the tokens from id n on, which a model with n tokens does not have, and the merges that need one.
void vocab_truncate(Vocab *v, int n);

bool piece_is_ordinary(
    const Piece *p); // the result of encoding ordinary text: NORMAL, or USER with PIECE_ORDINARY; not empty
bool piece_is(const Piece *p, const char *text);
int piece_byte(const Piece *p); // the value of a BYTE token; -1 if it is none, or its text is not <0xHH>
