// Many sessions of one engine: they share threads and buffers, cost little while idle, and may run in threads of their
// own.
#include "make_bin.h"
#include "test.h"

#include "tessera.h"

#include <dirent.h>
#include <malloc.h>
#include <pthread.h>

#define MODEL "models/stories.bin"

enum { N_SESSIONS = 16, N_TOKENS = 40, IDLE_BYTES = 64 << 10 };

static Engine *open_engine(const char *path) {
    char err[256] = "";
    Engine *e = engine_open(path, NULL, err, sizeof err);
    if (e) return e;
    fprintf(stderr, "%s\n", err);
    exit(1);
}

static Session *open_session(const Engine *e, int n_threads) {
    char err[256] = "";
    Session *s = session_open(e, &(SessionOptions){.n_threads = n_threads}, err, sizeof err);
    if (s) return s;
    fprintf(stderr, "%s\n", err);
    exit(1);
}

static int count_threads(void) {
    int n = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *d = readdir(tasks); d; d = readdir(tasks)) n += d->d_name[0] != '.';
    closedir(tasks);
    return n;
}

// The text of session i: the same beginning, then its own.
static void make_text(int i, int vocab, int32_t *ids) {
    for (int t = 0; t < N_TOKENS; t++) ids[t] = t < 8 ? 5 + t : 3 + (i * 31 + t * 7) % (vocab - 3);
}

static void threads_are_shared(void) {
    Engine *e = open_engine(MODEL);
    session_close(open_session(e, 3)); // a sanitizer starts a thread of its own with the first
    int before = count_threads();
    Session *first = open_session(e, 3), *more[N_SESSIONS];
    CHECK(count_threads() == before + 2, "one session: %d threads more, expected 2", count_threads() - before);
    for (int i = 0; i < N_SESSIONS; i++) more[i] = open_session(e, 3);
    CHECK(count_threads() == before + 2, "%d sessions: %d threads more", N_SESSIONS + 1, count_threads() - before);
    CHECK(session_info(more[0]).n_threads == 3, "n_threads %d", session_info(more[0]).n_threads);
    session_close(first);
    for (int i = 0; i < N_SESSIONS; i++) session_close(more[i]);
    CHECK(count_threads() == before, "closed: %d threads stay", count_threads() - before);
    engine_close(e);
}

// ---- states

enum { STATE_DIM = 32, STATE_VOCAB = 300 };

typedef struct {
    int n, n_states;
    float logits[N_TOKENS][STATE_VOCAB], states[N_TOKENS][STATE_DIM];
} Seen;

static void see_logits(void *context, int position, const float *logits) {
    Seen *s = context;
    memcpy(s->logits[position], logits, sizeof s->logits[position]);
    s->n++;
}

static void see_state(void *context, int position, const float *state) {
    Seen *s = context;
    CHECK(position == s->n_states, "position %d, expected %d", position, s->n_states);
    memcpy(s->states[position], state, sizeof s->states[position]);
    s->n_states++;
}

static const BinSpec small = {STATE_DIM, 48, 2, 4, 2, STATE_VOCAB, 64, .seed = 5};

static Engine *open_small(void) {
    make_bin(BIN_DIR "states.bin", &small);
    make_tokenizer_bin(BIN_DIR "states.tokenizer.bin", STATE_VOCAB, 5);
    return open_engine(BIN_DIR "states.bin");
}

// States times the output matrix are the logits, at every position, also of a text that is computed in two steps.
static void states_give_the_logits(void) {
    char err[256];
    static Seen seen;
    int32_t ids[N_TOKENS];
    Engine *e = open_small();
    Session *s = session_open(e, NULL, err, sizeof err);
    NEED(s, "%s", err);
    make_text(0, STATE_VOCAB, ids);
    session_visit(s, see_logits, &seen);
    session_visit_states(s, see_state, &seen);
    CHECK(!session_sync(s, ids, 7, err, sizeof err) && !session_sync(s, ids, N_TOKENS, err, sizeof err), "%s", err);
    CHECK(seen.n == N_TOKENS && seen.n_states == N_TOKENS, "%d logits, %d states", seen.n, seen.n_states);
    float *w = bin_values(&small, BIN_CLASSIFIER, 0);
    for (int t = 0; t < N_TOKENS; t++) {
        for (int v = 0; v < STATE_VOCAB; v++) {
            double want = 0, bound = 0;
            for (int i = 0; i < STATE_DIM; i++) {
                double x = (double)w[v * STATE_DIM + i] * (double)seen.states[t][i];
                want += x;
                bound += fabs(x);
            }
            double error = fabs((double)seen.logits[t][v] - want);
            CHECK(error <= 0x1p-6 * bound, "token %d, logit %d: expected %g, found %g", t, v, want,
                  (double)seen.logits[t][v]);
        }
    }
    free(w);
    session_close(s);
    engine_close(e);
}

