// report: see report.h.
#include "report.h"

#include "cli.h"
#include "kernels.h"
#include "probe.h"

#include <stdio.h>
#include <string.h>

void report_string(const char *text) {
    putchar('"');
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') putchar('\\');
        if (c < ' ') printf("\\u%04x", c);
        else putchar(c);
    }
    putchar('"');
}

const char *report_base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

void report_number(const char *key, double v) { // null: unknown, or not applicable
    if (v > 0) printf("\"%s\": %.6g", key, v);
    else printf("\"%s\": null", key);
}

// What a table's numbers hold for, beside the model.
void report_cache(const Bench *b, char *text, size_t size) {
    const SessionOptions *o = &b->o.session;
    size_t n = (size_t)snprintf(text, size, "%s KV cache", kv_type_name(o->kv));
    if (o->window && n < size) n += (size_t)snprintf(text + n, size - n, ", window %d", o->window);
    if (o->n_sinks && n < size) snprintf(text + n, size - n, ", %d sinks", o->n_sinks);
}

static void put_json_model(const BenchModel *m) {
    printf("{\"file\": ");
    report_string(report_base_name(m->path));
    printf(", \"name\": \"%s\", \"kind\": ", m->label);
    report_string(m->info.kind);
    printf(", \"random_weights\": %s, \"n_params\": %llu, \"model_bytes\": %llu, \"token_bytes\": %llu}",
           m->is_random ? "true" : "false", (unsigned long long)m->info.n_params,
           (unsigned long long)m->info.model_bytes, (unsigned long long)m->info.token_bytes);
}

void report_start(const Bench *b, const char *csv_header, const char *md_header) {
    const SessionOptions *so = &b->o.session;
    int n = b->o.models.n;
    if (b->o.format == OUT_CSV) puts(csv_header);
    if (b->o.format == OUT_MD) fputs(md_header, stdout);
    if (b->o.format != OUT_JSON) return;
    printf("{\"machine\": {\"cpu\": ");
    report_string(cpu_model());
    printf(", \"cores\": %d, ", cpu_count());
    report_number("read_gb_per_s", b->machine->read_gb);
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

void report_row(Bench *b) {
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
        if (gflops <= 0) continue;
        const char *type = kernels_for(r)->bf16 ? "bf16" : kernels_for(r)->int16 ? "int16" : "fp32";
        printf("; %s %s %.0f GFLOP/s", type, cpu_level_name(r), gflops);
    }
    report_cache(b, cache, sizeof cache);
    if (b->o.models.n) printf("; %s", cache);
    putchar('\n');
    for (int i = 0; i < b->o.models.n; i++) {
        if (b->models[i].is_random) printf("%s: random weights\n", report_base_name(b->models[i].path));
    }
}

void report_end(const Bench *b) {
    if (b->o.format == OUT_JSON) puts("\n]}");
    if (b->o.format == OUT_MD) print_machine(b);
    if (b->o.format == OUT_MD && b->over) {
        printf("* in cache: faster than memory, so the %.1f MiB of weights read per token fit at least partly in a "
               "cache, and memory bandwidth is not the bound\n",
               (double)b->info.token_bytes / 0x1p20);
    }
    if (fflush(stdout) || ferror(stdout)) die(1, "stdout: the results could not be written");
}
