// subword: what the kinds of vocabulary share: how one pre-token becomes ids.
//
// Owns the tables that a vocabulary is looked up in and the memory of one encoding. bpe.c, unigram.c and wordpiece.c
// each own one rule; tokenizer.c picks it. Only ordinary pieces are in the tables, so no pre-token makes any other.
#pragma once
#include "pieces.h"

typedef struct {
    int32_t left, right, rank, id; // rank < 0: free
} MergeSlot;

enum { PAIR_BITS = 18 };

// Immutable, shared by threads.
typedef struct {
    const Vocab *vocab;
    PieceTable table;
    int32_t byte_ids[256]; // the token of each byte, or NO_PIECE
    bool has_bytes;        // of every byte
    MergeSlot *merges;     // [merge_mask + 1], by left and right; VOCAB_RANK_BPE
    uint32_t merge_mask;   //
    uint64_t *touching;    // BPE of characters: the set of hashed pairs that some piece holds side by side
    uint64_t *prefixes;    // VOCAB_UNIGRAM: the set of hashed beginnings of pieces
    uint64_t prefix_mask;  //
    double unknown_score;  // of a character without a piece
} Subwords;

typedef struct {
    int32_t prev, next; // nodes, as the byte where they start; next is also where this one ends
    int32_t id;         // NO_PIECE: no piece has its text
    int32_t pair;       // the piece that this node and the next make together, or NO_PIECE
    uint32_t order;     // of that pair: the smallest merges first
} Node;

typedef struct {
    double score;     // of the best way here; -INFINITY: none
    int32_t from, id; // where its last piece begins, and that piece
    int32_t to;       // of the best way through here: where its next piece ends
} Way;

// One text being encoded.
typedef struct {
    const Subwords *s;
    int32_t *ids;
    size_t n_ids, ids_capacity;
    bool after_unknown; // the last id is the unknown token, in this pre-token
    Node *nodes;        // [capacity]
    uint64_t *heap;     // [2 * capacity]: every node pushes once at first, every merge pops one and pushes at most two
    size_t capacity, n_heap;
    Way *ways; // [ways_capacity]
    size_t ways_capacity;
} Encoding;

bool piece_is_ordinary(const Piece *p); // NORMAL, with text, or USER and PIECE_ORDINARY
int piece_byte(const Piece *p);         // the value of a BYTE token, -1 when its text is not <0xHH>
size_t textstream_byte(TextStream *s, unsigned char b, char *out); // as textstream_push, of one byte

bool encoding_reserve_ids(Encoding *e, size_t n); // room for n more; false: no memory
void encoding_emit(Encoding *e, int32_t id);      // a negative id is dropped
// Text without a piece: its byte tokens, or the unknown token where the vocabulary lacks one of them.
void encoding_emit_bytes(Encoding *e, const char *text, int len);

// Index the vocabulary, whose table and byte_ids are filled. false: no memory.
bool bpe_index(Subwords *s);
bool unigram_index(Subwords *s);

// One pre-token, n >= 1; room for n ids is there. -1: no memory.
//
// BPE (arXiv:1508.07909; SentencePiece, arXiv:1808.06226): start from characters or bytes and merge the adjacent pair
// of the best score or the first rank, leftmost on ties, until none is left. O(n log n).
int bpe_encode(Encoding *e, const char *text, int n);
// Unigram (arXiv:1804.10959): the cut into pieces whose scores add up to most. O(n * longest piece).
int unigram_encode(Encoding *e, const char *text, int n);
// WordPiece (arXiv:1609.08144): the longest piece that begins the word, then the longest that continues it; a word
// that cannot be finished is unknown. O(n * longest piece).
int wordpiece_encode(Encoding *e, const char *text, int n);
