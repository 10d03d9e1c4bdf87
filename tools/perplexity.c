// perplexity: how well a model predicts a text.
//
// Owns the scores. By default as in llama.cpp: the text is split into chunks of the context size, each starts with BOS,
// and its second half is scored. --documents scores every token of every document, each after BOS. Bits per byte
// compares models with different vocabularies. --kl computes the KL divergence from the distributions that another
// model saved for the same chunks, e.g. before quantization. Refuses to overwrite a file that it reads.
#include "cli.h"
#include "habits.h"
#include "logits_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_CONTEXT = 512, SHORTEST = 3 };

typedef struct {
    const char *model, *tokenizer, *file, *save, *kl;
    bool documents;
    int json, most_chunks; // 0: all
    SessionOptions session;
} Options;

// Comparison with saved distributions, the base.
typedef struct {
    File file;
    LogitsFile base;
    double *kl;         // [positions], sum_i base(i) log(base(i) / p(i)), nats
    double diff, diff2; // sums of nll - the base's; squared
    uint64_t n_same_top;
} Comparison;

// Sums over the scored tokens.
typedef struct {
    double nll, nll2; // nats; squared
    uint64_t n, bytes;
    int vocab_size;
    const int32_t *tokens; // of the current chunk
    int first;             // first scored position
    LogitsWriter *save;    // or NULL
    Comparison *compare;   // or NULL
} Score;

typedef struct {
    double value, error; // standard error
} Estimate;

static Options parse(int argc, char **argv) {
    static Options o;
    static CacheTypes cache;
    static const char *base;
    static bool compares;
    static int zero;
    const Flag flags[] = {
        MODEL_FLAG(&o.model),
        {"-f --file", "FILE", "the text, - for stdin", TAKES_STRING(&o.file)},
        {"-c --ctx-size", "N", "tokens of a chunk, or at most of a document (default: 512, or the model's context)",
         TAKES_INT(&o.session.n_ctx, 1, MOST_CONTEXT)},
        {"--documents", NULL, "the text is documents separated by lines <|endoftext|>: score every token of each",
         SETS(&o.documents)},
        {"--save-logits", "FILE",
         "save the predicted distributions: 2 bytes for each scored token and vocabulary entry", TAKES_STRING(&o.save)},
        {"--kl", "FILE", "KL divergence from saved distributions of the same text and -c", TAKES_STRING(&o.kl)},
        {"--kl-divergence-base", "FILE", "with --kl-divergence as --kl FILE, without it as --save-logits FILE",
         TAKES_STRING(&base)},
        {"--kl-divergence", NULL, NULL, SETS(&compares)},
        {"--chunks", "N", "score the first N chunks only", TAKES_INT(&o.most_chunks, 1, MOST_CONTEXT)},
        FORMAT_FLAG(&o.json, "md json", "md or json (default: md)"),
        THREADS_FLAG(&o.session.n_threads),
        WINDOW_FLAGS(&o.session),
        PRECISION_FLAG(&o.session),
        TOKENIZER_FLAG(&o.tokenizer),
        {"--perplexity", NULL, NULL, FLAG_NOTE, .words = "it is what this program computes"},
        {"-s --seed", "N", NULL, FLAG_NOTE, .words = "nothing is sampled"},
        {"--ppl-stride --ppl-output-type", "0", NULL, TAKES_INT(&zero, 0, 0)}, // chunks do not overlap here
        {"--hellaswag --winogrande --multiple-choice", NULL, NULL, FLAG_REFUSED,
         .words = "only perplexity and KL divergence are computed here"},
        MACHINE_HABITS,
        CACHE_TYPE_FLAGS(&cache),
        MODEL_HABITS,
    };
    const Program program = {"build/perplexity", "MODEL -f FILE [options]", NULL, flags, sizeof flags / sizeof *flags};
    cli_one_model(&program, argc, argv, &o.model);
    if (compares && !base) die(2, "--kl-divergence: needs --kl-divergence-base FILE");
    if (base) *(compares ? &o.kl : &o.save) = base;
    cli_cache_types(&cache, &o.session.kv);
    if (!o.file && o.kl) die(2, "no text: --kl compares over the text that was scored then; expected it as -f FILE");
    if (!o.file) die(2, "no text: expected build/perplexity MODEL -f FILE");
    cli_check_session(&o.session);
    if (o.documents && o.most_chunks) die(2, "--chunks: expected without --documents");
    if (o.documents && (o.save || o.kl)) die(2, "%s: expected without --documents", o.kl ? "--kl" : "--save-logits");
    return o;
}

_Noreturn static void stop(const Score *s, const char *why) {
    if (s->save) logits_abandon(s->save);
    die(1, "%s", why);
}

