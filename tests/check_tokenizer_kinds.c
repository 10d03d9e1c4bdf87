// check_tokenizer_kinds: BPE by ranks, unigram and WordPiece against naive versions of their rules, in random small
// vocabularies; what bytes that are no UTF-8 become; special tokens and their flags; what ends a generation; every real
// vocabulary against known ids.
#include "ids.h"

#include "load.h"
#include "textstream.h"

#include <math.h>

#include <stb/stb_ds.h>

#define VOCAB SHARED_DATA "vocab/ggml-vocab-"
#define TINY_HF SHARED_DATA "tinystories-656k-hf"
#define TINY_GGUF SHARED_DATA "tinystories-656k-gguf/TinyStories-656K.f16.gguf"

// ---- vocabularies made here

typedef struct {
    Vocab v;
    char *end; // of v.text
} Maker;

static Maker maker_new(VocabKind kind) {
    Maker m = {.v = {.kind = kind, .bos_id = -1, .eos_id = -1, .unk_id = -1, .text = need(1 << 16)}};
    m.end = m.v.text;
    return m;
}

static int put(Maker *m, const char *text, size_t n, TokenType type, double score) {
    Piece p = {.text = memcpy(m->end, text, n), .len = (int)n, .type = type, .score = (float)score};
    arrput(m->v.pieces, p);
    m->end += n;
    return (int)arrlen(m->v.pieces) - 1;
}

static int put_text(Maker *m, const char *text, TokenType type, double score) {
    return put(m, text, strlen(text), type, score);
}

static int find(const Vocab *v, const char *text, int n) {
    for (int id = 0; id < (int)arrlen(v->pieces); id++) {
        const Piece *p = &v->pieces[id];
        if (p->type == TOKEN_NORMAL && p->len == n && !memcmp(p->text, text, (size_t)n)) return id;
    }
    return -1;
}

static Tokenizer *open_copy(const Vocab *v) {
    Vocab copy = *v;
    copy.pieces = NULL;
    copy.merges = NULL;
    for (int i = 0; i < (int)arrlen(v->pieces); i++) arrput(copy.pieces, v->pieces[i]);
    for (int i = 0; i < (int)arrlen(v->merges); i++) arrput(copy.merges, v->merges[i]);
    copy.text = NULL; // stays the maker's
    char err[256] = "";
    Tokenizer *t = tokenizer_new(&copy, err, sizeof err);
    CHECK(t, "%s", err);
    return t;
}

// With all that the maker's vocabulary holds, which leaves it.
static Tokenizer *open_moved(Maker *m) {
    char err[256] = "";
    Vocab v = m->v;
    v.text = NULL;
    Tokenizer *t = tokenizer_new(&v, err, sizeof err);
    CHECK(t, "%s", err);
    m->v = (Vocab){.text = m->v.text};
    return t;
}

static Maker maker_of_bytes(void) { // ids 0 to 255
    Maker m = maker_new(VOCAB_RANK_BPE);
    m.v.byte_level = true;
    for (int b = 0; b < 256; b++) put(&m, (char[]){(char)b}, 1, TOKEN_NORMAL, 0);
    return m;
}

static void close_both(Maker *m, Tokenizer *t) {
    tokenizer_free(t);
    vocab_free(&m->v);
}

static const char *const alphabet[] = {"a", "b", "c", " ", "\xC3\xA9", "\xE4\xB8\xAD", "\xF0\x9F\x98\x80"};

static size_t random_text(char *out, bool bytes) {
    size_t n = 0, want = test_u32() % 40;
    while (n < want) {
        const char *c = alphabet[test_u32() % 7];
        if (test_u32() % 16 == 0) c = "z"; // in no vocabulary
        if (bytes && test_u32() % 3 == 0) out[n++] = (char)test_u32();
        else n += strlen(strcpy(out + n, c));
    }
    return n;
}

// Random texts must become what a naive encoder makes of them.
static void against_naive(Maker *m, int (*naive)(const Vocab *v, const char *text, size_t n, int *ids)) {
    Tokenizer *t = open_copy(&m->v);
    for (int i = 0; i < 40; i++) {
        char text[80];
        int want[80];
        size_t n = random_text(text, false);
        same_ids(t, text, n, 0, want, naive(&m->v, text, n, want));
    }
    close_both(m, t);
}

// ---- BPE by ranks

