// jinja_tests: what stands behind "is". See jinja_run.h.
//
// Refuses a name that is no test, and values without an order.
#include "jinja_builtins.h"

typedef enum {
    IS_DEFINED,
    IS_UNDEFINED,
    IS_NONE,
    IS_STRING,
    IS_MAPPING,
    IS_ITERABLE,
    IS_SEQUENCE,
    IS_NUMBER,
    IS_INTEGER,
    IS_FLOAT,
    IS_BOOLEAN,
    IS_TRUE,
    IS_FALSE,
    IS_CALLABLE,
    IS_ODD,
    IS_EVEN,
    IS_DIVISIBLE,
    IS_EQUAL,
    IS_UNEQUAL,
    IS_LESS,
    IS_LESS_EQUAL,
    IS_GREATER,
    IS_GREATER_EQUAL,
    IS_IN,
    IS_LOWER,
    IS_UPPER,
    IS_SAME,
    IS_FILTER,
    IS_TEST,
    N_TESTS
} Test;

static const struct {
    const char *name;
    Test test;
} tests[] = {
    {"defined", IS_DEFINED},
    {"undefined", IS_UNDEFINED},
    {"none", IS_NONE},
    {"string", IS_STRING},
    {"mapping", IS_MAPPING},
    {"iterable", IS_ITERABLE},
    {"sequence", IS_SEQUENCE},
    {"number", IS_NUMBER},
    {"integer", IS_INTEGER},
    {"float", IS_FLOAT},
    {"boolean", IS_BOOLEAN},
    {"true", IS_TRUE},
    {"false", IS_FALSE},
    {"callable", IS_CALLABLE},
    {"odd", IS_ODD},
    {"even", IS_EVEN},
    {"divisibleby", IS_DIVISIBLE},
    {"eq", IS_EQUAL},
    {"equalto", IS_EQUAL},
    {"sameas", IS_SAME},
    {"filter", IS_FILTER},
    {"test", IS_TEST},
    {"==", IS_EQUAL},
    {"ne", IS_UNEQUAL},
    {"!=", IS_UNEQUAL},
    {"lt", IS_LESS},
    {"lessthan", IS_LESS},
    {"<", IS_LESS},
    {"le", IS_LESS_EQUAL},
    {"<=", IS_LESS_EQUAL},
    {"gt", IS_GREATER},
    {"greaterthan", IS_GREATER},
    {">", IS_GREATER},
    {"ge", IS_GREATER_EQUAL},
    {">=", IS_GREATER_EQUAL},
    {"in", IS_IN},
    {"lower", IS_LOWER},
    {"upper", IS_UPPER},
};

static bool divides(JinjaRun *r, JinjaValue v, int64_t by, int64_t rest) {
    int64_t i = jinja_index(r, v, "divisibleby");
    if (!by) jinja_fail(r->heap, "divisibleby: division by zero");
    int64_t left = by == -1 ? 0 : i % by;
    return (left < 0 ? -left : left) == rest;
}

static Test find_test(JinjaValue name) {
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        if (jinja_is_word(name, tests[i].name)) return tests[i].test;
    }
    return N_TESTS;
}

// Whether two values are one, not only equal.
static bool same(JinjaRun *r, JinjaValue a, JinjaValue b) {
    if (a.kind != b.kind) return false;
    if (a.kind == JINJA_LIST) return a.list == b.list;
    if (a.kind == JINJA_DICT) return a.dict == b.dict;
    return jinja_equal(r->heap, a, b);
}

bool jinja_test(JinjaRun *r, const char *name, JinjaValue v, Args *args) {
    Test test = find_test(jinja_word(name));
    jinja_step_over(r->heap, v);
    JinjaValue other = jinja_argument(args, 0, NULL);
    switch (test) {
    case IS_DEFINED: return v.kind != JINJA_UNDEFINED;
    case IS_UNDEFINED: return v.kind == JINJA_UNDEFINED;
    case IS_NONE: return v.kind == JINJA_NONE;
    case IS_STRING: return v.kind == JINJA_STRING;
    case IS_MAPPING: return v.kind == JINJA_DICT;
    case IS_ITERABLE:
    case IS_SEQUENCE:
        return v.kind == JINJA_STRING || v.kind == JINJA_LIST || v.kind == JINJA_DICT || v.kind == JINJA_UNDEFINED;
    case IS_NUMBER: return jinja_is_number(v);
    case IS_INTEGER: return v.kind == JINJA_INT;
    case IS_FLOAT: return v.kind == JINJA_FLOAT;
    case IS_BOOLEAN: return v.kind == JINJA_BOOL;
    case IS_TRUE: return v.kind == JINJA_BOOL && v.truth;
    case IS_FALSE: return v.kind == JINJA_BOOL && !v.truth;
    case IS_CALLABLE: return v.kind == JINJA_CALLABLE || v.kind == JINJA_LOOP;
    case IS_ODD: return divides(r, v, 2, 1);
    case IS_EVEN: return divides(r, v, 2, 0);
    case IS_DIVISIBLE: return divides(r, v, jinja_index(r, other, "divisibleby"), 0);
    case IS_EQUAL: return jinja_equal(r->heap, v, other);
    case IS_UNEQUAL: return !jinja_equal(r->heap, v, other);
    case IS_LESS: return jinja_compare(r->heap, v, other) < 0;
    case IS_LESS_EQUAL: return jinja_compare(r->heap, v, other) <= 0;
    case IS_GREATER: return jinja_compare(r->heap, v, other) > 0;
    case IS_GREATER_EQUAL: return jinja_compare(r->heap, v, other) >= 0;
    case IS_IN: return jinja_contains(r, other, v);
    case IS_LOWER: return jinja_is_of_case(jinja_string(r, v), false);
    case IS_UPPER: return jinja_is_of_case(jinja_string(r, v), true);
    case IS_SAME: return same(r, v, other);
    case IS_FILTER: return v.kind == JINJA_STRING && jinja_filter_find(v);
    case IS_TEST: return v.kind == JINJA_STRING && find_test(v) != N_TESTS;
    default: jinja_fail(r->heap, "unknown test '%.60s'", name);
    }
}
