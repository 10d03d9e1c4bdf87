// tokenizer: see tokenizer.h.
//
// Encoding goes text -> stretches between special tokens -> normalized stretches, cut again at the special tokens that
// are sought there -> pre-tokens -> ids.
#include "tokenizer.h"

#include "file.h"
#include "subword.h"
#include "utf8.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

typedef struct {
    const char *text;
    int len;
    int32_t id;
} Special;

typedef struct {
    Special *list;    // stb_ds array, by text
    bool starts[256]; // some begins with this byte
    bool has_user;    // some is always found
} Specials;

struct Tokenizer {
    Vocab vocab;
    int n_pieces;
    int max_len; // bytes of the longest piece
    Subwords subwords;
    Specials raw, normalized; // by the text that they are sought in
    char **special_texts;     // stb_ds array of malloc'd texts
};

// ---- the vocabulary, indexed

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int piece_byte(const Piece *p) {
    if (p->type != TOKEN_BYTE || p->len != 6 || memcmp(p->text, "<0x", 3) != 0 || p->text[5] != '>') return -1;
    int hi = hex_digit(p->text[3]), lo = hex_digit(p->text[4]);
    return hi < 0 || lo < 0 ? -1 : hi * 16 + lo;
}

bool piece_is_ordinary(const Piece *p) {
    return p->len > 0 && (p->type == TOKEN_NORMAL || (p->type == TOKEN_USER && (p->flags & PIECE_ORDINARY)));
}

// The first of equal pieces is the one that text makes, and the first token of a byte.
static void piece_index(Tokenizer *t, int32_t id) {
    const Piece *p = &t->vocab.pieces[id];
    int32_t *byte_ids = t->subwords.byte_ids;
    int byte = piece_byte(p);
    if (p->len > t->max_len) t->max_len = p->len;
    if (piece_is_ordinary(p) && t->vocab.byte_level && p->len == 1) byte = (unsigned char)p->text[0];
    if (byte >= 0 && byte_ids[byte] == NO_PIECE) byte_ids[byte] = id;
    if (piece_is_ordinary(p)) pieces_add(&t->subwords.table, id);
}

static int special_order(const void *a, const void *b) {
    const Special *s = a, *r = b;
    int by_text = memcmp(s->text, r->text, (size_t)(s->len < r->len ? s->len : r->len));
    if (by_text || s->len != r->len) return by_text ? by_text : s->len - r->len;
    return s->id < r->id ? -1 : 1;
}

// What a special token is sought as: its text, or what that was before or becomes by the normalizer. false: no memory.
static bool special_text(Tokenizer *t, Matcher *m, const Piece *p, Special *s) {
    size_t n = (size_t)p->len;
    bool normalized = (p->flags & PIECE_NORMALIZED) && t->vocab.normalizer;
    if (!normalized && !(p->flags & PIECE_MARKED)) return true;
    char *text = p->flags & PIECE_MARKED ? text_mark(p->text, n, &n) : NULL;
    if (normalized) {
        char *before = text;
        text = normalizer_run(t->vocab.normalizer, m, before ? before : p->text, n, &n);
        free(before);
    }
    if (!text) return false;
    arrput(t->special_texts, text);
    s->text = text;
    s->len = n > INT_MAX ? 0 : (int)n;
    return true;
}

static bool special_add(Tokenizer *t, Matcher *m, int32_t id) {
    const Piece *p = &t->vocab.pieces[id];
    Special s = {p->text, p->len, id};
    Specials *list = (p->flags & PIECE_NORMALIZED) && t->vocab.normalizer ? &t->normalized : &t->raw;
    if (!special_text(t, m, p, &s)) return false;
    if (s.len <= 0) return true;
    arrput(list->list, s);
    list->has_user |= p->type == TOKEN_USER;
    list->starts[(unsigned char)s.text[0]] = true;
    return true;
}

