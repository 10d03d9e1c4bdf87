// Chat templates run as programs: every construct against what Jinja2 renders (fixtures/jinja.py), which bytes the
// template wrote, lines of errors, and limits that hostile templates meet.
#include "jinja.h"
#include "chat.h"
#include "make_marked.h"
#include "test.h"

#include <jansson.h>

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

int main(void) {
    RUN(test_jinja2);
    return test_report();
}
