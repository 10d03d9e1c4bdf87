// check_encdec: encoder-decoders against PyTorch's double-precision logits, a reference's words, and what must hold
// without one: words alone and together, hypotheses in one cache and alone, beams against an exhaustive search.
//
// Small models with random weights are written to a folder from their names (tests/fixtures/bart_random.py says how);
// they also serve the hostile cases and build/encdec as people meet it. The real models are skipped where they are
// missing.
#include "reference.h"

#include "score.h"
#include "trace.h"

#include <fcntl.h>

#include <stb/stb_ds.h>

#define CASES "tests/fixtures/bart_random.txt"
#define US_BART SHARED_DATA "g2p-bart-us"
#define G2P "models/g2p"

static char folder[] = "/tmp/check_encdec.XXXXXX";

// The path of a file there; stays valid.
static const char *in_folder(const char *name) {
    static char paths[64][256];
    int at = 0;
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    while (at < 63 && paths[at][0] && strcmp(paths[at], path) != 0) at++;
    return strcpy(paths[at], path);
}

static void write_file(const char *name, const void *data, size_t n) {
    FILE *f = fopen(in_folder(name), "wb");
    bool written = f && fwrite(data, 1, n, f) == n;
    if (f && !fclose(f) && written) return;
    perror(name);
    exit(1);
}

static void write_text(const char *name, const char *text) {
    write_file(name, text, strlen(text));
}

static char *read_file(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    size_t room = 1 << 22, got = 0;
    char *text = need(room);
    if (f) {
        got = fread(text, 1, room - 1, f);
        fclose(f);
    }
    text[got] = 0;
    if (n) *n = got;
    return text;
}

// ---- random models, written as a folder

typedef struct {
    char name[32], type[16], act[16];
    int vocab, dim, encoder_layers, decoder_layers, encoder_heads, decoder_heads, encoder_ffn, decoder_ffn, longest;
    bool scale, tied, output_bias;
    int mute;            // ids below it but the end token are made unlikely outputs
    const char *symbols; // of config.json; NULL: letters and pairs of capitals
} Case;

// What is wrong with one tensor.
typedef enum { SOUND, MISSING, TALLER, WIDER, FLAT, WHOLE_NUMBERS } FaultKind;
typedef struct {
    const char *tensor;
    FaultKind kind;
} Fault;

typedef struct {
    FILE *header, *data;
    long at;
    Fault fault;
    int mute;
} Maker;

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

static double weight(const Maker *m, const char *name, int64_t i, int rows, int cols) {
    bool norm = !cols && (strstr(name, "layer_norm") || strstr(name, "layernorm")) && strstr(name, ".weight");
    bool bias = !strcmp(name, "final_logits_bias");
    double u = unit(name, i);
    if (bias && i < m->mute && i != 2) return -1000;
    if (norm) return 1 + 0.1 * u;
    if (!cols || (bias && rows == 1)) return 0.1 * u;
    return strstr(name, "embed_positions") ? 0.5 * u : u * sqrt(3.0 / cols);
}

static void put(Maker *m, const char *name, int rows, int cols) { // cols 0: one dimension
    char dims[64];
    FaultKind kind = m->fault.kind && !strcmp(name, m->fault.tensor) ? m->fault.kind : SOUND;
    if (kind == MISSING) return;
    if (kind == TALLER) rows++;
    if (kind == WIDER) cols++; // a vector becomes a matrix
    if (kind == FLAT && cols) rows *= cols, cols = 0;
    int64_t n = (int64_t)rows * (cols ? cols : 1);
    for (int64_t i = 0; i < n; i++) {
        float f = (float)weight(m, name, i, rows, cols);
        fwrite(&f, sizeof f, 1, m->data);
    }
    snprintf(dims, sizeof dims, cols ? "%d,%d" : "%d", rows, cols);
    fprintf(m->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%ld,%ld]}", m->at ? "," : "{", name,
            kind == WHOLE_NUMBERS ? "I32" : "F32", dims, m->at, m->at + 4 * (long)n);
    m->at += 4 * (long)n;
}

static void put_dense(Maker *m, const char *prefix, const char *name, int rows, int cols) {
    char full[192];
    snprintf(full, sizeof full, "%s%s.weight", prefix, name);
    put(m, full, rows, cols);
    snprintf(full, sizeof full, "%s%s.bias", prefix, name);
    put(m, full, rows, 0);
}

static void put_side(Maker *m, const Case *c, bool decoder) {
    const char *side = decoder ? "decoder" : "encoder";
    int dim = c->dim, ffn = decoder ? c->decoder_ffn : c->encoder_ffn;
    char prefix[64], name[96];
    snprintf(prefix, sizeof prefix, "model.%s.", side);
    snprintf(name, sizeof name, "%sembed_positions.weight", prefix);
    put(m, name, c->longest + 2, dim);
    put_dense(m, prefix, "layernorm_embedding", dim, 0);
    for (int i = 0; i < (decoder ? c->decoder_layers : c->encoder_layers); i++) {
        snprintf(prefix, sizeof prefix, "model.%s.layers.%d.", side, i);
        for (int cross = 0; cross <= decoder; cross++) {
            const char *kind = cross ? "encoder_attn" : "self_attn";
            static const char *const parts[] = {"q_proj", "k_proj", "v_proj", "out_proj"};
            for (int p = 0; p < 4; p++) {
                snprintf(name, sizeof name, "%s.%s", kind, parts[p]);
                put_dense(m, prefix, name, dim, dim);
            }
            snprintf(name, sizeof name, "%s_layer_norm", kind);
            put_dense(m, prefix, name, dim, 0);
        }
        put_dense(m, prefix, "fc1", ffn, dim);
        put_dense(m, prefix, "fc2", dim, ffn);
        put_dense(m, prefix, "final_layer_norm", dim, 0);
    }
    snprintf(prefix, sizeof prefix, "model.%s.", side);
    if (!strcmp(c->type, "mbart")) put_dense(m, prefix, "layer_norm", dim, 0);
}

static void write_weights(const Case *c, Fault fault) {
    char *text, *bytes;
    size_t n_text, n_bytes;
    Maker m = {.header = open_memstream(&text, &n_text),
               .data = open_memstream(&bytes, &n_bytes),
               .fault = fault,
               .mute = c->mute};
    put(&m, "model.shared.weight", c->vocab, c->dim);
    if (c->output_bias) put(&m, "final_logits_bias", 1, c->vocab);
    if (!c->tied) put(&m, "lm_head.weight", c->vocab, c->dim);
    put_side(&m, c, false);
    put_side(&m, c, true);
    fputc('}', m.header);
    fclose(m.header);
    fclose(m.data);
    uint64_t length = n_text;
    char *file = need(sizeof length + n_text + n_bytes);
    memcpy(file, &length, sizeof length);
    memcpy(file + sizeof length, text, n_text);
    memcpy(file + sizeof length + n_text, bytes, n_bytes);
    write_file("model.safetensors", file, sizeof length + n_text + n_bytes);
    free(file);
    free(text);
    free(bytes);
}

// Letters a, b, ... from id 4 and, on the same ids, phonemes AE, AF, ... (none ends in a digit).
static void print_symbols(FILE *f, int vocab) {
    for (int table = 0; table < 2; table++) {
        fprintf(f, "%s\"%s\":{", table ? "," : "", table ? "phonemes" : "graphemes");
        for (int id = 4; id < (table || vocab < 30 ? vocab : 30); id++) {
            if (table) fprintf(f, "%s\"%c%c\":%d", id > 4 ? "," : "", 'A' + id / 26, 'A' + id % 26, id);
            else fprintf(f, "%s\"%c\":%d", id > 4 ? "," : "", 'a' + id - 4, id);
        }
        fputc('}', f);
    }
}

static char *config_text(const Case *c) {
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    fprintf(f,
            "{\"model_type\":\"%s\",\"vocab_size\":%d,\"d_model\":%d,\"encoder_layers\":%d,\"decoder_layers\":%d,"
            "\"encoder_attention_heads\":%d,\"decoder_attention_heads\":%d,\"encoder_ffn_dim\":%d,"
            "\"decoder_ffn_dim\":%d,\"activation_function\":\"%s\",\"max_position_embeddings\":%d,"
            "\"scale_embedding\":%s,\"tie_word_embeddings\":%s,\"bos_token_id\":1,\"eos_token_id\":2,"
            "\"pad_token_id\":0,\"unk_token_id\":3,\"decoder_start_token_id\":2,",
            c->type, c->vocab, c->dim, c->encoder_layers, c->decoder_layers, c->encoder_heads, c->decoder_heads,
            c->encoder_ffn, c->decoder_ffn, c->act, c->longest, c->scale ? "true" : "false",
            c->tied ? "true" : "false");
    if (c->symbols) fputs(c->symbols, f);
    else print_symbols(f, c->vocab);
    fputc('}', f);
    fclose(f);
    return text;
}

static void write_model(const Case *c) {
    write_weights(c, (Fault){0});
    char *config = config_text(c);
    write_text("config.json", config);
    free(config);
}

static const Case small = {.name = "small",
                           .type = "mbart",
                           .act = "gelu",
                           .vocab = 30,
                           .dim = 16,
                           .encoder_layers = 2,
                           .decoder_layers = 2,
                           .encoder_heads = 2,
                           .decoder_heads = 4,
                           .encoder_ffn = 24,
                           .decoder_ffn = 20,
                           .longest = 20,
                           .tied = true,
                           .output_bias = true,
                           .mute = 4};

static bool open_model(Seq2seq *m, const Case *c) {
    char err[512] = "";
    write_model(c);
    bool open = !seq2seq_open(m, folder, err, sizeof err);
    CHECK(open, "%s: %s", c->name, err);
    return open;
}

static Seq2seqState open_state(const Seq2seq *m, int n_threads) {
    char err[512] = "";
    Seq2seqState s;
    if (!seq2seq_state_open(&s, m, n_threads, err, sizeof err)) return s;
    fprintf(stderr, "%s\n", err);
    exit(1);
}

// ---- the fixture: shapes, inputs, logits

enum { MAX_PAIRS = 8, KEPT_ROWS = 3 };

typedef struct {
    int32_t *tokens, *path;
    int n_tokens, n_path;
    double *logits; // [n_rows][vocab], after the last tokens of the path
    int n_rows;
} Pair;

typedef struct {
    Case c;
    Pair pairs[MAX_PAIRS];
    int n_pairs;
} Example;

static bool read_case(Case *c, char *line) {
    char *saved, *token = strtok_r(line, " \n", &saved);
    if (!token) return false;
    *c = (Case){0};
    snprintf(c->name, sizeof c->name, "%s", token);
    const struct {
        const char *key;
        int *number;
        bool *truth;
        char *text;
    } slots[] = {{"vocab_size", .number = &c->vocab},
                 {"d_model", .number = &c->dim},
                 {"encoder_layers", .number = &c->encoder_layers},
                 {"decoder_layers", .number = &c->decoder_layers},
                 {"encoder_attention_heads", .number = &c->encoder_heads},
                 {"decoder_attention_heads", .number = &c->decoder_heads},
                 {"encoder_ffn_dim", .number = &c->encoder_ffn},
                 {"decoder_ffn_dim", .number = &c->decoder_ffn},
                 {"max_position_embeddings", .number = &c->longest},
                 {"scale_embedding", .truth = &c->scale},
                 {"tie_word_embeddings", .truth = &c->tied},
                 {"final_logits_bias", .truth = &c->output_bias},
                 {"model_type", .text = c->type},
                 {"activation_function", .text = c->act}};
    while ((token = strtok_r(NULL, " \n", &saved))) {
        char *value = strchr(token, '=');
        if (!value) return false;
        *value++ = 0;
        for (int i = 0; i < N_OF(slots); i++) {
            if (strcmp(token, slots[i].key) != 0) continue;
            if (slots[i].number) *slots[i].number = atoi(value);
            if (slots[i].truth) *slots[i].truth = *value == 't';
            if (slots[i].text) snprintf(slots[i].text, sizeof c->type, "%s", value);
        }
    }
    return true;
}

static void read_numbers(char *line, int32_t **out, int *n) {
    *n = 0;
    *out = need(sizeof **out * (strlen(line) + 1));
    char *saved, *token = strtok_r(line, " \n", &saved);
    for (; token; token = strtok_r(NULL, " \n", &saved)) (*out)[(*n)++] = atoi(token);
}

static bool read_pair(Pair *p, int vocab, char *tokens, char *logits) {
    char *colon = strchr(tokens, ':');
    if (!colon) return false;
    *colon = 0;
    read_numbers(tokens, &p->tokens, &p->n_tokens);
    read_numbers(colon + 1, &p->path, &p->n_path);
    p->n_rows = p->n_path < KEPT_ROWS ? p->n_path : KEPT_ROWS;
    p->logits = need(sizeof *p->logits * (size_t)(p->n_rows * vocab));
    char *end = logits;
    for (int i = 0; i < p->n_rows * vocab; i++) {
        p->logits[i] = strtod(logits, &end);
        if (end == logits) return false;
        logits = end;
    }
    return *end == '\n';
}

static void free_example(Example *e) {
    for (int i = 0; i < e->n_pairs; i++) {
        free(e->pairs[i].tokens);
        free(e->pairs[i].path);
        free(e->pairs[i].logits);
    }
    *e = (Example){0};
}

