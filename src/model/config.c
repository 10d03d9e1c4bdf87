// config: see config.h.
#include "config.h"

#include "file.h"
#include "scan.h"

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

void layers_add_others(LayerSet *set, const LayerSet *these) {
    for (int i = 0; i < MAX_LAYERS; i++) {
        if (!layers_have(these, i)) layers_add(set, i);
    }
}

const LayerKind *config_kind(const Config *c, int layer) {
    return &c->kinds[c->kind_of[layer]];
}

int config_rope_kind(const Config *c, int kind) {
    int first = 0;
    while (!rope_config_equal(&c->kinds[first].rope, &c->kinds[kind].rope)) first++;
    return first;
}

int config_expert_dim(const Config *c) {
    return c->expert_dim ? c->expert_dim : c->hidden_dim;
}

void config_drop_experts(Config *c) {
    c->n_experts = c->n_experts_used = 0;
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

int kind_head_dim(const LayerKind *k) {
    return k->mixer == MIX_LATENT ? k->latent.nope_dim + k->rope.rotary_dim : k->k_dim;
}

void config_set_heads(Config *c, int n_heads) {
    int width = n_heads > 0 && c->dim % n_heads == 0 ? c->dim / n_heads : 0;
    c->n_kinds = 1;
    c->kinds[0] = (LayerKind){.n_heads = n_heads, .n_kv_heads = n_heads, .k_dim = width, .v_dim = width};
}

bool kind_has_cache(const LayerKind *k) {
    return k->n_heads > 0;
}

bool kind_has_state(const LayerKind *k) {
    return k->state.n_heads > 0 || k->state.conv_width > 0;
}

static bool same_kind(const LayerKind *a, const LayerKind *b) {
    return a->mixer == b->mixer && a->ffn == b->ffn && a->n_heads == b->n_heads && a->n_kv_heads == b->n_kv_heads &&
           a->k_dim == b->k_dim && a->v_dim == b->v_dim && a->window == b->window && a->chunked == b->chunked &&
           a->gated == b->gated && !memcmp(&a->blocks, &b->blocks, sizeof a->blocks) &&
           rope_config_equal(&a->rope, &b->rope) && !memcmp(&a->latent, &b->latent, sizeof a->latent) &&
           !memcmp(&a->state, &b->state, sizeof a->state);
}

// Its place in the table, -1: there is no room.
static int find_kind(Config *c, const LayerKind *k) {
    int i = 0;
    while (i < c->n_kinds && !same_kind(&c->kinds[i], k)) i++;
    if (i == MAX_LAYER_KINDS) return -1;
    if (i == c->n_kinds) c->kinds[c->n_kinds++] = *k;
    return i;
}

static LayerKind attention_kind(const LayerKind *base, const LayerRules *rules, int layer) {
    LayerKind k = *base;
    k.window = layers_have(&rules->full, layer) ? 0 : rules->window;
    k.chunked = k.window && rules->chunked;
    if (k.window && rules->window_theta > 0) {
        k.rope.theta = rules->window_theta;
        k.rope.scaling = (RopeScaling){0};
    }
    if (layers_have(&rules->nope, layer)) k.rope = (RopeConfig){0};
    if (rules->n_heads[layer]) k.n_heads = rules->n_heads[layer];
    if (rules->n_kv_heads[layer]) k.n_kv_heads = rules->n_kv_heads[layer];
    return k;
}

static LayerKind mixing_kind(const LayerKind *base, const LayerRules *rules, int layer) {
    if (layers_have(&rules->idle, layer)) return (LayerKind){.mixer = MIX_NONE};
    bool recurrent = layers_have(&rules->recurrent, layer);
    if (recurrent && rules->mixer != MIX_SSM_ATTENTION && rules->mixer != MIX_HYENA) {
        return (LayerKind){.mixer = rules->mixer, .state = rules->state, .rope = rules->rope};
    }
    LayerKind k = attention_kind(base, rules, layer);
    if (recurrent) {
        k.mixer = rules->mixer;
        k.state = rules->state;
    }
    return k;
}

static FfnKind feed_forward_kind(const Config *c, const LayerRules *rules, int layer) {
    if (layers_have(&rules->bare, layer)) return FFN_NONE;
    if (c->channel_mix) return FFN_CHANNEL_MIX;
    return c->n_experts > 0 && !layers_have(&rules->dense, layer) ? FFN_EXPERTS : FFN_DENSE;
}

int config_set_layers(Config *c, const LayerRules *rules) {
    const LayerKind base = c->kinds[0];
    bool dense = false;
    c->n_kinds = 0;
    for (int i = 0; i < c->n_layers && i < MAX_LAYERS; i++) {
        LayerKind k = mixing_kind(&base, rules, i);
        k.ffn = feed_forward_kind(c, rules, i);
        int kind = find_kind(c, &k);
        if (kind < 0) return i;
        c->kind_of[i] = (uint8_t)kind;
        dense |= k.ffn == FFN_DENSE;
    }
    if (!dense) c->hidden_dim = config_expert_dim(c);
    return -1;
}

// Of the kinds with a cache, the one that the others are told apart from: with rotary positions, without a window.
static LayerKind base_kind(const Config *c) {
    LayerKind base = c->kinds[0];
    for (int i = 1; i < c->n_kinds; i++) {
        const LayerKind *k = &c->kinds[i];
        bool better = !kind_has_cache(&base) || k->rope.rotary_dim > base.rope.rotary_dim ||
                      (base.window && !k->window && k->rope.rotary_dim);
        if (kind_has_cache(k) && better) base = *k;
    }
    return base;
}

LayerRules config_rules(const Config *c, LayerKind *base) {
    LayerRules rules = {0};
    *base = base_kind(c);
    for (int i = 0; i < c->n_layers; i++) {
        const LayerKind *k = config_kind(c, i);
        if (c->n_experts && k->ffn == FFN_DENSE) layers_add(&rules.dense, i);
        if (k->ffn == FFN_NONE) layers_add(&rules.bare, i);
        if (k->mixer == MIX_NONE) layers_add(&rules.idle, i);
        if (kind_has_state(k)) {
            layers_add(&rules.recurrent, i);
            rules.mixer = k->mixer;
            rules.state = k->state;
            if (!kind_has_cache(k)) rules.rope = k->rope;
        }
        if (!kind_has_cache(k)) continue;
        if (k->window) rules.window = k->window;
        rules.chunked |= k->chunked;
        if (!k->window) layers_add(&rules.full, i);
        if (!k->rope.rotary_dim) layers_add(&rules.nope, i);
        if (k->n_heads != base->n_heads) rules.n_heads[i] = k->n_heads;
        if (k->n_kv_heads != base->n_kv_heads) rules.n_kv_heads[i] = k->n_kv_heads;
        if (k->window && k->rope.rotary_dim && k->rope.theta != base->rope.theta) rules.window_theta = k->rope.theta;
    }
    base->window = 0;
    base->chunked = false;
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
                 s->attention_factor >= 0 && isfinite(s->attention_factor) && s->long_attention_factor >= 0 &&
                 isfinite(s->long_attention_factor);
    if (s->kind == ROPE_LLAMA3)
        sound = sound && s->low_freq > 0 && s->high_freq >= s->low_freq && isfinite(s->high_freq);
    if (s->kind == ROPE_YARN)
        sound = sound && s->beta_slow > 0 && s->beta_fast > s->beta_slow && isfinite(s->beta_fast);
    if (s->kind == ROPE_LONG || s->kind == ROPE_YARN || s->kind == ROPE_DYNAMIC) sound = sound && r->theta > 1;
    if (sound) return 0;
    return fail(err, errlen,
                "%s: RoPE scaling: expected a factor >= 1, an original context, and borders in order, found factor %g, "
                "context %d",
                path, (double)s->factor, s->original_ctx);
}

typedef struct {
    const char *name;
    int value;
} Count;

static int check_counts(const Count *list, size_t n, int most, const char *path, char *err, size_t errlen) {
    for (size_t i = 0; i < n; i++) {
        if (list[i].value >= 1 && list[i].value <= most) continue;
        return fail(err, errlen, "%s: %s: expected 1 to %d, found %d", path, list[i].name, most, list[i].value);
    }
    return 0;
}

static int check_state(const StateShape *s, const char *path, char *err, size_t errlen) {
    const Count heads[] = {{"value heads", s->n_heads},
                           {"key heads", s->n_key_heads},
                           {"key head_dim", s->k_dim},
                           {"value head_dim", s->v_dim}},
                conv[] = {{"convolution's taps", s->conv_width}, {"convolution's channels", s->conv_dim}};
    if (s->n_heads && check_counts(heads, 4, MAX_WIDTH, path, err, errlen)) return -1;
    if (s->conv_width && check_counts(conv, 1, MAX_TAPS, path, err, errlen)) return -1;
    if (s->conv_width && check_counts(conv + 1, 1, 4 * MAX_WIDTH, path, err, errlen)) return -1;
    if (s->n_heads && s->n_heads % s->n_key_heads) {
        return fail(err, errlen, "%s: key heads: expected a divisor of %d, found %d", path, s->n_heads, s->n_key_heads);
    }
    double values = (double)s->n_heads * s->k_dim * s->v_dim;
    if ((double)s->n_heads * s->v_dim <= MAX_WIDTH && (double)s->n_key_heads * s->k_dim <= MAX_WIDTH &&
        values <= MAX_STATE) {
        return 0;
    }
    return fail(err, errlen, "%s: recurrent state: expected at most %d values, found %d x %d x %d", path, MAX_STATE,
                s->n_heads, s->k_dim, s->v_dim);
}

static int check_latent(const LayerKind *k, const char *path, char *err, size_t errlen) {
    const LatentShape *l = &k->latent;
    const Count counts[] = {{"qk_nope_head_dim", l->nope_dim}, {"v_head_dim", l->value_dim}};
    if (check_counts(counts, 2, MAX_WIDTH, path, err, errlen)) return -1;
    if (l->q_rank < 0 || l->q_rank > MAX_WIDTH) {
        return fail(err, errlen, "%s: q_lora_rank: expected at most %d, found %d", path, MAX_WIDTH, l->q_rank);
    }
    if (k->n_kv_heads != 1 || !k->rope.rotary_dim || k->k_dim - k->v_dim != k->rope.rotary_dim) {
        return fail(err, errlen, "%s: latent attention: expected a latent and rotary dimensions, found %d and %d", path,
                    k->v_dim, k->rope.rotary_dim);
    }
    int64_t width = kind_head_dim(k) > l->value_dim ? kind_head_dim(k) : l->value_dim;
    if (k->n_heads * width <= MAX_WIDTH) return 0;
    return fail(err, errlen, "%s: n_heads x head_dim: expected at most %d, found %lld", path, MAX_WIDTH,
                (long long)(k->n_heads * width));
}

static int check_kind(const LayerKind *k, const char *path, char *err, size_t errlen) {
    const Count counts[] = {
        {"n_heads", k->n_heads}, {"n_kv_heads", k->n_kv_heads}, {"head_dim", k->k_dim}, {"value head_dim", k->v_dim}};
    if (check_state(&k->state, path, err, errlen)) return -1;
    if (k->mixer == MIX_HYENA) return check_counts(counts + 3, 1, MAX_WIDTH, path, err, errlen);
    if (k->mixer != MIX_ATTENTION && k->mixer != MIX_LATENT && !k->n_heads) return 0;
    if (check_counts(counts, 4, MAX_WIDTH, path, err, errlen)) return -1;
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
    if (k->mixer == MIX_LATENT && check_latent(k, path, err, errlen)) return -1;
    return check_rope(k, path, err, errlen);
}

static int check_experts(const Config *c, const char *path, char *err, size_t errlen) {
    if (c->n_experts < 0 || c->n_experts > MAX_EXPERTS || c->shared_dim < 0 || c->shared_dim > MAX_WIDTH) {
        return fail(err, errlen, "%s: experts: expected 0 to %d, a shared one of at most %d, found %d and %d", path,
                    MAX_EXPERTS, MAX_WIDTH, c->n_experts, c->shared_dim);
    }
    if (!c->n_experts) return 0;
    if (c->n_experts_used < 1 || c->n_experts_used > c->n_experts) {
        return fail(err, errlen, "%s: experts of a token: expected 1 to %d, found %d", path, c->n_experts,
                    c->n_experts_used);
    }
    if (c->expert_dim < 0 || c->expert_dim > MAX_WIDTH) {
        return fail(err, errlen, "%s: width of an expert: expected 1 to %d, found %d", path, MAX_WIDTH, c->expert_dim);
    }
    if (c->router_jitter > 0 && c->n_experts_used != 2) {
        return fail(err, errlen, "%s: experts of a token: expected 2 with SparseMixer, found %d", path,
                    c->n_experts_used);
    }
    int groups = c->n_expert_groups, used = c->n_groups_used;
    if (!groups) return 0;
    if (groups < 1 || groups > c->n_experts || c->n_experts % groups) {
        return fail(err, errlen, "%s: groups of experts: expected a divisor of %d, found %d", path, c->n_experts,
                    groups);
    }
    if (used >= 1 && used <= groups && used * (c->n_experts / groups) >= c->n_experts_used) return 0;
    return fail(err, errlen, "%s: groups of a token: expected 1 to %d, with %d experts or more in them, found %d", path,
                groups, c->n_experts_used, used);
}

Activation activation_named(const char *name) {
    static const struct {
        const char *name;
        Activation activation;
    } known[] = {{"gelu", ACT_GELU},
                 {"gelu_new", ACT_GELU_TANH},
                 {"gelu_fast", ACT_GELU_TANH},
                 {"relu", ACT_RELU},
                 {"relu2", ACT_RELU_SQUARED},
                 {"silu", ACT_SILU},
                 {"sqrelu", ACT_RELU_SQUARED},
                 {"swish", ACT_SILU},
                 {"quick_gelu", ACT_QUICK_GELU},
                 {"gelu_pytorch_tanh", ACT_GELU_TANH}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!strcmp(name, known[i].name)) return known[i].activation;
    }
    return ACT_NONE;
}

