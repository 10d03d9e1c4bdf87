// picture: see picture.h.
//
// stb_image 2.27 does not validate everything in a file; the checks here come first. The reader callbacks detect a
// truncated file (the decoder would continue with zeros), and every allocation is limited to what a picture of the
// header's size can need. Must be built with -fwrapv: the sums of a damaged JPEG overflow.
#include "picture.h"

#include "outfile.h"
#include "settings.h"

#include <libexif/exif-data.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEADER_ALLOCATION = 1 << 16 }; // the JPEG decoder's tables

static _Thread_local size_t allocation_limit = HEADER_ALLOCATION; // bytes, of one allocation of the decoder
static _Thread_local bool allocation_refused;                     // one was larger
static _Thread_local bool resize_out_of_bounds;                   // the resizer's own checks failed

// Zeroed: a JPEG may use tables that it never defined.
static void *bounded_malloc(size_t n) {
    if (n <= allocation_limit) return calloc(1, n ? n : 1);
    allocation_refused = true;
    return NULL;
}

static void *bounded_realloc(void *p, size_t n) {
    if (n <= allocation_limit) return realloc(p, n ? n : 1);
    allocation_refused = true;
    return NULL;
}

#define STBI_MALLOC(n) bounded_malloc(n)
#define STBI_REALLOC(p, n) bounded_realloc(p, n)
#define STBI_FREE(p) free(p)
#define STBI_MAX_DIMENSIONS MAX_SIDE
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_PSD
#define STBI_NO_TGA
#define STBI_NO_GIF
#define STBI_NO_HDR
#define STBI_NO_PIC
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>

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

// ---- reading

typedef struct {
    const File *file;
    size_t pos;
    bool past_end; // the decoder wanted more when nothing was left
} Reader;

static int reader_read(void *user, char *data, int n) {
    Reader *r = user;
    size_t left = r->file->size - r->pos, got = n < 0 ? 0 : (size_t)n;
    if (got > left) got = left;
    if (n > 0 && left == 0) r->past_end = true;
    memcpy(data, r->file->data + r->pos, got);
    r->pos += got;
    return (int)got;
}

static void reader_skip(void *user, int n) {
    Reader *r = user;
    size_t left = r->file->size - r->pos, step = n < 0 ? 0 : (size_t)n;
    if (step > left) r->past_end = true;
    r->pos += step < left ? step : left;
}

static int reader_eof(void *user) {
    const Reader *r = user;
    return r->pos >= r->file->size;
}

static const stbi_io_callbacks reader_calls = {reader_read, reader_skip, reader_eof};

