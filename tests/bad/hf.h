// hf.h: Hugging Face folders as rows change them: a fixture of tests/fixtures/families whose settings are edited as in
// bad_json, with tensors replaced or added by "tensor [NAME, DTYPE, SHAPE, ADD, SCALE]" and left out by "without NAME".
#pragma once
#include "bad.h"
#include "decoder.h"
#include "load.h"
#include "../make_family.h"

static bool drop_tensor(json_t *specs, const char *name) {
    size_t i = 0;
    while (i < json_array_size(specs) && strcmp(spec_text(json_array_get(specs, i), 0), name) != 0) i++;
    return !json_array_remove(specs, i);
}

// The edits of tensors done, the others left in `settings`.
static void edit_tensors(json_t *specs, const char *change, char *settings) {
    char *copy = strdup(change), *rest = copy;
    *settings = 0;
    for (char *edit = bad_part(&rest, "; "); edit; edit = bad_part(&rest, "; ")) {
        char *name = bad_verb(edit, "without"), *text = bad_verb(edit, "tensor");
        if (name) CHECK(drop_tensor(specs, name), "no %s to leave out", name);
        if (!name && !text) strcat(strcat(settings, *settings ? "; " : ""), edit);
        if (!text) continue;
        json_t *spec = json_loads(text, 0, NULL);
        CHECK(spec, "%s: expected a tensor", text);
        drop_tensor(specs, spec_text(spec, 0));
        json_array_append_new(specs, spec);
    }
    free(copy);
}

// The fixture of the row's base, and the folder that it becomes, in the folder of files.h.
UNUSED static void hf_write(const Bad *b, Fixture *f) {
    char path[200], *settings = need(b->n_change + 1);
    snprintf(path, sizeof path, FIXTURES "%s.json", b->base);
    family_read(f, path);
    char *base = json_dumps(family_part(f, "config"), JSON_COMPACT);
    bool whole = *b->change == '=';
    if (!whole) edit_tensors(json_object_get(f->json, "tensors"), b->change, settings);
    size_t n_settings = whole ? b->n_change : strlen(settings), n;
    char *config = whole || n_settings ? bad_json(base, whole ? b->change : settings, n_settings, &n) : strdup(base);
    if (!whole && !n_settings) n = strlen(base);
    write_family(f);
    write_file("config.json", config, n);
    free(config);
    free(base);
    free(settings);
}

typedef struct {
    Model model;
    Decoder decoder;
} Loaded;

// Loaded and bound, or -1 and nothing is left.
UNUSED static int hf_load(Loaded *l, const char *path, char *err, size_t errlen) {
    if (load_model(&l->model, path, err, errlen)) {
        CHECK(all_zero(&l->model, sizeof l->model), "%s: not left empty", path);
        return -1;
    }
    if (!decoder_bind(&l->decoder, &l->model, err, errlen)) return 0;
    CHECK(!l->decoder.stack.layers, "%s: a decoder is left", path);
    weights_free(&l->model.weights);
    return -1;
}

UNUSED static void hf_unload(Loaded *l) {
    decoder_free(&l->decoder);
    weights_free(&l->model.weights);
}
