// json: a JSON text read in order, without a tree.
//
// Owns the way into values too large for one: a vocabulary of 200,000 entries takes jansson half a second as a tree.
// All else is settings' and jansson's. Refuses what is not the value asked for. Called by vocab_json.
#pragma once
#include "file.h"

// After the first failure every call returns zeros, `failed` stays set and err holds the message.
typedef struct {
    const char *path, *what;      // for messages
    const char *begin, *at, *end; // of the whole text; of what is left
    bool failed;
    char *err;
    size_t errlen;
} JsonReader;

// The next member of an object whose '{' was taken: its key, as it is written, with the reader at the value. false: the
// object ended, or it is none. Values are read, or skipped; what is skipped is told from what follows, not checked.
bool json_member(JsonReader *r, bool first, const char **key, size_t *n);
void json_skip(JsonReader *r);

// Past white space: is this the next character? Then it is consumed.
bool json_take(JsonReader *r, char c);
void json_need(JsonReader *r, char c); // fails where it is not
// Between elements: consumes a comma and returns true, or `close` and returns false. first: no comma yet.
bool json_more(JsonReader *r, char close, bool first);
// A text, unescaped into out; it never takes more room than it is written with. Returns its bytes.
size_t json_text(JsonReader *r, char *out);
int64_t json_whole(JsonReader *r);
double json_number(JsonReader *r);
// "path: what at byte N: message".
void json_fail(JsonReader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
