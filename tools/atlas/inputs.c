// inputs: see inputs.h.
#include "inputs.h"

#include "soft.h"

#include <math.h>
#include <stdlib.h>

void inputs_open(Inputs *in, const Shape *shape, int n_q, int n_keys, uint64_t seed) {
    int64_t wide = query_width(shape), narrow = key_width(shape);
    float **const parts[] = {&in->q, &in->k, &in->v, &in->gates, &in->out};
    const int64_t sizes[] = {n_q * wide, n_keys * narrow, n_keys * narrow, n_keys * wide, n_q * wide};
    *in = (Inputs){.shape = *shape, .n_q = n_q, .n_keys = n_keys};
    for (int i = 0; i < 5; i++) {
        *parts[i] = floats_need(sizes[i]);
        if (parts[i] != &in->out) random_normals(&seed, *parts[i], sizes[i], 1);
    }
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
        x[i] = noise * x[i] + random_normal(&seed);
    }
}

void inputs_of_words(Inputs *in, int n_words, uint64_t seed) {
    int d = in->shape.head_dim, n = in->n_q > in->n_keys ? in->n_q : in->n_keys;
    for (int t = 0; t < n; t++) {
        uint64_t word = random_bits(&seed) % (uint64_t)n_words + 1;
        if (t < in->n_q) add_word(in->q + t * query_width(&in->shape), in->shape.n_heads, d, word, 0.5f);
        if (t < in->n_keys) add_word(in->k + t * key_width(&in->shape), in->shape.n_kv_heads, d, word, 0.5f);
    }
}

Rows inputs_rows(const Inputs *in, int first, int n) {
    Rows all = inputs_all(in);
    return rows_part(&all, &in->shape, first, n);
}

Rows inputs_all(const Inputs *in) {
    return (Rows){in->n_q, in->n_keys, in->q, in->k, in->v, in->gates, in->out};
}

double floats_error(const float *x, const float *exact, int64_t n) {
    double error = 0, power = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)x[i] - (double)exact[i];
        error += d * d;
        power += (double)exact[i] * (double)exact[i];
    }
    return sqrt(error / power);
}

void inputs_attend(const Inputs *in, const AttnMask *mask, int first, float *out, Compute *c) {
    Mechanism m = {0};
    Operator op = {.mechanism = &m, .compute = c, .shape = in->shape};
    Soft s;
    op.shape.type = KV_DTYPE_F32;
    soft_open(&s, &op, 0, 0);
    soft_store(&s, in->n_keys, in->k, in->v);
    const float *q = in->q + first * query_width(&in->shape);
    Attention a = soft_problem(&s, q, out, in->n_q - first, first, in->n_keys);
    a.mask = *mask;
    attention(c, &a, 1);
    operator_close(&op);
}

double inputs_error(const Inputs *in, TimeKind time, int first, Compute *c) {
    int64_t done = first * query_width(&in->shape), n = in->n_q * query_width(&in->shape) - done;
    float *exact = floats_need(n);
    inputs_attend(in, &(AttnMask){.causal = time == TIME_CAUSAL}, first, exact, c);
    double error = floats_error(in->out + done, exact, n);
    free(exact);
    return error;
}
