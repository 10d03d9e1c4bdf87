// reply: what came out of a request, in the JSON of OpenAI's API.
//
// Owns the shapes of whole replies, of chunks of a stream and of errors. Called by routes.c.
#pragma once
#include "job.h"

// What of one choice has come so far.
typedef struct {
    char *text, *thought; // stb_ds arrays, not terminated
    json_t *logprobs;     // as they stand in the reply; NULL: none
    json_t *calls;        // of tools, as they stand in the reply; NULL: none
    float *vector;        // of an embedding; NULL: none
    const char *finish;   // NULL: it is not complete
    int n_prompt, n_cached, n_new;
} Collected;

typedef struct {
    const Request *request;
    const Served *model;
    char id[40];
    long long created;  // seconds since 1970
    Collected *choices; // [n_choices]
    int n_choices;
} Reply;

Reply *reply_open(const Request *r, const Served *m); // never NULL: without memory the program ends
void reply_close(Reply *r);                           // accepts NULL

void reply_add(Reply *r, Output *e); // an event without an error; takes its vector

// JSON in one line; free() it.
char *reply_first_chunk(const Reply *r, int choice);     // of a chat: the role
char *reply_chunk(const Reply *r, const Output *e);      // NULL: the event has no text
char *reply_last_chunk(const Reply *r, const Output *e); // NULL: the choice is not complete
char *reply_usage_chunk(const Reply *r);
char *reply_whole(const Reply *r);
char *reply_error(const ApiError *e);
