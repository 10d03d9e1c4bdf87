// lookup_rows: see lookup_rows.h.
#include "lookup_rows.h"

#include "bench_row.h"
#include "cli.h"
#include "report.h"
#include "samples.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 1 << 20 };

static const char json_text[] =
    "{\"boat\": {\"name\": \"Ann\", \"colour\": \"red\", \"length\": 7.5, \"crew\": [\"Ben\", \"Cleo\", \"Dora\"]},\n"
    " \"ports\": [{\"name\": \"North Bay\", \"day\": 3, \"load\": [\"salt\", \"rope\", \"tar\"]},\n"
    "           {\"name\": \"Long Pier\", \"day\": 5, \"load\": [\"rope\", \"lamps\"]},\n"
    "           {\"name\": \"Mill Quay\", \"day\": 9, \"load\": [\"flour\", \"salt\", \"nails\"]}]}";
static const char quote_text[] =
    "Tim had a red boat. He put the boat in the water and it went far away. Tim was sad. A big bird saw the boat. The "
    "bird took the boat and gave it to Tim. Tim said, \"Thank you, bird!\" They played all day.";

// What a model is given: a request as its chat template frames it, or, where it has none, a text that goes on.
typedef struct {
    char name[64];
    int32_t *ids; // [n + 1 + most that are drawn]: the prompt, then what is drawn
    int n;
} Text;

enum { MAX_TEXTS = MAX_LIST + 1 };

typedef struct {
    int n;
    Text v[MAX_TEXTS];
} TextList;

static void add_text(TextList *list, const Engine *e, const Chat *chat, const char *name, const char *request,
                     const char *plain) {
    char err[512];
    Text *t = &list->v[list->n++];
    const ChatMessage message = {.role = CHAT_USER, .text = request, .n = strlen(request)};
    snprintf(t->name, sizeof t->name, "%s", name);
    t->n = chat_info(chat).has_template ? chat_encode(chat, &message, 1, true, &t->ids, err, sizeof err)
                                        : engine_encode(e, plain, strlen(plain), true, false, &t->ids, err, sizeof err);
    if (t->n < 0) die(1, "--lookup: %s: %s", name, err);
    if (t->n < 1) die(1, "--lookup: %s: expected tokens, found none", name);
}

// A model that was not trained to obey copies what stands there twice a third time.
static void add_copied(TextList *list, const Engine *e, const Chat *chat, const char *name, const char *text) {
    char *request, *plain, label[64];
    snprintf(label, sizeof label, "copy %s", name);
    if (asprintf(&request, "Repeat this text word for word, and write nothing else:\n\n%s", text) < 0 ||
        asprintf(&plain, "%s\n\n%s\n\n", text, text) < 0)
        die(1, "out of memory: %s", name);
    add_text(list, e, chat, label, request, plain);
    free(request);
    free(plain);
}

static void add_file(TextList *list, const Engine *e, const Chat *chat, const char *path) {
    size_t n;
    char *text = read_text(path, &n);
    if (!n) die(1, "%s: expected text, found an empty file", path);
    if (n > MOST_BYTES) die(1, "%s: expected at most %d bytes, found %zu", path, MOST_BYTES, n);
    if (strlen(text) != n) die(1, "%s: at byte %zu: expected text, found a zero byte", path, strlen(text));
    add_copied(list, e, chat, report_base_name(path), text);
    free(text);
}

static void open_texts(TextList *list, const Bench *b) {
    char err[512];
    const Engine *e = b->model->engine;
    const Texts *files = &b->o.lookup;
    Chat *chat = engine_chat(e, err, sizeof err);
    if (!chat) die(1, "%s: %s", b->model->path, err);
    if (chat_set(chat, "enable_thinking", "false", err, sizeof err)) die(1, "%s: %s", b->model->path, err);
    list->n = 0;
    for (int i = 0; i < files->n; i++) add_file(list, e, chat, files->v[i]);
    if (!files->n) {
        add_copied(list, e, chat, "json", json_text);
        add_copied(list, e, chat, "quote", quote_text);
    }
    add_text(list, e, chat, "story", "Tell me a story about a small boat.", "Once upon a time");
    chat_close(chat);
}

