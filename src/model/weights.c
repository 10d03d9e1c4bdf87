// weights: see weights.h. The one file that instantiates stb_ds.
#define STB_DS_IMPLEMENTATION
#include <stb/stb_ds.h>

#include "weights.h"

#include "quant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COPY_ALIGNMENT = 64 };

static const DTypeInfo dtypes[N_DTYPES] = {
    [DTYPE_F32] = {"F32", 1, sizeof(float), NULL},
    [DTYPE_F16] = {"F16", 1, sizeof(uint16_t), NULL},
    [DTYPE_BF16] = {"BF16", 1, sizeof(uint16_t), NULL},
    [DTYPE_I8G] = {"I8G", 0, 0, NULL},
    [DTYPE_Q4_0] = {"Q4_0", BLOCK, sizeof(BlockQ4_0), unpack_q4_0},
    [DTYPE_Q4_1] = {"Q4_1", BLOCK, sizeof(BlockQ4_1), unpack_q4_1},
    [DTYPE_Q5_0] = {"Q5_0", BLOCK, sizeof(BlockQ5_0), unpack_q5_0},
    [DTYPE_Q5_1] = {"Q5_1", BLOCK, sizeof(BlockQ5_1), unpack_q5_1},
    [DTYPE_Q8_0] = {"Q8_0", BLOCK, sizeof(BlockQ8_0), unpack_q8_0},
    [DTYPE_Q2_K] = {"Q2_K", SUPER, sizeof(BlockQ2_K), unpack_q2_k},
    [DTYPE_Q3_K] = {"Q3_K", SUPER, sizeof(BlockQ3_K), unpack_q3_k},
    [DTYPE_Q4_K] = {"Q4_K", SUPER, sizeof(BlockQ4_K), unpack_q4_k},
    [DTYPE_Q5_K] = {"Q5_K", SUPER, sizeof(BlockQ5_K), unpack_q5_k},
    [DTYPE_Q6_K] = {"Q6_K", SUPER, sizeof(BlockQ6_K), unpack_q6_k},
    [DTYPE_MXFP4] = {"MXFP4", BLOCK, sizeof(BlockMxfp4), unpack_mxfp4},
    [DTYPE_MXFP4_SPLIT] = {"MXFP4", BLOCK, BLOCK / 2, NULL},
    [DTYPE_U8] = {"U8", 1, 1, NULL},
    [DTYPE_OTHER] = {"that this build does not know", 0, 0, NULL},
};

const DTypeInfo *dtype_info(DType d) {
    return &dtypes[d];
}

const char *dtype_name(DType d) {
    return (unsigned)d < N_DTYPES ? dtypes[d].name : "?";
}

int64_t tensor_count(const Tensor *t) {
    uint64_t n = 1; // of an empty tensor the other dimensions may be any
    for (int i = 0; i < t->n_dims; i++) n *= (uint64_t)t->shape[i];
    return (int64_t)n;
}

uint64_t tensor_bytes(const Tensor *t) {
    uint64_t n = (uint64_t)tensor_count(t);
    const DTypeInfo *info = dtype_info(t->dtype);
    if (t->dtype == DTYPE_I8G) return n + n / (uint64_t)t->group * sizeof(float);
    uint64_t n_blocks = info->block ? n / (uint64_t)info->block : 0;
    return n_blocks * ((uint64_t)info->block_bytes + (t->dtype == DTYPE_MXFP4_SPLIT));
}

static const char *weights_path(const Weights *w) {
    return w->files ? w->files[0].path : "(no file)";
}

int weights_add(Weights *w, const char *name, Tensor t, char *err, size_t errlen) {
    if (!w->table) sh_new_strdup(w->table);
    if (weights_find(w, name)) {
        return fail(err, errlen, "%s: tensor %s: expected once, found twice", weights_path(w), name);
    }
    shput(w->table, name, t);
    return 0;
}

size_t weights_count(const Weights *w) {
    return (size_t)shlen(w->table);
}

const Tensor *weights_at(const Weights *w, size_t i) {
    return &w->table[i].value;
}

