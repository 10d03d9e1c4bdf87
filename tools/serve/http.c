// http: see http.h.
#include "http.h"

#include "file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <stb/stb_ds.h>

enum {
    MOST_HEADERS = 64 << 10, // bytes
    MOST_BODY = 16 << 20,    // bytes
    MOST_CONNECTIONS = 4096, // then no more are accepted until one is closed
    MOST_AHEAD = 64 << 10,   // bytes read of the next request while one is answered
    READ_SECONDS = 30,       // for a whole request, and between requests
    WRITE_SECONDS = 60,      // without the client taking a byte
};

typedef struct {
    struct bufferevent *stream; // a reference
    double since;               // of the last progress
    size_t pending;             // bytes to be written, at the last sweep
    Exchange *exchange;         // NULL: it waits for a request
} Connection;

struct Http {
    struct event_base *base;
    struct evhttp *http;
    struct evhttp_bound_socket *socket;
    struct event *tick;
    HttpHandler handler;
    Connection **connections; // stb_ds array
    char *unix_path;          // NULL: TCP
    int port;
    bool drains, is_full;
};

struct Exchange {
    Http *http;
    Connection *connection;
    struct evhttp_request *request;
    void *user;
    char *path;
    bool started;
};

static double now(const Http *h) {
    struct timeval t;
    event_base_gettimeofday_cached(h->base, &t);
    return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

// ---- connections

// evhttp shuts a connection down when it is done with it; the reference that is kept here closes its descriptor at the
// next sweep.
static struct bufferevent *accept_stream(struct event_base *base, void *context) {
    Http *h = context;
    Connection *c = calloc(1, sizeof *c);
    struct bufferevent *stream = c ? bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE) : NULL;
    if (!stream) {
        free(c);
        return NULL; // evhttp makes one of its own
    }
    bufferevent_incref(stream);
    *c = (Connection){.stream = stream, .since = now(h)};
    arrput(h->connections, c);
    if (arrlen(h->connections) >= MOST_CONNECTIONS && !h->is_full) {
        evconnlistener_disable(evhttp_bound_socket_get_listener(h->socket));
        h->is_full = true;
    }
    return stream;
}

static Connection *connection_find(const Http *h, const struct bufferevent *stream) {
    for (ptrdiff_t i = arrlen(h->connections) - 1; i >= 0; i--)
        if (h->connections[i]->stream == stream) return h->connections[i];
    return NULL;
}

static bool connection_gone(const Connection *c) { // evhttp has let go of it
    bufferevent_event_cb event;
    bufferevent_getcb(c->stream, NULL, NULL, &event, NULL);
    return !event;
}

// Closes a connection that makes no progress: one that reads slowly, sends slowly, or is idle.
static void connection_check(const Http *h, Connection *c) {
    size_t pending = evbuffer_get_length(bufferevent_get_output(c->stream));
    bool computes = c->exchange && !pending;
    if (computes || pending < c->pending) c->since = now(h);
    c->pending = pending;
    if (now(h) - c->since > (pending ? WRITE_SECONDS : READ_SECONDS))
        bufferevent_trigger_event(c->stream, BEV_EVENT_TIMEOUT | BEV_EVENT_READING, 0);
}

static void sweep(Http *h) {
    for (ptrdiff_t i = arrlen(h->connections) - 1; i >= 0; i--) {
        Connection *c = h->connections[i];
        if (!connection_gone(c)) connection_check(h, c);
        if (!connection_gone(c)) continue;
        bufferevent_decref(c->stream);
        free(c);
        arrdelswap(h->connections, i);
    }
    if (!h->is_full || arrlen(h->connections) >= MOST_CONNECTIONS) return;
    evconnlistener_enable(evhttp_bound_socket_get_listener(h->socket));
    h->is_full = false;
}

static void on_tick(evutil_socket_t fd, short what, void *context) {
    (void)fd, (void)what;
    sweep(context);
}

// ---- requests

static void exchange_free(Exchange *x) {
    if (x->connection) x->connection->exchange = NULL;
    free(x->path);
    free(x);
}

static void on_close(struct evhttp_connection *c, void *context) {
    (void)c;
    Exchange *x = context;
    x->http->handler.closed(x->http->handler.context, x);
    if (!evhttp_request_get_connection(x->request)) evhttp_send_reply_end(x->request); // frees it
    exchange_free(x);
}

