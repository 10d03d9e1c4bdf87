// check_tokenizer_steps: every normalizer and pre-tokenizer of tokenizer.json, and what GGUF's names stand for, on
// texts whose result the published rule says; the dialect of patterns; endless patterns end (bad ones are in
// bad/patterns.txt); byte alphabets.
#include "files.h"

#include "charsmap.h"
#include "load.h"
#include "tokenizer.h"
#include "steps_json.h"

#include <stb/stb_ds.h>

typedef struct {
    char text[4096];
    size_t n;
} Cuts;

static int cut_seen(void *context, const char *text, size_t n) {
    Cuts *c = context;
    CHECK(n > 0, "an empty pre-token");
    if (c->n) c->text[c->n++] = '|';
    memcpy(c->text + c->n, text, n);
    c->n += n;
    return 0;
}

// The pre-tokens of the normalized text, with | between; "!" where it fails.
static Cuts cut(const Vocab *v, const char *text, size_t n) {
    Cuts c = {0};
    Matcher *m = matcher_open();
    char *normal = v->normalizer ? normalizer_run(v->normalizer, m, text, n, &n) : NULL;
    int rc = v->normalizer && !normal ? -1 : 0;
    if (normal) text = normal;
    if (!rc && v->pretokenizer) rc = pretokenizer_run(v->pretokenizer, m, text, n, true, cut_seen, &c);
    else if (!rc && n) cut_seen(&c, text, n);
    if (rc) strcpy(c.text, "!");
    free(normal);
    matcher_close(m);
    return c;
}

// Frees the vocabulary.
static void expect_cuts(Vocab *v, const char *what, const char *text, const char *want, const char *err) {
    Cuts c = cut(v, text, strlen(text));
    CHECK(!*err && !strcmp(c.text, want), "%s: '%s': expected '%s', found '%s' %s", what, text, want, c.text, err);
    vocab_free(v);
}

static Vocab steps_of(const char *json, char *err, size_t errlen) {
    Vocab v = {0};
    Settings s;
    char *text = json_of(json);
    CHECK(!settings_parse(&s, "steps.json", text, strlen(text), err, errlen), "%s", err);
    steps_read_decoder(&s, &v);
    if (!s.failed) steps_read(&s, &v);
    if (s.failed) vocab_free(&v);
    settings_free(&s);
    free(text);
    return v;
}

// ---- tests/fixtures/steps.json: what is done, a text, its pre-tokens, and perhaps why

typedef enum { IN_JSON, AS_PATTERN, BY_NAME } Told;

static void check_rows(const char *group, Told told, const char *frame) {
    json_error_t error;
    json_t *all = json_load_file("tests/fixtures/steps.json", 0, &error), *row;
    size_t i, n = json_array_size(json_object_get(all, group));
    CHECK(n > 10, "steps.json: %s: %zu rows: %s", group, n, error.text);
    json_array_foreach(json_object_get(all, group), i, row) {
        char json[4096], err[256] = "", *what = json_dumps(json_array_get(row, 0), JSON_ENCODE_ANY);
        const char *name = json_string_value(json_array_get(row, 0));
        Vocab v = {0};
        snprintf(json, sizeof json, frame, what);
        if (told == IN_JSON) v = steps_of(json, err, sizeof err);
        if (told == AS_PATTERN) pretokenizer_add_regex(&v.pretokenizer, name, SPLIT_ISOLATED, err, sizeof err);
        if (told == BY_NAME) gguf_pre_steps(&v, name, strlen(name), err, sizeof err);
        expect_cuts(&v, what, json_string_value(json_array_get(row, 1)), json_string_value(json_array_get(row, 2)),
                    err);
        free(what);
    }
    json_decref(all);
}

static void pretokenizers(void) {
    check_rows("pre-tokenizers", IN_JSON, "{'pre_tokenizer':%s}");
    // what follows ByteLevel sees the letters of bytes: C2 B2 is written with the digit U+00B2
    char err[256] = "";
    Vocab v = steps_of("{'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':'ByteLevel','add_prefix_space':"
                       "false},{'type':'Digits'}]}}",
                       err, sizeof err);
    expect_cuts(&v, "ByteLevel, Digits", "\xC2\xB2", "\xC2|\xB2", err);
}

static void normalizers(void) {
    check_rows("normalizers", IN_JSON, "{'normalizer':%s}");
}

static void bytes_pass_normalizers(void) {
    char err[256] = "";
    Vocab v = steps_of("{'normalizer':{'type':'Sequence','normalizers':[{'type':'NFC'},{'type':'Lowercase'},"
                       "{'type':'Replace','pattern':{'String':'x'},'content':'yy'}]}}",
                       err, sizeof err);
    Cuts c = cut(&v,
                 "A\xFFX\xC3"
                 "e\xCC\x81\xE4\xB8",
                 9);
    CHECK(!strcmp(c.text, "a\xFFyy\xC3\xC3\xA9\xE4\xB8"), "%s %s", c.text, err);
    vocab_free(&v);
}

