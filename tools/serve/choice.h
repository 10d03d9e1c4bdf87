// choice: one text being generated: its tokens, its session, and what is made of them.
//
// Owns sampling, stop strings, thoughts, log probabilities and the reasons to end. Gives out Outputs; knows neither
// HTTP nor the order of work. Belongs to the worker's thread.
#pragma once
#include "callreader.h"
#include "job.h"
#include "scheduler.h"
#include "stops.h"

typedef struct Choice {
    Task task; // first; n_tokens is the length of `tokens`
    Job *job;
    const Served *model;
    int index;       // of the job's choices
    int32_t *tokens; // stb_ds array: the prompt, then what was picked
    int n_prompt, n_cached, n_new;
    int n_limit;           // most new tokens
    struct Choice *leader; // of the same prompt, which it waits for to fork its session; NULL: none
    Session *session;      // NULL: it waits
    Sampler *sampler;
    Answer *answer;         // of a chat; else NULL
    TextOut *out;           // of a completion; else NULL
    Constraint *constraint; // of the request; NULL: free text
    CallReader *calls;      // NULL: the request has no tools
    int n_led;              // tokens of the request's lead that stand in the answer
    bool thinks;            // its next token is of the thinking before the answer, which nothing constrains
    Pool *pool;             // of an embedding; else NULL
    Stops stops;
    size_t n_text;          // bytes pushed into `stops`
    size_t n_given;         // bytes given out
    LogprobEntry *logprobs; // stb_ds array: of tokens whose text is not given out yet
    double last;            // when the last token was picked; 0: none yet
} Choice;

// The choice `index` of a job. NULL with *error filled.
Choice *choice_open(Job *job, const Served *model, int index, ApiError *error);
void choice_close(Choice *c); // accepts NULL

// After the logits of the last token are there: picks the next. Returns what happened, to be sent; NULL: nothing to
// say yet (the text is held back). *ended: the choice is complete.
Output *choice_pick(Choice *c, const float *logits, bool *ended);
// After all of its text is computed: the vector, to be sent.
Output *choice_embed(Choice *c);
// Ends it for another reason than its text: an error, or (error NULL) no room to go on.
Output *choice_end(Choice *c, const ApiError *error);
