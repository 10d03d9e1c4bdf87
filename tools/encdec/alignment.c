// alignment: see alignment.h.
//
// The layout is computed in pixels from the widths of the labels; a surface draws its boxes and texts, either as SVG
// elements or into a picture.
#include "alignment.h"

#include "file.h"
#include "outfile.h"
#include "picture.h"
#include "utf8.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum {
    WIDTH = 900, // of the drawing, about; pixels
    MARGIN = 24,
    LABEL_GAP = 7,   // between labels and cells
    PANEL_GAP = 26,  // between panels
    TITLE_GAP = 12,  // below a title
    TITLE_SIZE = 15, // font sizes
    SMALL_TITLE_SIZE = 13,
    LABEL_SIZE = 16,
    LEGEND_SIZE = 12,
    SMALL_LABEL_SIZE = 10,
    MAX_CELL = 46,
    MIN_CELL = 15, // of the large panel
    MIN_SMALL_CELL = 4,
    ENOUGH_SMALL_CELL = 8, // the drawing grows downward to reach it
    LABELLED_CELL = 12,    // a smaller cell has no label
    MAX_ACROSS = 16,       // small panels in a row
    LEGEND_STEPS = 60,
    LEGEND_STEP = 2, // pixels
    LEGEND_HEIGHT = 10,
    LABEL_BYTES = 64
};

typedef uint8_t Colour[3];

static const Colour paper = {255, 255, 255}, ink = {31, 41, 51}, grey = {95, 107, 118}, line = {222, 227, 232};

typedef struct {
    FILE *svg; // one of the two, the other is NULL
    Picture *png;
} Surface;

static void draw_box(const Surface *s, int x, int y, int width, int height, const Colour c) {
    if (s->png) picture_fill(s->png, x, y, width, height, c);
    else {
        fprintf(s->svg, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#%02x%02x%02x\"/>\n", x, y, width,
                height, c[0], c[1], c[2]);
    }
}

// The next code point; U+FFFD for a byte that begins no valid character.
static uint32_t next_point(const char **text) {
    uint32_t point;
    *text += utf8_decode(*text, strnlen(*text, 4), &point);
    return point;
}

// What XML 1.0 (section 2.2) cannot hold becomes U+FFFD.
static void put_text(FILE *f, const char *text) {
    while (*text) {
        const char *start = text;
        uint32_t c = next_point(&text);
        if (c == '&') fputs("&amp;", f);
        else if (c == '<') fputs("&lt;", f);
        else if (c == '>') fputs("&gt;", f);
        else if (c == '"') fputs("&quot;", f);
        else if (c < ' ' || c == 0x7f || (c >= 0xfffd && c <= 0xffff)) fputs("\xef\xbf\xbd", f);
        else fwrite(start, 1, (size_t)(text - start), f);
    }
}

// What a PNG shows: each character outside ASCII as its code point, "U+0259".
static const char *ascii_text(char *to, const char *text) { // to: LABEL_BYTES
    int n = 0;
    while (*text && n < LABEL_BYTES - 1) {
        uint32_t c = next_point(&text);
        bool ascii = c >= ' ' && c < 0x7f;
        n += snprintf(to + n, (size_t)(LABEL_BYTES - n), ascii ? "%c" : "U+%04X", (int)c);
    }
    if (n == 0) to[0] = 0;
    return to;
}

static int font_scale(int size) {
    return size <= SMALL_TITLE_SIZE ? 1 : 2;
}

static int text_width(const Surface *s, const char *text, int size) {
    char ascii[LABEL_BYTES];
    if (s->png) return picture_text_width(ascii_text(ascii, text), font_scale(size));
    int n = 0;
    while (*text) n += next_point(&text) > 0;
    return n * size * 6 / 10; // of a common font
}

typedef enum { START, MIDDLE, END } Anchor;

