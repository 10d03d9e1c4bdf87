// vocab_gguf: the vocabulary inside a GGUF file.
//
// Owns the meaning of the tokenizer.* keys. Refuses models other than those in read_kind, and merges whose parts or
// result are not tokens. Called by load_vocab.
#include "gguf.h"
#include "load.h"
#include "pieces.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

enum { MAX_TOKENS = 1 << 24 };
#define GUESSED_PRE "default"

// Opens an array and returns its offset, 0 where it is absent (unless it is tokens or merges) and after a failure. *n:
// its elements, which must be as many as before unless 0.
static uint64_t open_array(Gguf *g, const char *key, GgufType type, uint64_t *n) {
    char wanted[40];
    snprintf(wanted, sizeof wanted, "an array of %s", gguf_type_name(type));
    const GgufValue *v = gguf_open(g, key, type == GGUF_STRING, true, 1u << type, wanted);
    if (!v) return 0;
    if (*n && v->count != *n) {
        cursor_fail(&g->in, v->at, "%s: expected %llu elements, as many as tokens, found %llu", key,
                    (unsigned long long)*n, (unsigned long long)v->count);
    }
    *n = v->count;
    return g->in.failed ? 0 : v->at;
}

// Two passes: the first finds the size of all strings, the second copies them.
static void read_texts(Gguf *g, Vocab *v, uint64_t at, uint64_t n) {
    gguf_skip(&g->in, "tokenizer.ggml.tokens", GGUF_STRING, n);
    v->text = malloc(g->in.pos - at);
    if (!v->text) cursor_fail(&g->in, at, "tokenizer.ggml.tokens: out of memory");
    char *to = v->text;
    g->in.pos = at;
    for (uint64_t id = 0, bytes; id < n && !g->in.failed; id++) {
        uint64_t here = g->in.pos;
        const char *text = gguf_read_string(&g->in, &bytes, "token");
        if (bytes > INT_MAX) cursor_fail(&g->in, here, "token %d: expected less than 2 GiB", (int)id);
        if (g->in.failed) return;
        Piece p = {.text = to, .len = (int)bytes};
        arrput(v->pieces, p);
        to = (char *)mempcpy(to, text, bytes);
    }
}

static void read_scores(Gguf *g, Vocab *v, uint64_t at) {
    g->in.pos = at;
    for (ptrdiff_t id = 0; id < arrlen(v->pieces) && !g->in.failed; id++) {
        v->pieces[id].score = cursor_f32(&g->in, "score");
        if (!isnan(v->pieces[id].score)) continue;
        cursor_fail(&g->in, g->in.pos - 4, "token %d: score: expected a number, found NaN", (int)id);
    }
}

static void read_token_types(Gguf *g, Vocab *v, uint64_t at) {
    static const TokenType token_types[] = {TOKEN_NORMAL, TOKEN_NORMAL, TOKEN_UNKNOWN, TOKEN_CONTROL,
                                            TOKEN_USER,   TOKEN_UNUSED, TOKEN_BYTE}; // 0, undefined, to 6
    g->in.pos = at;
    for (ptrdiff_t id = 0; id < arrlen(v->pieces) && !g->in.failed; id++) {
        int32_t type = cursor_i32(&g->in, "token type");
        if (type < 0 || type > 6) {
            cursor_fail(&g->in, g->in.pos - 4, "token %d: type: expected 0 to 6, found %d", (int)id, type);
            return;
        }
        Piece *p = &v->pieces[id];
        p->type = token_types[type];
        if (p->type != TOKEN_BYTE || piece_byte(p) >= 0) continue;
        cursor_fail(&g->in, g->in.pos - 4, "token %d: expected a byte token <0xHH>, found '%.*s'", (int)id,
                    p->len < 40 ? p->len : 40, p->text);
    }
}