// The next model of the fixture; false at its end.
static bool read_example(FILE *f, Example *e) {
    char *line = NULL, *logits = NULL;
    size_t room = 0, room_logits = 0;
    *e = (Example){0};
    bool ok = getline(&line, &room, f) > 0 && read_case(&e->c, line);
    while (ok && getline(&line, &room, f) > 1) {
        Pair *p = &e->pairs[e->n_pairs++];
        ok = e->n_pairs <= MAX_PAIRS && getline(&logits, &room_logits, f) > 0 && read_pair(p, e->c.vocab, line, logits);
        CHECK(ok, "%s: %s: not what bart_random.py writes", CASES, e->c.name);
    }
    free(line);
    free(logits);
    return ok;
}

// ---- logits

// The logits of each token of a path, the input encoded alone: [n_path][vocab].
static float *run_alone(const Seq2seq *m, Seq2seqState *s, const int32_t *tokens, int n_tokens, const int32_t *path,
                        int n_path) {
    char err[512] = "";
    size_t row = sizeof(float) * (size_t)m->vocab_size;
    float *all = need(row * (size_t)n_path);
    CHECK(!seq2seq_encode(m, s, tokens, &n_tokens, 1, err, sizeof err), "%s", err);
    for (int i = 0; i < n_path; i++) {
        StepGroup group = {.input = 0, .n_rows = 1};
        const float *logits = seq2seq_step(m, s, &path[i], i, &group, 1, NULL, NULL, err, sizeof err);
        CHECK(logits, "%s", err);
        if (logits) memcpy(all + (int64_t)i * m->vocab_size, logits, row);
    }
    return all;
}

static double worst; // NMSE of the example at hand

static void compare(const Example *e, int pair, const float *logits, const char *how) {
    const Pair *p = &e->pairs[pair];
    double error = nmse(logits, p->logits, p->n_rows * e->c.vocab);
    worst = fmax(worst, error);
    CHECK(error <= 1e-9, "%s, input %d, %s: NMSE %g", e->c.name, pair, how, error);
}

static void check_alone(const Example *e, const Seq2seq *m) {
    Seq2seqState s = open_state(m, 1), threads = open_state(m, 3);
    for (int i = 0; i < e->n_pairs; i++) {
        const Pair *p = &e->pairs[i];
        float *logits = run_alone(m, &s, p->tokens, p->n_tokens, p->path, p->n_path);
        compare(e, i, logits + (int64_t)(p->n_path - p->n_rows) * e->c.vocab, "alone");
        float *again = run_alone(m, &threads, p->tokens, p->n_tokens, p->path, p->n_path);
        CHECK(!memcmp(logits, again, sizeof *logits * (size_t)(p->n_path * e->c.vocab)),
              "%s, input %d: threads change the logits", e->c.name, i);
        free(logits);
        free(again);
    }
    seq2seq_state_close(&s);
    seq2seq_state_close(&threads);
}

// All inputs in one encode, one hypothesis each; the short paths end while others go on.
static void check_together(const Example *e, const Seq2seq *m) {
    char err[512] = "";
    int lengths[MAX_PAIRS], n = 0, longest = 0, vocab = e->c.vocab;
    int32_t *tokens = NULL;
    float *kept[MAX_PAIRS];
    for (int i = 0; i < e->n_pairs; i++) {
        const Pair *p = &e->pairs[i];
        lengths[i] = p->n_tokens;
        for (int t = 0; t < p->n_tokens; t++) arrput(tokens, p->tokens[t]);
        longest = p->n_path > longest ? p->n_path : longest;
        kept[i] = need_floats((int64_t)p->n_rows * vocab);
    }
    Seq2seqState s = open_state(m, 2);
    CHECK(!seq2seq_encode(m, &s, tokens, lengths, e->n_pairs, err, sizeof err), "%s", err);
    for (int t = 0; t < longest; t++) {
        StepGroup groups[MAX_PAIRS];
        int32_t next[MAX_PAIRS];
        for (int i = n = 0; i < e->n_pairs; i++) {
            int input = e->n_pairs - 1 - i; // groups may come in any order
            if (t >= e->pairs[input].n_path) continue;
            groups[n] = (StepGroup){.input = input, .n_rows = 1};
            next[n++] = e->pairs[input].path[t];
        }
        const float *logits = seq2seq_step(m, &s, next, t, groups, n, NULL, NULL, err, sizeof err);
        CHECK(logits, "%s", err);
        for (int g = 0; logits && g < n; g++, logits += vocab) {
            const Pair *p = &e->pairs[groups[g].input];
            int row = t - (p->n_path - p->n_rows);
            if (row >= 0) memcpy(kept[groups[g].input] + row * vocab, logits, sizeof *logits * (size_t)vocab);
        }
    }
    for (int i = 0; i < e->n_pairs; i++) {
        compare(e, i, kept[i], "with others");
        free(kept[i]);
    }
    arrfree(tokens);
    seq2seq_state_close(&s);
}

// ---- hypotheses: rows that see what they descend from

enum { TREE_STEPS = 7, TREE_ROWS = 4, TREE_INPUTS = 3, TREE_STRIDE = TREE_STEPS * TREE_ROWS + 3 };

typedef struct {
    int32_t path[TREE_STEPS];
    uint8_t visible[TREE_STRIDE];
    float *logits; // of its last token
} Branch;

typedef struct {
    Branch branches[TREE_STEPS][TREE_ROWS];
    int n[TREE_STEPS], n_slots;
} Tree;

// Rows of step t: children of rows of the step before, some of which have several or none.
static void grow_tree(Tree *tree, int t, int vocab) {
    tree->n[t] = t ? 1 + pick(TREE_ROWS) : 1;
    for (int r = 0; r < tree->n[t]; r++) {
        Branch *b = &tree->branches[t][r];
        if (t) *b = tree->branches[t - 1][pick(tree->n[t - 1])];
        b->path[t] = pick(vocab);
        b->visible[tree->n_slots + r] = 1;
        b->logits = need_floats(vocab);
    }
    tree->n_slots += tree->n[t];
}

static void step_trees(const Seq2seq *m, Seq2seqState *s, Tree *trees, const int *order, int n_trees, int t) {
    char err[512] = "";
    StepGroup groups[TREE_INPUTS];
    int32_t tokens[TREE_INPUTS * TREE_ROWS];
    uint8_t visible[TREE_INPUTS * TREE_ROWS][TREE_STRIDE];
    int rows = 0;
    for (int g = 0; g < n_trees; g++) {
        Tree *tree = &trees[order[g]];
        grow_tree(tree, t, m->vocab_size);
        groups[g] = (StepGroup){order[g], tree->n[t], visible[rows], TREE_STRIDE};
        for (int r = 0; r < tree->n[t]; r++, rows++) {
            tokens[rows] = tree->branches[t][r].path[t];
            memcpy(visible[rows], tree->branches[t][r].visible, TREE_STRIDE);
        }
    }
    const float *logits = seq2seq_step(m, s, tokens, t, groups, n_trees, NULL, NULL, err, sizeof err);
    CHECK(logits, "%s", err);
    for (int g = 0; logits && g < n_trees; g++) {
        Tree *tree = &trees[order[g]];
        for (int r = 0; r < tree->n[t]; r++, logits += m->vocab_size) {
            memcpy(tree->branches[t][r].logits, logits, sizeof *logits * (size_t)m->vocab_size);
        }
    }
}

static void check_hypotheses(const Example *e, const Seq2seq *m) {
    char err[512] = "";
    static Tree trees[TREE_INPUTS];
    memset(trees, 0, sizeof trees);
    int lengths[TREE_INPUTS], steps = TREE_STEPS < m->max_tokens ? TREE_STEPS : m->max_tokens;
    int32_t *tokens = NULL;
    for (int i = 0; i < TREE_INPUTS; i++) {
        lengths[i] = e->pairs[i].n_tokens;
        for (int t = 0; t < lengths[i]; t++) arrput(tokens, e->pairs[i].tokens[t]);
    }
    Seq2seqState s = open_state(m, 1), alone = open_state(m, 1);
    CHECK(!seq2seq_encode(m, &s, tokens, lengths, TREE_INPUTS, err, sizeof err), "%s", err);
    for (int t = 0; t < steps; t++) {
        int order[] = {2, 0, 1};
        step_trees(m, &s, trees, order, t < 2 ? TREE_INPUTS : TREE_INPUTS - 1, t); // the second input ends early
    }
    for (int i = 0; i < TREE_INPUTS; i++) {
        for (int t = 0; t < steps; t++) {
            for (int r = 0; r < trees[i].n[t]; r++) {
                Branch *b = &trees[i].branches[t][r];
                float *want = run_alone(m, &alone, e->pairs[i].tokens, lengths[i], b->path, t + 1);
                double error = nmse_f32(b->logits, want + (int64_t)t * m->vocab_size, m->vocab_size);
                CHECK(error <= 1e-9, "%s, input %d, step %d, hypothesis %d: NMSE %g from its path alone", e->c.name, i,
                      t, r, error);
                free(want);
                free(b->logits);
            }
        }
    }
    arrfree(tokens);
    seq2seq_state_close(&s);
    seq2seq_state_close(&alone);
}

static void random_models_child(void) {
    FILE *f = fopen(CASES, "r");
    CHECK(f, "%s: missing", CASES);
    int n = 0;
    Example e;
    while (f && read_example(f, &e)) {
        Seq2seq m;
        worst = 0;
        test_rng = 0x9E3779B97F4A7C15u;
        if (open_model(&m, &e.c)) {
            check_alone(&e, &m);
            check_together(&e, &m);
            check_hypotheses(&e, &m);
            seq2seq_close(&m);
            printf("  %s: %s: NMSE %.1e\n", cpu_rung_name(cpu_rung()), e.c.name, worst);
        }
        free_example(&e);
        n++;
    }
    CHECK(n >= 11, "%s: expected 11 models, found %d", CASES, n);
    if (f) fclose(f);
}

static void random_models(void) {
    at_every_rung(random_models_child);
}

static void encode_and_step_refuse(void) {
    char err[512];
    Seq2seq m;
    if (!open_model(&m, &small)) return;
    Seq2seqState s = open_state(&m, 1);
    int32_t tokens[64] = {1};
    for (int i = 0; i < 2; i++) {
        int lengths[] = {3, i ? 21 : 0};
        err[0] = 0;
        CHECK(seq2seq_encode(&m, &s, tokens, lengths, 2, err, sizeof err) == -1 && one_line(err) &&
                  strstr(err, "input 1: expected 1 to 20 tokens"),
              "%d tokens: %s", lengths[1], err);
    }
    int length = 20;
    CHECK(!seq2seq_encode(&m, &s, tokens, &length, 1, err, sizeof err), "%s", err);
    StepGroup group = {.n_rows = 1};
    CHECK(seq2seq_step(&m, &s, tokens, 19, &group, 1, NULL, NULL, err, sizeof err), "%s", err);
    CHECK(!seq2seq_step(&m, &s, tokens, 20, &group, 1, NULL, NULL, err, sizeof err) && strstr(err, "less than 20"),
          "position 20: %s", err);
    seq2seq_state_close(&s);
    seq2seq_state_close(&s);
    seq2seq_close(&m);
    seq2seq_close(&m);
}

// ---- greedy and beam search

static double log_probability(const float *logits, int n, int token) {
    double top = logits[0], sum = 0;
    for (int i = 1; i < n; i++) top = fmax(top, (double)logits[i]);
    for (int i = 0; i < n; i++) sum += exp((double)logits[i] - top);
    return (double)logits[token] - top - log(sum);
}

// The mean log-probability of an output (its end token, if it has one, counted), recomputed along its path alone.
static double score_of(const Seq2seq *m, Seq2seqState *s, const int32_t *tokens, int n_tokens, const int32_t *ids,
                       int n, bool ended) {
    int n_path = n + ended;
    int32_t *path = need(sizeof *path * (size_t)(n_path + 1));
    path[0] = m->start_id;
    memcpy(path + 1, ids, sizeof *path * (size_t)n);
    float *logits = run_alone(m, s, tokens, n_tokens, path, n_path);
    double sum = 0;
    for (int i = 0; i < n_path; i++) {
        sum += log_probability(logits + (int64_t)i * m->vocab_size, m->vocab_size, i < n ? ids[i] : m->eos_id);
    }
    free(logits);
    free(path);
    return sum / n_path;
}

typedef struct {
    const Seq2seq *m;
    Seq2seqState *s;
    const int32_t *tokens;
    int n_tokens, max_new;
    int32_t ids[8], best[8];
    int n_best;
    double best_score, second;
} Exhaustive;

// Every output that begins with ids[n]; prefixes that end in the end token are outputs.
static void try_all(Exhaustive *x, int n) { // NOLINT(misc-no-recursion)
    bool ended = n && x->ids[n - 1] == x->m->eos_id;
    if (!ended && n < x->max_new) {
        for (int id = 0; id < x->m->vocab_size; id++) {
            x->ids[n] = id;
            try_all(x, n + 1);
        }
        return;
    }
    double score = score_of(x->m, x->s, x->tokens, x->n_tokens, x->ids, n - ended, ended);
    if (score <= x->best_score) {
        x->second = fmax(x->second, score);
        return;
    }
    x->second = x->best_score;
    x->best_score = score;
    x->n_best = n - ended;
    memcpy(x->best, x->ids, sizeof x->best);
}

