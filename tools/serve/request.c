// request: see request.h.
#include "request.h"

#include "body.h"
#include "chat.h"
#include "conversation.h"
#include "engine.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <stb/stb_ds.h>

enum { MOST_STOPS = 16, MOST_STOP_BYTES = 1024, MOST_TOP_LOGPROBS = 20, MOST_BIASES = 4096, MOST_PROMPTS = 64 };

Chat *served_chat(const Served *m, char *err, size_t errlen) {
    return m->chat_template ? engine_chat_with(m->engine, m->chat_template, err, errlen)
                            : engine_chat(m->engine, err, errlen);
}

// ---- fields

// What is known and not built: such a field may stand there with the value that asks for nothing.
static int refuse_unbuilt(const json_t *body, bool chat, ApiError *e) {
    static const char *const common[] = {"best_of", "suffix", "grammar"};
    static const char *const of_chat[] = {"audio", "prediction", "web_search_options", "functions", "function_call"};
    for (size_t i = 0; i < sizeof common / sizeof *common; i++) {
        const json_t *v = body_field(body, common[i]);
        if (v && !(json_is_integer(v) && json_integer_value(v) == 1) && !(json_is_string(v) && !json_string_length(v)))
            return api_fail(e, 400, common[i], "%s is not supported by this server", common[i]);
    }
    for (size_t i = 0; i < sizeof of_chat / sizeof *of_chat; i++) {
        if (chat && body_field(body, of_chat[i]))
            return api_fail(e, 400, of_chat[i], "%s is not supported by this server", of_chat[i]);
    }
    const json_t *echo = body_field(body, "echo"), *modalities = body_field(body, "modalities");
    if (json_is_true(echo)) return api_fail(e, 400, "echo", "echo is not supported by this server");
    size_t n = json_array_size(modalities);
    for (size_t i = 0; i < n; i++) {
        const char *word = json_string_value(json_array_get(modalities, i));
        if (!word || strcmp(word, "text")) return api_fail(e, 400, "modalities", "modalities: only text is supported");
    }
    return 0;
}

static int read_stops(Request *r, const json_t *body, ApiError *e) {
    const json_t *v = body_field(body, "stop");
    size_t n = json_is_array(v) ? json_array_size(v) : v ? 1 : 0;
    if (n > MOST_STOPS) return api_fail(e, 400, "stop", "stop: expected at most %d strings, found %zu", MOST_STOPS, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *s = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_string(s) || !json_string_length(s) || json_string_length(s) > MOST_STOP_BYTES) {
            return api_fail(e, 400, "stop", "stop: expected strings of 1 to %d bytes, found %s", MOST_STOP_BYTES,
                            json_is_string(s) ? "another length" : json_type_word(s));
        }
        arrput(r->stops, strdup(json_string_value(s)));
    }
    return 0;
}

static int read_bias(Request *r, const json_t *body, int vocab_size, ApiError *e) {
    json_t *v = json_object_get(body, "logit_bias"), *value;
    const char *key;
    if (!v || json_is_null(v)) return 0;
    if (!json_is_object(v))
        return api_fail(e, 400, "logit_bias", "logit_bias: expected an object, found %s", json_type_word(v));
    if (json_object_size(v) > MOST_BIASES)
        return api_fail(e, 400, "logit_bias", "logit_bias: expected at most %d tokens", MOST_BIASES);
    json_object_foreach(v, key, value) {
        char *end;
        long id = strtol(key, &end, 10);
        double bias = json_number_value(value);
        if (!*key || *end || id < 0 || id >= vocab_size || !json_is_number(value) || !(fabs(bias) <= 100)) {
            return api_fail(e, 400, "logit_bias",
                            "logit_bias: expected ids below %d with numbers from -100 to 100, found \"%.20s\"",
                            vocab_size, key);
        }
        LogitBias b = {(int32_t)id, bias <= -100 ? -INFINITY : (float)bias};
        arrput(r->bias, b);
    }
    return 0;
}

