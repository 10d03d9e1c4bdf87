// bench: how fast a model runs on this machine, in tokens and in bytes per second.
//
// Owns three measurements: rows as in llama-bench (prefill and decode at a given depth), --sweep: both as the context
// grows, --attention: the fused attention loop against an unfused one with an n x n matrix. Bytes are computed from the
// model's shape, only time is measured; decode is compared with the machine's memory bandwidth (probe).
#include "cli.h"

#include "attention.h"
#include "file.h"
#include "growth_plot.h"
#include "probe.h"
#include "profile_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LIST = 16, MOST_TOKENS = 1 << 24, MAX_REPEATS = 1000, SWEEP_START = 128, SWEEP_CHUNK = 512, SWEEP_NEW = 32 };

typedef enum { OUT_MD, OUT_CSV, OUT_JSON } Format;

typedef struct {
    int n, v[MAX_LIST];
} List;

typedef struct {
    const char *model, *tokenizer, *plot;
    List prompt, gen, depth;
    int repeats, sweep, attention, format;
    bool profile;
    SessionOptions session;
} Options;

// ---- command line

static void take_list(void *to, const char *flag, const char *text) {
    List list = {0};
    for (const char *at = text;; at++) {
        char *end;
        long v = strtol(at, &end, 10);
        if (end == at || v < 0 || v > MOST_TOKENS || (*end && *end != ',') || list.n == MAX_LIST) {
            die(2, "%s: expected up to %d integers from 0 to %d, separated by commas, found '%s'", flag, MAX_LIST,
                MOST_TOKENS, text);
        }
        list.v[list.n++] = (int)v;
        at = end;
        if (!*at) break;
    }
    *(List *)to = list;
}

