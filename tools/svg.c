// svg: see svg.h.
#include "svg.h"

#include "utf8.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const char *name;
    uint8_t light[3], dark[3];
} Shade;

static const Shade shades[SVG_HEAT] = {
    [SVG_PAPER] = {"paper", {255, 255, 255}, {13, 17, 23}}, [SVG_INK] = {"ink", {31, 41, 51}, {230, 237, 243}},
    [SVG_GREY] = {"grey", {95, 107, 118}, {145, 152, 161}}, [SVG_RULE] = {"rule", {222, 227, 232}, {48, 54, 61}},
    [SVG_BLUE] = {"blue", {11, 98, 164}, {88, 166, 255}},   [SVG_ORANGE] = {"orange", {200, 80, 10}, {240, 136, 62}},
    [SVG_GREEN] = {"green", {26, 127, 55}, {63, 185, 80}},
};

// From paper to the strongest contrast with it, in about even steps of lightness.
enum { N_STOPS = 5 };
static const uint8_t light_heat[N_STOPS][3] = {
    {255, 255, 255}, {163, 200, 229}, {72, 136, 193}, {24, 85, 147}, {8, 40, 92}};
static const uint8_t dark_heat[N_STOPS][3] = {
    {13, 17, 23}, {18, 58, 104}, {34, 105, 172}, {97, 168, 235}, {214, 236, 255}};

static void mix(const uint8_t stops[N_STOPS][3], int step, uint8_t rgb[3]) {
    float at = (float)step / (SVG_HEATS - 1) * (N_STOPS - 1);
    int i = at >= N_STOPS - 2 ? N_STOPS - 2 : (int)at;
    for (int k = 0; k < 3; k++) {
        rgb[k] = (uint8_t)((float)stops[i][k] + (at - (float)i) * (float)(stops[i + 1][k] - stops[i][k]) + 0.5f);
    }
}

int svg_heat(float v) {
    return (int)lroundf(fminf(fmaxf(v, 0), 1) * (SVG_HEATS - 1));
}

void svg_heat_rgb(int step, uint8_t rgb[3]) {
    mix(light_heat, step, rgb);
}

void svg_rgb(SvgColour c, uint8_t rgb[3]) {
    if (c >= SVG_HEAT) svg_heat_rgb((int)c - SVG_HEAT, rgb);
    else memcpy(rgb, shades[c].light, 3);
}

// ---- text

uint32_t svg_next_point(const char **text) {
    uint32_t point;
    *text += utf8_decode(*text, strnlen(*text, 4), &point);
    return point;
}

// XML 1.0, section 2.2, says what it cannot hold.
static void put_text(FILE *f, const char *text) {
    while (*text) {
        const char *start = text;
        uint32_t c = svg_next_point(&text);
        if (c == '&') fputs("&amp;", f);
        else if (c == '<') fputs("&lt;", f);
        else if (c == '>') fputs("&gt;", f);
        else if (c == '"') fputs("&quot;", f);
        else if (c < ' ' || c == 0x7f || (c >= 0xfffd && c <= 0xffff)) fputs("\xef\xbf\xbd", f);
        else fwrite(start, 1, (size_t)(text - start), f);
    }
}

int svg_text_width(const char *text, int size) {
    int n = 0;
    while (*text) n += svg_next_point(&text) > 0;
    return n * size * 6 / 10;
}

// ---- the file

// fill-NAME, line-NAME of each colour, and h0 to h63 of the weights.
static void put_rules(FILE *f, bool heats, bool dark) {
    for (int c = 0; c < SVG_HEAT; c++) {
        const uint8_t *p = dark ? shades[c].dark : shades[c].light;
        fprintf(f, ".fill-%s{fill:#%02x%02x%02x}.line-%s{stroke:#%02x%02x%02x}\n", shades[c].name, p[0], p[1], p[2],
                shades[c].name, p[0], p[1], p[2]);
    }
    for (int i = 0; heats && i < SVG_HEATS; i++) {
        uint8_t p[3];
        mix(dark ? dark_heat : light_heat, i, p);
        fprintf(f, ".h%d{fill:#%02x%02x%02x}%s", i, p[0], p[1], p[2], i % 4 == 3 ? "\n" : "");
    }
}

