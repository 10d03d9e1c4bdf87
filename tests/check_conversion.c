// check_conversion: quantize from Hugging Face folders of every family: the GGUF says the same as the folder.
//
//   build/tests/check_conversion [NAME...]    all fixtures, or these
//
// As F32 the logits are those of the folder but for the rounding of sums, and the Config that load_gguf reads is the
// folder's; the other types move them as far as they round. TESSERA_KEEP=DIR keeps the F32 files there, for other
// engines.
#include "child.h"

#include "load.h"
#include "make_bin.h"
#include "make_family.h"

#include <math.h>

#include <stb/stb_ds.h>

#define TOKENIZER BIN_DIR "conversion.tokenizer.bin"

// What GGUF has no word for, and all the others must pass.
static const struct {
    const char *name, *what;
} beyond[] = {{"gemma2_scalar", "the scale of the attention scores"},
              {"gemma3_types", "which layers have a window"},
              {"deepseek_v3_plain", "YaRN's magnitude and the scale"},
              {"minicpm3_scales", "scales of embedding, depth and logits"},
              {"llama_dynamic", "dynamic RoPE scaling"},
              {"mamba2_limits", "limits of the step sizes"},
              {"phimoe_long", "a router_jitter_noise that differs"},
              {"llama4_lists", "which layers have experts, or norms"},
              {"falcon_mamba", "an eps of its own"},
              {"falcon_h1", "multipliers that are not part of the weights"},
              {"falcon_h1_norm", "multipliers that are not part of the weights"},
              {"falcon_h1_gate", "multipliers that are not part of the weights"},
              {"rwkv6_narrow", "norms or heads of RWKV"},
              {"gla", "layers of kind linear attention"},
              {"retnet", "layers of kind linear attention"},
              {"gla_hybrid", "layers of kind linear attention"},
              {"retnet_hybrid", "layers of kind linear attention"},
              {"linear_attn", "layers of kind linear attention"},
              {"linear_elu", "layers of kind linear attention"},
              {"linear_hedgehog", "layers of kind linear attention"},
              {"linear_t2r", "layers of kind linear attention"},
              {"linear_relu", "layers of kind linear attention"},
              {"performer", "layers of kind linear attention"},
              {"performer_nope", "layers of kind linear attention"},
              {"hyena", "layers of kind Hyena"},
              {"hyena_narrow", "layers of kind Hyena"},
              {"bigbird_causal", "layers of kind attention in blocks"},
              {"bigbird_window", "layers of kind attention in blocks"},
              {"llama_yarn_factor", "the rounding of YaRN's range"},
              {"smollm3_interval", "which layers have rotary positions"},
              {"smollm3_list", "which layers have rotary positions"}};

static const char *refusal(const Fixture *f) {
    for (int i = 0; i < N_OF(beyond); i++) {
        if (!strcmp(f->name, beyond[i].name)) return beyond[i].what;
    }
    return NULL;
}

// ---- the shape

static float score_scale(const Config *c) {
    LayerKind base;
    config_rules(c, &base);
    if (!kind_has_cache(&base)) return 1; // no scores
    return c->attn_scale > 0 ? c->attn_scale : 1 / sqrtf((float)kind_head_dim(&base));
}

static Activation activation(const Config *c) {
    return c->activation ? c->activation : ACT_SILU;
}

static void same_layers(const Config *a, const Config *b, const char *what) {
    for (int i = 0; i < a->n_layers; i++) {
        const LayerKind *k = config_kind(a, i), *l = config_kind(b, i);
        CHECK(k->mixer == l->mixer && k->ffn == l->ffn, "%s: layer %d: mixer, experts", what, i);
        CHECK(k->n_heads == l->n_heads && k->n_kv_heads == l->n_kv_heads, "%s: layer %d: heads", what, i);
        CHECK(k->k_dim == l->k_dim && k->v_dim == l->v_dim, "%s: layer %d: widths of heads", what, i);
        CHECK(!memcmp(&k->latent, &l->latent, sizeof k->latent), "%s: layer %d: latent attention", what, i);
        CHECK(k->window == l->window, "%s: layer %d: window", what, i);
        CHECK(!memcmp(&k->state, &l->state, sizeof k->state), "%s: layer %d: state", what, i);
        CHECK(k->rope.rotary_dim == l->rope.rotary_dim, "%s: layer %d: rotary dimension", what, i);
        CHECK(k->rope.theta == l->rope.theta, "%s: layer %d: theta", what, i);
    }
}

