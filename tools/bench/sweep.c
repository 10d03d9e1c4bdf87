// sweep: see sweep.h.
#include "sweep.h"

#include "cli.h"
#include "growth_plot.h"
#include "probe.h"
#include "report.h"
#include "samples.h"

#include <math.h>
#include <stdio.h>

enum { START = 128, NEW_TOKENS = 32, MAX_SWEEP = GROWTH_MAX_POINTS };

typedef struct {
    int n;
    double context[MAX_SWEEP], prefill[MAX_SWEEP];
    GrowthBatch batches[GROWTH_MAX_BATCHES];
} Growth;

// What is measured at one length of context, of one number of texts.
typedef struct {
    int chunk, n_kv, n_sequences;
    double t_pp, s_pp, t_tg, s_tg; // seconds, tokens per second
    double gb, bound;              // GB/s of decode, tokens per second at the machine's
    uint64_t kv_bytes, state_bytes;
} Step;

// Prefill of one text's last tokens before n_kv.
static Step measure_chunk(Bench *b, int n_kv) {
    Step s = {.n_kv = n_kv, .chunk = n_kv < MEASURE_BLOCK ? n_kv : MEASURE_BLOCK};
    double pp[MAX_REPEATS];
    b->n_sequences = 1;
    for (int i = 0; i < b->o.repeats; i++) pp[i] = measure_prefill(b, n_kv - s.chunk, s.chunk);
    s.t_pp = samples_median(pp, b->o.repeats);
    s.s_pp = s.chunk / s.t_pp;
    return s;
}

// Decode of the next tokens of so many texts. Medians.
static void measure_next(Bench *b, int n_sequences, Step *s) {
    double tg[MAX_REPEATS], bytes = 0;
    b->n_sequences = s->n_sequences = n_sequences;
    for (int i = 0; i < b->o.repeats; i++) tg[i] = measure_decode(b, s->n_kv, NEW_TOKENS, &bytes);
    SessionInfo info = measure_info(b);
    s->t_tg = samples_median(tg, b->o.repeats);
    s->s_tg = NEW_TOKENS * n_sequences / s->t_tg;
    s->gb = bytes * s->s_tg * 1e-9;
    s->bound = b->machine->read_gb * 1e9 / bytes;
    s->kv_bytes = info.kv_bytes;
    s->state_bytes = info.state_bytes;
}

static void print_step(Bench *b, const Step *s) {
    unsigned long long kv = s->kv_bytes, state = s->state_bytes;
    report_row(b);
    if (b->o.format == OUT_MD) {
        bool over = b->machine->read_gb > 0 && s->gb > b->machine->read_gb;
        b->over |= over;
        printf("| %d | %d | %d | %d | %.4f | %.2f | %.4f | %.2f | %.2f%s | %.2f | %.2f |\n", s->chunk, NEW_TOKENS,
               s->n_sequences, s->n_kv, s->t_pp, s->s_pp, s->t_tg, s->s_tg, s->gb, over ? " *" : "",
               (double)measure_held(b) / 0x1p20, s->bound);
        fflush(stdout);
    } else if (b->o.format == OUT_CSV) {
        printf("%d,%d,%d,%d,%.6g,%.6g,%.6g,%.6g,%.6g,%llu,%llu,%.6g\n", s->chunk, NEW_TOKENS, s->n_sequences, s->n_kv,
               s->t_pp, s->s_pp, s->t_tg, s->s_tg, s->gb, kv, state, s->bound);
    } else {
        printf("{\"pp\": %d, \"tg\": %d, \"n_sequences\": %d, \"n_kv\": %d, \"t_pp\": %.6g, \"s_pp\": %.6g, \"t_tg\": "
               "%.6g, "
               "\"s_tg\": %.6g, \"gb_per_s\": %.6g, \"kv_bytes\": %llu, \"state_bytes\": %llu, ",
               s->chunk, NEW_TOKENS, s->n_sequences, s->n_kv, s->t_pp, s->s_pp, s->t_tg, s->s_tg, s->gb, kv, state);
        report_number("bound_ts", s->bound);
        putchar('}');
    }
}

