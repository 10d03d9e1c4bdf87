// check_tokenizer: encoding against a slow copy of llama2.c's algorithm and against llama.cpp's known ids; decoding
// against an independent reading of the UTF-8 rules; round trips; what no text may produce; the time of a megabyte.
#include "ids.h"
#include "utf8_rules.h"

#include "load.h"
#include "textstream.h"

#include <limits.h>
#include <math.h>

#include <stb/stb_ds.h>

#define TOK512 SHARED_DATA "stories260K/tok512.bin"
#define LLAMA2 SHARED_DATA "llama2-tokenizer/tokenizer.bin"
#define STORIES SHARED_DATA "text/stories-valid.txt"
#define LLAMA_CPP SHARED_DATA "vocab/ggml-vocab-llama-spm.gguf" // .inp, .out

// ---- vocabularies

typedef struct {
    Tokenizer *t;
    File file;
    int *sorted, n_sorted; // NORMAL pieces by text, then id: what the slow encoder searches
    bool prefix;
    int unk_id;
    char *storage; // text of a vocabulary built here
} Subject;

static const Tokenizer *sort_tokenizer;

static int compare_text(const char *a, int a_len, const char *b, int b_len) {
    int c = memcmp(a, b, (size_t)(a_len < b_len ? a_len : b_len));
    return c ? c : a_len - b_len;
}

static int by_text(const void *a, const void *b) {
    const Piece *p = tokenizer_piece(sort_tokenizer, *(const int *)a),
                *q = tokenizer_piece(sort_tokenizer, *(const int *)b);
    int c = compare_text(p->text, p->len, q->text, q->len);
    return c ? c : *(const int *)a - *(const int *)b;
}

static void subject_sort(Subject *s) {
    int n = tokenizer_size(s->t);
    s->sorted = malloc(((size_t)n + 1) * sizeof *s->sorted);
    for (int id = 0; id < n; id++) {
        const Piece *p = tokenizer_piece(s->t, id);
        if (p->type == TOKEN_NORMAL && p->len > 0) s->sorted[s->n_sorted++] = id;
    }
    sort_tokenizer = s->t;
    qsort(s->sorted, (size_t)s->n_sorted, sizeof *s->sorted, by_text);
}

static Subject subject_open(const char *path, int vocab_size) {
    Subject s = {0};
    Vocab v;
    char err[256] = "";
    CHECK(!load_llama2c_tokenizer(&v, &s.file, path, vocab_size, err, sizeof err), "%s", err);
    s.prefix = v.add_space_prefix;
    s.unk_id = v.unk_id;
    s.t = tokenizer_new(&v, err, sizeof err);
    CHECK(s.t && !v.pieces, "%s", err);
    subject_sort(&s);
    return s;
}

static void subject_close(Subject *s) {
    tokenizer_free(s->t);
    if (s->file.data) file_unmap(&s->file);
    free(s->sorted);
    free(s->storage);
}

static void put_piece(Vocab *v, const char *text, int len, float score, TokenType type) {
    Piece p = {.text = text, .len = len, .score = score, .type = type};
    arrput(v->pieces, p);
}

// <unk>, <s>, </s>, the byte tokens.
static void put_basics(Vocab *v, char *storage, bool bytes) {
    put_piece(v, "<unk>", 5, 0, TOKEN_UNKNOWN);
    put_piece(v, "<s>", 3, 0, TOKEN_CONTROL);
    put_piece(v, "</s>", 4, 0, TOKEN_CONTROL);
    for (int b = 0; bytes && b < 256; b++) {
        snprintf(storage + 8 * b, 8, "<0x%02X>", (unsigned)b);
        put_piece(v, storage + 8 * b, 6, 0, TOKEN_BYTE);
    }
}

// These, and n pieces of text that are equally likely.
static Subject subject_basic(bool prefix, const char *const *texts, int n) {
    Subject s = {.storage = malloc(2048)};
    Vocab v = {.bos_id = 1, .eos_id = 2, .unk_id = 0, .add_space_prefix = prefix};
    put_basics(&v, s.storage, true);
    for (int i = 0; i < n; i++) put_piece(&v, texts[i], (int)strlen(texts[i]), 0, TOKEN_NORMAL);
    s.t = tokenizer_new(&v, NULL, 0);
    return s;
}

