// model: what every reader of a container produces: numbers, tensors, and how the tensors are named.
#pragma once
#include "families.h"
#include "notes.h"
#include "weights.h"

// How the files say that tokens are to be picked. Negative: not said.
typedef struct {
    float temperature;
    int top_k;
    float top_p, min_p;
    float repeat_penalty; // 1: off
    int penalty_last_n;   // tokens that it looks back, -1: all, 0: not said
    const char *source;   // where it is said; NULL: nowhere
} Sampling;

typedef struct {
    Config config;
    Weights weights;      // owns the mapped model files
    char kind[32];        // of the container, "llama2.c v2", for people
    const Family *family; // NULL: a llama2.c file
    char prefix[40];      // of a Hugging Face folder's tensor names, "model."
    bool text_only;       // tensors outside this prefix are of pictures, and left out
    Sampling sampling;    //
    Notes notes;          // what its reader has to say
    bool hf_names;        // tensors have Hugging Face's names; else GGUF's
} Model;
