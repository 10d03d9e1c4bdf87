// check_logits: the engine, through its public header, on llama2.c files against the forward pass of forward.h (what is
// read from such files is check_load's). Then equalities that need no reference (thread counts, prefill and token by
// token, reuse and fresh), failures that must leave a session usable, and the known text.
//
// Measure: NMSE of the logits, sum (a - b)^2 / sum b^2, at every position. fp32 arithmetic lands near 1e-12. For
// the bf16 cache the reference rounds K and V to bf16 too; what is left is a rounding that falls the other way now
// and then. What bf16 costs against the exact model is printed.
//
// At a level with products of bfloat16, what they are allowed is in proportion to what rounding the operands of these
// products costs the reference: of linear layers whose weights are not F32, and of attention over a bf16 cache, each
// with rows of a multiple of 32. Where a model has neither, the limits are those of every level.
#include "forward.h"
#include "load.h"
#include "make_bin.h"
#include "tessera.h"

#include <limits.h>

static int best_of(const double *logits, int n) {
    int best = 0;
    for (int i = 1; i < n; i++) best = logits[i] > logits[best] ? i : best;
    return best;
}

// ---- what the children check: made once, before forking

static const char *bin_path, *tokenizer_path;
static char made_bin[200], made_tokenizer[200];
static int vocab, n_tokens, window, n_sinks;
static int32_t *tokens;
static double *expected[2];                  // [n_tokens][vocab], with a cache of KV_BF16 and of KV_F32 (exact)
static double products_cost[N_ROUNDINGS][2]; // what rounded products cost these: the worst position's NMSE

static void free_known(void) {
    free(tokens);
    free(expected[0]);
    free(expected[1]);
    tokens = NULL;
    expected[0] = expected[1] = NULL;
}

static Timeline open_timeline(const Model *m, int kv) {
    static int windows[MAX_LAYERS];
    for (int l = 0; l < m->config.n_layers; l++) windows[l] = window;
    Timeline t = timeline_open(m, windows, n_tokens);
    t.n_sinks = n_sinks;
    t.bf16 = kv == KV_BF16;
    return t;
}

static double cost_of(const double *rounded, const double *exact) {
    double error = 0, power = 0;
    for (int i = 0; i < vocab; i++) {
        error += (rounded[i] - exact[i]) * (rounded[i] - exact[i]);
        power += exact[i] * exact[i];
    }
    return error / power;
}

static void know_products(const Model *m, int kv, Rounding rounding) {
    double *cost = &products_cost[rounding][kv];
    bool rounds = rounding == TO_BF16 && rounds_attention(&m->config.kinds[0], kv == KV_BF16);
    for (size_t i = 0; i < weights_count(&m->weights); i++)
        rounds |= rounds_linear(weights_at(&m->weights, i), rounding);
    *cost = 0;
    if (!rounds || (rounding == TO_INT16 && !kernels_for(LEVEL_AVX2INT))) return;
    Timeline t = open_timeline(m, kv);
    double *logits = need(sizeof *logits * (size_t)vocab);
    t.rounded = rounding;
    for (int i = 0; i < n_tokens; i++) {
        timeline_step(&t, tokens[i], logits);
        *cost = fmax(*cost, cost_of(logits, expected[kv] + (int64_t)i * vocab));
    }
    free(logits);
    timeline_close(&t);
}

// Random tokens, or with greedy those that the model itself says after BOS.
static void know(int n, int w, int sinks, bool greedy) {
    char err[300] = "";
    Model m;
    free_known();
    if (load_model(&m, bin_path, err, sizeof err)) {
        fprintf(stderr, "%s\n", err);
        exit(1);
    }
    vocab = m.config.vocab_size;
    n_tokens = n;
    window = w;
    n_sinks = sinks;
    tokens = need(sizeof *tokens * (size_t)n);
    for (int kv = 1; kv >= 0; kv--) {
        double *logits = expected[kv] = need(sizeof(double) * (size_t)n * (size_t)vocab);
        Timeline t = open_timeline(&m, kv);
        for (int i = 0; i < n; i++) {
            if (kv == KV_F32)
                tokens[i] = !greedy ? pick(vocab) : i ? best_of(logits + (int64_t)(i - 1) * vocab, vocab) : 1;
            timeline_step(&t, tokens[i], logits + (int64_t)i * vocab);
        }
        timeline_close(&t);
        know_products(&m, kv, TO_BF16);
        know_products(&m, kv, TO_INT16);
    }
    weights_free(&m.weights);
}

