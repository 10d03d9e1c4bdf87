// check_words: text cut into words and their letters, tables of symbols, pronouncing dictionaries and the rates that
// they give. The models are small ones whose weights do not matter.
#include "expect.h"
#include "make_bart.h"
#include "score.h"
#include "utf8_rules.h"

// ---- words

// Words as "text" or, where the letters that the model reads are others, "text=letters" (? for an unknown one).
static char *show_words(const G2p *m, const Word *words) {
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    for (ptrdiff_t i = 0; i < arrlen(words); i++) {
        const Word *w = &words[i];
        char letters[256] = "";
        int unknown = 0;
        for (int t = 1; t < w->n_ids - 1; t++) {
            const char *letter = w->ids[t] == m->model.unk_id ? "?" : symbols_text(&m->graphemes, w->ids[t]);
            unknown += w->ids[t] == m->model.unk_id;
            strncat(letters, letter ? letter : "!", sizeof letters - strlen(letters) - 1);
        }
        CHECK(w->ids[0] == m->model.bos_id && w->ids[w->n_ids - 1] == m->model.eos_id, "%s: ends", w->text);
        CHECK(w->n_unknown == unknown && w->n_known == w->n_ids - 2 - unknown, "%s: %d known, %d unknown", w->text,
              w->n_known, w->n_unknown);
        fprintf(f, "%s%s%s%s", i ? " " : "", w->text, strcmp(letters, w->text) ? "=" : "",
                strcmp(letters, w->text) ? letters : "");
    }
    fclose(f);
    return text;
}

static const struct {
    const char *text, *words;
} splits[] = {
    {"", ""},
    {" \t\r\n\f\v ", ""},
    {"one", "one"},
    {"two words", "two words"},
    {"\ttwo\r\n words \n", "two words"},
    {"Hello, World!", "Hello=hello World=world"},
    {"QUIZ Zoo", "QUIZ=quiZ Zoo"}, // a known capital stays
    {"(brackets) [square] {curly} <angle>", "brackets square curly angle"},
    {"\"double\" 'single' `back`", "double single back"},
    {"\xe2\x80\x9c"
     "curly\xe2\x80\x9d \xe2\x80\x98single\xe2\x80\x99",
     "curly single"},
    {"'tis dogs' don't 'em", "'tis dogs' don't 'em"},
    {"rock 'n' roll", "rock n roll"},
    {"'so,' she said, 'what?'", "so she said what"},
    {"\"'twas,\" he said.", "'twas he said"},
    {"well-known dash- -dash", "well-known dash dash"},
    {"one -- two \xe2\x80\x94 three - four", "one two three four"},
    {"so\xe2\x80\xa6 ...and then...", "so and then"},
    {"\xe2\x80\x94\xe2\x80\x9cso\xe2\x80\x9d\xe2\x80\x94", "so"},
    {"u.s. U.S., (e.g.) i.e.", "u.s. U.S.=u.s. e.g. i.e."},
    {"end. Mr. a. 'end.'", "end Mr=mr a end"},
    {"what?! no!!!", "what no"},
    {"... !!! -- \xe2\x80\xa6", ""},
    {"' '' ''' ','", ""},
    {"''so'' '(so)' (')", "so so"},
    {"u\u0308ber Stra\u00dfe \ufb01t", "u\u0308ber=uber Stra\u00dfe=strasse \ufb01t=fit"}, // an accent of its own
    {"\u0152uf \u00e6on \u0141a", "\u0152uf=oeuf \u00e6on=aeon \u0141a=la"},
    {"\u2121", "\u2121=tel"}, // never more letters than bytes
    {"caf\xc3\xa9 \xc3\x89", "caf\xc3\xa9 \xc3\x89=e"},
    {"na\xc3\xafve \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x98\x80", "na\xc3\xafve=naive \xe6\x97\xa5\xe6\x9c\xac=?? "
                                                               "\xf0\x9f\x98\x80=?"},
    {"b2b 3 a_b", "b2b=b?b 3=? a_b=a?b"},
    {"\xff\xfe"
     "ab",
     "\xff\xfe"
     "ab=??ab"},
    {"a\xc3 \xe2\x82 b\xf0\x9f\x98", "a\xc3=a? \xe2\x82=?? b\xf0\x9f\x98=b???"},
    {"\xed\xa0\x80 \xc0\xaf \xf4\x90\x80\x80", "\xed\xa0\x80=??? \xc0\xaf=?? \xf4\x90\x80\x80=????"},
    {"\x01\x02 \x7f", "\x01\x02=?? \x7f=?"},
    {"\x80 \xbf\xbf", "\x80=? \xbf\xbf=??"},
};

