// picture: 8-bit pictures, and the preprocessing of a model's preprocessor_config.json. Called by vit, overlay,
// alignment.
//
// Owns resizing, cropping, writing PNG, drawing boxes and text, and the conversion to a vision transformer's input;
// reading is picture_file's. Refuses, each with one line, more than MAX_PIXELS pixels and settings that do not lead to
// the model's input size.
#pragma once
#include "file.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MAX_PIXELS = 64 << 20, // width x height
    MAX_SIDE = 65535,
    MAX_CHANNELS = 3
};

typedef struct {
    int width, height, channels; // 1 grey, 3 RGB
    uint8_t *pixels;             // [height][width][channels], owned; NULL: no picture
} Picture;

// Values of "resample" in preprocessor_config.json (those of PIL).
typedef enum {
    RESAMPLE_NEAREST = 0,
    RESAMPLE_LANCZOS = 1, // refused
    RESAMPLE_BILINEAR = 2,
    RESAMPLE_BICUBIC = 3
} Resample;

// Width x height zeroed (black) pixels.
int picture_new(Picture *p, int width, int height, int channels, char *err, size_t errlen);
void picture_free(Picture *p); // accepts a zeroed Picture

// *out (another Picture) becomes `in` at width x height, as PIL's Image.resize does it: nearest, or the antialiased
// convolution with a triangle (bilinear) or Catmull-Rom (bicubic) filter, along x and then along y, rounded to 8 bits
// in between. Against PIL 9.4, for 8 sizes of 3 kinds of picture and 8 target sizes, values differ by at most 2 grey
// levels, on average by 0.008 (bilinear) and 0.002 (bicubic), where a sum falls on a half; nearest is equal.
int picture_resize(Picture *out, const Picture *in, int width, int height, Resample r, char *err, size_t errlen);
// *out becomes the middle width x height pixels, an odd rest at the right and the bottom; never more than there is.
int picture_crop(Picture *out, const Picture *in, int width, int height, char *err, size_t errlen);
int picture_write_png(const Picture *p, const char *path, char *err, size_t errlen);

// Drawing, clipped to the picture. colour: [channels].
void picture_fill(Picture *p, int x, int y, int width, int height, const uint8_t *colour);
// One line in a bitmap font of 7 scale pixels for a capital; x, y: the left end and the top of the capitals. upward:
// the line runs upward from x (the capitals' top, at the left), y (their lower end). Bytes that are no printable ASCII
// are drawn as '?'.
void picture_text(Picture *p, int x, int y, int scale, bool upward, const uint8_t *colour, const char *text);
int picture_text_width(const char *text, int scale); // pixels, along the line

// Steps of ViTImageProcessor and DeiTImageProcessor (and their FeatureExtractor names), in the order they are taken.
typedef struct {
    bool assumed;       // there was no file: ViT's own values
    int size, channels; // of the model: the result is [channels][size][size]
    bool resize;
    int resize_width, resize_height; // 0: shortest_edge is used
    int shortest_edge;               // the other side follows the aspect ratio, rounded down; 0: unused
    Resample resample;
    bool crop; // the middle
    int crop_width, crop_height;
    bool rescale;
    double rescale_factor;
    bool normalize;
    float mean[MAX_CHANNELS], std[MAX_CHANNELS];
} Preprocess;

// Read FOLDER/preprocessor_config.json. Absent keys have the defaults of the processor that the file names; without a
// file, those of ViT: resize to image_size, bilinear, 1/255, mean and std 0.5. An error if the steps cannot result in
// image_size x image_size.
int preprocess_load(Preprocess *p, const char *folder, int image_size, int channels, char *err, size_t errlen);
// Apply the steps. in: of p->channels; pixels: [channels][size][size].
int preprocess_apply(const Preprocess *p, const Picture *in, float *pixels, char *err, size_t errlen);
