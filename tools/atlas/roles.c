// roles: see roles.h.
#include "roles.h"

#include "cli.h"
#include "engine.h"
#include "layers.h"
#include "show.h"

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
    float *weights; // [n][n]
    double share[N_ROLES];
    double keys; // exp of the weights' entropy, averaged: how many keys a row spreads over
} Head;

typedef struct {
    Compute *compute;
    int n;       // tokens read
    Head *heads; // stb_ds
    char err[512];
    bool failed;
} Visit;

static void keep_heads(void *context, int layer, int segment, const Attention *a) {
    (void)segment;
    Visit *v = context;
    int n = v->n;
    float *all = malloc(sizeof *all * (size_t)a->n_q * (size_t)a->n_heads * (size_t)a->n_keys);
    v->failed |= !all || attention_weights(v->compute, a, all, v->err, sizeof v->err) != 0;
    for (int h = 0; h < a->n_heads && !v->failed; h++) {
        Head head = {.layer = layer, .head = h, .weights = malloc(sizeof *all * (size_t)(n * n))};
        if (!head.weights) die(1, "out of memory for the weights of the heads");
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

static void run_text(const Engine *e, Visit *v, const int32_t *tokens, char *err, size_t errlen) {
    const Decoder *d = &e->decoder;
    const Config *c = decoder_config(d);
    Workspace w = {.compute = v->compute};
    Memory memory;
    MemoryOptions options = {.kv = KV_DTYPE_F32, .n_ctx = c->max_seq_len, .rope_factors = d->rope_factors};
    if (memory_open(&memory, c, &options, NULL, err, errlen) || memory_reserve(&memory, v->n, err, errlen) ||
        workspace_reserve(&w, c, v->n, err, errlen)) {
        die(1, "%s", err);
    }
    for (int t = 0; t < v->n; t++) w.positions[t] = t;
    embed(v->compute, &d->embedding, w.x, tokens, w.positions, v->n);
    Segment segment = {.memory = &memory, .n = v->n};
    layers_forward(&d->stack, &w,
                   &(LayerPass){.segments = &segment, .n_segments = 1, .visit = keep_heads, .visit_context = v});
    if (v->failed) die(1, "%s", *v->err ? v->err : "out of memory for the weights of the heads");
    workspace_close(&w);
    memory_close(&memory);
}

static void print_table(const Visit *v, const Roles *r, int text) {
    printf("%s: \"%.60s\", %d tokens, read twice; shares of the second reading's weights, in %%\n\n", r->model, r->text,
           text);
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

static void print_json(const Visit *v) {
    json_t *list = json_array();
    for (int i = 0; i < arrlen(v->heads); i++) {
        const Head *h = &v->heads[i];
        json_t *o = json_pack("{s:i,s:i,s:f,s:s}", "layer", h->layer + 1, "head", h->head + 1, "keys", h->keys, "role",
                              role_of(h));
        for (int j = 0; j < N_ROLES; j++) json_object_set_new(o, role_names[j], json_real(h->share[j]));
        json_array_append_new(list, o);
    }
    show_json(list);
}

static void draw(const Visit *v, const Roles *r) {
    int n_heads = (int)arrlen(v->heads);
    char(*titles)[64] = calloc((size_t)n_heads, sizeof *titles);
    AlignmentMap *maps = calloc((size_t)n_heads, sizeof *maps);
    if (!titles || !maps) die(1, "out of memory for the picture");
    for (int i = 0; i < n_heads; i++) {
        const Head *h = &v->heads[i];
        snprintf(titles[i], sizeof titles[i], "%d.%d %s", h->layer + 1, h->head + 1, role_of(h));
        maps[i] = (AlignmentMap){titles[i], h->weights};
    }
    show_maps(r->svg, "What the heads look at: a text, read twice", r->text, v->n, maps, n_heads);
    free(titles);
    free(maps);
}

void roles_run(const Roles *r) {
    char err[512];
    Engine *e = engine_open(r->model, NULL, err, sizeof err);
    if (!e) die(1, "%s", err);
    tell_notes(engine_notes(e));
    int32_t *ids, *again;
    int first = engine_encode(e, r->text, strlen(r->text), true, false, &ids, err, sizeof err);
    int text = first < 0 ? -1 : engine_encode(e, r->text, strlen(r->text), false, false, &again, err, sizeof err);
    if (text < 0) die(1, "%s", err);
    Compute compute;
    Visit v = {.compute = &compute, .n = 1 + 2 * text};
    if (text < 2 || text > MAX_TEXT) die(1, "-p: expected a text of 2 to %d tokens, found %d", MAX_TEXT, text);
    if (first != text + 1) die(1, "%s: expected a model whose texts begin with a token of their own", r->model);
    if (v.n > decoder_config(&e->decoder)->max_seq_len)
        die(1, "-p: expected at most %d tokens for twice the text, found %d", decoder_config(&e->decoder)->max_seq_len,
            v.n);
    int32_t *tokens = malloc(sizeof *tokens * (size_t)v.n);
    if (!tokens) die(1, "out of memory for %d tokens", v.n);
    memcpy(tokens, ids, sizeof *ids * (size_t)first);
    memcpy(tokens + first, again, sizeof *ids * (size_t)text);
    if (compute_open(&compute, r->n_threads, err, sizeof err)) die(1, "%s", err);
    run_text(e, &v, tokens, err, sizeof err);
    if (!arrlen(v.heads)) die(1, "%s: expected softmax attention, found none", r->model);
    for (int i = 0; i < arrlen(v.heads); i++) measure(&v.heads[i], v.n, text);
    if (r->svg) draw(&v, r);
    if (r->json) print_json(&v);
    else print_table(&v, r, text);
    for (int i = 0; i < arrlen(v.heads); i++) free(v.heads[i].weights);
    arrfree(v.heads);
    free(tokens);
    free(ids);
    free(again);
    compute_close(&compute);
    engine_close(e);
}
