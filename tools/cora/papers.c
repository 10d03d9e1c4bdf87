// papers: see papers.h.
#include "papers.h"

#include "pickle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PAPERS = 1 << 16, MAX_WORDS = 1 << 14, MAX_CLASSES = 64, MAX_EDGES = 1 << 22 };

// One file: what it says, and how its mistakes are reported.
typedef struct {
    char path[4096];
    File file;
    json_t *value;
    char *err;
    size_t errlen;
} Source;

// A numpy array of 32-bit numbers, in the memory of its source.
typedef struct {
    const uint8_t *bytes;
    int rows, cols; // of one dimension cols is 1
} Numbers;

static void source_close(Source *s) {
    json_decref(s->value);
    file_unmap(&s->file);
}

static const json_t *at(const json_t *list, size_t i) {
    return json_array_get(list, i);
}

// The dictionary's value of a key.
static const json_t *field(const json_t *pairs, const char *key) {
    for (size_t i = 0; i + 1 < json_array_size(pairs); i += 2) {
        const char *name = json_string_value(at(pairs, i));
        if (name && !strcmp(name, key)) return at(pairs, i + 1);
    }
    return NULL;
}

static int32_t number_at(Numbers n, int64_t i) {
    int32_t x;
    memcpy(&x, n.bytes + 4 * i, sizeof x);
    return x;
}

// [reconstruct, arguments, [version, shape, dtype, in Fortran's order, bytes]]
static int read_numbers(const Source *s, const json_t *array, const char *what, const char *type, Numbers *n) {
    const json_t *state = at(array, 2), *shape = at(state, 1), *dtype = at(state, 2), *bytes = at(state, 4);
    const char *found = json_string_value(at(at(dtype, 1), 0)), *order = json_string_value(at(at(dtype, 2), 1));
    json_int_t rows = json_integer_value(at(shape, 0)), cols = 1;
    if (json_array_size(shape) == 2) cols = json_integer_value(at(shape, 1));
    if (!found || strcmp(found, type) || !order || strcmp(order, "<") || !json_is_false(at(state, 3))) {
        return fail(s->err, s->errlen, "%s: %s: expected an array of %s in C's order, found %.20s", s->path, what, type,
                    found ? found : "none");
    }
    bool sound = rows > 0 && rows <= MAX_EDGES && cols > 0 && cols <= MAX_CLASSES;
    if (!sound || json_string_length(bytes) != (size_t)(4 * rows * cols)) {
        return fail(s->err, s->errlen, "%s: %s: expected %lld x %lld numbers of 4 bytes, found %zu bytes", s->path,
                    what, (long long)rows, (long long)cols, json_string_length(bytes));
    }
    *n = (Numbers){(const uint8_t *)json_string_value(bytes), (int)rows, (int)cols};
    return 0;
}

// ---- words: [class, arguments, {_shape, indptr, indices, data}]

typedef struct {
    Numbers starts, places, values;
    int rows, cols;
} Sparse;

static int read_sparse(const Source *s, Sparse *m) {
    const json_t *state = at(s->value, 2), *shape = field(state, "_shape");
    m->rows = (int)json_integer_value(at(shape, 0));
    m->cols = (int)json_integer_value(at(shape, 1));
    if (read_numbers(s, field(state, "indptr"), "indptr", "i4", &m->starts) ||
        read_numbers(s, field(state, "indices"), "indices", "i4", &m->places) ||
        read_numbers(s, field(state, "data"), "data", "f4", &m->values)) {
        return -1;
    }
    bool sound = m->rows > 0 && m->rows <= MAX_PAPERS && m->cols > 0 && m->cols <= MAX_WORDS &&
                 m->starts.rows == m->rows + 1 && number_at(m->starts, 0) == 0 && m->values.rows == m->places.rows &&
                 number_at(m->starts, m->rows) == m->places.rows;
    for (int i = 0; sound && i < m->rows; i++) sound = number_at(m->starts, i) <= number_at(m->starts, i + 1);
    for (int i = 0; sound && i < m->places.rows; i++) {
        sound = number_at(m->places, i) >= 0 && number_at(m->places, i) < m->cols;
    }
    return sound ? 0
                 : fail(s->err, s->errlen, "%s: expected a sparse matrix, found rows or places beyond its %d x %d",
                        s->path, m->rows, m->cols);
}

// Row `from` of the matrix as a row of words whose sum is 1.
static void take_words(const Sparse *m, int from, float *row) {
    int begin = number_at(m->starts, from), end = number_at(m->starts, from + 1);
    float sum = 0;
    for (int i = begin; i < end; i++) {
        memcpy(&row[number_at(m->places, i)], m->values.bytes + 4 * (int64_t)i, sizeof *row);
        sum += row[number_at(m->places, i)];
    }
    for (int i = begin; i < end && sum > 0; i++) row[number_at(m->places, i)] /= sum;
}

static int label_of(Numbers classes, int row) {
    int label = 0;
    for (int c = 0; c < classes.cols; c++) label = number_at(classes, (int64_t)row * classes.cols + c) ? c : label;
    return label;
}

// ---- the parts

enum { KNOWN_WORDS, TEST_WORDS, KNOWN_CLASSES, TEST_CLASSES, GRAPH, PLACES, N_PARTS };
static const char *const parts[N_PARTS] = {"allx", "tx", "ally", "ty", "graph", "test.index"};

