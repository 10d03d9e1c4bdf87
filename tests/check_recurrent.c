// check_recurrent: what models with recurrent layers remember: going back to any position and every edit give the
// logits of a fresh session, a token alone or many at once too, threads change nothing, and what they hold does not
// grow. So do those whose cache holds something else than keys and values, or is seen in blocks.
//
// The models are the fixtures of check_families; there their logits are compared with references.
#include "make_family.h"
#include "reference.h"

static const char *const fixtures[] = {"qwen3_next",     "qwen35",    "rwkv6", "rwkv7",
                                       "mamba",          "mamba2",    "lfm2",  "falcon_h1",
                                       "granite_hybrid", "performer", "hyena", "bigbird_causal"};

enum { TEXT = 700, MOST_VOCAB = FAMILY_VOCAB };
static const double MOST_ERROR = 1e-10; // of logits whose products had other shapes

static int n_text = TEXT; // main makes it shorter where that takes long

typedef struct {
    Fixture fixture;
    Engine *engine;
    int32_t tokens[TEXT];
    float logits[TEXT][MOST_VOCAB]; // of a session that read the text at once
} Known;

static Known known;

static void see(void *context, int position, const float *logits) {
    Known *k = context;
    memcpy(k->logits[position], logits, sizeof *logits * (size_t)k->fixture.vocab_size);
}

static Session *start(int n_threads) {
    char err[300] = "";
    SessionOptions options = {.n_ctx = TEXT, .n_threads = n_threads, .kv = KV_F32};
    Session *s = session_open(known.engine, &options, err, sizeof err);
    if (s) return s;
    fprintf(stderr, "%s: %s\n", known.fixture.name, err);
    exit(1);
}

static void read_text(Session *s, const int32_t *tokens, int n) {
    char err[300] = "";
    NEED(!session_sync(s, tokens, n, err, sizeof err), "%s, %d tokens: %s", known.fixture.name, n, err);
}

static void open_known(const char *name) {
    char path[200], err[300] = "";
    snprintf(path, sizeof path, "tests/fixtures/families/%s.json", name);
    family_read(&known.fixture, path);
    if (family_has_gguf(&known.fixture)) {
        write_family_gguf(&known.fixture, in_folder("model.gguf"));
        known.engine = engine_open(in_folder("model.gguf"), NULL, err, sizeof err);
    } else {
        write_family(&known.fixture);
        make_tokenizer_bin(in_folder("tokenizer.bin"), known.fixture.vocab_size, 1);
        known.engine = engine_open(folder, in_folder("tokenizer.bin"), err, sizeof err);
    }
    NEED(known.engine, "%s: %s", name, err);
    for (int i = 0; i < n_text; i++) known.tokens[i] = pick(known.fixture.vocab_size);
    Session *s = start(1);
    session_visit(s, see, &known);
    read_text(s, known.tokens, n_text);
    session_close(s);
}

static void close_known(void) {
    engine_close(known.engine);
    family_free(&known.fixture);
}

// Of many logits against the known ones: all errors over all powers.
typedef struct {
    double error, power;
} Comparison;

static void compare(Comparison *c, const Session *s, int n) {
    const float *found = session_logits(s), *want = known.logits[n - 1];
    for (int i = 0; i < known.fixture.vocab_size; i++) {
        c->error += ((double)found[i] - want[i]) * ((double)found[i] - want[i]);
        c->power += (double)want[i] * want[i];
    }
}

static void report(const Comparison *c, const char *what) {
    double error = c->error / c->power;
    printf("  %s: %s: NMSE %.1e\n", known.fixture.name, what, error);
    CHECK(error <= MOST_ERROR, "%s: %s: NMSE %.1e", known.fixture.name, what, error);
}

// Back to every position, and to positions drawn at random, forwards and backwards.
static void go_back(void) {
    Session *s = start(2);
    read_text(s, known.tokens, n_text);
    Comparison all = {0};
    int step = quick() ? 97 : 1;
    for (int n = n_text - 1; n > 0; n -= step) {
        read_text(s, known.tokens, n);
        compare(&all, s, n);
    }
    for (int i = 0; i < (quick() ? 5 : 150); i++) {
        int n = 1 + pick(n_text);
        read_text(s, known.tokens, n);
        compare(&all, s, n);
    }
    report(&all, "back and forth");
    session_close(s);
}

