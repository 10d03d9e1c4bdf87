// vocab_json: the vocabulary of a Hugging Face tokenizer.json.
//
// Owns the model (BPE, Unigram, WordPiece), its merges and the added tokens. Refuses texts and ids that stand twice,
// ids far beyond the tokens, merges of what is no token. The two large values, model.vocab and model.merges, are read
// in place; jansson reads the rest, with null in their stead. Called by vocab_folder.
#include "vocab_json.h"

#include "json.h"
#include "pieces.h"
#include "steps_json.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

enum { MAX_TOKENS = 1 << 24, MAX_HOLES = 1 << 16 };

typedef struct {
    Vocab *v;
    Settings document, model;
    JsonReader vocab, merges; // at the large values; `begin` NULL: absent
    char *room;               // what is not used of v->text
    size_t max_tokens;        // an entry of the vocabulary takes some bytes
    PieceTable table;         // of the pieces of model.vocab
} Reader;

// ---- the document in three parts

static bool is_key(const char *key, size_t n, const char *wanted) {
    return strlen(wanted) == n && !memcmp(key, wanted, n);
}

// In model's object: where its large values begin and end.
static void find_values(Reader *x, JsonReader *r) {
    const char *key;
    size_t n;
    for (bool first = true; json_member(r, first, &key, &n); first = false) {
        JsonReader *value = is_key(key, n, "vocab") ? &x->vocab : is_key(key, n, "merges") ? &x->merges : NULL;
        const char *from = r->at;
        json_skip(r);
        if (!value || value->begin || r->at == from || (*from != '[' && *from != '{')) continue;
        value->begin = r->begin;
        value->at = from;
        value->end = r->at;
    }
}

// What is wrong with the text is jansson's to say.
static void find_model(Reader *x, const File *file) {
    const char *begin = (const char *)file->data, *key;
    size_t n;
    JsonReader r = {.path = file->path, .begin = begin, .at = begin, .end = begin + file->size};
    bool found = false;
    if (!json_take(&r, '{')) return;
    for (bool first = true; !found && json_member(&r, first, &key, &n); first = false) {
        found = is_key(key, n, "model");
        if (!found) json_skip(&r);
    }
    if (found && json_take(&r, '{')) find_values(x, &r);
}

// The text with null for the two large values, which the readers then stand at.
static char *document_slim(Reader *x, const File *file, size_t *n, char *err, size_t errlen) {
    const char *begin = (const char *)file->data, *end = begin + file->size;
    x->vocab = (JsonReader){.path = file->path, .what = "model.vocab", .err = err, .errlen = errlen};
    x->merges = (JsonReader){.path = file->path, .what = "model.merges", .err = err, .errlen = errlen};
    find_model(x, file);
    char *slim = malloc(file->size + 16), *to = slim;
    bool merges_first = x->vocab.begin && x->merges.begin && x->merges.at < x->vocab.at;
    for (int i = 0; i < 2 && slim; i++) {
        const JsonReader *r = (i == 0) == merges_first ? &x->merges : &x->vocab;
        if (!r->begin) continue;
        to = mempcpy(to, begin, (size_t)(r->at - begin));
        to = mempcpy(to, "null", 4);
        begin = r->end;
    }
    if (slim) to = mempcpy(to, begin, (size_t)(end - begin));
    *n = slim ? (size_t)(to - slim) : 0;
    if (!slim) fail(err, errlen, "%s: out of memory", file->path);
    return slim;
}

// ---- model.vocab

// A piece's text as Vocab wants it, in place; there is room for one more byte.
static int text_of_piece(const Vocab *v, char *text, size_t n) {
    if (v->byte_level) {
        int bytes = bytes_of_characters(text, n, NULL);
        return bytes < 0 ? (int)n : bytes_of_characters(text, n, text);
    }
    if (v->kind == VOCAB_WORDPIECE) {
        bool continues = n >= 2 && text[0] == '#' && text[1] == '#';
        memmove(text + !continues, text + (continues ? 2 : 0), continues ? n - 2 : n);
        if (!continues) text[0] = ' ';
        return (int)(continues ? n - 2 : n + 1);
    }
    return (int)(v->space_mark ? text_unmark(text, text, n) : n);
}

static bool is_byte_text(const char *text, size_t n) {
    static const char hex[] = "0123456789ABCDEFabcdef";
    return n == 6 && !memcmp(text, "<0x", 3) && text[5] == '>' && memchr(hex, text[3], 22) && memchr(hex, text[4], 22);
}