// So many beams that nothing is ever cut: the best of all outputs must come out, alone and with other inputs.
static void beams_against_all_outputs(void) {
    char err[512] = "";
    Case c = small;
    c.vocab = 6, c.longest = 8, c.mute = 0;
    Seq2seq m;
    if (!open_model(&m, &c)) return;
    enum { N_INPUTS = 6, MAX_NEW = 3 };
    int32_t tokens[N_INPUTS * 8], *at = tokens;
    int lengths[N_INPUTS];
    for (int i = 0; i < N_INPUTS; i++) {
        lengths[i] = 1 + (i * 3 + 2) % 8;
        for (int t = 0; t < lengths[i]; t++) *at++ = pick(6);
    }
    Seq2seqState s = open_state(&m, 1), alone = open_state(&m, 1);
    Decoded wide[N_INPUTS], greedy[N_INPUTS];
    CHECK(!seq2seq_encode(&m, &s, tokens, lengths, N_INPUTS, err, sizeof err), "%s", err);
    CHECK(!beam_decode(&m, &s, MAX_BEAMS, MAX_NEW, wide, err, sizeof err), "%s", err);
    CHECK(!seq2seq_encode(&m, &s, tokens, lengths, N_INPUTS, err, sizeof err), "%s", err);
    CHECK(!beam_decode(&m, &s, 1, MAX_NEW, greedy, err, sizeof err), "%s", err);
    at = tokens;
    for (int i = 0; i < N_INPUTS; at += lengths[i++]) {
        Exhaustive x = {.m = &m, .s = &alone, .tokens = at, .n_tokens = lengths[i], .max_new = MAX_NEW};
        x.best_score = x.second = -INFINITY;
        try_all(&x, 0);
        CHECK(fabs(wide[i].score - x.best_score) < 1e-5, "input %d: score %.9g, best of all %.9g", i, wide[i].score,
              x.best_score);
        bool same = wide[i].n == x.n_best && !memcmp(wide[i].ids, x.best, sizeof *x.best * (size_t)x.n_best);
        CHECK(same || x.best_score - x.second < 1e-5, "input %d: not the best of all outputs", i);
        CHECK(wide[i].score >= greedy[i].score - 1e-6, "input %d: greedy scores %.9g, all beams %.9g", i,
              greedy[i].score, wide[i].score);
        decoded_free(&wide[i]);
        decoded_free(&greedy[i]);
    }
    seq2seq_state_close(&s);
    seq2seq_state_close(&alone);
    seq2seq_close(&m);
}

// Beam search once more, plainly: paths as they are, each run alone; the rules as beam.h's source states them.
typedef struct {
    int32_t ids[8];
    int n;
    double score; // the sum while it grows, the mean when it is done
} Path;

static int by_score(const void *a, const void *b) {
    const Path *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : 0;
}

static Path plain_search(const Seq2seq *m, Seq2seqState *s, const int32_t *tokens, int n_tokens, int n_beams,
                         int max_new) {
    Path open[MAX_BEAMS] = {{.n = 0}}, all[MAX_BEAMS * 16], done[4 * MAX_BEAMS];
    int n_open = 1, n_done = 0;
    for (int length = 1; n_open && length <= max_new; length++) {
        int n = 0;
        for (int h = 0; h < n_open; h++) {
            int32_t path[8] = {m->start_id};
            memcpy(path + 1, open[h].ids, sizeof *path * (size_t)(length - 1));
            float *logits = run_alone(m, s, tokens, n_tokens, path, length);
            for (int id = 0; id < m->vocab_size; id++) {
                all[n] = open[h];
                all[n].ids[length - 1] = id;
                all[n].n = length;
                all[n++].score += log_probability(logits + (length - 1) * m->vocab_size, m->vocab_size, id);
            }
            free(logits);
        }
        qsort(all, (size_t)n, sizeof *all, by_score);
        n_open = 0;
        for (int i = 0; i < n && i < 2 * n_beams; i++) {
            bool ends = all[i].ids[length - 1] == m->eos_id;
            if (!ends && n_open < n_beams) open[n_open++] = all[i];
            if (!ends || i >= n_beams) continue; // an end that came late is dropped
            done[n_done] = all[i];
            done[n_done].n--;
            done[n_done++].score /= length;
        }
        qsort(done, (size_t)n_done, sizeof *done, by_score);
        if (n_done > n_beams) n_done = n_beams;
        if (n_done == n_beams && open[0].score / length <= done[n_done - 1].score) n_open = 0;
    }
    for (int i = 0; i < n_open; i++) {
        done[n_done] = open[i];
        done[n_done++].score /= max_new;
    }
    qsort(done, (size_t)n_done, sizeof *done, by_score);
    return done[0];
}

static void beams_against_a_plain_search(void) {
    char err[512] = "";
    int n_ended = 0, n_not_greedy = 0, n_all = 0;
    for (int dim = 8; dim <= 24; dim += 8) {
        Case c = small;
        c.vocab = 9, c.dim = dim, c.longest = 12, c.mute = 0;
        Seq2seq m;
        if (!open_model(&m, &c)) continue;
        enum { N_INPUTS = 24, MAX_NEW = 7 };
        int32_t tokens[N_INPUTS * 12], *at = tokens;
        int lengths[N_INPUTS];
        for (int i = 0; i < N_INPUTS; i++) {
            lengths[i] = 1 + pick(12);
            for (int t = 0; t < lengths[i]; t++) *at++ = pick(9);
        }
        Seq2seqState s = open_state(&m, 1), alone = open_state(&m, 1);
        for (int n_beams = 2; n_beams <= 4; n_beams++) {
            Decoded out[N_INPUTS];
            CHECK(!seq2seq_encode(&m, &s, tokens, lengths, N_INPUTS, err, sizeof err), "%s", err);
            CHECK(!beam_decode(&m, &s, n_beams, MAX_NEW, out, err, sizeof err), "%s", err);
            at = tokens;
            for (int i = 0; i < N_INPUTS; at += lengths[i++]) {
                Path want = plain_search(&m, &alone, at, lengths[i], n_beams, MAX_NEW);
                Path greedy = plain_search(&m, &alone, at, lengths[i], 1, MAX_NEW);
                CHECK(fabs(out[i].score - want.score) < 1e-5, "dim %d, input %d, %d beams: score %.9g, expected %.9g",
                      dim, i, n_beams, out[i].score, want.score);
                CHECK(out[i].n == want.n && !memcmp(out[i].ids, want.ids, sizeof *want.ids * (size_t)want.n),
                      "dim %d, input %d, %d beams: another output", dim, i, n_beams);
                n_ended += want.n < MAX_NEW;
                n_not_greedy += greedy.score != want.score;
                n_all++;
                decoded_free(&out[i]);
            }
        }
        seq2seq_state_close(&s);
        seq2seq_state_close(&alone);
        seq2seq_close(&m);
    }
    printf("  %d searches: %d end before the limit, %d not as greedy\n", n_all, n_ended, n_not_greedy);
    CHECK(n_ended > n_all / 10 && n_not_greedy > n_all / 10, "too much alike to tell");
}

// ids, score and closeness of what greedy says, along the path it took.
static void greedy_is_greedy(void) {
    char err[512] = "";
    Seq2seq m;
    if (!open_model(&m, &small)) return;
    int32_t tokens[] = {1, 7, 2, 1, 4, 9, 12, 5, 5, 2, 1, 29, 28, 2};
    int lengths[] = {3, 7, 4}, limits[] = {1, 2, 18, 20, 500};
    Seq2seqState s = open_state(&m, 1), alone = open_state(&m, 1);
    for (int l = 0; l < N_OF(limits); l++) {
        Decoded out[3];
        CHECK(!seq2seq_encode(&m, &s, tokens, lengths, 3, err, sizeof err), "%s", err);
        CHECK(!beam_decode(&m, &s, 1, limits[l], out, err, sizeof err), "%s", err);
        int most = limits[l] < m.max_tokens ? limits[l] : m.max_tokens, at = 0;
        for (int i = 0; i < 3; at += lengths[i++]) {
            Decoded *d = &out[i];
            CHECK(d->n <= most, "at most %d tokens: found %d", most, d->n);
            bool ended = d->n < most;
            int32_t path[24] = {m.start_id};
            memcpy(path + 1, d->ids, sizeof *path * (size_t)d->n);
            float *logits = run_alone(&m, &alone, tokens + at, lengths[i], path, d->n + ended);
            double gap = INFINITY;
            for (int t = 0; t < d->n + ended; t++) {
                const float *row = logits + (int64_t)t * m.vocab_size;
                int want = t < d->n ? d->ids[t] : m.eos_id;
                for (int id = 0; id < m.vocab_size; id++) {
                    CHECK(row[id] <= row[want] + 1e-5f, "step %d: %d instead of %d", t, want, id);
                    if (id != want) gap = fmin(gap, (double)row[want] - (double)row[id]);
                }
            }
            double score = score_of(&m, &alone, tokens + at, lengths[i], d->ids, d->n, ended);
            CHECK(fabs(score - d->score) < 1e-5, "score: expected %.9g, found %.9g", score, d->score);
            CHECK(fabs(gap - d->closeness) < 1e-4, "closeness: expected %g, found %g", gap, d->closeness);
            free(logits);
            decoded_free(d);
        }
    }
    seq2seq_state_close(&s);
    seq2seq_state_close(&alone);
    seq2seq_close(&m);
}

// ---- many words

static void add_word(Word **list, const Seq2seq *m, const char *text) {
    char err[512] = "";
    CHECK(!words_add(list, m, text, strlen(text), err, sizeof err), "%s", err);
}

static bool same_output(const Decoded *a, const Decoded *b) {
    return a->n == b->n && !a->ids == !b->ids && (!a->ids || !memcmp(a->ids, b->ids, sizeof *a->ids * (size_t)a->n));
}

static Decoded *pronounce_all(const Seq2seq *m, const Word *words, int n, int n_threads, int n_beams) {
    char err[512] = "";
    Pronouncer p;
    Decoded *out = need(sizeof *out * (size_t)(n + 1));
    int max_new = m->max_tokens - 2;
    bool open = !pronouncer_open(&p, m, n_threads, n_beams, max_new, err, sizeof err);
    CHECK(open && !pronounce(&p, words, n, out, err, sizeof err), "%s", err);
    if (open) pronouncer_close(&p);
    return out;
}

static void free_outputs(Decoded *out, int n) {
    for (int i = 0; i < n; i++) decoded_free(&out[i]);
    free(out);
}

// Batches are cut by the words alone: ids and scores are bit-equal for 1, 2 and 3 threads.
static void check_threads(const Seq2seq *m, const Word *words, int n, int n_beams, const Decoded *want) {
    for (int n_threads = 2; n_threads <= 3; n_threads++) {
        Decoded *out = pronounce_all(m, words, n, n_threads, n_beams);
        int differ = 0;
        for (int i = 0; i < n; i++) {
            differ += !same_output(&out[i], &want[i]) || memcmp(&out[i].score, &want[i].score, sizeof want->score) ||
                      memcmp(&out[i].closeness, &want[i].closeness, sizeof want->closeness);
        }
        CHECK(!differ, "%d threads: %d of %d words differ", n_threads, differ, n);
        free_outputs(out, n);
    }
}

static void words_in_batches(void) {
    Seq2seq m;
    if (!open_model(&m, &small)) return;
    Word *words = NULL;
    char text[32];
    for (int i = 0; i < 70; i++) { // more than two batches of every length, out of order
        int n = pick(20);
        for (int c = 0; c < n; c++) text[c] = (char)('a' + pick(26));
        text[n] = 0;
        add_word(&words, &m, text);
    }
    add_word(&words, &m, "##"); // no letter known
    int n = (int)arrlen(words), n_said = 0;
    for (int n_beams = 1; n_beams <= 3; n_beams += 2) {
        Decoded *out = pronounce_all(&m, words, n, 1, n_beams);
        check_threads(&m, words, n, n_beams, out);
        for (int i = 0; i < n; i++) {
            bool can = words[i].n_known > 0 && words[i].n_ids <= m.max_tokens;
            CHECK(pronounceable(&m, &words[i]) == can, "pronounceable: %s", words[i].text);
            CHECK((out[i].ids != NULL) == can, "an output of: %s", words[i].text);
            if (!can) continue;
            Decoded *alone = pronounce_all(&m, &words[i], 1, 1, n_beams);
            CHECK(same_output(alone, &out[i]) && fabs(alone->score - out[i].score) < 1e-5,
                  "%s: %d beams: alone %d symbols, score %g; with others %d, %g", words[i].text, n_beams, alone->n,
                  alone->score, out[i].n, out[i].score);
            free_outputs(alone, 1);
            n_said++;
        }
        free_outputs(out, n);
    }
    CHECK(n_said > 100, "%d of 142 said", n_said);
    Decoded *none = pronounce_all(&m, NULL, 0, 2, 1);
    free_outputs(none, 0);
    words_free(&words);
    seq2seq_close(&m);
}

