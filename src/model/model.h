// model: what every reader of a container produces: numbers, tensors, and how the tensors are named.
#pragma once
#include "families.h"
#include "weights.h"

typedef struct {
    Config config;
    Weights weights;      // owns the mapped model files
    char kind[32];        // of the container, "llama2.c v2", for people
    const Family *family; // NULL: a llama2.c file
    char prefix[40];      // of a Hugging Face folder's tensor names, "model."
    bool hf_names;        // tensors have Hugging Face's names; else GGUF's
} Model;
