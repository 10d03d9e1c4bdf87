// vision: attention over pictures: channels and places that are weighed, patches, and text that looks at pictures.
//
// Owns the rows of squeeze-and-excitation, CBAM, ViT's patches and text between pictures. A feature map is the rows'
// values: a place of the grid a row, a channel each number, of as many columns as rows where it is full. Gates of
// channels and places are those of convolutional networks; the others are attention(). Refuses nothing. Draws: the
// channels' W_1 [channels / 16][channels], then W_2 [channels][channels / 16], CBAM's 7 x 7 taps of means, then of
// maxima.
#include "gates.h"
#include "soft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SE, CBAM, REDUCTION = 16 }; // channels for each hidden one

// ---- gates of channels and places

static void gates_open(Operator *op) {
    Gates *g = op->own = operator_own(op, sizeof *g);
    g->channels = (int)key_width(&op->shape);
    g->hidden = g->channels < REDUCTION ? 1 : g->channels / REDUCTION;
    int64_t n = (int64_t)g->channels * g->hidden;
    g->w1 = operator_normals(op, n, 1 / sqrtf((float)g->channels));
    g->w2 = operator_normals(op, n, 1 / sqrtf((float)g->hidden));
    if (op->mechanism->variant == SE) return;
    g->taps = operator_normals(op, 2 * GATE_SIDE * GATE_SIDE, 1.0f / GATE_SIDE);
}

static void gates_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    const Gates *g = op->own;
    int n = rows->n_keys;
    int64_t all = (int64_t)n * g->channels;
    float *x = floats_need(all + gates_floats(g, n));
    memcpy(x, rows->v, sizeof *x * (size_t)all);
    gates_apply(g, x, n, (int)ceil(sqrt(n)), x + all);
    take_heads(s, rows->out, x, s->n_kv_heads, 0, s->n_heads, n);
    op->flops += (g->taps ? 8.0 : 3.0) * (double)all + (g->taps ? 4.0 * GATE_SIDE * GATE_SIDE * n : 0);
    op->flops += (g->taps ? 8.0 : 4.0) * g->channels * g->hidden;
    free(x);
}

// ---- text between pictures

typedef struct {
    Soft soft;
    int asked; // queries so far
} Looks;

static void looks_open(Operator *op) {
    Looks *l = op->own = operator_own(op, sizeof *l);
    soft_open(&l->soft, op, 0, 0);
}

// A picture is `block` keys, and `block` queries follow each: a problem for each picture, whose bitmap is its bit.
static void pictures_step(Operator *op, const Rows *rows) {
    Looks *l = op->own;
    int block = op->shape.block, n_keys = op->length + rows->n_keys, n_pictures = (n_keys + block - 1) / block;
    int64_t width = query_width(&op->shape);
    uint8_t *bit = memset(floats_need(n_pictures), 0, (size_t)n_pictures);
    soft_store(&l->soft, rows->n_keys, rows->k, rows->v);
    for (int at = 0, n; at < rows->n_q; at += n, l->asked += n) {
        int picture = l->asked / block < n_pictures ? l->asked / block : n_pictures - 1;
        n = block - l->asked % block < rows->n_q - at ? block - l->asked % block : rows->n_q - at;
        Attention a = soft_problem(&l->soft, rows->q + at * width, rows->out + at * width, n, 0, n_keys);
        a.mask = (AttnMask){.bitmap = bit, .block = block, .bitmap_stride = n_pictures};
        bit[picture] = 1;
        soft_attend(op, &a, 1);
        bit[picture] = 0;
    }
    kvcache_advance(l->soft.cache, rows->n_keys);
    free(bit);
}

#define GATES(kind) .time = TIME_WHOLE, .opaque = true, .variant = (kind), .open = gates_open, .step = gates_step

const Mechanism vision_rows[] = {
    {"se", GATES(SE)},
    {"cbam", GATES(CBAM)},
    {"vit", .time = TIME_WHOLE, .open = soft_plain_open, .step = soft_plain_step},
    {"image-text", .time = TIME_CROSS, .open = looks_open, .step = pictures_step},
    {0},
};
