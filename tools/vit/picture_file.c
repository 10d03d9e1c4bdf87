// picture_file: see picture_file.h. Each decoder turns a file into RGBA and the number of its orientation; what follows
// is the same for all.
#include "picture_file.h"

#include <gif_lib.h>
#include <libexif/exif-data.h>
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>
#include <webp/decode.h>
#include <webp/demux.h>

#define STBI_ONLY_BMP
#define STBI_ONLY_PNM
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_MAX_DIMENSIONS MAX_SIDE
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>

typedef struct {
    uint8_t *rgba; // [height][width][4], malloc'd
    int width, height;
    int orientation; // EXIF's, 1 to 8; anything else is 1
} Decoded;

// One decoder's work: the file, what comes of it, and where a line goes.
typedef struct {
    const File *file;
    Decoded *to;
    char *err;
    size_t errlen;
} Decoding;

// Room for the pixels, transparent; -1 with one line for more than is read.
static int make_room(Decoding *d, int64_t width, int64_t height) {
    const char *path = d->file->path;
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE || width * height > MAX_PIXELS) {
        return fail(d->err, d->errlen, "%s: expected sides of 1 to %d and at most %d pixels, found %lld x %lld", path,
                    MAX_SIDE, MAX_PIXELS, (long long)width, (long long)height);
    }
    d->to->rgba = calloc((size_t)(width * height), 4);
    if (!d->to->rgba) return fail(d->err, d->errlen, "%s: out of memory for its pixels", path);
    d->to->width = (int)width;
    d->to->height = (int)height;
    return 0;
}

// A decoder's reason, which may quote the file.
static int refuse(Decoding *d, const char *kind, const char *reason) {
    char text[128];
    snprintf(text, sizeof text, "%s", reason && *reason ? reason : "damaged");
    for (char *c = text; *c; c++) {
        if (*c < ' ' || *c > '~') *c = '?';
    }
    return fail(d->err, d->errlen, "%s: cannot decode the %s: %s", d->file->path, kind, text);
}

// ---- EXIF

typedef struct {
    const uint8_t *data;
    size_t size;
} Bytes;

static const uint8_t exif_start[6] = "Exif\0"; // before the TIFF header; a PNG's chunk does without
enum { MAX_EXIF = 0xfff0 };                    // bytes that libexif reads, a little more than a JPEG's segment holds

static bool starts_exif(Bytes b) {
    return b.size >= sizeof exif_start && !memcmp(b.data, exif_start, sizeof exif_start);
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

// 1 to 8; 1 where there is none, one that EXIF does not allow, or no memory to read it.
static int orientation_of(Bytes found) {
    if (!found.size) return 1;
    int orientation = 1;
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
        if (value >= 1 && value <= 8) orientation = value;
    }
    free(block);
    if (exif) exif_data_unref(exif);
    return orientation;
}

// ---- PNG

typedef struct {
    Decoding *d;
    size_t pos;
    jmp_buf failed;
    png_structp png;
    png_infop info, end;
    png_bytepp rows;
} PngReader;

_Noreturn static void png_failed(png_structp png, png_const_charp reason) {
    PngReader *r = png_get_error_ptr(png);
    refuse(r->d, "PNG", reason);
    longjmp(r->failed, 1);
}

static void png_warned(png_structp png, png_const_charp reason) {
    (void)png;
    (void)reason;
}

static void png_more(png_structp png, png_bytep to, size_t n) {
    PngReader *r = png_get_io_ptr(png);
    const File *f = r->d->file;
    if (n > f->size - r->pos) png_error(png, "the file ends before the picture does");
    memcpy(to, f->data + r->pos, n);
    r->pos += n;
}

