// toolform: see toolform.h.
#include "toolform.h"

#include "bytes.h"
#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME "tesseraname"
#define KEY "tesserakey"
#define TEXT "tesseratext"

static const char EXAMPLE[] = "[{\"type\": \"function\", \"function\": {\"name\": \"" NAME
                              "\", \"description\": \"d\", \"parameters\": {\"type\": "
                              "\"object\", \"properties\": {\"" KEY
                              "\": {\"type\": \"integer\", \"description\": \"d\"}}, \"required\": [\"" KEY "\"]}}}]";
static const char CALL[] = "{\"tool_calls\": [{\"id\": \"call00000\", \"type\": \"function\", \"function\": {\"name\": "
                           "\"" NAME "\", \"arguments\": {\"" KEY "\": 1}}}]}";

// A question and an answer, as the template writes them; free() it. NULL: it refuses them.
static char *rendered(const Chat *c, const char *answer, const char *fields) {
    const ChatMessage m[] = {{.role = CHAT_USER, .text = "?", .n = 1},
                             {.role = CHAT_ASSISTANT, .text = answer, .n = strlen(answer), .fields = fields}};
    return chat_text(c, m, 2, false);
}

// Where the answer begins in `call`: behind what it shares with an answer of text. NULL: nothing tells.
static const char *answer_of(const char *call, const char *text) {
    const char *end = strstr(text, TEXT);
    while (end && text < end && *call == *text) {
        call++;
        text++;
    }
    while (end && text < end && byte_is_space(*text)) text++;
    if (text != end) return NULL;
    const char *thought = strstr(call, "</think>");
    if (thought) call = thought + strlen("</think>");
    while (byte_is_space(*call)) call++;
    return call;
}

// From `"NAME` on: ", "key": {
static bool read_key(ToolForm *f, const char *behind_name) {
    int n = 0;
    return sscanf(behind_name, "\" , \"%15[a-z_]\" : {%n", f->arguments, &n) == 1 && n;
}

static int learn_call(ToolForm *f, const char *answer) {
    const char *name = strstr(answer, NAME), *json = strchr(answer, '{');
    if (!name || !json || json > name || !read_key(f, name + strlen(NAME))) return -1;
    const char *key = name - 1;
    if (*key != '"') return -1;
    while (key > json && (byte_is_space(key[-1]) || key[-1] == ':')) key--;
    if (key - json < 7 || memcmp(key - 6, "\"name\"", 6) != 0) return -1;
    const char *bracket = json;
    while (bracket > answer && byte_is_space(bracket[-1])) bracket--;
    f->list = bracket > answer && bracket[-1] == '[';
    if (f->list) json = bracket - 1;
    while (json > answer && json[-1] == ' ') json--; // an automaton takes one blank itself
    f->lead = strndup(answer, (size_t)(json - answer));
    while (json > answer && byte_is_space(json[-1])) json--;
    f->mark = strndup(answer, (size_t)(json - answer));
    if (!f->list && *f->mark == '<' && asprintf(&f->close, "</%s", f->mark + 1) > 0) {
        if (strstr(name, f->close)) return 0;
        *f->close = 0;
    }
    if (!f->close) f->close = strdup("");
    return 0;
}

// What the server tells a model by itself. Refuses nothing.
static int set_own(ToolForm *f) {
    *f = (ToolForm){.own = true,
                    .mark = strdup("<tool_call>"),
                    .lead = strdup("<tool_call>\n"),
                    .close = strdup("</tool_call>"),
                    .arguments = "arguments"};
    return 0;
}

static int learn(ToolForm *f, const Chat *chat, char *err, size_t errlen) {
    const ChatMessage question = {.role = CHAT_USER, .text = "?", .n = 1};
    char *prompt = chat_text(chat, &question, 1, true);
    bool takes_tools = prompt && strstr(prompt, NAME);
    free(prompt);
    if (!takes_tools) return set_own(f);
    char *call = rendered(chat, "", CALL), *text = rendered(chat, TEXT, NULL);
    const char *answer = call && text ? answer_of(call, text) : NULL;
    int rc = answer ? learn_call(f, answer) : -1;
    free(call);
    free(text);
    return rc ? fail(err, errlen, "the model's template writes calls of tools in a form that is not known here") : 0;
}

int toolform_learn(ToolForm *f, Chat *chat, char *err, size_t errlen) {
    *f = (ToolForm){0};
    if (chat_set(chat, "tools", EXAMPLE, err, errlen) || learn(f, chat, err, errlen)) return -1;
    if (f->mark && f->lead && f->close) return 0;
    toolform_free(f);
    return fail(err, errlen, "out of memory");
}

void toolform_free(ToolForm *f) {
    free(f->mark);
    free(f->lead);
    free(f->close);
    *f = (ToolForm){0};
}
