// check_schema: JSON Schemas as automata: what is accepted, what is refused, random texts against a validator of the
// test's own, masks against every token by itself, and free text with JSON behind marks.
#include "engine.h"
#include "make_marked.h"
#include "marked.h"
#include "schema.h"
#include "tokenmask.h"

#include "files.h"

#include <jansson.h>
#include <math.h>

typedef struct {
    Automaton *a;
    int start;
    char err[256];
} Form;

// ' stands for ". NULL: any object.
static Form form_open(const char *schema) {
    Form f = {.a = automaton_open()};
    char *text = schema ? json_of(schema) : NULL;
    json_t *root = text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
    CHECK(!schema || root, "the test's schema is no JSON: %s", schema);
    int rule = schema_compile(f.a, root, f.err, sizeof f.err);
    f.start = rule < 0 ? AUTOMATON_DEAD : automaton_start(f.a, rule);
    json_decref(root);
    free(text);
    return f;
}

static bool accepts(Form *f, const char *text) {
    int state = f->start;
    for (; *text; text++) state = automaton_next(f->a, state, (unsigned char)*text);
    return automaton_accepts(f->a, state);
}

static const struct {
    const char *schema, *yes[12], *no[14];
} cases[] = {
    {NULL,
     {"{}", "{'a':1}", "{'a': [1, {'b': null}], 'c': 'x'}", " {\n  'a': true\n}"},
     {"", "[]", "1", "{'a'}", "{'a':1,}", "{,}", "{}}", "{ a: 1}", "{}  "}},
    {"true",
     {"1", "-0.5e+10", "'a'", "[]", "{}", "null", "true", "[[[]]]", "[1, 2]"},
     {"01", ".5", "1.", "+1", "nul", "[1,]", "'a", "--1", "1e", "1e999"}},
    {"{'type': 'string'}",
     {"''", "'a'", "'\\n\\\"\\\\\\u00e9'", "'\\ud83d\\ude00'", "'h\xC3\xA9'", "'\xF0\x9F\x98\x80'"},
     {"'\n'", "'\\x'", "'\\ud83d'", "'\\ude00'", "'\xC3'", "'\xFF'", "'\xED\xA0\x80'", "'\xC0\x80'", "'", "a",
      "'\\u12'"}},
    {"{'type': 'string', 'minLength': 2, 'maxLength': 3}",
     {"'ab'", "'abc'", "'\xC3\xA9\xC3\xA9'", "'\\u00e9\\n'", "'\\ud83d\\ude00a'"},
     {"''", "'a'", "'abcd'", "'\xC3\xA9'"}},
    {"{'type': 'integer'}", {"0", "-1", "1234567890123456"}, {"1.0", "1e3", "-", "00", "12345678901234567"}},
    {"{'type': 'integer', 'minimum': 3, 'maximum': 120}",
     {"3", "9", "10", "99", "100", "120"},
     {"2", "0", "121", "200", "-3", "1000", "03"}},
    {"{'type': 'integer', 'minimum': -15, 'exclusiveMaximum': 8}",
     {"-15", "-10", "-9", "-1", "0", "7"},
     {"-16", "8", "-0", "-100", "10"}},
    {"{'type': 'integer', 'minimum': 1}", {"1", "10", "9999999999999999"}, {"0", "-1"}},
    {"{'type': 'integer', 'exclusiveMinimum': -1000, 'maximum': -999}", {"-999"}, {"-1000", "-998", "999"}},
    {"{'type': 'integer', 'minimum': 2.5, 'maximum': 4.5}", {"3", "4"}, {"2", "5"}},
    {"{'type': 'number'}", {"0", "-1.5", "1e5", "1E-5", "12.25e+02"}, {"1.", "e5", "NaN"}},
    {"{'type': ['string', 'null']}", {"'a'", "null"}, {"1", "nulL"}},
    {"{'type': 'boolean'}", {"true", "false"}, {"True", "null", "1"}},
    {"{'enum': ['red', 7, null, {'a': [1]}]}",
     {"'red'", "7", "null", "{'a':[1]}"},
     {"'re'", "'redd'", "77", "{'a': [1]}"}},
    {"{'const': 'x', 'type': 'string'}", {"'x'"}, {"'y'"}},
    {"{'type': 'object', 'properties': {'a': {'type': 'integer'}, 'b': {'type': 'string'}, 'c': {}}, 'required': "
     "['b'], 'additionalProperties': false}",
     {"{'b':''}", "{'a': 1, 'b': 'x'}", "{'b': 'x', 'c': [1]}", "{'a': 1, 'b': 'x', 'c': null}",
      "{\n    'a': 1,\n    'b': 'x'\n}"},
     {"{}", "{'a': 1}", "{'b': 1}", "{'c': 1, 'b': ''}", "{'b': '', 'd': 1}", "{'b': '',}", "{'b': '', 'b': ''}"}},
    {"{'type': 'object', 'properties': {'a': {'type': 'null'}, 'b': {'type': 'null'}}}",
     {"{}", "{'a':null}", "{'b':null}", "{'a':null,'b':null}", "{ }"},
     {"{,'b':null}", "{'b':null,'a':null}", "{'x':1}"}},
    {"{'type': 'object', 'additionalProperties': false}", {"{}", "{ }"}, {"{'a':1}"}},
    {"{'type': 'object', 'additionalProperties': {'type': 'integer'}}",
     {"{}", "{'x':1,'y':2}"},
     {"{'x':'1'}", "{'x':1,}"}},
    {"{'properties': {'quo\\\\\\'te': {'const': 1}}, 'required': ['quo\\\\\\'te']}", {"{'quo\\\\\\'te':1}"}, {"{}"}},
    {"{'type': 'array', 'items': {'type': 'integer'}}",
     {"[]", "[1]", "[1, 2,3]", "[ ]", "[\n 1\n]"},
     {"[,]", "[1,]", "['a']", "[1 2]"}},
    {"{'type': 'array', 'items': {'type': 'integer'}, 'minItems': 2, 'maxItems': 3}",
     {"[1,2]", "[1,2,3]"},
     {"[]", "[1]", "[1,2,3,4]"}},
    {"{'type': 'array', 'maxItems': 1}", {"[]", "[{}]"}, {"[1,2]"}},
    {"{'type': 'array', 'maxItems': 0}", {"[]"}, {"[1]"}},
    {"{'type': 'array', 'minItems': 1}", {"[1]", "[1,2]"}, {"[]", "[ ]"}},
    {"{'type': 'array', 'prefixItems': [{'type': 'integer'}, {'type': 'string'}], 'items': false}",
     {"[1,'a']"},
     {"[]", "[1]", "[1,'a',2]", "['a',1]"}},
    {"{'type': 'array', 'prefixItems': [{'type': 'integer'}], 'items': {'type': 'null'}, 'maxItems': 3}",
     {"[1]", "[1,null]", "[1,null,null]"},
     {"[]", "[1,1]", "[1,null,null,null]", "[null]"}},
    {"{'anyOf': [{'type': 'integer'}, {'type': 'object', 'properties': {'a': {'const': 1}}, 'required': ['a']}]}",
     {"3", "{'a':1}"},
     {"{}", "'x'"}},
    {"{'oneOf': [{'type': 'string'}, {'type': 'array'}]}", {"'x'", "[]"}, {"1"}},
    {"{'oneOf': [{'$ref': '#/$defs/cat'}, {'$ref': '#/$defs/dog'}], '$defs': {'cat': {'type': 'object', 'properties': "
     "{'kind': {'const': 'cat'}}, 'required': ['kind']}, 'dog': {'type': 'object', 'properties': {'kind': {'enum': "
     "['dog']}}, 'required': ['kind']}}}",
     {"{'kind':'cat'}", "{'kind':'dog'}"},
     {"{'kind':'cow'}"}},
    {"{'allOf': [{'type': 'null'}]}", {"null"}, {"1"}},
    {"{'$ref': '#/$defs/node', '$defs': {'node': {'type': 'object', 'properties': {'v': {'type': 'integer'}, 'next': "
     "{'anyOf': [{'$ref': '#/$defs/node'}, {'type': 'null'}]}}, 'required': ['v', 'next']}}}",
     {"{'v':1,'next':null}", "{'v':1,'next':{'v':2,'next':{'v':3,'next':null}}}"},
     {"{'v':1}", "{'v':1,'next':{'v':2}}"}},
    {"{'type': 'array', 'items': {'$ref': '#'}}", {"[]", "[[],[[]]]"}, {"[1]"}},
    {"{'properties': {'a/b~c': {'const': 1}, 'd': {'$ref': '#/properties/a~1b~0c'}}, 'required': ['d']}",
     {"{'d':1}"},
     {"{'d':2}"}},
};

