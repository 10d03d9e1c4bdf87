// show: one mechanism as text, as JSON, and as a picture of who looks at whom. Called by atlas.
//
// Owns the layout of the list and of a mechanism's page. The picture is measured: the weights that the operator gives a
// short text of words that come again. Refuses nothing.
#pragma once
#include "alignment.h"
#include "mechanism.h"

#include <jansson.h>

enum { MAX_SHOWN = 96 }; // rows of a picture

typedef struct {
    int n; // rows of the picture
    bool json;
    const char *svg; // path; NULL: none
    Compute *compute;
} Show;

void show_list(const Show *s); // every mechanism, a line each
void show_json(json_t *value); // on stdout, and frees it
json_t *show_number(double v); // null where it is none
// An SVG of maps [n][n] over n tokens called 0, 1, ...; ends the program when it cannot be written.
void show_maps(const char *path, const char *title, const char *subtitle, int n, const AlignmentMap *maps, int n_maps);
void show_mechanism(const Show *s, const Mechanism *m);
