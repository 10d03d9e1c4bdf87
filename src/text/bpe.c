// bpe: byte-pair encoding, by the scores of pieces or by the ranks of merges. See subword.h.
//
// A pre-token is first cut into segments, wherever two adjacent characters are adjacent in no piece. No merge crosses
// such a border, so the result is the same, and the working set of text without pre-tokens stays in the L1 cache. A
// segment is a linked list of nodes and a heap of possible merges: O(n log n) also for a megabyte without a space. A
// node is stored at the index of its first byte, so the list needs no offsets.
#include "subword.h"

#include "utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

// ---- tables

static uint64_t pair_hash(int32_t left, int32_t right) {
    return ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
}

// Whether some piece may hold this pair. A false positive (a hash collision) only makes a segment longer.
static bool may_be_neighbors(const Subwords *s, int32_t left, int32_t right) {
    uint64_t h = pair_hash(left, right) >> (64 - PAIR_BITS);
    return left != NO_PIECE && right != NO_PIECE && (s->neighbors[h >> 6] >> (h & 63) & 1);
}

static void neighbors_add(Subwords *s, const Piece *p) {
    int32_t left = NO_PIECE;
    for (int i = 0, len; i < p->len; i += len) {
        len = utf8_unit(p->text + i, p->len - i);
        int32_t right = pieces_find(&s->table, p->text + i, len);
        uint64_t h = pair_hash(left, right) >> (64 - PAIR_BITS);
        if (left != NO_PIECE && right != NO_PIECE) s->neighbors[h >> 6] |= (uint64_t)1 << (h & 63);
        left = right;
    }
}

// The slot of this pair, or a free slot for it.
static MergeSlot *merge_find(const Subwords *s, int32_t left, int32_t right) {
    for (uint32_t i = (uint32_t)(pair_hash(left, right) >> 32) & s->merge_mask;; i = (i + 1) & s->merge_mask) {
        MergeSlot *m = &s->merges[i];
        if (m->rank < 0 || (m->left == left && m->right == right)) return m;
    }
}

// If a pair occurs twice, its first rank counts.
static bool merges_index(Subwords *s) {
    const Merge *merges = s->vocab->merges;
    size_t n = arrlenu(merges), n_slots = 16;
    while (n_slots < 2 * n) n_slots *= 2;
    s->merge_mask = (uint32_t)(n_slots - 1);
    s->merges = malloc(n_slots * sizeof *s->merges);
    if (!s->merges) return false;
    for (size_t i = 0; i < n_slots; i++) s->merges[i].rank = -1;
    for (size_t i = 0; i < n; i++) {
        MergeSlot *m = merge_find(s, merges[i].left, merges[i].right);
        if (m->rank < 0) *m = (MergeSlot){merges[i].left, merges[i].right, (int32_t)i, merges[i].id};
    }
    return true;
}

bool bpe_index(Subwords *s) {
    if (s->vocab->kind == VOCAB_RANK_BPE && !merges_index(s)) return false;
    if (s->vocab->byte_level) return true;
    s->neighbors = calloc(((size_t)1 << PAIR_BITS) / 64, sizeof *s->neighbors);
    if (!s->neighbors) return false;
    for (ptrdiff_t id = 0; id < arrlen(s->vocab->pieces); id++) {
        if (piece_is_ordinary(&s->vocab->pieces[id])) neighbors_add(s, &s->vocab->pieces[id]);
    }
    return true;
}

// ---- merging

static void heap_push(Encoding *e, uint64_t key) {
    size_t i = e->n_heap++;
    for (; i && e->heap[(i - 1) / 4] > key; i = (i - 1) / 4) e->heap[i] = e->heap[(i - 1) / 4];
    e->heap[i] = key;
}

// Four children per node: half the levels of a binary heap, and the children are contiguous.
static uint64_t heap_pop(Encoding *e) {
    uint64_t *heap = e->heap, top = heap[0], key = heap[--e->n_heap];
    size_t i = 0, n = e->n_heap;
    for (size_t child; (child = 4 * i + 1) < n; i = child) {
        size_t end = child + 4 < n ? child + 4 : n;
        for (size_t c = child + 1; c < end; c++) {
            if (heap[c] < heap[child]) child = c;
        }
        if (heap[child] >= key) break;
        heap[i] = heap[child];
    }
    heap[i] = key;
    return top;
}

// Maps scores to integers so that the best score is the smallest.
static uint32_t score_order(float score) {
    float s = score + 0.0f; // -0 and 0 are equal scores
    uint32_t bits;
    memcpy(&bits, &s, sizeof bits);
    return bits >> 31 ? bits : ~bits & 0x7FFFFFFF;
}