static void accepted_and_not(void) {
    for (size_t i = 0; i < N_OF(cases); i++) {
        Form f = form_open(cases[i].schema);
        CHECK(f.start != AUTOMATON_DEAD, "case %zu: %s", i, f.err);
        for (int side = 0; side < 2; side++) {
            const char *const *list = side ? cases[i].no : cases[i].yes;
            for (int k = 0; k < (side ? 14 : 12) && list[k]; k++) {
                char *text = json_of(list[k]);
                CHECK(accepts(&f, text) == !side, "case %zu: %s: %s", i, side ? "accepted" : "not accepted", text);
                free(text);
            }
        }
        automaton_close(f.a);
    }
}

static void refused(void) {
    static const struct {
        const char *schema, *part;
    } list[] = {
        {"{'type': 'strnig'}", "strnig"},
        {"{'type': 7}", "type"},
        {"{'not': {}}", "not cannot be enforced"},
        {"{'type': 'string', 'pattern': '^(?=a)b$'}", "pattern"},
        {"{'type': 'string', 'format': 'hostname'}", "format"},
        {"{'type': 'number', 'minimum': 0}", "limits of numbers"},
        {"{'type': 'integer', 'multipleOf': 2}", "multipleOf"},
        {"{'type': 'integer', 'minimum': 3, 'maximum': 2}", "between"},
        {"{'type': 'integer', 'minimum': 1e300}", "digits"},
        {"{'type': 'integer', 'minimum': 'a'}", "minimum"},
        {"{'type': 'array', 'uniqueItems': true}", "uniqueItems"},
        {"{'type': 'array', 'minItems': 3, 'maxItems': 2}", "minItems"},
        {"{'type': 'array', 'minItems': -1}", "minItems"},
        {"{'type': 'array', 'maxItems': 1e9}", "maxItems"},
        {"{'type': 'array', 'items': false, 'minItems': 1}", "items"},
        {"{'type': 'array', 'items': {'type': 'x'}}", "\"x\""},
        {"{'type': 'array', 'items': {'type': 'array', 'maxItems': 4000, 'items': {'type': 'array', 'maxItems': 4000, "
         "'items': {'enum': []}}}}",
         "enum"},
        {"{'type': 'object', 'required': ['a']}", "required"},
        {"{'type': 'object', 'properties': []}", "properties"},
        {"{'type': 'object', 'patternProperties': {}}", "patternProperties"},
        {"{'anyOf': []}", "anyOf"},
        {"{'anyOf': [{'type': 'string'}], 'properties': {}}", "together with properties"},
        {"{'allOf': [{}, {}]}", "allOf"},
        {"{'oneOf': [{'type': 'integer'}, {'type': 'number'}]}", "exclude"},
        {"{'oneOf': [{'properties': {'a': {'const': 1}}}, {'properties': {'a': {'const': 2}}}]}", "exclude"},
        {"{'$ref': '#'}", "itself"},
        {"{'$ref': '#/$defs/a', '$defs': {'a': {'anyOf': [{'$ref': '#/$defs/b'}]}, 'b': {'anyOf': [{'type': 'null'}, "
         "{'$ref': '#/$defs/a'}]}}}",
         "itself"},
        {"{'$ref': '#/nowhere'}", "nowhere"},
        {"{'$ref': 'http://example.com/x'}", "example.com"},
        {"{'$ref': 3}", "$ref"},
        {"{'enum': {}}", "enum"},
        {"false", "expected an object"},
        {"[]", "expected an object"},
        {"3", "expected an object"},
    };
    for (size_t i = 0; i < N_OF(list); i++) {
        Form f = form_open(list[i].schema);
        CHECK(f.start == AUTOMATON_DEAD && strstr(f.err, list[i].part), "%s: expected '%s' in: %s", list[i].schema,
              list[i].part, f.start == AUTOMATON_DEAD ? f.err : "(accepted)");
        automaton_close(f.a);
    }
    char deep[8000] = "";
    for (int i = 0; i < 200; i++) strcat(deep, "{'items': ");
    strcat(deep, "{}");
    for (int i = 0; i < 200; i++) strcat(deep, "}");
    Form f = form_open(deep);
    CHECK(f.start == AUTOMATON_DEAD && strstr(f.err, "within one another"), "200 schemas deep: %s", f.err);
    automaton_close(f.a);
}

