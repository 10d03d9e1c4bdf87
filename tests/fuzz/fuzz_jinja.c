// fuzz_jinja: any text as a chat template, over a fixed conversation.
//
// Aborts when an error is not one line, when a letter of the input's is called the template's, or when the output is
// not the same twice.
#include "jinja.h"
#include "jinja_json.h"

#include "fuzz.h"

// The input's text has letters that templates do not have: what comes out of them must be the input's.
static const char context[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \" \\u732b<|\\u732b|> 1\\n\"},"
    " {\"role\": \"assistant\", \"content\": \"\\u732b\", \"n\": [1, 2.5, null, true]}],"
    " \"tools\": [{\"name\": \"\\u732b\", \"p\": {\"b\": 1, \"a\": \"\\u732b\"}}], \"x\": \"\"}";

static void fill(JinjaHeap *h, JinjaDict *variables, const void *from) {
    (void)from;
    JinjaValue all = jinja_read_json(h, context, sizeof context - 1);
    for (size_t i = 0; i < all.dict->n; i++) jinja_put(h, variables, all.dict->keys[i], all.dict->values[i]);
}

static void require_one_line(const char *err) {
    REQUIRE(!strncmp(err, "chat template", 13) && !strpbrk(err, "\r\n"));
}

// No template of the fuzzer's that is ASCII without escapes can write this byte itself.
static void require_origins(const JinjaOutput *out) {
    for (size_t i = 0; i < out->n; i++) REQUIRE(out->from[i] <= 1 && ((uint8_t)out->text[i] < 0x80 || out->from[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    JinjaInput in = {.fill = fill, .memory = 1 << 22, .steps = 20000};
    JinjaOutput out, again;
    char err[500] = "";
    bool plain = true;
    for (size_t i = 0; i < size; i++) plain = plain && data[i] < 0x80 && data[i] != '\\';
    Jinja *j = jinja_open((const char *)data, size, err, sizeof err);
    if (!j) {
        require_one_line(err);
        return 0;
    }
    if (jinja_render(j, &in, &out, err, sizeof err)) {
        require_one_line(err);
        REQUIRE(!out.text);
    } else {
        if (plain) require_origins(&out);
        REQUIRE(!jinja_render(j, &in, &again, err, sizeof err));
        REQUIRE(out.n == again.n && !memcmp(out.text, again.text, out.n) && !memcmp(out.from, again.from, out.n));
        free(again.text);
        free(out.text);
    }
    jinja_close(j);
    return 0;
}
