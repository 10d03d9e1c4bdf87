// config: see config.h.
#include "config.h"

#include "file.h"

#include <math.h>

enum { MAX_WIDTH = 1 << 20, MAX_LAYERS = 4096, MAX_VOCAB = 1 << 24, MAX_POSITIONS = 1 << 28 };

int config_check(const Config *c, const char *path, char *err, size_t errlen) {
    const struct {
        const char *name;
        int value, max;
    } counts[] = {
        {"dim", c->dim, MAX_WIDTH},
        {"hidden_dim", c->hidden_dim, MAX_WIDTH},
        {"n_layers", c->n_layers, MAX_LAYERS},
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
    if (c->head_dim % 2) {
        return fail(err, errlen, "%s: head_dim: expected an even number (RoPE turns pairs), found %d", path,
                    c->head_dim);
    }
    if ((long long)c->n_heads * c->head_dim > MAX_WIDTH) {
        return fail(err, errlen, "%s: n_heads x head_dim: expected at most %d, found %lld", path, MAX_WIDTH,
                    (long long)c->n_heads * c->head_dim);
    }
    if (c->window < 0 || c->n_sinks < 0) return fail(err, errlen, "%s: window, sinks: expected >= 0", path);
    if (!(c->norm_eps > 0 && c->norm_eps < 1)) {
        return fail(err, errlen, "%s: norm_eps: expected between 0 and 1, found %g", path, (double)c->norm_eps);
    }
    if (!(c->rope_theta > 0 && isfinite(c->rope_theta))) {
        return fail(err, errlen, "%s: rope_theta: expected a positive number, found %g", path, (double)c->rope_theta);
    }
    return 0;
}
