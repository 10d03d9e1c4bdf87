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
    static const char *const names[] = {"SentencePiece BPE", "BPE", "unigram", "WordPiece"};
    return v->byte_level ? "byte-level BPE" : names[v->kind];
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
    memset(v, 0, sizeof *v);
}
