// settings: a model's JSON files (config.json and its like), read through jansson.
//
// Owns the one way to ask them: a key, the range its value must lie in, what an absent key means. Refuses a file that
// is not one JSON object, duplicate keys, and a value of the wrong type or out of range, with one line: path, key,
// expected, found.
#pragma once
#include <jansson.h>

#include <stdbool.h>
#include <stddef.h>

// One object of a file. A call that fails returns its fallback (or zero); `failed` of the root is set and err holds the
// first message, so callers may check once at the end of a group.
typedef struct Settings {
    json_t *object;      // owned by whoever called settings_read or settings_parse
    char *path;          // likewise
    struct Settings *up; // the object that this one stands in, which must outlive it; NULL: this is the root
    const char *name;    // its key there
    bool failed;         // of the root
    char *err;
    size_t errlen;
} Settings;

enum { MAX_SETTINGS_BYTES = 100 * 1000 * 1000 }; // what safetensors allows its header

// Map, parse and check that the root is an object. -1 with a line in err, and nothing to free.
int settings_read(Settings *s, const char *path, char *err, size_t errlen);
// The same with no whole numbers, only numbers of any size: tokenizer_config.json says 10^30.
int settings_read_reals(Settings *s, const char *path, char *err, size_t errlen);
// The first from n bytes of memory.
int settings_parse(Settings *s, const char *path, const char *text, size_t n, char *err, size_t errlen);
void settings_free(Settings *s); // of settings_read and settings_parse; accepts a zeroed Settings

// Absent or null: `fallback`; a fallback outside least..most means that the key is required.
int settings_int(Settings *s, const char *key, int least, int most, int fallback);
double settings_number(Settings *s, const char *key, double least, double most, double fallback);
bool settings_bool(Settings *s, const char *key, bool fallback);
// fallback NULL: required. The text belongs to the object.
const char *settings_text(Settings *s, const char *key, const char *fallback);
// Exactly n numbers into values (zeros when it fails); false when the key is absent.
bool settings_numbers(Settings *s, const char *key, int n, double *values);
// The object under a key; its `object` is NULL when the key is absent.
Settings settings_object(Settings *s, const char *key);
bool settings_has(const Settings *s, const char *key); // present and not null

// Set the failure by hand: "path: outer.key: message".
void settings_fail(Settings *s, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
