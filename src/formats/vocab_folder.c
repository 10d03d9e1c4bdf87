// vocab_folder: the vocabulary of a Hugging Face folder.
//
// Owns which file the vocabulary is in (tokenizer.json, tokenizer.model, vocab.json with merges.txt, or RWKV's text
// file) and the files beside it, all of them optional: tokens that were added (tokenizer_config.json,
// added_tokens.json), the BOS, EOS and unknown tokens (tokenizer_config.json, special_tokens_map.json), the tokens that
// end a generation (generation_config.json, or else config.json), the chat template. Refuses a folder without a
// vocabulary. Called by load_vocab.
#include "added.h"
#include "load.h"
#include "vocab_json.h"
#include "vocab_merges.h"
#include "vocab_rwkv.h"
#include "vocab_spm.h"

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
    json_t *added;    // array of tokens, as tokenizer.json has them
    json_t *specials; // object of the texts that are special
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

static void set_if_found(int *id, int found) {
    if (found >= 0) *id = found;
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
    set_if_found(&v->bos_id, token_read(f, s, "bos_token"));
    set_if_found(&v->eos_id, token_read(f, s, "eos_token"));
    set_if_absent(&v->unk_id, token_read(f, s, "unk_token"));
    if (v->add_space_prefix) v->add_space_prefix = settings_bool(s, "add_prefix_space", true);
    ids_override(s, "add_bos_token", &v->prefix_ids, v->bos_id);
    ids_override(s, "add_eos_token", &v->suffix_ids, v->eos_id);
    v->no_bos = !arrlen(v->prefix_ids);
    read_template(f, s);
}

static void read_special_tokens(Folder *f, Settings *s) {
    set_if_absent(&f->v->bos_id, token_read(f, s, "bos_token"));
    set_if_absent(&f->v->eos_id, token_read(f, s, "eos_token"));
}

// Adds the ids that end a generation: eos_token_id is an id or an array of ids.
static void read_end_ids(Folder *f, Settings *s) {
    json_t *value = json_object_get(s->object, "eos_token_id"), *list = json_is_array(value) ? value : NULL;
    size_t n = list ? json_array_size(list) : settings_has(s, "eos_token_id");
    for (size_t i = 0; i < n; i++) {
        int64_t id;
        bool whole = settings_whole(list ? json_array_get(list, i) : value, &id);
        if (!whole || id < 0) settings_fail(s, "eos_token_id", "expected token ids");
        else if (id < arrlen(f->v->pieces)) arrput(f->v->end_ids, (int)id);
        else
            note(&f->v->notes, "eos_token_id is %lld, but there are %td tokens: it ends nothing", (long long)id,
                 arrlen(f->v->pieces));
    }
}

static void read_bos_id(Folder *f, Settings *s) {
    int n = (int)arrlen(f->v->pieces);
    if (!settings_has(s, "bos_token_id")) return;
    int id = settings_int(s, "bos_token_id", 0, INT_MAX, 0);
    if (id < n) set_if_absent(&f->v->bos_id, id);
    else note(&f->v->notes, "bos_token_id is %d, but there are %d tokens: it begins nothing", id, n);
}

static void read_generation_config(Folder *f, Settings *s) {
    read_end_ids(f, s);
    read_bos_id(f, s);
}

// What no other file said; of a model of text and pictures, in the part of the text.
static void read_model_config(Folder *f, Settings *s) {
    Settings text = settings_object(s, "text_config");
    Settings *levels[] = {s, &text};
    for (int i = 0; i < 2; i++) {
        if (!levels[i]->object) continue;
        if (!arrlen(f->v->end_ids)) read_end_ids(f, levels[i]);
        if (f->v->bos_id < 0) read_bos_id(f, levels[i]);
    }
}

// ---- added tokens

// The texts that a file calls special: the values of its keys, strings, objects with content, or arrays of them.
static void note_specials(Folder *f, const json_t *value) {
    size_t i;
    json_t *item;
    if (json_is_object(value)) value = json_object_get(value, "content");
    json_array_foreach((json_t *)(uintptr_t)value, i, item) note_specials(f, item);
    if (json_is_string(value)) json_object_set_new(f->specials, json_string_value(value), json_true());
}

static void read_specials(Folder *f, Settings *s) {
    const char *key;
    json_t *value;
    json_object_foreach(s->object, key, value) {
        size_t n = strlen(key);
        if (n > 6 && (!strcmp(key + n - 6, "_token") || !strcmp(key + n - 7, "_tokens"))) note_specials(f, value);
    }
}

// {"id": {"content": ..., "special": ...}, ...}
static void read_decoder(Folder *f, Settings *s) {
    Settings list = settings_object(s, "added_tokens_decoder");
    const char *key;
    json_t *token;
    read_specials(f, s);
    json_object_foreach(list.object, key, token) {
        char *end;
        long id = strtol(key, &end, 10);
        if (*end || end == key || id < 0 || id > INT_MAX || !json_is_object(token)) {
            settings_fail(&list, key, "expected a token's id and an object");
            return;
        }
        json_object_set_new(token, "id", json_integer(id));
        json_array_append(f->added, token);
    }
}

