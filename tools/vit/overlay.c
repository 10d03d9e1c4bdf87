// overlay: see overlay.h.
#include "overlay.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    MIN_SIDE = 224, // pixels of a panel's shorter side
    TINY_SIDE = 64, // a picture below this is enlarged pixel by pixel, so that its pixels stay visible
    MAX_PANELS_A_ROW = 8,
    MARGIN = 20,
    GAP = 16,          // between panels
    TITLE_HEIGHT = 36, // under a panel
    TITLE_GAP = 11,    // from the panel to the capitals
    TEXT_SCALE = 2,
    MAX_MAPS = 256,
    MAX_GRID = 1024 // rows, cols
};

static const uint8_t paper[3] = {255, 255, 255}, ink[3] = {31, 41, 51};

// Dark violet to pale yellow; CIE lightness rises evenly (6, 22, 38, 54, 73, 91), so that more weight always looks
// brighter, in grey and to colour-blind eyes as well.
static const uint8_t heat[][3] = {{20, 11, 52},  {84, 22, 108},  {158, 42, 99},
                                  {220, 83, 60}, {250, 157, 30}, {250, 231, 140}};

enum { N_HEAT = sizeof heat / sizeof *heat };

static float heat_at(float v, int channel) { // v: 0 to 1
    float at = v * (N_HEAT - 1);
    int i = at >= N_HEAT - 2 ? N_HEAT - 2 : (int)at;
    return heat[i][channel] + (at - (float)i) * (float)(heat[i + 1][channel] - heat[i][channel]);
}

// The picture in RGB at the panel's size.
static int enlarge(Picture *out, const Picture *in, char *err, size_t errlen) {
    int side = in->width < in->height ? in->width : in->height, width = in->width, height = in->height;
    Resample how = RESAMPLE_BICUBIC;
    if (side < TINY_SIDE) {
        int times = (MIN_SIDE + side - 1) / side;
        how = RESAMPLE_NEAREST;
        width *= times;
        height *= times;
    } else if (side < MIN_SIDE) {
        width = (int)((int64_t)width * MIN_SIDE / side);
        height = (int)((int64_t)height * MIN_SIDE / side);
    }
    Picture sized;
    if (picture_resize(&sized, in, width, height, how, err, errlen)) return -1;
    if (sized.channels == 3) {
        *out = sized;
        return 0;
    }
    int rc = picture_new(out, width, height, 3, err, errlen);
    size_t n = rc ? 0 : (size_t)width * height * 3;
    for (size_t i = 0; i < n; i++) out->pixels[i] = sized.pixels[i / 3];
    picture_free(&sized);
    return rc;
}

// The weights as grey levels of their maximum, smooth at the panel's size.
static int map_picture(Picture *out, const AttentionMap *map, int rows, int cols, int width, int height, char *err,
                       size_t errlen) {
    Picture grid;
    if (picture_new(&grid, cols, rows, 1, err, errlen)) return -1;
    float most = 0;
    for (int i = 0; i < rows * cols; i++) most = fmaxf(most, map->weights[i]);
    for (int i = 0; i < rows * cols; i++) {
        grid.pixels[i] = (uint8_t)(most > 0 ? map->weights[i] / most * 255 + 0.5f : 0);
    }
    int rc = picture_resize(out, &grid, width, height, RESAMPLE_BICUBIC, err, errlen);
    picture_free(&grid);
    return rc;
}

// The picture's brightness shows where the weight is low, the colour of the map where it is high.
static void blend(Picture *panel, const Picture *map) {
    for (size_t i = 0; i < (size_t)map->width * map->height; i++) {
        uint8_t *rgb = panel->pixels + 3 * i;
        float v = (float)map->pixels[i] / 255;
        float light = 0.299f * rgb[0] + 0.587f * rgb[1] + 0.114f * rgb[2];
        float opacity = 0.45f + 0.3f * v;
        for (int c = 0; c < 3; c++) {
            float under = 0.75f * light + 0.25f * rgb[c];
            rgb[c] = (uint8_t)((1 - opacity) * under * (0.6f + 0.4f * v) + opacity * heat_at(v, c) + 0.5f);
        }
    }
}

static void paste(Picture *to, const Picture *from, int x, int y) {
    for (int row = 0; row < from->height; row++) {
        memcpy(to->pixels + ((size_t)(y + row) * to->width + x) * 3, from->pixels + (size_t)row * from->width * 3,
               (size_t)from->width * 3);
    }
}

// Centred under the panel, cut to its width.
static void put_title(Picture *sheet, const char *title, int x, int y, int width) {
    char text[64];
    size_t n = strnlen(title, sizeof text - 1);
    memcpy(text, title, n);
    text[n] = 0;
    while (n > 0 && picture_text_width(text, TEXT_SCALE) > width) text[--n] = 0;
    picture_text(sheet, x + (width - picture_text_width(text, TEXT_SCALE)) / 2, y, TEXT_SCALE, false, ink, text);
}

