// schema: see schema.h.
#include "schema.h"

#include "file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

enum {
    MOST_NODES = 1 << 18,
    MOST_REPEATS = 4096, // of characters or items that are counted
    MOST_DEPTH = 64,     // of schemas within schemas
    MOST_BLANKS = 20,    // of indentation
    MOST_DIGITS = 16,
};

typedef struct {
    Automaton *a;
    const json_t *root;                                                  // that $ref points into
    int space, value, object, array, string, character, number, integer; // rules; of any JSON
    struct {
        char *key;
        int value;
    } * rule_of;       // stb_ds string map: rules of $ref
    const char **open; // stb_ds array: $refs that are being followed since the last byte
    int depth;
    char *err;
    size_t errlen;
} Compiler;

static int compile(Compiler *c, const json_t *schema);

#define REFUSE(c, ...) fail((c)->err, (c)->errlen, "schema: " __VA_ARGS__)

// ---- any JSON

static int word(Compiler *c, const char *text, int next) {
    return automaton_text(c->a, text, strlen(text), next);
}

static int space(Compiler *c, int next) {
    return automaton_call(c->a, c->space, next);
}

static int optional(Compiler *c, int way, int next) {
    return automaton_either(c->a, way, next);
}

// At most `most` more of a rule.
static int up_to(Compiler *c, int rule, int most, int next) {
    int node = next;
    for (int i = 0; i < most; i++) node = optional(c, automaton_call(c->a, rule, node), next);
    return node;
}

static int any_more(Compiler *c, int rule, int next) {
    int loop = automaton_loop(c->a);
    automaton_loop_ways(c->a, loop, automaton_call(c->a, rule, loop), next);
    return loop;
}

static int exactly(Compiler *c, int rule, int n, int next) {
    for (int i = 0; i < n; i++) next = automaton_call(c->a, rule, next);
    return next;
}

static int rule_of(Compiler *c, int start) {
    int rule = automaton_rule(c->a);
    automaton_define(c->a, rule, start);
    return rule;
}

static int hex(Compiler *c, int next) {
    int letters = automaton_either(c->a, automaton_range(c->a, 'a', 'f', next), automaton_range(c->a, 'A', 'F', next));
    return automaton_either(c->a, automaton_range(c->a, '0', '9', next), letters);
}

// \uXXXX, behind the u: a character, or the two halves of one.
static int unicode_escape(Compiler *c) {
    Automaton *a = c->a;
    int two = hex(c, hex(c, AUTOMATON_END)), three = hex(c, two);
    int below_d =
        automaton_either(a, automaton_range(a, '0', '9', three),
                         automaton_either(a, automaton_range(a, 'a', 'c', three), automaton_range(a, 'A', 'C', three)));
    int above_d = automaton_either(a, automaton_range(a, 'e', 'f', three), automaton_range(a, 'E', 'F', three));
    int low = automaton_either(a, automaton_range(a, 'c', 'f', two), automaton_range(a, 'C', 'F', two));
    low = automaton_either(a, word(c, "\\ud", low), word(c, "\\uD", low));
    low = hex(c, hex(c, low));
    int high =
        automaton_either(a, automaton_range(a, '8', '9', low),
                         automaton_either(a, automaton_range(a, 'a', 'b', low), automaton_range(a, 'A', 'B', low)));
    int d = automaton_either(a, automaton_range(a, '0', '7', two), high);
    d = automaton_either(a, word(c, "d", d), word(c, "D", d));
    return automaton_either(a, automaton_either(a, below_d, above_d), d);
}

