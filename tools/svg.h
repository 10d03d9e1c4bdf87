// svg: SVG files that look right on light and on dark pages. Called by growth_plot and alignment.
//
// Owns the file, its colours, and how texts and shapes are written. Shapes name their colour by what it is for; a style
// sheet in the file has each for light pages and, under prefers-color-scheme, for dark ones. Refuses nothing; errors of
// the file are found by svg_finish at the latest.
#pragma once
#include "outfile.h"

#include <stdint.h>

enum { SVG_HEATS = 64 };

typedef enum {
    SVG_PAPER,
    SVG_INK,
    SVG_GREY, // of what matters less
    SVG_RULE, // of a grid
    SVG_BLUE,
    SVG_ORANGE,
    SVG_GREEN,
    SVG_HEAT // + svg_heat(v): the colour of a weight
} SvgColour;

typedef enum { SVG_START, SVG_MIDDLE, SVG_END } SvgAnchor;

typedef struct {
    OutFile out;
} Svg;

typedef struct {
    double x, y; // pixels, from the left and from the top
} SvgPoint;

typedef struct {
    double x, y; // of the base line
    int size;    // of the font
    SvgAnchor anchor;
    SvgColour colour;
    bool bold, upward; // upward: the line runs upward from (x, y)
    bool halo;         // of paper around the letters, which may stand on lines
} SvgText;

// With its paper and a title for readers of the page; heats: with the colours of weights. 0, or -1 with a line in err.
int svg_open(Svg *s, const char *path, int width, int height, bool heats, const char *title, char *err, size_t errlen);
int svg_finish(Svg *s, char *err, size_t errlen);

// text: UTF-8; bytes that are none, and what XML cannot hold, become U+FFFD.
void svg_text(const Svg *s, const SvgText *how, const char *text);
int svg_text_width(const char *text, int size); // pixels in a common font, about
void svg_box(const Svg *s, double x, double y, double width, double height, SvgColour c);
void svg_line(const Svg *s, double x1, double y1, double x2, double y2, SvgColour c);
// Through points[n]; dash: lengths of strokes and gaps such as "7 5", NULL for a solid line.
void svg_curve(const Svg *s, const SvgPoint *points, int n, SvgColour c, const char *dash);
void svg_point(const Svg *s, double x, double y, SvgColour c);

// The step of a weight from 0 (paper) to 1, 0 to SVG_HEATS - 1; and its colour on a light page.
int svg_heat(float v);
void svg_heat_rgb(int step, uint8_t rgb[3]);
void svg_rgb(SvgColour c, uint8_t rgb[3]); // of any colour, on a light page

// The next code point of UTF-8 text; U+FFFD for a byte that begins no valid character.
uint32_t svg_next_point(const char **text);
