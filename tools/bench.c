// bench: how fast a model runs on this machine, in tokens and in bytes per second.
//
// Owns three measurements: rows as in llama-bench (prefill, decode and both at a given depth, of several models and
// numbers of threads; -o jsonl has its field names, so that its scripts read it), --sweep: both as the context
// grows, --attention: the fused attention loop against an unfused one with an n x n matrix. Bytes are computed from the
// model's shape, only time is measured; decode is compared with the machine's memory bandwidth (probe).
#include "cli.h"

#include "attention.h"
#include "file.h"
#include "engine.h"
#include "growth_plot.h"
#include "outfile.h"
#include "probe.h"
#include "profile_table.h"
#include "synth_vocab.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_LIST = 16, MOST_TOKENS = 1 << 24, MAX_REPEATS = 1000, SWEEP_START = 128, SWEEP_CHUNK = 512, SWEEP_NEW = 32 };

typedef enum { OUT_MD, OUT_CSV, OUT_JSON, OUT_JSONL } Format;

typedef struct {
    int n, v[MAX_LIST];
} List;

typedef struct {
    List prompt, gen;
} Pairs;

typedef struct {
    int n;
    const char *v[MAX_LIST];
} Models;

typedef struct {
    Models models;
    const char *tokenizer, *plot;
    List prompt, gen, depth, threads;
    Pairs pairs; // prompts and what is generated behind each
    int repeats, sweep, attention, format;
    bool profile, kv_given;
    SessionOptions session;
} Options;

// ---- command line

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

static void take_pair(void *to, const char *flag, const char *text) {
    Pairs *pairs = to;
    List pair = {0};
    append_list(&pair, flag, text, 1, MOST_TOKENS);
    if (pair.n != 2) die(2, "%s: expected P,N, two integers, found '%s'", flag, text);
    add_to_list(&pairs->prompt, pair.v[0], flag);
    add_to_list(&pairs->gen, pair.v[1], flag);
}

static void take_model(void *to, const char *flag, const char *text) {
    Models *models = to;
    if (models->n == MAX_LIST) die(2, "%s: expected up to %d models, found more", flag, MAX_LIST);
    models->v[models->n++] = text;
}

static void take_kv(void *to, const char *flag, const char *text) {
    Options *o = to;
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

static const char *instead_of_rows(const Options *o) {
    return o->attention ? "--attention" : o->sweep ? "--sweep" : NULL;
}

static void check(const Options *o) {
    const char *other = instead_of_rows(o);
    const struct {
        const char *flag;
        bool given;
    } rows_only[] = {{"-p", o->prompt.n}, {"-n", o->gen.n}, {"-d", o->depth.n}, {"-pg", o->pairs.prompt.n}};
    if (!o->models.n && !o->attention) die(2, "no model: expected build/bench MODEL, or --attention N");
    if (o->attention && o->sweep) die(2, "--attention and --sweep: expected one, found both");
    if (o->profile && other) die(2, "--profile: expected with -p and -n, found --sweep or --attention");
    if (o->profile && o->format != OUT_MD && o->format != OUT_JSON)
        die(2, "--profile: expected -o md or json, found %s", o->format == OUT_CSV ? "csv" : "jsonl");
    if (o->plot && !o->sweep) die(2, "--plot: needs --sweep N");
    if (o->plot) check_plot(o->plot);
    cli_check_session(&o->session);
    for (size_t i = 0; other && i < sizeof rows_only / sizeof *rows_only; i++) {
        if (rows_only[i].given) die(2, "%s: expected without %s", rows_only[i].flag, other);
    }
    if (other && o->format == OUT_JSONL) die(2, "-o jsonl: expected without %s", other);
    if (other && o->threads.n > 1) die(2, "-t: expected one number of threads with %s, found %d", other, o->threads.n);
    if (o->sweep && o->models.n > 1) die(2, "--sweep: expected one model, found %d", o->models.n);
    if (o->attention && o->models.n) die(2, "--attention: expected no model, found %s", o->models.v[0]);
    if (o->attention && o->session.n_ctx) die(2, "-c: expected without --attention");
    if (o->attention && o->tokenizer) die(2, "-z: expected without --attention");
}

static void set_default(List *list, int v) {
    if (!list->n) *list = (List){1, {v}};
}

static Options parse(int argc, char **argv) {
    static Options o = {.repeats = 5};
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
        {"-r --repetitions", "N", "repetitions (default: 5)", TAKES_INT(&o.repeats, 1, MAX_REPEATS)},
        {"-o --output", "FORMAT", "md, csv, json, or jsonl: llama-bench's fields, one row a line (default: md)",
         TAKES_CHOICE(&o.format, "md csv json jsonl")},
        {"--profile", NULL, "the time of each operation (with -o md or json)", SETS(&o.profile)},
        {"--sweep", "N", "instead: speed as the context grows to N tokens", TAKES_INT(&o.sweep, 2, MOST_TOKENS)},
        {"--plot", "FILE.svg", "with --sweep: write a chart", TAKES_STRING(&o.plot)},
        {"--attention", "N", "instead: attention over N tokens, fused against unfused (needs no model)",
         TAKES_INT(&o.attention, 1, 32768)}, // a 4 GiB matrix
        {"-t --threads", "N,..", "threads, a test for each number (default: the cores this process may use)",
         TAKES_CALL(&o.threads, take_threads)},
        {"-c --ctx-size", "N", "context limit (default: what the tests need)",
         TAKES_INT(&o.session.n_ctx, 1, MOST_CONTEXT)},
        SPAN_FLAGS(&o.session),
        {"--kv", "TYPE", KV_HELP, TAKES_CALL(&o, take_kv)},
        TOKENIZER_FLAG(&o.tokenizer),
        {"-ngl --n-gpu-layers", "N", NULL, FLAG_NOTE, .words = "all layers run on the CPU"},
        {"-fa --flash-attn", "[0|1|on|off|auto]", NULL, FLAG_NOTE, .words = "attention is always fused"},
        {"-b --batch-size -ub --ubatch-size", "N", NULL, FLAG_NOTE,
         .words = "prompts are read in blocks of a fixed size"},
        {"-mmp --mmap", "N", NULL, FLAG_NOTE, .words = "weights are always mapped"},
        {"-ctk --cache-type-k -ctv --cache-type-v", "TYPE", NULL, FLAG_REFUSED,
         .words = "keys and values are stored as one type; use --kv bf16, f32 or q8"},
    };
    const Program program = {"build/bench", "MODEL... [options]",
                             "  Lists are 1,2,4 or ranges: 1-4, 0-1024+256, 64-512*2\n", flags,
                             sizeof flags / sizeof *flags};
    int n = cli_parse(&program, argc, argv);
    for (int i = 0; i < n; i++) take_model(&o.models, argv[i], argv[i]);
    check(&o);
    set_default(&o.prompt, 512);
    set_default(&o.gen, 128);
    set_default(&o.depth, 0);
    set_default(&o.threads, cpu_count() < MAX_THREADS ? cpu_count() : MAX_THREADS);
    return o;
}

