// serve: the program build/serve: a model behind OpenAI's API, on one machine.
//
// Owns its flags and signals: the first SIGTERM or SIGINT drains, the second ends it at once.
#include "cli.h"
#include "file.h"
#include "server.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

typedef struct {
    const char *model, *tokenizer, *name, *chat_template;
    float gap_ms;
    float kv_mib, prefix_mib;
    bool no_warmup, quiet;
} Extra;

static void parse(ServerOptions *o, Extra *x, int argc, char **argv) {
    const Flag flags[] = {
        MODEL_FLAG(&x->model),
        TOKENIZER_FLAG(&x->tokenizer),
        {"-a --alias", "NAME", "the model's name in replies (default: that of its file)", TAKES_STRING(&x->name)},
        {"--chat-template-file", "FILE", "a Jinja template instead of the model's own",
         TAKES_STRING(&x->chat_template)},
        {.help = "where", .kind = FLAG_HEADING},
        {"--host", "ADDRESS", "listen at this address (default: 127.0.0.1)", TAKES_STRING(&o->host)},
        {"--port", "N", "and this port, 0 for any that is free (default: 8080)", TAKES_INT(&o->port, 0, 65535)},
        {"--unix", "PATH", "listen at this unix socket instead", TAKES_STRING(&o->unix_path)},
        {"--api-key", "KEY", "ask for this key, except for /, /health and /ready", TAKES_STRING(&o->api_key)},
        {.help = "how much", .kind = FLAG_HEADING},
        THREADS_FLAG(&o->session.n_threads),
        {"-c --ctx | --ctx-size", "N", "context limit of each text (default or 0: the model's own)",
         TAKES_INT(&o->session.n_ctx, 0, MOST_CONTEXT)},
        {"-np --parallel", "N", "texts that are computed together (default: 16)",
         TAKES_INT(&o->scheduler.parallel, 1, 256)},
        {"--queue", "N", "texts that may wait beyond those (default: 256)", TAKES_INT(&o->scheduler.queue, 0, 1 << 20)},
        {"--kv-mib | --kv-bytes", "N", "memory of all texts together, in MiB (default or 0: no limit)",
         TAKES_FLOAT(&x->kv_mib, 0, 1e9)},
        {"--prefix-mib", "N", "memory for texts that are over, which later ones that begin alike find (default: 512)",
         TAKES_FLOAT(&x->prefix_mib, 0, 1e9)},
        {"--exact", NULL, "the same bits whatever is or was computed beside a text; slower, and nothing is found again",
         SETS(&o->exact)},
        {"--gap", "MS",
         "milliseconds between two tokens of a text while prompts are read (default: 150); more where more texts wait",
         TAKES_FLOAT(&x->gap_ms, 1, 60000)},
        {"--no-warmup", NULL, "listen at once, without the passes that map the weights and start the threads",
         SETS(&x->no_warmup)},
        PRECISION_FLAG(&o->session),
        WINDOW_FLAGS(&o->session),
        QUIET_FLAG(&x->quiet),
    };
    const Program program = {"build/serve", "MODEL [options]", NULL, flags, sizeof flags / sizeof *flags};
    cli_one_model(&program, argc, argv, &x->model);
    cli_check_session(&o->session);
    o->scheduler.gap = (double)x->gap_ms * 1e-3;
    o->scheduler.kv_bytes = (uint64_t)((double)x->kv_mib * 0x1p20);
}

// The last part of a path.
static const char *model_name(const char *path) {
    static char name[256];
    size_t end = strlen(path), begin;
    while (end > 1 && path[end - 1] == '/') end--;
    for (begin = end; begin && path[begin - 1] != '/'; begin--) continue;
    snprintf(name, sizeof name, "%.*s", (int)(end - begin), path + begin);
    return name;
}

typedef struct {
    struct event_base *base;
    Server *server;
    int n; // signals so far
} Ending;

static void on_signal(evutil_socket_t number, short what, void *context) {
    (void)number, (void)what;
    Ending *e = context;
    if (e->n++) event_base_loopbreak(e->base);
    else server_drain(e->server);
}

