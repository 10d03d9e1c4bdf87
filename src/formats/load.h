// load: what every reader of a container produces. One function a format; nothing downstream knows which one ran.
#pragma once
#include "model.h"
#include "settings.h"
#include "vocab.h"

// A model file of any container below, a Hugging Face folder, or a folder with one GGUF file. Returns 0, or -1 with one
// line in err and *m left empty.
int load_model(Model *m, const char *path, char *err, size_t errlen);
// Its vocabulary. path NULL: the one inside a GGUF model; beside another `<model stem>.tokenizer.bin`, then
// `tokenizer.bin`, then the folder's own. path may be a GGUF file, a tokenizer.bin, a tokenizer.model, a
// tokenizer.json, its folder, or a model that has it beside. m NULL: of no model, path says where. What pieces point
// into is mapped as *file (zeroed where nothing is), which the caller unmaps after them. On failure both are left
// empty.
int load_vocab(Vocab *v, File *file, const Model *m, const char *path, char *err, size_t errlen);

// llama2.c .bin, v0 (no magic), v1 and v2 ("ak42"). Everything is checked before a pointer is made: the header's
// numbers, every product, every tensor's end against the file's size. The file is taken over (also on failure) and
// zeroed. Returns 0, or -1 with one line in err and *m left empty.
int load_llama2c_file(Model *m, File *file, char *err, size_t errlen);

// GGUF v2 or v3 of an architecture in families.c; STEM-00001-of-0000N.gguf brings the files behind it. The file is
// taken over (also on failure) and zeroed. Returns 0, or -1 with one line in err and *m left empty.
int load_gguf_file(Model *m, File *file, char *err, size_t errlen);
// The vocabulary of a GGUF file, of any of the four kinds: its pieces are copied, the file stays the caller's.
// vocab_size: tokens of the model, those above are dropped; 0: any. On failure *v is left empty.
int load_gguf_vocab(Vocab *v, const File *file, int vocab_size, char *err, size_t errlen);
// The vocabulary of a Hugging Face folder: tokenizer.json, and what stands beside it. vocab_size: tokens of the model,
// whose table may be longer than the vocabulary; 0: any. On failure *v is left empty.
int load_hf_vocab(Vocab *v, const char *folder, int vocab_size, char *err, size_t errlen);
// Adds what a name in tokenizer.ggml.pre stands for: steps of the pre-tokenizer, how merges and BOS go. -1 with what is
// wrong in err, without a path.
int gguf_pre_steps(Vocab *v, const char *name, size_t n, char *err, size_t errlen);

// A decoder in safetensors, a file or a folder as load_safetensors takes it, with its config.json. Returns 0, or -1
// with one line in err and *m left empty.
int load_hf_model(Model *m, const char *path, char *err, size_t errlen);
// The same from settings, which stay the caller's, and tensors, which are taken over (also on failure) and zeroed.
int load_hf_parts(Model *m, Settings *s, Weights *w, char *err, size_t errlen);

// safetensors: a file, or a Hugging Face folder with model.safetensors, with model.safetensors.index.json and its
// shards, or with one .safetensors file of another name. Offsets must tile the data, every size must be what dtype and
// shape say. Returns 0, or -1 with one line in err and *w left empty.
int load_safetensors(Weights *w, const char *path, char *err, size_t errlen);
// The settings that belong to such a path: config.json of the folder or beside the file, or STEM_config.json beside
// STEM.safetensors. settings_free them. -1 with a line in err.
int load_config(Settings *s, const char *path, char *err, size_t errlen);
// The heads under this key, which must share the width evenly, as the config's one kind of layers. fallback 0:
// required.
void load_heads(Settings *s, Config *c, const char *key, int fallback);
// The activation that is named under this key; absent: gelu.
Activation load_activation(Settings *s, const char *key);
// One opened file, which is taken over (also on failure) and zeroed; its tensors join those already in *w.
int load_safetensors_file(Weights *w, File *file, char *err, size_t errlen);

// Does its header describe a llama2.c model of the file's size?
bool file_is_llama2c(const File *file);
// llama2.c tokenizer.bin: records up to its end; vocab_size: tokens of the model, those above are dropped; 0: any. The
// pieces point into *file, which the caller unmaps after the tokenizer is gone. Types come from the ids: 0 unknown, 1
// and 2 control, and from 259 pieces up 3 + b is the byte token of b. On failure *v and *file are left empty.
int load_llama2c_tokenizer(Vocab *v, File *file, const char *path, int vocab_size, char *err, size_t errlen);
// The same from an opened file, which stays the caller's.
int load_llama2c_tokenizer_file(Vocab *v, const File *file, int vocab_size, char *err, size_t errlen);