static void make_model(const BinSpec *spec) {
    snprintf(made_bin, sizeof made_bin, BIN_DIR "logits%d.bin", (int)getpid());
    snprintf(made_tokenizer, sizeof made_tokenizer, BIN_DIR "logits%d.tokenizer.bin", (int)getpid());
    make_bin(made_bin, spec);
    make_tokenizer_bin(made_tokenizer, spec->vocab_size, spec->seed);
    bin_path = made_bin;
    tokenizer_path = made_tokenizer;
}

static void remove_model(void) {
    remove(made_bin);
    remove(made_tokenizer);
}

static Engine *open_engine(void) {
    char err[300] = "";
    Engine *e = engine_open(bin_path, tokenizer_path, err, sizeof err);
    if (e) return e;
    fprintf(stderr, "engine_open(%s): %s\n", bin_path, err);
    exit(1);
}

static Session *open_session(const Engine *e, KvType kv, int n_threads) {
    char err[300] = "";
    SessionOptions o = {.n_threads = n_threads, .window = window, .n_sinks = n_sinks, .kv = kv};
    Session *s = session_open(e, &o, err, sizeof err);
    if (s) return s;
    fprintf(stderr, "session_open: %s\n", err);
    exit(1);
}

typedef struct {
    float *logits;   // [n_tokens][vocab]
    int first, next; // positions seen; -1: none yet
    bool in_order;
} Seen;

static Seen seen_open(void) {
    return (Seen){.logits = need_floats((int64_t)n_tokens * vocab), .first = -1, .next = -1, .in_order = true};
}

static void see(void *context, int position, const float *logits) {
    Seen *seen = context;
    if (seen->next < 0) seen->first = seen->next = position;
    if (position != seen->next || position < 0 || position >= n_tokens) {
        seen->in_order = false;
        return;
    }
    memcpy(seen->logits + (int64_t)position * vocab, logits, sizeof(float) * (size_t)vocab);
    seen->next++;
}

static void sync_to(Session *s, const int32_t *ids, int n, const char *what) {
    char err[300] = "";
    CHECK(!session_sync(s, ids, n, err, sizeof err), "%s: sync %d: %s", what, n, err);
    CHECK(session_length(s) == n, "%s: sync %d leaves length %d", what, n, session_length(s));
}

// A fresh session over ids[0..n), the last few one by one: every position's logits. The caller frees seen.logits.
static Seen run_fresh(const Engine *e, KvType kv, int n_threads, const int32_t *ids, int n) {
    Session *s = open_session(e, kv, n_threads);
    Seen seen = seen_open();
    session_visit(s, see, &seen);
    for (int at = n > 20 ? n - 3 : n; at <= n; at++) sync_to(s, ids, at, "fresh");
    CHECK(seen.in_order && seen.first == 0 && seen.next == n, "%d tokens: the visitor saw positions %d to %d, %s", n,
          seen.first, seen.next, seen.in_order ? "in order" : "out of order");
    CHECK(!memcmp(session_logits(s), seen.logits + (int64_t)(n - 1) * vocab, sizeof(float) * (size_t)vocab),
          "%d tokens: session_logits differ from what the visitor saw last", n);
    session_close(s);
    return seen;
}

static double worst_nmse(const Seen *seen, const double *logits, int n, int *where) {
    double worst = 0;
    *where = 0;
    for (int i = 0; i < n; i++) {
        double e = nmse(seen->logits + (int64_t)i * vocab, logits + (int64_t)i * vocab, vocab);
        if (e <= worst) continue;
        worst = e;
        *where = i;
    }
    return worst;
}

