// load_safetensors: the tensors of a safetensors file, or of a Hugging Face folder with one file or shards.
//
// Owns the format's rules: a length, that much JSON, then data which the tensors' offsets must tile without hole or
// overlap, each exactly as long as its dtype and shape require. Refuses everything else before a pointer is made.
// Tensors keep the names of the file and are used in place; values that do not lie on a multiple of their size are
// copied. Of shards, only the tensors that the index names are read, each from the file that it names. Source:
// github.com/huggingface/safetensors, "Format".
#include "load.h"
#include "settings.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <stb/stb_ds.h>

enum { LENGTH_BYTES = 8, MAX_SHARDS = 1000, PATH_ROOM = 4096 };

static const struct {
    const char *name;
    DType dtype;
    unsigned bytes; // of a value
} dtypes[] = {
    {"F32", DTYPE_F32, 4},      {"F16", DTYPE_F16, 2},       {"BF16", DTYPE_BF16, 2},     {"F64", DTYPE_OTHER, 8},
    {"I64", DTYPE_INTEGER, 8},  {"I32", DTYPE_INTEGER, 4},   {"I16", DTYPE_INTEGER, 2},   {"I8", DTYPE_INTEGER, 1},
    {"U64", DTYPE_INTEGER, 8},  {"U32", DTYPE_INTEGER, 4},   {"U16", DTYPE_INTEGER, 2},   {"U8", DTYPE_U8, 1},
    {"BOOL", DTYPE_INTEGER, 1}, {"F8_E4M3", DTYPE_OTHER, 1}, {"F8_E5M2", DTYPE_OTHER, 1},
};

// One tensor of the header, its extent relative to the data.
typedef struct {
    const char *name; // the JSON's
    Tensor tensor;
    unsigned value_bytes;
    uint64_t begin, end;
} Entry;

// -- header

static uint64_t whole(const json_t *v, bool *ok) {
    *ok = *ok && json_is_integer(v) && json_integer_value(v) >= 0;
    return *ok ? (uint64_t)json_integer_value(v) : 0;
}

// dtype and shape; on success *bytes is what they imply.
static int read_type(Entry *e, const json_t *info, uint64_t *bytes, const char *path, char *err, size_t errlen) {
    const char *dtype = json_string_value(json_object_get(info, "dtype"));
    const json_t *shape = json_object_get(info, "shape");
    size_t n = json_array_size(shape);
    for (size_t i = 0; dtype && i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(dtype, dtypes[i].name) != 0) continue;
        e->tensor.dtype = dtypes[i].dtype;
        e->value_bytes = dtypes[i].bytes;
    }
    if (!e->value_bytes) {
        return fail(err, errlen, "%s: tensor %s: dtype: expected F32, F16, BF16, ..., found %.40s", path, e->name,
                    dtype ? dtype : "no string");
    }
    if (!json_is_array(shape) || n > MAX_DIMS) {
        return fail(err, errlen, "%s: tensor %s: shape: expected an array of at most %d dimensions, found %zu", path,
                    e->name, MAX_DIMS, n);
    }
    *bytes = e->value_bytes;
    e->tensor.n_dims = n ? (int)n : 1; // a scalar is one value
    e->tensor.shape[0] = 1;
    for (size_t i = 0; i < n; i++) {
        bool ok = true;
        uint64_t dim = whole(json_array_get(shape, i), &ok);
        if (!ok) return fail(err, errlen, "%s: tensor %s: shape: expected integers >= 0", path, e->name);
        if (!mul_u64(*bytes, dim, bytes)) {
            return fail(err, errlen, "%s: tensor %s: shape: its size does not fit 64 bits", path, e->name);
        }
        e->tensor.shape[i] = (int64_t)dim;
    }
    return 0;
}

static int read_entry(Entry *e, const json_t *info, const char *path, char *err, size_t errlen) {
    if (!json_is_object(info)) return fail(err, errlen, "%s: tensor %s: expected an object", path, e->name);
    uint64_t bytes;
    if (read_type(e, info, &bytes, path, err, errlen)) return -1;
    const json_t *offsets = json_object_get(info, "data_offsets");
    bool ok = json_array_size(offsets) == 2;
    e->begin = whole(json_array_get(offsets, 0), &ok);
    e->end = whole(json_array_get(offsets, 1), &ok);
    if (!ok) {
        return fail(err, errlen, "%s: tensor %s: data_offsets: expected two integers >= 0", path, e->name);
    }
    if (e->begin > e->end || e->end - e->begin != bytes) {
        return fail(err, errlen,
                    "%s: tensor %s: data_offsets: expected %llu bytes by its dtype and shape, found %llu to %llu", path,
                    e->name, (unsigned long long)bytes, (unsigned long long)e->begin, (unsigned long long)e->end);
    }
    return 0;
}