static bool has_feed_forward(const Config *c) {
    int i = 0;
    while (i < c->n_kinds && c->kinds[i].ffn == FFN_NONE) i++;
    return !c->n_kinds || i < c->n_kinds;
}

int config_check(const Config *c, const char *path, char *err, size_t errlen) {
    const struct {
        const char *name;
        int value, max;
    } counts[] = {
        {"dim", c->dim, MAX_WIDTH},
        {"hidden_dim", has_feed_forward(c) ? c->hidden_dim : 1, MAX_WIDTH},
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
        const LayerKind *k = &c->kinds[i];
        const Count rank = {"rank of the step sizes", c->step_rank}, states = {"states of a channel", k->state.k_dim};
        if (k->state.scan && check_counts(&rank, 1, k->state.v_dim, path, err, errlen)) return -1;
        if (k->state.scan && check_counts(&states, 1, SCAN_STATES, path, err, errlen)) return -1;
        if (check_kind(&c->kinds[i], path, err, errlen)) return -1;
    }
    if (check_experts(c, path, err, errlen)) return -1;
    if (c->filter_dim && (double)c->max_seq_len * c->dim > MAX_STATE) {
        return fail(err, errlen, "%s: filters: expected at most %d values, found %d x %d", path, MAX_STATE,
                    c->max_seq_len, c->dim);
    }
    bool latent = c->kinds[0].mixer == MIX_LATENT;
    if (c->temperature > 0 && latent) {
        return fail(err, errlen, "%s: attention temperature: expected none with latent attention, found %g", path,
                    (double)c->temperature);
    }
    if (c->temperature > 0 && c->temperature_ctx < 1) {
        return fail(err, errlen, "%s: attention temperature: expected an original context, found %d", path,
                    c->temperature_ctx);
    }
    const struct {
        const char *name;
        float value, least, most; // most 0: any
    } reals[] = {
        {"norm_eps", c->norm_eps, 1e-30f, 1},        {"attn_scale", c->attn_scale, 0, 0},
        {"attn_softcap", c->attn_softcap, 0, 0},     {"logit_softcap", c->logit_softcap, 0, 0},
        {"ffn_clamp", c->ffn_clamp, 0, 0},           {"embedding_scale", c->embedding_scale, 0, 0},
        {"qkv_clamp", c->qkv_clamp, 0, 0},           {"alibi_max", c->alibi_max, 0, 0},
        {"temperature", c->temperature, 0, 0},       {"residual_scale", c->residual_scale, 0, 0},
        {"logit_scale", c->logit_scale, 0, 0},       {"step_min", c->step_min, 0, 0},
        {"step_norm_eps", c->step_norm_eps, 0, 0},   {"step_max", c->step_max, 0, 0},
        {"attn_out_scale", c->attn_out_scale, 0, 0}, {"gate_scale", c->gate_scale, 0, 0},
        {"ffn_out_scale", c->ffn_out_scale, 0, 0},   {"ssm_out_scale", c->ssm_out_scale, 0, 0},
        {"experts_scale", c->experts_scale, 0, 0},   {"latent_eps", c->latent_eps, 0, 0},
        {"router_jitter", c->router_jitter, 0, 0},
    };
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        float v = reals[i].value;
        if (v >= reals[i].least && isfinite(v) && (reals[i].most == 0 || v < reals[i].most)) continue;
        return fail(err, errlen, "%s: %s: expected %s, found %g", path, reals[i].name,
                    reals[i].most > 0 ? "between 0 and 1" : "a number, 0 or more", (double)v);
    }
    return 0;
}
