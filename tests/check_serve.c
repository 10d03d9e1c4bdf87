// check_serve: build/serve as clients meet it: replies, streams, stops, cancelling, limits, hostile bytes, its end.
#include "api_client.h"

static const char MODEL[] = "models/stories.bin", TOKENIZER[] = "models/stories.tokenizer.bin";

// ---- replies

static void plain_routes(void) {
    Response r = ask("GET", "/health", "");
    CHECK(r.status == 200 && strstr(r.body, "ok"), "/health: %d %s", r.status, r.body);
    response_free(&r);
    r = ask("GET", "/ready", "");
    CHECK(r.status == 200, "/ready: %d", r.status);
    response_free(&r);
    r = ask("GET", "/", "");
    CHECK(r.status == 200 && strstr(r.headers, "text/html") && strstr(r.body, "<title>"), "/: %d", r.status);
    response_free(&r);
    r = ask("GET", "/v1/models", "");
    CHECK(strstr(r.body, "\"id\":\"stories.bin\""), "/v1/models: %s", r.body);
    response_free(&r);
    r = ask("GET", "/props", "");
    CHECK(strstr(r.body, "\"n_ctx\":512"), "/props: %s", r.body);
    response_free(&r);
    r = ask("OPTIONS", "/v1/chat/completions", "");
    CHECK(r.status == 204 && strstr(r.headers, "Access-Control-Allow-Origin: *") && strstr(r.headers, "Authorization"),
          "OPTIONS: %s", r.headers);
    response_free(&r);
    r = ask("GET", "/v1/chat/completions", "");
    CHECK(r.status == 405 && strstr(r.body, "\"error\""), "GET of a POST: %d %s", r.status, r.body);
    response_free(&r);
    r = ask("GET", "/nothing", "");
    CHECK(r.status == 404 && strstr(r.body, "\"error\""), "no such path: %d %s", r.status, r.body);
    response_free(&r);
}

static void tokens_and_back(void) {
    json_t *v = ask_json(200, "/tokenize", "{'content': 'Once upon a time'}"), *tokens = json_object_get(v, "tokens");
    CHECK(json_array_size(tokens) >= 3, "%zu tokens", json_array_size(tokens));
    char *list = json_dumps(tokens, JSON_COMPACT), *body = NULL;
    if (asprintf(&body, "{\"tokens\": %s}", list) < 0) abort();
    json_t *back = ask_json(200, "/detokenize", body);
    CHECK(!strcmp(text_at(back, "content"), "Once upon a time"), "back: %s", text_at(back, "content"));
    json_decref(v);
    json_decref(back);
    free(list);
    free(body);
    json_decref(ask_json(400, "/detokenize", "{'tokens': [1, 99999999]}"));
    json_decref(ask_json(400, "/tokenize", "{'content': 3}"));
}

// The text for a seed is that of ./run, also as a stream.
static void text_is_that_of_run(void) {
    Result run = CALL("run", MODEL, "-p", "One day", "-s", "7", "-n", "40", "-q", "--no-display-prompt");
    run.out[strlen(run.out) - 1] = 0; // its newline
    json_t *v = ask_json(200, "/v1/completions", "{'prompt': 'One day', 'seed': 7, 'max_tokens': 40}");
    CHECK(!strcmp(text_at(v, "choices.0.text"), run.out), "found '%s', ./run '%s'", text_at(v, "choices.0.text"),
          run.out);
    CHECK(!strcmp(text_at(v, "choices.0.finish_reason"), "length"), "finish: %s",
          text_at(v, "choices.0.finish_reason"));
    const json_t *usage = json_object_get(v, "usage");
    CHECK(number(usage, "completion_tokens") == 40 && number(usage, "prompt_tokens") >= 3 &&
              number(usage, "total_tokens") == number(usage, "prompt_tokens") + 40,
          "usage");
    Stream s = ask_stream("/v1/completions", "{'prompt': 'One day', 'seed': 7, 'max_tokens': 40, 'stream': true}");
    CHECK(!strcmp(s.text, run.out) && s.n_done == 1 && !s.usage, "the stream: '%s', %d [DONE]", s.text, s.n_done);
    CHECK(s.finish && !strcmp(s.finish, "length"), "finish of the stream");
    stream_free(&s);
    json_decref(v);
    release(&run);
}

