// check_hostile_families: every setting of every family's GGUF file and config.json, absent or with a value that it
// should not have: the model is refused in one line, or it runs. So is each tensor that is absent.
//
//   build/tests/check_hostile_families [NAME...]    all fixtures, or these
//
// What is right for one key is check_families' and tests/bad's; this is for those that nobody thought of.
#include "make_bin.h"
#include "make_family.h"
#include "reference.h"

static const char *const values[] = {"0", "1", "-1", "3", "65536", "2147483647", "4294967295", "1e30", "[1, 2]", NULL};

static int n_tried, n_ran;

// A model that is sound may be large: what it would take is what the fixture takes.
static void try_model(const Fixture *f, const char *path, const char *tokenizer, const char *key, const char *value) {
    static FamilyLogits unused;
    char err[512] = "";
    bool ran = family_run(&unused, f, path, tokenizer, 1, 3, err, sizeof err);
    CHECK(ran || one_line(err), "%s: %s = %s: '%s'", f->name, key, value ? value : "(absent)", err);
    n_tried++;
    n_ran += ran;
}

// Every so many of all trials, when time is short; the next fixture goes on where this one ended.
static bool chosen_trial(void) {
    static int count;
    return count++ % by_speed(11, 61, 251) == 0;
}

static bool has_value(const char *type, const json_t *v) {
    if (!v) return true;
    if (!strcmp(type, "u32")) return json_is_integer(v);
    if (!strcmp(type, "f32")) return json_is_number(v);
    return json_is_array(v) && (!strcmp(type, "bools") || !strcmp(type, "f32s") || !strcmp(type, "i32s"));
}

static void change_gguf(const Fixture *f) {
    json_t *settings = family_part(f, "gguf_settings");
    char path[512];
    snprintf(path, sizeof path, "%s/changed.gguf", folder);
    for (size_t i = 0; i < json_array_size(settings); i++) {
        json_t *setting = json_incref(json_array_get(settings, i)), *before = json_array_get(setting, 2);
        const char *key = spec_text(setting, 0);
        json_incref(before);
        for (int v = 0; v < N_OF(values); v++) {
            json_t *value = values[v] ? json_loads(values[v], JSON_DECODE_ANY, NULL) : NULL;
            if (has_value(spec_text(setting, 1), value) && chosen_trial()) {
                if (value) json_array_set(setting, 2, value);
                else json_array_remove(settings, i);
                write_family_gguf(f, path);
                try_model(f, path, NULL, key, values[v]);
                if (!value) json_array_insert(settings, i, setting);
            }
            json_decref(value);
        }
        json_array_set_new(setting, 2, before);
        json_decref(setting);
    }
}

static void change_config(const Fixture *f) {
    const char *tokenizer = in_folder("made.tokenizer.bin"), *key;
    json_t *config = family_part(f, "config"), *copy = json_deep_copy(config), *before;
    make_tokenizer_bin(tokenizer, f->vocab_size, 1);
    write_family(f);
    json_object_foreach(copy, key, before) {
        for (int v = 0; v < N_OF(values); v++) {
            if (json_is_string(before) || !chosen_trial()) continue;
            if (values[v]) json_object_set_new(config, key, json_loads(values[v], JSON_DECODE_ANY, NULL));
            else json_object_del(config, key);
            char *text = json_dumps(config, 0);
            write_text("config.json", text);
            free(text);
            try_model(f, folder, tokenizer, key, values[v]);
        }
        json_object_set(config, key, before);
    }
    json_decref(copy);
}

static void drop_tensors(const Fixture *f) {
    json_t *tensors = family_part(f, "gguf_tensors");
    char path[512];
    snprintf(path, sizeof path, "%s/changed.gguf", folder);
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        if (!chosen_trial()) continue;
        json_t *tensor = json_incref(json_array_get(tensors, i));
        json_array_remove(tensors, i);
        write_family_gguf(f, path);
        try_model(f, path, NULL, spec_text(tensor, 0), NULL);
        json_array_insert(tensors, i, tensor);
        json_decref(tensor);
    }
}

static void change(const Fixture *f) {
    folder_make();
    change_config(f);
    if (family_has_gguf(f)) change_gguf(f);
    if (family_has_gguf(f)) drop_tensors(f);
    folder_remove();
}

static void every_setting(void) {
    each_family(change, false);
    printf("  %d models, %d of them sound\n", n_tried, n_ran);
    CHECK(n_ran < n_tried, "every change is accepted");
}

int main(int argc, char **argv) {
    chosen = argv + 1;
    n_chosen = argc - 1;
    RUN(every_setting);
    return test_report();
}
