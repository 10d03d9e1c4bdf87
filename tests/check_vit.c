// check_vit: vision transformers against PyTorch's double-precision logits, and equalities that need no oracle.
//
// tests/fixtures/vit_random.txt holds the logits of models with random weights that this file makes again from their
// names (tests/fixtures/vit_random.py says how); tests/fixtures/vit_fashion.tsv those of the shipped model.
#include "classify.h"
#include "test.h"

#include <math.h>
#include <unistd.h>

#define CASES "tests/fixtures/vit_random.txt"

// ---- random models, written as a folder

static char folder[] = "/tmp/check_vit.XXXXXX";

static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static double unit(const char *name, int64_t i) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *c = name; *c; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
    return (double)(mix(hash + (uint64_t)(i + 1) * 0x9E3779B97F4A7C15u) >> 40) / 8388608.0 - 1;
}

typedef struct {
    FILE *header, *data;
    char *text, *bytes;
    size_t text_size, bytes_size;
    long at;
} Maker;

static void put_tensor(Maker *m, const char *name, int n_dims, const int *shape) {
    int64_t n = 1, fan_in = 1;
    char dims[64] = "";
    for (int i = 0; i < n_dims; i++) {
        n *= shape[i];
        fan_in *= i ? shape[i] : 1;
        snprintf(dims + strlen(dims), sizeof dims - strlen(dims), "%s%d", i ? "," : "", shape[i]);
    }
    bool token = strstr(name, "_token") || strstr(name, "position_embeddings");
    bool norm = n_dims == 1 && strstr(name, "layernorm") && strstr(name, ".weight");
    for (int64_t i = 0; i < n; i++) {
        double u = unit(name, i);
        double x = token ? 0.5 * u : norm ? 1 + 0.1 * u : n_dims == 1 ? 0.1 * u : u * sqrt(3.0 / (double)fan_in);
        float f = (float)x;
        fwrite(&f, sizeof f, 1, m->data);
    }
    fprintf(m->header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%ld,%ld]}", m->at ? "," : "{",
            name, dims, m->at, m->at + 4 * (long)n);
    m->at += 4 * (long)n;
}

static void put(Maker *m, const char *name, int a, int b) { // b 0: one dimension
    put_tensor(m, name, b ? 2 : 1, (int[]){a, b});
}

static void put_dense(Maker *m, const char *name, int rows, int cols, bool bias) {
    char full[128];
    snprintf(full, sizeof full, "%s.weight", name);
    put(m, full, rows, cols);
    snprintf(full, sizeof full, "%s.bias", name);
    if (bias) put(m, full, rows, 0);
}

typedef struct {
    char name[32], architecture[64], act[32];
    int image, patch, channels, dim, layers, heads, hidden, labels;
    bool qkv_bias, mean, cls;
    double eps;
} Case;

static void put_layer(Maker *m, const Case *c, const char *prefix, int layer) {
    static const char *const parts[] = {"attention.attention.query", "attention.attention.key",
                                        "attention.attention.value", "attention.output.dense"};
    char name[128];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%sencoder.layer.%d.%s", prefix, layer, parts[i]);
        put_dense(m, name, c->dim, c->dim, i == 3 || c->qkv_bias);
    }
    snprintf(name, sizeof name, "%sencoder.layer.%d.intermediate.dense", prefix, layer);
    put_dense(m, name, c->hidden, c->dim, true);
    snprintf(name, sizeof name, "%sencoder.layer.%d.output.dense", prefix, layer);
    put_dense(m, name, c->dim, c->hidden, true);
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%sencoder.layer.%d.layernorm_%s", prefix, layer, i ? "after" : "before");
        put_dense(m, name, c->dim, 0, true);
    }
}

static void put_model(Maker *m, const Case *c) {
    bool deit = !strncmp(c->architecture, "DeiT", 4), teacher = strstr(c->architecture, "Teacher") != NULL;
    const char *prefix = deit ? "deit." : "vit.";
    char name[128];
    int n_tokens = c->image / c->patch * (c->image / c->patch) + c->cls + deit;
    snprintf(name, sizeof name, "%sembeddings.cls_token", prefix);
    if (c->cls) put_tensor(m, name, 3, (int[]){1, 1, c->dim});
    snprintf(name, sizeof name, "%sembeddings.distillation_token", prefix);
    if (deit) put_tensor(m, name, 3, (int[]){1, 1, c->dim});
    snprintf(name, sizeof name, "%sembeddings.position_embeddings", prefix);
    put_tensor(m, name, 3, (int[]){1, n_tokens, c->dim});
    snprintf(name, sizeof name, "%sembeddings.patch_embeddings.projection.weight", prefix);
    put_tensor(m, name, 4, (int[]){c->dim, c->channels, c->patch, c->patch});
    snprintf(name, sizeof name, "%sembeddings.patch_embeddings.projection.bias", prefix);
    put(m, name, c->dim, 0);
    for (int i = 0; i < c->layers; i++) put_layer(m, c, prefix, i);
    snprintf(name, sizeof name, "%slayernorm", prefix);
    put_dense(m, name, c->dim, 0, true);
    put_dense(m, teacher ? "cls_classifier" : "classifier", c->labels, c->dim, true);
    if (teacher) put_dense(m, "distillation_classifier", c->labels, c->dim, true);
}

static void write_file(const char *name, const void *a, size_t n_a, const void *b, size_t n_b) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    bool written = f && fwrite(a, 1, n_a, f) == n_a && fwrite(b, 1, n_b, f) == n_b;
    if (!f || fclose(f) || !written) {
        perror(path);
        exit(1);
    }
}

