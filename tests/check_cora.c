// check_cora: pickles, the Cora graph, and its two networks: against a naive forward pass in double, the figures that
// the training framework gave, and files that say something else than they should.
#include "child.h"

#include "load.h"
#include "network.h"
#include "pickle.h"

#define DATA SHARED_DATA "cora"
#define GAT "models/cora/gat.safetensors"
#define GCN "models/cora/gcn.safetensors"

// ---- pickles

static json_t *read_bytes(const char *bytes, size_t n, char *err, size_t errlen) {
    *err = 0;
    File f = {.path = "p", .data = (const uint8_t *)bytes, .size = n, .borrowed = true};
    return pickle_read(&f, err, errlen);
}

#define BYTES(text) text, sizeof text - 1

static const struct {
    const char *bytes;
    size_t n;
    const char *says; // JSON, or for a refusal what the line holds
} samples[] = {
    {BYTES("\x80\x02]q\x01(K\x01M\x02\x01J\xff\xff\xff\xffU\x02"
           "abe."),
     "[1,258,-1,\"ab\"]"},
    {BYTES("}(T\x01\0\0\0kK\x05T\x01\0\0\0mNu."), "[\"k\",5,\"m\",null]"},
    {BYTES("cm\nf\nK\x01\x85R(K\x02K\x03tb."), "[\"m\\nf\\n\",[1],[2,3]]"},
    {BYTES("cm\nf\n)\x81]K\x04"
           "ab."),
     "[\"m\\nf\\n\",[],[4]]"},
    {BYTES("]r\x02\x01\0\0K\x01\x88\x89\x87j\x02\x01\0\0\x86\x86."), "[[],[[1,true,false],[]]]"},
    {BYTES("K\x01q\x07h\x07\x86."), "[1,1]"},
    {BYTES("\x80\x03."), "at byte 0: expected protocol 2"},
    {BYTES("K\x01i."), "at byte 2: expected an opcode"},
    {BYTES("K\x01t."), "expected a mark"},
    {BYTES("(K\x01\x86."), "expected 2 values, found 1"},
    {BYTES("K\x01K\x02"
           "a."),
     "expected a list to add to"},
    {BYTES("]K\x01\x87."), "expected 3 values, found 2"},
    {BYTES("h\x05."), "found number 5"},
    {BYTES("]r\0\0\1\0."), "below 65536"},
    {BYTES("K\x01K\x02."), "found 2"},
    {BYTES("."), "found 0"},
    {BYTES("T\xff\xff\xff\xffx."), "a string"},
};

static void pickles(void) {
    char err[512];
    for (int i = 0; i < N_OF(samples); i++) {
        json_t *got = read_bytes(samples[i].bytes, samples[i].n, err, sizeof err);
        char *says = got ? json_dumps(got, JSON_COMPACT) : NULL;
        CHECK(says ? !strcmp(says, samples[i].says) : strstr(err, samples[i].says) != NULL,
              "sample %d: expected %s, found %s", i, samples[i].says, says ? says : err);
        free(says);
        json_decref(got);
        for (size_t n = 0; n < samples[i].n; n++) {
            got = read_bytes(samples[i].bytes, n, err, sizeof err);
            CHECK(!got && *err, "sample %d: its first %zu bytes are taken for a pickle", i, n);
            json_decref(got);
        }
    }
    enum { DEEP = 30000 };
    char *deep = need(DEEP + 2);
    memset(deep, '\x85', DEEP);
    deep[0] = 'N';
    deep[DEEP + 1] = '.';
    CHECK(!read_bytes(deep, DEEP + 2, err, sizeof err) && strstr(err, "lists"), "lists in lists: %s", err);
    free(deep);
}

// ---- networks