// ---- numbers

static double mean(const double *v, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += v[i];
    return sum / n;
}

static double deviation(const double *v, int n) { // of a sample
    double m = mean(v, n), sum = 0;
    for (int i = 0; i < n; i++) sum += (v[i] - m) * (v[i] - m);
    return n > 1 ? sqrt(sum / (n - 1)) : 0;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n) { // sorts v
    qsort(v, (size_t)n, sizeof *v, compare);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static uint64_t random_state = 0x9E3779B97F4A7C15u;

static uint32_t random_u32(void) { // xorshift64*
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)(random_state * 0x2545F4914F6CDD1Du >> 32);
}

static void *must_alloc(size_t bytes) {
    void *p;
    if (posix_memalign(&p, 64, bytes ? bytes : 1)) die(1, "out of memory: %.1f MiB", (double)bytes / 0x1p20);
    return p;
}

// ---- output

typedef struct {
    char label[96]; // "llama 1.1B Q8_0"
    const char *path;
    Engine *engine;
    EngineInfo info;
    bool is_random; // the weights are build/synth's
} BenchModel;

typedef struct {
    double read_gb;          // GB/s; 0: unknown
    double gflops[N_LEVELS]; // with --profile; 0: unknown, or a level that is not used
} Machine;

typedef struct {
    Options o;
    BenchModel models[MAX_LIST];
    Machine machines[MAX_LIST]; // for each number of threads
    // of the current test
    const BenchModel *model;
    const Machine *machine;
    int n_threads;
    EngineInfo info;
    Session *session;
    Profile *profile; // of the current test; NULL: none
    int32_t *tokens;  // random ids; every test uses a prefix of them
    int n_rows;       // printed
    bool over;        // some test was faster than memory
} Bench;

static void put_json_string(const char *text) {
    putchar('"');
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') putchar('\\');
        if (c < ' ') printf("\\u%04x", c);
        else putchar(c);
    }
    putchar('"');
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void put_json_number(const char *key, double v) { // null: unknown, or not applicable
    if (v > 0) printf("\"%s\": %.6g", key, v);
    else printf("\"%s\": null", key);
}

static void name_model(BenchModel *m) {
    double n = (double)m->info.n_params;
    char size[32];
    if (n >= 1e9) snprintf(size, sizeof size, "%.1fB", n * 1e-9);
    else snprintf(size, sizeof size, n >= 1e7 ? "%.0fM" : "%.2fM", n * 1e-6);
    snprintf(m->label, sizeof m->label, "%s %s %s", m->info.family, size, m->info.type);
}

// What a table's numbers hold for, beside the model.
static void describe_cache(const Bench *b, char *text, size_t size) {
    const SessionOptions *o = &b->o.session;
    size_t n = (size_t)snprintf(text, size, "%s KV cache", kv_type_name(o->kv));
    if (o->window && n < size) n += (size_t)snprintf(text + n, size - n, ", window %d", o->window);
    if (o->n_sinks && n < size) snprintf(text + n, size - n, ", %d sinks", o->n_sinks);
}

static void put_json_model(const BenchModel *m) {
    printf("{\"file\": ");
    put_json_string(base_name(m->path));
    printf(", \"name\": \"%s\", \"kind\": ", m->label);
    put_json_string(m->info.kind);
    printf(", \"random_weights\": %s, \"n_params\": %llu, \"model_bytes\": %llu, \"token_bytes\": %llu}",
           m->is_random ? "true" : "false", (unsigned long long)m->info.n_params,
           (unsigned long long)m->info.model_bytes, (unsigned long long)m->info.token_bytes);
}

static void start_output(const Bench *b, const char *csv_header, const char *md_header) {
    const SessionOptions *so = &b->o.session;
    int n = b->o.models.n;
    if (b->o.format == OUT_CSV) puts(csv_header);
    if (b->o.format == OUT_MD) fputs(md_header, stdout);
    if (b->o.format != OUT_JSON) return;
    printf("{\"machine\": {\"cpu\": ");
    put_json_string(cpu_model());
    printf(", \"cores\": %d, ", cpu_count());
    put_json_number("read_gb_per_s", b->machine->read_gb);
    for (CpuLevel r = 0; r < N_LEVELS; r++) {
        if (b->machine->gflops[r] > 0) printf(", \"%s_gflop_per_s\": %.6g", cpu_level_name(r), b->machine->gflops[r]);
    }
    printf("},\n \"kv\": \"%s\", \"window\": %d, \"sinks\": %d,\n", kv_type_name(so->kv), so->window, so->n_sinks);
    if (n > 1) printf(" \"models\": [");
    else if (n) printf(" \"model\": ");
    for (int i = 0; i < n; i++) {
        if (i) printf(",\n  ");
        put_json_model(&b->models[i]);
    }
    if (n) printf(n > 1 ? "],\n" : ",\n");
    printf(" \"rows\": [");
}

