// settings: typed access to JSON objects. See settings.h.
#include "settings.h"

#include "file.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int parse(Settings *s, const char *path, const char *text, size_t n, size_t flags, char *err, size_t errlen) {
    *s = (Settings){.err = err, .errlen = errlen};
    if (n > MAX_SETTINGS_BYTES) {
        return fail(err, errlen, "%s: expected at most %d bytes of JSON, found %zu", path, MAX_SETTINGS_BYTES, n);
    }
    json_error_t where;
    s->object = json_loadb(text, n, JSON_REJECT_DUPLICATES | flags, &where);
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

static int map_and_parse(Settings *s, const char *path, size_t flags, char *err, size_t errlen) {
    *s = (Settings){0};
    File file;
    if (file_map(&file, path, err, errlen)) return -1;
    int rc = parse(s, path, (const char *)file.data, file.size, flags, err, errlen);
    file_unmap(&file);
    return rc;
}

int settings_read(Settings *s, const char *path, char *err, size_t errlen) {
    return map_and_parse(s, path, 0, err, errlen);
}

int settings_read_reals(Settings *s, const char *path, char *err, size_t errlen) {
    return map_and_parse(s, path, JSON_DECODE_INT_AS_REAL, err, errlen);
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

void settings_fail(Settings *s, const char *key, const char *fmt, ...) {
    Settings *root = s;
    while (root->up) root = root->up;
    if (root->failed) return;
    root->failed = true;
    char names[128] = "", what[256];
    print_names(names, sizeof names, s);
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    fail(root->err, root->errlen, "%s: %s%s: %s", root->path, names, key, what);
}

static const char *kind_of(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
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

int settings_int(Settings *s, const char *key, int least, int most, int fallback) {
    const json_t *v = find(s, key);
    bool required = fallback < least || fallback > most;
    if (!v && !required) return fallback;
    if (!v) settings_fail(s, key, "expected an integer from %d to %d, not found", least, most);
    else if (!json_is_integer(v)) settings_fail(s, key, "expected an integer, found %s", kind_of(v));
    else if (json_integer_value(v) < least || json_integer_value(v) > most) {
        settings_fail(s, key, "expected %d to %d, found %lld", least, most, (long long)json_integer_value(v));
    } else return (int)json_integer_value(v);
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
