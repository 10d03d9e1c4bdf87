// check_encdec: encoder-decoders against PyTorch's double-precision logits, a reference's words, and what must hold
// without one: words alone and together, hypotheses in one cache and alone, beams against an exhaustive search.
//
// Small models with random weights are made again from their names (tests/fixtures/bart_random.py says how). The real
// models are skipped where they are missing.
#include "make_bart.h"
#include "score.h"
#include "trace.h"

#define CASES "tests/fixtures/bart_random.txt"
#define US_BART SHARED_DATA "g2p-bart-us"
#define G2P "models/g2p"

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
    *c = (Case){0};
    const Slot slots[] = {{"vocab_size", .number = &c->vocab},
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
                          {"model_type", .word = c->type},
                          {"activation_function", .word = c->act}};
    return read_shape(line, c->name, slots, N_OF(slots));
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
        const float *logits = seq2seq_step(m, s, &(Step){&path[i], i, &group, 1, NULL, NULL}, err, sizeof err);
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
        const float *logits = seq2seq_step(m, &s, &(Step){next, t, groups, n, NULL, NULL}, err, sizeof err);
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
    const float *logits = seq2seq_step(m, s, &(Step){tokens, t, groups, n_trees, NULL, NULL}, err, sizeof err);
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

static void random_models(void) {
    FILE *f = fopen(CASES, "r");
    CHECK(f, "%s: missing", CASES);
    int n = 0;
    Example e;
    while (f && read_example(f, &e)) {
        G2p m;
        worst = 0;
        test_rng = 0x9E3779B97F4A7C15u;
        // Where not all are taken, every level has others.
        bool taken = (n + (int)cpu_level()) % by_speed(1, 2, 3) == 0;
        if (taken && open_model(&m, &e.c)) {
            check_alone(&e, &m.model);
            check_together(&e, &m.model);
            check_hypotheses(&e, &m.model);
            g2p_close(&m);
            printf("  %s: %s: NMSE %.1e\n", cpu_level_name(cpu_level()), e.c.name, worst);
        }
        free_example(&e);
        n++;
    }
    CHECK(n >= 11, "%s: expected 11 models, found %d", CASES, n);
    if (f) fclose(f);
}

static void encode_and_step_refuse(void) {
    char err[512];
    G2p m;
    if (!open_model(&m, &small)) return;
    Seq2seqState s = open_state(&m.model, 1);
    int32_t tokens[64] = {1};
    for (int i = 0; i < 2; i++) {
        int lengths[] = {3, i ? 21 : 0};
        err[0] = 0;
        CHECK(seq2seq_encode(&m.model, &s, tokens, lengths, 2, err, sizeof err) == -1 && one_line(err) &&
                  strstr(err, "input 1: expected 1 to 20 tokens"),
              "%d tokens: %s", lengths[1], err);
    }
    int length = 20;
    CHECK(!seq2seq_encode(&m.model, &s, tokens, &length, 1, err, sizeof err), "%s", err);
    StepGroup group = {.n_rows = 1};
    CHECK(seq2seq_step(&m.model, &s, &(Step){tokens, 19, &group, 1, NULL, NULL}, err, sizeof err), "%s", err);
    CHECK(!seq2seq_step(&m.model, &s, &(Step){tokens, 20, &group, 1, NULL, NULL}, err, sizeof err) &&
              strstr(err, "less than 20"),
          "position 20: %s", err);
    seq2seq_state_close(&s);
    seq2seq_state_close(&s);
    g2p_close(&m);
    g2p_close(&m);
}

// ---- greedy and beam search

// The logarithm of the sum of exponentials: a logit less it is its token's log-probability.
static double log_sum_exp(const float *logits, int n) {
    double top = (double)logits[0], sum = 0;
    for (int i = 1; i < n; i++) top = fmax(top, (double)logits[i]);
    for (int i = 0; i < n; i++) sum += exp((double)logits[i] - top);
    return top + log(sum);
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
        const float *row = logits + (int64_t)i * m->vocab_size;
        sum += (double)row[i < n ? ids[i] : m->eos_id] - log_sum_exp(row, m->vocab_size);
    }
    free(logits);
    free(path);
    return sum / n_path;
}