static Rounding rounding_here(void) {
    if (kernels()->bf16) return TO_BF16;
    return kernels()->int16 ? TO_INT16 : NOT_ROUNDED;
}

// What rounded products may add: other sums, other roundings.
static double of_products(KvType kv) {
    return 2 * products_cost[rounding_here()][kv];
}

static double worst_of[2], bf16_cost; // of this child, for the printed line

// For bf16: what its rounding costs the reference, so that a share of it is the tolerance. A value of K or V within
// fp32 error of a tie is stored on the other side, and one such value costs as much as any other rounded one.
static double tolerance_of(KvType kv, int n) {
    double cost = 0;
    for (int64_t at = 0; kv == KV_BF16 && at < (int64_t)n * vocab; at += vocab) {
        cost = fmax(cost, cost_of(expected[KV_BF16] + at, expected[KV_F32] + at));
    }
    return (kv == KV_F32 ? 1e-9 : 0.3 * cost) + of_products(kv);
}

static void against_reference(const Engine *e, KvType kv, int n_threads, int n) {
    Seen seen = run_fresh(e, kv, n_threads, tokens, n);
    int where;
    double worst = worst_nmse(&seen, expected[kv], n, &where);
    worst_of[kv] = fmax(worst_of[kv], worst);
    CHECK(worst <= tolerance_of(kv, n), "%s, %d tokens, %d threads, window %d sinks %d: NMSE %.2g at position %d",
          kv == KV_F32 ? "f32" : "bf16", n, n_threads, window, n_sinks, worst, where);
    if (kv == KV_BF16) bf16_cost = worst_nmse(&seen, expected[KV_F32], n, &where);
    free(seen.logits);
}

static void same_at_any_thread_count(const Engine *e, KvType kv, int n) {
    static const int counts[] = {2, 3, 7};
    Seen one = run_fresh(e, kv, 1, tokens, n);
    for (int i = 0; i < N_OF(counts) - quick(); i++) {
        Seen many = run_fresh(e, kv, counts[i], tokens, n);
        CHECK(!memcmp(one.logits, many.logits, sizeof(float) * (size_t)n * (size_t)vocab),
              "%d tokens: %d threads differ from 1 by NMSE %.2g", n, counts[i],
              nmse_f32(many.logits, one.logits, n * vocab));
        free(many.logits);
    }
    free(one.logits);
}

// ---- random models

#define MODEL(dim_, hidden, layers, heads, kv_heads, vocabulary, tied_, version_, group_)                              \
    {                                                                                                                  \
        .dim = dim_, .hidden_dim = hidden, .n_layers = layers, .n_heads = heads, .n_kv_heads = kv_heads,               \
        .vocab_size = vocabulary, .seq_len = 1024, .tied = tied_, .version = version_, .group = group_                 \
    }

static const BinSpec specs[] = {
    MODEL(64, 172, 3, 4, 4, 300, true, 0, 0),     // MHA, head_dim 16
    MODEL(48, 70, 2, 8, 2, 277, false, 1, 0),     // GQA, head_dim 6, nothing a multiple of 8 but dim
    MODEL(160, 96, 2, 2, 1, 261, false, 0, 0),    // MQA, head_dim 80
    MODEL(18, 31, 5, 9, 3, 300, true, 1, 0),      // GQA of 3, head_dim 2, odd sizes
    MODEL(40, 64, 3, 2, 1, 264, true, 2, 8),      // int8, head_dim 20, groups of 8
    MODEL(128, 192, 2, 2, 2, 288, false, 2, 256), // int8, head_dim 64, a group is two rows
    MODEL(48, 70, 2, 8, 2, 278, false, 2, 96),    // int8, groups of 96 in rows of 48 and of 70
    MODEL(56, 80, 2, 7, 1, 272, true, 2, 16),     // int8, MQA of 7 heads, head_dim 8, groups of 16 in rows of 56
    MODEL(96, 1100, 1, 6, 2, 300, true, 0, 0),    // rows longer than prefill unpacks at a time, threaded decode
    MODEL(544, 60, 1, 17, 1, 290, false, 2, 32),  // the same in int8
    MODEL(1056, 4, 1, 33, 1, 5, true, 1, 0),      // rows so short that an item of decode could hold too many
    MODEL(128, 4, 1, 1, 1, 7, true, 1, 0),        // one head of 128, a vocabulary smaller than a panel
};

