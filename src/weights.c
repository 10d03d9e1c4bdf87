// weights: see weights.h. The one file that instantiates stb_ds.
#define STB_DS_IMPLEMENTATION
#include <stb/stb_ds.h>

#include "weights.h"

#include <stdio.h>
#include <string.h>

const char *dtype_name(DType d) {
    static const char *const names[N_DTYPES] = {[DTYPE_F32] = "F32", [DTYPE_I8G] = "I8G"};
    return (unsigned)d < N_DTYPES ? names[d] : "?";
}

int64_t tensor_count(const Tensor *t) {
    return t->n_dims == 2 ? t->shape[0] * t->shape[1] : t->shape[0];
}

uint64_t tensor_bytes(const Tensor *t) {
    uint64_t n = (uint64_t)tensor_count(t);
    return t->dtype == DTYPE_I8G ? n + n / (uint64_t)t->group * sizeof(float) : n * sizeof(float);
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

const Tensor *weights_find(const Weights *w, const char *name) {
    if (!w->table) return NULL;
    ptrdiff_t i; // shgeti would keep the index inside the table: a write, and a race between two readers
    stbds_hmget_key_ts(w->table, sizeof *w->table, (void *)(uintptr_t)name, sizeof w->table->key, &i, STBDS_HM_STRING);
    return i >= 0 ? &w->table[i].value : NULL;
}

const Tensor *weights_get(const Weights *w, const char *name, unsigned dtype_mask, int64_t rows, int64_t cols,
                          char *err, size_t errlen) {
    const Tensor *t = weights_find(w, name);
    const char *path = weights_path(w);
    if (!t) {
        fail(err, errlen, "%s: tensor %s: expected, not found", path, name);
        return NULL;
    }
    if (!(dtype_mask & DTYPE_BIT(t->dtype))) {
        fail(err, errlen, "%s: tensor %s: dtype %s cannot be used here", path, name, dtype_name(t->dtype));
        return NULL;
    }
    int64_t found_cols = t->n_dims == 2 ? t->shape[1] : 0;
    if (t->shape[0] != rows || found_cols != cols) {
        fail(err, errlen, "%s: tensor %s: expected shape [%lld, %lld], found [%lld, %lld]", path, name, (long long)rows,
             (long long)cols, (long long)t->shape[0], (long long)found_cols);
        return NULL;
    }
    return t;
}

void weights_free(Weights *w) {
    shfree(w->table);
    for (ptrdiff_t i = 0; i < arrlen(w->files); i++) file_unmap(&w->files[i]);
    arrfree(w->files);
    w->table = NULL;
}
