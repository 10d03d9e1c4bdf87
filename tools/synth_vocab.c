// synth_vocab: see synth_vocab.h.
#include "synth_vocab.h"

#include "pieces.h"

#include <stdio.h>
#include <string.h>

enum {
    FIRST_ASCII = SYNTH_CONTROL + SYNTH_BYTES,
    N_ASCII = '~' - ' ' + 1,
    FIRST_WORD = FIRST_ASCII + N_ASCII,
    N_COMPARED = 128
};

// Word i of a, b, .. z, aa, ab, ..: each is an earlier one and a letter, so that merges can produce it.
static void spell(char *word, int i) {
    char letters[SYNTH_PIECE];
    int n = 0;
    for (i++; i > 0; i = (i - 1) / 26) letters[n++] = (char)('a' + (i - 1) % 26);
    while (n) *word++ = letters[--n];
    *word = 0;
}

int synth_piece(char *piece, int id) {
    static const char *const control[] = {"<unk>", "\n<s>\n", "\n</s>\n"};
    if (id < SYNTH_CONTROL) return snprintf(piece, SYNTH_PIECE, "%s", control[id]);
    if (id < FIRST_ASCII) return snprintf(piece, SYNTH_PIECE, "<0x%02X>", (unsigned)(id - SYNTH_CONTROL) & 255u);
    if (id < FIRST_WORD) return snprintf(piece, SYNTH_PIECE, "%c", ' ' + id - FIRST_ASCII);
    int word = id - FIRST_WORD; // " a" " b" .. " z", then "aa" " aa" "ab" " ab" ..
    bool space = word < 26 || word % 2;
    piece[0] = ' ';
    spell(piece + space, word < 26 ? word : 26 + (word - 26) / 2);
    return (int)strlen(piece);
}

bool synth_vocab_is(const Tokenizer *t) {
    for (int id = FIRST_WORD; id < FIRST_WORD + N_COMPARED; id++) {
        char piece[SYNTH_PIECE], text[4 * SYNTH_PIECE];
        const Piece *p = tokenizer_piece(t, id);
        int n = synth_piece(piece, id);
        if (!p || p->len < n || p->len >= (int)sizeof text) return false;
        size_t length = spaces_unescape(text, p->text, (size_t)p->len);
        if (length != (size_t)n || memcmp(text, piece, length) != 0) return false;
    }
    return true;
}