// The piece that node i and its right neighbor merge into, or NO_PIECE, and the order of that merge.
static int32_t pair_find(const Encoding *e, const char *text, int32_t i, uint32_t *order) {
    const Node *left = &e->nodes[i], *right = &e->nodes[left->next];
    if (left->id == NO_PIECE || right->id == NO_PIECE) return NO_PIECE;
    if (e->s->vocab->kind == VOCAB_RANK_BPE) {
        const MergeSlot *m = merge_find(e->s, left->id, right->id);
        *order = (uint32_t)m->rank;
        return m->rank < 0 ? NO_PIECE : m->id;
    }
    int32_t id = pieces_find(&e->s->table, text + i, right->next - i);
    float score = id == NO_PIECE ? NAN : e->s->vocab->pieces[id].score;
    *order = score_order(score);
    return isnan(score) ? NO_PIECE : id;
}

// A heap key is order and position: the smallest is the best pair, the leftmost among equals.
static void node_pair(Encoding *e, const char *text, int len, int32_t i) {
    Node *node = &e->nodes[i];
    node->pair = node->next < len ? pair_find(e, text, i, &node->order) : NO_PIECE;
    if (node->pair != NO_PIECE) heap_push(e, (uint64_t)node->order << 32 | (uint32_t)i);
}

// Merges the nodes of text[len] until no pair is left. A popped key is stale if its node has since been merged or has a
// new neighbor: then it no longer is the key of that node's pair.
static void segment_merge(Encoding *e, const char *text, int len) {
    Node *nodes = e->nodes;
    for (int32_t i = 0; i < len; i = nodes[i].next) node_pair(e, text, len, i);
    while (e->n_heap) {
        uint64_t key = heap_pop(e);
        int32_t i = (int32_t)(uint32_t)key, pair = nodes[i].pair;
        if (pair == NO_PIECE || nodes[i].order != key >> 32) continue;
        int32_t merged = nodes[i].next, next = nodes[merged].next;
        nodes[merged].pair = NO_PIECE;
        nodes[i].id = pair;
        nodes[i].next = next;
        if (next < len) nodes[next].prev = i;
        node_pair(e, text, len, i);
        if (nodes[i].prev >= 0) node_pair(e, text, len, nodes[i].prev);
    }
}

// ---- a pre-token

static bool nodes_reserve(Encoding *e, size_t n) {
    if (n <= e->capacity) return true;
    size_t capacity = e->capacity ? 2 * e->capacity : 256;
    Node *nodes = realloc(e->nodes, capacity * sizeof *nodes);
    if (nodes) e->nodes = nodes;
    uint64_t *heap = realloc(e->heap, 2 * capacity * sizeof *heap);
    if (heap) e->heap = heap;
    if (!nodes || !heap) return false;
    e->capacity = capacity;
    return true;
}

// Makes a node of each byte or character up to the end of the segment. Returns its length in bytes; -1: out of memory.
static int segment_nodes(Encoding *e, const char *text, int n) {
    bool bytes = e->s->vocab->byte_level;
    int i = 0, prev = -1;
    while (i < n) {
        int len = bytes ? 1 : utf8_unit(text + i, n - i);
        int32_t id = bytes ? e->s->byte_ids[(unsigned char)text[i]] : pieces_find(&e->s->table, text + i, len);
        if (!bytes && prev >= 0 && !may_be_neighbors(e->s, e->nodes[prev].id, id)) break;
        if (!nodes_reserve(e, (size_t)i + 1)) return -1;
        e->nodes[i] = (Node){.prev = prev, .next = i + len, .id = id, .pair = NO_PIECE};
        prev = i;
        i += len;
    }
    return i;
}

int bpe_encode(Encoding *e, const char *text, int n) {
    int32_t whole = e->s->vocab->ignore_merges ? pieces_find(&e->s->table, text, n) : NO_PIECE;
    if (whole != NO_PIECE) {
        encoding_emit(e, whole);
        return 0;
    }
    while (n > 0) {
        int len = segment_nodes(e, text, n);
        if (len < 0) return -1;
        segment_merge(e, text, len);
        for (int32_t i = 0; i < len; i = e->nodes[i].next) {
            if (e->nodes[i].id == NO_PIECE) encoding_emit_bytes(e, text + i, e->nodes[i].next - i);
            else encoding_emit(e, e->nodes[i].id);
        }
        text += len;
        n -= len;
    }
    return 0;
}
