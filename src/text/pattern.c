// pattern: from Oniguruma's syntax to PCRE2's, and searches with a budget. See pattern.h.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "pattern.h"

#include "file.h"
#include "utf8.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// PCRE2's match limit counts backtracking. Each search starts with a small limit; raising it draws on a budget for the
// whole text, so the total work is linear in the text plus that budget.
enum { FIRST_LIMIT = 4096, LIMIT_STEP = 16, BUDGET = 100 * 1000 * 1000, HEAP_KIB = 64 * 1024 };

struct Pattern {
    pcre2_code *code;
};

struct Matcher {
    pcre2_match_context *context;
    pcre2_match_data *data; // the whole match, no groups
    uint64_t budget;
    bool limited;
};

// ---- the dialect

typedef struct {
    const char *at, *end;
    FILE *out;
} Translation;

// Whether NAME is a script. Then \p{NAME} is the script property, \p{sc:NAME}; PCRE2 alone would use script extensions.
static bool is_script(const char *name, size_t n) {
    char probe[64];
    if (n < 3 || n > 40) return false;
    int len = snprintf(probe, sizeof probe, "\\p{sc:%.*s}", (int)n, name), code;
    size_t offset;
    pcre2_code *script = pcre2_compile((PCRE2_SPTR)probe, (size_t)len, PCRE2_UTF, &code, &offset, NULL);
    pcre2_code_free(script);
    return script != NULL;
}

// \s is White_Space, to which PCRE2's own adds U+180E. \w is a word character as defined by UTS #18.
static void put_escape(Translation *t, bool in_class) {
    static const char word[] = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
    char c = t->at[1];
    const char *close = c == 'p' || c == 'P' ? memchr(t->at, '}', (size_t)(t->end - t->at)) : NULL;
    if (c == 's') fputs("\\p{White_Space}", t->out);
    else if (c == 'S') fputs("\\P{White_Space}", t->out);
    else if (c == 'w') fprintf(t->out, in_class ? "%s" : "[%s]", word);
    else if (c == 'W' && !in_class) fprintf(t->out, "[^%s]", word);
    else if (close && t->at[2] == '{' && is_script(t->at + 3, (size_t)(close - t->at - 3))) {
        fprintf(t->out, "\\%c{sc:", c);
        fwrite(t->at + 3, 1, (size_t)(close - t->at - 2), t->out);
        t->at = close - 1;
    } else fwrite(t->at, 1, 2, t->out);
    t->at += 2;
}

// NULL, or the name of a construct that PCRE2 interprets differently.
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
        } else if (in_class && c == '[') return "nested character classes are not supported";
        else if (in_class && c == '&' && left > 1 && t->at[1] == '&')
            return "intersections of character classes are not supported";
        else if (in_class && c == ']' && t->at > class_begin) in_class = false;
        fputc(c, t->out);
        t->at++;
    }
    return NULL;
}

static Pattern *compile(const char *text, size_t n, uint32_t options, char *err, size_t errlen) {
    Pattern *p = calloc(1, sizeof *p);
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!p || !context) fail(err, errlen, "pattern: out of memory");
    else {
        int code;
        size_t offset;
        char message[128];
        pcre2_set_newline(context, PCRE2_NEWLINE_LF);
        pcre2_set_max_pattern_length(context, 1 << 20);
        p->code = pcre2_compile((PCRE2_SPTR)text, n, PCRE2_UTF | options, &code, &offset, context);
        if (p->code) pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); // on failure the interpreter is used
        else {
            pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
            fail(err, errlen, "pattern: at %zu: %s", offset, message);
        }
    }
    pcre2_compile_context_free(context);
    if (p && p->code) return p;
    free(p);
    return NULL;
}

Pattern *pattern_open(const char *regex, size_t n, char *err, size_t errlen) {
    char *text = NULL;
    size_t len = 0;
    Translation t = {regex, regex + n, open_memstream(&text, &len)};
    const char *unsupported = t.out ? translate(&t) : "out of memory";
    if (t.out && fclose(t.out)) unsupported = "out of memory";
    Pattern *p = NULL;
    if (unsupported) fail(err, errlen, "pattern: %s", unsupported);
    else p = compile(text, len, PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, err, errlen);
    free(text);
    return p;
}

Pattern *pattern_literal(const char *text, size_t n, char *err, size_t errlen) {
    return compile(text, n, PCRE2_LITERAL, err, errlen);
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
    uint32_t limit = FIRST_LIMIT;
    while (true) {
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
        else if (rc == PCRE2_ERROR_MATCHLIMIT && limit <= m->budget / LIMIT_STEP) {
            limit *= LIMIT_STEP;
            m->budget -= limit;
        } else break;
    }
    m->limited = true;
    return -1;
}

size_t match_next(const char *text, size_t n, size_t begin, size_t end) {
    uint32_t c;
    if (begin < end) return end;
    return end < n ? end + (size_t)utf8_decode(text + end, n - end, &c) : end + 1;
}

bool matcher_limited(const Matcher *m) {
    return m->limited;
}
