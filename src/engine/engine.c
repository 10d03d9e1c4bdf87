// engine: a model opened (Engine), one timeline of text (Session), and text out.
//
// Owns the life of everything behind tessera.h and the one verb, session_sync. Refuses ids outside the vocabulary and
// text beyond the context; keeps what was computed when something runs out.
#include "tessera.h"

#include "chat.h"
#include "decoder.h"
#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct Engine {
    Model model;
    Decoder decoder;
    File tokenizer_file;
    Tokenizer *tokenizer;
    EngineInfo info;
};

// ---- engine

// `path` NULL: the model's own, or the file beside it.
static Tokenizer *open_tokenizer(Engine *e, const char *path, char *err, size_t errlen) {
    Vocab vocab;
    if (load_vocab(&vocab, &e->tokenizer_file, &e->model, path, err, errlen)) return NULL;
    return tokenizer_new(&vocab, err, errlen);
}

Engine *engine_open(const char *model, const char *tokenizer, char *err, size_t errlen) {
    Engine *e = calloc(1, sizeof *e);
    if (!e) {
        fail(err, errlen, "out of memory");
        return NULL;
    }
    bool ok = !load_model(&e->model, model, err, errlen) && !decoder_bind(&e->decoder, &e->model, err, errlen) &&
              (e->tokenizer = open_tokenizer(e, tokenizer, err, errlen));
    if (!ok) {
        engine_close(e);
        return NULL;
    }
    const Config *c = &e->model.config;
    e->info = (EngineInfo){
        .kind = e->model.kind,
        .dim = c->dim,
        .hidden_dim = c->hidden_dim,
        .n_layers = c->n_layers,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .vocab_size = c->vocab_size,
        .max_seq_len = c->max_seq_len,
        .bos_id = tokenizer_bos(e->tokenizer),
        .eos_id = tokenizer_eos(e->tokenizer),
        .n_params = weights_params(&e->model.weights),
        .model_bytes = weights_file_bytes(&e->model.weights),
        .token_bytes = e->decoder.token_bytes,
    };
    return e;
}

void engine_close(Engine *e) {
    if (!e) return;
    tokenizer_free(e->tokenizer);
    file_unmap(&e->tokenizer_file);
    decoder_free(&e->decoder);
    weights_free(&e->model.weights);
    free(e);
}

EngineInfo engine_info(const Engine *e) {
    return e->info;
}

int engine_encode(const Engine *e, const char *text, size_t n, bool bos, bool special, int32_t **ids, char *err,
                  size_t errlen) {
    unsigned flags = (bos ? TOKENIZE_BOS : 0u) | (special ? TOKENIZE_SPECIAL : 0u);
    return tokenizer_encode(e->tokenizer, text, n, flags, ids, err, errlen);
}

bool engine_is_end(const Engine *e, int32_t id) {
    return tokenizer_is_end(e->tokenizer, id) || id == e->info.bos_id;
}

Chat *engine_chat(const Engine *e, char *err, size_t errlen) {
    return chat_open(e->tokenizer, tokenizer_chat_template(e->tokenizer), time(NULL), err, errlen);
}

// ---- session

struct Session {
    const Engine *engine;
    DecoderState state;
    KvCache *cache;
    int window; // of every layer, as the caller wished; 0: each layer its own
    int n_ctx;
    int32_t *tokens; // [room], the text that the cache holds
    int room;
    bool has_logits; // state.logits follow the last token
    LogitsVisitor visit;
    void *visit_context;
};

// The window that every layer has or is narrowed to; 0: some layer sees everything.
static int common_window(const Config *c, int wanted) {
    bool all = true;
    for (int i = 0; i < c->n_layers; i++) all = all && config_layer_slides(c, i);
    return wanted > 0 ? wanted : wanted == 0 && all ? c->window : 0;
}

Session *session_open(const Engine *e, const SessionOptions *options, char *err, size_t errlen) {
    const Config *c = &e->model.config;
    Session *s = calloc(1, sizeof *s);
    if (!s) {
        fail(err, errlen, "out of memory");
        return NULL;
    }
    s->engine = e;
    s->n_ctx = options->n_ctx > 0 ? options->n_ctx : c->max_seq_len;
    if (c->learned_positions && s->n_ctx > c->max_seq_len) {
        fail(err, errlen, "context: expected at most %d, the positions that the model has learned, found %d",
             c->max_seq_len, s->n_ctx);
        free(s);
        return NULL;
    }
    int n_threads = options->n_threads > 0 ? options->n_threads : cpu_count();
    s->window = common_window(c, options->window);
    int n_sinks = s->window ? options->n_sinks : 0;
    if (!(s->cache = decoder_cache_open(&e->decoder, options->kv, options->window, n_sinks, err, errlen)) ||
        decoder_state_open(&s->state, &e->decoder, s->n_ctx, n_threads, err, errlen)) {
        session_close(s);
        return NULL;
    }
    return s;
}

