// vit_model: see vit_model.h.
#include "vit_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SIZE = 4096, MAX_WIDTH = 1 << 16, MAX_LAYERS = 1000, MAX_LABELS = 1 << 20, MAX_PATCHES = 1 << 16 };

// ---- settings

// id2label, or num_labels names that are their numbers.
static void read_labels(Vit *v, Settings *s) {
    Settings table = settings_object(s, "id2label");
    size_t n = table.object ? json_object_size(table.object) : 0;
    v->n_labels = n ? (int)(n < MAX_LABELS ? n : MAX_LABELS) : settings_int(s, "num_labels", 1, MAX_LABELS, 2);
    v->labels = calloc((size_t)v->n_labels, sizeof *v->labels);
    if (!v->labels) settings_fail(s, "id2label", "out of memory");
    for (int i = 0; v->labels && !s->failed && i < v->n_labels; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        const char *name = n ? settings_text(&table, number, NULL) : number;
        v->labels[i] = strdup(name);
        if (!v->labels[i]) settings_fail(s, "id2label", "out of memory");
    }
}

static int read_settings(Vit *v, Settings *s) {
    const char *type = settings_text(s, "model_type", "vit");
    if (strcmp(type, "vit") != 0 && strcmp(type, "deit") != 0) {
        settings_fail(s, "model_type", "expected vit or deit, found '%.40s'", type);
    }
    SublayerConfig *c = &v->encoder.config;
    *c = (SublayerConfig){.dim = settings_int(s, "hidden_size", 1, MAX_WIDTH, 768),
                          .hidden_dim = settings_int(s, "intermediate_size", 1, MAX_WIDTH, 3072),
                          .n_heads = settings_int(s, "num_attention_heads", 1, MAX_WIDTH, 12),
                          .norm_eps = (float)settings_number(s, "layer_norm_eps", 1e-20, 1, 1e-12),
                          .pre_norm = true,
                          .activation = sublayer_activation(s, "hidden_act")};
    v->encoder.n_layers = settings_int(s, "num_hidden_layers", 1, MAX_LAYERS, 12);
    v->image_size = settings_int(s, "image_size", 1, MAX_SIZE, 224);
    v->patch_size = settings_int(s, "patch_size", 1, MAX_SIZE, 16);
    v->n_channels = settings_int(s, "num_channels", 1, 3, 3);
    v->mean_pooling = settings_bool(s, "use_mean_pooling", false);
    if (v->n_channels == 2) settings_fail(s, "num_channels", "expected 1 or 3, found 2");
    if (!s->failed && v->image_size % v->patch_size) {
        settings_fail(s, "patch_size", "expected a divisor of image_size = %d, found %d", v->image_size, v->patch_size);
    }
    if (s->failed || sublayer_check(c, s->path, s->err, s->errlen)) return -1;
    v->side = v->image_size / v->patch_size;
    v->n_patches = v->side * v->side;
    if (v->n_patches > MAX_PATCHES) {
        settings_fail(s, "patch_size", "expected at most %d patches, found %d", MAX_PATCHES, v->n_patches);
    }
    read_labels(v, s);
    return s->failed ? -1 : 0;
}

// ---- tensors

static const EncoderNames encoder_names = {
    .layer = "encoder.layer.%d.",
    .attn = {"attention.attention.query", "attention.attention.key", "attention.attention.value",
             "attention.output.dense", "layernorm_before"},
    .ffn = {"intermediate.dense", "output.dense", "layernorm_after"},
};

static int bind_embeddings(Vit *v, const char *prefix, char *err, size_t errlen) {
    static const char *const tokens[MAX_SPECIAL] = {"cls_token", "distillation_token"};
    Weights *w = &v->weights;
    int dim = v->encoder.config.dim, patch = v->patch_size;
    char name[128];
    for (int i = 0; i < MAX_SPECIAL; i++) {
        snprintf(name, sizeof name, "%sembeddings.%s", prefix, tokens[i]);
        bool needed = i == 0 && !v->mean_pooling;
        if (!needed && !weights_find(w, name)) break;
        v->special[i] = weights_floats(w, name, (int64_t[]){1, 1, dim}, 3, err, errlen);
        if (!v->special[i]) return -1;
        v->n_special++;
    }
    v->n_tokens = v->n_special + v->n_patches;
    snprintf(name, sizeof name, "%sembeddings.position_embeddings", prefix);
    v->positions = weights_floats(w, name, (int64_t[]){1, v->n_tokens, dim}, 3, err, errlen);
    if (!v->positions) return -1;

    snprintf(name, sizeof name, "%sembeddings.patch_embeddings.projection.weight", prefix);
    const int64_t shape[] = {dim, v->n_channels, patch, patch};
    const Tensor *t = weights_get_shape(w, name, DTYPE_FLOATS, shape, 4, err, errlen);
    if (!t) return -1;
    v->patch.w = *t; // a convolution whose patches do not overlap: the product with each patch as a row
    v->patch.w.n_dims = 2;
    v->patch.w.shape[1] = (int64_t)v->n_channels * patch * patch;
    snprintf(name, sizeof name, "%sembeddings.patch_embeddings.projection.bias", prefix);
    v->patch.bias = weights_floats(w, name, (int64_t[]){dim}, 1, err, errlen);
    return v->patch.bias ? 0 : -1;
}

