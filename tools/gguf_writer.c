// gguf_writer: see gguf_writer.h.
#include "gguf_writer.h"

#include "cli.h"
#include "ggml_types.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

enum { ALIGNMENT = 32, VERSION = 3 };

static void put(uint8_t **part, const void *data, size_t n) {
    if (n) memcpy(arraddnptr(*part, n), data, n);
}

static void put_u32(uint8_t **part, uint32_t v) {
    put(part, &v, sizeof v);
}

static void put_u64(uint8_t **part, uint64_t v) {
    put(part, &v, sizeof v);
}

static void put_text(uint8_t **part, const char *text, size_t n) {
    put_u64(part, n);
    put(part, text, n);
}

static void put_key(GgufWriter *w, const char *key, GgufType type) {
    put_text(&w->pairs, key, strlen(key));
    put_u32(&w->pairs, type);
    w->n_pairs++;
}

GgufWriter gguf_writer(const char *path) {
    return (GgufWriter){.path = path};
}

void gguf_u32(GgufWriter *w, const char *key, uint32_t value) {
    put_key(w, key, GGUF_U32);
    put_u32(&w->pairs, value);
}

void gguf_f32(GgufWriter *w, const char *key, float value) {
    put_key(w, key, GGUF_F32);
    put(&w->pairs, &value, sizeof value);
}

void gguf_bool(GgufWriter *w, const char *key, bool value) {
    put_key(w, key, GGUF_BOOL);
    put(&w->pairs, &(uint8_t){value}, 1);
}

void gguf_text(GgufWriter *w, const char *key, const char *text) {
    put_key(w, key, GGUF_STRING);
    put_text(&w->pairs, text, strlen(text));
}

void gguf_pair(GgufWriter *w, const Gguf *from, const GgufPair *pair) {
    const GgufValue *v = &pair->value;
    Cursor end = from->in;
    end.pos = v->at;
    gguf_skip(&end, pair->key, v->type, v->count); // cannot fail: it was read before
    put_key(w, pair->key, v->is_array ? GGUF_ARRAY : v->type);
    if (v->is_array) {
        put_u32(&w->pairs, v->type);
        put_u64(&w->pairs, v->count);
    }
    put(&w->pairs, from->file.data + v->at, end.pos - v->at);
}

void gguf_array(GgufWriter *w, const char *key, GgufType element, uint64_t count) {
    put_key(w, key, GGUF_ARRAY);
    put_u32(&w->pairs, element);
    put_u64(&w->pairs, count);
}

void gguf_array_bytes(GgufWriter *w, const void *element, size_t n) {
    put(&w->pairs, element, n);
}

void gguf_array_text(GgufWriter *w, const char *text, size_t n) {
    put_text(&w->pairs, text, n);
}

static uint64_t aligned(uint64_t n) {
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

void gguf_tensor(GgufWriter *w, const char *name, const Tensor *t) {
    assert(ggml_type_number(t->dtype) >= 0);
    put_text(&w->infos, name, strlen(name));
    put_u32(&w->infos, (uint32_t)t->n_dims);
    for (int i = t->n_dims - 1; i >= 0; i--) put_u64(&w->infos, (uint64_t)t->shape[i]); // innermost first
    put_u32(&w->infos, (uint32_t)ggml_type_number(t->dtype));
    put_u64(&w->infos, w->data_bytes);
    w->n_infos++;
    w->data_bytes += aligned(tensor_bytes(t));
}

_Noreturn static void give_up(GgufWriter *w) {
    int why = errno;
    die(1, "%s: %s after %.1f MiB%s", w->path, strerror(why), (double)w->written / 0x1p20, outfile_fate(&w->out));
}

void gguf_data(GgufWriter *w, const void *data, uint64_t n) {
    if (fwrite(data, 1, n, w->out.file) != n) give_up(w);
    w->written += n;
}

void gguf_align(GgufWriter *w) {
    static const uint8_t zeros[ALIGNMENT];
    gguf_data(w, zeros, aligned(w->written) - w->written);
}

static uint8_t *head_of(const GgufWriter *w, uint64_t n_infos) {
    uint8_t *head = NULL;
    put(&head, "GGUF", 4);
    put_u32(&head, VERSION);
    put_u64(&head, n_infos);
    put_u64(&head, w->n_pairs);
    return head;
}

uint8_t *gguf_settings_bytes(const GgufWriter *w) {
    uint8_t *bytes = head_of(w, 0);
    put(&bytes, w->pairs, arrlenu(w->pairs));
    return bytes;
}

void gguf_begin(GgufWriter *w) {
    char err[512];
    if (outfile_open(&w->out, w->path, err, sizeof err)) die(1, "%s", err);
    uint8_t *head = head_of(w, w->n_infos);
    gguf_data(w, head, arrlenu(head));
    gguf_data(w, w->pairs, arrlenu(w->pairs));
    gguf_data(w, w->infos, arrlenu(w->infos));
    gguf_align(w);
    w->data_bytes += w->written; // from here on: the size of the file
    arrfree(head);
}

static void forget(GgufWriter *w) {
    arrfree(w->pairs);
    arrfree(w->infos);
    memset(w, 0, sizeof *w);
}

uint64_t gguf_finish(GgufWriter *w) {
    assert(w->written == w->data_bytes);
    uint64_t bytes = w->written;
    char err[512];
    if (outfile_finish(&w->out, err, sizeof err)) die(1, "%s", err);
    forget(w);
    return bytes;
}

void gguf_abandon(GgufWriter *w) {
    outfile_abandon(&w->out);
    forget(w);
}