// What the request does not say is as the model's files say, or as ./run has it.
static void fill_sampling(SamplerOptions *o, const SamplingDefaults *model) {
    if (o->temperature < 0) o->temperature = model->temperature >= 0 ? model->temperature : 0.8f;
    if (o->top_k < 0) o->top_k = model->top_k >= 0 ? model->top_k : 40;
    if (o->top_p < 0) o->top_p = model->top_p >= 0 ? model->top_p : 0.95f;
    if (o->min_p < 0) o->min_p = model->min_p >= 0 ? model->min_p : 0.05f;
    if (o->repeat_penalty < 0) {
        o->repeat_penalty = model->repeat_penalty >= 0 ? model->repeat_penalty : 1;
        o->penalty_last_n = model->penalty_last_n;
    }
    if (o->top_p == 0) o->top_p = FLT_MIN; // the most likely token alone; 0 is the library's "off"
}

static SamplerOptions nothing_said(void) {
    return (SamplerOptions){.temperature = -1, .top_k = -1, .top_p = -1, .min_p = -1, .repeat_penalty = -1};
}

SamplerOptions sampling_defaults(const Served *m) {
    SamplerOptions o = nothing_said();
    fill_sampling(&o, &m->sampling);
    return o;
}

static int read_logprobs(Request *r, const json_t *body, ApiError *e) {
    const Field flag = {"logprobs", FIELD_BOOL, &r->logprobs, 0, 0},
                top = {"top_logprobs", FIELD_INT, &r->top_logprobs, 0, MOST_TOP_LOGPROBS},
                count = {"logprobs", FIELD_INT, &r->top_logprobs, 0, MOST_TOP_LOGPROBS};
    if (!r->chat) {
        r->logprobs = json_is_integer(body_field(body, "logprobs"));
        return body_read(body, &count, e);
    }
    if (body_read(body, &flag, e) || body_read(body, &top, e)) return -1;
    if (body_field(body, "top_logprobs") && !r->logprobs)
        return api_fail(e, 400, "top_logprobs", "top_logprobs: expected together with logprobs: true");
    return 0;
}

