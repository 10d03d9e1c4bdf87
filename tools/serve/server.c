// server: see server.h.
#include "server.h"

#include "body.h"
#include "bytes.h"
#include "file.h"
#include "page.h"
#include "reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

enum {
    TICK_MS = 250,
    QUIET_SECONDS = 15,       // then a stream gets a comment, so that nobody in between takes it for dead
    MOST_PENDING = 256 << 10, // bytes that a client may be behind before its text is not computed further
    MOST_RETRY_SECONDS = 60,
};

// A job and its client.
typedef struct {
    Job *job;
    Exchange *exchange; // NULL: answered, or gone
    Reply *reply;
    double sent; // when something was last sent
} Ticket;

struct Server {
    struct event_base *base;
    const ServerOptions *options;
    Http *http;
    Worker *worker;
    Metrics metrics;
    Mailbox *inbox;
    struct event *tick, *letters;
    Ticket **tickets; // stb_ds array
    int n_texts;      // of all jobs
    bool drains;
};

// ---- plain replies

static void reply_json(Exchange *x, int status, char *json) {
    exchange_reply(x, status, "application/json", json, strlen(json));
    free(json);
}

static void reply_fail(Exchange *x, const ApiError *e) {
    reply_json(x, e->status, reply_error(e));
}

static void reply_value(Exchange *x, json_t *v) {
    reply_json(x, 200, json_dumps(v, JSON_COMPACT));
    json_decref(v);
}

// Seconds until a place in the queue may be free: as many texts as wait, at the time that texts took so far.
static void refuse_full(Server *s, Exchange *x, const char *why) {
    char text[16];
    double seconds = 1 + histogram_mean(&s->metrics.whole) * s->n_texts / s->options->scheduler.parallel;
    snprintf(text, sizeof text, "%d", seconds > MOST_RETRY_SECONDS ? MOST_RETRY_SECONDS : (int)seconds);
    exchange_add_header(x, "Retry-After", text);
    s->metrics.n_refused++;
    ApiError e;
    api_fail(&e, 503, NULL, "%s", why);
    reply_fail(x, &e);
}

// ---- texts

static void send_line(Ticket *t, const char *json) {
    if (!json) return;
    size_t n = strlen(json);
    char *line = malloc(n + 9);
    if (!line) return;
    memcpy(line, "data: ", 6);
    memcpy(line + 6, json, n);
    memcpy(line + 6 + n, "\n\n", 3);
    exchange_send(t->exchange, line, n + 8);
    free(line);
    t->sent = clock_seconds();
}

static void send_chunk(Ticket *t, char *json) {
    send_line(t, json);
    free(json);
}

static void begin_stream(Ticket *t) {
    exchange_start(t->exchange, "text/event-stream");
    if (t->job->request.chat) {
        for (int i = 0; i < t->reply->n_choices; i++) send_chunk(t, reply_first_chunk(t->reply, i));
    }
    t->sent = clock_seconds();
}

// Nobody waits for the job any more.
static void cancel(Server *s, Ticket *t) {
    t->exchange = NULL;
    t->job->cancelled = true;
    worker_wake(s->worker);
}

static void fail_ticket(Server *s, Ticket *t, const ApiError *e) {
    Exchange *x = t->exchange;
    if (t->job->request.stream) {
        send_chunk(t, reply_error(e));
        exchange_end(x);
    } else reply_fail(x, e);
    cancel(s, t);
}

static void finish_ticket(Ticket *t, Output *e) {
    if (t->job->request.stream) {
        if (t->job->request.include_usage) send_chunk(t, reply_usage_chunk(t->reply));
        send_line(t, "[DONE]");
        exchange_end(t->exchange);
    } else reply_json(t->exchange, 200, e->body ? e->body : reply_whole(t->reply));
    e->body = NULL;
    t->exchange = NULL;
}

static void close_ticket(Server *s, Ticket *t) {
    for (ptrdiff_t i = 0; i < arrlen(s->tickets); i++) {
        if (s->tickets[i] != t) continue;
        arrdelswap(s->tickets, i);
        break;
    }
    s->n_texts -= t->reply->n_choices;
    reply_close(t->reply);
    request_free(&t->job->request);
    free(t->job);
    free(t);
    if (s->drains && !arrlen(s->tickets)) event_base_loopexit(s->base, &(struct timeval){.tv_usec = 100000});
}

static void take_output(Server *s, Output *e) {
    Ticket *t = e->job->exchange;
    if (t->exchange && e->error) fail_ticket(s, t, e->error);
    if (t->exchange) reply_add(t->reply, e);
    if (t->exchange && t->job->request.stream) {
        send_chunk(t, reply_chunk(t->reply, e));
        send_chunk(t, reply_last_chunk(t->reply, e));
        if (exchange_pending(t->exchange) > MOST_PENDING) t->job->blocked = true;
    }
    if (e->over && t->exchange) finish_ticket(t, e);
    if (e->over) close_ticket(s, t);
    output_free(e);
}

