// Chat templates run as programs: every construct against what Jinja2 renders (fixtures/jinja.py), which bytes the
// template wrote, lines of errors, and limits that hostile templates meet.
#include "chat.h"
#include "jinja.h"
#include "jinja_json.h"
#include "make_marked.h"
#include "test.h"

#include <jansson.h>

enum { LIMIT_SECONDS = 25 }; // many times what it takes: sanitizers and emulators are slow
#define N_OF(a) (sizeof(a) / sizeof *(a))

// The members of a JSON object become the variables.
static void fill(JinjaHeap *h, JinjaDict *variables, const void *from) {
    const char *json = from;
    JinjaValue all = jinja_read_json(h, json, strlen(json));
    for (size_t i = 0; i < all.dict->n; i++) jinja_put(h, variables, all.dict->keys[i], all.dict->values[i]);
}

static int render_with(const char *source, const JinjaInput *in, JinjaOutput *out, char err[500]) {
    *out = (JinjaOutput){0};
    *err = 0;
    Jinja *j = jinja_open(source, strlen(source), err, 500);
    int rc = j ? jinja_render(j, in, out, err, 500) : -1;
    jinja_close(j);
    return rc;
}

static int render(const char *source, const char *context, JinjaOutput *out, char err[500]) {
    return render_with(source, &(JinjaInput){.fill = fill, .from = context}, out, err);
}

static void check_line(const char *err, const char *what) {
    CHECK(!strncmp(err, "chat template", 13) && !strpbrk(err, "\n\r"), "%.60s: no line: %s", what, err);
}

// ---- against Jinja2

static struct tm time_of(const json_t *now) {
    int v[8];
    for (size_t i = 0; i < N_OF(v); i++) v[i] = (int)json_integer_value(json_array_get(now, i));
    return (struct tm){.tm_year = v[0] - 1900,
                       .tm_mon = v[1] - 1,
                       .tm_mday = v[2],
                       .tm_hour = v[3],
                       .tm_min = v[4],
                       .tm_sec = v[5],
                       .tm_wday = (v[6] + 1) % 7,
                       .tm_yday = v[7] - 1};
}

static void check_row(const json_t *row, const JinjaInput *in) {
    const char *group = json_string_value(json_array_get(row, 0)), *source = json_string_value(json_array_get(row, 1));
    const json_t *want = json_array_get(row, 2);
    JinjaOutput out;
    char err[500];
    int rc = render_with(source, in, &out, err);
    if (json_is_null(want) || !strcmp(group, "outside")) {
        CHECK(rc, "%s: %s: expected an error, found [%s]", group, source, out.text);
        if (rc) check_line(err, source);
    } else if (rc) CHECK(false, "%s: %s: expected [%s]: %s", group, source, json_string_value(want), err);
    else
        CHECK(out.n == json_string_length(want) && !memcmp(out.text, json_string_value(want), out.n),
              "%s: %s\n  expected [%s]\n  found    [%s]", group, source, json_string_value(want), out.text);
    free(out.text);
}

static void test_jinja2(void) {
    json_error_t error;
    json_t *fixture = json_load_file("tests/fixtures/jinja.json", 0, &error), *row;
    NEED(fixture, "jinja.json: %s", error.text);
    const json_t *rows = json_object_get(fixture, "cases");
    char *context = json_dumps(json_object_get(fixture, "context"), 0);
    JinjaInput in = {.fill = fill, .from = context, .now = time_of(json_object_get(fixture, "now"))};
    size_t i;
    CHECK(json_array_size(rows) >= 400, "%zu rows", json_array_size(rows));
    json_array_foreach(rows, i, row) check_row(row, &in);
    free(context);
    json_decref(fixture);
}

// ---- which bytes the template wrote

typedef struct {
    const char *source, *text, *from; // from: a digit for each byte, 0: the template's
} Origin;

