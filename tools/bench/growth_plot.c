// growth_plot: see growth_plot.h.
#include "growth_plot.h"

#include "svg.h"

#include <math.h>
#include <stdio.h>

enum {
    LEFT = 64,
    PANEL_WIDTH = 276,
    PANEL_GAP = 88, // to the next: for the last values and its axis
    N_PANELS = 3,
    RIGHT = 44,
    WIDTH = LEFT + N_PANELS * PANEL_WIDTH + (N_PANELS - 1) * PANEL_GAP + RIGHT,
    HEIGHT = 492,
    TOP = 172,
    BOTTOM = 424,
    LABEL_GAP = 15,
    TITLE_SIZE = 19,
    PANEL_TITLE_SIZE = 14,
    TEXT_SIZE = 13,
    MAX_SERIES = GROWTH_MAX_BATCHES // or one and its bound
};

static const SvgColour batch_colours[GROWTH_MAX_BATCHES] = {SVG_ORANGE, SVG_BLUE, SVG_GREEN, SVG_INK};

typedef struct {
    const char *label, *dash; // dash NULL: a solid line with points
    SvgColour colour;
    const double *y;
} Series;

typedef struct {
    const Svg *svg;
    const GrowthPlot *plot;
    double x0;     // left edge
    double lo, hi; // y axis
    bool log;
} Panel;

static double x_at(const Panel *p, int i) {
    const double *c = p->plot->context;
    int n = p->plot->n;
    double share = n > 1 ? log2(c[i] / c[0]) / log2(c[n - 1] / c[0]) : 0.5;
    return p->x0 + 14 + share * (PANEL_WIDTH - 28);
}

static double y_at(const Panel *p, double v) {
    double share = p->log ? log(v / p->lo) / log(p->hi / p->lo) : v / p->hi;
    return BOTTOM - share * (BOTTOM - TOP);
}

// 950, 1.2k, 64K: context lengths in units of 1024, speeds in thousands.
static const char *short_number(char *s, size_t n, double v, double most) { // most: of the axis
    if (v > 0 && most >= 10000) snprintf(s, n, "%.3gk", v * 1e-3);
    else if (v >= 100) snprintf(s, n, "%.0f", v);
    else snprintf(s, n, "%.3g", v);
    return s;
}

static const char *short_context(char *s, size_t n, double v) {
    if (v >= 1024 && fmod(v, 1024) == 0) snprintf(s, n, "%.0fK", v / 1024);
    else snprintf(s, n, "%.0f", v);
    return s;
}

// 1, 2, 2.5 or 5 times a power of ten: about `count` steps up to max.
static double nice_step(double max, int count) {
    double rough = max / count, power = pow(10, floor(log10(rough)));
    const double steps[] = {1, 2, 2.5, 5, 10};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if (steps[i] * power >= rough) return steps[i] * power;
    }
    return 10 * power;
}

static void choose_axis(Panel *p, const Series *series, int n_series) {
    double min = INFINITY, max = 0, max_first = 0;
    for (int s = 0; s < n_series; s++) {
        for (int i = 0; i < p->plot->n; i++) {
            min = fmin(min, series[s].y[i]);
            max = fmax(max, series[s].y[i]);
            if (s == 0) max_first = max;
        }
    }
    if (!(max > 0)) max = 1;
    p->log = min > 0 && max > 3 * max_first; // a line far above would flatten the first
    if (p->log) {
        p->lo = pow(10, floor(log10(min)));
        p->hi = pow(10, ceil(log10(max)));
    } else {
        double step = nice_step(max * 1.08, 5);
        p->lo = 0;
        p->hi = ceil(max * 1.08 / step) * step;
    }
}

static void put_label(const Panel *p, double x, double y, SvgAnchor anchor, SvgColour c, const char *text) {
    svg_text(p->svg, &(SvgText){.x = x, .y = y, .size = TEXT_SIZE, .anchor = anchor, .colour = c}, text);
}

static void put_y_tick(const Panel *p, double v) {
    char number[32];
    double y = y_at(p, v);
    svg_line(p->svg, p->x0, y, p->x0 + PANEL_WIDTH, y, v > p->lo ? SVG_RULE : SVG_INK);
    put_label(p, p->x0 - 8, y + 4, SVG_END, SVG_GREY, short_number(number, sizeof number, v, p->hi));
}

