// jinja: see jinja.h.
#include "jinja.h"

#include "file.h"
#include "jinja_run.h"
#include "utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RUN_DEPTH = 800 };

struct Jinja {
    JinjaHeap heap;
    JinjaNode *body;
};

static JinjaValue eval(JinjaRun *r, const JinjaNode *n);
static void run(JinjaRun *r, const JinjaNode *n);

// ---- scopes

static JinjaScope *scope_push(JinjaRun *r, JinjaScope *parent) {
    JinjaScope *s = jinja_alloc(r->heap, sizeof *s);
    s->parent = parent;
    return r->scope = s;
}

static void scope_set(JinjaRun *r, const char *name, JinjaValue v) {
    jinja_put_word(r->heap, &r->scope->names, name, v);
}

static JinjaValue scope_get(JinjaRun *r, const char *name) {
    for (JinjaScope *s = r->scope; s; s = s->parent) {
        JinjaValue *v = jinja_find_word(r->heap, &s->names, name);
        jinja_step(r->heap, 1);
        if (v) return *v;
    }
    JinjaFunction *f = jinja_global(name);
    if (f) return jinja_callable(r, f, jinja_none());
    if (strcmp(name, "self")) return (JinjaValue){.kind = JINJA_UNDEFINED, .name = name};
    JinjaValue blocks = jinja_dict(r->heap); // of the template, by name: it has none
    blocks.kind = JINJA_NAMESPACE;
    return blocks;
}

// ---- what the built-in functions use too

JinjaValue jinja_argument(const JinjaArguments *args, size_t i, const char *name) {
    for (size_t k = 0; name && k < args->n; k++) {
        if (args->names[k] && !strcmp(args->names[k], name)) return args->values[k];
    }
    if (i < args->n && !args->names[i]) return args->values[i];
    return (JinjaValue){.kind = JINJA_UNDEFINED};
}

JinjaValue jinja_callable(JinjaRun *r, JinjaFunction *function, JinjaValue self) {
    JinjaCallable *c = jinja_alloc(r->heap, sizeof *c);
    c->function = function;
    c->self = self;
    return (JinjaValue){.kind = JINJA_CALLABLE, .callable = c};
}

JinjaValue jinja_string(JinjaRun *r, JinjaValue v) {
    if (v.kind == JINJA_STRING) return v;
    JinjaBuffer b = {0};
    jinja_print(r->heap, &b, v);
    return jinja_take(&b);
}

size_t jinja_offset(JinjaValue s, int64_t i) {
    size_t at = 0;
    for (; i > 0 && at < s.text.n; i--)
        at += (size_t)utf8_unit(s.text.text + at, s.text.n - at < 4 ? (int)(s.text.n - at) : 4);
    return at;
}

static size_t count_characters(JinjaValue s) {
    size_t count = 0;
    for (size_t at = 0; at < s.text.n; count++)
        at += (size_t)utf8_unit(s.text.text + at, s.text.n - at < 4 ? (int)(s.text.n - at) : 4);
    return count;
}

size_t jinja_length(JinjaRun *r, JinjaValue v) {
    switch (v.kind) {
    case JINJA_UNDEFINED: return 0;
    case JINJA_STRING: jinja_step_over(r->heap, v); return count_characters(v);
    case JINJA_LIST: return v.list->n;
    case JINJA_DICT: return v.dict->n;
    default: jinja_fail(r->heap, "%s has no length", jinja_kind_name(v));
    }
}

JinjaList *jinja_items(JinjaRun *r, JinjaValue v) {
    if (v.kind == JINJA_LIST) return v.list;
    JinjaList *l = jinja_list(r->heap).list;
    if (v.kind == JINJA_DICT) {
        for (size_t i = 0; i < v.dict->n; i++) jinja_push(r->heap, l, v.dict->keys[i]);
    } else if (v.kind == JINJA_STRING) {
        for (size_t at = 0, next; at < v.text.n; at = next) {
            next = at + jinja_offset(jinja_slice(v, at, v.text.n), 1);
            jinja_push(r->heap, l, jinja_slice(v, at, next));
        }
    } else if (v.kind != JINJA_UNDEFINED) jinja_fail(r->heap, "%s cannot be iterated over", jinja_kind_name(v));
    return l;
}