// The next text of the vocabulary, kept in v->text.
static Piece piece_read(Reader *x, bool byte_fallback) {
    Vocab *v = x->v;
    size_t n = json_text(&x->vocab, x->room);
    Piece p = {.text = x->room};
    if (n > INT_MAX - 1) json_fail(&x->vocab, "expected a text of less than 2 GiB");
    if (x->vocab.failed) return p;
    bool unreachable = v->space_mark && memchr(x->room, ' ', n); // every space became a mark before
    p.type = byte_fallback && is_byte_text(x->room, n) ? TOKEN_BYTE : unreachable ? TOKEN_UNUSED : TOKEN_NORMAL;
    p.len = text_of_piece(v, x->room, n);
    x->room += p.len;
    return p;
}

// A token at its id; before it there may be ids without one.
static void piece_put(Reader *x, Piece p, int64_t id, JsonReader *r) {
    Vocab *v = x->v;
    int64_t n = arrlen(v->pieces), most = (int64_t)x->max_tokens + MAX_HOLES;
    if (most > MAX_TOKENS) most = MAX_TOKENS;
    if (id < 0 || id >= most)
        json_fail(r, "expected an id from 0 to %lld, found %lld", (long long)most - 1, (long long)id);
    if (r->failed) return;
    for (; n <= id; n++) arrput(v->pieces, ((Piece){.text = "", .type = TOKEN_UNUSED}));
    if (*v->pieces[id].text || v->pieces[id].type != TOKEN_UNUSED)
        json_fail(r, "expected each id once, found %lld twice", (long long)id);
    else v->pieces[id] = p;
}

// {"text": id, ...}
static void read_ids(Reader *x) {
    JsonReader *r = &x->vocab;
    bool byte_fallback = settings_bool(&x->model, "byte_fallback", false);
    json_need(r, '{');
    for (bool first = true; json_more(r, '}', first); first = false) {
        Piece p = piece_read(x, byte_fallback);
        json_need(r, ':');
        piece_put(x, p, json_whole(r), r);
    }
}

// [["text", score], ...], the ids in order
static void read_scored(Reader *x) {
    JsonReader *r = &x->vocab;
    bool byte_fallback = settings_bool(&x->model, "byte_fallback", false);
    json_need(r, '[');
    for (bool first = true; json_more(r, ']', first); first = false) {
        json_need(r, '[');
        Piece p = piece_read(x, byte_fallback);
        json_need(r, ',');
        p.score = (float)json_number(r);
        json_need(r, ']');
        piece_put(x, p, arrlen(x->v->pieces), r);
    }
}

static void index_pieces(Reader *x) {
    const Piece *pieces = x->v->pieces;
    size_t n = arrlenu(pieces);
    if (!n) json_fail(&x->vocab, "expected tokens, found none");
    else if (!pieces_open(&x->table, pieces, n)) json_fail(&x->vocab, "out of memory");
    for (size_t id = 0; id < n && !x->vocab.failed; id++) {
        if (pieces[id].type == TOKEN_UNUSED) continue;
        int32_t other = pieces_add(&x->table, (int32_t)id);
        if (other == (int32_t)id) continue;
        json_fail(&x->vocab, "tokens %d and %d: expected different texts, found '%.*s' twice", other, (int)id,
                  pieces[id].len < 40 ? pieces[id].len : 40, pieces[id].text);
    }
}

// ---- model.merges

// "left right", or ["left", "right"]: the two texts, side by side in `room`. Returns the bytes of the left one.
static size_t read_merge_texts(JsonReader *r, char *room, size_t *n) {
    if (json_take(r, '[')) {
        size_t left = json_text(r, room);
        json_need(r, ',');
        *n = left + json_text(r, room + left);
        json_need(r, ']');
        return left;
    }
    *n = json_text(r, room);
    char *space = *n ? memchr(room, ' ', *n) : NULL;
    if (!space || memchr(space + 1, ' ', *n - (size_t)(space + 1 - room))) {
        json_fail(r, "expected two texts with a space between");
        return 0;
    }
    memmove(space, space + 1, *n - (size_t)(space + 1 - room));
    --*n;
    return (size_t)(space - room);
}

// What merges make mostly stands in the order of the merges: the token of the one before, or the next.
static int32_t merged_find(const Reader *x, const char *text, int n) {
    const Vocab *v = x->v;
    int32_t id = arrlen(v->merges) ? arrlast(v->merges).id : 0;
    for (int i = 0; i < 2 && id < arrlen(v->pieces); i++, id++) {
        const Piece *p = &v->pieces[id];
        if (p->len == n && p->type != TOKEN_UNUSED && !memcmp(p->text, text, (size_t)n)) return id;
    }
    return pieces_find(&x->table, text, n);
}

