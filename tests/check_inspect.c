// inspect: what it tells of a model is what the library computes: the shape, the tensors, and the bytes that a session
// takes. Models: synth's, in a .bin and as quantize wrote it, and ones with a window.
#include "bad/commands.h"

#include "make_gguf.h"
#include "tessera.h"

#include <jansson.h>

#define IN_BIN in_folder("in.bin")
#define IN_GGUF in_folder("in.gguf")

static json_int_t whole(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    CHECK(json_is_integer(v), "%s: expected an integer", key);
    return json_integer_value(v);
}

static json_t *inspected(const char *path) {
    Result r = CALL("inspect", path, "-o", "json");
    json_t *o = json_loads(r.out, 0, NULL);
    CHECK(r.status == 0 && o && !*r.err, "status %d: %s%s", r.status, r.err, r.out);
    release(&r);
    return o;
}

static void check_numbers(const json_t *o, const char *path) {
    char err[512] = "";
    Engine *e = engine_open(path, NULL, err, sizeof err);
    NEED(e, "%s", err);
    EngineInfo i = engine_info(e);
    const json_t *shape = json_object_get(o, "shape"), *words = json_object_get(o, "tokenizer");
    CHECK(whole(shape, "dim") == i.dim && whole(shape, "hidden_dim") == i.hidden_dim, "widths");
    CHECK(whole(shape, "n_layers") == i.n_layers && whole(shape, "n_heads") == i.n_heads, "layers, heads");
    CHECK(whole(shape, "n_kv_heads") == i.n_kv_heads && whole(shape, "head_dim") == i.head_dim, "heads");
    CHECK(whole(shape, "vocab_size") == i.vocab_size && whole(shape, "context") == i.max_seq_len,
          "vocabulary, context");
    CHECK(whole(o, "n_params") == (json_int_t)i.n_params && whole(o, "model_bytes") == (json_int_t)i.model_bytes,
          "size");
    CHECK(whole(o, "token_bytes") == (json_int_t)i.token_bytes, "bytes a token");
    CHECK(whole(words, "bos_id") == i.bos_id && whole(words, "eos_id") == i.eos_id, "special ids");
    CHECK(whole(words, "byte_tokens") == 256, "byte tokens");
    const json_t *ends = json_object_get(words, "end_ids");
    CHECK(json_array_size(ends) == 1 && json_integer_value(json_array_get(ends, 0)) == i.eos_id, "end ids");
    CHECK(whole(words, "chat_template_bytes") == 0, "chat template");
    CHECK(!strcmp(json_string_value(json_object_get(o, "kind")), i.kind), "kind");
    engine_close(e);
}

// What a session's cache holds at the model's full context is what inspect has foretold.
static void check_memory(const json_t *o, const char *path, int n_ctx) {
    char err[512] = "";
    Engine *e = engine_open(path, NULL, err, sizeof err);
    if (!e) return;
    const json_t *memory = json_object_get(o, "memory"), *row = json_array_get(memory, json_array_size(memory) - 1);
    CHECK(whole(row, "context") == n_ctx, "the last row is of the full context");
    int32_t *tokens = need(sizeof *tokens * (size_t)n_ctx);
    for (int i = 0; i < n_ctx; i++) tokens[i] = i % 256;
    for (KvType kv = KV_BF16; kv <= KV_Q8; kv++) {
        const char *name = (const char *[]){"bf16", "f32", "q8"}[kv];
        Session *s = session_open(e, &(SessionOptions){.n_threads = 2, .kv = kv}, err, sizeof err);
        CHECK(!session_sync(s, tokens, n_ctx, err, sizeof err), "%s", err);
        json_int_t bytes = whole(json_object_get(row, name), "kv_bytes");
        CHECK(bytes == (json_int_t)session_info(s).kv_bytes, "KV as %s: foretold %lld", name, (long long)bytes);
        json_int_t total = whole(json_object_get(row, name), "total_bytes");
        CHECK(total == bytes + whole(o, "model_bytes"), "total as %s", name);
        char key[40];
        snprintf(key, sizeof key, "kv_token_bytes_%s", name);
        CHECK(whole(o, key) * ((n_ctx + 255) / 256 * 256) == bytes, "%s", key);
        session_close(s);
    }
    free(tokens);
    engine_close(e);
}

