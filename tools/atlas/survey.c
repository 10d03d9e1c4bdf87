// survey: every mechanism at two lengths: the comparative table that surveys print, measured beside claimed, and advice
// drawn from the same measurements: build/atlas --table and --advise.
//
// Owns the columns, and what a need goes by. Refuses nothing.
#include "atlas.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ROWS = 2048, HEADS = 4, WIDTH = 64 };

typedef struct {
    const Mechanism *m;
    Trial small, large; // at n and 4 n
} Measured;

static void measure_all(const Asked *a, Measured *all) {
    int rows = a->fast ? ROWS / FASTER : ROWS;
    for (int i = 0; i < a->n_list; i++) {
        const Mechanism *m = a->list[i];
        Shape s = shape_of(m, rows, HEADS, WIDTH);
        all[i] =
            (Measured){m, trial_run(m, &s, rows, false, a->compute), trial_run(m, &s, 4 * rows, false, a->compute)};
    }
}

static const Trial *find_mha(const Measured *all) {
    while (strcmp(all->m->name, "mha")) all++;
    return &all->large;
}

static const char *digits(char *to, size_t room, double v) {
    snprintf(to, room, isfinite(v) ? "%.2g" : "-", v);
    return to;
}

void survey_table(const Asked *asked) {
    static Measured all[MAX_MECHANISMS];
    measure_all(asked, all);
    const Trial *mha = find_mha(all);
    json_t *rows = json_array();
    if (!asked->json) {
        printf("%d heads of 64. Prefill grows as this power of n from %d to %d tokens; the rest at %d, beside mha's "
               "%.3g ms, %.3g us a token and %.3g MiB.\n\n"
               "| mechanism | prefill: claimed | grows | of mha's | decode: claimed | of mha's | memory: claimed | of "
               "mha's | error | published | best for |\n"
               "|---|---|--:|--:|---|--:|---|--:|--:|---|---|\n",
               HEADS, all[0].small.n, mha->n, mha->n, mha->prefill * 1e3, mha->decode * 1e6, mha->bytes / 0x1p20);
    }
    for (int i = 0; i < asked->n_list; i++) {
        const Mechanism *m = all[i].m;
        const Trial *a = &all[i].large;
        double power = log2(a->prefill / all[i].small.prefill) / 2, prefill = a->prefill / mha->prefill;
        double decode = a->decode / mha->decode, bytes = a->bytes / mha->bytes;
        char slow[32], error[32];
        const char *to_read = fact(m, "prefill"), *a_token = fact(m, "decode"), *to_keep = fact(m, "memory");
        const char *published = fact(m, "published");
        json_t *row = json_pack("{s:s,s:s,s:f,s:f,s:s,s:o,s:s,s:f,s:o,s:s?}", "mechanism", m->name, "prefill_claimed",
                                to_read, "prefill_power", power, "prefill_of_mha", prefill, "decode_claimed", a_token,
                                "decode_of_mha", show_number(decode), "memory_claimed", to_keep, "bytes_of_mha", bytes,
                                "error", show_number(a->error), "published", published);
        json_array_append_new(rows, row);
        if (asked->json) continue;
        printf("| %s | %s | n^%.2f | %.2g | %s | %s | %s | %.2g | %s | %s | %s |\n", m->name, to_read, power, prefill,
               a_token, digits(slow, sizeof slow, decode), to_keep, bytes, digits(error, sizeof error, a->error),
               published ? published : "-", fact(m, "best_for"));
    }
    show_json(asked, rows);
}

// ---- advice

typedef enum { BY_TURN, BY_PREFILL, BY_BYTES, BY_DECODE, BY_EXACT_BYTES, BY_WHOLE } Measure;

static const struct {
    const char *need;
    Measure by;
    const char *unit;
} needs[] = {
    {"short chat: 2,048 tokens read, 200 written, exact within 1 %", BY_TURN, "ms"},
    {"long document: the fastest to read", BY_PREFILL, "ms for 8,192 tokens"},
    {"endless stream: the fastest token of those whose memory stays", BY_DECODE, "us a token"},
    {"many users: the smallest memory of each", BY_BYTES, "KiB a layer at 8,192 tokens"},
    {"recall of any token: exact within 1 %, the smallest memory", BY_EXACT_BYTES, "KiB a layer at 8,192 tokens"},
    {"pictures and other sets: all rows at once", BY_WHOLE, "ms for 2,048 rows"}};

// What a need goes by; INFINITY: the mechanism does not serve it.
static double value_for(Measure by, const Measured *a) {
    bool causal = a->m->time == TIME_CAUSAL, exact = causal && a->small.error < 0.01 && a->large.error < 0.01;
    bool stays = a->large.bytes < 1.5 * a->small.bytes;
    switch (by) {
    case BY_TURN: return exact ? (a->small.prefill + 200 * a->small.decode) * 1e3 : INFINITY;
    case BY_PREFILL: return causal ? a->large.prefill * 1e3 : INFINITY;
    case BY_DECODE: return causal && stays ? a->large.decode * 1e6 : INFINITY;
    case BY_BYTES: return causal ? a->large.bytes / 0x1p10 : INFINITY;
    case BY_EXACT_BYTES: return exact ? a->large.bytes / 0x1p10 : INFINITY;
    default: return a->m->time == TIME_WHOLE ? a->small.prefill * 1e3 : INFINITY;
    }
}

// The best that is not `taken`; NULL: none serves.
static const Measured *best_for(Measure by, const Measured *all, int n, const bool *taken) {
    const Measured *best = NULL;
    for (int j = 0; j < n; j++) {
        if (taken[j] || !isfinite(value_for(by, &all[j]))) continue;
        if (!best || value_for(by, &all[j]) < value_for(by, best)) best = &all[j];
    }
    return best;
}

void survey_advise(const Asked *a) {
    enum { PLACES = 4 };
    static Measured all[MAX_MECHANISMS];
    json_t *advice = json_array();
    measure_all(a, all);
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++) {
        bool taken[MAX_MECHANISMS] = {false};
        const Measured *best;
        json_t *list = json_array();
        if (!a->json) printf("%s; in %s\n", needs[i].need, needs[i].unit);
        for (int place = 0; place < PLACES && (best = best_for(needs[i].by, all, a->n_list, taken)); place++) {
            double value = value_for(needs[i].by, best);
            taken[best - all] = true;
            json_array_append_new(list, json_pack("{s:s,s:f}", "mechanism", best->m->name, "value", value));
            if (!a->json) printf("    %-18s %.3g   %s\n", best->m->name, value, fact(best->m, "best_for"));
        }
        json_array_append_new(advice,
                              json_pack("{s:s,s:s,s:o}", "need", needs[i].need, "unit", needs[i].unit, "best", list));
    }
    show_json(a, advice);
}