// {"text": id, ...}
static void read_added_tokens(Folder *f, Settings *s) {
    const char *text;
    json_t *id, *own = json_array();
    json_object_foreach(s->object, text, id) {
        bool special = json_object_get(f->specials, text) != NULL;
        json_array_append_new(
            own, json_pack("{s:s, s:O, s:b, s:b}", "content", text, "id", id, "special", special, "normalized", 0));
    }
    json_t *more = added_beside(f->added, own);
    json_array_extend(f->added, more);
    json_decref(more);
    json_decref(own);
}

// Reads one of the optional JSON files.
static int read_beside(Folder *f, const char *name, void (*read)(Folder *f, Settings *s)) {
    Settings s;
    if (!folder_has(f, name)) return 0;
    if (settings_read(&s, f->path, f->err, f->errlen)) return -1;
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

// Tokens that stand beside a tokenizer.model.
static int add_tokens(Folder *f) {
    Vocab *v = f->v;
    Settings s = {.object = f->added, .path = f->path, .err = f->err, .errlen = f->errlen};
    PieceTable table;
    if (!pieces_open(&table, v->pieces, arrlenu(v->pieces)))
        return fail(f->err, f->errlen, "%s: out of memory", f->path);
    for (ptrdiff_t id = 0; id < arrlen(v->pieces); id++) pieces_add(&table, (int32_t)id);
    added_read(v, &table, &s, f->added);
    pieces_close(&table);
    return s.failed ? -1 : 0;
}

// Token 0 has the text that tokenizer_config.json gives it.
static int read_rwkv(Folder *f) {
    const char *end = "<|rwkv_tokenizer_end_of_text|>";
    size_t i;
    json_t *token;
    File file;
    json_array_foreach(f->added, i, token) {
        const char *text = json_string_value(json_object_get(token, "content"));
        if (text && json_integer_value(json_object_get(token, "id")) == 0) end = text;
    }
    if (file_map(&file, f->path, f->err, f->errlen)) return -1;
    int rc = vocab_rwkv_read(f->v, &file, end, f->err, f->errlen);
    file_unmap(&file);
    return rc;
}

// The first of these that is there, with its reader.
static int read_tokenizer(Folder *f) {
    File file;
    if (!folder_has(f, "tokenizer.json") && !folder_has(f, "tokenizer.model")) {
        if (folder_has(f, RWKV_VOCAB)) return read_rwkv(f);
        if (!folder_has(f, "vocab.json"))
            return fail(f->err, f->errlen,
                        "%s: expected tokenizer.json, tokenizer.model, vocab.json and merges.txt, or " RWKV_VOCAB
                        ", found none",
                        f->folder);
        return vocab_merges_read(f->v, f->folder, f->added, f->err, f->errlen);
    }
    bool json = folder_has(f, "tokenizer.json");
    if (!json) folder_has(f, "tokenizer.model");
    if (file_map(&file, f->path, f->err, f->errlen)) return -1;
    int rc = json ? vocab_json_read_with(f->v, &file, f->added, f->err, f->errlen)
                  : vocab_spm_read(f->v, &file, f->err, f->errlen);
    file_unmap(&file);
    if (rc || json) return rc;
    return add_tokens(f);
}

static int read_folder(Folder *f, int vocab_size) {
    if (read_beside(f, "tokenizer_config.json", read_decoder)) return -1;
    if (read_beside(f, "special_tokens_map.json", read_specials)) return -1;
    if (read_beside(f, "added_tokens.json", read_added_tokens)) return -1;
    if (read_tokenizer(f)) return -1;
    if (read_beside(f, "tokenizer_config.json", read_tokenizer_config)) return -1;
    if (read_beside(f, "special_tokens_map.json", read_special_tokens)) return -1;
    if (read_beside(f, "generation_config.json", read_generation_config)) return -1;
    if (read_beside(f, "config.json", read_model_config)) return -1;
    // Processors of pictures keep the template apart.
    if (!f->v->chat_template && read_beside(f, "chat_template.json", read_template)) return -1;
    if (read_template_file(f)) return -1;
    if (vocab_size) vocab_truncate(f->v, vocab_size);
    return 0;
}

int load_hf_vocab(Vocab *v, const char *folder, int vocab_size, char *err, size_t errlen) {
    Folder f = {.v = v, .folder = folder, .err = err, .errlen = errlen};
    memset(v, 0, sizeof *v);
    f.added = json_array();
    f.specials = json_object();
    int rc = read_folder(&f, vocab_size);
    json_decref(f.added);
    json_decref(f.specials);
    if (rc) vocab_free(v);
    return rc;
}
