// fuzz_request: bodies of the API from arbitrary bytes, against the shipped model.
//
// Byte 0: chat or completion, and whether the rest is the body itself or pieces of bodies, one a byte. Aborts when a
// request that is taken has a value out of its range, or one that is refused has no message.
#include "reply.h"

#include <stb/stb_ds.h>

#include "fuzz.h"

// clang-format off
static const char *const pieces[] = {"{", "}", "[", "]", ",", ":", "\"prompt\":\"a\"", "\"prompt\":[1,2]", "\"prompt\":[\"a\",\"b\"]",
    "\"messages\":[", "{\"role\":\"user\",\"content\":\"hi\"}", "{\"role\":\"system\",\"content\":[", "{\"type\":\"text\",\"text\":\"x\"}",
    "{\"role\":\"assistant\",\"tool_calls\":[]}", "{\"role\":\"tool\",\"content\":\"x\",\"tool_call_id\":\"1\"}", "\"temperature\":",
    "\"top_p\":", "\"top_k\":", "\"min_p\":", "\"n\":", "\"max_tokens\":", "\"max_completion_tokens\":", "\"seed\":", "\"stop\":",
    "\"stream\":", "\"stream_options\":{\"include_usage\":true}", "\"logprobs\":", "\"top_logprobs\":", "\"logit_bias\":{\"5\":1}",
    "\"logit_bias\":{", "\"response_format\":{\"type\":\"json_object\"}", "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":",
    "{\"type\":\"integer\"}}}", "\"echo\":true", "\"tools\":[{}]", "\"tools\":[", "{\"type\":\"function\",\"function\":{\"name\":\"f\"}}",
    "{\"type\":\"function\",\"function\":{\"name\":\"g\",\"parameters\":", "}}", "\"tool_choice\":\"required\"", "\"tool_choice\":\"none\"",
    "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}", "\"parallel_tool_calls\":", "{\"$ref\":\"#\"}",
    "\"properties\":{\"a\":", "{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":", "}}]}", "\"chat_template_kwargs\":{\"x\":1}", "\"reasoning_effort\":\"low\"",
    "\"frequency_penalty\":", "\"presence_penalty\":", "\"repeat_penalty\":", "0", "1", "2", "-1", "0.5", "1e400", "99999999999",
    "true", "false", "null", "\"x\"", "\"\"", "[]", "{}", "\"\\ud83d\\ude00\"", "\"modalities\":[\"text\"]"};
// clang-format on
enum { N_PIECES = sizeof pieces / sizeof *pieces };

static Served served;
static ToolForm form;

static void open_served(void) {
    char err[256];
    served = (Served){.engine = engine_open("models/stories.bin", NULL, err, sizeof err),
                      .model_name = "x",
                      .n_ctx = 256,
                      .most_choices = 8};
    REQUIRE(served.engine);
    served.sampling = engine_sampling(served.engine);
    served.chat = engine_chat(served.engine, err, sizeof err);
    REQUIRE(served.chat);
    REQUIRE(!toolform_learn(&form, (Chat *)(uintptr_t)served.chat, err, sizeof err));
    served.tools = &form;
}

static void check_taken(const Request *r) {
    int n = (int)arrlen(r->prompts);
    const SamplerOptions *o = &r->sampling;
    REQUIRE(n >= 1 && r->n_choices >= 1 && n * r->n_choices <= 8);
    REQUIRE(r->max_tokens == -1 || r->max_tokens >= 1);
    REQUIRE(o->temperature >= 0 && o->top_p > 0 && o->top_p <= 1 && o->min_p >= 0 && o->min_p <= 1 && o->top_k >= 0);
    REQUIRE(r->top_logprobs >= 0 && r->top_logprobs <= 20);
    REQUIRE(!r->constraints || (int)arrlen(r->constraints) == n * r->n_choices);
    REQUIRE(!r->tools.forced || (r->lead.n > 0 && r->constraints && r->tools.names));
    for (int i = 0; i < n; i++) {
        REQUIRE(r->prompts[i].n >= 1 && r->prompts[i].n <= 256);
        for (int k = 0; k < r->prompts[i].n; k++)
            REQUIRE(r->prompts[i].ids[k] >= 0 && r->prompts[i].ids[k] < engine_info(served.engine).vocab_size);
    }
}

static void check_refused(const ApiError *e) {
    REQUIRE(e->status >= 400 && *e->message && e->type);
    free(reply_error(e));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!served.engine) open_served();
    if (!size) return 0;
    bool chat = *data & 1, raw = *data & 2;
    char body[16384];
    size_t n = 0;
    for (size_t i = 1; i < size && n < sizeof body - 128; i++) {
        const char *piece = pieces[data[i] % N_PIECES];
        size_t len = raw ? 1 : strlen(piece);
        memcpy(body + n, raw ? (const char *)&data[i] : piece, len);
        n += len;
    }
    Request r;
    ApiError error = {0};
    if ((chat ? request_chat : request_completion)(&r, &served, body, n, &error)) check_refused(&error);
    else check_taken(&r);
    request_free(&r);
    return 0;
}