// A small vocabulary full of what real ones lack: ties, zeros of both signs, infinities, NaN, duplicates, empty
// pieces, broken UTF-8, control tokens that look like text, and sometimes no byte tokens.
static Subject subject_random(void) {
    static const char *const alphabet[] = {"a", "b",   "c", " ", "\n", "\xC3\xA9", "\xE4\xB8\xAD", "\xF0\x9F\x98\x80",
                                           "<", "\x80"};
    static const float scores[] = {-1, -1, -2, -3, 0, -0.0f, 2.5f, -1e9f, -1e30f, 1e30f};
    Subject s = {.storage = malloc(1 << 16)};
    Vocab v = {.bos_id = 1, .eos_id = 2, .unk_id = test_u32() % 4 ? 0 : -1, .add_space_prefix = test_u32() % 4 != 0};
    put_basics(&v, s.storage, test_u32() % 4 != 0);
    char *end = s.storage + 2048;
    int n_pieces = 5 + (int)(test_u32() % 60);
    for (int i = 0; i < n_pieces; i++) {
        char *text = end;
        int n_parts = i < 10 ? 1 : 2 + (int)(test_u32() % 2), n_now = (int)arrlen(v.pieces);
        for (int k = 0; k < n_parts; k++) {
            Piece part = v.pieces[(uint32_t)n_now - 1 - test_u32() % (uint32_t)(i < 10 ? 1 : i)];
            if (i < 10) part.text = alphabet[i], part.len = (int)strlen(alphabet[i]);
            if (part.len > 12) part.len = 12;
            memcpy(end, part.text, (size_t)part.len);
            end += part.len;
        }
        uint32_t kind = test_u32() % 40;
        float score = kind == 1 ? NAN : kind == 2 ? -INFINITY : kind == 3 ? INFINITY : scores[test_u32() % 10];
        if (kind == 4) end = text; // empty
        put_piece(&v, text, (int)(end - text), score, i >= 10 && kind == 5 ? TOKEN_CONTROL : TOKEN_NORMAL);
    }
    s.prefix = v.add_space_prefix;
    s.unk_id = v.unk_id;
    s.t = tokenizer_new(&v, NULL, 0);
    subject_sort(&s);
    return s;
}

// ---- the slow encoder: run.c of llama2.c, with its string searches

static int slow_find(const Subject *s, const char *text, int len) {
    int lo = 0, hi = s->n_sorted;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        const Piece *p = tokenizer_piece(s->t, s->sorted[mid]);
        if (compare_text(p->text, p->len, text, len) < 0) lo = mid + 1;
        else hi = mid;
    }
    if (lo == s->n_sorted) return -1;
    const Piece *p = tokenizer_piece(s->t, s->sorted[lo]);
    return compare_text(p->text, p->len, text, len) ? -1 : s->sorted[lo];
}

// Characters as llama2.c finds them (a lead byte and up to three continuation bytes), which is right for valid
// text; for other text, single bytes wherever no valid character begins.
static int slow_char(const char *p, size_t n, bool valid) {
    if (!valid) return ref_char(p, n) ? ref_char(p, n) : 1;
    int len = 1;
    while ((size_t)len < n && len < 4 && ((unsigned char)p[len] & 0xC0) == 0x80) len++;
    return len;
}

static int slow_byte_id(const Subject *s, unsigned char b) {
    return tokenizer_size(s->t) > 258 && tokenizer_piece(s->t, 3)->type == TOKEN_BYTE ? b + 3 : -1;
}

typedef struct {
    int id, begin, len;
} Span;

static int slow_merge(const Subject *s, const char *text, Span *spans, int n) {
    for (;;) {
        int best = -1, best_id = -1;
        for (int i = 0; i + 1 < n; i++) {
            if (spans[i].id < 0 || spans[i + 1].id < 0) continue;
            int id = slow_find(s, text + spans[i].begin, spans[i].len + spans[i + 1].len);
            if (id < 0 || isnan(tokenizer_piece(s->t, id)->score)) continue;
            if (best >= 0 && tokenizer_piece(s->t, id)->score <= tokenizer_piece(s->t, best_id)->score) continue;
            best = i, best_id = id;
        }
        if (best < 0) return n;
        spans[best].id = best_id;
        spans[best].len += spans[best + 1].len;
        memmove(spans + best + 1, spans + best + 2, (size_t)(n - best - 2) * sizeof *spans);
        n--;
    }
}

