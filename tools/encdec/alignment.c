// alignment: see alignment.h.
//
// The layout is computed in pixels from the widths of the labels; a surface draws its boxes and texts, either as SVG
// elements or into a picture.
#include "alignment.h"

#include "file.h"
#include "picture.h"
#include "svg.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum {
    WIDTH = 900, // of the drawing, about; pixels
    HEIGHT = 900,
    MARGIN = 24,
    LABEL_GAP = 7,  // between labels and cells
    PANEL_GAP = 26, // between panels
    LINE_GAP = 8,   // between the lines above them
    TITLE_GAP = 12, // below a panel's title
    HEAD_SIZE = 19, // font sizes
    SUBTITLE_SIZE = 13,
    TITLE_SIZE = 15,
    SMALL_TITLE_SIZE = 13,
    LABEL_SIZE = 16,
    LEGEND_SIZE = 12,
    SMALL_LABEL_SIZE = 10,
    MAX_CELL = 46,
    MIN_CELL = 15, // of the large panel
    MIN_SMALL_CELL = 4,
    ENOUGH_SMALL_CELL = 6, // the drawing grows downward to reach it
    LABELLED_CELL = 12,    // a smaller cell has no label
    MOST_GROWTHS = 6,      // by a quarter
    MAX_ACROSS = 16,       // small panels in a row
    LEGEND_STEP = 2,       // pixels for a step of the colours
    LEGEND_HEIGHT = 10,
    LABEL_BYTES = 64,
    HEAD_BYTES = 192
};

typedef struct {
    const Svg *svg; // one of the two, the other is NULL
    Picture *png;
} Surface;

static void draw_box(const Surface *s, int x, int y, int width, int height, SvgColour c) {
    uint8_t rgb[3];
    svg_rgb(c, rgb);
    if (s->png) picture_fill(s->png, x, y, width, height, rgb);
    else svg_box(s->svg, x, y, width, height, c);
}

// What a PNG shows: each character outside ASCII as its code point, "U+0259".
static const char *ascii_text(char *to, int room, const char *text) {
    int n = 0;
    while (*text && n < room - 1) {
        uint32_t c = svg_next_point(&text);
        bool ascii = c >= ' ' && c < 0x7f;
        n += snprintf(to + n, (size_t)(room - n), ascii ? "%c" : "U+%04X", (int)c);
    }
    if (n == 0) to[0] = 0;
    return to;
}

static int font_scale(int size) {
    return size <= SMALL_TITLE_SIZE ? 1 : 2;
}

static int text_width(const Surface *s, const char *text, int size) {
    char ascii[HEAD_BYTES];
    if (s->png) return picture_text_width(ascii_text(ascii, sizeof ascii, text), font_scale(size));
    return svg_text_width(text, size);
}

// y: the middle of the letters. upward: the line runs upward from (x, y), x being its middle.
static void draw_text(const Surface *s, int x, int y, int size, SvgAnchor anchor, bool upward, SvgColour c,
                      const char *text) {
    if (s->png) {
        char ascii[HEAD_BYTES];
        uint8_t rgb[3];
        int scale = font_scale(size), half = (7 * scale + 1) / 2, width = text_width(s, text, size);
        int left = anchor == SVG_MIDDLE ? x - width / 2 : x;
        if (anchor == SVG_END) left = x - width + scale;
        ascii_text(ascii, sizeof ascii, text);
        svg_rgb(c, rgb);
        if (upward) picture_text(s->png, x - half, y, scale, true, rgb, ascii);
        else picture_text(s->png, left, y - half, scale, false, rgb, ascii);
        return;
    }
    int down = (size * 35 + 50) / 100; // from the middle to the base line
    SvgText how = {.x = upward ? x + down : x, .y = upward ? y : y + down, .size = size};
    how.anchor = anchor;
    how.colour = c;
    how.bold = size == HEAD_SIZE;
    how.upward = upward;
    svg_text(s->svg, &how, text);
}

// How one kind of panel is drawn; all lengths in pixels.
typedef struct {
    int cell;                   // side of a square
    int title_size, label_size; // fonts; label_size 0: no labels
    bool upward;                // labels of the columns are rotated
    int left, top;              // from the panel's corner to its first cell
    int width, height;
} Panel;

