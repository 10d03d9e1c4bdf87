// roles: what the heads of a real model do, by the weights that they give: build/atlas --heads MODEL -p TEXT.
//
// Owns the pass over the text, the measures and their table. The text is read twice over, [BOS] T T, and the second
// reading is measured: there the same token and the one that followed it before are known places. Refuses models
// without softmax attention, and texts too long for the picture.
#include "atlas.h"

#include "cli.h"
#include "engine.h"
#include "layers.h"

#include <math.h>
#include <stb/stb_ds.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOCAL = 8, MAX_TEXT = 127, N_ROLES = 6 }; // keys that count as near; tokens of the text

// Shares of a row's weight, by place.
static const char *const role_names[N_ROLES] = {"first", "itself", "previous", "near", "same", "induction"};
static const char *const role_places[N_ROLES] = {
    "the first token",       "the query's own",        "the token before",
    "the 2nd to 8th before", "the same token, before", "the token that followed the same one, before"};

typedef struct {
    int layer, head;
    char title[64]; // of its picture
    float *weights; // [n][n]
    double share[N_ROLES];
    double keys; // exp of the weights' entropy, averaged: how many keys a row spreads over
} Head;

typedef struct {
    Compute *compute;
    int n;       // tokens read
    Head *heads; // stb_ds
} Visit;

static void keep_heads(void *context, int layer, int segment, const Attention *a) {
    (void)segment;
    Visit *v = context;
    int n = v->n;
    char err[512];
    float *all = floats_need((int64_t)a->n_q * a->n_heads * a->n_keys);
    if (attention_weights(v->compute, a, all, err, sizeof err)) die(1, "%s", err);
    for (int h = 0; h < a->n_heads; h++) {
        Head head = {.layer = layer, .head = h, .weights = floats_need((int64_t)n * n)};
        for (int t = 0; t < n; t++) {
            memcpy(head.weights + t * n, all + ((int64_t)t * a->n_heads + h) * n, sizeof *all * (size_t)n);
        }
        arrput(v->heads, head);
    }
    free(all);
}

// The second reading of `text` tokens: rows 1 + text .. n - 1.
static void measure(Head *h, int n, int text) {
    for (int t = 1 + text; t < n; t++) {
        const float *w = h->weights + t * n;
        double entropy = 0;
        for (int j = 0; j <= t; j++) {
            double p = (double)w[j];
            int back = t - j, role = -1;
            if (p > 0) entropy -= p * log(p);
            if (j == 0) role = 0;
            else if (back == text) role = 4;
            else if (back == text - 1) role = 5;
            else if (back < LOCAL) role = back < 2 ? back + 1 : 3;
            if (role >= 0) h->share[role] += p / text;
        }
        h->keys += exp(entropy) / text;
    }
}

// The largest share, where it stands out.
static const char *role_of(const Head *h) {
    int best = 0;
    for (int i = 1; i < N_ROLES; i++) {
        if (h->share[i] > h->share[best]) best = i;
    }
    return h->share[best] >= 0.3 ? role_names[best] : "broad";
}

static void run_text(const Engine *e, Visit *v, const int32_t *tokens) {
    const Decoder *d = &e->decoder;
    const Config *c = decoder_config(d);
    char err[512];
    Workspace w = {.compute = v->compute};
    Memory memory;
    MemoryOptions options = {.kv = KV_DTYPE_F32, .n_ctx = c->max_seq_len, .rope_factors = d->rope_factors};
    if (memory_open(&memory, c, &options, NULL, err, sizeof err) || memory_reserve(&memory, v->n, err, sizeof err) ||
        workspace_reserve(&w, c, v->n, err, sizeof err)) {
        die(1, "%s", err);
    }
    for (int t = 0; t < v->n; t++) w.positions[t] = t;
    embed(v->compute, &d->embedding, w.x, tokens, w.positions, v->n);
    Segment segment = {.memory = &memory, .n = v->n};
    layers_forward(&d->stack, &w,
                   &(LayerPass){.segments = &segment, .n_segments = 1, .visit = keep_heads, .visit_context = v});
    workspace_close(&w);
    memory_close(&memory);
}

