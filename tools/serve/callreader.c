// callreader: see callreader.h.
#include "callreader.h"

#include "bytes.h"
#include "cli.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <stb/stb_ds.h>

typedef enum { IN_TEXT, BEFORE_CALL, IN_CALL, BEHIND_CALL } ReaderState;
typedef enum { AT_KEY, IN_KEY, AT_VALUE } ObjectState; // of the call's own object

struct CallReader {
    const ToolForm *form;
    char *const *names;
    ReaderState state;
    bool started;            // text has come that is not white space
    char *held;              // stb_ds array: bytes that are text, unless they are of a call
    char *out;               // stb_ds array, terminated: the result of the last call
    CallPart *parts;         // stb_ds array
    int n_begun, n_complete; // calls
    // Of the call being read:
    ObjectState object;
    int depth;             // of brackets
    bool in_string, slash; // behind a backslash
    bool named;            // its name is known, and that of a tool
    char *key, *value;     // stb_ds arrays: of the pair being read, as they stand there
    char *early;           // stb_ds array: arguments that came before the name
    bool has_arguments;
};

void callparts_free(CallPart *list) {
    for (ptrdiff_t i = 0; i < arrlen(list); i++) {
        free(list[i].name);
        arrfree(list[i].arguments);
    }
    arrfree(list);
}

CallReader *callreader_open(const ToolForm *form, char *const *names) {
    CallReader *r = calloc(1, sizeof *r);
    if (r) *r = (CallReader){.form = form, .names = names};
    return r;
}

void callreader_close(CallReader *r) {
    if (!r) return;
    callparts_free(r->parts);
    arrfree(r->held);
    arrfree(r->out);
    arrfree(r->key);
    arrfree(r->value);
    arrfree(r->early);
    free(r);
}

static void release(CallReader *r, size_t n) {
    bytes_append(&r->out, r->held, n);
    if (n) arrdeln(r->held, 0, n);
}

// ---- parts

