// check_vit: vision transformers against PyTorch's double-precision logits, and equalities that need no oracle.
//
// tests/fixtures/vit_random.txt holds the logits of models with random weights that this file makes again from their
// names (tests/fixtures/vit_random.py says how); vit_fashion.tsv and vit_small.tsv, for the two shipped models, the
// classes of 10,000 test pictures and the logits of the first hundred (tools/train/vit_reference.py).
#include "bad/commands.h"
#include "bad/model_folder.h"

#include "classify.h"
#include "idx.h"
#include "picture_file.h"
#include "rollout.h"

#define CASES "tests/fixtures/vit_random.txt"
#define SHIPPED "models/vit"
#define SMALL "models/convnet/vit"
#define PICTURES "/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz"

// ---- random models, written as a folder

typedef struct {
    char name[WORD_ROOM], architecture[WORD_ROOM], act[WORD_ROOM];
    int image, patch, channels, dim, layers, heads, hidden, labels;
    bool qkv_bias, mean, cls;
    double eps;
} Case;

static void put_layer(FolderMaker *m, const Case *c, const char *layer) {
    static const char *const parts[] = {"query", "key", "value"};
    for (int i = 0; i < 3; i++) {
        put_dense(m, c->dim, c->dim, c->qkv_bias, "%s.attention.attention.%s", layer, parts[i]);
    }
    put_dense(m, c->dim, c->dim, true, "%s.attention.output.dense", layer);
    put_dense(m, c->hidden, c->dim, true, "%s.intermediate.dense", layer);
    put_dense(m, c->dim, c->hidden, true, "%s.output.dense", layer);
    put_dense(m, c->dim, 0, true, "%s.layernorm_before", layer);
    put_dense(m, c->dim, 0, true, "%s.layernorm_after", layer);
}

static void put_model(FolderMaker *m, const Case *c) {
    bool deit = !strncmp(c->architecture, "DeiT", 4), teacher = strstr(c->architecture, "Teacher") != NULL;
    const char *prefix = deit ? "deit" : "vit";
    char name[128];
    int n_tokens = c->image / c->patch * (c->image / c->patch) + c->cls + deit;
    snprintf(name, sizeof name, "%s.embeddings.cls_token", prefix);
    if (c->cls) put_tensor(m, name, 3, (int[]){1, 1, c->dim});
    snprintf(name, sizeof name, "%s.embeddings.distillation_token", prefix);
    if (deit) put_tensor(m, name, 3, (int[]){1, 1, c->dim});
    snprintf(name, sizeof name, "%s.embeddings.position_embeddings", prefix);
    put_tensor(m, name, 3, (int[]){1, n_tokens, c->dim});
    snprintf(name, sizeof name, "%s.embeddings.patch_embeddings.projection.weight", prefix);
    put_tensor(m, name, 4, (int[]){c->dim, c->channels, c->patch, c->patch});
    snprintf(name, sizeof name, "%s.embeddings.patch_embeddings.projection.bias", prefix);
    put(m, name, c->dim, 0);
    for (int i = 0; i < c->layers; i++) {
        snprintf(name, sizeof name, "%s.encoder.layer.%d", prefix, i);
        put_layer(m, c, name);
    }
    put_dense(m, c->dim, 0, true, "%s.layernorm", prefix);
    put_dense(m, c->labels, c->dim, true, teacher ? "cls_classifier" : "classifier");
    if (teacher) put_dense(m, c->labels, c->dim, true, "distillation_classifier");
}

static void write_faulty(const Case *c, Fault fault) {
    FolderMaker m = {.fault = fault};
    maker_open(&m);
    put_model(&m, c);
    maker_close(&m);
    char config[1024];
    snprintf(config, sizeof config,
             "{\"architectures\":[\"%s\"],\"model_type\":\"%s\",\"image_size\":%d,\"patch_size\":%d,"
             "\"num_channels\":%d,\"hidden_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":%d,"
             "\"intermediate_size\":%d,\"hidden_act\":\"%s\",\"layer_norm_eps\":%g,\"qkv_bias\":%s,"
             "\"use_mean_pooling\":%s,\"num_labels\":%d}",
             c->architecture, strncmp(c->architecture, "DeiT", 4) ? "vit" : "deit", c->image, c->patch, c->channels,
             c->dim, c->layers, c->heads, c->hidden, c->act, c->eps, c->qkv_bias ? "true" : "false",
             c->mean ? "true" : "false", c->labels);
    write_text("config.json", config);
    write_text("preprocessor_config.json", "{}");
}

