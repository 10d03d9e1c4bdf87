// gates: the gates of a feature map: of channels, as squeeze-and-excitation has them (arXiv:1709.01507, equations 2 to
// 4), and of channels, then places, as CBAM has them (arXiv:1807.06521, equations 1 to 3).
//
// Owns their arithmetic. Refuses nothing: shapes were checked by the model. Called by convnet_model, the atlas's rows
// of pictures, and their checks.
#pragma once
#include <stdint.h>

enum { GATE_SIDE = 7 }; // of CBAM's convolution

typedef struct {
    int channels, hidden;
    const float *w1;   // [hidden][channels]
    const float *w2;   // [channels][hidden]
    const float *taps; // [2][GATE_SIDE][GATE_SIDE], of the map of means, then of maxima; NULL: places have no gates
} Gates;

// What gates_apply needs for n places.
int64_t gates_floats(const Gates *g, int n);
// Multiplies x [n][channels] by its gates. The places are a grid in rows of `columns`, the last of which may be short.
// work: gates_floats; its first `channels` numbers are then the gates of the channels, the n behind them those of the
// places (1 where there are none).
void gates_apply(const Gates *g, float *x, int n, int columns, float *work);
