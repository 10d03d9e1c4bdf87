// inspect: prints a model's family and shape, tensors, vocabulary, and the memory that it needs and reads.
//
// Owns only the memory estimates; everything else is what the loaders and decoder_bind found, so a file that ./run
// refuses is refused here, with the same line. A vocabulary that cannot be read is reported and is not an error.
#include "cli.h"

#include "chat.h"
#include "decoder.h"
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <stb/stb_ds.h>

typedef struct {
    const char *path;
    Model model;
    Decoder decoder;
    Tokenizer *tokenizer;
    File tokenizer_file;
    const char *vocab_kind;
    int unk_id, n_byte_tokens, n_special;
    bool add_bos, add_space_prefix;
    const char *chat_family; // NULL: not known
    char no_vocab[512];      // why there is no tokenizer; "": there is
    uint64_t n_params, file_bytes;
    int n_tensors[N_DTYPES];
    uint64_t n_values[N_DTYPES], n_bytes[N_DTYPES]; // by type
} Inspection;

// ---- numbers

static void count_tensors(Inspection *x) {
    const Weights *w = &x->model.weights;
    for (size_t i = 0; i < weights_count(w); i++) {
        const Tensor *t = weights_at(w, i);
        uint64_t n = (uint64_t)tensor_count(t);
        x->n_tensors[t->dtype]++;
        x->n_values[t->dtype] += n;
        x->n_bytes[t->dtype] += tensor_bytes(t);
    }
    x->n_params = weights_params(w);
    x->file_bytes = weights_file_bytes(w);
}

static int count_windows(const Config *c) {
    int n = 0;
    for (int i = 0; i < c->n_layers; i++) n += config_kind(c, i)->window > 0;
    return n;
}

static int count_dense(const Config *c) {
    int n = 0;
    for (int i = 0; i < c->n_layers; i++) n += config_kind(c, i)->ffn == FFN_DENSE;
    return n;
}

// Of the layers with, or without, a window.
static uint64_t some_kv_token_bytes(const Config *c, KvDType kv, bool window) {
    uint64_t bytes = 0;
    for (int i = 0; i < c->n_layers; i++) {
        const LayerKind *k = config_kind(c, i);
        if ((k->window > 0) == window) bytes += (uint64_t)k->n_kv_heads * kv_token_bytes(kv, k->k_dim, k->v_dim);
    }
    return bytes;
}

static uint64_t all_kv_token_bytes(const Config *c, KvDType kv) {
    return some_kv_token_bytes(c, kv, false) + some_kv_token_bytes(c, kv, true);
}

// The maximum for n tokens, in whole blocks. With a window: the keys that the tokens of one prefill block see, in any
// alignment.
static uint64_t kv_bytes(const Config *c, KvDType kv, int n) {
    LayerKind base;
    int window = config_rules(c, &base).window, computed = PREFILL_BLOCK;
    if (count_windows(c) == c->n_layers && window < computed) computed = window > KV_BLOCK ? window : KV_BLOCK;
    uint64_t held = (uint64_t)n, seen = (uint64_t)window + (uint64_t)computed + KV_BLOCK;
    if (seen > held) seen = held;
    return ((seen + KV_BLOCK - 1) / KV_BLOCK * some_kv_token_bytes(c, kv, true) +
            (held + KV_BLOCK - 1) / KV_BLOCK * some_kv_token_bytes(c, kv, false)) *
           KV_BLOCK;
}

// The contexts of the memory estimates: 4096 tokens, if the model has more, and the model's own.
static int contexts(const Config *c, int list[2]) {
    enum { USUAL = 4096 };
    int n = 0;
    if (c->max_seq_len > USUAL) list[n++] = USUAL;
    list[n++] = c->max_seq_len;
    return n;
}

static int count_pieces(const Vocab *v, TokenType type) {
    int n = 0;
    for (ptrdiff_t i = 0; i < arrlen(v->pieces); i++) n += v->pieces[i].type == type;
    return n;
}