// A character of a string: as it is (table 3-7 of the Unicode standard), or escaped.
static int character(Compiler *c) {
    static const struct {
        int from, upto, second_from, second_upto, n;
    } forms[] = {{0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3}, {0xE1, 0xEC, 0x80, 0xBF, 3},
                 {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3}, {0xF0, 0xF0, 0x90, 0xBF, 4},
                 {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4}};
    Automaton *a = c->a;
    ByteSet plain = {0}, escapes = {0};
    for (int b = 0x20; b < 0x80; b++)
        if (b != '"' && b != '\\') byteset_add(&plain, (unsigned char)b);
    for (const char *e = "\"\\/bfnrt"; *e; e++) byteset_add(&escapes, (unsigned char)*e);
    int node = automaton_either(a, automaton_set(a, escapes, AUTOMATON_END), word(c, "u", unicode_escape(c)));
    node = automaton_either(a, automaton_set(a, plain, AUTOMATON_END), word(c, "\\", node));
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        int next = AUTOMATON_END;
        for (int k = 2; k < forms[i].n; k++) next = automaton_range(a, 0x80, 0xBF, next);
        next = automaton_range(a, forms[i].second_from, forms[i].second_upto, next);
        node = automaton_either(a, automaton_range(a, forms[i].from, forms[i].upto, next), node);
    }
    return node;
}

static int digits(Compiler *c, int least, int most, int next) { // in place
    int node = next;
    for (int i = least; i < most; i++) node = optional(c, automaton_range(c->a, '0', '9', node), next);
    for (int i = 0; i < least; i++) node = automaton_range(c->a, '0', '9', node);
    return node;
}

static int whole_number(Compiler *c, int next) {
    int from_1 = automaton_range(c->a, '1', '9', digits(c, 0, MOST_DIGITS - 1, next));
    int either = automaton_either(c->a, word(c, "0", next), from_1);
    return optional(c, word(c, "-", either), either);
}

static int decimal_number(Compiler *c) {
    ByteSet e = {.bits[1] = 1ull << ('e' - 64) | 1ull << ('E' - 64)}, sign = {.bits[0] = 1ull << '+' | 1ull << '-'};
    int power = digits(c, 1, 2, AUTOMATON_END);
    power = automaton_set(c->a, e, optional(c, automaton_set(c->a, sign, power), power));
    int end = optional(c, power, AUTOMATON_END);
    return whole_number(c, optional(c, word(c, ".", digits(c, 1, MOST_DIGITS, end)), end));
}

// Elements with commas between, of which `element` is a rule, and what closes them.
static int listed(Compiler *c, int element, const char *close) {
    int end = space(c, word(c, close, AUTOMATON_END));
    int more = rule_of(c, word(c, ",", space(c, automaton_call(c->a, element, AUTOMATON_END))));
    return space(c, optional(c, automaton_call(c->a, element, any_more(c, more, end)), word(c, close, AUTOMATON_END)));
}

static void define_json(Compiler *c) {
    Automaton *a = c->a;
    int blanks = AUTOMATON_END;
    ByteSet blank = {.bits[0] = 1ull << ' ' | 1ull << '\t'};
    for (int i = 0; i < MOST_BLANKS; i++) blanks = optional(c, automaton_set(a, blank, blanks), AUTOMATON_END);
    c->space = rule_of(
        c, automaton_either(a, AUTOMATON_END, automaton_either(a, word(c, " ", AUTOMATON_END), word(c, "\n", blanks))));
    c->character = rule_of(c, character(c));
    c->string = rule_of(c, word(c, "\"", any_more(c, c->character, word(c, "\"", AUTOMATON_END))));
    c->integer = rule_of(c, whole_number(c, AUTOMATON_END));
    c->number = rule_of(c, decimal_number(c));
    c->value = automaton_rule(a);
    int pair =
        rule_of(c, automaton_call(a, c->string, word(c, ":", space(c, automaton_call(a, c->value, AUTOMATON_END)))));
    c->object = rule_of(c, word(c, "{", listed(c, pair, "}")));
    c->array = rule_of(c, word(c, "[", listed(c, c->value, "]")));
    int node = automaton_either(a, word(c, "true", AUTOMATON_END),
                                automaton_either(a, word(c, "false", AUTOMATON_END), word(c, "null", AUTOMATON_END)));
    const int rules[] = {c->object, c->array, c->string, c->number};
    for (int i = 0; i < 4; i++) node = automaton_either(a, automaton_call(a, rules[i], AUTOMATON_END), node);
    automaton_define(a, c->value, node);
}

// ---- keywords

static const char *const annotations[] = {"title",    "description", "default",  "examples",    "example",
                                          "$schema",  "$id",         "$comment", "$anchor",     "deprecated",
                                          "readOnly", "writeOnly",   "$defs",    "definitions", NULL};

