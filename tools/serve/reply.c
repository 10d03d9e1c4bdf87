// reply: see reply.h.
#include "reply.h"

#include "bytes.h"
#include "cli.h"
#include "engine.h"
#include "textstream.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include <stb/stb_ds.h>

Reply *reply_open(const Request *r, const Served *m) {
    Reply *reply = calloc(1, sizeof *reply);
    uint64_t random[2] = {0};
    if (!reply) die(1, "out of memory");
    if (getrandom(random, sizeof random, GRND_NONBLOCK) < 0) random[0] = (uint64_t)(uintptr_t)reply;
    *reply = (Reply){.request = r, .model = m, .created = time(NULL)};
    snprintf(reply->id, sizeof reply->id, "%s-%016" PRIx64, r->chat ? "chatcmpl" : "cmpl", random[0] ^ random[1]);
    reply->n_choices = (int)arrlen(r->prompts) * r->n_choices;
    reply->choices = calloc((size_t)reply->n_choices, sizeof *reply->choices);
    if (!reply->choices) die(1, "out of memory");
    return reply;
}

void reply_close(Reply *r) {
    if (!r) return;
    for (int i = 0; i < r->n_choices; i++) {
        arrfree(r->choices[i].text);
        arrfree(r->choices[i].thought);
        json_decref(r->choices[i].logprobs);
        json_decref(r->choices[i].calls);
        free(r->choices[i].vector);
    }
    free(r->choices);
    free(r);
}

static char *dump(json_t *v) {
    char *text = json_dumps(v, JSON_COMPACT);
    json_decref(v);
    if (!text) die(1, "out of memory");
    return text;
}

// ---- log probabilities

// A token's text: bytes that are no whole characters come out as U+FFFD.
static json_t *token_text(const Served *m, int32_t id) {
    char text[1024];
    TextStream s = textstream_start(m->engine->tokenizer, false);
    s.special = true;
    size_t n = 0;
    if (textstream_room(m->engine->tokenizer) + 16 <= sizeof text) n = textstream_push(&s, id, text);
    n += textstream_finish(&s, text + n);
    return json_stringn(text, n);
}

static json_t *token_bytes(const Served *m, int32_t id) {
    const Piece *p = tokenizer_piece(m->engine->tokenizer, id);
    json_t *list = json_array();
    if (!p) return list;
    if (piece_byte(p) >= 0) {
        json_array_append_new(list, json_integer(piece_byte(p)));
        return list;
    }
    for (int i = 0; i < p->len; i++) json_array_append_new(list, json_integer((unsigned char)p->text[i]));
    return list;
}

static json_t *chat_logprob(const Served *m, const TokenLogprob *t) {
    return json_pack("{s:o, s:f, s:o}", "token", token_text(m, t->id), "logprob", (double)t->logprob, "bytes",
                     token_bytes(m, t->id));
}

static json_t *chat_logprobs(const Served *m, const LogprobEntry *list) {
    json_t *content = json_array();
    for (ptrdiff_t i = 0; i < arrlen(list); i++) {
        json_t *entry = chat_logprob(m, &list[i].token), *top = json_array();
        for (ptrdiff_t k = 0; k < arrlen(list[i].top); k++)
            json_array_append_new(top, chat_logprob(m, &list[i].top[k]));
        json_object_set_new(entry, "top_logprobs", top);
        json_array_append_new(content, entry);
    }
    return json_pack("{s:o, s:n}", "content", content, "refusal");
}

static json_t *text_logprobs(const Served *m, const LogprobEntry *list) {
    json_t *tokens = json_array(), *values = json_array(), *tops = json_array(), *offsets = json_array();
    for (ptrdiff_t i = 0; i < arrlen(list); i++) {
        json_t *top = json_object();
        json_array_append_new(tokens, token_text(m, list[i].token.id));
        json_array_append_new(values, json_real((double)list[i].token.logprob));
        json_array_append_new(offsets, json_integer((json_int_t)list[i].at));
        for (ptrdiff_t k = 0; k < arrlen(list[i].top); k++) {
            json_t *text = token_text(m, list[i].top[k].id);
            if (!json_object_get(top, json_string_value(text))) // the likelier of two tokens with one text
                json_object_set_new(top, json_string_value(text), json_real((double)list[i].top[k].logprob));
            json_decref(text);
        }
        json_array_append_new(tops, top);
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", tokens, "token_logprobs", values, "top_logprobs", tops,
                     "text_offset", offsets);
}