static void words_of_text(void) {
    char err[512] = "";
    G2p m;
    if (!open_model(&m, &lettered)) return;
    for (int i = 0; i < N_OF(splits); i++) {
        Word *words = NULL;
        size_t n = strlen(splits[i].text);
        char *exact = need(n ? n : 1); // no terminator: a sanitizer sees a byte too far
        memcpy(exact, splits[i].text, n);
        CHECK(!words_split(&words, &m, exact, n, err, sizeof err), "%s", err);
        char *shown = show_words(&m, words);
        CHECK(!strcmp(shown, splits[i].words), "[%s]: expected [%s], found [%s]", splits[i].text, splits[i].words,
              shown);
        free(shown);
        free(exact);
        words_free(&words);
    }
    char every[256]; // any bytes but NUL, in one line
    for (int i = 0; i < 255; i++) every[i] = (char)(i + 1);
    Word *words = NULL;
    CHECK(!words_split(&words, &m, every, 255, err, sizeof err), "%s", err);
    CHECK(arrlen(words) > 1, "%d words of all bytes", (int)arrlen(words));
    words_free(&words);

    char long_word[1001];
    memset(long_word, 'q', 1000);
    long_word[1000] = 0;
    CHECK(!words_split(&words, &m, long_word, 1000, err, sizeof err), "%s", err);
    CHECK(arrlen(words) == 1 && words[0].n_ids == 1002 && words[0].n_known == 1000 && !pronounceable(&m, words),
          "a word of 1000 letters");
    words_free(&words);

    CHECK(!words_add(&words, &m, " as-it, is ", 11, err, sizeof err), "%s", err);
    CHECK(arrlen(words) == 1 && !strcmp(words[0].text, " as-it, is ") && words[0].n_unknown == 4 &&
              !strcmp(words[0].unknown, " "),
          "a word as it stands: %d unknown", words ? words[0].n_unknown : -1);
    CHECK(!words_add(&words, &m, "x\xd0\x96y", 4, err, sizeof err) && !strcmp(words[1].unknown, "\xd0\x96"),
          "the unknown letter: %s", words[1].unknown);
    CHECK(!words_add(&words, &m, "ab3", 3, err, sizeof err) && words[2].has_digit && !pronounceable(&m, &words[2]),
          "a number is not pronounced");
    words_free(&words);
    g2p_close(&m);
}

// ---- numbers

static const struct {
    const char *text, *words;
} spelled[] = {
    {"0", "zero"},
    {"7", "seven"},
    {"10", "ten"},
    {"12", "twelve"},
    {"19", "nineteen"},
    {"20", "twenty"},
    {"21", "twenty one"},
    {"40", "forty"},
    {"100", "one hundred"},
    {"101", "one hundred one"},
    {"999", "nine hundred ninety nine"},
    {"1000", "one thousand"},
    {"1,234", "one thousand two hundred thirty four"},
    {"1001000", "one million one thousand"},
    {"1,000,000,007", "one billion seven"},
    {"1,2", "one two"},
    {"1234,567", "one thousand two hundred thirty four five hundred sixty seven"},
    {"3,1415", "three one thousand four hundred fifteen"},
    {"-5 -- 5", "minus five five"},
    {"\u221212", "minus twelve"},
    {"3-5", "three five"},
    {"3.14", "three point one four"},
    {"0.05.", "zero point zero five"},
    {"1.2.3", "one point two point three"},
    {"5.", "five"},
    {"007", "zero zero seven"},
    {"1st 2nd 3rd 4th", "first second third fourth"},
    {"5TH 8th 9th 12th", "fifth eighth ninth twelfth"},
    {"20th 21st 30th 100th", "twentieth twenty first thirtieth one hundredth"},
    {"0th 1000th", "zeroth one thousandth"},
    {"90s 1990s, 20's 6s", "nineties one thousand nine hundred nineties twenties sixes"},
    {"5th-grade 3rds", "fifth grade three rds"},
    {"10:30 24/7", "ten thirty twenty four seven"},
    {"mp3 2x4 x86-64", "mp three two x four x eighty six sixty four"},
    {"(42) $5, 50%", "forty two five fifty"},
    {"123456789012345678",
     "one hundred twenty three quadrillion four hundred fifty six trillion seven hundred eighty nine "
     "billion twelve million three hundred forty five thousand six hundred seventy eight"},
    {"1000000000000000000",
     "one zero zero zero zero zero zero zero zero zero zero zero zero zero zero zero zero zero zero"},
    {"no digits, it's so", "no digits it's so"},
};

