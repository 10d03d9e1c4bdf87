// jinja_collections: the filters of lists, mappings and what else can be iterated over, and the methods of lists and
// mappings. See jinja_builtins.h.
#include "jinja_builtins.h"

#include <stdlib.h>
#include <string.h>

static const JinjaValue undefined = {.kind = JINJA_UNDEFINED};

// ---- filters of collections

static JinjaValue filter_length(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    return jinja_int((int64_t)jinja_length(r, v));
}

static JinjaValue filter_default(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue otherwise = jinja_argument(args, 0, "default_value");
    (void)r;
    bool missing = v.kind == JINJA_UNDEFINED || (jinja_flag(args, 1, "boolean", false) && !jinja_true(v));
    if (!missing) return v;
    return args->n && otherwise.kind != JINJA_UNDEFINED ? otherwise : jinja_word("");
}

static JinjaValue filter_first(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    const JinjaList *l = jinja_items(r, v);
    return l->n ? l->items[0] : undefined;
}

static JinjaValue filter_last(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    const JinjaList *l = jinja_items(r, v);
    return l->n ? l->items[l->n - 1] : undefined;
}

static JinjaValue filter_list(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    return jinja_copy_items(r, jinja_items(r, v));
}

static JinjaValue pair(JinjaRun *r, JinjaValue a, JinjaValue b) {
    JinjaValue l = jinja_list(r->heap);
    l.list->tuple = true;
    jinja_push(r->heap, l.list, a);
    jinja_push(r->heap, l.list, b);
    return l;
}

JinjaValue jinja_dict_items(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue l = jinja_list(r->heap);
    (void)args;
    if (v.kind == JINJA_UNDEFINED) return l;
    if (v.kind != JINJA_DICT) jinja_fail(r->heap, "items: expected a mapping, found %s", jinja_kind_name(v));
    for (size_t i = 0; i < v.dict->n; i++) jinja_push(r->heap, l.list, pair(r, v.dict->keys[i], v.dict->values[i]));
    return l;
}

// "a.b.0" of a value.
static JinjaValue path_of(JinjaRun *r, JinjaValue v, JinjaValue path) {
    if (path.kind == JINJA_INT) return jinja_member(r, v, path, true);
    JinjaText t = jinja_need_text(r, path, "attribute");
    for (size_t at = 0, end; at <= t.n; at = end + 1) {
        end = jinja_find_text(t, at, jinja_word(".").text);
        if (end == SIZE_MAX) end = t.n;
        JinjaValue key = jinja_slice(path, at, end);
        if (end > at && end - at < 10 && jinja_is_digits(key)) {
            char digits[10] = "";
            memcpy(digits, key.text.text, key.text.n);
            key = jinja_int(strtol(digits, NULL, 10));
        }
        if (v.kind == JINJA_UNDEFINED) return v;
        v = jinja_member(r, v, key, true);
    }
    return v;
}

// An item, or what an attribute of it is.
static JinjaValue item_or_part(JinjaRun *r, JinjaValue item, JinjaValue attribute) {
    return attribute.kind == JINJA_UNDEFINED ? item : path_of(r, item, attribute);
}

static JinjaValue filter_join(JinjaRun *r, JinjaValue v, Args *args) {
    const JinjaList *from = jinja_items(r, v);
    JinjaValue parts = jinja_list(r->heap), attribute = jinja_argument(args, 1, "attribute");
    for (size_t i = 0; i < from->n; i++) jinja_push(r->heap, parts.list, item_or_part(r, from->items[i], attribute));
    return jinja_join(r, parts.list, jinja_argument(args, 0, "d"));
}

static JinjaArguments rest_of(Args *args, size_t skip) {
    size_t n = args->n < skip ? args->n : skip;
    return (JinjaArguments){args->values + n, args->names + n, args->n - n};
}

static JinjaValue filter_map(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue l = jinja_list(r->heap), attribute = jinja_argument(args, SIZE_MAX, "attribute");
    JinjaValue otherwise = jinja_argument(args, SIZE_MAX, "default");
    const JinjaList *from = jinja_items(r, v);
    JinjaArguments rest = rest_of(args, 1);
    const char *name =
        attribute.kind == JINJA_UNDEFINED ? jinja_word_of(r, jinja_argument(args, 0, NULL), "map") : NULL;
    for (size_t i = 0; i < from->n; i++) {
        JinjaValue to = name ? jinja_filter(r, name, from->items[i], &rest) : path_of(r, from->items[i], attribute);
        jinja_push(r->heap, l.list, to.kind == JINJA_UNDEFINED && !name ? otherwise : to);
    }
    return l;
}

