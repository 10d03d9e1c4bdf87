// beam: see beam.h.
#include "beam.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// An unfinished output.
typedef struct {
    double sum; // of log-probabilities
    int32_t *ids;
    uint8_t *visible; // [stride], the cache slots of its tokens
} Hypothesis;

typedef struct {
    Hypothesis now[MAX_BEAMS], next[MAX_BEAMS];
    int n; // of now; 0: this input is done
    Decoded finished[MAX_BEAMS];
    int n_finished; // sorted, the best first
    double closeness;
    int n_slots;
    void *memory; // of the hypotheses
} Beam;

typedef struct {
    double sum;
    int hypothesis, token;
} Candidate;

typedef struct {
    const Seq2seq *model;
    Seq2seqState *state;
    int n_beams, max_new, stride;
    Beam *beams; // [n_inputs]
} Search;

static int beam_open(Beam *b, const Search *s, char *err, size_t errlen) {
    size_t ids = (size_t)s->max_new * sizeof(int32_t), bits = ((size_t)s->stride + 7) & ~(size_t)7;
    size_t each = (ids + 7) / 8 * 8 + bits, n = 2 * (size_t)s->n_beams;
    char *p = b->memory = calloc(n, each);
    if (!p) return fail(err, errlen, "out of memory for %d beams of %d tokens", s->n_beams, s->max_new);
    for (int i = 0; i < s->n_beams; i++) {
        b->now[i] = (Hypothesis){.ids = (int32_t *)(void *)p, .visible = (uint8_t *)p + each - bits};
        p += each;
        b->next[i] = (Hypothesis){.ids = (int32_t *)(void *)p, .visible = (uint8_t *)p + each - bits};
        p += each;
    }
    b->n = 1;
    return 0;
}

static void beam_close(Beam *b) {
    for (int i = 0; i < b->n_finished; i++) decoded_free(&b->finished[i]);
    free(b->memory);
}

void decoded_free(Decoded *d) {
    free(d->ids);
    *d = (Decoded){0};
}

// Keeps an output if it is among the n_beams best; ties go to the older one.
static int finish(Beam *b, const Search *s, const int32_t *ids, int n, bool ended, double score, char *err,
                  size_t errlen) {
    int at = b->n_finished;
    while (at > 0 && score > b->finished[at - 1].score) at--;
    if (at == s->n_beams) return 0;
    Decoded d = {.ids = malloc(sizeof *ids * (size_t)(n ? n : 1)), .n = n, .ended = ended, .score = score};
    if (!d.ids) return fail(err, errlen, "out of memory for %d tokens", n);
    memcpy(d.ids, ids, sizeof *ids * (size_t)n);
    if (b->n_finished == s->n_beams) decoded_free(&b->finished[--b->n_finished]);
    memmove(b->finished + at + 1, b->finished + at, sizeof *b->finished * (size_t)(b->n_finished - at));
    b->finished[at] = d;
    b->n_finished++;
    return 0;
}

static double log_sum_exp(const float *logits, int n) {
    double top = logits[0], sum = 0;
    for (int i = 1; i < n; i++) top = logits[i] > top ? logits[i] : top;
    for (int i = 0; i < n; i++) sum += exp(logits[i] - top);
    return top + log(sum);
}

// The `most` best continuations, sorted; ties go to the lower hypothesis, then the lower token.
static int best_continuations(const Beam *b, const float *logits, int vocab_size, int most, Candidate *best) {
    int n = 0;
    for (int h = 0; h < b->n; h++, logits += vocab_size) {
        double before = b->now[h].sum - log_sum_exp(logits, vocab_size);
        for (int token = 0; token < vocab_size; token++) {
            double sum = before + logits[token];
            if (n == most && !(sum > best[n - 1].sum)) continue;
            int at = n < most ? n++ : n - 1;
            for (; at > 0 && sum > best[at - 1].sum; at--) best[at] = best[at - 1];
            best[at] = (Candidate){sum, h, token};
        }
    }
    return n;
}

static void extend(Beam *b, const Search *s, const Candidate *c, int i, int length) {
    const Hypothesis *from = &b->now[c->hypothesis];
    Hypothesis *to = &b->next[i];
    memcpy(to->ids, from->ids, sizeof *to->ids * (size_t)(length - 1));
    memcpy(to->visible, from->visible, (size_t)s->stride);
    to->ids[length - 1] = c->token;
    to->sum = c->sum;
}