bool jinja_contains(JinjaRun *r, JinjaValue in, JinjaValue v) {
    if (in.kind == JINJA_STRING) {
        if (v.kind != JINJA_STRING) jinja_fail(r->heap, "in: expected a string, found %s", jinja_kind_name(v));
        jinja_step(r->heap, in.text.n / 64);
        return !v.text.n || (in.text.n && memmem(in.text.text, in.text.n, v.text.text, v.text.n));
    }
    if (in.kind == JINJA_DICT) return jinja_find(r->heap, in.dict, v);
    const JinjaList *l = jinja_items(r, in);
    jinja_step(r->heap, l->n / 2);
    for (size_t i = 0; i < l->n; i++) {
        if (jinja_equal(r->heap, l->items[i], v)) return true;
    }
    return false;
}

int64_t jinja_index(JinjaRun *r, JinjaValue v, const char *what) {
    if (v.kind == JINJA_BOOL) return v.truth;
    if (v.kind != JINJA_INT) jinja_fail(r->heap, "%s: expected an integer, found %s", what, jinja_kind_name(v));
    return v.integer;
}

// ---- members

static const char *terminated(JinjaRun *r, JinjaText t) {
    char *word = jinja_alloc(r->heap, t.n + 1);
    if (t.n) memcpy(word, t.text, t.n);
    return word;
}

static const char *item_name(JinjaRun *r, JinjaValue key) {
    JinjaBuffer b = {0};
    if (key.kind != JINJA_INT) return NULL;
    jinja_append_word(r->heap, &b, "item ");
    jinja_print(r->heap, &b, key);
    return terminated(r, jinja_take(&b).text);
}

static JinjaValue loop_member(JinjaRun *r, JinjaLoop *l, JinjaValue key) {
    JinjaValue undefined = {.kind = JINJA_UNDEFINED};
    int64_t at = (int64_t)l->at, n = (int64_t)l->items->n;
    if (jinja_is_word(key, "index")) return jinja_int(at + 1);
    if (jinja_is_word(key, "index0")) return jinja_int(at);
    if (jinja_is_word(key, "revindex")) return jinja_int(n - at);
    if (jinja_is_word(key, "revindex0")) return jinja_int(n - at - 1);
    if (jinja_is_word(key, "first")) return jinja_bool(!at);
    if (jinja_is_word(key, "last")) return jinja_bool(at == n - 1);
    if (jinja_is_word(key, "length")) return jinja_int(n);
    if (jinja_is_word(key, "depth")) return jinja_int(l->depth);
    if (jinja_is_word(key, "depth0")) return jinja_int(l->depth - 1);
    if (jinja_is_word(key, "previtem")) return at ? l->items->items[at - 1] : undefined;
    if (jinja_is_word(key, "nextitem")) return at + 1 < n ? l->items->items[at + 1] : undefined;
    JinjaValue self = {.kind = JINJA_LOOP, .loop = l};
    JinjaFunction *f = jinja_method(self, key);
    return f ? jinja_callable(r, f, self) : undefined;
}

static JinjaValue item_of(JinjaRun *r, JinjaValue of, JinjaValue key) {
    JinjaValue undefined = {.kind = JINJA_UNDEFINED};
    if (of.kind == JINJA_DICT || of.kind == JINJA_NAMESPACE) {
        JinjaValue *v = jinja_find(r->heap, of.dict, key);
        return v ? *v : undefined;
    }
    if (key.kind == JINJA_BOOL) key = jinja_int(key.truth);
    if (key.kind != JINJA_INT || (of.kind != JINJA_LIST && of.kind != JINJA_STRING)) return undefined;
    int64_t n = (int64_t)jinja_length(r, of), i = key.integer < 0 ? key.integer + n : key.integer;
    if (i < 0 || i >= n) return undefined;
    if (of.kind == JINJA_LIST) return of.list->items[i];
    size_t at = jinja_offset(of, i);
    return jinja_slice(of, at, at + jinja_offset(jinja_slice(of, at, of.text.n), 1));
}

JinjaValue jinja_member(JinjaRun *r, JinjaValue of, JinjaValue key, bool item_first) {
    if (of.kind == JINJA_UNDEFINED)
        jinja_fail(r->heap, "'%s' is undefined", of.name ? of.name : "the value before a member");
    if (of.kind == JINJA_LOOP) return loop_member(r, of.loop, key);
    bool named = of.kind == JINJA_CALLABLE && of.callable->macro && jinja_is_word(key, "name");
    if (named) return jinja_word(of.callable->macro->name);
    JinjaValue item = item_first ? item_of(r, of, key) : (JinjaValue){.kind = JINJA_UNDEFINED};
    if (item.kind != JINJA_UNDEFINED) return item;
    JinjaFunction *f = key.kind == JINJA_STRING ? jinja_method(of, key) : NULL;
    if (f) return jinja_callable(r, f, of);
    item = item_of(r, of, key);
    if (item.kind == JINJA_UNDEFINED)
        item.name = key.kind == JINJA_STRING ? terminated(r, key.text) : item_name(r, key);
    return item;
}

