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
    double context[MAX_SWEEP], prefill[MAX_SWEEP], decode[MAX_SWEEP], bound[MAX_SWEEP];
} Growth;

// One step: prefill of the last tokens before n_kv, then decode of the next ones. Medians.
static void sweep_step(Bench *b, int n_kv, Growth *g) {
    int chunk = n_kv < MEASURE_BLOCK ? n_kv : MEASURE_BLOCK;
    double pp[MAX_REPEATS], tg[MAX_REPEATS], bytes = 0;
    for (int i = 0; i < b->o.repeats; i++) pp[i] = measure_prefill(b, n_kv - chunk, chunk);
    for (int i = 0; i < b->o.repeats; i++) tg[i] = measure_decode(b, n_kv, NEW_TOKENS, &bytes);
    double t_pp = samples_median(pp, b->o.repeats), t_tg = samples_median(tg, b->o.repeats);
    double s_pp = chunk / t_pp, s_tg = NEW_TOKENS / t_tg, gb = bytes * s_tg * 1e-9,
           bound = b->machine->read_gb * 1e9 / bytes;
    int at = g->n++;
    g->context[at] = n_kv;
    g->prefill[at] = s_pp;
    g->decode[at] = s_tg;
    g->bound[at] = bound;
    unsigned long long kv = session_info(b->session).kv_bytes;
    report_row(b);
    if (b->o.format == OUT_MD) {
        bool over = b->machine->read_gb > 0 && gb > b->machine->read_gb;
        b->over |= over;
        printf("| %d | %d | %d | %.4f | %.2f | %.4f | %.2f | %.2f%s | %.2f | %.2f |\n", chunk, NEW_TOKENS, n_kv, t_pp,
               s_pp, t_tg, s_tg, gb, over ? " *" : "", (double)kv / 0x1p20, bound);
        fflush(stdout);
    } else if (b->o.format == OUT_CSV) {
        printf("%d,%d,%d,%.6g,%.6g,%.6g,%.6g,%.6g,%llu,%.6g\n", chunk, NEW_TOKENS, n_kv, t_pp, s_pp, t_tg, s_tg, gb, kv,
               bound);
    } else {
        printf("{\"pp\": %d, \"tg\": %d, \"n_kv\": %d, \"t_pp\": %.6g, \"s_pp\": %.6g, \"t_tg\": %.6g, \"s_tg\": %.6g, "
               "\"gb_per_s\": %.6g, \"kv_bytes\": %llu, ",
               chunk, NEW_TOKENS, n_kv, t_pp, s_pp, t_tg, s_tg, gb, kv);
        report_number("bound_ts", bound);
        putchar('}');
    }
}

// "llama 135M Q8_0 (random weights), bf16 KV cache, window 256, 4 sinks"
static void describe_sweep(const Bench *b, char *text, size_t size) {
    char cache[128];
    report_cache(b, cache, sizeof cache);
    snprintf(text, size, "%s%s, %s", b->model->label, b->model->is_random ? " (random weights)" : "", cache);
}

static void plot_sweep(const Bench *b, const Growth *g) {
    char title[512], subtitle[512], model[256], err[512];
    describe_sweep(b, model, sizeof model);
    snprintf(title, sizeof title, "%s: speed as the context grows", report_base_name(b->model->path));
    int n = snprintf(subtitle, sizeof subtitle, "%s, %s, %s, %d threads", model, cpu_model(),
                     cpu_level_name(cpu_level()), b->n_threads);
    if (b->machine->read_gb > 0 && n > 0 && n < (int)sizeof subtitle) {
        snprintf(subtitle + n, sizeof subtitle - (size_t)n, ", memory reads %.1f GB/s", b->machine->read_gb);
    }
    GrowthPlot p = {
        title, subtitle, g->n, g->context, g->prefill, g->decode, b->machine->read_gb > 0 ? g->bound : NULL};
    if (growth_plot_write(b->o.plot, &p, err, sizeof err)) die(1, "%s", err);
}

void sweep_run(Bench *b) {
    Growth g = {0};
    char model[256], header[512];
    Machine *machine = &b->machines[0];
    machine->read_gb = fmax(machine->read_gb, probe_read(b->n_threads)); // others may have slowed the first probe
    measure_open(b, b->o.sweep + NEW_TOKENS, "--sweep");                 // starts threads: no fork after this
    int last = b->o.sweep;
    measure_prefill(b, 0, last < MEASURE_BLOCK ? last : MEASURE_BLOCK); // warm up
    describe_sweep(b, model, sizeof model);
    snprintf(header, sizeof header,
             "%s\n\n| PP | TG | N_KV | T_PP s | S_PP t/s | T_TG s | S_TG t/s | GB/s | KV MiB | bound t/s |\n"
             "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
             model);
    report_start(b, "pp,tg,n_kv,t_pp,s_pp,t_tg,s_tg,gb_per_s,kv_bytes,bound_ts", header);
    for (int n_kv = START; n_kv < last; n_kv *= 2) sweep_step(b, n_kv, &g);
    sweep_step(b, last, &g);
    report_end(b);
    if (b->o.plot) plot_sweep(b, &g);
    measure_close(b);
}
