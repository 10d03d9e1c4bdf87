// Pictures in and out: decoding against bytes made by hand, EXIF orientations against their definition, resizing
// against PIL, preprocessor_config.json key by key, the idx files of MNIST, the two drawings, and files that mean harm.
#include "alignment.h"
#include "idx.h"
#include "overlay.h"
#include "picture_file.h"
#include "files.h"
#include "made.h"

#include <math.h>
#include <sys/resource.h>
#include <unistd.h>

#include <stb/stb_image_write.h>
#include <webp/encode.h>

// A failure is -1 and one line that holds `part`.
static void expect_line(int line, int rc, const char *err, const char *part) {
    if (rc != -1 || !*err || strchr(err, '\n') || !strstr(err, part)) {
        test_fail(__FILE__, line, "expected -1 and a line with \"%s\", found %d and \"%s\"", part, rc, err);
    }
}
#define EXPECT_LINE(rc, part) expect_line(__LINE__, rc, err, part)

static void put_numbers(int n_bytes, bool big, int count, const uint32_t *numbers) {
    for (int k = 0; k < count; k++) put_number(numbers[k], n_bytes, big);
}
#define PUT_BE32(...) put_numbers(4, true, sizeof((uint32_t[]){__VA_ARGS__}) / 4, (const uint32_t[]){__VA_ARGS__})
#define PUT_LE32(...) put_numbers(4, false, sizeof((uint32_t[]){__VA_ARGS__}) / 4, (const uint32_t[]){__VA_ARGS__})
#define PUT_LE16(...) put_numbers(2, false, sizeof((uint32_t[]){__VA_ARGS__}) / 4, (const uint32_t[]){__VA_ARGS__})

static void png_start(uint32_t width, uint32_t height, uint8_t bits, uint8_t colour) {
    made.n = 0;
    put("\x89PNG\r\n\x1a\n", 8);
    uint8_t h[13] = {[8] = bits, [9] = colour};
    for (int i = 0; i < 4; i++) {
        h[i] = (uint8_t)(width >> (24 - 8 * i));
        h[4 + i] = (uint8_t)(height >> (24 - 8 * i));
    }
    put_chunk("IHDR", h, sizeof h);
}

// rows: the unpacked contents, a filter byte before each row.
static void png_end(const void *rows, size_t n) {
    uint8_t packed[4096];
    uLongf size = sizeof packed;
    CHECK(compress2(packed, &size, rows, n, 9) == Z_OK, "compress2 failed");
    put_chunk("IDAT", packed, size);
    put_chunk("IEND", "", 0);
}

// Decode `made` from memory of exactly n bytes.
static int decode(Picture *p, size_t n, int channels, char *err, size_t errlen) {
    static char path[] = "made";
    uint8_t *copy = malloc(n ? n : 1);
    memcpy(copy, made.bytes, n);
    File f = {.path = path, .data = copy, .size = n, .borrowed = true};
    int rc = picture_decode(p, &f, channels, err, errlen);
    free(copy);
    return rc;
}

static void expect_made(int line, int width, int height, int channels, const uint8_t *pixels, int within) {
    char err[512] = "";
    Picture p;
    int rc = decode(&p, made.n, channels, err, sizeof err);
    if (rc || p.width != width || p.height != height || p.channels != channels) {
        test_fail(__FILE__, line, "expected %d x %d x %d, found %d x %d x %d, %s", width, height, channels, p.width,
                  p.height, p.channels, err);
    } else {
        for (int i = 0; i < width * height * channels; i++) {
            if (abs(p.pixels[i] - pixels[i]) > within) {
                test_fail(__FILE__, line, "value %d: expected %d, found %d", i, pixels[i], p.pixels[i]);
            }
        }
    }
    picture_free(&p);
}
#define EXPECT_MADE(width, height, channels, ...)                                                                      \
    expect_made(__LINE__, width, height, channels, (const uint8_t[]){__VA_ARGS__}, 0)

// Every beginning of `made` but the last ones must fail.
static void expect_cuts_fail_until(size_t enough, const char *what) {
    for (size_t n = 1; n <= made.n; n++) {
        char err[512] = "";
        Picture p;
        int rc = decode(&p, n, 3, err, sizeof err);
        bool line = *err && !strchr(err, '\n') && !strncmp(err, "made: ", 6);
        if (n >= enough) CHECK(!rc, "%s: whole: %s", what, err);
        else CHECK(rc == -1 && line && !p.pixels, "%s cut to %zu of %zu bytes: %d, \"%s\"", what, n, made.n, rc, err);
        picture_free(&p);
    }
}

static void expect_cuts_fail(const char *what) {
    expect_cuts_fail_until(made.n, what);
}

// ---- decoding

static void png_of_every_colour_type(void) {
    png_start(3, 2, 8, 0); // grey
    png_end("\0\x0a\x14\x1e\0\xff\x80\x00", 8);
    EXPECT_MADE(3, 2, 1, 10, 20, 30, 255, 128, 0);
    EXPECT_MADE(3, 2, 3, 10, 10, 10, 20, 20, 20, 30, 30, 30, 255, 255, 255, 128, 128, 128, 0, 0, 0);
    png_start(2, 2, 8, 2); // RGB; the second row is filtered (Sub)
    png_end("\0\xff\0\0\0\xff\0\1\x0a\xc8\x1e\1\1\1", 14);
    EXPECT_MADE(2, 2, 3, 255, 0, 0, 0, 255, 0, 10, 200, 30, 11, 201, 31);
    png_start(2, 1, 8, 3); // palette, one colour half transparent
    put_chunk("PLTE", "\x0a\xc8\x1e\0\0\0", 6);
    put_chunk("tRNS", "\xff\x80", 2);
    png_end("\0\0\1", 3);
    EXPECT_MADE(2, 1, 3, 10, 200, 30, 127, 127, 127);
    png_start(2, 1, 8, 4); // grey and alpha
    png_end("\0\x32\xff\x32\0", 5);
    EXPECT_MADE(2, 1, 1, 50, 255);
    png_start(2, 1, 8, 6); // RGB and alpha: (v * alpha + 255 * (255 - alpha)) / 255, rounded
    png_end("\0\xff\0\0\x40\x0a\xc8\x1e\xff", 9);
    EXPECT_MADE(2, 1, 3, 255, 191, 191, 10, 200, 30);
    png_start(8, 1, 1, 0); // one bit
    png_end("\0\xa5", 2);
    EXPECT_MADE(8, 1, 1, 255, 0, 255, 0, 0, 255, 0, 255);
    png_start(2, 1, 16, 0); // 16 bits: the upper 8
    png_end("\0\x12\xff\x80\x00", 5);
    EXPECT_MADE(2, 1, 1, 0x12, 0x80);
}

// python3 -c "from PIL import Image; print(Image.new('RGB', (1, 1), COLOUR).convert('L').getpixel((0, 0)))"
static void grey_is_luma_601(void) {
    png_start(7, 1, 8, 2);
    png_end("\0\xff\0\0\0\xff\0\0\0\xff\x0a\xc8\x1e\xff\xff\xff\1\2\3\x7b\x2d\x43", 22);
    EXPECT_MADE(7, 1, 1, 76, 150, 29, 124, 255, 2, 71);
}

static void bmp_start(int32_t width, int32_t height, uint32_t bits, uint32_t colours) {
    made.n = 0;
    put("BM", 2);
    PUT_LE32(0, 0, 54 + 4 * colours, 40, (uint32_t)width, (uint32_t)height);
    PUT_LE16(1, bits);
    PUT_LE32(0, 0, 0, 0, 0, 0);
}

