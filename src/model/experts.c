// experts: see experts.h.
#include "experts.h"

#include <math.h>
#include <string.h>

// ---- binding

// The matrices that every expert has one of.
typedef enum { EXPERT_GATE, EXPERT_UP, EXPERT_DOWN } ExpertMatrix;

static Dense *matrix_of(FeedForward *f, ExpertMatrix which) {
    return which == EXPERT_GATE ? &f->gate : which == EXPERT_UP ? &f->up : &f->down;
}

// One matrix [rows][cols] of every expert.
typedef struct {
    ExpertMatrix which;
    const char *stacked, *single; // its name for all experts in one tensor, and for one of them
    int64_t rows, cols;
} ExpertPart;

static void bind_single(Binder *b, FeedForward *list, const ExpertPart *p) {
    for (int e = 0; e < b->config->n_experts && !b->failed; e++) {
        const Tensor *t = bind_matrix(b, p->single, e, p->rows, p->cols);
        if (t) matrix_of(&list[e], p->which)->w = *t;
    }
}

static void bind_stacked(Binder *b, FeedForward *list, const ExpertPart *p) {
    const Config *c = b->config;
    const float *bias = NULL;
    const int64_t shape[] = {c->n_experts, p->rows, p->cols};
    const Tensor *all = bind_shape(b, p->stacked, ".weight", DTYPE_ANY, shape, 3);
    if (c->ffn_bias) bias = bind_floats(b, p->stacked, ".bias", shape, 2);
    for (int e = 0; e < c->n_experts && !b->failed; e++) {
        Dense *dense = matrix_of(&list[e], p->which);
        dense->w = (Tensor){.dtype = all->dtype, .n_dims = 2, .shape = {p->rows, p->cols}};
        dense->w.data = (const char *)all->data + (uint64_t)e * tensor_bytes(&dense->w);
        if (bias) dense->bias = bias + e * p->rows;
    }
}

// One matrix of every expert, whose rows are a part of those in a tensor [experts][all rows][cols].
static void view_stacked(FeedForward *list, const ExpertPart *p, const Tensor *all, int64_t row0) {
    Tensor one = {.dtype = all->dtype, .n_dims = 2, .shape = {all->shape[1], p->cols}};
    uint64_t bytes = tensor_bytes(&one);
    for (int64_t e = 0; e < all->shape[0]; e++) {
        Dense whole = {.w = one};
        whole.w.data = (const char *)all->data + (uint64_t)e * bytes;
        *matrix_of(&list[e], p->which) = dense_rows(&whole, row0, p->rows);
    }
}

// The transposes of a file's matrices [experts][cols][rows]: a copy.
static Tensor transpose_stack(Binder *b, const Tensor *from) {
    int64_t n = from->shape[0], rows = from->shape[2], cols = from->shape[1], size = from->dtype == DTYPE_F32 ? 4 : 2;
    Tensor t = {.dtype = from->dtype, .n_dims = 3, .shape = {n, rows, cols}};
    char *to = weights_own(b->weights, tensor_bytes(&t));
    if (!to) binder_fail(b, "out of memory for a copy of %llu bytes", (unsigned long long)tensor_bytes(&t));
    for (int64_t i = 0; to && i < n * rows; i++) {
        const char *column = (const char *)from->data + (i / rows * cols * rows + i % rows) * size;
        for (int64_t j = 0; j < cols; j++) memcpy(to + (i * cols + j) * size, column + j * rows * size, (size_t)size);
    }
    t.data = to;
    return t;
}

// A tensor [experts][rows][cols], in some families' files transposed. False after a failure.
static bool find_stack(Binder *b, const char *part, int64_t rows, int64_t cols, Tensor *stack) {
    bool turned = b->family->experts_transposed;
    const int64_t shape[] = {b->config->n_experts, turned ? cols : rows, turned ? rows : cols};
    const Tensor *t = bind_shape(b, part, "", turned ? DTYPE_FLOATS : DTYPE_ANY, shape, 3);
    if (t) *stack = turned ? transpose_stack(b, t) : *t;
    return t && !b->failed;
}

