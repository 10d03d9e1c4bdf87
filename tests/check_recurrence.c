// States of recurrent layers against the recurrence in double, token by token: the gated delta rule, a scalar decay, no
// decay, decays for each key channel (GLA, RWKV-6, RWKV-7), the causal convolution; the same bits however a text is cut
// into calls and on any number of threads; going back within the open chunk and to a saved border.
#include "convolution.h"
#include "recurrence.h"
#include "recurrence_channels.h"
#include "test.h"

#include <math.h>

enum { TOKENS = 3 * STATE_CHUNK + 17, MOST_HEADS = 6, MOST_DIM = 128, N_THREADS = 3 };

typedef enum { DELTA, DECAY, PLAIN, N_RULES } Rule;

typedef struct {
    StateShape shape;
    Rule rule;
    KeyHeadOrder order;
} Case;

// Rows of a text, with more floats from row to row than they need.
typedef struct {
    int q_ld, v_ld;
    float *q, *k, *v, *g, *beta;
} Rows;

static Compute computes[N_THREADS];

static float *random_floats(int64_t n, float scale, float shift) {
    float *x = malloc(sizeof *x * (size_t)n);
    if (!x) abort();
    for (int64_t i = 0; i < n; i++) x[i] = scale * test_uniform() + shift;
    return x;
}

static Rows make_rows(const StateShape *s) {
    Rows r = {.q_ld = s->n_key_heads * s->k_dim + 3, .v_ld = s->n_heads * s->v_dim + 5};
    float width = 1.7f / sqrtf((float)s->k_dim);
    r.q = random_floats((int64_t)TOKENS * r.q_ld, width, 0);
    r.k = random_floats((int64_t)TOKENS * r.q_ld, width, 0);
    r.v = random_floats((int64_t)TOKENS * r.v_ld, 1, 0);
    r.g = random_floats((int64_t)TOKENS * s->n_heads, 0.3f, -0.3f);
    r.beta = random_floats((int64_t)TOKENS * s->n_heads, 0.5f, 0.5f);
    for (int i = 0; i < TOKENS * s->n_heads; i += 7) r.g[i] = -20; // forgets nearly everything
    return r;
}

static void free_rows(Rows *r) {
    free(r->q);
    free(r->k);
    free(r->v);
    free(r->g);
    free(r->beta);
}

static Recurrence rows_from(const Case *c, const Rows *r, State *state, int row, int n, float *out) {
    int heads = c->shape.n_heads;
    return (Recurrence){.state = state,
                        .n = n,
                        .q = r->q + (int64_t)row * r->q_ld,
                        .k = r->k + (int64_t)row * r->q_ld,
                        .v = r->v + (int64_t)row * r->v_ld,
                        .q_ld = r->q_ld,
                        .k_ld = r->q_ld,
                        .v_ld = r->v_ld,
                        .log_decay = c->rule == PLAIN ? NULL : r->g + (int64_t)row * heads,
                        .beta = c->rule == DELTA ? r->beta + (int64_t)row * heads : NULL,
                        .key_heads = c->order,
                        .out = out + (int64_t)row * heads * c->shape.v_dim};
}

static void run(const Compute *compute, const Case *c, const Rows *r, State *state, int n, float *out) {
    Recurrence rows = rows_from(c, r, state, state_length(state), n, out);
    recurrence(compute, &rows, 1);
    state_advance(state, n);
}

static State *open_state(const StateShape *shape) {
    char err[200];
    State *s = state_open(shape, 2, err, sizeof err);
    if (!s) test_fail(__FILE__, __LINE__, "%s", err);
    if (!s) abort();
    return s;
}

// One head of the recurrence as it is written.
static void reference_head(const Case *c, const Rows *r, int head, double *out) {
    static double matrix[MOST_DIM][MOST_DIM];
    const StateShape *s = &c->shape;
    int kd = s->k_dim, vd = s->v_dim, group = s->n_heads / s->n_key_heads;
    int key_head = c->order == KEY_HEADS_TILED ? head % s->n_key_heads : head / group;
    memset(matrix, 0, sizeof matrix);
    for (int t = 0; t < TOKENS; t++) {
        const float *q = r->q + (int64_t)t * r->q_ld + key_head * kd, *k = r->k + (int64_t)t * r->q_ld + key_head * kd;
        const float *v = r->v + (int64_t)t * r->v_ld + head * vd;
        double decay = c->rule == PLAIN ? 1 : exp((double)r->g[t * s->n_heads + head]);
        for (int d = 0; d < vd; d++) {
            double read = 0, u = (double)v[d], sum = 0;
            for (int i = 0; i < kd; i++) read += (matrix[i][d] *= decay) * (double)k[i];
            if (c->rule == DELTA) u = (double)r->beta[t * s->n_heads + head] * (u - read);
            for (int i = 0; i < kd; i++) sum += (matrix[i][d] += (double)k[i] * u) * (double)q[i];
            out[((int64_t)t * s->n_heads + head) * vd + d] = sum;
        }
    }
}

