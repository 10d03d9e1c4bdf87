// lines: lines that people type, one at a time: edited and remembered where stdin is a terminal, plainly read where it
// is not.
//
// Owns the terminal while a line is typed. Linked into ./run alone.
#pragma once
#include <signal.h>
#include <stdbool.h>

typedef struct Lines Lines;

typedef enum {
    LINES_TEXT,
    LINES_CLEARED, // Ctrl-C; there was text on the line, which is gone
    LINES_IDLE,    // Ctrl-C on an empty line
    LINES_END,     // Ctrl-D, the end of the input
} LinesEvent;

// interrupted: set by the program's handler of SIGINT, reset here. NULL: out of memory.
Lines *lines_open(volatile sig_atomic_t *interrupted);
void lines_close(Lines *l);        // accepts NULL
bool lines_edited(const Lines *l); // stdin is a terminal: prompts are shown

// *line: without its newline, valid until the next call.
LinesEvent lines_read(Lines *l, const char *prompt, char **line);
