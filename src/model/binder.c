// binder: see binder.h.
#include "binder.h"

#include "file.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_ROOM = 160, MESSAGE_ROOM = 400 };

int binder_open(Binder *b, const Config *c, Weights *w, const Family *f, const char *prefix, char *err, size_t errlen) {
    *b = (Binder){.config = c, .weights = w, .family = f, .layer = -1, .err = err, .errlen = errlen};
    b->prefix = prefix;
    b->hf_names = prefix != NULL;
    b->used = calloc(weights_count(w) + 1, sizeof *b->used);
    return b->used ? 0 : fail(err, errlen, "out of memory");
}

void binder_close(Binder *b) {
    free(b->used);
    b->used = NULL;
}

void binder_fail(Binder *b, const char *fmt, ...) {
    char message[MESSAGE_ROOM];
    if (b->failed) return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    b->failed = true;
    fail(b->err, b->errlen, "%s: %s", b->weights->files ? b->weights->files[0].path : "(no file)", message);
}

// ---- names

static void name_tensor(const Binder *b, const char *part, int expert, const char *suffix, char name[NAME_ROOM]) {
    char which[16] = "";
    if (b->hf_names) {
        if (!strcmp(part, "attn_sinks")) suffix = "";
        family_tensor_name(b->family, b->prefix, part, b->layer, expert, suffix, name, NAME_ROOM);
        return;
    }
    part = family_gguf_part(b->family, part);
    if (expert >= 0) snprintf(which, sizeof which, ".%d", expert);
    int length = (int)strlen(part) - (expert >= 0 ? (int)strlen("_exp") : 0);
    if (b->layer < 0) snprintf(name, NAME_ROOM, "%.*s%s%s", length, part, which, suffix);
    else snprintf(name, NAME_ROOM, "blk.%d.%.*s%s%s", b->layer, length, part, which, suffix);
}

const Tensor *bind_find(const Binder *b, const char *part, int expert, const char *suffix) {
    char name[NAME_ROOM];
    name_tensor(b, part, expert, suffix, name);
    return weights_find(b->weights, name);
}

// A tensor of one of these types and this shape. NULL after a failure.
static const Tensor *get_shape(Binder *b, const char *part, int expert, const char *suffix, unsigned mask,
                               const int64_t *shape, int n_dims) {
    char name[NAME_ROOM];
    if (b->failed) return NULL;
    name_tensor(b, part, expert, suffix, name);
    const Tensor *t = weights_get_shape(b->weights, name, mask, shape, n_dims, b->err, b->errlen);
    b->failed = !t;
    if (t) b->used[weights_index(b->weights, t)] = true;
    return t;
}

const Tensor *bind_shape(Binder *b, const char *part, const char *suffix, unsigned mask, const int64_t *shape,
                         int n_dims) {
    return get_shape(b, part, -1, suffix, mask, shape, n_dims);
}

const Tensor *bind_matrix(Binder *b, const char *part, int expert, int64_t rows, int64_t cols) {
    return get_shape(b, part, expert, ".weight", DTYPE_ANY, (int64_t[]){rows, cols}, 2);
}

static void *own(Binder *b, size_t bytes) {
    void *memory = weights_own(b->weights, bytes);
    if (!memory) binder_fail(b, "out of memory for a copy of %zu bytes", bytes);
    return memory;
}

const float *bind_floats(Binder *b, const char *part, const char *suffix, const int64_t *shape, int n_dims) {
    char name[NAME_ROOM];
    if (!get_shape(b, part, -1, suffix, DTYPE_FLOATS, shape, n_dims)) return NULL;
    name_tensor(b, part, -1, suffix, name);
    const float *values = weights_floats(b->weights, name, shape, n_dims, b->err, b->errlen);
    b->failed = !values;
    return values;
}

const float *bind_vector(Binder *b, const char *part, const char *suffix, int64_t n) {
    return bind_floats(b, part, suffix, (int64_t[]){n}, 1);
}

const float *bind_zeros(Binder *b, int64_t n) {
    float *zeros = own(b, sizeof *zeros * (size_t)n);
    if (zeros) memset(zeros, 0, sizeof *zeros * (size_t)n);
    return zeros;
}

const float *bind_ones(Binder *b, int64_t n) {
    float *ones = own(b, sizeof *ones * (size_t)n);
    for (int64_t i = 0; ones && i < n; i++) ones[i] = 1;
    return ones;
}

const float *bind_rows(Binder *b, const char *part, int n, int64_t cols) {
    const int64_t shape[] = {n, cols};
    if (!b->hf_names || bind_find(b, part, -1, ".weight")) return bind_floats(b, part, ".weight", shape, 2);
    float *all = own(b, sizeof *all * (size_t)(n * cols));
    for (int i = 0; all && i < n && !b->failed; i++) {
        char name[NAME_ROOM];
        if (!get_shape(b, part, i, ".weight", DTYPE_FLOATS, &cols, 1)) break;
        name_tensor(b, part, i, ".weight", name);
        const float *values = weights_floats(b->weights, name, &cols, 1, b->err, b->errlen);
        b->failed = !values;
        if (values) memcpy(all + i * cols, values, sizeof *all * (size_t)cols);
    }
    return all;
}

