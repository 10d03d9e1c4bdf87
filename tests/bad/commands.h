// commands.h: command lines that a program must refuse, with one line on stderr and nothing on stdout.
//
//   [2 run %f32.bin]       exit status, program, and what every line begins with; %NAME: a file in the folder of
//   -n ten ~ -t 0 | @      files.h, % the folder, 'a b' one word. @: the last flag of the line
#pragma once
#include "../child.h"
#include "bad.h"

// The next word of a line, in place; NULL behind the last.
static const char *command_word(char **line) {
    char *at = *line + strspn(*line, " "), end = *at == '"' ? '"' : ' ';
    if (!*at) return NULL;
    if (end == '"') at++;
    *line = at + strcspn(at, (char[]){end, 0});
    if (**line) *(*line)++ = 0;
    if (*at != '%') return at;
    return at[1] ? in_folder(at + 1) : folder;
}

static void try_command(const Bad *b) {
    char line[1024], *rest = line;
    const char *args[MAX_ARGS + 1] = {NULL};
    Bad row = *b;
    int n = 0, status = atoi(b->base);
    snprintf(line, sizeof line, "%s %s", strchr(b->base, ' '), b->change);
    while (n < MAX_ARGS && (args[n] = command_word(&rest))) n++;
    for (int i = 0; i < n; i++) {
        if (args[i][0] == '-' && !strchr("0123456789", args[i][1]))
            snprintf(row.place, sizeof row.place, "%s", args[i]);
    }
    Result r = call(NULL, args);
    CHECK(holds_parts(r.err, "error", &row), "%s: expected '%s' (@ is %s) in: %s", b->what, b->want, row.place, r.err);
    refuses(status, "", b->what, r);
}

UNUSED static void refuse_commands(const char *table) {
    each_bad(table, try_command);
}