static Options parse(int argc, char **argv) {
    static Options o = {.prompt = {1, {512}}, .gen = {1, {128}}, .depth = {1, {0}}, .repeats = 5};
    const Flag flags[] = {
        MODEL_FLAG(&o.model),
        {"-p --n-prompt", "N,..", "prompt lengths of the prefill tests, 0 for none (default: 512)",
         TAKES_CALL(&o.prompt, take_list)},
        {"-n --n-gen", "N,..", "tokens to generate in the decode tests, 0 for none (default: 128)",
         TAKES_CALL(&o.gen, take_list)},
        {"-d --n-depth", "N,..", "depths: tokens already in the context (default: 0)", TAKES_CALL(&o.depth, take_list)},
        {"-r --repetitions", "N", "repetitions (default: 5)", TAKES_INT(&o.repeats, 1, MAX_REPEATS)},
        FORMAT_FLAG(&o.format, "md csv json", "md, csv or json (default: md)"),
        {"--profile", NULL, "the time of each operation (with -o md or json)", SETS(&o.profile)},
        {"--sweep", "N", "instead: speed as the context grows to N tokens", TAKES_INT(&o.sweep, 2, MOST_TOKENS)},
        {"--plot", "FILE.svg", "with --sweep: write a chart", TAKES_STRING(&o.plot)},
        {"--attention", "N", "instead: attention over N tokens, fused against unfused (needs no model)",
         TAKES_INT(&o.attention, 1, 32768)}, // a 4 GiB matrix
        THREADS_FLAG(&o.session.n_threads),
        {"-c --ctx-size", "N", "context limit (default: what the tests need)",
         TAKES_INT(&o.session.n_ctx, 1, MOST_CONTEXT)},
        WINDOW_FLAGS(&o.session),
        TOKENIZER_FLAG(&o.tokenizer),
    };
    const Program program = {"build/bench", "MODEL [options]", NULL, flags, sizeof flags / sizeof *flags};
    const char **rest = calloc((size_t)argc + 1, sizeof *rest);
    if (!rest) die(1, "out of memory");
    int n = cli_parse(&program, argc, argv, rest), at = 0;
    if (!o.model && n) o.model = rest[at++];
    if (at < n) die(2, "%s: a second model; expected one, found %s first", rest[at], o.model);
    if (!o.model && !o.attention) die(2, "no model: expected build/bench MODEL, or --attention N");
    free(rest);
    if (o.attention && o.sweep) die(2, "--attention and --sweep: expected one, found both");
    if (o.profile && (o.sweep || o.attention))
        die(2, "--profile: expected with -p and -n, found --sweep or --attention");
    if (o.profile && o.format == OUT_CSV) die(2, "--profile: expected -o md or json, found csv");
    if (o.plot && !o.sweep) die(2, "--plot: needs --sweep N");
    cli_check_session(&o.session);
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
    Options o;
    int n_threads;
    double read_gb;          // GB/s; 0: unknown
    double gflops[N_LEVELS]; // with --profile; 0: unknown, or a level that is not used
    Engine *engine;
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

static void start_output(const Bench *b, const char *csv_header, const char *md_header) {
    if (b->o.format == OUT_CSV) puts(csv_header);
    if (b->o.format == OUT_MD) fputs(md_header, stdout);
    if (b->o.format != OUT_JSON) return;
    printf("{\"machine\": {\"cpu\": ");
    put_json_string(cpu_model());
    printf(", \"cores\": %d, ", cpu_count());
    put_json_number("read_gb_per_s", b->read_gb);
    for (CpuLevel r = 0; r < N_LEVELS; r++) {
        if (b->gflops[r] > 0) printf(", \"%s_gflop_per_s\": %.6g", cpu_level_name(r), b->gflops[r]);
    }
    printf("},\n");
    if (b->engine) {
        printf(" \"model\": {\"file\": ");
        put_json_string(base_name(b->o.model));
        printf(", \"kind\": ");
        put_json_string(b->info.kind);
        printf(", \"n_params\": %llu, \"model_bytes\": %llu, \"token_bytes\": %llu},\n",
               (unsigned long long)b->info.n_params, (unsigned long long)b->info.model_bytes,
               (unsigned long long)b->info.token_bytes);
    }
    printf(" \"rows\": [");
}

static void start_row(Bench *b) {
    if (b->o.format == OUT_JSON) fputs(b->n_rows ? ",\n  " : "\n  ", stdout);
    b->n_rows++;
}

static void end_output(const Bench *b) {
    if (b->o.format == OUT_JSON) puts("\n]}");
    if (b->o.format == OUT_MD) {
        printf("\n%s, %s, %d of %d cores", cpu_model(), cpu_level_name(cpu_level()), b->n_threads, cpu_count());
        if (b->read_gb > 0) printf("; memory reads %.1f GB/s (best of %d passes)", b->read_gb, PROBE_PASSES);
        for (CpuLevel r = 0; r < N_LEVELS; r++) {
            if (b->gflops[r] > 0)
                printf("; %s %s %.0f GFLOP/s", kernels_for(r)->bf16 ? "bf16" : "fp32", cpu_level_name(r), b->gflops[r]);
        }
        putchar('\n');
        if (b->over) {
            printf("* faster than memory: the %.1f MiB of weights read per token fit at least partly in a cache, so "
                   "memory bandwidth is not the bound\n",
                   (double)b->info.token_bytes / 0x1p20);
        }
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
    b->session = session_open(b->engine, &so, err, sizeof err);
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
        kv += session_info(b->session).kv_token_bytes;
    }
    double took = seconds() - start;
    session_profile(b->session, NULL);
    *bytes = (double)b->info.token_bytes + (double)kv / n;
    return took;
}

// ---- rows

typedef struct {
    char test[48];
    int n_prompt, n_gen, n_depth; // n_prompt or n_gen is 0
    int n;                        // repetitions
    double seconds[MAX_REPEATS], speed[MAX_REPEATS];
    double gb; // GB/s of decode; 0 for prefill
    Profile profile;
} Row;

static void measure_row(Bench *b, Row *r) {
    int n = r->n_prompt + r->n_gen;
    double bytes = 0, ignored;
    if (r->n_prompt) time_prefill(b, r->n_depth, n); // warm up
    else time_decode(b, r->n_depth, n < 8 ? n : 8, &ignored);
    r->n = b->o.repeats;
    b->profile = b->o.profile ? &r->profile : NULL;
    for (int i = 0; i < r->n; i++) {
        r->seconds[i] = r->n_prompt ? time_prefill(b, r->n_depth, n) : time_decode(b, r->n_depth, n, &bytes);
        r->speed[i] = n / r->seconds[i];
    }
    b->profile = NULL;
    r->gb = bytes * mean(r->speed, r->n) * 1e-9;
}

static ProfileTable profile_of(const Bench *b, const Row *r) {
    return (ProfileTable){&r->profile, mean(r->seconds, r->n) * r->n, r->n, b->gflops[cpu_level()], b->read_gb};
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
    if (r->gb > 0 && b->read_gb > 0) {
        bool over = r->gb > b->read_gb;
        b->over |= over;
        if (over) snprintf(share, sizeof share, "> 100 *");
        else snprintf(share, sizeof share, "%.0f", 100 * r->gb / b->read_gb);
    }
    printf("| %s | %.2f M | %.1f MiB | %d | %s | %.2f ± %.2f | %s | %s | %.2f | %.1f |\n", b->info.kind,
           (double)b->info.n_params * 1e-6, (double)b->info.model_bytes / 0x1p20, b->n_threads, r->test,
           mean(r->speed, r->n), deviation(r->speed, r->n), gb, share,
           (double)session_info(b->session).kv_bytes / 0x1p20, (double)peak_rss_bytes() / 0x1p20);
}

static void print_row(Bench *b, const Row *r) {
    start_row(b);
    if (b->o.format == OUT_MD) {
        (b->o.profile ? print_profile_md : print_row_md)(b, r);
        fflush(stdout);
        return;
    }
    double speed = mean(r->speed, r->n), spread = deviation(r->speed, r->n), ns = mean(r->seconds, r->n) * 1e9;
    unsigned long long kv = session_info(b->session).kv_bytes, rss = peak_rss_bytes(), bytes = b->info.model_bytes;
    const char *level = cpu_level_name(cpu_level());
    if (b->o.format == OUT_CSV) {
        printf("%s,%d,%d,%d,%d,%.6g,%.6g,%.0f,", r->test, r->n_prompt, r->n_gen, r->n_depth, b->n_threads, speed,
               spread, ns);
        if (r->gb > 0) printf("%.6g", r->gb);
        printf(",%llu,%llu,%llu,%s\n", kv, rss, bytes, level);
        return;
    }
    printf("{\"test\": \"%s\", \"n_prompt\": %d, \"n_gen\": %d, \"n_depth\": %d, \"n_threads\": %d, \"avg_ts\": %.6g, "
           "\"stddev_ts\": %.6g, \"avg_ns\": %.0f, \"samples_ns\": [",
           r->test, r->n_prompt, r->n_gen, r->n_depth, b->n_threads, speed, spread, ns);
    for (int i = 0; i < r->n; i++) printf("%s%.0f", i ? ", " : "", r->seconds[i] * 1e9);
    printf("], ");
    put_json_number("gb_per_s", r->gb);
    printf(", \"kv_bytes\": %llu, \"peak_rss\": %llu, \"model_bytes\": %llu, \"cpu_rung\": \"%s\"", kv, rss, bytes,
           level);
    if (b->o.profile) {
        ProfileTable table = profile_of(b, r);
        fputs(", \"profile\": ", stdout);
        profile_table_json(stdout, &table);
    }
    putchar('}');
}

static void name_row(Row *r) {
    int n = snprintf(r->test, sizeof r->test, "%s%d", r->n_prompt ? "pp" : "tg", r->n_prompt + r->n_gen);
    if (r->n_depth) snprintf(r->test + n, sizeof r->test - (size_t)n, " @ d%d", r->n_depth);
}

static void run_rows(Bench *b) {
    static Row rows[2 * MAX_LIST * MAX_LIST];
    const Options *o = &b->o;
    int n = 0, longest = -1, needed = 0;
    for (int d = 0; d < o->depth.n; d++) {
        for (int i = 0; i < o->prompt.n + o->gen.n; i++) { // the prompts, then the generations
            Row r = {.n_depth = o->depth.v[d]};
            if (i < o->prompt.n) r.n_prompt = o->prompt.v[i];
            else r.n_gen = o->gen.v[i - o->prompt.n];
            if (!r.n_prompt && !r.n_gen) continue;
            name_row(&r);
            int tokens = r.n_depth + r.n_prompt + r.n_gen;
            if (tokens > needed) {
                needed = tokens;
                longest = n;
            }
            rows[n++] = r;
        }
    }
    if (!n) die(2, "-p and -n: nothing to measure");
    open_model(b, needed, rows[longest].test);
    start_output(b,
                 "test,n_prompt,n_gen,n_depth,n_threads,avg_ts,stddev_ts,avg_ns,gb_per_s,kv_bytes,peak_rss,"
                 "model_bytes,cpu_rung",
                 o->profile
                     ? ""
                     : "| model | params | size | threads | test | t/s | GB/s | % of read | KV MiB | peak RSS MiB |\n"
                       "|---|--:|--:|--:|---|--:|--:|--:|--:|--:|\n");
    for (int i = 0; i < n; i++) {
        measure_row(b, &rows[i]);
        print_row(b, &rows[i]);
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
    double s_pp = chunk / t_pp, s_tg = SWEEP_NEW / t_tg, gb = bytes * s_tg * 1e-9, bound = b->read_gb * 1e9 / bytes;
    int at = g->n++;
    g->context[at] = n_kv;
    g->prefill[at] = s_pp;
    g->decode[at] = s_tg;
    g->bound[at] = bound;
    unsigned long long kv = session_info(b->session).kv_bytes;
    start_row(b);
    if (b->o.format == OUT_MD) {
        bool over = b->read_gb > 0 && gb > b->read_gb;
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

static void plot_sweep(const Bench *b, const Growth *g) {
    char title[512], subtitle[512], err[512];
    snprintf(title, sizeof title, "%s: speed as the context grows", base_name(b->o.model));
    int n = snprintf(subtitle, sizeof subtitle, "%s, %.1f M parameters, %s KV cache, %s, %s, %d threads", b->info.kind,
                     (double)b->info.n_params * 1e-6, kv_type_name(b->o.session.kv), cpu_model(),
                     cpu_level_name(cpu_level()), b->n_threads);
    if (b->read_gb > 0 && n > 0 && n < (int)sizeof subtitle) {
        snprintf(subtitle + n, sizeof subtitle - (size_t)n, ", memory reads %.1f GB/s", b->read_gb);
    }
    GrowthPlot p = {title, subtitle, g->n, g->context, g->prefill, g->decode, b->read_gb > 0 ? g->bound : NULL};
    if (growth_plot_write(b->o.plot, &p, err, sizeof err)) die(1, "%s", err);
}

static void run_sweep(Bench *b) {
    Growth g = {0};
    b->read_gb = fmax(b->read_gb, probe_read(b->n_threads)); // other processes may have slowed the first probe
    open_model(b, b->o.sweep + SWEEP_NEW, "--sweep");        // starts threads: no fork after this
    int last = b->o.sweep;
    time_prefill(b, 0, last < SWEEP_CHUNK ? last : SWEEP_CHUNK); // warm up
    start_output(b, "pp,tg,n_kv,t_pp,s_pp,t_tg,s_tg,gb_per_s,kv_bytes,bound_ts",
                 "| PP | TG | N_KV | T_PP s | S_PP t/s | T_TG s | S_TG t/s | GB/s | KV MiB | bound t/s |\n"
                 "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for (int n_kv = SWEEP_START; n_kv < last; n_kv *= 2) sweep_step(b, n_kv, &g);
    sweep_step(b, last, &g);
    end_output(b);
    if (b->o.plot) plot_sweep(b, &g);
}

// ---- attention: causal, n queries over n keys

// Unfused attention: three passes over the n x n matrix of one head at a time: matmul, masked softmax, matmul, with the
// same kernels and threads, fp32 keys, and values already transposed.
typedef struct {
    const Kernels *kernels;
    int n, head_dim, n_heads, group, head;
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
    for (int i = 0; i < panel; i++) max[i] = s[i]; // key 0 is visible to all
    for (int j = 0; j < n_keys; j++) {
        for (int i = 0; i < panel; i++) {
            if (j > block * panel + i) s[j * panel + i] = SCORE_MASKED;
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

static void print_attention(Bench *b, const AttentionShape *s, const AttentionResult *r) {
    int n = b->o.attention;
    double work = 4.0 * n * n / 2 * s->head_dim * s->n_heads * 1e-9; // GFLOP of the causal half
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
               "\"cpu_rung\": \"%s\"}",
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
    fused.mask.causal = true;
    size_t n_blocks = ((size_t)n + (size_t)panel - 1) / (size_t)panel;
    size_t score_bytes = sizeof(float) * n_blocks * (size_t)panel * (size_t)n;
    Plain plain = {.kernels = kernels(),
                   .n = n,
                   .head_dim = hd,
                   .n_heads = n_heads,
                   .group = n_heads / n_kv,
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
    bool agree = r.difference <= (shape->kv == KV_DTYPE_F32 ? 1e-4 : 1e-2);
    if (!agree) fprintf(stderr, "error: head_dim %d: fused and unfused attention differ by %g\n", hd, r.difference);
    void *all[] = {q, k, v, vt, out, plain.scores, plain.panels, plain.out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    kvcache_close(cache);
    return agree;
}

static int run_attention(Bench *b) {
    static const AttentionShape shapes[] = {
        {9, 3, 64, KV_DTYPE_BF16}, {9, 3, 64, KV_DTYPE_F32}, {8, 2, 128, KV_DTYPE_BF16}, {8, 2, 128, KV_DTYPE_F32}};
    char err[512];
    bool agree = true;
    Compute compute;
    if (compute_open(&compute, b->n_threads, err, sizeof err)) die(1, "%s", err);
    start_output(b,
                 "head_dim,n_heads,n_kv_heads,kv,n,fused_ms,fused_gflops,unfused_ms,unfused_gflops,ratio,"
                 "fused_bytes,unfused_bytes,max_difference",
                 "| head dim | heads | KV | n | fused ms | GFLOP/s | unfused ms | GFLOP/s | ratio | fused MiB | "
                 "unfused MiB | max diff |\n|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) agree &= measure_attention(b, &compute, &shapes[i]);
    end_output(b);
    compute_close(&compute);
    return agree ? 0 : 1;
}

int main(int argc, char **argv) {
    static Bench b;
    b.o = parse(argc, argv);
    char err[512];
    file_guard_shrinking();
    b.n_threads = b.o.session.n_threads ? b.o.session.n_threads : cpu_count();
    if (b.o.attention) return run_attention(&b);
    b.engine = engine_open(b.o.model, b.o.tokenizer, err, sizeof err);
    if (!b.engine) die(1, "%s", err);
    b.info = engine_info(b.engine);
    b.read_gb = probe_read(b.n_threads); // before this process has threads
    if (b.o.profile) {
        for (CpuLevel r = 0; r <= cpu_level(); r++) b.gflops[r] = probe_gemm(b.n_threads, r);
    }
    (b.o.sweep ? run_sweep : run_rows)(&b);
    free(b.tokens);
    session_close(b.session);
    engine_close(b.engine);
    return 0;
}
