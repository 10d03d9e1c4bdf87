// gates: see gates.h.
#include "gates.h"

#include "ops.h"

int64_t gates_floats(const Gates *g, int n) {
    return 3LL * g->channels + 3LL * n;
}

// gate[channels] += W_2 relu(W_1 x)
static void add_excitation(const Gates *g, const float *x, float *gate) {
    for (int i = 0; i < g->hidden; i++) {
        float sum = 0;
        for (int c = 0; c < g->channels; c++) sum += g->w1[(int64_t)i * g->channels + c] * x[c];
        if (sum <= 0) continue;
        for (int c = 0; c < g->channels; c++) gate[c] += g->w2[(int64_t)c * g->hidden + i] * sum;
    }
}

// mean[channels], most[channels]: scratch memory.
static void gate_channels(const Gates *g, const float *x, int n, float *gate, float *mean, float *most) {
    int channels = g->channels;
    for (int c = 0; c < channels; c++) {
        gate[c] = mean[c] = 0;
        most[c] = x[c];
    }
    for (int64_t t = 0; t < n; t++) {
        const float *row = x + t * channels;
        for (int c = 0; c < channels; c++) {
            mean[c] += row[c];
            most[c] = row[c] > most[c] ? row[c] : most[c];
        }
    }
    for (int c = 0; c < channels; c++) mean[c] /= (float)n;
    add_excitation(g, mean, gate);
    if (g->taps) add_excitation(g, most, gate);
    for (int c = 0; c < channels; c++) gate[c] = sigmoidf(gate[c]);
}

// One map's share of the convolution at row y, column x; 0 beyond the grid's edges and its last row's end.
static float convolve(const float *taps, const float *map, int n, int columns, int y, int x) {
    float sum = 0;
    int half = GATE_SIDE / 2, left = x < half ? half - x : 0, right = columns - x + half;
    if (right > GATE_SIDE) right = GATE_SIDE;
    for (int i = y < half ? half - y : 0; i < GATE_SIDE; i++) {
        int row = (y + i - half) * columns, at = row + x - half;
        int end = n - at < right ? n - at : right;
        for (int j = left; j < end; j++) sum += taps[i * GATE_SIDE + j] * map[at + j];
    }
    return sum;
}

// maps[2][n]: scratch memory for each place's mean and largest channel.
static void gate_places(const Gates *g, const float *x, int n, int columns, float *gate, float *maps) {
    for (int t = 0; t < n; t++) {
        const float *row = x + (int64_t)t * g->channels;
        float sum = 0, most = row[0];
        for (int c = 0; c < g->channels; c++) {
            sum += row[c];
            most = row[c] > most ? row[c] : most;
        }
        maps[t] = sum / (float)g->channels;
        maps[n + t] = most;
    }
    for (int t = 0; t < n; t++) {
        int y = t / columns, at = t % columns;
        gate[t] = sigmoidf(convolve(g->taps, maps, n, columns, y, at) +
                           convolve(g->taps + GATE_SIDE * GATE_SIDE, maps + n, n, columns, y, at));
    }
}

void gates_apply(const Gates *g, float *x, int n, int columns, float *work) {
    int channels = g->channels;
    float *gate = work, *place = gate + channels, *mean = place + n, *most = mean + channels, *maps = most + channels;
    gate_channels(g, x, n, gate, mean, most);
    for (int64_t t = 0; t < n; t++) {
        for (int c = 0; c < channels; c++) x[t * channels + c] *= gate[c];
    }
    for (int t = 0; t < n; t++) place[t] = 1;
    if (!g->taps) return;
    gate_places(g, x, n, columns, place, maps);
    for (int64_t t = 0; t < n; t++) {
        for (int c = 0; c < channels; c++) x[t * channels + c] *= place[t];
    }
}
