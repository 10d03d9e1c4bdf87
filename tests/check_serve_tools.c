// check_serve_tools: calls of tools as clients of build/serve meet them: forced ones and those that a model makes by
// itself, whose arguments are of their schema, whole and as streams, and their results in the next prompt.
#include "api_client.h"
#include "make_parrot.h"

#define EACH "{% for m in messages %}"
#define SHOWN "{% for t in tools %}{{ t | tojson }}\n{% endfor %}"

// Its prompt ends with the last message, so that the last letter of that chooses what a parrot says.
#define LAST "{% if add_generation_prompt %}{{ messages[-1].content }}{% endif %}"
static const char HERMES[] =
    SHOWN EACH "[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls %}{% set c = c.function %}{{ '\n<tool_call>\n"
               "{\"name\": \"' + c.name + '\", \"arguments\": ' }}{{ c.arguments | tojson }}{{ '}\n</tool_call>' }}"
               "{% endfor %}{% endfor %}" LAST;
static const char LLAMA[] =
    SHOWN EACH "[{{ m.role }}]{% if m.tool_calls %}{% set c = m.tool_calls[0].function %}{{ '{\"name\": \"' + c.name + "
               "'\", \"parameters\": ' }}{{ c.arguments | tojson }}{{ '}' }}{% else %}{{ m.content }}{% endif %}"
               "{% endfor %}" LAST;
static const char MISTRAL[] =
    SHOWN EACH "[{{ m.role }}]{% if m.tool_calls %}[TOOL_CALLS] [{% for c in m.tool_calls %}{% set f = c.function | "
               "tojson %}{{ f[:-1] + ', \"id\": \"' + c.id + '\"}' }}{{ ', ' if not loop.last else ']' }}{% endfor %}"
               "{% else %}{{ m.content }}{% endif %}{% endfor %}" LAST;
static const char NO_TOOLS[] = EACH "[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]";
static const char XML[] = SHOWN EACH "[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls %}<f={{ c.function.name }}>"
                                     "{% endfor %}{% endfor %}" LAST;

// Two tools; the second's parameters are by reference.
#define TOOLS                                                                                                          \
    "'tools': [{'type': 'function', 'function': {'name': 'weather', 'description': 'of a city', 'parameters': "        \
    "{'type': 'object', 'properties': {'city': {'enum': ['Rome', 'Oslo']}, 'days': {'type': 'integer', 'minimum': 1, " \
    "'maximum': 5}}, 'required': ['city', 'days'], 'additionalProperties': false}}}, {'type': 'function', "            \
    "'function': "                                                                                                     \
    "{'name': 'move', 'strict': true, 'parameters': {'$defs': {'way': {'enum': ['up', 'down']}}, 'type': 'object', "   \
    "'properties': {'to': {'$ref': '#/$defs/way'}}, 'required': ['to'], 'additionalProperties': false}}}]"
// The same, whose arguments may be anything.
#define LOOSE_TOOLS                                                                                                    \
    "'tools': [{'type': 'function', 'function': {'name': 'weather', 'parameters': {'type': 'object'}}}, "              \
    "{'type': 'function', 'function': {'name': 'move', 'parameters': {'type': 'object'}}}]"
#define ASK(what) "{'messages': [{'role': 'user', 'content': '" what "'}], 'max_tokens': 300, " TOOLS

static bool start_with(const char *model, const char *template) {
    write_text("t.jinja", template);
    return SERVER_START(model, "--chat-template-file", in_folder("t.jinja"), "-t", "1");
}

static void check_call(const json_t *call, const char *only) {
    const json_t *f = json_object_get(call, "function");
    const char *name = text_at(f, "name"), *type = text_at(call, "type");
    json_t *a = json_loads(text_at(f, "arguments"), 0, NULL);
    json_int_t days = json_integer_value(json_object_get(a, "days"));
    const char *city = text_at(a, "city"), *to = text_at(a, "to");
    bool weather = !strcmp(name, "weather") && json_object_size(a) == 2 && days >= 1 && days <= 5 &&
                   (!strcmp(city, "Rome") || !strcmp(city, "Oslo"));
    bool move = !strcmp(name, "move") && json_object_size(a) == 1 && (!strcmp(to, "up") || !strcmp(to, "down"));
    CHECK((weather || move) && (!only || !strcmp(only, name)) && !strcmp(type, "function") &&
              strlen(text_at(call, "id")) == 9,
          "%s(%s)", name, text_at(f, "arguments"));
    json_decref(a);
}

