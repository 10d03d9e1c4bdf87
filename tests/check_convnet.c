// check_convnet: gates and convolutional networks against naive forms in double, PyTorch's logits of the shipped ones,
// the same bits for any number of threads, and folders that say something else than they should.
//
// tests/fixtures/convnet.tsv holds, for each shipped model, lines of its name, of 10,000 test pictures how many PyTorch
// gets right with it, and the logits of a picture in double precision (tools/train/convnet.py --table).
#include "bad/model_folder.h"
#include "child.h"

#include "classify.h"
#include "convnet_model.h"
#include "idx.h"

#define FIXTURE "tests/fixtures/convnet.tsv"
#define MODELS "models/convnet/"
#define PICTURES "/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz"
#define LABELS "/usr/share/datasets/fashion-mnist/t10k-labels-idx1-ubyte.gz"

// ---- the naive forms: maps are [channels][places]

static void naive_excite(const double *w1, const double *w2, int channels, int hidden, const double *z, double *sum) {
    for (int c = 0; c < channels; c++) {
        for (int i = 0; i < hidden; i++) {
            double h = 0;
            for (int j = 0; j < channels; j++) h += w1[i * channels + j] * z[j];
            sum[c] += w2[c * hidden + i] * fmax(h, 0);
        }
    }
}

// Multiplies x by its gates; taps NULL: of channels alone. gates: [channels + n], those of the places 1 without taps.
static void naive_gates(double *x, int channels, int hidden, int n, int columns, const double *w1, const double *w2,
                        const double *taps, double *gates) {
    size_t bytes = sizeof *gates * (size_t)(2 * channels);
    double *mean = memset(need(bytes), 0, bytes), *most = mean + channels;
    for (int c = 0; c < channels; c++) {
        gates[c] = 0;
        most[c] = -INFINITY;
        for (int t = 0; t < n; t++) mean[c] += x[c * n + t] / n;
        for (int t = 0; t < n; t++) most[c] = fmax(most[c], x[c * n + t]);
    }
    naive_excite(w1, w2, channels, hidden, mean, gates);
    if (taps) naive_excite(w1, w2, channels, hidden, most, gates);
    for (int c = 0; c < channels; c++) {
        gates[c] = 1 / (1 + exp(-gates[c]));
        for (int t = 0; t < n; t++) x[c * n + t] *= gates[c];
    }
    double *map = need(sizeof *map * (size_t)(2 * n));
    for (int t = 0; t < n; t++) {
        map[t] = 0;
        map[n + t] = -INFINITY;
        for (int c = 0; c < channels; c++) map[t] += x[c * n + t] / channels;
        for (int c = 0; c < channels; c++) map[n + t] = fmax(map[n + t], x[c * n + t]);
    }
    for (int t = 0; t < n; t++) {
        double sum = 0;
        for (int u = 0; u < n && taps; u++) { // every place that a tap reaches
            int dy = u / columns - t / columns + 3, dx = u % columns - t % columns + 3;
            if (dy < 0 || dy > 6 || dx < 0 || dx > 6) continue;
            sum += taps[dy * 7 + dx] * map[u] + taps[49 + dy * 7 + dx] * map[n + u];
        }
        gates[channels + t] = taps ? 1 / (1 + exp(-sum)) : 1;
        for (int c = 0; c < channels; c++) x[c * n + t] *= gates[channels + t];
    }
    free(mean);
    free(map);
}

// ---- gates alone, on grids that are no squares

static void fill(float *x, double *same, int n) {
    for (int i = 0; i < n; i++) same[i] = (double)(x[i] = test_uniform());
}

