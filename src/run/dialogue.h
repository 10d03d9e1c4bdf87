// dialogue: the interactive chat of ./run --chat: input lines are user messages, answers go to stdout, everything else
// to stderr.
//
// Owns the messages so far: their text, and the token ids of generated answers. Linked into ./run alone.
#pragma once
#include "tessera.h"

#include <jansson.h>
#include <signal.h>

typedef struct {
    const char *system;        // NULL: the template's own, if it has one
    const char *chat_template; // a file; NULL: the model's own
    bool template_is_text;     // it is the template itself
    json_t *variables;         // of the template: a JSON object; NULL: none
    const char *first;         // first user message; NULL: read from stdin
    const char *const *stops;  // stb_ds array of strings that end an answer; NULL: none
    Drafter *drafter;          // NULL: none
    int n_new;                 // maximum tokens of an answer; -1: as many as the context holds
    bool quiet, no_thinking;
    bool single_turn; // end after the first answer
} DialogueOptions;

// Runs until end of input, /quit, or Ctrl-C twice. interrupted: set by the SIGINT handler, which must not restart
// reads. Returns the exit status.
int dialogue_run(const Engine *e, Session *s, Sampler *sampler, const DialogueOptions *o,
                 volatile sig_atomic_t *interrupted);
