// jinja_formats: '%s' % value, and '{}'.format(value). See jinja_builtins.h.
//
// Refuses what is neither text nor a number, and wider fields than 200.
#include "jinja_builtins.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_format(JinjaRun *r, JinjaBuffer *b, char how, const char *spec, JinjaValue v) {
    char out[400], format[40];
    if (strlen(spec) > 12) jinja_fail(r->heap, "format: '%.20s' is too long", spec);
    long width = strtol(spec + strspn(spec, "-+ 0#"), NULL, 10);
    const char *point = strchr(spec, '.');
    if (width > 200 || (point && strtol(point + 1, NULL, 10) > 100))
        jinja_fail(r->heap, "format: '%s' is too wide", spec);
    if (how == 's' && !*spec) {
        jinja_append(r->heap, b, jinja_string(r, v).text);
        return;
    }
    if (how == 's' || !jinja_is_number(v))
        jinja_fail(r->heap, "format: '%s%c' of %s is not supported", spec, how, jinja_kind_name(v));
    if (strchr("dixX", how)) {
        snprintf(format, sizeof format, "%%%sll%c", spec, how);
        long long i =
            v.kind == JINJA_FLOAT ? (fabs(v.real) < 9e18 ? (long long)v.real : 0) : jinja_index(r, v, "format");
        // NOLINTNEXTLINE: the format was put together from checked parts
        snprintf(out, sizeof out, format, i);
    } else {
        snprintf(format, sizeof format, "%%%s%c", spec, how);
        snprintf(out, sizeof out, format, jinja_number(v));
    }
    jinja_append_word(r->heap, b, out);
}

// Reads flags, width and precision at s[at...) into spec, and returns where they end.
static size_t read_spec(JinjaText s, size_t at, char spec[16]) {
    size_t n = 0;
    while (at < s.n && s.text[at] && strchr("-+ 0#123456789.", s.text[at]) && n < 15) spec[n++] = s.text[at++];
    spec[n] = 0;
    return at;
}

JinjaValue jinja_format_percent(JinjaRun *r, JinjaValue format, Args *args) {
    JinjaBuffer b = {0};
    size_t used = 0;
    for (size_t at = 0; at < format.text.n; at++) {
        if (format.text.text[at] != '%') {
            jinja_append(r->heap, &b, jinja_slice(format, at, at + 1).text);
            continue;
        }
        char spec[16];
        at = read_spec(format.text, at + 1, spec);
        char how = at < format.text.n ? format.text.text[at] : 0;
        if (how == '%') {
            jinja_append_word(r->heap, &b, "%");
            continue;
        }
        if (!how || !strchr("sdixXfeg", how)) jinja_fail(r->heap, "format: expected %%s, %%d or %%f");
        if (used >= args->n) jinja_fail(r->heap, "format: more places than values");
        put_format(r, &b, how, spec, args->values[used++]);
    }
    return jinja_take(&b);
}

JinjaValue jinja_format_values(JinjaRun *r, JinjaValue v, Args *args) {
    jinja_need_text(r, v, "format");
    return jinja_format_percent(r, v, args);
}

static JinjaValue field_value(JinjaRun *r, const char *name, size_t *next, Args *args) {
    char *end;
    size_t i = *name ? (size_t)strtoul(name, &end, 10) : (*next)++;
    bool word = *name && (*end || end == name);
    JinjaValue v = jinja_argument(args, word ? SIZE_MAX : i, word ? name : NULL);
    if (v.kind == JINJA_UNDEFINED) jinja_fail(r->heap, "format: no value for {%s}", name);
    return v;
}

// "{}", "{0}", "{name}", each with :spec of numbers.
JinjaValue jinja_format_braces(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaBuffer b = {0};
    size_t next = 0;
    for (size_t at = 0; at < v.text.n; at++) {
        char c = v.text.text[at];
        if (c != '{' && c != '}') {
            jinja_append(r->heap, &b, jinja_slice(v, at, at + 1).text);
            continue;
        }
        if (at + 1 < v.text.n && v.text.text[at + 1] == c) {
            at++;
            jinja_append(r->heap, &b, jinja_slice(v, at, at + 1).text);
            continue;
        }
        const char *close = memchr(v.text.text + at, '}', v.text.n - at);
        char name[40], spec[16] = "";
        size_t n = close ? (size_t)(close - v.text.text) - at - 1 : 0;
        if (c == '}' || !close || n >= sizeof name) jinja_fail(r->heap, "format: expected {} with a short name");
        memcpy(name, v.text.text + at + 1, n);
        name[n] = 0;
        char *colon = strchr(name, ':'), how = 's';
        if (colon) {
            size_t end = read_spec(jinja_word(colon + 1).text, 0, spec);
            how = colon[1 + end] ? colon[1 + end] : *spec ? 'd' : 's';
            if (!strchr("sdxXfeg", how)) jinja_fail(r->heap, "format: {%s} is not supported", name);
            *colon = 0;
        }
        put_format(r, &b, how, spec, field_value(r, name, &next, args));
        at += n + 1;
    }
    return jinja_take(&b);
}
