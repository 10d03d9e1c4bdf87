// sweep: see sweep.h.
#include "sweep.h"

#include "cli.h"
#include "growth_plot.h"
#include "probe.h"
#include "report.h"
#include "samples.h"

#include <math.h>
#include <stdio.h>

enum { START = 128, NEW_TOKENS = 32, MAX_SWEEP = 32 };

typedef struct {
    int n;
    double context[MAX_SWEEP], prefill[MAX_SWEEP], decode[MAX_SWEEP], bound[MAX_SWEEP], held[MAX_SWEEP];
} Growth;

// What is measured at one length of context.
typedef struct {
    int chunk, n_kv;
    double t_pp, s_pp, t_tg, s_tg; // seconds, tokens per second
    double gb, bound;              // GB/s of decode, tokens per second at the machine's
    uint64_t kv_bytes, state_bytes;
} Step;

// Prefill of the last tokens before n_kv, then decode of the next ones. Medians.
static Step measure_step(Bench *b, int n_kv) {
    Step s = {.n_kv = n_kv, .chunk = n_kv < MEASURE_BLOCK ? n_kv : MEASURE_BLOCK};
    double pp[MAX_REPEATS], tg[MAX_REPEATS], bytes = 0;
    for (int i = 0; i < b->o.repeats; i++) pp[i] = measure_prefill(b, n_kv - s.chunk, s.chunk);
    for (int i = 0; i < b->o.repeats; i++) tg[i] = measure_decode(b, n_kv, NEW_TOKENS, &bytes);
    SessionInfo info = session_info(b->session);
    s.t_pp = samples_median(pp, b->o.repeats);
    s.t_tg = samples_median(tg, b->o.repeats);
    s.s_pp = s.chunk / s.t_pp;
    s.s_tg = NEW_TOKENS / s.t_tg;
    s.gb = bytes * s.s_tg * 1e-9;
    s.bound = b->machine->read_gb * 1e9 / bytes;
    s.kv_bytes = info.kv_bytes;
    s.state_bytes = info.state_bytes;
    return s;
}

static void print_step(Bench *b, const Step *s) {
    unsigned long long kv = s->kv_bytes, state = s->state_bytes;
    report_row(b);
    if (b->o.format == OUT_MD) {
        bool over = b->machine->read_gb > 0 && s->gb > b->machine->read_gb;
        b->over |= over;
        printf("| %d | %d | %d | %.4f | %.2f | %.4f | %.2f | %.2f%s | %.2f | %.2f |\n", s->chunk, NEW_TOKENS, s->n_kv,
               s->t_pp, s->s_pp, s->t_tg, s->s_tg, s->gb, over ? " *" : "", (double)measure_held(b) / 0x1p20, s->bound);
        fflush(stdout);
    } else if (b->o.format == OUT_CSV) {
        printf("%d,%d,%d,%.6g,%.6g,%.6g,%.6g,%.6g,%llu,%llu,%.6g\n", s->chunk, NEW_TOKENS, s->n_kv, s->t_pp, s->s_pp,
               s->t_tg, s->s_tg, s->gb, kv, state, s->bound);
    } else {
        printf("{\"pp\": %d, \"tg\": %d, \"n_kv\": %d, \"t_pp\": %.6g, \"s_pp\": %.6g, \"t_tg\": %.6g, \"s_tg\": %.6g, "
               "\"gb_per_s\": %.6g, \"kv_bytes\": %llu, \"state_bytes\": %llu, ",
               s->chunk, NEW_TOKENS, s->n_kv, s->t_pp, s->s_pp, s->t_tg, s->s_tg, s->gb, kv, state);
        report_number("bound_ts", s->bound);
        putchar('}');
    }
}

static void sweep_step(Bench *b, int n_kv, Growth *g) {
    Step s = measure_step(b, n_kv);
    int at = g->n++;
    g->context[at] = n_kv;
    g->prefill[at] = s.s_pp;
    g->decode[at] = s.s_tg;
    g->bound[at] = s.bound;
    g->held[at] = (double)measure_held(b);
    print_step(b, &s);
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
    GrowthPlot p = {title,      shape,
                    machine,    g->n,
                    g->context, g->prefill,
                    g->decode,  gb > 0 ? g->bound : NULL,
                    g->held,    what_is_held(&session)};
    if (growth_plot_write(b->o.plot, &p, err, sizeof err)) die(1, "%s", err);
}

void sweep_run(Bench *b) {
    Growth g = {0};
    char model[256], header[512];
    Machine *machine = &b->machines[0];
    machine->read_gb = fmax(machine->read_gb, probe_read(b->n_threads)); // others may have slowed the first probe
    measure_open(b, 1, b->o.sweep + NEW_TOKENS, "--sweep");              // starts threads: no fork after this
    int last = b->o.sweep;
    measure_prefill(b, 0, last < MEASURE_BLOCK ? last : MEASURE_BLOCK); // warm up
    describe_sweep(b, model, sizeof model);
    snprintf(header, sizeof header,
             "%s\n\n| PP | TG | N_KV | T_PP s | S_PP t/s | T_TG s | S_TG t/s | GB/s | memory MiB | bound t/s |\n"
             "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
             model);
    report_start(b, "pp,tg,n_kv,t_pp,s_pp,t_tg,s_tg,gb_per_s,kv_bytes,state_bytes,bound_ts", header);
    for (int n_kv = START; n_kv < last; n_kv *= 2) sweep_step(b, n_kv, &g);
    sweep_step(b, last, &g);
    report_end(b);
    if (b->o.plot) plot_sweep(b, &g);
    measure_close(b);
}
