// attention_map: see attention_map.h.
#include "attention_map.h"

#include "bytes.h"
#include "cpu.h"
#include "session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

enum { ROWS = 16 }; // tokens of a step: with other texts, what a gap between two of their tokens grows by

typedef struct {
    int layer, n_heads;
    char **rows; // [n_heads] stb_ds arrays: the JSON of each head's rows so far
} MappedLayer;

struct AttentionMap {
    const Served *model;
    SessionOptions options;
    const Prompt *prompt;
    MappedLayer *layers; // stb_ds array
    Session *session;    // without a text: what its options mean
    Memory memory;
    Compute compute;
    Workspace work;
    float *weights; // of a step and a layer: [ROWS][n_heads][prompt->n]
    int done;       // tokens
    bool failed;
    char err[256];
};

// ---- what is asked for

static const LayerKind *kind_of(const Served *m, int layer) {
    return config_kind(&m->engine->model.config, layer);
}

static int add_layer(AttentionMap *a, const json_t *number, ApiError *error) {
    int n_layers = engine_info(a->model->engine).n_layers;
    json_int_t layer = json_is_integer(number) ? json_integer_value(number) - 1 : -1;
    if (layer < 0 || layer >= n_layers)
        return api_fail(error, 400, "layers", "layers: expected a list of numbers from 1 to %d", n_layers);
    int n_heads = kind_of(a->model, (int)layer)->n_heads;
    if (!n_heads) return api_fail(error, 400, "layers", "layers: layer %d has no softmax attention", (int)layer + 1);
    arrput(a->layers, ((MappedLayer){.layer = (int)layer, .n_heads = n_heads}));
    return 0;
}

static int add_layers(AttentionMap *a, const json_t *list, ApiError *error) {
    if (list && !json_array_size(list))
        return api_fail(error, 400, "layers", "layers: expected a list of at least one number");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (add_layer(a, json_array_get(list, i), error)) return -1;
    int first = 0, n_layers = engine_info(a->model->engine).n_layers;
    while (first < n_layers && !kind_of(a->model, first)->n_heads) first++;
    if (first == n_layers) return api_fail(error, 400, "layers", "this model has no softmax attention");
    if (!list) arrput(a->layers, ((MappedLayer){.layer = first, .n_heads = kind_of(a->model, first)->n_heads}));
    int64_t n = a->prompt->n, n_weights = 0;
    for (ptrdiff_t i = 0; i < arrlen(a->layers); i++) n_weights += n * (n + 1) / 2 * a->layers[i].n_heads;
    if (n_weights <= MOST_MAPPED_WEIGHTS || arrlen(a->layers) == 1) return 0;
    return api_fail(error, 400, "layers", "layers: expected at most %d weights, found %lld in %td layers",
                    MOST_MAPPED_WEIGHTS, (long long)n_weights, arrlen(a->layers));
}

AttentionMap *attention_map_open(const Served *m, const SessionOptions *session, const Request *r, const json_t *layers,
                                 ApiError *error) {
    const char *param = r->chat ? "messages" : "prompt";
    if (arrlen(r->prompts) != 1) {
        api_fail(error, 400, param, "%s: expected one text, found %td", param, arrlen(r->prompts));
        return NULL;
    }
    if (r->prompts[0].n > MOST_MAPPED_TOKENS) {
        api_fail(error, 400, param, "%s: expected at most %d tokens, found %d", param, MOST_MAPPED_TOKENS,
                 r->prompts[0].n);
        return NULL;
    }
    AttentionMap *a = calloc(1, sizeof *a);
    if (!a) {
        api_fail(error, 500, NULL, "out of memory");
        return NULL;
    }
    *a = (AttentionMap){.model = m, .options = *session, .prompt = &r->prompts[0]};
    if (!add_layers(a, layers, error)) return a;
    attention_map_close(a);
    return NULL;
}

void attention_map_close(AttentionMap *a) {
    if (!a) return;
    for (ptrdiff_t i = 0; i < arrlen(a->layers); i++) {
        for (int h = 0; a->layers[i].rows && h < a->layers[i].n_heads; h++) arrfree(a->layers[i].rows[h]);
        free(a->layers[i].rows);
    }
    arrfree(a->layers);
    free(a->weights);
    workspace_close(&a->work);
    compute_close(&a->compute);
    memory_close(&a->memory);
    session_close(a->session);
    free(a);
}

// ---- the pass

static int begin(AttentionMap *a) {
    const Config *c = &a->model->engine->model.config;
    int most = 0, n_threads = a->options.n_threads > 0 ? a->options.n_threads : cpu_count();
    for (ptrdiff_t i = 0; i < arrlen(a->layers); i++) {
        MappedLayer *l = &a->layers[i];
        most = l->n_heads > most ? l->n_heads : most;
        l->rows = calloc((size_t)l->n_heads, sizeof *l->rows);
        if (!l->rows) return fail(a->err, sizeof a->err, "out of memory");
    }
    a->weights = malloc(sizeof *a->weights * ROWS * (size_t)most * (size_t)a->prompt->n);
    if (!a->weights) return fail(a->err, sizeof a->err, "out of memory for the weights");
    a->session = session_open(a->model->engine, &a->options, a->err, sizeof a->err);
    if (!a->session || session_open_memory(a->session, &a->memory, a->err, sizeof a->err) ||
        compute_open(&a->compute, n_threads, a->err, sizeof a->err))
        return -1;
    a->work.compute = &a->compute;
    return workspace_reserve(&a->work, c, ROWS, a->err, sizeof a->err);
}

