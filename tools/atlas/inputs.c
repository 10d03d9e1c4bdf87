// inputs: see inputs.h.
#include "inputs.h"

#include "soft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int inputs_open(Inputs *in, const Shape *shape, int n_q, int n_keys, uint64_t seed, char *err, size_t errlen) {
    int64_t wide = (int64_t)shape->n_heads * shape->head_dim, narrow = (int64_t)shape->n_kv_heads * shape->head_dim;
    *in = (Inputs){.shape = *shape, .n_q = n_q, .n_keys = n_keys};
    in->q = floats_alloc(n_q * wide, err, errlen);
    in->k = floats_alloc(n_keys * narrow, err, errlen);
    in->v = floats_alloc(n_keys * narrow, err, errlen);
    in->gates = floats_alloc(n_keys * wide, err, errlen);
    in->out = floats_alloc(n_q * wide, err, errlen);
    if (!in->q || !in->k || !in->v || !in->gates || !in->out) {
        inputs_close(in);
        return -1;
    }
    draw_normals(&seed, in->q, n_q * wide, 1);
    draw_normals(&seed, in->k, n_keys * narrow, 1);
    draw_normals(&seed, in->v, n_keys * narrow, 1);
    draw_normals(&seed, in->gates, n_keys * wide, 1);
    return 0;
}

void inputs_close(Inputs *in) {
    float *all[] = {in->q, in->k, in->v, in->gates, in->out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    *in = (Inputs){0};
}

// x[head] = a word's vector, plus some of what was there.
static void add_word(float *x, int n_heads, int d, uint64_t word, float noise) {
    for (int i = 0; i < n_heads * d; i++) {
        uint64_t seed = word * 0x100000001b3u + (uint64_t)(i % d);
        x[i] = noise * x[i] + draw_normal(&seed);
    }
}

void inputs_of_words(Inputs *in, int n_words, uint64_t seed) {
    int d = in->shape.head_dim, n = in->n_q > in->n_keys ? in->n_q : in->n_keys;
    for (int t = 0; t < n; t++) {
        uint64_t word = draw_bits(&seed) % (uint64_t)n_words + 1;
        int64_t q = (int64_t)t * in->shape.n_heads * d, k = (int64_t)t * in->shape.n_kv_heads * d;
        if (t < in->n_q) add_word(in->q + q, in->shape.n_heads, d, word, 0.5f);
        if (t < in->n_keys) add_word(in->k + k, in->shape.n_kv_heads, d, word, 0.5f);
    }
}

Rows inputs_rows(const Inputs *in, int first, int n) {
    Rows all = inputs_all(in);
    return rows_part(&all, &in->shape, first, n);
}

Rows inputs_all(const Inputs *in) {
    return (Rows){in->n_q, in->n_keys, in->q, in->k, in->v, in->gates, in->out};
}

double inputs_error(const Inputs *in, TimeKind time, int first, Compute *c, char *err, size_t errlen) {
    int64_t width = (int64_t)in->shape.n_heads * in->shape.head_dim;
    int n_q = in->n_q - first;
    float *exact = floats_need(n_q * width);
    Mechanism m = {.time = time};
    Operator op = {.mechanism = &m, .compute = c, .shape = in->shape};
    Soft s = {0};
    op.shape.type = KV_DTYPE_F32;
    if (soft_open(&s, &op, 0, 0, err, errlen)) {
        free(exact);
        return -1;
    }
    soft_store(&s, in->n_keys, in->k, in->v);
    Attention a = soft_problem(&s, in->q + first * width, exact, n_q, first, in->n_keys);
    attention(c, &a, 1);
    operator_close(&op);
    double error = 0, power = 0;
    for (int64_t i = 0; i < n_q * width; i++) {
        double d = (double)in->out[first * width + i] - (double)exact[i];
        error += d * d;
        power += (double)exact[i] * (double)exact[i];
    }
    free(exact);
    return sqrt(error / power);
}
