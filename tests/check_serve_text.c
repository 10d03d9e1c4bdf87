// check_serve_text: what build/serve makes of a text: characters and stop strings over every border of tokens,
// thoughts, log probabilities, choices that fork, and embeddings.
#include "api_client.h"
#include "make_parrot.h"
#include "tessera.h"

// Characters of 1 to 4 bytes.
static const char TEXT[] = "a\xC3\xBC\xE2\x82\xAC\xF0\x9F\x98\x80z";
enum { N_TEXT = sizeof TEXT - 1, N_SPLITS = (N_TEXT - 1) * (N_TEXT - 2) / 2 };

// Learns TEXT in three pieces, cut at every two places, and once byte by byte; returns the prompts.
static int learn_splits(Parrot *p, int32_t *prompts) {
    int n = 0;
    for (size_t a = 1; a < N_TEXT; a++) {
        for (size_t b = a + 1; b < N_TEXT; b++) {
            char piece[3][16] = {"", "", ""};
            memcpy(piece[0], TEXT, a);
            memcpy(piece[1], TEXT + a, b - a);
            memcpy(piece[2], TEXT + b, N_TEXT - b);
            prompts[n++] = parrot_say(p, (const char *const[]){piece[0], piece[1], piece[2]}, 3);
        }
    }
    char bytes[N_TEXT][2] = {0};
    const char *pieces[N_TEXT];
    for (size_t i = 0; i < N_TEXT; i++) {
        bytes[i][0] = TEXT[i];
        pieces[i] = bytes[i];
    }
    prompts[n++] = parrot_say(p, pieces, N_TEXT);
    return n;
}

static void check_split(int32_t prompt, const char *stop, size_t n_want) {
    char body[256];
    for (int stream = 0; stream < 2; stream++) {
        snprintf(body, sizeof body, "{'prompt': [%d], 'temperature': 0, 'stream': %s%s%s%s}", prompt,
                 stream ? "true" : "false", stop ? ", 'stop': '" : "", stop ? stop : "", stop ? "'" : "");
        Stream s = {0};
        json_t *v = NULL;
        if (stream) s = ask_stream("/v1/completions", body); // every chunk is JSON, so of whole characters
        else v = ask_json(200, "/v1/completions", body);
        const char *found = stream ? s.text : text_at(v, "choices.0.text"),
                   *finish = stream ? s.finish : text_at(v, "choices.0.finish_reason");
        CHECK(strlen(found) == n_want && !memcmp(found, TEXT, n_want) && !strcmp(finish, "stop"),
              "prompt %d, stop '%s': expected %zu bytes, found '%s', finish %s", prompt, stop ? stop : "", n_want,
              found, finish);
        if (stream) stream_free(&s);
        json_decref(v);
    }
}

static void characters_over_borders(void) {
    static const struct {
        const char *stop;
        size_t n_want; // bytes before it
    } list[] = {{NULL, N_TEXT}, {"\xC3\xBC\xE2\x82\xAC", 1}, {"\xF0\x9F\x98\x80z", 6}, {"\xE2\x82\xAC", 3},
                {"a", 0},       {"\xE2\x82\xACx", N_TEXT},   {"zz", N_TEXT},           {"z", N_TEXT - 1}};
    Parrot p = parrot_start();
    int32_t prompts[N_SPLITS + 1];
    int n = learn_splits(&p, prompts);
    parrot_song(&p, "Q", "<think>", "h\xC3", "\xBC", "</think>", "yes", NULL);
    parrot_write(&p, "parrot.bin", "parrot.tokenizer.bin");
    NEED(SERVER_START(in_folder("parrot.bin"), "-t", "1"), "the server does not start");
    for (int i = 0; i < n; i += by_speed(1, 1, 5))
        for (int k = 0; k < N_OF(list); k++) check_split(prompts[i], list[k].stop, list[k].n_want);
    CHECK(server_stop(SIGTERM) == 0, "its exit status");
}