static void gates_on(int channels, int hidden, int n, int columns, bool places) {
    enum { TAPS = 2 * GATE_SIDE * GATE_SIDE };
    int n_weights = channels * hidden, n_map = n * channels;
    float *w1 = need_floats(n_weights), *w2 = need_floats(n_weights), taps[TAPS], *x = need_floats(n_map);
    double *d1 = need(sizeof *d1 * (size_t)n_weights), *d2 = need(sizeof *d2 * (size_t)n_weights), dt[TAPS];
    double *map = need(sizeof *map * (size_t)n_map), *want = need(sizeof *want * (size_t)(n_map + channels + n));
    double *gates = want + n_map;
    fill(w1, d1, n_weights);
    fill(w2, d2, n_weights);
    fill(taps, dt, TAPS);
    for (int i = 0; i < n_map; i++) map[i % channels * n + i / channels] = (double)(x[i] = 2 * test_uniform());
    Gates g = {.channels = channels, .hidden = hidden, .w1 = w1, .w2 = w2, .taps = places ? taps : NULL};
    float *work = need_floats(gates_floats(&g, n));
    gates_apply(&g, x, n, columns, work);
    naive_gates(map, channels, hidden, n, columns, d1, d2, places ? dt : NULL, gates);
    for (int i = 0; i < n_map; i++) want[i] = map[i % channels * n + i / channels];
    double error = nmse(x, want, n_map), gate_error = nmse(work, gates, channels + n);
    CHECK(error < 1e-11 && gate_error < 1e-11, "%d channels, %d places in rows of %d: NMSE %g, of the gates %g",
          channels, n, columns, error, gate_error);
    free(w1);
    free(w2);
    free(x);
    free(d1);
    free(d2);
    free(map);
    free(want);
    free(work);
}

static void gates_alone(void) {
    static const int grids[][2] = {{1, 1}, {9, 3}, {7, 7}, {35, 7}, {23, 5}, {50, 12}, {12, 1}, {196, 14}};
    for (int i = 0; i < N_OF(grids); i++) {
        for (int places = 0; places < 2; places++) {
            gates_on(1, 1, grids[i][0], grids[i][1], places);
            gates_on(5, 2, grids[i][0], grids[i][1], places);
            gates_on(24, 3, grids[i][0], grids[i][1], places);
        }
    }
}

// ---- networks with random weights, written as a folder

enum { CASE_BLOCKS = 3, CASE_LABELS = 4 };

typedef struct {
    const char *attention;
    int side, stem, reduction, n_blocks;
    int channels[CASE_BLOCKS], strides[CASE_BLOCKS];
} Case;

static const Case cases[] = {{"none", 13, 5, 2, 2, {5, 7}, {1, 2}},
                             {"se", 11, 2, 4, 3, {9, 9, 17}, {2, 1, 2}},
                             {"se", 8, 16, 16, 1, {16}, {1}},
                             {"cbam", 9, 6, 3, 2, {6, 10}, {1, 2}},
                             {"cbam", 15, 4, 100, 3, {8, 8, 12}, {1, 1, 2}},
                             {"cbam", 1, 2, 1, 1, {2}, {2}}};

static void put_conv(FolderMaker *m, const char *name, int out, int kernel, int in) {
    char full[96];
    snprintf(full, sizeof full, "%s.weight", name);
    put_tensor(m, full, 4, (int[]){out, kernel, kernel, in});
    snprintf(full, sizeof full, "%s.bias", name);
    put(m, full, out, 0);
}

static int hidden_of(const Case *c, int block) {
    return c->channels[block] > c->reduction ? c->channels[block] / c->reduction : 1;
}

static bool has_shortcut(const Case *c, int block) {
    return c->strides[block] > 1 || c->channels[block] != (block ? c->channels[block - 1] : c->stem);
}

static void put_block(FolderMaker *m, const Case *c, int i) {
    char name[64];
    int in = i ? c->channels[i - 1] : c->stem, out = c->channels[i];
    snprintf(name, sizeof name, "blocks.%d.conv1", i);
    put_conv(m, name, out, 3, in);
    snprintf(name, sizeof name, "blocks.%d.conv2", i);
    put_conv(m, name, out, 3, out);
    snprintf(name, sizeof name, "blocks.%d.shortcut", i);
    if (has_shortcut(c, i)) put_conv(m, name, out, 1, in);
    if (!strcmp(c->attention, "none")) return;
    snprintf(name, sizeof name, "blocks.%d.gates.w1", i);
    put(m, name, hidden_of(c, i), out);
    snprintf(name, sizeof name, "blocks.%d.gates.w2", i);
    put(m, name, out, hidden_of(c, i));
    snprintf(name, sizeof name, "blocks.%d.gates.taps", i);
    if (!strcmp(c->attention, "cbam")) put_tensor(m, name, 3, (int[]){2, 7, 7});
}

