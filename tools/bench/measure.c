// measure: see measure.h.
#include "measure.h"

#include "cli.h"

#include <stdlib.h>

static uint64_t random_state = 0x9E3779B97F4A7C15u;

uint32_t measure_random(void) { // xorshift64*
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)(random_state * 0x2545F4914F6CDD1Du >> 32);
}

void *measure_alloc(size_t bytes) {
    void *p;
    if (posix_memalign(&p, 64, bytes ? bytes : 1)) die(1, "out of memory: %.1f MiB", (double)bytes / 0x1p20);
    return p;
}

void measure_use_threads(Bench *b, int i) {
    b->n_threads = b->o.threads.v[i];
    b->machine = &b->machines[i];
}

void measure_use_model(Bench *b, int i) {
    b->model = &b->models[i];
    b->info = b->model->info;
}

void measure_open(Bench *b, int n_needed, const char *who) {
    char err[512];
    if (b->o.session.n_ctx && b->o.session.n_ctx < n_needed) {
        die(2, "-c %d: %s needs %d tokens", b->o.session.n_ctx, who, n_needed);
    }
    SessionOptions so = b->o.session;
    so.n_ctx = n_needed; // may exceed the model's own: speed does not depend on the quality of the text
    so.n_threads = b->n_threads;
    b->session = session_open(b->model->engine, &so, err, sizeof err);
    if (!b->session) die(1, "%s", err);
    b->tokens = measure_alloc(sizeof *b->tokens * (size_t)n_needed);
    uint32_t vocab = (uint32_t)b->info.vocab_size, first = vocab > 512 ? 259 : 0; // no control and byte tokens
    for (int i = 0; i < n_needed; i++) b->tokens[i] = (int32_t)(first + measure_random() % (vocab - first));
}

void measure_close(Bench *b) {
    session_close(b->session);
    free(b->tokens);
    b->session = NULL;
    b->tokens = NULL;
}

static void sync_text(Bench *b, int n) {
    char err[512];
    if (session_sync(b->session, b->tokens, n, err, sizeof err)) die(1, "%s", err);
}

// Leaves the first `depth` tokens in the session; for 0, one different token, since a session cannot be empty.
static void rewind_text(Bench *b, int depth) {
    char err[512];
    int32_t other = b->tokens[0] == 0 ? 1 % b->info.vocab_size : 0;
    if (depth) sync_text(b, depth);
    else if (session_sync(b->session, &other, 1, err, sizeof err)) die(1, "%s", err);
}

uint64_t measure_held(const Bench *b) {
    SessionInfo info = session_info(b->session);
    return info.kv_bytes + info.state_bytes;
}

double measure_prefill(Bench *b, int depth, int n) {
    rewind_text(b, depth);
    session_profile(b->session, b->profile);
    double start = seconds();
    sync_text(b, depth + n);
    double took = seconds() - start;
    session_profile(b->session, NULL);
    return took;
}

// bytes: read for each of the n tokens, on average
double measure_decode(Bench *b, int depth, int n, double *bytes) {
    rewind_text(b, depth);
    uint64_t kv = 0;
    session_profile(b->session, b->profile);
    double start = seconds();
    for (int i = 1; i <= n; i++) {
        sync_text(b, depth + i);
        kv += session_info(b->session).memory_token_bytes;
    }
    double took = seconds() - start;
    session_profile(b->session, NULL);
    *bytes = (double)b->info.token_bytes + (double)kv / n;
    return took;
}