static int by_begin(const void *a, const void *b) {
    const Entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end; // empty tensors first
}

// In the order of their data, the entries must follow one another from 0 to n_bytes.
static int check_tiling(Entry *entries, uint64_t n_bytes, const char *path, char *err, size_t errlen) {
    size_t n = arrlenu(entries);
    if (n) qsort(entries, n, sizeof *entries, by_begin);
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (entries[i].begin != at) {
            return fail(err, errlen, "%s: tensor %s: data_offsets: expected to begin at %llu, found %llu: %s", path,
                        entries[i].name, (unsigned long long)at, (unsigned long long)entries[i].begin,
                        entries[i].begin < at ? "an overlap" : "a hole");
        }
        at = entries[i].end;
    }
    if (at == n_bytes) return 0;
    return fail(err, errlen, "%s: %s: expected %llu bytes of data by its header, found %llu", path,
                at > n_bytes ? "the file is too short" : "bytes follow the last tensor", (unsigned long long)at,
                (unsigned long long)n_bytes);
}

static int add_tensor(Weights *w, Entry *e, const uint8_t *data, const char *path, char *err, size_t errlen) {
    const uint8_t *at = data + e->begin;
    e->tensor.data = at;
    if ((uintptr_t)at % e->value_bytes && e->tensor.dtype < DTYPE_INTEGER && e->end > e->begin) {
        void *copy = weights_own(w, (size_t)(e->end - e->begin));
        if (!copy) return fail(err, errlen, "%s: tensor %s: out of memory", path, e->name);
        e->tensor.data = memcpy(copy, at, (size_t)(e->end - e->begin));
    }
    return weights_add(w, e->name, e->tensor, err, errlen);
}

// A file that is read into a table: all of it (map NULL), or the tensors that an index says are in this file.
typedef struct {
    Weights *w;
    const File *file;
    const json_t *map;
    const char *name; // of the file in the index
    char *err;
    size_t errlen;
} Reading;

static bool is_listed(const Reading *r, const char *tensor) {
    const char *file = r->map ? json_string_value(json_object_get(r->map, tensor)) : NULL;
    return !r->map || (file && !strcmp(file, r->name));
}

static int read_tensors(const Reading *r, json_t *header, uint64_t data_at) {
    Entry *entries = NULL;
    const char *name, *path = r->file->path;
    json_t *info;
    int rc = 0;
    json_object_foreach(header, name, info) {
        if (!strcmp(name, "__metadata__")) continue;
        Entry e = {.name = name};
        rc = read_entry(&e, info, path, r->err, r->errlen);
        if (rc) break;
        arrput(entries, e);
    }
    if (!rc) rc = check_tiling(entries, r->file->size - data_at, path, r->err, r->errlen);
    for (ptrdiff_t i = 0; !rc && i < arrlen(entries); i++) {
        if (!is_listed(r, entries[i].name)) continue;
        rc = add_tensor(r->w, &entries[i], r->file->data + data_at, path, r->err, r->errlen);
    }
    arrfree(entries);
    return rc;
}

static int read_file(const Reading *r) {
    Cursor in = cursor_at(r->file, 0, r->err, r->errlen);
    uint64_t n = cursor_u64(&in, "header length");
    if (n > MAX_SETTINGS_BYTES) {
        cursor_fail(&in, 0, "not a safetensors file: header length: expected at most %d, found %llu",
                    MAX_SETTINGS_BYTES, (unsigned long long)n);
    }
    const uint8_t *text = cursor_bytes(&in, n, "header");
    if (in.failed) return -1;
    Settings header;
    const char *path = r->file->path;
    if (settings_parse_unique(&header, path, (const char *)text, (size_t)n, r->err, r->errlen)) return -1;
    int rc = read_tensors(r, header.object, LENGTH_BYTES + n);
    settings_free(&header);
    return rc;
}

// The file is taken over; on failure the table is freed.
static int take_file(Weights *w, File *file, Reading r) {
    arrput(w->files, *file);
    memset(file, 0, sizeof *file);
    r.w = w;
    r.file = &arrlast(w->files);
    if (!read_file(&r)) return 0;
    weights_free(w);
    return -1;
}

int load_safetensors_file(Weights *w, File *file, char *err, size_t errlen) {
    return take_file(w, file, (Reading){.err = err, .errlen = errlen});
}

// -- folders

static int map_and_take(Weights *w, const char *path, Reading r) {
    File file;
    if (!file_map(&file, path, r.err, r.errlen)) return take_file(w, &file, r);
    weights_free(w);
    return -1;
}

static int map_and_load(Weights *w, const char *path, char *err, size_t errlen) {
    return map_and_take(w, path, (Reading){.err = err, .errlen = errlen});
}

