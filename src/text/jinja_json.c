// jinja_json: see jinja_json.h.
#include "jinja_json.h"

#include "utf8.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

static void json_string_out(JinjaHeap *h, JinjaBuffer *b, JinjaValue v, bool ascii) {
    char out[16];
    jinja_append_word(h, b, "\"");
    for (size_t i = 0, n = 1; i < v.text.n; i += n) {
        unsigned char c = (unsigned char)v.text.text[i];
        const char *special = memchr("\"\\\n\r\t\b\f", c, 7);
        n = 1;
        if (special && c) {
            memcpy(out, "\\?", 3);
            switch (c) {
            case '\n': out[1] = 'n'; break;
            case '\r': out[1] = 'r'; break;
            case '\t': out[1] = 't'; break;
            case '\b': out[1] = 'b'; break;
            case '\f': out[1] = 'f'; break;
            default: out[1] = (char)c;
            }
            jinja_append_word(h, b, out);
        } else if (c < 0x20 || (c == 0x7F && ascii)) {
            snprintf(out, sizeof out, "\\u%04x", c);
            jinja_append_word(h, b, out);
        } else if (c >= 0x80 && ascii) {
            uint32_t code;
            n = (size_t)utf8_decode(v.text.text + i, v.text.n - i, &code);
            if (code >= 0x10000)
                snprintf(out, sizeof out, "\\u%04x\\u%04x", 0xD7C0 + (code >> 10), 0xDC00 + (code & 0x3FF));
            else snprintf(out, sizeof out, "\\u%04x", code);
            jinja_append_word(h, b, out);
        } else jinja_append(h, b, jinja_slice(v, i, i + 1).text);
    }
    jinja_append_word(h, b, "\"");
}

static void json_line(JinjaHeap *h, JinjaBuffer *b, const JinjaJson *how, int level) {
    if (how->indent < 0) return;
    jinja_append_word(h, b, "\n");
    for (long i = 0; i < (long)how->indent * level; i++) jinja_append_word(h, b, " ");
}

static size_t *key_order(JinjaHeap *h, const JinjaDict *d, bool sorted) {
    size_t *order = jinja_alloc(h, (d->n + 1) * sizeof *order);
    for (size_t i = 0; i < d->n; i++) {
        size_t at = i;
        while (sorted && at && jinja_compare(h, d->keys[order[at - 1]], d->keys[i]) > 0) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    return order;
}

static void json_dict_out(JinjaHeap *h, JinjaBuffer *b, const JinjaDict *d, const JinjaJson *how, int level) {
    size_t *order = key_order(h, d, how->sort_keys);
    jinja_append_word(h, b, "{");
    for (size_t i = 0; i < d->n; i++) {
        JinjaValue key = d->keys[order[i]];
        if (i) jinja_append(h, b, how->item_separator);
        json_line(h, b, how, level + 1);
        if (key.kind != JINJA_STRING) {
            JinjaBuffer name = {0};
            jinja_print_json(h, &name, key, how, level);
            key = jinja_take(&name);
        }
        json_string_out(h, b, key, how->ascii);
        jinja_append(h, b, how->key_separator);
        jinja_print_json(h, b, d->values[order[i]], how, level + 1);
    }
    if (d->n) json_line(h, b, how, level);
    jinja_append_word(h, b, "}");
}

void jinja_print_json(JinjaHeap *h, JinjaBuffer *b, JinjaValue v, const JinjaJson *how, int level) {
    if (level > JINJA_VALUE_DEPTH) jinja_fail(h, "values nested deeper than %d", JINJA_VALUE_DEPTH);
    jinja_step(h, 1);
    if (v.kind == JINJA_NONE) jinja_append_word(h, b, "null");
    else if (v.kind == JINJA_BOOL) jinja_append_word(h, b, v.truth ? "true" : "false");
    else if (v.kind == JINJA_INT || v.kind == JINJA_FLOAT) jinja_print(h, b, v);
    else if (v.kind == JINJA_STRING) json_string_out(h, b, v, how->ascii);
    else if (v.kind == JINJA_LIST) {
        jinja_append_word(h, b, "[");
        for (size_t i = 0; i < v.list->n; i++) {
            if (i) jinja_append(h, b, how->item_separator);
            json_line(h, b, how, level + 1);
            jinja_print_json(h, b, v.list->items[i], how, level + 1);
        }
        if (v.list->n) json_line(h, b, how, level);
        jinja_append_word(h, b, "]");
    } else if (v.kind == JINJA_DICT || v.kind == JINJA_NAMESPACE) json_dict_out(h, b, v.dict, how, level);
    else jinja_fail(h, "tojson: %s has no JSON form", jinja_kind_name(v));
}

static JinjaValue from_json(JinjaHeap *h, json_t *j, int depth);

// The name of a role is the program's word, not a user's: templates put it between the brackets of marks.
static JinjaValue member_from_json(JinjaHeap *h, const char *key, json_t *j, int depth) {
    JinjaValue v = from_json(h, j, depth);
    bool word = !strcmp(key, "role") && v.kind == JINJA_STRING;
    for (size_t i = 0; word && i < v.text.n; i++) word = v.text.text[i] >= 'a' && v.text.text[i] <= 'z';
    if (word) v.text.from = NULL;
    return v;
}

static JinjaValue from_json(JinjaHeap *h, json_t *j, int depth) {
    if (depth > JINJA_VALUE_DEPTH) jinja_fail(h, "JSON nested deeper than %d", JINJA_VALUE_DEPTH);
    switch (json_typeof(j)) {
    case JSON_TRUE: return jinja_bool(true);
    case JSON_FALSE: return jinja_bool(false);
    case JSON_INTEGER: return jinja_int(json_integer_value(j));
    case JSON_REAL: return jinja_real(json_real_value(j));
    case JSON_STRING: return jinja_input(h, json_string_value(j), json_string_length(j));
    case JSON_ARRAY: {
        JinjaValue l = jinja_list(h);
        for (size_t i = 0; i < json_array_size(j); i++)
            jinja_push(h, l.list, from_json(h, json_array_get(j, i), depth + 1));
        return l;
    }
    case JSON_OBJECT: {
        JinjaValue d = jinja_dict(h);
        const char *key;
        json_t *member;
        json_object_foreach(j, key, member)
            jinja_put(h, d.dict, jinja_input(h, key, strlen(key)), member_from_json(h, key, member, depth + 1));
        return d;
    }
    default: return jinja_none();
    }
}

JinjaValue jinja_read_json(JinjaHeap *h, const char *text, size_t n) {
    json_error_t error;
    jinja_step(h, n / 4);
    json_t *volatile j = json_loadb(text, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!j) jinja_fail(h, "JSON, line %d: %s", error.line, error.text);
    jmp_buf outer;
    memcpy(&outer, &h->out, sizeof outer);
    if (setjmp(h->out)) { // frees the tree, and goes on failing
        memcpy(&h->out, &outer, sizeof outer);
        json_decref(j);
        longjmp(h->out, 1);
    }
    JinjaValue v = from_json(h, j, 0);
    memcpy(&h->out, &outer, sizeof outer);
    json_decref(j);
    return v;
}
