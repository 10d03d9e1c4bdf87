// curves: see curves.h.
#include "curves.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LEFT = 70,
    PANEL_WIDTH = 300,
    NAME_WIDTH = 130, // of the names behind the curves
    GAP = 60,         // for the next panel's numbers
    TOP = 110,
    HEIGHT = 460, // of a panel, at least
    NAME_SIZE = 11,
    NAME_STEP = 12,
    MAX_NAMES = 96,
};

static const SvgColour colours[] = {SVG_BLUE, SVG_ORANGE, SVG_GREEN, SVG_INK};
static const char *const dashes[] = {NULL, "7 4", "2 4"};

typedef struct {
    double x0, bottom, x_lo, x_hi, y_lo, y_hi; // left and lower edge, pixels; ranges of the axes
} Axes;

static double x_at(const Axes *a, double x) {
    return a->x0 + log(x / a->x_lo) / log(a->x_hi / a->x_lo) * PANEL_WIDTH;
}

static double y_at(const Axes *a, double y) {
    return a->bottom - log(y / a->y_lo) / log(a->y_hi / a->y_lo) * (a->bottom - TOP);
}

static Axes choose_axes(const CurvePanel *p, double x0, double bottom) {
    Axes a = {x0, bottom, INFINITY, 0, INFINITY, 0};
    for (int c = 0; c < p->n_curves; c++) {
        for (int i = 0; i < p->curves[c].n; i++) {
            a.x_lo = fmin(a.x_lo, p->curves[c].x[i]);
            a.x_hi = fmax(a.x_hi, p->curves[c].x[i]);
            a.y_lo = fmin(a.y_lo, p->curves[c].y[i]);
            a.y_hi = fmax(a.y_hi, p->curves[c].y[i]);
        }
    }
    if (a.x_hi <= a.x_lo) a.x_hi = 2 * a.x_lo;
    a.y_lo = pow(10, floor(log10(a.y_lo)));
    a.y_hi = fmax(pow(10, ceil(log10(a.y_hi))), 10 * a.y_lo);
    return a;
}

static void put_axes(const Svg *svg, const CurvePanel *p, const Axes *a) {
    char text[32];
    SvgText title = {.x = a->x0, .y = TOP - 16, .size = 14, .colour = SVG_INK, .bold = true};
    svg_text(svg, &title, p->title);
    for (double y = a->y_lo; y < a->y_hi * 1.01; y *= 10) {
        svg_line(svg, a->x0, y_at(a, y), a->x0 + PANEL_WIDTH, y_at(a, y), SVG_RULE);
        p->format(text, sizeof text, y);
        SvgText how = {.x = a->x0 - 6, .y = y_at(a, y) + 4, .size = NAME_SIZE, .anchor = SVG_END, .colour = SVG_GREY};
        svg_text(svg, &how, text);
    }
    for (double x = a->x_lo; x < a->x_hi * 1.01; x *= 4) {
        svg_line(svg, x_at(a, x), a->bottom, x_at(a, x), a->bottom + 5, SVG_INK);
        snprintf(text, sizeof text, x >= 1024 ? "%.0fK" : "%.0f", x >= 1024 ? x / 1024 : x);
        SvgText how = {
            .x = x_at(a, x), .y = a->bottom + 19, .size = NAME_SIZE, .anchor = SVG_MIDDLE, .colour = SVG_GREY};
        svg_text(svg, &how, text);
    }
    svg_line(svg, a->x0, a->bottom, a->x0 + PANEL_WIDTH, a->bottom, SVG_INK);
    SvgText below = {.x = a->x0 + PANEL_WIDTH / 2.0, .y = a->bottom + 38, .size = 12, .anchor = SVG_MIDDLE};
    below.colour = SVG_INK;
    svg_text(svg, &below, "tokens");
}

typedef struct {
    const Curve *curve;
    double y; // of the name, pixels
} Name;

static int by_height(const void *a, const void *b) {
    double d = ((const Name *)a)->y - ((const Name *)b)->y;
    return (d > 0) - (d < 0);
}

// Names at the right, moved down where they would overlap, then up where they would leave the panel.
static int place_names(const CurvePanel *p, const Axes *a, Name *names) {
    int n = 0;
    for (int c = 0; c < p->n_curves && n < MAX_NAMES; c++) {
        const Curve *curve = &p->curves[c];
        if (curve->n) names[n++] = (Name){curve, y_at(a, curve->y[curve->n - 1]) + 4};
    }
    qsort(names, (size_t)n, sizeof *names, by_height);
    for (int i = 1; i < n; i++) names[i].y = fmax(names[i].y, names[i - 1].y + NAME_STEP);
    double most = a->bottom + 4;
    for (int i = n - 1; i >= 0; i--, most -= NAME_STEP) names[i].y = fmin(names[i].y, most);
    return n;
}

static void put_panel(const Svg *svg, const CurvePanel *p, double x0, double bottom) {
    Axes a = choose_axes(p, x0, bottom);
    Name names[MAX_NAMES];
    put_axes(svg, p, &a);
    for (int c = 0; c < p->n_curves; c++) {
        const Curve *curve = &p->curves[c];
        SvgPoint points[MAX_CURVE_POINTS];
        for (int i = 0; i < curve->n; i++) points[i] = (SvgPoint){x_at(&a, curve->x[i]), y_at(&a, curve->y[i])};
        svg_curve(svg, points, curve->n, colours[curve->group % 4], dashes[curve->group / 4 % 3]);
    }
    int n = place_names(p, &a, names);
    for (int i = 0; i < n; i++) {
        const Curve *curve = names[i].curve;
        SvgText how = {.x = x0 + PANEL_WIDTH + 10, .y = names[i].y, .size = NAME_SIZE};
        how.colour = colours[curve->group % 4];
        double end = x_at(&a, curve->x[curve->n - 1]);
        if (end < x0 + PANEL_WIDTH - 1) svg_point(svg, end, y_at(&a, curve->y[curve->n - 1]), how.colour);
        svg_text(svg, &how, curve->name);
    }
}

int curves_write(const char *path, const char *title, const char *subtitle, const CurvePanel *panels, int n_panels,
                 char *err, size_t errlen) {
    Svg svg;
    int width = LEFT + n_panels * (PANEL_WIDTH + NAME_WIDTH) + (n_panels - 1) * GAP;
    int height = HEIGHT;
    for (int i = 0; i < n_panels; i++)
        height = height < panels[i].n_curves * NAME_STEP ? panels[i].n_curves * NAME_STEP : height;
    if (svg_open(&svg, path, width, TOP + height + 60, false, title, err, errlen)) return -1;
    svg_text(&svg, &(SvgText){.x = LEFT, .y = 36, .size = 19, .colour = SVG_INK, .bold = true}, title);
    svg_text(&svg, &(SvgText){.x = LEFT, .y = 58, .size = 13, .colour = SVG_GREY}, subtitle);
    for (int i = 0; i < n_panels; i++)
        put_panel(&svg, &panels[i], LEFT + i * (PANEL_WIDTH + NAME_WIDTH + GAP), TOP + height);
    return svg_finish(&svg, err, errlen);
}