static bool is_in(const char *const *list, const char *name) {
    while (*list && strcmp(*list, name) != 0) list++;
    return *list;
}

// What is known, cannot be enforced here, and would change what is accepted.
static int refuse_keywords(Compiler *c, const json_t *schema) {
    static const char *const known[] = {"not",
                                        "if",
                                        "then",
                                        "else",
                                        "dependentRequired",
                                        "dependentSchemas",
                                        "patternProperties",
                                        "propertyNames",
                                        "minProperties",
                                        "maxProperties",
                                        "unevaluatedProperties",
                                        "unevaluatedItems",
                                        "contains",
                                        "minContains",
                                        "maxContains",
                                        "uniqueItems",
                                        "multipleOf",
                                        "additionalItems",
                                        "$dynamicRef",
                                        "$recursiveRef",
                                        "pattern",
                                        "format",
                                        "contentEncoding",
                                        "contentMediaType",
                                        "dependencies",
                                        NULL};
    for (int i = 0; known[i]; i++) {
        const json_t *v = json_object_get(schema, known[i]);
        bool harmless = !v || json_is_false(v) || (!strcmp(known[i], "minProperties") && json_integer_value(v) == 0);
        if (!harmless) return REFUSE(c, "%s cannot be enforced here", known[i]);
    }
    return 0;
}

static int read_count(Compiler *c, const json_t *schema, const char *name, int otherwise, int *n) {
    const json_t *v = json_object_get(schema, name);
    double x = json_number_value(v);
    *n = v ? (int)x : otherwise;
    if (!v || (json_is_number(v) && x >= 0 && x <= MOST_REPEATS && x == floor(x))) return 0;
    return REFUSE(c, "%s: expected an integer from 0 to %d", name, MOST_REPEATS);
}

// n of a rule in a row between least and most (-1: no limit) without anything between.
static int repeated(Compiler *c, int rule, int least, int most, int next) {
    return exactly(c, rule, least, most < 0 ? any_more(c, rule, next) : up_to(c, rule, most - least, next));
}

static int read_bounds(Compiler *c, const json_t *schema, const char *min, const char *max, int *least, int *most) {
    if (read_count(c, schema, min, 0, least) || read_count(c, schema, max, -1, most)) return -1;
    if (*most < 0 || *most >= *least) return 0;
    return REFUSE(c, "%s is above %s", min, max);
}

static int compile_string(Compiler *c, const json_t *schema) {
    int least, most;
    if (read_bounds(c, schema, "minLength", "maxLength", &least, &most)) return -1;
    return word(c, "\"", repeated(c, c->character, least, most, word(c, "\"", AUTOMATON_END)));
}

// Numbers of n digits from low to high, from digit `at` on; low_tight: the digits so far are those of low.
static int digits_between(Compiler *c, const char *low, const char *high, bool low_tight, bool high_tight) {
    if (!*low) return AUTOMATON_END;
    if (!low_tight && !high_tight) return digits(c, (int)strlen(low), (int)strlen(low), AUTOMATON_END);
    int from = low_tight ? *low : '0', upto = high_tight ? *high : '9';
    if (from == upto)
        return automaton_range(c->a, from, from, digits_between(c, low + 1, high + 1, low_tight, high_tight));
    int node = -1;
    if (low_tight) node = automaton_range(c->a, from, from, digits_between(c, low + 1, high + 1, true, false));
    if (high_tight) {
        int last = automaton_range(c->a, upto, upto, digits_between(c, low + 1, high + 1, false, true));
        node = node < 0 ? last : automaton_either(c->a, node, last);
    }
    from += low_tight;
    upto -= high_tight;
    if (from > upto) return node;
    return automaton_either(c->a, node,
                            automaton_range(c->a, from, upto, digits_between(c, low + 1, high + 1, false, false)));
}

// Whole numbers from low to high, 0 <= low <= high < 10^MOST_DIGITS.
static int naturals_between(Compiler *c, int64_t low, int64_t high) {
    int node = -1;
    for (int64_t power = 10, first = 0; first <= high; first = power, power *= 10) {
        char a[24], b[24];
        if (low >= power) continue;
        snprintf(a, sizeof a, "%lld", (long long)(low > first ? low : first));
        snprintf(b, sizeof b, "%lld", (long long)(high < power ? high : power - 1));
        int some = digits_between(c, a, b, true, true);
        node = node < 0 ? some : automaton_either(c->a, node, some);
    }
    return node;
}

