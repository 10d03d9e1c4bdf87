// The sampler against a reference in double, and the options that the library refuses by name: of samplers and of
// sessions.
#include "tessera.h"
#include "make_bin.h"
#include "reference.h"

#include <math.h>

enum { VOCAB = 40, MAX_TEXT = 200, DRAWS = 20000 };
#define MODEL "models/stories.bin"

typedef struct {
    SamplerOptions o;
    const float *logits; // [VOCAB]
    const int32_t *text; // [n]
    int n;
} Case;

// The probabilities of the next token [VOCAB], as the documentation of the options says.
static void reference(const Case *c, double *p) {
    const SamplerOptions *o = &c->o;
    double logit[VOCAB], repeat = o->repeat_penalty == 0 ? 1 : (double)o->repeat_penalty;
    int order[VOCAB], kept = VOCAB, last = o->penalty_last_n == 0 ? 64 : o->penalty_last_n;
    for (int i = 0; i < VOCAB; i++) {
        logit[i] = (double)c->logits[i];
        for (int b = 0; b < o->n_bias; b++) logit[i] += o->bias[b].id == i ? (double)o->bias[b].bias : 0;
        int count = 0;
        for (int t = last < 0 || last > c->n ? 0 : c->n - last; t < c->n; t++) count += c->text[t] == i;
        if (count) {
            logit[i] = logit[i] > 0 ? logit[i] / repeat : logit[i] * repeat;
            logit[i] -= count * (double)o->frequency_penalty + (double)o->presence_penalty;
        }
        order[i] = i;
        p[i] = 0;
    }
    for (int i = 0; i < VOCAB; i++) {
        for (int j = i; j > 0 && logit[order[j]] > logit[order[j - 1]]; j--) {
            int swap = order[j];
            order[j] = order[j - 1];
            order[j - 1] = swap;
        }
    }
    if (o->temperature == 0) {
        p[order[0]] = 1;
        return;
    }
    if (o->top_k && o->top_k < kept) kept = o->top_k;
    double total = 0, sum = 0, best = logit[order[0]];
    for (int i = 0; i < kept; i++) total += exp(logit[order[i]] - best);
    for (int i = 0; i < kept && o->top_p > 0 && o->top_p < 1; i++) {
        sum += exp(logit[order[i]] - best) / total;
        if (sum >= (double)o->top_p) kept = i + 1;
    }
    for (int i = 0; i < kept && o->min_p > 0; i++) {
        if (exp(logit[order[i]] - best) < (double)o->min_p) kept = i;
    }
    total = 0;
    for (int i = 0; i < kept; i++) total += p[order[i]] = exp((logit[order[i]] - best) / (double)o->temperature);
    for (int i = 0; i < kept; i++) p[order[i]] /= total;
}

static void compare(const Case *c, const char *what) {
    char err[256];
    double p[VOCAB];
    int found[VOCAB] = {0};
    Sampler *s = sampler_open(&c->o, VOCAB, err, sizeof err);
    CHECK(s, "%s: %s", what, err);
    if (!s) return;
    reference(c, p);
    for (int i = 0; i < DRAWS; i++) {
        sampler_history(s, c->text, c->n);
        found[sampler_pick(s, c->logits)]++;
    }
    for (int i = 0; i < VOCAB; i++) {
        double spread = sqrt(DRAWS * p[i] * (1 - p[i]));
        CHECK(fabs(found[i] - DRAWS * p[i]) <= 5 * spread + (p[i] > 0 && p[i] < 1 ? 1 : 0),
              "%s: token %d: expected %.1f of %d, found %d", what, i, DRAWS * p[i], DRAWS, found[i]);
    }
    sampler_close(s);
}

static const LogitBias biases[] = {{3, 2.5f}, {7, -INFINITY}, {8, -1}, {3, 0.5f}, {30, -INFINITY}};

