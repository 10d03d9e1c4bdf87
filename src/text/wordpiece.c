// wordpiece: longest match first. In the table, pieces that begin a word have a leading space. See subword.h.
#include "subword.h"

#include "utf8.h"

#include <string.h>

enum { MAX_WORD_CHARS = 100 }; // longer words are unknown, as in BERT

static int count_characters(const char *text, int n) {
    int count = 0;
    for (int i = 0; i < n; i += utf8_unit(text + i, n - i)) count++;
    return count;
}

// The longest piece that is a prefix of text[n], and its length in the text; `word` has room for a space and the text.
static int32_t longest_piece(const Subwords *s, const char *text, int n, bool begins, char *word, int *len) {
    int most = s->table.max_len - begins;
    if (n > most) n = most;
    word[0] = ' ';
    memcpy(word + 1, text, n > 0 ? (size_t)n : 0);
    for (*len = n; *len > 0; --*len) {
        int32_t id = begins ? pieces_find(&s->table, word, *len + 1) : pieces_find(&s->table, text, *len);
        if (id != NO_PIECE) return id;
    }
    return NO_PIECE;
}

int wordpiece_encode(Encoding *e, const char *text, int n) {
    char word[4 * MAX_WORD_CHARS + 1];
    size_t before = e->n_ids;
    bool known = count_characters(text, n) <= MAX_WORD_CHARS;
    for (int i = 0, len; known && i < n; i += len) {
        int32_t id = longest_piece(e->s, text + i, n - i, !i, word, &len);
        known = id != NO_PIECE;
        if (known) encoding_emit(e, id);
    }
    if (known) return 0;
    e->n_ids = before;
    encoding_emit(e, e->s->vocab->unk_id);
    return 0;
}