// A layer of a network in double, over an n x n view of who sees whom.
static void naive_layer(const Papers *p, Weights *w, int i, int inputs, int outputs, const double *x, double *out) {
    char err[512], names[4][40];
    static const char *const parts[] = {"weight", "bias", "from", "to"};
    const float *t[4] = {0};
    int heads = 1, n = p->n;
    for (int j = 0; j < 4; j++) {
        snprintf(names[j], sizeof names[j], "%d.%s", i, parts[j]);
        const Tensor *found = weights_find(w, names[j]);
        if (found) t[j] = weights_floats(w, names[j], found->shape, found->n_dims, err, sizeof err);
        if (found && j == 2) heads = (int)found->shape[0];
    }
    int width = outputs / heads;
    double *h = need(sizeof *h * (size_t)(n * outputs));
    for (int v = 0; v < n * outputs; v++) {
        h[v] = 0;
        for (int k = 0; k < inputs; k++) {
            double of = x[(int64_t)(v / outputs) * inputs + k];
            if (of != 0) h[v] += of * (double)t[0][(int64_t)(v % outputs) * inputs + k];
        }
    }
    bool *sees = need((size_t)n);
    for (int v = 0; v < n; v++) {
        memset(sees, 0, (size_t)n);
        for (int e = p->graph.start[v]; e < p->graph.start[v + 1]; e++) sees[p->graph.to[e]] = true;
        for (int head = 0; head < heads; head++) {
            double sum = 0, *o = out + (int64_t)v * outputs + head * width;
            for (int c = 0; c < width; c++) o[c] = 0;
            for (int u = 0; u < n; u++) {
                if (!sees[u]) continue;
                const double *hv = h + (int64_t)v * outputs + head * width,
                             *hu = h + (int64_t)u * outputs + head * width;
                double score = 0, degrees = (p->graph.start[v + 1] - p->graph.start[v]) *
                                            (double)(p->graph.start[u + 1] - p->graph.start[u]);
                for (int c = 0; c < width && t[2]; c++) {
                    score += hv[c] * (double)t[2][head * width + c] + hu[c] * (double)t[3][head * width + c];
                }
                double by = t[2] ? exp(score > 0 ? score : 0.2 * score) : 1 / sqrt(degrees);
                sum += by;
                for (int c = 0; c < width; c++) o[c] += by * hu[c];
            }
            for (int c = 0; c < width; c++) o[c] = o[c] / (t[2] ? sum : 1) + (double)t[1][head * width + c];
        }
    }
    free(sees);
    free(h);
}

static void naive_network(const Papers *p, const char *path, double *logits) {
    char err[512];
    Weights w = {0};
    NEED(!load_safetensors(&w, path, err, sizeof err), "%s", err);
    int hidden = (int)weights_find(&w, "0.weight")->shape[0];
    bool gat = weights_find(&w, "0.from");
    double *x = need(sizeof *x * (size_t)p->n * (size_t)p->n_words);
    double *y = need(sizeof *y * (size_t)p->n * (size_t)hidden);
    for (int64_t i = 0; i < (int64_t)p->n * p->n_words; i++) x[i] = (double)p->words[i];
    naive_layer(p, &w, 0, p->n_words, hidden, x, y);
    for (int i = 0; i < p->n * hidden; i++) y[i] = y[i] > 0 ? y[i] : gat ? expm1(y[i]) : 0;
    naive_layer(p, &w, 1, hidden, p->n_classes, y, logits);
    weights_free(&w);
    free(x);
    free(y);
}

// right: of 1,000 test papers, by the framework that trained it, from the same file.
static void network(const char *path, int right) {
    SKIP_WITHOUT(DATA);
    char err[512];
    const char *kind;
    Papers p;
    NEED(!papers_open(&p, DATA, err, sizeof err), "%s", err);
    CHECK(p.n == 2708 && p.n_words == 1433 && p.n_classes == 7 && p.n_test == 1000 && p.graph.start[p.n] == 13264,
          "%d papers, %d words, %d classes, %d tests, %d edges", p.n, p.n_words, p.n_classes, p.n_test,
          p.graph.start[p.n]);
    int n = p.n * p.n_classes;
    double *want = need(sizeof *want * (size_t)n);
    float *got = need_floats(n), *first = need_floats(n);
    naive_network(&p, path, want);
    for (int threads = 1; threads <= 3; threads += 2) {
        Compute c;
        NEED(!compute_open(&c, threads, err, sizeof err), "%s", err);
        CHECK(!network_run(path, &p, &c, got, &kind, err, sizeof err), "%s", err);
        double error = sqrt(nmse(got, want, n));
        CHECK(error < 1e-5, "%s: relative error %.3g", path, error);
        CHECK(lround(1000 * network_accuracy(&p, got)) == right, "%s: %.4f right, expected %d of 1000", path,
              network_accuracy(&p, got), right);
        if (threads == 1) memcpy(first, got, sizeof *got * (size_t)n);
        CHECK(!memcmp(first, got, sizeof *got * (size_t)n), "%s: %d threads give other bits than 1", path, threads);
        compute_close(&c);
    }
    free(want);
    free(got);
    free(first);
    papers_close(&p);
}