static void write_model(const Case *c) {
    write_faulty(c, (Fault){0});
}

static bool read_case(Case *c, char *line) {
    *c = (Case){0};
    const Slot slots[] = {{"image_size", .number = &c->image},         {"patch_size", .number = &c->patch},
                          {"num_channels", .number = &c->channels},    {"hidden_size", .number = &c->dim},
                          {"num_hidden_layers", .number = &c->layers}, {"num_attention_heads", .number = &c->heads},
                          {"intermediate_size", .number = &c->hidden}, {"num_labels", .number = &c->labels},
                          {"layer_norm_eps", .real = &c->eps},         {"qkv_bias", .truth = &c->qkv_bias},
                          {"use_mean_pooling", .truth = &c->mean},     {"cls_token", .truth = &c->cls},
                          {"architecture", .word = c->architecture},   {"hidden_act", .word = c->act}};
    return read_shape(line, c->name, slots, N_OF(slots));
}

// Every model of the fixture and its line of logits.
static void each_case(void (*check)(const Case *c, char *expected)) {
    FILE *f = fopen(CASES, "r");
    CHECK(f, "%s: missing", CASES);
    char *line = NULL;
    size_t room = 0;
    Case c;
    while (f && getline(&line, &room, f) > 0 && read_case(&c, line) && getline(&line, &room, f) > 0) check(&c, line);
    free(line);
    if (f) fclose(f);
}

static int n_cases; // checked

static bool open_model(Vit *v, const Case *c) {
    char err[512] = "";
    write_model(c);
    bool open = !vit_open(v, folder, err, sizeof err);
    CHECK(open, "%s: %s", c->name, err);
    return open;
}

// Three pictures together: the same bits whatever the threads.
static void check_batch(const Case *c, const Vit *v, Classifier *two, const float *pixels) {
    char err[512] = "";
    Classifier one;
    float *want = need_floats(3 * c->labels), *found = need_floats(3 * c->labels);
    CHECK(!classify(two, pixels, 3, found, err, sizeof err), "%s: %s", c->name, err);
    CHECK(!classifier_open(&one, v, 1, err, sizeof err), "%s: %s", c->name, err);
    CHECK(!classify(&one, pixels, 3, want, err, sizeof err), "%s: %s", c->name, err);
    CHECK(!memcmp(found, want, sizeof *want * 3 * (size_t)c->labels), "%s: threads change the logits", c->name);
    classifier_close(&one);
    free(want);
    free(found);
}

static void check_case(const Case *c, char *expected) {
    char err[512] = "";
    Vit v;
    Classifier two;
    n_cases++;
    if (!open_model(&v, c)) return;
    CHECK(!classifier_open(&two, &v, 2, err, sizeof err), "%s: %s", c->name, err);
    int n_pixels = vit_pixels(&v);
    float *pixels = need_floats(3 * n_pixels), *logits = need_floats(c->labels);
    for (int i = 0; i < 3 * n_pixels; i++) pixels[i] = (float)unit("pixels", i % n_pixels);
    CHECK(!classify(&two, pixels, 1, logits, err, sizeof err), "%s: %s", c->name, err);
    double error = 0, size = 0;
    for (int i = 0; i < c->labels; i++) {
        double want = strtod(expected, &expected);
        error += (logits[i] - want) * (logits[i] - want);
        size += want * want;
    }
    printf("  %s: NMSE %.1e\n", c->name, error / size);
    CHECK(error / size < 1e-9, "%s: NMSE %g", c->name, error / size);
    bool is_slow = c->dim > 128 && by_speed(0, 0, 1);
    if (!is_slow) check_batch(c, &v, &two, pixels);
    classifier_close(&two);
    vit_close(&v);
    free(pixels);
    free(logits);
}

static void random_models(void) {
    n_cases = 0;
    each_case(check_case);
    CHECK(n_cases >= 8, "%s: expected 8 cases, found %d", CASES, n_cases);
}

// A whole model for what follows: 16 patches, grey.
// clang-format off
static const Case tiny = {.name = "tiny", .architecture = "ViTForImageClassification", .act = "gelu", .image = 28,
    .patch = 7, .channels = 1, .dim = 24, .layers = 2, .heads = 3, .hidden = 40, .labels = 10, .qkv_bias = true,
    .cls = true, .eps = 1e-6};
// clang-format on

// ---- hostile models

static bool refuses_model(char *err, size_t errlen) {
    Vit v;
    bool refused = vit_open(&v, folder, err, errlen) == -1;
    if (!refused) vit_close(&v);
    return refused;
}