static json_t *logprobs_json(const Reply *r, const LogprobEntry *list) {
    if (!r->request->logprobs) return json_null();
    return r->request->chat ? chat_logprobs(r->model, list) : text_logprobs(r->model, list);
}

// Appends the lists of `more` to those of *all. Takes `more`.
static void merge_logprobs(json_t **all, json_t *more) {
    if (!*all || json_is_null(more)) {
        json_decref(*all);
        *all = more;
        return;
    }
    const char *key;
    json_t *list;
    json_object_foreach(more, key, list) {
        if (json_is_array(list)) json_array_extend(json_object_get(*all, key), list);
    }
    json_decref(more);
}

// ---- calls of tools

static json_t *call_json(const CallPart *p, bool with_index) {
    json_t *call = json_object(), *function = json_object();
    if (with_index) json_object_set_new(call, "index", json_integer(p->index));
    if (p->name) {
        json_object_set_new(call, "id", json_string(p->id));
        json_object_set_new(call, "type", json_string("function"));
        json_object_set_new(function, "name", json_string(p->name));
    }
    json_object_set_new(function, "arguments", json_stringn(p->arguments ? p->arguments : "", arrlenu(p->arguments)));
    json_object_set_new(call, "function", function);
    return call;
}

static void add_call(json_t **calls, const CallPart *p) {
    if (!*calls) *calls = json_array();
    if (p->name) {
        json_array_append_new(*calls, call_json(p, false));
        return;
    }
    json_t *function = json_object_get(json_array_get(*calls, (size_t)p->index), "function");
    const char *before = json_string_value(json_object_get(function, "arguments"));
    json_object_set_new(function, "arguments",
                        json_sprintf("%s%.*s", before, (int)arrlen(p->arguments), p->arguments ? p->arguments : ""));
}

// ---- collecting

void reply_add(Reply *r, Output *e) {
    Collected *c = &r->choices[e->choice];
    if (e->vector) c->vector = e->vector;
    e->vector = NULL;
    if (!r->request->stream) {
        bytes_append_text(&c->text, e->text);
        bytes_append_text(&c->thought, e->thought);
        for (ptrdiff_t i = 0; i < arrlen(e->calls); i++) add_call(&c->calls, &e->calls[i]);
        if (r->request->logprobs) merge_logprobs(&c->logprobs, logprobs_json(r, e->logprobs));
    }
    if (!e->finish) return;
    c->finish = e->finish;
    c->n_prompt = e->n_prompt;
    c->n_cached = e->n_cached;
    c->n_new = e->n_new;
}

static json_t *usage(const Reply *r) {
    int n_prompt = 0, n_cached = 0, n_new = 0;
    for (int i = 0; i < r->n_choices; i++) {
        const Collected *c = &r->choices[i];
        n_new += c->n_new;
        if (i % r->request->n_choices) continue; // choices of one prompt count it once
        n_prompt += c->n_prompt;
        n_cached += c->n_cached;
    }
    return json_pack("{s:i, s:i, s:i, s:{s:i}}", "prompt_tokens", n_prompt, "completion_tokens", n_new, "total_tokens",
                     n_prompt + n_new, "prompt_tokens_details", "cached_tokens", n_cached);
}

// ---- replies

static json_t *head(const Reply *r, bool chunk, json_t *choices) {
    const char *object = !r->request->chat ? "text_completion" : chunk ? "chat.completion.chunk" : "chat.completion";
    return json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", r->id, "object", object, "created", (json_int_t)r->created,
                     "model", r->model->model_name, "choices", choices);
}

static json_t *maybe(const char *text) {
    return text ? json_string(text) : json_null();
}

char *reply_first_chunk(const Reply *r, int choice) {
    return dump(head(r, true,
                     json_pack("[{s:i, s:{s:s, s:s}, s:n, s:n}]", "index", choice, "delta", "role", "assistant",
                               "content", "", "logprobs", "finish_reason")));
}

static char *chunk(const Reply *r, int index, json_t *delta, json_t *logprobs, const char *finish) {
    return dump(head(r, true,
                     json_pack("[{s:i, s:o, s:o, s:o}]", "index", index, r->request->chat ? "delta" : "text", delta,
                               "logprobs", logprobs, "finish_reason", maybe(finish))));
}

