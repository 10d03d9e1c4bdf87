// dialogue: see dialogue.h.
#include "dialogue.h"

#include "draws.h"

#include "bytes.h"
#include "cli.h"
#include "lines.h"
#include "progress.h"
#include "stops.h"
#include "transcript.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <stb/stb_ds.h>

static const char commands[] =
    "  /regen        answer the last message again\n"
    "  /undo         drop the last message and its answer\n"
    "  /reset        start a new conversation (also /clear)\n"
    "  /system TEXT  set the system message from here on; without TEXT: show it\n"
    "  /save FILE    write the conversation to a file; /save! FILE overwrites one\n"
    "  /load FILE    go on with a conversation that /save wrote\n"
    "  /stats        what the conversation takes\n"
    "  /quit         exit (also /exit, Ctrl-D, or Ctrl-C twice)\n"
    "  Ctrl-C stops an answer. A line that ends in \\ continues on the next line, and so does everything between\n"
    "  \"\"\" and \"\"\"; what is pasted is one message. Put a space before a / that does not start a command.\n";

typedef struct {
    double prompt, generate; // seconds
    int n_cached, n_prompt, n_new;
} AnswerStats;

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
    char *system;     // owned; NULL: the template's own, if it has one
    AnswerStats total;
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
    if (d->system) add_message(d, CHAT_SYSTEM, d->system, strlen(d->system));
}

static bool confirm(Dialogue *d, const char *path) {
    char question[600], *line;
    if (!lines_edited(d->lines)) {
        fprintf(stderr, "%s: exists, not saved; /save! %s overwrites it\n", path, path);
        return false;
    }
    snprintf(question, sizeof question, "%.500s exists; overwrite it? [y/N] ", path);
    return lines_read(d->lines, question, &line) == LINES_TEXT && (*line == 'y' || *line == 'Y');
}

static void save(Dialogue *d, const char *path, bool overwrite) {
    char err[512];
    int n = (int)arrlen(d->messages);
    if (!*path) {
        fprintf(stderr, "/save: expected /save FILE\n");
        return;
    }
    if (!overwrite && !access(path, F_OK) && !confirm(d, path)) return;
    if (transcript_save(path, d->messages, n, err, sizeof err)) {
        fprintf(stderr, "%s\n", err);
        return;
    }
    char *where = realpath(path, NULL);
    fprintf(stderr, "saved %d messages to %s\n", n, where ? where : path);
    free(where);
}

static char *copy_text(const char *text) {
    char *copy = strdup(text);
    if (!copy) die(1, "out of memory");
    return copy;
}

// Whether the template takes these messages and one more of the user. -1 with its line in err.
static int try_messages(const Dialogue *d, ChatMessage **messages, char *err, size_t errlen) {
    ChatMessage next = {.role = CHAT_USER, .text = "?", .n = 1};
    int32_t *ids;
    arrput(*messages, next);
    int n = chat_encode(d->chat, *messages, (int)arrlen(*messages), true, &ids, err, errlen);
    arrsetlen(*messages, arrlenu(*messages) - 1);
    if (n >= 0) free(ids);
    return n < 0 ? -1 : 0;
}

static int try_system(const Dialogue *d, const char *text, char *err, size_t errlen) {
    ChatMessage *messages = NULL, m = {.role = CHAT_SYSTEM, .text = text, .n = strlen(text)};
    arrput(messages, m);
    int rc = try_messages(d, &messages, err, errlen);
    arrfree(messages);
    return rc;
}

static void load(Dialogue *d, const char *path) {
    char err[512];
    ChatMessage *messages;
    if (!*path) fprintf(stderr, "/load: expected /load FILE\n");
    if (!*path) return;
    if (transcript_load(path, &messages, err, sizeof err)) {
        fprintf(stderr, "%s\n", err);
        return;
    }
    if (try_messages(d, &messages, err, sizeof err)) {
        fprintf(stderr, "%s: %s\n", path, err);
        transcript_free(messages);
        return;
    }
    transcript_free(d->messages);
    d->messages = messages;
    free(d->system);
    d->system = messages && messages[0].role == CHAT_SYSTEM ? copy_text(messages[0].text) : NULL;
    fprintf(stderr, "loaded %d messages from %s\n", (int)arrlen(messages), path);
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

// Syncs the session to ids[0..n). -1 on an error (with a line in err) or an interrupt (with none).
static int prefill(Dialogue *d, const int32_t *ids, int n, char *err, size_t errlen) {
    Progress progress = progress_start(d->interrupted, d->options->quiet);
    session_watch(d->session, progress_watch, &progress);
    int rc = session_sync(d->session, ids, n, err, errlen);
    session_watch(d->session, NULL, NULL);
    progress_end(&progress);
    if (rc && *d->interrupted) *err = 0;
    return rc;
}

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
                "[the context of %d tokens is full: /reset starts a new conversation, /undo drops the last turn, a "
                "larger -c holds more]\n",
                n_ctx);
    else if (*d->interrupted) fprintf(stderr, "[stopped]\n");
    else fprintf(stderr, "[stopped after -n %d tokens]\n", d->options->n_new);
}

