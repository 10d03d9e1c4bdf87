// rollout: see rollout.h.
#include "rollout.h"

#include <stdlib.h>
#include <string.h>

int rollout_open(Rollout *r, const Vit *v, VitState *s, char *err, size_t errlen) {
    size_t n = (size_t)v->n_tokens, square = n * n * sizeof(float);
    *r = (Rollout){.model = v, .state = s, .err = err, .errlen = errlen};
    r->product = malloc(square);
    r->mean = malloc(square);
    r->scratch = malloc(square);
    r->weights = malloc(square * (size_t)v->encoder.stack.config.kinds[0].n_heads);
    if (r->product && r->mean && r->scratch && r->weights) return 0;
    rollout_close(r);
    return fail(err, errlen, "out of memory for the attention of %d tokens", v->n_tokens);
}

void rollout_close(Rollout *r) {
    free(r->product);
    free(r->mean);
    free(r->scratch);
    free(r->weights);
    *r = (Rollout){0};
}

void rollout_visit(void *rollout, int layer, int picture, const Attention *a) {
    (void)picture;
    Rollout *r = rollout;
    int n = r->model->n_tokens, n_heads = a->n_heads;
    if (r->failed || attention_weights(&r->state->compute, a, r->weights, r->err, r->errlen)) {
        r->failed = true;
        return;
    }
    for (int t = 0; t < n; t++) {
        const float *heads = r->weights + (int64_t)t * n_heads * n;
        for (int j = 0; j < n; j++) {
            float sum = 0;
            for (int h = 0; h < n_heads; h++) sum += heads[(int64_t)h * n + j];
            r->mean[(int64_t)t * n + j] = sum / (float)n_heads;
        }
    }
    // product = (mean + I) / 2 x product
    for (int t = 0; t < n; t++) {
        float *row = r->scratch + (int64_t)t * n;
        memset(row, 0, sizeof *row * (size_t)n);
        if (layer == 0) { // the product so far is I
            row[t] = 0.5f;
            for (int k = 0; k < n; k++) row[k] += 0.5f * r->mean[(int64_t)t * n + k];
            continue;
        }
        for (int j = 0; j < n; j++) row[j] = 0.5f * r->product[(int64_t)t * n + j];
        for (int k = 0; k < n; k++) {
            float weight = 0.5f * r->mean[(int64_t)t * n + k];
            for (int j = 0; j < n; j++) row[j] += weight * r->product[(int64_t)k * n + j];
        }
    }
    float *swap = r->product;
    r->product = r->scratch;
    r->scratch = swap;
}

// The pooled token's attention to each patch in a matrix [n_tokens][n_tokens], scaled to a maximum of 1.
static void map_of(const Vit *v, const float *matrix, float *map) {
    int n = v->n_tokens, first = v->mean_pooling ? v->n_special : 0, last = v->mean_pooling ? n : 1;
    float most = 0;
    for (int p = 0; p < v->n_patches; p++) {
        map[p] = 0;
        for (int t = first; t < last; t++) map[p] += matrix[(int64_t)t * n + v->n_special + p];
        most = map[p] > most ? map[p] : most;
    }
    if (most <= 0) return;
    for (int p = 0; p < v->n_patches; p++) map[p] /= most;
}

void rollout_maps(const Rollout *r, float *rolled, float *last) {
    map_of(r->model, r->product, rolled);
    map_of(r->model, r->mean, last);
}
