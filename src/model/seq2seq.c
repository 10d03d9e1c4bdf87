// seq2seq: see seq2seq.h.
#include "seq2seq.h"

#include "file.h"

#include <stdlib.h>
#include <string.h>

enum { POSITION_OFFSET = 2 }; // rows of the tables of positions that no position uses

// ---- binding

// The part that holds the table of tokens: a file that ties them keeps one of its names.
static const char *token_part(const Binder *b) {
    static const char *const parts[] = {"/model.encoder.embed_tokens", "/model.decoder.embed_tokens", "output"};
    for (int i = 0; i < 3 && !bind_find(b, "token_embd", -1, ".weight"); i++) {
        if (bind_find(b, parts[i], -1, ".weight")) return parts[i];
    }
    return "token_embd";
}

static Embedding bind_embedding(Binder *b) {
    const Config *c = b->config;
    const int64_t shape[] = {c->max_seq_len + POSITION_OFFSET, c->dim};
    Embedding e = {.scale = c->embedding_scale, .norm_eps = c->norm_eps};
    e.table = bind_matrix(b, token_part(b), -1, c->vocab_size, c->dim);
    e.positions = bind_floats(b, "position_embd", ".weight", shape, 2);
    if (e.positions) e.positions += POSITION_OFFSET * c->dim;
    bind_norm(b, &e.norm, "embd_norm", c->dim, c->layer_norm);
    return e;
}

static void bind_output(Seq2seq *m, Binder *b) {
    const Config *c = b->config;
    bool tied = c->tied && !bind_find(b, "output", -1, ".weight"); // a classifier in the file counts
    const Tensor *output = tied ? m->decoder_embedding.table : bind_matrix(b, "output", -1, c->vocab_size, c->dim);
    if (output) m->output.w = *output;
    if (!bind_find(b, "output_bias", -1, "")) return;
    m->output.bias = bind_floats(b, "output_bias", "", (int64_t[]){1, c->vocab_size}, 2);
}

int seq2seq_bind(Seq2seq *m, const Config *encoder, const Config *decoder, Weights *w, char *err, size_t errlen) {
    Binder b;
    const char *norm = decoder->no_pre_norm ? NULL : "output_norm";
    m->vocab_size = decoder->vocab_size;
    m->max_tokens = decoder->max_seq_len;
    if (binder_open(&b, encoder, w, &family_bart, "model.encoder.", err, errlen)) return -1;
    m->encoder_embedding = bind_embedding(&b);
    encoder_bind(&m->encoder, &b, norm);
    b.config = decoder;
    b.prefix = "model.decoder.";
    m->decoder_embedding = bind_embedding(&b);
    bind_output(m, &b);
    if (norm) bind_norm(&b, &m->decoder_norm, norm, decoder->dim, decoder->layer_norm);
    layers_bind(&m->decoder, &b);
    binder_close(&b);
    if (b.failed) seq2seq_free(m);
    return b.failed ? -1 : 0;
}

void seq2seq_free(Seq2seq *m) {
    encoder_free(&m->encoder);
    layers_free(&m->decoder);
}

// ---- state

int seq2seq_state_open(Seq2seqState *s, const Seq2seq *m, int n_threads, char *err, size_t errlen) {
    (void)m;
    memset(s, 0, sizeof *s);
    return compute_open(&s->compute, n_threads, err, errlen);
}

void seq2seq_state_close(Seq2seqState *s) {
    workspace_close(&s->encoder_work);
    workspace_close(&s->work);
    encoder_state_close(&s->encoder);
    for (int i = 0; i < s->n_self; i++) memory_close(&s->self[i]);
    for (int i = 0; i < s->n_cross; i++) memory_close(&s->cross[i]);
    compute_close(&s->compute);
    free(s->logits);
    memset(s, 0, sizeof *s);
}

static int reserve_logits(Seq2seqState *s, int n, int vocab, char *err, size_t errlen) {
    if (n <= s->logits_room) return 0;
    float *more = realloc(s->logits, sizeof *more * (size_t)n * (size_t)vocab);
    if (!more) return fail(err, errlen, "out of memory for %d rows of %d logits", n, vocab);
    s->logits = more;
    s->logits_room = n;
    return 0;
}

// An empty memory of each kind for each input, with room from the encode before.
static int restart_memories(Seq2seqState *s, const Seq2seq *m, const int *lengths, int n_inputs, char *err,
                            size_t errlen) {
    const Config *c = &m->decoder.config;
    const MemoryOptions options = {.kv = KV_DTYPE_F32, .n_ctx = c->max_seq_len};
    for (; s->n_self < n_inputs; s->n_self++) {
        if (memory_open(&s->self[s->n_self], c, &options, NULL, err, errlen)) return -1;
    }
    for (; s->n_cross < n_inputs; s->n_cross++) {
        if (memory_open(&s->cross[s->n_cross], c, &options, NULL, err, errlen)) return -1;
    }
    for (int i = 0; i < n_inputs; i++) {
        memory_restart(&s->self[i]);
        memory_restart(&s->cross[i]);
        if (memory_reserve(&s->cross[i], lengths[i], err, errlen)) return -1;
    }
    return 0;
}

