// atlas: the command line of build/atlas: attention mechanisms, listed, shown and measured.
//
// Owns the flags. Refuses a wrong command line with exit status 2.
#include "cli.h"
#include "show.h"

#include <stdio.h>

typedef struct {
    const char *svg;
    int n_shown, n_threads, json;
} Options;

static const Mechanism *find(const char *name) {
    const Mechanism *m = mechanism_find(name);
    if (!m) die(2, "expected a mechanism of the list that build/atlas prints, found '%s'", name);
    return m;
}

int main(int argc, char **argv) {
    Options o = {.n_shown = 32};
    const Flag flags[] = {
        {"-n --rows", "N", "rows of the picture (default: 32)", TAKES_INT(&o.n_shown, 2, MAX_SHOWN)},
        {"--svg", "FILE.svg", "draw the weights", TAKES_STRING(&o.svg)},
        FORMAT_FLAG(&o.json, "text json", "text or json (default: text)"),
        THREADS_FLAG(&o.n_threads),
    };
    const Program program = {"build/atlas", "[NAME] [options]", "  without NAME: the mechanisms, a line each\n", flags,
                             sizeof flags / sizeof *flags};
    int n = argc > 1 ? cli_parse(&program, argc, argv) : 0;
    if (n > 1) die(2, "expected one mechanism, found '%s' and '%s'", argv[0], argv[1]);
    if (o.svg && n == 0) die(2, "--svg: expected with a mechanism");
    Compute compute;
    char err[512];
    if (compute_open(&compute, o.n_threads ? o.n_threads : cpu_count(), err, sizeof err)) die(1, "%s", err);
    Show show = {o.n_shown, o.json, o.svg, &compute};
    if (n) show_mechanism(&show, find(argv[0]));
    else show_list(&show);
    compute_close(&compute);
    if (fflush(stdout) || ferror(stdout)) die(1, "stdout: could not be written");
    return 0;
}
