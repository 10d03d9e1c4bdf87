// stops: holds back text that may be the beginning of a stop string, as the text arrives.
//
// Owns the held bytes. Refuses nothing: without stop strings text passes at once. Called by run and dialogue.
#pragma once
#include <stdbool.h>
#include <stddef.h>

typedef struct {
    const char *const *strings; // stb_ds array, none empty; NULL: no stop strings
    char *held;                 // stb_ds array
    char *out;                  // stb_ds array, terminated: the result of the last call
    bool found;                 // a stop string is there: what follows is dropped
} Stops;

// The text that is certain to stand before every stop string, maybe ""; valid until the next call.
const char *stops_push(Stops *s, const char *text);
const char *stops_finish(Stops *s); // what was held back, when the text ends
void stops_free(Stops *s);
