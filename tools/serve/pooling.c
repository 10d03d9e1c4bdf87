// pooling: see pooling.h.
#include "pooling.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

Pool *pool_open(PoolKind kind, int dim) {
    Pool *p = calloc(1, sizeof *p);
    double *sum = calloc((size_t)dim, sizeof *sum);
    if (p && sum) {
        *p = (Pool){.kind = kind, .dim = dim, .sum = sum};
        return p;
    }
    free(p);
    free(sum);
    return NULL;
}

void pool_close(Pool *p) {
    if (p) free(p->sum);
    free(p);
}

void pool_reset(Pool *p) {
    memset(p->sum, 0, sizeof *p->sum * (size_t)p->dim);
}

void pool_add(void *pool, int position, const float *state) {
    (void)position;
    Pool *p = pool;
    if (p->kind == POOL_LAST) pool_reset(p);
    for (int i = 0; i < p->dim; i++) p->sum[i] += (double)state[i];
}

float *pool_vector(const Pool *p) {
    double square = 0;
    float *v = malloc(sizeof *v * (size_t)p->dim);
    for (int i = 0; i < p->dim; i++) square += p->sum[i] * p->sum[i];
    for (int i = 0; v && i < p->dim; i++) v[i] = (float)(square > 0 ? p->sum[i] / sqrt(square) : 0);
    return v;
}
