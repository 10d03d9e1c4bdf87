// chat: the model's chat template run on messages, its text to ids, and what is known of how answers end. See chat.h.
//
// Refuses what the template refuses. A model without a template gets plain text, and chat_info says so.
//
// The table of families only names them, and says which text ends an answer where the vocabulary does not.
#include "chat.h"

#include "bytes.h"
#include "chat_messages.h"
#include "file.h"
#include "jinja_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

static const char PLAIN[] = "{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}\n\n"
                            "{% elif message.role == 'user' %}User: {{ message.content + '\\n' }}"
                            "{% else %}Assistant: {{ message.content + '\\n' }}{% endif %}{% endfor %}"
                            "{% if add_generation_prompt %}Assistant:{% endif %}";

typedef struct {
    const char *name;
    const char *markers[3]; // all are in the template, with " as ' and \n as a newline
    const char *stop;       // ends an answer, like the model's end tokens; NULL: nothing
    bool channels;          // harmony's
} ChatFormat;

// clang-format off
static const ChatFormat formats[] = { // the first whose markers are all in the template
    {"gpt-oss", {"<|start|>", "<|channel|>"}, "<|return|>", true},
    {"Phi-4", {"<|im_start|>", "<|im_sep|>"}, "<|im_end|>", false},
    {"SmolVLM", {"<|im_start|>", "<end_of_utterance>", "'User: '"}, "<end_of_utterance>", false},
    {"ChatML that thinks first", {"<|im_start|>assistant\n<think>\n'"}, "<|im_end|>", false},
    {"ChatML", {"<|im_start|>"}, "<|im_end|>", false},
    {"Llama 3.1", {"<|start_header_id|>", "Cutting Knowledge Date: December 2023"}, "<|eot_id|>", false},
    {"Llama 3", {"<|start_header_id|>"}, "<|eot_id|>", false},
    {"Gemma", {"<start_of_turn>"}, "<end_of_turn>", false},
    {"Llama 2", {"[INST]", "<<SYS>>", "bos_token + '[INST]"}, NULL, false},
    {"Llama 2, one BOS", {"[INST]", "<<SYS>>"}, NULL, false},
    {"Mistral v7", {"[SYSTEM_PROMPT]", "'[INST] '"}, NULL, false},
    {"Mistral v7-tekken", {"[SYSTEM_PROMPT]", "'[INST]'"}, NULL, false},
    {"Mistral v1", {"' [INST] '", "' [/INST]'"}, NULL, false},
    {"Mistral before v1", {"'[INST] '", "' [/INST]'"}, NULL, false},
    {"Mistral v3", {"'[INST] '", "'[/INST]'"}, NULL, false},
    {"Mistral v3-tekken", {"'[INST]'", "'[/INST]'"}, NULL, false},
    {"Phi-4-mini", {"<|end|>", "'|>' + message['content'] + '<|end|>'"}, "<|end|>", false},
    {"Phi-3", {"<|end|>", "<|assistant|>"}, "<|end|>", false},
    {"Zephyr", {"<|assistant|>", "'<|user|>\n' + message['content'] + eos_token"}, NULL, false},
    {"DeepSeek R1", {"<｜User｜>", "'<｜Assistant｜><think>\n'"}, NULL, false},
    {"DeepSeek V3", {"<｜User｜>", "<｜Assistant｜>"}, NULL, false},
    {"DeepSeek", {"'User: '", "'Assistant: ' + message['content'] + eos_token"}, NULL, false},
};
// clang-format on
enum { N_FORMATS = sizeof formats / sizeof *formats };
static const ChatFormat own_format = {.name = "the model's own template"};
static const ChatFormat plain_format = {.name = "plain text", .stop = "\nUser:"};

typedef struct {
    char *name, *json;
} ChatVariable;