static void close_texts(TextList *list) {
    for (int i = 0; i < list->n; i++) free(list->v[i].ids);
}

// ---- one text

// What was drawn behind a prompt and its first token, which the prompt's own pass gives.
typedef struct {
    int n, n_passes;
    double seconds;
    double cache_bytes; // that a pass read, on average
    DrafterInfo guesses;
} Drawn;

static int draw(Bench *b, Text *t, int n, Sampler *sampler, Drafter *d, int room) {
    char err[512];
    int got = session_draw(b->session, t->ids, t->n + n, sampler, d, t->ids + t->n + n, room, err, sizeof err);
    if (got < 0) die(1, "%s", err);
    return got;
}

// Up to n_new tokens, none behind an end token.
static Drawn draw_text(Bench *b, Text *t, int n_new, bool guesses) {
    char err[512];
    Drawn drawn = {0};
    Sampler *sampler = sampler_open(NULL, b->info.vocab_size, err, sizeof err);
    Drafter *d = guesses ? drafter_lookup(err, sizeof err) : NULL;
    if (!sampler || (guesses && !d) || session_sync(b->session, t->ids, t->n, err, sizeof err)) die(1, "%s", err);
    int n = draw(b, t, 0, sampler, NULL, 1);
    double start = seconds();
    while (n <= n_new && !engine_is_end(b->model->engine, t->ids[t->n + n - 1])) {
        n += draw(b, t, n, sampler, d, n_new + 1 - n);
        drawn.cache_bytes += (double)session_info(b->session).memory_token_bytes;
        drawn.n_passes++;
    }
    drawn.seconds = seconds() - start;
    drawn.n = n - 1;
    if (drawn.n_passes) drawn.cache_bytes /= drawn.n_passes;
    if (d) drawn.guesses = drafter_info(d);
    drafter_close(d);
    sampler_close(sampler);
    return drawn;
}

// Both ways, each first in every other repetition; what they draw is compared with `want`.
static void time_both(Bench *b, Text *t, const int32_t *want, int n_want, Row rows[2], int repetition,
                      DrafterInfo *guesses, double *cache_bytes) {
    for (int k = 0; k < 2; k++) {
        bool with = (repetition + k) % 2;
        Drawn drawn = draw_text(b, t, n_want, with);
        if (drawn.n != n_want || memcmp(want, t->ids + t->n, sizeof *want * (size_t)(n_want + 1)) != 0)
            die(1, "%s: with guesses and without them different tokens were drawn", t->name);
        rows[with].seconds[repetition] = drawn.seconds;
        rows[with].speed[repetition] = n_want / drawn.seconds;
        if (with) guesses->n_passes += (uint64_t)drawn.n_passes;
        guesses->n_guessed += drawn.guesses.n_guessed;
        guesses->n_right += drawn.guesses.n_right;
        if (!with) *cache_bytes += drawn.cache_bytes;
    }
}

static const char lookup_md_header[] =
    "| model | threads | text | prompt | generated | t/s | with look-up t/s | ratio | guesses right | tokens a pass |\n"
    "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|\n";

static void print_md(Bench *b, const Row rows[2]) {
    char right[16] = "none made";
    const Row *plain = &rows[0], *guided = &rows[1];
    const RowLookup *l = guided->lookup;
    if (l->acceptance >= 0) snprintf(right, sizeof right, "%.0f %%", 100 * l->acceptance);
    report_row(b);
    printf("| %s | %d | %s | %d | %d | %.2f ± %.2f | %.2f ± %.2f | %.2f | %s | %.2f |\n", b->model->label, b->n_threads,
           l->text, plain->n_depth, plain->n_gen, samples_mean(plain->speed, plain->n),
           samples_deviation(plain->speed, plain->n), samples_mean(guided->speed, guided->n),
           samples_deviation(guided->speed, guided->n), l->ratio, right, l->tokens_per_pass);
    fflush(stdout);
}