// The value of a cardinal's words: each adds to what is before it, hundred and the thousands multiply.
static uint64_t value_of(const char *words) {
    static const struct {
        const char *word;
        uint64_t value;
    } names[] = {{"zero", 0},
                 {"one", 1},
                 {"two", 2},
                 {"three", 3},
                 {"four", 4},
                 {"five", 5},
                 {"six", 6},
                 {"seven", 7},
                 {"eight", 8},
                 {"nine", 9},
                 {"ten", 10},
                 {"eleven", 11},
                 {"twelve", 12},
                 {"thirteen", 13},
                 {"fourteen", 14},
                 {"fifteen", 15},
                 {"sixteen", 16},
                 {"seventeen", 17},
                 {"eighteen", 18},
                 {"nineteen", 19},
                 {"twenty", 20},
                 {"thirty", 30},
                 {"forty", 40},
                 {"fifty", 50},
                 {"sixty", 60},
                 {"seventy", 70},
                 {"eighty", 80},
                 {"ninety", 90},
                 {"hundred", 100},
                 {"thousand", 1000},
                 {"million", 1000000},
                 {"billion", 1000000000},
                 {"trillion", 1000000000000},
                 {"quadrillion", 1000000000000000}};
    uint64_t sum = 0, part = 0;
    char copy[512];
    snprintf(copy, sizeof copy, "%s", words);
    for (char *saved, *t = strtok_r(copy, " ", &saved); t; t = strtok_r(NULL, " ", &saved)) {
        int i = 0;
        while (i < N_OF(names) && strcmp(names[i].word, t) != 0) i++;
        if (i == N_OF(names)) return UINT64_MAX;
        if (names[i].value < 100) part += names[i].value;
        else if (names[i].value == 100) part *= 100;
        else sum += part * names[i].value;
        if (names[i].value > 100) part = 0;
    }
    return sum + part;
}

static char *words_as_text(const G2p *m, const char *text) {
    char err[512] = "", *shown;
    Word *words = NULL;
    CHECK(!words_split(&words, m, text, strlen(text), err, sizeof err), "%s", err);
    size_t n;
    FILE *f = open_memstream(&shown, &n);
    for (ptrdiff_t i = 0; i < arrlen(words); i++) fprintf(f, "%s%s", i ? " " : "", words[i].text);
    fclose(f);
    words_free(&words);
    return shown;
}

static void numbers_in_words(void) {
    G2p m;
    if (!open_model(&m, &lettered)) return;
    CHECK(!m.english, "a model that names no language");
    m.english = true;
    for (int i = 0; i < N_OF(spelled); i++) {
        char *shown = words_as_text(&m, spelled[i].text);
        CHECK(!strcmp(shown, spelled[i].words), "[%s]: expected [%s], found [%s]", spelled[i].text, spelled[i].words,
              shown);
        free(shown);
    }
    uint64_t random = 88172645463325252u;
    for (int i = 0; i < 3000; i++) { // of every length, and back
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        uint64_t most = 10;
        for (int d = i % 18; d > 0; d--) most *= 10;
        uint64_t v = random % most;
        char digits[32];
        snprintf(digits, sizeof digits, "%llu", (unsigned long long)v);
        char *shown = words_as_text(&m, digits);
        CHECK(value_of(shown) == v, "%s: %s", digits, shown);
        free(shown);
    }
    g2p_close(&m);
}

