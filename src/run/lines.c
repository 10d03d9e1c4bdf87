// lines: see lines.h. libedit's editor with our own read function, which a signal can interrupt and which knows pasted
// text: terminals that are asked to (bracketed paste) put ESC [ 200 ~ before it and ESC [ 201 ~ behind.
#include "lines.h"

#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

enum { MAX_QUEUED = 16, HISTORY_LINES = 1000, QUOTE = 'V' & 31, ESCAPE = 27, ESCAPE_MS = 50 };

struct Lines {
    volatile sig_atomic_t *interrupted;
    EditLine *editor; // NULL: stdin is no terminal
    History *history;
    const char *prompt;
    char *text;
    size_t room;
    char history_path[4096];   // "": none
    bool marks, pasting;       // the terminal is asked to mark pasted text; such text comes
    wchar_t queue[MAX_QUEUED]; // read, and not yet given to the editor
    int n_queued;
    bool started; // a line was read
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

// One character from the terminal: 1, or what read returned.
static int read_terminal(const Lines *l, wchar_t *out) {
    mbstate_t state = {0};
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

static void enqueue(Lines *l, wchar_t c) {
    if (l->n_queued < MAX_QUEUED) l->queue[l->n_queued++] = c;
}

static wchar_t dequeue(Lines *l) {
    wchar_t c = l->queue[0];
    memmove(l->queue, l->queue + 1, sizeof *l->queue * (size_t)--l->n_queued);
    return c;
}

static bool more_input(void) {
    return poll(&(struct pollfd){.fd = STDIN_FILENO, .events = POLLIN}, 1, ESCAPE_MS) > 0;
}

// After ESC: true if the mark of pasted text follows, which it consumes; what else it read is queued, with the ESC.
static bool take_mark(Lines *l) {
    const wchar_t *mark = l->pasting ? L"[201~" : L"[200~";
    enqueue(l, ESCAPE);
    for (int i = 0; mark[i]; i++) {
        wchar_t c;
        if (!more_input() || read_terminal(l, &c) != 1) return false;
        enqueue(l, c);
        if (c != mark[i]) return false;
    }
    l->n_queued = 0;
    l->pasting = !l->pasting;
    return true;
}

// A pasted control character: an end of line or a tab goes into the text, with the editor's key for such; others would
// be commands, and are dropped.
static void enqueue_pasted(Lines *l, wchar_t c) {
    if (c == '\r') c = '\n';
    if (c < ' ' && c != '\n' && c != '\t') return;
    if (c < ' ') enqueue(l, QUOTE);
    enqueue(l, c);
}

// The editor's next character.
static int read_character(EditLine *e, wchar_t *out) {
    Lines *l = NULL;
    el_get(e, EL_CLIENTDATA, &l);
    while (!l->n_queued) {
        wchar_t c;
        int n = read_terminal(l, &c);
        if (n != 1) return n;
        bool pasted = l->pasting;
        if (c == ESCAPE && take_mark(l)) continue;
        if (c == ESCAPE && pasted) l->n_queued = 0; // ESC and what was looked at of it
        else if (c != ESCAPE && pasted) enqueue_pasted(l, c);
        else if (c != ESCAPE) enqueue(l, c);
    }
    *out = dequeue(l);
    return 1;
}

// Makes the folders of a path; false where one cannot be made.
static bool make_folders(char *path) {
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        bool made = !mkdir(path, 0700) || errno == EEXIST;
        *slash = '/';
        if (!made) return false;
    }
    return true;
}

// $XDG_STATE_HOME/tessera/history, or ~/.local/state/tessera/history.
static void open_history(Lines *l) {
    HistEvent event;
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    size_t size = sizeof l->history_path;
    int n = -1;
    if (state && *state == '/') n = snprintf(l->history_path, size, "%s/tessera/history", state);
    else if (home && *home == '/') n = snprintf(l->history_path, size, "%s/.local/state/tessera/history", home);
    if (n < 0 || (size_t)n >= size) l->history_path[0] = 0;
    else history(l->history, &event, H_LOAD, l->history_path);
}

static void save_history(Lines *l) {
    HistEvent event;
    if (!l->history_path[0] || history(l->history, &event, H_GETSIZE) < 0 || event.num == 0) return;
    if (make_folders(l->history_path)) history(l->history, &event, H_SAVE, l->history_path);
}

static bool open_editor(Lines *l) {
    HistEvent event;
    const char *terminal = getenv("TERM");
    l->marks = isatty(STDERR_FILENO) && terminal && strcmp(terminal, "dumb") != 0;
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
    l->editor = el_init("run", stdin, stderr, stderr);
    l->history = history_init();
    if (!l->editor || !l->history) return false;
    history(l->history, &event, H_SETSIZE, HISTORY_LINES);
    history(l->history, &event, H_SETUNIQUE, 1);
    el_set(l->editor, EL_CLIENTDATA, l);
    el_set(l->editor, EL_PROMPT, show_prompt);
    el_set(l->editor, EL_GETCFN, read_character);
    el_set(l->editor, EL_HIST, history, l->history);
    el_set(l->editor, EL_EDITOR, "emacs");
    el_set(l->editor, EL_BIND, "^V", "ed-quoted-insert", NULL); // QUOTE
    open_history(l);
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
    if (l->history) save_history(l);
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
    fputs("\033[?2004h", stderr);       // bracketed paste, while a line is edited
    const char *line = el_gets(l->editor, &n);
    if (l->marks) fputs("\033[?2004l", stderr);
    l->pasting = false;
    l->n_queued = 0;
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

// Without the CR before its newline, and the first line without a byte order mark.
static void clean_line(Lines *l, size_t n) {
    size_t bom = !l->started && n >= 3 && !memcmp(l->text, "\xEF\xBB\xBF", 3) ? 3 : 0;
    l->started = true;
    n -= bom;
    memmove(l->text, l->text + bom, n + 1);
    if (n >= 2 && l->text[n - 2] == '\r' && l->text[n - 1] == '\n') memcpy(l->text + n - 2, "\n", 2);
}

static LinesEvent read_plain(Lines *l) {
    ssize_t n = *l->interrupted ? -1 : getline(&l->text, &l->room, stdin);
    if (n >= 0) {
        clean_line(l, (size_t)n);
        return LINES_TEXT;
    }
    if (!*l->interrupted) return LINES_END;
    *l->interrupted = 0;
    clearerr(stdin);
    return LINES_IDLE;
}

LinesEvent lines_read(Lines *l, const char *prompt, char **line) {
    LinesEvent event = l->editor ? read_edited(l, prompt) : read_plain(l);
    size_t n = event == LINES_TEXT ? strlen(l->text) : 0;
    if (n && l->text[n - 1] == '\n') l->text[n - 1] = 0;
    *line = l->text;
    return event;
}
