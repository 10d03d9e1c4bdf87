// picture: see picture.h.
#include "picture.h"

#include "outfile.h"
#include "settings.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Thread_local bool resize_out_of_bounds; // the resizer's own checks failed

#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image_write.h>

// The resizer's own checks, without the exit. Those of a sum of weights ("total") are too narrow for a triangle at 2/3
// of the size; it divides by the sum right after.
static void resizer_check(bool good, const char *what) {
    if (!good && strncmp(what, "total", 5) != 0) resize_out_of_bounds = true;
}

#define STBIR_ASSERT(x) resizer_check((x) != 0, #x)
#define STB_IMAGE_RESIZE_IMPLEMENTATION
#include <stb/stb_image_resize.h>

#include <stb/stb_easy_font.h>

// ---- pictures

static int clamp(int v, int least, int most) {
    if (v < least) return least;
    return v > most ? most : v;
}

void picture_free(Picture *p) {
    free(p->pixels);
    *p = (Picture){0};
}

int picture_new(Picture *p, int width, int height, int channels, char *err, size_t errlen) {
    *p = (Picture){0};
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE || (int64_t)width * height > MAX_PIXELS) {
        return fail(err, errlen, "a picture of %d x %d pixels: expected sides of 1 to %d and at most %d pixels", width,
                    height, MAX_SIDE, MAX_PIXELS);
    }
    p->pixels = calloc((size_t)width * height, (size_t)channels);
    if (!p->pixels) return fail(err, errlen, "out of memory for a picture of %d x %d pixels", width, height);
    p->width = width;
    p->height = height;
    p->channels = channels;
    return 0;
}

// ---- resizing and cropping

// in -> out, of the same channels, along one axis (the other size is equal). stb_image_resize lays zeros around the
// picture; with an opaque alpha channel beside the colours it divides by the weight that fell inside, which is what PIL
// does at an edge.
static int resize_axis(uint8_t *out, int width, int height, const uint8_t *in, int in_width, int in_height,
                       int channels, stbir_filter filter) {
    size_t n_in = (size_t)in_width * in_height, n_out = (size_t)width * height;
    int n = channels + 1;
    uint8_t *padded = malloc(n_in * n), *result = malloc(n_out * n);
    bool ok = padded && result;
    resize_out_of_bounds = false;
    if (ok) {
        for (size_t i = 0; i < n_in; i++) {
            memcpy(padded + i * n, in + i * channels, (size_t)channels);
            padded[i * n + channels] = 255;
        }
        ok = stbir_resize_uint8_generic(padded, in_width, in_height, 0, result, width, height, 0, n, channels, 0,
                                        STBIR_EDGE_ZERO, filter, STBIR_COLORSPACE_LINEAR, NULL);
        n_out = ok ? n_out : 0;
        for (size_t i = 0; i < n_out; i++) memcpy(out + i * channels, result + i * n, (size_t)channels);
    }
    free(padded);
    free(result);
    return ok && !resize_out_of_bounds ? 0 : -1;
}

// PIL accumulates its steps in double precision; a centre between two pixels is rounded alike only by the same sums.
static void resize_nearest(Picture *out, const Picture *in) {
    int n = in->channels;
    double step_x = (double)in->width / out->width, step_y = (double)in->height / out->height, at_y = step_y / 2;
    for (int y = 0; y < out->height; y++, at_y += step_y) {
        double at_x = step_x / 2;
        for (int x = 0; x < out->width; x++, at_x += step_x) {
            int from_y = clamp((int)at_y, 0, in->height - 1), from_x = clamp((int)at_x, 0, in->width - 1);
            memcpy(out->pixels + ((size_t)y * out->width + x) * n,
                   in->pixels + ((size_t)from_y * in->width + from_x) * n, (size_t)n);
        }
    }
}

// Along x and then along y, rounding to 8 bits in between as PIL does; an axis of the same size is left alone.
static int resize_smooth(Picture *out, const Picture *in, stbir_filter filter, char *err, size_t errlen) {
    Picture wide = {0};
    if (picture_new(&wide, out->width, in->height, in->channels, err, errlen)) return -1;
    int rc = 0, n = in->channels;
    if (in->width == out->width) memcpy(wide.pixels, in->pixels, (size_t)in->width * in->height * n);
    else rc = resize_axis(wide.pixels, wide.width, wide.height, in->pixels, in->width, in->height, n, filter);
    if (in->height == out->height) memcpy(out->pixels, wide.pixels, (size_t)out->width * out->height * n);
    else rc |= resize_axis(out->pixels, out->width, out->height, wide.pixels, wide.width, wide.height, n, filter);
    picture_free(&wide);
    if (!rc) return 0;
    return fail(err, errlen, "cannot resize a picture of %d x %d to %d x %d: out of memory or range", in->width,
                in->height, out->width, out->height);
}