static int64_t slice_end(JinjaRun *r, const JinjaNode *n, int64_t length, int64_t otherwise, bool down) {
    if (!n) return otherwise;
    JinjaValue v = eval(r, n);
    if (v.kind == JINJA_NONE) return otherwise;
    int64_t i = jinja_index(r, v, "slice"), least = down ? -1 : 0, most = down ? length - 1 : length;
    if (i < 0) i = i < -length ? least : i + length;
    return i < least ? least : i > most ? most : i;
}

static JinjaValue eval_slice(JinjaRun *r, const JinjaNode *n) {
    JinjaValue of = eval(r, n->a);
    if (of.kind != JINJA_LIST && of.kind != JINJA_STRING) jinja_fail(r->heap, "%s has no slices", jinja_kind_name(of));
    JinjaValue step_value = n->parts[2] ? eval(r, n->parts[2]) : jinja_none();
    int64_t step = step_value.kind == JINJA_NONE ? 1 : jinja_index(r, step_value, "slice");
    if (!step) jinja_fail(r->heap, "a slice's step is zero");
    int64_t length = (int64_t)jinja_length(r, of);
    int64_t begin = slice_end(r, n->parts[0], length, step < 0 ? length - 1 : 0, step < 0);
    int64_t end = slice_end(r, n->parts[1], length, step < 0 ? -1 : length, step < 0);
    if (of.kind == JINJA_STRING && step == 1)
        return jinja_slice(of, jinja_offset(of, begin), jinja_offset(of, end < begin ? begin : end));
    JinjaValue l = jinja_list(r->heap);
    const JinjaList *from = jinja_items(r, of);
    if (step > length) step = length + 1;
    if (step < -length) step = -length - 1;
    for (int64_t i = begin; step > 0 ? i < end : i > end; i += step) jinja_push(r->heap, l.list, from->items[i]);
    if (of.kind == JINJA_LIST) {
        l.list->tuple = of.list->tuple;
        return l;
    }
    JinjaBuffer b = {0};
    for (size_t i = 0; i < l.list->n; i++) jinja_append(r->heap, &b, l.list->items[i].text);
    return jinja_take(&b);
}

// ---- operators

static int64_t floor_divide(int64_t a, int64_t b) {
    int64_t q = a / b;
    return a % b && (a < 0) != (b < 0) ? q - 1 : q;
}

static JinjaValue integer_power(JinjaRun *r, int64_t a, int64_t b) {
    int64_t result = 1;
    for (; b; b--) {
        jinja_step(r->heap, 1);
        if (__builtin_mul_overflow(result, a, &result)) jinja_fail(r->heap, "the result needs more than 64 bits");
    }
    return jinja_int(result);
}

static JinjaValue integer_operator(JinjaRun *r, JinjaOp op, int64_t a, int64_t b) {
    int64_t result = 0;
    bool over = false;
    if ((op == OP_DIVIDE || op == OP_FLOOR || op == OP_MODULO) && !b) jinja_fail(r->heap, "division by zero");
    if ((op == OP_FLOOR || op == OP_MODULO) && b == -1) { // the least integer has no opposite
        over = op == OP_FLOOR && __builtin_sub_overflow(0, a, &result);
    } else if (op == OP_ADD) over = __builtin_add_overflow(a, b, &result);
    else if (op == OP_SUBTRACT) over = __builtin_sub_overflow(a, b, &result);
    else if (op == OP_MULTIPLY) over = __builtin_mul_overflow(a, b, &result);
    else if (op == OP_FLOOR) result = floor_divide(a, b);
    else if (op == OP_MODULO) result = a - b * floor_divide(a, b);
    else if (op == OP_DIVIDE) return jinja_real((double)a / (double)b);
    else return b < 0 ? jinja_real(pow((double)a, (double)b)) : integer_power(r, a, b);
    if (over) jinja_fail(r->heap, "the result needs more than 64 bits");
    return jinja_int(result);
}