static int slow_encode(const Subject *s, const char *user_text, size_t user_n, int32_t *ids) {
    size_t n_prefix = user_n && s->prefix, n = n_prefix + user_n;
    char *text = malloc(n + 1);
    text[0] = ' ';
    for (size_t i = 0; i < user_n; i++) text[n_prefix + i] = user_text[i];
    Span *spans = malloc((n + 1) * sizeof *spans);
    bool valid = ref_valid(text, n);
    int n_spans = 0, n_ids = 0;
    for (int i = 0, len; i < (int)n; i += len) {
        len = slow_char(text + i, n - (size_t)i, valid);
        spans[n_spans++] = (Span){slow_find(s, text + i, len), i, len};
    }
    n_spans = slow_merge(s, text, spans, n_spans);
    for (int i = 0; i < n_spans; i++) {
        if (spans[i].id >= 0) {
            ids[n_ids++] = spans[i].id;
            continue;
        }
        int first = slow_byte_id(s, (unsigned char)text[spans[i].begin]);
        if (first < 0 && s->unk_id >= 0) ids[n_ids++] = s->unk_id;
        for (int k = 0; first >= 0 && k < spans[i].len; k++) {
            ids[n_ids++] = slow_byte_id(s, (unsigned char)text[spans[i].begin + k]);
        }
    }
    free(spans);
    free(text);
    return n_ids;
}

// ---- random text

static size_t put_code_point(char *out, uint32_t c) {
    if (c < 0x80) return out[0] = (char)c, 1;
    int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (int i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)(lead[n] | c);
    return (size_t)n;
}

static size_t put_snippet(const Subject *s, char *out, bool valid) {
    static const char sample[] =
        "Once upon a time, the little dog's 1234 <s></s><unk><0x41> Größe naïve Привет, мир "
        "นี่คือ 日本語 한국어 中文 مرحبا 🦙 👩‍👩‍👧 🌫️❤\t\r\n\n  ...!!  "
        " "
        " "
        " "
        " ";
    static const uint32_t ranges[][2] = {{0, 0x80},        {0x20, 0x5F},     {0x80, 0x780},    {0x400, 0x100},
                                         {0x4E00, 0x5000}, {0xE000, 0x1FFE}, {0x1F300, 0x400}, {0x10000, 0x100000}};
    switch (test_u32() % (valid ? 5 : 8)) {
    case 0: {
        size_t begin = test_u32() % (sizeof sample - 1), n = 1 + test_u32() % 20;
        while (((unsigned char)sample[begin] & 0xC0) == 0x80) begin--;
        if (begin + n >= sizeof sample) n = sizeof sample - 1 - begin;
        while (((unsigned char)sample[begin + n] & 0xC0) == 0x80) n--;
        memcpy(out, sample + begin, n);
        return n;
    }
    case 1: {
        size_t n = 1 + test_u32() % 12;
        memset(out, " \n a="[test_u32() % 5], n);
        return n;
    }
    case 2:
    case 3: {
        const uint32_t *range = ranges[test_u32() % 8];
        return put_code_point(out, range[0] + test_u32() % range[1]);
    }
    case 4: {
        const Piece *p = tokenizer_piece(s->t, (int)(test_u32() % (uint32_t)tokenizer_size(s->t)));
        size_t n = p->len < 40 ? (size_t)p->len : 0;
        if (valid && !ref_valid(p->text, n)) n = 0;
        memcpy(out, p->text, n);
        return n;
    }
    default: {
        size_t n = 1 + test_u32() % 3;
        for (size_t i = 0; i < n; i++) out[i] = (char)(test_u32() % 3 ? 0x80 + test_u32() % 0x80 : test_u32() % 256);
        return n;
    }
    }
}

static size_t random_text(const Subject *s, char *out, size_t max, bool valid) {
    size_t want = test_u32() % (max - 64), n = 0;
    while (n < want) n += put_snippet(s, out + n, valid);
    return n;
}

// ---- the checks that many tests share