static void decode_all(const Seq2seq *m, Seq2seqState *s, const int32_t *tokens, const int *lengths, int n, int n_beams,
                       int max_new, Decoded *out) {
    char err[512] = "";
    CHECK(!seq2seq_encode(m, s, tokens, lengths, n, err, sizeof err), "%s", err);
    CHECK(!beam_decode(m, s, n_beams, max_new, out, err, sizeof err), "%s", err);
}

// What may follow the first n ids of an output.
typedef struct {
    int32_t ids[8];
    int n;
    double log_p[16]; // of each token
} Prefix;

// An input, and the prefixes of outputs that were asked for, each run alone, once.
typedef struct {
    const Seq2seq *m;
    Seq2seqState *s;
    const int32_t *tokens;
    int n_tokens;
    Prefix *known;
} Input;

// The log-probability of each token after ids[n], until the next call.
static const double *log_p_after(Input *in, const int32_t *ids, int n) {
    size_t bytes = sizeof *ids * (size_t)n;
    for (ptrdiff_t i = 0; i < arrlen(in->known); i++) {
        if (in->known[i].n == n && !memcmp(in->known[i].ids, ids, bytes)) return in->known[i].log_p;
    }
    Prefix p = {.n = n};
    int32_t path[9] = {in->m->start_id};
    memcpy(p.ids, ids, bytes);
    memcpy(path + 1, ids, bytes);
    float *logits = run_alone(in->m, in->s, in->tokens, in->n_tokens, path, n + 1);
    const float *last = logits + n * in->m->vocab_size;
    double all = log_sum_exp(last, in->m->vocab_size);
    for (int id = 0; id < in->m->vocab_size; id++) p.log_p[id] = (double)last[id] - all;
    free(logits);
    arrput(in->known, p);
    return arrlast(in->known).log_p;
}

typedef struct {
    Input in;
    int max_new;
    int32_t ids[8], best[8];
    int n_best;
    double best_score, second;
} Exhaustive;

