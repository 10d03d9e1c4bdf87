// perplexity: how well a model predicts a text.
//
// By default as llama.cpp computes it: the text is cut into chunks of the context, each starts from BOS, and the second
// half of each is scored. --documents scores every token of every document, each started from BOS. Bits per byte
// compares models with different vocabularies.
#include "cli.h"
#include "file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: build/perplexity MODEL -f FILE [options]\n"
    "  -f FILE       the text, - for stdin\n"
    "  -c N          tokens of a chunk, or of a document at most (512, or what the model has positions for)\n"
    "  --documents   the text is documents between lines <|endoftext|>: score all of each, from BOS\n"
    "  -o FORMAT     md or json (md)\n"
    "  -t N          threads (the cores this process may use)\n"
    "  --window W    attend to the last W tokens, --sinks S and to the first S\n"
    "  --kv TYPE     what the cache stores: bf16 or f32 (bf16)\n"
    "  -z FILE       tokenizer (the one in the GGUF; <model stem>.tokenizer.bin or tokenizer.bin beside the .bin)\n";

enum { DEFAULT_CONTEXT = 512 };

typedef struct {
    const char *model, *tokenizer, *file;
    bool documents, json;
    SessionOptions session;
} Options;

// Sums over the scored tokens.
typedef struct {
    double nll, nll2; // nats; squared
    uint64_t n, bytes;
    int vocab_size;
    const int32_t *tokens; // of the running chunk
    int first;             // positions before it are not scored
} Score;

static Options parse(int argc, char **argv) {
    Options o = {0};
    Args a = args_start(argc, argv, usage);
    while (args_left(&a)) {
        const char *f = args_next(&a);
        if (!strcmp(f, "-f")) o.file = args_text(&a, f);
        else if (!strcmp(f, "-z")) o.tokenizer = args_text(&a, f);
        else if (!strcmp(f, "--documents")) o.documents = true;
        else if (!strcmp(f, "-o")) {
            const char *format = args_text(&a, f);
            o.json = !strcmp(format, "json");
            if (!o.json && strcmp(format, "md")) die(2, "-o: expected md or json, found '%s'", format);
        } else if (args_session(&a, f, &o.session)) continue;
        else if (*f == '-' && f[1]) die(2, "%s: unknown flag; build/perplexity --help lists them", f);
        else if (o.model) die(2, "%s: a second model; expected one, found %s first", f, o.model);
        else o.model = f;
    }
    if (!o.model) die(2, "no model: expected build/perplexity MODEL -f FILE");
    if (!o.file) die(2, "no text: expected build/perplexity MODEL -f FILE");
    if (o.session.n_sinks && !o.session.window) die(2, "--sinks: needs --window");
    return o;
}

// -log softmax(logits)[target], in double
static double negative_log_likelihood(const float *logits, int n, int32_t target) {
    double max = logits[0], sum = 0;
    for (int i = 1; i < n; i++) max = logits[i] > max ? logits[i] : max;
    for (int i = 0; i < n; i++) sum += exp(logits[i] - max);
    return log(sum) + max - logits[target];
}

static void score_position(void *context, int position, const float *logits) {
    Score *s = context;
    if (position < s->first) return;
    double nll = negative_log_likelihood(logits, s->vocab_size, s->tokens[position + 1]);
    s->nll += nll;
    s->nll2 += nll * nll;
    s->n++;
}

// Bytes of text that tokens[first..n) stand for.
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

// Predict tokens[first + 1 .. n) from what precedes each. Starts over: nothing of the text before is kept.
static void score_tokens(Session *s, Score *score, const int32_t *tokens, int first, int n) {
    char err[512];
    int32_t other = tokens[0] ? 0 : 1; // a text that shares no prefix with this one
    score->tokens = tokens;
    score->first = first;
    session_visit(s, NULL, NULL);
    bool failed =
        session_sync(s, &other, 1, err, sizeof err) || (first && session_sync(s, tokens, first, err, sizeof err));
    session_visit(s, score_position, score);
    if (failed || session_sync(s, tokens, n - 1, err, sizeof err)) die(1, "%s", err);
}

// The estimate and its standard error by the spread of the tokens' nll (delta method), as llama.cpp prints them.
static double estimate(const Score *s, double *error) {
    double mean = s->nll / (double)s->n, variance = s->nll2 / (double)s->n - mean * mean, ppl = exp(mean);
    *error = s->n > 1 && variance > 0 ? sqrt(variance / (double)(s->n - 1)) * ppl : 0;
    return ppl;
}

