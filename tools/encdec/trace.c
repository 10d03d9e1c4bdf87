// trace: see trace.h.
#include "trace.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    Trace *trace;
    const Compute *compute;
    int row; // the output at hand
    float *weights;
    char *err;
    size_t errlen;
    bool failed;
} Visit;

static void keep_row(void *context, int layer, int input, const Attention *a) {
    (void)input;
    Visit *v = context;
    Trace *t = v->trace;
    if (v->failed || attention_weights(v->compute, a, v->weights, v->err, v->errlen)) {
        v->failed = true;
        return;
    }
    for (int h = 0; h < t->n_heads; h++) {
        float *row = t->weights + ((int64_t)(layer * t->n_heads + h) * t->n_out + v->row) * t->n_in;
        memcpy(row, v->weights + (int64_t)h * t->n_in, sizeof *row * (size_t)t->n_in);
    }
}

int trace_word(Trace *t, const Seq2seq *m, Seq2seqState *s, const Word *word, const Decoded *output, char *err,
               size_t errlen) {
    const Config *c = &m->decoder.config;
    int n_heads = c->kinds[0].n_heads;
    *t = (Trace){
        .n_maps = c->n_layers * n_heads, .n_out = output->n + output->ended, .n_in = word->n_ids, .n_heads = n_heads};
    t->weights = malloc(sizeof *t->weights * (size_t)t->n_maps * (size_t)t->n_out * (size_t)t->n_in);
    float *head_rows = malloc(sizeof *head_rows * (size_t)n_heads * (size_t)t->n_in);
    Visit visit = {.trace = t, .compute = &s->compute, .weights = head_rows, .err = err, .errlen = errlen};
    int rc = t->weights && head_rows ? 0 : fail(err, errlen, "out of memory for %d attention maps", t->n_maps);
    if (!rc) rc = seq2seq_encode(m, s, word->ids, &word->n_ids, 1, err, errlen);
    for (int i = 0; !rc && i < t->n_out; i++) {
        int32_t token = i ? output->ids[i - 1] : m->start_id;
        visit.row = i;
        StepGroup group = {.input = 0, .n_rows = 1};
        Step step = {&token, i, &group, 1, keep_row, &visit};
        rc = seq2seq_step(m, s, &step, err, errlen) && !visit.failed ? 0 : -1;
    }
    free(head_rows);
    if (rc) trace_free(t);
    return rc;
}

void trace_mean(const Trace *t, float *mean) {
    int n = t->n_out * t->n_in;
    memset(mean, 0, sizeof *mean * (size_t)n);
    for (int map = 0; map < t->n_maps; map++) {
        for (int i = 0; i < n; i++) mean[i] += t->weights[(int64_t)map * n + i] / (float)t->n_maps;
    }
}

void trace_free(Trace *t) {
    free(t->weights);
    *t = (Trace){0};
}
