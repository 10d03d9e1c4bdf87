// atlas: the command line of build/atlas: attention mechanisms, listed, shown and measured.
//
// Owns the flags. Refuses a wrong command line with exit status 2.
#include "atlas.h"

#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int MOST_ROWS = 1 << 21;

// "512..65536" or one number.
static void take_lengths(void *to, const char *flag, const char *value) {
    Asked *a = to;
    char *dots = strdup(value), *second = dots ? strstr(dots, "..") : NULL;
    long long least, most;
    if (!dots) die(1, "out of memory");
    if (second) *second = 0;
    if (!cli_integer(dots, &least) || !cli_integer(second ? second + 2 : dots, &most) || least < 1 || most < least ||
        most > MOST_ROWS) {
        die(2, "%s: expected lengths from 1 to %d such as 512..65536, found '%s'", flag, MOST_ROWS, value);
    }
    a->least = (int)least;
    a->most = (int)most;
    free(dots);
}

static void take_names(Asked *a, char **names, int n) {
    const Mechanism *m;
    if (n > MAX_MECHANISMS) die(2, "--bench: expected at most %d mechanisms, found %d", MAX_MECHANISMS, n);
    for (int i = 0; i < n; i++) {
        a->list[a->n_list++] = m = mechanism_find(names[i]);
        if (!m) die(2, "expected a mechanism of the list that build/atlas prints, found '%s'", names[i]);
    }
    for (int i = 0; !n && (m = mechanism_at(i)); i++) {
        if (!fact(m, "same_as") && a->n_list < MAX_MECHANISMS) a->list[a->n_list++] = m;
    }
    a->n_named = n;
}

static void run(const Asked *a) {
    if (a->heads) roles_run(a);
    else if (a->claims) claims_run(a);
    else if (a->table) survey_table(a);
    else if (a->advise) survey_advise(a);
    else if (a->bench) lengths_run(a);
    else if (a->n_named) show_mechanism(a);
    else show_list(a);
}

int main(int argc, char **argv) {
    Asked a = {.n_shown = 32, .n_heads = 4, .head_dim = 64, .limit = 12, .least = 512, .most = 65536};
    const Flag flags[] = {
        {"--bench", NULL, "measure the mechanisms named, or all, as the text grows", SETS(&a.bench)},
        {"--n", "FROM..TO", "with --bench: lengths, doubled each time (default: 512..65536)",
         TAKES_CALL(&a, take_lengths)},
        {"--limit", "S", "with --bench: leave out a prefill that would take longer, in seconds (default: 12)",
         TAKES_FLOAT(&a.limit, 0, 1e6)},
        {"--n-heads", "N", "with --bench: heads (default: 4)", TAKES_INT(&a.n_heads, 1, 128)},
        {"--head-dim", "N", "with --bench: width of a head (default: 64)", TAKES_INT(&a.head_dim, 4, 256)},
        {"--claims", NULL, "put what surveys claim to the test", SETS(&a.claims)},
        {"--table", NULL, "the comparative table of surveys, measured beside claimed", SETS(&a.table)},
        {"--advise", NULL, "which mechanism for which need, by measurements", SETS(&a.advise)},
        {"--fast", NULL, "with --claims, --table, --advise: lengths a 32nd as long, to try it out", SETS(&a.fast)},
        {"--heads", "MODEL", "with -p: what the heads of a model do", TAKES_STRING(&a.heads)},
        {"-p --prompt", "TEXT", "with --heads: the text that they look at", TAKES_STRING(&a.prompt)},
        {"-n --rows", "N", "rows of the picture (default: 32)", TAKES_INT(&a.n_shown, 2, MAX_SHOWN)},
        {"--svg", "FILE.svg", "draw the weights, or what --bench measured", TAKES_STRING(&a.svg)},
        FORMAT_FLAG(&a.json, "text json", "text or json (default: text)"),
        THREADS_FLAG(&a.n_threads),
    };
    const Program program = {"build/atlas", "[NAME..] [options]", "  without NAME: the mechanisms, a line each\n",
                             flags, sizeof flags / sizeof *flags};
    int n = argc > 1 ? cli_parse(&program, argc, argv) : 0;
    if (n > 1 && !a.bench) die(2, "expected one mechanism, found '%s' and '%s'", argv[0], argv[1]);
    if (a.bench + a.claims + a.table + a.advise > 1)
        die(2, "--bench, --claims, --table and --advise: expected one of them");
    if (n && (a.claims || a.table || a.advise))
        die(2, "'%s': expected no mechanism with --claims, --table or --advise", argv[0]);
    if (a.svg && n == 0 && !a.bench && !a.heads) die(2, "--svg: expected with a mechanism or --bench");
    if (!a.heads != !a.prompt) die(2, "--heads and -p: expected both or neither");
    if (!a.heads) take_names(&a, argv, n);
    Compute compute;
    char err[512];
    if (compute_open(&compute, a.n_threads ? a.n_threads : cpu_count(), err, sizeof err)) die(1, "%s", err);
    a.compute = &compute;
    run(&a);
    compute_close(&compute);
    if (fflush(stdout) || ferror(stdout)) die(1, "stdout: could not be written");
    return 0;
}
