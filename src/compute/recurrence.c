// recurrence: see recurrence.h.
#include "recurrence.h"

#include <math.h>
#include <string.h>

// A worker's memory.
typedef struct {
    float *from_keys, *from_queries;  // [STATE_CHUNK][v_dim] S_0^T k_i and S_0^T q_i
    float *key_dots, *query_dots;     // [STATE_CHUNK][STATE_CHUNK] k_i . k_j and q_i . k_j of the key head
    float *key_weights, *out_weights; // the same size: what u_j is multiplied by in row i of the value head
    float *keys_t;                    // [k_dim][STATE_CHUNK] the chunk's keys, transposed
} Scratch;

static size_t lay_out(Scratch *w, float *at, int k_dim, int v_dim) {
    size_t rows = scratch_floats(STATE_CHUNK * (size_t)v_dim), square = STATE_CHUNK * STATE_CHUNK;
    w->from_keys = at;
    w->from_queries = w->from_keys + rows;
    w->key_dots = w->from_queries + rows;
    w->query_dots = w->key_dots + square;
    w->key_weights = w->query_dots + square;
    w->out_weights = w->key_weights + square;
    w->keys_t = w->out_weights + square;
    return 2 * rows + 4 * square + STATE_CHUNK * (size_t)k_dim;
}

int recurrence_reserve(Compute *c, int k_dim, int v_dim, char *err, size_t errlen) {
    Scratch unused;
    float nothing;
    return compute_reserve_scratch(c, sizeof(float) * lay_out(&unused, &nothing, k_dim, v_dim), 0, err, errlen);
}

// Some value heads of one timeline that share a key head, and the one that is computed.
typedef struct {
    const Recurrence *r;
    const Kernels *kernels;
    Scratch scratch;
    int head, key_head, n_heads, k_dim, v_dim;
    float *matrix, *updates;
    double *decays;
    const float *stored_keys;
} Head;

// m rows of the pass from `row` on, which are rows i0.. of a chunk.
typedef struct {
    int row, i0, m;
    const float *q, *k; // of the first row
} Part;

static PackedMatrix rows_of(const float *data, int n_cols) {
    return (PackedMatrix){.data = data, .row_stride = n_cols, .panel_stride = MAX_PANEL};
}

// y[j] = x . k_j for all j < i0 + n of the chunk.
static void dot_keys(const Head *h, const Part *p, float *y, const float *x, int n) {
    h->kernels->matvec_f32(y, 0, h->stored_keys, h->k_dim, x, 0, 1, p->i0, h->k_dim);
    h->kernels->matvec_f32(y + p->i0, 0, p->k, h->r->k_ld, x, 0, 1, n, h->k_dim);
}

// What does not depend on the value head: a row's products with the keys before it, and with its own.
static void make_dots(const Head *h, const Part *p) {
    for (int t = 0; t < p->m; t++) {
        int64_t row = (int64_t)t * STATE_CHUNK;
        if (h->r->beta) dot_keys(h, p, h->scratch.key_dots + row, p->k + t * h->r->k_ld, t);
        dot_keys(h, p, h->scratch.query_dots + row, p->q + t * h->r->q_ld, t + 1);
    }
    if (p->i0 + p->m < STATE_CHUNK) return;
    for (int j = 0; j < STATE_CHUNK; j++) {
        const float *k = j < p->i0 ? h->stored_keys + (int64_t)j * h->k_dim : p->k + (j - p->i0) * h->r->k_ld;
        for (int d = 0; d < h->k_dim; d++) h->scratch.keys_t[d * STATE_CHUNK + j] = k[d];
    }
}

// weights[j] = dots[j] exp(G_i - G_j) for j < n.
static void decay_dots(const Head *h, float *weights, const float *dots, int i, int n) {
    memcpy(weights, dots, sizeof *weights * (size_t)n);
    if (!h->r->log_decay) return;
    for (int j = 0; j < n; j++) weights[j] *= expf((float)(h->decays[i] - h->decays[j]));
}

static void sum_decays(const Head *h, const Part *p) {
    for (int i = p->i0; i < p->i0 + p->m; i++) {
        double g = h->r->log_decay ? h->r->log_decay[(int64_t)(p->row + i - p->i0) * h->n_heads + h->head] : 0;
        h->decays[i] = (i ? h->decays[i - 1] : 0) + g;
    }
}

