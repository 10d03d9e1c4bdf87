// atlas: the command line of build/atlas: attention mechanisms, listed, shown and measured.
//
// Owns the flags. Refuses a wrong command line with exit status 2.
#include "claims.h"
#include "cli.h"
#include "lengths.h"
#include "roles.h"
#include "show.h"
#include "survey.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *svg, *heads, *prompt;
    int n_shown, n_threads, json, n_heads, head_dim;
    float limit;
    bool bench, claims, table, advise, fast;
    int least, most; // lengths of --bench
} Options;

static const int MOST_ROWS = 1 << 21;

// "512..65536" or one number.
static void take_lengths(void *to, const char *flag, const char *value) {
    Options *o = to;
    char *dots = strdup(value), *second = dots ? strstr(dots, "..") : NULL;
    long long least, most;
    if (!dots) die(1, "out of memory");
    if (second) *second = 0;
    if (!cli_integer(dots, &least) || !cli_integer(second ? second + 2 : dots, &most) || least < 1 || most < least ||
        most > MOST_ROWS) {
        die(2, "%s: expected lengths from 1 to %d such as 512..65536, found '%s'", flag, MOST_ROWS, value);
    }
    o->least = (int)least;
    o->most = (int)most;
    free(dots);
}

static const Mechanism *find(const char *name) {
    const Mechanism *m = mechanism_find(name);
    if (!m) die(2, "expected a mechanism of the list that build/atlas prints, found '%s'", name);
    return m;
}

// The named mechanisms, else all that are not another's under a second name.
static void bench(const Options *o, char **names, int n, Compute *compute) {
    Lengths l = {.least = o->least, .most = o->most, .n_heads = o->n_heads, .head_dim = o->head_dim, .json = o->json};
    const Mechanism *m;
    l.limit = (double)o->limit;
    l.svg = o->svg;
    l.compute = compute;
    if (n > MAX_BENCHED) die(2, "--bench: expected at most %d mechanisms, found %d", MAX_BENCHED, n);
    for (int i = 0; i < n; i++) l.list[l.n_mechanisms++] = find(names[i]);
    for (int i = 0; !n && (m = mechanism_at(i)) && l.n_mechanisms < MAX_BENCHED; i++) {
        if (!m->same_as) l.list[l.n_mechanisms++] = m;
    }
    lengths_run(&l);
}

int main(int argc, char **argv) {
    Options o = {.n_shown = 32, .n_heads = 4, .head_dim = 64, .limit = 12, .least = 512, .most = 65536};
    const Flag flags[] = {
        {"--bench", NULL, "measure the mechanisms named, or all, as the text grows", SETS(&o.bench)},
        {"--n", "FROM..TO", "with --bench: lengths, doubled each time (default: 512..65536)",
         TAKES_CALL(&o, take_lengths)},
        {"--limit", "S", "with --bench: leave out a prefill that would take longer, in seconds (default: 12)",
         TAKES_FLOAT(&o.limit, 0, 1e6)},
        {"--n-heads", "N", "with --bench: heads (default: 4)", TAKES_INT(&o.n_heads, 1, 128)},
        {"--head-dim", "N", "with --bench: width of a head (default: 64)", TAKES_INT(&o.head_dim, 4, 256)},
        {"--claims", NULL, "put what surveys claim to the test", SETS(&o.claims)},
        {"--table", NULL, "the comparative table of surveys, measured beside claimed", SETS(&o.table)},
        {"--advise", NULL, "which mechanism for which need, by measurements", SETS(&o.advise)},
        {"--fast", NULL, "with --claims, --table, --advise: lengths a 32nd as long, to try it out", SETS(&o.fast)},
        {"--heads", "MODEL", "with -p: what the heads of a model do", TAKES_STRING(&o.heads)},
        {"-p --prompt", "TEXT", "with --heads: the text that they look at", TAKES_STRING(&o.prompt)},
        {"-n --rows", "N", "rows of the picture (default: 32)", TAKES_INT(&o.n_shown, 2, MAX_SHOWN)},
        {"--svg", "FILE.svg", "draw the weights, or what --bench measured", TAKES_STRING(&o.svg)},
        FORMAT_FLAG(&o.json, "text json", "text or json (default: text)"),
        THREADS_FLAG(&o.n_threads),
    };
    const Program program = {"build/atlas", "[NAME..] [options]", "  without NAME: the mechanisms, a line each\n",
                             flags, sizeof flags / sizeof *flags};
    int n = argc > 1 ? cli_parse(&program, argc, argv) : 0;
    if (n > 1 && !o.bench) die(2, "expected one mechanism, found '%s' and '%s'", argv[0], argv[1]);
    if (o.bench + o.claims + o.table + o.advise > 1)
        die(2, "--bench, --claims, --table and --advise: expected one of them");
    if (n && (o.claims || o.table || o.advise))
        die(2, "'%s': expected no mechanism with --claims, --table or --advise", argv[0]);
    if (o.svg && n == 0 && !o.bench && !o.heads) die(2, "--svg: expected with a mechanism or --bench");
    int n_threads = o.n_threads ? o.n_threads : cpu_count();
    if (!o.heads != !o.prompt) die(2, "--heads and -p: expected both or neither");
    if (o.heads) {
        roles_run(&(Roles){o.heads, o.prompt, n_threads, o.json, o.svg});
        return fflush(stdout) || ferror(stdout) ? (fprintf(stderr, "error: stdout: could not be written\n"), 1) : 0;
    }
    Compute compute;
    char err[512];
    if (compute_open(&compute, n_threads, err, sizeof err)) die(1, "%s", err);
    Show show = {o.n_shown, o.json, o.svg, &compute};
    if (o.claims) claims_run(&compute, o.json, o.fast);
    else if (o.table) survey_table(&compute, o.json, o.fast);
    else if (o.advise) survey_advise(&compute, o.json, o.fast);
    else if (o.bench) bench(&o, argv, n, &compute);
    else if (n) show_mechanism(&show, find(argv[0]));
    else show_list(&show);
    compute_close(&compute);
    if (fflush(stdout) || ferror(stdout)) die(1, "stdout: could not be written");
    return 0;
}
