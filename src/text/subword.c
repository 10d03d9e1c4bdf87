// subword: the output of one encoding, and the choice of the model. See subword.h.
#include "subword.h"

#include <limits.h>
#include <stdlib.h>

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

int subwords_encode(Encoding *e, const char *text, size_t n) {
    if (n > INT_MAX || !encoding_reserve_ids(e, n)) return -1;
    e->after_unknown = false;
    switch (e->s->vocab->kind) {
    case VOCAB_UNIGRAM: return unigram_encode(e, text, (int)n);
    case VOCAB_WORDPIECE: return wordpiece_encode(e, text, (int)n);
    default: return bpe_encode(e, text, (int)n);
    }
}
