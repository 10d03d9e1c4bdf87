// What products of bfloat16 and of integers and a KV_Q8 cache cost models that were trained: the divergence of the next
// token's distribution, and perplexity, over the same text. Both are in nats a token; what is found is printed.
#include "child.h"
#include "kernels.h"
#include "make_family.h"

#define TINYSTORIES SHARED_DATA "tinystories-656k-gguf/TinyStories-656K.f16.gguf"
#define STORIES260K SHARED_DATA "stories260K/stories260K.gguf"
#define OURS "models/stories.bin"
#define TEXT in_folder("text.txt")
#define BASE in_folder("base.logits")

static bool make_text(void) {
    size_t n, most = (size_t)by_speed(24000, 6000, 2200);
    struct stat st;
    if (stat(SHARED_DATA "text/stories-valid.txt", &st)) return false;
    char *text = read_file(SHARED_DATA "text/stories-valid.txt", &n);
    write_file("text.txt", text, n < most ? n : most);
    free(text);
    return true;
}

typedef struct {
    const char *path, *type; // as quantize makes it; NULL: as it is
} Model;

static const char *model_path(const Model *m) {
    if (!m->type) return m->path;
    release(&(Result[]){CALL("quantize", m->path, in_folder("model.gguf"), m->type)}[0]);
    return in_folder("model.gguf");
}

typedef struct {
    CpuLevel level;
    const char *kv;
    bool fast;
} Way;

static const char *n_threads = "2";

static json_t *score(const char *model, Way way, const char *flag) {
    setenv("TESSERA_CPU", cpu_level_name(way.level), 1);
    return told(CALL("perplexity", model, "-f", TEXT, "-c", "256", "-t", n_threads, "--kv", way.kv, "-o", "json",
                     "--precision", way.fast ? "fast" : "exact", flag, BASE));
}

// KL divergence of `way` from `base`, at most kl, and the ratio of perplexities, 1 but for a share of it. Returns the
// first.
static double compare(const Model *m, Way base, Way way, double kl, double share) {
    const char *only = getenv("TESSERA_CPU"), *model = model_path(m), *name = strrchr(m->path, '/') + 1;
    char before[32];
    snprintf(before, sizeof before, "%s", only ? only : "");
    json_decref(score(model, base, "--save-logits"));
    json_t *o = score(model, way, "--kl");
    double found = number(o, "kl"), ratio = number(o, "ppl_ratio");
    printf("    %-27s %-4s KV %-4s %10s: KL %.1e nats, at most %.1e; PPL %.5g, x %.5f; same top %.2f %%\n", name,
           m->type ? m->type : "", way.kv, cpu_level_name(way.level), found, number(o, "kl_max"), number(o, "ppl"),
           ratio, 100 * number(o, "same_top"));
    CHECK(found <= kl, "%s %s, KV %s at %s: KL %.2g, expected at most %.1g", name, m->type ? m->type : "", way.kv,
          cpu_level_name(way.level), found, kl);
    share *= by_speed(1, 3, 6); // of fewer tokens it tells less
    CHECK(fabs(ratio - 1) <= share, "%s %s, KV %s at %s: perplexity x %.5f", name, m->type ? m->type : "", way.kv,
          cpu_level_name(way.level), ratio);
    json_decref(o);
    if (*before) setenv("TESSERA_CPU", before, 1);
    else unsetenv("TESSERA_CPU");
    return found;
}

// ---- products of bfloat16 or of int16

static const struct {
    Model model;
    const char *kv;
    double kl, share;
} products[] = {
    {{TINYSTORIES, NULL}, "bf16", 1e-4, 1e-3},
    {{TINYSTORIES, "Q4_0"}, "f32", 1e-4, 1e-3},
    {{OURS, NULL}, "bf16", 1e-4, 1e-3},
    {{OURS, "Q4_K"}, "bf16", 1e-4, 1e-3},
    {{OURS, "BF16"}, "q8", 3e-4, 1e-3}, // values of the cache fall to the other side of a step
    // heads of 8 and a width of 64: a bf16 cache alone, against f32, costs it 2.4e-4
    {{STORIES260K, "Q8_0"}, "f32", 1.5e-4, 1e-3},
    {{STORIES260K, "BF16"}, "bf16", 1e-3, 2e-3},
    {{STORIES260K, NULL}, "bf16", 3e-8, 1e-6}, // F32: none of its products is of bfloat16
};

static void at_level(CpuLevel level) {
    for (int i = 0; i < N_OF(products); i += by_speed(1, 3, 3)) {
        struct stat st;
        if (stat(products[i].model.path, &st)) continue;
        Way base = {below_rounding(level), products[i].kv, false}, way = {level, products[i].kv, false};
        compare(&products[i].model, base, way, products[i].kl, products[i].share);
    }
}

static bool is_left_out(CpuLevel level) { // from outside
    const char *only = getenv("TESSERA_CPU");
    return only && *only && strcmp(only, cpu_level_name(level)) != 0;
}

static void rounded_products(void) {
    int best = in_child(best_level_child), n = 0;
    for (int r = 0; r <= best && r < N_LEVELS; r++) {
        if (!rounds_products((CpuLevel)r) || is_left_out((CpuLevel)r)) continue;
        at_level((CpuLevel)r);
        n++;
    }
    if (n) return;
    printf("  (no rounded products here)\n");
    test_was_skipped = 1;
}

