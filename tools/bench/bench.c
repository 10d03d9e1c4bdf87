// bench: how fast a model runs on this machine, in tokens and in bytes per second.
//
// Opens the models, probes the machine, and leaves the rest to one of five measurements: rows, lookup_rows, sweep,
// attention_bench, products_bench. Bytes are computed from the model's shape, only time is measured; decode is compared
// with the machine's memory bandwidth (probe).
#include "attention_bench.h"
#include "cli.h"
#include "engine.h"
#include "file.h"
#include "lookup_rows.h"
#include "probe.h"
#include "products_bench.h"
#include "rows.h"
#include "sweep.h"
#include "synth_vocab.h"

#include <stdio.h>

static void name_model(BenchModel *m) {
    double n = (double)m->info.n_params;
    char size[32];
    if (n >= 1e9) snprintf(size, sizeof size, "%.1fB", n * 1e-9);
    else snprintf(size, sizeof size, n >= 1e7 ? "%.0fM" : "%.2fM", n * 1e-6);
    snprintf(m->label, sizeof m->label, "%s %s %s", m->info.family, size, m->info.type);
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
    b.o = bench_options(argc, argv);
    file_guard_shrinking();
    measure_use_threads(&b, 0);
    if (b.o.attention) return attention_bench_run(&b);
    if (b.o.products) return products_bench_run(&b);
    open_models(&b);
    measure_use_model(&b, 0);
    probe_machine(&b);
    (b.o.sweep ? sweep_run : b.o.lookup.wanted ? lookup_rows_run : rows_run)(&b);
    for (int i = 0; i < b.o.models.n; i++) engine_close(b.models[i].engine);
    return 0;
}