// ---- real models, against the reference's words

// Lines "word<TAB>what it says", every step-th of them.
static void read_said(const char *path, const Seq2seq *m, int step, Word **words, char ***said) {
    FILE *f = fopen(path, "r");
    CHECK(f, "%s: missing", path);
    char *line = NULL;
    size_t room = 0;
    for (int i = 0; f && getline(&line, &room, f) > 0; i++) {
        char *tab = strchr(line, '\t');
        if (i % step || !tab) continue;
        *tab = 0;
        tab[1 + strcspn(tab + 1, "\r\n")] = 0;
        add_word(words, m, line);
        arrput(*said, strdup(tab + 1));
    }
    free(line);
    if (f) fclose(f);
}

static void free_said(char **said) {
    for (ptrdiff_t i = 0; i < arrlen(said); i++) free(said[i]);
    arrfree(said);
}

// How many words say something else than expected; those where it cannot be a float tie fail.
static int count_differences(const Seq2seq *m, const Word *words, const Decoded *out, char **said, double tie) {
    int n = 0;
    for (ptrdiff_t i = 0; i < arrlen(words); i++) {
        char *text = pronunciation(m, &out[i]);
        bool same = text && !strcmp(text, said[i]);
        n += !same;
        CHECK(same || out[i].closeness < tie, "%s: expected %s, found %s", words[i].text, said[i], text);
        if (!same)
            printf("  %s: %s, the reference %s (logits %.1e apart)\n", words[i].text, text, said[i], out[i].closeness);
        free(text);
    }
    return n;
}

static void print_rate_of_gold(const Seq2seq *m, const Word *words, const Decoded *out) {
    json_t *gold = json_load_file(US_BART "/us_gold.json", 0, NULL);
    int right = 0, n = 0;
    for (ptrdiff_t i = 0; gold && i < arrlen(words); i++) {
        const char *want = json_string_value(json_object_get(gold, words[i].text));
        char *text = pronunciation(m, &out[i]);
        n += want != NULL;
        right += want && !strcmp(text, want);
        free(text);
    }
    if (n) printf("  us_bart: %d of %d words exactly as in us_gold.json, %.1f %%\n", right, n, 100.0 * right / n);
    json_decref(gold);
}

static void us_bart_greedy(void) {
    SKIP_WITHOUT(US_BART);
    char err[512] = "";
    Seq2seq m;
    bool open = !seq2seq_open(&m, US_BART, err, sizeof err);
    CHECK(open, "%s", err);
    if (!open) return;
    Word *words = NULL;
    char **said = NULL;
    read_said("tests/fixtures/us_bart_greedy.tsv", &m, quick() ? 10 : 1, &words, &said);
    int n = (int)arrlen(words);
    CHECK(n == (quick() ? 50 : 500), "%d words", n);
    Decoded *out = pronounce_all(&m, words, n, 1, 1);
    int differ = count_differences(&m, words, out, said, 1e-4);
    printf("  us_bart: %d of %d greedy outputs differ from the reference\n", differ, n);
    check_threads(&m, words, n, 1, out);
    for (int i = 0; i < n; i++) {
        Decoded *alone = pronounce_all(&m, &words[i], 1, 1, 1);
        CHECK(same_output(alone, &out[i]) || out[i].closeness < 1e-4, "%s: alone it says something else",
              words[i].text);
        CHECK(fabs(alone->score - out[i].score) < 1e-5 || !same_output(alone, &out[i]), "%s: scores %.9g and %.9g",
              words[i].text, alone->score, out[i].score);
        free_outputs(alone, 1);
    }
    print_rate_of_gold(&m, words, out);
    free_outputs(out, n);
    free_said(said);
    words_free(&words);
    seq2seq_close(&m);
}

static void us_bart_beam(void) {
    SKIP_WITHOUT(US_BART);
    char err[512] = "";
    Seq2seq m;
    bool open = !seq2seq_open(&m, US_BART "/us_bart.safetensors", err, sizeof err);
    CHECK(open, "%s", err);
    if (!open) return;
    Word *words = NULL;
    char **said = NULL;
    read_said("tests/fixtures/us_bart_beam.tsv", &m, quick() ? 10 : 1, &words, &said);
    int n = (int)arrlen(words), better = 0, worse = 0;
    CHECK(n == (quick() ? 10 : 100), "%d words", n);
    Decoded *out = pronounce_all(&m, words, n, 1, 4), *greedy = pronounce_all(&m, words, n, 1, 1);
    int differ = count_differences(&m, words, out, said, 0);
    check_threads(&m, words, n, 4, out);
    Seq2seqState s = open_state(&m, 1);
    for (int i = 0; i < n; i++) {
        double score = score_of(&m, &s, words[i].ids, words[i].n_ids, out[i].ids, out[i].n, true);
        CHECK(fabs(score - out[i].score) < 1e-5, "%s: score %.9g, along its path %.9g", words[i].text, out[i].score,
              score);
        bool same = same_output(&out[i], &greedy[i]);
        CHECK(!same || fabs(out[i].score - greedy[i].score) < 1e-5, "%s: the same output scores %.9g and %.9g",
              words[i].text, out[i].score, greedy[i].score);
        better += !same && out[i].score > greedy[i].score;
        worse += !same && out[i].score < greedy[i].score; // greedy's prefix fell out of the beams
    }
    printf("  us_bart, 4 beams: %d of %d differ from the reference; %d score above greedy, %d below\n", differ, n,
           better, worse);
    CHECK(worse <= n / 20, "%d of %d outputs of 4 beams score below greedy", worse, n);
    seq2seq_state_close(&s);
    free_outputs(out, n);
    free_outputs(greedy, n);
    free_said(said);
    words_free(&words);
    seq2seq_close(&m);
}

static void g2p_greedy(void) {
    SKIP_WITHOUT(G2P "/model.safetensors");
    SKIP_WITHOUT("tests/fixtures/g2p_greedy.tsv");
    char err[512] = "";
    Seq2seq m;
    bool open = !seq2seq_open(&m, G2P, err, sizeof err);
    CHECK(open, "%s", err);
    if (!open) return;
    Word *words = NULL;
    char **said = NULL;
    read_said("tests/fixtures/g2p_greedy.tsv", &m, quick() ? 20 : 1, &words, &said);
    Dictionary d;
    CHECK(!dictionary_read(&d, &m, G2P "/test.dict", err, sizeof err), "%s", err);
    int n = (int)arrlen(words), n_test = (int)arrlen(d.words), step = quick() ? 20 : 1;
    CHECK(n == (n_test + step - 1) / step, "%d words of the %d of test.dict in g2p_greedy.tsv", n, n_test);
    for (int i = 0; i < n && i * step < n_test; i++) {
        CHECK(!strcmp(words[i].text, d.words[i * step].text), "word %d: %s, in test.dict %s", i, words[i].text,
              d.words[i * step].text);
    }
    Decoded *out = pronounce_all(&m, words, n, 2, 1);
    int differ = count_differences(&m, words, out, said, 1e-4);
    printf("  models/g2p: %d of %d greedy outputs differ from the reference, at float ties\n", differ, n);
    free_outputs(out, n);
    free_said(said);
    words_free(&words);
    dictionary_free(&d);
    seq2seq_close(&m);
}

// ---- the cross-attention of one word

// What one head gives each input, from the model's own numbers in double: of the first layer, for the first output.
static void check_trace(const Seq2seq *m, Seq2seqState *s, const Word *word, const Decoded *out) {
    char err[512] = "";
    Trace t;
    bool traced = !trace_word(&t, m, s, word, out, err, sizeof err);
    CHECK(traced, "%s: %s", word->text, err);
    if (!traced) return;
    CHECK(t.n_in == word->n_ids && t.n_maps == m->n_layers * m->config.n_heads, "%d inputs, %d maps", t.n_in, t.n_maps);
    CHECK(t.n_out >= out->n && t.n_out <= out->n + 1, "%d outputs for %d symbols", t.n_out, out->n);
    float *mean = need_floats((int64_t)t.n_out * t.n_in);
    trace_mean(&t, mean);
    for (int row = 0; row < t.n_out; row++) {
        for (int map = -1; map < t.n_maps; map++) {
            const float *w = map < 0 ? mean + row * t.n_in : t.weights + ((int64_t)map * t.n_out + row) * t.n_in;
            double sum = 0;
            for (int i = 0; i < t.n_in; i++) {
                CHECK(w[i] >= 0 && w[i] <= 1.00001f, "%s: map %d, output %d, input %d: %g", word->text, map, row, i,
                      (double)w[i]);
                sum += (double)w[i];
            }
            CHECK(fabs(sum - 1) < 1e-5, "%s: map %d, output %d of %d: weights sum to %g", word->text, map, row, t.n_out,
                  sum);
        }
        for (int i = 0; i < t.n_in; i++) {
            double sum = 0;
            for (int map = 0; map < t.n_maps; map++) {
                sum += (double)t.weights[((int64_t)map * t.n_out + row) * t.n_in + i];
            }
            CHECK(fabs(sum / t.n_maps - (double)mean[row * t.n_in + i]) < 1e-6, "%s: the mean at %d, %d", word->text,
                  row, i);
        }
    }
    free(mean);
    trace_free(&t);
}

// Longest outputs too: as many symbols as the decoder has positions.
static void trace_of_words(void) {
    char err[512] = "";
    static const Case shapes[] = {{.dim = 16, .longest = 20}, {.dim = 4, .longest = 4}, {.dim = 8, .longest = 70}};
    for (int i = 0; i < N_OF(shapes); i++) {
        Case c = small;
        c.dim = shapes[i].dim;
        c.longest = shapes[i].longest;
        Seq2seq m;
        if (!open_model(&m, &c)) continue;
        Word *words = NULL;
        add_word(&words, &m, "a");
        add_word(&words, &m, "zq");
        if (c.longest > 10) add_word(&words, &m, "hgfedcba");
        Seq2seqState s = open_state(&m, 1);
        for (int w = 0; w < (int)arrlen(words); w++) {
            int32_t *ids = need(sizeof *ids * (size_t)c.longest);
            for (int n = 0; n <= c.longest; n += n < 2 || n == c.longest - 1 ? 1 : c.longest - 3) {
                for (int t = 0; t < n; t++) ids[t] = 4 + pick(26);
                check_trace(&m, &s, &words[w], &(Decoded){.ids = ids, .n = n});
            }
            free(ids);
            CHECK(!seq2seq_encode(&m, &s, words[w].ids, &words[w].n_ids, 1, err, sizeof err), "%s", err);
            Decoded out;
            CHECK(!beam_decode(&m, &s, 1, 1000, &out, err, sizeof err), "%s", err);
            check_trace(&m, &s, &words[w], &out);
            decoded_free(&out);
        }
        seq2seq_state_close(&s);
        words_free(&words);
        seq2seq_close(&m);
    }
}

// ---- words

#define LETTERS                                                                                                        \
    "\"graphemes\":{\"<s>\":1,\"a\":4,\"b\":5,\"c\":6,\"d\":7,\"e\":8,\"f\":9,\"g\":10,\"h\":11,\"i\":12,\"j\":13,"    \
    "\"k\":14,\"l\":15,\"m\":16,\"n\":17,\"o\":18,\"p\":19,\"q\":20,\"r\":21,\"s\":22,\"t\":23,\"u\":24,\"v\":25,"     \
    "\"w\":26,\"x\":27,\"y\":28,\"z\":29,\"'\":30,\"-\":31,\".\":32,\"\xc3\xa9\":33,\"Z\":34},"
#define STRESSES "\"phonemes\":{\"AH0\":35,\"AH1\":36,\"AH2\":37,\"B\":38,\"K\":39}"

static const Case lettered = {.name = "lettered",
                              .type = "mbart",
                              .act = "gelu",
                              .vocab = 40,
                              .dim = 8,
                              .encoder_layers = 1,
                              .decoder_layers = 1,
                              .encoder_heads = 2,
                              .decoder_heads = 2,
                              .encoder_ffn = 8,
                              .decoder_ffn = 8,
                              .longest = 40,
                              .tied = true,
                              .output_bias = true,
                              .mute = 35,
                              .symbols = LETTERS STRESSES};

// Words as "text" or, where the letters that the model reads are others, "text=letters" (? for an unknown one).
static char *show_words(const Seq2seq *m, const Word *words) {
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    for (ptrdiff_t i = 0; i < arrlen(words); i++) {
        const Word *w = &words[i];
        char letters[256] = "";
        int unknown = 0;
        for (int t = 1; t < w->n_ids - 1; t++) {
            const char *letter = w->ids[t] == m->unk_id ? "?" : symbols_text(&m->graphemes, w->ids[t]);
            unknown += w->ids[t] == m->unk_id;
            strncat(letters, letter ? letter : "!", sizeof letters - strlen(letters) - 1);
        }
        CHECK(w->ids[0] == m->bos_id && w->ids[w->n_ids - 1] == m->eos_id, "%s: ends", w->text);
        CHECK(w->n_unknown == unknown && w->n_known == w->n_ids - 2 - unknown, "%s: %d known, %d unknown", w->text,
              w->n_known, w->n_unknown);
        fprintf(f, "%s%s%s%s", i ? " " : "", w->text, strcmp(letters, w->text) ? "=" : "",
                strcmp(letters, w->text) ? letters : "");
    }
    fclose(f);
    return text;
}

