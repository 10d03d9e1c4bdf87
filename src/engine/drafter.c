// drafter: see drafter.h.
#include "drafter.h"

#include "engine.h"
#include "file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LONGEST_MATCH = 16, SHORTEST_MATCH = 2, PROBE_EVERY = 64 };

static const float LEARN = 1.0f / 32;   // weight of a new observation
static const double WORTHWHILE = 1.05;  // speed that guesses must promise, of the speed without
static const double ASSUMED_ROW = 0.25; // what a row more costs, in passes, until it is measured

double drafter_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

Drafter *drafter_open(Guess guess, void *context, bool is_free) {
    Drafter *d = calloc(1, sizeof *d);
    if (!d) return NULL;
    *d = (Drafter){.guess = guess, .context = context, .is_free = is_free, .right = {0.2f, 0.4f, 0.6f, 0.8f}};
    return d;
}

void drafter_close(Drafter *d) {
    if (d && d->close) d->close(d->context);
    free(d);
}

DrafterInfo drafter_info(const Drafter *d) {
    return d->info;
}

// ---- how many guesses pay

// Of a pass with n guesses, in passes without: as measured, or in proportion to the nearest count that was.
static double cost_of(const Drafter *d, int n) {
    double row = ASSUMED_ROW;
    for (int near = 1, m = 1; m <= MAX_GUESSES; m++) {
        if (d->ratio[m] <= 0 || (row != ASSUMED_ROW && abs(m - n) > abs(near - n))) continue;
        near = m;
        row = (d->ratio[m] - 1) / m;
    }
    return 1 + row * n + n * d->guess_seconds / d->pass;
}

// The count that gives most tokens for its time: one that is drawn anyway, and the guesses that are right in a row.
static int best_count(const Drafter *d, int class, int most) {
    double tokens = 1, all = 1, best_rate = WORTHWHILE;
    int best = 0;
    if (!d->is_measured && most > 1) most = 1; // the first try is a cheap one
    for (int n = 1; d->pass > 0 && n <= most; n++) {
        tokens += all *= (double)d->right[class];
        if (tokens / cost_of(d, n) <= best_rate) continue;
        best_rate = tokens / cost_of(d, n);
        best = n;
    }
    return best;
}

// Follows the shorter times: the longer ones are those of threads that were interrupted.
static void learn_time(double *known, double found) {
    double weight = *known <= 0 ? 1 : found < *known ? 0.3 : 0.03;
    *known += weight * (found - *known);
}

// Guesses that cost time are asked for where they pay, and now and then to see whether they do again; the same for
// their rows.
Guesses drafter_guess(Drafter *d, const int32_t *text, int n, const Sampler *sampler, int most) {
    Guesses g = {0};
    if (most > MAX_GUESSES) most = MAX_GUESSES;
    bool probe = ++d->n_idle >= PROBE_EVERY && most > 0;
    int wanted = d->is_free ? most : best_count(d, 0, most);
    if (!wanted) wanted = probe;
    if (wanted < 1) return g;
    double start = drafter_clock();
    g.n = d->guess(d->context, text, n, sampler, wanted, g.ids, &g.class);
    double each = (drafter_clock() - start) / (g.n ? g.n : 1);
    if (!d->is_free && g.n) learn_time(&d->guess_seconds, each);
    g.n_used = best_count(d, g.class, g.n);
    if (!g.n_used && probe && g.n && d->pass > 0 && d->right[g.class] > 0.5f) g.n_used = 1;
    if (g.n_used || (g.n && !d->is_free)) d->n_idle = 0;
    return g;
}

void drafter_learn(Drafter *d, const Guesses *g, const int32_t *drawn, int n_drawn, double pass_seconds) {
    bool right = true;
    int n_right = 0;
    for (int i = 0; right && i < g->n && i < n_drawn; i++) {
        right = g->ids[i] == drawn[i];
        n_right += right;
        d->right[g->class] += LEARN * ((float)right - d->right[g->class]);
    }
    d->info.n_passes++;
    d->info.n_guessed += (uint64_t)g->n_used;
    d->info.n_right += (uint64_t)(n_right < g->n_used ? n_right : g->n_used);
    if (!g->n_used) learn_time(&d->pass, pass_seconds);
    else {
        learn_time(&d->ratio[g->n_used], fmin(pass_seconds / d->pass, 1 + g->n_used)); // never dearer than alone
        d->is_measured = true;
    }
}

// ---- from the earlier text (prompt look-up)

