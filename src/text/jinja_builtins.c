// jinja_builtins: the filters, tests, methods and global functions that chat templates use. See jinja_run.h.
//
// Owns three tables of names. Refuses a name that is in none, and arguments of the wrong kind.
#include "jinja_run.h"
#include "utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef const JinjaArguments Args;

static const JinjaValue undefined = {.kind = JINJA_UNDEFINED};

static JinjaText need_text(JinjaRun *r, JinjaValue v, const char *what) {
    if (v.kind == JINJA_UNDEFINED && v.name) jinja_fail(r->heap, "%s: '%s' is undefined", what, v.name);
    if (v.kind != JINJA_STRING) jinja_fail(r->heap, "%s: expected a string, found %s", what, jinja_kind_name(v));
    return v.text;
}

static bool flag(Args *args, size_t i, const char *name, bool otherwise) {
    JinjaValue v = jinja_argument(args, i, name);
    return v.kind == JINJA_UNDEFINED ? otherwise : jinja_true(v);
}

static int64_t number(JinjaRun *r, Args *args, size_t i, const char *name, int64_t otherwise) {
    JinjaValue v = jinja_argument(args, i, name);
    return v.kind == JINJA_UNDEFINED || v.kind == JINJA_NONE ? otherwise : jinja_index(r, v, name);
}

static JinjaValue with_items(JinjaRun *r, const JinjaList *from) {
    JinjaValue l = jinja_list(r->heap);
    for (size_t i = 0; i < from->n; i++) jinja_push(r->heap, l.list, from->items[i]);
    return l;
}

// ---- characters

static size_t unit(JinjaText t, size_t at) {
    return (size_t)utf8_unit(t.text + at, t.n - at < 4 ? (int)(t.n - at) : 4);
}

// Whether a character is among those of a set; no set: white space.
static bool in_set(JinjaText t, size_t at, size_t n, const JinjaText *set) {
    uint32_t c;
    if (!set) {
        utf8_decode(t.text + at, n, &c);
        return jinja_is_space(c);
    }
    for (size_t i = 0, len; i < set->n; i += len) {
        len = unit(*set, i);
        if (len == n && !memcmp(set->text + i, t.text + at, n)) return true;
    }
    return false;
}

static JinjaValue strip(JinjaValue v, const JinjaText *set, bool left, bool right) {
    size_t begin = 0, end = v.text.n;
    while (left && begin < end && in_set(v.text, begin, unit(v.text, begin), set)) begin += unit(v.text, begin);
    while (right && end > begin) {
        uint32_t c;
        size_t len = (size_t)utf8_decode_before(v.text.text, end, &c);
        if (len > end - begin || !in_set(v.text, end - len, len, set)) break;
        end -= len;
    }
    return jinja_slice(v, begin, end);
}

typedef enum { UPPER, LOWER, TITLE, CAPITALIZE } Case;

static bool upper_next(Case how, bool inside) {
    return how == UPPER || (!inside && how != LOWER);
}

static JinjaValue change_case(JinjaRun *r, JinjaValue v, Case how, bool words) {
    JinjaBuffer b = {0};
    bool inside = false;
    for (size_t at = 0, len; at < v.text.n; at += len) {
        uint32_t c;
        char out[4];
        len = (size_t)utf8_decode(v.text.text + at, v.text.n - at, &c);
        if (len == 1 && (unsigned char)v.text.text[at] >= 0x80) {
            jinja_append(r->heap, &b, jinja_slice(v, at, at + 1).text);
            continue;
        }
        bool up = upper_next(how, inside);
        uint32_t to = (uint32_t)(up ? utf8proc_toupper((int32_t)c) : utf8proc_tolower((int32_t)c));
        bool cased = utf8proc_toupper((int32_t)c) != (int32_t)c || utf8proc_tolower((int32_t)c) != (int32_t)c;
        // Jinja's filter begins words after white space and -([{<, Python's method after what has no case.
        bool border = words ? jinja_is_space(c) || (c < 128 && c && strchr("-([{<", (int)c)) : !cased;
        if (how == TITLE) inside = !border;
        if (how == CAPITALIZE) inside = true;
        if (c == 0xDF && up) { // the one letter of everyday text that becomes two
            static const char *const two[] = {"SS", "Ss"};
            uint8_t pair_from[2] = {v.text.from ? v.text.from[at] : 0, v.text.from ? v.text.from[at] : 0};
            jinja_append(r->heap, &b, (JinjaText){two[how != UPPER], pair_from, 2});
            continue;
        }
        uint8_t from[4];
        memset(from, v.text.from ? v.text.from[at] : 0, 4);
        jinja_append(r->heap, &b, (JinjaText){out, from, (size_t)utf8_encode(to, out)});
    }
    return jinja_take(&b);
}

// ---- text

static JinjaValue text_case(JinjaRun *r, JinjaValue v, Case how, bool words) {
    v = jinja_string(r, v);
    jinja_step(r->heap, v.text.n);
    return change_case(r, v, how, words);
}

static JinjaValue do_upper(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    return text_case(r, v, UPPER, false);
}

static JinjaValue do_lower(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    return text_case(r, v, LOWER, false);
}

static JinjaValue do_capitalize(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    return text_case(r, v, CAPITALIZE, false);
}

static JinjaValue filter_title(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    return text_case(r, v, TITLE, true);
}

static JinjaValue method_title(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    return text_case(r, v, TITLE, false);
}

static JinjaValue strip_with(JinjaRun *r, JinjaValue v, Args *args, bool left, bool right) {
    JinjaValue set = jinja_argument(args, 0, "chars");
    v = jinja_string(r, v);
    if (set.kind == JINJA_UNDEFINED || set.kind == JINJA_NONE) return strip(v, NULL, left, right);
    JinjaText characters = need_text(r, set, "strip");
    jinja_step(r->heap, v.text.n / 8 * (characters.n / 8));
    return strip(v, &characters, left, right);
}

static JinjaValue do_strip(JinjaRun *r, JinjaValue v, Args *args) {
    return strip_with(r, v, args, true, true);
}