static void start_row(Bench *b) {
    if (b->o.format == OUT_JSON) fputs(b->n_rows ? ",\n  " : "\n  ", stdout);
    b->n_rows++;
}

static void print_threads(const Bench *b) {
    for (int i = 0; i < b->o.threads.n; i++) printf("%s%d", i ? ", " : "", b->o.threads.v[i]);
}

static void print_machine(const Bench *b) {
    char cache[128];
    printf("\n%s, %s, ", cpu_model(), cpu_level_name(cpu_level()));
    print_threads(b);
    printf(" of %d cores", cpu_count());
    for (int i = 0; i < b->o.threads.n; i++) {
        double gb = b->machines[i].read_gb;
        if (gb > 0 && b->o.threads.n == 1) printf("; memory reads %.1f GB/s (best of %d passes)", gb, PROBE_PASSES);
        else if (gb > 0) printf("; memory reads %.1f GB/s with %d", gb, b->o.threads.v[i]);
    }
    for (CpuLevel r = 0; r < N_LEVELS; r++) {
        double gflops = b->machine->gflops[r];
        if (gflops > 0)
            printf("; %s %s %.0f GFLOP/s", kernels_for(r)->bf16 ? "bf16" : "fp32", cpu_level_name(r), gflops);
    }
    describe_cache(b, cache, sizeof cache);
    if (b->o.models.n) printf("; %s", cache);
    putchar('\n');
    for (int i = 0; i < b->o.models.n; i++) {
        if (b->models[i].is_random) printf("%s: random weights\n", base_name(b->models[i].path));
    }
}

static void end_output(const Bench *b) {
    if (b->o.format == OUT_JSON) puts("\n]}");
    if (b->o.format == OUT_MD) print_machine(b);
    if (b->o.format == OUT_MD && b->over) {
        printf("* in cache: faster than memory, so the %.1f MiB of weights read per token fit at least partly in a "
               "cache, and memory bandwidth is not the bound\n",
               (double)b->info.token_bytes / 0x1p20);
    }
    if (fflush(stdout) || ferror(stdout)) die(1, "stdout: the results could not be written");
}

// ---- the tokens to measure

static void open_model(Bench *b, int n_needed, const char *who) {
    char err[512];
    if (b->o.session.n_ctx && b->o.session.n_ctx < n_needed) {
        die(2, "-c %d: %s needs %d tokens", b->o.session.n_ctx, who, n_needed);
    }
    SessionOptions so = b->o.session;
    so.n_ctx = n_needed; // may exceed the model's own: speed does not depend on the quality of the text
    so.n_threads = b->n_threads;
    b->session = session_open(b->model->engine, &so, err, sizeof err);
    if (!b->session) die(1, "%s", err);
    b->tokens = must_alloc(sizeof *b->tokens * (size_t)n_needed);
    uint32_t vocab = (uint32_t)b->info.vocab_size, first = vocab > 512 ? 259 : 0; // no control and byte tokens
    for (int i = 0; i < n_needed; i++) b->tokens[i] = (int32_t)(first + random_u32() % (vocab - first));
}

static void sync_text(Bench *b, int n) {
    char err[512];
    if (session_sync(b->session, b->tokens, n, err, sizeof err)) die(1, "%s", err);
}

// Leaves the first `depth` tokens in the session; for 0, one different token, since a session cannot be empty.
static void rewind_text(Bench *b, int depth) {
    char err[512];
    int32_t other = b->tokens[0] == 0 ? 1 % b->info.vocab_size : 0;
    if (depth) sync_text(b, depth);
    else if (session_sync(b->session, &other, 1, err, sizeof err)) die(1, "%s", err);
}

static double time_prefill(Bench *b, int depth, int n) {
    rewind_text(b, depth);
    session_profile(b->session, b->profile);
    double start = seconds();
    sync_text(b, depth + n);
    double took = seconds() - start;
    session_profile(b->session, NULL);
    return took;
}

// bytes: read for each of the n tokens, on average
static double time_decode(Bench *b, int depth, int n, double *bytes) {
    rewind_text(b, depth);
    uint64_t kv = 0;
    session_profile(b->session, b->profile);
    double start = seconds();
    for (int i = 1; i <= n; i++) {
        sync_text(b, depth + i);
        kv += session_info(b->session).memory_token_bytes;
    }
    double took = seconds() - start;
    session_profile(b->session, NULL);
    *bytes = (double)b->info.token_bytes + (double)kv / n;
    return took;
}

// ---- rows

typedef struct {
    char test[64];
    int n_prompt, n_gen, n_depth; // n_prompt or n_gen may be 0
    int n;                        // repetitions
    double seconds[MAX_REPEATS], speed[MAX_REPEATS];
    double gb; // GB/s of decode; 0 for prefill
    Profile profile;
} Row;

// A prompt, tokens generated behind it, or both.
static double time_row(Bench *b, const Row *r, double *bytes) {
    double taken = 0;
    if (r->n_prompt) taken = time_prefill(b, r->n_depth, r->n_prompt);
    if (r->n_gen) taken += time_decode(b, r->n_depth + r->n_prompt, r->n_gen, bytes);
    if (r->n_prompt) *bytes = 0;
    return taken;
}

static void measure_row(Bench *b, Row *r) {
    int n = r->n_prompt + r->n_gen;
    double bytes = 0, ignored;
    if (r->n_prompt) time_prefill(b, r->n_depth, r->n_prompt); // warm up
    else time_decode(b, r->n_depth, n < 8 ? n : 8, &ignored);
    r->n = b->o.repeats;
    b->profile = b->o.profile ? &r->profile : NULL;
    for (int i = 0; i < r->n; i++) {
        r->seconds[i] = time_row(b, r, &bytes);
        r->speed[i] = n / r->seconds[i];
    }
    b->profile = NULL;
    r->gb = bytes * mean(r->speed, r->n) * 1e-9;
}

static ProfileTable profile_of(const Bench *b, const Row *r) {
    return (ProfileTable){&r->profile, mean(r->seconds, r->n) * r->n, r->n, b->machine->gflops[cpu_level()],
                          b->machine->read_gb};
}

