// request: a body of the OpenAI API, in JSON, to what is to be generated.
//
// Owns the fields that are known, their ranges and defaults, and the messages of what is wrong with them. Refuses with
// status 400, naming the field, what is malformed, what is out of range, and what is known but not built here; fields
// that are not known are ignored, as clients expect. Called by routes.c; tests/fuzz/fuzz_request.c calls it with
// anything.
#pragma once
#include "tessera.h"

#include <jansson.h>

// What goes wrong, as OpenAI's clients read it.
typedef struct {
    int status;        // of HTTP
    const char *type;  // "invalid_request_error"
    const char *code;  // NULL: none
    const char *param; // NULL: none
    char message[512];
} ApiError;

// Fills *e and returns -1.
int api_fail(ApiError *e, int status, const char *param, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

// What requests are read against; immutable.
typedef struct {
    const Engine *engine;
    const Chat *chat; // the model's own, without tools
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
    bool chat; // chat/completions, else completions
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
    Chat *own_chat;           // with the request's tools and variables; NULL: the model's
} Request;

// 0, or -1 with *error filled. request_free also after a failure.
int request_chat(Request *r, const Served *m, const char *body, size_t n, ApiError *error);
int request_completion(Request *r, const Served *m, const char *body, size_t n, ApiError *error);
void request_free(Request *r);

SamplerOptions sampling_defaults(const Served *m); // of a request that says nothing

// The body as a JSON object, or NULL with *error filled.
json_t *body_object(const char *body, size_t n, ApiError *error);
