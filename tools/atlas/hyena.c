// hyena: long convolutions with filters that a small network gives, in place of attention.
//
// Owns the row, its filters and the Fourier transform that makes a prompt cost O(n log n). A token that is generated
// has no transform to share: it costs O(n) for each channel and reads the whole past, as a KV cache does. Refuses
// nothing. Draws: W1 [HIDDEN][INPUTS], b [HIDDEN], W2 [channels][HIDDEN], then the taps [TAPS][3 channels].
#include "convolution.h"
#include "mechanism.h"

#include <math.h>
#include <string.h>

enum { HIDDEN = 16, INPUTS = 5, TAPS = 3, PIECE = 256 };

// op->state: of the short convolutions over queries, keys and values.
typedef struct {
    float *network; // W1, b
    float *w2, *taps;
    float *filters;       // [channels][n_max], each in reverse, so that a row is a dot product
    float *past;          // [channels][n_max] k * v
    float *roots;         // cosines, then sines [size]: of half a turn over h steps, at h + j
    float *joined, *made; // [PIECE][3 channels] of the short convolutions
    int size, fft;        // of the largest transform, and of the step's; 0: it has none
} Hyena;

// ---- filters

// h(t) = W2 sin(W1 e(t) + b) fading at a rate of the channel's own; h(0) + 1, the skip connection.
static void make_filter(const Work *w, int channel) {
    const Hyena *y = w->op->own;
    int n = w->op->shape.n_max;
    const float *w1 = y->network, *b = w1 + HIDDEN * INPUTS, *w2 = y->w2 + (int64_t)channel * HIDDEN;
    float *h = y->filters + (int64_t)channel * n, rate = (float)(2 + 4 * (channel % 8));
    for (int t = 0; t < n; t++) {
        float at = (float)t / (float)n, turn = 6.28318530718f * at, sum = 0;
        const float input[INPUTS] = {at, cosf(turn), sinf(turn), cosf(2 * turn), sinf(2 * turn)};
        for (int i = 0; i < HIDDEN; i++) {
            float x = b[i];
            for (int j = 0; j < INPUTS; j++) x += w1[i * INPUTS + j] * input[j];
            sum += w2[i] * sinf(x);
        }
        h[n - 1 - t] = sum * expf(-rate * at) / sqrtf((float)n) + (t == 0);
    }
}

static void hyena_open(Operator *op) {
    int64_t channels = query_width(&op->shape), n = op->shape.n_max;
    Hyena *y = op->own = operator_own(op, sizeof *y);
    for (y->size = 2; y->size < 2 * n; y->size *= 2) continue;
    y->network = operator_normals(op, HIDDEN * INPUTS + HIDDEN, 1);
    y->w2 = operator_normals(op, channels * HIDDEN, 1 / sqrtf(HIDDEN));
    y->taps = operator_normals(op, channels * 3 * TAPS, 1 / sqrtf(TAPS));
    y->filters = operator_floats(op, channels * n);
    y->past = operator_floats(op, channels * n);
    y->roots = operator_floats(op, 2LL * y->size);
    y->joined = operator_floats(op, PIECE * 3 * channels);
    y->made = operator_floats(op, PIECE * 3 * channels);
    for (int h = 1; h < y->size; h *= 2) {
        for (int j = 0; j < h && h + j < y->size; j++) {
            y->roots[h + j] = (float)cos(3.14159265358979323846 * j / h);
            y->roots[y->size + h + j] = (float)-sin(3.14159265358979323846 * j / h);
        }
    }
    operator_state(op, &(StateShape){.conv_width = TAPS, .conv_dim = (int)(3 * channels)});
    operator_scratch(op, 2LL * y->size);
    operator_for(op, NULL, (int)channels, make_filter);
}

// ---- the transform of n complex numbers, a power of 2; the spectrum is in bit-reversed order

// forward: exp(-2 pi i / n); else its inverse times n.
static void transform(const Hyena *y, float *restrict re, float *restrict im, int n, bool forward) {
    for (int h = forward ? n / 2 : 1; h >= 1 && h < n; h = forward ? h / 2 : 2 * h) {
        const float *restrict c = y->roots + h, *restrict s = y->roots + y->size + h;
        for (int block = 0; block < n; block += 2 * h) {
            float *restrict ar = re + block, *restrict ai = im + block, *restrict br = ar + h, *restrict bi = ai + h;
            for (int j = 0; j < h; j++) {
                float tr = forward ? br[j] : br[j] * c[j] + bi[j] * s[j];
                float ti = forward ? bi[j] : bi[j] * c[j] - br[j] * s[j];
                float dr = ar[j] - tr, di = ai[j] - ti;
                ar[j] += tr;
                ai[j] += ti;
                br[j] = forward ? dr * c[j] - di * s[j] : dr;
                bi[j] = forward ? dr * s[j] + di * c[j] : di;
            }
        }
    }
}