// Merges of what is there already; sometimes one merge stands twice, or makes a piece that another made.
static void put_merges(Maker *m) {
    int n = 5 + (int)(test_u32() % 40);
    for (int i = 0; i < n; i++) {
        int n_pieces = (int)arrlen(m->v.pieces);
        int left = (int)(test_u32() % (uint32_t)n_pieces), right = (int)(test_u32() % (uint32_t)n_pieces);
        const Piece *l = &m->v.pieces[left], *r = &m->v.pieces[right];
        char text[64];
        if (l->type != TOKEN_NORMAL || r->type != TOKEN_NORMAL || l->len + r->len > 30) continue;
        memcpy(text, l->text, (size_t)l->len);
        memcpy(text + l->len, r->text, (size_t)r->len);
        int id = find(&m->v, text, l->len + r->len);
        if (id < 0) id = put(m, text, (size_t)(l->len + r->len), TOKEN_NORMAL, 0);
        Merge merge = {left, right, id};
        arrput(m->v.merges, merge);
    }
}

static int character_bytes(const char *text, size_t n) {
    unsigned char lead = (unsigned char)*text;
    int len = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : 4;
    return (size_t)len < n ? len : (int)n;
}

static int naive_rank(const Vocab *v, int left, int right) {
    for (int i = 0; i < (int)arrlen(v->merges); i++) {
        if (v->merges[i].left == left && v->merges[i].right == right) return i;
    }
    return INT32_MAX;
}

// Apply the first rank that some pair has, at its leftmost place, until no pair has one.
static int naive_bpe(const Vocab *v, const char *text, size_t n, int *ids) {
    int n_ids = 0, whole = v->ignore_merges && n ? find(v, text, (int)n) : -1;
    if (whole >= 0) return ids[0] = whole, 1;
    for (size_t i = 0; i < n;) {
        int len = v->byte_level ? 1 : character_bytes(text + i, n - i), id = find(v, text + i, len);
        ids[n_ids++] = id; // -1: unknown
        i += (size_t)len;
    }
    for (;;) {
        int best = -1, rank = INT32_MAX;
        for (int i = 0; i + 1 < n_ids; i++) {
            int r = ids[i] < 0 || ids[i + 1] < 0 ? INT32_MAX : naive_rank(v, ids[i], ids[i + 1]);
            if (r < rank) rank = r, best = i;
        }
        if (best < 0) break;
        ids[best] = v->merges[rank].id;
        memmove(ids + best + 1, ids + best + 2, (size_t)(n_ids - best - 2) * sizeof *ids);
        n_ids--;
    }
    int kept = 0;
    bool before = false; // was unknown
    for (int i = 0; i < n_ids; i++) {
        bool unknown = ids[i] < 0;
        int id = unknown ? v->unk_id : ids[i];
        if (id >= 0 && !(unknown && before && v->fuse_unk)) ids[kept++] = id;
        before = unknown;
    }
    return kept;
}

static void ranks_equal_naive(void) {
    for (int k = 0; k < 600; k++) {
        Maker m = maker_new(VOCAB_RANK_BPE);
        m.v.byte_level = k % 2;
        m.v.fuse_unk = k % 3 == 0;
        m.v.ignore_merges = k % 5 == 0;
        m.v.unk_id = k % 4 ? put_text(&m, "<unk>", TOKEN_UNKNOWN, 0) : -1;
        for (int i = 0; i < 7; i++) {
            size_t len = strlen(alphabet[i]);
            for (size_t b = 0; m.v.byte_level && b < len; b++) put(&m, alphabet[i] + b, 1, TOKEN_NORMAL, 0);
            if (!m.v.byte_level) put_text(&m, alphabet[i], TOKEN_NORMAL, 0);
        }
        put_merges(&m);
        against_naive(&m, naive_bpe);
    }
}

// ---- unigram

static void put_random_pieces(Maker *m, int n, const char *first, const char *later) {
    for (int i = 0; i < n; i++) {
        char text[64];
        size_t len = strlen(strcpy(text, test_u32() % 2 ? first : later));
        for (int k = 1 + (int)(test_u32() % 4); k; k--) len += strlen(strcpy(text + len, alphabet[test_u32() % 7]));
        if (find(&m->v, text, (int)len) < 0) put(m, text, len, TOKEN_NORMAL, -1 - 10 * (double)fabsf(test_uniform()));
    }
}