struct Chat {
    const Tokenizer *tokenizer;
    const ChatFormat *format;
    Jinja *program;
    bool has_template, starts_thinking;
    MessageForm form;
    char *stop; // NULL: none
    struct tm now;
    ChatVariable *variables; // stb_ds array
    int32_t *specials;       // stb_ds array: special tokens that messages must not produce
};

// ---- the template

// A copy with " as ' and \n as a newline. NULL: out of memory.
static char *template_normalize(const char *text) {
    char *copy = strdup(text), *to = copy;
    if (!copy) return NULL;
    for (; *text; text++) {
        bool newline = text[0] == '\\' && text[1] == 'n';
        if (newline) text++;
        *to++ = newline ? '\n' : *text;
        if (*text == '"') to[-1] = '\'';
    }
    *to = 0;
    return copy;
}

static const ChatFormat *format_find(const char *template) {
    for (const ChatFormat *f = formats; f < &formats[N_FORMATS]; f++) {
        bool all = true;
        for (int i = 0; i < 3 && f->markers[i]; i++) all = all && strstr(template, f->markers[i]);
        if (all) return f;
    }
    return &own_format;
}

// ---- messages to text

// What an example of a few words may take: a Chat is opened by way of a dozen, and a slow template must not be slow a
// dozen times.
enum { EXAMPLE_MEMORY = 32 << 20, EXAMPLE_STEPS = 1000000 };

typedef struct {
    const Chat *chat;
    const ChatMessage *messages;
    int n;
    bool answer;
    MessageForm form;
    bool example;
} Conversation;

static void put_token(JinjaHeap *h, JinjaDict *variables, const char *name, const Tokenizer *t, int id) {
    const Piece *p = tokenizer_piece(t, id);
    jinja_put_word(h, variables, name, p && p->len > 0 ? jinja_text(p->text, (size_t)p->len) : jinja_word(""));
}

static void fill_variables(JinjaHeap *h, JinjaDict *variables, const void *from) {
    const Conversation *v = from;
    const Chat *c = v->chat;
    jinja_put_word(h, variables, "messages", messages_value(h, c->tokenizer, v->messages, v->n, v->form));
    jinja_put_word(h, variables, "add_generation_prompt", jinja_bool(v->answer));
    put_token(h, variables, "bos_token", c->tokenizer, tokenizer_bos(c->tokenizer));
    put_token(h, variables, "eos_token", c->tokenizer, tokenizer_eos(c->tokenizer));
    for (ptrdiff_t i = 0; i < arrlen(c->variables); i++) {
        const char *json = c->variables[i].json;
        jinja_put_word(h, variables, c->variables[i].name, jinja_read_json(h, json, strlen(json)));
    }
}

static int render_in_form(const Conversation *v, JinjaOutput *out, char *err, size_t errlen) {
    JinjaInput in = {.fill = fill_variables, .from = v, .now = v->chat->now};
    if (v->example) {
        in.memory = EXAMPLE_MEMORY;
        in.steps = EXAMPLE_STEPS;
    }
    return jinja_render(v->chat->program, &in, out, err, errlen);
}

static int render(const Chat *c, const ChatMessage *messages, int n, bool answer, JinjaOutput *out, char *err,
                  size_t errlen) {
    return render_in_form(&(Conversation){c, messages, n, answer, c->form, false}, out, err, errlen);
}

static int render_example(const Chat *c, const ChatMessage *messages, int n, JinjaOutput *out) {
    return render_in_form(&(Conversation){c, messages, n, true, c->form, true}, out, NULL, 0);
}

// A MessageTrial.
static char *try_form(const void *context, const ChatMessage *messages, int n, MessageForm form) {
    JinjaOutput out;
    return render_in_form(&(Conversation){context, messages, n, true, form, true}, &out, NULL, 0) ? NULL : out.text;
}

char *chat_text(const Chat *c, const ChatMessage *messages, int n, bool answer) {
    JinjaOutput out;
    return render(c, messages, n, answer, &out, NULL, 0) ? NULL : out.text;
}