static void put_rest(Dialogue *d, char **text, const char *rest) {
    if (*rest) show(d, rest, false);
    bytes_append_text(text, rest);
}

// Samples and shows tokens until the answer ends or is stopped, and appends it as a message. d->ids has room for the
// whole context.
static void generate(Dialogue *d, AnswerStats *st) {
    char err[512] = "", *text = NULL;
    int n_ctx = session_info(d->session).n_ctx, n_prompt = d->n_ids;
    int most = d->options->n_new > 0 ? d->options->n_new : n_ctx + 1;
    bool ended = false, full = false;
    Draws draws = {.session = d->session, .sampler = d->sampler, .drafter = d->options->drafter};
    Stops stops = {.strings = d->options->stops};
    Answer *answer = answer_open(d->chat);
    if (!answer) die(1, "out of memory");
    while (!ended && !full && st->n_new < most && !*d->interrupted) {
        int32_t id = draws_next(&draws, d->ids, d->n_ids, most - st->n_new, err, sizeof err);
        d->failed |= id < 0;
        if (id < 0) break;
        AnswerPart part = answer_push(answer, id);
        const char *shown = part.thought ? part.text : stops_push(&stops, part.text);
        show(d, shown, part.thought);
        if (!part.thought) bytes_append_text(&text, shown);
        st->n_new++;
        ended = part.end || stops.found;
        full = !ended && d->n_ids == n_ctx;
        if (ended || full) break;
        d->ids[d->n_ids++] = id;
    }
    if (!ended) {
        put_rest(d, &text, stops_push(&stops, answer_finish(answer)));
    }
    put_rest(d, &text, stops_finish(&stops));
    show(d, "\n", false);
    if (!ended) print_stop_reason(d, err, full);
    add_message(d, CHAT_ASSISTANT, text ? text : "", arrlenu(text));
    ChatMessage *m = &arrlast(d->messages);
    size_t bytes = sizeof *d->ids * (size_t)(d->n_ids - n_prompt);
    int32_t *ids = answer_is_verbatim(answer) && !stops.found ? malloc(bytes + 1) : NULL;
    if (ids) {
        m->ids = memcpy(ids, d->ids + n_prompt, bytes);
        m->n_ids = d->n_ids - n_prompt;
    }
    arrfree(text);
    stops_free(&stops);
    answer_close(answer);
}

