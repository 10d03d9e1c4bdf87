// convnet_model: see convnet_model.h.
#include "convnet_model.h"

#include "file.h"
#include "labels.h"
#include "load.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SIDE_PIXELS = 4096, MAX_MAP_CHANNELS = 4096, MOST_FLOATS = 1 << 28, NAME_ROOM = 64 };

// ---- settings

typedef struct {
    int stem, reduction;
    int channels[MAX_BLOCKS], strides[MAX_BLOCKS];
} Shapes;

// An array of v->n_blocks integers.
static void read_integers(Settings *s, const char *key, int n, int most, int *out) {
    double numbers[MAX_BLOCKS] = {0};
    if (!settings_numbers(s, key, n, numbers)) settings_fail(s, key, "expected an array of %d numbers, not found", n);
    for (int i = 0; i < n && !settings_failed(s); i++) {
        bool whole = numbers[i] >= 1 && numbers[i] <= most && numbers[i] == (int)numbers[i];
        if (!whole) settings_fail(s, key, "expected integers from 1 to %d, found %g", most, numbers[i]);
        out[i] = whole ? (int)numbers[i] : 1;
    }
}

static void read_attention(Convnet *v, Settings *s) {
    static const char *const kinds[] = {"none", "se", "cbam"};
    const char *name = settings_string(s, "attention", NULL);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!strcmp(name, kinds[i])) v->attention = kinds[i];
    }
    if (!v->attention) settings_fail(s, "attention", "expected none, se or cbam, found '%.40s'", name);
}

static int read_settings(Convnet *v, Shapes *shapes, Settings *s) {
    const char *type = settings_string(s, "model_type", "convnet");
    if (strcmp(type, "convnet") != 0) settings_fail(s, "model_type", "expected convnet, found '%.40s'", type);
    read_attention(v, s);
    v->side = settings_int(s, "image_size", 1, MAX_SIDE_PIXELS, 0);
    v->mean = (float)settings_number(s, "image_mean", 0, 1, -1);
    v->std = (float)settings_number(s, "image_std", 1e-6, 1, -1);
    shapes->stem = settings_int(s, "stem_channels", 1, MAX_MAP_CHANNELS, 0);
    shapes->reduction = settings_int(s, "reduction", 1, MAX_MAP_CHANNELS, 16);
    v->n_blocks = settings_int(s, "num_blocks", 1, MAX_BLOCKS, 0);
    read_integers(s, "channels", v->n_blocks, MAX_MAP_CHANNELS, shapes->channels);
    read_integers(s, "strides", v->n_blocks, 2, shapes->strides);
    v->n_labels = labels_read(&v->labels, s);
    return s->failed ? -1 : 0;
}

// ---- tensors

// Finds the tensors one after another; after a failure it does nothing.
typedef struct {
    Convnet *v;
    int side; // of the map so far
    size_t n_found;
    bool failed;
    char *err;
    size_t errlen;
} Finder;

__attribute__((format(printf, 4, 5))) static const float *find(Finder *f, const int64_t *shape, int n_dims,
                                                               const char *fmt, ...) {
    char name[NAME_ROOM];
    va_list args;
    if (f->failed) return NULL;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    const float *values = weights_floats(&f->v->weights, name, shape, n_dims, f->err, f->errlen);
    int64_t n = 1;
    for (int i = 0; i < n_dims; i++) n *= shape[i];
    f->failed = !values;
    if (values && !floats_finite(values, n)) { // relu would hide it
        fail(f->err, f->errlen, "%s: tensor %s: expected finite numbers", f->v->weights.files[0].path, name);
        f->failed = true;
    }
    f->n_found++;
    return values;
}

static Dense find_dense(Finder *f, const char *name, const int64_t *shape, int n_dims) {
    Dense d = {.w = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {shape[0], 1}}};
    for (int i = 1; i < n_dims; i++) d.w.shape[1] *= shape[i];
    d.w.data = find(f, shape, n_dims, "%s.weight", name);
    d.bias = find(f, shape, 1, "%s.bias", name);
    return d;
}

