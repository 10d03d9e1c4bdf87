// vocab_gguf: the vocabulary inside a GGUF file.
//
// Owns the tokenizer's keys. Refuses kinds of vocabulary other than the four below, and merges of what is no token.
// Called by load_vocab.
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

// Byte b's token is written <0xHH>.
static bool is_byte_token(const Piece *p) {
    static const char hex[] = "0123456789ABCDEFabcdef";
    return p->len == 6 && !memcmp(p->text, "<0x", 3) && memchr(hex, p->text[3], sizeof hex - 1) &&
           memchr(hex, p->text[4], sizeof hex - 1) && p->text[5] == '>';
}

// An array of the vocabulary, the cursor at it: its offset, or 0 after a failure. *n: the tokens; 0 is not known yet.
static uint64_t open_array(Gguf *g, const char *key, GgufType type, uint64_t *n) {
    char wanted[40];
    snprintf(wanted, sizeof wanted, "an array of %s", gguf_type_name(type));
    const GgufValue *v = gguf_open(g, key, true, true, 1u << type, wanted);
    if (!v) return 0;
    if (*n && v->count != *n) {
        cursor_fail(&g->in, v->at, "%s: expected %llu elements, as many as tokens, found %llu", key,
                    (unsigned long long)*n, (unsigned long long)v->count);
    }
    *n = v->count;
    return g->in.failed ? 0 : v->at;
}

// The texts: read first for their extent, then copied as they are.
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
                                            TOKEN_USER,   TOKEN_UNUSED, TOKEN_BYTE}; // 1 to 6; there is no 0
    g->in.pos = at;
    for (ptrdiff_t id = 0; id < arrlen(v->pieces) && !g->in.failed; id++) {
        int32_t type = cursor_i32(&g->in, "token type");
        if (type < 1 || type > 6) {
            cursor_fail(&g->in, g->in.pos - 4, "token %d: type: expected 1 to 6, found %d", (int)id, type);
            return;
        }
        Piece *p = &v->pieces[id];
        p->type = token_types[type];
        if (p->type != TOKEN_BYTE || is_byte_token(p)) continue;
        cursor_fail(&g->in, g->in.pos - 4, "token %d: expected the text of a byte, <0xHH>, found '%.*s'", (int)id,
                    p->len < 40 ? p->len : 40, p->text);
    }
}

// As Vocab wants them, in place: what ordinary tokens stand for, never longer than how it is written.
static void texts_read(Vocab *v) {
    for (ptrdiff_t id = 0; id < arrlen(v->pieces); id++) {
        Piece *p = &v->pieces[id];
        char *text = v->text + (p->text - v->text);
        if (!v->byte_level) p->len = (int)text_unmark(text, text, (size_t)p->len);
        else if (p->type == TOKEN_NORMAL) {
            int n = bytes_of_characters(text, (size_t)p->len, NULL);
            if (n >= 0) p->len = bytes_of_characters(text, (size_t)p->len, text);
        }
    }
}

// "left right", in the byte alphabet. -1: not both are tokens, or what they make together is none.
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
    uint64_t n = 0, at = open_array(g, key, GGUF_STRING, &n), longest = 0;
    PieceTable table = {0};
    if (g->in.failed) return;
    if (n > MAX_TOKENS)
        cursor_fail(&g->in, at, "%s: expected at most %d, found %llu", key, MAX_TOKENS, (unsigned long long)n);
    for (uint64_t i = 0, bytes; i < n && !g->in.failed; i++) {
        gguf_read_string(&g->in, &bytes, "merge");
        if (bytes > longest) longest = bytes;
    }
    char *room = malloc(longest + 1);
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
            cursor_fail(&g->in, here, "merge %d: expected two tokens that make a third, found '%.*s'", (int)i,
                        bytes < 40 ? (int)bytes : 40, text);
        }
    }
    pieces_close(&table);
    free(room);
}

// The id of a special token: absent, as SentencePiece numbers them where there is one; all bits set: none.
static int get_token(Gguf *g, const char *key, int usual, int n) {
    const GgufValue *v = gguf_open(g, key, false, false, GGUF_WHOLE_TYPES, "a whole number");
    if (!v) return usual < n ? usual : -1;
    int64_t id = gguf_read_whole(&g->in, v->type);
    if (id == UINT32_MAX || id == -1) return -1;
    if (id < 0 || id >= n) {
        cursor_fail(&g->in, v->at, "%s: expected a token below %d, found %lld", key, n, (long long)id);
    }
    return (int)id;
}

