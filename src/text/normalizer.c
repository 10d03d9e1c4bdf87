// normalizer: the steps, over characters, over runs of valid UTF-8, and over the whole text. See normalizer.h.
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
    char *content; // PREPEND, REPLACE
    size_t n;
    Charsmap *charsmap;
} NormalizerStep;

struct Normalizer {
    NormalizerStep *steps; // stb_ds array
};

// ---- building

static void step_free(NormalizerStep *s) {
    pattern_close(s->pattern);
    charsmap_close(s->charsmap);
    free(s->content);
}

static int step_add(Normalizer **n, NormalizerStep step, bool complete, char *err, size_t errlen) {
    if (!*n) *n = calloc(1, sizeof **n);
    bool full = *n && arrlen((*n)->steps) == MAX_STEPS;
    if (*n && complete && !full) {
        arrput((*n)->steps, step);
        return 0;
    }
    step_free(&step);
    if (full) return fail(err, errlen, "normalizer: expected at most %d steps", MAX_STEPS);
    return fail(err, errlen, "normalizer: out of memory");
}

int normalizer_add(Normalizer **n, NormalizerKind kind, char *err, size_t errlen) {
    return step_add(n, (NormalizerStep){.kind = kind}, true, err, errlen);
}

int normalizer_add_bert(Normalizer **n, bool clean_text, bool chinese_chars, bool strip_accents, bool lowercase,
                        char *err, size_t errlen) {
    int rc = 0;
    if (clean_text) rc = normalizer_add(n, NORMALIZE_BERT_CLEAN, err, errlen);
    if (!rc && chinese_chars) rc = normalizer_add(n, NORMALIZE_BERT_HAN, err, errlen);
    if (!rc && strip_accents) rc = normalizer_add(n, NORMALIZE_NFD, err, errlen);
    if (!rc && strip_accents) rc = normalizer_add(n, NORMALIZE_BERT_ACCENTS, err, errlen);
    if (!rc && lowercase) rc = normalizer_add(n, NORMALIZE_LOWERCASE, err, errlen);
    return rc;
}

static char *copy_bytes(const char *text, size_t n) {
    char *copy = malloc(n + 1);
    if (copy && n) memcpy(copy, text, n);
    return copy;
}

int normalizer_add_prepend(Normalizer **n, const char *text, size_t len, char *err, size_t errlen) {
    NormalizerStep s = {.kind = NORMALIZE_PREPEND, .content = copy_bytes(text, len), .n = len};
    return step_add(n, s, s.content, err, errlen);
}

int normalizer_add_replace(Normalizer **n, Pattern *pattern, const char *text, size_t len, char *err, size_t errlen) {
    if (!pattern) return -1;
    NormalizerStep s = {.kind = NORMALIZE_REPLACE, .pattern = pattern, .content = copy_bytes(text, len), .n = len};
    return step_add(n, s, s.content, err, errlen);
}

int normalizer_add_charsmap(Normalizer **n, const void *table, size_t bytes, char *err, size_t errlen) {
    Charsmap *map = charsmap_open(table, bytes, err, errlen);
    if (!map) return -1;
    return step_add(n, (NormalizerStep){.kind = NORMALIZE_CHARSMAP, .charsmap = map}, true, err, errlen);
}

void normalizer_free(Normalizer *n) {
    if (!n) return;
    for (ptrdiff_t i = 0; i < arrlen(n->steps); i++) step_free(&n->steps[i]);
    arrfree(n->steps);
    free(n);
}

// ---- output

typedef struct {
    char *at;
    size_t n, capacity;
    bool failed;
} TextBuffer;

static void buffer_put(TextBuffer *b, const char *bytes, size_t n) {
    if (b->failed || !n) return;
    if (n > b->capacity - b->n) {
        size_t capacity = 2 * (b->n + n) + 64;
        char *at = realloc(b->at, capacity);
        if (!at) {
            b->failed = true;
            return;
        }
        b->at = at;
        b->capacity = capacity;
    }
    memcpy(b->at + b->n, bytes, n);
    b->n += n;
}

