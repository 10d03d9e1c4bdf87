// fuzz_vocab_json: tokenizer.json from arbitrary bytes, and texts through what it makes.
//
// Byte 0: which document, or the input itself; then patches of the document, each a place (two bytes) and what goes
// there (a byte: one of `odd`, or so many characters less); then, behind a 0xFF, a text. Aborts when what loads is not
// as Vocab promises, when ids are not of the vocabulary, when text makes a token that it must not, and when decoding
// gives anything but valid UTF-8.
#include "load.h"
#include "textstream.h"
#include "utf8.h"
#include "vocab_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#include "fuzz.h"

enum { N_DOCUMENTS = 4, DOCUMENT_MAX = 3000 };

// tests/fuzz/tokenizers.jsonl, a document a line.
static char documents[N_DOCUMENTS][DOCUMENT_MAX];

static void read_documents(void) {
    FILE *f = fopen("tests/fuzz/tokenizers.jsonl", "r");
    for (int i = 0; i < N_DOCUMENTS; i++) REQUIRE(f && fgets(documents[i], DOCUMENT_MAX, f));
    fclose(f);
}

// clang-format off
static const char *const odd[] = {"\"", "\\", "{", "}", "[", "]", ",", ":", "0", "9", "-", ".5", "1e9", "null",
    "true", "\"a\"", "\"a\":7", "\\u0120", "\\ud83d\\ude00", "\xC3", "\xFF", " ", "[[", "}}", "(a*)*", "\\\\s",
    "\"Isolated\"", "\"Removed\"", "\"Contiguous\"", "\"NFKD\"", "\"Lowercase\"", "\"Whitespace\""};
// clang-format on
enum { N_ODD = sizeof odd / sizeof *odd };

static bool all_valid(const char *text, size_t n) {
    size_t end = 0;
    return !n || (utf8_run(text, n, &end) && end == n);
}

static void check_text(const Tokenizer *t, const char *text, size_t n, unsigned flags) {
    int32_t *ids;
    char err[256] = "";
    int n_ids = tokenizer_encode(t, text, n, flags, &ids, err, sizeof err);
    if (n_ids < 0) {
        REQUIRE(strstr(err, "takes too long") && !ids);
        return;
    }
    char *out = malloc(textstream_room(t));
    TextStream s = textstream_start(t, true);
    for (int i = 0; i < n_ids; i++) {
        const Piece *p = tokenizer_piece(t, ids[i]);
        REQUIRE(p);
        if (!flags) REQUIRE(p->type != TOKEN_CONTROL && p->type != TOKEN_UNUSED);
        size_t k = textstream_push(&s, ids[i], out);
        REQUIRE(k <= textstream_room(t) && all_valid(out, k));
    }
    REQUIRE(all_valid(out, textstream_finish(&s, out)));
    free(out);
    free(ids);
}

static void load(const char *json, size_t size, const char *text, size_t n_text) {
    static char path[] = "fuzz.json";
    char err[256] = "";
    uint8_t *exact = malloc(size ? size : 1);
    memcpy(exact, json, size);
    File file = {.path = path, .data = exact, .size = size, .borrowed = true};
    Vocab v;
    int rc = vocab_json_read(&v, &file, err, sizeof err);
    free(exact);
    if (rc) {
        static const Vocab nothing;
        REQUIRE(rc == -1 && !memcmp(&v, &nothing, sizeof v));
        require_line(err, "fuzz.json");
        return;
    }
    int n = (int)arrlen(v.pieces);
    REQUIRE(n > 0 && v.unk_id < n && v.no_bos == !arrlen(v.prefix_ids));
    for (int i = 0; i < n; i++) REQUIRE(v.pieces[i].len >= 0 && v.pieces[i].score == v.pieces[i].score);
    for (ptrdiff_t i = 0; i < arrlen(v.merges); i++) {
        const Merge *m = &v.merges[i];
        REQUIRE(m->left >= 0 && m->left < n && m->right >= 0 && m->right < n && m->id >= 0 && m->id < n);
    }
    Tokenizer *t = tokenizer_new(&v, err, sizeof err);
    REQUIRE(t && !v.pieces && !v.text && !v.normalizer && !v.pretokenizer);
    check_text(t, text, n_text, 0);
    check_text(t, text, n_text, TOKENIZE_BOS | TOKENIZE_SPECIAL);
    check_text(t, "a\xC3\xA9 ab<s>  [x]!1", 17, TOKENIZE_SPECIAL);
    tokenizer_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!*documents[0]) read_documents();
    if (!size) return 0;
    unsigned which = data[0] % (N_DOCUMENTS + 1);
    data++, size--;
    if (which == N_DOCUMENTS) {
        load((const char *)data, size, "a b", 3);
        return 0;
    }
    char json[4096];
    size_t n = strlen(strcpy(json, documents[which]));
    for (; size >= 3 && data[0] != 0xFF && n < 3000; data += 3, size -= 3) {
        size_t at = (data[0] * 256u + data[1]) % n, less = data[2] >= 128 ? data[2] % 32u : 1;
        const char *more = data[2] < 128 ? odd[data[2] % N_ODD] : "";
        if (data[2] >= 64 && data[2] < 128) less = 0; // in between
        if (less > n - at) less = n - at;
        memmove(json + at + strlen(more), json + at + less, n - at - less);
        memcpy(json + at, more, strlen(more));
        n = n - less + strlen(more);
        if (!n) break;
    }
    if (size) data++, size--;
    load(json, n, (const char *)data, size);
    return 0;
}