static bool specials_index(Tokenizer *t) {
    Matcher *m = matcher_open();
    bool done = m != NULL;
    for (int32_t id = 0; id < t->n_pieces && done; id++) {
        const Piece *p = &t->vocab.pieces[id];
        bool special = p->type == TOKEN_CONTROL || p->type == TOKEN_USER || p->type == TOKEN_UNKNOWN;
        if (special && p->len > 0) done = special_add(t, m, id);
    }
    matcher_close(m);
    Specials *lists[] = {&t->raw, &t->normalized};
    for (int i = 0; i < 2; i++) {
        if (lists[i]->list) qsort(lists[i]->list, arrlenu(lists[i]->list), sizeof(Special), special_order);
    }
    return done;
}

static int known_id(const Tokenizer *t, int id) {
    return id >= 0 && id < t->n_pieces ? id : -1;
}

static bool text_is(const Piece *p, const char *text) {
    return strlen(text) == (size_t)p->len && !memcmp(text, p->text, (size_t)p->len);
}

// Special tokens by these names end a turn or a text in every family that has them, but <|end|>: beside <|return|> it
// ends one message of several (OpenAI's harmony format).
static void end_marks_add(Tokenizer *t) {
    static const char *const marks[] = {"<|im_end|>",    "<|eot_id|>",      "<|eom_id|>",
                                        "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>",
                                        "<turn|>",       "<|end_of_turn|>", "<|END_OF_TURN_TOKEN|>",
                                        "<|return|>",    "<|call|>",        "<|endofturn|>",
                                        "<EOT>",         "<|EOT|>",         "<end_of_utterance>"};
    int end = -1;
    bool has_return = false;
    for (int id = 0; id < t->n_pieces; id++) {
        const Piece *p = &t->vocab.pieces[id];
        if (p->type != TOKEN_CONTROL && p->type != TOKEN_USER) continue;
        has_return |= text_is(p, "<|return|>");
        if (text_is(p, "<|end|>")) end = id;
        for (size_t k = 0; k < sizeof marks / sizeof *marks; k++) {
            if (text_is(p, marks[k])) arrput(t->vocab.end_ids, id);
        }
    }
    if (end >= 0 && !has_return) arrput(t->vocab.end_ids, end);
}

static bool vocab_index(Tokenizer *t) {
    Vocab *v = &t->vocab;
    Subwords *s = &t->subwords;
    s->vocab = v;
    s->has_bytes = true;
    for (int b = 0; b < 256; b++) s->byte_ids[b] = NO_PIECE;
    if (!pieces_open(&s->table, v->pieces, (size_t)t->n_pieces)) return false;
    for (int32_t id = 0; id < t->n_pieces; id++) piece_index(t, id);
    for (int b = 0; b < 256; b++) s->has_bytes &= s->byte_ids[b] != NO_PIECE;
    v->bos_id = known_id(t, v->bos_id);
    v->eos_id = known_id(t, v->eos_id);
    v->unk_id = known_id(t, v->unk_id);
    if (!v->prefix_ids && !v->no_bos && v->bos_id >= 0) arrput(v->prefix_ids, v->bos_id);
    end_marks_add(t);
    if (!specials_index(t)) return false;
    if (v->kind == VOCAB_UNIGRAM) return unigram_index(s);
    return v->kind == VOCAB_WORDPIECE || bpe_index(s);
}

const char *vocab_kind_name(const Vocab *v) {
    static const char *const names[] = {"SentencePiece BPE", "BPE", "unigram", "WordPiece"};
    return v->byte_level ? "byte-level BPE" : names[v->kind];
}

void vocab_free(Vocab *v) {
    arrfree(v->pieces);
    arrfree(v->merges);
    arrfree(v->prefix_ids);
    arrfree(v->suffix_ids);
    arrfree(v->end_ids);
    normalizer_free(v->normalizer);
    pretokenizer_free(v->pretokenizer);
    free(v->chat_template);
    free(v->text);
    memset(v, 0, sizeof *v);
}

void tokenizer_free(Tokenizer *t) {
    if (!t) return;
    for (ptrdiff_t i = 0; i < arrlen(t->special_texts); i++) free(t->special_texts[i]);
    arrfree(t->special_texts);
    arrfree(t->raw.list);
    arrfree(t->normalized.list);
    pieces_close(&t->subwords.table);
    free(t->subwords.merges);
    free(t->subwords.touching);
    free(t->subwords.prefixes);
    vocab_free(&t->vocab);
    free(t);
}

