// mix_hyena: Hyena's operator of order 2 (arXiv:2302.10866, definition 3.1): gates around a convolution as long as the
// text.
//
//     x0, x1, v = conv(W_in x + b);  z = x1 * v;  y_t = W_out (x0_t * (sum_{j <= t} h_(t-j) * z_j + D * z_t)) + b
//     h_t = W3 sin(W2 sin(W1 sin(W0 e_t + b0) + b1) + b2) exp(-|delta| t / (L - 1)), section 3.3; * for each channel
//     e_t = t / (L - 1), cos(2 pi f t / L), -sin(2 pi f t / L); frequencies f from 1e-4 to their number less 1
// Owns the tensors of such a layer, its filters and its forward pass. What it keeps of the text is z, as the values of
// a KV cache without keys, and the last inputs of the short convolution. A token costs O(n) for each channel, a prompt
// O(n^2): the sums are in the order of the positions, so that no row's bits depend on how many are computed at once.
// Positions beyond L have the filter that the formula gives. Refuses nothing: sessions refuse a window, and a text
// longer than the filters.
#include "recurrent.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 64, ROWS = 16, CHUNK = 64, LAYERS = 4, SMALL = 1 << 16 };

_Static_assert(KV_BLOCK % CHUNK == 0, "a chunk of positions lies in one block of the cache");

typedef struct {
    Dense in, out;            // [3 dim][dim], [dim][dim]
    const float *taps, *bias; // of the short convolution: [width][3 dim], [3 dim]
    float *filters;           // for each CHANNELS channels [n_filters][channels], the last position's first; h_0 with D
    int n_filters;
} HyenaWeights;

// ---- filters

typedef struct {
    const float *w[LAYERS], *b[LAYERS]; // [out][in], [out]; the last has no b
    const float *decay, *skip;          // |delta|, D: [dim]
    int bands, width, dim, length;      // of Config
} FilterNetwork;

static void bind_network(Binder *b, FilterNetwork *f) {
    static const char *const parts[LAYERS] = {"hyena_filter_0", "hyena_filter_1", "hyena_filter_2", "hyena_filter_3"};
    const Config *c = b->config;
    *f = (FilterNetwork){.bands = c->filter_bands, .width = c->filter_dim, .dim = c->dim, .length = c->filter_length};
    for (int i = 0; i < LAYERS; i++) {
        const int64_t shape[] = {i + 1 < LAYERS ? f->width : f->dim, i ? f->width : 2 * f->bands + 1};
        f->w[i] = bind_floats(b, parts[i], ".weight", shape, 2);
        if (i + 1 < LAYERS) f->b[i] = bind_vector(b, parts[i], ".bias", f->width);
    }
    f->decay = bind_vector(b, "hyena_decay", "", f->dim);
    f->skip = bind_vector(b, "hyena_skip", "", f->dim);
}

// y[n] = w[n][m] x[m] + b
static void layer_of(double *y, const float *w, const float *b, const double *x, int n, int m) {
    for (int64_t i = 0; i < n; i++) {
        double sum = b ? (double)b[i] : 0;
        for (int j = 0; j < m; j++) sum += (double)w[i * m + j] * x[j];
        y[i] = sum;
    }
}

// What the network reads of a position: inputs[1 + 2 bands].
static void position_inputs(const FilterNetwork *f, int t, double *inputs) {
    static const double turn = 6.283185307179586, least = 1e-4;
    inputs[0] = (double)t / (f->length - 1);
    for (int i = 0; i < f->bands; i++) {
        double frequency = f->bands > 1 ? least + i * (f->bands - 1 - least) / (f->bands - 1) : least;
        double angle = turn * frequency * t / f->length;
        inputs[1 + i] = cos(angle);
        inputs[1 + f->bands + i] = -sin(angle);
    }
}

// The filter at a position, h[dim]; x, y: room for a layer's inputs and outputs.
static void filter_at(const FilterNetwork *f, int t, double *x, double *y, double *h) {
    position_inputs(f, t, x);
    for (int i = 0; i + 1 < LAYERS; i++) {
        layer_of(y, f->w[i], f->b[i], x, f->width, i ? f->width : 2 * f->bands + 1);
        for (int j = 0; j < f->width; j++) x[j] = sin(y[j]);
    }
    layer_of(h, f->w[LAYERS - 1], NULL, x, f->dim, f->width);
    for (int c = 0; c < f->dim; c++) {
        h[c] *= exp(-fabs((double)f->decay[c]) * t / (f->length - 1));
        if (t == 0) h[c] += (double)f->skip[c];
    }
}

