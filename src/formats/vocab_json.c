// vocab_json: the vocabulary of a Hugging Face tokenizer.json.
//
// Owns the model (BPE, Unigram, WordPiece), its merges and the added tokens. Refuses duplicate texts and ids, ids far
// above the number of tokens, and merges whose parts or result are not tokens. The two large values, model.vocab and
// model.merges, are read in place; jansson parses the rest, with null in their place. Called by vocab_folder.
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
    JsonReader vocab, merges; // at the two large values; `begin` NULL: absent
    char *room;               // the unused rest of v->text
    bool byte_fallback;       // <0xHH> are byte tokens
    size_t max_tokens;        // upper bound, by the size of model.vocab
    PieceTable table;         // the pieces of model.vocab
} VocabReader;

// ---- splitting the document

static bool is_key(const char *key, size_t n, const char *wanted) {
    return strlen(wanted) == n && !memcmp(key, wanted, n);
}

// Finds the two large values in the object "model".
static void find_values(VocabReader *x, JsonReader *r) {
    const char *key;
    size_t n;
    for (bool first = true; json_member(r, first, &key, &n); first = false) {
        JsonReader *value = is_key(key, n, "vocab") ? &x->vocab : &x->merges;
        bool large = value == &x->vocab || is_key(key, n, "merges");
        const char *from = r->at;
        json_skip(r);
        if (!large || value->begin || r->at == from || (*from != '[' && *from != '{')) continue;
        value->begin = r->begin;
        value->at = from;
        value->end = r->at;
    }
}

// Reports no errors: jansson does, when it parses the rest.
static void find_model(VocabReader *x, const File *file) {
    const char *begin = (const char *)file->data, *key;
    size_t n;
    JsonReader r = {.path = file->path, .begin = begin, .at = begin, .end = begin + file->size};
    bool found = false;
    if (!json_accept(&r, '{')) return;
    for (bool first = true; !found && json_member(&r, first, &key, &n); first = false) {
        found = is_key(key, n, "model");
        if (!found) json_skip(&r);
    }
    if (found && json_accept(&r, '{')) find_values(x, &r);
}

// A copy of the document with null for the two large values, which the readers are then positioned at.
static char *document_without_values(VocabReader *x, const File *file, size_t *n, char *err, size_t errlen) {
    const char *begin = (const char *)file->data, *end = begin + file->size;
    x->vocab = (JsonReader){.path = file->path, .what = "model.vocab", .err = err, .errlen = errlen};
    x->merges = (JsonReader){.path = file->path, .what = "model.merges", .err = err, .errlen = errlen};
    find_model(x, file);
    char *rest = malloc(file->size + 16), *to = rest;
    if (!rest) {
        fail(err, errlen, "%s: out of memory", file->path);
        return NULL;
    }
    bool merges_first = x->vocab.begin && x->merges.begin && x->merges.at < x->vocab.at;
    for (int i = 0; i < 2; i++) {
        const JsonReader *r = (i == 0) == merges_first ? &x->merges : &x->vocab;
        if (!r->begin) continue;
        to = mempcpy(to, begin, (size_t)(r->at - begin));
        to = mempcpy(to, "null", 4);
        begin = r->end;
    }
    to = mempcpy(to, begin, (size_t)(end - begin));
    *n = (size_t)(to - rest);
    return rest;
}

// ---- model.vocab