// ---- a validator, as the standard says it, without regard to how texts are made

static const json_t *target(const json_t *root, const char *ref) {
    const json_t *at = root;
    char copy[256];
    snprintf(copy, sizeof copy, "%s", ref);
    for (char *word = strtok(copy + 1, "/"); word; word = strtok(NULL, "/")) at = json_object_get(at, word);
    return at;
}

static size_t characters(const char *text) {
    size_t n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

static bool has_type(const json_t *v, const char *type) {
    return (!strcmp(type, "object") && json_is_object(v)) || (!strcmp(type, "array") && json_is_array(v)) ||
           (!strcmp(type, "string") && json_is_string(v)) || (!strcmp(type, "integer") && json_is_integer(v)) ||
           (!strcmp(type, "number") && json_is_number(v)) || (!strcmp(type, "boolean") && json_is_boolean(v)) ||
           (!strcmp(type, "null") && json_is_null(v));
}

static bool valid(const json_t *root, const json_t *schema, json_t *v);

static int count_valid(const json_t *root, const json_t *list, json_t *v) {
    int n = 0;
    for (size_t i = 0; i < json_array_size(list); i++) n += valid(root, json_array_get(list, i), v);
    return n;
}

static double limit_of(const json_t *schema, const char *key, double otherwise) {
    const json_t *v = json_object_get(schema, key);
    return v ? json_number_value(v) : otherwise;
}

static bool valid_object(const json_t *root, const json_t *schema, json_t *v) {
    const json_t *properties = json_object_get(schema, "properties"), *required = json_object_get(schema, "required"),
                 *more = json_object_get(schema, "additionalProperties");
    const char *key;
    json_t *part;
    for (size_t i = 0; i < json_array_size(required); i++)
        if (!json_object_get(v, json_string_value(json_array_get(required, i)))) return false;
    json_object_foreach(v, key, part) {
        const json_t *s = json_object_get(properties, key);
        if (s ? !valid(root, s, part) : more && !valid(root, more, part)) return false;
    }
    return true;
}

static bool valid_array(const json_t *root, const json_t *schema, const json_t *v) {
    const json_t *prefix = json_object_get(schema, "prefixItems"), *items = json_object_get(schema, "items");
    size_t n = json_array_size(v);
    if ((double)n < limit_of(schema, "minItems", 0) || (double)n > limit_of(schema, "maxItems", 1e9)) return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *s = i < json_array_size(prefix) ? json_array_get(prefix, i) : items;
        if (s && !valid(root, s, json_array_get(v, i))) return false;
    }
    return true;
}