// Where one request ends and the next begins must not be a matter of opinion between this server and a proxy.
static bool framing_is_clear(struct evhttp_request *r) {
    int n = 0;
    const struct evkeyval *header;
    for (header = evhttp_request_get_input_headers(r)->tqh_first; header; header = header->next.tqe_next)
        n += !strcasecmp(header->key, "Content-Length");
    return n < 2;
}

// While a request is computed, evhttp reads nothing, and would not see that the client goes away.
static void watch_for_close(struct bufferevent *stream) {
    bufferevent_data_cb write;
    bufferevent_event_cb event;
    void *context;
    bufferevent_getcb(stream, NULL, &write, &event, &context);
    bufferevent_setcb(stream, NULL, write, event, context);
    bufferevent_setwatermark(stream, EV_READ, 0, MOST_AHEAD);
    bufferevent_enable(stream, EV_READ);
}

static void on_request(struct evhttp_request *r, void *context) {
    Http *h = context;
    struct evhttp_connection *c = evhttp_request_get_connection(r);
    struct bufferevent *stream = evhttp_connection_get_bufferevent(c);
    const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(r));
    Exchange *x = calloc(1, sizeof *x);
    if (!x || !framing_is_clear(r)) {
        free(x);
        evhttp_add_header(evhttp_request_get_output_headers(r), "Connection", "close");
        evhttp_send_reply(r, 400, "Bad Request", NULL);
        return;
    }
    *x = (Exchange){.http = h, .request = r, .path = strdup(path && *path ? path : "/")};
    if ((x->connection = connection_find(h, stream))) x->connection->exchange = x;
    if (!h->unix_path) setsockopt(bufferevent_getfd(stream), IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    watch_for_close(stream);
    evhttp_connection_set_closecb(c, on_close, x);
    if (x->path) h->handler.request(h->handler.context, x);
    else exchange_reply(x, 500, "text/plain", "", 0);
}

const char *exchange_method(const Exchange *x) {
    switch (evhttp_request_get_command(x->request)) {
    case EVHTTP_REQ_GET: return "GET";
    case EVHTTP_REQ_HEAD: return "HEAD";
    case EVHTTP_REQ_POST: return "POST";
    case EVHTTP_REQ_OPTIONS: return "OPTIONS";
    default: return "";
    }
}

const char *exchange_path(const Exchange *x) {
    return x->path;
}

const char *exchange_header(const Exchange *x, const char *name) {
    return evhttp_find_header(evhttp_request_get_input_headers(x->request), name);
}

const char *exchange_body(Exchange *x, size_t *n) {
    struct evbuffer *body = evhttp_request_get_input_buffer(x->request);
    *n = evbuffer_get_length(body);
    return *n ? (const char *)evbuffer_pullup(body, -1) : "";
}

void *exchange_user(const Exchange *x) {
    return x->user;
}

void exchange_set_user(Exchange *x, void *user) {
    x->user = user;
}

// ---- replies