// path: -z, an error if it cannot be read; NULL: the model's own.
static void read_vocab(Inspection *x, const char *path) {
    Vocab v;
    if (load_vocab(&v, &x->tokenizer_file, &x->model, path, x->no_vocab, sizeof x->no_vocab)) {
        if (path) die(1, "%s", x->no_vocab);
        return;
    }
    tell_notes(v.notes.text);
    x->vocab_kind = vocab_kind_name(&v);
    x->unk_id = v.unk_id;
    x->n_byte_tokens = count_pieces(&v, TOKEN_BYTE);
    x->n_special = count_pieces(&v, TOKEN_CONTROL) + count_pieces(&v, TOKEN_USER);
    x->add_bos = !v.no_bos;
    x->add_space_prefix = v.add_space_prefix;
    x->tokenizer = tokenizer_new(&v, x->no_vocab, sizeof x->no_vocab);
    if (!x->tokenizer) return;
    char err[512];
    Chat *chat = chat_open(x->tokenizer, tokenizer_chat_template(x->tokenizer), 0, err, sizeof err);
    if (!chat) { // the model is still of use without a chat
        fprintf(stderr, "note: %s\n", err);
        return;
    }
    if (chat_info(chat).known) x->chat_family = chat_info(chat).family;
    chat_close(chat);
}

// ---- text

static void print_bytes(const char *what, uint64_t bytes) {
    printf("%-14s %.2f MiB\n", what, (double)bytes / 0x1p20);
}

static const char *architecture(const Inspection *x) {
    return x->model.family ? x->model.family->arch : "llama";
}

static const char *scaling_name(const Inspection *x) {
    static const char *const names[] = {[ROPE_UNSCALED] = "none", [ROPE_LINEAR] = "linear", [ROPE_DYNAMIC] = "dynamic",
                                        [ROPE_YARN] = "yarn",     [ROPE_LLAMA3] = "llama3", [ROPE_LONG] = "longrope"};
    LayerKind base;
    config_rules(&x->model.config, &base);
    RopeScalingKind kind = base.rope.scaling.kind;
    return kind == ROPE_UNSCALED && x->decoder.rope_factors.all ? "factors" : names[kind];
}

static const char *activation_name(const Config *c) {
    if (c->xielu) return "xIELU";
    switch (c->activation) {
    case ACT_GELU: return "gelu";
    case ACT_GELU_TANH: return "gelu (tanh)";
    case ACT_RELU: return "relu";
    case ACT_RELU_SQUARED: return "squared relu";
    case ACT_QUICK_GELU: return "quick gelu";
    default: return "silu";
    }
}

// "wwf": of each layer, window or full attention; r: recurrent, b: beside attention; -: a feed-forward network alone.
static const char *layer_pattern(const Config *c) {
    static char pattern[MAX_LAYERS + 1];
    for (int i = 0; i < c->n_layers; i++) {
        const LayerKind *k = config_kind(c, i);
        if (kind_has_state(k)) pattern[i] = kind_has_cache(k) ? 'b' : 'r';
        else pattern[i] = !kind_has_cache(k) ? '-' : k->window ? 'w' : 'f';
    }
    pattern[c->n_layers] = 0;
    return pattern;
}

static void print_latent(const LayerKind *k) {
    const LatentShape *l = &k->latent;
    printf("%-14s latent: %d heads of %d, values of %d; a latent of %d and %d rotary dimensions are cached",
           "attention", k->n_heads, kind_head_dim(k), l->value_dim, k->v_dim, k->rope.rotary_dim);
    if (l->q_rank) printf(", a latent of %d for queries", l->q_rank);
}

static const char *mixer_name(const LayerRules *rules) {
    return mixer_of(rules->mixer)->name;
}

static int count_recurrent(const Config *c) {
    int n = 0;
    for (int i = 0; i < c->n_layers; i++) n += kind_has_state(config_kind(c, i));
    return n;
}

static void print_recurrent(const Config *c) {
    LayerKind base;
    LayerRules rules = config_rules(c, &base);
    const StateShape *s = &rules.state;
    int n = count_recurrent(c);
    if (!n) return;
    printf("%-14s %s in %d of %d layers: %s\n", "recurrent", mixer_name(&rules), n, c->n_layers, layer_pattern(c));
    printf("%-14s ", "");
    if (s->n_heads) printf("%d states of %d x %d", s->n_heads, s->k_dim, s->v_dim);
    if (s->n_key_heads && s->n_key_heads < s->n_heads) printf(", %d heads of keys", s->n_key_heads);
    if (s->conv_width) printf("%s%d taps over %d channels", s->n_heads ? ", " : "", s->conv_width, s->conv_dim);
    putchar('\n');
}

