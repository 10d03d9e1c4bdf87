// jinja_builtins: the filters, methods and global functions that chat templates use, by name. See jinja_run.h.
//
// Owns what reads arguments, filters of numbers and of JSON, methods of loops, and global functions. Refuses a name
// that nobody has, and arguments of the wrong kind.
#include "jinja_builtins.h"

#include "jinja_json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- arguments

JinjaText jinja_need_text(JinjaRun *r, JinjaValue v, const char *what) {
    if (v.kind == JINJA_UNDEFINED && v.name) jinja_fail(r->heap, "%s: '%s' is undefined", what, v.name);
    if (v.kind != JINJA_STRING) jinja_fail(r->heap, "%s: expected a string, found %s", what, jinja_kind_name(v));
    return v.text;
}

bool jinja_flag(Args *args, size_t i, const char *name, bool otherwise) {
    JinjaValue v = jinja_argument(args, i, name);
    return v.kind == JINJA_UNDEFINED ? otherwise : jinja_true(v);
}

int64_t jinja_integer_argument(JinjaRun *r, Args *args, size_t i, const char *name, int64_t otherwise) {
    JinjaValue v = jinja_argument(args, i, name);
    return v.kind == JINJA_UNDEFINED || v.kind == JINJA_NONE ? otherwise : jinja_index(r, v, name);
}

JinjaValue jinja_copy_items(JinjaRun *r, const JinjaList *from) {
    JinjaValue l = jinja_list(r->heap);
    for (size_t i = 0; i < from->n; i++) jinja_push(r->heap, l.list, from->items[i]);
    return l;
}

char *jinja_word_of(JinjaRun *r, JinjaValue v, const char *what) {
    JinjaText t = jinja_need_text(r, v, what);
    char *word = jinja_alloc(r->heap, t.n + 1);
    if (t.n) memcpy(word, t.text, t.n);
    return word;
}

JinjaFunction *jinja_entry_find(const JinjaEntry *e, size_t n, JinjaValue name) {
    for (size_t i = 0; i < n; i++) {
        if (jinja_is_word(name, e[i].name)) return e[i].function;
    }
    return NULL;
}

// ---- filters of numbers

static JinjaValue filter_int(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue otherwise = args->n ? jinja_argument(args, 0, "default") : jinja_int(0);
    if (v.kind == JINJA_UNDEFINED) jinja_fail(r->heap, "int: '%s' is undefined", v.name ? v.name : "the value");
    if (v.kind == JINJA_INT || v.kind == JINJA_BOOL) return jinja_int(jinja_index(r, v, "int"));
    double d = v.kind == JINJA_FLOAT ? v.real : NAN;
    if (v.kind == JINJA_STRING) {
        char digits[64] = "", *end = digits;
        JinjaValue t = jinja_strip(v, NULL, true, true);
        if (t.text.n < sizeof digits) memcpy(digits, t.text.text, t.text.n);
        long long whole = strtoll(digits, &end, 10);
        if (end > digits && !*end) return jinja_int(whole);
        d = strtod(digits, &end);
        if (end == digits || *end) return otherwise;
    }
    return fabs(d) < 9e18 ? jinja_int((int64_t)d) : otherwise;
}

static JinjaValue filter_float(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue otherwise = args->n ? jinja_argument(args, 0, "default") : jinja_real(0);
    if (v.kind == JINJA_UNDEFINED) jinja_fail(r->heap, "float: '%s' is undefined", v.name ? v.name : "the value");
    if (jinja_is_number(v)) return jinja_real(jinja_number(v));
    char digits[64] = "", *end = digits;
    if (v.kind != JINJA_STRING || v.text.n >= sizeof digits) return otherwise;
    JinjaValue t = jinja_strip(v, NULL, true, true);
    memcpy(digits, t.text.text, t.text.n);
    double d = strtod(digits, &end);
    return end == digits || *end ? otherwise : jinja_real(d);
}

static JinjaValue filter_abs(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    if (v.kind == JINJA_FLOAT) return jinja_real(fabs(v.real));
    int64_t i = jinja_index(r, v, "abs");
    if (i == INT64_MIN) jinja_fail(r->heap, "abs: more than 64 bits");
    return jinja_int(i < 0 ? -i : i);
}

static JinjaValue filter_round(JinjaRun *r, JinjaValue v, Args *args) {
    if (!jinja_is_number(v)) jinja_fail(r->heap, "round: expected a number, found %s", jinja_kind_name(v));
    int64_t precision = jinja_integer_argument(r, args, 0, "precision", 0);
    if (precision < -18 || precision > 30) jinja_fail(r->heap, "round: expected a precision of -18 to 30");
    double scale = pow(10, (double)precision), d = jinja_number(v);
    JinjaValue method = jinja_argument(args, 1, "method");
    if (jinja_is_word(method, "ceil")) return jinja_real(ceil(d * scale) / scale);
    if (jinja_is_word(method, "floor")) return jinja_real(floor(d * scale) / scale);
    if (v.kind != JINJA_FLOAT && precision >= 0) return jinja_int(jinja_index(r, v, "round"));
    if (v.kind != JINJA_FLOAT) return jinja_int((int64_t)(nearbyint(d * scale) * pow(10, (double)-precision)));
    if (precision < 0) return jinja_real(nearbyint(d * scale) * pow(10, (double)-precision));
    char out[400]; // decimal digits, which are exact
    snprintf(out, sizeof out, "%.*f", (int)precision, d);
    return jinja_real(strtod(out, NULL));
}

// ---- filters of JSON

