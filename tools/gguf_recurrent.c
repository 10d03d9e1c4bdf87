// gguf_recurrent: see gguf_recurrent.h.
#include "gguf_recurrent.h"

#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

// ---- short convolutions

// Taps [width][channels] as [channels][width]; order[c] is the channel that stands at c, NULL: they stay.
static void add_taps(List *l, const char *part, const float *taps, int width, int channels, const int *order) {
    float *made = taps ? list_values((int64_t)width * channels) : NULL;
    for (int64_t c = 0; made && c < channels; c++) {
        for (int j = 0; j < width; j++) made[c * width + j] = taps[j * (int64_t)channels + (order ? order[c] : c)];
    }
    list_made(l, part, ".weight", made, channels, width, DTYPE_F32);
}

void add_short_convolution(List *l, const LayerKind *kind, const ConvWeights *w) {
    int dim = kind->state.conv_dim;
    bool bias = w->bias != NULL;
    list_dense(l, "shortconv.in_proj", list_slice(&w->in, 3 * (int64_t)dim), dim, bias);
    add_taps(l, "shortconv.conv", w->taps, kind->state.conv_width, dim, NULL);
    if (bias) list_vector(l, "shortconv.conv", ".bias", w->bias, list_slice(NULL, dim).rows);
    list_dense(l, "shortconv.out_proj", list_slice(&w->out, dim), dim, bias);
}

// ---- gated delta nets

// The value head that stands at place i of the file.
static int value_head(const List *l, const StateShape *s, const DeltaWeights *w, int i) {
    bool reorder = l->f->gguf_tiled_heads && w->key_heads == KEY_HEADS_REPEATED;
    return reorder ? i % s->n_key_heads * (s->n_heads / s->n_key_heads) + i / s->n_key_heads : i;
}

// Rows of all value heads from row `first` on, `width` of each, onto the stb_ds array.
static Slice *put_value_rows(const List *l, Slice *slices, const StateShape *s, const DeltaWeights *w,
                             const Dense *dense, int64_t first, int64_t width) {
    for (int i = 0; i < s->n_heads; i++) {
        Slice one = list_slice(dense, width);
        one.rows.first = first + value_head(l, s, w, i) * width;
        arrput(slices, one);
    }
    return slices;
}

static void add_value_rows(List *l, const char *part, const StateShape *s, const DeltaWeights *w, const Dense *dense,
                           int64_t width) {
    Slice *slices = put_value_rows(l, NULL, s, w, dense, 0, width);
    list_matrix(l, (Matrix){.part = part, .cols = decoder_config(l->d)->dim, .n = s->n_heads, .slices = slices});
    arrfree(slices);
}

// `width` rows at `first` of each key head's group.
static Slice group_rows(const StateShape *s, const Dense *dense, int64_t first, int64_t width) {
    int64_t per = s->n_heads / s->n_key_heads;
    Slice rows = list_slice(dense, width * s->n_key_heads);
    rows.rows.first = first;
    rows.rows.group = width;
    rows.rows.pitch = 2 * s->k_dim + 2 * per * s->v_dim;
    return rows;
}

static void add_delta_inputs(List *l, const StateShape *s, const DeltaWeights *w) {
    int64_t keys = (int64_t)s->n_key_heads * s->k_dim, k_dim = s->k_dim,
            values = (int64_t)(s->n_heads / s->n_key_heads) * s->v_dim;
    int dim = decoder_config(l->d)->dim;
    Slice *qkv = NULL;
    if (dense_exists(&w->qkvz)) {
        arrput(qkv, group_rows(s, &w->qkvz, 0, k_dim));
        arrput(qkv, group_rows(s, &w->qkvz, k_dim, k_dim));
        arrput(qkv, group_rows(s, &w->qkvz, 2 * k_dim, values));
        Slice z = group_rows(s, &w->qkvz, 2 * k_dim + values, values);
        list_matrix(l, (Matrix){.part = "attn_qkv", .cols = dim, .n = 3, .slices = qkv});
        list_matrix(l, (Matrix){.part = "attn_gate", .cols = dim, .n = 1, .slices = &z});
    } else {
        arrput(qkv, list_slice(&w->qkv, 2 * keys));
        qkv = put_value_rows(l, qkv, s, w, &w->qkv, 2 * keys, s->v_dim);
        list_matrix(l, (Matrix){.part = "attn_qkv", .cols = dim, .n = 1 + s->n_heads, .slices = qkv});
        add_value_rows(l, "attn_gate", s, w, &w->z, s->v_dim);
    }
    arrfree(qkv);
    if (l->f->gguf_tiled_heads) {
        add_value_rows(l, "ssm_beta", s, w, &w->beta, 1);
        add_value_rows(l, "ssm_alpha", s, w, &w->alpha, 1);
    } else {
        list_dense(l, "ssm_ba", list_slice(&w->ba, 2 * (int64_t)s->n_heads), dim, false);
    }
}