static int tile_width(int dim, int first) {
    return dim - first < CHANNELS ? dim - first : CHANNELS;
}

// The filters of a tile of channels at a distance in positions; those of smaller distances follow it.
static float *filter_row(const HyenaWeights *w, int dim, int first, int distance) {
    return w->filters + (int64_t)w->n_filters * first + (int64_t)(w->n_filters - 1 - distance) * tile_width(dim, first);
}

// room: for the layers' inputs [widest], outputs [f->width], and a filter [dim].
static void fill_filters(const HyenaWeights *w, const FilterNetwork *f, double *room, int widest) {
    double *y = room + widest, *h = y + f->width;
    for (int t = 0; t < w->n_filters; t++) {
        filter_at(f, t, room, y, h);
        for (int c = 0; c < f->dim; c++) filter_row(w, f->dim, c / CHANNELS * CHANNELS, t)[c % CHANNELS] = (float)h[c];
    }
}

static void make_filters(Binder *b, HyenaWeights *w, const FilterNetwork *f) {
    int inputs = 2 * f->bands + 1, widest = inputs > f->width ? inputs : f->width, dim = f->dim;
    double *room = malloc(sizeof *room * ((size_t)widest + (size_t)f->width + (size_t)dim));
    w->n_filters = b->config->max_seq_len;
    w->filters = weights_own(b->weights, sizeof *w->filters * (size_t)w->n_filters * (size_t)dim);
    if (room && w->filters) fill_filters(w, f, room, widest);
    else binder_fail(b, "out of memory for filters of %d x %d values", w->n_filters, dim);
    free(room);
}

// ---- binding

static void hyena_bind(Binder *b, void *weights, const LayerKind *kind) {
    HyenaWeights *w = weights;
    FilterNetwork network;
    int64_t dim = b->config->dim;
    bind_dense(b, &w->in, "hyena_in", 3 * dim, dim, true);
    w->taps = bind_taps(b, "hyena_conv", kind->state.conv_width, kind->state.conv_dim);
    w->bias = bind_vector(b, "hyena_conv", ".bias", 3 * dim);
    bind_dense(b, &w->out, "hyena_out", dim, dim, true);
    bind_network(b, &network);
    if (!b->failed) make_filters(b, w, &network);
}

static uint64_t hyena_token_bytes(const void *weights) {
    const HyenaWeights *w = weights;
    return dense_bytes(&w->in) + dense_bytes(&w->out);
}

static size_t hyena_scratch(const LayerKind *kind) {
    return 2 * scratch_floats(3 * (int64_t)kind->v_dim) + scratch_floats(kind->v_dim);
}

static int hyena_widest_input(const LayerKind *kind) {
    return kind->v_dim;
}

// ---- forward

typedef struct {
    const HyenaWeights *weights;
    const MixerCall *call;
    int dim, n_tiles;                                                // of channels
    int first_items[MAX_SEGMENTS + 1], first_rows[MAX_SEGMENTS + 1]; // of each segment, and behind the last
    float *mixed;                                                    // [n][x0, x1, v][dim]; then v is z
    float *y;                                                        // [n][dim]
} Hyenas;

static void gate_rows(void *context, int row, int n) {
    const Hyenas *h = context;
    for (int64_t t = row; t < row + n; t++) {
        const float *x1 = h->mixed + t * 3 * h->dim + h->dim;
        float *v = h->mixed + t * 3 * h->dim + 2 * h->dim;
        for (int c = 0; c < h->dim; c++) v[c] *= x1[c];
    }
}

static void store(const Hyenas *h) {
    const MixerCall *call = h->call;
    for (int i = 0; i < call->pass->n_segments; i++) {
        const Segment *s = &call->pass->segments[i];
        const float *z = h->mixed + (int64_t)h->first_rows[i] * 3 * h->dim + 2 * h->dim;
        KvRows rows = {.k = z, .v = z, .k_ld = 3 * (int64_t)h->dim, .v_ld = 3 * (int64_t)h->dim}; // keys of no width
        kvcache_store_head(memory_cache(s->memory, call->layer), 0, 0, s->n, &rows);
    }
}

// Some channels of the inputs at positions first..first + n - 1 of one block.
typedef struct {
    int first, n, channel, width;
    const float *x[CHUNK];
    float copy[CHUNK * CHANNELS];
} Inputs;