// ---- special tokens

bool chat_piece_is(const Chat *c, int32_t id, const char *text) {
    const Piece *p = tokenizer_piece(c->tokenizer, id);
    return p && piece_is(p, text);
}

bool chat_ends(const Chat *c, int32_t id) {
    if (c->format->channels && chat_piece_is(c, id, "<|end|>")) return false; // ends one of several channels
    return tokenizer_is_end(c->tokenizer, id) || id == tokenizer_bos(c->tokenizer) ||
           (c->stop && chat_piece_is(c, id, c->stop));
}

static bool is_in(const Piece *p, const char *text, size_t n) {
    return n && memmem(text, n, p->text, (size_t)p->len);
}

// All control tokens, and those USER tokens that the template or an example of its text has: others are ordinary text
// (newlines, HTML).
static void find_specials(Chat *c, const char *template, const JinjaOutput *example) {
    arrsetlen(c->specials, 0);
    for (int32_t id = 0; id < tokenizer_size(c->tokenizer); id++) {
        const Piece *p = tokenizer_piece(c->tokenizer, id);
        bool user = p->type == TOKEN_USER && p->len > 2 && (p->text[0] == '<' || p->text[0] == '[');
        bool used =
            user && (chat_ends(c, id) || is_in(p, template, strlen(template)) || is_in(p, example->text, example->n));
        if (p->len > 0 && (p->type == TOKEN_CONTROL || p->type == TOKEN_UNKNOWN || used)) arrput(c->specials, id);
    }
}

// ---- a Chat

static ChatMessage example_message(ChatRole role, const char *text) {
    return (ChatMessage){.role = role, .text = text, .n = strlen(text)};
}

// A mark between the answer and the next question of the example, or all that stands there.
static char *find_stop(const JinjaOutput *example, const char *answer, const char *question) {
    const char *begin = example->n ? strstr(example->text, answer) : NULL,
               *end = begin ? strstr(begin, question) : NULL;
    if (!end) return NULL;
    begin += strlen(answer);
    const char *mark = begin;
    while (mark < end && byte_is_space(*mark)) mark++;
    const char *close = *mark == '<'   ? memchr(mark, '>', (size_t)(end - mark))
                        : *mark == '[' ? memchr(mark, ']', (size_t)(end - mark))
                                       : NULL;
    if (close) return strndup(mark, (size_t)(close - mark) + 1);
    while (end > begin && byte_is_space(end[-1])) end--;
    return end > mark ? strndup(begin, (size_t)(end - begin)) : NULL;
}

static void find_thinking(Chat *c, bool example) {
    JinjaOutput out;
    ChatMessage m = example_message(CHAT_USER, "?");
    c->starts_thinking = false;
    if (example ? render_example(c, &m, 1, &out) : render(c, &m, 1, true, &out, NULL, 0)) return;
    while (out.n && byte_is_space(out.text[out.n - 1])) out.n--;
    c->starts_thinking = out.n >= 7 && !memcmp(out.text + out.n - 7, "<think>", 7);
    free(out.text);
}

// What an example of a conversation shows of the template.
static void learn(Chat *c, const char *template) {
    static const char answer[] = "an\u1E9Eswer", question[] = "ques\u1E9Etion";
    const ChatMessage m[] = {example_message(CHAT_SYSTEM, "sys\u1E9Etem"), example_message(CHAT_USER, "fi\u1E9Erst"),
                             example_message(CHAT_ASSISTANT, answer), example_message(CHAT_USER, question)};
    JinjaOutput example = {0};
    c->form = messages_form(try_form, c);
    if (render_example(c, m, 4, &example)) render_example(c, m + 1, 3, &example);
    c->stop = c->format->stop ? strdup(c->format->stop) : NULL;
    if (c->format == &own_format) c->stop = find_stop(&example, answer, question);
    find_thinking(c, true);
    find_specials(c, template, &example);
    free(example.text);
}