static JinjaValue number_operator(JinjaRun *r, JinjaOp op, JinjaValue a, JinjaValue b) {
    if (a.kind != JINJA_FLOAT && b.kind != JINJA_FLOAT)
        return integer_operator(r, op, jinja_index(r, a, "operator"), jinja_index(r, b, "operator"));
    double x = jinja_number(a), y = jinja_number(b);
    if ((op == OP_DIVIDE || op == OP_FLOOR || op == OP_MODULO) && y == 0) jinja_fail(r->heap, "division by zero");
    if (op == OP_ADD) return jinja_real(x + y);
    if (op == OP_SUBTRACT) return jinja_real(x - y);
    if (op == OP_MULTIPLY) return jinja_real(x * y);
    if (op == OP_DIVIDE) return jinja_real(x / y);
    if (op == OP_FLOOR) return jinja_real(floor(x / y));
    if (op == OP_MODULO) return jinja_real(x - y * floor(x / y));
    return jinja_real(pow(x, y));
}

static JinjaValue join_two(JinjaRun *r, JinjaValue a, JinjaValue b) {
    JinjaBuffer out = {0};
    jinja_append(r->heap, &out, a.text);
    jinja_append(r->heap, &out, b.text);
    return jinja_take(&out);
}

// Its size is known before any of it is made.
static JinjaValue repeat(JinjaRun *r, JinjaValue of, int64_t times) {
    JinjaBuffer b = {0};
    JinjaValue l = jinja_list(r->heap);
    l.list->tuple = of.kind == JINJA_LIST && of.list->tuple;
    size_t one = of.kind == JINJA_STRING ? of.text.n : of.list->n, n = 0;
    if (times < 0) times = 0;
    jinja_step(r->heap, (size_t)times);
    if (__builtin_mul_overflow(one, (size_t)times, &n) || n > r->heap->most)
        jinja_fail(r->heap, "more memory than the %zu bytes that a template may use", r->heap->most);
    if (of.kind == JINJA_STRING) jinja_reserve(r->heap, &b, n);
    else l.list->items = jinja_alloc(r->heap, (l.list->room = n) * sizeof *l.list->items);
    for (int64_t i = 0; i < times; i++) {
        if (of.kind == JINJA_STRING) jinja_append(r->heap, &b, of.text);
        for (size_t k = 0; of.kind == JINJA_LIST && k < of.list->n; k++) jinja_push(r->heap, l.list, of.list->items[k]);
    }
    return of.kind == JINJA_STRING ? jinja_take(&b) : l;
}

static JinjaValue join_lists(JinjaRun *r, JinjaList *a, JinjaList *b) {
    JinjaValue l = jinja_list(r->heap);
    l.list->tuple = a->tuple;
    for (size_t i = 0; i < a->n; i++) jinja_push(r->heap, l.list, a->items[i]);
    for (size_t i = 0; i < b->n; i++) jinja_push(r->heap, l.list, b->items[i]);
    return l;
}

static JinjaValue percent(JinjaRun *r, JinjaValue format, JinjaValue v) {
    static const char *const none[1] = {NULL};
    JinjaArguments args = {&v, (const char **)(uintptr_t)none, 1};
    if (v.kind == JINJA_LIST && v.list->tuple) {
        args = (JinjaArguments){v.list->items, jinja_alloc(r->heap, (v.list->n + 1) * sizeof *args.names), v.list->n};
    }
    return jinja_format_percent(r, format, &args);
}

static JinjaValue arithmetic(JinjaRun *r, JinjaOp op, JinjaValue a, JinjaValue b) {
    static const char *const words[] = {"+", "-", "*", "/", "//", "%", "**", "~"};
    bool sequence = a.kind == JINJA_STRING || a.kind == JINJA_LIST;
    if (op == OP_JOIN) return join_two(r, jinja_string(r, a), jinja_string(r, b));
    if (jinja_is_number(a) && jinja_is_number(b)) return number_operator(r, op, a, b);
    if (op == OP_ADD && a.kind == JINJA_STRING && b.kind == JINJA_STRING) return join_two(r, a, b);
    bool lists = a.kind == JINJA_LIST && b.kind == JINJA_LIST && a.list->tuple == b.list->tuple;
    if (op == OP_ADD && lists) return join_lists(r, a.list, b.list);
    if (op == OP_MULTIPLY && sequence && b.kind == JINJA_INT) return repeat(r, a, b.integer);
    if (op == OP_MULTIPLY && a.kind == JINJA_INT && (b.kind == JINJA_STRING || b.kind == JINJA_LIST))
        return repeat(r, b, a.integer);
    if (op == OP_MODULO && a.kind == JINJA_STRING) return percent(r, a, b);
    const char *name = a.kind == JINJA_UNDEFINED ? a.name : b.kind == JINJA_UNDEFINED ? b.name : NULL;
    if (name) jinja_fail(r->heap, "'%s' is undefined", name);
    jinja_fail(r->heap, "%s %s %s: not possible", jinja_kind_name(a), words[op], jinja_kind_name(b));
}

