// gguf_list: see gguf_list.h.
#include "gguf_list.h"

#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

int64_t rows_at(const Rows *r, int64_t i) {
    int64_t in_group = i % r->group;
    int64_t in_head = r->head ? in_group % r->head : in_group, of_head = in_group - in_head;
    if (in_head < r->n_paired) in_group = of_head + in_head / 2 + in_head % 2 * (r->n_paired / 2);
    return r->first + i / r->group * r->pitch + in_group;
}

Slice list_slice(const Dense *dense, int64_t n) {
    return (Slice){dense, {.n = n, .group = 1, .pitch = 1}};
}

void list_add(List *l, const char *part, const char *suffix, Part p) {
    part = family_gguf_part(l->f, part);
    if (l->layer < 0) snprintf(p.name, sizeof p.name, "%s%s", part, suffix);
    else snprintf(p.name, sizeof p.name, "blk.%d.%s%s", l->layer, part, suffix);
    gguf_tensor(l->w, p.name, &p.as);
    arrput(l->parts, p);
}

Tensor list_column(const float *values, int64_t n) {
    return (Tensor){.dtype = DTYPE_F32, .n_dims = 2, .shape = {n, 1}, .data = values};
}

// n values, in the order of `rows`.
void list_vector(List *l, const char *part, const char *suffix, const float *values, Rows rows) {
    Part p = {.as = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {rows.n}}};
    rows.from = list_column(values, rows.n);
    arrput(p.rows, rows);
    list_add(l, part, suffix, p);
}

void list_norm(List *l, const char *part, const Norm *norm, Rows rows, bool bias) {
    list_vector(l, part, ".weight", norm->weight, rows);
    if (bias) list_vector(l, part, ".bias", norm->bias, rows);
}

void list_dim_norm(List *l, const char *part, const Norm *norm) {
    const Config *c = decoder_config(l->d);
    list_norm(l, part, norm, list_slice(NULL, c->dim).rows, c->layer_norm && !c->no_norm_bias);
}

void list_matrix(List *l, Matrix m) {
    MixMatrix matrix = {family_gguf_part(l->f, m.part), l->layer, m.slices[0].dense->w.dtype, m.cols};
    DType dtype = m.exact ? DTYPE_F32 : gguf_mix_type(l->mix, &l->model, &matrix, l->count);
    Part weight = {.as = {.dtype = dtype}, .matrix = !m.exact}, bias = {.as.dtype = DTYPE_F32};
    int64_t n = 0;
    for (int i = 0; i < m.n; i++) {
        Rows rows = m.slices[i].rows;
        rows.from = m.slices[i].dense->w;
        arrput(weight.rows, rows);
        rows.from = list_column(m.slices[i].dense->bias, 0);
        if (m.bias) arrput(bias.rows, rows);
        n += rows.n;
    }
    int64_t stacked[] = {m.n, n / m.n, m.cols}, flat[] = {n, m.cols}, *shape = m.stacked ? stacked : flat;
    weight.as.n_dims = m.stacked ? 3 : 2;
    bias.as.n_dims = weight.as.n_dims - 1;
    memcpy(weight.as.shape, shape, sizeof *shape * (size_t)weight.as.n_dims);
    memcpy(bias.as.shape, shape, sizeof *shape * (size_t)bias.as.n_dims);
    list_add(l, m.part, ".weight", weight);
    if (m.bias) list_add(l, m.part, ".bias", bias);
}

void list_dense(List *l, const char *part, Slice s, int64_t cols, bool bias) {
    list_matrix(l, (Matrix){.part = part, .cols = cols, .n = 1, .slices = &s, .bias = bias});
}

// A matrix that was made for the file, of its type or F32.
void list_made(List *l, const char *part, const char *suffix, float *made, int64_t rows, int64_t cols, DType dtype) {
    Part p = {.as = {.dtype = dtype, .n_dims = 2, .shape = {rows, cols}}, .matrix = dtype != DTYPE_F32, .made = made};
    Rows all = list_slice(NULL, rows).rows;
    all.from = (Tensor){.dtype = DTYPE_F32, .n_dims = 2, .shape = {rows, cols}, .data = made};
    arrput(p.rows, all);
    list_add(l, part, suffix, p);
}

float *list_values(int64_t n) {
    float *values = malloc(sizeof *values * (size_t)n);
    if (!values) die(1, "out of memory for %lld values", (long long)n);
    return values;
}

void gguf_parts_free(Part *parts) {
    for (ptrdiff_t i = 0; i < arrlen(parts); i++) {
        arrfree(parts[i].rows);
        free(parts[i].made);
    }
    arrfree(parts);
}