// ---- the program, and what it refuses

// The folder gets Cora's files, of which one has `to` in place of the first `from`.
static void change(const char *part, const char *from, size_t n_from, const char *to, size_t n_to) {
    static const char *const parts[] = {"allx", "tx", "ally", "ty", "graph", "test.index"};
    char path[512], name[64];
    folder_empty();
    for (int i = 0; i < N_OF(parts); i++) {
        size_t n, at = 0;
        snprintf(path, sizeof path, DATA "/ind.cora.%s", parts[i]);
        snprintf(name, sizeof name, "ind.cora.%s", parts[i]);
        char *bytes = read_file(path, &n);
        if (!strcmp(parts[i], part)) {
            char *place = memmem(bytes, n, from, n_from), *changed = need(n + n_to);
            NEED(place, "%s: %s is not there", part, from);
            at = (size_t)(place - bytes);
            memcpy(changed, bytes, at);
            memcpy(changed + at, to, n_to);
            memcpy(changed + at + n_to, place + n_from, n - at - n_from);
            write_bytes(in_folder(name), changed, n - n_from + n_to);
            free(changed);
        } else write_bytes(in_folder(name), bytes, n);
        free(bytes);
    }
}

static void program(void) {
    SKIP_WITHOUT(DATA);
    static const struct {
        const char *part, *from;
        size_t n_from;
        const char *to;
        size_t n_to;
        const char *says;
    } bad[] = {{"test.index", BYTES("2692\n"), BYTES("2692x\n"), "line 1: expected each number from 1708 to 2707"},
               {"test.index", BYTES("2692\n"), BYTES(""), "line 1000"},
               {"test.index", BYTES("2692\n"), BYTES("2692\n2692\n"), "line 2"},
               {"test.index", BYTES("2692\n"), BYTES("99999999999\n"), "line 1"},
               {"graph", BYTES("K\0"), BYTES("M\xff\xff"), "edges between 2708 papers"},
               {"ally", BYTES("M\xac\x06"), BYTES("M\xab\x06"), "expected 1707 x 7 numbers"},
               {"ty", BYTES("i4"), BYTES("i8"), "expected an array of i4"},
               {"allx", BYTES("indptr"), BYTES("indpt_"), "indptr"},
               {"tx", BYTES("M\x99\x05"), BYTES("M\x10\x00"), "beyond its 1000 x 16"}};
    TELLS(0, "83.2 % of the test papers; published 83.0 %", "!", "cora", GAT, GCN, "--data", DATA);
    json_t *o = told(CALL("cora", GCN, "-o", "json", "-t", "1"));
    CHECK(fabs(number(o, "accuracy") - 82.1) < 1e-6, "accuracy %g", number(o, "accuracy"));
    json_decref(o);
    for (int i = 0; i < N_OF(bad); i++) {
        change(bad[i].part, bad[i].from, bad[i].n_from, bad[i].to, bad[i].n_to);
        refuses(1, bad[i].says, bad[i].part, CALL("cora", GAT, "--data", folder));
    }
    REFUSES(1, "0.weight", "cora", "models/vit/model.safetensors");
}

static void wrong_lines(void) {
    REFUSES(2, "expected a model", "cora", "-t", "1");
    REFUSES(1, "--data says where", "cora", GAT, "--data", "/nowhere");
}

int main(void) {
    folder_make();
    need_program("cora");
    RUN(pickles);
    RUN_AS("gat", network(GAT, 832));
    RUN_AS("gcn", network(GCN, 821));
    RUN(program);
    RUN(wrong_lines);
    folder_remove();
    return test_report();
}