// ---- norms and linear layers

void bind_norm(Binder *b, Norm *norm, const char *part, int64_t n, bool bias) {
    bool bare = !b->hf_names && bind_find(b, part, -1, ""); // Falcon-H1's ffn_norm
    norm->weight = bind_vector(b, part, bare ? "" : ".weight", n);
    if (bias) norm->bias = b->config->no_norm_bias ? bind_zeros(b, n) : bind_vector(b, part, ".bias", n);
    if (!b->config->norm_plus_one || b->failed) return;
    float *sum = own(b, sizeof *sum * (size_t)n);
    if (!sum) return;
    for (int64_t i = 0; i < n; i++) sum[i] = norm->weight[i] + 1;
    norm->weight = sum;
}

void bind_transposed(Binder *b, Dense *dense, const char *part, const char *suffix, int64_t rows, int64_t cols) {
    const float *from = bind_floats(b, part, suffix, (int64_t[]){cols, rows}, 2);
    float *to = from ? own(b, sizeof *to * (size_t)(rows * cols)) : NULL;
    if (!to) return;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) to[i * cols + j] = from[j * rows + i];
    }
    dense->w = (Tensor){.dtype = DTYPE_F32, .n_dims = 2, .shape = {rows, cols}, .data = to};
}

void bind_dense(Binder *b, Dense *dense, const char *part, int64_t rows, int64_t cols, bool bias) {
    if (b->hf_names && b->family->transposed) {
        bind_transposed(b, dense, part, ".weight", rows, cols);
    } else {
        const Tensor *t = bind_matrix(b, part, -1, rows, cols);
        if (t) dense->w = *t;
    }
    if (bias) dense->bias = bind_vector(b, part, ".bias", rows);
}

Dense dense_rows(const Dense *whole, int64_t row0, int64_t n) {
    Dense view = *whole;
    if (!dense_exists(whole)) return view;
    uint64_t row_bytes = tensor_bytes(&whole->w) / (uint64_t)whole->w.shape[0];
    view.w.shape[0] = n;
    view.w.data = (const char *)whole->w.data + (uint64_t)row0 * row_bytes;
    if (whole->bias) view.bias = whole->bias + row0;
    return view;
}

uint64_t dense_bytes(const Dense *d) {
    uint64_t bias = d->bias ? sizeof(float) * (uint64_t)d->w.shape[0] : 0;
    return dense_exists(d) ? tensor_bytes(&d->w) + bias : 0;
}

uint64_t norm_bytes(const Norm *n, int64_t dim) {
    return sizeof(float) * (uint64_t)dim * ((n->weight != NULL) + (n->bias != NULL));
}

// ---- unexpected tensors

// Layers that predict further tokens, behind the last one.
static bool is_extra(const Binder *b, const char *name) {
    char before[NAME_ROOM];
    int layer, n = -1;
    if (!b->family || !b->family->extra_layers) return false;
    if (b->hf_names && !strncmp(name, "mtp.", 4)) return true;
    if (b->hf_names)
        snprintf(before, sizeof before, "%s%s.", b->prefix, b->family->layers ? b->family->layers : "layers");
    else snprintf(before, sizeof before, "blk.");
    size_t length = strlen(before);
    return !strncmp(name, before, length) && sscanf(name + length, "%d.%n", &layer, &n) == 1 && n > 0 &&
           layer >= b->config->n_layers;
}

// Tensors that files carry along and no computation reads: masks and frequencies that follow from the configuration,
// buffers of integers (no weight is one), and in a model of text and pictures what belongs to the pictures.
static bool is_idle(const Binder *b, const char *name, const Tensor *t) {
    static const char *const endings[] = {".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias",
                                          ".attention.masked_bias"};
    if (is_extra(b, name)) return true;
    if (!b->hf_names) return false;
    if (t->dtype == DTYPE_INTEGER) return true;
    if (b->text_only && strncmp(name, b->prefix, strlen(b->prefix)) != 0) return true;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t n = strlen(name), m = strlen(endings[i]);
        if (n > m && !strcmp(name + n - m, endings[i])) return true;
    }
    return false;
}

void binder_refuse_unused(Binder *b) {
    const Weights *w = b->weights;
    const char *arch = b->family ? b->family->arch : "llama";
    for (size_t i = 0; i < weights_count(w) && !b->failed; i++) {
        const char *name = w->table[i].key;
        if (!b->used[i] && !is_idle(b, name, &w->table[i].value)) {
            binder_fail(b, "unexpected tensor %s: architecture %s does not use it", name, arch);
        }
    }
}