// A grid of equal tiles, each of a small panel; the large one takes the first `span` of each of the first `span` rows,
// the small ones follow beside and below it.
typedef struct {
    Panel large, small;
    int across, down, span;      // tiles
    int tile_width, tile_height; // with the gap to the next
    int top;                     // of the grid
    int width, height;           // of the drawing
} Layout;

static int widest(const Surface *s, const char *const *labels, int n, int size) {
    int most = 0;
    for (int i = 0; i < n; i++) {
        int width = text_width(s, labels[i], size);
        if (width > most) most = width;
    }
    return most;
}

static int clamp(int v, int least, int most) {
    if (v < least) return least;
    return v > most ? most : v;
}

static Panel panel_of(const Surface *s, const Alignment *a, int cell, bool large) {
    Panel p = {.cell = cell, .title_size = large ? TITLE_SIZE : SMALL_TITLE_SIZE};
    if (large) p.label_size = clamp(cell * 2 / 3, SMALL_LABEL_SIZE, LABEL_SIZE);
    else if (cell >= LABELLED_CELL) p.label_size = SMALL_LABEL_SIZE;
    p.top = p.title_size + TITLE_GAP;
    if (p.label_size) {
        int over = widest(s, a->in, a->n_in, p.label_size);
        p.upward = over > cell - 2;
        p.left = widest(s, a->out, a->n_out, p.label_size) + LABEL_GAP;
        p.top += (p.upward ? over : p.label_size) + LABEL_GAP;
    }
    p.width = a->n_in * cell + 1; // a grid line closes it
    int first = large ? 0 : 1, end = large ? 1 : a->n_maps;
    for (int m = first; m < end; m++) {
        int title = text_width(s, a->maps[m].title, p.title_size);
        if (title > p.width) p.width = title;
    }
    p.width += p.left;
    p.height = p.top + a->n_out * cell + 1;
    return p;
}

// The panel with the largest cells, up to `most`, that fits; false: none does.
static bool fit_panel(Panel *p, const Surface *s, const Alignment *a, bool large, int most, int width, int height) {
    for (int cell = most; cell >= (large ? MIN_CELL : MIN_SMALL_CELL); cell--) {
        *p = panel_of(s, a, cell, large);
        if (p->width <= width && p->height <= height) return true;
    }
    return false;
}

// Whether the panels fit into width x height when the large one spans `span` tiles each way.
static bool try_grid(Layout *l, const Surface *s, const Alignment *a, int across, int span, int width, int height) {
    int n = a->n_maps - 1, tiles = n + span * span, most = span > 1 ? MAX_CELL * 2 / 3 : MAX_CELL;
    *l = (Layout){.across = across, .down = (tiles + across - 1) / across, .span = span};
    int room_x = (width + PANEL_GAP) / across - PANEL_GAP, room_y = (height + PANEL_GAP) / l->down - PANEL_GAP;
    if (n && !fit_panel(&l->small, s, a, false, most, room_x, room_y)) return false;
    int tile_x = n ? l->small.width + PANEL_GAP : width, tile_y = n ? l->small.height + PANEL_GAP : height;
    if (!fit_panel(&l->large, s, a, true, MAX_CELL, span * tile_x - PANEL_GAP, span * tile_y - PANEL_GAP)) return false;
    l->tile_width = n ? tile_x : l->large.width + PANEL_GAP;
    l->tile_height = n ? tile_y : l->large.height + PANEL_GAP;
    return true;
}

// The grid in width x height with the best product of the cells' sides, the small ones' squared, and of the share of
// its tiles that are used; false: none fits.
static bool best_grid(Layout *best, const Surface *s, const Alignment *a, int width, int height) {
    int n = a->n_maps - 1, least = n > 1 ? 2 : 1;
    double most = 0;
    for (int across = least; across <= MAX_ACROSS && across <= n + least; across++) {
        for (int span = least; span <= across; span++) {
            Layout l;
            if (!try_grid(&l, s, a, across, span, width, height)) continue;
            double cells = (double)l.large.cell * (n ? l.small.cell * l.small.cell : 1);
            double value = cells * (n + span * span) / (l.across * l.down);
            if (value <= most) continue;
            most = value;
            *best = l;
        }
    }
    return most > 0;
}

