// tokenizer: the steps of encoding, and the special tokens. See tokenizer.h.
//
// Text is split at special tokens into fragments; each is normalized and split again at the special tokens that are
// matched against normalized text; what remains is split into pre-tokens, which become ids.
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
    bool starts[256]; // [byte] whether some token begins with it
    bool has_user;    // some are USER tokens, which are always found
} Specials;

struct Tokenizer {
    Vocab vocab;
    int n_pieces;
    int max_len; // length in bytes of the longest piece
    Subwords subwords;
    Specials raw, normalized; // by the text that they are matched against
    char **special_texts;     // stb_ds array of malloc'd texts
};

// ---- indexing the vocabulary

// Of equal pieces the first is used, and of tokens for the same byte.
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

// Sets the text that a special token is matched by: its own, escaped, or normalized. false: out of memory.
static bool special_text(Tokenizer *t, Matcher *m, const Piece *p, bool normalized, Special *s) {
    size_t n = (size_t)p->len;
    if (!normalized && !(p->flags & PIECE_ESCAPED)) return true;
    char *text = p->flags & PIECE_ESCAPED ? spaces_escape(p->text, n, &n) : NULL;
    if (normalized) {
        char *escaped = text;
        text = normalizer_run(t->vocab.normalizer, m, escaped ? escaped : p->text, n, &n);
        free(escaped);
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
    bool normalized = (p->flags & PIECE_NORMALIZED) && t->vocab.normalizer;
    Specials *list = normalized ? &t->normalized : &t->raw;
    if (!special_text(t, m, p, normalized, &s)) return false;
    if (s.len <= 0) return true;
    arrput(list->list, s);
    list->has_user |= p->type == TOKEN_USER;
    list->starts[(unsigned char)s.text[0]] = true;
    return true;
}

static bool specials_index(Tokenizer *t) {
    Matcher *m = matcher_open();
    bool ok = m != NULL;
    for (int32_t id = 0; ok && id < t->n_pieces; id++) {
        const Piece *p = &t->vocab.pieces[id];
        bool special = p->type == TOKEN_CONTROL || p->type == TOKEN_USER || p->type == TOKEN_UNKNOWN;
        if (special && p->len > 0) ok = special_add(t, m, id);
    }
    matcher_close(m);
    Specials *lists[] = {&t->raw, &t->normalized};
    for (int i = 0; i < 2; i++) {
        if (lists[i]->list) qsort(lists[i]->list, arrlenu(lists[i]->list), sizeof(Special), special_order);
    }
    return ok;
}

// -1 for ids outside the vocabulary.
static int known_id(const Tokenizer *t, int id) {
    return id >= 0 && id < t->n_pieces ? id : -1;
}

// Special tokens with these names end a turn or a text in every family that has them. <|end|> does, too, unless the
// vocabulary has <|return|>: then it only ends one of several messages (OpenAI's harmony format).
static void end_tokens_add(Tokenizer *t) {
    static const char *const names[] = {"<|im_end|>",    "<|eot_id|>",      "<|eom_id|>",
                                        "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>",
                                        "<turn|>",       "<|end_of_turn|>", "<|END_OF_TURN_TOKEN|>",
                                        "<|return|>",    "<|call|>",        "<|endofturn|>",
                                        "<EOT>",         "<|EOT|>",         "<end_of_utterance>"};
    int end = -1;
    bool has_return = false;
    for (int id = 0; id < t->n_pieces; id++) {
        const Piece *p = &t->vocab.pieces[id];
        if (p->type != TOKEN_CONTROL && p->type != TOKEN_USER) continue;
        has_return |= piece_is(p, "<|return|>");
        if (piece_is(p, "<|end|>")) end = id;
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            if (piece_is(p, names[k])) arrput(t->vocab.end_ids, id);
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
    end_tokens_add(t);
    if (!specials_index(t)) return false;
    if (v->kind == VOCAB_UNIGRAM) return unigram_index(s);
    if (v->kind == VOCAB_GREEDY) return prefixes_index(s);
    return v->kind == VOCAB_WORDPIECE || bpe_index(s);
}

void tokenizer_free(Tokenizer *t) {
    if (!t) return;
    for (ptrdiff_t i = 0; i < arrlen(t->special_texts); i++) free(t->special_texts[i]);
    arrfree(t->special_texts);
    arrfree(t->raw.list);
    arrfree(t->normalized.list);
    pieces_close(&t->subwords.table);
    free(t->subwords.merges);
    free(t->subwords.neighbors);
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

const Notes *tokenizer_notes(const Tokenizer *t) {
    return &t->vocab.notes;
}

const Piece *tokenizer_piece(const Tokenizer *t, int id) {
    return known_id(t, id) >= 0 ? &t->vocab.pieces[id] : NULL;
}

// ---- text to ids

typedef struct {
    const Tokenizer *t;
    Encoding e;
    Matcher *matcher; // for normalizers and pre-tokenizers
    bool control;     // TOKENIZE_SPECIAL
    bool plain;       // TOKENIZE_PLAIN
    bool inside;      // the text at hand continues other text
} Job;

typedef int (*FragmentVisitor)(Job *j, const char *text, size_t n, bool begins);

static int pretoken_encode(void *job, const char *text, size_t n) {
    Job *j = job;
    if (!n) return 0;
    bool escaped = j->t->vocab.metaspace && memmem(text, n, METASPACE, strlen(METASPACE));
    if (!escaped) return subwords_encode(&j->e, text, n);
    char *spaces = malloc(n);
    if (!spaces) return -1;
    size_t len = spaces_unescape(spaces, text, n);
    int rc = subwords_encode(&j->e, spaces, len);
    free(spaces);
    return rc;
}

// Encodes normalized text between special tokens.
static int plain_encode(Job *j, const char *text, size_t n, bool begins) {
    const Vocab *v = &j->t->vocab;
    if (!n) return 0;
    char *copy = NULL; // of the text with its prefix space
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

// Narrows [low, high), special tokens that agree up to byte `at`, to those whose byte there is `byte`.
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

// The longest special token at the start of text[n]; without `control` only USER ones.
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

static bool touches_word(const char *text, size_t n, size_t begin, size_t end) {
    uint32_t before = 0, after = 0;
    if (begin) utf8_decode_before(text, begin, &before);
    if (end < n) utf8_decode(text + end, n - end, &after);
    return character_is_word(before) || character_is_word(after);
}

static size_t spaces_before(const char *text, size_t least, size_t begin) {
    uint32_t c;
    while (begin > least) {
        size_t len = (size_t)utf8_decode_before(text, begin, &c);
        if (!character_is_space(c)) break;
        begin -= len;
    }
    return begin;
}

static size_t spaces_behind(const char *text, size_t n, size_t end) {
    uint32_t c;
    while (end < n) {
        size_t len = (size_t)utf8_decode(text + end, n - end, &c);
        if (!character_is_space(c)) break;
        end += len;
    }
    return end;
}

// Splits text at special tokens, visiting the fragments between them. Fragments may be empty.
static int specials_split(Job *j, const Specials *s, const char *text, size_t n, bool begins, FragmentVisitor visit) {
    size_t done = 0; // end of the previous special token
    if (!s->list || j->plain || !(j->control || s->has_user)) return visit(j, text, n, begins);
    for (size_t i = 0; i < n;) {
        const Special *found = s->starts[(unsigned char)text[i]] ? special_at(j, s, text + i, n - i) : NULL;
        if (!found) {
            i++;
            continue;
        }
        unsigned flags = j->t->vocab.pieces[found->id].flags;
        size_t begin = i, end = i + (size_t)found->len;
        i = end;
        if ((flags & PIECE_WORD) && touches_word(text, n, begin, end)) continue;
        if (flags & PIECE_LSTRIP) begin = spaces_before(text, done, begin);
        if (flags & PIECE_RSTRIP) end = spaces_behind(text, n, end);
        if (visit(j, text + done, begin - done, begins && !done) || !encoding_reserve_ids(&j->e, 1)) return -1;
        encoding_emit(&j->e, found->id);
        j->inside = false;
        i = done = end;
    }
    return visit(j, text + done, n - done, begins && !done);
}

static int fragment_encode(Job *j, const char *text, size_t n, bool begins) {
    const Vocab *v = &j->t->vocab;
    if (!n || !v->normalizer) return plain_encode(j, text, n, begins);
    char *normalized = normalizer_run(v->normalizer, j->matcher, text, n, &n);
    int rc = normalized ? specials_split(j, &j->t->normalized, normalized, n, begins, plain_encode) : -1;
    free(normalized);
    return rc;
}

// A copy with U+FFFD for each maximal ill-formed subpart. NULL: out of memory.
static char *text_repair(const char *text, size_t n, size_t *n_out) {
    char *out = malloc(3 * n + 16);
    Utf8Stream s = {0};
    if (!out) return NULL;
    *n_out = 0;
    for (size_t i = 0; i < n; i++) *n_out += utf8_push(&s, (unsigned char)text[i], out + *n_out);
    *n_out += utf8_finish(&s, out + *n_out);
    return out;
}

static int text_encode(Job *j, const char *text, size_t n) {
    const Vocab *v = &j->t->vocab;
    size_t end = n;
    bool any_bytes = v->byte_level || j->t->subwords.has_bytes || v->kind == VOCAB_SCORE_BPE;
    bool repair = !any_bytes && !(utf8_run(text, n, &end) && end == n);
    char *valid = repair ? text_repair(text, n, &n) : NULL;
    if (repair && !valid) return -1;
    int rc = specials_split(j, &j->t->raw, repair ? valid : text, n, !j->inside, fragment_encode);
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
    bool limited = rc && j.matcher && matcher_limited(j.matcher);
    free(j.e.nodes);
    free(j.e.heap);
    free(j.e.lattice);
    matcher_close(j.matcher);
    if (rc) {
        free(j.e.ids);
        return fail(err, errlen, "text of %zu bytes: %s", n,
                    limited ? "a regular expression of the tokenizer takes too long"
                            : "out of memory while tokenizing");
    }
    int32_t *fitting = realloc(j.e.ids, (j.e.n_ids + 1) * sizeof *fitting);
    *ids = fitting ? fitting : j.e.ids;
    return (int)j.e.n_ids;
}

bool tokenizer_adds_space(const Tokenizer *t) {
    return t->vocab.add_space_prefix || t->vocab.drop_space_prefix;
}

int tokenizer_longest(const Tokenizer *t) {
    return t->max_len;
}