Tokenizer *tokenizer_new(Vocab *vocab, char *err, size_t errlen) {
    size_t n = arrlenu(vocab->pieces);
    Tokenizer *t = calloc(1, sizeof *t);
    if (t) {
        t->vocab = *vocab;
        t->n_pieces = n <= INT_MAX / 2 ? (int)n : 0;
        memset(vocab, 0, sizeof *vocab);
        if ((size_t)t->n_pieces == n && vocab_index(t)) return t;
    }
    vocab_free(vocab);
    tokenizer_free(t);
    fail(err, errlen, "tokenizer: out of memory for %zu pieces", n);
    return NULL;
}

int tokenizer_size(const Tokenizer *t) {
    return t->n_pieces;
}

int tokenizer_bos(const Tokenizer *t) {
    return t->vocab.bos_id;
}

int tokenizer_eos(const Tokenizer *t) {
    return t->vocab.eos_id;
}

bool tokenizer_is_end(const Tokenizer *t, int id) {
    bool end = id == t->vocab.eos_id;
    for (ptrdiff_t i = 0; i < arrlen(t->vocab.end_ids); i++) end |= t->vocab.end_ids[i] == id;
    return end && known_id(t, id) >= 0;
}

const char *tokenizer_chat_template(const Tokenizer *t) {
    return t->vocab.chat_template;
}

const Piece *tokenizer_piece(const Tokenizer *t, int id) {
    return known_id(t, id) >= 0 ? &t->vocab.pieces[id] : NULL;
}

// ---- ids

bool encoding_reserve_ids(Encoding *e, size_t n) {
    if (n <= e->ids_capacity - e->n_ids) return true;
    size_t capacity = e->n_ids + n + e->n_ids / 2;
    if (capacity > INT_MAX) return false;
    int32_t *ids = realloc(e->ids, capacity * sizeof *ids);
    if (!ids) return false;
    e->ids = ids;
    e->ids_capacity = capacity;
    return true;
}

void encoding_emit(Encoding *e, int32_t id) {
    if (id >= 0) e->ids[e->n_ids++] = id;
    e->after_unknown = false;
}

void encoding_emit_bytes(Encoding *e, const char *text, int len) {
    const Subwords *s = e->s;
    bool all = true, fused = e->after_unknown && s->vocab->fuse_unk;
    for (int i = 0; i < len; i++) all &= s->byte_ids[(unsigned char)text[i]] != NO_PIECE;
    for (int i = 0; all && i < len; i++) encoding_emit(e, s->byte_ids[(unsigned char)text[i]]);
    if (!all && !fused) encoding_emit(e, s->vocab->unk_id);
    e->after_unknown = !all;
}

// ---- text to ids

typedef struct {
    const Tokenizer *t;
    Encoding e;
    Matcher *matcher; // of normalizers and pre-tokenizers
    bool control;     // find CONTROL tokens
    bool plain;       // find none at all
    bool inside;      // at text that goes on after other text
} Job;

typedef int (*StretchVisitor)(Job *j, const char *text, size_t n, bool begins);

static bool holds_mark(const char *text, size_t n) {
    return memmem(text, n, "\xE2\x96\x81", 3);
}

static int subwords_encode(Encoding *e, const char *text, size_t n) {
    if (n > INT_MAX || !encoding_reserve_ids(e, n)) return -1;
    e->after_unknown = false;
    switch (e->s->vocab->kind) {
    case VOCAB_UNIGRAM: return unigram_encode(e, text, (int)n);
    case VOCAB_WORDPIECE: return wordpiece_encode(e, text, (int)n);
    default: return bpe_encode(e, text, (int)n);
    }
}

static int pretoken_encode(void *job, const char *text, size_t n) {
    Job *j = job;
    if (!n) return 0;
    if (!j->t->vocab.space_mark || !holds_mark(text, n)) return subwords_encode(&j->e, text, n);
    char *spaces = malloc(n);
    if (!spaces) return -1;
    size_t len = text_unmark(spaces, text, n);
    int rc = subwords_encode(&j->e, spaces, len);
    free(spaces);
    return rc;
}

