// show: one mechanism as text, as JSON, and as a picture of who looks at whom. Called by atlas.
//
// Owns the layout of the list and of a mechanism's page. The picture is measured: the weights that the operator gives a
// short text of words that come again. Refuses nothing.
#pragma once
#include "mechanism.h"

enum { MAX_SHOWN = 96 }; // rows of a picture

typedef struct {
    int n; // rows of the picture
    bool json;
    const char *svg; // path; NULL: none
    Compute *compute;
} Show;

void show_list(const Show *s); // every mechanism, a line each
void show_mechanism(const Show *s, const Mechanism *m);
