// vision: attention over pictures: channels and places that are weighed, patches, and text that looks at pictures.
//
// Owns the rows of squeeze-and-excitation, CBAM, ViT's patches and text between pictures. A feature map is the rows'
// values: a place of the grid a row, a channel each number, of as many columns as rows where it is full. Gates of
// channels and places have no softmax; the others are attention(). Refuses nothing. Draws: the channels' W_1
// [channels / 16][channels], then W_2 [channels][channels / 16], CBAM's 7 x 7 taps of means, then of maxima.
#include "soft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SE, CBAM };
enum { REDUCTION = 16, SIDE = 7 }; // channels for each hidden one; of CBAM's convolution

// ---- gates of channels and places

typedef struct {
    float *w1, *w2, *taps; // [hidden][channels], [channels][hidden], [2][SIDE][SIDE]
    int channels, hidden;
} Gates;

static void gates_open(Operator *op) {
    const Shape *s = &op->shape;
    Gates *g = op->own = operator_own(op, sizeof *g);
    uint64_t seed = s->seed;
    g->channels = s->n_kv_heads * s->head_dim;
    g->hidden = g->channels < REDUCTION ? 1 : g->channels / REDUCTION;
    int64_t n = (int64_t)g->channels * g->hidden;
    g->w1 = operator_normals(op, &seed, n, 1 / sqrtf((float)g->channels));
    g->w2 = operator_normals(op, &seed, n, 1 / sqrtf((float)g->hidden));
    g->taps = operator_normals(op, &seed, 2 * SIDE * SIDE, 1.0f / SIDE);
}

// y[channels] += W_2 relu(W_1 x)
static void add_excitation(const Gates *g, const float *x, float *y) {
    for (int i = 0; i < g->hidden; i++) {
        float sum = 0;
        for (int c = 0; c < g->channels; c++) sum += g->w1[(int64_t)i * g->channels + c] * x[c];
        if (sum <= 0) continue;
        for (int c = 0; c < g->channels; c++) y[c] += g->w2[(int64_t)c * g->hidden + i] * sum;
    }
}

// Of n numbers `stride` apart: their mean, then their largest.
static void pool(const float *x, int n, int64_t stride, float *mean, float *most) {
    *mean = 0;
    *most = x[0];
    for (int i = 0; i < n; i++) {
        *mean += x[i * stride] / (float)n;
        *most = fmaxf(*most, x[i * stride]);
    }
}

// The convolution over the grid's maps [2][n] at one place; 0 beyond the grid's edges and its last row's end.
static float convolve(const Gates *g, const float *maps, int n, int columns, int place) {
    float sum = 0;
    for (int i = 0; i < 2 * SIDE * SIDE; i++) {
        int y = place / columns + i / SIDE % SIDE - SIDE / 2, x = place % columns + i % SIDE - SIDE / 2;
        bool inside = y >= 0 && x >= 0 && x < columns && y * columns + x < n;
        if (inside) sum += g->taps[i] * maps[i / (SIDE * SIDE) * n + y * columns + x];
    }
    return sum;
}

static void gates_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    const Gates *g = op->own;
    int n = rows->n_keys, channels = g->channels, columns = (int)ceil(sqrt(n)), d = s->head_dim;
    bool places = op->mechanism->variant == CBAM;
    float *mean = floats_need(3LL * channels + 3LL * n), *most = mean + channels, *gate = most + channels;
    float *maps = gate + channels, *place = maps + 2LL * n, *x = floats_need((int64_t)n * channels);
    for (int c = 0; c < channels; c++) pool(rows->v + c, n, channels, mean + c, most + c);
    add_excitation(g, mean, gate);
    if (places) add_excitation(g, most, gate);
    for (int c = 0; c < channels; c++) gate[c] = sigmoidf(gate[c]);
    for (int64_t i = 0; i < (int64_t)n * channels; i++) x[i] = rows->v[i] * gate[i % channels];
    for (int t = 0; t < n; t++) {
        place[t] = 1;
        if (places) pool(x + (int64_t)t * channels, channels, 1, maps + t, maps + n + t);
    }
    for (int t = 0; t < n && places; t++) place[t] = sigmoidf(convolve(g, maps, n, columns, t));
    for (int64_t i = 0; i < (int64_t)n * s->n_heads; i++) {
        const float *from = x + key_place(s, i / s->n_heads, (int)(i % s->n_heads));
        for (int c = 0; c < d; c++) rows->out[i * d + c] = place[i / s->n_heads] * from[c];
    }
    op->flops += (places ? 8.0 : 3.0) * n * channels + (places ? 4.0 * SIDE * SIDE * n : 0);
    op->flops += (places ? 8.0 : 4.0) * channels * g->hidden;
    free(mean);
    free(x);
}