static bool valid(const json_t *root, const json_t *schema, json_t *v) {
    if (json_is_boolean(schema)) return json_is_true(schema);
    const json_t *ref = json_object_get(schema, "$ref"), *type = json_object_get(schema, "type"), *list;
    bool typed = !type;
    if (ref) return valid(root, target(root, json_string_value(ref)), v);
    if (json_is_string(type)) typed = has_type(v, json_string_value(type));
    for (size_t i = 0; i < json_array_size(type); i++) typed |= has_type(v, json_string_value(json_array_get(type, i)));
    if (!typed) return false;
    if ((list = json_object_get(schema, "enum"))) {
        bool any = false;
        for (size_t i = 0; i < json_array_size(list); i++) any |= json_equal(json_array_get(list, i), v);
        if (!any) return false;
    }
    if (json_object_get(schema, "const") && !json_equal(json_object_get(schema, "const"), v)) return false;
    if ((list = json_object_get(schema, "anyOf")) && !count_valid(root, list, v)) return false;
    if ((list = json_object_get(schema, "oneOf")) && count_valid(root, list, v) != 1) return false;
    if ((list = json_object_get(schema, "allOf")) && count_valid(root, list, v) != (int)json_array_size(list))
        return false;
    if (json_is_number(v)) {
        double x = json_number_value(v);
        if (x < limit_of(schema, "minimum", -1e300) || x > limit_of(schema, "maximum", 1e300) ||
            x <= limit_of(schema, "exclusiveMinimum", -1e300) || x >= limit_of(schema, "exclusiveMaximum", 1e300))
            return false;
    }
    if (json_is_string(v)) {
        double n = (double)characters(json_string_value(v));
        if (n < limit_of(schema, "minLength", 0) || n > limit_of(schema, "maxLength", 1e9)) return false;
    }
    if (json_is_object(v)) return valid_object(root, schema, v);
    return !json_is_array(v) || valid_array(root, schema, v);
}