// Ends in png_failed where something is wrong.
static int png_read_all(PngReader *r) {
    png_set_read_fn(r->png, r, png_more);
    png_set_user_limits(r->png, MAX_SIDE, MAX_SIDE);
    png_set_keep_unknown_chunks(r->png, PNG_HANDLE_CHUNK_NEVER, (png_const_bytep) "eXIf", 1); // read here
    png_set_crc_action(r->png, PNG_CRC_ERROR_QUIT, PNG_CRC_WARN_DISCARD);
    png_read_info(r->png, r->info);
    if (make_room(r->d, png_get_image_width(r->png, r->info), png_get_image_height(r->png, r->info))) return -1;
    png_set_expand(r->png);
    png_set_strip_16(r->png);
    png_set_gray_to_rgb(r->png);
    png_set_add_alpha(r->png, 255, PNG_FILLER_AFTER);
    png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    size_t row = 4 * (size_t)r->d->to->width;
    if (png_get_rowbytes(r->png, r->info) != row) png_error(r->png, "rows of an unexpected size");
    r->rows = malloc(sizeof *r->rows * (size_t)r->d->to->height);
    if (!r->rows) png_error(r->png, "out of memory");
    for (int y = 0; y < r->d->to->height; y++) r->rows[y] = r->d->to->rgba + row * (size_t)y;
    png_read_image(r->png, r->rows);
    png_read_end(r->png, r->end);
    r->d->to->orientation = orientation_of(exif_of_png(r->d->file));
    return 0;
}

static int decode_png(Decoding *d) {
    PngReader r = {.d = d};
    PngReader *volatile kept = &r;
    volatile int rc = -1;
    if (!setjmp(r.failed)) {
        kept->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, kept, png_failed, png_warned);
        kept->info = kept->png ? png_create_info_struct(kept->png) : NULL;
        kept->end = kept->info ? png_create_info_struct(kept->png) : NULL;
        rc = kept->end ? png_read_all(kept) : refuse(d, "PNG", "out of memory");
    } else rc = -1;
    free(kept->rows);
    if (kept->png) png_destroy_read_struct(&kept->png, &kept->info, &kept->end);
    return rc;
}

// ---- JPEG

static uint8_t product(uint8_t a, uint8_t b) {
    return (uint8_t)((a * b + 127) / 255);
}

// An end that is missing is only a warning to the library.
static bool jpeg_ends_early(tjhandle t) {
    return tjGetErrorCode(t) != TJERR_WARNING || strstr(tjGetErrorStr2(t), "remature end") != NULL;
}

// Damage within the data is a picture all the same; but the first warning tells whether the end is missing.
static int jpeg_read(Decoding *d, tjhandle t, int format) {
    const File *f = d->file;
    for (int strict = 1; strict >= 0; strict--) {
        int flags = TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS | (strict ? TJFLAG_STOPONWARNING : 0);
        if (!tjDecompress2(t, f->data, f->size, d->to->rgba, d->to->width, 0, d->to->height, format, flags)) return 0;
        if (jpeg_ends_early(t)) return refuse(d, "JPEG", tjGetErrorStr2(t));
    }
    return 0;
}

static int decode_jpeg(Decoding *d) {
    const File *f = d->file;
    int width = 0, height = 0, sampling, colours = 0;
    tjhandle t = tjInitDecompress();
    if (!t) return refuse(d, "JPEG", "out of memory");
    int rc = tjDecompressHeader3(t, f->data, f->size, &width, &height, &sampling, &colours);
    if (rc && tjGetErrorCode(t) != TJERR_WARNING) rc = refuse(d, "JPEG", tjGetErrorStr2(t));
    else rc = make_room(d, width, height);
    bool cmyk = colours == TJCS_CMYK || colours == TJCS_YCCK;
    if (!rc) rc = jpeg_read(d, t, cmyk ? TJPF_CMYK : TJPF_RGBA);
    size_t n = rc || !cmyk ? 0 : (size_t)width * height;
    for (size_t i = 0; i < n; i++) {
        uint8_t *p = d->to->rgba + 4 * i;
        for (int c = 0; c < 3; c++) p[c] = product(p[c], p[3]);
        p[3] = 255;
    }
    if (!rc) d->to->orientation = orientation_of(exif_of_jpeg(f));
    tjDestroy(t);
    return rc;
}

// ---- GIF

typedef struct {
    const File *file;
    size_t pos;
} GifReader;

static int gif_more(GifFileType *gif, GifByteType *to, int n) {
    GifReader *r = gif->UserData;
    size_t left = r->file->size - r->pos, got = n < 0 ? 0 : (size_t)n;
    if (got > left) got = left;
    memcpy(to, r->file->data + r->pos, got);
    r->pos += got;
    return (int)got;
}