static void bmp_from_either_end(void) {
    static const uint8_t rows[] = "\3\2\1\6\5\4\0\0\x09\x08\x07\x0c\x0b\x0a\0\0"; // BGR, rows padded to 4 bytes
    bmp_start(2, 2, 24, 0);
    put(rows, 16);
    EXPECT_MADE(2, 2, 3, 7, 8, 9, 10, 11, 12, 1, 2, 3, 4, 5, 6);
    bmp_start(2, -2, 24, 0);
    put(rows, 16);
    EXPECT_MADE(2, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
    bmp_start(2, 1, 8, 2); // palette
    PUT_LE32(0x00102030, 0x00405060);
    put("\1\0\0\0", 4);
    EXPECT_MADE(2, 1, 3, 0x40, 0x50, 0x60, 0x10, 0x20, 0x30);
}

static void make_text(const char *header, const void *bytes, size_t n) {
    made.n = 0;
    put(header, strlen(header));
    put(bytes, n);
}

static void ppm_and_pgm(void) {
    char err[512] = "";
    Picture p;
    make_text("P5\n# a comment\n2 1 # another\n255\n", "\x07\xfe", 2);
    EXPECT_MADE(2, 1, 1, 7, 254);
    make_text("P6 1 2 255 ", "\1\2\3\4\5\6", 6);
    EXPECT_MADE(1, 2, 3, 1, 2, 3, 4, 5, 6);
    make_text("P5 2 1 15 ", "\1\2", 2);
    EXPECT_LINE(decode(&p, made.n, 1, err, sizeof err), "expected 255, found 15");
    make_text("P5 2 1 65535 ", "\1\2\3\4", 4);
    EXPECT_LINE(decode(&p, made.n, 1, err, sizeof err), "expected 255, found 65535");
    make_text("P5 2 2 255 ", "\1\2\3", 3);
    EXPECT_LINE(decode(&p, made.n, 1, err, sizeof err), "expected 4 bytes behind the header, found 3");
    make_text("P6 99999999999999999999 1 255 ", "\1\2\3", 3);
    EXPECT_LINE(decode(&p, made.n, 1, err, sizeof err), "header is damaged");
    make_text("P3 1 1 255 ", "1 2 3", 5); // text samples
    EXPECT_LINE(decode(&p, made.n, 1, err, sizeof err), "expected a PNG, JPEG, GIF, WebP, BMP or PPM");
}

static void make_jpeg(int width, int height, int channels) { // a soft slope
    uint8_t *pixels = malloc((size_t)width * height * channels);
    for (int i = 0; i < width * height * channels; i++) pixels[i] = (uint8_t)(60 + 3 * (i / channels % width));
    made.n = 0;
    CHECK(stbi_write_jpg_to_func(on_jpeg, NULL, width, height, channels, pixels, 95), "cannot make a JPEG");
    free(pixels);
}

static void jpeg_is_close(void) {
    uint8_t want[24 * 17 * 3];
    for (int i = 0; i < 24 * 17 * 3; i++) want[i] = (uint8_t)(60 + 3 * (i / 3 % 24));
    make_jpeg(24, 17, 3);
    expect_made(__LINE__, 24, 17, 3, want, 4);
    for (int i = 0; i < 24 * 17; i++) want[i] = want[3 * i];
    expect_made(__LINE__, 24, 17, 1, want, 4);
}

// 3 x 5 pixels, interlaced: white, but the first red, the last blue, and one green; ImageMagick made the file.
static void gif_and_webp(void) {
    static const char gif[] =
        "\x47\x49\x46\x38\x39\x61\x03\x00\x05\x00\xf1\x03\x00\xff\x00\x00\x00\xff\x00\x00\x00\xff\xff\xff"
        "\xff\x21\xf9\x04\x00\x00\x00\x00\x00\x2c\x00\x00\x00\x00\x03\x00\x05\x00\x40\x02\x05\xc4\x3e\x82"
        "\x13\x5b\x00\x3b";
    uint8_t want[3 * 5 * 3], *webp = NULL;
    memset(want, 255, sizeof want);
    memcpy(want, "\xff\0\0", 3);
    memcpy(want + 3 * 4, "\0\xff\0", 3);
    memcpy(want + 3 * 14, "\0\0\xff", 3);
    made.n = 0;
    put(gif, sizeof gif - 1);
    expect_made(__LINE__, 3, 5, 3, want, 0);
    expect_cuts_fail_until(sizeof gif - 2, "GIF"); // the trailer is not missed
    size_t n = WebPEncodeLosslessRGB(want, 3, 5, 9, &webp);
    made.n = 0;
    put(webp, n);
    WebPFree(webp);
    expect_made(__LINE__, 3, 5, 3, want, 0);
    expect_cuts_fail_until(made.n, "WebP");
}

static void bmp_of_os2(void) { // a header of 12 bytes: refused with a palette, read without
    char err[512] = "";
    Picture p;
    for (uint32_t bits = 8; bits <= 24; bits += 16) {
        made.n = 0;
        put("BM", 2);
        PUT_LE32(0, 0, bits == 8 ? 26 + 768 : 26, 12);
        PUT_LE16(1, 1, 1, bits);
        if (bits == 24) break;
        for (int i = 0; i < 768; i++) put("\xc8", 1);
        put("\xff\0\0\0", 4);
        EXPECT_LINE(decode(&p, made.n, 3, err, sizeof err), "a BMP of OS/2 with a palette");
    }
    put("\3\2\1\0", 4);
    EXPECT_MADE(1, 1, 3, 1, 2, 3);
}

static void files_that_are_no_pictures(void) {
    char err[512] = "";
    Picture p;
    EXPECT_LINE(picture_read(&p, in_folder("absent.png"), 3, err, sizeof err), "absent.png: No such file");
    EXPECT_LINE(picture_read(&p, folder, 3, err, sizeof err), "found a directory");
    EXPECT_LINE(picture_read(&p, write_file("empty.png", "", 0), 3, err, sizeof err), "empty");
    EXPECT_LINE(picture_read(&p, write_file("text.png", "hello, world", 12), 3, err, sizeof err),
                "text.png: expected a PNG, JPEG, GIF, WebP, BMP or PPM picture");
    EXPECT_LINE(picture_read(&p, write_file("a.gif", "GIF89a\1\0\1\0\0\0\0;", 14), 3, err, sizeof err), "no frame");
    EXPECT_LINE(picture_read(&p, write_file("a.psd", "8BPS\0\1\0\0\0\0\0\0\0\3\0\0\0\1\0\0\0\1\0\10\0\3", 26), 3, err,
                             sizeof err),
                "expected a PNG");
    EXPECT_LINE(picture_read(&p, write_file("x.png", "\x89PNG", 4), 2, err, sizeof err), "1 or 3 channels");
    CHECK(!p.pixels && !p.width, "a failure leaves nothing");
}

// ---- orientation

typedef struct {
    bool big;                         // Motorola's byte order
    uint32_t tag, type, count, value; // of the entry
    uint32_t ifd;                     // offset of the first IFD; 8 is right behind the header
    uint32_t n_entries;               // what the IFD claims; one is there
} Exif;

static Exif exif_of(bool big, uint32_t orientation) {
    return (Exif){big, 0x0112, 3, 1, orientation, 8, 1};
}

enum { EXIF_BYTES = 26, EXIF_ENTRY_END = 22 };

// A TIFF header, an IFD of one entry, no next IFD.
static void exif_bytes(uint8_t *out, Exif e) {
    size_t start = made.n;
    put(e.big ? "MM" : "II", 2);
    put_number(42, 2, e.big);
    put_number(e.ifd, 4, e.big);
    put_number(e.n_entries, 2, e.big);
    put_number(e.tag, 2, e.big);
    put_number(e.type, 2, e.big);
    put_number(e.count, 4, e.big);
    int n = e.type == 3 ? 2 : 4; // a SHORT stands at the left
    put_number(e.value, n, e.big);
    put_number(0, 4 - n, e.big);
    put_number(0, 4, e.big);
    memcpy(out, made.bytes + start, EXIF_BYTES);
    made.n = start;
}

// RGB of 3 x 2: a b c over d e f, each its letter.
static void oriented_png(const void *exif, size_t n, bool behind_pixels) {
    static const uint8_t rows[] = "\0aaabbbccc\0dddeeefff";
    uint8_t packed[64];
    uLongf size = sizeof packed;
    png_start(3, 2, 8, 2);
    if (!behind_pixels) put_chunk("eXIf", exif, n);
    CHECK(compress2(packed, &size, rows, 20, 9) == Z_OK, "compress2 failed");
    put_chunk("IDAT", packed, size);
    if (behind_pixels) put_chunk("eXIf", exif, n);
    put_chunk("IEND", "", 0);
}

// Grey blocks of 8 x 8 in the same order, behind an APP1 segment of XMP and one of EXIF.
static void oriented_jpeg(const void *exif, size_t n) {
    static const char xmp[] = "http://ns.adobe.com/xap/1.0/";
    uint8_t pixels[24 * 16], file[4096];
    for (int i = 0; i < 24 * 16; i++) pixels[i] = (uint8_t)("abcdef"[i % 24 / 8 + i / (24 * 8) * 3]);
    made.n = 0;
    CHECK(stbi_write_jpg_to_func(on_jpeg, NULL, 24, 16, 1, pixels, 100), "cannot make a JPEG");
    size_t size = made.n;
    CHECK(size < sizeof file, "a JPEG of %zu bytes", size);
    memcpy(file, made.bytes, size);
    made.n = 0;
    put(file, 2);
    put("\xff\xe1", 2);
    put_number(sizeof xmp + 2, 2, true);
    put(xmp, sizeof xmp);
    put("\xff\xe1", 2);
    put_number((uint32_t)n + 8, 2, true);
    put("Exif\0", 6);
    put(exif, n);
    put(file + 2, size - 2);
}

// EXIF 2.3, tag 0x0112: where the first stored row and column are seen.
static const char *const seen_as[9] = {
    [1] = "abc/def",  // top, left
    [2] = "cba/fed",  // top, right
    [3] = "fed/cba",  // bottom, right
    [4] = "def/abc",  // bottom, left
    [5] = "ad/be/cf", // left, top
    [6] = "da/eb/fc", // right, top
    [7] = "fc/eb/da", // right, bottom
    [8] = "cf/be/ad", // left, bottom
};

// `made` is decoded to that picture, a letter for a square of `block` pixels.
static void expect_seen(int line, const char *what, int orientation, int channels, int block) {
    const char *letters = seen_as[orientation];
    int width = orientation < 5 ? 3 : 2, height = 5 - width, within = block > 1 ? 2 : 0, n_other = 0;
    char err[512] = "";
    Picture p;
    int rc = decode(&p, made.n, channels, err, sizeof err);
    if (rc || p.width != width * block || p.height != height * block || p.channels != channels) {
        test_fail(__FILE__, line, "%s, orientation %d: %d, %d x %d, %s", what, orientation, rc, p.width, p.height, err);
        picture_free(&p);
        return;
    }
    for (int i = 0; i < p.width * p.height; i++) {
        int x = i % p.width / block, y = i / p.width / block;
        for (int c = 0; c < channels; c++) {
            n_other += abs(p.pixels[i * channels + c] - letters[y * (width + 1) + x]) > within;
        }
    }
    if (n_other) test_fail(__FILE__, line, "%s, orientation %d: %d values differ", what, orientation, n_other);
    picture_free(&p);
}

// The same EXIF data in every file that can hold it.
static void expect_oriented(int line, const char *what, const void *exif, size_t n, int orientation) {
    for (int channels = 1; channels <= 3; channels += 2) {
        for (int behind = 0; behind < 2; behind++) {
            oriented_png(exif, n, behind);
            expect_seen(line, what, orientation, channels, 1);
        }
        oriented_jpeg(exif, n);
        expect_seen(line, what, orientation, channels, 8);
    }
}

static void every_orientation(void) {
    for (int i = 0; i < 16; i++) {
        bool big = i % 2;
        int orientation = 1 + i / 2;
        uint8_t exif[6 + EXIF_BYTES] = "Exif";
        exif_bytes(exif + 6, exif_of(big, (uint32_t)orientation));
        expect_oriented(__LINE__, big ? "big-endian" : "little-endian", exif + 6, EXIF_BYTES, orientation);
        oriented_png(exif, sizeof exif, false); // some writers leave a JPEG's start in a PNG
        expect_seen(__LINE__, "PNG with a JPEG's start", orientation, 3, 1);
    }
}

// The entry behind others, the IFD behind 60,000 bytes, and a chunk larger than a JPEG's segment can be.
static void orientation_far_from_the_start(void) {
    enum { AWAY = 60000, CHUNK = 100000 };
    static uint8_t chunk[CHUNK];
    uint8_t exif[EXIF_BYTES];
    for (int big = 0; big < 2; big++) {
        exif_bytes(exif, exif_of(big, 8));
        memset(chunk, 0, sizeof chunk);
        memcpy(chunk, exif, 8);
        made.n = 0;
        put_number(AWAY, 4, big);
        memcpy(chunk + 4, made.bytes, 4);
        made.n = 0;
        put_number(3, 2, big);
        for (uint32_t i = 0; i < 2; i++) { // width and height, as LONG
            put_number(0x0100 + i, 2, big);
            put_number(4, 2, big);
            put_number(1, 4, big);
            put_number(6, 4, big);
        }
        memcpy(chunk + AWAY, made.bytes, made.n);
        memcpy(chunk + AWAY + made.n, exif + 10, 16);
        expect_oriented(__LINE__, "far from the start", chunk, AWAY + 1000, 8);
        oriented_png(chunk, CHUNK, false);
        expect_seen(__LINE__, "a large chunk", 8, 3, 1);
    }
}

static void damaged_exif_counts_as_1(void) {
    static const struct {
        const char *what;
        Exif e;
    } bad[] = {
        {"orientation 0", {0, 0x0112, 3, 1, 0, 8, 1}},
        {"orientation 9", {0, 0x0112, 3, 1, 9, 8, 1}},
        {"orientation 0xfff8", {0, 0x0112, 3, 1, 0xfff8, 8, 1}},
        {"orientation 0x0600, the other byte order's 6", {0, 0x0112, 3, 1, 0x0600, 8, 1}},
        {"a BYTE", {0, 0x0112, 1, 1, 6, 8, 1}},
        {"a LONG", {0, 0x0112, 4, 1, 6, 8, 1}},
        {"an SSHORT", {0, 0x0112, 8, 1, 6, 8, 1}},
        {"an unknown type", {0, 0x0112, 77, 1, 6, 8, 1}},
        {"no values", {0, 0x0112, 3, 0, 6, 8, 1}},
        {"two values", {0, 0x0112, 3, 2, 6, 8, 1}},
        {"values at an offset outside", {0, 0x0112, 3, 3, 0x7ffffff0, 8, 1}},
        {"values whose bytes wrap in 32 bits", {0, 0x0112, 3, 0x80000001u, 6, 8, 1}},
        {"another tag", {0, 0x0100, 3, 1, 6, 8, 1}},
        {"an IFD outside", {0, 0x0112, 3, 1, 6, 5000, 1}},
        {"an IFD at the end", {0, 0x0112, 3, 1, 6, EXIF_BYTES, 1}},
        {"an IFD whose offset wraps", {0, 0x0112, 3, 1, 6, 0xfffffffe, 1}},
        {"an IFD without entries", {0, 0x0112, 3, 1, 6, 8, 0}},
    };
    for (size_t i = 0; i < 2 * (sizeof bad / sizeof *bad); i++) {
        uint8_t exif[EXIF_BYTES];
        Exif e = bad[i / 2].e;
        e.big = i % 2;
        exif_bytes(exif, e);
        expect_oriented(__LINE__, bad[i / 2].what, exif, sizeof exif, 1);
    }
    uint8_t exif[EXIF_BYTES];
    for (int big = 0; big < 2; big++) {
        exif_bytes(exif, (Exif){big, 0x0112, 3, 1, 6, 8, 0xffff}); // claims more entries than there are
        expect_oriented(__LINE__, "an entry and no more", exif, sizeof exif, 6);
        exif_bytes(exif, exif_of(big, 6));
        for (size_t n = 0; n < EXIF_BYTES; n++) {
            char what[32];
            snprintf(what, sizeof what, "cut at %zu", n);
            expect_oriented(__LINE__, what, exif, n, n < EXIF_ENTRY_END ? 1 : 6);
        }
        exif[0] = 'X';
        expect_oriented(__LINE__, "no byte order", exif, sizeof exif, 1);
        exif_bytes(exif, exif_of(big, 6));
        exif[big ? 3 : 2] = 43;
        expect_oriented(__LINE__, "not 42", exif, sizeof exif, 1);
    }
}

// Any byte of the EXIF data changed: one of the eight pictures, and nothing else (the sanitizers watch).
static void changed_exif_bytes(void) {
    for (int i = 0; i < 2 * 256 * EXIF_BYTES; i++) {
        uint8_t exif[EXIF_BYTES];
        exif_bytes(exif, exif_of(i % 2, 6));
        exif[i / 2 % EXIF_BYTES] = (uint8_t)(i / 2 / EXIF_BYTES);
        oriented_png(exif, sizeof exif, false);
        char err[512] = "";
        Picture p;
        int rc = decode(&p, made.n, 1, err, sizeof err);
        CHECK(!rc && p.width * p.height == 6, "change %d: %d, %s", i, rc, err);
        picture_free(&p);
    }
}

// ---- resizing

static void known_picture(Picture *p) { // 7 x 5
    char err[512];
    CHECK(!picture_new(p, 7, 5, 1, err, sizeof err), "%s", err);
    for (int y = 0; y < 5; y++) {
        for (int x = 0; x < 7; x++) p->pixels[7 * y + x] = (uint8_t)(x * x * 31 + y * 17 * (x + 1));
    }
}

static void expect_resized(const Picture *in, int width, int height, Resample r, int within, const uint8_t *want) {
    char err[512] = "";
    Picture out;
    int rc = picture_resize(&out, in, width, height, r, err, sizeof err);
    CHECK(!rc && out.width == width && out.height == height, "%s", err);
    for (int i = 0; !rc && i < width * height; i++) {
        CHECK(abs(out.pixels[i] - want[i]) <= within, "resample %d to %d x %d, pixel %d: expected %d, found %d", r,
              width, height, i, want[i], out.pixels[i]);
    }
    picture_free(&out);
}

// python3 -c "import numpy as np; from PIL import Image
// a = np.array([[(x*x*31 + y*17*(x+1)) % 256 for x in range(7)] for y in range(5)], np.uint8)
// print(list(Image.fromarray(a).resize((WIDTH, HEIGHT), RESAMPLE).getdata()))" (PIL 9.4)
static void resize_is_pils(void) {
    static const uint8_t down[][12] = {
        {0, 124, 240, 92, 34, 226, 154, 74, 68, 72, 68, 56},
        {30, 99, 112, 105, 68, 152, 155, 142, 100, 90, 130, 116},
        {26, 103, 108, 105, 62, 162, 161, 146, 102, 88, 134, 114},
    };
    static const uint8_t up[][60] = {
        {0,  31,  31,  124, 23,  23,  240, 7,   7,   92,  17, 65,  65,  175, 91,  91,  69,  109, 109, 211,
         34, 99,  99,  226, 159, 159, 154, 211, 211, 74,  34, 99,  99,  226, 159, 159, 154, 211, 211, 74,
         51, 133, 133, 21,  227, 227, 239, 57,  57,  193, 68, 167, 167, 72,  39,  39,  68,  159, 159, 56},
        {0,  17,  54,  119, 58,  99,  228, 65,  45,  92,  13, 37,  83,  157, 105, 87,  110, 91,  128, 181,
         27, 59,  115, 199, 156, 126, 121, 156, 152, 131, 41, 81,  120, 140, 171, 188, 187, 158, 136, 124,
         55, 103, 115, 40,  129, 186, 191, 111, 117, 159, 68, 122, 143, 77,  51,  49,  73,  136, 113, 56},
        {0,  10,  53,  122, 40,  94,  244, 52,  27,  93,  10, 28,  82,  159, 102, 75,  101, 76,  131, 201,
         23, 48,  119, 221, 168, 113, 108, 174, 164, 122, 37, 77,  124, 144, 185, 207, 201, 165, 133, 116,
         51, 110, 119, 18,  130, 213, 203, 90,  108, 177, 63, 128, 157, 78,  39,  34,  65,  150, 117, 44},
    };
    static const Resample kinds[] = {RESAMPLE_NEAREST, RESAMPLE_BILINEAR, RESAMPLE_BICUBIC};
    Picture in;
    known_picture(&in);
    for (int k = 0; k < 3; k++) {
        expect_resized(&in, 4, 3, kinds[k], k ? 1 : 0, down[k]);
        expect_resized(&in, 10, 6, kinds[k], k ? 1 : 0, up[k]);
        expect_resized(&in, 7, 5, kinds[k], 0, in.pixels); // its own size
    }
    picture_free(&in);
}

// Weights sum to 1 at every size and place, up to the edges; 375 to 256 is where the resizer's own check is too strict.
static void resize_keeps_a_constant(void) {
    char err[512] = "";
    static const int sizes[][2] = {{1, 1}, {375, 256}, {2, 300}, {301, 3}, {224, 224}, {28, 28}, {640, 5}};
    for (int i = 0; i < 49; i++) {
        const int *from = sizes[i / 7], *to = sizes[i % 7];
        Picture in, out;
        CHECK(!picture_new(&in, from[0], from[1], 3, err, sizeof err), "%s", err);
        memset(in.pixels, 200, (size_t)from[0] * from[1] * 3);
        Resample r = i % 2 ? RESAMPLE_BILINEAR : RESAMPLE_BICUBIC;
        int rc = picture_resize(&out, &in, to[0], to[1], r, err, sizeof err);
        CHECK(!rc, "%s", err);
        int n_other = 0;
        for (int k = 0; !rc && k < to[0] * to[1] * 3; k++) n_other += out.pixels[k] != 200;
        CHECK(n_other == 0, "%d x %d to %d x %d: %d values changed", from[0], from[1], to[0], to[1], n_other);
        picture_free(&in);
        picture_free(&out);
    }
}

static void resize_refuses(void) {
    char err[512] = "";
    Picture in, out;
    known_picture(&in);
    EXPECT_LINE(picture_resize(&out, &in, 4, 4, RESAMPLE_LANCZOS, err, sizeof err), "Lanczos");
    EXPECT_LINE(picture_resize(&out, &in, 4, 4, (Resample)9, err, sizeof err), "found 9");
    EXPECT_LINE(picture_resize(&out, &in, 0, 4, RESAMPLE_NEAREST, err, sizeof err), "0 x 4");
    EXPECT_LINE(picture_resize(&out, &in, 65535, 65535, RESAMPLE_NEAREST, err, sizeof err), "65535 x 65535");
    CHECK(!out.pixels, "a failure leaves nothing");
    picture_free(&in);
}

static void crop_takes_the_middle(void) {
    char err[512] = "";
    Picture in, out;
    known_picture(&in);
    CHECK(!picture_crop(&out, &in, 4, 2, err, sizeof err), "%s", err); // left (7 - 4) / 2 = 1, top (5 - 2) / 2 = 1
    for (int y = 0; y < 2; y++) {
        CHECK(!memcmp(out.pixels + 4 * y, in.pixels + 7 * (y + 1) + 1, 4), "row %d of the crop", y);
    }
    picture_free(&out);
    EXPECT_LINE(picture_crop(&out, &in, 8, 2, err, sizeof err), "at least 8 x 2 pixels, found 7 x 5");
    picture_free(&in);
}

static void png_round_trip_and_drawing(void) {
    char err[512] = "";
    Picture p, back;
    const uint8_t red[3] = {200, 10, 20};
    CHECK(!picture_new(&p, 40, 30, 3, err, sizeof err), "%s", err);
    picture_fill(&p, -5, -5, 10, 10, red); // cut to 5 x 5
    picture_fill(&p, 38, 28, 100, 100, red);
    picture_text(&p, 8, 12, 1, false, red, "Ag\x80");
    picture_text(&p, 20, 29, 1, true, red, "up");
    picture_text(&p, 30, 2, 3, false, red, "cut off at the edge");
    CHECK(p.pixels[0] == 200 && p.pixels[3 * (4 * 40 + 4)] == 200 && p.pixels[3 * (5 * 40 + 5)] == 0, "fill is cut");
    CHECK(picture_text_width("AA", 2) == 2 * picture_text_width("AA", 1) && picture_text_width("", 2) == 0, "widths");
    CHECK(!picture_write_png(&p, in_folder("p.png"), err, sizeof err), "%s", err);
    CHECK(!picture_read(&back, in_folder("p.png"), 3, err, sizeof err), "%s", err);
    CHECK(back.pixels && !memcmp(p.pixels, back.pixels, 40 * 30 * 3), "a PNG comes back as it was");
    EXPECT_LINE(picture_write_png(&p, in_folder("no/such.png"), err, sizeof err), "No such file");
    EXPECT_LINE(picture_write_png(&p, "/dev/full", err, sizeof err), "/dev/full: ");
    picture_free(&p);
    picture_free(&back);
}

// ---- preprocessor_config.json

static int load_steps(Preprocess *p, const char *json, int size, int channels, char *err, size_t errlen) {
    write_text("preprocessor_config.json", json);
    int rc = preprocess_load(p, folder, size, channels, err, errlen);
    unlink(in_folder("preprocessor_config.json"));
    return rc;
}

static void steps_without_a_file_are_vits(void) {
    char err[512] = "";
    Preprocess p;
    Picture in;
    float pixels[9] = {0};
    CHECK(!preprocess_load(&p, folder, 3, 1, err, sizeof err), "%s", err);
    CHECK(p.resize && p.resize_width == 3 && p.resize_height == 3 && p.resample == RESAMPLE_BILINEAR && !p.crop &&
              p.rescale && p.rescale_factor == 1.0 / 255 && p.normalize && p.mean[0] == 0.5f && p.std[0] == 0.5f,
          "the defaults of ViT");
    CHECK(!picture_new(&in, 3, 3, 1, err, sizeof err), "%s", err);
    for (int i = 0; i < 9; i++) in.pixels[i] = (uint8_t)(i * 255 / 8);
    CHECK(!preprocess_apply(&p, &in, pixels, err, sizeof err), "%s", err);
    for (int i = 0; i < 9; i++) CHECK(fabsf(pixels[i] - (in.pixels[i] / 127.5f - 1)) < 1e-6f, "pixel %d", i);
    picture_free(&in);
}

// Of the file that facebook/deit-small-patch16-224 comes with, as to its keys.
static void steps_of_deit(void) {
    static const char json[] =
        "{\"crop_size\": 224, \"do_center_crop\": true, \"do_normalize\": true, \"do_resize\": true, "
        "\"feature_extractor_type\": \"DeiTFeatureExtractor\", \"image_mean\": [0.485, 0.456, 0.406], "
        "\"image_std\": [0.229, 0.224, 0.225], \"resample\": 3, \"size\": 256}";
    char err[512] = "";
    Preprocess p;
    Picture in, resized, cropped;
    CHECK(!load_steps(&p, json, 224, 3, err, sizeof err), "%s", err);
    CHECK(!picture_new(&in, 60, 40, 3, err, sizeof err), "%s", err);
    for (int i = 0; i < 60 * 40 * 3; i++) in.pixels[i] = (uint8_t)(i * 7 + i / 180 * 3);
    float *pixels = malloc(sizeof *pixels * 3 * 224 * 224);
    CHECK(!preprocess_apply(&p, &in, pixels, err, sizeof err), "%s", err);
    CHECK(!picture_resize(&resized, &in, 256, 256, RESAMPLE_BICUBIC, err, sizeof err), "%s", err);
    CHECK(!picture_crop(&cropped, &resized, 224, 224, err, sizeof err), "%s", err);
    const double mean[] = {0.485, 0.456, 0.406}, std[] = {0.229, 0.224, 0.225};
    for (int c = 0; c < 3; c++) {
        for (int i = 0; i < 224 * 224; i += 101) {
            double want = (cropped.pixels[3 * i + c] / 255.0 - mean[c]) / std[c];
            CHECK(fabs(want - (double)pixels[c * 224 * 224 + i]) < 1e-5, "channel %d, pixel %d", c, i);
        }
    }
    free(pixels);
    picture_free(&in);
    picture_free(&resized);
    picture_free(&cropped);
}

static void steps_key_by_key(void) {
    char err[512] = "";
    Preprocess p;
    CHECK(!load_steps(&p, "{\"size\": {\"height\": 8, \"width\": 8}, \"resample\": 0}", 8, 3, err, sizeof err), "%s",
          err);
    CHECK(p.resize_width == 8 && p.resize_height == 8 && p.resample == RESAMPLE_NEAREST, "size as an object");
    CHECK(!load_steps(&p, "{\"do_resize\": false, \"do_rescale\": false, \"do_normalize\": false}", 8, 1, err,
                      sizeof err),
          "%s", err);
    CHECK(!p.resize && !p.rescale && !p.normalize, "steps switched off");
    CHECK(!load_steps(&p, "{\"image_mean\": 0.25, \"image_std\": [2], \"rescale_factor\": 0.5}", 8, 3, err, sizeof err),
          "%s", err);
    CHECK(p.mean[2] == 0.25f && p.std[2] == 2 && p.rescale_factor == 0.5, "one number for all channels");
    CHECK(!load_steps(&p,
                      "{\"image_processor_type\": \"DeiTImageProcessor\", \"size\": {\"height\": 9, \"width\": 10}, "
                      "\"crop_size\": {\"height\": 8, \"width\": 8}}",
                      8, 3, err, sizeof err),
          "%s", err);
    CHECK(p.crop && p.crop_width == 8 && p.resize_width == 10 && p.resize_height == 9 && p.resample == RESAMPLE_BICUBIC,
          "DeiT crops and is bicubic unless told otherwise");
    CHECK(!load_steps(&p, "{\"size\": null, \"image_mean\": null, \"unknown\": [1, {}]}", 8, 3, err, sizeof err), "%s",
          err);
    CHECK(p.resize_width == 8 && p.mean[1] == 0.5f, "null is absent");
}

static void steps_by_the_shortest_edge(void) {
    static const char json[] = "{\"size\": {\"shortest_edge\": 6}, \"do_center_crop\": true, \"crop_size\": 4, "
                               "\"do_rescale\": false, \"do_normalize\": false}";
    char err[512] = "";
    Preprocess p;
    float pixels[16];
    CHECK(!load_steps(&p, json, 4, 1, err, sizeof err), "%s", err);
    for (int tall = 0; tall < 2; tall++) { // 25 x 9 becomes 16 x 6 (int(6 * 25 / 9)), cropped at (6, 1)
        Picture in, resized, cropped;
        CHECK(!picture_new(&in, tall ? 9 : 25, tall ? 25 : 9, 1, err, sizeof err), "%s", err);
        for (int i = 0; i < 225; i++) in.pixels[i] = (uint8_t)(i * 11);
        CHECK(!preprocess_apply(&p, &in, pixels, err, sizeof err), "%s", err);
        CHECK(!picture_resize(&resized, &in, tall ? 6 : 16, tall ? 16 : 6, RESAMPLE_BILINEAR, err, sizeof err), "%s",
              err);
        CHECK(!picture_crop(&cropped, &resized, 4, 4, err, sizeof err), "%s", err);
        for (int i = 0; i < 16; i++) CHECK(pixels[i] == cropped.pixels[i], "pixel %d", i);
        picture_free(&in);
        picture_free(&resized);
        picture_free(&cropped);
    }
    CHECK(!load_steps(&p, "{\"size\": {\"shortest_edge\": 4}}", 4, 1, err, sizeof err), "%s", err);
    Picture wide;
    CHECK(!picture_new(&wide, 65000, 4, 1, err, sizeof err), "%s", err);
    EXPECT_LINE(preprocess_apply(&p, &wide, pixels, err, sizeof err), "expected 4 x 4 pixels for the model");
    p.shortest_edge = 8;
    EXPECT_LINE(preprocess_apply(&p, &wide, pixels, err, sizeof err), "sides of at most 65535");
    picture_free(&wide);
}

// More of them are in bad/preprocessor.txt.
static void steps_that_cannot_be(void) {
    char err[512];
    Preprocess p;
    EXPECT_LINE(load_steps(&p, "{\"do_convert_rgb\": true}", 8, 1, err, sizeof err), "do_convert_rgb: expected false");
    EXPECT_LINE(preprocess_load(&p, folder, 8, 4, err, sizeof err), "1 or 3");
    char *deep = malloc(6000);
    memset(deep, 'x', 5999);
    deep[5999] = 0;
    EXPECT_LINE(preprocess_load(&p, deep, 8, 3, err, sizeof err), "too long");
    free(deep);
}

static void steps_and_a_picture_that_differ(void) {
    char err[512] = "";
    Preprocess p;
    Picture in;
    float pixels[64 * 3];
    CHECK(!load_steps(&p, "{\"do_resize\": false}", 8, 3, err, sizeof err), "%s", err);
    CHECK(!picture_new(&in, 8, 9, 3, err, sizeof err), "%s", err);
    EXPECT_LINE(preprocess_apply(&p, &in, pixels, err, sizeof err), "expected 8 x 8 pixels for the model, found 8 x 9");
    in.channels = 1;
    EXPECT_LINE(preprocess_apply(&p, &in, pixels, err, sizeof err), "expected 3 channels, found 1");
    picture_free(&in);
}

// ---- pictures that mean harm

static void every_truncation_fails(void) {
    uint8_t rows[5 * (1 + 3 * 9)];
    for (size_t i = 0; i < sizeof rows; i++) rows[i] = (uint8_t)(i % 28 ? i * i : 0);
    png_start(9, 5, 8, 2);
    png_end(rows, sizeof rows);
    expect_cuts_fail("PNG");
    bmp_start(3, 7, 24, 0);
    put(rows, 7 * 12);
    expect_cuts_fail("BMP");
    bmp_start(3, 7, 8, 4);
    put(rows, 16 + 7 * 4);
    expect_cuts_fail("BMP with a palette");
    make_jpeg(19, 11, 3);
    expect_cuts_fail("JPEG");
    make_text("P6 5 5 255\n", rows, 75);
    expect_cuts_fail("PPM");
}

static void headers_of_giants(void) {
    char err[512] = "";
    Picture p;
    png_start(65535, 65535, 1, 0);
    png_end("\0", 1);
    EXPECT_LINE(decode(&p, made.n, 3, err, sizeof err), "found 65535 x 65535");
    png_start(8200, 8200, 1, 0);
    png_end("\0", 1);
    EXPECT_LINE(decode(&p, made.n, 3, err, sizeof err), "at most 67108864 pixels, found 8200 x 8200");
    png_start(0, 5, 8, 0);
    png_end("\0", 1);
    EXPECT_LINE(decode(&p, made.n, 3, err, sizeof err), "Invalid IHDR");
    bmp_start(65000, 65000, 24, 0);
    EXPECT_LINE(decode(&p, made.n, 3, err, sizeof err), "found 65000 x 65000");
    bmp_start(5, INT32_MIN, 24, 0);
    EXPECT_LINE(decode(&p, made.n, 3, err, sizeof err), "expected sides");
    bmp_start(-5, 5, 24, 0);
    EXPECT_LINE(decode(&p, made.n, 3, err, sizeof err), "found -5 x 5");
    make_text("P5 70000 1 255 ", "\0", 1);
    EXPECT_LINE(decode(&p, made.n, 3, err, sizeof err), "expected 70000 bytes");
    make_text("P5 0 1 255 ", "\0", 1);
    EXPECT_LINE(decode(&p, made.n, 3, err, sizeof err), "expected sides of 1 to 65535");
    make_jpeg(16, 16, 3);
    for (size_t i = 0; i + 9 < made.n; i++) { // the frame header: ff c0, length, bits, height, width
        if (made.bytes[i] == 0xff && made.bytes[i + 1] == 0xc0) memset(made.bytes + i + 5, 0xfe, 4);
    }
    EXPECT_LINE(decode(&p, made.n, 3, err, sizeof err), "found 65278 x 65278");
}

static long peak_mb(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss / 1024;
}

// An 8 x 8 picture whose data inflates to 400 MB, and one whose data chunk claims to be 1 GB long.
static void bombs_do_not_grow(void) {
    enum { STEP = 1 << 20, STEPS = 400 };
    char err[512] = "";
    Picture p;
    uint8_t *zeros = calloc(1, STEP), *packed = malloc(MADE_ROOM);
    z_stream z = {.next_out = packed, .avail_out = MADE_ROOM};
    CHECK(deflateInit(&z, 9) == Z_OK, "deflateInit");
    for (int i = 0; i < STEPS; i++) {
        z.next_in = zeros;
        z.avail_in = STEP;
        CHECK(deflate(&z, i == STEPS - 1 ? Z_FINISH : Z_NO_FLUSH) != Z_STREAM_ERROR, "deflate");
    }
    CHECK(z.avail_out > 0, "the bomb is larger than its room");
    size_t n = z.total_out;
    deflateEnd(&z);
    long before = peak_mb();
    png_start(8, 8, 8, 2);
    put_chunk("IDAT", packed, n);
    put_chunk("IEND", "", 0);
    CHECK(!decode(&p, made.n, 3, err, sizeof err) && p.width == 8, "%s", err); // what is too much is not read
    picture_free(&p);
    png_start(8, 8, 8, 2);
    PUT_BE32(1u << 30);
    put("IDAT", 4);
    put(packed, n);
    EXPECT_LINE(decode(&p, made.n, 3, err, sizeof err), "file ends before");
    long after = peak_mb();
    CHECK(after - before < 300, "the bombs took %ld MB", after - before);
    free(zeros);
    free(packed);
}

static void jpeg_tables_that_overflow(void) {
    char err[512] = "";
    Picture p;
    for (int fill = 0; fill < 2; fill++) { // 16 lengths x 255 values; and fill bytes before a marker
        made.n = 0;
        put(fill ? "\xff\xd8\xff\xff" : "\xff\xd8", fill ? 4 : 2);
        put("\xff\xc4\x10\x03\x10", 5);
        memset(made.bytes + made.n, 255, 16);
        memset(made.bytes + made.n + 16, 1, 4080);
        made.n += 16 + 4080;
        EXPECT_LINE(decode(&p, made.n, 3, err, sizeof err), "Bogus Huffman table");
    }
    make_jpeg(16, 16, 3); // the same between the scan and the end, where a progressive JPEG has tables
    made.n -= 2;
    put("\xff\xc4\x00\x13\x00", 5);
    memset(made.bytes + made.n, 255, 16);
    made.n += 16;
    put("\xff\xd9", 2);
    EXPECT_LINE(decode(&p, made.n, 3, err, sizeof err), "Bogus Huffman table");
}

// Single bytes changed: any picture or a line, and nothing else (the sanitizers watch).
static void changed_bytes(void) {
    uint8_t rows[6 * 25];
    for (size_t i = 0; i < sizeof rows; i++) rows[i] = (uint8_t)(i % 25 ? i * 3 : 0);
    for (int kind = 0; kind < 3; kind++) {
        if (kind == 0) {
            png_start(6, 6, 8, 6);
            png_end(rows, sizeof rows);
        } else if (kind == 1) make_jpeg(16, 9, 3);
        else {
            bmp_start(6, 6, 24, 0);
            put(rows, 120);
        }
        for (size_t i = 0; i < made.n; i++) {
            uint8_t was = made.bytes[i];
            made.bytes[i] ^= (uint8_t)(1u << test_u32() % 8);
            char err[512] = "";
            Picture p = {0};
            int rc = decode(&p, made.n, 1, err, sizeof err);
            CHECK(rc == 0 || (rc == -1 && *err && !strchr(err, '\n')), "byte %zu: %d, \"%s\"", i, rc, err);
            picture_free(&p);
            made.bytes[i] = was;
        }
    }
}

// ---- idx

static const char *spill_gz(const char *name, const void *bytes, size_t n) {
    const char *path = in_folder(name);
    gzFile f = gzopen(path, "wb");
    CHECK(f && gzwrite(f, bytes, (unsigned)n) == (int)n, "cannot write %s", path);
    if (f) gzclose(f);
    return path;
}

static void make_idx(uint32_t n, uint32_t height, uint32_t width, size_t bytes) {
    made.n = 0;
    PUT_BE32(0x803, n, height, width);
    for (size_t i = 0; i < bytes; i++) made.bytes[made.n++] = (uint8_t)(i * 3);
}

static void idx_plain_and_gzipped(void) {
    char err[512] = "";
    for (int gz = 0; gz < 2; gz++) {
        IdxImages x;
        IdxLabels y;
        make_idx(3, 2, 4, 24);
        const char *path = (gz ? spill_gz : write_file)("images", made.bytes, made.n);
        CHECK(!idx_read_images(&x, path, err, sizeof err), "%s", err);
        CHECK(x.n == 3 && x.height == 2 && x.width == 4 && x.pixels[23] == 69, "the images");
        EXPECT_LINE(idx_read_labels(&y, path, err, sizeof err), "expected 0x00000801, found 0x00000803");
        idx_free_images(&x);
        made.n = 0;
        PUT_BE32(0x801, 5);
        put("\1\2\3\4\5", 5);
        path = (gz ? spill_gz : write_file)("labels", made.bytes, made.n);
        CHECK(!idx_read_labels(&y, path, err, sizeof err), "%s", err);
        CHECK(y.n == 5 && y.labels[4] == 5, "the labels");
        EXPECT_LINE(idx_read_images(&x, path, err, sizeof err), "expected");
        idx_free_labels(&y);
        idx_free_labels(&y); // twice is harmless
    }
}

static void idx_every_truncation_fails(void) {
    make_idx(3, 2, 4, 24);
    size_t n_plain = made.n;
    spill_gz("whole.gz", made.bytes, made.n);
    char *packed = read_file(in_folder("whole.gz"), NULL);
    struct stat st;
    CHECK(!stat(in_folder("whole.gz"), &st), "stat");
    for (int gz = 0; gz < 2; gz++) {
        size_t whole = gz ? (size_t)st.st_size : n_plain;
        for (size_t n = 0; n < whole; n++) {
            char err[512] = "";
            IdxImages x;
            const char *path = gz ? write_file("cut.gz", packed, n) : write_file("cut", made.bytes, n);
            EXPECT_LINE(idx_read_images(&x, path, err, sizeof err), "cut");
            CHECK(!x.pixels, "a failure leaves nothing");
        }
    }
    packed[st.st_size - 6] ^= 1; // the checksum
    char err[512] = "";
    IdxImages x;
    EXPECT_LINE(idx_read_images(&x, write_file("cut.gz", packed, (size_t)st.st_size), err, sizeof err), "data");
    free(packed);
}

static void idx_that_cannot_be(void) {
    static const struct {
        uint32_t n, height, width;
        size_t bytes;
        const char *part;
    } bad[] = {
        {0, 2, 2, 0, "dimension 0: expected 1 or more, found 0"},
        {2, 0, 2, 0, "dimension 1: expected 1 or more"},
        {2, 2, 0, 0, "dimension 2: expected 1 or more"},
        {0xffffffff, 0xffffffff, 0xffffffff, 8, "dimension 0: expected at most 1073741824 bytes"},
        {0x10000, 0x10000, 0x10000, 8, "dimension 1: expected at most"}, // 2^48, 0 in 32 bits
        {1 << 15, 1 << 15, 2, 8, "dimension 2: expected at most"},
        {1 << 15, 1 << 15, 1, 8, "data: expected 1073741824 bytes, found 8"},
        {3, 2, 4, 25, "expected the end of the file behind the data"},
        {3, 2, 4, 23, "data: expected 24 bytes, found 23 before the end"},
    };
    char err[512] = "";
    IdxImages x;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        make_idx(bad[i].n, bad[i].height, bad[i].width, bad[i].bytes);
        EXPECT_LINE(idx_read_images(&x, write_file("bad", made.bytes, made.n), err, sizeof err), bad[i].part);
        EXPECT_LINE(idx_read_images(&x, spill_gz("bad.gz", made.bytes, made.n), err, sizeof err), bad[i].part);
    }
    make_idx(3, 2, 4, 24);
    made.bytes[3] = 0; // magic
    EXPECT_LINE(idx_read_images(&x, write_file("bad", made.bytes, made.n), err, sizeof err), "magic number");
    EXPECT_LINE(idx_read_images(&x, folder, err, sizeof err), "expected a regular file");
    EXPECT_LINE(idx_read_images(&x, "/dev/zero", err, sizeof err), "expected a regular file");
    EXPECT_LINE(idx_read_images(&x, in_folder("none"), err, sizeof err), "No such file");
}

