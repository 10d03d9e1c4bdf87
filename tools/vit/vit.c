// vit: the command line of build/vit: classifies pictures, and draws attention maps.
//
// Owns the flags and the output. Refuses a wrong command line with exit status 2; a picture that cannot be read is
// reported, and the others are classified.
#include "classify.h"
#include "cli.h"
#include "idx.h"
#include "outfile.h"
#include "overlay.h"
#include "picture_file.h"
#include "rollout.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { BAR = 30, MAX_BATCH = 1 << 14 };

typedef struct {
    const char *model, *picture, *eval[2]; // eval: pictures, labels
    char **images;
    int n_images, n_best, n_threads, batch, json;
    bool quiet, invert;
} Options;

static void check_drawing(const char *path) {
    size_t n = strlen(path);
    bool named = n > 4 && !strcmp(path + n - 4, ".png");
    if (!strcmp(path, "-")) die(2, "--attention: expected a file, found -; stdout has the classes");
    if (!named && outfile_replaces(path)) die(2, "--attention: expected a file that ends in .png, found %s", path);
}

static Options parse(int argc, char **argv) {
    static Options o = {.n_best = 3, .batch = 64};
    const Flag flags[] = {
        MODEL_FLAG(&o.model),
        {"-k", "N", "number of classes to show (default: 3)", TAKES_INT(&o.n_best, 1, 1 << 20)},
        THREADS_FLAG(&o.n_threads),
        FORMAT_FLAG(&o.json, "text json", "text: bars; json: one object a line (default: text)"),
        {"--attention", "FILE.png", "draw attention maps over one picture: rollout and last layer",
         TAKES_STRING(&o.picture)},
        {"--eval", "IMAGES LABELS", "accuracy on a pair of idx files (also .gz), and pictures per second",
         TAKES_STRING(o.eval)},
        {"--batch", "N", "batch size of --eval (default: 64)", TAKES_INT(&o.batch, 1, MAX_BATCH)},
        {"--invert", NULL, "white becomes black: for pictures on white and a model of pictures on black",
         SETS(&o.invert)},
        QUIET_FLAG(&o.quiet),
    };
    const Program program = {
        "build/vit", "MODEL IMAGE... [options]",
        "  MODEL: a folder with config.json and model.safetensors (ViT, DeiT)\n"
        "  IMAGE: PNG, JPEG, GIF, WebP, BMP or PPM of any size, - for stdin; turned upright as its EXIF says,\n"
        "  preprocessed as preprocessor_config.json says\n",
        flags, sizeof flags / sizeof *flags};
    o.n_images = cli_parse(&program, argc, argv);
    o.images = argv;
    if (!o.model && o.n_images) { // the first argument is the model
        o.model = *o.images++;
        o.n_images--;
    }
    if (!o.model) die(2, "no model: expected build/vit MODEL IMAGE...");
    if (!o.n_images && !o.eval[0]) die(2, "no picture: expected build/vit MODEL IMAGE...");
    if (o.n_images && o.eval[0]) die(2, "--eval: expected no other pictures, found %s", o.images[0]);
    if (o.picture && o.n_images != 1) die(2, "--attention: expected one picture, found %d", o.n_images);
    if (o.picture) check_drawing(o.picture);
    if (!o.n_threads) o.n_threads = cpu_count();
    return o;
}

// The n_best largest of p[n], n_best <= n, in order; ties go to the first.
static void pick_best(const float *p, int n, int *best, int n_best) {
    int found = 0;
    for (int i = 0; i < n; i++) {
        if (found == n_best && !(p[i] > p[best[found - 1]])) continue;
        int at = found < n_best ? found++ : n_best - 1;
        for (; at > 0 && p[i] > p[best[at - 1]]; at--) best[at] = best[at - 1];
        best[at] = i;
    }
}

static void print_text(const Vit *v, const char *image, const float *p, const int *best, int n_best) {
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    size_t widest = 0;
    for (int i = 0; i < n_best; i++) widest = strlen(v->labels[best[i]]) > widest ? strlen(v->labels[best[i]]) : widest;
    printf("%s\n", image);
    for (int i = 0; i < n_best; i++) {
        printf("  %-*s %5.1f %%  ", (int)widest, v->labels[best[i]], 100.0 * (double)p[best[i]]);
        int length = (int)(p[best[i]] * BAR * 8 + 0.5f);
        for (int b = 0; b < length / 8; b++) fputs("█", stdout);
        printf("%s\n", eighths[length % 8]);
    }
}

static void print_json(const Vit *v, const char *image, const float *p, const int *best, int n_best) {
    json_t *classes = json_array(), *line = json_object();
    for (int i = 0; i < n_best; i++) {
        json_array_append_new(classes, json_pack("{s:i, s:s, s:f}", "id", best[i], "label", v->labels[best[i]],
                                                 "probability", (double)p[best[i]]));
    }
    json_t *name = json_string(image);
    json_object_set_new(line, "image", name ? name : json_null()); // the path is not UTF-8
    json_object_set_new(line, "classes", classes);
    json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(line);
}