static int bind(Vit *v, bool qkv_bias, char *err, size_t errlen) {
    Weights *w = &v->weights;
    bool deit = !weights_find(w, "vit.embeddings.patch_embeddings.projection.weight") &&
                weights_find(w, "deit.embeddings.patch_embeddings.projection.weight");
    const char *prefix = deit ? "deit." : "vit.";
    int dim = v->encoder.config.dim;
    if (bind_embeddings(v, prefix, err, errlen) ||
        encoder_bind(&v->encoder, w, prefix, &encoder_names, qkv_bias, err, errlen) ||
        norm_bind(&v->norm, w, prefix, "layernorm", dim, err, errlen)) {
        return -1;
    }
    bool teacher = v->n_special == 2 && weights_find(w, "distillation_classifier.weight");
    v->n_heads = teacher ? 2 : 1;
    const char *first = teacher ? "cls_classifier" : "classifier";
    if (dense_bind(&v->heads[0], w, "", first, v->n_labels, dim, true, err, errlen)) return -1;
    if (!teacher) return 0;
    return dense_bind(&v->heads[1], w, "", "distillation_classifier", v->n_labels, dim, true, err, errlen);
}

int vit_open(Vit *v, const char *path, char *err, size_t errlen) {
    memset(v, 0, sizeof *v);
    Settings s;
    if (load_config(&s, path, err, errlen)) return -1;
    int rc = read_settings(v, &s);
    bool qkv_bias = settings_bool(&s, "qkv_bias", true);
    rc = rc || s.failed || load_safetensors(&v->weights, path, err, errlen) || bind(v, qkv_bias, err, errlen) ? -1 : 0;
    settings_free(&s);
    if (rc) vit_close(v);
    return rc;
}

void vit_close(Vit *v) {
    for (int i = 0; v->labels && i < v->n_labels; i++) free(v->labels[i]);
    free(v->labels);
    encoder_free(&v->encoder);
    weights_free(&v->weights);
    memset(v, 0, sizeof *v);
}

int vit_pixels(const Vit *v) {
    return v->n_channels * v->image_size * v->image_size;
}

// ---- state

int vit_state_open(VitState *s, const Vit *v, int n_threads, char *err, size_t errlen) {
    memset(s, 0, sizeof *s);
    return encoder_state_open(&s->encoder, &v->encoder, n_threads, err, errlen);
}

void vit_state_close(VitState *s) {
    encoder_state_close(&s->encoder);
    free(s->memory);
    memset(s, 0, sizeof *s);
}

static int reserve(VitState *s, const Vit *v, int n, char *err, size_t errlen) {
    if (encoder_state_reserve(&s->encoder, &v->encoder, n * v->n_tokens, v->n_tokens, err, errlen)) return -1;
    size_t dim = (size_t)v->encoder.config.dim;
    const Buffer list[] = {{&s->patches, (size_t)vit_pixels(v)},
                           {&s->embedded, (size_t)v->n_patches * dim},
                           {&s->x, (size_t)v->n_tokens * dim},
                           {&s->pool, dim},
                           {&s->logits, (size_t)v->n_labels}};
    return buffers_reserve(&s->memory, &s->room, n, list, sizeof list / sizeof *list, "pictures", err, errlen);
}

// ---- forward

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
    size_t row = sizeof *x * (size_t)v->encoder.config.dim;
    int dim = v->encoder.config.dim;
    for (int i = 0; i < v->n_special; i++) memcpy(x + (int64_t)i * dim, v->special[i], row);
    memcpy(x + (int64_t)v->n_special * dim, embedded, row * (size_t)v->n_patches);
    ops_positions(compute, x, v->positions, 0, 1, v->n_tokens, dim);
}

// What a head reads: its special token, or the mean of the patches.
static void pool_tokens(const Vit *v, const float *x, int token, float *y) {
    int dim = v->encoder.config.dim;
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

int vit_forward(const Vit *v, VitState *s, const float *pixels, int n, float *logits, AttentionVisitor visit,
                void *context, char *err, size_t errlen) {
    const SublayerConfig *c = &v->encoder.config;
    const Workspace *work = &s->encoder.work;
    int64_t picture = vit_pixels(v), grid = (int64_t)v->n_patches * c->dim, tokens = (int64_t)v->n_tokens * c->dim;
    if (reserve(s, v, n, err, errlen)) return -1;
    int *lengths = malloc(sizeof *lengths * (size_t)n);
    if (!lengths) return fail(err, errlen, "out of memory for %d pictures", n);

    for (int i = 0; i < n; i++) cut_patches(v, pixels + i * picture, s->patches + i * picture);
    dense_forward(work, (const Dense *[]){&v->patch}, (float *[]){s->embedded}, 1, s->patches, n * v->n_patches);
    for (int i = 0; i < n; i++) {
        place_tokens(v, &work->compute, s->embedded + i * grid, s->x + i * tokens);
        lengths[i] = v->n_tokens;
    }
    encoder_forward(&v->encoder, &s->encoder, s->x, lengths, n, visit, context);
    free(lengths);

    for (int h = 0; h < v->n_heads; h++) {
        float *out = h ? s->logits : logits;
        for (int i = 0; i < n; i++) pool_tokens(v, s->x + i * tokens, h, s->pool + (int64_t)i * c->dim);
        norm_forward(work, &v->norm, s->pool, s->pool, n, c->dim, c->norm_eps);
        dense_forward(work, (const Dense *[]){&v->heads[h]}, (float *[]){out}, 1, s->pool, n);
    }
    for (int64_t i = 0; v->n_heads == 2 && i < (int64_t)n * v->n_labels; i++) {
        logits[i] = (logits[i] + s->logits[i]) / 2;
    }
    return 0;
}