// Reads up to the first frame's description; the transparent entry of its palette, or -1. GIF_ERROR: there is none.
static int gif_first_frame(GifFileType *gif, int *transparent) {
    GifRecordType type = UNDEFINED_RECORD_TYPE;
    *transparent = NO_TRANSPARENT_COLOR;
    while (DGifGetRecordType(gif, &type) == GIF_OK && type == EXTENSION_RECORD_TYPE) {
        int code;
        GifByteType *part;
        if (DGifGetExtension(gif, &code, &part) != GIF_OK) return GIF_ERROR;
        GraphicsControlBlock control;
        if (part && code == GRAPHICS_EXT_FUNC_CODE && DGifExtensionToGCB(part[0], part + 1, &control) == GIF_OK) {
            *transparent = control.TransparentColor;
        }
        while (part) {
            if (DGifGetExtensionNext(gif, &part) != GIF_OK) return GIF_ERROR;
        }
    }
    return type == IMAGE_DESC_RECORD_TYPE ? DGifGetImageDesc(gif) : GIF_ERROR;
}

// One row of the frame to its place; what lies outside the canvas is left out.
static void gif_put_row(Decoded *to, const GifFileType *gif, int y, const GifByteType *row, int transparent) {
    const GifImageDesc *at = &gif->Image;
    const ColorMapObject *colours = at->ColorMap ? at->ColorMap : gif->SColorMap;
    if (at->Top + y >= to->height) return;
    for (int x = 0; x < at->Width && at->Left + x < to->width; x++) {
        if (row[x] == transparent || row[x] >= colours->ColorCount) continue;
        const GifColorType *c = &colours->Colors[row[x]];
        uint8_t *p = to->rgba + 4 * ((size_t)(at->Top + y) * to->width + at->Left + x);
        p[0] = c->Red;
        p[1] = c->Green;
        p[2] = c->Blue;
        p[3] = 255;
    }
}

static int gif_read_rows(Decoding *d, GifFileType *gif, int transparent) {
    static const int starts[] = {0, 4, 2, 1, 0}, steps[] = {8, 8, 4, 2, 1}; // interlaced in four passes, or the last
    int height = gif->Image.Height, width = gif->Image.Width;
    GifByteType *row = malloc((size_t)width);
    if (!row) return refuse(d, "GIF", "out of memory");
    int rc = 0;
    for (int pass = gif->Image.Interlace ? 0 : 4; !rc && pass < (gif->Image.Interlace ? 4 : 5); pass++) {
        for (int y = starts[pass]; !rc && y < height; y += steps[pass]) {
            if (DGifGetLine(gif, row, width) != GIF_OK) rc = refuse(d, "GIF", GifErrorString(gif->Error));
            else gif_put_row(d->to, gif, y, row, transparent);
        }
    }
    free(row);
    return rc;
}

static int decode_gif(Decoding *d) {
    GifReader r = {.file = d->file};
    int why = 0, transparent;
    GifFileType *gif = DGifOpen(&r, gif_more, &why);
    if (!gif) return refuse(d, "GIF", GifErrorString(why));
    int rc = gif_first_frame(gif, &transparent) == GIF_OK ? 0 : refuse(d, "GIF", "no frame, or the file ends in it");
    const GifImageDesc *at = &gif->Image;
    if (!rc && (at->Width < 1 || at->Height < 1)) rc = refuse(d, "GIF", "an empty frame");
    if (!rc && !at->ColorMap && !gif->SColorMap) rc = refuse(d, "GIF", "no palette");
    if (!rc) rc = make_room(d, gif->SWidth, gif->SHeight);
    if (!rc) rc = gif_read_rows(d, gif, transparent);
    DGifCloseFile(gif, &why);
    return rc;
}

// ---- WebP

