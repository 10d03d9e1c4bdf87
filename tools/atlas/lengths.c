// lengths: mechanisms measured as the text grows: build/atlas --bench.
//
// Owns the table, the JSON and the plots of time and bytes against length. A length whose prefill would take longer
// than the limit, judged by how the last two grew, is left out and said to be. Refuses nothing.
#include "atlas.h"

#include "cli.h"
#include "curves.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LENGTHS = 24 };

typedef struct {
    int n; // measured
    Trial trials[MAX_LENGTHS];
} Growth;

// ---- the table

static void format_seconds(char *to, size_t room, double s) {
    if (!(s >= 0)) snprintf(to, room, "-");
    else if (s < 1e-3) snprintf(to, room, "%.3g us", s * 1e6);
    else if (s < 1) snprintf(to, room, "%.3g ms", s * 1e3);
    else snprintf(to, room, "%.3g s", s);
}

static void format_bytes(char *to, size_t room, double b) {
    if (b < 0x1p20) snprintf(to, room, "%.3g KiB", b / 0x1p10);
    else if (b < 0x1p30) snprintf(to, room, "%.3g MiB", b / 0x1p20);
    else snprintf(to, room, "%.3g GiB", b / 0x1p30);
}

static void print_trial(const Mechanism *m, const Trial *t) {
    char prefill[32], decode[32], bytes[32], peak[32], error[32] = "-";
    format_seconds(prefill, sizeof prefill, t->prefill);
    format_seconds(decode, sizeof decode, t->decode);
    format_bytes(bytes, sizeof bytes, t->bytes);
    format_bytes(peak, sizeof peak, t->peak);
    if (t->error >= 0) snprintf(error, sizeof error, "%.2g", t->error);
    printf("| %s | %d | %s | %s | %.3g | %.3g | %s | %s | %s |\n", m->name, t->n, prefill, decode, t->flops * 1e-9,
           t->flops * 1e-9 / t->prefill, bytes, peak, error);
    fflush(stdout);
}

static json_t *trial_json(const Mechanism *m, const Trial *t) {
    return json_pack("{s:s,s:i,s:o,s:o,s:o,s:o,s:o,s:o}", "mechanism", m->name, "n", t->n, "prefill_s",
                     show_number(t->prefill), "decode_s", show_number(t->decode), "flops", show_number(t->flops),
                     "bytes", show_number(t->bytes), "peak_bytes", show_number(t->peak), "error",
                     show_number(t->error));
}

// ---- the plots

static int family_of(const Mechanism *m) { // its place among the families
    int family = 0;
    for (int i = 1; mechanism_at(i - 1) != m; i++) {
        family += strcmp(fact(mechanism_at(i), "family"), fact(mechanism_at(i - 1), "family")) != 0;
    }
    return family;
}

enum { PREFILL, DECODE, BYTES, N_QUANTITIES };

static Curve curve_of(const Mechanism *m, const Growth *g, int quantity) {
    Curve c = {.name = m->name, .group = family_of(m)};
    for (int i = 0; i < g->n; i++) {
        const Trial *t = &g->trials[i];
        double y = quantity == PREFILL ? t->prefill : quantity == DECODE ? t->decode : t->bytes;
        if (!(y > 0)) continue;
        c.x[c.n] = t->n;
        c.y[c.n++] = y;
    }
    return c;
}

static void plot(const Asked *a, const Growth *growths, const char *where) {
    char err[512], subtitle[200];
    int n = a->n_list;
    Curve *curves = calloc((size_t)(N_QUANTITIES * n), sizeof *curves);
    if (!curves) die(1, "out of memory for the plots");
    for (int i = 0; i < N_QUANTITIES * n; i++) curves[i] = curve_of(a->list[i % n], &growths[i % n], i / n);
    const CurvePanel panels[N_QUANTITIES] = {{"Prefill of n tokens", format_seconds, curves, n},
                                             {"Decode, a token behind n", format_seconds, curves + n, n},
                                             {"Cache or state behind n tokens", format_bytes, curves + 2 * n, n}};
    snprintf(subtitle, sizeof subtitle, "%s; one layer's mechanism alone", where);
    if (curves_write(a->svg, "Attention mechanisms as the text grows", subtitle, panels, N_QUANTITIES, err, sizeof err))
        die(1, "%s", err);
    free(curves);
}

// ---- running

// What the next length, twice the last, would take: as the last two grew, and at least twice.
static double predict(const Growth *g) {
    if (!g->n) return 0;
    double last = g->trials[g->n - 1].prefill;
    double factor = g->n > 1 ? last / g->trials[g->n - 2].prefill : 2;
    return last * fmin(fmax(factor, 2), 4.5);
}

static void run_mechanism(const Asked *a, const Mechanism *m, Growth *g, json_t *list) {
    Shape shape = shape_of(m, a->most, a->n_heads, a->head_dim);
    for (int64_t n = a->least; n <= a->most && g->n < MAX_LENGTHS; n *= 2) {
        bool too_long = m->most_rows && n > m->most_rows;
        if (too_long || predict(g) > (double)a->limit) {
            const char *why = too_long ? "quadratic memory or loops" : "--limit";
            if (!a->json) printf("| %s | %d | left out: %s |\n", m->name, (int)n, why);
            return;
        }
        Trial *t = &g->trials[g->n++];
        *t = trial_run(m, &shape, (int)n, false, a->compute);
        json_array_append_new(list, trial_json(m, t));
        if (!a->json) print_trial(m, t);
    }
}

void lengths_run(const Asked *a) {
    char where[100];
    Growth *growths = calloc((size_t)a->n_list, sizeof *growths);
    json_t *list = json_array();
    if (!growths) die(1, "out of memory for %d mechanisms", a->n_list);
    snprintf(where, sizeof where, "%d heads of %d, %d threads, %s", a->n_heads, a->head_dim,
             threads_count(a->compute->pool), cpu_level_name(cpu_level()));
    if (!a->json) {
        printf("%s; a step of n rows, then single tokens\n\n"
               "| mechanism | n | prefill | decode, a token | GFLOP | GFLOP/s | cache or state | peak | error |\n"
               "|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
               where);
    }
    for (int i = 0; i < a->n_list; i++) run_mechanism(a, a->list[i], &growths[i], list);
    show_json(a, list);
    if (a->svg) plot(a, growths, where);
    free(growths);
}
