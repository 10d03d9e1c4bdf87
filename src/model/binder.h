// binder: a model's tensors, each found by name, checked, and made a view where a file keeps several in one.
//
// Owns names and the copies that some files need: vectors that are not fp32 (or are stored minus one) and transposed
// matrices. The callers decide which parts a model has: decoder, encoder, mixers, feed-forward networks. Refuses a part
// that is absent or has another shape, and a tensor that no caller used: it would change the computation.
#pragma once
#include "model.h"
#include "ops.h"

// After the first failure every call does nothing, `failed` stays set and err holds the message.
typedef struct {
    const Config *config;
    Weights *weights;
    const Family *family; // NULL: GGUF's names
    const char *prefix;   // of Hugging Face's names; NULL: GGUF's
    bool hf_names;
    bool text_only; // tensors outside the prefix are not the model's
    int layer;      // -1: no layer's
    bool *used;     // by place in the table of tensors
    bool failed;
    char *err;
    size_t errlen;
} Binder;

// -1 with a line in err when memory runs out.
// prefix NULL: the tensors have GGUF's names.
int binder_open(Binder *b, const Config *c, Weights *w, const Family *f, const char *prefix, char *err, size_t errlen);
void binder_close(Binder *b);
void binder_fail(Binder *b, const char *fmt, ...) __attribute__((format(printf, 2, 3))); // "path: message"
void binder_refuse_unused(Binder *b); // fails for a tensor that no caller has bound

// A part is a name of families.h, `suffix` what follows it: ".weight". expert: -1, or the number of one. bind_find:
// NULL when the model has none; the others fail then.
const Tensor *bind_find(const Binder *b, const char *part, int expert, const char *suffix);
const Tensor *bind_shape(Binder *b, const char *part, const char *suffix, unsigned dtype_mask, const int64_t *shape,
                         int n_dims);
const Tensor *bind_matrix(Binder *b, const char *part, int expert, int64_t rows, int64_t cols);
const float *bind_floats(Binder *b, const char *part, const char *suffix, const int64_t *shape, int n_dims);
const float *bind_vector(Binder *b, const char *part, const char *suffix, int64_t n);
// n vectors of `cols` values: one tensor, or, outside GGUF, one for each with its number in its name.
const float *bind_rows(Binder *b, const char *part, int n, int64_t cols);
const float *bind_zeros(Binder *b, int64_t n);
const float *bind_ones(Binder *b, int64_t n);
void bind_norm(Binder *b, Norm *norm, const char *part, int64_t n, bool bias);
void bind_dense(Binder *b, Dense *dense, const char *part, int64_t rows, int64_t cols, bool bias);
// The transpose of a matrix that the file has as [cols][rows], fp32.
void bind_transposed(Binder *b, Dense *dense, const char *part, const char *suffix, int64_t rows, int64_t cols);
// n rows of a matrix that holds several, from row0.
Dense dense_rows(const Dense *whole, int64_t row0, int64_t n);
// Bytes that a token reads.
uint64_t dense_bytes(const Dense *d);
uint64_t norm_bytes(const Norm *n, int64_t dim);