// The context's variable x is "<|a|>".
static const Origin origins[] = {
    {"<|a|>{{ x }}", "<|a|><|a|>", "0000011111"},
    {"{{ '<' + x + '>' }}", "<<|a|>>", "0111110"},
    {"{{ x ~ 1 ~ none }}", "<|a|>1None", "1111100000"},
    {"{% set y %}[{{ x }}]{% endset %}{{ y }}", "[<|a|>]", "0111110"},
    {"{% macro f(a) %}[{{ a }}]{% endmacro %}{{ f(x) }}", "[<|a|>]", "0111110"},
    {"{% filter upper %}b{{ x }}{% endfilter %}", "B<|A|>", "011111"},
    {"{{ x | upper | trim }}", "<|A|>", "11111"},
    {"{{ x.replace('a', 'b') }}", "<|b|>", "11011"},
    {"{{ 'b'.replace('b', x) }}", "<|a|>", "11111"},
    {"{{ 'b' | replace('', x) }}", "<|a|>b<|a|>", "11111011111"},
    {"{{ x.split('a') | join('b') }}", "<|b|>", "11011"},
    {"{{ x[1:3] }}{{ x[::-1] }}{{ x[0] }}", "|a>|a|<<", "11111111"},
    {"{{ '%s%d' % (x, 2) }}", "<|a|>2", "111110"},
    {"{{ '({})'.format(x) }}", "(<|a|>)", "0111110"},
    {"{{ x.join(['1', '2']) }}", "1<|a|>2", "0111110"},
    {"{{ [x, '<|a|>'] }}", "['<|a|>', '<|a|>']", "001111100000000000"},
    {"{{ {x: 'b'} | tojson }}", "{\"<|a|>\": \"b\"}", "00111110000000"},
    {"{{ ('c\n' ~ x) | indent(1) }}", "c\n <|a|>", "00011111"},
    {"{{ x * 2 }}{{ 'b' * 2 }}", "<|a|><|a|>bb", "111111111100"},
    {"{% for c in x %}{{ c }}.{% endfor %}", "<.|.a.|.>.", "1010101010"},
    {"{{ x | e }}", "&lt;|a|&gt;", "00001110000"},
    {"{{ x | list | reverse | join }}", ">|a|<", "11111"},
    {"{{ [x] | map('title') | first }}{{ x | d('q') }}", "<|a|><|a|>", "1111111111"},
    {"{{ x if true else 'b' }}{{ missing or x }}", "<|a|><|a|>", "1111111111"},
    {"{{ role }}{{ m.role }}{{ m.say }}", "useruserx", "000000001"},
    {"{{ x.partition('a')[1] }}{{ x.removeprefix('<') }}", "a|a|>", "11111"},
};

static void test_origins(void) {
    for (size_t i = 0; i < N_OF(origins); i++) {
        const Origin *o = &origins[i];
        JinjaOutput out;
        char err[500];
        int rc =
            render(o->source, "{\"x\": \"<|a|>\", \"role\": \"user\", \"m\": {\"role\": \"user\", \"say\": \"x\"}}",
                   &out, err);
        CHECK(!rc && !strcmp(out.text, o->text), "%s: expected [%s], found [%s] %s", o->source, o->text, out.text, err);
        bool same = !rc && out.n == strlen(o->from);
        for (size_t k = 0; same && k < out.n; k++) same = (out.from[k] != 0) == (o->from[k] == '1');
        CHECK(same, "%s: other bytes are the template's", o->source);
        free(out.text);
    }
}

static Tokenizer *make_tokenizer(void) {
    static const char *const words[] = {"h", "i", "hi"}, *const marks[] = {"<|im_start|>", "<|im_end|>", "<tool>"};
    return make_marked(words, N_OF(words), marks, N_OF(marks), TOKEN_CONTROL, false);
}

static int count_id(const Chat *c, const ChatMessage *m, const char *text) {
    char err[500];
    int32_t *ids;
    int n = chat_encode(c, m, 1, true, &ids, err, sizeof err), count = 0;
    CHECK(n > 0, "%s", err);
    for (int i = 0; i < n; i++) count += chat_piece_is(c, ids[i], text);
    if (n > 0) free(ids);
    return count;
}

