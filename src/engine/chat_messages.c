// chat_messages: see chat_messages.h.
#include "chat_messages.h"

#include "jinja_json.h"
#include "textstream.h"

#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

char *text_of_ids(const Tokenizer *t, const int32_t *ids, int n) {
    char *text = NULL, *room = malloc(textstream_room(t) + 16);
    TextStream s = textstream_start(t, false);
    for (int i = 0; room && i < n; i++) {
        size_t got = textstream_push(&s, ids[i], room);
        if (got) memcpy(arraddnptr(text, got), room, got);
    }
    size_t got = room ? textstream_finish(&s, room) : 0;
    if (got) memcpy(arraddnptr(text, got), room, got);
    free(room);
    return text;
}

// ---- contents

static JinjaValue content_text(JinjaHeap *h, const Tokenizer *t, const ChatMessage *m) {
    if (m->n || !m->ids) return jinja_input(h, m->text, m->n);
    char *text = text_of_ids(t, m->ids, m->n_ids);
    char *copy = jinja_alloc(h, 2 * arrlenu(text) + 1);
    size_t n = arrlenu(text);
    if (n) memcpy(copy, text, n);
    arrfree(text);
    return jinja_input(h, copy, n);
}

static JinjaValue as_part(JinjaHeap *h, JinjaValue text) {
    JinjaValue list = jinja_list(h), part = jinja_dict(h);
    jinja_put_word(h, part.dict, "type", jinja_word("text"));
    jinja_put_word(h, part.dict, "text", text);
    jinja_push(h, list.list, part);
    return list;
}

// The text of a part; NULL: it is a picture or the like.
static const JinjaValue *part_text(JinjaHeap *h, JinjaValue part) {
    if (part.kind != JINJA_DICT) return NULL;
    const JinjaValue *type = jinja_find_word(h, part.dict, "type"), *text = jinja_find_word(h, part.dict, "text");
    bool is_text = type && jinja_is_word(*type, "text") && text && text->kind == JINJA_STRING;
    return is_text ? text : NULL;
}

// The texts of parts, a line each; the parts as they are where one is no text.
static JinjaValue joined_parts(JinjaHeap *h, JinjaValue parts) {
    JinjaBuffer b = {0};
    for (size_t i = 0; i < parts.list->n; i++) {
        const JinjaValue *text = part_text(h, parts.list->items[i]);
        if (!text) return parts;
        if (i) jinja_append(h, &b, jinja_input(h, "\n", 1).text);
        jinja_append(h, &b, text->text);
    }
    return jinja_take(&b);
}

static JinjaValue content_in_form(JinjaHeap *h, JinjaValue content, MessageForm form) {
    if (content.kind == JINJA_STRING && form.parts) return as_part(h, content);
    if (content.kind == JINJA_LIST && form.joins_parts) return joined_parts(h, content);
    return content;
}

// ---- tool calls

static void set_arguments(JinjaHeap *h, JinjaValue *arguments, ArgumentForm form) {
    static const JinjaJson how = {.indent = -1, .item_separator = {", ", NULL, 2}, .key_separator = {": ", NULL, 2}};
    JinjaText t = arguments->text;
    if (arguments->kind == JINJA_STRING && form == ARGUMENTS_MAPPING && t.n && *t.text == '{')
        *arguments = jinja_read_json(h, t.text, t.n);
    if (arguments->kind != JINJA_DICT || form != ARGUMENTS_TEXT) return;
    JinjaBuffer b = {0};
    jinja_print_json(h, &b, *arguments, &how, 0);
    *arguments = jinja_input(h, b.text, b.n);
}

static void set_calls(JinjaHeap *h, JinjaValue calls, ArgumentForm form) {
    for (size_t i = 0; calls.kind == JINJA_LIST && i < calls.list->n; i++) {
        JinjaValue call = calls.list->items[i];
        const JinjaValue *function = call.kind == JINJA_DICT ? jinja_find_word(h, call.dict, "function") : NULL;
        if (function && function->kind == JINJA_DICT) call = *function;
        JinjaValue *arguments = call.kind == JINJA_DICT ? jinja_find_word(h, call.dict, "arguments") : NULL;
        if (arguments) set_arguments(h, arguments, form);
    }
}

