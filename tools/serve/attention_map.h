// attention_map: how much each token of a text attended to itself and to those before it, by layer and head.
//
// Owns a pass over the text of its own, a few tokens at a time so that other texts go on in between, and the JSON of
// the weights. Refuses texts of more than MOST_MAPPED_TOKENS, layers without softmax attention, and more than
// MOST_MAPPED_WEIGHTS at once. Opened by the event thread, computed by the engine's.
#pragma once
#include "request.h"

enum {
    MOST_MAPPED_TOKENS = 256,      // the oldest keys are still there, whatever the window
    MOST_MAPPED_WEIGHTS = 1 << 22, // of all layers and heads; one layer is always within it
};

typedef struct AttentionMap AttentionMap;

// Of the only prompt of r, which must outlive the map. layers: a list of numbers, counted from 1; NULL: the first layer
// that has attention. NULL with *error filled.
AttentionMap *attention_map_open(const Served *m, const SessionOptions *session, const Request *r, const json_t *layers,
                                 ApiError *error);
void attention_map_close(AttentionMap *a); // accepts NULL

// Computes the next tokens; false: there are none left, or it failed.
bool attention_map_step(AttentionMap *a);

// After the last step, {"tokens": [..], "attention_layers": [..], "layers": [{"layer": 1, "weights": [head][token][key]
// }]}: weights have four decimals, and a token as many keys as there are tokens up to it. free() it. NULL with *error
// filled: a step failed.
char *attention_map_json(const AttentionMap *a, ApiError *error);