static int check_resample(Resample r, const char *path, char *err, size_t errlen) {
    if (r == RESAMPLE_NEAREST || r == RESAMPLE_BILINEAR || r == RESAMPLE_BICUBIC) return 0;
    static const char *const names[] = {[RESAMPLE_LANCZOS] = "Lanczos", [4] = "box", [5] = "Hamming"};
    bool known = r == RESAMPLE_LANCZOS || r == 4 || r == 5;
    return fail(err, errlen, "%s: resample: expected 0 (nearest), 2 (bilinear) or 3 (bicubic), found %d (%s)", path,
                (int)r, known ? names[r] : "unknown");
}

int picture_resize(Picture *out, const Picture *in, int width, int height, Resample r, char *err, size_t errlen) {
    *out = (Picture){0};
    if (check_resample(r, "a picture", err, errlen)) return -1;
    if (picture_new(out, width, height, in->channels, err, errlen)) return -1;
    if (r == RESAMPLE_NEAREST) {
        resize_nearest(out, in);
        return 0;
    }
    stbir_filter filter = r == RESAMPLE_BILINEAR ? STBIR_FILTER_TRIANGLE : STBIR_FILTER_CATMULLROM;
    int rc = resize_smooth(out, in, filter, err, errlen);
    if (rc) picture_free(out);
    return rc;
}

int picture_crop(Picture *out, const Picture *in, int width, int height, char *err, size_t errlen) {
    *out = (Picture){0};
    if (width > in->width || height > in->height) {
        return fail(err, errlen, "cannot crop a picture: expected at least %d x %d pixels, found %d x %d", width,
                    height, in->width, in->height);
    }
    if (picture_new(out, width, height, in->channels, err, errlen)) return -1;
    int left = (in->width - width) / 2, top = (in->height - height) / 2;
    size_t row = (size_t)width * in->channels;
    for (int y = 0; y < height; y++) {
        memcpy(out->pixels + y * row, in->pixels + ((size_t)(top + y) * in->width + left) * in->channels, row);
    }
    return 0;
}

// ---- writing and drawing

typedef struct {
    FILE *f;
    bool failed;
} Writer;

static void writer_write(void *user, void *data, int n) {
    Writer *w = user;
    if (n < 0 || fwrite(data, 1, (size_t)n, w->f) != (size_t)n) w->failed = true;
}

int picture_write_png(const Picture *p, const char *path, char *err, size_t errlen) {
    OutFile out;
    if (outfile_open(&out, path, err, errlen)) return -1;
    Writer w = {.f = out.file};
    errno = 0;
    bool ok = stbi_write_png_to_func(writer_write, &w, p->width, p->height, p->channels, p->pixels, 0) && !w.failed;
    if (ok) return outfile_finish(&out, err, errlen);
    fail(err, errlen, "%s: cannot write a PNG: %s", path, errno ? strerror(errno) : "out of memory");
    outfile_abandon(&out);
    return -1;
}

void picture_fill(Picture *p, int x, int y, int width, int height, const uint8_t *colour) {
    int right = clamp(x + width, 0, p->width), bottom = clamp(y + height, 0, p->height);
    for (int row = clamp(y, 0, p->height); row < bottom; row++) {
        for (int col = clamp(x, 0, p->width); col < right; col++) {
            memcpy(p->pixels + ((size_t)row * p->width + col) * p->channels, colour, (size_t)p->channels);
        }
    }
}

typedef struct {
    float x, y, z;
    uint8_t colour[4];
} FontVertex; // what stb_easy_font writes, four to a box

enum { MAX_TEXT = 256, BOXES_PER_LETTER = 16 };

static void font_text(char *to, const char *text) { // to: MAX_TEXT bytes
    size_t n = strnlen(text, MAX_TEXT - 1);
    for (size_t i = 0; i < n; i++) to[i] = text[i] < ' ' || text[i] > '~' ? '?' : text[i];
    to[n] = 0;
}

int picture_text_width(const char *text, int scale) {
    char line[MAX_TEXT];
    font_text(line, text);
    return stb_easy_font_width(line) * scale;
}

