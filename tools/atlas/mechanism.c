// mechanism: see mechanism.h.
#include "mechanism.h"

#include "cli.h"
#include "file.h"

#include <stdlib.h>
#include <string.h>

static const Mechanism *const families[] = {scores_rows, heads_rows,  masks_rows,     exact_rows,
                                            linear_rows, memory_rows, recurrent_rows, beyond_rows,
                                            hyena_rows,  vision_rows, graph_rows};

const Mechanism *mechanism_at(int i) {
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        for (const Mechanism *m = families[f]; m->name; m++) {
            if (i-- == 0) return m;
        }
    }
    return NULL;
}

const Mechanism *mechanism_find(const char *name) {
    const Mechanism *m;
    for (int i = 0; (m = mechanism_at(i)); i++) {
        if (!strcmp(m->name, name)) return m;
    }
    return NULL;
}

Shape shape_of(const Mechanism *m, int n_max, int n_heads, int head_dim) {
    int n_kv_heads = m->kv_heads && m->kv_heads < n_heads ? m->kv_heads : n_heads;
    return (Shape){n_heads,     n_kv_heads,  head_dim,      n_max,    .window = 256,
                   .block = 64, .rank = 128, KV_DTYPE_BF16, .seed = 1};
}

// ---- operators

int operator_open(Operator *op, const Mechanism *m, const Shape *shape, Compute *c, char *err, size_t errlen) {
    *op = (Operator){.mechanism = m, .compute = c, .shape = *shape, .seed = shape->seed, .kv_heads = shape->n_kv_heads};
    if (m->whole_blocks && (shape->block < 1 || KV_BLOCK % shape->block)) {
        return fail(err, errlen, "expected blocks that divide %d keys, found %d", KV_BLOCK, shape->block);
    }
    if (m->each_head) op->shape.n_kv_heads = shape->n_heads;
    if (m->open) m->open(op);
    return 0;
}

void operator_need(Operator *op, const Mechanism *m, const Shape *shape, Compute *c) {
    char err[512];
    if (operator_open(op, m, shape, c, err, sizeof err)) die(1, "%s: %s", m->name, err);
}

void operator_step(Operator *op, const Rows *rows) {
    const Mechanism *m = op->mechanism;
    const Shape *s = &op->shape;
    Rows each = *rows;
    float *copies = NULL;
    if (op->kv_heads < s->n_kv_heads) {
        int64_t n = rows->n_keys * key_width(s);
        each.k = copies = floats_need(2 * n);
        each.v = copies + n;
        take_heads(s, copies, rows->k, op->kv_heads, 0, s->n_heads, rows->n_keys);
        take_heads(s, copies + n, rows->v, op->kv_heads, 0, s->n_heads, rows->n_keys);
    }
    if (m->piece) step_pieces(op, &each, m->piece, m->step);
    else m->step(op, &each);
    op->length += rows->n_keys;
    free(copies);
}

double operator_bytes(const Operator *op) {
    double bytes = op->held + (op->state ? (double)state_bytes(op->state) : 0);
    for (int i = 0; i < op->n_caches; i++) bytes += (double)kvcache_bytes(op->caches[i]);
    for (int i = 0; i < op->n_parts; i++) bytes += operator_bytes(&op->parts[i]);
    return bytes;
}

void operator_close(Operator *op) {
    for (int i = 0; i < op->n_parts; i++) operator_close(&op->parts[i]);
    for (int i = 0; i < op->n_caches; i++) kvcache_close(op->caches[i]);
    state_close(op->state);
    for (int i = 0; i < op->n_blocks; i++) free(op->blocks[i]);
    *op = (Operator){0};
}

void operator_run(const Mechanism *m, const Shape *shape, Compute *c, const Rows *rows) {
    Operator op;
    operator_need(&op, m, shape, c);
    operator_step(&op, rows);
    operator_close(&op);
}

void mechanism_weights(const Mechanism *m, const Shape *shape, Compute *c, const Rows *rows, float *weights) {
    int n = rows->n_keys, d = shape->head_dim, heads = shape->n_heads, n_kv = shape->n_kv_heads;
    for (int first = 0; first < n; first += d) {
        int count = n - first < d ? n - first : d;
        float *v = floats_need(n * key_width(shape)), *out = floats_need(rows->n_q * query_width(shape));
        for (int i = 0; i < count * n_kv; i++) v[first * key_width(shape) + (int64_t)i * d + i / n_kv] = 1;
        Rows unit = *rows;
        unit.v = v;
        unit.out = out;
        operator_run(m, shape, c, &unit);
        for (int i = 0; i < rows->n_q * heads; i++) {
            float *to = weights + ((int64_t)(i % heads) * rows->n_q + i / heads) * n + first;
            memcpy(to, out + (int64_t)i * d, sizeof *to * (size_t)count);
        }
        free(v);
        free(out);
    }
}