// The shipped model knows no tools; what it is made to say is a call all the same.
static void forced_calls(void) {
    static const char *const templates[] = {HERMES, LLAMA, MISTRAL, NO_TOOLS};
    static const struct {
        const char *choice, *only;
    } choices[] = {{"'required'", NULL},
                   {"{'type': 'function', 'function': {'name': 'weather'}}", "weather"},
                   {"{'type': 'function', 'function': {'name': 'move'}}", "move"}};
    for (int t = 0; t < N_OF(templates); t++) {
        NEED(start_with("models/stories.bin", templates[t]), "the server does not start");
        for (int i = 0; i < N_OF(choices) * 4; i += by_speed(1, 1, 4)) {
            const char *choice = choices[i / 4].choice, *only = choices[i / 4].only;
            char body[2048];
            snprintf(body, sizeof body, ASK("Hi") ", 'tool_choice': %s, 'seed': %d, 'parallel_tool_calls': false",
                     choice, i);
            char *whole = joined(strdup(body), "}"), *stream = joined(strdup(body), ", 'stream': true}");
            json_t *v = ask_json(200, "/v1/chat/completions", whole);
            const json_t *message = json_object_get(json_array_get(json_object_get(v, "choices"), 0), "message"),
                         *calls = json_object_get(message, "tool_calls");
            CHECK(json_array_size(calls) == 1 && json_is_null(json_object_get(message, "content")), "template %d: %s",
                  t, text_at(message, "content"));
            CHECK(!strcmp(text_at(v, "choices.0.finish_reason"), "tool_calls"), "finish");
            check_call(json_array_get(calls, 0), only);
            Stream s = ask_stream("/v1/chat/completions", stream);
            const char *found = text_at(json_array_get(s.calls, 0), "function.arguments");
            CHECK(json_array_size(s.calls) == 1 && !*s.text && !strcmp(s.finish, "tool_calls"), "the stream");
            CHECK(!strcmp(found, text_at(json_array_get(calls, 0), "function.arguments")), "whole %s, stream %s",
                  text_at(json_array_get(calls, 0), "function.arguments"), found);
            stream_free(&s);
            json_decref(v);
            free(whole);
            free(stream);
        }
        CHECK(server_stop(SIGTERM) == 0, "its exit status");
    }
}

static void what_cannot_be_enforced(void) {
    NEED(start_with("models/stories.bin", HERMES), "the server does not start");
    static const struct {
        const char *more, *param;
    } list[] = {
        {"'tools': [{'type': 'function', 'function': {'name': 'f', 'parameters': {'not': {}}}}], 'tool_choice': "
         "'required'",
         "tools"},
        {"'tools': [{'type': 'function', 'function': {'name': 'f', 'strict': true, 'parameters': {'not': {}}}}]",
         "tools"},
        {TOOLS ", 'response_format': {'type': 'json_object'}", "response_format"},
        {TOOLS ", 'tool_choice': {'type': 'function', 'function': {'name': 'none'}}", "tool_choice"},
    };
    for (int i = 0; i < N_OF(list); i++) {
        char body[2048];
        snprintf(body, sizeof body, "{'messages': [{'role': 'user', 'content': 'a'}], %s}", list[i].more);
        json_t *v = ask_json(400, "/v1/chat/completions", body);
        CHECK(!strcmp(text_at(v, "error.param"), list[i].param), "%s: %s", list[i].more, text_at(v, "error.message"));
        json_decref(v);
    }
    static const char *const taken[] = {
        TOOLS ", 'tool_choice': 'none'",
        "'tools': [{'type': 'function', 'function': {'name': 'f', 'parameters': {'not': {}}}}]", // any object
    };
    json_t *v;
    for (int i = 0; i < N_OF(taken); i++) {
        char body[2048];
        snprintf(body, sizeof body, "{'messages': [{'role': 'user', 'content': 'a'}], 'max_tokens': 3, %s}", taken[i]);
        v = ask_json(200, "/v1/chat/completions", body);
        json_decref(v);
    }
    CHECK(server_stop(SIGTERM) == 0, "its exit status");
    NEED(start_with("models/stories.bin", XML), "the server does not start");
    v = ask_json(400, "/v1/chat/completions", ASK("a") "}");
    CHECK(!strcmp(text_at(v, "error.param"), "tools"), "%s", text_at(v, "error.message"));
    json_decref(v);
    CHECK(server_stop(SIGTERM) == 0, "its exit status");
}

// ---- what a model says by itself

typedef struct {
    const char *letter, *text, *calls, *finish;
} Said;

