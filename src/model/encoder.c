// encoder: see encoder.h.
#include "encoder.h"

#include "file.h"

#include <string.h>

void encoder_bind(Encoder *e, Binder *b, const char *norm) {
    memset(e, 0, sizeof *e);
    if (norm) bind_norm(b, &e->norm, norm, b->config->dim, b->config->layer_norm);
    layers_bind(&e->stack, b);
}

void encoder_free(Encoder *e) {
    layers_free(&e->stack);
}

int encoder_reserve(const Encoder *e, EncoderState *s, Workspace *w, const int *lengths, int n_sequences, char *err,
                    size_t errlen) {
    const Config *c = &e->stack.config;
    const MemoryOptions options = {.kv = KV_DTYPE_F32, .n_ctx = c->max_seq_len, .n_layers = 1};
    int n = 0;
    if (n_sequences > MAX_SEGMENTS) {
        return fail(err, errlen, "encoder: expected at most %d sequences at once, found %d", MAX_SEGMENTS, n_sequences);
    }
    for (; s->n_memories < n_sequences; s->n_memories++) {
        if (memory_open(&s->memories[s->n_memories], c, &options, NULL, err, errlen)) return -1;
    }
    for (int i = 0; i < n_sequences; i++) {
        if (memory_reserve(&s->memories[i], lengths[i], err, errlen)) return -1;
        n += lengths[i];
    }
    return workspace_reserve(w, c, n, err, errlen);
}

void encoder_state_close(EncoderState *s) {
    for (int i = 0; i < s->n_memories; i++) memory_close(&s->memories[i]);
    s->n_memories = 0;
}

void encoder_forward(const Encoder *e, EncoderState *s, Workspace *w, const int *lengths, int n_sequences,
                     AttentionVisitor visit, void *context) {
    const Config *c = &e->stack.config;
    Segment list[MAX_SEGMENTS] = {0};
    int n = 0;
    for (int i = 0; i < n_sequences; i++) {
        list[i] = (Segment){.memory = &s->memories[i], .n = lengths[i]};
        n += lengths[i];
    }
    layers_forward(&e->stack, w,
                   &(LayerPass){.segments = list, .n_segments = n_sequences, .visit = visit, .visit_context = context});
    if (e->norm.weight) ops_norm(w->compute, w->x, w->x, &e->norm, n, c->dim, c->norm_eps);
}
