// pieces: the hash table of pieces, and U+2581 for spaces. See pieces.h.
#include "pieces.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static uint32_t text_hash(const char *text, int len) { // FNV-1a, folded
    uint64_t h = 0xCBF29CE484222325u;
    for (int i = 0; i < len; i++) h = (h ^ (unsigned char)text[i]) * 0x100000001B3u;
    return (uint32_t)(h ^ h >> 32);
}

// The slot of this text, or a free slot for it.
static PieceSlot *slot_find(const PieceTable *t, const char *text, int len, uint32_t hash) {
    for (uint32_t i = hash & t->mask;; i = (i + 1) & t->mask) {
        PieceSlot *s = &t->slots[i];
        if (s->id == NO_PIECE) return s;
        if (s->hash != hash) continue;
        const Piece *p = &t->pieces[s->id];
        if (p->len == len && !memcmp(p->text, text, (size_t)len)) return s;
    }
}

bool pieces_open(PieceTable *t, const Piece *pieces, size_t n) {
    size_t n_slots = 16;
    *t = (PieceTable){.pieces = pieces};
    if (n > INT_MAX / 2) return false;
    while (n_slots < 2 * n) n_slots *= 2;
    t->mask = (uint32_t)(n_slots - 1);
    t->slots = malloc(n_slots * sizeof *t->slots);
    if (!t->slots) return false;
    for (size_t i = 0; i < n_slots; i++) t->slots[i] = (PieceSlot){0, NO_PIECE};
    return true;
}

void pieces_close(PieceTable *t) {
    free(t->slots);
    *t = (PieceTable){0};
}

int32_t pieces_add(PieceTable *t, int32_t id) {
    const Piece *p = &t->pieces[id];
    uint32_t hash = text_hash(p->text, p->len);
    PieceSlot *s = slot_find(t, p->text, p->len, hash);
    if (s->id == NO_PIECE) *s = (PieceSlot){hash, id};
    if (p->len > t->max_len) t->max_len = p->len;
    return s->id;
}

void pieces_put(PieceTable *t, int32_t id) {
    const Piece *p = &t->pieces[id];
    slot_find(t, p->text, p->len, text_hash(p->text, p->len))->id = id;
}

int32_t pieces_find(const PieceTable *t, const char *text, int len) {
    return len > t->max_len ? NO_PIECE : slot_find(t, text, len, text_hash(text, len))->id;
}

size_t spaces_unescape(char *to, const char *text, size_t n) {
    char *at = to;
    for (size_t i = 0; i < n; i++) {
        bool space = n - i >= 3 && !memcmp(text + i, METASPACE, 3);
        *at++ = space ? ' ' : text[i];
        if (space) i += 2;
    }
    return (size_t)(at - to);
}

char *spaces_escape(const char *text, size_t n, size_t *n_out) {
    char *out = malloc(3 * n + 1), *to = out;
    if (!out) return NULL;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ') to = mempcpy(to, METASPACE, 3);
        else *to++ = text[i];
    }
    *n_out = (size_t)(to - out);
    return out;
}
