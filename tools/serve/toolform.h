// toolform: how a model writes calls of tools.
//
// Owns what an example of a call shows of the chat template: what stands before and behind the JSON of a call, whether
// calls stand in a list, and how its keys are called. Covers templates whose calls are JSON objects with a name and
// arguments (Hermes and Qwen: <tool_call>; Mistral: a list behind [TOOL_CALLS]; Llama 3.1: "parameters", bare). A
// template that takes no tools gets a form of the server's own. Refuses templates that write calls otherwise.
#pragma once
#include "tessera.h"

typedef struct {
    bool own;           // the template knows no tools: the server tells the model of them in the first message
    bool list;          // the calls are a JSON list
    char *mark;         // stands before a call, or before the list; "": nothing
    char *lead;         // the mark, and what stands between it and the JSON
    char *close;        // behind a call; "": nothing
    char arguments[16]; // the key of the arguments
} ToolForm;

// Of this chat's template, whose variable `tools` it sets. -1 with a line in err: its calls cannot be read.
int toolform_learn(ToolForm *f, Chat *chat, char *err, size_t errlen);
void toolform_free(ToolForm *f); // accepts a zeroed one
