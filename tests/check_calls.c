// Calls of tools: what an example shows of a template's form, calls told from text at every split of it, the messages
// of a template that knows no tools, and the fields of a request. The server itself is check_serve's.
#include "callreader.h"
#include "chat.h"
#include "conversation.h"
#include "reference.h"
#include "make_marked.h"
#include "toolset.h"

#include <stb/stb_ds.h>

// In few words what the public templates say in many.
#define EACH "{% for m in messages %}"
#define ARGS "c.arguments | tojson"
static const char HERMES[] =
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}" EACH
    "<|im_start|>{{ m.role }}{% if m.content %}{{ '\n' + m.content }}{% endif %}{% for c in m.tool_calls %}{% set c = "
    "c.function %}{{ '\n<tool_call>\n{\"name\": \"' + c.name + '\", \"arguments\": ' }}{{ " ARGS
    " }}{{ '}\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
static const char THINKING[] =
    "{% for t in tools %}{{ t | tojson }}{% endfor %}" EACH
    "<|im_start|>{{ m.role + '\n' }}{% if m.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ "
    "m.content }}{% for c in m.tool_calls %}{% set c = c.function %}{{ '\n<tool_call>\n{\"name\": \"' + c.name + '\", "
    "\"arguments\": ' }}{{ " ARGS " }}{{ '}\n</tool_call>' }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
static const char LLAMA[] = EACH
    "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{% if loop.first %}{% for t in tools %}{{ t | tojson }}"
    "{% endfor %}{% endif %}{% if m.tool_calls %}{% set c = m.tool_calls[0].function %}{{ '{\"name\": \"' + c.name + "
    "'\", \"parameters\": ' }}{{ " ARGS " }}{{ '}' }}{% else %}{{ m.content }}{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}";
static const char MISTRAL[] =
    "{{ bos_token }}" EACH "{% if m.role == 'user' %}{% if tools %}[AVAILABLE_TOOLS] {{ tools | tojson "
    "}}[/AVAILABLE_TOOLS]{% endif %}[INST] {{ "
    "m.content }}[/INST]{% elif m.tool_calls %}[TOOL_CALLS] [{% for c in m.tool_calls %}{% set f = c.function | tojson "
    "%}{{ f[:-1] + ', \"id\": \"' + c.id + '\"}' }}{{ ', ' if not loop.last else ']' + eos_token }}{% endfor %}{% else "
    "%}"
    " {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}";
static const char PLAIN_ONE[] =
    EACH "[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
static const char XML[] =
    "{% for t in tools %}{{ t | tojson }}{% endfor %}" EACH "[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls "
    "%}<function={{ c.function.name }}>{% for k in c.function.arguments %}{{ k }}{% endfor %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}";

static Tokenizer *tokenizer;

static Chat *open_chat(const char *text) {
    char err[256];
    Chat *c = chat_open(tokenizer, text, 0, err, sizeof err);
    CHECK(c, "%s", err);
    return c;
}

static ToolForm form_of(const char *text) {
    char err[256];
    Chat *c = open_chat(text);
    ToolForm f;
    int rc = toolform_learn(&f, c, err, sizeof err);
    CHECK(!rc, "%s: %s", text, err);
    chat_close(c);
    return f;
}

static void forms_are_learnt(void) {
    static const struct {
        const char *text, *mark, *lead, *close, *arguments;
        bool own, list;
    } list[] = {
        {HERMES, "<tool_call>", "<tool_call>\n", "</tool_call>", "arguments", false, false},
        {THINKING, "<tool_call>", "<tool_call>\n", "</tool_call>", "arguments", false, false},
        {LLAMA, "", "", "", "parameters", false, false},
        {MISTRAL, "[TOOL_CALLS]", "[TOOL_CALLS]", "", "arguments", false, true},
        {PLAIN_ONE, "<tool_call>", "<tool_call>\n", "</tool_call>", "arguments", true, false},
        {NULL, "<tool_call>", "<tool_call>\n", "</tool_call>", "arguments", true, false},
    };
    for (size_t i = 0; i < N_OF(list); i++) {
        ToolForm f = form_of(list[i].text);
        CHECK(!strcmp(f.mark, list[i].mark) && !strcmp(f.lead, list[i].lead) && !strcmp(f.close, list[i].close) &&
                  !strcmp(f.arguments, list[i].arguments) && f.own == list[i].own && f.list == list[i].list,
              "form %zu: mark '%s', lead '%s', close '%s', key '%s', own %d, list %d", i, f.mark, f.lead, f.close,
              f.arguments, f.own, f.list);
        toolform_free(&f);
    }
    char err[256];
    Chat *c = open_chat(XML);
    ToolForm f;
    CHECK(toolform_learn(&f, c, err, sizeof err) == -1 && strstr(err, "form"), "calls as XML: %s", err);
    chat_close(c);
}