static bool is_alone(const GrowthPlot *p) {
    return p->n_batches == 1 && p->batches->n_texts == 1;
}

static void put_axes(const Panel *p) {
    const char *label = is_alone(p->plot) ? "context, tokens" : "context of each text, tokens";
    double step = nice_step(p->hi, 5);
    if (p->log) {
        for (double power = p->lo; power < p->hi * 1.001; power *= 10) put_y_tick(p, power);
    } else {
        for (int i = 0; i * step < p->hi * 1.001; i++) put_y_tick(p, i * step);
    }
    int every = (p->plot->n + 6) / 7;
    for (int i = 0; i < p->plot->n; i++) {
        char number[32];
        double x = x_at(p, i);
        svg_line(p->svg, x, BOTTOM, x, BOTTOM + 5, SVG_INK);
        bool crowded = i < p->plot->n - 1 && x_at(p, p->plot->n - 1) - x < 34;
        if (crowded || (p->plot->n - 1 - i) % every) continue;
        put_label(p, x, BOTTOM + 20, SVG_MIDDLE, SVG_GREY, short_context(number, sizeof number, p->plot->context[i]));
    }
    put_label(p, p->x0 + PANEL_WIDTH / 2.0, BOTTOM + 42, SVG_MIDDLE, SVG_INK, label);
}

static void put_value(const Panel *p, const Series *s, int i, double x, double y) {
    char number[32];
    SvgText how = {.x = x, .y = y, .size = TEXT_SIZE, .colour = s->colour, .bold = true, .halo = true};
    svg_text(p->svg, &how, short_number(number, sizeof number, s->y[i], s->y[i]));
}

// The last values in the margin: the first series' at its height, the others as near to theirs as the space between
// them allows.
static void put_last_values(const Panel *p, const Series *series, int n_series) {
    int last = p->plot->n - 1, by_height[MAX_SERIES], own = 0;
    double at[MAX_SERIES];
    for (int s = 0; s < n_series; s++) {
        int place = s;
        for (; place > 0 && series[by_height[place - 1]].y[last] < series[s].y[last]; place--)
            by_height[place] = by_height[place - 1];
        by_height[place] = s;
    }
    for (int i = 0; i < n_series; i++) {
        at[i] = y_at(p, series[by_height[i]].y[last]) + 4;
        if (!by_height[i]) own = i;
    }
    for (int i = own - 1; i >= 0; i--) at[i] = fmin(at[i], at[i + 1] - LABEL_GAP);
    for (int i = own + 1; i < n_series; i++) at[i] = fmax(at[i], at[i - 1] + LABEL_GAP);
    for (int i = 0; i < n_series; i++) put_value(p, &series[by_height[i]], last, x_at(p, last) + 11, at[i]);
}

// The first value beside its point, away from the line.
static void put_values(const Panel *p, const Series *series, int n_series) {
    const double *y = series[0].y;
    double first = y_at(p, y[0]), below = first + 32 < BOTTOM ? 22 : -11;
    if (p->plot->n > 1) put_value(p, &series[0], 0, x_at(p, 0) - 6, first + (y[1] > y[0] ? below : -11));
    put_last_values(p, series, n_series);
}

static void put_series(const Panel *p, const Series *s) {
    SvgPoint points[GROWTH_MAX_POINTS] = {0};
    int n = p->plot->n;
    for (int i = 0; i < n; i++) points[i] = (SvgPoint){x_at(p, i), y_at(p, s->y[i])};
    svg_curve(p->svg, points, n, s->colour, s->dash);
    for (int i = 0; i < n && !s->dash; i++) svg_point(p->svg, points[i].x, points[i].y, s->colour);
}

static void put_legend(const Panel *p, const Series *series, int n_series) {
    double x = p->x0;
    for (int s = 0; s < n_series; s++) {
        const SvgPoint stroke[2] = {{x, TOP - 22}, {x + 26, TOP - 22}};
        svg_curve(p->svg, stroke, 2, series[s].colour, series[s].dash);
        put_label(p, x + 33, TOP - 18, SVG_START, SVG_INK, series[s].label);
        x += 33 + svg_text_width(series[s].label, TEXT_SIZE) + 14;
    }
}