static void check_reference(const Case *c, const Rows *r, const float *out, const char *what) {
    int64_t n = (int64_t)TOKENS * c->shape.n_heads * c->shape.v_dim;
    double *want = malloc(sizeof *want * (size_t)n), error = 0, power = 0;
    if (!want) abort();
    for (int h = 0; h < c->shape.n_heads; h++) reference_head(c, r, h, want);
    for (int64_t i = 0; i < n; i++) {
        error += ((double)out[i] - want[i]) * ((double)out[i] - want[i]);
        power += want[i] * want[i];
    }
    CHECK(error <= 3e-13 * power, "%s: NMSE %.3g", what, error / power);
    free(want);
}

static void check_same(const float *a, const float *b, int64_t n, const char *what, const char *how) {
    CHECK(!memcmp(a, b, sizeof *a * (size_t)n), "%s: %s gives other bits", what, how);
}

// The text in calls of other sizes, on other numbers of threads.
static void check_calls(const Case *c, const Rows *r, const float *out, float *again, const char *what) {
    static const int sizes[] = {1, 2, 5, STATE_CHUNK - 1, STATE_CHUNK, STATE_CHUNK + 1, 50};
    int64_t n = (int64_t)TOKENS * c->shape.n_heads * c->shape.v_dim;
    for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++) {
        State *s = open_state(&c->shape);
        for (int left = TOKENS; left > 0; left -= sizes[i]) {
            run(&computes[i % N_THREADS], c, r, s, left < sizes[i] ? left : sizes[i], again);
        }
        char how[40];
        snprintf(how, sizeof how, "%d tokens at a time", sizes[i]);
        check_same(out, again, n, what, how);
        state_close(s);
    }
}

static void check_going_back(const Case *c, const Rows *r, const float *out, float *again, const char *what) {
    int64_t row = (int64_t)c->shape.n_heads * c->shape.v_dim;
    State *s = open_state(&c->shape);
    run(&computes[0], c, r, s, STATE_CHUNK + 9, again);
    state_save(s, 1);
    run(&computes[0], c, r, s, 11, again);
    CHECK(state_border(s) == STATE_CHUNK && state_length(s) == STATE_CHUNK + 20, "%s: border", what);
    state_truncate(s, STATE_CHUNK + 3);
    memset(again, 0, sizeof *again * (size_t)(TOKENS * row));
    run(&computes[0], c, r, s, TOKENS - STATE_CHUNK - 3, again);
    check_same(out + (STATE_CHUNK + 3) * row, again + (STATE_CHUNK + 3) * row, (TOKENS - STATE_CHUNK - 3) * row, what,
               "going back in the open chunk");
    state_restore(s, 1, STATE_CHUNK);
    memset(again, 0, sizeof *again * (size_t)(TOKENS * row));
    run(&computes[0], c, r, s, TOKENS - STATE_CHUNK, again);
    check_same(out + STATE_CHUNK * row, again + STATE_CHUNK * row, (TOKENS - STATE_CHUNK) * row, what,
               "a saved border");
    state_restart(s);
    run(&computes[0], c, r, s, TOKENS, again);
    check_same(out, again, TOKENS * row, what, "a restart");
    state_close(s);
}

static void run_case(const Case *c) {
    static const char *const rules[] = {"delta rule", "decay", "no decay"};
    const StateShape *s = &c->shape;
    char what[120];
    snprintf(what, sizeof what, "%s, heads %d/%d of %d x %d%s", rules[c->rule], s->n_heads, s->n_key_heads, s->k_dim,
             s->v_dim, c->order == KEY_HEADS_TILED ? ", tiled" : "");
    Rows r = make_rows(s);
    size_t n = (size_t)TOKENS * (size_t)s->n_heads * (size_t)s->v_dim;
    float *out = malloc(sizeof *out * n), *again = malloc(sizeof *again * n);
    State *state = open_state(s);
    if (!out || !again) abort();
    run(&computes[0], c, &r, state, TOKENS, out);
    check_reference(c, &r, out, what);
    check_calls(c, &r, out, again, what);
    check_going_back(c, &r, out, again, what);
    state_close(state);
    free(out);
    free(again);
    free_rows(&r);
}

