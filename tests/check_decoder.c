// check_decoder: what a Config can say and no llama2.c file does: head_dim that is not dim / n_heads, RoPE over split
// halves, other theta and eps, windows of some layers and all else that Gemma 3 has. The model is built in memory; the
// reference is a forward pass in double, token by token. Then timelines of text over such models: rewound, continued,
// with the caller's window, and beyond the positions that the model was made for.
#include "decoder.h"
#include "forward.h"
#include "load.h"
#include "make_bin.h"
#include "make_family.h"
#include "ops.h"
#include "tessera.h"

#include <math.h>
#include <stb/stb_ds.h>

enum { N_TOKENS = 700, MAX_DIM = 96 };

typedef struct {
    Model model;
    float *data[128]; // what the tensors point to
    int n_data;
} Random;

static void add_random(Random *r, const char *name, int rows, int cols) {
    int n = rows * (cols ? cols : 1);
    float *v = malloc(sizeof *v * (size_t)n), scale = cols ? 1.7f / sqrtf((float)cols) : 0.5f;
    for (int i = 0; i < n; i++) v[i] = test_uniform() * scale + (cols ? 0 : 1);
    r->data[r->n_data++] = v;
    char err[256];
    Tensor t = {.dtype = DTYPE_F32, .n_dims = cols ? 2 : 1, .shape = {rows, cols}, .data = v};
    CHECK(!weights_add(&r->model.weights, name, t, err, sizeof err), "%s", err);
}

static void random_model(Random *r, Config c) {
    memset(r, 0, sizeof *r);
    r->model.config = c;
    File file = {.path = (char *)(uintptr_t) "memory", .borrowed = true};
    arrput(r->model.weights.files, file);
    const LayerKind *kind = &c.kinds[0];
    int q = (int)kind_q_dim(kind), k = (int)kind_k_dim(kind), v = (int)kind_v_dim(kind);
    const struct {
        const char *part;
        int rows, cols;
    } parts[] = {{"attn_norm", c.dim, 0},
                 {"attn_q", q, c.dim},
                 {"attn_k", k, c.dim},
                 {"attn_v", v, c.dim},
                 {"attn_output", c.dim, kind->n_heads * kind->v_dim},
                 {"ffn_norm", c.dim, 0},
                 {"ffn_gate", c.hidden_dim, c.dim},
                 {"ffn_up", c.hidden_dim, c.dim},
                 {"ffn_down", c.dim, c.hidden_dim},
                 {"attn_q_norm", c.qk_norm ? kind->k_dim : 0, 0},
                 {"attn_k_norm", c.qk_norm ? kind->k_dim : 0, 0},
                 {"post_attention_norm", c.post_norm ? c.dim : 0, 0},
                 {"post_ffw_norm", c.post_norm ? c.dim : 0, 0}};
    add_random(r, "token_embd.weight", c.vocab_size, c.dim);
    add_random(r, "output_norm.weight", c.dim, 0);
    for (int l = 0; l < c.n_layers; l++) {
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, parts[i].part);
            if (parts[i].rows) add_random(r, name, parts[i].rows, parts[i].cols);
        }
    }
}

static void free_model(Random *r) {
    weights_free(&r->model.weights);
    for (int i = 0; i < r->n_data; i++) free(r->data[i]);
}

// ---- the comparison

typedef struct {
    float logits[N_TOKENS][MAX_DIM];
    int vocab;
} Seen;

static void see(void *context, int position, const float *logits) {
    Seen *s = context;
    memcpy(s->logits[position], logits, sizeof *logits * (size_t)s->vocab);
}

// windows: of each layer; n_sinks: first tokens that they see all the same.
static double seen_error(const Seen *seen, const Model *m, const int *windows, int n_sinks, const int32_t *tokens,
                         int n) {
    double error = 0, power = 0, want[MAX_DIM];
    Timeline t = timeline_open(m, windows, n);
    t.n_sinks = n_sinks;
    for (int i = 0; i < n; i++) {
        timeline_step(&t, tokens[i], want);
        for (int j = 0; j < m->config.vocab_size; j++) {
            double difference = (double)seen->logits[i][j] - want[j];
            error += difference * difference;
            power += want[j] * want[j];
        }
    }
    timeline_close(&t);
    return error / power;
}

