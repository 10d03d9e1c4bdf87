// unigram: the best segmentation into pieces by Viterbi's algorithm, with SentencePiece's tie-breaking. See subword.h.
#include "subword.h"

#include "utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

// SentencePiece's: a character that is no piece scores this much less than the worst piece.
static const double UNKNOWN_PENALTY = 10.0;

static uint64_t hash_byte(uint64_t h, char c) {
    return (h ^ (unsigned char)c) * 0x100000001B3u; // FNV-1a
}

static uint64_t hash_bit(const Subwords *s, uint64_t h) {
    return (h ^ h >> 29) * 0x9E3779B97F4A7C15u >> 20 & s->prefix_mask;
}

// Whether some piece has this prefix. A false positive only costs a lookup.
static bool is_prefix(const Subwords *s, uint64_t h) {
    uint64_t bit = hash_bit(s, h);
    return s->prefixes[bit >> 6] >> (bit & 63) & 1;
}

static void prefixes_add(Subwords *s, const Piece *p) {
    uint64_t h = 0;
    for (int i = 0; i < p->len; i++) {
        h = hash_byte(h, p->text[i]);
        uint64_t bit = hash_bit(s, h);
        s->prefixes[bit >> 6] |= (uint64_t)1 << (bit & 63);
    }
}

bool unigram_index(Subwords *s) {
    size_t bytes = 0, n_bits = 64;
    double least = 0;
    const Piece *pieces = s->vocab->pieces;
    for (ptrdiff_t id = 0; id < arrlen(pieces); id++) {
        if (!piece_is_ordinary(&pieces[id])) continue;
        bytes += (size_t)pieces[id].len;
        if ((double)pieces[id].score < least) least = (double)pieces[id].score;
    }
    s->unknown_score = least - UNKNOWN_PENALTY;
    while (n_bits < 8 * bytes) n_bits *= 2;
    s->prefix_mask = n_bits - 1;
    s->prefixes = calloc(n_bits / 64, sizeof *s->prefixes);
    if (!s->prefixes) return false;
    for (ptrdiff_t id = 0; id < arrlen(pieces); id++) {
        if (piece_is_ordinary(&pieces[id])) prefixes_add(s, &pieces[id]);
    }
    return true;
}

static bool lattice_reserve(Encoding *e, size_t n) {
    if (n <= e->lattice_capacity) return true;
    size_t capacity = n + n / 2;
    LatticeNode *lattice = realloc(e->lattice, capacity * sizeof *lattice);
    if (!lattice) return false;
    e->lattice = lattice;
    e->lattice_capacity = capacity;
    return true;
}

// On a tie the earlier candidate stays, whose last piece is longer.
static void path_try(LatticeNode *to, double score, int32_t from, int32_t id) {
    if (score > to->score) *to = (LatticeNode){.score = score, .from = from, .id = id};
}

int unigram_encode(Encoding *e, const char *text, int n) {
    const Subwords *s = e->s;
    if (!lattice_reserve(e, (size_t)n + 1)) return -1;
    LatticeNode *lattice = e->lattice;
    for (int i = 0; i <= n; i++) lattice[i] = (LatticeNode){.score = -INFINITY, .id = NO_PIECE};
    lattice[0].score = 0;
    for (int i = 0, len; i < n; i += len) {
        len = utf8_unit(text + i, n - i);
        bool single = false;
        uint64_t h = 0;
        for (int end = i + 1; end <= n && end - i <= s->table.max_len; end++) {
            h = hash_byte(h, text[end - 1]);
            if (!is_prefix(s, h)) break;
            int32_t id = pieces_find(&s->table, text + i, end - i);
            if (id == NO_PIECE) continue;
            single |= end == i + len;
            path_try(&lattice[end], lattice[i].score + (double)s->vocab->pieces[id].score, i, id);
        }
        if (!single) path_try(&lattice[i + len], lattice[i].score + s->unknown_score, i, NO_PIECE);
    }
    for (int32_t end = n; end > 0; end = lattice[end].from) lattice[lattice[end].from].to = end;
    for (int32_t i = 0, end; i < n; i = end) {
        end = lattice[i].to;
        if (lattice[end].id == NO_PIECE) encoding_emit_bytes(e, text + i, end - i);
        else encoding_emit(e, lattice[end].id);
    }
    return 0;
}
