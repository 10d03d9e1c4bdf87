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

typedef struct {
    const char *json, *text, *want;
} Case;

static void check_cases(const Case *cases, size_t n, const char *frame) {
    for (size_t i = 0; i < n; i++) {
        char json[4096], err[256] = "";
        snprintf(json, sizeof json, frame, cases[i].json);
        Vocab v = steps_of(json, err, sizeof err);
        expect_cuts(&v, cases[i].json, cases[i].text, cases[i].want, err);
    }
}

// ---- pre-tokenizers

#define SPLIT(pattern, behavior) "'type':'Split','pattern':{" pattern "},'behavior':'" behavior "'"

static void pretokenizers(void) {
    static const Case cases[] = {
        {SPLIT("'String':'-'", "Isolated"), "a-b--c-", "a|-|b|-|-|c|-"},
        {SPLIT("'String':'-'", "Removed"), "-a-b--c-", "a|b|c"},
        {SPLIT("'String':'-'", "MergedWithPrevious"), "a-b--c-", "a-|b-|-|c-"},
        {SPLIT("'String':'-'", "MergedWithNext"), "a-b--c-", "a|-b|-|-c|-"},
        {SPLIT("'String':'-'", "Contiguous"), "a-b--c-", "a|-|b|--|c|-"},
        {SPLIT("'String':'a.b'", "Isolated"), "xa.bxaxb", "x|a.b|xaxb"}, // a text, no pattern
        {SPLIT("'Regex':'a+'", "Isolated") ",'invert':true", "xaay", "x|aa|y"},
        {SPLIT("'Regex':'a+'", "Removed") ",'invert':true", "xaayaz", "aa|a"},
        {SPLIT("'Regex':'a+'", "MergedWithPrevious") ",'invert':true", "aaxa", "aax|a"},
        {SPLIT("'Regex':'(?=\\\\d{3}$)'", "Isolated"), "12345", "12|345"}, // an empty match cuts
        {SPLIT("'Regex':'x*'", "Isolated"), "axxb", "a|xx|b"},
        {SPLIT("'Regex':'x*'", "Removed"), "\xC3\xA9\xE4\xB8\xAD", "\xC3\xA9|\xE4\xB8\xAD"},
        {"'type':'Whitespace'", " Hey man!! it's \xC3\xA9t\xC3\xA9_2 ", "Hey|man|!!|it|'|s|\xC3\xA9t\xC3\xA9_2"},
        {"'type':'WhitespaceSplit'", " Hey  man!\xE3\x80\x80x\xC2\x85y ", "Hey|man!|x|y"},
        {"'type':'Digits','individual_digits':true",
         "a12\xC2\xBD"
         "b",
         "a|1|2|\xC2\xBD|b"},
        {"'type':'Digits','individual_digits':false", "a12b3", "a|12|b|3"},
        {"'type':'Punctuation'", "a,b..\xE2\x80\x94$", "a|,|b|.|.|\xE2\x80\x94|$"},
        {"'type':'Punctuation','behavior':'Contiguous'", "a,b..c", "a|,|b|..|c"},
        {"'type':'CharDelimiterSplit','delimiter':'|'", "a|b||c", "a|b|c"},
        {"'type':'BertPreTokenizer'", "Hey friend!     How\tare", "Hey|friend|!|How|are"},
        {"'type':'ByteLevel','add_prefix_space':false", "Hello my  dog's", "Hello| my| | dog|'s"},
        {"'type':'ByteLevel','add_prefix_space':true", "Hello dog", " Hello| dog"},
        {"'type':'ByteLevel','add_prefix_space':true", " Hello", " Hello"},
        {"'type':'ByteLevel','add_prefix_space':false,'use_regex':false", "Hello dog", "Hello dog"},
        {"'type':'Metaspace','replacement':'\u2581','prepend_scheme':'always'", "Hey  x", "\u2581Hey|\u2581|\u2581x"},
        {"'type':'Metaspace','replacement':'\u2581','prepend_scheme':'never'", "Hey x", "Hey|\u2581x"},
        {"'type':'Metaspace','replacement':'\u2581','prepend_scheme':'first'", "Hey x", "\u2581Hey|\u2581x"},
        {"'type':'Metaspace','replacement':'\u2581','prepend_scheme':'first'", " Hey", "\u2581Hey"},
        {"'type':'Metaspace','replacement':'\u2581','add_prefix_space':false", "Hey x", "Hey|\u2581x"},
        {"'type':'Metaspace','replacement':'\u2581','split':false", "Hey x", "\u2581Hey\u2581x"},
        {"'type':'Sequence','pretokenizers':[{'type':'WhitespaceSplit'},{'type':'Metaspace','replacement':'\u2581',"
         "'prepend_scheme':'first'}]",
         "a b",
         "\u2581"
         "a|b"}, // only what begins the text
        {"'type':'Sequence','pretokenizers':[{'type':'Digits','individual_digits':true},{'type':'ByteLevel',"
         "'add_prefix_space':false}]",
         "in 2024 x", "in| |2|0|2|4| x"},
        // what follows ByteLevel sees the letters of bytes: C2 B2 is written with the digit U+00B2
        {"'type':'Sequence','pretokenizers':[{'type':'ByteLevel','add_prefix_space':false},{'type':'Digits'}]",
         "\xC2\xB2", "\xC2|\xB2"},
        {"'type':'Sequence','pretokenizers':[]", "a b", "a b"},
    };
    check_cases(cases, sizeof cases / sizeof *cases, "{'pre_tokenizer':{%s}}");
}