// Compares with row s->n of the base.
static void compare_position(const Score *s, const float *logits, double log_total, double nll) {
    char err[512];
    Comparison *c = s->compare;
    LogitsRow row;
    if (logits_row(&c->base, s->n, &row, err, sizeof err)) stop(s, err);
    double kl = 0;
    int top = 0;
    for (int i = 0; i < s->vocab_size; i++) {
        top = logits[i] > logits[top] ? i : top;
        if (row.below[i] == LOGITS_BEYOND) continue;
        double log_base = -row.step * row.below[i] - row.log_total;
        kl += exp(log_base) * (log_base - (logits[i] - log_total));
    }
    c->kl[s->n] = kl;
    c->diff += nll - row.nll;
    c->diff2 += (nll - row.nll) * (nll - row.nll);
    c->n_same_top += row.below[top] == 0;
}

static void score_position(void *context, int position, const float *logits) {
    Score *s = context;
    if (position < s->first) return;
    double log_total, nll = logits_nll(logits, s->vocab_size, s->tokens[position + 1], &log_total);
    if (!isfinite(nll)) stop(s, "the model's logits are not finite");
    if (s->save) logits_put(s->save, logits, nll);
    if (s->compare) compare_position(s, logits, log_total, nll);
    s->nll += nll;
    s->nll2 += nll * nll;
    s->n++;
}

// Bytes of the text of tokens[first..n).
static uint64_t count_bytes(const Engine *e, const int32_t *tokens, int first, int n) {
    TextOut *out = textout_open(e, tokens[0] == engine_info(e).bos_id);
    if (!out) die(1, "out of memory");
    uint64_t bytes = 0;
    for (int i = 0; i < n; i++) {
        size_t length = strlen(textout_push(out, tokens[i]));
        if (i >= first) bytes += length;
    }
    bytes += strlen(textout_finish(out));
    textout_close(out);
    return bytes;
}

// Scores the predictions of tokens[first + 1 .. n), without reusing the tokens of the session.
static void score_tokens(Session *s, Score *score, const int32_t *tokens, int first, int n) {
    char err[512];
    int32_t other = tokens[0] ? 0 : 1; // a sequence without a common prefix
    score->tokens = tokens;
    score->first = first;
    session_visit(s, NULL, NULL);
    bool failed =
        session_sync(s, &other, 1, err, sizeof err) || (first && session_sync(s, tokens, first, err, sizeof err));
    session_visit(s, score_position, score);
    if (failed || session_sync(s, tokens, n - 1, err, sizeof err)) stop(score, err);
}

// Mean of n values and its standard error, from their sums.
static Estimate mean(double sum, double sum2, uint64_t n) {
    double m = sum / (double)n, variance = sum2 / (double)n - m * m;
    return (Estimate){m, n > 1 && variance > 0 ? sqrt(variance / (double)(n - 1)) : 0};
}

// exp(e) (delta method), as llama.cpp prints it.
static Estimate exponential(Estimate e) {
    return (Estimate){exp(e.value), exp(e.value) * e.error};
}

static void print_running(const Score *s, int i) {
    fprintf(stderr, "[%d]%.4f,", i, exp(s->nll / (double)s->n));
    fflush(stderr);
}

static void open_base(Comparison *c, const char *path, const int32_t *chunks, int n_vocab, int n_ctx, int n_chunks) {
    char err[512];
    if (file_map(&c->file, path, err, sizeof err) || logits_read(&c->base, &c->file, err, sizeof err) ||
        logits_match(&c->base, chunks, n_vocab, n_ctx, n_chunks, err, sizeof err)) {
        die(1, "%s", err);
    }
    c->kl = malloc(sizeof *c->kl * (size_t)n_chunks * (size_t)logits_scored(n_ctx));
    if (!c->kl) die(1, "out of memory");
}

// The text as chunks [n_chunks][n_ctx], each starting with BOS if the model uses it; the rest is dropped. A
// text that is shorter makes *n_ctx smaller. One newline at the end is dropped, as in llama.cpp.
static int32_t *split_chunks(const Engine *e, const char *text, size_t length, int *n_ctx, int *n_chunks) {
    char err[512];
    int32_t *ids;
    length -= length && text[length - 1] == '\n';
    int n = engine_encode(e, text, length, true, false, &ids, err, sizeof err), bos = engine_info(e).bos_id;
    if (n < 0) die(1, "%s", err);
    if (n < SHORTEST) die(1, "the text has %d tokens, expected at least %d to score the second half of", n, SHORTEST);
    if (n < *n_ctx) {
        fprintf(stderr, "note: the text has %d tokens, fewer than -c %d: one chunk of %d\n", n, *n_ctx, n);
        *n_ctx = n;
    }
    *n_chunks = n / *n_ctx;
    if (ids[0] != bos) return ids; // a model without BOS
    for (int i = 0; i < *n_chunks; i++) ids[(int64_t)i * *n_ctx] = bos;
    return ids;
}