static void test_json(void) {
    TELLS(0, "", "", "synth", "tiny", "f32", IN_BIN);
    TELLS(0, "", "", "quantize", IN_BIN, IN_GGUF, "Q4_0", "--pure");
    const char *const paths[] = {IN_BIN, IN_GGUF};
    for (int i = 0; i < N_OF(paths); i++) {
        json_t *o = inspected(paths[i]);
        check_numbers(o, paths[i]);
        check_memory(o, paths[i], 256);
        const struct {
            const char *key;
            json_int_t bytes;
        } tokens[] = {{"kv_token_bytes_bf16", 2 * 2 * 2 * 16 * 2}, // 2 layers, K and V, 2 heads of 16
                      {"kv_token_bytes_f32", 2 * 2 * 2 * 16 * 4},
                      {"kv_token_bytes_q8", 2 * 2 * 2 * (16 + 4)}}; // and a scale
        for (int k = 0; k < N_OF(tokens); k++) {
            CHECK(whole(o, tokens[k].key) == tokens[k].bytes, "%s", tokens[k].key);
        }
        const json_t *tensors = json_object_get(o, "tensors"), *dtypes = json_object_get(o, "dtypes"), *t;
        size_t at;
        json_int_t bytes = 0, by_dtype = 0;
        json_array_foreach(tensors, at, t) bytes += whole(t, "bytes");
        json_array_foreach(dtypes, at, t) by_dtype += whole(t, "bytes");
        CHECK(json_array_size(tensors) == 20 && bytes > 0 && bytes == by_dtype, "%zu tensors",
              json_array_size(tensors));
        CHECK(json_array_size(dtypes) == (i ? 2 : 1), "types");
        CHECK(json_is_true(json_object_get(json_object_get(o, "shape"), "tied")), "tied");
        json_decref(o);
    }
}

static void note_most(void *context, int position, const float *logits) {
    struct {
        const Session *session;
        uint64_t bytes;
    } *most = context;
    uint64_t bytes = session_info(most->session).kv_bytes;
    if (bytes > most->bytes) most->bytes = bytes;
    (void)position, (void)logits;
}

// With a window: the cache at its largest, while a text goes through, is within what was foretold, and not far below.
static void test_window(void) {
    enum { N = 3000 };
    static const int windows[] = {20, 300, 700};
    for (int i = 0; i < N_OF(windows); i++) {
        BinSpec spec = {32, 32, 1, 2, 1, 300, N, .seed = 9};
        char err[512] = "";
        Maker m = maker_new();
        maker_llama(&m, &spec);
        maker_u32(&m, "llama.attention.sliding_window", (uint32_t)windows[i]);
        maker_text(&m, "tokenizer.chat_template", i ? "<|im_start|>" : "nobody's");
        maker_write(&m, IN_GGUF);
        maker_free(&m);
        json_t *o = inspected(IN_GGUF);
        const json_t *row = json_array_get(json_object_get(o, "memory"), 0);
        uint64_t foretold = (uint64_t)whole(json_object_get(row, "bf16"), "kv_bytes"), all = N * 64;
        const char *family = json_string_value(json_object_get(json_object_get(o, "tokenizer"), "chat_family"));
        CHECK(family && !strcmp(family, i ? "ChatML" : "the model's own template"), "chat template of %s",
              family ? family : "none");
        Engine *e = engine_open(IN_GGUF, NULL, err, sizeof err);
        Session *s = e ? session_open(e, &(SessionOptions){.n_threads = 1}, err, sizeof err) : NULL;
        NEED(s, "%s", err);
        static int32_t tokens[N];
        struct {
            const Session *session;
            uint64_t bytes;
        } most = {s, 0};
        session_visit(s, note_most, &most);
        CHECK(!session_sync(s, tokens, N, err, sizeof err), "%s", err);
        CHECK(most.bytes <= foretold && foretold <= most.bytes + 2 * 256 * 64 && foretold < all,
              "window %d: %llu bytes at most, foretold %llu, all %llu", windows[i], (unsigned long long)most.bytes,
              (unsigned long long)foretold, (unsigned long long)all);
        session_close(s);
        engine_close(e);
        json_decref(o);
    }
}