static int webp_read_frame(Decoding *d, WebPDemuxer *demuxer) {
    WebPIterator frame;
    WebPChunkIterator exif;
    int width = (int)WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_WIDTH);
    int height = (int)WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_HEIGHT), frame_width = 0, frame_height = 0;
    if (make_room(d, width, height)) return -1;
    if (!WebPDemuxGetFrame(demuxer, 1, &frame)) return refuse(d, "WebP", "no frame");
    size_t first = 4 * ((size_t)frame.y_offset * width + frame.x_offset), size = 4 * (size_t)width * height;
    WebPGetInfo(frame.fragment.bytes, frame.fragment.size, &frame_width, &frame_height);
    bool fits = frame_width == frame.width && frame_height == frame.height && frame.x_offset >= 0 &&
                frame.y_offset >= 0 && frame_width <= width - frame.x_offset && frame_height <= height - frame.y_offset;
    bool read = fits && WebPDecodeRGBAInto(frame.fragment.bytes, frame.fragment.size, d->to->rgba + first, size - first,
                                           4 * width) != NULL;
    WebPDemuxReleaseIterator(&frame);
    if (!read) return refuse(d, "WebP", "damaged");
    if (WebPDemuxGetChunk(demuxer, "EXIF", 1, &exif)) {
        d->to->orientation = orientation_of((Bytes){exif.chunk.bytes, exif.chunk.size});
        WebPDemuxReleaseChunkIterator(&exif);
    }
    return 0;
}

static int decode_webp(Decoding *d) {
    WebPData data = {d->file->data, d->file->size};
    WebPDemuxer *demuxer = WebPDemux(&data);
    if (!demuxer) return refuse(d, "WebP", "damaged, or the file ends before the picture does");
    int rc = webp_read_frame(d, demuxer);
    WebPDemuxDelete(demuxer);
    return rc;
}

// ---- BMP, PPM and PGM

typedef struct {
    const File *file;
    size_t pos;
    bool past_end; // the decoder wanted more when nothing was left
} StbReader;

static int stb_read(void *user, char *data, int n) {
    StbReader *r = user;
    size_t left = r->file->size - r->pos, got = n < 0 ? 0 : (size_t)n;
    if (got > left) got = left;
    if (n > 0 && left == 0) r->past_end = true;
    memcpy(data, r->file->data + r->pos, got);
    r->pos += got;
    return (int)got;
}

static void stb_skip(void *user, int n) {
    StbReader *r = user;
    size_t left = r->file->size - r->pos, step = n < 0 ? 0 : (size_t)n;
    if (step > left) r->past_end = true;
    r->pos += step < left ? step : left;
}

static int stb_eof(void *user) {
    const StbReader *r = user;
    return r->pos >= r->file->size;
}

static const stbi_io_callbacks stb_calls = {stb_read, stb_skip, stb_eof};

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

// OS/2's palette has three bytes an entry, of which stb_image loses the last ones.
static bool is_os2_with_palette(const File *f) {
    const uint8_t *b = f->data;
    return f->size >= 26 && b[14] == 12 && !b[15] && !b[16] && !b[17] && b[24] <= 8;
}

static int decode_stb(Decoding *d) {
    const File *f = d->file;
    const char *path = f->path;
    bool bmp = f->data[0] == 'B';
    int width = 0, height = 0, n = 0;
    if (bmp && is_os2_with_palette(f)) {
        return fail(d->err, d->errlen, "%s: a BMP of OS/2 with a palette: expected one of Windows", path);
    }
    if (!bmp && check_pnm(f, d->err, d->errlen)) return -1;
    StbReader r = {.file = f};
    if (!stbi_info_from_callbacks(&stb_calls, &r, &width, &height, &n)) {
        return refuse(d, bmp ? "BMP" : "PPM",
                      "its header is damaged, or of a kind that is not read (compressed), or too large");
    }
    if (make_room(d, width, height < 0 ? -(int64_t)height : height)) return -1; // below 0: a BMP stored from the top
    r = (StbReader){.file = f};
    uint8_t *pixels = stbi_load_from_callbacks(&stb_calls, &r, &width, &height, &n, 4);
    int rc = 0;
    if (r.past_end) rc = refuse(d, bmp ? "BMP" : "PPM", "the file ends before the picture does");
    else if (!pixels || width != d->to->width || height != d->to->height)
        rc = refuse(d, bmp ? "BMP" : "PPM", stbi_failure_reason());
    else memcpy(d->to->rgba, pixels, 4 * (size_t)width * height);
    free(pixels);
    return rc;
}

// ---- any of them

static uint8_t over_white(uint8_t v, uint8_t alpha) {
    return (uint8_t)((v * alpha + 255 * (255 - alpha) + 127) / 255);
}