// Without token types, SentencePiece's byte tokens are known by their texts.
static void guess_token_types(Vocab *v) {
    for (ptrdiff_t id = 0; id < arrlen(v->pieces) && !v->byte_level; id++) {
        Piece p = v->pieces[id];
        p.type = TOKEN_BYTE;
        if (piece_byte(&p) >= 0) v->pieces[id] = p;
    }
    note(&v->notes, "tokenizer.ggml.token_type is absent: control tokens are those that other keys name");
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Bytes as Python prints them: \t, \n, \r, \xHH, and a backslash before other characters. Returns how many they are,
// written over the text; -1: two digits are missing.
static int unescape_bytes(char *text, int n) {
    static const char letters[] = "tnr", bytes[] = "\t\n\r";
    int len = 0;
    for (int i = 0; i < n; i++) {
        char c = text[i];
        if (c == '\\' && i + 1 < n) {
            c = text[++i];
            const char *letter = c ? strchr(letters, c) : NULL;
            if (letter) c = bytes[letter - letters];
            else if (c == 'x') {
                int high = i + 2 < n ? hex_digit(text[i + 1]) : -1, low = high < 0 ? -1 : hex_digit(text[i + 2]);
                if (low < 0) return -1;
                c = (char)(16 * high + low);
                i += 2;
            }
        }
        text[len++] = c;
    }
    return len;
}

// Of a vocabulary of RWKV.
static void unescape_texts(Gguf *g, Vocab *v) {
    for (ptrdiff_t id = 0; id < arrlen(v->pieces); id++) {
        Piece *p = &v->pieces[id];
        int len = unescape_bytes(v->text + (p->text - v->text), p->len);
        if (len < 0) {
            cursor_fail(&g->in, g->in.pos, "token %d: expected two digits of a byte behind \\x, found '%.*s'", (int)id,
                        p->len < 40 ? p->len : 40, p->text);
            return;
        }
        p->len = len;
    }
}

// Decodes the texts of pieces in place: spaces, and bytes in the byte-level alphabet. They never grow.
static void decode_texts(Vocab *v) {
    for (ptrdiff_t id = 0; id < arrlen(v->pieces); id++) {
        Piece *p = &v->pieces[id];
        char *text = v->text + (p->text - v->text);
        if (!v->byte_level) p->len = (int)spaces_unescape(text, text, (size_t)p->len);
        else if (p->type == TOKEN_NORMAL) {
            int n = bytes_of_characters(text, (size_t)p->len, NULL);
            if (n >= 0) p->len = bytes_of_characters(text, (size_t)p->len, text);
        }
    }
}

// "left right", in the byte-level alphabet. -1: one of the two, or their concatenation, is not a token.
static int merge_read(const PieceTable *table, const char *text, uint64_t n, char *room, Merge *m) {
    const char *space = n > 2 ? memchr(text + 1, ' ', n - 1) : NULL;
    if (!space) return -1;
    size_t n_left = (size_t)(space - text);
    int left = bytes_of_characters(text, n_left, room);
    int right = left < 0 ? -1 : bytes_of_characters(space + 1, n - n_left - 1, room + left);
    if (right < 0) return -1;
    m->left = pieces_find(table, room, left);
    m->right = pieces_find(table, room + left, right);
    m->id = pieces_find(table, room, left + right);
    return m->left < 0 || m->right < 0 || m->id < 0 ? -1 : 0;
}

static void read_merges(Gguf *g, Vocab *v) {
    static const char key[] = "tokenizer.ggml.merges";
    uint64_t n = 0, at = open_array(g, key, GGUF_STRING, &n);
    PieceTable table = {0};
    if (g->in.failed) return;
    if (n > MAX_TOKENS) {
        cursor_fail(&g->in, at, "%s: expected at most %d, found %llu", key, MAX_TOKENS, (unsigned long long)n);
    } else gguf_skip(&g->in, key, GGUF_STRING, n);
    char *room = malloc(g->in.pos - at + 1); // for any of them
    if (!g->in.failed && (!room || !pieces_open(&table, v->pieces, arrlenu(v->pieces)))) {
        cursor_fail(&g->in, at, "%s: out of memory", key);
    }
    for (ptrdiff_t id = 0; id < arrlen(v->pieces) && !g->in.failed; id++) pieces_add(&table, (int32_t)id);
    g->in.pos = at;
    for (uint64_t i = 0, bytes; i < n && !g->in.failed; i++) {
        uint64_t here = g->in.pos;
        const char *text = gguf_read_string(&g->in, &bytes, "merge");
        Merge m;
        if (!merge_read(&table, text, bytes, room, &m)) arrput(v->merges, m);
        else {
            cursor_fail(&g->in, here, "merge %d: expected two tokens that concatenate to a third, found '%.*s'", (int)i,
                        bytes < 40 ? (int)bytes : 40, text);
        }
    }
    pieces_close(&table);
    free(room);
}

// The id of a special token; -1 if all its bits are set. Absent: `fallback` if the vocabulary has that id, or else -1.
static int get_token(Gguf *g, Notes *notes, const char *key, int fallback, int n) {
    const GgufValue *v = gguf_open(g, key, false, false, GGUF_WHOLE_TYPES, "an integer");
    if (!v) return fallback < n ? fallback : -1;
    int64_t id = gguf_read_whole(&g->in, v->type);
    if (id == UINT32_MAX || id == -1) return -1;
    if (id >= 0 && id < n) return (int)id;
    note(notes, "%s is %lld, but there are %d tokens: the file names none", key, (long long)id, n);
    return -1;
}

// The chat template, and the tokens that end a turn or a message.
static void read_chat(Gguf *g, Vocab *v, int n) {
    uint64_t bytes = 0;
    const char *text = gguf_get_text(g, "tokenizer.chat_template", false, &bytes);
    if (text) v->chat_template = strndup(text, bytes);
    if (text && !v->chat_template) cursor_fail(&g->in, g->in.pos, "tokenizer.chat_template: out of memory");
    static const char *const ends[] = {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    for (int i = 0; i < 2; i++) {
        int id = get_token(g, &v->notes, ends[i], -1, n);
        if (id >= 0) arrput(v->end_ids, id);
    }
}

static void read_kind(Gguf *g, Vocab *v) {
    static const struct {
        const char *name;
        VocabKind kind;
    } kinds[] = {
        {"llama", VOCAB_SCORE_BPE}, {"gpt2", VOCAB_RANK_BPE}, {"t5", VOCAB_UNIGRAM},
        {"bert", VOCAB_WORDPIECE},  {"rwkv", VOCAB_GREEDY},
    };
    uint64_t n = 0;
    const char *name = gguf_get_text(g, "tokenizer.ggml.model", true, &n);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && name; i++) {
        if (strlen(kinds[i].name) != n || memcmp(kinds[i].name, name, n) != 0) continue;
        v->kind = kinds[i].kind;
        v->byte_level = v->kind == VOCAB_RANK_BPE || v->kind == VOCAB_GREEDY;
        v->metaspace = v->fuse_unk = v->kind == VOCAB_SCORE_BPE || v->kind == VOCAB_UNIGRAM; // as SentencePiece does
        return;
    }
    if (name) {
        cursor_fail(&g->in, gguf_get_value(g, "tokenizer.ggml.model", true)->at,
                    "tokenizer.ggml.model: expected llama, gpt2, t5, bert or rwkv, found '%.*s'", n < 40 ? (int)n : 40,
                    name);
    }
}

static void read_pieces(Gguf *g, Vocab *v) {
    uint64_t n = 0, scores = 0, token_types = 0, tokens = open_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &n);
    bool scored = v->kind == VOCAB_SCORE_BPE || v->kind == VOCAB_UNIGRAM;
    if (!g->in.failed && (n < 1 || n > MAX_TOKENS)) {
        cursor_fail(&g->in, tokens, "tokenizer.ggml.tokens: expected 1 to %d, found %llu", MAX_TOKENS,
                    (unsigned long long)n);
    }
    if (!g->in.failed && scored) scores = open_array(g, "tokenizer.ggml.scores", GGUF_F32, &n);
    if (!g->in.failed) token_types = open_array(g, "tokenizer.ggml.token_type", GGUF_I32, &n);
    g->in.pos = tokens;
    if (!g->in.failed) read_texts(g, v, tokens, n);
    if (!g->in.failed && scores) read_scores(g, v, scores);
    if (scored && !scores) note(&v->notes, "tokenizer.ggml.scores is absent: all scores are 0");
    if (!g->in.failed && token_types) read_token_types(g, v, token_types);
    if (!token_types) guess_token_types(v);
    if (!g->in.failed && v->kind == VOCAB_GREEDY) unescape_texts(g, v);
    else if (!g->in.failed) decode_texts(v);
}

