// gguf.h: GGUF files as rows change them. An edit is a verb, the setting or tensor and a value:
//
//   u32, f32, bool, text, bytes KEY VALUE   the setting is this        put KEY TEXT       one more text in an array
//   none, numbers, drop, again KEY          no elements, whole         token ID TYPE SCORE, vocab N
//                                           numbers, gone, twice       without, swap TENSOR, twin TENSOR NAME, more N
//   field WHICH NAME INDEX NUMBER           one number of the file is written otherwise
#pragma once
#include "bad.h"
#include "../make_gguf.h"

UNUSED static void drop_pair(Maker *m, const char *key) {
    MakePair *p = maker_pair(m, key);
    if (!p) return;
    arrfree(p->payload.at);
    arrdel(m->pairs, p - m->pairs);
}

UNUSED static void set_token(Maker *m, int id, const char *text, int32_t type, float score) {
    MakePair *tokens = maker_pair(m, "tokenizer.ggml.tokens");
    Bytes old = tokens->payload, fresh = {0};
    const uint8_t *at = old.at;
    for (uint64_t i = 0, n; i < tokens->count; i++, at += 8 + n) {
        memcpy(&n, at, 8);
        if ((int)i == id) bytes_put_text(&fresh, text, strlen(text));
        else bytes_put(&fresh, at, 8 + n);
    }
    arrfree(old.at);
    tokens->payload = fresh;
    memcpy(maker_pair(m, "tokenizer.ggml.token_type")->payload.at + 4 * id, &type, 4);
    memcpy(maker_pair(m, "tokenizer.ggml.scores")->payload.at + 4 * id, &score, 4);
}

// Another kind of vocabulary than SentencePiece's BPE, over tokens 3 .. of the made one.
UNUSED static Maker maker_kind(const char *model, int n, const char *const *texts) {
    Maker m = maker_new();
    maker_vocab(&m, 3 + n);
    for (int i = 0; i < n; i++) set_token(&m, 3 + i, texts[i], 1, (float)-i - 1);
    maker_text(&m, "tokenizer.ggml.model", model);
    return m;
}

// A copy of a tensor in this or another file.
UNUSED static void copy_tensor(Maker *to, const MakeTensor *from, const char *name) {
    MakeTensor t = *from;
    t.data.at = NULL;
    bytes_put(&t.data, from->data.at, arrlenu(from->data.at));
    snprintf(t.name, sizeof t.name, "%s", name);
    arrput(to->tensors, t);
}

static bool edit_setting(Maker *m, const char *verb, const char *key, const char *value) {
    if (!strcmp(verb, "u32")) maker_u32(m, key, (uint32_t)strtoul(value, NULL, 10));
    else if (!strcmp(verb, "f32")) maker_f32(m, key, strtof(value, NULL));
    else if (!strcmp(verb, "bool")) maker_bool(m, key, (uint8_t)atoi(value));
    else if (!strcmp(verb, "text")) maker_text(m, key, value);
    else if (!strcmp(verb, "put")) array_put_text(maker_pair(m, key), value);
    else if (!strcmp(verb, "none")) maker_array(m, key, maker_pair(m, key)->element);
    else if (!strcmp(verb, "numbers")) array_put(maker_array(m, key, G_U32), &(uint32_t){0}, 4);
    else if (!strcmp(verb, "drop")) drop_pair(m, key);
    else if (!strcmp(verb, "bytes")) {
        MakePair *p = maker_array(m, key, G_U8);
        for (; *value; value++) array_put(p, value, 1);
    } else if (!strcmp(verb, "again")) {
        MakePair twin = *maker_pair(m, key);
        twin.payload.at = NULL;
        bytes_put_text(&twin.payload, "", 0);
        arrput(m->pairs, twin);
    } else return false;
    return true;
}

static bool edit_tensor(Maker *m, const char *verb, const char *name, const char *other) {
    MakeTensor *t = maker_tensor(m, name);
    if (!t) return false;
    if (!strcmp(verb, "twin")) copy_tensor(m, t, other);
    else if (!strcmp(verb, "swap")) {
        uint64_t cols = t->dims[0];
        t->dims[0] = t->dims[1];
        t->dims[1] = cols;
    } else if (!strcmp(verb, "without")) {
        arrfree(t->data.at);
        arrdel(m->tensors, t - m->tensors);
    } else return false;
    return true;
}

static bool edit_field(Maker *m, const char *which, char *rest) {
    static const char *const names[] = {"",     "magic",        "version", "n_tensors", "n_pairs",     "key_length",
                                        "type", "element_type", "count",   "length",    "name_length", "n_dims",
                                        "dim",  "tensor_type",  "offset"};
    static char name[80]; // as long as the maker
    int field = 1;
    while (field < N_OF(names) && strcmp(names[field], which) != 0) field++;
    m->field = (Field)field;
    m->name = strcpy(name, "");
    if (field < N_OF(names) && sscanf(rest, "%79s %d %lu", name, &m->index, &m->value) == 3) {
        if (!strcmp(name, "-")) *name = 0;
        return true;
    }
    return false;
}

UNUSED static void gguf_edit(Maker *m, const char *change, size_t *more) {
    char *copy = strdup(change), *rest = copy;
    for (char *edit = bad_part(&rest, "; "); edit && *edit; edit = bad_part(&rest, "; ")) {
        char *value = edit, *verb = bad_part(&value, " "), *name = bad_part(&value, " "), score[20] = "";
        int32_t type = 0;
        bool known = true;
        if (!value) value = strchr(name, 0);
        if (!strcmp(verb, "field")) known = edit_field(m, name, value);
        else if (!strcmp(verb, "more")) *more = strtoul(name, NULL, 10);
        else if (!strcmp(verb, "vocab")) maker_vocab(m, atoi(name));
        else if (!strcmp(verb, "token")) {
            sscanf(value, "%d %19s", &type, score);
            set_token(m, atoi(name), "word", type, strtof(score, NULL));
        } else known = edit_tensor(m, verb, name, value) || edit_setting(m, verb, name, value);
        CHECK(known, "a row asks to %s", verb);
    }
    free(copy);
}