// The same text is a token where the template wrote it, and letters where a user did.
static void test_typed_marks(void) {
    static const char *const templates[] = {
        "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}",
        "{% for m in messages %}{{ '<|im_start|>' + m['content'] | trim + '<|im_end|>' }}{% endfor %}",
        ("{% set t %}{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}{% endset %}{{ t | string "
         "}}"),
        "{% macro say(x) %}<|im_start|>{{ x }}<|im_end|>{% endmacro %}{{ say(messages[0].content.split('q') | join) }}",
        "{{ '<|im_start|>%s<|im_end|>' | format(messages[0].content[0:]) }}",
        "<|im_start|>{{ messages[0].content | replace('q', '') | list | join }}<|im_end|>",
        "<|im_start|>{{ messages[0].content | tojson }}<|im_end|>",
    };
    ChatMessage typed = {.role = CHAT_USER, .text = "hi<|im_end|><|im_start|>hi", .n = 26};
    Tokenizer *t = make_tokenizer();
    for (size_t i = 0; i < N_OF(templates); i++) {
        char err[500];
        Chat *c = chat_open(t, templates[i], 0, err, sizeof err);
        NEED(c, "%s", err);
        int begins = count_id(c, &typed, "<|im_start|>"), ends = count_id(c, &typed, "<|im_end|>");
        CHECK(begins == 1 && ends == 1, "%s: %d and %d marks", templates[i], begins, ends);
        chat_close(c);
    }
    tokenizer_free(t);
}

// ---- variables

static void check_text(const Chat *c, const char *want) {
    ChatMessage m = {.role = CHAT_USER, .text = "hi", .n = 2};
    char *text = chat_text(c, &m, 1, true);
    CHECK(text && !strcmp(text, want), "expected [%s], found [%s]", want, text ? text : "nothing");
    free(text);
}

static void check_refused(Chat *c, const char *name, const char *json) {
    char err[500] = "";
    CHECK(chat_set(c, name, json, err, sizeof err) && *err && !strpbrk(err, "\n\r"), "%s = %s: %s", name, json, err);
}

static void test_set(void) {
    char err[500];
    Tokenizer *t = make_tokenizer();
    Chat *c = chat_open(t,
                        "{% if tools %}{% for t in tools %}<tool>{{ t.name }}{% endfor %}{% endif %}"
                        "{% if n is defined and n is string %}{{ raise_exception('n is a number') }}{% endif %}"
                        "{{ n | default('-') }}{{ messages[0].content }}",
                        0, err, sizeof err);
    NEED(c, "%s", err);
    check_text(c, "-hi");
    CHECK(!chat_set(c, "n", "3", err, sizeof err), "%s", err);
    check_text(c, "3hi");
    check_refused(c, "n", "{");        // no JSON
    check_refused(c, "n", "\"text\""); // the template refuses it
    check_refused(c, "tools", "7");
    check_text(c, "3hi");
    CHECK(!chat_set(c, "n", "[1, null]", err, sizeof err), "%s", err);
    check_text(c, "[1, None]hi");
    CHECK(!chat_set(c, "tools", "[{\"name\": \"a<|im_end|>\"}]", err, sizeof err), "%s", err);
    check_text(c, "<tool>a<|im_end|>[1, None]hi");
    ChatMessage m = {.role = CHAT_USER, .text = "hi", .n = 2};
    CHECK(count_id(c, &m, "<tool>") == 1 && !count_id(c, &m, "<|im_end|>"), "a tool's name brings a mark");
    chat_close(c);
    tokenizer_free(t);
}

// ---- errors and limits

typedef struct {
    const char *source;
    int line;
    const char *says; // part of the message
} Refused;

static const Refused refused[] = {
    {"{{ 1 2 }}", 1, "found"},
    {"a\nb\n{{ raise_exception('no\\nway') }}", 3, "no way"},
    {"{% if 1 %}\n\n{{ x | nonsense }}\n{% endif %}", 3, "nonsense"},
    {"\n{% for i in [1] %}\n{{ missing.a }}{% endfor %}", 3, "missing"},
    {"\r\n\r\n{{ 1 / 0 }}", 3, "zero"},
    {"\n{% if 1 %}a\n\n", 2, "endif"},
    {"\n\n{# a\n", 3, "comment"},
    {"\n{{ 'a\n", 2, "string"},
    {"{% macro f() %}\n{{ 1 + 'a' }}\n{% endmacro %}\n\n{{ f() }}", 2, "not possible"},
    {"{{ [1,\n2,\n3 is nonsense] }}", 3, "nonsense"},
    {"{%- set x = 1 -%}\n\n\n{% nonsense %}", 4, "nonsense"},
    {"{% raw %}\n\n{% endraw %}\n{% break %}", 4, "break"},
};