// The model's input as a picture again.
static int picture_seen(const Preprocess *steps, const float *pixels, Picture *seen, char *err, size_t errlen) {
    int size = steps->size, channels = steps->channels;
    if (picture_new(seen, size, size, channels, err, errlen)) return -1;
    for (int c = 0; c < channels; c++) {
        for (int i = 0; i < size * size; i++) {
            double x = (double)pixels[c * size * size + i];
            if (steps->normalize) x = x * (double)steps->std[c] + (double)steps->mean[c];
            if (steps->rescale) x /= steps->rescale_factor;
            seen->pixels[i * channels + c] = x > 255 ? 255 : (uint8_t)(x < 0 ? 0 : x + 0.5);
        }
    }
    return 0;
}

static int draw(const Options *o, Classifier *c, const Preprocess *steps, const float *pixels, const char *caption,
                char *err, size_t errlen) {
    const Vit *v = c->model;
    float *logits = malloc(sizeof *logits * (size_t)v->n_labels);
    float *maps = malloc(sizeof *maps * 2 * (size_t)v->n_patches);
    Rollout r;
    Picture seen = {0};
    if (!logits || !maps) die(1, "out of memory for the picture");
    int rc = rollout_open(&r, v, &c->whole, err, errlen);
    if (rc) die(1, "%s", err);
    rc = vit_forward(v, &c->whole, &(VitBatch){pixels, 1, logits, rollout_visit, &r}, err, errlen);
    if (!rc && r.failed) rc = -1;
    if (!rc) {
        rollout_maps(&r, maps, maps + v->n_patches);
        AttentionMap list[] = {{"attention rollout", maps}, {"last layer", maps + v->n_patches}};
        rc = picture_seen(steps, pixels, &seen, err, errlen) ||
             overlay_write(o->picture, &seen, &(Overlay){caption, list, 2, v->side, v->side}, err, errlen);
    }
    picture_free(&seen);
    rollout_close(&r);
    free(logits);
    free(maps);
    return rc;
}

static void invert(Picture *p) {
    size_t n = (size_t)p->width * p->height * p->channels;
    for (size_t i = 0; i < n; i++) p->pixels[i] = (uint8_t)(255 - p->pixels[i]);
}

// Whether a picture is on white for a model of pictures on black: the mean of the outermost pixels of its input lies
// more than 1.25 standard deviations above the mean of preprocessor_config.json, and inverted less than half as far
// from it. Of the 10,000 pictures that models/vit is tested on none is noted, of their negatives 9,998. Means and
// deviations near the middle, as ImageNet's, are as far from black as from white: nothing is noted.
static bool looks_inverted(const Preprocess *p, const float *pixels) {
    if (p->assumed || !p->normalize || !p->rescale) return false;
    double sum = 0, inverted = 0;
    int64_t n = 0, area = (int64_t)p->size * p->size;
    for (int64_t i = 0; i < area * p->channels; i++) {
        int64_t y = i % area / p->size, x = i % p->size, last = p->size - 1;
        if (x && y && x != last && y != last) continue;
        double mean = p->mean[i / area], deviation = p->std[i / area];
        sum += (double)pixels[i];
        inverted += (255 * p->rescale_factor - ((double)pixels[i] * deviation + mean) - mean) / deviation;
        n++;
    }
    return sum > 1.25 * (double)n && fabs(inverted) < sum / 2;
}

// 0, or -1 with the error printed.
static int classify_one(const Options *o, Classifier *c, const Preprocess *steps, const char *path, float *pixels,
                        float *logits) {
    const Vit *v = c->model;
    char err[512];
    Picture picture;
    int n_best = o->n_best < v->n_labels ? o->n_best : v->n_labels, *best = malloc(sizeof *best * (size_t)n_best);
    if (!best) die(1, "out of memory");
    int rc = picture_read(&picture, path, v->n_channels, err, sizeof err);
    if (!rc && o->invert) invert(&picture);
    if (!rc) rc = preprocess_apply(steps, &picture, pixels, err, sizeof err);
    if (!rc) rc = classify(c, pixels, 1, logits, err, sizeof err);
    if (!rc) {
        probabilities(logits, v->n_labels);
        pick_best(logits, v->n_labels, best, n_best);
        (o->json ? print_json : print_text)(v, path, logits, best, n_best);
        char caption[256];
        snprintf(caption, sizeof caption, "%s %.1f %%", v->labels[*best], 100.0 * (double)logits[*best]);
        if (o->picture) rc = draw(o, c, steps, pixels, caption, err, sizeof err);
    }
    if (!rc && looks_inverted(steps, pixels)) {
        fflush(stdout);
        fprintf(stderr,
                "note: %s: its edge is brighter than pictures of this model are; --invert turns white to black\n",
                path);
    }
    if (rc) {
        fflush(stdout);
        fprintf(stderr, "error: %s\n", err);
    }
    picture_free(&picture);
    free(best);
    return rc;
}

