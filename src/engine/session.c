// session: one timeline of text (Session).
//
// Owns the one verb, session_sync, and what a timeline needs for itself: its tokens, its memory, its logits. New tokens
// are computed by a step (step.c), alone or with those of other sessions. Refuses ids outside the vocabulary.
#include "session.h"

#include "cpu.h"
#include "file.h"
#include "hash.h"

#include <stdlib.h>
#include <string.h>

enum { WORTH_FINDING = 8 }; // tokens that it takes to look for a prefix

const char *kv_type_name(KvType t) {
    static const char *const names[] = {[KV_BF16] = "bf16", [KV_F32] = "f32", [KV_Q8] = "q8"};
    return (unsigned)t < sizeof names / sizeof *names ? names[t] : NULL;
}

static KvDType stored_type(KvType t) {
    return t == KV_F32 ? KV_DTYPE_F32 : t == KV_Q8 ? KV_DTYPE_Q8 : KV_DTYPE_BF16;
}

// The window that every layer has or is narrowed to; 0: some layer sees everything.
static int common_window(const Config *c, int wanted) {
    if (wanted) return wanted > 0 ? wanted : 0;
    int widest = 0;
    for (int i = 0; i < c->n_kinds; i++) {
        if (!kind_has_cache(&c->kinds[i])) continue;
        if (!c->kinds[i].window) return 0;
        if (c->kinds[i].window > widest) widest = c->kinds[i].window;
    }
    return widest;
}

int session_open_memory(const Session *s, Memory *m, char *err, size_t errlen) {
    const Engine *e = s->engine;
    MemoryOptions options = {.kv = stored_type(s->options.kv),
                             .window = s->options.window,
                             .n_sinks = s->window ? s->options.n_sinks : 0,
                             .n_ctx = s->n_ctx,
                             .rope_factors = e->decoder.rope_factors};
    return memory_open(m, &e->model.config, &options, runners_pool(e->runners), err, errlen);
}

static uint64_t hash_positions(const Memory *m) {
    uint64_t hash = 0;
    for (int i = 0; i < m->n_kinds; i++) {
        const Rope *r = &m->ropes[i];
        hash = hash_bytes(hash, r->frequency, sizeof *r->frequency * (size_t)r->n);
        hash = hash_bytes(hash, &r->magnitude, sizeof r->magnitude);
    }
    return hash;
}

static int open_parts(Session *s, char *err, size_t errlen) {
    const Config *c = &s->engine->model.config;
    if ((c->learned_positions || c->filter_dim) && s->n_ctx > c->max_seq_len) {
        return fail(err, errlen, "context: expected at most %d, the positions that the model has %s, found %d",
                    c->max_seq_len, c->learned_positions ? "learned" : "filters for", s->n_ctx);
    }
    if (c->filter_dim && s->options.window > 0) {
        return fail(err, errlen, "window: expected none, since the model's filters are as long as the text, found %d",
                    s->options.window);
    }
    s->logits = malloc(sizeof *s->logits * (size_t)c->vocab_size);
    if (!s->logits) return fail(err, errlen, "out of memory for the logits");
    if (session_open_memory(s, &s->memory, err, errlen)) return -1;
    s->positions = hash_positions(&s->memory);
    int n_threads = s->options.n_threads > 0 ? s->options.n_threads : cpu_count();
    s->runner = runner_take(s->engine->runners, n_threads, s->options.precision == PRECISION_FAST, err, errlen);
    return s->runner ? 0 : -1;
}

static int check_options(const SessionOptions *o, char *err, size_t errlen) {
    const struct {
        const char *name;
        int value, least;
    } counts[] = {
        {"n_ctx", o->n_ctx, 0}, {"n_threads", o->n_threads, 0}, {"window", o->window, -1}, {"n_sinks", o->n_sinks, 0}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        if (counts[i].value < counts[i].least)
            return fail(err, errlen, "%s: expected at least %d, found %d", counts[i].name, counts[i].least,
                        counts[i].value);
    }
    if (o->precision != PRECISION_EXACT && o->precision != PRECISION_FAST)
        return fail(err, errlen, "precision: expected PRECISION_EXACT or PRECISION_FAST, found %d", o->precision);
    if (!kv_type_name(o->kv)) return fail(err, errlen, "kv: expected KV_BF16, KV_F32 or KV_Q8, found %d", (int)o->kv);
    return 0;
}

Session *session_open(const Engine *e, const SessionOptions *options, char *err, size_t errlen) {
    static const SessionOptions defaults;
    if (!options) options = &defaults;
    if (check_options(options, err, errlen)) return NULL;
    Session *s = calloc(1, sizeof *s);
    if (!s) {
        fail(err, errlen, "out of memory");
        return NULL;
    }
    s->engine = e;
    s->bad_logits = -1;
    s->options = *options;
    s->n_ctx = options->n_ctx > 0 ? options->n_ctx : e->model.config.max_seq_len;
    s->window = common_window(&e->model.config, options->window);
    if (!open_parts(s, err, errlen)) return s;
    session_close(s);
    return NULL;
}

void session_close(Session *s) {
    if (!s) return;
    session_publish(s);
    memory_close(&s->memory);
    runner_release(s->engine->runners, s->runner);
    free(s->logits);
    free(s->tokens);
    free(s);
}