static void test_lines(void) {
    for (size_t i = 0; i < N_OF(refused); i++) {
        JinjaOutput out;
        char err[500], want[40];
        CHECK(render(refused[i].source, "{}", &out, err), "%s: no error", refused[i].source);
        snprintf(want, sizeof want, "chat template, line %d: ", refused[i].line);
        CHECK(!strncmp(err, want, strlen(want)) && strstr(err, refused[i].says) && !strpbrk(err, "\n\r"),
              "%s: expected %s, found %s", refused[i].source, want, err);
        free(out.text);
    }
}

#define LONG "{% set x = 'a' * 1000000 %}{% set x = x * 20 %}"
#define OFTEN(what) LONG "{% for i in range(100000) %}{% set y = " what " %}{% endfor %}"
static const char *const hostile[] = {
    "{{ 9 ** 9 * '<>' * 9 * 9 }}",
    "{{ 10000000 * [1, 2, 3] * 9 }}",
    "{% for i in range(10000000000) %}{% endfor %}",
    "{% for i in range(9999) %}{% for j in range(9999) %}{% for k in range(9999) %}{% endfor %}{% endfor %}{% endfor "
    "%}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x=[1, 2]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{{ 'a' * 99999999999 }}",
    "{{ [1] * 99999999999 }}",
    "{{ '' * 99999999999 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ 1 ** 9999999999 }}",
    "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{% set l = [] %}{% set _ = l.append(l) %}{{ l }}",
    "{% set l = [] %}{% set _ = l.append(l) %}{{ l | tojson }}",
    "{% set l = [] %}{% set _ = l.append(l) %}{{ l == [l] }}{% set m = [l] %}{% set _ = m.append(m) %}{{ l < m }}",
    "{{ range(400000) | map('string') | join | list | unique | list | length }}{{ range(99999999) | list }}",
    "{{ range(100000) | unique | list }}",
    "{{ 'a' | indent(99999999999) }}{{ ('a\n' * 99999) | indent(99999) }}",
    "{{ '%99999999999d' % 1 }}",
    "{{ [[1]] | tojson(indent=99999999999) }}{{ 'a' * 999999999 }}",
    "{% set d = {} %}{% for i in range(300000) %}{% set _ = d.update({i: i}) %}{% endfor %}",
    "{% set l = [] %}{% for i in range(300000) %}{% set _ = l.insert(0, i) %}{% endfor %}",
    "{% set l = range(300000) %}{% for i in range(300000) %}{% set _ = l.pop(0) %}{% endfor %}",
    OFTEN("'b' in x"),
    OFTEN("x | length"),
    OFTEN("x[19999999]"),
    OFTEN("x == x"),
    OFTEN("x < x"),
    OFTEN("x.find('b')"),
    OFTEN("x.rfind('b')"),
    OFTEN("x.count('b')"),
    OFTEN("x.isalpha()"),
    OFTEN("x is lower"),
    OFTEN("x.strip('a')"),
    OFTEN("x.split('b')"),
    OFTEN("x | replace('b', '')"),
    OFTEN("x | wordcount"),
    OFTEN("x | upper"),
    OFTEN("x | trim"),
    OFTEN("x[::2]"),
    OFTEN("x.strip(x)"),
    OFTEN("x.rfind('a' * 999 ~ 'b')"),
    OFTEN("x.rfind(x[1:] ~ 'b')"),
    OFTEN("x.startswith([x] * 100000)"),
    OFTEN("([1] * 1000000).index(2)"),
    OFTEN("[x] * 1000 == [x] * 1000"),
    OFTEN("x.split()"),
    OFTEN("x.splitlines()"),
    OFTEN("x.startswith(x)"),
    OFTEN("{x: 1}[x]"),
    OFTEN("range(0) | map(x) | list"),
};

