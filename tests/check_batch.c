// check_batch: new tokens of many sessions in one step, against the same tokens computed alone: bits where they are
// promised, a bound of the error where not, over every family; segments that fail beside others that do not.
//
//   build/tests/check_batch [NAME...]    all fixtures of families, or these
#include "engine.h"
#include "make_family.h"

#include <pthread.h>

enum { N_TEXTS = 5, LONGEST = 700 };

// tessera.h's promises.
static double most_error(KvType kv) {
    return kv == KV_Q8 ? 5e-4 : rounds_products(cpu_level()) ? 1e-4 : 1e-5;
}

// Errors of one family's logits. Where words are rounded its routers may choose other experts: then a text's logits are
// others from there on, and only most of them are held to the bound.
typedef struct {
    double worst;
    int n, n_above;
} Errors;

static void errors_add(Errors *e, double error, KvType kv) {
    e->worst = error > e->worst ? error : e->worst;
    e->n_above += !(error <= most_error(kv));
    e->n++;
}

static void errors_check(const Errors *e, const Engine *engine, const char *name, KvType kv) {
    bool may_choose = engine->model.config.n_experts && (rounds_products(cpu_level()) || kv == KV_Q8);
    CHECK(may_choose ? e->n_above <= e->n / 2 : !e->n_above, "%s, %s: %d errors of %d above %.0e, at most %.1e", name,
          kv_type_name(kv), e->n_above, e->n, most_error(kv), e->worst);
}

// ---- texts that are computed twice

typedef struct {
    Session *together, *alone;
    int32_t tokens[FAMILY_TOKENS];
    int length;
} Text;

static void open_texts(const Engine *e, Text *texts, SessionOptions options) {
    for (int i = 0; i < N_TEXTS; i++) {
        texts[i] = (Text){.together = need_session(e, &options), .alone = need_session(e, &options)};
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
    Errors errors = {0};
    int vocab = engine_info(e).vocab_size, n_unequal = 0;
    open_texts(e, texts, *options);
    for (int step = 0; step < by_speed(40, 20, 6); step++) {
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
            errors_add(&errors, error_of(t, vocab), options->kv);
            n_unequal +=
                memcmp(session_logits(t->together), session_logits(t->alone), sizeof(float) * (size_t)vocab) != 0;
        }
    }
    CHECK(!exact || !n_unequal, "%s: %d rows of exact steps have other bits than alone", name, n_unequal);
    errors_check(&errors, e, name, options->kv);
    close_texts(texts);
    return errors.worst;
}

static void check_family(const Fixture *f) {
    Engine *e = family_engine(f);
    SessionOptions options = {.n_ctx = f->n_ctx < FAMILY_TOKENS ? f->n_ctx : FAMILY_TOKENS, .n_threads = 2};
    for (KvType kv = KV_BF16; e && kv <= KV_Q8; kv++) {
        options.kv = kv;
        mix(e, &options, true, f->name);
        double error = mix(e, &options, false, f->name);
        if (kv == KV_F32) printf("  %-20s NMSE %.1e from alone where not exact\n", f->name, error);
        if (quick()) break;
    }
    engine_close(e);
    folder_remove();
}

