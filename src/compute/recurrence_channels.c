// recurrence_channels: see recurrence_channels.h.
#include "recurrence_channels.h"

#include <string.h>

// What rows read of the state: a product with S_0, and a sum over the chunk's pairs.
typedef struct {
    float *readers; // [STATE_CHUNK][k_dim] what is multiplied with S_0
    float *weights; // [STATE_CHUNK][STATE_CHUNK pairs] row i: what each update is multiplied by
} Reads;

// A worker's memory.
typedef struct {
    Reads z, out;
    float *from_border; // [STATE_CHUNK][v_dim] products of z's readers
    float *keys_t;      // [k_dim][STATE_CHUNK pairs] decayed keys, transposed
} HeadScratch;

static size_t lay_out(HeadScratch *w, float *at, const StateShape *s) {
    size_t entries = STATE_CHUNK * (size_t)s->pairs, keys = scratch_floats(STATE_CHUNK * (size_t)s->k_dim);
    w->z.readers = at;
    w->out.readers = w->z.readers + keys;
    w->z.weights = w->out.readers + keys;
    w->out.weights = w->z.weights + STATE_CHUNK * entries;
    w->from_border = w->out.weights + STATE_CHUNK * entries;
    w->keys_t = w->from_border + scratch_floats(STATE_CHUNK * (size_t)s->v_dim);
    return (size_t)(w->keys_t - at) + entries * (size_t)s->k_dim;
}

int recurrence_channels_reserve(Compute *c, const StateShape *shape, char *err, size_t errlen) {
    HeadScratch unused;
    float nothing;
    return compute_reserve_scratch(c, sizeof(float) * lay_out(&unused, &nothing, shape), 0, err, errlen);
}

// One head of one timeline.
typedef struct {
    const ChannelRecurrence *r;
    const Kernels *kernels;
    HeadScratch scratch;
    int head, n_heads, k_dim, v_dim, pairs;
    float *matrix, *keys, *updates, *factors;
    float *product, *decayed; // [k_dim] P, then [STATE_CHUNK pairs][k_dim] K_e
} Head;

// m rows of the pass from `row` on, which are rows i0.. of a chunk.
typedef struct {
    int row, i0, m;
} Part;

static PackedMatrix rows_of(const float *data, int n_cols) {
    return (PackedMatrix){.data = data, .row_stride = n_cols, .panel_stride = MAX_PANEL};
}

static void copy(float *to, const float *from, int n) {
    memcpy(to, from, sizeof *to * (size_t)n);
}

static const float *head_row(const Head *h, const float *rows, int64_t ld, int row) {
    return rows + row * ld + (int64_t)h->head * h->k_dim;
}

// Row i's keys and decays, from the pass into the open chunk.
static void store_row(const Head *h, int row, int i) {
    const ChannelRecurrence *r = h->r;
    float *keys = h->keys + (int64_t)i * h->pairs * h->k_dim;
    if (r->remove) copy(keys, head_row(h, r->add, r->decay_ld, row), h->k_dim);
    copy(keys + (h->pairs - 1) * h->k_dim, head_row(h, r->k, r->k_ld, row), h->k_dim);
    copy(h->factors + (int64_t)i * h->k_dim, head_row(h, r->decay, r->decay_ld, row), h->k_dim);
    copy(h->updates + ((int64_t)i * h->pairs + h->pairs - 1) * h->v_dim,
         r->v + row * r->v_ld + (int64_t)h->head * h->v_dim, h->v_dim);
}

static void begin_chunk(const Head *h) {
    for (int d = 0; d < h->k_dim; d++) h->product[d] = 1;
}

// From the decayed keys after i rows to those after row i, which the chunk has.
static void decay_row(const Head *h, int i) {
    const float *factors = h->factors + (int64_t)i * h->k_dim;
    int n = i * h->pairs;
    for (int e = -1; e < n; e++) h->kernels->scale(h->product + (int64_t)(1 + e) * h->k_dim, factors, h->k_dim);
    copy(h->decayed + (int64_t)n * h->k_dim, h->keys + (int64_t)n * h->k_dim, h->pairs * h->k_dim);
}

// Row t of the part reads with x, the state as the decayed keys are now, of n pairs.
static void weigh(const Head *h, const Reads *reads, int t, const float *x, int n) {
    float *reader = reads->readers + (int64_t)t * h->k_dim;
    h->kernels->matvec_f32(reads->weights + (int64_t)t * STATE_CHUNK * h->pairs, 0, h->decayed, h->k_dim, x, 0, 1, n,
                           h->k_dim);
    copy(reader, x, h->k_dim);
    h->kernels->scale(reader, h->product, h->k_dim);
}

// The weight of the output's own pair.
static float weigh_own(const Head *h, const float *q, const float *k) {
    const float *bonus = h->r->bonus + (int64_t)h->head * h->k_dim;
    float sum = 0;
    for (int d = 0; d < h->k_dim; d++) sum += q[d] * bonus[d] * k[d];
    return sum;
}

// Keys, decays and everything that follows from them.
static void make_row(const Head *h, const Part *p, int t) {
    const ChannelRecurrence *r = h->r;
    int i = p->i0 + t, row = p->row + t, pairs = h->pairs;
    const float *q = head_row(h, r->q, r->q_ld, row);
    store_row(h, row, i);
    if (!i) begin_chunk(h);
    if (r->remove) weigh(h, &h->scratch.z, t, head_row(h, r->remove, r->decay_ld, row), i * pairs);
    if (r->bonus) {
        weigh(h, &h->scratch.out, t, q, i);
        h->scratch.out.weights[(int64_t)t * STATE_CHUNK + i] = weigh_own(h, q, head_row(h, r->k, r->k_ld, row));
    }
    decay_row(h, i);
    if (!r->bonus) weigh(h, &h->scratch.out, t, q, (i + 1) * pairs);
}