static void read_merge(Reader *x, char *room) {
    JsonReader *r = &x->merges;
    size_t n, n_left = read_merge_texts(r, room, &n);
    if (r->failed || n > INT_MAX) return;
    if (x->v->space_mark && memchr(room, ' ', n)) return; // of unreachable pieces
    int left = text_of_piece(x->v, room, n_left);
    memmove(room + left, room + n_left, n - n_left);
    int right = text_of_piece(x->v, room + left, n - n_left);
    Merge m = {pieces_find(&x->table, room, left), pieces_find(&x->table, room + left, right),
               merged_find(x, room, left + right)};
    if (m.left < 0 || m.right < 0 || m.id < 0) {
        json_fail(r, "merge %d: expected two tokens that make a third, found '%.*s' and '%.*s'",
                  (int)arrlen(x->v->merges), left < 40 ? left : 40, room, right < 40 ? right : 40, room + left);
    } else arrput(x->v->merges, m);
}

static void read_merges(Reader *x) {
    JsonReader *r = &x->merges;
    char *room = malloc((size_t)(r->end - r->at) + 1);
    if (!room) json_fail(r, "out of memory");
    json_need(r, '[');
    for (bool first = true; json_more(r, ']', first); first = false) read_merge(x, room);
    free(room);
}

// ---- added tokens

static Piece added_piece(Reader *x, Settings *s) {
    static const struct {
        const char *key;
        uint8_t flag;
    } flags[] = {{"lstrip", PIECE_LSTRIP}, {"rstrip", PIECE_RSTRIP}, {"single_word", PIECE_WORD}};
    const json_t *content = json_object_get(s->object, "content");
    size_t n = json_string_length(content); // 0: no text
    bool special = settings_bool(s, "special", false);
    Piece p = {.text = x->room, .len = (int)n, .type = special ? TOKEN_CONTROL : TOKEN_USER};
    if (!n) settings_fail(s, "content", "expected a text");
    else x->room = mempcpy(x->room, json_string_value(content), n);
    for (size_t i = 0; i < 3; i++) p.flags |= settings_bool(s, flags[i].key, false) ? flags[i].flag : 0;
    if (settings_bool(s, "normalized", !special)) p.flags |= PIECE_NORMALIZED;
    return p;
}

// As piece `old` would be written by text_of_piece.
static bool same_text(const Vocab *v, const Piece *old, const Piece *p) {
    char *text = malloc((size_t)p->len + 2);
    if (!text) return false;
    memcpy(text, p->text, (size_t)p->len);
    int n = text_of_piece(v, text, (size_t)p->len);
    bool same = n == old->len && !memcmp(text, old->text, (size_t)n);
    free(text);
    return same;
}

static void added_put(Reader *x, Settings *s, Piece p) {
    Vocab *v = x->v;
    int n = (int)arrlen(v->pieces), most = n + MAX_HOLES < MAX_TOKENS ? n + MAX_HOLES : MAX_TOKENS;
    int id = settings_int(s, "id", 0, most, -1);
    if (x->document.failed) return;
    for (; n <= id; n++) arrput(v->pieces, ((Piece){.text = "", .type = TOKEN_UNUSED}));
    Piece *old = &v->pieces[id];
    bool free_id = old->type == TOKEN_UNUSED && !old->len;
    if (!free_id && !same_text(v, old, &p)) {
        settings_fail(s, "content", "token %d: expected '%.*s', as in the model's vocabulary, found '%.*s'", id,
                      old->len < 40 ? old->len : 40, old->text, p.len < 40 ? p.len : 40, p.text);
        return;
    }
    if (id == v->unk_id) p.type = TOKEN_UNKNOWN;
    if (!free_id && old->type != TOKEN_UNUSED) p.flags |= PIECE_ORDINARY;
    if (!free_id && v->space_mark && memmem(p.text, (size_t)p.len, "\xE2\x96\x81", 3)) {
        p.flags |= PIECE_MARKED;
        p.text = old->text;
        p.len = old->len;
    }
    p.score = old->score;
    *old = p;
}

static void read_added(Reader *x) {
    json_t *list = json_object_get(x->document.object, "added_tokens"), *token;
    if (list && !json_is_array(list) && !json_is_null(list))
        settings_fail(&x->document, "added_tokens", "expected an array");
    size_t i;
    json_array_foreach(list, i, token) {
        Settings s = {.object = token, .up = &x->document, .name = "added_tokens"};
        if (!json_is_object(token)) settings_fail(&x->document, "added_tokens", "expected objects");
        if (x->document.failed) return;
        Piece p = added_piece(x, &s);
        if (!x->document.failed) added_put(x, &s, p);
    }
}

// ---- the whole

static void refuse_text(Settings *s, const char *key) {
    if (*settings_text(s, key, "")) settings_fail(s, key, "expected none, it is not supported");
}

