// vocab_json: the vocabulary of a Hugging Face tokenizer.json.
//
// Owns the model (BPE, Unigram, WordPiece) and its merges. Of a key that is there twice the last counts. Refuses
// duplicate ids, ids far above the number of tokens, and merges whose parts or result are not tokens. The two large
// values, model.vocab and model.merges, are read in place; jansson parses the rest, with null in their place. Called by
// vocab_folder.
#include "vocab_json.h"

#include "added.h"
#include "json.h"
#include "steps_json.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

typedef struct {
    Vocab *v;
    Settings document, model;
    JsonReader vocab, merges; // at the two large values; `begin` NULL: absent
    char *room;               // the unused rest of v->text
    bool byte_fallback;       // <0xHH> are byte tokens
    size_t max_tokens;        // upper bound, by the size of model.vocab
    PieceTable table;         // the pieces of model.vocab
    json_t *more;             // added tokens of other files
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
        if (large) value->begin = NULL;
        if (!large || r->at == from || (*from != '[' && *from != '{')) continue;
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
    if (!json_accept(&r, '{')) return;
    for (bool first = true; json_member(&r, first, &key, &n); first = false) {
        JsonReader model = r;
        json_skip(&r);
        if (!is_key(key, n, "model")) continue;
        x->vocab.begin = x->merges.begin = NULL;
        model.end = r.at;
        if (json_accept(&model, '{')) find_values(x, &model);
    }
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
    p.len = stored_text(v, x->room, n);
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
        bool later = pieces[id].text > pieces[other].text; // texts lie in the order of the file
        if (later) pieces_put(&x->table, (int32_t)id);
        x->v->pieces[later ? (size_t)other : id] = (Piece){.text = "", .type = TOKEN_UNUSED};
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
    int left = stored_text(x->v, room, n_left);
    memmove(room + left, room + n_left, n - n_left);
    int right = stored_text(x->v, room + left, n - n_left);
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
        v->unk_id = added_find(v, &x->table, &wanted);
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
    const json_t *list = json_object_get(x->document.object, "added_tokens");
    json_t *more = added_beside(list, x->more);
    added_read(v, &x->table, &x->document, list);
    added_read(v, &x->table, &x->document, more);
    json_decref(more);
    if (!x->document.failed) steps_read(&x->document, v);
    check_ids(x, v->prefix_ids);
    check_ids(x, v->suffix_ids);
    v->no_bos = !arrlen(v->prefix_ids);
    return x->document.failed ? -1 : 0;
}

int vocab_json_read(Vocab *v, const File *file, char *err, size_t errlen) {
    return vocab_json_read_with(v, file, NULL, err, errlen);
}

int vocab_json_read_with(Vocab *v, const File *file, json_t *more, char *err, size_t errlen) {
    *v = (Vocab){.bos_id = -1, .eos_id = -1, .unk_id = -1};
    VocabReader x = {.v = v, .more = more};
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