static void print_profile_md(Bench *b, const Row *r) {
    printf("%s%s: %.2f ± %.2f tokens/s, %.2f ms\n\n", b->n_rows > 1 ? "\n" : "", r->test, mean(r->speed, r->n),
           deviation(r->speed, r->n), mean(r->seconds, r->n) * 1e3);
    ProfileTable table = profile_of(b, r);
    profile_table_md(stdout, &table);
}

static void print_row_md(Bench *b, const Row *r) {
    char gb[32] = "", share[32] = "";
    if (r->gb > 0) snprintf(gb, sizeof gb, "%.2f", r->gb);
    if (r->gb > 0 && b->machine->read_gb > 0) {
        bool over = r->gb > b->machine->read_gb;
        b->over |= over;
        if (over) snprintf(share, sizeof share, "in cache *");
        else snprintf(share, sizeof share, "%.0f", 100 * r->gb / b->machine->read_gb);
    }
    printf("| %s | %.2f M | %.1f MiB | %d | %s | %.2f ± %.2f | %s | %s | %.2f | %.1f |\n", b->model->label,
           (double)b->info.n_params * 1e-6, (double)b->info.model_bytes / 0x1p20, b->n_threads, r->test,
           mean(r->speed, r->n), deviation(r->speed, r->n), gb, share,
           (double)session_info(b->session).kv_bytes / 0x1p20, (double)peak_rss_bytes() / 0x1p20);
}

static json_t *real_array(const double *v, int n, double scale, bool whole) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, whole ? json_integer((json_int_t)(v[i] * scale)) : json_real(v[i] * scale));
    return list;
}

