// linear: attention whose weights are products of features, so that a state of fixed size replaces the cache.
//
// Owns the features (elu + 1, FAVOR+, random Fourier features), the gates of RetNet, GLA, the delta rules, Mamba-2 and
// RWKV-7, and Linformer's projection. All but Linformer are the engine's recurrences over features of queries and keys;
// a normaliser is one more value, 1 for each key. Of elu + 1 and RetNet there are the parallel form and the recurrent
// one, a call for each row, to be compared with the engine's chunks. Linformer is attention() over a fixed number of
// projected keys. Refuses nothing. Draws: directions for each head in turn (draw_directions), RWKV-7 W_a, then r_k,
// Linformer its projection.
#include "cli.h"
#include "recurrent.h"
#include "soft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// A variant: whose features and gates, and the form if not in chunks.
enum { ELU, PERFORMER, RFA, RETNET, GLA, DELTA, GATED_DELTA, MAMBA_2, RWKV_7 };
enum { KINDS = 15, PARALLEL = 16, RECURRENT = 32 };
// Sets of kinds.
enum {
    NORMALISED = 1 << ELU | 1 << PERFORMER | 1 << RFA, // the last value is 1, its sum the divisor
    DIRECTED = 1 << PERFORMER | 1 << RFA,              // features of products with directions
    FADING = 1 << RFA | 1 << RETNET | 1 << GATED_DELTA | 1 << MAMBA_2,
    REPLACING = 1 << DELTA | 1 << GATED_DELTA, // by the delta rule
    SCALED = 1 << RFA | 1 << MAMBA_2,          // values are multiplied by beta before
    BY_CHANNEL = 1 << GLA | 1 << RWKV_7,       // decays of each key channel
};
enum { PIECE = 256 }; // rows whose features are made at a time

static const float KEY_CEILING = 40; // of a key's exponent in base 2: w . x - |x|^2 / 2 <= 28 needs a w of 7 deviations

// Rows of a piece are [n_heads][width] of features and [n_heads][v_width] of values.
typedef struct {
    float *keys, *values; // PARALLEL: of all rows
    float *drawn;         // DIRECTED: [n_heads][width][head_dim]; RWKV_7: W_a, the same, then r_k [n_heads][head_dim]
    float *q, *k, *v, *o; // [PIECE]
    float *decay, *beta;  // [PIECE][n_heads]: logarithms; BY_CHANNEL decay is factors, rows as k's
    float *remove, *add;  // RWKV_7: rows as k's
    int width, v_width;
} Features;

static int kind_of(const Operator *op) {
    return op->mechanism->variant & KINDS;
}
static bool is(const Operator *op, int kinds) {
    return kinds >> kind_of(op) & 1;
}
static int form_of(const Operator *op) {
    return op->mechanism->variant & ~KINDS;
}

// ---- what is drawn

// Rows in blocks of d that are orthogonal to each other, of the lengths that normal vectors have (FAVOR+, section 2.4).
static void draw_orthogonal(uint64_t *seed, float *w, int rows, int d) {
    for (int i = 0; i < rows; i++) {
        float *x = w + (int64_t)i * d;
        double length = 0;
        random_normals(seed, x, d, 1);
        for (int j = i / d * d; j < i; j++) {
            const float *unit = w + (int64_t)j * d;
            double along = 0;
            for (int c = 0; c < d; c++) along += (double)x[c] * (double)unit[c];
            for (int c = 0; c < d; c++) x[c] = (float)((double)x[c] - along * (double)unit[c]);
        }
        for (int c = 0; c < d; c++) length += (double)x[c] * (double)x[c];
        for (int c = 0; c < d; c++) x[c] = (float)((double)x[c] / sqrt(length));
    }
    for (int i = 0; i < rows; i++) {
        float square = 0;
        for (int c = 0; c < d; c++) square += powf(random_normal(seed), 2);
        for (int c = 0; c < d; c++) w[(int64_t)i * d + c] *= sqrtf(square);
    }
}

