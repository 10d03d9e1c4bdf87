// config: see config.h.
#include "config.h"

#include "file.h"

#include <math.h>
#include <string.h>

void layers_add(LayerSet *set, int layer) {
    set->bits[layer / 64] |= (uint64_t)1 << layer % 64;
}

void layers_add_every(LayerSet *set, int period) {
    for (int i = period; period && i <= MAX_LAYERS; i += period) layers_add(set, i - 1);
}

bool layers_have(const LayerSet *set, int layer) {
    return set->bits[layer / 64] >> layer % 64 & 1;
}

const LayerKind *config_kind(const Config *c, int layer) {
    return &c->kinds[c->kind_of[layer]];
}

int config_rope_kind(const Config *c, int kind) {
    int first = 0;
    while (!rope_config_equal(&c->kinds[first].rope, &c->kinds[kind].rope)) first++;
    return first;
}

int64_t kind_q_dim(const LayerKind *k) {
    return (int64_t)k->n_heads * k->k_dim;
}

int64_t kind_k_dim(const LayerKind *k) {
    return (int64_t)k->n_kv_heads * k->k_dim;
}

int64_t kind_v_dim(const LayerKind *k) {
    return (int64_t)k->n_kv_heads * k->v_dim;
}

void config_set_heads(Config *c, int n_heads) {
    int width = n_heads > 0 && c->dim % n_heads == 0 ? c->dim / n_heads : 0;
    c->n_kinds = 1;
    c->kinds[0] = (LayerKind){.n_heads = n_heads, .n_kv_heads = n_heads, .k_dim = width, .v_dim = width};
}

// Kinds that rules make differ in their window, their heads and their rotary positions.
static bool same_kind(const LayerKind *a, const LayerKind *b) {
    return a->window == b->window && a->n_heads == b->n_heads && a->n_kv_heads == b->n_kv_heads &&
           rope_config_equal(&a->rope, &b->rope);
}

// Its place in the table, -1: there is no room.
static int find_kind(Config *c, const LayerKind *k) {
    int i = 0;
    while (i < c->n_kinds && !same_kind(&c->kinds[i], k)) i++;
    if (i == MAX_LAYER_KINDS) return -1;
    if (i == c->n_kinds) c->kinds[c->n_kinds++] = *k;
    return i;
}

int config_set_layers(Config *c, const LayerRules *rules) {
    const LayerKind base = c->kinds[0];
    c->n_kinds = 0;
    for (int i = 0; i < c->n_layers && i < MAX_LAYERS; i++) {
        LayerKind k = base;
        k.window = layers_have(&rules->full, i) ? 0 : rules->window;
        k.experts = c->n_experts > 0;
        if (k.window && rules->window_theta > 0) {
            k.rope.theta = rules->window_theta;
            k.rope.scaling = (RopeScaling){0};
        }
        if (layers_have(&rules->nope, i)) k.rope = (RopeConfig){0};
        if (rules->n_heads[i]) k.n_heads = rules->n_heads[i];
        if (rules->n_kv_heads[i]) k.n_kv_heads = rules->n_kv_heads[i];
        int kind = find_kind(c, &k);
        if (kind < 0) return i;
        c->kind_of[i] = (uint8_t)kind;
    }
    return -1;
}

LayerRules config_rules(const Config *c, LayerKind *base) {
    LayerRules rules = {0};
    *base = c->kinds[0];
    for (int i = 0; i < c->n_kinds; i++) {
        const LayerKind *k = &c->kinds[i];
        bool better = k->rope.rotary_dim > base->rope.rotary_dim || (base->window && !k->window);
        if (better && k->rope.rotary_dim) *base = *k;
        if (k->window) rules.window = k->window;
    }
    for (int i = 0; i < c->n_layers; i++) {
        const LayerKind *k = config_kind(c, i);
        if (!k->window) layers_add(&rules.full, i);
        if (!k->rope.rotary_dim) layers_add(&rules.nope, i);
        if (k->n_heads != base->n_heads) rules.n_heads[i] = k->n_heads;
        if (k->n_kv_heads != base->n_kv_heads) rules.n_kv_heads[i] = k->n_kv_heads;
        if (k->window && k->rope.rotary_dim && k->rope.theta != base->rope.theta) rules.window_theta = k->rope.theta;
    }
    base->window = 0;
    return rules;
}

// theta and scaling, as far as a value would divide by zero or never end.
static int check_rope(const LayerKind *k, const char *path, char *err, size_t errlen) {
    const RopeConfig *r = &k->rope;
    const RopeScaling *s = &r->scaling;
    if (!r->rotary_dim) return 0;
    if (r->rotary_dim % 2 || r->rotary_dim < 2 || r->rotary_dim > k->k_dim) {
        return fail(err, errlen, "%s: head_dim: expected an even number of rotary dimensions, at most %d, found %d",
                    path, k->k_dim, r->rotary_dim);
    }
    if (!(r->theta > 0 && isfinite(r->theta))) {
        return fail(err, errlen, "%s: rope_theta: expected a positive number, found %g", path, (double)r->theta);
    }
    if (s->kind == ROPE_UNSCALED) return 0;
    bool sound = s->factor >= 1 && isfinite(s->factor) && s->original_ctx > 0 && s->original_ctx <= MAX_POSITIONS &&
                 s->attention_factor >= 0 && isfinite(s->attention_factor);
    if (s->kind == ROPE_LLAMA3)
        sound = sound && s->low_freq > 0 && s->high_freq > s->low_freq && isfinite(s->high_freq);
    if (s->kind == ROPE_YARN)
        sound = sound && s->beta_slow > 0 && s->beta_fast > s->beta_slow && isfinite(s->beta_fast);
    if (s->kind == ROPE_LONG || s->kind == ROPE_YARN || s->kind == ROPE_DYNAMIC) sound = sound && r->theta > 1;
    if (sound) return 0;
    return fail(err, errlen,
                "%s: RoPE scaling: expected a factor >= 1, an original context, and borders in order, found factor %g, "
                "context %d",
                path, (double)s->factor, s->original_ctx);
}

