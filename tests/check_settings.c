// check_settings: a model's JSON files. Every reader with good values (bad ones are in bad/settings.txt), objects in
// objects, and which file belongs to which weights.
//
// In the tables below JSON is written with ' for ".
#include "bad/setting.h"
#include "load.h"

// -- values

static const char *const settings_path = "some/config.json";

static void parse(Settings *s, const char *text, char *err, size_t errlen) {
    char *json = json_of(text);
    CHECK(!settings_parse(s, settings_path, json, strlen(json), err, errlen), "%s: %s", text, err);
    free(json);
}

// clang-format off
static const struct {
    const char *json;
    const char *reader;
    double want;
} good_settings[] = {
    {"{'k':1}", "int ", 1}, {"{'k':10}", "int ", 10}, {"{'k':7,'l':99}", "int ", 7}, {"{'k':7}", "int_5 ", 7}, {"{}", "int_5 ", 5},
    {"{'k':null}", "int_5 ", 5}, {"{'k':-10}", "int_below ", -10}, {"{'k':1.5}", "number ", 1.5}, {"{'k':2}", "number ", 2},
    {"{'k':0.25}", "number ", 0.25}, {"{'k':1e0}", "number ", 1}, {"{'k':0.75}", "number_half ", 0.75},
    {"{}", "number_half ", 0.5}, {"{'k':null}", "number_half ", 0.5}, {"{'k':true}", "bool ", 1}, {"{'k':false}", "bool ", 0},
    {"{}", "bool ", 1}, {"{'k':null}", "bool ", 1}, {"{'k':'gelu'}", "text ", 4}, {"{'k':''}", "text ", 0},
    {"{'k':'gelu'}", "text_x ", 4}, {"{}", "text_x ", 1}, {"{'k':null}", "text_x ", 1}, {"{'k':[1,2.5,3]}", "three ", 326},
    {"{'k':[0,0,-1e2]}", "three ", -10000}, {"{}", "three ", -1}, {"{'k':null}", "three ", -1}, {"{'k':{}}", "object ", 1},
    {"{}", "object ", 0}, {"{'k':null}", "object ", 0}, {"{'k':7.0}", "int ", 7}, {"{'k':1e1}", "int ", 10},
    {"{'k':-10.0}", "int_below ", -10}, {"{'k':1,'k':9}", "int ", 9}, {"{'k':'x','k':null}", "int_5 ", 5},
    {"{'x':NaN,'y':[Infinity,-Infinity],'k':3}", "int ", 3}, {"{'x':1e999,'k':3}", "int ", 3},
    {"{'x':99999999999999999999999,'y':-99999999999999999999,'k':3}", "int ", 3}, {"{'k':'NaN, 1e999'}", "text ", 10},
    {"{'k':'a\\'NaN'}", "text ", 5}, {"\xEF\xBB\xBF{'k':3}", "int ", 3}, {"{'k':[1.0,2,0]}", "three ", 21},
};
// clang-format on

static void test_good_settings(void) {
    for (int i = 0; i < N_OF(good_settings); i++) {
        char err[512] = "";
        Settings s;
        parse(&s, good_settings[i].json, err, sizeof err);
        double found = read_setting(&s, good_settings[i].reader);
        CHECK(!s.failed && !err[0], "%s: %s", good_settings[i].json, err);
        CHECK(found == good_settings[i].want, "%s: %g, expected %g", good_settings[i].json, found,
              good_settings[i].want);
        CHECK(settings_has(&s, "k") == (strstr(good_settings[i].json, "'k'") && !strstr(good_settings[i].json, "null")),
              "%s: settings_has", good_settings[i].json);
        settings_free(&s);
        CHECK(!s.object, "settings_free");
        settings_free(&s); // harmless
    }
    Settings none = {0};
    settings_free(&none);
}