// ---- the reader

// What came out of a text: "text|name(arguments)name(arguments)".
typedef struct {
    char *text, *calls; // stb_ds arrays
    int n;
} Heard;

static void put(char **to, const char *text, size_t n) {
    if (n) memcpy(arraddnptr(*to, n), text, n);
}

static void hear(Heard *h, CallReader *r, const char *text) {
    put(&h->text, text, strlen(text));
    CallPart *parts = callreader_take(r);
    for (ptrdiff_t i = 0; i < arrlen(parts); i++) {
        CHECK(parts[i].index == h->n - !parts[i].name, "a part of call %d, after %d", parts[i].index, h->n);
        if (parts[i].name) {
            CHECK(strlen(parts[i].id) == 9, "id '%s'", parts[i].id);
            if (h->n) put(&h->calls, ")", 1);
            put(&h->calls, parts[i].name, strlen(parts[i].name));
            put(&h->calls, "(", 1);
            h->n++;
        }
        put(&h->calls, parts[i].arguments, arrlenu(parts[i].arguments));
    }
    callparts_free(parts);
}

static char *heard_of(const ToolForm *f, char **names, const char *text, size_t first, size_t second) {
    CallReader *r = callreader_open(f, names);
    Heard h = {0};
    const size_t ends[] = {first, second, strlen(text)};
    for (size_t i = 0, at = 0; i < 3; at = ends[i++]) {
        char *piece = strndup(text + at, ends[i] - at);
        hear(&h, r, callreader_push(r, piece));
        free(piece);
    }
    hear(&h, r, callreader_finish(r));
    CHECK(callreader_begun(r) == h.n, "%d begun, %d heard", callreader_begun(r), h.n);
    callreader_close(r);
    put(&h.text, "|", 1);
    put(&h.text, h.calls, arrlenu(h.calls));
    put(&h.text, h.n ? ")" : "", h.n ? 1 : 0);
    char *all = strndup(h.text, arrlenu(h.text));
    arrfree(h.text);
    arrfree(h.calls);
    return all;
}

