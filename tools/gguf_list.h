// gguf_list: the tensors of a GGUF file as they are listed: names, shapes, types, and from which rows each takes its
// values.
//
// Owns the list and how a row, a vector, a norm or a matrix joins it. Called by gguf_layers and gguf_recurrent.
#pragma once
#include "gguf_model.h"

typedef struct {
    GgufWriter *w;
    const Family *f;
    const Decoder *d;
    GgufMix mix;
    MixModel model;
    TypeCount *count;
    int layer; // -1: not of a layer
    Part *parts;
} List;

// Some rows of a linear layer; add_matrix sets rows.from.
typedef struct {
    const Dense *dense;
    Rows rows;
} Slice;

// One tensor: the concatenation of slices.
typedef struct {
    const char *part;
    int64_t cols;
    int n;
    const Slice *slices;
    bool bias;
    bool stacked; // [n][rows][cols]
    bool exact;   // F32
} Matrix;

// The first n rows, in order.
Slice list_slice(const Dense *dense, int64_t n);
// values[n] as a matrix of one column.
Tensor list_column(const float *values, int64_t n);
// The tensor joins the list, the writer's table and, if it is a matrix, the count. part and suffix are its name.
void list_add(List *l, const char *part, const char *suffix, Part p);
// n values, in the order of `rows`.
void list_vector(List *l, const char *part, const char *suffix, const float *values, Rows rows);
void list_norm(List *l, const char *part, const Norm *norm, Rows rows, bool bias);
void list_dim_norm(List *l, const char *part, const Norm *norm); // of the model's width
void list_matrix(List *l, Matrix m);
void list_dense(List *l, const char *part, Slice s, int64_t cols, bool bias);
// A matrix that was made for the file, of its type or F32; takes `made` over.
void list_made(List *l, const char *part, const char *suffix, float *made, int64_t rows, int64_t cols, DType dtype);
float *list_values(int64_t n); // memory for n values; the program ends when there is none