static void write_model(const Case *c) {
    Maker m = {0};
    m.header = open_memstream(&m.text, &m.text_size);
    m.data = open_memstream(&m.bytes, &m.bytes_size);
    put_model(&m, c);
    fputc('}', m.header);
    fclose(m.header);
    fclose(m.data);
    uint64_t n = m.text_size;
    char *head = malloc(sizeof n + n);
    memcpy(head, &n, sizeof n);
    memcpy(head + sizeof n, m.text, n);
    write_file("model.safetensors", head, sizeof n + n, m.bytes, m.bytes_size);
    free(head);
    free(m.text);
    free(m.bytes);
    char config[1024];
    int length = snprintf(config, sizeof config,
                          "{\"architectures\":[\"%s\"],\"model_type\":\"%s\",\"image_size\":%d,\"patch_size\":%d,"
                          "\"num_channels\":%d,\"hidden_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":%d,"
                          "\"intermediate_size\":%d,\"hidden_act\":\"%s\",\"layer_norm_eps\":%g,\"qkv_bias\":%s,"
                          "\"use_mean_pooling\":%s,\"num_labels\":%d}",
                          c->architecture, strncmp(c->architecture, "DeiT", 4) ? "vit" : "deit", c->image, c->patch,
                          c->channels, c->dim, c->layers, c->heads, c->hidden, c->act, c->eps,
                          c->qkv_bias ? "true" : "false", c->mean ? "true" : "false", c->labels);
    write_file("config.json", config, (size_t)length, "", 0);
}

static bool truth(const char *text) {
    return !strncmp(text, "true", 4);
}

static bool read_case(Case *c, char *line) {
    char *saved, *token = strtok_r(line, " \n", &saved);
    if (!token) return false;
    *c = (Case){0};
    snprintf(c->name, sizeof c->name, "%s", token);
    const struct {
        const char *key;
        int *slot;
    } numbers[] = {{"image_size", &c->image},         {"patch_size", &c->patch},
                   {"num_channels", &c->channels},    {"hidden_size", &c->dim},
                   {"num_hidden_layers", &c->layers}, {"num_attention_heads", &c->heads},
                   {"intermediate_size", &c->hidden}, {"num_labels", &c->labels}};
    while ((token = strtok_r(NULL, " \n", &saved))) {
        char *value = strchr(token, '=');
        if (!value) return false;
        *value++ = 0;
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
            if (!strcmp(token, numbers[i].key)) *numbers[i].slot = atoi(value);
        }
        if (!strcmp(token, "architecture")) snprintf(c->architecture, sizeof c->architecture, "%s", value);
        if (!strcmp(token, "hidden_act")) snprintf(c->act, sizeof c->act, "%s", value);
        if (!strcmp(token, "layer_norm_eps")) c->eps = atof(value);
        if (!strcmp(token, "qkv_bias")) c->qkv_bias = truth(value);
        if (!strcmp(token, "use_mean_pooling")) c->mean = truth(value);
        if (!strcmp(token, "cls_token")) c->cls = truth(value);
    }
    return true;
}

static void check_case(const Case *c, char *expected) {
    char err[512] = "";
    Vit v;
    Classifier classifier;
    write_model(c);
    bool open = !vit_open(&v, folder, err, sizeof err);
    CHECK(open, "%s: %s", c->name, err);
    if (!open) return;
    CHECK(!classifier_open(&classifier, &v, 2, err, sizeof err), "%s: %s", c->name, err);
    int n_pixels = vit_pixels(&v);
    float *pixels = malloc(sizeof *pixels * (size_t)n_pixels * 3),
          *logits = malloc(sizeof *logits * 3 * (size_t)c->labels);
    for (int i = 0; i < 3 * n_pixels; i++) pixels[i] = (float)unit("pixels", i % n_pixels);
    CHECK(!classify(&classifier, pixels, 1, logits, err, sizeof err), "%s: %s", c->name, err);
    double error = 0, size = 0;
    for (int i = 0; i < c->labels; i++) {
        double want = strtod(expected, &expected);
        error += (logits[i] - want) * (logits[i] - want);
        size += want * want;
    }
    printf("  %s: NMSE %.1e\n", c->name, error / size);
    CHECK(error / size < 1e-9, "%s: NMSE %g", c->name, error / size);

    // the same in a batch, whatever the threads
    float *batch = malloc(sizeof *batch * 3 * (size_t)c->labels);
    CHECK(!classify(&classifier, pixels, 3, batch, err, sizeof err), "%s: %s", c->name, err);
    Classifier alone;
    CHECK(!classifier_open(&alone, &v, 1, err, sizeof err), "%s: %s", c->name, err);
    CHECK(!classify(&alone, pixels, 3, logits, err, sizeof err), "%s: %s", c->name, err);
    CHECK(!memcmp(batch, logits, sizeof *batch * 3 * (size_t)c->labels), "%s: threads change the logits", c->name);
    classifier_close(&alone);
    classifier_close(&classifier);
    vit_close(&v);
    free(batch);
    free(pixels);
    free(logits);
}

static void random_models(void) {
    FILE *f = fopen(CASES, "r");
    CHECK(f, "%s: missing", CASES);
    char *line = NULL;
    size_t room = 0;
    int n = 0;
    while (f && getline(&line, &room, f) > 0) {
        Case c;
        if (!read_case(&c, line) || getline(&line, &room, f) < 0) break;
        check_case(&c, line);
        n++;
    }
    CHECK(n >= 8, "%s: expected 8 cases, found %d", CASES, n);
    free(line);
    if (f) fclose(f);
}

int main(void) {
    if (!mkdtemp(folder)) return 1;
    RUN(random_models);
    char path[64];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, i ? "model.safetensors" : "config.json");
        unlink(path);
    }
    rmdir(folder);
    return test_report();
}
