// embedding: see embedding.h.
#include "embedding.h"

void embed(const Compute *c, const Embedding *e, float *x, const int32_t *tokens, const int32_t *positions, int n) {
    int dim = (int)e->table->shape[1];
    profile_begin(c->profile, PROFILE_EMBED);
    ops_embed(c, x, e->table, tokens, n);
    if (e->scale > 0) {
        for (int64_t i = 0; i < (int64_t)n * dim; i++) x[i] *= e->scale;
    }
    if (e->positions) ops_positions(c, x, e->positions, positions, n, dim);
    if (e->norm.weight) ops_norm(c, x, x, &e->norm, n, dim, e->norm_eps);
    profile_end(c->profile, 0, 0);
}
