// sampler: from logits to the next token.
//
// Owns the order of the steps (biases, penalties, top-k, top-p, min-p, temperature), the history that the penalties
// look back on, and the random numbers; the same seed gives the same tokens. Refuses options out of range. Nothing here
// depends on threads.
#include "sampler.h"

#include "file.h"
#include "random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_LAST_N = 64, MOST_LAST_N = 1 << 28 };

typedef struct {
    float logit;
    int32_t id;
} Candidate;

struct Sampler {
    SamplerOptions options;
    uint64_t random; // the state of its numbers
    int vocab_size;
    Candidate *candidates; // [vocab_size]
    float *weights;        // [vocab_size]
    float *adjusted;       // [vocab_size] logits with biases and penalties; NULL: there are none
    LogitBias *bias;       // [options.n_bias]
    int *counts;           // [vocab_size] of each token in the history; NULL: no penalties
    int32_t *history;      // [last_n] a ring; NULL: the whole text counts
    int64_t n_history;     // tokens put in so far
    int last_n;
};

static int check_range(const char *name, double value, double least, double most, char *err, size_t errlen) {
    if (value >= least && value <= most) return 0;
    return fail(err, errlen, "%s: expected %g to %g, found %g", name, least, most, value);
}

static int check_options(const SamplerOptions *o, int vocab_size, char *err, size_t errlen) {
    const double most = (double)HUGE_VALF;
    if (vocab_size < 1) return fail(err, errlen, "vocab_size: expected at least 1, found %d", vocab_size);
    if (check_range("temperature", (double)o->temperature, 0, most, err, errlen) ||
        check_range("top_k", o->top_k, 0, INT32_MAX, err, errlen) ||
        check_range("top_p", (double)o->top_p, 0, 1, err, errlen) ||
        check_range("min_p", (double)o->min_p, 0, 1, err, errlen) ||
        check_range("repeat_penalty", (double)o->repeat_penalty, 0, 1e6, err, errlen) ||
        check_range("frequency_penalty", (double)o->frequency_penalty, -1e6, 1e6, err, errlen) ||
        check_range("presence_penalty", (double)o->presence_penalty, -1e6, 1e6, err, errlen) ||
        check_range("penalty_last_n", o->penalty_last_n, -1, MOST_LAST_N, err, errlen) ||
        check_range("n_bias", o->n_bias, 0, o->bias ? INT32_MAX : 0, err, errlen))
        return -1;
    for (int i = 0; i < o->n_bias; i++) {
        const LogitBias *b = &o->bias[i];
        if (b->id < 0 || b->id >= vocab_size)
            return fail(err, errlen, "bias %d: expected an id below %d, found %d", i, vocab_size, b->id);
        if (!(b->bias < HUGE_VALF))
            return fail(err, errlen, "bias %d: expected a finite number or -INFINITY, found %g", i, (double)b->bias);
    }
    return 0;
}

static bool has_penalties(const SamplerOptions *o) {
    return o->repeat_penalty != 1 || o->frequency_penalty != 0 || o->presence_penalty != 0;
}

static bool allocate(Sampler *s) {
    const SamplerOptions *o = &s->options;
    size_t n = (size_t)s->vocab_size;
    s->candidates = calloc(n, sizeof *s->candidates);
    s->weights = calloc(n, sizeof *s->weights);
    if (!s->candidates || !s->weights) return false;
    if (o->n_bias || has_penalties(o)) {
        s->adjusted = malloc(sizeof *s->adjusted * n);
        s->bias = malloc(sizeof *s->bias * (size_t)o->n_bias + 1);
        if (!s->adjusted || !s->bias) return false;
        if (o->n_bias) memcpy(s->bias, o->bias, sizeof *s->bias * (size_t)o->n_bias);
    }
    if (!has_penalties(o)) return true;
    s->counts = calloc(n, sizeof *s->counts);
    if (s->last_n > 0) s->history = malloc(sizeof *s->history * (size_t)s->last_n);
    return s->counts && (s->last_n < 0 || s->history);
}

Sampler *sampler_open(const SamplerOptions *options, int vocab_size, char *err, size_t errlen) {
    static const SamplerOptions defaults;
    if (!options) options = &defaults;
    if (check_options(options, vocab_size, err, errlen)) return NULL;
    Sampler *s = calloc(1, sizeof *s);
    if (s) {
        *s = (Sampler){.options = *options, .random = options->seed, .vocab_size = vocab_size};
        if (s->options.repeat_penalty == 0) s->options.repeat_penalty = 1;
        s->last_n = options->penalty_last_n ? options->penalty_last_n : DEFAULT_LAST_N;
        if (allocate(s)) return s;
    }
    sampler_close(s);
    fail(err, errlen, "out of memory for the sampler");
    return NULL;
}

void sampler_close(Sampler *s) {
    if (!s) return;
    free(s->candidates);
    free(s->weights);
    free(s->adjusted);
    free(s->bias);
    free(s->counts);
    free(s->history);
    free(s);
}

