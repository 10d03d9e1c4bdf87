// foreign: see foreign.h. Sources: git-lfs.com, docs/spec.md; docs.python.org, "pickle"; pkware.com, APPNOTE;
// github.com/ggml-org/llama.cpp, the history of its magics.
#include "foreign.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { START = 512 }; // bytes that decide

typedef struct {
    const char *bytes;
    size_t n;
    const char *what; // with what to do
} Magic;

#define MAGIC(bytes, what)                                                                                             \
    { bytes, sizeof bytes - 1, what }
static const Magic magics[] = {
    MAGIC("version https://git-lfs", "a Git LFS pointer, not the file itself: fetch that with 'git lfs pull'"),
    MAGIC("PK\3\4", "a zip archive, as PyTorch saves models (.pth, .bin): a model in safetensors or GGUF is needed"),
    MAGIC("\x80\2", "a Python pickle, as PyTorch saves models: a model in safetensors or GGUF is needed"),
    MAGIC("\x80\3", "a Python pickle, as PyTorch saves models: a model in safetensors or GGUF is needed"),
    MAGIC("\x80\4", "a Python pickle, as PyTorch saves models: a model in safetensors or GGUF is needed"),
    MAGIC("\x80\5", "a Python pickle, as PyTorch saves models: a model in safetensors or GGUF is needed"),
    MAGIC("lmgg", "a GGML file, the format before GGUF: convert it, or get the model as GGUF"),
    MAGIC("fmgg", "a GGML file (ggmf), the format before GGUF: convert it, or get the model as GGUF"),
    MAGIC("tjgg", "a GGML file (ggjt), the format before GGUF: convert it, or get the model as GGUF"),
    MAGIC("algg", "a LoRA adapter for GGML (ggla), the format before GGUF: a whole model is needed"),
    MAGIC("FUGG", "GGUF with its magic turned round: the file is damaged"),
    MAGIC("\x1F\x8B", "compressed with gzip: unpack it first"),
    MAGIC("\x28\xB5\x2F\xFD", "compressed with zstd: unpack it first"),
    MAGIC("\xFD"
          "7zXZ",
          "compressed with xz: unpack it first"),
    MAGIC("BZh", "compressed with bzip2: unpack it first"),
    MAGIC("7z\xBC\xAF\x27\x1C", "a 7z archive: unpack it first"),
    MAGIC("\x89HDF", "an HDF5 file, as Keras saves models: a model in safetensors or GGUF is needed"),
    MAGIC("\x93NUMPY", "a NumPy array: a model in safetensors or GGUF is needed"),
    MAGIC("%PDF", "a PDF document"),
    MAGIC("\x89PNG", "a picture"),
    MAGIC("\xFF\xD8\xFF", "a picture"),
};

static int refuse(const File *file, const char *what, char *err, size_t errlen) {
    return fail(err, errlen, "%s: expected a model, found %s", file->path, what);
}

// "GGUF" and a version whose bytes are turned round.
static bool is_big_endian(const File *file) {
    return file->size >= 8 && !memcmp(file->data, "GGUF\0\0\0", 7) && file->data[7];
}

// Text that begins like a web page; lower: its start in lower case.
static bool is_page(const char *lower) {
    static const char *const starts[] = {"<!doctype html", "<html", "<head", "<?xml", "<body"};
    lower += strspn(lower, " \t\r\n");
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        if (!strncmp(lower, starts[i], strlen(starts[i]))) return true;
    }
    return false;
}

int foreign_refuse(const File *file, char *err, size_t errlen) {
    char lower[START + 1] = "";
    size_t n = file->size < START ? file->size : START;
    const char *start = (const char *)file->data;
    size_t bom = n >= 3 && !memcmp(start, "\xEF\xBB\xBF", 3) ? 3 : 0;
    for (size_t i = bom; i < n; i++) lower[i - bom] = (char)tolower((unsigned char)start[i]);
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++) {
        if (n >= magics[i].n && !memcmp(start, magics[i].bytes, magics[i].n))
            return refuse(file, magics[i].what, err, errlen);
    }
    if (is_big_endian(file)) {
        return refuse(file, "a big-endian GGUF file: only little-endian ones are supported, as most are", err, errlen);
    }
    if (is_page(lower)) return refuse(file, "a web page: the download did not give the file itself", err, errlen);
    if (n >= 262 && !memcmp(start + 257, "ustar", 5))
        return refuse(file, "a tar archive: unpack it first", err, errlen);
    if (lower[strspn(lower, " \t\r\n")] == '{') {
        return refuse(file, "JSON: name the folder that it lies in, with its .safetensors files", err, errlen);
    }
    return 0;
}

static bool has(const char *folder, const char *name) {
    char path[4096];
    return (size_t)snprintf(path, sizeof path, "%s/%s", folder, name) < sizeof path && !access(path, F_OK);
}

int foreign_refuse_folder(const char *folder, char *err, size_t errlen) {
    static const struct {
        const char *name, *what;
    } files[] = {
        {"adapter_config.json", "a LoRA adapter: the whole model is needed, with the adapter merged into it"},
        {"pytorch_model.bin", "a model as PyTorch saves it: one in safetensors or GGUF is needed"},
        {"pytorch_model.bin.index.json", "a model as PyTorch saves it: one in safetensors or GGUF is needed"},
        {"consolidated.00.pth", "a model as PyTorch saves it: one in safetensors or GGUF is needed"},
        {"flax_model.msgpack", "a model as Flax saves it: one in safetensors or GGUF is needed"},
        {"tf_model.h5", "a model as TensorFlow saves it: one in safetensors or GGUF is needed"},
        {"model.onnx", "an ONNX model: one in safetensors or GGUF is needed"},
        {"model_index.json", "a pipeline of Diffusers: it makes pictures, not text"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (!has(folder, files[i].name)) continue;
        return fail(err, errlen, "%s: expected a model, found %s (%s)", folder, files[i].what, files[i].name);
    }
    return 0;
}