static void every_family(void) {
    each_kind(check_family);
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
    enum { FIRST, FULL, BAD_ID, TWICE, FOREIGN, STOPPED, THREADS, PRECISION, EMPTY, LAST, N };
    static const char *const lines[N] = {[FULL] = "context full", [BAD_ID] = "expected an id below",
                                         [TWICE] = "twice",       [FOREIGN] = "of this engine",
                                         [STOPPED] = "stopped",   [THREADS] = "threads",
                                         [EMPTY] = "at least 1",  [PRECISION] = "precision"};
    static const int32_t tokens[] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, bad[] = {5, -1, 7};
    enum { N_TOKENS = N_OF(tokens), SMALL = 9 };
    char err[256] = "";
    Engine *e = engine_open("models/stories.bin", NULL, err, sizeof err),
           *other = engine_open("models/stories.bin", NULL, err, sizeof err);
    NEED(e && other, "%s", err);
    SessionOptions two = {.n_threads = 2}, three = {.n_threads = 3}, small = {.n_threads = 2, .n_ctx = SMALL},
                   fast = {.n_threads = 2, .precision = PRECISION_FAST};
    StepSegment list[N] = {0};
    for (int i = 0; i < N; i++) {
        const SessionOptions *o = i == THREADS ? &three : i == FULL ? &small : i == PRECISION ? &fast : &two;
        Session *s = i == TWICE ? list[FIRST].session : need_session(i == FOREIGN ? other : e, o);
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
        Session *alone = need_session(e, &two);
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
        list[i] = (StepSegment){.session = need_session(e, &options), .tokens = tokens + i, .logits = true};
        list[i].n = i == 1 ? PROMPT - 1 : i % 9 ? 1 + i % 3 : LONG;
    }
    CHECK(!engine_step(e, list, N, false), "a step of %d sessions failed", N);
    Session *alone = need_session(e, &options);
    for (int i = 0; i < N; i++) {
        CHECK(!session_sync(alone, list[i].tokens, list[i].n, err, sizeof err), "%s", err);
        const float *logits = session_logits(list[i].session);
        double error = logits ? nmse_f32(logits, session_logits(alone), vocab) : 1;
        CHECK(list[i].done == list[i].n && error <= most_error(KV_BF16), "session %d: %d of %d tokens, NMSE %.1e", i,
              list[i].done, list[i].n, error);
        session_close(list[i].session);
    }
    session_close(alone);
    engine_close(e);
}

// ---- saved sessions

// A session that has read a text, and another with a text of its own, which files are loaded into.
typedef struct {
    const Engine *e;
    Session *source, *target;
    const char *name;
    float *logits; // [vocab] of the target
    size_t n_logits;
} Saving;

static void read_random(Session *s, int n, int vocab) {
    int32_t tokens[LONGEST];
    char err[256] = "";
    for (int i = 0; i < n; i++) tokens[i] = pick(vocab);
    CHECK(!session_sync(s, tokens, n, err, sizeof err), "%s", err);
}

// The file is refused with one line that names it, and the target is as before.
static void expect_refusal(const Saving *s, const char *path, const char *what, const char *line) {
    char err[400] = "";
    int length = session_length(s->target), rc = session_load(s->target, path, err, sizeof err);
    bool told = strstr(err, path) && one_line(err) && strstr(err, line);
    CHECK(rc == -1 && told, "%s: %s: returned %d, '%s'", s->name, what, rc, err);
    const float *logits = session_logits(s->target);
    CHECK(session_length(s->target) == length && logits && !memcmp(logits, s->logits, s->n_logits),
          "%s: %s: the session is not what it was", s->name, what);
}

// Cut at any place, with any byte changed, and longer.
static void damage_file(const Saving *s, const char *path) {
    size_t n;
    char *bytes = read_file(path, &n), what[60];
    const char *damaged = in_folder("damaged");
    int n_places = quick() ? 40 : 300;
    for (int i = 0; i < n_places && !test_bad; i++) {
        size_t at = i < 100 ? (size_t)i : (size_t)pick((int)n);
        snprintf(what, sizeof what, "cut at %zu of %zu", at, n);
        write_bytes(damaged, bytes, at);
        expect_refusal(s, damaged, what, "");
        snprintf(what, sizeof what, "bit %d of byte %zu of %zu", i % 8, at, n);
        bytes[at] ^= (char)(1 << i % 8);
        write_bytes(damaged, bytes, n);
        expect_refusal(s, damaged, what, "");
        bytes[at] ^= (char)(1 << i % 8);
    }
    char *longer = need(n + 1);
    memcpy(longer, bytes, n);
    longer[n] = 0;
    write_bytes(damaged, longer, n + 1);
    expect_refusal(s, damaged, "a byte more", "found");
    free(longer);
    free(bytes);
}