static void on_letters(evutil_socket_t fd, short what, void *context) {
    (void)fd, (void)what;
    Server *s = context;
    for (Letter *l = mailbox_take(s->inbox), *next; l; l = next) {
        next = l->next;
        take_output(s, (Output *)l);
    }
}

static void on_tick(evutil_socket_t fd, short what, void *context) {
    (void)fd, (void)what;
    Server *s = context;
    double now = clock_seconds();
    for (ptrdiff_t i = 0; i < arrlen(s->tickets); i++) {
        Ticket *t = s->tickets[i];
        if (!t->exchange || !t->job->request.stream) continue;
        if (t->job->blocked && exchange_pending(t->exchange) < MOST_PENDING / 4) {
            t->job->blocked = false;
            worker_wake(s->worker);
        }
        if (now - t->sent < QUIET_SECONDS || t->job->blocked) continue;
        exchange_send(t->exchange, ": still computing\n\n", 19);
        t->sent = now;
    }
}

static void on_closed(void *context, Exchange *x) {
    Server *s = context;
    Ticket *t = exchange_user(x);
    if (!t) return;
    s->metrics.n_cancelled++;
    cancel(s, t);
}

typedef int (*JobReader)(Job *job, const ServerOptions *o, const char *body, size_t n, ApiError *error);

static void take_job(Server *s, Exchange *x, JobReader read) {
    const SchedulerOptions *o = &s->options->scheduler;
    size_t n;
    const char *body = exchange_body(x, &n);
    ApiError error;
    if (s->drains) {
        refuse_full(s, x, "the server is shutting down");
        return;
    }
    Job *job = calloc(1, sizeof *job);
    Ticket *t = calloc(1, sizeof *t);
    if (!job || !t) api_fail(&error, 500, NULL, "out of memory");
    else if (!read(job, s->options, body, n, &error)) {
        int n_new = (int)arrlen(job->request.prompts) * job->request.n_choices;
        if (s->n_texts + n_new <= o->parallel + o->queue) {
            *t = (Ticket){.job = job, .exchange = x, .reply = reply_open(&job->request, &s->options->model)};
            job->exchange = t;
            job->arrived = clock_seconds();
            exchange_set_user(x, t);
            arrput(s->tickets, t);
            s->n_texts += n_new;
            s->metrics.n_requests++;
            if (job->request.stream) begin_stream(t);
            worker_give(s->worker, job);
            return;
        }
        refuse_full(s, x, "the queue is full");
        x = NULL;
    }
    if (x) reply_fail(x, &error);
    if (job) attention_map_close(job->map);
    if (job) request_free(&job->request);
    free(job);
    free(t);
}

static int read_chat(Job *job, const ServerOptions *o, const char *body, size_t n, ApiError *error) {
    return request_chat(&job->request, &o->model, body, n, error);
}

static int read_completion(Job *job, const ServerOptions *o, const char *body, size_t n, ApiError *error) {
    return request_completion(&job->request, &o->model, body, n, error);
}

static int read_embeddings(Job *job, const ServerOptions *o, const char *body, size_t n, ApiError *error) {
    return request_embeddings(&job->request, &o->model, body, n, error);
}

// The prompt of either, and beside it the layers that are wanted.
static int read_attention(Job *job, const ServerOptions *o, const char *body, size_t n, ApiError *error) {
    json_t *root = body_object(body, n, error);
    bool chat = json_object_get(root, "messages");
    if (root && !(chat ? read_chat : read_completion)(job, o, body, n, error))
        job->map = attention_map_open(&o->model, &o->session, &job->request, json_object_get(root, "layers"), error);
    json_decref(root);
    job->request.stream = false;
    return job->map ? 0 : -1;
}

static void post_chat(Server *s, Exchange *x) {
    take_job(s, x, read_chat);
}

static void post_completion(Server *s, Exchange *x) {
    take_job(s, x, read_completion);
}

static void post_attention(Server *s, Exchange *x) {
    take_job(s, x, read_attention);
}

static void post_embeddings(Server *s, Exchange *x) {
    take_job(s, x, read_embeddings);
}

// ---- what needs no pass

static void get_models(Server *s, Exchange *x) {
    const Served *m = &s->options->model;
    EngineInfo info = engine_info(m->engine);
    reply_value(x, json_pack("{s:s, s:[{s:s, s:s, s:i, s:s, s:{s:s, s:i, s:I, s:I, s:i}}]}", "object", "list", "data",
                             "id", m->model_name, "object", "model", "created", 0, "owned_by", "tessera", "meta",
                             "family", info.family, "n_vocab", info.vocab_size, "n_params", (json_int_t)info.n_params,
                             "size", (json_int_t)info.model_bytes, "n_ctx", m->n_ctx));
}

