// forward.h: a decoder's forward pass written down naively, in double, token by token, every key and value kept;
// tensors are found by their names. What Gemma 3 and llama2.c's models have, no experts and no biases.
//
//   Timeline t = timeline_open(&model, windows, n_tokens); // and its other fields
//   timeline_step(&t, token, logits);
//   timeline_close(&t);
#pragma once
#include "reference.h"

#include "model.h"

#include <stb/stb_ds.h>

typedef struct {
    char *key;
    double *value;
} ForwardValues;

typedef enum { NOT_ROUNDED, TO_BF16, TO_INT16, N_ROUNDINGS } Rounding;

typedef struct {
    const Model *m;
    const int *windows; // of each layer; NULL: those of the model
    int n_sinks;
    bool bf16;        // K (after RoPE) and V are stored rounded
    Rounding rounded; // of products, where a level may round them
    int pos, room, kv_width;
    double *k, *v;         // [n_layers][room][kv_width]
    double *watched;       // [n_layers][n_heads][room] the last token's attention weights; NULL: not kept
    ForwardValues *values; // stb_ds map: tensors as double
} Timeline;

UNUSED static Timeline timeline_open(const Model *m, const int *windows, int room) {
    Timeline t = {.m = m, .windows = windows, .room = room};
    for (int l = 0; l < m->config.n_layers; l++) {
        const LayerKind *kind = config_kind(&m->config, l);
        int width = kind->n_kv_heads * (kind->k_dim > kind->v_dim ? kind->k_dim : kind->v_dim);
        t.kv_width = width > t.kv_width ? width : t.kv_width;
    }
    size_t bytes = sizeof(double) * (size_t)m->config.n_layers * (size_t)room * (size_t)t.kv_width;
    t.k = need(bytes);
    t.v = need(bytes);
    sh_new_strdup(t.values);
    return t;
}

UNUSED static void timeline_close(Timeline *t) {
    for (ptrdiff_t i = 0; i < shlen(t->values); i++) free(t->values[i].value);
    shfree(t->values);
    free(t->k);
    free(t->v);
}

// ---- tensors

// The name in a Hugging Face folder.
UNUSED static const char *hf_name(char out[100], const char *name) {
    static const char *const pairs[][2] = {
        {"attn_norm", "input_layernorm"},         {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},           {"attn_output", "self_attn.o_proj"}, {"ffn_gate", "mlp.gate_proj"},
        {"ffn_norm", "post_attention_layernorm"}, {"ffn_up", "mlp.up_proj"},           {"ffn_down", "mlp.down_proj"}};
    int layer;
    char part[40];
    if (!strcmp(name, "token_embd.weight")) return "model.embed_tokens.weight";
    if (!strcmp(name, "output_norm.weight")) return "model.norm.weight";
    if (!strcmp(name, "output.weight")) return "lm_head.weight";
    if (sscanf(name, "blk.%d.%39[^.]", &layer, part) != 2) return "?";
    for (int i = 0; i < N_OF(pairs); i++) {
        if (!strcmp(part, pairs[i][0])) snprintf(out, 100, "model.layers.%d.%s.weight", layer, pairs[i][1]);
    }
    return out;
}

static const Tensor *forward_tensor(const Timeline *t, int layer, const char *part, char *name, size_t room) {
    char hf[100] = "";
    if (layer < 0) snprintf(name, room, "%s.weight", part);
    else snprintf(name, room, "blk.%d.%s.weight", layer, part);
    return weights_find(&t->m->weights, t->m->hf_names ? hf_name(hf, name) : name);
}

static double maybe_rounded(double x, bool rounded) {
    return rounded ? (double)bf16_nearest((float)x) : x;
}

// n_rows rows of n values: of a matrix, or what it is multiplied with.
static void round_rows(double *v, int64_t n_rows, int64_t n, bool is_matrix, Rounding rounding) {
    const IntKernels *ints = rounding == TO_INT16 ? kernels_for(LEVEL_AVX2INT)->int16 : NULL;
    for (int64_t i = 0; i < n_rows * n && rounding == TO_BF16; i++) v[i] = maybe_rounded(v[i], true);
    for (int64_t row = 0; row < n_rows && ints; row++, v += n) {
        for (int64_t at = 0; at < n; at += ints->part) {
            int64_t end = at + ints->part < n ? at + ints->part : n;
            double top = 0;
            for (int64_t i = at; i < end; i++) top = fmax(top, fabs(v[i]));
            double step = top / (double)(is_matrix ? ints->w_top : ints->x_top);
            if (top <= 0) continue;
            for (int64_t i = at; i < end; i++) v[i] = rint(v[i] / step) * step;
        }
    }
}

