// check_experts: mixtures of experts against a naive version in double: which experts a token goes to (ties, all of
// them, numbers that are none), with what weight, and what they compute: gated or plain, with biases, clamped,
// interleaved, shared; at once as token by token, at any number of threads.
#include "reference.h"

#include "experts.h"
#include "quant.h"

#include <float.h>

enum { DIM = 64, MOST_TOKENS = 40, MOST_EXPERTS = 130, MOST_HIDDEN = 96 };

typedef struct {
    Config config;
    Experts experts;
    FeedForward list[MOST_EXPERTS];
    void *memory[4 * MOST_EXPERTS * 3 + 16];
    int n_memory;
} Mixture;

static float *values(Mixture *m, int64_t n, float reach) {
    float *v = need_floats(n);
    for (int64_t i = 0; i < n; i++) v[i] = test_uniform() * reach;
    return m->memory[m->n_memory++] = v;
}

static Dense dense(Mixture *m, int rows, int cols, bool bias) {
    float reach = 1.7f / sqrtf((float)cols);
    Dense d = {.w = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {rows, cols}}};
    d.w.data = values(m, (int64_t)rows * cols, reach);
    if (bias) d.bias = values(m, rows, 0.5f);
    return d;
}

typedef struct {
    const char *name;
    int n_experts, n_used, hidden, shared;
    Activation activation;
    float clamp;
    bool plain, bias, keep_softmax, shared_gate, interleaved;
    bool sigmoid;            // scores, and then a number of each expert to choose by
    int groups, groups_used; // 0: none
    float scale;             // of the weights; 0: 1
} Shape;

static FeedForward network(Mixture *m, const Shape *s, int hidden, bool interleaved) {
    FeedForward f = {.interleaved = interleaved};
    f.up = dense(m, interleaved ? 2 * hidden : hidden, DIM, s->bias);
    if (!s->plain && !interleaved) f.gate = dense(m, hidden, DIM, s->bias);
    f.down = dense(m, DIM, hidden, s->bias);
    return f;
}

static Mixture *mixture(const Shape *s) {
    Mixture *m = calloc(1, sizeof *m);
    m->config = (Config){.dim = DIM,
                         .hidden_dim = s->n_experts ? s->hidden : s->shared,
                         .activation = s->activation,
                         .plain_ffn = s->plain,
                         .ffn_clamp = s->clamp,
                         .n_experts = s->n_experts,
                         .n_experts_used = s->n_used,
                         .experts_keep_softmax = s->keep_softmax,
                         .router_sigmoid = s->sigmoid,
                         .n_expert_groups = s->groups,
                         .n_groups_used = s->groups_used,
                         .experts_scale = s->scale,
                         .shared_dim = s->n_experts ? s->shared : 0};
    if (s->n_experts) {
        m->experts.list = m->list;
        m->experts.router = dense(m, s->n_experts, DIM, s->bias);
        for (int i = 0; i < s->n_experts; i++) m->list[i] = network(m, s, s->hidden, s->interleaved);
    }
    if (s->sigmoid) m->experts.choice_bias = values(m, s->n_experts, 1);
    if (s->shared) m->experts.shared = network(m, s, s->shared, false);
    if (s->shared_gate) m->experts.shared_gate = dense(m, 1, DIM, false);
    return m;
}

static void mixture_free(Mixture *m) {
    for (int i = 0; i < m->n_memory; i++) free(m->memory[i]);
    free(m);
}

// ---- running

// The buffers as the decoder makes them, each of its exact size, for the sanitizer.
static ExpertBuffers buffers(const Config *c, int n) {
    int width = c->hidden_dim > c->shared_dim ? c->hidden_dim : c->shared_dim;
    int up = c->n_experts && 2 * c->hidden_dim > width ? 2 * c->hidden_dim : width;
    int used = c->n_experts_used > 1 ? c->n_experts_used : 1;
    return (ExpertBuffers){.ffn = {need_floats((int64_t)n * width), need_floats((int64_t)n * up)},
                           .routes = need_floats((int64_t)n * c->n_experts),
                           .picked_x = need_floats((int64_t)n * (c->n_experts ? DIM : 0)),
                           .picked_y = need_floats((int64_t)n * (c->n_experts ? DIM : 0)),
                           .weights = need_floats((int64_t)n * used),
                           .picks = need(sizeof(int32_t) * (size_t)n * (size_t)used)};
}

