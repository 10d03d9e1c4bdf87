// engine: a model opened (Engine), and text out of it.
//
// Owns the life of a model, its vocabulary and its runners.
#include "engine.h"

#include "chat.h"
#include "file.h"
#include "textstream.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

// ---- engine

// `path` NULL: the model's own, or the file beside it.
static Tokenizer *open_tokenizer(Engine *e, const char *path, char *err, size_t errlen) {
    Vocab vocab;
    if (load_vocab(&vocab, &e->tokenizer_file, &e->model, path, err, errlen)) return NULL;
    return tokenizer_new(&vocab, err, errlen);
}

// The type that most bytes of the weights are stored in.
static const char *main_type(const Weights *w) {
    uint64_t bytes[N_DTYPES] = {0};
    DType most = DTYPE_F32;
    for (size_t i = 0; i < weights_count(w); i++) {
        const Tensor *t = weights_at(w, i);
        bytes[t->dtype] += tensor_bytes(t);
    }
    for (DType d = 0; d < N_DTYPES; d++) most = bytes[d] > bytes[most] ? d : most;
    return most == DTYPE_I8G ? "int8" : dtype_name(most); // llama2.c's
}

Engine *engine_open(const char *model, const char *tokenizer, char *err, size_t errlen) {
    Engine *e = model ? calloc(1, sizeof *e) : NULL;
    if (!model) fail(err, errlen, "model: expected the path of a file or a folder, found NULL");
    if (!model) return NULL;
    if (!e) {
        fail(err, errlen, "out of memory");
        return NULL;
    }
    bool ok = !load_model(&e->model, model, err, errlen) && !decoder_bind(&e->decoder, &e->model, err, errlen) &&
              (e->tokenizer = open_tokenizer(e, tokenizer, err, errlen)) &&
              (e->order = tokenorder_open(e->tokenizer, err, errlen)) &&
              (e->runners = runners_open(&e->decoder, err, errlen));
    if (!ok) {
        engine_close(e);
        return NULL;
    }
    notes_append(&e->notes, &e->model.notes);
    notes_append(&e->notes, tokenizer_notes(e->tokenizer));
    const Config *c = &e->model.config;
    const LayerKind *k = &c->kinds[0];
    e->info = (EngineInfo){
        .kind = e->model.kind,
        .family = e->model.family ? e->model.family->arch : "llama",
        .type = main_type(&e->model.weights),
        .dim = c->dim,
        .hidden_dim = c->hidden_dim,
        .n_layers = c->n_layers,
        .n_heads = k->n_heads,
        .n_kv_heads = k->n_kv_heads,
        .head_dim = k->k_dim,
        .vocab_size = c->vocab_size,
        .max_seq_len = c->max_seq_len,
        .bos_id = tokenizer_bos(e->tokenizer),
        .eos_id = tokenizer_eos(e->tokenizer),
        .n_params = weights_params(&e->model.weights),
        .model_bytes = weights_file_bytes(&e->model.weights),
        .token_bytes = e->decoder.token_bytes,
    };
    return e;
}

void engine_close(Engine *e) {
    if (!e) return;
    runners_close(e->runners);
    tokenorder_close(e->order);
    tokenizer_free(e->tokenizer);
    file_unmap(&e->tokenizer_file);
    decoder_free(&e->decoder);
    weights_free(&e->model.weights);
    free(e);
}

EngineInfo engine_info(const Engine *e) {
    return e->info;
}

const char *engine_notes(const Engine *e) {
    return e->notes.text;
}

void engine_limit(const Engine *e, uint64_t kv_bytes, uint64_t prefix_bytes) {
    kvpool_limit(runners_pool(e->runners), kv_bytes);
    prefixes_limit(runners_prefixes(e->runners), prefix_bytes);
}

PrefixInfo engine_prefixes(const Engine *e) {
    PrefixInfo info = prefixes_info(runners_prefixes(e->runners));
    info.kv_bytes = kvpool_bytes(runners_pool(e->runners));
    return info;
}

SamplingDefaults engine_sampling(const Engine *e) {
    const Sampling *s = &e->model.sampling;
    if (!s->source) return (SamplingDefaults){-1, -1, -1, -1, -1, 0, NULL};
    return (SamplingDefaults){s->temperature,    s->top_k,          s->top_p, s->min_p,
                              s->repeat_penalty, s->penalty_last_n, s->source};
}

int engine_encode(const Engine *e, const char *text, size_t n, bool bos, bool special, int32_t **ids, char *err,
                  size_t errlen) {
    unsigned flags = (bos ? TOKENIZE_BOS : 0u) | (special ? TOKENIZE_SPECIAL : 0u);
    return tokenizer_encode(e->tokenizer, text, n, flags, ids, err, errlen);
}

bool engine_is_end(const Engine *e, int32_t id) {
    return tokenizer_is_end(e->tokenizer, id) || id == e->info.bos_id;
}

Chat *engine_chat_with(const Engine *e, const char *chat_template, char *err, size_t errlen) {
    return chat_open(e->tokenizer, chat_template, time(NULL), err, errlen);
}

Chat *engine_chat(const Engine *e, char *err, size_t errlen) {
    return chat_open(e->tokenizer, tokenizer_chat_template(e->tokenizer), time(NULL), err, errlen);
}

// ---- text out

struct TextOut {
    TextStream stream;
    char *text;
};

TextOut *textout_open(const Engine *e, bool at_start) {
    TextOut *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->stream = textstream_start(e->tokenizer, at_start);
    t->text = malloc(textstream_room(e->tokenizer) + 1);
    if (t->text) return t;
    free(t);
    return NULL;
}

const char *textout_push(TextOut *t, int32_t id) {
    t->text[textstream_push(&t->stream, id, t->text)] = 0;
    return t->text;
}

const char *textout_finish(TextOut *t) {
    t->text[textstream_finish(&t->stream, t->text)] = 0;
    return t->text;
}

void textout_show_special(TextOut *t, bool show) {
    t->stream.special = show;
}

void textout_close(TextOut *t) {
    if (!t) return;
    free(t->text);
    free(t);
}