void picture_text(Picture *p, int x, int y, int scale, bool upward, const uint8_t *colour, const char *text) {
    char line[MAX_TEXT], letter[2] = "";
    font_text(line, text);
    int at = 0; // unscaled, along the line
    for (const char *c = line; *c; c++) {
        FontVertex v[4 * BOXES_PER_LETTER];
        letter[0] = *c;
        int n = stb_easy_font_print((float)at, 0, letter, NULL, v, sizeof v);
        for (int i = 0; i < n; i++) {
            const FontVertex *a = v + 4 * i, *b = a + 2; // opposite corners
            int along = (int)a->x * scale, across = (int)a->y * scale;
            int length = (int)(b->x - a->x) * scale, depth = (int)(b->y - a->y) * scale;
            if (upward) picture_fill(p, x + across, y - along - length, depth, length, colour);
            else picture_fill(p, x + along, y + across, length, depth, colour);
        }
        at += stb_easy_font_width(letter);
    }
}

// ---- preprocessor_config.json

static bool is_deit(Settings *s) {
    static const char *const names[] = {"ViTImageProcessor",  "ViTImageProcessorFast",  "ViTFeatureExtractor",
                                        "DeiTImageProcessor", "DeiTImageProcessorFast", "DeiTFeatureExtractor"};
    const char *key = settings_has(s, "image_processor_type") ? "image_processor_type" : "feature_extractor_type";
    const char *type = settings_string(s, key, names[0]);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!strcmp(type, names[i])) return i >= 3;
    }
    settings_fail(s, key, "expected a processor of ViT or DeiT, found another");
    return false;
}

// An integer (a square), or an object of height and width.
static void read_size(Settings *s, const char *key, int fallback, int *width, int *height) {
    enum { MAX_SIZE = 1 << 13 };
    if (!settings_has(s, key) || json_is_integer(json_object_get(s->object, key))) {
        *width = *height = settings_int(s, key, 1, MAX_SIZE, fallback);
        return;
    }
    Settings inner = settings_object(s, key);
    *height = settings_int(&inner, "height", 1, MAX_SIZE, 0);
    *width = settings_int(&inner, "width", 1, MAX_SIZE, 0);
}

// As read_size, or the shortest edge alone.
static void read_resize(Preprocess *p, Settings *s, int fallback) {
    Settings inner = {0};
    if (json_is_object(json_object_get(s->object, "size"))) inner = settings_object(s, "size");
    bool edge = inner.object && !settings_has(&inner, "height") && !settings_has(&inner, "width");
    if (!edge) {
        read_size(s, "size", fallback, &p->resize_width, &p->resize_height);
        return;
    }
    if (settings_has(&inner, "longest_edge")) settings_fail(&inner, "longest_edge", "not supported");
    p->shortest_edge = settings_int(&inner, "shortest_edge", 1, 1 << 13, 0);
}

// image_mean or image_std: a number for each channel, or one for all.
static void read_channels(Settings *s, const char *key, int channels, double least, float *values) {
    const json_t *v = json_object_get(s->object, key);
    double x[MAX_CHANNELS] = {0.5, 0.5, 0.5};
    bool single = json_is_number(v) || (json_is_array(v) && json_array_size(v) == 1);
    if (json_is_number(v)) x[0] = json_number_value(v);
    else settings_numbers(s, key, single ? 1 : channels, x);
    for (int c = 0; c < channels; c++) {
        double value = x[single ? 0 : c];
        if (!(value >= least && value <= 1e6)) {
            settings_fail(s, key, "expected numbers from %g to 1e6, found %g", least, value);
        }
        values[c] = (float)value;
    }
}

// The last step must result in size x size.
static void check_result(const Preprocess *p, Settings *s) {
    bool resized = p->resize && !p->shortest_edge;
    int least_width = resized ? p->resize_width : p->shortest_edge; // after resizing
    int least_height = resized ? p->resize_height : p->shortest_edge;
    int width = p->resize ? least_width : p->size, height = p->resize ? least_height : p->size;
    if (p->crop) {
        width = p->crop_width;
        height = p->crop_height;
    }
    const char *key = p->crop ? "crop_size" : "size";
    if (width != p->size || height != p->size) {
        settings_fail(s, key, "expected the model's image size, %d x %d, found %d x %d", p->size, p->size, width,
                      height);
    }
    if (p->resize && (width > least_width || height > least_height)) {
        settings_fail(s, key, "expected at most the %d x %d that the picture is resized to, found %d x %d", least_width,
                      least_height, width, height);
    }
}

