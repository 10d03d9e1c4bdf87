// atlas: what the commands of build/atlas share: what was asked for, a trial's measurements, and JSON.
#pragma once
#include "alignment.h"
#include "facts.h"

enum { MAX_SHOWN = 96, MAX_MECHANISMS = 96 }; // rows of a picture; in the list
enum { FASTER = 32 };                         // what --fast divides lengths by

// The command line.
typedef struct {
    Compute *compute;
    const Mechanism *list[MAX_MECHANISMS]; // those named, else all that are not another's under a second name
    int n_list, n_named;
    const char *svg, *heads, *prompt; // paths of a picture and of a model, and the text that it reads; NULL: none
    int json;
    bool bench, claims, table, advise, fast;
    int n_shown, n_threads, n_heads, head_dim;
    int least, most; // lengths of --bench, doubled from one to the next
    float limit;     // seconds of a prefill
} Asked;

// The commands; each ends the program where it cannot be done.
void show_list(const Asked *a);
void show_mechanism(const Asked *a);
void lengths_run(const Asked *a);
void claims_run(const Asked *a);
void survey_table(const Asked *a);
void survey_advise(const Asked *a);
void roles_run(const Asked *a);

void show_json(const Asked *a, json_t *value); // on stdout where it was asked for; frees it
json_t *show_number(double v);                 // null where it is none
// An SVG of maps [n][n] over n tokens called 0, 1, ...
void show_maps(const char *path, const char *title, const char *subtitle, int n, const AlignmentMap *maps, int n_maps);

typedef struct {
    int n;                     // rows read
    double prefill;            // seconds for n rows in one step, the fastest of several where that is short
    double decode;             // seconds a token behind n rows, the median; NAN: there is no decoding
    double flops;              // of prefill
    double computed, attended; // of prefill, as in Operator; attended: the least
    double bytes;              // of cache or state behind n rows
    double peak;               // bytes that the process grew by during prefill: cache, state and scratch; not the rows
    double error;              // of the last rows, relative to exact attention; NAN: it means nothing
} Trial;

// shape.n_max is set here. stored: the n rows are keys alone, which nobody asks until the tokens are decoded.
Trial trial_run(const Mechanism *m, const Shape *shape, int n, bool stored, Compute *c);