// An object that is absent or wrong: asking it is harmless, and required keys fail.
static void test_absent_objects(void) {
    char err[512] = "";
    Settings s;
    parse(&s, "{'wrong':5}", err, sizeof err);
    Settings none = settings_object(&s, "none");
    CHECK(!none.object && !s.failed && settings_int(&none, "k", 1, 10, 4) == 4 && !settings_has(&none, "k"), "none");
    CHECK(!s.failed && !err[0], "'%s'", err);
    CHECK(settings_int(&none, "k", 1, 10, 0) == 0 && s.failed, "required, below an absent object");
    expect_line(err, settings_path, "none.k: expected an integer from 1 to 10, not found", "an absent object");
    settings_free(&s);
    err[0] = 0;
    parse(&s, "{'a':{'b':{'key':[]}}}", err, sizeof err);
    Settings a = settings_object(&s, "a"), b = settings_object(&a, "b");
    CHECK(settings_int(&b, "key", 1, 10, 0) == 0 && s.failed, "two objects down");
    expect_line(err, settings_path, ": a.b.key: expected an integer, found an array", "two objects down");
    settings_free(&s);
    err[0] = 0;
    parse(&s, "{'wrong':5}", err, sizeof err);
    Settings wrong = settings_object(&s, "wrong");
    CHECK(s.failed && !wrong.object, "a number as object");
    CHECK(settings_string(&wrong, "k", NULL)[0] == 0 && settings_int(&wrong, "k", 1, 2, 2) == 2, "asked all the same");
    expect_line(err, settings_path, "wrong: expected an object, found an integer", "a wrong object");
    settings_free(&s);
    parse(&s, "{}", err, sizeof err);
    settings_fail(&s, "a\nb", "expected %d\n, found %s", 5, "\033[31m");
    CHECK(!strcmp(err, "some/config.json: a?b: expected 5?, found ?[31m"), "'%s'", err);
    settings_free(&s);
}

// -- configurations beside weights

// What callees left on the stack, gone.
static __attribute__((noinline)) void clean_stack(void) {
    volatile char room[1 << 15];
    for (size_t i = 0; i < sizeof room; i++) room[i] = '*';
}

// load_config(path) reads `file`, which holds {"k": want}.
static void expect_config(const char *path, const char *file, int want, const char *what) {
    char err[512] = "";
    Settings s;
    NEED(!load_config(&s, path, err, sizeof err), "%s: %s", what, err);
    clean_stack();
    CHECK(settings_int(&s, "k", 1, 10, 0) == want, "%s: wrong file: %s", what, err);
    settings_int(&s, "absent", 1, 10, 0);
    expect_line(err, in_folder(file), "absent: expected an integer", what);
    settings_free(&s);
}

static void expect_bad_config(const char *path, const char *at, const char *want, const char *what) {
    char err[512] = "";
    Settings s;
    memset(&s, 0xAA, sizeof s);
    CHECK(load_config(&s, path, err, sizeof err) == -1 && !s.object, "%s: expected a failure", what);
    expect_line(err, at, want, what);
    settings_free(&s);
}

static void test_configs(void) {
    folder_make();
    expect_bad_config(folder, in_folder("config.json"), "No such file", "an empty folder");
    expect_bad_config(in_folder("x.safetensors"), in_folder("config.json"), "No such file", "nothing beside a file");
    write_file("x.safetensors", "\2\0\0\0\0\0\0\0{}", 10);
    write_json("x_config.json", "{'k':3}");
    expect_config(in_folder("x.safetensors"), "x_config.json", 3, "STEM_config.json beside a file");
    expect_config(folder, "x_config.json", 3, "STEM_config.json in a folder");
    remove(in_folder("x_config.json"));
    write_json("config.json", "{'k':4}");
    expect_config(in_folder("x.safetensors"), "config.json", 4, "config.json beside a file");
    expect_config(folder, "config.json", 4, "config.json in a folder");
    write_json("config.json", "[]");
    expect_bad_config(folder, in_folder("config.json"), "expected a JSON object", "an array");
    write_json("config.json", "{'k':");
    expect_bad_config(in_folder("x.safetensors"), in_folder("config.json"), "not JSON", "not JSON");
    write_file("config.json", "", 0);
    expect_bad_config(folder, in_folder("config.json"), "the file is empty", "empty");
    CHECK(!truncate(in_folder("config.json"), 100000001), "truncate");
    expect_bad_config(folder, in_folder("config.json"), "expected at most 100000000 bytes", "over the cap");
    folder_remove();
}

int main(void) {
    RUN(test_good_settings);
    RUN(test_absent_objects);
    RUN(test_configs);
    return test_report();
}