static int read_limit(Compiler *c, const json_t *schema, const char *name, const char *exclusive, int sign,
                      int64_t *limit) {
    const int64_t most = 9999999999999999;
    const json_t *v = json_object_get(schema, name), *x = json_object_get(schema, exclusive);
    *limit = sign * most;
    if ((v && !json_is_number(v)) || (x && !json_is_number(x)))
        return REFUSE(c, "%s: expected a number", v && !json_is_number(v) ? name : exclusive);
    double bound = sign * (double)most;
    if (v) bound = sign < 0 ? ceil(json_number_value(v)) : floor(json_number_value(v));
    if (x) {
        double inside = sign < 0 ? floor(json_number_value(x)) + 1 : ceil(json_number_value(x)) - 1;
        if (!v || (sign < 0 ? inside > bound : inside < bound)) bound = inside;
    }
    if (fabs(bound) < (double)most) *limit = (int64_t)bound;
    else if (bound * sign < 0) return REFUSE(c, "%s: expected at most %d digits", v ? name : exclusive, MOST_DIGITS);
    return 0;
}

static bool has_limits(const json_t *schema) {
    return json_object_get(schema, "minimum") || json_object_get(schema, "maximum") ||
           json_object_get(schema, "exclusiveMinimum") || json_object_get(schema, "exclusiveMaximum");
}

static int compile_integer(Compiler *c, const json_t *schema) {
    int64_t low, high;
    if (!has_limits(schema)) return automaton_call(c->a, c->integer, AUTOMATON_END);
    if (read_limit(c, schema, "minimum", "exclusiveMinimum", -1, &low) ||
        read_limit(c, schema, "maximum", "exclusiveMaximum", 1, &high))
        return -1;
    if (low > high) return REFUSE(c, "no integer is between minimum and maximum");
    int node = high >= 0 ? naturals_between(c, low > 0 ? low : 0, high) : -1;
    if (low >= 0) return node;
    int below = word(c, "-", naturals_between(c, high < 0 ? -high : 1, -low));
    return node < 0 ? below : automaton_either(c->a, node, below);
}

static int compile_number(Compiler *c, const json_t *schema) {
    if (has_limits(schema)) return REFUSE(c, "limits of numbers that need not be integers cannot be enforced here");
    return automaton_call(c->a, c->number, AUTOMATON_END);
}

// A schema within a schema, as a rule; bytes stand before it.
static int compile_part(Compiler *c, const json_t *schema) {
    const char **open = c->open;
    c->open = NULL;
    int node = compile(c, schema);
    arrfree(c->open);
    c->open = open;
    return node < 0 ? -1 : rule_of(c, node);
}

// [ prefix items, then `rule` between least and most times ]; rule -1: none.
static int compile_array(Compiler *c, const json_t *schema) {
    const json_t *items = json_object_get(schema, "items"), *prefix = json_object_get(schema, "prefixItems");
    int least, most, n_prefix = (int)json_array_size(prefix);
    if (read_bounds(c, schema, "minItems", "maxItems", &least, &most)) return -1;
    if (prefix && !json_is_array(prefix)) return REFUSE(c, "prefixItems: expected a list");
    int rule = json_is_false(items) ? -1 : items ? compile_part(c, items) : c->value;
    if (items && rule < 0 && !json_is_false(items)) return -1;
    if (least < n_prefix) least = n_prefix; // all of them stand there
    if (most >= 0 && least > most) return REFUSE(c, "prefixItems are more than maxItems");
    if (rule < 0 && least > n_prefix) return REFUSE(c, "items: false leaves fewer than minItems");
    int end = space(c, word(c, "]", AUTOMATON_END)), node = end;
    if (rule >= 0) {
        int more = rule_of(c, word(c, ",", space(c, automaton_call(c->a, rule, AUTOMATON_END))));
        int n_more = n_prefix ? n_prefix : 1; // that come before a comma is sure
        node = most >= 0 && most < n_more
                   ? end
                   : repeated(c, more, least > n_more ? least - n_more : 0, most < 0 ? -1 : most - n_more, end);
        if (!n_prefix && most != 0) node = automaton_call(c->a, rule, node);
    }
    for (int i = n_prefix - 1; i >= 0; i--) {
        int part = compile_part(c, json_array_get(prefix, (size_t)i));
        if (part < 0) return -1;
        node = automaton_call(c->a, part, node);
        if (i) node = word(c, ",", space(c, node));
    }
    if (!n_prefix && !least && node != end) node = optional(c, node, word(c, "]", AUTOMATON_END));
    return word(c, "[", node == end ? end : space(c, node));
}