static int encode(const Subject *s, const char *text, size_t n, unsigned flags, int32_t **ids) {
    char err[256] = "";
    int n_ids = tokenizer_encode(s->t, text, n, flags, ids, err, sizeof err);
    CHECK(n_ids >= 0, "%s", err);
    return n_ids;
}

// All ids through one stream; every chunk must be valid by itself and fit.
static size_t decode(const Subject *s, const int32_t *ids, int n_ids, bool at_start, char **out) {
    size_t room = textstream_room(s->t), n = 0;
    *out = malloc(((size_t)n_ids + 1) * room);
    TextStream stream = textstream_start(s->t, at_start);
    for (int i = 0; i <= n_ids; i++) {
        size_t k = i < n_ids ? textstream_push(&stream, ids[i], *out + n) : textstream_finish(&stream, *out + n);
        CHECK(k <= room, "id %d wrote %zu bytes, room for %zu", i < n_ids ? ids[i] : -1, k, room);
        CHECK(ref_valid(*out + n, k), "chunk %d is not valid UTF-8", i);
        n += k;
    }
    return n;
}

static void check_round_trip(const Subject *s, const char *text, size_t n, unsigned flags) {
    int32_t *ids;
    int n_ids = encode(s, text, n, flags, &ids);
    char *back;
    size_t n_back = decode(s, ids, n_ids, true, &back);
    CHECK(n_back == n && !memcmp(back, text, n), "%zu bytes came back as %zu: %.*s", n, n_back, (int)n, text);
    free(back);
    free(ids);
}

static void check_equals_slow(const Subject *s, int n_texts, size_t max) {
    char *text = malloc(max);
    int32_t *expected = malloc((max + 1) * sizeof *expected), *ids;
    for (int k = 0; k < n_texts; k++) {
        size_t n = random_text(s, text, max, k % 2);
        int n_expected = slow_encode(s, text, n, expected), n_ids = encode(s, text, n, 0, &ids);
        bool same = n_ids == n_expected && !memcmp(ids, expected, (size_t)n_ids * sizeof *ids);
        CHECK(same, "text %d: %d ids, expected %d: %.*s", k, n_ids, n_expected, (int)n, text);
        free(ids);
    }
    free(expected);
    free(text);
}

// ---- encoding

static void random_vocabularies_equal_slow(void) {
    for (int k = 0; k < 400; k++) {
        uint64_t rng = test_rng;
        Subject s = subject_random();
        check_equals_slow(&s, 40, 64 + 60);
        if (test_bad) fprintf(stderr, "vocabulary from rng %llu\n", (unsigned long long)rng);
        subject_close(&s);
    }
}

static void tok512_equals_slow(void) {
    SKIP_WITHOUT(TOK512);
    Subject s = subject_open(TOK512, 512);
    check_equals_slow(&s, 3000, 64 + 100);
    check_equals_slow(&s, 4, 1500);
    subject_close(&s);
}

static void llama2_equals_slow(void) {
    SKIP_WITHOUT(LLAMA2);
    Subject s = subject_open(LLAMA2, 32000);
    check_equals_slow(&s, 2000, 64 + 100);
    check_equals_slow(&s, 2, 1500);
    subject_close(&s);
}

// Every line of llama.cpp's own test of this vocabulary.
static void llama_cpp_ids(void) {
    SKIP_WITHOUT(LLAMA2);
    SKIP_WITHOUT(LLAMA_CPP ".inp");
    Subject s = subject_open(LLAMA2, 32000);
    known_ids(s.t, LLAMA_CPP, true);
    subject_close(&s);
}