// A random text of the form, which ends with growing probability; stb-free. Returns its length, 0: it did not end.
static size_t random_text(Form *f, char *text, size_t most) {
    int state = f->start;
    for (size_t n = 0; n < most; n++) {
        if (automaton_accepts(f->a, state) && (test_u32() % 4 == 0 || !automaton_goes_on(f->a, state))) return n;
        unsigned allowed[256], n_allowed = 0, closing = 0;
        for (unsigned b = 0; b < 256; b++) {
            if (automaton_next(f->a, state, (unsigned char)b) == AUTOMATON_DEAD) continue;
            if (strchr("\"]}", (int)b) && b) closing = b;
            allowed[n_allowed++] = b;
        }
        CHECK(n_allowed, "nothing is allowed after %.*s", (int)n, text);
        if (!n_allowed) return 0;
        unsigned b = closing && test_u32() % 3 == 0 ? closing : allowed[test_u32() % n_allowed];
        text[n] = (char)b;
        state = automaton_next(f->a, state, (unsigned char)b);
    }
    return 0;
}

static void random_texts_are_valid(void) {
    enum { MOST = 4000 };
    char text[MOST];
    int n_valid = 0, n_endless = 0;
    for (size_t i = 0; i < N_OF(cases); i++) {
        Form f = form_open(cases[i].schema);
        char *schema_text = json_of(cases[i].schema ? cases[i].schema : "{'type': 'object'}");
        json_t *schema = json_loads(schema_text, JSON_DECODE_ANY, NULL);
        for (int round = 0; round < 300; round++) {
            size_t n = random_text(&f, text, MOST);
            n_endless += !n;
            if (!n) continue;
            json_error_t at;
            json_t *v = json_loadb(text, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &at);
            CHECK(v && valid(schema, schema, v), "case %zu: %.*s: %s", i, (int)n, text, v ? "not valid" : at.text);
            json_decref(v);
            n_valid++;
        }
        json_decref(schema);
        free(schema_text);
        automaton_close(f.a);
    }
    CHECK(n_valid > 5000 && n_endless < n_valid / 4, "%d texts, %d without an end", n_valid, n_endless);
}

// ---- masks

static void masks_are_those_of_each_token(void) {
    char err[256];
    Engine *e = engine_open("models/stories.bin", NULL, err, sizeof err);
    NEED(e, "%s", err);
    int vocab = engine_info(e).vocab_size, n_states = 0;
    uint64_t *mask = malloc(((size_t)vocab + 63) / 64 * 8);
    for (size_t i = 0; i < N_OF(cases); i += 3) {
        Form f = form_open(cases[i].schema);
        int state = f.start;
        for (int step = 0; step < 40 && state != AUTOMATON_DEAD; step++, n_states++) {
            memset(mask, 0, ((size_t)vocab + 63) / 64 * 8);
            int n = tokenmask_fill(e->order, f.a, state, mask), found = 0, pick = -1;
            for (int32_t id = 0; id < vocab; id++) {
                const Piece *p = tokenizer_piece(e->tokenizer, id);
                int s = state, byte = piece_byte(p);
                if (byte >= 0) s = automaton_next(f.a, s, (unsigned char)byte);
                for (int k = 0; byte < 0 && k < p->len; k++) s = automaton_next(f.a, s, (unsigned char)p->text[k]);
                bool allowed = p->type != TOKEN_CONTROL && p->type != TOKEN_UNKNOWN && p->len && s != AUTOMATON_DEAD;
                CHECK(allowed == (mask[id / 64] >> id % 64 & 1), "case %zu, step %d: token %d", i, step, id);
                if (allowed && test_u32() % (unsigned)++found == 0) pick = id;
            }
            CHECK(n == found, "case %zu: %d of %d tokens", i, n, found);
            state = pick < 0 ? AUTOMATON_DEAD : tokenmask_next(e->order, f.a, state, pick);
        }
        automaton_close(f.a);
    }
    CHECK(n_states > 100, "%d states", n_states);
    free(mask);
    engine_close(e);
}

