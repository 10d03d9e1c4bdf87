// http_client.h: an HTTP client for tests of build/serve: requests as bytes, replies with headers and whole bodies.
//
// A child started by server_start listens at a port of its own; folder_make() first.
#pragma once
#include "child.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

static pid_t server_pid;
static int server_port_number;

typedef struct {
    int status;    // 0: no reply
    char *headers; // terminated, with the status line
    char *body;    // terminated; chunks joined
    size_t n;
} Response;

static void sleep_ms(int ms) {
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

// Starts build/serve with these arguments and --port 0. False: it does not say that it listens.
static bool server_start(const char *const *args) {
    const char *all[MAX_ARGS] = {"serve", "--port", "0"};
    int n = 3;
    while (*args) all[n++] = *args++;
    unlink(in_folder("err")); // of the server before
    server_pid = start(NULL, all);
    for (int i = 0; i < 2000; i++, sleep_ms(10)) {
        FILE *f = fopen(in_folder("err"), "r"); // not read_file: it may be empty still
        char line[256] = "";
        while (f && fgets(line, sizeof line, f) && strncmp(line, "listening", 9) != 0) continue;
        if (f) fclose(f);
        const char *port = strchr(line, '\n') ? strrchr(line, ':') : NULL;
        if (!strncmp(line, "listening", 9) && port) {
            server_port_number = atoi(port + 1);
            return true;
        }
        if (waitpid(server_pid, NULL, WNOHANG)) return false;
    }
    return false;
}
#define SERVER_START(...) server_start((const char *const[]){__VA_ARGS__, NULL})

// Ends it with a signal; returns its exit status.
static int server_stop(int signal_number) {
    kill(server_pid, signal_number);
    Result r = finish(server_pid);
    int status = r.status;
    if (status) fprintf(stderr, "%s", r.err);
    release(&r);
    return status;
}

static int dial(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)server_port_number)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (!connect(fd, (struct sockaddr *)&a, sizeof a)) return fd;
    close(fd);
    return -1;
}

static void say(int fd, const char *bytes, size_t n) {
    for (ssize_t k; n && (k = send(fd, bytes, n, MSG_NOSIGNAL)) > 0; n -= (size_t)k) bytes += k;
}

// Everything until the other side closes, or nothing comes for `ms`. stb-free: malloc'd and terminated.
static char *hear(int fd, int ms, size_t *n) {
    char *all = malloc(1);
    *n = 0;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        char piece[16384];
        ssize_t k = poll(&p, 1, ms) > 0 ? recv(fd, piece, sizeof piece, 0) : 0;
        if (k <= 0) break;
        all = realloc(all, *n + (size_t)k + 1);
        memcpy(all + *n, piece, (size_t)k);
        *n += (size_t)k;
    }
    all[*n] = 0;
    return all;
}

// Joins the chunks of a body in place; returns its new length.
static size_t join_chunks(char *body, size_t n) {
    size_t out = 0, at = 0;
    while (at < n) {
        char *end;
        size_t len = strtoul(body + at, &end, 16);
        at = (size_t)(end - body) + 2;
        if (!len || at + len > n) break;
        memmove(body + out, body + at, len);
        out += len;
        at += len + 2;
    }
    body[out] = 0;
    return out;
}

static Response parse_response(char *all, size_t n) {
    char *end = strstr(all, "\r\n\r\n");
    Response r = {0};
    if (!end || sscanf(all, "HTTP/1.%*d %d", &r.status) != 1) {
        r.headers = strdup("");
        r.body = all;
        return r;
    }
    r.headers = strndup(all, (size_t)(end + 2 - all));
    r.n = n - (size_t)(end + 4 - all);
    r.body = memmove(all, end + 4, r.n + 1);
    if (strcasestr(r.headers, "\r\nTransfer-Encoding: chunked")) r.n = join_chunks(r.body, r.n);
    return r;
}

// These bytes, and what comes until the connection is closed.
static Response raw(const char *bytes, size_t n) {
    int fd = dial();
    if (fd < 0) return (Response){.headers = strdup(""), .body = strdup("")};
    say(fd, bytes, n);
    char *all = hear(fd, 60000, &n);
    close(fd);
    return parse_response(all, n);
}

static char *request_text(const char *method, const char *path, const char *headers, const char *body) {
    char *text = NULL;
    if (asprintf(&text, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n%s",
                 method, path, headers, strlen(body), body) < 0)
        abort();
    return text;
}

static Response ask(const char *method, const char *path, const char *body) {
    char *text = request_text(method, path, "Content-Type: application/json\r\n", body);
    Response r = raw(text, strlen(text));
    free(text);
    return r;
}

static void response_free(Response *r) {
    free(r->headers);
    free(r->body);
}

// The reply to a body in which ' stands for ", as JSON; its status must be this one. json_decref() it.
static json_t *ask_json(int status, const char *path, const char *body) {
    char *text = json_of(body);
    Response r = ask("POST", path, text);
    json_t *v = json_loadb(r.body, r.n, 0, NULL);
    CHECK(r.status == status && v, "%s %s: expected status %d with JSON, found %d: %s", path, body, status, r.status,
          r.body);
    response_free(&r);
    free(text);
    return v;
}