// Normalized text without special tokens.
static int plain_encode(Job *j, const char *text, size_t n, bool begins) {
    const Vocab *v = &j->t->vocab;
    if (!n) return 0;
    char *copy = NULL; // merges want the space and the text side by side
    if (v->add_space_prefix && !j->inside) {
        copy = malloc(n + 1);
        if (!copy) return -1;
        copy[0] = ' ';
        memcpy(copy + 1, text, n++);
        text = copy;
    }
    int rc = v->pretokenizer ? pretokenizer_run(v->pretokenizer, j->matcher, text, n, begins, pretoken_encode, j)
                             : pretoken_encode(j, text, n);
    free(copy);
    j->inside = false;
    return rc;
}

// The special tokens in [low, high), which agree up to byte `at`, whose byte there is `byte`.
static void specials_narrow(const Special *list, size_t *low, size_t *high, int at, unsigned char byte) {
    for (int upper = 0; upper < 2; upper++) {
        size_t lo = *low, hi = *high;
        while (lo < hi) {
            size_t mid = (lo + hi) / 2;
            int here = list[mid].len > at ? (unsigned char)list[mid].text[at] : -1;
            if (upper ? here <= byte : here < byte) lo = mid + 1;
            else hi = mid;
        }
        if (upper) *high = lo;
        else *low = lo;
    }
}

// The longest special token at the start of the text; without `control` only USER ones.
static const Special *special_at(const Job *j, const Specials *s, const char *text, size_t n) {
    const Special *found = NULL;
    size_t low = 0, high = arrlenu(s->list);
    for (int at = 0; low < high; at++) {
        for (size_t i = low; i < high && s->list[i].len == at; i++) {
            bool user = j->t->vocab.pieces[s->list[i].id].type == TOKEN_USER;
            if ((user || j->control) && (!found || found->len < at)) found = &s->list[i];
        }
        if ((size_t)at == n) break;
        specials_narrow(s->list, &low, &high, at, (unsigned char)text[at]);
    }
    return found;
}

static size_t character_before(const char *text, size_t at, uint32_t *c) {
    size_t begin = at;
    while (begin && at - begin < 4 && ((unsigned char)text[begin - 1] & 0xC0) == 0x80) begin--;
    if (begin && at - begin < 4) begin--;
    if ((size_t)utf8_decode(text + begin, at - begin, c) != at - begin) begin = at - 1, *c = 0xFFFD;
    return begin;
}

static bool touches_word(const char *text, size_t n, size_t begin, size_t end) {
    uint32_t c;
    if (begin && (character_before(text, begin, &c), character_is_word(c))) return true;
    return end < n && (utf8_decode(text + end, n - end, &c), character_is_word(c));
}

static int specials_split(Job *j, const Specials *s, const char *text, size_t n, bool begins, StretchVisitor visit) {
    size_t done = 0; // end of the special token before
    bool any = s->list && !j->plain && (j->control || s->has_user);
    for (size_t i = 0; any && i < n;) {
        const Special *found = s->starts[(unsigned char)text[i]] ? special_at(j, s, text + i, n - i) : NULL;
        if (!found) {
            i++;
            continue;
        }
        unsigned flags = j->t->vocab.pieces[found->id].flags;
        size_t begin = i, end = i + (size_t)found->len;
        i = end;
        if ((flags & PIECE_WORD) && touches_word(text, n, begin, end)) continue;
        uint32_t c;
        for (size_t at; (flags & PIECE_LSTRIP) && begin > done; begin = at) {
            at = character_before(text, begin, &c);
            if (!character_is_space(c)) break;
        }
        for (size_t len; (flags & PIECE_RSTRIP) && end < n; end += len) {
            len = (size_t)utf8_decode(text + end, n - end, &c);
            if (!character_is_space(c)) break;
        }
        if (visit(j, text + done, begin - done, begins && !done) || !encoding_reserve_ids(&j->e, 1)) return -1;
        encoding_emit(&j->e, found->id);
        j->inside = false;
        i = done = end;
    }
    return visit(j, text + done, n - done, begins && !done);
}

