// vocab_folder: the vocabulary of a Hugging Face folder.
//
// Owns the files beside tokenizer.json, all of them optional: the BOS, EOS and unknown tokens (tokenizer_config.json,
// special_tokens_map.json), the tokens that end a generation (generation_config.json), the chat template. Refuses a
// folder without tokenizer.json. Called by load_vocab.
#include "load.h"
#include "vocab_json.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <stb/stb_ds.h>

typedef struct {
    Vocab *v;
    const char *folder;
    char path[4096];
    char *err;
    size_t errlen;
} Folder;

static bool folder_has(Folder *f, const char *name) {
    int n = snprintf(f->path, sizeof f->path, "%s/%s", f->folder, name);
    return n > 0 && (size_t)n < sizeof f->path && !access(f->path, R_OK);
}

// The special token whose text is the value of a key, or the "content" of the object there. -1: absent, null, or not in
// the vocabulary.
static int token_read(Folder *f, Settings *s, const char *key) {
    json_t *value = json_object_get(s->object, key);
    if (json_is_object(value)) value = json_object_get(value, "content");
    const char *text = json_string_value(value);
    if (value && !text && !json_is_null(value)) settings_fail(s, key, "expected a string, or an object with content");
    if (!text) return -1;
    for (ptrdiff_t id = 0; id < arrlen(f->v->pieces); id++) {
        const Piece *p = &f->v->pieces[id];
        bool special = p->type != TOKEN_NORMAL && p->type != TOKEN_UNUSED;
        if (special && piece_is(p, text)) return (int)id;
    }
    return -1;
}

static void set_if_absent(int *id, int found) {
    if (*id < 0) *id = found;
}

// true: this token alone; false: none; absent: what the post-processor adds stays.
static void ids_override(Settings *s, const char *key, int **ids, int id) {
    if (!settings_has(s, key)) return;
    arrsetlen(*ids, 0);
    if (settings_bool(s, key, false) && id >= 0) arrput(*ids, id);
}

static void set_template(Folder *f, const char *text, size_t n) {
    free(f->v->chat_template);
    f->v->chat_template = text ? strndup(text, n) : NULL;
}

// A string, or an array of {name, template}: the template named "default" is used, or else the first.
static void read_template(Folder *f, Settings *s) {
    json_t *value = json_object_get(s->object, "chat_template"), *entry, *chosen = value;
    size_t i;
    json_array_foreach(value, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (!i || (name && !strcmp(name, "default"))) chosen = json_object_get(entry, "template");
    }
    if (json_is_string(chosen)) set_template(f, json_string_value(chosen), json_string_length(chosen));
    else if (value && !json_is_null(value)) settings_fail(s, "chat_template", "expected a string, or named templates");
}

static void read_tokenizer_config(Folder *f, Settings *s) {
    Vocab *v = f->v;
    v->bos_id = token_read(f, s, "bos_token");
    v->eos_id = token_read(f, s, "eos_token");
    set_if_absent(&v->unk_id, token_read(f, s, "unk_token"));
    ids_override(s, "add_bos_token", &v->prefix_ids, v->bos_id);
    ids_override(s, "add_eos_token", &v->suffix_ids, v->eos_id);
    v->no_bos = !arrlen(v->prefix_ids);
    read_template(f, s);
}

static void read_special_tokens(Folder *f, Settings *s) {
    set_if_absent(&f->v->bos_id, token_read(f, s, "bos_token"));
    set_if_absent(&f->v->eos_id, token_read(f, s, "eos_token"));
}

// eos_token_id is an id or an array of ids.
static void read_generation_config(Folder *f, Settings *s) {
    json_t *value = json_object_get(s->object, "eos_token_id"), *id;
    size_t i;
    if (json_is_integer(value)) arrput(f->v->end_ids, settings_int(s, "eos_token_id", 0, INT_MAX, -1));
    else if (value && !json_is_null(value) && !json_is_array(value))
        settings_fail(s, "eos_token_id", "expected token ids");
    json_array_foreach(value, i, id) {
        json_int_t k = json_is_integer(id) ? json_integer_value(id) : -1;
        if (k < 0 || k > INT_MAX) settings_fail(s, "eos_token_id", "expected token ids");
        else arrput(f->v->end_ids, (int)k);
    }
    if (settings_has(s, "bos_token_id")) {
        set_if_absent(&f->v->bos_id, settings_int(s, "bos_token_id", 0, (int)arrlen(f->v->pieces) - 1, 0));
    }
}

// Reads one of the optional JSON files.
static int read_beside(Folder *f, const char *name, void (*read)(Folder *f, Settings *s)) {
    Settings s;
    if (!folder_has(f, name)) return 0;
    bool integers = read == read_generation_config; // the other files may hold integers too large for jansson
    if ((integers ? settings_read : settings_read_reals)(&s, f->path, f->err, f->errlen)) return -1;
    read(f, &s);
    bool failed = s.failed;
    settings_free(&s);
    return failed ? -1 : 0;
}

static int read_template_file(Folder *f) {
    File file;
    if (!folder_has(f, "chat_template.jinja")) return 0;
    if (file_map(&file, f->path, f->err, f->errlen)) return -1;
    set_template(f, (const char *)file.data, file.size);
    file_unmap(&file);
    return f->v->chat_template ? 0 : fail(f->err, f->errlen, "%s: out of memory", f->path);
}

static int read_tokenizer(Folder *f) {
    File file;
    if (!folder_has(f, "tokenizer.json")) {
        bool sentencepiece = folder_has(f, "tokenizer.model");
        return fail(f->err, f->errlen, "%s: expected tokenizer.json%s", f->folder,
                    sentencepiece ? ", found only tokenizer.model, which is not supported" : ", not found");
    }
    if (file_map(&file, f->path, f->err, f->errlen)) return -1;
    int rc = vocab_json_read(f->v, &file, f->err, f->errlen);
    file_unmap(&file);
    return rc;
}

int load_hf_vocab(Vocab *v, const char *folder, int vocab_size, char *err, size_t errlen) {
    Folder f = {.v = v, .folder = folder, .err = err, .errlen = errlen};
    memset(v, 0, sizeof *v);
    if (read_tokenizer(&f)) return -1;
    int rc = read_beside(&f, "tokenizer_config.json", read_tokenizer_config);
    if (!rc) rc = read_beside(&f, "special_tokens_map.json", read_special_tokens);
    if (!rc) rc = read_beside(&f, "generation_config.json", read_generation_config);
    if (!rc) rc = read_template_file(&f);
    if (!rc && vocab_size && arrlen(v->pieces) > vocab_size) {
        rc = fail(err, errlen, "%s/tokenizer.json: expected at most the model's %d tokens, found %td", folder,
                  vocab_size, arrlen(v->pieces));
    }
    if (rc) vocab_free(v);
    return rc;
}