// A thought comes as reasoning_content, whole and in a stream.
static void thoughts_stand_apart(void) {
    write_text("t.jinja", "{% for m in messages %}{{ m.content }}{% endfor %}");
    NEED(SERVER_START(in_folder("parrot.bin"), "--chat-template-file", in_folder("t.jinja"), "-t", "1"),
         "the server does not start");
    const char *body = "{'messages': [{'role': 'user', 'content': 'Q'}], 'temperature': 0}";
    json_t *v = ask_json(200, "/v1/chat/completions", body);
    CHECK(!strcmp(text_at(v, "choices.0.message.reasoning_content"), "h\xC3\xBC") &&
              !strcmp(text_at(v, "choices.0.message.content"), "yes"),
          "thought '%s', content '%s'", text_at(v, "choices.0.message.reasoning_content"),
          text_at(v, "choices.0.message.content"));
    char *text = json_of("{'messages': [{'role': 'user', 'content': 'Q'}], 'temperature': 0, 'stream': true}");
    Response r = ask("POST", "/v1/chat/completions", text);
    CHECK(strstr(r.body, "\"reasoning_content\":\"h\"") && strstr(r.body, "\"reasoning_content\":\"\xC3\xBC\"") &&
              strstr(r.body, "\"content\":\"yes\""),
          "%s", r.body);
    response_free(&r);
    free(text);
    json_decref(v);
    CHECK(server_stop(SIGTERM) == 0, "its exit status");
}

// ---- with the shipped model

static void logprobs_of_completions(void) {
    json_t *v =
        ask_json(200, "/v1/completions", "{'prompt': 'One day', 'temperature': 0, 'max_tokens': 12, 'logprobs': 3}");
    const json_t *l = json_object_get(json_array_get(json_object_get(v, "choices"), 0), "logprobs"),
                 *tokens = json_object_get(l, "tokens"), *offsets = json_object_get(l, "text_offset"),
                 *values = json_object_get(l, "token_logprobs"), *tops = json_object_get(l, "top_logprobs");
    const char *text = text_at(v, "choices.0.text");
    CHECK(json_array_size(tokens) == 12 && json_array_size(offsets) == 12 && json_array_size(values) == 12 &&
              json_array_size(tops) == 12,
          "%zu tokens", json_array_size(tokens));
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        const char *token = json_string_value(json_array_get(tokens, i));
        size_t at = (size_t)json_integer_value(json_array_get(offsets, i));
        const json_t *top = json_array_get(tops, i);
        double p = json_number_value(json_array_get(values, i));
        CHECK(at <= strlen(text) && !strncmp(text + at, token, strlen(token)), "token %zu, '%s', is not at %zu", i,
              token, at);
        CHECK(p <= 0 && json_number_value(json_object_get(top, token)) == p, "token %zu: %g", i, p);
        CHECK(json_object_size(top) <= 3 && json_object_size(top) > 0, "%zu likely ones", json_object_size(top));
    }
    json_decref(v);
}

// Choices of a prompt read it once.
static void choices_fork(void) {
    double prompt = metric("prompt_tokens_total");
    json_t *v =
        ask_json(200, "/v1/completions",
                 "{'prompt': 'A prompt that nobody has seen before, at all', 'n': 4, 'seed': 3, 'max_tokens': 4}");
    const json_t *usage = json_object_get(v, "usage");
    CHECK(metric("prompt_tokens_total") - prompt == number(usage, "prompt_tokens"), "%g prompt tokens are computed",
          metric("prompt_tokens_total") - prompt);
    double n_new = number(usage, "completion_tokens"),
           n_cached = number(json_object_get(usage, "prompt_tokens_details"), "cached_tokens");
    CHECK(n_new == 16 && n_cached < 3, "%g new tokens, %g of the prompt cached", n_new, n_cached); // BOS may be
    json_decref(v);
}

// ---- embeddings

typedef struct {
    double *sum, *last; // [dim]
    int dim;
} States;

static void see(void *context, int position, const float *state) {
    (void)position;
    States *s = context;
    for (int i = 0; i < s->dim; i++) {
        s->last[i] = (double)state[i];
        s->sum[i] += (double)state[i];
    }
}

static double cosine(const double *v, const json_t *list, int dim) {
    double dot = 0, a = 0, b = 0;
    for (int i = 0; i < dim; i++) {
        double x = json_number_value(json_array_get(list, (size_t)i));
        dot += v[i] * x;
        a += v[i] * v[i];
        b += x * x;
    }
    CHECK(fabs(b - 1) < 1e-5, "length %g", sqrt(b));
    return dot / sqrt(a * b);
}

static int base64_value(char c) {
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = strchr(set, c);
    return at && c ? (int)(at - set) : 0;
}