static void get_health(Server *s, Exchange *x) {
    (void)s;
    reply_value(x, json_pack("{s:s}", "status", "ok"));
}

static void get_ready(Server *s, Exchange *x) {
    if (s->drains) refuse_full(s, x, "the server is shutting down");
    else if (s->n_texts >= s->options->scheduler.parallel + s->options->scheduler.queue)
        refuse_full(s, x, "the queue is full");
    else get_health(s, x);
}

static void get_metrics(Server *s, Exchange *x) {
    char *text = metrics_text(&s->metrics, s->options->model.model_name);
    exchange_reply(x, 200, "text/plain; version=0.0.4", text ? text : "", text ? strlen(text) : 0);
    free(text);
}

static void get_props(Server *s, Exchange *x) {
    const Served *m = &s->options->model;
    EngineInfo info = engine_info(m->engine);
    SamplerOptions d = sampling_defaults(m);
    reply_value(x, json_pack("{s:s, s:s, s:s, s:s, s:b, s:i, s:i, s:i, s:{s:f, s:i, s:f, s:f}}", "model", m->model_name,
                             "family", info.family, "type", info.type, "chat_format", chat_info(m->chat).family,
                             "has_chat_template", chat_info(m->chat).known, "n_ctx", m->n_ctx, "n_ctx_train",
                             info.max_seq_len, "parallel", s->options->scheduler.parallel, "default_sampling",
                             "temperature", (double)d.temperature, "top_k", d.top_k, "top_p", (double)d.top_p, "min_p",
                             (double)d.min_p));
}

static void post_tokenize(Server *s, Exchange *x) {
    const Engine *engine = s->options->model.engine;
    size_t n_body;
    const char *body = exchange_body(x, &n_body);
    char err[256];
    ApiError error;
    int32_t *ids = NULL;
    json_t *root = body_object(body, n_body, &error), *content = json_object_get(root, "content");
    int n = -1;
    if (root && !json_is_string(content)) api_fail(&error, 400, "content", "content: expected a string");
    else if (root) {
        n = engine_encode(engine, json_string_value(content), json_string_length(content),
                          json_is_true(json_object_get(root, "add_special")),
                          !json_is_false(json_object_get(root, "parse_special")), &ids, err, sizeof err);
        if (n < 0) api_fail(&error, 400, "content", "content: %s", err);
    }
    json_decref(root);
    json_t *tokens = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(tokens, json_integer(ids[i]));
    free(ids);
    json_t *reply = json_pack("{s:o}", "tokens", tokens);
    if (n >= 0) reply_value(x, reply);
    else {
        json_decref(reply);
        reply_fail(x, &error);
    }
}

static void post_detokenize(Server *s, Exchange *x) {
    const Engine *engine = s->options->model.engine;
    size_t n_body;
    const char *body = exchange_body(x, &n_body);
    ApiError error;
    json_t *root = body_object(body, n_body, &error), *tokens = json_object_get(root, "tokens");
    bool sound = json_is_array(tokens);
    char *text = NULL;
    TextOut *out = textout_open(engine, true);
    textout_show_special(out, true);
    for (size_t i = 0; sound && i < json_array_size(tokens); i++) {
        const json_t *v = json_array_get(tokens, i);
        json_int_t id = json_integer_value(v);
        sound = json_is_integer(v) && id >= 0 && id < engine_info(engine).vocab_size;
        if (sound) bytes_append_text(&text, textout_push(out, (int32_t)id));
    }
    bytes_append_text(&text, textout_finish(out));
    textout_close(out);
    if (root && !sound) api_fail(&error, 400, "tokens", "tokens: expected a list of ids of the vocabulary");
    json_decref(root);
    if (sound) reply_value(x, json_pack("{s:o}", "content", json_stringn(text ? text : "", arrlenu(text))));
    else reply_fail(x, &error);
    arrfree(text);
}

static void get_page(Server *s, Exchange *x) {
    (void)s;
    exchange_reply(x, 200, "text/html; charset=utf-8", page_begin, (size_t)(page_end - page_begin));
}

// ---- routes

static const struct {
    const char *method, *path;
    void (*take)(Server *s, Exchange *x);
    bool open; // without a key
} routes[] = {
    {"GET", "/", get_page, true},
    {"GET", "/health", get_health, true},
    {"GET", "/ready", get_ready, true},
    {"GET", "/metrics", get_metrics, false},
    {"GET", "/props", get_props, false},
    {"GET", "/v1/models", get_models, false},
    {"POST", "/v1/chat/completions", post_chat, false},
    {"POST", "/v1/completions", post_completion, false},
    {"POST", "/attention", post_attention, false},
    {"POST", "/v1/embeddings", post_embeddings, false},
    {"POST", "/tokenize", post_tokenize, false},
    {"POST", "/detokenize", post_detokenize, false},
};
enum { N_ROUTES = sizeof routes / sizeof *routes };