static void write_tiny(Fault fault) {
    write_faulty(&tiny, fault);
}

static void hostile_config(void) {
    refuse_configs("vit_config");
}

static void hostile_tensors(void) {
    // clang-format off
    static const char *const names[] = {"vit.embeddings.cls_token", "vit.embeddings.position_embeddings",
        "vit.embeddings.patch_embeddings.projection.weight", "vit.embeddings.patch_embeddings.projection.bias",
        "vit.encoder.layer.0.attention.attention.query.weight",
        "vit.encoder.layer.1.attention.attention.value.bias", "vit.encoder.layer.1.attention.output.dense.weight",
        "vit.encoder.layer.0.intermediate.dense.weight", "vit.encoder.layer.1.output.dense.bias",
        "vit.encoder.layer.0.layernorm_before.weight", "vit.encoder.layer.1.layernorm_after.bias",
        "vit.layernorm.weight", "classifier.weight", "classifier.bias"};
    // clang-format on
    refuse_tensors(names, N_OF(names), NULL);
}

static void truncated_weights(void) {
    refuse_cut_weights();
}

// ---- the shipped models

static void shipped_model(const char *shipped, const char *fixture) {
    char err[512] = "", *line = NULL;
    size_t room = 0;
    Vit v;
    IdxImages set;
    Preprocess steps;
    Classifier c;
    NEED(!vit_open(&v, shipped, err, sizeof err) && !idx_read_images(&set, PICTURES, err, sizeof err) &&
             !preprocess_load(&steps, shipped, v.image_size, v.n_channels, err, sizeof err) &&
             !classifier_open(&c, &v, 2, err, sizeof err),
         "%s", err);
    FILE *f = fopen(fixture, "r");
    CHECK(f && getline(&line, &room, f) == set.n + 1, "%s: expected a line of %d classes", fixture, set.n);
    char *classes = strdup(line ? line : "");
    int n = by_speed(set.n, 200, 20), batch = n < 100 ? n : 100, n_ties = 0, each = vit_pixels(&v);
    double most = 0;
    float *pixels = need_floats((int64_t)each * batch), *logits = need_floats((int64_t)v.n_labels * batch);
    double *want = need(sizeof *want * (size_t)v.n_labels);
    for (int first = 0; first < n; first += batch) {
        for (int i = 0; i < batch; i++) {
            int64_t size = (int64_t)set.width * set.height;
            Picture p = {set.width, set.height, 1, set.pixels + (first + i) * size};
            CHECK(!preprocess_apply(&steps, &p, pixels + (int64_t)i * each, err, sizeof err), "%s", err);
        }
        CHECK(!classify(&c, pixels, batch, logits, err, sizeof err), "%s", err);
        for (int i = 0; i < batch; i++) {
            const float *row = logits + (int64_t)i * v.n_labels;
            int best = best_label(row, v.n_labels), expected = classes[first + i] - '0';
            bool tie = expected >= 0 && expected < v.n_labels && row[best] - row[expected] < 1e-4f;
            n_ties += best != expected && tie;
            CHECK(best == expected || tie, "picture %d: expected class %d, found %d", first + i, expected, best);
            if (first) continue;
            char *at = getline(&line, &room, f) > 0 ? line : NULL;
            for (int k = 0; at && k < v.n_labels; k++) want[k] = strtod(at, &at);
            double error = at ? nmse(row, want, v.n_labels) : INFINITY;
            most = fmax(most, error);
            CHECK(error <= 1e-6, "picture %d: logits: NMSE %g", i, error);
        }
    }
    printf("  %s: %d pictures in their classes (%d at a tie), logits of %d: NMSE up to %.1e\n", shipped, n, n_ties,
           batch, most);
    if (f) fclose(f);
    free(line);
    free(classes);
    free(pixels);
    free(logits);
    free(want);
    classifier_close(&c);
    idx_free_images(&set);
    vit_close(&v);
}

static void shipped_models(void) {
    SKIP_WITHOUT(PICTURES);
    shipped_model(SHIPPED, "tests/fixtures/vit_fashion.tsv");
    shipped_model(SMALL, "tests/fixtures/vit_small.tsv");
}

// ---- rollout

typedef struct {
    const Vit *v;
    VitState *s;
    double *product, *mean; // [n_tokens][n_tokens]
    int n_visits;
} Naive;