// y: the middle of the letters. upward: the line runs upward from (x, y), x being its middle.
static void draw_text(const Surface *s, int x, int y, int size, Anchor anchor, bool upward, const Colour c,
                      const char *text) {
    char ascii[LABEL_BYTES];
    if (s->png) {
        int scale = font_scale(size), half = (7 * scale + 1) / 2, width = text_width(s, text, size);
        int left = anchor == MIDDLE ? x - width / 2 : x;
        if (anchor == END) left = x - width + scale;
        ascii_text(ascii, text);
        if (upward) picture_text(s->png, x - half, y, scale, true, c, ascii);
        else picture_text(s->png, left, y - half, scale, false, c, ascii);
        return;
    }
    static const char *const anchors[] = {"start", "middle", "end"};
    int down = (size * 35 + 50) / 100; // from the middle to the base line
    fprintf(s->svg, "<text x=\"%d\" y=\"%d\" font-size=\"%d\" text-anchor=\"%s\" fill=\"#%02x%02x%02x\"",
            upward ? x + down : x, upward ? y : y + down, size, anchors[anchor], c[0], c[1], c[2]);
    if (upward) fprintf(s->svg, " transform=\"rotate(-90 %d %d)\"", x + down, y);
    fputs(">", s->svg);
    put_text(s->svg, text);
    fputs("</text>\n", s->svg);
}

// How one kind of panel is drawn; all lengths in pixels.
typedef struct {
    int cell;                   // side of a square
    int title_size, label_size; // fonts; label_size 0: no labels
    bool upward;                // labels of the columns are rotated
    int left, top;              // from the panel's corner to its first cell
    int width, height;
} Panel;

