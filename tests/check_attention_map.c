// check_attention_map: the weights that build/serve shows, against a naive pass in double, and what it refuses.
#include "attention_map.h"
#include "files.h"
#include "forward.h"
#include "load.h"

static const char TEXT[] =
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the sun.";

static Served served;
static Model model; // the same file, for the reference

// The map of a body in which ' stands for ", or NULL with *error.
static json_t *map_of(const char *body, const SessionOptions *session, ApiError *error) {
    char *text = json_of(body);
    json_t *root = json_loads(text, 0, NULL), *map = NULL;
    Request r = {0};
    bool chat = json_object_get(root, "messages");
    int rc = (chat ? request_chat : request_completion)(&r, &served, text, strlen(text), error);
    CHECK(!rc, "%.60s: %s", body, error->message);
    AttentionMap *a = attention_map_open(&served, session, &r, json_object_get(root, "layers"), error);
    while (a && attention_map_step(a)) continue;
    char *json = a ? attention_map_json(a, error) : NULL;
    if (json) map = json_loads(json, 0, NULL);
    CHECK(!json || map, "%.60s: no JSON: %.200s", body, json);
    free(json);
    attention_map_close(a);
    request_free(&r);
    json_decref(root);
    free(text);
    return map;
}

static double weight_at(const json_t *layer, int head, int token, int key) {
    const json_t *row = json_array_get(json_array_get(json_object_get(layer, "weights"), head), token);
    CHECK(json_array_size(row) == (size_t)token + 1, "row %d: %zu weights", token, json_array_size(row));
    return json_number_value(json_array_get(row, key));
}

// The largest difference from the reference over all layers, heads and tokens. Below 2e-3 with products in fp32, a few
// thousandths where a level rounds them to bfloat16.
static double difference(const json_t *map, int window, int n_sinks, bool bf16) {
    static int windows[MAX_LAYERS];
    const Config *c = &model.config;
    int32_t *ids;
    char err[256];
    double most = 0, *logits = need(sizeof *logits * (size_t)c->vocab_size);
    int n = engine_encode(served.engine, TEXT, strlen(TEXT), true, false, &ids, err, sizeof err);
    int n_heads = c->kinds[0].n_heads;
    CHECK(n > 20 && (size_t)n == json_array_size(json_object_get(map, "tokens")), "%d tokens", n);
    for (int l = 0; l < c->n_layers; l++) windows[l] = window;
    Timeline t = timeline_open(&model, windows, n);
    t.n_sinks = n_sinks;
    t.bf16 = bf16;
    t.watched = need(sizeof *t.watched * (size_t)(c->n_layers * n_heads * n));
    for (int i = 0; i < n; i++) {
        timeline_step(&t, ids[i], logits);
        for (int row = 0; row < c->n_layers * n_heads; row++) {
            const json_t *layer = json_array_get(json_object_get(map, "layers"), (size_t)(row / n_heads));
            for (int j = 0; j <= i; j++)
                most = fmax(most, fabs(weight_at(layer, row % n_heads, i, j) - t.watched[row * n + j]));
        }
    }
    free(t.watched);
    timeline_close(&t);
    free(logits);
    free(ids);
    return most;
}

static void weights_are_those_of_the_model(void) {
    const SessionOptions cases[] = {{.kv = KV_F32}, {.kv = KV_F32, .n_threads = 1, .window = 9, .n_sinks = 2}, {0}};
    for (int i = 0; i < N_OF(cases); i++) {
        const SessionOptions *o = &cases[i];
        char body[256];
        ApiError error;
        snprintf(body, sizeof body, "{'prompt': '%s', 'layers': [1, 2, 3, 4, 5, 6]}", TEXT);
        json_t *map = map_of(body, o, &error);
        NEED(map, "%s", error.message);
        double most = difference(map, o->window, o->n_sinks, o->kv == KV_BF16);
        CHECK(most < 1e-2, "case %d: a weight differs by %g", i, most);
        json_decref(map);
    }
}

