// api_client.h: replies and streams of OpenAI's API, for tests of build/serve.
#pragma once
#include "http_client.h"

static const json_t *value_at(const json_t *v, const char *path) { // "choices.0.text"; NULL: nothing is there
    char copy[256];
    snprintf(copy, sizeof copy, "%s", path);
    for (char *word = strtok(copy, "."); word && v; word = strtok(NULL, "."))
        v = json_is_array(v) ? json_array_get(v, (size_t)atoi(word)) : json_object_get(v, word);
    return v;
}

UNUSED static const char *text_at(const json_t *v, const char *path) {
    v = value_at(v, path);
    return json_is_string(v) ? json_string_value(v) : "(none)";
}

// A gauge or counter of /metrics; -1: it is not there.
static double metric(const char *name) {
    char line[128];
    snprintf(line, sizeof line, "\ntessera:%s{", name);
    Response r = ask("GET", "/metrics", "");
    const char *at = strstr(r.body, line), *value = at ? strchr(at, '}') : NULL;
    double x = value ? atof(value + 1) : -1;
    response_free(&r);
    return x;
}

UNUSED static bool becomes(const char *name, double value) {
    for (int i = 0; i < 500; i++, sleep_ms(10))
        if (metric(name) == value) return true;
    return false;
}

// ---- streams

typedef struct {
    char *text, *finish; // malloc'd
    int n_chunks, n_done;
    json_t *usage, *first, *error; // of the stream; NULL: none
    json_t *calls;                 // of tools, put together; NULL: none
} Stream;

static char *joined(char *a, const char *b) {
    char *text = NULL;
    if (asprintf(&text, "%s%s", a, b) < 0) abort();
    free(a);
    return text;
}

static void take_call(Stream *s, const json_t *part) {
    size_t index = (size_t)json_integer_value(json_object_get(part, "index"));
    json_t *function = json_object_get(part, "function");
    if (!s->calls) s->calls = json_array();
    if (json_object_get(function, "name")) {
        CHECK(index == json_array_size(s->calls), "call %zu begins after %zu", index, json_array_size(s->calls));
        json_array_append_new(s->calls, json_deep_copy(part));
        return;
    }
    json_t *known = json_object_get(json_array_get(s->calls, index), "function");
    json_object_set_new(known, "arguments",
                        json_sprintf("%s%s", json_string_value(json_object_get(known, "arguments")),
                                     json_string_value(json_object_get(function, "arguments"))));
}

static void take_chunk(Stream *s, const json_t *v) {
    const json_t *choice = json_array_get(json_object_get(v, "choices"), 0), *delta = json_object_get(choice, "delta");
    const json_t *text = delta ? json_object_get(delta, "content") : json_object_get(choice, "text");
    const json_t *calls = json_object_get(delta, "tool_calls");
    for (size_t i = 0; i < json_array_size(calls); i++) take_call(s, json_array_get(calls, i));
    s->n_chunks++;
    if (!s->first) s->first = json_deep_copy(v);
    if (json_object_get(v, "usage")) s->usage = json_deep_copy(json_object_get(v, "usage"));
    if (json_object_get(v, "error")) s->error = json_deep_copy(v);
    if (json_is_string(text)) s->text = joined(s->text, json_string_value(text));
    const json_t *finish = json_object_get(choice, "finish_reason");
    if (json_is_string(finish)) s->finish = strdup(json_string_value(finish));
}

static Stream read_stream(char *body) {
    Stream s = {.text = strdup("")};
    for (char *save, *line = strtok_r(body, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (*line == ':') continue;
        if (!strcmp(line, "data: [DONE]")) {
            s.n_done++;
            continue;
        }
        json_t *v = strncmp(line, "data: ", 6) != 0 ? NULL : json_loads(line + 6, 0, NULL);
        CHECK(v, "a line of a stream: %s", line);
        take_chunk(&s, v);
        json_decref(v);
    }
    return s;
}

UNUSED static Stream ask_stream(const char *path, const char *body) {
    char *text = json_of(body);
    Response r = ask("POST", path, text);
    CHECK(r.status == 200 && strstr(r.headers, "text/event-stream"), "%s: status %d: %s", body, r.status, r.body);
    Stream s = read_stream(r.body);
    response_free(&r);
    free(text);
    return s;
}

UNUSED static void stream_free(Stream *s) {
    free(s->text);
    free(s->finish);
    json_decref(s->usage);
    json_decref(s->calls);
    json_decref(s->first);
    json_decref(s->error);
}