// Half of the layers with a window: what a session holds in the end is within what was foretold, and not far below.
static void test_mixed_windows(void) {
    enum { N = 4096, LAYER = 2 * 2 * 64 * 2 }; // bytes a token: K and V, 2 heads of 64 as bf16
    char err[512] = "";
    if (quick()) return; // a text of 4096 tokens takes long there
    TELLS(0, "", "", "synth", "gpt-oss-tiny", "Q8_0", IN_GGUF, "--layers", "2");
    json_t *o = inspected(IN_GGUF);
    const json_t *row = json_array_get(json_object_get(o, "memory"), 0), *family = json_object_get(o, "family");
    uint64_t foretold = (uint64_t)whole(json_object_get(row, "bf16"), "kv_bytes");
    CHECK(whole(row, "context") == N && whole(o, "n_window_layers") == 1, "context, layers");
    CHECK(!strcmp(json_string_value(json_object_get(family, "layers")), "wf"), "which layers");
    CHECK(whole(o, "kv_token_bytes_bf16") == 2 * LAYER, "bytes a token");
    CHECK(whole(o, "kv_token_bytes_q8") == 2 * 2 * 2 * (64 + 4), "bytes a token as q8");
    Engine *e = engine_open(IN_GGUF, NULL, err, sizeof err);
    Session *s = e ? session_open(e, &(SessionOptions){.n_ctx = N, .n_threads = 2}, err, sizeof err) : NULL;
    static int32_t tokens[N];
    CHECK(s && !session_sync(s, tokens, N, err, sizeof err), "%s", err);
    uint64_t held = s ? session_info(s).kv_bytes : 0;
    CHECK(held >= (uint64_t)N * LAYER && held <= foretold, "held %llu", (unsigned long long)held);
    CHECK(foretold <= held + 4 * 256 * LAYER, "foretold %llu", (unsigned long long)foretold);
    session_close(s);
    engine_close(e);
    json_decref(o);
}

// A folder: another's names of tensors, and a tokenizer.json.
static void test_folder(void) {
    static const char in[] = SHARED_DATA "tinystories-656k-hf";
    SKIP_WITHOUT(in);
    Result r = CALL("inspect", in);
    // clang-format off
    const char *const want[] = {"safetensors, llama", "128 wide", "tied classifier", "half rotation", "2048 tokens",
        "KV a token     512 bytes as bf16, 1024 as f32, 320 as q8",
        "at 512 tokens (KV 0.2 as bf16; as f32 0.5, as q8 0.2)", "answers end    2 (<|end_story|>)",
        "| model.embed_tokens.weight | BF16 | 2048 x 128 |"};
    // clang-format on
    for (int i = 0; i < N_OF(want); i++) CHECK(strstr(r.out, want[i]), "no '%s' in:\n%s", want[i], r.out);
    CHECK(r.status == 0 && !*r.err, "status %d: %s", r.status, r.err);
    release(&r);
}

// What a family is, said in words and in JSON.
static void test_families(void) {
    static const struct {
        const char *shape, *words[5];
    } cases[] = {
        {"gpt2", {"GGUF v3, gpt2", "multi-head: 12 query", "learned", "LayerNorm, eps 1e-05", "plain, gelu (tanh)"}},
        {"pythia-160m", {"GGUF v3, gptneox", "the first 16 of 64", "half rotation", "both sublayers", "plain, gelu\n"}},
        {"gpt-oss-tiny",
         {"GGUF v3, gpt-oss", "learned sinks", "128 tokens in 2 of 4 layers: wfwf", "yarn scaling by 32 from 4096",
          "8 experts of 256, 4 a token"}},
        {"qwen3-moe-tiny",
         {"GGUF v3, qwen3moe", "q and k normed by head", "gated, silu, 16 experts", "eps 1e-06", "theta 1e+06"}},
    };
    for (int i = 0; i < N_OF(cases); i++) {
        TELLS(0, "", "", "synth", cases[i].shape, "Q4_0", IN_GGUF, "--layers", "4", "--vocab", "512");
        Result r = CALL("inspect", IN_GGUF);
        for (int k = 0; k < 5; k++) CHECK(strstr(r.out, cases[i].words[k]), "no '%s': %s", cases[i].words[k], r.out);
        release(&r);
    }
    json_t *o = inspected(IN_GGUF), *family = json_object_get(o, "family");
    CHECK(!strcmp(json_string_value(json_object_get(o, "architecture")), "qwen3moe"), "architecture");
    CHECK(whole(family, "n_experts") == 16 && whole(family, "n_experts_used") == 4, "experts");
    CHECK(!strcmp(json_string_value(json_object_get(family, "qk_norm")), "head"), "norm of queries");
    CHECK(whole(family, "n_rot") == 64 && !json_is_true(json_object_get(family, "learned_sinks")), "family");
    json_decref(o);
}