// The Jinja text of conversations, and what ends a turn or a message in them.
static void read_chat(Gguf *g, Vocab *v, int n) {
    uint64_t bytes = 0;
    const char *text = gguf_get_text(g, "tokenizer.chat_template", false, &bytes);
    if (text) v->chat_template = strndup(text, bytes);
    if (text && !v->chat_template) cursor_fail(&g->in, g->in.pos, "tokenizer.chat_template: out of memory");
    static const char *const ends[] = {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    for (int i = 0; i < 2; i++) {
        int id = get_token(g, ends[i], n, n);
        if (id >= 0) arrput(v->end_ids, id);
    }
}

static void read_kind(Gguf *g, Vocab *v) {
    static const struct {
        const char *name;
        VocabKind kind;
    } kinds[] = {
        {"llama", VOCAB_SCORE_BPE}, {"gpt2", VOCAB_RANK_BPE}, {"t5", VOCAB_UNIGRAM}, {"bert", VOCAB_WORDPIECE}};
    uint64_t n = 0;
    const char *name = gguf_get_text(g, "tokenizer.ggml.model", true, &n);
    for (size_t i = 0; i < 4 && name; i++) {
        if (strlen(kinds[i].name) != n || memcmp(kinds[i].name, name, n) != 0) continue;
        v->kind = kinds[i].kind;
        v->byte_level = v->kind == VOCAB_RANK_BPE;
        v->space_mark = v->fuse_unk = v->kind == VOCAB_SCORE_BPE || v->kind == VOCAB_UNIGRAM; // SentencePiece's rules
        return;
    }
    if (name) {
        cursor_fail(&g->in, gguf_get_value(g, "tokenizer.ggml.model", true)->at,
                    "tokenizer.ggml.model: expected llama, gpt2, t5 or bert, found '%.*s'", n < 40 ? (int)n : 40, name);
    }
}

static void read_pieces(Gguf *g, Vocab *v, int vocab_size) {
    uint64_t n = 0, scores = 0, token_types = 0, tokens = open_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &n);
    bool scored = v->kind == VOCAB_SCORE_BPE || v->kind == VOCAB_UNIGRAM;
    if (!g->in.failed && (n < 1 || n > MAX_TOKENS || (vocab_size && n != (uint64_t)vocab_size))) {
        cursor_fail(&g->in, tokens, "tokenizer.ggml.tokens: expected %d%s, found %llu", vocab_size ? vocab_size : 1,
                    vocab_size ? ", the model's tokens" : " or more", (unsigned long long)n);
    }
    if (!g->in.failed && scored) scores = open_array(g, "tokenizer.ggml.scores", GGUF_F32, &n);
    if (!g->in.failed) token_types = open_array(g, "tokenizer.ggml.token_type", GGUF_I32, &n);
    g->in.pos = tokens;
    if (!g->in.failed) read_texts(g, v, tokens, n);
    if (!g->in.failed && scored) read_scores(g, v, scores);
    if (!g->in.failed) read_token_types(g, v, token_types);
    if (!g->in.failed) texts_read(v);
}

// SentencePiece's: ids 0 to 2 are <unk>, <s> and </s> unless the file says otherwise; of T5 1 is </s>, 2 is <unk>.
static void read_specials(Gguf *g, Vocab *v) {
    int n = (int)arrlen(v->pieces), none = n;
    bool spm = v->kind == VOCAB_SCORE_BPE, t5 = v->kind == VOCAB_UNIGRAM, bert = v->kind == VOCAB_WORDPIECE;
    v->bos_id = get_token(g, "tokenizer.ggml.bos_token_id", spm ? 1 : none, n);
    v->eos_id = get_token(g, "tokenizer.ggml.eos_token_id", spm ? 2 : t5 ? 1 : none, n);
    v->unk_id = get_token(g, "tokenizer.ggml.unknown_token_id", spm ? 0 : t5 ? 2 : none, n);
    if (bert) {
        v->bos_id = get_token(g, "tokenizer.ggml.cls_token_id", v->bos_id < 0 ? none : v->bos_id, n);
        v->eos_id = get_token(g, "tokenizer.ggml.seperator_token_id", v->eos_id < 0 ? none : v->eos_id, n);
    }
    v->no_bos = !gguf_get_bool(g, "tokenizer.ggml.add_bos_token", v->kind == VOCAB_RANK_BPE ? !v->no_bos : !t5);
    if (gguf_get_bool(g, "tokenizer.ggml.add_eos_token", t5 || bert) && v->eos_id >= 0)
        arrput(v->suffix_ids, v->eos_id);
    v->add_space_prefix = gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", spm || t5);
    if (bert) v->add_space_prefix = false, v->drop_space_prefix = true;
}

// The steps before the pieces. gguf_pre and the others write only what is wrong; the place is added here.
static void read_steps(Gguf *g, Vocab *v) {
    char what[256] = "";
    uint64_t n = strlen("default");
    const char *key = "tokenizer.ggml.pre", *pre = NULL;
    int rc = 0;
    if (v->kind == VOCAB_RANK_BPE) {
        pre = gguf_get_text(g, key, false, &n);
        rc = gguf_pre_steps(v, pre ? pre : "default", n, what, sizeof what);
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

static void read_vocab(Gguf *g, Vocab *v, int vocab_size) {
    read_kind(g, v);
    if (!g->in.failed) read_pieces(g, v, vocab_size);
    if (!g->in.failed && v->kind == VOCAB_RANK_BPE) read_merges(g, v);
    if (!g->in.failed) read_steps(g, v);
    if (!g->in.failed) read_specials(g, v);
    if (!g->in.failed) read_chat(g, v, (int)arrlen(v->pieces));
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
