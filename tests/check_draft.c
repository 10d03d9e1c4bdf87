// check_draft: tokens that are guessed and drawn together are those that are drawn one by one, with the same logits to
// the bit, in every family, with windows and 8-bit caches; drawn tokens have the model's distribution whoever guesses;
// guesses end where they do not pay.
//
//   build/tests/check_draft [NAME...]    all fixtures of families, or these
#include "make_family.h"

#include "drafter.h"

enum { N_TEXT = 100, LONG_TEXT = 560, N_PROMPT = 20 }; // a long text has blocks that fall out of a window

static int n_text = N_TEXT, n_models;

// ---- guesses whose quality is known

typedef enum { GOOD, BAD, RANDOM, MIXED, N_QUALITIES } Quality;
static const char *const quality_names[] = {"good", "bad", "random", "mixed"};

typedef struct {
    Quality quality;
    const int32_t *truth; // [n_truth] the text that will be drawn; NULL: always the token `constant`
    int n_truth, vocab;
    int32_t constant;
} Oracle;

static int guess(void *context, const int32_t *text, int n, const Sampler *sampler, int most, int32_t *guesses,
                 int *class) {
    const Oracle *o = context;
    (void)text;
    (void)sampler;
    *class = pick(MAX_CLASSES);
    for (int i = 0; i < most; i++) {
        int32_t right = o->truth && n + i < o->n_truth ? o->truth[n + i] : o->constant;
        Quality q = o->quality == MIXED ? (Quality)pick(3) : o->quality;
        guesses[i] = q == GOOD ? right : q == BAD ? (right + 1) % o->vocab : pick(o->vocab);
    }
    return most;
}

// Whatever was measured: the next draw takes so many guesses.
static void force(Drafter *d, int n) {
    d->pass = 1;
    d->is_measured = true;
    for (int i = 0; i <= MAX_GUESSES; i++) d->ratio[i] = i == n ? 1e-6 : 1e6;
}

// ---- the same text

typedef struct {
    int32_t tokens[LONG_TEXT];
    float *logits; // [n_text][vocab]: those that token i was drawn from
} Plain;

static Sampler *open_sampler(const SamplerOptions *o, int vocab) {
    char err[256] = "";
    Sampler *s = sampler_open(o, vocab, err, sizeof err);
    if (s) return s;
    fprintf(stderr, "sampler: %s\n", err);
    exit(1);
}

static void generate_plain(const Engine *e, const SessionOptions *o, const SamplerOptions *so, Plain *p) {
    char err[256] = "";
    int vocab = engine_info(e).vocab_size;
    Session *s = need_session(e, o);
    Sampler *sampler = open_sampler(so, vocab);
    sampler_history(sampler, p->tokens, N_PROMPT);
    for (int n = N_PROMPT; n < n_text; n++) {
        CHECK(!session_sync(s, p->tokens, n, err, sizeof err), "%s", err);
        memcpy(p->logits + (int64_t)n * vocab, session_logits(s), sizeof(float) * (size_t)vocab);
        p->tokens[n] = sampler_pick(sampler, session_logits(s));
    }
    sampler_close(sampler);
    session_close(s);
}

// With guesses, until the text ends or an end token is drawn. Returns how many guesses were right.
static int generate_guessed(const Engine *e, const SessionOptions *o, const SamplerOptions *so, const Plain *p,
                            Drafter *d, const char *name) {
    char err[256] = "";
    int vocab = engine_info(e).vocab_size, n = N_PROMPT;
    int32_t text[LONG_TEXT];
    Session *s = need_session(e, o);
    Sampler *sampler = open_sampler(so, vocab);
    memcpy(text, p->tokens, sizeof *text * N_PROMPT);
    sampler_history(sampler, text, N_PROMPT);
    while (n < n_text && !test_bad) {
        force(d, pick(1 + MAX_GUESSES));
        int room = 1 + pick(n_text - n), drawn = session_draw(s, text, n, sampler, d, text + n, room, err, sizeof err);
        CHECK(drawn >= 1 && drawn <= room, "%s: %d tokens drawn of %d: %s", name, drawn, room, err);
        if (drawn < 1) break;
        int last = n + drawn - 1;
        CHECK(!memcmp(text + n, p->tokens + n, sizeof *text * (size_t)drawn), "%s: other tokens from %d on", name, n);
        CHECK(session_length(s) == last, "%s: %d tokens are held of %d", name, session_length(s), last);
        CHECK(session_logits(s) &&
                  !memcmp(session_logits(s), p->logits + (int64_t)last * vocab, sizeof(float) * (size_t)vocab),
              "%s: other logits after %d tokens", name, last);
        n += drawn;
    }
    sampler_close(sampler);
    session_close(s);
    return (int)drafter_info(d).n_right;
}