static void chat_streams(void) {
    const char *whole =
        "{'messages': [{'role': 'system', 'content': 'Be kind.'}, {'role': 'user', 'content': [{'type': "
        "'text', 'text': 'Hello'}]}], 'seed': 5, 'max_completion_tokens': 30}";
    json_t *v = ask_json(200, "/v1/chat/completions", whole);
    char *body =
        joined(strndup(whole, strlen(whole) - 1), ", 'stream': true, 'stream_options': {'include_usage': true}}");
    Stream s = ask_stream("/v1/chat/completions", body);
    CHECK(!strcmp(text_at(v, "choices.0.message.role"), "assistant"), "role");
    CHECK(!strcmp(text_at(v, "choices.0.message.content"), s.text) && *s.text, "whole '%s', stream '%s'",
          text_at(v, "choices.0.message.content"), s.text);
    CHECK(!strcmp(text_at(s.first, "choices.0.delta.role"), "assistant") &&
              !strcmp(text_at(s.first, "choices.0.delta.content"), ""),
          "the first chunk");
    const json_t *usage = json_object_get(v, "usage"), *found = json_object_get(s.usage, "prompt_tokens_details");
    CHECK(s.n_done == 1 && number(usage, "total_tokens") == number(s.usage, "total_tokens"), "usage of the stream");
    CHECK(number(found, "cached_tokens") >= number(s.usage, "prompt_tokens") - 1, "the prompt is read again");
    stream_free(&s);
    json_decref(v);
    free(body);
}

// Several choices have seeds that follow one another; several prompts come in order.
static void choices_and_prompts(void) {
    json_t *v =
        ask_json(200, "/v1/completions", "{'prompt': ['One day', 'The cat'], 'n': 2, 'seed': 7, 'max_tokens': 12}");
    CHECK(json_array_size(json_object_get(v, "choices")) == 4, "four choices");
    for (int i = 0; i < 4; i++) {
        char body[160], path[40];
        snprintf(body, sizeof body, "{'prompt': '%s', 'seed': %d, 'max_tokens': 12}", i < 2 ? "One day" : "The cat",
                 7 + i % 2);
        snprintf(path, sizeof path, "choices.%d.text", i);
        json_t *one = ask_json(200, "/v1/completions", body);
        CHECK(!strcmp(text_at(v, path), text_at(one, "choices.0.text")), "choice %d: '%s', alone '%s'", i,
              text_at(v, path), text_at(one, "choices.0.text"));
        json_decref(one);
    }
    CHECK(number(json_object_get(v, "usage"), "completion_tokens") == 48, "48 tokens");
    json_decref(v);
}

static void logprobs_are_those_of_the_text(void) {
    json_t *v = ask_json(200, "/v1/chat/completions",
                         "{'messages': [{'role': 'user', 'content': 'Hi'}], 'temperature': 0, 'max_tokens': 15, "
                         "'logprobs': true, 'top_logprobs': 4}");
    const json_t *choice = json_array_get(json_object_get(v, "choices"), 0),
                 *list = json_object_get(json_object_get(choice, "logprobs"), "content");
    char *text = strdup("");
    CHECK(json_array_size(list) == 15, "%zu entries", json_array_size(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i), *top = json_object_get(e, "top_logprobs");
        double sum = 0, before = 0;
        text = joined(text, text_at(e, "token"));
        CHECK(json_array_size(top) == 4, "%zu likely ones", json_array_size(top));
        for (size_t k = 0; k < json_array_size(top); k++) {
            double p = number(json_array_get(top, k), "logprob");
            CHECK(p <= before, "not the best first");
            sum += exp(before = p);
        }
        CHECK(sum <= 1.0001, "probabilities sum to %g", sum);
        CHECK(number(e, "logprob") == number(json_array_get(top, 0), "logprob"), "greedy, but not the likeliest");
    }
    const char *answer = text_at(v, "choices.0.message.content");
    CHECK(strstr(text, answer), "the tokens '%s' are not the text '%s'", text, answer);
    json_decref(v);
    free(text);
}