static void buffers_free(ExpertBuffers *b) {
    float *all[] = {b->ffn.gate, b->ffn.up, b->routes, b->picked_x, b->picked_y, b->weights};
    for (int i = 0; i < N_OF(all); i++) free(all[i]);
    free(b->picks);
}

static Compute computes[2]; // of 1 and of 3 threads

// y[n][DIM] = ..., or += with add, in blocks of at most `at_once` tokens.
static void run_as(bool add, const Mixture *m, const float *x, float *y, int n, int at_once, int which) {
    for (int t = 0; t < n; t += at_once) {
        int count = n - t < at_once ? n - t : at_once;
        ExpertBuffers b = buffers(&m->config, count);
        const float *in = x + t * DIM;
        float *out = y + t * DIM;
        if (m->config.n_experts) experts_forward(&computes[which], &m->config, &m->experts, &b, in, out, count, add);
        else ffn_forward(&computes[which], &m->config, &m->experts.shared, &b.ffn, in, out, count, add);
        buffers_free(&b);
    }
}

static void run(const Mixture *m, const float *x, float *y, int n, int at_once, int which) {
    run_as(true, m, x, y, n, at_once, which);
}

// ---- the same in double

static double product(const Dense *d, int row, const double *x) {
    const float *w = (const float *)d->w.data + (int64_t)row * d->w.shape[1];
    double sum = d->bias ? (double)d->bias[row] : 0;
    for (int64_t i = 0; i < d->w.shape[1]; i++) sum += (double)w[i] * x[i];
    return sum;
}

