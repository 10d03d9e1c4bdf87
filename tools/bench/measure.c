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

void measure_open(Bench *b, int n_sessions, int n_needed, const char *who) {
    char err[512];
    if (b->o.session.n_ctx && b->o.session.n_ctx < n_needed) {
        die(2, "-c %d: %s needs %d tokens", b->o.session.n_ctx, who, n_needed);
    }
    SessionOptions so = b->o.session;
    so.n_ctx = n_needed; // may exceed the model's own: speed does not depend on the quality of the text
    so.n_threads = b->n_threads;
    for (b->n_sessions = 0; b->n_sessions < n_sessions; b->n_sessions++) {
        b->sessions[b->n_sessions] = session_open(b->model->engine, &so, err, sizeof err);
        if (!b->sessions[b->n_sessions]) die(1, "%s", err);
    }
    b->session = b->sessions[0];
    b->n_sequences = 1;
    n_needed += n_sessions; // a text begins one token later than the one before it
    b->tokens = measure_alloc(sizeof *b->tokens * (size_t)n_needed);
    uint32_t vocab = (uint32_t)b->info.vocab_size, first = vocab > 512 ? 259 : 0; // no control and byte tokens
    for (int i = 0; i < n_needed; i++) b->tokens[i] = (int32_t)(first + measure_random() % (vocab - first));
}

void measure_close(Bench *b) {
    for (int i = 0; i < b->n_sessions; i++) session_close(b->sessions[i]);
    b->n_sessions = 0;
    free(b->tokens);
    b->session = NULL;
    b->tokens = NULL;
}

static void sync_text(Bench *b, int n) {
    char err[512];
    if (session_sync(b->session, b->tokens, n, err, sizeof err)) die(1, "%s", err);
}

// Leaves the first `depth` tokens in a session; for 0, one different token, since a session cannot be empty.
static void rewind_session(Session *s, const int32_t *tokens, int depth) {
    char err[512];
    int32_t other = tokens[0] == 0;
    if (session_sync(s, depth ? tokens : &other, depth ? depth : 1, err, sizeof err)) die(1, "%s", err);
}

static void rewind_texts(Bench *b, int depth) {
    for (int i = 0; i < b->n_sequences; i++) rewind_session(b->sessions[i], b->tokens + i, depth);
}

// Every sequence's next token, where it has `length`.
static void step_texts(Bench *b, int length) {
    static StepSegment list[MAX_SEQUENCES];
    if (b->n_sequences == 1) {
        sync_text(b, length + 1);
        return;
    }
    for (int i = 0; i < b->n_sequences; i++) {
        list[i] = (StepSegment){.session = b->sessions[i], .tokens = b->tokens + i + length, .n = 1, .logits = true};
        if (!length) session_keep(b->sessions[i], NULL, 0);
    }
    if (!engine_step(b->model->engine, list, b->n_sequences, false)) return;
    for (int i = 0; i < b->n_sequences; i++) {
        if (list[i].err[0]) die(1, "%s", list[i].err);
    }
}

SessionInfo measure_info(const Bench *b) {
    SessionInfo all = session_info(b->session);
    for (int i = 1; i < b->n_sequences; i++) {
        SessionInfo one = session_info(b->sessions[i]);
        all.kv_bytes += one.kv_bytes;
        all.state_bytes += one.state_bytes;
        all.memory_token_bytes += one.memory_token_bytes;
    }
    return all;
}

uint64_t measure_held(const Bench *b) {
    SessionInfo all = measure_info(b);
    return all.kv_bytes + all.state_bytes;
}

double measure_prefill(Bench *b, int depth, int n) {
    rewind_texts(b, depth);
    session_profile(b->session, b->profile);
    double start = seconds();
    sync_text(b, depth + n);
    double took = seconds() - start;
    session_profile(b->session, NULL);
    return took;
}

double measure_decode(Bench *b, int depth, int n, double *bytes) {
    rewind_texts(b, depth);
    uint64_t kv = 0;
    session_profile(b->session, b->profile);
    double start = seconds();
    for (int i = 0; i < n; i++) {
        step_texts(b, depth + i);
        kv += measure_info(b).memory_token_bytes;
    }
    double took = seconds() - start;
    session_profile(b->session, NULL);
    *bytes = ((double)b->info.token_bytes + (double)kv / n) / b->n_sequences;
    return took;
}
