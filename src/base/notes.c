// notes: see notes.h.
#include "notes.h"

#include "file.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void add_line(Notes *n, const char *line, size_t length) {
    size_t used = strlen(n->text);
    char whole[NOTES_ROOM];
    snprintf(whole, sizeof whole, "%.*s\n", (int)length, line);
    if (strstr(n->text, whole) || used + strlen(whole) >= sizeof n->text) return;
    memcpy(n->text + used, whole, strlen(whole) + 1);
}

void note(Notes *n, const char *fmt, ...) {
    char text[400], line[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fail(line, sizeof line, "%s", text); // names from files must not break the line
    add_line(n, line, strlen(line));
}

void notes_append(Notes *n, const Notes *more) {
    const char *line = more->text;
    for (const char *end; (end = strchr(line, '\n')); line = end + 1) add_line(n, line, (size_t)(end - line));
}
