// gguf_vocab: see gguf_vocab.h.
#include "gguf_vocab.h"

#include "cli.h"
#include "load.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

// How token texts are written: with U+2581 for a space, in the byte-level alphabet, or as Python prints bytes.
typedef enum { WRITE_MARKED, WRITE_BYTES, WRITE_ESCAPED, WRITE_RAW } Spelling;

static char *escape(char *to, char c) {
    static const char bytes[] = "\t\n\r\\", letters[] = "tnr\\";
    const char *byte = c ? strchr(bytes, c) : NULL;
    if (!byte && c >= ' ' && c < 0x7F) {
        *to++ = c;
        return to;
    }
    *to++ = '\\';
    if (byte) *to++ = letters[byte - bytes];
    else to += sprintf(to, "x%02x", (unsigned char)c);
    return to;
}

static size_t spell(char *to, const char *text, int n, Spelling how) {
    char *begin = to;
    for (int i = 0; i < n; i++) {
        if (how == WRITE_BYTES) to += utf8_encode(byte_character((unsigned char)text[i]), to);
        else if (how == WRITE_ESCAPED) to = escape(to, text[i]);
        else if (how == WRITE_MARKED && text[i] == ' ') to = mempcpy(to, "\xE2\x96\x81", 3);
        else *to++ = text[i];
    }
    return (size_t)(to - begin);
}

// A buffer for two pieces with a space between.
static char *room_for(const Vocab *v) {
    size_t longest = sizeof "[PAD4294967295]";
    for (ptrdiff_t i = 0; i < arrlen(v->pieces); i++) {
        if ((size_t)v->pieces[i].len > longest) longest = (size_t)v->pieces[i].len;
    }
    char *room = malloc(6 * longest + 1);
    if (!room) die(1, "out of memory for a token of %zu bytes", longest);
    return room;
}

// Adds unused pieces up to n.
static void add_unused(Vocab *v, int n) {
    while (arrlen(v->pieces) < n) arrput(v->pieces, ((Piece){.text = "", .type = TOKEN_UNUSED}));
}

static void put_pieces(GgufWriter *w, const Vocab *v) {
    char *room = room_for(v);
    gguf_array(w, "tokenizer.ggml.tokens", GGUF_STRING, arrlenu(v->pieces));
    for (ptrdiff_t i = 0; i < arrlen(v->pieces); i++) {
        const Piece *p = &v->pieces[i];
        bool named = p->len || p->type != TOKEN_UNUSED;
        Spelling how = p->type == TOKEN_NORMAL ? WRITE_BYTES : WRITE_RAW;
        if (!v->byte_level) how = WRITE_MARKED;
        if (v->kind == VOCAB_GREEDY) how = WRITE_ESCAPED;
        size_t n = named ? spell(room, p->text, p->len, how) : (size_t)sprintf(room, "[PAD%td]", i);
        gguf_array_text(w, room, n);
    }
    free(room);
}

static void put_token_types(GgufWriter *w, const Vocab *v) {
    static const int32_t numbers[] = {[TOKEN_NORMAL] = 1, [TOKEN_UNKNOWN] = 2, [TOKEN_CONTROL] = 3,
                                      [TOKEN_USER] = 4,   [TOKEN_UNUSED] = 5,  [TOKEN_BYTE] = 6};
    gguf_array(w, "tokenizer.ggml.token_type", GGUF_I32, arrlenu(v->pieces));
    for (ptrdiff_t i = 0; i < arrlen(v->pieces); i++) gguf_array_bytes(w, &numbers[v->pieces[i].type], sizeof *numbers);
}

static void put_merges(GgufWriter *w, const Vocab *v) {
    char *room = room_for(v);
    gguf_array(w, "tokenizer.ggml.merges", GGUF_STRING, arrlenu(v->merges));
    for (ptrdiff_t i = 0; i < arrlen(v->merges); i++) {
        const Piece *left = &v->pieces[v->merges[i].left], *right = &v->pieces[v->merges[i].right];
        size_t n = spell(room, left->text, left->len, WRITE_BYTES);
        room[n++] = ' ';
        n += spell(room + n, right->text, right->len, WRITE_BYTES);
        gguf_array_text(w, room, n);
    }
    free(room);
}