// ---- products of int8, or of int6 of blocks that have them: what they cost, that they are there, and that threads
// change no bit

static void products_of_int8(void) {
    CpuLevel level = (CpuLevel)in_child(best_level_child);
    struct stat st;
    const Kernels *k = kernels_for(level);
    if (!(k->int8 || k->int6) || is_left_out(level) || stat(OURS, &st)) {
        printf("  (no products of int8 here)\n");
        test_was_skipped = 1;
        return;
    }
    double kl[2];
    for (int i = 0; i < 2; i++) {
        n_threads = i ? "3" : "1";
        kl[i] = compare(&(Model){OURS, k->int8 ? "Q8_0" : "Q4_0"}, (Way){below_rounding(level), "bf16", false},
                        (Way){level, "bf16", true}, 2e-3, 5e-3);
    }
    n_threads = "2";
    CHECK(kl[0] == kl[1] && kl[0] > 1e-4, "KL with 1 thread %.9g, with 3 %.9g", kl[0], kl[1]);
}

// ---- tokens that are read one by one, their vectors in int8

// KL divergence of softmax(q) from softmax(p).
static double divergence(const float *p, const float *q, int n) {
    double p_sum = 0, q_sum = 0, kl = 0;
    for (int i = 0; i < n; i++) {
        p_sum += exp((double)p[i]);
        q_sum += exp((double)q[i]);
    }
    for (int i = 0; i < n; i++) {
        kl += exp((double)p[i]) / p_sum * ((double)p[i] - (double)q[i] - log(p_sum) + log(q_sum));
    }
    return kl;
}

// What it costs is near what one rounding to 127 steps does: neither nothing nor more.
static void vectors_of_int8(void) {
    static const struct {
        const char *name;
        DType dtype;
    } types[] = {{"Q4_0", DTYPE_Q4_0}, {"Q4_K", DTYPE_Q4_K}, {"Q6_K", DTYPE_Q6_K}, {"Q8_0", DTYPE_Q8_0}};
    const Kernels *k = kernels();
    struct stat st;
    if (!k->takes_bytes || stat(OURS, &st)) {
        printf("  (no vectors of int8 here)\n");
        test_was_skipped = 1;
        return;
    }
    size_t n_text;
    char err[256] = "", *text = read_file(TEXT, &n_text);
    for (int i = 0; i < N_OF(types); i++) {
        Engine *e = engine_open(model_path(&(Model){OURS, types[i].name}), NULL, err, sizeof err);
        NEED(e, "%s", err);
        int32_t *tokens;
        int n = engine_encode(e, text, n_text, true, false, &tokens, err, sizeof err),
            vocab = engine_info(e).vocab_size;
        CHECK(n > 60, "%s", err);
        if (n > by_speed(400, 200, 60)) n = by_speed(400, 200, 60);
        Session *exact = need_session(e, &(SessionOptions){.n_threads = 2, .kv = KV_F32});
        Session *fast = need_session(e, &(SessionOptions){.n_threads = 2, .kv = KV_F32, .precision = PRECISION_FAST});
        double kl = 0;
        for (int t = 1; t <= n; t++) {
            CHECK(!session_sync(exact, tokens, t, err, sizeof err) && !session_sync(fast, tokens, t, err, sizeof err),
                  "%s", err);
            kl += divergence(session_logits(exact), session_logits(fast), vocab) / n;
        }
        printf("    %-27s %-4s one token at a time: KL %.1e nats\n", OURS, types[i].name, kl);
        CHECK(k->takes_bytes(types[i].dtype) ? kl > 5e-5 && kl < 6e-4 : kl == 0, "%s: KL %.2g", types[i].name, kl);
        free(tokens);
        session_close(exact);
        session_close(fast);
        engine_close(e);
    }
    free(text);
}

// ---- a cache of int8

static const struct {
    Model model;
    double kl; // twice to three times what it gave
} caches[] = {{{TINYSTORIES, NULL}, 3e-4}, {{OURS, NULL}, 2e-4}, {{STORIES260K, NULL}, 1.2e-2}};

static void cache_of_int8(void) {
    const char *only = getenv("TESSERA_CPU");
    CpuLevel level = (CpuLevel)in_child(best_level_child);
    for (int r = 0; only && r < N_LEVELS; r++) {
        if (!strcmp(only, cpu_level_name((CpuLevel)r))) level = (CpuLevel)r;
    }
    for (int i = 0; i < N_OF(caches); i++) {
        struct stat st;
        if (stat(caches[i].model.path, &st)) continue;
        compare(&caches[i].model, (Way){level, "f32", false}, (Way){level, "q8", false}, caches[i].kl, 5e-3);
    }
}

int main(void) {
    folder_make();
    need_program("perplexity");
    need_program("quantize");
    if (make_text()) {
        RUN(rounded_products);
        RUN(products_of_int8);
        RUN(vectors_of_int8);
        RUN(cache_of_int8);
    } else {
        printf("  (no %stext here)\n", SHARED_DATA);
        test_n_skipped++;
    }
    folder_remove();
    return test_report();
}
