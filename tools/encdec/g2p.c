// g2p: see g2p.h.
#include "g2p.h"

#include <math.h>
#include <string.h>

enum { N_SPECIAL = 4 };

static Config read_side(Settings *s, bool pre_norm, const char *layers, const char *heads, const char *hidden) {
    Config c = {.dim = settings_int(s, "d_model", 1, MAX_WIDTH, 0),
                .hidden_dim = settings_int(s, hidden, 1, MAX_WIDTH, 0),
                .n_layers = settings_int(s, layers, 1, MAX_LAYERS, 0),
                .vocab_size = settings_int(s, "vocab_size", N_SPECIAL + 1, MAX_VOCAB, 0),
                .max_seq_len = settings_int(s, "max_position_embeddings", 2, MAX_POSITIONS, 0),
                .learned_positions = true,
                .layer_norm = true,
                .norm_eps = 1e-5f,
                .no_pre_norm = !pre_norm,
                .residual_norm = !pre_norm,
                .activation = load_activation(s, "activation_function"),
                .plain_ffn = true,
                .qkv_bias = true,
                .out_bias = true,
                .ffn_bias = true,
                .tied = settings_bool(s, "tie_word_embeddings", true),
                .fp32_products = true};
    load_heads(s, &c, heads, 0);
    c.embedding_scale = settings_bool(s, "scale_embedding", false) ? sqrtf((float)c.dim) : 1;
    if (!s->failed && config_check(&c, s->path, s->err, s->errlen)) s->failed = true;
    return c;
}

static void read_ids(Seq2seq *m, Settings *s) {
    const struct {
        const char *key;
        int *slot, fallback;
    } ids[] = {{"bos_token_id", &m->bos_id, 0},
               {"pad_token_id", &m->pad_id, 1},
               {"eos_token_id", &m->eos_id, 2},
               {"unk_token_id", &m->unk_id, 3},
               {"decoder_start_token_id", &m->start_id, 2}};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        *ids[i].slot = settings_int(s, ids[i].key, 0, N_SPECIAL - 1, ids[i].fallback);
    }
}

static int open_model(G2p *g, Settings *s, const char *path) {
    const char *type = settings_string(s, "model_type", NULL);
    bool mbart = !strcmp(type, "mbart");
    if (!mbart && strcmp(type, "bart") != 0) {
        settings_fail(s, "model_type", "expected bart or mbart, found '%.40s'", type);
    }
    read_ids(&g->model, s);
    const char *language = json_string_value(json_object_get(s->object, "language"));
    g->english = language && !strncmp(language, "en", 2) && (!language[2] || language[2] == '-' || language[2] == '_');
    Config encoder = read_side(s, mbart, "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim");
    Config decoder = read_side(s, mbart, "decoder_layers", "decoder_attention_heads", "decoder_ffn_dim");
    encoder.bidirectional = true;
    decoder.cross = true;
    if (s->failed || symbols_load(&g->graphemes, s, "graphemes", "grapheme_chars", decoder.vocab_size, N_SPECIAL) ||
        symbols_load(&g->phonemes, s, "phonemes", "phoneme_chars", decoder.vocab_size, N_SPECIAL)) {
        return -1;
    }
    if (load_safetensors(&g->weights, path, s->err, s->errlen)) return -1;
    return seq2seq_bind(&g->model, &encoder, &decoder, &g->weights, s->err, s->errlen);
}

int g2p_open(G2p *g, const char *path, char *err, size_t errlen) {
    memset(g, 0, sizeof *g);
    Settings s;
    if (load_config(&s, path, err, errlen)) return -1;
    int rc = open_model(g, &s, path);
    settings_free(&s);
    if (rc) g2p_close(g);
    return rc;
}

void g2p_close(G2p *g) {
    seq2seq_free(&g->model);
    symbols_free(&g->graphemes);
    symbols_free(&g->phonemes);
    weights_free(&g->weights);
    memset(g, 0, sizeof *g);
}