// SentencePiece merges the pair whose piece has the highest score: minus the rank of the first merge that makes it.
static void score_merges(Vocab *v) {
    for (ptrdiff_t i = 0; i < arrlen(v->pieces); i++) v->pieces[i].score = 0;
    for (ptrdiff_t i = arrlen(v->merges); i-- > 0;) v->pieces[v->merges[i].id].score = (float)-i - 1;
}

static void put_scores(GgufWriter *w, const Vocab *v) {
    gguf_array(w, "tokenizer.ggml.scores", GGUF_F32, arrlenu(v->pieces));
    for (ptrdiff_t i = 0; i < arrlen(v->pieces); i++) gguf_array_bytes(w, &v->pieces[i].score, sizeof(float));
}

static void put_id(GgufWriter *w, const char *key, int id, bool has_default) {
    if (id >= 0 || has_default) gguf_u32(w, key, (uint32_t)id); // -1, none: all bits set
}

// End tokens beside EOS: end of turn, end of message.
static void put_ends(GgufWriter *w, const Vocab *v) {
    static const char *const keys[] = {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    int n = 0;
    for (ptrdiff_t i = 0; i < arrlen(v->end_ids) && n < 2; i++) {
        if (v->end_ids[i] != v->eos_id) gguf_u32(w, keys[n++], (uint32_t)v->end_ids[i]);
    }
}

static void put_specials(GgufWriter *w, const Vocab *v) {
    bool scored = !v->byte_level; // readers have default ids for SentencePiece
    put_id(w, "tokenizer.ggml.bos_token_id", v->bos_id, scored);
    put_id(w, "tokenizer.ggml.eos_token_id", v->eos_id, scored);
    put_id(w, "tokenizer.ggml.unknown_token_id", v->unk_id, scored);
    put_ends(w, v);
    gguf_bool(w, "tokenizer.ggml.add_bos_token", !v->no_bos);
    gguf_bool(w, "tokenizer.ggml.add_eos_token", arrlen(v->suffix_ids) > 0);
    if (v->chat_template) gguf_text(w, "tokenizer.chat_template", v->chat_template);
}

// Scripts, cases, numbers, punctuation and white space that pre-tokenizers treat differently; composed (NFC), since
// GGUF cannot name a normalizer.
static const char probe[] =
    "The quick brown fox's den; I'm, you're, we'll, they'd, he's, I've, DON'T, WE'LL, it’s.\n"
    " Two  spaces, three   spaces,\ttab\t\ttabs \n \n\n  indented\r\nCRLF \r\n\r\nend. \n"
    "0 1 12 123 1234 12345 1234567890 3.14 1,000,000 2024-01-31 0xFF 50% $9.99 7th x2 v1.2.3 １２ ²½Ⅷ\n"
    "!?... --- *** /* a */ // b (c) [d] {e} <f> \"g\" 'h' `i` #j @k a_b a-b a/b\\c ~= != => :: ++ &&\n"
    "for (int i = 0; i < n; i++) {\n\tprintf(\"%d\\n\", x[i]);\n    }\n\ndef f(self):\n        return None\n"
    "camelCase PascalCase UPPERCASE SHOUTing https://example.org/a?b=c&d=1#e someone@example.org\n"
    "café naïve Ünïcödé straße Ærø ŁÓDŹ Ελληνικά Русский текст ЁЖ עברית العربية हिन्दी ไทย ქართული\n"
    "中文字符，句子。日本語のテキスト、カタカナ 한국어 문장 𠀀 ﬁ Ａ　ｂ\u00a0c\u200bd "
    "🙂👍🏽👨‍👩‍👧 "
    "∑∫√ "
    "€£¥ "
    "©®™ "
    "☃\n"
    "Once upon a time, there was a little girl named Lily. Hello   world";

static bool same_ids(const Tokenizer *a, const Tokenizer *b) {
    char err[512];
    int32_t *x = NULL, *y = NULL;
    int n = tokenizer_encode(a, probe, sizeof probe - 1, TOKENIZE_BOS, &x, err, sizeof err);
    int m = n < 0 ? -1 : tokenizer_encode(b, probe, sizeof probe - 1, TOKENIZE_BOS, &y, err, sizeof err);
    if (m < 0) die(1, "%s", err);
    bool same = n == m && !memcmp(x, y, sizeof *x * (size_t)n);
    free(x);
    free(y);
    return same;
}

// Whether the settings so far, read back, give the ids of the original.
static bool settings_match(const GgufWriter *w, const Tokenizer *original, bool ignores_merges, int n) {
    char err[512];
    uint8_t *bytes = gguf_settings_bytes(w);
    File file = {.path = (char *)(uintptr_t)w->path, .data = bytes, .size = arrlenu(bytes), .borrowed = true};
    Vocab v;
    if (load_gguf_vocab(&v, &file, n, err, sizeof err)) die(1, "%s", err);
    bool same = v.ignore_merges == ignores_merges;
    Tokenizer *t = tokenizer_new(&v, err, sizeof err);
    if (!t) die(1, "%s", err);
    same = same && same_ids(original, t);
    tokenizer_free(t);
    arrfree(bytes);
    return same;
}

// Tries the names that other readers know, the most common first; without byte-level BPE, flags.
static void find_steps(GgufWriter *w, const Tokenizer *original, VocabKind kind, bool byte_level, bool ignores_merges,
                       int n, const char *path) {
    static const char *const names[] = {"llama-bpe",  "qwen2",          "gpt-2",        "smollm",      "gpt-4o",
                                        "tekken",     "dbrx",           "deepseek-llm", "deepseek-v3", "falcon",
                                        "seed-coder", "deepseek-coder", "qwen35",       "bloom",       "viking",
                                        "superbpe",   "default"};
    bool unigram = kind == VOCAB_UNIGRAM;
    int n_tries = unigram ? 4 : 2;
    if (byte_level) n_tries = sizeof names / sizeof *names;
    size_t mark = arrlenu(w->pairs);
    for (int i = 0; i < n_tries; i++) {
        uint64_t n_pairs = w->n_pairs;
        gguf_text(w, "tokenizer.ggml.pre", byte_level ? names[i] : "default");
        if (!byte_level) gguf_bool(w, "tokenizer.ggml.add_space_prefix", i % 2 == 0);
        if (unigram) gguf_bool(w, "tokenizer.ggml.remove_extra_whitespaces", i / 2);
        if (settings_match(w, original, ignores_merges, n)) return;
        arrsetlen(w->pairs, mark);
        w->n_pairs = n_pairs;
    }
    die(1, "%s: GGUF cannot represent this vocabulary's normalizer or pre-tokenizer; --no-vocab omits it", path);
}

// RWKV's, which has no other settings.
static void put_greedy(GgufWriter *w, Vocab *v) {
    gguf_text(w, "tokenizer.ggml.model", "rwkv");
    put_pieces(w, v);
    put_token_types(w, v);
    put_specials(w, v);
    vocab_free(v);
}

void gguf_vocab(GgufWriter *w, Vocab *v, int n, const char *path) {
    char err[512];
    bool ranked = v->kind == VOCAB_RANK_BPE, unigram = v->kind == VOCAB_UNIGRAM, as_is = v->kind == VOCAB_SCORE_BPE;
    if (v->kind == VOCAB_WORDPIECE) die(1, "%s: expected a vocabulary of BPE or unigram, found WordPiece", path);
    add_unused(v, n);
    if (v->kind == VOCAB_GREEDY) {
        put_greedy(w, v);
        return;
    }
    gguf_text(w, "tokenizer.ggml.model", unigram ? "t5" : v->byte_level ? "gpt2" : "llama");
    put_pieces(w, v);
    if (ranked && !v->byte_level) score_merges(v);
    if (ranked && v->byte_level) put_merges(w, v);
    else put_scores(w, v);
    put_token_types(w, v);
    put_specials(w, v);
    if (as_is) {
        gguf_text(w, "tokenizer.ggml.pre", "default");
        gguf_bool(w, "tokenizer.ggml.add_space_prefix", v->add_space_prefix);
        vocab_free(v);
        return;
    }
    VocabKind kind = v->kind;
    bool byte_level = v->byte_level, ignores_merges = v->ignore_merges;
    Tokenizer *t = tokenizer_new(v, err, sizeof err);
    if (!t) die(1, "%s: %s", path, err);
    find_steps(w, t, kind, byte_level, ignores_merges, n, path);
    tokenizer_free(t);
}