// FAVOR+ works on x / d^(1/4). RFA takes the sine of the first half's angles and the cosine of the same again.
static void draw_directions(Operator *op, float *w, int width) {
    int d = op->shape.head_dim;
    for (int h = 0; h < op->shape.n_heads; h++, w += (int64_t)width * d) {
        if (kind_of(op) == RFA) {
            random_normals(&op->seed, w, (int64_t)width / 2 * d, 1);
            memcpy(w + (int64_t)width / 2 * d, w, sizeof *w * (size_t)(width / 2 * d));
        } else {
            draw_orthogonal(&op->seed, w, width, d);
            for (int i = 0; i < width * d; i++) w[i] /= sqrtf(sqrtf((float)d));
        }
    }
}

static void open_form(Operator *op, Features *l) {
    const Shape *s = &op->shape;
    int64_t heads = s->n_heads;
    if (form_of(op) == PARALLEL) {
        l->keys = operator_floats(op, s->n_max * heads * l->width);
        l->values = operator_floats(op, s->n_max * heads * l->v_width + MAX_PANEL);
        operator_scratch(op, s->n_max);
    } else {
        char err[512];
        StateShape shape = {.n_heads = s->n_heads, .n_key_heads = s->n_heads, .k_dim = l->width, .v_dim = l->v_width};
        shape.pairs = is(op, BY_CHANNEL) ? l->add ? 2 : 1 : 0;
        if (kind_of(op) == MAMBA_2) shape.n_key_heads = 1; // all take the first head's, as most of its models do
        operator_state(op, &shape);
        if (shape.pairs ? recurrence_channels_reserve(op->compute, &shape, err, sizeof err)
                        : recurrence_reserve(op->compute, l->width, l->v_width, err, sizeof err))
            die(1, "%s", err);
    }
}

static void linear_open(Operator *op) {
    const Shape *s = &op->shape;
    Features *l = op->own = operator_own(op, sizeof *l);
    l->width = is(op, DIRECTED) ? (s->rank + 1) / 2 * 2 : s->head_dim;
    l->v_width = s->head_dim + is(op, NORMALISED);
    int64_t heads = (int64_t)PIECE * s->n_heads, features = heads * l->width, values = heads * l->v_width;
    l->q = operator_floats(op, 3 * features + 2 * values + heads);
    l->k = l->q + features;
    l->v = l->k + features;
    l->o = l->v + values;
    l->decay = l->o + values;
    l->beta = l->decay + features;
    if (is(op, DIRECTED)) {
        l->drawn = operator_floats(op, query_width(s) * l->width);
        draw_directions(op, l->drawn, l->width);
    } else if (kind_of(op) == RWKV_7) {
        l->drawn = operator_normals(op, query_width(s) * (s->head_dim + 1), 1 / sqrtf((float)s->head_dim));
        l->remove = operator_floats(op, features);
        l->add = operator_floats(op, features);
    }
    open_form(op, l);
}

// ---- features and gates of a row

// x[i] = 2^(x[i] - ceiling) of exponents up to the ceiling.
static void exponentials(const Operator *op, float *x, int n, float ceiling) {
    float sum = 0;
    op->compute->kernels->softmax_row(x, n, &ceiling, &sum);
}