// Of fp32 or of int8 in groups; NULL: the model has none of this name. layer -1: of no layer.
static const double *forward_values(Timeline *t, int layer, const char *part, Rounding rounding) {
    static const char marks[N_ROUNDINGS] = {[TO_BF16] = '~', [TO_INT16] = '#'}; // in front of the name
    char name[80] = {marks[rounding]};
    const Tensor *w = forward_tensor(t, layer, part, name + 1, sizeof name - 1);
    const char *key = name + (rounding == NOT_ROUNDED);
    ptrdiff_t known = w ? shgeti(t->values, key) : -1;
    if (known >= 0) return t->values[known].value;
    if (!w) return NULL;
    double *v = need(sizeof *v * (size_t)tensor_count(w));
    for (int64_t i = 0; i < tensor_count(w); i++) {
        if (w->dtype == DTYPE_F32) v[i] = (double)((const float *)w->data)[i];
        else v[i] = ((const int8_t *)w->data)[i] * (double)((const float *)w->scales)[i / w->group];
    }
    round_rows(v, tensor_count(w) / w->shape[w->n_dims - 1], w->shape[w->n_dims - 1], true, rounding);
    return shput(t->values, key, v);
}

UNUSED static bool rounds_linear(const Tensor *w, Rounding rounding) {
    int step = rounding == TO_INT16 ? INT_STEP : BF16_STEP;
    return rounding && w->dtype != DTYPE_F32 && w->shape[w->n_dims - 1] % step == 0;
}

UNUSED static bool rounds_attention(const LayerKind *kind, bool bf16) {
    return bf16 && kind->k_dim % BF16_STEP == 0;
}

static void forward_product(Timeline *t, double *y, int layer, const char *part, const double *x) {
    char name[80];
    const Tensor *tensor = forward_tensor(t, layer, part, name, sizeof name);
    Rounding rounding = rounds_linear(tensor, t->rounded) ? t->rounded : NOT_ROUNDED;
    const double *w = forward_values(t, layer, part, rounding);
    double *taken = need(sizeof *taken * (size_t)tensor->shape[1]);
    memcpy(taken, x, sizeof *taken * (size_t)tensor->shape[1]);
    round_rows(taken, 1, tensor->shape[1], false, rounding);
    for (int64_t i = 0; i < tensor->shape[0]; i++, w += tensor->shape[1]) {
        double sum = 0;
        for (int64_t j = 0; j < tensor->shape[1]; j++) sum += w[j] * taken[j];
        y[i] = sum;
    }
    free(taken);
}

// y = norm(x) for n_heads rows of n; nothing where there is no such norm.
static void forward_norm(Timeline *t, double *y, int layer, const char *part, const double *x, int n_heads, int n) {
    const double *w = forward_values(t, layer, part, NOT_ROUNDED);
    for (int h = 0; w && h < n_heads; h++, x += n, y += n) {
        double sum = 0;
        for (int i = 0; i < n; i++) sum += x[i] * x[i];
        for (int i = 0; i < n; i++) y[i] = w[i] * x[i] / sqrt(sum / n + (double)t->m->config.norm_eps);
    }
}

// ---- a layer

static void forward_rotate(double *x, const LayerKind *k, int n_heads, int pos) {
    const RopeConfig *rope = &k->rope;
    double theta = (double)rope->theta, slow = rope->scaling.kind == ROPE_LINEAR ? (double)rope->scaling.factor : 1;
    for (int h = 0; h < n_heads; h++, x += k->k_dim) {
        for (int i = 0; i < rope->rotary_dim / 2; i++) {
            bool half = rope->pairing == ROPE_HALF;
            int a = half ? i : 2 * i, b = half ? i + rope->rotary_dim / 2 : a + 1;
            double angle = pos / slow * pow(theta, -2.0 * i / rope->rotary_dim), xa = x[a], xb = x[b];
            x[a] = xa * cos(angle) - xb * sin(angle);
            x[b] = xa * sin(angle) + xb * cos(angle);
        }
    }
}

static double forward_capped(double x, float cap) {
    return cap > 0 ? (double)cap * tanh(x / (double)cap) : x;
}

static double forward_activated(double x, Activation a) {
    double u = a == ACT_GELU_TANH ? 2 * sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x) : x;
    return x / (1 + exp(-u));
}