static void print_attention(const Config *c) {
    LayerKind k;
    int window = config_rules(c, &k).window;
    print_recurrent(c);
    if (!kind_has_cache(&k) || k.mixer == MIX_HYENA) return;
    const char *kind = k.n_kv_heads == 1 ? "multi-query" : "grouped";
    if (k.n_kv_heads == k.n_heads) kind = "multi-head";
    if (k.mixer == MIX_LATENT) print_latent(&k);
    else printf("%-14s %s: %d query, %d key/value, of %d", "attention", kind, k.n_heads, k.n_kv_heads, k.k_dim);
    if (c->qk_norm) printf(", q and k normed%s", c->qk_norm == QK_NORM_FULL ? "" : " by head");
    if (c->attn_softcap > 0) printf(", scores capped at %g", (double)c->attn_softcap);
    if (c->attn_scale > 0) printf(", scores times %g", (double)c->attn_scale);
    if (c->learned_sinks) printf(", learned sinks");
    putchar('\n');
    if (k.blocks.size) {
        printf("%-14s of %d tokens: %d of a window, %d first, %d drawn\n", "blocks", k.blocks.size, k.blocks.window,
               k.blocks.n_global, k.blocks.n_random);
    }
    if (!window) return;
    printf("%-14s %d tokens in %d of %d layers: %s\n", "window", window, count_windows(c), c->n_layers,
           layer_pattern(c));
}

static void print_positions(const Inspection *x) {
    const Config *c = &x->model.config;
    LayerKind base;
    LayerRules rules = config_rules(c, &base);
    const RopeConfig *rope = &base.rope;
    const RopeScaling *s = &rope->scaling;
    int n_nope = 0;
    if (c->learned_positions) {
        printf("%-14s learned\n", "positions");
        return;
    }
    if (c->alibi_max > 0) {
        printf("%-14s ALiBi, slopes down to 2^-%g\n", "positions", (double)c->alibi_max);
        return;
    }
    if (base.mixer == MIX_HYENA) {
        printf("%-14s filters of %d\n", "positions", c->max_seq_len);
        return;
    }
    if (!kind_has_cache(&base)) {
        printf("%-14s none\n", "positions");
        return;
    }
    for (int i = 0; i < c->n_layers; i++) n_nope += layers_have(&rules.nope, i);
    printf("%-14s theta %g", "RoPE", (double)rope->theta);
    if (rules.window_theta > 0) printf(" (with a window %g)", (double)rules.window_theta);
    printf(", %s", rope->pairing == ROPE_INTERLEAVED ? "interleaved" : "half rotation");
    int head = kind_head_dim(&base);
    const char *where = base.mixer == MIX_LATENT ? "last" : "first";
    if (rope->rotary_dim < head) printf(", the %s %d of %d", where, rope->rotary_dim, head);
    if (n_nope) printf(", not in %d of %d layers", n_nope, c->n_layers);
    if (s->kind) printf(", %s scaling by %g from %d", scaling_name(x), (double)s->factor, s->original_ctx);
    else if (x->decoder.rope_factors.all) printf(", scaled by the file's factors");
    putchar('\n');
}

static void print_layers(const Config *c) {
    printf("%-14s %s, eps %g%s%s%s\n", "norms", c->layer_norm ? "LayerNorm" : "RMS", (double)c->norm_eps,
           c->no_pre_norm ? ", none before" : "", c->post_norm ? ", after each sublayer" : "",
           c->parallel ? ", both sublayers read the same" : "");
    printf("%-14s %s, %s", "feed-forward", c->plain_ffn ? "plain" : "gated", activation_name(c));
    if (c->n_experts) printf(", %d experts of %d, %d a token", c->n_experts, config_expert_dim(c), c->n_experts_used);
    if (c->n_expert_groups > 1) printf(" in %d of %d groups", c->n_groups_used, c->n_expert_groups);
    if (c->router_sigmoid) printf(" by sigmoids");
    if (c->shared_dim) printf(", one of %d for all", c->shared_dim);
    int dense = count_dense(c);
    if (c->n_experts && dense) printf(", none in %d of %d layers", dense, c->n_layers);
    putchar('\n');
}

static void print_tokenizer(const Inspection *x) {
    const Tokenizer *t = x->tokenizer;
    if (!t) {
        printf("%-14s none: %s\n", "tokenizer", x->no_vocab);
        return;
    }
    printf("%-14s %s, bos %d%s, eos %d, unk %d, %d byte tokens, %d special\n", "tokenizer", x->vocab_kind,
           tokenizer_bos(t), x->add_bos ? "" : " (not put first)", tokenizer_eos(t), x->unk_id, x->n_byte_tokens,
           x->n_special);
    printf("%-14s", "answers end");
    for (int id = 0; id < tokenizer_size(t); id++) {
        const Piece *p = tokenizer_piece(t, id);
        if (tokenizer_is_end(t, id)) printf(" %d (%.*s)", id, p->len, p->text);
    }
    const char *template = tokenizer_chat_template(t);
    printf("\n%-14s ", "chat template");
    if (!template) printf("none\n");
    else printf("%zu bytes, %s\n", strlen(template), x->chat_family ? x->chat_family : "of no known family");
}