// Greedy and sampled text of the shipped model, which knows no JSON, is what the schema says all the same.
static void a_model_obeys(void) {
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":20},\"age\":{"
        "\"type\":\"integer\",\"minimum\":0,\"maximum\":130},\"likes\":{\"type\":\"array\",\"items\":{"
        "\"enum\":[\"cats\",\"dogs\"]},\"maxItems\":3}},\"required\":[\"name\",\"age\",\"likes\"]}";
    char err[256];
    Engine *e = engine_open("models/stories.bin", NULL, err, sizeof err);
    NEED(e, "%s", err);
    json_t *root = json_loads(schema, 0, NULL);
    for (int round = 0; round < 8; round++) {
        SamplerOptions o = {.temperature = round ? 1.5f : 0, .seed = (uint64_t)round};
        Session *s = session_open(e, NULL, err, sizeof err);
        Sampler *sampler = sampler_open(&o, engine_info(e).vocab_size, err, sizeof err);
        Constraint *c = constraint_open(e, NULL, schema, err, sizeof err);
        NEED(c, "%s", err);
        int32_t *ids, tokens[400];
        int n = engine_encode(e, "Tom", 3, true, false, &ids, err, sizeof err), n_prompt = n;
        memcpy(tokens, ids, sizeof *ids * (size_t)n);
        free(ids);
        char text[2000] = "";
        TextOut *out = textout_open(e, false);
        while (n < 400 && !constraint_complete(c)) {
            NEED(!session_sync(s, tokens, n, err, sizeof err), "%s", err);
            const float *logits = constraint_mask(c, session_logits(s));
            NEED(logits, "no token is allowed after %s", text);
            tokens[n] = sampler_pick(sampler, logits);
            constraint_accept(c, tokens[n]);
            strcat(text, textout_push(out, tokens[n++]));
        }
        json_t *v = json_loads(text, 0, NULL);
        CHECK(v && valid(root, root, v), "round %d, %d tokens: %s", round, n - n_prompt, text);
        json_decref(v);
        textout_close(out);
        constraint_close(c);
        sampler_close(sampler);
        session_close(s);
    }
    json_decref(root);
    engine_close(e);
}

// ---- JSON behind marks

typedef struct {
    const char *mark, *close;
    bool once;
} MarkedCase;

static const char *without_blanks(const char *t) {
    for (int i = 0; i < 20 && *t && strchr(" \t\r\n", *t); i++) t++;
    return t;
}

// By searching for the mark, and reading what stands behind it.
static bool is_marked_text(const MarkedCase *m, const char *t, const json_t *schema) {
    while ((t = strstr(t, m->mark))) {
        json_error_t at;
        t = without_blanks(t + strlen(m->mark));
        json_t *v = json_loads(t, JSON_DISABLE_EOF_CHECK, &at);
        bool sound = v && valid(schema, schema, v);
        json_decref(v);
        if (!sound) return false;
        t += at.position;
        if (*m->close) t = without_blanks(t);
        if (strncmp(t, m->close, strlen(m->close)) != 0) return false;
        t += strlen(m->close);
        if (m->once) return !*t;
    }
    return true;
}

// Without a mark: by taking blanks out of the beginning up to the first difference, and reading what then is a value.
static bool is_bare_text(const char *const *begins, bool once, const char *t, const json_t *schema) {
    bool begun = false;
    for (; *begins && !begun; begins++) {
        const char *at = t, *of = *begins;
        bool quoted = false;
        for (; *of && *at; at++) {
            if (!quoted && strchr(" \t\r\n", *at)) continue;
            if (*at != *of) break;
            quoted ^= *of++ == '"';
        }
        begun = !*of;
    }
    if (!begun) return true;
    for (int n = 0; n == 0 || *t; n++) {
        json_error_t at;
        t = without_blanks(t);
        json_t *v = json_loads(t, JSON_DISABLE_EOF_CHECK, &at);
        bool sound = v && valid(schema, schema, v) && !(once && n);
        json_decref(v);
        if (!sound) return false;
        t += at.position;
    }
    return true;
}