static void check_said(const Said *want, const char *more) {
    char body[2048];
    snprintf(body, sizeof body, "{'messages': [{'role': 'user', 'content': 'Say %s'}], 'temperature': 0, %s, ",
             want->letter, more);
    for (int stream = 0; stream < 2; stream++) {
        char *full = joined(strdup(body), stream ? "'stream': true, " LOOSE_TOOLS "}" : LOOSE_TOOLS "}"),
             *found = strdup("");
        Stream s = {0};
        json_t *v = NULL;
        if (stream) s = ask_stream("/v1/chat/completions", full);
        else v = ask_json(200, "/v1/chat/completions", full);
        const json_t *message = json_object_get(json_array_get(json_object_get(v, "choices"), 0), "message");
        const json_t *calls = stream ? s.calls : json_object_get(message, "tool_calls");
        for (size_t i = 0; i < json_array_size(calls); i++) {
            found = joined(found, text_at(json_array_get(calls, i), "function.name"));
            found = joined(found, text_at(json_array_get(calls, i), "function.arguments"));
        }
        const char *text = stream        ? s.text
                           : *want->text ? text_at(message, "content")
                                         : "",
                   *finish = stream ? s.finish : text_at(v, "choices.0.finish_reason");
        CHECK(!strcmp(text, want->text) && !strcmp(found, want->calls) && !strcmp(finish, want->finish),
              "after %s: text '%s', calls '%s', finish %s", want->letter, text, found, finish);
        free(full);
        free(found);
        if (stream) stream_free(&s);
        json_decref(v);
    }
}

static void calls_of_its_own(void) {
    Parrot p = parrot_start();
    parrot_song(&p, "Q", "<tool", "_call>", "\n{\"na", "me\":", " \"wea", "ther\",", " \"argu", "ments\": {\"ci",
                "ty\"", ": \"Gr\xC3", "\xBC", "n\"}", "}\n</tool_", "call>", NULL);
    parrot_song(&p, "Z", "It is ", "<b>", "sunny", NULL);
    parrot_song(&p, "V", "Wait. ", "<tool_call>", "{\"name\": \"move\", \"arguments\": {}}", "</tool_call>",
                "\n<tool_call>", "{\"name\": \"move\", ", "\"arguments\": {\"to\": \"up\"}}", "</tool_call>", NULL);
    parrot_song(&p, "W", "{\"name\": \"fly\"", "}", NULL);
    parrot_song(&p, "U", "{\"name\": \"move\", ", "\"parameters\": ", "{\"to\": 3}}", NULL);
    parrot_write(&p, "parrot.bin", "parrot.tokenizer.bin");
    NEED(start_with(in_folder("parrot.bin"), HERMES), "the server does not start");
    check_said(&(Said){"Q", "", "weather{\"city\": \"Gr\xC3\xBCn\"}", "tool_calls"}, "'tool_choice': 'auto'");
    check_said(&(Said){"Z", "It is <b>sunny", "", "stop"}, "'tool_choice': 'auto'");
    check_said(&(Said){"V", "Wait. ", "move{}move{\"to\": \"up\"}", "tool_calls"}, "'seed': 1");
    check_said(&(Said){"V", "Wait. ", "move{}", "tool_calls"}, "'parallel_tool_calls': false");
    check_said(&(Said){"V", "Wait. ", "move{}", "length"}, "'max_tokens': 4");
    check_said(&(Said){"Q",
                       "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Gr\xC3\xBCn\"}}\n</tool_call>",
                       "", "stop"},
               "'tool_choice': 'none'");
    CHECK(server_stop(SIGTERM) == 0, "its exit status");
    // Without a mark; the arguments of these tools may be anything.
    NEED(start_with(in_folder("parrot.bin"), LLAMA), "the server does not start");
    check_said(&(Said){"W", "{\"name\": \"fly\"}", "", "stop"}, "'seed': 1");
    check_said(&(Said){"U", "", "move{\"to\": 3}", "tool_calls"}, "'seed': 1");
    CHECK(server_stop(SIGTERM) == 0, "its exit status");
}

// ---- what a model would say by itself, and cannot