// In a time that does not tell how much of the key is right.
static bool key_is_right(const Server *s, const Exchange *x) {
    const char *key = s->options->api_key, *given = exchange_header(x, "Authorization");
    if (!key) return true;
    if (!given || strncmp(given, "Bearer ", 7)) return false;
    given += 7;
    size_t n = strlen(given);
    unsigned differ = n != strlen(key);
    for (size_t i = 0; i < strlen(key); i++) differ |= (unsigned)(key[i] ^ given[n ? i % n : 0]);
    return !differ;
}

static void allow_origin(Exchange *x) {
    const char *wanted = exchange_header(x, "Access-Control-Request-Headers");
    exchange_add_header(x, "Access-Control-Allow-Origin", "*");
    if (strcmp(exchange_method(x), "OPTIONS")) return;
    exchange_add_header(x, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    exchange_add_header(x, "Access-Control-Allow-Headers", wanted ? wanted : "Authorization, Content-Type");
    exchange_add_header(x, "Access-Control-Max-Age", "86400");
}

static void on_request(void *context, Exchange *x) {
    Server *s = context;
    ApiError error;
    const char *method = exchange_method(x), *path = exchange_path(x);
    bool known = false;
    allow_origin(x);
    if (!strcmp(method, "OPTIONS")) {
        exchange_reply(x, 204, "text/plain", "", 0);
        return;
    }
    if (!strcmp(method, "HEAD")) method = "GET";
    for (int i = 0; i < N_ROUTES; i++) {
        if (strcmp(path, routes[i].path)) continue;
        known = true;
        if (strcmp(method, routes[i].method)) continue;
        if (routes[i].open || key_is_right(s, x)) {
            routes[i].take(s, x);
            return;
        }
        api_fail(&error, 401, NULL, "expected the server's API key as \"Authorization: Bearer KEY\"");
        error.code = "invalid_api_key";
        reply_fail(x, &error);
        return;
    }
    if (known) api_fail(&error, 405, NULL, "%.100s: not with this method", path);
    else api_fail(&error, 404, NULL, "%.100s: there is no such path", path);
    reply_fail(x, &error);
}

// ---- a server

static int open_parts(Server *s, char *err, size_t errlen) {
    const ServerOptions *o = s->options;
    const HttpHandler handler = {s, on_request, on_closed};
    s->inbox = mailbox_open();
    s->tick = event_new(s->base, -1, EV_PERSIST, on_tick, s);
    if (s->inbox) s->letters = event_new(s->base, mailbox_fd(s->inbox), EV_READ | EV_PERSIST, on_letters, s);
    if (!s->tick || !s->letters) return fail(err, errlen, "out of memory");
    event_add(s->tick, &(struct timeval){.tv_usec = TICK_MS * 1000});
    event_add(s->letters, NULL);
    s->http = http_open(s->base, o->host, o->port, o->unix_path, &handler, err, errlen);
    if (!s->http) return -1;
    SchedulerOptions scheduler = o->scheduler;
    scheduler.queue += scheduler.parallel; // `generate` keeps the limit
    s->metrics.kv_limit = scheduler.kv_bytes;
    s->worker = worker_open(&o->model, &o->session, &scheduler, o->exact, &s->metrics, s->inbox, err, errlen);
    return s->worker ? 0 : -1;
}

Server *server_open(struct event_base *base, const ServerOptions *o, char *err, size_t errlen) {
    Server *s = calloc(1, sizeof *s);
    if (!s) {
        fail(err, errlen, "out of memory");
        return NULL;
    }
    s->base = base;
    s->options = o;
    if (!open_parts(s, err, errlen)) return s;
    server_close(s);
    return NULL;
}

void server_close(Server *s) {
    if (!s) return;
    http_close(s->http); // cancels what is left
    while (s->worker && arrlen(s->tickets)) {
        mailbox_wait(s->inbox);
        on_letters(-1, 0, s);
    }
    worker_close(s->worker);
    if (s->letters) event_free(s->letters);
    if (s->tick) event_free(s->tick);
    mailbox_close(s->inbox);
    arrfree(s->tickets);
    free(s);
}

int server_port(const Server *s) {
    return http_port(s->http);
}

void server_drain(Server *s) {
    s->drains = true;
    http_drain(s->http);
    if (!arrlen(s->tickets)) event_base_loopexit(s->base, &(struct timeval){.tv_usec = 100000});
}