static const char *list_of(const int *numbers, int n, char *text, size_t room) {
    for (int i = 0, at = 0; i < n; i++) at += snprintf(text + at, room - (size_t)at, "%s%d", i ? "," : "", numbers[i]);
    return text;
}

static void write_config(const Case *c) {
    char config[512], channels[64], strides[64];
    snprintf(config, sizeof config,
             "{\"model_type\":\"convnet\",\"attention\":\"%s\",\"image_size\":%d,\"image_mean\":0.25,"
             "\"image_std\":0.5,\"stem_channels\":%d,\"num_blocks\":%d,\"channels\":[%s],\"strides\":[%s],"
             "\"reduction\":%d,\"num_labels\":%d}",
             c->attention, c->side, c->stem, c->n_blocks, list_of(c->channels, c->n_blocks, channels, sizeof channels),
             list_of(c->strides, c->n_blocks, strides, sizeof strides), c->reduction, CASE_LABELS);
    write_text("config.json", config);
}

static void write_case(const Case *c, Fault fault, const char *extra) {
    FolderMaker m = {.fault = fault};
    maker_open(&m);
    put_conv(&m, "stem", c->stem, 3, 1);
    for (int i = 0; i < c->n_blocks; i++) put_block(&m, c, i);
    put_dense(&m, CASE_LABELS, c->channels[c->n_blocks - 1], true, "classifier");
    if (extra) put(&m, extra, 3, 0);
    maker_close(&m);
    write_config(c);
}

// ---- the same networks in double

static double *values(const char *name, int rows, int cols) { // cols 0: a vector
    FolderMaker sound = {0};
    int n = cols ? rows * cols : rows;
    double *x = need(sizeof *x * (size_t)n);
    MadeWeights w = weights_of(&sound, name, !cols, cols ? cols : 1);
    for (int i = 0; i < n; i++) x[i] = (double)(float)weight_at(&w, i);
    return x;
}

// y [out][places] of x [in][side * side].
static void naive_conv(const char *name, const double *x, int side, int in, double *y, int out, int kernel,
                       int stride) {
    char full[96];
    snprintf(full, sizeof full, "%s.weight", name);
    double *w = values(full, out, kernel * kernel * in);
    snprintf(full, sizeof full, "%s.bias", name);
    double *bias = values(full, out, 0);
    int side_out = (side + stride - 1) / stride, places = side_out * side_out;
    for (int at = 0; at < out * places; at++) {
        int o = at / places, top = at % places / side_out * stride, left = at % side_out * stride;
        y[at] = bias[o];
        for (int i = 0; i < kernel * kernel * in; i++) {
            int py = top + i / in / kernel - kernel / 2, px = left + i / in % kernel - kernel / 2;
            bool inside = py >= 0 && py < side && px >= 0 && px < side;
            if (inside) y[at] += w[o * kernel * kernel * in + i] * x[i % in * side * side + py * side + px];
        }
    }
    free(w);
    free(bias);
}

static void naive_relu(double *x, int n) {
    for (int i = 0; i < n; i++) x[i] = fmax(x[i], 0);
}

// x becomes the block's output; returns its side.
static int naive_block(const Case *c, int i, double *x, int side) {
    char name[64];
    int in = i ? c->channels[i - 1] : c->stem, out = c->channels[i], stride = c->strides[i];
    int side_out = (side + stride - 1) / stride, places = side_out * side_out, n = out * places;
    double *h = need(sizeof *h * (size_t)n), *y = need(sizeof *y * (size_t)n), *cut = need(sizeof *cut * (size_t)n);
    snprintf(name, sizeof name, "blocks.%d.conv1", i);
    naive_conv(name, x, side, in, h, out, 3, stride);
    naive_relu(h, n);
    snprintf(name, sizeof name, "blocks.%d.conv2", i);
    naive_conv(name, h, side_out, out, y, out, 3, 1);
    if (strcmp(c->attention, "none") != 0) {
        double *gates = need(sizeof *gates * (size_t)(out + places));
        snprintf(name, sizeof name, "blocks.%d.gates.w1", i);
        double *w1 = values(name, hidden_of(c, i), out);
        snprintf(name, sizeof name, "blocks.%d.gates.w2", i);
        double *w2 = values(name, out, hidden_of(c, i));
        snprintf(name, sizeof name, "blocks.%d.gates.taps", i);
        double *taps = values(name, 2, 49);
        bool cbam = !strcmp(c->attention, "cbam");
        naive_gates(y, out, hidden_of(c, i), places, side_out, w1, w2, cbam ? taps : NULL, gates);
        free(gates);
        free(w1);
        free(w2);
        free(taps);
    }
    snprintf(name, sizeof name, "blocks.%d.shortcut", i);
    if (has_shortcut(c, i)) naive_conv(name, x, side, in, cut, out, 1, stride);
    else memcpy(cut, x, sizeof *cut * (size_t)n);
    for (int j = 0; j < n; j++) x[j] = fmax(y[j] + cut[j], 0);
    free(h);
    free(y);
    free(cut);
    return side_out;
}