// product = (mean over heads + I) / 2 x product
static void naive_visit(void *context, int layer, int picture, const Attention *a) {
    Naive *x = context;
    int n = x->v->n_tokens, n_heads = a->n_heads;
    char err[512] = "";
    float *weights = need_floats((int64_t)n * n_heads * n);
    double *before = need(sizeof *before * (size_t)(n * n));
    CHECK(layer == x->n_visits++ && picture == 0, "visit %d: layer %d, picture %d", x->n_visits, layer, picture);
    CHECK(!attention_weights(&x->s->compute, a, weights, err, sizeof err), "%s", err);
    memcpy(before, x->product, sizeof *before * (size_t)(n * n));
    for (int t = 0; t < n; t++) {
        for (int j = 0; j < n; j++) {
            x->mean[t * n + j] = 0;
            for (int h = 0; h < n_heads; h++) {
                x->mean[t * n + j] += (double)weights[((int64_t)t * n_heads + h) * n + j] / n_heads;
            }
        }
    }
    for (int t = 0; t < n; t++) {
        for (int j = 0; j < n; j++) {
            double sum = 0;
            for (int k = 0; k < n; k++) sum += (x->mean[t * n + k] + (t == k)) / 2 * before[k * n + j];
            x->product[t * n + j] = sum;
        }
    }
    free(weights);
    free(before);
}

static void check_map(const Vit *v, const double *matrix, const float *map, const char *what) {
    int n = v->n_tokens, n_rows = v->mean_pooling ? v->n_patches : 1, first = v->mean_pooling ? v->n_special : 0;
    double *want = need(sizeof *want * (size_t)v->n_patches), most = 0;
    for (int p = 0; p < v->n_patches; p++) {
        want[p] = 0;
        for (int row = first; row < first + n_rows; row++) want[p] += matrix[row * n + v->n_special + p];
        most = fmax(most, want[p]);
    }
    float largest = 0;
    for (int p = 0; p < v->n_patches; p++) {
        CHECK(fabs((double)map[p] - want[p] / most) < 1e-4, "%s: patch %d: expected %g, found %g", what, p,
              want[p] / most, (double)map[p]);
        CHECK(map[p] >= 0 && map[p] <= 1, "%s: patch %d: %g", what, p, (double)map[p]);
        largest = fmaxf(largest, map[p]);
    }
    CHECK(largest == 1, "%s: the largest is %g", what, (double)largest);
    free(want);
}

static void check_rollout(const Case *c) {
    char err[512] = "", what[128];
    Vit v;
    if (!open_model(&v, c)) return;
    VitState s;
    Rollout r;
    CHECK(!vit_state_open(&s, &v, 2, err, sizeof err) && !rollout_open(&r, &v, &s, err, sizeof err), "%s", err);
    int n = v.n_tokens;
    float *pixels = need_floats(vit_pixels(&v)), *logits = need_floats(2 * v.n_labels), *maps = need_floats(2 * n);
    Naive x = {&v, &s, need(sizeof(double) * (size_t)(n * n)), need(sizeof(double) * (size_t)(n * n)), 0};
    for (int i = 0; i < n * n; i++) x.product[i] = i % (n + 1) == 0;
    for (int again = 0; again < 2; again++) { // what an earlier picture left must not matter
        for (int i = 0; i < vit_pixels(&v); i++) pixels[i] = (float)unit(again ? "pixels" : "others", i);
        CHECK(!vit_forward(&v, &s, &(VitBatch){pixels, 1, logits + again * v.n_labels, rollout_visit, &r}, err,
                           sizeof err),
              "%s", err);
    }
    rollout_maps(&r, maps, maps + n);
    CHECK(!vit_forward(&v, &s, &(VitBatch){pixels, 1, logits, naive_visit, &x}, err, sizeof err), "%s", err);
    CHECK(!memcmp(logits, logits + v.n_labels, sizeof *logits * (size_t)v.n_labels), "%s: watching changes the logits",
          c->name);
    CHECK(x.n_visits == c->layers && !r.failed, "%s: %d layers seen", c->name, x.n_visits);
    snprintf(what, sizeof what, "%s, rollout", c->name);
    check_map(&v, x.product, maps, what);
    snprintf(what, sizeof what, "%s, last layer", c->name);
    check_map(&v, x.mean, maps + n, what);
    free(x.product);
    free(x.mean);
    free(pixels);
    free(logits);
    free(maps);
    rollout_close(&r);
    vit_state_close(&s);
    vit_close(&v);
}

// A class token, two special tokens, the patches' mean with and without a class token.
static const char *const rolled_out[] = {"fashion", "deit", "meanpool", "meancls", "patch32"};

static void check_rollout_of_some(const Case *c, char *expected) {
    (void)expected;
    for (int i = 0; i < N_OF(rolled_out); i++) {
        if (strcmp(c->name, rolled_out[i]) != 0) continue;
        check_rollout(c);
        n_cases++;
    }
}