static double activated(double x, Activation a) {
    if (a == ACT_GELU) return x * erfc(-x / sqrt(2)) / 2;
    if (a == ACT_GELU_TANH) return x / (1 + exp(-2 * sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
    return x / (1 + exp(a == ACT_QUICK_GELU ? -1.702 * x : -x));
}

static void expect_network(const Mixture *m, const FeedForward *f, const double *x, double share, double *y) {
    double hidden[MOST_HIDDEN], clamp = (double)m->config.ffn_clamp;
    Activation a = m->config.activation ? m->config.activation : ACT_SILU;
    for (int i = 0; i < f->down.w.shape[1]; i++) {
        double up = product(&f->up, f->interleaved ? 2 * i + 1 : i, x);
        if (!dense_exists(&f->gate) && !f->interleaved) {
            hidden[i] = activated(up, a);
            continue;
        }
        double gate = f->interleaved ? product(&f->up, 2 * i, x) : product(&f->gate, i, x);
        if (clamp > 0) gate = fmin(gate, clamp), up = fmax(fmin(up, clamp), -clamp) + 1;
        hidden[i] = activated(gate, a) * up;
    }
    for (int d = 0; d < DIM; d++) y[d] += share * product(&f->down, d, hidden);
}

// Is number i among the n_best of n, the first of equals first?
static bool among_best(const double *numbers, int n, int i, int n_best) {
    int better = 0;
    for (int j = 0; j < n; j++) better += numbers[j] > numbers[i] || (numbers[j] == numbers[i] && j < i);
    return better < n_best;
}

// What a group of experts is worth: its best, or with sigmoids its two best together.
static double worth_of(const double *choice, int n, bool two) {
    double worth = -INFINITY;
    for (int i = 0; i < n; i++) {
        if (!two || n < 2) worth = fmax(worth, choice[i]);
        for (int j = 0; two && j < i; j++) worth = fmax(worth, choice[i] + choice[j]);
    }
    return worth;
}

// Weights of all experts, 0 for those that are not used: the best by their logits, or by sigmoid and bias, in the best
// groups.
static void expect_weights(const Config *c, const float *bias, const double *logits, double *weights) {
    double all = 0, sum = 0, top = -INFINITY, choice[MOST_EXPERTS], worth[MOST_EXPERTS];
    int n = c->n_experts, groups = c->n_expert_groups, group = groups ? n / groups : n;
    for (int e = 0; e < n; e++) {
        top = fmax(top, logits[e]);
        choice[e] = c->router_sigmoid ? 1 / (1 + exp(-logits[e])) + (double)bias[e] : logits[e];
    }
    for (int g = 0; g < groups; g++) worth[g] = worth_of(choice + g * group, group, c->router_sigmoid);
    for (int e = 0; e < n && groups; e++) {
        if (!among_best(worth, groups, e / group, c->n_groups_used)) choice[e] = -INFINITY;
    }
    for (int e = 0; e < n; e++) {
        double score = c->router_sigmoid ? 1 / (1 + exp(-logits[e])) : exp(logits[e] - top);
        weights[e] = among_best(choice, n, e, c->n_experts_used) ? score : 0;
        sum += weights[e];
        all += score;
    }
    if (c->experts_keep_softmax) sum = c->router_sigmoid ? 1 : all;
    for (int e = 0; e < n; e++) weights[e] *= (c->experts_scale > 0 ? (double)c->experts_scale : 1) / sum;
}

static void expect_token(const Mixture *m, const float *x, double *y) {
    const Config *c = &m->config;
    double in[DIM], logits[MOST_EXPERTS] = {0}, weights[MOST_EXPERTS];
    for (int i = 0; i < DIM; i++) in[i] = (double)x[i];
    for (int e = 0; e < c->n_experts; e++) logits[e] = product(&m->experts.router, e, in);
    expect_weights(c, m->experts.choice_bias, logits, weights);
    for (int e = 0; e < c->n_experts; e++) {
        if (weights[e] > 0) expect_network(m, &m->list[e], in, weights[e], y);
    }
    if (!dense_exists(&m->experts.shared.up)) return;
    double share = 1;
    if (dense_exists(&m->experts.shared_gate)) share = 1 / (1 + exp(-product(&m->experts.shared_gate, 0, in)));
    expect_network(m, &m->experts.shared, in, share, y);
}

// ---- what they compute

static const Shape shapes[] = {
    {.name = "one network", .shared = 40},
    {.name = "one network, plain", .shared = 33, .plain = true, .bias = true, .activation = ACT_GELU_TANH},
    {.name = "one network, gelu", .shared = 96, .activation = ACT_GELU},
    {.name = "2 of 5", .n_experts = 5, .n_used = 2, .hidden = 40},
    {.name = "3 of 7 by softmax", .n_experts = 7, .n_used = 3, .hidden = 24, .keep_softmax = true},
    {.name = "1 of 1", .n_experts = 1, .n_used = 1, .hidden = 32},
    {.name = "1 of 8 by softmax", .n_experts = 8, .n_used = 1, .hidden = 17, .keep_softmax = true},
    {.name = "6 of 6", .n_experts = 6, .n_used = 6, .hidden = 16, .bias = true},
    {.name = "2 of 4, plain", .n_experts = 4, .n_used = 2, .hidden = 20, .plain = true, .activation = ACT_GELU},
    {.name = "2 of 4 and shared", .n_experts = 4, .n_used = 2, .hidden = 24, .shared = 96},
    {.name = "4 of 60 and shared behind a gate",
     .n_experts = 60,
     .n_used = 4,
     .hidden = 16,
     .shared = 33,
     .shared_gate = true,
     .keep_softmax = true},
    {.name = "1 of 3 and shared behind a gate",
     .n_experts = 3,
     .n_used = 1,
     .hidden = 8,
     .shared = 8,
     .shared_gate = true},
    {.name = "4 of 32 as gpt-oss",
     .n_experts = 32,
     .n_used = 4,
     .hidden = 48,
     .bias = true,
     .interleaved = true,
     .clamp = 0.6f,
     .activation = ACT_QUICK_GELU},
    {.name = "6 of 16 in 2 of 4 groups as DeepSeek-V2",
     .n_experts = 16,
     .n_used = 6,
     .hidden = 20,
     .shared = 40,
     .keep_softmax = true,
     .groups = 4,
     .groups_used = 2,
     .scale = 16},
    {.name = "4 of 32 in 3 of 8 groups as DeepSeek-V3",
     .n_experts = 32,
     .n_used = 4,
     .hidden = 24,
     .shared = 24,
     .sigmoid = true,
     .groups = 8,
     .groups_used = 3,
     .scale = 2.5f},
    {.name = "2 of 6 by sigmoids", .n_experts = 6, .n_used = 2, .hidden = 24, .sigmoid = true, .keep_softmax = true},
    {.name = "3 of 5 in groups of one",
     .n_experts = 5,
     .n_used = 3,
     .hidden = 8,
     .sigmoid = true,
     .groups = 5,
     .groups_used = 4},
    {.name = "2 of 3 clamped", .n_experts = 3, .n_used = 2, .hidden = 32, .clamp = 0.3f},
};

static const int counts[] = {1, 2, 6, 7, 33, MOST_TOKENS};

static void against_double(void) {
    double worst = 0;
    for (int s = 0; s < N_OF(shapes); s++) {
        Mixture *m = mixture(&shapes[s]);
        for (int i = 0; i < N_OF(counts); i++) {
            int n = counts[i];
            float x[MOST_TOKENS * DIM], y[MOST_TOKENS * DIM], three[MOST_TOKENS * DIM];
            double want[MOST_TOKENS * DIM];
            for (int j = 0; j < n * DIM; j++) {
                x[j] = test_uniform() * 2;
                want[j] = (double)(three[j] = y[j] = test_uniform()); // the stream that it joins
            }
            for (int t = 0; t < n; t++) expect_token(m, x + t * DIM, want + t * DIM);
            run(m, x, y, n, n, 0);
            run(m, x, three, n, n, 1);
            double error = nmse(y, want, n * DIM);
            worst = fmax(worst, error);
            CHECK(error < 1e-12, "%s, %d tokens: NMSE %.1e", shapes[s].name, n, error);
            CHECK(!memcmp(y, three, sizeof *y * (size_t)(n * DIM)), "%s, %d tokens: threads change bits",
                  shapes[s].name, n);
        }
        mixture_free(m);
    }
    printf("  NMSE %.1e at most\n", worst);
}

// What joins the stream, and the same in place of what was there; one network may add to the stream that it reads.
static void instead_of_added_and_in_place(void) {
    for (int s = 0; s < N_OF(shapes); s++) {
        Mixture *m = mixture(&shapes[s]);
        for (int i = 0; i < N_OF(counts); i++) {
            int n = counts[i];
            float x[MOST_TOKENS * DIM], y[MOST_TOKENS * DIM], added[MOST_TOKENS * DIM] = {0}, apart[MOST_TOKENS * DIM];
            for (int j = 0; j < n * DIM; j++) {
                x[j] = apart[j] = test_uniform() * 2;
                y[j] = NAN;
            }
            run(m, x, added, n, n, 0);
            run_as(false, m, x, y, n, n, 0);
            double error = nmse_f32(y, added, n * DIM);
            CHECK(error < 1e-12, "%s, %d tokens: NMSE %.1e from what is added to zeros", shapes[s].name, n, error);
            if (shapes[s].n_experts) continue;
            run(m, x, apart, n, n, 1);
            run(m, x, x, n, n, 1);
            CHECK(!memcmp(x, apart, sizeof *x * (size_t)(n * DIM)), "%s, %d tokens in place", shapes[s].name, n);
        }
        mixture_free(m);
    }
}

// However the text is cut: a token's sum runs over its experts in their order. While each expert computes few tokens,
// rows are multiplied one by one, and not a bit may differ.
static void by_expert_as_by_token(void) {
    for (int s = 0; s < N_OF(shapes); s++) {
        Mixture *m = mixture(&shapes[s]);
        float x[MOST_TOKENS * DIM], whole[MOST_TOKENS * DIM], single[MOST_TOKENS * DIM];
        for (int j = 0; j < MOST_TOKENS * DIM; j++) {
            x[j] = test_uniform() * 2;
            whole[j] = single[j] = test_uniform();
        }
        run(m, x, whole, 6, 6, 0);
        run(m, x, single, 6, 1, 0);
        CHECK(!memcmp(whole, single, sizeof *x * 6 * DIM), "%s: 6 tokens at once differ", shapes[s].name);
        run(m, x, whole, MOST_TOKENS, MOST_TOKENS, 0);
        memcpy(whole, single, sizeof *x * 6 * DIM); // these have been added to twice
        run(m, x + 6 * DIM, single + 6 * DIM, MOST_TOKENS - 6, 1, 0);
        double error = nmse_f32(whole, single, MOST_TOKENS * DIM);
        CHECK(error < 1e-12, "%s: %d tokens at once, NMSE %.1e", shapes[s].name, MOST_TOKENS, error);
        mixture_free(m);
    }
}

static Dense every_other(Mixture *m, const Dense *both, int first) {
    int rows = (int)both->w.shape[0] / 2;
    Dense d = dense(m, rows, DIM, both->bias != NULL);
    float *w = m->memory[m->n_memory - 1 - (both->bias != NULL)], *bias = m->memory[m->n_memory - 1];
    for (int i = 0; i < rows; i++) {
        memcpy(w + i * DIM, (const float *)both->w.data + (2 * i + first) * DIM, sizeof *w * DIM);
        if (both->bias) bias[i] = both->bias[2 * i + first];
    }
    return d;
}

static void interleaved_as_apart(void) {
    for (int n = 1; n <= MOST_TOKENS; n += 13) {
        Mixture *m = mixture(&shapes[12]);
        CHECK(m->list[0].interleaved, "shape 12 is not the one");
        float x[MOST_TOKENS * DIM], y[MOST_TOKENS * DIM] = {0}, apart[MOST_TOKENS * DIM] = {0};
        for (int j = 0; j < n * DIM; j++) x[j] = test_uniform() * 2;
        run(m, x, y, n, n, 0);
        for (int e = 0; e < m->config.n_experts; e++) {
            FeedForward *f = &m->list[e], two = {.down = f->down};
            two.gate = every_other(m, &f->up, 0);
            two.up = every_other(m, &f->up, 1);
            *f = two;
        }
        run(m, x, apart, n, n, 0);
        CHECK(!memcmp(y, apart, sizeof *y * (size_t)(n * DIM)), "%d tokens: interleaved rows give other bits", n);
        mixture_free(m);
    }
}

// ---- the choice

// Routes are what the caller wants: the input's first value is 1, the others are 0, and so is the router beyond its
// first column.
static void route(const Shape *s, const float *logits, ExpertBuffers *b) {
    Mixture *m = mixture(s);
    float *w = m->memory[0], x[DIM] = {1}, y[DIM] = {0};
    memset(w, 0, sizeof *w * (size_t)s->n_experts * DIM);
    for (int e = 0; e < s->n_experts; e++) w[e * DIM] = logits[e];
    *b = buffers(&m->config, 1);
    experts_forward(&computes[0], &m->config, &m->experts, b, x, y, 1, false);
    mixture_free(m);
}

static void check_choice(const Shape *s, const float *logits) {
    ExpertBuffers b;
    Config c = {.n_experts = s->n_experts, .n_experts_used = s->n_used, .experts_keep_softmax = s->keep_softmax};
    double want[MOST_EXPERTS], as_double[MOST_EXPERTS], sum = 0, rounding = 1e-6 + 3e-8 * s->n_used;
    for (int e = 0; e < s->n_experts; e++) as_double[e] = (double)logits[e];
    expect_weights(&c, NULL, as_double, want);
    route(s, logits, &b);
    for (int k = 0; k < s->n_used; k++) {
        int e = b.picks[k];
        CHECK(e >= 0 && e < s->n_experts, "%d of %d: expert %d", s->n_used, s->n_experts, e);
        if (e < 0 || e >= s->n_experts) break;
        CHECK(fabs((double)b.weights[k] - want[e]) < 1e-6, "%d of %d: expert %d (logit %g) has weight %g, expected %g",
              s->n_used, s->n_experts, e, (double)logits[e], (double)b.weights[k], want[e]);
        sum += (double)b.weights[k];
        if (!k) continue;
        bool in_order =
            logits[b.picks[k - 1]] > logits[e] || (logits[b.picks[k - 1]] == logits[e] && b.picks[k - 1] < e);
        CHECK(in_order, "%d of %d: %d comes before %d", s->n_used, s->n_experts, b.picks[k - 1], e);
    }
    CHECK(s->keep_softmax ? sum <= 1 + rounding : fabs(sum - 1) <= rounding, "%d of %d: weights sum to %g", s->n_used,
          s->n_experts, sum);
    buffers_free(&b);
}

static void choices(void) {
    static const int sizes[] = {1, 2, 3, 8, 64, 128};
    for (int i = 0; i < N_OF(sizes); i++) {
        int n = sizes[i], used[] = {1, 2, n / 2, n - 1, n};
        for (int u = 0; u < N_OF(used); u++) {
            if (used[u] < 1 || used[u] > n) continue;
            for (int round = 0; round < 12; round++) {
                Shape s = {.n_experts = n, .n_used = used[u], .hidden = 2, .keep_softmax = round % 2};
                float logits[MOST_EXPERTS];
                for (int e = 0; e < n; e++) {
                    float tied = (float)(pick(3) - 1), wide = test_uniform() * (round % 4 < 2 ? 5 : 1000);
                    logits[e] = round < 4 ? tied : round < 6 ? 0.25f : wide;
                }
                check_choice(&s, logits);
            }
        }
    }
}

static void one_far_below(void) { // minus infinity is a choice of weight 0
    Shape s = {.n_experts = 4, .n_used = 3, .hidden = 2};
    float logits[] = {-INFINITY, 1, -INFINITY, 2}, huge[] = {FLT_MAX, -FLT_MAX, FLT_MAX, 0};
    check_choice(&s, logits);
    check_choice(&s, huge);
}

// Numbers that are none: whatever is chosen, it is different experts that there are.
static void broken_routers(void) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0, 1, NAN};
    for (int round = 0; round < 400; round++) {
        int n = 1 + pick(MOST_EXPERTS - 1);
        Shape s = {.n_experts = n, .n_used = 1 + pick(n < 9 ? n : 9), .hidden = 2, .keep_softmax = pick(2)};
        float logits[MOST_EXPERTS];
        for (int e = 0; e < n; e++) logits[e] = round < 3 ? odd[round] : odd[pick(N_OF(odd))];
        ExpertBuffers b;
        route(&s, logits, &b);
        bool seen[MOST_EXPERTS] = {0};
        for (int k = 0; k < s.n_used; k++) {
            bool sound = b.picks[k] >= 0 && b.picks[k] < n && !seen[b.picks[k]];
            CHECK(sound, "%d of %d: choice %d is %d", s.n_used, n, k, b.picks[k]);
            if (sound) seen[b.picks[k]] = true;
        }
        buffers_free(&b);
    }
}