static void sweep_step(Bench *b, int n_kv, Growth *g) {
    Step s = measure_chunk(b, n_kv);
    int at = g->n++;
    g->context[at] = n_kv;
    g->prefill[at] = s.s_pp;
    for (int i = 0; i < b->o.batch.n; i++) {
        GrowthBatch *batch = &g->batches[i];
        measure_next(b, b->o.batch.v[i], &s);
        batch->n_texts = s.n_sequences;
        batch->decode[at] = s.s_tg;
        batch->bound[at] = s.bound;
        batch->held[at] = (double)measure_held(b);
        print_step(b, &s);
    }
}

// "llama 135M Q8_0 (random weights), bf16 KV cache, window 256, 4 sinks"
static void describe_sweep(const Bench *b, char *text, size_t size) {
    char cache[128];
    report_cache(b, cache, sizeof cache);
    snprintf(text, size, "%s%s, %s", b->model->label, b->model->is_random ? " (random weights)" : "", cache);
}

static const char *what_is_held(const SessionInfo *info) {
    if (!info->state_bytes) return "KV cache";
    return info->kv_bytes ? "KV cache and states" : "states";
}

static void plot_sweep(const Bench *b, const Growth *g) {
    char title[512], shape[512], machine[256], memory[64] = "", model[256], err[512];
    const EngineInfo *m = &b->info;
    SessionInfo session = session_info(b->session);
    describe_sweep(b, model, sizeof model);
    snprintf(title, sizeof title, "%s: speed and memory as the context grows", report_base_name(b->model->path));
    snprintf(shape, sizeof shape, "%s; %d layers of width %d, %d heads of %d, %d of keys and values", model,
             m->n_layers, m->dim, m->n_heads, m->head_dim, m->n_kv_heads);
    double gb = b->machine->read_gb;
    if (gb > 0) snprintf(memory, sizeof memory, ", memory reads %.1f GB/s", gb);
    snprintf(machine, sizeof machine, "%s, %s, %d threads%s", cpu_model(), cpu_level_name(cpu_level()), b->n_threads,
             memory);
    GrowthPlot p = {title,      shape,      machine,      g->n,   g->context,
                    g->prefill, g->batches, b->o.batch.n, gb > 0, what_is_held(&session)};
    if (growth_plot_write(b->o.plot, &p, err, sizeof err)) die(1, "%s", err);
}

void sweep_run(Bench *b) {
    static Growth g;
    int together = 1;
    char model[256], header[512];
    Machine *machine = &b->machines[0];
    machine->read_gb = fmax(machine->read_gb, probe_read(b->n_threads)); // others may have slowed the first probe
    for (int i = 0; i < b->o.batch.n; i++) together = b->o.batch.v[i] > together ? b->o.batch.v[i] : together;
    measure_open(b, together, b->o.sweep + NEW_TOKENS, "--sweep"); // starts threads: no fork after this
    int last = b->o.sweep;
    measure_prefill(b, 0, last < MEASURE_BLOCK ? last : MEASURE_BLOCK); // warm up
    describe_sweep(b, model, sizeof model);
    snprintf(header, sizeof header,
             "%s\n\n| PP | TG | B | N_KV | T_PP s | S_PP t/s | T_TG s | S_TG t/s | GB/s | memory MiB | bound t/s |\n"
             "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
             model);
    report_start(b, "pp,tg,n_sequences,n_kv,t_pp,s_pp,t_tg,s_tg,gb_per_s,kv_bytes,state_bytes,bound_ts", header);
    for (int n_kv = START; n_kv < last; n_kv *= 2) sweep_step(b, n_kv, &g);
    sweep_step(b, last, &g);
    report_end(b);
    if (b->o.plot) plot_sweep(b, &g);
    measure_close(b);
}
