// lengths: see lengths.h.
#include "lengths.h"

#include "cli.h"
#include "curves.h"
#include "show.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static void print_header(const Lengths *l) {
    printf("%d heads of %d, %d threads, %s; a step of n rows, then single tokens\n\n", l->n_heads, l->head_dim,
           threads_count(l->compute->pool), cpu_level_name(cpu_level()));
    printf("| mechanism | n | prefill | decode, a token | GFLOP | GFLOP/s | cache or state | peak | error |\n"
           "|---|--:|--:|--:|--:|--:|--:|--:|--:|\n");
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
    const Mechanism *other;
    for (int i = 1; (other = mechanism_at(i)) && other != m + 1; i++) {
        family += strcmp(other->family, mechanism_at(i - 1)->family) != 0;
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

static void plot(const Lengths *l, const Growth *growths) {
    char err[512], subtitle[200];
    Curve *curves = calloc((size_t)(N_QUANTITIES * l->n_mechanisms), sizeof *curves);
    if (!curves) die(1, "out of memory for the plots");
    CurvePanel panels[N_QUANTITIES] = {{"Prefill of n tokens", format_seconds, NULL, l->n_mechanisms},
                                       {"Decode, a token behind n", format_seconds, NULL, l->n_mechanisms},
                                       {"Cache or state behind n tokens", format_bytes, NULL, l->n_mechanisms}};
    for (int q = 0; q < N_QUANTITIES; q++) {
        panels[q].curves = curves + q * l->n_mechanisms;
        for (int i = 0; i < l->n_mechanisms; i++) {
            curves[q * l->n_mechanisms + i] = curve_of(l->list[i], &growths[i], q);
        }
    }
    snprintf(subtitle, sizeof subtitle, "%d heads of %d, %d threads, %s; one layer's mechanism alone", l->n_heads,
             l->head_dim, threads_count(l->compute->pool), cpu_level_name(cpu_level()));
    if (curves_write(l->svg, "Attention mechanisms as the text grows", subtitle, panels, N_QUANTITIES, err,
                     sizeof err)) {
        die(1, "%s", err);
    }
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

static void run_mechanism(const Lengths *l, const Mechanism *m, Growth *g, json_t *list) {
    Shape shape = shape_of(m, l->most, l->n_heads, l->head_dim);
    for (int64_t n = l->least; n <= l->most && g->n < MAX_LENGTHS; n *= 2) {
        bool too_long = m->most_rows && n > m->most_rows;
        if (too_long || predict(g) > l->limit) {
            if (!l->json)
                printf("| %s | %d | %s |\n", m->name, (int)n,
                       too_long ? "left out: quadratic memory or loops" : "left out: --limit");
            return;
        }
        g->trials[g->n] = trial_run(m, &shape, (int)n, l->compute);
        if (l->json) json_array_append_new(list, trial_json(m, &g->trials[g->n]));
        else print_trial(m, &g->trials[g->n]);
        g->n++;
    }
}

void lengths_run(const Lengths *l) {
    Growth *growths = calloc((size_t)l->n_mechanisms, sizeof *growths);
    json_t *list = json_array();
    if (!growths) die(1, "out of memory for %d mechanisms", l->n_mechanisms);
    if (!l->json) print_header(l);
    for (int i = 0; i < l->n_mechanisms; i++) run_mechanism(l, l->list[i], &growths[i], list);
    if (l->json) show_json(json_incref(list));
    if (l->svg) plot(l, growths);
    json_decref(list);
    free(growths);
}
