// settings: a model's JSON files (config.json and similar), read through jansson.
//
// Owns typed access to them: a key, the range of its value, the default of an absent key. Reads what Python's json
// module writes and reads beyond the standard: NaN and Infinity, integers of any size, a key twice (the last counts), a
// byte order mark. Refuses a file that is not one JSON object, and a value of the wrong type or out of range, with one
// line: path, key, expected, found. Called by the loaders.
#pragma once
#include <jansson.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// One object of a file. A failed call returns its fallback (or zero) and sets `failed` of the root; err holds the first
// message, so callers may check once after a group of calls.
typedef struct Settings {
    json_t *object;      // of the root: owned by the caller of settings_read or settings_parse
    char *path;          // the same
    struct Settings *up; // the object that contains this one and must outlive it; NULL: this is the root
    const char *name;    // its key in `up`
    bool failed;         // of the root
    char *err;
    size_t errlen;
} Settings;

enum { MAX_SETTINGS_BYTES = 100 * 1000 * 1000 }; // the limit of a safetensors header

// Reads a file. -1 with a line in err, and nothing to free.
int settings_read(Settings *s, const char *path, char *err, size_t errlen);
// settings_read for n bytes of memory; path is for messages.
int settings_parse(Settings *s, const char *path, const char *text, size_t n, char *err, size_t errlen);
// The same, and refuses a key that is there twice.
int settings_parse_unique(Settings *s, const char *path, const char *text, size_t n, char *err, size_t errlen);
void settings_free(Settings *s); // only the root; accepts a zeroed Settings

// Absent or null: `fallback`. A fallback outside least..most makes the key required.
int settings_int(Settings *s, const char *key, int least, int most, int fallback);
double settings_number(Settings *s, const char *key, double least, double most, double fallback);
bool settings_bool(Settings *s, const char *key, bool fallback);
// fallback NULL: required. The object owns the string.
const char *settings_string(Settings *s, const char *key, const char *fallback);
// Reads an array of exactly n numbers (zeros on failure); false when the key is absent.
bool settings_numbers(Settings *s, const char *key, int n, double *values);
// A nested object; its `object` is NULL when the key is absent.
Settings settings_object(Settings *s, const char *key);
bool settings_has(const Settings *s, const char *key); // present and not null
// The first of several names of a setting that is there, or the first. Ended by NULL.
const char *settings_any(const Settings *s, const char *const *keys);
#define SETTINGS_ANY(s, ...) settings_any(s, (const char *const[]){__VA_ARGS__, NULL})
// An integer, or a real number that is one: 512.0. False: another value, or beyond 2^53.
bool settings_whole(const json_t *v, int64_t *n);

bool settings_failed(const Settings *s); // some call did, on this object or another of its file
// Reports a failure of the caller's own: "path: outer.key: message".
void settings_fail(Settings *s, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
