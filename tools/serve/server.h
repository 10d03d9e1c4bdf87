// server: the API over HTTP: routes, keys, streams, limits, draining.
//
// Owns what stands between an Exchange (http.h) and a Job (job.h). All calls belong to the thread of the event loop.
#pragma once
#include "http.h"
#include "metrics.h"
#include "worker.h"

typedef struct {
    const char *host, *unix_path; // unix_path NULL: TCP
    int port;
    const char *api_key; // NULL: none is asked for
    Served model;
    SessionOptions session;
    bool exact;                 // the text at temperature 0 does not depend on what is computed beside it
    SchedulerOptions scheduler; // its `queue` is the server's
} ServerOptions;

typedef struct Server Server;

// NULL with a line in err. What options point to outlives the server.
Server *server_open(struct event_base *base, const ServerOptions *o, char *err, size_t errlen);
void server_close(Server *s); // accepts NULL
int server_port(const Server *s);

// No new texts; the event loop ends when the last one is complete.
void server_drain(Server *s);