static JinjaValue filter_tojson(JinjaRun *r, JinjaValue v, Args *args) {
    int64_t indent = jinja_integer_argument(r, args, 1, "indent", -1); // the order of Hugging Face's own filter
    JinjaJson how = {.indent = indent < 0    ? -1
                               : indent > 64 ? 64
                                             : (int)indent,
                     .sort_keys = jinja_flag(args, 3, "sort_keys", false),
                     .ascii = jinja_flag(args, 0, "ensure_ascii", false),
                     .item_separator = jinja_word(indent < 0 ? ", " : ",").text,
                     .key_separator = jinja_word(": ").text};
    JinjaValue separators = jinja_argument(args, 2, "separators");
    if (separators.kind == JINJA_LIST && separators.list->n == 2) {
        how.item_separator = jinja_need_text(r, separators.list->items[0], "tojson");
        how.key_separator = jinja_need_text(r, separators.list->items[1], "tojson");
    }
    JinjaBuffer b = {0};
    if (v.kind == JINJA_UNDEFINED && v.name) jinja_fail(r->heap, "tojson: '%s' is undefined", v.name);
    jinja_print_json(r->heap, &b, v, &how, 0);
    return jinja_take(&b);
}

static JinjaValue filter_from_json(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    JinjaText t = jinja_need_text(r, v, "from_json");
    return jinja_read_json(r->heap, t.text, t.n);
}

// ---- methods of loops

static JinjaValue loop_cycle(JinjaRun *r, JinjaValue v, Args *args) {
    if (!args->n) jinja_fail(r->heap, "cycle: expected values");
    return args->values[v.loop->at % args->n];
}

static JinjaValue loop_changed(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue now = jinja_copy_items(r, &(JinjaList){.items = args->values, .n = args->n});
    bool changed = v.loop->changed.kind != JINJA_LIST || !jinja_equal(r->heap, v.loop->changed, now);
    v.loop->changed = now;
    return jinja_bool(changed);
}

// ---- global functions

static JinjaValue global_raise(JinjaRun *r, JinjaValue v, Args *args) {
    (void)v;
    JinjaText t = jinja_string(r, jinja_argument(args, 0, "message")).text;
    jinja_fail(r->heap, "%.*s", t.n < 300 ? (int)t.n : 300, t.text);
}

static JinjaValue global_strftime(JinjaRun *r, JinjaValue v, Args *args) {
    char out[256];
    (void)v;
    char *format = jinja_word_of(r, jinja_argument(args, 0, "format"), "strftime_now");
    size_t n = strlen(format) < 100 ? strftime(out, sizeof out, format, &r->now) : 0;
    char *copy = jinja_alloc(r->heap, n + 1);
    memcpy(copy, out, n);
    return jinja_text(copy, n);
}

static JinjaValue global_range(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue l = jinja_list(r->heap);
    (void)v;
    int64_t first = jinja_integer_argument(r, args, 0, NULL, 0), end = jinja_integer_argument(r, args, 1, NULL, 0),
            step = jinja_integer_argument(r, args, 2, NULL, 1);
    if (args->n < 2) end = first;
    if (args->n < 2) first = 0;
    if (!step) jinja_fail(r->heap, "range: the step is zero");
    for (int64_t i = first; step > 0 ? i < end : i > end;) {
        jinja_step(r->heap, 1);
        jinja_push(r->heap, l.list, jinja_int(i));
        if (__builtin_add_overflow(i, step, &i)) break;
    }
    return l;
}

static JinjaValue global_dict(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue d = jinja_dict(r->heap);
    (void)v;
    jinja_dict_update(r, d, args);
    return d;
}

static JinjaValue global_namespace(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue d = global_dict(r, v, args);
    d.kind = JINJA_NAMESPACE;
    return d;
}

// ---- tables

static const JinjaEntry filters[] = {
    {"abs", filter_abs}, {"float", filter_float}, {"format", jinja_format_values}, {"from_json", filter_from_json},
    {"int", filter_int}, {"round", filter_round}, {"tojson", filter_tojson},
};

static const JinjaEntry loop_methods[] = {{"changed", loop_changed}, {"cycle", loop_cycle}};

static const JinjaEntry globals[] = {
    {"dict", global_dict},   {"namespace", global_namespace},   {"raise_exception", global_raise},
    {"range", global_range}, {"strftime_now", global_strftime},
};

JinjaFunction *jinja_filter_find(JinjaValue name) {
    JinjaFunction *f = jinja_string_filter(name);
    if (!f) f = jinja_collection_filter(name);
    return f ? f : JINJA_ENTRY(filters, name);
}

JinjaValue jinja_filter(JinjaRun *r, const char *name, JinjaValue v, Args *args) {
    JinjaFunction *f = jinja_filter_find(jinja_word(name));
    jinja_step(r->heap, 1);
    jinja_step_over(r->heap, v);
    if (!f) jinja_fail(r->heap, "unknown filter '%.60s'", name);
    return f(r, v, args);
}

JinjaFunction *jinja_method(JinjaValue of, JinjaValue name) {
    if (of.kind == JINJA_STRING) return jinja_string_method(name);
    if (of.kind == JINJA_DICT) return jinja_dict_method(name);
    if (of.kind == JINJA_LIST) return jinja_list_method(name);
    return of.kind == JINJA_LOOP ? JINJA_ENTRY(loop_methods, name) : NULL;
}

JinjaFunction *jinja_global(const char *name) {
    return JINJA_ENTRY(globals, jinja_word(name));
}