// z of every row, by forward substitution.
static void make_updates(const Head *h, const Part *p) {
    int vd = h->v_dim, width = STATE_CHUNK * h->pairs;
    PackedMatrix state = rows_of(h->matrix, vd), updates = rows_of(h->updates, vd);
    float *sum = h->scratch.from_border;
    h->kernels->gemm_f32(sum, vd, &state, h->scratch.z.readers, h->k_dim, p->m, h->k_dim, vd, false);
    for (int t = 0; t < p->m; t++, sum += vd) {
        int n = (p->i0 + t) * h->pairs;
        float *z = h->updates + (int64_t)n * vd;
        h->kernels->gemm_f32(sum, vd, &updates, h->scratch.z.weights + (int64_t)t * width, width, 1, n, vd, true);
        for (int d = 0; d < vd; d++) z[d] = -sum[d];
    }
}

// o_i of every row. A block of rows is one product; where a row's weights end, they are zeros.
static void make_outputs(const Head *h, const Part *p) {
    enum { ROWS = 8 };
    int vd = h->v_dim, pairs = h->pairs, width = STATE_CHUNK * pairs;
    PackedMatrix state = rows_of(h->matrix, vd), updates = rows_of(h->updates, vd);
    int64_t ld = (int64_t)h->n_heads * vd;
    float *out = h->r->out + p->row * ld + (int64_t)h->head * vd;
    h->kernels->gemm_f32(out, ld, &state, h->scratch.out.readers, h->k_dim, p->m, h->k_dim, vd, false);
    for (int t0 = 0; t0 < p->m; t0 += ROWS) {
        int n = p->m - t0 < ROWS ? p->m - t0 : ROWS, n_updates = (p->i0 + t0 + n) * pairs;
        float *weights = h->scratch.out.weights + (int64_t)t0 * width;
        for (int t = 0; t < n; t++) {
            for (int e = (p->i0 + t0 + t + 1) * pairs; e < n_updates; e++) weights[t * width + e] = 0;
        }
        h->kernels->gemm_f32(out + t0 * ld, ld, &updates, weights, width, n, n_updates, vd, true);
    }
}

// S_0 of the next chunk: diag(P) S_0 + sum_e K_e u_e^T.
static void cross_border(const Head *h) {
    int n = STATE_CHUNK * h->pairs;
    float *keys = h->scratch.keys_t;
    for (int e = 0; e < n; e++) {
        for (int d = 0; d < h->k_dim; d++) keys[(int64_t)d * n + e] = h->decayed[(int64_t)e * h->k_dim + d];
    }
    for (int d = 0; d < h->k_dim; d++) {
        float *row = h->matrix + (int64_t)d * h->v_dim, decay = h->product[d];
        for (int j = 0; j < h->v_dim; j++) row[j] *= decay;
    }
    PackedMatrix updates = rows_of(h->updates, h->v_dim);
    h->kernels->gemm_f32(h->matrix, h->v_dim, &updates, keys, n, h->k_dim, n, h->v_dim, true);
}

static void run_head(const Head *h) {
    const ChannelRecurrence *r = h->r;
    int length = state_length(r->state), open = length % STATE_CHUNK;
    if (state_decayed(r->state) < open) { // the text went back
        begin_chunk(h);
        for (int i = 0; i < open; i++) decay_row(h, i);
    }
    for (int row = 0; row < r->n;) {
        Part p = {.row = row, .i0 = (length + row) % STATE_CHUNK};
        p.m = r->n - row < STATE_CHUNK - p.i0 ? r->n - row : STATE_CHUNK - p.i0;
        for (int t = 0; t < p.m; t++) make_row(h, &p, t);
        if (r->remove) make_updates(h, &p);
        make_outputs(h, &p);
        if (p.i0 + p.m == STATE_CHUNK) cross_border(h);
        row += p.m;
    }
}

typedef struct {
    const Compute *compute;
    const ChannelRecurrence *list;
} Job;

static void run_item(void *context, int index, int worker) {
    const Job *job = context;
    const StateShape *shape = state_shape(job->list->state);
    const ChannelRecurrence *r = &job->list[index / shape->n_heads];
    Head h = {.r = r,
              .kernels = job->compute->kernels,
              .head = index % shape->n_heads,
              .n_heads = shape->n_heads,
              .k_dim = shape->k_dim,
              .v_dim = shape->v_dim,
              .pairs = shape->pairs};
    h.matrix = state_matrix(r->state, h.head);
    h.keys = state_keys(r->state, h.head);
    h.updates = state_updates(r->state, h.head);
    h.factors = state_factors(r->state, h.head);
    h.product = state_decayed_keys(r->state, h.head);
    h.decayed = h.product + h.k_dim;
    lay_out(&h.scratch, compute_scratch(job->compute, worker), shape);
    run_head(&h);
}

void recurrence_channels(const Compute *c, const ChannelRecurrence *list, int n) {
    enum { SMALL = 1 << 14 };
    const StateShape *shape = state_shape(list->state);
    int64_t rows = 0, head = (int64_t)shape->k_dim * shape->v_dim;
    for (int i = 0; i < n; i++) rows += list[i].n;
    Job job = {.compute = c, .list = list};
    bool small = rows * shape->n_heads * head < SMALL;
    profile_begin(c->profile, PROFILE_RECURRENCE);
    threads_for_if(!small, c->pool, n * shape->n_heads, run_item, &job);
    profile_end(c->profile, (double)rows * shape->n_heads * (double)(4 * shape->pairs * head),
                4.0 * n * shape->n_heads * (double)head);
}