static const float *value_row(const Head *h, int row) {
    return h->r->v + row * h->r->v_ld + (int64_t)h->head * h->v_dim;
}

// u_i of every row: v_i, or by forward substitution.
static void make_updates(const Head *h, const Part *p) {
    const Kernels *kernels = h->kernels;
    int vd = h->v_dim;
    PackedMatrix state = rows_of(h->matrix, vd), updates = rows_of(h->updates, vd);
    float *pred = h->scratch.from_keys, *weights = h->scratch.key_weights;
    if (h->r->beta) kernels->gemm_f32(pred, vd, &state, p->k, h->r->k_ld, p->m, h->k_dim, vd, false);
    for (int t = 0; t < p->m; t++, pred += vd) {
        int i = p->i0 + t;
        const float *v = value_row(h, p->row + t);
        float *u = h->updates + (int64_t)i * vd;
        if (!h->r->beta) {
            memcpy(u, v, sizeof *u * (size_t)vd);
            continue;
        }
        float decay = expf((float)h->decays[i]), beta = h->r->beta[(int64_t)(p->row + t) * h->n_heads + h->head];
        decay_dots(h, weights, h->scratch.key_dots + (int64_t)t * STATE_CHUNK, i, i);
        for (int d = 0; d < vd; d++) pred[d] *= decay;
        kernels->gemm_f32(pred, vd, &updates, weights, STATE_CHUNK, 1, i, vd, true);
        for (int d = 0; d < vd; d++) u[d] = beta * (v[d] - pred[d]);
    }
}

// o_i of every row. A block of rows is one product; where a row's weights end, they are zeros.
static void make_outputs(const Head *h, const Part *p) {
    enum { ROWS = 8 };
    const Kernels *kernels = h->kernels;
    int vd = h->v_dim;
    PackedMatrix state = rows_of(h->matrix, vd), updates = rows_of(h->updates, vd);
    int64_t ld = (int64_t)h->n_heads * vd;
    float *out = h->r->out + p->row * ld + (int64_t)h->head * vd;
    kernels->gemm_f32(out, ld, &state, p->q, h->r->q_ld, p->m, h->k_dim, vd, false);
    for (int t0 = 0; t0 < p->m; t0 += ROWS) {
        int n = p->m - t0 < ROWS ? p->m - t0 : ROWS, n_updates = p->i0 + t0 + n;
        for (int t = t0; t < t0 + n; t++) {
            int i = p->i0 + t;
            float *weights = h->scratch.out_weights + (int64_t)t * STATE_CHUNK, decay = expf((float)h->decays[i]);
            decay_dots(h, weights, h->scratch.query_dots + (int64_t)t * STATE_CHUNK, i, i + 1);
            for (int j = i + 1; j < n_updates; j++) weights[j] = 0;
            for (int d = 0; d < vd; d++) out[t * ld + d] *= decay;
        }
        kernels->gemm_f32(out + t0 * ld, ld, &updates, h->scratch.out_weights + (int64_t)t0 * STATE_CHUNK, STATE_CHUNK,
                          n, n_updates, vd, true);
    }
}

// S_0 of the next chunk: exp(G_last) S_0 + sum_j k_j (exp(G_last - G_j) u_j)^T. The updates have served then.
static void cross_border(const Head *h) {
    enum { LAST = STATE_CHUNK - 1 };
    float decay = expf((float)h->decays[LAST]);
    for (int j = 0; j < LAST; j++) {
        float *u = h->updates + (int64_t)j * h->v_dim, left = expf((float)(h->decays[LAST] - h->decays[j]));
        for (int d = 0; d < h->v_dim; d++) u[d] *= left;
    }
    int64_t size = (int64_t)h->k_dim * h->v_dim;
    for (int64_t d = 0; d < size; d++) h->matrix[d] *= decay;
    PackedMatrix updates = rows_of(h->updates, h->v_dim);
    h->kernels->gemm_f32(h->matrix, h->v_dim, &updates, h->scratch.keys_t, STATE_CHUNK, h->k_dim, STATE_CHUNK, h->v_dim,
                         true);
}