// Scaling by wavelength and the pairing are told by tensors and by the order of rows.
static void same_positions(const Config *a, const Config *b, const char *what) {
    LayerKind base_a, base_b;
    CHECK(a->learned_positions == b->learned_positions, "%s: positions", what);
    config_rules(a, &base_a);
    config_rules(b, &base_b);
    const RopeScaling *s = &base_a.rope.scaling, *t = &base_b.rope.scaling;
    RopeScalingKind kind = s->kind == ROPE_LLAMA3 ? ROPE_UNSCALED : s->kind;
    CHECK(kind == t->kind, "%s: scaling %d, found %d", what, (int)kind, (int)t->kind);
    if (kind == ROPE_UNSCALED) return;
    CHECK(s->factor == t->factor && s->original_ctx == t->original_ctx, "%s: factor, context", what);
    if (kind != ROPE_YARN) return;
    CHECK(s->beta_fast == t->beta_fast && s->beta_slow == t->beta_slow, "%s: betas", what);
    CHECK(s->whole_dims == t->whole_dims, "%s: truncate", what);
    CHECK(fabsf(s->attention_factor - t->attention_factor) < 1e-6f, "%s: attention factor", what);
}

static void same_numbers(const Config *a, const Config *b, const char *what) {
    const double x[] = {a->dim,
                        a->hidden_dim,
                        a->n_layers,
                        a->vocab_size,
                        a->max_seq_len,
                        a->qk_norm,
                        a->learned_sinks,
                        a->layer_norm,
                        a->no_pre_norm,
                        a->post_norm,
                        a->parallel,
                        activation(a),
                        a->plain_ffn,
                        a->n_experts,
                        a->n_experts_used,
                        a->experts_keep_softmax,
                        config_expert_dim(a),
                        a->router_sigmoid,
                        a->router_choice_bias,
                        a->n_expert_groups > 1 ? a->n_expert_groups : 0,
                        a->n_expert_groups > 1 ? a->n_groups_used : 0,
                        a->experts_scale,
                        a->shared_dim,
                        a->shared_ungated,
                        a->qkv_bias,
                        a->out_bias,
                        a->ffn_bias,
                        a->router_bias,
                        a->tied,
                        a->norm_eps,
                        a->attn_softcap,
                        a->logit_softcap,
                        a->embedding_scale,
                        (double)a->ffn_clamp};
    const double y[] = {b->dim,
                        b->hidden_dim,
                        b->n_layers,
                        b->vocab_size,
                        b->max_seq_len,
                        b->qk_norm,
                        b->learned_sinks,
                        b->layer_norm,
                        b->no_pre_norm,
                        b->post_norm,
                        b->parallel,
                        activation(b),
                        b->plain_ffn,
                        b->n_experts,
                        b->n_experts_used,
                        b->experts_keep_softmax,
                        config_expert_dim(b),
                        b->router_sigmoid,
                        b->router_choice_bias,
                        b->n_expert_groups > 1 ? b->n_expert_groups : 0,
                        b->n_expert_groups > 1 ? b->n_groups_used : 0,
                        b->experts_scale,
                        b->shared_dim,
                        b->shared_ungated,
                        b->qkv_bias,
                        b->out_bias,
                        b->ffn_bias,
                        b->router_bias,
                        b->tied,
                        b->norm_eps,
                        b->attn_softcap,
                        b->logit_softcap,
                        b->embedding_scale,
                        (double)b->ffn_clamp};
    for (int i = 0; i < N_OF(x); i++) CHECK(x[i] == y[i], "%s: number %d: expected %g, found %g", what, i, x[i], y[i]);
    CHECK(fabsf(score_scale(a) / score_scale(b) - 1) < 1e-6f, "%s: scale", what);
}