// Every text comes in three pieces, at every pair of borders.
static void calls_are_heard(void) {
    static const struct {
        const char *template, *text, *want;
    } list[] = {
        {HERMES, "Sunny.", "Sunny.|"},
        {HERMES, "a <b> <tool", "a <b> <tool|"},
        {HERMES, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}]\\\"{\"}}\n</tool_call>",
         "|f({\"a\": \"}]\\\"{\"})"},
        {HERMES,
         "See:\n<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":[1,{\"b\":2}]}}</"
         "tool_call>\n<tool_call>\n{\"arguments\": "
         "{\"x\": 1} , \"name\": \"g\"}\n</tool_call>\nDone",
         "See:\n|f({\"a\":[1,{\"b\":2}]})g({\"x\": 1})"},
        {HERMES, "<tool_call>\n{\"name\": \"h\", \"arguments\": {}}\n</tool_call>",
         "<tool_call>\n{\"name\": \"h\", \"arguments\": {}}\n</tool_call>|"}, // no such tool
        {HERMES, "<tool_call> is a mark", "<tool_call> is a mark|"},
        {HERMES, "<tool_call>\n{\"name\": \"f\"}", "|f({})"},
        {HERMES, "<tool_call>\n{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}", "|f({\"a\": 1})"},
        {HERMES, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1", "|f({\"a\": 1)"}, // cut by a limit
        {HERMES, "<tool_call>\n{\"name\": \"", "<tool_call>\n{\"name\": \"|"},
        {HERMES, "<tool_call<tool_call>{\"name\":\"f\",\"arguments\":{}}", "<tool_call|f({})"},
        {HERMES, "<tool_call>{\"name\":\"\\u0066\",\"arguments\":{\"\\u00e9\":\"Gr\xC3\xBC\xC3\x9F\"}}",
         "|f({\"\\u00e9\":\"Gr\xC3\xBC\xC3\x9F\"})"},
        {LLAMA, "\n{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "|f({\"a\": 1})"},
        {LLAMA, "{\"type\": \"function\", \"name\": \"g\", \"parameters\": {}}", "|g({})"},
        {LLAMA, "{\"city\": \"Paris\"}", "{\"city\": \"Paris\"}|"},
        {LLAMA, "Call {\"name\": \"f\", \"parameters\": {}}", "Call {\"name\": \"f\", \"parameters\": {}}|"},
        {LLAMA, "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {\"b\": null}}",
         "|f({})g({\"b\": null})"},
        {MISTRAL,
         "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": [1, 2]}, \"id\": \"abcdefghi\"}, {\"name\": \"g\", "
         "\"arguments\": {}}]",
         "|f({\"a\": [1, 2]})g({})"},
        {MISTRAL, "[1] [TOOL", "[1] [TOOL|"},
        {PLAIN_ONE, "Well. <tool_call>\n{\"name\": \"g\", \"arguments\": {\"z\": -1.5e3}}\n</tool_call>",
         "Well. |g({\"z\": -1.5e3})"},
    };
    char **names = NULL;
    arrput(names, (char *)(uintptr_t) "f");
    arrput(names, (char *)(uintptr_t) "g");
    for (size_t i = 0; i < N_OF(list); i++) {
        ToolForm f = form_of(list[i].template);
        size_t n = strlen(list[i].text);
        for (size_t a = 0; a <= n; a++) {
            for (size_t b = a; b <= n; b += 1 + (n > 90) * 3) {
                char *found = heard_of(&f, names, list[i].text, a, b);
                // What follows the last call is text again, but for white space.
                bool same = !strncmp(found, list[i].want, strlen(list[i].want)) ||
                            (i == 3 && strstr(found, "Done|") && strstr(found, "g({\"x\": 1})"));
                CHECK(same, "case %zu, cut at %zu and %zu: expected %s, found %s", i, a, b, list[i].want, found);
                free(found);
            }
        }
        toolform_free(&f);
    }
    arrfree(names);
}

// ---- a template that knows no tools

static const char HISTORY[] =
    "[{\"role\": \"system\", \"content\": \"Be kind.\"}, {\"role\": \"user\", \"content\": \"Rain?\"}, {\"role\": "
    "\"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"c1\", \"type\": \"function\", \"function\": "
    "{\"name\": "
    "\"f\", \"arguments\": \"{\\\"a\\\": 1}\"}}, {\"id\": \"c2\", \"type\": \"function\", \"function\": {\"name\": "
    "\"g\", \"arguments\": \"{}\"}}]}, {\"role\": \"tool\", \"tool_call_id\": \"c1\", \"content\": \"wet\"}, "
    "{\"role\": "
    "\"tool\", \"tool_call_id\": \"c2\", \"content\": [{\"type\": \"text\", \"text\": \"dry\"}]}]";

static void history_becomes_text(void) {
    ToolForm f = form_of(PLAIN_ONE);
    Chat *chat = open_chat(PLAIN_ONE);
    json_t *list = json_loads(HISTORY, 0, NULL);
    Conversation c = {0};
    ApiError e;
    CHECK(!conversation_read(&c, list, &f, "TOLD", &e), "%s", e.message);
    char *text = chat_text(chat, c.messages, (int)arrlen(c.messages), true);
    static const char want[] =
        "[system]Be kind.\n\nTOLD[user]Rain?[assistant]<tool_call>\n{\"name\":\"f\",\"arguments\":{\"a\":1}}\n"
        "</tool_call>\n<tool_call>\n{\"name\":\"g\",\"arguments\":{}}\n</tool_call>[user]<tool_response>\nwet\n"
        "</tool_response>\n<tool_response>\ndry\n</tool_response>[assistant]";
    CHECK(!strcmp(text, want), "expected %s, found %s", want, text);
    free(text);
    conversation_free(&c);
    // Without a system message the user's begins with it.
    json_array_remove(list, 0);
    c = (Conversation){0};
    CHECK(!conversation_read(&c, list, &f, "TOLD", &e), "%s", e.message);
    text = chat_text(chat, c.messages, 1, false);
    CHECK(!strcmp(text, "[user]TOLD\n\nRain?"), "found %s", text);
    free(text);
    conversation_free(&c);
    chat_close(chat);
    toolform_free(&f);
    // One that knows them gets them as they are.
    chat = open_chat(HERMES);
    c = (Conversation){0};
    CHECK(!conversation_read(&c, list, NULL, NULL, &e), "%s", e.message);
    text = chat_text(chat, c.messages, (int)arrlen(c.messages), true);
    CHECK(strstr(text, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>") &&
              strstr(text, "<|im_start|>tool\nwet<|im_end|>"),
          "found %s", text);
    free(text);
    conversation_free(&c);
    chat_close(chat);
    json_decref(list);
}

// ---- the fields

#define TOOL(name) "{\"type\": \"function\", \"function\": {\"name\": \"" name "\"}}"

static void fields_are_checked(void) {
    static const struct {
        const char *body, *param; // NULL: sound
    } list[] = {
        {"{}", NULL},
        {"{\"tools\": []}", NULL},
        {"{\"tools\": [" TOOL("f") "], \"tool_choice\": \"auto\"}", NULL},
        {"{\"tools\": [" TOOL("f") "," TOOL("g-2.x") "], \"tool_choice\": \"required\"}", NULL},
        {"{\"tools\": [" TOOL("f") "], \"tool_choice\": {\"type\": \"function\", \"function\": {\"name\": \"f\"}}}",
         NULL},
        {"{\"tools\": {}}", "tools"},
        {"{\"tools\": [3]}", "tools"},
        {"{\"tools\": [{\"type\": \"custom\"}]}", "tools"},
        {"{\"tools\": [{\"type\": \"function\"}]}", "tools"},
        {"{\"tools\": [" TOOL("f g") "]}", "tools"},
        {"{\"tools\": [" TOOL("") "]}", "tools"},
        {"{\"tools\": [" TOOL("f") "," TOOL("f") "]}", "tools"},
        {"{\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": []}}]}", "tools"},
        {"{\"tool_choice\": \"required\"}", "tool_choice"},
        {"{\"tools\": [" TOOL("f") "], \"tool_choice\": \"some\"}", "tool_choice"},
        {"{\"tools\": [" TOOL("f") "], \"tool_choice\": 3}", "tool_choice"},
        {"{\"tools\": [" TOOL("f") "], \"tool_choice\": {\"type\": \"allowed_tools\"}}", "tool_choice"},
        {"{\"tools\": [" TOOL("f") "], \"tool_choice\": {\"type\": \"function\", \"function\": {\"name\": \"g\"}}}",
         "tool_choice"},
        {"{\"tools\": [" TOOL("f") "], \"parallel_tool_calls\": 1}", "parallel_tool_calls"},
    };
    ToolForm f = form_of(HERMES);
    for (size_t i = 0; i < N_OF(list); i++) {
        ToolSet t = {0};
        ApiError e = {0};
        json_t *body = json_loads(list[i].body, 0, NULL);
        int rc = toolset_read(&t, &f, NULL, body, &e);
        bool sound = rc == (list[i].param ? -1 : 0) && (!list[i].param || !strcmp(e.param, list[i].param));
        CHECK(body && sound, "%s: %d, %s: %s", list[i].body, rc, e.param ? e.param : "(none)", e.message);
        toolset_free(&t);
        json_decref(body);
    }
    toolform_free(&f);
    ToolSet t = {0};
    ApiError e = {0};
    json_t *body = json_loads("{\"tools\": [" TOOL("f") "]}", 0, NULL);
    CHECK(toolset_read(&t, NULL, "its form is not known", body, &e) == -1 && !strcmp(e.param, "tools"), "%s",
          e.message);
    toolset_free(&t);
    json_object_set_new(body, "tool_choice", json_string("none"));
    CHECK(!toolset_read(&t, NULL, "its form is not known", body, &e) && !t.names, "%s", e.message);
    toolset_free(&t);
    json_decref(body);
}

int main(void) {
    static const char *const words[] = {"a", "b"}, *const marks[] = {"<|im_start|>", "<|im_end|>", "<tool_call>"};
    tokenizer = make_marked(words, N_OF(words), marks, N_OF(marks), TOKEN_USER, false);
    RUN(forms_are_learnt);
    RUN(calls_are_heard);
    RUN(history_becomes_text);
    RUN(fields_are_checked);
    tokenizer_free(tokenizer);
    return test_report();
}
