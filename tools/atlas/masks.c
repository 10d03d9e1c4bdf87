// masks: local and sparse attention, as masks of the engine's one attention loop.
//
// Owns the rows of windows, sinks, dilation and block-sparse patterns. A window and sinks are spans of keys, whose
// cache gives back what no later query sees; dilation is exact, each residue of the positions a text of its own with a
// plain window; the others are bitmaps of blocks, made for the blocks of queries at hand, so that nothing is ever n x
// n. What a mask hides is never computed: attention() runs over the groups of keys that some query of its block sees.
#include "cli.h"
#include "soft.h"

#include <stdlib.h>
#include <string.h>

enum { WINDOW, SINKS, DILATED, STRIDED, FIXED, LONGFORMER, BIGBIRD, BIGBIRD_CAUSAL };
enum {
    N_SINKS = 4,   // StreamingLLM's
    N_GLOBAL = 2,  // Longformer's tokens, BigBird's blocks
    N_RANDOM = 3,  // BigBird's blocks
    DILATION = 4,  // positions from key to key
    STRIDE = 8,    // blocks
    PIECE = 4096,  // rows whose bitmap is made at a time
    STORED = 1024, // rows that a window takes at a time, so that a text is never stored whole
};

// op->own: a Soft; of DILATED one for each residue of the positions.
static void sparse_open(Operator *op) {
    int kind = op->mechanism->variant, window = kind <= DILATED ? op->shape.window : 0;
    Soft *texts = op->own = operator_own(op, DILATION * sizeof *texts);
    for (int i = 0; i < (kind == DILATED ? DILATION : 1); i++) {
        soft_open(&texts[i], op, window, kind == SINKS ? N_SINKS : 0);
    }
    if (kind == BIGBIRD_CAUSAL) {
        const Shape *s = &op->shape;
        texts->mask.pattern = (BlockPattern){s->block, s->window / s->block, N_GLOBAL, N_RANDOM, (int)s->seed};
    }
}

// Rows first, first + DILATION, ... of `from` one behind the other in `to`, or back.
static void gather(float *to, const float *from, int first, int n, int64_t width, bool back) {
    for (int i = 0; i < n; i++) {
        int64_t apart = (int64_t)(first + i * DILATION) * width, together = i * width;
        memcpy(to + (back ? apart : together), from + (back ? together : apart), sizeof *to * (size_t)width);
    }
}

static void dilated_step(Operator *op, const Rows *rows) {
    Soft *texts = op->own;
    int64_t wide = query_width(&op->shape), narrow = key_width(&op->shape);
    int room = rows->n_keys / DILATION + 1;
    float *q = floats_need(room * 2 * (wide + narrow));
    float *k = q + room * wide, *v = k + room * narrow, *out = v + room * narrow;
    for (int i = 0; i < DILATION && i < rows->n_keys; i++) {
        int n = (rows->n_keys - i + DILATION - 1) / DILATION;
        gather(q, rows->q, i, n, wide, false);
        gather(k, rows->k, i, n, narrow, false);
        gather(v, rows->v, i, n, narrow, false);
        Rows text = {.n_q = n, .n_keys = n, .k = k, .v = v, .out = out};
        soft_step(op, &texts[(op->length + i) % DILATION], q, &text);
        gather(rows->out, out, i, n, wide, true);
    }
    free(q);
}

// Two-sided windows and tokens that see, and are seen by, all.
static void longformer_step(Operator *op, const Rows *rows) {
    Soft *s = op->own;
    int n = rows->n_keys, side = op->shape.window > 2 ? op->shape.window / 2 : 1;
    int n_global = n < N_GLOBAL ? n : N_GLOBAL;
    int64_t width = query_width(&op->shape);
    soft_store(s, n, rows->k, rows->v);
    Attention list[2] = {
        soft_problem(s, rows->q, rows->out, n_global, 0, n),
        soft_problem(s, rows->q + n_global * width, rows->out + n_global * width, n - n_global, n_global, n)};
    list[1].mask.window = side + 1;
    list[1].mask.ahead = side;
    list[1].mask.n_sinks = n_global;
    soft_attend(op, list, n > n_global ? 2 : 1);
    kvcache_advance(s->cache, n);
}