static void read_inputs(Inputs *in, const KvView *view) {
    const float *rows = in->copy;
    int64_t ld = in->width;
    if (view->type == KV_DTYPE_F32) {
        const char *base = (const char *)view->blocks[in->first / KV_BLOCK] + view->v_offset;
        ld = view->v_dim;
        rows = (const float *)(const void *)base + in->first % KV_BLOCK * ld + in->channel;
    } else {
        kvview_values(view, 0, in->first, in->n, in->channel, in->width, in->copy);
    }
    for (int i = 0; i < in->n; i++) in->x[i] = rows + i * ld;
}

// A tile of channels of some rows of a segment: the long convolution, times x0.
static void convolve_item(void *context, int index, int worker) {
    (void)worker;
    const Hyenas *h = context;
    const Pass *pass = h->call->pass;
    const HyenaWeights *w = h->weights;
    const Kernels *kernels = pass->compute->kernels;
    int part = threads_part_of(index, h->first_items, pass->n_segments), item = index - h->first_items[part];
    const Segment *s = &pass->segments[part];
    const KvCache *cache = memory_cache(s->memory, h->call->layer);
    KvView view = kvcache_view(cache);
    int first = item / h->n_tiles * ROWS, n = s->n - first < ROWS ? s->n - first : ROWS,
        p0 = kvcache_length(cache) + first;
    int64_t row = h->first_rows[part] + first;
    Inputs in;
    in.channel = item % h->n_tiles * CHANNELS;
    in.width = tile_width(h->dim, in.channel);
    for (int t = 0; t < n; t++) memset(h->y + (row + t) * h->dim + in.channel, 0, sizeof *h->y * (size_t)in.width);
    for (in.first = 0; in.first < p0 + n; in.first += CHUNK) {
        in.n = p0 + n - in.first < CHUNK ? p0 + n - in.first : CHUNK;
        read_inputs(&in, &view);
        for (int t = 0; t < n; t++) {
            int distance = p0 + t - in.first, count = distance < in.n ? distance + 1 : in.n;
            float *y = h->y + (row + t) * h->dim + in.channel;
            if (count > 0) kernels->convolve(y, in.x, filter_row(w, h->dim, in.channel, distance), y, count, in.width);
        }
    }
    for (int t = 0; t < n; t++) {
        float *y = h->y + (row + t) * h->dim + in.channel;
        const float *x0 = h->mixed + (row + t) * 3 * h->dim + in.channel;
        for (int c = 0; c < in.width; c++) y[c] *= x0[c];
    }
}

static void convolve(Hyenas *h) {
    const Pass *pass = h->call->pass;
    double sums = 0;
    for (int i = 0; i < pass->n_segments; i++) {
        int n = pass->segments[i].n, length = kvcache_length(memory_cache(pass->segments[i].memory, h->call->layer));
        h->first_items[i + 1] = h->first_items[i] + (n + ROWS - 1) / ROWS * h->n_tiles;
        sums += (double)n * (length + 0.5 * (n + 1)) * h->dim;
    }
    profile_begin(pass->compute->profile, PROFILE_RECURRENCE);
    threads_for_if(sums >= SMALL, pass->compute->pool, h->first_items[pass->n_segments], convolve_item, h);
    profile_end(pass->compute->profile, 2 * sums, 0);
}

static void hyena_forward(const void *weights, const MixerCall *call) {
    const HyenaWeights *w = weights;
    const Pass *pass = call->pass;
    int dim = call->kind->v_dim;
    float *all = pass->scratch, *mixed = all + scratch_floats(3 * (int64_t)dim * pass->n);
    Hyenas h = {.weights = w, .call = call, .dim = dim, .n_tiles = (dim + CHANNELS - 1) / CHANNELS, .mixed = mixed};
    h.y = mixed + scratch_floats(3 * (int64_t)dim * pass->n);
    for (int i = 0; i < pass->n_segments; i++) h.first_rows[i + 1] = h.first_rows[i] + pass->segments[i].n;
    ops_linear(pass->compute, &(Linear){.w = &w->in.w, .y = all, .bias = w->in.bias}, 1, call->x, pass->n);
    mixer_convolve(call, all, 3 * (int64_t)dim, w->taps, w->bias, ACT_NONE, mixed);
    mixer_rows(pass, dim, gate_rows, &h);
    store(&h);
    convolve(&h);
    Linear out = {.w = &w->out.w, .y = call->y, .bias = w->out.bias, .add = call->add};
    ops_linear(pass->compute, &out, 1, h.y, pass->n);
}

const Mixer mixer_hyena = {
    .name = "Hyena",
    .weights_size = sizeof(HyenaWeights),
    .bind = hyena_bind,
    .token_bytes = hyena_token_bytes,
    .scratch = hyena_scratch,
    .widest_input = hyena_widest_input,
    .forward = hyena_forward,
};
