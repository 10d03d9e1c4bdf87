// quantize: writes a model as GGUF with its matrices in another type, and reports the quantization error.
//
// Owns the conversion of tensors and the error statistics; reads what ./run reads, of every family. Tensor names and
// the order of rows are gguf_model's. Norms, biases, routers and positions become F32, the other matrices the requested
// type; one that has it already keeps its bytes. Refuses to overwrite its input, values that are not finite or out of
// the type's range, and a model that GGUF cannot represent. The settings of a GGUF are copied byte for byte, except for
// file type, split and alignment.
#include "cli.h"

#include "gguf_model.h"
#include "gguf_vocab.h"
#include "load.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <stb/stb_ds.h>

enum { CHUNK = 1 << 20, BAR = 30 }; // values written at a time; width of the progress bar

typedef struct {
    const char *in, *out, *tokenizer;
    GgufMix mix;
    GgufMix output, embedding; // rules NULL: as the mix says
    bool pure, no_vocab;
    int n_threads;
} Options;

// The conversion of one matrix, a chunk of rows at a time.
typedef struct {
    const Rows *from;
    DType to;
    int64_t cols, row0;
    size_t row_bytes;  // of `to`
    float *rows;       // [threads][2][cols]
    uint8_t *packed;   // [rows of a chunk][row_bytes]
    double (*sums)[2]; // [rows of a chunk]: squared error, squared values
} Job;

typedef struct {
    double error, power, worst;
    const char *worst_name;
    uint64_t n_done, n_total; // values
} ErrorStats;

static void take_type(void *to, const char *flag, const char *value) {
    GgufMix *mix = to;
    *mix = gguf_mix_named(value, true);
    if (!mix->rules) die(2, "%s: expected " GGUF_TYPES ", found '%s'", flag, value);
}

// As llama-quantize names the output that is not given: "ggml-model-Q4_K_M.gguf" beside the input.
static const char *default_out(const char *in, GgufMix mix) {
    const char *slash = strrchr(in, '/');
    char *out;
    if (asprintf(&out, "%.*sggml-model-%s.gguf", slash ? (int)(slash - in) + 1 : 0, in, gguf_mix_name(mix)) < 0)
        die(1, "out of memory");
    return out; // for the life of the program
}

// IN [OUT] TYPE [THREADS]
static void take_names(Options *o, const Program *program, int argc, char **argv) {
    int n = cli_parse(program, argc, argv);
    long long n_threads;
    if (n >= 3 && n <= 4 && gguf_mix_named(argv[n - 2], o->pure).rules && cli_integer(argv[n - 1], &n_threads)) {
        if (n_threads < 1 || n_threads > MAX_THREADS) die(2, "%s: expected 1 to %d threads", argv[n - 1], MAX_THREADS);
        o->n_threads = (int)n_threads;
        n--;
    }
    if (n < 2 || n > 3) die(2, "expected %s, found %d argument%s", program->usage, n, n == 1 ? "" : "s");
    o->in = argv[0];
    o->mix = gguf_mix_named(argv[n - 1], o->pure);
    if (!o->mix.rules) die(2, "%s: expected " GGUF_TYPES, argv[n - 1]);
    o->mix.output = o->output.rules;
    o->mix.embedding = o->embedding.rules;
    o->out = n == 3 ? argv[1] : default_out(o->in, o->mix);
}

