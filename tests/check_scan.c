// The selective scan against the recurrence in double, token by token: other calls, threads and timelines beside it
// give the same bits, and so does going back to every position of the text.
#include "reference.h"
#include "scan.h"

#include <math.h>

enum { TOKENS = 3 * STATE_CHUNK + 19, N_THREADS = 3 };

static Compute computes[N_THREADS];

// A text's rows; those of b and q lie in one, as models have them.
typedef struct {
    StateShape shape;
    int ld;
    float *step, *u, *bq, *a;
} Rows;

static float *floats(int64_t n) {
    float *x = calloc((size_t)n, sizeof *x);
    if (!x) abort();
    return x;
}

static int64_t width(const Rows *r) {
    return r->shape.v_dim;
}

static Rows make_rows(int states, int channels) {
    Rows r = {.shape = {.n_heads = 1, .n_key_heads = 1, .k_dim = states, .v_dim = channels, .scan = 1}};
    r.ld = 2 * states + 3;
    r.step = floats(TOKENS * width(&r));
    r.u = floats(TOKENS * width(&r));
    r.bq = floats((int64_t)TOKENS * r.ld);
    r.a = floats((int64_t)states * channels);
    for (int64_t i = 0; i < TOKENS * width(&r); i++) {
        r.step[i] = pick(50) ? 0.05f * (1.01f + test_uniform()) : 40; // or nearly all is forgotten
        r.u[i] = r.step[i] * test_uniform();
    }
    for (int64_t i = 0; i < (int64_t)TOKENS * r.ld; i++) r.bq[i] = test_uniform();
    for (int64_t i = 0; i < (int64_t)states * channels; i++)
        r.a[i] = -(float)(1 + i / channels) * (1 + test_uniform() / 2);
    return r;
}

static void free_rows(Rows *r) {
    free(r->step);
    free(r->u);
    free(r->bq);
    free(r->a);
}

static State *open_state(const Rows *r) {
    char err[200];
    State *s = state_open(&r->shape, 2, err, sizeof err);
    if (!s) test_fail(__FILE__, __LINE__, "%s", err);
    if (!s) abort();
    return s;
}

// The next n rows of the text.
static Scan rows_from(const Rows *r, State *state, int n, float *y) {
    int64_t at = state_length(state), row = at * width(r);
    const float *b = r->bq + at * r->ld;
    return (Scan){.state = state,
                  .n = n,
                  .step = r->step + row,
                  .u = r->u + row,
                  .b = b,
                  .q = b + r->shape.k_dim,
                  .ld = r->ld,
                  .a = r->a,
                  .y = y + row};
}

static void run(const Compute *c, const Rows *r, State *state, int n, float *y) {
    Scan rows = rows_from(r, state, n, y);
    scan(c, &rows, 1);
    state_advance(state, n);
}

static void check_reference(const Rows *r, const float *y) {
    int states = r->shape.k_dim;
    double error = 0, power = 0;
    for (int64_t c = 0; c < width(r); c++) {
        double h[64] = {0};
        for (int64_t t = 0; t < TOKENS; t++) {
            const float *b = r->bq + t * r->ld;
            double sum = 0, step = (double)r->step[t * width(r) + c], u = (double)r->u[t * width(r) + c];
            for (int i = 0; i < states; i++) {
                h[i] = exp(step * (double)r->a[i * width(r) + c]) * h[i] + u * (double)b[i];
                sum += h[i] * (double)b[states + i];
            }
            double off = (double)y[t * width(r) + c] - sum;
            error += off * off;
            power += sum * sum;
        }
    }
    CHECK(error <= 1e-12 * power, "%d states of %d channels: NMSE %.2g", states, r->shape.v_dim, error / power);
}

static void check_same(const Rows *r, const float *a, const float *b, int from, const char *how, int number) {
    bool same = !memcmp(a + from * width(r), b + from * width(r), sizeof *a * (size_t)((TOKENS - from) * width(r)));
    CHECK(same, "%d states of %d channels: %s (%d) gives other bits", r->shape.k_dim, r->shape.v_dim, how, number);
}

