// perplexity against a recomputation in long double through tessera.h: chunks, and the divergence of a quantized model
// from its original; and the files of saved logits: what they keep. Malformed ones are in bad/logits.txt.
#include "bad/commands.h"

#include "logits_file.h"
#include "tessera.h"

#define MODEL in_folder("f32.gguf")
#define MODEL_Q4_0 in_folder("q4_0.gguf")
#define TEXT in_folder("text.txt")
#define BASE in_folder("base.logits")

enum { CONTEXT = 64 };

static void make_text(const char *name, int n_words) {
    char *text = need((size_t)n_words * 8 + 2);
    size_t n = 0;
    for (int word = 0; word < n_words; word++) {
        for (int i = 1 + pick(6); i > 0; i--) text[n++] = (char)('a' + pick(26));
        text[n++] = word % 10 == 9 ? '\n' : ' ';
    }
    memcpy(text + n, "\n", 2);
    write_text(name, text);
    free(text);
}

static void make_models(void) {
    TELLS(0, "", "", "synth", "tiny", "F32", MODEL);
    TELLS(0, "", "", "quantize", MODEL, MODEL_Q4_0, "Q4_0");
}

// ---- a run computed again

typedef struct {
    int n, n_ctx, n_chunks, n_scored, vocab; // n: tokens of the text
    int32_t *ids;
    float *logits; // [n_scored][vocab]
    int32_t *next; // [n_scored]
    int at, first; // of the running chunk
} Run;

static void keep_logits(void *context, int position, const float *logits) {
    Run *r = context;
    if (position < r->first) return;
    memcpy(r->logits + (int64_t)r->n_scored * r->vocab, logits, sizeof *logits * (size_t)r->vocab);
    r->next[r->n_scored++] = r->ids[r->at + position + 1];
}

// Every chunk in a session of its own. The text as it stands in the file, less the newline at its end.
static Run compute_run(const char *model, const char *path, int n_ctx) {
    char err[512] = "";
    Run r = {.n_ctx = n_ctx, .first = n_ctx / 2};
    size_t length;
    char *text = read_file(path, &length);
    Engine *e = engine_open(model, NULL, err, sizeof err);
    CHECK(e, "%s", err);
    r.n = e ? engine_encode(e, text, length - 1, true, false, &r.ids, err, sizeof err) : 0;
    r.n_chunks = r.n / n_ctx;
    r.vocab = e ? engine_info(e).vocab_size : 1;
    r.logits = need_floats((int64_t)r.n * r.vocab);
    r.next = need(sizeof *r.next * (size_t)r.n);
    for (int i = 0; i < r.n_chunks; i++) {
        r.at = i * n_ctx;
        r.ids[r.at] = engine_info(e).bos_id;
        Session *s = session_open(e, &(SessionOptions){.n_threads = 1, .kv = KV_F32}, err, sizeof err);
        session_visit(s, keep_logits, &r);
        CHECK(!session_sync(s, r.ids + r.at, n_ctx - 1, err, sizeof err), "%s", err);
        session_close(s);
    }
    engine_close(e);
    free(text);
    return r;
}

static void free_run(Run *r) {
    free(r->ids);
    free(r->logits);
    free(r->next);
}

static long double log_p(const Run *r, int row, int id) {
    const float *logits = r->logits + (int64_t)row * r->vocab;
    long double total = 0;
    for (int i = 0; i < r->vocab; i++) total += expl((long double)logits[i] - logits[id]);
    return -logl(total);
}

static double nll_of(const Run *r, int row) {
    return (double)-log_p(r, row, r->next[row]);
}

static int top_of(const Run *r, int row) {
    const float *logits = r->logits + (int64_t)row * r->vocab;
    int top = 0;
    for (int i = 1; i < r->vocab; i++) top = logits[i] > logits[top] ? i : top;
    return top;
}

// sum p log(p / q) of one position.
static double divergence(const Run *p, const Run *q, int row) {
    long double sum = 0, total = log_p(p, row, 0) - p->logits[(int64_t)row * p->vocab],
                other = log_p(q, row, 0) - q->logits[(int64_t)row * q->vocab];
    for (int i = 0; i < p->vocab; i++) {
        long double a = p->logits[(int64_t)row * p->vocab + i] + total;
        sum += expl(a) * (a - (q->logits[(int64_t)row * q->vocab + i] + other));
    }
    return (double)sum;
}