static int shrunk(int side, int stride) {
    return (side - 1) / stride + 1;
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

// All that a block or the stem needs is found by its names, "blocks.0.conv1"; the side is that of its input.
static Conv find_conv(Finder *f, const char *name, int side, int in, int out, int kernel, int stride) {
    Conv c = {.in = in, .out = out, .kernel = kernel, .stride = stride};
    int64_t places = shrunk(side, stride);
    places *= places;
    c.dense = find_dense(f, name, (int64_t[]){out, kernel, kernel, in}, 4);
    f->v->map_floats = larger(f->v->map_floats, larger(places * out, (int64_t)side * side * in));
    f->v->patch_floats = larger(f->v->patch_floats, places * kernel * kernel * in);
    return c;
}

static Gates find_gates(Finder *f, int block, int channels, int reduction) {
    Gates g = {.channels = channels, .hidden = channels > reduction ? channels / reduction : 1};
    g.w1 = find(f, (int64_t[]){g.hidden, channels}, 2, "blocks.%d.gates.w1", block);
    g.w2 = find(f, (int64_t[]){channels, g.hidden}, 2, "blocks.%d.gates.w2", block);
    if (!strcmp(f->v->attention, "cbam")) {
        g.taps = find(f, (int64_t[]){2, GATE_SIDE, GATE_SIDE}, 3, "blocks.%d.gates.taps", block);
    }
    f->v->gate_floats = larger(f->v->gate_floats, gates_floats(&g, f->side * f->side));
    return g;
}

static void find_block(Finder *f, int i, int in, const Shapes *shapes) {
    char name[NAME_ROOM];
    Block *b = &f->v->blocks[i];
    int out = shapes->channels[i], stride = shapes->strides[i], side = f->side;
    f->side = shrunk(side, stride);
    snprintf(name, sizeof name, "blocks.%d.conv1", i);
    b->conv1 = find_conv(f, name, side, in, out, 3, stride);
    snprintf(name, sizeof name, "blocks.%d.conv2", i);
    b->conv2 = find_conv(f, name, f->side, out, out, 3, 1);
    snprintf(name, sizeof name, "blocks.%d.shortcut", i);
    if (in != out || stride > 1) b->shortcut = find_conv(f, name, side, in, out, 1, stride);
    if (strcmp(f->v->attention, "none") != 0) b->gates = find_gates(f, i, out, shapes->reduction);
}

static int bind(Convnet *v, const Shapes *shapes, char *err, size_t errlen) {
    Finder f = {.v = v, .side = v->side, .err = err, .errlen = errlen};
    const char *path = v->weights.files[0].path;
    int channels = shapes->stem;
    v->stem = find_conv(&f, "stem", v->side, 1, channels, 3, 1);
    for (int i = 0; i < v->n_blocks; i++) {
        find_block(&f, i, channels, shapes);
        channels = shapes->channels[i];
    }
    v->head = find_dense(&f, "classifier", (int64_t[]){v->n_labels, channels}, 2);
    if (f.failed) return -1;
    if (f.n_found != weights_count(&v->weights)) {
        return fail(err, errlen, "%s: expected the %zu tensors that config.json describes, found %zu", path, f.n_found,
                    weights_count(&v->weights));
    }
    if (v->map_floats <= MOST_FLOATS && v->patch_floats <= MOST_FLOATS) return 0;
    return fail(err, errlen, "%s: expected maps of at most %d numbers, found %lld", path, MOST_FLOATS,
                (long long)larger(v->map_floats, v->patch_floats));
}

int convnet_open(Convnet *v, const char *path, char *err, size_t errlen) {
    memset(v, 0, sizeof *v);
    Settings s;
    Shapes shapes;
    if (load_config(&s, path, err, errlen)) return -1;
    bool bad = read_settings(v, &shapes, &s) || load_safetensors(&v->weights, path, err, errlen) ||
               bind(v, &shapes, err, errlen);
    settings_free(&s);
    if (bad) convnet_close(v);
    return bad ? -1 : 0;
}

void convnet_close(Convnet *v) {
    labels_free(v->labels, v->n_labels);
    weights_free(&v->weights);
    memset(v, 0, sizeof *v);
}

// ---- the forward pass of one picture

typedef struct {
    Compute compute; // of one thread
    float *memory;
    float *x, *hidden, *y, *patches, *gates, *pooled;
    char err[200]; // empty: no failure
} Worker;

static int worker_open(Worker *s, const Convnet *v, char *err, size_t errlen) {
    if (compute_open(&s->compute, 1, err, errlen)) return -1;
    int room = 0;
    const Buffer list[] = {{&s->x, (size_t)v->map_floats},         {&s->hidden, (size_t)v->map_floats},
                           {&s->y, (size_t)v->map_floats},         {&s->pooled, (size_t)v->head.w.shape[1]},
                           {&s->patches, (size_t)v->patch_floats}, {&s->gates, (size_t)v->gate_floats}};
    return buffers_reserve(&s->memory, &room, 1, list, sizeof list / sizeof *list, "pictures", err, errlen);
}

static void worker_close(Worker *s) {
    compute_close(&s->compute);
    free(s->memory);
}

// Each output place's neighbourhood [kernel][kernel][in] as a row; zeros beyond the edges.
static void cut_patches(const Conv *c, const float *x, int side, float *rows) {
    int out = shrunk(side, c->stride), width = c->kernel * c->in;
    for (int at = 0; at < out * out; at++) {
        int top = at / out * c->stride - c->kernel / 2, left = at % out * c->stride - c->kernel / 2;
        int first = left < 0 ? -left * c->in : 0, end = left + c->kernel > side ? (side - left) * c->in : width;
        for (int y = top; y < top + c->kernel; y++, rows += width) {
            bool inside = y >= 0 && y < side;
            if (!inside || end - first < width) memset(rows, 0, sizeof *rows * (size_t)width);
            if (!inside) continue;
            int64_t from = ((int64_t)y * side + left) * c->in + first;
            memcpy(rows + first, x + from, sizeof *rows * (size_t)(end - first));
        }
    }
}

// y [out places][out channels] (+)= act(the convolution of x [side * side][in]); returns the side of y.
static int convolve(Worker *s, const Conv *c, const float *x, int side, Linear to) {
    int out = shrunk(side, c->stride);
    cut_patches(c, x, side, s->patches);
    to.w = &c->dense.w;
    to.bias = c->dense.bias;
    ops_linear(&s->compute, &to, 1, s->patches, out * out);
    return out;
}

// s->x becomes relu(gates(conv2(relu(conv1(x)))) + shortcut(x)); returns its side.
static int run_block(Worker *s, const Convnet *v, int i, int side, const ConvnetBatch *batch) {
    const Block *b = &v->blocks[i];
    int out = convolve(s, &b->conv1, s->x, side, (Linear){.y = s->hidden, .act = ACT_RELU});
    int64_t n = (int64_t)out * out * b->conv2.out;
    convolve(s, &b->conv2, s->hidden, out, (Linear){.y = s->y});
    if (b->gates.channels) gates_apply(&b->gates, s->y, out * out, out, s->gates);
    if (b->gates.channels && batch->visit) batch->visit(batch->context, i, &b->gates, s->gates, out);
    if (b->shortcut.out) convolve(s, &b->shortcut, s->x, side, (Linear){.y = s->y, .add = true});
    else ops_add(&s->compute, s->y, s->x, out * out, b->conv2.out);
    for (int64_t j = 0; j < n; j++) s->x[j] = s->y[j] > 0 ? s->y[j] : 0;
    return out;
}

typedef struct {
    const Convnet *v;
    const ConvnetBatch *batch;
    Worker *workers; // [threads]
} Job;

static void run_picture(void *context, int item, int worker) {
    const Job *job = context;
    const Convnet *v = job->v;
    Worker *s = &job->workers[worker];
    int side = v->side, channels = (int)v->head.w.shape[1];
    int64_t n = (int64_t)side * side;
    const uint8_t *pixels = job->batch->pixels + item * n;
    float *logits = job->batch->logits + (int64_t)item * v->n_labels;
    for (int64_t i = 0; i < n; i++) s->hidden[i] = ((float)pixels[i] / 255 - v->mean) / v->std;
    convolve(s, &v->stem, s->hidden, side, (Linear){.y = s->x, .act = ACT_RELU});
    for (int i = 0; i < v->n_blocks; i++) side = run_block(s, v, i, side, job->batch);
    memset(s->pooled, 0, sizeof *s->pooled * (size_t)channels);
    n = (int64_t)side * side;
    for (int64_t i = 0; i < n * channels; i++) s->pooled[i % channels] += s->x[i] / (float)n;
    ops_linear(&s->compute, &(Linear){.w = &v->head.w, .bias = v->head.bias, .y = logits}, 1, s->pooled, 1);
    if (floats_finite(logits, v->n_labels)) return;
    fail(s->err, sizeof s->err, "the logits are not finite: a weight of the model may be damaged");
}

int convnet_classify(const Convnet *v, const ConvnetBatch *batch, int n_threads, char *err, size_t errlen) {
    if (batch->n > MAX_ITEMS) return fail(err, errlen, "expected at most %d pictures, found %d", MAX_ITEMS, batch->n);
    ThreadPool *pool = threads_start(n_threads, err, errlen);
    if (!pool) return -1;
    Job job = {.v = v, .batch = batch, .workers = calloc((size_t)n_threads, sizeof(Worker))};
    int rc = job.workers ? 0 : fail(err, errlen, "out of memory for %d threads", n_threads);
    for (int i = 0; !rc && i < n_threads; i++) rc = worker_open(&job.workers[i], v, err, errlen);
    if (!rc) threads_for(pool, batch->n, run_picture, &job);
    for (int i = 0; !rc && i < n_threads; i++) {
        if (job.workers[i].err[0]) rc = fail(err, errlen, "%s", job.workers[i].err);
    }
    for (int i = 0; job.workers && i < n_threads; i++) worker_close(&job.workers[i]);
    free(job.workers);
    threads_stop(pool);
    return rc;
}
