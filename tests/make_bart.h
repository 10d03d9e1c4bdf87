// make_bart.h: small encoder-decoders with random weights, as a folder and opened; words through them.
#pragma once
#include "make_model.h"

#include "pronounce.h"

#include <stb/stb_ds.h>

typedef struct {
    char name[WORD_ROOM], type[WORD_ROOM], act[WORD_ROOM];
    int vocab, dim, encoder_layers, decoder_layers, encoder_heads, decoder_heads, encoder_ffn, decoder_ffn, longest;
    bool scale, tied, output_bias;
    int mute;            // ids below it but the end token are made unlikely outputs
    const char *symbols; // of config.json; NULL: letters and pairs of capitals
} Case;

// clang-format off
UNUSED static const Case small = {.name = "small", .type = "mbart", .act = "gelu", .vocab = 30, .dim = 16,
    .encoder_layers = 2, .decoder_layers = 2, .encoder_heads = 2, .decoder_heads = 4, .encoder_ffn = 24,
    .decoder_ffn = 20, .longest = 20, .tied = true, .output_bias = true, .mute = 4};
// clang-format on

// A model with names for its letters and phonemes, as dictionaries spell them; all that it says is phonemes.
#define LETTERS                                                                                                        \
    "\"graphemes\":{\"<s>\":1,\"a\":4,\"b\":5,\"c\":6,\"d\":7,\"e\":8,\"f\":9,\"g\":10,\"h\":11,\"i\":12,\"j\":13,"    \
    "\"k\":14,\"l\":15,\"m\":16,\"n\":17,\"o\":18,\"p\":19,\"q\":20,\"r\":21,\"s\":22,\"t\":23,\"u\":24,\"v\":25,"     \
    "\"w\":26,\"x\":27,\"y\":28,\"z\":29,\"'\":30,\"-\":31,\".\":32,\"\xc3\xa9\":33,\"Z\":34},"
#define STRESSES "\"phonemes\":{\"AH0\":35,\"AH1\":36,\"AH2\":37,\"B\":38,\"K\":39}"

// clang-format off
UNUSED static const Case lettered = {.name = "lettered", .type = "mbart", .act = "gelu", .vocab = 40, .dim = 8,
    .encoder_layers = 1, .decoder_layers = 1, .encoder_heads = 2, .decoder_heads = 2, .encoder_ffn = 8,
    .decoder_ffn = 8, .longest = 40, .tied = true, .output_bias = true, .mute = 35, .symbols = LETTERS STRESSES};
// clang-format on

enum { AH0 = 35, AH1, AH2, B, K }; // its phonemes

// ---- the folder

static void put_side(FolderMaker *m, const Case *c, bool decoder) {
    static const char *const parts[] = {"q_proj", "k_proj", "v_proj", "out_proj"};
    const char *side = decoder ? "decoder" : "encoder";
    int dim = c->dim, ffn = decoder ? c->decoder_ffn : c->encoder_ffn;
    char prefix[64], name[96];
    snprintf(name, sizeof name, "model.%s.embed_positions.weight", side);
    put(m, name, c->longest + 2, dim);
    put_dense(m, dim, 0, true, "model.%s.layernorm_embedding", side);
    for (int i = 0; i < (decoder ? c->decoder_layers : c->encoder_layers); i++) {
        snprintf(prefix, sizeof prefix, "model.%s.layers.%d", side, i);
        for (int cross = 0; cross <= decoder; cross++) {
            const char *kind = cross ? "encoder_attn" : "self_attn";
            for (int p = 0; p < 4; p++) put_dense(m, dim, dim, true, "%s.%s.%s", prefix, kind, parts[p]);
            put_dense(m, dim, 0, true, "%s.%s_layer_norm", prefix, kind);
        }
        put_dense(m, ffn, dim, true, "%s.fc1", prefix);
        put_dense(m, dim, ffn, true, "%s.fc2", prefix);
        put_dense(m, dim, 0, true, "%s.final_layer_norm", prefix);
    }
    if (!strcmp(c->type, "mbart")) put_dense(m, dim, 0, true, "model.%s.layer_norm", side);
}

