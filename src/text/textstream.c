// textstream: one token's text, and the character it completes. See textstream.h.
#include "textstream.h"

size_t textstream_push(TextStream *s, int id, char *out) {
    const Piece *p = tokenizer_piece(s->tokenizer, id);
    if (!p || (p->type == TOKEN_CONTROL && !s->special) || p->len <= 0) return 0;
    int value = piece_byte(p);
    char byte = (char)value;
    const char *text = value < 0 ? p->text : &byte;
    int len = value < 0 ? p->len : 1;
    if (p->type == TOKEN_UNKNOWN) {
        text = " \xE2\x81\x87 "; // U+2047, as SentencePiece decodes it
        len = 5;
    } else if (s->at_start && text[0] == ' ') {
        text++;
        len--;
    }
    s->at_start = false;
    size_t n = 0;
    for (int i = 0; i < len; i++) n += utf8_push(&s->utf8, (unsigned char)text[i], out + n);
    return n;
}

size_t textstream_finish(TextStream *s, char *out) {
    return utf8_finish(&s->utf8, out);
}

size_t textstream_room(const Tokenizer *t) {
    return 3 * (size_t)tokenizer_longest(t) + 16;
}

TextStream textstream_start(const Tokenizer *t, bool at_start) {
    return (TextStream){.tokenizer = t, .at_start = at_start && tokenizer_adds_space(t)};
}