typedef struct {
    Panel large, small;
    int across;        // small panels in a row
    int width, height; // of the drawing
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

// The largest cells of small panels, `across` in a row, that leave all of them within width x height; 0: none.
static int fit_cells(const Surface *s, const Alignment *a, int across, int most, int width, int height) {
    int down = (a->n_maps - 2 + across) / across;
    for (int cell = most; cell >= MIN_SMALL_CELL; cell--) {
        Panel p = panel_of(s, a, cell, false);
        if (across * (p.width + PANEL_GAP) <= width && down * (p.height + PANEL_GAP) - PANEL_GAP <= height) return cell;
    }
    return 0;
}

// Chooses the number of small panels in a row for the largest cells beside the large panel; with many maps, the grid
// may extend below it.
static void choose_grid(Layout *l, const Surface *s, const Alignment *a) {
    int n = a->n_maps - 1, room = WIDTH - 2 * MARGIN - l->large.width, best = 0;
    int most = clamp(l->large.cell * 2 / 3, MIN_SMALL_CELL, MAX_CELL);
    for (int height = l->large.height, k = 0; best < ENOUGH_SMALL_CELL && k < 10; height += height / 4, k++) {
        for (int across = 1; across <= n && across <= MAX_ACROSS; across++) {
            int cell = fit_cells(s, a, across, most, room, height);
            if (cell <= best) continue;
            best = cell;
            l->across = across;
        }
    }
    l->small = panel_of(s, a, best ? best : MIN_SMALL_CELL, false);
    if (!best) l->across = clamp(room / (l->small.width + PANEL_GAP), 1, n);
}

static Layout layout_of(const Surface *s, const Alignment *a) {
    Layout l = {0};
    int large = a->n_maps > 1 ? WIDTH * 9 / 20 : WIDTH * 3 / 4; // for the large panel's cells
    int cell = clamp(large / (a->n_in > a->n_out ? a->n_in : a->n_out), MIN_CELL, MAX_CELL);
    l.large = panel_of(s, a, cell, true);
    int width = l.large.width, height = l.large.height + PANEL_GAP + LEGEND_HEIGHT;
    if (a->n_maps > 1) {
        choose_grid(&l, s, a);
        int down = (a->n_maps - 2 + l.across) / l.across;
        int beside = down * (l.small.height + PANEL_GAP) - PANEL_GAP;
        width += l.across * (l.small.width + PANEL_GAP);
        if (beside > height) height = beside;
    }
    int legend = 180 + 2 * text_width(s, "0", LEGEND_SIZE) + text_width(s, "attention weight", LEGEND_SIZE);
    l.width = 2 * MARGIN + (width > legend ? width : legend);
    l.height = 2 * MARGIN + height;
    return l;
}

// White to dark blue, in even steps of lightness.
static void shade(Colour c, float v) {
    static const Colour stops[] = {{255, 255, 255}, {163, 200, 229}, {72, 136, 193}, {24, 85, 147}, {8, 40, 92}};
    int last = (int)(sizeof stops / sizeof *stops) - 1;
    float at = fminf(fmaxf(v, 0), 1) * (float)last;
    int i = at >= (float)last ? last - 1 : (int)at;
    for (int k = 0; k < 3; k++) {
        c[k] = (uint8_t)((float)stops[i][k] + (at - (float)i) * (float)(stops[i + 1][k] - stops[i][k]) + 0.5f);
    }
}

static void draw_labels(const Surface *s, const Alignment *a, const Panel *p, int x, int y) { // the first cell's corner
    for (int i = 0; i < a->n_in; i++) {
        int middle = x + i * p->cell + p->cell / 2, up = p->upward ? 0 : (p->label_size + 1) / 2;
        draw_text(s, middle, y - LABEL_GAP - up, p->label_size, p->upward ? START : MIDDLE, p->upward, ink, a->in[i]);
    }
    for (int o = 0; o < a->n_out; o++) {
        draw_text(s, x - LABEL_GAP, y + o * p->cell + p->cell / 2, p->label_size, END, false, ink, a->out[o]);
    }
}

static void draw_panel(const Surface *s, const Alignment *a, const Panel *p, const AlignmentMap *map, int x, int y) {
    int width = a->n_in * p->cell, height = a->n_out * p->cell;
    draw_text(s, x + p->left, y + p->title_size / 2, p->title_size, START, false, ink, map->title);
    x += p->left;
    y += p->top;
    if (p->label_size) draw_labels(s, a, p, x, y);
    for (int i = 0; i < a->n_out * a->n_in; i++) {
        Colour c;
        shade(c, map->weights[i]);
        if (!memcmp(c, paper, sizeof c)) continue;
        draw_box(s, x + i % a->n_in * p->cell, y + i / a->n_in * p->cell, p->cell, p->cell, c);
    }
    for (int i = 0; i <= a->n_in; i++) draw_box(s, x + i * p->cell, y, 1, height + 1, line);
    for (int o = 0; o <= a->n_out; o++) draw_box(s, x, y + o * p->cell, width + 1, 1, line);
}

static void draw_legend(const Surface *s, int x, int y) {
    int middle = y + LEGEND_HEIGHT / 2, digit = text_width(s, "0", LEGEND_SIZE);
    draw_text(s, x, middle, LEGEND_SIZE, START, false, grey, "attention weight");
    x += text_width(s, "attention weight", LEGEND_SIZE) + 12;
    draw_text(s, x, middle, LEGEND_SIZE, START, false, grey, "0");
    x += digit + 6;
    for (int i = 0; i < LEGEND_STEPS; i++) {
        Colour c;
        shade(c, (float)i / (LEGEND_STEPS - 1));
        draw_box(s, x + i * LEGEND_STEP, y, LEGEND_STEP, LEGEND_HEIGHT, c);
    }
    draw_box(s, x, y, LEGEND_STEPS * LEGEND_STEP, 1, line);
    draw_box(s, x, y + LEGEND_HEIGHT - 1, LEGEND_STEPS * LEGEND_STEP, 1, line);
    draw_box(s, x, y, 1, LEGEND_HEIGHT, line);
    draw_text(s, x + LEGEND_STEPS * LEGEND_STEP + 6, middle, LEGEND_SIZE, START, false, grey, "1");
}

static void draw(const Surface *s, const Alignment *a, const Layout *l) {
    draw_box(s, 0, 0, l->width, l->height, paper);
    draw_panel(s, a, &l->large, &a->maps[0], MARGIN, MARGIN);
    for (int m = 1; m < a->n_maps; m++) {
        int col = (m - 1) % l->across, row = (m - 1) / l->across;
        int x = MARGIN + l->large.width + PANEL_GAP + col * (l->small.width + PANEL_GAP);
        draw_panel(s, a, &l->small, &a->maps[m], x, MARGIN + row * (l->small.height + PANEL_GAP));
    }
    draw_legend(s, MARGIN + l->large.left, MARGIN + l->large.height + PANEL_GAP);
}

static int write_png(const char *path, const Alignment *a, char *err, size_t errlen) {
    Picture picture = {0};
    Surface s = {.png = &picture};
    Layout l = layout_of(&s, a);
    if (picture_new(&picture, l.width, l.height, 3, err, errlen)) return -1;
    draw(&s, a, &l);
    int rc = picture_write_png(&picture, path, err, errlen);
    picture_free(&picture);
    return rc;
}

static int write_svg(const char *path, const Alignment *a, char *err, size_t errlen) {
    OutFile out;
    if (outfile_open(&out, path, err, errlen)) return -1;
    Surface s = {.svg = out.file};
    Layout l = layout_of(&s, a);
    fprintf(s.svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
            "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\" "
            "shape-rendering=\"crispEdges\">\n",
            l.width, l.height, l.width, l.height);
    draw(&s, a, &l);
    fputs("</svg>\n", s.svg);
    return outfile_finish(&out, err, errlen);
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
