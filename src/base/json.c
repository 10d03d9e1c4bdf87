// json: see json.h.
#include "json.h"

#include "utf8.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void json_fail(JsonReader *r, const char *fmt, ...) {
    if (r->failed) return;
    r->failed = true;
    char what[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    fail(r->err, r->errlen, "%s: %s at byte %zu: %s", r->path, r->what, (size_t)(r->at - r->begin), what);
}

static bool is_blank(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

bool json_take(JsonReader *r, char c) {
    while (r->at < r->end && is_blank(*r->at)) r->at++;
    if (r->failed || r->at == r->end || *r->at != c) return false;
    r->at++;
    return true;
}

void json_need(JsonReader *r, char c) {
    if (json_take(r, c) || r->failed) return;
    if (r->at == r->end) json_fail(r, "expected '%c', found the end", c);
    else json_fail(r, "expected '%c', found '%c'", c, *r->at);
}

bool json_more(JsonReader *r, char close, bool first) {
    if (json_take(r, close)) return false;
    if (!first) json_need(r, ',');
    return !r->failed;
}

// ---- texts

static uint32_t hex4(JsonReader *r) {
    uint32_t c = 0;
    for (int i = 0; i < 4; i++, r->at++) {
        char d = r->at < r->end ? *r->at : 0;
        int digit = d >= '0' && d <= '9'   ? d - '0'
                    : d >= 'a' && d <= 'f' ? d - 'a' + 10
                    : d >= 'A' && d <= 'F' ? d - 'A' + 10
                                           : -1;
        if (digit < 0) {
            json_fail(r, "expected four hexadecimal digits");
            return 0;
        }
        c = c << 4 | (uint32_t)digit;
    }
    return c;
}

// What follows a backslash.
static size_t escape_read(JsonReader *r, char *out) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char c = r->at < r->end ? *r->at++ : 0;
    const char *name = c ? strchr(names, c) : NULL;
    if (name) return *out = values[name - names], 1;
    if (c != 'u') return json_fail(r, "expected an escape of JSON"), 0;
    uint32_t unit = hex4(r);
    if (unit >= 0xD800 && unit < 0xDC00 && r->end - r->at > 1 && r->at[0] == '\\' && r->at[1] == 'u') {
        r->at += 2;
        uint32_t low = hex4(r);
        unit = low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00) : unit;
    }
    if (unit >= 0xD800 && unit < 0xE000) json_fail(r, "expected a pair of surrogates, found one alone");
    return r->failed ? 0 : (size_t)utf8_encode(unit, out);
}

size_t json_text(JsonReader *r, char *out) {
    size_t n = 0;
    json_need(r, '"');
    while (!r->failed) {
        const char *from = r->at;
        while (r->at < r->end && *r->at != '"' && *r->at != '\\') r->at++;
        memcpy(out + n, from, (size_t)(r->at - from));
        n += (size_t)(r->at - from);
        if (r->at == r->end) json_fail(r, "expected the end of a text, found the end");
        else if (*r->at++ == '"') return n;
        else n += escape_read(r, out + n);
    }
    return 0;
}

// ---- numbers

// The number's characters, terminated.
static bool number_read(JsonReader *r, char text[40]) {
    size_t n = 0;
    json_take(r, 0);
    while (r->at + n < r->end && n < 39 && strchr("+-.0123456789eE", r->at[n]) && r->at[n]) n++;
    memcpy(text, r->at, n);
    text[n] = 0;
    if (!n) json_fail(r, "expected a number");
    return n && !r->failed;
}

int64_t json_whole(JsonReader *r) {
    char text[40], *end;
    if (!number_read(r, text)) return 0;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (*end || errno) json_fail(r, "expected a whole number, found %s", text);
    r->at += end - text;
    return r->failed ? 0 : value;
}

double json_number(JsonReader *r) {
    char text[40], *end;
    if (!number_read(r, text)) return 0;
    double value = strtod(text, &end);
    if (*end || value - value != 0) json_fail(r, "expected a number, found %s", text);
    r->at += end - text;
    return r->failed ? 0 : value;
}

// ---- skipping

// Past the text whose quote is at `at`; the end, where it has none.
static const char *text_skip(const char *at, const char *end) {
    for (at++; at < end && *at != '"'; at++) at += *at == '\\';
    return at < end ? at + 1 : end;
}

// What json_skip stops at.
static const bool stops[256] = {['"'] = true, [','] = true, ['['] = true, [']'] = true, ['{'] = true, ['}'] = true};

// By its brackets and quotes.
void json_skip(JsonReader *r) {
    int64_t depth = 0;
    json_take(r, 0); // the white space
    while (r->at < r->end) {
        char c = *r->at;
        bool opens = c == '[' || c == '{', closes = c == ']' || c == '}';
        if (!depth && (closes || c == ',')) return;
        r->at = c == '"' ? text_skip(r->at, r->end) : r->at + 1;
        depth += opens - closes;
        if (!depth && (closes || c == '"')) return;
        while (r->at < r->end && !stops[(unsigned char)*r->at]) r->at++;
    }
}

bool json_member(JsonReader *r, bool first, const char **key, size_t *n) {
    if (!json_more(r, '}', first)) return false;
    json_need(r, '"');
    if (r->failed) return false;
    *key = r->at;
    r->at = text_skip(r->at - 1, r->end);
    *n = (size_t)(r->at - *key) - 1;
    json_need(r, ':');
    json_take(r, 0);
    return !r->failed;
}