static bool is_space(uint8_t c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

// The next number of a PPM's header, after white space and comments, and the one character behind it; -1: none up to
// 999,999 (stb_image's own arithmetic would wrap).
static int pnm_number(const File *f, size_t *pos) {
    while (*pos < f->size && (is_space(f->data[*pos]) || f->data[*pos] == '#')) {
        bool comment = f->data[*pos] == '#';
        while (comment && *pos < f->size && f->data[*pos] != '\n' && f->data[*pos] != '\r') ++*pos;
        if (!comment) ++*pos;
    }
    int value = -1;
    while (*pos < f->size && f->data[*pos] >= '0' && f->data[*pos] <= '9' && value < 100000) {
        value = (value < 0 ? 0 : value) * 10 + (f->data[(*pos)++] - '0');
    }
    if (*pos >= f->size || !is_space(f->data[*pos])) return -1;
    ++*pos;
    return value;
}

static int check_pnm(const File *f, char *err, size_t errlen) {
    size_t pos = 2;
    int width = pnm_number(f, &pos), height = pnm_number(f, &pos), most = pnm_number(f, &pos);
    if (width < 0 || height < 0 || most < 0) return fail(err, errlen, "%s: a PPM's header is damaged", f->path);
    if (most != 255) {
        return fail(err, errlen, "%s: largest value of a PPM: expected 255, found %d", f->path, most);
    }
    uint64_t want = (uint64_t)width * (uint64_t)height * (f->data[1] == '6' ? 3 : 1), found = f->size - pos;
    if (want <= found) return 0;
    return fail(err, errlen, "%s: a PPM of %d x %d: expected %llu bytes behind the header, found %llu", f->path, width,
                height, (unsigned long long)want, (unsigned long long)found);
}

// The Huffman tables of one segment of `length` bytes at pos (ITU-T T.81, B.2.4.2): each a byte, 16 counts, and as many
// values. A table of more than 256 would be written past stb_image's arrays. The decoder reads the last one to its end,
// whatever the segment's length says, and zeros behind the file's end.
static bool huffman_tables_fit(const File *f, size_t pos, size_t length) {
    for (size_t end = pos + length; pos < end;) {
        size_t n = 0;
        for (size_t i = pos + 1; i <= pos + 16 && i < f->size; i++) n += f->data[i];
        if (n > 256) return false;
        pos += 17 + n;
    }
    return true;
}

// The next marker segment of a JPEG at *pos or behind it: its marker, with *length the two bytes that hold the length
// and what they count; 0: the picture ends. 0xd8 opens the file; in coded data 0xff is followed by 0 or a restart
// marker (0xd0 to 0xd7); whatever else follows is the next marker, to the decoder as well.
static int jpeg_segment(const File *f, size_t *pos, size_t *length) {
    for (; *pos + 4 <= f->size; ++*pos) {
        const uint8_t *b = f->data + *pos;
        if (b[0] != 0xff || b[1] == 0xff || b[1] == 0 || (b[1] >= 0xd0 && b[1] <= 0xd8)) continue;
        *length = (size_t)b[2] << 8 | b[3];
        if (*length < 2) *length = 2;
        return b[1] == 0xd9 ? 0 : b[1];
    }
    return 0;
}

static int check_jpeg(const File *f, char *err, size_t errlen) {
    int marker;
    for (size_t pos = 0, length; (marker = jpeg_segment(f, &pos, &length)) != 0; pos += 2 + length) {
        if (marker == 0xc4 && !huffman_tables_fit(f, pos + 4, length - 2)) {
            return fail(err, errlen, "%s: at byte %zu: a JPEG's Huffman table: expected at most 256 values, found more",
                        f->path, pos);
        }
    }
    return 0;
}

// The size in the header, checked before anything is decoded, and the limit of one allocation that follows from it: 4
// channels, twice (the PNG decoder doubles its buffer when an interlaced picture outgrows the first guess), sides
// padded to a JPEG's largest block, and the file's own bytes, doubled likewise.
static int check_size(const File *f, char *err, size_t errlen) {
    Reader r = {.file = f};
    int width, height, channels;
    allocation_limit = HEADER_ALLOCATION;
    if (!stbi_info_from_callbacks(&reader_calls, &r, &width, &height, &channels)) {
        return fail(
            err, errlen,
            "%s: expected a PNG, JPEG, BMP or PPM picture, found none, or a header that is damaged or too large",
            f->path);
    }
    int64_t h = height < 0 ? -(int64_t)height : height; // a BMP stored from the top
    if (width < 1 || h < 1 || width > MAX_SIDE || h > MAX_SIDE || width * h > MAX_PIXELS) {
        return fail(err, errlen, "%s: expected sides of 1 to %d and at most %d pixels, found %d x %lld", f->path,
                    MAX_SIDE, MAX_PIXELS, width, (long long)h);
    }
    r = (Reader){.file = f};
    size_t sample = stbi_is_16_bit_from_callbacks(&reader_calls, &r) ? 2 : 1;
    allocation_limit += 8 * sample * ((size_t)width + 32) * ((size_t)h + 32) + 2 * f->size;
    return 0;
}

// [height][width][*channels] of 8 bits, to be freed; NULL with a line in err.
static uint8_t *decode(const File *f, int *width, int *height, int *channels, char *err, size_t errlen) {
    Reader r = {.file = f};
    allocation_refused = false;
    stbi__g_failure_reason = "damaged"; // some failures give no reason of their own
    uint8_t *pixels = stbi_load_from_callbacks(&reader_calls, &r, width, height, channels, 0);
    if (pixels && !r.past_end) return pixels;
    free(pixels);
    char reason[64];
    snprintf(reason, sizeof reason, "%s", stbi_failure_reason());
    for (char *c = reason; *c; c++) {
        if (*c < ' ' || *c > '~') *c = '?'; // it may quote the file
    }
    if (r.past_end) fail(err, errlen, "%s: the file ends before the picture does", f->path);
    else if (allocation_refused) fail(err, errlen, "%s: expands to more than a picture of its size can need", f->path);
    else fail(err, errlen, "%s: cannot decode the picture: %s", f->path, reason);
    return NULL;
}

static uint8_t over_white(uint8_t v, uint8_t alpha) {
    return (uint8_t)((v * alpha + 255 * (255 - alpha) + 127) / 255);
}

// One pixel of from_n channels (grey, grey + alpha, RGB, RGB + alpha) to n.
static void convert_pixel(uint8_t *to, int n, const uint8_t *from, int from_n) {
    uint8_t alpha = from_n % 2 ? 255 : from[from_n - 1], rgb[3];
    for (int c = 0; c < 3; c++) rgb[c] = over_white(from[from_n < 3 ? 0 : c], alpha);
    if (n == 3) memcpy(to, rgb, 3);
    else if (from_n < 3) to[0] = rgb[0];
    else to[0] = (uint8_t)((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16);
}

// ---- orientation

typedef struct {
    const uint8_t *data;
    size_t size;
} Bytes;

static const uint8_t exif_start[6] = "Exif\0"; // before the TIFF header; a PNG's chunk does without
enum { MAX_EXIF = 0xfff0 };                    // bytes that libexif reads, a little more than a JPEG's segment holds

static bool starts_exif(Bytes b) {
    return b.size >= sizeof exif_start && !memcmp(b.data, exif_start, sizeof exif_start);
}

// The first APP1 segment of that kind before the coded data; XMP has APP1 as well.
static Bytes exif_of_jpeg(const File *f) {
    int marker;
    for (size_t pos = 0, length; (marker = jpeg_segment(f, &pos, &length)) != 0; pos += 2 + length) {
        if (marker == 0xda || length > f->size - pos - 2) break;
        Bytes found = {f->data + pos + 4, length - 2};
        if (marker == 0xe1 && starts_exif(found)) return found;
    }
    return (Bytes){0};
}

// The eXIf chunk, which may stand behind the pixels.
static Bytes exif_of_png(const File *f) {
    for (size_t pos = 8, size; pos + 12 <= f->size; pos += 12 + size) {
        const uint8_t *b = f->data + pos;
        size = (size_t)b[0] << 24 | (size_t)b[1] << 16 | (size_t)b[2] << 8 | b[3];
        if (size > f->size - pos - 12 || !memcmp(b + 4, "IEND", 4)) break;
        if (!memcmp(b + 4, "eXIf", 4)) return (Bytes){b + 8, size};
    }
    return (Bytes){0};
}

// *orientation: 1 to 8; 1 where the file has none, or one that EXIF does not allow.
static int read_orientation(const File *f, int *orientation, char *err, size_t errlen) {
    *orientation = 1;
    bool png = f->size > 8 && !memcmp(f->data, "\x89PNG\r\n\x1a\n", 8);
    Bytes found = png ? exif_of_png(f) : f->data[0] == 0xff ? exif_of_jpeg(f) : (Bytes){0};
    if (!found.size) return 0;
    size_t before = starts_exif(found) ? 0 : sizeof exif_start, size = found.size;
    if (size > MAX_EXIF - before) size = MAX_EXIF - before;
    uint8_t *block = malloc(before + size);
    ExifData *exif = exif_data_new();
    if (block && exif) {
        memcpy(block, exif_start, before);
        memcpy(block + before, found.data, size);
        exif_data_unset_option(exif, EXIF_DATA_OPTION_FOLLOW_SPECIFICATION); // it would correct what is wrong
        exif_data_load_data(exif, block, (unsigned)(before + size));
        const ExifEntry *e = exif_content_get_entry(exif->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
        bool one = e && e->data && e->format == EXIF_FORMAT_SHORT && e->components == 1 && e->size >= 2;
        int value = one ? exif_get_short(e->data, exif_data_get_byte_order(exif)) : 1;
        if (value >= 1 && value <= 8) *orientation = value;
    }
    bool ok = block && exif;
    free(block);
    if (exif) exif_data_unref(exif);
    return ok ? 0 : fail(err, errlen, "%s: out of memory for the EXIF data", f->path);
}

// The orientation names the sides at which the first stored row and column belong (EXIF 2.3, tag 0x0112): 1 top and
// left, 2 top, right, 3 bottom, right, 4 bottom, left, 5 left, top, 6 right, top, 7 right, bottom, 8 left, bottom.
static int turn_upright(Picture *p, int orientation, char *err, size_t errlen) {
    bool rows_stand = orientation >= 5;
    bool from_right = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
    bool from_bottom = orientation == 3 || orientation == 4 || orientation >= 7;
    int width = rows_stand ? p->height : p->width, height = rows_stand ? p->width : p->height;
    Picture out;
    if (picture_new(&out, width, height, p->channels, err, errlen)) return -1;
    const uint8_t *from = p->pixels;
    size_t n = (size_t)p->channels;
    for (int row = 0; row < p->height; row++) {
        for (int column = 0; column < p->width; column++, from += n) {
            int x = rows_stand ? row : column, y = rows_stand ? column : row;
            if (from_right) x = width - 1 - x;
            if (from_bottom) y = height - 1 - y;
            memcpy(out.pixels + ((size_t)y * width + x) * n, from, n);
        }
    }
    picture_free(p);
    *p = out;
    return 0;
}

int picture_decode(Picture *p, const File *file, int channels, char *err, size_t errlen) {
    *p = (Picture){0};
    const uint8_t *b = file->data;
    if (channels != 1 && channels != 3) {
        return fail(err, errlen, "%s: expected 1 or 3 channels to be asked for, found %d", file->path, channels);
    }
    if (file->size > MAX_PICTURE_BYTES) {
        return fail(err, errlen, "%s: a picture: expected at most %d bytes, found %zu", file->path, MAX_PICTURE_BYTES,
                    file->size);
    }
    bool pnm = file->size > 2 && b[0] == 'P' && (b[1] == '5' || b[1] == '6');
    bool jpeg = b[0] == 0xff; // any number of them may come before the first marker
    if ((pnm && check_pnm(file, err, errlen)) || (jpeg && check_jpeg(file, err, errlen))) return -1;
    if (check_size(file, err, errlen)) return -1;
    int width, height, n, orientation;
    if (read_orientation(file, &orientation, err, errlen)) return -1;
    uint8_t *raw = decode(file, &width, &height, &n, err, errlen);
    if (!raw) return -1;
    int rc = picture_new(p, width, height, channels, err, errlen);
    size_t n_pixels = rc ? 0 : (size_t)width * height;
    for (size_t i = 0; i < n_pixels; i++) convert_pixel(p->pixels + i * channels, channels, raw + i * n, n);
    free(raw);
    if (!rc && orientation > 1) rc = turn_upright(p, orientation, err, errlen);
    if (rc) picture_free(p);
    return rc;
}

int picture_read(Picture *p, const char *path, int channels, char *err, size_t errlen) {
    *p = (Picture){0};
    File file;
    if (file_map(&file, path, err, errlen)) return -1;
    int rc = picture_decode(p, &file, channels, err, errlen);
    file_unmap(&file);
    return rc;
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