// Decodes the text of a piece in place, to the form that Vocab keeps; it may grow by one byte.
static int decode_text(const Vocab *v, char *text, size_t n) {
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

// The next piece of the vocabulary, stored in v->text.
static Piece piece_read(VocabReader *x) {
    Vocab *v = x->v;
    size_t n = json_read_string(&x->vocab, x->room);
    Piece p = {.text = x->room};
    if (n > INT_MAX - 1) json_fail(&x->vocab, "expected a string of less than 2 GiB");
    if (x->vocab.failed) return p;
    p.len = (int)n;
    p.type = TOKEN_BYTE;
    if (!x->byte_fallback || piece_byte(&p) < 0) {
        bool unreachable = v->metaspace && memchr(x->room, ' ', n); // pre-tokens hold U+2581 instead of spaces
        p.type = unreachable ? TOKEN_UNUSED : TOKEN_NORMAL;
    }
    p.len = decode_text(v, x->room, n);
    x->room += p.len;
    return p;
}

// Stores a token at its id. Lower ids may be missing so far.
static void piece_put(VocabReader *x, Piece p, long long id, JsonReader *r) {
    Vocab *v = x->v;
    long long n = arrlen(v->pieces), most = (long long)x->max_tokens + MAX_HOLES;
    if (most > MAX_TOKENS) most = MAX_TOKENS;
    if (id < 0 || id >= most) json_fail(r, "expected an id from 0 to %lld, found %lld", most - 1, id);
    if (r->failed) return;
    for (; n <= id; n++) arrput(v->pieces, ((Piece){.text = "", .type = TOKEN_UNUSED}));
    bool taken = *v->pieces[id].text || v->pieces[id].type != TOKEN_UNUSED;
    if (taken) json_fail(r, "duplicate id %lld", id);
    else v->pieces[id] = p;
}

// {"text": id, ...}
static void read_ids(VocabReader *x) {
    JsonReader *r = &x->vocab;
    json_expect(r, '{');
    for (bool first = true; json_more(r, '}', first); first = false) {
        Piece p = piece_read(x);
        json_expect(r, ':');
        piece_put(x, p, json_read_integer(r), r);
    }
}

// [["text", score], ...], in the order of ids
static void read_scored(VocabReader *x) {
    JsonReader *r = &x->vocab;
    json_expect(r, '[');
    for (bool first = true; json_more(r, ']', first); first = false) {
        json_expect(r, '[');
        Piece p = piece_read(x);
        json_expect(r, ',');
        p.score = (float)json_read_number(r);
        json_expect(r, ']');
        piece_put(x, p, arrlen(x->v->pieces), r);
    }
}

static void index_pieces(VocabReader *x) {
    const Piece *pieces = x->v->pieces;
    size_t n = arrlenu(pieces);
    if (!n) json_fail(&x->vocab, "expected at least one token");
    else if (!pieces_open(&x->table, pieces, n)) json_fail(&x->vocab, "out of memory");
    for (size_t id = 0; id < n && !x->vocab.failed; id++) {
        if (pieces[id].type == TOKEN_UNUSED) continue;
        int32_t other = pieces_add(&x->table, (int32_t)id);
        if (other == (int32_t)id) continue;
        json_fail(&x->vocab, "tokens %d and %d: duplicate text '%.*s'", other, (int)id,
                  pieces[id].len < 40 ? pieces[id].len : 40, pieces[id].text);
    }
}

// ---- model.merges

// "left right" or ["left", "right"]: concatenates the two strings in `room` and returns the length of the left one.
static size_t read_merge_texts(JsonReader *r, char *room, size_t *n) {
    if (json_accept(r, '[')) {
        size_t left = json_read_string(r, room);
        json_expect(r, ',');
        *n = left + json_read_string(r, room + left);
        json_expect(r, ']');
        return left;
    }
    *n = json_read_string(r, room);
    char *space = *n ? memchr(room, ' ', *n) : NULL;
    if (!space || memchr(space + 1, ' ', *n - (size_t)(space + 1 - room))) {
        json_fail(r, "expected two strings separated by a space");
        return 0;
    }
    memmove(space, space + 1, *n - (size_t)(space + 1 - room));
    --*n;
    return (size_t)(space - room);
}

// Results of merges are mostly in the order of merges: tries the result of the previous one and the token after it.
static int32_t merged_find(const VocabReader *x, const char *text, int n) {
    const Vocab *v = x->v;
    int32_t id = arrlen(v->merges) ? arrlast(v->merges).id : 0;
    for (int i = 0; i < 2 && id < arrlen(v->pieces); i++, id++) {
        const Piece *p = &v->pieces[id];
        if (p->len == n && p->type != TOKEN_UNUSED && !memcmp(p->text, text, (size_t)n)) return id;
    }
    return pieces_find(&x->table, text, n);
}

static void read_merge(VocabReader *x, char *room) {
    JsonReader *r = &x->merges;
    size_t n, n_left = read_merge_texts(r, room, &n);
    if (r->failed || n > INT_MAX) return;
    if (x->v->metaspace && memchr(room, ' ', n)) return; // its pieces are unreachable, see piece_read
    int left = decode_text(x->v, room, n_left);
    memmove(room + left, room + n_left, n - n_left);
    int right = decode_text(x->v, room + left, n - n_left);
    Merge m = {pieces_find(&x->table, room, left), pieces_find(&x->table, room + left, right),
               merged_find(x, room, left + right)};
    if (m.left < 0 || m.right < 0 || m.id < 0) {
        json_fail(r, "merge %d: expected two tokens that concatenate to a third, found '%.*s' and '%.*s'",
                  (int)arrlen(x->v->merges), left < 40 ? left : 40, room, right < 40 ? right : 40, room + left);
    } else arrput(x->v->merges, m);
}

static void read_merges(VocabReader *x) {
    JsonReader *r = &x->merges;
    char *room = malloc((size_t)(r->end - r->at) + 1);
    if (!room) json_fail(r, "out of memory");
    json_expect(r, '[');
    for (bool first = true; json_more(r, ']', first); first = false) read_merge(x, room);
    free(room);
}

// ---- added tokens

static Piece added_piece(VocabReader *x, Settings *s) {
    const json_t *content = json_object_get(s->object, "content");
    size_t n = json_string_length(content); // 0 if not a string
    bool special = settings_bool(s, "special", false);
    Piece p = {.text = x->room, .len = (int)n, .type = special ? TOKEN_CONTROL : TOKEN_USER};
    if (!n) settings_fail(s, "content", "expected a string");
    else x->room = mempcpy(x->room, json_string_value(content), n);
    if (settings_bool(s, "lstrip", false)) p.flags |= PIECE_LSTRIP;
    if (settings_bool(s, "rstrip", false)) p.flags |= PIECE_RSTRIP;
    if (settings_bool(s, "single_word", false)) p.flags |= PIECE_WORD;
    if (settings_bool(s, "normalized", !special)) p.flags |= PIECE_NORMALIZED;
    return p;
}

// Whether `p`, whose text is not decoded yet, has the text of `old`.
static bool same_text(const Vocab *v, const Piece *old, const Piece *p) {
    char *text = malloc((size_t)p->len + 2);
    if (!text) return false;
    memcpy(text, p->text, (size_t)p->len);
    int n = decode_text(v, text, (size_t)p->len);
    bool same = n == old->len && !memcmp(text, old->text, (size_t)n);
    free(text);
    return same;
}

static void added_put(VocabReader *x, Settings *s, Piece p) {
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
    if (!free_id && v->metaspace && memmem(p.text, (size_t)p.len, METASPACE, strlen(METASPACE))) {
        p.flags |= PIECE_ESCAPED;
        p.text = old->text;
        p.len = old->len;
    }
    p.score = old->score;
    *old = p;
}

static void read_added(VocabReader *x) {
    json_t *list = json_object_get(x->document.object, "added_tokens"), *token;
    bool valid = !list || json_is_array(list) || json_is_null(list);
    if (!valid) settings_fail(&x->document, "added_tokens", "expected an array");
    size_t i;
    json_array_foreach(list, i, token) {
        Settings s = {.object = token, .up = &x->document, .name = "added_tokens"};
        if (!json_is_object(token)) settings_fail(&x->document, "added_tokens", "expected objects");
        if (x->document.failed) return;
        Piece p = added_piece(x, &s);
        if (!x->document.failed) added_put(x, &s, p);
    }
}

// ---- the document

static void require_empty(Settings *s, const char *key) {
    if (*settings_string(s, key, "")) settings_fail(s, key, "expected an empty string, no other is supported");
}

static void read_unknown(VocabReader *x) {
    Vocab *v = x->v;
    if (v->kind == VOCAB_UNIGRAM) v->unk_id = settings_int(&x->model, "unk_id", -1, (int)arrlen(v->pieces) - 1, -1);
    const char *text = v->kind == VOCAB_UNIGRAM ? "" : settings_string(&x->model, "unk_token", "");
    if (*text) {
        Piece wanted = {.text = text, .len = (int)strlen(text)};
        for (ptrdiff_t id = 0; id < arrlen(v->pieces) && v->unk_id < 0; id++) {
            if (same_text(v, &v->pieces[id], &wanted)) v->unk_id = (int)id;
        }
        if (v->unk_id < 0) settings_fail(&x->model, "unk_token", "expected a token, found '%.40s'", text);
    }
    Piece *unknown = v->unk_id >= 0 ? &v->pieces[v->unk_id] : NULL;
    if (unknown && (unknown->type == TOKEN_NORMAL || unknown->type == TOKEN_UNUSED)) unknown->type = TOKEN_UNKNOWN;
}

static void read_kind(VocabReader *x) {
    Vocab *v = x->v;
    Settings *m = &x->model;
    const char *type = settings_string(m, "type", x->merges.begin ? "BPE" : NULL);
    bool bpe = !strcmp(type, "BPE"), wordpiece = !strcmp(type, "WordPiece"), unigram = !strcmp(type, "Unigram");
    bool known = bpe || wordpiece || unigram;
    if (!known) settings_fail(m, "type", "expected BPE, Unigram or WordPiece, found '%.40s'", type);
    if (!bpe && v->byte_level) settings_fail(m, "type", "expected BPE with ByteLevel, found %s", type);
    v->kind = VOCAB_WORDPIECE;
    if (bpe) v->kind = VOCAB_RANK_BPE;
    if (unigram) v->kind = VOCAB_UNIGRAM;
    v->ignore_merges = settings_bool(m, "ignore_merges", false);
    v->fuse_unk = unigram || settings_bool(m, "fuse_unk", false);
    settings_number(m, "dropout", 0, 0, 0);
    require_empty(m, "end_of_word_suffix");
    if (!wordpiece) require_empty(m, "continuing_subword_prefix");
    else if (strcmp(settings_string(m, "continuing_subword_prefix", "##"), "##") != 0) {
        settings_fail(m, "continuing_subword_prefix", "expected ##");
    }
    if (wordpiece) settings_int(m, "max_input_chars_per_word", 100, 100, 100);
    if (!x->vocab.begin) settings_fail(m, "vocab", unigram ? "expected an array" : "expected an object");
    if (bpe && !x->merges.begin) settings_fail(m, "merges", "expected an array");
}

// The ids of the post-processor are checked last, when all tokens are known.
static void check_ids(VocabReader *x, int *ids) {
    for (ptrdiff_t i = 0; i < arrlen(ids); i++) {
        if (ids[i] < arrlen(x->v->pieces)) continue;
        settings_fail(&x->document, "post_processor", "expected ids below %td, found %d", arrlen(x->v->pieces), ids[i]);
    }
}

static int document_read(VocabReader *x) {
    Vocab *v = x->v;
    x->model = settings_object(&x->document, "model");
    steps_read_decoder(&x->document, v);
    if (!x->document.failed) read_kind(x);
    if (x->document.failed) return -1;
    x->max_tokens = (size_t)(x->vocab.end - x->vocab.at) / 4;
    x->byte_fallback = settings_bool(&x->model, "byte_fallback", false);
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
    VocabReader x = {.v = v};
    size_t n;
    int rc = -1;
    char *rest = document_without_values(&x, file, &n, err, errlen);
    if (rest && !settings_parse(&x.document, file->path, rest, n, err, errlen)) {
        // enough room: decoding a piece adds at most one byte, and its two quotes are not copied
        x.room = v->text = malloc(file->size + 16);
        rc = v->text ? document_read(&x) : fail(err, errlen, "%s: out of memory", file->path);
    }
    settings_free(&x.document);
    pieces_close(&x.table);
    free(rest);
    if (rc) vocab_free(v);
    return rc;
}