// One line with the fields of llama-bench; those that mean nothing here have the values of its CPU builds.
static void print_row_jsonl(const Bench *b, const Row *r) {
    char when[32];
    time_t now = time(NULL);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
    const char *kv = b->o.session.kv == KV_Q8 ? "q8_0" : kv_type_name(b->o.session.kv);
    json_t *o = json_pack("{s:s, s:i, s:s, s:s, s:s, s:s?, s:s, s:I, s:I, s:i, s:i, s:i}", "build_commit",
                          "tessera-" TESSERA_VERSION, "build_number", 0, "cpu_info", cpu_model(), "gpu_info", "",
                          "backends", "CPU", "model_filename", b->model->path, "model_type", b->model->label,
                          "model_size", (json_int_t)b->info.model_bytes, "model_n_params", (json_int_t)b->info.n_params,
                          "n_batch", SWEEP_CHUNK, "n_ubatch", SWEEP_CHUNK, "n_threads", b->n_threads);
    json_t *fixed =
        json_pack("{s:s, s:b, s:i, s:s, s:s, s:i, s:s, s:i, s:b, s:b, s:s, s:s, s:b, s:b, s:i}", "cpu_mask", "0x0",
                  "cpu_strict", 0, "poll", 50, "type_k", kv, "type_v", kv, "n_gpu_layers", 0, "split_mode", "none",
                  "main_gpu", 0, "no_kv_offload", 0, "flash_attn", 1, "tensor_split", "0.00", "tensor_buft_overrides",
                  "none", "use_mmap", 1, "embeddings", 0, "no_op_offload", 0);
    json_t *numbers =
        json_pack("{s:i, s:i, s:i, s:s, s:I, s:I, s:f, s:f}", "n_prompt", r->n_prompt, "n_gen", r->n_gen, "n_depth",
                  r->n_depth, "test_time", when, "avg_ns", (json_int_t)(mean(r->seconds, r->n) * 1e9), "stddev_ns",
                  (json_int_t)(deviation(r->seconds, r->n) * 1e9), "avg_ts", mean(r->speed, r->n), "stddev_ts",
                  deviation(r->speed, r->n));
    if (!o || !fixed || !numbers) die(1, "%s: its row could not be written as JSON", b->model->path);
    json_object_update(o, fixed);
    json_object_update(o, numbers);
    json_object_set_new(o, "samples_ns", real_array(r->seconds, r->n, 1e9, true));
    json_object_set_new(o, "samples_ts", real_array(r->speed, r->n, 1, false));
    json_dumpf(o, stdout, JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(o);
    json_decref(fixed);
    json_decref(numbers);
    fflush(stdout);
}

static void print_row(Bench *b, const Row *r) {
    start_row(b);
    if (b->o.format == OUT_MD) {
        (b->o.profile ? print_profile_md : print_row_md)(b, r);
        fflush(stdout);
        return;
    }
    if (b->o.format == OUT_JSONL) {
        print_row_jsonl(b, r);
        return;
    }
    double speed = mean(r->speed, r->n), spread = deviation(r->speed, r->n), ns = mean(r->seconds, r->n) * 1e9;
    unsigned long long kv = session_info(b->session).kv_bytes, rss = peak_rss_bytes(), bytes = b->info.model_bytes;
    const char *level = cpu_level_name(cpu_level());
    if (b->o.format == OUT_CSV) {
        printf("%s,%s,%d,%d,%d,%d,%.6g,%.6g,%.0f,", b->model->label, r->test, r->n_prompt, r->n_gen, r->n_depth,
               b->n_threads, speed, spread, ns);
        if (r->gb > 0) printf("%.6g", r->gb);
        printf(",%llu,%llu,%llu,%s\n", kv, rss, bytes, level);
        return;
    }
    printf("{\"model\": \"%s\", \"test\": \"%s\", \"n_prompt\": %d, \"n_gen\": %d, \"n_depth\": %d, \"n_threads\": %d, "
           "\"avg_ts\": %.6g, "
           "\"stddev_ts\": %.6g, \"avg_ns\": %.0f, \"samples_ns\": [",
           b->model->label, r->test, r->n_prompt, r->n_gen, r->n_depth, b->n_threads, speed, spread, ns);
    for (int i = 0; i < r->n; i++) printf("%s%.0f", i ? ", " : "", r->seconds[i] * 1e9);
    printf("], ");
    put_json_number("gb_per_s", r->gb);
    printf(", \"in_cache\": %s", b->machine->read_gb > 0 && r->gb > b->machine->read_gb ? "true" : "false");
    printf(", \"kv_bytes\": %llu, \"peak_rss\": %llu, \"model_bytes\": %llu, \"cpu_level\": \"%s\"", kv, rss, bytes,
           level);
    if (b->o.profile) {
        ProfileTable table = profile_of(b, r);
        fputs(", \"profile\": ", stdout);
        profile_table_json(stdout, &table);
    }
    putchar('}');
}

static void name_row(Row *r) {
    char both[32] = "", depth[16] = "";
    if (r->n_prompt && r->n_gen) snprintf(both, sizeof both, "+tg%d", r->n_gen);
    if (r->n_depth) snprintf(depth, sizeof depth, " @ d%d", r->n_depth);
    snprintf(r->test, sizeof r->test, "%s%d%s%s", r->n_prompt ? "pp" : "tg", r->n_prompt ? r->n_prompt : r->n_gen, both,
             depth);
}

enum { MAX_ROWS = 3 * MAX_LIST * MAX_LIST };

// The tests: at each depth the prompts, the generations, then both. Returns their number.
static int list_rows(const Options *o, Row *rows) {
    int n = 0, n_prompts = o->prompt.n, n_one = n_prompts + o->gen.n;
    for (int d = 0; d < o->depth.n; d++) {
        for (int i = 0; i < n_one + o->pairs.prompt.n; i++) {
            Row *r = &rows[n];
            *r = (Row){.n_depth = o->depth.v[d]};
            if (i < n_prompts) r->n_prompt = o->prompt.v[i];
            else if (i < n_one) r->n_gen = o->gen.v[i - n_prompts];
            else {
                r->n_prompt = o->pairs.prompt.v[i - n_one];
                r->n_gen = o->pairs.gen.v[i - n_one];
            }
            if (!r->n_prompt && !r->n_gen) continue;
            name_row(r);
            n++;
        }
    }
    return n;
}

static void use_threads(Bench *b, int i) {
    b->n_threads = b->o.threads.v[i];
    b->machine = &b->machines[i];
}

static void use_model(Bench *b, int i) {
    b->model = &b->models[i];
    b->info = b->model->info;
}

static void close_session(Bench *b) {
    session_close(b->session);
    free(b->tokens);
    b->session = NULL;
    b->tokens = NULL;
}

static void run_rows(Bench *b) {
    static Row rows[MAX_ROWS];
    const Options *o = &b->o;
    int n = list_rows(o, rows), longest = 0, needed = 0;
    if (!n) die(2, "-p and -n: nothing to measure");
    for (int i = 0; i < n; i++) {
        int tokens = rows[i].n_depth + rows[i].n_prompt + rows[i].n_gen;
        if (tokens > needed) longest = i;
        if (tokens > needed) needed = tokens;
    }
    const char *md = "| model | params | size | threads | test | t/s | GB/s | % of read | KV MiB | peak RSS MiB |\n"
                     "|---|--:|--:|--:|---|--:|--:|--:|--:|--:|\n";
    for (int m = 0; m < o->models.n * o->threads.n; m++) {
        use_model(b, m / o->threads.n);
        use_threads(b, m % o->threads.n);
        open_model(b, needed, rows[longest].test);
        if (!m) {
            start_output(b,
                         "model,test,n_prompt,n_gen,n_depth,n_threads,avg_ts,stddev_ts,avg_ns,gb_per_s,kv_bytes,"
                         "peak_rss,model_bytes,cpu_level",
                         o->profile ? "" : md);
        }
        for (int i = 0; i < n; i++) {
            memset(&rows[i].profile, 0, sizeof rows[i].profile);
            measure_row(b, &rows[i]);
            print_row(b, &rows[i]);
        }
        close_session(b);
    }
    end_output(b);
}

// ---- sweep

enum { MAX_SWEEP = 32 };

typedef struct {
    int n;
    double context[MAX_SWEEP], prefill[MAX_SWEEP], decode[MAX_SWEEP], bound[MAX_SWEEP];
} Growth;

// One step: prefill of the last tokens before n_kv, then decode of the next ones. Medians.
static void sweep_step(Bench *b, int n_kv, Growth *g) {
    int chunk = n_kv < SWEEP_CHUNK ? n_kv : SWEEP_CHUNK;
    double pp[MAX_REPEATS], tg[MAX_REPEATS], bytes = 0;
    for (int i = 0; i < b->o.repeats; i++) pp[i] = time_prefill(b, n_kv - chunk, chunk);
    for (int i = 0; i < b->o.repeats; i++) tg[i] = time_decode(b, n_kv, SWEEP_NEW, &bytes);
    double t_pp = median(pp, b->o.repeats), t_tg = median(tg, b->o.repeats);
    double s_pp = chunk / t_pp, s_tg = SWEEP_NEW / t_tg, gb = bytes * s_tg * 1e-9,
           bound = b->machine->read_gb * 1e9 / bytes;
    int at = g->n++;
    g->context[at] = n_kv;
    g->prefill[at] = s_pp;
    g->decode[at] = s_tg;
    g->bound[at] = bound;
    unsigned long long kv = session_info(b->session).kv_bytes;
    start_row(b);
    if (b->o.format == OUT_MD) {
        bool over = b->machine->read_gb > 0 && gb > b->machine->read_gb;
        b->over |= over;
        printf("| %d | %d | %d | %.4f | %.2f | %.4f | %.2f | %.2f%s | %.2f | %.2f |\n", chunk, SWEEP_NEW, n_kv, t_pp,
               s_pp, t_tg, s_tg, gb, over ? " *" : "", (double)kv / 0x1p20, bound);
        fflush(stdout);
    } else if (b->o.format == OUT_CSV) {
        printf("%d,%d,%d,%.6g,%.6g,%.6g,%.6g,%.6g,%llu,%.6g\n", chunk, SWEEP_NEW, n_kv, t_pp, s_pp, t_tg, s_tg, gb, kv,
               bound);
    } else {
        printf("{\"pp\": %d, \"tg\": %d, \"n_kv\": %d, \"t_pp\": %.6g, \"s_pp\": %.6g, \"t_tg\": %.6g, \"s_tg\": %.6g, "
               "\"gb_per_s\": %.6g, \"kv_bytes\": %llu, ",
               chunk, SWEEP_NEW, n_kv, t_pp, s_pp, t_tg, s_tg, gb, kv);
        put_json_number("bound_ts", bound);
        putchar('}');
    }
}

// "llama 135M Q8_0 (random weights), bf16 KV cache, window 256, 4 sinks"
static void describe_sweep(const Bench *b, char *text, size_t size) {
    char cache[128];
    describe_cache(b, cache, sizeof cache);
    snprintf(text, size, "%s%s, %s", b->model->label, b->model->is_random ? " (random weights)" : "", cache);
}

static void plot_sweep(const Bench *b, const Growth *g) {
    char title[512], subtitle[512], model[256], err[512];
    describe_sweep(b, model, sizeof model);
    snprintf(title, sizeof title, "%s: speed as the context grows", base_name(b->model->path));
    int n = snprintf(subtitle, sizeof subtitle, "%s, %s, %s, %d threads", model, cpu_model(),
                     cpu_level_name(cpu_level()), b->n_threads);
    if (b->machine->read_gb > 0 && n > 0 && n < (int)sizeof subtitle) {
        snprintf(subtitle + n, sizeof subtitle - (size_t)n, ", memory reads %.1f GB/s", b->machine->read_gb);
    }
    GrowthPlot p = {
        title, subtitle, g->n, g->context, g->prefill, g->decode, b->machine->read_gb > 0 ? g->bound : NULL};
    if (growth_plot_write(b->o.plot, &p, err, sizeof err)) die(1, "%s", err);
}

static void run_sweep(Bench *b) {
    Growth g = {0};
    char model[256], header[512];
    Machine *machine = &b->machines[0];
    machine->read_gb = fmax(machine->read_gb, probe_read(b->n_threads)); // others may have slowed the first probe
    open_model(b, b->o.sweep + SWEEP_NEW, "--sweep");                    // starts threads: no fork after this
    int last = b->o.sweep;
    time_prefill(b, 0, last < SWEEP_CHUNK ? last : SWEEP_CHUNK); // warm up
    describe_sweep(b, model, sizeof model);
    snprintf(header, sizeof header,
             "%s\n\n| PP | TG | N_KV | T_PP s | S_PP t/s | T_TG s | S_TG t/s | GB/s | KV MiB | bound t/s |\n"
             "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
             model);
    start_output(b, "pp,tg,n_kv,t_pp,s_pp,t_tg,s_tg,gb_per_s,kv_bytes,bound_ts", header);
    for (int n_kv = SWEEP_START; n_kv < last; n_kv *= 2) sweep_step(b, n_kv, &g);
    sweep_step(b, last, &g);
    end_output(b);
    if (b->o.plot) plot_sweep(b, &g);
    close_session(b);
}

// ---- attention: causal, n queries over n keys

// Unfused attention: three passes over the n x n matrix of one head at a time: matmul, masked softmax, matmul, with the
// same kernels and threads, fp32 keys, and values already transposed.
typedef struct {
    const Kernels *kernels;
    int n, head_dim, n_heads, group, head;
    AttnMask mask;   // causal, window, n_sinks
    const float *q;  // [n][n_heads][head_dim]
    const float *k;  // [n][n_kv_heads][head_dim]
    const float *vt; // [n_kv_heads][head_dim][n]
    float *scores;   // [n / PANEL][n keys][PANEL queries]
    float *panels;   // [threads][2][head_dim][PANEL]
    float *out;      // [n][n_heads][head_dim]
} Plain;

static int plain_rows(const Plain *p, int block) {
    int left = p->n - block * p->kernels->panel;
    return left < p->kernels->panel ? left : p->kernels->panel;
}

static float *plain_scores(const Plain *p, int block) {
    return p->scores + (int64_t)block * p->kernels->panel * p->n;
}

static void plain_qk(void *context, int block, int worker) {
    const Plain *p = context;
    int panel = p->kernels->panel, hd = p->head_dim, rows = plain_rows(p, block), n_kv_heads = p->n_heads / p->group;
    float *packed = p->panels + (int64_t)worker * 2 * hd * panel;
    const float *q = p->q + ((int64_t)block * panel * p->n_heads + p->head) * hd;
    p->kernels->pack(packed, q, (int64_t)p->n_heads * hd, rows, hd);
    PackedMatrix w = {.data = packed, .row_stride = panel};
    p->kernels->gemm_f32(plain_scores(p, block), panel, &w, p->k + (int64_t)(p->head / p->group) * hd,
                         (int64_t)n_kv_heads * hd, p->n, hd, panel, false);
}

static void plain_softmax(void *context, int block, int worker) {
    (void)worker;
    const Plain *p = context;
    int panel = p->kernels->panel, n_keys = p->n;
    float *s = plain_scores(p, block), scale = 1.0f / sqrtf((float)p->head_dim);
    float max[MAX_PANEL], sum[MAX_PANEL] = {0};
    for (int i = 0; i < panel; i++) max[i] = SCORE_MASKED;
    for (int j = 0; j < n_keys; j++) {
        int first = j - block * panel; // the queries that see key j
        int end = p->mask.window && j >= p->mask.n_sinks ? first + p->mask.window : panel;
        for (int i = 0; i < panel; i++) {
            if (i < first || i >= end) s[j * panel + i] = SCORE_MASKED;
            max[i] = s[j * panel + i] > max[i] ? s[j * panel + i] : max[i];
        }
    }
    for (int j = 0; j < n_keys; j++) {
        for (int i = 0; i < panel; i++) sum[i] += s[j * panel + i] = expf((s[j * panel + i] - max[i]) * scale);
    }
    for (int i = 0; i < panel; i++) sum[i] = 1 / sum[i];
    for (int j = 0; j < n_keys; j++) {
        for (int i = 0; i < panel; i++) s[j * panel + i] *= sum[i];
    }
}

static void plain_pv(void *context, int block, int worker) {
    const Plain *p = context;
    int panel = p->kernels->panel, hd = p->head_dim, rows = plain_rows(p, block);
    float *o = p->panels + ((int64_t)worker * 2 + 1) * hd * panel; // [head_dim][PANEL]
    PackedMatrix w = {.data = plain_scores(p, block), .row_stride = panel};
    p->kernels->gemm_f32(o, panel, &w, p->vt + (int64_t)(p->head / p->group) * hd * p->n, p->n, hd, p->n, panel, false);
    for (int i = 0; i < rows; i++) {
        float *row = p->out + ((int64_t)(block * panel + i) * p->n_heads + p->head) * hd;
        for (int d = 0; d < hd; d++) row[d] = o[d * panel + i];
    }
}

static void plain_attention(ThreadPool *pool, Plain *p) {
    int n_blocks = (p->n + p->kernels->panel - 1) / p->kernels->panel;
    for (p->head = 0; p->head < p->n_heads; p->head++) {
        threads_for(pool, n_blocks, plain_qk, p);
        threads_for(pool, n_blocks, plain_softmax, p);
        threads_for(pool, n_blocks, plain_pv, p);
    }
}

static float *random_floats(int64_t n) {
    float *v = must_alloc(sizeof *v * (size_t)n);
    for (int64_t i = 0; i < n; i++) v[i] = (float)((double)random_u32() / 2147483648.0 - 1.0);
    return v;
}

typedef struct {
    int n_heads, n_kv_heads, head_dim;
    KvDType kv;
} AttentionShape;

typedef struct {
    double fused, plain; // seconds
    uint64_t fused_bytes, plain_bytes;
    double difference; // largest absolute
} AttentionResult;

// Of queries and keys: the causal half, or what the window and the sinks leave of it.
static double visible_pairs(const Bench *b) {
    double n = b->o.attention, w = b->o.session.window, sinks = b->o.session.n_sinks;
    if (!b->o.session.window || w >= n) return n * n / 2;
    double in_window = n * w - w * (w - 1) / 2, beyond = 0; // sinks that the window has left behind
    for (double q = w; q < n; q++) beyond += fmin(sinks, q - w + 1);
    return in_window + beyond;
}

static void print_attention(Bench *b, const AttentionShape *s, const AttentionResult *r) {
    int n = b->o.attention;
    double work = 4.0 * visible_pairs(b) * s->head_dim * s->n_heads * 1e-9; // GFLOP
    double fused_ms = r->fused * 1e3, plain_ms = r->plain * 1e3, ratio = r->plain / r->fused;
    double fused_speed = work / r->fused, plain_speed = work / r->plain, difference = r->difference;
    unsigned long long fused = r->fused_bytes, plain = r->plain_bytes;
    const char *kv = kv_dtype_name(s->kv);
    start_row(b);
    if (b->o.format == OUT_MD) {
        printf("| %d | %d/%d | %s | %d | %.2f | %.1f | %.2f | %.1f | %.2f | %.2f | %.2f | %.1e |\n", s->head_dim,
               s->n_heads, s->n_kv_heads, kv, n, fused_ms, fused_speed, plain_ms, plain_speed, ratio,
               (double)fused / 0x1p20, (double)plain / 0x1p20, difference);
        fflush(stdout);
    } else if (b->o.format == OUT_CSV) {
        printf("%d,%d,%d,%s,%d,%.6g,%.6g,%.6g,%.6g,%.6g,%llu,%llu,%.3g\n", s->head_dim, s->n_heads, s->n_kv_heads, kv,
               n, fused_ms, fused_speed, plain_ms, plain_speed, ratio, fused, plain, difference);
    } else {
        printf("{\"head_dim\": %d, \"n_heads\": %d, \"n_kv_heads\": %d, \"kv\": \"%s\", \"n\": %d, \"n_threads\": %d, "
               "\"fused_ms\": %.6g, \"fused_gflops\": %.6g, \"unfused_ms\": %.6g, \"unfused_gflops\": %.6g, "
               "\"ratio\": %.6g, \"fused_bytes\": %llu, \"unfused_bytes\": %llu, \"max_difference\": %.3g, "
               "\"cpu_level\": \"%s\"}",
               s->head_dim, s->n_heads, s->n_kv_heads, kv, n, b->n_threads, fused_ms, fused_speed, plain_ms,
               plain_speed, ratio, fused, plain, difference, cpu_level_name(cpu_level()));
    }
}

static double largest_difference(const float *a, const float *b, int64_t n) { // NaN if any difference is
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= largest)) largest = d;
        if (isnan(d)) break;
    }
    return largest;
}