// No byte tokens but 'a' and one half of e acute: a character becomes its bytes only when all of them exist.
static void unknown_characters(void) {
    Vocab v = {.bos_id = 7, .eos_id = -5, .unk_id = 0};
    put_piece(&v, "<unk>", 5, 0, TOKEN_UNKNOWN);
    put_piece(&v, "<0x61>", 6, 0, TOKEN_BYTE);
    put_piece(&v, "<0xc3>", 6, 0, TOKEN_BYTE);
    put_piece(&v, "<0xZZ>", 6, 0, TOKEN_BYTE);
    put_piece(&v, "b", 1, 0, TOKEN_NORMAL);
    Subject s = {.t = tokenizer_new(&v, NULL, 0)};
    int32_t *ids;
    int n = encode(&s, "ab\xC3\xA9\xC3", 5, TOKENIZE_BOS, &ids);
    CHECK(n == 4 && ids[0] == 1 && ids[1] == 4 && ids[2] == 0 && ids[3] == 2, "%d ids", n);
    char *out;
    size_t n_out = decode(&s, ids, n, true, &out);
    CHECK(n_out == 10 && !memcmp(out, "ab \xE2\x81\x87 \xEF\xBF\xBD", 10), "%.*s", (int)n_out, out);
    CHECK(tokenizer_bos(s.t) == -1 && tokenizer_eos(s.t) == -1, "ids outside the vocabulary");
    CHECK(!tokenizer_piece(s.t, -1) && !tokenizer_piece(s.t, 5), "pieces outside the vocabulary");
    free(out);
    free(ids);
    subject_close(&s);
}

// Equal scores (0 and -0 are equal) go left to right, whichever id is lower; NaN never merges.
static void equal_scores(void) {
    static const char text[] = "abcd";
    for (int zeros = 0; zeros < 4; zeros++) {
        Vocab v = {.bos_id = -1, .eos_id = -1, .unk_id = -1};
        for (int i = 0; i < 4; i++) put_piece(&v, text + i, 1, -9, TOKEN_NORMAL);
        put_piece(&v, "bc", 2, zeros & 1 ? -0.0f : 0.0f, TOKEN_NORMAL); // 4
        put_piece(&v, "ab", 2, zeros & 2 ? -0.0f : 0.0f, TOKEN_NORMAL); // 5
        put_piece(&v, "cd", 2, NAN, TOKEN_NORMAL);                      // 6
        Subject s = {.t = tokenizer_new(&v, NULL, 0)};
        text_ids(s.t, "abcd", 0, (int[]){5, 2, 3}, 3);
        subject_close(&s);
    }
}

static void special_tokens(void) {
    Subject s = {.storage = malloc(2048)};
    Vocab v = {.bos_id = 1, .eos_id = 2, .unk_id = 0, .add_space_prefix = true};
    put_basics(&v, s.storage, true);
    static const char *const singles = "<s>/ ab";
    for (int i = 0; i < 7; i++)
        put_piece(&v, singles + i, 1, -9, TOKEN_NORMAL); // 259 <  260 s  261 >  262 /  263 ' '  264 a
    put_piece(&v, "<s", 2, 1, TOKEN_NORMAL);             // 266
    put_piece(&v, "s>", 2, 1, TOKEN_NORMAL);             // 267
    put_piece(&v, "<s>a", 4, 0, TOKEN_CONTROL);          // 268
    put_piece(&v, " a", 2, 0, TOKEN_NORMAL);             // 269
    put_piece(&v, "b", 1, 5, TOKEN_CONTROL);             // 270: the text of piece 265
    put_piece(&v, "a", 1, 5, TOKEN_NORMAL);              // 271: the text of piece 264
    put_piece(&v, "", 0, 5, TOKEN_CONTROL);              // 272
    s.t = tokenizer_new(&v, NULL, 0);
    text_ids(s.t, "<s>", 0, (int[]){263, 266, 261}, 3);
    text_ids(s.t, "<s>", TOKENIZE_SPECIAL, (int[]){1}, 1);
    text_ids(s.t, "<s> a", TOKENIZE_SPECIAL, (int[]){1, 263, 269}, 3);
    text_ids(s.t, "<s><s>a</s>", TOKENIZE_SPECIAL, (int[]){1, 268, 2}, 3);
    text_ids(s.t, "a<s>/a", TOKENIZE_SPECIAL, (int[]){269, 1, 263, 262, 264}, 5); // the prefix again
    text_ids(s.t, "</s>a", TOKENIZE_SPECIAL | TOKENIZE_BOS, (int[]){1, 2, 269}, 3);
    text_ids(s.t, "ab", 0, (int[]){269, 265}, 2);
    text_ids(s.t, "ab", TOKENIZE_SPECIAL, (int[]){269, 270}, 2);
    text_ids(s.t, "", TOKENIZE_BOS | TOKENIZE_SPECIAL, (int[]){1}, 1);
    check_round_trip(&s, " a", 2, TOKENIZE_BOS);
    subject_close(&s);
}