static const struct {
    const char *text, *words;
} splits[] = {
    {"", ""},
    {" \t\r\n\f\v ", ""},
    {"one", "one"},
    {"two words", "two words"},
    {"\ttwo\r\n words \n", "two words"},
    {"Hello, World!", "Hello=hello World=world"},
    {"QUIZ Zoo", "QUIZ=quiZ Zoo"}, // a known capital stays
    {"(brackets) [square] {curly} <angle>", "brackets square curly angle"},
    {"\"double\" 'single' `back`", "double single back"},
    {"\xe2\x80\x9c"
     "curly\xe2\x80\x9d \xe2\x80\x98single\xe2\x80\x99",
     "curly single"},
    {"'tis dogs' don't 'em", "'tis dogs' don't 'em"},
    {"rock 'n' roll", "rock n roll"},
    {"'so,' she said, 'what?'", "so she said what"},
    {"\"'twas,\" he said.", "'twas he said"},
    {"well-known dash- -dash", "well-known dash dash"},
    {"one -- two \xe2\x80\x94 three - four", "one two three four"},
    {"so\xe2\x80\xa6 ...and then...", "so and then"},
    {"\xe2\x80\x94\xe2\x80\x9cso\xe2\x80\x9d\xe2\x80\x94", "so"},
    {"u.s. U.S., (e.g.) i.e.", "u.s. U.S.=u.s. e.g. i.e."},
    {"end. Mr. a. 'end.'", "end Mr=mr a end"},
    {"what?! no!!!", "what no"},
    {"... !!! -- \xe2\x80\xa6", ""},
    {"' '' ''' ','", ""},
    {"''so'' '(so)' (')", "so so"},
    {"caf\xc3\xa9 \xc3\x89", "caf\xc3\xa9 \xc3\x89=?"},
    {"na\xc3\xafve \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x98\x80", "na\xc3\xafve=na?ve \xe6\x97\xa5\xe6\x9c\xac=?? "
                                                               "\xf0\x9f\x98\x80=?"},
    {"b2b 3 a_b", "b2b=b?b 3=? a_b=a?b"},
    {"\xff\xfe"
     "ab",
     "\xff\xfe"
     "ab=??ab"},
    {"a\xc3 \xe2\x82 b\xf0\x9f\x98", "a\xc3=a? \xe2\x82=?? b\xf0\x9f\x98=b???"},
    {"\xed\xa0\x80 \xc0\xaf \xf4\x90\x80\x80", "\xed\xa0\x80=??? \xc0\xaf=?? \xf4\x90\x80\x80=????"},
    {"\x01\x02 \x7f", "\x01\x02=?? \x7f=?"},
    {"\x80 \xbf\xbf", "\x80=? \xbf\xbf=??"},
};

static void words_of_text(void) {
    char err[512] = "";
    Seq2seq m;
    if (!open_model(&m, &lettered)) return;
    for (int i = 0; i < N_OF(splits); i++) {
        Word *words = NULL;
        size_t n = strlen(splits[i].text);
        char *exact = need(n ? n : 1); // no terminator: a sanitizer sees a byte too far
        memcpy(exact, splits[i].text, n);
        CHECK(!words_split(&words, &m, exact, n, err, sizeof err), "%s", err);
        char *shown = show_words(&m, words);
        CHECK(!strcmp(shown, splits[i].words), "[%s]: expected [%s], found [%s]", splits[i].text, splits[i].words,
              shown);
        free(shown);
        free(exact);
        words_free(&words);
    }
    char every[256]; // any bytes but NUL, in one line
    for (int i = 0; i < 255; i++) every[i] = (char)(i + 1);
    Word *words = NULL;
    CHECK(!words_split(&words, &m, every, 255, err, sizeof err), "%s", err);
    CHECK(arrlen(words) > 1, "%d words of all bytes", (int)arrlen(words));
    words_free(&words);

    char long_word[1001];
    memset(long_word, 'q', 1000);
    long_word[1000] = 0;
    CHECK(!words_split(&words, &m, long_word, 1000, err, sizeof err), "%s", err);
    CHECK(arrlen(words) == 1 && words[0].n_ids == 1002 && words[0].n_known == 1000 && !pronounceable(&m, words),
          "a word of 1000 letters");
    words_free(&words);

    CHECK(!words_add(&words, &m, " as-it, is ", 11, err, sizeof err), "%s", err);
    CHECK(arrlen(words) == 1 && !strcmp(words[0].text, " as-it, is ") && words[0].n_unknown == 4 &&
              !strcmp(words[0].unknown, " "),
          "a word as it stands: %d unknown", words ? words[0].n_unknown : -1);
    CHECK(!words_add(&words, &m, "x\xc3\xa8y", 4, err, sizeof err) && !strcmp(words[1].unknown, "\xc3\xa8"),
          "the unknown letter: %s", words[1].unknown);
    words_free(&words);
    seq2seq_close(&m);
}

// ---- symbols

static int load_symbols(Symbols *y, const char *json, int vocab_size, char *err, size_t errlen) {
    Settings s;
    if (settings_parse(&s, "F", json, strlen(json), err, errlen)) return -1;
    int rc = symbols_load(y, &s, "object", "string", vocab_size, 4);
    settings_free(&s);
    return rc;
}

static void symbol_tables(void) {
    static const struct {
        const char *json, *error;
    } tables[] = {
        {"{}", "F: object: "},
        {"{\"object\":null}", "F: object: "},
        {"{\"object\":[\"a\"]}", "F: object: expected an object"},
        {"{\"object\":\"abc\"}", "F: object: expected an object"},
        {"{\"object\":{\"a\":10}}", "F: object: id: expected 0 to 9, found 10"},
        {"{\"object\":{\"a\":9223372036854775807}}", "F: object: id: expected 0 to 9"},
        {"{\"object\":{\"a\":4294967300}}", "F: object: id: expected 0 to 9"}, // 4, cut to 32 bits
        {"{\"object\":{\"a\":99999999999999999999}}", "not JSON"},
        {"{\"object\":{\"a\":4,\"b\":4}}", "F: object: id 4: expected once"},
        {"{\"object\":{\"a\":4,\"a\":5}}", "not JSON: duplicate"},
        {"{\"object\":{\"a\":4.0}}", "F: object: "},
        {"{\"object\":{\"a\":\"4\"}}", "F: object: "},
        {"{\"object\":{\"a\":true}}", "F: object: "},
        {"{\"object\":{\"a\":null}}", "F: object: "},
        {"{\"object\":{\"a\":{}}}", "F: object: "},
        {"{\"object\":{\"\":4}}", "F: object: "},
        {"{\"object\":{\"a\\u0000b\":4}}", "not JSON"},
        {"{\"string\":5}", "F: string: expected a text"},
        {"{\"string\":{\"a\":4}}", "F: string: expected a text"},
        {"{\"string\":\"____abcdefg\"}", "F: string: id: expected 0 to 9, found 10"},
        {"{\"string\":\"____\xff\"}", "not JSON"},
    };
    char err[512];
    for (int i = 0; i < N_OF(tables); i++) {
        Symbols y = {0};
        err[0] = 0;
        CHECK(load_symbols(&y, tables[i].json, 10, err, sizeof err) == -1, "%s: loads", tables[i].json);
        CHECK(one_line(err) && strstr(err, tables[i].error), "%s: expected '%s' in '%s'", tables[i].json,
              tables[i].error, err);
        symbols_free(&y);
    }
    Symbols y;
    CHECK(!load_symbols(&y, "{\"object\":{\"ab\":5,\"<s>\":1,\"x\":3,\"\xc9\x99\":9,\"neg\":-1}}", 10, err, sizeof err),
          "%s", err);
    CHECK(y.spaced && symbols_find(&y, "ab", 2) == 5 && symbols_find(&y, "abc", 3) == -1 &&
              symbols_find(&y, "abc", 2) == 5 && symbols_find(&y, "a", 1) == -1 && symbols_find(&y, "\xc9\x99", 2) == 9,
          "found by its bytes alone");
    CHECK(symbols_find(&y, "<s>", 3) == -1 && symbols_find(&y, "x", 1) == -1 && !symbols_text(&y, 1),
          "special ids have no symbol");
    CHECK(!symbols_text(&y, -1) && !symbols_text(&y, 10) && !symbols_text(&y, 6) && !strcmp(symbols_text(&y, 5), "ab"),
          "text by id");
    symbols_free(&y);
    symbols_free(&y);
    CHECK(!load_symbols(&y, "{\"string\":\"____\xc9\x99\xcb\x88z\"}", 10, err, sizeof err), "%s", err);
    CHECK(!y.spaced && symbols_find(&y, "\xc9\x99", 2) == 4 && symbols_find(&y, "\xcb\x88", 2) == 5 &&
              symbols_find(&y, "z", 1) == 6 && symbols_find(&y, "_", 1) == -1,
          "a string of characters");
    symbols_free(&y);
    CHECK(!load_symbols(&y, "{\"object\":{},\"string\":\"____a\"}", 10, err, sizeof err) &&
              symbols_find(&y, "a", 1) == -1,
          "the object holds, though empty");
    symbols_free(&y);
}

// Lengths of UTF-8 characters, valid and not, against a decoder written from the Unicode standard's table 3-7.
static void utf8_lengths(void) {
    static const int bytes[] = {0x01, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0,
                                0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff, 0};
    int n = N_OF(bytes);
    for (int i = 0; i < n * n * n * n; i++) {
        char text[5] = {(char)bytes[i % n], (char)bytes[i / n % n], (char)bytes[i / n / n % n],
                        (char)bytes[i / n / n / n]};
        const unsigned char *p = (const unsigned char *)text;
        int length = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
        unsigned low = p[0] == 0xe0   ? 0xa0
                       : p[0] == 0xf0 ? 0x90
                                      : 0x80,
                 high = p[0] == 0xed   ? 0x9f
                        : p[0] == 0xf4 ? 0x8f
                                       : 0xbf;
        bool want = length > 0 && (length < 2 || (p[1] >= low && p[1] <= high)), valid;
        for (int b = 2; b < length; b++) want = want && p[b] >= 0x80 && p[b] <= 0xbf;
        if (!p[0]) continue;
        size_t found = utf8_length(text, &valid);
        CHECK(valid == want && found == (size_t)(want ? length : 1), "%02x %02x %02x %02x: %zu bytes, %s", p[0], p[1],
              p[2], p[3], found, valid ? "valid" : "not valid");
    }
}

// ---- dictionaries and rates

static void check_rates(Rates r, int n_words, int wrong, long n_phonemes, long edits, const char *what) {
    CHECK(r.n_words == n_words && r.wrong_words == wrong && r.n_phonemes == n_phonemes && r.edits == edits,
          "%s: expected %d of %d words, %ld of %ld symbols; found %d of %d, %ld of %ld", what, wrong, n_words, edits,
          n_phonemes, r.wrong_words, r.n_words, r.edits, r.n_phonemes);
}

enum { AH0 = 35, AH1, AH2, B, K };

static void rates_by_hand(void) {
    char err[512] = "";
    Seq2seq m;
    if (!open_model(&m, &lettered)) return;
    write_text("d.dict", ";;; a comment line\n"
                         "cab K AH1 B\n"
                         "\n"
                         "cab(2)  K\tAH0 B # a comment B B\r\n"
                         "ab AH1 B\r\n"
                         "bad XX AH1\n"
                         "abba AH0 B AH1 \n"
                         "Back B AH1 K\n"
                         "abba(3) AH0"); // no newline
    Dictionary d;
    bool read = !dictionary_read(&d, &m, in_folder("d.dict"), err, sizeof err);
    CHECK(read, "%s", err);
    if (!read) return;
    char *shown = show_words(&m, d.words);
    CHECK(!strcmp(shown, "cab ab bad abba Back=back"), "words: %s", shown);
    free(shown);
    const int n_answers[] = {2, 1, 1, 2, 1}, lengths[] = {3, 2, 2, 3, 3};
    for (int i = 0; i < 5; i++) {
        CHECK(arrlen(d.answers[i]) == n_answers[i] && arrlen(d.answers[i][0]) == lengths[i], "answers of word %d", i);
    }
    CHECK(d.answers[2][0][0] == -1 && d.answers[2][0][1] == AH1, "an unknown phoneme is -1");
    CHECK(d.plain[AH0] == d.plain[AH1] && d.plain[AH1] == d.plain[AH2] && d.plain[B] == B && d.plain[K] == K &&
              d.plain[AH0] != d.plain[B],
          "stresses of one vowel");
    int32_t cab[] = {1, K, AH0, 3, B, 0}, ab[] = {AH2, B}, bad[] = {AH1}, back[] = {K, AH1, B};
    Decoded out[] = {{cab, 6, 0, 0}, {ab, 2, 0, 0}, {bad, 1, 0, 0}, {NULL, 0, 0, 0}, {back, 3, 0, 0}};
    // with stress: cab(2) 0 of 3, ab 1 of 2, bad 1 of 2 (XX is never right), abba(3) 1 of 1, Back 2 of 3
    check_rates(dictionary_score(&d, out, true), 5, 4, 11, 5, "with stress");
    check_rates(dictionary_score(&d, out, false), 5, 3, 11, 4, "without");
    dictionary_free(&d);
    dictionary_free(&d);
    seq2seq_close(&m);
}