static void rollouts(void) {
    n_cases = 0;
    each_case(check_rollout_of_some);
    CHECK(n_cases == N_OF(rolled_out), "%d models", n_cases);
}

// ---- build/vit as people meet it

enum { N_PICTURES = 10, SIDE = 28 };

static void draw_picture(int i, uint8_t *pixels) {
    for (int p = 0; p < SIDE * SIDE; p++) pixels[p] = (uint8_t)((p % SIDE * (i + 3) + p / SIDE * (7 - i)) * 5 + i * 20);
}

// p0.pgm, p1.pgm, ...; p9.ppm is in colour and of another size.
static void write_pictures(void) {
    enum { HEADER = 13, COLOURS = 40 * 30 * 3 };
    uint8_t grey[HEADER + SIDE * SIDE] = "P5\n28 28\n255\n", colours[HEADER + COLOURS] = "P6\n40 30\n255\n";
    char name[32];
    for (int i = 0; i < N_PICTURES - 1; i++) {
        draw_picture(i, grey + HEADER);
        snprintf(name, sizeof name, "p%d.pgm", i);
        write_file(name, grey, sizeof grey);
    }
    for (int p = 0; p < COLOURS; p++) colours[HEADER + p] = (uint8_t)(p * 7 % 251);
    write_file("p9.ppm", colours, sizeof colours);
}

// What the library makes of a picture file: probabilities[n_labels].
static void look(const Vit *v, const char *path, float *p) {
    char err[512] = "";
    Picture picture;
    Preprocess steps;
    Classifier c;
    float *pixels = need_floats(vit_pixels(v));
    CHECK(!picture_read(&picture, path, v->n_channels, err, sizeof err) &&
              !preprocess_load(&steps, folder, v->image_size, v->n_channels, err, sizeof err) &&
              !preprocess_apply(&steps, &picture, pixels, err, sizeof err) &&
              !classifier_open(&c, v, 1, err, sizeof err) && !classify(&c, pixels, 1, p, err, sizeof err),
          "%s", err);
    probabilities(p, v->n_labels);
    classifier_close(&c);
    picture_free(&picture);
    free(pixels);
}

// One line of -o json against the library: so many classes, the likeliest first.
static void check_json(const Vit *v, const char *line, const char *path, int n_best) {
    json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    const json_t *classes = json_object_get(object, "classes");
    const char *image = json_string_value(json_object_get(object, "image"));
    CHECK(image && !strcmp(image, path), "image: expected %s in %s", path, line);
    CHECK((int)json_array_size(classes) == n_best, "expected %d classes in %s", n_best, line);
    float *p = need_floats(v->n_labels);
    look(v, path, p);
    for (int i = 0; i < n_best; i++) {
        const json_t *entry = json_array_get(classes, (size_t)i);
        const char *label = json_string_value(json_object_get(entry, "label"));
        int id = (int)json_integer_value(json_object_get(entry, "id")), best = best_label(p, v->n_labels);
        double probability = json_number_value(json_object_get(entry, "probability"));
        CHECK(id == best && fabs(probability - (double)p[best]) < 1e-5, "place %d: expected class %d, %g: %s", i, best,
              (double)p[best], line);
        CHECK(label && !strcmp(label, v->labels[best]), "label: %s", line);
        p[best] = -1;
    }
    free(p);
    json_decref(object);
}