// The best sum by trying every piece at every place; -1 as an id: an unknown character.
static int naive_unigram(const Vocab *v, const char *text, size_t n, int *ids) {
    double best[90], least = 0;
    int from[90], by[90], n_ids = 0;
    for (int i = 0; i < (int)arrlen(v->pieces); i++) {
        if (v->pieces[i].type == TOKEN_NORMAL) least = fmin(least, (double)v->pieces[i].score);
    }
    for (size_t i = 0; i <= n; i++) best[i] = i ? -1e300 : 0;
    for (size_t i = 0, len; i < n; i += len) {
        len = (size_t)character_bytes(text + i, n - i);
        for (int id = -1; id < (int)arrlen(v->pieces); id++) {
            const Piece *p = id < 0 ? NULL : &v->pieces[id];
            if (id < 0 && find(v, text + i, (int)len) >= 0) continue;
            if (p && (p->type != TOKEN_NORMAL || i + (size_t)p->len > n || memcmp(p->text, text + i, (size_t)p->len))) {
                continue;
            }
            size_t end = i + (p ? (size_t)p->len : len);
            double sum = best[i] + (p ? (double)p->score : least - 10);
            if (sum > best[end]) best[end] = sum, from[end] = (int)i, by[end] = id;
        }
    }
    int back[90], n_back = 0;
    for (size_t end = n; end; end = (size_t)from[end]) back[n_back++] = by[end];
    for (int i = n_back - 1; i >= 0; i--) {
        bool fused = back[i] < 0 && v->fuse_unk && i + 1 < n_back && back[i + 1] < 0;
        if (!fused) ids[n_ids++] = back[i] < 0 ? v->unk_id : back[i];
    }
    return n_ids;
}

static void unigrams_equal_naive(void) {
    for (int k = 0; k < 400; k++) {
        Maker m = maker_new(VOCAB_UNIGRAM);
        m.v.unk_id = put_text(&m, "<unk>", TOKEN_UNKNOWN, 0);
        m.v.fuse_unk = k % 3 > 0;
        put_random_pieces(&m, 5 + (int)(test_u32() % 60), "", "");
        against_naive(&m, naive_unigram);
    }
}

// ---- WordPiece

static int naive_wordpiece(const Vocab *v, const char *word, size_t n, int *ids) {
    int n_ids = 0;
    for (size_t i = 0, len; i < n; i += len) {
        int found = -1;
        for (len = n - i; len && found < 0; len--) {
            char piece[100] = " ";
            memcpy(piece + (i == 0), word + i, len);
            found = find(v, piece, (int)(len + (i == 0)));
            if (found >= 0) break;
        }
        if (found < 0) return ids[0] = v->unk_id, 1;
        ids[n_ids++] = found;
    }
    return n_ids;
}

static void wordpieces_equal_naive(void) {
    for (int k = 0; k < 400; k++) {
        Maker m = maker_new(VOCAB_WORDPIECE);
        m.v.unk_id = put_text(&m, "[UNK]", TOKEN_UNKNOWN, 0);
        put_random_pieces(&m, 20 + (int)(test_u32() % 60), " ", "");
        for (int i = 0; i < 7; i++) put(&m, alphabet[i], strlen(alphabet[i]), TOKEN_NORMAL, 0);
        against_naive(&m, naive_wordpiece);
    }
}

// ---- the longest match

static int naive_greedy(const Vocab *v, const char *text, size_t n, int *ids) {
    int n_ids = 0;
    for (size_t i = 0, len; i < n; i += len) {
        int found = -1;
        for (len = n - i; found < 0 && len; len--) {
            found = find(v, text + i, (int)len);
            if (found >= 0) break;
        }
        if (found < 0) len = 1;
        if (found < 0) found = v->unk_id;
        if (found >= 0) ids[n_ids++] = found;
    }
    return n_ids;
}

// With and without a piece for every byte; texts are any bytes.
static void longest_matches_equal_naive(void) {
    for (int k = 0; k < 400; k++) {
        Maker m = maker_new(VOCAB_GREEDY);
        m.v.byte_level = true;
        m.v.unk_id = k % 3 ? put_text(&m, "<unk>", TOKEN_UNKNOWN, 0) : -1;
        for (int b = 0; k % 2 && b < 256; b++) put(&m, (char[]){(char)b}, 1, TOKEN_NORMAL, 0);
        put_random_pieces(&m, 5 + (int)(test_u32() % 60), "", "a\xC3");
        Tokenizer *t = open_copy(&m.v);
        for (int i = 0; i < 40; i++) {
            char text[80];
            int want[80];
            size_t n = random_text(text, true);
            same_ids(t, text, n, 0, want, naive_greedy(&m.v, text, n, want));
        }
        close_both(&m, t);
    }
}

