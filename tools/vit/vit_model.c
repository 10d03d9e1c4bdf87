// vit_model: see vit_model.h.
#include "vit_model.h"

#include "file.h"
#include "labels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SIZE = 4096, MAX_PATCHES = 1 << 16 };

static int read_settings(Vit *v, Config *c, Settings *s) {
    const char *type = settings_string(s, "model_type", "vit");
    if (strcmp(type, "vit") != 0 && strcmp(type, "deit") != 0) {
        settings_fail(s, "model_type", "expected vit or deit, found '%.40s'", type);
    }
    *c = (Config){.dim = settings_int(s, "hidden_size", 1, MAX_WIDTH, 768),
                  .hidden_dim = settings_int(s, "intermediate_size", 1, MAX_WIDTH, 3072),
                  .n_layers = settings_int(s, "num_hidden_layers", 1, MAX_LAYERS, 12),
                  .bidirectional = true,
                  .layer_norm = true,
                  .norm_eps = (float)settings_number(s, "layer_norm_eps", 1e-20, 1, 1e-12),
                  .activation = load_activation(s, "hidden_act"),
                  .plain_ffn = true,
                  .qkv_bias = settings_bool(s, "qkv_bias", true),
                  .out_bias = true,
                  .ffn_bias = true,
                  .fp32_products = true};
    load_heads(s, c, "num_attention_heads", 12);
    v->image_size = settings_int(s, "image_size", 1, MAX_SIZE, 224);
    v->patch_size = settings_int(s, "patch_size", 1, MAX_SIZE, 16);
    v->n_channels = settings_int(s, "num_channels", 1, 3, 3);
    v->mean_pooling = settings_bool(s, "use_mean_pooling", false);
    if (v->n_channels == 2) settings_fail(s, "num_channels", "expected 1 or 3, found 2");
    if (!s->failed && v->image_size % v->patch_size) {
        settings_fail(s, "patch_size", "expected a divisor of image_size = %d, found %d", v->image_size, v->patch_size);
    }
    if (s->failed) return -1;
    v->side = v->image_size / v->patch_size;
    v->n_patches = v->side * v->side;
    if (v->n_patches > MAX_PATCHES) {
        settings_fail(s, "patch_size", "expected at most %d patches, found %d", MAX_PATCHES, v->n_patches);
    }
    v->n_labels = labels_read(&v->labels, s);
    if (s->failed) return -1;
    c->vocab_size = v->n_labels;
    c->max_seq_len = v->n_patches + MAX_SPECIAL;
    return config_check(c, s->path, s->err, s->errlen);
}

static void bind_special(Vit *v, Binder *b) {
    static const char *const parts[MAX_SPECIAL] = {"class_embd", "distillation_embd"};
    for (int i = 0; i < MAX_SPECIAL; i++) {
        bool needed = i == 0 && !v->mean_pooling;
        if (!needed && !bind_find(b, parts[i], -1, "")) return;
        v->special[i] = bind_floats(b, parts[i], "", (int64_t[]){1, 1, b->config->dim}, 3);
        v->n_special++;
    }
}

static void bind_embeddings(Vit *v, Binder *b) {
    int dim = b->config->dim, patch = v->patch_size;
    bind_special(v, b);
    v->n_tokens = v->n_special + v->n_patches;
    v->positions = bind_floats(b, "position_embd", "", (int64_t[]){1, v->n_tokens, dim}, 3);
    const int64_t shape[] = {dim, v->n_channels, patch, patch};
    const Tensor *t = bind_shape(b, "patch_embd", ".weight", DTYPE_FLOATS, shape, 4);
    if (!t) return;
    v->patch.w = *t; // a convolution whose patches do not overlap: the product with each patch as a row
    v->patch.w.n_dims = 2;
    v->patch.w.shape[1] = (int64_t)v->n_channels * patch * patch;
    v->patch.bias = bind_vector(b, "patch_embd", ".bias", dim);
}

static void bind_heads(Vit *v, Binder *b) {
    int dim = b->config->dim;
    bool teacher = v->n_special == 2 && bind_find(b, "distillation_output", -1, ".weight");
    v->n_heads = teacher ? 2 : 1;
    bind_dense(b, &v->heads[0], teacher ? "class_output" : "output", v->n_labels, dim, true);
    if (teacher) bind_dense(b, &v->heads[1], "distillation_output", v->n_labels, dim, true);
}

static int bind(Vit *v, const Config *c, char *err, size_t errlen) {
    Binder b;
    bool deit = !weights_find(&v->weights, "vit.embeddings.patch_embeddings.projection.weight") &&
                weights_find(&v->weights, "deit.embeddings.patch_embeddings.projection.weight");
    if (binder_open(&b, c, &v->weights, &family_vit, deit ? "deit." : "vit.", err, errlen)) return -1;
    bind_embeddings(v, &b);
    encoder_bind(&v->encoder, &b, NULL);
    bind_norm(&b, &v->norm, "output_norm", c->dim, true);
    bind_heads(v, &b);
    binder_close(&b);
    return b.failed ? -1 : 0;
}

int vit_open(Vit *v, const char *path, char *err, size_t errlen) {
    memset(v, 0, sizeof *v);
    Settings s;
    if (load_config(&s, path, err, errlen)) return -1;
    Config c;
    bool bad = read_settings(v, &c, &s) || load_safetensors(&v->weights, path, err, errlen) || bind(v, &c, err, errlen);
    settings_free(&s);
    if (bad) vit_close(v);
    return bad ? -1 : 0;
}