static void program_pictures(void) {
    Vit v;
    if (!open_model(&v, &tiny)) return;
    write_pictures();
    const char *one = in_folder("p0.pgm"), *two = in_folder("p9.ppm"), *three = in_folder("p4.pgm");
    Result r = CALL("vit", folder, one, two, three, "-o", "json", "-k", "10", "-t", "1", "-q");
    CHECK(r.status == 0 && !*r.err, "status %d: %s", r.status, r.err);
    Result again = CALL("vit", folder, "-t", "3", "-q", one, "-k", "4000", two, "-o", "json", three);
    CHECK(again.status == 0 && !strcmp(again.out, r.out), "3 threads: expected %s, found %s%s", r.out, again.out,
          again.err);
    release(&again);
    unlink(in_folder("preprocessor_config.json"));
    Result assumed = CALL("vit", in_folder("model.safetensors"), one, "-q");
    CHECK(assumed.status == 0 && strstr(assumed.err, "note: no "), "without settings: %s", assumed.err);
    release(&assumed);
    write_text("preprocessor_config.json", "{}");
    const char *paths[] = {one, two, three};
    char *saved, *line = strtok_r(r.out, "\n", &saved);
    for (int i = 0; i < 3; i++, line = strtok_r(NULL, "\n", &saved)) {
        CHECK(line, "three lines expected, found %d", i);
        if (!line) break;
        check_json(&v, line, paths[i], 10);
    }
    CHECK(!line, "more than three lines: %s", line);
    release(&r);
    r = CALL("vit", folder, two, "-o", "json", "-q");
    check_json(&v, r.out, two, 3);
    release(&r);
    r = CALL("vit", folder, one, two, "-k", "2");
    float p[10];
    char want[64];
    look(&v, one, p);
    int best = best_label(p, 10), n_lines = 0;
    snprintf(want, sizeof want, "\n  %d %5.1f %%", best, 100.0 * (double)p[best]);
    for (const char *c = r.out; *c; c++) n_lines += *c == '\n';
    CHECK(r.status == 0 && n_lines == 6 && !strncmp(r.out, one, strlen(one)) && strstr(r.out, want) &&
              strstr(r.out, two),
          "two pictures as text: '%s' in %s", want, r.out);
    CHECK(strstr(r.err, "2 pictures"), "statistics: %s", r.err);
    release(&r);

    // a picture that is none among others
    write_text("bad.png", "\x89PNG\r\n\x1a\nnot really");
    const char *bad = in_folder("bad.png"), *absent = in_folder("absent.png");
    r = CALL("vit", folder, one, bad, two, absent, "-q", "-o", "json");
    CHECK(r.status == 1 && strstr(r.err, "bad.png") && strstr(r.err, "absent.png"), "status %d: %s", r.status, r.err);
    n_lines = 0;
    for (const char *c = r.err; *c; c++) n_lines += *c == '\n';
    CHECK(n_lines == 2 && strstr(r.out, "p0.pgm") && strstr(r.out, "p9.ppm") && !strstr(r.out, "bad.png"), "%s%s",
          r.out, r.err);
    release(&r);
    REFUSES(1, "bad.png", "vit", folder, bad);
    vit_close(&v);
}

static void program_refuses(void) {
    Vit v;
    if (!open_model(&v, &tiny)) return;
    vit_close(&v);
    write_pictures();
    refuse_commands("commands_vit");
    size_t n;
    char *bytes = read_file(in_folder("model.safetensors"), &n);
    memcpy(bytes + n - 4, &(float){NAN}, 4);
    write_file("model.safetensors", bytes, n);
    free(bytes);
    Result damaged = CALL("vit", folder, in_folder("p0.pgm"));
    CHECK(damaged.status == 1 && strstr(damaged.err, "the logits are not finite"), "%s", damaged.err);
    release(&damaged);
    write_text("config.json", "{");
    REFUSES(1, "config.json: line 1", "vit", folder, in_folder("p0.pgm"));
}

// ---- --eval on pictures whose classes the program itself has said, some of them altered

static void put_u32(uint8_t *p, int n) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(n >> (24 - 8 * i));
}