// y: the features of x; where directions are drawn, their products with x before.
static void make_features(const Operator *op, int width, const float *x, float *y, bool key) {
    int d = op->shape.head_dim, kind = kind_of(op);
    float square = 0, root = sqrtf((float)d);
    for (int c = 0; c < d; c++) square += x[c] * x[c];
    if (kind == ELU) {
        for (int c = 0; c < d; c++) y[c] = LOG2_E * fminf(x[c], 0);
        exponentials(op, y, d, 0);
        for (int c = 0; c < d; c++) y[c] += fmaxf(x[c], 0);
    } else if (kind == PERFORMER) { // |q|^2 is the same for all keys of a query, and so is its largest exponent
        for (int i = 0; i < width; i++) {
            y[i] *= LOG2_E;
            if (key) y[i] = fminf(y[i] - LOG2_E * square / (2 * root), KEY_CEILING);
        }
        exponentials(op, y, width, key ? KEY_CEILING : SCORE_START);
    } else if (kind == RFA) {
        for (int i = 0; i < width; i++) {
            float angle = y[i] / sqrtf(square);
            y[i] = i < width / 2 ? sinf(angle) : cosf(angle);
        }
    } else {
        float by = is(op, REPLACING) ? 1 / sqrtf(square + 1e-6f) : 1;
        bool plain = key || kind == MAMBA_2 || kind == RWKV_7;
        for (int c = 0; c < d; c++) y[c] = x[c] * (plain ? by : by / root);
    }
}

static void make_gates(const Operator *op, int head, const float *gate, float *decay, float *beta) {
    int d = op->shape.head_dim;
    switch (kind_of(op)) {
    case RFA:
        *decay = -softplus(-gate[0] - 4);
        *beta = -expm1f(*decay);
        break;
    case RETNET: *decay = log1pf(-exp2f((float)(-5 - head))); break;
    case MAMBA_2:
        *beta = softplus(gate[0] - 4); // the step, small where the gate is: 0.018 at 0
        *decay = -*beta * (float)(1 + head % 16);
        break;
    case GATED_DELTA: *decay = -(float)(1 + head % 16) * softplus(gate[0] - 4); // fall through
    case DELTA: *beta = sigmoidf(gate[1]); break;
    case GLA:
        for (int c = 0; c < d; c++) decay[c] = expf(-softplus(-gate[c]) / 16);
        break;
    case RWKV_7:
        for (int c = 0; c < d; c++) decay[c] = expf(-0.6065306597f * sigmoidf(gate[c]));
        break;
    default: break;
    }
}

// RWKV-7's update of one head: the key is removed in its unit length, and added by the strengths a, whose products with
// W_a are in `add` before.
static void make_update(const Features *l, int64_t at, int d) {
    float square = 0;
    for (int c = 0; c < d; c++) square += l->k[at + c] * l->k[at + c];
    for (int c = 0; c < d; c++) {
        float a = sigmoidf(l->add[at + c]);
        l->remove[at + c] = l->k[at + c] / fmaxf(sqrtf(square), 1e-12f);
        l->add[at + c] = a * l->remove[at + c];
        l->k[at + c] *= a;
    }
}

static void prepare_row(const Work *w, int t) {
    const Operator *op = w->op;
    const Features *l = op->own;
    int d = op->shape.head_dim, heads = op->shape.n_heads;
    for (int h = 0; h < heads; h++) {
        int64_t at = (int64_t)t * heads + h;
        float *v = l->v + at * l->v_width;
        make_features(op, l->width, w->rows->q + at * d, l->q + at * l->width, false);
        make_features(op, l->width, w->rows->k + at * d, l->k + at * l->width, true);
        make_gates(op, h, w->rows->gates + at * d, l->decay + at * (is(op, BY_CHANNEL) ? d : 1), l->beta + at);
        memcpy(v, w->rows->v + at * d, sizeof *v * (size_t)d);
        if (is(op, NORMALISED)) v[d] = 1;
        for (int c = 0; is(op, SCALED) && c < l->v_width; c++) v[c] *= l->beta[at];
        if (kind_of(op) == RWKV_7) make_update(l, at * d, d);
    }
}