// A number of each value head.
static void add_head_numbers(List *l, const char *part, const char *suffix, const StateShape *s, const DeltaWeights *w,
                             const float *values) {
    Part p = {.as = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {s->n_heads}}};
    for (int i = 0; i < s->n_heads; i++) {
        Rows one = list_slice(NULL, 1).rows;
        one.first = value_head(l, s, w, i);
        one.from = list_column(values, s->n_heads);
        arrput(p.rows, one);
    }
    list_add(l, part, suffix, p);
}

static void add_delta_taps(List *l, const StateShape *s, const DeltaWeights *w) {
    int keys = 2 * s->n_key_heads * s->k_dim, *order = malloc(sizeof *order * (size_t)s->conv_dim);
    if (!order) die(1, "out of memory for %d channels", s->conv_dim);
    for (int c = 0; c < s->conv_dim; c++) {
        int v = c - keys;
        order[c] = v < 0 ? c : keys + value_head(l, s, w, v / s->v_dim) * s->v_dim + v % s->v_dim;
    }
    add_taps(l, "ssm_conv1d", w->taps, s->conv_width, s->conv_dim, order);
    free(order);
}

// The columns of the last matrix belong to value heads.
static void add_delta_out(List *l, const StateShape *s, const DeltaWeights *w) {
    int64_t dim = decoder_config(l->d)->dim, values = (int64_t)s->n_heads * s->v_dim;
    if (!dense_exists(&w->out) || value_head(l, s, w, 1 % s->n_heads) == 1 % s->n_heads) {
        list_dense(l, "ssm_out", list_slice(&w->out, dim), values, false);
        return;
    }
    MixMatrix matrix = {"ssm_out", l->layer, DTYPE_F32, values};
    DType dtype = gguf_mix_type(l->mix, &l->model, &matrix, l->count);
    float *row = list_values(values), *made = list_values(dim * values);
    for (int64_t r = 0; r < dim; r++) {
        row_unpack(row, &w->out.w, r);
        for (int i = 0; i < s->n_heads; i++) {
            const float *from = row + (int64_t)value_head(l, s, w, i) * s->v_dim;
            memcpy(made + r * values + (int64_t)i * s->v_dim, from, sizeof *made * (size_t)s->v_dim);
        }
    }
    free(row);
    list_made(l, "ssm_out", ".weight", made, dim, values, dtype);
}

void add_delta(List *l, const LayerKind *kind, const DeltaWeights *w) {
    const StateShape *s = &kind->state;
    add_delta_inputs(l, s, w);
    add_delta_taps(l, s, w);
    add_head_numbers(l, "ssm_a", "", s, w, w->a);
    add_head_numbers(l, "ssm_dt", ".bias", s, w, w->dt);
    list_vector(l, "ssm_norm", ".weight", w->norm, list_slice(NULL, s->v_dim).rows);
    add_delta_out(l, s, w);
}

// ---- Mamba

static void add_values(List *l, const char *part, const char *suffix, const float *values, int64_t rows, int64_t cols) {
    Part p = {.as = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {rows, cols}}};
    Rows all = list_slice(NULL, rows).rows;
    all.from = (Tensor){.dtype = DTYPE_F32, .n_dims = 2, .shape = {rows, cols}, .data = values};
    arrput(p.rows, all);
    list_add(l, part, suffix, p);
}