// ---- messages

static void put_fields(JinjaHeap *h, JinjaDict *message, const char *json, int i) {
    JinjaValue fields = jinja_read_json(h, json, strlen(json));
    if (fields.kind != JINJA_DICT)
        jinja_fail(h, "message %d: fields: expected a JSON object, found %s", i, jinja_kind_name(fields));
    for (size_t k = 0; k < fields.dict->n; k++) jinja_put(h, message, fields.dict->keys[k], fields.dict->values[k]);
}

JinjaValue messages_value(JinjaHeap *h, const Tokenizer *t, const ChatMessage *messages, int n, MessageForm form) {
    static const char *const roles[] = {
        [CHAT_SYSTEM] = "system", [CHAT_USER] = "user", [CHAT_ASSISTANT] = "assistant", [CHAT_TOOL] = "tool"};
    JinjaValue list = jinja_list(h);
    for (int i = 0; i < n; i++) {
        JinjaValue m = jinja_dict(h);
        jinja_put_word(h, m.dict, "role", jinja_word(roles[messages[i].role]));
        jinja_put_word(h, m.dict, "content", content_text(h, t, &messages[i]));
        if (messages[i].fields) put_fields(h, m.dict, messages[i].fields, i);
        JinjaValue *content = jinja_find_word(h, m.dict, "content"), *calls = jinja_find_word(h, m.dict, "tool_calls");
        *content = content_in_form(h, *content, form);
        if (calls) set_calls(h, *calls, form.arguments);
        jinja_push(h, list.list, m);
    }
    return list;
}

// ---- what a template expects

// Whether a template gives the word of an example, and not within quotes as Python or JSON spells values.
static bool shows(MessageTrial *trial, const void *context, const ChatMessage *m, int n, MessageForm form,
                  const char *word) {
    char *text = trial(context, m, n, form);
    const char *found = text ? strstr(text, word) : NULL;
    char behind = found ? found[strlen(word)] : 0;
    free(text);
    return found && behind != '\'' && behind != '"';
}

#define WORD "an\u1E9Eexample"
#define ARGUMENTS "{\"" WORD "\": 1}"
#define CALL(arguments)                                                                                                \
    "{\"content\": \"\", \"tool_calls\": [{\"id\": \"call00000\", \"type\": \"function\", \"function\": {\"name\": "   \
    "\"f\", \"arguments\": " arguments "}}]}"

static ArgumentForm arguments_form(MessageTrial *trial, const void *context, MessageForm form) {
    ChatMessage m[] = {{.role = CHAT_USER, .text = "?", .n = 1},
                       {.role = CHAT_ASSISTANT, .text = "", .fields = CALL("\"{\\\"" WORD "\\\": 1}\"")}};
    bool text = shows(trial, context, m, 2, form, ARGUMENTS);
    m[1].fields = CALL(ARGUMENTS);
    char *out = trial(context, m, 2, form);
    bool mapping = out && strstr(out, WORD);
    free(out);
    return text == mapping ? ARGUMENTS_AS_GIVEN : text ? ARGUMENTS_TEXT : ARGUMENTS_MAPPING;
}

MessageForm messages_form(MessageTrial *trial, const void *context) {
    MessageForm form = {0}, parts = {.parts = true};
    ChatMessage m = {.role = CHAT_USER, .text = WORD, .n = strlen(WORD)};
    bool takes_text = shows(trial, context, &m, 1, form, WORD), takes_parts = shows(trial, context, &m, 1, parts, WORD);
    form.parts = takes_parts && !takes_text;
    form.joins_parts = takes_text && !takes_parts;
    form.arguments = arguments_form(trial, context, form);
    return form;
}