static void read_unknown(Reader *x) {
    Vocab *v = x->v;
    if (v->kind == VOCAB_UNIGRAM) v->unk_id = settings_int(&x->model, "unk_id", -1, (int)arrlen(v->pieces) - 1, -1);
    const char *text = v->kind == VOCAB_UNIGRAM ? "" : settings_text(&x->model, "unk_token", "");
    for (ptrdiff_t id = 0; *text && id < arrlen(v->pieces) && v->unk_id < 0; id++) {
        Piece wanted = {.text = text, .len = (int)strlen(text)};
        if (same_text(v, &v->pieces[id], &wanted)) v->unk_id = (int)id;
    }
    if (*text && v->unk_id < 0) settings_fail(&x->model, "unk_token", "expected a token, found '%.40s'", text);
    Piece *unknown = v->unk_id >= 0 ? &v->pieces[v->unk_id] : NULL;
    if (unknown && (unknown->type == TOKEN_NORMAL || unknown->type == TOKEN_UNUSED)) unknown->type = TOKEN_UNKNOWN;
}

static void read_kind(Reader *x) {
    Vocab *v = x->v;
    Settings *m = &x->model;
    const char *type = settings_text(m, "type", x->merges.begin ? "BPE" : NULL);
    bool bpe = !strcmp(type, "BPE"), wordpiece = !strcmp(type, "WordPiece"), unigram = !strcmp(type, "Unigram");
    if (!bpe && !wordpiece && !unigram)
        settings_fail(m, "type", "expected BPE, Unigram or WordPiece, found '%.40s'", type);
    if (!bpe && v->byte_level) settings_fail(m, "type", "expected BPE behind ByteLevel, found %s", type);
    v->kind = bpe ? VOCAB_RANK_BPE : unigram ? VOCAB_UNIGRAM : VOCAB_WORDPIECE;
    v->ignore_merges = settings_bool(m, "ignore_merges", false);
    v->fuse_unk = unigram || settings_bool(m, "fuse_unk", false);
    settings_number(m, "dropout", 0, 0, 0);
    refuse_text(m, "end_of_word_suffix");
    if (!wordpiece) refuse_text(m, "continuing_subword_prefix");
    else if (strcmp(settings_text(m, "continuing_subword_prefix", "##"), "##") != 0) {
        settings_fail(m, "continuing_subword_prefix", "expected ##");
    }
    if (wordpiece) settings_int(m, "max_input_chars_per_word", 100, 100, 100);
    if (!x->vocab.begin) settings_fail(m, "vocab", unigram ? "expected an array" : "expected an object");
    if (bpe && !x->merges.begin) settings_fail(m, "merges", "expected an array");
}

// Template ids are checked when all tokens are known.
static void check_ids(Reader *x, int *ids) {
    for (ptrdiff_t i = 0; i < arrlen(ids); i++) {
        if (ids[i] < arrlen(x->v->pieces)) continue;
        settings_fail(&x->document, "post_processor", "expected ids below %td, found %d", arrlen(x->v->pieces), ids[i]);
    }
}

static int document_read(Reader *x) {
    Vocab *v = x->v;
    x->model = settings_object(&x->document, "model");
    steps_read_decoder(&x->document, v);
    if (!x->document.failed) read_kind(x);
    if (x->document.failed) return -1;
    x->max_tokens = (size_t)(x->vocab.end - x->vocab.at) / 4;
    if (v->kind == VOCAB_UNIGRAM) read_scored(x);
    else read_ids(x);
    if (!x->vocab.failed) index_pieces(x);
    if (!x->vocab.failed && v->kind == VOCAB_RANK_BPE) read_merges(x);
    if (x->vocab.failed || x->merges.failed) return -1;
    read_unknown(x);
    read_added(x);
    if (!x->document.failed) steps_read(&x->document, v);
    check_ids(x, v->prefix_ids);
    check_ids(x, v->suffix_ids);
    v->no_bos = !arrlen(v->prefix_ids);
    return x->document.failed ? -1 : 0;
}

int vocab_json_read(Vocab *v, const File *file, char *err, size_t errlen) {
    *v = (Vocab){.bos_id = -1, .eos_id = -1, .unk_id = -1};
    Reader x = {.v = v};
    size_t n;
    int rc = -1;
    char *slim = document_slim(&x, file, &n, err, errlen);
    if (slim && !settings_parse(&x.document, file->path, slim, n, err, errlen)) {
        // texts grow by a byte where their quotes were two; added tokens stand in the rest
        x.room = v->text = malloc(file->size + 16);
        rc = v->text ? document_read(&x) : fail(err, errlen, "%s: out of memory", file->path);
    }
    settings_free(&x.document);
    pieces_close(&x.table);
    free(slim);
    if (rc) vocab_free(v);
    return rc;
}
