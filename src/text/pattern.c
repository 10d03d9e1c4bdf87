// pattern: see pattern.h.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "pattern.h"

#include "file.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Backtracking is counted by PCRE2's match limit. A search begins with a small one; what needs more takes it from a
// budget for the whole text, so the work is at most linear in the text plus that budget.
enum { FIRST_LIMIT = 4096, LIMIT_STEP = 16, BUDGET = 100 * 1000 * 1000, HEAP_KIB = 64 * 1024 };

struct Pattern {
    pcre2_code *code;
};

struct Matcher {
    pcre2_match_context *context;
    pcre2_match_data *data; // room for the whole match only
    uint64_t budget;
    bool gave_up;
};

// ---- the dialect

typedef struct {
    const char *at, *end;
    char *out;
    size_t n, capacity;
    bool failed;
} Translation;

static void put(Translation *t, const char *text, size_t n) {
    if (t->n + n > t->capacity) {
        size_t capacity = 2 * (t->n + n) + 64;
        char *out = realloc(t->out, capacity);
        t->failed |= !out;
        if (!out) return;
        t->out = out;
        t->capacity = capacity;
    }
    memcpy(t->out + t->n, text, n);
    t->n += n;
}

static void put_text(Translation *t, const char *text) {
    put(t, text, strlen(text));
}

// Is \p{sc:NAME} a script? Then \p{NAME} means it, where PCRE2 would take the script extensions.
static bool is_script(const char *name, size_t n) {
    char probe[64];
    if (n < 3 || n > 40) return false;
    int len = snprintf(probe, sizeof probe, "\\p{sc:%.*s}", (int)n, name), code;
    size_t offset;
    pcre2_code *script = pcre2_compile((PCRE2_SPTR)probe, (size_t)len, PCRE2_UTF, &code, &offset, NULL);
    pcre2_code_free(script);
    return script != NULL;
}

// \s is White_Space: PCRE2's own adds U+180E. \w is what UTS #18 calls a word character.
static void put_escape(Translation *t, bool in_class) {
    static const char word[] = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
    char c = t->at[1];
    const char *close = c == 'p' || c == 'P' ? memchr(t->at, '}', (size_t)(t->end - t->at)) : NULL;
    if (c == 's') put_text(t, "\\p{White_Space}");
    else if (c == 'S') put_text(t, "\\P{White_Space}");
    else if (c == 'w') put_text(t, in_class ? "" : "["), put_text(t, word), put_text(t, in_class ? "" : "]");
    else if (c == 'W' && !in_class) put_text(t, "[^"), put_text(t, word), put_text(t, "]");
    else if (close && t->at[2] == '{' && is_script(t->at + 3, (size_t)(close - t->at - 3))) {
        put(t, t->at, 3);
        put_text(t, "sc:");
        put(t, t->at + 3, (size_t)(close - t->at - 2));
        t->at = close - 1;
    } else put(t, t->at, 2);
    t->at += 2;
}

// NULL, or what PCRE2 reads as something else.
static const char *translate(Translation *t) {
    bool in_class = false;
    const char *class_begin = NULL;
    while (t->at < t->end) {
        size_t left = (size_t)(t->end - t->at);
        char c = *t->at;
        if (c == '\\' && left > 1) {
            put_escape(t, in_class);
            continue;
        }
        if (!in_class && c == '[') {
            in_class = true;
            class_begin = t->at + (left > 1 && t->at[1] == '^' ? 2 : 1);
        } else if (in_class && c == '[') return "expected no class inside a class";
        else if (in_class && c == '&' && left > 1 && t->at[1] == '&') return "expected no intersection of classes";
        else if (in_class && c == ']' && t->at > class_begin) in_class = false;
        put(t, t->at++, 1);
    }
    return NULL;
}

Pattern *pattern_open(const char *regex, size_t n, char *err, size_t errlen) {
    Translation t = {.at = regex, .end = regex + n};
    const char *refused = translate(&t);
    Pattern *p = calloc(1, sizeof *p);
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (refused || t.failed || !p || !context) {
        fail(err, errlen, "pattern: %s", refused ? refused : "out of memory");
    } else {
        int code;
        size_t offset;
        char message[128];
        pcre2_set_newline(context, PCRE2_NEWLINE_LF);
        pcre2_set_max_pattern_length(context, 1 << 20);
        p->code =
            pcre2_compile((PCRE2_SPTR)t.out, t.n, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                          &code, &offset, context);
        if (p->code) pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); // where it cannot, the interpreter runs
        else {
            pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
            fail(err, errlen, "pattern: at %zu: %s", offset, message);
        }
    }
    pcre2_compile_context_free(context);
    free(t.out);
    if (p && p->code) return p;
    free(p);
    return NULL;
}

Pattern *pattern_text(const char *text, size_t n, char *err, size_t errlen) {
    char *regex = malloc(2 * n + 1);
    if (!regex) {
        fail(err, errlen, "pattern: out of memory");
        return NULL;
    }
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        if (strchr("\\^$.|?*+()[]{}", text[i]) && text[i]) regex[len++] = '\\';
        regex[len++] = text[i];
    }
    Pattern *p = pattern_open(regex, len, err, errlen);
    free(regex);
    return p;
}

void pattern_close(Pattern *p) {
    if (!p) return;
    pcre2_code_free(p->code);
    free(p);
}

// ---- searches

Matcher *matcher_open(void) {
    Matcher *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    m->budget = BUDGET;
    m->context = pcre2_match_context_create(NULL);
    m->data = pcre2_match_data_create(1, NULL);
    if (m->context && m->data) {
        pcre2_set_heap_limit(m->context, HEAP_KIB);
        return m;
    }
    matcher_close(m);
    return NULL;
}

void matcher_close(Matcher *m) {
    if (!m) return;
    pcre2_match_context_free(m->context);
    pcre2_match_data_free(m->data);
    free(m);
}

int matcher_find(Matcher *m, const Pattern *p, const char *text, size_t n, size_t from, size_t *begin, size_t *end) {
    uint32_t options = PCRE2_NO_UTF_CHECK;
    for (uint32_t limit = FIRST_LIMIT;;) {
        pcre2_set_match_limit(m->context, limit);
        int rc = pcre2_match(p->code, (PCRE2_SPTR)text, n, from, options, m->data, m->context);
        if (rc >= 0) {
            const size_t *found = pcre2_get_ovector_pointer(m->data);
            *begin = found[0];
            *end = found[1];
            return 1;
        }
        if (rc == PCRE2_ERROR_NOMATCH) return 0;
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !(options & PCRE2_NO_JIT)) options |= PCRE2_NO_JIT;
        else if (rc != PCRE2_ERROR_MATCHLIMIT || limit > m->budget / LIMIT_STEP) break;
        else m->budget -= limit *= LIMIT_STEP;
    }
    m->gave_up = true;
    return -1;
}

bool matcher_gave_up(const Matcher *m) {
    return m->gave_up;
}