static void long_words_are_unknown(void) {
    Maker m = maker_new(VOCAB_WORDPIECE);
    m.v.unk_id = put_text(&m, "[UNK]", TOKEN_UNKNOWN, 0);
    put_text(&m, " \xC3\xA9", TOKEN_NORMAL, 0);
    put_text(&m, "\xC3\xA9", TOKEN_NORMAL, 0);
    Tokenizer *t = open_copy(&m.v);
    char text[202];
    int want[100] = {1};
    for (int i = 0; i < 101; i++) memcpy(text + 2 * i, "\xC3\xA9", 2);
    for (int i = 1; i < 100; i++) want[i] = 2;
    same_ids(t, text, 200, 0, want, 100); // 100 characters are a word, 101 are not
    same_ids(t, text, 202, 0, (int[]){0}, 1);
    close_both(&m, t);
}

// ---- special tokens

static void flags_of_special_tokens(void) {
    Maker m = maker_of_bytes();
    int left = put_text(&m, "<l>", TOKEN_USER, 0), right = put_text(&m, "<r>", TOKEN_USER, 0),
        word = put_text(&m, "wd", TOKEN_USER, 0), both = put_text(&m, "<l><r>", TOKEN_CONTROL, 0);
    m.v.pieces[left].flags = PIECE_LSTRIP;
    m.v.pieces[right].flags = PIECE_RSTRIP;
    m.v.pieces[word].flags = PIECE_WORD;
    Tokenizer *t = open_copy(&m.v);
    same_ids(t, "a \xE3\x80\x80 <l> b", 11, 0, (int[]){'a', left, ' ', 'b'}, 4); // U+3000 is white space, too
    same_ids(t, "a <r> \t\nb", 9, 0, (int[]){'a', ' ', right, 'b'}, 4);
    same_ids(t, "<r> <l>", 7, 0, (int[]){right, left}, 2); // the space goes once
    same_ids(t, " <l> <l>", 8, 0, (int[]){left, left}, 2);
    same_ids(t, "wd wd.", 6, 0, (int[]){word, ' ', word, '.'}, 4);
    same_ids(t, "wda", 3, 0, (int[]){'w', 'd', 'a'}, 3);
    same_ids(t, "\xC3\xA9wd", 4, 0, (int[]){0xC3, 0xA9, 'w', 'd'}, 4);
    same_ids(t, "<l><r>", 6, 0, (int[]){left, right}, 2);
    same_ids(t, "<l><r>", 6, TOKENIZE_SPECIAL, &both, 1);
    same_ids(t, "<l", 2, TOKENIZE_SPECIAL, (int[]){'<', 'l'}, 2);
    close_both(&m, t);
}

// Sought in the normalized text, normalized itself: so it is found only where the prefix stands.
static void normalized_special_tokens(void) {
    Maker m = maker_of_bytes();
    char err[256];
    int plain = put_text(&m, "<P>", TOKEN_USER, 0), normal = put_text(&m, "<N>", TOKEN_USER, 0);
    m.v.pieces[normal].flags = PIECE_NORMALIZED;
    CHECK(!normalizer_add(&m.v.normalizer, NORMALIZE_LOWERCASE, err, sizeof err), "%s", err);
    CHECK(!normalizer_add_prepend(&m.v.normalizer, "_", 1, err, sizeof err), "%s", err);
    Tokenizer *t = open_moved(&m);
    same_ids(t, "<N>A<P>B", 8, 0, (int[]){normal, 'a', plain, '_', 'b'}, 5);
    same_ids(t, "x<n>", 4, 0, (int[]){'_', 'x', '<', 'n', '>'}, 5);
    same_ids(t, "<p>", 3, 0, (int[]){'_', '<', 'p', '>'}, 4);
    same_ids(t, "<P><n>", 6, 0, (int[]){plain, normal}, 2);
    close_both(&m, t);
}