static void naive_logits(const Case *c, const uint8_t *pixels, double *logits) {
    enum { ROOM = 32 * 15 * 15 };
    double *x = need(sizeof *x * ROOM), *first = need(sizeof *first * (size_t)(c->side * c->side));
    int side = c->side, last = c->channels[c->n_blocks - 1];
    for (int i = 0; i < side * side; i++) first[i] = (pixels[i] / 255.0 - 0.25) / 0.5;
    naive_conv("stem", first, side, 1, x, c->stem, 3, 1);
    naive_relu(x, c->stem * side * side);
    for (int i = 0; i < c->n_blocks; i++) side = naive_block(c, i, x, side);
    double *w = values("classifier.weight", CASE_LABELS, last), *bias = values("classifier.bias", CASE_LABELS, 0);
    for (int k = 0; k < CASE_LABELS; k++) {
        logits[k] = bias[k];
        for (int i = 0; i < last * side * side; i++) {
            logits[k] += w[k * last + i / (side * side)] * x[i] / (side * side);
        }
    }
    free(x);
    free(first);
    free(w);
    free(bias);
}

static void random_case(const Case *c) {
    enum { N = 7 };
    char err[512] = "";
    Convnet v;
    write_case(c, (Fault){0}, NULL);
    NEED(!convnet_open(&v, folder, err, sizeof err), "%s", err);
    int n = c->side * c->side * N;
    uint8_t *pixels = need((size_t)n);
    float logits[3][N * CASE_LABELS];
    double want[N * CASE_LABELS];
    for (int i = 0; i < n; i++) pixels[i] = (uint8_t)test_u32();
    for (int i = 0; i < N; i++) naive_logits(c, pixels + i * c->side * c->side, want + i * CASE_LABELS);
    for (int threads = 1; threads <= 3; threads++) {
        ConvnetBatch batch = {.pixels = pixels, .n = N, .logits = logits[threads - 1]};
        CHECK(!convnet_classify(&v, &batch, threads, err, sizeof err), "%s", err);
        CHECK(!memcmp(logits[0], logits[threads - 1], sizeof *logits), "%d threads give other bits than 1", threads);
    }
    double error = nmse(logits[0], want, N * CASE_LABELS);
    CHECK(error < 1e-11, "%s, %d x %d: NMSE %g", c->attention, c->side, c->side, error);
    free(pixels);
    convnet_close(&v);
}

static void random_models(void) {
    for (int i = 0; i < N_OF(cases); i++) random_case(&cases[i]);
}

// ---- hostile folders

static const Case *const tiny = &cases[3];

static bool refuses_model(char *err, size_t errlen) {
    Convnet v;
    bool refused = convnet_open(&v, folder, err, errlen) == -1;
    if (!refused) convnet_close(&v);
    return refused;
}

static void write_tiny(Fault fault) {
    write_case(tiny, fault, NULL);
}

static void hostile_config(void) {
    refuse_configs("convnet_config");
}