static void text_never_makes_control_tokens(void) {
    SKIP_WITHOUT(LLAMA2);
    Subject s = subject_open(LLAMA2, 32000);
    const Piece *bos = tokenizer_piece(s.t, tokenizer_bos(s.t));
    char text[64];
    int n = snprintf(text, sizeof text, "<s> </s><unk><0x41> \n<s>\n%.*s", bos->len, bos->text);
    int32_t *ids;
    int n_ids = encode(&s, text, (size_t)n, 0, &ids);
    for (int i = 0; i < n_ids; i++) CHECK(ids[i] > 2 && ids[i] != 3 + 0x41, "id %d", ids[i]);
    free(ids);
    n_ids = encode(&s, bos->text, (size_t)bos->len, TOKENIZE_SPECIAL, &ids);
    CHECK(n_ids == 1 && ids[0] == 1, "the text of BOS gave %d ids", n_ids);
    free(ids);
    subject_close(&s);
}

static void limits(void) {
    Subject s = subject_random();
    int32_t *ids = NULL;
    char err[256] = "";
    CHECK(tokenizer_encode(s.t, "", (size_t)INT_MAX - 1, 0, &ids, err, sizeof err) == -1 && err[0],
          "2 GB must be refused");
    CHECK(!ids, "no ids on failure");
    CHECK(encode(&s, NULL, 0, TOKENIZE_SPECIAL, &ids) == 0 && ids, "no text, no ids, an array");
    free(ids);
    tokenizer_free(NULL);
    subject_close(&s);

    Vocab nothing = {.bos_id = 0, .unk_id = -1, .add_space_prefix = true};
    Subject empty = {.t = tokenizer_new(&nothing, NULL, 0)};
    CHECK(encode(&empty, "some text", 9, TOKENIZE_BOS | TOKENIZE_SPECIAL, &ids) == 0, "an empty vocabulary has no ids");
    free(ids);
    subject_close(&empty);
}

// In a child, since the limit stays: with little memory a large text fails with a line, with more it does not.
static size_t encode_room;
static bool encode_fits;

static void encode_within(void) {
    Subject s = subject_basic(true, (const char *const[]){"a", "aa"}, 2);
    size_t n = 1 << 20;
    char *text = malloc(n), err[256] = "";
    memset(text, 'a', n);
    limit_memory(encode_room);
    int32_t *ids;
    int n_ids = tokenizer_encode(s.t, text, n, 0, &ids, err, sizeof err);
    if (n_ids < 0) CHECK(!encode_fits && !ids && strstr(err, "memory"), "'%s'", err);
    else CHECK(n_ids == (int)(n / 2) + 1, "%d ids", n_ids); // the byte of " ", then pairs
    CHECK(n_ids >= 0 || !encode_fits, "%zu bytes are not enough", encode_room);
    exit(test_bad ? 1 : n_ids < 0 ? 2 : 0);
}

static void memory_runs_out(void) {
    int seen[3] = {0};
    for (size_t mb = 0; mb <= 128 && !test_was_skipped; mb += 4) {
        encode_room = mb << 20;
        encode_fits = mb == 128;
        int status = SANITIZED ? CHILD_CANNOT : in_child(encode_within); // sanitizers map terabytes
        if (status == CHILD_CANNOT) test_was_skipped = 1;
        else CHECK(status != 1 && status < 3, "%zu MB: status %d", mb, status);
        if (status < 3) seen[status]++;
    }
    CHECK(test_was_skipped || (seen[0] && seen[2]), "done %d, out of memory %d", seen[0], seen[2]);
}

// ---- decoding