// One panel (map NULL: the picture alone) in its place on the sheet.
static int put_panel(Picture *sheet, const Picture *picture, const AttentionMap *map, int place, int rows, int cols,
                     char *err, size_t errlen) {
    Picture panel, over = {0};
    if (picture_new(&panel, picture->width, picture->height, 3, err, errlen)) return -1;
    memcpy(panel.pixels, picture->pixels, (size_t)panel.width * panel.height * 3);
    int rc = map ? map_picture(&over, map, rows, cols, panel.width, panel.height, err, errlen) : 0;
    if (!rc) {
        int x = MARGIN + place % MAX_PANELS_A_ROW * (panel.width + GAP);
        int y = MARGIN + place / MAX_PANELS_A_ROW * (panel.height + TITLE_HEIGHT);
        if (map) blend(&panel, &over);
        paste(sheet, &panel, x, y);
        put_title(sheet, map ? map->title : "input", x, y + panel.height + TITLE_GAP, panel.width);
    }
    picture_free(&over);
    picture_free(&panel);
    return rc;
}

// The caption at the left, cut before the scale: from no weight to the most that each map has.
static void put_footer(Picture *sheet, const char *caption) {
    enum { SCALE_WIDTH = 128, SCALE_HEIGHT = 14, SCALE_GAP = 8 };
    static const char least[] = "0", most[] = "most";
    int y = sheet->height - MARGIN - SCALE_HEIGHT, right = sheet->width - MARGIN - picture_text_width(most, TEXT_SCALE);
    int left = right - SCALE_GAP - SCALE_WIDTH, start = left - SCALE_GAP - picture_text_width(least, TEXT_SCALE);
    picture_text(sheet, start, y, TEXT_SCALE, false, ink, least);
    picture_text(sheet, right, y, TEXT_SCALE, false, ink, most);
    for (int x = 0; x < SCALE_WIDTH; x++) {
        uint8_t colour[3];
        for (int c = 0; c < 3; c++) colour[c] = (uint8_t)(heat_at((float)x / (SCALE_WIDTH - 1), c) + 0.5f);
        picture_fill(sheet, left + x, y, 1, SCALE_HEIGHT, colour);
    }
    char text[128];
    int n = snprintf(text, sizeof text, "%s", caption);
    if (n >= (int)sizeof text) n = sizeof text - 1;
    while (n > 0 && picture_text_width(text, TEXT_SCALE) > start - SCALE_GAP - MARGIN) text[--n] = 0;
    picture_text(sheet, MARGIN, y, TEXT_SCALE, false, ink, text);
}

static int check_maps(const char *path, const AttentionMap *maps, int n_maps, int rows, int cols, char *err,
                      size_t errlen) {
    if (n_maps < 1 || n_maps > MAX_MAPS || rows < 1 || cols < 1 || rows > MAX_GRID || cols > MAX_GRID) {
        return fail(err, errlen, "%s: expected 1 to %d maps of 1 to %d rows and columns, found %d of %d x %d", path,
                    MAX_MAPS, MAX_GRID, n_maps, rows, cols);
    }
    for (int m = 0; m < n_maps; m++) {
        for (int i = 0; i < rows * cols; i++) {
            float w = maps[m].weights[i];
            if (isfinite(w) && w >= 0) continue;
            return fail(err, errlen, "%s: weight at row %d, column %d of map %d: expected 0 or more, found %g", path,
                        i / cols, i % cols, m, w);
        }
    }
    return 0;
}

int overlay_write(const char *path, const Picture *picture, const Overlay *o, char *err, size_t errlen) {
    Picture seen, sheet = {0};
    if (check_maps(path, o->maps, o->n_maps, o->rows, o->cols, err, errlen)) return -1;
    if (enlarge(&seen, picture, err, errlen)) return -1;
    int n = o->n_maps + 1, across = n < MAX_PANELS_A_ROW ? n : MAX_PANELS_A_ROW;
    int down = (n + MAX_PANELS_A_ROW - 1) / MAX_PANELS_A_ROW;
    int64_t width = 2 * MARGIN + (int64_t)across * (seen.width + GAP) - GAP;
    int64_t height = 2 * MARGIN + (int64_t)down * (seen.height + TITLE_HEIGHT) - (MARGIN - TITLE_GAP);
    if (o->caption) height += TITLE_HEIGHT;
    int rc = width <= MAX_SIDE && height <= MAX_SIDE
                 ? picture_new(&sheet, (int)width, (int)height, 3, err, errlen)
                 : fail(err, errlen, "%s: expected a drawing of at most %d pixels a side, found %lld x %lld", path,
                        MAX_SIDE, (long long)width, (long long)height);
    if (!rc) picture_fill(&sheet, 0, 0, sheet.width, sheet.height, paper);
    for (int i = 0; !rc && i < n; i++) {
        rc = put_panel(&sheet, &seen, i ? &o->maps[i - 1] : NULL, i, o->rows, o->cols, err, errlen);
    }
    if (!rc && o->caption) put_footer(&sheet, o->caption);
    if (!rc) rc = picture_write_png(&sheet, path, err, errlen);
    picture_free(&sheet);
    picture_free(&seen);
    return rc;
}
