// encdec: the command line of build/encdec: the pronunciation of each word, one line each.
//
// Owns the flags and the output. Words come from -p, -f or stdin; --eval scores a pronouncing dictionary; --attention
// draws the cross-attention. Refuses a wrong command line with exit status 2.
#include "alignment.h"
#include "cli.h"
#include "score.h"
#include "trace.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <stb/stb_ds.h>

enum { WORDS_AT_ONCE = 8192, DEFAULT_NEW = 512, EVAL_BEAMS = 4 };

typedef struct {
    const char *model, *prompt, *file, *picture, *eval;
    char *eval_default; // owned
    int n_beams, max_new, n_threads, batch, json;
    bool quiet, evaluates;
} Options;

static void take_eval(void *to, const char *flag, const char *value) {
    (void)flag;
    Options *o = to;
    o->evaluates = true;
    o->eval = value;
}

static Options parse(int argc, char **argv) {
    static Options o = {.batch = 32};
    const Flag flags[] = {
        MODEL_FLAG(&o.model),
        {"-p --prompt", "TEXT", "words to pronounce", TAKES_STRING(&o.prompt)},
        {"-f --file", "FILE", "words from a file, - for stdin (default: stdin)", TAKES_STRING(&o.file)},
        {"-b --beams", "N", "beams, 1 for greedy decoding (default: 1; with --eval: 4)",
         TAKES_INT(&o.n_beams, 1, MAX_BEAMS)},
        {"-n --n-predict | --predict", "N", "maximum symbols of an output (default: the model's own)",
         TAKES_INT(&o.max_new, 1, DEFAULT_NEW)},
        THREADS_FLAG(&o.n_threads),
        {"--batch", "N", "words decoded together (default: 32)", TAKES_INT(&o.batch, 1, MAX_BATCH)},
        FORMAT_FLAG(&o.json, "text json", "text: lines \"word<TAB>symbols\"; json: one object a line (default: text)"),
        {"--attention", "FILE.svg|.png", "draw the cross-attention of one word, averaged and by head",
         TAKES_STRING(&o.picture)},
        {"--eval", "[FILE]",
         "word and phoneme error rates on a dictionary in CMUdict format (default: MODEL/test.dict)",
         TAKES_CALL(&o, take_eval)},
        QUIET_FLAG(&o.quiet),
    };
    const Program program = {
        "build/encdec", "MODEL [-p \"words\" | -f FILE] [options]",
        "  MODEL: a folder with config.json and model.safetensors (BART, mBART), or the .safetensors file\n", flags,
        sizeof flags / sizeof *flags};
    cli_one_model(&program, argc, argv, &o.model);
    bool eval = o.evaluates;
    if ((o.prompt != NULL) + (o.file != NULL) + eval > 1) die(2, "-p, -f and --eval: expected one, found more");
    size_t length = o.picture ? strlen(o.picture) : 0;
    if (o.picture &&
        (length < 4 || (strcmp(o.picture + length - 4, ".svg") && strcmp(o.picture + length - 4, ".png")))) {
        die(2, "--attention: expected a name that ends in .svg or .png, found '%s'", o.picture);
    }
    if (eval && o.picture) die(2, "--attention: expected with -p or -f, found with --eval");
    if (eval && !o.eval && asprintf(&o.eval_default, "%s/test.dict", o.model) > 0) o.eval = o.eval_default;
    if (!o.n_beams) o.n_beams = eval ? EVAL_BEAMS : 1;
    if (!o.n_threads) o.n_threads = cpu_count();
    return o;
}

typedef struct {
    int n_words;
    double seconds;
    bool refused; // the model cannot read some word
} Totals;

static void print_json(const G2p *m, const Word *w, const Decoded *d) {
    json_t *symbols = json_array();
    for (int i = 0; i < d->n; i++) {
        const char *symbol = symbols_text(&m->phonemes, d->ids[i]);
        if (symbol) json_array_append_new(symbols, json_string(symbol));
    }
    json_t *line = json_object(), *word = json_string(w->text);
    json_object_set_new(line, "word", word ? word : json_null()); // not UTF-8
    json_object_set_new(line, "symbols", symbols);
    if (d->ids) json_object_set_new(line, "score", json_real(d->score));
    json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(line);
}

// Notes on stderr about unknown letters, words that are too long and outputs that do not end.
static void print_note(const G2p *m, const Word *w, const Decoded *d) {
    if (w->has_digit) {
        fprintf(
            stderr,
            "note: %s: the model does not know digits, and its config.json does not say \"language\": \"en\", whose "
            "numbers are spelled out here; write numbers as words\n",
            w->text);
    } else if (w->n_unknown) {
        bool valid;
        unsigned char first = (unsigned char)w->unknown[0];
        utf8_length(w->unknown, &valid);
        char letter[16];
        if (valid && first > ' ') snprintf(letter, sizeof letter, "'%s'", w->unknown);
        else snprintf(letter, sizeof letter, "byte 0x%02X", first);
        fprintf(stderr, "note: %s: the model does not know %s%s; %s\n", w->text, letter,
                w->n_unknown > 1 ? " (and others)" : "", w->n_known ? "read as unknown" : "no letter is known");
    }
    if (w->n_ids > m->model.max_tokens) {
        fprintf(stderr, "note: %.40s...: expected at most %d letters, found %d\n", w->text, m->model.max_tokens - 2,
                w->n_ids - 2);
    }
    if (d->ids && !d->ended) {
        fprintf(stderr, "note: %.40s: the output was cut at its limit of %d symbols; the model found no end\n", w->text,
                d->n);
    }
}