char *reply_chunk(const Reply *r, const Output *e) {
    if (!e->text && !e->thought && !e->calls) return NULL;
    json_t *logprobs = e->text ? logprobs_json(r, e->logprobs) : json_null();
    if (!r->request->chat) return chunk(r, e->choice, json_string(e->text), logprobs, NULL);
    json_t *delta = json_object();
    if (e->text) json_object_set_new(delta, "content", json_string(e->text));
    if (e->thought) json_object_set_new(delta, "reasoning_content", json_string(e->thought));
    json_t *calls = e->calls ? json_array() : NULL;
    for (ptrdiff_t i = 0; i < arrlen(e->calls); i++) json_array_append_new(calls, call_json(&e->calls[i], true));
    if (calls) json_object_set_new(delta, "tool_calls", calls);
    return chunk(r, e->choice, delta, logprobs, NULL);
}

char *reply_last_chunk(const Reply *r, const Output *e) {
    if (!e->finish) return NULL;
    return chunk(r, e->choice, r->request->chat ? json_object() : json_string(""), json_null(), e->finish);
}

char *reply_usage_chunk(const Reply *r) {
    json_t *v = head(r, true, json_array());
    json_object_set_new(v, "usage", usage(r));
    return dump(v);
}

// ---- embeddings

static char *base64(const void *bytes, size_t n) {
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *b = bytes;
    char *text = malloc((n + 2) / 3 * 4 + 1), *to = text;
    if (!text) die(1, "out of memory");
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        unsigned v = (unsigned)b[i] << 16 | (left > 1 ? (unsigned)b[i + 1] << 8 : 0) | (left > 2 ? b[i + 2] : 0u);
        *to++ = set[v >> 18];
        *to++ = set[v >> 12 & 63];
        *to++ = left > 1 ? set[v >> 6 & 63] : '=';
        *to++ = left > 2 ? set[v & 63] : '=';
    }
    *to = 0;
    return text;
}

static json_t *vector_json(const Reply *r, const float *v) {
    int dim = engine_info(r->model->engine).dim;
    if (r->request->base64) { // floats of the machine, which are little-endian on all that the engine runs on
        char *text = base64(v, sizeof *v * (size_t)dim);
        json_t *value = json_string(text);
        free(text);
        return value;
    }
    json_t *list = json_array();
    for (int i = 0; i < dim; i++) json_array_append_new(list, json_real((double)v[i]));
    return list;
}

static char *reply_embeddings(const Reply *r) {
    json_t *data = json_array();
    int n_tokens = 0;
    for (int i = 0; i < r->n_choices; i++) {
        n_tokens += r->choices[i].n_prompt;
        json_array_append_new(data, json_pack("{s:s, s:i, s:o}", "object", "embedding", "index", i, "embedding",
                                              vector_json(r, r->choices[i].vector)));
    }
    return dump(json_pack("{s:s, s:o, s:s, s:{s:i, s:i}}", "object", "list", "data", data, "model",
                          r->model->model_name, "usage", "prompt_tokens", n_tokens, "total_tokens", n_tokens));
}

char *reply_whole(const Reply *r) {
    if (r->request->pool) return reply_embeddings(r);
    json_t *choices = json_array();
    for (int i = 0; i < r->n_choices; i++) {
        Collected *c = &r->choices[i];
        json_t *text = json_stringn(c->text ? c->text : "", arrlenu(c->text));
        json_t *choice = json_pack("{s:i, s:O?, s:s}", "index", i, "logprobs", c->logprobs, "finish_reason", c->finish);
        if (!r->request->chat) json_object_set_new(choice, "text", text);
        else {
            json_t *message = json_pack("{s:s, s:o, s:n}", "role", "assistant", "content", text, "refusal");
            if (c->calls) json_object_set(message, "tool_calls", c->calls);
            if (c->calls && !arrlen(c->text)) json_object_set_new(message, "content", json_null());
            if (arrlen(c->thought))
                json_object_set_new(message, "reasoning_content", json_stringn(c->thought, arrlenu(c->thought)));
            json_object_set_new(choice, "message", message);
        }
        json_array_append_new(choices, choice);
    }
    json_t *v = head(r, false, choices);
    json_object_set_new(v, "usage", usage(r));
    return dump(v);
}

// What a message quotes may be no UTF-8, or cut within a character.
char *reply_error(const ApiError *e) {
    char message[6 * sizeof e->message + 16];
    Utf8Stream stream = {0};
    size_t n = 0;
    for (const char *c = e->message; *c; c++) n += utf8_push(&stream, (unsigned char)*c, message + n);
    n += utf8_finish(&stream, message + n);
    message[n] = 0;
    return dump(json_pack("{s:{s:s, s:s, s:s?, s:s?}}", "error", "message", message, "type", e->type, "param", e->param,
                          "code", e->code));
}
