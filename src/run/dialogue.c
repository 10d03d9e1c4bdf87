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
    "  /reset      begin again; what was said is forgotten\n"
    "  /save FILE  write what was said to a file\n"
    "  /quit       end (also Ctrl-D, and Ctrl-C twice)\n"
    "  Ctrl-C stops an answer. A line that ends in \\ goes on in the next one; a space before\n"
    "  a / makes it text.\n";

typedef struct {
    const Engine *engine;
    Session *session;
    Sampler *sampler;
    const DialogueOptions *options;
    volatile sig_atomic_t *interrupted;
    Chat *chat;
    Lines *lines;
    ChatMessage *messages; // stb_ds array; text and ids are malloc'd
    int32_t *ids;          // the text of the session, n_ids
    int n_ids;
    bool failed, dim;
} Dialogue;

// ---- messages

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

// ---- an answer

// Thinking is shown dimmed on a terminal, and nowhere else.
static void show(Dialogue *d, const char *text, bool thought) {
    bool terminal = isatty(STDOUT_FILENO);
    if (thought && !terminal) return;
    if (thought != d->dim) fputs(thought ? "\033[2m" : "\033[0m\n", stdout);
    d->dim = thought;
    fputs(text, stdout);
    fflush(stdout);
}

static void keep(char **said, const char *text) {
    size_t n = strlen(text);
    if (n) memcpy(arraddnptr(*said, n), text, n);
}

// The ids of the session, of which n_kept are there, become ids[0..n): in stretches, so that Ctrl-C need not wait for a
// long text. -1 when that failed (then err says why) or was interrupted.
static int prefill(Dialogue *d, const int32_t *ids, int n_kept, int n, char *err, size_t errlen) {
    enum { STRETCH = 512 };
    int at = n_kept;
    do {
        at = n - at > STRETCH ? at + STRETCH : n;
        if (session_sync(d->session, ids, at, err, errlen)) return -1;
    } while (at < n && !*d->interrupted);
    return at < n ? -1 : 0;
}

typedef struct {
    double prompt, generate; // seconds
    int n_kept, n_prompt, n_new;
} AnswerStats;

static void print_stats(const AnswerStats *st) {
    fprintf(stderr, "[%d + %d tokens read, %.1f tok/s | %d said, %.1f tok/s]\n", st->n_kept, st->n_prompt - st->n_kept,
            (st->n_prompt - st->n_kept) / st->prompt, st->n_new, st->n_new > 1 ? (st->n_new - 1) / st->generate : 0);
}

// Why an answer stopped that did not end.
static void print_cut(const Dialogue *d, const char *err, bool full) {
    int n_ctx = session_info(d->session).n_ctx;
    if (*err) fprintf(stderr, "error: %s\n", err);
    else if (full)
        fprintf(stderr, "[the context of %d tokens is full: /reset begins again, a larger -c holds more]\n", n_ctx);
    else if (*d->interrupted) fprintf(stderr, "[stopped]\n");
    else fprintf(stderr, "[stopped after -n %d tokens]\n", d->options->n_new);
}

// Sample and show until the answer ends or is cut. d->ids has room for all of the context. The answer becomes a
// message.
static void generate(Dialogue *d, AnswerStats *st) {
    char err[512] = "", *said = NULL;
    int n_ctx = session_info(d->session).n_ctx, n_prompt = d->n_ids;
    int most = d->options->n_new ? d->options->n_new : n_ctx + 1;
    bool ended = false, full = false;
    Answer *answer = answer_open(d->chat);
    if (!answer) die(1, "out of memory");
    while (!ended && !full && !*err && st->n_new < most && !*d->interrupted) {
        int32_t id = sampler_pick(d->sampler, session_logits(d->session));
        AnswerPart part = answer_push(answer, id);
        show(d, part.text, part.thought);
        if (!part.thought) keep(&said, part.text);
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
        keep(&said, rest);
    }
    show(d, "\n", false);
    if (!ended) print_cut(d, err, full);
    add_message(d, CHAT_ASSISTANT, said ? said : "", arrlenu(said));
    ChatMessage *m = &arrlast(d->messages);
    size_t bytes = sizeof *d->ids * (size_t)(d->n_ids - n_prompt);
    int32_t *ids = answer_is_verbatim(answer) ? malloc(bytes + 1) : NULL;
    if (ids) m->ids = memcpy(ids, d->ids + n_prompt, bytes), m->n_ids = d->n_ids - n_prompt;
    arrfree(said);
    answer_close(answer);
}

