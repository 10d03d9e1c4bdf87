// lines: reads input lines: with line editing and history if stdin is a terminal, plainly if not.
//
// Owns the terminal while a line is edited, and the history file that it keeps across runs. Pasted text is one line,
// with its own newlines in it. Refuses nothing. Called by dialogue; linked into ./run alone.
#pragma once
#include <signal.h>
#include <stdbool.h>

typedef struct Lines Lines;

typedef enum {
    LINES_TEXT,
    LINES_CLEARED, // Ctrl-C; the line had text, now discarded
    LINES_IDLE,    // Ctrl-C on an empty line
    LINES_END,     // Ctrl-D, or end of input
} LinesEvent;

// interrupted: set by the program's handler of SIGINT, reset here. NULL: out of memory.
Lines *lines_open(volatile sig_atomic_t *interrupted);
void lines_close(Lines *l);        // accepts NULL
bool lines_edited(const Lines *l); // stdin is a terminal: prompts are shown

// *line: without the newline at its end, valid until the next call.
LinesEvent lines_read(Lines *l, const char *prompt, char **line);