// Defaults of the ids: <unk>, <s>, </s> are 0, 1, 2 in SentencePiece's models; </s> and <unk> are 1 and 2 in T5's.
static void read_specials(Gguf *g, Vocab *v) {
    static const int bos[] = {1, -1, -1, -1, -1}, eos[] = {2, -1, 1, -1, -1}, unk[] = {0, -1, 2, -1, -1}; // [VocabKind]
    int n = (int)arrlen(v->pieces);
    bool spm = v->kind == VOCAB_SCORE_BPE, t5 = v->kind == VOCAB_UNIGRAM, bert = v->kind == VOCAB_WORDPIECE,
         rwkv = v->kind == VOCAB_GREEDY;
    Notes *notes = &v->notes;
    v->bos_id = get_token(g, notes, "tokenizer.ggml.bos_token_id", bos[v->kind], n);
    v->eos_id = get_token(g, notes, "tokenizer.ggml.eos_token_id", eos[v->kind], n);
    v->unk_id = get_token(g, notes, "tokenizer.ggml.unknown_token_id", unk[v->kind], n);
    if (bert) {
        v->bos_id = get_token(g, notes, "tokenizer.ggml.cls_token_id", v->bos_id, n);
        v->eos_id = get_token(g, notes, "tokenizer.ggml.seperator_token_id", v->eos_id, n);
    }
    v->no_bos =
        !gguf_get_bool(g, "tokenizer.ggml.add_bos_token", v->kind == VOCAB_RANK_BPE ? !v->no_bos : !t5 && !rwkv);
    bool add_eos = gguf_get_bool(g, "tokenizer.ggml.add_eos_token", t5 || bert);
    if (add_eos && v->eos_id >= 0) arrput(v->suffix_ids, v->eos_id);
    v->add_space_prefix = gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", spm || t5) && !bert;
    v->drop_space_prefix = bert;
}