static void read_steps(Preprocess *p, Settings *s) {
    bool deit = is_deit(s);
    if (settings_bool(s, "do_convert_rgb", false) && p->channels != 3) {
        settings_fail(s, "do_convert_rgb", "expected false for a model of %d channels, found true", p->channels);
    }
    p->resize = settings_bool(s, "do_resize", true);
    if (p->resize) read_resize(p, s, deit ? 256 : p->size);
    p->resample = (Resample)settings_int(s, "resample", 0, 5, deit ? RESAMPLE_BICUBIC : RESAMPLE_BILINEAR);
    if (p->resize && !s->failed) s->failed = check_resample(p->resample, s->path, s->err, s->errlen) != 0;
    p->crop = settings_bool(s, "do_center_crop", deit);
    if (p->crop) read_size(s, "crop_size", deit ? 224 : p->size, &p->crop_width, &p->crop_height);
    p->rescale = settings_bool(s, "do_rescale", true);
    p->rescale_factor = settings_number(s, "rescale_factor", 1e-6, 1e6, 1.0 / 255);
    p->normalize = settings_bool(s, "do_normalize", true);
    read_channels(s, "image_mean", p->channels, -1e6, p->mean);
    read_channels(s, "image_std", p->channels, 1e-6, p->std);
    check_result(p, s);
}

int preprocess_load(Preprocess *p, const char *folder, int image_size, int channels, char *err, size_t errlen) {
    *p = (Preprocess){0};
    if (channels != 1 && channels != 3) {
        return fail(err, errlen, "%s: channels: expected 1 or 3, found %d", folder, channels);
    }
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/preprocessor_config.json", folder);
    if (n < 0 || n >= (int)sizeof path) return fail(err, errlen, "%.64s...: the path is too long", folder);
    Settings s;
    bool absent = access(path, F_OK) && errno == ENOENT;
    if (absent ? settings_parse(&s, path, "{}", 2, err, errlen) : settings_read(&s, path, err, errlen)) return -1;
    Preprocess steps = {.assumed = absent, .size = image_size, .channels = channels};
    read_steps(&steps, &s);
    int rc = s.failed ? -1 : 0;
    settings_free(&s);
    if (!rc) *p = steps;
    return rc;
}

static int apply_resize(const Preprocess *p, Picture *out, const Picture *in, char *err, size_t errlen) {
    int64_t width = p->resize_width, height = p->resize_height, edge = p->shortest_edge;
    if (edge) {
        bool tall = in->width <= in->height;
        width = tall ? edge : edge * in->width / in->height;
        height = tall ? edge * in->height / in->width : edge;
    }
    if (width > MAX_SIDE || height > MAX_SIDE) {
        return fail(err, errlen, "a picture of %d x %d: expected sides of at most %d when it is resized, found %lld",
                    in->width, in->height, MAX_SIDE, (long long)(width > height ? width : height));
    }
    return picture_resize(out, in, (int)width, (int)height, p->resample, err, errlen);
}

int preprocess_apply(const Preprocess *p, const Picture *in, float *pixels, char *err, size_t errlen) {
    if (in->channels != p->channels) {
        return fail(err, errlen, "a picture: expected %d channels, found %d", p->channels, in->channels);
    }
    Picture resized = {0}, cropped = {0};
    const Picture *at = in;
    int rc = 0;
    if (p->resize) {
        rc = apply_resize(p, &resized, at, err, errlen);
        at = &resized;
    }
    if (!rc && p->crop) {
        rc = picture_crop(&cropped, at, p->crop_width, p->crop_height, err, errlen);
        at = &cropped;
    }
    if (!rc && (at->width != p->size || at->height != p->size)) {
        rc = fail(err, errlen, "a picture: expected %d x %d pixels for the model, found %d x %d", p->size, p->size,
                  at->width, at->height);
    }
    size_t n = (size_t)p->size * p->size, n_values = rc ? 0 : n * p->channels;
    for (size_t i = 0; i < n_values; i++) {
        size_t c = i / n;
        double v = at->pixels[i % n * p->channels + c];
        if (p->rescale) v *= p->rescale_factor;
        if (p->normalize) v = (v - p->mean[c]) / p->std[c];
        pixels[i] = (float)v;
    }
    picture_free(&resized);
    picture_free(&cropped);
    return rc;
}