// With many maps the drawing grows downward until the cells of the small panels can be told apart; with many symbols
// then to the right as well, until there is room at all.
static void choose_grid(Layout *l, const Surface *s, const Alignment *a) {
    int width = WIDTH - 2 * MARGIN, height = HEIGHT;
    for (int k = 0;; k++) {
        bool fits = best_grid(l, s, a, width, height);
        if (fits && (a->n_maps == 1 || l->small.cell >= ENOUGH_SMALL_CELL || k >= MOST_GROWTHS)) return;
        height += height / 4;
        if (k >= MOST_GROWTHS) width += width / 4;
    }
}

static int legend_width(const Surface *s) {
    return text_width(s, "attention weight", LEGEND_SIZE) + 2 * text_width(s, "0", LEGEND_SIZE) + 24 +
           SVG_HEATS * LEGEND_STEP;
}

static Layout layout_of(const Surface *s, const Alignment *a) {
    Layout l;
    choose_grid(&l, s, a);
    const int lines[] = {text_width(s, a->title, HEAD_SIZE), text_width(s, a->subtitle, SUBTITLE_SIZE),
                         legend_width(s)};
    int width = l.across * l.tile_width - PANEL_GAP;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) width = lines[i] > width ? lines[i] : width;
    l.top = MARGIN + HEAD_SIZE + LINE_GAP + SUBTITLE_SIZE + 2 * LINE_GAP + LEGEND_SIZE + PANEL_GAP;
    l.width = 2 * MARGIN + width;
    l.height = l.top + l.down * l.tile_height - PANEL_GAP + MARGIN;
    return l;
}

static void draw_labels(const Surface *s, const Alignment *a, const Panel *p, int x, int y) { // the first cell's corner
    for (int i = 0; i < a->n_in; i++) {
        int middle = x + i * p->cell + p->cell / 2, up = p->upward ? 0 : (p->label_size + 1) / 2;
        draw_text(s, middle, y - LABEL_GAP - up, p->label_size, p->upward ? SVG_START : SVG_MIDDLE, p->upward, SVG_INK,
                  a->in[i]);
    }
    for (int o = 0; o < a->n_out; o++) {
        draw_text(s, x - LABEL_GAP, y + o * p->cell + p->cell / 2, p->label_size, SVG_END, false, SVG_INK, a->out[o]);
    }
}

static void draw_panel(const Surface *s, const Alignment *a, const Panel *p, const AlignmentMap *map, int x, int y) {
    int width = a->n_in * p->cell, height = a->n_out * p->cell;
    draw_text(s, x + p->left, y + p->title_size / 2, p->title_size, SVG_START, false, SVG_INK, map->title);
    x += p->left;
    y += p->top;
    if (p->label_size) draw_labels(s, a, p, x, y);
    for (int i = 0; i < a->n_out * a->n_in; i++) {
        int step = svg_heat(map->weights[i]);
        if (!step) continue; // paper
        draw_box(s, x + i % a->n_in * p->cell, y + i / a->n_in * p->cell, p->cell, p->cell, SVG_HEAT + step);
    }
    for (int i = 0; i <= a->n_in; i++) draw_box(s, x + i * p->cell, y, 1, height + 1, SVG_RULE);
    for (int o = 0; o <= a->n_out; o++) draw_box(s, x, y + o * p->cell, width + 1, 1, SVG_RULE);
}

static void draw_legend(const Surface *s, int x, int y) {
    int middle = y + LEGEND_HEIGHT / 2, digit = text_width(s, "0", LEGEND_SIZE);
    draw_text(s, x, middle, LEGEND_SIZE, SVG_START, false, SVG_GREY, "attention weight");
    x += text_width(s, "attention weight", LEGEND_SIZE) + 12;
    draw_text(s, x, middle, LEGEND_SIZE, SVG_START, false, SVG_GREY, "0");
    x += digit + 6;
    for (int i = 0; i < SVG_HEATS; i++) draw_box(s, x + i * LEGEND_STEP, y, LEGEND_STEP, LEGEND_HEIGHT, SVG_HEAT + i);
    draw_box(s, x, y, SVG_HEATS * LEGEND_STEP, 1, SVG_RULE);
    draw_box(s, x, y + LEGEND_HEIGHT - 1, SVG_HEATS * LEGEND_STEP, 1, SVG_RULE);
    draw_box(s, x, y, 1, LEGEND_HEIGHT, SVG_RULE);
    draw_text(s, x + SVG_HEATS * LEGEND_STEP + 6, middle, LEGEND_SIZE, SVG_START, false, SVG_GREY, "1");
}

