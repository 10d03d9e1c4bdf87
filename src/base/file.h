// file: a read-only mapping, and a bounded cursor over untrusted bytes.
//
// Owns the mapping and the form of error messages about a file: path, field, byte offset, expected, found. Refuses to
// return a pointer that was not checked against the file's size first. Called by the loaders.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    char *path;          // owned copy, for messages
    const uint8_t *data; // the mapping, page aligned (borrowed: at least 4); NULL: nothing is mapped
    size_t size;         // bytes
    bool borrowed;       // path and data belong to the caller (fuzzers read from memory): unmapping frees nothing
} File;

// Map `path` read-only. Returns 0, or -1 with one line in err. A directory, a pipe and an empty file are errors.
int file_map(File *f, const char *path, char *err, size_t errlen);
void file_unmap(File *f);                     // accepts a zeroed File
bool file_same(const char *a, const char *b); // both exist and are one file

// Programs call this once: a mapped file that shrinks while it is read ends the program with one line and
// status 1 instead of a bus error.
void file_guard_shrinking(void);

// Write one line into err (if not NULL) and return -1. Every error of the library is reported through this.
int fail(char *err, size_t errlen, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

// a * b, or a + b, into *out; false on overflow.
bool mul_u64(uint64_t a, uint64_t b, uint64_t *out);
bool add_u64(uint64_t a, uint64_t b, uint64_t *out);

// Reads little-endian values in order. After the first failure every call returns zeros, `failed` stays set and
// err holds the first message, so that callers may check once after several reads.
typedef struct {
    const File *file;
    uint64_t pos; // byte offset of the next read
    bool failed;
    char *err;
    size_t errlen;
} Cursor;

Cursor cursor_at(const File *f, uint64_t pos, char *err, size_t errlen);
const uint8_t *cursor_bytes(Cursor *c, uint64_t n, const char *what); // n bytes in place, or NULL
uint8_t cursor_u8(Cursor *c, const char *what);
uint32_t cursor_u32(Cursor *c, const char *what);
int32_t cursor_i32(Cursor *c, const char *what);
uint64_t cursor_u64(Cursor *c, const char *what);
float cursor_f32(Cursor *c, const char *what);
// Report an invalid value: "path: at byte N: message".
void cursor_fail(Cursor *c, uint64_t at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