static void refuse_foreign(const Saving *s, const char *path, SessionOptions options) {
    char err[256] = "";
    Engine *other = engine_open("models/stories.bin", NULL, err, sizeof err);
    NEED(other, "%s", err);
    const struct {
        const Engine *e;
        SessionOptions o;
        const char *what, *line;
    } cases[] = {{other, options, "another model", "another model"},
                 {s->e, {.n_threads = 2, .n_ctx = options.n_ctx, .kv = KV_Q8}, "q8", "stored as q8, expected bf16"},
                 {s->e, {.n_threads = 2, .n_ctx = options.n_ctx, .window = 30, .n_sinks = 2}, "a window", "window 30"}};
    for (int i = 0; i < N_OF(cases); i++) {
        const char *foreign = in_folder("foreign");
        Session *writer = need_session(cases[i].e, &cases[i].o);
        read_random(writer, 20, 40);
        CHECK(!session_save(writer, foreign, err, sizeof err), "%s", err);
        expect_refusal(s, foreign, cases[i].what, cases[i].line);
        session_close(writer);
    }
    write_text("text", "Once upon a time there was a file that was long enough for a head, but it was a text and no "
                       "session at all, which everybody could see at once.");
    expect_refusal(s, in_folder("text"), "a text", "not a saved session");
    expect_refusal(s, in_folder("absent"), "no file", "No such file");
    options.n_ctx = 15;
    Session *small = need_session(s->e, &options);
    CHECK(session_load(small, path, err, sizeof err) && strstr(err, "-c"), "too long a text: '%s'", err);
    session_close(small);
    engine_close(other);
}

// A link stays, and its file is replaced; a FIFO and a device are neither read nor replaced.
static void refuse_special(const Saving *s, const char *path) {
    const char *link = in_folder("link"), *special[] = {in_folder("fifo"), "/dev/null"};
    struct stat st;
    char err[256] = "";
    CHECK(!symlink(path, link) && !session_save(s->source, link, err, sizeof err), "%s", err);
    CHECK(!lstat(link, &st) && S_ISLNK(st.st_mode), "the link was replaced");
    CHECK(!mkfifo(special[0], 0600), "mkfifo");
    for (int i = 0; i < N_OF(special); i++) {
        CHECK(session_save(s->source, special[i], err, sizeof err) && strstr(err, "regular file"), "'%s'", err);
        CHECK(session_load(s->target, special[i], err, sizeof err) && strstr(err, "regular file"), "'%s'", err);
        CHECK(!stat(special[i], &st) && !S_ISREG(st.st_mode), "%s was replaced", special[i]);
    }
    remove(link);
    remove(special[0]);
}

static void check_saving(const Fixture *f) {
    Engine *e = family_engine(f);
    if (!e) return;
    char err[256] = "";
    SessionOptions options = {.n_threads = 2, .n_ctx = 400};
    Saving s = {.e = e, .name = f->name, .source = need_session(e, &options), .target = need_session(e, &options)};
    s.n_logits = sizeof(float) * (size_t)f->vocab_size;
    s.logits = need(s.n_logits);
    read_random(s.source, 300, f->vocab_size);
    read_random(s.target, 33, f->vocab_size);
    memcpy(s.logits, session_logits(s.target), s.n_logits);
    const char *path = in_folder("session");
    CHECK(!session_save(s.source, path, err, sizeof err), "%s", err);
    CHECK(session_save(s.source, in_folder("none/session"), err, sizeof err) && one_line(err), "'%s'", err);
    CHECK(!session_save(s.source, path, err, sizeof err) && count_files("session") == 1,
          "%s: %d files where one session was saved twice", err, count_files("session"));
    refuse_special(&s, path);
    damage_file(&s, path);
    refuse_foreign(&s, path, options);
    CHECK(!session_load(s.target, path, err, sizeof err), "%s: %s", f->name, err);
    CHECK(!memcmp(session_logits(s.target), session_logits(s.source), s.n_logits), "%s: other logits", f->name);
    free(s.logits);
    session_close(s.source);
    session_close(s.target);
    engine_close(e);
    folder_remove();
}

// A cache alone, with windows, recurrent states beside it, states alone.
static void saved_files(void) {
    static char *names[] = {"llama", "gemma3_text", "qwen3_next", "mamba2"};
    each_of(names, N_OF(names), check_saving);
}

// ---- texts that begin alike

