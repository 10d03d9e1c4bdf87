// weights: the tensor table of an opened model.
//
// Owns the mapped files and a name -> tensor map; a loader fills it, the forward passes read it, and nothing downstream
// knows which container the bytes came from. Refuses a tensor whose name, dtype or shape does not match the request.
// Names of decoders are GGUF's: token_embd.weight, output_norm.weight, output.weight,
// blk.N.{attn_norm,attn_q,attn_k,attn_v,attn_output,ffn_norm,ffn_gate,ffn_up,ffn_down}.weight
// Encoders and encoder-decoders keep the names of their safetensors file, which families.h lists.
#pragma once
#include "file.h"
#include "tensor.h"

typedef struct {
    char *key; // name, owned by the map
    Tensor value;
} TensorEntry;

typedef struct {
    File *files;        // stb_ds array; the first is the model as named on the command line
    TensorEntry *table; // stb_ds string map
    void **copies;      // stb_ds array: values that could not be used in place
} Weights;

// Take a tensor over into the table. -1 with a line in err for a duplicate name.
int weights_add(Weights *w, const char *name, Tensor t, char *err, size_t errlen);
size_t weights_count(const Weights *w);
const Tensor *weights_at(const Weights *w, size_t i);    // i < weights_count
size_t weights_index(const Weights *w, const Tensor *t); // of a tensor in the table
uint64_t weights_params(const Weights *w);               // values of all tensors
uint64_t weights_file_bytes(const Weights *w);           // of the mapped files
// NULL when absent.
const Tensor *weights_find(const Weights *w, const char *name);
// The tensor of this name with one of the dtypes in `dtype_mask` and exactly this shape (cols 0: one dimension),
// or NULL with a line in err.
const Tensor *weights_get(const Weights *w, const char *name, unsigned dtype_mask, int64_t rows, int64_t cols,
                          char *err, size_t errlen);
// The same for a shape of n_dims dimensions.
const Tensor *weights_get_shape(const Weights *w, const char *name, unsigned dtype_mask, const int64_t *shape,
                                int n_dims, char *err, size_t errlen);
// A tensor of floats with this shape as fp32 values: in place, or a copy that the table owns where the file holds F16
// or BF16. For vectors (norms, biases, positions); matrices are read as they lie.
const float *weights_floats(Weights *w, const char *name, const int64_t *shape, int n_dims, char *err, size_t errlen);
// Memory of the table's own, freed with it. NULL when there is none.
void *weights_own(Weights *w, size_t bytes);
void weights_free(Weights *w); // unmaps the files