static void print_head(const Inspection *x) {
    const Config *c = &x->model.config;
    printf("%-14s %s\n", "file", x->path);
    printf("%-14s %s, %s\n", "kind", x->model.kind, architecture(x));
    printf("%-14s %d wide, feed-forward %d, %d layers\n", "shape", c->dim, c->hidden_dim, c->n_layers);
    print_attention(c);
    print_positions(x);
    print_layers(c);
    printf("%-14s %d tokens, %s classifier", "vocabulary", c->vocab_size, c->tied ? "tied" : "separate");
    if (c->logit_softcap > 0) printf(", logits capped at %g", (double)c->logit_softcap);
    printf("\n%-14s %d\n", "context", c->max_seq_len);
    printf("%-14s %llu (%.2f M)\n", "parameters", (unsigned long long)x->n_params, (double)x->n_params * 1e-6);
    print_tokenizer(x);
}

static void print_memory(const Inspection *x) {
    const Config *c = &x->model.config;
    int list[2], n = contexts(c, list);
    putchar('\n');
    print_bytes("file size", x->file_bytes);
    print_bytes("read a token", x->decoder.token_bytes);
    printf("%-14s %llu bytes as bf16, %llu as f32, %llu as q8\n", "KV a token",
           (unsigned long long)all_kv_token_bytes(c, KV_DTYPE_BF16),
           (unsigned long long)all_kv_token_bytes(c, KV_DTYPE_F32),
           (unsigned long long)all_kv_token_bytes(c, KV_DTYPE_Q8));
    if (count_recurrent(c)) {
        printf("%-14s %.2f MiB at any length, checkpoints included\n", "states",
               (double)config_state_bytes(c) / 0x1p20);
    }
    if (count_windows(c)) {
        printf("%-14s as bf16: %llu in full layers, %llu in those with a window\n", "",
               (unsigned long long)some_kv_token_bytes(c, KV_DTYPE_BF16, false),
               (unsigned long long)some_kv_token_bytes(c, KV_DTYPE_BF16, true));
    }
    for (int i = 0; i < n; i++) {
        uint64_t fixed = x->file_bytes + config_state_bytes(c);
        printf("%-14s %.1f MiB at %d tokens (KV %.1f as bf16; as f32 %.1f, as q8 %.1f)\n", i ? "" : "memory",
               (double)(fixed + kv_bytes(c, KV_DTYPE_BF16, list[i])) / 0x1p20, list[i],
               (double)kv_bytes(c, KV_DTYPE_BF16, list[i]) / 0x1p20,
               (double)kv_bytes(c, KV_DTYPE_F32, list[i]) / 0x1p20, (double)kv_bytes(c, KV_DTYPE_Q8, list[i]) / 0x1p20);
    }
}

static void print_tensors(const Inspection *x) {
    const Weights *w = &x->model.weights;
    printf("\n| tensor | type | shape | bytes |\n|---|---|---|---:|\n");
    for (size_t i = 0; i < weights_count(w); i++) {
        const Tensor *t = weights_at(w, i);
        printf("| %s | %s | ", w->table[i].key, dtype_name(t->dtype));
        for (int d = 0; d < t->n_dims; d++) printf("%s%lld", d ? " x " : "", (long long)t->shape[d]);
        printf(" | %llu |\n", (unsigned long long)tensor_bytes(t));
    }
    printf("\n| type | tensors | values | bytes | bits a value |\n|---|---:|---:|---:|---:|\n");
    for (int d = 0; d < N_DTYPES; d++) {
        if (!x->n_tensors[d]) continue;
        printf("| %s | %d | %llu | %llu | %.2f |\n", dtype_name((DType)d), x->n_tensors[d],
               (unsigned long long)x->n_values[d], (unsigned long long)x->n_bytes[d],
               8 * (double)x->n_bytes[d] / (double)x->n_values[d]);
    }
}

// ---- JSON

// NULL where the text is not UTF-8.
static json_t *text_or_null(const char *text) {
    json_t *s = json_string(text);
    return s ? s : json_null();
}