// ---- text between pictures

typedef struct {
    Soft soft;
    int asked; // queries so far
} Looks;

static void looks_open(Operator *op) {
    Looks *l = op->own = operator_own(op, sizeof *l);
    soft_open(&l->soft, op, 0, 0);
}

// A picture is `block` keys, and `block` queries follow each: a problem for each picture, whose bitmap is its bit.
static void pictures_step(Operator *op, const Rows *rows) {
    Looks *l = op->own;
    int block = op->shape.block, n_keys = op->length + rows->n_keys, n_pictures = (n_keys + block - 1) / block;
    int64_t width = query_width(&op->shape);
    uint8_t *bit = memset(floats_need(n_pictures), 0, (size_t)n_pictures);
    soft_store(&l->soft, rows->n_keys, rows->k, rows->v);
    for (int at = 0, n; at < rows->n_q; at += n, l->asked += n) {
        int picture = l->asked / block < n_pictures ? l->asked / block : n_pictures - 1;
        n = block - l->asked % block < rows->n_q - at ? block - l->asked % block : rows->n_q - at;
        Attention a = soft_problem(&l->soft, rows->q + at * width, rows->out + at * width, n, 0, n_keys);
        a.mask = (AttnMask){.bitmap = bit, .block = block, .bitmap_stride = n_pictures};
        bit[picture] = 1;
        soft_attend(op, &a, 1);
        bit[picture] = 0;
    }
    kvcache_advance(l->soft.cache, rows->n_keys);
    free(bit);
}

#define GATES(kind)                                                                                                    \
    .family = "vision", .time = TIME_WHOLE, .opaque = true, .variant = (kind), .open = gates_open, .step = gates_step

const Mechanism vision_rows[] = {
    {"se", "squeeze and excitation: a gate for each channel, from the means of all",
     "Hu et al. 2017, arXiv:1709.01507, equations 2 to 4",
     "o_t = sigmoid(W_2 relu(W_1 mean_t x_t)) * x_t,   x: values, a number a channel\n", "O(n D), D = heads d", "-",
     "0", "channels of convnets", GATES(SE),
     .published = "ResNet-50's top-1 error 24.80 -> 23.29 % (arXiv:1709.01507, table 2)"},
    {"cbam", "gates of channels, then of places", "Woo et al. 2018, arXiv:1807.06521, equations 2 and 3",
     "y_t = sigmoid(F(mean_t x_t) + F(max_t x_t)) * x_t,   F(z) = W_2 relu(W_1 z)\n"
     "o_t = sigmoid(conv 7 x 7 of [mean_c y; max_c y])_t y_t\n",
     "O(n D), D = heads d", "-", "0", "channels and places of convnets", GATES(CBAM),
     .published = "ResNet-50's top-1 error 24.56 -> 22.66 % (arXiv:1807.06521, table 4)"},
    {"vit", "patches of a picture as words", "Dosovitskiy et al. 2020, arXiv:2010.11929, equations 1 to 4",
     "o_t = sum_j softmax_j(q_t . k_j / sqrt(d)) v_j over the class token and all patches\n", "O(n^2 d)", "-", "2 n d",
     "pictures, with much data", .family = "vision", .time = TIME_WHOLE, .open = soft_plain_open,
     .step = soft_plain_step, .same_as = "bidirectional"},
    {"image-text", "text that looks at the picture before it", "Alayrac et al. 2022, arXiv:2204.14198, section 2.3",
     "o_t = sum_j softmax_j(q_t . k_j / sqrt(d)) v_j over the patches j of the picture before t\n", "O(n p d)",
     "O(p d)", "2 m d", "captions, questions about pictures", .family = "vision", .time = TIME_CROSS,
     .open = looks_open, .step = pictures_step},
    {0}};