// The outputs over the sum of weights; and what a row adds of its own value, RWKV-7 by (sum_c q k r_k).
static void finish_row(const Work *w, int t) {
    const Operator *op = w->op;
    const Features *l = op->own;
    int d = op->shape.head_dim, heads = op->shape.n_heads;
    for (int h = 0; h < heads; h++) {
        int64_t at = (int64_t)t * heads + h;
        const float *o = l->o + at * l->v_width, *v = w->rows->v + at * d, *q = l->q + at * d, *k = l->k + at * d;
        float *out = w->rows->out + at * d, sum = is(op, NORMALISED) ? o[d] : 1, own = kind_of(op) == MAMBA_2;
        if (fabsf(sum) < LEAST_SUM) sum = LEAST_SUM;
        for (int c = 0; c < d; c++) out[c] = o[c] / sum;
        for (int c = 0; kind_of(op) == RWKV_7 && c < d; c++) own += q[c] * k[c] * l->drawn[(heads * d + h) * d + c];
        for (int c = 0; own != 0 && c < d; c++) out[c] += own * v[c];
    }
}

// ---- forms

// The next n rows, `first` of the piece and those behind it.
static void recur(const Operator *op, int first, int n) {
    const Features *l = op->own;
    int64_t row = (int64_t)first * op->shape.n_heads, keys = row * l->width, values = row * l->v_width;
    int64_t k_ld = (int64_t)op->shape.n_heads * l->width, v_ld = (int64_t)op->shape.n_heads * l->v_width;
    const float *q = l->q + keys, *k = l->k + keys, *v = l->v + values;
    if (is(op, BY_CHANNEL)) {
        ChannelRecurrence r = {op->state, n, q, k, v, l->decay + keys, k_ld, k_ld, v_ld, k_ld, .out = l->o + values};
        if (l->add) r.remove = l->remove + keys;
        if (l->add) r.add = l->add + keys;
        recurrence_channels(op->compute, &r, 1);
    } else {
        Recurrence r = {op->state, n, q, k, v, k_ld, k_ld, v_ld, .out = l->o + values};
        if (is(op, FADING)) r.log_decay = l->decay + row;
        if (is(op, REPLACING)) r.beta = l->beta + row;
        recurrence(op->compute, &r, 1);
    }
    state_advance(op->state, n);
}

// o_t = sum over j <= t of decay^(t - j) (q_t . k_j) v_j; the decay is the same in all rows.
static void parallel_row(const Work *w, int item) {
    const Operator *op = w->op;
    const Features *l = op->own;
    const Kernels *kn = op->compute->kernels;
    int heads = op->shape.n_heads, h = item % heads, n = op->length + item / heads + 1;
    float *s = w->scratch, *q = l->q + (int64_t)item * l->width;
    PackedMatrix values = packed_rows(l->values + h * l->v_width, heads * l->v_width);
    kn->matvec_f32(s, 0, l->keys + h * l->width, heads * l->width, q, 0, 1, n, l->width);
    for (int j = 0; j < n; j++) s[j] *= expf((float)(n - 1 - j) * l->decay[item]);
    kn->gemm_f32(l->o + (int64_t)item * l->v_width, 0, &values, s, 0, 1, n, l->v_width, false);
}

// Of n rows: the recurrence, and features, gates and what else is done for each channel.
static double linear_flops(const Operator *op, int n) {
    static const int around[] = {4, 4, 4, 4, 4, 4, 4, 3, 16}; // by kind
    const Features *l = op->own;
    double k = l->width, v = l->v_width, state = k * v, rows = (double)n * op->shape.n_heads;
    double row = around[kind_of(op)] * k;
    double one = 2 * state + STATE_CHUNK * (k + v); // a row times the state, and the rows of its chunk
    if (form_of(op) == RECURRENT) row += 5 * state;
    else if (form_of(op) == PARALLEL) row += (op->length + 0.5 * (n + 1)) * (2 * k + 2 * v + 2);
    else if (kind_of(op) == RWKV_7) row += 8 * state + STATE_CHUNK * 8 * k;
    else row += 2 * state + one * (1 + is(op, REPLACING)) + (is(op, BY_CHANNEL) ? STATE_CHUNK * k : 0);
    return rows * row;
}