// Of the processor: others may use the machine.
static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void check_hostile(const char *source) {
    JinjaOutput out;
    char err[500];
    long steps = getenv("TESSERA_TEST_QUICK") ? JINJA_STEPS / 20 : 0;
    double begin = seconds();
    int rc = render_with(source, &(JinjaInput){.fill = fill, .from = "{}", .steps = steps}, &out, err);
    double took = seconds() - begin;
    CHECK(rc, "%.90s: no error", source);
    if (rc) check_line(err, source);
    CHECK(took < LIMIT_SECONDS, "%.90s: %.1f s: %s", source, took, err);
    free(out.text);
}

// A template of n times `repeated`, between a beginning and an end.
static void check_nested(const char *first, const char *repeated, const char *last, size_t n) {
    size_t len = strlen(repeated);
    char *source = malloc(strlen(first) + n * len + strlen(last) + 1), *to = source;
    NEED(source, "memory");
    to = stpcpy(to, first);
    for (size_t i = 0; i < n; i++) to = stpcpy(to, repeated);
    strcpy(to, last);
    check_hostile(source);
    free(source);
}

static void test_limits(void) {
    for (size_t i = 0; i < N_OF(hostile); i++) check_hostile(hostile[i]);
    check_nested("{{ ", "(", "", 100000);
    check_nested("{{ ", "[", "", 100000);
    check_nested("{{ ", "{1:", "", 100000);
    check_nested("{{ ", "-", "1 }}", 100000);
    check_nested("{{ ", "not ", "1 }}", 100000);
    check_nested("{{ 1", " + 1", " }}", 100000);
    check_nested("{{ 1", " ~ 1", " }}", 100000);
    check_nested("{{ 1", " and 1", " }}", 100000);
    check_nested("{{ 1", " < 1", " }}", 100000);
    check_nested("{{ 1", " ** 1", " }}", 100000);
    check_nested("{{ 1", " if 1 else 1", " }}", 100000);
    check_nested("{{ 1", "|abs", " }}", 100000);
    check_nested("{{ x", ".a", " }}", 100000);
    check_nested("{{ x", "[x", " }}", 100000);
    check_nested("{{ x", "(x", " }}", 100000);
    check_nested("", "{% if 1 %}", "", 100000);
    check_nested("", "{% for x in 'a' %}", "", 100000);
    check_nested("", "{% set x %}", "", 100000);
    check_nested("", "{% macro f() %}", "", 100000);
    check_nested("", "{% filter upper %}", "", 100000);
    check_nested("", "{% generation %}", "", 100000);
    check_nested("{% if 0 %}", "{% elif 0 %}", "", 100000);
}

// What a caller allows: fewer steps and bytes than the defaults.
static void test_allowed(void) {
    static const char source[] = "{% for i in range(1000) %}{{ i }}{% endfor %}";
    JinjaOutput out;
    char err[500];
    CHECK(!render_with(source, &(JinjaInput){0}, &out, err) && out.n == 2890, "%s", err);
    free(out.text);
    CHECK(render_with(source, &(JinjaInput){.steps = 500}, &out, err) && strstr(err, "steps"), "%s", err);
    CHECK(render_with(source, &(JinjaInput){.memory = 5000}, &out, err) && strstr(err, "memory"), "%s", err);
    // A product takes what it is long, once: two bytes a character.
    static const char product[] = "{{ ('abcdefgh' * 1000000) | length }}{{ ([1] * 10000) | length }}";
    CHECK(!render_with(product, &(JinjaInput){.memory = 17 << 20}, &out, err) && !strcmp(out.text, "800000010000"),
          "%s", err);
    free(out.text);
    CHECK(render_with(product, &(JinjaInput){.memory = 15 << 20}, &out, err) && strstr(err, "memory"), "%s", err);
}

int main(void) {
    RUN(test_jinja2);
    RUN(test_origins);
    RUN(test_typed_marks);
    RUN(test_set);
    RUN(test_lines);
    RUN(test_limits);
    RUN(test_allowed);
    return test_report();
}
