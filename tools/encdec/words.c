// words: see words.h.
#include "words.h"

#include "numbers.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>
#include <utf8proc.h>

// The letter as it is, a typeset apostrophe as a plain one, or in lower case (ASCII). -1: the model has none of them.
static int letter_id(const Symbols *y, const char *text, size_t n) {
    int id = symbols_find(y, text, n);
    if (id < 0 && n == 3 && !memcmp(text, "\u2019", 3)) return symbols_find(y, "'", 1);
    if (id >= 0 || n > 1) return id;
    char lower = (char)tolower((unsigned char)*text);
    return symbols_find(y, &lower, 1);
}

// What an unknown letter is without its accents, in lower case, taken apart ("é": e, "ß": ss, a ligature: its letters,
// an accent that stands alone: nothing), as ids[0..len); -1 unless the model has them all.
static int plain_letters(const Symbols *y, const char *text, size_t len, int32_t *ids) {
    static const char *const joined[][2] = {{"\u00e6", "ae"}, {"\u0153", "oe"}, {"\u00f8", "o"},
                                            {"\u0142", "l"},  {"\u0111", "d"},  {"\u0131", "i"}};
    utf8proc_uint8_t *plain = NULL;
    utf8proc_option_t how = UTF8PROC_STRIPMARK | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD;
    utf8proc_ssize_t size = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &plain, how);
    for (size_t i = 0; size == 2 && i < sizeof joined / sizeof *joined; i++) { // what Unicode does not take apart
        if (memcmp(plain, joined[i][0], 2) != 0) continue;
        size = (utf8proc_ssize_t)strlen(joined[i][1]);
        memcpy(plain, joined[i][1], (size_t)size);
        break;
    }
    int n = size < 0 ? -1 : 0;
    for (utf8proc_ssize_t i = 0; n >= 0 && i < size;) {
        bool valid;
        size_t one = utf8_length((char *)plain + i, &valid);
        int id = letter_id(y, (char *)plain + i, one);
        if (id < 0 || n == (int)len) n = -1;
        else ids[n++] = id;
        i += (utf8proc_ssize_t)one;
    }
    free(plain);
    return n;
}

static void add_letter(Word *w, const G2p *m, const char *text, size_t len) {
    int32_t *ids = w->ids + w->n_ids;
    *ids = letter_id(&m->graphemes, text, len);
    int n = *ids >= 0 ? 1 : plain_letters(&m->graphemes, text, len, ids);
    if (n >= 0) {
        w->n_known += n;
        w->n_ids += n;
        return;
    }
    if (len == 1 && isdigit((unsigned char)*text)) w->has_digit = true;
    if (!w->n_unknown++) memcpy(w->unknown, text, len);
    *ids = m->model.unk_id;
    w->n_ids++;
}

int words_add(Word **list, const G2p *m, const char *text, size_t n, char *err, size_t errlen) {
    Word w = {.text = strndup(text, n), .ids = malloc(sizeof *w.ids * (n + 2))};
    if (!w.text || !w.ids) {
        free(w.text);
        free(w.ids);
        return fail(err, errlen, "out of memory for a word of %zu bytes", n);
    }
    w.ids[w.n_ids++] = m->model.bos_id;
    for (size_t i = 0; w.text[i];) { // a NUL ends the word
        bool valid;
        size_t len = utf8_length(w.text + i, &valid);
        add_letter(&w, m, w.text + i, len);
        i += len;
    }
    w.ids[w.n_ids++] = m->model.eos_id;
    arrput(*list, w);
    return 0;
}

void words_free(Word **list) {
    for (ptrdiff_t i = 0; i < arrlen(*list); i++) {
        free((*list)[i].text);
        free((*list)[i].ids);
    }
    arrfree(*list);
}

// Quotes, dashes, dots and brackets: ASCII, and General Punctuation, U+2000 to U+207F.
static bool is_punctuation(const char *p, size_t n) {
    const unsigned char *u = (const unsigned char *)p;
    return (n == 1 && ispunct(u[0])) || (n == 3 && u[0] == 0xe2 && (u[1] == 0x80 || u[1] == 0x81));
}

static size_t first_length(const char *p) {
    bool valid;
    return utf8_length(p, &valid);
}

static size_t last_length(const char *begin, const char *end) {
    const char *p = end - 1;
    while (p > begin && ((unsigned char)*p & 0xc0) == 0x80) p--;
    return (size_t)(end - p);
}

// Removes the punctuation around a word, except for the apostrophe of 'tis and dogs' (on one side only) and the last
// dot of u.s.
static void strip(const char **begin, const char **end) {
    const char *a = *begin, *b = *end;
    for (bool quoted = true; quoted;) {
        while (a < b && *a != '\'' && is_punctuation(a, first_length(a))) a += first_length(a);
        while (a < b && b[-1] != '\'' && is_punctuation(b - last_length(a, b), last_length(a, b))) {
            if (b[-1] == '.' && memchr(a, '.', (size_t)(b - a - 1)) && b - a > 2 && isalpha((unsigned char)b[-2]))
                break;
            b -= last_length(a, b);
        }
        quoted = b - a > 1 && *a == '\'' && b[-1] == '\'';
        a += quoted;
        b -= quoted;
    }
    if (b - a == 1 && *a == '\'') b = a;
    *begin = a;
    *end = b;
}

// A digit in ASCII that the model has no letter for.
static bool has_unknown_digit(const G2p *m, const char *begin, const char *end) {
    for (const char *p = begin; p < end; p++) {
        if (isdigit((unsigned char)*p) && symbols_find(&m->graphemes, p, 1) < 0) return true;
    }
    return false;
}

static int split_copy(Word **list, const G2p *m, char *text, bool spell, char *err, size_t errlen);

// A word with its numbers as words.
static int add_spelled(Word **list, const G2p *m, const char *begin, const char *end, bool negative, char *err,
                       size_t errlen) {
    char *spelled = numbers_spell(begin, (size_t)(end - begin), negative);
    if (!spelled) return fail(err, errlen, "out of memory for a word of %zu bytes", (size_t)(end - begin));
    int rc = split_copy(list, m, spelled, false, err, errlen);
    free(spelled);
    return rc;
}

// The words of a terminated text, which is cut up. spell: numbers that the model cannot read become words.
static int split_copy(Word **list, const G2p *m, char *text, bool spell, char *err, size_t errlen) {
    static const char blanks[] = " \t\r\n\f\v";
    int rc = 0;
    char *saved;
    for (char *t = strtok_r(text, blanks, &saved); t && !rc; t = strtok_r(NULL, blanks, &saved)) {
        const char *begin = t, *end = t + strlen(t);
        strip(&begin, &end);
        if (begin == end) continue;
        if (spell && has_unknown_digit(m, begin, end)) {
            bool negative = begin - t == 1 && *t == '-' && isdigit((unsigned char)*begin);
            rc = add_spelled(list, m, begin, end, negative, err, errlen);
        } else rc = words_add(list, m, begin, (size_t)(end - begin), err, errlen);
    }
    return rc;
}

int words_split(Word **list, const G2p *m, const char *text, size_t n, char *err, size_t errlen) {
    char *copy = malloc(n + 1);
    if (!copy) return fail(err, errlen, "out of memory for %zu bytes of text", n);
    for (size_t i = 0; i < n; i++) copy[i] = text[i] ? text[i] : ' ';
    copy[n] = 0;
    int rc = split_copy(list, m, copy, m->english, err, errlen);
    free(copy);
    return rc;
}
