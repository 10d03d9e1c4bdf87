// conversation: see conversation.h.
#include "conversation.h"

#include "body.h"
#include "bytes.h"

#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

static int read_role(const json_t *message, ChatRole *role) {
    static const struct {
        const char *name;
        ChatRole role;
    } roles[] = {{"system", CHAT_SYSTEM},
                 {"developer", CHAT_SYSTEM},
                 {"user", CHAT_USER},
                 {"assistant", CHAT_ASSISTANT},
                 {"tool", CHAT_TOOL}};
    const char *name = json_string_value(json_object_get(message, "role"));
    for (size_t i = 0; name && i < sizeof roles / sizeof *roles; i++) {
        if (strcmp(name, roles[i].name)) continue;
        *role = roles[i].role;
        return 0;
    }
    return -1;
}

static void put_string(char **to, const json_t *text) {
    bytes_append(to, json_string_value(text), json_string_length(text));
}

// The text of a content: a string, or its parts of type text. stb_ds array, without a terminator.
static int read_content(char **text, const json_t *content, size_t i, ApiError *e) {
    if (json_is_string(content)) {
        put_string(text, content);
        return 0;
    }
    if (!json_is_array(content)) {
        return api_fail(e, 400, "messages", "messages: %zu: content: expected a string or a list of parts, found %s", i,
                        json_type_word(content));
    }
    for (size_t k = 0; k < json_array_size(content); k++) {
        const json_t *part = json_array_get(content, k), *value = json_object_get(part, "text");
        const char *type = json_string_value(json_object_get(part, "type"));
        if (!type || strcmp(type, "text") || !json_is_string(value)) {
            return api_fail(e, 400, "messages", "messages: %zu: content part %zu: only text is supported, found %.20s",
                            i, k, type ? type : "no type");
        }
        put_string(text, value);
    }
    return 0;
}

// ---- calls and results as text

static void put_call(char **to, const json_t *call, const ToolForm *form) {
    const json_t *function = json_object_get(call, "function");
    json_t *given = json_object_get(function, "arguments"),
           *arguments = json_is_string(given) ? json_loads(json_string_value(given), 0, NULL) : json_incref(given);
    json_t *v = json_pack("{s:O?, s:O?}", "name", json_object_get(function, "name"), form->arguments,
                          arguments ? arguments : given);
    char *text = v ? json_dumps(v, JSON_COMPACT) : NULL;
    bytes_append_text(to, form->lead);
    bytes_append_text(to, text ? text : "");
    bytes_append_text(to, "\n");
    bytes_append_text(to, form->close);
    free(text);
    json_decref(v);
    json_decref(arguments);
}

// What the template would not show: into the text, which is a user's where a tool has spoken.
static void tell_tools(ChatMessage *m, char **text, const json_t *message, const ToolForm *form) {
    const json_t *calls = json_object_get(message, "tool_calls");
    for (size_t i = 0; i < json_array_size(calls); i++) {
        if (arrlen(*text)) bytes_append_text(text, "\n");
        put_call(text, json_array_get(calls, i), form);
    }
    if (m->role != CHAT_TOOL) return;
    char *result = NULL;
    bytes_append_text(&result, "<tool_response>\n");
    bytes_append(&result, *text, arrlenu(*text));
    bytes_append_text(&result, "\n</tool_response>");
    arrfree(*text);
    *text = result;
    m->role = CHAT_USER;
}

// ---- messages

// What else the template may look at; malloc'd, NULL: nothing.
static char *read_fields(const json_t *message, const ToolForm *form) {
    static const char *const kept[] = {"name", "reasoning_content", "tool_calls", "tool_call_id"};
    json_t *fields = json_object();
    for (size_t k = 0; k < (form ? 2 : sizeof kept / sizeof *kept); k++) {
        const json_t *v = body_field(message, kept[k]);
        if (v) json_object_set(fields, kept[k], (json_t *)(uintptr_t)v);
    }
    char *text = json_object_size(fields) ? json_dumps(fields, JSON_COMPACT) : NULL;
    json_decref(fields);
    return text;
}

static int add_message(Conversation *c, const json_t *message, size_t i, const ToolForm *form, ApiError *e) {
    ChatMessage m = {0};
    char *text = NULL;
    if (read_role(message, &m.role)) {
        return api_fail(e, 400, "messages",
                        "messages: %zu: expected a role of system, developer, user, assistant or tool", i);
    }
    const json_t *content = body_field(message, "content"), *calls = body_field(message, "tool_calls");
    if (!content && !calls) return api_fail(e, 400, "messages", "messages: %zu: content: missing", i);
    if (calls && !json_is_array(calls))
        return api_fail(e, 400, "messages", "messages: %zu: tool_calls: expected a list", i);
    int rc = content ? read_content(&text, content, i, e) : 0;
    bool result = form && m.role == CHAT_TOOL;
    if (form) tell_tools(&m, &text, message, form);
    if (result && arrlen(c->messages) && arrlast(c->messages).role == CHAT_USER) { // roles must alternate
        bytes_append_text(&arrlast(c->texts), "\n");
        bytes_append(&arrlast(c->texts), text, arrlenu(text));
        arrfree(text);
        return rc;
    }
    arrput(c->texts, text);
    arrput(c->fields, read_fields(message, form));
    arrput(c->messages, m);
    return rc;
}

// Into the first message.
static void tell(Conversation *c, const char *told) {
    bool system = c->messages[0].role == CHAT_SYSTEM;
    char *text = NULL;
    if (system) bytes_append(&text, c->texts[0], arrlenu(c->texts[0]));
    if (arrlen(text)) bytes_append_text(&text, "\n\n");
    bytes_append_text(&text, told);
    if (!system) bytes_append_text(&text, "\n\n");
    if (!system) bytes_append(&text, c->texts[0], arrlenu(c->texts[0]));
    arrfree(c->texts[0]);
    c->texts[0] = text;
}

int conversation_read(Conversation *c, const json_t *list, const ToolForm *form, const char *told, ApiError *error) {
    size_t n = json_array_size(list);
    if (!n) return api_fail(error, 400, "messages", "messages: expected a list of at least one message");
    for (size_t i = 0; i < n; i++)
        if (add_message(c, json_array_get(list, i), i, form, error)) return -1;
    if (told) tell(c, told);
    for (ptrdiff_t i = 0; i < arrlen(c->messages); i++) {
        c->messages[i].text = c->texts[i] ? c->texts[i] : "";
        c->messages[i].n = arrlenu(c->texts[i]);
        c->messages[i].fields = c->fields[i];
    }
    return 0;
}

void conversation_free(Conversation *c) {
    for (ptrdiff_t i = 0; i < arrlen(c->texts); i++) arrfree(c->texts[i]);
    for (ptrdiff_t i = 0; i < arrlen(c->fields); i++) free(c->fields[i]);
    arrfree(c->messages);
    arrfree(c->texts);
    arrfree(c->fields);
}