static void make_spec(int i) {
    BinSpec spec = specs[i];
    spec.seed = (uint64_t)(i + 1);
    make_model(&spec);
}

// Beyond a KV block and a prefill block; a large model is slow in double.
static int text_length(const BinSpec *s) {
    int size = s->dim * (s->dim + s->hidden_dim);
    if (size > 100000) return size > 1000000 || quick() ? 30 : 100;
    return quick() ? 280 : 700;
}

static void model_child(void) {
    static const int lengths[] = {1, 2, 17, 300};
    Engine *e = open_engine();
    int n = cpu_level() == LEVEL_SCALAR && n_tokens > 330 ? 330 : n_tokens; // it is slow
    worst_of[0] = worst_of[1] = bf16_cost = 0;
    same_at_any_thread_count(e, KV_F32, n);
    against_reference(e, KV_F32, 2, n);
    for (int i = 0; i < N_OF(lengths) - quick() && lengths[i] < n; i++) against_reference(e, KV_F32, 1, lengths[i]);
    against_reference(e, KV_BF16, 2, n);
    engine_close(e);
    if (cpu_level() < cpu_best_level() && cpu_level() != below_rounding(cpu_best_level())) return;
    printf("    %-10s window %d, sinks %d: NMSE %.1e, with a bf16 cache %.1e (which costs %.1e)",
           cpu_level_name(cpu_level()), window, n_sinks, worst_of[KV_F32], worst_of[KV_BF16], bf16_cost);
    if (of_products(KV_BF16) > 0)
        printf("; rounded products cost %.1e, %.1e", of_products(KV_F32) / 2, of_products(KV_BF16) / 2);
    printf("\n");
}

static void random_models(void) {
    for (int i = 0; i < N_OF(specs); i += by_speed(1, 3, 4)) {
        const BinSpec *s = &specs[i];
        printf("  dim %d, hidden %d, %d layers, heads %d/%d of %d, vocabulary %d %s, v%d\n", s->dim, s->hidden_dim,
               s->n_layers, s->n_heads, s->n_kv_heads, s->dim / s->n_heads, s->vocab_size, s->tied ? "tied" : "untied",
               s->version);
        make_spec(i);
        know(text_length(s), 0, 0, false);
        at_every_level(model_child);
    }
}

static void windows(void) {
    static const struct {
        int spec, window, n_sinks;
    } cases[] = {{0, 50, 0}, {3, 64, 4}, {4, 300, 1}, {1, 1, 0}, {7, 256, 0}, {1, 5, 300}, {0, 5000, 3}};
    for (int i = 0; i < N_OF(cases) - 5 * quick(); i++) {
        make_spec(cases[i].spec);
        know(text_length(&specs[0]), cases[i].window, cases[i].n_sinks, false);
        at_every_level(model_child);
    }
}

// ---- the same text on other ways

static void steps_child(void) {
    Engine *e = open_engine();
    for (int kv = 0; kv < 2; kv++) {
        Seen whole = run_fresh(e, (KvType)kv, 2, tokens, n_tokens), steps = seen_open();
        Session *s = open_session(e, (KvType)kv, 2);
        session_visit(s, see, &steps);
        for (int n = 1; n <= n_tokens; n++) sync_to(s, tokens, n, "token by token");
        CHECK(steps.in_order && steps.first == 0 && steps.next == n_tokens, "token by token: positions out of order");
        double worst = 0, limit = (kv == KV_F32 ? 1e-10 : 1e-6) + of_products((KvType)kv);
        for (int64_t i = 0; i < n_tokens; i++) {
            worst = fmax(worst, nmse_f32(steps.logits + i * vocab, whole.logits + i * vocab, vocab));
        }
        CHECK(worst <= limit, "%s, window %d sinks %d: token by token differs from at once by NMSE %.2g",
              kv == KV_F32 ? "f32" : "bf16", window, n_sinks, worst);
        session_close(s);
        free(whole.logits);
        free(steps.logits);
    }
    engine_close(e);
}