static void test_distributions(void) {
    const struct {
        const char *what;
        SamplerOptions o;
    } rows[] = {
        {"greedy", {.temperature = 0}},
        {"plain", {.temperature = 1}},
        {"top-p 0 and 1 are off", {.temperature = 1, .top_p = 1}},
        {"as ./run", {.temperature = 0.8f, .top_k = 12, .top_p = 0.95f, .min_p = 0.05f}},
        {"repeat", {.temperature = 1, .repeat_penalty = 1.7f}},
        {"repeat, greedy", {.repeat_penalty = 3}},
        {"repeat below 1", {.temperature = 1, .repeat_penalty = 0.5f, .top_k = 10}},
        {"frequency", {.temperature = 1, .frequency_penalty = 0.4f}},
        {"presence", {.temperature = 1, .presence_penalty = 0.9f, .penalty_last_n = 5}},
        {"negative", {.temperature = 1.2f, .presence_penalty = -0.9f, .frequency_penalty = -0.1f}},
        {"last 1", {.temperature = 1, .repeat_penalty = 2, .frequency_penalty = 1, .penalty_last_n = 1}},
        {"all", {.temperature = 1, .frequency_penalty = 0.1f, .penalty_last_n = -1}},
        {"all together",
         {.temperature = 0.9f,
          .top_k = 15,
          .top_p = 0.9f,
          .min_p = 0.02f,
          .repeat_penalty = 1.3f,
          .frequency_penalty = 0.2f,
          .presence_penalty = 0.1f,
          .penalty_last_n = 20,
          .bias = biases,
          .n_bias = N_OF(biases)}},
        {"biases", {.temperature = 1, .bias = biases, .n_bias = N_OF(biases)}},
    };
    float logits[VOCAB];
    int32_t text[MAX_TEXT];
    for (int i = 0; i < VOCAB; i++) logits[i] = 2.5f * test_uniform();
    for (int i = 0; i < MAX_TEXT; i++) text[i] = (int32_t)(test_u32() % (VOCAB / 2));
    for (int i = 0; i < N_OF(rows); i += emulated() ? 4 : 1) {
        for (int n = 0; n <= MAX_TEXT; n += MAX_TEXT / 2) {
            Case c = {.o = rows[i].o, .logits = logits, .text = text, .n = n};
            c.o.seed = (uint64_t)(17 * i + n);
            compare(&c, rows[i].what);
        }
    }
}

// A pick is part of the history of the next one: equal to setting the history each time.
static void test_picks_are_remembered(void) {
    char err[256];
    SamplerOptions o = {.temperature = 0.7f, .repeat_penalty = 1.5f, .frequency_penalty = 0.3f, .penalty_last_n = 7};
    Sampler *a = sampler_open(&o, VOCAB, err, sizeof err), *b = sampler_open(&o, VOCAB, err, sizeof err);
    int32_t text[MAX_TEXT] = {5, 5, 6};
    int n = 3, differ = 0;
    sampler_history(a, text, n);
    while (n < MAX_TEXT) {
        float logits[VOCAB];
        for (int i = 0; i < VOCAB; i++) logits[i] = 2 * test_uniform();
        sampler_history(b, text, n);
        int32_t id = sampler_pick(a, logits);
        differ += id != sampler_pick(b, logits);
        text[n++] = id;
    }
    CHECK(!differ, "%d of %d picks differ", differ, MAX_TEXT - 3);
    sampler_close(a);
    sampler_close(b);
}

static void test_everything_ruled_out_but_one(void) {
    char err[256];
    LogitBias all[VOCAB];
    float logits[VOCAB];
    for (int i = 0; i < VOCAB; i++) all[i] = (LogitBias){i, i == 11 ? 0 : -INFINITY};
    for (int i = 0; i < VOCAB; i++) logits[i] = 9 * test_uniform();
    Sampler *s =
        sampler_open(&(SamplerOptions){.temperature = 2, .bias = all, .n_bias = VOCAB}, VOCAB, err, sizeof err);
    for (int i = 0; i < 1000; i++) CHECK(sampler_pick(s, logits) == 11, "a token that is ruled out");
    sampler_close(s);
}

static void test_sampler_options(void) {
    static const LogitBias outside = {VOCAB, 1}, below = {-1, 1}, endless = {1, INFINITY}, none = {1, NAN};
    const struct {
        const char *name;
        SamplerOptions o;
    } rows[] = {
        {"temperature", {.temperature = -1}},
        {"temperature", {.temperature = NAN}},
        {"top_k", {.top_k = -1}},
        {"top_p", {.top_p = 1.5f}},
        {"top_p", {.top_p = -0.1f}},
        {"min_p", {.min_p = 2}},
        {"min_p", {.min_p = NAN}},
        {"repeat_penalty", {.repeat_penalty = -1}},
        {"frequency_penalty", {.frequency_penalty = NAN}},
        {"presence_penalty", {.presence_penalty = INFINITY}},
        {"penalty_last_n", {.penalty_last_n = -2}},
        {"n_bias", {.n_bias = -1}},
        {"n_bias", {.n_bias = 1}},
        {"bias 0", {.n_bias = 1, .bias = &outside}},
        {"bias 0", {.n_bias = 1, .bias = &below}},
        {"bias 0", {.n_bias = 1, .bias = &endless}},
        {"bias 0", {.n_bias = 1, .bias = &none}},
    };
    for (int i = 0; i < N_OF(rows); i++) {
        char err[256] = "";
        Sampler *s = sampler_open(&rows[i].o, VOCAB, err, sizeof err);
        size_t n = strlen(rows[i].name);
        CHECK(!s && !strncmp(err, rows[i].name, n) && err[n] == ':', "row %d: expected %s, found '%s'", i, rows[i].name,
              err);
        sampler_close(s);
    }
    char err[256] = "";
    CHECK(!sampler_open(NULL, 0, err, sizeof err) && !strncmp(err, "vocab_size:", 11), "%s", err);
    Sampler *s = sampler_open(NULL, 3, err, sizeof err);
    CHECK(s && sampler_pick(s, (float[]){1, 3, 2}) == 1, "no options: greedy");
    sampler_close(s);
}