static void same_config(const char *before, const char *after, const char *what) {
    char err[512] = "";
    Model a, b;
    int rc = load_model(&a, before, err, sizeof err);
    NEED(!rc, "%s", err);
    rc = load_model(&b, after, err, sizeof err);
    CHECK(!rc, "%s", err);
    if (!rc) {
        const char *other = a.config.n_experts ? a.family->expert_arch : NULL;
        CHECK(!strcmp(other ? other : a.family->arch, b.family->arch), "%s: %s", what, b.family->arch);
        same_numbers(&a.config, &b.config, what);
        same_positions(&a.config, &b.config, what);
        same_layers(&a.config, &b.config, what);
        weights_free(&b.weights);
    }
    weights_free(&a.weights);
}

// ---- a fixture

static double logits_error(const FamilyLogits *a, const FamilyLogits *b, const Fixture *f) {
    return nmse_f32(a->logits, b->logits, f->n_tokens * f->vocab_size);
}

static void convert(const Fixture *f, const char *out, const char *type) {
    Result r = CALL("quantize", folder, out, type, "-z", TOKENIZER);
    CHECK(r.status == 0 && !*r.out, "%s to %s: status %d: %s", f->name, type, r.status, r.err);
    release(&r);
}

static void check_types(const Fixture *f, const FamilyLogits *before, const char *out) {
    static const struct {
        const char *name;
        double most; // NMSE of the logits
    } types[] = {{"F32", 1e-10}, {"F16", 1e-5}, {"BF16", 1e-3}, {"Q8_0", 5e-3},
                 {"Q4_0", 0.5},  {"Q4_K", 0.1}, {"Q6_K", 5e-3}}; // rows are too short for the last two: Q5_0, Q8_0, F16
    const json_t *config = family_part(f, "config");
    bool routed = json_object_get(config, "num_experts") || json_object_get(config, "num_local_experts") ||
                  json_object_get(config, "n_routed_experts");
    static FamilyLogits after;
    char err[512] = "";
    for (int i = N_OF(types) - 1; i >= 0; i--) { // F32 stays
        char what[80];
        snprintf(what, sizeof what, "%s to %s", f->name, types[i].name);
        convert(f, out, types[i].name);
        bool ok = family_run(&after, f, out, NULL, 1, f->n_tokens, err, sizeof err);
        CHECK(ok, "%s: %s", what, err);
        if (!ok) continue;
        double off = logits_error(&after, before, f);
        double most = types[i].most + (routed && i ? 0.25 : 0); // a router that picks others costs more than rounding
        CHECK(off <= most, "%s: NMSE %.1e, expected at most %.1e", what, off, most);
        same_config(folder, out, what);
    }
}

// The GGUF again into GGUF: its settings and its tensors stay what they are.
static void check_again(const Fixture *f, const char *out) {
    const char *again = in_folder("again.gguf");
    Result r = CALL("quantize", out, again, "F32");
    CHECK(r.status == 0, "%s again: %s", f->name, r.err);
    release(&r);
    size_t n, m;
    char *x = read_file(out, &n), *y = read_file(again, &m);
    CHECK(n == m && !memcmp(x, y, n), "%s again: %zu bytes, then %zu, or others", f->name, n, m);
    free(x);
    free(y);
}

static void check_fixture(const Fixture *f) {
    static FamilyLogits before;
    const char *keep = getenv("TESSERA_KEEP");
    char err[512] = "", out[512];
    folder_make();
    snprintf(out, sizeof out, "%s/%s.gguf", keep && *keep ? keep : folder, f->name);
    write_family(f);
    make_tokenizer_bin(TOKENIZER, f->vocab_size, 1);
    if (refusal(f)) {
        REFUSES(1, refusal(f), "quantize", folder, out, "F32", "-z", TOKENIZER);
        CHECK(access(out, F_OK), "%s: a refusal leaves a file", f->name);
    } else {
        bool ok = family_run(&before, f, folder, TOKENIZER, 1, f->n_tokens, err, sizeof err);
        CHECK(ok, "%s: %s", f->name, err);
        if (ok) check_types(f, &before, out);
        if (ok) check_again(f, out);
    }
    unlink(TOKENIZER);
    folder_remove();
}

