// convnet: the command line of build/convnet: convolutional networks, with gates and without, on a set of pictures.
//
// Owns the flags and the output. Refuses a wrong command line with exit status 2.
#include "classify.h"
#include "cli.h"
#include "convnet_model.h"
#include "file.h"
#include "idx.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NO_PICTURE = -1 };

typedef struct {
    const char *set[2]; // pictures, labels
    int n_threads, json, picture;
} Options;

// Tenths, so that a gate is a digit.
static int tenths(float gate) {
    return gate < 1 ? (int)(gate * 10) : 9;
}

static void print_gates(void *context, int block, const Gates *g, const float *gates, int side) {
    (void)context;
    printf("  block %d, channels:", block);
    for (int c = 0; c < g->channels; c++) printf(" %d", tenths(gates[c]));
    putchar('\n');
    for (int t = 0; g->taps && t < side * side; t++) {
        printf("%s %d%s", t % side ? "" : "   ", tenths(gates[g->channels + t]), t % side == side - 1 ? "\n" : "");
    }
}

// One picture: its class and the gates of each block.
static void show(const Options *o, const Convnet *v, const char *model, const IdxImages *images,
                 const IdxLabels *labels) {
    char err[512];
    if (o->picture >= images->n) {
        die(1, "%s: expected a picture below %d, found --show %d", o->set[0], images->n, o->picture);
    }
    float *p = malloc(sizeof *p * (size_t)v->n_labels);
    if (!p) die(1, "out of memory for %d classes", v->n_labels);
    const uint8_t *pixels = images->pixels + (int64_t)o->picture * v->side * v->side;
    printf("%s: picture %d, %s; gates in tenths:\n", model, o->picture, v->labels[labels->labels[o->picture]]);
    ConvnetBatch batch = {.pixels = pixels, .n = 1, .logits = p, .visit = print_gates};
    if (convnet_classify(v, &batch, 1, err, sizeof err)) die(1, "%s: %s", model, err);
    probabilities(p, v->n_labels);
    int best = best_label(p, v->n_labels);
    printf("  taken for: %s, %.1f %%\n", v->labels[best], 100.0 * (double)p[best]);
    free(p);
}

static void evaluate(const Options *o, const Convnet *v, const char *model, const IdxImages *images,
                     const IdxLabels *labels) {
    char err[512];
    float *logits = malloc(sizeof *logits * (size_t)v->n_labels * (size_t)images->n);
    if (!logits) die(1, "out of memory for %d pictures", images->n);
    ConvnetBatch batch = {.pixels = images->pixels, .n = images->n, .logits = logits};
    double start = seconds();
    if (convnet_classify(v, &batch, o->n_threads, err, sizeof err)) die(1, "%s: %s", model, err);
    double taken = seconds() - start;
    int right = 0;
    for (int i = 0; i < images->n; i++) {
        right += best_label(logits + (int64_t)i * v->n_labels, v->n_labels) == labels->labels[i];
    }
    double accuracy = (double)right / images->n;
    long long n_params = (long long)weights_params(&v->weights);
    if (o->json) {
        json_t *line =
            json_pack("{s:s,s:I,s:i,s:i,s:f,s:f}", "attention", v->attention, "parameters", n_params, "n_images",
                      images->n, "correct", right, "accuracy", accuracy, "images_per_second", images->n / taken);
        json_t *name = json_string(model);
        json_object_set_new(line, "model", name ? name : json_null()); // the path is not UTF-8
        json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(line);
    } else {
        printf("%s: accuracy %.2f %% (%d of %d)   %lld parameters, %.1f images/s, %d threads\n", model, 100 * accuracy,
               right, images->n, n_params, images->n / taken, o->n_threads);
    }
    free(logits);
}

static void run(const Options *o, const char *model) {
    char err[512];
    Convnet v;
    IdxImages images;
    IdxLabels labels;
    if (convnet_open(&v, model, err, sizeof err)) die(1, "%s", err);
    if (idx_read_set(&images, &labels, o->set, v.n_labels, err, sizeof err)) die(1, "%s", err);
    if (images.width != v.side || images.height != v.side) {
        die(1, "%s: expected pictures of %d x %d for %s, found %d x %d", o->set[0], v.side, v.side, model, images.width,
            images.height);
    }
    if (o->picture == NO_PICTURE) evaluate(o, &v, model, &images, &labels);
    else show(o, &v, model, &images, &labels);
    idx_free_images(&images);
    idx_free_labels(&labels);
    convnet_close(&v);
}

int main(int argc, char **argv) {
    Options o = {.picture = NO_PICTURE};
    const Flag flags[] = {
        {"--eval", "IMAGES LABELS", "the pair of idx files (also .gz) to classify; needed", TAKES_STRING(o.set)},
        {"--show", "N", "only picture N of them: its class, and the gates of each block",
         TAKES_INT(&o.picture, 0, 1 << 30)},
        THREADS_FLAG(&o.n_threads),
        FORMAT_FLAG(&o.json, "text json", "text or json, an object a line (default: text)"),
    };
    const Program program = {"build/convnet", "MODEL.. --eval IMAGES LABELS [options]",
                             "  MODEL: a folder with config.json and model.safetensors, such as models/convnet/cbam\n",
                             flags, sizeof flags / sizeof *flags};
    int n = cli_parse(&program, argc, argv);
    if (!n) die(2, "no model: expected a folder such as models/convnet/cbam");
    if (!o.set[0]) die(2, "no pictures: expected --eval IMAGES LABELS");
    if (o.picture != NO_PICTURE && o.json) die(2, "--show: expected no -o json");
    if (!o.n_threads) o.n_threads = cpu_count();
    file_guard_shrinking();
    for (int i = 0; i < n; i++) run(&o, argv[i]);
    if (fflush(stdout) || ferror(stdout)) die(1, "stdout: could not be written");
    return 0;
}