static void run_head(Head *h, const Part *p, int head) {
    State *state = h->r->state;
    h->head = head;
    h->matrix = state_matrix(state, head);
    h->updates = state_updates(state, head);
    h->decays = state_decays(state, head);
    sum_decays(h, p);
    make_updates(h, p);
    make_outputs(h, p);
    if (p->i0 + p->m == STATE_CHUNK) cross_border(h);
}

// Of the value heads that share h's key head, those from `first` to before `end`.
static void run_heads(Head *h, int first, int end) {
    const Recurrence *r = h->r;
    const StateShape *shape = state_shape(r->state);
    int length = state_length(r->state), per = shape->n_heads / shape->n_key_heads;
    bool tiled = r->key_heads == KEY_HEADS_TILED;
    for (int row = 0; row < r->n;) {
        Part p = {.row = row, .i0 = (length + row) % STATE_CHUNK};
        p.m = r->n - row < STATE_CHUNK - p.i0 ? r->n - row : STATE_CHUNK - p.i0;
        p.q = r->q + row * r->q_ld + (int64_t)h->key_head * h->k_dim;
        p.k = r->k + row * r->k_ld + (int64_t)h->key_head * h->k_dim;
        make_dots(h, &p);
        for (int i = first; i < end; i++) {
            run_head(h, &p, tiled ? i * shape->n_key_heads + h->key_head : h->key_head * per + i);
        }
        row += p.m;
    }
}

typedef struct {
    const Compute *compute;
    const Recurrence *list;
    int n_splits; // items that the value heads of a key head are split into
} Job;

static void run_item(void *context, int index, int worker) {
    const Job *job = context;
    const StateShape *shape = state_shape(job->list->state);
    int split = index % job->n_splits, key_head = index / job->n_splits % shape->n_key_heads,
        per = shape->n_heads / shape->n_key_heads;
    const Recurrence *r = &job->list[index / (job->n_splits * shape->n_key_heads)];
    Head h = {.r = r,
              .kernels = job->compute->kernels,
              .key_head = key_head,
              .n_heads = shape->n_heads,
              .k_dim = shape->k_dim,
              .v_dim = shape->v_dim,
              .stored_keys = state_keys(r->state, key_head)};
    lay_out(&h.scratch, compute_scratch(job->compute, worker), h.k_dim, h.v_dim);
    run_heads(&h, split * per / job->n_splits, (split + 1) * per / job->n_splits);
}

// The rows of the chunk that stays open, behind those that the state has.
static void store_keys(const Recurrence *r) {
    const StateShape *shape = state_shape(r->state);
    int length = state_length(r->state), end = length + r->n, border = end / STATE_CHUNK * STATE_CHUNK;
    size_t bytes = sizeof(float) * (size_t)shape->k_dim;
    for (int pos = border > length ? border : length; pos < end; pos++) {
        const float *k = r->k + (pos - length) * r->k_ld;
        for (int h = 0; h < shape->n_key_heads; h++) {
            memcpy(state_keys(r->state, h) + (int64_t)(pos - border) * shape->k_dim, k + (int64_t)h * shape->k_dim,
                   bytes);
        }
    }
}

void recurrence(const Compute *c, const Recurrence *list, int n) {
    enum { SMALL = 1 << 14, ITEMS_PER_THREAD = 2 };
    const StateShape *shape = state_shape(list->state);
    int64_t rows = 0, head = (int64_t)shape->k_dim * shape->v_dim;
    for (int i = 0; i < n; i++) rows += list[i].n;
    int per = shape->n_heads / shape->n_key_heads, n_groups = n * shape->n_key_heads,
        wanted = (ITEMS_PER_THREAD * threads_count(c->pool) + n_groups - 1) / n_groups;
    Job job = {.compute = c, .list = list, .n_splits = wanted < per ? wanted : per};
    bool small = rows * shape->n_heads * head < SMALL;
    profile_begin(c->profile, PROFILE_RECURRENCE);
    threads_for_if(!small, c->pool, n_groups * job.n_splits, run_item, &job);
    for (int i = 0; i < n; i++) store_keys(&list[i]);
    profile_end(c->profile, (double)rows * shape->n_heads * (double)(4 * head),
                4.0 * n * shape->n_heads * (double)head);
}