static int read_common(Request *r, const Served *m, const json_t *body, ApiError *e) {
    SamplerOptions *o = &r->sampling;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *o = nothing_said();
    o->seed = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    r->n_choices = 1;
    r->max_tokens = r->chat ? -1 : 256;
    const Field fields[] = {
        {"temperature", FIELD_FLOAT, &o->temperature, 0, 100},
        {"top_p", FIELD_FLOAT, &o->top_p, 0, 1},
        {"top_k", FIELD_INT, &o->top_k, 0, 1 << 24},
        {"min_p", FIELD_FLOAT, &o->min_p, 0, 1},
        {"repeat_penalty", FIELD_FLOAT, &o->repeat_penalty, 0.01, 100},
        {"frequency_penalty", FIELD_FLOAT, &o->frequency_penalty, -2, 2},
        {"presence_penalty", FIELD_FLOAT, &o->presence_penalty, -2, 2},
        {"seed", FIELD_SEED, &o->seed, 0, 0},
        {"max_tokens", FIELD_INT, &r->max_tokens, 1, 1 << 28},
        {"max_completion_tokens", FIELD_INT, &r->max_tokens, 1, 1 << 28},
        {"n", FIELD_INT, &r->n_choices, 1, m->most_choices},
        {"stream", FIELD_BOOL, &r->stream, 0, 0},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (body_read(body, &fields[i], e)) return -1;
    const json_t *options = body_field(body, "stream_options");
    if (options && !json_is_object(options))
        return api_fail(e, 400, "stream_options", "stream_options: expected an object, found %s",
                        json_type_word(options));
    const Field usage = {"include_usage", FIELD_BOOL, &r->include_usage, 0, 0};
    if (options && body_read(options, &usage, e)) return -1;
    fill_sampling(o, &m->sampling);
    if (read_stops(r, body, e) || read_bias(r, body, engine_info(m->engine).vocab_size, e) || read_logprobs(r, body, e))
        return -1;
    o->bias = r->bias;
    o->n_bias = (int)arrlen(r->bias);
    return refuse_unbuilt(body, r->chat, e);
}

static int check_length(const Served *m, int n, const char *param, ApiError *e) {
    if (n < 1) return api_fail(e, 400, param, "the prompt has no tokens");
    if (n <= m->n_ctx) return 0;
    api_fail(e, 400, param, "the prompt has %d tokens, the context %d", n, m->n_ctx);
    e->code = "context_length_exceeded";
    return -1;
}

// ---- response_format

static const Chat *chat_of(const Request *r, const Served *m) {
    return !r->chat ? NULL : r->own_chat ? r->own_chat : m->chat;
}

// One automaton for each text, whose states are its own. schema NULL: any object. marks NULL: all of the text.
static int constrain(Request *r, const Served *m, const char *schema, const ConstraintMarks *marks, const char *param,
                     ApiError *e) {
    char err[256];
    const Chat *chat = chat_of(r, m);
    if (chat && chat_has_channels(chat))
        return api_fail(e, 400, param, "%s is not supported with this model's format of answers", param);
    for (int i = (int)arrlen(r->prompts) * r->n_choices; i > 0; i--) {
        Constraint *c = marks ? constraint_open_marked(m->engine, chat, schema, marks, err, sizeof err)
                              : constraint_open(m->engine, chat, schema, err, sizeof err);
        if (!c) return api_fail(e, 400, param, "%s: %s", param, err);
        arrput(r->constraints, c);
    }
    return 0;
}

// After the prompts are known.
static int read_format(Request *r, const Served *m, const json_t *body, ApiError *e) {
    static const char name[] = "response_format";
    const json_t *format = body_field(body, name),
                 *schema = json_object_get(json_object_get(format, "json_schema"), "schema");
    const char *type = json_string_value(json_object_get(format, "type"));
    if (!format || (type && !strcmp(type, "text"))) return 0;
    if (type && !strcmp(type, "json_object")) return constrain(r, m, NULL, NULL, name, e);
    if (!type || strcmp(type, "json_schema") != 0)
        return api_fail(e, 400, name, "response_format: expected a type of text, json_object or json_schema");
    if (!json_is_object(schema))
        return api_fail(e, 400, name, "response_format: json_schema.schema: expected an object");
    char *text = json_dumps(schema, JSON_COMPACT);
    int rc = text ? constrain(r, m, text, NULL, name, e) : api_fail(e, 500, NULL, "out of memory");
    free(text);
    return rc;
}

// ---- completions

static int add_ids(Request *r, const Served *m, const json_t *list, const char *param, ApiError *e) {
    size_t n = json_array_size(list);
    int vocab_size = engine_info(m->engine).vocab_size;
    if (check_length(m, n > INT32_MAX ? INT32_MAX : (int)n, param, e)) return -1;
    Prompt p = {.ids = malloc(n * sizeof *p.ids + 1), .n = (int)n};
    if (!p.ids) return api_fail(e, 500, NULL, "out of memory for the prompt");
    arrput(r->prompts, p);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id >= vocab_size)
            return api_fail(e, 400, param, "%s: token %zu: expected an id below %d", param, i, vocab_size);
        p.ids[i] = (int32_t)id;
    }
    return 0;
}

static int add_text(Request *r, const Served *m, const json_t *text, const char *param, ApiError *e) {
    char err[256];
    Prompt p;
    p.n = engine_encode(m->engine, json_string_value(text), json_string_length(text), true, false, &p.ids, err,
                        sizeof err);
    if (p.n < 0) return api_fail(e, 400, param, "%s: %s", param, err);
    arrput(r->prompts, p);
    return check_length(m, p.n, param, e);
}

static int read_prompts(Request *r, const Served *m, const json_t *v, const char *param, ApiError *e) {
    if (json_is_string(v)) return add_text(r, m, v, param, e);
    size_t n = json_array_size(v);
    if (!n) return api_fail(e, 400, param, "%s: expected a string, a list of strings, or token ids", param);
    if (json_is_integer(json_array_get(v, 0))) return add_ids(r, m, v, param, e);
    if (n > MOST_PROMPTS) return api_fail(e, 400, param, "%s: expected at most %d, found %zu", param, MOST_PROMPTS, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(v, i);
        bool text = json_is_string(one);
        if (!text && !json_array_size(one))
            return api_fail(e, 400, param, "%s: %zu: expected a string or token ids, found %s", param, i,
                            json_type_word(one));
        if (text ? add_text(r, m, one, param, e) : add_ids(r, m, one, param, e)) return -1;
    }
    return 0;
}

