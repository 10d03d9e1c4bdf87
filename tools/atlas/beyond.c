// beyond: the mixers that models use in place of attention or beside it; the recurrences among them are in linear.c.
//
// Owns the rows of the short convolution, of hybrids, and of attention before a mixture of experts. All run on the
// engine's convolution and its experts. A hybrid gives a quarter of the heads to attention and the rest to another row
// of the atlas: the cache and the work of a stack in which every fourth layer attends. Refuses nothing. Draws: the
// convolution its taps; the experts their router, then gate, up and down of each.
#include "convolution.h"
#include "experts.h"
#include "soft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 256, TAPS = 3, N_EXPERTS = 8, N_USED = 2 };

// ---- the short convolution

typedef struct {
    float *taps;  // [TAPS][width]
    float *gated; // [PIECE][width]: k * v
} ShortConv;

static void conv_open(Operator *op) {
    int64_t width = query_width(&op->shape);
    ShortConv *m = op->own = operator_own(op, sizeof *m);
    m->taps = operator_normals(op, TAPS * width, 1 / sqrtf(TAPS));
    m->gated = operator_floats(op, PIECE * width);
    operator_state(op, &(StateShape){.conv_width = TAPS, .conv_dim = (int)width});
}

static void conv_step(Operator *op, const Rows *rows) {
    const ShortConv *m = op->own;
    int64_t width = query_width(&op->shape), all = rows->n_keys * width;
    for (int64_t i = 0; i < all; i++) m->gated[i] = rows->k[i] * rows->v[i];
    Convolution c = {op->state, rows->n_keys, m->gated, width, .taps = m->taps, .y = rows->out};
    convolution(op->compute, &c, 1);
    state_advance(op->state, rows->n_keys);
    for (int64_t i = 0; i < all; i++) rows->out[i] *= rows->q[i];
    op->flops += (double)all * (2 * TAPS + 2);
}

// ---- hybrids

static const char *const partners[] = {"mamba-2", "rwkv-7", "hyena", "short-conv", "gated-deltanet"};

// op->parts: attention over the first heads, unless there are too few, and the partner over the others.
static void hybrid_open(Operator *op) {
    const char *const names[] = {"mha", partners[op->mechanism->variant]};
    int attending = (op->shape.n_heads + 2) / 4;
    op->own = op->parts = operator_own(op, 2 * sizeof *op->parts);
    for (int i = attending ? 0 : 1; i < 2; i++) {
        Shape shape = op->shape;
        shape.n_heads = shape.n_kv_heads = i ? op->shape.n_heads - attending : attending;
        operator_need(&op->parts[op->n_parts++], mechanism_find(names[i]), &shape, op->compute);
    }
}

static void hybrid_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    op->flops = 0;
    for (int i = 0, first = 0; i < op->n_parts; first += op->parts[i++].shape.n_heads) {
        const Shape *own = &op->parts[i].shape;
        int n = rows->n_keys;
        int64_t width = query_width(own), all = n * width;
        const float *const from[] = {rows->q, rows->k, rows->v, rows->gates};
        float *x = floats_need(5 * all);
        Rows part = {n, n, x, x + all, x + 2 * all, x + 3 * all, x + 4 * all};
        for (int j = 0; j < 4; j++) take_heads(s, x + j * all, from[j], s->n_heads, first, own->n_heads, n);
        operator_step(&op->parts[i], &part);
        for (int64_t t = 0; t < n; t++) {
            float *to = rows->out + (t * s->n_heads + first) * s->head_dim;
            memcpy(to, part.out + t * width, sizeof *to * (size_t)width);
        }
        op->flops += op->parts[i].flops;
        free(x);
    }
}

// ---- a mixture of experts behind attention

typedef struct {
    Soft soft;
    Config config;
    Experts experts;
    FeedForward list[N_EXPERTS];
    ExpertBuffers buffers; // of PIECE rows
    int32_t picks[PIECE * N_USED];
} Mixture;

static Dense dense_of(float **at, int64_t rows, int64_t cols) {
    Dense dense = {.w = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {rows, cols}, .data = *at}};
    *at += rows * cols;
    return dense;
}

static void mixture_open(Operator *op) {
    int width = (int)query_width(&op->shape);
    int64_t square = (int64_t)width * width, rows = (int64_t)PIECE * width;
    Mixture *m = op->own = operator_own(op, sizeof *m);
    soft_open(&m->soft, op, 0, 0);
    m->config = (Config){.dim = width, .hidden_dim = width, .n_experts = N_EXPERTS, .n_experts_used = N_USED};
    float *at = operator_normals(op, N_EXPERTS * (width + 3 * square), 1 / sqrtf((float)width));
    m->experts = (Experts){.list = m->list, .router = dense_of(&at, N_EXPERTS, width)};
    for (int i = 0; i < N_EXPERTS; i++) {
        m->list[i].gate = dense_of(&at, width, width);
        m->list[i].up = dense_of(&at, width, width);
        m->list[i].down = dense_of(&at, width, width);
    }
    m->buffers = (ExpertBuffers){.ffn = {operator_floats(op, rows), operator_floats(op, rows)}, .picks = m->picks};
    m->buffers.picked_x = operator_floats(op, rows);
    m->buffers.picked_y = operator_floats(op, rows);
    m->buffers.routes = operator_floats(op, PIECE * N_EXPERTS);
    m->buffers.weights = operator_floats(op, PIECE * N_USED);
}

static void mixture_step(Operator *op, const Rows *rows) {
    Mixture *m = op->own;
    int64_t width = m->config.dim;
    soft_step(op, &m->soft, rows->q, rows);
    float *x = floats_need(rows->n_q * width);
    memcpy(x, rows->out, sizeof *x * (size_t)(rows->n_q * width));
    experts_forward(op->compute, &m->config, &m->experts, &m->buffers, x, rows->out, rows->n_q, true);
    op->flops += 2.0 * rows->n_q * (double)width * (N_EXPERTS + 3.0 * N_USED * (double)width);
    free(x);
}

#define HYBRID(partner)                                                                                                \
    .variant = (partner), .opaque = true, .each_head = true, .open = hybrid_open, .step = hybrid_step

const Mechanism beyond_rows[] = {
    {"short-conv", .opaque = true, .each_head = true, .open = conv_open, .step = conv_step, .piece = PIECE},
    {"hybrid-mamba-2", HYBRID(0)},
    {"hybrid-rwkv-7", HYBRID(1)},
    {"hybrid-hyena", HYBRID(2)},
    {"hybrid-short-conv", HYBRID(3)},
    {"hybrid-deltanet", HYBRID(4)},
    {"moe", .opaque = true, .open = mixture_open, .step = mixture_step, .piece = PIECE},
    {0},
};
