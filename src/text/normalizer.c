// normalizer: see normalizer.h.
#include "normalizer.h"

#include "charsmap.h"
#include "file.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include <stb/stb_ds.h>

enum { MAX_STEPS = 64 };

typedef struct {
    NormalizerKind kind;
    Pattern *pattern;
    char *text; // PREPEND, REPLACE
    size_t n;
    Charsmap *charsmap;
} Step;

struct Normalizer {
    Step *steps; // stb_ds array
};

// ---- building

static void step_free(Step *s) {
    pattern_close(s->pattern);
    charsmap_close(s->charsmap);
    free(s->text);
}

static int step_add(Normalizer **n, Step step, bool complete, char *err, size_t errlen) {
    if (!*n) *n = calloc(1, sizeof **n);
    bool full = *n && arrlen((*n)->steps) == MAX_STEPS;
    if (*n && complete && !full) {
        arrput((*n)->steps, step);
        return 0;
    }
    step_free(&step);
    return full ? fail(err, errlen, "normalizer: expected at most %d steps", MAX_STEPS)
                : fail(err, errlen, "normalizer: out of memory");
}

int normalizer_add(Normalizer **n, NormalizerKind kind, char *err, size_t errlen) {
    return step_add(n, (Step){.kind = kind}, true, err, errlen);
}

int normalizer_add_bert(Normalizer **n, bool clean, bool han, bool strip_accents, bool lowercase, char *err,
                        size_t errlen) {
    const struct {
        bool wanted;
        NormalizerKind kind;
    } steps[] = {{clean, NORMALIZE_BERT_CLEAN},
                 {han, NORMALIZE_BERT_HAN},
                 {strip_accents, NORMALIZE_NFD},
                 {strip_accents, NORMALIZE_BERT_ACCENTS},
                 {lowercase, NORMALIZE_LOWERCASE}};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if (steps[i].wanted && normalizer_add(n, steps[i].kind, err, errlen)) return -1;
    }
    return 0;
}

static char *copy_bytes(const char *text, size_t n) {
    char *copy = malloc(n + 1);
    if (copy && n) memcpy(copy, text, n);
    return copy;
}

int normalizer_add_prepend(Normalizer **n, const char *text, size_t len, char *err, size_t errlen) {
    Step s = {.kind = NORMALIZE_PREPEND, .text = copy_bytes(text, len), .n = len};
    return step_add(n, s, s.text, err, errlen);
}

int normalizer_add_replace(Normalizer **n, Pattern *pattern, const char *text, size_t len, char *err, size_t errlen) {
    if (!pattern) return -1;
    Step s = {.kind = NORMALIZE_REPLACE, .pattern = pattern, .text = copy_bytes(text, len), .n = len};
    return step_add(n, s, s.text, err, errlen);
}

int normalizer_add_charsmap(Normalizer **n, const void *table, size_t bytes, char *err, size_t errlen) {
    Charsmap *map = charsmap_open(table, bytes, err, errlen);
    if (!map) return -1;
    return step_add(n, (Step){.kind = NORMALIZE_CHARSMAP, .charsmap = map}, true, err, errlen);
}

void normalizer_free(Normalizer *n) {
    if (!n) return;
    for (ptrdiff_t i = 0; i < arrlen(n->steps); i++) step_free(&n->steps[i]);
    arrfree(n->steps);
    free(n);
}

// ---- a text that grows

typedef struct {
    char *at;
    size_t n, capacity;
    bool failed;
} Text;

static void text_put(Text *t, const char *bytes, size_t n) {
    if (t->failed || !n) return;
    if (n > t->capacity - t->n) {
        size_t capacity = 2 * (t->n + n) + 64;
        char *at = realloc(t->at, capacity);
        if (!at) {
            t->failed = true;
            return;
        }
        t->at = at;
        t->capacity = capacity;
    }
    memcpy(t->at + t->n, bytes, n);
    t->n += n;
}

static void text_put_character(Text *t, uint32_t c) {
    char bytes[4];
    text_put(t, bytes, (size_t)utf8_encode(c, bytes));
}

// ---- characters

static utf8proc_category_t category(uint32_t c) {
    return utf8proc_category((utf8proc_int32_t)c);
}

bool character_is_space(uint32_t c) {
    utf8proc_category_t k = category(c);
    return (c >= '\t' && c <= '\r') || c == 0x85 || k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL ||
           k == UTF8PROC_CATEGORY_ZP;
}