// Symbols of one character: words are their own pronunciations.
static void edit_distances(void) {
    static const struct {
        const char *answer, *output;
        int edits;
    } pairs[] = {{"kitten", "sitting", 3},
                 {"flaw", "lawn", 2},
                 {"intention", "execution", 5},
                 {"saturday", "sunday", 3},
                 {"abc", "abc", 0},
                 {"abc", "xyz", 3},
                 {"a", "bbbbb", 5},
                 {"bbbbb", "a", 5},
                 {"abcdef", "", 6},
                 {"x", "abcdefghijklmnopq", 17},
                 {"ab", "ba", 2},
                 {"aaab", "baaa", 2}};
    char err[512] = "";
    Case c = lettered;
    c.symbols = LETTERS "\"phoneme_chars\":\"____abcdefghijklmnopqrstuvwxyz\"";
    Seq2seq m;
    if (!open_model(&m, &c)) return;
    for (int i = 0; i < N_OF(pairs); i++) {
        char line[64];
        int32_t ids[64];
        int n = (int)strlen(pairs[i].output);
        snprintf(line, sizeof line, "w %s\n", pairs[i].answer);
        write_text("d.dict", line);
        for (int t = 0; t < n; t++) ids[t] = symbols_find(&m.phonemes, pairs[i].output + t, 1);
        Dictionary d;
        bool read = !dictionary_read(&d, &m, in_folder("d.dict"), err, sizeof err);
        CHECK(read, "%s", err);
        if (!read) continue;
        Decoded out = {.ids = ids, .n = n};
        int edits = pairs[i].edits;
        check_rates(dictionary_score(&d, &out, true), 1, edits > 0, (long)strlen(pairs[i].answer), edits, line);
        dictionary_free(&d);
    }
    seq2seq_close(&m);
}

static void refuses_dictionary(const Seq2seq *m, const char *text, const char *part) {
    char err[512] = "";
    Dictionary d;
    write_text("d.dict", text);
    CHECK(dictionary_read(&d, m, in_folder("d.dict"), err, sizeof err) == -1, "[%.60s]: reads", text);
    CHECK(one_line(err) && strstr(err, "d.dict") && strstr(err, part), "[%.60s]: expected '%s' in '%s'", text, part,
          err);
}

static void hostile_dictionaries(void) {
    char err[512] = "";
    Seq2seq m;
    if (!open_model(&m, &lettered)) return;
    refuses_dictionary(&m, "", "empty");
    refuses_dictionary(&m, "\n\n", "found none");
    refuses_dictionary(&m, ";;; nothing\n", "found none");
    refuses_dictionary(&m, "ab AH0 B\nword\n", "line 2: ");
    refuses_dictionary(&m, "word \t \n", "line 1: ");
    refuses_dictionary(&m, "a B\n\nb B\nword # B\n", "line 4: ");
    size_t room = 8192;
    char *line = need(room);
    for (int n = 1000; n <= 1001; n++) { // phonemes of a word
        char *at = line + sprintf(line, "ab");
        for (int i = 0; i < n; i++) at += sprintf(at, " B");
        if (n > 1000) refuses_dictionary(&m, line, "line 1: ");
        else {
            write_text("d.dict", line);
            Dictionary d;
            CHECK(!dictionary_read(&d, &m, in_folder("d.dict"), err, sizeof err), "%s", err);
            int32_t ids[1500];
            for (int i = 0; i < 1500; i++) ids[i] = B;
            Decoded out = {.ids = ids, .n = 1000};
            check_rates(dictionary_score(&d, &out, true), 1, 0, 1000, 0, "1000 phonemes");
            out.n = 1500; // more than a word can have: the first thousand count
            check_rates(dictionary_score(&d, &out, true), 1, 0, 1000, 0, "1500 symbols");
            dictionary_free(&d);
        }
    }
    free(line);
    Dictionary d;
    CHECK(dictionary_read(&d, &m, in_folder("absent.dict"), err, sizeof err) == -1 && strstr(err, "absent.dict"), "%s",
          err);
    CHECK(dictionary_read(&d, &m, folder, err, sizeof err) == -1 && one_line(err), "a folder: %s", err);
    seq2seq_close(&m);
}

// ---- hostile models

static void refuses_model(const char *what, const char *file, const char *part) {
    char err[512] = "";
    Seq2seq m;
    bool refused = seq2seq_open(&m, folder, err, sizeof err) == -1;
    CHECK(refused, "%s: opens", what);
    if (!refused) seq2seq_close(&m);
    CHECK(one_line(err) && strstr(err, file) && strstr(err, part), "%s: expected '%s' and '%s' in '%s'", what, file,
          part, err);
}

static void hostile_config(void) {
    static const struct {
        const char *key, *value, *part; // value NULL: the key is absent
    } changes[] = {
        {"model_type", NULL, "model_type"},
        {"model_type", "\"t5\"", "found 't5'"},
        {"model_type", "7", "model_type: expected a text"},
        {"vocab_size", NULL, "vocab_size"},
        {"vocab_size", "0", "vocab_size: expected 5 to"},
        {"vocab_size", "4", "vocab_size"},
        {"vocab_size", "-30", "vocab_size"},
        {"vocab_size", "30.0", "vocab_size: expected a whole number"},
        {"vocab_size", "\"30\"", "vocab_size"},
        {"vocab_size", "2147483648", "vocab_size"},
        {"vocab_size", "4294967326", "vocab_size"}, // 30, cut to 32 bits
        {"vocab_size", "1e999", "not JSON"},
        {"vocab_size", "99999999999999999999", "not JSON"},
        {"vocab_size", "10", "graphemes: id: expected 0 to 9"},
        {"d_model", NULL, "d_model"},
        {"d_model", "0", "d_model: expected 1 to"},
        {"d_model", "-16", "d_model"},
        {"d_model", "65537", "d_model"},
        {"d_model", "1000000000000", "d_model"},
        {"d_model", "[16]", "d_model: expected a whole number, found an array"},
        {"d_model", "17", "heads: expected a divisor"},
        {"encoder_attention_heads", NULL, "encoder_attention_heads"},
        {"encoder_attention_heads", "0", "encoder_attention_heads: expected 1 to"},
        {"encoder_attention_heads", "3", "heads: expected a divisor of the width 16, found 3"},
        {"encoder_attention_heads", "32", "heads: expected a divisor of the width 16, found 32"},
        {"decoder_attention_heads", "0", "decoder_attention_heads: expected 1 to"},
        {"decoder_attention_heads", "5", "heads: expected a divisor of the width 16, found 5"},
        {"decoder_attention_heads", "-1", "decoder_attention_heads"},
        {"encoder_ffn_dim", NULL, "encoder_ffn_dim"},
        {"encoder_ffn_dim", "0", "encoder_ffn_dim"},
        {"decoder_ffn_dim", "9999999", "decoder_ffn_dim"},
        {"decoder_ffn_dim", "{}", "decoder_ffn_dim: expected a whole number, found an object"},
        {"encoder_layers", NULL, "encoder_layers"},
        {"encoder_layers", "0", "encoder_layers"},
        {"decoder_layers", "2000000000", "decoder_layers"},
        {"decoder_layers", "true", "decoder_layers: expected a whole number, found a boolean"},
        {"max_position_embeddings", NULL, "max_position_embeddings"},
        {"max_position_embeddings", "1", "max_position_embeddings: expected 2 to"},
        {"max_position_embeddings", "2147483647", "max_position_embeddings"},
        {"activation_function", "\"tanh\"", "activation_function: expected gelu"},
        {"activation_function", "[]", "activation_function: expected a text"},
        {"scale_embedding", "1", "scale_embedding: expected true or false"},
        {"tie_word_embeddings", "\"yes\"", "tie_word_embeddings: expected true or false"},
        {"eos_token_id", "4", "eos_token_id: expected 0 to 3, found 4"},
        {"eos_token_id", "[2]", "eos_token_id: expected a whole number"},
        {"bos_token_id", "-1", "bos_token_id"},
        {"unk_token_id", "2.5", "unk_token_id"},
        {"decoder_start_token_id", "30", "decoder_start_token_id"},
        {"pad_token_id", "\"0\"", "pad_token_id"},
        {"graphemes", NULL, "grapheme"},
        {"phonemes", NULL, "phoneme"},
        {"phonemes", "{\"A\":30}", "phonemes: id: expected 0 to 29, found 30"},
    };
    static const struct {
        const char *text, *part;
    } files[] = {{"", "empty"},
                 {"{", "not JSON"},
                 {"{}", "model_type"},
                 {"[]", "expected a JSON object"},
                 {"7", "config.json"},
                 {"\xff\xfe", "not JSON"},
                 {"{\"model_type\":\"bart\",\"model_type\":\"mbart\"}", "not JSON: duplicate"},
                 {"{\"model_type\":\"mbart\"} x", "not JSON"}};
    Case c = small;
    write_weights(&c, (Fault){0});
    char *base = config_text(&c);
    for (int i = 0; i < N_OF(changes); i++) {
        json_t *config = json_loads(base, 0, NULL);
        char *text, what[128];
        size_t n;
        json_object_del(config, changes[i].key);
        char *rest = json_dumps(config, JSON_COMPACT);
        FILE *f = open_memstream(&text, &n); // by hand: a value need not be JSON that jansson writes
        fprintf(f, "%.*s", (int)strlen(rest) - 1, rest);
        if (changes[i].value) fprintf(f, ",\"%s\":%s", changes[i].key, changes[i].value);
        fputc('}', f);
        fclose(f);
        write_text("config.json", text);
        snprintf(what, sizeof what, "%s %s", changes[i].key, changes[i].value ? changes[i].value : "absent");
        refuses_model(what, "config.json", changes[i].part);
        free(text);
        free(rest);
        json_decref(config);
    }
    for (int i = 0; i < N_OF(files); i++) {
        write_text("config.json", files[i].text);
        refuses_model(files[i].text, "config.json", files[i].part);
    }
    unlink(in_folder("config.json"));
    refuses_model("no config.json", "config.json", folder);
    free(base);
}

// A config that is sound in itself, and tensors of another shape.
static void config_and_tensors_differ(void) {
    static const struct {
        Case c;
        const char *part;
    } cases[] = {{{.vocab = 29}, "model.shared.weight: expected shape [29, 16], found [30, 16]"},
                 {{.dim = 32}, "model.shared.weight"},
                 {{.longest = 19}, "model.encoder.embed_positions.weight"},
                 {{.encoder_ffn = 25}, "model.encoder.layers.0.fc1.weight"},
                 {{.decoder_ffn = 65536}, "model.decoder.layers.0.fc1.weight"},
                 {{.encoder_layers = 3}, "model.encoder.layers.2.self_attn.q_proj.weight"},
                 {{.decoder_layers = 1000}, "model.decoder.layers.2.self_attn.q_proj.weight"}};
    write_weights(&small, (Fault){0});
    for (int i = 0; i < N_OF(cases); i++) {
        Case c = small;
        if (cases[i].c.vocab) c.vocab = cases[i].c.vocab;
        if (cases[i].c.dim) c.dim = cases[i].c.dim;
        if (cases[i].c.longest) c.longest = cases[i].c.longest;
        if (cases[i].c.encoder_ffn) c.encoder_ffn = cases[i].c.encoder_ffn;
        if (cases[i].c.decoder_ffn) c.decoder_ffn = cases[i].c.decoder_ffn;
        if (cases[i].c.encoder_layers) c.encoder_layers = cases[i].c.encoder_layers;
        if (cases[i].c.decoder_layers) c.decoder_layers = cases[i].c.decoder_layers;
        char *config = config_text(&c);
        write_text("config.json", config);
        free(config);
        refuses_model(cases[i].part, "model.safetensors", cases[i].part);
    }
    Case c = small;
    c.tied = false; // promises an output matrix that is not there
    char *config = config_text(&c);
    write_text("config.json", config);
    free(config);
    refuses_model("untied", "model.safetensors", "lm_head.weight");
}