// A decoder of random numbers and what computes it.
typedef struct {
    Random random;
    Decoder decoder;
    Compute compute;
    Workspace work;
    float *logits;
} Bench;

static bool bench_open(Bench *b, Config c, const LayerRules *rules, const char *what) {
    char err[256] = "";
    memset(b, 0, sizeof *b);
    config_set_layers(&c, rules);
    random_model(&b->random, c);
    b->work.compute = &b->compute;
    b->logits = need(sizeof *b->logits * LOGITS_BLOCK * (size_t)c.vocab_size);
    bool ok = !config_check(&c, what, err, sizeof err) &&
              !decoder_bind(&b->decoder, &b->random.model, err, sizeof err) &&
              !compute_open(&b->compute, 2, err, sizeof err);
    CHECK(ok, "%s: %s", what, err);
    return ok;
}

static void bench_close(Bench *b) {
    workspace_close(&b->work);
    compute_close(&b->compute);
    decoder_free(&b->decoder);
    free_model(&b->random);
    free(b->logits);
}

static Memory open_memory(const Bench *b) {
    char err[256] = "";
    Memory m;
    const Config *c = decoder_config(&b->decoder);
    MemoryOptions options = {.kv = KV_DTYPE_F32, .n_ctx = c->max_seq_len};
    CHECK(!memory_open(&m, c, &options, NULL, err, sizeof err), "%s", err);
    return m;
}

// One pass over these segments, whose memories grow.
static void step(Bench *b, const DecoderSegment *segments, int n) {
    char err[256] = "";
    int rows = 0;
    for (int i = 0; i < n; i++) {
        CHECK(!memory_reserve(segments[i].memory, segments[i].n, err, sizeof err), "%s", err);
        rows += segments[i].n;
    }
    CHECK(!workspace_reserve(&b->work, decoder_config(&b->decoder), rows, err, sizeof err), "%s", err);
    decoder_forward(&b->decoder, &b->work, segments, n, b->logits);
    for (int i = 0; i < n; i++) memory_advance(segments[i].memory, segments[i].n);
}

static void random_tokens(int32_t *tokens, int n, int vocab) {
    for (int i = 0; i < n; i++) tokens[i] = (int32_t)(test_u32() % (uint32_t)vocab);
}

// n tokens: n_at_once in a block, as often as they fit, then token by token.
static void compare_rules(Config c, const LayerRules *rules, int n, int n_at_once, const char *what) {
    Bench b;
    if (!bench_open(&b, c, rules, what)) return;
    Memory memory = open_memory(&b);
    int32_t tokens[N_TOKENS];
    random_tokens(tokens, n, c.vocab_size);
    static Seen seen;
    seen.vocab = c.vocab_size;
    for (int i = 0, count; i < n; i += count) {
        count = n - i > n_at_once ? n_at_once : 1;
        DecoderSegment part = {.memory = &memory, .tokens = tokens + i, .n = count};
        part.callback = see;
        part.callback_context = &seen;
        step(&b, &part, 1);
    }
    double error = seen_error(&seen, &b.random.model, NULL, 0, tokens, n);
    printf("  %s: NMSE %.1e\n", what, error);
    CHECK(error <= 1e-9, "%s: NMSE %.1e", what, error);
    memory_close(&memory);
    bench_close(&b);
}

static void compare(Config c, int n, int n_at_once, const char *what) {
    compare_rules(c, &(LayerRules){0}, n, n_at_once, what);
}

static const Config base = {
    .dim = 24,
    .hidden_dim = 40,
    .n_layers = 3,
    .kinds[0] = {.n_heads = 4, .n_kv_heads = 2, .k_dim = 6, .v_dim = 6, .rope = {.rotary_dim = 6, .theta = 10000}},
    .vocab_size = 50,
    .max_seq_len = 64,
    .norm_eps = 1e-5f,
    .tied = true};

static Config with_heads(int n_heads, int n_kv_heads, int k_dim, int v_dim, RopePairing pairing) {
    Config c = base;
    c.kinds[0] = (LayerKind){.n_heads = n_heads, .n_kv_heads = n_kv_heads, .k_dim = k_dim, .v_dim = v_dim};
    c.kinds[0].rope = (RopeConfig){k_dim, 10000, pairing, {0}};
    return c;
}