bool character_is_word(uint32_t c) {
    utf8proc_category_t k = category(c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC;
}

// Controls, formats and private use; what is not assigned stays, as in the library whose normalizers these are.
static bool is_other(uint32_t c) {
    return category(c) >= UTF8PROC_CATEGORY_CC;
}

// CJK ideographs as BERT counts them.
static bool is_ideograph(uint32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static void put_lowercase(Text *out, uint32_t c) {
    text_put_character(out, c == 0x130 ? 'i' : (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
    if (c == 0x130) text_put_character(out, 0x307); // the one character whose lower case is two (SpecialCasing)
}

static void put_bert_clean(Text *out, uint32_t c) {
    bool blank = c == '\t' || c == '\n' || c == '\r';
    if (blank) text_put(out, " ", 1);
    else if (c && c != 0xFFFD && !is_other(c)) text_put_character(out, character_is_space(c) ? ' ' : c);
}

static void put_nmt(Text *out, uint32_t c) {
    bool dropped = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
    bool space = c == '\t' || c == '\n' || c == '\f' || c == '\r' || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
                 c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
    if (!dropped) text_put_character(out, space ? ' ' : c);
}

static void put_character(NormalizerKind kind, Text *out, uint32_t c) {
    switch (kind) {
    case NORMALIZE_LOWERCASE: put_lowercase(out, c); return;
    case NORMALIZE_STRIP_ACCENTS:
        if (category(c) < UTF8PROC_CATEGORY_MN || category(c) > UTF8PROC_CATEGORY_ME) text_put_character(out, c);
        return;
    case NORMALIZE_BERT_ACCENTS:
        if (category(c) != UTF8PROC_CATEGORY_MN) text_put_character(out, c);
        return;
    case NORMALIZE_BERT_CLEAN: put_bert_clean(out, c); return;
    case NORMALIZE_BERT_HAN:
        if (is_ideograph(c)) text_put(out, " ", 1);
        text_put_character(out, c);
        if (is_ideograph(c)) text_put(out, " ", 1);
        return;
    default: put_nmt(out, c); return;
    }
}

// ---- steps over a run of valid UTF-8

static void run_characters(NormalizerKind kind, const char *text, size_t n, Text *out) {
    uint32_t c;
    for (size_t i = 0; i < n;) {
        i += (size_t)utf8_decode(text + i, n - i, &c);
        put_character(kind, out, c);
    }
}

static void run_form(NormalizerKind kind, const char *text, size_t n, Text *out) {
    static const utf8proc_option_t options[] = {
        UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    size_t ascii = 0;
    while (ascii < n && (unsigned char)text[ascii] < 0x80) ascii++;
    if (ascii < n && ascii) ascii--; // what follows may combine with it
    text_put(out, text, ascii);
    if (ascii == n) return;
    utf8proc_uint8_t *form = NULL;
    ssize_t len = utf8proc_map((const utf8proc_uint8_t *)text + ascii, (ssize_t)(n - ascii), &form,
                               options[kind - NORMALIZE_NFC]);
    if (len < 0) out->failed = true;
    else text_put(out, (const char *)form, (size_t)len);
    free(form);
}

static void run_replace(const Step *s, Matcher *m, const char *text, size_t n, Text *out) {
    size_t from = 0, done = 0, begin, end;
    int found;
    while (from <= n && (found = matcher_find(m, s->pattern, text, n, from, &begin, &end)) != 0) {
        if (found < 0) out->failed = true;
        if (out->failed) return;
        text_put(out, text + done, begin - done);
        text_put(out, s->text, s->n);
        done = end;
        uint32_t c;
        from = begin == end && end < n ? end + (size_t)utf8_decode(text + end, n - end, &c) : end + (begin == end);
    }
    text_put(out, text + done, n - done);
}

// ---- steps over the whole text

static void run_strip(NormalizerKind kind, const char *text, size_t n, Text *out) {
    size_t begin = 0, end = 0; // end: of the last character that is not white space
    bool seen = false;
    uint32_t c;
    for (size_t i = 0; i < n;) {
        size_t len = (size_t)utf8_decode(text + i, n - i, &c);
        bool space = character_is_space(c);
        if (!space && !seen) begin = i;
        seen |= !space;
        i += len;
        if (!space) end = i;
    }
    if (kind == NORMALIZE_STRIP_LEFT) end = n, begin = seen ? begin : n;
    else begin = 0;
    text_put(out, text + begin, end - begin);
}

static void run_squeeze(const char *text, size_t n, Text *out) {
    bool space = false;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ') space = true;
        else {
            if (space && out->n) text_put(out, " ", 1);
            text_put(out, text + i, 1);
            space = false;
        }
    }
}

static void step_run(const Step *s, Matcher *m, const char *text, size_t n, Text *out) {
    switch (s->kind) {
    case NORMALIZE_STRIP_LEFT:
    case NORMALIZE_STRIP_RIGHT: run_strip(s->kind, text, n, out); return;
    case NORMALIZE_SQUEEZE: run_squeeze(text, n, out); return;
    case NORMALIZE_PREPEND:
        if (n) text_put(out, s->text, s->n);
        text_put(out, text, n);
        return;
    default: break;
    }
    for (size_t i = 0, end; i < n; i = end) {
        bool valid = utf8_run(text + i, n - i, &end);
        end += i;
        if (!valid) text_put(out, text + i, end - i);
        else if (s->kind <= NORMALIZE_NFKD) run_form(s->kind, text + i, end - i, out);
        else if (s->kind == NORMALIZE_REPLACE) run_replace(s, m, text + i, end - i, out);
        else if (s->kind == NORMALIZE_CHARSMAP) {
            for (size_t at = i, len, n_new; at < end; at += len) {
                const char *now = charsmap_find(s->charsmap, text + at, end - at, &len, &n_new);
                text_put(out, now, n_new);
            }
        } else run_characters(s->kind, text + i, end - i, out);
    }
}

char *normalizer_run(const Normalizer *z, Matcher *m, const char *text, size_t n, size_t *n_out) {
    Text now = {0};
    text_put(&now, text, n);
    for (ptrdiff_t i = 0; i < arrlen(z->steps) && !now.failed; i++) {
        Text next = {0};
        step_run(&z->steps[i], m, now.at ? now.at : "", now.n, &next);
        free(now.at);
        now = next;
    }
    if (!now.failed && !now.at) now.at = malloc(1);
    *n_out = now.n;
    if (now.failed || !now.at) {
        free(now.at);
        return NULL;
    }
    return now.at;
}
