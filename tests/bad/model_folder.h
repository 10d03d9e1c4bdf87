// model_folder.h: folders of the tools' models, as make_model.h writes them: config.json as rows change it, every
// tensor with every fault, model.safetensors cut short. All must be refused by the model's own open.
#pragma once
#include "../make_model.h"
#include "bad.h"

typedef struct {
    bool (*refuses)(char *err, size_t errlen); // opens the folder, and closes what opened
    void (*write)(Fault fault);                // the sound model, or one with a fault
} ModelFolder;

static ModelFolder bad_model;
static char *sound_config;

static void refuse_folder(const Bad *b) {
    char err[512] = "";
    bool refused = bad_model.refuses(err, sizeof err);
    bad_refused(b, refused ? -1 : 0, NULL, 0, err, folder);
}

static void refuse_config(const Bad *b) {
    size_t n;
    char *text = bad_json(sound_config, b->change, b->n_change, &n);
    write_file("config.json", text, n);
    refuse_folder(b);
    free(text);
}

// The rows of a table, and no config.json.
UNUSED static void refuse_configs(const char *table) {
    bad_model.write((Fault){0});
    sound_config = read_file(in_folder("config.json"), NULL);
    each_bad(table, refuse_config);
    unlink(in_folder("config.json"));
    refuse_folder(&(Bad){.what = "no config.json", .want = "^/config.json"});
    free(sound_config);
}

// Each of these tensors with each fault; `may_miss`: one that may be absent.
UNUSED static void refuse_tensors(const char *const *names, int n, const char *may_miss) {
    static const char *const parts[N_FAULTS] = {
        [MISSING] = "expected, not found", [RENAMED] = "expected, not found", [TALLER] = "expected shape",
        [WIDER] = "expected shape",        [TURNED] = "expected shape",       [FLAT] = "expected shape",
        [WHOLE_NUMBERS] = "dtype"};
    for (int i = 0; i < n; i++) {
        bool vector = strstr(names[i], ".bias") || strstr(names[i], "layer_norm") || strstr(names[i], "layernorm");
        for (int kind = MISSING; kind < N_FAULTS; kind++) {
            char want[200];
            if (kind == FLAT && vector) continue; // it is flat
            if (kind <= RENAMED && may_miss && !strcmp(names[i], may_miss)) continue;
            bad_model.write((Fault){names[i], (FaultKind)kind});
            snprintf(want, sizeof want, "^/model.safetensors: tensor %s: %s", names[i], parts[kind]);
            Bad b = {.want = want};
            snprintf(b.what, sizeof b.what, "%s, fault %d", names[i], kind);
            refuse_folder(&b);
        }
    }
}

// A byte more, and fewer: around the length and the header, at every 40th of the file, and none.
UNUSED static void refuse_cut_weights(void) {
    bad_model.write((Fault){0});
    size_t n;
    char *file = read_file(in_folder("model.safetensors"), &n);
    uint64_t header;
    memcpy(&header, file, sizeof header);
    const size_t data = 8 + header, edges[] = {n + 1, n - 1, n - 4, data + 1, data, data - 1, data / 2, 9, 8, 7, 1, 0};
    file = realloc(file, n + 1);
    for (int i = 0; i < N_OF(edges) + 39; i++) {
        size_t left = i < N_OF(edges) ? edges[i] : n * (size_t)(i - N_OF(edges) + 1) / 40;
        Bad b = {.want = "^/model.safetensors"};
        snprintf(b.what, sizeof b.what, "%zu of %zu bytes", left, n);
        write_file("model.safetensors", file, left);
        refuse_folder(&b);
    }
    unlink(in_folder("model.safetensors"));
    refuse_folder(&(Bad){.what = "no model.safetensors", .want = "model.safetensors"});
    free(file);
}