// A table of two entries, "a" to "xy" and "ab" to "": a double array by hand.
static void charsmaps(void) {
    const uint32_t LEAF = 1 << 8, VALUE = 1u << 31;
    uint32_t units[512] = {[0] = 256 << 10};
    units[256 ^ 'a'] = 'a' | LEAF | 64 << 10; // offset to 353 ^ 64 = 289
    units[(256 ^ 'a') ^ 64] = VALUE | 0;      // "xy"
    units[((256 ^ 'a') ^ 64) ^ 'b'] = 'b' | LEAF | 128 << 10;
    units[(((256 ^ 'a') ^ 64) ^ 'b') ^ 128] = VALUE | 3; // ""
    uint8_t table[4 + sizeof units + 4] = {0};
    uint32_t bytes = sizeof units;
    memcpy(table, &bytes, 4);
    memcpy(table + 4, units, sizeof units);
    memcpy(table + 4 + sizeof units, "xy\0", 4);
    char err[256] = "";
    Vocab v = {0};
    CHECK(!normalizer_add_charsmap(&v.normalizer, table, sizeof table, err, sizeof err), "%s", err);
    static const struct {
        const char *text, *want;
    } cases[] = {{"a", "xy"}, {"ab", ""}, {"cab", "c"}, {"aab", "xy"}, {"ac", "xyc"}, {"\u4E2D", "\u4E2D"}, {"b", "b"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Cuts c = cut(&v, cases[i].text, strlen(cases[i].text));
        CHECK(!strcmp(c.text, cases[i].want), "'%s': expected '%s', found '%s'", cases[i].text, cases[i].want, c.text);
    }
    vocab_free(&v);
    for (size_t n = 0; n < 5; n++) CHECK(!charsmap_open(table, n, err, sizeof err), "%zu bytes", n);
    for (int k = 0; k < 2000; k++) { // any units and texts: what is found lies inside
        uint8_t odd[4 + 64 + 8];
        bytes = 64;
        memcpy(odd, &bytes, 4);
        for (size_t i = 4; i < sizeof odd; i++) odd[i] = (uint8_t)(test_u32() % 4 ? test_u32() % 8 : test_u32());
        Charsmap *map = charsmap_open(odd, sizeof odd, err, sizeof err);
        char text[8];
        for (int i = 0; i < 8; i++) text[i] = (char)(test_u32() % 8);
        for (size_t i = 0, len, n_new; map && i < 8; i += len) {
            const char *now = charsmap_find(map, text + i, 8 - i, &len, &n_new);
            CHECK(len >= 1 && i + len <= 8 && strnlen(now, n_new) <= n_new, "%zu bytes for %zu", n_new, len);
        }
        charsmap_close(map);
    }
}

// ---- patterns

// White space is Unicode's: with U+0085, without U+180E. Case folds to the long s. A script is no script extension.
static void dialect(void) {
    check_rows("patterns", AS_PATTERN, "%s");
}

// Patterns that backtrack without end give up; the text then is an error, not a wait.
static void endless_patterns(void) {
    static const char *const regexes[] = {"(a+)+$",       "(a|a)*b",          "(a|aa)+$",     "((a*)*)*b",
                                          "^(?:(a+)*)*c", "(?:a?){40}a{40}b", "(a+)+b|(a*)*c"};
    char text[4097] = "";
    memset(text, 'a', 4096);
    text[4095] = '!';
    for (size_t i = 0; i < sizeof regexes / sizeof *regexes; i++) {
        char err[256] = "";
        Vocab v = {.bos_id = -1, .eos_id = -1, .unk_id = 0, .kind = VOCAB_RANK_BPE};
        Piece unknown = {.text = "?", .len = 1, .type = TOKEN_UNKNOWN};
        arrput(v.pieces, unknown);
        CHECK(!pretokenizer_add_regex(&v.pretokenizer, regexes[i], SPLIT_ISOLATED, err, sizeof err), "%s", err);
        Tokenizer *t = tokenizer_new(&v, err, sizeof err);
        int32_t *ids;
        double begin = seconds();
        int n = tokenizer_encode(t, text, 4096, 0, &ids, err, sizeof err);
        double took = seconds() - begin;
        CHECK(n >= 0 || strstr(err, "a regular expression of the tokenizer takes too long"), "%s: %s", regexes[i], err);
        CHECK(took < 60, "%s: %.0f s", regexes[i], took);
        free(ids);
        tokenizer_free(t);
    }
}

// ---- the names in GGUF

static void names_in_gguf(void) {
    check_rows("names", BY_NAME, "%s");
    static const char *const unknown[] = {"gpt-3", "", " ", "llama3 llama-v3", "llama", "gpt"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        char err[256] = "";
        Vocab v = {0};
        CHECK(gguf_pre_steps(&v, unknown[i], strlen(unknown[i]), err, sizeof err) && strstr(err, "known pre-tokenizer"),
              "'%s': %s", unknown[i], err);
        vocab_free(&v);
    }
}

static void byte_alphabet(void) {
    bool seen[0x200] = {0};
    for (int b = 0; b < 256; b++) {
        uint32_t c = byte_character((unsigned char)b);
        CHECK(c < 0x200 && !seen[c] && character_byte(c) == b, "byte %d is U+%04X", b, c);
        seen[c & 0x1FF] = true;
    }
    int n = 0;
    for (uint32_t c = 0; c < 0x3000; c++) n += character_byte(c) >= 0;
    CHECK(n == 256, "%d characters", n);
    char out[16];
    CHECK(bytes_of_characters("\u0120a\u010A", 5, out) == 3 && !memcmp(out, " a\n", 3), "Ga, with marks");
    CHECK(bytes_of_characters("a b", 3, out) == -1 && bytes_of_characters("\u4E2D", 3, NULL) == -1, "not of it");
}

int main(void) {
    RUN(pretokenizers);
    RUN(normalizers);
    RUN(bytes_pass_normalizers);
    RUN(charsmaps);
    RUN(dialect);
    RUN(endless_patterns);
    RUN(names_in_gguf);
    RUN(byte_alphabet);
    return test_report();
}