int request_completion(Request *r, const Served *m, const char *body, size_t n, ApiError *error) {
    *r = (Request){.chat = false};
    json_t *root = body_object(body, n, error);
    if (!root) return -1;
    int rc = read_common(r, m, root, error);
    if (!rc && !body_field(root, "prompt")) rc = api_fail(error, 400, "prompt", "prompt: missing");
    if (!rc) rc = read_prompts(r, m, body_field(root, "prompt"), "prompt", error);
    if (!rc && (int)arrlen(r->prompts) * r->n_choices > m->most_choices) {
        rc = api_fail(error, 400, "n", "expected at most %d texts at once, found %td prompts times n = %d",
                      m->most_choices, arrlen(r->prompts), r->n_choices);
    }
    if (!rc) rc = read_format(r, m, root, error);
    json_decref(root);
    return rc;
}

// ---- embeddings

// A word of a list, by its place; `*to` is left alone where the field is not there.
static int read_word(const json_t *body, const char *name, const char *first, const char *second, int *to,
                     ApiError *e) {
    const json_t *v = body_field(body, name);
    const char *word = json_string_value(v);
    if (!v) return 0;
    *to = word && !strcmp(word, second);
    if (*to || (word && !strcmp(word, first))) return 0;
    return api_fail(e, 400, name, "%s: expected %s or %s", name, first, second);
}

int request_embeddings(Request *r, const Served *m, const char *body, size_t n, ApiError *error) {
    int base64 = 0, last = 0, dim = engine_info(m->engine).dim, wanted = dim;
    const Field dimensions = {"dimensions", FIELD_INT, &wanted, 1, 1 << 24};
    *r = (Request){.n_choices = 1, .max_tokens = -1};
    json_t *root = body_object(body, n, error);
    if (!root) return -1;
    int rc = read_word(root, "encoding_format", "float", "base64", &base64, error);
    if (!rc) rc = read_word(root, "pooling", "mean", "last", &last, error);
    if (!rc) rc = body_read(root, &dimensions, error);
    if (!rc && wanted != dim)
        rc = api_fail(error, 400, "dimensions", "dimensions: this model has %d, and they are not shortened", dim);
    if (!rc && !body_field(root, "input")) rc = api_fail(error, 400, "input", "input: missing");
    if (!rc) rc = read_prompts(r, m, body_field(root, "input"), "input", error);
    if (!rc && (int)arrlen(r->prompts) > m->most_choices) {
        rc = api_fail(error, 400, "input", "input: expected at most %d texts at once, found %td", m->most_choices,
                      arrlen(r->prompts));
    }
    r->pool = last ? POOL_LAST : POOL_MEAN;
    r->base64 = base64;
    json_decref(root);
    return rc;
}

// ---- chat

static int set_variable(Request *r, const Served *m, const char *param, const char *name, const json_t *value,
                        ApiError *e) {
    char err[256];
    if (!r->own_chat) r->own_chat = served_chat(m, err, sizeof err);
    if (!r->own_chat) return api_fail(e, 500, NULL, "%s", err);
    char *json = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    int rc = json ? chat_set(r->own_chat, name, json, err, sizeof err) : -1;
    free(json);
    return rc ? api_fail(e, 400, param, "%s: %s", param, err) : 0;
}

// Variables of the template: the request's chat_template_kwargs, and reasoning_effort.
static int read_variables(Request *r, const Served *m, json_t *body, ApiError *e) {
    json_t *all = json_object_get(body, "chat_template_kwargs"), *value;
    const char *key;
    if (all && !json_is_null(all) && !json_is_object(all)) {
        return api_fail(e, 400, "chat_template_kwargs", "chat_template_kwargs: expected an object, found %s",
                        json_type_word(all));
    }
    json_object_foreach(all, key, value) {
        if (set_variable(r, m, "chat_template_kwargs", key, value, e)) return -1;
    }
    const json_t *effort = body_field(body, "reasoning_effort");
    if (!effort) return 0;
    if (!json_is_string(effort))
        return api_fail(e, 400, "reasoning_effort", "reasoning_effort: expected a string, found %s",
                        json_type_word(effort));
    return set_variable(r, m, "reasoning_effort", "reasoning_effort", effort, e);
}