// What was read once is found: whole blocks, a part of one, never the last token; by sessions of the same cache type
// alone; nothing without a limit, and less than the limit.
static void prefixes_are_found(void) {
    enum { N = 600, CAP = 8 << 20 };
    int32_t tokens[N];
    char err[256] = "";
    Engine *e = engine_open("models/stories.bin", NULL, err, sizeof err);
    NEED(e, "%s", err);
    int vocab = engine_info(e).vocab_size;
    SessionOptions options = {.n_threads = 2, .n_ctx = N}, q8 = options, fast = options;
    q8.kv = KV_Q8;
    fast.precision = PRECISION_FAST;
    for (int i = 0; i < N; i++) tokens[i] = 3 + pick(vocab - 3);
    Session *first = need_session(e, &options);
    CHECK(!session_sync(first, tokens, N, err, sizeof err), "%s", err);
    session_close(first);
    Session *s = need_session(e, &options);
    CHECK(session_keep(s, tokens, N) == 0, "something was kept without a limit");
    engine_limit(e, 0, CAP);
    CHECK(!session_sync(s, tokens, N - 50, err, sizeof err), "%s", err);
    const struct {
        int n, differs, expected;
        const SessionOptions *o;
    } cases[] = {
        {N, N, N - 50, &options}, {N - 50, N, N - 51, &options}, {N, 300, 300, &options}, {N, 256, 256, &options},
        {100, N, 99, &options},   {N, 0, 0, &options},           {N, N, 0, &q8},          {N, N, 0, &fast}};
    for (int i = 0; i < N_OF(cases); i++) {
        int32_t text[N];
        memcpy(text, tokens, sizeof text);
        if (cases[i].differs < N) text[cases[i].differs] = 3 + (text[cases[i].differs] - 2) % (vocab - 3);
        Session *other = need_session(e, cases[i].o), *fresh = need_session(e, cases[i].o);
        int kept = session_keep(other, text, cases[i].n);
        CHECK(kept == cases[i].expected, "case %d: %d tokens were found, expected %d", i, kept, cases[i].expected);
        CHECK(!session_sync(other, text, cases[i].n, err, sizeof err), "%s", err);
        StepSegment part = {.session = fresh, .tokens = text, .n = cases[i].n, .logits = true};
        CHECK(!engine_step(e, &part, 1, false), "%s", part.err);
        double error = nmse_f32(session_logits(other), session_logits(fresh), vocab);
        CHECK(error <= most_error(cases[i].o->kv), "case %d: NMSE %.1e", i, error);
        session_close(other);
        session_close(fresh);
        CHECK(engine_prefixes(e).bytes <= CAP, "%llu bytes are kept", (unsigned long long)engine_prefixes(e).bytes);
    }
    uint64_t shared = engine_prefixes(e).kv_bytes;
    Session *twin = need_session(e, &options);
    CHECK(session_keep(twin, tokens, N) > 500 && engine_prefixes(e).kv_bytes == shared, "a twin takes memory");
    session_close(twin);
    session_close(s);
    engine_limit(e, 0, 0);
    CHECK(!engine_prefixes(e).kv_bytes, "%llu bytes are left", (unsigned long long)engine_prefixes(e).kv_bytes);
    engine_close(e);
}

// Threads that open, extend and close sessions of the same texts, while the tree gives and takes blocks.
enum { N_THREADS = 4, N_SHARED = 3, SHARED_TOKENS = 420 };

typedef struct {
    const Engine *e;
    SessionOptions options;
    int32_t (*tokens)[SHARED_TOKENS];
    const float *logits; // [N_SHARED][vocab]
    int first, n_rounds;
    double worst;
    char err[256];
} Reader;

static void *read_shared(void *context) {
    Reader *r = context;
    int vocab = engine_info(r->e).vocab_size;
    for (int i = 0; i < r->n_rounds && !r->err[0]; i++) {
        int text = (r->first + i) % N_SHARED;
        Session *s = session_open(r->e, &r->options, r->err, sizeof r->err), *twin = NULL;
        if (s && !session_sync(s, r->tokens[text], SHARED_TOKENS - 20, r->err, sizeof r->err))
            twin = session_fork(s, r->err, sizeof r->err);
        for (int j = 0; twin && j < 2; j++) {
            Session *each = j ? twin : s;
            if (session_sync(each, r->tokens[text], SHARED_TOKENS, r->err, sizeof r->err)) break;
            double error = nmse_f32(session_logits(each), r->logits + (int64_t)text * vocab, vocab);
            r->worst = error > r->worst ? error : r->worst;
        }
        session_close(s);
        session_close(twin);
    }
    return NULL;
}

