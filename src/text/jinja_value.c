// jinja_value: see jinja_value.h.
#include "jinja_value.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 1 << 16 };

struct JinjaBlock {
    JinjaBlock *next;
    size_t used, size;
    max_align_t bytes[];
};

// ---- memory

void jinja_fail(JinjaHeap *h, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(h->message, sizeof h->message, fmt, args);
    va_end(args);
    for (char *c = h->message; *c; c++) {
        if (*c == '\n' || *c == '\r') *c = ' ';
    }
    longjmp(h->out, 1);
}

void jinja_step(JinjaHeap *h, size_t n) {
    if ((size_t)h->steps < n) jinja_fail(h, "more steps than a template may take");
    h->steps -= (long)n;
}

void jinja_step_over(JinjaHeap *h, JinjaValue v) {
    size_t n = v.kind == JINJA_STRING ? v.text.n
               : v.kind == JINJA_LIST ? v.list->n
               : v.kind == JINJA_DICT ? v.dict->n
                                      : 0;
    jinja_step(h, n / 8);
}

void *jinja_alloc(JinjaHeap *h, size_t bytes) {
    bytes = (bytes + sizeof(max_align_t) - 1) & ~(sizeof(max_align_t) - 1);
    if (bytes > h->most - h->used) jinja_fail(h, "more memory than the %zu bytes that a template may use", h->most);
    h->used += bytes;
    JinjaBlock *b = h->blocks;
    if (!b || b->size - b->used < bytes) {
        size_t size = bytes > BLOCK / 4 ? bytes : BLOCK;
        JinjaBlock *new = calloc(1, sizeof *new + size);
        if (!new) jinja_fail(h, "out of memory");
        new->size = size;
        if (b && size == bytes && bytes > BLOCK / 4) { // the block in use stays first
            new->next = b->next;
            b->next = new;
        } else {
            new->next = b;
            h->blocks = new;
        }
        b = new;
    }
    void *p = (char *)b->bytes + b->used;
    b->used += bytes;
    return p;
}

void *jinja_grow(JinjaHeap *h, void *old, size_t n, size_t *room, size_t size) {
    if (n < *room) return old;
    *room = n ? 2 * n : 4;
    void *new = jinja_alloc(h, *room * size);
    if (n) memcpy(new, old, n * size);
    return new;
}

