// make_marked.h: a vocabulary of <unk> <s> </s>, the bytes, words and the marks of conversations.
#pragma once
#include "tokenizer.h"

#include <stdio.h>
#include <string.h>

#include <stb/stb_ds.h>

static void put_marked_piece(Vocab *v, const char *text, TokenType type) {
    Piece p = {.text = text, .len = (int)strlen(text), .score = -(float)arrlen(v->pieces), .type = type};
    arrput(v->pieces, p);
}

// NULL fails. The texts must stay.
static Tokenizer *make_marked(const char *const *words, size_t n_words, const char *const *marks, size_t n_marks,
                              TokenType type, bool prefix) {
    static char bytes[256][8];
    Vocab v = {.bos_id = 1, .eos_id = 2, .unk_id = 0, .add_space_prefix = prefix};
    put_marked_piece(&v, "<unk>", TOKEN_UNKNOWN);
    put_marked_piece(&v, "<s>", TOKEN_CONTROL);
    put_marked_piece(&v, "</s>", TOKEN_CONTROL);
    for (int b = 0; b < 256; b++) {
        snprintf(bytes[b], sizeof bytes[b], "<0x%02X>", (unsigned)b);
        put_marked_piece(&v, bytes[b], TOKEN_BYTE);
    }
    for (size_t i = 0; i < n_words; i++) put_marked_piece(&v, words[i], TOKEN_NORMAL);
    for (size_t i = 0; i < n_marks; i++) put_marked_piece(&v, marks[i], type);
    return tokenizer_new(&v, NULL, 0);
}