static void convert_pixel(uint8_t *to, int channels, const uint8_t *rgba) {
    uint8_t rgb[3];
    for (int c = 0; c < 3; c++) rgb[c] = over_white(rgba[c], rgba[3]);
    if (channels == 3) memcpy(to, rgb, 3);
    else to[0] = (uint8_t)((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16);
}

// Where each orientation's pixels lie in the file, as TIFF 6.0 has them: 5 to 8 lie on their side.
static int upright(Picture *p, const Decoded *from, int channels, char *err, size_t errlen) {
    static const bool from_right[9] = {[2] = true, [3] = true, [7] = true, [8] = true};
    static const bool from_bottom[9] = {[3] = true, [4] = true, [6] = true, [7] = true};
    int o = from->orientation >= 1 && from->orientation <= 8 ? from->orientation : 1;
    bool turned = o >= 5;
    int width = turned ? from->height : from->width, height = turned ? from->width : from->height;
    if (picture_new(p, width, height, channels, err, errlen)) return -1;
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++) {
            int at_x = turned ? y : x, at_y = turned ? x : y;
            if (from_right[o]) at_x = from->width - 1 - at_x;
            if (from_bottom[o]) at_y = from->height - 1 - at_y;
            const uint8_t *rgba = from->rgba + 4 * ((size_t)at_y * from->width + at_x);
            convert_pixel(p->pixels + ((size_t)y * width + x) * channels, channels, rgba);
        }
    }
    return 0;
}

static bool begins(const File *f, size_t at, const char *bytes, size_t n) {
    return f->size >= at + n && !memcmp(f->data + at, bytes, n);
}

typedef int Decoder(Decoding *d);

static Decoder *decoder_of(const File *f) {
    if (begins(f, 0, "\x89PNG", 4)) return decode_png;
    if (begins(f, 0, "\xff\xd8", 2)) return decode_jpeg;
    if (begins(f, 0, "GIF8", 4)) return decode_gif;
    if (begins(f, 0, "RIFF", 4) && begins(f, 8, "WEBP", 4)) return decode_webp;
    if (begins(f, 0, "BM", 2) || begins(f, 0, "P5", 2) || begins(f, 0, "P6", 2)) return decode_stb;
    return NULL;
}

int picture_decode(Picture *p, const File *file, int channels, char *err, size_t errlen) {
    *p = (Picture){0};
    if (channels != 1 && channels != 3) {
        return fail(err, errlen, "%s: expected 1 or 3 channels to be asked for, found %d", file->path, channels);
    }
    if (file->size > MAX_PICTURE_BYTES) {
        return fail(err, errlen, "%s: a picture: expected at most %d bytes, found %zu", file->path, MAX_PICTURE_BYTES,
                    file->size);
    }
    Decoder *decode = decoder_of(file);
    if (!decode) {
        return fail(err, errlen, "%s: expected a PNG, JPEG, GIF, WebP, BMP or PPM picture, found none", file->path);
    }
    Decoded decoded = {0};
    int rc = decode(&(Decoding){file, &decoded, err, errlen});
    if (!rc) rc = upright(p, &decoded, channels, err, errlen);
    free(decoded.rgba);
    return rc;
}

static int read_stdin(Picture *p, int channels, char *err, size_t errlen) {
    static char name[] = "stdin";
    size_t room = 1 << 16, n = 0, got;
    uint8_t *bytes = malloc(room);
    while (bytes && n <= MAX_PICTURE_BYTES && (got = fread(bytes + n, 1, room - n, stdin)) > 0) {
        n += got;
        uint8_t *more = n < room ? bytes : realloc(bytes, room *= 2);
        if (!more) free(bytes);
        bytes = more;
    }
    if (!bytes) return fail(err, errlen, "stdin: out of memory after %zu bytes", n);
    int rc = ferror(stdin) ? fail(err, errlen, "stdin: cannot be read")
             : n == 0      ? fail(err, errlen, "stdin: expected a picture, found nothing")
                           : 0;
    File file = {.path = name, .data = bytes, .size = n, .borrowed = true};
    if (!rc) rc = picture_decode(p, &file, channels, err, errlen);
    free(bytes);
    return rc;
}

int picture_read(Picture *p, const char *path, int channels, char *err, size_t errlen) {
    *p = (Picture){0};
    if (!strcmp(path, "-")) return read_stdin(p, channels, err, errlen);
    File file;
    if (file_map(&file, path, err, errlen)) return -1;
    int rc = picture_decode(p, &file, channels, err, errlen);
    file_unmap(&file);
    return rc;
}