static void test_session_options(void) {
    const struct {
        const char *name;
        SessionOptions o;
    } rows[] = {
        {"n_ctx", {.n_ctx = -1}},   {"n_threads", {.n_threads = -4}},
        {"window", {.window = -2}}, {"n_sinks", {.n_sinks = -7}},
        {"kv", {.kv = (KvType)9}},  {"kv", {.kv = (KvType)-1}},
        {"kv", {.kv = (KvType)3}},  {"n_sinks", {.window = 9, .n_sinks = -1}},
    };
    char err[256] = "";
    Engine *e = engine_open(MODEL, NULL, err, sizeof err);
    CHECK(e, "%s", err);
    if (!e) return;
    for (int i = 0; i < N_OF(rows); i++) {
        Session *s = session_open(e, &rows[i].o, err, sizeof err);
        size_t n = strlen(rows[i].name);
        CHECK(!s && !strncmp(err, rows[i].name, n) && err[n] == ':', "row %d: expected %s, found '%s'", i, rows[i].name,
              err);
        session_close(s);
    }
    Session *s = session_open(e, NULL, err, sizeof err);
    CHECK(s && session_info(s).n_ctx == engine_info(e).max_seq_len, "no options: the defaults");
    session_close(s);
    engine_close(e);
    CHECK(!engine_open(NULL, NULL, err, sizeof err) && !strncmp(err, "model:", 6), "%s", err);
}

typedef struct {
    int calls, last, stop_at;
} Watched;

static bool watch(void *context, int done, int n) {
    Watched *w = context;
    CHECK(done > w->last || !w->calls, "done: %d after %d", done, w->last);
    CHECK(done < n, "%d of %d", done, n);
    w->last = done;
    return ++w->calls <= w->stop_at;
}

// A prompt is stopped between two blocks, keeps what it has, and goes on to the same logits.
static void test_watch(void) {
    enum { N = 530, WORDS = 300 };
    char err[256] = "";
    int32_t tokens[N];
    make_bin(BIN_DIR "watched.bin", &(BinSpec){32, 48, 2, 4, 2, WORDS, N, .seed = 5});
    make_tokenizer_bin(BIN_DIR "watched.tokenizer.bin", WORDS, 5);
    Engine *e = engine_open(BIN_DIR "watched.bin", NULL, err, sizeof err);
    CHECK(e, "%s", err);
    if (!e) return;
    for (int i = 0; i < N; i++) tokens[i] = 3 + pick(WORDS - 3);
    SessionOptions o = {.n_ctx = N};
    Session *a = session_open(e, &o, err, sizeof err), *b = session_open(e, &o, err, sizeof err);
    Watched w = {.stop_at = 1};
    CHECK(!session_sync(a, tokens, N, err, sizeof err), "%s", err);
    session_watch(b, watch, &w);
    CHECK(session_sync(b, tokens, N, err, sizeof err) == -1 && !strcmp(err, "stopped"), "%s", err);
    CHECK(session_length(b) > 0 && session_length(b) < N, "kept %d", session_length(b));
    w = (Watched){.stop_at = N};
    CHECK(!session_sync(b, tokens, N, err, sizeof err) && w.calls >= 1, "%s", err);
    size_t bytes = sizeof(float) * (size_t)engine_info(e).vocab_size;
    CHECK(!memcmp(session_logits(a), session_logits(b), bytes), "the logits differ");
    session_close(a);
    session_close(b);
    engine_close(e);
}

// The string of a special token is printed when it is asked for, and not else.
static void test_special_text(void) {
    char err[256] = "";
    Engine *e = engine_open(MODEL, NULL, err, sizeof err);
    CHECK(e, "%s", err);
    if (!e) return;
    TextOut *t = textout_open(e, false);
    int32_t id = engine_info(e).eos_id;
    CHECK(!*textout_push(t, id), "expected no text");
    textout_show_special(t, true);
    const char *text = textout_push(t, id);
    CHECK(!strcmp(text, "</s>") || !strcmp(text, "\n</s>\n"), "found '%s'", text);
    textout_close(t);
    engine_close(e);
}

int main(void) {
    RUN(test_distributions);
    RUN(test_picks_are_remembered);
    RUN(test_everything_ruled_out_but_one);
    RUN(test_sampler_options);
    RUN(test_session_options);
    RUN(test_watch);
    RUN(test_special_text);
    return test_report();
}