static JinjaValue eval_binary(JinjaRun *r, const JinjaNode *n) {
    JinjaValue a = eval(r, n->a), b = eval(r, n->b);
    r->heap->line = n->line;
    switch (n->op) {
    case OP_EQUAL: return jinja_bool(jinja_equal(r->heap, a, b));
    case OP_UNEQUAL: return jinja_bool(!jinja_equal(r->heap, a, b));
    case OP_LESS: return jinja_bool(jinja_compare(r->heap, a, b) < 0);
    case OP_LESS_EQUAL: return jinja_bool(jinja_compare(r->heap, a, b) <= 0);
    case OP_GREATER: return jinja_bool(jinja_compare(r->heap, a, b) > 0);
    case OP_GREATER_EQUAL: return jinja_bool(jinja_compare(r->heap, a, b) >= 0);
    case OP_IN: return jinja_bool(jinja_contains(r, b, a));
    case OP_NOT_IN: return jinja_bool(!jinja_contains(r, b, a));
    default: return arithmetic(r, n->op, a, b);
    }
}

static JinjaValue negate(JinjaRun *r, JinjaValue v) {
    if (v.kind == JINJA_FLOAT) return jinja_real(-v.real);
    return integer_operator(r, OP_SUBTRACT, 0, jinja_index(r, v, "-"));
}

// ---- calls

typedef struct {
    JinjaArguments args;
    size_t room, names_room;
} ArgumentList;

static void add_argument(JinjaRun *r, ArgumentList *l, const char *name, JinjaValue v) {
    l->args.values = jinja_grow(r->heap, l->args.values, l->args.n, &l->room, sizeof v);
    l->args.names = jinja_grow(r->heap, l->args.names, l->args.n, &l->names_room, sizeof name);
    l->args.names[l->args.n] = name;
    l->args.values[l->args.n++] = v;
}

// The arguments that stand behind a * or **.
static void add_several(JinjaRun *r, ArgumentList *l, const char *star, JinjaValue v) {
    bool named = star[1];
    if (named && v.kind != JINJA_DICT)
        jinja_fail(r->heap, "arguments: expected a mapping after **, found %s", jinja_kind_name(v));
    const JinjaList *keys = jinja_items(r, v);
    for (size_t i = 0; i < keys->n; i++) {
        if (named && keys->items[i].kind != JINJA_STRING)
            jinja_fail(r->heap, "arguments: expected names after **, found %s", jinja_kind_name(keys->items[i]));
        add_argument(r, l, named ? terminated(r, keys->items[i].text) : NULL,
                     named ? v.dict->values[i] : keys->items[i]);
    }
}

// Those without names come first, whatever their order.
static JinjaArguments eval_arguments(JinjaRun *r, const JinjaNode *n) {
    ArgumentList l = {0};
    l.args.values = jinja_grow(r->heap, NULL, 0, &l.room, sizeof *l.args.values); // no NULL when there are none
    l.args.names = jinja_grow(r->heap, NULL, 0, &l.names_room, sizeof *l.args.names);
    for (size_t i = 0; i < 2 * n->n; i++) {
        const char *name = n->names[i % n->n];
        bool star = name && *name == '*', named = name && strcmp(name, "*");
        if (named != (i >= n->n)) continue;
        JinjaValue v = eval(r, n->parts[i % n->n]);
        if (star) add_several(r, &l, name, v);
        else add_argument(r, &l, name, v);
    }
    return l.args;
}

static JinjaValue captured(JinjaRun *r, const JinjaNode *body) {
    JinjaBuffer b = {0}, *outer = r->out;
    r->out = &b;
    run(r, body);
    r->out = outer;
    return jinja_take(&b);
}