// Stop strings at every place of a text, of 1 to 9 bytes, whole and as a stream: the text ends before the first.
static void stop_strings(void) {
    json_t *v = ask_json(200, "/v1/completions", "{'prompt': 'Once upon a time', 'temperature': 0, 'max_tokens': 40}");
    char *whole = strdup(text_at(v, "choices.0.text"));
    json_decref(v);
    for (size_t at = 0; at + 12 < strlen(whole); at += (size_t)by_speed(3, 3, 7)) {
        char stop[16] = "", body[256];
        strncat(stop, whole + at, 1 + at % 9);
        bool stream = at % 2;
        snprintf(
            body, sizeof body,
            "{'prompt': 'Once upon a time', 'temperature': 0, 'max_tokens': 40, 'stop': ['@@', '%s'], 'stream': %s}",
            stop, stream ? "true" : "false");
        if (strpbrk(stop, "'\"\n\\")) continue;
        int expected = (int)(strstr(whole, stop) - whole);
        Stream s = {0};
        if (stream) s = ask_stream("/v1/completions", body);
        else v = ask_json(200, "/v1/completions", body);
        const char *text = stream ? s.text : text_at(v, "choices.0.text"),
                   *finish = stream ? s.finish : text_at(v, "choices.0.finish_reason");
        CHECK((int)strlen(text) == expected && !strncmp(text, whole, (size_t)expected), "stop '%s': '%s'", stop, text);
        CHECK(!strcmp(finish, "stop"), "stop '%s': finish %s", stop, finish);
        if (stream) stream_free(&s);
        else json_decref(v);
    }
    free(whole);
}

// The shipped model knows no JSON; what it is made to say is of the form all the same.
static void answers_of_a_form(void) {
    static const char form[] =
        "{'type': 'json_schema', 'json_schema': {'name': 'x', 'strict': true, 'schema': {'type': 'object', "
        "'properties': {'title': {'type': 'string', 'maxLength': 12}, 'n': {'type': 'integer', 'minimum': "
        "1, 'maximum': 9}}, 'required': ['title', 'n'], 'additionalProperties': false}}}";
    char body[1024];
    for (int seed = 0; seed < by_speed(6, 6, 2); seed++) {
        snprintf(body, sizeof body,
                 "{'messages': [{'role': 'user', 'content': 'Hi'}], 'seed': %d, 'n': 2, 'response_format': %s}", seed,
                 form);
        json_t *v = ask_json(200, "/v1/chat/completions", body);
        for (int i = 0; i < 2; i++) {
            char path[64];
            snprintf(path, sizeof path, "choices.%d.message.content", i);
            json_t *answer = json_loads(text_at(v, path), 0, NULL);
            json_int_t n = json_integer_value(json_object_get(answer, "n"));
            CHECK(json_object_size(answer) == 2 && json_is_string(json_object_get(answer, "title")) && n >= 1 && n <= 9,
                  "%s", text_at(v, path));
            json_decref(answer);
        }
        json_decref(v);
    }
    json_t *v =
        ask_json(200, "/v1/completions",
                 "{'prompt': 'a', 'temperature': 0, 'response_format': {'type': 'json_object'}, 'max_tokens': 400}");
    CHECK(text_at(v, "choices.0.text")[strspn(text_at(v, "choices.0.text"), " ")] == '{', "%s",
          text_at(v, "choices.0.text"));
    json_decref(v);
}

// ---- what is refused