static void rope_pairings(void) {
    Config c = base;
    compare(c, 41, 29, "interleaved");
    c.kinds[0].rope.pairing = ROPE_HALF;
    compare(c, 41, 29, "half rotation");
    c.kinds[0].rope.theta = 500;
    c.norm_eps = 1e-2f;
    compare(c, 41, 29, "half rotation, theta 500, eps 0.01");
    c.kinds[0].rope.rotary_dim = 4;
    compare(c, 41, 29, "half rotation of 4 of 6 dimensions");
    c.kinds[0].rope.rotary_dim = 0;
    compare(c, 41, 29, "no positions");
}

static void free_head_dim(void) {
    compare(with_heads(4, 2, 14, 14, ROPE_INTERLEAVED), 41, 29, "heads of 14 of dim 24 / 4 heads");
    compare(with_heads(4, 2, 2, 2, ROPE_HALF), 41, 29, "heads of 2, half rotation");
    compare(with_heads(3, 1, 20, 20, ROPE_HALF), 41, 29, "3 heads over 1 of 20, half rotation");
    compare(with_heads(4, 2, 12, 6, ROPE_HALF), 300, 270, "keys of 12, values of 6");
    compare(with_heads(4, 1, 6, 20, ROPE_HALF), 300, 270, "keys of 6, values of 20");
}

// Gemma 3 in small: most layers see a window and rotate by another theta, the others see all, scaled.
static Config gemma(void) {
    Config c = base;
    c.n_layers = 4;
    c.kinds[0].rope.pairing = ROPE_HALF;
    c.kinds[0].rope.theta = 1e6f;
    c.kinds[0].rope.scaling = (RopeScaling){.kind = ROPE_LINEAR, .factor = 8, .original_ctx = 64};
    c.qk_norm = QK_NORM_HEAD;
    c.post_norm = true;
    c.activation = ACT_GELU_TANH;
    c.embedding_scale = 4.8989794f;
    c.attn_scale = 0.3f;
    return c;
}

static void windows_of_layers(void) {
    Config c = gemma();
    LayerRules rules = {.window = 20, .window_theta = 100};
    layers_add(&rules.full, 2);
    compare_rules(c, &rules, 41, 29, "a window in three layers of four");
    compare_rules(c, &rules, quick() ? 300 : 640, 270, "the same over three blocks of the cache");
    if (quick()) return;
    compare_rules(c, &rules, 640, 7, "the same in blocks of 7");
    c.attn_softcap = 2;
    c.logit_softcap = 1.5f;
    compare_rules(c, &rules, 300, 100, "with caps");
    rules.window = 1;
    compare_rules(c, &rules, 600, 290, "a window of 1");
    rules.window = 300;
    compare_rules(c, &rules, N_TOKENS, 256, "a window of 300");
    rules.full = (LayerSet){0};
    compare_rules(c, &rules, N_TOKENS, 512, "a window of 300 in all layers");
}

// ---- several timelines in one pass

enum { VOCAB = 50, MOST_TEXT = 96 };

// A timeline that has a history, and what follows its next n tokens.
typedef struct {
    Memory memory;
    int32_t tokens[MOST_TEXT];
    int history, n;
    int next; // position that the callback expects
    float alone[VOCAB], together[VOCAB], called[VOCAB];
} Text;

// The next tokens are read alone, and forgotten again.
static void open_text(Text *t, Bench *b, int history, int n, int window) {
    char err[256] = "";
    const Config *c = decoder_config(&b->decoder);
    MemoryOptions options = {.kv = KV_DTYPE_F32, .n_ctx = c->max_seq_len, .window = window};
    *t = (Text){.history = history, .n = n, .next = history};
    CHECK(!memory_open(&t->memory, c, &options, NULL, err, sizeof err), "%s", err);
    random_tokens(t->tokens, history + n, VOCAB);
    if (history) step(b, &(DecoderSegment){.memory = &t->memory, .tokens = t->tokens, .n = history}, 1);
    step(b, &(DecoderSegment){.memory = &t->memory, .tokens = t->tokens + history, .n = n, .logits = t->alone}, 1);
    CHECK(memory_truncate(&t->memory, history) == history, "back to %d tokens", history);
}