static JinjaValue choose(JinjaRun *r, JinjaValue v, Args *args, bool by_attribute, bool keep) {
    JinjaValue l = jinja_list(r->heap), path = jinja_argument(args, 0, NULL);
    JinjaValue test = jinja_argument(args, by_attribute, NULL);
    // Python's are generators, which fail only where they are read: templates choose among tools that are none.
    const JinjaList *from = v.kind == JINJA_NONE ? l.list : jinja_items(r, v);
    JinjaArguments rest = rest_of(args, 1 + (size_t)by_attribute);
    const char *name = test.kind == JINJA_UNDEFINED ? NULL : jinja_word_of(r, test, "select");
    for (size_t i = 0; i < from->n; i++) {
        JinjaValue about = by_attribute ? path_of(r, from->items[i], path) : from->items[i];
        bool chosen = name ? jinja_test(r, name, about, &rest) : jinja_true(about);
        if (chosen == keep) jinja_push(r->heap, l.list, from->items[i]);
    }
    return l;
}

static JinjaValue filter_select(JinjaRun *r, JinjaValue v, Args *args) {
    return choose(r, v, args, false, true);
}

static JinjaValue filter_reject(JinjaRun *r, JinjaValue v, Args *args) {
    return choose(r, v, args, false, false);
}

static JinjaValue filter_selectattr(JinjaRun *r, JinjaValue v, Args *args) {
    return choose(r, v, args, true, true);
}

static JinjaValue filter_rejectattr(JinjaRun *r, JinjaValue v, Args *args) {
    return choose(r, v, args, true, false);
}

static JinjaValue filter_reverse(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue l = jinja_list(r->heap);
    (void)args;
    const JinjaList *from = jinja_items(r, v);
    for (size_t i = from->n; i > 0; i--) jinja_push(r->heap, l.list, from->items[i - 1]);
    return v.kind == JINJA_STRING ? jinja_join(r, l.list, undefined) : l;
}

typedef struct {
    JinjaValue key, item;
} Keyed;

static JinjaValue sort_key(JinjaRun *r, JinjaValue v, bool case_sensitive) {
    return v.kind == JINJA_STRING && !case_sensitive ? jinja_lower(r, v, NULL) : v;
}

// Of the attributes "a,b": a list of keys.
static JinjaValue sort_keys(JinjaRun *r, JinjaValue v, JinjaValue attributes, bool case_sensitive) {
    if (attributes.kind == JINJA_UNDEFINED || attributes.kind == JINJA_NONE) return sort_key(r, v, case_sensitive);
    JinjaValue keys = jinja_list(r->heap), comma = jinja_word(",");
    static const char *no_name[1];
    if (attributes.kind == JINJA_INT) return sort_key(r, path_of(r, v, attributes), case_sensitive);
    jinja_need_text(r, attributes, "attribute");
    const JinjaList *all = jinja_split(r, attributes, &(JinjaArguments){&comma, no_name, 1}).list;
    for (size_t i = 0; i < all->n; i++)
        jinja_push(r->heap, keys.list, sort_key(r, path_of(r, v, all->items[i]), case_sensitive));
    return keys;
}

// Stable; both halves first.
static void merge_sort(JinjaRun *r, Keyed *a, Keyed *room, size_t n, bool reverse) {
    if (n < 2) return;
    size_t half = n / 2, i = 0, k = half, out = 0;
    merge_sort(r, a, room, half, reverse);
    merge_sort(r, a + half, room, n - half, reverse);
    while (i < half && k < n) {
        int order = jinja_compare(r->heap, a[k].key, a[i].key);
        room[out++] = (reverse ? order > 0 : order < 0) ? a[k++] : a[i++];
    }
    while (i < half) room[out++] = a[i++];
    while (k < n) room[out++] = a[k++];
    memcpy(a, room, n * sizeof *a);
}

static JinjaValue sorted(JinjaRun *r, Keyed *all, size_t n, bool reverse) {
    JinjaValue l = jinja_list(r->heap);
    merge_sort(r, all, jinja_alloc(r->heap, (n + 1) * sizeof *all), n, reverse);
    for (size_t i = 0; i < n; i++) jinja_push(r->heap, l.list, all[i].item);
    return l;
}

static JinjaValue filter_sort(JinjaRun *r, JinjaValue v, Args *args) {
    const JinjaList *from = jinja_items(r, v);
    JinjaValue attribute = jinja_argument(args, 2, "attribute");
    bool sensitive = jinja_flag(args, 1, "case_sensitive", false);
    Keyed *all = jinja_alloc(r->heap, (from->n + 1) * sizeof *all);
    for (size_t i = 0; i < from->n; i++) {
        all[i] = (Keyed){sort_keys(r, from->items[i], attribute, sensitive), from->items[i]};
    }
    return sorted(r, all, from->n, jinja_flag(args, 0, "reverse", false));
}