static void rules_and_shapes(void) {
    static const StateShape shapes[] = {{.n_heads = 1, .n_key_heads = 1, .k_dim = 16, .v_dim = 16},
                                        {.n_heads = 6, .n_key_heads = 3, .k_dim = 32, .v_dim = 64},
                                        {.n_heads = 4, .n_key_heads = 4, .k_dim = 20, .v_dim = 12},
                                        {.n_heads = 2, .n_key_heads = 1, .k_dim = 128, .v_dim = 128},
                                        {.n_heads = 3, .n_key_heads = 1, .k_dim = 7, .v_dim = 33}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (Rule rule = DELTA; rule < N_RULES; rule++) {
            run_case(&(Case){.shape = shapes[i], .rule = rule});
            run_case(&(Case){.shape = shapes[i], .rule = rule, .order = KEY_HEADS_TILED});
        }
    }
}

// Two timelines of different lengths in one call, as each alone.
static void two_timelines(void) {
    Case c = {.shape = {.n_heads = 4, .n_key_heads = 2, .k_dim = 32, .v_dim = 32}};
    Rows a = make_rows(&c.shape), b = make_rows(&c.shape);
    size_t n = (size_t)TOKENS * 4 * 32;
    float *alone[2] = {malloc(sizeof(float) * n), malloc(sizeof(float) * n)};
    float *both[2] = {calloc(n, sizeof(float)), calloc(n, sizeof(float))};
    State *s[4] = {open_state(&c.shape), open_state(&c.shape), open_state(&c.shape), open_state(&c.shape)};
    run(&computes[0], &c, &a, s[0], 40, alone[0]);
    run(&computes[0], &c, &b, s[1], 70, alone[1]);
    Recurrence list[] = {rows_from(&c, &a, s[2], 0, 40, both[0]), rows_from(&c, &b, s[3], 0, 70, both[1])};
    recurrence(&computes[1], list, 2);
    check_same(alone[0], both[0], 40 * 4 * 32, "two timelines", "the first beside another");
    check_same(alone[1], both[1], 70 * 4 * 32, "two timelines", "the second beside another");
    for (int i = 0; i < 4; i++) state_close(s[i]);
    for (int i = 0; i < 2; i++) {
        free(alone[i]);
        free(both[i]);
    }
    free_rows(&a);
    free_rows(&b);
}

// ---- decays for each key channel

typedef enum { GLA, RWKV6, RWKV7, N_CHANNEL_RULES } ChannelRule;

typedef struct {
    StateShape shape;
    ChannelRule rule;
} ChannelCase;

typedef struct {
    int k_ld, v_ld;
    float *q, *k, *v, *decay, *remove, *add, *bonus;
} ChannelRows;

// What RWKV-7 removes is a unit vector of each head, and what it adds that vector times rates from 0 to 1.
static void make_removal(const StateShape *s, ChannelRows *r) {
    for (int row = 0; row < TOKENS; row++) {
        for (int h = 0; h < s->n_heads; h++) {
            float *remove = r->remove + (int64_t)row * r->k_ld + h * s->k_dim, sum = 0;
            float *add = r->add + (int64_t)row * r->k_ld + h * s->k_dim;
            for (int d = 0; d < s->k_dim; d++) sum += remove[d] * remove[d];
            for (int d = 0; d < s->k_dim; d++) remove[d] /= sqrtf(sum);
            for (int d = 0; d < s->k_dim; d++) add[d] *= remove[d];
        }
    }
}

static ChannelRows make_channel_rows(const ChannelCase *c) {
    const StateShape *s = &c->shape;
    int heads = s->n_heads, kd = s->k_dim;
    ChannelRows r = {.k_ld = heads * kd + 3, .v_ld = heads * s->v_dim + 5};
    int64_t n = (int64_t)TOKENS * r.k_ld;
    float width = 1.7f / sqrtf((float)kd);
    r.q = random_floats(n, width, 0);
    r.k = random_floats(n, width, 0);
    r.v = random_floats((int64_t)TOKENS * r.v_ld, 1, 0);
    r.decay = random_floats(n, 0.2f, 0.8f);
    r.remove = random_floats(n, 1, 0);
    r.add = random_floats(n, 0.5f, 0.5f);
    r.bonus = random_floats((int64_t)heads * kd, 1, 0);
    make_removal(s, &r);
    for (int64_t i = 0; i < n && c->rule != RWKV7; i += 11) r.decay[i] = i % 2 ? 0 : 1e-9f; // forgets all or nearly all
    return r;
}

