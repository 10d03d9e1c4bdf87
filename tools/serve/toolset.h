// toolset: the tools of a request and which of them the answer must call.
//
// Owns the fields tools, tool_choice and parallel_tool_calls, the JSON Schema of calls, and what a model is told whose
// template knows no tools. Refuses, by the field, what is malformed, what is no function, and a schema that cannot be
// enforced of a tool that must be called or is strict; of another its arguments are any object.
#pragma once
#include "apierror.h"
#include "toolform.h"

#include <jansson.h>

typedef struct {
    char **names;  // stb_ds array; NULL: the request has no tools
    bool forced;   // the answer is a call
    bool single;   // and at most one
    json_t *list;  // as the request has it
    char *schema;  // malloc'd: of calls, without the form's mark; NULL: no tool may be called
    char **begins; // stb_ds array, ends with NULL: how a call begins, for a form without a mark
} ToolSet;

// form NULL: why says why there can be no tools. Returns 0, or -1 with *error filled. toolset_free also then.
int toolset_read(ToolSet *t, const ToolForm *form, const char *why, const json_t *body, ApiError *error);
void toolset_free(ToolSet *t);

char *toolset_told(const ToolSet *t, const ToolForm *form); // for the first message; free() it