static bool is_required(const json_t *schema, const char *name) {
    const json_t *list = json_object_get(schema, "required");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *word = json_string_value(json_array_get(list, i));
        if (word && !strcmp(word, name)) return true;
    }
    return false;
}

// Properties in order, each with or without; two chains of nodes, since a comma stands only behind another property.
static int compile_properties(Compiler *c, const json_t *schema, json_t *properties) {
    const char *name;
    json_t *value;
    int *rules = NULL, end = space(c, word(c, "}", AUTOMATON_END)), first = end, later = end, rc = 0;
    bool *needed = NULL;
    json_object_foreach(properties, name, value) {
        json_t *key = json_string(name);
        char *text = json_dumps(key, JSON_ENCODE_ANY);
        int part = compile_part(c, value);
        if (part >= 0)
            part = rule_of(c, word(c, text, word(c, ":", space(c, automaton_call(c->a, part, AUTOMATON_END)))));
        json_decref(key);
        free(text);
        if (part < 0) rc = -1;
        if (rc) break;
        arrput(rules, part);
        arrput(needed, is_required(schema, name));
    }
    for (ptrdiff_t i = arrlen(rules) - 1; !rc && i >= 0; i--) {
        int with = automaton_call(c->a, rules[i], later), comma = word(c, ",", space(c, with));
        first = needed[i] ? with : optional(c, with, first);
        later = needed[i] ? comma : optional(c, comma, later);
    }
    arrfree(rules);
    arrfree(needed);
    return rc ? -1 : word(c, "{", first == end ? end : space(c, first));
}

static int compile_object(Compiler *c, const json_t *schema) {
    json_t *properties = json_object_get(schema, "properties");
    const json_t *more = json_object_get(schema, "additionalProperties"),
                 *required = json_object_get(schema, "required");
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        if (!name || !json_object_get(properties, name))
            return REFUSE(c, "required: \"%.40s\" is not in properties", name ? name : "(no string)");
    }
    if (properties && !json_is_object(properties)) return REFUSE(c, "properties: expected an object");
    if (json_object_size(properties) || json_is_false(more)) return compile_properties(c, schema, properties);
    if (!more || json_is_true(more)) return automaton_call(c->a, c->object, AUTOMATON_END);
    int part = compile_part(c, more);
    if (part < 0) return -1;
    int pair =
        rule_of(c, automaton_call(c->a, c->string, word(c, ":", space(c, automaton_call(c->a, part, AUTOMATON_END)))));
    return word(c, "{", listed(c, pair, "}"));
}

static int compile_literal(Compiler *c, const json_t *value) {
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    if (!text) return REFUSE(c, "out of memory");
    int node = word(c, text, AUTOMATON_END);
    free(text);
    return node;
}

static int either_of(Compiler *c, int a, int b) {
    return a < 0 ? b : automaton_either(c->a, a, b);
}

static int compile_enum(Compiler *c, const json_t *list) {
    int node = -1;
    if (!json_array_size(list)) return REFUSE(c, "enum: expected a list of at least one value");
    for (size_t i = 0; i < json_array_size(list); i++)
        node = either_of(c, node, compile_literal(c, json_array_get(list, i)));
    return node;
}

static int compile_any_of(Compiler *c, const json_t *list) {
    int node = -1;
    if (!json_array_size(list)) return REFUSE(c, "anyOf: expected a list of at least one schema");
    for (size_t i = 0; i < json_array_size(list); i++) {
        int one = compile(c, json_array_get(list, i));
        if (one < 0) return -1;
        node = either_of(c, node, one);
    }
    return node;
}