void session_close(Session *s) {
    if (!s) return;
    decoder_state_close(&s->state);
    kvcache_close(s->cache);
    free(s->tokens);
    free(s);
}

int session_length(const Session *s) {
    return kvcache_length(s->cache);
}

const float *session_logits(const Session *s) {
    return s->has_logits ? s->state.logits : NULL;
}

void session_visit(Session *s, LogitsVisitor visit, void *context) {
    s->visit = visit;
    s->visit_context = context;
}

SessionInfo session_info(const Session *s) {
    return (SessionInfo){
        .n_ctx = s->n_ctx,
        .n_threads = threads_count(s->state.compute.pool),
        .kv_bytes = kvcache_bytes(s->cache),
        .kv_token_bytes = kvcache_token_bytes(s->cache),
    };
}

void session_profile(Session *s, Profile *p) {
    threads_set_profile(s->state.compute.pool, p);
}

static int check_tokens(const Session *s, const int32_t *tokens, int n, char *err, size_t errlen) {
    int vocab = s->engine->model.config.vocab_size;
    if (n < 1) return fail(err, errlen, "session: expected at least 1 token, found %d", n);
    for (int i = 0; i < n; i++) {
        if (tokens[i] < 0 || tokens[i] >= vocab) {
            return fail(err, errlen, "session: token %d: expected an id below %d, found %d", i, vocab, tokens[i]);
        }
    }
    return 0;
}

// Room for the text itself, doubling, so that it too follows the text.
static int reserve_tokens(Session *s, int n, char *err, size_t errlen) {
    if (n <= s->room) return 0;
    int64_t room = s->room ? 2 * (int64_t)s->room : 256;
    if (room < n) room = n;
    int32_t *tokens = realloc(s->tokens, sizeof *tokens * (size_t)room);
    if (!tokens) return fail(err, errlen, "out of memory for the text of %d tokens", n);
    s->tokens = tokens;
    s->room = (int)room;
    return 0;
}

// The block of tokens that is computed at once. With a window it is no longer than the window (or a cache block), so
// that memory stays O(window + sinks).
static int block_size(const Session *s, int n_left) {
    int most = PREFILL_BLOCK;
    if (s->window && s->window < most) most = s->window > KV_BLOCK ? s->window : KV_BLOCK;
    return n_left < most ? n_left : most;
}

int session_sync(Session *s, const int32_t *tokens, int n, char *err, size_t errlen) {
    if (check_tokens(s, tokens, n, err, errlen)) return -1;
    int length = session_length(s), same = 0;
    while (same < n && same < length && tokens[same] == s->tokens[same]) same++;
    if (same == n && n == length && s->has_logits) return 0;
    if (same == n) same--; // the logits after the last token must be computed again
    same = kvcache_truncate(s->cache, same);
    s->has_logits = false;

    int limit = n < s->n_ctx ? n : s->n_ctx;
    if (reserve_tokens(s, limit, err, errlen)) return -1;
    while (same < limit) {
        int count = block_size(s, limit - same);
        if (kvcache_reserve(s->cache, count, err, errlen) ||
            decoder_state_reserve(&s->state, &s->engine->decoder, count, err, errlen)) {
            return -1;
        }
        decoder_forward(&s->engine->decoder, &s->state, s->cache, tokens + same, count, s->visit, s->visit_context);
        kvcache_advance(s->cache, count);
        memcpy(s->tokens + same, tokens + same, sizeof *tokens * (size_t)count);
        same += count;
        s->has_logits = true;
    }
    if (limit < n) {
        return fail(err, errlen, "context full: %d tokens do not fit in %d; a larger -c makes room", n, s->n_ctx);
    }
    return 0;
}

// ---- text out

struct TextOut {
    TextStream stream;
    char *text;
};

TextOut *textout_open(const Engine *e, bool at_start) {
    TextOut *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->stream = textstream_start(e->tokenizer, at_start);
    t->text = malloc(textstream_room(e->tokenizer) + 1);
    if (t->text) return t;
    free(t);
    return NULL;
}

const char *textout_push(TextOut *t, int32_t id) {
    t->text[textstream_push(&t->stream, id, t->text)] = 0;
    return t->text;
}

const char *textout_finish(TextOut *t) {
    t->text[textstream_finish(&t->stream, t->text)] = 0;
    return t->text;
}

void textout_close(TextOut *t) {
    if (!t) return;
    free(t->text);
    free(t);
}