static void check_base64(const char *text, const json_t *list, int dim) {
    size_t n = strlen(text) / 4 * 3;
    unsigned char *bytes = malloc(n + 4);
    CHECK(strlen(text) == ((size_t)dim * 4 + 2) / 3 * 4, "%zu characters for %d values", strlen(text), dim);
    for (size_t i = 0; i < n / 3; i++) {
        int v = 0;
        for (size_t k = 0; k < 4; k++) v = v << 6 | base64_value(text[i * 4 + k]);
        for (int k = 0; k < 3; k++) bytes[i * 3 + (size_t)k] = (unsigned char)(v >> (16 - 8 * k));
    }
    for (int i = 0; i < dim && n >= (size_t)dim * 4; i++) {
        float x;
        memcpy(&x, bytes + i * 4, 4);
        CHECK(x == (float)json_number_value(json_array_get(list, (size_t)i)), "value %d: %g", i, (double)x);
    }
    free(bytes);
}

static void embeddings(void) {
    char err[256];
    Engine *e = engine_open("models/stories.bin", NULL, err, sizeof err);
    Session *session = session_open(e, &(SessionOptions){.n_threads = 1}, err, sizeof err);
    States s = {.dim = engine_info(e).dim};
    s.sum = calloc((size_t)s.dim, sizeof *s.sum);
    s.last = calloc((size_t)s.dim, sizeof *s.last);
    int32_t *ids;
    int n = engine_encode(e, "The cat sat", 11, true, false, &ids, err, sizeof err);
    session_visit_states(session, see, &s);
    CHECK(!session_sync(session, ids, n, err, sizeof err), "%s", err);
    // Twice, so that the second one finds its text in the cache.
    for (int i = 0; i < 2; i++) {
        json_t *mean = ask_json(200, "/v1/embeddings", "{'input': ['One day', 'The cat sat'], 'model': 'x'}"),
               *last = ask_json(200, "/v1/embeddings", "{'input': 'The cat sat', 'pooling': 'last'}"),
               *packed = ask_json(200, "/v1/embeddings", "{'input': 'The cat sat', 'encoding_format': 'base64'}");
        const json_t *data = json_object_get(mean, "data"), *v = json_object_get(json_array_get(data, 1), "embedding"),
                     *w = json_object_get(json_array_get(json_object_get(last, "data"), 0), "embedding");
        CHECK(json_array_size(data) == 2 && (int)json_array_size(v) == s.dim, "%zu values", json_array_size(v));
        CHECK(cosine(s.sum, v, s.dim) > 0.9999, "mean: cosine %g", cosine(s.sum, v, s.dim));
        CHECK(cosine(s.last, w, s.dim) > 0.9999, "last: cosine %g", cosine(s.last, w, s.dim));
        CHECK(cosine(s.last, v, s.dim) < 0.999, "mean and last are alike");
        CHECK(number(json_object_get(last, "usage"), "total_tokens") == n, "usage");
        check_base64(text_at(packed, "data.0.embedding"), v, s.dim);
        json_decref(mean);
        json_decref(last);
        json_decref(packed);
    }
    static const char *const bad[][2] = {
        {"{}", "input"},
        {"{'input': []}", "input"},
        {"{'input': [[1, 99999]]}", "input"},
        {"{'input': 'a', 'encoding_format': 'hex'}", "encoding_format"},
        {"{'input': 'a', 'pooling': 'cls'}", "pooling"},
        {"{'input': 'a', 'dimensions': 3}", "dimensions"},
    };
    for (int i = 0; i < N_OF(bad); i++) {
        json_t *v = ask_json(400, "/v1/embeddings", bad[i][0]);
        CHECK(!strcmp(text_at(v, "error.param"), bad[i][1]), "%s: param %s", bad[i][0], text_at(v, "error.param"));
        json_decref(v);
    }
    free(ids);
    free(s.sum);
    free(s.last);
    session_close(session);
    engine_close(e);
}

int main(void) {
    folder_make();
    need_program("serve");
    RUN(characters_over_borders);
    RUN(thoughts_stand_apart);
    if (SERVER_START("models/stories.bin", "-t", "1")) {
        RUN(logprobs_of_completions);
        RUN(choices_fork);
        RUN(embeddings);
        test_bad = server_stop(SIGTERM);
    } else test_bad = 1;
    test_n_failed += test_bad != 0;
    folder_remove();
    return test_report();
}
