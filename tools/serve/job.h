// job: a request on its way between the two threads.
//
// The event thread makes a Job and gives it to the worker (worker.h), which answers with Outputs; the last one, with
// `over`, gives the Job back. In between the event thread touches only the two flags.
#pragma once
#include "attention_map.h"
#include "callreader.h"
#include "mailbox.h"
#include "request.h"

#include <stdatomic.h>

typedef struct {
    Letter letter; // first
    Request request;
    AttentionMap *map;      // what is wanted of its prompt, which the worker closes; NULL: texts
    void *exchange;         // of the event thread; NULL: the client is gone
    double arrived;         // clock_seconds
    atomic_bool cancelled;  // nobody wants it any more
    atomic_bool blocked;    // the client reads more slowly than is generated
    int n_choices, n_ended; // of the worker: of all prompts
} Job;

typedef struct {
    int32_t id;
    float logprob; // natural
} TokenLogprob;

// A picked token and the most likely ones at its place.
typedef struct {
    TokenLogprob token;
    TokenLogprob *top; // stb_ds array, best first
    size_t at;         // bytes of the text before it
} LogprobEntry;

// What happened to one choice of a job.
typedef struct {
    Letter letter; // first
    Job *job;
    int choice;
    char *text, *thought;          // malloc'd, whole characters; NULL: none
    CallPart *calls;               // stb_ds array
    float *vector;                 // malloc'd, [dim]: of an embedding; NULL: none
    LogprobEntry *logprobs;        // stb_ds array, of tokens whose text is given out
    char *body;                    // malloc'd: the whole reply, of what is no text; NULL: the choices make it
    const char *finish;            // why the choice is complete: "stop", "length", "tool_calls"; NULL: it is not
    ApiError *error;               // malloc'd: why it failed; NULL: it did not
    int n_prompt, n_cached, n_new; // with finish: tokens
    bool over;                     // the last event of the job
} Output;

Output *output_new(Job *job, int choice);           // never NULL: without memory for it the program ends
void output_fail(Output *e, const ApiError *error); // copies it
void output_free(Output *e);
void logprobs_free(LogprobEntry *list); // accepts NULL

double clock_seconds(void); // monotonic