// Medians; measured alternately, so that noise affects both.
static void time_both(const Bench *b, const Compute *compute, const Attention *fused, Plain *plain,
                      AttentionResult *r) {
    double fused_s[MAX_REPEATS], plain_s[MAX_REPEATS];
    for (int i = -1; i < b->o.repeats; i++) { // the first warms up
        double start = seconds();
        attention(compute, fused, 1);
        double middle = seconds();
        plain_attention(compute->pool, plain);
        if (i < 0) continue;
        fused_s[i] = middle - start;
        plain_s[i] = seconds() - middle;
    }
    r->fused = median(fused_s, b->o.repeats);
    r->plain = median(plain_s, b->o.repeats);
}

// Returns whether fused and unfused results agree.
static bool measure_attention(Bench *b, Compute *compute, const AttentionShape *shape) {
    char err[512];
    int n = b->o.attention, hd = shape->head_dim, n_heads = shape->n_heads, n_kv = shape->n_kv_heads;
    int panel = kernels()->panel, kv_dim = n_kv * hd;
    AttnMask mask = {.causal = true, .window = b->o.session.window, .n_sinks = b->o.session.n_sinks};
    int64_t q_count = (int64_t)n * n_heads * hd, kv_count = (int64_t)n * kv_dim;
    float *q = random_floats(q_count), *k = random_floats(kv_count), *v = random_floats(kv_count);
    float *out = must_alloc(sizeof(float) * (size_t)q_count), *vt = must_alloc(sizeof(float) * (size_t)kv_count);
    for (int64_t i = 0; i < kv_count; i++) vt[i % kv_dim * n + i / kv_dim] = v[i];
    KvShape kv = {.n_kv_heads = n_kv, .k_dim = hd, .v_dim = hd, .type = shape->kv};
    KvCache *cache = kvcache_open(&kv, NULL, err, sizeof err);
    if (!cache) die(1, "%s", err);
    if (kvcache_reserve(cache, n)) die(1, "out of memory for the cache of %d tokens", n);
    kvcache_store(cache, n, k, v);
    kvcache_advance(cache, n);
    if (attention_reserve(compute, n_heads, n_kv, hd, hd, err, sizeof err)) die(1, "%s", err);
    Attention fused = {.q = q, .out = out, .n_q = n, .n_heads = n_heads, .n_keys = n};
    fused.scale = 1.0f / sqrtf((float)hd);
    fused.kv = kvcache_view(cache);
    fused.mask = mask;
    size_t n_blocks = ((size_t)n + (size_t)panel - 1) / (size_t)panel;
    size_t score_bytes = sizeof(float) * n_blocks * (size_t)panel * (size_t)n;
    Plain plain = {.kernels = kernels(),
                   .n = n,
                   .head_dim = hd,
                   .n_heads = n_heads,
                   .group = n_heads / n_kv,
                   .mask = mask,
                   .q = q,
                   .k = k,
                   .vt = vt};
    plain.scores = must_alloc(score_bytes);
    plain.panels = must_alloc(sizeof(float) * 2 * (size_t)(threads_count(compute->pool) * hd * panel));
    plain.out = must_alloc(sizeof(float) * (size_t)q_count);
    AttentionResult r = {.fused_bytes = compute_scratch_bytes(compute), .plain_bytes = score_bytes};
    time_both(b, compute, &fused, &plain, &r);
    r.difference = largest_difference(out, plain.out, q_count);
    print_attention(b, shape, &r);
    double most = shape->kv == KV_DTYPE_F32 ? 1e-4 : shape->kv == KV_DTYPE_Q8 ? 5e-2 : 1e-2;
    bool agree = r.difference <= most;
    if (!agree) fprintf(stderr, "error: head_dim %d: fused and unfused attention differ by %g\n", hd, r.difference);
    void *all[] = {q, k, v, vt, out, plain.scores, plain.panels, plain.out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    kvcache_close(cache);
    return agree;
}

// Of the two usual shapes: with --kv that type, else bf16 and fp32.
static int attention_shapes(const Bench *b, AttentionShape *shapes) {
    static const AttentionShape usual[] = {{9, 3, 64, KV_DTYPE_BF16}, {8, 2, 128, KV_DTYPE_BF16}};
    const KvType kv = b->o.session.kv;
    int n = 0;
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        shapes[n] = usual[i];
        if (b->o.kv_given) shapes[n].kv = kv == KV_F32 ? KV_DTYPE_F32 : kv == KV_Q8 ? KV_DTYPE_Q8 : KV_DTYPE_BF16;
        n++;
        if (b->o.kv_given) continue;
        shapes[n] = usual[i];
        shapes[n++].kv = KV_DTYPE_F32;
    }
    return n;
}

