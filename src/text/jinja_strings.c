// jinja_strings: the filters and methods of strings. See jinja_builtins.h.
//
// Owns changes of case, cutting, searching, replacing, and what asks about characters; each byte of a result is the
// template's or the input's as the byte was that it comes from.
#include "jinja_builtins.h"
#include "utf8.h"

#include <string.h>
#include <utf8proc.h>

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

JinjaValue jinja_strip(JinjaValue v, const JinjaText *set, bool left, bool right) {
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

JinjaValue jinja_lower(JinjaRun *r, JinjaValue v, Args *args) {
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
    if (set.kind == JINJA_UNDEFINED || set.kind == JINJA_NONE) return jinja_strip(v, NULL, left, right);
    JinjaText characters = jinja_need_text(r, set, "strip");
    jinja_step(r->heap, v.text.n / 8 * (characters.n / 8));
    return jinja_strip(v, &characters, left, right);
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

size_t jinja_find_text(JinjaText t, size_t at, JinjaText what) {
    if (!what.n) return at;
    const char *found = t.n > at ? memmem(t.text + at, t.n - at, what.text, what.n) : NULL;
    return found ? (size_t)(found - t.text) : SIZE_MAX;
}

static JinjaValue do_replace(JinjaRun *r, JinjaValue v, Args *args) {
    v = jinja_string(r, v);
    JinjaValue old = jinja_string(r, jinja_argument(args, 0, "old")),
               new = jinja_string(r, jinja_argument(args, 1, "new"));
    int64_t left = jinja_integer_argument(r, args, 2, "count", -1);
    JinjaBuffer b = {0};
    size_t at = 0;
    while (left && at <= v.text.n) {
        size_t found = jinja_find_text(v.text, at, old.text);
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
    v = jinja_strip(v, NULL, true, false);
    while (v.text.n) {
        size_t end = 0;
        while (end < v.text.n && !in_set(v.text, end, unit(v.text, end), NULL)) end += unit(v.text, end);
        if (!most--) end = v.text.n;
        jinja_push(r->heap, l.list, jinja_slice(v, 0, end));
        v = jinja_strip(jinja_slice(v, end, v.text.n), NULL, true, false);
    }
    return l;
}

JinjaValue jinja_split(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue separator = jinja_argument(args, 0, "sep"), l = jinja_list(r->heap);
    int64_t most = jinja_integer_argument(r, args, 1, "maxsplit", -1);
    if (separator.kind == JINJA_UNDEFINED || separator.kind == JINJA_NONE)
        return split_spaces(r, v, most < 0 ? -1 : most);
    JinjaText by = jinja_need_text(r, separator, "split");
    if (!by.n) jinja_fail(r->heap, "split: the separator is empty");
    size_t at = 0, found;
    while (most-- && (found = jinja_find_text(v.text, at, by)) != SIZE_MAX) {
        jinja_push(r->heap, l.list, jinja_slice(v, at, found));
        at = found + by.n;
    }
    jinja_push(r->heap, l.list, jinja_slice(v, at, v.text.n));
    return l;
}

static JinjaValue rsplit_spaces(JinjaRun *r, JinjaValue v, int64_t most) {
    JinjaValue l = jinja_list(r->heap), parts = jinja_list(r->heap);
    v = jinja_strip(v, NULL, false, true);
    while (v.text.n) {
        size_t begin = v.text.n, len;
        for (; most && begin; begin -= len) {
            uint32_t c;
            len = (size_t)utf8_decode_before(v.text.text, begin, &c);
            if (jinja_is_space(c)) break;
        }
        if (!most--) begin = 0;
        jinja_push(r->heap, parts.list, jinja_slice(v, begin, v.text.n));
        v = jinja_strip(jinja_slice(v, 0, begin), NULL, false, true);
    }
    for (size_t i = parts.list->n; i > 0; i--) jinja_push(r->heap, l.list, parts.list->items[i - 1]);
    return l;
}

static JinjaValue method_rsplit(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaValue separator = jinja_argument(args, 0, "sep");
    int64_t most = jinja_integer_argument(r, args, 1, "maxsplit", -1);
    if (separator.kind == JINJA_UNDEFINED || separator.kind == JINJA_NONE) return rsplit_spaces(r, v, most);
    JinjaText by = jinja_need_text(r, separator, "rsplit");
    JinjaValue all = jinja_split(r, v, &(JinjaArguments){args->values, args->names, 1}), l = jinja_list(r->heap);
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
    bool keep = jinja_flag(args, 0, "keepends", false);
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
    int64_t n = (int64_t)jinja_length(r, v), begin = jinja_integer_argument(r, args, 1, NULL, 0),
            end = jinja_integer_argument(r, args, 2, NULL, n);
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
    if (a.kind != JINJA_LIST)
        return jinja_bool(affix(v.text, jinja_need_text(r, a, end ? "endswith" : "startswith"), end));
    bool found = false;
    for (size_t i = 0; i < a.list->n; i++) {
        JinjaText one = jinja_need_text(r, a.list->items[i], "affix");
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
    JinjaText a = jinja_need_text(r, jinja_argument(args, 0, NULL), "removeprefix");
    return affix(v.text, a, false) ? jinja_slice(v, a.n, v.text.n) : v;
}

static JinjaValue method_removesuffix(JinjaRun *r, JinjaValue v, Args *args) {
    JinjaText a = jinja_need_text(r, jinja_argument(args, 0, NULL), "removesuffix");
    return affix(v.text, a, true) ? jinja_slice(v, 0, v.text.n - a.n) : v;
}

// The character where argument 0 begins first, or last; -1: nowhere.
static int64_t position(JinjaRun *r, JinjaValue v, Args *args, bool last) {
    JinjaText what = jinja_need_text(r, jinja_argument(args, 0, NULL), "find");
    size_t skipped, found = SIZE_MAX;
    v = window(r, v, args, &skipped);
    if (!last || !what.n) found = last ? v.text.n : jinja_find_text(v.text, 0, what);
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
    JinjaText by = jinja_need_text(r, jinja_argument(args, 0, NULL), "partition");
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
    JinjaText t = jinja_need_text(r, what, "count");
    size_t skipped;
    v = window(r, v, args, &skipped);
    if (!t.n) return jinja_int((int64_t)jinja_length(r, v) + 1);
    for (size_t at = 0; (at = jinja_find_text(v.text, at, t)) != SIZE_MAX; at += t.n) count++;
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

bool jinja_is_of_case(JinjaValue v, bool upper) {
    bool found = false;
    for (size_t at = 0, len; at < v.text.n; at += len) {
        uint32_t c;
        len = (size_t)utf8_decode(v.text.text + at, v.text.n - at, &c);
        utf8proc_category_t k = utf8proc_category((int32_t)c);
        if (k == UTF8PROC_CATEGORY_LT || k == (upper ? UTF8PROC_CATEGORY_LL : UTF8PROC_CATEGORY_LU)) return false;
        found = found || k == (upper ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL);
    }
    return found;
}

static JinjaValue method_islower(JinjaRun *r, JinjaValue v, Args *args) {
    (void)r;
    (void)args;
    return jinja_bool(jinja_is_of_case(v, false));
}

static JinjaValue method_isupper(JinjaRun *r, JinjaValue v, Args *args) {
    (void)r;
    (void)args;
    return jinja_bool(jinja_is_of_case(v, true));
}

bool jinja_is_digits(JinjaValue v) {
    return jinja_true(all_characters(v, is_digit));
}

static JinjaValue method_isdigit(JinjaRun *r, JinjaValue v, Args *args) {
    (void)r;
    (void)args;
    return jinja_bool(jinja_is_digits(v));
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

JinjaValue jinja_join(JinjaRun *r, const JinjaList *l, JinjaValue by) {
    JinjaBuffer b = {0};
    for (size_t i = 0; i < l->n; i++) {
        if (i && by.kind == JINJA_STRING) jinja_append(r->heap, &b, by.text);
        jinja_append(r->heap, &b, jinja_string(r, l->items[i]).text);
    }
    return jinja_take(&b);
}

static JinjaValue method_join(JinjaRun *r, JinjaValue v, Args *args) {
    const JinjaList *l = jinja_items(r, jinja_argument(args, 0, NULL));
    for (size_t i = 0; i < l->n; i++) jinja_need_text(r, l->items[i], "join");
    return jinja_join(r, l, v);
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
    bool first = jinja_flag(args, 1, "first", false), blank = jinja_flag(args, 2, "blank", false);
    v = jinja_string(r, v);
    if (width.kind != JINJA_STRING) {
        JinjaBuffer spaces = {0};
        int64_t n = jinja_integer_argument(r, args, 0, "width", 4);
        for (int64_t i = 0; i < n; i++) jinja_append_word(r->heap, &spaces, " ");
        pad = jinja_take(&spaces);
    }
    JinjaBuffer b = {0};
    for (size_t at = 0, end; at <= v.text.n; at = end + 1) {
        end = jinja_find_text(v.text, at, jinja_word("\n").text);
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

// ---- tables

static const JinjaEntry filters[] = {
    {"capitalize", do_capitalize}, {"e", filter_escape},    {"escape", filter_escape}, {"indent", filter_indent},
    {"lower", jinja_lower},        {"replace", do_replace}, {"safe", filter_same},     {"string", filter_string},
    {"title", filter_title},       {"trim", do_strip},      {"upper", do_upper},       {"wordcount", filter_wordcount},
};

static const JinjaEntry methods[] = {
    {"capitalize", do_capitalize},
    {"count", method_count},
    {"endswith", method_endswith},
    {"find", method_find},
    {"index", method_index},
    {"format", jinja_format_braces},
    {"isalnum", method_isalnum},
    {"isalpha", method_isalpha},
    {"isdigit", method_isdigit},
    {"islower", method_islower},
    {"isspace", method_isspace},
    {"isupper", method_isupper},
    {"join", method_join},
    {"lower", jinja_lower},
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
    {"split", jinja_split},
    {"splitlines", method_splitlines},
    {"startswith", method_startswith},
    {"strip", do_strip},
    {"title", method_title},
    {"upper", do_upper},
};

JinjaFunction *jinja_string_filter(JinjaValue name) {
    return JINJA_ENTRY(filters, name);
}

JinjaFunction *jinja_string_method(JinjaValue name) {
    return JINJA_ENTRY(methods, name);
}