// As folders have them since transformers 5: rows of the gate, then of up, of all experts in one tensor.
static void bind_halves(Binder *b, FeedForward *list) {
    int64_t dim = b->config->dim, hidden = config_expert_dim(b->config);
    Tensor up, down;
    if (!find_stack(b, "ffn_gate_up_exps", 2 * hidden, dim, &up)) return;
    view_stacked(list, &(ExpertPart){EXPERT_GATE, NULL, NULL, hidden, dim}, &up, 0);
    view_stacked(list, &(ExpertPart){EXPERT_UP, NULL, NULL, hidden, dim}, &up, hidden);
    if (!find_stack(b, "ffn_down_exps", dim, hidden, &down)) return;
    view_stacked(list, &(ExpertPart){EXPERT_DOWN, NULL, NULL, dim, hidden}, &down, 0);
}

static void bind_matrices(Binder *b, FeedForward *list, const ExpertPart *p) {
    bool single = !b->config->ffn_bias && (b->hf_names || bind_find(b, p->single, 0, ".weight")); // has no biases
    if (single) bind_single(b, list, p);
    else bind_stacked(b, list, p);
}

// As gpt-oss has them outside GGUF: 16 bytes a block of 32 values, and exponents of their own.
static void bind_blocks(Binder *b, FeedForward *list, const ExpertPart *p) {
    int64_t n = b->config->n_experts, n_blocks = p->cols / BLOCK;
    unsigned bytes = DTYPE_BIT(DTYPE_U8);
    const int64_t shape[] = {n, p->rows, n_blocks, BLOCK / 2};
    const Tensor *blocks = bind_shape(b, p->stacked, "_blocks", bytes, shape, 4);
    const Tensor *exponents = bind_shape(b, p->stacked, "_scales", bytes, shape, 3);
    const float *bias = bind_floats(b, p->stacked, "_bias", shape, 2);
    for (int64_t e = 0; e < n && !b->failed; e++) {
        Dense *dense = matrix_of(&list[e], p->which);
        dense->w = (Tensor){.dtype = DTYPE_MXFP4_SPLIT,
                            .n_dims = 2,
                            .shape = {p->rows, p->cols},
                            .data = (const uint8_t *)blocks->data + e * p->rows * n_blocks * (BLOCK / 2),
                            .scales = (const uint8_t *)exponents->data + e * p->rows * n_blocks};
        dense->bias = bias + e * p->rows;
    }
}

static void bind_interleaved(Binder *b, FeedForward *list) {
    const Config *c = b->config;
    int hidden = config_expert_dim(c);
    if (hidden % BLOCK || c->dim % BLOCK) {
        binder_fail(b, "experts: expected widths of whole blocks of %d, found %d and %d", BLOCK, c->dim, hidden);
    }
    bind_blocks(b, list, &(ExpertPart){EXPERT_UP, "ffn_gate_up_exps", NULL, 2 * (int64_t)hidden, c->dim});
    bind_blocks(b, list, &(ExpertPart){EXPERT_DOWN, "ffn_down_exps", NULL, c->dim, hidden});
    for (int i = 0; i < c->n_experts; i++) list[i].interleaved = true;
}

static void bind_shared(Binder *b, Experts *e) {
    static const FeedForwardNames names = {"ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"};
    int64_t dim = b->config->dim, rows[] = {1, dim};
    ffn_bind(b, &e->shared, &names, b->config->shared_dim);
    if (b->config->shared_ungated) return;
    const Tensor *found = bind_find(b, "ffn_gate_inp_shexp", -1, ".weight");
    bool flat = found && found->n_dims == 1; // [dim] in GGUF, [1][dim] elsewhere
    const Tensor *gate = bind_shape(b, "ffn_gate_inp_shexp", ".weight", DTYPE_ANY, flat ? &dim : rows, flat ? 1 : 2);
    if (!gate) return;
    e->shared_gate.w = *gate;
    e->shared_gate.w.n_dims = 2;
    e->shared_gate.w.shape[0] = 1;
    e->shared_gate.w.shape[1] = dim;
}

