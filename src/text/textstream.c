// textstream: ids to text, in whole characters: see tokenizer.h.
#include "subword.h"
#include "utf8.h"

#include <string.h>

static size_t put_replacement(char *out) { // U+FFFD
    memcpy(out, "\xEF\xBF\xBD", 3);
    return 3;
}

// Bytes that the next one cannot continue are a maximal ill-formed subpart: they become one U+FFFD (Unicode 3.9,
// "U+FFFD substitution of maximal subparts"; the same as the WHATWG decoder).
size_t textstream_byte(TextStream *s, unsigned char b, char *out) {
    size_t n = 0;
    if (s->n_held && !utf8_follows(s->held[0], s->n_held, b)) n = textstream_finish(s, out);
    s->held[s->n_held++] = b;
    int len = utf8_lead(s->held[0]);
    if (len == 0) return n + textstream_finish(s, out + n);
    if (s->n_held < len) return n;
    memcpy(out + n, s->held, (size_t)len);
    s->n_held = 0;
    return n + (size_t)len;
}

size_t textstream_push(TextStream *s, int id, char *out) {
    const Piece *p = tokenizer_piece(s->tokenizer, id);
    if (!p || p->type == TOKEN_CONTROL || p->len <= 0) return 0;
    const char *text = p->text;
    int len = p->len, byte = piece_byte(p);
    char one = (char)byte;
    if (byte >= 0) text = &one, len = 1;
    if (p->type == TOKEN_UNKNOWN) text = " \xE2\x81\x87 ", len = 5; // U+2047, what SentencePiece shows
    else if (s->at_start && text[0] == ' ') text++, len--;
    s->at_start = false;
    size_t n = 0;
    for (int i = 0; i < len; i++) n += textstream_byte(s, (unsigned char)text[i], out + n);
    return n;
}

size_t textstream_finish(TextStream *s, char *out) {
    bool held = s->n_held > 0;
    s->n_held = 0;
    return held ? put_replacement(out) : 0;
}