Chat *chat_open(const Tokenizer *t, const char *chat_template, time_t now, char *err, size_t errlen) {
    Chat *c = calloc(1, sizeof *c);
    bool has_template = chat_template && *chat_template;
    const char *template = has_template ? chat_template : PLAIN;
    char *normal = template_normalize(template);
    if (!c || !normal) {
        free(c);
        free(normal);
        fail(err, errlen, "chat: out of memory");
        return NULL;
    }
    c->tokenizer = t;
    c->format = has_template ? format_find(normal) : &plain_format;
    c->has_template = chat_template;
    free(normal);
    gmtime_r(&now, &c->now);
    c->program = jinja_open(template, strlen(template), err, errlen);
    if (c->program) {
        learn(c, template);
        return c;
    }
    chat_close(c);
    return NULL;
}

void chat_close(Chat *c) {
    if (!c) return;
    for (ptrdiff_t i = 0; i < arrlen(c->variables); i++) {
        free(c->variables[i].name);
        free(c->variables[i].json);
    }
    jinja_close(c->program);
    free(c->stop);
    arrfree(c->variables);
    arrfree(c->specials);
    free(c);
}

int chat_set(Chat *c, const char *name, const char *json, char *err, size_t errlen) {
    ChatVariable v = {strdup(name), strdup(json)};
    ChatMessage m = example_message(CHAT_USER, "?");
    if (!v.name || !v.json) {
        free(v.name);
        free(v.json);
        return fail(err, errlen, "chat: out of memory");
    }
    arrput(c->variables, v);
    JinjaOutput out;
    if (render(c, &m, 1, true, &out, err, errlen)) {
        v = arrpop(c->variables);
        free(v.name);
        free(v.json);
        return -1;
    }
    free(out.text);
    find_thinking(c, false); // its variables may be long
    return 0;
}

ChatInfo chat_info(const Chat *c) {
    return (ChatInfo){.family = c->format->name, .has_template = c->has_template, .known = c->format != &plain_format};
}

const Tokenizer *chat_tokenizer(const Chat *c) {
    return c->tokenizer;
}

const char *chat_stop(const Chat *c) {
    return c->stop;
}

bool chat_has_channels(const Chat *c) {
    return c->format->channels;
}

bool chat_starts_thinking(const Chat *c) {
    return c->starts_thinking;
}

// ---- text to ids

typedef struct {
    const Chat *chat;
    JinjaOutput text;
    int32_t *ids;   // stb_ds array
    size_t encoded; // bytes of the text that are already encoded
    char *err;
    size_t errlen;
} ChatEncoder;

static int encode_until(ChatEncoder *x, size_t end, unsigned flags) {
    const Tokenizer *t = x->chat->tokenizer;
    const Piece *bos = tokenizer_piece(t, tokenizer_bos(t));
    const char *text = x->text.text;
    bool has_bos = bos && bos->len > 0 && (size_t)bos->len <= end && !memcmp(text, bos->text, (size_t)bos->len);
    if (end == x->encoded) return 0;
    if (x->encoded) flags |= TOKENIZE_INSIDE;
    else if (!has_bos || flags & TOKENIZE_PLAIN) flags |= TOKENIZE_BOS;
    int32_t *ids;
    int n = tokenizer_encode(t, text + x->encoded, end - x->encoded, flags, &ids, x->err, x->errlen);
    if (n < 0) return -1;
    if (n) memcpy(arraddnptr(x->ids, n), ids, (size_t)n * sizeof *ids);
    free(ids);
    x->encoded = end;
    return 0;
}