static void check_model(const Engine *e, const char *name) {
    int vocab = engine_info(e).vocab_size;
    Plain p = {.logits = need_floats((int64_t)n_text * vocab)};
    for (int i = 0; i < N_PROMPT; i++) p.tokens[i] = pick(vocab);
    SessionOptions options[] = {
        {.n_threads = 2}, {.n_threads = 2, .kv = KV_Q8}, {.n_threads = 2, .window = 9, .n_sinks = 2}};
    // Two of three texts are sampled, one with penalties.
    SamplerOptions samplers[] = {
        {0}, {.temperature = 0.9f, .top_k = 20, .seed = 5}, {.temperature = 1.2f, .repeat_penalty = 1.2f, .seed = 6}};
    // Where not all are taken, every model has another.
    int step = by_speed(1, 1, N_OF(options));
    for (int i = n_models++ % step; i < N_OF(options); i += step) {
        if (options[i].window && !takes_window(name)) continue;
        options[i].n_ctx = n_text;
        generate_plain(e, &options[i], &samplers[i], &p);
        for (Quality q = 0; q < N_QUALITIES; q++) {
            Oracle oracle = {.quality = q, .truth = p.tokens, .n_truth = n_text, .vocab = vocab};
            Drafter *d = drafter_open(guess, &oracle, true);
            NEED(d, "out of memory");
            int right = generate_guessed(e, &options[i], &samplers[i], &p, d, name);
            CHECK(q != GOOD || right > 5, "%s: %d good guesses were right", name, right);
            CHECK(q != BAD || !right, "%s: %d bad guesses were right", name, right);
            drafter_close(d);
        }
    }
    free(p.logits);
}

static void check_family(const Fixture *f) {
    Engine *e = family_engine(f);
    if (e && (n_text > N_TEXT || engine_info(e).max_seq_len >= N_TEXT)) check_model(e, f->name);
    engine_close(e);
    folder_remove();
}

static void texts_are_the_same(void) {
    each_kind(check_family);
}

// Windows of the caller and of the model, recurrent states, both kinds of layers.
static void long_texts_are_the_same(void) {
    static char *names[] = {"gemma3_text", "qwen3_next", "llama", "mamba"};
    n_text = LONG_TEXT;
    each_of(names, by_speed(4, 2, 1), check_family);
    n_text = N_TEXT;
}

// The project's own drafters, with nothing forced: on a text that repeats itself, and with the model as its own draft.
static void own_drafters(void) {
    char err[256] = "";
    Engine *e = engine_open("models/stories.bin", NULL, err, sizeof err);
    NEED(e, "%s", err);
    int vocab = engine_info(e).vocab_size;
    Plain p = {.logits = need_floats((int64_t)n_text * vocab)};
    SessionOptions options = {.n_threads = 2, .n_ctx = N_TEXT};
    SamplerOptions samplers[] = {{0}, {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .seed = 9}};
    for (int i = 0; i < N_PROMPT; i++) p.tokens[i] = 5 + i % 4;
    for (int i = 0; i < 2 * N_OF(samplers); i++) {
        const SamplerOptions *so = &samplers[i / 2];
        Drafter *d = i % 2 ? drafter_lookup(err, sizeof err) : drafter_model(e, e, &options, err, sizeof err);
        NEED(d, "%s", err);
        generate_plain(e, &options, so, &p);
        int right = generate_guessed(e, &options, so, &p, d, i % 2 ? "look-up" : "draft");
        uint64_t n_guessed = drafter_info(d).n_guessed;
        CHECK(i % 2 || (uint64_t)right + 8 >= n_guessed / 2, "a model guesses %llu of its own tokens, %d right",
              (unsigned long long)n_guessed, right);
        drafter_close(d);
    }
    free(p.logits);
    engine_close(e);
}