// ---- drawings

static void overlay_is_a_row_of_panels(void) {
    char err[512] = "";
    float weights[2][49] = {{0}};
    weights[0][0] = 3; // the top left patch, on any scale
    const AttentionMap maps[] = {{"top left", weights[0]},
                                 {"none, with a title that is longer than its panel is", weights[1]}};
    Picture in, out;
    CHECK(!picture_new(&in, 28, 28, 1, err, sizeof err), "%s", err);
    for (int i = 0; i < 784; i++) in.pixels[i] = (uint8_t)(i % 28 * 9);
    CHECK(!overlay_write(in_folder("o.png"), &in, &(Overlay){NULL, maps, 2, 7, 7}, err, sizeof err), "%s", err);
    CHECK(!picture_read(&out, in_folder("o.png"), 3, err, sizeof err), "%s", err);
    CHECK(out.width == 20 + 3 * 224 + 2 * 16 + 20, "width %d", out.width); // margins, panels of 8 x 28, gaps
    CHECK(out.height == 20 + 224 + 36 + 11, "height %d", out.height);
    const uint8_t *rows = out.pixels, *same = rows + 3 * ((size_t)(20 + 100) * out.width + 20 + 8 * 13 + 4);
    CHECK(same[0] == 13 * 9 && same[1] == 13 * 9 && same[2] == 13 * 9, "the first panel is the picture, eightfold");
    const uint8_t *hot = rows + 3 * ((size_t)(20 + 10) * out.width + 20 + 240 + 10), *cold = hot + (size_t)3 * 150;
    CHECK(hot[0] > 180 && hot[0] > cold[0] + 60 && hot[2] < hot[0], "weight is bright: %d against %d", hot[0], cold[0]);
    picture_free(&out);
    CHECK(!overlay_write(in_folder("o.png"), &in, &(Overlay){"Boot 89.7 %", maps, 2, 7, 7}, err, sizeof err), "%s",
          err);
    CHECK(!picture_read(&out, in_folder("o.png"), 3, err, sizeof err), "%s", err);
    CHECK(out.width == 20 + 3 * 224 + 2 * 16 + 20 && out.height == 20 + 224 + 2 * 36 + 11, "height %d", out.height);
    int dark[3] = {0}; // along the footer's thirds: what is written, nothing, the scale
    for (int y = 20 + 224 + 36; y < out.height; y++) {
        for (int x = 0; x < out.width; x++)
            dark[3 * x / out.width] += out.pixels[3 * ((size_t)y * out.width + x)] < 128;
    }
    CHECK(dark[0] > 200 && dark[1] < 10 && dark[2] > 500, "the footer: %d, %d and %d dark pixels", dark[0], dark[1],
          dark[2]);
    picture_free(&out);
    EXPECT_LINE(overlay_write(in_folder("no/o.png"), &in, &(Overlay){NULL, maps, 2, 7, 7}, err, sizeof err),
                "No such file");
    EXPECT_LINE(overlay_write(in_folder("o.png"), &in, &(Overlay){NULL, maps, 0, 7, 7}, err, sizeof err),
                "expected 1 to");
    weights[1][48] = -1;
    EXPECT_LINE(overlay_write(in_folder("o.png"), &in, &(Overlay){NULL, maps, 2, 7, 7}, err, sizeof err),
                "row 6, column 6 of map 1");
    weights[1][48] = NAN;
    EXPECT_LINE(overlay_write(in_folder("o.png"), &in, &(Overlay){NULL, maps, 2, 7, 7}, err, sizeof err), "found nan");
    picture_free(&in);
}