// ---- $ref

static const json_t *resolve(const Compiler *c, const char *ref) {
    const json_t *at = c->root;
    if (*ref++ != '#') return NULL;
    while (at && *ref == '/') {
        char name[256];
        size_t n = 0;
        for (ref++; *ref && *ref != '/' && n + 1 < sizeof name; ref++) { // RFC 6901
            bool escape = ref[0] == '~' && (ref[1] == '0' || ref[1] == '1');
            name[n++] = escape ? (ref[1] == '0' ? '~' : '/') : *ref;
            ref += escape;
        }
        name[n] = 0;
        at = json_is_array(at) ? json_array_get(at, (size_t)strtoul(name, NULL, 10)) : json_object_get(at, name);
    }
    return *ref ? NULL : at;
}

static int compile_ref(Compiler *c, const char *ref) {
    const json_t *target = resolve(c, ref);
    if (!target) return REFUSE(c, "$ref: nothing is at \"%.100s\"", ref);
    for (ptrdiff_t i = 0; i < arrlen(c->open); i++)
        if (!strcmp(c->open[i], ref)) return REFUSE(c, "$ref: \"%.100s\" is made of itself alone", ref);
    ptrdiff_t known = shgeti(c->rule_of, ref);
    if (known >= 0 && !arrlen(c->open)) return automaton_call(c->a, c->rule_of[known].value, AUTOMATON_END);
    int rule = known >= 0 ? c->rule_of[known].value : automaton_rule(c->a);
    if (known < 0) shput(c->rule_of, ref, rule);
    arrput(c->open, ref);
    int node = compile(c, target);
    arrsetlen(c->open, arrlen(c->open) - 1);
    if (node < 0) return -1;
    if (known < 0) automaton_define(c->a, rule, node);
    return node;
}

// ---- oneOf of what excludes one another

static const json_t *without_ref(const Compiler *c, const json_t *schema) {
    for (int i = 0; i < MOST_DEPTH && json_object_get(schema, "$ref"); i++) {
        const char *ref = json_string_value(json_object_get(schema, "$ref"));
        schema = ref ? resolve(c, ref) : NULL;
    }
    return schema;
}

static const json_t *fixed_value(const json_t *schema) { // const, or enum of one
    const json_t *list = json_object_get(schema, "enum");
    return json_array_size(list) == 1 ? json_array_get(list, 0) : json_object_get(schema, "const");
}

static bool exclude(const Compiler *c, const json_t *a, const json_t *b) {
    a = without_ref(c, a);
    b = without_ref(c, b);
    const json_t *x = fixed_value(a), *y = fixed_value(b);
    if (x && y) return !json_equal(x, y);
    const char *s = json_string_value(json_object_get(a, "type")), *t = json_string_value(json_object_get(b, "type"));
    bool numbers = s && t && strstr("integer number", s) && strstr("integer number", t);
    if (s && t && strcmp(s, t) != 0) return !numbers;
    json_t *properties = json_object_get(a, "properties"), *value;
    const char *name;
    json_object_foreach(properties, name, value) { // a tag
        x = fixed_value(value);
        y = fixed_value(json_object_get(json_object_get(b, "properties"), name));
        if (x && y && !json_equal(x, y) && is_required(a, name) && is_required(b, name)) return true;
    }
    return false;
}

static int compile_one_of(Compiler *c, const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        for (size_t k = 0; k < i; k++) {
            if (!exclude(c, json_array_get(list, i), json_array_get(list, k)))
                return REFUSE(
                    c, "oneOf: schemas %zu and %zu do not exclude one another by type, const or a required tag", k, i);
        }
    }
    return compile_any_of(c, list);
}

// ---- a schema

