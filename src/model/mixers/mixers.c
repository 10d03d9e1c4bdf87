// mixers: the table of kinds of layers.
#include "mixer.h"

const Mixer *mixer_of(MixerKind kind) {
    static const Mixer *const mixers[N_MIXERS] = {[MIX_ATTENTION] = &mixer_attention};
    return mixers[kind];
}