// What followed the longest earlier occurrence of the text's end, the latest of equals.
static int guess_from_text(void *context, const int32_t *text, int n, const Sampler *sampler, int most,
                           int32_t *guesses, int *class) {
    (void)context;
    (void)sampler;
    int longest = SHORTEST_MATCH - 1, follows = n, count = 0;
    for (int end = n - 1; end > 0 && longest < LONGEST_MATCH; end--) {
        int same = 0;
        while (same < LONGEST_MATCH && same < end && text[end - 1 - same] == text[n - 1 - same]) same++;
        if (same <= longest) continue;
        longest = same;
        follows = end;
    }
    while (count < most && follows + count < n) {
        guesses[count] = text[follows + count];
        count++;
    }
    *class = longest < 3 ? 0 : longest < 5 ? 1 : longest < 9 ? 2 : 3;
    return count;
}

Drafter *drafter_lookup(char *err, size_t errlen) {
    Drafter *d = drafter_open(guess_from_text, NULL, true);
    if (!d) fail(err, errlen, "out of memory");
    return d;
}

// ---- from a smaller model

typedef struct {
    const Engine *engine;
    Session *session;
    float *logits; // [n_vocab] of the model's vocabulary, the first n_draft of them the draft's
    int n_vocab, n_draft;
} ModelDraft;

// Picks from the draft's logits with the random numbers that the model's logits will meet: where the two agree, so do
// the tokens.
static int guess_from_model(void *context, const int32_t *text, int n, const Sampler *sampler, int most,
                            int32_t *guesses, int *class) {
    ModelDraft *m = context;
    char err[200];
    int count = 0;
    *class = 0;
    if (session_sync(m->session, text, n, err, sizeof err)) return 0; // its context is full
    Sampler *picks = sampler_clone(sampler);
    for (bool more = picks; more;) {
        memcpy(m->logits, session_logits(m->session), sizeof *m->logits * (size_t)m->n_draft);
        guesses[count] = sampler_pick(picks, m->logits);
        StepSegment one = {.session = m->session, .tokens = &guesses[count], .n = 1, .logits = true};
        more = ++count < most && !engine_step(m->engine, &one, 1, false);
    }
    sampler_close(picks);
    return count;
}

static void close_model(void *context) {
    ModelDraft *m = context;
    session_close(m->session);
    free(m->logits);
    free(m);
}

// The ids must mean the same text; vocabularies may be padded to different sizes.
static int compare_vocabularies(const Engine *draft, const Engine *e, char *err, size_t errlen) {
    int n_draft = tokenizer_size(draft->tokenizer), n = tokenizer_size(e->tokenizer);
    if (n_draft != n) return fail(err, errlen, "draft model: expected the same %d tokens, found %d", n, n_draft);
    for (int i = 0; i < n; i++) {
        const Piece *x = tokenizer_piece(draft->tokenizer, i), *y = tokenizer_piece(e->tokenizer, i);
        if (x->len == y->len && !memcmp(x->text, y->text, (size_t)x->len)) continue;
        return fail(err, errlen, "draft model: token %d: expected '%.*s', found '%.*s'", i, y->len, y->text, x->len,
                    x->text);
    }
    return 0;
}

static bool open_model(ModelDraft *m, const Engine *draft, const Engine *e, const SessionOptions *options, char *err,
                       size_t errlen) {
    m->engine = draft;
    m->n_vocab = e->info.vocab_size;
    m->n_draft = draft->info.vocab_size < m->n_vocab ? draft->info.vocab_size : m->n_vocab;
    m->session = session_open(draft, options, err, errlen);
    if (!m->session) return false;
    m->logits = malloc(sizeof *m->logits * (size_t)m->n_vocab);
    if (!m->logits) return fail(err, errlen, "out of memory for the draft's logits") == 0;
    for (int i = m->n_draft; i < m->n_vocab; i++) m->logits[i] = -INFINITY;
    return true;
}

Drafter *drafter_model(const Engine *draft, const Engine *e, const SessionOptions *options, char *err, size_t errlen) {
    if (compare_vocabularies(draft, e, err, errlen)) return NULL;
    ModelDraft *m = calloc(1, sizeof *m);
    Drafter *d = m && open_model(m, draft, e, options, err, errlen) ? drafter_open(guess_from_model, m, false) : NULL;
    if (d) d->close = close_model;
    else if (m) close_model(m);
    else fail(err, errlen, "out of memory");
    return d;
}