static void print_word(const Options *o, const G2p *m, const Word *w, const Decoded *d, Totals *totals) {
    print_note(m, w, d);
    if (!d->ids) totals->refused = true;
    if (o->json) {
        print_json(m, w, d);
        return;
    }
    char *text = d->ids ? pronunciation(m, d) : strdup("?");
    if (!text) die(1, "out of memory");
    printf("%s\t%s\n", w->text, text);
    free(text);
}

static void run_words(Pronouncer *p, const Word *words, int n, Decoded *out, Totals *totals) {
    char err[512];
    double start = seconds();
    if (pronounce(p, words, n, out, err, sizeof err)) die(1, "%s", err);
    totals->seconds += seconds() - start;
    totals->n_words += n;
}

static void flush_words(const Options *o, Pronouncer *p, Word **words, Totals *totals) {
    int n = (int)arrlen(*words);
    Decoded *out = calloc((size_t)n + 1, sizeof *out);
    if (!out) die(1, "out of memory for %d words", n);
    run_words(p, *words, n, out, totals);
    for (int i = 0; i < n; i++) {
        print_word(o, p->model, &(*words)[i], &out[i], totals);
        decoded_free(&out[i]);
    }
    if (fflush(stdout) || ferror(stdout)) die(1, "stdout: the lines could not be written");
    free(out);
    words_free(words);
}

// Line by line, for immediate answers on a terminal and constant memory for long files.
static void pronounce_stream(const Options *o, Pronouncer *p, FILE *in, const char *path, Totals *totals) {
    Word *words = NULL;
    char *line = NULL, err[512];
    size_t room = 0;
    ssize_t n;
    bool live = isatty(fileno(in));
    while ((n = getline(&line, &room, in)) >= 0) {
        if (words_split(&words, p->model, line, (size_t)n, err, sizeof err)) die(1, "%s", err);
        if (live || arrlen(words) >= WORDS_AT_ONCE) flush_words(o, p, &words, totals);
    }
    if (ferror(in)) die(1, "%s: %s", path, strerror(errno));
    flush_words(o, p, &words, totals);
    free(line);
}

// "g2p: where each symbol of "word" looked", and the model's shape.
static void name_picture(const Options *o, const G2p *m, const Word *w, char *title, size_t title_size, char *shape,
                         size_t shape_size) {
    const Config *encoder = &m->model.encoder.stack.config, *decoder = &m->model.decoder.config;
    char *path = strdup(o->model);
    if (!path) die(1, "out of memory");
    snprintf(title, title_size, "%s: where each symbol for \"%.60s\" looks", basename(path), w->text);
    snprintf(shape, shape_size,
             "%.2f M parameters, %d + %d layers of width %d, %d heads; rows are output, columns input",
             (double)weights_params(&m->weights) * 1e-6, encoder->n_layers, decoder->n_layers, decoder->dim,
             decoder->kinds[0].n_heads);
    free(path);
}

static void draw(const Options *o, const G2p *m, const Word *w, const Decoded *d) {
    char err[512];
    Seq2seqState state;
    Trace t;
    if (seq2seq_state_open(&state, &m->model, 1, err, sizeof err)) die(1, "%s", err);
    if (trace_word(&t, &m->model, &state, w, d, err, sizeof err)) die(1, "%s", err);
    const char **in = calloc((size_t)t.n_in, sizeof *in), **out = calloc((size_t)t.n_out, sizeof *out);
    AlignmentMap *maps = calloc((size_t)t.n_maps + 1, sizeof *maps);
    char(*titles)[48] = calloc((size_t)t.n_maps, sizeof *titles);
    float *mean = malloc(sizeof *mean * (size_t)t.n_out * (size_t)t.n_in);
    if (!in || !out || !maps || !titles || !mean) die(1, "out of memory for the picture");
    for (int i = 0; i < t.n_in; i++) {
        const char *symbol = symbols_text(&m->graphemes, w->ids[i]);
        const char *special = i == t.n_in - 1 ? "</s>" : "<unk>";
        if (i == 0) special = "<s>";
        in[i] = symbol ? symbol : special;
    }
    for (int i = 0; i < t.n_out; i++) {
        const char *symbol = i < d->n ? symbols_text(&m->phonemes, d->ids[i]) : "</s>";
        out[i] = symbol ? symbol : "<s>";
    }
    trace_mean(&t, mean);
    maps[0] = (AlignmentMap){"all heads", mean};
    for (int i = 0; i < t.n_maps; i++) {
        snprintf(titles[i], sizeof titles[i], "layer %d, head %d", i / t.n_heads + 1, i % t.n_heads + 1);
        maps[i + 1] = (AlignmentMap){titles[i], t.weights + (int64_t)i * t.n_out * t.n_in};
    }
    char title[160], subtitle[160];
    name_picture(o, m, w, title, sizeof title, subtitle, sizeof subtitle);
    Alignment alignment = {title, subtitle, out, t.n_out, in, t.n_in, maps, t.n_maps + 1};
    if (alignment_write(o->picture, &alignment, err, sizeof err)) die(1, "%s", err);
    free(in);
    free(out);
    free(maps);
    free(titles);
    free(mean);
    trace_free(&t);
    seq2seq_state_close(&state);
}

