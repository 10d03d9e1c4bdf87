// sampler: from logits to the next token.
//
// Owns the order of the filters (top-k, top-p, min-p, temperature) and the random numbers; the same seed gives the same
// tokens. Nothing here depends on threads.
#include "tessera.h"

#include "file.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    float logit;
    int32_t id;
} Candidate;

struct Sampler {
    SamplerOptions options;
    uint64_t random; // splitmix64 state
    int vocab_size;
    Candidate *candidates; // [vocab_size]
    float *weights;        // [vocab_size]
};

Sampler *sampler_open(const SamplerOptions *options, int vocab_size, char *err, size_t errlen) {
    Sampler *s = calloc(1, sizeof *s);
    if (s) {
        *s = (Sampler){.options = *options, .random = options->seed, .vocab_size = vocab_size};
        s->candidates = calloc((size_t)vocab_size, sizeof *s->candidates);
        s->weights = calloc((size_t)vocab_size, sizeof *s->weights);
    }
    if (s && s->candidates && s->weights) return s;
    sampler_close(s);
    fail(err, errlen, "out of memory for the sampler");
    return NULL;
}

void sampler_close(Sampler *s) {
    if (!s) return;
    free(s->candidates);
    free(s->weights);
    free(s);
}

static double random_unit(Sampler *s) { // [0, 1), splitmix64
    uint64_t z = s->random += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

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
    if (!(top_p < 1)) return n;
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

int32_t sampler_pick(Sampler *s, const float *logits) {
    const SamplerOptions *o = &s->options;
    if (!(o->temperature > 0)) return greedy(logits, s->vocab_size);
    Candidate *c = s->candidates;
    int n = take_top(c, logits, s->vocab_size, o->top_k);
    n = cut_top_p(c, n, o->top_p);
    n = cut_min_p(c, n, o->min_p);
    double total = 0;
    for (int i = 0; i < n; i++) {
        s->weights[i] = expf((c[i].logit - c[0].logit) / o->temperature);
        total += (double)s->weights[i];
    }
    double at = random_unit(s) * total;
    for (int i = 0; i < n - 1; i++) {
        at -= (double)s->weights[i];
        if (at < 0) return c[i].id;
    }
    return c[n - 1].id;
}
