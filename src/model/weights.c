// weights: see weights.h.
#include "weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

enum { COPY_ALIGNMENT = 64 };

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