// Recurrent layers: which they are, and that a session's states take what was foretold, before and behind a text.
static void test_states(void) {
    enum { N = 300 };
    static const struct {
        const char *shape, *layers, *words[3];
    } cases[] = {
        {"lfm2-350m",
         "rrfr",
         {"short convolution in 3 of 4 layers: rrfr", "3 taps over 1024 channels", "MiB at any length"}},
        {"qwen3.5-tiny",
         "rrrf",
         {"gated delta net in 3 of 4 layers: rrrf", "8 states of 32 x 32, 4 heads of keys, 4 taps over 512",
          "the first 16 of 64"}},
        {"qwen3-next-tiny",
         "rrrf",
         {"gated delta net in 3 of 4 layers", "16 experts of 128, 4 a token, one of 128", "4 query, 2 key/value"}},
    };
    for (int i = 0; i < N_OF(cases); i++) {
        char err[512] = "";
        TELLS(0, "", "", "synth", cases[i].shape, "Q4_0", IN_GGUF, "--layers", "4", "--vocab", "512");
        Result r = CALL("inspect", IN_GGUF);
        for (int k = 0; k < 3; k++) CHECK(strstr(r.out, cases[i].words[k]), "no '%s': %s", cases[i].words[k], r.out);
        release(&r);
        json_t *o = inspected(IN_GGUF), *family = json_object_get(o, "family");
        CHECK(!strcmp(json_string_value(json_object_get(family, "layers")), cases[i].layers), "which layers");
        CHECK(whole(json_object_get(family, "recurrent"), "layers") == 3, "how many");
        const json_t *bf16 = json_object_get(json_array_get(json_object_get(o, "memory"), 0), "bf16");
        json_int_t states = whole(o, "state_bytes");
        CHECK(whole(bf16, "total_bytes") == whole(o, "model_bytes") + states + whole(bf16, "kv_bytes"), "total");
        Engine *e = engine_open(IN_GGUF, NULL, err, sizeof err);
        Session *s = e ? session_open(e, &(SessionOptions){.n_threads = 1}, err, sizeof err) : NULL;
        NEED(s, "%s", err);
        static int32_t tokens[N];
        for (int n = 0; n <= N; n += N) {
            if (n) CHECK(!session_sync(s, tokens, n, err, sizeof err), "%s", err);
            json_int_t held = (json_int_t)session_info(s).state_bytes;
            CHECK(states > 0 && held == states, "%s, %d tokens: %lld, foretold %lld", cases[i].shape, n,
                  (long long)held, (long long)states);
        }
        session_close(s);
        engine_close(e);
        json_decref(o);
    }
}

static void test_text(void) {
    Result r = CALL("inspect", IN_GGUF);
    // clang-format off
    const char *const want[] = {"GGUF v3, llama", "64 wide", "grouped: 4 query, 2 key/value, of 16", "gated, silu",
        "tied classifier", "theta 10000", "KV a token     256 bytes as bf16, 512 as f32, 160 as q8",
        "at 256 tokens (KV 0.1 as bf16; as f32 0.1, as q8 0.0)", "bos 1, eos 2, unk 0",
        "answers end    2 (</s>)\nchat template  none", "| blk.1.ffn_down.weight | Q4_0 | 64 x 128 | 4608 |"};
    // clang-format on
    for (int i = 0; i < N_OF(want); i++) CHECK(strstr(r.out, want[i]), "no '%s' in:\n%s", want[i], r.out);
    CHECK(r.status == 0 && !*r.err, "status %d: %s", r.status, r.err);
    release(&r);
    unlink(in_folder("in.tokenizer.bin"));
    r = CALL("inspect", IN_BIN);
    CHECK(r.status == 0 && strstr(r.out, "none: ") && strstr(r.out, "no tokenizer"), "%s", r.out);
    release(&r);
    refuse_commands("commands_inspect");
}

int main(void) {
    folder_make();
    need_program("inspect");
    need_program("quantize");
    RUN(test_json);
    RUN(test_text);
    RUN(test_window);
    RUN(test_folder);
    RUN(test_families);
    RUN(test_states);
    RUN(test_mixed_windows);
    folder_remove();
    return test_report();
}