static void call_in_order(void *context, int position, const float *logits) {
    Text *t = context;
    CHECK(position == t->next, "position %d, expected %d", position, t->next);
    t->next = position + 1;
    memcpy(t->called, logits, sizeof t->called);
}

// Up to how many rows products are made with the stored rows.
static int most_shared(const Bench *b) {
    return ops_shared(&b->compute, &(Tensor){.dtype = DTYPE_F32});
}

// Does the pass of all make the same products as this timeline's own? Those of few rows are made with the stored rows,
// those of more by panels, with sums in another order; how many rows there are beyond that, and whose, changes no bit.
static bool same_products(const Bench *b, int n, int n_all) {
    return (n <= most_shared(b)) == (n_all <= most_shared(b));
}

// One pass over the next tokens of all gives each what it gets alone.
static void check_together(Bench *b, Text *texts, int n_texts, bool callbacks) {
    DecoderSegment list[MAX_SEGMENTS] = {0};
    int n_all = 0;
    for (int i = 0; i < n_texts; n_all += texts[i++].n) {
        Text *t = &texts[i];
        list[i] = (DecoderSegment){.memory = &t->memory, .tokens = t->tokens + t->history, .n = t->n};
        list[i].logits = t->together;
        if (!callbacks) continue;
        list[i].callback = call_in_order;
        list[i].callback_context = t;
    }
    step(b, list, n_texts);
    for (int i = 0; i < n_texts; i++) {
        Text *t = &texts[i];
        double error = nmse_f32(t->together, t->alone, VOCAB);
        bool same = !memcmp(t->together, t->alone, sizeof t->alone);
        CHECK(error <= 1e-10, "%s: %d tokens of %d behind %d: NMSE %.1e from alone", cpu_level_name(cpu_level()), t->n,
              n_all, t->history, error);
        CHECK(same || callbacks || !same_products(b, t->n, n_all),
              "%s: %d tokens of %d behind %d: other bits than alone", cpu_level_name(cpu_level()), t->n, n_all,
              t->history);
        CHECK(!callbacks || (t->next == t->history + t->n && !memcmp(t->called, t->together, sizeof t->called)),
              "the callback was last called for position %d, with other logits", t->next - 1);
        CHECK(!i || nmse_f32(t->alone, texts[0].alone, VOCAB) > 1e-3, "timelines 0 and %d do not differ", i);
    }
}

static void close_texts(Text *texts, int n) {
    for (int i = 0; i < n; i++) memory_close(&texts[i].memory);
}

// Two timelines: prompts and single tokens, from the start and behind a text, one with the caller's window.
static void pairs_of_timelines(Bench *b) {
    static const struct {
        int history, n;
    } pairs[][2] = {{{30, 1}, {3, 1}},  {{0, 4}, {50, 6}},  {{9, 1}, {0, 9}},   {{30, 5}, {12, 6}},
                    {{0, 37}, {0, 5}},  {{40, 1}, {0, 17}}, {{0, 11}, {7, 11}}, {{0, 30}, {25, 17}},
                    {{5, 23}, {0, 40}}, {{0, 13}, {60, 29}}};
    for (int i = 0; i < N_OF(pairs); i++) {
        for (int callbacks = 0; callbacks < 2; callbacks++) {
            Text texts[2];
            for (int j = 0; j < 2; j++) open_text(&texts[j], b, pairs[i][j].history, pairs[i][j].n, i % 2 * j * 4);
            check_together(b, texts, 2, callbacks);
            close_texts(texts, 2);
        }
    }
}

// As many as a pass takes, a token each: what a server decodes.
static void many_timelines(Bench *b) {
    static Text texts[MAX_SEGMENTS];
    for (int i = 0; i < MAX_SEGMENTS; i++) open_text(&texts[i], b, i * 7 % 61, 1, i % 5 ? 0 : 3);
    check_together(b, texts, MAX_SEGMENTS, false);
    for (int i = 0; i < MAX_SEGMENTS; i++) CHECK(memory_truncate(&texts[i].memory, texts[i].history) >= 0, "back");
    check_together(b, texts, most_shared(b), false);
    close_texts(texts, MAX_SEGMENTS);
}