static void hostile_tensors(void) {
    static const char *const names[] = {
        "model.shared.weight",
        "final_logits_bias",
        "model.encoder.embed_positions.weight",
        "model.decoder.embed_positions.weight",
        "model.encoder.layernorm_embedding.weight",
        "model.decoder.layernorm_embedding.bias",
        "model.encoder.layers.0.self_attn.q_proj.weight",
        "model.encoder.layers.1.self_attn.k_proj.bias",
        "model.encoder.layers.0.self_attn.out_proj.bias",
        "model.encoder.layers.1.self_attn_layer_norm.weight",
        "model.encoder.layers.0.fc1.weight",
        "model.encoder.layers.0.fc1.bias",
        "model.encoder.layers.1.fc2.weight",
        "model.encoder.layers.1.final_layer_norm.bias",
        "model.encoder.layer_norm.weight",
        "model.decoder.layers.0.self_attn.v_proj.weight",
        "model.decoder.layers.1.encoder_attn.k_proj.weight",
        "model.decoder.layers.1.encoder_attn.v_proj.bias",
        "model.decoder.layers.0.encoder_attn_layer_norm.bias",
        "model.decoder.layers.1.fc2.bias",
        "model.decoder.layer_norm.bias",
    };
    static const char *const parts[] = {[MISSING] = "expected, not found",
                                        [TALLER] = "shape",
                                        [WIDER] = "shape",
                                        [FLAT] = "shape",
                                        [WHOLE_NUMBERS] = "dtype"};
    write_model(&small);
    for (int i = 0; i < N_OF(names); i++) {
        bool vector = strstr(names[i], ".bias") || strstr(names[i], "layer_norm") || strstr(names[i], "layernorm");
        for (int kind = MISSING; kind <= WHOLE_NUMBERS; kind++) {
            if (kind == FLAT && vector) continue; // it is flat
            if (kind == MISSING && !strcmp(names[i], "final_logits_bias")) continue;
            write_weights(&small, (Fault){names[i], (FaultKind)kind});
            char what[128], part[192];
            snprintf(what, sizeof what, "%s, fault %d", names[i], kind);
            snprintf(part, sizeof part, "tensor %s: ", names[i]);
            refuses_model(what, "model.safetensors", part);
            refuses_model(what, "model.safetensors", parts[kind]);
        }
    }
    write_weights(&small, (Fault){"final_logits_bias", MISSING}); // may be absent
    char err[512] = "";
    Seq2seq m;
    bool open = !seq2seq_open(&m, folder, err, sizeof err);
    CHECK(open, "%s", err);
    if (open) seq2seq_close(&m);
}

static void truncated_weights(void) {
    write_model(&small);
    struct stat st;
    const char *path = in_folder("model.safetensors");
    if (stat(path, &st)) return;
    FILE *f = fopen(path, "ab");
    if (f) fputc(0, f), fclose(f);
    refuses_model("a byte too many", "model.safetensors", "bytes");
    uint64_t header = 0;
    f = fopen(path, "rb");
    CHECK(f && fread(&header, 8, 1, f) == 1, "%s", path);
    if (f) fclose(f);
    long sizes[64], n = 0, size = (long)st.st_size, data = 8 + (long)header;
    for (int i = 1; i < 40; i++) sizes[n++] = size - (size * i / 40 | (i % 2));
    const long edges[] = {size - 1, size - 4, data + 1, data, data - 1, data / 2, 9, 8, 7, 1, 0};
    for (int i = 0; i < N_OF(edges); i++) sizes[n++] = edges[i];
    for (int left = (int)n; left > 0; left--) { // the longest first
        int longest = 0;
        for (int i = 0; i < n; i++) longest = sizes[i] > sizes[longest] ? i : longest;
        CHECK(!truncate(path, sizes[longest]), "truncate to %ld", sizes[longest]);
        char what[64];
        snprintf(what, sizeof what, "cut to %ld of %ld bytes", sizes[longest], size);
        refuses_model(what, "model.safetensors", "");
        sizes[longest] = -1;
    }
    unlink(path);
    refuses_model("no model.safetensors", folder, "model.safetensors");
}

// ---- build/encdec as people meet it

enum { MAX_ARGS = 24, NOT_STARTED = 127 };

typedef struct {
    int status;      // exit status, or 128 + signal
    char *out, *err; // terminated
} Result;

// RUNNER, when set, is the emulator and its flags, split at spaces.
static Result call(const char *in, const char *const *args) {
    static char runner[512], path[512];
    const char *argv[MAX_ARGS + 16], *build = getenv("TESSERA_BUILD"), *words = getenv("RUNNER");
    int n = 0, status = 0;
    snprintf(runner, sizeof runner, "%s", words ? words : "");
    for (char *word = strtok(runner, " "); word && n < 8; word = strtok(NULL, " ")) argv[n++] = word;
    snprintf(path, sizeof path, "%s/encdec", build ? build : "build");
    argv[n++] = path;
    for (int i = 0; args[i] && i < MAX_ARGS; i++) argv[n++] = args[i];
    argv[n] = NULL;
    write_text("in", in ? in : "");
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        int fd[3] = {open(in_folder("in"), O_RDONLY), open(in_folder("out"), O_WRONLY | O_CREAT | O_TRUNC, 0666),
                     open(in_folder("err"), O_WRONLY | O_CREAT | O_TRUNC, 0666)};
        for (int i = 0; i < 3; i++) dup2(fd[i], i);
        execvp(argv[0], (char **)argv);
        _exit(NOT_STARTED);
    }
    waitpid(child, &status, 0);
    Result r = {.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)};
    r.out = read_file(in_folder("out"), NULL);
    r.err = read_file(in_folder("err"), NULL);
    return r;
}

#define CALL(...) call(NULL, (const char *const[]){__VA_ARGS__, NULL})
#define CALL_IN(in, ...) call(in, (const char *const[]){__VA_ARGS__, NULL})

static void release(Result *r) {
    free(r->out);
    free(r->err);
}

// The program refuses: this status, one line on stderr that holds `part`, nothing on stdout.
#define REFUSES(want, part, ...) refuses(want, part, #__VA_ARGS__, CALL(__VA_ARGS__))
static void refuses(int status, const char *part, const char *what, Result r) {
    const char *end = strchr(r.err, '\n');
    CHECK(r.status == status, "%s: status: expected %d, found %d: %s", what, status, r.status, r.err);
    CHECK(end && !end[1] && !strncmp(r.err, "error: ", 7), "%s: expected one line, found: %s", what, r.err);
    CHECK(strstr(r.err, part), "%s: expected '%s' in: %s", what, part, r.err);
    CHECK(!*r.out, "%s: expected nothing on stdout, found: %s", what, r.out);
    release(&r);
}

// Its stdout is `want`, its stderr holds `note` (NULL: is empty).
static void prints(Result r, int status, const char *want, const char *note, const char *what) {
    CHECK(r.status == status, "%s: status: expected %d, found %d: %s", what, status, r.status, r.err);
    CHECK(!strcmp(r.out, want), "%s: expected [%s], found [%s]", what, want, r.out);
    CHECK(note ? strstr(r.err, note) != NULL : !*r.err, "%s: expected '%s' on stderr, found: %s", what,
          note ? note : "", r.err);
    release(&r);
}

static bool program_missing(void) {
    Result r = CALL("--help");
    bool missing = r.status == NOT_STARTED;
    CHECK(!missing, "build/encdec does not start: run make first, or set TESSERA_BUILD");
    release(&r);
    return missing;
}

// The lines that the library makes of this text.
static char *said_by_library(const Seq2seq *m, const char *text, int n_beams) {
    char err[512] = "", *lines;
    size_t n;
    Word *words = NULL;
    CHECK(!words_split(&words, m, text, strlen(text), err, sizeof err), "%s", err);
    Decoded *out = pronounce_all(m, words, (int)arrlen(words), 1, n_beams);
    FILE *f = open_memstream(&lines, &n);
    for (ptrdiff_t i = 0; i < arrlen(words); i++) {
        char *spoken = pronunciation(m, &out[i]);
        fprintf(f, "%s\t%s\n", words[i].text, out[i].ids ? spoken : "?");
        free(spoken);
    }
    fclose(f);
    free_outputs(out, (int)arrlen(words));
    words_free(&words);
    return lines;
}

static void program_words(void) {
    Seq2seq m;
    if (program_missing() || !open_model(&m, &small)) return;
    const char *text = "some words, Over \"two\" lines\nand one long: abcdefghijklmnopqr\n\n last";
    char *one = said_by_library(&m, text, 1), *three = said_by_library(&m, text, 3);
    prints(CALL(folder, "-p", text, "-q"), 0, one, NULL, "-p");
    prints(CALL(folder, "-p", text, "-q", "-b", "3", "-t", "1"), 0, three, NULL, "-b 3 -t 1");
    prints(CALL(folder, "-p", text, "-q", "-b", "3", "-t", "3"), 0, three, NULL, "-b 3 -t 3");
    prints(CALL(folder, "-p", text, "-q", "--batch", "1"), 0, one, NULL, "--batch 1");
    prints(CALL(folder, "-p", text, "-q", "--batch", "256"), 0, one, NULL, "--batch 256");
    prints(CALL_IN(text, folder, "-q"), 0, one, NULL, "stdin");
    prints(CALL_IN(text, folder, "-f", "-", "-q"), 0, one, NULL, "-f -");
    write_text("words.txt", text);
    prints(CALL(folder, "-f", in_folder("words.txt"), "-q", "-t", "2"), 0, one, NULL, "-f FILE");
    prints(CALL("-q", "-p", text, in_folder("model.safetensors")), 0, one, NULL, "the .safetensors file");
    prints(CALL(folder, "-p", text), 0, one, "10 words", "statistics");
    prints(CALL(folder, "-p", "", "-q"), 0, "", NULL, "no words");
    prints(CALL(folder, "-p", ""), 0, "", "0 words", "statistics of no words");
    prints(CALL_IN("\n \n...\n", folder, "-q"), 0, "", NULL, "blank lines");
    Result r = CALL(folder, "-p", "");
    CHECK(!strstr(r.err, "nan") && !strstr(r.err, "inf"), "statistics of no words: %s", r.err);
    release(&r);
    r = CALL(folder, "-p", text, "-q", "-n", "2");
    for (char *line = strtok(r.out, "\n"); line; line = strtok(NULL, "\n")) {
        char *tab = strchr(line, '\t'), *space = tab ? strchr(tab, ' ') : NULL;
        CHECK(tab && (!space || !strchr(space + 1, ' ')), "-n 2: more than two symbols: %s", line);
    }
    release(&r);
    free(one);
    free(three);
    seq2seq_close(&m);
}

static void program_many_words(void) {
    if (program_missing()) return;
    write_model(&small);
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    for (int i = 0; i < (quick() ? 300 : 9000); i++) { // more than it takes at once
        fprintf(f, "%c%c%c%c", 'a' + pick(26), 'a' + pick(26), 'a' + pick(3), i % 7 ? ' ' : '\n');
    }
    fclose(f);
    Seq2seq m;
    if (!open_model(&m, &small)) return;
    char *lines = said_by_library(&m, text, 1);
    // the words come in pieces, so that batches differ; words and their order do not
    Result r = CALL_IN(text, folder, "-q", "-t", "2");
    CHECK(r.status == 0 && !*r.err, "status %d: %s", r.status, r.err);
    int differ = 0, n_lines = 0;
    char *a = lines, *b = r.out;
    for (; *a && *b; n_lines++) {
        size_t n_a = strcspn(a, "\n"), n_b = strcspn(b, "\n");
        CHECK(!strncmp(a, b, strcspn(a, "\t") + 1), "line %d: another word: %.20s", n_lines, b);
        differ += n_a != n_b || memcmp(a, b, n_a) != 0;
        a += n_a + 1;
        b += n_b + 1;
    }
    CHECK(!*a && !*b && differ < n_lines / 1000 + 1, "%d lines, %d differ", n_lines, differ);
    prints(CALL_IN(text, folder, "-q", "-t", "1"), 0, r.out, NULL, "one thread");
    release(&r);
    free(lines);
    seq2seq_close(&m);
    free(text);
}

static void program_json(void) {
    Seq2seq m;
    if (program_missing() || !open_model(&m, &small)) return;
    const char *text = "some \"words\" toolongtoolongtoolong qu\xc3\xa9 ### \xff\xfe"
                       "ab \xf0\x9f\x98\x80";
    Result r = CALL(folder, "-p", text, "-o", "json", "-b", "2");
    CHECK(r.status == 1, "three words cannot be said: status %d: %s", r.status, r.err);
    char *lines = said_by_library(&m, text, 2), *want = lines, *saved;
    int n = 0;
    for (char *line = strtok_r(r.out, "\n", &saved); line; line = strtok_r(NULL, "\n", &saved), n++) {
        json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        CHECK(json_is_object(object), "not JSON: %s", line);
        const json_t *symbols = json_object_get(object, "symbols"), *score = json_object_get(object, "score");
        const char *word = json_string_value(json_object_get(object, "word"));
        size_t n_word = strcspn(want, "\t");
        CHECK(json_object_get(object, "word") && json_is_array(symbols), "keys: %s", line);
        if (memchr(want, '\xff', n_word)) {
            CHECK(json_is_null(json_object_get(object, "word")), "a word that is not UTF-8: %s", line);
        } else {
            CHECK(word && strlen(word) == n_word && !memcmp(word, want, n_word), "word: expected %.*s in %s",
                  (int)n_word, want, line);
        }
        char spoken[512] = "";
        for (size_t i = 0; i < json_array_size(symbols); i++) {
            if (i) strcat(spoken, " ");
            strncat(spoken, json_string_value(json_array_get(symbols, i)), 8);
        }
        const char *tab = want + n_word + 1;
        bool said = *tab != '?';
        CHECK(!said || (strlen(spoken) == strcspn(tab, "\n") && !strncmp(spoken, tab, strlen(spoken))),
              "symbols: expected %.*s, found %s", (int)strcspn(tab, "\n"), tab, line);
        CHECK(said ? json_is_real(score) && json_real_value(score) <= 0 : !score && !*spoken, "score: %s", line);
        json_decref(object);
        want += strcspn(want, "\n") + 1;
    }
    CHECK(n == 6 && !*want, "6 lines expected, found %d", n);
    free(lines);
    release(&r);
    seq2seq_close(&m);
}

