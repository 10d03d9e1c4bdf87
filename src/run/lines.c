// lines: see lines.h. libedit's editor with our own read function, which a signal can interrupt.
#include "lines.h"

#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

struct Lines {
    volatile sig_atomic_t *interrupted;
    EditLine *editor; // NULL: stdin is no terminal
    History *history;
    const char *prompt;
    char *text;
    size_t room;
};

static char *show_prompt(EditLine *e) {
    Lines *l = NULL;
    el_get(e, EL_CLIENTDATA, &l);
    return (char *)(uintptr_t)l->prompt;
}

// Waits for input. False: interrupted, even if just before the wait. Other signals (e.g. SIGWINCH) do not end the wait.
static bool await_input(const Lines *l) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    sigset_t interrupt, before;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, &before);
    while (!*l->interrupted && ppoll(&input, 1, NULL, &before) < 0 && errno == EINTR) {}
    sigprocmask(SIG_SETMASK, &before, NULL);
    return !*l->interrupted;
}

// One character from the terminal.
static int read_character(EditLine *e, wchar_t *out) {
    Lines *l = NULL;
    mbstate_t state = {0};
    el_get(e, EL_CLIENTDATA, &l);
    while (await_input(l)) {
        char byte;
        ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n <= 0) return (int)n;
        size_t used = mbrtowc(out, &byte, 1, &state);
        if (used == (size_t)-1) {
            state = (mbstate_t){0};
            *out = 0xFFFD;
        }
        if (used != (size_t)-2) return 1;
    }
    return -1;
}

static bool open_editor(Lines *l) {
    HistEvent event;
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
    l->editor = el_init("run", stdin, stderr, stderr);
    l->history = history_init();
    if (!l->editor || !l->history) return false;
    history(l->history, &event, H_SETSIZE, 1000);
    el_set(l->editor, EL_CLIENTDATA, l);
    el_set(l->editor, EL_PROMPT, show_prompt);
    el_set(l->editor, EL_GETCFN, read_character);
    el_set(l->editor, EL_HIST, history, l->history);
    el_set(l->editor, EL_EDITOR, "emacs");
    return true;
}

Lines *lines_open(volatile sig_atomic_t *interrupted) {
    Lines *l = calloc(1, sizeof *l);
    if (!l) return NULL;
    l->interrupted = interrupted;
    if (!isatty(STDIN_FILENO) || open_editor(l)) return l;
    lines_close(l);
    return NULL;
}

void lines_close(Lines *l) {
    if (!l) return;
    if (l->editor) el_end(l->editor);
    if (l->history) history_end(l->history);
    free(l->text);
    free(l);
}

bool lines_edited(const Lines *l) {
    return l->editor;
}

static LinesEvent read_edited(Lines *l, const char *prompt) {
    int n = 0;
    HistEvent event;
    l->prompt = prompt;
    el_resize(l->editor);
    el_set(l->editor, EL_PREP_TERM, 1); // before the prompt is shown; el_gets would do it only afterwards
    const char *line = el_gets(l->editor, &n);
    if (*l->interrupted) {
        const LineInfo *typed = el_line(l->editor);
        bool empty = typed->lastchar == typed->buffer;
        *l->interrupted = 0;
        el_reset(l->editor);
        fputc('\n', stderr);
        return empty ? LINES_IDLE : LINES_CLEARED;
    }
    if (!line || n <= 0) return LINES_END;
    if (line[0] != '\n') history(l->history, &event, H_ENTER, line);
    free(l->text);
    l->text = strdup(line);
    return l->text ? LINES_TEXT : LINES_END;
}

static LinesEvent read_plain(Lines *l) {
    if (!*l->interrupted && getline(&l->text, &l->room, stdin) >= 0) return LINES_TEXT;
    if (!*l->interrupted) return LINES_END;
    *l->interrupted = 0;
    clearerr(stdin);
    return LINES_IDLE;
}

LinesEvent lines_read(Lines *l, const char *prompt, char **line) {
    LinesEvent event = l->editor ? read_edited(l, prompt) : read_plain(l);
    if (event == LINES_TEXT) l->text[strcspn(l->text, "\n")] = 0;
    *line = l->text;
    return event;
}
