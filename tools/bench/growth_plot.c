// growth_plot: see growth_plot.h.
#include "growth_plot.h"

#include "outfile.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum {
    WIDTH = 1040,
    HEIGHT = 480,
    TOP = 148,
    BOTTOM = 408,
    PANEL_WIDTH = 396,
    LEFT = 72,
    RIGHT_PANEL = 582,
    LABEL_GAP = 15
};

#define BLUE "#0b62a4"
#define ORANGE "#c8500a"
#define GREY "#5f6b76"
#define INK "#1f2933"

typedef struct {
    const char *label, *colour, *dash; // dash "": a solid line with points
    const double *y;
} Series;

typedef struct {
    FILE *f;
    const GrowthPlot *plot;
    double x0;     // left edge
    double lo, hi; // y axis
    bool log;
} Panel;

static void put_text(FILE *f, const char *text) {
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '&') fputs("&amp;", f);
        else if (c == '<') fputs("&lt;", f);
        else if (c == '>') fputs("&gt;", f);
        else if (c == '"') fputs("&quot;", f);
        else fputc(c >= ' ' && c < 0x7f ? c : '?', f); // neither control characters nor bytes that may not be UTF-8
    }
}

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
    p->log = min > 0 && max > 3 * max_first; // a bound far above would flatten the measured curve
    if (p->log) {
        p->lo = pow(10, floor(log10(min)));
        p->hi = pow(10, ceil(log10(max)));
    } else {
        double step = nice_step(max * 1.08, 5);
        p->lo = 0;
        p->hi = ceil(max * 1.08 / step) * step;
    }
}

static void put_y_tick(const Panel *p, double v) {
    char number[32];
    double y = y_at(p, v);
    fprintf(p->f, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", p->x0, y,
            p->x0 + PANEL_WIDTH, y, v > p->lo ? "#e4e8ec" : INK);
    fprintf(p->f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\" fill=\"" GREY "\">%s</text>\n", p->x0 - 8, y + 4,
            short_number(number, sizeof number, v, p->hi));
}

static void put_axes(const Panel *p) {
    double step = nice_step(p->hi, 5);
    if (p->log) {
        for (double power = p->lo; power < p->hi * 1.001; power *= 10) put_y_tick(p, power);
    } else {
        for (int i = 0; i * step < p->hi * 1.001; i++) put_y_tick(p, i * step);
    }
    int every = (p->plot->n + 9) / 10;
    for (int i = 0; i < p->plot->n; i++) {
        char number[32];
        double x = x_at(p, i);
        fprintf(p->f, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"" INK "\"/>\n", x, BOTTOM, x,
                BOTTOM + 5);
        bool crowded = i < p->plot->n - 1 && x_at(p, p->plot->n - 1) - x < 38;
        if (crowded || (p->plot->n - 1 - i) % every) continue;
        fprintf(p->f, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" fill=\"" GREY "\">%s</text>\n", x, BOTTOM + 20,
                short_context(number, sizeof number, p->plot->context[i]));
    }
    fprintf(p->f, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" fill=\"" INK "\">context, tokens</text>\n",
            p->x0 + PANEL_WIDTH / 2.0, BOTTOM + 42);
}

static void put_value(const Panel *p, const Series *s, int i, double x, double y) {
    char number[32];
    fprintf(p->f,
            "<text x=\"%.1f\" y=\"%.1f\" fill=\"%s\" font-weight=\"600\" stroke=\"#fff\" stroke-width=\"4\" "
            "paint-order=\"stroke\">%s</text>\n",
            x, y, s->colour, short_number(number, sizeof number, s->y[i], s->y[i]));
}

// The first value beside its point, away from the line; the last values in the margin, without overlap.
static void put_values(const Panel *p, const Series *series, int n_series) {
    int last = p->plot->n - 1;
    const double *y = series[0].y;
    if (last > 0) put_value(p, &series[0], 0, x_at(p, 0) - 6, y_at(p, y[0]) + (y[1] > y[0] ? 22 : -11));
    double own = y_at(p, y[last]) + 4, x = x_at(p, last) + 11;
    put_value(p, &series[0], last, x, own);
    if (n_series < 2) return;
    double other = y_at(p, series[1].y[last]) + 4;
    if (fabs(other - own) < LABEL_GAP) other = other <= own ? own - LABEL_GAP : own + LABEL_GAP;
    put_value(p, &series[1], last, x, other);
}

static void put_series(const Panel *p, const Series *s) {
    int n = p->plot->n;
    fprintf(p->f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2.5\" stroke-linejoin=\"round\" %s points=\"",
            s->colour, s->dash);
    for (int i = 0; i < n; i++) fprintf(p->f, "%s%.1f,%.1f", i ? " " : "", x_at(p, i), y_at(p, s->y[i]));
    fputs("\"/>\n", p->f);
    if (*s->dash) return;
    for (int i = 0; i < n; i++) {
        fprintf(p->f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\" stroke=\"#fff\" stroke-width=\"1.5\"/>\n",
                x_at(p, i), y_at(p, s->y[i]), s->colour);
    }
}

static void put_legend(const Panel *p, const Series *series, int n_series) {
    double x = p->x0;
    for (int s = 0; s < n_series; s++) {
        fprintf(p->f, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"%s\" stroke-width=\"2.5\" %s/>\n", x,
                TOP - 22, x + 26, TOP - 22, series[s].colour, series[s].dash);
        fprintf(p->f, "<text x=\"%.1f\" y=\"%d\" fill=\"" INK "\">%s</text>\n", x + 33, TOP - 18, series[s].label);
        x += 33 + 7.4 * (double)strlen(series[s].label) + 22;
    }
}

static void put_panel(FILE *f, const GrowthPlot *plot, double x0, const char *title, const Series *series,
                      int n_series) {
    Panel p = {.f = f, .plot = plot, .x0 = x0};
    choose_axis(&p, series, n_series);
    fprintf(f, "<text x=\"%.1f\" y=\"%d\" font-size=\"14\" font-weight=\"600\" fill=\"" INK "\">%s</text>\n", x0,
            TOP - 44, title);
    put_axes(&p);
    put_legend(&p, series, n_series);
    for (int s = n_series - 1; s >= 0; s--) put_series(&p, &series[s]); // the measured one on top
    put_values(&p, series, n_series);
}

int growth_plot_write(const char *path, const GrowthPlot *p, char *err, size_t errlen) {
    OutFile out;
    if (outfile_open(&out, path, err, errlen)) return -1;
    FILE *f = out.file;
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
            "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"13\">\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT);
    fprintf(f, "<rect width=\"%d\" height=\"%d\" fill=\"#ffffff\"/>\n", WIDTH, HEIGHT);
    fprintf(f, "<text x=\"%d\" y=\"36\" font-size=\"19\" font-weight=\"600\" fill=\"" INK "\">", LEFT);
    put_text(f, p->title);
    fprintf(f, "</text>\n<text x=\"%d\" y=\"60\" fill=\"" GREY "\">", LEFT);
    put_text(f, p->subtitle);
    fputs("</text>\n", f);

    const Series prefill[] = {{"measured", BLUE, "", p->prefill}};
    const Series decode[] = {{"measured", ORANGE, "", p->decode},
                             {"bound by memory bandwidth", GREY, "stroke-dasharray=\"7 5\"", p->bound}};
    put_panel(f, p, LEFT, "Prefill, tokens per second", prefill, 1);
    put_panel(f, p, RIGHT_PANEL, "Decode, tokens per second", decode, p->bound ? 2 : 1);
    fputs("</svg>\n", f);
    return outfile_finish(&out, err, errlen);
}
