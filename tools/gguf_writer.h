// gguf_writer: writes a GGUF v3 file sequentially: settings, then the list of tensors, then their data in that order,
// each aligned to 32 bytes.
//
// Owns the container; the settings are gguf_model's and gguf_vocab's. The file is an OutFile: renamed when it is
// complete. For programs: an error prints one line and exits with status 1. Source:
// github.com/ggml-org/ggml, docs/gguf.md.
#pragma once
#include "gguf.h"
#include "outfile.h"

#include <stdio.h>

typedef struct {
    const char *path;       // OUT, the caller's
    OutFile out;            // from gguf_begin on
    uint8_t *pairs, *infos; // stb_ds arrays: the header's parts
    uint64_t n_pairs, n_infos, data_bytes, written;
} GgufWriter;

// 1. Settings and tensors, in any order. Nothing is written before gguf_begin.
GgufWriter gguf_writer(const char *path);
void gguf_u32(GgufWriter *w, const char *key, uint32_t value);
void gguf_f32(GgufWriter *w, const char *key, float value);
void gguf_bool(GgufWriter *w, const char *key, bool value);
void gguf_text(GgufWriter *w, const char *key, const char *text);
// A setting of another file, byte for byte.
void gguf_pair(GgufWriter *w, const Gguf *from, const GgufPair *pair);
// An array: its elements follow, exactly `count` of them.
void gguf_array(GgufWriter *w, const char *key, GgufType element, uint64_t count);
void gguf_array_bytes(GgufWriter *w, const void *element, size_t n); // a number
void gguf_array_text(GgufWriter *w, const char *text, size_t n);
// A file with the settings so far and no tensors, as an stb_ds array, for reading them back.
uint8_t *gguf_settings_bytes(const GgufWriter *w);
// Only dtype (one that GGUF has), n_dims and shape are used.
void gguf_tensor(GgufWriter *w, const char *name, const Tensor *t);

// 2. The data of the tensors, in the order of gguf_tensor, in pieces of any size; gguf_align after each tensor.
void gguf_begin(GgufWriter *w);
void gguf_data(GgufWriter *w, const void *data, uint64_t n);
void gguf_align(GgufWriter *w);

// 3. Renames the file. Returns its size.
uint64_t gguf_finish(GgufWriter *w);
void gguf_abandon(GgufWriter *w); // instead of finishing: leaves nothing
