// numbers: see numbers.h. The names are those of Merriam-Webster's table of numbers (short scale, without "and").
#include "numbers.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { MOST_DIGITS = 18 };

static const char *const small[] = {"zero",     "one",     "two",     "three",     "four",     "five",    "six",
                                    "seven",    "eight",   "nine",    "ten",       "eleven",   "twelve",  "thirteen",
                                    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
static const char *const tens[] = {"",      "",      "twenty",  "thirty", "forty",
                                   "fifty", "sixty", "seventy", "eighty", "ninety"};
static const char *const thousands[] = {"", "thousand", "million", "billion", "trillion", "quadrillion"};

typedef enum { CARDINAL, ORDINAL, PLURAL } Form;

// ---- the form of the last word

static void put_ordinal(FILE *f, const char *word) {
    static const char *const odd[][2] = {{"one", "first"},     {"two", "second"},   {"three", "third"},
                                         {"five", "fifth"},    {"eight", "eighth"}, {"nine", "ninth"},
                                         {"twelve", "twelfth"}};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        if (strcmp(word, odd[i][0]) != 0) continue;
        fputs(odd[i][1], f);
        return;
    }
    int n = (int)strlen(word);
    if (word[n - 1] == 'y') fprintf(f, "%.*sieth", n - 1, word);
    else fprintf(f, "%sth", word);
}

static void put_plural(FILE *f, const char *word) {
    int n = (int)strlen(word);
    if (word[n - 1] == 'y') fprintf(f, "%.*sies", n - 1, word);
    else fprintf(f, word[n - 1] == 'x' ? "%ses" : "%ss", word);
}

// ---- cardinals

// Words come one behind the other: the last of a number has its form.
typedef struct {
    FILE *f;
    const char *held; // the word that is not yet written
} Spelling;

static void put_word(Spelling *s, const char *word) {
    if (s->held) fprintf(s->f, " %s ", s->held);
    s->held = word;
}

static void put_last(Spelling *s, Form form) {
    if (!s->held) return;
    fputc(' ', s->f);
    if (form == ORDINAL) put_ordinal(s->f, s->held);
    else if (form == PLURAL) put_plural(s->f, s->held);
    else fputs(s->held, s->f);
    fputc(' ', s->f);
    s->held = NULL;
}

static void spell_below_thousand(Spelling *s, int v) {
    if (v >= 100) {
        put_word(s, small[v / 100]);
        put_word(s, "hundred");
    }
    v %= 100;
    if (v >= 20) put_word(s, tens[v / 10]);
    int rest = v >= 20 ? v % 10 : v;
    if (rest) put_word(s, small[rest]);
}

static void spell_whole(Spelling *s, uint64_t v) {
    if (!v) put_word(s, small[0]);
    uint64_t unit = 1000000000000000;
    for (int i = 5; i >= 0; i--, unit /= 1000) {
        int part = (int)(v / unit % 1000);
        spell_below_thousand(s, part);
        if (part && i) put_word(s, thousands[i]);
    }
}

static void spell_digits(Spelling *s, const char *digits, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (digits[i] != ',') put_word(s, small[digits[i] - '0']);
    }
}

// ---- numbers in text

static bool digit_at(const char *at, const char *end) {
    return at < end && *at >= '0' && *at <= '9';
}

static size_t count_digits(const char *at, const char *end) {
    size_t n = 0;
    while (digit_at(at + n, end)) n++;
    return n;
}

// Bytes of "1234" or "1,234,567".
static size_t whole_length(const char *at, const char *end) {
    size_t n = count_digits(at, end);
    if (n > 3) return n;
    while (at + n < end && at[n] == ',' && count_digits(at + n + 1, end) == 3) n += 4;
    return n;
}

static bool is_letter(const char *at, const char *end) {
    return at < end && (isalpha((unsigned char)*at) || (unsigned char)*at >= 0x80);
}

// st, nd, rd, th, s or 's behind a number. Returns its bytes.
static size_t read_form(const char *at, const char *end, Form *form) {
    static const char *const ordinals[] = {"st", "nd", "rd", "th"};
    *form = CARDINAL;
    for (size_t i = 0; i < sizeof ordinals / sizeof *ordinals; i++) {
        if (end - at < 2 || strncasecmp(at, ordinals[i], 2) != 0 || is_letter(at + 2, end)) continue;
        *form = ORDINAL;
        return 2;
    }
    size_t apostrophe = at < end && *at == '\'';
    const char *s = at + apostrophe;
    if (s == end || *s != 's' || is_letter(s + 1, end) || digit_at(s + 1, end)) return 0;
    *form = PLURAL;
    return apostrophe + 1;
}

// The number that begins at `at`; returns what is behind it.
static const char *spell_number(FILE *f, const char *at, const char *end) {
    Spelling s = {.f = f};
    size_t n = whole_length(at, end);
    uint64_t v = 0;
    size_t n_digits = 0;
    for (size_t i = 0; i < n; i++) {
        if (at[i] == ',') continue;
        v = v * 10 + (uint64_t)(at[i] - '0');
        n_digits++;
    }
    if (n_digits > MOST_DIGITS || (n_digits > 1 && *at == '0')) spell_digits(&s, at, n);
    else spell_whole(&s, v);
    at += n;
    while (at < end && *at == '.' && digit_at(at + 1, end)) {
        n = count_digits(at + 1, end);
        put_word(&s, "point");
        spell_digits(&s, at + 1, n);
        at += 1 + n;
    }
    Form form;
    at += read_form(at, end, &form);
    put_last(&s, form);
    return at;
}

char *numbers_spell(const char *text, size_t n, bool negative) {
    char *spelled = NULL;
    size_t size;
    FILE *f = open_memstream(&spelled, &size);
    if (!f) return NULL;
    if (negative) fputs("minus", f);
    for (const char *at = text, *end = text + n; at < end;) {
        bool minus = end - at > 3 && !memcmp(at, "\u2212", 3) && digit_at(at + 3, end);
        if (minus) fputs(" minus", f);
        if (minus) at += 3;
        if (digit_at(at, end)) at = spell_number(f, at, end);
        else fputc(*at++, f);
    }
    return fclose(f) ? NULL : spelled;
}