static void free_text_without_marks(void) {
    static const char *const begins[] = {"{\"a\":\"x\"", "{\"a\":\"xy\"", "{\"a\":\"z\"", NULL};
    static const char *const common[] = {"{", "'a'", ":", "'x'", "'xy'", "'z'", "}",         " ",          "'",
                                         "x", "{ ",  "a", "'w'", ",",    "\n",  "{'a':'x'}", "{'a': 'xy'}"};
    json_t *schema = json_loads("{\"type\":\"object\",\"properties\":{\"a\":{\"enum\":[\"x\",\"xy\",\"z\"]}},"
                                "\"required\":[\"a\"],\"additionalProperties\":false}",
                                0, NULL);
    int n_yes = 0, n_calls = 0, n_no = 0;
    for (int once = 0; once < 2; once++) {
        Form f = {.a = automaton_open()};
        int rule = schema_compile(f.a, schema, f.err, sizeof f.err);
        f.start = automaton_start(f.a, marked_compile_bare(f.a, rule, begins, once));
        for (int round = 0; round < 80000; round++) {
            char text[400] = "";
            for (int n = 0, most = pick(9); n < most; n++) { // mostly what a call is made of, in its order
                const char *piece = common[pick(3) ? n % 7 : pick(N_OF(common))];
                size_t length = strlen(text);
                bool after_blank = length && strchr(" \n", text[length - 1]);
                if (!after_blank || !strchr(" \n", *piece)) strcat(text, piece); // in JSON one blank may stand, not two
            }
            for (char *c = text; *c; c++) *c = *c == '\'' ? '"' : *c;
            bool want = is_bare_text(begins, once, text, schema);
            CHECK(accepts(&f, text) == want, "once %d: %s: expected %d", once, text, want);
            n_yes += want;
            n_no += !want;
            n_calls += want && strstr(text, ":\"") && strchr(text, '}');
        }
        automaton_close(f.a);
    }
    CHECK(n_yes > 1000 && n_no > 200 && n_calls > 200, "%d accepted, %d of them with calls, %d not", n_yes, n_calls,
          n_no);
    json_decref(schema);
}

static void free_text_and_marks(void) {
    static const MarkedCase forms[] = {{"<t>", "</t>", false}, {"<t>", "</t>", true}, {"<<t<<", "", false},
                                       {"[T]", "", true},      {"aab", "b", false},   {"\xC3\xA9", ">", false}};
    static const char *const common[] = {"{'a':1}", "{'a': 2}", "{'a':3}", "{", " ", "\n", "x", "}", "'"};
    json_t *schema = json_loads("{\"type\":\"object\",\"properties\":{\"a\":{\"enum\":[1,2]}},\"required\":[\"a\"],"
                                "\"additionalProperties\":false}",
                                0, NULL);
    int n_yes = 0, n_calls = 0, n_no = 0;
    for (int i = 0; i < N_OF(forms); i++) {
        const MarkedCase *m = &forms[i];
        Form f = {.a = automaton_open()};
        int rule = schema_compile(f.a, schema, f.err, sizeof f.err);
        f.start = automaton_start(f.a, marked_compile(f.a, rule, m->mark, m->close, m->once));
        for (int round = 0; round < by_speed(4000, 4000, 40000); round++) {
            char text[400] = "";
            for (unsigned n = test_u32() % 12; n; n--) {
                unsigned kind = test_u32() % 8;
                size_t at = test_u32() % strlen(m->mark);
                if (kind < 2) strcat(text, m->mark);
                else if (kind < 4) strcat(text, m->close);
                else if (kind == 4) strncat(text, m->mark + at, 1 + test_u32() % 2);
                else strcat(text, common[test_u32() % (kind == 5 ? N_OF(common) : 2)]);
            }
            for (char *c = text; *c; c++) *c = *c == '\'' ? '"' : *c;
            bool want = is_marked_text(m, text, schema);
            CHECK(accepts(&f, text) == want, "form %d: %s: expected %d", i, text, want);
            n_yes += want;
            n_no += !want;
            n_calls += want && strstr(text, m->mark);
        }
        automaton_close(f.a);
    }
    CHECK(n_yes > 1000 && n_no > 1000 && n_calls > 200, "%d accepted, %d of them with calls, %d not", n_yes, n_calls,
          n_no);
    json_decref(schema);
}

