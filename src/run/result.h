// result: a generated text as a JSON object, for -o json and jsonl.
//
// Owns the names of its fields. Called by run and batch, which add what else they know.
#pragma once
#include "tessera.h"

#include <jansson.h>

typedef struct {
    const char *prompt; // [n_prompt_bytes]
    size_t n_prompt_bytes;
    const char *text; // [n_text_bytes]
    size_t n_text_bytes;
    const int32_t *tokens; // [n], the prompt's first
    int n, n_prompt;
    const char *stop; // what ended it: "end", "limit", "word", "context", "interrupt", "error"
    uint64_t seed;
} Result;

// Text that is not UTF-8 (a prompt may be any bytes) is null. The caller frees the object.
json_t *result_json(const Result *r);