typedef struct {
    double mean, error;
} Mean;

// The standard error of a mean from the deviations themselves.
static Mean mean_of(const double *v, int n) {
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++) sum += v[i];
    for (int i = 0; i < n; i++) squares += (v[i] - sum / n) * (v[i] - sum / n);
    return (Mean){sum / n, sqrt(squares / n / (n - 1))};
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

#define SCORE(model, text, ...)                                                                                        \
    CALL("perplexity", model, "-f", text, "-c", "64", "-t", "2", "--kv", "f32", "-o", "json", __VA_ARGS__)

static void near(double found, double want, double share, double more, const char *what) {
    CHECK(fabs(found - want) <= share * fabs(want) + more, "%s: expected %.9g, found %.9g", what, want, found);
}

static void check_kl(const json_t *o, const Run *base, const Run *run) {
    int n = run->n_scored, same = 0;
    double *kl = need(sizeof *kl * (size_t)n), *diff = need(sizeof *diff * (size_t)n), base_nll = 0;
    for (int i = 0; i < n; i++) {
        kl[i] = divergence(base, run, i);
        diff[i] = nll_of(run, i) - nll_of(base, i);
        base_nll += nll_of(base, i);
        same += top_of(base, i) == top_of(run, i);
    }
    Mean m = mean_of(kl, n), ratio = mean_of(diff, n);
    qsort(kl, (size_t)n, sizeof *kl, ascending);
    near(number(o, "kl"), m.mean, 1e-4, 1e-7, "kl");
    near(number(o, "kl_error"), m.error, 1e-3, 1e-7, "kl_error");
    near(number(o, "kl_max"), kl[n - 1], 1e-4, 1e-6, "kl_max");
    near(number(o, "kl_min"), kl[0], 1e-3, 1e-6, "kl_min");
    near(number(o, "kl_median"), n % 2 ? kl[n / 2] : (kl[n / 2] + kl[n / 2 - 1]) / 2, 1e-3, 1e-6, "kl_median");
    const struct {
        const char *key;
        int hundredths;
    } ranks[] = {{"kl_p99", 99}, {"kl_p95", 95}, {"kl_p90", 90}};
    for (int i = 0; i < N_OF(ranks); i++) { // in whole numbers: rank h (n - 1) / 100 and what is left over
        int rank = ranks[i].hundredths * (n - 1);
        double want = kl[rank / 100] + (kl[rank / 100 + 1] - kl[rank / 100]) * (rank % 100) / 100;
        near(number(o, ranks[i].key), want, 1e-3, 1e-6, ranks[i].key);
    }
    near(number(o, "ppl_base"), exp(base_nll / n), 1e-5, 0, "ppl_base");
    near(number(o, "ppl_ratio"), exp(ratio.mean), 1e-5, 0, "ppl_ratio");
    near(number(o, "ppl_ratio_error"), exp(ratio.mean) * ratio.error, 1e-3, 1e-7, "ppl_ratio_error");
    near(number(o, "same_top"), (double)same / n, 0, 2.0 / n, "same_top"); // two may be nearly alike
    free(kl);
    free(diff);
}

static void check_chunks(int n_ctx) {
    char context[8], what[40];
    size_t length;
    free(read_file(TEXT, &length));
    snprintf(context, sizeof context, "%d", n_ctx);
    snprintf(what, sizeof what, "chunks of %d", n_ctx);
    Run run = compute_run(MODEL, TEXT, n_ctx);
    double *nll = need(sizeof *nll * (size_t)run.n_scored);
    for (int i = 0; i < run.n_scored; i++) nll[i] = nll_of(&run, i);
    Mean m = mean_of(nll, run.n_scored);
    json_t *o = told(SCORE(MODEL, TEXT, "-c", context));
    double bytes = number(o, "bytes");
    near(number(o, "ppl"), exp(m.mean), 1e-6, 0, what);
    near(number(o, "ppl_error"), exp(m.mean) * m.error, 1e-5, 0, what);
    near(number(o, "nats_per_token"), m.mean, 1e-6, 0, what);
    near(number(o, "bits_per_byte"), m.mean * run.n_scored / log(2) / bytes, 1e-6, 0, what);
    CHECK(run.n_scored == run.n_chunks * (n_ctx - 1 - n_ctx / 2), "%s: %d positions", what, run.n_scored);
    near(number(o, "tokens"), run.n_scored, 0, 0, what);
    near(number(o, "chunks"), run.n_chunks, 0, 0, what);
    CHECK(bytes > 0.35 * (double)length && bytes < 0.6 * (double)length, "%s: %g bytes scored", what, bytes);
    json_decref(o);
    free(nll);
    free_run(&run);
}