// ---- MXFP4 with exponents apart

// Byte j of a block holds values 2j (low) and 2j + 1 (high): a sign, two bits of exponent, one of fraction
// (OCP Microscaling Formats 1.0, section 5.3.3).
static float mxfp4_value(const uint8_t *blocks, const uint8_t *exponents, int64_t i) {
    unsigned code = (unsigned)blocks[i / 2] >> (i % 2 * 4) & 15, exponent = code >> 1 & 3, fraction = code & 1;
    double size = exponent ? ldexp(1 + fraction / 2.0, (int)exponent - 1) : fraction / 2.0;
    return (float)ldexp(code & 8 ? -size : size, exponents[i / BLOCK] - 127);
}

static void every_exponent(void) {
    enum { N = 256 };
    uint8_t blocks[N * BLOCK / 2], exponents[N];
    float found[N * BLOCK];
    for (int i = 0; i < N_OF(blocks); i++) blocks[i] = (uint8_t)(i * 37 + i / 16);
    for (int i = 0; i < N; i++) exponents[i] = (uint8_t)i;
    unpack_mxfp4_split(found, blocks, exponents, N);
    for (int i = 0; i < N * BLOCK; i++) {
        float want = mxfp4_value(blocks, exponents, i);
        bool none = exponents[i / BLOCK] == 255; // no number
        CHECK(none ? isnan(found[i]) != 0 : found[i] == want, "exponent %d, value %d: %g, expected %g", i / BLOCK,
              i % BLOCK, (double)found[i], (double)want);
    }
}

