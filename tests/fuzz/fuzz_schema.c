// fuzz_schema: JSON Schemas from arbitrary bytes, and random texts of what compiles.
//
// Byte 0: how many of the bytes choose those of a text, each the first from it on that is allowed; the rest is pieces
// of schemas, one a byte, or, where the first of them is 0xFF, the schema itself. Aborts when a text that is accepted
// is no JSON.
#include "schema.h"

#include <jansson.h>

#include "fuzz.h"

// clang-format off
static const char *const pieces[] = {"{", "}", "[", "]", ",", ":", "\"type\":", "\"object\"", "\"array\"", "\"string\"",
    "\"integer\"", "\"number\"", "\"null\"", "\"boolean\"", "\"properties\":{", "\"required\":[", "\"items\":", "\"prefixItems\":[",
    "\"minItems\":", "\"maxItems\":", "\"minLength\":", "\"maxLength\":", "\"minimum\":", "\"maximum\":", "\"exclusiveMinimum\":",
    "\"anyOf\":[", "\"oneOf\":[", "\"allOf\":[", "\"$ref\":\"#\"", "\"$ref\":\"#/$defs/a\"", "\"$defs\":{\"a\":", "\"enum\":[",
    "\"const\":", "\"additionalProperties\":", "\"a\"", "\"b\":", "\"\\u00e9\\\"\"", "0", "1", "2", "-17", "340", "true", "false",
    "null", "1.5", "{}", "{\"type\":\"integer\"}", "\"not\":"};
// clang-format on
enum { N_PIECES = sizeof pieces / sizeof *pieces, MOST_TEXT = 512 };

// The first allowed byte from `from` on; -1: none is.
static int allowed_byte(Automaton *a, int state, unsigned from) {
    for (unsigned i = 0; i < 256; i++) {
        unsigned char b = (unsigned char)(from + i);
        if (automaton_next(a, state, b) != AUTOMATON_DEAD) return b;
    }
    return -1;
}

static void walk(Automaton *a, int state, Input *in) {
    char text[MOST_TEXT];
    for (size_t n = 0; n < MOST_TEXT && in->at < in->end; n++) {
        if (automaton_accepts(a, state)) {
            json_error_t at;
            json_t *v = json_loadb(text, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &at);
            REQUIRE(v || strstr(at.text, "too big") || strstr(at.text, "overflow"));
            json_decref(v);
        }
        int b = allowed_byte(a, state, next(in, 255));
        REQUIRE(b < 0 || automaton_goes_on(a, state));
        if (b < 0) return;
        text[n] = (char)b;
        state = automaton_next(a, state, (unsigned char)b);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    size_t n_text = data[0] < size - 1 ? data[0] : 0, n = 0;
    Input schema = {data + 1, data + size - n_text}, text = {data + size - n_text, data + size};
    char json[8192], err[256];
    bool raw = *schema.at == 0xFF;
    schema.at += raw;
    for (; schema.at < schema.end && n < sizeof json - 64; schema.at++) {
        const char *piece = pieces[*schema.at % N_PIECES];
        size_t len = raw ? 1 : strlen(piece);
        memcpy(json + n, raw ? (const char *)schema.at : piece, len);
        n += len;
    }
    json_t *root = json_loadb(json, n, JSON_DECODE_ANY, NULL);
    if (!root) return 0;
    Automaton *a = automaton_open();
    int rule = schema_compile(a, root, err, sizeof err);
    if (rule < 0) REQUIRE(strlen(err) > 8);
    else walk(a, automaton_start(a, rule), &text);
    automaton_close(a);
    json_decref(root);
    return 0;
}