// Length in bytes of the longest special token at byte `at`, of those that the template wrote whole, or of all; 0:
// none.
static size_t special_at(const ChatEncoder *x, size_t at, size_t end, bool all) {
    const Chat *c = x->chat;
    size_t longest = 0;
    for (ptrdiff_t i = 0; i < arrlen(c->specials); i++) {
        const Piece *p = tokenizer_piece(c->tokenizer, c->specials[i]);
        size_t len = (size_t)p->len;
        if (p->text[0] != x->text.text[at] || len <= longest || len > end - at) continue;
        if (memcmp(p->text, x->text.text + at, len)) continue;
        if (all || !memchr(x->text.from + at, 1, len)) longest = len;
    }
    return longest;
}

// Messages are encoded together with the template's text around them, so that merges across the borders are those of
// the whole text. Only the texts of special tokens that the template did not write are encoded separately, as
// ordinary text.
static int encode_text(ChatEncoder *x, size_t end) {
    for (size_t i = x->encoded, len; i < end; i += len ? len : 1) {
        len = special_at(x, i, end, false);
        if (len) continue;
        len = special_at(x, i, end, true);
        if (len && (encode_until(x, i, TOKENIZE_SPECIAL) || encode_until(x, i + len, TOKENIZE_PLAIN))) return -1;
    }
    return encode_until(x, end, TOKENIZE_SPECIAL);
}

// Where the text of an answer that begins at `at` ends, white space around it aside; 0: another text stands there.
static size_t match_answer(const JinjaOutput *text, size_t at, const char *answer, size_t n) {
    while (n && byte_is_space(*answer)) {
        answer++;
        n--;
    }
    while (at < text->n && byte_is_space(text->text[at])) at++;
    size_t body = n;
    while (body && byte_is_space(answer[body - 1])) body--;
    if (!body || body > text->n - at || memcmp(text->text + at, answer, body)) return 0;
    for (at += body; body < n && at < text->n && text->text[at] == answer[body]; body++) at++;
    return at;
}

// The ids of an answer stand as they were generated, if the text up to them is that of their prompt.
static int encode_answer(ChatEncoder *x, const ChatMessage *messages, int i) {
    const ChatMessage *m = &messages[i];
    JinjaOutput prompt;
    if (render(x->chat, messages, i, true, &prompt, NULL, 0)) return 0;
    bool same = prompt.n >= x->encoded && prompt.n <= x->text.n && !memcmp(prompt.text, x->text.text, prompt.n);
    size_t at = prompt.n;
    free(prompt.text);
    char *answer = text_of_ids(x->chat->tokenizer, m->ids, m->n_ids);
    size_t end = same ? match_answer(&x->text, at, answer, arrlenu(answer)) : 0;
    arrfree(answer);
    if (!end) return 0;
    if (encode_text(x, at)) return -1;
    memcpy(arraddnptr(x->ids, m->n_ids), m->ids, sizeof *x->ids * (size_t)m->n_ids);
    x->encoded = end;
    return 0;
}

int chat_encode(const Chat *c, const ChatMessage *messages, int n, bool answer, int32_t **ids, char *err,
                size_t errlen) {
    ChatEncoder x = {.chat = c, .err = err, .errlen = errlen};
    *ids = NULL;
    if (render(c, messages, n, answer, &x.text, err, errlen)) return -1;
    int rc = 0;
    for (int i = 0; !rc && i < n; i++) {
        if (messages[i].role == CHAT_ASSISTANT && messages[i].ids && messages[i].n_ids)
            rc = encode_answer(&x, messages, i);
    }
    if (!rc) rc = encode_text(&x, x.text.n);
    int n_ids = (int)arrlen(x.ids);
    if (!rc) *ids = malloc(((size_t)n_ids + 1) * sizeof **ids);
    if (*ids && n_ids) memcpy(*ids, x.ids, (size_t)n_ids * sizeof **ids);
    if (!rc && !*ids) rc = fail(err, errlen, "chat: out of memory for %d tokens", n_ids);
    arrfree(x.ids);
    free(x.text.text);
    return rc ? -1 : n_ids;
}
