// experts: see experts.h.
#include "experts.h"

#include <math.h>
#include <string.h>

int experts_width(const Config *c) {
    int width = c->n_experts ? 2 * c->hidden_dim : c->hidden_dim;
    return width > c->shared_dim ? width : c->shared_dim;
}

// up[n][2 hidden], gate and up in turn, into gate[n][hidden] and up[n][hidden]: writes never overtake reads.
static void part(float *gate, float *up, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        gate[i] = up[2 * i];
        up[i] = up[2 * i + 1];
    }
}

// y[n][dim] = network(x), or += with add
static void feed_forward(const Compute *compute, const Config *c, const FeedForward *f, const ExpertBuffers *b,
                         const float *x, float *y, int n, bool add) {
    int hidden = (int)f->down.w.shape[1];
    Activation act = c->activation ? c->activation : ACT_SILU;
    bool gated = f->gate.w.shape[0] || f->interleaved;
    Linear first[] = {{.w = &f->up.w, .y = b->up, .bias = f->up.bias, .act = gated ? ACT_NONE : act},
                      {.w = &f->gate.w, .y = b->gate, .bias = f->gate.bias}};
    ops_linear(compute, first, f->gate.w.shape[0] ? 2 : 1, x, n);
    if (gated) {
        Profile *profile = threads_profile(compute->pool);
        profile_begin(profile, PROFILE_GATE);
        if (f->interleaved) part(b->gate, b->up, (int64_t)n * hidden);
        ops_gate(compute, b->gate, b->up, n, hidden, act, c->ffn_clamp);
        profile_end(profile, 0, 0);
    }
    Linear down = {.w = &f->down.w, .y = y, .add = add, .bias = f->down.bias};
    ops_linear(compute, &down, 1, gated ? b->gate : b->up, n);
}

// The best experts of one token, in descending order, the first of equals first; and their weights.
static void pick(const Config *c, const float *routes, int32_t *picks, float *weights) {
    int n = c->n_experts, used = c->n_experts_used;
    for (int k = 0; k < used; k++) {
        int best = -1;
        for (int e = 0; e < n; e++) {
            bool taken = false;
            for (int j = 0; j < k; j++) taken |= picks[j] == e;
            if (!taken && (best < 0 || routes[e] > routes[best])) best = e;
        }
        picks[k] = best;
    }
    float top = routes[picks[0]], sum = 0;
    for (int k = 0; k < used; k++) sum += weights[k] = expf(routes[picks[k]] - top);
    if (c->experts_keep_softmax) {
        sum = 0;
        for (int e = 0; e < n; e++) sum += expf(routes[e] - top);
    }
    for (int k = 0; k < used; k++) weights[k] /= sum;
}

// The tokens of one expert, gathered, computed, and added to where they came from.
static void expert_forward(const Compute *compute, const Config *c, const Experts *e, int expert,
                           const ExpertBuffers *b, const float *x, float *y, int n) {
    int dim = c->dim, used = c->n_experts_used, count = 0;
    Profile *profile = threads_profile(compute->pool);
    profile_begin(profile, PROFILE_ROUTE);
    for (int i = 0; i < n * used; i++) {
        if (b->picks[i] != expert) continue;
        memcpy(b->picked_x + (int64_t)count++ * dim, x + (int64_t)(i / used) * dim, sizeof *x * (size_t)dim);
    }
    profile_end(profile, 0, 0);
    if (!count) return;
    feed_forward(compute, c, &e->list[expert], b, b->picked_x, b->picked_y, count, false);
    profile_begin(profile, PROFILE_ROUTE);
    const float *from = b->picked_y;
    for (int i = 0; i < n * used; i++) {
        if (b->picks[i] != expert) continue;
        float *to = y + (int64_t)(i / used) * dim;
        for (int d = 0; d < dim; d++) to[d] += b->weights[i] * from[d];
        from += dim;
    }
    profile_end(profile, 0, 0);
}

static void shared_forward(const Compute *compute, const Config *c, const Experts *e, const ExpertBuffers *b,
                           const float *x, float *y, int n) {
    if (!e->shared_gate.w.shape[0]) {
        feed_forward(compute, c, &e->shared, b, x, y, n, true);
        return;
    }
    ops_linear(compute, &(Linear){.w = &e->shared_gate.w, .y = b->weights}, 1, x, n);
    feed_forward(compute, c, &e->shared, b, x, b->picked_y, n, false);
    profile_begin(threads_profile(compute->pool), PROFILE_ROUTE);
    for (int t = 0; t < n; t++) {
        float share = 1 / (1 + expf(-b->weights[t]));
        for (int d = 0; d < c->dim; d++) y[(int64_t)t * c->dim + d] += share * b->picked_y[(int64_t)t * c->dim + d];
    }
    profile_end(threads_profile(compute->pool), 0, 0);
}

void experts_forward(const Compute *compute, const Config *c, const Experts *e, const ExpertBuffers *b, const float *x,
                     float *y, int n) {
    if (e->list) {
        Linear router = {.w = &e->router.w, .y = b->routes, .bias = e->router.bias};
        profile_begin(threads_profile(compute->pool), PROFILE_ROUTE);
        ops_linear(compute, &router, 1, x, n);
        for (int t = 0; t < n; t++) {
            int used = c->n_experts_used;
            pick(c, b->routes + (int64_t)t * c->n_experts, b->picks + t * used, b->weights + t * used);
        }
        profile_end(threads_profile(compute->pool), 0, 0);
        for (int i = 0; i < c->n_experts; i++) expert_forward(compute, c, e, i, b, x, y, n);
    }
    if (e->shared.up.w.shape[0]) shared_forward(compute, c, e, b, x, y, n);
}
