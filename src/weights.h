// weights: the tensor table of an opened model.
//
// Owns the mapped files and a name -> tensor map; a loader fills it, the decoder reads it, and nothing downstream
// knows which container the bytes came from. Refuses a tensor whose name, dtype or shape is not what was asked for.
// Names are GGUF's: token_embd.weight, output_norm.weight, output.weight,
// blk.N.{attn_norm,attn_q,attn_k,attn_v,attn_output,ffn_norm,ffn_gate,ffn_up,ffn_down}.weight
#pragma once
#include "file.h"

typedef enum {
    DTYPE_F32,
    DTYPE_I8G, // int8 values and one fp32 scale for each `group` consecutive values: w = q * scale (llama2.c v2)
    N_DTYPES
} DType;

#define DTYPE_BIT(d) (1u << (d))
#define DTYPE_ANY (~0u)

typedef struct {
    DType dtype;
    int n_dims;          // 1 or 2
    int64_t shape[2];    // [n] or [rows][cols], row-major
    const void *data;    // into the mapping
    const float *scales; // DTYPE_I8G: [rows * cols / group], into the mapping
    int group;           // DTYPE_I8G: values per scale; divides rows * cols
} Tensor;

typedef struct {
    char *key; // name, owned by the map
    Tensor value;
} TensorEntry;

typedef struct {
    File *files;        // stb_ds array; the first is the model as named on the command line
    TensorEntry *table; // stb_ds string map
} Weights;

const char *dtype_name(DType d);
int64_t tensor_count(const Tensor *t);  // values
uint64_t tensor_bytes(const Tensor *t); // bytes that a full read touches, scales included

// Take a tensor over into the table. -1 with a line in err for a duplicate name.
int weights_add(Weights *w, const char *name, Tensor t, char *err, size_t errlen);
size_t weights_count(const Weights *w);
const Tensor *weights_at(const Weights *w, size_t i); // i < weights_count
// NULL when absent.
const Tensor *weights_find(const Weights *w, const char *name);
// The tensor of this name with one of the dtypes in `dtype_mask` and exactly this shape (cols 0: one dimension),
// or NULL with a line in err.
const Tensor *weights_get(const Weights *w, const char *name, unsigned dtype_mask, int64_t rows, int64_t cols,
                          char *err, size_t errlen);
void weights_free(Weights *w); // unmaps the files