void vit_close(Vit *v) {
    labels_free(v->labels, v->n_labels);
    encoder_free(&v->encoder);
    weights_free(&v->weights);
    memset(v, 0, sizeof *v);
}

static int vit_dim(const Vit *v) {
    return v->encoder.stack.config.dim;
}

int vit_pixels(const Vit *v) {
    return v->n_channels * v->image_size * v->image_size;
}

int vit_state_open(VitState *s, const Vit *v, int n_threads, char *err, size_t errlen) {
    (void)v;
    memset(s, 0, sizeof *s);
    return compute_open(&s->compute, n_threads, err, errlen);
}

void vit_state_close(VitState *s) {
    encoder_state_close(&s->encoder);
    workspace_close(&s->work);
    compute_close(&s->compute);
    free(s->memory);
    memset(s, 0, sizeof *s);
}

static int reserve(VitState *s, const Vit *v, const int *lengths, int n, char *err, size_t errlen) {
    s->work.compute = &s->compute; // the state may have moved
    if (encoder_reserve(&v->encoder, &s->encoder, &s->work, lengths, n, err, errlen)) return -1;
    size_t dim = (size_t)vit_dim(v);
    const Buffer list[] = {{&s->patches, (size_t)vit_pixels(v)},
                           {&s->embedded, (size_t)v->n_patches * dim},
                           {&s->pool, dim},
                           {&s->logits, (size_t)v->n_labels}};
    return buffers_reserve(&s->memory, &s->room, n, list, sizeof list / sizeof *list, "pictures", err, errlen);
}

// One picture's patches as rows [n_patches][channels][patch][patch].
static void cut_patches(const Vit *v, const float *pixels, float *rows) {
    int size = v->image_size, patch = v->patch_size;
    for (int p = 0; p < v->n_patches; p++) {
        const float *corner = pixels + (int64_t)(p / v->side) * patch * size + p % v->side * patch;
        for (int c = 0; c < v->n_channels; c++, corner += (int64_t)size * size) {
            for (int y = 0; y < patch; y++, rows += patch) {
                memcpy(rows, corner + (int64_t)y * size, sizeof *rows * (size_t)patch);
            }
        }
    }
}

// Special tokens and embedded patches, plus positions.
static void place_tokens(const Vit *v, const Compute *compute, const float *embedded, float *x) {
    size_t row = sizeof *x * (size_t)vit_dim(v);
    int dim = vit_dim(v);
    for (int i = 0; i < v->n_special; i++) memcpy(x + (int64_t)i * dim, v->special[i], row);
    memcpy(x + (int64_t)v->n_special * dim, embedded, row * (size_t)v->n_patches);
    ops_add(compute, x, v->positions, v->n_tokens, dim);
}

// What a head reads: its special token, or the mean of the patches.
static void pool_tokens(const Vit *v, const float *x, int token, float *y) {
    int dim = vit_dim(v);
    if (!v->mean_pooling) {
        memcpy(y, x + (int64_t)token * dim, sizeof *y * (size_t)dim);
        return;
    }
    memset(y, 0, sizeof *y * (size_t)dim);
    for (int t = v->n_special; t < v->n_tokens; t++) {
        for (int d = 0; d < dim; d++) y[d] += x[(int64_t)t * dim + d];
    }
    for (int d = 0; d < dim; d++) y[d] /= (float)v->n_patches;
}

static void linear(const VitState *s, const Dense *d, float *y, const float *x, int n) {
    ops_linear(&s->compute, &(Linear){.w = &d->w, .y = y, .bias = d->bias}, 1, x, n);
}

int vit_forward(const Vit *v, VitState *s, const VitBatch *batch, char *err, size_t errlen) {
    const Config *c = &v->encoder.stack.config;
    int64_t picture = vit_pixels(v), grid = (int64_t)v->n_patches * c->dim, tokens = (int64_t)v->n_tokens * c->dim;
    int lengths[MAX_SEGMENTS], n = batch->n;
    if (n > MAX_SEGMENTS) return fail(err, errlen, "expected at most %d pictures at once, found %d", MAX_SEGMENTS, n);
    for (int i = 0; i < n; i++) lengths[i] = v->n_tokens;
    if (reserve(s, v, lengths, n, err, errlen)) return -1;
    for (int i = 0; i < n; i++) cut_patches(v, batch->pixels + i * picture, s->patches + i * picture);
    linear(s, &v->patch, s->embedded, s->patches, n * v->n_patches);
    for (int i = 0; i < n; i++) place_tokens(v, &s->compute, s->embedded + i * grid, s->work.x + i * tokens);
    encoder_forward(&v->encoder, &s->encoder, &s->work, lengths, n, batch->visit, batch->context);
    for (int h = 0; h < v->n_heads; h++) {
        for (int i = 0; i < n; i++) pool_tokens(v, s->work.x + i * tokens, h, s->pool + (int64_t)i * c->dim);
        ops_norm(&s->compute, s->pool, s->pool, &v->norm, n, c->dim, c->norm_eps);
        linear(s, &v->heads[h], h ? s->logits : batch->logits, s->pool, n);
    }
    float *logits = batch->logits;
    int64_t n_logits = (int64_t)n * v->n_labels;
    for (int64_t i = 0; v->n_heads > 1 && i < n_logits; i++) logits[i] = (logits[i] + s->logits[i]) / 2;
    if (floats_finite(logits, n_logits)) return 0;
    return fail(err, errlen, "the logits are not finite: a weight of the model may be damaged");
}
