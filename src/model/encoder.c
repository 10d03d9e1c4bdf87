// encoder: see encoder.h.
#include "encoder.h"

#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_ROOM = 128 };

int encoder_bind(Encoder *e, Weights *w, const char *prefix, const EncoderNames *names, bool qkv_bias, char *err,
                 size_t errlen) {
    const SublayerConfig *c = &e->config;
    e->layers = calloc((size_t)e->n_layers, sizeof *e->layers);
    if (!e->layers) return fail(err, errlen, "out of memory for %d layers", e->n_layers);
    bool ok = !names->norm || !norm_bind(&e->norm, w, prefix, names->norm, c->dim, err, errlen);
    for (int i = 0; ok && i < e->n_layers; i++) {
        char part[NAME_ROOM], layer[2 * NAME_ROOM];
        snprintf(part, sizeof part, names->layer, i);
        snprintf(layer, sizeof layer, "%s%s", prefix, part);
        ok = !attn_bind(&e->layers[i].attn, w, layer, &names->attn, c, qkv_bias, err, errlen) &&
             !ffn_bind(&e->layers[i].ffn, w, layer, &names->ffn, c, err, errlen);
    }
    if (!ok) encoder_free(e);
    return ok ? 0 : -1;
}

void encoder_free(Encoder *e) {
    free(e->layers);
    e->layers = NULL;
}

int encoder_state_open(EncoderState *s, const Encoder *e, int n_threads, char *err, size_t errlen) {
    const SublayerConfig *c = &e->config;
    memset(s, 0, sizeof *s);
    if (workspace_open(&s->work, c, n_threads, err, errlen)) return -1;
    s->kv = kvcache_open(
        &(KvShape){.n_layers = 1, .n_kv_heads = c->n_heads, .head_dim = c->dim / c->n_heads, .type = KV_F32}, err,
        errlen);
    if (s->kv) return 0;
    encoder_state_close(s);
    return -1;
}

int encoder_state_reserve(EncoderState *s, const Encoder *e, int n, int longest, char *err, size_t errlen) {
    kvcache_restart(s->kv);
    return kvcache_reserve(s->kv, longest, err, errlen) || workspace_reserve(&s->work, &e->config, n, err, errlen) ? -1
                                                                                                                   : 0;
}

void encoder_state_close(EncoderState *s) {
    kvcache_close(s->kv);
    workspace_close(&s->work);
    s->kv = NULL;
}

void encoder_forward(const Encoder *e, EncoderState *s, float *x, const int *lengths, int n_sequences,
                     AttentionVisitor visit, void *context) {
    const SublayerConfig *c = &e->config;
    Workspace *work = &s->work;
    int n = 0;
    for (int i = 0; i < n_sequences; i++) n += lengths[i];
    for (int i = 0; i < e->n_layers; i++) {
        const EncoderLayer *l = &e->layers[i];

        const float *in = sublayer_input(work, c, &l->attn.norm, x, n);
        const Dense *qkv[] = {&l->attn.q, &l->attn.k, &l->attn.v};
        dense_forward(work, qkv, (float *[]){work->q, work->k, work->v}, 3, in, n);
        for (int j = 0, t = 0; j < n_sequences; t += lengths[j++]) {
            kvcache_restart(s->kv);
            kvcache_store(s->kv, 0, lengths[j], work->k + (int64_t)t * c->dim, work->v + (int64_t)t * c->dim);
            Attention a = attn_forward(work, c, kvcache_view(s->kv, 0), (AttnMask){0}, t, lengths[j], lengths[j]);
            if (visit) visit(context, i, j, &a);
        }
        sublayer_output(work, c, &l->attn.norm, &l->attn.out, work->att, x, n);

        ffn_forward(work, c, &l->ffn, x, n);
    }
    if (e->norm.weight) norm_forward(work, &e->norm, x, x, n, c->dim, c->norm_eps);
}
