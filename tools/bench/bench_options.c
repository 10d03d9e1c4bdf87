// bench_options: see bench_options.h.
#include "bench_options.h"

#include "cli.h"
#include "cpu.h"
#include "growth_plot.h"
#include "habits.h"
#include "outfile.h"
#include "threads.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_TOKENS = 1 << 24 };

static void add_to_list(List *list, long v, const char *flag) {
    if (list->n == MAX_LIST) die(2, "%s: expected up to %d values, found more", flag, MAX_LIST);
    list->v[list->n++] = (int)v;
}

// "8", "8-64*2", "1-4", "0-1024+256"; 0 where the text is none. *end: behind it.
static int parse_range(const char *at, char **end, long range[3], bool *multiply) {
    range[0] = range[1] = strtol(at, end, 10);
    range[2] = 1;
    *multiply = false;
    if (*end == at) return 0;
    if (**end != '-') return 1;
    const char *last = *end + 1;
    range[1] = strtol(last, end, 10);
    if (*end == last) return 0;
    if (**end != '+' && **end != '*') return 1;
    *multiply = **end == '*';
    last = *end + 1;
    range[2] = strtol(last, end, 10);
    return *end > last && range[2] > (*multiply ? 1 : 0);
}

// Appends integers from least, separated by commas, ranges among them.
static void append_list(List *list, const char *flag, const char *text, long least, long most) {
    for (const char *at = text;; at++) {
        char *end;
        long range[3];
        bool multiply, sound = parse_range(at, &end, range, &multiply);
        if (!sound || range[0] < least || range[1] > most || range[1] < range[0] || (multiply && !range[0]) ||
            (*end && *end != ',')) {
            die(2, "%s: expected integers from %ld to %ld, or ranges such as 1-4, separated by commas, found '%s'",
                flag, least, most, text);
        }
        for (long v = range[0]; v <= range[1]; v = multiply ? v * range[2] : v + range[2]) add_to_list(list, v, flag);
        at = end;
        if (!*at) return;
    }
}

static void take_list(void *to, const char *flag, const char *text) {
    append_list(to, flag, text, 0, MOST_TOKENS);
}

static void take_threads(void *to, const char *flag, const char *text) {
    append_list(to, flag, text, 1, MAX_THREADS);
}

static void take_batch(void *to, const char *flag, const char *text) {
    append_list(to, flag, text, 1, MAX_SEQUENCES);
}

static void take_pair(void *to, const char *flag, const char *text) {
    Pairs *pairs = to;
    List pair = {0};
    append_list(&pair, flag, text, 1, MOST_TOKENS);
    if (pair.n != 2) die(2, "%s: expected P,N, two integers, found '%s'", flag, text);
    add_to_list(&pairs->prompt, pair.v[0], flag);
    add_to_list(&pairs->gen, pair.v[1], flag);
}

static void add_model(Models *models, const char *flag, const char *path) {
    if (models->n == MAX_LIST) die(2, "%s: expected up to %d models, found more", flag, MAX_LIST);
    models->v[models->n++] = path;
}

// A model, or several separated by commas.
static void take_model(void *to, const char *flag, const char *text) {
    if (!access(text, F_OK) || !strchr(text, ',')) {
        add_model(to, flag, text);
        return;
    }
    char *copy = strdup(text), *saved; // for the life of the program
    if (!copy) die(1, "out of memory");
    for (char *path = strtok_r(copy, ",", &saved); path; path = strtok_r(NULL, ",", &saved)) add_model(to, flag, path);
}

static void take_lookup(void *to, const char *flag, const char *path) {
    Texts *texts = to;
    texts->wanted = true;
    if (!path) return;
    if (texts->n == MAX_LIST) die(2, "%s: expected up to %d files, found more", flag, MAX_LIST);
    texts->v[texts->n++] = path;
}

static void take_kv(void *to, const char *flag, const char *text) {
    BenchOptions *o = to;
    cli_take_kv(&o->session.kv, flag, text);
    o->kv_given = true;
}

