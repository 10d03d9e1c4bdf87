// decoder: see decoder.h.
#include "decoder.h"

#include <math.h>
#include <string.h>

// ---- binding

// Factors of RoPE's frequencies, where a file has them.
static const float *bind_factors(Binder *b, const char *part, bool needed) {
    int n = b->config->kinds[0].rope.rotary_dim / 2;
    if (!needed && !bind_find(b, part, -1, ".weight")) return NULL;
    const float *factors = bind_vector(b, part, ".weight", n);
    for (int i = 0; factors && i < n; i++) {
        if (factors[i] > 0 && isfinite(factors[i])) continue;
        binder_fail(b, "tensor %s.weight: expected numbers above 0, found %g", part, (double)factors[i]);
        return NULL;
    }
    return factors;
}

static void bind_outside(Decoder *d, Binder *b) {
    const Config *c = b->config;
    bool head_alone = c->tied && !bind_find(b, "token_embd", -1, ".weight"); // some files name the table after it
    d->embedding =
        (Embedding){.table = bind_matrix(b, head_alone ? "output" : "token_embd", -1, c->vocab_size, c->dim)};
    d->embedding.scale = c->embedding_scale;
    if (c->learned_positions) {
        const int64_t shape[] = {c->max_seq_len, c->dim};
        d->embedding.positions = bind_floats(b, "position_embd", ".weight", shape, 2);
    }
    if (c->embedding_norm) bind_norm(b, &d->embedding.norm, "token_embd_norm", c->dim, c->layer_norm);
    d->embedding.norm_eps = c->norm_eps;
    bool other_name = bind_find(b, "output_norm_other", -1, ".weight") != NULL;
    bind_norm(b, &d->output_norm, other_name ? "output_norm_other" : "output_norm", c->dim, c->layer_norm);
    d->output = c->tied ? d->embedding.table : bind_matrix(b, "output", -1, c->vocab_size, c->dim);
    if (c->output_bias) d->output_bias = bind_vector(b, "output", ".bias", c->vocab_size);
    bool two = c->kinds[0].rope.scaling.kind == ROPE_LONG;
    d->rope_factors.all = bind_factors(b, "rope_freqs", false);
    d->rope_factors.long_ctx = bind_factors(b, "rope_factors_long", two);
    d->rope_factors.short_ctx = bind_factors(b, "rope_factors_short", two);
}

static uint64_t count_token_bytes(const Decoder *d) {
    const Config *c = decoder_config(d);
    return tensor_bytes(d->output) + tensor_bytes(d->embedding.table) / (uint64_t)c->vocab_size +
           norm_bytes(&d->output_norm, c->dim) + layers_token_bytes(&d->stack);
}

int decoder_bind(Decoder *d, Model *m, char *err, size_t errlen) {
    Binder b;
    memset(d, 0, sizeof *d);
    if (binder_open(&b, &m->config, &m->weights, m->family, m->hf_names ? m->prefix : NULL, err, errlen)) return -1;
    b.text_only = m->text_only;
    bind_outside(d, &b);
    if (!b.failed) layers_bind(&d->stack, &b);
    if (!b.failed) binder_refuse_unused(&b);
    if (!b.failed) d->token_bytes = count_token_bytes(d);
    binder_close(&b);
    if (b.failed) decoder_free(d);
    return b.failed ? -1 : 0;
}

void decoder_free(Decoder *d) {
    layers_free(&d->stack);
}

const Config *decoder_config(const Decoder *d) {
    return &d->stack.config;
}

// ---- forward

static void embed_segments(const Decoder *d, Workspace *w, const DecoderSegment *segments, int n_segments) {
    int row = 0;
    for (int i = 0; i < n_segments; row += segments[i++].n) {
        const DecoderSegment *s = &segments[i];
        for (int t = 0; t < s->n; t++) w->positions[row + t] = memory_length(s->memory) + t;
        embed(w->compute, &d->embedding, w->x + (int64_t)row * decoder_config(d)->dim, s->tokens, w->positions + row,
              s->n);
    }
}