// Returns the number of chunks.
static int score_chunks(const Engine *e, Session *s, Score *score, Options *o, const char *text, size_t length) {
    int n_chunks;
    int32_t *chunks = split_chunks(e, text, length, &o->session.n_ctx, &n_chunks);
    int n_ctx = o->session.n_ctx, first = n_ctx / 2;
    if (o->most_chunks && o->most_chunks < n_chunks) n_chunks = o->most_chunks;
    if (score->compare) open_base(score->compare, o->kl, chunks, score->vocab_size, n_ctx, n_chunks);
    LogitsWriter save;
    if (o->save) {
        save = logits_writer(o->save, chunks, score->vocab_size, n_ctx, n_chunks);
        score->save = &save;
    }
    for (int i = 0; i < n_chunks; i++) {
        const int32_t *chunk = chunks + (int64_t)i * n_ctx;
        score_tokens(s, score, chunk, first, n_ctx);
        score->bytes += count_bytes(e, chunk, first + 1, n_ctx);
        print_running(score, i + 1);
    }
    if (o->save) logits_finish(&save);
    score->save = NULL;
    free(chunks);
    return n_chunks;
}

// The next document: up to a separator line, without the newline before it. False at the end.
static bool next_document(const char **at, const char *end, const char **document, size_t *length) {
    static const char separator[] = "<|endoftext|>";
    const size_t n = sizeof separator - 1;
    if (*at >= end) return false;
    *document = *at;
    for (const char *line = *at; line < end;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line)), *line_end = newline ? newline : end;
        *at = newline ? newline + 1 : end;
        if ((size_t)(line_end - line) == n && !memcmp(line, separator, n)) {
            *length = line > *document ? (size_t)(line - 1 - *document) : 0;
            return true;
        }
        line = *at;
    }
    *length = (size_t)(end - *document) - (end[-1] == '\n');
    return true;
}

static int score_documents(const Engine *e, Session *s, Score *score, const char *text, size_t length, int n_ctx,
                           int *n_cut) {
    char err[512];
    const char *at = text, *document;
    size_t n_bytes;
    int count = 0;
    while (next_document(&at, text + length, &document, &n_bytes)) {
        int32_t *ids;
        int n = engine_encode(e, document, n_bytes, true, false, &ids, err, sizeof err);
        if (n < 0) die(1, "%s", err);
        if (n > 1) {
            bool cut = n > n_ctx;
            if (cut) n = n_ctx;
            *n_cut += cut;
            score_tokens(s, score, ids, 0, n);
            score->bytes += cut ? count_bytes(e, ids, 1, n) : n_bytes;
            print_running(score, ++count);
        }
        free(ids);
    }
    return count;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Linear interpolation in the sorted values [n]: fraction 0 is the minimum, 1 the maximum.
static double percentile(const double *sorted, uint64_t n, double fraction) {
    double at = fraction * (double)(n - 1);
    uint64_t below = (uint64_t)at, above = below + 1 < n ? below + 1 : below;
    return sorted[below] + (at - (double)below) * (sorted[above] - sorted[below]);
}

static void print_comparison(const Options *o, const Score *s) {
    static const struct {
        const char *name, *key;
        double fraction;
    } ranks[] = {{"maximum", "kl_max", 1}, {"99 %", "kl_p99", 0.99},     {"95 %", "kl_p95", 0.95},
                 {"90 %", "kl_p90", 0.9},  {"median", "kl_median", 0.5}, {"minimum", "kl_min", 0}};
    const Comparison *c = s->compare;
    double sum = 0, sum2 = 0, n = (double)s->n, same = (double)c->n_same_top / n;
    for (uint64_t i = 0; i < s->n; i++) {
        sum += c->kl[i];
        sum2 += c->kl[i] * c->kl[i];
    }
    qsort(c->kl, s->n, sizeof *c->kl, ascending);
    Estimate kl = mean(sum, sum2, s->n), ratio = exponential(mean(c->diff, c->diff2, s->n));
    double base = exp((s->nll - c->diff) / n), same_error = s->n > 1 ? sqrt(same * (1 - same) / (n - 1)) : 0;
    if (o->json) printf(", \"kl\": %.9g, \"kl_error\": %.9g", kl.value, kl.error);
    else printf("KL divergence %.6f +/- %.6f nats from %s\n", kl.value, kl.error, o->kl);
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        double value = percentile(c->kl, s->n, ranks[i].fraction);
        if (o->json) printf(", \"%s\": %.9g", ranks[i].key, value);
        else printf("  %-8s %.6f\n", ranks[i].name, value);
    }
    if (o->json) {
        printf(", \"ppl_base\": %.9g, \"ppl_ratio\": %.9g, \"ppl_ratio_error\": %.9g", base, ratio.value, ratio.error);
        printf(", \"same_top\": %.9g, \"same_top_error\": %.9g", same, same_error);
        return;
    }
    printf("PPL ratio %.6f +/- %.6f, base PPL %.4f\n", ratio.value, ratio.error, base);
    printf("same top p %.3f +/- %.3f %%\n", 100 * same, 100 * same_error);
}