// ---- tools

// The ids that a call begins with; they continue a text.
static int encode_lead(Request *r, const Served *m, ApiError *e) {
    char err[256];
    const char *lead = m->tools->lead;
    Prompt *p = &r->lead;
    p->n = tokenizer_encode(m->engine->tokenizer, lead, strlen(lead), TOKENIZE_SPECIAL | TOKENIZE_INSIDE, &p->ids, err,
                            sizeof err);
    return p->n < 0 ? api_fail(e, 500, NULL, "%s", err) : 0;
}

// Before the messages.
static int read_tools(Request *r, const Served *m, const json_t *body, ApiError *e) {
    if (toolset_read(&r->tools, m->tools, m->why_no_tools, body, e)) return -1;
    if (!r->tools.names || m->tools->own) return 0;
    return set_variable(r, m, "tools", "tools", r->tools.list, e);
}

static int read_messages(Request *r, const Served *m, const json_t *list, ApiError *e) {
    char err[512];
    Conversation c = {0};
    const ToolForm *form = m->tools && m->tools->own ? m->tools : NULL;
    char *told = form && r->tools.names ? toolset_told(&r->tools, form) : NULL;
    int rc = conversation_read(&c, list, form, told, e);
    if (!rc) {
        Prompt p;
        p.n = chat_encode(r->own_chat ? r->own_chat : m->chat, c.messages, (int)arrlen(c.messages), true, &p.ids, err,
                          sizeof err);
        rc = p.n < 0 ? api_fail(e, 400, "messages", "messages: %s", err) : check_length(m, p.n, "messages", e);
        if (p.n >= 0) arrput(r->prompts, p);
    }
    conversation_free(&c);
    free(told);
    return rc;
}

// What the answer must be: a call, or of a format.
static int read_form(Request *r, const Served *m, const json_t *body, ApiError *e) {
    const json_t *format = body_field(body, "response_format");
    const char *type = json_string_value(json_object_get(format, "type"));
    if (r->tools.forced) return encode_lead(r, m, e) ? -1 : constrain(r, m, r->tools.schema, NULL, "tools", e);
    if (r->tools.names && format && !(type && !strcmp(type, "text"))) {
        return api_fail(
            e, 400, "response_format",
            "response_format cannot be enforced while tools may be called; tool_choice \"none\" keeps them out");
    }
    if (!r->tools.schema || chat_has_channels(chat_of(r, m))) return read_format(r, m, body, e);
    ConstraintMarks marks = {m->tools->mark, m->tools->close, m->tools->list || r->tools.single,
                             (const char *const *)r->tools.begins};
    return constrain(r, m, r->tools.schema, &marks, "tools", e);
}

int request_chat(Request *r, const Served *m, const char *body, size_t n, ApiError *error) {
    *r = (Request){.chat = true};
    json_t *root = body_object(body, n, error);
    if (!root) return -1;
    int rc = read_common(r, m, root, error);
    if (!rc) rc = read_variables(r, m, root, error);
    if (!rc) rc = read_tools(r, m, root, error);
    if (!rc) rc = read_messages(r, m, body_field(root, "messages"), error);
    if (!rc) rc = read_form(r, m, root, error);
    json_decref(root);
    return rc;
}

void request_free(Request *r) {
    for (ptrdiff_t i = 0; i < arrlen(r->prompts); i++) free(r->prompts[i].ids);
    for (ptrdiff_t i = 0; i < arrlen(r->stops); i++) free(r->stops[i]);
    for (ptrdiff_t i = 0; i < arrlen(r->constraints); i++) constraint_close(r->constraints[i]);
    arrfree(r->constraints);
    arrfree(r->prompts);
    arrfree(r->stops);
    arrfree(r->bias);
    toolset_free(&r->tools);
    free(r->lead.ids);
    chat_close(r->own_chat);
    *r = (Request){0};
}