static void print_running(const Score *s, int i) {
    double error;
    fprintf(stderr, "[%d]%.4f,", i, estimate(s, &error));
    fflush(stderr);
}

// Returns the number of chunks.
static int score_chunks(const Engine *e, Session *s, Score *score, const char *text, size_t length, int n_ctx) {
    char err[512];
    int32_t *ids;
    int n = engine_encode(e, text, length, true, false, &ids, err, sizeof err), bos = engine_info(e).bos_id;
    if (n < 0) die(1, "%s", err);
    bool begins = n && ids[0] == bos; // not every model's texts do
    if (n < n_ctx) die(1, "the text has %d tokens, a chunk %d; a smaller -c or --documents can score it", n, n_ctx);
    for (int i = 0; i < n / n_ctx; i++) {
        int32_t *chunk = ids + (int64_t)i * n_ctx;
        if (begins) chunk[0] = bos;
        score_tokens(s, score, chunk, n_ctx / 2, n_ctx);
        score->bytes += count_bytes(e, chunk, n_ctx / 2 + 1, n_ctx);
        print_running(score, i + 1);
    }
    free(ids);
    return n / n_ctx;
}

// The next document: up to a line that is the separator, without the newline before it. False at the end.
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

static void print_result(const Options *o, const Score *score, int count, int n_cut, int n_ctx, double took) {
    double error, ppl = estimate(score, &error), nats = score->nll / (double)score->n;
    double bits = score->nll / 0.69314718055994530942 / (double)score->bytes;
    unsigned long long n = score->n, bytes = score->bytes;
    if (o->json) {
        printf(
            "{\"ppl\": %.9g, \"ppl_error\": %.9g, \"nats_per_token\": %.9g, \"bits_per_byte\": %.9g, \"tokens\": %llu, "
            "\"bytes\": %llu, \"%s\": %d, \"cut\": %d, \"n_ctx\": %d, \"kv\": \"%s\", \"seconds\": %.3f}\n",
            ppl, error, nats, bits, n, bytes, o->documents ? "documents" : "chunks", count, n_cut, n_ctx,
            o->session.kv == KV_F32 ? "f32" : "bf16", took);
        return;
    }
    printf("Final estimate: PPL = %.4f +/- %.5f\n", ppl, error);
    printf("%.5f nats per token, %.5f bits per byte\n", nats, bits);
    printf("%llu tokens and %llu bytes scored in %d %s", n, bytes, count, o->documents ? "documents" : "chunks");
    if (o->documents) printf(" (%d of them cut at %d tokens)", n_cut, n_ctx);
    else printf(" of %d tokens", n_ctx);
    printf(", %.1f s\n", took);
}

int main(int argc, char **argv) {
    Options o = parse(argc, argv);
    char err[512];
    file_guard_shrinking();
    Engine *e = engine_open(o.model, o.tokenizer, err, sizeof err);
    if (!e) die(1, "%s", err);
    EngineInfo info = engine_info(e);
    if (o.session.n_ctx > info.max_seq_len && !o.session.window) {
        die(2, "-c: expected at most the model's %d positions (or --window), found %d", info.max_seq_len,
            o.session.n_ctx);
    }
    if (!o.session.n_ctx) o.session.n_ctx = info.max_seq_len < DEFAULT_CONTEXT ? info.max_seq_len : DEFAULT_CONTEXT;
    int n_ctx = o.session.n_ctx, n_cut = 0;
    if (n_ctx < 4) die(2, "-c: expected at least 4 tokens, found %d", n_ctx);
    Session *s = session_open(e, &o.session, err, sizeof err);
    if (!s) die(1, "%s", err);

    size_t length;
    char *text = read_text(o.file, &length);
    Score score = {.vocab_size = info.vocab_size};
    double start = seconds();
    int count = o.documents ? score_documents(e, s, &score, text, length, n_ctx, &n_cut)
                            : score_chunks(e, s, &score, text, length, n_ctx);
    if (!score.n) die(1, "%s: no text to score", o.file);
    fputc('\n', stderr); // after the running values
    print_result(&o, &score, count, n_cut, n_ctx, seconds() - start);
    if (fflush(stdout) || ferror(stdout)) die(1, "stdout: the result could not be written");
    free(text);
    session_close(s);
    engine_close(e);
    return 0;
}
