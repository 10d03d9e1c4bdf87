// dialogue: see dialogue.h.
#include "dialogue.h"

#include "cli.h"
#include "lines.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <stb/stb_ds.h>

static const char commands[] =
    "  /reset      start a new conversation\n"
    "  /save FILE  write the conversation to a file\n"
    "  /quit       exit (also Ctrl-D, or Ctrl-C twice)\n"
    "  Ctrl-C stops an answer. A line that ends in \\ continues on the next line; put a space\n"
    "  before a / that does not start a command.\n";

typedef struct {
    const Engine *engine;
    Session *session;
    Sampler *sampler;
    const DialogueOptions *options;
    volatile sig_atomic_t *interrupted;
    Chat *chat;
    Lines *lines;
    ChatMessage *messages; // stb_ds array; text and ids are malloc'd
    int32_t *ids;          // [n_ids] tokens of the session
    int n_ids;
    bool failed, dim; // an error was reported; the terminal shows dimmed text
} Dialogue;

static void add_message(Dialogue *d, ChatRole role, const char *text, size_t n) {
    char *copy = malloc(n + 1);
    if (!copy) die(1, "out of memory for a message of %zu bytes", n);
    memcpy(copy, text, n);
    copy[n] = 0;
    ChatMessage m = {.role = role, .text = copy, .n = n};
    arrput(d->messages, m);
}

static void drop_message(Dialogue *d) {
    ChatMessage m = arrpop(d->messages);
    free((char *)(uintptr_t)m.text);
    free((int32_t *)(uintptr_t)m.ids);
}

static void reset(Dialogue *d) {
    while (arrlen(d->messages)) drop_message(d);
    const char *system = d->options->system;
    if (system) add_message(d, CHAT_SYSTEM, system, strlen(system));
}

static void save(const Dialogue *d, const char *path) {
    static const char *const names[] = {[CHAT_SYSTEM] = "System", [CHAT_USER] = "User", [CHAT_ASSISTANT] = "Assistant"};
    FILE *f = *path ? fopen(path, "w") : NULL;
    if (!*path) fprintf(stderr, "/save: expected /save FILE\n");
    else if (!f) fprintf(stderr, "%s: %s\n", path, strerror(errno));
    if (!f) return;
    int n = (int)arrlen(d->messages);
    for (int i = 0; i < n; i++) fprintf(f, "%s: %s\n\n", names[d->messages[i].role], d->messages[i].text);
    bool written = !ferror(f);
    if (fclose(f) || !written) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return;
    }
    char *where = realpath(path, NULL);
    fprintf(stderr, "saved %d messages to %s\n", n, where ? where : path);
    free(where);
}

// Thinking is shown on a terminal only, dimmed.
static void show(Dialogue *d, const char *text, bool thought) {
    bool terminal = isatty(STDOUT_FILENO);
    if (thought && !terminal) return;
    if (thought != d->dim) fputs(thought ? "\033[2m" : "\033[0m\n", stdout);
    d->dim = thought;
    fputs(text, stdout);
    fflush(stdout);
}

static void append(char **to, const char *text) {
    size_t n = strlen(text);
    if (n) memcpy(arraddnptr(*to, n), text, n);
}

// Syncs the session to ids[0..n), of which it has the first n_cached, in chunks, so that Ctrl-C takes effect within a
// long prompt. -1 on an error (with a line in err) or an interrupt.
static int prefill(Dialogue *d, const int32_t *ids, int n_cached, int n, char *err, size_t errlen) {
    enum { CHUNK = 512 };
    int at = n_cached;
    do {
        at = n - at > CHUNK ? at + CHUNK : n;
        if (session_sync(d->session, ids, at, err, errlen)) return -1;
    } while (at < n && !*d->interrupted);
    return at < n ? -1 : 0;
}

typedef struct {
    double prompt, generate; // seconds
    int n_cached, n_prompt, n_new;
} AnswerStats;

static void print_stats(const AnswerStats *st) {
    int n = st->n_prompt - st->n_cached;
    fprintf(stderr, "[prompt %d cached + %d new, %.1f tok/s | generated %d, %.1f tok/s]\n", st->n_cached, n,
            n / st->prompt, st->n_new, st->n_new > 1 ? (st->n_new - 1) / st->generate : 0);
}

// Why an answer is incomplete.
static void print_stop_reason(const Dialogue *d, const char *err, bool full) {
    int n_ctx = session_info(d->session).n_ctx;
    if (*err) fprintf(stderr, "error: %s\n", err);
    else if (full)
        fprintf(stderr,
                "[the context of %d tokens is full: /reset starts a new conversation, a larger -c holds more]\n",
                n_ctx);
    else if (*d->interrupted) fprintf(stderr, "[stopped]\n");
    else fprintf(stderr, "[stopped after -n %d tokens]\n", d->options->n_new);
}

