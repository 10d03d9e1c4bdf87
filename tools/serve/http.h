// http: HTTP/1.1 by libevent's evhttp: requests in, replies and event streams out.
//
// Owns connections: their limits (headers, bodies, number, time without progress), the closing of idle ones, and the
// news that a client is gone. Refuses requests with several Content-Length. Knows no route. All calls belong to the
// thread of the event loop.
#pragma once
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct Http Http;
typedef struct Exchange Exchange; // one request, until it is answered or its client is gone

typedef struct {
    void *context;
    void (*request)(void *context, Exchange *x);
    void (*closed)(void *context, Exchange *x); // the client of an unanswered request is gone; x ends with the call
} HttpHandler;

// Listens: unix_path NULL: at host and port (0: any that is free). NULL with a line in err.
Http *http_open(struct event_base *base, const char *host, int port, const char *unix_path, const HttpHandler *handler,
                char *err, size_t errlen);
void http_close(Http *h);     // accepts NULL; every open exchange is closed
int http_port(const Http *h); // that it listens at; 0: a unix socket
void http_drain(Http *h);     // from now on replies end their connections

// ---- the request

const char *exchange_method(const Exchange *x);                   // "GET"
const char *exchange_path(const Exchange *x);                     // without the query
const char *exchange_header(const Exchange *x, const char *name); // NULL: not there
const char *exchange_body(Exchange *x, size_t *n);
void *exchange_user(const Exchange *x);
void exchange_set_user(Exchange *x, void *user);

// ---- the reply: a whole one, or a stream. The exchange ends with exchange_reply and exchange_end.

void exchange_add_header(Exchange *x, const char *name, const char *value);
void exchange_reply(Exchange *x, int status, const char *type, const char *body, size_t n);
void exchange_start(Exchange *x, const char *type); // status 200
void exchange_send(Exchange *x, const char *data, size_t n);
void exchange_end(Exchange *x);
void exchange_drop(Exchange *x);            // closes the connection: `closed` is called
size_t exchange_pending(const Exchange *x); // bytes that the client has not taken yet