// The ending is looked at before anything is measured.
static void check_plot(const char *path) {
    size_t n = strlen(path);
    bool named = n > 4 && !strcmp(path + n - 4, ".svg");
    if (!named && outfile_replaces(path)) die(2, "--plot: expected a file that ends in .svg, found %s", path);
    if (!strcmp(path, "-")) die(2, "--plot: expected a file, found -; stdout has the table");
}

// What has a table of its own, with columns of its own.
static const char *own_table(const BenchOptions *o) {
    return o->attention ? "--attention" : o->products ? "--products" : o->sweep ? "--sweep" : NULL;
}

static void check(const BenchOptions *o) {
    const char *table = own_table(o), *other = o->lookup.wanted ? "--lookup" : table;
    const struct {
        const char *flag;
        bool given;
    } rows_only[] = {
        {"-p", o->prompt.n}, {"-n", o->gen.n}, {"-d", o->depth.n}, {"-pg", o->pairs.prompt.n}, {"--batch", o->batch.n}};
    const char *no_model = o->attention ? "--attention" : o->products ? "--products" : NULL;
    if (!o->models.n && !no_model) die(2, "no model: expected build/bench MODEL, --attention N or --products N");
    if (!!o->attention + !!o->products + !!o->sweep + o->lookup.wanted > 1)
        die(2, "--attention, --products, --sweep and --lookup: expected one, found more");
    if (o->profile && other) die(2, "--profile: expected with -p and -n, found %s", other);
    if (o->profile && o->format != OUT_MD && o->format != OUT_JSON)
        die(2, "--profile: expected -o md or json, found %s", o->format == OUT_CSV ? "csv" : "jsonl");
    if (o->plot && !o->sweep) die(2, "--plot: needs --sweep N");
    if (o->plot) check_plot(o->plot);
    cli_check_session(&o->session);
    for (size_t i = 0; other && i < sizeof rows_only / sizeof *rows_only; i++) {
        bool kept = !strcmp(rows_only[i].flag, o->lookup.wanted ? "-n" : o->sweep ? "--batch" : "");
        if (rows_only[i].given && !kept) die(2, "%s: expected without %s", rows_only[i].flag, other);
    }
    for (int i = 0; o->lookup.wanted && i < o->gen.n; i++) {
        if (!o->gen.v[i]) die(2, "-n: expected from 1 with --lookup, found 0");
    }
    if (table && o->format == OUT_JSONL) die(2, "-o jsonl: expected without %s", table);
    if (table && o->threads.n > 1) die(2, "-t: expected one number of threads with %s, found %d", table, o->threads.n);
    if (o->sweep && o->batch.n > GROWTH_MAX_BATCHES)
        die(2, "--batch: expected up to %d numbers with --sweep, found %d", GROWTH_MAX_BATCHES, o->batch.n);
    if (o->sweep && o->models.n > 1) die(2, "--sweep: expected one model, found %d", o->models.n);
    if (no_model && o->models.n) die(2, "%s: expected no model, found %s", no_model, o->models.v[0]);
    if (no_model && o->session.n_ctx) die(2, "-c: expected without %s", no_model);
    if (no_model && o->tokenizer) die(2, "-z: expected without %s", no_model);
}

static void set_default(List *list, int v) {
    if (!list->n) *list = (List){1, {v}};
}