static Options parse(int argc, char **argv) {
    static Options o;
    const Flag flags[] = {
        {"-z --tokenizer", "FILE", "use another tokenizer: a .gguf, a folder, tokenizer.bin or .json",
         TAKES_STRING(&o.tokenizer)},
        {"--pure", NULL, "every matrix of one type", SETS(&o.pure)},
        {"--output-tensor-type", "TYPE", "the type of the output matrix", TAKES_CALL(&o.output, take_type)},
        {"--token-embedding-type", "TYPE", "the type of the embedding", TAKES_CALL(&o.embedding, take_type)},
        {"--no-vocab", NULL, "omit the vocabulary", SETS(&o.no_vocab)},
        THREADS_FLAG(&o.n_threads),
        {"--allow-requantize", NULL, NULL, FLAG_NOTE, .words = "any type is read"},
        {"--keep-split", NULL, NULL, FLAG_NOTE, .words = "one file is written"},
        {"--dry-run", NULL, NULL, FLAG_REFUSED, .words = "the file is always written"},
        {"--leave-output-tensor", NULL, NULL, FLAG_REFUSED,
         .words = "not here; --output-tensor-type gives the output matrix a type of its own"},
        {"--imatrix --include-weights --exclude-weights", "X", NULL, FLAG_REFUSED,
         .words = "weights are rounded alike, without an importance matrix"},
        {"--tensor-type --tensor-type-file --prune-layers", "X", NULL, FLAG_REFUSED,
         .words = "the types of other tensors are those of the mix; --pure has one for all"},
        {"--override-kv", "X", NULL, FLAG_REFUSED, .words = "settings are as the model's files say"},
    };
    const Program program = {
        "build/quantize", "IN [OUT.gguf] TYPE [options]",
        "  IN:   a model: a Hugging Face folder or .safetensors, .gguf of any type, or llama2.c's .bin\n"
        "  TYPE: of the matrices: " GGUF_PLAIN_TYPES ",\n"
        "        " GGUF_SIZED_TYPES ", as llama.cpp\n"
        "        means them: some matrices get more bits; norms and biases are F32\n",
        flags, sizeof flags / sizeof *flags};
    take_names(&o, &program, argc, argv);
    if (o.tokenizer && o.no_vocab) die(2, "-z and --no-vocab: expected one, found both");
    return o;
}

static void check_out(const Options *o, const Model *m, const File *tokenizer) {
    struct stat st;
    if (!stat(o->out, &st) && S_ISDIR(st.st_mode)) die(1, "%s: is a directory", o->out);
    if (!strcmp(o->out, "-") && isatty(STDOUT_FILENO)) die(2, "-: expected stdout to be a file or a pipe");
    ptrdiff_t n = arrlen(m->weights.files);
    for (ptrdiff_t i = 0; i < n + 2; i++) {
        const char *in = i == n ? tokenizer->path : o->tokenizer;
        if (i < n) in = m->weights.files[i].path;
        if (in && file_same(in, o->out)) die(2, "%s: the output would overwrite the input %s", o->out, in);
    }
}

static void convert_row(void *context, int item, int worker) {
    Job *j = context;
    const Tensor *t = &j->from->from;
    int64_t row = rows_at(j->from, j->row0 + item);
    float *x = j->rows + 2 * worker * j->cols, *y = x + j->cols;
    uint8_t *to = j->packed + (size_t)item * j->row_bytes;
    row_unpack(x, t, row);
    double power = 0, error = 0;
    for (int64_t i = 0; i < j->cols; i++) power += (double)x[i] * (double)x[i];
    if (isfinite(power)) {
        bool as_is = t->dtype == j->to || (t->dtype == DTYPE_MXFP4_SPLIT && j->to == DTYPE_MXFP4);
        if (as_is) row_copy(to, t, row);
        else values_pack(j->to, to, x, j->cols);
        values_unpack(j->to, y, to, j->cols);
        for (int64_t i = 0; i < j->cols; i++) error += ((double)y[i] - (double)x[i]) * ((double)y[i] - (double)x[i]);
    }
    j->sums[item][0] = error;
    j->sums[item][1] = power;
}

static void show_progress(const ErrorStats *a, const char *name, uint64_t n_new) {
    uint64_t before = a->n_done * 100 / a->n_total, now = (a->n_done + n_new) * 100 / a->n_total;
    if (before == now || !isatty(STDERR_FILENO)) return;
    int full = (int)now * BAR / 100;
    fprintf(stderr, "%3d %% [", (int)now);
    for (int i = 0; i < BAR; i++) fputc(i < full ? '#' : '.', stderr);
    fprintf(stderr, "] %-30.30s\r", name); // the next message overwrites it
    if (now == 100) fprintf(stderr, "%*s\r", BAR + 40, "");
}

// Adds the sums of a chunk in the order of its rows; exits if a value is not finite.
static void add_chunk(ErrorStats *a, GgufWriter *w, const char *name, const Job *j, int n, double sums[2]) {
    for (int i = 0; i < n; i++) {
        if (!isfinite(j->sums[i][1]) || !isfinite(j->sums[i][0])) {
            const char *out = w->path, *range = j->to == DTYPE_F16 ? " up to 65504" : " in the type's range";
            if (!isfinite(j->sums[i][1])) range = "";
            gguf_abandon(w);
            die(1, "%s: tensor %s: row %lld: expected finite values%s, found others", out, name,
                (long long)(j->row0 + i), range);
        }
        sums[0] += j->sums[i][0];
        sums[1] += j->sums[i][1];
    }
    show_progress(a, name, (uint64_t)(n * j->cols));
    a->n_done += (uint64_t)(n * j->cols);
}

