// convnet_model: small residual convolutional networks for image classification (arXiv:1512.03385), whose blocks may
// weigh their channels (squeeze-and-excitation) or channels and places (CBAM).
//
// Owns their settings and tensors, as tools/train/convnet.py writes them, and the forward pass. A feature map is
// [places][channels], row by row. Every convolution has a bias, into which batch norm was folded. Refuses a folder
// whose config.json and tensors do not match. Called by convnet and its check.
#pragma once
#include "gates.h"

#include "ops.h"
#include "weights.h"

enum { MAX_BLOCKS = 64 };

// Stride 1 or 2, padded by kernel / 2 zeros each way: a side of s pixels becomes (s - 1) / stride + 1.
typedef struct {
    Dense dense; // fp32 [out][kernel * kernel * in], in the file [out][kernel][kernel][in]
    int in, out, kernel, stride;
} Conv;

typedef struct {
    Conv conv1, conv2; // 3 x 3
    Conv shortcut;     // 1 x 1, where the block changes side or channels; else out is 0
    Gates gates;       // of conv2's output; channels 0: none
} Block;

typedef struct {
    Weights weights;
    const char *attention; // "none", "se", "cbam"
    int side;              // of the pictures, pixels
    float mean, std;       // of pixels in 0..1, taken off and divided by
    Conv stem;             // 3 x 3
    Block blocks[MAX_BLOCKS];
    int n_blocks, n_labels;
    Dense head; // [n_labels][channels], of the mean over the last map's places
    char **labels;
    int64_t map_floats, patch_floats, gate_floats; // the largest of any layer
} Convnet;

// -1 with a line in err.
int convnet_open(Convnet *v, const char *path, char *err, size_t errlen);
void convnet_close(Convnet *v); // accepts a zeroed one

// Called with the gates of each block that has some, as gates_apply leaves them, over a map of `side` places a side.
// Of several pictures at once, from several threads.
typedef void (*GateVisitor)(void *context, int block, const Gates *g, const float *gates, int side);

typedef struct {
    const uint8_t *pixels; // [n][side][side]
    int n;
    float *logits;     // [n][n_labels], the output
    GateVisitor visit; // NULL: not called
    void *context;     // of visit
} ConvnetBatch;

// Each picture is computed by one of n_threads threads, so that the result does not depend on their number. -1 with a
// line in err.
int convnet_classify(const Convnet *v, const ConvnetBatch *batch, int n_threads, char *err, size_t errlen);
