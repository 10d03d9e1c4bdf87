// jinja_builtins: what the files of the built-in filters, methods and tests use of one another.
#pragma once
#include "jinja_run.h"

typedef const JinjaArguments Args;

// Arguments and values of one kind, or a failure that names `what`.
JinjaText jinja_need_text(JinjaRun *r, JinjaValue v, const char *what);
char *jinja_word_of(JinjaRun *r, JinjaValue v, const char *what); // terminated
bool jinja_flag(Args *args, size_t i, const char *name, bool otherwise);
int64_t jinja_integer_argument(JinjaRun *r, Args *args, size_t i, const char *name, int64_t otherwise);
JinjaValue jinja_copy_items(JinjaRun *r, const JinjaList *from);

typedef struct {
    const char *name;
    JinjaFunction *function;
} JinjaEntry;

JinjaFunction *jinja_entry_find(const JinjaEntry *e, size_t n, JinjaValue name); // NULL: none
#define JINJA_ENTRY(table, name) jinja_entry_find(table, sizeof(table) / sizeof *(table), name)
JinjaFunction *jinja_filter_find(JinjaValue name);

// jinja_strings
JinjaFunction *jinja_string_filter(JinjaValue name);
JinjaFunction *jinja_string_method(JinjaValue name);
JinjaFunction jinja_lower, jinja_split;
JinjaValue jinja_strip(JinjaValue v, const JinjaText *set, bool left, bool right); // set NULL: white space
size_t jinja_find_text(JinjaText t, size_t at, JinjaText what); // the byte where it begins; SIZE_MAX: nowhere
JinjaValue jinja_join(JinjaRun *r, const JinjaList *l, JinjaValue by);
bool jinja_is_digits(JinjaValue v);
bool jinja_is_of_case(JinjaValue v, bool upper); // there are letters of one case, and none of the other

// jinja_formats
JinjaFunction jinja_format_braces; // "{}".format(...)
JinjaFunction jinja_format_values; // "%s" | format(...)

// jinja_collections
JinjaFunction *jinja_collection_filter(JinjaValue name);
JinjaFunction *jinja_dict_method(JinjaValue name);
JinjaFunction *jinja_list_method(JinjaValue name);
JinjaFunction jinja_dict_items, jinja_dict_update;