// Places of the test papers, a line each: all behind the known ones, in any order.
static int read_places(Papers *p, const Source *s) {
    const char *text = (const char *)s->file.data, *end = text + s->file.size;
    int known = p->n - p->n_test, n = 0;
    bool *seen = calloc((size_t)p->n, sizeof *seen);
    if (!seen) return fail(s->err, s->errlen, "out of memory for %d papers", p->n);
    for (; n < p->n_test; n++) {
        int place = 0;
        for (; text < end && *text >= '0' && *text <= '9' && place < p->n; text++) place = 10 * place + *text - '0';
        if (text == end || *text++ != '\n' || place < known || place >= p->n || seen[place]) break;
        seen[place] = true;
        p->test[n] = place;
    }
    free(seen);
    if (n == p->n_test && text == end) return 0;
    return fail(s->err, s->errlen, "%s: line %d: expected each number from %d to %d once, found another line", s->path,
                n + 1, known, p->n - 1);
}

static int by_number(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

// An edge as from * n + to; each of a list, back, and of every paper to itself. n_edges: room, then how many.
static int collect_edges(const Papers *p, const Source *s, int64_t *edges, int64_t *n_edges) {
    int64_t room = *n_edges, n = 0;
    for (size_t i = 2; i + 1 < json_array_size(s->value); i += 2) { // behind the class and its arguments
        json_int_t from = json_integer_value(at(s->value, i));
        const json_t *list = at(s->value, i + 1);
        for (size_t j = 0; j < json_array_size(list); j++) {
            json_int_t to = json_integer_value(at(list, j));
            if (from < 0 || from >= p->n || to < 0 || to >= p->n || n + 2 > room) {
                return fail(s->err, s->errlen, "%s: expected edges between %d papers, at most %d, found %lld to %lld",
                            s->path, p->n, MAX_EDGES, (long long)from, (long long)to);
            }
            edges[n++] = from * p->n + to;
            edges[n++] = to * p->n + from;
        }
    }
    *n_edges = n;
    return 0;
}

static int read_graph(Papers *p, const Source *s) {
    int64_t n_edges = p->n;
    for (size_t i = 3; i < json_array_size(s->value) && n_edges < MAX_EDGES; i += 2) {
        n_edges += 2 * (int64_t)json_array_size(at(s->value, i));
    }
    n_edges = n_edges < MAX_EDGES ? n_edges : MAX_EDGES;
    int64_t *edges = malloc(sizeof *edges * (size_t)n_edges), found = n_edges - p->n;
    p->graph = (Graph){p->n, calloc((size_t)p->n + 1, sizeof(int)), malloc(sizeof(int) * (size_t)n_edges)};
    bool room = edges && p->graph.start && p->graph.to;
    int rc = room ? collect_edges(p, s, edges, &found) : fail(s->err, s->errlen, "out of memory for the graph");
    for (int i = 0; i < p->n && !rc; i++) edges[found++] = (int64_t)i * (p->n + 1);
    if (!rc) qsort(edges, (size_t)found, sizeof *edges, by_number);
    int n = 0;
    for (int64_t e = 0; e < found && !rc; e++) {
        if (e && edges[e] == edges[e - 1]) continue;
        p->graph.to[n++] = (int)(edges[e] % p->n);
        p->graph.start[edges[e] / p->n + 1] = n;
    }
    free(edges);
    return rc;
}

static int read_papers(Papers *p, const Source *s) {
    Sparse words[2];
    Numbers classes[2];
    for (int i = 0; i < 2; i++) {
        const Source *labels = &s[KNOWN_CLASSES + i];
        if (read_sparse(&s[KNOWN_WORDS + i], &words[i]) ||
            read_numbers(labels, labels->value, "labels", "i4", &classes[i])) {
            return -1;
        }
        bool fits = classes[i].rows == words[i].rows && classes[i].cols == classes[0].cols;
        if (fits && words[i].cols == words[0].cols) continue;
        return fail(s->err, s->errlen, "%s: expected %d papers of %d classes, found %d of %d", labels->path,
                    words[i].rows, classes[0].cols, classes[i].rows, classes[i].cols);
    }
    *p = (Papers){.n = words[0].rows + words[1].rows, .n_words = words[0].cols, .n_classes = classes[0].cols};
    p->n_test = words[1].rows;
    p->words = floats_need((int64_t)p->n * p->n_words);
    p->labels = calloc((size_t)p->n, sizeof *p->labels);
    p->test = calloc((size_t)p->n_test, sizeof *p->test);
    if (!p->labels || !p->test) return fail(s->err, s->errlen, "out of memory for %d papers", p->n);
    if (read_places(p, &s[PLACES])) return -1;
    for (int i = 0; i < p->n; i++) {
        int test = i - words[0].rows, part = test >= 0, row = part ? test : i, place = part ? p->test[test] : i;
        take_words(&words[part], row, p->words + (int64_t)place * p->n_words);
        p->labels[place] = label_of(classes[part], row);
    }
    return read_graph(p, &s[GRAPH]);
}

static int source_open(Source *s, const char *folder, int part, char *err, size_t errlen) {
    s->err = err;
    s->errlen = errlen;
    snprintf(s->path, sizeof s->path, "%s/ind.cora.%s", folder, parts[part]);
    if (file_map(&s->file, s->path, err, errlen)) return -1;
    if (part != PLACES && !(s->value = pickle_read(&s->file, err, errlen))) return -1;
    return 0;
}

int papers_open(Papers *p, const char *folder, char *err, size_t errlen) {
    Source sources[N_PARTS] = {0};
    int rc = 0;
    *p = (Papers){0};
    for (int i = 0; i < N_PARTS && !rc; i++) rc = source_open(&sources[i], folder, i, err, errlen);
    if (!rc) rc = read_papers(p, sources);
    for (int i = 0; i < N_PARTS; i++) source_close(&sources[i]);
    if (rc) papers_close(p);
    return rc;
}

void papers_close(Papers *p) {
    free(p->words);
    free(p->labels);
    free(p->test);
    graph_free(&p->graph);
    *p = (Papers){0};
}