// Bytes, and how many U+FFFD they become (the Unicode Standard, tables 3-8 to 3-11, and single cases).
static void invalid_sequences(void) {
    static const struct {
        const char *bytes, *expected; // '?' stands for U+FFFD
    } cases[] = {
        {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "????????A"}, // not shortest forms
        {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "????????A"}, // surrogates
        {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "?????A??B"}, // above U+10FFFF, no lead, no continuation
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "????A"},     // truncated: one for each
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF", "????"},          // the last one by finish
        {"\xF0\x9F\x98", "?"},
        {"\xF0\x9F\x98\x98\x98", "\xF0\x9F\x98\x98?"},
        {"\xE0\x9F\x80", "???"},
        {"\xED\x9F\xBF\xEE\x80\x80", "\xED\x9F\xBF\xEE\x80\x80"},
        {"\xF4\x8F\xBF\xBF", "\xF4\x8F\xBF\xBF"},
        {"\xF4\x90\x80\x80", "????"},
        {"\xF5\x80\xFE", "???"},
        {"\xC2", "?"},
        {"\xC2\x41", "?A"},
        {"\xC2\xC2\x80", "?\xC2\x80"},
        {"\xEF\xBF\xBD\xEF\xBB\xBF", "\xEF\xBF\xBD\xEF\xBB\xBF"},
    };
    Subject s = subject_basic(false, NULL, 0);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        int32_t *ids;
        int n_ids = encode(&s, cases[k].bytes, strlen(cases[k].bytes), 0, &ids);
        CHECK(n_ids == (int)strlen(cases[k].bytes), "case %zu: a byte token each, found %d", k, n_ids);
        char *out, expected[64];
        size_t n = decode(&s, ids, n_ids, true, &out), n_expected = 0;
        for (const char *p = cases[k].expected; *p; p++) {
            memcpy(expected + n_expected, *p == '?' ? "\xEF\xBF\xBD" : p, *p == '?' ? 3 : 1);
            n_expected += *p == '?' ? 3 : 1;
        }
        CHECK(n == n_expected && !memcmp(out, expected, n), "case %zu: %.*s, expected %s", k, (int)n, out,
              cases[k].expected);
        free(out);
        free(ids);
    }
    subject_close(&s);
}

// Random ids, ids out of range among them: the chunks together are the pieces' bytes, repaired.
static void check_stream(const Subject *s) {
    enum { N_IDS = 40 };
    size_t room = textstream_room(s->t), n = 0;
    char *bytes = malloc(N_IDS * room), *expected = malloc(3 * N_IDS * room), *out;
    int32_t ids[N_IDS];
    uint32_t n_vocab = (uint32_t)tokenizer_size(s->t);
    for (int i = 0; i < N_IDS; i++) {
        bool high_byte = test_u32() % 2 && n_vocab > 258;
        ids[i] = (int32_t)(high_byte ? 3 + 0x80 + test_u32() % 0x80 : test_u32() % (n_vocab + 2)) - 1;
        const Piece *p = tokenizer_piece(s->t, ids[i]);
        if (!p || p->type == TOKEN_CONTROL || !p->len) continue;
        if (p->type == TOKEN_BYTE) bytes[n++] = (char)(ids[i] - 3);
        else if (p->type == TOKEN_UNKNOWN) memcpy(bytes + n, " \xE2\x81\x87 ", 5), n += 5;
        else memcpy(bytes + n, p->text, (size_t)p->len), n += (size_t)p->len;
    }
    size_t n_expected = ref_repair(bytes, n, expected), n_out = decode(s, ids, N_IDS, false, &out);
    CHECK(n_out == n_expected && !memcmp(out, expected, n_out), "%.*s, expected %.*s", (int)n_out, out, (int)n_expected,
          expected);
    free(out);
    free(expected);
    free(bytes);
}

static void random_ids_give_valid_text(void) {
    for (int k = 0; k < 500; k++) {
        Subject s = subject_random();
        for (int i = 0; i < 10; i++) check_stream(&s);
        subject_close(&s);
    }
}

static void random_ids_of_llama2_give_valid_text(void) {
    SKIP_WITHOUT(LLAMA2);
    Subject s = subject_open(LLAMA2, 32000);
    for (int i = 0; i < 5000; i++) check_stream(&s);
    subject_close(&s);
}

static void leading_spaces(void) {
    Subject s = subject_basic(true, (const char *const[]){"  ", " a"}, 2); // 259, 260; a space is the byte token 35
    static const struct {
        int32_t ids[3];
        const char *start, *later;
    } cases[] = {{{1, 260, 260}, "a a", " a a"}, {{35, 35, 260}, "  a", "   a"},
                 {{259, 259, 1}, "   ", "    "}, {{1, 2, 35}, "", " "},
                 {{260, 1, 259}, "a  ", " a  "}, {{0, 260, 1}, " \xE2\x81\x87  a", " \xE2\x81\x87  a"}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        for (int at_start = 0; at_start < 2; at_start++) {
            const char *expected = at_start ? cases[k].start : cases[k].later;
            char *out;
            size_t n = decode(&s, cases[k].ids, 3, at_start, &out);
            CHECK(n == strlen(expected) && !memcmp(out, expected, n), "case %zu: '%.*s', expected '%s'", k, (int)n, out,
                  expected);
            free(out);
        }
    }
    subject_close(&s);
}