int svg_open(Svg *s, const char *path, int width, int height, bool heats, const char *title, char *err, size_t errlen) {
    if (outfile_open(&s->out, path, err, errlen)) return -1;
    FILE *f = s->out.file;
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
            "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\">\n<title>",
            width, height, width, height);
    put_text(f, title);
    fputs("</title>\n<style>\nrect,line{shape-rendering:crispEdges}\npolyline{fill:none;stroke-width:2.5;"
          "stroke-linejoin:round}\ncircle{stroke-width:1.5}\n.halo{stroke-width:4;paint-order:stroke}\n",
          f);
    put_rules(f, heats, false);
    fputs("@media (prefers-color-scheme: dark){\n", f);
    put_rules(f, heats, true);
    fputs("}\n</style>\n", f);
    svg_box(s, 0, 0, width, height, SVG_PAPER);
    return 0;
}

int svg_finish(Svg *s, char *err, size_t errlen) {
    fputs("</svg>\n", s->out.file);
    return outfile_finish(&s->out, err, errlen);
}

// ---- shapes

void svg_text(const Svg *s, const SvgText *how, const char *text) {
    static const char *const anchors[] = {
        [SVG_START] = "", [SVG_MIDDLE] = " text-anchor=\"middle\"", [SVG_END] = " text-anchor=\"end\""};
    FILE *f = s->out.file;
    fprintf(f, "<text x=\"%.5g\" y=\"%.5g\" font-size=\"%d\"%s%s class=\"fill-%s%s\"", how->x, how->y, how->size,
            anchors[how->anchor], how->bold ? " font-weight=\"600\"" : "", shades[how->colour].name,
            how->halo ? " halo line-paper" : "");
    if (how->upward) fprintf(f, " transform=\"rotate(-90 %.5g %.5g)\"", how->x, how->y);
    fputs(">", f);
    put_text(f, text);
    fputs("</text>\n", f);
}

void svg_box(const Svg *s, double x, double y, double width, double height, SvgColour c) {
    FILE *f = s->out.file;
    fprintf(f, "<rect x=\"%.5g\" y=\"%.5g\" width=\"%.5g\" height=\"%.5g\" class=\"", x, y, width, height);
    if (c >= SVG_HEAT) fprintf(f, "h%d\"/>\n", (int)c - SVG_HEAT);
    else fprintf(f, "fill-%s\"/>\n", shades[c].name);
}

void svg_line(const Svg *s, double x1, double y1, double x2, double y2, SvgColour c) {
    fprintf(s->out.file, "<line x1=\"%.5g\" y1=\"%.5g\" x2=\"%.5g\" y2=\"%.5g\" class=\"line-%s\"/>\n", x1, y1, x2, y2,
            shades[c].name);
}

void svg_curve(const Svg *s, const SvgPoint *points, int n, SvgColour c, const char *dash) {
    FILE *f = s->out.file;
    fprintf(f, "<polyline class=\"line-%s\"", shades[c].name);
    if (dash) fprintf(f, " stroke-dasharray=\"%s\"", dash);
    fputs(" points=\"", f);
    for (int i = 0; i < n; i++) fprintf(f, "%s%.5g,%.5g", i ? " " : "", points[i].x, points[i].y);
    fputs("\"/>\n", f);
}

void svg_point(const Svg *s, double x, double y, SvgColour c) {
    fprintf(s->out.file, "<circle cx=\"%.5g\" cy=\"%.5g\" r=\"3.5\" class=\"fill-%s line-paper\"/>\n", x, y,
            shades[c].name);
}
