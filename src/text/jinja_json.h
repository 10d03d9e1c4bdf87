// jinja_json: values of chat templates as JSON, and JSON as values.
//
// Owns the spelling that Python's json.dumps gives. Refuses values without a JSON form, what is no JSON, and both where
// they are nested too deep. Called by the filters tojson and from_json, and by chat.c.
#pragma once
#include "jinja_value.h"

typedef struct {
    int indent; // -1: on one line
    bool sort_keys, ascii;
    JinjaText item_separator, key_separator;
} JinjaJson;

void jinja_print_json(JinjaHeap *h, JinjaBuffer *b, JinjaValue v, const JinjaJson *how, int level);
JinjaValue jinja_read_json(JinjaHeap *h, const char *text, size_t n); // strings are the input's, roles the template's