// ---- bitmaps

// Which of n blocks of keys a block of queries sees; a causal mask cuts what is ahead. BigBird draws a block perhaps
// twice.
static void fill_row(const Operator *op, int block, int n, uint8_t *row) {
    int near = op->shape.window / op->shape.block;
    uint64_t state = op->shape.seed + (uint64_t)block * 0x9e6c63d0876a9a35u;
    memset(row, 0, (size_t)n);
    for (int j = 0; j < n; j++) {
        int distance = block - j;
        switch (op->mechanism->variant) {
        case STRIDED: row[j] = distance >= 0 && (distance < near || distance % STRIDE == 0); break;
        case FIXED: row[j] = j / STRIDE == block / STRIDE || j % STRIDE == STRIDE - 1; break;
        default: row[j] = j < N_GLOBAL || block < N_GLOBAL || abs(distance) <= near / 2;
        }
    }
    if (op->mechanism->variant == BIGBIRD) {
        for (int i = 0; i < N_RANDOM; i++) row[random_bits(&state) % (uint64_t)n] = 1;
    }
}

// n_q queries from `at` of the rows, which are all stored: whole blocks, or a part of one.
static void bitmap_piece(Operator *op, const Rows *rows, int at, int n_q) {
    int block = op->shape.block, n_keys = op->length + rows->n_keys, pos = op->length + at;
    int n_blocks = (n_keys + block - 1) / block, first = pos / block, last = (pos + n_q - 1) / block;
    int64_t width = query_width(&op->shape);
    uint8_t *bitmap = malloc((size_t)(last - first + 1) * (size_t)n_blocks);
    if (!bitmap) die(1, "out of memory for a mask of %d blocks", n_blocks);
    for (int b = first; b <= last; b++) fill_row(op, b, n_blocks, bitmap + (int64_t)(b - first) * n_blocks);
    Attention a = soft_problem(op->own, rows->q + at * width, rows->out + at * width, n_q, pos, n_keys);
    a.mask.bitmap = bitmap;
    a.mask.block = block;
    a.mask.bitmap_stride = n_blocks;
    soft_attend(op, &a, 1);
    free(bitmap);
}

static void bitmap_step(Operator *op, const Rows *rows) {
    Soft *s = op->own;
    int block = op->shape.block, whole = PIECE < block ? block : PIECE / block * block;
    soft_store(s, rows->n_keys, rows->k, rows->v);
    for (int at = 0, n; at < rows->n_q; at += n) {
        int behind = (op->length + at) % block; // rows of its block that came before
        n = behind ? block - behind : whole;
        if (n > rows->n_q - at) n = rows->n_q - at;
        bitmap_piece(op, rows, at, n);
    }
    kvcache_advance(s->cache, rows->n_keys);
}

#define SPARSE(kind) .variant = (kind), .approximates = true, .open = sparse_open

const Mechanism masks_rows[] = {
    {"window", SPARSE(WINDOW), .step = soft_plain_step, .piece = STORED},
    {"sinks", SPARSE(SINKS), .step = soft_plain_step, .piece = STORED},
    {"dilated", SPARSE(DILATED), .step = dilated_step, .piece = DILATION * STORED},
    {"strided", SPARSE(STRIDED), .step = bitmap_step},
    {"fixed", SPARSE(FIXED), .step = bitmap_step},
    {"longformer", SPARSE(LONGFORMER), .time = TIME_WHOLE, .step = longformer_step},
    {"bigbird", SPARSE(BIGBIRD), .time = TIME_WHOLE, .step = bitmap_step},
    {"bigbird-causal", SPARSE(BIGBIRD_CAUSAL), .step = soft_plain_step},
    {0},
};
