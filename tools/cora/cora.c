// cora: the command line of build/cora: graph networks classify the papers of a citation graph.
//
// Owns the flags and the table. Refuses a wrong command line with exit status 2.
#include "cli.h"
#include "network.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *kind;
    double accuracy;
    const char *source;
} published[] = {{"GAT", 83.0, "arXiv:1710.10903, table 2"}, {"GCN", 81.5, "arXiv:1609.02907, table 2"}};

static void tell(const char *model, const char *kind, double accuracy, double took, int json) {
    int i = 0;
    while (strcmp(published[i].kind, kind) != 0) i++;
    if (json) {
        json_t *o = json_pack("{s:s,s:s,s:f,s:f,s:f}", "model", model, "network", kind, "accuracy", accuracy,
                              "published", published[i].accuracy, "seconds", took);
        json_dumpf(o, stdout, JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(o);
    } else {
        printf("%s, %s: %.1f %% of the test papers; published %.1f %% (%s); %.0f ms\n", model, kind, accuracy,
               published[i].accuracy, published[i].source, took * 1e3);
    }
}

int main(int argc, char **argv) {
    const char *data = "../shared/data/cora";
    int n_threads = 0, json = 0;
    const Flag flags[] = {
        {"--data", "DIR", "folder of ind.cora.* (default: ../shared/data/cora)", TAKES_STRING(&data)},
        THREADS_FLAG(&n_threads),
        FORMAT_FLAG(&json, "text json", "text or json, an object a line (default: text)"),
    };
    const Program program = {"build/cora", "MODEL.. [options]",
                             "  MODEL: a safetensors file of GAT or GCN, such as models/cora/gat.safetensors\n", flags,
                             sizeof flags / sizeof *flags};
    int n = cli_parse(&program, argc, argv);
    if (!n) die(2, "expected a model such as models/cora/gat.safetensors");
    char err[512];
    Papers papers;
    Compute compute;
    file_guard_shrinking();
    if (papers_open(&papers, data, err, sizeof err)) die(1, "%s (Planetoid's files of Cora; --data says where)", err);
    if (compute_open(&compute, n_threads ? n_threads : cpu_count(), err, sizeof err)) die(1, "%s", err);
    float *logits = floats_need((int64_t)papers.n * papers.n_classes);
    for (int i = 0; i < n; i++) {
        const char *kind;
        double start = seconds();
        if (network_run(argv[i], &papers, &compute, logits, &kind, err, sizeof err)) die(1, "%s", err);
        tell(argv[i], kind, 100 * network_accuracy(&papers, logits), seconds() - start, json);
    }
    free(logits);
    compute_close(&compute);
    papers_close(&papers);
    if (fflush(stdout) || ferror(stdout)) die(1, "stdout: could not be written");
    return 0;
}
