// settings: typed access to JSON objects. See settings.h.
#include "settings.h"

#include "file.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- what Python's json module reads, and jansson does not

enum { SAFE_DIGITS = 18 }; // an integer of more digits may not fit 64 bits

// The bytes of a number at `at`; *integer: it has neither fraction nor exponent.
static size_t number_length(const char *at, const char *end, bool *integer) {
    size_t n = 0, left = (size_t)(end - at);
    *integer = true;
    for (; n < left && at[n] && strchr("+-.0123456789eE", at[n]); n++) *integer &= !strchr(".eE", at[n]);
    return n;
}

static bool fits_integer(const char *text) {
    errno = 0;
    strtoll(text, NULL, 10);
    return !errno;
}

// Copies a number. One too large for 64 bits becomes a real number, one too large for that the string "Infinity".
static char *copy_number(char *to, const char *at, size_t n, bool integer) {
    char *text = !integer || n > SAFE_DIGITS ? strndup(at, n) : NULL;
    double value = text ? strtod(text, NULL) : 0;
    bool large = text && integer && !fits_integer(text);
    free(text);
    if (value - value != 0) return mempcpy(to, value > 0 ? "\"Infinity\"" : "\"-Infinity\"", value > 0 ? 10 : 11);
    to = mempcpy(to, at, n);
    return large ? mempcpy(to, ".0", 2) : to;
}

// The bytes of NaN, Infinity or -Infinity at `at`; 0: none of them.
static size_t unlimited_length(const char *at, const char *end) {
    static const char *const names[] = {"NaN", "Infinity", "-Infinity"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t n = strlen(names[i]);
        if ((size_t)(end - at) >= n && !memcmp(at, names[i], n)) return n;
    }
    return 0;
}

static const char *string_end(const char *at, const char *end) {
    for (at++; at < end && *at != '"'; at++) at += *at == '\\';
    return at < end ? at + 1 : end;
}

// The document with these values as strings, "NaN", or as real numbers: malloc'd, *n bytes.
static char *standard_json(const char *text, size_t *n) {
    const char *at = text, *end = text + *n;
    char *out = malloc(3 * *n + 16), *to = out; // NaN gains two bytes, 1e999 five
    if (!out) return NULL;
    if (*n >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) at += 3;
    while (at < end) {
        const char *from = at;
        bool integer = false;
        size_t unlimited = unlimited_length(at, end), digits = unlimited ? 0 : number_length(at, end, &integer);
        if (*at == '"') {
            at = string_end(at, end);
            to = mempcpy(to, from, (size_t)(at - from));
        } else if (unlimited) {
            to += sprintf(to, "\"%.*s\"", (int)unlimited, at);
            at += unlimited;
        } else if (digits) {
            to = copy_number(to, at, digits, integer);
            at += digits;
        } else *to++ = *at++;
    }
    *n = (size_t)(to - out);
    return out;
}

static int parse(Settings *s, const char *path, const char *text, size_t n, size_t flags, char *err, size_t errlen) {
    *s = (Settings){.err = err, .errlen = errlen};
    if (n > MAX_SETTINGS_BYTES) {
        return fail(err, errlen, "%s: expected at most %d bytes of JSON, found %zu", path, MAX_SETTINGS_BYTES, n);
    }
    json_error_t where;
    char *standard = standard_json(text, &n);
    if (!standard) return fail(err, errlen, "%s: out of memory", path);
    s->object = json_loadb(standard, n, flags, &where);
    free(standard);
    if (!s->object) {
        return fail(err, errlen, "%s: line %d, column %d: not JSON: %s", path, where.line, where.column, where.text);
    }
    bool object = json_is_object(s->object);
    if (object) s->path = strdup(path);
    if (s->path) return 0;
    settings_free(s);
    return fail(err, errlen, "%s: %s", path, object ? "out of memory" : "expected a JSON object, found another type");
}

int settings_parse(Settings *s, const char *path, const char *text, size_t n, char *err, size_t errlen) {
    return parse(s, path, text, n, 0, err, errlen);
}

int settings_parse_unique(Settings *s, const char *path, const char *text, size_t n, char *err, size_t errlen) {
    return parse(s, path, text, n, JSON_REJECT_DUPLICATES, err, errlen);
}

int settings_read(Settings *s, const char *path, char *err, size_t errlen) {
    *s = (Settings){0};
    File file;
    if (file_map(&file, path, err, errlen)) return -1;
    int rc = settings_parse(s, path, (const char *)file.data, file.size, err, errlen);
    file_unmap(&file);
    return rc;
}

void settings_free(Settings *s) {
    json_decref(s->object);
    free(s->path);
    *s = (Settings){0};
}

// Appends "outer.inner.", the path of s in its document.
static void print_names(char *text, size_t size, const Settings *s) {
    if (!s->up) return;
    print_names(text, size, s->up);
    size_t n = strlen(text);
    snprintf(text + n, size - n, "%s.", s->name);
}

