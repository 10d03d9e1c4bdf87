// config: see config.h.
#include "config.h"

#include "file.h"

#include <math.h>

enum { MAX_WIDTH = 1 << 20, MAX_VOCAB = 1 << 24, MAX_POSITIONS = 1 << 28, MAX_EXPERTS = 4096 };

void layers_add(LayerSet *set, int layer) {
    set->bits[layer / 64] |= (uint64_t)1 << layer % 64;
}

void layers_add_every(LayerSet *set, int period) {
    for (int i = period; period && i <= MAX_DECODER_LAYERS; i += period) layers_add(set, i - 1);
}

bool layers_have(const LayerSet *set, int layer) {
    return set->bits[layer / 64] >> layer % 64 & 1;
}

bool config_layer_slides(const Config *c, int layer) {
    return c->window && !layers_have(&c->global, layer);
}

bool config_layer_turns(const Config *c, int layer) {
    return !c->learned_positions && !layers_have(&c->still, layer);
}

int config_rotated(const Config *c) {
    return c->n_rot ? c->n_rot : c->head_dim;
}

// theta and scaling, as far as a value would divide by zero or never end.
static int check_positions(const Config *c, const char *path, char *err, size_t errlen) {
    const RopeScaling *s = &c->rope_scaling;
    int turned = config_rotated(c);
    if (c->learned_positions) return 0;
    if (turned % 2 || turned < 2 || turned > c->head_dim) {
        return fail(err, errlen,
                    "%s: head_dim: expected an even number of its %d dimensions to turn (RoPE turns pairs), found %d",
                    path, c->head_dim, turned);
    }
    if (!(c->rope_theta > 0 && isfinite(c->rope_theta) && c->rope_local_theta >= 0 && isfinite(c->rope_local_theta))) {
        return fail(err, errlen, "%s: rope_theta: expected a positive number, found %g", path, (double)c->rope_theta);
    }
    if (s->kind == ROPE_UNSCALED) return 0;
    bool sound = s->factor >= 1 && isfinite(s->factor) && s->original_ctx > 0 && s->original_ctx <= MAX_POSITIONS &&
                 s->attention_factor >= 0 && isfinite(s->attention_factor);
    if (s->kind == ROPE_LLAMA3)
        sound = sound && s->low_freq > 0 && s->high_freq > s->low_freq && isfinite(s->high_freq);
    if (s->kind == ROPE_YARN)
        sound = sound && s->beta_slow > 0 && s->beta_fast > s->beta_slow && isfinite(s->beta_fast);
    if (s->kind == ROPE_LONG || s->kind == ROPE_YARN || s->kind == ROPE_DYNAMIC) sound = sound && c->rope_theta > 1;
    if (sound) return 0;
    return fail(err, errlen,
                "%s: RoPE scaling: expected a factor >= 1, an original context, and borders in order, found factor %g, "
                "context %d",
                path, (double)s->factor, s->original_ctx);
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

int config_check(const Config *c, const char *path, char *err, size_t errlen) {
    const struct {
        const char *name;
        int value, max;
    } counts[] = {
        {"dim", c->dim, MAX_WIDTH},
        {"hidden_dim", c->hidden_dim, MAX_WIDTH},
        {"n_layers", c->n_layers, MAX_DECODER_LAYERS},
        {"n_heads", c->n_heads, MAX_WIDTH},
        {"n_kv_heads", c->n_kv_heads, MAX_WIDTH},
        {"head_dim", c->head_dim, MAX_WIDTH},
        {"vocab_size", c->vocab_size, MAX_VOCAB},
        {"seq_len", c->max_seq_len, MAX_POSITIONS},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        if (counts[i].value < 1 || counts[i].value > counts[i].max) {
            return fail(err, errlen, "%s: %s: expected 1 to %d, found %d", path, counts[i].name, counts[i].max,
                        counts[i].value);
        }
    }
    if (c->n_heads % c->n_kv_heads) {
        return fail(err, errlen, "%s: n_kv_heads: expected a divisor of n_heads = %d, found %d", path, c->n_heads,
                    c->n_kv_heads);
    }
    if ((long long)c->n_heads * c->head_dim > MAX_WIDTH) {
        return fail(err, errlen, "%s: n_heads x head_dim: expected at most %d, found %lld", path, MAX_WIDTH,
                    (long long)c->n_heads * c->head_dim);
    }
    if (check_positions(c, path, err, errlen) || check_experts(c, path, err, errlen)) return -1;
    if (c->window < 0) return fail(err, errlen, "%s: window: expected >= 0, found %d", path, c->window);
    const struct {
        const char *name;
        float value, least, most; // most 0: any
    } reals[] = {
        {"norm_eps", c->norm_eps, 1e-30f, 1},    {"attn_scale", c->attn_scale, 0, 0},
        {"attn_softcap", c->attn_softcap, 0, 0}, {"logit_softcap", c->logit_softcap, 0, 0},
        {"ffn_clamp", c->ffn_clamp, 0, 0},       {"embedding_scale", c->embedding_scale, 0, 0},
    };
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        float v = reals[i].value;
        if (v >= reals[i].least && isfinite(v) && (reals[i].most == 0 || v < reals[i].most)) continue;
        return fail(err, errlen, "%s: %s: expected %s, found %g", path, reals[i].name,
                    reals[i].most > 0 ? "between 0 and 1" : "a number, 0 or more", (double)v);
    }
    return 0;
}
