// check_decoder: what a Config can say and no llama2.c file does: head_dim that is not dim / n_heads, RoPE over split
// halves, other theta and eps, windows of some layers and all else that Gemma 3 has. The model is built in memory; the
// reference is a forward pass in double, token by token. Then timelines of text over such models: rewound, continued,
// with the caller's window, and beyond the positions that the model was made for.
#include "decoder.h"
#include "make_bin.h"
#include "make_family.h"
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
    int q = c.n_heads * c.head_dim, kv = c.n_kv_heads * c.head_dim;
    const struct {
        const char *part;
        int rows, cols;
    } parts[] = {{"attn_norm", c.dim, 0},
                 {"attn_q", q, c.dim},
                 {"attn_k", kv, c.dim},
                 {"attn_v", kv, c.dim},
                 {"attn_output", c.dim, q},
                 {"ffn_norm", c.dim, 0},
                 {"ffn_gate", c.hidden_dim, c.dim},
                 {"ffn_up", c.hidden_dim, c.dim},
                 {"ffn_down", c.dim, c.hidden_dim},
                 {"attn_q_norm", c.qk_norm ? c.head_dim : 0, 0},
                 {"attn_k_norm", c.qk_norm ? c.head_dim : 0, 0},
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

// ---- the reference

static void product(double *y, const Tensor *w, const double *x) {
    const float *v = w->data;
    for (int64_t i = 0; i < w->shape[0]; i++) {
        y[i] = 0;
        for (int64_t j = 0; j < w->shape[1]; j++) y[i] += (double)v[i * w->shape[1] + j] * x[j];
    }
}

static void norm(double *y, const Norm *norm, int n, const double *x, double eps) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    for (int i = 0; i < n; i++) y[i] = x[i] / sqrt(sum / n + eps) * (double)norm->weight[i];
}

static void norm_each(double *x, const Config *c, const Norm *w, int n_heads) {
    for (int h = 0; w->weight && h < n_heads; h++) {
        norm(x + h * c->head_dim, w, c->head_dim, x + h * c->head_dim, (double)c->norm_eps);
    }
}

static void rotate(double *x, const Config *c, int layer, int n_heads, int pos) {
    bool local = c->window && !layers_have(&c->global, layer) && c->rope_local_theta > 0;
    double theta = (double)(local ? c->rope_local_theta : c->rope_theta);
    double slow = !local && c->rope_scaling.kind == ROPE_LINEAR ? (double)c->rope_scaling.factor : 1;
    for (int h = 0; h < n_heads; h++, x += c->head_dim) {
        for (int i = 0; i < c->head_dim / 2; i++) {
            int a = c->rope_pairing == ROPE_SPLIT ? i : 2 * i,
                b = c->rope_pairing == ROPE_SPLIT ? i + c->head_dim / 2 : a + 1;
            double angle = pos / slow * pow(theta, -2.0 * i / c->head_dim), xa = x[a], xb = x[b];
            x[a] = xa * cos(angle) - xb * sin(angle);
            x[b] = xa * sin(angle) + xb * cos(angle);
        }
    }
}

static double capped(double x, float cap) {
    return cap > 0 ? (double)cap * tanh(x / (double)cap) : x;
}

static double activated(double x, Activation a) {
    double u = a == ACT_GELU_TANH ? 2 * sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x) : x;
    return x / (1 + exp(-u));
}

// y joins the stream, through a norm where the layer has one.
static void join(double *x, const Config *c, const Norm *post, double *y) {
    if (post->weight) norm(y, post, c->dim, y, (double)c->norm_eps);
    for (int i = 0; i < c->dim; i++) x[i] += y[i];
}

static double kept[2][8][N_TOKENS][MAX_DIM]; // K and V of each layer

static void attend(double *o, const Config *c, int layer, const double *q, int pos, int window, int n_sinks) {
    double scale = c->attn_scale > 0 ? (double)c->attn_scale : 1 / sqrt(c->head_dim);
    for (int h = 0; h < c->n_heads; h++) {
        int at = h / (c->n_heads / c->n_kv_heads) * c->head_dim;
        double sum = 0, *out = o + h * c->head_dim;
        for (int e = 0; e < c->head_dim; e++) out[e] = 0;
        for (int t = 0; t <= pos; t++) {
            if (window && t <= pos - window && t >= n_sinks) continue;
            double s = 0;
            for (int e = 0; e < c->head_dim; e++) s += q[h * c->head_dim + e] * kept[0][layer][t][at + e];
            s = exp(capped(s * scale, c->attn_softcap)), sum += s;
            for (int e = 0; e < c->head_dim; e++) out[e] += s * kept[1][layer][t][at + e];
        }
        for (int e = 0; e < c->head_dim; e++) out[e] /= sum;
    }
}