// With X the spectrum of z + i h for real z and h, that of their convolution is (X_k^2 - conj(X_-k)^2) / 4i. In
// bit-reversed order the numbers k with the same lowest bit lie together, and -k is the mirror image.
static void multiply(float *re, float *im, int n) {
    for (int first = 0; first < n; first = first ? 2 * first : 1) {
        int end = first ? 2 * first : 1;
        for (int a = first, b = end - 1; a <= b; a++, b--) {
            float ar = re[a], ai = im[a], br = re[b], bi = im[b];
            float real = ar * ar - ai * ai - br * br + bi * bi,
                  imaginary = 2 * (ar * ai + br * bi); // of 4i the product
            re[a] = re[b] = imaginary / 4;
            im[a] = -real / 4;
            im[b] = real / 4;
        }
    }
}

// ---- a step

// Of one channel: the rows' convolution with all of the past, times the queries behind theirs, which stand in out.
static void convolve_channel(const Work *w, int channel) {
    const Operator *op = w->op;
    const Hyena *y = op->own;
    int n_max = op->shape.n_max, n = w->rows->n_keys, length = op->length + n, size = y->fft;
    int64_t width = query_width(&op->shape);
    const float *z = y->past + (int64_t)channel * n_max, *h = y->filters + (int64_t)channel * n_max;
    float *out = w->rows->out + channel, *re = w->scratch, *im = re + size;
    if (!size) {
        for (int t = op->length; t < length; t++) {
            float sum;
            op->compute->kernels->matvec_f32(&sum, 0, h + n_max - 1 - t, n_max, z, 0, 1, 1, t + 1);
            out[(t - op->length) * width] *= sum;
        }
        return;
    }
    memset(re, 0, 2 * sizeof *re * (size_t)size);
    memcpy(re, z, sizeof *re * (size_t)length);
    for (int t = 0; t < length; t++) im[t] = h[n_max - 1 - t];
    transform(y, re, im, size, true);
    multiply(re, im, size);
    transform(y, re, im, size, false);
    for (int t = 0; t < n; t++) out[t * width] *= re[op->length + t] / (float)size;
}

// Queries, keys and values through their short convolutions: the queries to out, the others' products to the past.
static void shift_piece(Operator *op, const Rows *rows) {
    const Hyena *y = op->own;
    int64_t width = query_width(&op->shape), n = rows->n_keys;
    const float *const from[] = {rows->q, rows->k, rows->v};
    for (int64_t i = 0; i < 3 * n; i++) {
        memcpy(y->joined + i * width, from[i % 3] + i / 3 * width, sizeof(float) * (size_t)width);
    }
    Convolution c = {op->state, rows->n_keys, y->joined, 3 * width, .taps = y->taps, .y = y->made};
    convolution(op->compute, &c, 1);
    state_advance(op->state, rows->n_keys);
    for (int64_t i = 0; i < n; i++) {
        const float *made = y->made + i * 3 * width;
        memcpy(rows->out + i * width, made, sizeof *made * (size_t)width);
        for (int64_t j = 0; j < width; j++) {
            y->past[j * op->shape.n_max + op->length + i] = made[width + j] * made[2 * width + j];
        }
    }
}

static void hyena_step(Operator *op, const Rows *rows) {
    Hyena *y = op->own;
    int n = rows->n_keys, size = 2, bits = 1;
    double width = (double)query_width(&op->shape), length = op->length + n;
    step_pieces(op, rows, PIECE, shift_piece);
    for (; size < 2 * length; size *= 2) bits++;
    double transforms = 10.0 * size * bits + 9.0 * size, sums = 2.0 * n * (op->length + 0.5 * (n + 1));
    y->fft = transforms < sums ? size : 0;
    operator_for(op, rows, (int)width, convolve_channel);
    op->flops += width * ((y->fft ? transforms : sums) + n * (6.0 * TAPS + 2));
    op->held += sizeof(float) * width * n; // keys times values; the filters are weights
}

const Mechanism hyena_rows[] = {
    {"hyena", .opaque = true, .each_head = true, .open = hyena_open, .step = hyena_step},
    {0},
};