// The tokens of a text that `said` is cut into at each |, then whether `next` may follow.
static const struct {
    const char *said, *next;
    bool allowed;
} after[] = {
    {"", "a", true},
    {"", "<call>", true},
    {"", "</call>", true},
    {"", "<think>", true},
    {"", "</s>", true},
    {"a|<think>|a", "</s>", true},
    {"", "ll>{'b", true},
    {"<|ca", "ll>{'b", false},
    {"<|ca", "ll>{'k", true},          // the mark and the beginning of a call
    {"<|ca|<think>", "ll>{'b", false}, // nothing stands between them in the text
    {"<|ca|<think>", "ll>{'k", true},
    {"<call>", "a", false},
    {"<call>", "{'k", true},
    {"<call>", "{'b", false},
    {"<call>", "</s>", false},
    {"<call>", "<think>", false},
    {"<call>", "<call>", false},
    {"<call>|{'k", "</call>", false},
    {"<call>|{'k|':1}", "</call>", true},
    {"<call>|{'k|':1}", "</s>", false},
    {"<call>|{'k|':1}", "a", false},
    {"<|ca|ll>{'k|':1}|</call>", "a", true},
    {"<|ca|ll>{'k|':1}|</call>|a|<call>", "{'b", false},
    {"<|ca|ll>{'k|':1}|</call>|a|<call>", "{'k", true},
    {"<call>|{'k|':1}|</call>", "</s>", true},
    {"<call>|{'k|':1}|</call>", "<think>", true},
};

static int32_t token_of(const Tokenizer *t, const char *text, size_t n) {
    char *json = json_of(text);
    int32_t id = 0;
    while (id < tokenizer_size(t) &&
           ((size_t)tokenizer_piece(t, id)->len != n || memcmp(tokenizer_piece(t, id)->text, json, n) != 0))
        id++;
    free(json);
    return id;
}

static void marks_of_tokens(void) {
    static const char *const words[] = {"a", "<", "ca", "ll>{\"b", "ll>{\"k", "{\"k", "{\"b", "\":1}"},
                             *const marks[] = {"<call>", "</call>", "<think>"};
    static const char schema[] = "{\"properties\":{\"k\":{\"type\":\"integer\"}}}";
    char err[256];
    Engine e = {.tokenizer = make_marked(words, N_OF(words), marks, N_OF(marks), TOKEN_CONTROL, false)};
    e.order = tokenorder_open(e.tokenizer, err, sizeof err);
    e.info.vocab_size = tokenizer_size(e.tokenizer);
    float *logits = calloc((size_t)e.info.vocab_size, sizeof *logits);
    for (int i = 0; i < N_OF(after); i++) {
        Constraint *c = constraint_open_marked(&e, NULL, schema, &(ConstraintMarks){"<call>", "</call>", false, NULL},
                                               err, sizeof err);
        NEED(c, "%s", err);
        for (const char *at = after[i].said; *at; at += strspn(at, "|")) {
            int32_t id = token_of(e.tokenizer, at, strcspn(at, "|"));
            const float *allowed = constraint_mask(c, logits);
            CHECK(allowed && allowed[id] == 0, "case %d: %s is not allowed", i, at);
            constraint_accept(c, id);
            at += strcspn(at, "|");
        }
        const float *allowed = constraint_mask(c, logits);
        int32_t id = token_of(e.tokenizer, after[i].next, strlen(after[i].next));
        CHECK(allowed && (allowed[id] == 0) == after[i].allowed, "case %d: %s behind %s", i, after[i].next,
              after[i].said);
        CHECK(!constraint_complete(c), "case %d is complete", i);
        constraint_close(c);
    }
    CHECK(!constraint_open_marked(&e, NULL, schema, &(ConstraintMarks){"", "", false, NULL}, err, sizeof err),
          "no mark");
    free(logits);
    tokenorder_close(e.order);
    tokenizer_free(e.tokenizer);
}

int main(void) {
    RUN(free_text_and_marks);
    RUN(free_text_without_marks);
    RUN(marks_of_tokens);
    RUN(accepted_and_not);
    RUN(refused);
    RUN(random_texts_are_valid);
    RUN(masks_are_those_of_each_token);
    RUN(a_model_obeys);
    return test_report();
}
