// idx: reads the image and label files of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist), plain or gzipped.
//
// Owns the two formats of those sets, of unsigned bytes: magic 0x803 with three dimensions, 0x801 with one, all numbers
// big-endian. Refuses another magic, an empty dimension, more than MAX_IDX_BYTES (before memory is taken), and a file
// that is shorter or longer than its header says; of a set also labels that do not fit the pictures. Bytes behind the
// end of a gzip stream are ignored, as gzip does.
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { MAX_IDX_BYTES = 1 << 30 };

typedef struct {
    int n, height, width;
    uint8_t *pixels; // [n][height][width], owned
} IdxImages;

typedef struct {
    int n;
    uint8_t *labels; // [n], owned
} IdxLabels;

// 0, or -1 with one line in err and *x empty. The content tells whether a file is gzipped, not its name.
int idx_read_images(IdxImages *x, const char *path, char *err, size_t errlen);
int idx_read_labels(IdxLabels *x, const char *path, char *err, size_t errlen);
// Pictures and as many labels, all below n_labels, of paths[0] and paths[1]. -1 with a line in err, and both empty.
int idx_read_set(IdxImages *images, IdxLabels *labels, const char *const paths[2], int n_labels, char *err,
                 size_t errlen);
void idx_free_images(IdxImages *x); // accept zeroed ones
void idx_free_labels(IdxLabels *x);