static void program_eval(void) {
    Vit v;
    if (!open_model(&v, &tiny)) return;
    write_pictures();
    enum { HEAD = 16, LABEL_HEAD = 8, PIXELS = SIDE * SIDE };
    uint8_t images[HEAD + (N_PICTURES - 1) * PIXELS] = {0, 0, 8, 3}, labels[LABEL_HEAD + N_PICTURES] = {0, 0, 8, 1};
    int n = N_PICTURES - 1, right = 0;
    char name[32], want[64];
    for (int i = 0; i < n; i++) {
        float p[10];
        draw_picture(i, images + HEAD + i * PIXELS);
        snprintf(name, sizeof name, "p%d.pgm", i);
        look(&v, in_folder(name), p);
        bool wrong = i % 4 == 1;
        labels[LABEL_HEAD + i] = (uint8_t)((best_label(p, 10) + wrong) % 10);
        right += !wrong;
    }
    put_u32(images + 4, n);
    put_u32(images + 8, SIDE);
    put_u32(images + 12, SIDE);
    put_u32(labels + 4, n);
    write_file("images", images, sizeof images);
    write_file("labels", labels, LABEL_HEAD + (size_t)n);
    snprintf(want, sizeof want, "accuracy %.2f %% (%d of %d) ", 100.0 * right / n, right, n);
    static const char *const batches[] = {"1", "4", "64"};
    for (int i = 0; i < 3; i++) {
        Result r = CALL("vit", folder, "--eval", in_folder("images"), in_folder("labels"), "--batch", batches[i], "-t",
                        "2", "-q");
        CHECK(r.status == 0 && !strncmp(r.out, want, strlen(want)), "--batch %s: expected '%s', found %s%s", batches[i],
              want, r.out, r.err);
        release(&r);
    }
    Result r = CALL("vit", folder, "--eval", in_folder("images"), in_folder("labels"), "-o", "json");
    json_t *object = json_loads(r.out, 0, NULL);
    CHECK(json_integer_value(json_object_get(object, "correct")) == right &&
              json_integer_value(json_object_get(object, "n_images")) == n &&
              fabs(json_number_value(json_object_get(object, "accuracy")) - (double)right / n) < 1e-6 &&
              json_number_value(json_object_get(object, "images_per_second")) > 0,
          "--eval -o json: %s%s", r.out, r.err);
    json_decref(object);
    release(&r);
    labels[LABEL_HEAD + 2] = 10; // no class of the model
    write_file("labels", labels, LABEL_HEAD + (size_t)n);
    REFUSES(1, "label 2: expected less than 10, found 10", "vit", folder, "--eval", in_folder("images"),
            in_folder("labels"));
    put_u32(labels + 4, n + 1);
    write_file("labels", labels, LABEL_HEAD + (size_t)n + 1);
    REFUSES(1, "expected 9 labels", "vit", folder, "--eval", in_folder("images"), in_folder("labels"));
    REFUSES(1, "labels: magic number", "vit", folder, "--eval", in_folder("labels"), in_folder("images"));
    vit_close(&v);
}

static void program_attention(void) {
    Vit v;
    if (!open_model(&v, &tiny)) return;
    vit_close(&v);
    write_pictures();
    static const char *const pictures[] = {"p3.pgm", "p9.ppm"};
    for (int i = 0; i < 2; i++) {
        unlink(in_folder("a.png"));
        Result r = CALL("vit", folder, in_folder(pictures[i]), "--attention", in_folder("a.png"), "-q");
        CHECK(r.status == 0 && *r.out && !*r.err, "status %d: %s", r.status, r.err);
        release(&r);
        Picture p;
        char err[512] = "";
        bool read = !picture_read(&p, in_folder("a.png"), 3, err, sizeof err);
        CHECK(read && p.width > 3 * 224 && p.height > 224, "%s", err); // three panels
        if (read) picture_free(&p);
    }
    unlink(in_folder("a.png"));
    TELLS(1, "", "absent/a.png", "vit", folder, in_folder("p0.pgm"), "--attention", in_folder("absent/a.png"), "-q");
    Result r = CALL("vit", folder, in_folder("bad.png"), "--attention", in_folder("a.png"), "-q");
    CHECK(r.status == 1 && access(in_folder("a.png"), F_OK), "nothing to draw: status %d: %s", r.status, r.err);
    release(&r);
}

// The picture at `upright` turned on its side, in a file whose EXIF says so: orientation 6.
static void write_on_its_side(const char *upright, const char *name) {
    static const char chunk[] = "\0\0\0\x1a" // big-endian, one entry: 0x0112, SHORT, 1 value; the CRC
                                "eXIfMM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
                                "\xd6\x67\x4b\x69";
    enum { IEND = 12 };
    char err[512] = "";
    Picture p, side;
    CHECK(!picture_read(&p, upright, 3, err, sizeof err), "%s", err);
    CHECK(!picture_new(&side, p.height, p.width, 3, err, sizeof err), "%s", err);
    for (int y = 0; y < p.height; y++) { // the right side becomes the first row, from the top on
        for (int x = 0; x < p.width; x++) {
            size_t row = (size_t)(p.width - 1 - x), column = (size_t)y;
            memcpy(side.pixels + 3 * (row * side.width + column), p.pixels + 3 * ((size_t)y * p.width + x), 3);
        }
    }
    CHECK(!picture_write_png(&side, in_folder(name), err, sizeof err), "%s", err);
    size_t n;
    char *bytes = read_file(in_folder(name), &n), *whole = malloc(n + sizeof chunk - 1);
    memcpy(whole, bytes, n - IEND);
    memcpy(whole + n - IEND, chunk, sizeof chunk - 1);
    memcpy(whole + n - IEND + sizeof chunk - 1, bytes + n - IEND, IEND);
    write_file(name, whole, n + sizeof chunk - 1);
    free(whole);
    free(bytes);
    picture_free(&side);
    picture_free(&p);
}

