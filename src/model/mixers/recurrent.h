// recurrent: what the mixers with a recurrent state have in common.
//
// Owns the binding of a convolution's taps and the lists of timelines that convolutions and recurrences take. Refuses
// nothing.
#pragma once
#include "convolution.h"
#include "mixer.h"
#include "recurrence.h"
#include "recurrence_channels.h"
#include "scan.h"

// Taps [width][channels] of a causal convolution, whose file has [channels][width], or [channels][1][width] outside
// GGUF. NULL after a failure.
const float *bind_taps(Binder *b, const char *part, int width, int channels);
// Values [rows][cols], which a file may have as one vector. NULL after a failure.
const float *bind_table(Binder *b, const char *part, const char *suffix, int64_t rows, int64_t cols);
// ssm_a, values [rows][cols] below 0: -exp(A_log) of what a folder has. NULL after a failure.
const float *bind_decays(Binder *b, int64_t rows, int64_t cols);
// log(1 + exp(x)), with ggml's border beyond which it is x.
float softplus(float x);

// Convolve rows x[n][ld] of all segments into y[n][conv_dim].
void mixer_convolve(const MixerCall *call, const float *x, int64_t ld, const float *taps, const float *bias,
                    Activation act, float *y);

// `all` describes rows of the whole pass: the first segment's pointers, each the first row's. Runs every segment's.
void mixer_recur(const MixerCall *call, const Recurrence *all);
void mixer_recur_channels(const MixerCall *call, const ChannelRecurrence *all);
void mixer_scan(const MixerCall *call, const Scan *all);

// previous[n][dim]: the row before each row of x[n][dim], by the layer's state and its channels from `first` on.
void mixer_shift(const Pass *pass, int layer, int first, int dim, const float *x, float *previous);