static void buffer_put_character(TextBuffer *b, uint32_t c) {
    char bytes[4];
    buffer_put(b, bytes, (size_t)utf8_encode(c, bytes));
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

// Control, format and private-use characters. Unassigned ones are not included, as in Hugging Face's tokenizers.
static bool is_other(uint32_t c) {
    return category(c) >= UTF8PROC_CATEGORY_CC;
}

// CJK ideographs by BERT's definition.
static bool is_ideograph(uint32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static void put_lowercase(TextBuffer *out, uint32_t c) {
    buffer_put_character(out, c == 0x130 ? 'i' : (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
    if (c == 0x130) buffer_put_character(out, 0x307); // the only lower case of two characters (SpecialCasing)
}

static void put_bert_clean(TextBuffer *out, uint32_t c) {
    bool blank = c == '\t' || c == '\n' || c == '\r';
    if (blank) buffer_put(out, " ", 1);
    else if (c && c != 0xFFFD && !is_other(c)) buffer_put_character(out, character_is_space(c) ? ' ' : c);
}

static void put_nmt(TextBuffer *out, uint32_t c) {
    bool dropped = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
    bool space = c == '\t' || c == '\n' || c == '\f' || c == '\r' || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
                 c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
    if (!dropped) buffer_put_character(out, space ? ' ' : c);
}

static void put_character(NormalizerKind kind, TextBuffer *out, uint32_t c) {
    switch (kind) {
    case NORMALIZE_LOWERCASE: put_lowercase(out, c); return;
    case NORMALIZE_STRIP_ACCENTS:
        if (category(c) < UTF8PROC_CATEGORY_MN || category(c) > UTF8PROC_CATEGORY_ME) buffer_put_character(out, c);
        return;
    case NORMALIZE_BERT_ACCENTS:
        if (category(c) != UTF8PROC_CATEGORY_MN) buffer_put_character(out, c);
        return;
    case NORMALIZE_BERT_CLEAN: put_bert_clean(out, c); return;
    case NORMALIZE_BERT_HAN:
        if (is_ideograph(c)) buffer_put(out, " ", 1);
        buffer_put_character(out, c);
        if (is_ideograph(c)) buffer_put(out, " ", 1);
        return;
    default: put_nmt(out, c); return;
    }
}

// ---- steps over a run of valid UTF-8

static void run_characters(NormalizerKind kind, const char *text, size_t n, TextBuffer *out) {
    uint32_t c;
    for (size_t i = 0; i < n;) {
        i += (size_t)utf8_decode(text + i, n - i, &c);
        put_character(kind, out, c);
    }
}

static void run_form(NormalizerKind kind, const char *text, size_t n, TextBuffer *out) {
    static const utf8proc_option_t options[] = {
        UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    size_t ascii = 0;
    while (ascii < n && (unsigned char)text[ascii] < 0x80) ascii++;
    if (ascii < n && ascii) ascii--; // the next character may combine with it
    buffer_put(out, text, ascii);
    if (ascii == n) return;
    utf8proc_uint8_t *form = NULL;
    ssize_t len = utf8proc_map((const utf8proc_uint8_t *)text + ascii, (ssize_t)(n - ascii), &form,
                               options[kind - NORMALIZE_NFC]);
    if (len < 0) out->failed = true;
    else buffer_put(out, (const char *)form, (size_t)len);
    free(form);
}

static void run_replace(const NormalizerStep *s, Matcher *m, const char *text, size_t n, TextBuffer *out) {
    size_t from = 0, done = 0, begin, end;
    while (from <= n) {
        int found = matcher_find(m, s->pattern, text, n, from, &begin, &end);
        if (found < 0) out->failed = true;
        if (out->failed) return;
        if (!found) break;
        buffer_put(out, text + done, begin - done);
        buffer_put(out, s->content, s->n);
        done = end;
        from = match_next(text, n, begin, end);
    }
    buffer_put(out, text + done, n - done);
}

static void run_charsmap(const Charsmap *c, const char *text, size_t n, TextBuffer *out) {
    for (size_t i = 0, len, n_new; i < n; i += len) {
        const char *replacement = charsmap_find(c, text + i, n - i, &len, &n_new);
        buffer_put(out, replacement, n_new);
    }
}

// ---- steps over the whole text

static void run_strip(NormalizerKind kind, const char *text, size_t n, TextBuffer *out) {
    size_t begin = n, end = 0; // of the first and last character that is not white space
    uint32_t c;
    for (size_t i = 0, next; i < n; i = next) {
        next = i + (size_t)utf8_decode(text + i, n - i, &c);
        if (character_is_space(c)) continue;
        if (begin == n) begin = i;
        end = next;
    }
    if (kind == NORMALIZE_STRIP_LEFT) buffer_put(out, text + begin, n - begin);
    else buffer_put(out, text, end);
}

static void run_squeeze(const char *text, size_t n, TextBuffer *out) {
    bool space = false;
    for (size_t i = 0; i < n; i++) {
        bool word = text[i] != ' ';
        if (word && space && out->n) buffer_put(out, " ", 1);
        if (word) buffer_put(out, text + i, 1);
        space = !word;
    }
}

static void step_run(const NormalizerStep *s, Matcher *m, const char *text, size_t n, TextBuffer *out) {
    switch (s->kind) {
    case NORMALIZE_STRIP_LEFT:
    case NORMALIZE_STRIP_RIGHT: run_strip(s->kind, text, n, out); return;
    case NORMALIZE_SQUEEZE: run_squeeze(text, n, out); return;
    case NORMALIZE_PREPEND:
        if (n) buffer_put(out, s->content, s->n);
        buffer_put(out, text, n);
        return;
    default: break;
    }
    for (size_t i = 0, end; i < n; i = end) {
        bool valid = utf8_run(text + i, n - i, &end);
        end += i;
        if (!valid) buffer_put(out, text + i, end - i);
        else if (s->kind <= NORMALIZE_NFKD) run_form(s->kind, text + i, end - i, out);
        else if (s->kind == NORMALIZE_REPLACE) run_replace(s, m, text + i, end - i, out);
        else if (s->kind == NORMALIZE_CHARSMAP) run_charsmap(s->charsmap, text + i, end - i, out);
        else run_characters(s->kind, text + i, end - i, out);
    }
}

char *normalizer_run(const Normalizer *z, Matcher *m, const char *text, size_t n, size_t *n_out) {
    TextBuffer now = {0};
    buffer_put(&now, text, n);
    for (ptrdiff_t i = 0; i < arrlen(z->steps) && !now.failed; i++) {
        TextBuffer next = {0};
        step_run(&z->steps[i], m, now.at ? now.at : "", now.n, &next);
        free(now.at);
        now = next;
    }
    *n_out = now.n;
    if (!now.failed) return now.at ? now.at : malloc(1);
    free(now.at);
    return NULL;
}