// Samples and shows tokens until the answer ends or is stopped, and appends it as a message. d->ids has room for the
// whole context.
static void generate(Dialogue *d, AnswerStats *st) {
    char err[512] = "", *text = NULL;
    int n_ctx = session_info(d->session).n_ctx, n_prompt = d->n_ids;
    int most = d->options->n_new > 0 ? d->options->n_new : n_ctx + 1;
    bool ended = false, full = false;
    Answer *answer = answer_open(d->chat);
    if (!answer) die(1, "out of memory");
    while (!ended && !full && !*err && st->n_new < most && !*d->interrupted) {
        int32_t id = sampler_pick(d->sampler, session_logits(d->session));
        AnswerPart part = answer_push(answer, id);
        show(d, part.text, part.thought);
        if (!part.thought) append(&text, part.text);
        st->n_new++;
        ended = part.end;
        full = !ended && d->n_ids == n_ctx;
        if (ended || full) break;
        d->ids[d->n_ids++] = id;
        d->failed = session_sync(d->session, d->ids, d->n_ids, err, sizeof err);
    }
    if (!ended) {
        const char *rest = answer_finish(answer);
        show(d, rest, false);
        append(&text, rest);
    }
    show(d, "\n", false);
    if (!ended) print_stop_reason(d, err, full);
    add_message(d, CHAT_ASSISTANT, text ? text : "", arrlenu(text));
    ChatMessage *m = &arrlast(d->messages);
    size_t bytes = sizeof *d->ids * (size_t)(d->n_ids - n_prompt);
    int32_t *ids = answer_is_verbatim(answer) ? malloc(bytes + 1) : NULL;
    if (ids) {
        m->ids = memcpy(ids, d->ids + n_prompt, bytes);
        m->n_ids = d->n_ids - n_prompt;
    }
    arrfree(text);
    answer_close(answer);
}

// A user message and its answer. The message is dropped if it does not fit the context or is interrupted in prefill.
static void turn(Dialogue *d, const char *text) {
    char err[512] = "";
    int32_t *ids;
    int n_ctx = session_info(d->session).n_ctx;
    AnswerStats st = {0};
    add_message(d, CHAT_USER, text, strlen(text));
    int n = chat_encode(d->chat, d->messages, (int)arrlen(d->messages), true, &ids, err, sizeof err);
    if (n < 0) die(1, "%s", err);
    if (n >= n_ctx) {
        fprintf(stderr,
                "[the prompt has %d tokens, the context has %d: /reset starts a new conversation, a larger -c "
                "holds more]\n",
                n, n_ctx);
        free(ids);
        drop_message(d);
        return;
    }
    while (st.n_cached < n && st.n_cached < d->n_ids && ids[st.n_cached] == d->ids[st.n_cached]) st.n_cached++;
    st.n_prompt = n;
    double start = seconds();
    *d->interrupted = 0;
    if (prefill(d, ids, st.n_cached, n, err, sizeof err)) {
        print_stop_reason(d, err, false);
        d->failed |= *err;
        d->n_ids = st.n_cached;
        free(ids);
        drop_message(d);
        return;
    }
    st.prompt = seconds() - start;
    free(d->ids);
    d->ids = realloc(ids, sizeof *ids * ((size_t)n_ctx + 1));
    if (!d->ids) die(1, "out of memory for %d tokens; a smaller -c needs less", n_ctx);
    d->n_ids = n;
    start = seconds();
    generate(d, &st);
    st.generate = seconds() - start;
    *d->interrupted = 0;
    if (!d->options->quiet) print_stats(&st);
    if (ferror(stdout)) die(1, "stdout: the text could not be written");
}

// True if the line ends the conversation.
static bool command(Dialogue *d, const char *line) {
    size_t n = strcspn(line, " ");
    const char *rest = line + n + strspn(line + n, " ");
    if (!strcmp(line, "/quit")) return true;
    if (!strcmp(line, "/help")) fputs(commands, stderr);
    else if (!strcmp(line, "/reset")) {
        reset(d);
        fprintf(stderr, "[new conversation]\n");
    } else if (n == 5 && !strncmp(line, "/save", n)) save(d, rest);
    else fprintf(stderr, "%.*s: no such command; /help lists them\n", (int)n, line);
    return false;
}

// Reads the lines of one user message into a stb_ds string; false at the end of the conversation.
static bool read_message(Dialogue *d, char **text) {
    bool idle = false, complete = false;
    arrsetlen(*text, 0);
    while (!complete) {
        char *line;
        LinesEvent event = lines_read(d->lines, arrlen(*text) ? "... " : "> ", &line);
        if (event == LINES_END || (event == LINES_IDLE && idle)) return false;
        idle = event == LINES_IDLE;
        if (idle) fprintf(stderr, "(Ctrl-C again, Ctrl-D or /quit to exit)\n");
        if (event != LINES_TEXT) {
            arrsetlen(*text, 0);
            continue;
        }
        size_t n = strlen(line);
        complete = !n || line[n - 1] != '\\';
        if (!complete) line[n - 1] = '\n';
        append(text, line);
    }
    arrput(*text, 0);
    return true;
}

static void print_template(const Dialogue *d) {
    ChatInfo info = chat_info(d->chat);
    if (!info.known) {
        fprintf(stderr, "note: the model has %s; using plain text, \"User: ...\" and \"Assistant: ...\"\n",
                info.has_template ? "an unknown chat template" : "no chat template");
    } else if (!d->options->quiet) fprintf(stderr, "[%s; /help lists the commands]\n", info.family);
}

int dialogue_run(const Engine *e, Session *s, Sampler *sampler, const DialogueOptions *o,
                 volatile sig_atomic_t *interrupted) {
    char err[512], *text = NULL;
    Dialogue d = {.engine = e, .session = s, .sampler = sampler, .options = o, .interrupted = interrupted};
    if (!(d.chat = engine_chat(e, err, sizeof err))) die(1, "%s", err);
    if (!(d.lines = lines_open(interrupted))) die(1, "out of memory");
    reset(&d);
    print_template(&d);
    if (o->first) turn(&d, o->first);
    while (read_message(&d, &text)) {
        if (text[0] == '/') {
            if (command(&d, text)) break;
        } else if (text[strspn(text, " \t\n")]) turn(&d, text);
    }
    if (lines_edited(d.lines)) fputc('\n', stderr);
    while (arrlen(d.messages)) drop_message(&d);
    arrfree(d.messages);
    arrfree(text);
    free(d.ids);
    lines_close(d.lines);
    chat_close(d.chat);
    return d.failed;
}
