// body: a body in JSON and its fields.
//
// Owns the reading of single fields with their types and ranges. Refuses with status 400, naming the field, what is of
// another type or out of range.
#pragma once
#include "apierror.h"

#include <jansson.h>
#include <stddef.h>

// The body as a JSON object, or NULL with *error filled.
json_t *body_object(const char *body, size_t n, ApiError *error);

const json_t *body_field(const json_t *body, const char *name); // NULL: it is not there, or null
const char *json_type_word(const json_t *v);                    // "an array"

typedef struct {
    const char *name;
    enum { FIELD_BOOL, FIELD_INT, FIELD_FLOAT, FIELD_SEED } kind;
    void *to; // bool, int, float, uint64_t: left alone where the field is not there
    double least, most;
} Field;
int body_read(const json_t *body, const Field *f, ApiError *error); // 0, or -1 with *error filled