void jinja_heap_free(JinjaHeap *h) {
    for (JinjaBlock *b = h->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    h->blocks = NULL;
}

// ---- making values

JinjaValue jinja_none(void) {
    return (JinjaValue){.kind = JINJA_NONE};
}

JinjaValue jinja_bool(bool b) {
    return (JinjaValue){.kind = JINJA_BOOL, .truth = b};
}

JinjaValue jinja_int(int64_t i) {
    return (JinjaValue){.kind = JINJA_INT, .integer = i};
}

JinjaValue jinja_real(double d) {
    return (JinjaValue){.kind = JINJA_FLOAT, .real = d};
}

JinjaValue jinja_text(const char *text, size_t n) {
    return (JinjaValue){.kind = JINJA_STRING, .text = {text, NULL, n}};
}

JinjaValue jinja_word(const char *text) {
    return jinja_text(text, strlen(text));
}

JinjaValue jinja_input(JinjaHeap *h, const char *text, size_t n) {
    char *copy = jinja_alloc(h, 2 * n + 1);
    if (n) memcpy(copy, text, n);
    memset(copy + n, 1, n);
    return (JinjaValue){.kind = JINJA_STRING, .text = {copy, (uint8_t *)copy + n, n}};
}

JinjaValue jinja_slice(JinjaValue s, size_t begin, size_t end) {
    if (end < begin) end = begin;
    s.text.text += begin;
    if (s.text.from) s.text.from += begin;
    s.text.n = end - begin;
    return s;
}

JinjaValue jinja_list(JinjaHeap *h) {
    return (JinjaValue){.kind = JINJA_LIST, .list = jinja_alloc(h, sizeof(JinjaList))};
}

JinjaValue jinja_dict(JinjaHeap *h) {
    return (JinjaValue){.kind = JINJA_DICT, .dict = jinja_alloc(h, sizeof(JinjaDict))};
}

void jinja_push(JinjaHeap *h, JinjaList *l, JinjaValue v) {
    l->items = jinja_grow(h, l->items, l->n, &l->room, sizeof v);
    l->items[l->n++] = v;
}

JinjaValue *jinja_find(JinjaHeap *h, const JinjaDict *d, JinjaValue key) {
    jinja_step(h, d->n / 2);
    for (size_t i = 0; i < d->n; i++) {
        if (jinja_equal(h, d->keys[i], key)) return &d->values[i];
    }
    return NULL;
}

JinjaValue *jinja_find_word(JinjaHeap *h, const JinjaDict *d, const char *key) {
    return jinja_find(h, d, jinja_word(key));
}

void jinja_put(JinjaHeap *h, JinjaDict *d, JinjaValue key, JinjaValue v) {
    JinjaValue *old = jinja_find(h, d, key);
    if (old) {
        *old = v;
        return;
    }
    d->keys = jinja_grow(h, d->keys, d->n, &d->room, sizeof v);
    d->values = jinja_grow(h, d->values, d->n, &d->value_room, sizeof v);
    d->keys[d->n] = key;
    d->values[d->n++] = v;
}

void jinja_put_word(JinjaHeap *h, JinjaDict *d, const char *key, JinjaValue v) {
    jinja_put(h, d, jinja_word(key), v);
}

// ---- asking values

bool jinja_is_space(uint32_t c) {
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool jinja_is_word(JinjaValue v, const char *word) {
    return v.kind == JINJA_STRING && v.text.n == strlen(word) && !memcmp(v.text.text, word, v.text.n);
}

bool jinja_is_number(JinjaValue v) {
    return v.kind == JINJA_BOOL || v.kind == JINJA_INT || v.kind == JINJA_FLOAT;
}

double jinja_number(JinjaValue v) {
    return v.kind == JINJA_FLOAT ? v.real : v.kind == JINJA_INT ? (double)v.integer : v.truth;
}

bool jinja_true(JinjaValue v) {
    switch (v.kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE: return false;
    case JINJA_BOOL: return v.truth;
    case JINJA_INT: return v.integer;
    case JINJA_FLOAT: return v.real != 0;
    case JINJA_STRING: return v.text.n;
    case JINJA_LIST: return v.list->n;
    case JINJA_DICT: return v.dict->n;
    default: return true;
    }
}

const char *jinja_kind_name(JinjaValue v) {
    static const char *const names[] = {"undefined", "none",      "a boolean",   "an integer", "a float", "a string",
                                        "a list",    "a mapping", "a namespace", "a function", "a loop"};
    return names[v.kind];
}

static bool equal_at(JinjaHeap *h, JinjaValue a, JinjaValue b, int depth) {
    if (depth > JINJA_VALUE_DEPTH) jinja_fail(h, "values nested deeper than %d", JINJA_VALUE_DEPTH);
    if (depth) jinja_step(h, 1);
    if (jinja_is_number(a) && jinja_is_number(b)) {
        bool real = a.kind == JINJA_FLOAT || b.kind == JINJA_FLOAT;
        if (real) return jinja_number(a) == jinja_number(b);
        return (a.kind == JINJA_INT ? a.integer : a.truth) == (b.kind == JINJA_INT ? b.integer : b.truth);
    }
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case JINJA_STRING:
        if (a.text.n == b.text.n) jinja_step(h, a.text.n / 256);
        return a.text.n == b.text.n && (!a.text.n || !memcmp(a.text.text, b.text.text, a.text.n));
    case JINJA_LIST:
        if (a.list->n != b.list->n || a.list->tuple != b.list->tuple) return false;
        for (size_t i = 0; i < a.list->n; i++) {
            if (!equal_at(h, a.list->items[i], b.list->items[i], depth + 1)) return false;
        }
        return true;
    case JINJA_DICT:
        if (a.dict->n != b.dict->n) return false;
        for (size_t i = 0; i < a.dict->n; i++) {
            JinjaValue *other = jinja_find(h, b.dict, a.dict->keys[i]);
            if (!other || !equal_at(h, a.dict->values[i], *other, depth + 1)) return false;
        }
        return true;
    case JINJA_NAMESPACE: return a.dict == b.dict;
    case JINJA_CALLABLE: return a.callable == b.callable;
    case JINJA_LOOP: return a.loop == b.loop;
    default: return true;
    }
}

bool jinja_equal(JinjaHeap *h, JinjaValue a, JinjaValue b) {
    return equal_at(h, a, b, 0);
}

static int compare_at(JinjaHeap *h, JinjaValue a, JinjaValue b, int depth) {
    if (depth > JINJA_VALUE_DEPTH) jinja_fail(h, "values nested deeper than %d", JINJA_VALUE_DEPTH);
    jinja_step(h, 1);
    if (a.kind == JINJA_INT && b.kind == JINJA_INT) return (a.integer > b.integer) - (a.integer < b.integer);
    if (jinja_is_number(a) && jinja_is_number(b)) {
        double x = jinja_number(a), y = jinja_number(b);
        return (x > y) - (x < y);
    }
    if (a.kind == JINJA_STRING && b.kind == JINJA_STRING) {
        size_t n = a.text.n < b.text.n ? a.text.n : b.text.n;
        jinja_step(h, n / 256);
        int order = n ? memcmp(a.text.text, b.text.text, n) : 0;
        return order ? order : (a.text.n > b.text.n) - (a.text.n < b.text.n);
    }
    if (a.kind == JINJA_LIST && b.kind == JINJA_LIST) {
        for (size_t i = 0; i < a.list->n && i < b.list->n; i++) {
            int order = compare_at(h, a.list->items[i], b.list->items[i], depth + 1);
            if (order) return order;
        }
        return (a.list->n > b.list->n) - (a.list->n < b.list->n);
    }
    jinja_fail(h, "%s and %s have no order", jinja_kind_name(a), jinja_kind_name(b));
}

int jinja_compare(JinjaHeap *h, JinjaValue a, JinjaValue b) {
    return compare_at(h, a, b, 0);
}

// ---- text

void jinja_reserve(JinjaHeap *h, JinjaBuffer *b, size_t room) {
    if (room <= b->room) return;
    char *text = jinja_alloc(h, 2 * room);
    if (b->n) memcpy(text, b->text, b->n);
    if (b->n) memcpy(text + room, b->from, b->n);
    b->text = text;
    b->from = (uint8_t *)text + room;
    b->room = room;
}

void jinja_append(JinjaHeap *h, JinjaBuffer *b, JinjaText t) {
    if (!t.n) return;
    if (b->room - b->n < t.n) jinja_reserve(h, b, b->n + t.n > 2 * b->room ? b->n + t.n + 32 : 2 * b->room);
    memcpy(b->text + b->n, t.text, t.n);
    if (t.from) memcpy(b->from + b->n, t.from, t.n);
    else memset(b->from + b->n, 0, t.n);
    b->n += t.n;
}

void jinja_append_word(JinjaHeap *h, JinjaBuffer *b, const char *word) {
    jinja_append(h, b, jinja_word(word).text);
}

JinjaValue jinja_take(const JinjaBuffer *b) {
    return (JinjaValue){.kind = JINJA_STRING, .text = {b->text ? b->text : "", b->from, b->n}};
}

// ---- spelling

static const char *spell_real(double d, char out[40]) {
    if (isnan(d)) return "nan";
    if (isinf(d)) return d > 0 ? "inf" : "-inf";
    int digits = 1;
    snprintf(out, 40, "%.0e", d);
    while (digits < 17 && strtod(out, NULL) != d) snprintf(out, 40, "%.*e", digits++, d);
    int exponent = atoi(strchr(out, 'e') + 1);
    if (exponent >= -4 && exponent < 16) {
        int places = digits - 1 - exponent;
        snprintf(out, 40, "%.*f", places > 1 ? places : 1, d);
    }
    return out;
}

static void print_number(JinjaHeap *h, JinjaBuffer *b, JinjaValue v) {
    char out[40];
    if (v.kind == JINJA_FLOAT) jinja_append_word(h, b, spell_real(v.real, out));
    else {
        snprintf(out, sizeof out, "%lld", (long long)v.integer);
        jinja_append_word(h, b, out);
    }
}

static void print_at(JinjaHeap *h, JinjaBuffer *b, JinjaValue v, int depth);

// As Python's repr(): quoted, with escapes.
static void print_quoted(JinjaHeap *h, JinjaBuffer *b, JinjaValue v) {
    bool single = v.text.n && memchr(v.text.text, '\'', v.text.n),
         twice = v.text.n && memchr(v.text.text, '"', v.text.n);
    char quote = single && !twice ? '"' : '\'', out[8];
    jinja_append(h, b, (JinjaText){&quote, NULL, 1});
    for (size_t i = 0; i < v.text.n; i++) {
        char c = v.text.text[i];
        if (c == '\n') jinja_append_word(h, b, "\\n");
        else if (c == '\r') jinja_append_word(h, b, "\\r");
        else if (c == '\t') jinja_append_word(h, b, "\\t");
        else if (c == '\\') jinja_append_word(h, b, "\\\\");
        else if (c == quote) jinja_append_word(h, b, "\\'");
        else if ((unsigned char)c < 0x20 || c == 0x7F) {
            snprintf(out, sizeof out, "\\x%02x", (unsigned)c);
            jinja_append_word(h, b, out);
        } else jinja_append(h, b, jinja_slice(v, i, i + 1).text);
    }
    jinja_append(h, b, (JinjaText){&quote, NULL, 1});
}

static void print_inside(JinjaHeap *h, JinjaBuffer *b, JinjaValue v, int depth) {
    if (v.kind == JINJA_STRING) print_quoted(h, b, v);
    else if (v.kind == JINJA_UNDEFINED) jinja_append_word(h, b, "Undefined");
    else print_at(h, b, v, depth);
}

static void print_at(JinjaHeap *h, JinjaBuffer *b, JinjaValue v, int depth) {
    if (depth > JINJA_VALUE_DEPTH) jinja_fail(h, "values nested deeper than %d", JINJA_VALUE_DEPTH);
    jinja_step(h, 1);
    if (v.kind == JINJA_NONE) jinja_append_word(h, b, "None");
    else if (v.kind == JINJA_BOOL) jinja_append_word(h, b, v.truth ? "True" : "False");
    else if (v.kind == JINJA_INT || v.kind == JINJA_FLOAT) print_number(h, b, v);
    else if (v.kind == JINJA_STRING) jinja_append(h, b, v.text);
    else if (v.kind == JINJA_LIST) {
        jinja_append_word(h, b, v.list->tuple ? "(" : "[");
        for (size_t i = 0; i < v.list->n; i++) {
            if (i) jinja_append_word(h, b, ", ");
            print_inside(h, b, v.list->items[i], depth + 1);
        }
        if (v.list->tuple && v.list->n == 1) jinja_append_word(h, b, ",");
        jinja_append_word(h, b, v.list->tuple ? ")" : "]");
    } else if (v.kind == JINJA_DICT) {
        jinja_append_word(h, b, "{");
        for (size_t i = 0; i < v.dict->n; i++) {
            if (i) jinja_append_word(h, b, ", ");
            print_inside(h, b, v.dict->keys[i], depth + 1);
            jinja_append_word(h, b, ": ");
            print_inside(h, b, v.dict->values[i], depth + 1);
        }
        jinja_append_word(h, b, "}");
    } else if (v.kind != JINJA_UNDEFINED) jinja_fail(h, "%s cannot be printed", jinja_kind_name(v));
}

void jinja_print(JinjaHeap *h, JinjaBuffer *b, JinjaValue v) {
    print_at(h, b, v, 0);
}