bool settings_failed(const Settings *s) {
    while (s->up) s = s->up;
    return s->failed;
}

void settings_fail(Settings *s, const char *key, const char *fmt, ...) {
    Settings *root = s;
    while (root->up) root = root->up;
    if (root->failed) return;
    root->failed = true;
    char names[128] = "", what[512];
    print_names(names, sizeof names, s);
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    fail(root->err, root->errlen, "%s: %s%s: %s", root->path, names, key, what);
}

// A number that is none, as standard_json has it.
static bool unlimited(const json_t *v) {
    const char *text = json_string_value(v);
    return unlimited_length(text, text + strlen(text)) == strlen(text) && *text;
}

static const char *kind_of(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return unlimited(v) ? json_string_value(v) : "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    default: return "null";
    }
}

static json_t *find(const Settings *s, const char *key) {
    json_t *v = s->object ? json_object_get(s->object, key) : NULL;
    return json_is_null(v) ? NULL : v;
}

bool settings_has(const Settings *s, const char *key) {
    return find(s, key) != NULL;
}

const char *settings_any(const Settings *s, const char *const *keys) {
    for (const char *const *k = keys; *k; k++) {
        if (settings_has(s, *k)) return *k;
    }
    return keys[0];
}

bool settings_whole(const json_t *v, int64_t *n) {
    double x = json_number_value(v);
    *n = json_is_integer(v) ? json_integer_value(v) : 0;
    if (json_is_integer(v)) return true;
    if (!json_is_real(v) || !(x >= -0x1p53 && x <= 0x1p53) || x != (double)(int64_t)x) return false;
    *n = (int64_t)x;
    return true;
}

int settings_int(Settings *s, const char *key, int least, int most, int fallback) {
    const json_t *v = find(s, key);
    int64_t n = 0;
    bool required = fallback < least || fallback > most;
    if (!v && !required) return fallback;
    if (!v) settings_fail(s, key, "expected an integer from %d to %d, not found", least, most);
    else if (!settings_whole(v, &n) && !json_is_real(v))
        settings_fail(s, key, "expected an integer, found %s", kind_of(v));
    else if (!settings_whole(v, &n)) settings_fail(s, key, "expected an integer, found %g", json_real_value(v));
    else if (n < least || n > most) {
        settings_fail(s, key, "expected %d to %d, found %lld", least, most, (long long)n);
    } else return (int)n;
    return required ? 0 : fallback;
}

double settings_number(Settings *s, const char *key, double least, double most, double fallback) {
    const json_t *v = find(s, key);
    bool required = !(fallback >= least && fallback <= most);
    if (!v && !required) return fallback;
    double x = json_number_value(v);
    if (!v) settings_fail(s, key, "expected a number from %g to %g, not found", least, most);
    else if (!json_is_number(v)) settings_fail(s, key, "expected a number, found %s", kind_of(v));
    else if (!(x >= least && x <= most)) settings_fail(s, key, "expected %g to %g, found %g", least, most, x);
    else return x;
    return required ? 0 : fallback;
}

bool settings_bool(Settings *s, const char *key, bool fallback) {
    const json_t *v = find(s, key);
    if (!v) return fallback;
    if (json_is_boolean(v)) return json_is_true(v);
    settings_fail(s, key, "expected true or false, found %s", kind_of(v));
    return fallback;
}

const char *settings_string(Settings *s, const char *key, const char *fallback) {
    const json_t *v = find(s, key);
    if (v && json_is_string(v)) return json_string_value(v);
    if (v) settings_fail(s, key, "expected a string, found %s", kind_of(v));
    else if (!fallback) settings_fail(s, key, "expected a string, not found");
    return fallback ? fallback : "";
}

bool settings_numbers(Settings *s, const char *key, int n, double *values) {
    const json_t *v = find(s, key);
    if (!v) return false;
    memset(values, 0, sizeof *values * (size_t)n);
    if (!json_is_array(v) || json_array_size(v) != (size_t)n) {
        const char *length = json_is_array(v) ? " of another length" : "";
        settings_fail(s, key, "expected an array of %d numbers, found %s%s", n, kind_of(v), length);
        return true;
    }
    for (int i = 0; i < n; i++) {
        const json_t *x = json_array_get(v, (size_t)i);
        if (!json_is_number(x)) settings_fail(s, key, "expected numbers, found %s", kind_of(x));
        values[i] = json_number_value(x);
    }
    return true;
}

Settings settings_object(Settings *s, const char *key) {
    Settings inner = {.up = s, .name = key};
    json_t *v = find(s, key);
    if (json_is_object(v)) inner.object = v;
    else if (v) settings_fail(s, key, "expected an object, found %s", kind_of(v));
    return inner;
}