// Without weights a layer has all that it may have.
void add_ssm(List *l, const StateShape *s, const SsmWeights *w) {
    int64_t dim = decoder_config(l->d)->dim, inner = (int64_t)s->n_heads * s->v_dim;
    Rows heads = list_slice(NULL, s->n_heads).rows;
    list_dense(l, "ssm_in", list_slice(&w->in, inner + s->conv_dim + s->n_heads), dim, w->in.bias);
    add_taps(l, "ssm_conv1d", w->taps, s->conv_width, s->conv_dim, NULL);
    if (w->conv_bias || !w->taps)
        list_vector(l, "ssm_conv1d", ".bias", w->conv_bias, list_slice(NULL, s->conv_dim).rows);
    list_vector(l, "ssm_dt", ".bias", w->step_bias, heads);
    add_values(l, "ssm_a", "", w->a, s->n_heads, 1);
    add_values(l, "ssm_d", "", w->d, s->n_heads, 1);
    if (w->norm || !w->taps) add_values(l, "ssm_norm", ".weight", w->norm, s->n_key_heads, inner / s->n_key_heads);
    list_dense(l, "ssm_out", list_slice(&w->out, dim), inner, w->out.bias);
}

void add_mamba(List *l, const StateShape *s, const MambaWeights *w) {
    const Config *c = decoder_config(l->d);
    int64_t channels = s->v_dim, states = s->k_dim, rank = c->step_rank;
    Rows all = list_slice(NULL, channels).rows;
    list_dense(l, "ssm_in", list_slice(&w->in, 2 * channels), c->dim, w->in.bias);
    add_taps(l, "ssm_conv1d", w->taps, s->conv_width, s->conv_dim, NULL);
    if (w->conv_bias || !w->taps) list_vector(l, "ssm_conv1d", ".bias", w->conv_bias, all);
    list_dense(l, "ssm_x", list_slice(&w->x, rank + 2 * states), channels, false);
    if (w->step_norm && !(c->step_norm_eps > 0)) {
        list_vector(l, "ssm_dt_norm", ".weight", w->step_norm, list_slice(NULL, rank).rows);
        list_vector(l, "ssm_b_norm", ".weight", w->b_norm, list_slice(NULL, states).rows);
        list_vector(l, "ssm_c_norm", ".weight", w->c_norm, list_slice(NULL, states).rows);
    }
    Slice step = list_slice(&w->step, channels); // small, and its columns no multiple of a block
    list_matrix(l, (Matrix){.part = "ssm_dt", .cols = rank, .n = 1, .slices = &step, .bias = true, .exact = true});
    float *a = w->a ? list_values(channels * states) : NULL;
    for (int64_t i = 0; a && i < channels * states; i++) a[i] = w->a[i % states * channels + i / states];
    list_made(l, "ssm_a", "", a, channels, states, DTYPE_F32);
    list_vector(l, "ssm_d", "", w->d, all);
    list_dense(l, "ssm_out", list_slice(&w->out, c->dim), channels, w->out.bias);
}

// ---- RWKV

// n vectors of `width` values, in this shape.
static void add_vectors(List *l, const char *part, const float *const *vectors, int n, int64_t width, Tensor as) {
    Part p = {.as = as};
    for (int i = 0; i < n; i++) {
        Rows rows = list_slice(NULL, width).rows;
        rows.from = list_column(vectors[i], width);
        arrput(p.rows, rows);
    }
    list_add(l, part, ".weight", p);
}

// Small matrices, which no type would make much smaller.
static void add_low_rank(List *l, const LowRank *m, const char *down, const char *up, const char *bias, int64_t n) {
    int64_t dim = decoder_config(l->d)->dim, rank = low_rank_width(m);
    Slice first = list_slice(&m->down, rank), second = list_slice(&m->up, n);
    list_matrix(l, (Matrix){.part = down, .cols = dim, .n = 1, .slices = &first, .exact = true});
    list_matrix(l, (Matrix){.part = up, .cols = rank, .n = 1, .slices = &second, .exact = true});
    if (bias) list_vector(l, bias, ".weight", m->up.bias, list_slice(NULL, n).rows);
}

// What all mixes of a layer are multiplied with: one tensor.
static void add_mixes(List *l, const float *const *mixes, int n, int64_t dim) {
    add_vectors(l, "time_mix_lerp_fused", mixes, n, dim,
                (Tensor){.dtype = DTYPE_F32, .n_dims = 4, .shape = {n, 1, 1, dim}});
}

