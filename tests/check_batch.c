// check_batch: new tokens of many sessions in one step, against the same tokens computed alone: bits where they are
// promised, a bound of the error where not, over every family; segments that fail beside others that do not.
//
//   build/tests/check_batch [NAME...]    all fixtures of families, or these
#include "make_bin.h"
#include "make_family.h"

enum { N_TEXTS = 5, MOST_STEPS = 40 };

static const double MOST_ERROR = 1e-5; // tessera.h's promise

static bool is_quick(void) {
    const char *quick = getenv("TESSERA_TEST_QUICK");
    return quick && *quick;
}

// ---- texts that are computed twice

typedef struct {
    Session *together, *alone;
    int32_t tokens[FAMILY_TOKENS];
    int length;
} Text;

static Session *open_session(const Engine *e, const SessionOptions *o) {
    char err[256] = "";
    Session *s = session_open(e, o, err, sizeof err);
    if (s) return s;
    fprintf(stderr, "session: %s\n", err);
    exit(1);
}

static void open_texts(const Engine *e, Text *texts, SessionOptions options) {
    for (int i = 0; i < N_TEXTS; i++) {
        texts[i] = (Text){.together = open_session(e, &options), .alone = open_session(e, &options)};
        for (int t = 0; t < FAMILY_TOKENS; t++) {
            texts[i].tokens[t] = (int32_t)(test_u32() % (uint32_t)engine_info(e).vocab_size);
        }
    }
}

static void close_texts(Text *texts) {
    for (int i = 0; i < N_TEXTS; i++) {
        session_close(texts[i].together);
        session_close(texts[i].alone);
    }
}

// Up to 8 tokens are computed one at a time, as an exact step promises.
static void extend_alone(Text *t, int n) {
    char err[256] = "";
    for (int end = n > 8 ? t->length + n : t->length + 1; end <= t->length + n; end++) {
        CHECK(!session_sync(t->alone, t->tokens, end, err, sizeof err), "alone: %s", err);
    }
}

static double error_of(const Text *t, int vocab) {
    const float *a = session_logits(t->together), *b = session_logits(t->alone);
    return a && b ? nmse_f32(a, b, vocab) : 1;
}

// Steps of random segments: single tokens, a few, parts of prompts; some texts sit a step out.
static double mix(const Engine *e, const SessionOptions *options, bool exact, const char *name) {
    Text texts[N_TEXTS];
    double worst = 0;
    int vocab = engine_info(e).vocab_size, n_unequal = 0;
    open_texts(e, texts, *options);
    for (int step = 0; step < MOST_STEPS; step++) {
        StepSegment list[N_TEXTS] = {0};
        Text *of[N_TEXTS];
        int n = 0;
        for (int i = 0; i < N_TEXTS; i++) {
            Text *t = &texts[i];
            int kind = (int)(test_u32() % 4), most = kind == 1 ? 1 : kind == 2 ? 8 : 40;
            int count = 1 + (int)(test_u32() % (unsigned)most);
            if (!kind || t->length + count > options->n_ctx) continue;
            list[n] = (StepSegment){.session = t->together, .tokens = t->tokens + t->length, .n = count};
            list[n].logits = test_u32() % 4 > 0;
            of[n++] = t;
        }
        CHECK(!engine_step(e, list, n, exact), "%s: a step of %d segments failed", name, n);
        for (int i = 0; i < n; i++) {
            Text *t = of[i];
            CHECK(list[i].done == list[i].n && !list[i].err[0], "%s: %d of %d tokens: %s", name, list[i].done,
                  list[i].n, list[i].err);
            extend_alone(t, list[i].n);
            t->length += list[i].n;
            CHECK(session_length(t->together) == t->length, "%s: length %d", name, session_length(t->together));
            CHECK(list[i].logits == (session_logits(t->together) != NULL), "%s: logits that were not wanted", name);
            if (!list[i].logits) continue;
            double error = error_of(t, vocab);
            worst = error > worst ? error : worst;
            n_unequal +=
                memcmp(session_logits(t->together), session_logits(t->alone), sizeof(float) * (size_t)vocab) != 0;
        }
    }
    CHECK(!exact || !n_unequal, "%s: %d rows of exact steps have other bits than alone", name, n_unequal);
    CHECK(worst <= MOST_ERROR, "%s: NMSE %.1e", name, worst);
    close_texts(texts);
    return worst;
}

static void check_family(const Fixture *f) {
    const char *tokenizer = BIN_DIR "family.tokenizer.bin";
    char err[256] = "";
    folder_make();
    write_family(f);
    make_tokenizer_bin(tokenizer, f->vocab_size, 1);
    Engine *e = engine_open(folder, tokenizer, err, sizeof err);
    CHECK(e, "%s: %s", f->name, err);
    SessionOptions options = {.n_ctx = f->n_ctx < FAMILY_TOKENS ? f->n_ctx : FAMILY_TOKENS, .n_threads = 2};
    for (KvType kv = KV_BF16; e && kv <= KV_Q8; kv++) {
        options.kv = kv;
        mix(e, &options, true, f->name);
        double error = mix(e, &options, false, f->name);
        if (kv == KV_F32) printf("  %-20s NMSE %.1e from alone where not exact\n", f->name, error);
        if (is_quick()) break;
    }
    engine_close(e);
    folder_remove();
}

