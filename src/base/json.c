// json: see json.h.
#include "json.h"

#include "utf8.h"

#include <ctype.h>
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

static void blanks_skip(JsonReader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t')) r->at++;
}

bool json_accept(JsonReader *r, char c) {
    blanks_skip(r);
    if (r->failed || r->at == r->end || *r->at != c) return false;
    r->at++;
    return true;
}

void json_expect(JsonReader *r, char c) {
    if (json_accept(r, c) || r->failed) return;
    if (r->at == r->end) json_fail(r, "expected '%c', found the end of the document", c);
    else json_fail(r, "expected '%c', found '%c'", c, *r->at);
}

bool json_more(JsonReader *r, char close, bool first) {
    if (json_accept(r, close)) return false;
    if (!first) json_expect(r, ',');
    return !r->failed;
}

// ---- strings

static uint32_t hex4(JsonReader *r) {
    char digits[5] = "";
    for (int i = 0; i < 4; i++) {
        if (r->at == r->end || !isxdigit((unsigned char)*r->at)) {
            json_fail(r, "expected four hexadecimal digits");
            return 0;
        }
        digits[i] = *r->at++;
    }
    return (uint32_t)strtoul(digits, NULL, 16);
}

// Reads an escape sequence, behind its backslash.
static size_t escape_read(JsonReader *r, char *out) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char c = r->at < r->end ? *r->at++ : 0;
    const char *name = c ? strchr(names, c) : NULL;
    if (name) {
        *out = values[name - names];
        return 1;
    }
    if (c != 'u') {
        json_fail(r, "invalid escape sequence");
        return 0;
    }
    uint32_t unit = hex4(r);
    if (unit >= 0xD800 && unit < 0xDC00 && r->end - r->at > 1 && r->at[0] == '\\' && r->at[1] == 'u') {
        r->at += 2;
        uint32_t low = hex4(r);
        if (low >= 0xDC00 && low < 0xE000) unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
    }
    if (unit >= 0xD800 && unit < 0xE000) json_fail(r, "unpaired surrogate");
    return r->failed ? 0 : (size_t)utf8_encode(unit, out);
}

size_t json_read_string(JsonReader *r, char *out) {
    size_t n = 0;
    json_expect(r, '"');
    while (!r->failed) {
        const char *from = r->at;
        while (r->at < r->end && *r->at != '"' && *r->at != '\\') r->at++;
        memcpy(out + n, from, (size_t)(r->at - from));
        n += (size_t)(r->at - from);
        if (r->at == r->end) json_fail(r, "unterminated string");
        else if (*r->at++ == '"') return n;
        else n += escape_read(r, out + n);
    }
    return 0;
}

// ---- numbers

// Copies the characters of a number, terminated.
static bool number_read(JsonReader *r, char text[40]) {
    size_t n = 0;
    blanks_skip(r);
    while (r->at + n < r->end && n < 39 && strchr("+-.0123456789eE", r->at[n]) && r->at[n]) n++;
    memcpy(text, r->at, n);
    text[n] = 0;
    if (!n) json_fail(r, "expected a number");
    return n && !r->failed;
}

int64_t json_read_integer(JsonReader *r) {
    char text[40], *end;
    if (!number_read(r, text)) return 0;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    bool whole = !*end && !errno;
    if (*end) { // 512.0
        double real = strtod(text, &end);
        whole = !*end && real >= -0x1p53 && real <= 0x1p53 && real == (double)(long long)real;
        value = whole ? (long long)real : 0;
    }
    if (!whole) json_fail(r, "expected an integer, found %s", text);
    r->at += strlen(text);
    return r->failed ? 0 : value;
}

double json_read_number(JsonReader *r) {
    char text[40], *end;
    if (!number_read(r, text)) return 0;
    double value = strtod(text, &end);
    if (*end || value - value != 0) json_fail(r, "expected a number, found %s", text);
    r->at += end - text;
    return r->failed ? 0 : value;
}

// ---- skipping

// The position behind the string that begins at `at`, or `end` if it is unterminated.
static const char *string_skip(const char *at, const char *end) {
    for (at++; at < end && *at != '"'; at++) at += *at == '\\';
    return at < end ? at + 1 : end;
}

// Characters that json_skip stops at.
static const bool stops[256] = {['"'] = true, [','] = true, ['['] = true, [']'] = true, ['{'] = true, ['}'] = true};

// Only counts brackets and finds the ends of strings.
void json_skip(JsonReader *r) {
    int64_t depth = 0;
    blanks_skip(r);
    while (r->at < r->end) {
        char c = *r->at;
        bool opens = c == '[' || c == '{', closes = c == ']' || c == '}';
        if (!depth && (closes || c == ',')) return;
        r->at = c == '"' ? string_skip(r->at, r->end) : r->at + 1;
        depth += opens - closes;
        if (!depth && (closes || c == '"')) return;
        while (r->at < r->end && !stops[(unsigned char)*r->at]) r->at++;
    }
}

bool json_member(JsonReader *r, bool first, const char **key, size_t *n) {
    if (!json_more(r, '}', first)) return false;
    json_expect(r, '"');
    if (r->failed) return false;
    *key = r->at;
    r->at = string_skip(r->at - 1, r->end);
    *n = (size_t)(r->at - *key) - 1;
    json_expect(r, ':');
    blanks_skip(r);
    return !r->failed;
}