// The first layer's v0, v1 and v2, which no pass uses, are there for other readers: its a0, a1 and a2 once more.
void add_rwkv7(List *l, const Rwkv7Weights *w) {
    int64_t dim = decoder_config(l->d)->dim;
    const float *mixes[RWKV7_MIXES];
    for (int i = 0; i < w->n_mixes; i++) mixes[i] = w->mix ? w->mix + i * dim : NULL;
    Rows all = list_slice(NULL, dim).rows;
    add_mixes(l, mixes, w->n_mixes, dim);
    list_dense(l, "time_mix_receptance", list_slice(&w->r, dim), dim, false);
    list_dense(l, "time_mix_key", list_slice(&w->k, dim), dim, false);
    list_dense(l, "time_mix_value", list_slice(&w->v, dim), dim, false);
    add_low_rank(l, &w->decay, "time_mix_w1", "time_mix_w2", "time_mix_w0", dim);
    add_low_rank(l, &w->rate, "time_mix_a1", "time_mix_a2", "time_mix_a0", dim);
    add_low_rank(l, l->layer ? &w->residual : &w->rate, "time_mix_v1", "time_mix_v2", "time_mix_v0", dim);
    if (w->n_mixes == RWKV7_MIXES) add_low_rank(l, &w->gate, "time_mix_g1", "time_mix_g2", NULL, dim);
    list_vector(l, "time_mix_k_k", ".weight", w->k_k, all);
    list_vector(l, "time_mix_k_a", ".weight", w->k_a, all);
    list_vector(l, "time_mix_r_k", ".weight", w->r_k, all);
    if (w->norm.weight || decoder_config(l->d)->channel_mix) list_norm(l, "time_mix_ln", &w->norm, all, true);
    list_dense(l, "time_mix_output", list_slice(&w->out, dim), dim, false);
}

void add_rwkv6(List *l, const LayerKind *kind, const Rwkv6Weights *w) {
    int64_t dim = decoder_config(l->d)->dim, rank = low_rank_width(&w->mixes[0]);
    Slice first[RWKV6_MIXES], second[RWKV6_MIXES];
    const float *mixes[RWKV6_MIXES];
    for (int i = 0; i < RWKV6_MIXES; i++) {
        first[i] = list_slice(&w->mixes[i].down, rank);
        second[i] = list_slice(&w->mixes[i].up, dim);
        mixes[i] = w->mixes[i].up.bias;
    }
    Rows all = list_slice(NULL, dim).rows;
    list_vector(l, "time_mix_lerp_x", ".weight", w->mix_x, all);
    add_mixes(l, mixes, RWKV6_MIXES, dim);
    list_matrix(l, (Matrix){.part = "time_mix_w1", .cols = dim, .n = RWKV6_MIXES, .slices = first, .exact = true});
    list_matrix(
        l,
        (Matrix){
            .part = "time_mix_w2", .cols = rank, .n = RWKV6_MIXES, .slices = second, .stacked = true, .exact = true});
    list_dense(l, "time_mix_receptance", list_slice(&w->r, dim), dim, false);
    list_dense(l, "time_mix_key", list_slice(&w->k, dim), dim, false);
    list_dense(l, "time_mix_value", list_slice(&w->v, dim), dim, false);
    list_dense(l, "time_mix_gate", list_slice(&w->g, dim), dim, false);
    add_low_rank(l, &w->decay, "time_mix_decay_w1", "time_mix_decay_w2", "time_mix_decay", dim);
    add_vectors(l, "time_mix_first", &w->bonus, 1, dim,
                (Tensor){.dtype = DTYPE_F32, .n_dims = 2, .shape = {kind->state.n_heads, kind->state.k_dim}});
    list_norm(l, "time_mix_ln", &w->norm, all, true);
    list_dense(l, "time_mix_output", list_slice(&w->out, dim), dim, false);
}

void add_channel_mix(List *l, const ChannelMix *m) {
    const Config *c = decoder_config(l->d);
    Rows all = list_slice(NULL, c->dim).rows;
    list_vector(l, "channel_mix_lerp_k", ".weight", m->mix_k, all);
    list_dense(l, "channel_mix_key", list_slice(&m->ffn.up, c->hidden_dim), c->dim, false);
    list_dense(l, "channel_mix_value", list_slice(&m->ffn.down, c->dim), c->hidden_dim, false);
    if (config_kind(c, l->layer)->mixer != MIX_RWKV6) return;
    list_vector(l, "channel_mix_lerp_r", ".weight", m->mix_r, all);
    list_dense(l, "channel_mix_receptance", list_slice(&m->receptance, c->dim), c->dim, false);
}