// ---- both ways

static void check_round_trips(const Subject *s, int n_texts) {
    static const char nul[] = "\0a\0\0 \n\0";
    check_round_trip(s, nul, sizeof nul, 0);
    check_round_trip(s, "", 0, TOKENIZE_BOS);
    char text[512];
    for (int k = 0; k < n_texts; k++) {
        size_t n = random_text(s, text, sizeof text, true);
        check_round_trip(s, text, n, k % 2 ? TOKENIZE_BOS : 0);
    }
}

static void round_trip_in_random_vocabularies(void) {
    for (int k = 0; k < 300; k++) {
        Subject s = subject_random();
        bool has_bytes = tokenizer_size(s.t) > 258 && tokenizer_piece(s.t, 3)->type == TOKEN_BYTE;
        if (has_bytes) check_round_trips(&s, 20);
        subject_close(&s);
    }
}

static void round_trip_in_real_vocabularies(void) {
    SKIP_WITHOUT(TOK512);
    SKIP_WITHOUT(LLAMA2);
    SKIP_WITHOUT(STORIES);
    size_t n;
    char *stories = read_file(STORIES, &n);
    for (int k = 0; k < 2; k++) {
        Subject s = subject_open(k ? LLAMA2 : TOK512, k ? 32000 : 512);
        check_round_trips(&s, 3000);
        check_round_trip(&s, stories, n, TOKENIZE_BOS);
        subject_close(&s);
    }
    free(stories);
}

// ---- time

static double encode_ms(const Subject *s, const char *text, size_t n) {
    int32_t *ids;
    double begin = seconds();
    encode(s, text, n, 0, &ids);
    free(ids);
    return 1e3 * (seconds() - begin);
}

// Printed, not asserted: machines differ. Quadratic work would take minutes.
static void time_of_a_megabyte(void) {
    SKIP_WITHOUT(LLAMA2);
    SKIP_WITHOUT(STORIES);
    Subject s = subject_open(LLAMA2, 32000);
    enum { N = 1 << 20 };
    size_t n_stories;
    char *stories = read_file(STORIES, &n_stories), *text = malloc(N);
    for (size_t i = 0; i < N; i++) text[i] = stories[i % n_stories];
    printf("  1 MB, 32,000 pieces: stories %.0f ms", encode_ms(&s, text, N));
    for (size_t i = 0, k = 0; i < N; k++) {
        if (stories[k % n_stories] > ' ') text[i++] = stories[k % n_stories];
    }
    printf(", without spaces %.0f", encode_ms(&s, text, N));
    for (int k = 0; k < 3; k++) {
        memset(text, "a. "[k], N);
        printf(", all '%c' %.0f", "a. "[k], encode_ms(&s, text, N));
    }
    for (size_t i = 0; i < N; i++) text[i] = "er"[test_u32() % 2];
    printf(", random e and r %.0f", encode_ms(&s, text, N));
    for (size_t i = 0; i < N; i++) text[i] = (char)test_u32();
    printf(", random bytes %.0f\n", encode_ms(&s, text, N));
    free(stories);
    free(text);
    subject_close(&s);
}

int main(void) {
    RUN(random_vocabularies_equal_slow);
    RUN(tok512_equals_slow);
    RUN(llama2_equals_slow);
    RUN(llama_cpp_ids);
    RUN(unknown_characters);
    RUN(equal_scores);
    RUN(special_tokens);
    RUN(text_never_makes_control_tokens);
    RUN(limits);
    RUN(memory_runs_out);
    RUN(invalid_sequences);
    RUN(random_ids_give_valid_text);
    RUN(random_ids_of_llama2_give_valid_text);
    RUN(leading_spaces);
    RUN(round_trip_in_random_vocabularies);
    RUN(round_trip_in_real_vocabularies);
    RUN(time_of_a_megabyte);
    return test_report();
}