static int check_kind(const LayerKind *k, const char *path, char *err, size_t errlen) {
    const struct {
        const char *name;
        int value;
    } counts[] = {
        {"n_heads", k->n_heads}, {"n_kv_heads", k->n_kv_heads}, {"head_dim", k->k_dim}, {"value head_dim", k->v_dim}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        if (counts[i].value >= 1 && counts[i].value <= MAX_WIDTH) continue;
        return fail(err, errlen, "%s: %s: expected 1 to %d, found %d", path, counts[i].name, MAX_WIDTH,
                    counts[i].value);
    }
    if (k->n_heads % k->n_kv_heads) {
        return fail(err, errlen, "%s: n_kv_heads: expected a divisor of n_heads = %d, found %d", path, k->n_heads,
                    k->n_kv_heads);
    }
    int64_t width = (int64_t)k->n_heads * (k->k_dim > k->v_dim ? k->k_dim : k->v_dim);
    if (width > MAX_WIDTH) {
        return fail(err, errlen, "%s: n_heads x head_dim: expected at most %d, found %lld", path, MAX_WIDTH,
                    (long long)width);
    }
    if (k->window < 0) return fail(err, errlen, "%s: window: expected >= 0, found %d", path, k->window);
    return check_rope(k, path, err, errlen);
}

static int check_experts(const Config *c, const char *path, char *err, size_t errlen) {
    if (c->n_experts < 0 || c->n_experts > MAX_EXPERTS || c->shared_dim < 0 || c->shared_dim > MAX_WIDTH) {
        return fail(err, errlen, "%s: experts: expected 0 to %d, a shared one of at most %d, found %d and %d", path,
                    MAX_EXPERTS, MAX_WIDTH, c->n_experts, c->shared_dim);
    }
    if (!c->n_experts || (c->n_experts_used >= 1 && c->n_experts_used <= c->n_experts)) return 0;
    return fail(err, errlen, "%s: experts of a token: expected 1 to %d, found %d", path, c->n_experts,
                c->n_experts_used);
}

Activation activation_named(const char *name) {
    static const struct {
        const char *name;
        Activation activation;
    } known[] = {{"gelu", ACT_GELU},  {"gelu_new", ACT_GELU_TANH},    {"gelu_fast", ACT_GELU_TANH},
                 {"relu", ACT_RELU},  {"relu2", ACT_RELU_SQUARED},    {"silu", ACT_SILU},
                 {"swish", ACT_SILU}, {"quick_gelu", ACT_QUICK_GELU}, {"gelu_pytorch_tanh", ACT_GELU_TANH}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!strcmp(name, known[i].name)) return known[i].activation;
    }
    return ACT_NONE;
}

int config_check(const Config *c, const char *path, char *err, size_t errlen) {
    const struct {
        const char *name;
        int value, max;
    } counts[] = {
        {"dim", c->dim, MAX_WIDTH},
        {"hidden_dim", c->hidden_dim, MAX_WIDTH},
        {"n_layers", c->n_layers, MAX_LAYERS},
        {"vocab_size", c->vocab_size, MAX_VOCAB},
        {"seq_len", c->max_seq_len, MAX_POSITIONS},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        if (counts[i].value < 1 || counts[i].value > counts[i].max) {
            return fail(err, errlen, "%s: %s: expected 1 to %d, found %d", path, counts[i].name, counts[i].max,
                        counts[i].value);
        }
    }
    for (int i = 0; i < c->n_kinds; i++) {
        if (check_kind(&c->kinds[i], path, err, errlen)) return -1;
    }
    if (check_experts(c, path, err, errlen)) return -1;
    if (c->temperature > 0 && c->temperature_ctx < 1) {
        return fail(err, errlen, "%s: attention temperature: expected an original context, found %d", path,
                    c->temperature_ctx);
    }
    const struct {
        const char *name;
        float value, least, most; // most 0: any
    } reals[] = {
        {"norm_eps", c->norm_eps, 1e-30f, 1},    {"attn_scale", c->attn_scale, 0, 0},
        {"attn_softcap", c->attn_softcap, 0, 0}, {"logit_softcap", c->logit_softcap, 0, 0},
        {"ffn_clamp", c->ffn_clamp, 0, 0},       {"embedding_scale", c->embedding_scale, 0, 0},
        {"qkv_clamp", c->qkv_clamp, 0, 0},       {"alibi_max", c->alibi_max, 0, 0},
        {"temperature", c->temperature, 0, 0},   {"residual_scale", c->residual_scale, 0, 0},
        {"logit_scale", c->logit_scale, 0, 0},
    };
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        float v = reals[i].value;
        if (v >= reals[i].least && isfinite(v) && (reals[i].most == 0 || v < reals[i].most)) continue;
        return fail(err, errlen, "%s: %s: expected %s, found %g", path, reals[i].name,
                    reals[i].most > 0 ? "between 0 and 1" : "a number, 0 or more", (double)v);
    }
    return 0;
}