// Every output that begins with ids[n]; prefixes that end in the end token are outputs.
static void try_all(Exhaustive *x, int n) { // NOLINT(misc-no-recursion)
    const Seq2seq *m = x->in.m;
    bool ended = n && x->ids[n - 1] == m->eos_id;
    if (!ended && n < x->max_new) {
        for (int id = 0; id < m->vocab_size; id++) {
            x->ids[n] = id;
            try_all(x, n + 1);
        }
        return;
    }
    double score = 0;
    for (int i = 0; i < n; i++) score += log_p_after(&x->in, x->ids, i)[x->ids[i]];
    score /= n;
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
    Case c = small;
    c.vocab = 6, c.longest = 8, c.mute = 0;
    G2p m;
    if (!open_model(&m, &c)) return;
    enum { N_INPUTS = 6, MAX_NEW = 3 };
    int32_t tokens[N_INPUTS * 8], *at = tokens;
    int lengths[N_INPUTS];
    for (int i = 0; i < N_INPUTS; i++) {
        lengths[i] = 1 + (i * 3 + 2) % 8;
        for (int t = 0; t < lengths[i]; t++) *at++ = pick(6);
    }
    Seq2seqState s = open_state(&m.model, 1), alone = open_state(&m.model, 1);
    Decoded wide[N_INPUTS], greedy[N_INPUTS];
    decode_all(&m.model, &s, tokens, lengths, N_INPUTS, MAX_BEAMS, MAX_NEW, wide);
    decode_all(&m.model, &s, tokens, lengths, N_INPUTS, 1, MAX_NEW, greedy);
    at = tokens;
    for (int i = 0; i < N_INPUTS; at += lengths[i++]) {
        Exhaustive x = {.in = {&m.model, &alone, at, lengths[i], NULL}, .max_new = MAX_NEW};
        x.best_score = x.second = -INFINITY;
        try_all(&x, 0);
        arrfree(x.in.known);
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
    g2p_close(&m);
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

static Path plain_search(Input *in, int n_beams, int max_new) {
    const Seq2seq *m = in->m;
    Path open[MAX_BEAMS] = {{.n = 0}}, all[MAX_BEAMS * 16], done[4 * MAX_BEAMS];
    int n_open = 1, n_done = 0;
    for (int length = 1; n_open && length <= max_new; length++) {
        int n = 0;
        for (int h = 0; h < n_open; h++) {
            const double *log_p = log_p_after(in, open[h].ids, length - 1);
            for (int id = 0; id < m->vocab_size; id++) {
                all[n] = open[h];
                all[n].ids[length - 1] = id;
                all[n].n = length;
                all[n++].score += log_p[id];
            }
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
    int n_ended = 0, n_not_greedy = 0, n_all = 0;
    for (int dim = 8; dim <= 24; dim += 8) {
        Case c = small;
        c.vocab = 9, c.dim = dim, c.longest = 12, c.mute = 0;
        G2p m;
        if (!open_model(&m, &c)) continue;
        enum { N_INPUTS = 24, MAX_NEW = 7 };
        int32_t tokens[N_INPUTS * 12], *at = tokens;
        int lengths[N_INPUTS];
        for (int i = 0; i < N_INPUTS; i++) {
            lengths[i] = 1 + pick(12);
            for (int t = 0; t < lengths[i]; t++) *at++ = pick(9);
        }
        Seq2seqState s = open_state(&m.model, 1), alone = open_state(&m.model, 1);
        Input inputs[N_INPUTS];
        at = tokens;
        for (int i = 0; i < N_INPUTS; at += lengths[i++]) {
            inputs[i] = (Input){&m.model, &alone, at, lengths[i], NULL};
        }
        for (int n_beams = 2; n_beams <= 4; n_beams++) {
            Decoded out[N_INPUTS];
            decode_all(&m.model, &s, tokens, lengths, N_INPUTS, n_beams, MAX_NEW, out);
            for (int i = 0; i < N_INPUTS; i++) {
                Path want = plain_search(&inputs[i], n_beams, MAX_NEW);
                Path greedy = plain_search(&inputs[i], 1, MAX_NEW);
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
        for (int i = 0; i < N_INPUTS; i++) arrfree(inputs[i].known);
        seq2seq_state_close(&s);
        seq2seq_state_close(&alone);
        g2p_close(&m);
    }
    printf("  %d searches: %d end before the limit, %d not as greedy\n", n_all, n_ended, n_not_greedy);
    CHECK(n_ended > n_all / 10 && n_not_greedy > n_all / 10, "too much alike to tell");
}

// ids, score and closeness of what greedy says, along the path it took.
static void greedy_is_greedy(void) {
    G2p m;
    if (!open_model(&m, &small)) return;
    int32_t tokens[] = {1, 7, 2, 1, 4, 9, 12, 5, 5, 2, 1, 29, 28, 2};
    int lengths[] = {3, 7, 4}, limits[] = {1, 2, 18, 20, 500};
    Seq2seqState s = open_state(&m.model, 1), alone = open_state(&m.model, 1);
    for (int l = 0; l < N_OF(limits); l++) {
        Decoded out[3];
        decode_all(&m.model, &s, tokens, lengths, 3, 1, limits[l], out);
        int most = limits[l] < m.model.max_tokens ? limits[l] : m.model.max_tokens, at = 0;
        for (int i = 0; i < 3; at += lengths[i++]) {
            Decoded *d = &out[i];
            CHECK(d->n <= most, "at most %d tokens: found %d", most, d->n);
            bool ended = d->n < most;
            int32_t path[24] = {m.model.start_id};
            memcpy(path + 1, d->ids, sizeof *path * (size_t)d->n);
            float *logits = run_alone(&m.model, &alone, tokens + at, lengths[i], path, d->n + ended);
            double gap = INFINITY;
            for (int t = 0; t < d->n + ended; t++) {
                const float *row = logits + (int64_t)t * m.model.vocab_size;
                int want = t < d->n ? d->ids[t] : m.model.eos_id;
                for (int id = 0; id < m.model.vocab_size; id++) {
                    CHECK(row[id] <= row[want] + 1e-5f, "step %d: %d instead of %d", t, want, id);
                    if (id != want) gap = fmin(gap, (double)row[want] - (double)row[id]);
                }
            }
            double score = score_of(&m.model, &alone, tokens + at, lengths[i], d->ids, d->n, ended);
            CHECK(fabs(score - d->score) < 1e-5, "score: expected %.9g, found %.9g", score, d->score);
            CHECK(fabs(gap - d->closeness) < 1e-4, "closeness: expected %g, found %g", gap, d->closeness);
            free(logits);
            decoded_free(d);
        }
    }
    seq2seq_state_close(&s);
    seq2seq_state_close(&alone);
    g2p_close(&m);
}

// ---- many words

static bool same_output(const Decoded *a, const Decoded *b) {
    return a->n == b->n && !a->ids == !b->ids && (!a->ids || !memcmp(a->ids, b->ids, sizeof *a->ids * (size_t)a->n));
}

// Batches are cut by the words alone: ids and scores are bit-equal for 1, 2 and 3 threads.
static void check_threads(const G2p *m, const Word *words, int n, int n_beams, const Decoded *want) {
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
    G2p m;
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
            bool can = words[i].n_known > 0 && words[i].n_ids <= m.model.max_tokens;
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
    g2p_close(&m);
}

// ---- real models, against the reference's words

// A model, words, and what the reference makes of them: lines "word<TAB>what it says", every step-th of them.
typedef struct {
    G2p m;
    Word *words;
    char **said;
    int n;
} Known;

static bool known_open(Known *k, const char *model, const char *path, int step) {
    char err[512] = "";
    *k = (Known){0};
    bool open = !g2p_open(&k->m, model, err, sizeof err);
    CHECK(open, "%s", err);
    if (!open) return false;
    FILE *f = fopen(path, "r");
    CHECK(f, "%s: missing", path);
    char *line = NULL;
    size_t room = 0;
    for (int i = 0; f && getline(&line, &room, f) > 0; i++) {
        char *tab = strchr(line, '\t');
        if (i % step || !tab) continue;
        *tab = 0;
        tab[1 + strcspn(tab + 1, "\r\n")] = 0;
        add_word(&k->words, &k->m, line);
        arrput(k->said, strdup(tab + 1));
    }
    free(line);
    if (f) fclose(f);
    k->n = (int)arrlen(k->words);
    return true;
}

static void known_close(Known *k) {
    for (ptrdiff_t i = 0; i < arrlen(k->said); i++) free(k->said[i]);
    arrfree(k->said);
    words_free(&k->words);
    g2p_close(&k->m);
}

// How many words say something else than expected is printed; those where it cannot be a float tie fail.
static void compare_known(const Known *k, const Decoded *out, double tie, const char *what) {
    int n = 0;
    for (int i = 0; i < k->n; i++) {
        char *text = pronunciation(&k->m, &out[i]);
        bool same = text && !strcmp(text, k->said[i]);
        n += !same;
        CHECK(same || out[i].closeness < tie, "%s: expected %s, found %s", k->words[i].text, k->said[i], text);
        free(text);
    }
    printf("  %s: %d of %d outputs differ from the reference, at float ties\n", what, n, k->n);
}

static void us_bart_greedy(void) {
    SKIP_WITHOUT(US_BART);
    Known k;
    if (!known_open(&k, US_BART, "tests/fixtures/us_bart_greedy.tsv", by_speed(1, 10, 50))) return;
    CHECK(k.n == by_speed(500, 50, 10), "%d words", k.n);
    Decoded *out = pronounce_all(&k.m, k.words, k.n, 1, 1);
    compare_known(&k, out, 1e-4, "us_bart");
    check_threads(&k.m, k.words, k.n, 1, out);
    for (int i = 0; i < k.n; i++) {
        Decoded *alone = pronounce_all(&k.m, &k.words[i], 1, 1, 1);
        CHECK(same_output(alone, &out[i]) || out[i].closeness < 1e-4, "%s: alone it says something else",
              k.words[i].text);
        CHECK(fabs(alone->score - out[i].score) < 1e-5 || !same_output(alone, &out[i]), "%s: scores %.9g and %.9g",
              k.words[i].text, alone->score, out[i].score);
        free_outputs(alone, 1);
    }
    free_outputs(out, k.n);
    known_close(&k);
}

static void us_bart_beam(void) {
    SKIP_WITHOUT(US_BART);
    Known k;
    if (!known_open(&k, US_BART "/us_bart.safetensors", "tests/fixtures/us_bart_beam.tsv", by_speed(1, 10, 50))) return;
    int worse = 0;
    CHECK(k.n == by_speed(100, 10, 2), "%d words", k.n);
    Decoded *out = pronounce_all(&k.m, k.words, k.n, 1, 4), *greedy = pronounce_all(&k.m, k.words, k.n, 1, 1);
    compare_known(&k, out, 0, "us_bart, 4 beams");
    check_threads(&k.m, k.words, k.n, 4, out);
    Seq2seqState s = open_state(&k.m.model, 1);
    for (int i = 0; i < k.n; i++) {
        const Word *w = &k.words[i];
        double score = score_of(&k.m.model, &s, w->ids, w->n_ids, out[i].ids, out[i].n, true);
        CHECK(fabs(score - out[i].score) < 1e-5, "%s: score %.9g, along its path %.9g", w->text, out[i].score, score);
        bool same = same_output(&out[i], &greedy[i]);
        CHECK(!same || fabs(out[i].score - greedy[i].score) < 1e-5, "%s: the same output scores %.9g and %.9g", w->text,
              out[i].score, greedy[i].score);
        worse += !same && out[i].score < greedy[i].score; // greedy's prefix fell out of the beams
    }
    CHECK(worse <= k.n / 20, "%d of %d outputs of 4 beams score below greedy", worse, k.n);
    seq2seq_state_close(&s);
    free_outputs(out, k.n);
    free_outputs(greedy, k.n);
    known_close(&k);
}

static void g2p_greedy(void) {
    SKIP_WITHOUT(G2P "/model.safetensors");
    SKIP_WITHOUT("tests/fixtures/g2p_greedy.tsv");
    char err[512] = "";
    Known k;
    int step = by_speed(1, 20, 100);
    if (!known_open(&k, G2P, "tests/fixtures/g2p_greedy.tsv", step)) return;
    Dictionary d;
    CHECK(!dictionary_read(&d, &k.m, G2P "/test.dict", err, sizeof err), "%s", err);
    int n_test = (int)arrlen(d.words);
    CHECK(k.n == (n_test + step - 1) / step, "%d words of the %d of test.dict in g2p_greedy.tsv", k.n, n_test);
    for (int i = 0; i < k.n && i * step < n_test; i++) {
        CHECK(!strcmp(k.words[i].text, d.words[i * step].text), "word %d: %s, in test.dict %s", i, k.words[i].text,
              d.words[i * step].text);
    }
    Decoded *out = pronounce_all(&k.m, k.words, k.n, 2, 1);
    compare_known(&k, out, 1e-4, G2P);
    free_outputs(out, k.n);
    dictionary_free(&d);
    known_close(&k);
}

// ---- the cross-attention of one word

// What one head gives each input, from the model's own numbers in double: of the first layer, for the first output.
static void check_trace(const Seq2seq *m, Seq2seqState *s, const Word *word, const Decoded *out) {
    char err[512] = "";
    Trace t;
    NEED(!trace_word(&t, m, s, word, out, err, sizeof err), "%s: %s", word->text, err);
    CHECK(t.n_in == word->n_ids && t.n_maps == m->decoder.config.n_layers * m->decoder.config.kinds[0].n_heads,
          "%d inputs, %d maps", t.n_in, t.n_maps);
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
        G2p m;
        if (!open_model(&m, &c)) continue;
        Word *words = NULL;
        add_word(&words, &m, "a");
        add_word(&words, &m, "zq");
        if (c.longest > 10) add_word(&words, &m, "hgfedcba");
        Seq2seqState s = open_state(&m.model, 1);
        for (int w = 0; w < (int)arrlen(words); w++) {
            int32_t *ids = need(sizeof *ids * (size_t)c.longest);
            for (int n = 0; n <= c.longest; n += n < 2 || n == c.longest - 1 ? 1 : c.longest - 3) {
                for (int t = 0; t < n; t++) ids[t] = 4 + pick(26);
                check_trace(&m.model, &s, &words[w], &(Decoded){.ids = ids, .n = n});
            }
            free(ids);
            CHECK(!seq2seq_encode(&m.model, &s, words[w].ids, &words[w].n_ids, 1, err, sizeof err), "%s", err);
            Decoded out;
            CHECK(!beam_decode(&m.model, &s, 1, 1000, &out, err, sizeof err), "%s", err);
            check_trace(&m.model, &s, &words[w], &out);
            decoded_free(&out);
        }
        seq2seq_state_close(&s);
        words_free(&words);
        g2p_close(&m);
    }
}

int main(void) {
    folder_make();
    RUN_AT_LEVELS(random_models);
    RUN(encode_and_step_refuse);
    RUN(beams_against_all_outputs);
    RUN(beams_against_a_plain_search);
    RUN(greedy_is_greedy);
    RUN(words_in_batches);
    RUN(trace_of_words);
    RUN(us_bart_greedy);
    RUN(us_bart_beam);
    RUN(g2p_greedy);
    folder_remove();
    return test_report();
}