static void token_by_token(void) {
    make_spec(0);
    know(quick() ? 70 : 300, 0, 0, false);
    at_every_level(steps_child);
    make_spec(4);
    know(quick() ? 70 : 500, 64, 4, false);
    at_every_level(steps_child);
    make_spec(5);
    know(quick() ? 40 : 150, 0, 0, false);
    at_every_level(steps_child);
}

// Sync s to ids[0..n) and compare with a fresh session's logits there, over these tokens or a longer list that
// begins with them. The tolerance of
// bf16: a rounding of K or V that falls the other way.
static void as_fresh(Session *s, const Seen *fresh, KvType kv, const int32_t *ids, int n, const char *what) {
    Seen seen = seen_open();
    session_visit(s, see, &seen);
    sync_to(s, ids, n, what);
    CHECK(seen.in_order && (seen.next < 0 || seen.next == n), "%s: the visitor saw %d to %d of %d", what, seen.first,
          seen.next, n);
    session_visit(s, NULL, NULL);
    double error = nmse_f32(session_logits(s), fresh->logits + (int64_t)(n - 1) * vocab, vocab);
    CHECK(error <= (kv == KV_F32 ? 1e-10 : 1e-6) + of_products(kv),
          "%s, %s, window %d sinks %d, %d tokens: NMSE %.2g from a fresh session", what, kv == KV_F32 ? "f32" : "bf16",
          window, n_sinks, n, error);
    free(seen.logits);
}

static void reuse_by(const Engine *e, KvType kv) {
    int n = n_tokens;
    int32_t *other = need(sizeof *other * (size_t)n);
    Session *s = open_session(e, kv, 2);
    Seen fresh = run_fresh(e, kv, 2, tokens, n);
    const int extend[] = {1, 2, 17, 17, 60, 61, n - 1, n, n};
    for (int i = 0; i < N_OF(extend); i += by_speed(1, 2, 3)) as_fresh(s, &fresh, kv, tokens, extend[i], "extend");
    const int rewind[] = {n - 1, n - 5, n / 2, n / 2 + 1, n, 61, 60, n, 1, n};
    for (int i = 0; i < N_OF(rewind); i += by_speed(1, 2, 3)) as_fresh(s, &fresh, kv, tokens, rewind[i], "rewind");
    const int change[] = {n / 3, n - 1, 0, 32, n - 2, n / 2};
    for (int i = 0; i < N_OF(change) - 3 * (window > 0 || quick()); i++) {
        memcpy(other, tokens, sizeof *other * (size_t)n);
        other[change[i]] = (other[change[i]] + 1) % vocab;
        Seen changed = run_fresh(e, kv, 2, other, n);
        as_fresh(s, &changed, kv, other, n, "change in the middle");
        as_fresh(s, &changed, kv, other, n - 1 - i, "and rewind");
        as_fresh(s, &fresh, kv, tokens, n, "and back");
        free(changed.logits);
    }
    session_close(s);
    free(fresh.logits);
    free(other);
}

