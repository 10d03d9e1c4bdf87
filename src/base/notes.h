// notes: what a reader says besides its result, one line each: a guess that it made, a part that it left out.
//
// Owns the text. Refuses nothing: a note that does not fit is cut. Programs print them; the library only collects.
#pragma once
#include <stddef.h>

enum { NOTES_ROOM = 1600 };

typedef struct {
    char text[NOTES_ROOM]; // lines, each with its '\n'
} Notes;

// Adds a line, unless the same one is there.
void note(Notes *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void notes_append(Notes *n, const Notes *more); // every line of `more`
