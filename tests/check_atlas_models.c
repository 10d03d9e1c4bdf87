// check_atlas_models: the folders of models/atlas predict a text as PyTorch did when it had trained them: bits per byte
// of short.txt against quality.tsv, and no folder is there without its row.
#include "child.h"

#define FOLDER "models/atlas/"

enum { MOST_ROWS = 32 };

typedef struct {
    char name[32];
    double bits;
    int window, sinks; // what a folder cannot say; 0: none
} Row;

static int read_rows(Row rows[MOST_ROWS]) {
    char *text = read_file(FOLDER "quality.tsv", NULL), *rest = text;
    int n = 0;
    for (char *line; (line = strsep(&rest, "\n")) && n < MOST_ROWS;) {
        if (!*line || *line == '#') continue;
        Row *r = &rows[n++];
        int found = sscanf(line, "%31s %lf %d %d", r->name, &r->bits, &r->window, &r->sinks);
        CHECK(found == 4, "quality.tsv: expected a name and three numbers, found '%s'", line);
    }
    free(text);
    return n;
}

static void check_row(const Row *r) {
    char model[sizeof FOLDER + sizeof r->name], window[16], sinks[16];
    snprintf(model, sizeof model, FOLDER "%.31s", r->name);
    snprintf(window, sizeof window, "%d", r->window);
    snprintf(sinks, sizeof sinks, "%d", r->sinks);
    json_t *o = told(CALL("perplexity", model, "-f", FOLDER "short.txt", "--documents", "--kv", "f32", "-o", "json",
                          r->window ? "--window" : NULL, window, "--sinks", sinks));
    double bits = number(o, "bits_per_byte");
    CHECK(fabs(bits - r->bits) < 1e-3, "%s: expected %.5f bits per byte, found %.5f", r->name, r->bits, bits);
    json_decref(o);
}

static void predict_as_trained(void) {
    Row rows[MOST_ROWS];
    int n = read_rows(rows), n_folders = 0;
    for (int i = 0; i < n; i++) check_row(&rows[i]);
    DIR *d = opendir(FOLDER);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        n_folders += e->d_type == DT_DIR && e->d_name[0] != '.';
    }
    if (d) closedir(d);
    CHECK(n > 0 && n == n_folders, "quality.tsv: expected a row for each of %d folders, found %d", n_folders, n);
}

int main(void) {
    folder_make();
    need_program("perplexity");
    RUN(predict_as_trained);
    folder_remove();
    return test_report();
}