static int stretch_encode(Job *j, const char *text, size_t n, bool begins) {
    const Vocab *v = &j->t->vocab;
    if (!n || !v->normalizer) return plain_encode(j, text, n, begins);
    char *normal = normalizer_run(v->normalizer, j->matcher, text, n, &n);
    int rc = normal ? specials_split(j, &j->t->normalized, normal, n, begins, plain_encode) : -1;
    free(normal);
    return rc;
}

// Maximal ill-formed subparts as U+FFFD each, the way TextStream writes them. NULL: no memory.
static char *text_repair(const Tokenizer *t, const char *text, size_t n, size_t *n_out) {
    char *out = malloc(3 * n + 16);
    TextStream s = {.tokenizer = t};
    *n_out = 0;
    for (size_t i = 0; out && i < n; i++) *n_out += textstream_byte(&s, (unsigned char)text[i], out + *n_out);
    if (out) *n_out += textstream_finish(&s, out + *n_out);
    return out;
}

static bool keeps_bytes(const Tokenizer *t, const char *text, size_t n) {
    size_t end = n;
    if (t->vocab.byte_level || t->subwords.has_bytes || t->vocab.kind == VOCAB_SCORE_BPE || !n) return true;
    return utf8_run(text, n, &end) && end == n;
}

static int text_encode(Job *j, const char *text, size_t n) {
    if (keeps_bytes(j->t, text, n)) return specials_split(j, &j->t->raw, text, n, !j->inside, stretch_encode);
    char *valid = text_repair(j->t, text, n, &n);
    int rc = valid ? specials_split(j, &j->t->raw, valid, n, !j->inside, stretch_encode) : -1;
    free(valid);
    return rc;
}

static int ids_emit(Encoding *e, const int *ids) {
    if (!encoding_reserve_ids(e, arrlenu(ids))) return -1;
    for (ptrdiff_t i = 0; i < arrlen(ids); i++) encoding_emit(e, ids[i]);
    return 0;
}

static int job_run(Job *j, const char *text, size_t n, bool around) {
    const Vocab *v = &j->t->vocab;
    if (!encoding_reserve_ids(&j->e, n + 2)) return -1;
    if (v->normalizer || v->pretokenizer) {
        j->matcher = matcher_open();
        if (!j->matcher) return -1;
    }
    if (around && ids_emit(&j->e, v->prefix_ids)) return -1;
    if (around && !n && !v->prefix_ids && v->no_bos) encoding_emit(&j->e, v->bos_id);
    if (n && text_encode(j, text, n)) return -1;
    return around ? ids_emit(&j->e, v->suffix_ids) : 0;
}

int tokenizer_encode(const Tokenizer *t, const char *text, size_t n, unsigned flags, int32_t **ids, char *err,
                     size_t errlen) {
    *ids = NULL;
    if (n > INT_MAX - 2) return fail(err, errlen, "text of %zu bytes: at most %d can be tokenized", n, INT_MAX - 2);
    Job j = {.t = t,
             .e = {.s = &t->subwords},
             .control = flags & TOKENIZE_SPECIAL,
             .plain = flags & TOKENIZE_PLAIN,
             .inside = flags & TOKENIZE_INSIDE};
    int rc = job_run(&j, text, n, flags & TOKENIZE_BOS);
    bool given_up = rc && j.matcher && matcher_gave_up(j.matcher);
    free(j.e.nodes);
    free(j.e.heap);
    free(j.e.ways);
    matcher_close(j.matcher);
    if (rc) {
        free(j.e.ids);
        return fail(err, errlen, "text of %zu bytes: %s", n,
                    given_up ? "a pattern of the vocabulary takes too long" : "out of memory while tokenizing");
    }
    int32_t *fitting = realloc(j.e.ids, (j.e.n_ids + 1) * sizeof *fitting);
    *ids = fitting ? fitting : j.e.ids;
    return (int)j.e.n_ids;
}

size_t textstream_room(const Tokenizer *t) {
    return 3 * (size_t)t->max_len + 16;
}

TextStream textstream_start(const Tokenizer *t, bool at_start) {
    return (TextStream){.tokenizer = t,
                        .at_start = at_start && (t->vocab.add_space_prefix || t->vocab.drop_space_prefix)};
}