static void threads_share_prefixes(void) {
    static int32_t tokens[N_SHARED][SHARED_TOKENS];
    char err[256] = "";
    Engine *e = engine_open("models/stories.bin", NULL, err, sizeof err);
    NEED(e, "%s", err);
    int vocab = engine_info(e).vocab_size;
    float *logits = need_floats((int64_t)N_SHARED * vocab);
    SessionOptions options = {.n_threads = 1, .n_ctx = SHARED_TOKENS};
    for (int i = 0; i < N_SHARED; i++) {
        Session *s = need_session(e, &options);
        for (int t = 0; t < SHARED_TOKENS; t++) tokens[i][t] = i && t < 270 ? tokens[0][t] : 3 + pick(vocab - 3);
        CHECK(!session_sync(s, tokens[i], SHARED_TOKENS, err, sizeof err), "%s", err);
        memcpy(logits + (int64_t)i * vocab, session_logits(s), sizeof *logits * (size_t)vocab);
        session_close(s);
    }
    engine_limit(e, 0, 1 << 20); // of less than the texts need
    Reader readers[N_THREADS];
    pthread_t threads[N_THREADS];
    for (int i = 0; i < N_THREADS; i++) {
        readers[i] = (Reader){.e = e, .options = options, .tokens = tokens, .logits = logits, .first = i};
        readers[i].n_rounds = by_speed(40, 6, 3);
        pthread_create(&threads[i], NULL, read_shared, &readers[i]);
    }
    for (int i = 0; i < N_THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < N_THREADS; i++) {
        CHECK(!readers[i].err[0] && readers[i].worst <= most_error(KV_BF16), "thread %d: NMSE %.1e: %s", i,
              readers[i].worst, readers[i].err);
    }
    PrefixInfo info = engine_prefixes(e);
    CHECK(info.n_found > N_THREADS, "%llu texts were found", (unsigned long long)info.n_found);
    engine_limit(e, 0, 0);
    CHECK(!engine_prefixes(e).kv_bytes, "%llu bytes are left", (unsigned long long)engine_prefixes(e).kv_bytes);
    free(logits);
    engine_close(e);
}

// A limit of all caches: what is kept for later makes way, then a session fails alone, and goes on when others end.
static void caches_have_a_limit(void) {
    enum { N = 250 };
    int32_t tokens[N + 1];
    char err[256] = "";
    Engine *e = engine_open("models/stories.bin", NULL, err, sizeof err);
    NEED(e, "%s", err);
    int vocab = engine_info(e).vocab_size;
    SessionOptions options = {.n_threads = 2, .n_ctx = 600};
    for (int i = 0; i <= N; i++) tokens[i] = 3 + pick(vocab - 3);
    Session *a = need_session(e, &options);
    CHECK(!session_sync(a, tokens, N, err, sizeof err), "%s", err);
    uint64_t one = engine_prefixes(e).kv_bytes;
    engine_limit(e, 2 * one + one / 2, 64 << 20); // of two texts
    session_close(a);
    a = need_session(e, &options);
    Session *b = need_session(e, &options), *c = need_session(e, &options);
    StepSegment list[] = {{.session = a, .tokens = tokens + 1, .n = N, .logits = true},
                          {.session = b, .tokens = tokens + 1, .n = N, .logits = true},
                          {.session = c, .tokens = tokens + 1, .n = N, .logits = true}};
    CHECK(engine_step(e, list, 3, false) == 1 && strstr(list[2].err, "out of memory") && !list[0].err[0] &&
              !list[1].err[0],
          "three texts where two fit: '%s', '%s', '%s'", list[0].err, list[1].err, list[2].err);
    session_close(a);
    CHECK(!session_sync(c, tokens + 1, N, err, sizeof err), "after another has ended: %s", err);
    session_close(b);
    session_close(c);
    engine_close(e);
}

// ---- everything that may happen to sessions, in any order

enum { N_PLACES = 6 };

typedef struct {
    Session *session;
    int32_t tokens[LONGEST];
    int length;
} Place;

// Sessions whose steps are all exact and short have the bits of token after token; the others are equal to rounding.
typedef struct {
    const Engine *e;
    const char *name;
    SessionOptions options;
    bool exact;
    int vocab, longest;
    Place places[N_PLACES];
    Errors errors; // of what is compared with fresh sessions
} Mix;