// Letters and digits, as many as Mistral's template asks for.
static void make_id(char id[10]) {
    static const char set[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    unsigned char random[9] = {0};
    if (getrandom(random, sizeof random, GRND_NONBLOCK) < 0) random[0] = 1;
    for (int i = 0; i < 9; i++) id[i] = set[random[i] % (sizeof set - 1)];
    id[9] = 0;
}

static void begin_call(CallReader *r, const char *name) {
    CallPart p = {.index = r->n_begun++, .name = strdup(name)};
    if (!p.name) die(1, "out of memory");
    make_id(p.id);
    arrput(r->parts, p);
    r->named = true;
    arrsetlen(r->held, 0);
}

static void give_arguments(CallReader *r, const char *text, size_t n) {
    int index = r->n_begun - 1;
    if (!arrlen(r->parts) || arrlast(r->parts).index != index) arrput(r->parts, ((CallPart){.index = index}));
    bytes_append(&arrlast(r->parts).arguments, text, n);
    r->has_arguments = true;
}

CallPart *callreader_take(CallReader *r) {
    CallPart *list = r->parts;
    r->parts = NULL;
    return list;
}

int callreader_complete(const CallReader *r) {
    return r->n_complete;
}

int callreader_begun(const CallReader *r) {
    return r->n_begun;
}

// ---- the object of a call

static bool key_is(const CallReader *r, const char *word) {
    size_t n = strlen(word);
    return arrlenu(r->key) == n && !memcmp(r->key, word, n);
}

static bool at_arguments(const CallReader *r) {
    return key_is(r, "arguments") || key_is(r, "parameters");
}

// The value is no JSON text in a string, and what it is of is known: it goes out as it comes.
static bool passes_on(const CallReader *r) {
    return r->named && at_arguments(r) && *r->value != '"';
}

static void end_value(CallReader *r) {
    json_t *v = arrlen(r->value) ? json_loadb(r->value, arrlenu(r->value), JSON_DECODE_ANY, NULL) : NULL;
    const char *text = json_string_value(v);
    if (key_is(r, "name") && text && !r->named) {
        for (ptrdiff_t i = 0; i < arrlen(r->names) && !r->named; i++)
            if (!strcmp(text, r->names[i])) begin_call(r, text);
        if (r->named && arrlen(r->early)) give_arguments(r, r->early, arrlenu(r->early));
    } else if (at_arguments(r) && !passes_on(r)) {
        arrsetlen(r->early, 0);
        bytes_append(&r->early, text ? text : r->value, text ? strlen(text) : arrlenu(r->value));
        if (r->named) give_arguments(r, r->early, arrlenu(r->early));
    }
    json_decref(v);
    arrsetlen(r->key, 0);
    arrsetlen(r->value, 0);
    r->object = AT_KEY;
}

static void take_value(CallReader *r, char c) {
    if (r->depth == 1 && !r->in_string && byte_is_space(c)) return;
    arrput(r->value, c);
    if (passes_on(r)) give_arguments(r, &c, 1);
}

static void start_object(CallReader *r) {
    r->state = IN_CALL;
    r->object = AT_KEY;
    r->depth = 1;
    r->in_string = r->slash = r->named = r->has_arguments = false;
    arrsetlen(r->key, 0);
    arrsetlen(r->value, 0);
    arrsetlen(r->early, 0);
}

static void end_object(CallReader *r) {
    if (!r->named) {
        r->state = IN_TEXT;
        r->started = true;
        release(r, arrlenu(r->held));
        return;
    }
    if (!r->has_arguments) give_arguments(r, "{}", 2);
    r->state = BEHIND_CALL;
    r->n_complete++;
}

// A byte behind the object's first bracket.
static void take_object(CallReader *r, char c) {
    bool quote = c == '"' && !r->slash;
    if (!r->named) arrput(r->held, c);
    r->slash = r->in_string && c == '\\' && !r->slash;
    if (!r->in_string && (c == '}' || c == ']') && r->depth == 1) {
        end_value(r);
        end_object(r);
        return;
    }
    if (!r->in_string && c == ',' && r->depth == 1) {
        end_value(r);
        return;
    }
    if (!r->in_string && (c == '{' || c == '[')) r->depth++;
    if (r->object == AT_VALUE) take_value(r, c);
    else if (r->object == IN_KEY && r->in_string && !quote) arrput(r->key, c);
    else if (c == ':' && !r->in_string) r->object = AT_VALUE;
    else if (quote) r->object = IN_KEY;
    if (!r->in_string && (c == '}' || c == ']')) r->depth--;
    if (quote) r->in_string = !r->in_string;
}

// ---- around it

// Whether a string stands at the beginning of the held text; *maybe: the text is too short to tell.
static bool held_begins(const CallReader *r, const char *text, bool *maybe) {
    size_t n = strlen(text), have = arrlenu(r->held);
    if (!n || !have || memcmp(r->held, text, n < have ? n : have) != 0) return false;
    if (have < n) *maybe = true;
    return have >= n;
}

static bool only_space(const char *text, size_t n) {
    while (n && byte_is_space(text[n - 1])) n--;
    return !n;
}

// Held text that begins with what may be a mark.
static void look_for_mark(CallReader *r) {
    const char *mark = r->form->mark;
    if (!*mark) { // the whole answer is a call, or none of it
        if (!r->started && only_space(r->held, arrlenu(r->held))) return;
        if (!r->started && arrlast(r->held) == '{') start_object(r);
        else release(r, arrlenu(r->held));
        r->started = true;
        return;
    }
    for (bool maybe = false; arrlen(r->held); release(r, 1)) {
        if (held_begins(r, mark, &maybe)) r->state = BEFORE_CALL;
        if (maybe || r->state == BEFORE_CALL) return;
    }
}

static void take_before(CallReader *r, char c) {
    arrput(r->held, c);
    if (c == '{') start_object(r);
    else if (!byte_is_space(c) && !(c == '[' && r->form->list)) {
        r->state = IN_TEXT;
        release(r, 1); // at least this byte is none of a mark
        look_for_mark(r);
    }
}

static void take_behind(CallReader *r, char c) {
    bool again = r->form->list || !*r->form->mark, maybe = false;
    arrput(r->held, c);
    if (arrlen(r->held) == 1 && (byte_is_space(c) || (again && strchr(",;]", c)))) arrsetlen(r->held, 0);
    else if (again && arrlen(r->held) == 1 && c == '{') start_object(r);
    else if (held_begins(r, r->form->close, &maybe)) arrsetlen(r->held, 0);
    else if (!maybe) {
        r->state = IN_TEXT;
        look_for_mark(r);
    }
}

static const char *result(CallReader *r) {
    arrput(r->out, 0);
    return r->out;
}

const char *callreader_push(CallReader *r, const char *text) {
    arrsetlen(r->out, 0);
    for (; *text; text++) {
        if (r->state == IN_CALL) take_object(r, *text);
        else if (r->state == BEFORE_CALL) take_before(r, *text);
        else if (r->state == BEHIND_CALL) take_behind(r, *text);
        else {
            arrput(r->held, *text);
            look_for_mark(r);
        }
    }
    return result(r);
}

const char *callreader_finish(CallReader *r) {
    arrsetlen(r->out, 0);
    if (r->state != BEHIND_CALL) release(r, arrlenu(r->held));
    arrsetlen(r->held, 0);
    return result(r);
}
