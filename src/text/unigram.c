// unigram: see subword.h. The best cut into pieces by Viterbi's algorithm, as SentencePiece searches it.
#include "subword.h"

#include "utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

// SentencePiece's: a character without a piece costs this much more than the worst piece.
static const double UNKNOWN_PENALTY = 10.0;

static uint64_t hash_byte(uint64_t h, char c) {
    return (h ^ (unsigned char)c) * 0x100000001B3u; // FNV-1a
}

static uint64_t hash_bit(const Subwords *s, uint64_t h) {
    return (h ^ h >> 29) * 0x9E3779B97F4A7C15u >> 20 & s->prefix_mask;
}

// Does some piece begin like this? A false "yes" only costs a look-up.
static bool is_prefix(const Subwords *s, uint64_t h) {
    uint64_t bit = hash_bit(s, h);
    return s->prefixes[bit >> 6] >> (bit & 63) & 1;
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
    for (ptrdiff_t id = 0; s->prefixes && id < arrlen(pieces); id++) {
        uint64_t h = 0;
        for (int i = 0; piece_is_ordinary(&pieces[id]) && i < pieces[id].len; i++) {
            h = hash_byte(h, pieces[id].text[i]);
            uint64_t bit = hash_bit(s, h);
            s->prefixes[bit >> 6] |= (uint64_t)1 << (bit & 63);
        }
    }
    return s->prefixes != NULL;
}

static bool ways_reserve(Encoding *e, size_t n) {
    if (n <= e->ways_capacity) return true;
    size_t capacity = n + n / 2;
    Way *ways = realloc(e->ways, capacity * sizeof *ways);
    if (!ways) return false;
    e->ways = ways;
    e->ways_capacity = capacity;
    return true;
}

// A tie keeps the longer last piece, whose beginning came first.
static void way_try(Way *to, double score, int32_t from, int32_t id) {
    if (score > to->score) *to = (Way){.score = score, .from = from, .id = id};
}

int unigram_encode(Encoding *e, const char *text, int n) {
    const Subwords *s = e->s;
    if (!ways_reserve(e, (size_t)n + 1)) return -1;
    Way *ways = e->ways;
    for (int i = 0; i <= n; i++) ways[i] = (Way){.score = -INFINITY, .id = NO_PIECE};
    ways[0].score = 0;
    for (int i = 0, len; i < n; i += len) {
        len = utf8_unit(text + i, n - i);
        bool single = false;
        uint64_t h = 0;
        for (int end = i; end < n && end - i < s->table.max_len;) {
            h = hash_byte(h, text[end++]);
            if (!is_prefix(s, h)) break;
            int32_t id = pieces_find(&s->table, text + i, end - i);
            if (id == NO_PIECE) continue;
            single |= end == i + len;
            way_try(&ways[end], ways[i].score + (double)s->vocab->pieces[id].score, i, id);
        }
        if (!single) way_try(&ways[i + len], ways[i].score + s->unknown_score, i, NO_PIECE);
    }
    for (int32_t end = n; end > 0; end = ways[end].from) ways[ways[end].from].to = end;
    for (int32_t i = 0, end; i < n; i = end) {
        end = ways[i].to;
        if (ways[end].id == NO_PIECE) encoding_emit_bytes(e, text + i, end - i);
        else encoding_emit(e, ways[end].id);
    }
    return 0;
}
