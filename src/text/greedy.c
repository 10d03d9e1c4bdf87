// greedy: the longest piece at each position, as RWKV's tokenizer has it. See subword.h.
#include "subword.h"

// The longest piece that is a prefix of text[n], and its length; NO_PIECE: there is none.
static int32_t longest_match(const Subwords *s, const char *text, int n, int *len) {
    int32_t found = NO_PIECE;
    uint64_t h = 0;
    for (int end = 1; end <= n && end <= s->table.max_len; end++) {
        h = prefix_hash(h, text[end - 1]);
        if (!prefix_known(s, h)) break;
        int32_t id = pieces_find(&s->table, text, end);
        if (id == NO_PIECE) continue;
        found = id;
        *len = end;
    }
    return found;
}

int greedy_encode(Encoding *e, const char *text, int n) {
    for (int i = 0, len; i < n; i += len) {
        len = 1;
        int32_t id = longest_match(e->s, text + i, n - i, &len);
        if (id == NO_PIECE) encoding_emit_bytes(e, text + i, 1);
        else encoding_emit(e, id);
    }
    return 0;
}