BenchOptions bench_options(int argc, char **argv) {
    static BenchOptions o = {.repeats = 5};
    static CacheTypes cache;
    const Flag flags[] = {
        {"-m --model", "MODEL", "the model (or without a flag); several are measured in turn",
         TAKES_CALL(&o.models, take_model)},
        {"-p --n-prompt", "N,..", "prompt lengths of the prefill tests, 0 for none (default: 512)",
         TAKES_CALL(&o.prompt, take_list)},
        {"-n --n-gen", "N,..", "tokens to generate in the decode tests, 0 for none (default: 128)",
         TAKES_CALL(&o.gen, take_list)},
        {"-pg", "P,N", "a test of both: a prompt of P, then N tokens; may be repeated",
         TAKES_CALL(&o.pairs, take_pair)},
        {"-d --n-depth", "N,..", "depths: tokens already in the context (default: 0)", TAKES_CALL(&o.depth, take_list)},
        {"--batch", "N,..", "decode tests, --sweep: so many texts together, each a token a step (default: 1)",
         TAKES_CALL(&o.batch, take_batch)},
        {"-r --repetitions", "N", "repetitions (default: 5)", TAKES_INT(&o.repeats, 1, MAX_REPEATS)},
        {"-o --output", "FORMAT", "md, csv, json, or jsonl: llama-bench's fields, one row a line (default: md)",
         TAKES_CHOICE(&o.format, "md csv json jsonl")},
        {"--profile", NULL, "the time of each operation (with -o md or json)", SETS(&o.profile)},
        {"--sweep", "N", "instead: speed as the context grows to N tokens", TAKES_INT(&o.sweep, 2, MOST_TOKENS)},
        {"--plot", "FILE.svg", "with --sweep: write a chart", TAKES_STRING(&o.plot)},
        {"--lookup", "[FILE]",
         "instead: generation with guesses from the earlier text, and without, of texts to copy (FILE, which may be "
         "repeated, or built-in ones) and of a story",
         TAKES_CALL(&o.lookup, take_lookup)},
        {"--attention", "N", "instead: attention over N tokens, fused against unfused (needs no model)",
         TAKES_INT(&o.attention, 1, 32768)}, // a 4 GiB matrix
        {"--products", "N", "instead: a matrix times 1 to N vectors, against one vector (needs no model)",
         TAKES_INT(&o.products, 1, 1024)},
        {"-t --threads", "N,..", "threads, a test for each number (default: the cores this process may use)",
         TAKES_CALL(&o.threads, take_threads)},
        {"-c --ctx-size", "N", "context limit (default: what the tests need)",
         TAKES_INT(&o.session.n_ctx, 1, MOST_CONTEXT)},
        SPAN_FLAGS(&o.session),
        {"--kv", "TYPE", KV_HELP, TAKES_CALL(&o, take_kv)},
        PRECISION_FLAG(&o.session),
        TOKENIZER_FLAG(&o.tokenizer),
        {"-fa --flash-attn", "N,..", NULL, FLAG_NOTE, .words = "attention is always fused"},
        {"-mmp --mmap -dio --direct-io", "N,..", NULL, FLAG_NOTE, .words = "weights are always mapped"},
        {"-nkvo --no-kv-offload -nopo --no-op-offload", "N,..", NULL, FLAG_NOTE,
         .words = "the cache is in main memory"},
        {"-embd --embeddings", "N,..", NULL, FLAG_NOTE, .words = "logits are computed, as of a text"},
        {"-rpc --rpc", "X", NULL, FLAG_NOTE, .words = "all layers run on the CPU"},
        {"--delay", "N", NULL, FLAG_NOTE, .words = "tests follow each other"},
        {"--progress", NULL, NULL, FLAG_NOTE, .words = "each row is printed when it is measured"},
        {"-oe --output-err", "FORMAT", NULL, FLAG_REFUSED, .words = "rows are printed once; use -o"},
        MACHINE_HABITS,
        CACHE_TYPE_FLAGS(&cache),
        MODEL_HABITS,
    };
    const Program program = {"build/bench", "MODEL... [options]",
                             "  Lists are 1,2,4 or ranges: 1-4, 0-1024+256, 64-512*2\n", flags,
                             sizeof flags / sizeof *flags};
    int n = cli_parse(&program, argc, argv);
    for (int i = 0; i < n; i++) take_model(&o.models, argv[i], argv[i]);
    o.kv_given |= cli_cache_types(&cache, &o.session.kv);
    check(&o);
    set_default(&o.prompt, 512);
    set_default(&o.gen, 128);
    set_default(&o.depth, 0);
    set_default(&o.batch, 1);
    set_default(&o.threads, cpu_count() < MAX_THREADS ? cpu_count() : MAX_THREADS);
    return o;
}
