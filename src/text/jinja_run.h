// jinja_run: what the evaluator of templates and its built-in functions, filters, tests and methods share.
#pragma once
#include "jinja_parse.h"

#include <time.h>

typedef struct JinjaScope JinjaScope;
struct JinjaScope {
    JinjaDict names;
    JinjaScope *parent;
};

typedef enum { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } JinjaFlow;

typedef struct {
    JinjaHeap *heap;
    JinjaScope *scope;
    JinjaBuffer *out;
    struct tm now;
    int depth;
    JinjaFlow flow;
} JinjaRun;

typedef struct {
    JinjaValue *values;
    const char **names; // NULL: positional
    size_t n;
} JinjaArguments;

typedef JinjaValue JinjaFunction(JinjaRun *r, JinjaValue self, const JinjaArguments *args);

struct JinjaCallable {
    JinjaFunction *function; // a method or a global; NULL: a macro
    JinjaValue self;
    const JinjaNode *macro;
    JinjaScope *scope; // where the macro was defined
};

struct JinjaLoop {
    const JinjaNode *node;
    JinjaScope *scope;
    const JinjaList *items;
    size_t at;
    int depth;
    JinjaValue changed;
};

// Argument i, or of this name; undefined when it is not given.
JinjaValue jinja_argument(const JinjaArguments *args, size_t i, const char *name);
JinjaValue jinja_callable(JinjaRun *r, JinjaFunction *function, JinjaValue self);
JinjaValue jinja_call(JinjaRun *r, JinjaValue callable, const JinjaArguments *args);
JinjaValue jinja_loop_again(JinjaRun *r, JinjaValue loop, const JinjaArguments *args);
JinjaValue jinja_member(JinjaRun *r, JinjaValue of, JinjaValue key, bool item_first);
JinjaValue jinja_string(JinjaRun *r, JinjaValue v); // as str() spells it
JinjaList *jinja_items(JinjaRun *r, JinjaValue v);  // what a loop over it visits
bool jinja_contains(JinjaRun *r, JinjaValue in, JinjaValue v);
int64_t jinja_index(JinjaRun *r, JinjaValue v, const char *what); // an integer, or a failure
size_t jinja_length(JinjaRun *r, JinjaValue v);
size_t jinja_offset(JinjaValue s, int64_t i); // the byte where character i begins

// builtins
JinjaValue jinja_filter(JinjaRun *r, const char *name, JinjaValue v, const JinjaArguments *args);
bool jinja_test(JinjaRun *r, const char *name, JinjaValue v, const JinjaArguments *args);
JinjaFunction *jinja_method(JinjaValue of, JinjaValue name); // NULL: none
JinjaFunction *jinja_global(const char *name);
JinjaValue jinja_format_percent(JinjaRun *r, JinjaValue format, const JinjaArguments *args);
