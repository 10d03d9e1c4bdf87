// subword: the output of one encoding, and the choice of the model. See subword.h.
#include "subword.h"

#include <limits.h>
#include <stdlib.h>

#include <stb/stb_ds.h>

bool encoding_reserve_ids(Encoding *e, size_t n) {
    if (n <= e->ids_capacity - e->n_ids) return true;
    size_t capacity = e->n_ids + n + e->n_ids / 2;
    if (capacity > INT_MAX) return false;
    int32_t *ids = realloc(e->ids, capacity * sizeof *ids);
    if (!ids) return false;
    e->ids = ids;
    e->ids_capacity = capacity;
    return true;
}

void encoding_emit(Encoding *e, int32_t id) {
    if (id >= 0) e->ids[e->n_ids++] = id;
    e->after_unknown = false;
}

void encoding_emit_bytes(Encoding *e, const char *text, int len) {
    const Subwords *s = e->s;
    bool known = true, fused = e->after_unknown && s->vocab->fuse_unk;
    for (int i = 0; i < len; i++) known &= s->byte_ids[(unsigned char)text[i]] != NO_PIECE;
    if (known) {
        for (int i = 0; i < len; i++) encoding_emit(e, s->byte_ids[(unsigned char)text[i]]);
    } else if (!fused) encoding_emit(e, s->vocab->unk_id);
    e->after_unknown = !known;
}

uint64_t prefix_hash(uint64_t before, char c) {
    return (before ^ (unsigned char)c) * 0x100000001B3u; // FNV-1a
}

static uint64_t prefix_bit(const Subwords *s, uint64_t h) {
    return (h ^ h >> 29) * 0x9E3779B97F4A7C15u >> 20 & s->prefix_mask;
}

bool prefix_known(const Subwords *s, uint64_t hash) {
    uint64_t bit = prefix_bit(s, hash);
    return s->prefixes[bit >> 6] >> (bit & 63) & 1;
}

static void prefixes_add(Subwords *s, const Piece *p) {
    uint64_t h = 0;
    for (int i = 0; i < p->len; i++) {
        h = prefix_hash(h, p->text[i]);
        uint64_t bit = prefix_bit(s, h);
        s->prefixes[bit >> 6] |= (uint64_t)1 << (bit & 63);
    }
}

bool prefixes_index(Subwords *s) {
    size_t bytes = 0, n_bits = 64;
    const Piece *pieces = s->vocab->pieces;
    for (ptrdiff_t id = 0; id < arrlen(pieces); id++) {
        if (piece_is_ordinary(&pieces[id])) bytes += (size_t)pieces[id].len;
    }
    while (n_bits < 8 * bytes) n_bits *= 2;
    s->prefix_mask = n_bits - 1;
    s->prefixes = calloc(n_bits / 64, sizeof *s->prefixes);
    for (ptrdiff_t id = 0; s->prefixes && id < arrlen(pieces); id++) {
        if (piece_is_ordinary(&pieces[id])) prefixes_add(s, &pieces[id]);
    }
    return s->prefixes;
}

int subwords_encode(Encoding *e, const char *text, size_t n) {
    if (n > INT_MAX || !encoding_reserve_ids(e, n)) return -1;
    e->after_unknown = false;
    switch (e->s->vocab->kind) {
    case VOCAB_UNIGRAM: return unigram_encode(e, text, (int)n);
    case VOCAB_WORDPIECE: return wordpiece_encode(e, text, (int)n);
    case VOCAB_GREEDY: return greedy_encode(e, text, (int)n);
    default: return bpe_encode(e, text, (int)n);
    }
}