// windows: of each layer; n_sinks: first tokens that they see all the same.
static void reference(const Decoder *d, const int *windows, int n_sinks, int token, int pos, double *logits) {
    const Config *c = &d->config;
    double x[MAX_DIM], n[MAX_DIM], q[MAX_DIM], o[MAX_DIM], y[MAX_DIM], gate[MAX_DIM], up[MAX_DIM];
    double scale = c->embedding_scale > 0 ? (double)c->embedding_scale : 1;
    for (int i = 0; i < c->dim; i++) x[i] = scale * (double)((const float *)d->embedding->data)[token * c->dim + i];
    for (int l = 0; l < c->n_layers; l++) {
        const Layer *w = &d->layers[l];
        double *k = kept[0][l][pos];
        norm(n, &w->attn_norm, c->dim, x, (double)c->norm_eps);
        product(q, &w->q.w, n), product(k, &w->k.w, n), product(kept[1][l][pos], &w->v.w, n);
        norm_each(q, c, &w->q_norm, c->n_heads), norm_each(k, c, &w->k_norm, c->n_kv_heads);
        rotate(q, c, l, c->n_heads, pos), rotate(k, c, l, c->n_kv_heads, pos);
        attend(o, c, l, q, pos, windows[l], n_sinks);
        product(y, &w->out.w, o);
        join(x, c, &w->attn_post_norm, y);
        norm(n, &w->ffn_norm, c->dim, x, (double)c->norm_eps);
        product(gate, &w->ffn.shared.gate.w, n), product(up, &w->ffn.shared.up.w, n);
        for (int i = 0; i < c->hidden_dim; i++) gate[i] = activated(gate[i], c->activation) * up[i];
        product(y, &w->ffn.shared.down.w, gate);
        join(x, c, &w->ffn_post_norm, y);
    }
    norm(n, &d->output_norm, c->dim, x, (double)c->norm_eps);
    product(logits, d->output, n);
    for (int i = 0; i < c->vocab_size; i++) logits[i] = capped(logits[i], c->logit_softcap);
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

static double seen_error(const Seen *seen, const Decoder *d, const int *windows, int n_sinks, const int32_t *tokens,
                         int n) {
    double error = 0, power = 0, want[MAX_DIM];
    for (int i = 0; i < n; i++) {
        reference(d, windows, n_sinks, tokens[i], i, want);
        for (int j = 0; j < d->config.vocab_size; j++) {
            double difference = (double)seen->logits[i][j] - want[j];
            error += difference * difference, power += want[j] * want[j];
        }
    }
    return error / power;
}

// n tokens: n_at_once in a block, as often as they fit, then token by token.
static void compare(Config c, int n, int n_at_once, const char *what) {
    Random r;
    random_model(&r, c);
    Decoder d;
    DecoderState s;
    char err[256];
    int windows[8];
    for (int i = 0; i < c.n_layers; i++) windows[i] = config_layer_slides(&c, i) ? c.window : 0;
    KvShape shape = {
        .n_layers = c.n_layers, .n_kv_heads = c.n_kv_heads, .head_dim = c.head_dim, .type = KV_F32, .windows = windows};
    KvCache *cache = kvcache_open(&shape, err, sizeof err);
    bool ok = cache && !config_check(&c, what, err, sizeof err) && !decoder_bind(&d, &r.model, err, sizeof err) &&
              !decoder_state_open(&s, &d, c.max_seq_len, 2, err, sizeof err) &&
              !decoder_state_reserve(&s, &d, n_at_once, err, sizeof err);
    CHECK(ok, "%s: %s", what, err);
    if (!ok) return;
    int32_t tokens[N_TOKENS];
    for (int i = 0; i < n; i++) tokens[i] = (int32_t)(test_u32() % (uint32_t)c.vocab_size);
    static Seen seen;
    seen.vocab = c.vocab_size;
    for (int i = 0, count; i < n; i += count) {
        count = n - i > n_at_once ? n_at_once : 1;
        CHECK(!kvcache_reserve(cache, count, err, sizeof err), "%s", err);
        decoder_forward(&d, &s, cache, tokens + i, count, see, &seen);
        kvcache_advance(cache, count);
    }
    double error = seen_error(&seen, &d, windows, 0, tokens, n);
    printf("  %s: NMSE %.1e\n", what, error);
    CHECK(error <= 1e-9, "%s: NMSE %.1e", what, error);
    decoder_state_close(&s);
    decoder_free(&d);
    kvcache_close(cache);
    free_model(&r);
}

static const Config base = {.dim = 24,
                            .hidden_dim = 40,
                            .n_layers = 3,
                            .n_heads = 4,
                            .n_kv_heads = 2,
                            .head_dim = 6,
                            .vocab_size = 50,
                            .max_seq_len = 64,
                            .norm_eps = 1e-5f,
                            .rope_theta = 10000,
                            .tied = true};

static void rope_pairings(void) {
    Config c = base;
    compare(c, 41, 29, "neighbours");
    c.rope_pairing = ROPE_SPLIT;
    compare(c, 41, 29, "split halves");
    c.rope_theta = 500;
    c.norm_eps = 1e-2f;
    compare(c, 41, 29, "split halves, theta 500, eps 0.01");
}

static void free_head_dim(void) {
    Config c = base;
    c.head_dim = 14; // 4 x 14 = 56 > dim
    compare(c, 41, 29, "head_dim 14 of dim 24 / 4 heads");
    c.head_dim = 2;
    c.rope_pairing = ROPE_SPLIT;
    compare(c, 41, 29, "head_dim 2, split halves");
    c.n_heads = 3, c.n_kv_heads = 1, c.head_dim = 20;
    compare(c, 41, 29, "3 heads over 1 of 20, split halves");
}

// Gemma 3 in small: most layers see a window and turn by another theta, the others see all, stretched.
static Config gemma(void) {
    Config c = base;
    c.n_layers = 4;
    c.window = 20;
    layers_add(&c.global, 2);
    c.rope_pairing = ROPE_SPLIT;
    c.rope_theta = 1e6f;
    c.rope_local_theta = 100;
    c.rope_scaling = (RopeScaling){.kind = ROPE_LINEAR, .factor = 8, .original_ctx = 64};
    c.qk_norm = QK_NORM_HEAD;
    c.post_norm = true;
    c.activation = ACT_GELU_TANH;
    c.embedding_scale = 4.8989794f;
    c.attn_scale = 0.3f;
    return c;
}

static void windows_of_layers(void) {
    Config c = gemma();
    compare(c, 41, 29, "a window in three layers of four");
    compare(c, quick() ? 300 : 640, 270, "the same over three blocks of the cache");
    if (quick()) return;
    compare(c, 640, 7, "the same in blocks of 7");
    c.attn_softcap = 2, c.logit_softcap = 1.5f;
    compare(c, 300, 100, "with caps");
    c.window = 1;
    compare(c, 600, 290, "a window of 1");
    c.window = 300;
    compare(c, N_TOKENS, 256, "a window of 300");
    memset(&c.global, 0, sizeof c.global);
    compare(c, N_TOKENS, 512, "a window of 300 in all layers");
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
    if (!o->engine) fprintf(stderr, "%s\n", err), exit(1);
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
    CHECK(s, "%s", err);
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
    for (int i = 0; s && i < (quick() ? 4 : N_OF(turns)); i++) {
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
    Decoder d;
    char err[256] = "";
    open_fixture(&o, "llama", MIXED);
    Session *s = open_session(&o, 1000, window, n_sinks);
    bool bound = !load_model(&m, folder, err, sizeof err) && !decoder_bind(&d, &m, err, sizeof err);
    CHECK(bound, "%s: %s", what, err);
    seen.vocab = o.fixture.vocab_size;
    if (s) session_visit(s, see, &seen);
    int n_all = quick() ? 330 : 600;
    for (int n = 320; s && n <= n_all; n += n < 590 && !quick() ? 90 : 1) {
        CHECK(!session_sync(s, o.tokens, n, err, sizeof err), "%s: %s", what, err);
    }
    double error = bound ? seen_error(&seen, &d, windows, n_sinks, o.tokens, n_all) : NAN;
    CHECK(error <= 1e-9, "%s: NMSE %.1e", what, error);
    session_close(s);
    if (bound) decoder_free(&d), weights_free(&m.weights);
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

// What a cache of mixed windows holds: a few blocks for each layer with a window, all of them for the others.
static void memory_of_windows(void) {
    Opened o;
    char err[256] = "";
    open_fixture(&o, "gemma3_text", "{}"); // 7 layers, one of them sees all
    Session *s = open_session(&o, 1000, 0, 0);
    uint64_t block = 0;
    for (int n = 1; s && n <= (quick() ? 300 : N_TOKENS); n++) {
        CHECK(!session_sync(s, o.tokens, n, err, sizeof err), "%s", err);
        uint64_t bytes = session_info(s).kv_bytes, blocks = (uint64_t)((n + KV_BLOCK - 1) / KV_BLOCK);
        if (n == 1) block = bytes / 7;
        uint64_t most = (blocks + 6 * (blocks < 2 ? blocks : 2)) * block;
        CHECK(bytes <= most, "%d tokens hold %llu bytes, expected at most %llu", n, (unsigned long long)bytes,
              (unsigned long long)most);
        if (n % KV_BLOCK > 9)
            CHECK(bytes == (blocks + 6) * block, "%d tokens hold %llu bytes", n, (unsigned long long)bytes);
    }
    session_close(s);
    close_fixture(&o);
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
    without_bf16();
    RUN(rope_pairings);
    RUN(free_head_dim);
    RUN(windows_of_layers);
    RUN(rewinding);
    RUN(callers_window);
    RUN(windows_against_double);
    RUN(memory_of_windows);
    RUN(dynamic_context);
    RUN(learned_positions_end);
    return test_report();
}
