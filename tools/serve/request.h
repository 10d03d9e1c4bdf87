// request: a body of the OpenAI API, in JSON, to what is to be generated.
//
// Owns the fields that are known, their ranges and defaults, and the messages of what is wrong with them. Refuses with
// status 400, naming the field, what is malformed, what is out of range, and what is known but not built here; fields
// that are not known are ignored, as clients expect. Called by routes.c; tests/fuzz/fuzz_request.c calls it with
// anything.
#pragma once
#include "apierror.h"
#include "pooling.h"
#include "toolset.h"

// What requests are read against; immutable.
typedef struct {
    const Engine *engine;
    const char *chat_template; // instead of the model's own; NULL: that
    const Chat *chat;          // of the template, without tools
    const ToolForm *tools;     // NULL: calls of tools cannot be read
    const char *why_no_tools;  // then
    const char *model_name;
    int n_ctx;
    int most_choices;          // n, or n times the prompts
    SamplingDefaults sampling; // of the model
} Served;

typedef struct {
    int32_t *ids; // malloc'd, [n]
    int n;
} Prompt;

typedef struct {
    bool chat;     // chat/completions, else completions
    PoolKind pool; // of embeddings, which generate nothing
    bool base64;   // how they are written
    bool stream, include_usage;
    Prompt *prompts; // stb_ds array; each gets n_choices answers
    int n_choices;
    int max_tokens; // -1: until the end or the context is full
    bool logprobs;
    int top_logprobs;
    SamplerOptions sampling;  // of choice 0; choice i has seed + i
    LogitBias *bias;          // stb_ds array, that of sampling.bias
    char **stops;             // stb_ds array
    Constraint **constraints; // stb_ds array, one for each text; NULL: free text
    ToolSet tools;            // of a chat
    Prompt lead;              // what the answer begins with
    Chat *own_chat;           // with the request's tools and variables; NULL: the model's
} Request;

// 0, or -1 with *error filled. request_free also after a failure.
int request_chat(Request *r, const Served *m, const char *body, size_t n, ApiError *error);
int request_embeddings(Request *r, const Served *m, const char *body, size_t n, ApiError *error);
int request_completion(Request *r, const Served *m, const char *body, size_t n, ApiError *error);
void request_free(Request *r);

Chat *served_chat(const Served *m, char *err, size_t errlen); // the caller's; NULL with a line in err
SamplerOptions sampling_defaults(const Served *m);            // of a request that says nothing
