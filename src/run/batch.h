// batch: many prompts through one model, several at a time (-o jsonl): each line of the prompt's file is a prompt.
//
// Owns the order: prompts begin in that of the lines, and results are printed in it, one JSON object a line; which
// texts are computed beside one another is seen in their last digits alone. A prompt that fails is a result that says
// why. How far it is goes to stderr. Called by run.
#pragma once
#include "options.h"

#include <signal.h>

// Returns the exit status: 1 where a prompt has failed.
int batch_run(const Engine *e, const Options *o, volatile sig_atomic_t *interrupted);
