// pooling: one vector for a text, of the states that its tokens leave behind the last layer.
//
// Owns the sum and its length: vectors are of length 1, as OpenAI's are.
#pragma once

typedef enum { POOL_NONE, POOL_MEAN, POOL_LAST } PoolKind;

typedef struct {
    PoolKind kind;
    int dim;
    double *sum; // [dim]
} Pool;

Pool *pool_open(PoolKind kind, int dim); // NULL: out of memory
void pool_close(Pool *p);                // accepts NULL
void pool_reset(Pool *p);

void pool_add(void *pool, int position, const float *state); // a StateVisitor
float *pool_vector(const Pool *p);                           // [dim], free() it; NULL: out of memory