static void what_is_said_beside_them(void) {
    const SessionOptions o = {0};
    ApiError error;
    json_t *map = map_of("{'messages': [{'role': 'user', 'content': 'caf\xc3\xa9'}], 'stream': true}", &o, &error), *v;
    size_t i;
    char text[256] = "";
    NEED(map, "%s", error.message);
    json_array_foreach(json_object_get(map, "tokens"), i, v) strcat(text, json_string_value(v));
    CHECK(strstr(text, "User: caf\xc3\xa9\nAssistant:"), "the tokens: %s", text);
    CHECK(json_array_size(json_object_get(map, "attention_layers")) == 6, "layers with attention");
    const json_t *layers = json_object_get(map, "layers");
    CHECK(json_array_size(layers) == 1, "layers that nobody asked for");
    CHECK(json_integer_value(json_object_get(json_array_get(layers, 0), "layer")) == 1, "not the first layer");
    json_decref(map);
}

static void what_is_refused(void) {
    static const char *const cases[][3] = {
        {"layers", "from 1 to 6", "{'prompt': 'a', 'layers': [0]}"},
        {"layers", "from 1 to 6", "{'prompt': 'a', 'layers': [1, 7]}"},
        {"layers", "from 1 to 6", "{'prompt': 'a', 'layers': [4294967297]}"},
        {"layers", "from 1 to 6", "{'prompt': 'a', 'layers': ['1']}"},
        {"layers", "at least one", "{'prompt': 'a', 'layers': []}"},
        {"layers", "at least one", "{'prompt': 'a', 'layers': 1}"},
        {"prompt", "one text, found 2", "{'prompt': ['a', 'b']}"},
    };
    const SessionOptions o = {0};
    ApiError error;
    for (int i = 0; i < N_OF(cases); i++) {
        json_t *map = map_of(cases[i][2], &o, &error);
        NEED(!map, "%s: accepted", cases[i][2]);
        CHECK(error.status == 400 && !strcmp(error.param, cases[i][0]), "%s: %s", cases[i][2], error.param);
        CHECK(strstr(error.message, cases[i][1]), "%s: %s", cases[i][2], error.message);
    }
}

// A body of n times the token 300, and of as many layers as there may be numbers.
static char *long_body(int n, int n_layers) {
    char *body = NULL;
    size_t size;
    FILE *f = open_memstream(&body, &size);
    fputs("{'layers': [", f);
    for (int i = 0; i < n_layers; i++) fprintf(f, "%s%d", i ? "," : "", i % 6 + 1);
    fputs("], 'prompt': [", f);
    for (int i = 0; i < n; i++) fprintf(f, "%s300", i ? "," : "");
    fputs("]}", f);
    fclose(f);
    return body;
}

static void its_bounds(void) {
    const int n_heads = model.config.kinds[0].n_heads, pairs = MOST_MAPPED_TOKENS * (MOST_MAPPED_TOKENS + 1) / 2;
    const int most_layers = MOST_MAPPED_WEIGHTS / pairs / n_heads;
    const SessionOptions o = {.window = 16};
    const struct {
        int n, n_layers;
        const char *param; // NULL: it is computed
    } cases[] = {{MOST_MAPPED_TOKENS, 1, NULL},
                 {MOST_MAPPED_TOKENS + 1, 1, "prompt"},
                 {MOST_MAPPED_TOKENS, most_layers + 1, "layers"}};
    for (int i = 0; i < N_OF(cases); i++) {
        ApiError error = {0};
        char *body = long_body(cases[i].n, cases[i].n_layers);
        json_t *map = map_of(body, &o, &error);
        CHECK(!map == !!cases[i].param, "%d tokens, %d layers: %s", cases[i].n, cases[i].n_layers, error.message);
        CHECK(map || !strcmp(error.param, cases[i].param), "%d tokens: %s", cases[i].n, error.param);
        json_decref(map);
        free(body);
    }
}

int main(void) {
    char err[256] = "";
    Engine *e = engine_open("models/stories.bin", NULL, err, sizeof err);
    Chat *chat = e ? engine_chat(e, err, sizeof err) : NULL;
    if (!chat || load_model(&model, "models/stories.bin", err, sizeof err)) {
        fprintf(stderr, "models/stories.bin: %s\n", err);
        return 1;
    }
    served = (Served){.engine = e, .chat = chat, .model_name = "m", .n_ctx = 512, .most_choices = 16};
    served.sampling = engine_sampling(e);
    RUN(weights_are_those_of_the_model);
    RUN(what_is_said_beside_them);
    RUN(what_is_refused);
    RUN(its_bounds);
    weights_free(&model.weights);
    chat_close(chat);
    engine_close(e);
    return test_report();
}
