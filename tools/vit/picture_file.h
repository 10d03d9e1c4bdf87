// picture_file: pictures in files. Called by vit.
//
// Owns which kinds are read: PNG (libpng), JPEG (libjpeg-turbo), GIF (giflib) and WebP (libwebp), of moving ones the
// first frame; BMP, binary PPM and PGM (stb_image). What all have in common: transparent parts are laid over white, 16
// bits are cut to their upper 8, colour becomes grey by ITU-R 601-2 luma (PIL's convert("L")), and an EXIF orientation
// (libexif; of JPEG, PNG and WebP) is applied. CMYK is taken for Adobe's inverted one, with its marker or without, and
// becomes RGB as the product with the black. Refuses, each with one line: other kinds of file, more than MAX_PIXELS
// pixels, truncated and damaged files, a PPM whose largest value is not 255, and BMPs of OS/2 with a palette.
#pragma once
#include "picture.h"

enum { MAX_PICTURE_BYTES = 1 << 30 }; // of a file

// Read `path` ("-": stdin) as grey (channels 1) or RGB (3). On failure *p is empty.
int picture_read(Picture *p, const char *path, int channels, char *err, size_t errlen);
// The same from a file that is already mapped (or in memory); file->path is for messages.
int picture_decode(Picture *p, const File *file, int channels, char *err, size_t errlen);