// A user's turn and its answer. One that does not fit the context is not kept, nor one stopped before the answer.
static void turn(Dialogue *d, const char *text) {
    char err[512] = "";
    int32_t *ids;
    int n_ctx = session_info(d->session).n_ctx;
    AnswerStats st = {0};
    add_message(d, CHAT_USER, text, strlen(text));
    int n = chat_encode(d->chat, d->messages, (int)arrlen(d->messages), true, &ids, err, sizeof err);
    if (n < 0) die(1, "%s", err);
    if (n >= n_ctx) {
        fprintf(stderr, "[with this, %d tokens; the context has %d: /reset begins again, a larger -c holds more]\n", n,
                n_ctx);
        free(ids);
        drop_message(d);
        return;
    }
    while (st.n_kept < n && st.n_kept < d->n_ids && ids[st.n_kept] == d->ids[st.n_kept]) st.n_kept++;
    st.n_prompt = n;
    double start = seconds();
    *d->interrupted = 0;
    if (prefill(d, ids, st.n_kept, n, err, sizeof err)) {
        print_cut(d, err, false);
        d->failed |= *err;
        d->n_ids = st.n_kept;
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

// ---- the loop

// True when the line ends the conversation.
static bool command(Dialogue *d, const char *line) {
    size_t n = strcspn(line, " ");
    const char *rest = line + n + strspn(line + n, " ");
    if (!strcmp(line, "/quit")) return true;
    if (!strcmp(line, "/help")) fputs(commands, stderr);
    else if (!strcmp(line, "/reset")) {
        reset(d);
        fprintf(stderr, "[begun again]\n");
    } else if (n == 5 && !strncmp(line, "/save", n)) save(d, rest);
    else fprintf(stderr, "%.*s: no such command; /help lists them\n", (int)n, line);
    return false;
}

// A turn's lines, joined, into a stb_ds string; false when the conversation is over.
static bool read_turn(Dialogue *d, char **text) {
    bool idle = false, whole = false;
    arrsetlen(*text, 0);
    while (!whole) {
        char *line;
        LinesEvent event = lines_read(d->lines, arrlen(*text) ? "... " : "> ", &line);
        if (event == LINES_END || (event == LINES_IDLE && idle)) return false;
        idle = event == LINES_IDLE;
        if (idle) fprintf(stderr, "(Ctrl-C again, Ctrl-D or /quit ends)\n");
        if (event != LINES_TEXT) {
            arrsetlen(*text, 0);
            continue;
        }
        size_t n = strlen(line);
        whole = !n || line[n - 1] != '\\';
        if (!whole) line[n - 1] = '\n';
        keep(text, line);
    }
    arrput(*text, 0);
    return true;
}

// What is known of the frame; said where it matters.
static void print_family(const Dialogue *d) {
    ChatInfo info = chat_info(d->chat);
    if (!info.known) {
        fprintf(stderr, "note: the model %s; the frame is plain text, \"User: ...\" and \"Assistant: ...\"\n",
                info.has_template ? "has a chat template of no known family" : "has no chat template");
    } else if (!d->options->quiet) fprintf(stderr, "[%s; /help lists the commands]\n", info.family);
}

int dialogue_run(const Engine *e, Session *s, Sampler *sampler, const DialogueOptions *o,
                 volatile sig_atomic_t *interrupted) {
    char err[512], *text = NULL;
    Dialogue d = {.engine = e, .session = s, .sampler = sampler, .options = o, .interrupted = interrupted};
    if (!(d.chat = engine_chat(e, err, sizeof err))) die(1, "%s", err);
    if (!(d.lines = lines_open(interrupted))) die(1, "out of memory");
    reset(&d);
    print_family(&d);
    if (o->first) turn(&d, o->first);
    while (read_turn(&d, &text)) {
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