static void hostile_tensors(void) {
    static const char *const names[] = {"stem.weight",
                                        "stem.bias",
                                        "blocks.0.conv1.weight",
                                        "blocks.1.conv2.bias",
                                        "blocks.1.shortcut.weight",
                                        "blocks.0.gates.w1",
                                        "blocks.1.gates.w2",
                                        "blocks.0.gates.taps",
                                        "classifier.weight",
                                        "classifier.bias"};
    char err[512] = "";
    refuse_tensors(names, N_OF(names), NULL);
    write_case(tiny, (Fault){0}, "blocks.0.shortcut.bias");
    CHECK(refuses_model(err, sizeof err), "a tensor that nobody reads was taken");
    expect_line(err, folder, "expected the 20 tensors that config.json describes, found 21", "one tensor more");
    write_tiny((Fault){0});
    size_t n;
    char *bytes = read_file(in_folder("model.safetensors"), &n);
    memcpy(bytes + n - 4, &(float){NAN}, 4);
    write_file("model.safetensors", bytes, n);
    free(bytes);
    CHECK(refuses_model(err, sizeof err), "NaN was taken for a weight");
    expect_line(err, folder, "tensor classifier.bias: expected finite numbers", "NaN");
}

static void truncated_weights(void) {
    refuse_cut_weights();
}

// ---- the shipped models

static void shipped_model(const char *kind, const IdxImages *images, const IdxLabels *labels) {
    char err[512] = "", path[64], name[16], *line = NULL;
    size_t room = 0;
    Convnet v;
    snprintf(path, sizeof path, MODELS "%s", kind);
    NEED(!convnet_open(&v, path, err, sizeof err), "%s", err);
    int n = quick() ? 100 : images->n, right = 0, want_right = 0, n_lines = 0, n_close = 0, k = v.n_labels;
    float *logits = need_floats((int64_t)n * k);
    ConvnetBatch batch = {.pixels = images->pixels, .n = n, .logits = logits};
    CHECK(!convnet_classify(&v, &batch, 2, err, sizeof err), "%s", err);
    FILE *f = fopen(FIXTURE, "r");
    double most = 0, want[16];
    while (f && k <= N_OF(want) && getline(&line, &room, f) > 0) {
        int at = 0, count;
        if (sscanf(line, "%15s %d%n", name, &count, &at) != 2 || strcmp(name, kind) != 0) continue;
        want_right = count;
        char *number = line + at;
        for (int i = 0; i < k; i++) want[i] = strtod(number, &number);
        most = fmax(most, nmse(logits + n_lines++ * k, want, k));
    }
    if (f) fclose(f);
    free(line);
    CHECK(n_lines == 12, FIXTURE ": expected 12 lines of %s, found %d", kind, n_lines);
    CHECK(most < 1e-10, "%s: logits: NMSE %g", kind, most);
    for (int i = 0; i < n; i++) {
        const float *row = logits + (int64_t)i * k;
        int best = best_label(row, k);
        right += best == labels->labels[i];
        for (int j = 0; j < k; j++) n_close += j != best && row[best] - row[j] < 1e-4f;
    }
    printf("  %s: %d of %d, PyTorch %d; logits: NMSE up to %.1e\n", path, right, n, want_right, most);
    CHECK(n < images->n || abs(right - want_right) <= n_close, "%s: %d right, expected %d, %d at a tie", kind, right,
          want_right, n_close);
    free(logits);
    convnet_close(&v);
}

static void shipped_models(void) {
    SKIP_WITHOUT(PICTURES);
    char err[512] = "";
    IdxImages images;
    IdxLabels labels;
    NEED(!idx_read_set(&images, &labels, (const char *const[]){PICTURES, LABELS}, 10, err, sizeof err), "%s", err);
    shipped_model("plain", &images, &labels);
    shipped_model("se", &images, &labels);
    shipped_model("cbam", &images, &labels);
    idx_free_images(&images);
    idx_free_labels(&labels);
}

// ---- build/convnet as people meet it

static void put_u32(uint8_t *p, int n) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(n >> (24 - 8 * i));
}