static void overlay_of_any_shape(void) {
    static const int shapes[][4] = {{1, 1, 1, 1}, {100, 70, 3, 5}, {224, 300, 14, 14}, {63, 200, 2, 1}};
    char err[512] = "";
    float weights[196];
    for (int i = 0; i < 196; i++) weights[i] = (float)(i % 13) * 1e-6f;
    AttentionMap maps[11];
    for (int i = 0; i < 11; i++) maps[i] = (AttentionMap){"head", weights};
    for (int k = 0; k < 4; k++) {
        Picture in, out;
        CHECK(!picture_new(&in, shapes[k][0], shapes[k][1], 3, err, sizeof err), "%s", err);
        CHECK(!overlay_write(in_folder("o.png"), &in, &(Overlay){NULL, maps, k ? k : 11, shapes[k][2], shapes[k][3]},
                             err, sizeof err),
              "%s", err);
        CHECK(!picture_read(&out, in_folder("o.png"), 3, err, sizeof err), "%s", err);
        CHECK(out.width > 450 && out.height > 224, "found %d x %d", out.width, out.height);
        picture_free(&in);
        picture_free(&out);
    }
}

static void alignment_as_svg_and_png(void) {
    static const char *const in[] = {"<", "&", "\"", "a"}, *const out[] = {"\xc9\x99", "\xff\x01x", "\xf0\x9f\x99\x82"};
    static const float weights[12] = {1, 0, 0, 0, 0, 0.5f, 0.5f, 0, 0.25f, 0.25f, 0.25f, 0.25f};
    const AlignmentMap maps[] = {{"all & sundry", weights}, {"head 1", weights}, {"head 2", weights}};
    char err[512] = "";
    CHECK(!alignment_write(in_folder("a.svg"), &(Alignment){"in & out", "a < b", out, 3, in, 4, maps, 3}, err,
                           sizeof err),
          "%s", err);
    char *svg = read_file(in_folder("a.svg"), NULL);
    CHECK(xml_valid(svg), "the SVG is not well-formed");
    CHECK(!strncmp(svg, "<svg xmlns=\"http://www.w3.org/2000/svg\"", 39), "the SVG's first element");
    CHECK(strstr(svg, ">&lt;</text>") && strstr(svg, ">&amp;</text>") && strstr(svg, ">&quot;</text>"), "escapes");
    CHECK(strstr(svg, "all &amp; sundry") && strstr(svg, ">\xc9\x99</text>"), "UTF-8 stays");
    CHECK(strstr(svg, ">\xf0\x9f\x99\x82</text>"), "beyond the first plane as well");
    CHECK(strstr(svg, ">\xef\xbf\xbd\xef\xbf\xbdx</text>"), "what XML cannot hold is replaced");
    CHECK(count_of(svg, "class=\"h63\"") == 4, "weight 1 has the last colour in every map and in the scale");
    const char *dark = strstr(svg, "@media (prefers-color-scheme: dark){");
    CHECK(strstr(svg, ".h63{fill:#08285c}") && dark && strstr(dark, ".h63{fill:#d6ecff}"), "its colour by page");
    CHECK(strstr(svg, "<title>in &amp; out</title>") && strstr(svg, ">a &lt; b</text>"), "it has a title");
    free(svg);
    CHECK(!alignment_write(in_folder("a.png"), &(Alignment){"in & out", "a < b", out, 3, in, 4, maps, 3}, err,
                           sizeof err),
          "%s", err);
    Picture p;
    CHECK(!picture_read(&p, in_folder("a.png"), 3, err, sizeof err), "%s", err);
    CHECK(p.width >= 400 && p.width <= 910 && p.height >= 200 && p.height <= 600, "%d x %d", p.width, p.height);
    int deep = 0;
    for (int i = 0; i < p.width * p.height; i++) deep += !memcmp(p.pixels + 3 * i, "\x08\x28\x5c", 3);
    CHECK(deep > 45 * 45, "the cell of weight 1 is there: %d pixels", deep);
    picture_free(&p);
}

