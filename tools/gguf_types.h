// gguf_types: which type each matrix of a written GGUF file gets, and the conversion of rows.
//
// Owns two exceptions to the requested type: rows that its blocks do not divide (Q8_0, then F16), and matrices that are
// MXFP4 already, which keep it if a block type is requested (any other would be larger and lossy). Called by
// gguf_model, quantize and synth.
#pragma once
#include "weights.h"

// The type of a name, in any case; DTYPE_OTHER if it is not one of these.
#define GGUF_TYPES "F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q6_K, IQ4_NL or IQ4_XS"
DType gguf_type_named(const char *name);
uint32_t gguf_file_type(DType type); // the value of general.file_type
// The type to write for a matrix of type `from` with rows of `cols` values.
DType gguf_type_fit(DType wanted, DType from, int64_t cols);
// Counts matrices, and prints a note on stderr if some got another type than the requested one.
typedef struct {
    int n_matrices, n_q8_0, n_f16, n_mxfp4;
} TypeCount;
void gguf_type_count(TypeCount *c, DType wanted, DType got);
void gguf_type_note(const TypeCount *c, DType wanted);

size_t dtype_row_bytes(DType d, int64_t cols);
// A row to fp32, from any type.
void row_unpack(float *x, const Tensor *t, int64_t row);
// A row without conversion (MXFP4_SPLIT: as MXFP4).
void row_copy(void *to, const Tensor *t, int64_t row);
// n finite values, a multiple of the block size, to a type and back.
void values_pack(DType d, void *to, const float *x, int64_t n);
void values_unpack(DType d, float *x, const void *from, int64_t n);
