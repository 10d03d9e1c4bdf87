// show: see show.h.
#include "show.h"

#include "cli.h"
#include "inputs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ERROR_ROWS = 1000, N_WORDS = 100 }; // of the comparison with exact attention

static json_t *facts(const Mechanism *m) {
    json_t *o = json_object();
    const char *const pairs[][2] = {{"name", m->name},           {"family", m->family},   {"title", m->title},
                                    {"paper", m->paper},         {"formula", m->formula}, {"prefill", m->prefill},
                                    {"decode", m->decode},       {"memory", m->memory},   {"best_for", m->best_for},
                                    {"published", m->published}, {"same_as", m->same_as}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (pairs[i][1]) json_object_set_new(o, pairs[i][0], json_string(pairs[i][1]));
    }
    return o;
}

void show_json(json_t *value) {
    json_dumpf(value, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(value);
}

json_t *show_number(double v) {
    return isfinite(v) ? json_real(v) : json_null();
}

void show_list(const Show *s) {
    json_t *list = json_array();
    const char *family = "";
    const Mechanism *m;
    for (int i = 0; (m = mechanism_at(i)); i++) {
        if (s->json) json_array_append_new(list, facts(m));
        else
            printf("%s%-8s %-16s %s\n", i && strcmp(family, m->family) ? "\n" : "",
                   strcmp(family, m->family) ? m->family : "", m->name, m->title);
        family = m->family;
    }
    if (s->json) show_json(list);
    else json_decref(list);
}

// ---- the picture

// One head that is as small as its text, so that a window and blocks show.
static Shape picture_shape(const Mechanism *m, int n) {
    Shape shape = shape_default(m, n);
    shape.n_heads = shape.n_kv_heads = 1;
    shape.head_dim = 32;
    shape.window = 8;
    shape.block = 4;
    shape.rank = 16;
    shape.type = KV_DTYPE_F32;
    return shape;
}

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
    show_maps(path, m->title, m->paper, n, &(AlignmentMap){m->name, size}, 1);
    free(size);
}

// The weights [n][n] of a short text; NULL where there are none to show.
static float *picture_weights(const Show *s, const Mechanism *m) {
    char err[512];
    if (m->opaque) return NULL;
    Shape shape = picture_shape(m, s->n);
    Inputs in;
    float *w = floats_alloc((int64_t)s->n * s->n, err, sizeof err);
    if (!w || inputs_open(&in, &shape, s->n, s->n, 3, err, sizeof err)) die(1, "%s", err);
    inputs_of_words(&in, 9, 5);
    Rows rows = inputs_all(&in);
    if (mechanism_weights(m, &shape, s->compute, &rows, w, err, sizeof err)) die(1, "%s", err);
    inputs_close(&in);
    return w;
}

// ---- a page

// Relative, against exact attention over random rows; below 0: it means nothing here.
static double exact_error(const Show *s, const Mechanism *m) {
    char err[512];
    if (!m->approximates) return -1;
    Shape shape = shape_default(m, ERROR_ROWS);
    Inputs in;
    Operator op;
    if (inputs_open(&in, &shape, ERROR_ROWS, ERROR_ROWS, 2, err, sizeof err) ||
        operator_open(&op, m, &shape, s->compute, err, sizeof err)) {
        die(1, "%s", err);
    }
    inputs_of_words(&in, N_WORDS, 5);
    Rows rows = inputs_all(&in);
    operator_step(&op, &rows);
    operator_close(&op);
    double error = inputs_error(&in, m->time, 0, s->compute, err, sizeof err);
    if (error < 0) die(1, "%s", err);
    inputs_close(&in);
    return error;
}

static void print_text(const char *label, const char *text) {
    const char *end;
    for (; *text; text = *end ? end + 1 : end) {
        end = strchrnul(text, '\n');
        printf("%-10s %.*s\n", label, (int)(end - text), text);
        label = "";
    }
}

static void page_json(const Show *s, const Mechanism *m, const float *w, double error) {
    json_t *o = facts(m), *rows = json_array();
    if (error >= 0) json_object_set_new(o, "error", json_real(error));
    for (int t = 0; w && t < s->n; t++) {
        json_t *row = json_array();
        for (int j = 0; j < s->n; j++) json_array_append_new(row, json_real((double)w[t * s->n + j]));
        json_array_append_new(rows, row);
    }
    if (w) json_object_set(o, "weights", rows);
    json_decref(rows);
    show_json(o);
}

void show_mechanism(const Show *s, const Mechanism *m) {
    float *w = picture_weights(s, m);
    double error = exact_error(s, m);
    if (s->svg && !w) die(2, "--svg: %s has no weights to draw", m->name);
    if (s->svg) draw_weights(s->svg, m, w, s->n);
    if (s->json) page_json(s, m, w, error);
    else {
        printf("%s: %s\n\n", m->name, m->title);
        print_text("paper", m->paper);
        print_text("formula", m->formula);
        print_text("prefill", m->prefill);
        print_text("decode", m->decode);
        print_text("memory", m->memory);
        print_text("best for", m->best_for);
        if (m->published) print_text("published", m->published);
        if (m->same_as) print_text("same as", m->same_as);
        if (error >= 0)
            printf("%-10s %.2g, relative to exact attention over %d tokens of %d words\n", "error", error, ERROR_ROWS,
                   N_WORDS);
        if (w) printf("\nWho looks at whom, in %d tokens of 9 words (rows: queries):\n", s->n);
        if (w) print_weights(w, s->n);
    }
    free(w);
}