// A user message and its answer. The message is dropped if the template refuses it, if it does not fit the context or
// is interrupted in prefill.
static void turn(Dialogue *d, const char *text) {
    char err[512] = "";
    int32_t *ids;
    int n_ctx = session_info(d->session).n_ctx;
    AnswerStats st = {0};
    add_message(d, CHAT_USER, text, strlen(text));
    int n = chat_encode(d->chat, d->messages, (int)arrlen(d->messages), true, &ids, err, sizeof err);
    if (n < 0) {
        fprintf(stderr, "error: %s\n[the message is dropped]\n", err);
        d->failed = true;
        drop_message(d);
        return;
    }
    if (n >= n_ctx) {
        fprintf(stderr,
                "[the prompt has %d tokens, the context has %d: /reset starts a new conversation, /undo drops the "
                "last turn, a larger -c holds more]\n",
                n, n_ctx);
        free(ids);
        drop_message(d);
        return;
    }
    while (st.n_cached < n && st.n_cached < d->n_ids && ids[st.n_cached] == d->ids[st.n_cached]) st.n_cached++;
    st.n_prompt = n;
    double start = seconds();
    *d->interrupted = 0;
    if (prefill(d, ids, n, err, sizeof err)) {
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
    sampler_history(d->sampler, d->ids, n);
    generate(d, &st);
    st.generate = seconds() - start;
    *d->interrupted = 0;
    if (!d->options->quiet) print_stats(&st);
    d->total.prompt += st.prompt;
    d->total.generate += st.generate;
    d->total.n_cached += st.n_cached;
    d->total.n_prompt += st.n_prompt;
    d->total.n_new += st.n_new;
    if (ferror(stdout)) die(1, "stdout: the text could not be written");
}

// Drops the last message of the user, with its answer; its text is the caller's to free. NULL: there is none.
static char *take_turn(Dialogue *d) {
    char *text = NULL;
    while (!text && arrlen(d->messages) && arrlast(d->messages).role != CHAT_SYSTEM) {
        if (arrlast(d->messages).role == CHAT_USER) text = copy_text(arrlast(d->messages).text);
        drop_message(d);
    }
    if (!text) fprintf(stderr, "[there is no message yet]\n");
    return text;
}

// From here on: the conversation so far stays, behind another beginning.
static void set_system(Dialogue *d, const char *text) {
    if (!*text) {
        fprintf(stderr, "[system message: %s]\n", d->system ? d->system : "the template's own, if it has one");
        return;
    }
    char err[512];
    if (try_system(d, text, err, sizeof err)) {
        fprintf(stderr, "/system: %s\n", err);
        return;
    }
    free(d->system);
    d->system = copy_text(text);
    if (arrlen(d->messages) && d->messages[0].role == CHAT_SYSTEM) {
        free((char *)(uintptr_t)d->messages[0].text);
        arrdel(d->messages, 0);
    }
    ChatMessage m = {.role = CHAT_SYSTEM, .text = copy_text(text), .n = strlen(text)};
    arrins(d->messages, 0, m);
    fprintf(stderr, "[system message set]\n");
}

static void run_help(Dialogue *d, const char *rest) {
    (void)d;
    (void)rest;
    fputs(commands, stderr);
}

static void run_reset(Dialogue *d, const char *rest) {
    (void)rest;
    reset(d);
    fprintf(stderr, "[new conversation]\n");
}

static void run_save(Dialogue *d, const char *rest) {
    save(d, rest, false);
}

static void run_overwrite(Dialogue *d, const char *rest) {
    save(d, rest, true);
}

static void run_undo(Dialogue *d, const char *rest) {
    (void)rest;
    char *text = take_turn(d);
    if (text) fprintf(stderr, "[dropped \"%.60s%s\" and its answer]\n", text, strlen(text) > 60 ? "..." : "");
    free(text);
}

static void run_regen(Dialogue *d, const char *rest) {
    (void)rest;
    char *text = take_turn(d);
    if (text) turn(d, text);
    free(text);
}

static void run_stats(Dialogue *d, const char *rest) {
    (void)rest;
    SessionInfo info = session_info(d->session);
    const AnswerStats *t = &d->total;
    int n = t->n_prompt - t->n_cached;
    fprintf(stderr, "[%d messages | %d of %d tokens", (int)arrlen(d->messages), session_length(d->session), info.n_ctx);
    print_held(&info);
    fprintf(stderr, " | %d threads", info.n_threads);
    if (t->n_new) {
        fprintf(stderr, " | in all: read %d, %.1f tok/s, generated %d, %.1f tok/s", n, n / t->prompt, t->n_new,
                t->n_new / t->generate);
    }
    fputs("]\n", stderr);
}

typedef struct {
    const char *name;
    bool takes_text;
    void (*run)(Dialogue *d, const char *rest); // NULL: ends the conversation
} Command;

static const Command command_table[] = {
    {"/quit", false, NULL},          {"/exit", false, NULL},       {"/bye", false, NULL},
    {"/help", false, run_help},      {"/?", false, run_help},      {"?", false, run_help},
    {"/reset", false, run_reset},    {"/clear", false, run_reset}, {"/undo", false, run_undo},
    {"/regen", false, run_regen},    {"/stats", false, run_stats}, {"/system", true, set_system},
    {"/save!", true, run_overwrite}, {"/save", true, run_save},    {"/load", true, load},
};

// True if the line ends the conversation.
static bool command(Dialogue *d, char *line) {
    size_t n = strcspn(line, " \n"), end = strlen(line);
    while (end > n && strchr(" \t\n", line[end - 1])) line[--end] = 0;
    const char *rest = line + n + strspn(line + n, " \n");
    for (size_t i = 0; i < sizeof command_table / sizeof *command_table; i++) {
        const Command *c = &command_table[i];
        if (strlen(c->name) != n || memcmp(c->name, line, n) != 0) continue;
        if (*rest && !c->takes_text) fprintf(stderr, "%s: expected nothing behind it, found '%s'\n", c->name, rest);
        else if (!c->run) return true;
        else c->run(d, rest);
        return false;
    }
    fprintf(stderr, "%.*s: no such command; /help lists them\n", (int)n, line);
    return false;
}

// How a message goes on behind a line: not at all, on the next line, up to """.
typedef enum { MESSAGE_COMPLETE, MESSAGE_CONTINUED, MESSAGE_QUOTED } MessageState;

typedef struct {
    char *text; // stb_ds array
    MessageState state;
    bool quoted; // it stood between """, and is no command
} Message;

static bool take_suffix(char *line, const char *suffix) {
    size_t n = strlen(line), n_suffix = strlen(suffix);
    if (n < n_suffix || memcmp(line + n - n_suffix, suffix, n_suffix) != 0) return false;
    line[n - n_suffix] = 0;
    return true;
}

static void take_line(Message *m, char *line) {
    bool opens = m->state == MESSAGE_COMPLETE && !strncmp(line, "\"\"\"", 3);
    if (opens) line += 3;
    m->quoted |= opens;
    if (m->quoted) {
        bool closes = take_suffix(line, "\"\"\"");
        bytes_append_text(&m->text, line);
        if (!closes && (!opens || *line)) bytes_append_text(&m->text, "\n");
        m->state = closes ? MESSAGE_COMPLETE : MESSAGE_QUOTED;
        return;
    }
    bool continued = take_suffix(line, "\\");
    bytes_append_text(&m->text, line);
    if (continued) bytes_append_text(&m->text, "\n");
    m->state = continued ? MESSAGE_CONTINUED : MESSAGE_COMPLETE;
}

static void clear_message(Message *m) {
    arrsetlen(m->text, 0);
    m->state = MESSAGE_COMPLETE;
    m->quoted = false;
}

// Reads the lines of one user message; false at the end of the conversation.
static bool read_message(Dialogue *d, Message *m) {
    bool idle = false, begun = false;
    clear_message(m);
    while (!begun || m->state != MESSAGE_COMPLETE) {
        char *line;
        LinesEvent event = lines_read(d->lines, begun ? "... " : "> ", &line);
        if (event == LINES_END || (event == LINES_IDLE && idle)) return false;
        idle = event == LINES_IDLE;
        if (idle) fprintf(stderr, "(Ctrl-C again, Ctrl-D or /quit to exit)\n");
        begun = event == LINES_TEXT;
        if (begun) take_line(m, line);
        else clear_message(m);
    }
    while (m->quoted && arrlen(m->text) && arrlast(m->text) == '\n') arrsetlen(m->text, arrlenu(m->text) - 1);
    arrput(m->text, 0);
    return true;
}

static void print_template(const Dialogue *d) {
    ChatInfo info = chat_info(d->chat);
    if (!info.known) {
        fprintf(stderr, "note: the model has %s; using plain text, \"User: ...\" and \"Assistant: ...\"\n",
                info.has_template ? "an unknown chat template" : "no chat template");
    } else if (!d->options->quiet) fprintf(stderr, "[%s; /help lists the commands]\n", info.family);
}

static void set_variables(Chat *chat, const DialogueOptions *o) {
    char err[512];
    json_t *value;
    const char *name;
    json_object_foreach(o->variables, name, value) {
        char *text = json_dumps(value, JSON_ENCODE_ANY);
        if (!text) die(1, "out of memory");
        if (chat_set(chat, name, text, err, sizeof err)) die(2, "--chat-template-kwargs: %s", err);
        free(text);
    }
    if (o->no_thinking && chat_set(chat, "enable_thinking", "false", err, sizeof err)) die(1, "%s", err);
}

static Chat *open_chat(const Engine *e, const DialogueOptions *o) {
    char err[512], *text = NULL;
    const char *given = o->chat_template;
    if (given && !o->template_is_text) {
        size_t n;
        text = read_text(given, &n);
        if (memchr(text, 0, n)) die(1, "%s: expected text, found a zero byte", given);
    }
    Chat *chat = given ? engine_chat_with(e, text ? text : given, err, sizeof err) : engine_chat(e, err, sizeof err);
    if (!chat && given) die(1, "%s: %s", text ? given : "--chat-template", err);
    if (!chat) die(1, "%s; --chat-template FILE gives another", err);
    free(text);
    set_variables(chat, o);
    return chat;
}

int dialogue_run(const Engine *e, Session *s, Sampler *sampler, const DialogueOptions *o,
                 volatile sig_atomic_t *interrupted) {
    Message m = {0};
    Dialogue d = {.engine = e, .session = s, .sampler = sampler, .options = o, .interrupted = interrupted};
    d.chat = open_chat(e, o);
    if (!(d.lines = lines_open(interrupted))) die(1, "out of memory");
    char err[512];
    if (o->system && try_system(&d, o->system, err, sizeof err)) die(1, "--system: %s", err);
    if (o->system) d.system = copy_text(o->system);
    reset(&d);
    print_template(&d);
    if (o->first) turn(&d, o->first);
    bool done = o->first && o->single_turn;
    while (!done && read_message(&d, &m)) {
        if (!m.quoted && (m.text[0] == '/' || !strcmp(m.text, "?"))) {
            if (command(&d, m.text)) break;
        } else if (m.text[strspn(m.text, " \t\n")]) {
            turn(&d, m.text);
            done = o->single_turn;
        }
    }
    if (lines_edited(d.lines)) fputc('\n', stderr);
    transcript_free(d.messages);
    arrfree(m.text);
    free(d.system);
    free(d.ids);
    lines_close(d.lines);
    chat_close(d.chat);
    return d.failed;
}
