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

static KvCache *open_cache(const LayerKind *k, const MemoryOptions *o, KvPool *pool, char *err, size_t errlen) {
    int own = o->window < 0 ? 0 : k->window;
    bool narrowed = o->window > 0 && (!own || o->window < own);
    KvShape shape = {.n_kv_heads = k->n_kv_heads,
                     .k_dim = k->k_dim,
                     .v_dim = k->v_dim,
                     .type = o->kv,
                     .window = narrowed ? o->window : own,
                     .n_sinks = o->n_sinks};
    return kvcache_open(&shape, pool, err, errlen);
}

// How many checkpoints of all states fit under the cap.
static int count_slots(const Config *c) {
    static const uint64_t cap = 128 << 20;
    uint64_t bytes = 0;
    for (int i = 0; i < c->n_layers; i++) {
        const LayerKind *k = config_kind(c, i);
        if (kind_has_state(k)) bytes += state_copy_bytes(&k->state);
    }
    if (!bytes) return 0;
    return cap / bytes < MAX_CHECKPOINTS ? (int)(cap / bytes) : MAX_CHECKPOINTS;
}

static int open_layers(Memory *m, const Config *c, const MemoryOptions *o, KvPool *pool, char *err, size_t errlen) {
    m->n_slots = count_slots(c);
    for (int i = 0; i < m->n_layers; i++) {
        const LayerKind *k = config_kind(c, i);
        LayerMemory *l = &m->layers[i];
        if (kind_has_cache(k) && !(l->cache = open_cache(k, o, pool, err, errlen))) return -1;
        if (kind_has_state(k) && !(l->state = state_open(&k->state, m->n_slots, err, errlen))) return -1;
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
    for (int i = 0; m->layers && i < m->n_layers; i++) {
        kvcache_close(m->layers[i].cache);
        state_close(m->layers[i].state);
    }
    for (int i = 0; i < m->n_kinds; i++) rope_close(&m->ropes[i]);
    free(m->layers);
    memset(m, 0, sizeof *m);
}

KvCache *memory_cache(const Memory *m, int layer) {
    return m->layers[m->n_layers > 1 ? layer : 0].cache;
}

State *memory_state(const Memory *m, int layer) {
    return m->layers[m->n_layers > 1 ? layer : 0].state;
}

int memory_length(const Memory *m) {
    return m->length;
}

uint64_t memory_kv_bytes(const Memory *m) {
    uint64_t bytes = 0;
    for (int i = 0; i < m->n_layers; i++) {
        if (m->layers[i].cache) bytes += kvcache_bytes(m->layers[i].cache);
    }
    return bytes;
}

uint64_t memory_state_bytes(const Memory *m) {
    uint64_t bytes = 0;
    for (int i = 0; i < m->n_layers; i++) {
        if (m->layers[i].state) bytes += state_bytes(m->layers[i].state);
    }
    return bytes;
}

uint64_t config_state_bytes(const Config *c) {
    uint64_t bytes = 0;
    int n_slots = count_slots(c);
    for (int i = 0; i < c->n_layers; i++) {
        const LayerKind *k = config_kind(c, i);
        if (kind_has_state(k)) bytes += state_shape_bytes(&k->state, n_slots);
    }
    return bytes;
}

uint64_t memory_token_bytes(const Memory *m) {
    uint64_t bytes = 0;
    for (int i = 0; i < m->n_layers; i++) {
        if (m->layers[i].cache) bytes += kvcache_token_bytes(m->layers[i].cache);
        if (m->layers[i].state) bytes += state_token_bytes(m->layers[i].state);
    }
    return bytes;
}

// ---- checkpoints

static int border_of(const Memory *m) {
    return m->length / STATE_CHUNK * STATE_CHUNK;
}

// The checkpoint whose neighbours lie closest together, as distances from the border count: by their ratio.
static int most_crowded(const Memory *m, int border) {
    int best = 0;
    double least = 0;
    for (int i = 0; i < m->n_checkpoints; i++) {
        int older = i > 0 ? m->checkpoints[i - 1].border : 0,
            newer = i + 1 < m->n_checkpoints ? m->checkpoints[i + 1].border : border;
        double ratio = (double)(border - older + STATE_CHUNK) / (border - newer + STATE_CHUNK);
        if (i == 0 || ratio < least) {
            best = i;
            least = ratio;
        }
    }
    return best;
}

// A slot for a new checkpoint: an unused one, or that of one that is dropped.
static int take_slot(Memory *m, int border) {
    if (m->n_checkpoints == m->n_slots) {
        int drop = most_crowded(m, border), slot = m->checkpoints[drop].slot;
        memmove(&m->checkpoints[drop], &m->checkpoints[drop + 1],
                sizeof *m->checkpoints * (size_t)(--m->n_checkpoints - drop));
        return slot;
    }
    bool used[MAX_CHECKPOINTS] = {0};
    for (int i = 0; i < m->n_checkpoints; i++) used[m->checkpoints[i].slot] = true;
    int slot = 0;
    while (used[slot]) slot++;
    return slot;
}

// Before a pass of n tokens: keep a copy of the border that it moves.
static void make_checkpoint(Memory *m, int n) {
    int border = border_of(m), last = m->n_checkpoints ? m->checkpoints[m->n_checkpoints - 1].border : 0;
    if (!m->n_slots || border == last || (m->length + n) / STATE_CHUNK * STATE_CHUNK == border) return;
    int slot = take_slot(m, border);
    for (int i = 0; i < m->n_layers; i++) {
        if (m->layers[i].state) state_save(m->layers[i].state, slot);
    }
    m->checkpoints[m->n_checkpoints++] = (Checkpoint){.border = border, .slot = slot};
}

// How many of the first n tokens the states can go back to.
static int states_keep(const Memory *m, int n) {
    bool states = false;
    for (int i = 0; i < m->n_layers; i++) states |= m->layers[i].state != NULL;
    if (!states || n >= border_of(m)) return n;
    int kept = 0;
    for (int i = 0; i < m->n_checkpoints; i++) {
        if (m->checkpoints[i].border <= n) kept = m->checkpoints[i].border;
    }
    return kept;
}

// n is what states_keep returned.
static void truncate_states(Memory *m, int n) {
    bool within = n >= border_of(m);
    while (m->n_checkpoints && m->checkpoints[m->n_checkpoints - 1].border > n) m->n_checkpoints--;
    for (int i = 0; i < m->n_layers; i++) {
        State *s = m->layers[i].state;
        if (!s) continue;
        if (within) state_truncate(s, n);
        else if (!n) state_restart(s);
        else state_restore(s, m->checkpoints[m->n_checkpoints - 1].slot, n);
    }
}

// ---- growing and going back

static int reserve_caches(Memory *m, int n, char *err, size_t errlen) {
    int before[MAX_LAYERS] = {0}, i = 0;
    for (int j = 0; j < m->n_layers; j++) {
        if (m->layers[j].cache) before[j] = kvcache_room(m->layers[j].cache);
    }
    while (i < m->n_layers && !(m->layers[i].cache && kvcache_reserve(m->layers[i].cache, n))) i++;
    if (i == m->n_layers) return 0;
    uint64_t next = 0;
    for (int j = 0; j < m->n_layers; j++) {
        if (!m->layers[j].cache) continue;
        kvcache_trim(m->layers[j].cache, before[j]);
        next += kvcache_block_bytes(m->layers[j].cache);
    }
    return fail(err, errlen,
                "KV cache: out of memory after %d tokens (%.1f MiB held, %.1f MiB for the next %d); a smaller -c, "
                "--window W or --kv q8 needs less",
                memory_length(m), (double)memory_kv_bytes(m) / 0x1p20, (double)next / 0x1p20, KV_BLOCK);
}

int memory_reserve(Memory *m, int n, char *err, size_t errlen) {
    if (reserve_caches(m, n, err, errlen)) return -1;
    make_checkpoint(m, n);
    return 0;
}

void memory_advance(Memory *m, int n) {
    m->length += n;
    for (int i = 0; i < m->n_layers; i++) {
        if (m->layers[i].cache) kvcache_advance(m->layers[i].cache, n);
        if (m->layers[i].state) state_advance(m->layers[i].state, n);
    }
}

int memory_truncate(Memory *m, int n) {
    if (n > m->length) n = m->length;
    for (int wanted = -1; wanted != n;) { // what one layer cannot keep, another may be unable to go back to
        wanted = n;
        n = states_keep(m, n);
        for (int i = 0; i < m->n_layers; i++) {
            if (m->layers[i].cache) n = kvcache_keeps(m->layers[i].cache, n);
        }
    }
    for (int i = 0; i < m->n_layers; i++) {
        if (m->layers[i].cache) kvcache_truncate(m->layers[i].cache, n);
    }
    truncate_states(m, n);
    m->length = n;
    return n;
}

void memory_restart(Memory *m) {
    for (int i = 0; i < m->n_layers; i++) {
        if (m->layers[i].cache) kvcache_restart(m->layers[i].cache);
        if (m->layers[i].state) state_restart(m->layers[i].state);
    }
    m->length = m->n_checkpoints = 0;
}
