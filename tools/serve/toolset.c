// toolset: see toolset.h.
#include "toolset.h"

#include "body.h"
#include "cli.h"
#include "schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

enum { MOST_TOOLS = 128, MOST_NAME = 64 };

static bool is_name(const char *s) {
    static const char set[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    size_t n = s ? strlen(s) : 0;
    return n && n <= MOST_NAME && strspn(s, set) == n;
}

static const json_t *function_of(const ToolSet *t, size_t i) {
    return json_object_get(json_array_get(t->list, i), "function");
}

static int read_list(ToolSet *t, ApiError *e) {
    size_t n = json_array_size(t->list);
    if (!json_is_array(t->list) || n > MOST_TOOLS)
        return api_fail(e, 400, "tools", "tools: expected a list of at most %d", MOST_TOOLS);
    for (size_t i = 0; i < n; i++) {
        const json_t *f = function_of(t, i), *parameters = json_object_get(f, "parameters");
        const char *type = json_string_value(json_object_get(json_array_get(t->list, i), "type")),
                   *name = json_string_value(json_object_get(f, "name"));
        if (!type || strcmp(type, "function") != 0)
            return api_fail(e, 400, "tools", "tools: %zu: expected the type function", i);
        if (!is_name(name))
            return api_fail(e, 400, "tools", "tools: %zu: expected a name of 1 to %d letters, digits, _, - and .", i,
                            MOST_NAME);
        if (parameters && !json_is_object(parameters) && !json_is_null(parameters))
            return api_fail(e, 400, "tools", "tools: %zu: parameters: expected a JSON Schema", i);
        for (ptrdiff_t k = 0; k < arrlen(t->names); k++) {
            if (!strcmp(t->names[k], name)) return api_fail(e, 400, "tools", "tools: %.64s stands there twice", name);
        }
        arrput(t->names, strdup(name));
    }
    return 0;
}

// ---- the schema of a call

// A copy whose references, "#/...", start at `to`.
static json_t *moved(const json_t *schema, const char *to) {
    json_t *copy = json_is_object(schema) ? json_object() : json_is_array(schema) ? json_array() : NULL, *v;
    const char *key;
    size_t i;
    if (!copy) return json_deep_copy(schema);
    json_array_foreach((json_t *)(uintptr_t)schema, i, v) json_array_append_new(copy, moved(v, to));
    json_object_foreach((json_t *)(uintptr_t)schema, key, v) {
        const char *ref = !strcmp(key, "$ref") ? json_string_value(v) : NULL;
        json_object_set_new(copy, key, ref && *ref == '#' ? json_sprintf("%s%s", to, ref + 1) : moved(v, to));
    }
    return copy;
}

static bool can_be_enforced(const json_t *schema) {
    char err[256];
    Automaton *a = automaton_open();
    if (!a) die(1, "out of memory");
    int rule = schema_compile(a, schema, err, sizeof err);
    automaton_close(a);
    return rule >= 0;
}

// Of a tool that need not be called and is not strict, what cannot be enforced is any object.
static json_t *parameters_of(const ToolSet *t, size_t i, const char *place) {
    const json_t *f = function_of(t, i), *p = json_object_get(f, "parameters");
    if (!json_is_object(p)) return json_pack("{s:s, s:b}", "type", "object", "additionalProperties", 0);
    if (t->forced || json_is_true(json_object_get(f, "strict")) || can_be_enforced(p)) return moved(p, place);
    return json_pack("{s:s}", "type", "object");
}

// Of a call of the tool with this name, or of any (NULL).
static char *make_schema(const ToolSet *t, const ToolForm *form, const char *only) {
    json_t *defs = json_object(), *ways = json_array(), *root = json_object();
    for (size_t i = 0; i < arrlenu(t->names); i++) {
        char place[40];
        snprintf(place, sizeof place, "#/$defs/%zu", i);
        if (only && strcmp(only, t->names[i]) != 0) continue;
        json_object_set_new(defs, place + 8, parameters_of(t, i, place));
        json_t *way = json_pack("{s:s, s:{s:{s:s}, s:{s:s}}, s:[s, s], s:b}", "type", "object", "properties", "name",
                                "const", t->names[i], form->arguments, "$ref", place, "required", "name",
                                form->arguments, "additionalProperties", 0);
        json_array_append_new(ways, way);
    }
    json_object_set_new(root, "$defs", defs);
    if (form->list) {
        json_object_update_new(
            root, json_pack("{s:s, s:{s:o}, s:i}", "type", "array", "items", "anyOf", ways, "minItems", 1));
        if (only || t->single) json_object_set_new(root, "maxItems", json_integer(1));
    } else json_object_set_new(root, "anyOf", ways);
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (!text) die(1, "out of memory");
    return text;
}

// What tells a call where the form has no mark.
static char **make_begins(const ToolSet *t, const ToolForm *form) {
    char **list = NULL;
    for (size_t i = 0; i < arrlenu(t->names); i++) {
        char *begin;
        if (asprintf(&begin, "%s{\"name\":\"%s\"", form->list ? "[" : "", t->names[i]) < 0) die(1, "out of memory");
        arrput(list, begin);
    }
    arrput(list, NULL);
    return list;
}

// ---- the fields

static int read_choice(ToolSet *t, const ToolForm *form, const json_t *choice, ApiError *e) {
    static const char param[] = "tool_choice";
    const char *word = json_string_value(choice), *type = json_string_value(json_object_get(choice, "type")),
               *name = json_string_value(json_object_get(json_object_get(choice, "function"), "name"));
    if (word && !strcmp(word, "none")) return 0;
    if (!choice || (word && !strcmp(word, "auto"))) {
        if (t->names) t->schema = make_schema(t, form, NULL);
        if (t->names && !*form->mark) t->begins = make_begins(t, form);
        return 0;
    }
    if (word ? strcmp(word, "required") != 0 : !type || strcmp(type, "function") != 0 || !name)
        return api_fail(e, 400, param, "tool_choice: expected none, auto, required, or a function by its name");
    ptrdiff_t i = 0;
    while (name && i < arrlen(t->names) && strcmp(t->names[i], name) != 0) i++;
    if (i == arrlen(t->names)) return api_fail(e, 400, param, "tool_choice: the tool it asks for is not in tools");
    t->forced = true;
    t->schema = make_schema(t, form, name);
    return 0;
}

int toolset_read(ToolSet *t, const ToolForm *form, const char *why, const json_t *body, ApiError *error) {
    const json_t *list = body_field(body, "tools"), *choice = body_field(body, "tool_choice"),
                 *parallel = body_field(body, "parallel_tool_calls");
    const char *word = json_string_value(choice);
    if (parallel && !json_is_boolean(parallel))
        return api_fail(error, 400, "parallel_tool_calls", "parallel_tool_calls: expected true or false");
    t->single = json_is_false(parallel);
    if (list) {
        t->list = json_incref((json_t *)(uintptr_t)list);
        if (read_list(t, error)) return -1;
    }
    if (t->names && !form && !(word && !strcmp(word, "none"))) return api_fail(error, 400, "tools", "tools: %s", why);
    if (form && read_choice(t, form, choice, error)) return -1;
    if (word && !strcmp(word, "none")) toolset_free(t);
    return 0;
}

void toolset_free(ToolSet *t) {
    for (ptrdiff_t i = 0; i < arrlen(t->names); i++) free(t->names[i]);
    arrfree(t->names);
    for (ptrdiff_t i = 0; i < arrlen(t->begins); i++) free(t->begins[i]);
    arrfree(t->begins);
    json_decref(t->list);
    free(t->schema);
    *t = (ToolSet){0};
}

char *toolset_told(const ToolSet *t, const ToolForm *form) {
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f) die(1, "out of memory");
    fprintf(f, "You may call these functions:\n");
    for (size_t i = 0; i < arrlenu(t->names); i++) {
        char *one = json_dumps(function_of(t, i), JSON_COMPACT);
        fprintf(f, "%s\n", one ? one : "");
        free(one);
    }
    fprintf(f,
            "To call one, answer with its name and its arguments in this form:\n%s{\"name\": ..., \"%s\": {...}}\n%s",
            form->lead, form->arguments, form->close);
    fclose(f);
    return text;
}