static JinjaValue call_macro(JinjaRun *r, const JinjaCallable *c, const JinjaArguments *args) {
    const JinjaNode *m = c->macro;
    JinjaScope *outer = r->scope;
    JinjaFlow flow = r->flow;
    size_t positional = 0;
    for (size_t i = 0; i < args->n; i++) {
        bool known = args->names[i] && !strcmp(args->names[i], "caller");
        for (size_t k = 0; args->names[i] && k < m->n; k++) known = known || !strcmp(m->names[k], args->names[i]);
        if (!args->names[i]) known = positional++ < m->n;
        if (!known)
            jinja_fail(r->heap, "macro %s: takes no argument %s", m->name, args->names[i] ? args->names[i] : "more");
    }
    scope_push(r, c->scope);
    JinjaValue caller = jinja_argument(args, SIZE_MAX, "caller");
    if (caller.kind != JINJA_UNDEFINED) scope_set(r, "caller", caller);
    for (size_t i = 0; i < m->n; i++) {
        JinjaValue v = jinja_argument(args, i, m->names[i]);
        if (v.kind == JINJA_UNDEFINED && m->parts[i]) v = eval(r, m->parts[i]);
        if (v.kind == JINJA_UNDEFINED) v.name = m->names[i];
        scope_set(r, m->names[i], v);
    }
    JinjaValue out = captured(r, m->e);
    r->scope = outer;
    r->flow = flow;
    return out;
}

JinjaValue jinja_call(JinjaRun *r, JinjaValue v, const JinjaArguments *args) {
    if (v.kind == JINJA_LOOP) return jinja_loop_again(r, v, args);
    if (v.kind == JINJA_UNDEFINED && v.name) jinja_fail(r->heap, "'%s' is undefined", v.name);
    if (v.kind != JINJA_CALLABLE) jinja_fail(r->heap, "%s cannot be called", jinja_kind_name(v));
    jinja_step_over(r->heap, v.callable->self);
    return v.callable->function ? v.callable->function(r, v.callable->self, args) : call_macro(r, v.callable, args);
}

static JinjaValue eval_call(JinjaRun *r, const JinjaNode *n) {
    JinjaValue f = eval(r, n->a);
    JinjaArguments args = eval_arguments(r, n);
    r->heap->line = n->line;
    return jinja_call(r, f, &args);
}

static JinjaValue apply_filter(JinjaRun *r, const JinjaNode *n, JinjaValue input);

// The filters of a chain that begins with the text of a block.
static JinjaValue eval_chain(JinjaRun *r, const JinjaNode *n, JinjaValue input) {
    if (!n) return input;
    if (n->kind != NODE_FILTER) jinja_fail(r->heap, "expected filters");
    return apply_filter(r, n, eval_chain(r, n->a, input));
}

static JinjaValue apply_filter(JinjaRun *r, const JinjaNode *n, JinjaValue input) {
    JinjaArguments args = eval_arguments(r, n);
    r->heap->line = n->line;
    return jinja_filter(r, n->name, input, &args);
}

// ---- expressions

static JinjaValue eval_collection(JinjaRun *r, const JinjaNode *n) {
    if (n->kind == NODE_DICT) {
        JinjaValue d = jinja_dict(r->heap);
        for (size_t i = 0; i < n->n; i += 2) {
            JinjaValue key = eval(r, n->parts[i]);
            jinja_put(r->heap, d.dict, key, eval(r, n->parts[i + 1]));
        }
        return d;
    }
    JinjaValue l = jinja_list(r->heap);
    l.list->tuple = n->kind == NODE_TUPLE;
    for (size_t i = 0; i < n->n; i++) jinja_push(r->heap, l.list, eval(r, n->parts[i]));
    return l;
}

static JinjaValue eval_test(JinjaRun *r, const JinjaNode *n) {
    JinjaValue v = eval(r, n->a);
    JinjaArguments args = eval_arguments(r, n);
    r->heap->line = n->line;
    return jinja_bool(jinja_test(r, n->name, v, &args));
}

static JinjaValue eval_node(JinjaRun *r, const JinjaNode *n) {
    JinjaValue v;
    switch (n->kind) {
    case NODE_LITERAL: return n->value;
    case NODE_NAME: return scope_get(r, n->name);
    case NODE_LIST:
    case NODE_TUPLE:
    case NODE_DICT: return eval_collection(r, n);
    case NODE_NOT: return jinja_bool(!jinja_true(eval(r, n->a)));
    case NODE_NEGATE: return negate(r, eval(r, n->a));
    case NODE_PLUS: return eval(r, n->a);
    case NODE_BINARY: return eval_binary(r, n);
    case NODE_AND: v = eval(r, n->a); return jinja_true(v) ? eval(r, n->b) : v;
    case NODE_OR: v = eval(r, n->a); return jinja_true(v) ? v : eval(r, n->b);
    case NODE_CHOICE:
        if (jinja_true(eval(r, n->b))) return eval(r, n->a);
        return n->c ? eval(r, n->c) : (JinjaValue){.kind = JINJA_UNDEFINED};
    case NODE_MEMBER: return jinja_member(r, eval(r, n->a), jinja_word(n->name), false);
    case NODE_INDEX: v = eval(r, n->a); return jinja_member(r, v, eval(r, n->b), true);
    case NODE_SLICE: return eval_slice(r, n);
    case NODE_CALL: return eval_call(r, n);
    case NODE_FILTER: return apply_filter(r, n, eval(r, n->a));
    case NODE_TEST: return eval_test(r, n);
    default: jinja_fail(r->heap, "expected an expression");
    }
}