static void program_notes(void) {
    Seq2seq m;
    if (program_missing() || !open_model(&m, &small)) return;
    char *line = said_by_library(&m, "qu\xc3\xa9", 1);
    Result r = CALL(folder, "-p", "qu\xc3\xa9", "-q");
    CHECK(!strncmp(r.err, "note: qu\xc3\xa9: ", 12) && strstr(r.err, "'\xc3\xa9'"), "note: %s", r.err);
    CHECK(one_line((r.err[strcspn(r.err, "\n")] = 0, r.err)), "one line: %s", r.err);
    prints(r, 0, line, "note: ", "an unknown letter");
    prints(CALL(folder, "-p", "#1# \xe6\x97\xa5", "-q"), 1, "1\t?\n\xe6\x97\xa5\t?\n", "note: ", "no known letter");
    free(line);
    char text[1010] = "ab ", want[2048];
    memset(text + 3, 'x', 1000);
    text[1003] = 0;
    line = said_by_library(&m, "ab", 1);
    snprintf(want, sizeof want, "%s%s\t?\n", line, text + 3);
    prints(CALL(folder, "-p", text, "-q"), 1, want, "found 1000", "a word too long");
    prints(CALL(folder, "-p", "abcdefghijklmnopqrs", "-q"), 1, "abcdefghijklmnopqrs\t?\n", "at most 18 letters",
           "a letter too many");
    free(line);
    seq2seq_close(&m);
}

static void program_refuses(void) {
    if (program_missing()) return;
    write_model(&small);
    REFUSES(2, "--wat", folder, "--wat");
    REFUSES(2, "no model", "-p", "a");
    REFUSES(2, "second", folder, folder, "-p", "a");
    REFUSES(2, "-p", folder, "-p");
    REFUSES(2, "-b", folder, "-p", "a", "-b", "0");
    REFUSES(2, "-b", folder, "-p", "a", "-b", "65");
    REFUSES(2, "--batch", folder, "-p", "a", "--batch", "0");
    REFUSES(2, "-n", folder, "-p", "a", "-n", "-1");
    REFUSES(2, "-n", folder, "-p", "a", "-n", "many");
    REFUSES(2, "-t", folder, "-p", "a", "-t", "0");
    REFUSES(2, "xml", folder, "-p", "a", "-o", "xml");
    REFUSES(2, "expected one", folder, "-p", "a", "-f", "x");
    REFUSES(2, "--eval", folder, "-p", "a", "--eval");
    REFUSES(2, "--attention", folder, "--eval", "--attention", "x.svg");
    REFUSES(2, "expected one word, found 2", folder, "-p", "a b", "--attention", in_folder("p.svg"));
    REFUSES(2, "expected one word, found 0", folder, "-p", "...", "--attention", in_folder("p.svg"));
    REFUSES(1, "absent", in_folder("absent"), "-p", "a");
    REFUSES(1, "absent.safetensors", in_folder("absent.safetensors"), "-p", "a");
    REFUSES(1, "absent.txt", folder, "-f", in_folder("absent.txt"));
    REFUSES(1, "test.dict", folder, "--eval");
    REFUSES(1, folder, folder, "-f", folder);
    write_text("config.json", "{}");
    REFUSES(1, "config.json: model_type", folder, "-p", "a");
    Result r = CALL("--help");
    CHECK(r.status == 0 && strstr(r.out, "usage: ") && !*r.err, "--help: status %d: %s%s", r.status, r.out, r.err);
    release(&r);
}

// A dictionary of what the model says, some of it altered: the rates follow.
static void program_eval(void) {
    char err[512] = "";
    if (program_missing()) return;
    Case c = lettered;
    Seq2seq m;
    if (!open_model(&m, &c)) return;
    Word *words = NULL;
    const char *text = "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima";
    CHECK(!words_split(&words, &m, text, strlen(text), err, sizeof err), "%s", err);
    int n = (int)arrlen(words), wrong[2] = {0}, edits[2] = {0}, n_words = 0, n_phonemes = 0;
    Decoded *out = pronounce_all(&m, words, n, 1, 4);
    char *dict;
    size_t size;
    FILE *f = open_memstream(&dict, &size);
    fprintf(f, ";;; what it says, altered\n");
    for (int i = 0; i < n; i++) {
        int symbols = 0, vowels = 0;
        for (int t = 0; t < out[i].n; t++) {
            symbols += symbols_text(&m.phonemes, out[i].ids[t]) != NULL;
            vowels += out[i].ids[t] >= AH0 && out[i].ids[t] <= AH2;
        }
        if (symbols != out[i].n || !symbols) continue; // ids without a symbol cannot be written down
        n_words++;
        fprintf(f, "%s%s", words[i].text, i % 4 == 3 ? " K K K K K K\n" : "");
        if (i % 4 == 3) fprintf(f, "%s(2)", words[i].text); // one of two is right
        for (int t = 0; t < symbols; t++) {
            int id = out[i].ids[t];
            bool vowel = id >= AH0 && id <= AH2;
            if (i % 4 == 1 && vowel) id = AH0 + (id - AH0 + 1) % 3; // another stress
            fprintf(f, " %s", symbols_text(&m.phonemes, id));
        }
        if (i % 4 == 2) fprintf(f, " XX YY"); // two symbols that it never says
        fprintf(f, "%s\n", i % 2 ? " # comment" : "");
        n_phonemes += symbols + 2 * (i % 4 == 2);
        for (int stress = 0; stress < 2; stress++) {
            int e = i % 4 == 2 ? 2 : i % 4 == 1 && stress ? vowels : 0;
            edits[stress] += e;
            wrong[stress] += e > 0;
        }
    }
    fclose(f);
    CHECK(n_words >= 6, "%d words that can be written down", n_words);
    write_text("test.dict", dict);
    char want[512];
    snprintf(want, sizeof want,
             "without stress word error rate %5.2f %% (%d of %d)   phoneme error rate %5.2f %% (%d of %d)\n"
             "with stress    word error rate %5.2f %% (%d of %d)   phoneme error rate %5.2f %% (%d of %d)\n",
             100.0 * wrong[0] / n_words, wrong[0], n_words, 100.0 * edits[0] / n_phonemes, edits[0], n_phonemes,
             100.0 * wrong[1] / n_words, wrong[1], n_words, 100.0 * edits[1] / n_phonemes, edits[1], n_phonemes);
    prints(CALL(folder, "--eval", "-q"), 0, want, NULL, "--eval, MODEL/test.dict");
    prints(CALL(folder, "--eval", in_folder("test.dict"), "-b", "4", "-t", "3", "-q"), 0, want, NULL, "--eval FILE");
    Result r = CALL(folder, "--eval", "-o", "json", "-t", "1");
    json_t *object = json_loads(r.out, 0, NULL);
    const char *keys[] = {"wer", "per", "wer_stress", "per_stress"};
    double rates[] = {(double)wrong[0] / n_words, (double)edits[0] / n_phonemes, (double)wrong[1] / n_words,
                      (double)edits[1] / n_phonemes};
    for (int i = 0; i < 4; i++) {
        CHECK(fabs(json_number_value(json_object_get(object, keys[i])) - rates[i]) < 1e-6, "%s: expected %g in %s",
              keys[i], rates[i], r.out);
    }
    CHECK(json_integer_value(json_object_get(object, "n_words")) == n_words &&
              json_integer_value(json_object_get(object, "beams")) == 4,
          "%s", r.out);
    json_decref(object);
    release(&r);
    write_text("test.dict", "ab\n");
    REFUSES(1, "test.dict: line 1", folder, "--eval");
    unlink(in_folder("test.dict"));
    free(dict);
    free_outputs(out, n);
    words_free(&words);
    seq2seq_close(&m);
}

static void check_picture(const char *model, const char *name, const char *begin, const char *const *parts) {
    size_t n;
    const char *path = in_folder(name);
    unlink(path);
    Result r = CALL(model, "-p", "cab", "-q", "--attention", path);
    CHECK(r.status == 0 && !*r.err && !strncmp(r.out, "cab\t", 4), "%s: status %d: %s%s", name, r.status, r.out, r.err);
    release(&r);
    char *picture = read_file(in_folder(name), &n);
    CHECK(n > 200 && !memcmp(picture, begin, strlen(begin)), "%s: %zu bytes: %.20s", name, n, picture);
    for (; *parts; parts++) CHECK(strstr(picture, *parts), "%s: no '%s'", name, *parts);
    unlink(in_folder(name));
    free(picture);
}

static void program_attention(void) {
    if (program_missing()) return;
    write_model(&small);
    const char *const svg[] = {"</svg>", ">c<", ">a<", ">b<", "all heads", "layer 2, head 4", NULL}, *const none[] = {
                                                                                                         NULL};
    check_picture(folder, "p.svg", "<svg", svg);
    check_picture(folder, "p.png", "\x89PNG\r\n\x1a\n", none);
    Result r = CALL(folder, "-p", "cab", "-q", "--attention", in_folder("p.txt"));
    struct stat st;
    CHECK(r.status == 1 || r.status == 2, "p.txt: status %d: %s", r.status, r.err);
    CHECK(strstr(r.err, "p.txt") && strstr(r.err, ".svg"), "p.txt: %s", r.err);
    CHECK(stat(in_folder("p.txt"), &st), "p.txt: written");
    release(&r);
    r = CALL(folder, "-p", "cab", "-q", "--attention", in_folder("absent/p.svg"));
    CHECK(r.status == 1 && strstr(r.err, "absent/p.svg"), "a folder that is not there: %s", r.err);
    release(&r);
    r = CALL(folder, "-p", "abcdefghijklmnopqrstuv", "-q", "--attention", in_folder("p.svg"));
    CHECK(r.status == 1 && !strcmp(r.out, "abcdefghijklmnopqrstuv\t?\n") && stat(in_folder("p.svg"), &st),
          "a word too long: status %d: %s%s", r.status, r.out, r.err);
    release(&r);
    r = CALL_IN("cab\n", folder, "-q", "-b", "3", "--attention", in_folder("p.svg"));
    CHECK(r.status == 0 && !*r.err, "a word from stdin: %s", r.err);
    release(&r);
    // as many symbols as the decoder has positions: every row of the picture is there
    Case c = small;
    c.longest = 5;
    write_model(&c);
    r = CALL(folder, "-p", "cab", "-q", "-n", "500", "--attention", in_folder("p.svg"));
    CHECK(r.status == 0 && !*r.err, "the longest output: %s", r.err);
    release(&r);
    unlink(in_folder("p.svg"));
}

static void program_on_real_models(void) {
    if (program_missing()) return;
    static const struct {
        const char *model, *need, *words;
    } models[] = {{US_BART, US_BART "/us_bart.safetensors", "cab"}, {G2P, G2P "/model.safetensors", "cab"}};
    static const char *const svg[] = {"</svg>", "all heads", NULL}, *const none[] = {NULL};
    int n = 0;
    for (int i = 0; i < N_OF(models); i++) {
        struct stat st;
        if (stat(models[i].need, &st)) {
            printf("  (no %s here)\n", models[i].need);
            continue;
        }
        n++;
        const char *text = "The quick brown fox, it's said, jumped over well-worn lazy dogs in the U.S.";
        Result one = CALL(models[i].model, "-p", text, "-b", "4", "-t", "1", "-q");
        CHECK(one.status == 0 && strstr(one.out, "quick\t"), "%s: status %d: %s", models[i].model, one.status, one.err);
        prints(CALL(models[i].model, "-p", text, "-b", "4", "-t", "3", "-q"), 0, one.out, one.err[0] ? one.err : NULL,
               "three threads");
        release(&one);
        check_picture(models[i].model, "p.svg", "<svg", svg);
        check_picture(models[i].model, "p.png", "\x89PNG\r\n\x1a\n", none);
    }
    if (!n) test_was_skipped = 1;
}

int main(void) {
    if (!mkdtemp(folder)) return 1;
    RUN(random_models);
    RUN(encode_and_step_refuse);
    RUN(beams_against_all_outputs);
    RUN(beams_against_a_plain_search);
    RUN(greedy_is_greedy);
    RUN(words_in_batches);
    RUN(trace_of_words);
    RUN(words_of_text);
    RUN(symbol_tables);
    RUN(utf8_lengths);
    RUN(rates_by_hand);
    RUN(edit_distances);
    RUN(hostile_dictionaries);
    RUN(hostile_config);
    RUN(config_and_tensors_differ);
    RUN(hostile_tensors);
    RUN(truncated_weights);
    RUN(us_bart_greedy);
    RUN(us_bart_beam);
    RUN(g2p_greedy);
    RUN(program_words);
    RUN(program_many_words);
    RUN(program_json);
    RUN(program_notes);
    RUN(program_refuses);
    RUN(program_eval);
    RUN(program_attention);
    RUN(program_on_real_models);
    static const char *const left[] = {"config.json", "model.safetensors", "in",        "out",   "err",
                                       "d.dict",      "words.txt",         "test.dict", "p.svg", "p.png"};
    for (int i = 0; i < N_OF(left); i++) unlink(in_folder(left[i]));
    rmdir(folder);
    return test_report();
}