// length: generated tokens after this step.
static int step_beam(Beam *b, const Search *s, const float *logits, int length, char *err, size_t errlen) {
    Candidate best[2 * MAX_BEAMS];
    int n = best_continuations(b, logits, s->model->vocab_size, 2 * s->n_beams, best), n_next = 0;
    double most = n ? best[0].sum : 0; // of unfinished hypotheses
    for (int i = 0; i < n && n_next < s->n_beams; i++) {
        if (best[i].token != s->model->eos_id) {
            if (!n_next) most = best[i].sum;
            extend(b, s, &best[i], n_next++, length);
        } else if (i < s->n_beams) {
            const int32_t *ids = b->now[best[i].hypothesis].ids;
            if (finish(b, s, ids, length - 1, true, best[i].sum / length, err, errlen)) return -1;
        }
    }
    for (int i = 0; i < n_next; i++) {
        Hypothesis h = b->now[i];
        b->now[i] = b->next[i];
        b->next[i] = h;
    }
    b->n = n_next;
    bool full = b->n_finished == s->n_beams;
    if (full && most / length <= b->finished[s->n_beams - 1].score) b->n = 0;
    if (length < s->max_new) return 0;
    for (int i = 0; i < b->n; i++) {
        if (finish(b, s, b->now[i].ids, length, false, b->now[i].sum / length, err, errlen)) return -1;
    }
    b->n = 0;
    return 0;
}

static int step_greedy(Beam *b, const Search *s, const float *logits, int length, char *err, size_t errlen) {
    int best = 0, n = s->model->vocab_size;
    for (int i = 1; i < n; i++) best = logits[i] > logits[best] ? i : best;
    for (int i = 0; i < n; i++) {
        double gap = (double)logits[best] - logits[i];
        if (i != best && gap < b->closeness) b->closeness = gap;
    }
    Hypothesis *h = &b->now[0];
    bool ends = best == s->model->eos_id;
    h->sum += logits[best] - log_sum_exp(logits, n);
    h->ids[length - 1] = best;
    if (!ends && length < s->max_new) return 0;
    b->n = 0;
    return finish(b, s, h->ids, length - ends, ends, h->sum / length, err, errlen);
}

// The rows of a step: hypotheses of the inputs that are not done, each given a slot of its own.
static int list_rows(const Search *s, int length, StepGroup *groups, int32_t *tokens, uint8_t *visible) {
    int n_groups = 0, row = 0;
    for (int input = 0; input < s->state->n_inputs; input++) {
        Beam *b = &s->beams[input];
        if (!b->n) continue;
        uint8_t *bits = s->n_beams > 1 ? visible + (int64_t)row * s->stride : NULL;
        groups[n_groups++] = (StepGroup){input, b->n, bits, s->stride};
        for (int i = 0; i < b->n; i++, row++) {
            b->now[i].visible[b->n_slots + i] = 1;
            tokens[row] = length > 1 ? b->now[i].ids[length - 2] : s->model->start_id;
            if (bits) memcpy(visible + (int64_t)row * s->stride, b->now[i].visible, (size_t)s->stride);
        }
        b->n_slots += b->n;
    }
    return n_groups;
}

static int run(Search *s, StepGroup *groups, int32_t *tokens, uint8_t *visible, char *err, size_t errlen) {
    for (int length = 1;; length++) {
        int n_groups = list_rows(s, length, groups, tokens, visible);
        if (!n_groups) return 0;
        Step step = {.tokens = tokens, .position = length - 1, .groups = groups, .n_groups = n_groups};
        const float *logits = seq2seq_step(s->model, s->state, &step, err, errlen);
        if (!logits) return -1;
        for (int g = 0; g < n_groups; g++) {
            Beam *b = &s->beams[groups[g].input];
            int rc = (s->n_beams > 1 ? step_beam : step_greedy)(b, s, logits, length, err, errlen);
            if (rc) return -1;
            logits += (int64_t)groups[g].n_rows * s->model->vocab_size;
        }
    }
}

int beam_decode(const Seq2seq *m, Seq2seqState *s, int n_beams, int max_new, Decoded *out, char *err, size_t errlen) {
    int n = s->n_inputs, rc = 0;
    if (max_new > m->max_tokens) max_new = m->max_tokens;
    Search search = {.model = m, .state = s, .n_beams = n_beams, .max_new = max_new, .stride = n_beams * max_new};
    search.beams = calloc((size_t)n, sizeof *search.beams);
    if (!search.beams) return fail(err, errlen, "out of memory for %d inputs", n);
    size_t rows = (size_t)n * (size_t)n_beams;
    StepGroup *groups = malloc(sizeof *groups * (size_t)n);
    int32_t *tokens = malloc(sizeof *tokens * rows);
    uint8_t *visible = malloc(rows * (size_t)search.stride);
    if (!groups || !tokens || !visible) rc = fail(err, errlen, "out of memory for %d inputs", n);
    for (int i = 0; !rc && i < n; i++) {
        search.beams[i].closeness = INFINITY;
        rc = beam_open(&search.beams[i], &search, err, errlen);
    }
    if (!rc) rc = run(&search, groups, tokens, visible, err, errlen);
    for (int i = 0; i < n; i++) {
        Beam *b = &search.beams[i];
        if (!rc) {
            out[i] = b->finished[0];
            out[i].closeness = b->closeness;
            b->finished[0] = (Decoded){0};
        }
        beam_close(b);
    }
    free(search.beams);
    free(groups);
    free(tokens);
    free(visible);
    return rc;
}