static int join(char out[PATH_ROOM], const char *folder, const char *name, char *err, size_t errlen) {
    int n = snprintf(out, PATH_ROOM, "%s/%s", folder, name);
    return n < PATH_ROOM ? 0 : fail(err, errlen, "%.200s...: the path is too long", folder);
}

// One shard: of its tensors those that the index says are in it. Whether all that the model needs are there, the
// binder finds.
static int load_shard(Weights *w, const char *folder, const char *file, Settings *index, const json_t *map) {
    char path[PATH_ROOM];
    Reading r = {.map = map, .name = file, .err = index->err, .errlen = index->errlen};
    index->failed = join(path, folder, file, r.err, r.errlen) || map_and_take(w, path, r);
    return index->failed ? -1 : 0;
}

// The shards that an index names, each once, in the order of their first tensor.
static int load_shards(Weights *w, const char *folder, Settings *index) {
    struct {
        char *key;
        int value;
    } *seen = NULL;
    json_t *map = settings_object(index, "weight_map").object, *shard;
    const char *name;
    if (!json_object_size(map)) settings_fail(index, "weight_map", "expected tensors and their files, found none");
    json_object_foreach(map, name, shard) {
        const char *file = json_string_value(shard);
        if (file && *file && !strchr(file, '/')) continue;
        settings_fail(index, "weight_map", "%.80s: expected the name of a file in this folder", name);
    }
    json_object_foreach(map, name, shard) {
        if (index->failed) break;
        const char *file = json_string_value(shard);
        if (shgeti(seen, file) >= 0) continue;
        shput(seen, file, 1);
        if (shlen(seen) > MAX_SHARDS) settings_fail(index, "weight_map", "expected at most %d files", MAX_SHARDS);
        else load_shard(w, folder, file, index, map);
    }
    shfree(seen);
    return index->failed ? -1 : 0;
}

static bool exists(const char *path) {
    struct stat st;
    return !stat(path, &st);
}

static bool is_folder(const char *path) {
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

static int load_index(Weights *w, const char *folder, const char *path, char *err, size_t errlen) {
    Settings index;
    if (settings_read(&index, path, err, errlen)) return -1;
    int rc = load_shards(w, folder, &index);
    settings_free(&index);
    if (rc) weights_free(w);
    return rc;
}

// The only *.safetensors of a folder, into out; how many there are.
static int only_safetensors(char out[PATH_ROOM], const char *folder) {
    glob_t found;
    char pattern[PATH_ROOM];
    if (join(pattern, folder, "*.safetensors", NULL, 0)) return 0; // a folder called like a pattern finds nothing
    int n = glob(pattern, 0, NULL, &found) ? 0 : (int)found.gl_pathc;
    if (n == 1 && strlen(found.gl_pathv[0]) >= PATH_ROOM) n = 0;
    if (n == 1) memcpy(out, found.gl_pathv[0], strlen(found.gl_pathv[0]) + 1);
    if (found.gl_pathc) globfree(&found);
    return n;
}

int load_safetensors(Weights *w, const char *path, char *err, size_t errlen) {
    memset(w, 0, sizeof *w);
    if (!is_folder(path)) return map_and_load(w, path, err, errlen);
    char inside[PATH_ROOM];
    if (join(inside, path, "model.safetensors", err, errlen)) return -1;
    if (exists(inside)) return map_and_load(w, inside, err, errlen);
    if (join(inside, path, "model.safetensors.index.json", err, errlen)) return -1;
    if (exists(inside)) return load_index(w, path, inside, err, errlen);
    int n = only_safetensors(inside, path);
    if (n == 1) return map_and_load(w, inside, err, errlen);
    return fail(err, errlen,
                "%s: expected model.safetensors, model.safetensors.index.json or one other .safetensors file, found %d",
                path, n);
}

int load_config(Settings *s, const char *path, char *err, size_t errlen) {
    char weights[PATH_ROOM], config[PATH_ROOM];
    memset(s, 0, sizeof *s);
    if (is_folder(path)) {
        if (join(config, path, "config.json", err, errlen)) return -1;
        if (exists(config) || only_safetensors(weights, path) != 1) return settings_read(s, config, err, errlen);
    } else if (snprintf(weights, sizeof weights, "%s", path) >= PATH_ROOM) {
        return fail(err, errlen, "%.200s...: the path is too long", path);
    }
    char *slash = strrchr(weights, '/'), *name = slash ? slash + 1 : weights, *dot = strrchr(name, '.');
    int stem = (int)(dot ? dot - weights : (ptrdiff_t)strlen(weights));
    if (snprintf(config, sizeof config, "%.*s_config.json", stem, weights) < PATH_ROOM && exists(config)) {
        return settings_read(s, config, err, errlen);
    }
    if (slash) *slash = 0;
    if (join(config, slash ? weights : ".", "config.json", err, errlen)) return -1;
    return settings_read(s, config, err, errlen);
}