static void test_chunks(void) {
    check_chunks(CONTEXT);
    check_chunks(CONTEXT - 1);
}

// Two chunks are enough, a token less is not, and one newline at the end is none.
static void test_shortest_text(void) {
    char err[512] = "", text[2 * CONTEXT + 2] = "";
    Engine *e = engine_open(MODEL, NULL, err, sizeof err);
    NEED(e, "%s", err);
    int n = 0, length = 0;
    while (n < 2 * CONTEXT && length < 2 * CONTEXT) { // digits: a token each
        int32_t *ids;
        text[length] = (char)('0' + length % 10);
        length++;
        n = engine_encode(e, text, (size_t)length, true, false, &ids, err, sizeof err);
        free(ids);
    }
    CHECK(n == 2 * CONTEXT, "expected a string of %d tokens, found %d", 2 * CONTEXT, n);
    write_text("short.txt", text);
    json_t *o = told(SCORE(MODEL, in_folder("short.txt"), "-t", "1"));
    double ppl = number(o, "ppl");
    near(number(o, "chunks"), 2, 0, 0, "chunks");
    json_decref(o);
    text[length] = '\n';
    write_text("short.txt", text);
    o = told(SCORE(MODEL, in_folder("short.txt"), "-t", "1"));
    near(number(o, "ppl"), ppl, 0, 0, "a newline at the end");
    json_decref(o);
    text[length - 1] = '\n';
    text[length] = 0;
    write_text("short.txt", text);
    o = told(SCORE(MODEL, in_folder("short.txt"), "-t", "1"));
    near(number(o, "chunks"), 1, 0, 0, "chunks of a text of less than two");
    json_decref(o);
    engine_close(e);
}

static void test_kl_of_the_same_model(void) {
    json_t *o = told(SCORE(MODEL, TEXT, "--kl", BASE));
    double kl = number(o, "kl");
    CHECK(kl >= -1e-12 && kl < 3e-8 && number(o, "kl_max") < 3e-8, "found %g, at most %g", kl, number(o, "kl_max"));
    near(number(o, "ppl_ratio"), 1, 1e-6, 0, "ppl_ratio");
    near(number(o, "ppl_base"), number(o, "ppl"), 1e-6, 0, "ppl_base");
    near(number(o, "same_top"), 1, 0, 0, "same_top");
    json_decref(o);
}

static void test_kl_of_a_quantized_model(void) {
    Run base = compute_run(MODEL, TEXT, CONTEXT), run = compute_run(MODEL_Q4_0, TEXT, CONTEXT);
    json_t *o = told(SCORE(MODEL_Q4_0, TEXT, "--kl", BASE));
    CHECK(number(o, "kl") > 1e-5 && number(o, "kl_min") > 0, "expected a divergence, found %g", number(o, "kl"));
    check_kl(o, &base, &run);
    json_decref(o);
    free_run(&base);
    free_run(&run);
}

// A model that was trained: peaked distributions. The saved run of one is the base of the other.
static void test_kl_of_a_real_model(void) {
    const char *model = SHARED_DATA "stories260K/stories260K.gguf", *text = SHARED_DATA "text/stories-valid.txt";
    SKIP_WITHOUT(model);
    SKIP_WITHOUT(text);
    char *all = read_file(text, NULL);
    all[quick() ? 1000 : 8000] = 0;
    all[quick() ? 999 : 7999] = '\n';
    write_text("real.txt", all);
    free(all);
    TELLS(0, "", "", "quantize", model, in_folder("real.gguf"), "Q4_0");
    const char *file = in_folder("real.txt"), *saved = in_folder("real.logits"), *q4_0 = in_folder("real.gguf");
    json_decref(told(SCORE(model, file, "--save-logits", saved)));
    Run base = compute_run(model, file, CONTEXT), run = compute_run(q4_0, file, CONTEXT);
    json_t *o = told(SCORE(q4_0, file, "--kl", saved));
    double kl = number(o, "kl"), ratio = number(o, "ppl_ratio");
    CHECK(kl > 0.05 && kl < 0.5 && ratio > 1.02 && ratio < 1.5, "kl %g, ratio %g", kl, ratio);
    check_kl(o, &base, &run);
    json_decref(o);
    o = told(SCORE(model, file, "--kl", saved));
    CHECK(fabs(number(o, "kl")) < 3e-8 && number(o, "kl_max") < 3e-8, "itself: %g", number(o, "kl"));
    json_decref(o);
    free_run(&base);
    free_run(&run);
}