static json_t *shape_json(const Config *c) {
    LayerKind k;
    int window = config_rules(c, &k).window;
    json_t *o =
        json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b}", "dim", c->dim, "hidden_dim", c->hidden_dim,
                  "n_layers", c->n_layers, "n_heads", k.n_heads, "n_kv_heads", k.n_kv_heads, "head_dim", k.k_dim,
                  "vocab_size", c->vocab_size, "context", c->max_seq_len, "window", window, "tied", c->tied);
    json_object_set_new(o, "rope_theta", json_real((double)k.rope.theta));
    json_object_set_new(o, "norm_eps", json_real((double)c->norm_eps));
    return o;
}

static const char *positions_name(const Config *c) {
    LayerKind base;
    config_rules(c, &base);
    if (!kind_has_cache(&base)) return "none";
    return c->learned_positions ? "learned" : c->alibi_max > 0 ? "ALiBi" : "RoPE";
}

// Null: no layer is recurrent.
static json_t *recurrent_json(const Config *c) {
    LayerKind base;
    LayerRules rules = config_rules(c, &base);
    const StateShape *s = &rules.state;
    if (!count_recurrent(c)) return json_null();
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "mixer", mixer_name(&rules), "layers",
                     count_recurrent(c), "n_heads", s->n_heads, "n_key_heads", s->n_key_heads, "k_dim", s->k_dim,
                     "v_dim", s->v_dim, "conv_width", s->conv_width, "conv_dim", s->conv_dim);
}

// What families differ in.
static json_t *family_json(const Inspection *x) {
    static const char *const qk_norms[] = {"none", "head", "full", "own", "bare"};
    const Config *c = &x->model.config;
    LayerKind base;
    config_rules(c, &base);
    json_t *o = json_pack("{s:s, s:s, s:b, s:s, s:s, s:b, s:b, s:b, s:b}", "layers", layer_pattern(c), "qk_norm",
                          qk_norms[c->qk_norm], "learned_sinks", c->learned_sinks, "positions", positions_name(c),
                          "activation", activation_name(c), "gated", !c->plain_ffn, "layer_norm", c->layer_norm,
                          "post_norm", c->post_norm, "parallel", c->parallel);
    json_object_set_new(o, "recurrent", recurrent_json(c));
    json_object_set_new(o, "n_rot",
                        strcmp(positions_name(c), "RoPE") != 0 ? json_null() : json_integer(base.rope.rotary_dim));
    json_object_set_new(o, "rope_scaling", json_string(scaling_name(x)));
    json_object_set_new(o, "rope_factor", json_real((double)base.rope.scaling.factor));
    json_object_set_new(o, "attn_softcap", json_real((double)c->attn_softcap));
    json_object_set_new(o, "logit_softcap", json_real((double)c->logit_softcap));
    json_object_set_new(o, "n_experts", json_integer(c->n_experts));
    json_object_set_new(o, "n_experts_used", json_integer(c->n_experts_used));
    json_object_set_new(o, "shared_dim", json_integer(c->shared_dim));
    return o;
}

static json_t *tokenizer_json(const Inspection *x) {
    const Tokenizer *t = x->tokenizer;
    if (!t) return json_null();
    json_t *ends = json_array();
    const char *template = tokenizer_chat_template(t);
    for (int id = 0; id < tokenizer_size(t); id++) {
        if (tokenizer_is_end(t, id)) json_array_append_new(ends, json_integer(id));
    }
    return json_pack("{s:s, s:i, s:i, s:i, s:b, s:b, s:i, s:i, s:o, s:I, s:s?}", "kind", x->vocab_kind, "bos_id",
                     tokenizer_bos(t), "eos_id", tokenizer_eos(t), "unk_id", x->unk_id, "add_bos", x->add_bos,
                     "add_space_prefix", x->add_space_prefix, "byte_tokens", x->n_byte_tokens, "special_tokens",
                     x->n_special, "end_ids", ends, "chat_template_bytes",
                     (json_int_t)(template ? strlen(template) : 0), "chat_family", x->chat_family);
}

static json_t *tensors_json(const Weights *w) {
    json_t *list = json_array();
    for (size_t i = 0; i < weights_count(w); i++) {
        const Tensor *t = weights_at(w, i);
        json_t *shape = json_array();
        for (int d = 0; d < t->n_dims; d++) json_array_append_new(shape, json_integer(t->shape[d]));
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:o, s:I}", "name", w->table[i].key, "dtype", dtype_name(t->dtype),
                                        "shape", shape, "bytes", (json_int_t)tensor_bytes(t)));
    }
    return list;
}

