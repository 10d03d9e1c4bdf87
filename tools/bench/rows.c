// rows: see rows.h.
#include "rows.h"

#include "bench_row.h"
#include "cli.h"
#include "report.h"
#include "samples.h"

#include <stdio.h>
#include <string.h>

// A prompt, tokens generated behind it, or both.
static double time_row(Bench *b, const Row *r, double *bytes) {
    double taken = 0;
    if (r->n_prompt) taken = measure_prefill(b, r->n_depth, r->n_prompt);
    if (r->n_gen) taken += measure_decode(b, r->n_depth + r->n_prompt, r->n_gen, bytes);
    if (r->n_prompt) *bytes = 0;
    return taken;
}

static void measure_row(Bench *b, Row *r) {
    int n = r->n_prompt + r->n_gen * r->n_sequences;
    b->n_sequences = r->n_sequences;
    double bytes = 0, ignored;
    if (r->n_prompt) measure_prefill(b, r->n_depth, r->n_prompt); // warm up
    else measure_decode(b, r->n_depth, r->n_gen < 8 ? r->n_gen : 8, &ignored);
    r->n = b->o.repeats;
    b->profile = b->o.profile ? &r->profile : NULL;
    for (int i = 0; i < r->n; i++) {
        r->seconds[i] = time_row(b, r, &bytes);
        r->speed[i] = n / r->seconds[i];
    }
    b->profile = NULL;
    r->gb = bytes * samples_mean(r->speed, r->n) * 1e-9;
}

static void name_row(Row *r) {
    char both[32] = "", many[16] = "", depth[16] = "";
    if (r->n_prompt && r->n_gen) snprintf(both, sizeof both, "+tg%d", r->n_gen);
    if (r->n_sequences > 1) snprintf(many, sizeof many, " x%d", r->n_sequences);
    if (r->n_depth) snprintf(depth, sizeof depth, " @ d%d", r->n_depth);
    snprintf(r->test, sizeof r->test, "%s%d%s%s%s", r->n_prompt ? "pp" : "tg", r->n_prompt ? r->n_prompt : r->n_gen,
             both, many, depth);
}

enum { MAX_ROWS = 3 * MAX_LIST * MAX_LIST };

// The tests: at each depth the prompts, the generations of each number of texts, then both. Returns their number.
static int list_rows(const BenchOptions *o, Row *rows) {
    int n = 0, n_prompts = o->prompt.n, n_one = n_prompts + o->gen.n * o->batch.n;
    for (int d = 0; d < o->depth.n; d++) {
        for (int i = 0; i < n_one + o->pairs.prompt.n; i++) {
            if (n == MAX_ROWS) die(2, "expected at most %d tests, found more", MAX_ROWS);
            Row *r = &rows[n];
            *r = (Row){.n_depth = o->depth.v[d], .n_sequences = 1};
            if (i < n_prompts) r->n_prompt = o->prompt.v[i];
            else if (i < n_one) {
                r->n_gen = o->gen.v[(i - n_prompts) / o->batch.n];
                r->n_sequences = o->batch.v[(i - n_prompts) % o->batch.n];
            } else {
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

void rows_run(Bench *b) {
    static Row rows[MAX_ROWS];
    const BenchOptions *o = &b->o;
    int n = list_rows(o, rows), longest = 0, needed = 0, together = 1;
    if (!n) die(2, "-p and -n: nothing to measure");
    for (int i = 0; i < n; i++) {
        int tokens = rows[i].n_depth + rows[i].n_prompt + rows[i].n_gen;
        if (tokens > needed) longest = i;
        if (tokens > needed) needed = tokens;
        if (rows[i].n_sequences > together) together = rows[i].n_sequences;
    }
    for (int m = 0; m < o->models.n * o->threads.n; m++) {
        measure_use_model(b, m / o->threads.n);
        measure_use_threads(b, m % o->threads.n);
        measure_open(b, together, needed, rows[longest].test);
        if (!m) report_start(b, row_csv_header, o->profile ? "" : row_md_header);
        for (int i = 0; i < n; i++) {
            memset(&rows[i].profile, 0, sizeof rows[i].profile);
            measure_row(b, &rows[i]);
            row_print(b, &rows[i]);
        }
        measure_close(b);
    }
    report_end(b);
}