static JinjaValue filter_dictsort(JinjaRun *r, JinjaValue v, Args *args) {
    const JinjaList *from = jinja_dict_items(r, v, args).list;
    bool value = jinja_is_word(jinja_argument(args, 1, "by"), "value"),
         sensitive = jinja_flag(args, 0, "case_sensitive", false);
    Keyed *all = jinja_alloc(r->heap, (from->n + 1) * sizeof *all);
    for (size_t i = 0; i < from->n; i++)
        all[i] = (Keyed){sort_key(r, from->items[i].list->items[value], sensitive), from->items[i]};
    return sorted(r, all, from->n, jinja_flag(args, 2, "reverse", false));
}

static JinjaValue filter_unique(JinjaRun *r, JinjaValue v, Args *args) {
    const JinjaList *from = jinja_items(r, v);
    JinjaValue l = jinja_list(r->heap), seen = jinja_list(r->heap), attribute = jinja_argument(args, 1, "attribute");
    for (size_t i = 0; i < from->n; i++) {
        JinjaValue key = item_or_part(r, from->items[i], attribute);
        key = sort_key(r, key, jinja_flag(args, 0, "case_sensitive", false));
        if (jinja_contains(r, seen, key)) continue;
        jinja_push(r->heap, seen.list, key);
        jinja_push(r->heap, l.list, from->items[i]);
    }
    return l;
}

static JinjaValue extreme(JinjaRun *r, JinjaValue v, Args *args, int sign) {
    const JinjaList *l = jinja_items(r, v);
    JinjaValue attribute = jinja_argument(args, 1, "attribute"), best = undefined, best_key = undefined;
    bool sensitive = jinja_flag(args, 0, "case_sensitive", false);
    for (size_t i = 0; i < l->n; i++) {
        JinjaValue key = item_or_part(r, l->items[i], attribute);
        key = sort_key(r, key, sensitive);
        if (i && jinja_compare(r->heap, key, best_key) * sign <= 0) continue;
        best = l->items[i];
        best_key = key;
    }
    return best;
}

static JinjaValue filter_min(JinjaRun *r, JinjaValue v, Args *args) {
    return extreme(r, v, args, -1);
}

static JinjaValue filter_max(JinjaRun *r, JinjaValue v, Args *args) {
    return extreme(r, v, args, 1);
}

static JinjaValue filter_sum(JinjaRun *r, JinjaValue v, Args *args) {
    const JinjaList *l = jinja_items(r, v);
    JinjaValue attribute = jinja_argument(args, 0, "attribute");
    JinjaValue start = jinja_argument(args, 1, "start");
    if (start.kind == JINJA_UNDEFINED) start = jinja_int(0);
    if (!jinja_is_number(start)) jinja_fail(r->heap, "sum: expected a number to start with");
    bool is_real = start.kind == JINJA_FLOAT;
    int64_t whole = is_real ? 0 : jinja_index(r, start, "sum");
    double real = jinja_number(start);
    for (size_t i = 0; i < l->n; i++) {
        JinjaValue one = item_or_part(r, l->items[i], attribute);
        if (!jinja_is_number(one)) jinja_fail(r->heap, "sum: expected numbers, found %s", jinja_kind_name(one));
        is_real = is_real || one.kind == JINJA_FLOAT;
        real += jinja_number(one);
        if (one.kind != JINJA_FLOAT && __builtin_add_overflow(whole, jinja_index(r, one, "sum"), &whole))
            jinja_fail(r->heap, "sum: more than 64 bits");
    }
    return is_real ? jinja_real(real) : jinja_int(whole);
}

// ---- methods of collections

static JinjaValue method_get(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue *found = jinja_find(r->heap, v.dict, jinja_argument(args, 0, "key"));
    JinjaValue otherwise = jinja_argument(args, 1, "default");
    return found ? *found : args->n > 1 ? otherwise : jinja_none();
}

static JinjaValue method_keys(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    return jinja_copy_items(r, &(JinjaList){.items = v.dict->keys, .n = v.dict->n});
}

static JinjaValue method_values(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    return jinja_copy_items(r, &(JinjaList){.items = v.dict->values, .n = v.dict->n});
}

JinjaValue jinja_dict_update(JinjaRun *r, JinjaValue v, Args *args) {
    for (size_t i = 0; i < args->n; i++) {
        JinjaValue from = args->values[i];
        if (args->names[i]) jinja_put_word(r->heap, v.dict, args->names[i], from);
        else if (from.kind != JINJA_DICT)
            jinja_fail(r->heap, "update: expected a mapping, found %s", jinja_kind_name(from));
        for (size_t k = 0; !args->names[i] && k < from.dict->n; k++)
            jinja_put(r->heap, v.dict, from.dict->keys[k], from.dict->values[k]);
    }
    return jinja_none();
}

