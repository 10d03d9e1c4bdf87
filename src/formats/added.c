// added: see added.h.
#include "added.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

int stored_text(const Vocab *v, char *text, size_t n) {
    if (v->byte_level) {
        int bytes = bytes_of_characters(text, n, NULL);
        return bytes < 0 ? (int)n : bytes_of_characters(text, n, text);
    }
    if (v->kind == VOCAB_WORDPIECE) {
        if (n >= 2 && text[0] == '#' && text[1] == '#') { // continues a word
            memmove(text, text + 2, n - 2);
            return (int)n - 2;
        }
        memmove(text + 1, text, n);
        text[0] = ' ';
        return (int)n + 1;
    }
    return (int)(v->metaspace ? spaces_unescape(text, text, n) : n);
}

// A token as it stands in the file; its text is the vocabulary's from now on.
static Piece token_read(Vocab *v, Settings *s) {
    const json_t *content = json_object_get(s->object, "content");
    size_t n = json_string_length(content); // 0 if not a string
    bool special = settings_bool(s, "special", false);
    Piece p = {.text = "", .len = n < INT_MAX ? (int)n : 0, .type = special ? TOKEN_CONTROL : TOKEN_USER};
    if (!json_is_string(content)) settings_fail(s, "content", "expected a string");
    if (p.len) p.text = vocab_keep_text(v, json_string_value(content), n);
    if (!p.text) settings_fail(s, "content", "out of memory");
    if (settings_bool(s, "lstrip", false)) p.flags |= PIECE_LSTRIP;
    if (settings_bool(s, "rstrip", false)) p.flags |= PIECE_RSTRIP;
    if (settings_bool(s, "single_word", false)) p.flags |= PIECE_WORD;
    if (settings_bool(s, "normalized", !special)) p.flags |= PIECE_NORMALIZED;
    return p;
}

int added_find(const Vocab *v, PieceTable *table, const Piece *p) {
    char *text = malloc((size_t)p->len + 2);
    if (!text) return -1;
    memcpy(text, p->text, (size_t)p->len);
    int n = stored_text(v, text, (size_t)p->len);
    table->pieces = v->pieces; // the array moves when it grows
    int id = pieces_find(table, text, n);
    free(text);
    return id;
}

static bool same_piece(const Piece *a, const Piece *b) {
    return a->len == b->len && !memcmp(a->text, b->text, (size_t)a->len);
}

// The id that counts, whatever the file says.
static int counted_id(Vocab *v, PieceTable *table, const Piece *p, int said) {
    int n = (int)arrlen(v->pieces), id = added_find(v, table, p);
    const Piece *taken =
        said < n && (v->pieces[said].len || v->pieces[said].type != TOKEN_UNUSED) ? &v->pieces[said] : NULL;
    if (id < 0) id = !taken || same_piece(taken, p) ? said : n;
    if (id != said) {
        note(&v->notes, "added token '%.*s': its id is %d, not %d, which %s", p->len < 40 ? p->len : 40, p->text, id,
             said, id < n ? "the vocabulary contradicts" : "another token has");
    }
    return id;
}

static void token_put(Vocab *v, PieceTable *table, Settings *s, Piece p) {
    int n = (int)arrlen(v->pieces), most = n + MAX_HOLES < MAX_TOKENS ? n + MAX_HOLES : MAX_TOKENS;
    int id = settings_int(s, "id", 0, most, -1);
    if (settings_failed(s)) return;
    id = counted_id(v, table, &p, id);
    for (; n <= id; n++) arrput(v->pieces, ((Piece){.text = "", .type = TOKEN_UNUSED}));
    Piece *old = &v->pieces[id];
    bool is_new = !old->len && old->type == TOKEN_UNUSED;
    if (id == v->unk_id) p.type = TOKEN_UNKNOWN;
    if (!is_new && old->type != TOKEN_UNUSED) p.flags |= PIECE_ORDINARY;
    if (!is_new && v->metaspace && memmem(p.text, (size_t)p.len, METASPACE, strlen(METASPACE))) {
        p.flags |= PIECE_ESCAPED;
        p.text = old->text;
        p.len = old->len;
    }
    p.score = old->score;
    *old = p;
}

void added_read(Vocab *v, PieceTable *table, Settings *document, const json_t *list) {
    bool valid = !list || json_is_array(list) || json_is_null(list);
    if (!valid) settings_fail(document, "added_tokens", "expected an array");
    for (size_t i = 0; i < json_array_size(list); i++) {
        Settings s = {.object = json_array_get(list, i), .up = document, .name = "added_tokens"};
        if (!json_is_object(s.object)) settings_fail(document, "added_tokens", "expected objects");
        if (settings_failed(document)) return;
        Piece p = token_read(v, &s);
        if (p.len && !settings_failed(document)) token_put(v, table, &s, p);
    }
}

json_t *added_beside(const json_t *list, json_t *more) {
    json_t *known = json_object(), *kept = json_array(), *token;
    size_t i;
    for (i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_object_get(json_array_get(list, i), "content"));
        if (text) json_object_set_new(known, text, json_true());
    }
    json_array_foreach(more, i, token) {
        const char *text = json_string_value(json_object_get(token, "content"));
        if (!text || !json_object_get(known, text)) json_array_append(kept, token);
    }
    json_decref(known);
    return kept;
}