// What was rewound leaves no trace: 50 tokens, then others, then token 51 must be 50 and 51, to the bit.
static void no_trace(const Engine *e, KvType kv) {
    int32_t other[200];
    for (int i = 0; i < 200; i++) other[i] = i < 50 ? tokens[i] : pick(vocab);
    Session *a = open_session(e, kv, 3), *b = open_session(e, kv, 1);
    other[50] = (tokens[50] + 1) % vocab;
    sync_to(a, tokens, 50, "no trace");
    sync_to(a, other, 200, "no trace");
    sync_to(a, tokens, 51, "no trace");
    sync_to(b, tokens, 50, "no trace");
    sync_to(b, tokens, 51, "no trace");
    CHECK(!memcmp(session_logits(a), session_logits(b), sizeof(float) * (size_t)vocab),
          "rewound tokens left a trace: NMSE %.2g", nmse_f32(session_logits(a), session_logits(b), vocab));
    session_close(a);
    session_close(b);
}

static void reuse_child(void) {
    Engine *e = open_engine();
    if (!window || !quick()) reuse_by(e, KV_F32);
    if (!window || cpu_level() != LEVEL_SCALAR) reuse_by(e, KV_BF16);
    if (!window) no_trace(e, KV_F32);
    if (!window) no_trace(e, KV_BF16);
    engine_close(e);
}

static void reuse(void) {
    make_spec(1);
    know(quick() ? 90 : 300, 0, 0, false);
    at_every_level(reuse_child);
    make_spec(5); // in bfloat16, where a level has it
    know(quick() ? 70 : 220, 0, 0, false);
    at_every_level(reuse_child);
}

static void reuse_in_a_window(void) { // rewinding behind what the window kept starts over
    make_spec(3);
    know(quick() ? 330 : 400, 64, 0, false);
    at_every_level(reuse_child);
    make_spec(1);
    know(560, 30, 4, false);
    if (!quick()) at_every_level(reuse_child);
}

// ---- failures leave a session usable

static void fails(Session *s, const int32_t *ids, int n, const char *what) {
    char err[300] = "";
    CHECK(session_sync(s, ids, n, err, sizeof err) == -1, "%s: sync %d did not fail", what, n);
    CHECK(one_line(err), "%s: sync %d: no line of text: \"%s\"", what, n, err);
    char small[9] = "--------";
    CHECK(session_sync(s, ids, n, small, 6) == -1 && memchr(small, 0, 6) && small[6] == '-' && small[7] == '-',
          "%s: sync %d wrote beyond a short err", what, n);
    int length = session_length(s);
    CHECK(length >= 0 && length <= session_info(s).n_ctx, "%s: sync %d leaves length %d", what, n, length);
}

static void failures_child(void) {
    enum { N_CTX = 50 };
    char err[300] = "";
    Engine *e = open_engine();
    for (int kv = 0; kv < 2; kv++) {
        SessionOptions o = {.n_ctx = N_CTX, .n_threads = 2, .kv = (KvType)kv};
        Session *s = session_open(e, &o, err, sizeof err);
        NEED(s, "session_open: %s", err);
        Seen fresh = run_fresh(e, (KvType)kv, 2, tokens, N_CTX);
        CHECK(session_info(s).n_ctx == N_CTX && session_info(s).n_threads == 2, "n_ctx %d, n_threads %d",
              session_info(s).n_ctx, session_info(s).n_threads);
        CHECK(session_length(s) == 0, "a new session has length %d", session_length(s));
        fails(s, tokens, 0, "no tokens, nothing yet");
        fails(s, tokens, N_CTX + 1, "context full, at once");
        as_fresh(s, &fresh, (KvType)kv, tokens, 20, "after context full");
        as_fresh(s, &fresh, (KvType)kv, tokens, N_CTX, "to the last place");
        fails(s, tokens, N_CTX + 1, "context full, the next token");
        fails(s, tokens, n_tokens, "context full, many more");
        as_fresh(s, &fresh, (KvType)kv, tokens, N_CTX, "after context full");
        as_fresh(s, &fresh, (KvType)kv, tokens, 7, "after context full");
        fails(s, tokens, 0, "no tokens");
        fails(s, tokens, -3, "a negative number of tokens");
        as_fresh(s, &fresh, (KvType)kv, tokens, 30, "after no tokens");
        const int32_t bad[] = {-1, vocab, vocab + 1, INT32_MAX, INT32_MIN};
        const int at[] = {0, 1, 29, 30, 31, 40};
        for (int i = 0; i < N_OF(bad) * N_OF(at); i += 1 + 3 * quick()) {
            int32_t ids[45];
            memcpy(ids, tokens, sizeof ids);
            ids[at[i / N_OF(bad)]] = bad[i % N_OF(bad)];
            fails(s, ids, 45, "bad id");
            if (i % 4 == 0) as_fresh(s, &fresh, (KvType)kv, tokens, 25 + i % 13, "after a bad id");
        }
        session_close(s);
        free(fresh.logits);
    }
    session_close(NULL);
    engine_close(e);
    engine_close(NULL);
}