static void calls_are_enforced(void) {
    static const struct {
        const char *template, *letter, *text, *only; // NULL: either tool
        size_t n;                                    // calls
    } list[] = {
        {HERMES, "A", "Well. ", NULL, 1},
        {HERMES, "B", "", "move", 1},
        {HERMES, "C", "", NULL, 1},
        {HERMES, "D", "See: ", "weather", 2},
        {HERMES, "E", "a <tool b", NULL, 0},
        {NO_TOOLS, "F", "", "weather", 1},
        {MISTRAL, "G", "", NULL, 1},
        {MISTRAL, "H", "So ", "move", 2},
        {LLAMA, "I", "", "move", 1},
        {LLAMA, "J", "{\"name\": \"fly\"}", NULL, 0},
        {LLAMA, "K", "So {\"name\": \"move\"", NULL, 0},
    };
    Parrot p = parrot_start();
    parrot_song(&p, "A", "Well. ", "<tool_call>\n", "{\"name\": \"fly\", \"arguments\": {}}\n", "</tool_call>", NULL);
    parrot_song(&p, "B", "<tool", "_call>\n{\"na", "me\": \"move\"", ", \"arguments\": {\"to\": ", "\"left\"}}", NULL);
    parrot_song(&p, "C", "<tool_call>", NULL);
    parrot_song(&p, "D", "See: ", "<tool_call>",
                "{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\", \"days\": 2", "}}", "</tool_call>",
                "<tool_call>", "{\"name\": \"weather\", \"arguments\": {\"city\": ", "3", NULL);
    parrot_song(&p, "E", "a <to", "ol b", NULL);
    parrot_song(&p, "]", "<tool_call>", "{\"name\": \"weather\", ", "\"days\": 2", NULL);
    parrot_song(&p, "G", "[TOOL_", "CALLS] [{\"n", "ame\": \"fly\"}", NULL);
    parrot_song(&p, "H", "So ", "[TOOL_CALLS]", "[{\"name\": \"move\", \"arguments\": {\"to\": \"up\"", "}}, ",
                "{\"name\": \"move\", \"arguments\": {\"to\": ", "\"left", NULL);
    parrot_song(&p, "I", " {\"na", "me\": \"move\"", ", \"parameters\": ", "{\"to\": 3}}", NULL);
    parrot_song(&p, "J", "{\"name\": \"fly\"", "}", NULL);
    parrot_song(&p, "K", "So ", "{\"name\": \"move\"", NULL);
    parrot_write(&p, "parrot.bin", "parrot.tokenizer.bin");
    for (int i = 0; i < N_OF(list); i++) {
        if (!i || list[i].template != list[i - 1].template)
            NEED(start_with(in_folder("parrot.bin"), list[i].template), "the server does not start");
        for (int single = 0; single < 2; single++) {
            char body[2048];
            size_t n = single && list[i].n > 1 ? 1 : list[i].n;
            snprintf(body, sizeof body,
                     "{'messages': [{'role': 'user', 'content': 'Say %s'}], 'temperature': 0, %s" TOOLS "}",
                     list[i].letter, single ? "'parallel_tool_calls': false, " : "");
            json_t *v = ask_json(200, "/v1/chat/completions", body);
            const json_t *message = json_object_get(json_array_get(json_object_get(v, "choices"), 0), "message"),
                         *calls = json_object_get(message, "tool_calls");
            const char *text = *list[i].text ? text_at(message, "content") : "",
                       *finish = text_at(v, "choices.0.finish_reason");
            CHECK(!strcmp(text, list[i].text) && json_array_size(calls) == n, "after %s: text '%s', %zu calls",
                  list[i].letter, text, json_array_size(calls));
            CHECK(!strcmp(finish, n ? "tool_calls" : "stop"), "after %s: %s", list[i].letter, finish);
            for (size_t k = 0; k < json_array_size(calls); k++) check_call(json_array_get(calls, k), list[i].only);
            json_decref(v);
        }
        if (i + 1 == N_OF(list) || list[i].template != list[i + 1].template)
            CHECK(server_stop(SIGTERM) == 0, "its exit status");
    }
}

// A call and its result come back in the messages: the same number of tokens as the template's text has.
static void results_reach_the_prompt(void) {
    static const char body[] =
        "{'max_tokens': 1, 'messages': [{'role': 'user', 'content': 'Rain?'}, {'role': 'assistant', 'content': null, "
        "'tool_calls': [{'id': 'abcdefghi', 'type': 'function', 'function': {'name': 'weather', 'arguments': "
        "'{\\\"city\\\": \\\"Rome\\\"}'}}]}, {'role': 'tool', 'tool_call_id': 'abcdefghi', 'content': 'dry'}], " TOOLS
        "}";
    static const char want[] = "[user]Rain?[assistant]\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": "
                               "\"Rome\"}}\n</tool_call>[tool]drydry"; // and what LAST says again
    NEED(start_with("models/stories.bin", HERMES), "the server does not start");
    json_t *v = ask_json(200, "/v1/chat/completions", body);
    json_t *whole = json_pack("{s:s, s:b}", "content", want, "add_special", 0);
    char *text = json_dumps(whole, 0);
    json_t *tokens = ask_json(200, "/tokenize", text);
    int n = (int)json_array_size(json_object_get(tokens, "tokens")),
        n_prompt = (int)number(json_object_get(v, "usage"), "prompt_tokens");
    CHECK(n > 40 && n_prompt > n, "a prompt of %d tokens, of which the messages are %d", n_prompt, n);
    json_decref(v);
    json_decref(whole);
    json_decref(tokens);
    free(text);
    CHECK(server_stop(SIGTERM) == 0, "its exit status");
}

int main(void) {
    folder_make();
    need_program("serve");
    RUN(forced_calls);
    RUN(what_cannot_be_enforced);
    RUN(calls_of_its_own);
    RUN(calls_are_enforced);
    RUN(results_reach_the_prompt);
    folder_remove();
    return test_report();
}
