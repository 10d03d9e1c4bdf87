// load: which reader a file gets, and where a model's vocabulary lies.
//
// Owns the choice by content, not by name, and the search for a tokenizer beside a model. Refuses a .bin without one.
#include "load.h"

#include "gguf.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// A header's length that fits, then JSON.
static bool file_is_safetensors(const File *file) {
    Cursor in = cursor_at(file, 0, NULL, 0);
    uint64_t n = cursor_u64(&in, "length");
    return !in.failed && n <= file->size - in.pos && cursor_u8(&in, "JSON") == '{';
}

int load_model(Model *m, const char *path, char *err, size_t errlen) {
    memset(m, 0, sizeof *m);
    struct stat st;
    if (!stat(path, &st) && S_ISDIR(st.st_mode)) return load_hf_model(m, path, err, errlen);
    File file;
    if (file_map(&file, path, err, errlen)) return -1;
    if (file_is_safetensors(&file)) {
        file_unmap(&file);
        return load_hf_model(m, path, err, errlen);
    }
    return (file_is_gguf(&file) ? load_gguf_file : load_llama2c_file)(m, &file, err, errlen);
}

// `<model stem>.tokenizer.bin`, then `tokenizer.bin`, then `tokenizer.json` beside the model. -1 when none is there.
static int find_tokenizer(char *path, size_t n, const char *model, char *err, size_t errlen) {
    const char *slash = strrchr(model, '/'), *name = slash ? slash + 1 : model, *dot = strrchr(name, '.');
    int stem = dot ? (int)(dot - model) : (int)strlen(model), folder = (int)(name - model);
    if ((size_t)snprintf(path, n, "%.*s.tokenizer.bin", stem, model) < n && !access(path, R_OK)) return 0;
    if ((size_t)snprintf(path, n, "%.*stokenizer.bin", folder, model) < n && !access(path, R_OK)) return 0;
    if ((size_t)snprintf(path, n, "%.*stokenizer.json", folder, model) < n && !access(path, R_OK)) return 0;
    return fail(err, errlen,
                "%s: no tokenizer: expected %.*s.tokenizer.bin or tokenizer.bin beside it; name one with -z", model,
                stem, model);
}

// The Hugging Face folder of this path: the path itself, or the folder of its tokenizer.json. false: another file.
static bool find_folder(char *folder, size_t n, const char *path) {
    struct stat st;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (!stat(path, &st) && S_ISDIR(st.st_mode)) return (size_t)snprintf(folder, n, "%s", path) < n;
    if (strcmp(name, "tokenizer.json") != 0) return false;
    return (size_t)snprintf(folder, n, slash ? "%.*s" : ".", slash > path ? (int)(slash - path) : 1, path) < n;
}

int load_vocab(Vocab *v, File *file, const Model *m, const char *path, char *err, size_t errlen) {
    char beside[4096], folder[4096];
    const File *model = m ? &m->weights.files[0] : NULL;
    int n = m ? m->config.vocab_size : 0;
    memset(v, 0, sizeof *v);
    memset(file, 0, sizeof *file);
    if (!path && file_is_gguf(model)) return load_gguf_vocab(v, model, n, err, errlen);
    if (!path && find_tokenizer(beside, sizeof beside, model->path, err, errlen)) return -1;
    if (!path) path = beside;
    if (find_folder(folder, sizeof folder, path)) return load_hf_vocab(v, folder, n, err, errlen);
    if (file_map(file, path, err, errlen)) return -1;
    if (!(file_is_gguf(file) ? load_gguf_vocab : load_llama2c_tokenizer_file)(v, file, n, err, errlen)) return 0;
    file_unmap(file);
    memset(file, 0, sizeof *file);
    return -1;
}
