// make_model.h: writes small models with random weights as a Hugging Face folder, the one of files.h.
//
//   FolderMaker m = {0};
//   maker_open(&m);
//   put_dense(&m, 10, 24, true, "classifier"); // classifier.weight [10, 24] and classifier.bias [10]
//   maker_close(&m);                           // model.safetensors
//
// Weights come from their names, as tests/fixtures/vit_random.py tells, so that PyTorch can make the same ones. Here
// are also the names and shapes of the models that the fixtures hold.
#pragma once
#include "files.h"

#include <jansson.h>

enum { WORD_ROOM = 64 };

// The name of a tensor or an input, from which its values are made: fnv1a64.
UNUSED static uint64_t name_hash(const char *name) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *c = name; *c; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
    return hash;
}

// Value i of those: [-1, 1), by splitmix64.
UNUSED static double unit_of(uint64_t hash, int64_t i) {
    uint64_t x = hash + (uint64_t)(i + 1) * 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return (double)((x ^ x >> 31) >> 40) / 8388608.0 - 1;
}

UNUSED static double unit(const char *name, int64_t i) {
    return unit_of(name_hash(name), i);
}

// ---- model.safetensors

// What is wrong with one tensor.
typedef enum { SOUND, MISSING, RENAMED, TALLER, WIDER, TURNED, FLAT, WHOLE_NUMBERS, N_FAULTS } FaultKind;
typedef struct {
    const char *tensor;
    FaultKind kind;
} Fault;

typedef struct {
    Fault fault;
    int mute; // outputs below it but the end token (2) are made unlikely in final_logits_bias
    FILE *header, *data;
    char *text, *bytes;
    size_t n_text, n_bytes;
    long at;
} FolderMaker;

UNUSED static void maker_open(FolderMaker *m) {
    m->header = open_memstream(&m->text, &m->n_text);
    m->data = open_memstream(&m->bytes, &m->n_bytes);
}

// A tensor's values: add + scale * unit_of(hash, i), but -1000 for those below `mute`, except 2.
typedef struct {
    uint64_t hash;
    double add, scale;
    int mute;
} MadeWeights;

UNUSED static MadeWeights weights_of(const FolderMaker *m, const char *name, bool vector, double fan_in) {
    bool bias = !strcmp(name, "final_logits_bias");
    bool norm = strstr(name, ".weight") && (strstr(name, "layernorm") || strstr(name, "layer_norm"));
    bool added = strstr(name, "_token") || strstr(name, "position_embeddings") || strstr(name, "embed_positions");
    return (MadeWeights){.hash = name_hash(name),
                         .add = vector && norm ? 1 : 0,
                         .scale = vector || bias ? 0.1
                                  : added        ? 0.5
                                                 : sqrt(3 / fan_in),
                         .mute = bias ? m->mute : 0};
}

UNUSED static double weight_at(const MadeWeights *w, int64_t i) {
    return i < w->mute && i != 2 ? -1000 : w->add + w->scale * unit_of(w->hash, i);
}

UNUSED static void put_tensor(FolderMaker *m, const char *name, int n_dims, const int *wanted) {
    FaultKind fault = m->fault.kind && !strcmp(name, m->fault.tensor) ? m->fault.kind : SOUND;
    int shape[5] = {0};
    int64_t n = 1;
    char dims[64] = "";
    memcpy(shape, wanted, sizeof *shape * (size_t)n_dims);
    if (fault == MISSING) return;
    if (fault == TALLER) shape[0]++;
    if (fault == TURNED) { // the first dimension comes last; a vector becomes a row, what is equal a longer shape
        bool same = n_dims > 1 && shape[1] == shape[0];
        memmove(shape, shape + 1, sizeof *shape * (size_t)(n_dims - 1));
        if (n_dims == 1 || same) shape[n_dims++ - 1] = 1;
        shape[n_dims - 1] = wanted[0];
    }
    if (fault == WIDER && n_dims == 1) n_dims = 2; // a vector becomes a matrix
    if (fault == WIDER) shape[n_dims - 1]++;
    for (; fault == FLAT && n_dims > 1; n_dims--) shape[n_dims - 2] *= shape[n_dims - 1];
    for (int i = 0; i < n_dims; i++) {
        n *= shape[i];
        snprintf(dims + strlen(dims), sizeof dims - strlen(dims), "%s%d", i ? "," : "", shape[i]);
    }
    MadeWeights w = weights_of(m, name, n_dims == 1, (double)(n / shape[0]));
    for (int64_t i = 0; i < n; i++) {
        float f = (float)weight_at(&w, i);
        fwrite(&f, sizeof f, 1, m->data);
    }
    fprintf(m->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%ld,%ld]}", m->at ? "," : "{",
            fault == RENAMED ? "another" : name, fault == WHOLE_NUMBERS ? "I32" : "F32", dims, m->at,
            m->at + 4 * (long)n);
    m->at += 4 * (long)n;
}

UNUSED static void put(FolderMaker *m, const char *name, int rows, int cols) { // cols 0: one dimension
    put_tensor(m, name, cols ? 2 : 1, (int[]){rows, cols});
}

// NAME.weight and, perhaps, NAME.bias.
__attribute__((format(printf, 5, 6), unused)) static void put_dense(FolderMaker *m, int rows, int cols, bool bias,
                                                                    const char *fmt, ...) {
    char name[128], full[160];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    snprintf(full, sizeof full, "%s.weight", name);
    put(m, full, rows, cols);
    snprintf(full, sizeof full, "%s.bias", name);
    if (bias) put(m, full, rows, 0);
}

UNUSED static void write_safetensors(const char *header, size_t n_header, const void *data, size_t n_data) {
    uint64_t length = n_header;
    char *file = need(sizeof length + n_header + n_data);
    memcpy(file, &length, sizeof length);
    memcpy(file + sizeof length, header, n_header);
    memcpy(file + sizeof length + n_header, data, n_data);
    write_file("model.safetensors", file, sizeof length + n_header + n_data);
    free(file);
}

UNUSED static void maker_close(FolderMaker *m) {
    fputc('}', m->header);
    fclose(m->header);
    fclose(m->data);
    write_safetensors(m->text, m->n_text, m->bytes, m->n_bytes);
    free(m->text);
    free(m->bytes);
}

// ---- the first line of a fixture's model: NAME key=value ...

typedef struct {
    const char *key; // and one of these
    int *number;
    double *real;
    bool *truth;
    char *word; // [WORD_ROOM]
} Slot;

UNUSED static bool read_shape(char *line, char *name, const Slot *slots, int n) {
    char *saved, *token = strtok_r(line, " \n", &saved);
    if (!token) return false;
    snprintf(name, WORD_ROOM, "%s", token);
    while ((token = strtok_r(NULL, " \n", &saved))) {
        char *value = strchr(token, '=');
        if (!value) return false;
        *value++ = 0;
        for (int i = 0; i < n; i++) {
            if (strcmp(token, slots[i].key) != 0) continue;
            if (slots[i].number) *slots[i].number = atoi(value);
            if (slots[i].real) *slots[i].real = atof(value);
            if (slots[i].truth) *slots[i].truth = !strcmp(value, "true");
            if (slots[i].word) snprintf(slots[i].word, WORD_ROOM, "%s", value);
        }
    }
    return true;
}
