// gguf_types: which type each matrix of a written GGUF file gets, and the conversion of rows.
//
// Owns the types and mixes that files are named by, and the exceptions to them: rows that a type's blocks do not
// divide, and matrices that are MXFP4 already, which keep it if a block type is requested (any other would be larger
// and lossy). Called by gguf_model, quantize and synth. Source of the mixes: github.com/ggml-org/llama.cpp,
// src/llama-quant.cpp.
#pragma once
#include "weights.h"

// What a file is requested to be: every matrix of one type, or types by the matrix's place.
typedef struct {
    const struct MixRules *rules;
    bool pure; // every matrix of the type that most of them have
    // Of output.weight and token_embd.weight, whatever the rules say; NULL: as they say. As llama-quantize's
    // --output-tensor-type and --token-embedding-type: of an output that is the embedding, the latter.
    const struct MixRules *output, *embedding;
} GgufMix;

// Of a name, in any case; rules are NULL if it is not one of these, or Q3_K, Q4_K, Q5_K: their mixes of size M.
#define GGUF_PLAIN_TYPES "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, IQ4_XS, TQ1_0, TQ2_0, Q2_K"
#define GGUF_SIZED_TYPES "Q3_K_S, Q3_K_M, Q3_K_L, Q4_K_S, Q4_K_M, Q5_K_S, Q5_K_M or Q6_K"
#define GGUF_TYPES GGUF_PLAIN_TYPES ", " GGUF_SIZED_TYPES " (IQ3, IQ2 and IQ1 are only read)"
GgufMix gguf_mix_named(const char *name, bool pure);
const char *gguf_mix_name(GgufMix mix);
uint32_t gguf_file_type(GgufMix mix); // the value of general.file_type

// What a mix depends on.
typedef struct {
    int n_layers, n_experts;
    int n_queries; // heads of queries to a head of keys
    bool tied;     // the output matrix is the embedding
} MixModel;

typedef struct {
    const char *part; // as in GGUF, without "blk.N." and ".weight"
    int layer;
    DType from;
    int64_t cols; // of a row
} MixMatrix;

// Counts matrices, by the type of those that did not get what the mix says.
typedef struct {
    int n_matrices, n_other[N_DTYPES];
} TypeCount;

// The type to write for a matrix.
DType gguf_mix_type(GgufMix mix, const MixModel *m, const MixMatrix *x, TypeCount *count);
// Prints a note on stderr if some matrices got another type than the mix says.
void gguf_type_note(const TypeCount *c, GgufMix mix);

size_t dtype_row_bytes(DType d, int64_t cols);
// A row to fp32, from any type.
void row_unpack(float *x, const Tensor *t, int64_t row);
// A row without conversion (MXFP4_SPLIT: as MXFP4).
void row_copy(void *to, const Tensor *t, int64_t row);
// n finite values, a multiple of the block size, to a type and back.
void values_pack(DType d, void *to, const float *x, int64_t n);
void values_unpack(DType d, float *x, const void *from, int64_t n);
