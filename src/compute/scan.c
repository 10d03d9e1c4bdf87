// scan: see scan.h.
#include "scan.h"

#include <string.h>

// Channels of an item of work. While it runs several rows, its states and A lie side by side: in the matrices the rows
// of so many channels lie apart by what makes them share lines of the first cache. One row alone reads a line once.
enum { CHANNELS = 64 };
_Static_assert(2 * SCAN_STATES * CHANNELS * sizeof(float) <= COMPUTE_SCRATCH, "a worker's scratch holds h and A");

// One block of channels of one timeline.
typedef struct {
    const Scan *s;
    const Kernels *kernels;
    int first, n, states, channels;
    float *h; // [states][ld]
    const float *a;
    int64_t ld;
} Block;

static void copy_block(const Block *b, float *to, int64_t to_ld, const float *from, int64_t from_ld) {
    if (to == from) return;
    for (int64_t i = 0; i < b->states; i++) {
        memcpy(to + i * to_ld, from + i * from_ld, sizeof *to * (size_t)b->n);
    }
}

// To the block's columns of a matrix [states][channels].
static void store_block(const Block *b, float *to) {
    copy_block(b, to + b->first, b->channels, b->h, b->ld);
}

static void run_row(const Block *b, float *y, const float *step, const float *u, const float *key, const float *query) {
    b->kernels->scan_row(y, b->h, b->a, b->ld, step + b->first, u + b->first, key, query, b->n, b->states);
}

// The state at the end of the text: the running one, or the border's and the rows behind it, where going back or a
// restart has left another there.
static void load_state(const Block *b) {
    State *s = b->s->state;
    float unused[CHANNELS];
    int row = state_decayed(s);
    const float *from = row ? state_running(s) : state_matrix(s, 0);
    copy_block(b, b->h, b->ld, from + b->first, b->channels);
    for (int n = state_length(s) - state_border(s); row < n; row++) {
        const float *key = state_keys(s, 0) + (int64_t)row * b->states;
        int64_t at = (int64_t)row * b->channels;
        run_row(b, unused, state_steps(s) + at, state_updates(s, 0) + at, key, key);
    }
}

static void run_block(const Block *b) {
    const Scan *s = b->s;
    int length = state_length(s->state);
    load_state(b);
    for (int64_t t = 0; t < s->n; t++) {
        int64_t at = t * b->channels;
        run_row(b, s->y + at + b->first, s->step + at, s->u + at, s->b + t * s->ld, s->q + t * s->ld);
        if ((length + t + 1) % STATE_CHUNK == 0) store_block(b, state_matrix(s->state, 0));
    }
    store_block(b, state_running(s->state));
}

typedef struct {
    const Compute *compute;
    const Scan *list;
    int n_blocks;
} Job;

static void run_item(void *context, int index, int worker) {
    const Job *job = context;
    const Scan *s = &job->list[index / job->n_blocks];
    const StateShape *shape = state_shape(s->state);
    Block b = {.s = s, .kernels = job->compute->kernels, .first = index % job->n_blocks * CHANNELS};
    b.states = shape->k_dim;
    b.channels = shape->v_dim;
    b.n = b.channels - b.first < CHANNELS ? b.channels - b.first : CHANNELS;
    b.h = state_running(s->state) + b.first;
    b.a = s->a + b.first;
    b.ld = b.channels;
    if (s->n > 1) {
        float *a = compute_scratch(job->compute, worker);
        copy_block(&b, a, CHANNELS, b.a, b.ld);
        b.a = a;
        b.h = a + SCAN_STATES * CHANNELS;
        b.ld = CHANNELS;
    }
    run_block(&b);
}

// The rows of the chunk that stays open, behind those that the state has.
static void store_rows(const Scan *s) {
    const StateShape *shape = state_shape(s->state);
    int length = state_length(s->state), end = length + s->n, border = end / STATE_CHUNK * STATE_CHUNK;
    size_t row = sizeof(float) * (size_t)shape->v_dim;
    for (int64_t pos = border > length ? border : length; pos < end; pos++) {
        int64_t from = pos - length, to = pos - border;
        memcpy(state_steps(s->state) + to * shape->v_dim, s->step + from * shape->v_dim, row);
        memcpy(state_updates(s->state, 0) + to * shape->v_dim, s->u + from * shape->v_dim, row);
        memcpy(state_keys(s->state, 0) + to * shape->k_dim, s->b + from * s->ld, sizeof(float) * (size_t)shape->k_dim);
    }
}

void scan(const Compute *c, const Scan *list, int n) {
    enum { SMALL = 1 << 12 };
    const StateShape *shape = state_shape(list->state);
    int64_t rows = 0, size = (int64_t)shape->k_dim * shape->v_dim;
    for (int i = 0; i < n; i++) rows += list[i].n;
    Job job = {.compute = c, .list = list, .n_blocks = (shape->v_dim + CHANNELS - 1) / CHANNELS};
    profile_begin(c->profile, PROFILE_RECURRENCE);
    threads_for_if(rows * size >= SMALL, c->pool, n * job.n_blocks, run_item, &job);
    for (int i = 0; i < n; i++) store_rows(&list[i]);
    profile_end(c->profile, 20.0 * (double)(rows * size), 4.0 * n * (double)size);
}