// y[n][vocab] of n rows of the stream.
static void output_rows(const Decoder *d, Workspace *w, const int *rows, int n, float *y) {
    const Config *c = decoder_config(d);
    profile_begin(w->compute->profile, PROFILE_LOGITS);
    for (int i = 0; i < n; i++) {
        ops_norm(w->compute, w->norm + (int64_t)i * c->dim, w->x + (int64_t)rows[i] * c->dim, &d->output_norm, 1,
                 c->dim, c->norm_eps);
    }
    ops_linear(w->compute, &(Linear){.w = d->output, .y = y, .bias = d->output_bias}, 1, w->norm, n);
    for (int64_t i = 0; c->logit_scale > 0 && i < (int64_t)n * c->vocab_size; i++) y[i] *= c->logit_scale;
    if (c->logit_softcap > 0) ops_softcap(w->compute, y, n, c->vocab_size, c->logit_softcap);
    profile_end(w->compute->profile, 0, 0);
}

// All rows of a segment, which begins at row0, through its callback.
static void output_all(const Decoder *d, Workspace *w, const DecoderSegment *s, int row0, float *logits) {
    int64_t vocab = decoder_config(d)->vocab_size;
    int pos0 = memory_length(s->memory), rows[LOGITS_BLOCK];
    for (int t0 = 0; t0 < s->n; t0 += LOGITS_BLOCK) {
        int n = s->n - t0 < LOGITS_BLOCK ? s->n - t0 : LOGITS_BLOCK;
        for (int t = 0; t < n; t++) rows[t] = row0 + t0 + t;
        output_rows(d, w, rows, n, logits);
        for (int t = 0; t < n; t++) s->callback(s->callback_context, pos0 + t0 + t, logits + t * vocab);
        if (s->logits) memcpy(s->logits, logits + (n - 1) * vocab, sizeof *logits * (size_t)vocab);
    }
}

static void output_states(const Decoder *d, Workspace *w, const DecoderSegment *s, int row0) {
    const Config *c = decoder_config(d);
    for (int t = 0; t < s->n; t++) {
        ops_norm(w->compute, w->norm, w->x + (int64_t)(row0 + t) * c->dim, &d->output_norm, 1, c->dim, c->norm_eps);
        s->states(s->states_context, memory_length(s->memory) + t, w->norm);
    }
}

// Last rows of n segments, to where their logits are wanted.
static void output_last(const Decoder *d, Workspace *w, const int *rows, float *const *wanted, int n, float *logits) {
    int64_t vocab = decoder_config(d)->vocab_size;
    output_rows(d, w, rows, n, n == 1 ? wanted[0] : logits);
    if (n == 1) return;
    for (int i = 0; i < n; i++) memcpy(wanted[i], logits + i * vocab, sizeof *logits * (size_t)vocab);
}

static void output_segments(const Decoder *d, Workspace *w, const DecoderSegment *segments, int n, float *logits) {
    float *wanted[LOGITS_BLOCK];
    int rows[LOGITS_BLOCK], n_wanted = 0, row = 0;
    for (int i = 0; i < n; row += segments[i++].n) {
        const DecoderSegment *s = &segments[i];
        if (s->states) output_states(d, w, s, row);
        if (s->callback) output_all(d, w, s, row, logits);
        if (s->callback || !s->logits) continue;
        rows[n_wanted] = row + s->n - 1;
        wanted[n_wanted++] = s->logits;
        if (n_wanted < LOGITS_BLOCK) continue;
        output_last(d, w, rows, wanted, n_wanted, logits);
        n_wanted = 0;
    }
    if (n_wanted) output_last(d, w, rows, wanted, n_wanted, logits);
}

void decoder_forward(const Decoder *d, Workspace *w, const DecoderSegment *segments, int n_segments, float *logits) {
    Segment list[MAX_SEGMENTS] = {0};
    for (int i = 0; i < n_segments; i++) list[i] = (Segment){.memory = segments[i].memory, .n = segments[i].n};
    embed_segments(d, w, segments, n_segments);
    layers_forward(&d->stack, w, &(LayerPass){.segments = list, .n_segments = n_segments});
    output_segments(d, w, segments, n_segments, logits);
}