static void forward_attend(const Timeline *t, int layer, const double *q, double *out) {
    const Config *c = &t->m->config;
    const LayerKind *kind = config_kind(c, layer);
    int window = t->windows ? t->windows[layer] : kind->window, kd = kind->k_dim, vd = kind->v_dim;
    bool rounded = t->rounded == TO_BF16 && rounds_attention(kind, t->bf16);
    double scale = c->attn_scale > 0 ? (double)c->attn_scale : 1 / sqrt(kd);
    double before = rounded ? scale * log2(exp(1)) : 1; // for a softmax in base 2
    double *p = need(sizeof *p * (size_t)(t->pos + 1));
    for (int h = 0; h < kind->n_heads; h++, q += kd, out += vd) {
        int kv_head = h / (kind->n_heads / kind->n_kv_heads);
        int64_t at = (int64_t)layer * t->room * t->kv_width;
        const double *k = t->k + at + kv_head * kd, *v = t->v + at + kv_head * vd;
        double top = -INFINITY, sum = 0;
        for (int j = 0; j <= t->pos; j++) {
            p[j] = -INFINITY;
            if (window && j <= t->pos - window && j >= t->n_sinks) continue;
            p[j] = 0;
            for (int d = 0; d < kd; d++)
                p[j] += maybe_rounded(q[d] * before, rounded) / before * k[j * t->kv_width + d];
            p[j] = forward_capped(p[j] * scale, c->attn_softcap);
            top = fmax(top, p[j]);
        }
        memset(out, 0, sizeof *out * (size_t)vd);
        for (int j = 0; j <= t->pos; j++) {
            if (isinf(p[j])) continue;
            p[j] = exp(p[j] - top);
            sum += p[j];
            p[j] = maybe_rounded(p[j], rounded);
            for (int d = 0; d < vd; d++) out[d] += p[j] * v[j * t->kv_width + d];
        }
        for (int d = 0; d < vd; d++) out[d] /= sum;
        double *kept = t->watched ? t->watched + ((int64_t)layer * kind->n_heads + h) * t->room : NULL;
        for (int j = 0; kept && j <= t->pos; j++) kept[j] = isinf(p[j]) ? 0 : p[j] / sum;
    }
    free(p);
}

// y joins the stream, through a norm where the layer has one.
static void forward_join(Timeline *t, double *x, int layer, const char *norm, double *y) {
    int dim = t->m->config.dim;
    forward_norm(t, y, layer, norm, y, 1, dim);
    for (int i = 0; i < dim; i++) x[i] += y[i];
}

static void forward_layer(Timeline *t, int l, double *x, double *room) {
    const Config *c = &t->m->config;
    const LayerKind *kind = config_kind(c, l);
    int64_t slot = ((int64_t)l * t->room + t->pos) * t->kv_width;
    double *n = room, *y = n + c->dim, *q = y + c->dim, *o = q + kind->n_heads * kind->k_dim;
    double *gate = o + kind->n_heads * kind->v_dim, *up = gate + c->hidden_dim, *k = t->k + slot, *v = t->v + slot;
    forward_norm(t, n, l, "attn_norm", x, 1, c->dim);
    forward_product(t, q, l, "attn_q", n);
    forward_product(t, k, l, "attn_k", n);
    forward_product(t, v, l, "attn_v", n);
    forward_norm(t, q, l, "attn_q_norm", q, kind->n_heads, kind->k_dim);
    forward_norm(t, k, l, "attn_k_norm", k, kind->n_kv_heads, kind->k_dim);
    forward_rotate(q, kind, kind->n_heads, t->pos);
    forward_rotate(k, kind, kind->n_kv_heads, t->pos);
    for (int i = 0; t->bf16 && i < kind->n_kv_heads * kind->k_dim; i++) k[i] = maybe_rounded(k[i], true);
    for (int i = 0; t->bf16 && i < kind->n_kv_heads * kind->v_dim; i++) v[i] = maybe_rounded(v[i], true);
    forward_attend(t, l, q, o);
    forward_product(t, y, l, "attn_output", o);
    forward_join(t, x, l, "post_attention_norm", y);
    forward_norm(t, n, l, "ffn_norm", x, 1, c->dim);
    forward_product(t, gate, l, "ffn_gate", n);
    forward_product(t, up, l, "ffn_up", n);
    for (int i = 0; i < c->hidden_dim; i++) gate[i] = forward_activated(gate[i], c->activation) * up[i];
    forward_product(t, y, l, "ffn_down", gate);
    forward_join(t, x, l, "post_ffw_norm", y);
}

UNUSED static void timeline_step(Timeline *t, int token, double *logits) {
    const Config *c = &t->m->config;
    int widest = 0;
    for (int l = 0; l < c->n_layers; l++) {
        const LayerKind *kind = config_kind(c, l);
        int width = kind->n_heads * (kind->k_dim + kind->v_dim);
        widest = width > widest ? width : widest;
    }
    double *x = need(sizeof *x * (size_t)(3 * c->dim + widest + 2 * c->hidden_dim));
    const double *row = forward_values(t, -1, "token_embd", NOT_ROUNDED) + (int64_t)token * c->dim;
    double scale = c->embedding_scale > 0 ? (double)c->embedding_scale : 1;
    for (int i = 0; i < c->dim; i++) x[i] = scale * row[i];
    for (int l = 0; l < c->n_layers; l++) forward_layer(t, l, x, x + c->dim);
    forward_norm(t, x, -1, "output_norm", x, 1, c->dim);
    forward_product(t, logits, -1, c->tied ? "token_embd" : "output", x);
    for (int i = 0; i < c->vocab_size; i++) logits[i] = forward_capped(logits[i], c->logit_softcap);
    free(x);
    t->pos++;
}
