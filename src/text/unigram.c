// unigram: the best segmentation into pieces by Viterbi's algorithm, with SentencePiece's tie-breaking. See subword.h.
#include "subword.h"

#include "utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

// SentencePiece's: a character that is no piece scores this much less than the worst piece.
static const double UNKNOWN_PENALTY = 10.0;

bool unigram_index(Subwords *s) {
    double least = 0;
    const Piece *pieces = s->vocab->pieces;
    for (ptrdiff_t id = 0; id < arrlen(pieces); id++) {
        if (!piece_is_ordinary(&pieces[id])) continue;
        if ((double)pieces[id].score < least) least = (double)pieces[id].score;
    }
    s->unknown_score = least - UNKNOWN_PENALTY;
    return prefixes_index(s);
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
            h = prefix_hash(h, text[end - 1]);
            if (!prefix_known(s, h)) break;
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
