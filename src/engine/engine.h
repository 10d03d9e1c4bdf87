// engine: the implementation of tessera.h's Engine, for the files of this room.
#pragma once
#include "load.h"
#include "runner.h"
#include "tessera.h"
#include "tokenmask.h"

struct Engine {
    Model model;
    Decoder decoder;
    File tokenizer_file;
    Tokenizer *tokenizer;
    TokenOrder *order; // for constraints
    Runners *runners;
    EngineInfo info;
    Notes notes; // of the model and of its vocabulary
};
