// rope: rotary positions (arXiv:2104.09864, eq. 34) and their scaling.
//
// Owns the frequencies of a kind of layer at a context limit, tables of cos and sin for rows at any positions, and the
// rotation. One set of frequencies serves a whole timeline, since keys in a cache have been rotated already: what
// depends on the length of the text (dynamic NTK, LongRoPE) depends on the context limit here.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Which two dimensions of a head rotate together.
typedef enum {
    ROPE_INTERLEAVED, // (2i, 2i + 1): llama2.c, Llama-arch GGUF
    ROPE_HALF,        // (i, i + rotary_dim / 2): Hugging Face
} RopePairing;

// How rotary positions are scaled beyond the training context.
typedef enum {
    ROPE_UNSCALED,
    ROPE_LINEAR,  // positions / factor (arXiv:2306.15595)
    ROPE_DYNAMIC, // NTK-aware: theta grows with the context limit beyond the original one
    ROPE_YARN,    // by frequency: high ones stay, low ones are interpolated (arXiv:2309.00071, section 3.2)
    ROPE_LLAMA3,  // by wavelength, smooth between two borders (Llama 3.1)
    ROPE_LONG,    // a factor for each frequency, of two lists the one for the context limit (arXiv:2402.13753)
} RopeScalingKind;

typedef struct {
    RopeScalingKind kind;
    float factor;
    int original_ctx;            // the training context
    float low_freq, high_freq;   // ROPE_LLAMA3: wavelengths original_ctx / these
    float beta_fast, beta_slow;  // ROPE_YARN: rotations within original_ctx
    bool whole_dims;             // ROPE_YARN: the borders between frequencies are rounded outwards
    float attention_factor;      // ROPE_YARN, ROPE_LONG: cos and sin are times it; 0: the papers' formulas
    float long_attention_factor; // ROPE_LONG: in place of it where the long list counts; 0: the same
} RopeScaling;

typedef struct {
    int rotary_dim; // dimensions of a head that rotate, from the first, even; 0: no rotary positions
    float theta;
    RopePairing pairing;
    RopeScaling scaling;
} RopeConfig;

bool rope_config_equal(const RopeConfig *a, const RopeConfig *b);

// Frequencies at a context limit. n 0: no rotary positions.
typedef struct {
    int n;             // frequencies: rotary_dim / 2
    double *frequency; // [n] radians a position; owned
    float magnitude;   // of the rotated vector, usually 1
} Rope;

// factors[rotary_dim / 2]: what the model's file divides each frequency by, NULL: nothing. -1 with a line in err when
// memory runs out.
int rope_open(Rope *r, const RopeConfig *c, int n_ctx, const float *factors, char *err, size_t errlen);
void rope_close(Rope *r); // accepts a zeroed one
// Does this context limit take ROPE_LONG's list of long factors?
bool rope_is_long(const RopeConfig *c, int n_ctx);

// table[n_rows][n][2] = cos, sin of row i at positions[i].
void rope_table(const Rope *r, float *table, const int32_t *positions, int n_rows);
// Rotate one head's vectors x[n_rows], ld floats apart, by a table of n_freqs frequencies.
void rope_rotate(float *x, int64_t ld, const float *table, int n_freqs, RopePairing pairing, int n_rows);