// What is said and drawn is that of the upright picture, byte for byte.
static void program_orientation(void) {
    const char *const upright = SHIPPED "/samples/ankle-boot.png";
    char *said[2] = {0}, *drawn[2] = {0};
    size_t n[2] = {0};
    write_on_its_side(upright, "side.png");
    for (int i = 0; i < 2; i++) {
        const char *path = i ? in_folder("side.png") : upright;
        unlink(in_folder("a.png"));
        Result r = CALL("vit", SHIPPED, path, "--attention", in_folder("a.png"), "-q");
        CHECK(r.status == 0 && strstr(r.out, "Ankle boot"), "%s: status %d: %s%s", path, r.status, r.out, r.err);
        const char *labels = strchr(r.out, '\n'); // behind the file's name
        said[i] = strdup(labels ? labels : "");
        drawn[i] = read_file(in_folder("a.png"), &n[i]);
        release(&r);
    }
    CHECK(!strcmp(said[0], said[1]), "expected%sfound%s", said[0], said[1]);
    CHECK(n[0] == n[1] && !memcmp(drawn[0], drawn[1], n[0]), "the drawings differ");
    for (int i = 0; i < 2; i++) {
        free(said[i]);
        free(drawn[i]);
    }
}

// A shipped sample on white, as bytes of a PPM: what is noted, and what --invert gives.
static void program_inverted(void) {
    static const char boot[] = SHIPPED "/samples/ankle-boot.png";
    Picture p;
    char err[512] = "", head[32];
    if (picture_read(&p, boot, 3, err, sizeof err)) {
        CHECK(false, "%s", err);
        return;
    }
    int n_pixels = p.width * p.height * 3, n = snprintf(head, sizeof head, "P6 %d %d 255\n", p.width, p.height);
    char *ppm = need((size_t)(n + n_pixels));
    memcpy(ppm, head, (size_t)n);
    for (int i = 0; i < n_pixels; i++) ppm[n + i] = (char)(255 - p.pixels[i]);
    write_file("white.ppm", ppm, (size_t)(n + n_pixels));
    picture_free(&p);
    free(ppm);
    Result plain = CALL("vit", SHIPPED, boot, "-q", "-o", "json"), r;
    CHECK(plain.status == 0 && !*plain.err && strstr(plain.out, "Ankle boot"), "%s%s", plain.out, plain.err);
    TELLS(0, "", "white.ppm: its edge is brighter than pictures of this model are; --invert", "vit", SHIPPED,
          in_folder("white.ppm"), "-q");
    r = CALL("vit", SHIPPED, in_folder("white.ppm"), "--invert", "-q", "-o", "json");
    const char *classes = strstr(r.out, "classes"), *want = strstr(plain.out, "classes");
    CHECK(r.status == 0 && !*r.err && classes && want && !strcmp(classes, want), "%s%s", r.out, r.err);
    release(&r);
    TELLS(0, "", "brighter", "vit", SHIPPED, boot, "--invert", "-q");
    release(&plain);
}

static void program_stdin(void) {
    static const char pgm[] = "P2"; // not read, and named
    tells(1, "!", "stdin: expected a PNG", "P2 on stdin", CALL_IN(pgm, "vit", SHIPPED, "-", "-q"));
    tells(1, "!", "stdin: expected a picture, found nothing", "an empty stdin", CALL("vit", SHIPPED, "-", "-q"));
    char grey[16 + 28 * 28];
    int n = snprintf(grey, sizeof grey, "P5 28 28 255\n"), size = n + 28 * 28;
    memset(grey + n, 1, 28 * 28);
    grey[size] = 0;
    write_text("grey.pgm", grey);
    Result a = CALL_IN(grey, "vit", SHIPPED, "-", "-q"), b = CALL("vit", SHIPPED, in_folder("grey.pgm"), "-q");
    const char *from_a = strchr(a.out, '\n'), *from_b = strchr(b.out, '\n');
    CHECK(a.status == 0 && from_a && from_b && a.out[0] == '-' && !strcmp(from_a, from_b), "%s%s%s", a.out, b.out,
          a.err);
    release(&a);
    release(&b);
}

int main(void) {
    folder_make();
    need_program("vit");
    RUN(random_models);
    bad_model = (ModelFolder){refuses_model, write_tiny};
    RUN(hostile_config);
    RUN(hostile_tensors);
    RUN(truncated_weights);
    RUN(shipped_models);
    RUN(rollouts);
    RUN(program_pictures);
    RUN(program_refuses);
    RUN(program_eval);
    RUN(program_attention);
    RUN(program_orientation);
    RUN(program_inverted);
    RUN(program_stdin);
    folder_remove();
    return test_report();
}
