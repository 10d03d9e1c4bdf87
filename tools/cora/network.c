// network: see network.h.
#include "network.h"

#include "load.h"
#include "ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    int heads, width, inputs; // of GCN one head
    const float *weight;      // [heads * width][inputs]
    const float *bias;        // [heads * width]
    const float *from, *to;   // [heads][width]; of GCN NULL
} Layer;

static const float *floats_of(Weights *w, int layer, const char *part, int rows, int cols, char *err, size_t errlen) {
    char name[40];
    snprintf(name, sizeof name, "%d.%s", layer, part);
    return weights_floats(w, name, (int64_t[]){rows, cols}, cols ? 2 : 1, err, errlen);
}

// The shape says how many heads there are; 0.weight and 1.weight how wide they are.
static int bind_layer(Weights *w, int i, int inputs, int outputs, Layer *l, char *err, size_t errlen) {
    char name[40];
    snprintf(name, sizeof name, "%d.from", i);
    const Tensor *from = weights_find(w, name);
    *l = (Layer){.heads = from ? (int)from->shape[0] : 1, .inputs = inputs};
    if (l->heads < 1 || outputs % l->heads) {
        return fail(err, errlen, "%s: %s: expected heads that divide %d features, found %d", w->files[0].path, name,
                    outputs, l->heads);
    }
    l->width = outputs / l->heads;
    l->weight = floats_of(w, i, "weight", outputs, inputs, err, errlen);
    l->bias = l->weight ? floats_of(w, i, "bias", outputs, 0, err, errlen) : NULL;
    if (!l->bias || !from) return l->bias ? 0 : -1;
    l->from = floats_of(w, i, "from", l->heads, l->width, err, errlen);
    l->to = l->from ? floats_of(w, i, "to", l->heads, l->width, err, errlen) : NULL;
    return l->to ? 0 : -1;
}

static int bind(Weights *w, const Papers *p, Layer layers[2], char *err, size_t errlen) {
    const Tensor *first = weights_find(w, "0.weight");
    if (!first || first->n_dims != 2 || first->shape[0] < 1 || first->shape[0] > 4096) {
        return fail(err, errlen, "%s: 0.weight: expected a matrix of at most 4096 features", w->files[0].path);
    }
    int hidden = (int)first->shape[0];
    if (bind_layer(w, 0, p->n_words, hidden, &layers[0], err, errlen)) return -1;
    if (bind_layer(w, 1, hidden, p->n_classes, &layers[1], err, errlen)) return -1;
    if (!layers[0].from == !layers[1].from) return 0;
    return fail(err, errlen, "%s: expected .from in both layers or in none", w->files[0].path);
}

// out [n][heads * width] of x [n][inputs]
static void layer_run(const Layer *l, const Papers *p, Compute *c, const float *x, float *out) {
    int wide = l->heads * l->width;
    Operator op = {.mechanism = mechanism_find(l->from ? "gat" : "gcn"), .compute = c};
    Tensor w = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {wide, l->inputs}, .data = l->weight};
    float *h = floats_need((int64_t)p->n * (wide + 2 * l->heads)), *from = h + (int64_t)p->n * wide;
    float *to = from + (int64_t)p->n * l->heads;
    ops_linear(c, &(Linear){.w = &w, .y = h}, 1, x, p->n);
    if (l->from) {
        Soft soft;
        graph_reserve(&soft, &op, l->heads, l->width);
        map_heads(c, l->from, l->heads, 1, l->width, h, from, p->n);
        map_heads(c, l->to, l->heads, 1, l->width, h, to, p->n);
        graph_attend(&op, &soft, &p->graph, from, to, h, out);
        operator_close(&op);
    } else graph_sum(&op, &p->graph, h, wide, out);
    for (int64_t i = 0; i < (int64_t)p->n * wide; i++) out[i] += l->bias[i % wide];
    free(h);
}

int network_run(const char *path, const Papers *p, Compute *c, float *logits, const char **kind, char *err,
                size_t errlen) {
    Weights w = {0};
    Layer layers[2];
    int rc = load_safetensors(&w, path, err, errlen);
    if (!rc) rc = bind(&w, p, layers, err, errlen);
    if (!rc) {
        int64_t n = (int64_t)p->n * layers[0].heads * layers[0].width;
        float *hidden = floats_need(n);
        *kind = layers[0].from ? "GAT" : "GCN";
        layer_run(&layers[0], p, c, p->words, hidden);
        for (int64_t i = 0; i < n; i++) { // ELU, ReLU
            if (hidden[i] < 0) hidden[i] = layers[0].from ? expm1f(hidden[i]) : 0;
        }
        layer_run(&layers[1], p, c, hidden, logits);
        free(hidden);
    }
    weights_free(&w);
    return rc;
}

double network_accuracy(const Papers *p, const float *logits) {
    int right = 0;
    for (int i = 0; i < p->n_test; i++) {
        const float *of = logits + (int64_t)p->test[i] * p->n_classes;
        int best = 0;
        for (int c = 1; c < p->n_classes; c++) best = of[c] > of[best] ? c : best;
        right += best == p->labels[p->test[i]];
    }
    return (double)right / p->n_test;
}