static void write_weights(const Case *c, Fault fault) {
    FolderMaker m = {.fault = fault, .mute = c->mute};
    maker_open(&m);
    put(&m, "model.shared.weight", c->vocab, c->dim);
    if (c->output_bias) put(&m, "final_logits_bias", 1, c->vocab);
    if (!c->tied) put(&m, "lm_head.weight", c->vocab, c->dim);
    put_side(&m, c, false);
    put_side(&m, c, true);
    maker_close(&m);
}

// Letters a, b, ... from id 4 and, on the same ids, phonemes AE, AF, ... (none ends in a digit).
static void print_symbols(FILE *f, int vocab) {
    for (int table = 0; table < 2; table++) {
        fprintf(f, "%s\"%s\":{", table ? "," : "", table ? "phonemes" : "graphemes");
        for (int id = 4; id < (table || vocab < 30 ? vocab : 30); id++) {
            if (table) fprintf(f, "%s\"%c%c\":%d", id > 4 ? "," : "", 'A' + id / 26, 'A' + id % 26, id);
            else fprintf(f, "%s\"%c\":%d", id > 4 ? "," : "", 'a' + id - 4, id);
        }
        fputc('}', f);
    }
}

static char *config_text(const Case *c) {
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    fprintf(f,
            "{\"model_type\":\"%s\",\"vocab_size\":%d,\"d_model\":%d,\"encoder_layers\":%d,\"decoder_layers\":%d,"
            "\"encoder_attention_heads\":%d,\"decoder_attention_heads\":%d,\"encoder_ffn_dim\":%d,"
            "\"decoder_ffn_dim\":%d,\"activation_function\":\"%s\",\"max_position_embeddings\":%d,"
            "\"scale_embedding\":%s,\"tie_word_embeddings\":%s,\"bos_token_id\":1,\"eos_token_id\":2,"
            "\"pad_token_id\":0,\"unk_token_id\":3,\"decoder_start_token_id\":2,",
            c->type, c->vocab, c->dim, c->encoder_layers, c->decoder_layers, c->encoder_heads, c->decoder_heads,
            c->encoder_ffn, c->decoder_ffn, c->act, c->longest, c->scale ? "true" : "false",
            c->tied ? "true" : "false");
    if (c->symbols) fputs(c->symbols, f);
    else print_symbols(f, c->vocab);
    fputc('}', f);
    fclose(f);
    return text;
}

static void write_config(const Case *c) {
    char *config = config_text(c);
    write_text("config.json", config);
    free(config);
}

UNUSED static void write_model(const Case *c) {
    write_weights(c, (Fault){0});
    write_config(c);
}

// ---- opened

UNUSED static bool open_model(G2p *m, const Case *c) {
    char err[512] = "";
    write_model(c);
    bool open = !g2p_open(m, folder, err, sizeof err);
    CHECK(open, "%s: %s", c->name, err);
    return open;
}

UNUSED static Seq2seqState open_state(const Seq2seq *m, int n_threads) {
    char err[512] = "";
    Seq2seqState s;
    if (!seq2seq_state_open(&s, m, n_threads, err, sizeof err)) return s;
    fprintf(stderr, "%s\n", err);
    exit(1);
}

// ---- words

UNUSED static void add_word(Word **list, const G2p *m, const char *text) {
    char err[512] = "";
    CHECK(!words_add(list, m, text, strlen(text), err, sizeof err), "%s", err);
}

UNUSED static Decoded *pronounce_all(const G2p *m, const Word *words, int n, int n_threads, int n_beams) {
    char err[512] = "";
    Pronouncer p;
    Decoded *out = need(sizeof *out * (size_t)(n + 1));
    int max_new = m->model.max_tokens - 2;
    bool open = !pronouncer_open(&p, m, n_threads, n_beams, max_new, err, sizeof err);
    CHECK(open && !pronounce(&p, words, n, out, err, sizeof err), "%s", err);
    if (open) pronouncer_close(&p);
    return out;
}

UNUSED static void free_outputs(Decoded *out, int n) {
    for (int i = 0; i < n; i++) decoded_free(&out[i]);
    free(out);
}