Sampler *sampler_clone(const Sampler *s) {
    SamplerOptions options = s->options;
    options.bias = s->bias;
    Sampler *copy = sampler_open(&options, s->vocab_size, NULL, 0);
    if (!copy) return NULL;
    copy->random = s->random;
    copy->n_history = s->n_history;
    if (s->counts) memcpy(copy->counts, s->counts, sizeof *s->counts * (size_t)s->vocab_size);
    if (s->history) memcpy(copy->history, s->history, sizeof *s->history * (size_t)s->last_n);
    return copy;
}

// ---- biases and penalties

static void remember(Sampler *s, int32_t id) {
    if (!s->counts || id < 0 || id >= s->vocab_size) return;
    if (s->history) {
        int32_t *slot = &s->history[s->n_history % s->last_n];
        if (s->n_history >= s->last_n) s->counts[*slot]--;
        *slot = id;
    }
    s->n_history++;
    s->counts[id]++;
}

void sampler_history(Sampler *s, const int32_t *tokens, int n) {
    if (!s->counts) return;
    memset(s->counts, 0, sizeof *s->counts * (size_t)s->vocab_size);
    s->n_history = 0;
    for (int i = s->history && n > s->last_n ? n - s->last_n : 0; i < n; i++) remember(s, tokens[i]);
}

static float penalized(const SamplerOptions *o, float logit, int count) {
    logit = logit > 0 ? logit / o->repeat_penalty : logit * o->repeat_penalty;
    return logit - ((float)count * o->frequency_penalty + o->presence_penalty);
}

static const float *adjust(Sampler *s, const float *logits) {
    const SamplerOptions *o = &s->options;
    if (!s->adjusted) return logits;
    memcpy(s->adjusted, logits, sizeof *logits * (size_t)s->vocab_size);
    for (int i = 0; i < o->n_bias; i++) s->adjusted[s->bias[i].id] += s->bias[i].bias;
    for (int32_t id = 0; s->counts && id < s->vocab_size; id++) {
        if (s->counts[id]) s->adjusted[id] = penalized(o, s->adjusted[id], s->counts[id]);
    }
    return s->adjusted;
}

// ---- the pick

static int by_logit(const void *a, const void *b) { // best first, ties by id
    const Candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static void sift_down(Candidate *heap, int n, int i) { // the worst candidate at the root
    for (;;) {
        int worst = i, l = 2 * i + 1, r = l + 1;
        if (l < n && by_logit(&heap[l], &heap[worst]) > 0) worst = l;
        if (r < n && by_logit(&heap[r], &heap[worst]) > 0) worst = r;
        if (worst == i) return;
        Candidate swap = heap[i];
        heap[i] = heap[worst];
        heap[worst] = swap;
        i = worst;
    }
}

// The k best, sorted: a heap of the k best so far, one pass.
static int take_top(Candidate *best, const float *logits, int n, int k) {
    if (k <= 0 || k > n) k = n;
    for (int i = 0; i < k; i++) best[i] = (Candidate){logits[i], i};
    if (k < n) {
        for (int i = k / 2 - 1; i >= 0; i--) sift_down(best, k, i);
        for (int i = k; i < n; i++) {
            if (!(logits[i] > best[0].logit)) continue;
            best[0] = (Candidate){logits[i], i};
            sift_down(best, k, 0);
        }
    }
    qsort(best, (size_t)k, sizeof *best, by_logit);
    return k;
}

static int32_t greedy(const float *logits, int n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) best = logits[i] > logits[best] ? i : best;
    return best;
}

// Shortest prefix of the sorted candidates whose probability reaches top_p; at least one.
static int cut_top_p(const Candidate *c, int n, float top_p) {
    if (!(top_p > 0 && top_p < 1)) return n;
    double total = 0, sum = 0;
    for (int i = 0; i < n; i++) total += exp((double)(c[i].logit - c[0].logit));
    for (int i = 0; i < n; i++) {
        sum += exp((double)(c[i].logit - c[0].logit));
        if (sum >= (double)top_p * total) return i + 1;
    }
    return n;
}

// Those at least min_p times as likely as the best.
static int cut_min_p(const Candidate *c, int n, float min_p) {
    if (!(min_p > 0)) return n;
    float least = c[0].logit + logf(min_p);
    int kept = 1;
    while (kept < n && c[kept].logit >= least) kept++;
    return kept;
}

static int32_t draw(Sampler *s, const float *logits) {
    const SamplerOptions *o = &s->options;
    Candidate *c = s->candidates;
    int n = take_top(c, logits, s->vocab_size, o->top_k);
    while (n > 1 && c[n - 1].logit == -HUGE_VALF) n--; // ruled out by a bias
    n = cut_top_p(c, n, o->top_p);
    n = cut_min_p(c, n, o->min_p);
    double total = 0;
    for (int i = 0; i < n; i++) {
        s->weights[i] = expf((c[i].logit - c[0].logit) / o->temperature);
        total += (double)s->weights[i];
    }
    double at = random_unit(&s->random) * total;
    for (int i = 0; i < n - 1; i++) {
        at -= (double)s->weights[i];
        if (at < 0) return c[i].id;
    }
    return c[n - 1].id;
}

int32_t sampler_pick(Sampler *s, const float *logits) {
    logits = adjust(s, logits);
    int32_t id = s->options.temperature > 0 ? draw(s, logits) : greedy(logits, s->vocab_size);
    remember(s, id);
    return id;
}