// A session of its own computes the text from the start.
static void compare_fresh(Mix *m, const Place *s) {
    char err[256] = "";
    const float *logits = session_logits(s->session);
    if (!logits || !s->length) return;
    Session *fresh = need_session(m->e, &m->options);
    // The engine's prefixes stay out of it: they are what is tested.
    StepSegment part = {.session = fresh, .tokens = s->tokens, .n = m->exact ? 1 : s->length, .logits = true};
    int n_failed = 0;
    for (; part.tokens < s->tokens + s->length; part.tokens += part.n) n_failed += engine_step(m->e, &part, 1, false);
    const float *expected = session_logits(fresh);
    NEED(!n_failed && expected, "%s: a fresh session: %s%s", m->name, part.err, err);
    double error = nmse_f32(logits, expected, m->vocab);
    bool same = !memcmp(logits, expected, sizeof *logits * (size_t)m->vocab);
    CHECK(same || !m->exact, "%s: %d tokens: NMSE %.1e from a fresh session", m->name, s->length, error);
    errors_add(&m->errors, error, m->options.kv);
    session_close(fresh);
}

// New tokens: often those of another text, so that texts begin alike.
static void extend_text(Mix *m, Place *s, int n) {
    const Place *other = &m->places[pick(N_PLACES)];
    bool follow = pick(4) > 0 && other->length >= s->length + n &&
                  !memcmp(s->tokens, other->tokens, sizeof *s->tokens * (size_t)s->length);
    for (int t = s->length; t < s->length + n; t++) s->tokens[t] = follow ? other->tokens[t] : pick(m->vocab);
}

static void step_some(Mix *m) {
    StepSegment list[N_PLACES] = {0};
    Place *of[N_PLACES];
    int n = 0;
    for (int i = 0; i < N_PLACES; i++) {
        Place *s = &m->places[i];
        int kind = pick(4), count = kind == 1 ? 1 : 1 + pick(kind == 2 || m->exact ? 8 : 90);
        if (!kind || s->length + count > m->longest) continue;
        extend_text(m, s, count);
        list[n] = (StepSegment){.session = s->session, .tokens = s->tokens + s->length, .n = count};
        list[n].logits = pick(3) > 0;
        of[n++] = s;
    }
    int n_failed = engine_step(m->e, list, n, m->exact);
    CHECK(!n_failed, "%s: %d segments of %d failed: %s", m->name, n_failed, n, list[0].err);
    for (int i = 0; i < n; i++) of[i]->length += list[i].done;
    if (n) compare_fresh(m, of[pick(n)]);
}

// Many short steps, so that exact texts too become longer than a block.
static void step_often(Mix *m) {
    Place *s = &m->places[pick(N_PLACES)];
    for (int i = 0; i < 30 && s->length + 8 <= m->longest; i++, s->length += 8) {
        extend_text(m, s, 8);
        StepSegment part = {.session = s->session, .tokens = s->tokens + s->length, .n = 8, .logits = true};
        CHECK(!engine_step(m->e, &part, 1, m->exact), "%s: %s", m->name, part.err);
    }
}

static void fork_one(Mix *m) {
    char err[256] = "";
    Place *s = &m->places[pick(N_PLACES)], *to = &m->places[pick(N_PLACES)];
    if (s == to) return;
    session_close(to->session);
    memcpy(to, s, sizeof *s);
    to->session = session_fork(s->session, err, sizeof err);
    if (!to->session) {
        fprintf(stderr, "fork: %s\n", err);
        exit(1);
    }
    CHECK(session_length(to->session) == s->length, "%s: a fork of %d tokens has %d", m->name, s->length,
          session_length(to->session));
    compare_fresh(m, to);
}

static void truncate_one(Mix *m) {
    Place *s = &m->places[pick(N_PLACES)];
    int n = pick(s->length + 1), kept = session_keep(s->session, s->tokens, n);
    CHECK(kept >= 0 && kept <= n && kept == session_length(s->session), "%s: kept %d of %d tokens, has %d", m->name,
          kept, n, session_length(s->session));
    s->length = kept;
}

// A new session starts from what the engine has kept of other texts.
static void begin_anew(Mix *m) {
    Place *s = &m->places[pick(N_PLACES)], *other = &m->places[pick(N_PLACES)];
    int n = pick(other->length + 1), own = s == other ? 0 : pick(20);
    session_close(s->session);
    s->session = need_session(m->e, &m->options);
    memmove(s->tokens, other->tokens, sizeof *s->tokens * (size_t)n);
    s->length = 0;
    if (n + own > m->longest) own = m->longest - n;
    for (int t = n; t < n + own; t++) s->tokens[t] = pick(m->vocab);
    s->length = session_keep(s->session, s->tokens, n + own);
    CHECK(s->length <= n + own && s->length == session_length(s->session), "%s: found %d of %d", m->name, s->length,
          n + own);
}

