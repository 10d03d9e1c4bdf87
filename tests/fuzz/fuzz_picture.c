// fuzz_picture: the picture and idx readers on arbitrary bytes.
//
// The first byte chooses: raw bytes, or a PNG, JPEG, BMP or PPM whose frame is written here around the rest of the
// input (deep inside a format, raw bytes rarely arrive), with a few bytes changed, or an idx file. A picture left
// unchanged must be read, at its size; a failure must be one line.
#include "idx.h"
#include "picture_file.h"

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <stb/stb_image_write.h>
#include <webp/decode.h>
#include "../made.h"
#include "fuzz.h"

enum { PIXELS_MAX = 1 << 14 };

static volatile uint8_t sink;

static uint8_t take(Input *in) {
    return (uint8_t)next(in, 255);
}

static bool too_many(int64_t width, int64_t height) {
    return width * llabs(height) > PIXELS_MAX && width <= MAX_SIDE && llabs(height) <= MAX_SIDE;
}

static int number(const uint8_t *b, int n_bytes, bool big) {
    uint32_t v = 0;
    for (int i = 0; i < n_bytes; i++) v |= (uint32_t)b[big ? n_bytes - 1 - i : i] << 8 * i;
    return (int)v;
}

// A header of many pixels is right and only slow.
static bool is_large(const uint8_t *b, size_t n) {
    int width, height;
    if (n > 2 && b[0] == 0xff) {
        for (size_t i = 2; i + 9 <= n; i++) {
            bool frame = b[i] == 0xff && b[i + 1] >= 0xc0 && b[i + 1] <= 0xc2;
            if (frame && too_many(b[i + 7] << 8 | b[i + 8], b[i + 5] << 8 | b[i + 6])) return true;
        }
        return false;
    }
    if (n > 24 && b[0] == 0x89) return too_many(number(b + 16, 4, true), number(b + 20, 4, true));
    if (n > 10 && b[0] == 'G') return too_many(number(b + 6, 2, false), number(b + 8, 2, false));
    if (n > 26 && b[0] == 'B') return too_many(number(b + 18, 4, false), number(b + 22, 4, false));
    return b[0] == 'R' && WebPGetInfo(b, n, &width, &height) && too_many(width, height);
}

// Returns the reader's verdict; 1: left out.
static int read_picture(const uint8_t *bytes, size_t n, int channels, Picture *p) {
    static char path[] = "fuzz.png";
    char err[256] = "";
    *p = (Picture){0};
    if (is_large(bytes, n)) return 1;
    uint8_t *copy = malloc(n); // of the exact size, so that a byte too many is seen
    memcpy(copy, bytes, n);
    File file = {.path = path, .data = copy, .size = n, .borrowed = true};
    int rc = picture_decode(p, &file, channels, err, sizeof err);
    REQUIRE(rc == 0 || rc == -1);
    if (rc) require_line(err, path);
    REQUIRE(!rc == (p->pixels != NULL));
    for (int i = 0; !rc && i < p->width * p->height * channels; i++) sink = (uint8_t)(sink + p->pixels[i]);
    free(copy);
    return rc;
}

// ---- pictures made plausible

// Rows of the rest of the input (repeated), each with a filter byte.
static size_t png_rows(Input *in, uint8_t *rows, int width, int height, int bits) {
    size_t row = ((size_t)width * bits + 7) / 8, n = 0;
    for (int y = 0; y < height; y++) {
        rows[n++] = take(in) % 5;
        for (size_t i = 0; i < row; i++) rows[n++] = in->at < in->end ? take(in) : (uint8_t)(i * 37);
    }
    return n;
}

static void make_png(Input *in, int width, int height) {
    static const uint8_t kinds[][3] = {{0, 1, 1}, {0, 2, 1}, {0, 4, 1}, {0, 8, 1}, {0, 16, 1}, {2, 8, 3}, {2, 16, 3},
                                       {3, 1, 1}, {3, 4, 1}, {3, 8, 1}, {4, 8, 2}, {4, 16, 2}, {6, 8, 4}, {6, 16, 4}};
    const uint8_t *kind = kinds[take(in) % (sizeof kinds / sizeof *kinds)];
    uint8_t choice = take(in), header[13] = {0, 0, 0, (uint8_t)width, 0, 0, 0, (uint8_t)height, kind[1], kind[0]};
    uint8_t rows[48 * (48 * 8 + 1)], packed[sizeof rows + 512], palette[768];
    for (size_t i = 0; i < sizeof palette; i++) palette[i] = (uint8_t)(i * 7);
    put("\x89PNG\r\n\x1a\n", 8);
    put_chunk("IHDR", header, sizeof header);
    if (kind[0] == 3) put_chunk("PLTE", palette, 768);
    if (choice & 1 && kind[0] < 4) put_chunk("tRNS", palette, kind[0] == 0 ? 2 : kind[0] == 2 ? 6 : 16);
    uLongf n = sizeof packed;
    size_t n_rows = png_rows(in, rows, width, height, kind[1] * kind[2]);
    REQUIRE(compress2(packed, &n, rows, n_rows, choice >> 1 & 7) == Z_OK);
    put_chunk("IDAT", packed, n / 2);
    put_chunk("IDAT", packed + n / 2, n - n / 2);
    put_chunk("IEND", "", 0);
}

