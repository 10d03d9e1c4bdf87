// tensor: a matrix or vector of any stored type, in place in the mapped file.
//
// Owns the table of stored types: their names, block sizes and conversion to fp32. Refuses nothing: the loaders check
// that a tensor's bytes are there. Called by every room above.
#pragma once
#include "quant.h"

#include <stdbool.h>

typedef struct {
    const char *name;
    int block, block_bytes; // values and bytes of a block; 0 for I8G (Tensor.group), INTEGER and OTHER
    void (*unpack)(float *y, const void *blocks, int64_t n_blocks); // to fp32; NULL: not a block format
} DTypeInfo;

#define DTYPE_BIT(d) (1u << (d))
_Static_assert(N_DTYPES <= 32, "a bit for each");
#define DTYPE_FLOATS (DTYPE_BIT(DTYPE_F32) | DTYPE_BIT(DTYPE_F16) | DTYPE_BIT(DTYPE_BF16))
#define DTYPE_ANY (DTYPE_BIT(DTYPE_U8) - 1) // all that a matrix may have

enum { MAX_DIMS = 4 };

typedef struct {
    DType dtype;
    int n_dims;              // 1 to MAX_DIMS
    int64_t shape[MAX_DIMS]; // [n], [rows][cols], ..., row-major
    const void *data;        // into the mapping
    const void *scales;      // of DTYPE_I8G: floats [rows * cols / group], of MXFP4_SPLIT: bytes; else unused
    int group;               // of DTYPE_I8G: values per scale, divides rows * cols; else unused
} Tensor;

const DTypeInfo *dtype_info(DType d);
const char *dtype_name(DType d);
int64_t tensor_count(const Tensor *t);         // values
bool floats_finite(const float *x, int64_t n); // none is NaN or infinite
uint64_t tensor_bytes(const Tensor *t);        // bytes of all values and scales; 0: INTEGER and OTHER