// Five pictures of 9 x 9, and labels of which the tiny model says the first three.
static void write_set(void) {
    enum { N = 5, PIXELS = 81, HEAD = 16, LABEL_HEAD = 8 };
    char err[512] = "";
    Convnet v;
    uint8_t images[HEAD + N * PIXELS] = {0, 0, 8, 3}, labels[LABEL_HEAD + N] = {0, 0, 8, 1};
    float logits[N * CASE_LABELS];
    write_tiny((Fault){0});
    put_u32(images + 4, N);
    put_u32(images + 8, 9);
    put_u32(images + 12, 9);
    put_u32(labels + 4, N);
    for (int i = 0; i < N * PIXELS; i++) images[HEAD + i] = (uint8_t)test_u32();
    NEED(!convnet_open(&v, folder, err, sizeof err), "%s", err);
    ConvnetBatch batch = {.pixels = images + HEAD, .n = N, .logits = logits};
    CHECK(!convnet_classify(&v, &batch, 1, err, sizeof err), "%s", err);
    for (int i = 0; i < N; i++) {
        labels[LABEL_HEAD + i] = (uint8_t)((best_label(logits + i * CASE_LABELS, CASE_LABELS) + i / 3) % CASE_LABELS);
    }
    convnet_close(&v);
    write_file("images", images, sizeof images);
    write_file("labels", labels, sizeof labels);
}

#define SET in_folder("images"), in_folder("labels")

static void program(void) {
    write_set();
    TELLS(0, "accuracy 60.00 % (3 of 5)", "!", "convnet", folder, "--eval", SET, "-t", "2");
    TELLS(0, "(3 of 5)", "!", "convnet", in_folder("model.safetensors"), folder, "--eval", SET);
    json_t *o = told(CALL("convnet", folder, "--eval", SET, "-o", "json", "-t", "1"));
    CHECK(number(o, "correct") == 3 && number(o, "n_images") == 5 && fabs(number(o, "accuracy") - 0.6) < 1e-6 &&
              number(o, "parameters") > 1000 && number(o, "images_per_second") > 0,
          "-o json: %g right", number(o, "correct"));
    json_decref(o);
    // a class, and for two blocks their channels and a grid of 9 and of 5 rows
    Result r = CALL("convnet", folder, "--eval", SET, "--show", "2");
    CHECK(r.status == 0 && strstr(r.out, "picture 2, ") && strstr(r.out, "block 1, channels: ") &&
              strstr(r.out, "taken for: "),
          "%s%s", r.out, r.err);
    CHECK(count_of(r.out, "\n") == 2 + 1 + 9 + 1 + 5, "lines: %s", r.out);
    release(&r);
    if (access(PICTURES, R_OK)) return;
    REFUSES(1, "label 0: expected less than 4, found 9", "convnet", folder, "--eval", PICTURES, LABELS);
}

static void wrong_lines(void) {
    write_set();
    REFUSES(2, "no model", "convnet", "-t", "1");
    REFUSES(2, "no pictures", "convnet", folder);
    REFUSES(2, "--eval", "convnet", folder, "--eval", in_folder("images"));
    REFUSES(2, "--show", "convnet", folder, "--eval", SET, "--show", "1", "-o", "json");
    REFUSES(1, "expected a picture below 5", "convnet", folder, "--eval", SET, "--show", "5");
    REFUSES(1, "absent", "convnet", folder, "--eval", in_folder("absent"), in_folder("labels"));
    REFUSES(1, "labels: header", "convnet", folder, "--eval", in_folder("labels"), in_folder("images"));
    REFUSES(1, "models/vit/config.json: model_type: expected convnet, found 'vit'", "convnet", "models/vit", "--eval",
            SET);
    uint8_t labels[9] = {0, 0, 8, 1, 0, 0, 0, 1, 0}, image[16 + 8] = {0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 2};
    write_file("labels", labels, sizeof labels);
    REFUSES(1, "expected 5 labels", "convnet", folder, "--eval", SET);
    write_file("images", image, sizeof image);
    REFUSES(1, "images: expected pictures of 9 x 9 for", "convnet", folder, "--eval", SET);
}

int main(void) {
    folder_make();
    need_program("convnet");
    RUN(gates_alone);
    RUN(random_models);
    bad_model = (ModelFolder){refuses_model, write_tiny};
    RUN(hostile_config);
    RUN(hostile_tensors);
    RUN(truncated_weights);
    RUN(shipped_models);
    RUN(program);
    RUN(wrong_lines);
    folder_remove();
    return test_report();
}