static const char *reason(int status) {
    static const struct {
        int status;
        const char *text;
    } list[] = {{200, "OK"},           {204, "No Content"},        {400, "Bad Request"},
                {401, "Unauthorized"}, {404, "Not Found"},         {405, "Method Not Allowed"},
                {413, "Too Large"},    {429, "Too Many Requests"}, {500, "Internal Server Error"}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (list[i].status == status) return list[i].text;
    return "Service Unavailable";
}

void exchange_add_header(Exchange *x, const char *name, const char *value) {
    evhttp_add_header(evhttp_request_get_output_headers(x->request), name, value);
}

// From here on the connection is evhttp's again.
static void let_go(Exchange *x) {
    struct evhttp_connection *c = evhttp_request_get_connection(x->request);
    evhttp_connection_set_closecb(c, NULL, NULL);
    bufferevent_setwatermark(evhttp_connection_get_bufferevent(c), EV_READ, 0, 0);
    if (x->connection) x->connection->since = now(x->http);
}

void exchange_reply(Exchange *x, int status, const char *type, const char *body, size_t n) {
    struct evbuffer *out = evbuffer_new();
    if (out && n) evbuffer_add(out, body, n);
    exchange_add_header(x, "Content-Type", type);
    if (x->http->drains) exchange_add_header(x, "Connection", "close");
    let_go(x);
    evhttp_send_reply(x->request, status, reason(status), out);
    if (out) evbuffer_free(out);
    exchange_free(x);
}

void exchange_start(Exchange *x, const char *type) {
    exchange_add_header(x, "Content-Type", type);
    exchange_add_header(x, "Cache-Control", "no-cache");
    exchange_add_header(x, "X-Accel-Buffering", "no");
    if (x->http->drains) exchange_add_header(x, "Connection", "close");
    x->started = true;
    evhttp_send_reply_start(x->request, 200, reason(200));
}

void exchange_send(Exchange *x, const char *data, size_t n) {
    struct evbuffer *out = evbuffer_new();
    if (!out) return;
    evbuffer_add(out, data, n);
    evhttp_send_reply_chunk(x->request, out);
    evbuffer_free(out);
}

void exchange_end(Exchange *x) {
    let_go(x);
    evhttp_send_reply_end(x->request);
    exchange_free(x);
}

static struct bufferevent *stream_of(const Exchange *x) {
    return evhttp_connection_get_bufferevent(evhttp_request_get_connection(x->request));
}

void exchange_drop(Exchange *x) {
    bufferevent_trigger_event(stream_of(x), BEV_EVENT_TIMEOUT | BEV_EVENT_READING, 0);
}

size_t exchange_pending(const Exchange *x) {
    return evbuffer_get_length(bufferevent_get_output(stream_of(x)));
}

// ---- listening

static int listen_unix(Http *h, const char *path, char *err, size_t errlen) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path)
        return fail(err, errlen, "%s: expected a path of at most %zu bytes", path, sizeof a.sun_path - 1);
    strcpy(a.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool taken = fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof a);
    if (taken) {
        close(fd);
        return fail(err, errlen, "%s: another server listens there", path);
    }
    if (errno == ECONNREFUSED) unlink(path); // left behind by a server that was killed
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 512)) {
        int rc = fail(err, errlen, "%s: %s", path, strerror(errno));
        if (fd >= 0) close(fd);
        return rc;
    }
    h->unix_path = strdup(path);
    h->socket = evhttp_accept_socket_with_handle(h->http, fd);
    return h->socket ? 0 : fail(err, errlen, "out of memory");
}

static int listen_tcp(Http *h, const char *host, int port, char *err, size_t errlen) {
    struct sockaddr_storage a = {0};
    h->socket = evhttp_bind_socket_with_handle(h->http, host, (uint16_t)port);
    if (!h->socket) return fail(err, errlen, "%s port %d: %s", host, port, strerror(errno));
    getsockname(evhttp_bound_socket_get_fd(h->socket), (struct sockaddr *)&a, &(socklen_t){sizeof a});
    h->port =
        ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port : ((struct sockaddr_in *)&a)->sin_port);
    return 0;
}

Http *http_open(struct event_base *base, const char *host, int port, const char *unix_path, const HttpHandler *handler,
                char *err, size_t errlen) {
    Http *h = calloc(1, sizeof *h);
    if (h) *h = (Http){.base = base, .handler = *handler, .http = evhttp_new(base)};
    if (!h || !h->http || !(h->tick = event_new(base, -1, EV_PERSIST, on_tick, h))) {
        fail(err, errlen, "out of memory");
        http_close(h);
        return NULL;
    }
    event_add(h->tick, &(struct timeval){.tv_sec = 1});
    evhttp_set_max_headers_size(h->http, MOST_HEADERS);
    evhttp_set_max_body_size(h->http, MOST_BODY);
    evhttp_set_timeout(h->http, 24 * 3600); // connection_check has its own
    evhttp_set_allowed_methods(h->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST | EVHTTP_REQ_OPTIONS);
    evhttp_set_bevcb(h->http, accept_stream, h);
    evhttp_set_gencb(h->http, on_request, h);
    if (!(unix_path ? listen_unix(h, unix_path, err, errlen) : listen_tcp(h, host, port, err, errlen))) return h;
    http_close(h);
    return NULL;
}

void http_close(Http *h) {
    if (!h) return;
    for (ptrdiff_t i = arrlen(h->connections) - 1; i >= 0; i--)
        if (h->connections[i]->exchange) exchange_drop(h->connections[i]->exchange);
    if (h->http) evhttp_free(h->http);
    for (ptrdiff_t i = 0; i < arrlen(h->connections); i++) {
        bufferevent_decref(h->connections[i]->stream);
        free(h->connections[i]);
    }
    arrfree(h->connections);
    if (h->tick) event_free(h->tick);
    if (h->unix_path) unlink(h->unix_path);
    free(h->unix_path);
    free(h);
}

int http_port(const Http *h) {
    return h->port;
}

void http_drain(Http *h) {
    h->drains = true;
}
