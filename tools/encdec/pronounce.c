// pronounce: see pronounce.h.
#include "pronounce.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 32, ERROR_ROOM = 256 };

int pronouncer_open(Pronouncer *p, const G2p *m, int n_threads, int n_beams, int max_new, char *err, size_t errlen) {
    *p = (Pronouncer){.model = m, .n_beams = n_beams, .max_new = max_new, .batch = BATCH};
    p->pool = threads_start(n_threads, err, errlen);
    if (!p->pool) return -1;
    p->states = calloc((size_t)n_threads, sizeof *p->states);
    int rc = p->states ? 0 : fail(err, errlen, "out of memory for %d threads", n_threads);
    for (int i = 0; !rc && i < n_threads; i++) rc = seq2seq_state_open(&p->states[i], &m->model, 1, err, errlen);
    if (rc) pronouncer_close(p);
    return rc;
}

void pronouncer_close(Pronouncer *p) {
    int n_states = p->states ? threads_count(p->pool) : 0;
    for (int i = 0; i < n_states; i++) seq2seq_state_close(&p->states[i]);
    free(p->states);
    threads_stop(p->pool);
    *p = (Pronouncer){0};
}

typedef struct {
    int n_ids, index;
} Place;

typedef struct {
    Pronouncer *p;
    const Word *words;
    const Place *order; // [n] of words, by length
    int n;
    Decoded *out;
    char (*errors)[ERROR_ROOM]; // [batches], empty: none
} Job;

static void run_batch(void *context, int item, int worker) {
    const Job *job = context;
    Pronouncer *p = job->p;
    Seq2seqState *s = &p->states[worker];
    const Place *order = job->order + item * p->batch;
    int left = job->n - item * p->batch, n = left < p->batch ? left : p->batch, lengths[MAX_BATCH], n_tokens = 0;
    Decoded out[MAX_BATCH];
    char *err = job->errors[item];
    for (int i = 0; i < n; i++) n_tokens += lengths[i] = order[i].n_ids;
    int32_t *tokens = malloc(sizeof *tokens * (size_t)n_tokens), *at = tokens;
    if (!tokens) {
        fail(err, ERROR_ROOM, "out of memory for %d letters", n_tokens);
        return;
    }
    for (int i = 0; i < n; i++) at = mempcpy(at, job->words[order[i].index].ids, sizeof *tokens * (size_t)lengths[i]);
    if (!seq2seq_encode(&p->model->model, s, tokens, lengths, n, err, ERROR_ROOM) &&
        !beam_decode(&p->model->model, s, p->n_beams, p->max_new, out, err, ERROR_ROOM)) {
        for (int i = 0; i < n; i++) job->out[order[i].index] = out[i];
    }
    free(tokens);
}

bool pronounceable(const G2p *m, const Word *w) {
    return w->n_known > 0 && !w->has_digit && w->n_ids <= m->model.max_tokens;
}

static int by_length(const void *a, const void *b) {
    const Place *x = a, *y = b;
    return x->n_ids != y->n_ids ? x->n_ids - y->n_ids : x->index - y->index;
}

int pronounce(Pronouncer *p, const Word *words, int n, Decoded *out, char *err, size_t errlen) {
    memset(out, 0, sizeof *out * (size_t)n);
    Place *order = malloc(sizeof *order * (size_t)(n ? n : 1));
    if (!order) return fail(err, errlen, "out of memory for %d words", n);
    int n_order = 0;
    for (int i = 0; i < n; i++) {
        if (pronounceable(p->model, &words[i])) order[n_order++] = (Place){words[i].n_ids, i};
    }
    qsort(order, (size_t)n_order, sizeof *order, by_length);
    int n_batches = (n_order + p->batch - 1) / p->batch;
    Job job = {.p = p, .words = words, .order = order, .n = n_order, .out = out};
    job.errors = calloc((size_t)n_batches + 1, sizeof *job.errors);
    int rc = job.errors ? 0 : fail(err, errlen, "out of memory for %d words", n);
    if (!rc) threads_for(p->pool, n_batches, run_batch, &job);
    for (int i = 0; !rc && i < n_batches; i++) {
        if (job.errors[i][0]) rc = fail(err, errlen, "%s", job.errors[i]);
    }
    if (rc) {
        for (int i = 0; i < n; i++) decoded_free(&out[i]);
    }
    free(order);
    free(job.errors);
    return rc;
}

char *pronunciation(const G2p *m, const Decoded *d) {
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f) return NULL;
    bool first = true;
    for (int i = 0; i < d->n; i++) {
        const char *symbol = symbols_text(&m->phonemes, d->ids[i]);
        if (!symbol) continue;
        fprintf(f, "%s%s", first || !m->phonemes.spaced ? "" : " ", symbol);
        first = false;
    }
    return fclose(f) ? NULL : text;
}