size_t weights_index(const Weights *w, const Tensor *t) {
    const char *entry = (const char *)t - offsetof(TensorEntry, value);
    return (size_t)((const TensorEntry *)(const void *)entry - w->table);
}

uint64_t weights_params(const Weights *w) {
    uint64_t n = 0;
    for (size_t i = 0; i < weights_count(w); i++) n += (uint64_t)tensor_count(weights_at(w, i));
    return n;
}

uint64_t weights_file_bytes(const Weights *w) {
    uint64_t n = 0;
    for (ptrdiff_t i = 0; i < arrlen(w->files); i++) n += w->files[i].size;
    return n;
}

const Tensor *weights_find(const Weights *w, const char *name) {
    if (!w->table) return NULL;
    ptrdiff_t i; // shgeti would keep the index inside the table: a write, and a race between two readers
    stbds_hmget_key_ts(w->table, sizeof *w->table, (void *)(uintptr_t)name, sizeof w->table->key, &i, STBDS_HM_STRING);
    return i >= 0 ? &w->table[i].value : NULL;
}

static void print_shape(char *text, size_t size, const int64_t *shape, int n_dims) {
    size_t n = 0;
    text[0] = 0;
    for (int i = 0; i < n_dims && n < size; i++) {
        n += (size_t)snprintf(text + n, size - n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    }
}

const Tensor *weights_get_shape(const Weights *w, const char *name, unsigned dtype_mask, const int64_t *shape,
                                int n_dims, char *err, size_t errlen) {
    const Tensor *t = weights_find(w, name);
    const char *path = weights_path(w);
    if (!t) {
        fail(err, errlen, "%s: tensor %s: expected, not found", path, name);
        return NULL;
    }
    if (t->n_dims != n_dims || memcmp(t->shape, shape, sizeof *shape * (size_t)n_dims) != 0) {
        char expected[100], found[100];
        print_shape(expected, sizeof expected, shape, n_dims);
        print_shape(found, sizeof found, t->shape, t->n_dims);
        fail(err, errlen, "%s: tensor %s: expected shape [%s], found [%s]", path, name, expected, found);
        return NULL;
    }
    if (!(dtype_mask & DTYPE_BIT(t->dtype))) {
        fail(err, errlen, "%s: tensor %s: dtype %s cannot be used here", path, name, dtype_name(t->dtype));
        return NULL;
    }
    return t;
}

const Tensor *weights_get(const Weights *w, const char *name, unsigned dtype_mask, int64_t rows, int64_t cols,
                          char *err, size_t errlen) {
    return weights_get_shape(w, name, dtype_mask, (int64_t[]){rows, cols}, cols ? 2 : 1, err, errlen);
}

void *weights_own(Weights *w, size_t bytes) {
    void *copy;
    if (posix_memalign(&copy, COPY_ALIGNMENT, bytes)) return NULL;
    arrput(w->copies, copy);
    return copy;
}

const float *weights_floats(Weights *w, const char *name, const int64_t *shape, int n_dims, char *err, size_t errlen) {
    const Tensor *t = weights_get_shape(w, name, DTYPE_FLOATS, shape, n_dims, err, errlen);
    if (!t || t->dtype == DTYPE_F32) return t ? t->data : NULL;
    int64_t n = tensor_count(t);
    const uint16_t *half = t->data;
    float *values = weights_own(w, sizeof *values * (size_t)n);
    if (!values) fail(err, errlen, "%s: tensor %s: out of memory", weights_path(w), name);
    for (int64_t i = 0; values && i < n; i++) {
        values[i] = t->dtype == DTYPE_F16 ? f32_from_f16(half[i]) : f32_from_bf16(half[i]);
    }
    return values;
}

void weights_free(Weights *w) {
    shfree(w->table);
    for (ptrdiff_t i = 0; i < arrlen(w->files); i++) file_unmap(&w->files[i]);
    arrfree(w->files);
    for (ptrdiff_t i = 0; i < arrlen(w->copies); i++) free(w->copies[i]);
    arrfree(w->copies);
    w->table = NULL;
}