static void print_result(const Options *o, const Score *score, int count, int n_cut, double took) {
    Estimate nats = mean(score->nll, score->nll2, score->n), ppl = exponential(nats);
    double bits = score->nll / 0.69314718055994530942 / (double)score->bytes;
    unsigned long long n = score->n, bytes = score->bytes;
    int n_ctx = o->session.n_ctx;
    if (o->json) {
        printf("{\"ppl\": %.9g, \"ppl_error\": %.9g, \"nats_per_token\": %.9g, \"bits_per_byte\": %.9g", ppl.value,
               ppl.error, nats.value, bits);
        printf(", \"tokens\": %llu, \"bytes\": %llu, \"%s\": %d, \"cut\": %d, \"n_ctx\": %d", n, bytes,
               o->documents ? "documents" : "chunks", count, n_cut, n_ctx);
        if (score->compare) print_comparison(o, score);
        printf(", \"kv\": \"%s\", \"seconds\": %.3f}\n", kv_type_name(o->session.kv), took);
        return;
    }
    printf("Final estimate: PPL = %.4f +/- %.5f\n", ppl.value, ppl.error);
    printf("%.5f nats per token, %.5f bits per byte\n", nats.value, bits);
    printf("%llu tokens and %llu bytes scored in %d %s", n, bytes, count, o->documents ? "documents" : "chunks");
    if (o->documents) printf(" (%d of them truncated to %d tokens)", n_cut, n_ctx);
    else printf(" of %d tokens", n_ctx);
    printf(", %.1f s\n", took);
    if (score->compare) print_comparison(o, score);
}

// Refuses to overwrite a file that this run reads.
static void check_save(const Options *o) {
    const char *in[] = {o->model, o->tokenizer, o->file, o->kl};
    if (o->save && !strcmp(o->save, "-")) die(2, "--save-logits: expected a file, found -; stdout has the results");
    for (size_t i = 0; i < sizeof in / sizeof *in; i++) {
        if (o->save && in[i] && file_same(in[i], o->save))
            die(2, "--save-logits: expected another file, found %s, which this run reads", in[i]);
    }
}

// Sets the default of -c, and checks it against the model's context.
static void fit_context(Options *o, int most) {
    int *n_ctx = &o->session.n_ctx;
    if (*n_ctx > most && !o->session.window)
        die(2, "-c: expected at most the model's %d positions (or --window), found %d", most, *n_ctx);
    if (!*n_ctx) *n_ctx = most < DEFAULT_CONTEXT ? most : DEFAULT_CONTEXT;
    if (*n_ctx < 4) die(2, "-c: expected at least 4 tokens, found %d", *n_ctx);
}

int main(int argc, char **argv) {
    Options o = parse(argc, argv);
    char err[512];
    file_guard_shrinking();
    check_save(&o);
    Engine *e = engine_open(o.model, o.tokenizer, err, sizeof err);
    if (!e) die(1, "%s", err);
    tell_notes(engine_notes(e));
    EngineInfo info = engine_info(e);
    fit_context(&o, info.max_seq_len);
    Session *s = session_open(e, &o.session, err, sizeof err);
    if (!s) die(1, "%s", err);
    size_t length;
    char *text = read_text(o.file, &length);
    Comparison compare = {0};
    Score score = {.vocab_size = info.vocab_size, .compare = o.kl ? &compare : NULL};
    double start = seconds();
    int n_cut = 0, count = o.documents ? score_documents(e, s, &score, text, length, o.session.n_ctx, &n_cut)
                                       : score_chunks(e, s, &score, &o, text, length);
    if (!score.n) die(1, "%s: no text to score", o.file);
    fputc('\n', stderr); // after the running values
    print_result(&o, &score, count, n_cut, seconds() - start);
    if (fflush(stdout) || ferror(stdout)) die(1, "stdout: the result could not be written");
    free(compare.kl);
    file_unmap(&compare.file);
    free(text);
    session_close(s);
    engine_close(e);
    return 0;
}