static void begin_and_end(void) {
    Maker m = maker_of_bytes();
    static const char *const marks[] = {"<|im_end|>", "<|end|>", "<|eot_id|>", "<|endoftext|>", "<end_of_turn>"};
    for (int i = 0; i < 5; i++) put_text(&m, marks[i], i == 3 ? TOKEN_USER : TOKEN_CONTROL, 0);
    int other = put_text(&m, "<|im_start|>", TOKEN_CONTROL, 0), plain = put_text(&m, "<EOT>", TOKEN_NORMAL, 0);
    m.v.eos_id = 7;
    arrput(m.v.end_ids, 9);
    arrput(m.v.end_ids, 5000); // of no token
    arrput(m.v.prefix_ids, other);
    arrput(m.v.prefix_ids, 1);
    arrput(m.v.suffix_ids, 7);
    Tokenizer *t = open_moved(&m);
    for (int id = -1; id <= plain + 1; id++) {
        bool want = id == 7 || id == 9 || (id >= 256 && id < 261);
        CHECK(tokenizer_is_end(t, id) == want, "token %d: expected %s", id, want ? "an end" : "none");
    }
    CHECK(!tokenizer_is_end(t, 5000), "a token that is not there");
    same_ids(t, "a", 1, TOKENIZE_BOS, (int[]){other, 1, 'a', 7}, 4);
    same_ids(t, "", 0, TOKENIZE_BOS, (int[]){other, 1, 7}, 3);
    same_ids(t, "a", 1, 0, (int[]){'a'}, 1);
    close_both(&m, t);
}

// Beside <|return|>, <|end|> ends one message of several.
static void end_of_a_message(void) {
    Maker m = maker_new(VOCAB_RANK_BPE);
    int end = put_text(&m, "<|end|>", TOKEN_CONTROL, 0), last = put_text(&m, "<|return|>", TOKEN_CONTROL, 0);
    Tokenizer *t = open_copy(&m.v);
    CHECK(!tokenizer_is_end(t, end) && tokenizer_is_end(t, last), "<|end|>, <|return|>");
    close_both(&m, t);
}

// ---- bytes

static void bytes_that_are_no_text(void) {
    for (int kind = 0; kind < 2; kind++) { // maximal subparts become U+FFFD where a vocabulary has no bytes
        Maker m = maker_new(kind ? VOCAB_UNIGRAM : VOCAB_RANK_BPE);
        m.v.unk_id = put_text(&m, "<unk>", TOKEN_UNKNOWN, 0);
        int a = put_text(&m, "a", TOKEN_NORMAL, -1), bad = put_text(&m, "\xEF\xBF\xBD", TOKEN_NORMAL, -1);
        Tokenizer *t = open_copy(&m.v);
        same_ids(t,
                 "a\xE4\xB8"
                 "a\xFF\xFF\xC3",
                 7, 0, (int[]){a, bad, a, bad, bad, bad}, 6);
        close_both(&m, t);
    }
}

// Patterns never see them, and what stands in a row is one pre-token.
static void bytes_cut_patterns(void) {
    Maker m = maker_of_bytes();
    char err[256];
    put(&m, "\xFF\xFE", 2, TOKEN_NORMAL, 0);
    put(&m, "a\xFF", 2, TOKEN_NORMAL, 0);
    put(&m,
        "\xFE"
        "a",
        2, TOKEN_NORMAL, 0);
    static const Merge merges[] = {{'a', 0xFF, 257}, {0xFE, 'a', 258}, {0xFF, 0xFE, 256}};
    for (int i = 0; i < 3; i++) arrput(m.v.merges, merges[i]);
    CHECK(!pretokenizer_add_regex(&m.v.pretokenizer, "a+", SPLIT_ISOLATED, err, sizeof err), "%s", err);
    Tokenizer *t = open_moved(&m);
    same_ids(t,
             "a\xFF\xFE"
             "a",
             4, 0, (int[]){'a', 256, 'a'}, 3);
    close_both(&m, t);
}

// ---- real vocabularies

static Tokenizer *open_real(const char *path) {
    char err[512] = "";
    Vocab v;
    File f;
    bool failed = load_vocab(&v, &f, NULL, path, err, sizeof err);
    file_unmap(&f); // of these readers all pieces are copies
    Tokenizer *t = failed ? NULL : tokenizer_new(&v, err, sizeof err);
    CHECK(t, "%s", err);
    return t;
}

static void known_ids_of_real_vocabularies(void) {
    SKIP_WITHOUT(VOCAB "gpt-2.gguf");
    static const char *const names[] = {"llama-spm", "phi-3", "gpt-2", "starcoder", "deepseek-llm", "bert-bge"};
    for (int i = 0; i < 6; i++) {
        char path[200];
        snprintf(path, sizeof path, VOCAB "%s.gguf", names[i]);
        Tokenizer *t = open_real(path);
        known_ids(t, path, i < 5);
        tokenizer_free(t);
    }
}

