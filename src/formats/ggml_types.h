// ggml_types: the numbers that stand for tensor types in GGUF files.
//
// Owns the table of all that ggml has or had, by name, and which of them are stored types here. Refuses nothing: a
// reader that finds a number without a DType says the name. Called by gguf and by the writer of GGUF. Source:
// github.com/ggml-org/ggml, enum ggml_type.
#pragma once
#include "quant.h"

const char *ggml_type_name(uint32_t number); // NULL: no such type
DType ggml_type_dtype(uint32_t number);      // DTYPE_OTHER: not supported, or no such type
int ggml_type_number(DType dtype);           // -1: GGUF has no such type
// The supported types' names, separated by spaces, for messages.
void ggml_types_list(char *text, size_t size);
