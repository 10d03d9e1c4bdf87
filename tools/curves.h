// curves: panels of curves over the length of a text, both axes logarithmic, as one SVG. Called by
// build/atlas.
//
// Owns the layout: a curve's name stands at its end, moved where names would overlap. Refuses nothing.
#pragma once
#include "svg.h"

enum { MAX_CURVE_POINTS = 24, MAX_PANELS = 3 };

typedef struct {
    const char *name;
    int group; // curves of a group have one colour
    int n;
    double x[MAX_CURVE_POINTS], y[MAX_CURVE_POINTS]; // above 0
} Curve;

typedef struct {
    const char *title;
    void (*format)(char *to, size_t room, double y); // a number of the y axis: "10 ms"
    const Curve *curves;
    int n_curves;
} CurvePanel;

// -1 with a line in err.
int curves_write(const char *path, const char *title, const char *subtitle, const CurvePanel *panels, int n_panels,
                 char *err, size_t errlen);