void experts_bind(Binder *b, Experts *e, FeedForward *list) {
    const Config *c = b->config;
    int64_t dim = c->dim, hidden = config_expert_dim(c);
    e->list = list;
    bind_dense(b, &e->router, "ffn_gate_inp", c->n_experts, dim, c->router_bias);
    if (c->router_choice_bias) e->choice_bias = bind_vector(b, "exp_probs_b", b->hf_names ? "" : ".bias", c->n_experts);
    if (bind_find(b, "ffn_gate_up_exps", -1, "_blocks")) {
        bind_interleaved(b, list);
        if (c->shared_dim) bind_shared(b, e);
        return;
    }
    if (b->hf_names && bind_find(b, "ffn_gate_up_exps", -1, "")) {
        bind_halves(b, list);
        if (c->shared_dim) bind_shared(b, e);
        return;
    }
    if (!c->plain_ffn) bind_matrices(b, list, &(ExpertPart){EXPERT_GATE, "ffn_gate_exps", "ffn_gate_exp", hidden, dim});
    bind_matrices(b, list, &(ExpertPart){EXPERT_UP, "ffn_up_exps", "ffn_up_exp", hidden, dim});
    bind_matrices(b, list, &(ExpertPart){EXPERT_DOWN, "ffn_down_exps", "ffn_down_exp", dim, hidden});
    if (c->shared_dim) bind_shared(b, e);
}

uint64_t experts_token_bytes(const Experts *e, int n_used) {
    return dense_bytes(&e->router) + dense_bytes(&e->shared_gate) + ffn_token_bytes(&e->shared) +
           (uint64_t)n_used * ffn_token_bytes(&e->list[0]);
}

// ---- forward

// What the experts of one token are chosen by.
typedef struct {
    const float *scores; // [n_experts]: logits of a softmax, or sigmoids
    const float *bias;   // [n_experts]; NULL: none
    const bool *closed;  // [n_expert_groups] of which no expert is chosen; NULL: no groups
    int group;           // experts in one
} Choice;

static float value_of(const Choice *c, int expert) {
    return c->scores[expert] + (c->bias ? c->bias[expert] : 0);
}

// How good a group is: its best logit, or the sum of its two best scores.
static float judge_group(const Choice *c, int group, bool two) {
    float best = -INFINITY, second = -INFINITY;
    for (int e = group * c->group; e < (group + 1) * c->group; e++) {
        float value = value_of(c, e);
        if (value > best) {
            second = best;
            best = value;
        } else if (value > second) second = value;
    }
    return two && c->group > 1 ? best + second : best;
}

static void close_groups(const Config *config, const Choice *c, bool closed[MAX_EXPERTS]) {
    float worth[MAX_EXPERTS];
    for (int g = 0; g < config->n_expert_groups; g++) {
        worth[g] = judge_group(c, g, config->router_sigmoid);
        closed[g] = true;
    }
    for (int k = 0; k < config->n_groups_used; k++) {
        int best = -1;
        for (int g = 0; g < config->n_expert_groups; g++) {
            if (closed[g] && (best < 0 || worth[g] > worth[best])) best = g;
        }
        closed[best] = false;
    }
}

// In descending order, the first of equals first.
static void choose(const Choice *c, int n, int used, int32_t *picks) {
    for (int k = 0; k < used; k++) {
        int best = -1;
        for (int e = 0; e < n; e++) {
            bool taken = c->closed && c->closed[e / c->group];
            for (int j = 0; j < k; j++) taken |= picks[j] == e;
            if (!taken && (best < 0 || value_of(c, e) > value_of(c, best))) best = e;
        }
        picks[k] = best;
    }
}

// The weights of the experts used: parts of a softmax, or sigmoids.
static void weigh(const Config *c, const float *scores, const int32_t *picks, float *weights) {
    int used = c->n_experts_used;
    float top = scores[picks[0]], sum = 0;
    for (int k = 0; k < used; k++) {
        float score = scores[picks[k]];
        sum += weights[k] = c->router_sigmoid ? score : expf(score - top);
    }
    if (c->router_sigmoid) sum = c->experts_keep_softmax ? 1 : sum + 1e-20f;
    else if (c->experts_keep_softmax) {
        sum = 0;
        for (int e = 0; e < c->n_experts; e++) sum += expf(scores[e] - top);
    }
    float scale = c->experts_scale > 0 ? c->experts_scale : 1;
    for (int k = 0; k < used; k++) weights[k] = weights[k] / sum * scale;
}

// SparseMixer's weights: experts that are chosen are no longer among those of the next softmax.
static void weigh_sparse(const Config *c, const float *logits, const int32_t *picks, float *weights) {
    for (int k = 0; k < c->n_experts_used; k++) {
        float top = logits[picks[k]], sum = 0;
        for (int e = 0; e < c->n_experts; e++) {
            bool taken = false;
            for (int j = 0; j < k; j++) taken |= picks[j] == e;
            bool far = (top - logits[e]) / fmaxf(fabsf(logits[e]), top) > 2 * c->router_jitter;
            if (!taken && !far) sum += expf(logits[e] - top);
        }
        weights[k] = 1 / sum;
    }
}

