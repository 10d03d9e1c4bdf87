// profile_table: see profile_table.h.
#include "profile_table.h"

enum { NAME_ROOM = 32 };

// The sum of all operations, and the time outside of them.
static ProfileRow sum_operations(const ProfileTable *t) {
    ProfileRow all = {0};
    for (int op = PROFILE_OTHER + 1; op < N_PROFILE_OPS; op++) {
        const ProfileRow *r = &t->profile->rows[op];
        all.calls += r->calls;
        all.seconds += r->seconds;
        all.inside += r->inside;
        all.waiting += r->waiting;
        all.flops += r->flops;
        all.bytes += r->bytes;
    }
    return all;
}

static ProfileRow other(const ProfileTable *t, const ProfileRow *all) {
    ProfileRow r = t->profile->rows[PROFILE_OTHER];
    r.seconds = t->seconds - all->seconds;
    return r;
}

static double rate(double amount, double time) { // 1e9 per second; 0: none
    return amount > 0 && time > 0 ? amount * 1e-9 / time : 0;
}

// A rate and its percentage of the machine's peak; empty cells where there is none.
static void put_rate(FILE *f, double speed, double best) {
    if (speed > 0) fprintf(f, " %.1f |", speed);
    else fputs(" |", f);
    if (speed > 0 && best > 0) fprintf(f, " %.0f |", 100 * speed / best);
    else fputs(" |", f);
}

static void put_row(FILE *f, const ProfileTable *t, const char *name, const ProfileRow *r) {
    double ms = 1e3 / t->runs;
    fprintf(f, "| %s |", name);
    if (r->calls) fprintf(f, " %llu |", (unsigned long long)r->calls / (unsigned)t->runs);
    else fputs(" |", f);
    fprintf(f, " %.3f | %.1f | %.3f | %.0f |", r->seconds * ms, 100 * r->seconds / t->seconds, r->waiting * ms,
            100 * (r->seconds - r->inside) / r->seconds);
    put_rate(f, rate(r->flops, r->seconds), t->peak_gflops);
    put_rate(f, rate(r->bytes, r->seconds), t->read_gb);
    fputc('\n', f);
}

void profile_table_md(FILE *f, const ProfileTable *t) {
    char name[NAME_ROOM];
    fputs("| operation | calls | ms | % | wait ms | % serial | GFLOP/s | % of peak | GB/s | % of read |\n"
          "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
          f);
    for (int op = PROFILE_OTHER + 1; op < N_PROFILE_OPS; op++) {
        const ProfileRow *r = &t->profile->rows[op];
        if (r->calls) put_row(f, t, profile_name(op, name, sizeof name), r);
    }
    ProfileRow all = sum_operations(t), rest = other(t, &all);
    put_row(f, t, profile_name(PROFILE_OTHER, name, sizeof name), &rest);
    all.calls = 0;
    all.seconds = t->seconds;
    all.inside += rest.inside;
    all.waiting += rest.waiting;
    put_row(f, t, "all", &all);
}

static void put_object(FILE *f, const ProfileTable *t, const char *name, const ProfileRow *r) {
    double ms = 1e3 / t->runs;
    fprintf(f,
            "\n    {\"operation\": \"%s\", \"calls\": %llu, \"ms\": %.6g, \"share\": %.6g, \"wait_ms\": %.6g, "
            "\"alone_ms\": %.6g, \"flops\": %.15g, \"gflop_per_s\": %.6g, \"bytes\": %.15g, \"gb_per_s\": %.6g}",
            name, (unsigned long long)r->calls / (unsigned)t->runs, r->seconds * ms, r->seconds / t->seconds,
            r->waiting * ms, (r->seconds - r->inside) * ms, r->flops / t->runs, rate(r->flops, r->seconds),
            r->bytes / t->runs, rate(r->bytes, r->seconds));
}

void profile_table_json(FILE *f, const ProfileTable *t) {
    char name[NAME_ROOM];
    fputc('[', f);
    for (int op = PROFILE_OTHER + 1; op < N_PROFILE_OPS; op++) {
        const ProfileRow *r = &t->profile->rows[op];
        if (!r->calls) continue;
        put_object(f, t, profile_name(op, name, sizeof name), r);
        fputc(',', f);
    }
    ProfileRow all = sum_operations(t), rest = other(t, &all);
    put_object(f, t, profile_name(PROFILE_OTHER, name, sizeof name), &rest);
    fputc(']', f);
}