static void serve(const ServerOptions *o, bool quiet) {
    char err[512];
    struct event_base *base = event_base_new();
    if (!base) die(1, "out of memory");
    Ending ending = {.base = base, .server = server_open(base, o, err, sizeof err)};
    if (!ending.server) die(1, "%s", err);
    struct event *signals[] = {evsignal_new(base, SIGTERM, on_signal, &ending),
                               evsignal_new(base, SIGINT, on_signal, &ending)};
    for (int i = 0; i < 2; i++) event_add(signals[i], NULL);
    if (o->unix_path && !quiet) fprintf(stderr, "listening at %s\n", o->unix_path);
    else if (!quiet) fprintf(stderr, "listening at http://%s:%d\n", o->host, server_port(ending.server));
    event_base_dispatch(base);
    for (int i = 0; i < 2; i++) event_free(signals[i]);
    server_close(ending.server);
    event_base_free(base);
    libevent_global_shutdown();
}

static void open_chat(Served *m, const char *file) {
    static ToolForm form;
    static char why[256];
    char err[512];
    size_t n;
    m->chat_template = file ? read_text(file, &n) : NULL;
    m->chat = served_chat(m, err, sizeof err);
    Chat *trial = m->chat ? served_chat(m, err, sizeof err) : NULL;
    if (!trial) die(1, "%s", err);
    if (!toolform_learn(&form, trial, why, sizeof why)) m->tools = &form;
    m->why_no_tools = why;
    chat_close(trial);
}

static void close_chat(Served *m) {
    chat_close((Chat *)(uintptr_t)m->chat);
    if (m->tools) toolform_free((ToolForm *)(uintptr_t)m->tools);
    free((char *)(uintptr_t)m->chat_template);
}

// A prompt and a token after it, of ids that mean nothing, so that the first request finds the weights mapped and the
// buffers there.
static void warm_up(const Engine *engine, const SessionOptions *o) {
    enum { N_PROMPT = 64 };
    char err[512];
    int32_t ids[N_PROMPT + 1];
    Session *s = session_open(engine, o, err, sizeof err);
    if (!s) die(1, "%s", err);
    int n_ctx = session_info(s).n_ctx, n = n_ctx > N_PROMPT ? N_PROMPT : n_ctx - 1,
        vocab = engine_info(engine).vocab_size;
    for (int i = 0; i <= n; i++) ids[i] = (int32_t)(i * 7919LL % vocab);
    if ((n && session_sync(s, ids, n, err, sizeof err)) || session_sync(s, ids, n + 1, err, sizeof err))
        die(1, "the warm-up: %s", err);
    session_close(s);
}

// As many connections as the system lets us have.
static void raise_limits(void) {
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r)) return;
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
}

int main(int argc, char **argv) {
    char err[512];
    Extra extra = {.gap_ms = 150, .prefix_mib = 512};
    ServerOptions o = {.host = "127.0.0.1", .port = 8080, .scheduler = {.parallel = 16, .queue = 256, .block = 512}};
    parse(&o, &extra, argc, argv);
    file_guard_shrinking();
    signal(SIGPIPE, SIG_IGN);
    raise_limits();
    Engine *engine = engine_open(extra.model, extra.tokenizer, err, sizeof err);
    if (!engine) die(1, "%s", err);
    tell_notes(engine_notes(engine));
    int trained = engine_info(engine).max_seq_len;
    o.model = (Served){
        .engine = engine, .n_ctx = o.session.n_ctx ? o.session.n_ctx : trained, .sampling = engine_sampling(engine)};
    o.model.model_name = extra.name ? extra.name : model_name(extra.model);
    o.model.most_choices =
        o.scheduler.parallel + o.scheduler.queue < 128 ? o.scheduler.parallel + o.scheduler.queue : 128;
    open_chat(&o.model, extra.chat_template);
    // What the options mean, before anyone asks. It stays open, and with it the threads and buffers that sessions
    // share.
    Session *keeper = session_open(engine, &o.session, err, sizeof err);
    if (!keeper) die(1, "%s", err);
    if (!extra.no_warmup) warm_up(engine, &o.session);
    // The scheduler keeps --kv-mib. What was generated has not the bits of what is read as a prompt.
    engine_limit(engine, 0, o.exact ? 0 : (uint64_t)((double)extra.prefix_mib * 0x1p20));
    serve(&o, extra.quiet);
    session_close(keeper);
    close_chat(&o.model);
    engine_close(engine);
}