// The best experts of one token and their weights; routes: the router's logits, which sigmoids overwrite.
static void pick(const Config *c, const Experts *e, float *routes, int32_t *picks, float *weights) {
    bool closed[MAX_EXPERTS];
    Choice choice = {.scores = routes, .bias = e->choice_bias};
    if (c->router_sigmoid) {
        for (int i = 0; i < c->n_experts; i++) routes[i] = sigmoidf(routes[i]);
    }
    if (c->n_expert_groups > 1) {
        choice.group = c->n_experts / c->n_expert_groups;
        close_groups(c, &choice, closed);
        choice.closed = closed;
    }
    choose(&choice, c->n_experts, c->n_experts_used, picks);
    if (c->router_jitter > 0) weigh_sparse(c, routes, picks, weights);
    else weigh(c, routes, picks, weights);
}

// The tokens of one expert, gathered, computed, and added to where they came from.
static void expert_forward(const Compute *compute, const Config *c, const Experts *e, int expert,
                           const ExpertBuffers *b, const float *x, float *y, int n) {
    int dim = c->dim, used = c->n_experts_used, count = 0;
    profile_begin(compute->profile, PROFILE_ROUTE);
    for (int i = 0; i < n * used; i++) {
        if (b->picks[i] != expert) continue;
        float *to = b->picked_x + (int64_t)count * dim;
        memcpy(to, x + (int64_t)(i / used) * dim, sizeof *x * (size_t)dim);
        if (c->router_input) {
            for (int d = 0; d < dim; d++) to[d] *= b->weights[i];
        }
        count++;
    }
    profile_end(compute->profile, 0, 0);
    if (!count) return;
    ffn_forward(compute, c, &e->list[expert], &b->ffn, b->picked_x, b->picked_y, count, false);
    profile_begin(compute->profile, PROFILE_ROUTE);
    const float *from = b->picked_y;
    for (int i = 0; i < n * used; i++) {
        if (b->picks[i] != expert) continue;
        float *to = y + (int64_t)(i / used) * dim, share = c->router_input ? 1 : b->weights[i];
        for (int d = 0; d < dim; d++) to[d] += share * from[d];
        from += dim;
    }
    profile_end(compute->profile, 0, 0);
}

static void shared_forward(const Compute *compute, const Config *c, const Experts *e, const ExpertBuffers *b,
                           const float *x, float *y, int n) {
    if (!dense_exists(&e->shared_gate)) {
        ffn_forward(compute, c, &e->shared, &b->ffn, x, y, n, true);
        return;
    }
    ops_linear(compute, &(Linear){.w = &e->shared_gate.w, .y = b->weights}, 1, x, n);
    ffn_forward(compute, c, &e->shared, &b->ffn, x, b->picked_y, n, false);
    profile_begin(compute->profile, PROFILE_ROUTE);
    for (int t = 0; t < n; t++) {
        float share = sigmoidf(b->weights[t]);
        for (int d = 0; d < c->dim; d++) y[(int64_t)t * c->dim + d] += share * b->picked_y[(int64_t)t * c->dim + d];
    }
    profile_end(compute->profile, 0, 0);
}

void experts_forward(const Compute *compute, const Config *c, const Experts *e, const ExpertBuffers *b, const float *x,
                     float *y, int n, bool add) {
    int used = c->n_experts_used;
    if (!add) memset(y, 0, sizeof *y * (size_t)n * (size_t)c->dim);
    Linear router = {.w = &e->router.w, .y = b->routes, .bias = e->router.bias};
    profile_begin(compute->profile, PROFILE_ROUTE);
    ops_linear(compute, &router, 1, x, n);
    for (int t = 0; t < n; t++) {
        pick(c, e, b->routes + (int64_t)t * c->n_experts, b->picks + t * used, b->weights + t * used);
    }
    profile_end(compute->profile, 0, 0);
    for (int i = 0; i < c->n_experts; i++) expert_forward(compute, c, e, i, b, x, y, n);
    if (c->shared_dim) shared_forward(compute, c, e, b, x, y, n);
}