// The tile of small panel i: rows from the top, left to right, without the large panel's.
static int tile_of(const Layout *l, int i) {
    int beside = l->across - l->span;
    if (i < beside * l->span) return i / beside * l->across + l->span + i % beside;
    return i - beside * l->span + l->across * l->span;
}

static void draw(const Surface *s, const Alignment *a, const Layout *l) {
    int y = MARGIN;
    draw_text(s, MARGIN, y + HEAD_SIZE / 2, HEAD_SIZE, SVG_START, false, SVG_INK, a->title);
    y += HEAD_SIZE + LINE_GAP;
    draw_text(s, MARGIN, y + SUBTITLE_SIZE / 2, SUBTITLE_SIZE, SVG_START, false, SVG_GREY, a->subtitle);
    y += SUBTITLE_SIZE + 2 * LINE_GAP;
    draw_legend(s, MARGIN, y);
    draw_panel(s, a, &l->large, &a->maps[0], MARGIN, l->top);
    for (int i = 0; i < a->n_maps - 1; i++) {
        int tile = tile_of(l, i), col = tile % l->across, row = tile / l->across;
        draw_panel(s, a, &l->small, &a->maps[i + 1], MARGIN + col * l->tile_width, l->top + row * l->tile_height);
    }
}

static int write_png(const char *path, const Alignment *a, char *err, size_t errlen) {
    Picture picture = {0};
    Surface s = {.png = &picture};
    Layout l = layout_of(&s, a);
    if (picture_new(&picture, l.width, l.height, 3, err, errlen)) return -1;
    draw_box(&s, 0, 0, l.width, l.height, SVG_PAPER);
    draw(&s, a, &l);
    int rc = picture_write_png(&picture, path, err, errlen);
    picture_free(&picture);
    return rc;
}

static int write_svg(const char *path, const Alignment *a, char *err, size_t errlen) {
    Svg svg;
    Surface s = {.svg = &svg};
    Layout l = layout_of(&s, a);
    if (svg_open(&svg, path, l.width, l.height, true, a->title, err, errlen)) return -1;
    draw(&s, a, &l);
    return svg_finish(&svg, err, errlen);
}

static int check(const char *path, const Alignment *a, char *err, size_t errlen) {
    if (a->n_out < 1 || a->n_in < 1 || a->n_out > MAX_SYMBOLS || a->n_in > MAX_SYMBOLS || a->n_maps < 1 ||
        a->n_maps > MAX_ALIGNMENT_MAPS) {
        return fail(err, errlen, "%s: expected 1 to %d maps of 1 to %d symbols a side, found %d of %d x %d", path,
                    MAX_ALIGNMENT_MAPS, MAX_SYMBOLS, a->n_maps, a->n_out, a->n_in);
    }
    for (int m = 0; m < a->n_maps; m++) {
        for (int i = 0; i < a->n_out * a->n_in; i++) {
            float w = a->maps[m].weights[i];
            if (w >= 0 && w <= 1.001f) continue; // sums of floats may pass 1
            return fail(err, errlen, "%s: weight at row %d, column %d of map %d: expected 0 to 1, found %g", path,
                        i / a->n_in, i % a->n_in, m, w);
        }
    }
    return 0;
}

int alignment_write(const char *path, const Alignment *a, char *err, size_t errlen) {
    size_t n = strlen(path);
    const char *ending = n > 4 ? path + n - 4 : "";
    bool svg = !strcmp(ending, ".svg");
    if (!svg && strcmp(ending, ".png") != 0) {
        return fail(err, errlen, "%s: an alignment picture: expected a path that ends in .svg or .png", path);
    }
    if (check(path, a, err, errlen)) return -1;
    return svg ? write_svg(path, a, err, errlen) : write_png(path, a, err, errlen);
}
