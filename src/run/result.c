// result: see result.h.
#include "result.h"

static json_t *text_or_null(const char *text, size_t n) {
    json_t *string = json_stringn(text ? text : "", n);
    return string ? string : json_null();
}

json_t *result_json(const Result *r) {
    json_t *object = json_object(), *ids = json_array();
    for (int i = r->n_prompt; i < r->n; i++) json_array_append_new(ids, json_integer(r->tokens[i]));
    json_object_set_new(object, "prompt", text_or_null(r->prompt, r->n_prompt_bytes));
    json_object_set_new(object, "text", text_or_null(r->text, r->n_text_bytes));
    json_object_set_new(object, "ids", ids);
    json_object_set_new(object, "stop", json_string(r->stop));
    json_object_set_new(object, "n_prompt", json_integer(r->n_prompt));
    json_object_set_new(object, "n_generated", json_integer(r->n - r->n_prompt));
    json_object_set_new(object, "seed", json_integer((json_int_t)r->seed));
    return object;
}