static void free_channel_rows(ChannelRows *r) {
    free(r->q);
    free(r->k);
    free(r->v);
    free(r->decay);
    free(r->remove);
    free(r->add);
    free(r->bonus);
}

static ChannelRecurrence channel_rows_from(const ChannelCase *c, const ChannelRows *r, State *state, int row, int n,
                                           float *out) {
    int64_t at = (int64_t)row * r->k_ld;
    return (ChannelRecurrence){.state = state,
                               .n = n,
                               .q = r->q + at,
                               .k = r->k + at,
                               .v = r->v + (int64_t)row * r->v_ld,
                               .decay = r->decay + at,
                               .q_ld = r->k_ld,
                               .k_ld = r->k_ld,
                               .v_ld = r->v_ld,
                               .decay_ld = r->k_ld,
                               .remove = c->rule == RWKV7 ? r->remove + at : NULL,
                               .add = c->rule == RWKV7 ? r->add + at : NULL,
                               .bonus = c->rule == RWKV6 ? r->bonus : NULL,
                               .out = out + (int64_t)row * c->shape.n_heads * c->shape.v_dim};
}

static void run_channels(const Compute *compute, const ChannelCase *c, const ChannelRows *r, State *state, int n,
                         float *out) {
    ChannelRecurrence rows = channel_rows_from(c, r, state, state_length(state), n, out);
    recurrence_channels(compute, &rows, 1);
    state_advance(state, n);
}

// One head, token by token: column d of the matrix, which no other column enters.
static void reference_column(const ChannelCase *c, const ChannelRows *r, int head, int d, double *out) {
    const StateShape *s = &c->shape;
    double column[MOST_DIM] = {0};
    for (int t = 0; t < TOKENS; t++) {
        int64_t at = (int64_t)t * r->k_ld + head * s->k_dim;
        const float *q = r->q + at, *k = r->k + at, *w = r->decay + at, *remove = r->remove + at, *add = r->add + at;
        double v = (double)r->v[(int64_t)t * r->v_ld + head * s->v_dim + d], removed = 0, sum = 0;
        for (int i = 0; i < s->k_dim; i++) removed += column[i] * (double)remove[i];
        for (int i = 0; i < s->k_dim; i++) {
            double bonus = (double)r->bonus[head * s->k_dim + i] * (double)k[i] * v;
            if (c->rule == RWKV6) sum += (column[i] + bonus) * (double)q[i];
            column[i] = column[i] * (double)w[i] + (double)k[i] * v;
            if (c->rule == RWKV7) column[i] -= removed * (double)add[i];
            if (c->rule != RWKV6) sum += column[i] * (double)q[i];
        }
        out[((int64_t)t * s->n_heads + head) * s->v_dim + d] = sum;
    }
}

static void check_channel_reference(const ChannelCase *c, const ChannelRows *r, const float *out, const char *what) {
    int64_t n = (int64_t)TOKENS * c->shape.n_heads * c->shape.v_dim;
    double *want = malloc(sizeof *want * (size_t)n), error = 0, power = 0;
    if (!want) abort();
    for (int h = 0; h < c->shape.n_heads; h++) {
        for (int d = 0; d < c->shape.v_dim; d++) reference_column(c, r, h, d, want);
    }
    for (int64_t i = 0; i < n; i++) {
        error += ((double)out[i] - want[i]) * ((double)out[i] - want[i]);
        power += want[i] * want[i];
    }
    CHECK(error <= 1e-12 * power, "%s: NMSE %.3g", what, error / power);
    free(want);
}

static void check_channel_calls(const ChannelCase *c, const ChannelRows *r, const float *out, float *again,
                                const char *what) {
    static const int sizes[] = {1, 2, 5, STATE_CHUNK - 1, STATE_CHUNK, STATE_CHUNK + 1, 50};
    int64_t n = (int64_t)TOKENS * c->shape.n_heads * c->shape.v_dim;
    for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++) {
        State *s = open_state(&c->shape);
        for (int left = TOKENS; left > 0; left -= sizes[i]) {
            run_channels(&computes[i % N_THREADS], c, r, s, left < sizes[i] ? left : sizes[i], again);
        }
        char how[40];
        snprintf(how, sizeof how, "%d tokens at a time", sizes[i]);
        check_same(out, again, n, what, how);
        state_close(s);
    }
}