// The normalizer and pre-tokenizer. The functions called write a message without a location, which is added here.
static void read_steps(Gguf *g, Vocab *v) {
    char what[256] = "";
    uint64_t n;
    const char *key = "tokenizer.ggml.pre", *pre = NULL;
    int rc = 0;
    if (v->kind == VOCAB_RANK_BPE) {
        pre = gguf_get_text(g, key, false, &n);
        if (!pre)
            note(&v->notes, "%s is absent: how texts are split is a guess, as llama.cpp guesses it ('" GUESSED_PRE "')",
                 key);
        rc = pre ? gguf_pre_steps(v, pre, n, what, sizeof what)
                 : gguf_pre_steps(v, GUESSED_PRE, strlen(GUESSED_PRE), what, sizeof what);
    } else if (v->kind == VOCAB_WORDPIECE) {
        rc = normalizer_add_bert(&v->normalizer, true, true, true, true, what, sizeof what);
        if (!rc) rc = pretokenizer_add_bert(&v->pretokenizer, what, sizeof what);
    } else if (v->kind == VOCAB_UNIGRAM) {
        key = "tokenizer.ggml.precompiled_charsmap";
        const GgufValue *map = gguf_open(g, key, false, true, 1u << GGUF_I8 | 1u << GGUF_U8, "an array of bytes");
        if (map) rc = normalizer_add_charsmap(&v->normalizer, g->file.data + map->at, map->count, what, sizeof what);
        bool squeeze = gguf_get_bool(g, "tokenizer.ggml.remove_extra_whitespaces", true);
        if (!rc && squeeze) rc = normalizer_add(&v->normalizer, NORMALIZE_SQUEEZE, what, sizeof what);
    }
    if (rc) cursor_fail(&g->in, g->in.pos, "%s: %s", key, what);
}

// Without token types, the tokens that keys name.
static void mark_named(Gguf *g, Vocab *v) {
    static const char *const names[] = {"bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "cls", "mask"};
    char key[64];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", names[i]);
        int id = get_token(g, &v->notes, key, -1, (int)arrlen(v->pieces));
        if (id >= 0) v->pieces[id].type = id == v->unk_id ? TOKEN_UNKNOWN : TOKEN_CONTROL;
    }
    const int ids[] = {v->bos_id, v->eos_id};
    for (int i = 0; i < 2; i++) {
        if (ids[i] >= 0) v->pieces[ids[i]].type = TOKEN_CONTROL;
    }
    if (v->unk_id >= 0) v->pieces[v->unk_id].type = TOKEN_UNKNOWN;
}

static void read_vocab(Gguf *g, Vocab *v, int vocab_size) {
    read_kind(g, v);
    if (!g->in.failed) read_pieces(g, v);
    if (!g->in.failed && v->kind == VOCAB_RANK_BPE) read_merges(g, v);
    if (!g->in.failed) read_steps(g, v);
    if (!g->in.failed) read_specials(g, v);
    if (!g->in.failed && !gguf_get_value(g, "tokenizer.ggml.token_type", false)) mark_named(g, v);
    if (!g->in.failed) read_chat(g, v, (int)arrlen(v->pieces));
    if (!g->in.failed && vocab_size) vocab_truncate(v, vocab_size);
}

int load_gguf_vocab(Vocab *v, const File *file, int vocab_size, char *err, size_t errlen) {
    Gguf g;
    memset(v, 0, sizeof *v);
    gguf_read(&g, file, err, errlen);
    if (!g.in.failed) read_vocab(&g, v, vocab_size);
    bool failed = g.in.failed;
    gguf_free(&g);
    if (!failed) return 0;
    vocab_free(v);
    return -1;
}