static void test_text_output(void) {
    Result r = CALL("perplexity", MODEL_Q4_0, "-f", TEXT, "-c", "64", "--kv", "f32", "--kl", BASE);
    // clang-format off
    const char *want[] = {"Final estimate: PPL = ", "KL divergence 0.", "maximum", "99 %", "95 %", "90 %", "median",
        "minimum", "PPL ratio 1", "same top p "};
    // clang-format on
    for (int i = 0; i < N_OF(want); i++) CHECK(strstr(r.out, want[i]), "no '%s' in %s", want[i], r.out);
    CHECK(r.status == 0 && strstr(r.out, "base.logits"), "status %d: %s", r.status, r.err);
    release(&r);
    char *text = read_file(TEXT, NULL);
    r = CALL_IN(text, "perplexity", MODEL, "-f", "-", "-c", "63");
    CHECK(r.status == 0 && !strncmp(r.out, "Final estimate: PPL = ", 22) && strstr(r.out, " +/- ") &&
              strstr(r.out, "nats per token") && strstr(r.out, "bits per byte"),
          "%s%s", r.out, r.err);
    release(&r);
    free(text);
}

// A weight that is no number ends the run: no estimate is made of it.
static void test_logits_without_number(void) {
    size_t size;
    char *bytes = read_file(MODEL, &size);
    memcpy(bytes + size - 4, &(float){NAN}, 4);
    write_file("nan.gguf", bytes, size);
    free(bytes);
    Result r =
        CALL("perplexity", in_folder("nan.gguf"), "-f", TEXT, "-c", "64", "--save-logits", in_folder("given-up"));
    CHECK(r.status == 1 && !*r.out && strstr(r.err, "not finite"), "status %d: %s%s", r.status, r.out, r.err);
    CHECK(count_files("given-up") == 0, "a part was left behind");
    release(&r);
}

static void test_refuses(void) {
    make_text("other.txt", 400);
    size_t size;
    char *bytes = read_file(BASE, &size);
    write_file("cut.logits", bytes, size - 1);
    memset(bytes + size - 2 * 512 - 8, 0xff, 4); // the last step: NaN
    write_file("nan.logits", bytes, size);
    free(bytes);
    refuse_commands("commands_perplexity");
    Result r = CALL("perplexity", MODEL, "-f", TEXT, "-c", "64", "--kl", in_folder("nan.logits"), "--save-logits",
                    in_folder("given-up"));
    CHECK(r.status == 1 && !*r.out && strstr(r.err, "step: expected"), "status %d: %s", r.status, r.err);
    CHECK(count_files("given-up") == 0, "a part was left behind");
    release(&r);
}

// ---- the file

// Logits of every span: flat, peaked, far beyond what is kept apart, one piece alone.
static const double spans[] = {0, 1e-6, 3, 31.9, 200, 1e30};

enum { N_PIECES = 7, TINY_CONTEXT = 5, TINY_CHUNKS = 3, TINY_SCORED = 2 };

static void draw(float *logits, double span) {
    for (int i = 0; i < N_PIECES; i++) logits[i] = (float)(span * test_uniform() / 2 + 20);
    if (span > 1e3) logits[pick(N_PIECES)] = (float)span;
}

static void write_tiny(float (*logits)[N_PIECES]) {
    int32_t tokens[TINY_CHUNKS * TINY_CONTEXT];
    for (int i = 0; i < N_OF(tokens); i++) tokens[i] = pick(N_PIECES);
    LogitsWriter w = logits_writer(in_folder("tiny"), tokens, N_PIECES, TINY_CONTEXT, TINY_CHUNKS);
    for (int i = 0; i < TINY_CHUNKS * TINY_SCORED; i++) {
        double total;
        draw(logits[i], spans[i]);
        logits_put(&w, logits[i], logits_nll(logits[i], N_PIECES, tokens[0], &total));
    }
    logits_finish(&w);
}