static void bad_requests(void) {
    static const struct {
        const char *path, *body, *param;
    } list[] = {
        {"/v1/completions", "{'prompt': 'a', 'temperature': 'hot'}", "temperature"},
        {"/v1/completions", "{'prompt': 'a', 'top_p': 1.5}", "top_p"},
        {"/v1/completions", "{'prompt': 'a', 'max_tokens': 0}", "max_tokens"},
        {"/v1/completions", "{'prompt': 'a', 'n': 9999}", "n"},
        {"/v1/completions", "{'prompt': 'a', 'stop': ''}", "stop"},
        {"/v1/completions", "{'prompt': 'a', 'stop': [1]}", "stop"},
        {"/v1/completions", "{'prompt': 'a', 'echo': true}", "echo"},
        {"/v1/completions", "{'prompt': 'a', 'suffix': 'b'}", "suffix"},
        {"/v1/completions", "{'prompt': 'a', 'best_of': 4}", "best_of"},
        {"/v1/completions", "{'prompt': 'a', 'logit_bias': {'x': 1}}", "logit_bias"},
        {"/v1/completions", "{'prompt': 'a', 'logit_bias': {'1': 1000}}", "logit_bias"},
        {"/v1/completions", "{'prompt': [[1, 99999]]}", "prompt"},
        {"/v1/completions", "{'prompt': []}", "prompt"},
        {"/v1/completions", "{}", "prompt"},
        {"/v1/completions", "{'prompt': 'a', 'response_format': {'type': 'xml'}}", "response_format"},
        {"/v1/completions", "{'prompt': 'a', 'response_format': {'type': 'json_schema', 'json_schema': {}}}",
         "response_format"},
        {"/v1/completions",
         "{'prompt': 'a', 'response_format': {'type': 'json_schema', 'json_schema': {'schema': {'not': {}}}}}",
         "response_format"},
        {"/v1/chat/completions", "{}", "messages"},
        {"/v1/chat/completions", "{'messages': []}", "messages"},
        {"/v1/chat/completions", "{'messages': [{'role': 'king', 'content': 'a'}]}", "messages"},
        {"/v1/chat/completions", "{'messages': [{'role': 'user'}]}", "messages"},
        {"/v1/chat/completions", "{'messages': [{'role': 'user', 'content': [{'type': 'image_url'}]}]}", "messages"},
        {"/v1/chat/completions", "{'messages': [{'role': 'user', 'content': 'a'}], 'top_logprobs': 3}", "top_logprobs"},
        {"/v1/chat/completions", "{'messages': [{'role': 'user', 'content': 'a'}], 'audio': {}}", "audio"},
        {"/v1/chat/completions", "{'messages': [{'role': 'user', 'content': 'a'}], 'tools': [{'type': 'function'}]}",
         "tools"},
        {"/v1/chat/completions", "{'messages': [{'role': 'user', 'content': 'a'}], 'tool_choice': 'required'}",
         "tool_choice"},
        {"/v1/chat/completions", "{'messages': [{'role': 'user', 'content': 'a'}], 'functions': []}", "functions"},
    };
    for (size_t i = 0; i < N_OF(list); i++) {
        json_t *v = ask_json(400, list[i].path, list[i].body);
        CHECK(!strcmp(text_at(v, "error.param"), list[i].param), "%s: param %s", list[i].body,
              text_at(v, "error.param"));
        CHECK(!strcmp(text_at(v, "error.type"), "invalid_request_error"), "%s: type", list[i].body);
        json_decref(v);
    }
    json_decref(ask_json(400, "/v1/completions", "not JSON"));
    json_decref(ask_json(400, "/v1/completions", "[]"));
    char *words = calloc(1, 4000), body[4200];
    for (int i = 0; i < 700; i++) strcat(words, "word ");
    snprintf(body, sizeof body, "{'prompt': '%s'}", words);
    json_t *v = ask_json(400, "/v1/completions", body);
    CHECK(!strcmp(text_at(v, "error.code"), "context_length_exceeded") && strstr(text_at(v, "error.message"), "512"),
          "a prompt beyond the context: %s", text_at(v, "error.message"));
    json_decref(v);
    free(words);
}

// ---- clients that go away

static int begin_long(bool stream) {
    char *body = NULL;
    if (asprintf(&body,
                 "{\"prompt\": \"Once\", \"max_tokens\": %d, \"ignored\": 1, \"logit_bias\": {\"2\": -100, \"1\": "
                 "-100}, \"stream\": %s, \"n\": 16}",
                 by_speed(500, 500, 150), stream ? "true" : "null") < 0)
        abort();
    char *text = request_text("POST", "/v1/completions", "", body);
    int fd = dial();
    say(fd, text, strlen(text));
    free(text);
    free(body);
    return fd;
}

static void clients_go_away(void) {
    for (int round = 0; round < 6; round++) {
        double before = metric("requests_cancelled_total");
        int fd[4];
        for (int i = 0; i < 4; i++) fd[i] = begin_long(i % 2); // 64 texts, of which 16 run
        if (round % 2) sleep_ms(30);
        for (int i = 0; i < 4; i++) close(fd[i]);
        CHECK(becomes("num_requests_running", 0) && becomes("num_requests_waiting", 0), "round %d: texts go on", round);
        double gone = metric("requests_cancelled_total") - before;
        CHECK(gone == 4, "round %d: %g of 4 cancelled", round, gone);
    }
    CHECK(metric("kv_cache_bytes") < 1 << 18, "%g bytes are held", metric("kv_cache_bytes")); // 16 texts: 20 times that
}

// One that sends its request and closes its side of the connection, and one that reads nothing for a while.
static void half_closed_and_slow(void) {
    int slow = begin_long(true), half = begin_long(true);
    shutdown(half, SHUT_WR);
    sleep_ms(300);
    Response r = ask("GET", "/health", "");
    CHECK(r.status == 200, "/health: %d", r.status);
    response_free(&r);
    size_t n;
    char *all = hear(slow, 20000, &n);
    CHECK(strstr(all, "[DONE]"), "a slow reader gets %zu bytes, without an end", n);
    free(all);
    close(slow);
    close(half);
}

// ---- hostile bytes

static int status_of(const char *bytes, size_t n) {
    Response r = raw(bytes, n);
    int status = r.status;
    response_free(&r);
    return status;
}

