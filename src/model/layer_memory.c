// layer_memory: see layer_memory.h.
#include "layer_memory.h"

#include "file.h"

#include <stdlib.h>
#include <string.h>

static const float *factors_of(const RopeConfig *c, const MemoryOptions *o) {
    if (c->scaling.kind != ROPE_LONG) return o->rope_factors.all;
    return rope_is_long(c, o->n_ctx) ? o->rope_factors.long_ctx : o->rope_factors.short_ctx;
}

static int open_ropes(Memory *m, const Config *c, const MemoryOptions *o, char *err, size_t errlen) {
    for (int i = 0; i < c->n_kinds; i++, m->n_kinds++) {
        const RopeConfig *rope = &c->kinds[i].rope;
        if (rope_open(&m->ropes[i], rope, o->n_ctx, factors_of(rope, o), err, errlen)) return -1;
    }
    return 0;
}

static int open_layers(Memory *m, const Config *c, const MemoryOptions *o, KvPool *pool, char *err, size_t errlen) {
    for (int i = 0; i < m->n_layers; i++) {
        const LayerKind *k = config_kind(c, i);
        int own = o->window < 0 ? 0 : k->window;
        bool narrowed = o->window > 0 && (!own || o->window < own);
        KvShape shape = {.n_kv_heads = k->n_kv_heads,
                         .k_dim = k->k_dim,
                         .v_dim = k->v_dim,
                         .type = o->kv,
                         .window = narrowed ? o->window : own,
                         .n_sinks = o->n_sinks};
        m->layers[i] = kvcache_open(&shape, pool, err, errlen);
        if (!m->layers[i]) return -1;
    }
    return 0;
}

int memory_open(Memory *m, const Config *c, const MemoryOptions *o, KvPool *pool, char *err, size_t errlen) {
    *m = (Memory){.n_layers = o->n_layers ? o->n_layers : c->n_layers};
    m->layers = calloc((size_t)m->n_layers, sizeof *m->layers);
    if (!m->layers) return fail(err, errlen, "out of memory for %d layers", m->n_layers);
    if (!open_ropes(m, c, o, err, errlen) && !open_layers(m, c, o, pool, err, errlen)) return 0;
    memory_close(m);
    return -1;
}

void memory_close(Memory *m) {
    if (m->layers) {
        for (int i = 0; i < m->n_layers; i++) kvcache_close(m->layers[i]);
    }
    for (int i = 0; i < m->n_kinds; i++) rope_close(&m->ropes[i]);
    free(m->layers);
    memset(m, 0, sizeof *m);
}

KvCache *memory_cache(const Memory *m, int layer) {
    return m->layers[m->n_layers > 1 ? layer : 0];
}

int memory_length(const Memory *m) {
    return kvcache_length(m->layers[0]);
}

uint64_t memory_bytes(const Memory *m) {
    uint64_t bytes = 0;
    for (int i = 0; i < m->n_layers; i++) bytes += kvcache_bytes(m->layers[i]);
    return bytes;
}

uint64_t memory_token_bytes(const Memory *m) {
    uint64_t bytes = 0;
    for (int i = 0; i < m->n_layers; i++) bytes += kvcache_token_bytes(m->layers[i]);
    return bytes;
}

int memory_reserve(Memory *m, int n, char *err, size_t errlen) {
    int before[MAX_LAYERS], i = 0;
    for (int j = 0; j < m->n_layers; j++) before[j] = kvcache_room(m->layers[j]);
    while (i < m->n_layers && !kvcache_reserve(m->layers[i], n)) i++;
    if (i == m->n_layers) return 0;
    uint64_t next = 0;
    for (int j = 0; j < m->n_layers; j++) {
        kvcache_trim(m->layers[j], before[j]);
        next += kvcache_block_bytes(m->layers[j]);
    }
    return fail(err, errlen,
                "KV cache: out of memory after %d tokens (%.1f MiB held, %.1f MiB for the next %d); a smaller -c, "
                "--window W or --kv q8 needs less",
                memory_length(m), (double)memory_bytes(m) / 0x1p20, (double)next / 0x1p20, KV_BLOCK);
}

void memory_advance(Memory *m, int n) {
    for (int i = 0; i < m->n_layers; i++) kvcache_advance(m->layers[i], n);
}

int memory_truncate(Memory *m, int n) {
    if (n > memory_length(m)) n = memory_length(m);
    for (int i = 0; i < m->n_layers; i++) n = kvcache_keeps(m->layers[i], n);
    for (int i = 0; i < m->n_layers; i++) kvcache_truncate(m->layers[i], n);
    return n;
}

void memory_restart(Memory *m) {
    for (int i = 0; i < m->n_layers; i++) kvcache_restart(m->layers[i]);
}