// ---- forward

int seq2seq_encode(const Seq2seq *m, Seq2seqState *s, const int32_t *tokens, const int *lengths, int n_inputs,
                   char *err, size_t errlen) {
    int n = 0;
    for (int i = 0; i < n_inputs; i++) {
        if (lengths[i] < 1 || lengths[i] > m->max_tokens) {
            return fail(err, errlen, "input %d: expected 1 to %d tokens, found %d", i, m->max_tokens, lengths[i]);
        }
        n += lengths[i];
    }
    s->encoder_work.compute = s->work.compute = &s->compute; // the state may have moved
    if (encoder_reserve(&m->encoder, &s->encoder, &s->encoder_work, lengths, n_inputs, err, errlen) ||
        restart_memories(s, m, lengths, n_inputs, err, errlen) ||
        workspace_reserve(&s->work, &m->decoder.config, n, err, errlen)) {
        return -1;
    }
    s->n_inputs = n_inputs;
    Workspace *w = &s->encoder_work;
    Segment cross[MAX_SEGMENTS] = {0};
    for (int i = 0, t = 0; i < n_inputs; t += lengths[i++]) {
        for (int j = 0; j < lengths[i]; j++) w->positions[t + j] = j;
        cross[i] = (Segment){.memory = &s->cross[i], .n = lengths[i]};
    }
    embed(&s->compute, &m->encoder_embedding, w->x, tokens, w->positions, n);
    encoder_forward(&m->encoder, &s->encoder, w, lengths, n_inputs, NULL, NULL);
    layers_store_cross(&m->decoder, &s->work, &(LayerPass){.segments = cross, .n_segments = n_inputs}, w->x);
    for (int i = 0; i < n_inputs; i++) memory_advance(&s->cross[i], lengths[i]);
    return 0;
}

// The rows of the groups; room for them is made. -1 with a line in err.
static int start_step(const Seq2seq *m, Seq2seqState *s, const Step *step, Segment *list, char *err, size_t errlen) {
    int n = 0;
    if (step->position >= m->max_tokens) {
        return fail(err, errlen, "position: expected less than %d, found %d", m->max_tokens, step->position);
    }
    for (int g = 0; g < step->n_groups; g++) {
        const StepGroup *group = &step->groups[g];
        Memory *memory = &s->self[group->input];
        if (memory_reserve(memory, group->n_rows, err, errlen)) return -1;
        list[g] = (Segment){.memory = memory, .cross = &s->cross[group->input], .n = group->n_rows};
        list[g].visible = group->visible;
        list[g].stride = group->stride;
        n += group->n_rows;
    }
    s->work.compute = &s->compute;
    if (workspace_reserve(&s->work, &m->decoder.config, n, err, errlen)) return -1;
    return reserve_logits(s, n, m->vocab_size, err, errlen) ? -1 : n;
}

const float *seq2seq_step(const Seq2seq *m, Seq2seqState *s, const Step *step, char *err, size_t errlen) {
    Segment list[MAX_SEGMENTS] = {0};
    int n = start_step(m, s, step, list, err, errlen);
    if (n < 0) return NULL;
    const Config *c = &m->decoder.config;
    Workspace *w = &s->work;
    for (int i = 0; i < n; i++) w->positions[i] = step->position;
    embed(&s->compute, &m->decoder_embedding, w->x, step->tokens, w->positions, n);
    LayerPass pass = {.segments = list, .n_segments = step->n_groups};
    pass.visit_cross = step->visit;
    pass.visit_context = step->visit_context;
    layers_forward(&m->decoder, w, &pass);
    for (int g = 0; g < step->n_groups; g++) memory_advance(list[g].memory, list[g].n);
    if (m->decoder_norm.weight) ops_norm(&s->compute, w->x, w->x, &m->decoder_norm, n, c->dim, c->norm_eps);
    Linear output = {.w = &m->output.w, .y = s->logits, .bias = m->output.bias};
    ops_linear(&s->compute, &output, 1, w->x, n);
    if (!floats_finite(s->logits, (int64_t)n * m->vocab_size)) {
        fail(err, errlen, "the logits of output %d are not finite: a weight of the model may be damaged",
             step->position + 1);
        return NULL;
    }
    return s->logits;
}