static JinjaValue do_lstrip(JinjaRun *r, JinjaValue v, Args *args) {
    return strip_with(r, v, args, true, false);
}

static JinjaValue do_rstrip(JinjaRun *r, JinjaValue v, Args *args) {
    return strip_with(r, v, args, false, true);
}

// The byte at which `what` is found in t from `at` on; SIZE_MAX: nowhere.
static size_t find_text(JinjaText t, size_t at, JinjaText what) {
    if (!what.n) return at;
    const char *found = t.n > at ? memmem(t.text + at, t.n - at, what.text, what.n) : NULL;
    return found ? (size_t)(found - t.text) : SIZE_MAX;
}

static JinjaValue do_replace(JinjaRun *r, JinjaValue v, Args *args) {
    v = jinja_string(r, v);
    JinjaValue old = jinja_string(r, jinja_argument(args, 0, "old")),
               new = jinja_string(r, jinja_argument(args, 1, "new"));
    int64_t left = number(r, args, 2, "count", -1);
    JinjaBuffer b = {0};
    size_t at = 0;
    while (left && at <= v.text.n) {
        size_t found = find_text(v.text, at, old.text);
        if (found == SIZE_MAX) break;
        jinja_step(r->heap, 1);
        jinja_append(r->heap, &b, jinja_slice(v, at, found).text);
        jinja_append(r->heap, &b, new.text);
        at = found + old.text.n;
        left--;
        if (old.text.n) continue;
        size_t next = at < v.text.n ? at + unit(v.text, at) : at + 1; // between all characters
        if (at < v.text.n) jinja_append(r->heap, &b, jinja_slice(v, at, next).text);
        at = next;
    }
    if (at < v.text.n) jinja_append(r->heap, &b, jinja_slice(v, at, v.text.n).text);
    return jinja_take(&b);
}

static JinjaValue split_spaces(JinjaRun *r, JinjaValue v, int64_t most) {
    JinjaValue l = jinja_list(r->heap);
    v = strip(v, NULL, true, false);
    while (v.text.n) {
        size_t end = 0;
        while (end < v.text.n && !in_set(v.text, end, unit(v.text, end), NULL)) end += unit(v.text, end);
        if (!most--) end = v.text.n;
        jinja_push(r->heap, l.list, jinja_slice(v, 0, end));
        v = strip(jinja_slice(v, end, v.text.n), NULL, true, false);
    }
    return l;
}

static JinjaValue method_split(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue separator = jinja_argument(args, 0, "sep"), l = jinja_list(r->heap);
    int64_t most = number(r, args, 1, "maxsplit", -1);
    if (separator.kind == JINJA_UNDEFINED || separator.kind == JINJA_NONE)
        return split_spaces(r, v, most < 0 ? -1 : most);
    JinjaText by = need_text(r, separator, "split");
    if (!by.n) jinja_fail(r->heap, "split: the separator is empty");
    size_t at = 0, found;
    while (most-- && (found = find_text(v.text, at, by)) != SIZE_MAX) {
        jinja_push(r->heap, l.list, jinja_slice(v, at, found));
        at = found + by.n;
    }
    jinja_push(r->heap, l.list, jinja_slice(v, at, v.text.n));
    return l;
}

static JinjaValue rsplit_spaces(JinjaRun *r, JinjaValue v, int64_t most) {
    JinjaValue l = jinja_list(r->heap), parts = jinja_list(r->heap);
    v = strip(v, NULL, false, true);
    while (v.text.n) {
        size_t begin = v.text.n, len;
        for (; most && begin; begin -= len) {
            uint32_t c;
            len = (size_t)utf8_decode_before(v.text.text, begin, &c);
            if (jinja_is_space(c)) break;
        }
        if (!most--) begin = 0;
        jinja_push(r->heap, parts.list, jinja_slice(v, begin, v.text.n));
        v = strip(jinja_slice(v, 0, begin), NULL, false, true);
    }
    for (size_t i = parts.list->n; i > 0; i--) jinja_push(r->heap, l.list, parts.list->items[i - 1]);
    return l;
}

static JinjaValue method_rsplit(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue separator = jinja_argument(args, 0, "sep");
    int64_t most = number(r, args, 1, "maxsplit", -1);
    if (separator.kind == JINJA_UNDEFINED || separator.kind == JINJA_NONE) return rsplit_spaces(r, v, most);
    JinjaText by = need_text(r, separator, "rsplit");
    JinjaValue all = method_split(r, v, &(JinjaArguments){args->values, args->names, 1}), l = jinja_list(r->heap);
    size_t n = all.list->n, joined = most >= 0 && (size_t)most < n ? n - (size_t)most : 1, end = 0;
    for (size_t i = 0; i < joined; i++) end += all.list->items[i].text.n + (i ? by.n : 0);
    jinja_push(r->heap, l.list, jinja_slice(v, 0, end));
    for (size_t i = joined; i < n; i++) jinja_push(r->heap, l.list, all.list->items[i]);
    return l;
}

