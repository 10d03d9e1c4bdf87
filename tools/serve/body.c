// body: see body.h.
#include "body.h"

#include <stdbool.h>
#include <stdint.h>

json_t *body_object(const char *body, size_t n, ApiError *error) {
    json_error_t at;
    json_t *root = json_loadb(body, n, 0, &at);
    if (!root) api_fail(error, 400, NULL, "body: line %d, column %d: %s", at.line, at.column, at.text);
    if (!root || json_is_object(root)) return root;
    json_decref(root);
    api_fail(error, 400, NULL, "body: expected a JSON object");
    return NULL;
}

const char *json_type_word(const json_t *v) {
    static const char *const names[] = {"an object", "an array", "a string", "an integer",
                                        "a number",  "true",     "false",    "null"};
    return names[json_typeof(v)];
}

const json_t *body_field(const json_t *body, const char *name) {
    const json_t *v = json_object_get(body, name);
    return json_is_null(v) ? NULL : v;
}

int body_read(const json_t *body, const Field *f, ApiError *e) {
    const json_t *v = body_field(body, f->name);
    if (!v) return 0;
    if (f->kind == FIELD_BOOL) {
        if (!json_is_boolean(v))
            return api_fail(e, 400, f->name, "%s: expected true or false, found %s", f->name, json_type_word(v));
        *(bool *)f->to = json_is_true(v);
        return 0;
    }
    bool whole = f->kind != FIELD_FLOAT;
    if (whole ? !json_is_integer(v) : !json_is_number(v)) {
        return api_fail(e, 400, f->name, "%s: expected %s, found %s", f->name, whole ? "an integer" : "a number",
                        json_type_word(v));
    }
    if (f->kind == FIELD_SEED) {
        *(uint64_t *)f->to = (uint64_t)json_integer_value(v);
        return 0;
    }
    double x = json_number_value(v);
    if (!(x >= f->least && x <= f->most)) {
        return api_fail(e, 400, f->name, "%s: expected %g to %g, found %g", f->name, f->least, f->most, x);
    }
    if (whole) *(int *)f->to = (int)x;
    else *(float *)f->to = (float)x;
    return 0;
}
