// options: the command line of ./run: its flags as one table, and what they leave behind.
//
// Owns the flags of ./run and their defaults, and where the prompt comes from. Refuses contradictions with exit status
// 2. Accepts the flags of llama.cpp that change nothing here, with one note.
#pragma once
#include "tessera.h"

#include <jansson.h>

typedef enum { FORMAT_TEXT, FORMAT_JSON, FORMAT_JSONL } Format;

typedef struct {
    char *text; // in the prompt
    size_t n;
} Line;

typedef struct {
    const char *model, *tokenizer, *system, *chat_template;
    const char *draft; // the model that guesses; NULL: none
    const char *saved; // session file; NULL: none
    char *prompt;      // [n_prompt], terminated; NULL: none
    size_t n_prompt;
    Line *lines;                // stb_ds array: with FORMAT_JSONL, the prompts
    int parallel;               // of them at a time
    json_t *template_variables; // NULL: none
    const char **stops;         // stb_ds array
    LogitBias *bias;            // stb_ds array
    int n_new;                  // -1: no limit but the context
    int format;                 // Format
    int reasoning_budget;
    bool lookup; // guess from the earlier text
    bool quiet, chat, single_turn, template_is_text, ignore_eos, special, hide_prompt;
    bool constrained; // the text is JSON
    char *schema;     // of that JSON; NULL: any object
    SessionOptions session;
    SamplerOptions sampler; // negative: not given
    char sampling[256];     // what its values are, and whence
} Options;

Options options_parse(int argc, char **argv);
// Adds what needs the vocabulary: --ignore-eos.
void options_bind(Options *o, const Engine *e);
void options_free(Options *o);