static void alignment_of_any_size(void) {
    enum { MOST = 40 };
    static float weights[MOST * MOST];
    const char *labels[MOST];
    AlignmentMap maps[34];
    for (int i = 0; i < MOST * MOST; i++) weights[i] = 1.0f / MOST;
    for (int i = 0; i < MOST; i++) labels[i] = i % 9 == 4 ? "a longer label" : i % 5 ? "x" : "\xc3\xa9";
    for (int i = 0; i < 34; i++) maps[i] = (AlignmentMap){"layer 1, head 1", weights};
    static const int cases[][3] = {{1, 1, 1}, {1, 30, 3}, {30, 1, 2}, {3, 2, 34}, {12, 12, 17}, {40, 40, 9}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const int *c = cases[k];
        char err[512] = "";
        Picture p;
        CHECK(!alignment_write(in_folder("b.svg"),
                               &(Alignment){"a title", "of two lines", labels, c[0], labels, c[1], maps, c[2]}, err,
                               sizeof err),
              "%s", err);
        char *svg = read_file(in_folder("b.svg"), NULL);
        CHECK(xml_valid(svg), "case %zu", k);
        free(svg);
        CHECK(!alignment_write(in_folder("b.png"),
                               &(Alignment){"a title", "of two lines", labels, c[0], labels, c[1], maps, c[2]}, err,
                               sizeof err),
              "%s", err);
        CHECK(!picture_read(&p, in_folder("b.png"), 3, err, sizeof err), "%s", err);
        CHECK(p.width >= 100 && p.width < 2000 && p.height < 2000, "case %zu: %d x %d", k, p.width, p.height);
        picture_free(&p);
    }
}

