// rope: rotary positions (arXiv:2104.09864, eq. 34) and how families stretch them.
//
// Owns the frequencies of a model at a context limit, tables of cos and sin for a block of positions, and the turn.
// One set of frequencies serves a whole timeline, since keys in a cache have been turned already: what depends on the
// length of the text (dynamic NTK, LongRoPE) depends on the context limit here.
#pragma once
#include "config.h"

typedef struct {
    int n;             // frequencies: half of the dimensions that turn
    double *frequency; // [n] radians a position; owned
    float magnitude;   // of the turned vector, usually 1
} Rope;

// local: of the layers with a window. factors[n]: what the model's file divides each frequency by, NULL: nothing.
// -1 with a line in err when memory runs out.
int rope_open(Rope *r, const Config *c, bool local, int n_ctx, const float *factors, char *err, size_t errlen);
void rope_close(Rope *r);
// Does this context limit take ROPE_LONG's list of long factors?
bool rope_is_long(const Config *c, int n_ctx);

// table[n_positions][n][2] = cos, sin at positions pos0..
void rope_table(const Rope *r, float *table, int pos0, int n_positions);
// Turn one head's vectors x[n_positions], ld floats apart.
void rope_turn(const Rope *r, float *x, int64_t ld, const float *table, RopePairing pairing, int n_positions);