static void timelines_together(void) {
    Bench b;
    LayerRules rules = {.window = 20, .window_theta = 100};
    layers_add(&rules.full, 2);
    if (!bench_open(&b, gemma(), &rules, "timelines")) return;
    pairs_of_timelines(&b);
    many_timelines(&b);
    bench_close(&b);
}

// ---- timelines over a model that is a folder

typedef struct {
    Engine *engine;
    Fixture fixture;
    int32_t tokens[N_TOKENS];
} Opened;

// A fixture of tests/fixtures/families with some settings replaced ('...' is JSON).
static void open_fixture(Opened *o, const char *name, const char *settings) {
    const char *tokenizer = BIN_DIR "decoder.tokenizer.bin";
    char path[200], err[512] = "", *json = json_of(settings);
    snprintf(path, sizeof path, "tests/fixtures/families/%s.json", name);
    family_read(&o->fixture, path);
    json_t *more = json_loads(json, 0, NULL);
    json_object_update(json_object_get(o->fixture.json, "config"), more);
    json_decref(more);
    free(json);
    folder_make();
    write_family(&o->fixture);
    make_tokenizer_bin(tokenizer, o->fixture.vocab_size, 1);
    o->engine = engine_open(folder, tokenizer, err, sizeof err);
    if (!o->engine) {
        fprintf(stderr, "%s\n", err);
        exit(1);
    }
    for (int i = 0; i < N_TOKENS; i++) o->tokens[i] = (int32_t)(test_u32() % (uint32_t)o->fixture.vocab_size);
}

static void close_fixture(Opened *o) {
    engine_close(o->engine);
    folder_remove();
    family_free(&o->fixture);
}

static Session *open_session(const Opened *o, int n_ctx, int window, int n_sinks) {
    char err[256] = "";
    SessionOptions options = {.n_ctx = n_ctx, .n_threads = 1, .window = window, .n_sinks = n_sinks, .kv = KV_F32};
    Session *s = session_open(o->engine, &options, err, sizeof err);
    if (!s) {
        fprintf(stderr, "%s\n", err);
        exit(1);
    }
    return s;
}

// The logits after tokens[0..n), from a new timeline.
static void fresh_logits(const Opened *o, int n_ctx, int window, int n_sinks, const int32_t *tokens, int n,
                         float *logits) {
    char err[256] = "";
    Session *s = open_session(o, n_ctx, window, n_sinks);
    CHECK(s && !session_sync(s, tokens, n, err, sizeof err), "%s", err);
    memcpy(logits, session_logits(s), sizeof *logits * (size_t)o->fixture.vocab_size);
    session_close(s);
}

// Texts that begin alike, end elsewhere, are cut or grow: after each the logits are those of a new timeline.
static void check_rewinding(const Opened *o, int window, int n_sinks, const char *what) {
    Session *s = open_session(o, 1000, window, n_sinks);
    int32_t text[N_TOKENS];
    memcpy(text, o->tokens, sizeof text);
    static const struct {
        int same, n; // tokens of the last text that stay, and all of this one
    } turns[] = {{0, 40},    {40, 41},   {41, 300},  {299, 300}, {290, 310}, {100, 120}, {120, 600},
                 {600, 601}, {600, 640}, {300, 400}, {10, 50},   {50, 50},   {0, 520},   {519, 525}};
    double worst = 0;
    for (int i = 0; i < (quick() ? 4 : N_OF(turns)); i++) {
        char err[256] = "";
        float want[FAMILY_VOCAB];
        for (int t = turns[i].same; t < turns[i].n; t++) {
            text[t] = (text[t] + 1 + (int32_t)(test_u32() % 7)) % o->fixture.vocab_size;
        }
        CHECK(!session_sync(s, text, turns[i].n, err, sizeof err), "%s: %s", what, err);
        CHECK(session_length(s) == turns[i].n, "%s: length %d", what, session_length(s));
        fresh_logits(o, 1000, window, n_sinks, text, turns[i].n, want);
        double error = nmse_f32(session_logits(s), want, o->fixture.vocab_size);
        worst = fmax(worst, error);
        CHECK(error < 1e-10, "%s, turn %d, %d of %d stay: NMSE %.1e", what, i, turns[i].same, turns[i].n, error);
    }
    printf("  %s: NMSE %.1e at most\n", what, worst);
    session_close(s);
}