static void linear_step(Operator *op, const Rows *rows) {
    Features *l = op->own;
    int n = rows->n_keys, heads = op->shape.n_heads, d = op->shape.head_dim;
    if (form_of(op) == PARALLEL) { // which keeps all rows
        l->k = l->keys + (int64_t)op->length * heads * l->width;
        l->v = l->values + (int64_t)op->length * heads * l->v_width;
        op->held += (double)sizeof(float) * n * heads * (l->width + l->v_width);
    }
    if (is(op, DIRECTED)) {
        map_heads(op->compute, l->drawn, heads, l->width, d, rows->q, l->q, n);
        map_heads(op->compute, l->drawn, heads, l->width, d, rows->k, l->k, n);
        op->flops += 4.0 * n * heads * l->width * d;
    } else if (kind_of(op) == RWKV_7) {
        map_heads(op->compute, l->drawn, heads, d, d, rows->gates, l->add, n);
        op->flops += 2.0 * n * heads * d * d;
    }
    operator_for(op, rows, n, prepare_row);
    op->flops += linear_flops(op, n);
    if (form_of(op) == PARALLEL) operator_for(op, rows, n * heads, parallel_row);
    else if (form_of(op) == RECURRENT) {
        for (int t = 0; t < n; t++) recur(op, t, 1);
    } else recur(op, 0, n);
    operator_for(op, rows, n, finish_row);
}

// ---- Linformer

typedef struct {
    Soft soft;
    float *e; // [rank][n_max], shared by heads, keys and values
} Linformer;

static void linformer_open(Operator *op) {
    Linformer *l = op->own = operator_own(op, sizeof *l);
    int64_t n = (int64_t)op->shape.rank * op->shape.n_max;
    l->e = operator_normals(op, n, 1 / sqrtf((float)op->shape.n_max));
    soft_open(&l->soft, op, 0, 0);
}

// Keys, then values, of `width` floats each, through E into to[2][rank][width].
static void linformer_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    Linformer *l = op->own;
    int rank = s->rank, width = (int)key_width(s), n = rows->n_keys;
    float *from = floats_need((int64_t)n * width + MAX_PANEL), *to = floats_need(2LL * rank * width);
    for (int i = 0; i < 2; i++) {
        memcpy(from, i ? rows->v : rows->k, sizeof *from * (size_t)n * (size_t)width);
        multiply_rows((Product){op->compute, to + (int64_t)i * rank * width, l->e, packed_rows(from, width), width,
                                s->n_max, rank, n, width});
    }
    op->flops += 4.0 * rank * n * width;
    Rows projected = {.n_q = rows->n_q, .n_keys = rank, .k = to, .v = to + (int64_t)rank * width, .out = rows->out};
    soft_step(op, &l->soft, rows->q, &projected);
    free(from);
    free(to);
}

#define LINEAR(kind) .variant = (kind), .each_head = true, .piece = PIECE, .open = linear_open, .step = linear_step

const Mechanism linear_rows[] = {
    {"linear", LINEAR(ELU)},
    {"linear-parallel", LINEAR(ELU | PARALLEL), .most_rows = 8192},
    {"linear-recurrent", LINEAR(ELU | RECURRENT)},
    {"performer", LINEAR(PERFORMER), .approximates = true},
    {"rfa", LINEAR(RFA)},
    {"linformer", .time = TIME_WHOLE, .open = linformer_open, .step = linformer_step},
    {"retnet", LINEAR(RETNET)},
    {"retnet-parallel", LINEAR(RETNET | PARALLEL), .most_rows = 8192},
    {"retnet-recurrent", LINEAR(RETNET | RECURRENT)},
    {"gla", LINEAR(GLA)},
    {"deltanet", LINEAR(DELTA)},
    {"gated-deltanet", LINEAR(GATED_DELTA)},
    {0},
};
const Mechanism recurrent_rows[] = {{"mamba-2", LINEAR(MAMBA_2)}, {"rwkv-7", LINEAR(RWKV_7)}, {0}};
