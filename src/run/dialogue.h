// dialogue: ./run --chat, a conversation by lines: what is typed is a user's turn, the model's answer goes to stdout,
// everything else to stderr.
//
// Owns the messages so far, as text and as the ids that answers were generated as. Linked into ./run alone.
#pragma once
#include "tessera.h"

#include <signal.h>

typedef struct {
    const char *system; // NULL: the template's own, if it has one
    const char *first;  // said before anything is typed, NULL: nothing
    int n_new;          // most tokens of an answer, 0: as many as the context holds
    bool quiet;
} DialogueOptions;

// Until the input ends, /quit, or Ctrl-C twice. interrupted: set by the handler of SIGINT, which must not restart
// reads. Returns the exit status.
int dialogue_run(const Engine *e, Session *s, Sampler *sampler, const DialogueOptions *o,
                 volatile sig_atomic_t *interrupted);