static void blocks_of_experts(void) {
    for (int n = 1; n <= 33; n += 16) {
        Mixture *m = mixture(&shapes[12]), *exact = mixture(&shapes[12]);
        m->config.hidden_dim = exact->config.hidden_dim = 96;
        for (int e = 0; e < m->config.n_experts; e++) {
            for (int part = 0; part < 2; part++) {
                int rows = part ? DIM : 192, cols = part ? 96 : DIM;
                int64_t count = (int64_t)rows * cols;
                uint8_t *blocks = m->memory[m->n_memory++] = need((size_t)count / 2),
                        *exponents = m->memory[m->n_memory++] = need((size_t)count / BLOCK);
                for (int64_t i = 0; i < count / 2; i++) blocks[i] = (uint8_t)pick(256);
                for (int64_t i = 0; i < count / BLOCK; i++) exponents[i] = (uint8_t)(120 + pick(5));
                Dense d = {.w = {.dtype = DTYPE_MXFP4_SPLIT, .n_dims = 2, .shape = {rows, cols}}};
                d.w.data = blocks;
                d.w.scales = exponents;
                d.bias = values(m, rows, 0.5f);
                *(part ? &m->list[e].down : &m->list[e].up) = d;
                float *all = d.w.data ? values(exact, count, 0) : NULL;
                for (int64_t i = 0; i < count; i++) all[i] = mxfp4_value(blocks, exponents, i);
                d.w = (Tensor){.dtype = DTYPE_F32, .n_dims = 2, .shape = {rows, cols}, .data = all};
                *(part ? &exact->list[e].down : &exact->list[e].up) = d;
            }
        }
        exact->experts.router = m->experts.router;
        float x[MOST_TOKENS * DIM], y[MOST_TOKENS * DIM] = {0};
        double want[MOST_TOKENS * DIM] = {0};
        for (int j = 0; j < n * DIM; j++) x[j] = test_uniform();
        run(m, x, y, n, n, 1);
        for (int t = 0; t < n; t++) expect_token(exact, x + t * DIM, want + t * DIM);
        double error = nmse(y, want, n * DIM);
        CHECK(error < 1e-12, "%d tokens: NMSE %.1e", n, error);
        mixture_free(m);
        mixture_free(exact);
    }
}

static void all_at_this_level(void) {
    char err[200] = "";
    CHECK(!compute_open(&computes[0], 1, err, sizeof err) && !compute_open(&computes[1], 3, err, sizeof err), "%s",
          err);
    against_double();
    instead_of_added_and_in_place();
    by_expert_as_by_token();
    interleaved_as_apart();
    choices();
    one_far_below();
    broken_routers();
    every_exponent();
    blocks_of_experts();
    for (int i = 0; i < 2; i++) compute_close(&computes[i]);
}

int main(void) {
    RUN_AT_LEVELS(all_at_this_level);
    return test_report();
}