static void cls_and_sep(void) {
    SKIP_WITHOUT(VOCAB "bert-bge.gguf");
    Tokenizer *t = open_real(VOCAB "bert-bge.gguf");
    same_ids(t, "Hello", 5, TOKENIZE_BOS, (int[]){101, 7592, 102}, 3);
    same_ids(t, "[SEP] hello", 11, TOKENIZE_SPECIAL, (int[]){102, 7592}, 2);
    same_ids(t, "", 0, TOKENIZE_BOS, (int[]){101, 102}, 2);
    tokenizer_free(t);
}

// Byte-level vocabularies give every byte back.
static void every_byte_comes_back(void) {
    SKIP_WITHOUT(VOCAB "gpt-2.gguf");
    static const char *const paths[] = {VOCAB "gpt-2.gguf", VOCAB "starcoder.gguf"};
    for (int k = 0; k < 2; k++) {
        Tokenizer *t = open_real(paths[k]);
        for (int i = 0; t && i < 3000; i++) {
            char text[80], bytes[400], err[256] = "";
            size_t n = random_text(text, !k), n_bytes = 0; // StarCoder has no token for bytes that no UTF-8 has
            int32_t *ids;
            int n_ids = tokenizer_encode(t, text, n, 0, &ids, err, sizeof err);
            for (int j = 0; j < n_ids; j++) {
                const Piece *p = tokenizer_piece(t, ids[j]);
                memcpy(bytes + n_bytes, p->text, (size_t)p->len);
                n_bytes += (size_t)p->len;
            }
            CHECK(n_bytes == n && !memcmp(bytes, text, n), "%zu bytes came back as %zu: %s", n, n_bytes, err);
            free(ids);
        }
        tokenizer_free(t);
    }
}

// One model's vocabulary as a folder and as GGUF: the same tokens, and each text comes back from either. The ids of a
// text differ: that GGUF holds one score for all merges.
static void folder_and_gguf(void) {
    SKIP_WITHOUT(TINY_HF);
    SKIP_WITHOUT(TINY_GGUF);
    Tokenizer *a = open_real(TINY_HF), *b = open_real(TINY_GGUF);
    if (!a || !b) return;
    CHECK(tokenizer_size(a) == 2048 && tokenizer_size(b) == 2048, "%d, %d tokens", tokenizer_size(a),
          tokenizer_size(b));
    CHECK(tokenizer_bos(a) == tokenizer_bos(b) && tokenizer_eos(a) == tokenizer_eos(b), "bos, eos");
    for (int id = 0; id < 2048; id++) {
        const Piece *p = tokenizer_piece(a, id), *q = tokenizer_piece(b, id);
        CHECK(p->len == q->len && !memcmp(p->text, q->text, (size_t)p->len), "token %d: text", id);
        CHECK(p->type == q->type || !id, "token %d: type %d, %d", id, p->type, q->type);
        CHECK(tokenizer_is_end(a, id) == (id == 2) && tokenizer_is_end(b, id) == (id == 2), "token %d ends", id);
    }
    static const char *const texts[] = {"Once upon a time, there was a little girl named Lily.", " ", "",
                                        "  Tim said, \"Look!\"\nThe end."};
    for (int i = 0; i < 8; i++) {
        int32_t *ids;
        const Tokenizer *t = i & 1 ? a : b;
        int n = tokenizer_encode(t, texts[i / 2], strlen(texts[i / 2]), TOKENIZE_BOS, &ids, NULL, 0);
        char *back;
        size_t n_back = decode_ids(t, ids, n, &back);
        CHECK(n_back == strlen(texts[i / 2]) && !memcmp(back, texts[i / 2], n_back), "'%.*s'", (int)n_back, back);
        free(back);
        free(ids);
    }
    // as @huggingface/tokenizers 0.2.0 has it
    same_ids(a, texts[0], strlen(texts[0]), 0, (int[]){80, 147, 201, 282, 215, 286, 598, 629, 10}, 9);
    tokenizer_free(a);
    tokenizer_free(b);
}

int main(void) {
    RUN(ranks_equal_naive);
    RUN(unigrams_equal_naive);
    RUN(wordpieces_equal_naive);
    RUN(longest_matches_equal_naive);
    RUN(long_words_are_unknown);
    RUN(flags_of_special_tokens);
    RUN(normalized_special_tokens);
    RUN(begin_and_end);
    RUN(end_of_a_message);
    RUN(bytes_that_are_no_text);
    RUN(bytes_cut_patterns);
    RUN(known_ids_of_real_vocabularies);
    RUN(cls_and_sep);
    RUN(every_byte_comes_back);
    RUN(folder_and_gguf);
    return test_report();
}