static json_t *dtypes_json(const Inspection *x) {
    json_t *list = json_array();
    for (int d = 0; d < N_DTYPES; d++) {
        if (!x->n_tensors[d]) continue;
        json_array_append_new(list, json_pack("{s:s, s:i, s:I, s:I}", "dtype", dtype_name((DType)d), "tensors",
                                              x->n_tensors[d], "values", (json_int_t)x->n_values[d], "bytes",
                                              (json_int_t)x->n_bytes[d]));
    }
    return list;
}

static json_t *memory_json(const Inspection *x) {
    const Config *c = &x->model.config;
    json_t *list = json_array();
    int at[2], n = contexts(c, at);
    for (int i = 0; i < n; i++) {
        json_t *o = json_pack("{s:i}", "context", at[i]);
        for (KvDType kv = KV_DTYPE_BF16; kv_dtype_name(kv); kv++) {
            json_t *sizes = json_pack("{s:I, s:I}", "kv_bytes", (json_int_t)kv_bytes(c, kv, at[i]), "total_bytes",
                                      (json_int_t)(x->file_bytes + config_state_bytes(c) + kv_bytes(c, kv, at[i])));
            json_object_set_new(o, kv_dtype_name(kv), sizes);
        }
        json_array_append_new(list, o);
    }
    return list;
}

static void print_json(const Inspection *x) {
    const Config *c = &x->model.config;
    json_t *o = json_object();
    json_object_set_new(o, "file", text_or_null(x->path));
    json_object_set_new(o, "kind", json_string(x->model.kind));
    json_object_set_new(o, "architecture", json_string(architecture(x)));
    json_object_set_new(o, "shape", shape_json(c));
    json_object_set_new(o, "family", family_json(x));
    json_object_set_new(o, "n_params", json_integer((json_int_t)x->n_params));
    json_object_set_new(o, "model_bytes", json_integer((json_int_t)x->file_bytes));
    json_object_set_new(o, "token_bytes", json_integer((json_int_t)x->decoder.token_bytes));
    json_object_set_new(o, "kv_token_bytes_bf16", json_integer((json_int_t)all_kv_token_bytes(c, KV_DTYPE_BF16)));
    json_object_set_new(o, "kv_token_bytes_f32", json_integer((json_int_t)all_kv_token_bytes(c, KV_DTYPE_F32)));
    json_object_set_new(o, "kv_token_bytes_q8", json_integer((json_int_t)all_kv_token_bytes(c, KV_DTYPE_Q8)));
    json_object_set_new(o, "state_bytes", json_integer((json_int_t)config_state_bytes(c)));
    json_object_set_new(o, "n_window_layers", json_integer(count_windows(c)));
    json_object_set_new(o, "memory", memory_json(x));
    json_object_set_new(o, "tokenizer", tokenizer_json(x));
    json_object_set_new(o, "dtypes", dtypes_json(x));
    json_object_set_new(o, "tensors", tensors_json(&x->model.weights));
    json_dumpf(o, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(7));
    putchar('\n');
    json_decref(o);
}

int main(int argc, char **argv) {
    static Inspection x;
    static const char *tokenizer;
    static int json;
    char err[512];
    const Flag flags[] = {
        MODEL_FLAG(&x.path),
        FORMAT_FLAG(&json, "text json", "text: tables; json: one object (default: text)"),
        TOKENIZER_FLAG(&tokenizer),
    };
    const Program program = {"build/inspect", "MODEL [options]",
                             "  MODEL: a .gguf, a Hugging Face folder or llama2.c's .bin\n", flags,
                             sizeof flags / sizeof *flags};
    cli_one_model(&program, argc, argv, &x.path);
    file_guard_shrinking();
    if (load_model(&x.model, x.path, err, sizeof err)) die(1, "%s", err);
    if (decoder_bind(&x.decoder, &x.model, err, sizeof err)) die(1, "%s", err);
    tell_notes(x.model.notes.text);
    read_vocab(&x, tokenizer);
    count_tensors(&x);
    if (json) print_json(&x);
    else {
        print_head(&x);
        print_memory(&x);
        print_tensors(&x);
    }
    tokenizer_free(x.tokenizer);
    file_unmap(&x.tokenizer_file);
    decoder_free(&x.decoder);
    weights_free(&x.model.weights);
    return 0;
}