// ---- normalizers

static void normalizers(void) {
    static const Case cases[] = {
        {"'type':'NFC'", "e\u0301 \u212B \uFB01", "\u00E9 \u00C5 \uFB01"},
        {"'type':'NFD'", "\u00E9", "e\u0301"},
        {"'type':'NFKC'", "\uFB01 \uFF21e\u0301\u00BD",
         "fi A\u00E9"
         "1\u2044"
         "2"},
        {"'type':'NFKD'", "\uFB01\u00E9", "fie\u0301"},
        {"'type':'NFC'", "plain e\u0301", "plain \u00E9"},
        {"'type':'NFC'", "q\u0307\u0323", "q\u0323\u0307"}, // in canonical order
        {"'type':'Lowercase'", "HELLO \u00C9\u0130\u03A3", "hello \u00E9i\u0307\u03C3"},
        {"'type':'StripAccents'", "e\u0301\u00E9\u0926\u0940", "e\u00E9\u0926"},
        {"'type':'BertNormalizer'", "\u0926\u0940\u0941", "\u0926\u0940"}, // a spacing mark stays
        {"'type':'Strip','strip_left':true,'strip_right':false", " \u00A0x \t", "x \t"},
        {"'type':'Strip','strip_left':false,'strip_right':true", " x \u3000\n", " x"},
        {"'type':'Strip'", " \t ", ""},
        {"'type':'Prepend','prepend':'\u2581'", "x", "\u2581x"},
        {"'type':'Prepend','prepend':'\u2581'", "", ""},
        {"'type':'Replace','pattern':{'String':' '},'content':'\u2581'", " a b",
         "\u2581"
         "a\u2581"
         "b"},
        {"'type':'Replace','pattern':{'Regex':' {2,}'},'content':'-'", "a  b   c d", "a-b-c d"},
        {"'type':'Replace','pattern':{'Regex':'^'},'content':'>'", "a", ">a"},
        {"'type':'Replace','pattern':{'String':'.'},'content':''", "a.b.", "ab"},
        {"'type':'BertNormalizer'", "H\u00E9llo\tW\u4E2D\u6587\a\uFFFD x\u00A0y", "hello w \u4E2D  \u6587  x y"},
        {"'type':'BertNormalizer','lowercase':false", "H\u00E9", "H\u00E9"},
        {"'type':'BertNormalizer','lowercase':false,'strip_accents':true", "H\u00E9", "He"},
        {"'type':'BertNormalizer','handle_chinese_chars':false,'clean_text':false", "\u4E2D\t", "\u4E2D\t"},
        {"'type':'Nmt'", "a\u200B\tb\a\uFEFF", "a  b "},
        {"'type':'Sequence','normalizers':[{'type':'NFD'},{'type':'StripAccents'},{'type':'Lowercase'}]",
         "\u00C9T\u00C9", "ete"},
        {"'type':'Sequence','normalizers':[{'type':'Sequence','normalizers':[{'type':'Lowercase'}]}]", "A", "a"},
    };
    check_cases(cases, sizeof cases / sizeof *cases, "{'normalizer':{%s}}");
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
    static const struct {
        const char *regex, *text, *want;
    } cases[] = {
        {"\\s",
         "a\xC2\x85"
         "b\u180Ec\u3000d",
         "a|\xC2\x85|b\u180Ec|\u3000|d"},
        {"[^\\s]+", "a\u180E b", "a\u180E| |b"},
        {"[\\S]+",
         "a\xC2\x85"
         "b",
         "a|\xC2\x85|b"},
        {"\\w+", "a\u0300\u203F-\u0967\u24B6.", "a\u0300\u203F|-|\u0967\u24B6|."},
        {"\\W", "a.b\u0300", "a|.|b\u0300"},
        {"[\\w.]+", "a.b-c", "a.b|-|c"},
        {"(?i:'s)", "x'S'\u017F't", "x|'S|'\u017F|'t"},
        {"\\p{Han}+", "\u4E2D\u3001\u3005", "\u4E2D|\u3001|\u3005"}, // U+3001 is of Han by its extensions alone
        {"\\p{L}+", "a\u00E91", "a\u00E9|1"},
        {"\\d+", "1\u0663a", "1\u0663|a"},
        {"a.b",
         "a\u4E2D"
         "ba\nb",
         "a\u4E2D"
         "b|a\nb"},
        {"x$", "x\nx", "x|\n|x"}, // at every line's end
        {"[]a]+", "]ab", "]a|b"},
        {"[^]a]+", "]ab", "]a|b"},
        {"a++b", "aab", "aab"},
        {"(?>a|ab)c", "abc", "abc"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char err[256] = "";
        Vocab v = {0};
        pretokenizer_add_regex(&v.pretokenizer, cases[i].regex, SPLIT_ISOLATED, err, sizeof err);
        expect_cuts(&v, cases[i].regex, cases[i].text, cases[i].want, err);
    }
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
    static const struct {
        const char *name, *text, *want;
    } cases[] = {
        {"gpt-2", "I'm 1234  ok\n\n", "I|'m| 1234| | ok|\n\n"},
        {"gpt-2", "I'M", "I|'|M"},
        {"llama-bpe", "I'M 12345 x\n\n y", "I|'M| |123|45| x|\n\n| y"},
        {"llama3", "a!!\n b", "a|!!\n| b"},
        {"qwen2", "12 \xE2\x80\x9Cx", "1|2| \xE2\x80\x9C|x"},
        {"qwen35", "e\u0301x", "\u00E9x"}, // NFC comes first
        {"starcoder", "x 12", "x| |1|2"},
        {"refact", "x 12", "x| |1|2"},
        {"command-r", "x12", "x|1|2"},
        {"tiny_aya", "HelloWorld's 1234567", "Hello|World's| |1|234|567"},
        {"chatglm-bpe", "I'll 1234", "I|'ll| |123|4"},
        {"stablelm2", "a 123", "a| |1|2|3"},
        {"mpt", "a 123", "a| 123"},
        {"exaone4", "a 123", "a| 123"},
        {"smollm", "x12", "x|1|2"},
        {"falcon", "a--b 12345", "a|--|b| |123|45"},
        {"deepseek-llm", "a\nb 12 \u4E2D", "a|\n|b| |12| |\u4E2D"},
        {"deepseek-coder", "a b12.", "a| b|1|2|."},
        {"deepseek-v3", "_foo 1234 \u4E2Dx", "_foo| |123|4| |\u4E2D|x"},
        {"gpt-4o", "HelloWorld's 1234/\n", "Hello|World's| |123|4|/\n"},
        {"o200k", "camelCase", "camel|Case"},
        {"gpt-oss", "a/b", "a|/b"},
        {"tekken", "HelloWorld's 12", "Hello|World|'s| |1|2"},
        {"olmo", "a b", "a| b"},
        {"phi-2", "a b", "a| b"},
        {"stablelm2", "12", "1|2"},
        {"dbrx", "1234", "123|4"},
        {"default", "a$b 123", "a|$|b| |123"},
        {"bloom", "a,b c", "a|,|b| c"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char err[256] = "";
        Vocab v = {0};
        gguf_pre_steps(&v, cases[i].name, strlen(cases[i].name), err, sizeof err);
        expect_cuts(&v, cases[i].name, cases[i].text, cases[i].want, err);
    }
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
