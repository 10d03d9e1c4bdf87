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

int memory_border(const Memory *m) {
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
    int border = memory_border(m), last = m->n_checkpoints ? m->checkpoints[m->n_checkpoints - 1].border : 0;
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
    if (!states || n >= memory_border(m)) return n;
    int kept = 0;
    for (int i = 0; i < m->n_checkpoints; i++) {
        if (m->checkpoints[i].border <= n) kept = m->checkpoints[i].border;
    }
    return kept;
}

// n is what states_keep returned.
static void truncate_states(Memory *m, int n) {
    bool within = n >= memory_border(m);
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

int memory_ahead(const Memory *m, int n, int more) {
    int from = m->length + n;
    for (int i = 0; i < m->n_layers; i++) {
        if (m->layers[i].cache) more = kvcache_ahead(m->layers[i].cache, n, more);
        if (!m->layers[i].state) continue;
        while (more > 0 && (from + more) / STATE_CHUNK > from / STATE_CHUNK) more--; // the border stays
    }
    return more;
}

void memory_restart(Memory *m) {
    for (int i = 0; i < m->n_layers; i++) {
        if (m->layers[i].cache) kvcache_restart(m->layers[i].cache);
        if (m->layers[i].state) state_restart(m->layers[i].state);
    }
    m->length = m->n_checkpoints = 0;
}

// ---- copies

int memory_copy(Memory *m, const Memory *from, char *err, size_t errlen) {
    for (int i = 0; i < m->n_layers; i++) {
        const LayerMemory *to = &m->layers[i], *l = &from->layers[i];
        if (l->cache && kvcache_share(to->cache, l->cache, from->length))
            return fail(err, errlen, "KV cache: out of memory for another text of %d tokens", from->length);
        if (!l->state) continue;
        state_copy(to->state, l->state);
        for (int j = 0; j < from->n_checkpoints; j++) {
            int slot = from->checkpoints[j].slot;
            memcpy(state_slot(to->state, slot), state_slot(l->state, slot), state_copy_bytes(state_shape(l->state)));
        }
    }
    m->length = from->length;
    m->n_checkpoints = from->n_checkpoints;
    memcpy(m->checkpoints, from->checkpoints, sizeof m->checkpoints);
    return 0;
}

static bool visit_cache(const KvCache *c, MemoryVisitor visit, void *context) {
    void *const *blocks = kvcache_view(c).blocks;
    for (int i = 0; i * KV_BLOCK < kvcache_length(c); i++) {
        if (blocks[i] && !visit(context, blocks[i], kvcache_block_bytes(c))) return false;
    }
    return true;
}

static bool visit_state(const Memory *m, State *s, MemoryVisitor visit, void *context) {
    if (!visit(context, state_memory(s), state_memory_bytes(s))) return false;
    for (int i = 0; i < m->n_checkpoints; i++) {
        if (!visit(context, state_slot(s, m->checkpoints[i].slot), state_copy_bytes(state_shape(s)))) return false;
    }
    return true;
}

bool memory_visit(const Memory *m, MemoryVisitor visit, void *context) {
    for (int i = 0; i < m->n_layers; i++) {
        const LayerMemory *l = &m->layers[i];
        if (l->cache && !visit_cache(l->cache, visit, context)) return false;
        if (l->state && !visit_state(m, l->state, visit, context)) return false;
    }
    return true;
}

int memory_restore(Memory *m, int length, const int *borders, int n_borders, char *err, size_t errlen) {
    if (n_borders > m->n_slots)
        return fail(err, errlen, "expected at most %d checkpoints, found %d", m->n_slots, n_borders);
    for (int i = 0; i < n_borders; i++) {
        int least = i ? borders[i - 1] + 1 : 1;
        if (borders[i] < least || borders[i] > length || borders[i] % STATE_CHUNK)
            return fail(err, errlen, "checkpoint %d of %d: found %d", i, n_borders, borders[i]);
        m->checkpoints[i] = (Checkpoint){.border = borders[i], .slot = i};
    }
    for (int i = 0; i < m->n_layers; i++) {
        if (m->layers[i].cache && kvcache_restore(m->layers[i].cache, length))
            return fail(err, errlen, "KV cache: out of memory for a text of %d tokens", length);
        if (m->layers[i].state) state_resume(m->layers[i].state, length);
    }
    m->n_checkpoints = n_borders;
    m->length = length;
    return 0;
}

// ---- texts that begin alike

int memory_caches(const Memory *m) {
    int n = 0;
    for (int i = 0; i < m->n_layers; i++) n += m->layers[i].cache != NULL;
    return n;
}

bool memory_has_window(const Memory *m) {
    bool window = false;
    for (int i = 0; i < m->n_layers; i++) window |= m->layers[i].cache && kvcache_window(m->layers[i].cache);
    return window;
}

uint64_t memory_kv_block_bytes(const Memory *m) {
    uint64_t bytes = 0;
    for (int i = 0; i < m->n_layers; i++) bytes += m->layers[i].cache ? kvcache_block_bytes(m->layers[i].cache) : 0;
    return bytes;
}

size_t memory_border_bytes(const Memory *m) {
    size_t bytes = 0;
    for (int i = 0; i < m->n_layers; i++) {
        if (m->layers[i].state) bytes += state_copy_bytes(state_shape(m->layers[i].state));
    }
    return bytes;
}

void memory_copy_border(const Memory *m, void *to) {
    char *at = to;
    for (int i = 0; i < m->n_layers; i++) {
        if (!m->layers[i].state) continue;
        size_t bytes = state_copy_bytes(state_shape(m->layers[i].state));
        memcpy(at, state_memory(m->layers[i].state), bytes);
        at += bytes;
    }
}

void memory_share_block(const Memory *m, int index, void **blocks) {
    for (int i = 0; i < m->n_layers; i++) {
        if (!m->layers[i].cache) continue;
        *blocks = kvcache_view(m->layers[i].cache).blocks[index];
        kvpool_share(*blocks++);
    }
}

int memory_attach(Memory *m, void **const *blocks, int n, const void *states) {
    const char *at = states;
    for (int i = 0; i < m->n_layers; i++) {
        if (m->layers[i].cache && kvcache_slots(m->layers[i].cache, n)) return -1;
    }
    memory_truncate(m, 0);
    for (int i = 0, column = 0; i < m->n_layers; i++) {
        const LayerMemory *l = &m->layers[i];
        if (l->cache) kvcache_attach(l->cache, blocks, column++, n);
        if (!l->state) continue;
        size_t bytes = state_copy_bytes(state_shape(l->state));
        memcpy(state_memory(l->state), at, bytes);
        state_resume(l->state, n);
        at += bytes;
    }
    m->length = n;
    return 0;
}