static void another_vocabulary(void) {
    char err[256] = "";
    SKIP_WITHOUT(SHARED_DATA "tinystories-656k-hf");
    Engine *e = engine_open("models/stories.bin", NULL, err, sizeof err),
           *other = engine_open(SHARED_DATA "tinystories-656k-hf", NULL, err, sizeof err);
    NEED(e && other, "%s", err);
    Drafter *d = drafter_model(other, e, NULL, err, sizeof err);
    CHECK(!d && strstr(err, "draft model: ") && one_line(err), "'%s'", err);
    drafter_close(d);
    engine_close(e);
    engine_close(other);
}

// ---- the distribution of what is drawn

enum { TOP = 4 };
static const double MOST_CHI_SQUARE = 44.3; // 15 degrees of freedom, 1 in 10,000

// The TOP best of the logits and their probabilities.
static void top_of(const float *logits, int vocab, int32_t *ids, double *probabilities) {
    double sum = 0;
    for (int k = 0; k < TOP; k++) {
        ids[k] = -1;
        for (int i = 0; i < vocab; i++) {
            bool taken = false;
            for (int j = 0; j < k; j++) taken |= ids[j] == i;
            if (!taken && (ids[k] < 0 || logits[i] > logits[ids[k]])) ids[k] = i;
        }
    }
    for (int k = 0; k < TOP; k++) sum += probabilities[k] = exp((double)logits[ids[k]] - (double)logits[ids[0]]);
    for (int k = 0; k < TOP; k++) probabilities[k] /= sum;
}

// Two tokens behind a fixed text, drawn together where the first was guessed.
typedef struct {
    int32_t first[TOP], second[TOP][TOP];
    double expected[TOP][TOP]; // probability
    int counts[TOP][TOP];
} Pairs;

static void expect_pairs(Session *s, const int32_t *text, int n, int vocab, Pairs *p) {
    char err[256] = "";
    int32_t longer[N_PROMPT + 1];
    double first[TOP], second[TOP];
    memcpy(longer, text, sizeof *text * (size_t)n);
    CHECK(!session_sync(s, text, n, err, sizeof err), "%s", err);
    top_of(session_logits(s), vocab, p->first, first);
    for (int i = 0; i < TOP; i++) {
        longer[n] = p->first[i];
        CHECK(!session_sync(s, longer, n + 1, err, sizeof err), "%s", err);
        top_of(session_logits(s), vocab, p->second[i], second);
        for (int j = 0; j < TOP; j++) p->expected[i][j] = first[i] * second[j];
    }
}

static void count_pair(Pairs *p, const int32_t *drawn) {
    int i = 0, j = 0;
    while (i < TOP && p->first[i] != drawn[0]) i++;
    while (i < TOP && j < TOP && p->second[i][j] != drawn[1]) j++;
    CHECK(i < TOP && j < TOP, "tokens %d and %d were drawn, which are not among the best", drawn[0], drawn[1]);
    if (i < TOP && j < TOP) p->counts[i][j]++;
}

static double chi_square(const Pairs *p, int n) {
    double sum = 0;
    for (int i = 0; i < TOP; i++) {
        for (int j = 0; j < TOP; j++) {
            double expected = p->expected[i][j] * n, difference = p->counts[i][j] - expected;
            sum += difference * difference / expected;
        }
    }
    return sum;
}