// ---- symbols

static int load_symbols(Symbols *y, const char *json, int vocab_size, char *err, size_t errlen) {
    Settings s;
    if (settings_parse(&s, "F", json, strlen(json), err, errlen)) return -1;
    int rc = symbols_load(y, &s, "object", "string", vocab_size, 4);
    settings_free(&s);
    return rc;
}

static void symbol_tables(void) {
    static const struct {
        const char *json, *error;
    } tables[] = {
        {"{}", "F: object: "},
        {"{\"object\":null}", "F: object: "},
        {"{\"object\":[\"a\"]}", "F: object: expected an object"},
        {"{\"object\":\"abc\"}", "F: object: expected an object"},
        {"{\"object\":{\"a\":10}}", "F: object: id: expected 0 to 9, found 10"},
        {"{\"object\":{\"a\":9223372036854775807}}", "F: object: id: expected 0 to 9"},
        {"{\"object\":{\"a\":4294967300}}", "F: object: id: expected 0 to 9"}, // 4, cut to 32 bits
        {"{\"object\":{\"a\":99999999999999999999}}", "F: object: "},
        {"{\"object\":{\"a\":4,\"b\":4}}", "F: object: id 4: expected once"},
        {"{\"object\":{\"a\":4,\"a\":\"b\"}}", "F: object: "},
        {"{\"object\":{\"a\":4.5}}", "F: object: "},
        {"{\"object\":{\"a\":\"4\"}}", "F: object: "},
        {"{\"object\":{\"a\":true}}", "F: object: "},
        {"{\"object\":{\"a\":null}}", "F: object: "},
        {"{\"object\":{\"a\":{}}}", "F: object: "},
        {"{\"object\":{\"\":4}}", "F: object: "},
        {"{\"object\":{\"a\\u0000b\":4}}", "not JSON"},
        {"{\"string\":5}", "F: string: expected a string"},
        {"{\"string\":{\"a\":4}}", "F: string: expected a string"},
        {"{\"string\":\"____abcdefg\"}", "F: string: id: expected 0 to 9, found 10"},
        {"{\"string\":\"____\xff\"}", "not JSON"},
    };
    char err[512];
    for (int i = 0; i < N_OF(tables); i++) {
        Symbols y = {0};
        err[0] = 0;
        CHECK(load_symbols(&y, tables[i].json, 10, err, sizeof err) == -1, "%s: loads", tables[i].json);
        expect_named(err, "F: ", tables[i].error, tables[i].json);
        symbols_free(&y);
    }
    Symbols y;
    CHECK(!load_symbols(&y, "{\"object\":{\"ab\":5,\"<s>\":1,\"x\":3,\"\xc9\x99\":9,\"neg\":-1}}", 10, err, sizeof err),
          "%s", err);
    CHECK(y.spaced && symbols_find(&y, "ab", 2) == 5 && symbols_find(&y, "abc", 3) == -1 &&
              symbols_find(&y, "abc", 2) == 5 && symbols_find(&y, "a", 1) == -1 && symbols_find(&y, "\xc9\x99", 2) == 9,
          "found by its bytes alone");
    CHECK(symbols_find(&y, "<s>", 3) == -1 && symbols_find(&y, "x", 1) == -1 && !symbols_text(&y, 1),
          "special ids have no symbol");
    CHECK(!symbols_text(&y, -1) && !symbols_text(&y, 10) && !symbols_text(&y, 6) && !strcmp(symbols_text(&y, 5), "ab"),
          "text by id");
    symbols_free(&y);
    symbols_free(&y);
    CHECK(!load_symbols(&y, "{\"string\":\"____\xc9\x99\xcb\x88z\"}", 10, err, sizeof err), "%s", err);
    CHECK(!y.spaced && symbols_find(&y, "\xc9\x99", 2) == 4 && symbols_find(&y, "\xcb\x88", 2) == 5 &&
              symbols_find(&y, "z", 1) == 6 && symbols_find(&y, "_", 1) == -1,
          "a string of characters");
    symbols_free(&y);
    CHECK(!load_symbols(&y, "{\"object\":{},\"string\":\"____a\"}", 10, err, sizeof err) &&
              symbols_find(&y, "a", 1) == -1,
          "the object holds, though empty");
    symbols_free(&y);
}