// Another token in the middle: the text from there on is computed anew, from the nearest state.
static void edit(void) {
    Session *s = start(1), *fresh = start(1);
    int32_t edited[TEXT];
    for (int i = 0; i < (quick() ? 2 : 40); i++) {
        int at = pick(n_text), n = at + 1 + pick(n_text - at);
        memcpy(edited, known.tokens, sizeof edited);
        edited[at] = (edited[at] + 1) % known.fixture.vocab_size;
        read_text(s, known.tokens, n_text);
        read_text(s, edited, n);
        session_close(fresh);
        fresh = start(1);
        read_text(fresh, edited, n);
        double error = nmse_f32(session_logits(s), session_logits(fresh), known.fixture.vocab_size);
        CHECK(error <= MOST_ERROR, "%s: token %d of %d: NMSE %.1e", known.fixture.name, at, n, error);
    }
    session_close(s);
    session_close(fresh);
}

static void one_at_a_time(void) {
    Session *one = start(1), *two = start(2);
    Comparison all = {0};
    for (int n = 1; n <= (quick() ? 70 : n_text); n++) {
        read_text(one, known.tokens, n);
        read_text(two, known.tokens, n);
        CHECK(!memcmp(session_logits(one), session_logits(two), sizeof(float) * (size_t)known.fixture.vocab_size),
              "%s: %d tokens: two threads give other logits", known.fixture.name, n);
        compare(&all, one, n);
    }
    report(&all, "token by token");
    session_close(one);
    session_close(two);
}

static void held_bytes(void) {
    Session *s = start(1);
    uint64_t state = session_info(s).state_bytes;
    bool cache_alone = !strcmp(known.fixture.name, "bigbird_causal");
    CHECK((state > 0) == !cache_alone, "%s: %llu bytes of state", known.fixture.name, (unsigned long long)state);
    for (int n = 1; n <= n_text; n += n_text / 3) {
        read_text(s, known.tokens, n);
        CHECK(session_info(s).state_bytes == state, "%s: the state has grown after %d tokens", known.fixture.name, n);
    }
    session_close(s);
}

// Hyena's inputs as bfloat16 and int8: near those of fp32, and the same at once and token by token. A window is
// refused.
static void other_caches(void) {
    static const KvType types[] = {KV_BF16, KV_Q8};
    static const double most[] = {1e-4, 1e-3};
    char err[300] = "";
    open_known("hyena");
    for (int i = 0; i < N_OF(types); i++) {
        SessionOptions options = {.n_ctx = TEXT, .n_threads = 2, .kv = types[i]};
        Session *s = need_session(known.engine, &options), *one = need_session(known.engine, &options);
        Comparison all = {0};
        double apart = 0;
        int step = quick() ? 50 : 7;
        for (int n = 1; n <= n_text; n += step) {
            read_text(s, known.tokens, n);
            compare(&all, s, n);
            if (n > 300) continue;
            for (int m = n > step ? n - step + 1 : 1; m <= n; m++) read_text(one, known.tokens, m);
            apart = fmax(apart, nmse_f32(session_logits(one), session_logits(s), known.fixture.vocab_size));
        }
        double error = all.error / all.power;
        printf("  hyena, %s: NMSE %.1e, token by token %.1e\n", kv_type_name(types[i]), error, apart);
        CHECK(error > 1e-11 && error < most[i], "hyena, %s: NMSE %.1e", kv_type_name(types[i]), error);
        CHECK(apart < most[i] / 10, "hyena, %s: token by token NMSE %.1e", kv_type_name(types[i]), apart);
        session_close(s);
        session_close(one);
    }
    Session *narrow = session_open(known.engine, &(SessionOptions){.n_ctx = TEXT, .window = 40}, err, sizeof err);
    CHECK(!narrow && strstr(err, "window: expected none"), "hyena: a window gives '%s'", err);
    session_close(narrow);
    Session *longer = session_open(known.engine, &(SessionOptions){.n_ctx = 1025}, err, sizeof err);
    CHECK(!longer && strstr(err, "expected at most 1024"), "hyena: a longer context gives '%s'", err);
    session_close(longer);
    close_known();
}

static void with_each(void (*check)(void)) {
    for (int i = 0; i < N_OF(fixtures); i += emulated() ? 3 : 1) {
        open_known(fixtures[i]);
        check();
        close_known();
    }
}

static void goes_back(void) {
    with_each(go_back);
}

static void edits(void) {
    with_each(edit);
}

static void tokens_one_by_one(void) {
    with_each(one_at_a_time);
}

static void bytes_stay(void) {
    with_each(held_bytes);
}

int main(void) {
    n_text = by_speed(TEXT, TEXT, 300);
    folder_make();
    RUN(goes_back);
    RUN(edits);
    RUN(tokens_one_by_one);
    RUN(bytes_stay);
    RUN(other_caches);
    folder_remove();
    return test_report();
}