// Rows of one matrix of the decoder, a chunk at a time.
static void convert_rows(GgufWriter *w, ThreadPool *pool, const char *name, const Rows *from, DType to, ErrorStats *a,
                         double sums[2]) {
    int64_t cols = from->from.shape[from->from.n_dims - 1];
    int64_t most = CHUNK / cols > 0 ? CHUNK / cols : 1, room = from->n < most ? from->n : most;
    Job j = {.from = from, .to = to, .cols = cols, .row_bytes = dtype_row_bytes(to, cols)};
    j.rows = malloc(sizeof(float) * 2 * (size_t)cols * (size_t)threads_count(pool));
    j.packed = malloc(j.row_bytes * (size_t)room);
    j.sums = malloc(sizeof *j.sums * (size_t)room);
    if (!j.rows || !j.packed || !j.sums) {
        gguf_abandon(w);
        die(1, "tensor %s: out of memory", name);
    }
    for (; j.row0 < from->n; j.row0 += most) {
        int n = (int)(from->n - j.row0 < most ? from->n - j.row0 : most);
        threads_for(pool, n, convert_row, &j);
        add_chunk(a, w, name, &j, n, sums);
        gguf_data(w, j.packed, (uint64_t)n * j.row_bytes);
    }
    free(j.rows);
    free(j.packed);
    free(j.sums);
}

static void convert(GgufWriter *w, ThreadPool *pool, const Part *p, ErrorStats *a) {
    double sums[2] = {0, 0};
    for (ptrdiff_t i = 0; i < arrlen(p->rows); i++) convert_rows(w, pool, p->name, &p->rows[i], p->as.dtype, a, sums);
    gguf_align(w);
    if (!p->matrix) return;
    double nmse = sums[1] > 0 ? sums[0] / sums[1] : 0;
    if (!a->worst_name || nmse > a->worst) {
        a->worst = nmse;
        a->worst_name = p->name;
    }
    a->error += sums[0];
    a->power += sums[1];
}

static bool begins(const char *key, const char *with) {
    return !strncmp(key, with, strlen(with));
}

static bool is_layout_key(const char *key) {
    return !strcmp(key, "general.file_type") || !strcmp(key, "general.quantization_version") ||
           !strcmp(key, "general.alignment") || begins(key, "split.");
}

static bool ends(const char *key, const char *with) {
    size_t n = strlen(key), m = strlen(with);
    return n >= m && !strcmp(key + n - m, with);
}

// Copies the settings of a GGUF: the model's, whose layers are these (0: none is wanted), and the tokenizer's. Layers
// that predict further tokens are not written.
static void copy_settings(GgufWriter *w, const File *file, int n_layers, bool tokenizer) {
    char err[512];
    Gguf g;
    if (gguf_read(&g, file, err, sizeof err)) die(1, "%s", err);
    for (ptrdiff_t i = 0; i < shlen(g.pairs); i++) {
        const char *key = g.pairs[i].key;
        bool wanted = begins(key, "tokenizer.") ? tokenizer : n_layers > 0;
        if (!wanted || is_layout_key(key) || ends(key, ".nextn_predict_layers")) continue;
        if (ends(key, ".block_count")) gguf_u32(w, key, (uint32_t)n_layers);
        else gguf_pair(w, &g, &g.pairs[i]);
    }
    gguf_free(&g);
}

// "stories" for "models/stories.bin"; the whole name of a folder.
static void name_of(char *name, size_t size, const char *path) {
    struct stat st;
    bool is_folder = !stat(path, &st) && S_ISDIR(st.st_mode);
    size_t end = strlen(path), at;
    while (end > 1 && path[end - 1] == '/') end--;
    at = end;
    while (at > 0 && path[at - 1] != '/') at--;
    const char *dot = strrchr(path + at, '.');
    if (!is_folder && dot && dot > path + at) end = (size_t)(dot - path);
    snprintf(name, size, "%.*s", (int)(end - at), path + at);
}