static void distribution_of(const Engine *e, Drafter *d, const char *name, Oracle *oracle) {
    char err[256] = "";
    int vocab = engine_info(e).vocab_size, n_draws = by_speed(200000, 10000, 2000);
    int32_t text[N_PROMPT + 2];
    Pairs pairs = {0};
    SessionOptions options = {.n_threads = 1, .n_ctx = 64};
    Session *s = need_session(e, &options);
    Sampler *sampler = open_sampler(&(SamplerOptions){.temperature = 1, .top_k = TOP, .seed = 11}, vocab);
    for (int i = 0; i < N_PROMPT; i++) text[i] = (7 * i + 3) % vocab;
    expect_pairs(s, text, N_PROMPT, vocab, &pairs);
    if (oracle) oracle->constant = pairs.first[0];
    for (int i = 0; i < n_draws && !test_bad; i++) {
        int n = 0;
        session_keep(s, text, N_PROMPT);
        while (n < 2) {
            force(d, 1 + i % 2);
            int drawn = session_draw(s, text, N_PROMPT + n, sampler, d, text + N_PROMPT + n, 2 - n, err, sizeof err);
            NEED(drawn > 0, "%s", err);
            n += drawn;
        }
        count_pair(&pairs, text + N_PROMPT);
    }
    double found = chi_square(&pairs, n_draws);
    DrafterInfo info = drafter_info(d);
    printf("  %-7s chi-square %5.1f over %d draws, %llu of %llu guesses right\n", name, found, n_draws,
           (unsigned long long)info.n_right, (unsigned long long)info.n_guessed);
    CHECK(info.n_guessed > (uint64_t)n_draws / 4, "%s: %llu guesses in %d draws", name,
          (unsigned long long)info.n_guessed, n_draws);
    CHECK(found < MOST_CHI_SQUARE, "%s guesses: chi-square %.1f with 15 degrees of freedom", name, found);
    sampler_close(sampler);
    session_close(s);
}

static void check_distribution(const Fixture *f) {
    Engine *e = family_engine(f);
    if (!e) return;
    char err[256] = "";
    for (Quality q = 0; q < MIXED; q++) {
        Oracle oracle = {.quality = q, .vocab = f->vocab_size};
        Drafter *d = drafter_open(guess, &oracle, true);
        distribution_of(e, d, quality_names[q], &oracle);
        drafter_close(d);
    }
    Drafter *d = drafter_model(e, e, &(SessionOptions){.n_threads = 1, .n_ctx = 64}, err, sizeof err);
    NEED(d, "%s", err);
    distribution_of(e, d, "model", NULL);
    CHECK(drafter_info(d).n_right == drafter_info(d).n_guessed, "a model that guesses for itself is wrong");
    drafter_close(d);
    engine_close(e);
    folder_remove();
}

static void distribution_is_the_models(void) {
    static char *names[] = {"llama"};
    each_of(names, N_OF(names), check_distribution);
}

// ---- what pays

// A pass with n guesses takes 1 + slope n; the guesses are right so often. Returns how many were used in all.
static uint64_t used_guesses(double slope, double right) {
    Oracle oracle = {.quality = GOOD, .vocab = 10};
    Drafter *d = drafter_open(guess, &oracle, true);
    for (int i = 0; i < 2000; i++) {
        Guesses g = drafter_guess(d, NULL, 0, NULL, MAX_GUESSES);
        int32_t drawn[1 + MAX_GUESSES];
        int n = 0;
        for (; n < g.n_used && test_uniform() < (float)(2 * right - 1); n++) drawn[n] = g.ids[n];
        bool lucky = n == g.n_used && n < g.n && test_uniform() < (float)(2 * right - 1);
        drawn[n] = lucky ? g.ids[n] : g.ids[n < g.n ? n : 0] + 1;
        drafter_learn(d, &g, drawn, n + 1, 0.01 * (1 + slope * g.n_used));
    }
    uint64_t n = drafter_info(d).n_guessed;
    drafter_close(d);
    return n;
}

static void guesses_that_do_not_pay_end(void) {
    const struct {
        double slope, right;
        uint64_t least, most;
    } cases[] = {{0.1, 0.95, 8000, 14000}, {0.1, 0.05, 0, 400}, {1.1, 0.95, 0, 100}, {0.5, 0.95, 1500, 14000}};
    for (int i = 0; i < N_OF(cases); i++) {
        uint64_t n = used_guesses(cases[i].slope, cases[i].right);
        CHECK(n >= cases[i].least && n <= cases[i].most,
              "rows at %g of a pass, %g right: %llu guesses in 2,000 passes, expected %llu to %llu", cases[i].slope,
              cases[i].right, (unsigned long long)n, (unsigned long long)cases[i].least,
              (unsigned long long)cases[i].most);
    }
}

int main(int argc, char **argv) {
    chosen = argv + 1;
    n_chosen = argc - 1;
    RUN(guesses_that_do_not_pay_end);
    RUN(own_drafters);
    RUN(another_vocabulary);
    RUN(texts_are_the_same);
    RUN(long_texts_are_the_same);
    RUN(distribution_is_the_models);
    return test_report();
}
