// gguf_recurrent: layers with a recurrent state in GGUF's terms: the inverse of what their mixers bind.
//
// Owns the order of heads, channels and rows that each family's files have.
#pragma once
#include "gguf_list.h"
#include "mix_conv.h"
#include "mix_delta.h"
#include "mix_mamba.h"
#include "mix_rwkv6.h"
#include "mix_rwkv7.h"
#include "mix_ssm.h"

void add_short_convolution(List *l, const LayerKind *kind, const ConvWeights *w);
void add_delta(List *l, const LayerKind *kind, const DeltaWeights *w);
void add_ssm(List *l, const StateShape *s, const SsmWeights *w);
void add_mamba(List *l, const StateShape *s, const MambaWeights *w);
void add_rwkv7(List *l, const Rwkv7Weights *w);
void add_rwkv6(List *l, const LayerKind *kind, const Rwkv6Weights *w);
void add_channel_mix(List *l, const ChannelMix *m);
