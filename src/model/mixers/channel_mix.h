// channel_mix: the feed-forward layers of RWKV, which read a row and the one before it.
//
//     RWKV-7 (arXiv:2503.14456):  y = W_v relu(W_k x_k)^2
//     RWKV-6 (arXiv:2404.05892):  y = sigmoid(W_r x_r) W_v relu(W_k x_k)^2
// with x_c = x + (x of the row before - x) mix_c. Owns their tensors and forward pass. The row before lies in the
// layer's state, in the channels behind those of its mixer.
#pragma once
#include "ffn.h"
#include "mixer.h"

typedef struct {
    FeedForward ffn;            // W_k and W_v
    const float *mix_k, *mix_r; // [dim]; mix_r NULL: RWKV-7
    Dense receptance;           // [dim][dim] W_r
} ChannelMix;

enum { CHANNEL_MIX_ROWS = 3 }; // of dim floats, of scratch for each row

void channel_mix_bind(Binder *b, ChannelMix *m);
uint64_t channel_mix_token_bytes(const ChannelMix *m);
// y[n][dim] = channel_mix(x[n][dim]), or += with add, of the rows of the pass. scratch: [n][CHANNEL_MIX_ROWS][dim].
void channel_mix_forward(const ChannelMix *m, const Pass *pass, int layer, const FeedForwardBuffers *b, float *scratch,
                         const float *x, float *y, bool add);