static char *filled(const char *before, char c, size_t n, const char *after) {
    size_t a = strlen(before), b = strlen(after);
    char *text = malloc(a + n + b + 1);
    memcpy(text, before, a);
    memset(text + a, c, n);
    memcpy(text + a + n, after, b + 1);
    return text;
}

// The weights themselves: check_attention_map.
static void attention_of_a_text(void) {
    json_t *map = ask_json(200, "/attention", "{'prompt': 'Once upon a time', 'layers': [2]}"), *layer;
    layer = json_array_get(json_object_get(map, "layers"), 0);
    CHECK(json_integer_value(json_object_get(layer, "layer")) == 2, "another layer");
    CHECK(json_array_size(json_object_get(layer, "weights")) == 6, "its heads");
    json_decref(map);
    json_t *error = ask_json(400, "/attention", "{'prompt': 'Once', 'layers': [7]}");
    CHECK(!strcmp(text_at(error, "error.param"), "layers"), "param %s", text_at(error, "error.param"));
    json_decref(error);
    json_decref(ask_json(400, "/attention", "{'prompt': ''"));
    double before = metric("requests_cancelled_total");
    char *body = filled("{\"prompt\": \"", '?', 240, "\"}");
    for (int i = 0; i < 8; i++) { // clients that do not wait
        int fd = dial();
        char *text = request_text("POST", "/attention", "", body);
        say(fd, text, strlen(text));
        close(fd);
        free(text);
    }
    free(body);
    json_decref(ask_json(200, "/attention", "{'prompt': 'Once'}"));
    CHECK(metric("requests_cancelled_total") > before, "none is cancelled");
}

static void hostile_http(void) {
#define HEAD "POST /tokenize HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    static const char *const list[] = {
        HEAD "Content-Length: 2\r\nContent-Length: 30\r\n\r\n{}",
        HEAD "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        HEAD "Content-Length: -1\r\n\r\n{}",
        HEAD "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        HEAD "Content-Length: 2x\r\n\r\n{}",
        HEAD "no colon\r\n\r\n",
        HEAD "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        HEAD "Content-Length: 2\r\nContent-Length : 3\r\n\r\n{}",
        HEAD "Content-Length: 18446744073709551618\r\n\r\n{}",
        HEAD "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        HEAD "Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST /tokenize HTTP/9.9\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        "DELETE /tokenize HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /%00\xff/../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET http://[::1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GARBAGE\r\n\r\n",
        "\x16\x03\x01\x02\x02\x01\x01\x01\xfc\x03\x03\r\n\r\n", // TLS
    };
    for (size_t i = 0; i < N_OF(list); i++) {
        int status = status_of(list[i], strlen(list[i]));
        CHECK(status >= 400 || status == 0, "case %zu: status %d", i, status);
    }
    char *text = filled(HEAD "X: ", 'a', 1 << 20, "\r\nContent-Length: 2\r\n\r\n{}");
    int status = status_of(text, strlen(text));
    CHECK(status >= 400 || status == 0, "a header of 1 MiB: status %d", status);
    free(text);
    const char huge[] = HEAD "Content-Length: 99999999999\r\n\r\n";
    status = status_of(huge, strlen(huge));
    CHECK(status == 413 || status == 400 || status == 0, "a body of 99 GB: status %d", status);
    text = filled("GET /", 'a', 1 << 17, " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    status = status_of(text, strlen(text));
    CHECK(status >= 400 || status == 0, "a path of 128 KiB: status %d", status);
    free(text);
    text = filled("{\"content\": ", '[', 100000, "");
    Response r = ask("POST", "/tokenize", text);
    CHECK(r.status == 400, "100,000 brackets: status %d", r.status);
    response_free(&r);
    free(text);
    r = ask("POST", "/v1/completions", "{\"prompt\": \"a\xff\xfe\"}");
    CHECK(r.status == 400, "invalid UTF-8: status %d", r.status);
    response_free(&r);
}

static char *nested(const char *before, const char *open, int n, const char *inner, const char *close,
                    const char *after) {
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    fputs(before, f);
    for (int i = 0; i < n; i++) fputs(open, f);
    fputs(inner, f);
    for (int i = 0; i < n; i++) fputs(close, f);
    fputs(after, f);
    fclose(f);
    return text;
}