static bool ends_line(JinjaText t, size_t at) {
    uint32_t c;
    utf8_decode(t.text + at, t.n - at, &c);
    return (c >= '\n' && c <= '\r') || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

static JinjaValue method_splitlines(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue l = jinja_list(r->heap);
    bool keep = flag(args, 0, "keepends", false);
    for (size_t at = 0, end, next; at < v.text.n; at = next) {
        for (end = at; end < v.text.n && !ends_line(v.text, end);) end += unit(v.text, end);
        next = end + (end < v.text.n ? unit(v.text, end) : 0);
        if (next < v.text.n && v.text.text[end] == '\r' && v.text.text[next] == '\n') next++;
        jinja_push(r->heap, l.list, jinja_slice(v, at, keep ? next : end));
    }
    return l;
}

// The part of a string between the characters that arguments 1 and 2 name, and how many come before it.
static JinjaValue window(JinjaRun *r, JinjaValue v, Args *args, size_t *skipped) {
    int64_t n = (int64_t)jinja_length(r, v), begin = number(r, args, 1, NULL, 0), end = number(r, args, 2, NULL, n);
    if (begin < 0) begin = begin < -n ? 0 : begin + n;
    if (end < 0) end = end < -n ? 0 : end + n;
    if (begin > n) begin = n;
    if (end > n) end = n;
    *skipped = (size_t)begin;
    return jinja_slice(v, jinja_offset(v, begin), jinja_offset(v, end));
}

static bool affix(JinjaText t, JinjaText a, bool end) {
    return a.n <= t.n && (!a.n || !memcmp(end ? t.text + t.n - a.n : t.text, a.text, a.n));
}

static JinjaValue has_affix(JinjaRun *r, JinjaValue v, Args *args, bool end) {
    JinjaValue a = jinja_argument(args, 0, NULL);
    size_t skipped;
    v = window(r, v, args, &skipped);
    if (a.kind != JINJA_LIST) return jinja_bool(affix(v.text, need_text(r, a, end ? "endswith" : "startswith"), end));
    bool found = false;
    for (size_t i = 0; i < a.list->n; i++) {
        JinjaText one = need_text(r, a.list->items[i], "affix");
        jinja_step(r->heap, 1 + one.n / 256);
        found = found || affix(v.text, one, end);
    }
    return jinja_bool(found);
}

static JinjaValue method_startswith(JinjaRun *r, JinjaValue v, Args *args) {
    return has_affix(r, v, args, false);
}

static JinjaValue method_endswith(JinjaRun *r, JinjaValue v, Args *args) {
    return has_affix(r, v, args, true);
}

static JinjaValue method_removeprefix(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaText a = need_text(r, jinja_argument(args, 0, NULL), "removeprefix");
    return affix(v.text, a, false) ? jinja_slice(v, a.n, v.text.n) : v;
}

static JinjaValue method_removesuffix(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaText a = need_text(r, jinja_argument(args, 0, NULL), "removesuffix");
    return affix(v.text, a, true) ? jinja_slice(v, 0, v.text.n - a.n) : v;
}

// The character where argument 0 begins first, or last; -1: nowhere.
static int64_t position(JinjaRun *r, JinjaValue v, Args *args, bool last) {
    JinjaText what = need_text(r, jinja_argument(args, 0, NULL), "find");
    size_t skipped, found = SIZE_MAX;
    v = window(r, v, args, &skipped);
    if (!last || !what.n) found = last ? v.text.n : find_text(v.text, 0, what);
    for (size_t at = v.text.n; last && what.n && found == SIZE_MAX && at >= what.n; at--) {
        jinja_step(r->heap, what.n / 64);
        if (!memcmp(v.text.text + at - what.n, what.text, what.n)) found = at - what.n;
    }
    return found == SIZE_MAX ? -1 : (int64_t)(skipped + jinja_length(r, jinja_slice(v, 0, found)));
}

static JinjaValue method_find(JinjaRun *r, JinjaValue v, Args *args) {
    return jinja_int(position(r, v, args, false));
}

static JinjaValue method_rfind(JinjaRun *r, JinjaValue v, Args *args) {
    return jinja_int(position(r, v, args, true));
}

static JinjaValue index_of(JinjaRun *r, JinjaValue v, Args *args, bool last) {
    int64_t at = position(r, v, args, last);
    if (at < 0) jinja_fail(r->heap, "index: the text is not there");
    return jinja_int(at);
}

static JinjaValue method_index(JinjaRun *r, JinjaValue v, Args *args) {
    return index_of(r, v, args, false);
}

static JinjaValue method_rindex(JinjaRun *r, JinjaValue v, Args *args) {
    return index_of(r, v, args, true);
}

static JinjaValue parted(JinjaRun *r, JinjaValue v, Args *args, bool last) {
    JinjaText by = need_text(r, jinja_argument(args, 0, NULL), "partition");
    JinjaValue l = jinja_list(r->heap);
    if (!by.n) jinja_fail(r->heap, "partition: the separator is empty");
    int64_t found = position(r, v, &(JinjaArguments){args->values, args->names, 1}, last);
    size_t begin = found < 0 ? (last ? 0 : v.text.n) : jinja_offset(v, found), end = found < 0 ? begin : begin + by.n;
    l.list->tuple = true;
    jinja_push(r->heap, l.list, jinja_slice(v, 0, begin));
    jinja_push(r->heap, l.list, jinja_slice(v, begin, end));
    jinja_push(r->heap, l.list, jinja_slice(v, end, v.text.n));
    return l;
}

static JinjaValue method_partition(JinjaRun *r, JinjaValue v, Args *args) {
    return parted(r, v, args, false);
}

static JinjaValue method_rpartition(JinjaRun *r, JinjaValue v, Args *args) {
    return parted(r, v, args, true);
}

static JinjaValue method_count(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue what = jinja_argument(args, 0, NULL);
    int64_t count = 0;
    if (v.kind == JINJA_LIST) {
        for (size_t i = 0; i < v.list->n; i++) count += jinja_equal(r->heap, v.list->items[i], what);
        return jinja_int(count);
    }
    JinjaText t = need_text(r, what, "count");
    size_t skipped;
    v = window(r, v, args, &skipped);
    if (!t.n) return jinja_int((int64_t)jinja_length(r, v) + 1);
    for (size_t at = 0; (at = find_text(v.text, at, t)) != SIZE_MAX; at += t.n) count++;
    return jinja_int(count);
}

static JinjaValue all_characters(JinjaValue v, bool (*is)(int32_t)) {
    bool all = v.text.n;
    for (size_t at = 0, len; all && at < v.text.n; at += len) {
        uint32_t c;
        len = (size_t)utf8_decode(v.text.text + at, v.text.n - at, &c);
        all = is((int32_t)c);
    }
    return jinja_bool(all);
}

static bool is_digit(int32_t c) {
    bool raised = c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 || (c >= 0x2074 && c <= 0x2079);
    return utf8proc_category(c) == UTF8PROC_CATEGORY_ND || raised || (c >= 0x2080 && c <= 0x2089);
}

static bool is_alpha(int32_t c) {
    utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

static bool is_alnum(int32_t c) {
    utf8proc_category_t k = utf8proc_category(c);
    return is_alpha(c) || (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
}

static bool is_space(int32_t c) {
    return jinja_is_space((uint32_t)c);
}

// Whether there are letters of one case, and none of the other.
static bool is_of_case(JinjaValue v, Case how) {
    bool found = false;
    for (size_t at = 0, len; at < v.text.n; at += len) {
        uint32_t c;
        len = (size_t)utf8_decode(v.text.text + at, v.text.n - at, &c);
        utf8proc_category_t k = utf8proc_category((int32_t)c);
        if (k == UTF8PROC_CATEGORY_LT || k == (how == UPPER ? UTF8PROC_CATEGORY_LL : UTF8PROC_CATEGORY_LU))
            return false;
        found = found || k == (how == UPPER ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL);
    }
    return found;
}

static JinjaValue method_islower(JinjaRun *r, JinjaValue v, Args *args) {
    (void)r;
    (void)args;
    return jinja_bool(is_of_case(v, LOWER));
}

static JinjaValue method_isupper(JinjaRun *r, JinjaValue v, Args *args) {
    (void)r;
    (void)args;
    return jinja_bool(is_of_case(v, UPPER));
}

static JinjaValue method_isdigit(JinjaRun *r, JinjaValue v, Args *args) {
    (void)r;
    (void)args;
    return all_characters(v, is_digit);
}

static JinjaValue method_isalpha(JinjaRun *r, JinjaValue v, Args *args) {
    (void)r;
    (void)args;
    return all_characters(v, is_alpha);
}

static JinjaValue method_isalnum(JinjaRun *r, JinjaValue v, Args *args) {
    (void)r;
    (void)args;
    return all_characters(v, is_alnum);
}

static JinjaValue method_isspace(JinjaRun *r, JinjaValue v, Args *args) {
    (void)r;
    (void)args;
    return all_characters(v, is_space);
}

static JinjaValue join_items(JinjaRun *r, const JinjaList *l, JinjaValue by, JinjaValue attribute);

static JinjaValue method_join(JinjaRun *r, JinjaValue v, Args *args) {
    const JinjaList *l = jinja_items(r, jinja_argument(args, 0, NULL));
    for (size_t i = 0; i < l->n; i++) need_text(r, l->items[i], "join");
    return join_items(r, l, v, undefined);
}

// ---- formats

static void put_format(JinjaRun *r, JinjaBuffer *b, char how, const char *spec, JinjaValue v) {
    char out[400], format[40];
    if (strlen(spec) > 12) jinja_fail(r->heap, "format: '%.20s' is too long", spec);
    long width = strtol(spec + strspn(spec, "-+ 0#"), NULL, 10);
    const char *point = strchr(spec, '.');
    if (width > 200 || (point && strtol(point + 1, NULL, 10) > 100))
        jinja_fail(r->heap, "format: '%s' is too wide", spec);
    if (how == 's' && !*spec) {
        jinja_append(r->heap, b, jinja_string(r, v).text);
        return;
    }
    if (how == 's' || !jinja_is_number(v))
        jinja_fail(r->heap, "format: '%s%c' of %s is not supported", spec, how, jinja_kind_name(v));
    if (strchr("dixX", how)) {
        snprintf(format, sizeof format, "%%%sll%c", spec, how);
        long long i =
            v.kind == JINJA_FLOAT ? (fabs(v.real) < 9e18 ? (long long)v.real : 0) : jinja_index(r, v, "format");
        // NOLINTNEXTLINE: the format was put together from checked parts
        snprintf(out, sizeof out, format, i);
    } else {
        snprintf(format, sizeof format, "%%%s%c", spec, how);
        snprintf(out, sizeof out, format, jinja_number(v));
    }
    jinja_append_word(r->heap, b, out);
}

// Reads flags, width and precision at s[at...) into spec, and returns where they end.
static size_t read_spec(JinjaText s, size_t at, char spec[16]) {
    size_t n = 0;
    while (at < s.n && s.text[at] && strchr("-+ 0#123456789.", s.text[at]) && n < 15) spec[n++] = s.text[at++];
    spec[n] = 0;
    return at;
}

JinjaValue jinja_format_percent(JinjaRun *r, JinjaValue format, Args *args) {
    JinjaBuffer b = {0};
    size_t used = 0;
    for (size_t at = 0; at < format.text.n; at++) {
        if (format.text.text[at] != '%') {
            jinja_append(r->heap, &b, jinja_slice(format, at, at + 1).text);
            continue;
        }
        char spec[16];
        at = read_spec(format.text, at + 1, spec);
        char how = at < format.text.n ? format.text.text[at] : 0;
        if (how == '%') {
            jinja_append_word(r->heap, &b, "%");
            continue;
        }
        if (!how || !strchr("sdixXfeg", how)) jinja_fail(r->heap, "format: expected %%s, %%d or %%f");
        if (used >= args->n) jinja_fail(r->heap, "format: more places than values");
        put_format(r, &b, how, spec, args->values[used++]);
    }
    return jinja_take(&b);
}

static JinjaValue filter_format(JinjaRun *r, JinjaValue v, Args *args) {
    need_text(r, v, "format");
    return jinja_format_percent(r, v, args);
}

static JinjaValue field_value(JinjaRun *r, const char *name, size_t *next, Args *args) {
    char *end;
    size_t i = *name ? (size_t)strtoul(name, &end, 10) : (*next)++;
    bool word = *name && (*end || end == name);
    JinjaValue v = jinja_argument(args, word ? SIZE_MAX : i, word ? name : NULL);
    if (v.kind == JINJA_UNDEFINED) jinja_fail(r->heap, "format: no value for {%s}", name);
    return v;
}

// "{}", "{0}", "{name}", each with :spec of numbers.
static JinjaValue method_format(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaBuffer b = {0};
    size_t next = 0;
    for (size_t at = 0; at < v.text.n; at++) {
        char c = v.text.text[at];
        if (c != '{' && c != '}') {
            jinja_append(r->heap, &b, jinja_slice(v, at, at + 1).text);
            continue;
        }
        if (at + 1 < v.text.n && v.text.text[at + 1] == c) {
            at++;
            jinja_append(r->heap, &b, jinja_slice(v, at, at + 1).text);
            continue;
        }
        const char *close = memchr(v.text.text + at, '}', v.text.n - at);
        char name[40], spec[16] = "";
        size_t n = close ? (size_t)(close - v.text.text) - at - 1 : 0;
        if (c == '}' || !close || n >= sizeof name) jinja_fail(r->heap, "format: expected {} with a short name");
        memcpy(name, v.text.text + at + 1, n);
        name[n] = 0;
        char *colon = strchr(name, ':'), how = 's';
        if (colon) {
            size_t end = read_spec(jinja_word(colon + 1).text, 0, spec);
            how = colon[1 + end] ? colon[1 + end] : *spec ? 'd' : 's';
            if (!strchr("sdxXfeg", how)) jinja_fail(r->heap, "format: {%s} is not supported", name);
            *colon = 0;
        }
        put_format(r, &b, how, spec, field_value(r, name, &next, args));
        at += n + 1;
    }
    return jinja_take(&b);
}

// ---- filters of text

static JinjaValue filter_string(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    return jinja_string(r, v);
}

static JinjaValue filter_same(JinjaRun *r, JinjaValue v, Args *args) {
    (void)r;
    (void)args;
    return v;
}

static JinjaValue filter_escape(JinjaRun *r, JinjaValue v, Args *args) {
    static const char from[] = "&<>'\"", *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    (void)args;
    v = jinja_string(r, v);
    JinjaBuffer b = {0};
    for (size_t i = 0; i < v.text.n; i++) {
        const char *special = v.text.text[i] ? strchr(from, v.text.text[i]) : NULL;
        if (special) jinja_append_word(r->heap, &b, to[special - from]);
        else jinja_append(r->heap, &b, jinja_slice(v, i, i + 1).text);
    }
    return jinja_take(&b);
}

static JinjaValue filter_indent(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue width = jinja_argument(args, 0, "width"), pad = width;
    bool first = flag(args, 1, "first", false), blank = flag(args, 2, "blank", false);
    v = jinja_string(r, v);
    if (width.kind != JINJA_STRING) {
        JinjaBuffer spaces = {0};
        int64_t n = number(r, args, 0, "width", 4);
        for (int64_t i = 0; i < n; i++) jinja_append_word(r->heap, &spaces, " ");
        pad = jinja_take(&spaces);
    }
    JinjaBuffer b = {0};
    for (size_t at = 0, end; at <= v.text.n; at = end + 1) {
        end = find_text(v.text, at, jinja_word("\n").text);
        if (end == SIZE_MAX) end = v.text.n;
        if (at ? blank || end > at : first) jinja_append(r->heap, &b, pad.text);
        jinja_append(r->heap, &b, jinja_slice(v, at, end < v.text.n ? end + 1 : end).text);
    }
    return jinja_take(&b);
}

static JinjaValue filter_wordcount(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    int64_t count = 0;
    bool inside = false;
    v = jinja_string(r, v);
    for (size_t at = 0, len; at < v.text.n; at += len) {
        uint32_t c;
        len = (size_t)utf8_decode(v.text.text + at, v.text.n - at, &c);
        bool word = c == '_' || is_alnum((int32_t)c);
        count += word && !inside;
        inside = word;
    }
    return jinja_int(count);
}

static JinjaValue filter_tojson(JinjaRun *r, JinjaValue v, Args *args) {
    int64_t indent = number(r, args, 1, "indent", -1); // the order of Hugging Face's own filter
    JinjaJson how = {.indent = indent < 0    ? -1
                               : indent > 64 ? 64
                                             : (int)indent,
                     .sort_keys = flag(args, 3, "sort_keys", false),
                     .ascii = flag(args, 0, "ensure_ascii", false),
                     .item_separator = jinja_word(indent < 0 ? ", " : ",").text,
                     .key_separator = jinja_word(": ").text};
    JinjaValue separators = jinja_argument(args, 2, "separators");
    if (separators.kind == JINJA_LIST && separators.list->n == 2) {
        how.item_separator = need_text(r, separators.list->items[0], "tojson");
        how.key_separator = need_text(r, separators.list->items[1], "tojson");
    }
    JinjaBuffer b = {0};
    if (v.kind == JINJA_UNDEFINED && v.name) jinja_fail(r->heap, "tojson: '%s' is undefined", v.name);
    jinja_print_json(r->heap, &b, v, &how, 0);
    return jinja_take(&b);
}

static JinjaValue filter_from_json(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    JinjaText t = need_text(r, v, "from_json");
    return jinja_read_json(r->heap, t.text, t.n);
}

// ---- filters of numbers

static JinjaValue filter_int(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue otherwise = args->n ? jinja_argument(args, 0, "default") : jinja_int(0);
    if (v.kind == JINJA_UNDEFINED) jinja_fail(r->heap, "int: '%s' is undefined", v.name ? v.name : "the value");
    if (v.kind == JINJA_INT || v.kind == JINJA_BOOL) return jinja_int(jinja_index(r, v, "int"));
    double d = v.kind == JINJA_FLOAT ? v.real : NAN;
    if (v.kind == JINJA_STRING) {
        char digits[64] = "", *end = digits;
        JinjaValue t = strip(v, NULL, true, true);
        if (t.text.n < sizeof digits) memcpy(digits, t.text.text, t.text.n);
        long long whole = strtoll(digits, &end, 10);
        if (end > digits && !*end) return jinja_int(whole);
        d = strtod(digits, &end);
        if (end == digits || *end) return otherwise;
    }
    return fabs(d) < 9e18 ? jinja_int((int64_t)d) : otherwise;
}

static JinjaValue filter_float(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue otherwise = args->n ? jinja_argument(args, 0, "default") : jinja_real(0);
    if (v.kind == JINJA_UNDEFINED) jinja_fail(r->heap, "float: '%s' is undefined", v.name ? v.name : "the value");
    if (jinja_is_number(v)) return jinja_real(jinja_number(v));
    char digits[64] = "", *end = digits;
    if (v.kind != JINJA_STRING || v.text.n >= sizeof digits) return otherwise;
    JinjaValue t = strip(v, NULL, true, true);
    memcpy(digits, t.text.text, t.text.n);
    double d = strtod(digits, &end);
    return end == digits || *end ? otherwise : jinja_real(d);
}

static JinjaValue filter_abs(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    if (v.kind == JINJA_FLOAT) return jinja_real(fabs(v.real));
    int64_t i = jinja_index(r, v, "abs");
    if (i == INT64_MIN) jinja_fail(r->heap, "abs: more than 64 bits");
    return jinja_int(i < 0 ? -i : i);
}

static JinjaValue filter_round(JinjaRun *r, JinjaValue v, Args *args) {
    if (!jinja_is_number(v)) jinja_fail(r->heap, "round: expected a number, found %s", jinja_kind_name(v));
    int64_t precision = number(r, args, 0, "precision", 0);
    if (precision < -18 || precision > 30) jinja_fail(r->heap, "round: expected a precision of -18 to 30");
    double scale = pow(10, (double)precision), d = jinja_number(v);
    JinjaValue method = jinja_argument(args, 1, "method");
    if (jinja_is_word(method, "ceil")) return jinja_real(ceil(d * scale) / scale);
    if (jinja_is_word(method, "floor")) return jinja_real(floor(d * scale) / scale);
    if (v.kind != JINJA_FLOAT && precision >= 0) return jinja_int(jinja_index(r, v, "round"));
    if (v.kind != JINJA_FLOAT) return jinja_int((int64_t)(nearbyint(d * scale) * pow(10, (double)-precision)));
    if (precision < 0) return jinja_real(nearbyint(d * scale) * pow(10, (double)-precision));
    char out[400]; // decimal digits, which are exact
    snprintf(out, sizeof out, "%.*f", (int)precision, d);
    return jinja_real(strtod(out, NULL));
}

// ---- filters of collections

static JinjaValue filter_length(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    return jinja_int((int64_t)jinja_length(r, v));
}

static JinjaValue filter_default(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue otherwise = jinja_argument(args, 0, "default_value");
    (void)r;
    bool missing = v.kind == JINJA_UNDEFINED || (flag(args, 1, "boolean", false) && !jinja_true(v));
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
    return with_items(r, jinja_items(r, v));
}

static JinjaValue pair(JinjaRun *r, JinjaValue a, JinjaValue b) {
    JinjaValue l = jinja_list(r->heap);
    l.list->tuple = true;
    jinja_push(r->heap, l.list, a);
    jinja_push(r->heap, l.list, b);
    return l;
}

static JinjaValue do_items(JinjaRun *r, JinjaValue v, Args *args) {
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
    JinjaText t = need_text(r, path, "attribute");
    for (size_t at = 0, end; at <= t.n; at = end + 1) {
        end = find_text(t, at, jinja_word(".").text);
        if (end == SIZE_MAX) end = t.n;
        JinjaValue key = jinja_slice(path, at, end);
        if (end > at && end - at < 10 && jinja_true(all_characters(key, is_digit))) {
            char digits[10] = "";
            memcpy(digits, key.text.text, key.text.n);
            key = jinja_int(strtol(digits, NULL, 10));
        }
        if (v.kind == JINJA_UNDEFINED) return v;
        v = jinja_member(r, v, key, true);
    }
    return v;
}

static JinjaValue join_items(JinjaRun *r, const JinjaList *l, JinjaValue by, JinjaValue attribute) {
    JinjaBuffer b = {0};
    for (size_t i = 0; i < l->n; i++) {
        JinjaValue v = attribute.kind == JINJA_UNDEFINED ? l->items[i] : path_of(r, l->items[i], attribute);
        if (i && by.kind == JINJA_STRING) jinja_append(r->heap, &b, by.text);
        jinja_append(r->heap, &b, jinja_string(r, v).text);
    }
    return jinja_take(&b);
}

static JinjaValue filter_join(JinjaRun *r, JinjaValue v, Args *args) {
    return join_items(r, jinja_items(r, v), jinja_argument(args, 0, "d"), jinja_argument(args, 1, "attribute"));
}

static JinjaArguments rest_of(Args *args, size_t skip) {
    size_t n = args->n < skip ? args->n : skip;
    return (JinjaArguments){args->values + n, args->names + n, args->n - n};
}

static char *word_of(JinjaRun *r, JinjaValue v, const char *what) {
    JinjaText t = need_text(r, v, what);
    char *word = jinja_alloc(r->heap, t.n + 1);
    if (t.n) memcpy(word, t.text, t.n);
    return word;
}

static JinjaValue filter_map(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue l = jinja_list(r->heap), attribute = jinja_argument(args, SIZE_MAX, "attribute");
    JinjaValue otherwise = jinja_argument(args, SIZE_MAX, "default");
    const JinjaList *from = jinja_items(r, v);
    JinjaArguments rest = rest_of(args, 1);
    const char *name = attribute.kind == JINJA_UNDEFINED ? word_of(r, jinja_argument(args, 0, NULL), "map") : NULL;
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
    const char *name = test.kind == JINJA_UNDEFINED ? NULL : word_of(r, test, "select");
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
    return v.kind == JINJA_STRING ? join_items(r, l.list, undefined, undefined) : l;
}

typedef struct {
    JinjaValue key, item;
} Keyed;

static JinjaValue sort_key(JinjaRun *r, JinjaValue v, bool case_sensitive) {
    return v.kind == JINJA_STRING && !case_sensitive ? change_case(r, v, LOWER, false) : v;
}

// Of the attributes "a,b": a list of keys.
static JinjaValue sort_keys(JinjaRun *r, JinjaValue v, JinjaValue attributes, bool case_sensitive) {
    if (attributes.kind == JINJA_UNDEFINED || attributes.kind == JINJA_NONE) return sort_key(r, v, case_sensitive);
    JinjaValue keys = jinja_list(r->heap), comma = jinja_word(",");
    static const char *no_name[1];
    if (attributes.kind == JINJA_INT) return sort_key(r, path_of(r, v, attributes), case_sensitive);
    need_text(r, attributes, "attribute");
    const JinjaList *all = method_split(r, attributes, &(JinjaArguments){&comma, no_name, 1}).list;
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
    bool sensitive = flag(args, 1, "case_sensitive", false);
    Keyed *all = jinja_alloc(r->heap, (from->n + 1) * sizeof *all);
    for (size_t i = 0; i < from->n; i++) {
        all[i] = (Keyed){sort_keys(r, from->items[i], attribute, sensitive), from->items[i]};
    }
    return sorted(r, all, from->n, flag(args, 0, "reverse", false));
}

static JinjaValue filter_dictsort(JinjaRun *r, JinjaValue v, Args *args) {
    const JinjaList *from = do_items(r, v, args).list;
    bool value = jinja_is_word(jinja_argument(args, 1, "by"), "value"),
         sensitive = flag(args, 0, "case_sensitive", false);
    Keyed *all = jinja_alloc(r->heap, (from->n + 1) * sizeof *all);
    for (size_t i = 0; i < from->n; i++)
        all[i] = (Keyed){sort_key(r, from->items[i].list->items[value], sensitive), from->items[i]};
    return sorted(r, all, from->n, flag(args, 2, "reverse", false));
}

static JinjaValue filter_unique(JinjaRun *r, JinjaValue v, Args *args) {
    const JinjaList *from = jinja_items(r, v);
    JinjaValue l = jinja_list(r->heap), seen = jinja_list(r->heap), attribute = jinja_argument(args, 1, "attribute");
    for (size_t i = 0; i < from->n; i++) {
        JinjaValue key = attribute.kind == JINJA_UNDEFINED ? from->items[i] : path_of(r, from->items[i], attribute);
        key = sort_key(r, key, flag(args, 0, "case_sensitive", false));
        if (jinja_contains(r, seen, key)) continue;
        jinja_push(r->heap, seen.list, key);
        jinja_push(r->heap, l.list, from->items[i]);
    }
    return l;
}

static JinjaValue extreme(JinjaRun *r, JinjaValue v, Args *args, int sign) {
    const JinjaList *l = jinja_items(r, v);
    JinjaValue attribute = jinja_argument(args, 1, "attribute"), best = undefined, best_key = undefined;
    bool sensitive = flag(args, 0, "case_sensitive", false);
    for (size_t i = 0; i < l->n; i++) {
        JinjaValue key = attribute.kind == JINJA_UNDEFINED ? l->items[i] : path_of(r, l->items[i], attribute);
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
        JinjaValue one = attribute.kind == JINJA_UNDEFINED ? l->items[i] : path_of(r, l->items[i], attribute);
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
    return with_items(r, &(JinjaList){.items = v.dict->keys, .n = v.dict->n});
}

static JinjaValue method_values(JinjaRun *r, JinjaValue v, Args *args) {
    (void)args;
    return with_items(r, &(JinjaList){.items = v.dict->values, .n = v.dict->n});
}

static JinjaValue method_update(JinjaRun *r, JinjaValue v, Args *args) {
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
    if (v.kind == JINJA_LIST) return with_items(r, v.list);
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
    int64_t n = (int64_t)v.list->n, i = number(r, args, 0, "index", -1);
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
    int64_t n = (int64_t)v.list->n, i = number(r, args, 0, NULL, 0);
    i = i < 0 ? i + n : i;
    i = i < 0 ? 0 : i > n ? n : i;
    jinja_push(r->heap, v.list, undefined);
    jinja_step(r->heap, (size_t)(n - i) / 16);
    memmove(v.list->items + i + 1, v.list->items + i, (size_t)(n - i) * sizeof v);
    v.list->items[i] = jinja_argument(args, 1, NULL);
    return jinja_none();
}

static JinjaValue method_extend(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue more = with_items(r, jinja_items(r, jinja_argument(args, 0, NULL)));
    for (size_t i = 0; i < more.list->n; i++) jinja_push(r->heap, v.list, more.list->items[i]);
    return jinja_none();
}

static JinjaValue list_index(JinjaRun *r, JinjaValue v, Args *args) {
    jinja_step(r->heap, v.list->n / 2);
    for (size_t i = 0; i < v.list->n; i++) {
        if (jinja_equal(r->heap, v.list->items[i], jinja_argument(args, 0, NULL))) return jinja_int((int64_t)i);
    }
    jinja_fail(r->heap, "index: no such item");
}

static JinjaValue loop_cycle(JinjaRun *r, JinjaValue v, Args *args) {
    if (!args->n) jinja_fail(r->heap, "cycle: expected values");
    return args->values[v.loop->at % args->n];
}

static JinjaValue loop_changed(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue now = with_items(r, &(JinjaList){.items = args->values, .n = args->n});
    bool changed = v.loop->changed.kind != JINJA_LIST || !jinja_equal(r->heap, v.loop->changed, now);
    v.loop->changed = now;
    return jinja_bool(changed);
}

// ---- global functions

static JinjaValue global_raise(JinjaRun *r, JinjaValue v, Args *args) {
    (void)v;
    JinjaText t = jinja_string(r, jinja_argument(args, 0, "message")).text;
    jinja_fail(r->heap, "%.*s", t.n < 300 ? (int)t.n : 300, t.text);
}

static JinjaValue global_strftime(JinjaRun *r, JinjaValue v, Args *args) {
    char out[256];
    (void)v;
    char *format = word_of(r, jinja_argument(args, 0, "format"), "strftime_now");
    size_t n = strlen(format) < 100 ? strftime(out, sizeof out, format, &r->now) : 0;
    char *copy = jinja_alloc(r->heap, n + 1);
    memcpy(copy, out, n);
    return jinja_text(copy, n);
}

static JinjaValue global_range(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue l = jinja_list(r->heap);
    (void)v;
    int64_t first = number(r, args, 0, NULL, 0), end = number(r, args, 1, NULL, 0), step = number(r, args, 2, NULL, 1);
    if (args->n < 2) end = first;
    if (args->n < 2) first = 0;
    if (!step) jinja_fail(r->heap, "range: the step is zero");
    for (int64_t i = first; step > 0 ? i < end : i > end;) {
        jinja_step(r->heap, 1);
        jinja_push(r->heap, l.list, jinja_int(i));
        if (__builtin_add_overflow(i, step, &i)) break;
    }
    return l;
}

static JinjaValue global_dict(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue d = jinja_dict(r->heap);
    (void)v;
    method_update(r, d, args);
    return d;
}

static JinjaValue global_namespace(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue d = global_dict(r, v, args);
    d.kind = JINJA_NAMESPACE;
    return d;
}

// ---- tables

typedef struct {
    const char *name;
    JinjaFunction *function;
} Entry;

static JinjaFunction *entry_find(const Entry *e, size_t n, JinjaValue name) {
    for (size_t i = 0; i < n; i++) {
        if (jinja_is_word(name, e[i].name)) return e[i].function;
    }
    return NULL;
}

#define FIND(table, name) entry_find(table, sizeof(table) / sizeof *(table), name)

static const Entry filters[] = {
    {"abs", filter_abs},
    {"capitalize", do_capitalize},
    {"count", filter_length},
    {"d", filter_default},
    {"default", filter_default},
    {"dictsort", filter_dictsort},
    {"e", filter_escape},
    {"escape", filter_escape},
    {"first", filter_first},
    {"float", filter_float},
    {"format", filter_format},
    {"from_json", filter_from_json},
    {"indent", filter_indent},
    {"int", filter_int},
    {"items", do_items},
    {"join", filter_join},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"lower", do_lower},
    {"map", filter_map},
    {"max", filter_max},
    {"min", filter_min},
    {"reject", filter_reject},
    {"rejectattr", filter_rejectattr},
    {"replace", do_replace},
    {"reverse", filter_reverse},
    {"round", filter_round},
    {"safe", filter_same},
    {"select", filter_select},
    {"selectattr", filter_selectattr},
    {"sort", filter_sort},
    {"string", filter_string},
    {"sum", filter_sum},
    {"title", filter_title},
    {"tojson", filter_tojson},
    {"trim", do_strip},
    {"unique", filter_unique},
    {"upper", do_upper},
    {"wordcount", filter_wordcount},
};

static const Entry string_methods[] = {
    {"capitalize", do_capitalize},
    {"count", method_count},
    {"endswith", method_endswith},
    {"find", method_find},
    {"index", method_index},
    {"format", method_format},
    {"isalnum", method_isalnum},
    {"isalpha", method_isalpha},
    {"isdigit", method_isdigit},
    {"islower", method_islower},
    {"isspace", method_isspace},
    {"isupper", method_isupper},
    {"join", method_join},
    {"lower", do_lower},
    {"lstrip", do_lstrip},
    {"partition", method_partition},
    {"removeprefix", method_removeprefix},
    {"removesuffix", method_removesuffix},
    {"replace", do_replace},
    {"rfind", method_rfind},
    {"rindex", method_rindex},
    {"rpartition", method_rpartition},
    {"rsplit", method_rsplit},
    {"rstrip", do_rstrip},
    {"split", method_split},
    {"splitlines", method_splitlines},
    {"startswith", method_startswith},
    {"strip", do_strip},
    {"title", method_title},
    {"upper", do_upper},
};

static const Entry dict_methods[] = {
    {"copy", copy_of}, {"get", method_get},       {"items", do_items},       {"keys", method_keys},
    {"pop", dict_pop}, {"update", method_update}, {"values", method_values},
};

static const Entry list_methods[] = {
    {"append", method_append}, {"copy", copy_of},         {"count", method_count}, {"extend", method_extend},
    {"index", list_index},     {"insert", method_insert}, {"pop", list_pop},
};

static const Entry loop_methods[] = {{"changed", loop_changed}, {"cycle", loop_cycle}};

static const Entry globals[] = {
    {"dict", global_dict},   {"namespace", global_namespace},   {"raise_exception", global_raise},
    {"range", global_range}, {"strftime_now", global_strftime},
};

JinjaValue jinja_filter(JinjaRun *r, const char *name, JinjaValue v, Args *args) {
    JinjaFunction *f = FIND(filters, jinja_word(name));
    jinja_step(r->heap, 1);
    jinja_step_over(r->heap, v);
    if (!f) jinja_fail(r->heap, "unknown filter '%.60s'", name);
    return f(r, v, args);
}

JinjaFunction *jinja_method(JinjaValue of, JinjaValue name) {
    if (of.kind == JINJA_STRING) return FIND(string_methods, name);
    if (of.kind == JINJA_DICT) return FIND(dict_methods, name);
    if (of.kind == JINJA_LIST) return FIND(list_methods, name);
    return of.kind == JINJA_LOOP ? FIND(loop_methods, name) : NULL;
}

JinjaFunction *jinja_global(const char *name) {
    return FIND(globals, jinja_word(name));
}

// ---- tests

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
    case IS_LOWER: return is_of_case(jinja_string(r, v), LOWER);
    case IS_UPPER: return is_of_case(jinja_string(r, v), UPPER);
    case IS_SAME: return same(r, v, other);
    case IS_FILTER: return v.kind == JINJA_STRING && FIND(filters, v);
    case IS_TEST: return v.kind == JINJA_STRING && find_test(v) != N_TESTS;
    default: jinja_fail(r->heap, "unknown test '%.60s'", name);
    }
}