static void put_panel(const Svg *svg, const GrowthPlot *plot, int place, const char *title, const Series *series,
                      int n_series) {
    Panel p = {.svg = svg, .plot = plot, .x0 = LEFT + place * (PANEL_WIDTH + PANEL_GAP)};
    choose_axis(&p, series, n_series);
    SvgText how = {.x = p.x0, .y = TOP - 44, .size = PANEL_TITLE_SIZE, .colour = SVG_INK, .bold = true};
    svg_text(svg, &how, title);
    put_axes(&p);
    put_legend(&p, series, n_series);
    for (int s = n_series - 1; s >= 0; s--) put_series(&p, &series[s]); // the measured one on top
    put_values(&p, series, n_series);
}

// Bytes of all batches in the largest unit of which there is one. Returns its name.
static const char *scale_bytes(const GrowthPlot *p, double scaled[GROWTH_MAX_BATCHES][GROWTH_MAX_POINTS]) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    double most = 0, unit = 0x1p10;
    int u = 0;
    for (int s = 0; s < p->n_batches; s++) {
        for (int i = 0; i < p->n; i++) most = fmax(most, p->batches[s].held[i]);
    }
    for (; u < 3 && most >= unit * 0x1p10; u++) unit *= 0x1p10;
    for (int s = 0; s < p->n_batches; s++) {
        for (int i = 0; i < p->n; i++) scaled[s][i] = p->batches[s].held[i] / unit;
    }
    return units[u];
}

// Decode and memory of each number of texts.
static void put_batches(const Svg *svg, const GrowthPlot *p, const char *unit,
                        double held[GROWTH_MAX_BATCHES][GROWTH_MAX_POINTS]) {
    char labels[GROWTH_MAX_BATCHES][24], title[96];
    Series decode[GROWTH_MAX_BATCHES], memory[GROWTH_MAX_BATCHES];
    for (int s = 0; s < p->n_batches; s++) {
        int n = p->batches[s].n_texts;
        const char *unit_of_n = n == 1 ? " text" : " texts";
        snprintf(labels[s], sizeof labels[s], "%d%s", n, s > 0 && p->n_batches > 3 ? "" : unit_of_n);
        decode[s] = (Series){labels[s], NULL, batch_colours[s], p->batches[s].decode};
        memory[s] = (Series){labels[s], NULL, batch_colours[s], held[s]};
    }
    put_panel(svg, p, 1, "Decode of all texts, tokens per second", decode, p->n_batches);
    snprintf(title, sizeof title, "Memory of all texts (%s), %s", p->held_by, unit);
    put_panel(svg, p, 2, title, memory, p->n_batches);
}

// Decode of one text, beside what memory allows.
static void put_one(const Svg *svg, const GrowthPlot *p, const char *unit, const double *held) {
    char title[64];
    const Series decode[] = {{"measured", NULL, SVG_ORANGE, p->batches->decode},
                             {"bound by bandwidth", "7 5", SVG_GREY, p->batches->bound}};
    const Series memory[] = {{p->held_by, NULL, SVG_GREEN, held}};
    put_panel(svg, p, 1, "Decode, tokens per second", decode, p->bound_known ? 2 : 1);
    snprintf(title, sizeof title, "Memory of the session, %s", unit);
    put_panel(svg, p, 2, title, memory, 1);
}

int growth_plot_write(const char *path, const GrowthPlot *p, char *err, size_t errlen) {
    Svg svg;
    double held[GROWTH_MAX_BATCHES][GROWTH_MAX_POINTS];
    if (svg_open(&svg, path, WIDTH, HEIGHT, false, p->title, err, errlen)) return -1;
    svg_text(&svg, &(SvgText){.x = LEFT, .y = 36, .size = TITLE_SIZE, .colour = SVG_INK, .bold = true}, p->title);
    svg_text(&svg, &(SvgText){.x = LEFT, .y = 58, .size = TEXT_SIZE, .colour = SVG_GREY}, p->shape);
    svg_text(&svg, &(SvgText){.x = LEFT, .y = 77, .size = TEXT_SIZE, .colour = SVG_GREY}, p->machine);
    const char *unit = scale_bytes(p, held);
    bool alone = is_alone(p);
    const Series prefill[] = {{alone ? "measured" : "1 text", NULL, alone ? SVG_BLUE : SVG_INK, p->prefill}};
    put_panel(&svg, p, 0, "Prefill, tokens per second", prefill, 1);
    if (alone) put_one(&svg, p, unit, held[0]);
    else put_batches(&svg, p, unit, held);
    return svg_finish(&svg, err, errlen);
}