static void rewinding(void) {
    Opened o;
    open_fixture(&o, "gemma3_text", "{}");
    check_rewinding(&o, 0, 0, "Gemma 3, windows of 9 and none");
    check_rewinding(&o, 4, 0, "Gemma 3, the caller's window of 4");
    check_rewinding(&o, 30, 2, "Gemma 3, the caller's window of 30 and 2 sinks");
    check_rewinding(&o, -1, 0, "Gemma 3, no window");
    close_fixture(&o);
    open_fixture(&o, "gpt_oss", "{'sliding_window': 260}");
    check_rewinding(&o, 0, 0, "gpt-oss, windows of 260 and none");
    close_fixture(&o);
}

// Different settings in config.json or from the caller, one model: the same logits.
static void check_same(const char *a_settings, int a_window, const char *b_settings, int b_window, bool same,
                       const char *what) {
    float a[FAMILY_VOCAB], b[FAMILY_VOCAB];
    int32_t text[N_TOKENS];
    int n = quick() ? 60 : 333;
    Opened o;
    open_fixture(&o, "llama", a_settings);
    memcpy(text, o.tokens, sizeof text);
    fresh_logits(&o, 1000, a_window, 0, text, n, a);
    close_fixture(&o);
    open_fixture(&o, "llama", b_settings);
    fresh_logits(&o, 1000, b_window, 0, text, n, b);
    close_fixture(&o);
    double error = nmse_f32(a, b, FAMILY_VOCAB - 7);
    CHECK(same ? error < 1e-10 : error > 1e-6, "%s: NMSE %.1e", what, error);
}

#define MIXED "{'sliding_window': 20, 'layer_types': ['full_attention', 'sliding_attention', 'full_attention']}"

static void callers_window(void) {
    check_same("{}", 20, "{'sliding_window': 20}", 0, true, "the caller's window is the model's");
    check_same(MIXED, 0, "{}", 0, false, "a window in one layer counts");
    check_same(MIXED, -1, "{}", 0, true, "-1 sees everything");
    check_same(MIXED, 5, "{'sliding_window': 5}", 0, true, "a narrower window holds for all layers");
    check_same("{'sliding_window': 20}", 50, "{'sliding_window': 20}", 0, true, "a wider one widens no layer");
    check_same(MIXED, 400, MIXED, 0, true, "one beyond the text changes nothing");
    check_same(MIXED, 50, MIXED, 0, false, "a wider one narrows those that see all");
    check_same(MIXED, 20, "{'sliding_window': 20}", 0, true, "the same for all");
}

// All logits of a long text, the caller's window given, against the reference with these windows.
static void check_windows(int window, int n_sinks, const int *windows, const char *what) {
    static Seen seen;
    Opened o;
    Model m;
    char err[256] = "";
    open_fixture(&o, "llama", MIXED);
    Session *s = open_session(&o, 1000, window, n_sinks);
    bool loaded = !load_model(&m, folder, err, sizeof err);
    CHECK(loaded, "%s: %s", what, err);
    seen.vocab = o.fixture.vocab_size;
    session_visit(s, see, &seen);
    int n_all = quick() ? 330 : 600;
    for (int n = 320; n <= n_all; n += n < 590 && !quick() ? 90 : 1) {
        CHECK(!session_sync(s, o.tokens, n, err, sizeof err), "%s: %s", what, err);
    }
    double error = loaded ? seen_error(&seen, &m, windows, n_sinks, o.tokens, n_all) : NAN;
    CHECK(error <= 1e-9, "%s: NMSE %.1e", what, error);
    session_close(s);
    if (loaded) weights_free(&m.weights);
    close_fixture(&o);
}