static void pronounce_and_draw(const Options *o, Pronouncer *p, Totals *totals) {
    char err[512], *text = NULL;
    size_t n = o->prompt ? strlen(o->prompt) : 0;
    Word *words = NULL;
    Decoded out;
    if (!o->prompt) text = read_text(o->file ? o->file : "-", &n);
    if (words_split(&words, p->model, text ? text : o->prompt, n, err, sizeof err)) die(1, "%s", err);
    if (arrlen(words) != 1) die(2, "--attention: expected one word, found %d", (int)arrlen(words));
    run_words(p, words, 1, &out, totals);
    print_word(o, p->model, words, &out, totals);
    if (!out.ids) die(1, "--attention: nothing to draw");
    draw(o, p->model, words, &out);
    decoded_free(&out);
    words_free(&words);
    free(text);
}

static void print_rates(const char *name, Rates r) {
    printf("%-14s word error rate %5.2f %% (%d of %d)   phoneme error rate %5.2f %% (%ld of %ld)\n", name,
           100.0 * r.wrong_words / r.n_words, r.wrong_words, r.n_words, 100.0 * (double)r.edits / (double)r.n_phonemes,
           r.edits, r.n_phonemes);
}

static void evaluate(const Options *o, Pronouncer *p, Totals *totals) {
    char err[512];
    Dictionary d;
    if (dictionary_read(&d, p->model, o->eval, err, sizeof err)) die(1, "%s", err);
    int n = (int)arrlen(d.words);
    Decoded *out = calloc((size_t)n, sizeof *out);
    if (!out) die(1, "out of memory for %d words", n);
    run_words(p, d.words, n, out, totals);
    if (o->json) {
        Rates plain = dictionary_score(&d, out, false), stress = dictionary_score(&d, out, true);
        printf("{\"n_words\":%d,\"beams\":%d,\"wer\":%.6f,\"per\":%.6f,\"wer_stress\":%.6f,\"per_stress\":%.6f}\n", n,
               o->n_beams, (double)plain.wrong_words / n, (double)plain.edits / (double)plain.n_phonemes,
               (double)stress.wrong_words / n, (double)stress.edits / (double)stress.n_phonemes);
    } else {
        print_rates("without stress", dictionary_score(&d, out, false));
        print_rates("with stress", dictionary_score(&d, out, true));
    }
    for (int i = 0; i < n; i++) decoded_free(&out[i]);
    free(out);
    dictionary_free(&d);
}

int main(int argc, char **argv) {
    Options o = parse(argc, argv);
    char err[512];
    file_guard_shrinking();
    double start = seconds();
    G2p m;
    if (g2p_open(&m, o.model, err, sizeof err)) die(1, "%s", err);
    if (!o.max_new) o.max_new = m.model.max_tokens - 2 < DEFAULT_NEW ? m.model.max_tokens - 2 : DEFAULT_NEW;
    if (o.max_new < 1) o.max_new = 1;
    Pronouncer p;
    if (pronouncer_open(&p, &m, o.n_threads, o.n_beams, o.max_new, err, sizeof err)) die(1, "%s", err);
    p.batch = o.batch;
    double load = seconds() - start;
    Totals totals = {0};
    if (o.eval) evaluate(&o, &p, &totals);
    else if (o.picture) pronounce_and_draw(&o, &p, &totals);
    else if (o.prompt) {
        Word *words = NULL;
        if (words_split(&words, &m, o.prompt, strlen(o.prompt), err, sizeof err)) die(1, "%s", err);
        flush_words(&o, &p, &words, &totals);
    } else {
        const char *path = o.file && strcmp(o.file, "-") != 0 ? o.file : "stdin";
        FILE *in = strcmp(path, "stdin") ? fopen(path, "r") : stdin;
        if (!in) die(1, "%s: %s", path, strerror(errno));
        pronounce_stream(&o, &p, in, path, &totals);
        if (in != stdin) fclose(in);
    }
    if (!o.quiet) {
        fprintf(stderr,
                "load %.3f s | %.2f M parameters | %d words, %.1f words/s | %d beams | peak %.1f MiB | %d threads\n",
                load, (double)weights_params(&m.weights) * 1e-6, totals.n_words, totals.n_words / totals.seconds,
                o.n_beams, (double)peak_rss_bytes() / 0x1p20, o.n_threads);
    }
    pronouncer_close(&p);
    g2p_close(&m);
    free(o.eval_default);
    return totals.refused;
}