static void print_table(const Visit *v, const Asked *a, int text) {
    printf("%s: \"%.60s\", %d tokens, read twice; shares of the second reading's weights, in %%\n\n", a->heads,
           a->prompt, text);
    printf("| layer | head |");
    for (int i = 0; i < N_ROLES; i++) printf(" %s |", role_names[i]);
    printf(" keys | role |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n");
    for (int i = 0; i < arrlen(v->heads); i++) {
        const Head *h = &v->heads[i];
        printf("| %d | %d |", h->layer + 1, h->head + 1);
        for (int j = 0; j < N_ROLES; j++) printf(" %.0f |", 100 * h->share[j]);
        printf(" %.1f | %s |\n", h->keys, role_of(h));
    }
    putchar('\n');
    for (int i = 0; i < N_ROLES; i++) printf("%-10s %s\n", role_names[i], role_places[i]);
    printf("%-10s how many keys the weights spread over (exp of their entropy)\n", "keys");
}

static json_t *heads_json(const Visit *v) {
    json_t *list = json_array();
    for (int i = 0; i < arrlen(v->heads); i++) {
        const Head *h = &v->heads[i];
        json_t *o = json_pack("{s:i,s:i,s:f,s:s}", "layer", h->layer + 1, "head", h->head + 1, "keys", h->keys, "role",
                              role_of(h));
        for (int j = 0; j < N_ROLES; j++) json_object_set_new(o, role_names[j], json_real(h->share[j]));
        json_array_append_new(list, o);
    }
    return list;
}

static void draw(const Visit *v, const Asked *a) {
    AlignmentMap *maps = NULL;
    for (int i = 0; i < arrlen(v->heads); i++) {
        Head *h = &v->heads[i];
        snprintf(h->title, sizeof h->title, "%d.%d %s", h->layer + 1, h->head + 1, role_of(h));
        arrput(maps, ((AlignmentMap){h->title, h->weights}));
    }
    show_maps(a->svg, "What the heads look at: a text, read twice", a->prompt, v->n, maps, (int)arrlen(maps));
    arrfree(maps);
}

// [BOS] T T, to be freed; returns the number of tokens of T.
static int encode_twice(const Engine *e, const Asked *a, int32_t **tokens) {
    char err[512];
    int32_t *again;
    int most = decoder_config(&e->decoder)->max_seq_len;
    int first = engine_encode(e, a->prompt, strlen(a->prompt), true, false, tokens, err, sizeof err);
    int text = first < 0 ? -1 : engine_encode(e, a->prompt, strlen(a->prompt), false, false, &again, err, sizeof err);
    if (text < 0) die(1, "%s", err);
    if (text < 2 || text > MAX_TEXT) die(1, "-p: expected a text of 2 to %d tokens, found %d", MAX_TEXT, text);
    if (first != text + 1) die(1, "%s: expected a model whose texts begin with a token of their own", a->heads);
    if (first + text > most) die(1, "-p: expected at most %d tokens for twice the text, found %d", most, first + text);
    *tokens = realloc(*tokens, sizeof **tokens * (size_t)(first + text));
    if (!*tokens) die(1, "out of memory for %d tokens", first + text);
    memcpy(*tokens + first, again, sizeof *again * (size_t)text);
    free(again);
    return text;
}

void roles_run(const Asked *a) {
    char err[512];
    int32_t *tokens;
    Engine *e = engine_open(a->heads, NULL, err, sizeof err);
    if (!e) die(1, "%s", err);
    tell_notes(engine_notes(e));
    int text = encode_twice(e, a, &tokens);
    Visit v = {.compute = a->compute, .n = 1 + 2 * text};
    run_text(e, &v, tokens);
    if (!arrlen(v.heads)) die(1, "%s: expected softmax attention, found none", a->heads);
    for (int i = 0; i < arrlen(v.heads); i++) measure(&v.heads[i], v.n, text);
    if (a->svg) draw(&v, a);
    if (!a->json) print_table(&v, a, text);
    show_json(a, heads_json(&v));
    for (int i = 0; i < arrlen(v.heads); i++) free(v.heads[i].weights);
    arrfree(v.heads);
    free(tokens);
    engine_close(e);
}