static void enter(JinjaRun *r, const JinjaNode *n) {
    jinja_step(r->heap, 1);
    r->heap->line = n->line;
    if (++r->depth > RUN_DEPTH) jinja_fail(r->heap, "calls nested deeper than %d", RUN_DEPTH);
}

static JinjaValue eval(JinjaRun *r, const JinjaNode *n) {
    enter(r, n);
    JinjaValue v = eval_node(r, n);
    r->depth--;
    return v;
}

// ---- statements

static void assign(JinjaRun *r, const JinjaNode *target, JinjaValue v) {
    if (target->kind == NODE_NAME) {
        scope_set(r, target->name, v);
    } else if (target->kind == NODE_TUPLE) {
        JinjaList *l = jinja_items(r, v);
        if (l->n != target->n) jinja_fail(r->heap, "%zu values for %zu names", l->n, target->n);
        for (size_t i = 0; i < l->n; i++) assign(r, target->parts[i], l->items[i]);
    } else if (target->kind == NODE_MEMBER) {
        JinjaValue of = eval(r, target->a);
        if (of.kind != JINJA_NAMESPACE)
            jinja_fail(r->heap, "set: expected a namespace before the member, found %s", jinja_kind_name(of));
        jinja_put_word(r->heap, of.dict, target->name, v);
    } else jinja_fail(r->heap, "set: expected a name");
}

static void run_if(JinjaRun *r, const JinjaNode *n) {
    for (size_t i = 0; i < n->n; i += 2) {
        if (!jinja_true(eval(r, n->parts[i]))) continue;
        run(r, n->parts[i + 1]);
        return;
    }
    if (n->c) run(r, n->c);
}

static void run_loop(JinjaRun *r, const JinjaNode *n, JinjaValue over, int depth) {
    JinjaScope *outer = r->scope;
    if (over.kind == JINJA_UNDEFINED && over.name && depth > 1) over.name = NULL;
    JinjaList *all = jinja_items(r, over), *items = jinja_list(r->heap).list;
    for (size_t i = 0, count = all->n; i < count; i++) {
        if (n->d) {
            scope_push(r, outer);
            assign(r, n->a, all->items[i]);
            if (!jinja_true(eval(r, n->d))) continue;
        }
        jinja_push(r->heap, items, all->items[i]);
    }
    JinjaLoop *loop = jinja_alloc(r->heap, sizeof *loop);
    *loop = (JinjaLoop){.node = n, .scope = outer, .items = items, .depth = depth};
    bool ended = false; // an iteration came to its end, as Jinja asks before it runs the else part
    for (; loop->at < items->n; loop->at++) {
        scope_push(r, outer);
        scope_set(r, "loop", (JinjaValue){.kind = JINJA_LOOP, .loop = loop});
        assign(r, n->a, items->items[loop->at]);
        run(r, n->e);
        JinjaFlow flow = r->flow;
        r->flow = FLOW_ON;
        ended = ended || flow == FLOW_ON;
        if (flow == FLOW_BREAK) break;
    }
    r->scope = outer;
    if (!ended && n->c) run(r, n->c);
}

JinjaValue jinja_loop_again(JinjaRun *r, JinjaValue v, const JinjaArguments *args) {
    if (!v.loop->node->recursive) jinja_fail(r->heap, "the loop is not recursive");
    JinjaBuffer b = {0}, *outer = r->out;
    JinjaScope *scope = r->scope;
    r->out = &b;
    r->scope = v.loop->scope;
    run_loop(r, v.loop->node, jinja_argument(args, 0, NULL), v.loop->depth + 1);
    r->scope = scope;
    r->out = outer;
    return jinja_take(&b);
}

static JinjaValue make_macro(JinjaRun *r, const JinjaNode *n) {
    JinjaValue v = jinja_callable(r, NULL, jinja_none());
    v.callable->macro = n;
    v.callable->scope = r->scope;
    return v;
}

