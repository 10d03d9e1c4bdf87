// subword: the models that encode one pre-token: BPE, unigram, WordPiece, the longest match.
//
// Owns the lookup tables of a vocabulary and the working memory of one encoding; bpe.c, unigram.c, wordpiece.c and
// greedy.c own one algorithm each. The tables hold ordinary pieces only, so ordinary text never becomes a special
// token. Called by tokenizer.c.
#pragma once
#include "pieces.h"

typedef struct {
    int32_t left, right, rank, id; // rank < 0: free slot
} MergeSlot;

enum { PAIR_BITS = 18 };

// Immutable, shared by threads.
typedef struct {
    const Vocab *vocab;
    PieceTable table;
    int32_t byte_ids[256]; // [byte] its token, or NO_PIECE
    bool has_bytes;        // every byte has a token
    MergeSlot *merges;     // VOCAB_RANK_BPE: [merge_mask + 1], hash table by left and right
    uint32_t merge_mask;   //
    uint64_t *neighbors;   // BPE over characters: set of hashed pairs that are adjacent in some piece
    uint64_t *prefixes;    // VOCAB_UNIGRAM, VOCAB_GREEDY: set of hashed prefixes of pieces
    uint64_t prefix_mask;  //
    double unknown_score;  // of a character that is no piece
} Subwords;

typedef struct {
    int32_t prev, next; // linked list of nodes, by their first byte; next is also the end of this one
    int32_t id;         // NO_PIECE: its text is no piece
    int32_t pair;       // the piece that this node and the next merge into, or NO_PIECE
    uint32_t order;     // priority of that merge, smallest first
} Node;

// A byte position of the text, in Viterbi's search.
typedef struct {
    double score;     // of the best path that ends here; -INFINITY: none
    int32_t from, id; // its last piece, and where that begins
    int32_t to;       // on the best path of the whole text: where the piece that begins here ends
} LatticeNode;

// The working memory of one encoding.
typedef struct {
    const Subwords *s;
    int32_t *ids;
    size_t n_ids, ids_capacity;
    bool after_unknown; // the last id is the unknown token, of the same pre-token
    Node *nodes;        // [capacity]
    uint64_t *heap;     // [2 * capacity]: each node pushes once, then each merge pops one entry and pushes at most two
    size_t capacity, n_heap;
    LatticeNode *lattice; // [lattice_capacity]
    size_t lattice_capacity;
} Encoding;

bool encoding_reserve_ids(Encoding *e, size_t n); // for n more; false: out of memory
void encoding_emit(Encoding *e, int32_t id);      // ignores a negative id
// For text that is no piece: its byte tokens, or the unknown token if the vocabulary lacks one of them.
void encoding_emit_bytes(Encoding *e, const char *text, int len);

// Encodes one pre-token with the vocabulary's model. -1: out of memory, or longer than INT_MAX.
int subwords_encode(Encoding *e, const char *text, size_t n);

// The set of all prefixes of pieces: the hash of one is that of the prefix before (0: the empty one) and a byte. A
// false positive only costs a lookup.
bool prefixes_index(Subwords *s); // false: out of memory
uint64_t prefix_hash(uint64_t before, char c);
bool prefix_known(const Subwords *s, uint64_t hash);

// Builds the model's own tables; `table` and byte_ids are already filled. false: out of memory.
bool bpe_index(Subwords *s);
bool unigram_index(Subwords *s);

// Encode one pre-token, n >= 1, with n ids reserved. -1: out of memory.
//
// BPE (arXiv:1508.07909; SentencePiece, arXiv:1808.06226): start from characters or bytes and merge the adjacent pair
// with the best score or the first rank, leftmost on ties, until no pair is left. O(n log n).
int bpe_encode(Encoding *e, const char *text, int n);
// Unigram (arXiv:1804.10959): the segmentation with the greatest sum of scores. O(n * longest piece).
int unigram_encode(Encoding *e, const char *text, int n);
// WordPiece (arXiv:1609.08144): the longest piece that begins the word, then the longest that continues it; a word
// that this does not cover is unknown. O(n * longest piece).
int wordpiece_encode(Encoding *e, const char *text, int n);
// The longest piece, again and again (RWKV's); a byte that begins none is unknown. O(n * longest match).
int greedy_encode(Encoding *e, const char *text, int n);