static JinjaValue copy_of(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    if (v.kind == JINJA_LIST) return jinja_copy_items(r, v.list);
    JinjaValue d = jinja_dict(r->heap);
    for (size_t i = 0; i < v.dict->n; i++) jinja_put(r->heap, d.dict, v.dict->keys[i], v.dict->values[i]);
    return d;
}

static JinjaValue dict_pop(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue *found = jinja_find(r->heap, v.dict, jinja_argument(args, 0, NULL));
    if (!found && args->n < 2) jinja_fail(r->heap, "pop: no such key");
    if (!found) return jinja_argument(args, 1, NULL);
    JinjaValue popped = *found;
    size_t i = (size_t)(found - v.dict->values), behind = --v.dict->n - i;
    memmove(v.dict->keys + i, v.dict->keys + i + 1, behind * sizeof popped);
    memmove(found, found + 1, behind * sizeof popped);
    return popped;
}

static JinjaValue list_pop(JinjaRun *r, JinjaValue v, Args *args) {
    int64_t n = (int64_t)v.list->n, i = jinja_integer_argument(r, args, 0, "index", -1);
    if (i < 0) i += n;
    if (i < 0 || i >= n) jinja_fail(r->heap, "pop: no item %lld of %lld", (long long)i, (long long)n);
    JinjaValue popped = v.list->items[i];
    jinja_step(r->heap, (size_t)(n - i) / 16);
    memmove(v.list->items + i, v.list->items + i + 1, (size_t)(--v.list->n - (size_t)i) * sizeof popped);
    return popped;
}

static JinjaValue method_append(JinjaRun *r, JinjaValue v, Args *args) {
    jinja_push(r->heap, v.list, jinja_argument(args, 0, NULL));
    return jinja_none();
}

static JinjaValue method_insert(JinjaRun *r, JinjaValue v, Args *args) {
    int64_t n = (int64_t)v.list->n, i = jinja_integer_argument(r, args, 0, NULL, 0);
    i = i < 0 ? i + n : i;
    i = i < 0 ? 0 : i > n ? n : i;
    jinja_push(r->heap, v.list, undefined);
    jinja_step(r->heap, (size_t)(n - i) / 16);
    memmove(v.list->items + i + 1, v.list->items + i, (size_t)(n - i) * sizeof v);
    v.list->items[i] = jinja_argument(args, 1, NULL);
    return jinja_none();
}

static JinjaValue method_extend(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue more = jinja_copy_items(r, jinja_items(r, jinja_argument(args, 0, NULL)));
    for (size_t i = 0; i < more.list->n; i++) jinja_push(r->heap, v.list, more.list->items[i]);
    return jinja_none();
}

static JinjaValue list_count(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue what = jinja_argument(args, 0, NULL);
    int64_t count = 0;
    for (size_t i = 0; i < v.list->n; i++) count += jinja_equal(r->heap, v.list->items[i], what);
    return jinja_int(count);
}

static JinjaValue list_index(JinjaRun *r, JinjaValue v, Args *args) {
    jinja_step(r->heap, v.list->n / 2);
    for (size_t i = 0; i < v.list->n; i++) {
        if (jinja_equal(r->heap, v.list->items[i], jinja_argument(args, 0, NULL))) return jinja_int((int64_t)i);
    }
    jinja_fail(r->heap, "index: no such item");
}

// ---- tables

static const JinjaEntry filters[] = {
    {"count", filter_length},      {"d", filter_default},     {"default", filter_default},
    {"dictsort", filter_dictsort}, {"first", filter_first},   {"items", jinja_dict_items},
    {"join", filter_join},         {"last", filter_last},     {"length", filter_length},
    {"list", filter_list},         {"map", filter_map},       {"max", filter_max},
    {"min", filter_min},           {"reject", filter_reject}, {"rejectattr", filter_rejectattr},
    {"reverse", filter_reverse},   {"select", filter_select}, {"selectattr", filter_selectattr},
    {"sort", filter_sort},         {"sum", filter_sum},       {"unique", filter_unique},
};

static const JinjaEntry dict_methods[] = {
    {"copy", copy_of}, {"get", method_get},           {"items", jinja_dict_items}, {"keys", method_keys},
    {"pop", dict_pop}, {"update", jinja_dict_update}, {"values", method_values},
};

static const JinjaEntry list_methods[] = {
    {"append", method_append}, {"copy", copy_of},         {"count", list_count}, {"extend", method_extend},
    {"index", list_index},     {"insert", method_insert}, {"pop", list_pop},
};

JinjaFunction *jinja_collection_filter(JinjaValue name) {
    return JINJA_ENTRY(filters, name);
}

JinjaFunction *jinja_dict_method(JinjaValue name) {
    return JINJA_ENTRY(dict_methods, name);
}

JinjaFunction *jinja_list_method(JinjaValue name) {
    return JINJA_ENTRY(list_methods, name);
}