static int compile_type(Compiler *c, const json_t *schema, const char *type) {
    static const struct {
        const char *name;
        int (*compile)(Compiler *c, const json_t *schema);
    } types[] = {{"object", compile_object},
                 {"array", compile_array},
                 {"string", compile_string},
                 {"integer", compile_integer},
                 {"number", compile_number}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(type, types[i].name)) return types[i].compile(c, schema);
    if (!strcmp(type, "null")) return word(c, "null", AUTOMATON_END);
    if (!strcmp(type, "boolean"))
        return automaton_either(c->a, word(c, "true", AUTOMATON_END), word(c, "false", AUTOMATON_END));
    return REFUSE(c, "type: \"%.40s\" is none", type);
}

static int compile_types(Compiler *c, const json_t *schema) {
    const json_t *type = json_object_get(schema, "type");
    int node = -1;
    if (json_is_string(type)) return compile_type(c, schema, json_string_value(type));
    if (type && !json_array_size(type)) return REFUSE(c, "type: expected a string or a list of strings");
    for (size_t i = 0; i < json_array_size(type); i++) {
        const char *name = json_string_value(json_array_get(type, i));
        int one = name ? compile_type(c, schema, name) : REFUSE(c, "type: expected strings");
        if (one < 0) return -1;
        node = either_of(c, node, one);
    }
    if (node >= 0) return node;
    if (json_object_get(schema, "properties") || json_object_get(schema, "additionalProperties"))
        return compile_object(c, schema);
    if (json_object_get(schema, "items") || json_object_get(schema, "prefixItems")) return compile_array(c, schema);
    return automaton_call(c->a, c->value, AUTOMATON_END);
}

// Keywords that decide alone what is accepted: beside them stand only annotations.
static int compile_alone(Compiler *c, json_t *schema, const char *name) {
    static const char *const implied[] = {"type", "nullable", NULL}; // says again what the values of enum and const are
    const char *other;
    json_t *v;
    bool values = !strcmp(name, "enum") || !strcmp(name, "const");
    json_object_foreach(schema, other, v) {
        if (!strcmp(other, name) || is_in(annotations, other) || (values && is_in(implied, other))) continue;
        return REFUSE(c, "%s together with %.40s cannot be enforced here", name, other);
    }
    v = json_object_get(schema, name);
    if (!strcmp(name, "enum")) return compile_enum(c, v);
    if (!strcmp(name, "const")) return compile_literal(c, v);
    if (!strcmp(name, "anyOf")) return compile_any_of(c, v);
    if (!strcmp(name, "oneOf")) return compile_one_of(c, v);
    if (!strcmp(name, "allOf"))
        return json_array_size(v) == 1 ? compile(c, json_array_get(v, 0))
                                       : REFUSE(c, "allOf: only of one schema can it be enforced here");
    return json_is_string(v) ? compile_ref(c, json_string_value(v)) : REFUSE(c, "$ref: expected a string");
}

static int compile_keywords(Compiler *c, json_t *schema) {
    static const char *const alone[] = {"$ref", "enum", "const", "anyOf", "oneOf", "allOf"};
    if (json_is_true(schema)) return automaton_call(c->a, c->value, AUTOMATON_END);
    if (!json_is_object(schema)) return REFUSE(c, "expected an object");
    if (refuse_keywords(c, schema)) return -1;
    for (size_t i = 0; i < sizeof alone / sizeof *alone; i++)
        if (json_object_get(schema, alone[i])) return compile_alone(c, schema, alone[i]);
    return compile_types(c, schema);
}

// Returns the node that a text of the schema begins at.
static int compile(Compiler *c, const json_t *schema) {
    if (c->depth >= MOST_DEPTH) return REFUSE(c, "more than %d schemas within one another", MOST_DEPTH);
    if (automaton_size(c->a) > MOST_NODES) return REFUSE(c, "too large");
    c->depth++;
    int node = compile_keywords(c, (json_t *)(uintptr_t)schema);
    c->depth--;
    return node;
}

int schema_compile(Automaton *a, const json_t *schema, char *err, size_t errlen) {
    Compiler c = {.a = a, .root = schema, .err = err, .errlen = errlen};
    define_json(&c);
    int node = schema ? compile(&c, schema) : automaton_call(a, c.object, AUTOMATON_END);
    shfree(c.rule_of);
    arrfree(c.open);
    return node < 0 ? -1 : rule_of(&c, optional(&c, word(&c, " ", node), node)); // tokens may begin with a space
}
