// show: the list of mechanisms, and one as text, as JSON, and as a picture of who looks at whom.
//
// Owns the layout of the list and of a mechanism's page. The picture is measured: the weights that the operator gives a
// short text of words that come again. Refuses nothing.
#include "atlas.h"

#include "cli.h"
#include "inputs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ERROR_ROWS = 1000, N_WORDS = 100 }; // of the comparison with exact attention
enum { FIRST_OF_PAGE = 3 };                // fact: behind name, family and title
void show_json(const Asked *a, json_t *value) {
    if (a->json) {
        json_dumpf(value, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
        putchar('\n');
    }
    json_decref(value);
}

json_t *show_number(double v) {
    return isfinite(v) ? json_real(v) : json_null();
}

void show_list(const Asked *a) {
    const char *last = "";
    const Mechanism *m;
    for (int i = 0; !a->json && (m = mechanism_at(i)); i++) {
        const char *family = fact(m, "family");
        bool first = strcmp(family, last) != 0; // of a family
        printf("%s%-8s %-16s %s\n", i && first ? "\n" : "", first ? family : "", m->name, fact(m, "title"));
        last = family;
    }
    show_json(a, json_incref(facts_all()));
}

// ---- the picture

// The shares of weights [n][n], of each row's largest: shades of their size, a dot where it is too small for one.
static void print_weights(const float *w, int n) {
    static const char *const shades[] = {"  ", "··", "░░", "▒▒", "▓▓", "██"};
    for (int t = 0; t < n; t++) {
        float most = 0;
        for (int j = 0; j < n; j++) most = fmaxf(most, fabsf(w[t * n + j]));
        fputs("    ", stdout);
        for (int j = 0; j < n; j++) {
            float share = most > 0 ? fabsf(w[t * n + j]) / most : 0;
            int shade = share > 0.75f ? 5 : share > 0.4f ? 4 : share > 0.15f ? 3 : share > 0.03f ? 2 : share > 1e-6f;
            fputs(shades[shade], stdout);
        }
        putchar('\n');
    }
}

void show_maps(const char *path, const char *title, const char *subtitle, int n, const AlignmentMap *maps, int n_maps) {
    char err[512], labels[MAX_SYMBOLS][12];
    const char *names[MAX_SYMBOLS];
    for (int i = 0; i < n && i < MAX_SYMBOLS; i++) {
        snprintf(labels[i], sizeof labels[i], "%d", i);
        names[i] = labels[i];
    }
    Alignment a = {title, subtitle, names, n, names, n, maps, n_maps};
    if (alignment_write(path, &a, err, sizeof err)) die(1, "%s", err);
}

// The sizes of w[n][n], which may be negative or above 1.
static void draw_weights(const char *path, const Mechanism *m, const float *w, int n) {
    float *size = floats_need((int64_t)n * n);
    for (int i = 0; i < n * n; i++) size[i] = fminf(fabsf(w[i]), 1);
    show_maps(path, fact(m, "title"), fact(m, "paper"), n, &(AlignmentMap){m->name, size}, 1);
    free(size);
}

// The weights [n][n] of a short text; NULL where there are none to show. One head that is as small as its text, so that
// a window and blocks show.
static float *picture_weights(const Asked *a, const Mechanism *m) {
    if (m->opaque) return NULL;
    int n = a->n_shown;
    Shape shape = {1, 1, .head_dim = 32, n, .window = 8, .block = 4, .rank = 16, KV_DTYPE_F32, .seed = 1};
    Inputs in;
    float *w = floats_need((int64_t)n * n);
    inputs_open(&in, &shape, n, n, 3);
    inputs_of_words(&in, 9, 5);
    Rows rows = inputs_all(&in);
    mechanism_weights(m, &shape, a->compute, &rows, w);
    inputs_close(&in);
    return w;
}

// ---- a page

// Relative, against exact attention over random rows; below 0: it means nothing here.
static double exact_error(const Asked *a, const Mechanism *m) {
    if (!m->approximates) return -1;
    Shape shape = shape_of(m, ERROR_ROWS, 8, 64);
    Inputs in;
    inputs_open(&in, &shape, ERROR_ROWS, ERROR_ROWS, 2);
    inputs_of_words(&in, N_WORDS, 5);
    Rows rows = inputs_all(&in);
    operator_run(m, &shape, a->compute, &rows);
    double error = inputs_error(&in, m->time, 0, a->compute);
    inputs_close(&in);
    return error;
}

// "best_for" as "best for"; further lines of the text below its first.
static void print_fact(const char *name, const char *text) {
    char label[32];
    const char *end;
    snprintf(label, sizeof label, "%s", name);
    if (strchr(label, '_')) *strchr(label, '_') = ' ';
    for (; *text; text = *end ? end + 1 : end) {
        end = strchrnul(text, '\n');
        printf("%-10s %.*s\n", label, (int)(end - text), text);
        *label = 0;
    }
}

static void print_page(const Asked *a, const Mechanism *m, const float *w, double error) {
    const char *name;
    json_t *value;
    int i = 0;
    printf("%s: %s\n\n", m->name, fact(m, "title"));
    json_object_foreach(facts_of(m), name, value) {
        if (i++ >= FIRST_OF_PAGE) print_fact(name, json_string_value(value));
    }
    if (error >= 0)
        printf("%-10s %.2g, relative to exact attention over %d tokens of %d words\n", "error", error, ERROR_ROWS,
               N_WORDS);
    if (w) printf("\nWho looks at whom, in %d tokens of 9 words (rows: queries):\n", a->n_shown);
    if (w) print_weights(w, a->n_shown);
}

// w[n][n]
static json_t *weights_json(const float *w, int n) {
    json_t *rows = json_array();
    for (int t = 0; t < n; t++) {
        json_t *row = json_array();
        for (int j = 0; j < n; j++) json_array_append_new(row, json_real((double)w[t * n + j]));
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *page_json(const Asked *a, const Mechanism *m, const float *w, double error) {
    json_t *o = json_copy(facts_of(m));
    if (error >= 0) json_object_set_new(o, "error", json_real(error));
    if (w) json_object_set_new(o, "weights", weights_json(w, a->n_shown));
    return o;
}

void show_mechanism(const Asked *a) {
    const Mechanism *m = a->list[0];
    float *w = picture_weights(a, m);
    double error = exact_error(a, m);
    if (a->svg && !w) die(2, "--svg: %s has no weights to draw", m->name);
    if (a->svg) draw_weights(a->svg, m, w, a->n_shown);
    if (!a->json) print_page(a, m, w, error);
    show_json(a, page_json(a, m, w, error));
    free(w);
}