static void alignment_refuses(void) {
    static const char *const labels[] = {"a"};
    char err[512] = "";
    float weight = 1.5f;
    const AlignmentMap map = {"m", &weight};
    EXPECT_LINE(alignment_write(in_folder("a.pdf"),
                                &(Alignment){"a title", "of two lines", labels, 1, labels, 1, &map, 1}, err,
                                sizeof err),
                ".svg or .png");
    EXPECT_LINE(
        alignment_write("png", &(Alignment){"a title", "of two lines", labels, 1, labels, 1, &map, 1}, err, sizeof err),
        ".svg or .png");
    EXPECT_LINE(alignment_write(in_folder("a.svg"),
                                &(Alignment){"a title", "of two lines", labels, 1, labels, 1, &map, 1}, err,
                                sizeof err),
                "found 1.5");
    weight = NAN;
    EXPECT_LINE(alignment_write(in_folder("a.svg"),
                                &(Alignment){"a title", "of two lines", labels, 1, labels, 1, &map, 1}, err,
                                sizeof err),
                "expected 0 to 1");
    weight = 1;
    EXPECT_LINE(alignment_write(in_folder("a.svg"),
                                &(Alignment){"a title", "of two lines", labels, 0, labels, 1, &map, 1}, err,
                                sizeof err),
                "found 1 of 0 x 1");
    EXPECT_LINE(alignment_write(in_folder("a.svg"),
                                &(Alignment){"a title", "of two lines", labels, 1, labels, 1, &map, 0}, err,
                                sizeof err),
                "found 0 of 1 x 1");
    EXPECT_LINE(alignment_write(in_folder("no/a.svg"),
                                &(Alignment){"a title", "of two lines", labels, 1, labels, 1, &map, 1}, err,
                                sizeof err),
                "No such file");
    EXPECT_LINE(alignment_write(in_folder("no/a.png"),
                                &(Alignment){"a title", "of two lines", labels, 1, labels, 1, &map, 1}, err,
                                sizeof err),
                "No such file");
}