static int run_attention(Bench *b) {
    AttentionShape shapes[4];
    int n = attention_shapes(b, shapes);
    char err[512], header[512];
    const SessionOptions *so = &b->o.session;
    bool agree = true;
    Compute compute;
    if (compute_open(&compute, b->n_threads, err, sizeof err)) die(1, "%s", err);
    int at = so->window ? snprintf(header, sizeof header, "window %d, %d sinks\n\n", so->window, so->n_sinks) : 0;
    snprintf(header + at, sizeof header - (size_t)at,
             "| head dim | heads | KV | n | fused ms | GFLOP/s | unfused ms | GFLOP/s | ratio | fused MiB | "
             "unfused MiB | max diff |\n|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    start_output(b,
                 "head_dim,n_heads,n_kv_heads,kv,n,fused_ms,fused_gflops,unfused_ms,unfused_gflops,ratio,"
                 "fused_bytes,unfused_bytes,max_difference",
                 header);
    for (int i = 0; i < n; i++) agree &= measure_attention(b, &compute, &shapes[i]);
    end_output(b);
    compute_close(&compute);
    return agree ? 0 : 1;
}

// Before this process has threads.
static void probe_machine(Bench *b) {
    for (int i = 0; i < b->o.threads.n; i++) {
        int n_threads = b->o.threads.v[i];
        b->machines[i].read_gb = probe_read(n_threads);
        for (CpuLevel r = 0; b->o.profile && r <= cpu_level(); r++) b->machines[i].gflops[r] = probe_gemm(n_threads, r);
    }
}

static void open_models(Bench *b) {
    char err[512];
    for (int i = 0; i < b->o.models.n; i++) {
        BenchModel *m = &b->models[i];
        m->path = b->o.models.v[i];
        m->engine = engine_open(m->path, b->o.tokenizer, err, sizeof err);
        if (!m->engine) die(1, "%s", err);
        tell_notes(engine_notes(m->engine));
        m->info = engine_info(m->engine);
        m->is_random = synth_vocab_is(m->engine->tokenizer);
        name_model(m);
    }
}

int main(int argc, char **argv) {
    static Bench b;
    b.o = parse(argc, argv);
    file_guard_shrinking();
    use_threads(&b, 0);
    if (b.o.attention) return run_attention(&b);
    open_models(&b);
    use_model(&b, 0);
    probe_machine(&b);
    (b.o.sweep ? run_sweep : run_rows)(&b);
    for (int i = 0; i < b.o.models.n; i++) engine_close(b.models[i].engine);
    return 0;
}