// JSON within JSON, as deep as the reader of JSON takes it and deeper, wherever it goes: each is a reply, and the
// server goes on.
static void deep_json(void) {
#define HI "{\"messages\": [{\"role\": \"user\", \"content\": \"a\""
    static const char *const list[][5] = {
        {HI "}], \"max_tokens\": 1, \"chat_template_kwargs\": {\"x\": ", "[", "1", "]", "}}"},
        {HI
         "}], \"max_tokens\": 1, \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": ",
         "{\"items\":", "{}", "}", "}}]}"},
        {HI "}], \"max_tokens\": 1, \"tool_choice\": \"required\", \"tools\": [{\"type\": \"function\", \"function\": "
            "{\"name\": \"f\", \"parameters\": ",
         "{\"items\":", "{}", "}", "}}]}"},
        {HI "}], \"max_tokens\": 1, \"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"schema\": ",
         "{\"anyOf\":[", "{}", "]}", "}}}"},
        {HI ", \"tool_calls\": ", "[", "", "]", "}], \"max_tokens\": 1}"},
        {HI "}], \"max_tokens\": 1, \"logit_bias\": ", "{\"1\":", "1", "}", "}"},
        {"{\"input\": ", "[", "1", "]", "}"},
    };
    for (int i = 0; i < N_OF(list); i++) {
        for (int depth = 10; depth <= 100000; depth *= 10) {
            char *text =
                nested(list[i][0], list[i][1], depth == 1000 ? 680 : depth, list[i][2], list[i][3], list[i][4]);
            Response r = ask("POST", i == N_OF(list) - 1 ? "/v1/embeddings" : "/v1/chat/completions", text);
            bool sound = r.status == 200 || (r.status == 400 && strstr(r.body, "\"error\""));
            CHECK(sound, "case %d, %d deep: status %d: %.200s", i, depth, r.status, r.body);
            CHECK(depth < 10000 || r.status == 400, "case %d, %d deep: status %d", i, depth, r.status);
            response_free(&r);
            free(text);
        }
    }
}