Session *session_fork(const Session *s, char *err, size_t errlen) {
    Session *copy = session_open(s->engine, &s->options, err, errlen);
    int n = session_length(s);
    if (copy && (session_reserve_tokens(copy, n, err, errlen) || memory_copy(&copy->memory, &s->memory, err, errlen))) {
        session_close(copy);
        return NULL;
    }
    if (!copy) return NULL;
    if (n) memcpy(copy->tokens, s->tokens, sizeof *s->tokens * (size_t)n);
    if (s->has_logits) memcpy(copy->logits, s->logits, sizeof *s->logits * (size_t)s->engine->model.config.vocab_size);
    copy->has_logits = s->has_logits;
    return copy;
}

int session_length(const Session *s) {
    return memory_length(&s->memory);
}

const float *session_logits(const Session *s) {
    return s->has_logits ? s->logits : NULL;
}

void session_visit(Session *s, LogitsVisitor visit, void *context) {
    s->visit = visit;
    s->visit_context = context;
}

void session_visit_states(Session *s, StateVisitor visit, void *context) {
    s->visit_states = visit;
    s->states_context = context;
}

void session_watch(Session *s, SessionWatcher watch, void *context) {
    s->watch = watch;
    s->watch_context = context;
}

SessionInfo session_info(const Session *s) {
    return (SessionInfo){
        .n_ctx = s->n_ctx,
        .n_threads = runner_threads(s->runner),
        .kv_bytes = memory_kv_bytes(&s->memory),
        .state_bytes = memory_state_bytes(&s->memory),
        .memory_token_bytes = memory_token_bytes(&s->memory),
    };
}

void session_profile(Session *s, Profile *p) {
    s->profile = p;
}

// Doubling, so that the text's room too follows the text.
int session_reserve_tokens(Session *s, int n, char *err, size_t errlen) {
    if (n <= s->room) return 0;
    int64_t room = s->room ? 2 * (int64_t)s->room : 256;
    if (room < n) room = n;
    int32_t *tokens = realloc(s->tokens, sizeof *tokens * (size_t)room);
    if (!tokens) return fail(err, errlen, "out of memory for the text of %d tokens", n);
    s->tokens = tokens;
    s->room = (int)room;
    return 0;
}

static PrefixText prefix_text(Session *s, const int32_t *tokens) {
    const int shared[] = {s->options.kv, s->options.precision};
    return (PrefixText){
        .kind = hash_bytes(s->positions, shared, sizeof shared), .tokens = tokens, .memory = &s->memory};
}

static void publish(Session *s, int n) {
    if (!n || s->bad_logits >= 0) return;
    Prefixes *all = runners_prefixes(s->engine->runners);
    if (prefixes_on(all, &s->memory)) prefixes_add(all, prefix_text(s, s->tokens), n);
}

void session_publish(Session *s) {
    publish(s, session_length(s));
}

void session_publish_new(Session *s, int n, bool all) {
    int length = session_length(s), full = length / KV_BLOCK * KV_BLOCK;
    if (all) publish(s, length);
    else if (full > length - n) publish(s, full);
}

// The first tokens that the engine remembers of another text, where they are more than `own`.
static int find_prefix(Session *s, const int32_t *tokens, int n, int own) {
    Prefixes *all = runners_prefixes(s->engine->runners);
    char err[1];
    if (n > s->n_ctx) n = s->n_ctx;
    if (n < own + WORTH_FINDING || !prefixes_on(all, &s->memory) || session_reserve_tokens(s, n, err, sizeof err))
        return own;
    int found = prefixes_attach(all, prefix_text(s, tokens), n, own);
    if (found < 0) return own;
    memcpy(s->tokens, tokens, sizeof *tokens * (size_t)found);
    return found;
}

int session_keep(Session *s, const int32_t *tokens, int n) {
    int length = session_length(s), same = 0;
    while (same < n && same < length && tokens[same] == s->tokens[same]) same++;
    if (same == n && n == length && s->has_logits) return n;
    if (same == n && n) same--; // the logits after the last token must be computed again
    s->has_logits = false;
    if (length > same) session_publish(s);
    return find_prefix(s, tokens, n - 1, memory_truncate(&s->memory, same));
}

int session_check(const Session *s, const int32_t *tokens, int n, char *err, size_t errlen) {
    int vocab = s->engine->model.config.vocab_size;
    for (int i = 0; i < n; i++) {
        if (tokens[i] < 0 || tokens[i] >= vocab) {
            return fail(err, errlen, "session: token %d: expected an id below %d, found %d", i, vocab, tokens[i]);
        }
    }
    return 0;
}

int session_sync(Session *s, const int32_t *tokens, int n, char *err, size_t errlen) {
    if (n < 1) return fail(err, errlen, "session: expected at least 1 token, found %d", n);
    if (session_check(s, tokens, n, err, errlen)) return -1;
    int kept = session_keep(s, tokens, n);
    if (kept == n) return 0;
    StepSegment rest = {.session = s, .tokens = tokens + kept, .n = n - kept, .logits = true};
    return engine_step(s->engine, &rest, 1, false) ? fail(err, errlen, "%s", rest.err) : 0;
}