int main(void) {
    folder_make();
    RUN(png_of_every_colour_type);
    RUN(grey_is_luma_601);
    RUN(bmp_from_either_end);
    RUN(ppm_and_pgm);
    RUN(jpeg_is_close);
    RUN(gif_and_webp);
    RUN(bmp_of_os2);
    RUN(files_that_are_no_pictures);
    RUN(every_orientation);
    RUN(orientation_far_from_the_start);
    RUN(damaged_exif_counts_as_1);
    RUN(changed_exif_bytes);
    RUN(resize_is_pils);
    RUN(resize_keeps_a_constant);
    RUN(resize_refuses);
    RUN(crop_takes_the_middle);
    RUN(png_round_trip_and_drawing);
    RUN(steps_without_a_file_are_vits);
    RUN(steps_of_deit);
    RUN(steps_key_by_key);
    RUN(steps_by_the_shortest_edge);
    RUN(steps_that_cannot_be);
    RUN(steps_and_a_picture_that_differ);
    RUN(every_truncation_fails);
    RUN(headers_of_giants);
    RUN(bombs_do_not_grow);
    RUN(jpeg_tables_that_overflow);
    RUN(changed_bytes);
    RUN(idx_plain_and_gzipped);
    RUN(idx_every_truncation_fails);
    RUN(idx_that_cannot_be);
    RUN(overlay_is_a_row_of_panels);
    RUN(overlay_of_any_shape);
    RUN(alignment_as_svg_and_png);
    RUN(alignment_of_any_size);
    RUN(alignment_refuses);
    folder_remove();
    return test_report();
}