static void families(void) {
    each_kind(check_fixture);
}

// ---- what GGUF has no word for, of models that otherwise are as the fixtures

static void drop_biases(const Fixture *f) {
    json_t *specs = family_part(f, "tensors");
    for (size_t i = json_array_size(specs); i-- > 0;) {
        const char *name = spec_text(json_array_get(specs, i), 0);
        if (strstr(name, ".bias") && !strstr(name, "norm")) json_array_remove(specs, i);
    }
}

static void test_beyond(void) {
    static const struct {
        const char *fixture, *key, *value, *what;
    } cases[] = {{"llama", "hidden_act", "\"gelu\"", "an activation that differs"},
                 {"gpt_oss", "swiglu_limit", "5.0", "a feed-forward clamp"},
                 {"deepseek_v3", "rope_interleave", "false", "half rotation with this latent attention"},
                 {"starcoder2", "use_bias", "false", "linear layers without biases"},
                 {"gemma3_text", "query_pre_attn_scalar", "17", "the scale of the attention scores"}};
    for (int i = 0; i < N_OF(cases); i++) {
        char path[512];
        Fixture f;
        snprintf(path, sizeof path, FIXTURES "%s.json", cases[i].fixture);
        family_read(&f, path);
        json_t *value = json_loads(cases[i].value, JSON_DECODE_ANY, NULL);
        json_object_set_new(family_part(&f, "config"), cases[i].key, value);
        if (!strcmp(cases[i].key, "use_bias")) drop_biases(&f);
        folder_make();
        write_family(&f);
        REFUSES(1, cases[i].what, "quantize", folder, in_folder("out.gguf"), "F32", "--no-vocab");
        CHECK(access(in_folder("out.gguf"), F_OK), "a refusal leaves a file");
        folder_remove();
        family_free(&f);
    }
}

// The vocabulary of a folder of RWKV, bytes and all, comes back from GGUF.
static void rwkv_vocabulary(void) {
    Fixture f;
    Vocab a, b;
    File file;
    char err[512] = "", *text = NULL;
    size_t n;
    FILE *lines = open_memstream(&text, &n);
    family_read(&f, FIXTURES "rwkv7.json");
    for (int i = 1; i < 56; i++)
        fprintf(lines, "%d b'\\x%02x%s' %d\n", i, 4 * i + 1, i % 3 ? "" : "'\\\\\"", i % 3 ? 1 : 4);
    fclose(lines);
    folder_make();
    write_family(&f);
    write_text("rwkv_vocab_v20230424.txt", text);
    Result r = CALL("quantize", folder, in_folder("out.gguf"), "F32");
    CHECK(r.status == 0, "%s", r.err);
    release(&r);
    bool ok = !load_hf_vocab(&a, folder, 0, err, sizeof err) &&
              !file_map(&file, in_folder("out.gguf"), err, sizeof err) &&
              !load_gguf_vocab(&b, &file, 0, err, sizeof err);
    NEED(ok, "%s", err);
    CHECK(arrlen(a.pieces) == 56 && arrlen(b.pieces) == f.vocab_size && b.kind == VOCAB_GREEDY, "%td pieces",
          arrlen(b.pieces));
    for (int i = 0; i < 56; i++) {
        const Piece *p = &a.pieces[i], *q = &b.pieces[i];
        CHECK(p->len == q->len && !memcmp(p->text, q->text, (size_t)p->len) && p->type == q->type, "token %d", i);
    }
    CHECK(b.eos_id == 0 && b.no_bos, "bos, eos");
    vocab_free(&a);
    vocab_free(&b);
    file_unmap(&file);
    folder_remove();
    family_free(&f);
    free(text);
}

int main(int argc, char **argv) {
    without_rounding();
    chosen = argv + 1;
    n_chosen = argc - 1;
    folder_make();
    need_program("quantize");
    folder_remove();
    RUN(families);
    if (!n_chosen) RUN(test_beyond);
    if (!n_chosen) RUN(rwkv_vocabulary);
    return test_report();
}