static void run_call_block(JinjaRun *r, const JinjaNode *n) {
    JinjaValue f = eval(r, n->b->a);
    JinjaArguments args = eval_arguments(r, n->b), with = {.n = args.n + 1};
    with.values = jinja_alloc(r->heap, with.n * sizeof *with.values);
    with.names = jinja_alloc(r->heap, with.n * sizeof *with.names);
    for (size_t i = 0; i < args.n; i++) {
        with.values[i] = args.values[i];
        with.names[i] = args.names[i];
    }
    with.values[args.n] = make_macro(r, n->d);
    with.names[args.n] = "caller";
    jinja_print(r->heap, r->out, jinja_call(r, f, &with));
}

static JinjaValue run_block(JinjaRun *r, const JinjaNode *n) {
    JinjaScope *outer = r->scope;
    scope_push(r, outer);
    JinjaValue v = captured(r, n->e);
    r->scope = outer;
    return eval_chain(r, n->b, v);
}

static void run_node(JinjaRun *r, const JinjaNode *n) {
    switch (n->kind) {
    case NODE_BODY:
        for (size_t i = 0; i < n->n && r->flow == FLOW_ON; i++) run(r, n->parts[i]);
        break;
    case NODE_OUTPUT: jinja_print(r->heap, r->out, eval(r, n->a)); break;
    case NODE_IF: run_if(r, n); break;
    case NODE_FOR: run_loop(r, n, eval(r, n->b), 1); break;
    case NODE_SET: assign(r, n->a, eval(r, n->b)); break;
    case NODE_SET_BLOCK: assign(r, n->a, run_block(r, n)); break;
    case NODE_MACRO: scope_set(r, n->name, make_macro(r, n)); break;
    case NODE_CALL_BLOCK: run_call_block(r, n); break;
    case NODE_FILTER_BLOCK: jinja_print(r->heap, r->out, run_block(r, n)); break;
    case NODE_BREAK: r->flow = FLOW_BREAK; break;
    case NODE_CONTINUE: r->flow = FLOW_CONTINUE; break;
    default: jinja_fail(r->heap, "expected a statement");
    }
}

static void run(JinjaRun *r, const JinjaNode *n) {
    enter(r, n);
    run_node(r, n);
    r->depth--;
}

// ---- the entry

static int report(const JinjaHeap *h, char *err, size_t errlen) {
    if (h->line) return fail(err, errlen, "chat template, line %d: %s", h->line, h->message);
    return fail(err, errlen, "chat template: %s", h->message);
}

static int parse(Jinja *j, const char *source, size_t n) {
    if (setjmp(j->heap.out)) return -1;
    j->body = jinja_parse(&j->heap, source, n);
    return 0;
}

Jinja *jinja_open(const char *source, size_t n, char *err, size_t errlen) {
    Jinja *j = calloc(1, sizeof *j);
    if (!j) {
        fail(err, errlen, "chat template: out of memory");
        return NULL;
    }
    j->heap.most = JINJA_MEMORY;
    j->heap.steps = JINJA_STEPS;
    if (!parse(j, source, n)) return j;
    report(&j->heap, err, errlen);
    jinja_close(j);
    return NULL;
}

void jinja_close(Jinja *j) {
    if (!j) return;
    jinja_heap_free(&j->heap);
    free(j);
}

int jinja_render(const Jinja *j, const JinjaInput *in, JinjaOutput *out, char *err, size_t errlen) {
    JinjaHeap heap = {.most = in->memory ? in->memory : JINJA_MEMORY, .steps = in->steps ? in->steps : JINJA_STEPS};
    *out = (JinjaOutput){0};
    if (setjmp(heap.out)) {
        int rc = report(&heap, err, errlen);
        jinja_heap_free(&heap);
        return rc;
    }
    JinjaBuffer b = {0};
    JinjaRun r = {.heap = &heap, .out = &b, .now = in->now};
    scope_push(&r, NULL);
    if (in->fill) in->fill(&heap, &r.scope->names, in->from);
    run(&r, j->body);
    out->text = malloc(2 * b.n + 2);
    if (!out->text) jinja_fail(&heap, "out of memory");
    out->n = b.n;
    out->from = (uint8_t *)out->text + b.n + 1;
    if (b.n) memcpy(out->text, b.text, b.n);
    if (b.n) memcpy(out->from, b.from, b.n);
    out->text[b.n] = 0;
    jinja_heap_free(&heap);
    return 0;
}