static void every_family(void) {
    each_family(check_family, false);
}

// ---- failures

static bool refuse(void *context, int done, int n) {
    (void)context;
    (void)done;
    (void)n;
    return false;
}

// Each segment but the first and the last fails for a reason of its own, and says so; those two are what they are
// alone.
static void failures_stay_alone(void) {
    enum { FIRST, FULL, BAD_ID, TWICE, FOREIGN, STOPPED, THREADS, EMPTY, LAST, N };
    static const char *const lines[N] = {[FULL] = "context full", [BAD_ID] = "expected an id below",
                                         [TWICE] = "twice",       [FOREIGN] = "of this engine",
                                         [STOPPED] = "stopped",   [THREADS] = "threads",
                                         [EMPTY] = "at least 1"};
    static const int32_t tokens[] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, bad[] = {5, -1, 7};
    enum { N_TOKENS = N_OF(tokens), SMALL = 9 };
    char err[256] = "";
    Engine *e = engine_open("models/stories.bin", NULL, err, sizeof err),
           *other = engine_open("models/stories.bin", NULL, err, sizeof err);
    NEED(e && other, "%s", err);
    SessionOptions two = {.n_threads = 2}, three = {.n_threads = 3}, small = {.n_threads = 2, .n_ctx = SMALL};
    StepSegment list[N] = {0};
    for (int i = 0; i < N; i++) {
        const SessionOptions *o = i == THREADS ? &three : i == FULL ? &small : &two;
        Session *s = i == TWICE ? list[FIRST].session : open_session(i == FOREIGN ? other : e, o);
        list[i] = (StepSegment){.session = s, .tokens = tokens, .n = N_TOKENS - i % 3, .logits = true};
    }
    list[FULL].n = N_TOKENS;
    list[BAD_ID].tokens = bad;
    list[BAD_ID].n = N_OF(bad);
    list[EMPTY].n = 0;
    session_watch(list[STOPPED].session, refuse, NULL);
    int n_failed = engine_step(e, list, N, true);
    CHECK(n_failed == N - 2, "%d of %d segments failed", n_failed, N - 2);
    for (int i = 0; i < N; i++) {
        const StepSegment *part = &list[i];
        if (lines[i]) {
            int kept = i == FULL ? SMALL : i == TWICE ? list[FIRST].n : 0;
            CHECK(strstr(part->err, lines[i]) && !strchr(part->err, '\n'), "segment %d: '%s'", i, part->err);
            CHECK(part->done == (i == FULL ? SMALL : 0), "segment %d: %d tokens done", i, part->done);
            CHECK(session_length(part->session) == kept, "segment %d: %d tokens", i, session_length(part->session));
        }
        if (lines[i] && i != FULL) continue;
        Session *alone = open_session(e, &two);
        CHECK(!session_sync(alone, tokens, part->done, err, sizeof err), "%s", err);
        const float *logits = session_logits(part->session);
        CHECK(logits && !memcmp(logits, session_logits(alone), sizeof(float) * (size_t)engine_info(e).vocab_size),
              "segment %d: other logits than alone", i);
        session_close(alone);
    }
    for (int i = 0; i < N; i++) {
        if (i != TWICE) session_close(list[i].session);
    }
    engine_close(e);
    engine_close(other);
}

// ---- more than one pass holds

// Prompts of more than 512 tokens together, and more sessions than a pass has: as many passes as it takes.
static void many_passes(void) {
    enum { N = 70, LONG = 200, PROMPT = 600 };
    static int32_t tokens[PROMPT];
    static StepSegment list[N];
    char err[256] = "";
    Engine *e = engine_open("models/stories.bin", NULL, err, sizeof err);
    NEED(e, "%s", err);
    int vocab = engine_info(e).vocab_size;
    SessionOptions options = {.n_threads = 2, .n_ctx = PROMPT};
    for (int t = 0; t < PROMPT; t++) tokens[t] = (int32_t)(3 + test_u32() % (uint32_t)(vocab - 3));
    for (int i = 0; i < N; i++) {
        list[i] = (StepSegment){.session = open_session(e, &options), .tokens = tokens + i, .logits = true};
        list[i].n = i == 1 ? PROMPT - 1 : i % 9 ? 1 + i % 3 : LONG;
    }
    CHECK(!engine_step(e, list, N, false), "a step of %d sessions failed", N);
    Session *alone = open_session(e, &options);
    for (int i = 0; i < N; i++) {
        CHECK(!session_sync(alone, list[i].tokens, list[i].n, err, sizeof err), "%s", err);
        const float *logits = session_logits(list[i].session);
        double error = logits ? nmse_f32(logits, session_logits(alone), vocab) : 1;
        CHECK(list[i].done == list[i].n && error <= MOST_ERROR, "session %d: %d of %d tokens, NMSE %.1e", i,
              list[i].done, list[i].n, error);
        session_close(list[i].session);
    }
    session_close(alone);
    engine_close(e);
}

int main(int argc, char **argv) {
    chosen = argv + 1;
    n_chosen = argc - 1;
    RUN(failures_stay_alone);
    RUN(many_passes);
    RUN(every_family);
    return test_report();
}