static void check_calls(const Rows *r, const float *y, float *again) {
    for (int each = 1; each < TOKENS; each += each < 5 ? 1 : 13) {
        State *s = open_state(r);
        for (int left = TOKENS; left > 0; left -= each) {
            run(&computes[each % N_THREADS], r, s, left < each ? left : each, again);
        }
        check_same(r, y, again, 0, "tokens at a time", each);
        state_close(s);
    }
}

// From each length back to each position of its open chunk, and on from there, one token first.
static void check_going_back(const Rows *r, const float *y, float *again) {
    State *s = open_state(r);
    for (int length = 1; length <= TOKENS; length += by_speed(7, 7, 29)) {
        for (int to = length / STATE_CHUNK * STATE_CHUNK; to <= length && to < TOKENS; to++) {
            state_restart(s);
            run(&computes[0], r, s, length, again);
            state_truncate(s, to);
            memset(again, 0, sizeof *again * (size_t)(TOKENS * width(r)));
            run(&computes[1], r, s, 1, again);
            if (to + 1 < TOKENS) run(&computes[0], r, s, TOKENS - to - 1, again);
            check_same(r, y, again, to, "going back to", to);
        }
    }
    state_close(s);
}

static void check_borders(const Rows *r, const float *y, float *again) {
    State *s = open_state(r);
    run(&computes[0], r, s, STATE_CHUNK + 5, again);
    state_save(s, 1);
    run(&computes[0], r, s, STATE_CHUNK, again);
    state_restore(s, 1, STATE_CHUNK);
    memset(again, 0, sizeof *again * (size_t)(TOKENS * width(r)));
    run(&computes[2], r, s, TOKENS - STATE_CHUNK, again);
    check_same(r, y, again, STATE_CHUNK, "a saved border", 1);
    state_close(s);
}

static void shapes(void) {
    static const int list[][2] = {{16, 64}, {16, 100}, {1, 3}, {5, 33}, {64, 7}, {16, 129}};
    for (int i = 0; i < N_OF(list); i++) {
        Rows r = make_rows(list[i][0], list[i][1]);
        float *y = floats(TOKENS * width(&r)), *again = floats(TOKENS * width(&r));
        State *s = open_state(&r);
        run(&computes[0], &r, s, TOKENS, y);
        check_reference(&r, y);
        check_calls(&r, y, again);
        check_going_back(&r, y, again);
        check_borders(&r, y, again);
        state_close(s);
        free(y);
        free(again);
        free_rows(&r);
    }
}

static void two_timelines(void) {
    Rows r = make_rows(16, 100);
    float *alone = floats(TOKENS * width(&r)), *both[] = {floats(TOKENS * width(&r)), floats(TOKENS * width(&r))};
    State *s[] = {open_state(&r), open_state(&r), open_state(&r)};
    run(&computes[0], &r, s[0], TOKENS, alone);
    run(&computes[0], &r, s[1], 40, both[0]);
    Scan list[] = {rows_from(&r, s[1], TOKENS - 40, both[0]), rows_from(&r, s[2], TOKENS, both[1])};
    scan(&computes[2], list, 2);
    check_same(&r, alone, both[0], 0, "timeline", 0);
    check_same(&r, alone, both[1], 0, "timeline", 1);
    for (int i = 0; i < 3; i++) state_close(s[i]);
    free(alone);
    free(both[0]);
    free(both[1]);
    free_rows(&r);
}

int main(void) {
    char err[200];
    for (int i = 0; i < N_THREADS; i++) {
        if (!compute_open(&computes[i], i + 1, err, sizeof err)) continue;
        fprintf(stderr, "%s\n", err);
        return 1;
    }
    RUN(shapes);
    RUN(two_timelines);
    for (int i = 0; i < N_THREADS; i++) compute_close(&computes[i]);
    return test_report();
}