static size_t allocated(void) {
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

// Beside its cache, an idle session costs its text and one row of logits.
static void an_idle_session_is_small(void) {
    char err[256] = "";
    Engine *e = open_small();
    int vocab = engine_info(e).vocab_size;
    int32_t ids[N_TOKENS];
    Session *first = open_session(e, 2), *more[N_SESSIONS];
    make_text(0, vocab, ids);
    CHECK(!session_sync(first, ids, N_TOKENS, err, sizeof err), "%s", err);
    size_t before = allocated();
    uint64_t cache = 0;
    for (int i = 0; i < N_SESSIONS; i++) {
        more[i] = open_session(e, 2);
        CHECK(!session_sync(more[i], ids, N_TOKENS, err, sizeof err), "%s", err);
        cache += session_info(more[i]).kv_bytes;
    }
    size_t each = (allocated() - before - (size_t)cache) / N_SESSIONS;
    size_t most = IDLE_BYTES + sizeof(float) * (size_t)vocab;
    // Sanitizers keep malloc's figures to themselves.
    CHECK(!before || each < most, "%zu bytes for a session, expected less than %zu", each, most);
    session_close(first);
    for (int i = 0; i < N_SESSIONS; i++) session_close(more[i]);
    engine_close(e);
}

typedef struct {
    Session *session;
    const float *logits;
    int index, vocab;
    bool token_by_token;
    char err[256];
} Job;

static void *run_session(void *job) {
    Job *j = job;
    int32_t ids[N_TOKENS];
    make_text(j->index, j->vocab, ids);
    for (int n = j->token_by_token ? 8 : N_TOKENS; n <= N_TOKENS; n++) {
        if (session_sync(j->session, ids, n, j->err, sizeof j->err)) return NULL;
    }
    j->logits = session_logits(j->session);
    return NULL;
}

// Sessions that compute at the same time, some a token at a time, give what each gives alone.
static void sessions_do_not_disturb_one_another(void) {
    enum { N = 4 };
    Engine *e = open_engine(MODEL);
    int vocab = engine_info(e).vocab_size;
    size_t row = sizeof(float) * (size_t)vocab;
    Job jobs[N] = {0}, alone[N] = {0};
    pthread_t threads[N];
    for (int i = 0; i < N; i++) {
        jobs[i] = alone[i] = (Job){.index = i, .vocab = vocab, .token_by_token = i % 2};
        alone[i].session = open_session(e, 2);
        run_session(&alone[i]);
        jobs[i].session = open_session(e, 2);
    }
    for (int i = 0; i < N; i++) pthread_create(&threads[i], NULL, run_session, &jobs[i]);
    for (int i = 0; i < N; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < N; i++) {
        bool both = jobs[i].logits && alone[i].logits;
        CHECK(both, "session %d: %s%s", i, jobs[i].err, alone[i].err);
        if (both) CHECK(!memcmp(jobs[i].logits, alone[i].logits, row), "session %d: other logits than alone", i);
        for (int k = 0; both && k < i; k++) {
            CHECK(memcmp(jobs[i].logits, jobs[k].logits, row) != 0, "sessions %d and %d: the same logits", i, k);
        }
    }
    for (int i = 0; i < N; i++) {
        session_close(jobs[i].session);
        session_close(alone[i].session);
    }
    engine_close(e);
}

int main(void) {
    RUN(threads_are_shared);
    RUN(states_give_the_logits);
    RUN(an_idle_session_is_small);
    RUN(sessions_do_not_disturb_one_another);
    return test_report();
}