// What was written comes back: each piece within half a step and what normalizing shifts, those beyond the span as
// nothing.
static void test_rows(void) {
    char err[512] = "";
    float logits[TINY_CHUNKS * TINY_SCORED][N_PIECES];
    for (int round = 0; round < 100; round++) {
        write_tiny(logits);
        File f;
        LogitsFile l;
        CHECK(!file_map(&f, in_folder("tiny"), err, sizeof err) && !logits_read(&l, &f, err, sizeof err), "%s", err);
        for (int i = 0; i < TINY_CHUNKS * TINY_SCORED; i++) {
            LogitsRow row = {0};
            CHECK(!logits_row(&l, (uint64_t)i, &row, err, sizeof err), "%s", err);
            double total, kl = 0;
            logits_nll(logits[i], N_PIECES, 0, &total);
            CHECK(row.step <= 32.0 / 65534 * (1 + 1e-6), "span %g: step %g", spans[i], row.step);
            for (int k = 0; k < N_PIECES; k++) {
                double want = logits[i][k] - total, found = -row.step * row.below[k] - row.log_total;
                if (row.below[k] == LOGITS_BEYOND) {
                    CHECK(want < -32 + 1e-3, "span %g: %g nats were dropped", spans[i], want);
                    continue;
                }
                CHECK(fabs(found - want) <= row.step * 1.001 + 1e-9 * fabs(want) + 1e-12, "span %g: %g came back as %g",
                      spans[i], want, found);
                kl += exp(found) * (found - want);
            }
            CHECK(kl < row.step * row.step / 8 + 1e-12, "span %g: %g nats of rounding", spans[i], kl);
        }
        file_unmap(&f);
    }
}

static void test_other_runs(void) {
    char err[512] = "", path[] = "x.logits";
    float logits[TINY_CHUNKS * TINY_SCORED][N_PIECES];
    size_t n;
    write_tiny(logits);
    uint8_t *bytes = (uint8_t *)read_file(in_folder("tiny"), &n);
    File f = {.path = path, .data = bytes, .size = n, .borrowed = true};
    LogitsFile l;
    CHECK(!logits_read(&l, &f, err, sizeof err), "%s", err);
    int32_t tokens[TINY_CHUNKS * TINY_CONTEXT];
    memcpy(tokens, bytes + 24, sizeof tokens);
    CHECK(!logits_match(&l, tokens, N_PIECES, TINY_CONTEXT, TINY_CHUNKS, err, sizeof err), "%s", err);
    const struct {
        int vocab, n_ctx, n_chunks;
        const char *want;
    } others[] = {{N_PIECES + 1, TINY_CONTEXT, TINY_CHUNKS, "vocabulary: expected the model's 8, found 7"},
                  {N_PIECES, 4, TINY_CHUNKS, "tokens of a chunk: expected 4, found 5"},
                  {N_PIECES, TINY_CONTEXT, 2, "chunks: expected the text's 2, found 3"}};
    for (int i = 0; i < N_OF(others); i++) {
        int rc = logits_match(&l, tokens, others[i].vocab, others[i].n_ctx, others[i].n_chunks, err, sizeof err);
        CHECK(rc == -1, "%s: expected a failure", others[i].want);
        expect_line(err, path, others[i].want, others[i].want);
    }
    tokens[14] ^= 1;
    CHECK(logits_match(&l, tokens, N_PIECES, TINY_CONTEXT, TINY_CHUNKS, err, sizeof err) == -1, "another text");
    expect_line(err, path, "token 14: expected the text's", "another text");
    free(bytes);
}

int main(void) {
    folder_make();
    need_program("perplexity");
    make_models();
    make_text("text.txt", quick() ? 150 : 600);
    RUN(test_rows);
    RUN(test_other_runs);
    json_decref(told(SCORE(MODEL, TEXT, "--save-logits", BASE)));
    RUN(test_chunks);
    RUN(test_shortest_text);
    RUN(test_kl_of_the_same_model);
    RUN(test_kl_of_a_quantized_model);
    RUN(test_kl_of_a_real_model);
    RUN(test_text_output);
    RUN(test_logits_without_number);
    RUN(test_refuses);
    folder_remove();
    return test_report();
}