static void failures(void) {
    make_spec(0);
    know(100, 0, 0, false);
    at_every_level(failures_child);
}

// ---- real models

static const char story[] = "Once upon a time, there was a little girl named Lily. She loved to play outside in "
                            "the park. One day, she saw a big, red "
                            "ball. She wanted to play with it, but it was too high.\nLily's mom said, \"Lily, "
                            "let's go to the park.\" Lily was sad and "
                            "didn't know what to do. She said, \"I want to play with your ball, but I can't find "
                            "it.\"\nLily was sad and didn't know "
                            "what to do. She said, \"I'm sorry, Lily. I didn't know what to do.\"\nLily didn't "
                            "want to help her mom, so she";

static void story_by(const Engine *e, KvType kv, int n_threads) {
    char text[2000] = "";
    int32_t ids[201] = {1};
    Session *s = open_session(e, kv, n_threads);
    TextOut *out = textout_open(e, true);
    for (int n = 1; n <= 200; n++) {
        sync_to(s, ids, n, "story");
        const float *logits = session_logits(s);
        int best = 0;
        for (int i = 1; i < vocab; i++) best = logits[i] > logits[best] ? i : best;
        ids[n] = best;
        strncat(text, textout_push(out, best), sizeof text - strlen(text) - 1);
    }
    strncat(text, textout_finish(out), sizeof text - strlen(text) - 1);
    CHECK(!strcmp(text, story), "%s, %d threads: the story differs:\n%s", kv == KV_F32 ? "f32" : "bf16", n_threads,
          text);
    textout_close(out);
    session_close(s);
}

static void story_child(void) {
    Engine *e = open_engine();
    EngineInfo info = engine_info(e);
    CHECK(info.dim == 64 && info.hidden_dim == 172 && info.n_layers == 5 && info.n_heads == 8 && info.n_kv_heads == 4 &&
              info.vocab_size == 512 && info.max_seq_len == 512 && info.bos_id == 1,
          "engine_info of stories260K");
    story_by(e, KV_BF16, 2);
    if (!quick()) story_by(e, KV_F32, 1);
    if (!quick()) story_by(e, KV_F32, 3);
    engine_close(e);
    model_child();
}

#define STORIES SHARED_DATA "stories260K/"

static void stories260K(void) {
    SKIP_WITHOUT(STORIES "stories260K.bin");
    bin_path = STORIES "stories260K.bin";
    tokenizer_path = STORIES "tok512.bin";
    know(quick() ? 100 : 512, 0, 0, true);
    at_every_level(story_child);
}

static void stories260K_q8(void) {
    SKIP_WITHOUT(STORIES "stories260K-q8.bin");
    bin_path = STORIES "stories260K-q8.bin";
    tokenizer_path = STORIES "tok512.bin";
    know(quick() ? 100 : 512, 0, 0, true);
    at_every_level(model_child);
}

int main(void) {
    // Checks of kernels and of attention try every level.
    if (by_speed(0, 0, 1)) setenv("TESSERA_TEST_BEST_LEVEL", "1", 0);
    RUN(random_models);
    RUN(windows);
    RUN(token_by_token);
    RUN(reuse);
    RUN(reuse_in_a_window);
    RUN(failures);
    RUN(stories260K);
    RUN(stories260K_q8);
    free_known();
    remove_model();
    return test_report();
}
