// load: which reader a file gets, and where a model's vocabulary lies.
//
// Owns the choice by content, not by name, and the search for a tokenizer beside a model. Refuses what is no model
// (foreign.h), and a .bin without a tokenizer.
#include "load.h"

#include "foreign.h"
#include "gguf.h"
#include "vocab_json.h"
#include "vocab_rwkv.h"
#include "vocab_spm.h"

#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_ROOM = 4096 };

// A header's length that fits, then JSON.
static bool file_is_safetensors(const File *file) {
    Cursor in = cursor_at(file, 0, NULL, 0);
    uint64_t n = cursor_u64(&in, "length");
    return !in.failed && n <= file->size - in.pos && cursor_u8(&in, "JSON") == '{';
}

static bool is_folder(const char *path) {
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

static bool folder_has(const char *folder, const char *name) {
    char path[PATH_ROOM];
    return (size_t)snprintf(path, sizeof path, "%s/%s", folder, name) < sizeof path && !access(path, R_OK);
}

// How many files of a folder have this ending; the first into out.
static int count_files(char out[PATH_ROOM], const char *folder, const char *ending) {
    glob_t found = {0};
    char pattern[PATH_ROOM];
    if (snprintf(pattern, sizeof pattern, "%s/*%s", folder, ending) >= PATH_ROOM) return 0;
    int n = glob(pattern, 0, NULL, &found) ? 0 : (int)found.gl_pathc;
    if (n && snprintf(out, PATH_ROOM, "%s", found.gl_pathv[0]) >= PATH_ROOM) n = 0;
    globfree(&found);
    return n;
}

// The one GGUF file of a folder without safetensors. False: there are none, or more.
static bool find_gguf(char out[PATH_ROOM], const char *folder) {
    char other[PATH_ROOM];
    return !count_files(other, folder, ".safetensors") && count_files(out, folder, ".gguf") == 1;
}

static int load_folder(Model *m, const char *path, char *err, size_t errlen) {
    char other[PATH_ROOM];
    if (folder_has(path, "config.json") && count_files(other, path, ".safetensors")) {
        return load_hf_model(m, path, err, errlen);
    }
    if (foreign_refuse_folder(path, err, errlen)) return -1;
    int n = count_files(other, path, ".gguf");
    if (n > 1) return fail(err, errlen, "%s: expected one .gguf file, found %d: name the one to run", path, n);
    return load_hf_model(m, path, err, errlen);
}

int load_model(Model *m, const char *path, char *err, size_t errlen) {
    char inside[PATH_ROOM];
    memset(m, 0, sizeof *m);
    if (is_folder(path)) {
        if (!find_gguf(inside, path)) return load_folder(m, path, err, errlen);
        path = inside;
    }
    File file;
    if (file_map(&file, path, err, errlen)) return -1;
    if (file_is_safetensors(&file)) {
        file_unmap(&file);
        return load_hf_model(m, path, err, errlen);
    }
    if (foreign_refuse(&file, err, errlen)) {
        file_unmap(&file);
        return -1;
    }
    return (file_is_gguf(&file) ? load_gguf_file : load_llama2c_file)(m, &file, err, errlen);
}

// ---- vocabularies

static bool folder_has_vocab(const char *folder) {
    return folder_has(folder, "tokenizer.json") || folder_has(folder, "tokenizer.model") ||
           folder_has(folder, "vocab.json") || folder_has(folder, RWKV_VOCAB);
}

static void folder_of(char out[PATH_ROOM], const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) snprintf(out, PATH_ROOM, ".");
    else snprintf(out, PATH_ROOM, "%.*s", slash > path ? (int)(slash - path) : 1, path);
}

// `<model stem>.tokenizer.bin`, then `tokenizer.bin`, then the folder itself, if it has a vocabulary of Hugging Face's.
// -1 when none is there.
static int find_tokenizer(char out[PATH_ROOM], const char *model, char *err, size_t errlen) {
    const char *slash = strrchr(model, '/'), *name = slash ? slash + 1 : model, *dot = strrchr(name, '.');
    int stem = dot ? (int)(dot - model) : (int)strlen(model), folder = (int)(name - model);
    if (snprintf(out, PATH_ROOM, "%.*s.tokenizer.bin", stem, model) < PATH_ROOM && !access(out, R_OK)) return 0;
    if (snprintf(out, PATH_ROOM, "%.*stokenizer.bin", folder, model) < PATH_ROOM && !access(out, R_OK)) return 0;
    folder_of(out, model);
    if (folder_has_vocab(out)) return 0;
    return fail(
        err, errlen,
        "%s: no tokenizer: expected %.*s.tokenizer.bin, tokenizer.bin, tokenizer.json or tokenizer.model beside "
        "it; name one with -z",
        model, stem, model);
}

// The Hugging Face folder of this path: the path itself, or the folder of its tokenizer.json or vocab.json. false:
// another file.
static bool find_folder(char folder[PATH_ROOM], const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (is_folder(path)) return snprintf(folder, PATH_ROOM, "%s", path) < PATH_ROOM;
    if (strcmp(name, "tokenizer.json") != 0 && strcmp(name, "vocab.json") != 0) return false;
    folder_of(folder, path);
    return true;
}

// The vocabulary of one file, by its content. `n`: tokens of the model; 0: any.
static int load_vocab_file(Vocab *v, File *file, const char *path, int n, char *err, size_t errlen) {
    if (file_map(file, path, err, errlen)) return -1;
    int rc;
    if (foreign_refuse(file, err, errlen)) rc = -1;
    else if (file_is_gguf(file)) rc = load_gguf_vocab(v, file, n, err, errlen);
    else if (file_is_sentencepiece(file)) {
        rc = vocab_spm_read(v, file, err, errlen);
        if (!rc && n) vocab_truncate(v, n);
    } else rc = load_llama2c_tokenizer_file(v, file, n, err, errlen);
    if (!rc) return 0;
    file_unmap(file);
    memset(file, 0, sizeof *file);
    return -1;
}

// Is the file a model whose vocabulary lies beside it, and where? A folder's file, or a .bin.
static bool is_model_beside(char out[PATH_ROOM], const char *path) {
    File file;
    if (is_folder(path) || file_map(&file, path, NULL, 0)) return false;
    bool model = file_is_safetensors(&file) || file_is_llama2c(&file);
    file_unmap(&file);
    return model && !find_tokenizer(out, path, NULL, 0);
}

int load_vocab(Vocab *v, File *file, const Model *m, const char *path, char *err, size_t errlen) {
    char beside[PATH_ROOM], folder[PATH_ROOM];
    const File *model = m ? &m->weights.files[0] : NULL;
    int n = m ? m->config.vocab_size : 0;
    memset(v, 0, sizeof *v);
    memset(file, 0, sizeof *file);
    if (!path && file_is_gguf(model)) return load_gguf_vocab(v, model, n, err, errlen);
    if (!path && find_tokenizer(beside, model->path, err, errlen)) return -1;
    if (!path || is_model_beside(beside, path)) path = beside;
    if (!find_folder(folder, path)) return load_vocab_file(v, file, path, n, err, errlen);
    if (!folder_has_vocab(folder) && find_gguf(beside, folder)) return load_vocab_file(v, file, beside, n, err, errlen);
    return load_hf_vocab(v, folder, n, err, errlen);
}
