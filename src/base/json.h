// json: reads a JSON document in order, without building a tree.
//
// Owns the parser for values that are too large for a tree: jansson needs half a second for a vocabulary of 200,000
// entries. Smaller documents go through settings.h and jansson. Refuses a value that is not of the requested type.
// Called by vocab_json.
#pragma once
#include "file.h"

// After the first failure every call returns zeros, `failed` stays set and err holds the message.
typedef struct {
    const char *path, *what;      // for messages
    const char *begin, *at, *end; // start of the document; the bytes still to be read
    bool failed;
    char *err;
    size_t errlen;
} JsonReader;

// The next member of an object whose '{' was consumed: its key, still escaped, with the reader at the value. false at
// the end of the object, or after a failure. The caller reads or skips the value; skipping does not validate it.
bool json_member(JsonReader *r, bool first, const char **key, size_t *n);
void json_skip(JsonReader *r);

bool json_accept(JsonReader *r, char c); // skips white space, then consumes the next character if it is c
void json_expect(JsonReader *r, char c); // the same, and fails if it is not
// Between elements: consumes a comma and returns true, or consumes `close` and returns false. first: no comma yet.
bool json_more(JsonReader *r, char close, bool first);
// Unescapes a string into out, which needs no more room than its source, and returns its length in bytes.
size_t json_read_string(JsonReader *r, char *out);
int64_t json_read_integer(JsonReader *r);
double json_read_number(JsonReader *r);
// "path: what at byte N: message".
void json_fail(JsonReader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