static double median_ratio(const Row rows[2]) {
    double ratios[MAX_REPEATS];
    for (int i = 0; i < rows[0].n; i++) ratios[i] = rows[1].speed[i] / rows[0].speed[i];
    return samples_median(ratios, rows[0].n);
}

static void measure_text(Bench *b, Text *t, int n_new) {
    static Row rows[2]; // without guesses, with them
    RowLookup lookup[2];
    DrafterInfo guesses = {0};
    double cache_bytes = 0;
    int n = draw_text(b, t, n_new, true).n; // warm up
    if (!n) {
        fprintf(stderr, "note: %s: left out, the model ends its text at once\n", t->name);
        return;
    }
    size_t size = sizeof *t->ids * (size_t)(n + 1);
    int32_t *want = measure_alloc(size);
    memcpy(want, t->ids + t->n, size);
    draw_text(b, t, n, false);
    for (int i = 0; i < b->o.repeats; i++) time_both(b, t, want, n, rows, i, &guesses, &cache_bytes);
    free(want);
    for (int k = 0; k < 2; k++) {
        rows[k].n = b->o.repeats;
        rows[k].n_gen = n;
        rows[k].n_depth = t->n;
        rows[k].n_sequences = 1;
        rows[k].lookup = &lookup[k];
        snprintf(rows[k].test, sizeof rows[k].test, "tg%d%s @ d%d", n, k ? " look-up" : "", t->n);
    }
    double ratio = median_ratio(rows), bytes = (double)b->info.token_bytes + cache_bytes / b->o.repeats;
    rows[0].gb = bytes * samples_mean(rows[0].speed, rows[0].n) * 1e-9;
    lookup[0] = (RowLookup){t->name, false, -1, 1, ratio};
    lookup[1] = (RowLookup){t->name, true, guesses.n_guessed ? (double)guesses.n_right / (double)guesses.n_guessed : -1,
                            (double)n * b->o.repeats / (double)guesses.n_passes, ratio};
    if (b->o.format == OUT_MD) {
        print_md(b, rows);
        return;
    }
    for (int k = 0; k < 2; k++) row_print(b, &rows[k]);
}

// ---- all of them

// A session for all, and room behind each prompt.
static void open_session(Bench *b, TextList *list) {
    int longest = 0, most = 0;
    for (int i = 1; i < list->n; i++) {
        if (list->v[i].n > list->v[longest].n) longest = i;
    }
    for (int i = 0; i < b->o.gen.n; i++) most = b->o.gen.v[i] > most ? b->o.gen.v[i] : most;
    for (int i = 0; i < list->n; i++) {
        Text *t = &list->v[i];
        t->ids = realloc(t->ids, sizeof *t->ids * ((size_t)t->n + (size_t)most + 1));
        if (!t->ids) die(1, "out of memory: %d tokens", t->n + most + 1);
    }
    measure_open(b, 1, list->v[longest].n + most + 1, list->v[longest].name);
}

void lookup_rows_run(Bench *b) {
    static TextList list;
    int n_lengths = b->o.gen.n;
    for (int m = 0; m < b->o.models.n * b->o.threads.n; m++) {
        measure_use_model(b, m / b->o.threads.n);
        measure_use_threads(b, m % b->o.threads.n);
        open_texts(&list, b);
        open_session(b, &list);
        if (!m) report_start(b, row_lookup_csv_header, lookup_md_header);
        for (int i = 0; i < list.n * n_lengths; i++) measure_text(b, &list.v[i / n_lengths], b->o.gen.v[i % n_lengths]);
        measure_close(b);
        close_texts(&list);
    }
    report_end(b);
}