// Lengths of UTF-8 characters, valid and not.
static void utf8_lengths(void) {
    static const int bytes[] = {0x01, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0,
                                0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff, 0};
    int n = N_OF(bytes);
    for (int i = 0; i < n * n * n * n; i++) {
        char text[5] = {(char)bytes[i % n], (char)bytes[i / n % n], (char)bytes[i / n / n % n],
                        (char)bytes[i / n / n / n]};
        if (!*text) continue;
        bool valid;
        int want = ref_char(text, strlen(text));
        size_t found = utf8_length(text, &valid);
        CHECK(valid == (want > 0) && found == (size_t)(want ? want : 1), "%02x %02x %02x %02x: %zu bytes, %s",
              text[0] & 255, text[1] & 255, text[2] & 255, text[3] & 255, found, valid ? "valid" : "not valid");
    }
}

// ---- dictionaries and rates

static void check_rates(Rates r, int n_words, int wrong, long n_phonemes, long edits, const char *what) {
    CHECK(r.n_words == n_words && r.wrong_words == wrong && r.n_phonemes == n_phonemes && r.edits == edits,
          "%s: expected %d of %d words, %ld of %ld symbols; found %d of %d, %ld of %ld", what, wrong, n_words, edits,
          n_phonemes, r.wrong_words, r.n_words, r.edits, r.n_phonemes);
}

static void rates_by_hand(void) {
    char err[512] = "";
    G2p m;
    if (!open_model(&m, &lettered)) return;
    write_text("d.dict", ";;; a comment line\n"
                         "cab K AH1 B\n"
                         "\n"
                         "cab(2)  K\tAH0 B # a comment B B\r\n"
                         "ab AH1 B\r\n"
                         "bad XX AH1\n"
                         "abba AH0 B AH1 \n"
                         "Back B AH1 K\n"
                         "abba(3) AH0"); // no newline
    Dictionary d;
    NEED(!dictionary_read(&d, &m, in_folder("d.dict"), err, sizeof err), "%s", err);
    char *shown = show_words(&m, d.words);
    CHECK(!strcmp(shown, "cab ab bad abba Back=back"), "words: %s", shown);
    free(shown);
    const int n_answers[] = {2, 1, 1, 2, 1}, lengths[] = {3, 2, 2, 3, 3};
    for (int i = 0; i < 5; i++) {
        CHECK(arrlen(d.answers[i]) == n_answers[i] && arrlen(d.answers[i][0]) == lengths[i], "answers of word %d", i);
    }
    CHECK(d.answers[2][0][0] == -1 && d.answers[2][0][1] == AH1, "an unknown phoneme is -1");
    CHECK(d.plain[AH0] == d.plain[AH1] && d.plain[AH1] == d.plain[AH2] && d.plain[B] == B && d.plain[K] == K &&
              d.plain[AH0] != d.plain[B],
          "stresses of one vowel");
    int32_t cab[] = {1, K, AH0, 3, B, 0}, ab[] = {AH2, B}, bad[] = {AH1}, back[] = {K, AH1, B};
    Decoded out[] = {{.ids = cab, .n = 6}, {.ids = ab, .n = 2}, {.ids = bad, .n = 1}, {0}, {.ids = back, .n = 3}};
    // with stress: cab(2) 0 of 3, ab 1 of 2, bad 1 of 2 (XX is never right), abba(3) 1 of 1, Back 2 of 3
    check_rates(dictionary_score(&d, out, true), 5, 4, 11, 5, "with stress");
    check_rates(dictionary_score(&d, out, false), 5, 3, 11, 4, "without");
    dictionary_free(&d);
    dictionary_free(&d);
    g2p_close(&m);
}