// ---- memory and threads of operators

void *operator_own(Operator *op, size_t bytes) {
    if (op->n_blocks == MAX_OWNED) die(1, "%s: more than %d blocks of memory", op->mechanism->name, MAX_OWNED);
    return op->blocks[op->n_blocks++] = floats_need((int64_t)(bytes / sizeof(float)) + 1);
}

float *operator_floats(Operator *op, int64_t n) {
    return operator_own(op, sizeof(float) * (size_t)n);
}

float *operator_normals(Operator *op, int64_t n, float deviation) {
    float *x = operator_floats(op, n);
    random_normals(&op->seed, x, n, deviation);
    return x;
}

void operator_state(Operator *op, const StateShape *shape) {
    char err[512];
    op->state = state_open(shape, 0, err, sizeof err);
    if (!op->state) die(1, "%s", err);
}

void operator_scratch(Operator *op, int64_t n) {
    char err[512];
    if (compute_reserve_scratch(op->compute, sizeof(float) * (size_t)n, 0, err, sizeof err)) die(1, "%s", err);
}

static void run_item(void *context, int item, int worker) {
    Work w = *(const Work *)context;
    w.scratch = compute_scratch(w.op->compute, worker);
    w.task(&w, item);
}

void operator_for(const Operator *op, const Rows *rows, int n_items, WorkTask *task) {
    Work w = {op, rows, NULL, task};
    threads_for(op->compute->pool, n_items, run_item, &w);
}

enum { PRODUCT_ROWS = 32 }; // of an item

static void product_item(void *context, int item, int worker) {
    const Product *p = context;
    int first = item * PRODUCT_ROWS, n = p->n_rows - first < PRODUCT_ROWS ? p->n_rows - first : PRODUCT_ROWS;
    (void)worker;
    p->compute->kernels->gemm_f32(p->y + first * p->y_ld, p->y_ld, &p->w, p->x + first * p->x_ld, p->x_ld, n, p->k,
                                  p->n, false);
}

void multiply_rows(Product p) {
    threads_for(p.compute->pool, (p.n_rows + PRODUCT_ROWS - 1) / PRODUCT_ROWS, product_item, &p);
}

// ---- what operators draw and share

Rows rows_part(const Rows *rows, const Shape *shape, int first, int n) {
    int64_t wide = first * query_width(shape), narrow = first * key_width(shape);
    return (Rows){n, n, rows->q + wide, rows->k + narrow, rows->v + narrow, rows->gates + wide, rows->out + wide};
}

void step_pieces(Operator *op, const Rows *rows, int piece, void (*step)(Operator *op, const Rows *rows)) {
    int length = op->length;
    for (int at = 0, n; at < rows->n_keys; at += n) {
        n = rows->n_keys - at < piece ? rows->n_keys - at : piece;
        Rows part = rows_part(rows, &op->shape, at, n);
        op->length = length + at;
        step(op, &part);
    }
    op->length = length;
}

void take_heads(const Shape *s, float *to, const float *x, int x_heads, int first, int count, int n) {
    size_t d = (size_t)s->head_dim;
    int share = s->n_heads / x_heads;
    for (int64_t t = 0; t < n; t++) {
        for (int h = first; h < first + count; h++, to += d) {
            memcpy(to, x + (t * x_heads + h / share) * (int64_t)d, sizeof *x * d);
        }
    }
}

void map_heads(const Compute *c, const float *w, int heads, int rows, int cols, const float *x, float *y, int n) {
    Tensor t = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {(int64_t)heads * rows, cols}, .data = w};
    HeadsLinear l = {.w = &t, .heads = heads, .pitch = rows, .n_rows = rows, .x = x, .y = y};
    l.x_ld = (int64_t)heads * cols;
    l.x_head = cols;
    l.y_ld = (int64_t)heads * rows;
    l.y_head = rows;
    ops_linear_heads(c, &l, n);
}

float *floats_need(int64_t n) {
    size_t bytes = sizeof(float) * scratch_floats(n > 0 ? n : 1);
    float *x = aligned_alloc(64, bytes);
    if (!x) die(1, "out of memory for %lld numbers", (long long)n);
    return memset(x, 0, bytes);
}
