// classify: see classify.h.
#include "classify.h"

#include "file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GROUP_TOKENS = 512, ERROR_ROOM = 256 };

int classifier_open(Classifier *c, const Vit *v, int n_threads, char *err, size_t errlen) {
    *c = (Classifier){.model = v};
    c->pool = threads_start(n_threads, err, errlen);
    if (!c->pool) return -1;
    c->states = calloc((size_t)n_threads, sizeof *c->states);
    int rc = c->states ? 0 : fail(err, errlen, "out of memory for %d threads", n_threads);
    for (int i = 0; !rc && i < n_threads; i++) rc = vit_state_open(&c->states[i], v, 1, err, errlen);
    if (!rc) rc = vit_state_open(&c->whole, v, n_threads, err, errlen);
    if (rc) classifier_close(c);
    return rc;
}

void classifier_close(Classifier *c) {
    int n_states = c->states ? threads_count(c->pool) : 0;
    for (int i = 0; i < n_states; i++) vit_state_close(&c->states[i]);
    free(c->states);
    vit_state_close(&c->whole);
    threads_stop(c->pool);
    *c = (Classifier){0};
}

typedef struct {
    Classifier *c;
    const float *pixels;
    float *logits;
    int n, group;
    char (*errors)[ERROR_ROOM]; // [groups], empty: none
} Job;

static void run_group(void *context, int item, int worker) {
    const Job *job = context;
    const Vit *v = job->c->model;
    int first = item * job->group, n = job->n - first < job->group ? job->n - first : job->group;
    VitBatch batch = {.pixels = job->pixels + (int64_t)first * vit_pixels(v), .n = n};
    batch.logits = job->logits + (int64_t)first * v->n_labels;
    vit_forward(v, &job->c->states[worker], &batch, job->errors[item], ERROR_ROOM);
}

int classify(Classifier *c, const float *pixels, int n, float *logits, char *err, size_t errlen) {
    VitBatch single = {.pixels = pixels, .n = 1, .logits = logits};
    if (n == 1) return vit_forward(c->model, &c->whole, &single, err, errlen);
    Job job = {.c = c, .pixels = pixels, .logits = logits, .n = n};
    job.group = GROUP_TOKENS / c->model->n_tokens;
    if (job.group < 1) job.group = 1;
    if (job.group > MAX_SEGMENTS) job.group = MAX_SEGMENTS;
    int n_groups = (n + job.group - 1) / job.group, rc = 0;
    job.errors = calloc((size_t)n_groups, sizeof *job.errors);
    if (!job.errors) return fail(err, errlen, "out of memory for %d pictures", n);
    threads_for(c->pool, n_groups, run_group, &job);
    for (int i = 0; !rc && i < n_groups; i++) {
        if (job.errors[i][0]) rc = fail(err, errlen, "%s", job.errors[i]);
    }
    free(job.errors);
    return rc;
}

int best_label(const float *logits, int n_labels) {
    int best = 0;
    for (int i = 1; i < n_labels; i++) best = logits[i] > logits[best] ? i : best;
    return best;
}

void probabilities(float *logits, int n_labels) {
    float top = logits[best_label(logits, n_labels)], sum = 0;
    for (int i = 0; i < n_labels; i++) sum += logits[i] = expf(logits[i] - top);
    for (int i = 0; i < n_labels; i++) logits[i] /= sum;
}