// A request that comes in two halves, one whose second half never comes, and several at once on one connection.
static void broken_off_and_together(void) {
    const char *body = "{\"prompt\": \"a\", \"max_tokens\": 2}";
    char *text = request_text("POST", "/v1/completions", "", body);
    size_t n, half = strlen(text) - 10;
    int fd = dial();
    say(fd, text, half);
    sleep_ms(50);
    say(fd, text + half, strlen(text) - half);
    char *all = hear(fd, 20000, &n);
    CHECK(strstr(all, " 200 "), "in two halves: %s", all);
    free(all);
    close(fd);
    for (int i = 0; i < 20; i++) {
        fd = dial();
        say(fd, text, half - (size_t)i * 3);
        shutdown(fd, SHUT_WR);
        all = hear(fd, 20000, &n);
        CHECK(!strstr(all, " 200 "), "broken off: %s", all);
        free(all);
        close(fd);
    }
    free(text);
    if (asprintf(&text,
                 "GET /health HTTP/1.1\r\nHost: x\r\n\r\nPOST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: "
                 "%zu\r\n\r\n%sGET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                 strlen(body), body) < 0)
        abort();
    fd = dial();
    say(fd, text, strlen(text));
    all = hear(fd, 20000, &n);
    int replies = 0;
    for (const char *at = all; (at = strstr(at, "HTTP/1.1 200")); at++) replies++;
    CHECK(replies == 3 && strstr(all, "text_completion"), "%d replies of 3: %s", replies, all);
    free(all);
    free(text);
    close(fd);
}

// What a message quotes of a request is cut within a character, or is no character at all.
static void quotes_in_messages(void) {
    for (int i = 0; i < 4; i++) {
        char body[256], type[64] = "abc";
        type[i] = 0;
        for (int k = 0; k < 14; k++) strcat(type, "\xF0\x9F\x98\x80");
        snprintf(body, sizeof body, "{'messages': [{'role': 'user', 'content': [{'type': '%s'}]}]}", type);
        json_decref(ask_json(400, "/v1/chat/completions", body));
        snprintf(body, sizeof body, "{'prompt': 'a', 'logit_bias': {'%s': 1}}", type);
        json_decref(ask_json(400, "/v1/completions", body));
    }
    Response r = ask("GET", "/\xFF\xC3", "");
    CHECK(r.status == 404 && strstr(r.body, "\xEF\xBF\xBD"), "status %d: %s", r.status, r.body);
    response_free(&r);
}

// Many connections that send a header a byte at a time, and random bytes: others are served meanwhile.
static void slow_senders_and_garbage(void) {
    enum { N = 100 };
    int fd[N];
    const char head[] = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Le";
    for (int i = 0; i < N; i++) fd[i] = dial();
    for (size_t k = 0; k < sizeof head - 1; k++)
        for (int i = 0; i < N; i++) say(fd[i], head + k, 1);
    for (int round = 0; round < 200; round++) {
        char bytes[300];
        for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)test_u32();
        if (round % 2) memcpy(bytes, HEAD, sizeof HEAD - 1);
        int other = dial();
        say(other, bytes, test_u32() % sizeof bytes);
        close(other);
    }
    json_decref(ask_json(200, "/v1/completions", "{'prompt': 'a', 'max_tokens': 2}"));
    for (int i = 0; i < N; i++) close(fd[i]);
}

// A request that does not come whole is given up, half a minute after it has begun: before the other tests.
static int unfinished;

static void unfinished_is_given_up(void) {
    struct pollfd p = {.fd = unfinished, .events = POLLIN};
    CHECK(poll(&p, 1, 60000) == 1, "a request that does not come whole is waited for");
    close(unfinished);
}

// ---- limits and the end

static void a_full_queue(void) {
    NEED(SERVER_START(MODEL, "--parallel", "1", "--queue", "1", "-t", "1"), "the server does not start");
    json_decref(ask_json(400, "/v1/completions", "{'prompt': 'a', 'n': 3}"));
    const char *body =
        "{\"prompt\": \"a\", \"max_tokens\": 500, \"logit_bias\": {\"2\": -100, \"1\": -100}, \"stream\": true}";
    char *text = request_text("POST", "/v1/completions", "", body);
    int fd[8], refused = 0, complete = 0;
    for (int i = 0; i < 8; i++) {
        fd[i] = dial();
        say(fd[i], text, strlen(text));
    }
    for (int i = 0; i < 8; i++) {
        size_t n;
        char *all = hear(fd[i], 20000, &n);
        bool full = strstr(all, " 503 ") && strstr(all, "\r\nRetry-After: ");
        refused += full;
        complete += strstr(all, "[DONE]") != NULL;
        free(all);
        close(fd[i]);
    }
    CHECK(refused + complete == 8 && refused >= 1 && complete >= 2, "%d refused, %d complete of 8", refused, complete);
    free(text);
    CHECK(server_stop(SIGTERM) == 0, "its exit status");
}

static void keys_are_asked_for(void) {
    NEED(SERVER_START(MODEL, "--api-key", "secret", "-t", "1"), "the server does not start");
    static const struct {
        const char *path, *headers;
        int status;
    } list[] = {{"/v1/models", "", 401},
                {"/v1/models", "Authorization: Bearer secres\r\n", 401},
                {"/v1/models", "Authorization: Bearer secretsecret\r\n", 401},
                {"/v1/models", "Authorization: Bearer \r\n", 401},
                {"/v1/models", "Authorization: Bearer secret\r\n", 200},
                {"/health", "", 200},
                {"/", "", 200}};
    for (size_t i = 0; i < N_OF(list); i++) {
        char *text = request_text("GET", list[i].path, list[i].headers, "");
        int status = status_of(text, strlen(text));
        CHECK(status == list[i].status, "case %zu: expected %d, found %d", i, list[i].status, status);
        free(text);
    }
    CHECK(server_stop(SIGTERM) == 0, "its exit status");
}

// SIGTERM: what has begun is completed, new texts are refused, and then it ends.
static void it_drains(void) {
    NEED(SERVER_START(MODEL, "-t", "1"), "the server does not start");
    int fd = begin_long(true);
    size_t n;
    for (int i = 0; i < 500 && metric("num_requests_running") < 1; i++) sleep_ms(5);
    int late = dial();
    kill(server_pid, SIGTERM);
    char *text = request_text("POST", "/v1/completions", "", "{\"prompt\": \"a\"}");
    sleep_ms(20);
    say(late, text, strlen(text));
    char *refused = hear(late, 20000, &n), *all = hear(fd, 20000, &n);
    CHECK(!*refused || strstr(refused, " 503 "), "a late request: %s", refused);
    CHECK(strstr(all, "[DONE]"), "the text that had begun is not completed");
    Result r = finish(server_pid);
    CHECK(r.status == 0, "exit status %d: %s", r.status, r.err);
    release(&r);
    free(refused);
    free(all);
    free(text);
    close(fd);
    close(late);
}

static void it_ends_at_once(void) {
    NEED(SERVER_START(MODEL, "-t", "1"), "the server does not start");
    int fd[5];
    for (int i = 0; i < 5; i++) fd[i] = begin_long(i % 2);
    sleep_ms(50);
    kill(server_pid, SIGINT);
    sleep_ms(20);
    CHECK(server_stop(SIGINT) == 0, "its exit status");
    for (int i = 0; i < 5; i++) close(fd[i]);
}

// The pass before it listens: a model that cannot compute is refused at once, and without that pass by each reply.
static void it_warms_up(void) {
    size_t n;
    char *bytes = read_file(MODEL, &n);
    const float nan = NAN;
    memcpy(bytes + 256, &nan, sizeof nan); // the first norm, behind the header
    const char *path = write_file("damaged.bin", bytes, n);
    free(bytes);
    REFUSES(1, "the warm-up: the logits after token 64 are not finite", "serve", path, "-z", TOKENIZER, "-t", "1",
            "--port", "0");
    NEED(SERVER_START(path, "-z", TOKENIZER, "-t", "1", "--no-warmup"), "the server does not start");
    json_t *v = ask_json(500, "/v1/completions", "{'prompt': 'Once'}");
    CHECK(strstr(text_at(v, "error.message"), "not finite"), "%s", text_at(v, "error.message"));
    json_decref(v);
    CHECK(server_stop(SIGTERM) == 0, "its exit status");
    NEED(SERVER_START(MODEL, "-t", "1", "-c", "1"), "with room for one token, it does not start");
    CHECK(server_stop(SIGTERM) == 0, "its exit status");
}

// --precision is obeyed: the text is that of ./run with it, and what is likely differs a little from `exact`.
static void precision_is_obeyed(void) {
    static const char *body = "{'prompt': 'One day', 'seed': 7, 'max_tokens': 40, 'logprobs': 1}";
    const char *path = in_folder("rounded.gguf");
    release(&(Result[]){CALL("quantize", MODEL, path, "Q4_0", "-z", TOKENIZER)}[0]);
    double first[2] = {0};
    for (int fast = 0; fast < 2; fast++) {
        const char *how = fast ? "fast" : "exact";
        Result run =
            CALL("run", path, "--precision", how, "-p", "One day", "-s", "7", "-n", "40", "-q", "--no-display-prompt");
        run.out[strlen(run.out) - 1] = 0; // its newline
        NEED(SERVER_START(path, "--precision", how), "the server does not start");
        json_t *v = ask_json(200, "/v1/completions", body);
        CHECK(!strcmp(text_at(v, "choices.0.text"), run.out), "%s: found '%s', ./run '%s'", how,
              text_at(v, "choices.0.text"), run.out);
        first[fast] = json_number_value(value_at(v, "choices.0.logprobs.token_logprobs.0"));
        CHECK(server_stop(SIGTERM) == 0, "its exit status");
        json_decref(v);
        release(&run);
    }
    CHECK(first[0] != first[1] && fabs(first[0] - first[1]) < 0.2, "log-probabilities %g and %g", first[0], first[1]);
}

static void its_command_line(void) {
    REFUSES(2, "--port", "serve", MODEL, "--port", "70000");
    REFUSES(1, "none.gguf", "serve", "none.gguf");
    REFUSES(1, "port 1", "serve", MODEL, "--host", "203.0.113.1", "--port", "1");
    REFUSES(1, "/no/such/folder/socket", "serve", MODEL, "--unix", "/no/such/folder/socket");
}

int main(void) {
    folder_make();
    need_program("serve");
    if (SERVER_START(MODEL, "--queue", "400")) {
        unfinished = dial();
        say(unfinished, "POST /", 6);
        RUN(plain_routes);
        RUN(tokens_and_back);
        RUN(text_is_that_of_run);
        RUN(chat_streams);
        RUN(choices_and_prompts);
        RUN(logprobs_are_those_of_the_text);
        RUN(stop_strings);
        RUN(answers_of_a_form);
        RUN(bad_requests);
        RUN(clients_go_away);
        RUN(attention_of_a_text);
        RUN(half_closed_and_slow);
        RUN(hostile_http);
        RUN(deep_json);
        RUN(broken_off_and_together);
        RUN(quotes_in_messages);
        RUN(slow_senders_and_garbage);
        RUN(unfinished_is_given_up);
        test_bad = server_stop(SIGTERM);
    } else test_bad = 1;
    if (test_bad) fprintf(stderr, "the server did not start, or ended badly\n");
    test_n_failed += test_bad != 0;
    RUN(a_full_queue);
    RUN(keys_are_asked_for);
    RUN(it_drains);
    RUN(it_ends_at_once);
    RUN(it_warms_up);
    RUN(precision_is_obeyed);
    RUN(its_command_line);
    folder_remove();
    return test_report();
}
