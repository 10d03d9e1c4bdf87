// mixer: how a layer mixes information between positions, behind one interface.
//
// A kind of layer is a file of this folder that fills one Mixer, and a row of mixers.c. The data that it reads and
// writes is declared here: rows of the residual stream, cut into segments, each of one sequence of tokens (a timeline).
// What a mixer keeps from pass to pass goes into the segment's Memory. The layer stack calls it (layers.h).
#pragma once
#include "attention.h"
#include "binder.h"
#include "layer_memory.h"

enum { MAX_SEGMENTS = 64 };

// Consecutive rows of a pass that belong to one timeline.
typedef struct {
    Memory *memory;         // where the rows' keys and values go, and what they attend to
    const Memory *cross;    // what cross-attention reads; NULL: none
    int n;                  // rows
    const uint8_t *visible; // visible[row * stride + position] != 0: the row sees it (a window still applies); NULL:
                            // causal or bidirectional as the config says
    int stride;
} Segment;

// Called after each attention, for visualisation; *a is valid during the call.
typedef void (*AttentionVisitor)(void *context, int layer, int segment, const Attention *a);

// One pass of rows through the layers.
typedef struct {
    const Config *config;
    const Compute *compute;
    const Segment *segments;
    int n_segments;
    int n;                                     // rows of all segments
    float *scratch;                            // [rows][the largest Mixer.scratch]
    float *carried;                            // [rows][the largest Mixer.carried] from layer to layer
    const float *rope_tables[MAX_LAYER_KINDS]; // by kind: [n][rotary_dim] cos and sin; NULL: no rotary positions
    AttentionVisitor visit;                    // NULL: nobody
    void *visit_context;
} Pass;

// A mixer's arguments: y[n][dim] = mixer(x[n][dim]), or += with add; y may be x with add.
typedef struct {
    const Pass *pass;
    const LayerKind *kind;
    int kind_index; // of the kind in config->kinds
    int layer;
    const float *x;
    float *y;
    bool add;
} MixerCall;

// attention() over the pass's problems, one of each segment, then the pass's visitor. Where the compute is exact, each
// query is a problem of its own, so that its bits are those of a token that is decoded alone.
void mixer_attend(const MixerCall *call, const Attention *list);

typedef struct {
    const char *name;                                              // for people
    size_t weights_size;                                           // sizeof the weights of a layer, which bind fills
    void (*bind)(Binder *b, void *weights, const LayerKind *kind); // tensors of b->layer; b->failed on failure
    uint64_t (*token_bytes)(const void *weights);                  // weight bytes that a decoded token reads
    size_t (*scratch)(const LayerKind *kind);                      // floats a row
    size_t (*carried)(const LayerKind *kind); // floats a row that later layers of the pass read; NULL: none
    int (*reserve)(Compute *c, const LayerKind *kind, char *err, size_t errlen); // scratch of the workers; NULL: none
    int (*widest_input)(const LayerKind *kind);                                  // columns of its widest matrix
    void (*forward)(const void *weights, const MixerCall *call);                 // cannot fail
} Mixer;

const Mixer *mixer_of(MixerKind kind);
extern const Mixer mixer_attention, mixer_latent, mixer_delta, mixer_rwkv6, mixer_rwkv7, mixer_ssm, mixer_ssm_attention,
    mixer_conv, mixer_mamba, mixer_linear, mixer_hyena;

// Elementwise work, split over threads by rows of the pass: called for rows row..row + n - 1. width: values of a row
// that it works on, to judge what is small.
typedef void (*RowTask)(void *context, int row, int n);
void mixer_rows(const Pass *pass, int width, RowTask task, void *context);