// From a file or a folder; the settings of a GGUF are copied.
static void put_tokenizer(GgufWriter *w, const Options *o, const Model *m, File *file) {
    char err[512];
    struct stat st;
    Vocab v;
    if (o->no_vocab) {
        gguf_text(w, "tokenizer.ggml.model", "no_vocab");
        return;
    }
    if (o->tokenizer && !stat(o->tokenizer, &st) && S_ISREG(st.st_mode)) {
        if (file_map(file, o->tokenizer, err, sizeof err)) die(1, "%s", err);
        if (file_is_gguf(file)) {
            copy_settings(w, file, 0, true);
            return;
        }
        file_unmap(file);
    }
    if (load_vocab(&v, file, m, o->tokenizer, err, sizeof err)) die(1, "%s", err);
    tell_notes(v.notes.text);
    gguf_vocab(w, &v, m->config.vocab_size, o->tokenizer ? o->tokenizer : o->in);
}

static void put_settings(GgufWriter *w, const Options *o, const Model *m, const Decoder *d, File *tokenizer) {
    const File *file = &m->weights.files[0];
    const char *unwritten = gguf_model_unwritten(&m->config);
    if (unwritten) die(1, "%s: cannot be written: layers of kind %s", o->in, unwritten);
    const Family *f = gguf_model_family(m);
    bool own = !o->tokenizer && !o->no_vocab;
    if (file_is_gguf(file)) {
        copy_settings(w, file, m->config.n_layers, own);
        if (!own) put_tokenizer(w, o, m, tokenizer);
    } else {
        char name[256];
        const char *unsupported = gguf_model_unsupported(f, &m->config);
        if (unsupported) die(1, "%s: GGUF cannot represent this model: %s", o->in, unsupported);
        name_of(name, sizeof name, o->in);
        gguf_general_settings(w, f, name);
        gguf_model_settings(w, f, d);
        put_tokenizer(w, o, m, tokenizer);
    }
    gguf_type_settings(w, o->mix);
}

static void convert_all(GgufWriter *w, ThreadPool *pool, const Part *parts, ErrorStats *a) {
    for (ptrdiff_t i = 0; i < arrlen(parts); i++) a->n_total += (uint64_t)tensor_count(&parts[i].as);
    gguf_begin(w);
    for (ptrdiff_t i = 0; i < arrlen(parts); i++) convert(w, pool, &parts[i], a);
}

static void print_report(const Options *o, const ErrorStats *a, uint64_t in, uint64_t out, double time) {
    fprintf(
        stderr,
        "%s: %s | %llu -> %llu bytes (%.2f bits a weight) | NMSE %.3g, worst %.3g in %s | %.2f s, %.1f M values/s\n",
        o->out, gguf_mix_name(o->mix), (unsigned long long)in, (unsigned long long)out,
        8 * (double)out / (double)a->n_total, a->power > 0 ? a->error / a->power : 0, a->worst, a->worst_name, time,
        (double)a->n_total * 1e-6 / time);
}

int main(int argc, char **argv) {
    Options o = parse(argc, argv);
    char err[512];
    double start = seconds();
    Model m;
    Decoder d;
    File tokenizer = {0};
    TypeCount count = {0};
    ErrorStats a = {0};
    file_guard_shrinking();
    if (load_model(&m, o.in, err, sizeof err) || decoder_bind(&d, &m, err, sizeof err)) die(1, "%s", err);
    tell_notes(m.notes.text);
    GgufWriter w = gguf_writer(o.out);
    put_settings(&w, &o, &m, &d, &tokenizer);
    check_out(&o, &m, &tokenizer);
    ThreadPool *pool = threads_start(o.n_threads ? o.n_threads : cpu_count(), err, sizeof err);
    if (!pool) die(1, "%s", err);
    Part *parts = gguf_model_parts(&w, gguf_model_family(&m), &d, o.mix, &count);
    convert_all(&w, pool, parts, &a);
    uint64_t out = gguf_finish(&w);
    gguf_type_note(&count, o.mix);
    print_report(&o, &a, weights_file_bytes(&m.weights), out, seconds() - start);
    gguf_parts_free(parts);
    threads_stop(pool);
    file_unmap(&tokenizer);
    decoder_free(&d);
    weights_free(&m.weights);
    return 0;
}