// Symbols of one character: words are their own pronunciations.
static void edit_distances(void) {
    static const struct {
        const char *answer, *output;
        int edits;
    } pairs[] = {{"kitten", "sitting", 3},
                 {"flaw", "lawn", 2},
                 {"intention", "execution", 5},
                 {"saturday", "sunday", 3},
                 {"abc", "abc", 0},
                 {"abc", "xyz", 3},
                 {"a", "bbbbb", 5},
                 {"bbbbb", "a", 5},
                 {"abcdef", "", 6},
                 {"x", "abcdefghijklmnopq", 17},
                 {"ab", "ba", 2},
                 {"aaab", "baaa", 2}};
    char err[512] = "";
    Case c = lettered;
    c.symbols = LETTERS "\"phoneme_chars\":\"____abcdefghijklmnopqrstuvwxyz\"";
    G2p m;
    if (!open_model(&m, &c)) return;
    for (int i = 0; i < N_OF(pairs); i++) {
        char line[64];
        int32_t ids[64];
        int n = (int)strlen(pairs[i].output);
        snprintf(line, sizeof line, "w %s\n", pairs[i].answer);
        write_text("d.dict", line);
        for (int t = 0; t < n; t++) ids[t] = symbols_find(&m.phonemes, pairs[i].output + t, 1);
        Dictionary d;
        bool read = !dictionary_read(&d, &m, in_folder("d.dict"), err, sizeof err);
        CHECK(read, "%s", err);
        if (!read) continue;
        Decoded out = {.ids = ids, .n = n};
        int edits = pairs[i].edits;
        check_rates(dictionary_score(&d, &out, true), 1, edits > 0, (long)strlen(pairs[i].answer), edits, line);
        dictionary_free(&d);
    }
    g2p_close(&m);
}

static void refuses_dictionary(const G2p *m, const char *text, const char *part) {
    char err[512] = "";
    Dictionary d;
    write_text("d.dict", text);
    CHECK(dictionary_read(&d, m, in_folder("d.dict"), err, sizeof err) == -1, "[%.60s]: reads", text);
    char what[64];
    snprintf(what, sizeof what, "[%.60s]", text);
    expect_named(err, "d.dict", part, what);
}

static void hostile_dictionaries(void) {
    char err[512] = "";
    G2p m;
    if (!open_model(&m, &lettered)) return;
    refuses_dictionary(&m, "", "empty");
    refuses_dictionary(&m, "\n\n", "found none");
    refuses_dictionary(&m, ";;; nothing\n", "found none");
    refuses_dictionary(&m, "ab AH0 B\nword\n", "line 2: ");
    refuses_dictionary(&m, "word \t \n", "line 1: ");
    refuses_dictionary(&m, "a B\n\nb B\nword # B\n", "line 4: ");
    size_t room = 8192;
    char *line = need(room);
    for (int n = 1000; n <= 1001; n++) { // phonemes of a word
        char *at = line + sprintf(line, "ab");
        for (int i = 0; i < n; i++) at += sprintf(at, " B");
        if (n > 1000) refuses_dictionary(&m, line, "line 1: ");
        else {
            write_text("d.dict", line);
            Dictionary d;
            CHECK(!dictionary_read(&d, &m, in_folder("d.dict"), err, sizeof err), "%s", err);
            int32_t ids[1500];
            for (int i = 0; i < 1500; i++) ids[i] = B;
            Decoded out = {.ids = ids, .n = 1000};
            check_rates(dictionary_score(&d, &out, true), 1, 0, 1000, 0, "1000 phonemes");
            out.n = 1500; // more than a word can have: the first thousand count
            check_rates(dictionary_score(&d, &out, true), 1, 0, 1000, 0, "1500 symbols");
            dictionary_free(&d);
        }
    }
    free(line);
    Dictionary d;
    CHECK(dictionary_read(&d, &m, in_folder("absent.dict"), err, sizeof err) == -1 && strstr(err, "absent.dict"), "%s",
          err);
    CHECK(dictionary_read(&d, &m, folder, err, sizeof err) == -1 && one_line(err), "a folder: %s", err);
    g2p_close(&m);
}

int main(void) {
    folder_make();
    RUN(words_of_text);
    RUN(numbers_in_words);
    RUN(symbol_tables);
    RUN(utf8_lengths);
    RUN(rates_by_hand);
    RUN(edit_distances);
    RUN(hostile_dictionaries);
    folder_remove();
    return test_report();
}