static void save_and_load(Mix *m) {
    char err[256] = "";
    Place *s = &m->places[pick(N_PLACES)], *to = &m->places[pick(N_PLACES)];
    const char *path = in_folder("saved");
    CHECK(!session_save(s->session, path, err, sizeof err), "%s: %s", m->name, err);
    int rc = session_load(to->session, path, err, sizeof err);
    NEED(!rc, "%s: %s", m->name, err);
    if (to != s) {
        memcpy(to->tokens, s->tokens, sizeof s->tokens);
        to->length = s->length;
    }
    CHECK(session_length(to->session) == s->length, "%s: %d tokens of %d came back", m->name,
          session_length(to->session), s->length);
    CHECK(!session_logits(to->session) == !session_logits(s->session), "%s: logits came or went", m->name);
    compare_fresh(m, to);
}

static void change_limits(Mix *m) {
    static const uint64_t most[] = {0, 200 << 10, 1 << 20, 64 << 20};
    uint64_t cap = most[pick(N_OF(most))];
    engine_limit(m->e, 0, cap);
    CHECK(engine_prefixes(m->e).bytes <= cap, "%s: %llu bytes are kept of %llu", m->name,
          (unsigned long long)engine_prefixes(m->e).bytes, (unsigned long long)cap);
}

static int mix_sessions(Mix *m, int n_steps) {
    static void (*const verbs[])(Mix *) = {step_some,    step_some,  step_some,  step_some,     step_often,   fork_one,
                                           truncate_one, begin_anew, begin_anew, save_and_load, change_limits};
    for (int i = 0; i < N_PLACES; i++) {
        m->places[i].session = need_session(m->e, &m->options);
        m->places[i].length = 0;
    }
    change_limits(m);
    for (int step = 0; step < n_steps && !test_bad; step++) verbs[pick(N_OF(verbs))](m);
    for (int i = 0; i < N_PLACES; i++) session_close(m->places[i].session);
    uint64_t found = engine_prefixes(m->e).n_found;
    engine_limit(m->e, 0, 0);
    PrefixInfo left = engine_prefixes(m->e);
    CHECK(!left.bytes && !left.kv_bytes, "%s: %llu bytes of caches are left; bytes %llu", m->name,
          (unsigned long long)left.kv_bytes, (unsigned long long)left.bytes);
    return (int)found;
}

static int steps_of_family, n_found;

static void mix_family(const Fixture *f) {
    static Mix m;
    Engine *e = family_engine(f);
    for (int exact = 0; e && exact < 2; exact++) {
        int longest = engine_info(e).max_seq_len < 200 ? engine_info(e).max_seq_len : LONGEST;
        m = (Mix){.e = e, .name = f->name, .exact = exact, .vocab = f->vocab_size, .longest = longest};
        m.options = (SessionOptions){.n_threads = 2, .n_ctx = longest, .kv = exact ? KV_BF16 : (KvType)pick(3)};
        if (pick(4) == 0 && takes_window(f->name)) {
            m.options.window = 20;
            m.options.n_sinks = 3;
        }
        n_found += mix_sessions(&m, steps_of_family / 2);
        if (!exact) errors_check(&m.errors, e, f->name, m.options.kv);
        printf("  %-20s %s: %d comparisons, NMSE %.1e at most\n", f->name, exact ? "exact" : "     ", m.errors.n,
               m.errors.worst);
    }
    engine_close(e);
    folder_remove();
}

static void count_family(const Fixture *f) {
    (void)f;
    steps_of_family++;
}

static void random_mixes(void) {
    steps_of_family = n_found = 0;
    each_kind(count_family);
    steps_of_family = (n_chosen ? 10000 : by_speed(10000, 600, 300)) / (steps_of_family + 1) + 2;
    each_kind(mix_family);
    CHECK(n_found > 0 || n_chosen, "no text was found again"); // a window of the model keeps texts private
}

int main(int argc, char **argv) {
    chosen = argv + 1;
    n_chosen = argc - 1;
    RUN(failures_stay_alone);
    RUN(many_passes);
    RUN(saved_files);
    RUN(prefixes_are_found);
    RUN(threads_share_prefixes);
    RUN(caches_have_a_limit);
    RUN(every_family);
    RUN(random_mixes);
    return test_report();
}