static int classify_files(const Options *o, Classifier *c, const Preprocess *steps, double load) {
    int failed = 0;
    float *pixels = malloc(sizeof *pixels * (size_t)vit_pixels(c->model));
    float *logits = malloc(sizeof *logits * (size_t)c->model->n_labels);
    if (!pixels || !logits) die(1, "out of memory for a picture");
    double start = seconds();
    for (int i = 0; i < o->n_images; i++) failed += classify_one(o, c, steps, o->images[i], pixels, logits) != 0;
    double taken = seconds() - start;
    if (fflush(stdout) || ferror(stdout)) die(1, "stdout: the classes could not be written");
    if (!o->quiet && failed < o->n_images) {
        fprintf(
            stderr,
            "load %.3f s | %.2f M parameters | %d pictures, %.1f ms each with reading | peak %.1f MiB | %d threads\n",
            load, (double)weights_params(&c->model->weights) * 1e-6, o->n_images - failed, taken * 1e3 / o->n_images,
            (double)peak_rss_bytes() / 0x1p20, o->n_threads);
    }
    free(pixels);
    free(logits);
    return failed > 0;
}

// A grey picture of the set, as many channels as the model takes.
static Picture picture_at(const IdxImages *images, int i, int channels) {
    char err[512];
    Picture p;
    if (picture_new(&p, images->width, images->height, channels, err, sizeof err)) die(1, "%s", err);
    int64_t n = (int64_t)images->width * images->height;
    const uint8_t *grey = images->pixels + i * n;
    for (int64_t j = 0; j < n * channels; j++) p.pixels[j] = grey[j / channels];
    return p;
}

static int evaluate(const Options *o, Classifier *c, const Preprocess *steps) {
    const Vit *v = c->model;
    IdxImages images;
    IdxLabels labels;
    char err[512];
    if (idx_read_set(&images, &labels, o->eval, v->n_labels, err, sizeof err)) die(1, "%s", err);
    int64_t each = vit_pixels(v);
    float *pixels = malloc(sizeof *pixels * (size_t)(each * o->batch));
    float *logits = malloc(sizeof *logits * (size_t)v->n_labels * (size_t)o->batch);
    if (!pixels || !logits) die(1, "out of memory for a batch of %d pictures; a smaller --batch needs less", o->batch);
    int right = 0;
    double taken = 0;
    for (int first = 0; first < images.n; first += o->batch) {
        int n = images.n - first < o->batch ? images.n - first : o->batch;
        for (int i = 0; i < n; i++) {
            Picture p = picture_at(&images, first + i, v->n_channels);
            if (o->invert) invert(&p);
            if (preprocess_apply(steps, &p, pixels + i * each, err, sizeof err)) die(1, "%s", err);
            picture_free(&p);
        }
        double start = seconds();
        if (classify(c, pixels, n, logits, err, sizeof err)) die(1, "%s", err);
        taken += seconds() - start;
        for (int i = 0; i < n; i++) {
            right += best_label(logits + (int64_t)i * v->n_labels, v->n_labels) == labels.labels[first + i];
        }
    }
    if (o->json) {
        printf("{\"n_images\":%d,\"correct\":%d,\"accuracy\":%.6f,\"images_per_second\":%.1f,\"batch\":%d}\n", images.n,
               right, (double)right / images.n, images.n / taken, o->batch);
    } else {
        printf("accuracy %.2f %% (%d of %d)   %.1f images/s in batches of %d, %d threads\n", 100.0 * right / images.n,
               right, images.n, images.n / taken, o->batch, o->n_threads);
    }
    free(pixels);
    free(logits);
    idx_free_images(&images);
    idx_free_labels(&labels);
    return 0;
}

// preprocessor_config.json of the folder MODEL, or of the file's folder.
static void load_steps(Preprocess *steps, const char *model, const Vit *v) {
    char err[512], folder[4096];
    struct stat st;
    snprintf(folder, sizeof folder, "%s", model);
    char *slash = strrchr(folder, '/');
    bool is_file = !stat(model, &st) && !S_ISDIR(st.st_mode);
    if (is_file && slash) *slash = 0;
    const char *where = is_file && !slash ? "." : folder;
    if (preprocess_load(steps, where, v->image_size, v->n_channels, err, sizeof err)) die(1, "%s", err);
    if (steps->assumed) {
        fprintf(stderr, "note: no %s/preprocessor_config.json: assuming mean 0.5 and standard deviation 0.5\n", where);
    }
}

int main(int argc, char **argv) {
    Options o = parse(argc, argv);
    char err[512];
    file_guard_shrinking();
    double start = seconds();
    Vit v;
    Classifier c;
    Preprocess steps;
    if (vit_open(&v, o.model, err, sizeof err)) die(1, "%s", err);
    load_steps(&steps, o.model, &v);
    if (classifier_open(&c, &v, o.n_threads, err, sizeof err)) die(1, "%s", err);
    double load = seconds() - start;
    int status = o.eval[0] ? evaluate(&o, &c, &steps) : classify_files(&o, &c, &steps, load);
    classifier_close(&c);
    vit_close(&v);
    return status;
}
