// gguf_types: see gguf_types.h.
#include "gguf_types.h"

#include "kernels.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static const struct {
    DType dtype;
    uint32_t file_type;
    void (*pack)(void *blocks, const float *x, int64_t n); // NULL: floats
} kinds[] = {{DTYPE_F32, 0, NULL},           {DTYPE_F16, 1, NULL},
             {DTYPE_BF16, 32, NULL},         {DTYPE_Q8_0, 7, pack_q8_0},
             {DTYPE_Q4_0, 2, pack_q4_0},     {DTYPE_Q4_K, 14, pack_q4_k},
             {DTYPE_Q6_K, 18, pack_q6_k},    {DTYPE_IQ4_NL, 25, pack_iq4_nl},
             {DTYPE_IQ4_XS, 30, pack_iq4_xs}};

enum { N_KINDS = sizeof kinds / sizeof *kinds };

DType gguf_type_named(const char *name) {
    for (int i = 0; i < N_KINDS; i++) {
        if (!strcasecmp(name, dtype_name(kinds[i].dtype))) return kinds[i].dtype;
    }
    return DTYPE_OTHER;
}

uint32_t gguf_file_type(DType type) {
    int i = 0;
    while (kinds[i].dtype != type) i++;
    return kinds[i].file_type;
}

DType gguf_type_fit(DType wanted, DType from, int64_t cols) {
    bool blocks = dtype_info(wanted)->block > 1;
    if (blocks && (from == DTYPE_MXFP4 || from == DTYPE_MXFP4_SPLIT)) return DTYPE_MXFP4;
    if (cols % dtype_info(wanted)->block == 0) return wanted;
    return cols % BLOCK ? DTYPE_F16 : DTYPE_Q8_0;
}

void gguf_type_count(TypeCount *c, DType wanted, DType got) {
    c->n_matrices++;
    c->n_q8_0 += got != wanted && got == DTYPE_Q8_0;
    c->n_f16 += got != wanted && got == DTYPE_F16;
    c->n_mxfp4 += got == DTYPE_MXFP4;
}

void gguf_type_note(const TypeCount *c, DType wanted) {
    int n = c->n_q8_0 + c->n_f16;
    if (n) {
        fprintf(stderr, "note: %s: blocks of %d do not divide the rows of %d of %d matrices: %d are Q8_0, %d F16\n",
                dtype_name(wanted), dtype_info(wanted)->block, n, c->n_matrices, c->n_q8_0, c->n_f16);
    }
    if (c->n_mxfp4) {
        fprintf(stderr, "note: %s: %d of %d matrices are MXFP4 already and were copied\n", dtype_name(wanted),
                c->n_mxfp4, c->n_matrices);
    }
}

size_t dtype_row_bytes(DType d, int64_t cols) {
    return (size_t)(cols / dtype_info(d)->block * dtype_info(d)->block_bytes);
}

void values_pack(DType d, void *to, const float *x, int64_t n) {
    uint16_t *half = to;
    if (d == DTYPE_F32) memcpy(to, x, sizeof *x * (size_t)n);
    else if (d == DTYPE_F16) {
        for (int64_t i = 0; i < n; i++) half[i] = f16_from_f32(x[i]);
    } else if (d == DTYPE_BF16) {
        for (int64_t i = 0; i < n; i++) half[i] = bf16_from_f32(x[i]);
    } else {
        for (int i = 0; i < N_KINDS; i++) {
            if (kinds[i].dtype == d) kinds[i].pack(to, x, n / dtype_info(d)->block);
        }
    }
}

void values_unpack(DType d, float *x, const void *from, int64_t n) {
    const Kernels *k = kernels_for(LEVEL_SCALAR);
    if (d == DTYPE_F32) memcpy(x, from, sizeof *x * (size_t)n);
    else if (d == DTYPE_F16) k->f32_from_f16(x, n, from, n, 1, (int)n);
    else if (d == DTYPE_BF16) k->f32_from_bf16(x, n, from, n, 1, (int)n);
    else dtype_info(d)->unpack(x, from, n / dtype_info(d)->block);
}

void row_unpack(float *x, const Tensor *t, int64_t row) {
    int64_t cols = t->shape[t->n_dims - 1], n_blocks = cols / BLOCK;
    const uint8_t *data = t->data;
    if (t->dtype == DTYPE_I8G) {
        kernels()->unpack_i8g(x, t->data, t->scales, t->group, row * cols, (int)cols);
        return;
    }
    data += (size_t)row * dtype_row_bytes(t->dtype, cols);
    if (t->dtype == DTYPE_MXFP4_SPLIT) {
        unpack_mxfp4_split(x, data, (const uint8_t *)t->scales + row * n_blocks, n_blocks);
    } else {
        values_unpack(t->dtype, x, data, cols);
    }
}

void row_copy(void *to, const Tensor *t, int64_t row) {
    int64_t cols = t->shape[t->n_dims - 1], n_blocks = cols / BLOCK;
    size_t bytes = dtype_row_bytes(t->dtype, cols);
    const uint8_t *from = (const uint8_t *)t->data + (size_t)row * bytes;
    if (t->dtype == DTYPE_MXFP4_SPLIT) join_mxfp4(to, from, (const uint8_t *)t->scales + row * n_blocks, n_blocks);
    else memcpy(to, from, bytes);
}