static void make_jpeg(Input *in, int width, int height) {
    uint8_t pixels[48 * 48 * 3];
    int channels = take(in) & 1 ? 3 : 1, quality = take(in) % 100 + 1;
    for (int i = 0; i < width * height * channels; i++) pixels[i] = in->at < in->end ? take(in) : (uint8_t)(i * 5);
    REQUIRE(stbi_write_jpg_to_func(on_jpeg, NULL, width, height, channels, pixels, quality));
}

static void make_bmp(Input *in, int width, int height) {
    static const int depths[] = {1, 4, 8, 16, 24, 32};
    static const uint8_t zeros[24];
    int bits = depths[take(in) % 6], colours = bits < 16 ? 1 << bits : 0;
    bool from_top = take(in) & 1;
    size_t row = ((size_t)width * bits + 31) / 32 * 4;
    put("BM", 2);
    put(zeros, 8);
    put_number((uint32_t)(54 + 4 * colours), 4, false);
    put_number(40, 4, false);
    put_number((uint32_t)width, 4, false);
    put_number((uint32_t)(from_top ? -height : height), 4, false);
    put_number(1, 2, false);
    put_number((uint32_t)bits, 2, false);
    put(zeros, 24);
    for (int i = 0; i < colours; i++) put_number((uint32_t)i * 0x10305, 4, false);
    for (size_t i = 0; i < row * height; i++) {
        uint8_t b = in->at < in->end ? take(in) : (uint8_t)i;
        put(&b, 1);
    }
}

static void make_ppm(Input *in, int width, int height) {
    char header[32];
    int channels = take(in) & 1 ? 3 : 1;
    int n = snprintf(header, sizeof header, "P%c %d\n%d 255\n", channels == 3 ? '6' : '5', width, height);
    put(header, (size_t)n);
    for (int i = 0; i < width * height * channels; i++) {
        uint8_t b = in->at < in->end ? take(in) : (uint8_t)i;
        put(&b, 1);
    }
}

static void try_made(int kind, Input *in) {
    static void (*const makers[])(Input *, int, int) = {make_png, make_jpeg, make_bmp, make_ppm};
    made.n = 0;
    uint8_t changes = take(in) % 6, at[10];
    for (int i = 0; i < 10; i++) at[i] = i < 2 * changes ? take(in) : 0;
    int width = take(in) % 48 + 1, height = take(in) % 48 + 1, cut = take(in), channels = take(in) & 1 ? 3 : 1;
    makers[kind](in, width, height);
    for (int i = 0; i < changes; i++) made.bytes[at[2 * i] * (i % 2 ? 1u : made.n / 256 + 1) % made.n] ^= at[2 * i + 1];
    bool whole = cut < 200;
    if (!whole) made.n -= made.n * (size_t)(cut - 199) / 64;
    if (!made.n) return;
    Picture p;
    int rc = read_picture(made.bytes, made.n, channels, &p);
    if (whole && !changes && rc < 1) REQUIRE(!rc && p.width == width && p.height == height);
    picture_free(&p);
}

// ---- idx, from a file in memory

static void try_idx(Input *in) {
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    char path[64], err[256] = "";
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    REQUIRE(fd >= 0 && write(fd, in->at, (size_t)(in->end - in->at)) == in->end - in->at);
    IdxImages images;
    IdxLabels labels;
    int rc = idx_read_images(&images, path, err, sizeof err);
    if (rc) require_line(err, path);
    for (int64_t i = 0; !rc && i < (int64_t)images.n * images.height * images.width; i++) {
        sink = (uint8_t)(sink + images.pixels[i]);
    }
    rc = idx_read_labels(&labels, path, err, sizeof err);
    if (rc) require_line(err, path);
    for (int i = 0; !rc && i < labels.n; i++) sink = (uint8_t)(sink + labels.labels[i]);
    idx_free_images(&images);
    idx_free_labels(&labels);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    Input in = {data + 1, data + size};
    int kind = data[0] % 8;
    Picture p;
    if (kind < 5) try_made(kind % 4, &in);
    else if (kind == 5) try_idx(&in);
    else {
        read_picture(in.at, size - 1, kind == 6 ? 1 : 3, &p);
        picture_free(&p);
    }
    return 0;
}