// Within the open chunk, twice, and to a saved border.
static void check_channels_back(const ChannelCase *c, const ChannelRows *r, const float *out, float *again,
                                const char *what) {
    int64_t row = (int64_t)c->shape.n_heads * c->shape.v_dim;
    State *s = open_state(&c->shape);
    run_channels(&computes[0], c, r, s, STATE_CHUNK + 19, again);
    state_save(s, 1);
    state_truncate(s, STATE_CHUNK + 11);
    state_truncate(s, STATE_CHUNK + 7);
    memset(again, 0, sizeof *again * (size_t)(TOKENS * row));
    run_channels(&computes[0], c, r, s, 1, again);
    run_channels(&computes[0], c, r, s, TOKENS - STATE_CHUNK - 8, again);
    check_same(out + (STATE_CHUNK + 7) * row, again + (STATE_CHUNK + 7) * row, (TOKENS - STATE_CHUNK - 7) * row, what,
               "going back in the open chunk");
    state_restore(s, 1, STATE_CHUNK);
    memset(again, 0, sizeof *again * (size_t)(TOKENS * row));
    run_channels(&computes[0], c, r, s, TOKENS - STATE_CHUNK, again);
    check_same(out + STATE_CHUNK * row, again + STATE_CHUNK * row, (TOKENS - STATE_CHUNK) * row, what,
               "a saved border");
    state_restart(s);
    run_channels(&computes[0], c, r, s, TOKENS, again);
    check_same(out, again, TOKENS * row, what, "a restart");
    state_close(s);
}

static void run_channel_case(const ChannelCase *c) {
    static const char *const rules[] = {"GLA", "RWKV-6", "RWKV-7"};
    const StateShape *s = &c->shape;
    char what[120], err[200];
    snprintf(what, sizeof what, "%s, %d heads of %d x %d", rules[c->rule], s->n_heads, s->k_dim, s->v_dim);
    for (int i = 0; i < N_THREADS; i++) {
        if (recurrence_channels_reserve(&computes[i], s, err, sizeof err)) abort();
    }
    ChannelRows r = make_channel_rows(c);
    size_t n = (size_t)TOKENS * (size_t)s->n_heads * (size_t)s->v_dim;
    float *out = malloc(sizeof *out * n), *again = malloc(sizeof *again * n);
    State *state = open_state(s);
    if (!out || !again) abort();
    run_channels(&computes[0], c, &r, state, TOKENS, out);
    check_channel_reference(c, &r, out, what);
    check_channel_calls(c, &r, out, again, what);
    check_channels_back(c, &r, out, again, what);
    state_close(state);
    free(out);
    free(again);
    free_channel_rows(&r);
}

static void channel_decays(void) {
    static const StateShape shapes[] = {{.n_heads = 1, .n_key_heads = 1, .k_dim = 16, .v_dim = 16},
                                        {.n_heads = 3, .n_key_heads = 3, .k_dim = 64, .v_dim = 64},
                                        {.n_heads = 4, .n_key_heads = 4, .k_dim = 20, .v_dim = 12},
                                        {.n_heads = 2, .n_key_heads = 2, .k_dim = 64, .v_dim = 128},
                                        {.n_heads = 3, .n_key_heads = 3, .k_dim = 7, .v_dim = 33}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (ChannelRule rule = GLA; rule < N_CHANNEL_RULES; rule++) {
            ChannelCase c = {.shape = shapes[i], .rule = rule};
            c.shape.pairs = rule == RWKV7 ? 2 : 1;
            run_channel_case(&c);
        }
    }
}