static void windows_against_double(void) {
    check_windows(0, 0, (int[]){0, 20, 0}, "the model's own windows");
    if (quick()) return;
    check_windows(-1, 0, (int[]){0, 0, 0}, "no window");
    check_windows(5, 0, (int[]){5, 5, 5}, "a narrower window");
    check_windows(50, 0, (int[]){50, 20, 50}, "a wider window");
    check_windows(270, 0, (int[]){270, 20, 270}, "a window of more than a block");
    check_windows(50, 3, (int[]){50, 20, 50}, "a wider window and sinks");
    check_windows(5, 260, (int[]){5, 5, 5}, "sinks of more than a block");
}

// ---- beyond the positions that the model was made for

// Dynamic NTK: the context limit decides, not the text. Up to the original context nothing is stretched.
static void dynamic_context(void) {
    Opened o;
    float within[FAMILY_VOCAB], shorter[FAMILY_VOCAB], beyond[FAMILY_VOCAB], further[FAMILY_VOCAB], none[FAMILY_VOCAB];
    int32_t text[N_TOKENS];
    open_fixture(&o, "llama_dynamic", "{}"); // made for 24 positions
    memcpy(text, o.tokens, sizeof text);
    fresh_logits(&o, 24, 0, 0, text, 20, within);
    fresh_logits(&o, 21, 0, 0, text, 20, shorter);
    fresh_logits(&o, 48, 0, 0, text, 20, beyond);
    fresh_logits(&o, 640, 0, 0, text, 20, further);
    check_rewinding(&o, 0, 0, "dynamic NTK far beyond");
    Session *own = open_session(&o, 0, 0, 0);
    CHECK(own && session_info(own).n_ctx == 24, "the model's own context is 24");
    session_close(own);
    close_fixture(&o);
    open_fixture(&o, "llama_dynamic", "{'rope_scaling': null}");
    fresh_logits(&o, 24, 0, 0, text, 20, none);
    close_fixture(&o);
    // theta of dynamic NTK at 48 of 24 positions by a factor of 2, 16 dimensions: 10000 * 3^(16 / 14)
    open_fixture(&o, "llama_dynamic", "{'rope_scaling': null, 'rope_theta': 35097.924383}");
    float same[FAMILY_VOCAB];
    fresh_logits(&o, 48, 0, 0, text, 20, same);
    close_fixture(&o);
    int n = o.fixture.vocab_size;
    CHECK(!memcmp(within, none, sizeof *within * (size_t)n), "within 24 positions, dynamic NTK changes logits");
    CHECK(!memcmp(within, shorter, sizeof *within * (size_t)n), "a smaller context changes logits");
    CHECK(nmse_f32(beyond, within, n) > 1e-8 && nmse_f32(further, beyond, n) > 1e-8,
          "a larger context changes nothing");
    CHECK(nmse_f32(beyond, same, n) < 1e-9, "48 positions: NMSE %.1e", nmse_f32(beyond, same, n));
}

static void learned_positions_end(void) {
    Opened o;
    char err[256] = "";
    open_fixture(&o, "gpt2", "{}"); // 80 positions
    SessionOptions options = {.n_ctx = 81, .n_threads = 1, .kv = KV_F32};
    CHECK(!session_open(o.engine, &options, err, sizeof err), "81 of 80 learned positions");
    CHECK(one_line(err) && strstr(err, "expected at most 80") && strstr(err, "found 81"), "'%s'", err);
    Session *s = open_session(&o, 0, 0, 0);
    CHECK(s && session_info(s).n_ctx == 80, "the model's own context is 80");
    CHECK(s && !session_sync(s, o.tokens, 80, err, sizeof err), "all positions: %s", err);
    CHECK(s && session_sync(s, o.tokens, 81, err, sizeof err) == -1 && session_length(s) == 80, "one more");
    CHECK(one_line(err) && strstr(err, "81 tokens do not fit in 80"), "'%s'", err);
    session_close(s);
    close_fixture(&o);
}

int main(void) {
    without_rounding();
    RUN_AT_LEVELS(timelines_together); // first: nothing has chosen a level yet
    RUN(rope_pairings);
    RUN(free_head_dim);
    RUN(windows_of_layers);
    RUN(rewinding);
    RUN(callers_window);
    RUN(windows_against_double);
    RUN(dynamic_context);
    RUN(learned_positions_end);
    return test_report();
}
