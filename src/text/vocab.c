// vocab: what a piece is, and the memory of a vocabulary. See vocab.h.
#include "vocab.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

int piece_byte(const Piece *p) {
    if (p->type != TOKEN_BYTE || p->len != 6 || memcmp(p->text, "<0x", 3) != 0 || p->text[5] != '>') return -1;
    const char digits[] = {p->text[3], p->text[4], 0};
    return isxdigit((unsigned char)digits[0]) && isxdigit((unsigned char)digits[1]) ? (int)strtol(digits, NULL, 16)
                                                                                    : -1;
}

bool piece_is(const Piece *p, const char *text) {
    return strlen(text) == (size_t)p->len && !memcmp(text, p->text, (size_t)p->len);
}

bool piece_is_ordinary(const Piece *p) {
    return p->len > 0 && (p->type == TOKEN_NORMAL || (p->type == TOKEN_USER && (p->flags & PIECE_ORDINARY)));
}

const char *vocab_kind_name(const Vocab *v) {
    static const char *const names[] = {"SentencePiece BPE", "BPE", "unigram", "WordPiece", "longest match"};
    return v->byte_level && v->kind == VOCAB_RANK_BPE ? "byte-level BPE" : names[v->kind];
}

static void ids_truncate(int **ids, int n) {
    ptrdiff_t kept = 0;
    for (ptrdiff_t i = 0; i < arrlen(*ids); i++) {
        if ((*ids)[i] < n) (*ids)[kept++] = (*ids)[i];
    }
    if (*ids) arrsetlen(*ids, kept);
}

void vocab_truncate(Vocab *v, int n) {
    if (arrlen(v->pieces) <= n) return;
    ptrdiff_t kept = 0;
    for (ptrdiff_t i = 0; i < arrlen(v->merges); i++) {
        const Merge m = v->merges[i];
        if (m.left < n && m.right < n && m.id < n) v->merges[kept++] = m;
    }
    if (v->merges) arrsetlen(v->merges, kept);
    note(&v->notes, "the tokenizer has %td tokens, the model %d: the last %td are not used", arrlen(v->pieces), n,
         arrlen(v->pieces) - n);
    arrsetlen(v->pieces, n);
    ids_truncate(&v->prefix_ids, n);
    ids_truncate(&v->suffix_ids, n);
    ids_truncate(&v->end_ids, n);
}

const char *vocab_keep_text(Vocab *v, const char *text, size_t n) {
    char *copy = malloc(n + 1);
    if (!copy) return NULL;
    memcpy(copy, text, n);
    copy[n] = 0;
    arrput(v->texts, copy);
    return copy;
}

void vocab_free(Vocab *v) {
    arrfree(v->pieces);
    arrfree(v->merges);
    arrfree(v->prefix_ids);
    arrfree(v->suffix_ids);
    arrfree(v->end_ids);
    normalizer_free(v->normalizer);
    pretokenizer_free(v->pretokenizer);
    free(v->chat_template);
    free(v->text);
    for (ptrdiff_t i = 0; i < arrlen(v->texts); i++) free(v->texts[i]);
    arrfree(v->texts);
    memset(v, 0, sizeof *v);
}