// A weight in four decimals.
static void append_weight(char **to, float w) {
    int n = w > 0 ? (int)lrintf(fminf(w, 1) * 10000) : 0; // 0 also for NaN
    char text[] = "0.0000";
    if (n % 10000 == 0) {
        bytes_append_text(to, n ? "1" : "0");
        return;
    }
    for (int i = 5; i > 1; i--, n /= 10) text[i] = (char)('0' + n % 10);
    bytes_append(to, text, 6);
}

static void keep_weights(void *context, int layer, int segment, const Attention *at) {
    (void)segment;
    AttentionMap *a = context;
    for (ptrdiff_t i = 0; i < arrlen(a->layers) && !a->failed; i++) {
        MappedLayer *l = &a->layers[i];
        if (l->layer != layer) continue;
        a->failed = attention_weights(&a->compute, at, a->weights, a->err, sizeof a->err) != 0;
        for (int row = 0; row < at->n_q * at->n_heads && !a->failed; row++) {
            char **to = &l->rows[row % at->n_heads];
            const float *w = a->weights + (int64_t)row * at->n_keys;
            int t = at->pos0 + row / at->n_heads;
            bytes_append(to, t ? ",[" : "[", t ? 2 : 1);
            for (int j = 0; j <= t; j++) {
                if (j) bytes_append(to, ",", 1);
                append_weight(to, w[j]);
            }
            bytes_append(to, "]", 1);
        }
    }
}

static int forward(AttentionMap *a, int n) {
    const Decoder *d = &a->model->engine->decoder;
    if (memory_reserve(&a->memory, n, a->err, sizeof a->err)) return -1;
    for (int t = 0; t < n; t++) a->work.positions[t] = a->done + t;
    embed(&a->compute, &d->embedding, a->work.x, a->prompt->ids + a->done, a->work.positions, n);
    Segment segment = {.memory = &a->memory, .n = n};
    layers_forward(&d->stack, &a->work,
                   &(LayerPass){.segments = &segment, .n_segments = 1, .visit = keep_weights, .visit_context = a});
    memory_advance(&a->memory, n);
    a->done += n;
    return a->failed ? -1 : 0;
}

bool attention_map_step(AttentionMap *a) {
    int left = a->prompt->n - a->done;
    a->failed = (!a->done && begin(a)) || forward(a, left < ROWS ? left : ROWS);
    return !a->failed && a->done < a->prompt->n;
}

// ---- the reply

// What each token adds to the text, special tokens by name; of a character in several tokens the last has all.
static json_t *token_texts(const AttentionMap *a) {
    json_t *list = json_array();
    TextOut *out = textout_open(a->model->engine, false);
    if (out) textout_show_special(out, true);
    for (int i = 0; out && i < a->prompt->n; i++)
        json_array_append_new(list, json_string(textout_push(out, a->prompt->ids[i])));
    textout_close(out);
    return list;
}

static void append_json(char **to, json_t *v) {
    char *text = json_dumps(v, JSON_COMPACT);
    bytes_append_text(to, text ? text : "[]");
    free(text);
    json_decref(v);
}

char *attention_map_json(const AttentionMap *a, ApiError *error) {
    char *all = NULL, number[64];
    if (a->failed) {
        api_fail(error, 500, NULL, "%s", a->err);
        return NULL;
    }
    json_t *with = json_array();
    for (int i = 0, n = engine_info(a->model->engine).n_layers; i < n; i++)
        if (kind_of(a->model, i)->n_heads) json_array_append_new(with, json_integer(i + 1));
    bytes_append_text(&all, "{\"object\":\"attention\",\"tokens\":");
    append_json(&all, token_texts(a));
    bytes_append_text(&all, ",\"attention_layers\":");
    append_json(&all, with);
    for (ptrdiff_t i = 0; i < arrlen(a->layers); i++) {
        const MappedLayer *l = &a->layers[i];
        snprintf(number, sizeof number, "%s{\"layer\":%d,\"weights\":[", i ? "," : ",\"layers\":[", l->layer + 1);
        bytes_append_text(&all, number);
        for (int h = 0; h < l->n_heads; h++) {
            bytes_append_text(&all, h ? ",[" : "[");
            bytes_append(&all, l->rows[h], arrlenu(l->rows[h]));
            bytes_append_text(&all, "]");
        }
        bytes_append_text(&all, "]}");
    }
    bytes_append_text(&all, "]}");
    arrput(all, 0);
    char *json = strdup(all);
    arrfree(all);
    if (!json) api_fail(error, 500, NULL, "out of memory");
    return json;
}