// Two timelines, one of which went back, as each alone.
static void two_channel_timelines(void) {
    ChannelCase c = {.shape = {.n_heads = 3, .n_key_heads = 3, .k_dim = 32, .v_dim = 32, .pairs = 2}, .rule = RWKV7};
    ChannelRows a = make_channel_rows(&c), b = make_channel_rows(&c);
    size_t n = (size_t)TOKENS * 3 * 32;
    float *alone[2] = {malloc(sizeof(float) * n), malloc(sizeof(float) * n)};
    float *both[2] = {calloc(n, sizeof(float)), calloc(n, sizeof(float))};
    State *s[4] = {open_state(&c.shape), open_state(&c.shape), open_state(&c.shape), open_state(&c.shape)};
    run_channels(&computes[0], &c, &a, s[0], 60, alone[0]);
    run_channels(&computes[0], &c, &b, s[1], 70, alone[1]);
    run_channels(&computes[0], &c, &a, s[2], 50, both[0]);
    state_truncate(s[2], 40);
    run_channels(&computes[0], &c, &b, s[3], 30, both[1]);
    ChannelRecurrence list[] = {channel_rows_from(&c, &a, s[2], 40, 20, both[0]),
                                channel_rows_from(&c, &b, s[3], 30, 40, both[1])};
    recurrence_channels(&computes[1], list, 2);
    check_same(alone[0], both[0], 60 * 3 * 32, "two timelines", "the first beside another");
    check_same(alone[1], both[1], 70 * 3 * 32, "two timelines", "the second beside another");
    for (int i = 0; i < 4; i++) state_close(s[i]);
    for (int i = 0; i < 2; i++) {
        free(alone[i]);
        free(both[i]);
    }
    free_channel_rows(&a);
    free_channel_rows(&b);
}

// ---- convolutions

static void convolve(const Compute *c, State *s, const float *x, const float *taps, const float *bias, int n,
                     float *y) {
    int dim = state_shape(s)->conv_dim, row = state_length(s);
    Convolution v = {.state = s, .n = n, .x = x + (int64_t)row * (dim + 1), .ld = dim + 1, .taps = taps};
    v.bias = bias;
    v.act = bias ? ACT_SILU : ACT_NONE;
    v.y = y + (int64_t)row * dim;
    convolution(c, &v, 1);
    state_advance(s, n);
}

static void check_convolution(int width, int dim, bool with_bias) {
    StateShape shape = {.conv_width = width, .conv_dim = dim, .k_dim = 1, .v_dim = 1};
    float *x = random_floats((int64_t)TOKENS * (dim + 1), 1, 0), *taps = random_floats((int64_t)width * dim, 1, 0);
    float *bias = with_bias ? random_floats(dim, 1, 0) : NULL, *y = random_floats((int64_t)TOKENS * dim, 0, 0);
    float *again = random_floats((int64_t)TOKENS * dim, 0, 0);
    State *s = open_state(&shape);
    convolve(&computes[0], s, x, taps, bias, TOKENS, y);
    for (int t = 0; t < TOKENS; t++) {
        for (int i = 0; i < dim; i++) {
            double sum = bias ? (double)bias[i] : 0;
            for (int j = 0; j < width; j++) {
                int from = t - width + 1 + j;
                if (from >= 0) sum += (double)taps[j * dim + i] * (double)x[(int64_t)from * (dim + 1) + i];
            }
            if (bias) sum /= 1 + exp(-sum);
            double got = (double)y[(int64_t)t * dim + i];
            CHECK(fabs(got - sum) < 2e-6, "width %d, token %d, channel %d: %g, expected %g", width, t, i, got, sum);
        }
    }
    for (int each = 1; each < 40; each += 6) {
        state_restart(s);
        for (int left = TOKENS; left > 0; left -= each) {
            convolve(&computes[each % N_THREADS], s, x, taps, bias, left < each ? left : each, again);
        }
        check_same(y, again, (int64_t)TOKENS * dim, "convolution", "other calls");
    }
    state_truncate(s, TOKENS - 9); // the open chunk has 17 rows
    convolve(&computes[0], s, x, taps, bias, 9, again);
    check_same(y, again, (int64_t)TOKENS * dim, "convolution", "going back");
    state_close(s);
    free(x);
    free(taps);
    free(bias);
    free(y);
    free(again);
}

static void convolutions(void) {
    for (int width = 1; width <= 5; width++) {
        check_convolution(width, 8 * width + 3, false);
        check_convolution(width, 700, true);
    }
}

int main(void) {
    char err[200];
    for (int i = 0; i < N_THREADS; i++) {
        if (compute_open(&computes[i], i + 1, err, sizeof err) ||
            recurrence_reserve(&computes[i], MOST_DIM, MOST_DIM, err, sizeof err)) {
            fprintf(stderr, "%s\n", err);
            return 1;
        }
    }
    RUN(rules_and_shapes);
    RUN(two_timelines);
    RUN(channel_decays);
    RUN(two_channel_timelines);
    RUN(convolutions);
    for (int i = 0; i < N_THREADS; i++) compute_close(&computes[i]);
    return test_report();
}
