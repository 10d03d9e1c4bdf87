// gguf_model: a decoder in GGUF's terms: the settings of its architecture and its tensors, from any source format.
//
// Owns the inverse of load_gguf and of the binder: names, the order of rows, fused tensors. Refuses what GGUF's keys
// cannot represent. Called by quantize and, without weights, by synth.
#pragma once
#include "decoder.h"
#include "gguf_types.h"
#include "gguf_writer.h"

// Rows of one matrix in the order of the file: row i is first + i / group * pitch + i % group of `from`, where the
// first n_paired rows of a group, or of every `head` rows in it, are reordered from halves to pairs: 0, n_paired / 2,
// 1, n_paired / 2 + 1, ...
typedef struct {
    Tensor from; // [..][cols]
    int64_t n, first, group, pitch, head, n_paired;
} Rows;

int64_t rows_at(const Rows *r, int64_t i);

// One tensor of the file.
typedef struct {
    char name[GGUF_MAX_NAME + 1];
    Tensor as;   // its type and shape
    bool matrix; // of the requested type or its replacement; else F32
    Rows *rows;  // stb_ds array, in order
    float *made; // owned values that no tensor of the decoder holds; else NULL
} Part;

// What layers of this model cannot be written yet, whatever file they come from; NULL: all can.
const char *gguf_model_unwritten(const Config *c);
// The family by which load_gguf will read it.
const Family *gguf_model_family(const Model *m);
// What of this model GGUF cannot represent; NULL: nothing.
const char *gguf_model_unsupported(const Family *f, const Config *c);
void gguf_model_settings(GgufWriter *w, const Family *f, const Decoder *d);
void gguf_general_settings(GgufWriter *w, const Family *f, const char *name);
void gguf_type_settings(GgufWriter *w, GgufMix mix); // general.file_type, general.quantization_version
// All tensors, an stb_ds array in the order of a forward pass; also added to the writer and counted.
Part *gguf_model_parts(GgufWriter *w, const Family *f, const Decoder *d, GgufMix mix, TypeCount *count);
void gguf_parts_free(Part *parts);
// The frequencies of rotary positions in a context of one token; rope_close frees them. The program ends on failure.
Rope gguf_rope(const RopeConfig *c);
